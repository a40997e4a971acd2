//! `log`: which commit added, modified and deleted which item. It asks only git.

use std::fs;

use miniserde::json::Value;

use crate::curl::shell_words;
use crate::docs::read;
use support::run::{field, text_field, texts_field};
use support::*;

/// Returns command `log --json`, without a token for Windmill.
fn log<'a>(sandbox: &'a Sandbox, remote: &impl Remote) -> Run<'a> {
    sandbox.command("log").remote(remote).without("WINDMILL_TOKEN").without("WINDMILL_BASE_URL").arg("--json")
}

/// A listed commit: id, added, modified, deleted.
type Listed = (String, Vec<String>, Vec<String>, Vec<String>);

#[track_caller]
fn commits(outcome: &Outcome) -> Vec<Listed> {
    assert_eq!(outcome.exit_code, Some(0), "{outcome}");
    let Value::Array(list) = field(outcome.result(), "commits") else { panic!("{outcome}") };
    let texts = |one: &Value, name| texts_field(one, name);
    list.iter()
        .map(|one| {
            (text_field(one, "commit").unwrap(), texts(one, "added"), texts(one, "modified"), texts(one, "deleted"))
        })
        .collect()
}

#[track_caller]
fn ids(outcome: &Outcome) -> Vec<String> {
    commits(outcome).into_iter().map(|(id, ..)| id).collect()
}

#[track_caller]
fn is_complete(outcome: &Outcome) -> bool {
    matches!(field(outcome.result(), "complete"), Value::Bool(true))
}

#[test]
fn each_sync_is_listed_by_item_newest_first() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    remote.commit_files("main", &[("README.md", "# ours\n")]);
    let first = sandbox.sync().remote(&remote).run().expect("pushed").commit().unwrap();
    sandbox.windmill.state("2-edited");
    let second = sandbox.sync().remote(&remote).run().expect("pushed").commit().unwrap();
    sandbox.windmill.forget_requests();

    let listed = log(&sandbox, &remote).run();
    let found = commits(&listed);
    assert!(is_complete(&listed));
    let ids: Vec<_> = found.iter().map(|(id, ..)| id).collect();
    assert_eq!(ids, [&second, &first], "the commit of the README changes no item");
    let (_, added, modified, deleted) = &found[0];
    assert_eq!(added[..], ["script f/sales/new_report"]);
    assert!(modified.contains(&"script f/ops/job_00000".to_owned()), "{modified:?}");
    assert_eq!(deleted[..], ["script f/sales/job_00001", "variable f/ops/region"]);
    assert!(found[1].1.contains(&"script f/sales/job_00001".to_owned()) && found[1].3.is_empty(), "{found:?}");
    assert!(sandbox.windmill.requests().is_empty(), "Windmill is not asked");

    // A deleted item is found by its path. The commit that deleted it comes first.
    let deleted = commits(&log(&sandbox, &remote).arg("--path").arg("f/sales/job_00001").run());
    assert_eq!(deleted.len(), 2, "{deleted:?}");
    assert_eq!(deleted[0].3, ["script f/sales/job_00001"]);
    assert_eq!((&deleted[1].0, &deleted[1].1[..]), (&first, &["script f/sales/job_00001".to_owned()][..]));
    assert!(commits(&log(&sandbox, &remote).arg("--path=f/none/**").run()).is_empty());

    let table = sandbox.command("log").remote(&remote).arg("--limit").arg("1").run();
    let text = &table.stdout;
    assert!(text.starts_with(&second[..10]) && text.contains(" UTC (") && text.contains(" ago)  "), "{text}");
    assert!(text.contains("\n    deleted   variable f/ops/region\n"), "{text}");
    assert_eq!(text.matches(" UTC ").count(), 1, "{text}");

    let left: Vec<_> = fs::read_dir(sandbox.data().join("windmill-git-sync/runs")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn options_for_time_limit_and_folder_select_the_commits() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let mut parent: Option<String> = None;
    for day in 1..=9 {
        let (file, beside) = (format!("b/f/ops/v{day}.variable.yaml"), "f/ops/elsewhere.variable.yaml");
        remote.commit("main").file(&file, "value: x\n").file(beside, day.to_string()).done("made");
        let time = format!("2026-11-{day:02}T12:00:00Z");
        parent = Some(remote.make_tip_again("main", parent.as_deref(), &time, None));
    }
    let listed = |arguments: &[&str]| {
        let run = arguments.iter().fold(log(&sandbox, &remote).subdir("b"), |run, word| run.arg(word));
        let found = commits(&run.run());
        found.into_iter().flat_map(|(_, added, ..)| added).collect::<Vec<_>>()
    };
    let days = |days: &[u32]| days.iter().map(|day| format!("variable f/ops/v{day}")).collect::<Vec<_>>();
    assert_eq!(listed(&[]), days(&[9, 8, 7, 6, 5, 4, 3, 2, 1]));
    assert_eq!(listed(&["--limit", "2"]), days(&[9, 8]));
    assert_eq!(listed(&["--since", "2026-11-08 12:00"]), days(&[9, 8]));
    assert_eq!(listed(&["--since", "2026-11-08 12:01"]), days(&[9]));
    assert_eq!(listed(&["--until=2026-11-02T13:00:00+01:00"]), days(&[2, 1]));
    assert_eq!(listed(&["--since=2026-11-03 00:00", "--until=2026-11-04 23:59"]), days(&[4, 3]));
}

#[test]
fn a_commit_with_an_older_date_does_not_hide_its_parents() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let mut parent: Option<String> = None;
    for (number, time) in ["2026-11-01", "2026-11-02", "2020-01-01", "2026-11-04"].into_iter().enumerate() {
        remote.commit("main").file(&format!("f/ops/v{number}.variable.yaml"), "value: x\n").done("made");
        parent = Some(remote.make_tip_again("main", parent.as_deref(), &format!("{time}T12:00:00Z"), None));
    }
    let added = |path: &str| {
        let found = commits(&log(&sandbox, &remote).arg("--since=2026-11-01 00:00").arg("--path").arg(path).run());
        found.into_iter().flat_map(|(_, added, ..)| added).collect::<Vec<_>>()
    };
    assert_eq!(added("**"), ["variable f/ops/v3", "variable f/ops/v1", "variable f/ops/v0"]);
    assert_eq!(added("f/ops/v1"), ["variable f/ops/v1"]);
}

#[test]
fn log_finds_a_migration_by_its_path() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let file = "migrations/datatable/main/20260101000000_x.up.sql";
    let commit = remote.commit_files("main", &[(file, "select 1;\n")]);
    let listed = log(&sandbox, &remote).arg("--path=main/20260101000000_x").run();
    assert_eq!(ids(&listed), [commit], "{listed}");
}

#[test]
#[ignore = "long: just test-long"]
fn a_long_history_is_fetched_only_as_far_as_needed() {
    for filters in [true, false] {
        let sandbox = Sandbox::new();
        let remote = sandbox.repository();
        remote.run(["config", "uploadpack.allowFilter", if filters { "true" } else { "false" }]);
        let first = remote.commit_files("main", &[("f/ops/first.variable.yaml", "value: x\n")]);
        for number in 0..70 {
            remote.commit_files("main", &[("f/ops/other.variable.yaml", &format!("value: {number}\n"))]);
        }
        let newest = log(&sandbox, &remote).arg("--limit=3").run();
        assert_eq!((ids(&newest).len(), is_complete(&newest)), (3, false));
        // Times that fall as usual are enough to know that there is nothing older to list.
        for path in ["**", "f/ops/first"] {
            let recent = log(&sandbox, &remote).arg("--since=2090-01-01 00:00").arg("--path").arg(path).run();
            assert_eq!((ids(&recent).len(), is_complete(&recent)), (0, false), "{path}");
        }
        // The changes of the oldest fetched commit are unknown, so it is not listed.
        let changes = commits(&newest);
        assert!(changes.iter().all(|(_, added, modified, _)| added.is_empty() && modified.len() == 1), "{changes:?}");
        let oldest = log(&sandbox, &remote).arg("--path=f/ops/first").run();
        assert_eq!((ids(&oldest), is_complete(&oldest)), (vec![first], true));
    }
}

#[test]
fn a_commit_with_an_odd_date_is_listed() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    remote.commit_files("main", &[("f/ops/a.variable.yaml", "value: 1\n")]);
    for (number, date) in ["-1", "9223372036854775808", "99999999999999999999999"].into_iter().enumerate() {
        remote.commit_files("main", &[(&format!("f/ops/v{number}.variable.yaml"), "value: 1\n")]);
        let commit = remote.run(["cat-file", "commit", "main"]).stdout_text();
        let (head, _) = commit.split_once("committer ").unwrap();
        let odd = format!("{head}committer A <a@b> {date} +0000\n\nodd\n");
        remote.force("main", &remote.store_raw_commit(odd.as_bytes()));
    }
    let listed = log(&sandbox, &remote).run();
    assert_eq!((ids(&listed).len(), is_complete(&listed)), (4, true), "{listed}");
    assert!(listed.stdout.contains("1970-01-01T00:00:00Z"), "{listed}");
}

#[test]
fn a_shallow_remote_is_read_to_its_oldest_commit() {
    let sandbox = Sandbox::new();
    let whole = sandbox.repository();
    for number in 0..5 {
        whole.commit_files("main", &[("f/ops/other.variable.yaml", &format!("value: {number}\n"))]);
    }
    let shallow = BareRepository::create(&sandbox, "shallow", &[]);
    fs::remove_dir_all(shallow.path()).unwrap();
    let mut clone = git::git(&sandbox);
    clone.args(["clone", "--quiet", "--bare", "--depth=3"]).arg(whole.url()).arg(shallow.path());
    process::run(clone).must_succeed();
    let listed = log(&sandbox, &shallow).env("SYNC_TIMEOUT", "20s").run();
    assert_eq!((ids(&listed).len(), is_complete(&listed)), (2, false), "{listed}");
    let key = sandbox.file("key", "k").display().to_string();
    let verify = sandbox.command("verify").remote(&shallow).workspace(windmill::SHOP).without("WINDMILL_TOKEN");
    verify.arg("--key-file").arg(&key).run().expect("differs");
}

#[test]
fn invalid_options_are_named_before_any_request() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let refused = |run: Run<'_>, words: &[&str]| {
        let outcome = run.run();
        assert_eq!((outcome.code().as_str(), outcome.exit_code), ("config_invalid", Some(2)), "{outcome}");
        for word in words {
            assert!(outcome.message().contains(word), "{word}: {outcome}");
        }
    };
    let log = || log(&sandbox, &remote);
    refused(
        log().without("GIT_REMOTE_URL").arg("--limit=0").arg("--since=now"),
        &["GIT_REMOTE_URL", "--limit", "--since"],
    );
    refused(log().arg("--limit=10001"), &["--limit"]);
    refused(log().arg("--until=2026-11-28"), &["--until", "2026-11-28 14:00"]);
    refused(log().arg("--path=/f"), &["--path"]);
    let several = || log().env("WINDMILL_WORKSPACE", "a,b").env("GIT_BRANCH", "{workspace}");
    refused(several(), &["--workspace"]);
    remote.commit_files("b", &[("f/ops/v.variable.yaml", "value: x\n")]);
    assert_eq!(ids(&several().arg("--workspace=b").run()).len(), 1);
    let missing = log().env("GIT_BRANCH", "none").run();
    assert_eq!((missing.code().as_str(), missing.exit_code), ("git_failed", Some(11)), "{missing}");
    assert!(missing.message().contains("no branch `none`"), "{missing}");
}

#[test]
fn verify_says_whether_a_key_file_has_the_key_of_the_backup() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let file = |key: &str| sandbox.file("key", key).display().to_string();
    let ask = |key: &str| {
        let run = sandbox.command("verify").remote(&remote).workspace(windmill::SHOP).without("WINDMILL_TOKEN");
        run.arg("--key-file").arg(&file(key)).run()
    };
    remote.commit_files("main", &[("README.md", "# ours\n")]);
    let none = ask("k");
    assert_eq!((none.code().as_str(), none.exit_code), ("differs", Some(3)), "{none}");
    sandbox.sync().workspace(windmill::SHOP).remote(&remote).run().expect("pushed");
    let key = deployed::key(&sandbox.windmill.workspace(windmill::SHOP)).unwrap();
    sandbox.windmill.forget_requests();
    for form in [key.clone(), format!("\"{key}\"\n")] {
        let same = ask(&form);
        assert_eq!((same.code().as_str(), same.exit_code), ("unchanged", Some(0)), "{same}");
    }
    let other = ask("another-key");
    assert_eq!((other.code().as_str(), other.exit_code), ("differs", Some(3)), "{other}");
    let invalid = ask("two\nlines");
    assert_eq!(invalid.exit_code, Some(2), "{invalid}");
    assert!(sandbox.windmill.requests().is_empty(), "Windmill is not asked");
    assert!(!format!("{other}").contains(&key), "{other}");
}

#[test]
#[ignore = "long: just test-long"]
fn a_restore_finds_the_commit_of_a_point_in_time() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let mut parent: Option<String> = None;
    for (state, day) in [("1-seeded", 1), ("2-edited", 2)] {
        sandbox.windmill.state(state);
        sandbox.sync().remote(&remote).arg("--force").run().expect("pushed");
        let time = format!("2026-11-0{day}T12:00:00Z");
        parent = Some(remote.make_tip_again("main", parent.as_deref(), &time, None));
    }
    let restore = |arguments: &[&str]| {
        let run = arguments.iter().fold(sandbox.command("restore").remote(&remote), |run, word| run.arg(word));
        run.run()
    };
    let shown = restore(&["--at", "2026-11-01 12:00"]).expect("dry_run");
    assert!(shown.message().contains(" of 2026-11-01T12:00:00Z into workspace"), "{shown}");
    assert!(shown.message().contains("f/sales/job_00001"), "what the second sync deleted comes back: {shown}");
    restore(&["--at=2026-11-02T11:59:59Z"]).expect("dry_run");
    restore(&["--at=2026-11-02T13:00:00+01:00"]).expect("unchanged");
    let early = restore(&["--at=2026-11-01 11:59"]).expect("config_invalid");
    assert!(
        early.message().contains("earlier than the first commit") && early.message().contains("2026-11-01T12:00:00Z")
    );
    // A mistyped year is as early.
    for at in ["0026-11-28 14:00", "1926-11-28 14:00", "1970-01-01 00:00", "1972-06-01 12:00", "1973-03-03 00:00"] {
        let early = restore(&["--at", at]).expect("config_invalid");
        assert!(early.message().contains("earlier than the first commit"), "{at}: {early}");
        assert!(early.message().contains("2026-11-01T12:00:00Z"), "{at}: {early}");
    }
    for refused in [&["--at=yesterday"][..], &["--at=2026-11-02 12:00", "--commit=1234567"]] {
        let refused = restore(refused).expect("config_invalid");
        assert!(refused.exit_code == Some(2) && refused.message().contains("--at"), "{refused}");
    }
}

/// Returns the shell lines and the printed text of the sequence in docs/disaster.md, in their order.
fn story() -> Vec<(String, String)> {
    let document = read("docs/disaster.md");
    let (_, story) = document.split_once("\n## An item was deleted").expect("the story");
    let (story, _) = story.split_once("\n## ").expect("another section");
    let blocks = story.split("```").skip(1).step_by(2);
    blocks.map(|block| block.split_once('\n').unwrap()).map(|(kind, text)| (kind.to_owned(), text.to_owned())).collect()
}

/// Returns the output of `log` without commit ids and ages.
fn without_the_variable_parts(log: &str) -> String {
    let lines = log.lines().map(|line| match (line.starts_with(' '), line.split_once(" (")) {
        (false, Some((head, tail))) => {
            let (_, time) = head.split_once("  ").expect("an id");
            format!("{time} {}", tail.split_once(") ").expect("ago").1)
        }
        _ => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
#[ignore = "long: just test-long"]
fn the_documented_recovery_of_a_deleted_item_works() {
    let sandbox = Sandbox::new();
    sandbox.windmill.set("shop", Workspace::restorable("1-seeded"));
    let remote = sandbox.repository();
    let script = ["f/ops/report.ts", "f/ops/report.script.json"];
    let mut parent: Option<String> = None;
    for (author, time, content) in [
        ("Ann <ann@example.com>", "2026-11-13T03:00:07Z", Some("first")),
        ("Bob <bob@example.com>", "2026-11-20T16:03:10Z", Some("second")),
        ("Windmill Git Sync <windmill@example.com>", "2026-11-28T09:12:44Z", None),
    ] {
        sandbox.windmill.edit(|workspace| match content {
            Some(content) => workspace.add_bun_script("f/ops/report", content),
            None => script.iter().for_each(|entry| workspace.remove(entry)),
        });
        sandbox.sync().remote(&remote).arg("--force").run().expect("pushed");
        parent = Some(remote.make_tip_again("main", parent.as_deref(), time, Some(author)));
    }

    let blocks = story();
    let [(_, find), (_, found), (_, put_back)] = &blocks[..] else { panic!("{blocks:?}") };
    let run = |line: &str| {
        let words = shell_words(line);
        assert_eq!(words[0], "windmill-git-sync", "{line}");
        words[2..].iter().fold(sandbox.command(&words[1]).remote(&remote), |run, word| run.arg(word)).run()
    };
    let log = run(find.trim());
    assert_eq!(without_the_variable_parts(&log.stdout), without_the_variable_parts(found), "{log}");
    let [look, apply] = put_back.lines().collect::<Vec<_>>()[..] else { panic!("{put_back}") };
    let shown = run(look).expect("dry_run");
    assert!(shown.message().contains(" of 2026-11-20T16:03:10Z into workspace"), "{shown}");
    assert!(shown.message().contains("A f/ops/report.ts"), "{shown}");
    assert!(sandbox.windmill.workspace("shop").get(script[0]).is_none());
    run(apply).expect("restored");
    let report = sandbox.windmill.workspace("shop").get(script[0]).map(<[u8]>::to_vec).expect("it is back");
    assert!(String::from_utf8(report).unwrap().contains("second"), "as it was on Friday");
}
