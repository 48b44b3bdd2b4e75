//! Cross entropy of hidden states and a classifier on emulated cards: chunks, budgets, who waits, what is found on
//! the device. The oracle is the CPU's loss over logits that the test multiplies out in f64.

use warploss::emulator::Description;
use warploss::{
    CrossEntropy, CrossEntropyOut, CrossEntropyUpstream, Device, Element, GradOutput,
    LinearCrossEntropy, LinearGradOut, LinearInput, LinearPath, Reduction, Tensor, TensorMut,
    TensorRef, TopKOut, bf16, f16,
};

/// A type of inputs.
trait Number: Element + Copy {
    /// What a result may be off by, of its own size.
    const OFF: f64;
    fn of(v: f64) -> Self;
    fn wide(self) -> f64;
}
impl Number for f32 {
    const OFF: f64 = 1e-5;
    fn of(v: f64) -> f32 {
        v as f32
    }
    fn wide(self) -> f64 {
        self.into()
    }
}
impl Number for bf16 {
    const OFF: f64 = 1.0 / 256.0;
    fn of(v: f64) -> bf16 {
        bf16::from_f64(v)
    }
    fn wide(self) -> f64 {
        self.into()
    }
}
impl Number for f16 {
    const OFF: f64 = 1.0 / 2048.0;
    fn of(v: f64) -> f16 {
        f16::from_f64(v)
    }
    fn wide(self) -> f64 {
        self.into()
    }
}

/// Numbers in [-1, 1).
fn numbers(seed: u64, n: usize) -> impl Iterator<Item = f64> {
    let mut state = seed;
    (0..n).map(move |_| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f64 / (1 << 23) as f64 - 1.0
    })
}

/// Rows, some of them ignored, whose hidden states, temperatures and weights are then NaN.
struct Data<T> {
    sizes: [usize; 3],
    x: Vec<T>,
    w: Vec<T>,
    b: Vec<T>,
    target: Vec<i64>,
    tau: Vec<f32>,
    u: Vec<f32>,
    probabilities: Vec<T>,
}

impl<T: Number> Data<T> {
    fn new(sizes: [usize; 3], ignored: bool) -> Data<T> {
        let [n, d, v] = sizes;
        let make = |seed, n, scale: f64| numbers(seed, n).map(|x| T::of(scale * x)).collect();
        let mut data = Data {
            sizes,
            x: make(1, n * d, 2.0),
            w: make(2, v * d, 1.0),
            b: make(3, v, 2.0),
            target: (0..n).map(|row| (row * 7919 % v) as i64).collect(),
            tau: numbers(4, n).map(|x| (1.5 + x) as f32).collect(),
            u: numbers(5, n).map(|x| (1.0 + x) as f32).collect(),
            probabilities: numbers(6, n * v).map(|x| T::of((1.0 + x) / v as f64)).collect(),
        };
        data.u[1] = 0.0;
        for row in (0..n).filter(|row| ignored && row % 5 == 2) {
            data.target[row] = -100;
            data.x[row * d..][..d].fill(T::of(f64::NAN));
            (data.tau[row], data.u[row]) = (f32::NAN, -1.0);
        }
        data
    }

    /// z of each row that counts, f32 as the oracle takes it.
    fn logits(&self, [bias, tau]: [bool; 2]) -> Vec<f32> {
        let [n, d, v] = self.sizes;
        let mut z = vec![0f32; n * v];
        for row in (0..n).filter(|&row| self.target[row] >= 0) {
            for class in 0..v {
                let (x, w) = (&self.x[row * d..][..d], &self.w[class * d..][..d]);
                let sum: f64 = x.iter().zip(w).map(|(x, w)| x.wide() * w.wide()).sum();
                let sum = sum + if bias { self.b[class].wide() } else { 0.0 };
                let by = if tau { self.tau[row].into() } else { 1.0 };
                z[row * v + class] = (sum / by) as f32;
            }
        }
        z
    }
}

/// Inputs on a device.
struct Resident {
    x: Tensor,
    w: Tensor,
    b: Tensor,
    target: Tensor,
    tau: Tensor,
    u: Tensor,
}

fn up<T: Element>(device: &Device, data: &[T], shape: &[usize]) -> Tensor {
    device.upload(TensorRef::new(data, shape).unwrap()).unwrap()
}

impl Resident {
    fn new<T: Number>(device: &Device, data: &Data<T>, soft: bool) -> Resident {
        let [n, d, v] = data.sizes;
        Resident {
            x: up(device, &data.x, &[n, d]),
            w: up(device, &data.w, &[v, d]),
            b: up(device, &data.b, &[v]),
            target: match soft {
                true => up(device, &data.probabilities, &[n, v]),
                false => up(device, &data.target, &[n]),
            },
            tau: up(device, &data.tau, &[n]),
            u: up(device, &data.u, &[n]),
        }
    }

    fn input(&self, factors: bool) -> LinearInput<'_> {
        let input = LinearInput::new(self.x.view(), self.w.view(), self.target.view());
        let input = input.linear_bias(self.b.view());
        match factors {
            true => input.temperature(self.tau.view()).row_weight(self.u.view()),
            false => input,
        }
    }
}

fn card() -> Device {
    Device::emulated(Description::h100(), Some(3)).unwrap()
}

fn host<T: Number>(tensor: &Tensor) -> Vec<f64> {
    tensor.to_host().unwrap().as_slice::<T>().unwrap().iter().map(|v| v.wide()).collect()
}

fn near(what: &str, got: &[f64], wanted: &[f64], off: f64) {
    assert_eq!(got.len(), wanted.len(), "{what}");
    let largest = wanted.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
    for (i, (got, wanted)) in got.iter().zip(wanted).enumerate() {
        let far = off * wanted.abs() + 3e-5 * largest + 1e-7;
        assert!((got - wanted).abs() <= far, "{what}[{i}]: {got}, not {wanted} ± {far}");
    }
}

/// Gradients of hidden rows, classifier and bias, of those of logits over τ.
fn products_back<T: Number>(data: &Data<T>, dz: &[f32], tau: bool) -> [Vec<f64>; 3] {
    let [n, d, v] = data.sizes;
    let mut out = [vec![0.0; n * d], vec![0.0; v * d], vec![0.0; v]];
    for row in (0..n).filter(|&row| data.target[row] >= 0) {
        for class in 0..v {
            let by = if tau { data.tau[row].into() } else { 1.0 };
            let slope = f64::from(dz[row * v + class]) / by;
            out[2][class] += slope;
            for i in 0..d {
                out[0][row * d + i] += slope * data.w[class * d + i].wide();
                out[1][class * d + i] += slope * data.x[row * d + i].wide();
            }
        }
    }
    out
}

/// A mean with factors of rows against the same by rows that stand alone.
fn agrees<T: Number>(
    sizes: [usize; 3],
    (options, weight): (&CrossEntropy<'_>, Option<&[f32]>),
    budget: usize,
) {
    let (data, device) = (Data::<T>::new(sizes, true), card());
    let resident = Resident::new(&device, &data, false);
    let [n, _, v] = sizes;
    let loss = LinearCrossEntropy::from(options.clone()).max_workspace_bytes(budget);
    let got = loss.forward_backward(&device, &resident.input(true), 0.5).unwrap();

    let alone = options.clone().reduction(Reduction::None);
    let kept = |&row: &usize| data.target[row] >= 0;
    let of_class =
        |row: usize| weight.map_or(1.0, |weight| f64::from(weight[data.target[row] as usize]));
    let of_row = |row: usize| f64::from(data.u[row]) * of_class(row);
    let all: f64 = (0..n).filter(kept).map(of_row).sum();
    let given: Vec<f32> = (0..n)
        .map(|row| if kept(&row) { (0.5 * f64::from(data.u[row]) / all) as f32 } else { 0.0 })
        .collect();
    let mut z = data.logits([true, true]);
    let target = TensorRef::new(&data.target, &[n]).unwrap();
    let [mut losses, mut lse] = [(); 2].map(|()| vec![0f32; n]);
    let out = CrossEntropyOut {
        lse: Some(TensorMut::new(&mut lse, &[n]).unwrap()),
        ..CrossEntropyOut::loss(TensorMut::new(&mut losses, &[n]).unwrap())
    };
    let upstream = GradOutput::Tensor(TensorRef::new(&given, &[n]).unwrap());
    let logits = TensorMut::new(&mut z, &[n, v]).unwrap();
    alone.forward_backward_in_place(&Device::cpu(), logits, target, upstream, out).unwrap();

    let sum: f64 = (0..n).filter(kept).map(|r| f64::from(losses[r]) * f64::from(data.u[r])).sum();
    near("loss", &host::<f32>(&got.output.loss), &[sum / all], 1e-5);
    let lse: Vec<f64> = lse.into_iter().map(f64::from).collect();
    near("lse", &host::<f32>(&got.output.lse), &lse, 1e-5);
    let [d_x, d_w, d_b] = products_back(&data, &z, true);
    near("grad_input", &host::<T>(&got.input), &d_x, T::OFF);
    near("grad_linear_weight", &host::<T>(&got.linear_weight), &d_w, T::OFF);
    near("grad_linear_bias", &host::<T>(got.linear_bias.as_ref().unwrap()), &d_b, T::OFF);
}

const CLASSES: usize = 331;

#[test]
fn every_dtype_by_every_option_in_several_chunks() {
    let weight: Vec<f32> = numbers(9, CLASSES).map(|x| (1.2 + x) as f32).collect();
    let weighted = CrossEntropy::default()
        .weight(TensorRef::new(&weight, &[CLASSES]).unwrap())
        .label_smoothing(0.1)
        .softcap(Some(15.0))
        .logit_scale(1.25);
    let squared = CrossEntropy::default().lse_square_scale(1e-2);
    for budget in [100_000, 1 << 20] {
        for options in [(&weighted, Some(&weight[..])), (&squared, None)] {
            agrees::<f32>([37, 21, CLASSES], options, budget);
            agrees::<bf16>([37, 21, CLASSES], options, budget);
            agrees::<f16>([37, 24, CLASSES], options, budget);
        }
    }
}

#[test]
fn rows_give_the_same_bits_whatever_their_chunk() {
    for sizes in [[29, 16, CLASSES], [9, 8, 5003]] {
        let (data, device) = (Data::<f32>::new(sizes, true), card());
        let resident = Resident::new(&device, &data, false);
        let options = CrossEntropy::default().reduction(Reduction::None).label_smoothing(0.1);
        let run = |budget| {
            let loss = LinearCrossEntropy::from(options.clone()).max_workspace_bytes(budget);
            let input = resident.input(true);
            let chunk = loss.plan(&device, &input, true).unwrap().chunk_rows;
            let given = vec![0.3f32; sizes[0]];
            let given = up(&device, &given, &[sizes[0]]);
            let got = loss.forward_backward(&device, &input, given.view()).unwrap();
            let rows = [&got.output.loss, &got.output.lse, &got.input].map(host::<f32>);
            let bits = rows.map(|rows| rows.iter().map(|v| v.to_bits()).collect::<Vec<_>>());
            (chunk, bits)
        };
        let all = run(1 << 30);
        assert_eq!(all.0, sizes[0]);
        let least = least(&device, &resident.input(true));
        let one = run(least);
        assert_eq!(one.0, 1);
        let some = run(least + (least / 4).max(20_000));
        assert!(some.0 > 1 && some.0 < sizes[0], "{}", some.0);
        assert_eq!(one.1, all.1);
        assert_eq!(some.1, all.1);
    }
}

/// The least budget, as the error names it.
fn least(device: &Device, input: &LinearInput<'_>) -> usize {
    let loss = LinearCrossEntropy::default().max_workspace_bytes(1);
    let error = loss.forward_backward(device, input, 1.0).unwrap_err().to_string();
    let number = error.split("at least ").nth(1).and_then(|rest| rest.split(' ').next());
    number.unwrap_or_else(|| panic!("{error}")).parse().unwrap()
}

#[test]
fn a_budget_is_kept_to_and_the_least_one_does() {
    fn keeps<T: Number>(sizes: [usize; 3], soft: bool) {
        let data = Data::<T>::new(sizes, false);
        let few = {
            let device = card();
            let resident = Resident::new(&device, &data, soft);
            least(&device, &resident.input(true))
        };
        for budget in [few, few + few / 2, 4 * few, 1 << 26] {
            let device = card();
            let resident = Resident::new(&device, &data, soft);
            let input = resident.input(true);
            let options = CrossEntropy::default().label_smoothing(0.1);
            let loss = LinearCrossEntropy::from(options).max_workspace_bytes(budget);
            let plan = loss.plan(&device, &input, true).unwrap();
            assert_eq!(plan.path, LinearPath::Chunked);
            assert!(plan.workspace_bytes <= budget, "{plan:?} of {budget}");
            device.trim();
            let got = loss.forward_backward(&device, &input, 1.0).unwrap();
            assert!(got.output.loss.item().unwrap().is_finite());
            // All that the call has taken lies in the pool now.
            let taken = device.trim();
            assert!(taken > 0 && taken <= plan.workspace_bytes, "{taken} of {plan:?}");
        }
    }
    keeps::<f32>([23, 12, 501], false);
    keeps::<bf16>([23, 12, 501], false);
    keeps::<f16>([23, 12, 501], false);
    keeps::<bf16>([11, 8, 6000], false);
    keeps::<bf16>([23, 12, 501], true);
    keeps::<f32>([11, 12, 5001], true);
}

#[test]
fn probabilities_and_their_gradient() {
    fn agrees<T: Number>(budget: usize) {
        let sizes @ [n, _, v] = [13, 9, 307];
        let (data, device) = (Data::<T>::new(sizes, false), card());
        let resident = Resident::new(&device, &data, true);
        let options = CrossEntropy::default().reduction(Reduction::Sum).label_smoothing(0.1);
        let loss = LinearCrossEntropy::from(options.clone()).max_workspace_bytes(budget);
        let zeros = |shape: &[usize]| up(&device, &vec![T::of(0.0); shape.iter().product()], shape);
        let [mut d_x, mut d_w] = [zeros(&[n, sizes[1]]), zeros(&[v, sizes[1]])];
        let mut d_q = zeros(&[n, v]);
        let mut total = up(&device, &[0f32], &[]);
        let gradients = LinearGradOut {
            input: Some(d_x.view_mut()),
            linear_weight: Some(d_w.view_mut()),
            target: Some(d_q.view_mut()),
            ..LinearGradOut::default()
        };
        let out = CrossEntropyOut::loss(total.view_mut());
        loss.forward_backward_into(&device, &resident.input(true), 0.5, gradients, out).unwrap();

        let alone = options.reduction(Reduction::None);
        let mut z = data.logits([true, true]);
        let q: Vec<f32> = data.probabilities.iter().map(|q| q.wide() as f32).collect();
        let given: Vec<f32> = data.u.iter().map(|u| 0.5 * u).collect();
        let mut losses = vec![0f32; n];
        let mut of_q = vec![0f32; n * v];
        let gradients = warploss::CrossEntropyGradients {
            logits: TensorMut::new(&mut z, &[n, v]).unwrap(),
            target: Some(TensorMut::new(&mut of_q, &[n, v]).unwrap()),
        };
        let out = CrossEntropyOut::loss(TensorMut::new(&mut losses, &[n]).unwrap());
        alone
            .forward_backward_in_place(
                &Device::cpu(),
                gradients,
                TensorRef::new(&q, &[n, v]).unwrap(),
                GradOutput::Tensor(TensorRef::new(&given, &[n]).unwrap()),
                out,
            )
            .unwrap();
        let wide = |v: &[f32]| v.iter().map(|&v| v.into()).collect::<Vec<f64>>();
        let sum = losses.iter().zip(&data.u).map(|(l, u)| f64::from(*l) * f64::from(*u)).sum();
        near("loss", &host::<f32>(&total), &[sum], 1e-5);
        let [of_x, of_w, _] = products_back(&data, &z, true);
        near("grad_input", &host::<T>(&d_x), &of_x, T::OFF);
        near("grad_linear_weight", &host::<T>(&d_w), &of_w, T::OFF);
        near("grad_target", &host::<T>(&d_q), &wide(&of_q), T::OFF);
    }
    for budget in [100_000, 1 << 20] {
        agrees::<f32>(budget);
        agrees::<bf16>(budget);
    }
}

#[test]
fn ranks_and_numbers_of_rows_with_their_gradients() {
    let sizes @ [n, d, v] = [19, 10, 203];
    let (data, device) = (Data::<f32>::new(sizes, true), card());
    let resident = Resident::new(&device, &data, false);
    let given: Vec<Vec<f32>> =
        (0..3).map(|i| numbers(20 + i, n).map(|x| x as f32).collect()).collect();
    let options = CrossEntropy::default().reduction(Reduction::None);
    // By a device and logits over τ, or by hidden rows.
    let run = |linear: bool| {
        let device = if linear { &device } else { &Device::cpu() };
        let zeros = || up(device, &vec![0f32; n], &[n]);
        let [mut loss, mut logprob, mut entropy] = [zeros(), zeros(), zeros()];
        let mut top = up(device, &vec![0f32; 3 * n], &[n, 3]);
        let count = || up(device, &vec![0i64; n], &[n]);
        let [mut rank, mut argmax] = [count(), count()];
        let mut classes = up(device, &vec![0i64; 3 * n], &[n, 3]);
        let upstreams: Vec<Tensor> = given.iter().map(|g| up(device, g, &[n])).collect();
        let upstream = CrossEntropyUpstream {
            grad_output: GradOutput::Tensor(upstreams[0].view()),
            grad_logprob: GradOutput::Tensor(upstreams[1].view()),
            grad_entropy: GradOutput::Tensor(upstreams[2].view()),
        };
        let mut d_x = up(device, &vec![0f32; n * d], &[n, d]);
        let mut z = data.logits([true, true]);
        let out = CrossEntropyOut {
            rank: Some(rank.view_mut()),
            argmax: Some(argmax.view_mut()),
            logprob: Some(logprob.view_mut()),
            entropy: Some(entropy.view_mut()),
            top_k: Some(TopKOut { classes: classes.view_mut(), logprob: top.view_mut() }),
            ..CrossEntropyOut::loss(loss.view_mut())
        };
        let gradient = if linear {
            let gradients =
                LinearGradOut { input: Some(d_x.view_mut()), ..LinearGradOut::default() };
            let input = LinearInput { row_weight: None, ..resident.input(true) };
            LinearCrossEntropy::from(options.clone())
                .max_workspace_bytes(70_000)
                .forward_backward_into(device, &input, upstream, gradients, out)
                .unwrap();
            host::<f32>(&d_x)
        } else {
            let target = TensorRef::new(&data.target, &[n]).unwrap();
            let logits = TensorMut::new(&mut z, &[n, v]).unwrap();
            options.forward_backward_in_place(device, logits, target, upstream, out).unwrap();
            let [d_x, ..] = products_back(&data, &z, true);
            d_x
        };
        let indices = [rank, argmax, classes].map(|t| t.to_host().unwrap());
        let indices = indices.map(|t| t.as_slice::<i64>().unwrap().to_vec());
        ([loss, logprob, entropy, top].map(|t| host::<f32>(&t)), indices, gradient)
    };
    let (linear, plain) = (run(true), run(false));
    for (got, wanted) in linear.0.iter().zip(&plain.0) {
        near("numbers of rows", got, wanted, 1e-5);
    }
    assert_eq!(linear.1, plain.1);
    near("grad_input", &linear.2, &plain.2, 1e-5);
}

#[test]
fn what_is_wrong_with_a_row_is_found_on_the_device() {
    let sizes = [7, 4, 11];
    let wrong = |change: &dyn Fn(&mut Data<f32>)| {
        let (mut data, device) = (Data::<f32>::new(sizes, true), card());
        change(&mut data);
        let resident = Resident::new(&device, &data, false);
        let loss = LinearCrossEntropy::default();
        let result = loss.forward_backward(&device, &resident.input(true), 1.0).unwrap();
        match device.check() {
            Ok(()) => {
                assert!(result.output.loss.item().unwrap().is_finite());
                String::new()
            }
            Err(error) => error.to_string(),
        }
    };
    assert_eq!(wrong(&|_| ()), "");
    for (value, text) in [(0.0, "0"), (-1.0, "-1"), (f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
        let error = wrong(&|data| data.tau[3] = value);
        assert!(
            error.contains("temperature") && error.contains(&format!("{text} at row 3")),
            "{error}"
        );
    }
    for (value, text) in [(-0.5, "-0.5"), (f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
        let error = wrong(&|data| data.u[4] = value);
        assert!(
            error.contains("row_weight") && error.contains(&format!("{text} at row 4")),
            "{error}"
        );
    }
    let error = wrong(&|data| data.target[5] = 11);
    assert!(error.contains("target") && error.contains("row 5"), "{error}");
    // The first row that is wrong is the one that is told of.
    let error = wrong(&|data| (data.target[5], data.u[3], data.tau[4]) = (11, -1.0, 0.0));
    assert!(error.contains("row_weight") && error.contains("row 3"), "{error}");
}

#[test]
fn nobody_waits_and_a_graph_gives_the_same_bits() {
    let (data, device) = (Data::<bf16>::new([21, 16, 260], true), card());
    let resident = Resident::new(&device, &data, false);
    let loss = LinearCrossEntropy::default().max_workspace_bytes(80_000);
    let buffers = || {
        let of = |t: &Tensor| {
            let elements = t.view().elements();
            up(&device, &vec![bf16::from_f32(0.25); elements], &t.view().shape())
        };
        [of(&resident.x), of(&resident.w), of(&resident.b), up(&device, &[0f32], &[])]
    };
    let call = |[x, w, b, total]: &mut [Tensor; 4]| {
        let gradients = LinearGradOut {
            input: Some(x.view_mut()),
            linear_weight: Some(w.view_mut()),
            linear_bias: Some(b.view_mut()),
            accumulate: true,
            accumulate_input: true,
            target: None,
        };
        let out = CrossEntropyOut::loss(total.view_mut());
        loss.forward_backward_into(&device, &resident.input(true), 1.0, gradients, out)
    };
    let mut plain = buffers();
    call(&mut plain).unwrap();
    let before = device.driver_calls().unwrap();
    call(&mut buffers()).unwrap();
    assert_eq!(device.driver_calls().unwrap().waits, before.waits);
    let mut captured = buffers();
    device.capture(|| call(&mut captured)).unwrap().replay().unwrap();
    for (plain, captured) in plain.iter().zip(&captured).take(3) {
        assert_eq!(host::<bf16>(plain), host::<bf16>(captured));
    }
    assert_eq!(plain[3].item().unwrap(), captured[3].item().unwrap());
    // What was there counts: without it the same gradients.
    let fresh = loss.forward_backward(&device, &resident.input(true), 1.0).unwrap();
    for (added, fresh) in [(&plain[0], &fresh.input), (&plain[1], &fresh.linear_weight)] {
        for (added, fresh) in host::<bf16>(added).iter().zip(host::<bf16>(fresh)) {
            let far = (0.25 + 2.0 * fresh.abs()) * bf16::OFF;
            assert!((added - (fresh + 0.25)).abs() <= far, "{added}, not 0.25 more than {fresh}");
        }
    }
}

#[test]
fn no_rows_one_class_and_a_path_that_is_not_there() {
    let device = card();
    let data = Data::<f32>::new([3, 2, 1], false);
    let resident = Resident::new(&device, &data, false);
    let got = LinearCrossEntropy::default().forward_backward(&device, &resident.input(false), 1.0);
    let got = got.unwrap();
    assert_eq!(got.output.loss.item().unwrap(), 0.0);
    assert_eq!(host::<f32>(&got.linear_weight), [0.0; 2]);

    let none = up::<f32>(&device, &[], &[0, 2]);
    let targets = up::<i64>(&device, &[], &[0]);
    let input = LinearInput::new(none.view(), resident.w.view(), targets.view());
    let got = LinearCrossEntropy::default().forward_backward(&device, &input, 1.0).unwrap();
    assert!(got.output.loss.item().unwrap().is_nan());
    assert_eq!(host::<f32>(&got.linear_weight), [0.0; 2]);

    let tiled = LinearCrossEntropy::default().path(LinearPath::Tiled);
    let error = tiled.forward(&device, &resident.input(false)).unwrap_err().to_string();
    assert!(error.contains("path") && error.contains("tiled"), "{error}");
}
