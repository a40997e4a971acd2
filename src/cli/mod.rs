//! The command line: turns options into a run, and its result into an exit code. It alone reads arguments and
//! environment, and prints.

mod args;
mod run;
mod serve;
#[cfg(unix)]
mod signals;

use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;

use args::Command;

use crate::backup::Pattern;
use crate::config::{Config, Environment, Options, Required};
#[cfg(unix)]
use crate::git::{LINE_PREFIX, OPTIONS_ENVIRONMENT, PUSH_ENVIRONMENT, ssh_helper};
use crate::model::{BackupError, Code, Result, run_result};
#[cfg(unix)]
use crate::process::confine;

const PROGRAM: &str = "windmill-git-sync";

/// Runs the program.
pub fn main() -> ExitCode {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads arguments and environment")]
    let (arguments, environment) = (std::env::args_os().skip(1), std::env::vars_os());
    #[cfg(unix)]
    #[expect(clippy::disallowed_methods, reason = "git started us as its ssh, and tells by the environment")]
    if let Some(options) = std::env::var_os(OPTIONS_ENVIRONMENT) {
        let push = std::env::var_os(PUSH_ENVIRONMENT);
        let mut report = |line: String| eprint_line(&[LINE_PREFIX, &line].concat());
        let error = ssh_helper::become_ssh(&options, push.as_deref(), arguments, &mut report);
        eprint_line(&format!("{PROGRAM}: cannot start ssh: {error}"));
        return ExitCode::from(255);
    }
    #[cfg(unix)]
    confine::protect_secrets();
    let environment = Environment::new(environment);
    let ended = match args::parse(arguments) {
        Ok(Command::Serve(options)) => {
            Ok(serve::serve(&options, &environment).unwrap_or_else(|error| complain(&error)))
        }
        Ok(Command::Sync(options)) => run::sync(&options, &environment),
        Ok(Command::Check(options)) => Ok(run::check(&options, &environment)),
        Ok(Command::Verify(options)) => run::verify(&options, &environment),
        Ok(Command::Log(options)) => run::log(&options, &environment),
        Ok(Command::Restore(options)) => run::restore(&options, &environment),
        Ok(Command::Healthcheck(options)) => {
            Ok(serve::healthcheck(&options, &environment).unwrap_or_else(|error| complain(&error)))
        }
        Err(code) => Ok(code),
    };
    ExitCode::from(ended.unwrap_or_else(refuse))
}

/// Prints a result. If stdout is closed, the exit code remains; `println!` would panic.
fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Prints text that is not a log line to standard error. If that is closed, the work continues.
fn eprint_line(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Prints the error of a command that has no result, and returns its exit code.
fn refuse(error: BackupError) -> u8 {
    let error = error.explained("it took longer than SYNC_TIMEOUT".to_owned(), "ended by a signal".to_owned());
    print(&run_result::error_json(error.code, &error.message));
    complain(&error)
}

/// Prints the message of an error, and returns its exit code.
fn complain(error: &BackupError) -> u8 {
    eprint_line(&format!("{PROGRAM}: {}", error.message));
    error.code.exit_code()
}

/// Returns the settings of a command. The error lists everything that is wrong with them.
fn config(options: &Options, environment: &Environment, need: Required) -> Result<Config> {
    let config = Config::new(options, environment, need);
    config.map_err(|error| BackupError::new(Code::ConfigInvalid, error.to_string()))
}

/// Parses the value of an option, and adds what is wrong with it to `faults`.
fn parsed<T, E: Display>(
    option: &str,
    text: Option<&str>,
    parse: impl FnOnce(&str) -> Result<T, E>,
    faults: &mut Vec<String>,
) -> Option<T> {
    text.map(parse)?.map_err(|why| faults.push(format!("{option}: {why}"))).ok()
}

/// Parses the patterns of `--path`, and adds what is wrong with one to `faults`.
fn patterns(texts: &[String], faults: &mut Vec<String>) -> Vec<Pattern> {
    texts.iter().filter_map(|text| parsed("--path", Some(text), Pattern::parse, faults)).collect()
}
