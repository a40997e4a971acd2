//! Runs our own binary as a user does: a command that ends, or a service that answers. Its environment has only what
//! the test gave it.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use miniserde::json::{self, Number, Value};
use rustix::process::Signal;

use super::git::Remote;
use super::http::{self, Answer};
use super::process::{self, Finished, PATIENCE, Started};
use super::project;
use super::sandbox::{Sandbox, target_dir};
use super::windmill::{SHOP, WINDMILL_TOKEN, Windmill};
use super::wmill::{wmill, wmill_of_known_version};

/// How long a first build may take on a small machine.
const BUILD_PATIENCE: Duration = Duration::from_secs(600);

/// Returns the path of our binary. Cargo builds it for tests and benches. The demo is an example, so it is built here.
pub fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("CARGO_BIN_EXE_windmill-git-sync") {
        return path.into();
    }
    // A test that Cargo did not start is in `deps`.
    let running = std::env::current_exe().unwrap();
    let folder = running.parent().unwrap();
    let profile = folder.parent().unwrap();
    if folder.ends_with("examples") {
        build(profile);
    }
    profile.join("windmill-git-sync")
}

fn build(profile: &Path) {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(project())
        .args(["build", "--quiet", "--bin", "windmill-git-sync", "--target-dir"])
        .arg(target_dir());
    if profile.ends_with("release") {
        command.arg("--release");
    }
    process::start(command).finish_within(BUILD_PATIENCE).must_succeed();
}

/// The token of a service that trusts its callers.
pub const API_TOKEN: &str = "the-services-own-token";

/// A run of our binary that is not started yet.
#[derive(Clone)]
pub struct Run<'a> {
    sandbox: &'a Sandbox,
    trusted: bool,
    program: Option<PathBuf>,
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
    patience: Duration,
    user: Option<u32>,
    folder: PathBuf,
}

impl<'a> Run<'a> {
    /// Creates a run with the sandbox's Windmill, its token and workspace `shop`, data folder and home, its own port,
    /// and no other settings.
    pub fn new(sandbox: &'a Sandbox, command: &str) -> Self {
        Self {
            sandbox,
            trusted: false,
            program: None,
            arguments: vec![command.to_owned()],
            environment: BTreeMap::new(),
            patience: PATIENCE,
            user: None,
            folder: sandbox.path().to_path_buf(),
        }
        .wmill(&wmill_of_known_version())
        .env("HOME", &sandbox.home().display().to_string())
        .env("DATA_DIR", &sandbox.data().display().to_string())
        .env("LISTEN_ADDR", "127.0.0.1:0")
        .windmill(&sandbox.windmill)
        .workspace(SHOP)
    }

    /// Uses the real `wmill` for everything, including its version.
    #[must_use]
    pub fn real_wmill(self) -> Self {
        self.wmill(&wmill())
    }

    /// Puts this `wmill` on the `PATH`, after the programs of the sandbox.
    fn wmill(self, program: &Path) -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folder = program.parent().unwrap().to_path_buf();
        let folders = [self.sandbox.bin(), folder].into_iter().chain(std::env::split_paths(&path));
        self.env("PATH", &std::env::join_paths(folders).unwrap().to_string_lossy())
    }

    /// Uses another Windmill than the sandbox's own.
    #[must_use]
    pub fn windmill(self, windmill: &Windmill) -> Self {
        self.env("WINDMILL_BASE_URL", &windmill.base_url()).env("WINDMILL_TOKEN", WINDMILL_TOKEN)
    }

    #[must_use]
    pub fn workspace(self, id: &str) -> Self {
        self.env("WINDMILL_WORKSPACE", id)
    }

    /// Sets the remote and its credentials.
    #[must_use]
    pub fn remote(mut self, remote: &impl Remote) -> Self {
        self.environment.extend(remote.credentials());
        self.env("GIT_REMOTE_URL", &remote.url())
    }

    #[must_use]
    pub fn branch(self, name: &str) -> Self {
        self.env("GIT_BRANCH", name)
    }

    #[must_use]
    pub fn subdir(self, folder: &str) -> Self {
        self.env("GIT_SUBDIR", folder)
    }

    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Sets an API token, which [`Service::post_sync`] then sends.
    #[must_use]
    pub fn trusted(self) -> Self {
        Self { trusted: true, ..self }.env("SYNC_API_TOKEN", API_TOKEN)
    }

    /// Removes a setting, even one that the sandbox sets.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.environment.remove(name);
        self
    }

    /// Adds an argument to the command line.
    #[must_use]
    pub fn arg(mut self, word: &str) -> Self {
        self.arguments.push(word.to_owned());
        self
    }

    /// Sets how long the run may take. Default: [`PATIENCE`].
    #[must_use]
    pub fn within(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Runs another program in place of our binary.
    #[must_use]
    pub fn program(mut self, path: PathBuf) -> Self {
        self.program = Some(path);
        self
    }

    /// Runs as another user, which need not exist on the system. Only root may do this.
    #[must_use]
    pub fn user(mut self, id: u32) -> Self {
        self.user = Some(id);
        self
    }

    /// Starts in another folder than the sandbox's.
    #[must_use]
    pub fn folder(mut self, path: PathBuf) -> Self {
        self.folder = path;
        self
    }

    /// Applies `map` to every setting, for a run that sees the files of this machine at other paths.
    #[must_use]
    pub fn settings(mut self, map: impl Fn(&str) -> String) -> Self {
        self.environment.values_mut().for_each(|value| *value = map(value));
        self
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.program.clone().unwrap_or_else(program));
        command.current_dir(&self.folder).args(&self.arguments).env_clear().envs(&self.environment);
        if let Some(id) = self.user {
            command.uid(id).gid(id);
        }
        command
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(&self) -> Outcome {
        Outcome::of(&process::start(self.command()).finish_within(self.patience))
    }

    /// Runs it with more and more time, until the time ends in this step: the steps before it can be slow on a busy
    /// machine.
    #[track_caller]
    pub fn time_out_in(&self, step: &str) -> Outcome {
        let mut message = String::new();
        for seconds in [3, 12, 60] {
            let ended = self.clone().env("SYNC_TIMEOUT", &format!("{seconds}s")).run().expect("timeout");
            if ended.message().contains(&format!("`{step}`")) {
                return ended;
            }
            message = ended.message();
        }
        panic!("`{step}` is not where the time limit passed: {message}");
    }

    /// Starts it, for a test that does something in the meantime.
    #[track_caller]
    pub fn start(&self) -> Running {
        Running(process::start(self.command()))
    }

    /// Starts it as a service and waits until it listens.
    #[track_caller]
    pub fn serve(&self) -> Service {
        Service::start(self.command(), self.trusted)
    }
}

/// A started command. When dropped, it is killed.
pub struct Running(Started);

impl Running {
    pub fn pid(&self) -> u32 {
        self.0.pid()
    }

    pub fn is_running(&mut self) -> bool {
        self.0.is_running()
    }

    /// Sends SIGTERM, like `docker stop`.
    pub fn terminate(&self) {
        process::signal(self.0.pid(), Signal::TERM);
    }

    /// Sends SIGKILL to this process only. Its children keep running, as after a kill by the kernel when memory is low.
    pub fn kill(&self) {
        process::signal(self.0.pid(), Signal::KILL);
    }

    #[track_caller]
    pub fn finish(self) -> Outcome {
        Outcome::of(&self.0.finish_within(PATIENCE))
    }
}

/// Returns a value from JSON, for assertions: `field(&value, "changed.added")`.
#[track_caller]
pub fn field<'a>(value: &'a Value, path: &str) -> &'a Value {
    let found = path.split('.').try_fold(value, |value, name| match value {
        Value::Object(fields) => fields.get(name),
        Value::Array(items) => items.get(name.parse::<usize>().ok()?),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("no `{path}` in {}", json::to_string(value)))
}

/// Returns a string from JSON, or `None` for `null`.
#[track_caller]
pub fn text_field(value: &Value, path: &str) -> Option<String> {
    match field(value, path) {
        Value::String(text) => Some(text.clone()),
        Value::Null => None,
        _ => panic!("`{path}` is no text in {}", json::to_string(value)),
    }
}

/// Returns a count from JSON.
#[track_caller]
pub fn count_field(value: &Value, path: &str) -> u64 {
    match field(value, path) {
        Value::Number(Number::U64(count)) => *count,
        _ => panic!("`{path}` is no count in {}", json::to_string(value)),
    }
}

/// Returns a list of strings from JSON.
#[track_caller]
pub fn texts_field(value: &Value, path: &str) -> Vec<String> {
    let Value::Array(items) = field(value, path) else {
        panic!("`{path}` is no list in {}", json::to_string(value));
    };
    items
        .iter()
        .map(|item| match item {
            Value::String(text) => text.clone(),
            other => json::to_string(other),
        })
        .collect()
}

/// The result of a command that has ended.
pub struct Outcome {
    /// `None` if a signal ended it.
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    /// The content of stdout, if it is JSON.
    pub json: Option<Value>,
}

impl Outcome {
    /// Creates it from a run of our binary that has ended.
    pub fn of(finished: &Finished) -> Self {
        let stdout = finished.stdout_text();
        Self {
            exit_code: finished.status.code(),
            signal: finished.status.signal(),
            json: json::from_str(&stdout).ok(),
            stderr: finished.stderr_text(),
            stdout,
        }
    }

    /// Returns the result object. Panics with the output if there is no result.
    #[track_caller]
    pub fn result(&self) -> &Value {
        match &self.json {
            Some(value) => value,
            None => panic!("no result on stdout: {self}"),
        }
    }

    #[track_caller]
    pub fn code(&self) -> String {
        text_field(self.result(), "code").unwrap_or_default()
    }

    #[track_caller]
    pub fn message(&self) -> String {
        text_field(self.result(), "message").unwrap_or_default()
    }

    #[track_caller]
    pub fn commit(&self) -> Option<String> {
        text_field(self.result(), "commit")
    }

    /// Returns the counts of added, modified and deleted files.
    #[track_caller]
    pub fn changed(&self) -> (u64, u64, u64) {
        let count = |name: &str| count_field(self.result(), &format!("changed.{name}"));
        (count("added"), count("modified"), count("deleted"))
    }

    #[track_caller]
    pub fn warnings(&self) -> Vec<String> {
        texts_field(self.result(), "warnings")
    }

    /// Returns itself if the result has this code. Panics with all output if not.
    #[track_caller]
    pub fn expect(self, code: &str) -> Self {
        assert_eq!(self.code(), code, "{self}");
        self
    }

    /// Returns the output of the run, for [`super::assert_nothing_leaked`].
    pub fn texts(&self) -> [(&str, &[u8]); 2] {
        [("stdout", self.stdout.as_bytes()), ("stderr", self.stderr.as_bytes())]
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "exit code {:?}, signal {:?}\n--- stdout\n{}\n--- stderr\n{}",
            self.exit_code, self.signal, self.stdout, self.stderr
        )
    }
}

/// The log of a service so far.
#[derive(Default)]
struct Log {
    text: Mutex<(String, Ended)>,
    grown: Condvar,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Ended {
    #[default]
    No,
    Yes,
}

/// A running service. When dropped, it is killed with all processes that it started.
pub struct Service {
    child: Child,
    trusted: bool,
    address: SocketAddr,
    log: Arc<Log>,
}

impl Service {
    #[track_caller]
    fn start(mut command: Command, trusted: bool) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().expect("our binary starts");
        let log = Arc::new(Log::default());
        let of_reader = Arc::clone(&log);
        let stderr = child.stderr.take().unwrap();
        thread::spawn(move || of_reader.gather(BufReader::new(stderr)));
        // The value exists before the service listens, so that a panic drops it and kills the service.
        let mut service = Self { child, trusted, address: SocketAddr::from(([127, 0, 0, 1], 0)), log };
        service.address = service.log.wait("it listens", |text| {
            let mut after = text.split("listening on ").skip(1);
            after.find_map(|rest| {
                let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':'))?;
                rest[..end].trim_end_matches(['.', ':']).parse().ok()
            })
        });
        service
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, self.authorization(), b"").expect("an answer")
    }

    /// Sends `POST /sync` with a JSON body. An empty `body` is sent as no body.
    #[track_caller]
    pub fn post_sync(&self, body: &str) -> Answer {
        let json: &[(&str, &str)] = &[("Content-Type", "application/json")];
        let headers = if body.is_empty() { &[] } else { json };
        let headers = [headers, self.authorization()].concat();
        self.ask("POST", "/sync", &headers, body.as_bytes())
            .unwrap_or_else(|error| panic!("no answer to `POST /sync`: {error}\n{}", self.log()))
    }

    /// Returns the header that shows that the caller is trusted, if it is.
    pub fn authorization(&self) -> &'static [(&'static str, &'static str)] {
        if self.trusted { &[("Authorization", "Bearer the-services-own-token")] } else { &[] }
    }

    /// Sends any request.
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Answer> {
        http::ask(self.address, method, path, headers, body)
    }

    /// Sends these bytes unchanged.
    pub fn ask_raw(&self, bytes: &[u8]) -> io::Result<Answer> {
        http::ask_raw(self.address, bytes)
    }

    /// Returns the log so far.
    pub fn log(&self) -> String {
        self.log.text.lock().unwrap().0.clone()
    }

    /// Waits until the log contains this text.
    #[track_caller]
    pub fn wait_for_log(&self, needle: &str) {
        self.log.wait(needle, |text| text.contains(needle).then_some(()));
    }

    /// Sends SIGTERM, without waiting.
    pub fn ask_to_end(&self) {
        process::signal(self.child.id(), Signal::TERM);
    }

    /// Sends SIGTERM, like `docker stop`, and waits for the end.
    #[track_caller]
    pub fn terminate(&mut self) -> ExitStatus {
        self.ask_to_end();
        self.wait()
    }

    /// Sends SIGKILL to this process only. Its children keep running.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for the end.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        process::eventually("the service ends", || self.child.try_wait().unwrap())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            for process in process::processes_below(self.child.id()) {
                process::signal(process.pid, Signal::KILL);
            }
            let _ = self.child.wait();
        }
    }
}

impl Log {
    fn gather(&self, mut input: impl BufRead) {
        let mut line = Vec::new();
        while matches!(input.read_until(b'\n', &mut line), Ok(1..)) {
            let mut text = self.text.lock().unwrap();
            text.0.push_str(&String::from_utf8_lossy(&line));
            line.clear();
            self.grown.notify_all();
        }
        self.text.lock().unwrap().1 = Ended::Yes;
        self.grown.notify_all();
    }

    /// Waits until `find` finds something in the log.
    #[track_caller]
    fn wait<T>(&self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut text = self.text.lock().unwrap();
        loop {
            if let Some(found) = find(&text.0) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || text.1 == Ended::Yes {
                let said = text.0.clone();
                drop(text);
                panic!("waited in vain until `{what}`; it said:\n{said}");
            }
            text = self.grown.wait_timeout(text, left).unwrap().0;
        }
    }
}
