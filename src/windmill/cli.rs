//! The `wmill` program: its profile, `sync pull`, `sync push`, and its output.

use std::path::{Path, PathBuf};

use miniserde::json::{self, Object, Value};
use miniserde::{Deserialize, Serialize};

use crate::http::loopback::LoopbackServer;
use crate::model::{BackupError, Code, Result, WorkspaceId};
use crate::process::{Ending, Failure, Finished, Invocation, RunEnv};
use crate::util::{Retry, files};
use crate::windmill::api::two_texts;
use crate::windmill::{Permits, PushRelay, SnapshotServer, Windmill};

/// The name of the only profile in wmill's configuration. Files whose names contain the name of the profile
/// (`x.PROFILE.variable.yaml`) have a meaning for wmill, so this is a name that no file has.
const PROFILE: &str = "windmill-git-sync-run";
/// The largest output of a push, with one line for each file of a workspace: a hundred thousand lines. The parsed
/// output takes the same amount of memory in addition.
const CHANGES_BYTES_MAX: usize = 8 << 20;
/// The most readable lines in a message about a failed push, and the most bytes of a line.
const PLAIN_LINES_MAX: usize = 3;
const PLAIN_LINE_BYTES_MAX: usize = 400;
/// The line that a pull prints between the list of changes, with the contents, and the changes themselves.
const APPLIES: &str = "Applying changes to files";
/// The most lines of output in the message about a failed pull.
const MESSAGE_LINES_MAX: usize = 12;

/// Pulls the workspace that `server` serves into `folder`, which must hold the `wmill.yaml` for this run. wmill gets
/// the word of the server instead of a token.
///
/// # Errors
/// [`BackupError`]. The folder is then half pulled and must not be used.
pub fn pull(workspace: &WorkspaceId, server: SnapshotServer, run_env: &RunEnv, folder: &Path) -> Result<()> {
    let mut words = Words::default();
    let options = |invocation: Invocation| invocation.arguments(["pull", "--yes", "--skip-branch-validation"]);
    let take = &mut |line: &str| {
        words.take(line);
        true
    };
    let finished = sync(workspace, run_env, folder, server.server(), options, take)?;
    let is_success = finished.is_success();
    let is_done = is_success && words.say_done();
    // The server's reason comes first. wmill does not name the reason, because it treats a missing answer as an answer
    // of an older server.
    let (how, retry) = match (server.finish(), words.incomplete) {
        (Err(why), _) if is_success || why.contains("no answer") => (format!("is not complete: {why}"), Retry::Never),
        (_, Some(line)) if is_success => (format!("is not complete: {line}"), Retry::Never),
        _ if is_done => return Ok(()),
        _ => {
            let start = finished.tail.len().saturating_sub(MESSAGE_LINES_MAX);
            let printed = finished.tail[start..].join("\n").replace(&format!("{}/", folder.display()), "");
            let but = if is_success { ", but did not print that the pull was done" } else { "" };
            let retry = match finished.ending {
                // A pull sends requests to this process only, so the code is always the same.
                Ending::Exit(_) => retry_of_pull(&finished.tail),
                // The usual reason is low memory. Another pull does not help, and a larger one does not either.
                Ending::Signal(_) => Retry::Never,
            };
            (format!("ended with {}{but}: {printed}", finished.ending), retry)
        }
    };
    let message = format!("`wmill sync pull` of workspace `{workspace}` {how}");
    Err(BackupError { code: Code::PullFailed, message, retry })
}

/// Pushes the content of `folder`, which must hold the `wmill.yaml` for this run, as far as `permits` allows. wmill
/// sends its requests to the relay, and gets the word of the relay instead of the token. Without `deletes`, wmill does
/// not look at what the folder does not have. Returns the last change that Windmill did not accept although wmill
/// continued.
///
/// # Errors
/// [`BackupError`], which names the item and says why. A part may have been pushed.
pub fn push(
    windmill: &Windmill<'_>,
    run_env: &RunEnv,
    folder: &Path,
    permits: Permits,
    deletes: bool,
) -> Result<Option<String>> {
    let (relay, server) = PushRelay::start(windmill, run_env, permits)?;
    // The output is JSON, because the list of differences that wmill prints would show values, for example of
    // resources.
    let arguments = ["push", "--yes", "--skip-branch-validation", "--json-output"];
    let arguments = arguments.into_iter().chain((!deletes).then_some("--keep-deleted"));
    let options = |invocation: Invocation| invocation.arguments(arguments).capture(CHANGES_BYTES_MAX);
    let finished = sync(windmill.workspace, run_env, folder, &server, options, &mut |_| true)?;
    let refusal = relay.refusal().take();
    let answer = printed_json(&finished).unwrap_or_default();
    if finished.is_success() && matches!(answer.get("success"), Some(Value::Bool(true))) {
        return Ok(refusal.map(|refusal| refusal.message));
    }
    // The first file that it could not push, with the reason.
    let failed = match answer.get("failed") {
        Some(Value::Array(list)) => list.iter().find_map(|failure| two_texts(failure, ["path", "error"])),
        _ => None,
    };
    let (code, why) = match (failed, refusal) {
        (Some((path, why)), _) => (Code::PullFailed, format!("{path}: {why}")),
        (None, Some(refusal)) => (refusal.code, refusal.message),
        (None, None) => {
            (Code::PullFailed, format!("it ended with {}: {}", finished.ending, plain_lines(&finished.tail)))
        }
    };
    let message = format!("`wmill sync push` into workspace `{}` failed: {why}", windmill.workspace);
    Err(BackupError::new(code, run_env.redactor.redact(&message)))
}

/// Returns what `wmill sync push` prints at its end.
fn printed_json(finished: &Finished) -> Option<Object> {
    // Warnings may come before the JSON.
    let text = String::from_utf8_lossy(&finished.stdout);
    let (start, end) = (text.find("{\n")?, text.rfind('}')?);
    json::from_str(text.get(start..=end)?).ok()
}

/// Returns the last readable lines, without the dump of an error, the source code around it and its location.
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

/// Runs `wmill sync` in `folder`. `wmill` sends its requests to the loopback server, with its secret word. `options`
/// adds the subcommand and its options.
fn sync(
    workspace: &WorkspaceId,
    run_env: &RunEnv,
    folder: &Path,
    server: &LoopbackServer,
    options: impl FnOnce(Invocation) -> Invocation,
    on_line: &mut dyn FnMut(&str) -> bool,
) -> Result<Finished> {
    let configuration = run_env.run_dir.path().join("wmill");
    write_profile(server, workspace, &configuration)?;
    let invocation = run_env
        .local_invocation("wmill", folder)?
        .environment("WMILL_CONFIG_DIR", &configuration)
        .environment("NO_COLOR", "1")
        // wmill takes settings from the branch of a repository that it finds, so it must not find one.
        .environment("GIT_DIR", run_env.run_dir.path().join("no-repository"))
        .environment("GIT_CEILING_DIRECTORIES", folder.parent().unwrap_or(folder))
        .confine(&[run_env.run_dir.path(), folder])
        .arguments(["--workspace", PROFILE, "sync"]);
    let finished = run_env.run(options(invocation), on_line);
    files::remove_folder(&configuration)?;
    finished.or_else(|failure| match failure {
        Failure::Expired(expired) => Err(expired.into()),
        Failure::Io(error) if error.kind() == std::io::ErrorKind::StorageFull => {
            // The files that wmill wrote are useless, and occupy disk space.
            files::remove_folder(folder).and_then(|()| files::create_folder(folder))?;
            let (code, message) = (Code::PullFailed, error.to_string());
            Err(BackupError { code, message, retry: Retry::NewCheckout })
        }
        _ => Err(BackupError::new(Code::PullFailed, failure.to_string())),
    })
}

/// Writes the profile. wmill appends `api/…` to `remote` as it is.
fn write_profile(server: &LoopbackServer, workspace: &WorkspaceId, configuration: &Path) -> std::io::Result<()> {
    let folder = configuration.join("windmill");
    files::create_folder(&folder)?;
    // None of these values has a character that JSON escapes.
    let (remote, word) = (server.base_url(), server.word().expose());
    let profile = format!(
        "{{\"name\":\"{PROFILE}\",\"remote\":\"{remote}\",\"workspaceId\":\"{workspace}\",\"token\":\"{word}\"}}\n"
    );
    files::write_file(&folder.join("remotes.ndjson"), profile.as_bytes())
}

/// The lines of a successful pull: how many changes it has to apply and, if there are any, that it applied them.
#[derive(Default)]
struct Words {
    changes: Option<u64>,
    is_applied: bool,
    /// The line about a part that wmill could not pull. wmill exits with 0 after that.
    incomplete: Option<String>,
}

impl Words {
    /// Takes a line. Contents of files come after the number of changes and before [`APPLIES`], and may look like any
    /// line.
    fn take(&mut self, line: &str) {
        let count = || line.strip_prefix("remote (")?.rsplit("-> local: ").next()?.strip_suffix(" changes to apply");
        if self.changes.is_none() {
            self.changes = count().and_then(|count| count.parse().ok());
        }
        if line.starts_with(APPLIES) {
            (self.is_applied, self.incomplete) = (false, None);
        }
        self.is_applied |= line.starts_with("Done! All ");
        if line.starts_with("Failed to pull shared UI folder") {
            self.incomplete = Some(line.to_owned());
        }
    }

    /// Whether wmill printed that the pull is complete. Without this check, a `wmill` that exits with 0 for another
    /// reason (an unanswered prompt) would count as a successful pull.
    fn say_done(&self) -> bool {
        self.changes == Some(0) || (self.changes.is_some() && self.is_applied)
    }
}

/// Returns which attempt may help after a pull that printed these lines.
///
/// Names of items and contents of files are in the output too, but not at the start of a line after the last progress
/// line. A pull sends requests to the loopback server only, so it fails because the disk is full, because the
/// connection to that server broke, or because of the files.
fn retry_of_pull(tail: &[String]) -> Retry {
    const BEFORE_SIGN: [&str; 6] = ["[cause]: ", "Error: ", "TypeError: ", "connect ", "read ", "write "];
    let start = tail.iter().rposition(|line| is_progress(line)).map_or(0, |last| last + 1);
    let begins_with = |sign: &str| {
        let strip = |line, word| str::strip_prefix(line, word).unwrap_or(line);
        tail[start..].iter().any(|line| BEFORE_SIGN.into_iter().fold(line.trim_start(), strip).starts_with(sign))
    };
    SIGNS.iter().find(|(sign, _)| begins_with(sign)).map_or(Retry::EmptyFolder, |(_, retry)| *retry)
}

/// The beginnings of lines that say why a pull failed, the most important first. If the archive was cut while wmill
/// read it, wmill prints `terminated`.
const SIGNS: [(&str, Retry); 9] = [
    ("ENOSPC", Retry::NewCheckout),
    ("EDQUOT", Retry::NewCheckout),
    ("EROFS", Retry::Never),
    ("fetch failed", Retry::AfterPause(None)),
    ("terminated", Retry::AfterPause(None)),
    ("ECONNREFUSED", Retry::AfterPause(None)),
    ("ECONNRESET", Retry::AfterPause(None)),
    ("socket hang up", Retry::AfterPause(None)),
    ("Could not connect to Windmill server", Retry::AfterPause(None)),
];

/// Whether wmill names in this line a file that it will change or has changed.
pub fn is_progress(line: &str) -> bool {
    ["+ ", "- ", "~ ", "Writing ", "Editing ", "Deleting ", APPLIES].iter().any(|start| line.starts_with(start))
}

/// The known properties of a `wmill`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Path, size and time of its file. They differ for another version.
    pub file: String,
    /// Its version, such as `1.819.0`.
    pub version: String,
}

/// Returns the version of the `wmill` on the path.
///
/// # Errors
/// Returns the errors of [`RunEnv::version`].
pub fn version(run_env: &RunEnv) -> Result<String, String> {
    run_env.version("wmill", "--version", "CLI version: ")
}

/// Returns what is known about the `wmill` on the path, or `None` if it does not give its version. It is started only
/// if it is not the `known` one.
pub fn program(run_env: &RunEnv, known: Option<&Program>) -> Option<Program> {
    let path = path(&run_env.environment)?;
    let metadata = path.metadata().ok()?;
    let modified = metadata.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    let file = format!("{} {} {}", path.display(), metadata.len(), modified.as_nanos());
    if let Some(known) = known.filter(|known| known.file == file) {
        return Some(known.clone());
    }
    Some(Program { file, version: version(run_env).ok()? })
}

/// Returns the path of the file behind `wmill`.
fn path(environment: &[(String, String)]) -> Option<PathBuf> {
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
    fn a_pull_is_complete_only_if_wmill_says_so() {
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
    fn names_and_contents_of_files_do_not_count_as_messages_of_wmill() {
        let mut words = Words::default();
        for line in [
            "remote (p) -> local: 2 changes to apply",
            "+ resource u/x/set.fileset/Failed to pull shared UI folder",
            "~ script f/x.ts",
            "Failed to pull shared UI folder",
            "remote (p) -> local: 0 changes to apply",
            "Done! All 3 changes applied locally",
            "Applying changes to files ...",
            "Writing resource u/x/set.fileset/Failed to pull shared UI folder",
        ] {
            words.take(line);
        }
        assert_eq!(words.incomplete, None);
        assert!(!words.say_done());
        words.take("Done! All 2 changes applied locally");
        assert!(words.say_done());
    }

    #[track_caller]
    fn check_retry(lines: &[&str], expected: Retry) {
        let tail: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        assert_eq!(retry_of_pull(&tail), expected, "{lines:?}");
    }

    #[test]
    fn the_output_of_a_pull_decides_which_attempt_may_help() {
        let pause = Retry::AfterPause(None);
        check_retry(&["TypeError: fetch failed", "    [cause]: Error: connect ECONNREFUSED 127.0.0.1:1"], pause);
        check_retry(&["Writing script f/a.ts", "connect ECONNREFUSED 127.0.0.1:1"], pause);
        check_retry(&["TypeError: terminated"], pause);
        check_retry(&["Writing script f/a.ts", "ENOSPC: no space left on device, write"], Retry::NewCheckout);
        check_retry(&["Error: EDQUOT: quota exceeded, open 'f/a.ts'"], Retry::NewCheckout);
        check_retry(&["EROFS: read-only file system, mkdir 'f'"], Retry::Never);
        check_retry(&["Failed to parse YAML content at path: f/x.resource.yaml"], Retry::EmptyFolder);
        check_retry(&[], Retry::EmptyFolder);
    }

    #[test]
    fn names_and_contents_do_not_decide_which_attempt_may_help() {
        let error = "EEXIST: file already exists, mkdir 'u/x/set.fileset/ENOSPC'";
        for name in ["Unauthorized", "terminated", "EROFS", "ENOSPC: x", "Workspace id '", "CERT_", "fetch failed"] {
            let lines = ["+ ", "Writing resource u/x/", "Editing resource u/x/"].map(|start| format!("{start}{name}"));
            check_retry(&[&lines[0], &lines[1], &lines[2], error], Retry::EmptyFolder);
            let named = format!("Content of raw app file /{name} is not a string");
            check_retry(&[&format!("Failed to parse script.yaml at path: f/{name}"), &named], Retry::EmptyFolder);
            // The content of an edited script.
            check_retry(&["~ script f/a.ts", name, "Applying changes to files ...", error], Retry::EmptyFolder);
        }
    }
}
