//! Many syncs in one service. At the end it holds no more resources than at the start. `just endurance` runs the long
//! tests. Each test prints the resources over time.

use std::fmt;
use std::fs;
use std::path::Path;

use super::{History, Scenario};
use support::*;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        fault: "100 syncs in a row, each with a change",
        injected: "in one service, with a stand-in for `wmill`",
        asserted: "descriptors, threads, memory and DATA_DIR stay bounded; no child and no zombie is left",
        test: "endurance::a_hundred_syncs_leave_nothing_behind",
    },
    Scenario {
        fault: "80 syncs in a row; three of four have one of sixteen faults, at random with a fixed seed",
        injected: "in one service: Windmill, the remote, git, `wmill`, the checkout",
        asserted: "the service's resources stay bounded; every fourth sync is healthy and equal to the workspace",
        test: "endurance::eighty_syncs_with_random_faults_leave_nothing_behind",
    },
    Scenario {
        fault: "1,000 syncs in a row, each with a change",
        injected: "in one service, with the real `wmill` (`just endurance`)",
        asserted: "the service's resources stay bounded; the backup equals the output of `wmill` alone",
        test: "endurance::a_thousand_syncs_with_the_real_wmill_leave_nothing_behind",
    },
    Scenario {
        fault: "400 syncs in a row; three of four have one of sixteen faults, at random with a fixed seed",
        injected: "in one service (`just endurance`)",
        asserted: "the service's resources stay bounded; every fourth sync is healthy and equal to the workspace",
        test: "endurance::four_hundred_syncs_with_random_faults_leave_nothing_behind",
    },
];

/// The resources that a service holds.
#[derive(Clone, Copy)]
struct Held {
    descriptors: usize,
    threads: usize,
    children: usize,
    zombies: usize,
    memory_kilobytes: u64,
    data_kilobytes: u64,
    files: usize,
}

impl Held {
    /// Reads the resources while no sync runs.
    fn by(service: &Service, data: &Path) -> Self {
        let process = Path::new("/proc").join(service.pid().to_string());
        let status = fs::read_to_string(process.join("status")).unwrap();
        let field = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().trim_end_matches(" kB").parse().unwrap()
        };
        let below = processes_below(service.pid());
        let is_zombie =
            |pid: u32| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "));
        let (bytes, files) = size(data);
        Self {
            descriptors: fs::read_dir(process.join("fd")).unwrap().count(),
            threads: usize::try_from(field("Threads:")).unwrap(),
            children: below.len() - 1,
            zombies: below.iter().filter(|process| is_zombie(process.pid)).count(),
            memory_kilobytes: field("VmRSS:"),
            data_kilobytes: bytes / 1024,
            files,
        }
    }

    #[track_caller]
    fn assert_not_more_than(&self, early: &Self, what: &str) {
        let shown = format!("{what}\nearly {early}\nnow   {self}");
        assert_eq!((self.children, self.zombies), (0, 0), "{shown}");
        // An allocator keeps some memory, but the memory must not grow with the number of syncs.
        assert!(self.memory_kilobytes <= early.memory_kilobytes + 6_000, "{shown}");
        // The service replaces the checkout at about 8,000 objects or 120 packs.
        assert!(self.data_kilobytes < 80_000 && self.files < 12_000, "{shown}");
    }
}

impl fmt::Display for Held {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{:>4} descriptors {:>3} threads {:>2} children {:>2} zombies {:>6} kB memory {:>6} kB data {:>5} files",
            self.descriptors,
            self.threads,
            self.children,
            self.zombies,
            self.memory_kilobytes,
            self.data_kilobytes,
            self.files
        )
    }
}

fn size(folder: &Path) -> (u64, usize) {
    let mut sum = (0, 0);
    let mut pending = vec![folder.to_path_buf()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(about) if about.is_dir() => pending.push(entry.path()),
                Ok(about) => sum = (sum.0 + about.len(), sum.1 + 1),
                Err(_) => {}
            }
        }
    }
    sum
}

/// Measures the service from time to time, and prints the result.
struct Curve<'a> {
    service: &'a Service,
    sandbox: &'a Sandbox,
    early: Option<Held>,
}

/// The number of syncs after which a service has warmed up.
const WARM: usize = 20;

impl Curve<'_> {
    #[track_caller]
    fn after(&mut self, count: usize, every: usize) {
        if count != WARM && !count.is_multiple_of(every) {
            return;
        }
        // The leftovers of a run disappear shortly after its answer.
        eventually("the run has ended", || (processes_below(self.service.pid()).len() == 1).then_some(()));
        let look = || Held::by(self.service, &self.sandbox.data());
        let held = match &self.early {
            // Idle threads end after one second.
            Some(early) => eventually("the number of threads and descriptors is as before", || {
                Some(look()).filter(|now| now.threads <= early.threads + 2 && now.descriptors <= early.descriptors + 2)
            }),
            None => look(),
        };
        println!("{count:>5} syncs: {held}");
        match &self.early {
            Some(early) => held.assert_not_more_than(early, &format!("after {count} syncs")),
            None if count >= WARM => self.early = Some(held),
            None => {}
        }
    }
}

fn check_replayed(count: usize) {
    let replay = Replay::new();
    let mut history = History::of(&replay.remote, "main");
    let service = replay.sandbox.service().remote(&replay.remote).serve();
    let mut curve = Curve { service: &service, sandbox: &replay.sandbox, early: None };
    for number in 1..=count {
        replay.put(State::Seeded, "f/ops/counter.py", &format!("def main():\n    return {number}\n"));
        let answer = service.post_sync("");
        assert!(answer.text().contains("\"pushed\""), "{number}: {}", answer.text());
        curve.after(number, 50);
    }
    history.assert_healed("many syncs", &replay.sync(), &replay.expected());
    assert_eq!(replay.remote.log("main").len(), count + 1);
}

#[test]
#[ignore = "long: just test-faults"]
fn a_hundred_syncs_leave_nothing_behind() {
    check_replayed(100);
}

#[test]
#[ignore = "ten minutes: just endurance"]
fn a_thousand_syncs_with_the_real_wmill_leave_nothing_behind() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let service = sandbox.service().remote(&remote).serve();
    let mut curve = Curve { service: &service, sandbox: &sandbox, early: None };
    for number in 1..=1000 {
        sandbox.windmill.put("f/ops/job_00000.ts", format!("export async function main() {{ return {number} }}\n"));
        let answer = service.post_sync("");
        assert!(answer.text().contains("\"pushed\""), "{number}: {}", answer.text());
        curve.after(number, 100);
    }
    assert_eq!(remote.log("main").len(), 1000);
    assert_same_values(&remote.regular_files("main"), &pulled_alone(&sandbox, OUR_DEFAULTS));
    remote.assert_sound();
}

/// The number of kinds of faults. [`Struck::heal`] undoes each.
const FAULTS: usize = 16;

struct Struck<'a> {
    replay: &'a Replay,
    http: &'a GitHttp,
    git: std::path::PathBuf,
}

impl Struck<'_> {
    fn strike(&self, fault: usize) {
        let Self { replay, http, .. } = self;
        let windmill = &replay.sandbox.windmill;
        let checkout = replay.checkout();
        // After a failure that a new checkout does not repair, there is no checkout.
        fs::create_dir_all(checkout.join("git/objects")).unwrap();
        match fault {
            0 => windmill.fail_once("/api/version", Fault::Close),
            1 => windmill.fail("/users/whoami", Fault::Status(401)),
            2 => windmill.fail_once("/users/whoami", Fault::GatewayPage(503)),
            3 => http.fail_once("service=git-upload-pack", Fault::Status(500)),
            4 => http.fail("service=git-upload-pack", Fault::Status(403)),
            5 => http.fail_once("/backup.git/git-receive-pack", Fault::CutHalfway),
            6 => replay.remote.refuse_pushes("not now"),
            7 => self.git("add", "kill -9 $$"),
            8 => self.git("commit-tree", "exit 1"),
            9 => self.git("push", "printf '\\377\\n' >&2; exit 128"),
            10 => drop(replay.sandbox.program("wmill", "mkdir -p f/x; echo debris >f/x/debris.py; exit 1")),
            11 => drop(replay.sandbox.program("wmill", "setsid sleep 1000 & kill -9 $$")),
            12 => fs::write(checkout.join("git/index"), "noise").unwrap(),
            13 => fs::write(checkout.join("git/index.lock"), "").unwrap(),
            14 => fs::remove_dir_all(checkout.join("git/objects")).unwrap(),
            _ => fs::write(checkout.join("git/HEAD"), "").unwrap(),
        }
    }

    fn git(&self, verb: &str, way: &str) {
        let git = self.git.display();
        let script = format!("case \" $* \" in *' {verb} '*) {way} ;; esac\nexec '{git}' \"$@\"");
        self.replay.sandbox.program("git", &script);
    }

    fn heal(&self) {
        self.replay.sandbox.windmill.heal();
        self.http.heal();
        self.replay.remote.accept_pushes();
        let _ = fs::remove_file(self.replay.sandbox.bin().join("git"));
        self.replay.sandbox.program("wmill", &self.replay.script());
    }
}

fn check_random_faults(count: usize, seed: u64) {
    let replay = Replay::new();
    let http = GitHttp::serve(&replay.remote);
    let mut history = History::of(&replay.remote, "main");
    let sync = replay.sandbox.sync().remote(&http);
    history.assert_healed("nothing", &sync, &replay.expected());
    let service = replay.sandbox.service().remote(&http).serve();
    let struck = Struck { replay: &replay, http: &http, git: process::find_program("git", &[]).unwrap() };
    let mut curve = Curve { service: &service, sandbox: &replay.sandbox, early: None };
    let mut random = seed;
    let mut failed = 0;
    println!("seed {seed:#x}");
    for number in 1..=count {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        replay.put(State::Seeded, "f/ops/counter.py", &format!("def main():\n    return {number}\n"));
        if number % 4 == 0 {
            let name = format!("sync {number} of seed {seed:#x}");
            let answer = service.post_sync("");
            assert!(answer.text().contains("\"success\":true"), "{name}: {}", answer.text());
            history.assert_grown(&name);
            assert_same_values(&replay.remote.regular_files("main"), &replay.expected());
        } else {
            let fault = usize::try_from(random >> 32).unwrap() % FAULTS;
            let name = format!("sync {number} of seed {seed:#x}, fault {fault}");
            let before = replay.remote.tip("main");
            struck.strike(fault);
            let answer = service.post_sync("");
            struck.heal();
            let is_success = answer.text().contains("\"success\":true");
            failed += usize::from(!is_success);
            let tip = history.assert_grown(&name);
            assert!(is_success || tip == before, "{name}: {}", answer.text());
            assert_nothing_leaked(&[("answer", answer.text().as_bytes())], &[], &[WINDMILL_TOKEN, GIT_TOKEN]);
        }
        curve.after(number, 50);
    }
    println!("{failed} of {count} syncs failed and reported it");
    assert!(failed > count / 8);
    assert_nothing_leaked(&[("log", service.log().as_bytes())], &[], &[WINDMILL_TOKEN, GIT_TOKEN]);
    history.assert_healed("random faults", &sync, &replay.expected());
}

#[test]
#[ignore = "long: just test-faults"]
fn eighty_syncs_with_random_faults_leave_nothing_behind() {
    check_random_faults(80, 0x5eed_0001);
}

#[test]
#[ignore = "some minutes: just endurance"]
fn four_hundred_syncs_with_random_faults_leave_nothing_behind() {
    check_random_faults(400, 0x5eed_0002);
}
