//! A failure is reported with its true cause, ends in time, and leaves nothing that breaks the next sync.

use std::fs;

use support::*;

/// Asserts that no program runs any more that our binary started for this sandbox.
#[track_caller]
fn assert_nothing_runs(sandbox: &Sandbox) {
    let left: Vec<_> = sandbox.processes().into_iter().map(|process| process.arguments.join(" ")).collect();
    assert_eq!(left, [""; 0]);
}

/// Waits until the process has this file open: it waits for a lock, or holds it.
#[track_caller]
fn wait_until_open(pid: u32, ending: &str) {
    eventually("the file is open", || {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
        let targets = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        targets.into_iter().any(|target| target.to_string_lossy().ends_with(ending)).then_some(())
    });
}

/// Asserts that the folder of each run, with its secrets, is gone.
#[track_caller]
fn assert_scratch_is_gone(sandbox: &Sandbox) {
    let runs = sandbox.data().join("windmill-git-sync/runs");
    let left = fs::read_dir(&runs).unwrap().map(|entry| entry.unwrap().path()).next();
    assert_eq!(left, None);
}

/// Checks that a sync into a repository with a README fails with this code and leaves nothing behind, and that the next
/// one, without the cause, succeeds.
fn check_failure(code: &str, words: &[&str], fail: impl Fn(&Replay, &GitHttp, Run<'_>) -> Outcome) {
    let replay = Replay::new();
    let before = replay.remote.refs();
    let remote = GitHttp::serve(&replay.remote);
    let sync = replay.sandbox.sync().remote(&remote);
    let failed = fail(&replay, &remote, sync.clone()).expect(code);
    let exit_code = if code.starts_with("git") { 11 } else { 10 };
    assert_eq!((failed.exit_code, failed.commit()), (Some(exit_code), None), "{failed}");
    assert_eq!(failed.changed(), (0, 0, 0));
    for word in words {
        assert!(failed.message().contains(word), "{word} in {}", failed.message());
    }
    assert_nothing_leaked(&failed.texts(), &[], &[WINDMILL_TOKEN, GIT_TOKEN]);
    assert_eq!(replay.remote.refs(), before);
    assert_scratch_is_gone(&replay.sandbox);
    replay.sandbox.windmill.heal();
    replay.sandbox.windmill.role(Role::Admin);
    remote.heal();
    sync.run().expect("pushed");
}

#[test]
#[ignore = "long: just test-long"]
fn wrong_addresses_names_and_tokens_have_their_codes() {
    type Fail<'a> = &'a (dyn Fn(&Replay, &GitHttp, Run<'_>) -> Outcome + Sync);
    let nobody = "http://127.0.0.1:1";
    let cases: [(&str, &[&str], Fail<'_>); 7] = [
        ("windmill_unreachable", &[nobody], &|_, _, run| run.env("WINDMILL_BASE_URL", nobody).run()),
        ("windmill_unauthorized", &["`shop`", "401"], &|_, _, run| run.env("WINDMILL_TOKEN", "wrong").run()),
        // A token that is bound to `shop` cannot find out whether another workspace exists.
        ("windmill_unauthorized", &["`nosuch`"], &|_, _, run| run.workspace("nosuch").run()),
        ("workspace_not_found", &["`nosuch`"], &|replay, _, run| {
            replay.sandbox.windmill.token_kind(TokenKind::User);
            run.workspace("nosuch").run()
        }),
        ("workspace_not_found", &["`nosuch`"], &|replay, _, run| {
            replay.sandbox.windmill.token_kind(TokenKind::User);
            replay.sandbox.windmill.role(Role::Developer);
            // A developer learns this only from the export. From here on, the real `wmill` runs.
            fs::remove_file(replay.sandbox.bin().join("wmill")).unwrap();
            run.workspace("nosuch").run()
        }),
        ("git_unreachable", &["http://127.0.0.1:1/backup.git"], &|_, _, run| {
            run.env("GIT_REMOTE_URL", "http://127.0.0.1:1/backup.git").run()
        }),
        ("git_unauthorized", &["credentials"], &|_, _, run| run.env("GIT_TOKEN", "wrong").run()),
    ];
    side_by_side(&cases, |(code, words, fail)| check_failure(code, words, fail));
}

#[test]
fn each_failure_of_windmill_has_its_code() {
    let cases = [
        ("/api/version", Fault::GatewayPage(502), "windmill_unreachable"),
        ("/w/shop/users/whoami", Fault::GatewayPage(200), "windmill_unreachable"),
        ("/w/shop/users/whoami", Fault::Status(500), "windmill_unreachable"),
        ("/w/shop/users/whoami", Fault::Status(404), "workspace_not_found"),
        ("/w/shop/users/whoami", Fault::Redirect("http://127.0.0.1:1".to_owned()), "windmill_unreachable"),
    ];
    side_by_side(&cases, |(needle, fault, code)| {
        check_failure(code, &[], |replay, _, run| {
            replay.sandbox.windmill.fail(needle, fault.clone());
            run.run()
        });
    });
}

#[test]
#[ignore = "long: just test-long"]
fn each_failure_of_an_export_has_its_code() {
    let faults = [Fault::Status(500), Fault::GatewayPage(502), Fault::GatewayPage(200), Fault::Close];
    side_by_side(&faults, |fault| {
        check_failure("pull_failed", &[], |replay, _, run| {
            // From here on, the real `wmill` runs.
            fs::remove_file(replay.sandbox.bin().join("wmill")).unwrap();
            replay.sandbox.windmill.fail("/workspaces/tarball", fault.clone());
            run.run()
        });
    });
}

#[test]
fn each_failure_of_git_has_its_code() {
    let cases = [
        ("git-upload-pack", Fault::Status(500), "git_unreachable"),
        ("git-upload-pack", Fault::Status(403), "git_unauthorized"),
        ("git-upload-pack", Fault::Status(404), "git_failed"),
        ("git-upload-pack", Fault::GatewayPage(502), "git_unreachable"),
        ("git-upload-pack", Fault::Close, "git_unreachable"),
        ("git-receive-pack", Fault::Status(403), "git_unauthorized"),
        ("git-receive-pack", Fault::GatewayPage(503), "git_unreachable"),
    ];
    side_by_side(&cases, |(needle, fault, code)| {
        check_failure(code, &["/backup.git"], |_, remote, run| {
            remote.fail(needle, fault.clone());
            run.run()
        });
    });
    let sandbox = Sandbox::replayed();
    let no_such_file = format!("file://{}/nosuch.git", sandbox.path().display());
    let failed = sandbox.sync().env("GIT_REMOTE_URL", &no_such_file).run().expect("git_failed");
    assert!(failed.message().contains(&no_such_file), "{}", failed.message());
}

#[test]
#[ignore = "long: just test-long"]
fn an_archive_cut_short_is_never_committed() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let sync = sandbox.sync().remote(&remote);
    sandbox.windmill.fail("/workspaces/tarball", Fault::CutHalfway);
    sync.run().expect("pull_failed");
    assert_eq!(remote.refs(), "");
    sandbox.windmill.heal();
    sync.run().expect("pushed");
    assert_same_values(&remote.regular_files("main"), &pulled_alone(&sandbox, OUR_DEFAULTS));
}

#[test]
#[ignore = "long: just test-long"]
fn the_files_of_a_failed_pull_are_never_committed() {
    let replay = Replay::new();
    let first = replay.sync().run().expect("pushed");
    // Each `wmill` does half a pull, and ends with an error, by a signal, or with a false success.
    for end in ["exit 1", "kill -9 $$", "exit 0"] {
        replay.sandbox.program(
            "wmill",
            &format!(
                "test \"$1\" = --version && exit 1\nmkdir -p f/ops new/deep\necho debris > f/ops/debris.py\n\
                 echo debris > new/deep/debris.txt\nrm -f f/ops/job_00000.*\necho debris >> f/ops/job_00002.sh\n\
                 ln -s /etc f/link\ngit init --quiet f/ops/repository 2>/dev/null\n{end}"
            ),
        );
        let failed = replay.sync().run().expect("pull_failed");
        assert_eq!(failed.exit_code, Some(10));
        assert_eq!(replay.remote.tip("main"), first.commit());
    }
    replay.sandbox.program("wmill", &replay.script());
    replay.sync().run().expect("unchanged");
    replay.hold(State::Edited);
    replay.sync().run().expect("pushed");
    assert_same_values(&replay.remote.regular_files("main"), &replay.expected());
}

/// Returns the only checkout that the syncs of a sandbox have made.
fn the_checkout(sandbox: &Sandbox) -> std::path::PathBuf {
    let checkouts = sandbox.data().join("windmill-git-sync/checkouts");
    fs::read_dir(checkouts).unwrap().next().unwrap().unwrap().path()
}

#[test]
#[ignore = "long: just test-long"]
fn a_damaged_checkout_is_made_again() {
    let sandbox = Sandbox::replayed();
    let remote = sandbox.repository();
    remote.commit_files("main", &[("README.md", "start\n")]);
    let sync = sandbox.sync().remote(&remote).env("SKIP_UNCHANGED", "false");
    let first = sync.run().expect("pushed");
    let checkout = the_checkout(&sandbox);
    let damages: [(&str, &dyn Fn()); 6] = [
        ("a stale index.lock", &|| fs::write(checkout.join("git/index.lock"), "").unwrap()),
        ("a broken index", &|| fs::write(checkout.join("git/index"), "DIRC nonsense").unwrap()),
        ("a broken HEAD", &|| fs::write(checkout.join("git/HEAD"), "\0\0\0\0").unwrap()),
        ("no objects", &|| fs::remove_dir_all(checkout.join("git/objects")).unwrap()),
        ("a broken ref", &|| fs::write(checkout.join("git/refs/sync/tip"), "nonsense\n").unwrap()),
        ("no tree", &|| fs::remove_dir_all(checkout.join("tree")).unwrap()),
    ];
    for (name, damage) in damages {
        damage();
        let next = sync.run();
        assert_eq!(next.code(), "unchanged", "{name}: {next}");
        assert_eq!(next.commit(), first.commit());
    }
    fs::write(checkout.join("git/index.lock"), "").unwrap();
    sandbox.hold(State::Edited);
    sync.run().expect("pushed");
    remote.assert_sound();
}

#[test]
#[ignore = "long: just test-long"]
fn a_checkout_with_too_many_objects_is_made_again() {
    let sandbox = Sandbox::replayed();
    let remote = sandbox.repository();
    let sync = sandbox.sync().remote(&remote).env("SKIP_UNCHANGED", "false");
    sync.run().expect("pushed");
    let objects = the_checkout(&sandbox).join("git/objects");
    let fill = |count| {
        fs::create_dir_all(objects.join("17")).unwrap();
        (0..count).for_each(|number| fs::write(objects.join(format!("17/{number:038}")), "").unwrap());
    };
    let strays = || fs::read_dir(objects.join("17")).map_or(0, Iterator::count);
    fill(20);
    sync.run().expect("unchanged");
    assert!(strays() >= 20, "a few objects are not enough");
    fill(60);
    sync.run().expect("unchanged");
    assert!(strays() < 20, "{} objects are left", strays());
    sandbox.hold(State::Edited);
    sync.run().expect("pushed");
    remote.assert_sound();
}

#[test]
fn only_one_sync_of_a_workspace_runs_at_a_time() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let sync = sandbox.sync().remote(&remote);
    let held = sandbox.windmill.hold_exports();
    let first = sync.start();
    held.wait_for(1);

    // The second sync waits for its turn until its time is over.
    let impatient = sync.time_out_in("queue");
    assert_eq!(impatient.exit_code, Some(13));
    let mut second = sync.start();
    wait_until_open(second.pid(), "/shop.lock");
    assert!(second.is_running());
    // Another workspace does not wait.
    sandbox.windmill.token_kind(TokenKind::User);
    sandbox.windmill.set("other", Workspace::of_scripts(2));
    let third = sandbox.sync().remote(&remote).workspace("other").branch("other").start();
    held.wait_for(2);
    assert_eq!(sandbox.windmill.exports(), 2);
    held.release();
    let pushed = first.finish().expect("pushed");
    assert_eq!(second.finish().expect("unchanged").commit(), pushed.commit());
    third.finish().expect("pushed");
    assert_eq!(remote.log("main").len(), 1);
    assert_nothing_runs(&sandbox);
}

#[test]
#[ignore = "long: just test-long"]
fn a_sync_that_takes_too_long_names_the_step_and_leaves_nothing_running() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    repository.commit_files("main", &[("README.md", "start\n")]);
    let remote = GitHttp::serve(&repository);
    let check = |step: &str| {
        let ended = sandbox.sync().remote(&remote).time_out_in(step);
        assert_eq!((ended.exit_code, ended.commit()), (Some(13), None));
        assert_nothing_runs(&sandbox);
        assert_scratch_is_gone(&sandbox);
    };
    for (needle, fault) in [("/workspaces/tarball", Fault::Hang), ("/workspaces/tarball", Fault::HangHalfway)] {
        sandbox.windmill.fail(needle, fault);
        check("probe");
        sandbox.windmill.heal();
    }
    let held = sandbox.hold_wmill();
    check("pull");
    drop(held);
    sandbox.windmill.fail("/users/whoami", Fault::Hang);
    check("probe");
    sandbox.windmill.heal();
    for (needle, step) in [("service=git-upload-pack", "fetch"), ("/git-receive-pack", "push")] {
        remote.fail(needle, Fault::Hang);
        check(step);
        remote.heal();
    }
    assert_eq!(repository.log("main").len(), 1);
    sandbox.sync().remote(&remote).run().expect("pushed");
}

#[test]
fn the_next_sync_ends_programs_of_a_killed_one() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let sync = sandbox.sync().remote(&remote);
    let held = sandbox.hold_wmill();
    let first = sync.start();
    held.wait_for(1);
    first.kill();
    assert_eq!(first.finish().signal, Some(9));
    let orphans = sandbox.processes();
    assert!(!orphans.is_empty(), "wmill lives on");

    let second = sync.start();
    held.wait_for(2);
    let running = sandbox.processes();
    assert!(orphans.iter().all(|orphan| running.iter().all(|process| process.pid != orphan.pid)), "{running:?}");
    drop(held);
    second.finish().expect("pushed");
    assert_nothing_runs(&sandbox);
    sync.run().expect("unchanged");
    assert_scratch_is_gone(&sandbox);
}

#[test]
#[ignore = "long: just test-long"]
fn secrets_of_a_killed_run_are_removed_by_a_run_of_another_workspace() {
    let sandbox = Sandbox::replayed();
    let remote = sandbox.repository();
    let ours = sandbox.data().join("windmill-git-sync");
    let leave = |workspace: &str| {
        let folder = ours.join("runs").join(workspace);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("token"), "secret").unwrap();
        folder
    };
    let (gone, going_on) = (leave("drill"), leave("busy"));
    fs::create_dir_all(ours.join("locks")).unwrap();
    let lock = fs::File::create(ours.join("locks/busy.lock")).unwrap();
    lock.lock().unwrap();
    sandbox.sync().remote(&remote).run().expect("pushed");
    assert!(!gone.exists() && going_on.join("token").exists(), "the run of `busy` goes on");
    // A service removes it without a run.
    leave("drill");
    let _service = sandbox.service().remote(&remote).serve();
    eventually("it is gone", || (!gone.exists()).then_some(()));
    assert!(going_on.join("token").exists());
}

#[test]
fn a_sync_that_a_signal_ends_reports_it() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let held = sandbox.windmill.hold_exports();
    let sync = sandbox.sync().remote(&remote);
    let first = sync.clone().env("SHUTDOWN_GRACE", "0s").start();
    held.wait_for(1);
    first.terminate();
    let ended = first.finish().expect("shutting_down");
    assert_eq!((ended.exit_code, remote.refs().as_str()), (Some(14), ""));
    assert_nothing_runs(&sandbox);
    // With a grace period, it continues.
    let second = sync.start();
    held.wait_for(2);
    second.terminate();
    held.release();
    second.finish().expect("pushed");
}

#[test]
#[ignore = "long: just test-long"]
fn the_volume_of_an_old_service_is_reported_and_unchanged() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let token = "old-token-PLANTED-3333";
    let data = sandbox.data();
    let config = format!("[remote \"origin\"]\n\turl = https://x:{token}@git.example.com/x.git\n");
    fs::create_dir_all(data.join(".git/refs/heads")).unwrap();
    fs::create_dir_all(data.join(".git/objects")).unwrap();
    fs::create_dir_all(data.join("f/ops")).unwrap();
    for (path, content) in [
        (".git/config", config.as_str()),
        (".git/HEAD", "ref: refs/heads/wm-fork/shop/other\n"),
        (".git/index.lock", ""),
        ("wmill.yaml", "skipScripts: true\nincludeKey: true\nworkspaceId: other\n"),
        ("f/ops/old.py", "old\n"),
    ] {
        fs::write(data.join(path), content).unwrap();
    }
    // The folder above has such files too.
    fs::create_dir_all(sandbox.path().join(".git/refs")).unwrap();
    fs::write(sandbox.path().join(".git/HEAD"), "ref: refs/heads/wm-fork/shop/other\n").unwrap();
    fs::write(sandbox.path().join("wmill.yaml"), "skipScripts: true\n").unwrap();
    let old = || {
        let mut files = files_below(&data);
        files.retain(|path, _| !path.starts_with("windmill-git-sync/"));
        (files, files_below(&data.join(".git")))
    };
    let before = old();
    let pushed = sandbox.sync().remote(&remote).run().expect("pushed");
    let [warning] = &pushed.warnings()[..] else { panic!("{:?}", pushed.warnings()) };
    assert!(warning.contains(&data.display().to_string()) && warning.contains("token"), "{warning}");
    assert_eq!(old(), before);
    assert_eq!(fs::read_to_string(sandbox.path().join("wmill.yaml")).unwrap(), "skipScripts: true\n");
    let defaults = "includeSchedules: true\nincludeTriggers: true\nincludeGroups: true\n";
    assert_same_files(&remote.regular_files("main"), &pulled_alone(&sandbox, defaults));
    let everything = remote.everything();
    assert_nothing_leaked(&[("objects", &everything), pushed.texts()[0], pushed.texts()[1]], &[], &[token]);
}
