//! The `wmill` program: its profile, `sync pull`, `sync push`, and its output.

use std::path::{Path, PathBuf};

use log::Level;
use miniserde::json::{self, Value};

use crate::model::names::WorkspaceId;
use crate::model::result_code::Code;
use crate::net::http_client;
use crate::process::command::Invocation;
use crate::process::run::{Ending, Failure, Finished};
use crate::process::run_env::{ProgramLog, RunEnv};
use crate::util::files;
use crate::util::retry::Retry;
use crate::util::secret::Secret;
use crate::windmill::api::{Windmill, WindmillError, two_texts};
use crate::windmill::push_relay::{Permits, PushRelay, Refusal, Relayed};
use crate::windmill::snapshot_server::SnapshotServer;

/// The name of the only profile in wmill's configuration. Files with the name of the profile in their names
/// (`x.PROFILE.variable.yaml`) have a meaning to wmill, so this is a name that no file has.
const PROFILE: &str = "windmill-git-sync-run";
/// The largest output of a push, with one line for each file of a workspace: a hundred thousand lines. Parsed, they
/// take as much memory again.
const CHANGES_BYTES_MAX: usize = 8 << 20;
/// The largest file with a known version: a path of 4,096 bytes at most, two numbers and a version.
const KNOWN_VERSION_BYTES_MAX: u64 = 8 << 10;
/// The line that the image's wmill prints before its version.
const SORTS_DEPENDENCIES: &str = "Dependencies are sorted";
/// How much of a script is read, to see which interpreter its first line names.
const FIRST_LINE_BYTES_MAX: u64 = 256;
/// How many lines for people a message about a failed push has, and how long such a line may be.
const PLAIN_LINES_MAX: usize = 3;
const PLAIN_LINE_BYTES_MAX: usize = 400;
/// How many lines of output the message about a failed pull has.
const MESSAGE_LINES_MAX: usize = 12;

/// Pulls the workspace that `server` serves into `folder`, which must hold the `wmill.yaml` for this run. wmill gets
/// the server's word instead of a token.
///
/// # Errors
/// [`WindmillError`]. The folder is then half pulled and must not be used.
pub fn pull(
    workspace: &WorkspaceId,
    server: SnapshotServer,
    run_env: &RunEnv,
    folder: &Path,
) -> Result<(), WindmillError> {
    let machine = |error: std::io::Error| WindmillError::Machine(error.to_string());
    let configuration = run_env.run_dir.path().join("wmill");
    write_profile(&server.base_url(), workspace, server.word(), &configuration).map_err(machine)?;
    let invocation = run_env.local_invocation("wmill", folder).map_err(machine)?;
    let invocation = sync_command(invocation, run_env, folder, &configuration).arguments([
        "pull",
        "--yes",
        "--skip-branch-validation",
    ]);
    let (mut words, mut log) = (Words::default(), ProgramLog::new("wmill", Level::Debug));
    let finished = run_env.run(invocation, &mut |line| {
        log.line(line);
        words.take(line);
    });
    files::remove_folder(&configuration).map_err(machine)?;
    let finished = match finished {
        Ok(finished) => finished,
        Err(failure) => {
            if let Failure::NoSpace { .. } = failure {
                // The files that wmill wrote are of no use, and take the space.
                files::remove_folder(folder).and_then(|()| files::create_folder(folder)).map_err(machine)?;
            }
            return Err(not_run(&failure));
        }
    };
    let is_done = words.say_done();
    // The server's reason comes first. wmill does not name the reason, since it takes a missing answer for an answer of
    // an older server.
    let asked = server.finish();
    let incomplete = match (&asked, words.incomplete) {
        (Err(why), _) if finished.is_success() || why.contains("no answer") => Some(why.clone()),
        (_, Some(line)) if finished.is_success() => Some(line),
        _ => None,
    };
    if let Some(why) = incomplete {
        let message = format!("`wmill sync pull` of workspace `{workspace}` did not do all of it: {why}");
        return Err(WindmillError::Failed { code: Code::PullFailed, message, retry: Retry::Never });
    }
    if finished.is_success() && is_done { Ok(()) } else { Err(pull_failed(workspace, &finished)) }
}

fn not_run(failure: &Failure) -> WindmillError {
    match failure {
        Failure::Expired(expired) => WindmillError::Expired(*expired),
        Failure::NoSpace { .. } => {
            WindmillError::Failed { code: Code::PullFailed, message: failure.to_string(), retry: Retry::NewCheckout }
        }
        _ => WindmillError::Machine(failure.to_string()),
    }
}

/// What a push does with items that the folder does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletions {
    /// It keeps them.
    Skip,
    /// It deletes them from the workspace.
    Push,
}

/// Pushes the content of `folder`, which must hold the `wmill.yaml` for this run, as far as `permits` allows. wmill
/// sends its requests to our relay, and gets the relay's word instead of the token.
///
/// # Errors
/// [`WindmillError`], which names the item and says why. A part may have been pushed.
pub fn push(
    windmill: &Windmill<'_>,
    run_env: &RunEnv,
    folder: &Path,
    permits: Permits,
    deletions: Deletions,
) -> Result<Relayed, WindmillError> {
    let machine = |error: std::io::Error| WindmillError::Machine(error.to_string());
    let configuration = run_env.run_dir.path().join("wmill");
    let relay = PushRelay::start(windmill, run_env, permits).map_err(machine)?;
    write_profile(&relay.base_url(), windmill.workspace, relay.word(), &configuration).map_err(machine)?;
    // The output is JSON, because wmill's own list of differences would show values, for example of resources.
    let invocation = run_env.local_invocation("wmill", folder).map_err(machine)?;
    let invocation = sync_command(invocation, run_env, folder, &configuration).arguments([
        "push",
        "--yes",
        "--skip-branch-validation",
        "--json-output",
    ]);
    // The relay is on this machine, so no proxy is used.
    let mut invocation = invocation.environment("NO_PROXY", "127.0.0.1").environment("no_proxy", "127.0.0.1");
    if deletions == Deletions::Skip {
        invocation = invocation.argument("--keep-deleted");
    }
    let mut log = ProgramLog::new("wmill", Level::Debug);
    let finished = run_env.run(invocation.capture(CHANGES_BYTES_MAX), &mut |line| log.line(line));
    files::remove_folder(&configuration).map_err(machine)?;
    let finished = match finished {
        Ok(finished) => finished,
        Err(failure) => return Err(not_run(&failure)),
    };
    let relayed = relay.relayed();
    match said_of_push(&finished) {
        Some(said) if finished.is_success() && said.is_success => Ok(relayed),
        said => Err(push_failed(windmill, run_env, &finished, said.unwrap_or_default(), relayed.refusal)),
    }
}

/// What `wmill sync push` prints at its end.
#[derive(Debug, Default, PartialEq, Eq)]
struct PushSaid {
    is_success: bool,
    /// The files that it could not push, and why.
    failed: Vec<(String, String)>,
}

fn said_of_push(finished: &Finished) -> Option<PushSaid> {
    // Warnings may come before the JSON.
    let text = String::from_utf8_lossy(&finished.stdout);
    let (start, end) = (text.find("{\n")?, text.rfind('}')?);
    let Ok(Value::Object(mut answer)) = json::from_str(text.get(start..=end)?) else { return None };
    let is_success = matches!(answer.get("success"), Some(Value::Bool(true)));
    let failed = match answer.remove("failed") {
        Some(Value::Array(list)) => list.iter().filter_map(|one| two_texts(one, ["path", "error"])).collect(),
        _ => Vec::new(),
    };
    Some(PushSaid { is_success, failed })
}

fn push_failed(
    windmill: &Windmill<'_>,
    run_env: &RunEnv,
    finished: &Finished,
    PushSaid { failed, .. }: PushSaid,
    refusal: Option<Refusal>,
) -> WindmillError {
    let workspace = windmill.workspace;
    let ended = |why: &str| format!("`wmill sync push` into workspace `{workspace}` failed: {why}");
    if let Some((path, why)) = failed.into_iter().next() {
        let message = ended(&run_env.redactor.redact(&format!("{path}: {why}")));
        return WindmillError::Failed { code: Code::PullFailed, message, retry: Retry::Never };
    }
    let Some(Refusal { what, status, reason }) = refusal else {
        let (code, _) = classify(&finished.tail_text());
        let message = ended(&format!("it ended with {}: {}", finished.ending, plain_lines(&finished.tail)));
        return WindmillError::Failed { code, message, retry: Retry::Never };
    };
    let code = match status {
        401 | 403 => Code::WindmillUnauthorized,
        0 | 502..=504 => Code::WindmillUnreachable,
        _ => Code::PullFailed,
    };
    let answered = if status == 0 { String::new() } else { format!("Windmill answered {status}: ") };
    let message = ended(&run_env.redactor.redact(&format!("{what}: {answered}{reason}")));
    WindmillError::Failed { code, message, retry: Retry::Never }
}

/// Returns the last lines that are for people, without the dump of an error, the source code around it and its
/// location.
fn plain_lines(tail: &[String]) -> String {
    let is_plain = |line: &&String| {
        !line.is_empty()
            && line.len() <= PLAIN_LINE_BYTES_MAX
            && !line.starts_with([' ', '\t', '{', '}', '[', ']', '^'])
            && !["at ", "node:", "file:", "Node.js v", "Bun v"].iter().any(|start| line.starts_with(start))
            && line.split('|').next().is_none_or(|start| start.trim_end().parse::<u32>().is_err())
    };
    let plain: Vec<&str> = tail.iter().filter(is_plain).map(String::as_str).collect();
    plain[plain.len().saturating_sub(PLAIN_LINES_MAX)..].join("; ")
}

/// Makes the command `wmill sync`, which runs in `folder` with the profile in `configuration`.
fn sync_command(invocation: Invocation, run_env: &RunEnv, folder: &Path, configuration: &Path) -> Invocation {
    invocation
        .environment("WMILL_CONFIG_DIR", configuration)
        .environment("NO_COLOR", "1")
        // If wmill finds a repository, it takes settings from its branch, so it must not find one.
        .environment("GIT_DIR", run_env.run_dir.path().join("no-repository"))
        .environment("GIT_CEILING_DIRECTORIES", folder.parent().unwrap_or(folder))
        .confine(&[run_env.run_dir.path(), folder])
        .arguments(["--workspace", PROFILE, "sync"])
}

/// Writes the profile. wmill appends `api/…` to `remote` as it is.
fn write_profile(remote: &str, workspace: &WorkspaceId, token: &Secret, configuration: &Path) -> std::io::Result<()> {
    let folder = configuration.join("windmill");
    files::create_folder(&folder)?;
    let text = |text: &str| json::to_string(text);
    let profile = format!(
        "{{\"name\":{},\"remote\":{},\"workspaceId\":{},\"token\":{}}}\n",
        text(PROFILE),
        text(remote),
        text(workspace.as_str()),
        text(token.expose()),
    );
    files::write_file(&folder.join("remotes.ndjson"), profile.as_bytes())
}

fn pull_failed(workspace: &WorkspaceId, finished: &Finished) -> WindmillError {
    let start = finished.tail.len().saturating_sub(MESSAGE_LINES_MAX);
    let printed = finished.tail[start..].join("\n");
    let retry = match finished.ending {
        // A pull talks to this process only, so the code is always the same.
        Ending::Exit(_) => classify(&finished.tail_text()).1,
        // The usual reason is low memory. Another pull, or a larger one, does not help.
        Ending::Signal(_) | Ending::OutOfMemory => Retry::Never,
    };
    let how = if finished.is_success() {
        "ended with exit code 0 but did not say that it had done the pull".to_owned()
    } else {
        format!("ended with {}", finished.ending)
    };
    let message = format!("`wmill sync pull` of workspace `{workspace}` {how}: {printed}");
    WindmillError::Failed { code: Code::PullFailed, message, retry }
}

/// What a successful pull prints: how many changes it has to apply and, if there are any, that it applied them.
#[derive(Default)]
struct Words {
    changes: Option<u64>,
    is_applied: bool,
    /// The line about a part that wmill could not pull. wmill exits with 0 after that.
    incomplete: Option<String>,
}

impl Words {
    fn take(&mut self, line: &str) {
        if let Some(count) = line.split("-> local: ").nth(1).and_then(|rest| rest.strip_suffix(" changes to apply")) {
            self.changes = count.parse().ok();
        }
        self.is_applied |= line.starts_with("Done! All ");
        if line.contains("Failed to pull shared UI folder") {
            self.incomplete = Some(line.to_owned());
        }
    }

    /// Whether wmill says that it did its work. Without this check, a `wmill` that exits with 0 for another reason (an
    /// unanswered prompt) would pass for a successful pull.
    fn say_done(&self) -> bool {
        self.changes == Some(0) || (self.changes.is_some() && self.is_applied)
    }
}

/// Returns what wmill's output means, and which attempt may help.
fn classify(printed: &str) -> (Code, Retry) {
    const UNREACHABLE: [&str; 8] = [
        "ECONNREFUSED",
        "ENOTFOUND",
        "EAI_AGAIN",
        "ECONNRESET",
        "ETIMEDOUT",
        "EHOSTUNREACH",
        "socket hang up",
        // Sometimes wmill prints only this, whatever the cause, even for a bad certificate.
        "Could not connect to Windmill server",
    ];
    // An archive that is too short is not a zip file for wmill. If the archive was cut while wmill read it, wmill
    // prints `terminated`.
    const BROKEN_OFF: [&str; 3] = ["fetch failed", "terminated", "zip file"];
    const FULL: [&str; 2] = ["ENOSPC", "EDQUOT"];
    const CERTIFICATES: [&str; 5] =
        ["CERT_", "SELF_SIGNED_CERT", "UNABLE_TO_GET_ISSUER", "UNABLE_TO_VERIFY_LEAF", "ERR_TLS_CERT"];
    let has = |signs: &[&str]| signs.iter().any(|sign| printed.contains(sign));
    if has(&["Workspace id '", "no rows returned"]) {
        (Code::WorkspaceNotFound, Retry::Never)
    } else if has(&["Could not authenticate", "Unauthorized"]) {
        (Code::WindmillUnauthorized, Retry::Never)
    } else if has(&FULL) {
        (Code::PullFailed, Retry::NewCheckout)
    } else if printed.contains("EROFS") {
        (Code::PullFailed, Retry::Never)
    } else if has(&CERTIFICATES) {
        (Code::WindmillUnreachable, Retry::Never)
    } else if has(&UNREACHABLE) {
        (Code::WindmillUnreachable, Retry::AfterPause(None))
    } else if let Some(status) = status_of_archive(printed) {
        let retry = if http_client::is_passing(status) { Retry::AfterPause(None) } else { Retry::Never };
        (Code::PullFailed, retry)
    } else if has(&BROKEN_OFF) {
        (Code::PullFailed, Retry::AfterPause(None))
    } else if printed.contains("Failed to request tarball") {
        (Code::PullFailed, Retry::Never)
    } else {
        (Code::PullFailed, Retry::EmptyFolder)
    }
}

/// Returns the status of the answer that wmill got instead of an archive, from Windmill or as the page of a gateway.
fn status_of_archive(printed: &str) -> Option<u16> {
    let failed = || printed.split("Failed to request tarball from API: ").nth(1);
    let page = || printed.split("Got an HTML response from").nth(1)?.split("(status ").nth(1);
    failed().or_else(page)?.get(..3)?.parse().ok()
}

/// What is known about a `wmill`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The version, such as `1.819.0`.
    pub text: String,
    /// Whether it takes the files of `dependencies/` in sorted order, and not in the order of the file system: their
    /// order goes into the hashes of `wmill-lock.yaml`.
    pub sorts_dependencies: bool,
}

/// Returns the version of the `wmill` on the path.
///
/// # Errors
/// The same as for [`RunEnv::version`].
pub fn version(run_env: &RunEnv) -> Result<Version, String> {
    // The image's wmill prints that it sorts (`image/adapt.mjs`). Node, which runs npm's wmill, sorts the names in a
    // folder itself.
    let mut sorts_dependencies = program(&run_env.environment).is_some_and(|program| is_run_by_node(&program));
    let text = run_env.version("wmill", "--version", "CLI version: ", &mut |line| {
        sorts_dependencies |= line == SORTS_DEPENDENCIES;
    })?;
    Ok(Version { text, sorts_dependencies })
}

fn is_run_by_node(program: &Path) -> bool {
    let start = files::read_file(program, FIRST_LINE_BYTES_MAX).unwrap_or_default();
    let first = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
    first.starts_with(b"#!") && first.ends_with(b"node")
}

/// Does the same as [`version`], but returns `None` if wmill does not give its version.
///
/// To get the version, the program has to be started once more. So the version is kept in the file at `known`, together
/// with the identity of the program.
#[must_use]
pub fn known_version(run_env: &RunEnv, known: &Path) -> Option<Version> {
    let program = identity(&run_env.environment);
    let kept = files::read_file(known, KNOWN_VERSION_BYTES_MAX).ok();
    let kept = kept.and_then(|kept| String::from_utf8(kept).ok());
    if let (Some(program), Some(kept)) = (&program, &kept)
        && let [kept_program, text, sorted, ""] = kept.split('\n').collect::<Vec<_>>()[..]
        && program == kept_program
        && !text.is_empty()
    {
        return Some(Version { text: text.to_owned(), sorts_dependencies: sorted == SORTS_DEPENDENCIES });
    }
    let version = version(run_env).ok()?;
    if let Some(program) = program {
        let sorted = if version.sorts_dependencies { SORTS_DEPENDENCIES } else { "" };
        // Other workspaces may run at the same time, so each run writes its own file first and then renames it.
        let written =
            run_env.run_dir.write("wmill-version", format!("{program}\n{}\n{sorted}\n", version.text).as_bytes());
        if let Err(error) = written.and_then(|fresh| std::fs::rename(fresh, known)) {
            log::warn!("cannot note the version of wmill: {error}");
        }
    }
    Some(version)
}

/// Returns path, size and time of the file behind `wmill`. Another version differs in at least one of them.
#[must_use]
pub fn identity(environment: &[(String, String)]) -> Option<String> {
    let program = program(environment)?;
    let metadata = program.metadata().ok()?;
    let modified = metadata.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(format!("{} {} {}", program.display(), metadata.len(), modified.as_nanos()))
}

/// Returns the path of the file behind `wmill`.
fn program(environment: &[(String, String)]) -> Option<PathBuf> {
    let (_, path) = environment.iter().find(|(name, _)| name == "PATH")?;
    std::env::split_paths(path).map(|folder| folder.join("wmill")).find_map(|file| file.canonicalize().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_done(lines: &[&str], expected: bool) {
        let mut words = Words::default();
        lines.iter().for_each(|line| words.take(line));
        assert_eq!(words.say_done(), expected, "{lines:?}");
    }

    #[test]
    fn a_pull_is_done_when_wmill_says_so() {
        check_done(&["remote (p) -> local: 0 changes to apply"], true);
        check_done(&["remote (p) -> local: 3 changes to apply", "Done! All 3 changes applied locally"], true);
        check_done(&["remote (p) -> local: 3 changes to apply"], false);
        check_done(&["Done! All 3 changes applied locally"], false);
        check_done(&[], false);
    }

    #[test]
    fn a_pull_without_the_shared_ui_is_incomplete() {
        let mut words = Words::default();
        words.take("Failed to pull shared UI folder: Error: ENOTDIR: not a directory");
        assert!(words.incomplete.is_some());
    }

    #[test]
    fn what_wmill_prints_tells_what_failed() {
        let archive = |status| classify(&format!("Failed to request tarball from API: {status} and why"));
        for (status, retry) in
            [("500", Retry::AfterPause(None)), ("429", Retry::AfterPause(None)), ("403", Retry::Never)]
        {
            assert_eq!(archive(status), (Code::PullFailed, retry), "{status}");
        }
        let page =
            |status| classify(&format!("Got an HTML response from http://w/ (status {status}). The request was"));
        assert_eq!(page(503), (Code::PullFailed, Retry::AfterPause(None)));
        assert_eq!(page(200), (Code::PullFailed, Retry::Never));
        assert_eq!(classify("Workspace id 'x' not found on http://w/"), (Code::WorkspaceNotFound, Retry::Never));
        assert_eq!(classify("connect ECONNREFUSED 127.0.0.1:1"), (Code::WindmillUnreachable, Retry::AfterPause(None)));
        assert_eq!(classify("fetch failed: SELF_SIGNED_CERT_IN_CHAIN"), (Code::WindmillUnreachable, Retry::Never));
        assert_eq!(classify("TypeError: terminated"), (Code::PullFailed, Retry::AfterPause(None)));
        assert_eq!(classify("ENOSPC: no space left on device, write"), (Code::PullFailed, Retry::NewCheckout));
        let item = "Failed to parse YAML content at path: f/x.resource.yaml";
        assert_eq!(classify(item), (Code::PullFailed, Retry::EmptyFolder));
    }
}
