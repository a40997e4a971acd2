//! A temporary failure is retried, with growing pauses and not forever. A permanent one is reported at once.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use super::{History, Scenario};
use support::*;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        fault: "one failure: no answer, status 408, 429, 500 or 503, a gateway's error page, a truncated archive",
        injected: "in each request to Windmill, and in the export",
        asserted: "the sync succeeds; its log reports one retry",
        test: "retry::a_single_failure_of_windmill_is_retried",
    },
    Scenario {
        fault: "one failure: no answer, status 429, 500, 502 or 503, a truncated answer, a lost answer to a push",
        injected: "in each request of a fetch and of a push",
        asserted: "the sync succeeds with one retry and makes one commit",
        test: "retry::a_single_failure_of_the_remote_is_retried",
    },
    Scenario {
        fault: "a lasting failure: a refused connection, an unknown host, status 500, 502 or 503",
        injected: "in Windmill, the export, the fetch and the push",
        asserted: "four attempts with growing pauses; the message gives their number",
        test: "retry::a_lasting_failure_is_tried_four_times",
    },
    Scenario {
        fault: "a refusal: status 400, 401, 403 or 404, a page that is not Windmill's, a hook that refuses",
        injected: "in Windmill, the fetch and the push",
        asserted: "one attempt",
        test: "retry::a_refusal_is_not_retried",
    },
    Scenario {
        fault: "each answer to a push is lost",
        injected: "in the remote",
        asserted: "the sync succeeds; the remote has the commit once",
        test: "retry::a_push_is_found_if_each_of_its_answers_was_lost",
    },
    Scenario {
        fault: "a `wmill` that fails once and leaves incomplete files",
        injected: "in place of `wmill`",
        asserted: "the retry succeeds; the commit has none of these files",
        test: "retry::a_retried_pull_starts_in_a_clean_folder",
    },
    Scenario {
        fault: "a SYNC_TIMEOUT that is too short for the next pause",
        injected: "with a Windmill that refuses connections",
        asserted: "no pause is longer than the time left; the error is the failure, not `timeout`",
        test: "retry::no_pause_is_longer_than_the_time_left",
    },
    Scenario {
        fault: "SIGTERM during a pause before a retry",
        injected: "with a Windmill that requests a pause of 30 s",
        asserted: "the service ends without the pause",
        test: "retry::a_signal_ends_a_pause",
    },
    Scenario {
        fault: "status 429 or 503 with `Retry-After`",
        injected: "in Windmill",
        asserted: "the pause is as long as requested; if it is too long, the failure is reported at once",
        test: "retry::retry_after_sets_the_pause",
    },
];

/// Returns the number of retries in the log.
fn retries(outcome: &Outcome) -> usize {
    pauses(outcome).len()
}

/// Returns the pauses before the retries, in milliseconds.
fn pauses(outcome: &Outcome) -> Vec<u64> {
    let announced = outcome.stderr.split("trying again in ").skip(1);
    announced.map(|rest| rest.split(' ').next().unwrap().parse().unwrap()).collect()
}

#[test]
#[ignore = "long: just test-faults"]
fn a_single_failure_of_windmill_is_retried() {
    let sandbox = Sandbox::new();
    let expected = pulled_alone(&sandbox, OUR_DEFAULTS);
    let cases = [
        ("/api/version", Fault::Close),
        ("/api/version", Fault::GatewayPage(502)),
        ("/w/shop/users/whoami", Fault::Status(503)),
        ("/w/shop/users/whoami", Fault::Status(408)),
        ("/workspaces/list_ws_specific", Fault::Status(429)),
        ("/shared_ui/get", Fault::Close),
        ("/workspaces/tarball?archive_type=tar", Fault::Status(500)),
        ("/workspaces/tarball?archive_type=tar", Fault::GatewayPage(503)),
        ("/workspaces/tarball?archive_type=tar", Fault::CutHalfway),
        ("/workspaces/tarball?archive_type=tar", Fault::Close),
    ];
    side_by_side(&cases, |(needle, fault)| {
        let name = format!("{fault:?} once in {needle}");
        let sandbox = Sandbox::new();
        let remote = sandbox.repository();
        let mut history = History::of(&remote, "main");
        sandbox.windmill.fail_once(needle, fault.clone());
        let outcome = history.assert_healed(&name, &sandbox.sync().remote(&remote), &expected);
        assert_eq!((outcome.code().as_str(), retries(&outcome)), ("pushed", 1), "{name}: {outcome}");
    });
}

#[test]
#[ignore = "long: just test-faults"]
fn a_single_failure_of_the_remote_is_retried() {
    let cases = [
        ("service=git-upload-pack", Fault::Close),
        ("service=git-upload-pack", Fault::Status(500)),
        ("/git-upload-pack", Fault::Status(503)),
        ("/git-upload-pack", Fault::CutHalfway),
        ("service=git-receive-pack", Fault::Status(429)),
        ("service=git-receive-pack", Fault::Close),
        ("/git-receive-pack", Fault::GatewayPage(502)),
        ("/git-receive-pack", Fault::Close),
        ("/git-receive-pack", Fault::CutHalfway),
    ];
    side_by_side(&cases, |(needle, fault)| {
        let name = format!("{fault:?} once in {needle}");
        let replay = Replay::new();
        let remote = GitHttp::serve(&replay.remote);
        let mut history = History::of(&replay.remote, "main");
        remote.fail_once(needle, fault.clone());
        let sync = replay.sandbox.sync().remote(&remote);
        let outcome = history.assert_healed(&name, &sync, &replay.expected());
        assert_eq!((outcome.code().as_str(), retries(&outcome)), ("pushed", 1), "{name}: {outcome}");
        assert_eq!(replay.remote.log("main").len(), 2, "{name}: another writer's commit and ours");
    });
}

#[test]
#[ignore = "long: just test-faults"]
fn a_lasting_failure_is_tried_four_times() {
    type Break<'a> = &'a (dyn Fn(&Replay, &GitHttp) + Sync);
    let windmill = |needle: &'static str, fault: Fault| {
        move |replay: &Replay, _: &GitHttp| replay.sandbox.windmill.fail(needle, fault.clone())
    };
    let git =
        |needle: &'static str, fault: Fault| move |_: &Replay, remote: &GitHttp| remote.fail(needle, fault.clone());
    let nothing = |_: &Replay, _: &GitHttp| {};
    type Settings<'a> = &'a [(&'a str, &'a str)];
    let cases: [(Break<'_>, Settings<'_>, &str); 6] = [
        (&nothing, &[("WINDMILL_BASE_URL", "http://127.0.0.1:1")], "windmill_unreachable"),
        (&nothing, &[("GIT_REMOTE_URL", "http://no-such-host.invalid/x.git")], "git_unreachable"),
        (&windmill("/users/whoami", Fault::Status(500)), &[], "windmill_unreachable"),
        (&windmill("/workspaces/tarball", Fault::GatewayPage(502)), &[], "pull_failed"),
        (&git("/git-upload-pack", Fault::Status(500)), &[], "git_unreachable"),
        (&git("/git-receive-pack", Fault::Status(503)), &[], "git_unreachable"),
    ];
    side_by_side(&cases, |(break_it, settings, code)| {
        let replay = Replay::new();
        // The real `wmill` replaces the stand-in.
        fs::remove_file(replay.sandbox.bin().join("wmill")).unwrap();
        let remote = GitHttp::serve(&replay.remote);
        let mut history = History::of(&replay.remote, "main");
        break_it(&replay, &remote);
        let sync = replay.sandbox.sync().remote(&remote);
        let broken = settings.iter().fold(sync.clone(), |sync, (name, value)| sync.env(name, value));
        let begun = Instant::now();
        let outcome = broken.run().expect(code);
        // The pauses are 0.5, 1.5 and 4 seconds, each plus or minus a quarter.
        let time = begun.elapsed();
        let pauses = pauses(&outcome);
        let [first, second, third] = pauses[..] else { panic!("{outcome}") };
        let is_as_documented = (375..=625).contains(&first) && (1125..=1875).contains(&second);
        assert!(is_as_documented && (3000..=5000).contains(&third), "{pauses:?}");
        assert!(time >= Duration::from_millis(first + second + third), "{time:?} for {pauses:?}");
        assert!(outcome.message().ends_with("(tried 4 times)"), "{}", outcome.message());
        assert_eq!(retries(&outcome), 3, "{outcome}");
        history.assert_true_report(code, &outcome);
        remote.heal();
        replay.sandbox.windmill.heal();
        history.assert_healed(code, &sync, &with_readme(pulled_alone(&replay.sandbox, OUR_DEFAULTS)));
    });
}

fn with_readme(mut files: Files) -> Files {
    files.insert("README.md".to_owned(), "stays\n".into());
    files
}

#[test]
#[ignore = "long: just test-faults"]
fn a_refusal_is_not_retried() {
    let replay = Replay::new();
    let remote = GitHttp::serve(&replay.remote);
    let sync = replay.sandbox.sync().remote(&remote);
    let mut history = History::of(&replay.remote, "main");
    let asked = |needle: &str| {
        let windmill = replay.sandbox.windmill.requests().into_iter();
        windmill.chain(remote.requests()).filter(|request| request.target.contains(needle)).count()
    };
    let check = |history: &mut History<'_>, needle: &str, code: &str| {
        replay.sandbox.windmill.forget_requests();
        remote.forget_requests();
        let outcome = sync.run().expect(code);
        assert_eq!(retries(&outcome), 0, "{outcome}");
        assert!(!outcome.message().contains("tried"), "{}", outcome.message());
        assert_eq!(asked(needle), 1, "{needle}");
        history.assert_true_report(code, &outcome);
        remote.heal();
        replay.sandbox.windmill.heal();
    };
    for (status, code) in [(401, "windmill_unauthorized"), (403, "windmill_unauthorized"), (404, "workspace_not_found")]
    {
        replay.sandbox.windmill.fail("/w/shop/users/whoami", Fault::Status(status));
        check(&mut history, "/w/shop/users/whoami", code);
    }
    replay.sandbox.windmill.fail("/w/shop/users/whoami", Fault::GatewayPage(200));
    check(&mut history, "/w/shop/users/whoami", "windmill_unreachable");
    for (needle, status, code) in [
        ("service=git-upload-pack", 403, "git_unauthorized"),
        ("service=git-upload-pack", 404, "git_failed"),
        ("service=git-upload-pack", 400, "git_unreachable"),
        ("service=git-receive-pack", 403, "git_unauthorized"),
        ("POST-receive", 403, "git_unauthorized"),
    ] {
        if needle == "POST-receive" {
            remote.fail("/backup.git/git-receive-pack", Fault::Status(status));
            check(&mut history, "/backup.git/git-receive-pack", code);
        } else {
            remote.fail(needle, Fault::Status(status));
            check(&mut history, needle, code);
        }
    }
    replay.remote.refuse_pushes("branch is protected");
    check(&mut history, "/backup.git/git-receive-pack", "git_rejected");
    replay.remote.accept_pushes();
    history.assert_healed("refusals", &sync, &replay.expected());
}

#[test]
#[ignore = "long: just test-faults"]
fn a_push_is_found_if_each_of_its_answers_was_lost() {
    let replay = Replay::new();
    let remote = GitHttp::serve(&replay.remote);
    remote.fail("/backup.git/git-receive-pack", Fault::CutHalfway);
    let mut history = History::of(&replay.remote, "main");
    let sync = replay.sandbox.sync().remote(&remote);
    let outcome = history.assert_healed("lost answers", &sync, &replay.expected());
    assert_eq!(outcome.code(), "pushed", "{outcome}");
    let pushes = remote.requests().into_iter().filter(|request| request.target.ends_with("/git-receive-pack")).count();
    assert_eq!((pushes, replay.remote.log("main").len()), (1, 2));
}

#[test]
#[ignore = "long: just test-faults"]
fn a_retried_pull_starts_in_a_clean_folder() {
    let replay = Replay::new();
    let mut history = History::of(&replay.remote, "main");
    history.assert_healed("nothing", &replay.sync(), &replay.expected());
    let once = replay.sandbox.path().join("once");
    replay.hold(State::Edited);
    replay.sandbox.program(
        "wmill",
        &format!(
            "{outside}if [ \"$1\" != --version ] && ! [ -e '{once}' ]; then\noutside \"touch '{once}'\"\n\
             mkdir -p f/ops new/deep\n\
             echo debris >f/ops/debris.txt\necho debris >new/deep/debris.py\nrm -f README.md\nln -s /etc link\n\
             echo 'TypeError: fetch failed' >&2\nexit 1\nfi\n{}",
            replay.script(),
            outside = outside::function(),
            once = once.display()
        ),
    );
    let outcome = history.assert_healed("a pull that failed", &replay.sync(), &replay.expected());
    assert_eq!((outcome.code().as_str(), retries(&outcome)), ("pushed", 1), "{outcome}");
}

#[test]
fn no_pause_is_longer_than_the_time_left() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let sync = sandbox.sync().remote(&remote).env("WINDMILL_BASE_URL", "http://127.0.0.1:1");
    // There is no time for the third pause of at least 3 seconds. The sync reports the failure, not the timeout.
    let outcome = sync.env("SYNC_TIMEOUT", "4s").run().expect("windmill_unreachable");
    let pauses = pauses(&outcome);
    assert!(pauses.len() < 3 && pauses.iter().sum::<u64>() < 4_000, "{outcome}");
}

#[test]
fn a_signal_ends_a_pause() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    sandbox.windmill.fail("/w/shop/users/whoami", Fault::Later(503, 30));
    let mut service = sandbox.service().remote(&remote).env("SHUTDOWN_GRACE", "0s").serve();
    let address = service.address();
    let waiting = thread::spawn(move || http::ask(address, "POST", "/sync", &[], b"").unwrap());
    service.wait_for_log("(try 2 of 4)");
    service.terminate();
    let answer = waiting.join().unwrap();
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.text().contains("shutting_down"), "{}", answer.text());
    let asked = sandbox.windmill.requests();
    assert_eq!(asked.iter().filter(|request| request.target.contains("/users/whoami")).count(), 1, "one attempt");
}

#[test]
#[ignore = "long: just test-faults"]
fn retry_after_sets_the_pause() {
    let replay = Replay::new();
    replay.sandbox.windmill.fail_once("/w/shop/users/whoami", Fault::Later(429, 3));
    let mut history = History::of(&replay.remote, "main");
    let begun = Instant::now();
    let outcome = history.assert_healed("429", &replay.sync(), &replay.expected());
    assert_eq!(retries(&outcome), 1, "{outcome}");
    assert!(begun.elapsed() >= Duration::from_secs(3), "{:?}", begun.elapsed());
    // The requested pause is longer than the maximum and than the time left, so the failure is reported at once.
    replay.sandbox.windmill.fail("/w/shop/users/whoami", Fault::Later(503, 100_000));
    let outcome = replay.sync().env("SYNC_TIMEOUT", "20s").run().expect("windmill_unreachable");
    assert_eq!(retries(&outcome), 0, "{outcome}");
}
