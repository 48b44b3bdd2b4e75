//! One peer, one case: checks nothing, times cross entropy forward and backward, and prints a
//! line of JSON: the loss and Σ|gradient| of its input, and the seconds of every run.
//!
//! `warploss-peers candle|burn ROWS CLASSES f32|bf16 SECONDS`; the caller compares the answers.

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

struct Case {
    rows: usize,
    classes: usize,
    bf16: bool,
    seconds: f64,
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [peer, rows, classes, dtype, seconds] = args.as_slice() else {
        return Err("usage: warploss-peers candle|burn ROWS CLASSES f32|bf16 SECONDS".into());
    };
    let bf16 = match dtype.as_str() {
        "f32" => false,
        "bf16" => true,
        other => return Err(format!("dtype: expected f32 or bf16, got {other}").into()),
    };
    let case = Case {
        rows: rows.parse()?,
        classes: classes.parse()?,
        bf16,
        seconds: seconds.parse()?,
    };
    match peer.as_str() {
        "candle" => candle(&case),
        "burn" => burn(&case),
        other => Err(format!("peer: expected candle or burn, got {other}").into()),
    }
}

impl Case {
    /// Multiples of 1/16 in [-4, 4], exact in bf16; the same in every peer.
    fn logits(&self) -> Vec<f32> {
        let value = |i: usize| ((i as u32).wrapping_mul(2_654_435_761) >> 16) % 129;
        (0..self.rows * self.classes).map(|i| value(i) as f32 / 16.0 - 4.0).collect()
    }

    fn target(&self) -> Vec<u32> {
        (0..self.rows).map(|r| (r * 7919 % self.classes) as u32).collect()
    }

    /// Runs `step` once unmeasured, then for `seconds`, at least once more; prints the times.
    fn time<G>(
        &self,
        mut step: impl FnMut() -> Result<G>,
        answer: impl Fn(&G) -> Result<(f64, f64)>,
    ) -> Result<()> {
        let first = step()?;
        let (loss, grad) = answer(&first)?;
        drop(first);
        let (budget, start) = (Duration::from_secs_f64(self.seconds), Instant::now());
        let mut seconds = Vec::new();
        while seconds.is_empty() || start.elapsed() < budget {
            let run = Instant::now();
            black_box(step()?);
            seconds.push(run.elapsed().as_secs_f64());
        }
        let line = serde_json::json!({ "loss": loss, "grad_abs": grad, "seconds": seconds });
        println!("{line}");
        Ok(())
    }
}

fn candle(case: &Case) -> Result<()> {
    use candle_core::{DType, Device, Tensor, Var};
    let dtype = if case.bf16 { DType::BF16 } else { DType::F32 };
    let logits = Tensor::from_vec(case.logits(), (case.rows, case.classes), &Device::Cpu)?;
    let logits = Var::from_tensor(&logits.to_dtype(dtype)?)?;
    let target = Tensor::from_vec(case.target(), case.rows, &Device::Cpu)?;
    case.time(
        || {
            let loss = candle_nn::loss::cross_entropy(&logits, &target)?;
            let grads = loss.backward()?;
            Ok((loss, grads))
        },
        |(loss, grads)| {
            let grad = grads.get(&logits).ok_or("candle: no gradient")?;
            let grad = grad.to_dtype(DType::F32)?.abs()?.sum(1)?.to_dtype(DType::F64)?.sum_all()?;
            Ok((loss.to_dtype(DType::F64)?.to_scalar()?, grad.to_scalar()?))
        },
    )
}

fn burn(case: &Case) -> Result<()> {
    use burn_nn::loss::CrossEntropyLossConfig;
    use burn_tensor::{DType, Device, Int, Tensor, TensorData};
    let device = Device::flex().autodiff();
    let dtype = if case.bf16 { DType::BF16 } else { DType::F32 };
    let logits = TensorData::new(case.logits(), [case.rows, case.classes]);
    let logits = Tensor::<2>::from_data(logits, (&device, DType::F32)).cast(dtype);
    let logits = logits.detach().require_grad();
    let target: Vec<i64> = case.target().into_iter().map(i64::from).collect();
    let target = Tensor::<1, Int>::from_data(TensorData::new(target, [case.rows]), &device);
    let criterion = CrossEntropyLossConfig::new().init(&device);
    let scalar = |t: Tensor<1>| -> Result<f64> {
        let values = t.cast(DType::F32).into_data().to_vec::<f32>().map_err(|e| format!("{e:?}"))?;
        Ok(f64::from(values[0]))
    };
    case.time(
        || {
            let loss = criterion.forward(logits.clone(), target.clone());
            let grads = loss.backward();
            Ok((loss, grads))
        },
        |(loss, grads)| {
            let grad = logits.grad(grads).ok_or("burn: no gradient")?;
            Ok((scalar(loss.clone())?, scalar(grad.cast(DType::F32).abs().sum())?))
        },
    )
}
