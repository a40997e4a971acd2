//! A remote that others write to or move, that refuses pushes, or that is lost: what a sync does with it, and what it
//! reports. `wmill` is replayed.

use std::fs;

use crate::sync::{assert_result_is_true, below, with};
use support::*;

/// Returns the content of the workspace as it must be on the branch, without the README of [`Replay`].
fn backup(replay: &Replay) -> Files {
    let mut files = replay.expected();
    files.remove("README.md");
    files
}

/// Returns a repository of the sandbox without commits.
fn empty_repository(replay: &Replay) -> BareRepository {
    replay.sandbox.repository_named("empty")
}

// The folder of the backup.

#[test]
#[ignore = "long: just test-long"]
fn the_folder_is_kept_in_a_repository_without_other_files() {
    let replay = Replay::new();
    let remote = empty_repository(&replay);
    let sync = replay.sandbox.sync().remote(&remote).subdir("backup");
    sync.run().expect("pushed");
    sync.clone().arg("--force").run().expect("unchanged");
    let readme = [("backup/README.md", "stays\n")];
    remote.commit_files("main", &readme);
    replay.hold(State::Edited);
    let edited = sync.run().expect("pushed");
    assert_same_values(&remote.regular_files("main"), &with(below("backup", backup(&replay)), &readme));
    sync.clone().arg("--force").run().expect("unchanged");
    assert_eq!(edited.warnings(), [""; 0]);
}

#[test]
#[ignore = "long: just test-long"]
fn a_file_in_place_of_the_folder_is_replaced_and_named() {
    let replay = Replay::new();
    replay.remote.commit("main").symlink("backups", "/etc").done("A link in the way");
    let sync = replay.sync().subdir("backups/shop");
    let pushed = sync.run().expect("pushed");
    let expected = with(below("backups/shop", backup(&replay)), &[("README.md", "stays\n")]);
    assert_same_files(&replay.remote.regular_files("main"), &expected);
    assert!(pushed.warnings().iter().any(|warning| warning.contains("`backups`")), "{:?}", pushed.warnings());
    sync.run().expect("unchanged");
}

// Losses and moves between two syncs.

#[test]
#[ignore = "long: just test-long"]
fn a_sync_after_a_lost_volume_succeeds() {
    let replay = Replay::new();
    let first = replay.sync().run().expect("pushed");
    fs::remove_dir_all(replay.sandbox.data()).unwrap();
    replay.sync().run().expect("unchanged");
    assert_eq!(replay.remote.tip("main"), first.commit());
}

#[test]
#[ignore = "long: just test-long"]
fn a_remote_made_again_gets_the_backup_again() {
    let replay = Replay::new();
    replay.sync().run().expect("pushed");
    // The remote is first empty again, then it has the other object format at the same place.
    for options in [&[][..], &["--object-format=sha256"]] {
        fs::remove_dir_all(replay.remote.path()).unwrap();
        let remote = BareRepository::create(&replay.sandbox, "backup", options);
        let again = replay.sync().run().expect("pushed");
        assert_result_is_true(&again, &remote, "main", None);
        replay.sync().run().expect("unchanged");
    }
}

#[test]
#[ignore = "long: just test-long"]
fn a_branch_that_was_moved_back_or_deleted_gets_the_backup_again() {
    let replay = Replay::new();
    let start = replay.remote.tip("main").unwrap();
    replay.sync().run().expect("pushed");
    replay.remote.force("main", &start);
    let again = replay.sync().run().expect("pushed");
    assert_result_is_true(&again, &replay.remote, "main", Some(&start));
    replay.remote.run(["update-ref", "-d", "refs/heads/main"]);
    let made = replay.sync().run().expect("pushed");
    assert_result_is_true(&made, &replay.remote, "main", None);
}

#[test]
fn manual_changes_to_windmills_files_are_undone_and_other_files_stay() {
    let replay = Replay::new();
    replay.sync().run().expect("pushed");
    let theirs = [("f/ops/job_00000.ts", "// mine\n"), ("docs/notes.md", "notes\n"), ("f/ops/notes.md", "notes\n")];
    let by_hand = replay.remote.commit_files("main", &theirs);
    let restored = replay.sync().run().expect("pushed");
    let changes = assert_result_is_true(&restored, &replay.remote, "main", Some(&by_hand));
    assert_eq!(changes.modified, ["f/ops/job_00000.ts"]);
    assert_same_files(&replay.remote.regular_files("main"), &with(replay.expected(), &theirs[1..]));
}

// Another writer during a push.

#[test]
fn a_commit_of_another_writer_becomes_the_parent_of_ours() {
    for moment in [PushMoment::Asked, PushMoment::Received] {
        let replay = Replay::new();
        let start = replay.remote.tip("main").unwrap();
        let remote = GitHttp::serve(&replay.remote);
        let writer = replay.remote.clone();
        remote.at(moment, Times::Once, move || {
            writer.commit_files("main", &[("theirs.txt", "theirs\n")]);
        });
        let sync = replay.sandbox.sync().remote(&remote);
        let pushed = sync.run().expect("pushed");
        let [ours, theirs, base] = &replay.remote.log("main")[..] else { panic!("{moment:?}: three commits") };
        assert_eq!((Some(&ours.id), &base.id), (pushed.commit().as_ref(), &start));
        assert_eq!(theirs.subject, "Another writer's commit");
        let expected = with(replay.expected(), &[("theirs.txt", "theirs\n")]);
        assert_same_files(&replay.remote.regular_files("main"), &expected);
        assert_result_is_true(&pushed, &replay.remote, "main", Some(&theirs.id));
        sync.run().expect("unchanged");
    }
}

#[test]
#[ignore = "long: just test-long"]
fn a_writer_who_is_always_first_makes_the_sync_end_with_git_rejected() {
    let replay = Replay::new();
    let remote = GitHttp::serve(&replay.remote);
    let (writer, mut count) = (replay.remote.clone(), 0);
    remote.at(PushMoment::Received, Times::Always, move || {
        count += 1;
        writer.commit_files("main", &[("theirs.txt", &format!("{count}\n"))]);
    });
    let sync = replay.sandbox.sync().remote(&remote);
    let refused = sync.run().expect("git_rejected");
    assert_eq!((refused.exit_code, refused.commit()), (Some(11), None));
    assert!(refused.message().contains("other writers were first"), "{}", refused.message());
    let log = replay.remote.log("main");
    assert!(log.iter().all(|commit| commit.subject == "Another writer's commit"));
    assert!((2..=10).contains(&log.len()), "{} rounds", log.len());
    remote.undisturbed();
    let pushed = sync.run().expect("pushed");
    assert_result_is_true(&pushed, &replay.remote, "main", Some(&log[0].id));
}

#[test]
#[ignore = "long: just test-long"]
fn a_commit_of_another_writer_right_after_our_push_does_not_fail_it() {
    let replay = Replay::new();
    let remote = GitHttp::serve(&replay.remote);
    let writer = replay.remote.clone();
    remote.at(PushMoment::Taken, Times::Once, move || {
        writer.commit_files("main", &[("theirs.txt", "1\n")]);
        writer.commit_files("main", &[("theirs.txt", "2\n")]);
    });
    let sync = replay.sandbox.sync().remote(&remote);
    let pushed = sync.run().expect("pushed");
    let log = replay.remote.log("main");
    assert_eq!((log.len(), Some(&log[2].id)), (4, pushed.commit().as_ref()));
    let unchanged = sync.run().expect("unchanged");
    assert_eq!(unchanged.commit().as_ref(), Some(&log[0].id));
}

#[test]
#[ignore = "long: just test-long"]
fn a_forced_push_of_another_writer_becomes_the_parent_of_ours() {
    for moment in [PushMoment::Received, PushMoment::Taken] {
        let replay = Replay::new();
        let other = replay.remote.commit_files("aside", &[("other.txt", "unrelated\n")]);
        let remote = GitHttp::serve(&replay.remote);
        let (writer, theirs) = (replay.remote.clone(), other.clone());
        remote.at(moment, Times::Once, move || writer.force("main", &theirs));
        let pushed = replay.sandbox.sync().remote(&remote).run().expect("pushed");
        let [ours, base] = &replay.remote.log("main")[..] else { panic!("{moment:?}: two commits") };
        assert_eq!((Some(&ours.id), &base.id), (pushed.commit().as_ref(), &other));
        assert_result_is_true(&pushed, &replay.remote, "main", Some(&other));
    }
}

// Pushes that are refused or not answered.

#[test]
fn a_push_that_the_server_refuses_never_succeeds() {
    let replay = Replay::new();
    let remote = empty_repository(&replay);
    let sync = replay.sandbox.sync().remote(&remote);
    remote.refuse_pushes("branch is protected");
    for _ in 0..2 {
        let refused = sync.run().expect("git_rejected");
        assert_eq!((refused.exit_code, refused.commit()), (Some(11), None));
        assert!(refused.message().contains("branch is protected"), "{}", refused.message());
        assert_eq!(remote.refs(), "");
    }
    remote.accept_pushes();
    let first = sync.run().expect("pushed");
    assert_result_is_true(&first, &remote, "main", None);

    replay.hold(State::Edited);
    remote.hook("update", "echo 'not this ref' >&2\nexit 1");
    for _ in 0..2 {
        sync.run().expect("git_rejected");
        assert_eq!(remote.tip("main"), first.commit());
    }
    remote.unhook("update");
    let edited = sync.run().expect("pushed");
    assert_result_is_true(&edited, &remote, "main", first.commit().as_deref());
}

#[test]
fn a_push_is_found_if_its_answer_was_lost_and_is_not_repeated() {
    let replay = Replay::new();
    let repository = empty_repository(&replay);
    let remote = GitHttp::serve(&repository);
    remote.fail_once("/git-receive-pack", Fault::CutHalfway);
    let sync = replay.sandbox.sync().remote(&remote);
    let lost = sync.run().expect("pushed");
    assert_result_is_true(&lost, &repository, "main", None);
    let again = sync.run().expect("unchanged");
    assert_eq!(again.commit(), repository.tip("main"));
    assert_eq!(repository.log("main").len(), 1);
}
