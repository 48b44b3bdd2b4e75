//! What is checked before a device sees it.

use crate::base::dtype::DType;
use crate::base::error::{Count, Error, Result};
use crate::base::host::Element as _;
use crate::base::shape::Shape;
use crate::base::tensor::{TensorMut, TensorRef};
use crate::base::validate;
use crate::spec::adaptive_log_softmax::{AdaptiveLogSoftmax, AdaptiveParameters, LayerGradOut};
use crate::spec::class_indices::ClassIndices;
use crate::spec::grad_output::GradOutput;
use crate::spec::output_layer::{LayerRows, places};

/// Inputs that have passed the checks: only [`AdaptiveLogSoftmax`] makes one, and a device takes
/// nothing else. Without a target there are no rows in `target`.
pub(crate) struct CheckedAdaptive<'a> {
    pub(crate) options: &'a AdaptiveLogSoftmax<'a>,
    pub(crate) parameters: &'a AdaptiveParameters<TensorRef<'a>>,
    pub(crate) input: TensorRef<'a>,
    pub(crate) target: Option<ClassIndices<'a>>,
    pub(crate) rows: LayerRows,
}

impl AdaptiveLogSoftmax<'_> {
    pub(crate) fn check_options(&self) -> Result<()> {
        validate::reduction(self.reduction)?;
        let refuse = |argument, expected: &str, got: String| {
            Err(Error::Value { argument, expected: expected.into(), got })
        };
        if self.in_features == 0 {
            return refuse("in_features", "at least 1", "0".into());
        }
        let (cutoffs, classes) = (&self.cutoffs, self.classes);
        let least = |i: usize| cutoffs[..i].last().map_or(1, |before| before + 1);
        let bad = (0..cutoffs.len()).find(|&i| !(least(i)..classes).contains(&cutoffs[i]));
        if let Some(i) = bad {
            let expected =
                format!("a number in [{}, {classes}) at {i} (rising, below V)", least(i));
            return refuse("cutoffs", &expected, format!("{} in {cutoffs:?}", cutoffs[i]));
        }
        if cutoffs.is_empty() {
            return refuse("cutoffs", "at least one", "none".into());
        }
        if let Some(got) = self.widths.as_ref().map(Vec::len).filter(|&n| n != self.clusters()) {
            let expected =
                format!("one for each of {} (cutoffs)", Count(self.clusters(), "cluster"));
            return refuse("widths", &expected, got.to_string());
        }
        if let Some(got) = self.capacities.as_ref().map(Vec::len).filter(|&n| n != self.clusters())
        {
            let expected =
                format!("one for each of {} (cutoffs)", Count(self.clusters(), "cluster"));
            return refuse("capacities", &expected, got.to_string());
        }
        let v = self.div_value;
        validate::value("div_value", v, v > 0.0 && v.is_finite(), "a finite number > 0")?;
        // Below 1 clusters are wider than the input; what cannot be addressed is refused here.
        let legal = |i| self.cluster(i).len().checked_mul(self.width(i)).is_some();
        if !(0..self.clusters()).all(|i| self.width(i) < isize::MAX as usize && legal(i)) {
            return match &self.widths {
                Some(widths) => refuse("widths", "sizes within reach", format!("{widths:?}")),
                None => refuse("div_value", "one that leaves widths in reach", v.to_string()),
            };
        }
        match &self.class_order {
            Some(order) if order.len() != classes => {
                let expected = format!("an order of {}", Count(classes, "class"));
                refuse("class_order", &expected, order.len().to_string())
            }
            _ => Ok(()),
        }
    }

    /// Everything about input and parameters that can be told without reading them.
    pub(crate) fn check_input<'a>(
        &'a self,
        parameters: &'a AdaptiveParameters<TensorRef<'a>>,
        input: &TensorRef<'a>,
    ) -> Result<CheckedAdaptive<'a>> {
        let shapes = self.shapes()?;
        let rows = LayerRows::of(input, self.in_features)?;
        check_parameters(("parameters", parameters), &shapes, input.dtype())?;
        let input = *input;
        Ok(CheckedAdaptive { options: self, parameters, input, target: None, rows })
    }

    pub(crate) fn check<'a>(
        &'a self,
        parameters: &'a AdaptiveParameters<TensorRef<'a>>,
        input: &TensorRef<'a>,
        target: &TensorRef<'a>,
    ) -> Result<CheckedAdaptive<'a>> {
        let checked = self.check_input(parameters, input)?;
        let target = checked.rows.indices(input, target)?;
        if let Some(weight) = &self.row_weight {
            validate::shape("row_weight", weight, checked.rows.shape, "one a row")?;
            let expected = [f32::DTYPE, input.dtype()];
            validate::dtype("row_weight", weight, &expected, "the input's")?;
            validate::contiguous("row_weight", weight)?;
        }
        Ok(CheckedAdaptive { target: Some(target), ..checked })
    }
}

/// Parameters, or their gradients, have the shapes of the options and one dtype.
fn check_parameters(
    (argument, parameters): (&'static str, &AdaptiveParameters<TensorRef<'_>>),
    shapes: &AdaptiveParameters<Shape>,
    dtype: DType,
) -> Result<()> {
    let refuse = |expected, got| Err(Error::Value { argument, expected, got });
    if parameters.head_bias.is_some() != shapes.head_bias.is_some() {
        let [expected, got] = [&shapes.head_bias, &parameters.head_bias.map(|b| b.shape())]
            .map(|bias| if bias.is_some() { "head.bias" } else { "no head.bias" });
        return refuse(format!("{expected} (head_bias)"), got.into());
    }
    let (clusters, got) = (shapes.tails.len(), parameters.tails.len());
    if got != clusters {
        return refuse(format!("{} (cutoffs)", Count(clusters, "tail")), got.to_string());
    }
    let expected: Vec<_> = shapes.clone().into_named();
    let mut expected = expected.into_iter();
    parameters.try_map(|key, tensor| {
        let shape = expected.next().map_or(Shape::SCALAR, |(_, shape)| shape);
        validate::parameter(argument, (key, tensor), shape, (dtype, "the input's"))
    })?;
    Ok(())
}

impl CheckedAdaptive<'_> {
    /// The shape of what has `n` values a row.
    pub(crate) fn per_row(&self, n: usize) -> Shape {
        let mut shape = self.rows.shape;
        shape.push(n);
        shape
    }

    pub(crate) fn per_class(&self) -> Shape {
        self.per_row(self.options.classes)
    }

    /// Where input and parameters lie: they must lie together.
    pub(crate) fn places(&self) -> [&'static str; 2] {
        places(&self.input, self.parameters.clone().into_named().into_iter().map(|(_, p)| p))
    }

    pub(crate) fn check_per_class(&self, out: &TensorMut<'_>) -> Result<()> {
        let out = out.as_ref();
        validate::shape("log_prob", &out, self.per_class(), "one a row and class")?;
        validate::dtype("log_prob", &out, &[f32::DTYPE], "results are f32")?;
        validate::row("log_prob", &out)
    }

    pub(crate) fn check_k(&self, k: usize) -> Result<usize> {
        let classes = self.options.classes;
        if (1..=classes).contains(&k) {
            return Ok(k);
        }
        let expected = format!("a number in [1, {classes}] (the classes)");
        Err(Error::Value { argument: "k", expected, got: k.to_string() })
    }

    pub(crate) fn check_gradients(
        &self,
        grad_output: &GradOutput<'_>,
        gradients: &LayerGradOut<'_, AdaptiveParameters<TensorMut<'_>>>,
    ) -> Result<()> {
        let given = (grad_output, gradients.input.as_ref());
        self.rows.check_gradients(self.options.reduction, &self.input, given)?;
        if let Some(grads) = &gradients.parameters {
            let shapes = self.options.shapes()?;
            let dtype = self.input.dtype();
            check_parameters(("grad_parameters", &grads.as_ref()), &shapes, dtype)?;
        }
        Ok(())
    }
}
