//! One item that cannot be backed up does not stop the others: it is left out and named, the backup keeps its last
//! version, and all other items are on the branch.

use miniserde::json::Value;

use support::receivers::Receivers;
use support::run::text_field;
use support::*;

/// Returns the items that were left out, with the reasons.
#[track_caller]
fn left_out(outcome: &Outcome) -> Vec<(String, String)> {
    let Value::Object(result) = outcome.result() else { panic!("{outcome}") };
    let Some(Value::Array(listed)) = result.get("left_out") else { panic!("{outcome}") };
    let text = |one: &Value, name: &str| text_field(one, name).expect(name);
    listed.iter().map(|one| (text(one, "item"), text(one, "reason"))).collect()
}

#[track_caller]
fn assert_left_out(outcome: &Outcome, items: &[&str]) {
    let listed = left_out(outcome);
    assert_eq!(listed.iter().map(|(item, _)| item.as_str()).collect::<Vec<_>>(), items, "{outcome}");
}

#[test]
#[ignore = "long: just test-long"]
fn an_item_whose_name_leads_outside_its_folder_changes_no_other_item() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    sandbox.windmill.edit(|workspace| {
        workspace.add_resource_type("sqlset", None, true);
        workspace.add_fileset("f/team/set", &[("query.sql", "select 1\n")]);
        workspace.add_bun_script("f/payroll/pay", "honest");
    });
    sandbox.record("wmill");
    let sync = sandbox.sync().remote(&remote);
    sync.run().expect("pushed");
    let before = remote.files("main");
    let planted = [
        "../../payroll/pay.ts",
        "../../payroll/new.ts",
        "../../../groups/new.group.yaml",
        "/f/payroll/pay.ts",
        "x/../../../payroll/pay.ts",
    ];
    for child in planted {
        sandbox.windmill.edit(|workspace| {
            workspace.add_fileset("f/team/set", &[("query.sql", "select 2\n"), (child, "PLANTED\n")]);
        });
        let dry = sync.clone().arg("--dry-run").run().expect("dry_run");
        assert_left_out(&dry, &["f/team/set"]);
        let outcome = sync.run().expect("incomplete");
        assert_eq!((outcome.exit_code, outcome.changed()), (Some(15), (0, 0, 0)), "{child}: {outcome}");
        assert_left_out(&outcome, &["f/team/set"]);
        assert_eq!(outcome.commit(), remote.tip("main"));
        assert!(left_out(&outcome)[0].1.contains("leads elsewhere"), "{outcome}");
        assert_eq!(remote.files("main"), before, "{child}");
    }
    // Without a change, the list stays the same, and no wmill starts.
    let started = sandbox.invocations("wmill").len();
    let again = sync.run().expect("incomplete");
    assert_left_out(&again, &["f/team/set"]);
    assert_eq!((sandbox.invocations("wmill").len(), again.exit_code), (started, Some(15)));
    // Another item is still backed up, and verify reports what it cannot compare.
    sandbox.windmill.put("f/payroll/pay.ts", "export async function main() { return 'edited' }\n");
    let edited = sync.run().expect("incomplete");
    assert_left_out(&edited, &["f/team/set"]);
    assert_eq!((edited.changed().1, edited.commit()), (2, remote.tip("main")), "{edited}");
    let files = remote.files("main");
    assert_eq!(files["f/team/set.fileset/query.sql"], before["f/team/set.fileset/query.sql"]);
    let verify = sandbox.command("verify").remote(&remote).run().expect("differs");
    assert_eq!(verify.exit_code, Some(3), "{verify}");
    assert_left_out(&verify, &["f/team/set"]);
    assert!(verify.message().contains("Not compared: f/team/set (resource: "), "{verify}");
    assert!(!verify.message().contains("The backup matches"), "{verify}");
    // A similar name that stays inside the folder is written, and the backup is complete again.
    sandbox.windmill.edit(|workspace| workspace.add_fileset("f/team/set", &[("..x/...sql", "select 3\n")]));
    assert_left_out(&sync.run().expect("pushed"), &[]);
    assert_eq!(remote.files("main")["f/team/set.fileset/..x/...sql"].1, b"select 3\n");
    sandbox.command("verify").remote(&remote).run().expect("unchanged");
}

#[test]
#[ignore = "long: just test-long"]
fn groups_users_and_types_whose_names_lead_elsewhere_are_left_out() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let sync = sandbox.sync().remote(&remote).env("WMILL_INCLUDE", "schedules,triggers,groups,users,settings");
    sync.run().expect("pushed");
    let before = remote.files("main");
    let (group, user) = ("groups/../f/ops/x.group.json", "users/../../x@y.user.json");
    let types = "../c_evil.resource-type.json";
    for name in [group, user, types] {
        sandbox.windmill.put(name, "{\"summary\":\"\",\"name\":\"x\"}");
    }
    let outcome = sync.run().expect("incomplete");
    assert_eq!(left_out(&outcome).len(), 3, "{outcome}");
    assert_eq!(remote.files("main"), before);
    for name in [group, user, types] {
        sandbox.windmill.remove(name);
    }
    sync.run().expect("unchanged");
}

#[test]
#[ignore = "long: just test-long"]
fn an_invalid_shared_ui_is_left_out_and_all_else_is_backed_up() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let sync = sandbox.sync().remote(&remote);
    sandbox.windmill.shared_ui(Some(&[("a.css", "a {}\n")]));
    sync.run().expect("pushed");
    sandbox.windmill.shared_ui(Some(&[("a.css", "b {}\n"), ("../f/ops/x.ts", "PLANTED\n")]));
    sandbox.windmill.edit(|workspace| workspace.add_bun_script("f/ops/new", "1"));
    let outcome = sync.run().expect("incomplete");
    assert_left_out(&outcome, &["the shared UI"]);
    let files = remote.files("main");
    assert_eq!(files["ui/a.css"].1, b"a {}\n");
    assert!(files.contains_key("f/ops/new.ts") && !files.contains_key("f/ops/x.ts"));
    let verify = sandbox.command("verify").remote(&remote).run().expect("differs");
    assert_left_out(&verify, &["the shared UI"]);
    sandbox.windmill.shared_ui(Some(&[("a", "1"), ("a/b", "2")]));
    assert_left_out(&sync.run().expect("incomplete"), &["the shared UI"]);
}

#[test]
fn an_incomplete_backup_is_a_failure_and_alerts_again_when_the_list_changes() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let receivers = Receivers::start();
    let bad = |name: &str| sandbox.windmill.put(&format!("f/ops/{name}.script.json"), "{");
    bad("one");
    let service = sandbox.service().remote(&remote).env("SLACK_WEBHOOK_URL", &receivers.url("slack"));
    let service = service.env("HEARTBEAT_URL", &receivers.url("heartbeat")).serve();
    assert_eq!(service.post_sync("").status, 422);
    assert_eq!(service.get("/ready").status, 503);
    let status = service.get("/status").text();
    assert!(status.contains("\"left_out\":[{\"item\":\"f/ops/one\",\"reason\":\"script: its JSON"), "{status}");
    assert_eq!(service.post_sync("").status, 422);
    bad("two");
    assert_eq!(service.post_sync("").status, 422);
    for name in ["one", "two"] {
        sandbox.windmill.remove(&format!("f/ops/{name}.script.json"));
    }
    assert_eq!(service.post_sync("").status, 200);
    let messages = receivers.wait_for("slack", 3);
    assert!(messages[0].contains("is incomplete: ") && messages[0].contains("f/ops/one (script: "), "{messages:?}");
    assert!(messages[1].contains("f/ops/two (script: "), "{messages:?}");
    assert!(messages[2].contains("works again"), "{messages:?}");
    let beats = receivers.deliveries();
    assert_eq!(beats.iter().filter(|one| one.to == "heartbeat/fail").count(), 3, "{beats:?}");
}

#[test]
#[ignore = "long: just test-long"]
fn an_item_that_wmill_cannot_write_is_left_out_and_the_others_are_backed_up() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    sandbox.record("wmill");
    // Windmill accepts the name, and file systems accept the name in the export. wmill's own name for it is too long.
    let long = format!("f/ops/{}", "x".repeat(241));
    sandbox.windmill.edit(|workspace| {
        workspace.add_flow("f/ops/unresolved", &[("a", "!inline a.ts\n")]);
        workspace.add_file_resource("f/ops/nothing", None);
        workspace.add_raw_app_of_values("f/ops/values", &[("/data.json", "{\"a\": 1}".to_owned())]);
        workspace.add_raw_app("f/ops/gits", &[("/.gitmodules", "[submodule"), ("/git~1/x", "")]);
        workspace.add_file_resource(&long, Some("x = 1\n"));
        workspace.add_bun_script("f/ops/good", "1");
    });
    let sync = sandbox.sync().remote(&remote);
    let outcome = sync.run().expect("incomplete");
    let items = ["f/ops/unresolved", "f/ops/gits", "f/ops/values", "f/ops/nothing", &long];
    assert_left_out(&outcome, &items);
    assert!(remote.files("main").contains_key("f/ops/good.ts"), "{outcome}");
    // The next sync neither searches nor pulls.
    let started = sandbox.invocations("wmill").len();
    assert_left_out(&sync.run().expect("incomplete"), &items);
    assert_eq!(sandbox.invocations("wmill").len(), started);
    // If another item has changed, it pulls once, without a search.
    sandbox.windmill.put("f/ops/good.ts", "export async function main() { return 2 }\n");
    assert_left_out(&sync.run().expect("incomplete"), &items);
    assert_eq!(sandbox.invocations("wmill").len(), started + 1);
    let verify = sandbox.command("verify").remote(&remote).run().expect("differs");
    assert_left_out(&verify, &items);
    assert_eq!(verify.changed(), (0, 0, 0), "{verify}");
    sandbox.windmill.remove(&format!("{long}.resource.json"));
    assert_left_out(&sync.run().expect("incomplete"), &items[..4]);
    // Items that the repository excludes are no longer missed; a pattern has to cover all files of an item.
    let exclude = |patterns: &str| {
        remote.commit_files("main", &[("wmill.yaml", &format!("excludes: [{patterns}]\n"))]);
        sync.run()
    };
    let some = exclude("f/ops/unresolved.flow/flow.yaml, 'f/ops/{values,gits}*/**'").expect("incomplete");
    assert_left_out(&some, &["f/ops/unresolved", "f/ops/nothing"]);
    let all = exclude("f/ops/nothing*, 'f/ops/nothing*/**', 'f/ops/{unresolved,values,gits}*/**'").expect("unchanged");
    assert_left_out(&all, &[]);
    assert_left_out(&sync.run().expect("unchanged"), &[]);
    assert_left_out(&sandbox.command("verify").remote(&remote).run().expect("unchanged"), &[]);
}

#[test]
#[ignore = "long: just test-long"]
fn a_bad_item_is_found_with_any_settings() {
    let no_setting = ("LOG_LEVEL", "info");
    for (yaml, setting) in [
        ("", ("WMILL_INCLUDE", "users,schedules")),
        ("syncBehavior: v1\n", no_setting),
        ("defaultTs: deno\n", no_setting),
        ("skipVariables: true\n", no_setting),
        ("nonDottedPaths: true\n", ("WMILL_SKIP", "secrets")),
    ] {
        let sandbox = Sandbox::new();
        let remote = sandbox.repository();
        remote.commit_files("main", &[("README.md", "ours\n"), ("wmill.yaml", yaml)]);
        sandbox.windmill.edit(|workspace| {
            workspace.add_fileset("f/ops/set", &[("a", "1"), ("a/b", "2")]);
            workspace.add_bun_script("f/ops/good", "1");
        });
        let outcome = sandbox.sync().remote(&remote).env(setting.0, setting.1).run().expect("incomplete");
        assert_left_out(&outcome, &["f/ops/set"]);
        assert!(remote.files("main").contains_key("f/ops/good.ts"), "{yaml:?} {setting:?}: {outcome}");
        let verify = sandbox.command("verify").remote(&remote).env(setting.0, setting.1).run().expect("differs");
        assert_left_out(&verify, &["f/ops/set"]);
    }
}

#[test]
#[ignore = "long: just test-long"]
fn names_that_look_like_messages_of_wmill_stop_nothing() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    sandbox.windmill.edit(|workspace| {
        workspace.add_folder("payroll");
        workspace.add_bun_script("f/payroll/pay", "1");
        workspace.add_bun_script("u/mallory/page", "1");
    });
    let sync = sandbox.sync().remote(&remote);
    sync.run().expect("pushed");
    // Names, and the content of an edited script, that look like messages of wmill about something else.
    let named = ["Unauthorized", "terminated", "EROFS", "a at path: f/payroll/pay.script.json"];
    let of_shared_ui = "Failed to pull shared UI folder";
    sandbox.windmill.edit(|workspace| {
        let content = format!("{of_shared_ui}\nFailed to parse x at path: f/payroll/pay.script.json\nENOSPC: x\n");
        workspace.put("u/mallory/page.ts", content);
        workspace.add_bun_script("f/payroll/pay", "2");
        workspace.add_fileset("u/mallory/Unauthorized", &[(of_shared_ui, "1")]);
    });
    sync.run().expect("pushed");
    sandbox.windmill.edit(|workspace| {
        workspace.put("u/mallory/page.ts", "Failed to parse x at path: f/payroll/pay.script.json\nENOSPC: x\n");
        workspace.add_bun_script("f/payroll/pay", "3");
        let children: Vec<_> = named.iter().map(|name| (*name, "1")).chain([("c", "1"), ("c/d", "2")]).collect();
        workspace.add_fileset("u/mallory/terminated", &children);
    });
    let outcome = sync.run().expect("incomplete");
    assert_left_out(&outcome, &["u/mallory/terminated"]);
    let reason = &left_out(&outcome)[0].1;
    assert!(reason.starts_with("resource: wmill cannot write it: EEXIST") && !reason.contains('\n'), "{outcome}");
    let pay = String::from_utf8(remote.files("main")["f/payroll/pay.ts"].1.clone()).unwrap();
    assert!(pay.contains("`3 "), "{pay}");
    sandbox.windmill.remove("u/mallory/terminated.resource.json");
    assert_left_out(&sync.run().expect("unchanged"), &[]);
}

#[test]
#[ignore = "long: just test-long"]
fn an_excluded_bad_item_is_not_reported_as_left_out() {
    let sync_with = |yaml: &str, put: &dyn Fn(&mut Workspace)| {
        let sandbox = Sandbox::new();
        let remote = sandbox.repository();
        remote.commit_files("main", &[("wmill.yaml", yaml)]);
        sandbox.windmill.edit(put);
        (sandbox.sync().remote(&remote).env("MAX_DELETIONS_PERCENT", "100").run(), remote.files("main"))
    };
    // wmill does not apply patterns to resource types.
    let (outcome, files) = sync_with("includes: ['f/**']\n", &|workspace| {
        workspace.add_resource_type("c_good", None, false);
        workspace.put("c_bad.resource-type.json", "{");
    });
    assert_left_out(&outcome.expect("incomplete"), &["c_bad"]);
    assert!(files.contains_key("c_good.resource-type.yaml"));
    // The modules of a script lie in a folder of their own.
    let modules = |workspace: &mut Workspace| {
        workspace.add_script_with_modules("f/ops/good", &[("x.ts", "1")]);
        workspace.add_script_with_modules("f/ops/bad", &[("../x.ts", "1")]);
    };
    let (outcome, files) = sync_with("excludes: ['f/ops/*']\n", &modules);
    assert_left_out(&outcome.expect("incomplete"), &["f/ops/bad"]);
    assert!(files.contains_key("f/ops/good__mod/x.ts"), "{:?}", files.keys());
    let (outcome, _) = sync_with("excludes: ['f/ops/bad*', 'f/ops/bad*/**']\n", &modules);
    assert_left_out(&outcome.expect("pushed"), &[]);
    // The ending of a script is not in the name of the item.
    let script = |workspace: &mut Workspace| workspace.put("f/ops/bad.script.json", "{");
    let (outcome, _) = sync_with("includes: ['**/*.py', '**/*.ts']\n", &script);
    assert_left_out(&outcome.expect("incomplete"), &["f/ops/bad"]);
}

#[test]
#[ignore = "long: just test-long"]
fn too_many_items_that_wmill_cannot_write_fail_the_sync() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    // wmill's names for these files are too long.
    let long = |number: usize| format!("f/ops/{number:03}{}", "x".repeat(238));
    sandbox.windmill.edit(|workspace| {
        (0..21).for_each(|number| workspace.add_file_resource(&long(number), Some("x = 1\n")));
        workspace.add_bun_script("f/ops/good", "1");
    });
    let sync = sandbox.sync().remote(&remote);
    sync.run().expect("pull_failed");
    assert_eq!(remote.tip("main"), None);
    sandbox.windmill.remove(&format!("{}.resource.json", long(20)));
    let outcome = sync.run().expect("incomplete");
    let items: Vec<_> = (0..20).map(long).collect();
    assert_left_out(&outcome, &items.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(remote.files("main").contains_key("f/ops/good.ts"), "{outcome}");
    // Items that an earlier sync found do not count.
    sandbox.windmill.edit(|workspace| workspace.add_file_resource(&long(20), Some("x = 1\n")));
    for sync in [sync.clone(), sync.arg("--force")] {
        assert_eq!(left_out(&sync.run().expect("incomplete")).len(), 21);
    }
}

#[test]
#[ignore = "long: just test-long"]
fn a_folder_named_like_an_app_is_left_out_only_in_the_layout_of_that_name() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    sandbox.windmill.edit(|workspace| {
        workspace.add_folder("crm__app");
        workspace.add_bun_script("f/crm__app/report", "1");
    });
    let sync = sandbox.sync().remote(&remote);
    assert_left_out(&sync.run().expect("pushed"), &[]);
    assert!(remote.files("main").contains_key("f/crm__app/report.ts"));
    remote.commit_files("main", &[("wmill.yaml", "nonDottedPaths: true\n")]);
    let outcome = sync.run().expect("incomplete");
    assert_left_out(&outcome, &["f/crm__app"]);
    let files = remote.files("main");
    assert!(files.contains_key("f/crm__app/report.ts") && files.contains_key("f/ops/job_00000.ts"));
    assert_left_out(&sandbox.command("verify").remote(&remote).run().expect("differs"), &["f/crm__app"]);
    remote.commit_files("main", &[("wmill.yaml", "nonDottedPaths: true\nexcludes: ['f/crm__app/**']\n")]);
    assert_left_out(&sync.run().expect("unchanged"), &[]);
}

/// Makes the remote refuse a large `f/ops/big.ts`, as GitHub does.
fn refuse_large_files(remote: &BareRepository) {
    remote.hook(
        "pre-receive",
        "while read old new ref; do\n\
         if git cat-file -p \"$new:f/ops/big.ts\" | grep -q large; then\n\
         echo \"error: File f/ops/big.ts is 150.00 MB; this exceeds GitHub's file size limit of 100.00 MB\"\n\
         echo 'error: GH001: Large files detected. You may want to try Git Large File Storage.'\n\
         exit 1\nfi\ndone\n",
    );
}

#[test]
#[ignore = "long: just test-long"]
fn a_refused_file_is_pushed_again_on_request_and_after_some_time() {
    for is_forced in [true, false] {
        let sandbox = Sandbox::new();
        let remote = sandbox.repository();
        let sync = sandbox.sync().remote(&remote);
        sync.run().expect("pushed");
        refuse_large_files(&remote);
        sandbox.windmill.edit(|workspace| workspace.add_bun_script("f/ops/big", "large"));
        let again = sync.clone();
        let again = if is_forced { again.arg("--force") } else { again.env("FULL_SYNC_EVERY", "0") };
        for sync in [&sync, &again] {
            assert_left_out(&sync.run().expect("incomplete"), &["f/ops/big"]);
        }
        remote.unhook("pre-receive");
        assert_left_out(&sync.run().expect("incomplete"), &["f/ops/big"]);
        assert_left_out(&again.run().expect("pushed"), &[]);
        assert!(remote.files("main").contains_key("f/ops/big.ts"));
    }
}

#[test]
#[ignore = "long: just test-long"]
fn refusals_of_earlier_syncs_do_not_count_to_the_limit_of_one_sync() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let sync = sandbox.sync().remote(&remote);
    sync.run().expect("pushed");
    // This remote names one file at a time.
    remote.hook(
        "pre-receive",
        "while read old new ref; do\n\
         path=$(git ls-tree -r --name-only \"$new\" | grep -m1 'big.*ts$') || continue\n\
         echo \"error: File $path is 150.00 MB; this exceeds GitHub's file size limit of 100.00 MB\"\n\
         echo 'error: GH001: Large files detected. You may want to try Git Large File Storage.'\n\
         exit 1\ndone\n",
    );
    for count in [6, 12] {
        sandbox.windmill.edit(|workspace| {
            (0..count).for_each(|number| workspace.add_bun_script(&format!("f/ops/big{number:02}"), "1"));
        });
        assert_eq!(left_out(&sync.run().expect("incomplete")).len(), count);
    }
    assert_eq!(left_out(&sync.arg("--force").run().expect("incomplete")).len(), 12);
}

#[test]
#[ignore = "long: just test-long"]
fn files_that_the_remote_refuses_are_left_out_and_the_others_are_pushed() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let sync = sandbox.sync().remote(&remote);
    sync.run().expect("pushed");
    refuse_large_files(&remote);
    sandbox.windmill.edit(|workspace| {
        workspace.add_bun_script("f/ops/big", "large");
        workspace.add_bun_script("f/ops/small", "1");
    });
    for _ in 0..2 {
        let outcome = sync.run().expect("incomplete");
        assert_left_out(&outcome, &["f/ops/big"]);
        assert_eq!(outcome.commit(), remote.tip("main"));
        let files = remote.files("main");
        assert!(files.contains_key("f/ops/small.ts") && !files.contains_key("f/ops/big.ts"));
    }
    sandbox.windmill.edit(|workspace| workspace.add_bun_script("f/ops/big", "less"));
    assert_left_out(&sync.run().expect("pushed"), &[]);
    assert!(remote.files("main").contains_key("f/ops/big.ts"));
}

#[test]
#[ignore = "long: just test-long"]
fn deletions_in_folders_that_wmill_skips_reach_the_backup() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let sync = sandbox.sync().remote(&remote).env("MAX_DELETIONS_PERCENT", "100");
    remote.commit_files("main", &[(".github/workflows/ours.yml", "on: push\n"), ("f/.ci/x.txt", "a person's\n")]);
    let put = |children: &[(&str, &str)], files: &[(&str, &str)]| {
        sandbox.windmill.edit(|workspace| {
            workspace.add_fileset("f/ops/set", children);
            workspace.add_raw_app("f/ops/ui", files);
        });
    };
    put(
        &[("a.sql", "1"), (".hidden/b.sql", "2"), ("node_modules/c.sql", "3")],
        &[("/index.tsx", "x\n"), ("/.github/workflows/ci.yml", "on: push\n"), ("/.env", "A=1\n")],
    );
    sync.run().expect("pushed");
    let hidden = |path: &String| path.starts_with("f/ops/") && (path.contains("/.") || path.contains("node_modules"));
    assert_eq!(remote.files("main").keys().filter(|path| hidden(path)).count(), 4);
    sync.clone().arg("--force").run().expect("unchanged");
    put(&[("a.sql", "1"), (".hidden/b.sql", "4")], &[("/index.tsx", "x\n")]);
    sync.run().expect("pushed");
    let files = remote.files("main");
    assert_eq!(files.keys().filter(|path| hidden(path)).collect::<Vec<_>>(), ["f/ops/set.fileset/.hidden/b.sql"]);
    assert_eq!(files["f/ops/set.fileset/.hidden/b.sql"].1, b"4");
    for name in ["f/ops/set.resource.json", "f/ops/ui.raw_app.json"] {
        sandbox.windmill.remove(name);
    }
    sync.run().expect("pushed");
    let files = remote.files("main");
    assert!(files.keys().all(|path| !path.starts_with("f/ops/set.") && !path.starts_with("f/ops/ui.")), "{files:?}");
    assert!(files.contains_key(".github/workflows/ours.yml") && files.contains_key("f/.ci/x.txt"));
    sandbox.command("verify").remote(&remote).run().expect("unchanged");
}

#[test]
#[ignore = "long: just test-long"]
fn a_byte_order_mark_is_added_and_removed() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let sync = sandbox.sync().remote(&remote);
    let theirs = ("notes/theirs.txt", "\u{feff}a person's\n");
    remote.commit_files("main", &[theirs]);
    let script = "export async function main() {\n  return 1\n}\n";
    for (round, is_marked) in [true, false, true, false, false].into_iter().enumerate() {
        let mark = if is_marked { "\u{feff}" } else { "" };
        sandbox.windmill.edit(|workspace| {
            workspace.put("f/ops/job_00000.ts", [mark, script].concat());
            workspace.add_fileset("f/ops/set", &[("a.sql", &[mark, "select 1\n"].concat())]);
            workspace.add_flow("f/ops/fl", &[("a", &[mark, script].concat())]);
        });
        // Round 3 is a full pull, the others are narrowed.
        let sync = if round == 3 { sync.clone().arg("--force") } else { sync.clone() };
        sync.run().expect(if round == 4 { "unchanged" } else { "pushed" });
        let files = remote.regular_files("main");
        for path in ["f/ops/job_00000.ts", "f/ops/set.fileset/a.sql", "f/ops/fl.flow/a.inline_script.ts"] {
            assert_eq!(files[path].starts_with("\u{feff}".as_bytes()), is_marked, "{path} in round {round}");
        }
        assert_eq!(files[theirs.0], theirs.1.as_bytes());
        sandbox.command("verify").remote(&remote).run().expect("unchanged");
    }
}

#[test]
#[ignore = "long: just test-long"]
fn a_deleted_step_of_a_flow_is_not_a_difference() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let steps = [("a", "export async function main() { return 1 }\n"), ("b", "export async function main() {}\n")];
    sandbox.windmill.edit(|workspace| workspace.add_flow("f/ops/fl", &steps));
    let (sync, verify) = (sandbox.sync().remote(&remote), sandbox.command("verify").remote(&remote));
    sync.run().expect("pushed");
    sandbox.windmill.edit(|workspace| workspace.add_flow("f/ops/fl", &steps[1..]));
    sync.run().expect("pushed");
    verify.run().expect("unchanged");
    // The content of the remaining step counts.
    let path = "f/ops/fl.flow/b.inline_script.ts";
    remote.commit_files("main", &[(path, "export async function main() { return 2 }\n")]);
    let differs = verify.run().expect("differs");
    assert!(differs.message().contains(path), "{differs}");
}

#[test]
#[ignore = "long: just test-long"]
fn rounded_numbers_and_ignored_settings_are_in_the_warnings() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    sandbox.windmill.edit(|workspace| {
        workspace.add_resource("f/ops/chat", "any", "{\"id\": 175928847299117063, \"fine\": 9007199254740991}");
        workspace.add_resource("f/ops/text", "any", "{\"id\": \"175928847299117063\"}");
    });
    remote.commit_files("main", &[("wmill.yaml", "\u{feff}syncBehavior: v1\nexcludes: ['f/sales/**']\n")]);
    let sync = sandbox.sync().remote(&remote);
    let check = |outcome: &Outcome| {
        let warnings = outcome.warnings();
        for words in ["resource f/ops/chat (175928847299117063)", "syncBehavior: v1", "excludes"] {
            assert!(warnings.iter().any(|warning| warning.contains(words)), "{words}: {outcome}");
        }
        assert!(warnings.iter().all(|warning| !warning.contains("f/ops/text")), "{outcome}");
    };
    check(&sync.run().expect("pushed"));
    check(&sync.run().expect("unchanged"));
    check(&sandbox.command("verify").remote(&remote).run().expect("unchanged"));
    assert!(remote.files("main").keys().all(|path| !path.starts_with("f/sales/")));
}

#[test]
#[ignore = "long: just test-long"]
fn a_slack_secret_in_the_workspace_settings_is_refused() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let sync = sandbox.sync().remote(&remote).env("WMILL_INCLUDE", "settings");
    let put = |secret: &str| {
        let settings = format!("{{\"name\": \"shop\", \"slack_oauth_client_secret\": {secret}}}");
        sandbox.windmill.put("settings.json", settings);
    };
    put("\"made-up-client-secret\"");
    let refused = sync.run().expect("plaintext_secrets");
    assert!(refused.message().contains("settings.yaml") && remote.tip("main").is_none(), "{refused}");
    for none in ["null", "\"\""] {
        put(none);
        assert!(matches!(sync.run().code().as_str(), "pushed" | "unchanged"));
    }
    put("\"made-up-client-secret\"");
    sync.env("ALLOW_PLAINTEXT_SECRETS", "true").run().expect("pushed");
}

#[test]
#[ignore = "long: just test-long"]
fn a_fork_is_left_out_if_each_workspace_has_a_branch() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    sandbox.windmill.token_kind(TokenKind::User);
    sandbox.windmill.set("wm-fork-feature", Workspace::of_scripts(1));
    let all = sandbox.sync().remote(&remote).env("WINDMILL_WORKSPACE", "*").env("LOG_LEVEL", "debug");
    let outcome = all.clone().env("GIT_BRANCH", "{workspace}").run();
    assert_eq!(outcome.exit_code, Some(0), "{outcome}");
    assert!(outcome.stdout.contains("forks are left out (wm-fork-feature)"), "{outcome}");
    assert!(remote.tip("shop").is_some() && remote.branches().keys().all(|name| !name.contains("fork")));
    // With a folder for each, a fork is a workspace like the others.
    let outcome = all.env("GIT_SUBDIR", "{workspace}").run();
    assert_eq!(outcome.exit_code, Some(0), "{outcome}");
    assert!(!outcome.stdout.contains("forks"), "{outcome}");
    assert!(remote.files("main").keys().any(|path| path.starts_with("wm-fork-feature/")));
}

#[test]
#[ignore = "long: just test-long"]
fn items_that_wmill_drops_are_listed_as_left_out() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    sandbox.windmill.edit(|workspace| {
        workspace.add_variable("f/ops/settings", "hello", false);
        workspace.add_resource("f/ops/settings", "any", "{\"a\":1}");
        workspace.add_bun_script("f/ops/settings", "1");
        workspace.add_http_trigger("f/ops/settings", "a/b", &[]);
        workspace.add_flow("f/ops/settings", &[("a", "export async function main() {}\n")]);
        workspace.add_variable("f/ops/encryption_key", "hello", false);
        workspace.add_resource_type("c_tgz", Some("tar.gz"), false);
        workspace.add_resource("f/ops/archive", "c_tgz", "{\"content\":\"the only copy\"}");
        workspace.add_folder("team__dbt");
        workspace.add_bun_script("f/team__dbt/logs/clean", "1");
        workspace.add_bun_script("f/team__dbt/report", "1");
        workspace.add_raw_app("f/ops/ui", &[("/index.tsx", "x"), ("/dist/a.js", "y")]);
        // None of our rules finds this one: wmill does not know the language.
        workspace.add_bun_script("f/ops/cobol", "1");
        workspace.remove("f/ops/cobol.ts");
        workspace.put("f/ops/cobol.cbl", "DISPLAY 1.\n");
    });
    let sync = sandbox.sync().remote(&remote);
    let mut items: Vec<_> = ["archive", "cobol.cbl", "encryption_key"].map(|name| format!("f/ops/{name}")).into();
    items.extend(vec!["f/ops/settings".to_owned(); 4]);
    items.push("f/team__dbt/logs".to_owned());
    let check = |outcome: &Outcome| {
        let mut listed: Vec<_> = left_out(outcome).into_iter().map(|(item, _)| item).collect();
        listed.sort_unstable();
        assert_eq!(listed, items, "{outcome}");
        assert!(outcome.warnings().iter().any(|it| it.contains("raw app f/ops/ui (dist/a.js)")), "{outcome}");
    };
    check(&sync.run().expect("incomplete"));
    let files = remote.files("main");
    for path in ["f/ops/settings.flow/flow.yaml", "f/team__dbt/report.ts", "f/ops/ui.raw_app/index.tsx"] {
        assert!(files.contains_key(path), "{path}");
    }
    assert!(!files.contains_key("f/ops/settings.ts") && !files.contains_key("f/ops/archive.resource.yaml"));
    check(&sandbox.command("verify").remote(&remote).run().expect("differs"));
    check(&sync.run().expect("incomplete"));
}

#[test]
#[ignore = "long: just test-long"]
fn an_item_that_wmill_would_write_over_another_is_left_out() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    sandbox.windmill.edit(|workspace| {
        workspace.add_group("victims", "honest");
        workspace.add_group("a.yaml", "honest");
        workspace.add_script_with_modules("f/ops/x", &[("m.ts", "1")]);
    });
    let sync = sandbox.sync().remote(&remote);
    sync.run().expect("pushed");
    let before = remote.files("main");
    sandbox.windmill.edit(|workspace| {
        ["./victims", "/victims", "a.json"].iter().for_each(|name| workspace.add_group(name, "planted"));
        workspace.add_bun_script("f/ops/x__mod/script", "planted");
    });
    let outcome = sync.run().expect("incomplete");
    let mut items: Vec<_> = left_out(&outcome).into_iter().map(|(item, _)| item).collect();
    items.sort_unstable();
    assert_eq!(items, ["/victims", "a.json", "f/ops/x__mod", "groups/./victims.group.json"], "{outcome}");
    assert_eq!((outcome.changed(), remote.files("main")), ((0, 0, 0), before), "{outcome}");
    // The other script is backed up as before.
    sandbox.windmill.edit(|workspace| workspace.add_script_with_modules("f/ops/x", &[("m.ts", "2")]));
    sync.run().expect("incomplete");
    assert_eq!(remote.files("main")["f/ops/x__mod/m.ts"].1, b"2");
}

#[test]
#[ignore = "long: just test-long"]
fn refused_files_that_belong_to_no_item_are_left_out_too() {
    let files = ["dependencies/big.package.json", "ui/big.js", "f/ops/folder.meta.yaml", "groups/big.group.yaml"];
    side_by_side(&files, |path| {
        let sandbox = Sandbox::new();
        let remote = sandbox.repository();
        let sync = sandbox.sync().remote(&remote);
        sync.run().expect("pushed");
        remote.hook(
            "pre-receive",
            &format!(
                "while read old new ref; do\n\
                 if git cat-file -p \"$new:{path}\" 2>/dev/null | grep -q large; then\n\
                 echo \"error: File {path} is 150.00 MB; this exceeds GitHub's file size limit of 100.00 MB\"\n\
                 echo 'error: GH001: Large files detected. You may want to try Git Large File Storage.'\n\
                 exit 1\nfi\ndone\n"
            ),
        );
        let folder = "{\"summary\":\"large\",\"display_name\":\"ops\",\"owners\":[],\"extra_perms\":{}}";
        sandbox.windmill.edit(|workspace| {
            match *path {
                "ui/big.js" => workspace.set_shared_ui(Some(&[("big.js", "large")])),
                "f/ops/folder.meta.yaml" => workspace.put("f/ops/folder.meta.json", folder),
                "groups/big.group.yaml" => workspace.add_group("big", "large"),
                _ => workspace.add_dependencies("big.package.json", "{\"name\":\"large\"}"),
            }
            workspace.add_bun_script("f/ops/small", "1");
        });
        for _ in 0..2 {
            let outcome = sync.run().expect("incomplete");
            assert_eq!(left_out(&outcome).len(), 1, "{path}: {outcome}");
            assert!(remote.files("main").contains_key("f/ops/small.ts"), "{path}: {outcome}");
        }
    });
}
