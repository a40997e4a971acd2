//! SIGKILL at every step of a sync and during the long steps. It kills either only the service, whose programs then
//! continue as orphans, or all processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use super::{History, Points, Scenario};
use support::process::signal;
use support::*;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        fault: "SIGKILL of the service only, and of all its processes",
        injected: "before and after each program of a sync",
        asserted: "the kills cover each program of the sync",
        test: "kill::a_kill_at_each_program_of_a_sync_is_survived",
    },
    Scenario {
        fault: "SIGKILL of the service only, or of all its processes",
        injected: "before (the service) and after (all) each program of a sync without a checkout",
        asserted: "the kills cover each program of the sync",
        test: "kill::a_kill_at_each_program_of_a_first_sync_is_survived",
    },
    Scenario {
        fault: "SIGKILL of the service only, and of all its processes",
        injected: "before and after each program of a sync with COMMIT_PER=item",
        asserted: "all commits of the sync arrive, or none",
        test: "kill::a_kill_at_each_program_of_a_sync_with_item_commits_is_survived",
    },
    Scenario {
        fault: "SIGKILL of the service only, or of all its processes",
        injected: "before or after each program of a sync with the real `wmill`",
        asserted: "the backup equals the output of `wmill sync pull` alone",
        test: "kill::a_kill_at_each_program_of_a_sync_with_the_real_wmill_is_survived",
    },
    Scenario {
        fault: "SIGKILL of the service only, or of all its processes",
        injected: "at 40 points in time during a sync",
        asserted: "",
        test: "kill::a_kill_at_any_time_is_survived",
    },
    Scenario {
        fault: "SIGKILL of the service only, or of all its processes",
        injected: "after each file that a pull writes",
        asserted: "no incomplete pull is committed; an orphan does not write into the folder of the next sync",
        test: "kill::a_kill_after_each_file_of_a_pull_is_survived",
    },
    Scenario {
        fault: "SIGKILL of the service only, or of all its processes",
        injected: "during `git add` of 2,000 files, after every 200 objects",
        asserted: "",
        test: "kill::a_kill_during_git_add_is_survived",
    },
    Scenario {
        fault: "SIGKILL of the service only, or of all its processes",
        injected: "during a push: at its request, after its pack, after the update of the branch",
        asserted: "a commit that arrived is found and not pushed again",
        test: "kill::a_kill_during_a_push_is_survived",
    },
    Scenario {
        fault: "SIGKILL of the service only, or of all its processes",
        injected: "in a push to a local repository that holds ref locks; then one lock file is deleted or emptied",
        asserted: "the next push removes the lock files, also without DATA_DIR and for a new branch",
        test: "kill::the_next_push_removes_the_lock_files_of_a_killed_push",
    },
    Scenario {
        fault: "lock files of another program in a local repository",
        injected: "with another commit's id; empty, if no push of the service is unanswered; with other content",
        asserted: "the lock files stay; the sync fails, names them, and succeeds after their removal",
        test: "kill::lock_files_of_other_programs_in_a_local_repository_stay",
    },
    Scenario {
        fault: "SIGKILL of the service during a push to a local repository, while its orphan continues",
        injected: "in a hook that waits while the refs are locked",
        asserted: "the push of another service waits for the orphan, and no commit is lost",
        test: "kill::a_push_to_a_local_repository_waits_for_another_push",
    },
    Scenario {
        fault: "SIGKILL of the `serve` process, or of all its processes",
        injected: "after eight of the programs of a sync, while a client waits",
        asserted: "a new service with the same DATA_DIR succeeds",
        test: "kill::a_new_service_syncs_after_a_killed_service",
    },
    Scenario {
        fault: "an orphan that ignores SIGTERM, left its process group and closed its input",
        injected: "in place of `wmill`, after a kill of the service",
        asserted: "the orphan is ended; nothing that it writes is in the folder or the commit of the next sync",
        test: "kill::an_orphan_never_writes_into_a_later_sync",
    },
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whom {
    /// Only the service's process. The programs that it started continue.
    Service,
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Before,
    After,
}

/// A script in place of `git` and `wmill`. It counts their starts, and kills at the planned one.
struct Killer {
    folder: PathBuf,
}

/// Kills the service, and its own process group if `whom` is `All`. The service's pid is in the mark of its programs,
/// because the parent of a `git` can also be `wmill`.
const STRIKE: &str = "service=${WINDMILL_GIT_SYNC_RUN#* }\nservice=${service%% *}\n\
    strike() { kill -9 $service; [ \"$whom\" = All ] && kill -9 0; }\n";

impl Killer {
    fn new(sandbox: &Sandbox, wmill: &Path) -> Self {
        let killer = Self { folder: sandbox.scratch("killer") };
        killer.never();
        let git = process::find_program("git", &[]).unwrap();
        for (name, real) in [("git", git.as_path()), ("wmill", wmill)] {
            let script = format!(
                "{}here='{}'\nreal='{}'\n\
                 count=\"set -C; n=1; until {{ command : >'$here/count/'\\$n; }} 2>/dev/null\n\
                 do n=\\$((n + 1)); done; echo \\$n\"\n\
                 if {{ command : >\"$here/free\"; }} 2>/dev/null\n\
                 then n=$(sh -c \"$count\"); else n=$(outside \"$count\"); fi\n\
                 read -r point moment whom <\"$here/plan\"\n{STRIKE}\
                 [ $n = \"$point\" ] || exec \"$real\" \"$@\"\n\
                 [ $moment = Before ] && {{ strike; exec \"$real\" \"$@\"; }}\n\
                 \"$real\" \"$@\"\nstatus=$?\nstrike\nexit $status",
                outside::function(),
                killer.folder.display(),
                real.display(),
            );
            sandbox.program(name, &script);
        }
        killer
    }

    fn at(&self, point: usize, moment: Moment, whom: Whom) {
        let _ = fs::remove_dir_all(self.folder.join("count"));
        fs::create_dir_all(self.folder.join("count")).unwrap();
        fs::write(self.folder.join("plan"), format!("{point} {moment:?} {whom:?}\n")).unwrap();
    }

    fn never(&self) {
        self.at(0, Moment::Before, Whom::Service);
    }

    /// Returns how many programs were started since the last plan.
    fn count(&self) -> usize {
        fs::read_dir(self.folder.join("count")).unwrap().count()
    }
}

/// A workspace with alternating edits. Its syncs are killed, and the next sync repairs the backup.
struct Subject<'a> {
    replay: &'a Replay,
    history: History<'a>,
    state: State,
}

impl<'a> Subject<'a> {
    fn new(replay: &'a Replay) -> Self {
        let mut subject = Self { replay, history: History::of(&replay.remote, "main"), state: State::Seeded };
        subject.history.assert_healed("nothing", &replay.sync(), &replay.expected());
        subject
    }

    /// Changes the workspace, so that the next sync has a commit to push.
    fn edit(&mut self) {
        self.state = self.state.other();
        self.replay.hold(self.state);
    }

    fn heal(&mut self, fault: &str) {
        self.history.assert_healed(fault, &self.replay.sync(), &self.replay.expected());
    }
}

/// The conditions under which a sync runs.
pub(super) struct Boundaries {
    has_checkout: bool,
    commit_per: &'static str,
}

pub(super) const OF_A_SYNC: Boundaries = Boundaries { has_checkout: true, commit_per: "sync" };
pub(super) const OF_A_FIRST_SYNC: Boundaries = Boundaries { has_checkout: false, commit_per: "sync" };
pub(super) const OF_COMMITS_FOR_ITEMS: Boundaries = Boundaries { has_checkout: true, commit_per: "item" };

pub(super) fn check_boundaries(boundaries: &Boundaries, which: Points) {
    let &Boundaries { has_checkout, commit_per } = boundaries;
    let mut replay = Replay::new();
    replay.commit_per = commit_per;
    let wmill = replay.sandbox.program("real-wmill", &replay.script());
    let killer = Killer::new(&replay.sandbox, &wmill);
    let mut subject = Subject::new(&replay);
    let prepare = || {
        if !has_checkout {
            fs::remove_dir_all(replay.sandbox.data()).unwrap();
            fs::create_dir_all(replay.sandbox.data()).unwrap();
        }
    };
    subject.edit();
    prepare();
    killer.never();
    subject.heal("nothing");
    let points = killer.count();
    assert!(points > 12, "{points} programs");
    let (mut tried, mut killed) = (0, 0);
    let all = [
        (Moment::Before, Whom::Service),
        (Moment::After, Whom::All),
        (Moment::Before, Whom::All),
        (Moment::After, Whom::Service),
    ];
    // A first sync takes longer, and only its first programs differ from those of a later sync.
    let strikes = if has_checkout { &all[..] } else { &all[..2] };
    for point in 1..=points {
        for (number, &(moment, whom)) in strikes.iter().enumerate() {
            if !which.include(point * strikes.len() + number) {
                continue;
            }
            tried += 1;
            let fault = format!("SIGKILL {moment:?} program {point} of {whom:?}");
            subject.edit();
            prepare();
            killer.at(point, moment, whom);
            let struck = replay.sync().run();
            killed += usize::from(struck.signal == Some(9));
            subject.history.assert_true_report(&fault, &struck);
            killer.never();
            subject.heal(&fault);
        }
    }
    // The number of programs can differ by one, because not every sync runs `wmill --version`.
    assert!(killed + strikes.len() >= tried, "{killed} syncs of {tried} were killed");
    println!("{killed} syncs were killed and repaired, at {points} programs");
}

#[test]
#[ignore = "long: just test-faults"]
fn a_kill_at_each_program_of_a_sync_is_survived() {
    check_boundaries(&OF_A_SYNC, Points::All);
}

#[test]
#[ignore = "long: just test-faults"]
fn a_kill_at_each_program_of_a_first_sync_is_survived() {
    check_boundaries(&OF_A_FIRST_SYNC, Points::All);
}

#[test]
#[ignore = "long: just test-faults"]
fn a_kill_at_each_program_of_a_sync_with_item_commits_is_survived() {
    check_boundaries(&OF_COMMITS_FOR_ITEMS, Points::All);
}

#[test]
#[ignore = "long: just test-faults"]
fn a_kill_at_each_program_of_a_sync_with_the_real_wmill_is_survived() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let killer = Killer::new(&sandbox, &wmill());
    let sync = sandbox.sync().remote(&remote);
    let mut history = History::of(&remote, "main");
    let states = ["1-seeded", "2-edited"].map(|state| {
        sandbox.windmill.state(state);
        (state, pulled_alone(&sandbox, OUR_DEFAULTS))
    });
    history.assert_healed("nothing", &sync, &states[1].1);
    sandbox.windmill.state("1-seeded");
    killer.never();
    history.assert_healed("nothing", &sync, &states[0].1);
    let points = killer.count();
    assert!(points > 12, "{points} programs");
    let mut killed = 0;
    for point in 1..=points {
        let (state, expected) = &states[point % 2];
        let moment = if point / 2 % 2 == 0 { Moment::Before } else { Moment::After };
        let whom = if point % 3 == 0 { Whom::All } else { Whom::Service };
        let fault = format!("SIGKILL {moment:?} program {point} of {whom:?}");
        sandbox.windmill.state(state);
        killer.at(point, moment, whom);
        let struck = sync.run();
        history.assert_true_report(&fault, &struck);
        killed += usize::from(struck.signal == Some(9));
        killer.never();
        history.assert_healed(&fault, &sync, expected);
    }
    // The service ends `wmill --version` before it exits by itself.
    assert!(killed + 2 >= points, "{killed} syncs of {points} were killed");
}

#[test]
#[ignore = "long: just test-faults"]
fn a_kill_at_any_time_is_survived() {
    check_times(Points::All);
}

pub(super) fn check_times(which: Points) {
    const POINTS: u32 = 40;
    let replay = Replay::new();
    let mut subject = Subject::new(&replay);
    subject.edit();
    let begun = Instant::now();
    subject.heal("nothing");
    let whole = begun.elapsed();
    for point in (0..POINTS).filter(|point| which.include(*point as usize)) {
        subject.edit();
        let whom = if point % 2 == 0 { Whom::All } else { Whom::Service };
        let fault = format!("SIGKILL of {whom:?} after {point}/{POINTS} of the time");
        let running = replay.sync().start();
        // The point is a time, independent of what the sync does.
        std::thread::sleep(whole * point / POINTS);
        strike(running.pid(), whom);
        subject.history.assert_true_report(&fault, &running.finish());
        subject.heal(&fault);
    }
}

fn strike(pid: u32, whom: Whom) {
    let all = if whom == Whom::All { processes_below(pid) } else { Vec::new() };
    signal(pid, rustix::process::Signal::KILL);
    for process in all {
        signal(process.pid, rustix::process::Signal::KILL);
    }
}

#[test]
#[ignore = "long: just test-faults"]
fn a_kill_after_each_file_of_a_pull_is_survived() {
    check_writes(Points::All);
}

pub(super) fn check_writes(which: Points) {
    let replay = Replay::new();
    let plan = replay.sandbox.file("plan", "");
    let states = replay.script().lines().next().unwrap().to_owned();
    let script = format!(
        "{states}\n[ \"$1\" = --version ] && exit 1\nread -r point whom <'{}'\n{STRIKE}\
         rm -rf f u groups wmill-lock.yaml ./*.resource-type.yaml\nn=0\n\
         for file in $(cd \"$here/current/.\" && find . -type f); do\n\
         mkdir -p \"$(dirname $file)\"\ncp \"$here/current/$file\" $file\nn=$((n + 1))\n\
         [ $n = $point ] && strike\ndone\n\
         echo 'remote (x) -> local: 1 changes to apply'\necho 'Done! All 1 changes applied locally'",
        plan.display()
    );
    fs::write(&plan, "0 Service\n").unwrap();
    replay.sandbox.program("wmill", &script);
    let mut subject = Subject::new(&replay);
    let files = replay.expected().len() - 1;
    assert!(files > 20, "{files} files");
    for point in (1..=files).filter(|point| which.include(*point)) {
        let whom = if point % 2 == 0 { Whom::All } else { Whom::Service };
        let fault = format!("SIGKILL of {whom:?} after file {point} of a pull");
        subject.edit();
        fs::write(&plan, format!("{point} {whom:?}\n")).unwrap();
        let struck = replay.sync().run();
        // One state has one file less than the other.
        assert!(struck.signal == Some(9) || point + 3 > files, "{fault}: {struck}");
        subject.history.assert_true_report(&fault, &struck);
        fs::write(&plan, "0 Service\n").unwrap();
        subject.heal(&fault);
    }
}

/// Returns scripts whose content depends on the state.
fn many_files(state: State, count: usize) -> Files {
    let mut workspace = Files::new();
    for number in 0..count {
        let content = format!("def main():\n    return '{state:?} {number}'\n");
        workspace.insert(format!("f/many/job_{number:05}.py"), content.into_bytes());
    }
    workspace
}

#[test]
#[ignore = "long: just test-faults"]
fn a_kill_during_git_add_is_survived() {
    let replay = Replay::with_files(|state| many_files(state, 2000));
    let plan = replay.sandbox.file("plan", "");
    let git = process::find_program("git", &[]).unwrap();
    // The script kills when there are `point` more objects than at the start.
    let script = format!(
        "case \" $* \" in *' add '*) ;; *) exec '{git}' \"$@\" ;; esac\nread -r point whom <'{plan}'\n{STRIKE}\
         [ $point = 0 ] && exec '{git}' \"$@\"\n\
         count() {{ find ../git/objects -type f | wc -l; }}\nstart=$(count)\n\
         '{git}' \"$@\" &\nwhile kill -0 $! 2>/dev/null && [ $(($(count) - start)) -lt $point ]; do :; done\n\
         strike\nwait $!",
        git = git.display(),
        plan = plan.display(),
    );
    fs::write(&plan, "0 Service\n").unwrap();
    replay.sandbox.program("git", &script);
    let mut subject = Subject::new(&replay);
    for step in 0..10 {
        let whom = if step % 2 == 0 { Whom::All } else { Whom::Service };
        let fault = format!("SIGKILL of {whom:?} after {} objects", step * 200);
        subject.edit();
        fs::write(&plan, format!("{} {whom:?}\n", step * 200)).unwrap();
        let struck = replay.sync().run();
        assert_eq!(struck.signal.is_some(), step > 0, "{fault}: {struck}");
        subject.history.assert_true_report(&fault, &struck);
        fs::write(&plan, "0 Service\n").unwrap();
        subject.heal(&fault);
    }
}

#[test]
fn a_kill_during_a_push_is_survived() {
    let replay = Replay::new();
    let http = GitHttp::serve(&replay.remote);
    let sync = replay.sandbox.sync().remote(&http);
    let mut history = History::of(&replay.remote, "main");
    history.assert_healed("nothing", &sync, &replay.expected());
    let mut state = State::Seeded;
    for moment in [PushMoment::Asked, PushMoment::Received, PushMoment::Taken] {
        for whom in [Whom::Service, Whom::All] {
            state = state.other();
            replay.hold(state);
            let fault = format!("SIGKILL of {whom:?} when the push was {moment:?}");
            let pid = Arc::new(AtomicU32::new(0));
            let of_step = Arc::clone(&pid);
            http.at(moment, Times::Once, move || {
                let pid = eventually("the pid of the sync is known", || {
                    let pid = of_step.load(Ordering::SeqCst);
                    (pid != 0).then_some(pid)
                });
                strike(pid, whom);
            });
            let running = sync.start();
            pid.store(running.pid(), Ordering::SeqCst);
            let struck = running.finish();
            assert_eq!(struck.signal, Some(9), "{fault}: {struck}");
            // The lock is free after the orphan has finished its push.
            let healthy = history.assert_healed(&fault, &sync, &replay.expected());
            if moment == PushMoment::Taken {
                assert_eq!(healthy.code(), "unchanged", "{fault}");
            }
        }
    }
    assert_eq!(replay.remote.log("main").len(), 2 + 6, "no edit was committed twice");
}

/// A local repository. If there is a plan, its hook kills or waits once, while git locks the refs.
struct Volume<'a> {
    subject: Subject<'a>,
    plan: PathBuf,
}

impl<'a> Volume<'a> {
    fn new(replay: &'a Replay) -> Self {
        let plan = replay.sandbox.path().join("plan");
        let hook = format!(
            "[ \"$1\" = prepared ] && [ -e '{plan}' ] || exit 0\nread -r whom <'{plan}'\nrm '{plan}'\n{STRIKE}\
             [ $whom = Nobody ] || {{ strike; exit; }}\ntouch '{plan}.held'\n\
             until [ -e '{plan}.go' ]; do sleep 0.05; done",
            plan = plan.display()
        );
        replay.remote.hook("reference-transaction", &hook);
        Self { subject: Subject::new(replay), plan }
    }

    fn lock(&self, name: &str) -> PathBuf {
        self.subject.replay.remote.path().join([name, ".lock"].concat())
    }

    #[track_caller]
    fn edit_and_strike(&mut self, whom: Whom, fault: &str) {
        self.subject.edit();
        self.strike(whom, fault);
    }

    /// Kills a sync during its push. If all its processes are killed, the lock files must be there.
    #[track_caller]
    fn strike(&mut self, whom: Whom, fault: &str) {
        fs::write(&self.plan, format!("{whom:?}\n")).unwrap();
        let struck = self.subject.replay.sync().run();
        assert_eq!(struck.signal, Some(9), "{fault}: {struck}");
        if whom == Whom::All {
            self.subject.history.assert_true_report(fault, &struck);
            assert!(self.lock("refs/heads/main").exists() && self.lock("HEAD").exists(), "{fault}");
        }
    }

    /// Checks that a sync fails, names the lock file and does not remove it.
    #[track_caller]
    fn check_stays(&mut self, name: &str, fault: &str) {
        let lock = self.lock(name);
        let content = fs::read(&lock).unwrap();
        let failed = self.subject.replay.sync().run();
        assert_eq!(failed.code(), "git_rejected", "{fault}: {failed}");
        assert!(failed.message().contains(&format!("/{name}.lock'")), "{fault}: {failed}");
        self.subject.history.assert_true_report(fault, &failed);
        assert_eq!(fs::read(&lock).unwrap(), content, "{fault}");
    }
}

#[test]
#[ignore = "long: just test-faults"]
fn the_next_push_removes_the_lock_files_of_a_killed_push() {
    let replay = Replay::new();
    let mut volume = Volume::new(&replay);
    for whom in [Whom::Service, Whom::All, Whom::All] {
        let fault = format!("SIGKILL of {whom:?} while the refs are locked");
        volume.edit_and_strike(whom, &fault);
        volume.subject.heal(&fault);
    }
    let (branch, head) = (volume.lock("refs/heads/main"), volume.lock("HEAD"));
    volume.edit_and_strike(Whom::All, "the branch's lock file is gone");
    fs::remove_file(&branch).unwrap();
    volume.subject.heal("the branch's lock file is gone");
    volume.edit_and_strike(Whom::All, "an empty lock file");
    fs::write(&branch, "").unwrap();
    fs::remove_file(&head).unwrap();
    volume.subject.heal("an empty lock file");
    volume.edit_and_strike(Whom::All, "two kills in a row");
    volume.strike(Whom::All, "two kills in a row");
    volume.subject.heal("two kills in a row");
    volume.edit_and_strike(Whom::All, "DATA_DIR is empty");
    fs::remove_dir_all(replay.sandbox.data()).unwrap();
    fs::create_dir_all(replay.sandbox.data()).unwrap();
    volume.subject.heal("DATA_DIR is empty");
    replay.remote.run(["update-ref", "-d", "refs/heads/main"]);
    volume.subject.history.begin_again();
    volume.edit_and_strike(Whom::All, "a new branch");
    let healed = replay.sync().run();
    assert_eq!(healed.code(), "pushed", "{healed}");
    assert!(!branch.exists() && !head.exists());
    let note = fs::read(replay.remote.path().join("windmill-git-sync.pushes")).unwrap();
    assert!(note.is_empty(), "all pushes were answered: {}", String::from_utf8_lossy(&note));
}

#[test]
#[ignore = "long: just test-faults"]
fn lock_files_of_other_programs_in_a_local_repository_stay() {
    let replay = Replay::new();
    let mut volume = Volume::new(&replay);
    let (branch, head) = (volume.lock("refs/heads/main"), volume.lock("HEAD"));
    volume.subject.edit();
    fs::write(&head, "").unwrap();
    volume.check_stays("HEAD", "a lock file without an unanswered push");
    fs::remove_file(&head).unwrap();
    volume.subject.heal("a lock file without an unanswered push");

    volume.edit_and_strike(Whom::All, "a lock file for another commit");
    let of_ours = fs::read(&branch).unwrap();
    fs::write(&branch, format!("{}\n", replay.remote.tip("main").unwrap())).unwrap();
    volume.check_stays("refs/heads/main", "a lock file for another commit");
    assert!(head.exists(), "the lock file of HEAD stays too");
    fs::write(&branch, of_ours).unwrap();
    fs::write(&head, "ref: refs/heads/other\n").unwrap();
    volume.check_stays("refs/heads/main", "another program moves HEAD");
    assert!(head.exists(), "the lock file of HEAD stays too");

    // A push to a branch does not lock HEAD if HEAD names another branch.
    fs::remove_file(&head).unwrap();
    replay.remote.run(["symbolic-ref", "HEAD", "refs/heads/other"]);
    fs::write(&head, "").unwrap();
    volume.subject.heal("HEAD names another branch");
    assert!(head.exists() && !branch.exists());
}

#[test]
#[ignore = "long: just test-faults"]
fn a_push_to_a_local_repository_waits_for_another_push() {
    let replay = Replay::new();
    let volume = Volume::new(&replay);
    let (held, go) = (volume.plan.with_extension("held"), volume.plan.with_extension("go"));
    let data = replay.sandbox.scratch("other-data");
    let other = replay.sync().subdir("other").env("DATA_DIR", &data.display().to_string());
    replay.hold(State::Edited);
    fs::write(&volume.plan, "Nobody\n").unwrap();
    let first = replay.sync().start();
    eventually("the refs are locked", || held.exists().then_some(()));
    strike(first.pid(), Whom::Service);
    assert_eq!(first.finish().signal, Some(9));
    let lock = volume.lock("refs/heads/main");
    let of_the_first = fs::read_to_string(&lock).unwrap();
    let second = other.start();
    eventually("the other push starts git-receive-pack", || {
        let is_asked = |process: &process::Process| {
            process.arguments.last().is_some_and(|last| last.starts_with("git-receive-pack "))
        };
        processes_below(second.pid()).iter().any(is_asked).then_some(())
    });
    fs::write(&go, "").unwrap();
    let second = second.finish();
    assert_eq!(second.code(), "pushed", "{second}");
    let tip = replay.remote.tip("main").unwrap();
    assert_eq!(second.commit().as_deref(), Some(&*tip), "{second}");
    assert!(replay.remote.is_ancestor(of_the_first.trim(), &tip), "the orphan's push is not lost: {second}");
    let parents: Vec<_> = replay.remote.log("main").into_iter().map(|commit| commit.parents).collect();
    assert_eq!(parents[0], [of_the_first.trim()], "the second push came after the first");
    assert!(!second.stderr.contains("failed to update ref"), "the second push waited for the locks: {second}");
}

#[test]
#[ignore = "long: just test-faults"]
fn a_new_service_syncs_after_a_killed_service() {
    let replay = Replay::new();
    let wmill = replay.sandbox.program("real-wmill", &replay.script());
    let killer = Killer::new(&replay.sandbox, &wmill);
    let mut subject = Subject::new(&replay);
    // The last program records the tip in the checkout, after the push and its confirmation.
    for (point, whom) in [1, 3, 5, 7, 9, 11, 12, 13].into_iter().zip([Whom::Service, Whom::All].into_iter().cycle()) {
        subject.edit();
        let service = replay.sandbox.service().remote(&replay.remote).serve();
        killer.at(point, Moment::After, whom);
        let answer = service.ask("POST", "/sync", &[], b"");
        assert!(answer.is_err(), "{point}: the killed service cannot answer");
        drop(service);
        killer.never();
        let fault = format!("SIGKILL of {whom:?} after program {point} of a service");
        subject.history.assert_grown(&fault);
        let next = replay.sandbox.service().remote(&replay.remote).serve();
        let healthy = next.post_sync("");
        assert_eq!(healthy.status, 200, "{fault}: {}", healthy.text());
        subject.heal(&fault);
    }
}

#[test]
#[ignore = "long: just test-faults"]
fn an_orphan_never_writes_into_a_later_sync() {
    let replay = Replay::new();
    let mut subject = Subject::new(&replay);
    let [written, asked] = ["written", "asked"].map(|name| replay.sandbox.path().join(name));
    // The orphan does not hold the lock, so the next sync does not wait for it. It is in a process group of its own.
    let orphan = format!(
        "#!/bin/sh\n{}trap '' HUP INT\ntrap 'outside \": >{}\"' TERM\nwhile :; do\nmkdir -p f/debris\n\
         echo debris >f/debris/debris.py 2>/dev/null\noutside ': >{}'\ndone\n",
        outside::function(),
        asked.display(),
        written.display()
    );
    let orphan_program = replay.sandbox.program("orphan", orphan.strip_prefix("#!/bin/sh\n").unwrap());
    let strikes = format!(
        "[ \"$1\" = --version ] && exit 1\nsetsid '{}' </dev/null >/dev/null 2>&1 &\nkill -9 $PPID\nexec sleep 1000",
        orphan_program.display()
    );
    for _ in 0..5 {
        subject.edit();
        replay.sandbox.program("wmill", &strikes);
        let struck = replay.sync().run();
        assert_eq!(struck.signal, Some(9), "{struck}");
        let _ = fs::remove_file(&written);
        eventually("the orphan writes", || written.exists().then_some(()));
        replay.sandbox.program("wmill", &replay.script());
        subject.heal("an orphan that continues to write");
        let left = replay.sandbox.processes();
        assert!(left.is_empty(), "{left:?}");
        let _ = fs::remove_file(&written);
        fs::remove_file(&asked).expect("the orphan gets SIGTERM before SIGKILL");
        assert!(!replay.checkout().join("tree/f/debris").exists() && !written.exists());
    }
}
