//! What elements of a random case are: of the loss's domain, and hard ones.

use crate::data::Rng;
use warploss::check::elementwise::{Domain, ElementLoss};

const INF: f64 = f64::INFINITY;

/// One element of the input.
pub(super) fn input(rng: &mut Rng, loss: ElementLoss, hard: bool) -> f64 {
    let normal = 2.0 * rng.normal();
    if hard && rng.below(5) == 0 {
        if loss.of().input == Domain::Probabilities {
            return [f64::NAN, 0.0, -0.0, 1.0, 1e-7, 1e-30, 1.0 - 6e-8, 0.5][rng.below(8)];
        }
        return [INF, -INF, f64::NAN, 1e4, -1e4, 0.0, 1.0, -2.0][rng.below(8)];
    }
    match loss.of().input {
        Domain::Logarithms => -normal.abs(),
        Domain::Probabilities if hard => rng.unit(),
        // Where differences have the slope's digits.
        Domain::Probabilities => 0.2 + 0.6 * rng.unit(),
        Domain::Any | Domain::Signs | Domain::Counts => normal,
    }
}

/// One element of the target.
pub(super) fn target(rng: &mut Rng, loss: ElementLoss, hard: bool) -> f64 {
    let normal = 2.0 * rng.normal();
    let odd = |rng: &mut Rng, of: &[f64]| of[rng.below(of.len())];
    let hard = hard && rng.below(5) == 0;
    match loss.target() {
        Domain::Probabilities if hard => odd(rng, &[0.0, 1.0, -0.25, 1.5, f64::NAN, 1e-7]),
        Domain::Probabilities => rng.unit(),
        Domain::Logarithms if hard => odd(rng, &[-INF, -300.0, f64::NAN, 0.0, 2.0]),
        Domain::Logarithms => -normal.abs(),
        Domain::Signs if hard => odd(rng, &[0.0, 0.5, f64::NAN, -2.0]),
        Domain::Signs => 1f64.copysign(normal),
        Domain::Counts if hard => odd(rng, &[1.5, -2.0, f64::NAN, 1e4]),
        Domain::Counts => (2.0 * normal.abs()).floor(),
        Domain::Any if hard => odd(rng, &[INF, -INF, f64::NAN, 1e4, -1e4, 0.0, 1.0, -2.0]),
        Domain::Any => normal,
    }
}
