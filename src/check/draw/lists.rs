//! Lists of classes that rows bring.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::tensor::Tensor;
use crate::check::random::Random;
use crate::check::reference::{self, ListData};
use crate::check::typed;
use crate::spec::class_subset::{ClassSubset, MissingTarget, Rest};

/// Ids, as a tensor has them, and what goes with them.
#[derive(Debug)]
pub(in crate::check) struct DrawnLists {
    pub(in crate::check) dtype: DType,
    /// `[N, K]`, or `[K]` of all rows.
    pub(in crate::check) ids: Vec<f64>,
    pub(in crate::check) k: usize,
    pub(in crate::check) counts: Option<Vec<f64>>,
    pub(in crate::check) shared: bool,
    pub(in crate::check) missing: MissingTarget,
    pub(in crate::check) rest: Rest,
}

/// What is no class, where a place is not read.
const UNREAD: f64 = 1e9;

impl DrawnLists {
    /// Right ones, of rows with these targets; −1 of a row that is ignored. Without targets every row counts.
    pub(in crate::check) fn draw(
        random: &mut Random,
        classes: usize,
        (rows, targets): (usize, Option<&[i64]>),
    ) -> DrawnLists {
        let missing = random.pick(&MissingTarget::ALL);
        let shared = random.one_in(4);
        let all = shared && (missing == MissingTarget::Error || random.one_in(3));
        let k = if all { classes } else { random.pick(&[1, 2, 3, 7, 20, 70]) };
        let with_counts = !shared && random.one_in(3);
        // Unsigned ids have no −1.
        let dtype = match random.below(4) {
            0 if !with_counts => DType::U32,
            1 => DType::I32,
            _ => DType::I64,
        };
        let signed = dtype != DType::U32;
        // Of class indices there is no rest.
        let rest = if targets.is_some() { Rest::Excluded } else { random.pick(&Rest::ALL) };
        let ids = Vec::new();
        let mut drawn = DrawnLists { dtype, ids, k, counts: None, shared, missing, rest };
        if all {
            drawn.ids = (0..classes).map(|class| class as f64).collect();
            (1..classes).for_each(|at| drawn.ids.swap(at, random.below(at + 1)));
            return drawn;
        }
        let mut counts = Vec::new();
        for row in 0..if shared { 1 } else { rows } {
            let count = if with_counts { 1 + random.below(k) } else { k };
            counts.push(count as f64);
            let target = if shared { None } else { targets.map(|targets| targets[row]) };
            drawn.row(random, (classes, signed), count, target);
        }
        drawn.counts = with_counts.then_some(counts);
        drawn
    }

    /// A row's ids: some twice, some none.
    fn row(
        &mut self,
        random: &mut Random,
        (classes, signed): (usize, bool),
        count: usize,
        target: Option<i64>,
    ) {
        let first = self.ids.len();
        if target == Some(-1) && signed {
            return self.ids.extend(vec![UNREAD; self.k]);
        }
        for place in 0..self.k {
            self.ids.push(match place < count {
                true if signed && random.one_in(5) => -1.0,
                true => random.below(classes) as f64,
                false => UNREAD,
            });
        }
        let at = first + random.below(count);
        match (target, self.missing) {
            (Some(target @ 0..), MissingTarget::Error) => self.ids[at] = target as f64,
            (Some(target @ 0..), _) if random.one_in(2) => self.ids[at] = target as f64,
            _ => self.ids[at] = random.below(classes) as f64,
        }
    }

    /// The shape of the ids, of rows of this one.
    pub(in crate::check) fn shape(&self, rows: &[usize]) -> Vec<usize> {
        if self.shared { vec![self.k] } else { [rows, &[self.k]].concat() }
    }

    pub(in crate::check) fn tensors(&self, rows: &[usize]) -> Result<Lists> {
        let counts = self.counts.as_ref();
        let counts = counts.map(|counts| typed::tensor(DType::I32, rows, counts));
        Ok(Lists {
            ids: typed::tensor(self.dtype, &self.shape(rows), &self.ids)?,
            counts: counts.transpose()?,
            shared: self.shared,
            missing: self.missing,
            rest: self.rest,
        })
    }
}

/// Lists as a call takes them, owned.
#[derive(Debug)]
pub(in crate::check) struct Lists {
    pub(in crate::check) ids: Tensor,
    pub(in crate::check) counts: Option<Tensor>,
    pub(in crate::check) shared: bool,
    pub(in crate::check) missing: MissingTarget,
    pub(in crate::check) rest: Rest,
}

/// What the reference is told of them.
pub(in crate::check) struct OwnedLists {
    ids: Vec<i64>,
    k: usize,
    counts: Option<Vec<i64>>,
    shared: bool,
    missing: MissingTarget,
    rest: Rest,
}

impl Lists {
    pub(in crate::check) fn subset(&self) -> ClassSubset<'_> {
        let subset = match self.shared {
            true => ClassSubset::shared(self.ids.view()),
            false => ClassSubset::per_row(self.ids.view(), self.counts.as_ref().map(Tensor::view)),
        };
        subset.missing_target(self.missing).rest(self.rest)
    }

    pub(in crate::check) fn owned(&self) -> Result<OwnedLists> {
        let counts = self.counts.as_ref().map(|counts| reference::indices(counts.view()));
        Ok(OwnedLists {
            ids: reference::indices(self.ids.view())?,
            k: self.ids.shape().last().copied().unwrap_or(0),
            counts: counts.transpose()?,
            shared: self.shared,
            missing: self.missing,
            rest: self.rest,
        })
    }
}

impl OwnedLists {
    pub(in crate::check) fn data(&self, given: bool) -> ListData<'_> {
        let OwnedLists { ids, k, counts, shared, missing, rest } = self;
        ListData {
            ids,
            k: *k,
            counts: counts.as_deref(),
            shared: *shared,
            missing: *missing,
            rest: *rest,
            given,
        }
    }
}
