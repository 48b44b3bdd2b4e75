//! A classifier for each of several positions, `[V, d1, …, D]`: as one of V·d1·… classes, whose logits `[N, V·d1·…]`
//! lie as those of images `[N, V, d1, …]` do.

use crate::base::error::{Error, Result};
use crate::base::shape::Shape;
use crate::base::tensor::{TensorMut, TensorRef};
use crate::base::validate;
use crate::spec::linear_cross_entropy::input::LinearInput;
use crate::spec::linear_cross_entropy::outputs::{LinearGradOut, REST};

pub(super) const NAMES: [&str; 2] = ["linear_weight", "linear_bias"];

/// The input with a classifier of two dimensions, and d1, … of that which was given.
///
/// # Errors
/// One of more that is not contiguous, or that has not the input's features or a position; a bias of another shape;
/// what only rows that share a classifier have.
pub(super) fn flat<'a>(input: &LinearInput<'a>) -> Result<(LinearInput<'a>, Shape)> {
    let shape = input.linear_weight.shape();
    let [_, inner @ .., last] = &*shape else { return Ok((*input, Shape::SCALAR)) };
    if inner.is_empty() {
        return Ok((*input, Shape::SCALAR));
    }
    let several = "a linear_weight of more than two dimensions";
    if input.input.rank() != 2 {
        let (argument, expected) = ("input", format!("2 (with {several})"));
        return Err(Error::Rank { argument, expected, got: input.input.rank() });
    }
    for (argument, there) in [
        ("temperature", input.temperature.is_some()),
        ("row_weight", input.row_weight.is_some()),
        ("subset", input.subset.is_some()),
    ] {
        if there {
            let expected = format!("none (with {several})");
            return Err(Error::Value { argument, expected, got: "one".into() });
        }
    }
    let features = input.input.shape()[1];
    if *last != features || inner.contains(&0) {
        let expected = format!("[V, d1, …, {features}] (the input's features; d1, … at least 1)");
        return Err(Error::Shape { argument: NAMES[0], expected, got: shape });
    }
    let classes = shape.without(shape.len() - 1);
    let columns = classes.iter().product();
    let mut flat = Shape::SCALAR;
    [columns, features].into_iter().for_each(|size| flat.push(size));
    let bias = input.linear_bias.map(|bias| {
        validate::shape(NAMES[1], &bias, classes, "one a class and position")?;
        as_one(NAMES[1], bias, flat.without(1))
    });
    let linear_weight = as_one(NAMES[0], input.linear_weight, flat)?;
    let linear_bias = bias.transpose()?;
    Ok((LinearInput { linear_weight, linear_bias, ..*input }, classes.without(0)))
}

fn as_one<'a>(
    argument: &'static str,
    tensor: TensorRef<'a>,
    shape: Shape,
) -> Result<TensorRef<'a>> {
    validate::contiguous(argument, &tensor)?;
    tensor.viewed(shape).ok_or(Error::Shape {
        argument,
        expected: "sizes that fit the address space".into(),
        got: tensor.shape(),
    })
}

/// The gradients of a classifier of the given shape, and of its bias, as of a classifier of two dimensions.
///
/// # Errors
/// Another shape, or padding.
pub(super) fn flat_gradients<'g>(
    (given, flat): (Shape, Shape),
    gradients: LinearGradOut<'g>,
) -> Result<LinearGradOut<'g>> {
    if given.len() <= 2 {
        return Ok(gradients);
    }
    let (weight, bias) = ((given, flat), (given.without(given.len() - 1), flat.without(1)));
    let flat = |argument, tensor: Option<TensorMut<'g>>, (given, shape), owner| {
        let Some(tensor) = tensor else { return Ok(None) };
        validate::shape(argument, &tensor.as_ref(), given, owner)?;
        validate::contiguous(argument, &tensor.as_ref())?;
        Ok(tensor.viewed(shape))
    };
    let LinearGradOut { linear_weight, linear_weight_rest, linear_bias, .. } = gradients;
    Ok(LinearGradOut {
        linear_weight: flat("grad_linear_weight", linear_weight, weight, "the classifier's")?,
        linear_weight_rest: flat(REST, linear_weight_rest, weight, "the classifier's")?,
        linear_bias: flat("grad_linear_bias", linear_bias, bias, "the bias's")?,
        ..gradients
    })
}
