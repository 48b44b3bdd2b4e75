//! `warploss check`: random and adversarial cases on the device, beside a plain f64 computation.

use super::bench::at_least_one;
use super::device::Devices;
use super::differential::{self, Budget};
use super::failure::Failure;
use super::{grid, number};
use crate::base::dtype::DType;
use crate::check::catalogue::Op;
use crate::check::subject::{Engine, Subject, check};
use crate::check::{Case, Finding};
use crate::device::Device;
use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use comfy_table::{CellAlignment, Table};
use serde_json::{Value, json};
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// The command.
#[derive(Debug, Args)]
#[command(after_help = "\
A case is made from one seed: case i of a run has seed S + i. On a mismatch its seed is printed,
and `--seed` with it and `--cases 1` repeats that case. Shares are errors over what is allowed;
1 is the limit. A mismatch ends its op; the other ops go on, and all that failed is said at the end.
With --json each op's verdict is printed when it is there: agrees, mismatch or failed.

With --differential, calls are drawn at random, wrong ones too (shapes, dtypes, options, values), and
made on two devices: same ending, same message, same values. Each difference is printed, with what
repeats it; the last line counts calls, errors and differences.

Example:
  warploss check cross-entropy --seed 7 --cases 500
  warploss check --differential --device cpu,cuda --seconds 60")]
pub(super) struct CheckArgs {
    /// Ops to check [default: all]
    #[arg(value_name = "OP")]
    ops: Vec<Op>,

    /// Seed of the first case
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,

    /// Cases for each op
    #[arg(long, value_name = "K", default_value_t = 300, allow_hyphen_values = true, value_parser = clap::value_parser!(u64).range(1..))]
    cases: u64,

    /// Compare two devices (`--device A,B`) on random calls, right and wrong
    #[arg(long, conflicts_with_all = ["rows", "classes", "schedule", "json"])]
    differential: bool,

    /// With --differential: go on for so many seconds instead
    #[arg(long, value_name = "T", requires = "differential", conflicts_with = "cases", allow_hyphen_values = true, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,

    /// Rows of the first tensor of every case; needs --classes
    #[arg(long, value_name = "N", requires = "classes", allow_hyphen_values = true, value_parser = at_least_one)]
    rows: Option<usize>,

    /// Columns of the first tensor of every case; needs --rows
    #[arg(long, value_name = "V", requires = "rows", allow_hyphen_values = true, value_parser = at_least_one)]
    classes: Option<usize>,

    /// Go through rows by this schedule, where they can be gone through by it
    #[arg(long, value_name = "SCHEDULE")]
    schedule: Option<ScheduleArg>,

    /// One JSON object an op, as soon as it is done, instead of a table
    #[arg(long)]
    json: bool,
}

/// What `--schedule` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ScheduleArg {
    /// A block a row; it stays on chip where a gradient is written
    Block,
    /// Two blocks a row that share it on chip, where a gradient is written
    #[value(name = "cluster-2")]
    Cluster2,
    /// Four blocks
    #[value(name = "cluster-4")]
    Cluster4,
    /// Eight blocks
    #[value(name = "cluster-8")]
    Cluster8,
    /// Sixteen blocks
    #[value(name = "cluster-16")]
    Cluster16,
    /// Blocks that meet in global memory
    Split,
    /// The same for both visits in one launch, where a gradient is written
    Twice,
}

impl ValueEnum for Op {
    fn value_variants<'a>() -> &'a [Op] {
        Op::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}

/// The cases of one op and dtype, and what came closest to the limit.
#[derive(Debug)]
struct Tally {
    op: &'static str,
    dtype: DType,
    cases: u64,
    results: u64,
    worst: Option<(Finding, u64)>,
}

impl CheckArgs {
    pub(super) fn run(&self, devices: Devices) -> Result<(), Failure> {
        let mut ops: Vec<Op> = self.ops.clone();
        if ops.is_empty() {
            ops = Op::ALL.to_vec();
        }
        ops.dedup();
        if self.differential {
            let budget = match self.seconds {
                Some(seconds) => Budget::Seconds(seconds),
                None => Budget::Cases(self.cases),
            };
            return differential::run(&ops, devices.two()?, self.seed, budget);
        }
        let device = devices.one()?.open()?;
        let shape = self.shape(&ops)?;
        if let Some(schedule) = self.schedule
            && !schedule.force(&device)
        {
            let got = device.name();
            return Err(Failure::input(format!(
                "--schedule: expected a CUDA or an emulated device, got {got}"
            )));
        }
        let engine = Engine(device);
        let mut verdicts = Vec::new();
        for &op in &ops {
            let before = engine.0.schedules();
            let mut verdict = self.drive(&engine, op, shape.as_deref())?;
            verdict.schedules = engine.0.schedules();
            verdict.schedules.retain(|schedule| !before.contains(schedule));
            if self.json {
                print(&format!("{}\n", verdict.json(&engine.0)))?;
            }
            verdicts.push(verdict);
        }
        summary(&verdicts)?;
        let tallies: Vec<_> = verdicts.into_iter().flat_map(|v| v.tallies).collect();
        match self.json {
            true => Ok(()),
            false => print(&format!(
                "{}\n{} cases agree on {}\n",
                table(&tallies),
                total(&tallies),
                engine.0.name()
            )),
        }
    }

    /// The shape that every case is to have.
    fn shape(&self, ops: &[Op]) -> Result<Option<Vec<usize>>, Failure> {
        let (Some(rows), Some(classes)) = (self.rows, self.classes) else { return Ok(None) };
        match ops.iter().find(|op| !op.takes_shape()) {
            Some(op) => Err(Failure::input(format!(
                "--classes: expected ops of one tensor's rows, got {}, whose cases are layers",
                op.name()
            ))),
            None => Ok(Some(vec![rows, classes])),
        }
    }

    /// Checks every case of an op; its first mismatch ends it.
    fn drive(
        &self,
        subject: &dyn Subject,
        op: Op,
        shape: Option<&[usize]>,
    ) -> Result<Verdict, Failure> {
        let start = Instant::now();
        let mut verdict = Verdict::new(op);
        for seed in (0..self.cases).map(|i| self.seed.wrapping_add(i)) {
            let case = op.case_of_shape(seed, shape)?;
            let findings = catch_unwind(AssertUnwindSafe(|| check(subject, &case)))
                .unwrap_or_else(|_| Err("a panic".into()));
            let (word, what) = match &findings {
                Err(what) => ("failed", what.clone()),
                Ok(findings) => match findings.iter().find(|f| !f.worst.agrees()) {
                    Some(bad) => ("mismatch", bad.to_string()),
                    None => {
                        tally(&mut verdict.tallies, &case, findings);
                        continue;
                    }
                },
            };
            let message = format!(
                "mismatch in {what}; case: {case}; repeat with: warploss check {} --seed {seed} --cases 1{}",
                op.name(),
                self.again()
            );
            verdict.failed = Some(Failed { word, message, seed });
            break;
        }
        verdict.seconds = start.elapsed().as_secs_f64();
        Ok(verdict)
    }

    /// The options besides that make a case what it is.
    fn again(&self) -> String {
        let mut text = String::new();
        if let (Some(rows), Some(classes)) = (self.rows, self.classes) {
            text += &format!(" --rows {rows} --classes {classes}");
        }
        let schedule = self.schedule.and_then(|schedule| schedule.to_possible_value());
        if let Some(schedule) = schedule {
            text += &format!(" --schedule {}", schedule.get_name());
        }
        text
    }
}

/// What is said of one op.
#[derive(Debug)]
struct Verdict {
    op: Op,
    tallies: Vec<Tally>,
    seconds: f64,
    /// What the device has run for it, and not for an op before.
    schedules: Vec<String>,
    failed: Option<Failed>,
}

#[derive(Debug)]
struct Failed {
    /// `mismatch` or `failed`.
    word: &'static str,
    message: String,
    seed: u64,
}

impl Verdict {
    fn new(op: Op) -> Verdict {
        Verdict { op, tallies: Vec::new(), seconds: 0.0, schedules: Vec::new(), failed: None }
    }

    /// One object.
    fn json(&self, device: &Device) -> Value {
        let worst = self.tallies.iter().filter_map(|t| t.worst).map(|(w, _)| w.worst.share());
        let results: u64 = self.tallies.iter().map(|t| t.results).sum();
        json!({
            "op": self.op.name(),
            "device": device.name(),
            "verdict": self.failed.as_ref().map_or("agrees", |f| f.word),
            "cases": total(&self.tallies),
            "results": results,
            "worst_share": number::f64(worst.fold(0.0, f64::max)),
            "seconds": number::f64(self.seconds),
            "schedules": self.schedules,
            "seed": self.failed.as_ref().map(|f| f.seed),
            "message": self.failed.as_ref().map(|f| f.message.clone()),
        })
    }
}

/// A failure where an op has one: all that was found, on one line.
fn summary(verdicts: &[Verdict]) -> Result<(), Failure> {
    let messages = verdicts.iter().filter_map(|v| Some(&v.failed.as_ref()?.message[..]));
    let messages: Vec<_> = messages.collect();
    match messages.len() {
        0 => Ok(()),
        1 => Err(Failure::failed(messages[0])),
        n => {
            let all = messages.join("; and ");
            Err(Failure::failed(format!("{n} of {} ops: {all}", verdicts.len())))
        }
    }
}

fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|e| Failure::failed(format!("standard output: {e}")))
}

impl ScheduleArg {
    /// Asks the device for it; whether it has schedules.
    #[cfg(gpu)]
    fn force(self, device: &Device) -> bool {
        use crate::code::plan::Forced;
        device.force(match self {
            ScheduleArg::Block => Forced::Block,
            ScheduleArg::Cluster2 => Forced::Cluster(2),
            ScheduleArg::Cluster4 => Forced::Cluster(4),
            ScheduleArg::Cluster8 => Forced::Cluster(8),
            ScheduleArg::Cluster16 => Forced::Cluster(16),
            ScheduleArg::Split => Forced::Split,
            ScheduleArg::Twice => Forced::Twice,
        })
    }

    #[cfg(not(gpu))]
    fn force(self, _: &Device) -> bool {
        false
    }
}

fn tally(tallies: &mut Vec<Tally>, case: &Case, findings: &[Finding]) {
    let same = |t: &&mut Tally| t.op == case.op && t.dtype == case.dtype;
    let tally = match tallies.iter_mut().find(same) {
        Some(tally) => tally,
        None => {
            let (op, dtype) = (case.op, case.dtype);
            tallies.push(Tally { op, dtype, cases: 0, results: 0, worst: None });
            let last = tallies.len() - 1;
            &mut tallies[last]
        }
    };
    tally.cases += 1;
    tally.results += findings.len() as u64;
    for finding in findings {
        let share = tally.worst.map_or(-1.0, |(worst, _)| worst.worst.share());
        if finding.worst.share() > share {
            tally.worst = Some((*finding, case.seed));
        }
    }
}

fn total(tallies: &[Tally]) -> u64 {
    tallies.iter().map(|t| t.cases).sum()
}

fn table(tallies: &[Tally]) -> Table {
    let mut table = grid::new([
        "op",
        "dtype",
        "cases",
        "results",
        "worst error",
        "allowed",
        "share",
        "in",
        "seed",
    ]);
    for t in tallies {
        let mut row =
            vec![t.op.to_owned(), t.dtype.to_string(), t.cases.to_string(), t.results.to_string()];
        if let Some((finding, seed)) = &t.worst {
            row.extend([
                format!("{:.1e}", finding.worst.error),
                format!("{:.1e}", finding.worst.allowed),
                format!("{:.2}", finding.worst.share()),
                format!("{:?} of {}", finding.quantity, finding.pass),
                seed.to_string(),
            ]);
        }
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(2).take(5) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Outcome;

    struct Silent;

    impl Subject for Silent {
        fn compute(&self, case: &Case) -> crate::base::error::Result<Vec<Outcome>> {
            let mut outcomes = Engine(crate::device::Device::cpu()).compute(case)?;
            outcomes.iter_mut().for_each(|o| o.values.fill(0.0));
            Ok(outcomes)
        }
    }

    fn args(seed: u64, cases: u64) -> CheckArgs {
        CheckArgs {
            ops: vec![],
            seed,
            cases,
            differential: false,
            seconds: None,
            rows: None,
            classes: None,
            schedule: None,
            json: false,
        }
    }

    #[test]
    fn a_mismatch_fails_and_names_the_seed_that_repeats_it() {
        let drive = |seed, cases| args(seed, cases).drive(&Silent, Op::CrossEntropy, None).unwrap();
        let verdict = drive(5, 50);
        assert_eq!(verdict.json(&Device::cpu())["verdict"], "mismatch");
        let failure = summary(&[verdict]).unwrap_err();
        assert_eq!(failure.status, super::super::failure::FAILED);
        let seed: u64 = failure
            .message
            .split_once("--seed ")
            .and_then(|(_, rest)| rest.split(' ').next()?.parse().ok())
            .unwrap();
        assert_eq!(summary(&[drive(seed, 1)]).unwrap_err(), failure);
    }

    #[test]
    fn one_op_that_fails_hides_no_other() {
        let ops = [Op::CrossEntropy, Op::Nll, Op::Mse];
        let verdicts = ops.map(|op| args(5, 50).drive(&Silent, op, None).unwrap());
        let failure = summary(&verdicts).unwrap_err();
        assert!(failure.message.starts_with("3 of 3 ops: "), "{}", failure.message);
        for op in ops {
            let again = format!("warploss check {} --seed", op.name());
            assert!(failure.message.contains(&again), "{}", failure.message);
        }
    }
}
