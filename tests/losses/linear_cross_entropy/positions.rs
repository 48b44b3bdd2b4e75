//! A classifier for each of several positions: the bits of one after another, in whatever chunks, and what such calls
//! do not have.

use super::errors::refused;
use super::{Results, bits, floats, full, noise, values};
use crate::harness::{devices, least_of};
use warploss::{
    CrossEntropy, CrossEntropyOut, CrossEntropyUpstream, DType, Device, GradOutput,
    LinearCrossEntropy, LinearGradOut, LinearInput, LinearOutputs, LinearPath, Reduction, Tensor,
    TensorRef, TopKOut,
};

const ROWS: usize = 19;
const FEATURES: usize = 7;
/// Fewer and more than kernels take side by side.
const CLASSES: [usize; 3] = [61, 333, 4099];
const INNER: [usize; 2] = [2, 3];
const POSITIONS: usize = INNER[0] * INNER[1];

struct Data {
    x: Tensor,
    w: Tensor,
    b: Tensor,
    target: Tensor,
    given: [Tensor; 3],
}

impl Data {
    /// Some targets do not count, and all of two rows', whose hidden states are then NaN.
    fn new(dtype: DType, rows: usize, classes: usize) -> Data {
        let mut x = noise(1, rows * FEATURES);
        let mut target: Vec<i64> =
            (0..rows * POSITIONS).map(|i| (i * 7919 % classes) as i64).collect();
        (0..target.len()).filter(|i| i % 4 == 1).for_each(|i| target[i] = -100);
        for row in [0, 11] {
            target[row * POSITIONS..][..POSITIONS].fill(-100);
            x[row * FEATURES..][..FEATURES].fill(f64::NAN);
        }
        let shape = [rows, INNER[0], INNER[1]];
        let given =
            [2, 3, 4].map(|seed| floats(DType::F32, &shape, &noise(seed, rows * POSITIONS)));
        let of_classes = [classes, INNER[0], INNER[1]];
        Data {
            x: floats(dtype, &[rows, FEATURES], &x),
            w: floats(
                dtype,
                &[classes, INNER[0], INNER[1], FEATURES],
                &noise(5, classes * POSITIONS * FEATURES),
            ),
            b: floats(dtype, &of_classes, &noise(6, classes * POSITIONS)),
            target: Tensor::from_vec(target, &shape).unwrap(),
            given,
        }
    }

    fn input(&self) -> LinearInput<'_> {
        LinearInput::new(self.x.view(), self.w.view(), self.target.view())
            .linear_bias(self.b.view())
    }
}

/// What a call writes, of losses of this shape and gradients of what it reads; with so many likeliest classes.
fn written(
    device: &Device,
    loss: &LinearCrossEntropy<'_>,
    input: &LinearInput<'_>,
    (given, k): (&[Tensor; 3], usize),
) -> Results {
    let rows = given[0].shape();
    let top: Vec<usize> = rows.iter().copied().chain([k]).collect();
    let mut numbers: [Tensor; 5] =
        std::array::from_fn(|i| full(DType::F32, if i < 4 { &rows } else { &top }));
    let mut classes: [Tensor; 3] =
        std::array::from_fn(|i| full(DType::I64, if i < 2 { &rows } else { &top }));
    let like = |of: TensorRef<'_>| full(of.dtype(), &of.shape());
    let [mut x, mut w, mut b] =
        [input.input, input.linear_weight, input.linear_bias.unwrap()].map(like);
    let [losses, lse, logprob, entropy, of_top] = numbers.each_mut().map(Tensor::view_mut);
    let [argmax, rank, of_classes] = classes.each_mut().map(Tensor::view_mut);
    let out = CrossEntropyOut {
        lse: Some(lse),
        logprob: Some(logprob),
        entropy: Some(entropy),
        argmax: Some(argmax),
        rank: Some(rank),
        top_k: (k > 0).then_some(TopKOut { classes: of_classes, logprob: of_top }),
        ..CrossEntropyOut::loss(losses)
    };
    let gradients = LinearGradOut {
        input: Some(x.view_mut()),
        linear_weight: Some(w.view_mut()),
        linear_bias: Some(b.view_mut()),
        ..LinearGradOut::default()
    };
    let [of_loss, of_logprob, of_entropy] = given.each_ref().map(|t| GradOutput::Tensor(t.view()));
    let upstream = CrossEntropyUpstream {
        grad_output: of_loss,
        grad_logprob: of_logprob,
        grad_entropy: of_entropy,
    };
    loss.forward_backward_into(device, input, upstream, gradients, out).unwrap();
    let names = ["loss", "lse", "logprob", "entropy", "top_k.logprob"];
    let of_classes = ["argmax", "rank", "top_k.classes"];
    let grads = [("grad_input", x), ("grad_linear_weight", w), ("grad_linear_bias", b)];
    names.into_iter().zip(numbers).chain(of_classes.into_iter().zip(classes)).chain(grads).collect()
}

fn plain() -> CrossEntropy<'static> {
    let options = CrossEntropy::default().reduction(Reduction::None);
    options.label_smoothing(0.1).lse_square_scale(1e-3).softcap(Some(20.0))
}

/// The elements of one position, of what has so many after it.
fn at(tensor: &Tensor, position: usize, after: usize) -> Vec<f64> {
    let pieces = values(tensor);
    pieces.chunks(after).skip(position).step_by(POSITIONS).flatten().copied().collect()
}

#[test]
fn each_position_has_what_it_has_alone() {
    let [few, some, many] = CLASSES;
    let of = [
        (DType::F32, few, 3),
        (DType::F32, many, 3),
        (DType::BF16, some, 3),
        (DType::F16, some, 3),
        // Without names for classes kernels take lines as they lie, unless those are of one class.
        (DType::F32, few, 0),
        (DType::BF16, some, 0),
        (DType::F32, 1, 0),
        (DType::F16, 1, 1),
    ];
    for (dtype, classes, k) in of {
        let data = Data::new(dtype, ROWS, classes);
        let loss = LinearCrossEntropy::from(plain());
        for (name, device) in devices() {
            let got = written(device, &loss, &data.input(), (&data.given, k));
            let mut of_x = vec![0.0; ROWS * FEATURES];
            for position in 0..POSITIONS {
                let one = |tensor: &Tensor, shape: &[usize], after| {
                    floats(tensor.dtype(), shape, &at(tensor, position, after))
                };
                let w = one(&data.w, &[classes, FEATURES], FEATURES);
                let b = one(&data.b, &[classes], 1);
                let target = at(&data.target, position, 1).iter().map(|&t| t as i64).collect();
                let target = Tensor::from_vec(target, &[ROWS]).unwrap();
                let given = data.given.each_ref().map(|given| one(given, &[ROWS], 1));
                let input =
                    LinearInput::new(data.x.view(), w.view(), target.view()).linear_bias(b.view());
                let alone = written(device, &loss, &input, (&given, k));
                for ((what, got), (_, alone)) in got.iter().zip(&alone) {
                    if *what == "grad_input" {
                        of_x.iter_mut().zip(values(alone)).for_each(|(sum, x)| *sum += x);
                        continue;
                    }
                    let after = match *what {
                        "grad_linear_weight" => FEATURES,
                        "top_k.classes" | "top_k.logprob" if k == 0 => continue,
                        "top_k.classes" | "top_k.logprob" => k,
                        _ => 1,
                    };
                    let what = format!("{name}: {dtype} {classes} {what} at {position}");
                    near(&what, (&at(got, position, after), alone.dtype()), &values(alone));
                }
            }
            // One rounding of a sum against several.
            let got = values(&got[8].1);
            near(&format!("{name}: {dtype} {classes} grad_input"), (&got, dtype), &of_x);
        }
    }
}

fn near(what: &str, (got, dtype): (&[f64], DType), wanted: &[f64]) {
    let largest = wanted.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
    let off = match dtype {
        DType::I64 => 0.0,
        DType::F32 => 3e-6,
        DType::F16 => 2f64.powi(-10),
        _ => 2f64.powi(-7),
    };
    assert_eq!(got.len(), wanted.len(), "{what}");
    for (i, (got, wanted)) in got.iter().zip(wanted).enumerate() {
        assert!((got - wanted).abs() <= off * largest, "{what}[{i}]: {got}, not {wanted}");
    }
}

#[test]
fn chunks_do_not_change_a_bit_of_a_row() {
    // More rows than the CPU's gradients are added up over at once.
    for (rows, classes) in [(140, CLASSES[0]), (ROWS, CLASSES[1]), (ROWS, CLASSES[2])] {
        let data = Data::new(DType::F32, rows, classes);
        let input = data.input();
        for (name, device) in devices() {
            let loss =
                |budget: usize| LinearCrossEntropy::from(plain()).max_workspace_bytes(budget);
            let error = loss(1).forward_backward(device, &input, data.given[0].view());
            let least = least_of(&error.unwrap_err());
            let run = |budget| {
                let loss = loss(budget);
                let asked = LinearOutputs { ranks: true, top_k: 3, ..true.into() };
                let plan = loss.plan(device, &input, asked).unwrap();
                assert!(plan.workspace_bytes <= budget, "{plan:?} of {budget}");
                let got = written(device, &loss, &input, (&data.given, 3));
                let mut rows: Vec<_> = got.iter().take(8).map(|(_, tensor)| bits(tensor)).collect();
                // Kernels that take lines as they lie name no classes.
                let few = loss.forward_backward(device, &input, data.given[0].view()).unwrap();
                rows.extend([&few.output.loss, &few.output.lse].map(bits));
                (plan.chunk_rows, rows, [&got[8].1, &few.input].map(values))
            };
            let (few, some) = (run(least), run(least + least / 2));
            let all = run(1 << 30);
            assert_eq!(all.0, rows, "{name}");
            assert!(few.0 < rows || rows == ROWS && name.starts_with("cpu"), "{name}: {}", few.0);
            for (got, all) in [&few, &some].iter().flat_map(|got| got.2.iter().zip(&all.2)) {
                // Products of our own keep their bits; a card's are its library's.
                match name.starts_with("cpu") {
                    true => assert!(got == all, "{name}: {classes} classes"),
                    false => near(&format!("{name}: grad_input"), (got, DType::F32), all),
                }
            }
            for (i, all) in all.1.iter().enumerate() {
                for (chunk, rows, _) in [&few, &some] {
                    let differ = rows[i].iter().zip(all).position(|(one, all)| one != all);
                    let what = differ.map(|at| (at, [rows[i][at], all[at]].map(f64::from_bits)));
                    assert_eq!(what, None, "{name}: {classes} classes, result {i} by {chunk}");
                }
            }
        }
    }
}

#[test]
fn what_rows_of_several_classifiers_do_not_have_is_refused_by_name() {
    let data = Data::new(DType::F32, ROWS, 5);
    let input = data.input();
    let f32s = |shape: &[usize]| floats(DType::F32, shape, &noise(9, shape.iter().product()));
    for (_, device) in devices() {
        let loss = LinearCrossEntropy::default();
        let go = |input: LinearInput<'_>| loss.forward(device, &input);
        assert!(go(input).is_ok());
        let rows = f32s(&[ROWS]);
        let more = "none (with a linear_weight of more than two dimensions)";
        refused(go(input.temperature(rows.view())), &["temperature", more]);
        refused(go(input.row_weight(rows.view())), &["row_weight", more]);
        let one = f32s(&[FEATURES]);
        refused(go(LinearInput { input: one.view(), ..input }), &["input", "2 (with a", "1"]);
        let narrow = f32s(&[5, 2, 3, FEATURES - 1]);
        let narrow = LinearInput { linear_weight: narrow.view(), ..input };
        refused(go(narrow), &["linear_weight", "[V, d1, …, 7]", "[5, 2, 3, 6]"]);
        let none = f32s(&[5, 0, 3, FEATURES]);
        let none = LinearInput { linear_weight: none.view(), ..input };
        refused(go(none), &["linear_weight", "at least 1", "[5, 0, 3, 7]"]);
        let (shape, row) = ([5, 2, 3, FEATURES], 6 * FEATURES);
        let padded = noise(3, 5 * (row + 1)).iter().map(|&v| v as f32).collect::<Vec<_>>();
        let padded = TensorRef::with_row_stride(&padded, &shape, row + 1).unwrap();
        refused(go(LinearInput { linear_weight: padded, ..input }), &["linear_weight", "43"]);
        let bias = f32s(&[30]);
        refused(go(input.linear_bias(bias.view())), &["linear_bias", "[5, 2, 3]", "[30]"]);
        let target = Tensor::from_vec(vec![0i64; ROWS], &[ROWS]).unwrap();
        let target = LinearInput { target: target.view(), ..input };
        refused(go(target), &["target", "[19, 2, 3]", "[19]"]);
        let q = f32s(&[ROWS, 2, 3, 5]);
        let q = LinearInput { target: q.view(), ..input };
        refused(go(q), &["target", "[19, 5, 2, 3]", "[19, 2, 3, 5]"]);
        let tiled = loss.clone().path(LinearPath::Tiled);
        refused(tiled.forward(device, &input), &["path"]);
        let filter = loss.clone().gradient_filter(Some(1e-5));
        refused(filter.forward(device, &input), &["gradient_filter", "more than two dimensions"]);
        let mut flat = f32s(&[30, FEATURES]);
        let gradients =
            LinearGradOut { linear_weight: Some(flat.view_mut()), ..LinearGradOut::default() };
        let got = loss.backward_into(device, &input, 1.0, gradients);
        refused(got, &["grad_linear_weight", "[5, 2, 3, 7]", "[30, 7]"]);
    }
}
