//! A vocabulary in shards, and what a pass over some of its columns leaves of every row.
//!
//! The vocabulary is cut into blocks at fixed columns. A state is the list of its blocks' sums, each
//! formed by itself; to merge is to put lists side by side in the order of the columns; and what
//! becomes of a list is only asked once the list is whole: then its blocks are added up from the first
//! to the last. So no result knows how the columns were grouped: shards of any number, merged in any
//! grouping, give the same bits.

use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::shape::{MAX_RANK, Shape};
use crate::base::tensor::{Tensor, TensorRef};
use crate::base::validate;

/// Most blocks of a vocabulary: a larger one has longer blocks.
pub(crate) const MAX_BLOCKS: usize = 1024;

/// Classes of a block, of a vocabulary of so many.
pub(crate) fn block(classes: usize) -> usize {
    Vocabulary::BLOCK.max(classes.div_ceil(MAX_BLOCKS).next_multiple_of(64))
}

/// Which classes of a vocabulary a tensor of logits holds: a shard, as a rule that of one device.
///
/// ```
/// # use warploss::Vocabulary;
/// let shards = Vocabulary::shards(128_256, 4);
/// assert_eq!(shards[1], Vocabulary { first: 30_720, len: 32_768, whole: 128_256 });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vocabulary {
    /// The shard's first class: a multiple of [`Vocabulary::block`].
    pub first: usize,
    /// Its classes; it ends at a multiple of [`Vocabulary::block`], or with the vocabulary.
    pub len: usize,
    /// Classes of the whole vocabulary.
    pub whole: usize,
}

impl Vocabulary {
    /// Classes of a block of any vocabulary of up to 2 097 152 of them.
    pub const BLOCK: usize = 2048;

    /// All `classes` in one.
    pub fn all(classes: usize) -> Vocabulary {
        Vocabulary { first: 0, len: classes, whole: classes }
    }

    /// `classes` in at most `shards` shards of nearly the same number of blocks, none of them empty.
    pub fn shards(classes: usize, shards: usize) -> Vec<Vocabulary> {
        let block = block(classes);
        let blocks = classes.div_ceil(block);
        let border = |i: usize| (blocks * i / shards).saturating_mul(block).min(classes);
        (0..shards)
            .map(|i| Vocabulary {
                first: border(i),
                len: border(i + 1) - border(i),
                whole: classes,
            })
            .filter(|shard| shard.len > 0)
            .collect()
    }

    /// Classes of a block: [`Vocabulary::BLOCK`], or more in a vocabulary of more than 2 097 152.
    pub fn block(&self) -> usize {
        block(self.whole)
    }

    pub(crate) fn end(&self) -> usize {
        self.first + self.len
    }

    pub(crate) fn blocks(&self) -> usize {
        self.len.div_ceil(self.block())
    }

    pub(crate) fn is_whole(&self) -> bool {
        *self == Vocabulary::all(self.whole)
    }

    /// Its borders lie where they may.
    pub(crate) fn check(&self) -> Result<()> {
        let block = self.block();
        let inside = self.first.checked_add(self.len).is_some_and(|end| end <= self.whole);
        let aligned = |border: usize| border.is_multiple_of(block) || border == self.whole;
        if inside && aligned(self.first) && aligned(self.end()) {
            return Ok(());
        }
        Err(Error::Value {
            argument: "vocabulary",
            expected: format!(
                "classes of 0..{} from one multiple of {block} to another, or to the last class",
                self.whole
            ),
            got: format!("{} from {} on", self.len, self.first),
        })
    }
}

/// How the numbers of a row's state lie: `fields` of each block, in order, then those of the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) fields: usize,
    pub(crate) blocks: usize,
}

impl Record {
    /// Maximum and sum; and reference, deviation and weight where the loss is smoothed.
    pub(crate) const FIELDS: [usize; 2] = [2, 5];

    pub(crate) fn new(vocabulary: &Vocabulary, smoothed: bool) -> Record {
        let fields = Record::FIELDS[usize::from(smoothed)];
        Record { fields, blocks: vocabulary.blocks() }
    }

    /// Where the target's numbers begin: 1 or 0 for here or not, its logit, and the fields of what
    /// its block has on the right of it.
    pub(crate) fn target(&self) -> usize {
        self.fields * self.blocks
    }

    pub(crate) fn numbers(&self) -> usize {
        self.target() + 2 + self.fields
    }
}

/// What [`CrossEntropy::partial`](crate::CrossEntropy::partial) leaves of every row: small, and all
/// that shards of a vocabulary have to tell each other.
///
/// States of neighbouring shards are put together by [`RowState::merge`], in any grouping; that of the
/// whole vocabulary is what a loss and gradients are made of. Its numbers (f32, `[rows, numbers]`, in
/// the memory of the logits' kind) may travel as they are, and are put into a state again by
/// [`RowState::from_values`]; they mean something to devices of one kind. A row has, one after another:
///
/// | numbers | of |
/// |---|---|
/// | maximum, Σ e^(z − maximum) | each block of the shard |
/// | reference, Σ w·(reference − z), Σ w | the same block, with label smoothing |
/// | 1 or 0, logit | the target: whether it is here |
/// | as a block's | the target's block, right of the target; what is left of it stands in the block's place |
///
/// (A GPU leaves the target out of its block, and the last of these are 0.) That is 2 numbers for 2048 classes, or 5: of bf16 logits 0.2 % and 0.5 %.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct RowState {
    pub(crate) values: Tensor,
    pub(crate) rows: Shape,
    pub(crate) vocabulary: Vocabulary,
    pub(crate) record: Record,
}

impl RowState {
    /// Numbers of one state as another one has given them ([`RowState::values`]), of the classes
    /// `vocabulary` and of rows of the target's shape.
    ///
    /// # Errors
    /// A shape, dtype or vocabulary that no state has.
    pub fn from_values(values: Tensor, rows: &[usize], vocabulary: Vocabulary) -> Result<RowState> {
        vocabulary.check()?;
        let rank = Error::Rank {
            argument: "rows",
            expected: format!("at most {MAX_RANK}"),
            got: rows.len(),
        };
        let rows = Shape::new(rows).ok_or(rank)?;
        let records = [false, true].map(|smoothed| Record::new(&vocabulary, smoothed));
        let shape = |record: &Record| shape(rows, record);
        let Some(&record) = records.iter().find(|record| shape(record) == values.shape()) else {
            let [plain, smoothed] = [shape(&records[0]), shape(&records[1])];
            return Err(Error::Shape {
                argument: "values",
                expected: format!("{plain}, or with label smoothing {smoothed}"),
                got: values.shape(),
            });
        };
        validate::dtype("values", &values.view(), &[DType::F32], "states are f32")?;
        Ok(RowState { values, rows, vocabulary, record })
    }

    /// Which classes it is of.
    pub fn vocabulary(&self) -> Vocabulary {
        self.vocabulary
    }

    /// The shape of the rows, which is that of the target.
    pub fn rows(&self) -> Shape {
        self.rows
    }

    /// Its numbers, `[rows, numbers]`.
    pub fn values(&self) -> TensorRef<'_> {
        self.values.view()
    }

    /// Its numbers, for good.
    pub fn into_values(self) -> Tensor {
        self.values
    }

    /// It is of these columns, of this record and of these rows.
    pub(crate) fn check_is(
        &self,
        (vocabulary, record): (Vocabulary, Record),
        rows: Shape,
    ) -> Result<()> {
        if self.vocabulary != vocabulary || self.record != record {
            let of = |v: &Vocabulary, record: &Record| {
                let Vocabulary { first, len, whole } = v;
                format!(
                    "{len} of {whole} classes from {first} on, {} numbers a block",
                    record.fields
                )
            };
            return Err(Error::Value {
                argument: "state",
                expected: format!("{} (the parts')", of(&vocabulary, &record)),
                got: of(&self.vocabulary, &self.record),
            });
        }
        if self.rows != rows {
            let expected = format!("{rows} (the parts' rows)");
            return Err(Error::Shape { argument: "state", expected, got: self.rows });
        }
        Ok(())
    }

    /// What the parts, in the order of their columns, are together.
    pub(crate) fn joined(parts: &[&RowState]) -> Result<(Vocabulary, Record)> {
        let Some((first, others)) = parts.split_first() else {
            let (expected, got) = ("at least one state".into(), "none".into());
            return Err(Error::Value { argument: "parts", expected, got });
        };
        let (mut vocabulary, mut record) = (first.vocabulary, first.record);
        for part in others {
            let next = part.vocabulary;
            if next.first != vocabulary.end() || next.whole != vocabulary.whole {
                return Err(Error::Value {
                    argument: "parts",
                    expected: format!(
                        "classes from {} of {} on (where the part before ends)",
                        vocabulary.end(),
                        vocabulary.whole
                    ),
                    got: format!("from {} of {} on", next.first, next.whole),
                });
            }
            if part.rows != first.rows {
                let expected = format!("{} (the first part's rows)", first.rows);
                return Err(Error::Shape { argument: "parts", expected, got: part.rows });
            }
            if part.record.fields != record.fields {
                return Err(Error::Value {
                    argument: "parts",
                    expected: format!("{} numbers a block (the first part's)", record.fields),
                    got: part.record.fields.to_string(),
                });
            }
            vocabulary.len += next.len;
            record.blocks += part.record.blocks;
        }
        Ok((vocabulary, record))
    }
}

/// The shape of a state's numbers.
pub(crate) fn shape(rows: Shape, record: &Record) -> Shape {
    let numbers = [rows.elements().unwrap_or(usize::MAX), record.numbers()];
    Shape::new(&numbers).unwrap_or(Shape::SCALAR)
}

/// Parts to be put together: checked by [`RowState::joined`], in the order of their columns.
#[derive(Debug)]
pub(crate) struct Merge<'a> {
    pub(crate) rows: usize,
    pub(crate) record: Record,
    /// Numbers and blocks of each part.
    pub(crate) parts: Vec<(TensorRef<'a>, usize)>,
}
