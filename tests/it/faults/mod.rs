//! What breaks, broken on purpose. After every fault the same is asserted ([`History`]): what was said was true, no
//! secret was said, the remote's history has only grown, and the next healthy sync, with no hand laid on, makes the
//! backup what the workspace is.
//!
//! Each module declares its scenarios in a list from which `tests/FAULTS.md` is made, and `table` holds that file to
//! them, with the scenarios that the other tests cover.

#![expect(clippy::print_stdout, reason = "how many points there were, and the curves, are part of what a test shows")]

mod as_root;
mod cache;
mod content;
mod endurance;
mod every_seventh;
mod kill;
mod machine;
mod remote;
mod retry;
mod table;
mod tools;

use support::*;

/// A row of the table: what breaks, where it is broken, what is asserted beside what always is, by which test.
pub(crate) struct Scenario {
    pub(crate) fault: &'static str,
    pub(crate) injected: &'static str,
    pub(crate) asserted: &'static str,
    /// `module::test`
    pub(crate) test: &'static str,
}

/// Which points of a sweep are struck: `cargo test` strikes every seventh, `just test-faults` all.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Points {
    All,
    EverySeventh,
}

impl Points {
    /// Whether the point with this number is one of them.
    fn include(self, number: usize) -> bool {
        self == Self::All || number % 7 == 3
    }
}

const SECRETS: [&str; 2] = [WINDMILL_TOKEN, GIT_TOKEN];

/// The tip of the backup's branch as it was each time that somebody looked.
pub(crate) struct History<'a> {
    remote: &'a BareRepository,
    branch: &'a str,
    tip: Option<String>,
}

impl<'a> History<'a> {
    pub(crate) fn of(remote: &'a BareRepository, branch: &'a str) -> Self {
        Self { remote, branch, tip: remote.tip(branch) }
    }

    /// The remote as it is now is where the history begins: somebody else changed it.
    pub(crate) fn begin_again(&mut self) {
        self.tip = self.remote.tip(self.branch);
    }

    /// Nothing was taken from the branch since the last look; the tip now.
    #[track_caller]
    pub(crate) fn assert_grown(&mut self, fault: &str) -> Option<String> {
        let tip = self.remote.tip(self.branch);
        match (&self.tip, &tip) {
            (None, _) => {}
            (Some(before), Some(now)) => {
                assert!(before == now || self.remote.is_ancestor(before, now), "{fault}: {before} is lost from {now}");
            }
            (Some(before), None) => panic!("{fault}: the branch with {before} is gone"),
        }
        self.tip.clone_from(&tip);
        tip
    }

    /// What a sync that the fault struck says is true, and without secrets.
    #[track_caller]
    pub(crate) fn judge(&mut self, fault: &str, outcome: &Outcome) {
        let before = self.tip.clone();
        let tip = self.assert_grown(fault);
        assert_nothing_leaked(&outcome.texts(), &[], &SECRETS);
        // One that is killed says nothing, or dies between its words and its end.
        let is_killed = outcome.signal.is_some();
        if is_killed && outcome.stdout.is_empty() {
            return;
        }
        match outcome.code().as_str() {
            "pushed" => {
                assert_eq!(outcome.commit(), tip, "{fault}: {outcome}");
                assert!(is_killed || outcome.exit_code == Some(0), "{fault}: {outcome}");
            }
            "unchanged" => assert_eq!(outcome.commit(), tip, "{fault}: {outcome}"),
            _ => {
                assert_eq!(outcome.commit(), None, "{fault}: {outcome}");
                assert_ne!(outcome.exit_code, Some(0), "{fault}: {outcome}");
                assert_eq!(tip, before, "{fault}: a failure was told, and the remote has changed: {outcome}");
            }
        }
    }

    /// The next sync, without the fault, succeeds at once, and the branch holds these files and no others.
    #[track_caller]
    pub(crate) fn assert_healed(&mut self, fault: &str, sync: &Run<'_>, expected: &Files) -> Outcome {
        let healthy = sync.run();
        assert!(["pushed", "unchanged"].contains(&healthy.code().as_str()), "after {fault}: {healthy}");
        self.judge(fault, &healthy);
        let files = self.remote.regular_files(self.branch);
        assert_eq!(files.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "after {fault}");
        assert_same_values(&files, expected);
        healthy
    }
}
