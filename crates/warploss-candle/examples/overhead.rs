//! What a loss costs through candle beside the bare call with kept buffers and beside candle's own, in turn in one run:
//! `cargo run --release --example overhead`. The shape may be given: `-- 1024 32000`.

use candle_core::{DType, Device, Result, Tensor, Var};
use std::time::Instant;
use warploss_candle::CrossEntropyLoss;
use warploss_candle::warploss::{self, CrossEntropy, CrossEntropyOut, TensorMut, TensorRef};

const ROUNDS: usize = 21;

fn main() -> Result<()> {
    let given: Vec<usize> = std::env::args().skip(1).filter_map(|size| size.parse().ok()).collect();
    let shapes = match given[..] {
        [rows, classes] => vec![[rows, classes]],
        _ => vec![[64, 1000], [1024, 32_000]],
    };
    println!("{:>14} {:>24} {:>12} {:>10}", "shape", "call", "median µs", "of bare");
    for [rows, classes] in shapes {
        compare(rows, classes)?;
    }
    Ok(())
}

fn compare(rows: usize, classes: usize) -> Result<()> {
    let target: Vec<u32> = (0..rows).map(|row| (row * 7919 % classes) as u32).collect();
    let source = Tensor::randn(0f32, 2.0, (rows, classes), &Device::Cpu)?;
    let target_of_candle = Tensor::new(&target[..], &Device::Cpu)?;
    let mut logits = source.flatten_all()?.to_vec1::<f32>()?;
    let mut bare_loss = 0.0f32;
    let device = warploss::Device::cpu();
    let (apart, in_place) =
        (CrossEntropyLoss::default(), CrossEntropyLoss::default().in_place(true));
    let mut times = [const { Vec::new() }; 6];
    for _ in 0..ROUNDS {
        let from = source.flatten_all()?.to_vec1::<f32>()?;
        logits.copy_from_slice(&from);
        let begin = Instant::now();
        let x = TensorMut::new(&mut logits, &[rows, classes]).map_err(candle_core::Error::wrap)?;
        let t = TensorRef::new(&target, &[rows]).map_err(candle_core::Error::wrap)?;
        let out = CrossEntropyOut::loss(TensorMut::scalar(&mut bare_loss));
        CrossEntropy::default()
            .forward_backward_in_place(&device, x, t, 1.0, out)
            .map_err(candle_core::Error::wrap)?;
        times[0].push(begin.elapsed().as_secs_f64());
        let leaf = Var::from_tensor(&source.copy()?)?;
        for (i, call) in [&in_place, &apart].into_iter().enumerate() {
            let begin = Instant::now();
            let loss = call.forward(leaf.as_tensor(), &target_of_candle)?;
            times[1 + i].push(begin.elapsed().as_secs_f64());
            // From here on it is candle's: zeros, to which it adds the gradient.
            drop(loss.backward()?);
            times[3 + i].push(begin.elapsed().as_secs_f64());
            leaf.set(&source)?;
        }
        let begin = Instant::now();
        let loss = candle_nn::loss::cross_entropy(leaf.as_tensor(), &target_of_candle)?;
        let gradients = loss.backward()?;
        times[5].push(begin.elapsed().as_secs_f64());
        assert_eq!(gradients.get(&leaf).map(Tensor::dtype), Some(DType::F32));
        let theirs = loss.to_scalar::<f32>()?;
        assert!((theirs - bare_loss).abs() < 1e-4 * theirs.abs(), "{theirs}, not {bare_loss}");
    }
    let medians = times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    });
    let names = [
        "bare, in place",
        "in place",
        "gradient apart",
        "in place, and backward",
        "apart, and backward",
        "candle's, and backward",
    ];
    for (name, median) in names.iter().zip(medians) {
        let shape = format!("{rows} x {classes}");
        println!("{shape:>14} {name:>24} {:>12.1} {:>10.2}", median * 1e6, median / medians[0]);
    }
    Ok(())
}
