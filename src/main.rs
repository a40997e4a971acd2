//! The entry point of the program; everything it does is in [`windmill_git_sync::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    windmill_git_sync::cli::main()
}
