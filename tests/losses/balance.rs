//! The balanced sampler through its public face: what every epoch promises, for random class counts.

use proptest::collection::vec;
use proptest::prelude::*;
use warploss::balance::{BalancedSampler, Phase, SamplerOptions, SamplerState};
use warploss::{Element, Error, TensorRef};

/// Numbers that are the same on every run (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

/// Labels of so many samples a class, in a random order.
fn labels(counts: &[usize], seed: u64) -> Vec<i64> {
    let mut labels: Vec<i64> =
        counts.iter().enumerate().flat_map(|(c, &n)| vec![c as i64; n]).collect();
    let mut random = Random(seed);
    for i in (1..labels.len()).rev() {
        labels.swap(i, random.below(i + 1));
    }
    labels
}

fn view<T: Element>(labels: &[T]) -> TensorRef<'_> {
    TensorRef::new(labels, &[labels.len()]).unwrap()
}

fn sampler(labels: &[i64], options: &SamplerOptions) -> BalancedSampler {
    BalancedSampler::new(view(labels), options).unwrap()
}

/// How often each number below `n` occurs.
fn census(numbers: impl IntoIterator<Item = usize>, n: usize) -> Vec<usize> {
    let mut seen = vec![0; n];
    numbers.into_iter().for_each(|i| seen[i] += 1);
    seen
}

/// Counts of a few classes; at least one has samples.
fn counts() -> impl Strategy<Value = Vec<usize>> {
    let count = prop_oneof![Just(0), Just(1), 1..8usize, 1..40usize, Just(97)];
    vec(count, 1..12).prop_filter("samples", |counts| counts.iter().any(|&n| n > 0))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn an_epoch_gives_every_class_as_often_and_every_sample_its_share(
        counts in counts(), batch in 1..70usize, seed: u64, shuffle: bool,
    ) {
        let labels = labels(&counts, seed);
        let options = SamplerOptions::new(batch).seed(seed).shuffle(shuffle);
        let mut sampler = sampler(&labels, &options);
        let present: Vec<usize> = (0..counts.len()).filter(|&c| counts[c] > 0).collect();
        let largest = *counts.iter().max().unwrap();
        prop_assert_eq!(sampler.classes(), present.len());
        prop_assert_eq!(sampler.largest_class(), largest);
        for epoch in 0..3 {
            prop_assert_eq!((sampler.phase(), sampler.epoch()), (Phase::Balanced, epoch));
            let batches: Vec<Vec<usize>> = sampler.epoch_batches().collect();
            let stream = largest * present.len();
            prop_assert_eq!(batches.len(), stream.div_ceil(batch));
            prop_assert_eq!(batches.len() as u64, sampler.epoch_batch_count(Phase::Balanced));
            let (last, full) = batches.split_last().unwrap();
            prop_assert!(full.iter().all(|b| b.len() == batch));
            prop_assert_eq!(last.len(), stream - full.len() * batch);
            for b in &batches {
                let seen = census(b.iter().map(|&i| labels[i] as usize), counts.len());
                let of_present = present.iter().map(|&c| seen[c]);
                let (low, high) = (of_present.clone().min(), of_present.max());
                let allowed = usize::from(b.len() % present.len() != 0);
                prop_assert!(high.unwrap() - low.unwrap() <= allowed, "{:?}", seen);
            }
            let all = batches.concat();
            let by_class = census(all.iter().map(|&i| labels[i] as usize), counts.len());
            prop_assert!(present.iter().all(|&c| by_class[c] == largest), "{:?}", by_class);
            for (i, &seen) in census(all, labels.len()).iter().enumerate() {
                let n = counts[labels[i] as usize];
                prop_assert!((largest / n..=largest.div_ceil(n)).contains(&seen), "{i}: {seen}");
            }
        }
    }

    #[test]
    fn a_restored_sampler_continues_with_the_very_next_sample(
        counts in counts(), batch in 1..40usize, seed: u64, shuffle: bool, epochs in 0..3u64,
        closing in 0..3u64, stop: prop::sample::Index,
    ) {
        let labels = labels(&counts, seed);
        let options = SamplerOptions::new(batch).seed(seed).shuffle(shuffle);
        let options = options.epochs(epochs).closing_epochs(closing);
        let whole: Vec<Vec<usize>> = sampler(&labels, &options).collect();
        let mut first = sampler(&labels, &options);
        let stop = stop.index(whole.len() + 1);
        for expected in &whole[..stop] {
            prop_assert_eq!(&first.next().unwrap(), expected);
        }
        let bytes = first.state().to_bytes();
        let mut second = sampler(&labels, &options);
        second.restore(&SamplerState::from_bytes(&bytes).unwrap()).unwrap();
        prop_assert_eq!(second.state(), first.state());
        prop_assert_eq!(second.collect::<Vec<_>>(), &whole[stop..]);
    }

    #[test]
    fn natural_epochs_are_permutations_that_differ(
        counts in counts(), batch in 1..70usize, seed: u64,
    ) {
        let labels = labels(&counts, seed);
        let options = SamplerOptions::new(batch).seed(seed).epochs(0).closing_epochs(2);
        let mut sampler = sampler(&labels, &options);
        prop_assert_eq!(sampler.phase(), Phase::Natural);
        let epochs: Vec<Vec<usize>> = (0..2)
            .map(|_| {
                let batches: Vec<Vec<usize>> = sampler.epoch_batches().collect();
                assert_eq!(batches.len(), labels.len().div_ceil(batch));
                assert!(batches[..batches.len() - 1].iter().all(|b| b.len() == batch));
                batches.concat()
            })
            .collect();
        for epoch in &epochs {
            prop_assert!(census(epoch.iter().copied(), labels.len()).iter().all(|&n| n == 1));
        }
        prop_assert!(labels.len() < 20 || epochs[0] != epochs[1]);
        prop_assert_eq!(sampler.next(), None);
    }
}

#[test]
fn laps_epochs_classes_and_seeds_all_have_orders_of_their_own() {
    // Two classes of 30 and one of 240: eight laps of the small ones in an epoch.
    let labels = labels(&[30, 240, 30], 1);
    let mut orders = std::collections::HashSet::new();
    for seed in 0..2 {
        let mut sampler = sampler(&labels, &SamplerOptions::new(3).seed(seed));
        for _epoch in 0..2 {
            let batches: Vec<Vec<usize>> = sampler.epoch_batches().collect();
            for class in [0, 2] {
                let of_class: Vec<usize> = batches.iter().map(|b| b[class]).collect();
                let members: Vec<usize> = (0..300).filter(|&i| labels[i] == class as i64).collect();
                for lap in of_class.chunks(30) {
                    // Places within the class, so that classes can be compared.
                    let order = lap.iter().map(|i| members.binary_search(i).unwrap());
                    assert!(orders.insert(order.collect::<Vec<_>>()));
                }
            }
        }
    }
    assert_eq!(orders.len(), 2 * 2 * 2 * 8);
}

#[test]
fn every_sample_of_a_short_class_is_as_likely_to_be_given_once_more() {
    // 7 samples in 17 rounds: three of them come a third time, any three over many epochs.
    let labels = labels(&[7, 17], 5);
    let mut sampler = sampler(&labels, &SamplerOptions::new(34).seed(9));
    let epochs = 7000;
    let mut extra = vec![0f64; labels.len()];
    for _ in 0..epochs {
        for (i, n) in census(sampler.next().unwrap(), 24).into_iter().enumerate() {
            extra[i] += n as f64 - 2.0;
        }
    }
    let expected = epochs as f64 * 3.0 / 7.0;
    let deviation = (expected * 4.0 / 7.0).sqrt();
    for (i, n) in extra.iter().enumerate().filter(|&(i, _)| labels[i] == 0) {
        assert!((n - expected).abs() < 4.0 * deviation, "{i}: {n} of {expected}");
    }
}

#[test]
fn unshuffled_rings_run_on_in_the_order_of_the_data() {
    let labels = [1i64, 0, 1, 1, 0, 1, 1];
    let options = SamplerOptions::new(4).shuffle(false).epochs(2);
    let batches: Vec<Vec<usize>> = sampler(&labels, &options).collect();
    let expected: [&[usize]; 6] = [
        &[1, 0, 4, 2],
        &[1, 3, 4, 5],
        &[1, 6],
        &[4, 0, 1, 2], // the ring of class 0 had come to its first sample
        &[4, 3, 1, 5],
        &[4, 6],
    ];
    assert_eq!(batches, expected);
}

#[test]
fn the_sequence_is_the_same_everywhere() {
    // These numbers are what a state of version 1 promises: where they change, so must the version.
    let labels = labels(&[3, 20, 40, 0, 1], 3);
    let options = SamplerOptions::new(12).seed(0x0123_4567_89ab_cdef).closing_epochs(1);
    let mut sampler = sampler(&labels, &options);
    assert_eq!(sampler.next().unwrap(), FIRST);
    assert_eq!(sampler.nth(12).unwrap(), LAST_OF_EPOCH_0);
    assert_eq!(sampler.next().unwrap(), FIRST_OF_EPOCH_1);
    sampler.begin_closing();
    assert_eq!(sampler.next().unwrap(), FIRST_NATURAL);
    assert_eq!(sampler.state().digest, DIGEST);
}

// Made by a separate program from the definition of the orders, not by this library.
const FIRST: [usize; 12] = [7, 10, 63, 0, 9, 56, 38, 0, 1, 25, 20, 0];
const LAST_OF_EPOCH_0: [usize; 4] = [1, 27, 19, 0];
const FIRST_OF_EPOCH_1: [usize; 12] = [9, 36, 32, 0, 7, 4, 43, 0, 1, 62, 20, 0];
const FIRST_NATURAL: [usize; 12] = [38, 33, 26, 2, 60, 48, 46, 12, 25, 22, 37, 45];
const DIGEST: u64 = 0x79a3_b4a5_334f_7d93;

#[test]
fn labels_of_every_dtype_and_stride_are_the_same_data() {
    let wide = labels(&[5, 9, 1], 2);
    let expected = sampler(&wide, &SamplerOptions::new(4)).state();
    fn state(labels: TensorRef<'_>) -> SamplerState {
        BalancedSampler::new(labels, &SamplerOptions::new(4).classes(3)).unwrap().state()
    }
    fn cast<T: TryFrom<i64>>(labels: &[i64]) -> Vec<T> {
        labels.iter().map(|&l| T::try_from(l).ok().unwrap()).collect()
    }
    assert_eq!(state(view(&cast::<u8>(&wide))), expected);
    assert_eq!(state(view(&cast::<u32>(&wide))), expected);
    assert_eq!(state(view(&cast::<i32>(&wide))), expected);
    let padded: Vec<i64> = wide.iter().flat_map(|&l| [l, -1]).collect();
    assert_eq!(state(TensorRef::with_row_stride(&padded, &[15], 2).unwrap()), expected);
}

#[test]
fn huge_batches_huge_labels_and_single_samples_are_legal() {
    let one = sampler(&[i64::MAX], &SamplerOptions::new(usize::MAX).epochs(1).closing_epochs(1));
    assert_eq!(one.collect::<Vec<_>>(), [[0], [0]]);
    let two = sampler(&[7, i64::MAX, 7], &SamplerOptions::new(usize::MAX).epochs(1));
    let mut batch = two.last().unwrap();
    batch.sort_unstable();
    assert_eq!(batch, [0, 1, 1, 2]);
}

#[test]
fn closing_begun_by_hand_lasts_as_long_as_was_said() {
    let labels = labels(&[2, 5], 1);
    let mut endless = sampler(&labels, &SamplerOptions::new(7));
    endless.next();
    endless.begin_closing();
    assert_eq!((endless.phase(), endless.epoch()), (Phase::Natural, 0));
    assert_eq!(endless.by_ref().take(100).count(), 100);
    let mut bounded = sampler(&labels, &SamplerOptions::new(7).epochs(9).closing_epochs(2));
    bounded.begin_closing();
    assert_eq!(bounded.count(), 2);
}

#[test]
fn a_schedule_can_be_lengthened_on_restoring() {
    let labels = labels(&[2, 5], 1);
    let options = |epochs| SamplerOptions::new(3).seed(4).epochs(epochs);
    let mut short = sampler(&labels, &options(1));
    while short.epoch_batches().next().is_some() && short.phase() == Phase::Balanced {}
    let mut long = sampler(&labels, &options(2));
    long.restore(&short.state()).unwrap();
    let second = long.collect::<Vec<_>>();
    assert_eq!(second, sampler(&labels, &options(2)).skip(4).collect::<Vec<_>>());
    assert_eq!(second.len(), 4);
}

#[test]
fn batches_need_no_memory_but_the_first() {
    let labels = labels(&[50, 3, 17], 1);
    let mut sampler = sampler(&labels, &SamplerOptions::new(16).epochs(3).closing_epochs(1));
    let mut batch = Vec::with_capacity(16);
    let memory = batch.as_ptr();
    while sampler.next_into(&mut batch) {
        assert_eq!(batch.as_ptr(), memory);
    }
    assert!(batch.is_empty());
}

#[test]
fn the_table_has_at_most_8_bytes_a_sample() {
    let crowd: Vec<i64> = (0..100_000).map(|i| i % 10).collect();
    assert_eq!(sampler(&crowd, &SamplerOptions::new(1)).bytes(), 4 * (100_000 + 11));
    let loners: Vec<i64> = (0..100_000).collect();
    assert_eq!(sampler(&loners, &SamplerOptions::new(1)).bytes(), 4 * (100_000 + 100_001));
}

#[test]
fn samplers_go_to_other_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<BalancedSampler>();
}

/// The text of an error that must be there.
fn text<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn illegal_labels_are_named_with_index_and_value() {
    let new = |labels: TensorRef<'_>, options| text(BalancedSampler::new(labels, &options));
    let three = SamplerOptions::new(1).classes(3);
    for (labels, options, expected) in [
        (
            &[0i64, 2, 3, 7][..],
            three.clone(),
            "labels: expected a class in [0, 3), got 3 at index 2",
        ),
        (&[0, -1, 9], three.clone(), "labels: expected a class in [0, 3), got -1 at index 1"),
        (
            &[0, i64::MIN],
            SamplerOptions::new(1),
            "labels: expected a class, 0 or more, got -9223372036854775808 at index 1",
        ),
        (&[], three.clone(), "labels: expected at least one sample, got none"),
        (&[0], SamplerOptions::new(0), "batch_size: expected at least 1, got 0"),
    ] {
        assert_eq!(new(view(labels), options), expected);
    }
    let floats = new(view(&[0.0f32]), three.clone());
    assert!(floats.starts_with("labels: expected dtype i64"), "{floats}");
    let matrix = new(TensorRef::new(&[0u8; 4], &[2, 2]).unwrap(), three);
    assert_eq!(matrix, "labels: expected 1 dimension, got 2");
}

#[test]
fn batches_that_memory_cannot_hold_are_an_error_and_no_abort() {
    // A stream of half a million classes, half a million rounds: 2 TB of indices in one batch.
    let labels: Vec<u32> = (0..1_000_000u32).map(|i| i.saturating_sub(500_000)).collect();
    match BalancedSampler::new(view(&labels), &SamplerOptions::new(usize::MAX)) {
        Err(Error::OutOfMemory { argument: "batch_size", bytes, .. }) => assert!(bytes > 1 << 30),
        Err(other) => panic!("{other}"),
        Ok(sampler) => assert_eq!(sampler.epoch_batch_count(Phase::Balanced), 1),
    }
}

#[test]
fn a_state_of_something_else_is_refused_with_the_field_that_says_so() {
    let data = labels(&[4, 9, 2], 1);
    let options = || SamplerOptions::new(4).seed(3);
    let mut given = sampler(&data, &options());
    given.next();
    let before = given.state();
    let mut swapped = data.clone();
    let other = (0..15).find(|&i| swapped[i] != swapped[0]).unwrap();
    swapped.swap(0, other);
    let state = |labels: &[i64], options: SamplerOptions| sampler(labels, &options).state();
    for (field, foreign) in [
        ("samples", state(&data[1..], options())),
        ("classes", state(&labels(&[4, 11], 1), options())),
        ("digest", state(&swapped, options())),
        ("batch_size", state(&data, SamplerOptions::new(5).seed(3))),
        ("seed", state(&data, SamplerOptions::new(4).seed(4))),
        ("shuffle", state(&data, options().shuffle(false))),
        ("version", SamplerState { version: 2, ..before }),
        ("position", SamplerState { position: 5, ..before }),
        ("position", SamplerState { position: 28, ..before }),
        ("position", SamplerState { phase: Phase::Natural, position: 16, ..before }),
    ] {
        let line = text(given.restore(&foreign));
        assert!(line.starts_with(&format!("{field}: expected ")), "{field}: {line}");
        assert_eq!(given.state(), before);
    }
    // A state may be hostile; it must not be fatal.
    given.restore(&SamplerState { epoch: u64::MAX, ..before }).unwrap();
    assert_eq!(given.take(20).count(), 20);
}

#[test]
fn bytes_that_are_no_state_are_refused() {
    let good = sampler(&[0, 1], &SamplerOptions::new(1)).state().to_bytes();
    let with = |at: usize, value: u8| {
        let mut bytes = good;
        bytes[at] = value;
        text(SamplerState::from_bytes(&bytes))
    };
    assert!(with(0, 0).starts_with("state: expected "));
    assert_eq!(with(8, 9), "version: expected 1 (this library's), got 9");
    assert_eq!(with(56, 2), "shuffle: expected 0 or 1, got 2");
    assert_eq!(with(64, 2), "phase: expected 0 or 1, got 2");
    for len in [0, 1, 87] {
        let line = text(SamplerState::from_bytes(&good[..len]));
        let bytes = if len == 1 { "byte" } else { "bytes" };
        assert_eq!(line, format!("state: expected 88 bytes, got {len} {bytes}"));
    }
    let long = [&good[..], &[0]].concat();
    assert!(text(SamplerState::from_bytes(&long)).contains("got 89 bytes"));
}
