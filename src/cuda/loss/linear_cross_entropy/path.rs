//! Which way a call's logits are made.

use super::budget::{Budget, Sizes};
use super::slabs::Slabs;
use crate::base::error::{Error, Result};
use crate::code::card::Card;
use crate::cuda::matrix::wide_tiles;
use crate::spec::linear_cross_entropy::{CheckedLinear, LinearOutputs, LinearPath, LinearPlan};

/// What has no products beside those of a tile's.
const TAKES: &str = "auto or chunked (tiled takes f16 or bf16, class indices and a linear_weight [V, D], and gives no ranks, likeliest classes or grad_linear_weight_rest)";

/// What has a gradient filter.
const FILTERS: &str =
    "none, or path tiled (f16 or bf16 and class indices, no ranks or likeliest classes)";

/// A path with its budget.
pub(super) enum Path {
    Chunked(Budget),
    Tiled(Slabs),
}

impl Path {
    /// # Errors
    /// A budget that is too small, a path that cannot give what is asked for.
    pub(super) fn of(
        card: &Card,
        checked: &CheckedLinear<'_>,
        outputs: LinearOutputs,
    ) -> Result<Path> {
        let sizes = Sizes::new(checked, outputs.gradients);
        let fits = wide_tiles::fit(card);
        let takes = fits
            && sizes.narrow()
            && !sizes.soft
            && !outputs.in_order()
            && !outputs.linear_weight_rest
            && checked.positions == 1;
        let tiled = || Slabs::new(checked, &sizes).map(Path::Tiled);
        let chunked = || Budget::new(checked, outputs);
        let few_rows =
            |budget: &Budget| !sizes.back && wide_tiles::lead(card, [sizes.n, budget.rows]);
        let filters = outputs.gradients && checked.options.gradient_filter.is_some();
        match checked.options.path {
            LinearPath::Auto if filters && takes => tiled(),
            LinearPath::Auto | LinearPath::Chunked if filters => Err(Error::Value {
                argument: "gradient_filter",
                expected: FILTERS.into(),
                got: format!("path {} on CUDA for these tensors", checked.options.path.name()),
            }),
            LinearPath::Tiled if !takes => {
                checked.options.path.refuse("CUDA for these tensors", TAKES)
            }
            LinearPath::Tiled => tiled(),
            LinearPath::Auto if takes => match chunked() {
                Ok(budget) if !few_rows(&budget) => Ok(Path::Chunked(budget)),
                Ok(budget) => tiled().or(Ok(Path::Chunked(budget))),
                Err(small) => tiled().map_err(|_| small),
            },
            _ => chunked().map(Path::Chunked),
        }
    }

    pub(super) fn plan(&self) -> LinearPlan {
        match self {
            Path::Chunked(budget) => LinearPlan {
                path: LinearPath::Chunked,
                chunk_rows: budget.rows,
                workspace_bytes: budget.bytes,
            },
            Path::Tiled(slabs) => {
                LinearPlan { path: LinearPath::Tiled, chunk_rows: 0, workspace_bytes: slabs.bytes }
            }
        }
    }
}
