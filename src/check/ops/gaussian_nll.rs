//! Negative log-likelihood of normal distributions.

use crate::check::elementwise::entry::{self, Described};
use crate::check::elementwise::{Description, Domain, Third, Weights};
use crate::check::entry::Entry;
use crate::check::option::{Choice, Scalar};
use crate::check::reference;
use crate::spec::gaussian_nll::GaussianNll as Loss;

struct GaussianNll;

impl Described for GaussianNll {
    const LOSS: &'static Description = &Description {
        name: "gaussian-nll",
        evaluated: Some((
            "Negative log-likelihood of targets under normal distributions",
            "\
Reads input (means), target, which broadcast, and, where the file has it, variance (which broadcasts to
the result, or is of its shape without the last dimension; else 1 each); with --grad, where the file has
it, grad_output. Writes loss (f32); with --grad also grad_input, grad_target and grad_variance.

Example:
  warploss eval gaussian-nll --input normal.safetensors --full",
        )),
        measured: "As mse, variance 1",
        options: &[
            Choice {
                name: "full",
                value: "",
                help: "Add ln(2 pi) / 2",
                default: Scalar::Flag(false),
                cases: &[0.0, 1.0],
                calls: &[1.0],
                tests: &[0.0, 1.0],
            },
            Choice {
                name: "eps",
                value: "E",
                help: "The smallest variance",
                default: Scalar::Number(1e-6),
                cases: &[1e-6, 1e-3, 0.5],
                calls: &[1e-3, 0.5, 0.0],
                tests: &[1e-6, 0.5],
            },
        ],
        weights: Weights::None,
        third: Some(Third {
            name: "variance",
            slope: Some(|o, at| reference::gaussian_nll_slope(o[1], at)),
        }),
        broadcasts: true,
        batch_mean: false,
        input: Domain::Any,
        target: |_| Domain::Any,
        formula: |o, at| reference::gaussian_nll(o[1], o[0] != 0.0, at),
        make: |o, given| {
            let loss = Loss::default().full(o[0] != 0.0).eps(o[1]);
            given.plain(match given.third {
                Some(variance) => loss.variance(variance),
                None => loss,
            })
        },
    };
}

pub(in crate::check) const ENTRY: Entry = entry::entry::<GaussianNll>();
