//! The command line `warploss`.

fn main() {}
