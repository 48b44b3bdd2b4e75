//! Losses of one element of the input and one of the target, as the catalogue describes them: what
//! they take, the formula, and how the engine is called. All the rest is alike, and is here once.

mod calls;
mod case;
pub(super) mod entry;

use super::option::{Choice, Scalar};
use super::reference::{Element, Formula, Point};
use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::reduction::Reduction;
use crate::base::tensor::{Tensor, TensorMut, TensorRef};
use crate::device::Device;
use crate::spec::elementwise::{Elementwise, ElementwiseGrad, ElementwiseGradOut, Wrt, sealed};
use crate::spec::grad_output::GradOutput;
use std::fmt;

/// A loss, described.
#[derive(Debug)]
pub struct Description {
    /// As the command line has it.
    pub name: &'static str,
    /// What `eval` says that it is, and that it reads and writes; nothing of what it has not.
    pub evaluated: Option<(&'static str, &'static str)>,
    /// What is measured of it, in a line of help.
    pub measured: &'static str,
    /// What it has besides weights and a reduction.
    pub options: &'static [Choice],
    /// Which weights it takes.
    pub weights: Weights,
    /// A third tensor, which broadcasts.
    pub third: Option<Third>,
    /// Whether input and target broadcast.
    pub broadcasts: bool,
    /// Whether [`Reduction::BatchMean`] is one of its reductions.
    pub batch_mean: bool,
    /// What the input holds.
    pub input: Domain,
    /// What the target holds, by the options.
    pub target: fn(&[f32]) -> Domain,
    /// The formula in f64.
    pub formula: fn(&[f32], Point) -> Element,
    /// The engine's loss, given the options.
    pub make: for<'w> fn(&[f32], Given<'w>) -> Box<dyn Calls + 'w>,
}

/// A slope in f64, given the options, and Σ|terms| of it.
pub type Slope = fn(&[f32], Point) -> [f64; 2];

/// A tensor beside input and target that a loss may be given: of positive numbers.
#[derive(Debug, Clone, Copy)]
pub struct Third {
    /// What it is called.
    pub name: &'static str,
    /// ∂ℓ/∂r, of a loss that has a gradient of it; the tensor is of the
    /// input's type then, and may lack the result's last dimension.
    pub slope: Option<Slope>,
}

impl Third {
    /// A type that it may have.
    pub fn dtype(&self, other: DType, input: DType) -> DType {
        if self.slope.is_some() { input } else { other }
    }

    /// A shape that it may have, given one that broadcasts to `result` and a draw.
    pub fn shape(&self, broadcasts: Vec<usize>, result: &[usize], without: bool) -> Vec<usize> {
        match result {
            [outer @ .., _] if without && self.slope.is_some() => outer.to_vec(),
            _ => broadcasts,
        }
    }
}

/// Which weights a loss takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weights {
    /// None.
    None,
    /// Of the input's shape, which is the target's too; a mean divides by their sum.
    Divide,
    /// The same; a mean divides by the number of elements.
    Keep,
    /// Of a shape that broadcasts to the input's; a mean divides by the number of elements.
    Broadcast,
}

/// What a tensor holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Domain {
    /// Any numbers.
    Any,
    /// Probabilities.
    Probabilities,
    /// Logarithms of probabilities.
    Logarithms,
    /// −1 and 1.
    Signs,
    /// 0, 1, 2 and so on.
    Counts,
}

/// What a loss is given besides its own options.
#[derive(Debug, Clone, Copy)]
pub struct Given<'w> {
    /// Element weights.
    pub weight: Option<TensorRef<'w>>,
    /// The loss's third tensor.
    pub third: Option<TensorRef<'w>>,
    /// How elements become the result.
    pub reduction: Reduction,
}

impl<'w> Given<'w> {
    /// A loss that takes weights, with them.
    pub fn weighted<L: sealed::Weighted + 'w>(
        self,
        loss: Elementwise<'w, L>,
    ) -> Box<dyn Calls + 'w> {
        match self.weight {
            Some(weight) => self.plain(loss.weight(weight)),
            None => self.plain(loss),
        }
    }

    /// A loss as it is.
    pub fn plain<L: sealed::Loss + 'w>(self, loss: Elementwise<'w, L>) -> Box<dyn Calls + 'w> {
        Box::new(loss.reduction(self.reduction))
    }
}

/// Every form of the call, whichever the loss: as [`Elementwise`]'s.
#[allow(missing_docs, clippy::missing_errors_doc)]
pub trait Calls {
    fn forward(&self, on: &Device, x: TensorRef<'_>, y: TensorRef<'_>) -> Result<Tensor>;
    fn forward_into(
        &self,
        on: &Device,
        x: TensorRef<'_>,
        y: TensorRef<'_>,
        loss: TensorMut<'_>,
    ) -> Result<()>;
    fn backward(
        &self,
        on: &Device,
        x: TensorRef<'_>,
        y: TensorRef<'_>,
        g: GradOutput<'_>,
        wrt: Wrt,
    ) -> Result<ElementwiseGrad>;
    fn backward_into(
        &self,
        on: &Device,
        x: TensorRef<'_>,
        y: TensorRef<'_>,
        g: GradOutput<'_>,
        grads: ElementwiseGradOut<'_>,
    ) -> Result<()>;
    fn forward_backward(
        &self,
        on: &Device,
        x: TensorRef<'_>,
        y: TensorRef<'_>,
        g: GradOutput<'_>,
        wrt: Wrt,
    ) -> Result<(Tensor, ElementwiseGrad)>;
    fn forward_backward_into(
        &self,
        on: &Device,
        x: TensorRef<'_>,
        y: TensorRef<'_>,
        g: GradOutput<'_>,
        out: (TensorMut<'_>, ElementwiseGradOut<'_>),
    ) -> Result<()>;
    fn forward_backward_in_place(
        &self,
        on: &Device,
        x: TensorMut<'_>,
        y: TensorRef<'_>,
        g: GradOutput<'_>,
        loss: TensorMut<'_>,
    ) -> Result<()>;
}

/// A method of the trait that is the loss's own.
macro_rules! own {
    ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {$(
        fn $name(&self, on: &Device, $($argument: $type),*) -> $result {
            Elementwise::$name(self, on, $($argument),*)
        }
    )*};
}

impl<L: sealed::Loss> Calls for Elementwise<'_, L> {
    own! {
        forward(x: TensorRef<'_>, y: TensorRef<'_>) -> Result<Tensor>;
        forward_into(x: TensorRef<'_>, y: TensorRef<'_>, loss: TensorMut<'_>) -> Result<()>;
        backward(x: TensorRef<'_>, y: TensorRef<'_>, g: GradOutput<'_>, wrt: Wrt)
            -> Result<ElementwiseGrad>;
        backward_into(
            x: TensorRef<'_>, y: TensorRef<'_>, g: GradOutput<'_>, grads: ElementwiseGradOut<'_>
        ) -> Result<()>;
        forward_backward(x: TensorRef<'_>, y: TensorRef<'_>, g: GradOutput<'_>, wrt: Wrt)
            -> Result<(Tensor, ElementwiseGrad)>;
        forward_backward_into(
            x: TensorRef<'_>, y: TensorRef<'_>, g: GradOutput<'_>,
            out: (TensorMut<'_>, ElementwiseGradOut<'_>)
        ) -> Result<()>;
        forward_backward_in_place(
            x: TensorMut<'_>, y: TensorRef<'_>, g: GradOutput<'_>, loss: TensorMut<'_>
        ) -> Result<()>;
    }
}

/// Options that a loss has at most.
const MOST: usize = 4;

/// A loss with its options.
#[derive(Clone, Copy)]
pub struct ElementLoss {
    of: &'static Description,
    options: [f32; MOST],
}

impl Description {
    /// With these options; those that are not given are the defaults.
    ///
    /// # Panics
    /// Of more options than there are.
    pub fn with(&'static self, given: &[f32]) -> ElementLoss {
        assert!(given.len() <= self.options.len(), "{}: {given:?}", self.name);
        let mut options = [0.0; MOST];
        for (option, choice) in options.iter_mut().zip(self.options) {
            *option = choice.default.number();
        }
        options[..given.len()].copy_from_slice(given);
        ElementLoss { of: self, options }
    }

    /// Whether there is a gradient of its third tensor.
    pub(crate) fn sloped(&self) -> bool {
        self.third.is_some_and(|third| third.slope.is_some())
    }

    /// With each choice of options that tests go through.
    pub fn variants(&'static self) -> Vec<ElementLoss> {
        let mut all = vec![Vec::new()];
        for choice in self.options {
            let with = |of: &Vec<f32>, next: f64| [&of[..], &[next as f32]].concat();
            let tests = choice.tests.iter();
            all = tests.flat_map(|&next| all.iter().map(move |of| with(of, next))).collect();
        }
        all.iter().map(|options| self.with(options)).collect()
    }
}

impl ElementLoss {
    /// The loss, described.
    pub fn of(&self) -> &'static Description {
        self.of
    }

    /// Its options, in the order of [`Description::options`].
    pub fn options(&self) -> &[f32] {
        &self.options[..self.of.options.len()]
    }

    /// What the target holds.
    pub fn target(&self) -> Domain {
        (self.of.target)(self.options())
    }

    /// The engine's loss.
    pub fn make<'w>(&self, given: Given<'w>) -> Box<dyn Calls + 'w> {
        (self.of.make)(self.options(), given)
    }
}

impl Formula for ElementLoss {
    fn element(&self, at: Point) -> Element {
        (self.of.formula)(self.options(), at)
    }

    fn third_slope(&self, at: Point) -> Option<[f64; 2]> {
        let slope = self.of.third?.slope?;
        Some(slope(self.options(), at))
    }

    fn mean_divides_by_weights(&self) -> bool {
        self.of.weights == Weights::Divide
    }
}

impl PartialEq for ElementLoss {
    fn eq(&self, other: &ElementLoss) -> bool {
        self.of.name == other.of.name && self.options() == other.options()
    }
}

/// Its name and options.
impl fmt::Debug for ElementLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.of.name)?;
        for (choice, option) in self.of.options.iter().zip(self.options()) {
            match choice.default {
                Scalar::Number(_) => write!(f, ", {} {option:?}", choice.name)?,
                Scalar::Flag(_) => write!(f, ", {} {}", choice.name, *option != 0.0)?,
            }
        }
        Ok(())
    }
}
