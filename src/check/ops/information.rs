//! Entropy, cross entropy and Kullback–Leibler divergence of probabilities.

use super::{Call, Draw, First, logits_shape};
use crate::base::error::Result;
use crate::base::tensor::Tensor;
use crate::check::cases::Case;
use crate::check::random::Random;
use crate::check::reference::WithSizes;
use crate::check::subject::{Expected, Outcome, Quantity};
use crate::check::{reference, typed};
use crate::device::Device;
use std::fmt;

pub(in crate::check) const DRAW: Draw = Draw { shape: logits_shape, call: draw };

/// Two tensors of probabilities; the case's first tensor lends them its shape and dtype.
#[derive(Debug)]
struct InformationCall {
    p: Tensor,
    q: Tensor,
}

/// The names of the functions, and what is compared under which quantity.
const FUNCTIONS: [(&str, Quantity); 3] = [
    ("entropy", Quantity::Entropy),
    ("cross_entropy", Quantity::Loss),
    ("kl_divergence", Quantity::Output),
];

impl Call for InformationCall {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, ", q {}", self.q.dtype())
    }

    fn expect(&self, case: &Case) -> Result<Vec<Expected>> {
        let (p, q) = (self.p.view().to_f64()?, self.q.view().to_f64()?);
        let one = |(function, quantity): (&str, Quantity)| {
            let WithSizes { values, sizes } =
                reference::information(function, &case.shape, (&p, &q));
            Expected::loss(quantity, values, sizes)
        };
        Ok(FUNCTIONS.map(one).into())
    }

    fn compute(&self, device: &Device, _case: &Case) -> Result<Vec<Outcome>> {
        let (p, q) = (self.p.view(), self.q.view());
        let results = [
            crate::loss::information::entropy(device, p)?,
            crate::loss::information::cross_entropy(device, p, q)?,
            crate::loss::information::kl_divergence(device, p, q)?,
        ];
        let outcome = |((name, quantity), result): ((&'static str, Quantity), &Tensor)| {
            Outcome::new(quantity, name, result.view())
        };
        FUNCTIONS.into_iter().zip(&results).map(outcome).collect()
    }
}

fn draw(random: &mut Random, first: &First<'_>) -> Result<Box<dyn Call>> {
    let First { dtype, shape, .. } = *first;
    let elements = shape.iter().product();
    let classes = shape[usize::from(shape.len() > 1)].max(1) as f64;
    let mut distribution = |zeros: usize| {
        let one = |_| match random.one_in(zeros) {
            true => 0.0,
            false => f64::from(random.normal()).abs() / classes,
        };
        let values: Vec<f64> = (0..elements).map(one).collect();
        typed::tensor(dtype, shape, &values)
    };
    let (p, q) = (distribution(4)?, distribution(1000)?);
    Ok(Box::new(InformationCall { p, q }))
}
