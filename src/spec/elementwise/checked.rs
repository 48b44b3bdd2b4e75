//! Checks of an elementwise loss, and what passes them.

use crate::base::error::{Error, Result};
use crate::base::host::Element as _;
use crate::base::reduction::Reduction;
use crate::base::shape::Shape;
use crate::base::tensor::{TensorMut, TensorRef};
use crate::base::validate;
use crate::base::validate::Range;
use crate::spec::broadcast::broadcast;
use crate::spec::elementwise::call::{Call, Input};
use crate::spec::elementwise::functors::Functor;
use crate::spec::elementwise::space::Operand;
use crate::spec::grad_output::GradOutput;

/// Numbers that a functor is made of; its row in the table says which.
pub(crate) type Options = [f32; 2];

/// A loss of one element, with its options resolved.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Formula {
    pub(crate) functor: Functor,
    pub(crate) options: Options,
}

impl Formula {
    /// With so many of the options as the functor has.
    pub(crate) fn new<const N: usize>(functor: Functor, options: [f32; N]) -> Self {
        let given = |i: usize| options.get(i).copied().unwrap_or_default();
        Formula { functor, options: std::array::from_fn(given) }
    }
}

/// What the checks need to know of a loss.
#[derive(Debug, Clone, Copy)]
pub struct Traits<'a> {
    /// The loss of one element.
    pub formula: Formula,
    /// Input and target may have different shapes.
    pub broadcasts: bool,
    /// What a weight's shape may be, and whether the mean divides by it.
    pub weight: Weights,
    /// A third number an element.
    pub third: Option<Third<'a>>,
    /// Whether batchmean is a reduction of this loss.
    pub batch_mean: bool,
    /// Whether the input holds probabilities, and a number outside of [0, 1] is an error.
    pub probabilities: bool,
}

impl Traits<'_> {
    /// Shapes broadcast, unless there is a weight.
    pub(crate) fn regression(formula: Formula, weight: Weights) -> Self {
        Traits {
            formula,
            broadcasts: true,
            weight,
            third: None,
            batch_mean: false,
            probabilities: false,
        }
    }
}

/// A tensor beside input and target, which broadcasts to the result.
#[derive(Debug, Clone, Copy)]
pub enum Third<'a> {
    /// r of binary cross entropy; f32 or the input's dtype.
    PosWeight(TensorRef<'a>),
    /// A variance, which may be of the result's shape without its last dimension. It is not negative,
    /// and has a gradient.
    Variance(TensorRef<'a>),
}

impl<'a> Third<'a> {
    pub(crate) fn argument(&self) -> &'static str {
        match self {
            Third::PosWeight(_) => "pos_weight",
            Third::Variance(_) => "variance",
        }
    }

    pub(crate) fn tensor(&self) -> TensorRef<'a> {
        match self {
            Third::PosWeight(tensor) | Third::Variance(tensor) => *tensor,
        }
    }

    /// The shape that broadcasts: with the last dimension.
    pub(crate) fn seen(&self, result: &Shape) -> Shape {
        let mut own = self.tensor().shape();
        if let (Third::Variance(_), [outer @ .., _]) = (self, &result[..])
            && own[..] == *outer
        {
            own.push(1);
        }
        own
    }
}

/// How a loss takes element weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weights {
    /// Of the input's shape; the mean divides by their sum.
    Divide,
    /// Of the input's shape; the mean divides by the number of elements.
    Count,
    /// They broadcast to the input; the mean divides by the number of elements.
    Broadcast,
}

/// What a sum of losses is divided by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Denominator {
    /// A number; 1 where nothing is divided.
    Number(f64),
    /// The sum of the weights.
    Weights,
}

/// A call's inputs that have passed the checks; no other function makes one.
#[derive(Debug, Clone)]
pub(crate) struct Checked<'a> {
    pub(crate) formula: Formula,
    /// What input and target broadcast to.
    pub(crate) shape: Shape,
    pub(crate) reduction: Reduction,
    pub(crate) denominator: Denominator,
    pub(crate) weight: Option<TensorRef<'a>>,
    pub(crate) third: Option<Third<'a>>,
    /// Where the input's numbers have to lie.
    pub(crate) input_range: Option<Range>,
}

/// A tensor of shape `own`, seen as `seen`, has an element for each of the result.
fn serves(argument: &'static str, own: Shape, seen: Shape, result: Shape) -> Result<()> {
    if broadcast(seen, result) == Some(result) {
        return Ok(());
    }
    let expected = format!("{result} (the input's) or one that broadcasts to it");
    Err(Error::Shape { argument, expected, got: own })
}

impl<'a> Checked<'a> {
    pub(crate) fn new(
        traits: Traits<'a>,
        reduction: Reduction,
        weight: Option<TensorRef<'a>>,
        input: &TensorRef<'_>,
        target: &TensorRef<'_>,
    ) -> Result<Checked<'a>> {
        if !traits.batch_mean {
            validate::reduction(reduction)?;
        }
        validate::float("input", input)?;
        validate::dtype("target", target, &[input.dtype()], "the input's")?;
        let equal = weight.is_some() && traits.weight != Weights::Broadcast;
        if !traits.broadcasts {
            validate::shape("target", target, input.shape(), "the input's")?;
        } else if equal {
            validate::shape("target", target, input.shape(), "the input's, as there is a weight")?;
        }
        let shape = broadcast(input.shape(), target.shape()).ok_or_else(|| Error::Shape {
            argument: "target",
            expected: format!("{} (the input's) or one that broadcasts with it", input.shape()),
            got: target.shape(),
        })?;
        if shape.elements().is_none() {
            return Err(Error::Shape {
                argument: "target",
                expected: format!("one whose size with {} fits the address space", input.shape()),
                got: target.shape(),
            });
        }
        let dtypes = [f32::DTYPE, input.dtype()];
        if let Some(weight) = weight {
            match equal {
                true => validate::shape("weight", &weight, shape, "the input's")?,
                false => serves("weight", weight.shape(), weight.shape(), shape)?,
            }
            validate::dtype("weight", &weight, &dtypes, "the input's")?;
        }
        if let Some(third) = &traits.third {
            let (argument, tensor) = (third.argument(), third.tensor());
            serves(argument, tensor.shape(), third.seen(&shape), shape)?;
            let own = matches!(third, Third::Variance(_));
            validate::dtype(argument, &tensor, &dtypes[usize::from(own)..], "the input's")?;
        }
        let count = shape.iter().product::<usize>() as f64;
        let denominator = match reduction {
            Reduction::None | Reduction::Sum => Denominator::Number(1.0),
            Reduction::Mean if weight.is_some() && traits.weight == Weights::Divide => {
                Denominator::Weights
            }
            Reduction::Mean => Denominator::Number(count),
            Reduction::BatchMean => {
                Denominator::Number(input.shape().first().map_or(1.0, |&n| n as f64))
            }
        };
        Ok(Checked {
            formula: traits.formula,
            shape,
            reduction,
            denominator,
            weight,
            third: traits.third,
            input_range: traits.probabilities.then_some(Range::Probability),
        })
    }

    /// Where an operand's numbers have to lie.
    pub(crate) fn range(&self, operand: Operand) -> Option<Range> {
        match (operand, &self.third) {
            (Operand::Input, _) => self.input_range,
            (Operand::Third, Some(Third::Variance(_))) => Some(Range::NotNegative),
            _ => None,
        }
    }

    pub(crate) fn loss_shape(&self) -> Shape {
        self.reduction.loss_shape(self.shape)
    }

    /// Everything that a call writes, and its upstream gradient.
    pub(crate) fn check_call(&self, call: &Call<'_>) -> Result<()> {
        let input = call.input.view();
        if let Input::Consumed(_) = call.input {
            let owner = "the broadcast shape, to hold its own gradient";
            validate::shape("input", &input, self.shape, owner)?;
        }
        if let Some(loss) = &call.loss {
            validate::f32_output("loss", &loss.as_ref(), self.loss_shape(), "reduction")?;
        }
        let gradient = |argument, grad: &Option<TensorMut<'_>>, like: &TensorRef<'_>, owner| {
            let Some(grad) = grad.as_ref().map(TensorMut::as_ref) else {
                return Ok(());
            };
            validate::shape(argument, &grad, like.shape(), owner)?;
            validate::dtype(argument, &grad, &[input.dtype()], "the input's")
        };
        gradient("grad_input", &call.grad_input, &input, "the input's")?;
        gradient("grad_target", &call.grad_target, &call.target, "the target's")?;
        match (&self.third, &call.grad_third) {
            (Some(Third::Variance(variance)), grad) => {
                gradient("grad_variance", grad, variance, "the variance's")?;
                validate::within("variance", variance, Range::NotNegative)?;
            }
            (_, None) => {}
            (_, Some(grad)) => {
                return Err(Error::Value {
                    argument: "grad_variance",
                    expected: "none, as there is no variance".into(),
                    got: format!("a tensor {}", grad.shape()),
                });
            }
        }
        call.grad_output.check(self.loss_shape(), input.dtype())?;
        self.range(Operand::Input).map_or(Ok(()), |range| validate::within("input", &input, range))
    }

    /// Where everything lies.
    pub(crate) fn places(&self, call: &Call<'_>) -> [&'static str; 9] {
        let here = call.input.view().place();
        let read = |tensor: &Option<TensorRef<'_>>| tensor.as_ref().map_or(here, TensorRef::place);
        let written = |t: &Option<TensorMut<'_>>| t.as_ref().map_or(here, TensorMut::place);
        let upstream = match &call.grad_output {
            GradOutput::Number(_) => here,
            GradOutput::Tensor(g) => g.place(),
        };
        [
            here,
            call.target.place(),
            read(&self.weight),
            read(&self.third.map(|third| third.tensor())),
            upstream,
            written(&call.loss),
            written(&call.grad_input),
            written(&call.grad_target),
            written(&call.grad_third),
        ]
    }
}
