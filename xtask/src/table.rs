//! What is written twice: made of where it is written first, and compared.

use crate::arguments::{self, Arguments, Struct};
use crate::fault::Fault;
use crate::files;
use crate::house::House;
use crate::tidy;

/// The first line of what is made begins so.
pub const MADE: &str = "// Made by `cargo run -p xtask -- table`";
/// The header that kernels include, and the one beside it that is made.
const HEADER: &str = "args.cuh";
const MADE_HEADER: &str = "args_generated.cuh";
/// Columns of a header.
const COLUMNS: usize = 120;

/// Every file that is made, or has a made part: its path and what it must say.
///
/// # Errors
/// What cannot be made, and why.
pub fn made(house: &House) -> Result<Vec<(String, String)>, String> {
    let mut made = Vec::new();
    let text = std::fs::read_to_string(house.root.join(tidy::SHOWN)).unwrap_or_default();
    let shown = tidy::show(&text, &house.floors)
        .ok_or_else(|| format!("{}:1: no place for the table of floors", tidy::SHOWN))?;
    made.push((tidy::SHOWN.into(), shown));

    let arguments = arguments::read(&house.tree)?;
    if !arguments.structs.is_empty() {
        let kernels = files::under(&house.root, "kernels");
        let header = kernels.iter().find(|file| file.ends_with(&format!("/{HEADER}")));
        let header = header.ok_or_else(|| format!("kernels:1: no {HEADER} there"))?;
        let text = std::fs::read_to_string(house.root.join(header)).unwrap_or_default();
        let include = text.lines().find(|line| line.contains("intrinsics.cuh\""));
        let include = include.unwrap_or("#include \"intrinsics.cuh\"");
        let path = header.replace(HEADER, MADE_HEADER);
        made.push((path, print(&arguments, include)));
    }
    Ok(made)
}

/// What does not say what it must.
pub fn faults(house: &House) -> Vec<Fault> {
    let made = match made(house) {
        Ok(made) => made,
        Err(why) => {
            let (file, rest) = why.split_once(':').unwrap_or(("", &why));
            let (line, why) = rest.split_once(':').unwrap_or(("", rest));
            let line = line.trim().parse().unwrap_or(0);
            return vec![Fault::new("table", file, line, "", why.trim().into())];
        }
    };
    let mut faults = Vec::new();
    for (file, text) in made {
        let now = std::fs::read_to_string(house.root.join(&file)).unwrap_or_default();
        if now != text {
            let line = now.lines().zip(text.lines()).take_while(|(a, b)| a == b).count() + 1;
            let message = "not what is made of its source; run cargo run -p xtask -- table".into();
            faults.push(Fault::new("table", &file, line, "", message));
        }
    }
    faults
}

/// The header of arguments.
fn print(arguments: &Arguments, include: &str) -> String {
    let source = &arguments.source;
    let mut text = format!(
        "{MADE} of {source} and its modules. Not to be edited.\n\
         // What a launch hands to a kernel: each struct as Rust has it. An address is null where there is no such\n\
         // tensor, or no use for it.\n\
         #pragma once\n{include}\n\n\
         // Where a field lies. Checked by the emulator's build alone: NVRTC before 13.4 does not know offsetof.\n\
         #if !WL_EMULATED\n\
         #define WL_OFFSET(type, field, at) static_assert(true, \"\")\n\
         #else\n\
         #define WL_OFFSET(type, field, at) static_assert(__builtin_offsetof(type, field) == at, #type \".\" #field)\n\
         #endif\n\n\
         static_assert(sizeof(void*) == 8, \"addresses\");\n"
    );
    for (name, value) in &arguments.lengths {
        text.push_str(&format!("#define {name} {value}\n"));
    }
    for one in &arguments.structs {
        text.push('\n');
        text.push_str(&structure(one));
    }
    text
}

fn structure(one: &Struct) -> String {
    let mut text = wrapped(&one.doc.join(" "), "// ");
    text.push_str(&format!("struct {} {{\n", one.name));
    let declared: Vec<String> = one
        .fields
        .iter()
        .map(|field| {
            let lengths: String =
                field.lengths.iter().map(|length| format!("[{length}]")).collect();
            format!("  {} {}{lengths};", field.c, field.name)
        })
        .collect();
    let width = declared.iter().map(String::len).max().unwrap_or(0);
    for (field, declared) in one.fields.iter().zip(&declared) {
        let said = wrapped(&field.doc.join(" "), &format!("{:width$}  // ", ""));
        if said.is_empty() {
            text.push_str(&format!("{declared}\n"));
        } else {
            text.push_str(&format!("{declared:width$}{}", &said[width..]));
        }
    }
    text.push_str("};\n");
    text.push_str(&format!("static_assert(sizeof({0}) == {1}, \"{0}\");\n", one.name, one.size));
    let mut line = String::new();
    for field in &one.fields {
        let at = format!("WL_OFFSET({}, {}, {});", one.name, field.name, field.offset);
        if line.len() + at.len() >= COLUMNS {
            text.push_str(&format!("{line}\n"));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(&at);
    }
    text.push_str(&format!("{line}\n"));
    text
}

/// Words in lines that begin alike and are not too long; nothing where there are none.
fn wrapped(words: &str, begin: &str) -> String {
    let mut text = String::new();
    let mut line = String::new();
    for word in words.split_whitespace() {
        if !line.is_empty() && line.len() + 1 + word.len() > COLUMNS {
            text.push_str(&format!("{line}\n"));
            line.clear();
        }
        line = if line.is_empty() { format!("{begin}{word}") } else { format!("{line} {word}") };
    }
    if line.is_empty() { text } else { format!("{text}{line}\n") }
}
