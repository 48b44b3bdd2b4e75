//! Lists on the device, and what is launched over their places.

use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::code::args;
use crate::code::args::SubsetArgs;
use crate::code::variants::{BATCH_THREADS, Batch};
use crate::cuda::driver::product::Panel;
use crate::cuda::loss::linear_cross_entropy::rows::RowNumbers;
use crate::cuda::matrix::products::{Workspace, padded};
use crate::cuda::schedule::batch::{Census, RowFactors};
use crate::cuda::schedule::lines::count;
use crate::cuda::stream::Cuda;
use crate::cuda::stream::indices::Indices;
use crate::cuda::stream::memory::Input;
use crate::spec::class_subset::{CheckedSubset, MissingTarget};
use crate::spec::counting::Counting;
use crate::spec::cross_entropy::checked::Target;
use crate::spec::linear_cross_entropy::CheckedLinear;

/// Most blocks of a launch whose warps have a logit each, or some.
const MOST_BLOCKS: usize = 1 << 16;

/// The lists of a call's rows, and its inputs.
pub(super) struct Lists<'p> {
    cuda: &'p Cuda,
    args: SubsetArgs,
    x: Option<Input<'p>>,
    weight_of_classes: Option<Input<'p>>,
    classes: usize,
    columns: usize,
    n: usize,
    memory: Workspace<'p>,
    _inputs: Vec<Input<'p>>,
    _indices: Vec<Indices<'p>>,
}

/// Probabilities in the lists' order and where their gradient goes: addresses of f32.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beside {
    pub(super) values: u64,
    pub(super) gradient: u64,
    pub(super) stride: i64,
}

impl<'p> Lists<'p> {
    pub(super) fn new(
        cuda: &'p Cuda,
        (checked, subset): (&CheckedLinear<'p>, &CheckedSubset<'p>),
        numbers: &RowNumbers<'p>,
    ) -> Result<Lists<'p>> {
        let (of, n) = (&checked.input, checked.rows);
        // Where all classes have logits somebody else makes them.
        let x = match (subset.given, subset.bucket) {
            (true, _) => Some(cuda.input("logits", of.input)?),
            (false, false) => Some(cuda.input("input", of.input)?),
            (false, true) => None,
        };
        let (matrix, bias) = match subset.given || subset.bucket {
            true => (None, None),
            false => (Some(cuda.input("linear_weight", of.linear_weight)?), of.linear_bias),
        };
        let bias = bias.map(|bias| cuda.input("linear_bias", bias)).transpose()?;
        let options = checked.of_logits.options;
        let weight =
            options.class_weight().map(|weight| cuda.input("weight", weight)).transpose()?;
        let ids = cuda.indices(subset.ids)?;
        let counts = subset.counts.map(|counts| cuda.indices(counts)).transpose()?;
        let target = match checked.of_logits.target {
            Target::Classes(target) => Some(cuda.indices(target)?),
            Target::Soft(_) => None,
        };
        let (columns, stride) = (subset.columns, padded(subset.columns));
        let mut memory = Workspace::new(cuda, n);
        let mut packed = |columns, dtype| Ok(memory.packed(columns, dtype)?.address);
        let of_target = |there: bool| if there { 1 } else { 0 };
        let row_weights = target.is_some() && weight.is_some();
        let address = |input: &Option<Input<'p>>| input.as_ref().map_or(0, |t| t.address);
        let indices = |of: &Option<Indices<'p>>| of.as_ref().map_or(0, Indices::address);
        let stride_of = |of: &Option<Input<'p>>| of.as_ref().map_or(0, |of| of.row_stride as i64);
        let kinds = |of: &Option<Indices<'p>>| of.as_ref().map_or(0, Indices::kind);
        let args = SubsetArgs {
            ids: ids.address(),
            counts: indices(&counts),
            target: indices(&target),
            weight: address(&weight),
            row_weight: numbers.factors().row_weight,
            labels: packed(of_target(target.is_some()), DType::I64)?,
            places: packed(of_target(target.is_some()), DType::I64)?,
            factors: match row_weights {
                true => packed(1, DType::F32)?,
                false => 0,
            },
            wrong: packed(1, DType::I64)?,
            listed: packed(stride, DType::I64)?,
            slots: packed(stride, DType::I64)?,
            sources: match target {
                Some(_) => 0,
                None => packed(stride, DType::I64)?,
            },
            x: address(&x),
            matrix: address(&matrix),
            bias: address(&bias),
            z: packed(stride, DType::F32)?,
            status: cuda.status()?,
            n: count("input", n)?,
            k: count("ids", subset.k)?,
            columns: count("ids", if subset.bucket { subset.k } else { columns })?,
            stride: count("ids", stride)?,
            classes: count("linear_weight", subset.classes)?,
            features: count("input", checked.features)?,
            ignore_index: options.ignore_index,
            ids_stride: if subset.shared { 0 } else { subset.k as i64 },
            x_stride: stride_of(&x),
            matrix_stride: stride_of(&matrix),
            ids_kind: ids.kind(),
            counts_kind: kinds(&counts),
            target_kind: kinds(&target),
            weight_kind: weight.as_ref().map_or(0, |w| args::kind(w.dtype)),
            kind: args::kind(of.input.dtype()),
            ignores_missing: (subset.missing == MissingTarget::Ignore).into(),
            ..SubsetArgs::default()
        };
        Ok(Lists {
            cuda,
            args,
            x,
            weight_of_classes: weight,
            classes: subset.classes,
            columns,
            n,
            memory,
            _inputs: matrix.into_iter().chain(bias).collect(),
            _indices: [Some(ids), counts, target].into_iter().flatten().collect(),
        })
    }

    /// Rows of logits, and how many there are of each.
    pub(super) fn sizes(&self) -> [usize; 2] {
        [self.n, self.columns]
    }

    /// Classes and features of the classifier.
    pub(super) fn classifier(&self) -> (usize, usize) {
        (self.classes, self.args.features as usize)
    }

    /// The logits, or their gradient.
    pub(super) fn z(&self) -> Panel {
        Panel::packed(self.args.z, DType::F32, self.args.stride as usize)
    }

    /// The hidden rows, or given logits, where it is here that they are read.
    pub(super) fn x(&self) -> Option<Panel> {
        self.x.as_ref().map(Panel::from)
    }

    /// Each row's target, or the ignored one.
    pub(super) fn labels(&self) -> Indices<'p> {
        Indices::of_workspace("target", self.args.labels)
    }

    /// Where in its list that is.
    pub(super) fn places(&self) -> Indices<'p> {
        Indices::of_workspace("target", self.args.places)
    }

    /// Address of what multiplies each row's loss, where classes have weights.
    pub(super) fn factors(&self) -> Option<u64> {
        (self.args.factors != 0).then_some(self.args.factors)
    }

    /// Classes of all places of all lists, and how many there are.
    pub(super) fn parts(&self) -> (u64, usize) {
        (self.args.listed, self.n * self.args.stride as usize)
    }

    /// Address of the row of each of those.
    pub(super) fn slots(&self) -> u64 {
        self.args.slots
    }

    /// # Safety
    /// The call's shapes were checked.
    pub(super) unsafe fn put_in_order(&self) -> Result<()> {
        let blocks = u32::try_from(self.n).ok().filter(|&n| n <= i32::MAX as u32);
        let blocks = blocks.ok_or_else(|| Error::Value {
            argument: "input",
            expected: "rows that a launch can count".into(),
            got: self.n.to_string(),
        })?;
        if blocks == 0 {
            return Ok(());
        }
        // SAFETY: ids, counts, targets and weights are as many as was checked, and the memory has a place for
        // each of a row's ids, and its target.
        unsafe { self.cuda.launch_batch(Batch::SubsetLists, blocks, args::bytes(&self.args)) }
    }

    /// Counts and weighs the kept rows by their labels; notes the first wrong label, weight or temperature, and
    /// if there is none the first wrong list.
    pub(super) fn census(
        &self,
        checked: &CheckedLinear<'_>,
        labels: Option<&Indices<'_>>,
        factors: RowFactors,
    ) -> Result<Census<'p>> {
        let counting = Counting {
            weight: checked.of_logits.options.class_weight(),
            classes: self.classes,
            ..checked.of_logits.counting()
        };
        let of = (labels, self.weight_of_classes.as_ref());
        let census = self.cuda.census_of_rows(&counting, of, factors)?;
        if self.n > 0 {
            // SAFETY: each row has been told what is wrong with it, by a launch before this one.
            unsafe {
                self.cuda.launch_batch(Batch::SubsetVerdict, 1, args::bytes(&self.args))?;
            }
        }
        Ok(census)
    }

    /// Logits of what is listed.
    ///
    /// # Safety
    /// The call's shapes were checked, and lists are in order on the stream, here and below.
    pub(super) unsafe fn logits(&self) -> Result<()> {
        let warps = self.n.saturating_mul(self.columns);
        if warps == 0 {
            return Ok(());
        }
        let blocks = warps.div_ceil(BATCH_THREADS as usize / 32).min(MOST_BLOCKS) as u32;
        // SAFETY: hidden rows, classifier and bias have the sizes that were checked, and lists hold classes.
        unsafe { self.cuda.launch_batch(Batch::SubsetLogits, blocks, args::bytes(&self.args)) }
    }

    /// The gradient of hidden rows, or of given logits.
    ///
    /// # Safety
    /// As above; `to` has the input's shape.
    pub(super) unsafe fn input_gradient(&self, to: Panel, add: bool) -> Result<()> {
        let mut args = self.args;
        (args.to, args.to_stride, args.add) = (to.address, to.stride as i64, add.into());
        let features = args.features as usize;
        // SAFETY: `to` has the input's rows, says the caller, and lists hold classes.
        unsafe {
            if args.matrix == 0 {
                self.cuda.zeros(to, [self.n, features])?;
                return self.launch(Batch::SubsetScatter, self.columns, &args);
            }
            self.launch(Batch::SubsetInput, features, &args)
        }
    }

    /// Places in lists, `each` a row, become the classes there.
    ///
    /// # Safety
    /// As above; the address is 0, or has them.
    pub(super) unsafe fn name_classes(&self, (found, each): (u64, usize)) -> Result<()> {
        if found == 0 {
            return Ok(());
        }
        let args = SubsetArgs { found, columns: each as i64, ..self.args };
        // SAFETY: places are below what a list has, by the kernels that found them.
        unsafe { self.launch(Batch::SubsetClasses, each, &args) }
    }

    /// Probabilities in the lists' order.
    ///
    /// # Safety
    /// As above; there is one for each id.
    pub(super) unsafe fn probabilities(&mut self, from: Panel, gradient: bool) -> Result<Beside> {
        let stride = self.args.stride as usize;
        let values = self.memory.packed(stride, DType::F32)?.address;
        let gradient = match gradient {
            true => self.memory.packed(stride, DType::F32)?.address,
            false => 0,
        };
        let mut args = SubsetArgs { z: values, to: 0, ..self.args };
        (args.x, args.x_stride) = (from.address, from.stride as i64);
        // SAFETY: probabilities are as many as ids, says the caller, and sources are among those.
        unsafe { self.launch(Batch::SubsetSoft, args.columns as usize, &args)? };
        Ok(Beside { values, gradient, stride: self.args.stride })
    }

    /// Their gradient, where they were given; 0 of what did not count.
    ///
    /// # Safety
    /// As above; `to` has the probabilities' shape.
    pub(super) unsafe fn write_probabilities(&self, from: u64, to: Panel) -> Result<()> {
        let mut args = SubsetArgs { z: from, to: to.address, ..self.args };
        args.to_stride = to.stride as i64;
        // SAFETY: `to` has a place for each id, says the caller, and sources are among those.
        unsafe {
            self.cuda.zeros(to, [self.n, self.args.k as usize])?;
            self.launch(Batch::SubsetSoft, args.columns as usize, &args)
        }
    }

    /// # Safety
    /// The arguments name memory of so many columns of all rows.
    unsafe fn launch(&self, kernel: Batch, columns: usize, args: &SubsetArgs) -> Result<()> {
        let elements = self.n.saturating_mul(columns);
        // SAFETY: the caller's promise.
        unsafe { self.cuda.launch_listed(kernel, elements, args) }
    }
}
