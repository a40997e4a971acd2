//! A sync: lock, fetch, read Windmill, pull, compare, guard, commit, push, confirm.
//!
//! This file decides the order of the steps and the reaction to each outcome. [`SyncSteps`] are the steps; the tests
//! script them.

pub mod commit;
pub mod guards;
pub mod last_sync;
pub mod merge;
pub mod pull;
pub mod push;
pub mod steps;
pub mod tip;

pub use last_sync::{LastSync, Now};
pub use merge::Pulled;
pub use pull::Pull;
use steps::{LiveSteps, SyncSteps};
pub use tip::RemoteTip;

use std::ops::ControlFlow;

use crate::backup::{Env, RunContext, Step};
use crate::git::{self, Mark, ObjectId, Pushed, TreeDiff};
use crate::model::{BackupError, Changed, Code, LeftOut, Result, SyncResult, Warnings};
use crate::request::SyncRequest;
use crate::util::Retry;
use crate::windmill::item_path;

/// How often a sync starts over when another writer was first. A branch that moves five times within five pulls
/// does not become quiet soon.
const ATTEMPTS_MAX: u32 = 5;
/// How often a sync starts over because the remote refuses files. One refusal names many files.
const REFUSALS_MAX: u32 = 10;
/// How many items a message names. The rest is counted, and listed in the result.
const NAMED_MAX: usize = 3;
/// How many paths the message of a dry run lists. The rest is counted.
const LISTED_IN_MESSAGE_MAX: usize = 50;

/// Runs one sync and returns its result. It never panics on input from others, and a failure always has its reason.
pub fn run(request: &SyncRequest, env: &Env<'_>, run_id: &str) -> SyncResult {
    let run = RunContext { request, env };
    result_of(run, run_id, |warnings| {
        let run_env = run.enter()?;
        let ended = LiveSteps::start(&run, &run_env, warnings).and_then(|start| run_from(run, start, warnings));
        match &ended {
            Ok(_) => run.remove_unused_checkouts(),
            // A new checkout did not help. The checkout may fill the disk, which other backups share.
            Err(error) if error.retry == Retry::NewCheckout => run.discard_checkout(),
            Err(_) => {}
        }
        ended
    })
}

/// Runs the steps of a sync, and completes their result.
fn result_of(
    run: RunContext<'_>,
    run_id: &str,
    run_steps: impl FnOnce(&mut Warnings) -> Result<SyncResult>,
) -> SyncResult {
    let SyncRequest { workspace, remote, branch, .. } = run.request;
    run.report(run_id, format_args!("syncing workspace {workspace} to {remote} (branch {branch})"), |warnings| {
        guards::refuse_the_key(run.env.config)?;
        run_steps(warnings)
    })
}

/// Runs the sync from its start to its outcome.
fn run_from<W: SyncSteps>(
    run: RunContext<'_>,
    start: ControlFlow<SyncResult, W>,
    warnings: &mut Warnings,
) -> Result<SyncResult> {
    let outcome = match start {
        ControlFlow::Break(unchanged) => unchanged,
        ControlFlow::Continue(steps) => SyncRun { run, steps, warnings }.run()?,
    };
    Ok(with_left_out(run, outcome))
}

struct SyncRun<'a, W> {
    run: RunContext<'a>,
    steps: W,
    warnings: &'a mut Warnings,
}

impl<W: SyncSteps> SyncRun<'_, W> {
    fn run(&mut self) -> Result<SyncResult> {
        let (mut rejections, mut refusals, mut is_new) = (0, 0, false);
        loop {
            match self.attempt() {
                Ok((Pushed::Accepted, outcome)) => return Ok(outcome),
                Ok((Pushed::Refused(why), _)) => {
                    let paths = git::refused_paths(&why);
                    refusals += 1;
                    if paths.is_empty() || refusals > REFUSALS_MAX || !self.steps.leave_out(&paths, refusals) {
                        return Err(push::refused(self.run, &why));
                    }
                }
                Ok((Pushed::Outrun(why), _)) => {
                    rejections += 1;
                    self.start_over(rejections, &why)?;
                }
                // A fetch does not find this damage: for example, a half-written object that git treats as present.
                Err(damage) if damage.retry == Retry::NewCheckout && !is_new => {
                    log::warn!("starting over in a new checkout: {}", damage.message);
                    is_new = true;
                    self.refresh(true)?;
                }
                Err(fault) => return Err(fault),
            }
        }
    }

    /// Prepares a round on the new tip, or fails after too many rejections.
    fn start_over(&mut self, rejections: u32, why: &str) -> Result<()> {
        if rejections == ATTEMPTS_MAX {
            let SyncRequest { remote, branch, .. } = self.run.request;
            let message = format!(
                "cannot push to {remote} (branch `{branch}`): other writers were first {ATTEMPTS_MAX} times in a row \
                 ({why})"
            );
            return Err(BackupError::new(Code::GitRejected, message));
        }
        log::info!("starting over on the new tip (rejection {rejections} of {ATTEMPTS_MAX}): {why}");
        let tip = self.steps.tip().commit.clone();
        self.refresh(false)?;
        if rejections > 1 && self.steps.tip().commit == tip {
            // The tip is the same, so the server refuses the push itself. A single rejection may come from a server
            // that lagged behind.
            return Err(push::refused(self.run, why));
        }
        Ok(())
    }

    fn refresh(&mut self, in_new_checkout: bool) -> Result<()> {
        self.run.step(Step::Fetch, || self.steps.refresh(in_new_checkout))
    }

    /// Runs one round, from the pull to the push. The outcome is that of the sync if the push was accepted, or if there
    /// was nothing to push.
    fn attempt(&mut self) -> Result<(Pushed, SyncResult)> {
        let run = self.run;
        let SyncRequest { workspace, remote, branch, flags, .. } = run.request;
        self.steps.tip().plan.warnings.iter().for_each(|warning| self.warnings.add(warning.clone()));
        run.step(Step::Pull, || self.steps.pull(self.warnings))?;
        let (comparison, new) = run.step(Step::Commit, || self.prepare())?;
        let pushed = match &new {
            Some(commit) => run.step(Step::Push, || self.steps.push(commit))?,
            None => Pushed::Accepted,
        };
        let (changed, is_new) = (comparison.changed, new.is_some());
        let commit = new.or_else(|| self.steps.tip().commit.clone());
        if let (Pushed::Accepted, false, Some(commit)) = (&pushed, flags.dry_run, &commit) {
            self.steps.remember(commit, self.warnings);
        }
        let left_out = self.steps.left_out();
        let outcome = if is_new {
            let message = format!("Successfully synced workspace '{workspace}' to Git");
            let commit = commit.map(|commit| commit.to_string());
            SyncResult { code: Code::Pushed, message, commit, changed, left_out, ..SyncResult::default() }
        } else if changed == Changed::default() {
            unchanged(run, commit, left_out)
        } else {
            let listed = comparison.summary(LISTED_IN_MESSAGE_MAX)?;
            let message = format!("Would commit to {remote} (branch {branch}): {listed}");
            SyncResult { code: Code::DryRun, message, changed, left_out, ..SyncResult::default() }
        };
        Ok((pushed, outcome))
    }

    /// Merges the pulled files with the repository's. Commits the result if it differs, and this is not a dry run.
    fn prepare(&mut self) -> Result<(TreeDiff, Option<ObjectId>)> {
        let comparison = self.steps.compose(self.warnings)?;
        self.steps.guard(&comparison)?;
        if self.steps.is_first() {
            let removed = guards::changed_files(&comparison, |mark, path| {
                mark == Mark::Deleted && item_path::is_script_file_under_windmill(path)
            })?;
            if !removed.is_empty() {
                self.warnings.add(format!(
                    "this first sync removes files that Windmill does not have (they stay in the history): {removed}"
                ));
            }
        }
        let is_committed = comparison.changed != Changed::default() && !self.run.request.flags.dry_run;
        let commit = if is_committed { Some(self.steps.commit(&comparison, self.warnings)?) } else { None };
        Ok((comparison, commit))
    }
}

fn unchanged(run: RunContext<'_>, tip: Option<ObjectId>, left_out: Vec<LeftOut>) -> SyncResult {
    let message = format!("Workspace '{}' has not changed since the last commit", run.request.workspace);
    let commit = tip.map(|tip| tip.to_string());
    SyncResult { code: Code::Unchanged, message, commit, left_out, ..SyncResult::default() }
}

/// Adds the items that were left out to the code and the message. A dry run only lists them.
fn with_left_out(run: RunContext<'_>, outcome: SyncResult) -> SyncResult {
    if outcome.left_out.is_empty() {
        return outcome;
    }
    let (missing, done) = (in_words(&outcome.left_out), &outcome.message);
    let (code, message) = if run.request.flags.dry_run {
        (Code::DryRun, format!("{done}; what cannot be backed up: {missing}"))
    } else {
        (Code::Incomplete, format!("{done}, except for what cannot be backed up: {missing}"))
    };
    SyncResult { code, message, ..outcome }
}

/// Names the first items with their reasons, and counts the rest.
pub fn in_words(left_out: &[LeftOut]) -> String {
    let named = left_out.iter().take(NAMED_MAX).map(|LeftOut { item, reason }| format!("{item} ({reason})"));
    let more = left_out.len().saturating_sub(NAMED_MAX);
    let more = (more > 0).then(|| format!("and {more} more"));
    named.chain(more).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::backup::sync::tip;
    use crate::backup::{Event, RemoteTip};
    use crate::config::{Config, Environment, Options, Required};
    use crate::git::{Entry, Listing};
    use crate::request::{Draft, Flags};
    use crate::util::{CancelToken, RunDir, Sample};
    use crate::windmill::wmill_yaml;

    const SETTINGS: &[(&str, &str)] = &[
        ("WINDMILL_TOKEN", "hunter2"),
        ("WINDMILL_WORKSPACE", "shop"),
        ("GIT_REMOTE_URL", "https://git.example/shop.git"),
        ("GIT_TOKEN", "hunter3"),
    ];
    const PUSHED: &str = "Successfully synced workspace 'shop' to Git";
    const UNCHANGED: &str = "Workspace 'shop' has not changed since the last commit";
    /// The calls of a refresh, and of one in a new checkout.
    const AGAIN: &str = "fetch( refresh )";
    const RENEW: &str = "fetch( discard refresh )";
    const CHANGES: &[(Mark, &str)] = &[(Mark::Added, "f/a.py"), (Mark::Modified, "f/b.py"), (Mark::Deleted, "f/c.py")];
    const CHANGED: Changed = Changed { added: 1, modified: 1, deleted: 1 };

    /// Returns the digit of a round's commit: the commits of a scene have the ids `aaa…`, `bbb…` and so on.
    fn commit_of(round: usize) -> &'static str {
        &"abcdef"[round - 1..round]
    }

    /// Returns the id that consists of this digit.
    fn id(digit: &str) -> ObjectId {
        ObjectId::parse(&digit.repeat(40)).expect("40 digits")
    }

    fn digit(id: &ObjectId) -> &str {
        &id.as_str()[..1]
    }

    /// Returns all calls of a round on this tip, up to the push.
    fn round(number: usize, tip: &str) -> String {
        let commit = commit_of(number);
        format!("pull( pull:{tip} ) commit( compose guard commit:{tip} ) push( push:{commit} )")
    }

    /// Returns the calls of such a round up to `last`, which fails.
    fn round_until(last: &str, number: usize, tip: &str) -> String {
        let round = round(number, tip);
        let end = round.find(last).expect("the call is in the round") + last.len();
        let end = end + round[end..].find(' ').expect("the call is not the last");
        round[..end].to_owned()
    }

    /// Returns the call that saves a success with the commit of this round.
    fn remember(round: usize) -> String {
        format!("remember:{}", commit_of(round))
    }

    fn fault(retry: Retry) -> BackupError {
        BackupError { code: Code::GitFailed, message: "it broke".to_owned(), retry }
    }

    fn rejected(why: &str) -> Pushed {
        Pushed::Outrun(why.to_owned())
    }

    fn ended(code: Code, message: &str) -> SyncResult {
        SyncResult::bare(code, message.to_owned(), "r1".to_owned(), "shop".to_owned(), "main".to_owned())
    }

    /// Returns the start of a sync that finds nothing changed since this tip.
    fn unchanged_since<T>(digit: &str, left_out: &[LeftOut]) -> ControlFlow<SyncResult, T> {
        let (message, commit, left_out) = (UNCHANGED.to_owned(), Some(id(digit).to_string()), left_out.to_vec());
        ControlFlow::Break(SyncResult { code: Code::Unchanged, message, commit, left_out, ..SyncResult::default() })
    }

    /// Returns the result of a sync with the commit of this round.
    fn pushed(round: usize) -> SyncResult {
        let commit = Some(commit_of(round).repeat(40));
        SyncResult { commit, changed: CHANGED, ..ended(Code::Pushed, PUSHED) }
    }

    /// What the scripted steps answer. By default, everything succeeds.
    struct Scene {
        config: Config,
        flags: Flags,
        /// The tip of the branch at each request; the last one is repeated.
        bases: VecDeque<RemoteTip>,
        is_first: bool,
        changes: Vec<(Mark, String)>,
        /// A warning that composing gives.
        warning: Option<&'static str>,
        /// The items that the pull leaves out.
        left_out: Vec<LeftOut>,
        /// Why the first pushes fail.
        not_pushed: VecDeque<Pushed>,
        /// The calls that fail, once each: from which round on, which call, and with which error.
        faults: Vec<(usize, &'static str, BackupError)>,
    }

    impl Scene {
        fn new() -> Self {
            Self::with(&[])
        }

        fn with(settings: &[(&str, &str)]) -> Self {
            let variables = SETTINGS.iter().chain(settings).map(|(name, value)| (name.into(), value.into()));
            let config = Config::new(&Options::default(), &Environment::new(variables), Required::Sync);
            let scene = Self {
                config: config.expect("settings that will do"),
                flags: Flags::default(),
                bases: VecDeque::new(),
                is_first: false,
                changes: CHANGES.iter().map(|(mark, path)| (*mark, (*path).to_owned())).collect(),
                warning: None,
                left_out: Vec::new(),
                not_pushed: VecDeque::new(),
                faults: Vec::new(),
            };
            scene.tips("1")
        }

        /// Sets the branch's tips, one digit for each request; `-` if the branch does not exist.
        fn tips(mut self, tips: &str) -> Self {
            let plan = wmill_yaml::read(None, &tip::asked_kinds(&self.config));
            let tip = |tip: char| RemoteTip {
                commit: (tip != '-').then(|| id(&tip.to_string())),
                tree: None,
                visible_tree: None,
                folder: Listing::at("none".into()),
                invalid_entries: Sample::default(),
                path_conflict: None,
                plan: plan.clone(),
                workspace: self.config.workspaces.single().expect("one workspace").clone(),
            };
            self.bases = tips.chars().map(tip).collect();
            self
        }

        fn not_pushed<const N: usize>(mut self, not_pushed: [Pushed; N]) -> Self {
            self.not_pushed = not_pushed.into();
            self
        }

        fn fault(self, call: &'static str, fault: BackupError) -> Self {
            self.fault_in(1, call, fault)
        }

        fn fault_in(mut self, round: usize, call: &'static str, fault: BackupError) -> Self {
            self.faults.push((round, call, fault));
            self
        }

        fn unchanged(mut self) -> Self {
            self.changes.clear();
            self
        }

        fn dry_run(mut self) -> Self {
            self.flags.dry_run = true;
            self
        }

        /// Runs a sync that begins with `start`.
        fn play_from(
            mut self,
            start: impl FnOnce(ScriptedSteps<'_>) -> Result<ControlFlow<SyncResult, ScriptedSteps<'_>>>,
        ) -> Played {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let name = format!("sync-{}", COUNT.fetch_add(1, Ordering::Relaxed));
            let config = self.config.clone();
            let workspace = config.workspaces.single().expect("one workspace");
            let request = Draft::from_config(&config, self.flags).request(workspace).expect("a request");
            let calls = Calls::default();
            let progress = |event| match event {
                Event::Started(step) => calls.note(format!("{}(", step.as_str())),
                Event::Ended(..) => calls.note(")"),
                Event::Waits => calls.note("waits"),
            };
            let cancel = CancelToken::default();
            let env = Env {
                config: &config,
                cancel: &cancel,
                progress: &progress,
                last_token_user: &|_, _| None,
                notes: Mutex::default(),
            };
            let steps = ScriptedSteps {
                tip: self.bases.pop_front().expect("a tip to begin with"),
                scene: self,
                pulls: 0,
                run_dir: RunDir::for_test(&name).expect("a folder"),
                calls: &calls,
            };
            let run = RunContext { request: &request, env: &env };
            let mut result = result_of(run, "r1", |warnings| run_from(run, start(steps)?, warnings));
            result.duration_ms = 0;
            let remembered = calls.remembered.into_inner().expect("whole");
            Played { calls: calls.words.into_inner().expect("whole").join(" "), remembered, result }
        }

        fn play(self) -> Played {
            self.play_from(|steps| Ok(ControlFlow::Continue(steps)))
        }
    }

    /// The calls of a sync, and its result.
    struct Played {
        calls: String,
        /// The warnings that were saved with a success.
        remembered: Vec<String>,
        result: SyncResult,
    }

    impl Played {
        /// Checks the calls and the result, and returns the warnings that were saved with a success.
        #[track_caller]
        fn check(self, calls: &[&str], result: SyncResult) -> Vec<String> {
            assert_eq!((self.calls, self.result), (calls.join(" "), result));
            self.remembered
        }
    }

    /// All calls to the steps, in order. A step is a bracket around its calls. A step that fails leaves its bracket
    /// open.
    #[derive(Default)]
    struct Calls {
        words: Mutex<Vec<String>>,
        remembered: Mutex<Vec<String>>,
    }

    impl Calls {
        fn note(&self, word: impl Into<String>) {
            self.words.lock().expect("whole").push(word.into());
        }
    }

    /// Steps that return what their scene defines.
    struct ScriptedSteps<'a> {
        scene: Scene,
        tip: RemoteTip,
        pulls: usize,
        run_dir: RunDir,
        calls: &'a Calls,
    }

    impl ScriptedSteps<'_> {
        fn call(&mut self, verb: &str, tip: Option<&str>) -> Result<()> {
            self.calls.note(tip.map_or(verb.to_owned(), |tip| format!("{verb}:{tip}")));
            match self.scene.faults.iter().position(|(from, fails, _)| *from <= self.pulls && *fails == verb) {
                Some(at) => Err(self.scene.faults.remove(at).2),
                None => Ok(()),
            }
        }

        /// Returns the tip as one letter.
        fn tip(&self) -> String {
            self.tip.commit.as_ref().map_or("-", digit).to_owned()
        }
    }

    impl SyncSteps for ScriptedSteps<'_> {
        fn left_out(&self) -> Vec<LeftOut> {
            self.scene.left_out.clone()
        }

        fn leave_out(&mut self, paths: &[String], _: u32) -> bool {
            self.calls.note(format!("leave_out:{}", paths.join(",")));
            let is_new = self.scene.left_out.iter().all(|item| !paths.contains(&item.item));
            let refused = paths.iter().map(|path| LeftOut { item: path.clone(), reason: "refused".to_owned() });
            self.scene.left_out.extend(refused);
            is_new
        }

        fn tip(&self) -> &RemoteTip {
            &self.tip
        }

        fn is_first(&self) -> bool {
            self.scene.is_first
        }

        fn pull(&mut self, _: &mut Warnings) -> Result<()> {
            self.pulls += 1;
            self.call("pull", Some(&self.tip()))
        }

        /// Returns the changes of the scene.
        fn compose(&mut self, warnings: &mut Warnings) -> Result<TreeDiff> {
            self.call("compose", None)?;
            self.scene.warning.into_iter().for_each(|warning| warnings.add(warning.to_owned()));
            let listing = |name: &str, absent, digit| {
                let entry = Entry { mode: 0o100_644, object: id(digit) };
                let listed = self.scene.changes.iter().filter(|(mark, _)| *mark != absent);
                let entries = listed.map(|(_, path)| Ok((path.as_bytes().to_vec(), entry.clone())));
                Listing::write(self.run_dir.path().join(name), entries).expect("a folder to write to")
            };
            let comparison = TreeDiff::of(listing("before", Mark::Added, "1"), listing("after", Mark::Deleted, "2"));
            Ok(comparison.expect("a folder to write to"))
        }

        fn guard(&mut self, _: &TreeDiff) -> Result<()> {
            self.call("guard", None)
        }

        fn commit(&mut self, _: &TreeDiff, _: &mut Warnings) -> Result<ObjectId> {
            self.call("commit", Some(&self.tip()))?;
            Ok(id(commit_of(self.pulls)))
        }

        fn push(&mut self, commit: &ObjectId) -> Result<Pushed> {
            self.call("push", Some(digit(commit)))?;
            Ok(self.scene.not_pushed.pop_front().unwrap_or(Pushed::Accepted))
        }

        fn remember(&mut self, commit: &ObjectId, warnings: &Warnings) {
            self.calls.note(format!("remember:{}", digit(commit)));
            *self.calls.remembered.lock().expect("whole") = warnings.list().to_vec();
        }

        fn refresh(&mut self, in_new_checkout: bool) -> Result<()> {
            if in_new_checkout {
                self.call("discard", None)?;
            }
            self.call("refresh", None)?;
            if let Some(tip) = self.scene.bases.pop_front() {
                self.tip = tip;
            }
            Ok(())
        }
    }

    #[test]
    fn a_sync_pulls_composes_guards_commits_pushes_and_remembers() {
        Scene::new().play().check(
            &["pull( pull:1 ) commit( compose guard commit:1 ) push( push:a ) remember:a"],
            SyncResult {
                code: Code::Pushed,
                message: PUSHED.to_owned(),
                run_id: "r1".to_owned(),
                workspace: "shop".to_owned(),
                branch: "main".to_owned(),
                commit: Some("a".repeat(40)),
                changed: CHANGED,
                warnings: Vec::new(),
                left_out: Vec::new(),
                items: None,
                token_user: None,
                duration_ms: 0,
                differences: None,
                restore_point: None,
            },
        );
    }

    #[test]
    fn files_that_the_remote_refuses_are_left_out_and_the_others_are_pushed() {
        let refusal = |path: &str| Pushed::Refused(format!("error: File {path} is 1 MB; this exceeds\nGH001"));
        let played = Scene::new().not_pushed([refusal("f/a"), refusal("f/b")]).play();
        let calls = [&round(1, "1"), "leave_out:f/a", &round(2, "1"), "leave_out:f/b", &round(3, "1"), &remember(3)];
        assert_eq!(played.calls, calls.join(" "));
        assert_eq!((played.result.code, played.result.left_out.len()), (Code::Incomplete, 2));
        // The second refusal names an item that is already left out.
        let refused = Scene::new().not_pushed([refusal("f/a"), refusal("f/a")]).play().result;
        assert_eq!(refused.code, Code::GitRejected);
        assert!(refused.message.ends_with("GH001"), "{}", refused.message);
        let refused = Scene::new().not_pushed([Pushed::Refused("protected".to_owned())]).play();
        let message = "https://git.example/shop.git (branch `main`) refuses the push: protected";
        refused.check(&[&round(1, "1")], ended(Code::GitRejected, message));
    }

    #[test]
    fn a_sync_that_leaves_items_out_is_saved_and_incomplete() {
        let item = |number| LeftOut { item: format!("script f/{number}"), reason: "why".to_owned() };
        let left_out: Vec<_> = (1..=4).map(item).collect();
        let missing = "script f/1 (why), script f/2 (why), script f/3 (why), and 1 more";
        let incomplete = |message: &str| SyncResult {
            code: Code::Incomplete,
            message: format!("{message}, except for what cannot be backed up: {missing}"),
            left_out: left_out.clone(),
            ..pushed(1)
        };
        let scene = || Scene { left_out: left_out.clone(), ..Scene::new() };
        scene().play().check(&[&round(1, "1"), &remember(1)], incomplete(PUSHED));
        let nothing_new =
            SyncResult { commit: Some("1".repeat(40)), changed: Changed::default(), ..incomplete(UNCHANGED) };
        let calls = "pull( pull:1 ) commit( compose guard ) remember:1";
        scene().unchanged().play().check(&[calls], nothing_new.clone());
        let played = scene().play_from(|_| Ok(unchanged_since("1", &left_out)));
        played.check(&[], nothing_new);
        let shown = scene().dry_run().play().result;
        assert_eq!((shown.code, shown.left_out.len()), (Code::DryRun, 4));
        assert!(shown.message.ends_with(&format!("; what cannot be backed up: {missing}")), "{}", shown.message);
        // The original error is reported.
        let failed = scene().fault("guard", fault(Retry::Never)).play().result;
        assert_eq!((failed.code, failed.left_out), (Code::GitFailed, Vec::new()));
    }

    #[test]
    fn no_step_runs_if_nothing_changed() {
        let played = Scene::new().play_from(|_| Ok(unchanged_since("7", &[])));
        played.check(&[], SyncResult { commit: Some("7".repeat(40)), ..ended(Code::Unchanged, UNCHANGED) });
    }

    #[test]
    fn a_pull_without_changes_is_saved_and_not_committed() {
        let result = SyncResult { commit: Some("1".repeat(40)), ..ended(Code::Unchanged, UNCHANGED) };
        let calls = "pull( pull:1 ) commit( compose guard ) remember:1";
        Scene::new().unchanged().play().check(&[calls], result);
        // An empty workspace has nothing to commit, so there is no branch.
        let calls = "pull( pull:- ) commit( compose guard )";
        Scene::new().tips("-").unchanged().play().check(&[calls], ended(Code::Unchanged, UNCHANGED));
    }

    #[test]
    fn a_commit_is_made_if_the_branch_does_not_exist() {
        Scene::new().tips("-").play().check(&[&round(1, "-"), &remember(1)], pushed(1));
    }

    #[test]
    fn a_dry_run_does_not_commit_push_or_save() {
        let calls = "pull( pull:1 ) commit( compose guard )";
        let message = "Would commit to https://git.example/shop.git (branch main): 1 added, 1 modified, 1 deleted\n\n\
                       A f/a.py\nM f/b.py\nD f/c.py";
        let shown = SyncResult { changed: CHANGED, ..ended(Code::DryRun, message) };
        Scene::new().dry_run().play().check(&[calls], shown);
        let unchanged = SyncResult { commit: Some("1".repeat(40)), ..ended(Code::Unchanged, UNCHANGED) };
        Scene::new().dry_run().unchanged().play().check(&[calls], unchanged);
    }

    #[test]
    fn a_dry_run_lists_fifty_files_and_counts_the_others() {
        let changes = (10..62).map(|number| (Mark::Added, format!("f/{number}.py"))).collect();
        let played = Scene { changes, ..Scene::new() }.dry_run().play();
        assert!(played.result.message.ends_with("\nA f/59.py\n... and 2 more"), "{}", played.result.message);
    }

    #[test]
    fn a_guard_refuses_before_the_commit() {
        let refusal = || BackupError::new(Code::MassDeletion, "too many");
        for scene in [Scene::new(), Scene::new().unchanged(), Scene::new().dry_run()] {
            let played = scene.fault("guard", refusal()).play();
            played.check(&["pull( pull:1 ) commit( compose guard"], ended(Code::MassDeletion, "too many"));
        }
    }

    #[test]
    fn the_encryption_key_is_refused_before_the_pull() {
        let played = Scene::with(&[("WMILL_INCLUDE", "key")]).play();
        assert_eq!(
            (played.calls.as_str(), played.result.code),
            ("", Code::PlaintextSecrets),
            "{}",
            played.result.message
        );
        let played = Scene::with(&[("WMILL_INCLUDE", "key"), ("ALLOW_PLAINTEXT_SECRETS", "true")]).play();
        played.check(&[&round(1, "1"), &remember(1)], pushed(1));
    }

    #[test]
    fn a_rejected_push_starts_over_on_the_new_tip() {
        let played = Scene::new().tips("12").not_pushed([rejected("stale")]).play();
        played.check(&[&round(1, "1"), AGAIN, &round(2, "2"), &remember(2)], pushed(2));
    }

    #[test]
    fn two_rejections_on_the_same_tip_are_a_refusal() {
        let message = "https://git.example/shop.git (branch `main`) refuses the push: protected";
        let refused = || ended(Code::GitRejected, message);
        let played = Scene::new().not_pushed([rejected("stale"), rejected("protected")]).play();
        played.check(&[&round(1, "1"), AGAIN, &round(2, "1"), AGAIN], refused());
        let played = Scene::new().tips("12").not_pushed([rejected("stale"), rejected("protected")]).play();
        played.check(&[&round(1, "1"), AGAIN, &round(2, "2"), AGAIN], refused());
        let played =
            Scene::new().tips("123").not_pushed([rejected("stale"), rejected("stale"), rejected("protected")]).play();
        played.check(&[&round(1, "1"), AGAIN, &round(2, "2"), AGAIN, &round(3, "3"), AGAIN], refused());
        let played = Scene::new().tips("-").not_pushed([rejected("stale"), rejected("protected")]).play();
        played.check(&[&round(1, "-"), AGAIN, &round(2, "-"), AGAIN], refused());
        // The server may have been behind, so one rejection is not enough.
        let played = Scene::new().not_pushed([rejected("stale")]).play();
        played.check(&[&round(1, "1"), AGAIN, &round(2, "1"), &remember(2)], pushed(2));
        // If the tip has moved meanwhile, another writer was first.
        let played = Scene::new().tips("123").not_pushed([rejected("stale"), rejected("stale")]).play();
        played.check(&[&round(1, "1"), AGAIN, &round(2, "2"), AGAIN, &round(3, "3"), &remember(3)], pushed(3));
    }

    #[test]
    fn the_fifth_round_is_the_last() {
        let stale = || rejected("stale");
        let four = [1, 2, 3, 4].map(|number| format!("{} {AGAIN}", round(number, &number.to_string()))).join(" ");
        let played = Scene::new().tips("12345").not_pushed([stale(), stale(), stale(), stale()]).play();
        played.check(&[&four, &round(5, "5"), &remember(5)], pushed(5));
        let last = rejected("stale again");
        let played = Scene::new().tips("123456").not_pushed([stale(), stale(), stale(), stale(), last]).play();
        let message = "cannot push to https://git.example/shop.git (branch `main`): other writers were first 5 times in \
                       a row (stale again)";
        played.check(&[&four, &round(5, "5")], ended(Code::GitRejected, message));
    }

    #[test]
    fn a_sync_succeeds_only_if_its_commit_was_seen_on_the_branch() {
        let played = Scene::new().fault("push", fault(Retry::Never)).play();
        played.check(&[&round_until("push:", 1, "1")], ended(Code::GitFailed, "it broke"));
        let played = Scene::new().not_pushed([rejected("stale")]).fault("refresh", fault(Retry::Never)).play();
        played.check(&[&round(1, "1"), "fetch( refresh"], ended(Code::GitFailed, "it broke"));
    }

    #[test]
    fn damage_in_any_step_leads_to_one_new_checkout() {
        for (verb, calls) in [("pull", "pull:"), ("compose", "compose"), ("commit", "commit:"), ("push", "push:")] {
            let (first, second) = (round_until(calls, 1, "1"), round_until(calls, 2, "1"));
            let played = Scene::new().fault(verb, fault(Retry::NewCheckout)).play();
            played.check(&[&first, RENEW, &round(2, "1"), &remember(2)], pushed(2));
            let played = Scene::new().fault(verb, fault(Retry::NewCheckout)).fault(verb, fault(Retry::NewCheckout));
            played.play().check(&[&first, RENEW, &second], ended(Code::GitFailed, "it broke"));
            for retry in [Retry::Never, Retry::AfterPause(None)] {
                let played = Scene::new().fault(verb, fault(retry)).play();
                played.check(&[&first], ended(Code::GitFailed, "it broke"));
            }
        }
    }

    #[test]
    fn a_new_checkout_does_not_count_as_a_rejection() {
        let stale = || rejected("stale");
        let two = [1, 2].map(|number| format!("{} {AGAIN}", round(number, &number.to_string()))).join(" ");
        let damaged = |scene: Scene| scene.fault_in(3, "commit", fault(Retry::NewCheckout));
        let renewed = [&round_until("commit:", 3, "3"), RENEW].join(" ");
        // The tip stays the same, but the rejected pushes followed other tips.
        let played = damaged(Scene::new().tips("123").not_pushed([stale(), stale()])).play();
        played.check(&[&two, &renewed, &round(4, "3"), &remember(4)], pushed(4));
        let played = damaged(Scene::new().tips("123").not_pushed([stale(), stale(), rejected("protected")])).play();
        let message = "https://git.example/shop.git (branch `main`) refuses the push: protected";
        played.check(&[&two, &renewed, &round(4, "3"), AGAIN], ended(Code::GitRejected, message));
        // A new checkout does not count as one of the five rounds either.
        let played = damaged(Scene::new().tips("123345").not_pushed([stale(), stale(), stale(), stale()])).play();
        let rest = [&round(4, "3"), AGAIN, &round(5, "4"), AGAIN, &round(6, "5")].join(" ");
        played.check(&[&two, &renewed, &rest, &remember(6)], pushed(6));
    }

    #[test]
    fn a_sync_fails_if_the_new_checkout_cannot_be_created() {
        let damaged = || Scene::new().fault("commit", fault(Retry::NewCheckout));
        let (first, other) = (round_until("commit:", 1, "1"), || BackupError::new(Code::Internal, "the disk is full"));
        let result = || ended(Code::Internal, "the disk is full");
        damaged().fault("discard", other()).play().check(&[&first, "fetch( discard"], result());
        damaged().fault("refresh", other()).play().check(&[&first, "fetch( discard refresh"], result());
        // The fetch itself creates a damaged checkout again, so another new checkout would not help.
        let played = damaged().fault("refresh", fault(Retry::NewCheckout)).play();
        played.check(&[&first, "fetch( discard refresh"], ended(Code::GitFailed, "it broke"));
    }

    #[test]
    fn each_round_warns_about_its_repository_and_no_warning_is_repeated() {
        let mut scene = Scene::new().tips("12").not_pushed([rejected("stale")]);
        scene.bases[0].plan.warnings = vec!["p1".to_owned(), "p2".to_owned()];
        scene.bases[1].plan.warnings = vec!["p2".to_owned(), "p3".to_owned()];
        scene.warning = Some("c");
        let warnings = ["p1", "p2", "c", "p3"].map(str::to_owned).to_vec();
        let calls = [&round(1, "1"), AGAIN, &round(2, "2"), &remember(2)];
        let remembered = scene.play().check(&calls, SyncResult { warnings: warnings.clone(), ..pushed(2) });
        assert_eq!(remembered, warnings);
    }

    #[test]
    fn a_first_sync_warns_about_the_scripts_that_it_removes() {
        let changes = [
            (Mark::Added, "f/a.py"),
            (Mark::Deleted, "f/b.py"),
            (Mark::Deleted, "f/b.txt"),
            (Mark::Modified, "f/c.py"),
            (Mark::Deleted, "tools/d.py"),
            (Mark::Deleted, "u/e.ts"),
        ];
        let changed = Changed { added: 1, modified: 1, deleted: 4 };
        let changes = || changes.iter().map(|(mark, path)| (*mark, (*path).to_owned())).collect();
        let warning =
            "this first sync removes files that Windmill does not have (they stay in the history): f/b.py, u/e.ts";
        for (is_first, warnings) in [(true, vec![warning.to_owned()]), (false, Vec::new())] {
            let played = Scene { is_first, changes: changes(), ..Scene::new() }.play();
            let result = SyncResult { changed, warnings: warnings.clone(), ..pushed(1) };
            assert_eq!(played.check(&[&round(1, "1"), &remember(1)], result), warnings);
        }
        let played = Scene { is_first: true, changes: changes(), ..Scene::new() }.dry_run().play();
        assert_eq!(played.result.warnings, [warning], "a dry run shows it too");
        let changes = vec![(Mark::Deleted, "tools/d.py".to_owned())];
        let played = Scene { is_first: true, changes, ..Scene::new() }.play();
        assert!(played.result.warnings.is_empty(), "{:?}", played.result.warnings);
    }

    #[test]
    fn a_failure_is_reported_with_its_warnings_and_without_secrets() {
        let played =
            Scene::new().play_from(|_| Err(BackupError::new(Code::WindmillUnauthorized, "no hunter2, no hunter3")));
        played.check(&[], ended(Code::WindmillUnauthorized, "no [redacted], no [redacted]"));
        let mut scene = Scene::new().fault("commit", BackupError::new(Code::Timeout, "too long"));
        scene.warning = Some("c");
        let result = SyncResult { warnings: vec!["c".to_owned()], ..ended(Code::Timeout, "too long") };
        scene.play().check(&[&round_until("commit:", 1, "1")], result);
    }
}
