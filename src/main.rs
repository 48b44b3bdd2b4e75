//! The command line `warploss`: see `warploss --help`.

fn main() -> std::process::ExitCode {
    warploss::cli::main()
}
