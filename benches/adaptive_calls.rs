//! One call of the adaptive softmax, timed: what `benches/peers/adaptive.py` sets beside PyTorch's module.
//!
//! `cargo bench --bench adaptive_calls -- CALL DTYPE ROWS FEATURES CLASSES C,C,… SECONDS`, with a call of
//! `forward`, `forward-backward`, `log-prob`, `predict` and `top-k` (of ten). Prints a line of JSON: what the
//! first run answered, the operations of its products, and the seconds of every run.

#[path = "data/timed.rs"]
mod timed;

use std::error::Error;
use std::time::Duration;
use timed::timed;
use warploss::{
    AdaptiveLogSoftmax, AdaptiveParameters, Device, Float, LayerGradOut, LayerOut, Result, Tensor,
    TensorMut, TensorRef, bf16, f16,
};

/// The likeliest classes that are asked for.
const BEST: usize = 10;

/// Bits that look like chance: neighbours' products would be no sums of independent terms else.
fn mixed(i: u32) -> u32 {
    let i = (i ^ i >> 16).wrapping_mul(0x85eb_ca6b);
    let i = (i ^ i >> 13).wrapping_mul(0xc2b2_ae35);
    i ^ i >> 16
}

/// Multiples of 1/64 in [-1, 1], from the `from`-th on, times a power of two: exact in bf16.
fn numbers<T: Float>(from: usize, len: usize, scale: f32) -> Vec<T> {
    let value = |i: usize| (mixed(i as u32) % 129) as f32 / 64.0 - 1.0;
    (from..from + len).map(|i| T::from_f32(value(i) * scale)).collect()
}

/// The power of two that is nearest to 1/√n.
fn inverse_root(n: usize) -> f32 {
    (-0.5 * (n.max(1) as f32).log2()).round().exp2()
}

/// Bias of a cluster's column: with it the head's best column is a cluster's for some third of the rows.
const CLUSTER_BIAS: f32 = 5.0;

struct Case<T> {
    adaptive: AdaptiveLogSoftmax<'static>,
    parameters: AdaptiveParameters<Tensor>,
    input: Vec<T>,
    targets: Vec<i64>,
    seconds: Duration,
}

/// What a call answered, and the seconds of its runs.
type Answer = (Vec<f64>, Vec<f64>);

impl<T: Float> Case<T> {
    fn new(sizes: [usize; 3], cutoffs: &[usize], seconds: Duration) -> Result<Case<T>> {
        let [rows, features, classes] = sizes;
        let adaptive = AdaptiveLogSoftmax::new(features, classes, cutoffs).head_bias(true);
        let mut from = rows * features;
        let shortlist = cutoffs.first().copied().unwrap_or(classes);
        let parameters = adaptive.shapes()?.try_map(|name, shape| {
            let len = shape.iter().product();
            let data = match name {
                "head.bias" => (0..len)
                    .map(|i| T::from_f32(if i < shortlist { 0.0 } else { CLUSTER_BIAS }))
                    .collect(),
                _ => numbers(from, len, 4.0 * inverse_root(shape[1])),
            };
            from += len;
            Tensor::from_vec(data, shape)
        })?;
        // Their logarithms are even: as words come.
        let place = |row: usize| (row * 7919 % rows) as f64 / rows as f64;
        let target = |row: usize| ((classes as f64).powf(place(row)) as i64 - 1).max(0);
        Ok(Case {
            adaptive,
            parameters,
            input: numbers(0, rows * features, 2.0),
            targets: (0..rows).map(target).collect(),
            seconds,
        })
    }

    /// Multiplications and additions of the forward products.
    fn operations(&self) -> usize {
        let (rows, features) = (self.targets.len(), self.adaptive.in_features());
        let clusters = self.adaptive.clusters();
        let head = rows * features * (self.adaptive.cutoffs()[0] + clusters);
        let tails = (0..clusters).map(|i| {
            let classes = self.adaptive.cluster(i);
            let of = self.targets.iter().filter(|&&t| classes.contains(&(t as usize))).count();
            of * self.adaptive.width(i) * (features + classes.len())
        });
        2 * (head + tails.sum::<usize>())
    }

    fn losses(&self, device: &Device, backward: bool) -> Result<Answer> {
        let zeros = |p: &Tensor| {
            Tensor::from_vec(vec![T::default(); p.shape().iter().product()], &p.shape())
        };
        let mut gradients = self.parameters.try_map(|_, p| zeros(p))?;
        let (rows, shape) = (self.targets.len(), [self.targets.len(), self.adaptive.in_features()]);
        let mut grad_input = vec![T::default(); self.input.len()];
        let (mut output, mut loss) = (vec![0f32; rows], [0f32]);
        let mut step = || {
            let data =
                (TensorRef::new(&self.input, &shape)?, TensorRef::new(&self.targets, &[rows])?);
            let view = self.parameters.view();
            let out = LayerOut {
                output: TensorMut::new(&mut output, &[rows])?,
                loss: TensorMut::new(&mut loss, &[])?,
            };
            if !backward {
                return self.adaptive.forward_into(device, &view, data, out);
            }
            let gradients = LayerGradOut {
                input: Some(TensorMut::new(&mut grad_input, &shape)?),
                parameters: Some(gradients.view_mut()),
                accumulate: false,
            };
            self.adaptive.forward_backward_into(device, &view, data, 1.0, (out, gradients))
        };
        let times = timed(self.seconds, &mut step)?;
        let size = |numbers: &[T]| numbers.iter().map(|g| f64::from(g.to_f32().abs())).sum::<f64>();
        let mut answer = vec![f64::from(loss[0])];
        if backward {
            answer.push(size(&grad_input));
            let named = gradients.into_named();
            answer.extend(named.iter().filter_map(|(_, g)| g.as_slice::<T>()).map(size));
        }
        Ok((answer, times))
    }

    fn log_prob(&self, device: &Device) -> Result<Answer> {
        let (rows, classes) = (self.targets.len(), self.adaptive.classes());
        let shape = [rows, self.adaptive.in_features()];
        let mut out = vec![0f32; rows * classes];
        let times = timed(self.seconds, || {
            let input = TensorRef::new(&self.input, &shape)?;
            let out = TensorMut::new(&mut out, &[rows, classes])?;
            self.adaptive.log_prob_into(device, &self.parameters.view(), input, out)
        })?;
        let of_row = |row: &[f32]| row.iter().copied().map(f64::from).sum::<f64>() / classes as f64;
        Ok((out.chunks(classes).map(of_row).collect(), times))
    }

    fn best(&self, device: &Device, all: bool) -> Result<Answer> {
        let shape = [self.targets.len(), self.adaptive.in_features()];
        let mut found = None;
        let times = timed(self.seconds, || {
            let input = TensorRef::new(&self.input, &shape)?;
            let view = self.parameters.view();
            found = Some(match all {
                true => self.adaptive.top_k(device, &view, input, BEST)?.0,
                false => self.adaptive.predict(device, &view, input)?,
            });
            Ok(())
        })?;
        let classes = found.as_ref().and_then(|found| found.as_slice::<i64>()).unwrap_or(&[]);
        Ok((classes.iter().map(|&class| class as f64).collect(), times))
    }
}

fn run<T: Float>(
    call: &str,
    (sizes, cutoffs): ([usize; 3], &[usize]),
    seconds: Duration,
) -> std::result::Result<(), Box<dyn Error>> {
    let (case, device) = (Case::<T>::new(sizes, cutoffs, seconds)?, Device::cpu());
    let (answer, times) = match call {
        "forward" => case.losses(&device, false)?,
        "forward-backward" => case.losses(&device, true)?,
        "log-prob" => case.log_prob(&device)?,
        "predict" => case.best(&device, false)?,
        "top-k" => case.best(&device, true)?,
        other => return Err(format!("no such call: {other}").into()),
    };
    let operations = case.operations();
    println!("{{\"answer\": {answer:?}, \"operations\": {operations}, \"seconds\": {times:?}}}");
    Ok(())
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let [call, dtype, rows, features, classes, cutoffs, seconds] = args.as_slice() else {
        // Where all benches are run one after another there is nothing to say.
        return Ok(());
    };
    let sizes = [rows.parse()?, features.parse()?, classes.parse()?];
    let cutoffs = cutoffs.split(',').map(str::parse).collect::<std::result::Result<Vec<_>, _>>()?;
    let (of, seconds) = ((sizes, &cutoffs[..]), Duration::from_secs_f64(seconds.parse()?));
    match dtype.as_str() {
        "f32" => run::<f32>(call, of, seconds),
        "bf16" => run::<bf16>(call, of, seconds),
        "f16" => run::<f16>(call, of, seconds),
        other => Err(format!("dtype: expected f32, bf16 or f16, got {other}").into()),
    }
}
