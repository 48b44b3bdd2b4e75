//! What was typed: numbers as the user wrote them, and where a choice of device came from.

/// The last value that an option was given on this process's command line.
pub(super) fn of(option: &str) -> Option<String> {
    last(std::env::args_os().filter_map(|arg| arg.into_string().ok()), option)
}

fn last(args: impl Iterator<Item = String>, option: &str) -> Option<String> {
    let mut args = args.peekable();
    let mut found = None;
    while let Some(arg) = args.next() {
        if arg == "--" {
            break;
        }
        match arg.strip_prefix(option) {
            Some("") => found = args.peek().cloned(),
            Some(rest) if rest.starts_with('=') => found = Some(rest[1..].to_owned()),
            _ => {}
        }
    }
    found
}

/// What chose the device: `--device`, or where there is none `WARPLOSS_DEVICE`.
pub(super) fn device() -> &'static str {
    match of("--device").is_none() && std::env::var_os(DEVICE).is_some() {
        true => DEVICE,
        false => "--device",
    }
}

/// The variable that names a device.
pub(super) const DEVICE: &str = "WARPLOSS_DEVICE";

#[cfg(test)]
mod tests {
    #[test]
    fn the_last_value_counts() {
        let typed =
            |line: &str, option| super::last(line.split_whitespace().map(str::to_owned), option);
        let line = "eval l1 --beta 1.10 --beta=1e39 --beta-scale 3 --delta -0.1";
        assert_eq!(typed(line, "--beta").as_deref(), Some("1e39"));
        assert_eq!(typed(line, "--delta").as_deref(), Some("-0.1"));
        assert_eq!(typed(line, "--gamma"), None);
        assert_eq!(typed("x -- --delta 1", "--delta"), None);
    }
}
