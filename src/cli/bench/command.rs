//! The arguments of `bench`, and the lines that they ask for.

use crate::base::dtype::DType;
use crate::check::bench::{Kind, Layer};
use crate::cli::bench::line::Line;
use crate::cli::bench::ops::BenchOp;
use crate::cli::bench::{adaptive_log_softmax, suite};
use crate::cli::failure::Failure;
use crate::device::Device;
use crate::measure::Pass;
use clap::{Args, ValueEnum};
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
  linear-cross-entropy, linear-logprob-entropy  the same, of input and classifier; with --subset K, of
                 input and K rows of the classifier for each row: gradients are added to what is there
  linear-distillation  the same, of input and classifier of both sides
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
pub(in crate::cli) struct BenchArgs {
    /// Measure one line of this op [default: the standard suite of the device]
    #[arg(value_name = "OP")]
    pub(super) op: Option<BenchOp>,

    /// Rows of logits [default: 1024]
    #[arg(long, value_name = "N", requires = "op", allow_hyphen_values = true, value_parser = at_least_one)]
    rows: Option<usize>,

    /// Classes, columns of logits [default: 128256]
    #[arg(long, value_name = "V", requires = "op", allow_hyphen_values = true, value_parser = at_least_one)]
    classes: Option<usize>,

    /// Elements of input and target of an elementwise op [default: 67108864]
    #[arg(long, value_name = "N", requires = "op", allow_hyphen_values = true, value_parser = at_least_one)]
    elements: Option<usize>,

    /// Features of the input of adaptive-log-softmax and the linear losses [default: 512]
    #[arg(long, value_name = "D", requires = "op", allow_hyphen_values = true, value_parser = at_least_one)]
    hidden: Option<usize>,

    /// Classes that each row of linear-cross-entropy lists [default: none, all count]
    #[arg(long, value_name = "K", requires = "op", allow_hyphen_values = true, value_parser = at_least_one)]
    subset: Option<usize>,

    /// Has each row of the linear cross entropies a temperature
    #[arg(long, requires = "op")]
    rows_temperature: bool,

    /// Bound on |p - y| below which linear-cross-entropy gives a row's piece of 64 classes no gradient [default: none]
    #[arg(long, value_name = "BOUND", requires = "op", allow_hyphen_values = true, value_parser = bound)]
    filter: Option<f32>,

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
    pub(super) seconds: Option<f64>,

    /// One JSON object a line instead of a table
    #[arg(long)]
    pub(super) json: bool,

    /// Measure the lines of a file in one process (-: standard input); needs --json
    #[arg(long, value_name = "FILE", conflicts_with = "op", requires = "json")]
    pub(super) lines: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum FloatArg {
    F32,
    F16,
    #[value(name = "bf16")]
    BF16,
}

impl FloatArg {
    pub(in crate::cli) fn dtype(self) -> DType {
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

pub(in crate::cli) fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&n| n > 0).ok_or_else(|| "expected a whole number ≥ 1".into())
}

fn bound(text: &str) -> Result<f32, String> {
    let legal = |bound: &f32| (0.0..=1.0).contains(bound);
    text.parse().ok().filter(legal).ok_or_else(|| "expected a number in [0, 1]".into())
}

fn seconds(text: &str) -> Result<f64, String> {
    let legal = |s: &f64| (0.0..=3600.0).contains(s);
    text.parse().ok().filter(legal).ok_or_else(|| "expected a number in [0, 3600]".into())
}

impl BenchArgs {
    /// What is to be measured.
    pub(super) fn lines(&self, device: &Device) -> Result<Vec<Line>, Failure> {
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
        let line = Line { hidden: self.hidden.unwrap_or(512), ..line };
        match op.parts().1 {
            Kind::Products(Layer::AdaptiveLogSoftmax) => {}
            Kind::Products(Layer::LinearDistillation) => return Ok(vec![line]),
            Kind::Products(Layer::LinearCrossEntropy | Layer::LinearLogprobEntropy) => {
                let subset = self.subset.unwrap_or(0);
                if let (1.., Some(bound)) = (subset, self.filter) {
                    let got = format!("--filter {bound} with --subset {subset}");
                    return Err(Failure::input(format!("{got}: expected one of the two")));
                }
                let (filter, rows_temperature) = (self.filter, self.rows_temperature);
                return Ok(vec![Line { subset, filter, rows_temperature, ..line }]);
            }
            Kind::Rows(_) | Kind::Elements(_) => return Ok(vec![Line { hidden: 0, ..line }]),
        }
        let below_v = CUTOFFS.into_iter().filter(|&c| c < classes).collect();
        let cutoffs = self.cutoffs.clone().unwrap_or(below_v);
        let capacities = self.capacities.clone();
        let line = Line { cutoffs, capacities, ..line };
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
            ("--subset", self.subset.is_some()),
            ("--rows-temperature", self.rows_temperature),
            ("--filter", self.filter.is_some()),
            ("--cutoffs", self.cutoffs.is_some()),
            ("--capacities", self.capacities.is_some()),
        ];
        let (taken, classes): (&[&str], _) = match kind {
            Kind::Elements(_) => (&["--elements"], ELEMENTS),
            Kind::Rows(_) => (&["--rows", "--classes"], 128_256),
            Kind::Products(Layer::AdaptiveLogSoftmax) => {
                (&["--rows", "--classes", "--hidden", "--cutoffs", "--capacities"], 1_000_000)
            }
            Kind::Products(Layer::LinearCrossEntropy) => (
                &["--rows", "--classes", "--hidden", "--subset", "--rows-temperature", "--filter"],
                128_256,
            ),
            Kind::Products(Layer::LinearLogprobEntropy) => {
                (&["--rows", "--classes", "--hidden", "--rows-temperature"], 128_256)
            }
            Kind::Products(Layer::LinearDistillation) => {
                (&["--rows", "--classes", "--hidden"], 128_256)
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
