//! The samples of every class, one ring each, in one table: 4 bytes a sample and 4 a class.

use crate::base::error::{Error, Result};
use crate::base::host::{HostRef, IndexRef};
use crate::base::random::extend;
use crate::base::tensor::TensorRef;
use crate::base::validate;

/// Sample indices grouped by class, in the order of the data set within each; classes without
/// samples are left out.
#[derive(Debug)]
pub(super) struct Rings {
    samples: Words,
    /// Where each class begins in `samples`, and after the last one their number.
    starts: Words,
    largest: usize,
    digest: u64,
}

/// Numbers up to the count of samples: four bytes each where that count fits.
#[derive(Debug)]
enum Words {
    Narrow(Vec<u32>),
    Wide(Vec<usize>),
}

/// `labels` as numbers.
#[derive(Debug, Clone, Copy)]
struct Labels<'a> {
    host: IndexRef<'a>,
    len: usize,
    stride: usize,
}

/// Which class a label stands for.
#[derive(Debug)]
enum Classes {
    /// Label and class are one.
    Dense(usize),
    /// The labels that occur, ascending: a class is a label's place here. For labels that are
    /// large numbers, so that the memory depends on the samples alone.
    Sparse(Vec<i64>),
}

impl Rings {
    /// Groups the samples by a counting sort.
    pub(super) fn new(labels: &TensorRef<'_>, classes: Option<usize>) -> Result<Rings> {
        let labels = Labels::new(labels)?;
        let wide = u32::try_from(labels.len).is_err();
        Rings::build(labels, classes, wide)
    }

    fn build(labels: Labels<'_>, classes: Option<usize>, wide: bool) -> Result<Rings> {
        let (most, digest) = labels.survey(classes)?;
        let classes = Classes::new(labels, classes, most)?;
        // Counts go two places up, and the sort advances what is one place up: in the end `starts`
        // holds where each class begins.
        let mut starts = Words::zeros(classes.len() + 2, wide)?;
        for i in 0..labels.len {
            let place = classes.of(labels.get(i)) + 2;
            starts.set(place, starts.get(place) + 1);
        }
        let mut largest = 0;
        for place in 2..classes.len() + 2 {
            largest = largest.max(starts.get(place));
            starts.set(place, starts.get(place) + starts.get(place - 1));
        }
        let mut samples = Words::zeros(labels.len, wide)?;
        for i in 0..labels.len {
            let place = classes.of(labels.get(i)) + 1;
            let next = starts.get(place);
            samples.set(next, i);
            starts.set(place, next + 1);
        }
        starts.truncate(classes.len() + 1);
        starts.dedup(); // a class without samples begins where the next one does
        Ok(Rings { samples, starts, largest, digest })
    }

    /// Samples of all classes.
    pub(super) fn samples(&self) -> usize {
        self.samples.len()
    }

    /// Classes that have samples.
    pub(super) fn classes(&self) -> usize {
        self.starts.len() - 1
    }

    /// Samples of the largest class.
    pub(super) fn largest(&self) -> usize {
        self.largest
    }

    /// What tells one list of labels from another.
    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    /// Bytes of the table.
    pub(super) fn bytes(&self) -> usize {
        self.samples.bytes() + self.starts.bytes()
    }

    /// Where the ring of a class begins, and its length, which is at least 1.
    #[inline(always)]
    pub(super) fn ring(&self, class: usize) -> (usize, usize) {
        let start = self.starts.get(class);
        (start, self.starts.get(class + 1) - start)
    }

    /// The sample at a place of the table.
    #[inline(always)]
    pub(super) fn sample(&self, place: usize) -> usize {
        self.samples.get(place)
    }
}

impl<'a> Labels<'a> {
    fn new(labels: &TensorRef<'a>) -> Result<Labels<'a>> {
        let argument = "labels";
        validate::index(argument, labels)?;
        if labels.rank() != 1 {
            return Err(Error::Rank { argument, expected: "1".into(), got: labels.rank() });
        }
        let host = labels.host_data().and_then(HostRef::indices).ok_or(Error::Place {
            argument,
            expected: "host",
            got: labels.place(),
        })?;
        if labels.elements() == 0 {
            return Err(Error::Value {
                argument,
                expected: "at least one sample".into(),
                got: "none".into(),
            });
        }
        Ok(Labels { host, len: labels.elements(), stride: labels.row_stride() })
    }

    #[inline(always)]
    fn get(&self, i: usize) -> i64 {
        self.host.get(i * self.stride)
    }

    /// The largest label, and a digest of all in their order; an error for the first illegal one.
    fn survey(&self, classes: Option<usize>) -> Result<(i64, u64)> {
        let end = classes.map_or(i64::MAX, |n| i64::try_from(n).unwrap_or(i64::MAX));
        let (mut most, mut digest) = (0, self.len as u64);
        for index in 0..self.len {
            let label = self.get(index);
            // Without a number of classes the bound is i64::MAX, a legal label.
            if label < 0 || (label >= end && classes.is_some()) {
                let expected = match classes {
                    Some(n) => format!("a class in [0, {n})"),
                    None => "a class, 0 or more".into(),
                };
                let got = format!("{label} at index {index}");
                return Err(Error::Value { argument: "labels", expected, got });
            }
            most = most.max(label);
            digest = extend(digest, label.cast_unsigned());
        }
        Ok((most, digest))
    }
}

impl Classes {
    /// Empty classes may take as much memory as this many samples each have, and no more.
    const EMPTY_PER_SAMPLE: usize = 4;

    fn new(labels: Labels<'_>, classes: Option<usize>, most: i64) -> Result<Classes> {
        let n = classes.or(usize::try_from(most).ok().and_then(|most| most.checked_add(1)));
        match n {
            Some(n) if n / Classes::EMPTY_PER_SAMPLE <= labels.len => Ok(Classes::Dense(n)),
            _ => {
                let mut distinct = reserved(labels.len)?;
                distinct.extend((0..labels.len).map(|i| labels.get(i)));
                distinct.sort_unstable();
                distinct.dedup();
                Ok(Classes::Sparse(distinct))
            }
        }
    }

    fn len(&self) -> usize {
        match self {
            Classes::Dense(n) => *n,
            Classes::Sparse(distinct) => distinct.len(),
        }
    }

    #[inline(always)]
    fn of(&self, label: i64) -> usize {
        match self {
            // The survey has found it in range.
            Classes::Dense(_) => label as usize,
            // Every label is in the list.
            Classes::Sparse(distinct) => distinct.partition_point(|&other| other < label),
        }
    }
}

impl Words {
    fn zeros(len: usize, wide: bool) -> Result<Words> {
        fn zeros<T: Clone + Default>(len: usize) -> Result<Vec<T>> {
            let mut words = reserved(len)?;
            words.resize(len, T::default());
            Ok(words)
        }
        Ok(if wide { Words::Wide(zeros(len)?) } else { Words::Narrow(zeros(len)?) })
    }

    #[inline(always)]
    fn get(&self, i: usize) -> usize {
        match self {
            Words::Narrow(words) => words[i] as usize,
            Words::Wide(words) => words[i],
        }
    }

    #[inline(always)]
    fn set(&mut self, i: usize, value: usize) {
        match self {
            // At most the count of samples, for which this width was chosen.
            Words::Narrow(words) => words[i] = value as u32,
            Words::Wide(words) => words[i] = value,
        }
    }

    fn len(&self) -> usize {
        match self {
            Words::Narrow(words) => words.len(),
            Words::Wide(words) => words.len(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Words::Narrow(words) => size_of_val(&words[..]),
            Words::Wide(words) => size_of_val(&words[..]),
        }
    }

    fn truncate(&mut self, len: usize) {
        match self {
            Words::Narrow(words) => words.truncate(len),
            Words::Wide(words) => words.truncate(len),
        }
    }

    fn dedup(&mut self) {
        match self {
            Words::Narrow(words) => {
                words.dedup();
                words.shrink_to_fit();
            }
            Words::Wide(words) => {
                words.dedup();
                words.shrink_to_fit();
            }
        }
    }
}

/// An empty vector with room for `len`; memory that cannot be had is an error, not an abort.
fn reserved<T>(len: usize) -> Result<Vec<T>> {
    let mut words = Vec::new();
    words
        .try_reserve_exact(len)
        .map_err(|_| Error::no_memory("labels", len.saturating_mul(size_of::<T>())))?;
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rings(labels: &[i64], classes: Option<usize>, wide: bool) -> Vec<Vec<usize>> {
        let view = TensorRef::new(labels, &[labels.len()]).unwrap();
        let rings = Rings::build(Labels::new(&view).unwrap(), classes, wide).unwrap();
        let lists: Vec<Vec<usize>> = (0..rings.classes())
            .map(|class| {
                let (start, len) = rings.ring(class);
                (start..start + len).map(|place| rings.sample(place)).collect()
            })
            .collect();
        assert_eq!(rings.samples(), labels.len());
        assert_eq!(rings.largest(), lists.iter().map(Vec::len).max().unwrap());
        lists
    }

    #[test]
    fn samples_are_grouped_in_their_order_and_empty_classes_are_left_out() {
        let labels = [3i64, 0, 3, 5, 0, 3];
        let expected = vec![vec![1, 4], vec![0, 2, 5], vec![3]];
        for classes in [None, Some(6), Some(20), Some(usize::MAX / 2), Some(usize::MAX)] {
            for wide in [false, true] {
                assert_eq!(rings(&labels, classes, wide), expected, "{classes:?} {wide}");
            }
        }
    }

    #[test]
    fn labels_may_be_any_numbers_from_0() {
        let labels = [i64::MAX, 7, i64::MAX - 1, 7, i64::MAX];
        assert_eq!(rings(&labels, None, false), vec![vec![1, 3], vec![2], vec![0, 4]]);
    }
}
