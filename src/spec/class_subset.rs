//! Lists of classes that rows bring: the softmax of a row goes over those of its list, and over no others.
//!
//! With L_r the distinct classes of row r's list,
//!
//! ```text
//! lse_r = ln Σ_{j ∈ L_r} e^(z_rj)      p_rj = e^(z_rj − lse_r) of j ∈ L_r, 0 of all others
//! ```
//!
//! and the losses are those of [`CrossEntropy`] with these: the log-probability, entropy, rank and likeliest
//! classes are those among the listed. Logits of other classes, and their rows of a classifier, are not read.
//! Lists are put in the order of their classes first, so that neither the order of ids nor an id that comes
//! twice changes a bit.
//!
//! Against probabilities q of the listed classes all others may stand as one ([`Rest::Bucket`]), so that p sums to 1
//! over what is listed and the rest:
//!
//! ```text
//! p_rj = e^(z_rj − lse over all classes)    p_rest = 1 − Σ p_rj    q_rest = max(0, 1 − Σ q_rj)
//! loss_r = −Σ_{j ∈ L_r} q_rj ln p_rj − q_rest ln p_rest
//! ```

use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::shape::Shape;
use crate::base::tensor::TensorRef;
use crate::base::validate;
use crate::spec::class_indices::ClassIndices;
use crate::spec::cross_entropy::CrossEntropy;
use crate::spec::cross_entropy::checked::{Checked, Target};

/// The classes over which the softmax of each row goes: the set that a sampler kept, a teacher's likeliest, a
/// catalogue's candidates.
///
/// A list holds ids of classes and, in places that hold none, −1; ids beyond a row's count are not looked at.
/// A class that comes twice counts once. An id out of range is an error that names row and place; so is a list
/// without a class, and one without the row's target unless [`MissingTarget`] says otherwise. What an ignored
/// row lists is not read.
///
/// | tensor | shape | dtype |
/// |---|---|---|
/// | ids, a list a row | `[N, K]`, or `[K]` of a single row | i64, i32 (−1 pads), u32, u8 |
/// | counts | `[N]` or `[]`, in `0..=K` | i64, i32, u32, u8 |
/// | ids, one list for all rows | `[S]` | as above |
///
/// Against class probabilities a row has one for each id, `[N, K]` (or `[N, S]`); of a class that comes twice
/// the first counts, and those of padding are not read.
///
/// ```
/// use warploss::{ClassSubset, Device, LinearCrossEntropy, LinearInput, TensorRef};
/// let hidden = TensorRef::new(&[1.0f32, 2.0, -1.0, 0.5], &[2, 2])?;
/// let classifier = TensorRef::new(&[1.0f32, 0.0, 0.0, 1.0, -1.0, 1.0], &[3, 2])?;
/// let target = TensorRef::new(&[1i64, 2], &[2])?;
/// let kept = TensorRef::new(&[1i64, 0, 2, -1], &[2, 2])?; // one class is no choice: loss 0
/// let input = LinearInput::new(hidden, classifier, target).subset(ClassSubset::per_row(kept, None));
/// let result = LinearCrossEntropy::default().forward(&Device::best(), &input)?;
/// assert!((result.loss.item()? - 0.31326 / 2.0).abs() < 1e-5);
/// # Ok::<(), warploss::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[must_use]
pub struct ClassSubset<'a> {
    ids: TensorRef<'a>,
    counts: Option<TensorRef<'a>>,
    shared: bool,
    missing: MissingTarget,
    rest: Rest,
}

/// What classes that a row does not list are, where the target holds probabilities of those that it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Rest {
    /// Nothing: the softmax goes over the listed alone.
    #[default]
    Excluded,
    /// One class more, which has what the listed leave of 1: of the probabilities, 0 at the least, and of the
    /// softmax over all classes. All logits are made and read then, as without lists. Of a row that lists every
    /// class there is no rest, whatever its probabilities add up to.
    Bucket,
}

impl Rest {
    /// Every rule, in the order of their declaration.
    pub const ALL: [Rest; 2] = [Rest::Excluded, Rest::Bucket];

    /// As the command line has it.
    pub fn name(self) -> &'static str {
        match self {
            Rest::Excluded => "excluded",
            Rest::Bucket => "bucket",
        }
    }
}

/// What a row is whose list has not got its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum MissingTarget {
    /// An error.
    #[default]
    Error,
    /// One whose list has it besides.
    Append,
    /// Ignored: no loss, no gradient, not counted.
    Ignore,
}

impl MissingTarget {
    /// Every rule, in the order of their declaration.
    pub const ALL: [MissingTarget; 3] =
        [MissingTarget::Error, MissingTarget::Append, MissingTarget::Ignore];

    /// As the command line has it.
    pub fn name(self) -> &'static str {
        match self {
            MissingTarget::Error => "error",
            MissingTarget::Append => "append",
            MissingTarget::Ignore => "ignore",
        }
    }
}

impl<'a> ClassSubset<'a> {
    /// A list for each row, of which the first `counts` places hold ids; without counts all do.
    pub fn per_row(ids: TensorRef<'a>, counts: Option<TensorRef<'a>>) -> ClassSubset<'a> {
        let (missing, rest) = (MissingTarget::Error, Rest::Excluded);
        ClassSubset { ids, counts, shared: false, missing, rest }
    }

    /// One list for all rows.
    pub fn shared(ids: TensorRef<'a>) -> ClassSubset<'a> {
        ClassSubset { shared: true, ..ClassSubset::per_row(ids, None) }
    }

    /// What a row is whose target is not listed. Default [`MissingTarget::Error`]. Probabilities have no target
    /// that could be missing.
    pub fn missing_target(mut self, missing: MissingTarget) -> Self {
        self.missing = missing;
        self
    }

    /// What classes are that a row does not list. Default [`Rest::Excluded`]; class indices know no other.
    pub fn rest(mut self, rest: Rest) -> Self {
        self.rest = rest;
        self
    }

    /// All tensors that there are.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = TensorRef<'a>> {
        std::iter::once(self.ids).chain(self.counts)
    }

    /// Everything that can be told without reading them, of rows with so many classes; the loss over logits
    /// of listed classes.
    pub(crate) fn check<'c>(
        &self,
        options: &'c CrossEntropy<'c>,
        (dtype, owner): (DType, &'static str),
        (classes, rows): (usize, Shape),
        target: &TensorRef<'c>,
    ) -> Result<(Checked<'c, Target<'c>>, CheckedSubset<'c>)>
    where
        'a: 'c,
    {
        let ids = ClassIndices::new("ids", &self.ids)?;
        let k = self.check_shape(rows)?;
        let counts = self.counts.as_ref();
        let counts =
            counts.map(|counts| ClassIndices::of_rows("counts", counts, rows, "one a row"));
        validate::class_weight(options.class_weight().as_ref(), classes, (dtype, owner))?;
        let (soft, append) = (target.dtype().is_float(), self.missing == MissingTarget::Append);
        let bucket = self.rest == Rest::Bucket;
        let columns = if (append && !soft) || bucket { k + 1 } else { k };
        let of_logits =
            options.check_listed((dtype, owner), [columns, k], (rows, rows.len()), target)?;
        check_options(options, (soft, bucket))?;
        let subset = CheckedSubset {
            ids,
            counts: counts.transpose()?,
            shared: self.shared,
            missing: self.missing,
            classes,
            k,
            columns,
            bucket,
            given: false,
        };
        Ok((of_logits, subset))
    }

    /// Ids of a list.
    fn check_shape(&self, rows: Shape) -> Result<usize> {
        let got = self.ids.shape();
        let k = got.last().copied().unwrap_or(0);
        let mut expected = if self.shared { Shape::SCALAR } else { rows };
        expected.push(k);
        if got.is_empty() || got != expected {
            let expected = match (self.shared, rows.first()) {
                (true, _) => "[S] (one list for all rows)".into(),
                (false, Some(n)) => format!("[{n}, K] (a list for each row)"),
                (false, None) => "[K] (a list for the row)".into(),
            };
            return Err(Error::Shape { argument: "ids", expected, got });
        }
        Ok(k)
    }
}

/// Options that lists do not have.
fn check_options(options: &CrossEntropy<'_>, (soft, bucket): (bool, bool)) -> Result<()> {
    let (epsilon, lambda) = (options.label_smoothing, options.lse_square_scale);
    if bucket && !soft {
        return Err(Error::Value {
            argument: "rest",
            expected: "excluded (against class indices)".into(),
            got: Rest::Bucket.name().into(),
        });
    }
    if bucket && lambda != 0.0 {
        return Err(Error::Value {
            argument: "lse_square_scale",
            expected: "0 (where all classes beside a list are one)".into(),
            got: lambda.to_string(),
        });
    }
    if epsilon != 0.0 {
        return Err(Error::Value {
            argument: "label_smoothing",
            expected: "0 (over lists of classes)".into(),
            got: epsilon.to_string(),
        });
    }
    let Some(weight) = options.class_weight() else { return Ok(()) };
    if soft {
        return Err(Error::Value {
            argument: "weight",
            expected: "none (against probabilities of listed classes)".into(),
            got: format!("{} {}", weight.dtype(), weight.shape()),
        });
    }
    // A row's loss is multiplied by its class's weight as a whole, and the z-loss must not be.
    if lambda != 0.0 {
        return Err(Error::Value {
            argument: "lse_square_scale",
            expected: "0 (beside class weights, over lists of classes)".into(),
            got: lambda.to_string(),
        });
    }
    Ok(())
}

/// Lists that have passed the checks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CheckedSubset<'a> {
    pub(crate) ids: ClassIndices<'a>,
    pub(crate) counts: Option<ClassIndices<'a>>,
    /// Whether all rows have the same ids.
    pub(crate) shared: bool,
    pub(crate) missing: MissingTarget,
    /// V, of which ids are.
    pub(crate) classes: usize,
    /// Ids of a list.
    pub(crate) k: usize,
    /// Classes of a list, at most; the last stands for all others where `bucket` says so.
    pub(crate) columns: usize,
    /// Whether all other classes are one.
    pub(crate) bucket: bool,
    /// Whether the input is logits itself, and there is no classifier.
    pub(crate) given: bool,
}

impl CheckedSubset<'_> {
    /// The id out of range at a row's place.
    pub(crate) fn bad_id(classes: usize, (row, place): (usize, usize), got: i64) -> Error {
        Error::Value {
            argument: "ids",
            expected: format!("classes in [0, {classes}), or -1 where there is none"),
            got: format!("{got} at row {row}, place {place}"),
        }
    }

    /// The count out of range of a row.
    pub(crate) fn bad_count(k: usize, row: usize, got: i64) -> Error {
        Error::Value {
            argument: "counts",
            expected: format!("numbers in [0, {k}] (the ids of a row)"),
            got: format!("{got} at row {row}"),
        }
    }

    /// The row whose target is not listed.
    pub(crate) fn no_target(row: usize, target: i64) -> Error {
        Error::Value {
            argument: "target",
            expected: "a class of the row's ids (or missing_target append or ignore)".into(),
            got: format!("{target} at row {row}, which is not listed"),
        }
    }

    /// The row without a list.
    pub(crate) fn no_class(row: usize) -> Error {
        Error::Value {
            argument: "ids",
            expected: "at least one class of every row that counts".into(),
            got: format!("none at row {row}"),
        }
    }
}
