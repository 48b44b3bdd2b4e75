//! Many lines in one process: a file of `bench` command lines, measured one after another in the
//! same buffers.

use crate::base::dtype::DType;
use crate::check::bench::Kind;
use crate::cli::bench::command::BenchArgs;
use crate::cli::bench::line::Line;
use crate::cli::failure::Failure;
use crate::device::Device;
use crate::measure::{Bandwidth, Budget};
use clap::Parser;
use serde_json::{Value, json};
use std::io::Write as _;
use std::path::Path;

/// One line of the file.
#[derive(Debug, Parser)]
#[command(no_binary_name = true)]
struct Words {
    #[command(flatten)]
    args: BenchArgs,
}

/// A line to be measured, as it stands in the file and in full.
pub(super) struct Listed {
    text: String,
    line: Line,
    seconds: Option<f64>,
}

/// The lines of a file (`-`: standard input); empty ones and those that begin with # are left out.
pub(super) fn read(path: &Path, device: &Device) -> Result<Vec<Listed>, Failure> {
    let name = format!("--lines {}", path.display());
    let text = match path.as_os_str() == "-" {
        true => std::io::read_to_string(std::io::stdin()),
        false => std::fs::read_to_string(path),
    };
    let text = text.map_err(|e| Failure::input(format!("{name}: {e}")))?;
    let mut lines = Vec::new();
    for (i, text) in text.lines().enumerate() {
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let at = |why: &str| Failure::input(format!("{name}, line {}: {why}", i + 1));
        let words = Words::try_parse_from(text.split_whitespace());
        let args = words.map_err(|e| {
            let said = e.to_string();
            at(said.lines().next().unwrap_or("expected OP and its options"))
        })?;
        let args = args.args;
        if args.op.is_none() || args.lines.is_some() {
            return Err(at("expected OP and its options"));
        }
        let seconds = args.seconds;
        let found = args.lines(device).map_err(|failure| at(&failure.message))?;
        let text = text.to_owned();
        lines.extend(found.into_iter().map(|line| Listed { text: text.clone(), line, seconds }));
    }
    if lines.is_empty() {
        return Err(Failure::input(format!("{name}: expected lines of OP and its options")));
    }
    Ok(lines)
}

/// Elements that buffers of a dtype need for all of these lines.
pub(super) fn room<'a>(lines: impl Iterator<Item = &'a Line>, dtype: DType) -> usize {
    let large = lines.filter(|line| line.dtype == dtype && !line.is_products());
    large.map(|line| line.rows.saturating_mul(line.classes)).max().unwrap_or(0)
}

/// Measures each line and prints it at once; one that fails is printed too, and the next goes on.
pub(super) fn run(
    listed: &[Listed],
    device: &Device,
    (budget, bandwidth): (&Budget, &Bandwidth),
) -> Result<(), Failure> {
    let (mut held, mut failed) = (None, 0);
    for (i, Listed { text, line, seconds }) in listed.iter().enumerate() {
        let budget = Budget { seconds: seconds.unwrap_or(budget.seconds), ..*budget };
        let room = room(listed[i..].iter().map(|l| &l.line), line.dtype);
        let mut object = match line.measure(device, &budget, (&mut held, room)) {
            Ok(measured) => measured.object(device, bandwidth),
            Err(failure) => {
                failed += 1;
                // What failed may have left anything in the buffers.
                held = None;
                let failed = json!({ "failed": failure.message });
                failed.as_object().cloned().unwrap_or_default()
            }
        };
        object.insert("line".into(), text.clone().into());
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", Value::Object(object))
            .and_then(|()| out.flush())
            .map_err(|e| Failure::failed(format!("standard output: {e}")))?;
    }
    match failed {
        0 => Ok(()),
        _ => Err(Failure::failed(format!("{failed} of {} lines failed", listed.len()))),
    }
}

impl Line {
    fn is_products(&self) -> bool {
        matches!(self.op.parts().1, Kind::Products(_))
    }
}
