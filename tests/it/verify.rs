//! `verify`: whether the backup equals the workspace, by value, and what differs. It changes nothing.

use miniserde::json::Value;

use support::run::{field, text_field, texts_field};
use support::*;

/// Returns the listed differences: kind, path and diff.
#[track_caller]
fn differences(outcome: &Outcome) -> Vec<(String, String, String)> {
    let Value::Array(list) = field(outcome.result(), "differences") else { panic!("{outcome}") };
    let text = |one, name| text_field(one, name).unwrap();
    list.iter().map(|one| (text(one, "kind"), text(one, "path"), texts_field(one, "diff").join("\n"))).collect()
}

#[track_caller]
fn assert_same(outcome: &Outcome, tip: &str) {
    assert_eq!((outcome.code().as_str(), outcome.exit_code), ("unchanged", Some(0)), "{outcome}");
    assert_eq!((outcome.commit().as_deref(), outcome.changed()), (Some(tip), (0, 0, 0)), "{outcome}");
    assert!(differences(outcome).is_empty(), "{outcome}");
}

#[track_caller]
fn paths(outcome: &Outcome) -> Vec<(String, String)> {
    assert_eq!((outcome.code().as_str(), outcome.exit_code), ("differs", Some(3)), "{outcome}");
    let mut paths: Vec<_> = differences(outcome).into_iter().map(|(kind, path, _)| (kind, path)).collect();
    paths.sort_by(|one, other| one.1.cmp(&other.1));
    paths
}

fn listed(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter().map(|(kind, path)| ((*kind).to_owned(), (*path).to_owned())).collect()
}

#[test]
fn verify_lists_the_differences_and_changes_nothing() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    remote.commit_files("main", &[("README.md", "# ours\n"), ("scripts/x.py", "1\n")]);
    let synced = sandbox.sync().remote(&remote).run().expect("pushed");
    let tip = synced.commit().unwrap();
    let refs = remote.refs();
    let ours = || files_below(&sandbox.data().join("windmill-git-sync/checkouts"));
    let checkouts = ours();
    sandbox.windmill.forget_requests();

    let verify = sandbox.command("verify").remote(&remote);
    let same = verify.run();
    assert_same(&same, &tip);
    assert!(same.message().contains(&tip[..10]) && same.message().ends_with('Z'), "{}", same.message());

    // It works anywhere, because it does not use the local checkout.
    let elsewhere = sandbox.scratch("elsewhere");
    assert_same(&verify.clone().env("DATA_DIR", &elsewhere.display().to_string()).run(), &tip);

    sandbox.windmill.state("2-edited");
    let differs = verify.run();
    let expected = [
        ("differs", "f/ops/job_00000.script.yaml"),
        ("differs", "f/ops/job_00000.ts"),
        ("only_in_backup", "f/ops/region.variable.yaml"),
        ("only_in_backup", "f/sales/job_00001.py"),
        ("only_in_backup", "f/sales/job_00001.script.lock"),
        ("only_in_backup", "f/sales/job_00001.script.yaml"),
        ("missing_in_backup", "f/sales/new_report.py"),
        ("missing_in_backup", "f/sales/new_report.script.lock"),
        ("missing_in_backup", "f/sales/new_report.script.yaml"),
        ("differs", "wmill-lock.yaml"),
    ];
    assert_eq!(paths(&differs), listed(&expected));
    assert_eq!(differs.changed(), (3, 3, 4));
    let message = differs.message();
    assert!(message.contains("f/sales/new_report.py") && message.contains(&tip[..10]), "{message}");
    let how = differences(&differs).into_iter().find(|(_, path, _)| path == "f/ops/job_00000.ts").unwrap().2;
    assert!(how.contains("\n+") || how.starts_with('+'), "{how}");

    // Nothing was changed.
    assert_eq!((remote.refs(), ours() == checkouts), (refs, true));
    // `exists` only reads, although it is a POST.
    let is_write = |request: &LoggedRequest| request.method != "GET" && !request.target.ends_with("/exists");
    let wrote: Vec<_> = sandbox.windmill.requests().into_iter().filter(is_write).collect();
    assert!(wrote.is_empty(), "{wrote:?}");
    assert!(std::fs::read_dir(sandbox.data().join("windmill-git-sync/runs")).unwrap().next().is_none());
}

#[test]
#[ignore = "long: just test-long"]
fn values_are_differences_and_comments_line_ends_and_stale_locks_are_not() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    sandbox.sync().remote(&remote).run().expect("pushed");
    let files = remote.regular_files("main");
    let text = |path: &str| String::from_utf8(files[path].clone()).unwrap();
    let schedule = "f/ops/every_night.schedule.yaml";
    let mine = format!("# of a person\n{}", text(schedule)).replace('\n', "\r\n");
    let lock = format!("{}  f/ops/gone: {}\n", text("wmill-lock.yaml"), "0".repeat(64));
    let tip = remote.commit_files("main", &[(schedule, &mine), ("wmill-lock.yaml", &lock)]);
    let verify = sandbox.command("verify").remote(&remote);
    assert_same(&verify.run(), &tip);

    remote.commit_files("main", &[(schedule, &mine.replace("enabled: false", "enabled: true"))]);
    let differs = verify.run();
    assert_eq!(paths(&differs), listed(&[("differs", schedule)]));
    assert_eq!(differences(&differs)[0].2, "enabled: true in the backup, false in the workspace");
}

#[test]
fn a_change_of_the_dependencies_gives_all_items_their_hashes() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    remote.commit_files("main", &[("README.md", "ours\n"), ("f/ops/notes.txt", "theirs\n")]);
    let (sync, verify) = (sandbox.sync().remote(&remote), sandbox.command("verify").remote(&remote));
    sync.run().expect("pushed");
    for version in ["3.22.0", "3.23.0"] {
        let package = format!("{{\"dependencies\":{{\"zod\":\"{version}\"}}}}");
        sandbox.windmill.edit(|workspace| workspace.add_dependencies("package.json", &package));
        let pushed = sync.run().expect("pushed");
        assert_eq!(pushed.warnings(), [""; 0]);
        assert_same(&verify.run(), &pushed.commit().unwrap());
    }
    sandbox.windmill.edit(|workspace| workspace.remove("dependencies/package.json"));
    let pushed = sync.run().expect("pushed");
    assert_same(&verify.run(), &pushed.commit().unwrap());
    let files = remote.regular_files("main");
    assert!(files.contains_key("README.md") && files.contains_key("f/ops/notes.txt"), "{:?}", files.keys());
    assert!(!files.contains_key("dependencies/package.json"));
}

#[test]
#[ignore = "long: just test-long"]
fn different_line_ends_of_a_script_are_a_difference() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    sandbox.sync().remote(&remote).run().expect("pushed");
    let path = "f/sales/job_00001.py";
    let text = String::from_utf8(remote.regular_files("main")[path].clone()).unwrap();
    remote.commit_files("main", &[(path, &text.replace('\n', "\r\n"))]);
    let differs = sandbox.command("verify").remote(&remote).run();
    assert_eq!(paths(&differs), listed(&[("differs", path)]));
}

#[test]
#[ignore = "long: just test-long"]
fn yaml_that_only_wmill_reads_in_that_way_is_a_difference() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    sandbox.sync().remote(&remote).run().expect("pushed");
    let path = "f/ops/every_night.schedule.yaml";
    let text = String::from_utf8(remote.regular_files("main")[path].clone()).unwrap();
    let evil = text.replace("enabled: false", "enabled: true").replace('"', "'");
    for forged in [
        format!("# \r{}x: \"\n{evil}\n# \"\n", text.replace('\n', "\r")),
        format!("%YAML 1.1\n---\n{text}"),
        format!("{text}!!merge x: {{}}\n"),
    ] {
        remote.commit_files("main", &[(path, &forged)]);
        let differs = sandbox.command("verify").remote(&remote).run();
        assert_eq!(paths(&differs), listed(&[("differs", path)]));
    }
}

#[test]
#[ignore = "long: just test-long"]
fn items_outside_the_backup_are_not_compared() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    remote.commit_files("main", &[("wmill.yaml", "includes: ['f/ops/**']\nnonDottedPaths: true\n")]);
    sandbox.sync().remote(&remote).run().expect("pushed");
    let theirs = [("f/sales/old.py", "1\n"), ("f/ops/notes.md", "x\n"), ("f/ops/nightly__flow/README.md", "x\n")];
    let tip = remote.commit_files("main", &theirs);
    let verify = sandbox.command("verify").remote(&remote);
    assert_same(&verify.run(), &tip);
    // This similar file matches the patterns, so it counts.
    remote.commit_files("main", &[("f/ops/old.py", "1\n")]);
    assert_eq!(paths(&verify.run()), listed(&[("only_in_backup", "f/ops/old.py")]));
    // The backup covers schedules. A verification without schedules does not compare them.
    remote.commit("main").remove("f/ops/old.py").remove("f/ops/every_night.schedule.yaml").done("less");
    assert_eq!(paths(&verify.run()), listed(&[("missing_in_backup", "f/ops/every_night.schedule.yaml")]));
    let tip = remote.tip("main").unwrap();
    assert_same(&verify.clone().env("WMILL_INCLUDE", "triggers").run(), &tip);
}

#[test]
#[ignore = "long: just test-long"]
fn a_folder_is_verified_and_a_missing_branch_is_empty() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let sync = sandbox.sync().remote(&remote).subdir("backup/{workspace}");
    let tip = sync.run().expect("pushed").commit().unwrap();
    let verify = sandbox.command("verify").remote(&remote).subdir("backup/{workspace}");
    assert_same(&verify.run(), &tip);
    assert_eq!(verify.clone().arg("--subdir").arg("other").run().exit_code, Some(3));
    let nothing = verify.arg("--branch").arg("other").run();
    assert_eq!((nothing.exit_code, nothing.commit(), remote.tip("other")), (Some(3), None, None), "{nothing}");
    assert!(nothing.message().contains("the branch does not exist"), "{nothing}");
}

#[test]
#[ignore = "long: just test-long"]
fn each_of_several_workspaces_is_verified() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    sandbox.windmill.token_kind(TokenKind::User);
    sandbox.windmill.set("lab", Workspace::of_scripts(2));
    sandbox.sync().remote(&remote).workspace("shop,lab").subdir("{workspace}").run().expect("pushed");
    let verify = sandbox.command("verify").remote(&remote).workspace("shop,lab").subdir("{workspace}");
    let same = verify.run();
    assert_eq!((same.code().as_str(), same.exit_code), ("unchanged", Some(0)), "{same}");
    sandbox.windmill.set("lab", Workspace::of_scripts(3));
    let differs = verify.run();
    assert_eq!((differs.code().as_str(), differs.exit_code), ("differs", Some(3)), "{differs}");
    assert_eq!(text_field(differs.result(), "results.0.code").as_deref(), Some("unchanged"));
    assert!(text_field(differs.result(), "results.1.differences.0.path").is_some());
}

#[test]
fn failures_of_verify_have_the_codes_of_a_sync() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    sandbox.sync().remote(&remote).run().expect("pushed");
    let verify = sandbox.command("verify").remote(&remote);
    let exit = |run: &Run<'_>, code: &str| run.run().expect(code).exit_code;
    assert_eq!(exit(&verify.clone().env("WINDMILL_TOKEN", "wrong"), "windmill_unauthorized"), Some(10));
    sandbox.windmill.fail("/tarball", Fault::Status(403));
    assert_eq!(exit(&verify, "pull_failed"), Some(10));
    sandbox.windmill.heal();
    let gone = sandbox.path().join("gone");
    assert_eq!(verify.clone().arg("--remote").arg(&format!("file://{}", gone.display())).run().exit_code, Some(11));
    assert_eq!(exit(&verify.clone().without("WINDMILL_TOKEN"), "config_invalid"), Some(2));
    assert_eq!(verify.arg("--dry-run").run().exit_code, Some(2), "an option of another command");
}

#[test]
fn verify_shows_no_secrets() {
    const PLANTED: [&str; 3] = ["PLANTED-aaaa-7d1f", "PLANTED-bbbb-7d1f", "PLANTED-cccc-7d1f"];
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let remote = GitHttp::serve(&repository);
    let set = |secret: &str| {
        let resource = format!("{{\"value\":{{\"password\":\"{secret}\"}},\"resource_type\":\"c_shop\"}}");
        sandbox.windmill.put("f/ops/db.resource.json", resource);
        sandbox.windmill.edit(|workspace| workspace.add_variable("f/ops/plain", secret, true));
    };
    set(PLANTED[0]);
    sandbox.sync().remote(&remote).env("ALLOW_PLAINTEXT_SECRETS", "true").run().expect("pushed");
    set(PLANTED[1]);
    let verify = sandbox.command("verify").remote(&remote).env("LOG_LEVEL", "trace");
    let differs = verify.run();
    let expected = [("differs", "f/ops/db.resource.yaml"), ("differs", "f/ops/plain.variable.yaml")];
    assert_eq!(paths(&differs), listed(&expected));
    assert!(differences(&differs).iter().all(|(_, _, how)| how.contains("***")), "{differs}");
    let secrets = [PLANTED[0], PLANTED[1], PLANTED[2], WINDMILL_TOKEN, GIT_TOKEN];
    let history = sandbox.data().join("windmill-git-sync/history.json");
    assert_nothing_leaked(&differs.texts(), &[&history], &secrets);
}

#[test]
fn a_verification_uses_the_queue_of_the_syncs() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    sandbox.sync().remote(&remote).run().expect("pushed");
    let held = sandbox.windmill.hold_exports();
    let verifying = sandbox.command("verify").remote(&remote).start();
    held.wait_for(1);
    let late = sandbox.sync().remote(&remote).env("SYNC_TIMEOUT", "1s").run().expect("timeout");
    assert!(late.message().contains("`queue`"), "{late}");
    held.release();
    assert_eq!(verifying.finish().exit_code, Some(0));
}
