//! Cross entropy over logits that are products, by every option, against the f64 reference.

use super::*;
use crate::base::dtype::DType;
use crate::base::host::Element;
use crate::base::random::unit;
use crate::check::reference;
use crate::cuda::driver::product::Panel;
use crate::cuda::emulated::driver::Emulated;
use crate::cuda::matrix::linear_softmax::tiles::{Kernels, Products, Tiles};
use crate::cuda::stream::Stream;
use crate::emulator::Description;
use half::{bf16, f16};
use std::sync::Arc;

/// Three splits, the last of which ends within a tile; rows of two blocks.
const CLASSES: usize = 1100;
const ROWS: usize = 131;

/// A weight's type, and how it is made.
trait Weight: Element + Into<f64> {
    fn of(v: f64) -> Self;
}
impl Weight for bf16 {
    fn of(v: f64) -> bf16 {
        bf16::from_f64(v)
    }
}
impl Weight for f16 {
    fn of(v: f64) -> f16 {
        f16::from_f64(v)
    }
}

/// What kernels gave.
struct Given {
    loss: Vec<f32>,
    z_loss: Vec<f32>,
    lse: Vec<f32>,
    d_hidden: Vec<f32>,
    d_weight: Vec<f32>,
}

fn given<W: Weight>(
    options: &CrossEntropy<'_>,
    (hidden, weight): (&[f32], &[W]),
    target: &[i64],
    grad_output: GradOutput<'_>,
) -> Given {
    let driver = Arc::new(Emulated::new(Description::h100(), None).unwrap());
    let cuda = Cuda::new(&Arc::new(Stream::new(driver).unwrap()));
    let width = hidden.len() / ROWS;
    let shape = vec![0f32; ROWS * CLASSES];
    let logits = TensorRef::new(&shape, &[ROWS, CLASSES]).unwrap();
    let target = TensorRef::new(target, &[ROWS]).unwrap();
    let checked = options.check_classes(&logits, &target).unwrap();
    let [mut loss, mut z_loss, mut lse] = [(); 3].map(|()| vec![f32::NAN; ROWS]);
    let mut d_hidden = vec![f32::NAN; hidden.len()];
    let mut d_weight = vec![f32::NAN; weight.len()];
    {
        let out = |name, data, shape: &[usize]| {
            cuda.output(name, TensorMut::new(data, shape).unwrap(), false).unwrap()
        };
        let loss = out("loss", &mut loss[..], &[ROWS]);
        let z_loss = out("z_loss", &mut z_loss[..], &[ROWS]);
        let lse = out("lse", &mut lse[..], &[ROWS]);
        let d_hidden = out("grad_input", &mut d_hidden[..], &[ROWS, width]);
        let d_weight = out("grad_weight", &mut d_weight[..], &[CLASSES, width]);
        let batch = Batch::new(&cuda, &checked, &grad_output).unwrap();
        let hidden = TensorRef::new(hidden, &[ROWS, width]).unwrap();
        let hidden = cuda.input("input", hidden).unwrap();
        let weight = TensorRef::new(weight, &[CLASSES, width]).unwrap();
        let weight = cuda.input("weight", weight).unwrap();

        let mut rows = batch.args(&checked).unwrap();
        let out = &mut rows.out;
        (out.loss, out.z_loss, out.lse) = (loss.address, z_loss.address, lse.address);
        out.whole = 1;
        let packed = |address, dtype| Panel::packed(address, dtype, width);
        let products = Products {
            rows,
            hidden: packed(hidden.address, DType::F32),
            weight: packed(weight.address, weight.dtype),
            width,
            count: 0,
            from: 0,
        };
        let full = batch.loss == Loss::CrossEntropyFull;
        let kernels = Kernels::of(weight.dtype, width, full).unwrap();
        let tiles = Tiles::new(&cuda, kernels, [ROWS, CLASSES, width], 1 << 30, true).unwrap();
        let to_weight = packed(d_weight.address, DType::F32);
        // SAFETY: inputs and outputs were made of tensors of these sizes above, and live on.
        unsafe {
            tiles.forward(&products).unwrap();
            let to_hidden = packed(d_hidden.address, DType::F32);
            tiles.back(&products, to_hidden, Some((to_weight, false))).unwrap();
        }
        cuda.read_back([loss, z_loss, lse, d_hidden, d_weight].map(Some)).unwrap();
    }
    Given { loss, z_loss, lse, d_hidden, d_weight }
}

/// A matrix product in f64, and the sum of its terms' sizes.
fn product(
    [n, m, k]: [usize; 3],
    a: impl Fn(usize, usize) -> f64,
    b: impl Fn(usize, usize) -> f64,
) -> Vec<(f64, f64)> {
    let one = |at: usize| {
        let term = |i| a(at / m, i) * b(i, at % m);
        (0..k).map(term).fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs()))
    };
    (0..n * m).map(one).collect()
}

fn near(what: &str, got: &[f32], wanted: impl IntoIterator<Item = (f64, f64)>) {
    let mut count = 0;
    for (at, (&got, (wanted, size))) in got.iter().zip(wanted).enumerate() {
        let far = 6e-5 * (size + wanted.abs()) + 1e-30;
        assert!(
            (f64::from(got) - wanted).abs() <= far,
            "{what}[{at}]: {got}, not {wanted} ± {far}"
        );
        count += 1;
    }
    assert_eq!(count, got.len(), "{what}");
}

fn agrees<W: Weight>(what: &str, options: &CrossEntropy<'_>, grad: &[f32], width: usize) {
    let mut drawn = 0;
    let mut number = || {
        drawn += 1;
        2.0 * unit(7, drawn) - 1.0
    };
    let hidden: Vec<f32> = (0..ROWS * width).map(|_| (3.0 * number()) as f32).collect();
    let weight: Vec<W> = (0..CLASSES * width).map(|_| W::of(number())).collect();
    let target: Vec<i64> = (0..ROWS)
        .map(|row| if row % 9 == 4 { options.ignore_index } else { (row * 7919 % CLASSES) as i64 })
        .collect();
    let tensor;
    let grad_output = match grad {
        [one] => GradOutput::Number(*one),
        many => {
            tensor = TensorRef::new(many, &[ROWS]).unwrap();
            GradOutput::Tensor(tensor)
        }
    };
    let got = given(options, (&hidden, &weight), &target, grad_output);

    let h = |row: usize, i: usize| f64::from(hidden[row * width + i]);
    let w = |class: usize, i: usize| -> f64 { weight[class * width + i].into() };
    let logits = product([ROWS, CLASSES, width], h, |i, class| w(class, i));
    let logits: Vec<f64> = logits.into_iter().map(|(z, _)| z).collect();
    let shape = [ROWS, CLASSES];
    let grad: Vec<f64> = grad.iter().map(|&g| f64::from(g)).collect();
    let wanted = reference::cross_entropy(options, &shape, &logits, &target, &grad);
    let by_row = options.clone().reduction(Reduction::None);
    let ones = vec![1.0; ROWS];
    let rows = reference::cross_entropy(&by_row, &shape, &logits, &target, &ones);
    // Logits of two parts are good to some 2^-16 of their terms.
    let sized = |v: &[f64], size: f64| v.iter().map(move |&v| (v, size)).collect::<Vec<_>>();
    let scale = f64::from(options.logit_scale).max(1.0);
    near(&format!("{what}: loss"), &got.loss, sized(&rows.loss, 20.0 * scale));
    near(&format!("{what}: z_loss"), &got.z_loss, sized(&rows.z_loss, 1.0 * scale));
    near(&format!("{what}: lse"), &got.lse, sized(&rows.lse, 10.0 * scale));
    let g = |row: usize, class: usize| wanted.grad_logits[row * CLASSES + class];
    let slope = 10.0 * scale;
    let large = |v: Vec<(f64, f64)>| v.into_iter().map(move |(v, size)| (v, slope * size));
    let d_hidden = product([ROWS, width, CLASSES], g, w);
    near(&format!("{what}: hidden"), &got.d_hidden, large(d_hidden));
    let d_weight = product([CLASSES, width, ROWS], |class, row| g(row, class), h);
    near(&format!("{what}: weight"), &got.d_weight, large(d_weight));
}

#[test]
fn every_option_works_over_products() {
    let class_weight: Vec<f32> = (0..CLASSES).map(|c| (c % 5) as f32 * 0.4).collect();
    let class_weight = TensorRef::new(&class_weight, &[CLASSES]).unwrap();
    let per_row: Vec<f32> = (0..ROWS).map(|row| 0.5 + (row % 3) as f32).collect();
    let plain = || CrossEntropy::default();
    agrees::<bf16>("mean", &plain().logit_scale(0.7).lse_square_scale(1e-2), &[1.5], 24);
    agrees::<f16>("weights", &plain().weight(class_weight).ignore_index(791), &[1.0], 9);
    let none = plain().reduction(Reduction::None);
    agrees::<bf16>("rows", &none.clone().weight(class_weight), &per_row, 16);
    agrees::<f16>("smoothing", &none.label_smoothing(0.1), &per_row, 33);
    let capped = plain().softcap(Some(4.0)).logit_scale(1.3);
    agrees::<bf16>("soft-cap", &capped.clone().reduction(Reduction::Sum), &[0.3], 24);
    let all = capped.weight(class_weight).label_smoothing(0.2).lse_square_scale(1e-2);
    agrees::<bf16>("all", &all, &[2.0], 24);
    agrees::<f16>("all", &all, &[2.0], 7);
}
