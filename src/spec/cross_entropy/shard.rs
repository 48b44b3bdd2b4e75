//! Cross entropy of a vocabulary in shards: the checks, and the calls as values.

use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::tensor::{TensorMut, TensorRef};
use crate::base::validate;
use crate::spec::class_indices::ClassIndices;
use crate::spec::cross_entropy::CrossEntropy;
use crate::spec::cross_entropy::checked::Checked;
use crate::spec::cross_entropy::outputs::CrossEntropyOut;
use crate::spec::grad_output::GradOutput;
use crate::spec::row_state::{Record, RowState, Vocabulary};

/// Inputs of a call on a shard that have passed the checks: classes and weights are those of the whole
/// vocabulary, the logits' dtype and dimension of classes those of the shard.
#[derive(Debug)]
pub(crate) struct CheckedShard<'a> {
    pub(crate) whole: Checked<'a>,
    pub(crate) vocabulary: Vocabulary,
    pub(crate) record: Record,
}

/// A call that has passed the checks, with everything that it reads and writes.
#[derive(Debug)]
#[expect(clippy::large_enum_variant)] // One a call, on its stack.
pub(crate) enum ShardCall<'a> {
    /// The state of the shard's columns.
    Partial { logits: TensorRef<'a>, state: TensorMut<'a> },
    /// Loss, log-sum-exp and z-loss from the state of the whole vocabulary; no ranks.
    Finish { state: TensorRef<'a>, out: CrossEntropyOut<'a> },
    /// The gradient of the shard's columns, from the state of the whole vocabulary.
    Backward {
        logits: TensorRef<'a>,
        state: TensorRef<'a>,
        grad_output: GradOutput<'a>,
        grad_logits: TensorMut<'a>,
    },
    /// The same, over the logits.
    BackwardInPlace { logits: TensorMut<'a>, state: TensorRef<'a>, grad_output: GradOutput<'a> },
}

impl CrossEntropy<'_> {
    pub(crate) fn check_shard<'a>(
        &'a self,
        logits: &TensorRef<'_>,
        target: &TensorRef<'a>,
        vocabulary: Vocabulary,
    ) -> Result<CheckedShard<'a>> {
        let (class_dim, rows) = self.check_logits(logits)?;
        vocabulary.check()?;
        let classes = logits.shape()[class_dim];
        if classes != vocabulary.len {
            return Err(Error::Value {
                argument: "vocabulary",
                expected: format!("{classes} classes (those of the logits)"),
                got: vocabulary.len.to_string(),
            });
        }
        let owner = format_args!("the logits' {} without their classes", logits.shape());
        let target = ClassIndices::beside("target", target, rows, (logits.shape(), owner))?;
        self.shard((logits.dtype(), class_dim), target, vocabulary)
    }

    /// Against the state of the whole vocabulary, without logits.
    pub(crate) fn check_state<'a>(
        &'a self,
        state: &RowState,
        target: &TensorRef<'a>,
    ) -> Result<CheckedShard<'a>> {
        self.check_options()?;
        let target = ClassIndices::of_rows("target", target, state.rows, "the state's rows")?;
        let dtype = self.class_weight().map_or(DType::F32, |weight| weight.dtype());
        let checked = self.shard((dtype, 0), target, state.vocabulary)?;
        checked.check_state(state)?;
        Ok(checked)
    }

    fn shard<'a>(
        &'a self,
        (dtype, class_dim): (DType, usize),
        target: ClassIndices<'a>,
        vocabulary: Vocabulary,
    ) -> Result<CheckedShard<'a>> {
        if let Some(scale) = self.teacher_scale {
            return Err(Error::Value {
                argument: "teacher_scale",
                expected: "none (the target holds class indices)".into(),
                got: scale.to_string(),
            });
        }
        let classes = vocabulary.whole;
        validate::class_weight(self.class_weight().as_ref(), classes, (dtype, "the logits'"))?;
        let rows = target.shape();
        let whole = Checked { options: self, dtype, class_dim, classes, target, rows };
        let record = Record::new(&vocabulary, self.label_smoothing > 0.0);
        Ok(CheckedShard { whole, vocabulary, record })
    }
}

impl CheckedShard<'_> {
    /// A state of the whole vocabulary, of these rows and options.
    pub(crate) fn check_state(&self, state: &RowState) -> Result<()> {
        let (classes, got) = (self.vocabulary.whole, state.vocabulary);
        if !got.is_whole() || got.whole != classes {
            return Err(Error::Value {
                argument: "state",
                expected: format!("all {classes} classes"),
                got: format!("{} of {} from {} on", got.len, got.whole, got.first),
            });
        }
        self.check_rows(state)
    }

    /// A state of these rows and options, of whatever classes.
    pub(crate) fn check_rows(&self, state: &RowState) -> Result<()> {
        let single = state.rows.is_empty() && *self.whole.rows == [1];
        if state.rows != self.whole.rows && !single {
            return Err(Error::Shape {
                argument: "state",
                expected: format!("rows of {} (the target's)", self.whole.rows),
                got: state.rows,
            });
        }
        let fields = self.record.fields;
        if state.record.fields != fields {
            return Err(Error::Value {
                argument: "state",
                expected: format!("{fields} numbers a block (by label_smoothing)"),
                got: state.record.fields.to_string(),
            });
        }
        Ok(())
    }

    pub(crate) fn check_backward(
        &self,
        state: &RowState,
        grad_output: &GradOutput<'_>,
    ) -> Result<()> {
        self.check_state(state)?;
        self.whole.check_grad_output(grad_output)
    }

    pub(crate) fn check_out(&self, out: &CrossEntropyOut<'_>) -> Result<()> {
        let loss = self.whole.loss_shape();
        validate::f32_output("loss", &out.loss.as_ref(), loss, "reduction")?;
        if let Some(lse) = &out.lse {
            validate::f32_output("lse", &lse.as_ref(), self.whole.rows, "one a row")?;
        }
        if let Some(z_loss) = &out.z_loss {
            validate::f32_output("z_loss", &z_loss.as_ref(), loss, "the loss's")?;
        }
        let top_k = out.top_k.as_ref().map(|top| &top.classes);
        let others = [
            ("argmax", out.argmax.as_ref()),
            ("rank", out.rank.as_ref()),
            ("logprob", out.logprob.as_ref()),
            ("entropy", out.entropy.as_ref()),
            ("top_k.classes", top_k),
        ];
        for (argument, out) in others {
            if let Some(out) = out {
                let expected = "none (a state has what a loss is made of alone)".into();
                let got = format!("{} {}", out.dtype(), out.shape());
                return Err(Error::Value { argument, expected, got });
            }
        }
        Ok(())
    }
}
