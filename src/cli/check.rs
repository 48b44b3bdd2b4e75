//! `warploss check`: random and adversarial cases on the device, beside a plain f64 computation.

use super::device::Devices;
use super::differential::{self, Budget};
use super::failure::Failure;
use super::grid;
use crate::DType;
use crate::check::cases::{Case, Op};
use crate::check::subject::{Engine, Finding, Subject, check};
use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use comfy_table::{CellAlignment, Table};
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The command.
#[derive(Debug, Args)]
#[command(after_help = "\
A case is made from one seed: case i of a run has seed S + i. On a mismatch its seed is printed,
and `--seed` with it and `--cases 1` repeats that case. Shares are errors over what is allowed;
1 is the limit.

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
    #[arg(long)]
    differential: bool,

    /// With --differential: go on for so many seconds instead
    #[arg(long, value_name = "T", requires = "differential", conflicts_with = "cases", allow_hyphen_values = true, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
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
    op: Op,
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
        let engine = Engine(device);
        let tallies = self.drive(&engine, &ops)?;
        let text = format!(
            "{}\n{} cases agree on {}\n",
            table(&tallies),
            total(&tallies),
            engine.0.name()
        );
        std::io::stdout()
            .write_all(text.as_bytes())
            .map_err(|e| Failure::failed(format!("standard output: {e}")))
    }

    /// Checks every case; the first mismatch ends it.
    fn drive(&self, subject: &dyn Subject, ops: &[Op]) -> Result<Vec<Tally>, Failure> {
        let mut tallies: Vec<Tally> = Vec::new();
        for &op in ops {
            for seed in (0..self.cases).map(|i| self.seed.wrapping_add(i)) {
                let case = Case::new(op, seed)?;
                let mismatch = |what: String| {
                    Failure::failed(format!(
                        "mismatch in {what}; case: {case}; repeat with: warploss check {} --seed {seed} --cases 1",
                        op.name()
                    ))
                };
                let findings = catch_unwind(AssertUnwindSafe(|| check(subject, &case)))
                    .unwrap_or_else(|_| Err("a panic".into()))
                    .map_err(mismatch)?;
                if let Some(bad) = findings.iter().find(|f| !f.worst.agrees()) {
                    return Err(mismatch(bad.to_string()));
                }
                tally(&mut tallies, &case, &findings);
            }
        }
        Ok(tallies)
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
        let mut row = vec![
            t.op.name().to_owned(),
            t.dtype.to_string(),
            t.cases.to_string(),
            t.results.to_string(),
        ];
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
    use crate::check::subject::Outcome;

    const NONE: CheckArgs =
        CheckArgs { ops: vec![], seed: 0, cases: 1, differential: false, seconds: None };

    struct Silent;

    impl Subject for Silent {
        fn compute(&self, case: &Case) -> crate::Result<Vec<Outcome>> {
            let mut outcomes = Engine(crate::Device::cpu()).compute(case)?;
            outcomes.iter_mut().for_each(|o| o.values.fill(0.0));
            Ok(outcomes)
        }
    }

    #[test]
    fn a_mismatch_fails_and_names_the_seed_that_repeats_it() {
        let args = CheckArgs { seed: 5, cases: 50, ..NONE };
        let failure = args.drive(&Silent, &[Op::CrossEntropy]).unwrap_err();
        assert_eq!(failure.status, super::super::failure::FAILED);
        let seed: u64 = failure
            .message
            .split_once("--seed ")
            .and_then(|(_, rest)| rest.split(' ').next()?.parse().ok())
            .unwrap();
        let again = CheckArgs { seed, cases: 1, ..NONE };
        assert_eq!(again.drive(&Silent, &[Op::CrossEntropy]).unwrap_err(), failure);
    }
}
