//! Gradients without the pieces of rows that a bound leaves out: of the right pieces, whoever makes them, and whatever
//! rows are beside.

use super::*;

const BOUND: f32 = 2e-3;
const SIZES: [usize; 3] = [150, 40, 1100];

/// Rows from all but certain to all but even.
fn peaked<T: Number>(ignored: impl Fn(usize) -> bool) -> Data<T> {
    let [n, d, _] = SIZES;
    let mut data = Data::<T>::new(SIZES, false);
    for row in 0..n {
        let scale = 0.2 + (row % 8) as f64 / 2.0;
        data.x[row * d..][..d].iter_mut().for_each(|x| *x = T::of(scale * x.wide()));
        if ignored(row) {
            data.target[row] = -100;
            data.x[row * d..][..d].fill(T::of(f64::NAN));
            (data.tau[row], data.u[row]) = (f32::NAN, -1.0);
        }
    }
    data
}

/// The gradient of a sum of losses times weights with respect to logits, and how many pieces have none.
fn expected<T: Number>(data: &Data<T>, bound: f64) -> (Vec<f32>, usize) {
    let [n, _, v] = data.sizes;
    let mut z = data.logits([true, true]);
    let mut left_out = 0;
    for row in (0..n).filter(|&row| data.target[row] >= 0) {
        let (z, target) = (&mut z[row * v..][..v], data.target[row] as usize);
        let max = z.iter().fold(f32::NEG_INFINITY, |m, &z| m.max(z));
        let e: Vec<f64> = z.iter().map(|&z| f64::from(z - max).exp()).collect();
        let total: f64 = e.iter().sum();
        let rest: f64 = (0..v).filter(|&c| c != target).map(|c| e[c]).sum();
        for begin in (0..v).step_by(64) {
            let piece = begin..v.min(begin + 64);
            let far = |c| if c == target { rest / total } else { e[c] / total };
            let largest = piece.clone().map(far).fold(0.0, f64::max);
            assert!((largest / bound - 1.0).abs() > 1e-3, "too near to say: row {row}, {begin}");
            left_out += usize::from(largest < bound);
            for c in piece {
                let p = if c == target { -rest / total } else { e[c] / total };
                z[c] = if largest < bound { 0.0 } else { (f64::from(data.u[row]) * p) as f32 };
            }
        }
    }
    (z, left_out)
}

fn filtering(bound: f32, path: LinearPath) -> LinearCrossEntropy<'static> {
    let sum = CrossEntropy::default().reduction(Reduction::Sum);
    LinearCrossEntropy::from(sum).gradient_filter(Some(bound)).path(path)
}

fn is_as_expected<T: Number>(device: &Device, path: LinearPath, budget: usize) {
    let data = peaked::<T>(|row| row % 5 == 2);
    let resident = Resident::new(device, &data, false);
    let (dz, left_out) = expected(&data, BOUND.into());
    assert!(left_out > 200 && left_out < 2000, "{left_out} pieces");
    let [d_x, d_w, d_b] = products_back(&data, &dz, true);
    let loss = filtering(BOUND, path).max_workspace_bytes(budget);
    let got = loss.forward_backward(device, &resident.input(true), 1.0).unwrap();
    near("grad_input", &host::<T>(&got.input), &d_x, T::OFF);
    near("grad_linear_weight", &host::<T>(&got.linear_weight), &d_w, T::OFF);
    near("grad_linear_bias", &host::<T>(got.linear_bias.as_ref().unwrap()), &d_b, T::OFF);
    // It is not what there is without a bound.
    let whole = loss.gradient_filter(None);
    let whole = whole.forward_backward(device, &resident.input(true), 1.0).unwrap();
    assert!(host::<T>(&whole.linear_weight) != host::<T>(&got.linear_weight));
    assert_eq!(whole.output.loss.item().unwrap(), got.output.loss.item().unwrap());
}

#[test]
fn pieces_below_the_bound_have_no_gradient() {
    is_as_expected::<f32>(&Device::cpu(), LinearPath::Auto, 1 << 26);
    is_as_expected::<bf16>(&Device::cpu(), LinearPath::Auto, 1 << 26);
    let device = card();
    is_as_expected::<f16>(&device, LinearPath::Auto, 1 << 26);
    // One slab, and one tile of classes a slab.
    let resident = Resident::new(&device, &Data::<bf16>::new(SIZES, true), false);
    let least = least(&device, &resident.input(true), LinearPath::Tiled);
    for budget in [1 << 26, least] {
        is_as_expected::<bf16>(&device, LinearPath::Tiled, budget);
    }
}

/// Gradients of hidden rows, classifier and bias that are added to what is there, with what may come with a loss.
fn with_options(device: &Device, bound: Option<f32>) -> [Vec<f64>; 3] {
    let data = peaked::<bf16>(|row| row % 7 == 3);
    let resident = Resident::new(device, &data, false);
    let [n, d, v] = SIZES;
    let weight: Vec<f32> = numbers(9, v).map(|x| (1.2 + x) as f32).collect();
    let weight = up(device, &weight, &[v]);
    let options = CrossEntropy::default()
        .reduction(Reduction::None)
        .softcap(Some(12.0))
        .logit_scale(1.5)
        .lse_square_scale(1e-3)
        .weight(weight.view());
    let given: Vec<Tensor> = (0..3)
        .map(|i| up(device, &numbers(20 + i, n).map(|x| x as f32).collect::<Vec<_>>(), &[n]))
        .collect();
    let upstream = CrossEntropyUpstream {
        grad_output: GradOutput::Tensor(given[0].view()),
        grad_logprob: GradOutput::Tensor(given[1].view()),
        grad_entropy: GradOutput::Tensor(given[2].view()),
    };
    let there = |seed, n: usize, shape: &[usize]| {
        let numbers: Vec<bf16> = numbers(seed, n).map(|x| bf16::from_f64(x / 64.0)).collect();
        up(device, &numbers, shape)
    };
    let mut d_x = there(30, n * d, &[n, d]);
    let mut d_w = there(31, v * d, &[v, d]);
    let mut d_b = there(32, v, &[v]);
    let gradients = LinearGradOut {
        input: Some(d_x.view_mut()),
        linear_weight: Some(d_w.view_mut()),
        linear_bias: Some(d_b.view_mut()),
        accumulate: true,
        accumulate_input: true,
        ..LinearGradOut::default()
    };
    let mut losses = up(device, &vec![0f32; n], &[n]);
    let out = CrossEntropyOut::loss(losses.view_mut());
    LinearCrossEntropy::from(options)
        .gradient_filter(bound)
        .forward_backward_into(device, &resident.input(true), upstream, gradients, out)
        .unwrap();
    [d_x, d_w, d_b].map(|t| host::<bf16>(&t))
}

#[test]
fn every_option_that_it_goes_with_agrees_with_the_cpu() {
    let [cpu, whole] = [Some(5e-3), None].map(|bound| with_options(&Device::cpu(), bound));
    let emulated = with_options(&card(), Some(5e-3));
    for (i, (got, cpu)) in emulated.iter().zip(&cpu).enumerate() {
        near(&format!("gradient {i}"), got, cpu, 2.0 * bf16::OFF);
    }
    assert!(whole[1] != cpu[1]);
}

/// As bits, of rows that count.
fn rows_of(values: &[f64], columns: usize, counts: impl Fn(usize) -> bool) -> Vec<u64> {
    let rows = (0..SIZES[0]).filter(|&row| counts(row));
    rows.flat_map(|row| values[row * columns..][..columns].iter().map(|v| v.to_bits())).collect()
}

#[test]
fn a_row_has_the_same_bits_whatever_others_are_ignored() {
    let device = card();
    let run = |bound: Option<f32>, ignored: &dyn Fn(usize) -> bool| {
        let data = peaked::<bf16>(ignored);
        let resident = Resident::new(&device, &data, false);
        let options = CrossEntropy::default().reduction(Reduction::None);
        let loss = LinearCrossEntropy::from(options).gradient_filter(bound).path(LinearPath::Tiled);
        let given = up(&device, &vec![0.5f32; SIZES[0]], &[SIZES[0]]);
        let got = loss.forward_backward(&device, &resident.input(true), given.view()).unwrap();
        [&got.output.loss, &got.output.lse]
            .map(host::<f32>)
            .into_iter()
            .chain([host::<bf16>(&got.input)])
            .collect::<Vec<_>>()
    };
    type Ignored = fn(usize) -> bool;
    let some: [Ignored; 5] = [
        |row| row % 2 == 1,
        |row| row % 2 == 1 || row < 60,
        |row| row % 2 == 1 || row > 20,
        |row| row != 128,
        |_| true,
    ];
    for bound in [None, Some(BOUND)] {
        let all = run(bound, &|_| false);
        for ignored in some {
            let got = run(bound, &ignored);
            for ((got, all), columns) in got.iter().zip(&all).zip([1, 1, SIZES[1]]) {
                let counts = |row| !ignored(row);
                assert!(
                    rows_of(got, columns, counts) == rows_of(all, columns, counts),
                    "{bound:?}"
                );
                assert!(rows_of(got, columns, ignored).iter().all(|&bits| bits == 0));
            }
        }
    }
}

#[test]
fn what_it_does_not_go_with_is_named() {
    let device = card();
    let data = Data::<bf16>::new([9, 8, 300], true);
    let resident = Resident::new(&device, &data, false);
    let input = resident.input(false);
    let error = |loss: LinearCrossEntropy<'_>| {
        loss.forward_backward(&device, &input, 1.0).unwrap_err().to_string()
    };
    for bound in [-1.0, 1.5, f32::NAN] {
        assert!(error(filtering(bound, LinearPath::Auto)).contains("gradient_filter"));
    }
    let smoothed = LinearCrossEntropy::from(CrossEntropy::default().label_smoothing(0.1));
    let said = error(smoothed.gradient_filter(Some(BOUND)));
    assert!(said.contains("gradient_filter") && said.contains("label_smoothing 0.1"), "{said}");
    let said = error(filtering(BOUND, LinearPath::Chunked));
    assert!(said.contains("gradient_filter") && said.contains("path tiled"), "{said}");

    let auto = filtering(BOUND, LinearPath::Auto);
    assert_eq!(auto.plan(&device, &input, true).unwrap().path, LinearPath::Tiled);
    let forward = auto.plan(&device, &input, false).unwrap().path;
    let without = LinearCrossEntropy::default();
    assert_eq!(forward, without.plan(&device, &input, false).unwrap().path);
    let wide = Resident::new(&device, &Data::<f32>::new([9, 8, 300], true), false);
    let said = auto.plan(&device, &wide.input(false), true).unwrap_err().to_string();
    assert!(said.contains("gradient_filter") && said.contains("f16 or bf16"), "{said}");

    let soft = Resident::new(&device, &data, true);
    let said = auto.plan(&device, &soft.input(false), true).unwrap_err().to_string();
    assert!(said.contains("gradient_filter") && said.contains("probabilities"), "{said}");
}
