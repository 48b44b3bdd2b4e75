//! What is checked before a device sees it.

use crate::base::error::{Error, Result};
use crate::base::shape::Shape;
use crate::base::tensor::TensorRef;
use crate::base::validate;
use crate::spec::grad_output::GradOutput;
use crate::spec::js_div_logits::JsDivRows;
use crate::spec::linear_cross_entropy::{LinearGradOut, check_classifier, rows_of};
use crate::spec::linear_distillation::{
    DistillationGradOut, DistillationInput, LinearDistillation, LinearHead,
};

/// What an argument is called: of the student and of the teacher.
#[derive(Debug)]
pub(crate) struct HeadNames {
    pub(crate) input: &'static str,
    pub(crate) weight: &'static str,
    pub(crate) bias: &'static str,
    pub(crate) temperature: &'static str,
    pub(crate) grad_input: &'static str,
    pub(crate) grad_weight: &'static str,
    pub(crate) grad_bias: &'static str,
}

const STUDENT: HeadNames = HeadNames {
    input: "input",
    weight: "linear_weight",
    bias: "linear_bias",
    temperature: "temperature",
    grad_input: "grad_input",
    grad_weight: "grad_linear_weight",
    grad_bias: "grad_linear_bias",
};

const TEACHER: HeadNames = HeadNames {
    input: "teacher_input",
    weight: "teacher_weight",
    bias: "teacher_bias",
    temperature: "teacher_temperature",
    grad_input: "grad_teacher_input",
    grad_weight: "grad_teacher_weight",
    grad_bias: "grad_teacher_bias",
};

/// One side.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CheckedHead<'a> {
    pub(crate) names: &'static HeadNames,
    pub(crate) of: LinearHead<'a>,
    /// Its D.
    pub(crate) features: usize,
}

/// Inputs that have passed the checks: only [`LinearDistillation`] makes one, and a device takes nothing else.
#[derive(Debug)]
pub(crate) struct CheckedDistillation<'a> {
    pub(crate) options: &'a LinearDistillation<'a>,
    /// Which rows count, and for what.
    pub(crate) of_rows: JsDivRows<'a>,
    pub(crate) student: CheckedHead<'a>,
    pub(crate) teacher: CheckedHead<'a>,
    pub(crate) row_weight: Option<TensorRef<'a>>,
}

impl LinearDistillation<'_> {
    /// Everything about the inputs that can be told without reading them.
    pub(crate) fn check<'a>(
        &'a self,
        of: &DistillationInput<'a>,
    ) -> Result<CheckedDistillation<'a>> {
        let (student, row_shape, classes) = CheckedHead::new(&STUDENT, of.student)?;
        let (teacher, other_rows, other_classes) = CheckedHead::new(&TEACHER, of.teacher)?;
        if other_rows != row_shape {
            let expected = match *row_shape {
                [rows] => format!("[{rows}, D] (a row for each of the input's)"),
                _ => "[D] (the input is one row)".into(),
            };
            let got = of.teacher.input.shape();
            return Err(Error::Shape { argument: TEACHER.input, expected, got });
        }
        if other_classes != classes {
            let expected = format!("[{classes}, D] (the student's classes)");
            let got = of.teacher.linear_weight.shape();
            return Err(Error::Shape { argument: TEACHER.weight, expected, got });
        }
        let of_rows = self.of_logits.check_rows(classes, row_shape)?;
        if let Some(weight) = &of.row_weight {
            validate::f32_output("row_weight", weight, row_shape, "one a row")?;
        }
        Ok(CheckedDistillation {
            options: self,
            of_rows,
            student,
            teacher,
            row_weight: of.row_weight,
        })
    }
}

impl<'a> CheckedHead<'a> {
    /// With the shape of what has one value a row, and the number of classes.
    fn new(
        names: &'static HeadNames,
        of: LinearHead<'a>,
    ) -> Result<(CheckedHead<'a>, Shape, usize)> {
        validate::float(names.input, &of.input)?;
        validate::row(names.input, &of.input)?;
        let (_, row_shape) = rows_of(names.input, &of.input)?;
        let features = of.input.shape().last().copied().unwrap_or(0);
        let named = [names.weight, names.bias];
        let classes = check_classifier(named, &of.input, (&of.linear_weight, &of.linear_bias))?;
        if let Some(temperature) = &of.temperature {
            validate::f32_output(names.temperature, temperature, row_shape, "one a row")?;
        }
        Ok((CheckedHead { names, of, features }, row_shape, classes))
    }

    /// Gradients have the shapes and the dtypes of what they belong to.
    fn check_gradients(&self, out: &LinearGradOut<'_>) -> Result<()> {
        let names = self.names;
        out.check_no_rest("a distillation keeps none")?;
        if let Some(grad) = &out.target {
            return Err(none("grad_target", "there is no target", &grad.as_ref()));
        }
        if let (Some(grad), None) = (&out.linear_bias, &self.of.linear_bias) {
            return Err(none(
                names.grad_bias,
                &format!("there is no {}", names.bias),
                &grad.as_ref(),
            ));
        }
        let each = [
            (names.grad_input, &out.input, Some(&self.of.input)),
            (names.grad_weight, &out.linear_weight, Some(&self.of.linear_weight)),
            (names.grad_bias, &out.linear_bias, self.of.linear_bias.as_ref()),
        ];
        for (argument, grad, owner) in each {
            let (Some(grad), Some(owner)) = (grad, owner) else { continue };
            let grad = grad.as_ref();
            validate::shape(argument, &grad, owner.shape(), "that of what it belongs to")?;
            validate::dtype(argument, &grad, &[owner.dtype()], "that of what it belongs to")?;
            validate::row(argument, &grad)?;
        }
        Ok(())
    }
}

/// An argument that nothing has.
fn none(argument: &'static str, why: &str, got: &TensorRef<'_>) -> Error {
    let got = format!("{} {}", got.dtype(), got.shape());
    Error::Value { argument, expected: format!("none ({why})"), got }
}

/// Whether any gradient is asked for.
pub(crate) fn wanted(out: &LinearGradOut<'_>) -> bool {
    out.input.is_some() || out.linear_weight.is_some() || out.linear_bias.is_some()
}

impl CheckedDistillation<'_> {
    /// N.
    pub(crate) fn rows(&self) -> usize {
        self.of_rows.rows()
    }

    /// V.
    pub(crate) fn classes(&self) -> usize {
        self.of_rows.classes
    }

    pub(crate) fn check_gradients(
        &self,
        grad_output: &GradOutput<'_>,
        gradients: &DistillationGradOut<'_>,
    ) -> Result<()> {
        grad_output.check(self.of_rows.loss_shape(), self.student.of.input.dtype())?;
        self.student.check_gradients(&gradients.student)?;
        self.teacher.check_gradients(&gradients.teacher)
    }

    /// Where all that is read lies, and all gradients.
    pub(crate) fn places(&self, gradients: Option<&DistillationGradOut<'_>>) -> Vec<&'static str> {
        let heads = self.student.of.tensors().chain(self.teacher.of.tensors());
        let others = [self.row_weight, self.of_rows.labels.map(|labels| labels.tensor())];
        let read = heads.chain(others.into_iter().flatten()).map(|tensor| tensor.place());
        let out = gradients.into_iter().flat_map(|g| [&g.student, &g.teacher]);
        let written = out.flat_map(|g| [&g.input, &g.linear_weight, &g.linear_bias]);
        read.chain(written.flatten().map(|grad| grad.place())).collect()
    }
}
