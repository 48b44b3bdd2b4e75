//! Cross entropy of a vocabulary in shards: no result knows how many there are.

use crate::cross_entropy::{CrossEntropyCase, Ignored, Recipe, UpstreamKind, Weights};
use crate::data::{Data, FLOATS, Logits, Rng};
use crate::harness::{Case, Got, devices};
use warploss::check::reference::Lines;
use warploss::{
    CrossEntropy, DType, Device, Error, Reduction, Result, RowState, Tensor, TensorRef, Vocabulary,
};

/// Shards that a vocabulary is cut into: one, some, as many as it has blocks or more.
const SHARDS: [usize; 5] = [1, 2, 3, 7, 16];

/// One row of 17 blocks, the last one short, and of 11 without a dimension of rows; rows that are not neighbours, and a vocabulary of one block.
const SHAPES: [&[usize]; 4] = [&[1, 33_000], &[20_500], &[2, 6_200, 3], &[3, 1_000]];

/// A case of each kind of logits, with options by chance.
fn cases() -> Vec<CrossEntropyCase> {
    let mut cases = Vec::new();
    for (i, logits) in Logits::ALL.into_iter().enumerate() {
        for (j, dtype) in FLOATS.into_iter().enumerate() {
            for (k, shape) in SHAPES.into_iter().enumerate() {
                let seed = (i * 100 + j * 10 + k) as u64;
                let mut rng = Rng(seed);
                let ranges = [
                    Weights::None,
                    Weights::Positive(true),
                    Weights::Positive(false),
                    Weights::Mixed,
                ];
                let recipe = Recipe {
                    seed,
                    shape: shape.to_vec(),
                    padding: if shape.len() > 1 { rng.below(3) } else { 0 },
                    dtypes: (dtype, [DType::I64, DType::I32][rng.below(2)]),
                    logits,
                    weights: ranges[rng.below(4)],
                    ignored: [Ignored::None, Ignored::Some][rng.below(2)],
                    upstream: [UpstreamKind::Number, UpstreamKind::Tensor(true)][rng.below(2)],
                    reduction: [Reduction::None, Reduction::Sum, Reduction::Mean][rng.below(3)],
                    smoothing: [0.0, 0.1, 0.9][rng.below(3)],
                    extensions: [
                        (0.0, 1.0, None),
                        (1e-2, 1.0, None),
                        (0.0, 0.6, None),
                        (0.0, 1.7, Some(5.0)),
                        (1e-4, 0.6, Some(30.0)),
                    ][rng.below(5)],
                };
                cases.push(recipe.case());
            }
        }
    }
    cases
}

/// The columns of a shard.
fn columns(data: &Data, shard: Vocabulary) -> Data {
    let shape = data.shape();
    let dim = usize::from(shape.len() > 1);
    let inner: usize = shape[dim + 1..].iter().product();
    let (whole, part) = (shape[dim] * inner, shard.len * inner);
    let values: Vec<f64> = (data.values().chunks_exact(whole))
        .flat_map(|outer| outer[shard.first * inner..][..part].to_vec())
        .collect();
    let mut sizes = shape.to_vec();
    sizes[dim] = shard.len;
    // A padding of its own, unlike the whole's. (That of a tensor of one dimension parts neighbours,
    // and then classes are brought together first, in another order of additions.)
    Data::floats(data.dtype(), &sizes, &values).padded(dim)
}

struct Sharded<'a> {
    case: &'a CrossEntropyCase,
    shards: Vec<(Vocabulary, Data)>,
}

impl<'a> Sharded<'a> {
    fn new(case: &'a CrossEntropyCase, shards: usize) -> Sharded<'a> {
        let shape = case.logits.shape();
        let classes = shape[usize::from(shape.len() > 1)];
        let shards = Vocabulary::shards(classes, shards)
            .into_iter()
            .map(|shard| (shard, columns(&case.logits, shard)))
            .collect();
        Sharded { case, shards }
    }

    fn states(&self, device: &Device) -> Result<Vec<RowState>> {
        let (options, target) = (self.case.options(), self.case.target.view());
        (self.shards.iter())
            .map(|(shard, logits)| options.partial(device, logits.view(), target, *shard))
            .collect()
    }

    fn state(&self, device: &Device) -> Result<RowState> {
        let states = self.states(device)?;
        RowState::merge(device, &states.iter().collect::<Vec<_>>())
    }

    /// Results, with the shards' gradients put together.
    fn results(&self, device: &Device, in_place: bool) -> Result<Vec<Got>> {
        let (options, target) = (self.case.options(), self.case.target.view());
        let state = self.state(device)?;
        let out = options.finish(device, &state, target)?;
        let shape = self.case.logits.shape();
        let dim = usize::from(shape.len() > 1);
        let lines = Lines::new(shape, &[dim]);
        let mut grad = vec![f64::NAN; shape.iter().product()];
        for (shard, logits) in &self.shards {
            let upstream = self.case.grad_output();
            let got = if in_place {
                let mut logits = logits.clone();
                let (of, saved) = ((logits.view_mut(), *shard), (target, &state));
                options.backward_shard_in_place(device, of, saved, upstream)?;
                logits.assert_padding_is_poison("logits");
                logits.values()
            } else {
                let of = (logits.view(), *shard);
                options.backward_shard(device, of, target, &state, upstream)?.view().to_f64()?
            };
            let mut sizes = shape.to_vec();
            sizes[dim] = shard.len;
            let own = Lines::new(&sizes, &[dim]);
            for (to, from) in lines.bases.iter().zip(&own.bases) {
                let columns = &lines.offsets[shard.first..];
                for (column, offset) in columns.iter().zip(&own.offsets) {
                    grad[to + column] = got[from + offset];
                }
            }
        }
        Ok(vec![
            Got::new("loss", out.loss.view()),
            Got::new("lse", out.lse.view()),
            Got::new("z_loss", out.z_loss.view()),
            Got { name: "grad_logits", dtype: self.case.logits.dtype(), values: grad },
        ])
    }
}

fn bits(results: &[Got]) -> Vec<(&'static str, Vec<u64>)> {
    // A NaN is one whatever its sign.
    let of = |v: &f64| if v.is_nan() { f64::NAN.to_bits() } else { v.to_bits() };
    results.iter().map(|got| (got.name, got.values.iter().map(of).collect())).collect()
}

#[test]
fn shards_of_any_number_give_the_bits_of_the_whole() {
    for (turn, case) in cases().into_iter().enumerate() {
        let expected = case.expected();
        for (name, device) in devices() {
            let one = Sharded::new(&case, 1).results(device, false).expect("a legal call");
            let whole = bits(&one);
            for got in &one {
                let expected = expected.iter().find(|e| e.name == got.name).expect("a result");
                let worst = expected.compare(got.dtype, &got.values);
                assert!(worst.agrees(), "{}: {worst}\n  on {name}, {case:?}", got.name);
            }
            for (i, shards) in SHARDS.into_iter().enumerate() {
                let sharded = Sharded::new(&case, shards);
                // As many as before: a vocabulary has no more shards than blocks.
                if i > 0 && sharded.shards.len() < shards && sharded.shards.len() <= SHARDS[i - 1] {
                    continue;
                }
                // On emulated cards each number of shards has every other case.
                if !name.starts_with("cpu") && (i + turn / 2) % 2 == 1 {
                    continue;
                }
                let in_place = (i + turn) % 2 == 0;
                let got = bits(&sharded.results(device, in_place).expect("a legal call"));
                assert!(got == whole, "{shards} shards, {in_place} on {name}: {case:?}");
            }
        }
    }
}

/// No shard has had the target that `finish` is told of, or none has logits of it.
#[test]
fn a_target_that_no_shard_has_had_is_no_number_and_an_empty_shard_says_nothing() {
    let case = CrossEntropyCase::random(5, DType::F32, 3, 4096, Logits::Normal);
    let (options, target) = (case.options(), case.target.view());
    for (name, device) in devices() {
        let left = Vocabulary { first: 0, len: 2048, whole: 4096 };
        let right = Vocabulary { first: 2048, ..left };
        let none = Vocabulary { first: 4096, len: 0, whole: 4096 };
        let state = |shard: Vocabulary, target| {
            let logits = columns(&case.logits, shard);
            options.partial(device, logits.view(), target, shard).expect("a state")
        };
        let parts = [state(left, target), state(right, target), state(none, target)];
        let merge = |parts: &[&RowState]| RowState::merge(device, parts).expect("neighbours");
        let with = merge(&[&parts[0], &parts[1], &parts[2]]);
        assert_eq!(with, merge(&[&parts[0], &parts[1]]), "{name}");

        // Rows of the right half's classes, in a call that took them for the left half's.
        let (here, there) = ([7i64, 8, 9], [3000i64, 3001, 3002]);
        let [here, there] = [&here, &there].map(|t| TensorRef::new(t, &[3]).unwrap());
        let state = merge(&[&state(left, there), &state(right, here)]);
        let out = options.clone().reduction(Reduction::None).finish(device, &state, here);
        let out = out.expect("a legal call");
        assert!(out.loss.view().to_f64().unwrap().iter().all(|v| v.is_nan()), "{name}");
        assert!(out.lse.view().to_f64().unwrap().iter().all(|v| v.is_nan()), "{name}");
    }
}

/// On the CPU the whole row is one list of the same blocks, unless it is short.
#[test]
fn shards_give_the_bits_of_forward_and_of_gradients_that_take_exponentials_anew() {
    let device = Device::cpu();
    for case in cases() {
        let (options, target) = (case.options(), case.target.view());
        let out = options.forward(&device, case.logits.view(), target).expect("a legal call");
        let mut whole = vec![
            Got::new("loss", out.loss.view()),
            Got::new("lse", out.lse.view()),
            Got::new("z_loss", out.z_loss.view()),
        ];
        let mut got = Sharded::new(&case, 3).results(&device, true).expect("a legal call");
        // Of logits that are not capped, the exponentials of the first visit are kept.
        if case.softcap.is_none() {
            got.pop();
        } else {
            let logits = case.logits.tensor();
            let grad = options.forward_backward(&device, logits, target, case.grad_output());
            let grad = grad.expect("a legal call").grad_logits;
            whole.push(Got::new("grad_logits", grad.view()));
        }
        assert!(bits(&got) == bits(&whole), "{case:?}");
    }
}

#[test]
fn states_may_be_merged_in_any_grouping_and_travel_as_numbers() {
    let case = CrossEntropyCase {
        label_smoothing: 0.1,
        ..CrossEntropyCase::random(3, DType::BF16, 4, 33_000, Logits::Masked)
    };
    for (name, device) in devices() {
        let states = Sharded::new(&case, 7).states(device).expect("states");
        let merge = |parts: &[&RowState]| RowState::merge(device, parts).expect("neighbours");
        let flat = merge(&states.iter().collect::<Vec<_>>());
        let [a, b, c, d, e, f, g] = &states[..] else { panic!("seven shards") };
        let left = merge(&[&merge(&[a, b]), c]);
        let right = merge(&[d, &merge(&[e, &merge(&[f, g])])]);
        let nested = merge(&[&left, &right]);
        assert_eq!(nested, flat, "{name}");
        // Over what an earlier call has left.
        let mut again = nested.clone();
        let [first, ..] = &Sharded::new(&case, 1).states(device).expect("a state")[..] else {
            panic!("one shard")
        };
        RowState::merge_into(device, &[first], &mut again).expect("the same columns");
        assert_eq!(&again, first, "{name}");
        let wrong = RowState::merge_into(device, &[&left, d], &mut again);
        assert!(
            says(wrong)
                .starts_with("state: expected 18432 of 33000 classes from 0 on, 5 numbers a")
        );
        assert_eq!(&again, first, "{name}");
        assert_eq!(nested.vocabulary(), Vocabulary::all(33_000));
        let values = nested.clone().into_values();
        let again = RowState::from_values(values, &nested.rows(), nested.vocabulary());
        assert_eq!(again.expect("its own numbers"), nested);
    }
}

#[test]
fn shards_of_a_vocabulary_have_borders_between_blocks_and_cover_it() {
    for classes in [1, 2048, 2049, 33_000, 128_256, 2_097_152, 3_000_000] {
        for n in SHARDS {
            let shards = Vocabulary::shards(classes, n);
            assert!(shards.len() <= n && !shards.is_empty());
            let mut next = 0;
            for shard in shards {
                assert_eq!((shard.first, shard.whole), (next, classes));
                assert_eq!(shard.first % shard.block(), 0);
                next += shard.len;
            }
            assert_eq!(next, classes);
        }
    }
}

/// What the error says, which names the argument.
fn says(result: Result<impl Sized>) -> String {
    result.err().expect("an error").to_string()
}

#[test]
fn what_is_no_shard_is_an_error_that_names_it() {
    let device = Device::cpu();
    let case = CrossEntropyCase::random(1, DType::F32, 2, 6_000, Logits::Normal);
    let (options, target) = (case.options(), case.target.view());
    let partial = |first, len, whole| {
        let shard = Vocabulary { first, len, whole };
        let logits = columns(&case.logits, Vocabulary { first: 0, ..shard });
        options.partial(&device, logits.view(), target, shard)
    };
    for (first, len, whole) in
        [(100, 2048, 6000), (0, 100, 6000), (4096, 2048, 6000), (2048, 2048, 3000)]
    {
        let message = says(partial(first, len, whole));
        assert!(message.starts_with("vocabulary: expected classes of 0.."), "{message}");
    }
    let whole = Vocabulary::all(6000);
    let few = columns(&case.logits, Vocabulary { first: 0, len: 2048, whole: 6000 });
    let message = says(options.partial(&device, few.view(), target, whole));
    assert_eq!(message, "vocabulary: expected 2048 classes (those of the logits), got 6000");

    let (first, second) = (partial(0, 2048, 6000).unwrap(), partial(2048, 2048, 6000).unwrap());
    let last = partial(4096, 1904, 6000).unwrap();
    let merge = |parts: &[&RowState]| RowState::merge(&device, parts);
    assert_eq!(
        says(merge(&[&first, &last])),
        "parts: expected classes from 2048 of 6000 on (where the part before ends), got from 4096 of \
         6000 on"
    );
    assert_eq!(says(merge(&[])), "parts: expected at least one state, got none");
    let some = merge(&[&first, &second]).unwrap();
    assert_eq!(
        says(options.finish(&device, &some, target)),
        "state: expected all 6000 classes, got 4096 of 6000 from 0 on"
    );
    let all = merge(&[&some, &last]).unwrap();
    let smoothed = case.options().label_smoothing(0.1);
    assert_eq!(
        says(smoothed.finish(&device, &all, target)),
        "state: expected 5 numbers a block (by label_smoothing), got 2"
    );
    let shard = Vocabulary { first: 0, len: 2048, whole: 6000 };
    let of = (few.view(), shard);
    let message = says(options.backward_shard(&device, of, target, &first, 1.0));
    assert_eq!(message, "state: expected all 6000 classes, got 2048 of 6000 from 0 on");
    let values = Tensor::from_vec(vec![0f32; 6], &[2, 3]).unwrap();
    let message = says(RowState::from_values(values, &[2], shard));
    assert!(message.starts_with("values: expected shape [2, 6], or with label"), "{message}");
    assert!(matches!(
        options.clone().weight(few.view()).partial(&device, few.view(), target, shard),
        Err(Error::Shape { argument: "weight", .. })
    ));
}

#[test]
fn a_target_out_of_range_is_an_error_on_every_shard_and_writes_nothing() {
    let logits = vec![1f32; 2 * 2048];
    let logits = TensorRef::new(&logits, &[2, 2048]).unwrap();
    let (right, wrong) = ([0i64, 5999], [0i64, 6000]);
    let loss = CrossEntropy::default();
    for ((name, device), first) in devices().iter().flat_map(|d| [(d, 0), (d, 2048)]) {
        let shard = Vocabulary { first, len: 2048, whole: 6000 };
        let target = TensorRef::new(&right, &[2]).unwrap();
        let mut state = loss.partial(device, logits, target, shard).unwrap();
        let before = state.clone();
        let target = TensorRef::new(&wrong, &[2]).unwrap();
        let error = loss.partial_into(device, logits, target, &mut state).unwrap_err();
        assert!(matches!(error, Error::Target { row: 1, value: 6000, classes: 6000, .. }));
        assert_eq!(state, before, "{name}");
    }
}
