//! Options to run to exit code.

fn main() {}
