//! The commands that run on a workspace and print a result: `sync`, `check`, `verify`, `log`, `restore`.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use ::log::LevelFilter;
use miniserde::json;

use super::args::{Check, Log, Restore, Sync, Verify};
use super::{config, parsed, patterns, print, refuse};
use crate::backup::log::{self, LIMIT_DEFAULT, LIMIT_MAX, LogOptions};
use crate::backup::preflight::{self, Mode};
use crate::backup::restore::{self, RestoreOptions};
use crate::backup::{Env, Requests, key_check, paths, run_context, sync, verify};
use crate::config::{Config, Environment, Options, Required};
use crate::model::{BackupError, Code, Result, SyncResult, WorkspaceId, run_result};
use crate::process;
use crate::request::{Draft, Flags, Purpose, SyncRequest};
use crate::service::{History, Recorder};
use crate::util::{CancelToken, Secret, logging, time};

/// The longest wait of a command until its notifications are sent, after it printed its result.
const NOTICE_TIME_MAX: Duration = Duration::from_secs(30);

pub(super) fn sync(options: &Sync, environment: &Environment) -> Result<u8> {
    let flags = Flags {
        dry_run: options.dry_run,
        force: options.force,
        allow_mass_deletion: options.allow_mass_deletion,
        allow_lost_rights: options.allow_lost_rights,
        purpose: Purpose::Sync,
    };
    run_each(&options.settings(), environment, flags, sync::run)
}

pub(super) fn verify(options: &Verify, environment: &Environment) -> Result<u8> {
    if let Some(file) = &options.key_file {
        return verify_key(file, options, environment);
    }
    let flags = Flags { purpose: Purpose::Verify, ..Flags::default() };
    run_each(&options.settings(), environment, flags, verify::run)
}

/// Runs `verify --key-file`.
fn verify_key(file: &Path, options: &Verify, environment: &Environment) -> Result<u8> {
    let mut settings = options.settings();
    let key = restore::read_key(file).unwrap_or_else(|why| {
        // Then the settings are refused.
        settings.faults.push(why);
        Secret::new("")
    });
    let config = config(&settings, environment, Required::Git)?;
    let result = with_env(&config, environment, config.log_level, |env| key_check::run(env, &key))?;
    print(&result.to_json());
    Ok(result.code.exit_code())
}

/// Does a run for each workspace, records it, and prints the results. A run that starts after a signal does not count,
/// because it shows nothing about the backup.
fn run_each(
    options: &Options,
    environment: &Environment,
    flags: Flags,
    run: fn(&SyncRequest, &Env<'_>, &str) -> SyncResult,
) -> Result<u8> {
    command(options, environment, flags, &|asked, env, recorder| {
        let mut results = Vec::new();
        for request in &asked.list {
            let counts = !env.cancel.is_cancelled();
            let result = run(request, env, &run_context::new_run_id());
            recorder.record(request, &result, counts);
            recorder.flush();
            results.push(result);
        }
        print(&run_result::all_to_json(&results, asked.is_single));
        Ok(run_result::code_of_all(&results))
    })
}

pub(super) fn restore(options: &Restore, environment: &Environment) -> Result<u8> {
    let mut settings = options.settings();
    let faults = &mut settings.faults;
    let key = options.key_file.as_deref().map(restore::read_key).transpose();
    let restore_options = RestoreOptions {
        target: parsed("--to-workspace", options.to_workspace.as_deref(), WorkspaceId::parse, faults),
        commit: parsed("--commit", options.commit.as_deref(), restore::parse_commit, faults),
        at: parsed("--at", options.at.as_deref(), time::parse_moment, faults),
        paths: patterns(&options.path, faults),
        deletes: options.delete,
        enables: options.enable,
        key: key.map_err(|why| faults.push(why)).unwrap_or_default(),
        saves: !options.no_backup_first,
        applies: options.yes,
    };
    if options.commit.is_some() && options.at.is_some() {
        faults.push("--at: it does not go with --commit".to_owned());
    }
    let flags = Flags { dry_run: !options.yes, purpose: Purpose::Restore, ..Flags::default() };
    command(&settings, environment, flags, &|asked, env, _| {
        let (true, [request]) = (asked.is_single, asked.list.as_slice()) else {
            let message = "several workspaces are configured: name the one to restore by --workspace";
            return Err(BackupError::new(Code::ConfigInvalid, message));
        };
        let restored = restore::run(request, env, &run_context::new_run_id(), &restore_options);
        print(&restored.to_json());
        Ok(restored.code)
    })
}

pub(super) fn log(options: &Log, environment: &Environment) -> Result<u8> {
    let mut settings = options.settings();
    let faults = &mut settings.faults;
    let limit = |text: &str| match text.parse() {
        Ok(limit @ 1..=LIMIT_MAX) => Ok(limit),
        _ => Err(format!("give a number from 1 to {LIMIT_MAX}")),
    };
    let log_options = LogOptions {
        paths: patterns(&options.path, faults),
        since: parsed("--since", options.since.as_deref(), time::parse_moment, faults),
        until: parsed("--until", options.until.as_deref(), time::parse_moment, faults),
        limit: parsed("--limit", options.limit.as_deref(), limit, faults).unwrap_or(LIMIT_DEFAULT),
    };
    let config = config(&settings, environment, Required::Git)?;
    let log = with_env(&config, environment, LevelFilter::Warn, |env| log::run(env, &log_options))?;
    print(if options.json { json::to_string(&log) } else { log.to_table(SystemTime::now()) }.trim_end());
    Ok(0)
}

pub(super) fn check(options: &Check, environment: &Environment) -> u8 {
    let (findings, ended) = match preflight::settings(&options.settings(), environment) {
        Ok(config) => with_env(&config, environment, LevelFilter::Error, |env| {
            (preflight::run(env, Mode::Whole), env.cancel.is_cancelled())
        }),
        Err(faults) => (faults, false),
    };
    if options.json {
        print(&preflight::to_json(&findings));
    } else {
        findings.iter().for_each(|finding| print(&finding.to_line()));
    }
    if ended { Code::ShuttingDown.exit_code() } else { preflight::exit_code(&findings) }
}

/// Starts the log, and does work that a signal cancels. The output of the command is its result, so log lines below
/// `level` are shown only if `LOG_LEVEL` is set.
fn with_env<T>(config: &Config, environment: &Environment, level: LevelFilter, work: impl FnOnce(&Env<'_>) -> T) -> T {
    let level = if environment.get("LOG_LEVEL").is_none() { level } else { config.log_level };
    logging::start(level, config.log_format);
    let (cancel, history) = (CancelToken::default(), History::new(&paths::root(config)));
    #[cfg(unix)]
    super::signals::cancel_after_grace(Duration::ZERO, &cancel, &Arc::default());
    let last_token_user = |workspace: &str, destination: &str| history.token_user(workspace, destination);
    work(&Env::new(config, &cancel, &last_token_user))
}

/// Runs the common part of the commands on workspaces: settings, logs, signals, notifications. `work` does the rest and
/// prints its result.
fn command(
    options: &Options,
    environment: &Environment,
    flags: Flags,
    work: &dyn Fn(&Requests, &Env<'_>, &Recorder) -> Result<Code>,
) -> Result<u8> {
    let config = config(options, environment, Required::Sync)?;
    if !process::run::CAN_START {
        let why = "this is WebAssembly, where neither wmill nor git can be started, so no backups are made";
        return Err(BackupError::new(Code::Internal, why));
    }
    logging::start(config.log_level, config.log_format);
    let (cancel, exit_code) = (CancelToken::default(), Arc::new(OnceLock::new()));
    #[cfg(unix)]
    super::signals::cancel_after_grace(config.shutdown_grace, &cancel, &exit_code);
    let recorder = Recorder::new(&config);
    let last_token_user = |workspace: &str, destination: &str| recorder.history.token_user(workspace, destination);
    let env = Env::new(&config, &cancel, &last_token_user);
    let draft = Draft::from_config(&config, flags);
    let asked = recorder.requests(&draft, &config, &cancel);
    let code = asked.and_then(|asked| work(&asked, &env, &recorder));
    // The result is printed before the notices are sent.
    let code = code.map_or_else(refuse, Code::exit_code);
    let code = *exit_code.get_or_init(|| code);
    recorder.finish(NOTICE_TIME_MAX);
    Ok(code)
}
