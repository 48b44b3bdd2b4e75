//! What a rule finds.

use std::fmt;

/// A fault: where, what, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// The file, from the root of the project.
    pub file: String,
    /// Counted from 1; 0 where the whole file is meant.
    pub line: usize,
    /// The name of the fault in the list of known ones: no line numbers, which move.
    pub key: String,
    /// What is wrong and what to do about it.
    pub message: String,
}

impl Fault {
    /// A fault whose key is made of the rule and of what it names.
    pub fn new(rule: &str, file: &str, line: usize, names: &str, message: String) -> Fault {
        let key = format!("{rule} {file}{}{names}", if names.is_empty() { "" } else { " " });
        Fault { file: file.into(), line, key, message }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line.max(1), self.message)
    }
}
