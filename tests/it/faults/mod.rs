//! Injected faults. After each one, [`History`] asserts the same: the report is true, no secret was printed, the
//! remote's history has only grown, and the next healthy sync, without manual repair, makes the backup equal to the
//! workspace.
//!
//! Each module declares its scenarios in a list. `table` makes `tests/FAULTS.md` from the lists and from the scenarios
//! that other tests cover, and checks that the file is up to date.

#![expect(clippy::print_stdout, reason = "a test shows its number of points and its resources over time")]

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

/// A row of the table: the fault, where it is injected, what is asserted in addition to what is always asserted, and
/// the test.
pub(crate) struct Scenario {
    pub(crate) fault: &'static str,
    pub(crate) injected: &'static str,
    pub(crate) asserted: &'static str,
    /// The test, as `module::test`.
    pub(crate) test: &'static str,
}

/// The points of a sweep that are tested: `cargo test` takes every seventh, `just test-faults` all.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Points {
    All,
    EverySeventh,
}

impl Points {
    /// Returns true if the point with this number is tested.
    fn include(self, number: usize) -> bool {
        self == Self::All || number % 7 == 3
    }
}

const SECRETS: [&str; 2] = [WINDMILL_TOKEN, GIT_TOKEN];

/// The last known tip of the backup's branch.
pub(crate) struct History<'a> {
    remote: &'a BareRepository,
    branch: &'a str,
    tip: Option<String>,
}

impl<'a> History<'a> {
    pub(crate) fn of(remote: &'a BareRepository, branch: &'a str) -> Self {
        Self { remote, branch, tip: remote.tip(branch) }
    }

    /// Restarts the history at the remote's current tip, after a change by another writer.
    pub(crate) fn begin_again(&mut self) {
        self.tip = self.remote.tip(self.branch);
    }

    /// Asserts that the branch lost no commit since the last call. Returns its tip.
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

    /// Asserts that the report of a sync with this fault is true and contains no secret.
    #[track_caller]
    pub(crate) fn assert_true_report(&mut self, fault: &str, outcome: &Outcome) {
        let before = self.tip.clone();
        let tip = self.assert_grown(fault);
        assert_nothing_leaked(&outcome.texts(), &[], &SECRETS);
        // A killed sync reports nothing, or is killed between its report and its end.
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
                assert_eq!(tip, before, "{fault}: the sync reported a failure, but the remote has changed: {outcome}");
            }
        }
    }

    /// Asserts that the next sync, without the fault, succeeds at once, and that the branch holds exactly these files.
    #[track_caller]
    pub(crate) fn assert_healed(&mut self, fault: &str, sync: &Run<'_>, expected: &Files) -> Outcome {
        let healthy = sync.run();
        assert!(["pushed", "unchanged"].contains(&healthy.code().as_str()), "after {fault}: {healthy}");
        self.assert_true_report(fault, &healthy);
        let files = self.remote.regular_files(self.branch);
        assert_eq!(files.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "after {fault}");
        assert_same_values(&files, expected);
        healthy
    }
}
