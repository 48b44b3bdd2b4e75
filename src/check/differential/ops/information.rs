//! Entropy, cross entropy and Kullback–Leibler divergence of probabilities.

use super::{Reference, Row};
use crate::base::error::Result;
use crate::check::differential::bound::Bound;
use crate::check::differential::call::Role;
use crate::check::differential::draft::Draft;
use crate::check::reference;
use crate::check::subject::{Expected, Quantity};

pub(super) const ROW: Row = Row { draw, run, expect, saved: None };

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
