//! Cross entropy of hidden states and a classifier on emulated cards: chunks, budgets, who waits, what is found on
//! the device. The oracle is the CPU's loss over logits that the test multiplies out in f64.

mod filter;
mod ignored;
mod plan;
mod results;
mod tiled;

use crate::harness::least_of;
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

/// A mean with factors of rows, by the path that a budget leaves, against the same by rows that stand alone.
fn agrees<T: Number>(
    sizes: [usize; 3],
    (options, weight): (&CrossEntropy<'_>, Option<&[f32]>),
    (path, budget): (LinearPath, usize),
) {
    let (data, device) = (Data::<T>::new(sizes, true), card());
    let resident = Resident::new(&device, &data, false);
    let [n, _, v] = sizes;
    let loss = LinearCrossEntropy::from(options.clone()).max_workspace_bytes(budget).path(path);
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
        let by = (LinearPath::Chunked, budget);
        for options in [(&weighted, Some(&weight[..])), (&squared, None)] {
            agrees::<f32>([37, 21, CLASSES], options, by);
            agrees::<bf16>([37, 21, CLASSES], options, by);
            agrees::<f16>([37, 24, CLASSES], options, by);
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
        let least = least(&device, &resident.input(true), LinearPath::Chunked);
        let one = run(least);
        assert_eq!(one.0, 1);
        let budgets = (1..).map(|turn| least + turn * least / 4);
        let some = budgets.map(run).find(|(chunk, _)| *chunk > 1).unwrap();
        assert!(some.0 < sizes[0], "{}", some.0);
        assert_eq!(one.1, all.1);
        assert_eq!(some.1, all.1);
    }
}

/// The least budget, as the error names it.
fn least(device: &Device, input: &LinearInput<'_>, path: LinearPath) -> usize {
    let loss = LinearCrossEntropy::default().max_workspace_bytes(1).path(path);
    least_of(&loss.forward_backward(device, input, 1.0).unwrap_err())
}

#[test]
fn a_budget_is_kept_to_and_the_least_one_does() {
    fn keeps<T: Number>(sizes: [usize; 3], (soft, path): (bool, LinearPath)) {
        let data = Data::<T>::new(sizes, false);
        let few = {
            let device = card();
            let resident = Resident::new(&device, &data, soft);
            least(&device, &resident.input(true), path)
        };
        for budget in [few, few + few / 2, 4 * few, 1 << 26] {
            let device = card();
            let resident = Resident::new(&device, &data, soft);
            let input = resident.input(true);
            let options = CrossEntropy::default().label_smoothing(0.1);
            let loss = LinearCrossEntropy::from(options).max_workspace_bytes(budget).path(path);
            let plan = loss.plan(&device, &input, true).unwrap();
            assert_eq!(plan.path, path);
            assert!(plan.workspace_bytes <= budget, "{plan:?} of {budget}");
            device.trim();
            let got = loss.forward_backward(&device, &input, 1.0).unwrap();
            assert!(got.output.loss.item().unwrap().is_finite());
            // All that the call has taken lies in the pool now.
            let taken = device.trim();
            assert!(taken > 0 && taken <= plan.workspace_bytes, "{taken} of {plan:?}");
        }
    }
    let [chunked, tiled] = [LinearPath::Chunked, LinearPath::Tiled].map(|path| (false, path));
    keeps::<f32>([23, 12, 501], chunked);
    keeps::<bf16>([23, 12, 501], chunked);
    keeps::<f16>([23, 12, 501], chunked);
    keeps::<bf16>([11, 8, 6000], chunked);
    keeps::<bf16>([23, 12, 501], (true, LinearPath::Chunked));
    keeps::<f32>([11, 12, 5001], (true, LinearPath::Chunked));
    keeps::<bf16>([140, 12, 1301], tiled);
    keeps::<f16>([23, 13, 701], tiled);
}
