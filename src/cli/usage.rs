//! Usage errors in one line, and help on standard output.

use super::{failure, typed};
use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use std::process::ExitCode;

/// Prints help or version where asked for; else the error as one line, and status 2.
pub(super) fn report<C: CommandFactory>(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A reader that has closed its end wants no more of it.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            ExitCode::from(failure::BAD_INPUT)
        }
        _ => {
            failure::print(&one_line::<C>(error));
            ExitCode::from(failure::BAD_INPUT)
        }
    }
}

/// What Rust says of text that is no number, and what that means to a user.
const PARSING: [(&str, &str); 6] = [
    (": invalid float literal", ": expected a number"),
    (": cannot parse float from empty string", ": expected a number"),
    (": invalid digit found in string", ": expected a whole number"),
    (": cannot parse integer from empty string", ": expected a whole number"),
    (": number too large to fit in target type", ": expected a whole number closer to 0"),
    (": number too small to fit in target type", ": expected a whole number closer to 0"),
];

fn one_line<C: CommandFactory>(error: &clap::Error) -> String {
    let text = error.render().to_string();
    // Clap's first paragraph is the error, the rest are hints and the usage.
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    let mut line = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some(rest) = line.strip_prefix("error: ") {
        line = rest.to_owned();
    }
    let device = "'--device <DEVICE>'";
    if line.contains(device) && typed::device() == typed::DEVICE {
        line = line.replace(device, &format!("the environment's {}", typed::DEVICE));
    }
    for (rust, words) in PARSING {
        line = line.replace(rust, words);
    }
    // A whole number that is none of those asked for is below 0.
    if let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidValue)
        && line.ends_with(": expected a whole number")
        && value.parse::<i128>().is_ok()
    {
        line.push_str(" ≥ 0");
    }
    if error.kind() == ErrorKind::InvalidSubcommand {
        line = format!("{line}, expected one of {}", known::<C>(error).join(", "));
    }
    match meant(error) {
        Some(meant) => format!("{line}, did you mean {meant}?"),
        None => line,
    }
}

/// What clap takes for the option, command or value that was meant.
fn meant(error: &clap::Error) -> Option<String> {
    let kinds =
        [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand, ContextKind::SuggestedValue];
    let typed = match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(typed)) => Some(typed.replace('_', "-")),
        _ => None,
    };
    kinds.into_iter().find_map(|kind| match error.get(kind)? {
        ContextValue::String(one) => Some(one.clone()),
        ContextValue::Strings(several) => {
            // One that is what was typed, but for the kind of dash, is the one that was meant.
            let same = several.iter().find(|name| typed.as_ref() == Some(*name));
            let all = (!several.is_empty()).then(|| several.join(" or "));
            same.cloned().or(all)
        }
        _ => None,
    })
}

/// The subcommands that were legal where the error happened.
fn known<C: CommandFactory>(error: &clap::Error) -> Vec<String> {
    let mut command = C::command();
    if let Some(ContextValue::StyledStr(usage)) = error.get(ContextKind::Usage) {
        // "Usage: warploss eval [OPTIONS] …": follow the names as far as they lead.
        for word in usage.to_string().split_whitespace().skip(2) {
            match command.find_subcommand(word) {
                Some(inner) => command = inner.clone(),
                None => break,
            }
        }
    }
    command.get_subcommands().map(|c| c.get_name().to_owned()).collect()
}
