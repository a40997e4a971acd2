//! Several workspaces in one service: a list of them, or all that the token can see. Each has its own place, result and
//! status.

use std::collections::BTreeSet;
use std::thread;

use miniserde::json::{self, Value};

use support::http::ask;
use support::run::{count_field, field, text_field};
use support::windmill::SHOP;
use support::*;

/// Adds these workspaces with two scripts each to the recorded `shop`, and lets the token see them all.
fn with_workspaces(sandbox: &Sandbox, others: &[&str]) {
    sandbox.windmill.token_kind(TokenKind::User);
    for id in others {
        sandbox.windmill.set(id, Workspace::of_scripts(2));
    }
}

fn of_each<'a>(run: Run<'a>, workspaces: &str) -> Run<'a> {
    run.workspace(workspaces).subdir("{workspace}")
}

/// Returns workspace and code of each result.
#[track_caller]
fn results(value: &Value) -> Vec<(String, String)> {
    let Value::Array(results) = field(value, "results") else { panic!("no list in {}", json::to_string(value)) };
    let text = |result: &Value, name| text_field(result, name).unwrap();
    results.iter().map(|result| (text(result, "workspace"), text(result, "code"))).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(workspace, code)| ((*workspace).to_owned(), (*code).to_owned())).collect()
}

#[test]
fn each_workspace_has_its_own_folder_in_one_branch() {
    let sandbox = Sandbox::new();
    with_workspaces(&sandbox, &["lab"]);
    let repository = sandbox.repository();
    repository.commit_files("main", &[("README.md", "ours\n")]);
    let remote = GitHttp::serve(&repository);
    let service = of_each(sandbox.service(), "shop,lab").remote(&remote).serve();
    let answer = service.post_sync("");
    let value = answer.json();
    assert_eq!((answer.status, text_field(&value, "code").as_deref()), (200, Some("pushed")), "{}", answer.text());
    assert_eq!(results(&value), pairs(&[("shop", "pushed"), ("lab", "pushed")]));
    assert_eq!(text_field(&value, "message").as_deref(), Some("2 workspaces: shop pushed, lab pushed"));
    for (index, id) in ["shop", "lab"].iter().enumerate() {
        let commit = text_field(&value, &format!("results.{index}.commit")).unwrap();
        let tip = repository.tip("main").unwrap();
        assert!(commit == tip || repository.is_ancestor(&commit, &tip), "{id}");
    }
    let files = repository.files("main");
    let folders: BTreeSet<_> = files.keys().map(|path| path.split('/').next().unwrap().to_owned()).collect();
    assert_eq!(folders, BTreeSet::from(["README.md", "lab", "shop"].map(str::to_owned)));
    assert_eq!(results(&service.post_sync("{}").json()), pairs(&[("shop", "unchanged"), ("lab", "unchanged")]));
    assert_eq!(repository.log("main").len(), 3);
    // A request for one of them with the configured token has one result.
    let one = service.post_sync("{\"workspace\":\"lab\"}").json();
    assert_eq!(text_field(&one, "code").as_deref(), Some("unchanged"));
    assert_eq!(text_field(&one, "workspace").as_deref(), Some("lab"));
    // A place that all workspaces would share is refused.
    drop(service);
    let service = of_each(sandbox.service(), "shop,lab").remote(&repository).trusted().serve();
    let shared = service.post_sync("{\"git_subdir\":\"all\"}");
    assert_eq!(shared.status, 400);
    assert!(shared.text().contains("needs {workspace}"), "{}", shared.text());
}

#[test]
fn a_workspace_that_fails_stops_no_other_and_gives_the_result_code() {
    let sandbox = Sandbox::new();
    with_workspaces(&sandbox, &["lab"]);
    let repository = sandbox.repository();
    let service = of_each(sandbox.service(), "shop,gone,lab").remote(&repository).serve();
    let answer = service.post_sync("");
    let value = answer.json();
    assert_eq!(answer.status, 502);
    assert!(matches!(field(&value, "success"), Value::Bool(false)));
    assert_eq!(text_field(&value, "code").as_deref(), Some("workspace_not_found"));
    assert_eq!(results(&value), pairs(&[("shop", "pushed"), ("gone", "workspace_not_found"), ("lab", "pushed")]));
    let ready = service.get("/ready");
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains("workspace `gone`") && !ready.text().contains("`lab`"), "{}", ready.text());
    let metrics = service.get("/metrics").text();
    for line in [
        "windmill_git_sync_runs_total{workspace=\"lab\",code=\"pushed\"} 1",
        "windmill_git_sync_consecutive_failures{workspace=\"gone\"} 1",
        "windmill_git_sync_consecutive_failures{workspace=\"shop\"} 0",
    ] {
        assert!(metrics.lines().any(|one| one == line), "no `{line}` in {metrics}");
    }
    let status = service.get("/status").json();
    let listed = |index: usize| text_field(&status, &format!("workspaces.{index}.workspace")).unwrap();
    assert_eq!([listed(0), listed(1), listed(2)], ["shop", "gone", "lab"]);
}

#[test]
fn the_star_means_all_visible_workspaces_except_admins_and_archived_ones() {
    let sandbox = Sandbox::new();
    with_workspaces(&sandbox, &["admins", "lab", "old"]);
    sandbox.windmill.archive("old");
    let repository = sandbox.repository();
    let run = sandbox.sync().workspace("*").branch("backup/{workspace}").remote(&repository);
    let outcome = run.run();
    assert_eq!(outcome.exit_code, Some(0), "{outcome}");
    assert_eq!(results(outcome.result()), pairs(&[("lab", "pushed"), ("shop", "pushed")]));
    assert_eq!(repository.branches().keys().collect::<Vec<_>>(), ["backup/lab", "backup/shop"]);
    sandbox.windmill.set("new", Workspace::of_scripts(1));
    let outcome = run.run();
    assert_eq!(results(outcome.result()), pairs(&[("lab", "unchanged"), ("new", "pushed"), ("shop", "unchanged")]));
}

#[test]
fn a_workspace_without_a_valid_branch_or_folder_is_left_out_with_a_warning() {
    let sandbox = Sandbox::new();
    with_workspaces(&sandbox, &["HEAD"]);
    let repository = sandbox.repository();
    let run = |command: &str| sandbox.command(command).workspace("*").branch("{workspace}").remote(&repository);
    let outcome = run("sync").run();
    assert_eq!(outcome.exit_code, Some(0), "{outcome}");
    assert_eq!(results(outcome.result()), pairs(&[("shop", "pushed")]));
    let warnings = run::texts_field(outcome.result(), "results.0.warnings");
    assert!(warnings.iter().any(|warning| warning.contains("workspaces are left out") && warning.contains("HEAD (")));
    let checked = run("check").run();
    assert_eq!(checked.exit_code, Some(0), "{checked}");
    let line = checked.stdout.lines().find(|line| line.starts_with("warning  workspaces")).expect("a warning");
    assert!(line.contains("workspaces are left out") && line.contains("HEAD (branch name"), "{line}");
    // Where all are wrong, there is nothing to do.
    let outcome = run("sync").branch("{workspace}..").run();
    assert_eq!(outcome.exit_code, Some(2), "{outcome}");
}

#[test]
fn a_workspace_that_windmill_does_not_list_is_refused_and_not_counted() {
    let sandbox = Sandbox::new();
    with_workspaces(&sandbox, &["lab", "old"]);
    sandbox.windmill.archive("old");
    let repository = sandbox.repository();
    let service = sandbox.service().workspace("*").branch("{workspace}").remote(&repository).serve();
    assert_eq!(service.post_sync("{\"workspace\":\"lab\"}").status, 200);
    for name in ["made-up", "old"] {
        let answer = service.post_sync(&format!("{{\"workspace\":\"{name}\"}}"));
        let code = text_field(&answer.json(), "code");
        assert_eq!((answer.status, code.as_deref()), (502, Some("workspace_not_found")), "{name}");
    }
    assert_eq!(repository.branches().keys().collect::<Vec<_>>(), ["lab"]);
    assert_eq!(service.get("/ready").status, 200, "a name that a caller invents is not a failure");
    assert!(!service.get("/metrics").text().contains("made-up"));
}

#[test]
fn a_failed_workspace_list_is_a_failure_until_it_succeeds() {
    let sandbox = Sandbox::new();
    with_workspaces(&sandbox, &[]);
    let repository = sandbox.repository();
    let service = sandbox.service().workspace("*").branch("{workspace}").remote(&repository).serve();
    sandbox.windmill.token_kind(TokenKind::BoundTo(SHOP.to_owned()));
    let answer = service.post_sync("");
    assert_eq!((answer.status, text_field(&answer.json(), "code").as_deref()), (502, Some("windmill_unauthorized")));
    assert!(answer.text().contains("bound to one workspace"), "{}", answer.text());
    assert_eq!(service.get("/ready").status, 503);
    // A failure with a caller's own token does not count.
    let theirs = service.post_sync("{\"windmill_token\":\"wrong\"}");
    assert_eq!(theirs.status, 502);
    assert!(service.get("/ready").text().contains("failures in a row since"));
    assert!(service.get("/ready").text().ends_with(": 1\"}"), "{}", service.get("/ready").text());
    sandbox.windmill.token_kind(TokenKind::User);
    assert_eq!(service.post_sync("").status, 200);
    assert_eq!(service.get("/ready").status, 200);
    assert!(service.get("/metrics").text().contains("last_success_timestamp_seconds{workspace=\"shop\"} 1"));
}

#[test]
fn the_command_prints_each_result_and_exits_with_the_code_of_the_first_failure() {
    let sandbox = Sandbox::new();
    with_workspaces(&sandbox, &["lab"]);
    let repository = sandbox.repository();
    let outcome = of_each(sandbox.sync(), "shop,gone,lab").remote(&repository).run();
    assert_eq!(outcome.exit_code, Some(10), "{outcome}");
    assert_eq!(
        results(outcome.result()),
        pairs(&[("shop", "pushed"), ("gone", "workspace_not_found"), ("lab", "pushed")])
    );
    let outcome = of_each(sandbox.sync(), "shop,lab").remote(&repository).arg("--dry-run").run().expect("unchanged");
    assert_eq!(outcome.exit_code, Some(0));
    let outcome = sandbox.sync().workspace("shop,lab").remote(&repository).run();
    assert_eq!(outcome.exit_code, Some(2), "{outcome}");
    assert!(outcome.message().contains("several workspaces need {workspace}"), "{outcome}");
}

#[test]
fn an_interrupted_command_has_no_results_for_workspaces_that_did_not_start() {
    let sandbox = Sandbox::new();
    with_workspaces(&sandbox, &["lab"]);
    let repository = sandbox.repository();
    let held = sandbox.windmill.hold_exports();
    let sync = of_each(sandbox.sync(), "shop,lab").remote(&repository).env("SHUTDOWN_GRACE", "0s").start();
    held.wait_for(1);
    sync.terminate();
    let ended = sync.finish();
    assert_eq!(ended.exit_code, Some(14), "{ended}");
    assert_eq!(results(ended.result()), pairs(&[("shop", "shutting_down"), ("lab", "shutting_down")]));
    let status = of_each(sandbox.service(), "shop,lab").remote(&repository).serve().get("/status").json();
    let failures = |index| count_field(&status, &format!("workspaces.{index}.consecutive_failures"));
    assert_eq!((failures(0), failures(1)), (1, 0), "{}", json::to_string(&status));
}

#[test]
#[ignore = "long: just test-long"]
fn an_answer_that_does_not_wait_has_the_id_of_each_run() {
    let sandbox = Sandbox::new();
    with_workspaces(&sandbox, &["lab"]);
    let repository = sandbox.repository();
    let service = of_each(sandbox.service(), "shop,lab").remote(&repository).serve();
    let answer = service.post_sync("{\"wait\":false}");
    assert_eq!(answer.status, 202);
    let ids = run::texts_field(&answer.json(), "run_ids");
    assert_eq!(text_field(&answer.json(), "run_id").as_ref(), ids.first());
    for id in ids {
        service.wait_for_log(&format!("run {id}: pushed"));
    }
}

#[test]
#[ignore = "long: just test-long"]
fn other_runs_are_limited_and_do_not_delay_configured_ones() {
    let sandbox = Sandbox::new();
    with_workspaces(&sandbox, &["a", "b", "c", "d"]);
    let repository = sandbox.repository();
    let remote = GitHttp::serve(&repository);
    let service = of_each(sandbox.service(), "shop,d").remote(&remote).trusted().serve();
    let held = sandbox.windmill.hold_exports();
    let other = |id: &str| {
        let body = format!(
            "{{\"workspace\":\"{id}\",\"windmill_token\":\"{WINDMILL_TOKEN}\",\"git_branch\":\"{id}\",\"wait\":false}}"
        );
        assert_eq!(service.post_sync(&body).status, 202);
    };
    let running = || {
        let status = service.get("/status").json();
        let list = |name| match field(&status, name) {
            Value::Array(runs) => runs.iter().map(|run| text_field(run, "workspace").unwrap()).collect::<Vec<_>>(),
            _ => panic!("no list"),
        };
        (list("running"), list("waiting"))
    };
    for id in ["a", "b", "c"] {
        other(id);
    }
    held.wait_for(2);
    let (at_work, waiting) = running();
    assert_eq!((at_work.len(), waiting.len()), (2, 1), "two of others at most: {at_work:?} {waiting:?}");
    let (address, authorization) = (service.address(), service.authorization());
    let configured = thread::spawn(move || ask(address, "POST", "/sync", authorization, b"").unwrap());
    held.wait_for(4);
    let (at_work, waiting) = running();
    assert_eq!((at_work.len(), waiting.len()), (4, 1), "both configured ones beside them: {at_work:?} {waiting:?}");
    held.release();
    assert_eq!(results(&configured.join().unwrap().json()), pairs(&[("shop", "pushed"), ("d", "pushed")]));
    eventually("all have ended", || (running() == (Vec::new(), Vec::new())).then_some(()));
    assert_eq!(repository.branches().len(), 4);
}

#[test]
#[ignore = "long: just test-long"]
fn a_run_to_another_branch_does_not_delay_the_configured_run_of_its_workspace() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let remote = GitHttp::serve(&repository);
    let service = sandbox.service().workspace(SHOP).remote(&remote).trusted().serve();
    let held = sandbox.windmill.hold_exports();
    let elsewhere = format!("{{\"windmill_token\":\"{WINDMILL_TOKEN}\",\"git_branch\":\"x\",\"wait\":false}}");
    assert_eq!(service.post_sync(&elsewhere).status, 202);
    held.wait_for(1);
    let (address, authorization) = (service.address(), service.authorization());
    let ours = thread::spawn(move || ask(address, "POST", "/sync", authorization, b"").unwrap());
    held.wait_for(2);
    let folders = std::fs::read_dir(sandbox.data().join("windmill-git-sync/runs")).unwrap().count();
    assert_eq!(folders, 2, "each has a folder of its own");
    held.release();
    assert_eq!(ours.join().unwrap().status, 200);
    eventually("the other arrives too", || (repository.branches().len() == 2).then_some(()));
}
