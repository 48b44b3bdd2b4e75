//! `warploss bench`: every line checks its answer, then times it.

pub(super) mod adaptive_log_softmax;
mod lines;
mod ops;
mod suite;
mod table;

use super::device::DeviceChoice;
use super::failure::{self, Failure};
use super::memory;
use crate::base::dtype::DType;
use crate::base::error::Error;
use crate::check::bench::data::Data;
use crate::check::bench::{Bench, Kind};
use crate::device::Device;
use crate::measure::{Bandwidth, Budget, Pass, Timing, time_by};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ops::BenchOp;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

/// The command.
#[derive(Debug, Args)]
#[command(after_help = "\
Bytes are a model: every logit-sized tensor that a pass must read or write counts once, what is
one number per row does not.
  cross-entropy  forward 1 read; backward 1 read, 1 write; forward-backward (fused, in place)
                 1 read, 1 write
  multi-margin   as cross-entropy
  log-softmax    forward 1 read, 1 write (output in the input's dtype); backward 2 reads, 1 write;
                 forward-backward 3 reads, 2 writes
  logprob-entropy  as cross-entropy; a backward pass sums each row again, from cache
  logsumexp      forward 1 read; backward 1 read, 1 write; forward-backward 2 reads, 1 write
  js-div-logits  forward 2 reads; backward and forward-backward (fused, in place) 2 reads, 1 write
  those of --elements  gradient to the input: forward 2 reads; backward 2 reads, 1 write;
                 forward-backward (fused, in place) 2 reads, 1 write
  adaptive-log-softmax  forward: input and parameters read; else: their gradients written too. Its
                 targets are Zipf's; the products decide its time, so GFLOP/s are told as well
GB/s are 10^9 model bytes a second in the median run. share_of_copy sets them against copying one
large buffer to another in the same run (bytes read and written both count); the table also sets
them against summing a buffer and scaling one in place. Data that fits the cache exceeds 1.
A call that consumes the logits gets them back between runs, outside the timed part. All tensors
lie on the device that is measured, copies of it are measured there, and on a GPU the clock is its
own (events of its stream); row_kernels_s is what the kernels that go through rows take of a call.
With --lines each line of a file is the words of a `bench OP …`: all are measured in one process, in
buffers that are made once for a dtype, and each is printed when it is done; one that fails is
printed too, as {\"line\", \"failed\"}, and the next goes on.

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

    /// Features of the input of adaptive-log-softmax [default: 512]
    #[arg(long, value_name = "D", requires = "op", allow_hyphen_values = true, value_parser = at_least_one)]
    hidden: Option<usize>,

    /// First class of each cluster of adaptive-log-softmax [default: 2000,10000,100000 below V]
    #[arg(
        long,
        value_name = "C,C,…",
        requires = "op",
        value_delimiter = ',',
        allow_hyphen_values = true
    )]
    cutoffs: Option<Vec<usize>>,

    /// Rows of each cluster at most, on a CUDA device [default: all]
    #[arg(
        long,
        value_name = "N,N,…",
        requires = "op",
        value_delimiter = ',',
        allow_hyphen_values = true
    )]
    capacities: Option<Vec<usize>>,

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

    /// Measure the lines of a file in one process (-: standard input); needs --json
    #[arg(long, value_name = "FILE", conflicts_with = "op", requires = "json")]
    lines: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum FloatArg {
    F32,
    F16,
    #[value(name = "bf16")]
    BF16,
}

impl FloatArg {
    pub(super) fn dtype(self) -> DType {
        match self {
            FloatArg::F32 => DType::F32,
            FloatArg::F16 => DType::F16,
            FloatArg::BF16 => DType::BF16,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PassArg {
    Forward,
    Backward,
    ForwardBackward,
}

/// Elements of an elementwise op where nobody says how many.
const ELEMENTS: usize = 1 << 26;

/// First classes of clusters where nobody says which, as far as there are such classes.
const CUTOFFS: [usize; 3] = [2_000, 10_000, 100_000];

/// Runs that the kernels which go through rows are timed in.
const ROW_RUNS: usize = 5;

/// One line to measure.
#[derive(Debug, Clone, PartialEq)]
struct Line {
    op: BenchOp,
    pass: Pass,
    dtype: DType,
    rows: usize,
    classes: usize,
    /// Features of the input; 0 where the input is logits.
    hidden: usize,
    cutoffs: Vec<usize>,
    capacities: Option<Vec<usize>>,
}

/// One line, measured.
#[derive(Debug, Clone)]
struct Measured {
    line: Line,
    timing: Timing,
    bytes: u64,
    /// Multiplications and additions, of an op that products decide.
    operations: Option<f64>,
    /// Seconds of the kernels that go through rows, where a device has such; the median run.
    row_kernels: Option<f64>,
}

pub(super) fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&n| n > 0).ok_or_else(|| "expected a whole number ≥ 1".into())
}

fn seconds(text: &str) -> Result<f64, String> {
    let legal = |s: &f64| (0.0..=3600.0).contains(s);
    text.parse().ok().filter(legal).ok_or_else(|| "expected a number in [0, 3600]".into())
}

impl BenchArgs {
    pub(super) fn run(&self, device: DeviceChoice) -> Result<(), Failure> {
        let device = device.open()?;
        let listed = self.lines.as_deref().map(|path| lines::read(path, &device)).transpose()?;
        let lines = self.lines(&device)?;
        let budget = Budget {
            seconds: self.seconds.unwrap_or(if self.op.is_some() { 3.0 } else { 1.0 }),
            ..Budget::default()
        };
        memory::require(2 * Bandwidth::BYTES as u128, "measuring the copy bandwidth")?;
        let bytes = match device.name() {
            "cpu" => Bandwidth::BYTES,
            // An emulated card has no speed: a little is enough.
            "emulated" => 1 << 20,
            _ => Bandwidth::DEVICE_BYTES,
        };
        let bandwidth = Bandwidth::of_device(&device, bytes, &budget)?;
        if let Some(listed) = &listed {
            return lines::run(listed, &device, (&budget, &bandwidth));
        }

        let progress = progress(lines.len());
        let mut measured = Vec::new();
        let mut held: Option<Data> = None;
        for line in lines {
            progress.set_message(line.describe());
            // What does not fit the machine is left out of the suite, and said to be.
            match line.measure(&device, &budget, (&mut held, 0)) {
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
        let dtype = self.dtype.map_or(DType::F32, FloatArg::dtype);
        let pass = match self.pass {
            Some(PassArg::Forward) => Pass::Forward,
            Some(PassArg::Backward) => Pass::Backward,
            Some(PassArg::ForwardBackward) | None => Pass::ForwardBackward,
        };
        let (rows, classes) = self.sizes(op)?;
        let line = Line::of_rows(op, pass, dtype, rows, classes);
        if !matches!(op.parts().1, Kind::Products) {
            return Ok(vec![line]);
        }
        let below_v = CUTOFFS.into_iter().filter(|&c| c < classes).collect();
        let cutoffs = self.cutoffs.clone().unwrap_or(below_v);
        let capacities = self.capacities.clone();
        let line = Line { hidden: self.hidden.unwrap_or(512), cutoffs, capacities, ..line };
        let names = ["cutoffs", "capacities"].map(|name| (name, format!("--{name}")));
        adaptive_log_softmax::options(&line).shapes().map_err(|e| Failure::renamed(&e, &names))?;
        Ok(vec![line])
    }

    /// Rows and classes of one line; elements are the classes of one row.
    fn sizes(&self, op: BenchOp) -> Result<(usize, usize), Failure> {
        let (name, kind) = op.parts();
        let given = [
            ("--rows", self.rows.is_some()),
            ("--classes", self.classes.is_some()),
            ("--elements", self.elements.is_some()),
            ("--hidden", self.hidden.is_some()),
            ("--cutoffs", self.cutoffs.is_some()),
            ("--capacities", self.capacities.is_some()),
        ];
        let (taken, classes): (&[&str], _) = match kind {
            Kind::Elements(_) => (&["--elements"], ELEMENTS),
            Kind::Rows(_) => (&["--rows", "--classes"], 128_256),
            Kind::Products => {
                (&["--rows", "--classes", "--hidden", "--cutoffs", "--capacities"], 1_000_000)
            }
        };
        if let Some((option, _)) = given.iter().find(|(o, given)| *given && !taken.contains(o)) {
            let expected = taken.join(", ");
            return Err(Failure::input(format!("{option}: expected {expected} for {name}")));
        }
        Ok(match kind {
            Kind::Elements(_) => (1, self.elements.unwrap_or(classes)),
            _ => (self.rows.unwrap_or(1024), self.classes.unwrap_or(classes)),
        })
    }
}

impl Line {
    /// A line whose input is logits.
    fn of_rows(op: BenchOp, pass: Pass, dtype: DType, rows: usize, classes: usize) -> Line {
        Line { op, pass, dtype, rows, classes, hidden: 0, cutoffs: Vec::new(), capacities: None }
    }

    fn describe(&self) -> String {
        let Line { op, pass, dtype, rows, classes, .. } = self;
        let hidden = if self.hidden > 0 { format!(" × {}", self.hidden) } else { String::new() };
        format!("{} {} {dtype} {rows}{hidden} × {classes}", op.parts().0, pass.name())
    }

    /// Checks, then times; `held` keeps the buffers, which have room for as many elements, from one
    /// line to the next.
    fn measure(
        &self,
        device: &Device,
        budget: &Budget,
        (held, room): (&mut Option<Data>, usize),
    ) -> Result<Measured, Failure> {
        let (Kind::Rows(bench) | Kind::Elements(bench)) = self.op.parts().1 else {
            return adaptive_log_softmax::measure(self, device, budget);
        };
        let shape = (self.rows, self.classes);
        let (large, what) = (bench.large(self.pass), (self.dtype, bench.input()));
        let mut data = match held.take() {
            Some(mut data) if data.serve(device, shape, what) => {
                if large.is_some() && data.upstream.is_none() {
                    self.require(1)?;
                }
                if (data.rows, data.classes) != shape {
                    data.shape(device, self.rows, self.classes)?;
                }
                data
            }
            other => {
                drop(other);
                self.require(2 + u128::from(large.is_some()))?;
                // Later lines need more than there may be; that is their affair.
                Data::new(device, shape, what, room).or_else(|error| match error {
                    Error::OutOfMemory { .. } => Data::new(device, shape, what, 0),
                    other => Err(other),
                })?
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
        let row_kernels = self.row_kernels(bench, device, &mut data)?;
        *held = Some(data);
        let elements = self.rows as u64 * self.classes as u64;
        let bytes = bench.traffic(self.pass).bytes(elements, self.dtype);
        Ok(Measured { line: self.clone(), timing, bytes, operations: None, row_kernels })
    }

    /// Seconds of the kernels that go through rows, in the middle of a few runs.
    fn row_kernels(
        &self,
        bench: &dyn Bench,
        device: &Device,
        data: &mut Data,
    ) -> Result<Option<f64>, Failure> {
        let mut seconds = Vec::new();
        for _ in 0..ROW_RUNS {
            if bench.consumes(self.pass) {
                data.restore()?;
            }
            match device.time_rows(|| bench.run(self.pass, device, data))? {
                Some(run) => seconds.push(run),
                None => return Ok(None),
            }
        }
        Ok(Some(Timing::of(seconds).median))
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

#[cfg(all(test, feature = "emulator"))]
mod tests;
