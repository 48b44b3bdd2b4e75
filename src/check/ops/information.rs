//! Entropy, cross entropy and Kullback–Leibler divergence of probabilities.

use crate::base::error::Result;
use crate::base::tensor::Tensor;
use crate::check::call::Role;
use crate::check::call::bound::Bound;
use crate::check::call::draft::Draft;
use crate::check::case::{Call, Case, Draw, First};
use crate::check::draw::logits_shape;
use crate::check::entry::{Calls, Entry, Reference, Traits};
use crate::check::outcome::{Expected, Outcome, Quantity};
use crate::check::random::Random;
use crate::check::reference::WithSizes;
use crate::check::{reference, typed};
use crate::device::Device;
use std::fmt;

pub(in crate::check) const ENTRY: Entry = Entry {
    name: "information",
    cases: Draw { shape: logits_shape, rest: case },
    calls: Calls { draw, run, expect, saved: None },
    evaluated: None,
    measured: &[],
    traits: Traits { overflows: true, ..Traits::PLAIN },
};

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

fn case(random: &mut Random, first: &First<'_>) -> Result<Box<dyn Call>> {
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

fn draw(d: &mut Draft) {
    let form = d.form(&["entropy", "cross_entropy", "kl_divergence"]);
    let shape = d.logits_shape();
    for name in if form == "entropy" { &["p"][..] } else { &["p", "q"] } {
        let data = match d.random.one_in(4) {
            true => d.numbers(&shape.shape),
            false => {
                let zeros = d.random.pick(&[1, 4, 1000]);
                let share = 1.0 / shape.classes.max(1) as f64;
                let one = |x: f64, zero: bool| if zero { 0.0 } else { x.abs() * share };
                let normal = d.normal(&shape.shape, 1.0);
                normal.into_iter().map(|x| one(x, d.random.one_in(zeros))).collect()
            }
        };
        d.given((name, Role::Read), (d.dtype, &shape.shape, shape.letters), data);
    }
}

fn run(b: &Bound<'_>) -> Result<()> {
    let (device, p) = (b.device, b.tensor("p"));
    let result = match b.call.form {
        "entropy" => crate::loss::information::entropy(device, p)?,
        "cross_entropy" => crate::loss::information::cross_entropy(device, p, b.tensor("q"))?,
        _ => crate::loss::information::kl_divergence(device, p, b.tensor("q"))?,
    };
    b.give("result", result);
    Ok(())
}

fn expect(b: &Bound<'_>) -> Result<Reference> {
    let p = b.tensor("p");
    let q = b.optional("q").unwrap_or(p);
    let (shape, [x, y]) = (p.shape(), [p.to_f64()?, q.to_f64()?]);
    let mut out = reference::information(b.call.form, &shape, (&x, &y));
    // Of equal tensors that are no probabilities the logarithms' roundings are all there is.
    for q in [&x, &y] {
        let logarithms = reference::information("cross_entropy", &shape, (&x, q)).sizes;
        let rounding = logarithms.iter().map(|size| size * 2f64.powi(-24) / 2e-6);
        let finite = rounding.map(|size| if size.is_finite() { size } else { 0.0 });
        out.sizes.iter_mut().zip(finite).for_each(|(size, more)| *size += more);
    }
    Ok(vec![Expected::loss(Quantity::Loss, out.values, out.sizes)].into())
}
