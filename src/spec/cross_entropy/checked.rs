//! What is checked before a device sees it.

use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::shape::Shape;
use crate::base::tensor::{TensorMut, TensorRef};
use crate::base::validate;
use crate::spec::class_indices::ClassIndices;
use crate::spec::counting::Counting;
use crate::spec::cross_entropy::tokens::{MOST_TOP, NOTHING};
use crate::spec::cross_entropy::{
    CrossEntropy, CrossEntropyGradients, CrossEntropyOut, CrossEntropyUpstream, TopKOut,
};
use crate::spec::grad_output::GradOutput;

impl CrossEntropy<'_> {
    /// Everything about the inputs that can be told without reading them.
    pub(crate) fn check<'a>(
        &'a self,
        logits: &TensorRef<'_>,
        target: &TensorRef<'a>,
    ) -> Result<Checked<'a, Target<'a>>> {
        let (class_dim, rows) = self.check_logits(logits)?;
        let teacher = self.teacher_scale.is_some();
        if target.dtype().is_float() && (teacher || target.shape() != rows) {
            self.check_soft(logits, target)?;
            let target = Target::Soft(SoftTarget(*target));
            return self.checked(logits, class_dim, target, rows);
        }
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
        let classes = class_indices(logits, target, rows)?;
        if let Some(scale) = self.teacher_scale {
            return Err(Error::Value {
                argument: "teacher_scale",
                expected: "none (the target holds class indices)".into(),
                got: scale.to_string(),
            });
        }
        self.checked(logits, class_dim, Target::Classes(classes), classes.shape())
    }

    /// The same where class indices are the only target that means anything.
    pub(crate) fn check_classes<'a>(
        &'a self,
        logits: &TensorRef<'_>,
        target: &TensorRef<'a>,
    ) -> Result<Checked<'a>> {
        let (class_dim, rows) = self.check_logits(logits)?;
        let classes = class_indices(logits, target, rows)?;
        self.checked(logits, class_dim, classes, classes.shape())
    }

    /// Options and logits: the dimension of classes, and the shape of what has one value a row.
    pub(super) fn check_logits(&self, logits: &TensorRef<'_>) -> Result<(usize, Shape)> {
        self.check_options()?;
        validate::float("logits", logits)?;
        validate::classes("logits", logits.shape())
    }

    /// The same where logits are yet to be made: so many classes, along a dimension of what is shaped as rows without it,
    /// beside tensors of `owner`'s dtype.
    pub(crate) fn check_rows<'a>(
        &'a self,
        (dtype, owner): (DType, &'static str),
        (classes, rows, class_dim): (usize, Shape, usize),
        target: &TensorRef<'a>,
    ) -> Result<Checked<'a, Target<'a>>> {
        self.check_options()?;
        validate::class_weight(self.class_weight().as_ref(), classes, (dtype, owner))?;
        self.check_listed((dtype, owner), [classes, classes], (rows, class_dim), target)
    }

    /// The same of rows that have so many classes, and probabilities of so many along a dimension; whatever class
    /// weights are of.
    pub(crate) fn check_listed<'a>(
        &'a self,
        (dtype, owner): (DType, &'static str),
        [classes, probabilities]: [usize; 2],
        (rows, class_dim): (Shape, usize),
        target: &TensorRef<'a>,
    ) -> Result<Checked<'a, Target<'a>>> {
        self.check_options()?;
        if let Some(scale) = self.teacher_scale {
            return Err(Error::Value {
                argument: "teacher_scale",
                expected: "none (the target holds class indices or probabilities)".into(),
                got: scale.to_string(),
            });
        }
        let (target, rows) = match target.dtype().is_float() {
            true => {
                let (before, after) = rows.split_at(class_dim);
                let mut shape = Shape::SCALAR;
                let sizes = before.iter().chain([&probabilities]).chain(after);
                sizes.for_each(|&size| shape.push(size));
                validate::shape("target", target, shape, "probabilities of all classes")?;
                validate::dtype("target", target, &[dtype], owner)?;
                self.check_not_ignoring()?;
                (Target::Soft(SoftTarget(*target)), rows)
            }
            false => {
                let owner = "one a row of the input";
                let indices = ClassIndices::of_rows("target", target, rows, owner)?;
                (Target::Classes(indices), indices.shape())
            }
        };
        Ok(Checked { options: self, dtype, class_dim, classes, target, rows })
    }

    fn checked<'a, T>(
        &'a self,
        logits: &TensorRef<'_>,
        class_dim: usize,
        target: T,
        rows: Shape,
    ) -> Result<Checked<'a, T>> {
        let (dtype, classes) = (logits.dtype(), logits.shape()[class_dim]);
        validate::class_weight(self.class_weight().as_ref(), classes, (dtype, "the logits'"))?;
        Ok(Checked { options: self, dtype, class_dim, classes, target, rows })
    }

    /// Probabilities, or a teacher's logits.
    fn check_soft(&self, logits: &TensorRef<'_>, target: &TensorRef<'_>) -> Result<()> {
        let owner = match self.teacher_scale {
            Some(_) => "the logits', of a teacher",
            None => "the logits', of probabilities",
        };
        validate::shape("target", target, logits.shape(), owner)?;
        validate::dtype("target", target, &[logits.dtype()], "the logits'")?;
        self.check_not_ignoring()
    }

    /// Rows of probabilities all count.
    fn check_not_ignoring(&self) -> Result<()> {
        if self.ignore_index >= 0 {
            return Err(Error::Value {
                argument: "ignore_index",
                expected: "a negative number (no row of probabilities is ignored)".into(),
                got: self.ignore_index.to_string(),
            });
        }
        Ok(())
    }

    pub(super) fn check_options(&self) -> Result<()> {
        validate::reduction(self.reduction)?;
        let (epsilon, lambda) = (self.label_smoothing, self.lse_square_scale);
        let unit = (0.0..=1.0).contains(&epsilon);
        validate::value("label_smoothing", epsilon, unit, "a number in [0, 1]")?;
        let legal = (0.0..=f64::from(f32::MAX)).contains(&lambda);
        validate::value("lse_square_scale", lambda, legal, "a finite f32 ≥ 0")?;
        let positive = |x: f32| x > 0.0 && x.is_finite();
        validate::scale("logit_scale", self.logit_scale)?;
        if let Some(cap) = self.softcap {
            validate::value("softcap", cap, positive(cap), "a finite number > 0")?;
        }
        self.teacher_scale.map_or(Ok(()), |scale| validate::scale("teacher_scale", scale))
    }
}

/// Class indices, of the logits' rows.
fn class_indices<'a>(
    logits: &TensorRef<'_>,
    target: &TensorRef<'a>,
    rows: Shape,
) -> Result<ClassIndices<'a>> {
    let owner = format_args!("the logits' {} without their classes", logits.shape());
    ClassIndices::beside("target", target, rows, (logits.shape(), owner))
}

/// Probabilities, or a teacher's logits, of the logits' shape and dtype.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SoftTarget<'a>(TensorRef<'a>);

impl<'a> SoftTarget<'a> {
    pub(crate) fn tensor(&self) -> TensorRef<'a> {
        self.0
    }
}

/// What cross entropy takes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target<'a> {
    Classes(ClassIndices<'a>),
    Soft(SoftTarget<'a>),
}

/// Inputs that have passed the checks: only [`CrossEntropy`] makes one, and a device takes
/// nothing else. What kind of target it has is in its type.
#[derive(Debug, Clone)]
pub(crate) struct Checked<'a, T = ClassIndices<'a>> {
    pub(crate) options: &'a CrossEntropy<'a>,
    pub(crate) dtype: DType,
    /// The logits' dimension of classes: 0 or 1.
    pub(crate) class_dim: usize,
    pub(crate) classes: usize,
    pub(crate) target: T,
    /// The shape of what has one value a row.
    pub(crate) rows: Shape,
}

impl<'a, T> Checked<'a, T> {
    /// The same with the target as the kind that it was found to be.
    pub(crate) fn with<U>(&self, target: U) -> Checked<'a, U> {
        let Checked { options, dtype, class_dim, classes, rows, .. } = *self;
        Checked { options, dtype, class_dim, classes, target, rows }
    }

    pub(crate) fn counting(&self) -> Counting<'a> {
        Counting {
            rows: self.rows.iter().product(),
            weight: self.options.class_weight(),
            classes: self.classes,
            ignore_index: Some(self.options.ignore_index),
            by_rows: false,
            reduction: self.options.reduction,
        }
    }

    pub(crate) fn loss_shape(&self) -> Shape {
        self.options.reduction.loss_shape(self.rows)
    }

    pub(crate) fn check_grad_output(&self, grad_output: &GradOutput<'_>) -> Result<()> {
        grad_output.check(self.loss_shape(), self.dtype)
    }

    pub(crate) fn check_ranks(
        &self,
        argmax: &Option<TensorMut<'_>>,
        rank: &Option<TensorMut<'_>>,
    ) -> Result<()> {
        for (argument, out) in [("argmax", argmax), ("rank", rank)] {
            if let Some(out) = out {
                validate::i64_output(argument, &out.as_ref(), self.rows, "the target's")?;
            }
        }
        Ok(())
    }
}

impl Checked<'_, Target<'_>> {
    pub(crate) fn check_out(&self, out: &CrossEntropyOut<'_>) -> Result<()> {
        let loss = self.loss_shape();
        validate::f32_output("loss", &out.loss.as_ref(), loss, "reduction")?;
        if let Some(lse) = &out.lse {
            validate::f32_output("lse", &lse.as_ref(), self.rows, "one a row")?;
        }
        if let Some(z_loss) = &out.z_loss {
            validate::f32_output("z_loss", &z_loss.as_ref(), loss, "the loss's")?;
        }
        for (argument, out) in [("argmax", &out.argmax), ("rank", &out.rank)] {
            if out.is_some() {
                self.has_classes(argument)?;
            }
        }
        self.check_ranks(&out.argmax, &out.rank)?;
        self.check_tokens(out)
    }

    /// Outputs of rows and their upstream gradients, which only class indices have.
    fn check_tokens(&self, out: &CrossEntropyOut<'_>) -> Result<()> {
        for (argument, out) in [("logprob", &out.logprob), ("entropy", &out.entropy)] {
            if let Some(out) = out {
                self.has_classes(argument)?;
                validate::f32_output(argument, &out.as_ref(), self.rows, "the target's")?;
            }
        }
        out.top_k.as_ref().map_or(Ok(()), |top| self.check_top(top))
    }

    fn check_top(&self, top: &TopKOut<'_>) -> Result<()> {
        self.has_classes("top_k.classes")?;
        let (k, most) = (top.k(), MOST_TOP.min(self.classes));
        let dims: Vec<usize> = self.rows.iter().copied().chain([k]).collect();
        let shape = Shape::new(&dims).filter(|_| (1..=most).contains(&k));
        let Some(shape) = shape else {
            let expected = format!("{} and then a k from 1 to {most}", self.rows);
            let got = top.classes.shape();
            return Err(Error::Shape { argument: "top_k.classes", expected, got });
        };
        let owner = "the target's and then k";
        validate::i64_output("top_k.classes", &top.classes.as_ref(), shape, owner)?;
        validate::f32_output("top_k.logprob", &top.logprob.as_ref(), shape, "that of its classes")
    }

    pub(crate) fn check_upstream(&self, upstream: &CrossEntropyUpstream<'_>) -> Result<()> {
        self.check_grad_output(&upstream.grad_output)?;
        let tokens =
            [("grad_logprob", &upstream.grad_logprob), ("grad_entropy", &upstream.grad_entropy)];
        for (argument, grad) in tokens.into_iter().filter(|(_, grad)| **grad != NOTHING) {
            self.has_classes(argument)?;
            grad.check_as(argument, self.rows, self.dtype)?;
        }
        Ok(())
    }

    /// Only a class has a rank, and what else `argument` is.
    pub(crate) fn has_classes(&self, argument: &'static str) -> Result<()> {
        match &self.target {
            Target::Classes(_) => Ok(()),
            Target::Soft(soft) => Err(Error::Value {
                argument,
                expected: format!("a target of class indices (probabilities have no {argument})"),
                got: format!("one of {} {}", soft.0.dtype(), soft.0.shape()),
            }),
        }
    }

    /// Memory for the gradient of probabilities is of their kind; indices and teachers have none.
    pub(crate) fn check_grad_target(&self, gradients: &CrossEntropyGradients<'_>) -> Result<()> {
        self.check_target_gradient(gradients.target.as_ref())
    }

    /// The same of that memory alone.
    pub(crate) fn check_target_gradient(&self, grad: Option<&TensorMut<'_>>) -> Result<()> {
        let Some(grad) = grad else {
            return Ok(());
        };
        let refuse = |what: &str| {
            let expected = format!("none ({what} have no gradient)");
            let got = format!("{} {}", grad.dtype(), grad.shape());
            Err(Error::Value { argument: "grad_target", expected, got })
        };
        let Target::Soft(target) = &self.target else {
            return refuse("class indices");
        };
        if self.options.teacher_scale.is_some() {
            return refuse("a teacher's logits");
        }
        let grad = grad.as_ref();
        validate::shape("grad_target", &grad, target.0.shape(), "the target's")?;
        validate::dtype("grad_target", &grad, &[self.dtype], "the target's")
    }

    pub(crate) fn check_backward(
        &self,
        lse: &TensorRef<'_>,
        grad_output: &GradOutput<'_>,
    ) -> Result<()> {
        validate::f32_output("lse", lse, self.rows, "one a row")?;
        self.check_grad_output(grad_output)
    }
}
