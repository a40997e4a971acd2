//! Options to run to exit code. The one place that reads arguments and environment, prints, and ends the process.

// A function fits a screen. In a test, a table may be longer.
#![cfg_attr(not(test), warn(clippy::too_many_lines))]

use std::ffi::OsString;
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use argh::{EarlyExit, FromArgs};
use log::LevelFilter;
use windmill_git_sync::app::App;
use windmill_git_sync::check::{self, Extent};
use windmill_git_sync::code::Code;
use windmill_git_sync::config::{Config, Environment, Need, Options};
use windmill_git_sync::deadline::{Deadline, Interrupt};
use windmill_git_sync::history::History;
use windmill_git_sync::ledger::Ledger;
use windmill_git_sync::metrics::Metrics;
use windmill_git_sync::names::WorkspaceId;
use windmill_git_sync::notifier::Notifier;
use windmill_git_sync::outcome::SyncResult;
use windmill_git_sync::pattern::Pattern;
use windmill_git_sync::restore::{self, Wish};
use windmill_git_sync::roster::{Asked, Roster};
use windmill_git_sync::runs::Runs;
use windmill_git_sync::scheduler::Scheduler;
use windmill_git_sync::server::{Draining, Server};
use windmill_git_sync::sync;
use windmill_git_sync::sync_request::{Draft, Flags, Purpose, SyncRequest};
use windmill_git_sync::task::{self, Event, Service, Step};
use windmill_git_sync::work::{self, Syncs, log_step};
use windmill_git_sync::{lock, logging, outcome, trust, verify};
#[cfg(unix)]
use windmill_git_sync::{ssh, subprocess};

/// Exit code of a usage error.
const USAGE_ERROR: u8 = 2;
/// How long a sync that was told to end may take to end its programs.
const KILL_TIME_MAX: Duration = Duration::from_secs(5);
/// How long callers may take to read their last answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(3);
/// How long the `sync` command stays to have notices sent, after it printed its result.
const NOTICE_TIME_MAX: Duration = Duration::from_secs(30);
/// How long a service that ends stays for them; whoever stops it waits.
const LAST_NOTICE_TIME_MAX: Duration = Duration::from_secs(2);
/// A service that does not answer by then is not healthy.
const HEALTHCHECK_TIME_MAX: Duration = Duration::from_secs(5);
/// How often a service that ends looks whether its check has ended.
const CHECK_POLL_INTERVAL: Duration = Duration::from_millis(5);
/// Waiting for a turn is shown where there was some.
const SHOWN_STEP_TIME_MIN: Duration = Duration::from_millis(100);
const PROGRAM: &str = "windmill-git-sync";

/// Backs a Windmill workspace up into a git repository, and proves that it arrived.
///
/// Settings come from the environment; the README lists them all. Secrets have no options: an argument list is readable
/// by every process.
#[derive(FromArgs)]
#[argh(
    note = "Exit codes: 0 done; 1 internal; 2 usage or configuration; 3 backup and workspace differ; 10 Windmill; 11 git; 12 a guard refused; 13 timeout; 14 shutting down.",
    help_triggers("-h", "--help", "help")
)]
struct Arguments {
    /// print the version
    #[argh(switch)]
    version: bool,
    #[argh(subcommand)]
    command: Option<Command>,
}

#[derive(FromArgs)]
#[argh(subcommand)]
enum Command {
    Serve(Serve),
    Sync(Sync),
    Check(Check),
    Verify(Verify),
    Restore(Restore),
    Healthcheck(Healthcheck),
}

/// Listens for `POST /sync`, follows SYNC_SCHEDULE, and tells how the backups stand, until it is told to end.
#[derive(FromArgs)]
#[argh(subcommand, name = "serve", help_triggers("-h", "--help", "help"))]
struct Serve {
    /// address to listen on (LISTEN_ADDR, 0.0.0.0:8080)
    #[argh(option)]
    listen: Option<String>,
    /// folder for checkouts and state (DATA_DIR, /workspace)
    #[argh(option)]
    data_dir: Option<String>,
}

/// A command on a workspace and its backup. Its settings are the same for each such command, and argh cannot take them
/// from another struct: they go where `..workspace` stands, with what is said of the workspace. No `ty` is in here, since
/// argh reads the words of a type, and a macro hides those.
macro_rules! command_on_a_workspace {
    (
        $(#[$about:meta])*
        struct $name:ident {
            $($(#[$of_first:meta])* $first:ident: $first_type:ident,)*
            ..workspace = $workspace:literal,
            $($others:tt)*
        }
    ) => {
        $(#[$about])*
        struct $name {
            $($(#[$of_first])* $first: $first_type,)*
            #[argh(option, description = $workspace)]
            workspace: Option<String>,
            /// address of Windmill (WINDMILL_BASE_URL, http://windmill_server:8000)
            #[argh(option)]
            base_url: Option<String>,
            /// git remote (GIT_REMOTE_URL)
            #[argh(option)]
            remote: Option<String>,
            /// branch (GIT_BRANCH, main); {workspace} is replaced
            #[argh(option)]
            branch: Option<String>,
            /// folder in the repository (GIT_SUBDIR, the root); {workspace} is replaced
            #[argh(option)]
            subdir: Option<String>,
            /// folder for checkouts and state (DATA_DIR, /workspace)
            #[argh(option)]
            data_dir: Option<String>,
            $($others)*
        }

        impl $name {
            fn settings(&self) -> Options {
                Options {
                    workspace: self.workspace.clone(),
                    base_url: self.base_url.clone(),
                    remote: self.remote.clone(),
                    branch: self.branch.clone(),
                    subdir: self.subdir.clone(),
                    data_dir: self.data_dir.clone(),
                    listen: None,
                }
            }
        }
    };
}

command_on_a_workspace! {
    /// Does one sync; prints the result as one JSON object on stdout, logs on stderr.
    #[derive(FromArgs)]
    #[argh(subcommand, name = "sync", help_triggers("-h", "--help", "help"))]
    struct Sync {
        ..workspace = "workspace id (WINDMILL_WORKSPACE, admins)",
        /// show what would be committed, and push nothing
        #[argh(switch)]
        dry_run: bool,
        /// take no shortcut for an unchanged workspace
        #[argh(switch)]
        force: bool,
        /// let this run delete more than MAX_DELETIONS_PERCENT
        #[argh(switch)]
        allow_mass_deletion: bool,
    }
}

command_on_a_workspace! {
    /// Tries all that a sync needs, and changes nothing: a line for each thing that is ok, a warning, or failed.
    #[derive(FromArgs)]
    #[argh(
        subcommand,
        name = "check",
        help_triggers("-h", "--help", "help"),
        note = "Exit codes: 0 nothing failed; 2 configuration; 10 Windmill; 11 git, the first that failed in this order; 14 it was ended."
    )]
    struct Check {
        /// print one JSON object in place of lines
        #[argh(switch)]
        json: bool,
        ..workspace = "workspace id (WINDMILL_WORKSPACE, admins)",
    }
}

command_on_a_workspace! {
    /// Compares the workspace with the tip of the branch on the remote, and changes nothing; prints the result as one
    /// JSON object on stdout.
    #[derive(FromArgs)]
    #[argh(
        subcommand,
        name = "verify",
        note = "Exit codes: 0 the backup is the workspace; 3 they differ; others as of sync.",
        help_triggers("-h", "--help", "help")
    )]
    struct Verify {
        ..workspace = "workspace id (WINDMILL_WORKSPACE, admins)",
    }
}

command_on_a_workspace! {
    /// Puts a commit of the backup into a workspace. Without --yes it only shows what would change. What is there is
    /// saved to a branch restore-point/… first, and the workspace is read back at the end.
    #[derive(FromArgs)]
    #[argh(
        subcommand,
        name = "restore",
        note = "Exit codes: 0 done, or shown; 3 something did not come back; others as of sync.",
        help_triggers("-h", "--help", "help")
    )]
    struct Restore {
        ..workspace = "workspace of the backup (WINDMILL_WORKSPACE, admins)",
        /// commit of the branch, its id or the first digits (the branch's tip)
        #[argh(option)]
        commit: Option<String>,
        /// workspace to put it into (that of the backup)
        #[argh(option)]
        to_workspace: Option<String>,
        /// only what this pattern means, such as f/ops/**; may be given again
        #[argh(option)]
        path: Vec<String>,
        /// also delete what the commit does not have
        #[argh(switch)]
        delete: bool,
        /// in another workspace, leave schedules and triggers enabled
        #[argh(switch)]
        enable: bool,
        /// file with the encryption key of the commit's secrets, which the workspace gets first
        #[argh(option)]
        key_file: Option<PathBuf>,
        /// do not save what is there
        #[argh(switch)]
        no_backup_first: bool,
        /// do it
        #[argh(switch)]
        yes: bool,
    }
}

/// Asks the local listener whether it works; exits with 0 or 1.
#[derive(FromArgs)]
#[argh(subcommand, name = "healthcheck", help_triggers("-h", "--help", "help"))]
struct Healthcheck {
    /// address that the service listens on (LISTEN_ADDR, 0.0.0.0:8080)
    #[argh(option)]
    listen: Option<String>,
}

fn main() -> ExitCode {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads arguments and environment")]
    let (arguments, environment) = (std::env::args_os().skip(1), std::env::vars_os());
    #[cfg(unix)]
    #[expect(clippy::disallowed_methods, reason = "git started us as its ssh, and tells by the environment")]
    if let Some(options) = std::env::var_os(ssh::OPTIONS_ENVIRONMENT) {
        let push = std::env::var_os(ssh::PUSH_ENVIRONMENT);
        let mut tell = |line: String| say(&[ssh::LINE_PREFIX, &line].concat());
        let error = ssh::become_ssh(&options, push.as_deref(), arguments, &mut tell);
        say(&format!("{PROGRAM}: cannot start ssh: {error}"));
        return ExitCode::from(255);
    }
    #[cfg(unix)]
    subprocess::forbid_core_files();
    let environment = Environment::new(environment);
    match parse(arguments) {
        Ok(Command::Serve(options)) => serve(options, &environment),
        Ok(Command::Sync(options)) => sync(&options, &environment),
        Ok(Command::Check(options)) => check(&options, &environment),
        Ok(Command::Verify(options)) => verify(&options, &environment),
        Ok(Command::Restore(options)) => restore(&options, &environment),
        Ok(Command::Healthcheck(options)) => healthcheck(options, &environment),
        Err(code) => code,
    }
}

/// The command to run; otherwise what was asked for is printed, or what is wrong.
fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Command, ExitCode> {
    let arguments: Result<Vec<_>, _> = arguments.map(OsString::into_string).collect();
    let Ok(arguments) = arguments else {
        say("an argument is not UTF-8");
        return Err(ExitCode::from(USAGE_ERROR));
    };
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    match Arguments::from_args(&[PROGRAM], &words) {
        Ok(Arguments { version: true, .. }) => {
            print(&format!("{PROGRAM} {}", env!("CARGO_PKG_VERSION")));
            Err(ExitCode::SUCCESS)
        }
        Ok(Arguments { command: Some(command), .. }) => Ok(command),
        Ok(Arguments { command: None, .. }) => {
            say(&format!("a command is missing\n\n{}", help(&[]).trim_end()));
            Err(ExitCode::from(USAGE_ERROR))
        }
        Err(EarlyExit { output, status: Ok(()) }) => {
            print(output.trim_end());
            Err(ExitCode::SUCCESS)
        }
        Err(EarlyExit { output, status: Err(()) }) => {
            say(&format!("{}\n\n{}", output.trim_end(), usage(&words)));
            Err(ExitCode::from(USAGE_ERROR))
        }
    }
}

/// How the command is used that these words begin with; where they begin with none, how the program is.
fn usage(words: &[&str]) -> String {
    let of_command = words.first().filter(|word| !word.starts_with('-')).map(|command| help(&[command]));
    let help = of_command.filter(|text| text.starts_with("Usage")).unwrap_or_else(|| help(&[]));
    help.split("\n\n").next().unwrap_or_default().to_owned()
}

fn help(command: &[&str]) -> String {
    let asked = [command, &["--help"]].concat();
    Arguments::from_args(&[PROGRAM], &asked).err().map_or_else(String::new, |help| help.output)
}

/// Prints a result. Where nobody takes it, the exit code still tells; `println!` would panic.
fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Tells what is no log line; where nobody listens, the work goes on.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Ends with the result that a caller of `sync` gets for wrong settings.
fn refuse(code: Code, message: &str) -> ExitCode {
    print(&outcome::error_json(code, message));
    say(&format!("{PROGRAM}: {message}"));
    ExitCode::from(code.exit_code())
}

fn own_program() -> PathBuf {
    #[expect(clippy::disallowed_methods, reason = "the one place that asks where it lies")]
    std::env::current_exe().unwrap_or_else(|_| PROGRAM.into())
}

fn sync(options: &Sync, environment: &Environment) -> ExitCode {
    let flags = Flags {
        dry_run: options.dry_run,
        force: options.force,
        allow_mass_deletion: options.allow_mass_deletion,
        purpose: Purpose::Sync,
    };
    command(&options.settings(), environment, flags, &mut |asked, service, ledger| {
        let run = |request: &SyncRequest| run_and_note(request, service, ledger, sync::run, |result| result);
        match asked {
            Asked::One(request) => {
                let result = run(&request);
                print(&result.to_json());
                result.code
            }
            Asked::Several(requests) => {
                let results: Vec<_> = requests.iter().map(run).collect();
                print(&outcome::all_to_json(&results));
                outcome::code_of_all(&results)
            }
        }
    })
}

fn verify(options: &Verify, environment: &Environment) -> ExitCode {
    let flags = Flags { purpose: Purpose::Verify, ..Flags::default() };
    command(&options.settings(), environment, flags, &mut |asked, service, ledger| {
        let run = |request: &SyncRequest| run_and_note(request, service, ledger, verify::run, |found| &found.result);
        match asked {
            Asked::One(request) => {
                let found = run(&request);
                print(&found.to_json());
                found.result.code
            }
            Asked::Several(requests) => {
                let all: Vec<_> = requests.iter().map(run).collect();
                print(&outcome::listed_to_json(&all));
                outcome::code_of_all(all.iter().map(|found| &found.result))
            }
        }
    })
}

/// One run of a command, taken down. One that would have begun after the end was asked for says nothing of its backup.
fn run_and_note<T>(
    request: &SyncRequest,
    service: &Service<'_>,
    ledger: &Ledger,
    run: impl FnOnce(&SyncRequest, &Service<'_>, &str) -> T,
    result: impl FnOnce(&T) -> &SyncResult,
) -> T {
    let counts = !service.interrupt.is_raised();
    let done = run(request, service, &task::new_run_id());
    work::note(ledger, request, result(&done), counts);
    ledger.settle();
    done
}

fn restore(options: &Restore, environment: &Environment) -> ExitCode {
    let wish = match wish(options) {
        Ok(wish) => wish,
        Err(faults) => return refuse(Code::ConfigInvalid, &faults.join("; ")),
    };
    let flags = Flags { dry_run: !options.yes, purpose: Purpose::Restore, ..Flags::default() };
    command(&options.settings(), environment, flags, &mut |asked, service, _| {
        let Asked::One(request) = asked else {
            refuse(Code::ConfigInvalid, "several workspaces are configured: name the one to restore by --workspace");
            return Code::ConfigInvalid;
        };
        let restored = restore::run(&request, service, &task::new_run_id(), &wish);
        print(&restored.to_json());
        restored.result.code
    })
}

/// What is asked for beside the settings, or all that is wrong with it.
fn wish(options: &Restore) -> Result<Wish, Vec<String>> {
    let mut faults = Vec::new();
    let mut paths = Vec::new();
    for text in &options.path {
        match Pattern::parse(text) {
            Ok(pattern) => paths.push(pattern),
            Err(why) => faults.push(["--path: ", &why].concat()),
        }
    }
    let target = options.to_workspace.as_deref().map(WorkspaceId::parse).transpose();
    let target =
        target.map_err(|error| faults.push(["--to-workspace: ", &error.to_string()].concat())).unwrap_or_default();
    if let Some(Err(why)) = options.commit.as_deref().map(restore::check_commit) {
        faults.push(why);
    }
    let key = options.key_file.as_deref().map(restore::read_key).transpose();
    let key = key.map_err(|why| faults.push(why)).unwrap_or_default();
    if !faults.is_empty() {
        return Err(faults);
    }
    Ok(Wish {
        target,
        commit: options.commit.clone(),
        paths,
        deletes: options.delete,
        enables: options.enable,
        key,
        saves: !options.no_backup_first,
        applies: options.yes,
    })
}

/// What the commands have in common that work on workspaces: settings, logs, signals, notices. `work` does the rest, and
/// prints its result.
fn command(
    options: &Options,
    environment: &Environment,
    flags: Flags,
    work: &mut dyn FnMut(Asked, &Service<'_>, &Ledger) -> Code,
) -> ExitCode {
    let config = match Config::new(options, environment, Need::Sync) {
        Ok(config) => config,
        Err(error) => return refuse(Code::ConfigInvalid, &error.to_string()),
    };
    if let Some(why) = work::NO_SYNCS {
        return refuse(Code::Internal, why);
    }
    // Whoever watches sees the steps; log lines beside them only where they were asked for.
    let is_watched = std::io::stderr().is_terminal() && environment.get("LOG_LEVEL").is_none();
    logging::start(if is_watched { LevelFilter::Warn } else { config.log_level }, config.log_format);
    let interrupt = Interrupt::default();
    let exit_code = Arc::new(OnceLock::new());
    #[cfg(unix)]
    signals::interrupt_after_grace(&interrupt, config.shutdown_grace, &exit_code);
    let service = Service {
        config: &config,
        own_program: &own_program(),
        interrupt: &interrupt,
        progress: if is_watched { &show_step } else { &log_step },
    };
    let ledger = new_ledger(&config);
    let draft = Draft::from_config(&config, flags);
    let asked = work::requests(&Roster::default(), &ledger, &draft, &config, &interrupt);
    let code = match asked {
        Ok(asked) => work(asked, &service, &ledger),
        Err(error) => {
            refuse(error.code, &error.message);
            error.code
        }
    };
    let code = *exit_code.get_or_init(|| code.exit_code());
    ledger.notifier.finish(NOTICE_TIME_MAX);
    ExitCode::from(code)
}

fn check(options: &Check, environment: &Environment) -> ExitCode {
    let interrupt = Interrupt::default();
    let findings = check::settings(&options.settings(), environment).map_or_else(
        |faults| faults,
        |config| {
            // What is found is told by itself; log lines beside it only where they were asked for.
            let level = if environment.get("LOG_LEVEL").is_none() { LevelFilter::Error } else { config.log_level };
            logging::start(level, config.log_format);
            #[cfg(unix)]
            signals::interrupt(&interrupt);
            check::run(&config, &own_program(), &interrupt, Extent::Whole)
        },
    );
    if options.json {
        print(&check::to_json(&findings));
    } else {
        findings.iter().for_each(|finding| print(&finding.to_line()));
    }
    let ended = interrupt.is_raised().then(|| Code::ShuttingDown.exit_code());
    ExitCode::from(ended.unwrap_or_else(|| check::exit_code(&findings)))
}

fn show_step(event: Event) {
    if let Event::Ended(step, time) = event
        && (time >= SHOWN_STEP_TIME_MIN || step != Step::Queue)
    {
        say(&format!("{:>8}  {:.2} s", step.as_str(), time.as_secs_f64()));
    }
}

fn serve(options: Serve, environment: &Environment) -> ExitCode {
    let options = Options { listen: options.listen, data_dir: options.data_dir, ..Options::default() };
    let config = match Config::new(&options, environment, Need::Serve) {
        Ok(config) => Arc::new(config),
        Err(error) => {
            say(&format!("{PROGRAM}: {error}"));
            return ExitCode::from(Code::ConfigInvalid.exit_code());
        }
    };
    logging::start(config.log_level, config.log_format);
    warn_of_what_syncs_lack(&config);
    match Server::bind(&config.listen) {
        Ok(server) => serve_until_stopped(server, &config),
        Err(error) => {
            log::error!("{error}");
            ExitCode::from(Code::Internal.exit_code())
        }
    }
}

fn warn_of_what_syncs_lack(config: &Config) {
    if let Some(why) = work::NO_SYNCS {
        log::warn!("{why}");
    }
    for lack in config.lacking() {
        log::warn!("{lack}: a sync needs it, unless the request brings it");
    }
    if let Err(why) = trust::bundle(&config.tool_environment) {
        log::warn!("{why}; until that is mended, syncs and notices fail");
    }
}

fn serve_until_stopped(server: Server, config: &Arc<Config>) -> ExitCode {
    let interrupt = Interrupt::default();
    let exit_code = Arc::new(OnceLock::new());
    let ledger = Arc::new(new_ledger(config));
    let worker = Syncs {
        config: Arc::clone(config),
        own_program: own_program(),
        interrupt: interrupt.clone(),
        ledger: Arc::clone(&ledger),
    };
    let runs = Runs::new(Box::new(worker), config.sync_timeout);
    #[cfg(unix)]
    signals::stop_service(&server.stop_handle(), &runs, &interrupt, &exit_code, config);
    if let Ok(address) = server.local_addr() {
        log::info!("{PROGRAM} {} listening on {address}", env!("CARGO_PKG_VERSION"));
    }
    let roster = Arc::new(Roster::default());
    for purpose in [Purpose::Sync, Purpose::Verify] {
        start_scheduler(Scheduler {
            config: Arc::clone(config),
            runs: Arc::clone(&runs),
            ledger: Arc::clone(&ledger),
            roster: Arc::clone(&roster),
            interrupt: interrupt.clone(),
            purpose,
        });
    }
    let start_check = StartCheck::begin(config, &runs);
    let app = App::new(Arc::clone(config), Arc::clone(&runs), Arc::clone(&ledger), roster, interrupt.clone());
    let draining = server.run(Arc::new(app));
    start_check.interrupt.raise();
    let deadline_of_check = Deadline::after(KILL_TIME_MAX, &Interrupt::default());
    drain(config, &runs, &interrupt, &draining);
    start_check.finish(&deadline_of_check);
    // Of a check that did not end in time.
    lock::end_all_programs();
    // What was turned away at the end is not written down yet.
    ledger.settle_at_end();
    ledger.notifier.finish(LAST_NOTICE_TIME_MAX);
    log::info!("ended");
    ExitCode::from(*exit_code.get_or_init(|| 0))
}

fn new_ledger(config: &Config) -> Ledger {
    Ledger { metrics: Metrics::default(), history: History::new(&task::root(config)), notifier: Notifier::new(config) }
}

fn start_scheduler(scheduler: Scheduler) {
    let is_verify = scheduler.purpose == Purpose::Verify;
    let config = &scheduler.config;
    let Some(schedule) = (if is_verify { &config.verify_schedule } else { &config.sync_schedule }).clone() else {
        return;
    };
    let noun = scheduler.purpose.noun();
    log::info!("a {noun} is scheduled for `{schedule}` (UTC)");
    let thread = std::thread::Builder::new().name("scheduler".to_owned());
    if let Err(error) = thread.spawn(move || scheduler.follow(&schedule)) {
        log::error!("no scheduled {noun} will start, since there is no thread for the schedule: {error}");
    }
}

/// The clearing up and the check of a service that has just started.
struct StartCheck {
    interrupt: Interrupt,
    thread: Option<JoinHandle<()>>,
}

impl StartCheck {
    fn begin(config: &Arc<Config>, runs: &Arc<Runs>) -> Self {
        let interrupt = Interrupt::default();
        let (config, runs, own) = (Arc::clone(config), Arc::clone(runs), interrupt.clone());
        let check = move || {
            task::remove_leftovers(&config);
            check::at_start(&config, &own_program(), &own, &|| runs.were_used());
        };
        let thread = std::thread::Builder::new().name("check".to_owned()).spawn(check);
        let thread = thread.map_err(|error| log::warn!("nothing is checked, since there is no thread for it: {error}"));
        Self { interrupt, thread: thread.ok() }
    }

    /// Gives its programs and its scratch folder until then to be gone, after its interrupt was raised.
    fn finish(self, deadline: &Deadline) {
        while self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
            && let Ok(wait) = deadline.next_wait()
        {
            std::thread::sleep(wait.min(CHECK_POLL_INTERVAL));
        }
    }
}

/// Lets what runs go on for `SHUTDOWN_GRACE`, then ends it; every caller gets its answer.
fn drain(config: &Config, runs: &Runs, interrupt: &Interrupt, draining: &Draining) {
    runs.close();
    if !runs.wait_until_idle(config.shutdown_grace) {
        log::warn!("ending the running sync: SHUTDOWN_GRACE ({} s) is over", config.shutdown_grace.as_secs());
        interrupt.raise();
        if !runs.wait_until_idle(KILL_TIME_MAX) {
            lock::end_all_programs();
        }
    }
    let left = draining.wait(ANSWER_TIME_MAX);
    if left > 0 {
        log::warn!("{left} connections did not take their answers");
    }
}

fn healthcheck(options: Healthcheck, environment: &Environment) -> ExitCode {
    let options = Options { listen: options.listen, ..Options::default() };
    let config = match Config::new(&options, environment, Need::Serve) {
        Ok(config) => config,
        Err(error) => {
            say(&format!("{PROGRAM}: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let address = local_address(&config.listen);
    match ask_health(&address) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("{PROGRAM}: {address} does not answer: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Who listens on every address is asked on the local one.
fn local_address(listen: &str) -> String {
    match listen.parse::<SocketAddr>() {
        Ok(SocketAddr::V4(address)) if address.ip().is_unspecified() => format!("127.0.0.1:{}", address.port()),
        Ok(SocketAddr::V6(address)) if address.ip().is_unspecified() => format!("[::1]:{}", address.port()),
        _ => listen.to_owned(),
    }
}

/// Whether `/health` at this address answers 200. A client of HTTP would ask a proxy.
fn ask_health(address: &str) -> std::io::Result<()> {
    let address: SocketAddr = address.parse().map_err(std::io::Error::other)?;
    let mut stream = TcpStream::connect_timeout(&address, HEALTHCHECK_TIME_MAX)?;
    stream.set_read_timeout(Some(HEALTHCHECK_TIME_MAX))?;
    stream.set_write_timeout(Some(HEALTHCHECK_TIME_MAX))?;
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut status = [0; b"HTTP/1.1 200 ".len()];
    stream.read_exact(&mut status)?;
    if &status == b"HTTP/1.1 200 " { Ok(()) } else { Err(std::io::Error::other("it is not well")) }
}

#[cfg(unix)]
mod signals {
    use std::sync::{Arc, OnceLock};
    use std::time::Duration;

    use signal_hook::consts::{SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;
    use windmill_git_sync::config::Config;
    use windmill_git_sync::deadline::Interrupt;
    use windmill_git_sync::runs::Runs;
    use windmill_git_sync::server::Stop;
    use windmill_git_sync::{lock, scratch, task};

    /// What a second signal leaves a running sync, to end its programs; those that take longer are killed.
    const SECOND_SIGNAL_TIME_MAX: Duration = Duration::from_millis(500);
    /// As shells report a process that SIGTERM ended.
    const ENDED_BY_SIGNAL: u8 = 143;

    fn listen(handle: impl FnOnce(Signals) + Send + 'static) {
        let started = Signals::new([SIGTERM, SIGINT]).and_then(|signals| {
            std::thread::Builder::new().name("signals".to_owned()).stack_size(64 * 1024).spawn(move || handle(signals))
        });
        if let Err(error) = started {
            log::warn!("cannot listen to signals, so they end the process at once: {error}");
        }
    }

    /// The first signal stops the accepting; what runs is given its grace by whoever drains. The second ends all: here,
    /// or where the service is through with its end before, with the exit code that was decided first.
    pub(crate) fn stop_service(
        stop: &Stop,
        runs: &Arc<Runs>,
        interrupt: &Interrupt,
        exit_code: &Arc<OnceLock<u8>>,
        config: &Arc<Config>,
    ) {
        let (stop, runs, config) = (stop.clone(), Arc::clone(runs), Arc::clone(config));
        let (interrupt, exit_code) = (interrupt.clone(), Arc::clone(exit_code));
        listen(move |mut signals| {
            let mut signals = signals.forever();
            signals.next();
            log::info!("asked to end; no more requests are taken");
            stop.stop();
            signals.next();
            let code = *exit_code.get_or_init(|| ENDED_BY_SIGNAL);
            interrupt.raise();
            let _ = runs.wait_until_idle(SECOND_SIGNAL_TIME_MAX);
            lock::end_all_programs();
            // A run that did not end by itself did not remove its keys either.
            for run in runs.overview().running {
                let _ = scratch::remove_folder(&task::run_folder(&config, &run.request.workspace));
            }
            std::process::exit(i32::from(code));
        });
    }

    /// The first signal ends it.
    pub(crate) fn interrupt(interrupt: &Interrupt) {
        let interrupt = interrupt.clone();
        listen(move |mut signals| {
            signals.forever().next();
            interrupt.raise();
        });
    }

    /// SIGTERM leaves a sync its grace; SIGINT, which is a person at a keyboard, ends it now; so does a second signal.
    /// Once there is an `exit_code`, only notices are being sent, and any signal ends that.
    pub(crate) fn interrupt_after_grace(interrupt: &Interrupt, grace: Duration, exit_code: &Arc<OnceLock<u8>>) {
        let (interrupt, exit_code) = (interrupt.clone(), Arc::clone(exit_code));
        listen(move |mut signals| {
            let mut is_first = true;
            for signal in signals.forever() {
                if let Some(code) = exit_code.get() {
                    std::process::exit(i32::from(*code));
                }
                if is_first && signal == SIGTERM {
                    log::info!("asked to end; the sync may go on for {} s", grace.as_secs());
                    let after = interrupt.clone();
                    std::thread::spawn(move || {
                        std::thread::sleep(grace);
                        after.raise();
                    });
                } else {
                    interrupt.raise();
                }
                is_first = false;
            }
        });
    }
}
