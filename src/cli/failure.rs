//! How a command ends when it does not succeed: one line and an exit status.

use super::typed;
use crate::base::error::Error;
use std::io::Write as _;
use std::process::ExitCode;

/// Something failed: a device, a disk, memory, a check that found a mismatch.
pub(super) const FAILED: u8 = 1;
/// Bad input: usage, a file, a shape, a value.
pub(super) const BAD_INPUT: u8 = 2;

/// One line for standard error, and the status that goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) status: u8,
    pub(super) message: String,
}

impl Failure {
    /// The caller's input is to blame.
    pub(super) fn input(message: impl Into<String>) -> Failure {
        Failure { status: BAD_INPUT, message: message.into() }
    }

    /// Something else is.
    pub(super) fn failed(message: impl Into<String>) -> Failure {
        Failure { status: FAILED, message: message.into() }
    }

    /// Says the library's error in the words of the command line: `names` are pairs of an
    /// argument's name there and the tensor or option that stands for it here.
    pub(super) fn renamed(error: &Error, names: &[(&str, String)]) -> Failure {
        let failure = Failure::from(error.clone());
        let Some((argument, rest)) = failure.message.split_once(": ") else {
            return failure;
        };
        let Some((_, here)) = names.iter().find(|(name, _)| *name == argument) else {
            return failure;
        };
        let message = match (error, typed::of(here)) {
            // As it was typed, not as a float has it.
            (Error::Value { expected, got, .. }, Some(typed)) if got.parse::<f64>().is_ok() => {
                format!("{here}: expected {expected}, got {typed}")
            }
            _ => format!("{here}: {rest}"),
        };
        Failure { message, ..failure }
    }

    /// Prints the line; the status is the process's.
    pub(super) fn report(&self) -> ExitCode {
        print(&self.message);
        ExitCode::from(self.status)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let status = match &error {
            Error::Device { .. } | Error::OutOfMemory { .. } | Error::Place { .. } => FAILED,
            Error::Shape { .. }
            | Error::Rank { .. }
            | Error::Dtype { .. }
            | Error::Length { .. }
            | Error::Stride { .. }
            | Error::Value { .. }
            | Error::NotFinite { .. }
            | Error::Target { .. }
            | Error::Io { .. } => BAD_INPUT,
        };
        let said = std::iter::successors(Some(&error as &dyn std::error::Error), |e| e.source());
        let said: Vec<_> = said.map(|e| e.to_string()).collect();
        Failure { status, message: said.join(": ") }
    }
}

/// Writes one line to standard error; a name with a line break in it does not make two.
pub(super) fn print(message: &str) {
    let line = message.replace(['\n', '\r'], " ");
    // With standard error gone there is nobody left to tell.
    let _ = writeln!(std::io::stderr(), "warploss: {line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_error_is_said_about_the_tensor_in_the_file() {
        let error = Error::Rank { argument: "logits", expected: "at least 1".into(), got: 0 };
        let failure = Failure::renamed(&error, &[("logits", "step3.input".into())]);
        assert_eq!(failure.status, BAD_INPUT);
        assert_eq!(failure.message, "step3.input: expected at least 1 dimension, got 0");
    }

    #[test]
    fn want_of_memory_is_not_the_callers_fault() {
        let error = Error::no_memory("loss", 1);
        assert_eq!(Failure::from(error).status, FAILED);
    }
}
