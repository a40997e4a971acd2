//! The story of a sync: lock, fetch, probe, pull, compare, guard, commit, push, confirm.
//!
//! It reads aloud, and only decides. How each of these is done is for a [`World`] to know, a made-up one in the tests.

use std::io;
use std::time::Instant;

use crate::code::Code;
use crate::comparison::{Change, Comparison, Mark, Sample};
use crate::delivery::{self, Arrival};
use crate::fault::{Fault, Remedy};
use crate::git::GitError;
use crate::guards;
use crate::items;
use crate::object::ObjectId;
use crate::opening::Opening;
use crate::outcome::{Changed, SyncResult, Warnings};
use crate::pull::Footing;
use crate::sync_request::SyncRequest;
use crate::task::{Service, Step, Task, Verdict};
use crate::world::{RealWorld, World};

/// How often a sync starts over when another writer was first. A branch that moves five times within five pulls is
/// not one that a backup can be put upon.
const ROUNDS_MAX: u32 = 5;
/// Paths listed in a dry run's message; the rest is counted.
const LISTED_IN_MESSAGE_MAX: usize = 50;

/// Syncs, and tells how it went. It never panics on what others send, and never fails without saying why.
#[must_use]
pub fn run(request: &SyncRequest, service: &Service<'_>, run_id: &str) -> SyncResult {
    let task = Task { request, service };
    result_of(task, run_id, |warnings| {
        let place = task.enter()?;
        let opening = RealWorld::open(&task, &place, warnings)?;
        tell(task, opening, warnings)
    })
}

/// Has a story told, from its first words to its result.
fn result_of(task: Task<'_>, run_id: &str, story: impl FnOnce(&mut Warnings) -> Result<Verdict, Fault>) -> SyncResult {
    let started = Instant::now();
    let SyncRequest { workspace, remote, branch, .. } = task.request;
    log::info!("run {run_id}: syncing workspace {workspace} to {remote} (branch {branch})");
    let mut warnings = Warnings::default();
    let ended = story(&mut warnings);
    task.conclude(run_id, started, ended, warnings)
}

/// Tells the story from its opening on.
fn tell<W: World>(task: Task<'_>, opening: Opening<W>, warnings: &mut Warnings) -> Result<Verdict, Fault> {
    match opening {
        Opening::Unchanged(tip) => Ok(unchanged(task, Some(tip))),
        Opening::Full(world) => Story { task, world, warnings }.rounds(),
    }
}

struct Story<'a, W> {
    task: Task<'a>,
    world: W,
    warnings: &'a mut Warnings,
}

/// How a round ended that did not fail.
enum Round {
    /// So did the sync.
    Success(Verdict),
    /// The push was rejected, perhaps since another writer was first; what the server said.
    Rejected(String),
}

/// What a pull led to.
enum Prepared<C> {
    /// The branch holds it already.
    Nothing,
    /// There is something to commit, and it is only to be shown.
    Shown(C),
    /// A commit, and what it was made of.
    Commit(ObjectId, C),
}

impl<W: World> Story<'_, W> {
    fn rounds(mut self) -> Result<Verdict, Fault> {
        let (mut rejections, mut is_new) = (0, false);
        loop {
            match self.round() {
                Ok(Round::Success(success)) => return Ok(success),
                Ok(Round::Rejected(why)) => {
                    rejections += 1;
                    self.start_over(rejections, &why)?;
                }
                // Damage that no fetch has met: an object that was written half, of which git only sees that it is there.
                Err(damage) if damage.remedy == Remedy::NewCheckout && !is_new => {
                    log::warn!("starting over in a new checkout: {}", damage.message);
                    is_new = true;
                    self.world.discard()?;
                    self.refresh()?;
                }
                Err(fault) => return Err(fault),
            }
        }
    }

    /// After so many rejections, makes ready for a round upon the new tip, if there is any use in one.
    fn start_over(&mut self, rejections: u32, why: &str) -> Result<(), Fault> {
        if rejections == ROUNDS_MAX {
            let SyncRequest { remote, branch, .. } = self.task.request;
            let message = format!(
                "cannot push to {remote} (branch `{branch}`): other writers were first {ROUNDS_MAX} times in a row ({why})"
            );
            return Err(Fault::new(Code::GitRejected, message));
        }
        log::info!("another writer was first; starting over on the new tip (round {} of {ROUNDS_MAX})", rejections + 1);
        let tip = self.world.base().tip.clone();
        self.refresh()?;
        if rejections > 1 && self.world.base().tip == tip {
            // Nobody was first, the server just does not want it. Once may be since it was behind.
            return Err(delivery::refused(self.task, why));
        }
        Ok(())
    }

    fn refresh(&mut self) -> Result<(), Fault> {
        self.task.step(Step::Fetch, || self.world.refresh())
    }

    /// One way from the pull to the push.
    fn round(&mut self) -> Result<Round, Fault> {
        let task = self.task;
        self.tell_about_repository();
        guards::refuse_the_key(task, &self.world.base().plan)?;
        let footing = task.step(Step::Pull, || self.world.pull())?;
        let reading = self.world.look_again();
        self.tell_about_footing(footing);
        match task.step(Step::Commit, || self.prepare(footing))? {
            Prepared::Nothing => Ok(Round::Success(self.leave_as_it_is(reading))),
            Prepared::Shown(composition) => self.show(composition.as_ref()).map(Round::Success),
            Prepared::Commit(commit, composition) => self.deliver(commit, &composition, reading),
        }
    }

    /// From what was pulled to a commit, where there is something to commit.
    fn prepare(&mut self, footing: Footing) -> Result<Prepared<W::Composition>, Fault> {
        let composition = self.world.compose(footing, self.warnings)?;
        self.world.guard(&composition)?;
        if self.world.is_first() {
            self.tell_about_removed_files(composition.as_ref()).map_err(|error| self.of_a_listing(error))?;
        }
        if composition.as_ref().changed() == Changed::default() {
            return Ok(Prepared::Nothing);
        }
        if self.task.request.dry_run {
            return Ok(Prepared::Shown(composition));
        }
        let commit = self.world.commit(&composition)?;
        Ok(Prepared::Commit(commit, composition))
    }

    fn leave_as_it_is(&mut self, reading: W::Reading) -> Verdict {
        let tip = self.world.base().tip.clone();
        if let (Some(tip), false) = (&tip, self.task.request.dry_run) {
            self.world.remember(tip, reading, self.warnings);
        }
        unchanged(self.task, tip)
    }

    fn show(&self, comparison: &Comparison) -> Result<Verdict, Fault> {
        let listed = comparison.summary(LISTED_IN_MESSAGE_MAX).map_err(|error| self.of_a_listing(error))?;
        let SyncRequest { remote, branch, .. } = self.task.request;
        let message = format!("Would commit to {remote} (branch {branch}): {listed}");
        Ok(Verdict { code: Code::DryRun, message, commit: None, changed: comparison.changed() })
    }

    /// A success is told only of a commit that was seen on the branch.
    fn deliver(&mut self, commit: ObjectId, composition: &W::Composition, reading: W::Reading) -> Result<Round, Fault> {
        match self.task.step(Step::Push, || self.world.push(&commit))? {
            Arrival::Confirmed => {
                self.world.remember(&commit, reading, self.warnings);
                let message = format!("Successfully synced workspace '{}' to Git", self.task.request.workspace);
                let changed = composition.as_ref().changed();
                Ok(Round::Success(Verdict { code: Code::Pushed, message, commit: Some(commit), changed }))
            }
            Arrival::Rejected(why) => {
                log::info!("the push was rejected: {why}");
                Ok(Round::Rejected(why))
            }
        }
    }

    fn tell_about_repository(&mut self) {
        let base = self.world.base();
        for warning in &base.plan.warnings {
            self.warnings.add(warning.clone());
        }
        if !base.unsound.is_empty() {
            self.warnings.add(format!(
                "the repository has entries that git checks out nowhere, and a commit of ours is without them: {}",
                base.unsound
            ));
        }
    }

    fn tell_about_footing(&mut self, footing: Footing) {
        if footing == Footing::Empty {
            let patterns = if self.world.base().plan.globs { ", whatever its patterns leave out" } else { "" };
            self.warnings.add(format!(
                "wmill could not work upon the repository's files, so the workspace was pulled anew from nothing{patterns}"
            ));
        }
    }

    fn tell_about_removed_files(&mut self, comparison: &Comparison) -> io::Result<()> {
        let mut removed = Sample::default();
        for change in comparison.changes()? {
            let Change { mark, path, .. } = change?;
            if mark == Mark::Deleted && std::str::from_utf8(&path).is_ok_and(items::is_script_file_under_windmill) {
                removed.add(&path);
            }
        }
        if !removed.is_empty() {
            self.warnings.add(format!(
                "this first sync removes files that Windmill does not hold (they stay in the history): {removed}"
            ));
        }
        Ok(())
    }

    /// What failed in a file that says what git or we have listed.
    fn of_a_listing(&self, error: io::Error) -> Fault {
        self.task.git_error(Step::Commit, GitError::from(error))
    }
}

fn unchanged(task: Task<'_>, tip: Option<ObjectId>) -> Verdict {
    let message = format!("Workspace '{}' has not changed since the last commit", task.request.workspace);
    Verdict { code: Code::Unchanged, message, commit: tip, changed: Changed::default() }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::path::Path;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::base::{self, Base};
    use crate::config::{Config, Environment, Need, Options};
    use crate::deadline::Interrupt;
    use crate::listing::Listing;
    use crate::object::Entry;
    use crate::scratch::Scratch;
    use crate::sync_request::{Draft, Flags};
    use crate::task::Event;

    const SETTINGS: &[(&str, &str)] = &[
        ("WINDMILL_TOKEN", "hunter2"),
        ("WINDMILL_WORKSPACE", "shop"),
        ("GIT_REMOTE_URL", "https://git.example/shop.git"),
        ("GIT_TOKEN", "hunter3"),
    ];
    const PUSHED: &str = "Successfully synced workspace 'shop' to Git";
    const UNCHANGED: &str = "Workspace 'shop' has not changed since the last commit";
    /// How the base is asked for anew.
    const AGAIN: &str = "fetch( refresh )";
    const CHANGES: &[(Mark, &str)] = &[(Mark::Added, "f/a.py"), (Mark::Modified, "f/b.py"), (Mark::Deleted, "f/c.py")];
    const CHANGED: Changed = Changed { added: 1, modified: 1, deleted: 1 };

    /// The commits of a story have the ids `aaa…`, `bbb…` and so on, by their round.
    fn commit_of(round: usize) -> &'static str {
        &"abcdef"[round - 1..round]
    }

    /// The id of which each digit is this one.
    fn id(digit: &str) -> ObjectId {
        ObjectId::parse(&digit.repeat(40)).expect("40 digits")
    }

    fn digit(id: &ObjectId) -> &str {
        &id.as_str()[..1]
    }

    /// All that is asked in a round upon this tip which comes as far as the push.
    fn round(number: usize, tip: &str) -> String {
        let commit = commit_of(number);
        format!("pull( pull:{tip} ) look:{number} commit( compose guard commit:{tip} ) push( push:{commit} )")
    }

    /// What is asked in such a round up to this, which fails.
    fn round_until(last: &str, number: usize, tip: &str) -> String {
        let round = round(number, tip);
        let end = round.find(last).expect("it is asked in a round") + last.len();
        let end = end + round[end..].find(' ').expect("it is not the last");
        round[..end].to_owned()
    }

    /// How a success is noted whose commit is of this round.
    fn remember(round: usize) -> String {
        format!("remember:{}:look:{round}", commit_of(round))
    }

    fn fault(remedy: Remedy) -> Fault {
        Fault { code: Code::GitFailed, message: "it broke".to_owned(), remedy }
    }

    fn rejected(why: &str) -> Arrival {
        Arrival::Rejected(why.to_owned())
    }

    fn ended(code: Code, message: &str) -> SyncResult {
        SyncResult {
            code,
            message: message.to_owned(),
            run_id: "r1".to_owned(),
            workspace: "shop".to_owned(),
            branch: "main".to_owned(),
            commit: None,
            changed: Changed::default(),
            warnings: Vec::new(),
            duration_ms: 0,
        }
    }

    /// The end of a sync whose commit is of this round.
    fn pushed(round: usize) -> SyncResult {
        let commit = Some(commit_of(round).repeat(40));
        SyncResult { commit, changed: CHANGED, ..ended(Code::Pushed, PUSHED) }
    }

    /// What a world answers. Where nothing else is said, all goes well.
    struct Scene {
        config: Config,
        flags: Flags,
        /// What the branch holds, each time that it is asked for; the last one stays.
        bases: VecDeque<Base>,
        is_first: bool,
        footing: Footing,
        changes: Vec<(Mark, String)>,
        /// Given by composing.
        warning: Option<&'static str>,
        /// What comes of the first pushes.
        arrivals: VecDeque<Arrival>,
        /// From which round on what fails, once, when it is asked.
        faults: Vec<(usize, &'static str, Fault)>,
    }

    impl Scene {
        fn new() -> Self {
            Self::with(&[])
        }

        fn with(settings: &[(&str, &str)]) -> Self {
            let variables = SETTINGS.iter().chain(settings).map(|(name, value)| (name.into(), value.into()));
            let config = Config::new(&Options::default(), &Environment::new(variables), Need::Sync);
            let scene = Self {
                config: config.expect("settings that will do"),
                flags: Flags::default(),
                bases: VecDeque::new(),
                is_first: false,
                footing: Footing::Repository,
                changes: CHANGES.iter().map(|(mark, path)| (*mark, (*path).to_owned())).collect(),
                warning: None,
                arrivals: VecDeque::new(),
                faults: Vec::new(),
            };
            scene.tips("1")
        }

        /// The branch's tips, a digit for each time that it is asked for; `-` where the branch is not there.
        fn tips(mut self, tips: &str) -> Self {
            let plan = base::plan_without_file(&self.config);
            let base = |tip: char| Base {
                tip: (tip != '-').then(|| id(&tip.to_string())),
                builds_upon: None,
                shown: None,
                folder: Listing::at("none".into()),
                is_empty: false,
                is_all_shown: true,
                unsound: Sample::default(),
                in_the_way: None,
                plan: plan.clone(),
                workspace: self.config.workspaces.single().expect("one workspace").clone(),
            };
            self.bases = tips.chars().map(base).collect();
            self
        }

        fn arrivals<const N: usize>(mut self, arrivals: [Arrival; N]) -> Self {
            self.arrivals = arrivals.into();
            self
        }

        fn fault(self, asked: &'static str, fault: Fault) -> Self {
            self.fault_in(1, asked, fault)
        }

        fn fault_in(mut self, round: usize, asked: &'static str, fault: Fault) -> Self {
            self.faults.push((round, asked, fault));
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

        /// A story of which this is the opening.
        fn told(mut self, opening: impl FnOnce(FakeWorld<'_>) -> Result<Opening<FakeWorld<'_>>, Fault>) -> Told {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let name = format!("story-{}", COUNT.fetch_add(1, Ordering::Relaxed));
            let config = self.config.clone();
            let workspace = config.workspaces.single().expect("one workspace");
            let request = Draft::from_config(&config, self.flags).request(workspace).expect("a request");
            let asked = Asked::default();
            let progress = |event| match event {
                Event::Started(step) => asked.note(format!("{}(", step.as_str())),
                Event::Ended(..) => asked.note(")"),
                Event::Waits => asked.note("waits"),
            };
            let interrupt = Interrupt::default();
            let service =
                Service { config: &config, own_program: Path::new("none"), interrupt: &interrupt, progress: &progress };
            let world = FakeWorld {
                base: self.bases.pop_front().expect("a base to begin with"),
                scene: self,
                pulls: 0,
                scratch: Scratch::for_test(&name).expect("a folder"),
                asked: &asked,
            };
            let task = Task { request: &request, service: &service };
            let mut result = result_of(task, "r1", |warnings| tell(task, opening(world)?, warnings));
            result.duration_ms = 0;
            let remembered = asked.remembered.into_inner().expect("whole");
            Told { asked: asked.words.into_inner().expect("whole").join(" "), remembered, result }
        }

        fn tell(self) -> Told {
            self.told(|world| Ok(Opening::Full(world)))
        }
    }

    /// What was asked in a story, and how it ended.
    struct Told {
        asked: String,
        /// The warnings with which a success was noted.
        remembered: Vec<String>,
        result: SyncResult,
    }

    impl Told {
        /// Checks all of it; the warnings with which a success was noted.
        #[track_caller]
        fn check(self, asked: &[&str], result: SyncResult) -> Vec<String> {
            assert_eq!((self.asked, self.result), (asked.join(" "), result));
            self.remembered
        }
    }

    /// All that is asked of a world, in order. A step is a bracket around what is asked in it; one that fails is left
    /// open.
    #[derive(Default)]
    struct Asked {
        words: Mutex<Vec<String>>,
        remembered: Mutex<Vec<String>>,
    }

    impl Asked {
        fn note(&self, word: impl Into<String>) {
            self.words.lock().expect("whole").push(word.into());
        }
    }

    /// A world that keeps to its scene.
    struct FakeWorld<'a> {
        scene: Scene,
        base: Base,
        pulls: usize,
        scratch: Scratch,
        asked: &'a Asked,
    }

    impl FakeWorld<'_> {
        fn ask(&mut self, verb: &str, upon: Option<&str>) -> Result<(), Fault> {
            self.asked.note(upon.map_or(verb.to_owned(), |upon| format!("{verb}:{upon}")));
            match self.scene.faults.iter().position(|(from, fails, _)| *from <= self.pulls && *fails == verb) {
                Some(place) => Err(self.scene.faults.remove(place).2),
                None => Ok(()),
            }
        }

        /// The tip in one letter.
        fn tip(&self) -> String {
            self.base.tip.as_ref().map_or("-", digit).to_owned()
        }
    }

    struct FakeComposition(Comparison);

    impl AsRef<Comparison> for FakeComposition {
        fn as_ref(&self) -> &Comparison {
            &self.0
        }
    }

    impl World for FakeWorld<'_> {
        /// Its number.
        type Reading = usize;
        type Composition = FakeComposition;

        fn base(&self) -> &Base {
            &self.base
        }

        fn is_first(&self) -> bool {
            self.scene.is_first
        }

        fn pull(&mut self) -> Result<Footing, Fault> {
            self.pulls += 1;
            self.ask("pull", Some(&self.tip()))?;
            Ok(self.scene.footing)
        }

        fn look_again(&mut self) -> usize {
            self.asked.note(format!("look:{}", self.pulls));
            self.pulls
        }

        fn compose(&mut self, footing: Footing, warnings: &mut Warnings) -> Result<FakeComposition, Fault> {
            self.ask("compose", (footing == Footing::Empty).then_some("anew"))?;
            self.scene.warning.into_iter().for_each(|warning| warnings.add(warning.to_owned()));
            let entry = |digit| Some(Entry { mode: 0o100_644, object: id(digit) });
            let pairs = self.scene.changes.iter().map(|(mark, path)| {
                let before = if *mark == Mark::Added { None } else { entry("1") };
                let after = if *mark == Mark::Deleted { None } else { entry("2") };
                Ok((path.clone().into_bytes(), (before, after)))
            });
            let pairs: Vec<_> = pairs.collect();
            let comparison = Comparison::of(self.scratch.path().join("changes"), Box::new(pairs.into_iter()));
            Ok(FakeComposition(comparison.expect("a folder to write to")))
        }

        fn guard(&mut self, _: &FakeComposition) -> Result<(), Fault> {
            self.ask("guard", None)
        }

        fn commit(&mut self, _: &FakeComposition) -> Result<ObjectId, Fault> {
            self.ask("commit", Some(&self.tip()))?;
            Ok(id(commit_of(self.pulls)))
        }

        fn push(&mut self, commit: &ObjectId) -> Result<Arrival, Fault> {
            self.ask("push", Some(digit(commit)))?;
            Ok(self.scene.arrivals.pop_front().unwrap_or(Arrival::Confirmed))
        }

        fn remember(&mut self, commit: &ObjectId, reading: usize, warnings: &mut Warnings) {
            self.asked.note(format!("remember:{}:look:{reading}", digit(commit)));
            *self.asked.remembered.lock().expect("whole") = warnings.list().to_vec();
        }

        fn refresh(&mut self) -> Result<(), Fault> {
            self.ask("refresh", None)?;
            if let Some(base) = self.scene.bases.pop_front() {
                self.base = base;
            }
            Ok(())
        }

        fn discard(&mut self) -> Result<(), Fault> {
            self.ask("discard", None)
        }
    }

    #[test]
    fn a_sync_pulls_looks_again_composes_guards_commits_pushes_and_remembers() {
        Scene::new().tell().check(
            &["pull( pull:1 ) look:1 commit( compose guard commit:1 ) push( push:a ) remember:a:look:1"],
            SyncResult {
                code: Code::Pushed,
                message: PUSHED.to_owned(),
                run_id: "r1".to_owned(),
                workspace: "shop".to_owned(),
                branch: "main".to_owned(),
                commit: Some("a".repeat(40)),
                changed: CHANGED,
                warnings: Vec::new(),
                duration_ms: 0,
            },
        );
    }

    #[test]
    fn where_the_opening_says_that_nothing_changed_nothing_is_asked() {
        let told = Scene::new().told(|_| Ok(Opening::Unchanged(id("7"))));
        told.check(&[], SyncResult { commit: Some("7".repeat(40)), ..ended(Code::Unchanged, UNCHANGED) });
    }

    #[test]
    fn a_pull_that_changes_nothing_is_remembered_and_not_committed() {
        let result = SyncResult { commit: Some("1".repeat(40)), ..ended(Code::Unchanged, UNCHANGED) };
        let asked = "pull( pull:1 ) look:1 commit( compose guard ) remember:1:look:1";
        Scene::new().unchanged().tell().check(&[asked], result);
        // Of an empty workspace there is nothing to commit, and so no branch.
        let asked = "pull( pull:- ) look:1 commit( compose guard )";
        Scene::new().tips("-").unchanged().tell().check(&[asked], ended(Code::Unchanged, UNCHANGED));
    }

    #[test]
    fn a_first_commit_is_made_where_the_branch_is_not_there() {
        Scene::new().tips("-").tell().check(&[&round(1, "-"), &remember(1)], pushed(1));
    }

    #[test]
    fn a_dry_run_neither_commits_nor_pushes_nor_remembers() {
        let asked = "pull( pull:1 ) look:1 commit( compose guard )";
        let message = "Would commit to https://git.example/shop.git (branch main): 1 added, 1 modified, 1 deleted\n\n\
                       A f/a.py\nM f/b.py\nD f/c.py";
        let shown = SyncResult { changed: CHANGED, ..ended(Code::DryRun, message) };
        Scene::new().dry_run().tell().check(&[asked], shown);
        let unchanged = SyncResult { commit: Some("1".repeat(40)), ..ended(Code::Unchanged, UNCHANGED) };
        Scene::new().dry_run().unchanged().tell().check(&[asked], unchanged);
    }

    #[test]
    fn a_dry_run_lists_fifty_files_and_counts_the_others() {
        let changes = (10..62).map(|number| (Mark::Added, format!("f/{number}.py"))).collect();
        let told = Scene { changes, ..Scene::new() }.dry_run().tell();
        assert!(told.result.message.ends_with("\nA f/59.py\n... and 2 more"), "{}", told.result.message);
    }

    #[test]
    fn a_guard_refuses_before_anything_is_committed() {
        let refusal = || Fault::new(Code::MassDeletion, "too many");
        for scene in [Scene::new(), Scene::new().unchanged(), Scene::new().dry_run()] {
            let told = scene.fault("guard", refusal()).tell();
            told.check(&["pull( pull:1 ) look:1 commit( compose guard"], ended(Code::MassDeletion, "too many"));
        }
    }

    #[test]
    fn the_encryption_key_is_refused_before_anything_is_pulled() {
        let told = Scene::with(&[("WMILL_INCLUDE", "key")]).tell();
        assert_eq!((told.asked.as_str(), told.result.code), ("", Code::PlaintextSecrets), "{}", told.result.message);
        let told = Scene::with(&[("WMILL_INCLUDE", "key"), ("ALLOW_PLAINTEXT_SECRETS", "true")]).tell();
        told.check(&[&round(1, "1"), &remember(1)], pushed(1));
    }

    #[test]
    fn a_rejected_push_starts_over_upon_the_new_tip() {
        let told = Scene::new().tips("12").arrivals([rejected("stale")]).tell();
        told.check(&[&round(1, "1"), AGAIN, &round(2, "2"), &remember(2)], pushed(2));
    }

    #[test]
    fn two_rejections_upon_a_tip_that_stays_are_a_refusal() {
        let message = "https://git.example/shop.git (branch `main`) refuses the push: protected";
        let refused = || ended(Code::GitRejected, message);
        let told = Scene::new().arrivals([rejected("stale"), rejected("protected")]).tell();
        told.check(&[&round(1, "1"), AGAIN, &round(2, "1"), AGAIN], refused());
        let told = Scene::new().tips("12").arrivals([rejected("stale"), rejected("protected")]).tell();
        told.check(&[&round(1, "1"), AGAIN, &round(2, "2"), AGAIN], refused());
        let told =
            Scene::new().tips("123").arrivals([rejected("stale"), rejected("stale"), rejected("protected")]).tell();
        told.check(&[&round(1, "1"), AGAIN, &round(2, "2"), AGAIN, &round(3, "3"), AGAIN], refused());
        let told = Scene::new().tips("-").arrivals([rejected("stale"), rejected("protected")]).tell();
        told.check(&[&round(1, "-"), AGAIN, &round(2, "-"), AGAIN], refused());
        // The server may have been behind, so one is not enough.
        let told = Scene::new().arrivals([rejected("stale")]).tell();
        told.check(&[&round(1, "1"), AGAIN, &round(2, "1"), &remember(2)], pushed(2));
        // And where the tip has moved meanwhile, somebody was first.
        let told = Scene::new().tips("123").arrivals([rejected("stale"), rejected("stale")]).tell();
        told.check(&[&round(1, "1"), AGAIN, &round(2, "2"), AGAIN, &round(3, "3"), &remember(3)], pushed(3));
    }

    #[test]
    fn the_fifth_round_is_the_last() {
        let stale = || rejected("stale");
        let four = [1, 2, 3, 4].map(|number| format!("{} {AGAIN}", round(number, &number.to_string()))).join(" ");
        let told = Scene::new().tips("12345").arrivals([stale(), stale(), stale(), stale()]).tell();
        told.check(&[&four, &round(5, "5"), &remember(5)], pushed(5));
        let last = rejected("stale again");
        let told = Scene::new().tips("123456").arrivals([stale(), stale(), stale(), stale(), last]).tell();
        let message = "cannot push to https://git.example/shop.git (branch `main`): other writers were first 5 times in \
                       a row (stale again)";
        told.check(&[&four, &round(5, "5")], ended(Code::GitRejected, message));
    }

    #[test]
    fn a_success_is_told_and_remembered_only_of_a_commit_that_was_seen_on_the_branch() {
        let told = Scene::new().fault("push", fault(Remedy::None)).tell();
        told.check(&[&round_until("push:", 1, "1")], ended(Code::GitFailed, "it broke"));
        let told = Scene::new().arrivals([rejected("stale")]).fault("refresh", fault(Remedy::None)).tell();
        told.check(&[&round(1, "1"), "fetch( refresh"], ended(Code::GitFailed, "it broke"));
    }

    #[test]
    fn damage_wherever_it_shows_leads_to_a_new_checkout_once() {
        for (verb, asked) in [("pull", "pull:"), ("compose", "compose"), ("commit", "commit:"), ("push", "push:")] {
            let (first, second) = (round_until(asked, 1, "1"), round_until(asked, 2, "1"));
            let told = Scene::new().fault(verb, fault(Remedy::NewCheckout)).tell();
            told.check(&[&first, "discard", AGAIN, &round(2, "1"), &remember(2)], pushed(2));
            let told = Scene::new().fault(verb, fault(Remedy::NewCheckout)).fault(verb, fault(Remedy::NewCheckout));
            told.tell().check(&[&first, "discard", AGAIN, &second], ended(Code::GitFailed, "it broke"));
            for remedy in [Remedy::None, Remedy::Time(None)] {
                let told = Scene::new().fault(verb, fault(remedy)).tell();
                told.check(&[&first], ended(Code::GitFailed, "it broke"));
            }
        }
    }

    #[test]
    fn a_new_checkout_is_no_rejection() {
        let stale = || rejected("stale");
        let two = [1, 2].map(|number| format!("{} {AGAIN}", round(number, &number.to_string()))).join(" ");
        let damaged = |scene: Scene| scene.fault_in(3, "commit", fault(Remedy::NewCheckout));
        let renewed = [&round_until("commit:", 3, "3"), "discard", AGAIN].join(" ");
        // The tip stays, but the pushes that were rejected were upon others.
        let told = damaged(Scene::new().tips("123").arrivals([stale(), stale()])).tell();
        told.check(&[&two, &renewed, &round(4, "3"), &remember(4)], pushed(4));
        let told = damaged(Scene::new().tips("123").arrivals([stale(), stale(), rejected("protected")])).tell();
        let message = "https://git.example/shop.git (branch `main`) refuses the push: protected";
        told.check(&[&two, &renewed, &round(4, "3"), AGAIN], ended(Code::GitRejected, message));
        // Nor is it one of the five rounds.
        let told = damaged(Scene::new().tips("123345").arrivals([stale(), stale(), stale(), stale()])).tell();
        let rest = [&round(4, "3"), AGAIN, &round(5, "4"), AGAIN, &round(6, "5")].join(" ");
        told.check(&[&two, &renewed, &rest, &remember(6)], pushed(6));
    }

    #[test]
    fn where_no_new_checkout_can_be_had_the_sync_fails() {
        let damaged = || Scene::new().fault("commit", fault(Remedy::NewCheckout));
        let (first, other) = (round_until("commit:", 1, "1"), || Fault::new(Code::Internal, "the disk is full"));
        let result = || ended(Code::Internal, "the disk is full");
        damaged().fault("discard", other()).tell().check(&[&first, "discard"], result());
        damaged().fault("refresh", other()).tell().check(&[&first, "discard", "fetch( refresh"], result());
        // One that is damaged at once was made anew by the fetch itself, and would be so again.
        let told = damaged().fault("refresh", fault(Remedy::NewCheckout)).tell();
        told.check(&[&first, "discard", "fetch( refresh"], ended(Code::GitFailed, "it broke"));
    }

    #[test]
    fn each_round_warns_of_what_its_repository_holds_and_each_warning_is_given_once() {
        let mut scene = Scene::new().tips("12").arrivals([rejected("stale")]);
        scene.bases[0].plan.warnings = vec!["p1".to_owned(), "p2".to_owned()];
        scene.bases[1].plan.warnings = vec!["p2".to_owned(), "p3".to_owned()];
        scene.bases[1].unsound.add(b"a/../b");
        scene.warning = Some("c");
        let unsound =
            "the repository has entries that git checks out nowhere, and a commit of ours is without them: a/../b";
        let warnings = ["p1", "p2", "c", "p3", unsound].map(str::to_owned).to_vec();
        let asked = [&round(1, "1"), AGAIN, &round(2, "2"), &remember(2)];
        let remembered = scene.tell().check(&asked, SyncResult { warnings: warnings.clone(), ..pushed(2) });
        assert_eq!(remembered, warnings);
    }

    #[test]
    fn a_pull_into_nothing_is_warned_of() {
        for (globs, more) in [(false, ""), (true, ", whatever its patterns leave out")] {
            let mut scene = Scene { footing: Footing::Empty, ..Scene::new() };
            scene.bases[0].plan.globs = globs;
            let warning =
                "wmill could not work upon the repository's files, so the workspace was pulled anew from nothing";
            let asked = round(1, "1").replace("compose", "compose:anew");
            let result = SyncResult { warnings: vec![[warning, more].concat()], ..pushed(1) };
            scene.tell().check(&[&asked, &remember(1)], result);
        }
    }

    #[test]
    fn a_first_sync_warns_of_the_scripts_that_it_removes() {
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
            "this first sync removes files that Windmill does not hold (they stay in the history): f/b.py, u/e.ts";
        for (is_first, warnings) in [(true, vec![warning.to_owned()]), (false, Vec::new())] {
            let told = Scene { is_first, changes: changes(), ..Scene::new() }.tell();
            let result = SyncResult { changed, warnings: warnings.clone(), ..pushed(1) };
            assert_eq!(told.check(&[&round(1, "1"), &remember(1)], result), warnings);
        }
        let told = Scene { is_first: true, changes: changes(), ..Scene::new() }.dry_run().tell();
        assert_eq!(told.result.warnings, [warning], "a dry run shows it too");
        let changes = vec![(Mark::Deleted, "tools/d.py".to_owned())];
        let told = Scene { is_first: true, changes, ..Scene::new() }.tell();
        assert!(told.result.warnings.is_empty(), "{:?}", told.result.warnings);
    }

    #[test]
    fn a_failure_is_told_with_its_warnings_and_without_secrets() {
        let told = Scene::new().told(|_| Err(Fault::new(Code::WindmillUnauthorized, "no hunter2, no hunter3")));
        told.check(&[], ended(Code::WindmillUnauthorized, "no [redacted], no [redacted]"));
        let mut scene = Scene::new().fault("commit", Fault::new(Code::Timeout, "too long"));
        scene.warning = Some("c");
        let result = SyncResult { warnings: vec!["c".to_owned()], ..ended(Code::Timeout, "too long") };
        scene.tell().check(&[&round_until("commit:", 1, "1")], result);
    }
}
