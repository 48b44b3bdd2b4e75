//! What a file may be like, whatever it knows.

use crate::fault::Fault;
use crate::files;
use crate::floors::{FLOORS, Floors};
use crate::named;
use crate::table::MADE;
use crate::tree::Tree;
use std::path::Path;

/// Lines of a file.
const LINES: usize = 450;
/// What people write by hand, and read.
const FOLDERS: [&str; 9] =
    [".ci", "benches", "build", "examples", "kernels", "scripts", "src", "tests", "xtask"];
const SUFFIXES: [&str; 6] = ["rs", "cu", "cuh", "hpp", "cpp", "py"];
/// What tells people where to look.
const DOCUMENTS: [&str; 4] = [SHOWN, "README.md", "benches/NOTES.md", "docs/losses.md"];
/// All that is PTX, or CUDA's own.
const INTRINSICS: [&str; 2] = ["intrinsics.cuh", "tensor_cores.cuh"];
/// Where the table of floors is shown.
pub const SHOWN: &str = "ARCHITECTURE.md";
const BEGIN: &str = "<!-- floors: `cargo run -p xtask -- table` writes what follows -->";
const END: &str = "<!-- floors end -->";

/// Everything that is untidy.
pub fn faults(root: &Path, tree: &Tree, floors: &Floors) -> Vec<Fault> {
    let mut faults = Vec::new();
    for folder in FOLDERS {
        for file in files::under(root, folder) {
            let text = std::fs::read_to_string(root.join(&file)).unwrap_or_default();
            faults.extend(long(&file, &text));
            if folder != "xtask" {
                faults.extend(named::faults(root, &file, &text));
            }
            if folder == "src" && file.ends_with(".rs") {
                faults.extend(notes(&file, &text));
            }
            if folder == "kernels" {
                faults.extend(absent(&file, &text));
            }
        }
    }
    for file in DOCUMENTS {
        let text = std::fs::read_to_string(root.join(file)).unwrap_or_default();
        faults.extend(named::faults(root, file, &text));
    }
    faults.extend(rooms(root, tree, floors));
    faults
}

/// A text with the table of floors in its place; `None` where it has none.
pub fn show(text: &str, floors: &Floors) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n```text\n{}```\n{END}{after}", floors.print()))
}

fn long(file: &str, text: &str) -> Option<Fault> {
    let name = file.rsplit('/').next().unwrap_or_default();
    let script = name.split_once('.').is_none() && text.starts_with("#!");
    if text.starts_with(MADE) {
        return None;
    }
    if !script && !name.rsplit_once('.').is_some_and(|(_, end)| SUFFIXES.contains(&end)) {
        return None;
    }
    let lines = text.lines().count();
    let message = format!(
        "{lines} lines, and {LINES} are the most: find the second subject and give it a file"
    );
    (lines > LINES).then(|| Fault::new("long", file, LINES + 1, "", message))
}

/// Every file is a module, and has its room.
fn rooms(root: &Path, tree: &Tree, floors: &Floors) -> Vec<Fault> {
    let mut faults = Vec::new();
    let sources = files::under(root, "src");
    let kernels = files::under(root, "kernels");
    for file in sources.iter().chain(&kernels) {
        for folder in floors.homeless(file) {
            let message = format!(
                "belongs to no room of {folder}: put it into one, or add the room to {FLOORS}"
            );
            faults.push(Fault::new("room", file, 0, &format!("in {folder}"), message));
        }
    }
    for file in sources.iter().filter(|file| file.ends_with(".rs")) {
        if !tree.files.iter().any(|known| known.path == *file) {
            let message = "no `mod` declares it: nothing compiles it".into();
            faults.push(Fault::new("orphan", file, 0, "", message));
        }
    }
    let all = [sources, kernels].concat();
    for (line, room) in floors.empty(&all) {
        let message = format!("no file belongs to {room}: take it out of the table");
        faults.push(Fault::new("empty", FLOORS, line, &room, message));
    }
    faults
}

/// What is absent from kernels on purpose, where a line can tell: float atomics, and PTX outside of
/// its files.
fn absent(file: &str, text: &str) -> Vec<Fault> {
    let mut faults = Vec::new();
    let own = INTRINSICS.iter().any(|name| file.ends_with(&format!("/{name}")));
    for (i, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        let words: Vec<&str> = code
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .filter(|w| !w.is_empty())
            .collect();
        let atomic = words.iter().any(|w| {
            w.strip_prefix("atomic")
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_uppercase()))
        });
        let ptx = words.iter().any(|w| ["asm", "__asm__"].contains(w));
        let mut fault =
            |message: String| faults.push(Fault::new("absent", file, i + 1, "", message));
        if (atomic || ptx) && !own {
            fault(format!("PTX and CUDA's atomics are in {} alone", INTRINSICS.join(" and ")));
        }
        let float = |w: &&str| ["float", "double", "__half", "__nv_bfloat16"].contains(w);
        if atomic && words.iter().any(float) {
            fault("a float atomic: its sum would come out differently every time".into());
        }
        if let Some(at) = code.find("atom.").or_else(|| code.find("red.global"))
            && ["f32", "f64", "f16", "bf16"].iter().any(|t| code[at..].contains(&format!(".{t}")))
        {
            fault("a float atomic: its sum would come out differently every time".into());
        }
    }
    faults
}

/// `// SAFETY:` notes that name no condition.
fn notes(file: &str, text: &str) -> Vec<Fault> {
    let mut faults = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    for (i, line) in lines.iter().enumerate() {
        let Some((_, note)) = line.split_once("// SAFETY:") else { continue };
        let mut note = note.trim().to_owned();
        let more = lines[i + 1..].iter().map(|line| line.trim_start());
        for more in more
            .take_while(|l| l.starts_with("//") && !l.starts_with("///") && !l.contains("SAFETY:"))
        {
            note.push(' ');
            note.push_str(more.trim_start_matches('/').trim());
        }
        if says_nothing(&note) {
            let message =
                format!("SAFETY: {note:?} names no condition: say which, and who checked it");
            faults.push(Fault::new("safety", file, i + 1, "", message));
        }
    }
    faults
}

/// Phrases that send the reader elsewhere.
const ELSEWHERE: [&str; 10] = [
    "the caller's contract is the callee's",
    "for every access below",
    "here and for what is rounded",
    "by the caller's contract",
    "the caller's contract",
    "for all of them",
    "as above",
    "see above",
    "made above",
    "row by row",
];

/// Whether a note is nothing but such phrases, or less than three words.
pub fn says_nothing(note: &str) -> bool {
    let mut note = note.to_lowercase();
    for start in ["as for ", "as in ", "see "] {
        if note.starts_with(start) {
            let end = note.find([',', ';', ':', '.']).unwrap_or(note.len());
            note.replace_range(..end, "");
        }
    }
    for phrase in ELSEWHERE {
        note = note.replace(phrase, "");
    }
    note.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).count() < 3
}
