//! The main job: what a workspace holds is what the remote gets, said truthfully.

use std::path::PathBuf;

use crate::bed::git::git;
use crate::bed::process;
use crate::bed::windmill::SHOP;
use crate::bed::*;

/// The kinds that are taken out where nobody says otherwise, in the words of `wmill.yaml`.
const OUR_DEFAULTS: &str = "defaultTs: bun\nincludeSchedules: true\nincludeTriggers: true\nincludeGroups: true\n";

/// `files` with a folder in front of each path.
fn below(folder: &str, files: Files) -> Files {
    files.into_iter().map(|(path, content)| (format!("{folder}/{path}"), content)).collect()
}

/// `files` with some more.
fn with(mut files: Files, more: &[(&str, &str)]) -> Files {
    files.extend(more.iter().map(|(path, content)| ((*path).to_owned(), content.as_bytes().to_vec())));
    files
}

/// The result says what the commit is: the tip, with as many files changed since `before` as counted.
#[track_caller]
fn assert_told_truly(pushed: &Outcome, remote: &BareRepository, branch: &str, before: Option<&str>) -> Changes {
    let tip = remote.tip(branch).expect("a branch");
    assert_eq!(pushed.exit_code, Some(0), "{pushed}");
    assert_eq!(pushed.commit().as_ref(), Some(&tip), "{pushed}");
    let changes = remote.changes(before, &tip);
    assert_eq!(pushed.changed(), changes.counts(), "{changes:?}");
    remote.assert_sound();
    changes
}

/// The folders in which our binary has its checkouts, as git sees them.
fn checkouts(sandbox: &Sandbox) -> Vec<PathBuf> {
    let folders = std::fs::read_dir(sandbox.data().join("windmill-git-sync/checkouts")).unwrap();
    folders.map(|entry| entry.unwrap().path().join("git")).collect()
}

#[test]
fn a_workspace_is_backed_up_as_it_is_edited_and_emptied() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    remote.commit_files("main", &[("LICENSE", "none\n")]);
    let theirs = [("LICENSE", "none\n"), ("README.md", "# ours\r\n"), (".github/workflows/ci.yml", "on: push\n")];
    let before = remote.commit_files("main", &theirs[1..]);

    // All of it.
    let sync = sandbox.sync().remote(&remote);
    let seeded = sync.run().expect("pushed");
    let changes = assert_told_truly(&seeded, &remote, "main", Some(&before));
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

    // Nothing new.
    let again = sync.run().expect("unchanged");
    assert_eq!((again.exit_code, again.changed(), again.commit()), (Some(0), (0, 0, 0), seeded.commit()));
    assert_eq!(remote.tip("main"), seeded.commit());

    // Edits.
    sandbox.windmill.state("2-edited");
    let edited = sync.run().expect("pushed");
    let changes = assert_told_truly(&edited, &remote, "main", seeded.commit().as_deref());
    let second = remote.regular_files("main");
    assert_same_values(&second, &with(pulled_alone(&sandbox, OUR_DEFAULTS), &theirs));
    for gone in ["f/sales/job_00001.py", "f/sales/job_00001.script.yaml", "f/ops/region.variable.yaml"] {
        assert!(changes.deleted.iter().any(|path| path == gone), "{gone} in {changes:?}");
    }
    for (path, content) in &first {
        let touched = changes.modified.contains(path) || changes.deleted.contains(path);
        assert_eq!(second.get(path) == Some(content), !touched, "{path}");
    }

    // Nearly nothing left.
    sandbox.windmill.state("3-emptied");
    let refused = sync.run().expect("mass_deletion");
    assert_eq!((refused.exit_code, refused.commit()), (Some(12), None));
    assert_eq!(remote.tip("main"), edited.commit());
    let again = sync.clone().arg("--dry-run").run().expect("mass_deletion");
    assert_eq!(again.exit_code, Some(12));
    let allowed = sync.arg("--allow-mass-deletion").run().expect("pushed");
    assert_told_truly(&allowed, &remote, "main", edited.commit().as_deref());
    let third = remote.regular_files("main");
    assert_same_values(&third, &with(pulled_alone(&sandbox, OUR_DEFAULTS), &theirs));
    assert_eq!(remote.log("main").len(), 5);
}

/// By the digest of the recorded workspace's key, which is not in it.
const KEY: &str = "Windmill-Key-Fingerprint: sha256:b6ed15b9aefd57e985128d1db5f574341cb5ec57c33e2f15c6994341697eebd2\n";

#[test]
fn a_commit_says_what_it_is() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    sandbox.sync().remote(&remote).run().expect("pushed");
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
    // Of the first one's items Windmill tells who edited the flow, which the second leaves alone.
    let co_author = "Co-authored-by: admin <admin@windmill.dev>\n";
    for (commit, before, co_author) in [(first, None, co_author), (second, Some(first.id.as_str()), "")] {
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
                "Windmill-Workspace: shop\nWindmill-Version: CE v1.491.5\nWmill-Version: 1.819.0\n{KEY}{co_author}"
            )
        );
    }
}

#[test]
fn a_branch_that_is_not_there_is_made_and_the_others_are_left_alone() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository_with_default_branch("trunk");
    let trunk = remote.commit_files("trunk", &[("README.md", "trunk\n")]);
    let other = remote.commit_files("main-of-others/main", &[("README.md", "other\n")]);

    let made = sandbox.sync().remote(&remote).run().expect("pushed");
    assert_told_truly(&made, &remote, "main", None);
    assert!(!remote.files("main").contains_key("README.md"));
    assert_eq!((remote.tip("trunk"), remote.tip("main-of-others/main")), (Some(trunk.clone()), Some(other.clone())));

    // The same volume, another branch: its own checkout.
    let on_trunk = sandbox.sync().remote(&remote).branch("trunk").run().expect("pushed");
    assert_told_truly(&on_trunk, &remote, "trunk", Some(&trunk));
    assert!(remote.files("trunk").contains_key("README.md"));
    assert_eq!((remote.tip("main"), remote.tip("main-of-others/main")), (made.commit(), Some(other)));
    sandbox.sync().remote(&remote).run().expect("unchanged");
    sandbox.sync().remote(&remote).arg("--branch").arg("trunk").run().expect("unchanged");

    // The same volume, another remote.
    let second = sandbox.repository_named("second");
    let moved = sandbox.sync().remote(&second).run().expect("pushed");
    assert_told_truly(&moved, &second, "main", None);
    assert_same_files(&second.regular_files("main"), &remote.regular_files("main"));
}

#[test]
fn a_sha256_repository_is_a_repository_too() {
    let sandbox = Sandbox::new();
    let remote = sandbox.sha256_repository();
    let sync = sandbox.sync().remote(&remote);
    let first = sync.run().expect("pushed");
    assert_told_truly(&first, &remote, "main", None);
    assert_eq!(first.commit().unwrap().len(), 64);
    assert_same_files(&remote.regular_files("main"), &pulled_alone(&sandbox, OUR_DEFAULTS));
    sync.run().expect("unchanged");
    sandbox.windmill.state("2-edited");
    std::fs::remove_dir_all(sandbox.data()).unwrap();
    let edited = sync.run().expect("pushed");
    assert_told_truly(&edited, &remote, "main", first.commit().as_deref());
}

#[test]
fn a_folder_of_the_repository_is_all_that_a_sync_touches() {
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
    assert_told_truly(&pushed, &remote, "backup/shop", Some(&before));
    let alone = below("backups/shop", pulled_alone(&sandbox, OUR_DEFAULTS));
    assert_same_files(&remote.regular_files("backup/shop"), &with(alone, &outside));
    sync.run().expect("unchanged");

    sandbox.windmill.state("2-edited");
    let edited = sync.run().expect("pushed");
    assert_told_truly(&edited, &remote, "backup/shop", pushed.commit().as_deref());
    let alone = below("backups/shop", pulled_alone(&sandbox, OUR_DEFAULTS));
    assert_same_values(&remote.regular_files("backup/shop"), &with(alone, &outside));

    // The same volume, another folder.
    let moved = sync.arg("--subdir").arg("elsewhere").run().expect("pushed");
    let changes = assert_told_truly(&moved, &remote, "backup/shop", edited.commit().as_deref());
    assert!(changes.added.iter().all(|path| path.starts_with("elsewhere/")), "{changes:?}");
    assert_eq!((changes.modified.len(), changes.deleted.len()), (0, 0));
}

#[test]
fn a_folder_in_a_repository_that_holds_nothing_else_is_a_folder_still() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let sync = sandbox.sync().remote(&remote).subdir("backup");
    sync.run().expect("pushed");
    sync.clone().arg("--force").run().expect("unchanged");
    let readme = [("backup/README.md", "stays\n")];
    remote.commit_files("main", &readme);
    sandbox.windmill.state("2-edited");
    let edited = sync.run().expect("pushed");
    let alone = below("backup", pulled_alone(&sandbox, OUR_DEFAULTS));
    assert_same_values(&remote.regular_files("main"), &with(alone, &readme));
    sync.clone().arg("--force").run().expect("unchanged");
    assert_eq!(edited.warnings(), [""; 0]);
}

#[test]
fn a_file_where_the_folder_must_be_gives_way_and_is_named() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    remote.commit("main").file("README.md", "stays\n").symlink("backups", "/etc").done("A link in the way");
    let pushed = sandbox.sync().remote(&remote).subdir("backups/shop").run().expect("pushed");
    let alone = below("backups/shop", pulled_alone(&sandbox, OUR_DEFAULTS));
    assert_same_files(&remote.regular_files("main"), &with(alone, &[("README.md", "stays\n")]));
    assert!(pushed.warnings().iter().any(|warning| warning.contains("`backups`")), "{:?}", pushed.warnings());
    sandbox.sync().remote(&remote).subdir("backups/shop").run().expect("unchanged");
}

#[test]
fn a_dry_run_shows_what_would_be_and_changes_nothing() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let sync = sandbox.sync().remote(&remote);
    let shown = sync.clone().arg("--dry-run").run().expect("dry_run");
    assert_eq!((shown.exit_code, shown.commit()), (Some(0), None));
    assert!(shown.message().contains("\nA f/ops/job_00000.ts\n"), "{}", shown.message());
    assert_eq!(remote.refs(), "");
    let pushed = sync.run().expect("pushed");
    assert_eq!(pushed.changed(), shown.changed());

    sandbox.windmill.state("2-edited");
    let shown = sync.clone().arg("--dry-run").run().expect("dry_run");
    for line in ["M f/ops/job_00000.ts", "A f/sales/new_report.py", "D f/ops/region.variable.yaml"] {
        assert!(shown.message().lines().any(|shown| shown == line), "{line} in {}", shown.message());
    }
    assert_eq!(remote.tip("main"), pushed.commit());
    let edited = sync.run().expect("pushed");
    assert_eq!(edited.changed(), shown.changed());
}

#[test]
fn a_lost_volume_and_a_remote_made_anew_cost_nothing() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let sync = sandbox.sync().remote(&remote);
    let first = sync.run().expect("pushed");
    std::fs::remove_dir_all(sandbox.data()).unwrap();
    sync.run().expect("unchanged");
    assert_eq!(remote.tip("main"), first.commit());

    // Empty again, then of the other object format at the same place.
    for options in [&[][..], &["--object-format=sha256"]] {
        std::fs::remove_dir_all(remote.path()).unwrap();
        let remote = BareRepository::create(&sandbox, "backup", options);
        let anew = sync.run().expect("pushed");
        assert_told_truly(&anew, &remote, "main", None);
        sync.run().expect("unchanged");
    }
}

#[test]
fn a_branch_that_somebody_moves_back_gets_the_backup_again() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let start = remote.commit_files("main", &[("README.md", "start\n")]);
    let sync = sandbox.sync().remote(&remote);
    sync.run().expect("pushed");
    remote.force("main", &start);
    let again = sync.run().expect("pushed");
    assert_told_truly(&again, &remote, "main", Some(&start));
    remote.run(["update-ref", "-d", "refs/heads/main"]);
    let made = sync.run().expect("pushed");
    assert_told_truly(&made, &remote, "main", None);
    // What a person does to Windmill's files goes back to what Windmill holds; what is not Windmill's stays.
    let theirs = [("f/ops/job_00000.ts", "// mine\n"), ("docs/notes.md", "notes\n"), ("f/ops/notes.md", "notes\n")];
    let by_hand = remote.commit_files("main", &theirs);
    let restored = sync.run().expect("pushed");
    let changes = assert_told_truly(&restored, &remote, "main", Some(&by_hand));
    assert_eq!(changes.modified, ["f/ops/job_00000.ts"]);
    assert_same_files(&remote.regular_files("main"), &with(pulled_alone(&sandbox, OUR_DEFAULTS), &theirs[1..]));
}

// Other writers.

#[test]
fn another_writer_in_between_is_built_upon() {
    for moment in [PushMoment::Asked, PushMoment::Received] {
        let sandbox = Sandbox::new();
        let repository = sandbox.repository();
        let start = repository.commit_files("main", &[("README.md", "start\n")]);
        let remote = GitHttp::serve(&repository);
        let writer = repository.clone();
        remote.at(moment, Times::Once, move || {
            writer.commit_files("main", &[("theirs.txt", "theirs\n")]);
        });
        let pushed = sandbox.sync().remote(&remote).run().expect("pushed");
        let [ours, theirs, base] = &repository.log("main")[..] else { panic!("{moment:?}: three commits") };
        assert_eq!((Some(&ours.id), &base.id), (pushed.commit().as_ref(), &start));
        assert_eq!(theirs.subject, "Another writer's commit");
        let expected = [("README.md", "start\n"), ("theirs.txt", "theirs\n")];
        let alone = pulled_alone(&sandbox, OUR_DEFAULTS);
        assert_same_files(&repository.regular_files("main"), &with(alone, &expected));
        assert_told_truly(&pushed, &repository, "main", Some(&theirs.id));
        sandbox.sync().remote(&remote).run().expect("unchanged");
    }
}

#[test]
fn a_writer_who_is_always_first_is_told_as_a_rejection() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let remote = GitHttp::serve(&repository);
    let (writer, mut count) = (repository.clone(), 0);
    remote.at(PushMoment::Received, Times::Always, move || {
        count += 1;
        writer.commit_files("main", &[("theirs.txt", &format!("{count}\n"))]);
    });
    let refused = sandbox.sync().remote(&remote).run().expect("git_rejected");
    assert_eq!((refused.exit_code, refused.commit()), (Some(11), None));
    assert!(refused.message().contains("other writers were first"), "{}", refused.message());
    let log = repository.log("main");
    assert!(log.iter().all(|commit| commit.subject == "Another writer's commit"));
    assert!((2..=10).contains(&log.len()), "{} rounds", log.len());
    remote.undisturbed();
    let pushed = sandbox.sync().remote(&remote).run().expect("pushed");
    assert_told_truly(&pushed, &repository, "main", Some(&log[0].id));
}

#[test]
fn another_writer_right_after_our_push_does_not_unmake_it() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    repository.commit_files("main", &[("README.md", "start\n")]);
    let remote = GitHttp::serve(&repository);
    let writer = repository.clone();
    remote.at(PushMoment::Taken, Times::Once, move || {
        writer.commit_files("main", &[("theirs.txt", "1\n")]);
        writer.commit_files("main", &[("theirs.txt", "2\n")]);
    });
    let pushed = sandbox.sync().remote(&remote).run().expect("pushed");
    let log = repository.log("main");
    assert_eq!((log.len(), Some(&log[2].id)), (4, pushed.commit().as_ref()));
    let unchanged = sandbox.sync().remote(&remote).run().expect("unchanged");
    assert_eq!(unchanged.commit().as_ref(), Some(&log[0].id));
}

#[test]
fn a_forced_push_in_between_is_built_upon() {
    for moment in [PushMoment::Received, PushMoment::Taken] {
        let sandbox = Sandbox::new();
        let repository = sandbox.repository();
        repository.commit_files("main", &[("README.md", "start\n")]);
        let other = repository.commit_files("aside", &[("other.txt", "unrelated\n")]);
        let remote = GitHttp::serve(&repository);
        let (writer, theirs) = (repository.clone(), other.clone());
        remote.at(moment, Times::Once, move || writer.force("main", &theirs));
        let pushed = sandbox.sync().remote(&remote).run().expect("pushed");
        let [ours, base] = &repository.log("main")[..] else { panic!("{moment:?}: two commits") };
        assert_eq!((Some(&ours.id), &base.id), (pushed.commit().as_ref(), &other));
        assert_told_truly(&pushed, &repository, "main", Some(&other));
    }
}

#[test]
fn a_push_that_the_server_refuses_is_never_a_success() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let sync = sandbox.sync().remote(&remote);
    remote.refuse_pushes("branch is protected");
    for _ in 0..2 {
        let refused = sync.run().expect("git_rejected");
        assert_eq!((refused.exit_code, refused.commit()), (Some(11), None));
        assert!(refused.message().contains("branch is protected"), "{}", refused.message());
        assert_eq!(remote.refs(), "");
    }
    remote.accept_pushes();
    let first = sync.run().expect("pushed");
    assert_told_truly(&first, &remote, "main", None);

    sandbox.windmill.state("2-edited");
    remote.hook("update", "echo 'not this ref' >&2\nexit 1");
    for _ in 0..2 {
        sync.run().expect("git_rejected");
        assert_eq!(remote.tip("main"), first.commit());
    }
    remote.unhook("update");
    let edited = sync.run().expect("pushed");
    assert_told_truly(&edited, &remote, "main", first.commit().as_deref());
}

#[test]
fn a_push_whose_answer_is_lost_is_found_on_the_remote_and_not_made_again() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let remote = GitHttp::serve(&repository);
    remote.fail_once("/git-receive-pack", Fault::CutHalfway);
    let lost = sandbox.sync().remote(&remote).run().expect("pushed");
    assert_told_truly(&lost, &repository, "main", None);
    let again = sandbox.sync().remote(&remote).run().expect("unchanged");
    assert_eq!(again.commit(), repository.tip("main"));
    assert_eq!(repository.log("main").len(), 1);
}

// What is told.

#[test]
fn the_default_workspace_is_told_about_and_so_is_a_token_that_sees_less() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    sandbox.windmill.token_kind(TokenKind::User);
    sandbox.windmill.set("admins", Workspace::of_scripts(2));
    let told = sandbox.sync().remote(&remote).without("WINDMILL_WORKSPACE").run().expect("pushed");
    let [warning] = &told.warnings()[..] else { panic!("{:?}", told.warnings()) };
    assert!(warning.contains("`admins`") && warning.contains("admins, shop"), "{warning}");
    assert!(remote.log("main")[0].message.contains("Windmill-Workspace: admins"));

    for command in ["verify", "restore"] {
        let told = sandbox.command(command).remote(&remote).without("WINDMILL_WORKSPACE").run();
        let told_of_it = told.warnings().iter().any(|one| one.contains("`admins`") && one.contains("admins, shop"));
        assert!(told_of_it && told.code() == "unchanged", "{told}");
    }
    let elsewhere = sandbox.command("restore").remote(&remote).without("WINDMILL_WORKSPACE").arg("--to-workspace");
    let told = elsewhere.arg(SHOP).run().expect("dry_run");
    let of_the_source = |one: &String| one.contains("`admins` is where the backup is from");
    assert!(told.warnings().iter().any(of_the_source), "{told}");

    sandbox.windmill.role(Role::Developer);
    let told = sandbox.sync().remote(&remote).branch("shop").run().expect("pushed");
    let [warning] = &told.warnings()[..] else { panic!("{:?}", told.warnings()) };
    assert!(warning.contains("no admin of workspace `shop`"), "{warning}");
    sandbox.windmill.role(Role::Admin);
    let quiet = sandbox.sync().remote(&remote).branch("shop").workspace(SHOP).run().expect("unchanged");
    assert_eq!(quiet.warnings(), [""; 0]);
}

#[test]
fn log_lines_are_json_where_that_is_asked_for() {
    let sandbox = Sandbox::new();
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
fn the_command_line_is_what_its_help_says() {
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
fn all_that_is_wrong_with_the_settings_is_said_at_once() {
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
fn a_push_that_the_server_can_never_take_is_told_with_its_reason() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    remote.commit_files("main", &[("README.md", "start\n")]);
    // git keeps no branch below the name of another.
    let refused = sandbox.sync().remote(&remote).branch("main/shop").run().expect("git_rejected");
    assert!(refused.message().contains("refuses the push"), "{}", refused.message());
    assert!(!refused.message().contains("other writers"), "{}", refused.message());
    assert_eq!(sandbox.windmill.exports(), 2, "it is tried once more, and not for ever");
}
