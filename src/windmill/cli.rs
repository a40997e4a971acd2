//! The `wmill` program: its `sync pull` and `sync push` of one workspace, its version, and what its words mean.
//!
//! The token goes into a file that only we may read, never into an argument. It does not know about git.

use std::path::Path;

use log::Level;
use miniserde::json::{self, Value};

use crate::code::Code;
use crate::scratch;
use crate::subprocess::{Ending, Failure, Finished, Invocation};
use crate::web;
use crate::windmill::{Cure, Windmill, WindmillError, two_texts};
use crate::workplace::{ProgramLog, Workplace};

/// Name of the one profile in wmill's configuration. Files named after the profile (`x.PROFILE.variable.yaml`) have a
/// meaning to wmill, so it is a name that nobody gives to files.
const PROFILE: &str = "windmill-git-sync-run";
/// A line for each file of a workspace: a hundred thousand.
const CHANGES_BYTES_MAX: usize = 16 << 20;
/// As many lines of output make an error plain.
const MESSAGE_LINES_MAX: usize = 12;

/// Whether a push is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// It only shows what it would change.
    Show,
    /// It changes the workspace.
    Apply,
}

/// What a push does with what the folder does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletions {
    /// Nothing.
    Keep,
    /// It deletes it from the workspace.
    Apply,
}

/// Pulls the workspace into `folder`, which must hold the `wmill.yaml` for this run.
///
/// # Errors
/// [`WindmillError`]. The folder is then half pulled, and good for nothing.
pub fn pull(windmill: &Windmill<'_>, place: &Workplace, folder: &Path) -> Result<(), WindmillError> {
    let machine = |error: std::io::Error| WindmillError::Machine(error.to_string());
    let configuration = place.scratch.path().join("wmill");
    let invocation = sync_command(windmill, place, folder, &configuration).map_err(machine)?.arguments([
        "pull",
        "--yes",
        "--skip-branch-validation",
    ]);
    let (mut words, mut log) = (Words::default(), ProgramLog::new("wmill", Level::Info));
    let finished = place.run(invocation, &mut |line| {
        log.line(line);
        words.take(line);
    });
    // The token is needed by nobody after this.
    scratch::remove_folder(&configuration).map_err(machine)?;
    match finished {
        Ok(finished)
            if finished.is_success()
                && let Some(line) = words.went_on_without =>
        {
            let message = format!(
                "`wmill sync pull` of workspace `{}` from {} did without an answer: {line}",
                windmill.workspace, windmill.base_url
            );
            Err(WindmillError::Failed { code: Code::PullFailed, message, cure: Cure::Time(None) })
        }
        Ok(finished) if finished.is_success() && words.say_done() => Ok(()),
        Ok(finished) => Err(failed(windmill, "pull", &finished)),
        Err(Failure::Expired(expired)) => Err(WindmillError::Expired(expired)),
        Err(failure) => Err(WindmillError::Machine(failure.to_string())),
    }
}

/// Pushes what lies in `folder`, which must hold the `wmill.yaml` for this run, into the workspace, or only finds out
/// what that would change: kind (`added`, `edited`, `deleted`) and path of each file.
///
/// # Errors
/// [`WindmillError`]. Where it was no dry run, a part may have been pushed.
pub fn push(
    windmill: &Windmill<'_>,
    place: &Workplace,
    folder: &Path,
    extent: Extent,
    deletions: Deletions,
) -> Result<Vec<(String, String)>, WindmillError> {
    let machine = |error: std::io::Error| WindmillError::Machine(error.to_string());
    let configuration = place.scratch.path().join("wmill");
    // Its own list of differences would show values, of resources for one; as JSON it has none.
    let mut invocation = sync_command(windmill, place, folder, &configuration).map_err(machine)?.arguments([
        "push",
        if extent == Extent::Show { "--dry-run" } else { "--yes" },
        "--skip-branch-validation",
        "--json-output",
    ]);
    if deletions == Deletions::Keep {
        invocation = invocation.argument("--keep-deleted");
    }
    let mut log = ProgramLog::new("wmill", Level::Info);
    let finished = place.run(invocation.capture(CHANGES_BYTES_MAX), &mut |line| log.line(line));
    scratch::remove_folder(&configuration).map_err(machine)?;
    match finished {
        Ok(finished) => match changes(&finished).filter(|_| finished.is_success()) {
            Some(changes) => Ok(changes),
            None => Err(failed(windmill, "push", &finished)),
        },
        Err(Failure::Expired(expired)) => Err(WindmillError::Expired(expired)),
        Err(failure) => Err(WindmillError::Machine(failure.to_string())),
    }
}

/// `wmill sync`, about to run in `folder`, with a profile of its own.
fn sync_command(
    windmill: &Windmill<'_>,
    place: &Workplace,
    folder: &Path,
    configuration: &Path,
) -> std::io::Result<Invocation> {
    write_profile(windmill, configuration)?;
    Ok(place
        .invocation("wmill", folder)?
        .environment("WMILL_CONFIG_DIR", configuration)
        .environment("NO_COLOR", "1")
        // wmill takes its orders from the branch of a repository that it finds; it is to find none.
        .environment("GIT_DIR", place.scratch.path().join("no-repository"))
        .environment("GIT_CEILING_DIRECTORIES", folder.parent().unwrap_or(folder))
        .arguments(["--workspace", PROFILE, "sync"]))
}

fn write_profile(windmill: &Windmill<'_>, configuration: &Path) -> std::io::Result<()> {
    let folder = configuration.join("windmill");
    scratch::create_folder(&folder)?;
    let text = |text: &str| json::to_string(text);
    let profile = format!(
        "{{\"name\":{},\"remote\":{},\"workspaceId\":{},\"token\":{}}}\n",
        text(PROFILE),
        // wmill appends `api/…` to it as it is.
        text(&windmill.base_url.join("")),
        text(windmill.workspace.as_str()),
        text(windmill.token.expose()),
    );
    scratch::write_file(&folder.join("remotes.ndjson"), profile.as_bytes())
}

fn failed(windmill: &Windmill<'_>, verb: &str, finished: &Finished) -> WindmillError {
    let start = finished.tail.len().saturating_sub(MESSAGE_LINES_MAX);
    let printed = finished.tail[start..].join("\n");
    let (code, cure) = match finished.ending {
        Ending::Exit(_) => classify(&finished.tail_text()),
        // For want of memory, mostly: the same again, or more of it, does not help.
        Ending::Signal(_) => (Code::PullFailed, Cure::None),
    };
    let how = if finished.is_success() {
        format!("ended with exit code 0 but did not say that it had done the {verb}")
    } else {
        format!("ended with {}", finished.ending)
    };
    let message =
        format!("`wmill sync {verb}` of workspace `{}` at {} {how}: {printed}", windmill.workspace, windmill.base_url);
    WindmillError::Failed { code, message, cure }
}

/// What `wmill sync push` says that it changed or would change.
fn changes(finished: &Finished) -> Option<Vec<(String, String)>> {
    // Warnings may stand before it.
    let text = String::from_utf8_lossy(&finished.stdout);
    let (start, end) = (text.find('{')?, text.rfind('}')?);
    let Ok(Value::Object(mut answer)) = json::from_str(text.get(start..=end)?) else { return None };
    if !matches!(answer.get("success"), Some(Value::Bool(true))) {
        return None;
    }
    let Some(Value::Array(list)) = answer.remove("changes") else { return Some(Vec::new()) };
    list.iter().map(|change| two_texts(change, ["type", "path"])).collect()
}

/// What a pull that did its work says: how many changes there are to apply and, if any, that they were.
#[derive(Default)]
struct Words {
    changes: Option<u64>,
    is_applied: bool,
    /// What it said of a question that had no answer, and may have one in a moment: what came of it is incomplete.
    went_on_without: Option<String>,
}

impl Words {
    fn take(&mut self, line: &str) {
        if let Some(count) = line.split("-> local: ").nth(1).and_then(|rest| rest.strip_suffix(" changes to apply")) {
            self.changes = count.parse().ok();
        }
        self.is_applied |= line.starts_with("Done! All ");
        if let Some(rest) = line.split("Could not fetch ws_specific items from server (").nth(1)
            && rest.split(')').next().and_then(|status| status.parse().ok()).is_none_or(web::is_passing)
        {
            self.went_on_without = Some(line.to_owned());
        }
    }

    /// Without this, a `wmill` that exits 0 for another reason (a prompt that nobody answers) would pass for a pull.
    fn say_done(&self) -> bool {
        self.changes == Some(0) || (self.changes.is_some() && self.is_applied)
    }
}

/// What wmill's words mean, and what may help.
fn classify(printed: &str) -> (Code, Cure) {
    const UNREACHABLE: [&str; 8] = [
        "ECONNREFUSED",
        "ENOTFOUND",
        "EAI_AGAIN",
        "ECONNRESET",
        "ETIMEDOUT",
        "EHOSTUNREACH",
        "socket hang up",
        // Whatever the cause, one that is a certificate included, this is all that wmill says at times.
        "Could not connect to Windmill server",
    ];
    // An archive that came short is no zip file, and one that was cut while it was read was `terminated`.
    const BROKEN_OFF: [&str; 3] = ["fetch failed", "terminated", "zip file"];
    const DISK: [&str; 3] = ["ENOSPC", "EROFS", "EDQUOT"];
    const CERTIFICATES: [&str; 5] =
        ["CERT_", "SELF_SIGNED_CERT", "UNABLE_TO_GET_ISSUER", "UNABLE_TO_VERIFY_LEAF", "ERR_TLS_CERT"];
    let has = |signs: &[&str]| signs.iter().any(|sign| printed.contains(sign));
    if has(&["Workspace id '", "no rows returned"]) {
        (Code::WorkspaceNotFound, Cure::None)
    } else if has(&["401 Unauthorized", "Could not authenticate", "Unauthorized"]) {
        (Code::WindmillUnauthorized, Cure::None)
    } else if has(&DISK) {
        (Code::PullFailed, Cure::None)
    } else if has(&CERTIFICATES) {
        (Code::WindmillUnreachable, Cure::None)
    } else if has(&UNREACHABLE) {
        (Code::WindmillUnreachable, Cure::Time(None))
    } else if let Some(status) = status_of_archive(printed) {
        let cure = if web::is_passing(status) { Cure::Time(None) } else { Cure::None };
        (Code::PullFailed, cure)
    } else if has(&BROKEN_OFF) {
        (Code::PullFailed, Cure::Time(None))
    } else if printed.contains("Failed to request tarball") {
        (Code::PullFailed, Cure::None)
    } else {
        (Code::PullFailed, Cure::EmptyFolder)
    }
}

/// The status that the export was answered with, where that was no archive, or the page of a gateway.
fn status_of_archive(printed: &str) -> Option<u16> {
    let failed = || printed.split("Failed to request tarball from API: ").nth(1);
    let page = || printed.split("Got an HTML response from").nth(1)?.split("(status ").nth(1);
    failed().or_else(page)?.get(..3)?.parse().ok()
}

/// The version of the `wmill` on the path.
///
/// # Errors
/// As [`Workplace::version`].
pub fn version(place: &Workplace) -> Result<String, String> {
    place.version("wmill", "--version", "CLI version: ")
}

/// The same; `None` where it does not tell.
///
/// Asking starts the program once more, so the answer is kept in the file at `known`, together with which file it is
/// the version of.
#[must_use]
pub fn known_version(place: &Workplace, known: &Path) -> Option<String> {
    let program = identity(&place.environment);
    let kept = std::fs::read_to_string(known).ok();
    if let (Some(program), Some((kept_program, version))) =
        (&program, kept.as_deref().and_then(|kept| kept.strip_suffix('\n')?.split_once('\n')))
        && program == kept_program
        && !version.is_empty()
    {
        return Some(version.to_owned());
    }
    let version = version(place).ok()?;
    if let Some(program) = program {
        // Runs of other workspaces may be at the same: each has a file of its own until it is whole.
        let written = place.scratch.write("wmill-version", format!("{program}\n{version}\n").as_bytes());
        if let Err(error) = written.and_then(|fresh| std::fs::rename(fresh, known)) {
            log::warn!("cannot note the version of wmill: {error}");
        }
    }
    Some(version)
}

/// Path, size and time of the file behind `wmill`; another version of it differs in one of them.
#[must_use]
pub fn identity(environment: &[(String, String)]) -> Option<String> {
    let (_, path) = environment.iter().find(|(name, _)| name == "PATH")?;
    let program =
        std::env::split_paths(path).map(|folder| folder.join("wmill")).find_map(|file| file.canonicalize().ok())?;
    let metadata = program.metadata().ok()?;
    let modified = metadata.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(format!("{} {} {}", program.display(), metadata.len(), modified.as_nanos()))
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
    fn a_pull_that_went_on_without_an_answer_is_none() {
        for (status, expected) in [("502", true), ("429", true), ("no status", true), ("403", false), ("401", false)] {
            let mut words = Words::default();
            words.take(&format!("Could not fetch ws_specific items from server ({status}): why. Sync will proceed"));
            assert_eq!(words.went_on_without.is_some(), expected, "{status}");
        }
    }

    #[test]
    fn what_wmill_prints_tells_what_failed() {
        let archive = |status| classify(&format!("Failed to request tarball from API: {status} and why"));
        for (status, cure) in [("500", Cure::Time(None)), ("429", Cure::Time(None)), ("403", Cure::None)] {
            assert_eq!(archive(status), (Code::PullFailed, cure), "{status}");
        }
        let page =
            |status| classify(&format!("Got an HTML response from http://w/ (status {status}). The request was"));
        assert_eq!(page(503), (Code::PullFailed, Cure::Time(None)));
        assert_eq!(page(200), (Code::PullFailed, Cure::None));
        assert_eq!(classify("Workspace id 'x' not found on http://w/"), (Code::WorkspaceNotFound, Cure::None));
        assert_eq!(classify("connect ECONNREFUSED 127.0.0.1:1"), (Code::WindmillUnreachable, Cure::Time(None)));
        assert_eq!(classify("fetch failed: SELF_SIGNED_CERT_IN_CHAIN"), (Code::WindmillUnreachable, Cure::None));
        assert_eq!(classify("TypeError: terminated"), (Code::PullFailed, Cure::Time(None)));
        assert_eq!(classify("ENOSPC: no space left on device, write"), (Code::PullFailed, Cure::None));
        let item = "Failed to parse YAML content at path: f/x.resource.yaml";
        assert_eq!(classify(item), (Code::PullFailed, Cure::EmptyFolder));
    }
}
