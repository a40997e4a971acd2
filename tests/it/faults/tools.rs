//! Faults of `git` and `wmill`: each git command fails in each way, and pulls report a false result.

use std::fs;

use super::{History, Points, Scenario};
use support::*;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        fault: "a git that exits 1 before or after its work, exits 0 without it, is killed, or prints invalid UTF-8",
        injected: "each git command of a sync",
        asserted: "no failure is reported as a success, and no success as a failure",
        test: "tools::each_failure_of_each_git_command_is_survived",
    },
    Scenario {
        fault: "a git that exits 1 before or after its work, exits 0 without it, is killed, or prints invalid UTF-8",
        injected: "`update-index`, `write-tree` and `fast-import`, if the branch has files that `wmill` does not pull",
        asserted: "no wrong tree is pushed; each result is true",
        test: "tools::each_failure_of_git_while_it_builds_a_tree_is_survived",
    },
    Scenario {
        fault: "a git command that hangs, with a child that ignores SIGTERM",
        injected: "`fetch`, `add` and `push`",
        asserted: "`timeout` names the step; no process is left",
        test: "tools::a_git_that_hangs_is_ended_at_the_timeout",
    },
    Scenario {
        fault: "a git command that exits 0, while its child keeps the output open",
        injected: "`ls-remote` and `ls-tree`, with a child outside the process group",
        asserted: "`git_failed`; the incomplete output is not used",
        test: "tools::incomplete_output_of_git_fails_the_sync",
    },
    Scenario {
        fault: "a `git write-tree` that prints the id of another tree",
        injected: "once, and each time",
        asserted: "nothing is pushed; if it happens once, a new checkout repairs it",
        test: "tools::a_tree_that_differs_from_the_pull_is_not_pushed",
    },
    Scenario {
        fault: "a `wmill` that deletes all files and reports success",
        injected: "in place of `wmill`",
        asserted: "`mass_deletion` if there is a backup",
        test: "tools::an_empty_pull_that_reports_success_deletes_nothing",
    },
    Scenario {
        fault: "a `wmill` that is killed by SIGKILL, SIGTERM, SIGSEGV, SIGABRT or SIGBUS",
        injected: "after half of its writes",
        asserted: "`pull_failed` without a retry; the incomplete pull is not committed",
        test: "tools::a_killed_wmill_is_reported_and_not_retried",
    },
    Scenario {
        fault: "a `wmill` that prints a million lines",
        injected: "in place of `wmill`",
        asserted: "the log is bounded, and the sync succeeds",
        test: "tools::a_million_lines_of_output_do_not_fill_the_log",
    },
    Scenario {
        fault: "tools that are missing and installed again; another version of `wmill`",
        injected: "on the `PATH`, between two syncs",
        asserted: "`git_failed` without tools; the next commit names the new version",
        test: "tools::the_next_sync_uses_tools_that_are_installed_again",
    },
];

/// The git commands of a sync after another writer's push.
const VERBS: [&str; 12] = [
    "ls-remote",
    "rev-parse",
    "fetch",
    "ls-tree",
    "read-tree",
    "clean",
    "add",
    "write-tree",
    "commit-tree",
    "push",
    "update-ref",
    "init",
];

const WAYS: [(&str, &str); 6] = [
    ("exits 1 and does nothing", "exit 1"),
    ("exits 0 and does nothing", "exit 0"),
    ("does its work and exits 1", "\"$git\" \"$@\" >/dev/null; exit 1"),
    ("is killed before its work", "kill -9 $$"),
    ("is killed after its work", "\"$git\" \"$@\"; kill -9 $$"),
    ("prints bytes that are no text", "printf 'fatal: \\377\\376\\200 \\033[31m\\n'; printf '\\377\\n' >&2; exit 128"),
];

/// Installs a `git` that runs `way` for this command, and the real git for all others.
pub(super) fn break_git(sandbox: &Sandbox, verb: &str, way: &str) {
    let git = process::find_program("git", &[]).unwrap();
    let script = format!("git='{}'\ncase \" $* \" in *' {verb} '*) {way} ;; esac\nexec \"$git\" \"$@\"", git.display());
    sandbox.program("git", &script);
}

pub(super) fn mend_git(sandbox: &Sandbox) {
    fs::remove_file(sandbox.bin().join("git")).unwrap();
}

#[test]
#[ignore = "long: just test-faults"]
fn each_failure_of_each_git_command_is_survived() {
    check_verbs(Points::All);
}

pub(super) fn check_verbs(which: Points) {
    let replay = Replay::new();
    let mut history = History::of(&replay.remote, "main");
    history.assert_healed("nothing", &replay.sync(), &replay.expected());
    let mut state = State::Seeded;
    let (mut tried, mut failed) = (0, 0);
    for (number, verb) in VERBS.into_iter().enumerate() {
        for (of_verb, (name, way)) in WAYS.into_iter().enumerate() {
            if !which.include(number * WAYS.len() + of_verb) {
                continue;
            }
            if verb == "read-tree" && way == "exit 0" {
                // A sync does not survive this, because only git knows the content of its index.
                continue;
            }
            let fault = format!("`git {verb}` {name}");
            state = state.other();
            replay.hold(state);
            // `fetch` and `rev-parse` run only if there is something to fetch, and `init` only without a checkout.
            if ["fetch", "rev-parse"].contains(&verb) {
                replay.remote.commit_files("main", &[("README.md", &fault)]);
                replay.remote.commit_files("main", &[("README.md", "stays\n")]);
            }
            history.begin_again();
            if verb == "init" {
                fs::remove_dir_all(replay.checkout()).unwrap();
            }
            break_git(&replay.sandbox, verb, way);
            let struck = replay.sync().env("SYNC_TIMEOUT", "60s").run();
            mend_git(&replay.sandbox);
            assert!(struck.signal.is_none(), "{fault}: {struck}");
            tried += 1;
            failed += usize::from(struck.exit_code != Some(0));
            if struck.exit_code != Some(0) && way.contains("does its work") && verb == "push" {
                // The commit is on the remote, although git reported a failure.
                history.begin_again();
            }
            history.assert_true_report(&fault, &struck);
            history.assert_healed(&fault, &replay.sync(), &replay.expected());
        }
    }
    assert!(failed * 10 > tried * 7, "{failed} syncs of {tried} failed");
}

#[test]
#[ignore = "long: just test-faults"]
fn a_git_that_hangs_is_ended_at_the_timeout() {
    let replay = Replay::new();
    let mut history = History::of(&replay.remote, "main");
    history.assert_healed("nothing", &replay.sync(), &replay.expected());
    let mut state = State::Seeded;
    // `git add` belongs to the step `pull`: at its end, the service stages the pulled files.
    for (verb, step) in [("fetch", "fetch"), ("add", "pull"), ("push", "push")] {
        state = state.other();
        replay.hold(state);
        replay.remote.commit_files("main", &[("README.md", verb)]);
        replay.remote.commit_files("main", &[("README.md", "stays\n")]);
        history.begin_again();
        break_git(&replay.sandbox, verb, "trap '' TERM; (trap '' TERM; sleep 1000) & while :; do sleep 0.2; done");
        let struck = replay.sync().time_out_in(step);
        let left: Vec<_> = replay.sandbox.processes();
        assert!(left.is_empty(), "{verb}: {left:?}");
        mend_git(&replay.sandbox);
        history.assert_true_report(verb, &struck);
        history.assert_healed(verb, &replay.sync(), &replay.expected());
    }
}

#[test]
#[ignore = "long: just test-faults"]
fn each_failure_of_git_while_it_builds_a_tree_is_survived() {
    let replay = Replay::new();
    let mut history = History::of(&replay.remote, "main");
    history.assert_healed("nothing", &replay.sync(), &replay.expected());
    // `wmill` does not pull this file, so the branch has more files than the pull.
    let stays = ("wmill.yaml", "defaultTs: bun\n");
    replay.remote.commit_files("main", &[stays]);
    let (mut state, mut failed) = (State::Seeded, 0);
    for verb in ["update-index", "write-tree", "fast-import"] {
        for (name, way) in WAYS {
            let fault = format!("`git {verb}` {name}");
            state = state.other();
            replay.hold(state);
            let mut expected = replay.expected();
            expected.insert(stays.0.to_owned(), stays.1.into());
            history.begin_again();
            break_git(&replay.sandbox, verb, way);
            // `fast-import` makes the trees of single items.
            let struck = replay.sync().env("SYNC_TIMEOUT", "60s").env("COMMIT_PER", "item").run();
            mend_git(&replay.sandbox);
            assert!(struck.signal.is_none(), "{fault}: {struck}");
            failed += usize::from(struck.exit_code != Some(0));
            history.assert_true_report(&fault, &struck);
            history.assert_healed(&fault, &replay.sync(), &expected);
        }
    }
    assert!(failed >= 12, "{failed} syncs failed");
}

#[test]
#[ignore = "long: just test-faults"]
fn incomplete_output_of_git_fails_the_sync() {
    side_by_side(&["ls-remote", "ls-tree"], |verb| {
        let replay = Replay::new();
        let mut history = History::of(&replay.remote, "main");
        history.assert_healed("nothing", &replay.sync(), &replay.expected());
        replay.hold(State::Edited);
        // The program ends after the child has left its group. In the group, the child would be killed with it.
        let left = replay.sandbox.path().join("left");
        let way = format!(
            "rm -f '{0}'; setsid sh -c \": >'{0}'; exec sleep 600\" & until [ -e '{0}' ]; do sleep 0.01; done; exit 0",
            left.display()
        );
        break_git(&replay.sandbox, verb, &way);
        let struck = replay.sync().run().expect("git_failed");
        assert!(struck.message().contains(verb) && struck.message().contains("holds its output open"), "{struck}");
        history.assert_true_report(verb, &struck);
        mend_git(&replay.sandbox);
        history.assert_healed(verb, &replay.sync(), &replay.expected());
    });
}

#[test]
fn a_tree_that_differs_from_the_pull_is_not_pushed() {
    let replay = Replay::new();
    let mut history = History::of(&replay.remote, "main");
    history.assert_healed("nothing", &replay.sync(), &replay.expected());
    let commits = replay.remote.log("main").len();
    // This `git write-tree` prints the id of the tree of the remote's tip.
    let lie = format!(
        "\"$git\" \"$@\" >&2; exec \"$git\" --git-dir='{}' rev-parse main^{{tree}}",
        replay.remote.path().display()
    );
    let once = format!("if mkdir '{}/once' 2>/dev/null; then {lie}; fi", replay.sandbox.scratch("lie").display());
    replay.hold(State::Edited);
    break_git(&replay.sandbox, "write-tree", &lie);
    let refused = replay.sync().run().expect("git_failed");
    assert!(refused.message().contains("git did not stage what wmill pulled"), "{}", refused.message());
    assert_eq!(replay.remote.log("main").len(), commits, "nothing was pushed");
    // After a single wrong id, a new checkout repairs it.
    break_git(&replay.sandbox, "write-tree", &once);
    history.assert_true_report("a tree that is another one", &refused);
    history.assert_healed("a tree that is another one", &replay.sync(), &replay.expected());
    mend_git(&replay.sandbox);
}

#[test]
fn an_empty_pull_that_reports_success_deletes_nothing() {
    let replay = Replay::new();
    let mut history = History::of(&replay.remote, "main");
    let nothing = "rm -rf f u groups wmill-lock.yaml ./*.resource-type.yaml\n\
                   echo 'remote (x) -> local: 1 changes to apply'\necho 'Done! All 1 changes applied locally'";
    replay.sandbox.program("wmill", nothing);
    let first = replay.sync().run().expect("unchanged");
    history.assert_true_report("nothing to back up", &first);
    replay.sandbox.program("wmill", &replay.script());
    history.assert_healed("nothing to back up", &replay.sync(), &replay.expected());
    for _ in 0..2 {
        replay.sandbox.program("wmill", nothing);
        let refused = replay.sync().run().expect("mass_deletion");
        history.assert_true_report("an empty tree", &refused);
        replay.sandbox.program("wmill", &replay.script());
        history.assert_healed("an empty tree", &replay.sync(), &replay.expected());
    }
}

#[test]
#[ignore = "long: just test-faults"]
fn a_killed_wmill_is_reported_and_not_retried() {
    let replay = Replay::new();
    let mut history = History::of(&replay.remote, "main");
    history.assert_healed("nothing", &replay.sync(), &replay.expected());
    let mut state = State::Seeded;
    for signal in ["KILL", "TERM", "SEGV", "ABRT", "BUS"] {
        state = state.other();
        replay.hold(state);
        let pulls = replay.sandbox.path().join(format!("pulls-{signal}"));
        let script = format!(
            "{}[ \"$1\" = --version ] && exit 1\noutside \"echo pull >>'{}'\"\nrm -rf f\nmkdir -p f/ops\n\
             echo half >f/ops/half.py\nkill -{signal} $$",
            outside::function(),
            pulls.display()
        );
        replay.sandbox.program("wmill", &script);
        let struck = replay.sync().run().expect("pull_failed");
        assert!(struck.message().contains("killed by signal"), "{}", struck.message());
        assert_eq!(fs::read_to_string(&pulls).unwrap(), "pull\n", "{signal}");
        history.assert_true_report(signal, &struck);
        replay.sandbox.program("wmill", &replay.script());
        history.assert_healed(signal, &replay.sync(), &replay.expected());
    }
}

#[test]
#[ignore = "long: just test-faults"]
fn a_million_lines_of_output_do_not_fill_the_log() {
    let replay = Replay::new();
    let mut history = History::of(&replay.remote, "main");
    let flood = format!("[ \"$1\" = --version ] || yes 'a line of some length' | head -n 1000000\n{}", replay.script());
    replay.sandbox.program("wmill", &flood);
    let outcome = history.assert_healed("a flood", &replay.sync().env("LOG_LEVEL", "debug"), &replay.expected());
    assert_eq!(outcome.code(), "pushed");
    assert!(outcome.stderr.len() < 2_000_000, "{} bytes of log", outcome.stderr.len());
    assert!(outcome.stderr.contains("more than 5000 lines"), "the log says that it omits the rest");
}

#[test]
#[ignore = "long: just test-faults"]
fn the_next_sync_uses_tools_that_are_installed_again() {
    let replay = Replay::new();
    let mut history = History::of(&replay.remote, "main");
    let nothing = replay.sandbox.scratch("nothing").display().to_string();
    let version_in_commit = || {
        let message = replay.remote.log("main")[0].message.clone();
        message.lines().find_map(|line| line.strip_prefix("Wmill-Version: ")).unwrap().to_owned()
    };
    for (state, version) in [(State::Seeded, &*wmill::version()), (State::Edited, "2.0.0"), (State::Seeded, "2.0.10")] {
        let missing = replay.sync().env("PATH", &nothing).run().expect("git_failed");
        history.assert_true_report("no tools", &missing);
        replay.sandbox.program("wmill", &replay.script().replace(&wmill::version(), version));
        replay.hold(state);
        history.assert_healed("no tools", &replay.sync(), &replay.expected());
        assert_eq!(version_in_commit(), version);
    }
}
