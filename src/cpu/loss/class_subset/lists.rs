//! Lists of classes in order, each class once, and where in them the targets are.

use crate::base::error::{Error, Result};
use crate::base::host::IndexRef;
use crate::cpu::processor::Cpu;
use crate::cpu::threads::SyncPtr;
use crate::spec::class_indices::ClassIndices;
use crate::spec::class_subset::{CheckedSubset, MissingTarget};
use std::cell::RefCell;
use std::sync::{Mutex, PoisonError};

/// What all rows list.
pub(super) struct Lists {
    /// Places of a list.
    pub(super) columns: usize,
    /// Rising classes of each row, from the list's first place on.
    ids: Vec<u32>,
    /// Where among the given ids each of them stood; empty where nobody asks.
    sources: Vec<u32>,
    /// Classes of each list.
    sizes: Vec<u32>,
    /// Per row: its target, or the ignored one where that is not listed.
    pub(super) labels: Vec<i64>,
    /// Per row: where in its list its target is.
    pub(super) places: Vec<i64>,
    /// The first row whose list is wrong.
    pub(super) wrong: Option<Error>,
}

/// Rows that one task puts in order.
const ROWS: usize = 64;

thread_local! {
    static PAIRS: RefCell<Vec<(u32, u32)>> = const { RefCell::new(Vec::new()) };
}

/// What is read.
struct Given<'a> {
    subset: &'a CheckedSubset<'a>,
    ids: IndexRef<'a>,
    counts: Option<IndexRef<'a>>,
    /// Class indices, with the one that is ignored; `None` where the targets are probabilities.
    targets: Option<(IndexRef<'a>, i64)>,
}

/// A row's list, but for its classes.
struct Row {
    label: i64,
    place: Option<usize>,
}

impl Lists {
    /// Bytes that the lists of so many rows take.
    pub(super) fn bytes(rows: usize, columns: usize, sources: bool) -> usize {
        let each = if sources { 8 } else { 4 };
        rows.saturating_mul(columns.saturating_mul(each).saturating_add(20))
    }

    /// # Errors
    /// Memory that cannot be had; more classes than are counted here. What is wrong with a list is kept for
    /// later: what is wrong with targets comes first.
    pub(super) fn new(
        cpu: &Cpu,
        subset: &CheckedSubset<'_>,
        (rows, targets): (usize, Option<(ClassIndices<'_>, i64)>),
    ) -> Result<Lists> {
        if u32::try_from(subset.classes).is_err() {
            let (argument, got) = ("ids", subset.classes.to_string());
            return Err(Error::Value { argument, expected: "of at most 2^32 classes".into(), got });
        }
        let columns = subset.columns;
        let of_targets = targets.map(|(target, ignored)| Ok((target.on_host()?, ignored)));
        let given = Given {
            subset,
            ids: subset.ids.on_host()?,
            counts: subset.counts.map(|counts| counts.on_host()).transpose()?,
            targets: of_targets.transpose()?,
        };
        let mut lists = Lists {
            columns,
            ids: filled(rows.saturating_mul(columns), 0)?,
            sources: filled(if targets.is_none() { rows * columns } else { 0 }, 0)?,
            sizes: filled(rows, 0)?,
            labels: filled(if targets.is_some() { rows } else { 0 }, 0)?,
            places: filled(if targets.is_some() { rows } else { 0 }, -1)?,
            wrong: None,
        };
        lists.fill(cpu, &given, rows);
        Ok(lists)
    }

    fn fill(&mut self, cpu: &Cpu, given: &Given<'_>, rows: usize) {
        let columns = self.columns;
        let (ids, sources) = (SyncPtr(self.ids.as_mut_ptr()), SyncPtr(self.sources.as_mut_ptr()));
        let sizes = SyncPtr(self.sizes.as_mut_ptr());
        let (labels, places) =
            (SyncPtr(self.labels.as_mut_ptr()), SyncPtr(self.places.as_mut_ptr()));
        let with_sources = given.targets.is_none();
        let wrong: Mutex<Option<(usize, Error)>> = Mutex::new(None);
        cpu.share(rows.div_ceil(ROWS), 1, &|task| {
            let mut list = PAIRS.take();
            for row in task * ROWS..((task + 1) * ROWS).min(rows) {
                let found = given.row(row, &mut list).unwrap_or_else(|error| {
                    list.clear();
                    let mut wrong = wrong.lock().unwrap_or_else(PoisonError::into_inner);
                    if wrong.as_ref().is_none_or(|(before, _)| row < *before) {
                        *wrong = Some((row, error));
                    }
                    Row { label: given.target(row).unwrap_or(-1), place: None }
                });
                // SAFETY: a row of this task alone, whose list has `columns` places, and no more classes.
                unsafe {
                    for (j, &(id, source)) in list.iter().enumerate() {
                        ids.get().add(row * columns + j).write(id);
                        if with_sources {
                            sources.get().add(row * columns + j).write(source);
                        }
                    }
                    sizes.get().add(row).write(list.len() as u32);
                    if !with_sources {
                        labels.get().add(row).write(found.label);
                        places.get().add(row).write(found.place.map_or(-1, |place| place as i64));
                    }
                }
            }
            PAIRS.set(list);
        });
        self.wrong =
            wrong.into_inner().unwrap_or_else(PoisonError::into_inner).map(|(_, error)| error);
    }

    pub(super) fn rows(&self) -> usize {
        self.sizes.len()
    }

    /// A row's classes, rising.
    pub(super) fn of(&self, row: usize) -> &[u32] {
        &self.ids[row * self.columns..][..self.sizes[row] as usize]
    }

    /// Where among the given ids those stood.
    pub(super) fn sources(&self, row: usize) -> &[u32] {
        &self.sources[row * self.columns..][..self.sizes[row] as usize]
    }

    /// Places of a row's list become the classes there; those that hold none, and −1, become −1.
    pub(super) fn name(&self, row: usize, places: &mut [i64]) {
        let list = self.of(row);
        for place in places {
            let class = usize::try_from(*place).ok().and_then(|place| list.get(place));
            *place = class.map_or(-1, |&class| class.into());
        }
    }
}

impl Given<'_> {
    fn target(&self, row: usize) -> Option<i64> {
        self.targets.as_ref().map(|(targets, _)| targets.get(row))
    }

    /// Puts a row's classes into `list`, in order, with where they stood; none of a row that does not count.
    fn row(&self, row: usize, list: &mut Vec<(u32, u32)>) -> Result<Row> {
        list.clear();
        let (subset, target) = (self.subset, self.target(row));
        let CheckedSubset { classes, k, missing, .. } = *subset;
        if let (Some(label), Some((_, ignored))) = (target, &self.targets) {
            // One that is out of range is the census's affair.
            if label == *ignored || !(0..classes as i64).contains(&label) {
                return Ok(Row { label, place: None });
            }
        }
        let count = self.counts.as_ref().map_or(k as i64, |counts| counts.get(row));
        if !(0..=k as i64).contains(&count) {
            return Err(CheckedSubset::bad_count(k, row, count));
        }
        let first = if subset.shared { 0 } else { row * k };
        for place in 0..count as usize {
            match self.ids.get(first + place) {
                -1 => {}
                id if (0..classes as i64).contains(&id) => list.push((id as u32, place as u32)),
                id => return Err(CheckedSubset::bad_id(classes, (row, place), id)),
            }
        }
        if let (MissingTarget::Append, Some(target)) = (missing, target) {
            list.push((target as u32, k as u32));
        }
        list.sort_unstable();
        list.dedup_by_key(|&mut (id, _)| id);
        let ignores = missing == MissingTarget::Ignore && target.is_some();
        if list.is_empty() && !ignores {
            return Err(CheckedSubset::no_class(row));
        }
        let Some(target) = target else { return Ok(Row { label: -1, place: None }) };
        match list.binary_search_by_key(&(target as u32), |&(id, _)| id) {
            Ok(place) => Ok(Row { label: target, place: Some(place) }),
            Err(_) if ignores => {
                list.clear();
                let ignored = self.targets.as_ref().map_or(-1, |(_, ignored)| *ignored);
                Ok(Row { label: ignored, place: None })
            }
            Err(_) => Err(CheckedSubset::no_target(row, target)),
        }
    }
}

/// So many of the same, or an error.
pub(super) fn filled<T: Clone>(len: usize, of: T) -> Result<Vec<T>> {
    let mut data = Vec::new();
    let bytes = len.saturating_mul(size_of::<T>());
    data.try_reserve_exact(len).map_err(|_| Error::no_memory("lists of classes", bytes))?;
    data.resize(len, of);
    Ok(data)
}
