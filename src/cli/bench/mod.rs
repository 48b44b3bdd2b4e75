//! `warploss bench`: every line checks its answer, then times it.

mod data;
mod ops;
mod suite;
mod table;

use super::device::DeviceChoice;
use super::failure::{self, Failure};
use super::memory;
use crate::measure::{Bandwidth, Budget, Pass, Timing, time_by};
use crate::{DType, Device};
use clap::{Args, ValueEnum};
use data::Data;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ops::BenchOp;
use std::io::{IsTerminal as _, Write as _};

/// The command.
#[derive(Debug, Args)]
#[command(after_help = "\
Bytes are a model: every logit-sized tensor that a pass must read or write counts once, what is
one number per row does not.
  cross-entropy  forward 1 read; backward 1 read, 1 write; forward-backward (fused, in place)
                 1 read, 1 write
  log-softmax    forward 1 read, 1 write (output in the input's dtype); backward 2 reads, 1 write;
                 forward-backward 3 reads, 2 writes
  logprob-entropy  as cross-entropy; a backward pass sums each row again, from cache
  logsumexp      forward 1 read; backward 1 read, 1 write; forward-backward 2 reads, 1 write
  js-div-logits  forward 2 reads; backward and forward-backward (fused, in place) 2 reads, 1 write
  mse, l1, smooth-l1, huber, bce-with-logits, kl-div, js-div (gradient to the input)
                 forward 2 reads; backward 2 reads, 1 write; forward-backward (fused, in place)
                 2 reads, 1 write
GB/s are 10^9 model bytes a second in the median run. share_of_copy sets them against copying one
large buffer to another in the same run (bytes read and written both count); the table also sets
them against summing a buffer and scaling one in place. Data that fits the cache exceeds 1.
A call that consumes the logits gets them back between runs, outside the timed part. All tensors
lie on the device that is measured, copies of it are measured there, and on a GPU the clock is its
own (events of its stream).

Example:
  warploss bench cross-entropy --rows 1024 --classes 128256 --dtype bf16 --pass forward-backward")]
pub(super) struct BenchArgs {
    /// Measure one line of this op [default: the standard suite of the device]
    #[arg(value_name = "OP")]
    op: Option<BenchOp>,

    /// Rows of logits [default: 1024]
    #[arg(long, value_name = "N", requires = "op", allow_hyphen_values = true, value_parser = at_least_one)]
    rows: Option<usize>,

    /// Classes, columns of logits [default: 128256]
    #[arg(long, value_name = "V", requires = "op", allow_hyphen_values = true, value_parser = at_least_one)]
    classes: Option<usize>,

    /// Elements of input and target of an elementwise op [default: 67108864]
    #[arg(long, value_name = "N", requires = "op", allow_hyphen_values = true, value_parser = at_least_one)]
    elements: Option<usize>,

    /// Dtype of the logits [default: f32]
    #[arg(long, requires = "op")]
    dtype: Option<FloatArg>,

    /// What to compute [default: forward-backward]
    #[arg(long, requires = "op")]
    pass: Option<PassArg>,

    /// Time to spend on each line [default: 1 in the suite, 3 for one line]
    #[arg(long, value_name = "S", allow_hyphen_values = true, value_parser = seconds)]
    seconds: Option<f64>,

    /// One JSON object a line instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FloatArg {
    F32,
    F16,
    #[value(name = "bf16")]
    BF16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PassArg {
    Forward,
    Backward,
    ForwardBackward,
}

/// Elements of an elementwise op where nobody says how many.
const ELEMENTS: usize = 1 << 26;

/// One line to measure.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Line {
    op: BenchOp,
    pass: Pass,
    dtype: DType,
    rows: usize,
    classes: usize,
}

/// One line, measured.
#[derive(Debug, Clone, Copy)]
struct Measured {
    line: Line,
    timing: Timing,
    bytes: u64,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&n| n > 0).ok_or_else(|| "expected a whole number ≥ 1".into())
}

fn seconds(text: &str) -> Result<f64, String> {
    let legal = |s: &f64| (0.0..=3600.0).contains(s);
    text.parse().ok().filter(legal).ok_or_else(|| "expected a number in [0, 3600]".into())
}

impl BenchArgs {
    pub(super) fn run(&self, device: DeviceChoice) -> Result<(), Failure> {
        let device = device.open()?;
        let lines = self.lines(&device)?;
        let budget = Budget {
            seconds: self.seconds.unwrap_or(if self.op.is_some() { 3.0 } else { 1.0 }),
            ..Budget::default()
        };
        memory::require(2 * Bandwidth::BYTES as u128, "measuring the copy bandwidth")?;
        // An emulated card has no speed: a little is enough.
        let bytes = if device.name() == "emulated" { 1 << 20 } else { Bandwidth::BYTES };
        let bandwidth = Bandwidth::of_device(&device, bytes, &budget)?;

        let progress = progress(lines.len());
        let mut measured = Vec::new();
        let mut held: Option<Data> = None;
        for line in lines {
            progress.set_message(line.describe());
            // What does not fit the machine is left out of the suite, and said to be.
            match line.measure(&device, &budget, &mut held) {
                Ok(result) => measured.push(result),
                Err(failure) if self.op.is_none() && failure.message.starts_with("memory: ") => {
                    progress.suspend(|| {
                        failure::print(&format!(
                            "{} left out: {}",
                            line.describe(),
                            failure.message
                        ));
                    });
                }
                Err(failure) => {
                    progress.finish_and_clear();
                    return Err(failure);
                }
            }
            progress.inc(1);
        }
        progress.finish_and_clear();
        let text = match self.json {
            true => measured.iter().map(|m| m.json(&device, &bandwidth)).collect(),
            false => table::render(&device, &bandwidth, &measured),
        };
        std::io::stdout()
            .write_all(text.as_bytes())
            .map_err(|e| Failure::failed(format!("standard output: {e}")))
    }

    fn lines(&self, device: &Device) -> Result<Vec<Line>, Failure> {
        let Some(op) = self.op else {
            return Ok(if device.name() == "cuda" { suite::gpu() } else { suite::cpu() });
        };
        let dtype = match self.dtype {
            Some(FloatArg::F32) | None => DType::F32,
            Some(FloatArg::F16) => DType::F16,
            Some(FloatArg::BF16) => DType::BF16,
        };
        let pass = match self.pass {
            Some(PassArg::Forward) => Pass::Forward,
            Some(PassArg::Backward) => Pass::Backward,
            Some(PassArg::ForwardBackward) | None => Pass::ForwardBackward,
        };
        let (name, bench) = op.parts();
        let (rows, classes) = match (bench.elementwise(), self.elements) {
            (true, _) if self.rows.is_some() || self.classes.is_some() => {
                let option = if self.rows.is_some() { "--rows" } else { "--classes" };
                return Err(Failure::input(format!("{option}: expected --elements for {name}")));
            }
            (true, elements) => (1, elements.unwrap_or(ELEMENTS)),
            (false, Some(_)) => {
                let expected = "expected --rows and --classes";
                return Err(Failure::input(format!("--elements: {expected} for {name}")));
            }
            (false, None) => (self.rows.unwrap_or(1024), self.classes.unwrap_or(128_256)),
        };
        Ok(vec![Line { op, pass, dtype, rows, classes }])
    }
}

impl Line {
    fn describe(&self) -> String {
        let Line { op, pass, dtype, rows, classes } = self;
        format!("{} {} {dtype} {rows} × {classes}", op.parts().0, pass.name())
    }

    /// Checks, then times; `held` keeps the buffers from one line to the next of the same shape.
    fn measure(
        &self,
        device: &Device,
        budget: &Budget,
        held: &mut Option<Data>,
    ) -> Result<Measured, Failure> {
        let (_, bench) = self.op.parts();
        let shape = (self.rows, self.classes, self.dtype);
        let large = bench.large(self.pass);
        let mut data = match held.take() {
            Some(data) if (data.rows, data.classes, data.dtype) == shape => {
                if large.is_some() && data.upstream.is_none() {
                    self.require(1)?;
                }
                data
            }
            other => {
                drop(other);
                self.require(2 + u128::from(large.is_some()))?;
                Data::new(device, self.rows, self.classes, self.dtype)?
            }
        };
        if let Some(large) = large {
            data.need(device, large)?;
        }
        let prepare = |data: &mut Data| match bench.consumes(self.pass) {
            true => data.restore(),
            false => Ok(()),
        };
        bench.save(self.pass, device, &mut data)?;
        prepare(&mut data)?;
        bench.run(self.pass, device, &mut data)?;
        if let Some(wrong) = bench.check(self.pass, device, &mut data)? {
            let line = self.describe();
            return Err(Failure::failed(format!("{line}: the answer is wrong: {wrong}")));
        }
        let run = |data: &mut Data| device.time(|| bench.run(self.pass, device, data));
        let timing = time_by(budget, &mut data, prepare, run)?;
        *held = Some(data);
        let elements = self.rows as u64 * self.classes as u64;
        let bytes = bench.traffic(self.pass).bytes(elements, self.dtype);
        Ok(Measured { line: *self, timing, bytes })
    }

    /// Whether so many tensors of this shape fit, and the few numbers per row.
    fn require(&self, tensors: u128) -> Result<(), Failure> {
        let (rows, classes) = (self.rows as u128, self.classes as u128);
        let tensor = rows.saturating_mul(classes).saturating_mul(self.dtype.size() as u128);
        let bytes = tensor.saturating_mul(tensors).saturating_add(rows * 20);
        // A size beyond the address space cannot be asked of an allocator either.
        match bytes > isize::MAX as u128 {
            true => Err(Failure::failed(format!("memory: {bytes} bytes exceed the address space"))),
            false => memory::require(bytes, &self.describe()),
        }
    }
}

/// A bar on standard error, where that is a terminal.
fn progress(lines: usize) -> ProgressBar {
    let target = match std::io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let style = ProgressStyle::with_template("{bar:24} {pos}/{len} {msg}");
    let bar = ProgressBar::with_draw_target(Some(lines as u64), target);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
