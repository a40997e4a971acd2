//! `check` reports what prevents a sync and how to fix it, and leaves nothing behind.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use miniserde::json::Value;

use support::run::{field, text_field};
use support::windmill::SHOP;
use support::*;

/// The result of one check.
#[derive(Debug)]
struct Line {
    name: String,
    workspace: Option<String>,
    status: String,
    code: Option<String>,
    message: String,
    remedy: String,
}

fn check<'a>(sandbox: &'a Sandbox, remote: &impl Remote) -> Run<'a> {
    sandbox.command("check").arg("--json").remote(remote)
}

/// Returns the lines of an outcome of `--json`, after a check that the outcome is consistent.
#[track_caller]
fn lines(outcome: &Outcome) -> Vec<Line> {
    let Value::Array(checks) = field(outcome.result(), "checks") else { panic!("no list: {outcome}") };
    let line = |check: &Value| Line {
        name: text_field(check, "name").unwrap(),
        workspace: text_field(check, "workspace"),
        status: text_field(check, "status").unwrap(),
        code: text_field(check, "code"),
        message: text_field(check, "message").unwrap(),
        remedy: text_field(check, "remedy").unwrap_or_default(),
    };
    let lines: Vec<_> = checks.iter().map(line).collect();
    for line in &lines {
        assert!(["ok", "warning", "failed"].contains(&line.status.as_str()), "{line:?}");
        assert_eq!(line.status == "failed", line.code.is_some(), "{line:?}");
        assert!(line.status != "failed" || !line.remedy.is_empty(), "{line:?} does not say what to do");
    }
    let failed = lines.iter().any(|line| line.status == "failed");
    assert_eq!(matches!(field(outcome.result(), "success"), Value::Bool(true)), !failed, "{outcome}");
    assert_eq!(outcome.exit_code == Some(0), !failed, "{outcome}");
    assert_nothing_leaked(&outcome.texts(), &[], &[WINDMILL_TOKEN, GIT_TOKEN]);
    lines
}

/// Returns the names of the lines that are not ok, with their code or `warning`.
#[track_caller]
fn faults(outcome: &Outcome) -> Vec<(String, String)> {
    let bad = lines(outcome).into_iter().filter(|line| line.status != "ok");
    bad.map(|line| (line.name, line.code.unwrap_or(line.status))).collect()
}

#[track_caller]
fn assert_faults(outcome: &Outcome, expected: &[(&str, &str)], exit_code: i32) {
    let found = faults(outcome);
    let found: Vec<_> = found.iter().map(|(name, code)| (name.as_str(), code.as_str())).collect();
    assert_eq!(found, expected, "{outcome}");
    assert_eq!(outcome.exit_code, Some(exit_code), "{outcome}");
}

/// Asserts that exactly these lines are not ok, that the message or the remedy of the last one contains each word, and
/// that nothing was left behind.
#[track_caller]
fn expect(sandbox: &Sandbox, run: &Run<'_>, expected: &[(&str, &str)], exit_code: i32, words: &[&str]) -> Outcome {
    let before = everything_below(&sandbox.data());
    let outcome = run.run();
    assert_faults(&outcome, expected, exit_code);
    let last = lines(&outcome).into_iter().rfind(|line| line.status != "ok").unwrap();
    for word in words {
        assert!(last.message.contains(word) || last.remedy.contains(word), "no `{word}` in {last:?}");
    }
    assert_eq!(everything_below(&sandbox.data()), before, "{outcome}");
    assert!(sandbox.processes().is_empty(), "{:?}", sandbox.processes());
    outcome
}

fn everything_below(folder: &Path) -> BTreeSet<PathBuf> {
    let mut all = BTreeSet::new();
    let mut pending = vec![folder.to_path_buf()];
    while let Some(path) = pending.pop() {
        if let (Ok(entries), false) = (fs::read_dir(&path), path.is_symlink()) {
            pending.extend(entries.map(|entry| entry.unwrap().path()));
        }
        all.insert(path);
    }
    all
}

fn is_of_a_check(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".check-"))
}

/// Replaces `wmill` with a script: Node.js takes half a second to start, and some tests check a dozen times.
fn with_quick_wmill(sandbox: &Sandbox) {
    sandbox.program("wmill", &format!("echo 'CLI version: {}'", wmill::version()));
}

#[track_caller]
fn assert_all_well(outcome: &Outcome, names: &[&str]) {
    let lines = lines(outcome);
    let found: Vec<_> = lines.iter().map(|line| line.name.as_str()).collect();
    assert_eq!(found, names, "{outcome}");
    assert!(lines.iter().all(|line| line.status == "ok"), "{outcome}");
    assert_eq!(outcome.exit_code, Some(0), "{outcome}");
}

const ALL: [&str; 9] = ["settings", "data_dir", "wmill", "git", "windmill", "token", "export", "remote", "branch"];

#[test]
fn check_is_ok_if_a_sync_would_work_and_changes_nothing() {
    let names = [&ALL[..], &["push"]].concat();
    for data in ["data", "data/made/for/it"] {
        let sandbox = Sandbox::new();
        let repository = sandbox.repository();
        let http = GitHttp::serve(&repository);
        let data = sandbox.path().join(data);
        for run in [check(&sandbox, &repository), check(&sandbox, &http)] {
            let run = run.env("DATA_DIR", &data.display().to_string());
            let (before, refs) = (everything_below(&sandbox.data()), repository.refs());
            let outcome = run.run();
            assert_all_well(&outcome, &names);
            let lines = lines(&outcome);
            let message = |name: &str| &lines.iter().find(|line| line.name == name).unwrap().message;
            assert!(message("windmill").starts_with("CE v1.743.0 at http://"), "{outcome}");
            assert_eq!(*message("wmill"), wmill::version(), "{outcome}");
            assert!(message("branch").contains("the first sync makes it"), "{outcome}");
            assert!(message("token").contains("admin"), "{outcome}");
            assert!(lines.iter().any(|line| line.workspace.as_deref() == Some(SHOP)), "{outcome}");
            assert_eq!((everything_below(&sandbox.data()), repository.refs()), (before, refs), "{outcome}");
        }
        assert!(http.requests().iter().all(|request| request.authorized));
        let pushed = http.requests().iter().any(|request| request.target.ends_with("/git-receive-pack"));
        assert!(!pushed, "receive-pack is asked, and sent nothing");
    }
}

#[test]
fn each_result_is_one_line_with_the_content_of_the_json() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    sandbox.windmill.token("another");
    let as_json = lines(&check(&sandbox, &repository).run());
    let outcome = sandbox.command("check").remote(&repository).run();
    assert_eq!(outcome.exit_code, Some(10), "{outcome}");
    let text: Vec<_> = outcome.stdout.lines().collect();
    assert_eq!(text.len(), as_json.len(), "{outcome}");
    for (text, line) in text.iter().zip(&as_json) {
        let of_message = &line.message.replace('\n', "; ");
        let is_free_space = line.name == "data_dir";
        assert!(text.starts_with(&line.status) && text.contains(&line.name), "{text}: {line:?}");
        assert!(is_free_space || text.contains(of_message) && text.ends_with(&line.remedy), "{text}: {line:?}");
    }
    assert_eq!(outcome.stderr, "", "{outcome}");
}

#[test]
fn check_after_a_sync_changes_neither_files_nor_refs() {
    let sandbox = Sandbox::new();
    for repository in [sandbox.repository(), sandbox.sha256_repository()] {
        sandbox.sync().remote(&repository).run().expect("pushed");
        let tip = repository.tip("main").unwrap();
        let (files, refs) = (files_below(&sandbox.data()), repository.refs());
        let outcome = check(&sandbox, &repository).run();
        let branch = lines(&outcome).into_iter().find(|line| line.name == "branch").unwrap();
        assert!(branch.message.contains(&tip[..10]), "{branch:?}");
        assert_all_well(&outcome, &[&ALL[..], &["push"]].concat());
        assert_eq!((files_below(&sandbox.data()), repository.refs()), (files, refs), "{outcome}");
        // This branch does not exist yet.
        let outcome = check(&sandbox, &repository).branch("another").run();
        assert_all_well(&outcome, &[&ALL[..], &["push"]].concat());
        assert!(outcome.stdout.contains("`another` is not there yet"), "{outcome}");
    }
}

#[test]
fn all_missing_settings_are_named_and_the_rest_is_checked() {
    let sandbox = Sandbox::new();
    with_quick_wmill(&sandbox);
    let repository = sandbox.repository();
    let bare = check(&sandbox, &repository).without("WINDMILL_TOKEN").without("GIT_REMOTE_URL");
    let outcome = expect(&sandbox, &bare, &[("settings", "config_invalid"); 2], 2, &["GIT_REMOTE_URL is not set"]);
    assert!(outcome.stdout.contains("WINDMILL_TOKEN is not set"), "{outcome}");
    assert!(outcome.stdout.contains("CE v1.743.0"), "Windmill is asked what needs no token: {outcome}");
    assert!(sandbox.windmill.requests().iter().all(|request| request.authorization.is_none()));
    // The configured parts are checked.
    let http = GitHttp::serve(&repository);
    let run = check(&sandbox, &http).without("WINDMILL_TOKEN");
    let outcome = expect(&sandbox, &run, &[("settings", "config_invalid")], 2, &["WINDMILL_TOKEN"]);
    assert!(lines(&outcome).iter().any(|line| line.name == "push" && line.status == "ok"), "{outcome}");
    http.forget_requests();
    let run = check(&sandbox, &http).without("GIT_TOKEN");
    let outcome = expect(&sandbox, &run, &[("settings", "config_invalid")], 2, &["GIT_TOKEN"]);
    assert!(lines(&outcome).iter().any(|line| line.name == "export" && line.status == "ok"), "{outcome}");
    assert_eq!(http.requests().len(), 0);
    let ssh = check(&sandbox, &repository).env("GIT_REMOTE_URL", "git@127.0.0.1:x");
    let outcome = expect(&sandbox, &ssh, &[("settings", "config_invalid"); 2], 2, &["GIT_SSH_KNOWN_HOSTS_FILE"]);
    assert!(outcome.stdout.contains("GIT_SSH_KEY"), "{outcome}");
}

#[test]
fn each_malformed_setting_has_its_own_line() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let run = check(&sandbox, &repository)
        .env("GIT_BRANCH", "-x")
        .env("SYNC_TIMEOUT", "soon")
        .without("WINDMILL_TOKEN")
        .env("GIT_TOKEN", "two\nlines");
    expect(&sandbox, &run, &[("settings", "config_invalid"); 4], 2, &["WINDMILL_TOKEN"]);
    assert_eq!(sandbox.windmill.requests().len(), 0);
    let usage = sandbox.command("check").arg("--windmill-token").arg("x").run();
    assert_eq!(usage.exit_code, Some(2), "{usage}");
    assert!(usage.stderr.contains("Usage"), "{usage}");
}

#[test]
fn secrets_files_that_cannot_be_read_are_named() {
    let sandbox = Sandbox::new();
    let http = GitHttp::serve(&sandbox.repository());
    let gone = sandbox.path().join("gone").display().to_string();
    let run = check(&sandbox, &http)
        .without("WINDMILL_TOKEN")
        .env("WINDMILL_TOKEN_FILE", &gone)
        .without("GIT_TOKEN")
        .env("GIT_TOKEN_FILE", &gone)
        .env("HEARTBEAT_URL_FILE", &gone);
    let expected = [("settings", "config_invalid"), ("settings", "config_invalid"), ("settings", "warning")];
    expect(&sandbox, &run, &expected, 2, &["HEARTBEAT_URL_FILE", &gone]);
}

#[test]
fn check_reports_that_a_sync_refuses_the_encryption_key() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let run = check(&sandbox, &repository).env("WMILL_INCLUDE", "schedules,key");
    expect(&sandbox, &run, &[("settings", "plaintext_secrets")], 2, &["WMILL_INCLUDE", "ALLOW_PLAINTEXT_SECRETS"]);
    assert_all_well(&run.env("ALLOW_PLAINTEXT_SECRETS", "true").run(), &[&ALL[..], &["push"]].concat());
}

#[test]
fn check_requests_the_export_with_the_configured_kinds() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let export = || {
        let asked = sandbox.windmill.requests().into_iter().find(|request| request.target.contains("tarball"));
        sandbox.windmill.forget_requests();
        asked.unwrap().target
    };
    check(&sandbox, &repository).run();
    let asked = export();
    for field in ["include_schedules=true", "include_users=false", "skip_variables=false", "include_key=false"] {
        assert!(asked.contains(field), "{asked}");
    }
    check(&sandbox, &repository).env("WMILL_INCLUDE", "users").env("WMILL_SKIP", "variables").run();
    let asked = export();
    for field in ["include_schedules=false", "include_users=true", "skip_variables=true", "include_key=false"] {
        assert!(asked.contains(field), "{asked}");
    }
}

#[test]
fn check_lists_items_that_a_sync_would_leave_out() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    sandbox.windmill.edit(|workspace| {
        workspace.add_fileset("f/ops/set", &[("../job_00000.ts", "not mine")]);
        workspace.add_fileset("f/ops/fine", &[("a..b/c.sql", "select 1")]);
    });
    let run = check(&sandbox, &repository);
    let outcome = expect(&sandbox, &run, &[("items", "warning")], 0, &["f/ops/set (resource: ", "incomplete"]);
    assert!(!outcome.to_string().contains("f/ops/fine"), "{outcome}");
    // Kinds that are not backed up are not reported.
    assert_faults(&check(&sandbox, &repository).env("WMILL_SKIP", "resources").run(), &[], 0);
}

#[test]
fn each_refusal_by_windmill_is_reported_with_its_cause() {
    let sandbox = Sandbox::new();
    with_quick_wmill(&sandbox);
    let repository = sandbox.repository();
    let run = check(&sandbox, &repository);
    sandbox.windmill.token("rotated");
    expect(&sandbox, &run, &[("token", "windmill_unauthorized")], 10, &["WINDMILL_TOKEN", "shop"]);
    sandbox.windmill.token(WINDMILL_TOKEN);
    sandbox.windmill.token_kind(TokenKind::User);
    let elsewhere = run.clone().workspace("nowhere");
    expect(&sandbox, &elsewhere, &[("token", "workspace_not_found")], 10, &["WINDMILL_WORKSPACE", "nowhere"]);
    let outcome = run.run();
    assert!(outcome.stdout.contains("it sees: shop"), "{outcome}");
    sandbox.windmill.role(Role::Developer);
    expect(&sandbox, &run, &[("token", "warning")], 0, &["not an admin's", "admin of the workspace"]);
    sandbox.windmill.role(Role::Admin);
    sandbox.windmill.fail("/list_ws_specific", Fault::Status(403));
    expect(&sandbox, &run, &[("export", "pull_failed")], 10, &["list_ws_specific", "403"]);
    sandbox.windmill.heal();
    sandbox.windmill.fail("/workspaces/tarball", Fault::Status(403));
    expect(&sandbox, &run, &[("export", "pull_failed")], 10, &["403", "as the test wants it", "admin"]);
    sandbox.windmill.heal();
    sandbox.windmill.fail("/workspaces/tarball", Fault::GatewayPage(200));
    expect(&sandbox, &run, &[("export", "pull_failed")], 10, &["workspaces/tarball"]);
    sandbox.windmill.heal();
    expect(&sandbox, &run.without("WINDMILL_WORKSPACE"), &[("token", "workspace_not_found")], 10, &["admins"]);
}

#[test]
fn check_warns_if_the_workspace_is_not_set() {
    let sandbox = Sandbox::new();
    sandbox.windmill.token_kind(TokenKind::User);
    sandbox.windmill.set("admins", sandbox.windmill.workspace(SHOP));
    let run = check(&sandbox, &sandbox.repository()).without("WINDMILL_WORKSPACE");
    expect(&sandbox, &run, &[("settings", "warning")], 0, &["WINDMILL_WORKSPACE is not set", "admins, shop"]);
}

#[test]
fn a_server_that_is_not_windmill_and_one_that_does_not_answer_have_different_messages() {
    let sandbox = Sandbox::new();
    with_quick_wmill(&sandbox);
    let repository = sandbox.repository();
    let run = check(&sandbox, &repository);
    let expected = [("windmill", "windmill_unreachable")];
    for (fault, word) in [
        (Fault::GatewayPage(502), "502"),
        (Fault::GatewayPage(200), "and the answer is not Windmill's"),
        (Fault::Status(500), "500"),
        (Fault::Close, "cannot reach Windmill"),
    ] {
        sandbox.windmill.fail("/api/version", fault);
        let outcome = expect(&sandbox, &run, &expected, 10, &[word, "WINDMILL_BASE_URL"]);
        assert!(lines(&outcome).iter().any(|line| line.name == "push" && line.status == "ok"), "{outcome}");
        sandbox.windmill.heal();
    }
    sandbox.windmill.fail("/api/version", Fault::Status(404));
    expect(&sandbox, &run, &[("windmill", "warning")], 0, &["does not tell its version"]);
    sandbox.windmill.heal();
    // Nothing listens on this address.
    let down = run.arg("--base-url").arg("http://127.0.0.1:1");
    expect(&sandbox, &down, &expected, 10, &["cannot reach Windmill", "127.0.0.1:1"]);
}

#[test]
fn a_missing_answer_ends_the_check_in_time() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let http = GitHttp::serve(&repository);
    with_quick_wmill(&sandbox);
    // The steps before it may take a while on a busy machine. The last limit is long enough.
    let check_until = |is_it: fn(&[(String, String)]) -> bool| {
        let ended = ["4s", "16s", "64s"].map(|seconds| check(&sandbox, &http).env("SYNC_TIMEOUT", seconds));
        let ended = ended.iter().map(Run::run).find(|ended| is_it(&faults(ended)));
        ended.expect("none of them failed as it should")
    };
    fn fault(name: &str, code: &str) -> (String, String) {
        (name.to_owned(), code.to_owned())
    }
    sandbox.windmill.fail("/users/whoami", Fault::Hang);
    let outcome = check_until(|found| found.contains(&fault("token", "windmill_unreachable")));
    assert_eq!(outcome.exit_code, Some(10), "{outcome}");
    sandbox.windmill.heal();
    http.fail("git-upload-pack", Fault::Hang);
    let outcome = check_until(|found| found == [fault("remote", "git_unreachable")]);
    assert!(everything_below(&sandbox.data()).len() == 1 && sandbox.processes().is_empty(), "{outcome}");
}

#[test]
fn a_signal_ends_the_check_and_no_files_stay() {
    let sandbox = Sandbox::new();
    let http = GitHttp::serve(&sandbox.repository());
    http.fail("git-upload-pack", Fault::Hang);
    let running = check(&sandbox, &http).start();
    http.wait_until_hanging();
    running.terminate();
    let outcome = running.finish();
    assert_eq!(outcome.exit_code, Some(14), "{outcome}");
    assert!(outcome.stdout.contains("before the check was ended"), "{outcome}");
    assert_eq!(everything_below(&sandbox.data()).len(), 1, "{outcome}");
    assert!(sandbox.processes().is_empty(), "{outcome}");
}

#[test]
fn the_next_check_removes_the_files_of_a_killed_one() {
    let sandbox = Sandbox::new();
    let http = GitHttp::serve(&sandbox.repository());
    http.fail("git-upload-pack", Fault::Hang);
    let running = check(&sandbox, &http).start();
    http.wait_until_hanging();
    // Another check does not disturb the first one, and is not disturbed.
    let meanwhile = check(&sandbox, &sandbox.repository_named("other")).run();
    assert_all_well(&meanwhile, &[&ALL[..], &["push"]].concat());
    let left = everything_below(&sandbox.data()).len();
    assert!(left > 4, "the first one still works there");
    running.kill();
    running.finish();
    let next = check(&sandbox, &sandbox.repository_named("other")).run();
    assert_all_well(&next, &[&ALL[..], &["push"]].concat());
    let names: Vec<_> = everything_below(&sandbox.data()).into_iter().collect();
    assert!(names.iter().all(|path| path.is_dir() && !is_of_a_check(path)), "{names:?}");
    eventually("its git has ended", || sandbox.processes().is_empty().then_some(()));
}

#[test]
fn a_sync_removes_the_files_of_a_killed_check() {
    let sandbox = Sandbox::new();
    let http = GitHttp::serve(&sandbox.repository());
    http.fail("git-upload-pack", Fault::Hang);
    let running = check(&sandbox, &http).start();
    http.wait_until_hanging();
    let other = sandbox.repository_named("other");
    let left = || everything_below(&sandbox.data()).into_iter().filter(|path| is_of_a_check(path)).count();
    sandbox.sync().remote(&other).run().expect("pushed");
    assert_eq!(left(), 2, "the check still works in its folder, and holds its lock");
    running.kill();
    running.finish();
    sandbox.sync().remote(&other).run().expect("unchanged");
    assert_eq!(left(), 0);
    assert!(sandbox.processes().is_empty(), "its git has ended");
}

#[test]
fn each_refusal_by_the_remote_is_reported_with_its_cause() {
    let sandbox = Sandbox::new();
    with_quick_wmill(&sandbox);
    let repository = sandbox.repository();
    let http = GitHttp::serve(&repository);
    let run = check(&sandbox, &http);
    http.token("rotated");
    expect(&sandbox, &run, &[("remote", "git_unauthorized")], 11, &["credentials were refused", "GIT_USERNAME"]);
    http.token(GIT_TOKEN);
    // This token may read but not write.
    http.fail("service=git-receive-pack", Fault::Status(403));
    let outcome = expect(&sandbox, &run, &[("push", "git_unauthorized")], 11, &["403", "read and write"]);
    assert!(lines(&outcome).iter().any(|line| line.name == "remote" && line.status == "ok"), "{outcome}");
    http.heal();
    http.fail("git-upload-pack", Fault::Status(404));
    expect(&sandbox, &run, &[("remote", "git_failed")], 11, &["no such repository"]);
    http.heal();
    let gone = sandbox.path().join("remotes/none.git");
    let nowhere = run.clone().env("GIT_REMOTE_URL", &format!("file://{}", gone.display()));
    expect(&sandbox, &nowhere, &[("remote", "git_failed")], 11, &["does not appear to be a git repository"]);
    let down = run.arg("--remote").arg("http://127.0.0.1:1/x.git");
    expect(&sandbox, &down, &[("remote", "git_unreachable")], 11, &["GIT_REMOTE_URL", "onnect"]);
    assert_eq!(repository.refs(), "");
}

#[test]
fn the_first_area_that_failed_gives_the_exit_code() {
    let sandbox = Sandbox::new();
    let http = GitHttp::serve(&sandbox.repository());
    http.token("rotated");
    sandbox.windmill.token("rotated");
    let run = check(&sandbox, &http);
    let (token, remote) = (("token", "windmill_unauthorized"), ("remote", "git_unauthorized"));
    expect(&sandbox, &run, &[token, remote], 10, &[]);
    let file = sandbox.file("a-file", "").join("below");
    let nowhere = run.arg("--data-dir").arg(&file.display().to_string());
    let outcome = nowhere.run();
    assert_faults(&outcome, &[("data_dir", "config_invalid"), token], 2);
    assert!(outcome.stdout.contains("cannot be written"), "{outcome}");
}

#[test]
fn missing_and_broken_tools_are_named_with_a_remedy() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let only = |programs: &[&str]| {
        let folder = sandbox.scratch(&format!("only-{}", programs.join("-")));
        for program in programs {
            let link = folder.join(program);
            let _ = std::os::unix::fs::symlink(process::find_program(program, &[]).unwrap(), link);
        }
        folder.display().to_string()
    };
    let run = check(&sandbox, &repository);
    let without_wmill = run.clone().env("PATH", &only(&["git"]));
    expect(&sandbox, &without_wmill, &[("wmill", "pull_failed")], 10, &["not installed", "npm install"]);
    let none = run.clone().env("PATH", &only(&[]));
    expect(&sandbox, &none, &[("wmill", "pull_failed"), ("git", "git_failed")], 10, &["git", "install git"]);
    // wmill is installed, Node.js is not.
    sandbox.program("wmill", "echo 'node: not found' >&2; exit 127");
    expect(&sandbox, &run, &[("wmill", "pull_failed")], 10, &["exit code 127: node: not found"]);
    sandbox.program("wmill", "echo 'CLI version: 1.725.0'");
    expect(&sandbox, &run, &[("wmill", "warning")], 0, &["1.725.0"]);
    sandbox.program("wmill", "echo 'CLI version: 1.725.1'");
    sandbox.program("git", "echo 'git version 2.30.2'");
    expect(&sandbox, &run, &[("git", "git_failed")], 11, &["2.30.2", "too old"]);
    fs::remove_file(sandbox.bin().join("git")).unwrap();
    let ssh = run.env("GIT_REMOTE_URL", "git@127.0.0.1:x").env("GIT_SSH_KEY", "key").env("GIT_SSH_ACCEPT_NEW", "true");
    let without_ssh = ssh.env("PATH", &format!("{}:{}", sandbox.bin().display(), only(&["git", "sh"])));
    expect(&sandbox, &without_ssh, &[("ssh", "git_failed")], 11, &["ssh", "OpenSSH"]);
}

#[test]
fn a_clock_that_differs_from_windmills_is_reported() {
    let sandbox = Sandbox::new();
    with_quick_wmill(&sandbox);
    let repository = sandbox.repository();
    let run = check(&sandbox, &repository);
    let hour = Duration::from_secs(3600);
    sandbox.windmill.date(SystemTime::now() - hour);
    expect(&sandbox, &run, &[("clock", "warning")], 0, &[" s ahead of Windmill's"]);
    sandbox.windmill.date(SystemTime::now() + hour);
    expect(&sandbox, &run, &[("clock", "warning")], 0, &[" s behind Windmill's"]);
    sandbox.windmill.date(SystemTime::now());
    let outcome = run.run();
    assert!(lines(&outcome).iter().any(|line| line.name == "clock" && line.status == "ok"), "{outcome}");
}

#[test]
fn check_tries_the_signing_key() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let run = check(&sandbox, &repository).env("GIT_SIGNING_KEY", "no key");
    expect(&sandbox, &run, &[("signing", "config_invalid")], 2, &["GIT_SIGNING_KEY"]);
}

#[test]
fn check_reports_an_invalid_bundle() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let run = check(&sandbox, &repository).env("CA_BUNDLE_FILE", "/nonexistent/ca.pem");
    expect(&sandbox, &run, &[("settings", "config_invalid")], 2, &["CA_BUNDLE_FILE", "/nonexistent/ca.pem"]);
}

#[test]
fn each_of_several_workspaces_is_checked_under_its_name() {
    let sandbox = Sandbox::new();
    with_quick_wmill(&sandbox);
    sandbox.windmill.token_kind(TokenKind::User);
    sandbox.windmill.set("lab", sandbox.windmill.workspace(SHOP));
    let repository = sandbox.repository();
    let run = check(&sandbox, &repository).branch("{workspace}");
    let outcome = run.clone().workspace("shop,lab,gone").run();
    assert_faults(&outcome, &[("token", "workspace_not_found")], 10);
    let of = |outcome: &Outcome, name: &str| -> Vec<_> {
        lines(outcome)
            .into_iter()
            .filter(|line| line.name == name)
            .map(|line| line.workspace.unwrap_or(line.message))
            .collect()
    };
    assert_eq!(
        (of(&outcome, "token"), of(&outcome, "export")),
        (vec!["shop".to_owned(), "lab".to_owned(), "gone".to_owned()], vec!["shop".to_owned(), "lab".to_owned()])
    );
    assert_eq!((of(&outcome, "branch").len(), of(&outcome, "push").len()), (3, 1));
    let all = run.clone().workspace("*").run();
    assert_eq!((of(&all, "token"), of(&all, "branch").len()), (vec!["lab".to_owned(), "shop".to_owned()], 2), "{all}");
    assert_eq!(of(&all, "workspaces"), ["* stands for lab, shop"]);
    // One branch for all workspaces is requested once.
    let folders = run.branch("main").subdir("{workspace}").workspace("shop,lab").run();
    assert_eq!(of(&folders, "branch").len(), 1, "{folders}");
    sandbox.windmill.token_kind(TokenKind::BoundTo(SHOP.to_owned()));
    let bound = check(&sandbox, &repository).branch("{workspace}").workspace("*").run();
    assert_faults(&bound, &[("workspaces", "windmill_unauthorized")], 10);
    assert_eq!((of(&bound, "branch").len(), of(&bound, "push").len()), (0, 1), "{bound}");
}

#[test]
fn check_does_not_wait_for_a_running_sync() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let held = sandbox.windmill.hold_exports();
    let sync = sandbox.sync().remote(&repository).start();
    held.wait_for(1);
    let other = Windmill::start();
    let outcome = check(&sandbox, &repository).windmill(&other).run();
    assert_all_well(&outcome, &[&ALL[..], &["push"]].concat());
    held.release();
    sync.finish().expect("pushed");
}

#[test]
fn check_shows_no_secret_and_its_programs_get_none() {
    let sandbox = Sandbox::new();
    with_quick_wmill(&sandbox);
    let repository = sandbox.repository();
    let http = GitHttp::serve(&repository);
    sandbox.record("git");
    let said = format!("you sent {WINDMILL_TOKEN} and {GIT_TOKEN}");
    let secrets = [WINDMILL_TOKEN, GIT_TOKEN];
    for needle in ["/api/version", "/users/whoami", "/workspaces/tarball"] {
        for (status, json) in [(501, true), (401, false)] {
            sandbox.windmill.fail(needle, Fault::Answer(status, "text/plain", said.clone()));
            http.fail("git-receive-pack", Fault::Answer(403, "text/plain", said.clone()));
            let run = sandbox.command("check").remote(&http).env("LOG_LEVEL", "trace");
            let outcome = if json { run.arg("--json") } else { run }.run();
            assert_ne!(outcome.exit_code, Some(0), "{outcome}");
            assert_nothing_leaked(&outcome.texts(), &[&sandbox.data()], &secrets);
            sandbox.windmill.heal();
            http.heal();
        }
    }
    let started = sandbox.invocations("git");
    assert!(started.len() > 10);
    for git in started {
        let arguments = git.arguments.join(" ");
        assert_nothing_leaked(&[("arguments", arguments.as_bytes())], &[], &secrets);
        let environment = git.environment.join("\n");
        assert_nothing_leaked(&[("environment", environment.as_bytes())], &[], &[WINDMILL_TOKEN]);
    }
}

#[test]
#[ignore = "needs sshd: just test-ssh"]
fn check_over_ssh_is_ok_and_does_not_save_an_accepted_host() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let remote = GitSsh::serve(&repository);
    let names =
        ["settings", "data_dir", "wmill", "git", "ssh", "windmill", "token", "export", "remote", "branch", "push"];
    let run = check(&sandbox, &remote);
    let outcome = run.run();
    assert_all_well(&outcome, &names);
    assert_nothing_leaked(&outcome.texts(), &[&sandbox.data()], &[&remote.client_key()]);
    let accepting = run.clone().without("GIT_SSH_KNOWN_HOSTS_FILE").env("GIT_SSH_ACCEPT_NEW", "true");
    assert_all_well(&accepting.run(), &names);
    assert_eq!(everything_below(&sandbox.data()).len(), 1);
    let revoked = run;
    remote.revoke_client_key();
    expect(&sandbox, &revoked, &[("remote", "git_unauthorized")], 11, &["Permission denied"]);
    remote.change_host_key();
    expect(&sandbox, &revoked, &[("remote", "git_unreachable")], 11, &["host's key", "GIT_SSH_KNOWN_HOSTS_FILE"]);
}

#[test]
#[ignore = "needs root: just test-root"]
fn as_root_a_folder_or_a_repository_of_another_user_is_reported() {
    use std::os::unix::fs::chown;
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let run = check(&sandbox, &repository).user(12345);
    let outcome = run.run();
    assert_faults(&outcome, &[("data_dir", "config_invalid")], 2);
    assert!(outcome.stdout.contains("chown") && outcome.stdout.contains("cannot be written"), "{outcome}");
    chown(sandbox.data(), Some(12345), Some(12345)).unwrap();
    expect(&sandbox, &run, &[("push", "git_rejected")], 11, &["objects cannot be written"]);
}

// The service.

#[test]
fn a_service_logs_failed_checks_at_its_start() {
    let sandbox = Sandbox::new();
    let http = GitHttp::serve(&sandbox.repository());
    sandbox.windmill.token("rotated");
    http.fail("service=git-receive-pack", Fault::Status(403));
    let service = sandbox.service().remote(&http).serve();
    service.wait_for_log("check: failed   token shop");
    service.wait_for_log("check: failed   push");
    assert!(!service.log().contains("check: ok"), "{}", service.log());
    assert_eq!(service.get("/health").status, 200);
    assert_eq!(sandbox.windmill.exports(), 0, "the export is left to a sync");
    assert_nothing_leaked(&[("log", service.log().as_bytes())], &[&sandbox.data()], &[WINDMILL_TOKEN, GIT_TOKEN]);
    sandbox.windmill.token(WINDMILL_TOKEN);
    http.heal();
    assert_eq!(service.post_sync("").status, 200, "{}", service.log());
}

#[test]
fn a_service_logs_that_all_checks_are_ok() {
    let sandbox = Sandbox::new();
    let service = sandbox.service().remote(&sandbox.repository()).serve();
    service.wait_for_log("check: nothing was found that prevents");
    assert!(!service.log().contains("WARN") && !service.log().contains("ERROR"), "{}", service.log());
}

#[test]
fn the_check_of_a_service_is_skipped_for_a_sync_and_blocks_nothing() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    // The sync is requested before the check begins, unless the machine is very busy.
    let gave_way = (0..3).any(|_| {
        let service = sandbox.service().remote(&repository).env("LOG_LEVEL", "debug").serve();
        assert_eq!(service.post_sync("").status, 200);
        eventually("the time of the check", || {
            let gives_way = service.log().contains("the check is skipped, since a sync was requested");
            (gives_way || service.log().contains("check:")).then_some(gives_way)
        })
    });
    assert!(gave_way, "a check began although a sync was asked for");
    // This check hangs.
    let http = GitHttp::serve(&repository);
    http.fail("git-upload-pack", Fault::Hang);
    let mut service = sandbox.service().remote(&http).serve();
    http.wait_until_hanging();
    assert_eq!(service.get("/health").status, 200);
    http.heal();
    assert_eq!(service.post_sync("").status, 200, "{}", service.log());
    assert_eq!(service.terminate().code(), Some(0), "{}", service.log());
    assert!(!service.log().contains("check: failed"), "{}", service.log());
    assert!(sandbox.processes().is_empty(), "{:?}", sandbox.processes());
    let left = everything_below(&sandbox.data());
    assert!(!left.iter().any(|path| is_of_a_check(path)));
}
