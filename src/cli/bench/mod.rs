//! `warploss bench`: every line checks its answer, then times it.

pub(super) mod adaptive_log_softmax;
mod command;
mod line;
mod linear_cross_entropy;
mod linear_distillation;
mod lines;
mod measured;
mod ops;
mod suite;
mod table;

pub(super) use command::{BenchArgs, FloatArg, at_least_one};

use super::device::DeviceChoice;
use super::failure::{self, Failure};
use super::memory;
use crate::check::bench::data::Data;
use crate::measure::{Bandwidth, Budget};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal as _, Write as _};

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
