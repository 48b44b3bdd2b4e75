//! What is checked before a device sees it.

use super::super::{GradOutput, Labels, check};
use super::{CrossEntropy, CrossEntropyGradients, CrossEntropyOut, CrossEntropyOutput};
use crate::{Device, Element as _, Error, Reduction, Result, Shape, TensorMut, TensorRef};

impl CrossEntropy<'_> {
    /// Everything about the inputs that can be told without reading them.
    pub(in crate::loss) fn check<'a>(
        &'a self,
        logits: &TensorRef<'_>,
        target: &TensorRef<'a>,
    ) -> Result<Checked<'a>> {
        self.check_options()?;
        check::float("logits", logits)?;
        let shape = logits.shape();
        let (class_dim, rows) = check::classes("logits", shape)?;
        let classes = shape[class_dim];
        let soft = target.dtype().is_float() && target.shape() != rows;
        if soft {
            self.check_soft(logits, target)?;
        } else {
            self.check_labels(logits, target, rows)?;
        }
        check::class_weight(self.weight.as_ref(), classes, ("logits", logits.dtype()))?;
        let rows = if soft { rows } else { target.shape() };
        let dtype = logits.dtype();
        Ok(Checked { options: self, dtype, class_dim, classes, target: *target, rows })
    }

    /// Class indices.
    fn check_labels(
        &self,
        logits: &TensorRef<'_>,
        target: &TensorRef<'_>,
        rows: Shape,
    ) -> Result<()> {
        let shape = logits.shape();
        if target.shape() == shape && target.dtype().is_index() && *shape != [1] {
            return Err(Error::Dtype {
                argument: "target",
                expected: format!(
                    "{} (probabilities, by the logits' shape {shape})",
                    logits.dtype()
                ),
                got: target.dtype(),
            });
        }
        check::class_indices(target, ("logits", shape, rows))?;
        if let Some(scale) = self.teacher_scale {
            return Err(Error::Value {
                argument: "teacher_scale",
                expected: "none (the target holds class indices)".into(),
                got: scale.to_string(),
            });
        }
        Ok(())
    }

    /// Probabilities, or a teacher's logits.
    fn check_soft(&self, logits: &TensorRef<'_>, target: &TensorRef<'_>) -> Result<()> {
        check::shape("target", target, logits.shape(), "the logits', of probabilities")?;
        check::dtype("target", target, &[logits.dtype()], "the logits'")?;
        if self.ignore_index >= 0 {
            return Err(Error::Value {
                argument: "ignore_index",
                expected: "a negative number (no row of probabilities is ignored)".into(),
                got: self.ignore_index.to_string(),
            });
        }
        Ok(())
    }

    fn check_options(&self) -> Result<()> {
        check::reduction(self.reduction)?;
        let (epsilon, lambda) = (self.label_smoothing, self.lse_square_scale);
        let unit = (0.0..=1.0).contains(&epsilon);
        check::value("label_smoothing", epsilon, unit, "a number in [0, 1]")?;
        let legal = lambda >= 0.0 && lambda.is_finite();
        check::value("lse_square_scale", lambda, legal, "a finite number ≥ 0")?;
        let positive = |x: f32| x > 0.0 && x.is_finite();
        let scale = self.logit_scale;
        let expected = "a finite number > 0";
        check::value("logit_scale", scale.into(), positive(scale), expected)?;
        for (argument, value) in [("softcap", self.softcap), ("teacher_scale", self.teacher_scale)]
        {
            if let Some(value) = value {
                check::value(argument, value.into(), positive(value), expected)?;
            }
        }
        Ok(())
    }
}

/// Inputs that have passed the checks: only [`CrossEntropy`] makes one, and a device takes
/// nothing else.
#[derive(Debug, Clone)]
pub(crate) struct Checked<'a> {
    pub(crate) options: &'a CrossEntropy<'a>,
    pub(crate) dtype: crate::DType,
    /// The logits' dimension of classes: 0 or 1.
    pub(crate) class_dim: usize,
    pub(crate) classes: usize,
    pub(crate) target: TensorRef<'a>,
    /// The shape of what has one value a row.
    pub(crate) rows: Shape,
}

impl<'a> Checked<'a> {
    /// Whether the target holds probabilities or a teacher's logits, not class indices.
    pub(crate) fn soft(&self) -> bool {
        self.target.dtype().is_float()
    }

    /// What a census goes over.
    pub(crate) fn labels(&self) -> Labels<'a> {
        Labels {
            target: self.target,
            rows: self.rows.iter().product(),
            weight: self.options.weight,
            classes: self.classes,
            ignore_index: self.options.ignore_index,
            reduction: self.options.reduction,
        }
    }
}

impl Checked<'_> {
    fn loss_shape(&self) -> Shape {
        match self.options.reduction {
            Reduction::None => self.rows,
            Reduction::Sum | Reduction::Mean | Reduction::BatchMean => Shape::SCALAR,
        }
    }

    pub(super) fn allocate(
        &self,
        device: &Device,
        logits: &TensorRef<'_>,
    ) -> Result<CrossEntropyOutput> {
        let f32_zeros = |name, shape| device.zeros(name, f32::DTYPE, shape, logits);
        Ok(CrossEntropyOutput {
            loss: f32_zeros("loss", self.loss_shape())?,
            lse: f32_zeros("lse", self.rows)?,
            z_loss: f32_zeros("z_loss", self.loss_shape())?,
        })
    }

    pub(super) fn check_out(&self, out: &CrossEntropyOut<'_>) -> Result<()> {
        let loss = self.loss_shape();
        check::f32_output("loss", &out.loss.as_ref(), loss, "reduction")?;
        if let Some(lse) = &out.lse {
            check::f32_output("lse", &lse.as_ref(), self.rows, "one a row")?;
        }
        if let Some(z_loss) = &out.z_loss {
            check::f32_output("z_loss", &z_loss.as_ref(), loss, "the loss's")?;
        }
        self.check_ranks(&out.argmax, &out.rank)
    }

    /// Only a class has a rank.
    pub(super) fn has_ranks(&self, argument: &'static str) -> Result<()> {
        match self.soft() {
            false => Ok(()),
            true => Err(Error::Value {
                argument,
                expected: "none (only class indices have ranks)".into(),
                got: format!("it with a target of {}", self.target.dtype()),
            }),
        }
    }

    pub(in crate::loss) fn check_ranks(
        &self,
        argmax: &Option<TensorMut<'_>>,
        rank: &Option<TensorMut<'_>>,
    ) -> Result<()> {
        for (argument, out) in [("argmax", argmax), ("rank", rank)] {
            if let Some(out) = out {
                self.has_ranks(argument)?;
                check::i64_output(argument, &out.as_ref(), self.target.shape(), "the target's")?;
            }
        }
        Ok(())
    }

    /// Memory for the gradient of probabilities is of their kind; indices and teachers have none.
    pub(super) fn check_grad_target(&self, gradients: &CrossEntropyGradients<'_>) -> Result<()> {
        let Some(grad) = &gradients.target else {
            return Ok(());
        };
        let refuse = |what: &str| {
            let expected = format!("none ({what} have no gradient)");
            let got = format!("{} {}", grad.dtype(), grad.shape());
            Err(Error::Value { argument: "grad_target", expected, got })
        };
        if !self.soft() {
            return refuse("class indices");
        }
        if self.options.teacher_scale.is_some() {
            return refuse("a teacher's logits");
        }
        let grad = grad.as_ref();
        check::shape("grad_target", &grad, self.target.shape(), "the target's")?;
        check::dtype("grad_target", &grad, &[self.dtype], "the target's")
    }

    pub(super) fn check_grad_output(&self, grad_output: &GradOutput<'_>) -> Result<()> {
        grad_output.check(self.loss_shape(), self.dtype)
    }

    pub(super) fn check_backward(
        &self,
        lse: &TensorRef<'_>,
        grad_output: &GradOutput<'_>,
    ) -> Result<()> {
        check::f32_output("lse", lse, self.rows, "one a row")?;
        self.check_grad_output(grad_output)
    }
}
