//! A remote that is deleted, replaced or damaged between fetch and push or between two syncs, and changed settings. The
//! tests of `push` cover other changes of a remote.

use std::fs;

use super::{History, Scenario};
use support::*;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        fault: "the branch deleted; the repository replaced by an empty one, with SHA-1 or SHA-256",
        injected: "between fetch and push",
        asserted: "the sync reports success only for the current tip",
        test: "remote::a_branch_or_repository_that_is_deleted_between_fetch_and_push_gets_the_backup",
    },
    Scenario {
        fault: "a branch that is forced to an unrelated history, twice",
        injected: "between two syncs, and between fetch and push",
        asserted: "the new commit is a descendant of the forced tip",
        test: "remote::a_branch_that_is_forced_to_an_unrelated_history_gets_the_backup",
    },
    Scenario {
        fault: "a change of branch, folder and URL, and back again",
        injected: "in the settings, with one DATA_DIR; the first sync after each change is killed",
        asserted: "each backup is complete and has no files of another backup",
        test: "remote::the_backup_is_complete_after_each_change_of_branch_folder_and_url",
    },
    Scenario {
        fault: "a hook that refuses every other push; a hook that fails after the push",
        injected: "`pre-receive`, `post-receive`",
        asserted: "a refusal is `git_rejected`; a push that arrived is a success",
        test: "remote::a_push_that_a_hook_refuses_succeeds_in_the_next_sync",
    },
    Scenario {
        fault: "a repository that is missing, or has no `HEAD`, objects, refs or `config`",
        injected: "between two syncs",
        asserted: "no success is reported for a damaged repository (only `config` may be missing)",
        test: "remote::no_success_is_reported_for_a_damaged_repository",
    },
];

#[test]
#[ignore = "long: just test-faults"]
fn a_branch_or_repository_that_is_deleted_between_fetch_and_push_gets_the_backup() {
    for moment in [PushMoment::Asked, PushMoment::Received] {
        for what in ["branch", "sha1", "sha256"] {
            let replay = Replay::new();
            let http = GitHttp::serve(&replay.remote);
            let sync = replay.sandbox.sync().remote(&http);
            let mut history = History::of(&replay.remote, "main");
            history.assert_healed("nothing", &sync, &replay.expected());
            replay.hold(State::Edited);
            let (remote, root) = (replay.remote.clone(), replay.sandbox.path().join("another"));
            let git = git::git(&replay.sandbox);
            let (program, config) = (git.get_program().to_owned(), replay.sandbox.path().join("support.gitconfig"));
            http.at(moment, Times::Once, move || {
                if what == "branch" {
                    remote.run(["update-ref", "-d", "refs/heads/main"]);
                    return;
                }
                let mut init = process::clean_command(&program);
                init.env("GIT_CONFIG_GLOBAL", &config).args(["init", "--quiet", "--bare", "--initial-branch=main"]);
                init.arg(format!("--object-format={what}")).arg(&root);
                process::run(init).must_succeed();
                fs::remove_dir_all(remote.path()).unwrap();
                fs::rename(&root, remote.path()).unwrap();
            });
            let fault = format!("{what} gone when the push was {moment:?}");
            let struck = sync.run();
            history.begin_again();
            if struck.exit_code == Some(0) {
                assert_eq!(struck.commit(), replay.remote.tip("main"), "{fault}: {struck}");
            }
            let mut expected = replay.expected();
            expected.remove("README.md");
            history.assert_healed(&fault, &sync, &expected);
            assert_eq!(sync.run().code(), "unchanged", "{fault}");
        }
    }
}

#[test]
#[ignore = "long: just test-faults"]
fn a_branch_that_is_forced_to_an_unrelated_history_gets_the_backup() {
    let replay = Replay::new();
    let http = GitHttp::serve(&replay.remote);
    let sync = replay.sandbox.sync().remote(&http);
    let mut history = History::of(&replay.remote, "main");
    history.assert_healed("nothing", &sync, &replay.expected());
    let unrelated = |number: usize| {
        let name = format!("aside-{number}");
        replay.remote.commit_files(&name, &[("README.md", "stays\n"), ("f/ops/theirs.txt", "theirs\n")]);
        // Equal commits within one second would have the same id.
        replay.remote.commit(&name).remove("f/ops/theirs.txt").done(&format!("Taken back ({number})"))
    };
    for number in 0..4 {
        replay.hold(if number % 2 == 0 { State::Edited } else { State::Seeded });
        let theirs = unrelated(number);
        if number < 2 {
            replay.remote.force("main", &theirs);
            history.begin_again();
            history.assert_healed("a forced tip", &sync, &replay.expected());
        } else {
            let (remote, tip) = (replay.remote.clone(), theirs.clone());
            http.at(PushMoment::Asked, Times::Once, move || remote.force("main", &tip));
            let pushed = sync.run().expect("pushed");
            history.begin_again();
            assert_eq!(pushed.commit(), replay.remote.tip("main"));
            history.assert_healed("a forced tip", &sync, &replay.expected());
        }
        assert!(replay.remote.is_ancestor(&theirs, "main"));
    }
    // The push does not bring back commits from before the forced history.
    assert_eq!(replay.remote.log("main").len(), 3);
}

#[test]
#[ignore = "long: just test-faults"]
fn the_backup_is_complete_after_each_change_of_branch_folder_and_url() {
    let replay = Replay::new();
    let second = replay.sandbox.repository_named("second");
    second.commit_files("main", &[("README.md", "stays\n")]);
    let mut state = State::Seeded;
    for round in 0..3 {
        for (remote, branch, folder) in [
            (&replay.remote, "main", ""),
            (&replay.remote, "main", "backup/shop"),
            (&replay.remote, "other", ""),
            (&second, "main", "deep/er"),
            (&second, "main", ""),
        ] {
            state = state.other();
            replay.hold(state);
            let fault = format!("round {round}, branch {branch}, folder {folder:?}");
            let mut history = History::of(remote, branch);
            let sync = replay.sandbox.sync().remote(remote).branch(branch);
            let sync = if folder.is_empty() { sync } else { sync.subdir(folder) };
            let running = sync.start();
            eventually("the sync has started", || {
                replay.sandbox.data().join("windmill-git-sync/locks").exists().then_some(())
            });
            running.kill();
            history.assert_true_report(&fault, &running.finish());
            let pushed = sync.run();
            assert!(["pushed", "unchanged"].contains(&pushed.code().as_str()), "{fault}: {pushed}");
            history.assert_true_report(&fault, &pushed);
            let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
            let mut held = Files::new();
            for (path, content) in remote.regular_files(branch) {
                let own = path.strip_prefix(&prefix).filter(|path| {
                    ["f/", "u/", "groups/"].iter().any(|top| path.starts_with(top))
                        || path.ends_with(".yaml") && !path.contains('/')
                });
                held.extend(own.map(|own| (own.to_owned(), content)));
            }
            let mut expected = replay.expected();
            expected.remove("README.md");
            assert_same_values(&held, &expected);
        }
    }
}

#[test]
#[ignore = "long: just test-faults"]
fn a_push_that_a_hook_refuses_succeeds_in_the_next_sync() {
    let replay = Replay::new();
    let mut history = History::of(&replay.remote, "main");
    let mark = replay.sandbox.path().join("refused-once");
    let hook =
        format!("if [ -e '{0}' ]; then rm '{0}'; exit 0; fi\ntouch '{0}'\necho 'not now' >&2\nexit 1", mark.display());
    replay.remote.hook("pre-receive", &hook);
    replay.remote.hook("post-receive", "echo 'mailing failed' >&2\nexit 1");
    let mut state = State::Seeded;
    for _ in 0..3 {
        let refused = replay.sync().run().expect("git_rejected");
        assert!(refused.message().contains("not now"), "{}", refused.message());
        history.assert_true_report("a hook that refuses every other push", &refused);
        let pushed = history.assert_healed("a hook that refused", &replay.sync(), &replay.expected());
        assert_eq!(pushed.code(), "pushed");
        state = state.other();
        replay.hold(state);
    }
}

#[test]
#[ignore = "long: just test-faults"]
fn no_success_is_reported_for_a_damaged_repository() {
    let replay = Replay::new();
    let mut history = History::of(&replay.remote, "main");
    history.assert_healed("nothing", &replay.sync(), &replay.expected());
    let path = replay.remote.path().to_path_buf();
    let aside = replay.sandbox.path().join("aside");
    let mut state = State::Seeded;
    for part in ["HEAD", "objects", "refs", "config", ""] {
        state = state.other();
        replay.hold(state);
        let broken = if part.is_empty() { path.clone() } else { path.join(part) };
        fs::rename(&broken, &aside).unwrap();
        let struck = replay.sync().env("SYNC_TIMEOUT", "20s").run();
        let is_success = struck.exit_code == Some(0);
        if broken.exists() {
            fs::remove_dir_all(&broken).unwrap();
        }
        fs::rename(&aside, &broken).unwrap();
        // git accepts a repository without a `config`.
        assert!(!is_success || part == "config", "{part}: {struck}");
        history.assert_true_report(part, &struck);
        history.assert_healed(&format!("a repository without `{part}`"), &replay.sync(), &replay.expected());
    }
}
