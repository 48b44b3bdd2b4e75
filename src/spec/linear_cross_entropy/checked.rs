//! What is checked before a device sees it.

use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::shape::Shape;
use crate::base::tensor::TensorRef;
use crate::base::validate;
use crate::spec::class_subset::CheckedSubset;
use crate::spec::cross_entropy::CrossEntropyUpstream;
use crate::spec::cross_entropy::checked::{Checked, Target};
use crate::spec::cross_entropy::tokens::MOST_TOP;
use crate::spec::linear_cross_entropy::positions::NAMES;
use crate::spec::linear_cross_entropy::{
    LinearCrossEntropy, LinearGradOut, LinearInput, LinearOutputs, REST, positions,
};
use crate::spec::output_layer::places;

/// Inputs that have passed the checks: only [`LinearCrossEntropy`] makes one, and a device takes nothing else.
#[derive(Debug)]
pub(crate) struct CheckedLinear<'a> {
    pub(crate) options: &'a LinearCrossEntropy<'a>,
    pub(crate) input: LinearInput<'a>,
    /// The loss over logits `[N, V]`, or of listed classes alone (their dtype here: the input's, that of what is checked beside them).
    pub(crate) of_logits: Checked<'a, Target<'a>>,
    /// The lists, where the softmax does not go over all classes.
    pub(crate) subset: Option<CheckedSubset<'a>>,
    /// The classifier's own shape.
    pub(crate) given: Shape,
    /// d1·…, where the classifier is `[V, d1, …, D]`; as it is here `[V·d1·…, D]`, with all that is shaped as it.
    pub(crate) positions: usize,
    /// N.
    pub(crate) rows: usize,
    /// D.
    pub(crate) features: usize,
}

impl LinearCrossEntropy<'_> {
    /// Everything about the inputs that can be told without reading them.
    pub(crate) fn check<'a>(&'a self, of: &LinearInput<'a>) -> Result<CheckedLinear<'a>> {
        validate::float("input", &of.input)?;
        validate::row("input", &of.input)?;
        let (rows, row_shape) = rows_of("input", &of.input)?;
        let (flat, inner) = positions::flat(of)?;
        let classifier = (&flat.linear_weight, &flat.linear_bias);
        let columns = check_classifier(NAMES, &flat.input, classifier)?;
        let checked = self.check_classes(&flat, (columns, false), (rows, row_shape, inner))?;
        Ok(CheckedLinear { given: of.linear_weight.shape(), ..checked })
    }

    /// The same of logits that stand for hidden states.
    pub(crate) fn check_given<'a>(&'a self, of: &LinearInput<'a>) -> Result<CheckedLinear<'a>> {
        validate::row("logits", &of.input)?;
        let (rows, row_shape) = rows_of("input", &of.input)?;
        let classes = of.input.shape().last().copied().unwrap_or(0);
        self.check_classes(of, (classes, true), (rows, row_shape, Shape::SCALAR))
    }

    /// What comes with rows that have so many columns: a logit for each class, at each position.
    fn check_classes<'a>(
        &'a self,
        of: &LinearInput<'a>,
        (columns, given): (usize, bool),
        (rows, row_shape, inner): (usize, Shape, Shape),
    ) -> Result<CheckedLinear<'a>> {
        let features = of.input.shape().last().copied().unwrap_or(0);
        let dtype = (of.input.dtype(), if given { "the logits'" } else { "the input's" });
        let positions = inner.iter().product();
        let (of_logits, subset) = match of.subset {
            None => {
                let mut losses = row_shape;
                inner.iter().for_each(|&size| losses.push(size));
                let sizes = (columns / positions, losses, row_shape.len());
                (self.of_logits.check_rows(dtype, sizes, &of.target)?, None)
            }
            Some(lists) => {
                let sizes = (columns, row_shape);
                let (of_logits, lists) = lists.check(&self.of_logits, dtype, sizes, &of.target)?;
                (of_logits, Some(CheckedSubset { given, ..lists }))
            }
        };
        self.check_filter(of, (&of_logits.target, positions))?;
        for (argument, tensor) in [("temperature", &of.temperature), ("row_weight", &of.row_weight)]
        {
            if let Some(tensor) = tensor {
                validate::f32_output(argument, tensor, row_shape, "one a row")?;
            }
        }
        let given = of.linear_weight.shape();
        Ok(CheckedLinear {
            options: self,
            input: *of,
            of_logits,
            subset,
            given,
            positions,
            rows,
            features,
        })
    }

    /// What gives every class a gradient, however small its probability, has none that could be left out.
    fn check_filter(
        &self,
        of: &LinearInput<'_>,
        (target, positions): (&Target<'_>, usize),
    ) -> Result<()> {
        let Some(bound) = self.gradient_filter else { return Ok(()) };
        let refuse = |expected: &str, got: String| {
            let expected = expected.into();
            Err(Error::Value { argument: "gradient_filter", expected, got })
        };
        let with = |what: &str| refuse("none", format!("{bound} with {what}"));
        match target {
            _ if !(0.0..=1.0).contains(&bound) => refuse("from 0 to 1", bound.to_string()),
            _ if self.of_logits.label_smoothing != 0.0 => {
                with(&format!("label_smoothing {}", self.of_logits.label_smoothing))
            }
            _ if of.subset.is_some() => with("lists of classes"),
            _ if positions > 1 => with("a linear_weight of more than two dimensions"),
            Target::Soft(_) => with("probabilities for a target"),
            Target::Classes(_) => Ok(()),
        }
    }
}

/// How many rows there are, and the shape of what has one value a row.
pub(crate) fn rows_of(argument: &'static str, input: &TensorRef<'_>) -> Result<(usize, Shape)> {
    match *input.shape() {
        [_] => Ok((1, Shape::SCALAR)),
        [rows, _] => Ok((rows, input.shape().without(1))),
        _ => {
            let expected = "1 or 2".into();
            Err(Error::Rank { argument, expected, got: input.rank() })
        }
    }
}

/// The classifier, and a bias where there is one, are of the input's features; its classes.
pub(crate) fn check_classifier(
    [argument, of_bias]: [&'static str; 2],
    input: &TensorRef<'_>,
    (weight, bias): (&TensorRef<'_>, &Option<TensorRef<'_>>),
) -> Result<usize> {
    let (features, dtype) = (input.shape().last().copied().unwrap_or(0), input.dtype());
    let [classes, columns] = *weight.shape() else {
        let expected = "2".into();
        return Err(Error::Rank { argument, expected, got: weight.rank() });
    };
    if columns != features {
        let expected = format!("[V, {features}] (the input's features)");
        return Err(Error::Shape { argument, expected, got: weight.shape() });
    }
    validate::dtype(argument, weight, &[dtype], "the input's")?;
    validate::row(argument, weight)?;
    if let Some(bias) = bias {
        validate::shape(of_bias, bias, weight.shape().without(1), "one a class")?;
        validate::dtype(of_bias, bias, &[dtype], "the input's")?;
        validate::contiguous(of_bias, bias)?;
    }
    Ok(classes)
}

impl<'a> CheckedLinear<'a> {
    /// V, or how many classes a list has at most.
    pub(crate) fn classes(&self) -> usize {
        self.of_logits.classes
    }

    /// Columns of all rows' logits: V, or V·d1·….
    pub(crate) fn columns(&self) -> usize {
        self.classes() * self.positions
    }

    /// Losses that there are: N, or N·d1·….
    pub(crate) fn losses(&self) -> usize {
        self.rows * self.positions
    }

    /// Gradients that are shaped as what was given, as of a classifier of two dimensions.
    pub(crate) fn flat_gradients<'g>(
        &self,
        gradients: LinearGradOut<'g>,
    ) -> Result<LinearGradOut<'g>> {
        positions::flat_gradients((self.given, self.input.linear_weight.shape()), gradients)
    }

    /// Where all that is read lies: it must lie together.
    pub(crate) fn places(&self) -> [&'static str; 2] {
        let of = &self.input;
        places(&of.input, of.others().chain([of.target]))
    }

    /// There can be such results.
    pub(crate) fn check_outputs(&self, outputs: LinearOutputs) -> Result<()> {
        let LinearOutputs { gradients, ranks, top_k, linear_weight_rest } = outputs;
        let most = MOST_TOP.min(self.classes());
        let refuse =
            |argument, expected: String, got: String| Err(Error::Value { argument, expected, got });
        if ranks {
            self.of_logits.has_classes("ranks")?;
        }
        if top_k > 0 {
            self.of_logits.has_classes("top_k")?;
        }
        if top_k > most {
            return refuse("top_k", format!("from 0 to {most}"), top_k.to_string());
        }
        let narrow = self.input.linear_weight.dtype() != DType::F32;
        match linear_weight_rest {
            true if !gradients => refuse(REST, "gradients beside it".into(), "none".into()),
            true if !narrow => refuse(REST, "a linear_weight of f16 or bf16".into(), "f32".into()),
            _ => Ok(()),
        }
    }

    /// Gradients have the shapes and the dtype of what they belong to; upstream ones those of the results.
    pub(crate) fn check_gradients(
        &self,
        upstream: &CrossEntropyUpstream<'_>,
        gradients: &LinearGradOut<'_>,
    ) -> Result<()> {
        self.of_logits.check_upstream(upstream)?;
        let LinearInput { input, linear_weight, linear_bias, .. } = &self.input;
        if let (Some(grad), None) = (&gradients.linear_bias, linear_bias) {
            return Err(Error::Value {
                argument: "grad_linear_bias",
                expected: "none (there is no linear_bias)".into(),
                got: format!("{} {}", grad.dtype(), grad.shape()),
            });
        }
        if gradients.linear_weight.is_none() {
            gradients.check_no_rest("there is no grad_linear_weight")?;
        }
        if linear_weight.dtype() == DType::F32 {
            gradients.check_no_rest("rounding leaves nothing of an f32 grad_linear_weight")?;
        }
        let given = self.subset.is_some_and(|subset| subset.given);
        for (argument, grad) in gradients.each() {
            let (argument, owner, name) = match argument {
                "grad_input" if given => ("grad_logits", Some(input), "the logits'"),
                "grad_input" => (argument, Some(input), "the input's"),
                "grad_linear_weight" | REST => (argument, Some(linear_weight), "the classifier's"),
                "grad_linear_bias" => (argument, linear_bias.as_ref(), "the bias's"),
                _ => (argument, None, ""),
            };
            let Some(owner) = owner else { continue };
            let grad = grad.as_ref();
            validate::like(argument, &grad, owner, name)?;
            validate::row(argument, &grad)?;
        }
        self.of_logits.check_target_gradient(gradients.target.as_ref())
    }

    /// Where the gradients lie that do not lie with the input.
    pub(crate) fn gradient_places(&self, gradients: &LinearGradOut<'_>) -> [&'static str; 2] {
        let input = self.input.input.place();
        let other = gradients.each().map(|(_, grad)| grad.place()).find(|&place| place != input);
        [input, other.unwrap_or(input)]
    }
}
