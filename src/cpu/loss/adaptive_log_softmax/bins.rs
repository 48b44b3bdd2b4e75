//! The rows of a batch by cluster, in their order: counted, checked and scattered once.

use crate::base::error::{Error, Result};
use crate::base::host::IndexRef;
use crate::cpu::batch::valid::KeptRows;
use crate::cpu::processor::host_data;
use crate::spec::adaptive_log_softmax::CheckedAdaptive;
use crate::spec::output_layer::bad_target;

/// The rows of one cluster.
#[derive(Debug, Default)]
pub(crate) struct Bin {
    /// Which of the kept rows, rising.
    pub(crate) rows: Vec<usize>,
    /// The target of each, counted from the cluster's first class.
    pub(crate) targets: Vec<usize>,
}

/// The kept rows of a batch, by cluster.
#[derive(Debug)]
pub(crate) struct Bins {
    pub(crate) kept: KeptRows,
    /// The head's column of each kept row.
    pub(crate) columns: Vec<usize>,
    pub(crate) clusters: Vec<Bin>,
}

impl Bins {
    /// # Errors
    /// The first kept target that names no class, or weight that is not a finite number ≥ 0.
    pub(crate) fn new(checked: &CheckedAdaptive<'_>) -> Result<Bins> {
        let options = checked.options;
        let targets = match &checked.target {
            Some(target) => target.on_host()?,
            None => IndexRef::I64(&[]),
        };
        let weights = options.row_weight.map(|w| host_data(w, "row_weight")).transpose()?;
        let (shortlist, clusters) = (options.shortlist(), options.clusters());
        let mut bins = Bins {
            kept: KeptRows::with_capacity(checked.rows.len),
            columns: Vec::with_capacity(checked.rows.len),
            clusters: std::iter::repeat_with(Bin::default).take(clusters).collect(),
        };
        for row in 0..checked.rows.len {
            let target = targets.get(row);
            if Some(target) == options.ignore_index {
                continue;
            }
            let class = usize::try_from(target).ok().filter(|&class| class < options.classes);
            let place = class.and_then(|class| match &options.class_order {
                Some(order) => order.place(class),
                None => Some(class),
            });
            let Some(place) = place else {
                let of = (options.classes, options.ignore_index);
                return Err(bad_target(of, (row, target)));
            };
            let weight = weights.map_or(1.0, |w| w.float(row));
            if !(weight >= 0.0 && weight.is_finite()) {
                return Err(Error::Value {
                    argument: "row_weight",
                    expected: "finite numbers ≥ 0".into(),
                    got: format!("{weight} at row {row}"),
                });
            }
            let column = match options.cutoffs.partition_point(|&cutoff| cutoff <= place) {
                0 => place,
                beyond => {
                    let cluster = beyond - 1;
                    bins.clusters[cluster].rows.push(bins.kept.len());
                    bins.clusters[cluster].targets.push(place - options.cutoffs[cluster]);
                    shortlist + cluster
                }
            };
            bins.kept.push(row, weight.into());
            bins.columns.push(column);
        }
        Ok(bins)
    }
}
