//! The command line: `eval`, `bench`, `check`, `plan`, `sample` and `info`.
//!
//! Exit status: 0 done, 1 something failed, 2 bad input. On 1 and 2 there is one line on standard
//! error, nothing on standard output and no output file. Nobody but `main.rs` knows this module.

mod bench;
mod check;
mod device;
mod differential;
mod eval;
mod failure;
mod file;
mod grid;
mod info;
mod kernels;
mod memory;
mod number;
mod output;
mod plan;
mod sample;
mod similar;
mod typed;
mod usage;

use clap::{Parser, Subcommand};
use device::Devices;
use failure::Failure;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;

/// Losses for training with large vocabularies: evaluate, measure and check them.
#[derive(Debug, Parser)]
#[command(name = "warploss", version, after_help = EXAMPLE, arg_required_else_help = false)]
struct Cli {
    /// Where to compute: auto, cpu, cuda, cuda:N or emulated
    ///
    /// auto is the first CUDA device that works, else the CPU. `check --differential` takes two, A,B.
    #[arg(
        long,
        global = true,
        value_name = "DEVICE",
        env = typed::DEVICE,
        default_value = "auto"
    )]
    device: Devices,

    /// Upper bound on CPU threads (default: one per core)
    #[arg(long, global = true, value_name = "N", allow_hyphen_values = true, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,

    #[command(subcommand)]
    command: Command,
}

const EXAMPLE: &str = "\
Example:
  warploss info
  warploss eval cross-entropy --input logits.safetensors --label-smoothing 0.1
  warploss bench cross-entropy --rows 1024 --classes 128256 --dtype bf16

Exit status: 0 done, 1 something failed, 2 bad input.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Compute a loss, and its gradient, from the tensors of a safetensors file
    Eval(eval::Eval),
    /// Measure losses against the machine's memory bandwidth
    Bench(bench::BenchArgs),
    /// Compare the device with a plain f64 computation
    Check(check::CheckArgs),
    /// Choose the cutoffs of an adaptive softmax for class counts, by measurement
    Plan(plan::PlanArgs),
    /// Write the batches of a balanced sampler: indices into a data set, from its labels
    Sample(sample::Sample),
    /// Say what there is: CPU, CUDA devices, what is missing
    Info(info::Info),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage::report::<Cli>(&error),
    };
    // A panic is a defect of ours, but still one line and a status that scripts expect.
    std::panic::set_hook(Box::new(|info| {
        let text = info.to_string().replace('\n', " ");
        failure::print(&format!("internal error, please report it: {text}"));
    }));
    match std::panic::catch_unwind(AssertUnwindSafe(|| cli.run())) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(failure)) => failure.report(),
        Err(_) => ExitCode::from(failure::FAILED),
    }
}

impl Cli {
    fn run(self) -> Result<(), Failure> {
        if let Some(threads) = self.threads {
            rayon::ThreadPoolBuilder::new()
                .num_threads(threads.into())
                .thread_name(|i| format!("warploss-{i}"))
                .build_global()
                .map_err(|e| Failure::failed(format!("--threads {threads}: {e}")))?;
        }
        match self.command {
            Command::Eval(eval) => eval.run(self.device.one()?),
            Command::Bench(bench) => bench.run(self.device.one()?),
            Command::Check(check) => check.run(self.device),
            Command::Plan(plan) => plan.run(self.device.one()?),
            Command::Sample(sample) => sample.run(),
            Command::Info(info) => info.run(self.device.one()?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
