//! `warploss eval linear-cross-entropy`.

use super::call::{Call, Common, Evaluate, Evaluation, bytes, one_number, zeros};
use super::distill::Distil;
use super::linear::{self, OfProducts};
use super::of_logits::OfLogits;
use crate::base::dtype::DType;
use crate::base::error::Error;
use crate::base::tensor::{Tensor, TensorMut};
use crate::cli::failure::Failure;
use crate::cli::file::Input;
use crate::cli::memory;
use crate::spec::class_subset::{ClassSubset, MissingTarget, Rest};
use crate::spec::cross_entropy::{CrossEntropy, CrossEntropyOut, CrossEntropyUpstream, TopKOut};
use crate::spec::grad_output::GradOutput;
use crate::spec::linear_cross_entropy::{LinearCrossEntropy, LinearGradOut, LinearInput};
use clap::{Args, ValueEnum};
use std::time::Instant;

/// Options of the op.
#[derive(Debug, Args)]
#[command(after_help = "\
Reads input (hidden states [D] or [N, D]), linear_weight (the classifier [V, D], or [V, d1, ..., D]), target (class
indices, or probabilities [N, V]) and, where the file has them, linear_bias [V], weight [V],
temperature [N], row_weight [N] and, with --grad, grad_output, grad_logprob and grad_entropy (each
one per row). With ids, [N, K] or [S] for all rows (-1: none), and counts [N], the softmax goes over
those classes alone, and probabilities are [N, K] or [N, S]. Writes what --write names, of loss, lse, z_loss, logprob, entropy, argmax, rank and,
with --top-k, top_k (log-probabilities) and top_k_ids; with --grad also grad_input,
grad_linear_weight, grad_linear_bias, and grad_target for probabilities. No logits are in memory
but those of a chunk of rows.

With --distill the loss is a divergence from a teacher: it reads teacher_input [N, E] and
teacher_weight [V, E] and, where the file has them, teacher_bias [V] and teacher_temperature [N];
target, if there is one, only says which rows count. Writes loss; with --grad also the gradients of
the student's tensors, and grad_teacher_input, grad_teacher_weight and grad_teacher_bias. The
default reduction is batchmean.

Example:
  warploss eval linear-cross-entropy --input hidden.safetensors --write loss,lse,rank --output out.safetensors")]
pub(super) struct LinearCrossEntropyArgs {
    #[command(flatten)]
    common: Common,

    #[command(flatten)]
    of_logits: OfLogits,

    #[command(flatten)]
    of_products: OfProducts,

    /// What a row is whose target is not among its ids
    #[arg(
        long,
        value_name = "error|append|ignore",
        default_value = "error",
        hide_possible_values = true
    )]
    missing_target: MissingArg,

    /// What classes beside ids are, where the target holds probabilities of those
    #[arg(
        long,
        value_name = "excluded|bucket",
        default_value = "excluded",
        hide_possible_values = true
    )]
    rest: RestArg,

    /// Bound on |p - y| below which a row's piece of 64 classes has no gradient
    #[arg(long, value_name = "BOUND", allow_hyphen_values = true)]
    filter: Option<f32>,

    /// Tensor with a temperature for each row, which the file then has [default: temperature, if it is there]
    #[arg(long, value_name = "NAME")]
    rows_temperature: Option<String>,

    /// Tensor with the classes that rows list, which the file then has [default: ids, if it is there]
    #[arg(long, value_name = "NAME")]
    subset: Option<String>,

    #[command(flatten)]
    distil: Distil,

    /// The likeliest classes of each row, as many
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: usize,

    /// Which results to write
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', default_value = "loss,lse")]
    write: Vec<Written>,
}

/// `--missing-target`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MissingArg {
    Error,
    Append,
    Ignore,
}

/// `--rest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RestArg {
    Excluded,
    Bucket,
}

/// `--write`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Written {
    Loss,
    Lse,
    ZLoss,
    Logprob,
    Entropy,
    Argmax,
    Rank,
}

const NAMES: &[(&str, &str)] = &[
    ("linear_weight", "linear_weight"),
    ("linear_bias", "linear_bias"),
    ("temperature", "temperature"),
    ("row_weight", "row_weight"),
    ("grad_logprob", "grad_logprob"),
    ("grad_entropy", "grad_entropy"),
    ("label_smoothing", "--label-smoothing"),
    ("lse_square_scale", "--z-loss"),
    ("softcap", "--softcap"),
    ("ignore_index", "--ignore-index"),
    ("logit_scale", "--logit-scale"),
    linear::NAMES[0],
    linear::NAMES[1],
    ("gradient_filter", "--filter"),
    ("ids", "ids"),
    ("counts", "counts"),
    ("rest", "--rest"),
    ("top_k.classes", "--top-k"),
    ("rank", "--write rank"),
    ("argmax", "--write argmax"),
    ("logprob", "--write logprob"),
    ("entropy", "--write entropy"),
];

/// The results, as far as they are asked for.
struct Results {
    loss: Tensor,
    lse: Tensor,
    z_loss: Tensor,
    of_rows: Vec<(Written, &'static str, Tensor)>,
    top: Option<[Tensor; 2]>,
}

impl Evaluate for LinearCrossEntropyArgs {
    fn common(&self) -> &Common {
        &self.common
    }

    fn evaluate(&self, call: &Call<'_>) -> Result<Evaluation, Failure> {
        self.common.no_classes("the classes are linear_weight's rows")?;
        match self.distil.distill {
            Some(divergence) => {
                self.check_distilled()?;
                let options = (&self.common, &self.of_logits, &self.of_products);
                return self.distil.evaluate(divergence, options, call);
            }
            None => self.distil.check_without()?,
        }
        let [hidden, linear_weight] =
            [call.inputs.floats("input")?, call.inputs.floats("linear_weight")?];
        let target = call.inputs.either("target")?;
        let find = |name: &str| call.inputs.find_floats(name);
        let (bias, weight) = (find("linear_bias")?, find("weight")?);
        let row_weight = find("row_weight")?;
        let temperature = match &self.rows_temperature {
            Some(name) => Some(call.inputs.floats(name)?),
            None => find("temperature")?,
        };
        let ids = match &self.subset {
            Some(name) => Some(call.inputs.indices(name)?),
            None => call.inputs.find_indices("ids")?,
        };
        let lists = [ids, call.inputs.find_indices("counts")?];
        let given = match self.common.grad {
            true => [find("grad_output")?, find("grad_logprob")?, find("grad_entropy")?],
            false => [None, None, None],
        };
        let mut input = LinearInput::new(hidden.view()?, linear_weight.view()?, target.view()?);
        input.linear_bias = bias.as_ref().map(Input::view).transpose()?;
        input.temperature = temperature.as_ref().map(Input::view).transpose()?;
        input.row_weight = row_weight.as_ref().map(Input::view).transpose()?;
        input.subset = self.subset(&lists)?;
        let mut of_logits = self.of_logits.options(self.common.reduction());
        if let Some(weight) = &weight {
            of_logits = of_logits.weight(weight.view()?);
        }
        let loss = self.loss(of_logits);
        let names = self.names();
        let renamed = |e: Error| call.renamed(&e, &names);
        let checked = loss.check(&input).map_err(renamed)?;
        let upstream = upstream(&given)?;

        let rows = checked.losses();
        let gradients = match self.common.grad {
            false => 0,
            true => bytes(hidden.dtype(), hidden.shape())
                .saturating_add(bytes(hidden.dtype(), linear_weight.shape())),
        };
        let results = bytes(DType::F32, &[rows, 8 + 3 * self.top_k]);
        memory::require(results.saturating_add(gradients), "the results")?;
        let mut results = self.results(&checked.of_logits.loss_shape(), &checked.of_logits.rows)?;
        let mut tensors = Vec::new();
        let start = Instant::now();
        if self.common.grad {
            let like = |name: &'static str, of: &Input<'_>| zeros(name, of.dtype(), of.shape());
            let mut dx = like("grad_input", &hidden)?;
            let mut dw = like("grad_linear_weight", &linear_weight)?;
            let mut db = bias.as_ref().map(|bias| like("grad_linear_bias", bias)).transpose()?;
            let soft = target.dtype().is_float();
            let mut dq = soft.then(|| like("grad_target", &target)).transpose()?;
            let gradients = LinearGradOut {
                input: Some(dx.view_mut()),
                linear_weight: Some(dw.view_mut()),
                linear_bias: db.as_mut().map(Tensor::view_mut),
                target: dq.as_mut().map(Tensor::view_mut),
                ..LinearGradOut::default()
            };
            let out = results.out();
            loss.forward_backward_into(call.device, &input, upstream, gradients, out)
                .map_err(renamed)?;
            let named = [
                ("grad_input", Some(dx)),
                ("grad_linear_weight", Some(dw)),
                ("grad_linear_bias", db),
                ("grad_target", dq),
            ];
            let named = named.into_iter().filter_map(|(name, grad)| Some((name.to_owned(), grad?)));
            tensors.extend(named);
        } else {
            loss.forward_into(call.device, &input, results.out()).map_err(renamed)?;
        }
        let seconds = start.elapsed().as_secs_f64();
        let evaluation = Evaluation {
            dtype: hidden.dtype(),
            shape: hidden.shape().to_vec(),
            reduction: self.common.reduction(),
            loss: one_number(&results.loss),
            rows,
            ignored: target.count(self.of_logits.ignore_index) + self.unlisted(&target, &lists),
            seconds,
            tensors: Vec::new(),
        };
        if call.output {
            tensors.extend(results.named(&self.write));
        }
        Ok(Evaluation { tensors, ..evaluation })
    }
}

/// Upstream gradients of loss, log-probability and entropy; 1, 0 and 0 where the file has none.
fn upstream<'a>(given: &'a [Option<Input<'_>>; 3]) -> Result<CrossEntropyUpstream<'a>, Failure> {
    let of = |at: usize, default: f32| match &given[at] {
        Some(input) => input.view().map(GradOutput::Tensor),
        None => Ok(GradOutput::Number(default)),
    };
    Ok(CrossEntropyUpstream {
        grad_output: of(0, 1.0)?,
        grad_logprob: of(1, 0.0)?,
        grad_entropy: of(2, 0.0)?,
    })
}

impl LinearCrossEntropyArgs {
    /// What arguments are called here.
    fn names(&self) -> Vec<(&str, &str)> {
        let given = [("temperature", &self.rows_temperature), ("ids", &self.subset)];
        let of = |own| {
            given.iter().find(|(name, _)| *name == own).and_then(|(_, tensor)| tensor.as_deref())
        };
        NAMES.iter().map(|&(own, name)| (own, of(own).unwrap_or(name))).collect()
    }

    /// A divergence has no options of targets, and no results of theirs.
    fn check_distilled(&self) -> Result<(), Failure> {
        let of_results = [
            ("--write", self.write != [Written::Loss, Written::Lse]),
            ("--top-k", self.top_k != 0),
            ("--filter", self.filter.is_some()),
            ("--rows-temperature", self.rows_temperature.is_some()),
            ("--subset", self.subset.is_some()),
        ];
        let said = of_results.into_iter().find(|(_, said)| *said).map(|(name, _)| name);
        match self.of_logits.of_targets().or(said) {
            None => Ok(()),
            Some(name) => {
                let expected = "expected none beside --distill (it compares distributions)";
                Err(Failure::input(format!("{name}: {expected}, got one")))
            }
        }
    }

    fn loss<'w>(&self, of_logits: CrossEntropy<'w>) -> LinearCrossEntropy<'w> {
        LinearCrossEntropy::from(of_logits)
            .max_workspace_bytes(self.of_products.workspace())
            .path(self.of_products.path())
            .gradient_filter(self.filter)
    }

    /// Lists of classes, where the file has any.
    fn subset<'a>(
        &self,
        lists: &'a [Option<Input<'_>>; 2],
    ) -> Result<Option<ClassSubset<'a>>, Failure> {
        let [Some(ids), counts] = lists else {
            return match self.rest {
                RestArg::Excluded => Ok(None),
                RestArg::Bucket => {
                    Err(Failure::input("--rest: expected excluded (without ids), got bucket"))
                }
            };
        };
        let counts = counts.as_ref().map(Input::view).transpose()?;
        let subset = match (ids.shape(), counts) {
            ([_], None) => ClassSubset::shared(ids.view()?),
            (_, counts) => ClassSubset::per_row(ids.view()?, counts),
        };
        let subset = subset.missing_target(match self.missing_target {
            MissingArg::Error => MissingTarget::Error,
            MissingArg::Append => MissingTarget::Append,
            MissingArg::Ignore => MissingTarget::Ignore,
        });
        Ok(Some(subset.rest(match self.rest {
            RestArg::Excluded => Rest::Excluded,
            RestArg::Bucket => Rest::Bucket,
        })))
    }

    /// Rows that count for nothing as their targets are not listed; of a call that has been made.
    fn unlisted(&self, target: &Input<'_>, [ids, counts]: &[Option<Input<'_>>; 2]) -> usize {
        let index = |of: &Input<'_>, at: usize| of.host().indices().map_or(-1, |of| of.get(at));
        let (Some(ids), MissingArg::Ignore) = (ids, self.missing_target) else { return 0 };
        if target.dtype().is_float() {
            return 0;
        }
        let k = ids.shape().last().copied().unwrap_or(0);
        let shared = ids.shape().len() == 1;
        let rows = (0..target.elements()).filter(|&row| {
            let own = index(target, row);
            let count = counts.as_ref().map_or(k, |counts| index(counts, row) as usize);
            let first = if shared { 0 } else { row * k };
            let listed = || (first..first + count).any(|at| index(ids, at) == own);
            own != self.of_logits.ignore_index && !listed()
        });
        rows.count()
    }

    /// Memory for what is asked for: losses of one shape, the rest of rows of the other.
    fn results(&self, loss: &[usize], rows: &[usize]) -> Result<Results, Failure> {
        let of_rows = [
            (Written::Logprob, "logprob", DType::F32),
            (Written::Entropy, "entropy", DType::F32),
            (Written::Argmax, "argmax", DType::I64),
            (Written::Rank, "rank", DType::I64),
        ];
        let wanted = of_rows.into_iter().filter(|(which, ..)| self.write.contains(which));
        let of_rows =
            wanted.map(|(which, name, dtype)| Ok((which, name, zeros(name, dtype, rows)?)));
        let top = [rows, &[self.top_k]].concat();
        let top = match self.top_k {
            0 => None,
            _ => Some([zeros("top_k_ids", DType::I64, &top)?, zeros("top_k", DType::F32, &top)?]),
        };
        Ok(Results {
            loss: zeros("loss", DType::F32, loss)?,
            lse: zeros("lse", DType::F32, rows)?,
            z_loss: zeros("z_loss", DType::F32, loss)?,
            of_rows: of_rows.collect::<Result<_, Failure>>()?,
            top,
        })
    }
}

impl Results {
    fn out(&mut self) -> CrossEntropyOut<'_> {
        let mut out = CrossEntropyOut {
            lse: Some(self.lse.view_mut()),
            z_loss: Some(self.z_loss.view_mut()),
            ..CrossEntropyOut::loss(self.loss.view_mut())
        };
        for (which, _, tensor) in &mut self.of_rows {
            let view: Option<TensorMut<'_>> = Some(tensor.view_mut());
            match which {
                Written::Logprob => out.logprob = view,
                Written::Entropy => out.entropy = view,
                Written::Argmax => out.argmax = view,
                Written::Rank => out.rank = view,
                Written::Loss | Written::Lse | Written::ZLoss => {}
            }
        }
        out.top_k = self.top.as_mut().map(|[classes, logprob]| TopKOut {
            classes: classes.view_mut(),
            logprob: logprob.view_mut(),
        });
        out
    }

    /// The tensors to be written, by name.
    fn named(self, write: &[Written]) -> Vec<(String, Tensor)> {
        let of_call = [
            (Written::Loss, "loss", self.loss),
            (Written::Lse, "lse", self.lse),
            (Written::ZLoss, "z_loss", self.z_loss),
        ];
        let all = of_call.into_iter().chain(self.of_rows);
        let wanted = all.filter(|(which, ..)| write.contains(which));
        let mut named: Vec<_> = wanted.map(|(_, name, tensor)| (name.to_owned(), tensor)).collect();
        if let Some([ids, values]) = self.top {
            named.extend([("top_k_ids".to_owned(), ids), ("top_k".to_owned(), values)]);
        }
        named
    }
}
