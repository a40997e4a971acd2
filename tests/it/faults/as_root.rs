//! Full and read-only disks, and unexpected volumes and users. The tests mount small disks and run our binary as other
//! users, so they must run as root.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{History, Scenario};
use support::replay::{State, the_checkout_in};
use support::*;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        fault: "a disk that is nearly full",
        injected: "40 MiB of 400 MiB free; and a `wmill` that writes without end",
        asserted: "the sync fails with this reason before the disk is full, and removes what it wrote",
        test: "as_root::as_root_a_sync_ends_before_the_disk_is_full",
    },
    Scenario {
        fault: "a commit with a compressed file that is larger than the disk",
        injected: "300 MiB in one file; and a `git read-tree` that writes without end",
        asserted: "the sync fails with this reason and frees the space; another backup on the disk succeeds",
        test: "as_root::as_root_a_checkout_that_would_fill_the_disk_is_refused",
    },
    Scenario {
        fault: "a `wmill` or `git` that takes all memory",
        injected: "in a control group of 64 MB, for `sync` and `serve`",
        asserted: "the kernel ends the program, not the service; the message says `out of memory`",
        test: "as_root::as_root_a_program_that_takes_all_memory_does_not_end_the_service",
    },
    Scenario {
        fault: "too few threads and processes",
        injected: "a limit of 8, 16 and 64, for `sync` and `serve`",
        asserted: "`sync` prints its JSON, `serve` answers, `healthcheck` works without a second thread",
        test: "as_root::as_root_a_service_answers_under_a_limit_of_processes",
    },
    Scenario {
        fault: "a full disk",
        injected: "0 to 480 KiB free, in steps of 16 KiB, with and without a checkout",
        asserted: "no failure is reported as a success, and no success as a failure",
        test: "as_root::as_root_a_full_disk_at_each_step_is_survived",
    },
    Scenario {
        fault: "a full disk",
        injected: "40 to 320 KiB free, in steps of 40 KiB, with the real `wmill`",
        asserted: "",
        test: "as_root::as_root_a_full_disk_is_survived_with_the_real_wmill",
    },
    Scenario {
        fault: "a full disk",
        injected: "0 to 12 KiB free on the disk of the remote",
        asserted: "without free space: `git_rejected` or `git_failed`",
        test: "as_root::as_root_a_full_disk_of_the_remote_is_survived",
    },
    Scenario {
        fault: "a read-only disk",
        injected: "DATA_DIR",
        asserted: "`config_invalid`",
        test: "as_root::as_root_a_read_only_disk_is_reported",
    },
    Scenario {
        fault: "a volume that belongs to another user, or that root used before",
        injected: "DATA_DIR",
        asserted: "`config_invalid` names `chown` as the solution; root can use any volume",
        test: "as_root::as_root_a_volume_of_another_user_is_reported",
    },
    Scenario {
        fault: "a user without an entry in passwd",
        injected: "the user of the service, with `file:` and HTTP remotes",
        asserted: "the sync succeeds",
        test: "as_root::as_root_a_user_without_an_entry_in_passwd_can_sync",
    },
    Scenario {
        fault: "a hook that reads the environment of each process of its user",
        injected: "in a remote on the same machine",
        asserted: "the hook finds no Windmill token",
        test: "as_root::as_root_a_hook_cannot_read_our_environment",
    },
    Scenario {
        fault: "a `/tmp` that cannot be written",
        injected: "on the machine",
        asserted: "the sync succeeds",
        test: "as_root::as_root_a_sync_works_without_a_writable_tmp",
    },
    Scenario {
        fault: "files and folders with mode 000 or 500",
        injected: "in the checkout, for a user who is not root",
        asserted: "the next sync succeeds and pushes",
        test: "as_root::as_root_a_checkout_without_permissions_is_repaired",
    },
];

/// A user without an entry in passwd.
const UNKNOWN_USER: u32 = 54_321;

fn assert_root() {
    assert!(rustix::process::geteuid().is_root(), "these tests mount disks and run as other users: run them as root");
}

/// A file system mounted on a folder. It is unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path, kilobytes: u64) -> Self {
        assert_root();
        let disk = Self(at.to_path_buf());
        disk.call("mount", &["--types", "tmpfs", "--options", &format!("size={kilobytes}k"), "small"]);
        disk
    }

    fn remount(&self, options: &str) {
        self.call("mount", &["--options", &format!("remount,{options}")]);
    }

    fn call(&self, program: &str, arguments: &[&str]) {
        let mut command = process::clean_command(program);
        command.args(arguments).arg(&self.0);
        process::run(command).must_succeed();
    }

    fn kilobytes_free(&self) -> u64 {
        let about = rustix::fs::statvfs(&self.0).unwrap();
        about.f_bavail * about.f_frsize / 1024
    }

    /// Fills the disk until only this much is free. The space is free again when the returned value is dropped.
    fn fill(&self, kilobytes_left: u64) -> Filler {
        let path = self.0.join("filler");
        let _ = fs::remove_file(&path);
        let bytes = self.kilobytes_free().saturating_sub(kilobytes_left) * 1024;
        fs::write(&path, vec![0; usize::try_from(bytes).unwrap()]).unwrap();
        Filler(path)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let mut command = process::clean_command("umount");
        command.arg("--lazy").arg(&self.0);
        let _ = process::run(command);
    }
}

struct Filler(PathBuf);

impl Drop for Filler {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
#[ignore = "needs root: just test-root"]
fn as_root_a_full_disk_at_each_step_is_survived() {
    let replay = Replay::new();
    let disk = Disk::mount(&replay.sandbox.data(), 20 << 10);
    let mut history = History::of(&replay.remote, "main");
    let mut state = State::Seeded;
    let (mut failed, mut went_well) = (0, 0);
    for has_checkout in [true, false] {
        history.assert_healed("nothing", &replay.sync(), &replay.expected());
        for left in (0..=480).step_by(16) {
            let fault = format!("{left} KiB left, checkout {has_checkout}");
            state = state.other();
            replay.hold(state);
            if !has_checkout {
                fs::remove_dir_all(replay.sandbox.data().join("windmill-git-sync")).unwrap();
            }
            let filler = disk.fill(left);
            let struck = replay.sync().run();
            drop(filler);
            history.assert_true_report(&fault, &struck);
            match struck.exit_code {
                Some(0) => went_well += 1,
                _ => failed += 1,
            }
            history.assert_healed(&fault, &replay.sync(), &replay.expected());
        }
    }
    assert!(failed > 10 && went_well > 2, "{failed} syncs failed, {went_well} succeeded");
    println!("{failed} syncs failed for lack of space, {went_well} succeeded");
}

#[test]
#[ignore = "needs root: just test-root"]
fn as_root_a_full_disk_is_survived_with_the_real_wmill() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let disk = Disk::mount(&sandbox.data(), 20 << 10);
    let sync = sandbox.sync().remote(&remote);
    let mut history = History::of(&remote, "main");
    let states = ["1-seeded", "2-edited"].map(|state| {
        sandbox.windmill.state(state);
        (state, pulled_alone(&sandbox, OUR_DEFAULTS))
    });
    for (number, left) in [40, 80, 120, 160, 200, 240, 280, 320].into_iter().enumerate() {
        let (state, expected) = &states[number % 2];
        sandbox.windmill.state(state);
        fs::remove_dir_all(sandbox.data().join("windmill-git-sync")).unwrap_or_default();
        let filler = disk.fill(left);
        let struck = sync.run();
        drop(filler);
        let fault = format!("{left} KiB left");
        history.assert_true_report(&fault, &struck);
        history.assert_healed(&fault, &sync, expected);
    }
}

#[test]
#[ignore = "needs root: just test-root"]
fn as_root_a_full_disk_of_the_remote_is_survived() {
    let replay = Replay::new();
    let home = replay.remote.path().to_path_buf();
    let aside = replay.sandbox.path().join("aside");
    fs::rename(&home, &aside).unwrap();
    fs::create_dir(&home).unwrap();
    let disk = Disk::mount(&home, 10 << 10);
    let mut copy = process::clean_command("cp");
    copy.arg("-a").arg(aside.join(".")).arg(&home);
    process::run(copy).must_succeed();
    let mut history = History::of(&replay.remote, "main");
    history.assert_healed("nothing", &replay.sync(), &replay.expected());
    let mut state = State::Seeded;
    for left in [0, 4, 8, 12] {
        state = state.other();
        replay.hold(state);
        let filler = disk.fill(left);
        let struck = replay.sync().env("SYNC_TIMEOUT", "20s").run();
        drop(filler);
        let fault = format!("{left} KiB left on the remote");
        if left == 0 {
            let code = struck.code();
            assert!(code.starts_with("git_"), "{struck}");
        }
        history.assert_true_report(&fault, &struck);
        history.assert_healed(&fault, &replay.sync(), &replay.expected());
    }
    drop(disk);
}

#[test]
#[ignore = "needs root: just test-root"]
fn as_root_a_read_only_disk_is_reported() {
    let replay = Replay::new();
    let disk = Disk::mount(&replay.sandbox.data(), 20 << 10);
    let mut history = History::of(&replay.remote, "main");
    for (round, state) in [State::Seeded, State::Edited].into_iter().enumerate() {
        replay.hold(state);
        disk.remount("ro");
        let refused = replay.sync().run().expect("config_invalid");
        assert!(refused.message().contains("DATA_DIR cannot be written"), "{}", refused.message());
        history.assert_true_report(&format!("read-only, round {round}"), &refused);
        disk.remount("rw");
        history.assert_healed("a read-only disk", &replay.sync(), &replay.expected());
    }
}

/// A user without an entry in passwd, with a folder that has everything for a sync and that this user can access.
struct UnknownUser {
    folder: PathBuf,
    http: GitHttp,
}

impl UnknownUser {
    fn new(replay: &Replay) -> Self {
        assert_root();
        let folder = PathBuf::from(format!(
            "/var/tmp/windmill-git-sync-unknown-user-{}-{}",
            std::process::id(),
            replay.remote.path().components().nth_back(2).unwrap().as_os_str().to_string_lossy()
        ));
        let _ = fs::remove_dir_all(&folder);
        for part in ["bin", "data", "home"] {
            fs::create_dir_all(folder.join(part)).unwrap();
        }
        fs::copy(run::program(), folder.join("bin/windmill-git-sync")).unwrap();
        let mut copy = process::clean_command("cp");
        copy.arg("-a").arg(replay.sandbox.states()).arg(folder.join("states"));
        process::run(copy).must_succeed();
        let script = replay
            .script()
            .replace(&replay.sandbox.states().display().to_string(), &folder.join("states").display().to_string());
        sandbox::write_with_mode(&folder.join("bin/wmill"), format!("#!/bin/sh\n{script}").as_bytes(), 0o755);
        for part in ["", "bin", "states"] {
            fs::set_permissions(folder.join(part), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let user = Self { folder, http: GitHttp::serve(&replay.remote) };
        user.own(UNKNOWN_USER);
        user
    }

    /// Gives the volume to this user.
    fn own(&self, id: u32) {
        let mut command = process::clean_command("chown");
        command.arg("--recursive").arg(format!("{id}:{id}")).arg(self.data()).arg(self.folder.join("home"));
        process::run(command).must_succeed();
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Sets the content of the workspace.
    fn hold(&self, replay: &Replay, state: State) {
        replay.hold(state);
        let current = self.folder.join("states/current");
        let _ = fs::remove_file(&current);
        std::os::unix::fs::symlink(fs::read_link(replay.sandbox.states().join("current")).unwrap(), &current).unwrap();
    }

    fn sync_as<'a>(&self, replay: &'a Replay, id: u32) -> Run<'a> {
        self.run_as(replay.sandbox.sync(), id)
    }

    fn run_as<'a>(&self, run: Run<'a>, id: u32) -> Run<'a> {
        let bin = self.folder.join("bin");
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        run.remote(&self.http)
            .program(bin.join("windmill-git-sync"))
            .folder(self.folder.clone())
            .env("PATH", &path)
            .env("HOME", &self.folder.join("home").display().to_string())
            .env("DATA_DIR", &self.data().display().to_string())
            .user(id)
    }

    fn sync<'a>(&self, replay: &'a Replay) -> Run<'a> {
        self.sync_as(replay, UNKNOWN_USER)
    }

    /// Clones the remote to a local repository that every user can write, and returns its path.
    fn local_clone(&self, replay: &Replay) -> PathBuf {
        let local = self.folder.join("local.git");
        let mut clone = git::git(&replay.sandbox);
        clone.args(["clone", "--quiet", "--bare"]).arg(replay.remote.path()).arg(&local);
        process::run(clone).must_succeed();
        let mut open = process::clean_command("chmod");
        open.args(["--recursive", "a+rwX"]).arg(&local);
        process::run(open).must_succeed();
        local
    }

    fn sync_to<'a>(&self, replay: &'a Replay, repository: &Path) -> Run<'a> {
        self.sync(replay)
            .env("GIT_REMOTE_URL", &format!("file://{}", repository.display()))
            .without("GIT_TOKEN")
            .without("GIT_USERNAME")
    }
}

impl Drop for UnknownUser {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
#[ignore = "needs root: just test-root"]
fn as_root_a_sync_ends_before_the_disk_is_full() {
    let replay = Replay::new();
    let disk = Disk::mount(&replay.sandbox.data(), 400 << 10);
    let mut history = History::of(&replay.remote, "main");
    history.assert_healed("nothing", &replay.sync(), &replay.expected());
    // The free space is more than the sync needs, and less than a run must leave free.
    let filler = disk.fill(40 << 10);
    replay.hold(State::Edited);
    let refused = replay.sync().run();
    assert!(refused.message().contains("the volume of DATA_DIR is nearly full"), "{refused}");
    history.assert_true_report("40 MiB left", &refused);
    drop(filler);
    history.assert_healed("40 MiB left", &replay.sync(), &replay.expected());
    // The service ends a pull before it fills the disk.
    let (head, rest) = replay.states_of_script();
    let endless = format!("here='{head}'\n[ \"$1\" = --version ] || cat /dev/zero >f/endless\n{rest}");
    replay.sandbox.program("wmill", &endless);
    replay.hold(State::Seeded);
    let lowest = std::sync::atomic::AtomicU64::new(u64::MAX);
    let running = replay.sync().start();
    std::thread::scope(|scope| {
        let run = scope.spawn(|| running.finish());
        while !run.is_finished() {
            lowest.fetch_min(disk.kilobytes_free(), std::sync::atomic::Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(5));
        }
        let ended = run.join().unwrap();
        assert_eq!(ended.code(), "pull_failed", "{ended}");
        assert!(ended.message().contains("nearly full"), "{ended}");
        history.assert_true_report("an endless file", &ended);
    });
    let lowest = lowest.into_inner();
    println!("at least {lowest} KiB were free");
    assert!(lowest > 0, "the disk was full");
    replay.sandbox.program("wmill", &replay.script());
    history.assert_healed("an endless file", &replay.sync(), &replay.expected());
}

#[test]
#[ignore = "needs root: just test-root"]
fn as_root_a_checkout_that_would_fill_the_disk_is_refused() {
    let replay = Replay::new();
    let disk = Disk::mount(&replay.sandbox.data(), 300 << 10);
    let mut history = History::of(&replay.remote, "main");
    history.assert_healed("nothing", &replay.sync(), &replay.expected());
    let other = BareRepository::create(&replay.sandbox, "other", &[]);
    let free = disk.kilobytes_free();
    let assert_room = |fault: &str| {
        let now = disk.kilobytes_free();
        assert!(now + 4096 > free, "{fault}: {now} KiB of {free} are free");
        let neighbour = replay.sync().remote(&other).run();
        assert_eq!(neighbour.exit_code, Some(0), "{fault}: {neighbour}");
    };

    let zeros = replay.remote.store_blob(&vec![0; 300 << 20]);
    replay.remote.commit("main").file("f/small.md", "x").entry("100644", "f/zeros.md", &zeros).done("zeros");
    history.begin_again();
    replay.hold(State::Edited);
    let refused = replay.sync().run().expect("git_failed");
    let message = refused.message();
    assert!(message.contains("there is no room") && message.contains("`f/zeros.md` with 307200 KiB"), "{refused}");
    history.assert_true_report("300 MiB in one file", &refused);
    assert!(replay.checkout().join("tree/f").exists(), "nothing was written, so the checkout is kept");
    assert_room("300 MiB in one file");
    replay.remote.commit("main").remove("f/zeros.md").remove("f/small.md").done("mended");
    history.begin_again();
    history.assert_healed("300 MiB in one file", &replay.sync(), &replay.expected());

    // If the new checkout fills the disk too, it is removed.
    replay.hold(State::Seeded);
    super::tools::break_git(&replay.sandbox, "read-tree", "exec cat /dev/zero >endless");
    let ended = replay.sync().arg("--force").run().expect("git_failed");
    super::tools::mend_git(&replay.sandbox);
    let says = |why| ended.message().contains(why);
    assert!(says("nearly full") || says("No space left"), "{ended}");
    history.assert_true_report("an endless `git read-tree`", &ended);
    assert_room("an endless `git read-tree`");
    history.assert_healed("an endless `git read-tree`", &replay.sync(), &replay.expected());
}

#[test]
#[ignore = "needs root: just test-root"]
fn as_root_a_service_answers_under_a_limit_of_processes() {
    let replay = Replay::new();
    let user = UnknownUser::new(&replay);
    let mut history = History::of(&replay.remote, "main");
    let limited = |processes: u32| {
        let own = user.folder.join("bin/windmill-git-sync");
        let script = format!("#!/bin/sh\nexec prlimit --nproc={processes} '{}' \"$@\"", own.display());
        let program = user.folder.join(format!("bin/limited-{processes}"));
        sandbox::write_with_mode(&program, script.as_bytes(), 0o755);
        program
    };
    for processes in [8, 16, 64] {
        let fault = format!("{processes} processes");
        user.hold(&replay, if processes == 16 { State::Edited } else { State::Seeded });
        let program = limited(processes);
        let struck = user.sync(&replay).program(program.clone()).run();
        println!("{fault}: {}", struck.code());
        history.assert_true_report(&fault, &struck);
        let service = user.run_as(replay.sandbox.service(), UNKNOWN_USER).program(program).serve();
        let answer = service.ask("POST", "/sync", &[], b"");
        println!("{fault}: {:?}", answer.map(|answer| answer.text()));
        assert_eq!(service.get("/health").status, 200, "{fault}: {}", service.log());
        let healthcheck = replay.sandbox.command("healthcheck").env("LISTEN_ADDR", &service.address().to_string());
        let healthy = user.run_as(healthcheck, UNKNOWN_USER).program(limited(1)).run();
        assert_eq!(healthy.exit_code, Some(0), "{fault}: {healthy}");
        assert!(!service.log().contains("panicked"), "{fault}: {}", service.log());
        drop(service);
        history.assert_grown(&fault);
        history.assert_healed(&fault, &user.sync(&replay), &replay.expected());
    }
}

/// A control group with a common memory limit. It is removed when dropped.
struct MemoryGroup(PathBuf);

impl MemoryGroup {
    fn new(limit: &str) -> Self {
        let name = format!("windmill-git-sync-test-{}", std::process::id());
        // Version 1 of control groups is used if it exists, else version 2.
        let of_first = Path::new("/sys/fs/cgroup/memory");
        let (folder, files) = if of_first.is_dir() {
            (of_first.join(name), [("memory.limit_in_bytes", limit), ("memory.swappiness", "0")])
        } else {
            let _ = fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory");
            (Path::new("/sys/fs/cgroup").join(name), [("memory.max", limit), ("memory.swap.max", "0")])
        };
        fs::create_dir_all(&folder).unwrap();
        for (file, value) in files {
            fs::write(folder.join(file), value).unwrap_or_else(|error| panic!("{folder:?}/{file}: {error}"));
        }
        Self(folder)
    }

    /// Returns a program that runs our binary in the group.
    fn limited(&self, sandbox: &Sandbox) -> PathBuf {
        let text =
            format!("echo $$ >'{}'\nexec '{}' \"$@\"", self.0.join("cgroup.procs").display(), run::program().display());
        sandbox.program("limited", &text)
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // A group cannot be removed until its last process is reaped.
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
#[ignore = "needs root: just test-root"]
fn as_root_a_program_that_takes_all_memory_does_not_end_the_service() {
    assert_root();
    let replay = Replay::new();
    let mut history = History::of(&replay.remote, "main");
    let group = MemoryGroup::new("64M");
    let program = group.limited(&replay.sandbox);
    let git = process::find_program("git", &[]).unwrap();
    let (head, rest) = replay.states_of_script();
    let version = "[ \"$1\" = --version ] && { echo 'CLI version: 1.819.0'; exit; }\nexec tail /dev/zero\n";
    let hungry_wmill = format!("here='{head}'\n{version}{rest}");
    let hungry_git =
        format!("case \" $* \" in *' fetch '*) exec tail /dev/zero ;; esac\nexec '{}' \"$@\"", git.display());
    replay.sync().run().expect("pushed");
    for (tool, text, code) in [("wmill", &hungry_wmill, "pull_failed"), ("git", &hungry_git, "git_failed")] {
        // There must be something to fetch and something to pull.
        replay.remote.commit("main").done("nothing");
        history.begin_again();
        replay.hold(if tool == "git" { State::Seeded } else { State::Edited });
        replay.sandbox.program(tool, text);
        let struck = replay.sync().program(program.clone()).run();
        assert_eq!(struck.code(), code, "{struck}");
        assert!(struck.message().contains("out of memory"), "{struck}");
        history.assert_true_report(tool, &struck);
        let service = replay.sandbox.service().remote(&replay.remote).program(program.clone()).serve();
        let answer = service.post_sync("");
        assert_eq!(answer.status, 502, "{}", answer.text());
        assert!(answer.text().contains("out of memory"), "{}", answer.text());
        assert_eq!(service.get("/health").status, 200, "{}", service.log());
        drop(service);
        history.assert_grown(tool);
        replay.sandbox.program("wmill", &replay.script());
        replay.sandbox.program("git", &format!("exec '{}' \"$@\"", git.display()));
        history.assert_healed(tool, &replay.sync(), &replay.expected());
    }
}

#[test]
#[ignore = "needs root: just test-root"]
fn as_root_a_user_without_an_entry_in_passwd_can_sync() {
    let replay = Replay::new();
    let user = UnknownUser::new(&replay);
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    assert!(!passwd.contains(&format!(":{UNKNOWN_USER}:")));
    let mut history = History::of(&replay.remote, "main");
    for state in [State::Seeded, State::Edited] {
        user.hold(&replay, state);
        let healthy = history.assert_healed("no entry in passwd", &user.sync(&replay), &replay.expected());
        assert_eq!(healthy.code(), "pushed", "{healthy}");
    }
    // The remote is a bare repository of another user, on the same machine.
    let local = user.local_clone(&replay);
    user.hold(&replay, State::Seeded);
    user.sync_to(&replay, &local).run().expect("pushed");
}

#[test]
#[ignore = "needs root: just test-root"]
fn as_root_a_hook_cannot_read_our_environment() {
    let replay = Replay::new();
    let user = UnknownUser::new(&replay);
    let local = user.local_clone(&replay);
    // The hook runs as our user, while our process waits for the push.
    let seen = user.folder.join("home/seen");
    let hook = format!("#!/bin/sh\ncat /proc/[0-9]*/environ >'{}' 2>/dev/null\nexit 0\n", seen.display());
    sandbox::write_with_mode(&local.join("hooks/pre-receive"), hook.as_bytes(), 0o755);
    user.hold(&replay, State::Seeded);
    user.sync_to(&replay, &local).run().expect("pushed");
    let seen = String::from_utf8_lossy(&fs::read(seen).unwrap()).into_owned();
    assert!(seen.contains("PATH="), "the hook read no environment at all");
    assert!(!seen.contains("WINDMILL_TOKEN"), "the hook read our environment");
}

#[test]
#[ignore = "needs root: just test-root"]
fn as_root_a_volume_of_another_user_is_reported() {
    let replay = Replay::new();
    let user = UnknownUser::new(&replay);
    let mut history = History::of(&replay.remote, "main");
    // Root used the volume before, and only root can access its folders.
    user.own(0);
    history.assert_healed("root's own", &user.sync_as(&replay, 0), &replay.expected());
    user.hold(&replay, State::Edited);
    for mode in [0o755, 0o700] {
        fs::set_permissions(user.data(), fs::Permissions::from_mode(mode)).unwrap();
        let refused = user.sync(&replay).run().expect("config_invalid");
        assert!(refused.message().contains("chown"), "{}", refused.message());
        history.assert_true_report("root's volume", &refused);
    }
    // Only the top folder was given to the user.
    chown(user.data(), Some(UNKNOWN_USER), Some(UNKNOWN_USER)).unwrap();
    let refused = user.sync(&replay).run().expect("config_invalid");
    history.assert_true_report("root's folders", &refused);
    user.own(UNKNOWN_USER);
    history.assert_healed("root's volume", &user.sync(&replay), &replay.expected());
    // Root can use the volume of any user.
    user.hold(&replay, State::Seeded);
    history.assert_healed("another user's volume", &user.sync_as(&replay, 0), &replay.expected());
    user.own(UNKNOWN_USER);
    user.hold(&replay, State::Edited);
    history.assert_healed("a volume given back", &user.sync(&replay), &replay.expected());
}

#[test]
#[ignore = "needs root: just test-root"]
fn as_root_a_checkout_without_permissions_is_repaired() {
    let replay = Replay::new();
    let user = UnknownUser::new(&replay);
    let sync = user.sync(&replay);
    let mut history = History::of(&replay.remote, "main");
    history.assert_healed("nothing", &sync, &replay.expected());
    let parts =
        ["git", "git/objects", "tree", "git/refs", "git/refs/sync", "git/info", "tree/f", "git/HEAD", "git/index"];
    for (number, part) in parts.into_iter().enumerate() {
        for mode in [0, 0o500] {
            user.hold(&replay, if (number + mode as usize).is_multiple_of(2) { State::Edited } else { State::Seeded });
            let path = the_checkout_in(&user.data()).join(part);
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            history.assert_healed(&format!("{part} with mode {mode:o}"), &sync, &replay.expected());
        }
    }
}

#[test]
#[ignore = "needs root: just test-root"]
fn as_root_a_sync_works_without_a_writable_tmp() {
    assert_root();
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let mut history = History::of(&remote, "main");
    // The folders of this test may be below /tmp, so they are mounted elsewhere.
    let target = sandbox::target_dir().display().to_string();
    let elsewhere = PathBuf::from("/var/tmp").join(format!("windmill-git-sync-elsewhere-{}", std::process::id()));
    fs::create_dir_all(&elsewhere).unwrap();
    let moved = |text: &str| text.replace(&target, &elsewhere.display().to_string());
    let script = format!(
        "mount --rbind '{target}' '{0}' && mount -t tmpfs -o ro,size=4k none /tmp && cd '{0}' || exit 99\n\
         touch /tmp/x 2>/dev/null && exit 98\nexec '{1}' \"$@\"",
        elsewhere.display(),
        moved(&run::program().display().to_string()),
    );
    let inner = sandbox.program("inner", &script);
    let unshare =
        sandbox.program("outer", &format!("exec unshare --mount --propagation private '{}' \"$@\"", inner.display()));
    for state in ["1-seeded", "2-edited"] {
        sandbox.windmill.state(state);
        let sync = sandbox.sync().remote(&remote).settings(moved).program(unshare.clone());
        let outcome = sync.env("TMPDIR", "/nonexistent").run();
        assert_eq!(outcome.code(), "pushed", "{outcome}");
        history.assert_true_report("no /tmp", &outcome);
        assert_same_values(&remote.regular_files("main"), &pulled_alone(&sandbox, OUR_DEFAULTS));
    }
    let _ = fs::remove_dir(&elsewhere);
}
