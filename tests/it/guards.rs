//! What each guard refuses, and the most similar case that it accepts.

use support::*;

/// Returns what `wmill` makes of a workspace with one folder and these scripts, each with its own content.
fn scripts(numbers: impl IntoIterator<Item = u32>) -> Files {
    renamed_scripts("job", numbers)
}

fn renamed_scripts(name: &str, numbers: impl IntoIterator<Item = u32>) -> Files {
    let mut files = Files::from([
        ("f/ops/folder.meta.yaml".to_owned(), b"summary: ''\n".to_vec()),
        ("wmill-lock.yaml".to_owned(), b"version: v2\nlocks: {}\n".to_vec()),
    ]);
    for number in numbers {
        let script = format!("export async function main() {{ return {number} }}\n");
        files.insert(format!("f/ops/{name}_{number}.ts"), script.into_bytes());
        let about = format!("summary: result {number}\nkind: script\n");
        files.insert(format!("f/ops/{name}_{number}.script.yaml"), about.into_bytes());
    }
    files
}

/// Asserts that the sync was refused and that the remote did not change.
#[track_caller]
fn assert_refused(outcome: Outcome, code: &str, remote: &BareRepository, refs_before: &str) -> Outcome {
    let outcome = outcome.expect(code);
    assert_eq!((outcome.exit_code, outcome.commit(), outcome.changed()), (Some(12), None, (0, 0, 0)));
    assert_eq!(remote.refs(), refs_before);
    outcome
}

#[test]
fn ten_items_and_more_than_the_permitted_share_are_a_mass_deletion() {
    let sandbox = Sandbox::replayed();
    let remote = sandbox.repository();
    // Files that are not items do not count.
    remote.commit_files("main", &[("a.md", ""), ("b.md", ""), ("c/d.py", ""), ("f/ops/notes.md", "")]);
    let sync = sandbox.sync().remote(&remote).env("WMILL_INCLUDE", "none");
    sandbox.hold_files(&scripts(0..20));
    sync.run().expect("pushed");
    let refs = remote.refs();
    let dry = sync.clone().arg("--dry-run");
    let with_percent = |percent| dry.clone().env("MAX_DELETIONS_PERCENT", percent);

    sandbox.hold_files(&scripts(10..20));
    dry.run().expect("dry_run");
    assert_refused(with_percent("49").run(), "mass_deletion", &remote, &refs);
    sandbox.hold_files(&scripts(9..20));
    with_percent("0").run().expect("dry_run");
    sandbox.hold_files(&scripts(11..20));
    let refused = assert_refused(dry.run(), "mass_deletion", &remote, &refs);
    assert!(refused.message().contains("11 of 20 items"), "{}", refused.message());
    assert!(refused.message().contains("script f/ops/job_0,"), "{}", refused.message());
    with_percent("55").run().expect("dry_run");
    dry.clone().arg("--allow-mass-deletion").run().expect("dry_run");
    // An item that comes back under another name does not count as deleted.
    sandbox.hold_files(&renamed_scripts("task", 0..20));
    dry.run().expect("dry_run");
    // New items do not make up for deleted ones.
    sandbox.hold_files(&scripts(11..60));
    assert_refused(dry.run(), "mass_deletion", &remote, &refs);
    // The deletion of all items is always refused.
    sandbox.hold_files(&scripts([]));
    assert_refused(with_percent("100").run(), "mass_deletion", &remote, &refs);
    sandbox.hold_files(&scripts([19]));
    with_percent("100").run().expect("dry_run");
    let pushed = sync.clone().env("MAX_DELETIONS_PERCENT", "100").run().expect("pushed");
    assert_eq!(remote.changes(Some(&remote.log("main")[1].id), "main").counts(), pushed.changed());
    assert_eq!(remote.files("main").len(), 4 + 4, "four of theirs, a script of two files, a folder, the lock");
}

#[test]
#[ignore = "long: just test-long"]
fn the_deletion_of_all_of_a_few_items_is_a_mass_deletion() {
    let sandbox = Sandbox::replayed();
    let remote = sandbox.repository();
    let sync = sandbox.sync().remote(&remote).env("WMILL_INCLUDE", "none");
    sandbox.hold_files(&scripts(0..3));
    sync.run().expect("pushed");
    let refs = remote.refs();
    sandbox.hold_files(&scripts([]));
    assert_refused(sync.run(), "mass_deletion", &remote, &refs);
    sandbox.hold_files(&scripts([2]));
    sync.run().expect("pushed");
}

#[test]
#[ignore = "long: just test-long"]
fn the_guards_apply_to_a_first_sync_and_name_the_files_that_it_removes() {
    let sandbox = Sandbox::replayed();
    let remote = sandbox.repository();
    remote.commit_files("main", &[("f/theirs/util.py", "1\n"), ("u/them/tool.ts", "2\n"), ("scripts/x.py", "3\n")]);
    let refs = remote.refs();
    let sync = sandbox.sync().remote(&remote).env("WMILL_INCLUDE", "none");
    sandbox.hold_files(&scripts(0..30));
    assert_refused(sync.run(), "mass_deletion", &remote, &refs);
    remote.commit_files("main", &[("f/ops/job_0.ts", "export async function main() {}\n")]);
    let pushed = sync.run().expect("pushed");
    let [warning] = &pushed.warnings()[..] else { panic!("{:?}", pushed.warnings()) };
    assert!(warning.contains("f/theirs/util.py, u/them/tool.ts"), "{warning}");
    let files = remote.regular_files("main");
    assert!(files.contains_key("scripts/x.py") && !files.contains_key("f/theirs/util.py"));
    // Only a first sync names them.
    remote.commit_files("main", &[("f/theirs/again.py", "1\n")]);
    assert_eq!(sync.run().expect("pushed").warnings(), [""; 0]);
}

#[test]
#[ignore = "long: just test-long"]
fn excluded_kinds_are_not_deleted_and_not_counted() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    sandbox.sync().remote(&remote).run().expect("pushed");
    let before = remote.regular_files("main");
    let skipping = sandbox.sync().remote(&remote).env("WMILL_SKIP", "scripts,flows,apps").env("WMILL_INCLUDE", "none");
    let refs = remote.refs();
    skipping.run().expect("unchanged");
    // All items of the remaining kinds would be deleted.
    let mut nearly_empty = Workspace::empty();
    nearly_empty.add_folder("ops");
    sandbox.windmill.set("shop", nearly_empty);
    let refused = assert_refused(skipping.run(), "mass_deletion", &remote, &refs);
    assert!(!refused.message().contains("script f/"), "{}", refused.message());
    skipping.arg("--allow-mass-deletion").run().expect("pushed");
    let after = remote.regular_files("main");
    for (path, content) in &before {
        let is_covered = [".variable.yaml", ".resource.yaml", ".resource-type.yaml", "folder.meta.yaml"]
            .iter()
            .any(|ending| path.ends_with(ending));
        if !is_covered && !path.ends_with("wmill-lock.yaml") {
            assert_eq!(after.get(path), Some(content), "{path}");
        }
    }
}

#[test]
fn the_encryption_key_is_exported_only_if_plain_secrets_are_allowed() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let sync = sandbox.sync().remote(&remote).env("WMILL_INCLUDE", "schedules,key");
    let refused = assert_refused(sync.run(), "plaintext_secrets", &remote, "");
    assert!(refused.message().contains("ALLOW_PLAINTEXT_SECRETS"), "{}", refused.message());
    assert_eq!(sandbox.windmill.exports(), 0, "not even asked for");
    sync.env("ALLOW_PLAINTEXT_SECRETS", "true").run().expect("pushed");
    let files = remote.regular_files("main");
    assert!(files.contains_key("encryption_key.yaml"));
    // The secrets are not decrypted for this.
    let secret = String::from_utf8_lossy(&files["f/ops/db_password.variable.yaml"]).into_owned();
    let plain = Workspace::recorded("1-seeded").export(&[("plain_secret".to_owned(), "true".to_owned())].into());
    let (_, plain) = plain.iter().find(|(path, _)| path == "f/ops/db_password.variable.json").unwrap();
    let miniserde::json::Value::Object(plain) = miniserde::json::from_str(std::str::from_utf8(plain).unwrap()).unwrap()
    else {
        panic!("a variable is an object")
    };
    let miniserde::json::Value::String(value) = &plain["value"] else { panic!("a value is a text") };
    assert!(!secret.contains(value.as_str()), "{secret}");
}

#[test]
#[ignore = "long: just test-long"]
fn an_export_with_plain_secrets_is_refused() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let sync = sandbox.sync().remote(&remote);
    let put = |value: &str| sandbox.windmill.edit(|workspace| workspace.add_variable("f/ops/new", value, true));
    let plain = "correct horse-PLANTED-4444";
    put(plain);
    let refused = assert_refused(sync.run(), "plaintext_secrets", &remote, "");
    assert!(refused.message().contains("f/ops/new.variable.yaml"), "{}", refused.message());
    assert_nothing_leaked(&refused.texts()[..1], &[], &[plain]);
    assert_nothing_leaked(&[("objects", &remote.everything())], &[], &[plain]);
    // The most similar values are accepted: a reference, and ciphertext.
    put("$vault:secret/ops");
    sync.run().expect("pushed");
    put("3q2+7wABAgMEBQYHCAkKCw==");
    sync.run().expect("pushed");
    // Line breaks of YAML 1.1 in a description do not hide the ciphertext.
    let variable = "f/ops/new.variable.json";
    let described = String::from_utf8(sandbox.windmill.workspace("shop").get(variable).unwrap().to_vec()).unwrap();
    let described = described.replace("\"description\": \"\"", "\"description\": \"a\\nb\u{2028}c\u{85}d\"");
    assert!(described.contains('\u{2028}'), "{described}");
    sandbox.windmill.put(variable, described);
    sync.run().expect("pushed");
    // An edit is checked like a new item.
    let refs = remote.refs();
    put(plain);
    assert_refused(sync.run(), "plaintext_secrets", &remote, &refs);
    assert_refused(sync.clone().arg("--dry-run").run(), "plaintext_secrets", &remote, &refs);
    // A value that is not a secret may be plain text.
    sandbox.windmill.edit(|workspace| workspace.add_variable("f/ops/new", plain, false));
    sync.clone().arg("--dry-run").run().expect("dry_run");
    put(plain);
    sync.env("ALLOW_PLAINTEXT_SECRETS", "true").run().expect("pushed");
    assert!(String::from_utf8_lossy(&remote.regular_files("main")["f/ops/new.variable.yaml"]).contains(plain));
}

#[test]
fn the_settings_include_and_skip_kinds() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let run = |branch: &str, include: &str, skip: &str| {
        sandbox.windmill.forget_requests();
        let sync = sandbox.sync().remote(&remote).branch(branch);
        let sync = sync.env("WMILL_INCLUDE", include).env("WMILL_SKIP", skip).run();
        sync.expect("pushed");
        let export = sandbox.windmill.requests().into_iter().find(|request| request.target.contains("tarball"));
        (export.unwrap().target, remote.regular_files(branch))
    };
    let asks = |target: &str, what: &str| target.contains(&format!("{what}=true"));

    let (target, files) = run("defaults", "", "");
    for (what, wanted) in [
        ("include_schedules", true),
        ("include_triggers", true),
        ("include_groups", true),
        ("include_users", false),
        ("include_settings", false),
        ("include_key", false),
        ("plain_secret", false),
        ("skip_secrets", false),
        ("skip_variables", false),
    ] {
        assert_eq!(asks(&target, what), wanted, "{what} in {target}");
    }
    assert!(files.contains_key("f/ops/every_night.schedule.yaml") && !files.contains_key("settings.yaml"));

    let (target, files) = run("more", "users,settings", "secrets,resource-types");
    for (what, wanted) in [
        ("include_schedules", false),
        ("include_triggers", false),
        ("include_groups", false),
        ("include_users", true),
        ("include_settings", true),
        ("include_key", false),
        ("skip_secrets", true),
        ("skip_resource_types", true),
        ("skip_resources", false),
    ] {
        assert_eq!(asks(&target, what), wanted, "{what} in {target}");
    }
    for (path, wanted) in [
        ("settings.yaml", true),
        ("users/admin@windmill.dev.user.yaml", true),
        ("groups/oncall.group.yaml", false),
        ("f/ops/every_night.schedule.yaml", false),
        ("f/ops/db_password.variable.yaml", false),
        ("f/ops/region.variable.yaml", true),
        ("c_shop.resource-type.yaml", false),
        ("f/ops/db.resource.yaml", true),
    ] {
        assert_eq!(files.contains_key(path), wanted, "{path}");
    }

    let (_, files) = run("less", "none", "variables,resources,resource-types,scripts,flows,apps,folders");
    assert_eq!(files.keys().collect::<Vec<_>>(), ["wmill-lock.yaml"]);
}
