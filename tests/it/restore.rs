//! `restore` brings back what a sync took, into the same workspace or another, and protects what is there.

use std::collections::BTreeSet;

use miniserde::json::Value;

use support::deployed::{self, decrypt, encrypt};
use support::run::{field, text_field, texts_field};
use support::*;

const SECRET: &str = "f/ops/db_password.variable.json";

/// Returns a sandbox with a repository to which `shop` was synced, and a token for every workspace.
fn synced() -> (Sandbox, BareRepository) {
    let sandbox = Sandbox::new();
    sandbox.windmill.token_kind(TokenKind::User);
    sandbox.windmill.set("shop", Workspace::restorable("1-seeded"));
    let remote = sandbox.repository();
    remote.commit_files("main", &[("README.md", "# ours\n"), ("f/ops/notes.md", "ours\n")]);
    sandbox.sync().remote(&remote).run().expect("pushed");
    (sandbox, remote)
}

/// Returns an empty workspace with its own key.
fn empty(key: &str) -> Workspace {
    let mut workspace = Workspace::empty();
    deployed::set_key(&mut workspace, key, false);
    workspace
}

fn restore<'a>(sandbox: &'a Sandbox, remote: &BareRepository) -> Run<'a> {
    sandbox.command("restore").remote(remote)
}

/// Returns the requests that change something in a workspace, as `METHOD path-below-the-workspace`.
fn writes(windmill: &Windmill, id: &str) -> Vec<String> {
    let prefix = format!("/api/w/{id}/");
    let all = windmill.requests();
    let of_it = all.iter().filter(|one| one.method != "GET").filter_map(|one| {
        let path = one.target.strip_prefix(&prefix)?;
        Some(format!("{} {}", one.method, path.split('?').next().unwrap()))
    });
    of_it.collect()
}

#[track_caller]
fn restore_point(outcome: &Outcome) -> String {
    let branch = text_field(outcome.result(), "restore_point").unwrap();
    assert!(branch.starts_with("restore-point/") && branch.ends_with('Z'), "{branch}");
    branch
}

#[track_caller]
fn plain_secret(windmill: &Windmill, id: &str, entry: &str) -> Option<String> {
    let workspace = windmill.workspace(id);
    let Value::Object(fields) = miniserde::json::from_str(std::str::from_utf8(workspace.get(entry)?).unwrap()).unwrap()
    else {
        panic!("{entry}");
    };
    let Some(Value::String(cipher)) = fields.get("value") else { panic!("{entry}") };
    decrypt(&deployed::key(&workspace).unwrap(), cipher)
}

fn fingerprint_in(message: &str) -> Option<&str> {
    message.lines().find_map(|line| line.strip_prefix("Windmill-Key-Fingerprint: sha256:"))
}

#[test]
fn a_restore_undoes_a_mistake_and_can_be_undone() {
    let (sandbox, remote) = synced();
    let tip = remote.tip("main").unwrap();
    let before = pulled_alone(&sandbox, OUR_DEFAULTS);
    let secret = plain_secret(&sandbox.windmill, "shop", SECRET).expect("it can be read");
    // The mistake: most items are deleted, and one is new.
    let mut mistaken = Workspace::restorable("1-seeded");
    for (path, _) in Workspace::restorable("1-seeded").entries() {
        if path.starts_with("f/ops/") && !path.ends_with("folder.meta.json") {
            mistaken.remove(path);
        }
    }
    mistaken.add_bun_script("f/sales/later", "later");
    sandbox.windmill.set("shop", mistaken);
    let spoiled = pulled_alone(&sandbox, OUR_DEFAULTS);
    sandbox.windmill.forget_requests();

    let restore = restore(&sandbox, &remote);
    let shown = restore.run().expect("dry_run");
    assert_eq!((shown.exit_code, shown.commit().as_ref()), (Some(0), Some(&tip)), "{shown}");
    let (added, modified, deleted) = shown.changed();
    assert!(added > 10 && deleted == 0, "{added} {modified} {deleted}");
    assert!(shown.message().contains("\nA f/ops/job_00000.ts\n"), "{}", shown.message());
    assert_eq!((writes(&sandbox.windmill, "shop"), remote.log("main").len()), (Vec::new(), 2));
    assert_eq!(remote.refs().lines().count(), 1, "{}", remote.refs());

    let restored = restore.clone().arg("--yes").run().expect("restored");
    assert_eq!((restored.exit_code, restored.changed()), (Some(0), shown.changed()), "{restored}");
    assert!(restored.warnings().is_empty(), "{restored}");
    let mut after = pulled_alone(&sandbox, OUR_DEFAULTS);
    assert!(after.contains_key("f/sales/later.ts"), "nothing is deleted unasked");
    after.retain(|path, _| !path.starts_with("f/sales/later"));
    assert_same_values(&after, &before);
    assert_eq!(plain_secret(&sandbox.windmill, "shop", SECRET), Some(secret));
    assert_eq!(remote.tip("main").unwrap(), tip, "the backup's branch stays");

    // A second restore has nothing to do, except with deletions.
    restore.clone().arg("--yes").run().expect("unchanged");
    let deleting = restore.clone().arg("--delete").arg("--yes").run().expect("restored");
    assert_eq!(deleting.changed().0, 0, "{deleting}");
    assert_same_values(&pulled_alone(&sandbox, OUR_DEFAULTS), &before);

    // The restore is undone.
    let point = restore_point(&restored);
    let undone = restore.clone().arg("--branch").arg(&point).arg("--delete").arg("--yes").run().expect("restored");
    assert!(restore_point(&undone) != point || undone.exit_code == Some(0));
    assert_same_values(&pulled_alone(&sandbox, OUR_DEFAULTS), &spoiled);
    assert_eq!(remote.tip("main").unwrap(), tip);
}

#[test]
#[ignore = "long: just test-long"]
fn a_new_workspace_gets_all_but_unreadable_secrets_and_nothing_starts() {
    let (sandbox, remote) = synced();
    sandbox.windmill.edit(|shop| {
        let schedule = "f/ops/every_night.schedule.json";
        let text = String::from_utf8(shop.get(schedule).unwrap().to_vec()).unwrap();
        shop.put(schedule, text.replace("\"enabled\": false", "\"enabled\": true"));
    });
    sandbox.sync().remote(&remote).run().expect("pushed");
    sandbox.windmill.set("new", empty("another key"));
    sandbox.windmill.forget_requests();
    let restore = restore(&sandbox, &remote).arg("--yes");
    let restored = restore.clone().arg("--to-workspace").arg("new").run().expect("restored");
    let warnings = restored.warnings();
    assert!(warnings.iter().any(|one| one.contains("left alone") && one.contains("f/ops/db_password")), "{warnings:?}");
    assert!(warnings.iter().any(|one| one.contains("disabled") && one.contains("every_night")), "{warnings:?}");
    let new = sandbox.windmill.workspace("new");
    assert!(new.get(SECRET).is_none() && new.get("f/ops/region.variable.json").is_some());
    let schedule = String::from_utf8_lossy(new.get("f/ops/every_night.schedule.json").unwrap()).into_owned();
    assert!(schedule.contains("\"enabled\":false"), "{schedule}");
    let shop: BTreeSet<_> = sandbox.windmill.workspace("shop").entries().iter().map(|(path, _)| path.clone()).collect();
    let got: BTreeSet<_> = new.entries().iter().map(|(path, _)| path.clone()).collect();
    let lacks: Vec<_> = shop.difference(&got).cloned().collect();
    assert_eq!(lacks, [SECRET, "settings.json", "users/admin@windmill.dev.user.json"]);
    assert!(writes(&sandbox.windmill, "shop").is_empty(), "the other workspace is not touched");
    assert!(!writes(&sandbox.windmill, "new").iter().any(|one| one.contains("encryption_key")));

    // The commit of a restore point names the command that undoes this restore.
    const REGION: &str = "f/ops/region.variable.json";
    let mut without = new;
    without.remove(REGION);
    sandbox.windmill.set("new", without);
    let again = restore.clone().arg("--to-workspace").arg("new").run().expect("restored");
    let point = restore_point(&again);
    let message = &remote.log(&point)[0].message;
    assert!(message.contains(&format!("`restore --workspace new --branch {point}`")), "{message}");
    let undo = restore.clone().arg("--workspace").arg("new").arg("--branch").arg(&point).arg("--delete");
    undo.run().expect("restored");
    assert!(sandbox.windmill.workspace("new").get(REGION).is_none());
    assert!(writes(&sandbox.windmill, "shop").is_empty());

    sandbox.windmill.set("live", empty("a third key"));
    restore.arg("--enable").arg("--to-workspace").arg("live").run().expect("restored");
    let schedule = sandbox.windmill.workspace("live").get("f/ops/every_night.schedule.json").unwrap().to_vec();
    assert!(String::from_utf8_lossy(&schedule).contains("\"enabled\":true"));
}

#[test]
#[ignore = "long: just test-restore"]
fn the_key_is_restored_first_and_makes_the_secrets_readable() {
    let (sandbox, remote) = synced();
    let key = deployed::key(&sandbox.windmill.workspace("shop")).unwrap();
    let secret = plain_secret(&sandbox.windmill, "shop", SECRET).unwrap();
    let message = remote.log("main")[0].message.clone();
    assert!(fingerprint_in(&message).is_some_and(|digest| digest.len() == 64), "{message}");
    let mut new = empty("another key");
    new.add_variable("u/admin/own", &encrypt("another key", "of its own"), true);
    sandbox.windmill.set("new", new);
    let restore = restore(&sandbox, &remote).arg("--to-workspace").arg("new").env("LOG_LEVEL", "trace");

    let wrong = sandbox.file("wrong.key", "wrong");
    let refused = restore.clone().arg("--yes").arg("--key-file").arg(wrong.to_str().unwrap()).run();
    assert_eq!((refused.code().as_str(), refused.exit_code), ("config_invalid", Some(2)), "{refused}");
    let file = sandbox.file("old.key", format!("{key}\n"));
    let with_key = restore.clone().arg("--key-file").arg(file.to_str().unwrap());
    let shown = with_key.run().expect("dry_run");
    assert!(writes(&sandbox.windmill, "new").is_empty());
    let restored = with_key.arg("--yes").run().expect("restored");
    assert_eq!(deployed::key(&sandbox.windmill.workspace("new")).as_deref(), Some(key.as_str()));
    assert_eq!(plain_secret(&sandbox.windmill, "new", SECRET).as_deref(), Some(secret.as_str()));
    let own = plain_secret(&sandbox.windmill, "new", "u/admin/own.variable.json");
    assert_eq!(own.as_deref(), Some("of its own"), "its own secrets are re-encrypted");
    let all = writes(&sandbox.windmill, "new");
    let at = |needle: &str| all.iter().position(|one| one.contains(needle)).unwrap();
    assert!(at("encryption_key") < at("variables/create"), "{all:?}");

    // These secrets are nowhere else.
    let everything = remote.everything();
    let texts: Vec<(&str, &[u8])> =
        [&shown, &restored, &refused].iter().flat_map(|one| one.texts()).chain([("remote", &everything[..])]).collect();
    let secrets = [key.as_str(), secret.as_str(), "another key", "of its own", WINDMILL_TOKEN];
    assert_nothing_leaked(&texts, &[&sandbox.data()], &secrets);
}

#[test]
#[ignore = "long: just test-long"]
fn a_restore_uses_the_given_commit_and_paths() {
    let (sandbox, remote) = synced();
    let old = remote.tip("main").unwrap();
    sandbox.windmill.put("f/ops/job_00000.ts", "export async function main() { return 'new' }\n");
    sandbox.windmill.put("f/sales/job_00001.py", "def main():\n    return 'new'\n");
    sandbox.sync().remote(&remote).run().expect("pushed");
    let restore = restore(&sandbox, &remote);
    restore.run().expect("unchanged");
    let of_old = restore.clone().arg("--commit").arg(&old[..7]);
    let both = of_old.run().expect("dry_run");
    assert_eq!((both.commit().as_ref(), both.changed().0), (Some(&old), 0), "{both}");
    assert!(both.message().contains("job_00000.ts") && both.message().contains("job_00001.py"), "{both}");
    let one =
        of_old.clone().arg("--path").arg("f/sales/**").arg("--path").arg("u/*").arg("--yes").run().expect("restored");
    assert!(!one.message().contains("job_00000"), "{one}");
    let shop = sandbox.windmill.workspace("shop");
    assert!(String::from_utf8_lossy(shop.get("f/ops/job_00000.ts").unwrap()).contains("'new'"));
    assert!(!String::from_utf8_lossy(shop.get("f/sales/job_00001.py").unwrap()).contains("'new'"));

    // Deletions are limited to the paths too.
    sandbox.windmill.edit(|shop| {
        shop.add_bun_script("f/ops/extra", "x");
        shop.add_bun_script("f/sales/extra", "x");
    });
    let narrow = of_old.clone().arg("--path").arg("f/sales").arg("--delete").arg("--yes").run().expect("restored");
    assert!(narrow.changed().2 > 0, "{narrow}");
    let shop = sandbox.windmill.workspace("shop");
    assert!(shop.get("f/ops/extra.ts").is_some() && shop.get("f/sales/extra.ts").is_none());

    let exit = |run: Run<'_>| (run.run().exit_code, sandbox.windmill.exports());
    let exports = sandbox.windmill.exports();
    assert_eq!(exit(restore.clone().arg("--commit").arg("HEAD")), (Some(2), exports));
    assert_eq!(exit(restore.clone().arg("--path").arg("../x")), (Some(2), exports));
    assert_eq!(exit(restore.clone().arg("--commit").arg(&"0".repeat(40))), (Some(2), exports));
    let elsewhere = remote.commit("other").file("x", "y").done("elsewhere");
    assert_eq!(exit(restore.clone().arg("--commit").arg(&elsewhere)), (Some(2), exports), "it is on no such branch");
    assert_eq!(restore.clone().arg("--path").arg("f/nothing").run().exit_code, Some(2));
    assert_eq!(restore.arg("--branch").arg("gone").run().exit_code, Some(11));
}

#[test]
#[ignore = "long: just test-restore"]
fn a_hostile_repository_is_not_followed_and_runs_nothing() {
    let (sandbox, remote) = synced();
    let trace = sandbox.path().join("trace");
    let outside = sandbox.file("outside.ts", "export const PLANTED = 1\n");
    let bundler = format!("touch {}", trace.display());
    let hostile = format!(
        "codebases:\n  - relative_path: f/ops\n    includes: ['**']\n    customBundler: '{bundler}'\nincludeKey: true\n\
         plainSecrets: true\nstateful: true\nworkspaceId: other\n"
    );
    remote
        .commit("main")
        .file("wmill.yaml", &hostile)
        .file(".wmill/state.json", "{}")
        .file(".env", "WMILL_NO_REENCRYPT_ON_KEY_CHANGE=true\n")
        .file("encryption_key.yaml", "planted key of the repository\n")
        .symlink("f/ops/evil.ts", outside.to_str().unwrap())
        .file("f/ops/evil.script.yaml", "summary: evil\n")
        .symlink("f/link", "/etc")
        .submodule("f/sub", &"1".repeat(40))
        .file("f/ops/job_00000.ts", "export async function main() { return 'changed' }\n")
        .done("hostile");
    let key = deployed::key(&sandbox.windmill.workspace("shop"));
    let ended = restore(&sandbox, &remote).arg("--yes").arg("--path").arg("f/ops/job_00000").run().expect("restored");
    assert_eq!(ended.exit_code, Some(0), "{ended}");
    let shop = sandbox.windmill.workspace("shop");
    assert!(String::from_utf8_lossy(shop.get("f/ops/job_00000.ts").unwrap()).contains("'changed'"));
    let all = restore(&sandbox, &remote).arg("--yes").run();
    assert!(!trace.exists(), "{all}");
    let shop = sandbox.windmill.workspace("shop");
    assert!(!shop.entries().iter().any(|(_, bytes)| String::from_utf8_lossy(bytes).contains("PLANTED = 1")));
    assert_eq!(deployed::key(&shop), key);
}

#[test]
fn items_that_do_not_come_back_are_reported() {
    let (sandbox, remote) = synced();
    let region = "f/ops/region.variable.json";
    sandbox.windmill.remove(region);
    // Windmill loses the item again at once.
    sandbox.windmill.on_export(move |workspace| {
        if workspace.get(region).is_some() {
            workspace.remove(region);
        }
    });
    let differs = restore(&sandbox, &remote).arg("--yes").run();
    assert_eq!((differs.code().as_str(), differs.exit_code), ("differs", Some(3)), "{differs}");
    let Value::Array(list) = field(differs.result(), "differences") else { panic!("{differs}") };
    assert_eq!(list.len(), 1, "{differs}");
    assert_eq!(text_field(&list[0], "path").as_deref(), Some("f/ops/region.variable.yaml"));
    assert_eq!((text_field(&list[0], "kind").as_deref(), texts_field(&list[0], "diff").len()), (Some("missing"), 0));
    restore_point(&differs);
}

#[test]
#[ignore = "long: just test-restore"]
fn an_item_specific_to_another_workspace_is_reported_as_not_restored() {
    let (sandbox, remote) = synced();
    let is_warned = |outcome: &Outcome| outcome.warnings().iter().any(|warning| warning.contains("do not come back"));
    let mine = ("f/ops/mine.shop.variable.yaml", "description: ''\nvalue: x\nis_secret: false\n");
    remote.commit_files("main", &[mine]);
    let shown = restore(&sandbox, &remote).run().expect("dry_run");
    assert!(!is_warned(&shown) && shown.message().contains(mine.0), "{shown}");
    remote.commit_files("main", &[("f/ops/theirs.other.variable.yaml", mine.1)]);
    let shown = restore(&sandbox, &remote).run();
    assert!(is_warned(&shown) && shown.warnings().concat().contains("f/ops/theirs.other.variable.yaml"), "{shown}");
}

#[test]
#[ignore = "long: just test-restore"]
fn a_secret_that_stays_unreadable_is_reported() {
    let (sandbox, remote) = synced();
    sandbox.windmill.remove(SECRET);
    let unreadable = Fault::Status(500);
    sandbox.windmill.fail("variables/get/f/ops/db_password?decrypt_secret=true", unreadable);
    let differs = restore(&sandbox, &remote).arg("--yes").run();
    assert_eq!(differs.exit_code, Some(3), "{differs}");
    assert_eq!(text_field(differs.result(), "differences.0.kind").as_deref(), Some("unreadable"), "{differs}");
}

#[test]
#[ignore = "long: just test-restore"]
fn without_a_restore_point_a_restore_needs_an_explicit_option() {
    let (sandbox, remote) = synced();
    sandbox.windmill.remove("f/ops/region.variable.json");
    sandbox.windmill.forget_requests();
    remote.refuse_pushes("no new branches");
    let restore = restore(&sandbox, &remote).arg("--yes");
    let refused = restore.run().expect("git_rejected");
    assert_eq!((refused.exit_code, writes(&sandbox.windmill, "shop")), (Some(11), Vec::new()), "{refused}");
    let restored = restore.arg("--no-backup-first").run().expect("restored");
    assert_eq!(remote.refs().lines().count(), 1, "{restored}");
}

#[test]
#[ignore = "long: just test-restore"]
fn without_access_to_the_key_a_commit_has_no_fingerprint_and_secrets_stay() {
    let sandbox = Sandbox::new();
    sandbox.windmill.set("shop", Workspace::restorable("1-seeded"));
    let remote = sandbox.repository();
    sandbox.windmill.fail("workspaces/encryption_key", Fault::Status(403));
    sandbox.sync().remote(&remote).run().expect("pushed");
    assert_eq!(fingerprint_in(&remote.log("main")[0].message), None);
    sandbox.windmill.heal();
    sandbox.windmill.remove(SECRET);
    let shown = restore(&sandbox, &remote).run();
    assert!(shown.warnings().iter().any(|one| one.contains("f/ops/db_password")), "{shown}");
    assert_eq!(shown.code(), "unchanged");
}

#[test]
#[ignore = "long: just test-restore"]
fn a_commit_without_a_fingerprint_does_not_inherit_the_key_of_an_earlier_one() {
    let (sandbox, remote) = synced();
    let old = deployed::key(&sandbox.windmill.workspace("shop")).unwrap();
    sandbox.windmill.edit(|workspace| deployed::set_key(workspace, "a newer key", true));
    sandbox.windmill.fail("workspaces/encryption_key", Fault::Status(403));
    sandbox.sync().remote(&remote).run().expect("pushed");
    assert_eq!(fingerprint_in(&remote.log("main")[0].message), None);
    sandbox.windmill.heal();
    // The target workspace has the key of the previous commit.
    sandbox.windmill.set("shop", empty(&old));
    let shown = restore(&sandbox, &remote).run().expect("dry_run");
    assert!(shown.warnings().iter().any(|one| one.contains("f/ops/db_password")), "{shown}");
    assert!(!shown.message().contains("db_password"), "{shown}");
}

#[test]
#[ignore = "long: just test-restore"]
fn a_failed_request_for_the_key_is_retried_and_then_reported() {
    let sandbox = Sandbox::new();
    sandbox.windmill.set("shop", Workspace::restorable("1-seeded"));
    let remote = sandbox.repository();
    sandbox.windmill.fail_once("workspaces/encryption_key", Fault::Status(502));
    let outcome = sandbox.sync().remote(&remote).run().expect("pushed");
    assert!(fingerprint_in(&remote.log("main")[0].message).is_some());
    assert!(outcome.warnings().is_empty(), "{outcome}");
    sandbox.windmill.fail("workspaces/encryption_key", Fault::Status(502));
    sandbox.windmill.edit(|workspace| workspace.add_bun_script("f/ops/new", "new"));
    let outcome = sandbox.sync().remote(&remote).run().expect("pushed");
    assert_eq!(fingerprint_in(&remote.log("main")[0].message), None);
    assert!(outcome.warnings().iter().any(|one| one.contains("--key-file") && one.contains("502")), "{outcome}");
}

#[test]
#[ignore = "long: just test-long"]
fn a_killed_restore_can_be_repeated() {
    let (sandbox, remote) = synced();
    let before = pulled_alone(&sandbox, OUR_DEFAULTS);
    let key = deployed::key(&sandbox.windmill.workspace("shop")).unwrap();
    sandbox.windmill.set("shop", empty(&key));
    sandbox.windmill.put("f/ops/region.variable.json", "{\"is_secret\":false,\"description\":\"\",\"value\":\"x\"}");
    sandbox.windmill.fail("flows/create", Fault::Hang);
    let running = restore(&sandbox, &remote).arg("--yes").start();
    sandbox.windmill.wait_until_hanging();
    running.kill();
    let points = remote.refs().lines().filter(|line| line.contains("restore-point/shop/")).count();
    assert_eq!(points, 1, "{}", remote.refs());
    sandbox.windmill.heal();
    restore(&sandbox, &remote).arg("--yes").run().expect("restored");
    assert_same_values(&pulled_alone(&sandbox, OUR_DEFAULTS), &before);
}

#[test]
#[ignore = "long: just test-restore"]
fn a_restore_waits_for_the_queues_of_both_workspaces() {
    let (sandbox, remote) = synced();
    sandbox.windmill.set("new", empty("another key"));
    let held = sandbox.windmill.hold_exports();
    let restoring = restore(&sandbox, &remote).arg("--to-workspace").arg("new").start();
    held.wait_for(1);
    let sync = sandbox.sync().remote(&remote).env("SYNC_TIMEOUT", "1s");
    for workspace in ["shop", "new"] {
        let late = sync.clone().workspace(workspace).run().expect("timeout");
        assert!(late.message().contains("`queue`"), "{workspace}: {late}");
    }
    held.release();
    assert_eq!(restoring.finish().exit_code, Some(0));
}
