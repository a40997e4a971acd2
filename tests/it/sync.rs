//! The main job: the remote gets what the workspace holds, and the report is true.

use std::path::PathBuf;

use support::git::git;
use support::process;
use support::windmill::SHOP;
use support::*;

/// Returns `files` with a folder in front of each path.
pub(crate) fn below(folder: &str, files: Files) -> Files {
    files.into_iter().map(|(path, content)| (format!("{folder}/{path}"), content)).collect()
}

/// Returns `files` and `more`.
pub(crate) fn with(mut files: Files, more: &[(&str, &str)]) -> Files {
    files.extend(more.iter().map(|(path, content)| ((*path).to_owned(), content.as_bytes().to_vec())));
    files
}

/// Asserts that the result is true: the commit is the tip, and the counts are the files changed since `before`.
#[track_caller]
pub(crate) fn assert_result_is_true(
    pushed: &Outcome,
    remote: &BareRepository,
    branch: &str,
    before: Option<&str>,
) -> Changes {
    let tip = remote.tip(branch).expect("a branch");
    assert_eq!(pushed.exit_code, Some(0), "{pushed}");
    assert_eq!(pushed.commit().as_ref(), Some(&tip), "{pushed}");
    let changes = remote.changes(before, &tip);
    assert_eq!(pushed.changed(), changes.counts(), "{changes:?}");
    remote.assert_sound();
    changes
}

/// Returns the git folders of our binary's checkouts.
fn checkouts(sandbox: &Sandbox) -> Vec<PathBuf> {
    let folders = std::fs::read_dir(sandbox.data().join("windmill-git-sync/checkouts")).unwrap();
    folders.map(|entry| entry.unwrap().path().join("git")).collect()
}

#[test]
fn the_backup_follows_edits_and_deletions() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    remote.commit_files("main", &[("LICENSE", "none\n")]);
    let theirs = [("LICENSE", "none\n"), ("README.md", "# ours\r\n"), (".github/workflows/ci.yml", "on: push\n")];
    let before = remote.commit_files("main", &theirs[1..]);

    // The first sync takes everything.
    let sync = sandbox.sync().real_wmill().remote(&remote);
    let seeded = sync.run().expect("pushed");
    let changes = assert_result_is_true(&seeded, &remote, "main", Some(&before));
    assert!(changes.added.len() > 20 && changes.modified.is_empty() && changes.deleted.is_empty(), "{changes:?}");
    let first = remote.regular_files("main");
    assert_same_files(&first, &with(pulled_alone(&sandbox, OUR_DEFAULTS), &theirs));
    assert!(seeded.warnings().is_empty(), "{:?}", seeded.warnings());
    let shallow = process::run({
        let mut command = git(&sandbox);
        command.arg("--git-dir").arg(&checkouts(&sandbox)[0]).args(["rev-parse", "--is-shallow-repository"]);
        command
    });
    assert_eq!(shallow.must_succeed().stdout_text(), "true\n");

    // Nothing has changed.
    let again = sync.run().expect("unchanged");
    assert_eq!((again.exit_code, again.changed(), again.commit()), (Some(0), (0, 0, 0), seeded.commit()));
    assert_eq!(remote.tip("main"), seeded.commit());

    // Items are edited.
    sandbox.windmill.state("2-edited");
    let edited = sync.run().expect("pushed");
    let changes = assert_result_is_true(&edited, &remote, "main", seeded.commit().as_deref());
    let second = remote.regular_files("main");
    assert_same_values(&second, &with(pulled_alone(&sandbox, OUR_DEFAULTS), &theirs));
    for gone in ["f/sales/job_00001.py", "f/sales/job_00001.script.yaml", "f/ops/region.variable.yaml"] {
        assert!(changes.deleted.iter().any(|path| path == gone), "{gone} in {changes:?}");
    }
    for (path, content) in &first {
        let touched = changes.modified.contains(path) || changes.deleted.contains(path);
        assert_eq!(second.get(path) == Some(content), !touched, "{path}");
    }

    // Nearly everything is deleted.
    sandbox.windmill.state("3-emptied");
    let refused = sync.run().expect("mass_deletion");
    assert_eq!((refused.exit_code, refused.commit()), (Some(12), None));
    assert_eq!(remote.tip("main"), edited.commit());
    let again = sync.clone().arg("--dry-run").run().expect("mass_deletion");
    assert_eq!(again.exit_code, Some(12));
    let allowed = sync.arg("--allow-mass-deletion").run().expect("pushed");
    assert_result_is_true(&allowed, &remote, "main", edited.commit().as_deref());
    let third = remote.regular_files("main");
    assert_same_values(&third, &with(pulled_alone(&sandbox, OUR_DEFAULTS), &theirs));
    assert_eq!(remote.log("main").len(), 5);
}

/// The line with the digest of the recorded workspace's key. It does not contain the key itself.
const KEY: &str = "Windmill-Key-Fingerprint: sha256:aeb2fec395c1fd4d1f65d7c677d6d65aae833478c23493be5afff43eeef5b742\n";

#[test]
fn a_commit_message_has_workspace_counts_and_versions() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    sandbox.sync().real_wmill().remote(&remote).run().expect("pushed");
    sandbox.windmill.state("2-edited");
    sandbox
        .sync()
        .remote(&remote)
        .env("COMMIT_MESSAGE", "Backup of {workspace}")
        .env("GIT_USER_NAME", "Büro Backup")
        .env("GIT_USER_EMAIL", "backup@example.org")
        .run()
        .expect("pushed");
    let [second, first] = &remote.log("main")[..] else { panic!("two commits") };
    assert_eq!(first.subject, "Automated Windmill workspace backup - shop");
    assert_eq!(first.author, "Windmill Git Sync <windmill@example.com>");
    assert_eq!(first.committer, first.author);
    assert_eq!(second.subject, "Backup of shop");
    assert_eq!(second.author, "Büro Backup <backup@example.org>");
    assert_eq!(second.committer, second.author);
    let co_author = "Co-authored-by: admin <admin@windmill.dev>\n";
    for (commit, before) in [(first, None), (second, Some(first.id.as_str()))] {
        let changes = remote.changes(before, &commit.id);
        let lines: Vec<&str> = commit.message.lines().collect();
        let (added, modified, deleted) = changes.counts();
        let count = format!("{added} added, {modified} modified, {deleted} deleted");
        assert_eq!(lines[1..4], ["", &count, ""], "{}", commit.message);
        let marked = |mark: &str, paths: &[String]| -> Vec<String> {
            paths.iter().map(|path| format!("{mark} {path}")).collect()
        };
        let listed =
            [marked("A", &changes.added), marked("M", &changes.modified), marked("D", &changes.deleted)].concat();
        assert_eq!(lines[4..4 + listed.len()], listed, "{}", commit.message);
        let parse = remote.git(["interpret-trailers", "--parse"]);
        let trailers = process::run_with_input(parse, commit.message.clone().into_bytes()).must_succeed();
        assert_eq!(
            trailers.stdout_text(),
            format!(
                "Windmill-Workspace: shop\nWindmill-Version: CE v1.743.0\nWmill-Version: 1.819.0\n{KEY}{co_author}"
            )
        );
    }
}

#[test]
fn a_missing_branch_is_created_and_the_others_stay() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository_with_default_branch("trunk");
    let trunk = remote.commit_files("trunk", &[("README.md", "trunk\n")]);
    let other = remote.commit_files("main-of-others/main", &[("README.md", "other\n")]);

    let made = sandbox.sync().remote(&remote).run().expect("pushed");
    assert_result_is_true(&made, &remote, "main", None);
    assert!(!remote.files("main").contains_key("README.md"));
    assert_eq!((remote.tip("trunk"), remote.tip("main-of-others/main")), (Some(trunk.clone()), Some(other.clone())));

    // The same volume with another branch has its own checkout.
    let on_trunk = sandbox.sync().remote(&remote).branch("trunk").run().expect("pushed");
    assert_result_is_true(&on_trunk, &remote, "trunk", Some(&trunk));
    assert!(remote.files("trunk").contains_key("README.md"));
    assert_eq!((remote.tip("main"), remote.tip("main-of-others/main")), (made.commit(), Some(other)));
    sandbox.sync().remote(&remote).run().expect("unchanged");
    sandbox.sync().remote(&remote).arg("--branch").arg("trunk").run().expect("unchanged");

    // The same volume gets another remote.
    let second = sandbox.repository_named("second");
    let moved = sandbox.sync().remote(&second).run().expect("pushed");
    assert_result_is_true(&moved, &second, "main", None);
    assert_same_files(&second.regular_files("main"), &remote.regular_files("main"));
}

#[test]
#[ignore = "long: just test-long"]
fn a_sha256_repository_works() {
    let sandbox = Sandbox::new();
    let remote = sandbox.sha256_repository();
    let sync = sandbox.sync().remote(&remote);
    let first = sync.run().expect("pushed");
    assert_result_is_true(&first, &remote, "main", None);
    assert_eq!(first.commit().unwrap().len(), 64);
    assert_same_files(&remote.regular_files("main"), &pulled_alone(&sandbox, OUR_DEFAULTS));
    sync.run().expect("unchanged");
    sandbox.windmill.state("2-edited");
    std::fs::remove_dir_all(sandbox.data()).unwrap();
    let edited = sync.run().expect("pushed");
    assert_result_is_true(&edited, &remote, "main", first.commit().as_deref());
}

#[test]
fn a_sync_changes_only_its_folder() {
    let sandbox = Sandbox::with(Windmill::start_below("/some/windmill"));
    let remote = sandbox.repository();
    let outside = [
        ("README.md", "root\n"),
        ("wmill.yaml", "nonDottedPaths: true\nskipScripts: true\n"),
        ("wmill-lock.yaml", "not: ours\n"),
        ("f/ops/mine.py", "print('mine')\n"),
        ("backups/shop-of-others/f/ops/x.py", "x\n"),
        (".gitignore", "*\n"),
    ];
    let before = remote.commit_files("backup/shop", &outside);
    let sync = sandbox.sync().remote(&remote).branch("backup/{workspace}").subdir("backups/{workspace}");
    let pushed = sync.run().expect("pushed");
    assert_result_is_true(&pushed, &remote, "backup/shop", Some(&before));
    let alone = below("backups/shop", pulled_alone(&sandbox, OUR_DEFAULTS));
    assert_same_files(&remote.regular_files("backup/shop"), &with(alone, &outside));
    sync.run().expect("unchanged");

    sandbox.windmill.state("2-edited");
    let edited = sync.run().expect("pushed");
    assert_result_is_true(&edited, &remote, "backup/shop", pushed.commit().as_deref());
    let alone = below("backups/shop", pulled_alone(&sandbox, OUR_DEFAULTS));
    assert_same_values(&remote.regular_files("backup/shop"), &with(alone, &outside));

    // The same volume gets another folder.
    let moved = sync.arg("--subdir").arg("elsewhere").run().expect("pushed");
    let changes = assert_result_is_true(&moved, &remote, "backup/shop", edited.commit().as_deref());
    assert!(changes.added.iter().all(|path| path.starts_with("elsewhere/")), "{changes:?}");
    assert_eq!((changes.modified.len(), changes.deleted.len()), (0, 0));
}

#[test]
fn a_dry_run_shows_the_changes_and_pushes_nothing() {
    let sandbox = Sandbox::replayed();
    let remote = sandbox.repository();
    let sync = sandbox.sync().remote(&remote);
    let shown = sync.clone().arg("--dry-run").run().expect("dry_run");
    assert_eq!((shown.exit_code, shown.commit()), (Some(0), None));
    assert!(shown.message().contains("\nA f/ops/job_00000.ts\n"), "{}", shown.message());
    assert_eq!(remote.refs(), "");
    let pushed = sync.run().expect("pushed");
    assert_eq!(pushed.changed(), shown.changed());

    sandbox.hold(State::Edited);
    let shown = sync.clone().arg("--dry-run").run().expect("dry_run");
    for line in ["M f/ops/job_00000.ts", "A f/sales/new_report.py", "D f/ops/region.variable.yaml"] {
        assert!(shown.message().lines().any(|shown| shown == line), "{line} in {}", shown.message());
    }
    assert_eq!(remote.tip("main"), pushed.commit());
    let edited = sync.run().expect("pushed");
    assert_eq!(edited.changed(), shown.changed());
}

// Reports and warnings.

#[test]
fn the_default_workspace_and_a_limited_token_are_warnings() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    sandbox.windmill.token_kind(TokenKind::User);
    sandbox.windmill.set("admins", Workspace::of_scripts(2));
    let outcome = sandbox.sync().remote(&remote).without("WINDMILL_WORKSPACE").run().expect("pushed");
    let [warning] = &outcome.warnings()[..] else { panic!("{:?}", outcome.warnings()) };
    assert!(warning.contains("`admins`") && warning.contains("admins, shop"), "{warning}");
    assert!(remote.log("main")[0].message.contains("Windmill-Workspace: admins"));

    for command in ["verify", "restore"] {
        let outcome = sandbox.command(command).remote(&remote).without("WINDMILL_WORKSPACE").run();
        let is_warned = outcome.warnings().iter().any(|one| one.contains("`admins`") && one.contains("admins, shop"));
        assert!(is_warned && outcome.code() == "unchanged", "{outcome}");
    }
    let elsewhere = sandbox.command("restore").remote(&remote).without("WINDMILL_WORKSPACE").arg("--to-workspace");
    let outcome = elsewhere.arg(SHOP).run().expect("dry_run");
    let of_the_source = |one: &String| one.contains("`admins` is where the backup is from");
    assert!(outcome.warnings().iter().any(of_the_source), "{outcome}");

    sandbox.windmill.role(Role::Developer);
    let outcome = sandbox.sync().remote(&remote).branch("shop").run().expect("pushed");
    let [warning] = &outcome.warnings()[..] else { panic!("{:?}", outcome.warnings()) };
    assert!(warning.contains("not an admin's in workspace `shop`"), "{warning}");
    sandbox.windmill.role(Role::Admin);
    let quiet = sandbox.sync().remote(&remote).branch("shop").workspace(SHOP).run().expect("unchanged");
    assert_eq!(quiet.warnings(), [""; 0]);
}

#[test]
fn log_lines_are_json_if_configured() {
    let sandbox = Sandbox::replayed();
    let remote = sandbox.repository();
    let run = sandbox.sync().remote(&remote).env("LOG_FORMAT", "json").env("LOG_LEVEL", "trace").run().expect("pushed");
    assert!(run.stderr.lines().count() > 20, "{run}");
    for line in run.stderr.lines() {
        let value: miniserde::json::Value = miniserde::json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        for name in ["level", "message"] {
            run::text_field(&value, name).expect("a text");
        }
    }
    assert_eq!(run.stdout.lines().count(), 1);
    let quiet = sandbox.sync().remote(&remote).env("LOG_LEVEL", "error").run().expect("unchanged");
    assert_eq!(quiet.stderr, "");
}

#[test]
fn the_command_line_matches_its_help() {
    let sandbox = Sandbox::new();
    let ask = |words: &[&str]| {
        let run = words[1..].iter().fold(sandbox.command(words[0]), |run, word| run.arg(word));
        run.without("WINDMILL_TOKEN").run()
    };
    let version = ask(&["--version"]);
    assert_eq!(version.exit_code, Some(0));
    assert_eq!(version.stdout, format!("windmill-git-sync {}\n", env!("CARGO_PKG_VERSION")));
    for words in [&["--help"][..], &["help"], &["sync", "--help"], &["serve", "--help"], &["healthcheck", "-h"]] {
        let help = ask(words);
        assert_eq!((help.exit_code, help.stderr.as_str()), (Some(0), ""), "{words:?}");
        assert!(help.stdout.contains("Usage: windmill-git-sync"), "{help}");
    }
    for words in [
        &["sync", "--no-such-option"][..],
        &["no-such-command"],
        &["sync", "--workspace"],
        &["sync", "shop"],
        &["sync", "--token", "hunter2"],
        &["--dry-run", "sync"],
    ] {
        let wrong = ask(words);
        assert_eq!((wrong.exit_code, wrong.stdout.as_str()), (Some(2), ""), "{words:?}");
        assert!(wrong.stderr.contains("\nUsage: windmill-git-sync "), "{wrong}");
    }
}

#[test]
fn all_errors_in_the_settings_are_reported_together() {
    let sandbox = Sandbox::new();
    let wrong = sandbox
        .sync()
        .without("WINDMILL_TOKEN")
        .env("GIT_TOKEN", "")
        .env("MAX_DELETIONS_PERCENT", "101")
        .env("SYNC_TIMEOUT", "soon")
        .env("WMILL_SKIP", "scripts,everything")
        .branch("-delete")
        .run()
        .expect("config_invalid");
    assert_eq!(wrong.exit_code, Some(2));
    let named =
        ["WINDMILL_TOKEN", "GIT_REMOTE_URL", "MAX_DELETIONS_PERCENT", "SYNC_TIMEOUT", "WMILL_SKIP", "GIT_BRANCH"];
    for name in named {
        assert!(wrong.message().contains(name), "{name} in {}", wrong.message());
    }
    assert!(std::fs::read_dir(sandbox.data()).unwrap().next().is_none(), "nothing was begun");
}

#[test]
fn a_push_that_can_never_succeed_is_reported_with_its_reason() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    remote.commit_files("main", &[("README.md", "start\n")]);
    // git does not permit a branch below the name of another branch.
    let refused = sandbox.sync().remote(&remote).branch("main/shop").run().expect("git_rejected");
    assert!(refused.message().contains("refuses the push"), "{}", refused.message());
    assert!(!refused.message().contains("other writers"), "{}", refused.message());
    assert_eq!(sandbox.windmill.exports(), 1, "it is pushed once more, of the same snapshot");
}

#[test]
#[ignore = "long: just test-long"]
fn checkouts_of_unused_branches_are_removed() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let sync = |branch: &str| sandbox.sync().remote(&remote).branch(branch).run().expect("pushed");
    let days_ago = |days: u64| std::time::SystemTime::now() - std::time::Duration::from_secs(days * 24 * 3600);
    (0..3).for_each(|number| drop(sync(&format!("day-{number}"))));
    for (git, days) in checkouts(&sandbox).into_iter().zip([20, 10, 16]) {
        let folder = git.parent().unwrap();
        std::fs::File::open(folder).unwrap().set_modified(days_ago(days)).unwrap();
    }
    sandbox.sync().remote(&remote).branch("shown").arg("--dry-run").run().expect("dry_run");
    sandbox.sync().remote(&remote).branch("failed").env("WINDMILL_TOKEN", "wrong").run();
    assert_eq!(checkouts(&sandbox).len(), 2 + 3, "only a success removes them");
    sync("now");
    assert_eq!(checkouts(&sandbox).len(), 2 + 1 + 1, "what was used ten days ago stays");
}
