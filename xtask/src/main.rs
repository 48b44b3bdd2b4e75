//! `cargo run -p xtask -- order`: see ARCHITECTURE.md, "Order is a test".

use std::process::ExitCode;
use xtask::house::House;
use xtask::known::{KNOWN, Known};
use xtask::{order, table};

const USAGE: &str = "\
cargo run -p xtask -- COMMAND

order   who knows whom: arrows upward, circles of files, names taken from the root
tidy    long files, files without a room, notes that say nothing, what is absent on purpose
table   writes what is written twice
known   takes out of xtask/known.txt what is mended";

fn main() -> ExitCode {
    let command = std::env::args().nth(1).unwrap_or_default();
    let done = match &command[..] {
        "order" => House::read(&House::root()).and_then(|house| {
            house.keep_order()?;
            let (files, arrows) = (house.tree.files.len(), order::arrows(&house.tree).len());
            Ok(format!(
                "order is kept: {files} files, {arrows} arrows, {} faults known",
                house.known.len()
            ))
        }),
        "tidy" => House::read(&House::root()).and_then(|house| {
            house.keep_tidy()?;
            Ok(format!("tidy, but for what is known: {} faults", house.known.len()))
        }),
        "table" => House::read(&House::root()).and_then(|house| write(&house)),
        "known" => House::read(&House::root()).and_then(|house| known(&house)),
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// Writes what is made.
fn write(house: &House) -> Result<String, String> {
    let mut said = Vec::new();
    for (file, text) in table::made(house)? {
        let path = house.root.join(&file);
        if std::fs::read_to_string(&path).is_ok_and(|now| now == text) {
            said.push(format!("{file} is as it must be"));
        } else {
            std::fs::write(&path, text).map_err(|e| format!("{file}: {e}"))?;
            said.push(format!("wrote {file}"));
        }
    }
    Ok(said.join("\n"))
}

/// Writes the list of known faults, shorter.
fn known(house: &House) -> Result<String, String> {
    let faults = [house.order(), house.tidy()].concat();
    let next: Known = house.known.shrink(&house.root, &faults)?;
    let path = house.root.join(KNOWN);
    let written = if next.is_empty() {
        std::fs::remove_file(&path)
    } else {
        std::fs::write(&path, next.print())
    };
    written.map_err(|e| format!("{KNOWN}: {e}"))?;
    Ok(format!("{} faults known, {} before", next.len(), house.known.len()))
}
