//! The checkout is a cache. After any damage to it the next sync succeeds, with the cheapest reliable repair.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{History, Points, Scenario};
use support::*;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        fault: "a file that is truncated, empty, random bytes, replaced by a folder, deleted, or has a lock file",
        injected: "each file in DATA_DIR, except git objects and pulled files",
        asserted: "the next sync succeeds and pushes",
        test: "cache::damage_to_each_file_of_a_checkout_is_repaired",
    },
    Scenario {
        fault: "git objects that are truncated, empty, random bytes, or deleted",
        injected: "all loose objects, the new objects of an unfinished commit, packs, pack indexes",
        asserted: "the next sync succeeds and pushes",
        test: "cache::damaged_objects_are_repaired",
    },
    Scenario {
        fault: "a file or a dangling symlink in place of a folder, a folder in place of a file",
        injected: "the checkout, `git/`, `tree/`, `objects/`, `refs/`, the folder of a run, the lock file",
        asserted: "the next sync succeeds and pushes",
        test: "cache::entries_of_the_wrong_type_are_replaced",
    },
    Scenario {
        fault: "lock files of a killed git",
        injected: "for index, HEAD, config, shallow, packed-refs and refs, all at once",
        asserted: "the lock files are removed, and the checkout is kept",
        test: "cache::stale_lock_files_are_removed_and_the_checkout_is_kept",
    },
    Scenario {
        fault: "the lock file of a running git",
        injected: "a user's `git commit` in the checkout, which waits for its editor",
        asserted: "the lock file stays, and the message names the process; after its end, the next sync succeeds",
        test: "cache::the_lock_file_of_a_running_git_stays",
    },
];

#[derive(Clone, Copy, Debug)]
enum Damage {
    CutShort,
    Emptied,
    Noise,
    AFolder,
    Gone,
    Locked,
}

const DAMAGES: [Damage; 6] =
    [Damage::CutShort, Damage::Emptied, Damage::Noise, Damage::AFolder, Damage::Gone, Damage::Locked];

impl Damage {
    fn do_to(self, path: &Path) {
        let content = fs::read(path).unwrap();
        // git's objects and packs are read-only, but a power cut damages them too.
        let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o644));
        match self {
            Self::CutShort => fs::write(path, &content[..content.len() / 2]).unwrap(),
            Self::Emptied => fs::write(path, b"").unwrap(),
            Self::Noise => fs::write(path, noise(content.len())).unwrap(),
            Self::AFolder => {
                fs::remove_file(path).unwrap();
                fs::create_dir_all(path.join("below")).unwrap();
                fs::write(path.join("below/file"), "x").unwrap();
            }
            Self::Gone => fs::remove_file(path).unwrap(),
            Self::Locked => fs::write(with_ending(path, ".lock"), b"").unwrap(),
        }
    }
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Returns pseudo-random bytes, the same each time.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length.max(16)).map(|_| next()).collect()
}

/// Returns the files below a folder whose path does not contain `without`.
fn files_of(folder: &Path, without: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![folder.to_path_buf()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.to_string_lossy().contains(without) {
                continue;
            }
            if path.is_dir() { pending.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

/// A backup that is damaged again and again. The next sync must repair it and push new edits.
struct Damaged<'a> {
    replay: &'a Replay,
    history: History<'a>,
    state: State,
}

impl<'a> Damaged<'a> {
    fn new(replay: &'a Replay) -> Self {
        let mut damaged = Self { replay, history: History::of(&replay.remote, "main"), state: State::Edited };
        damaged.assert_repaired("nothing");
        damaged
    }

    fn assert_repaired(&mut self, fault: &str) {
        self.state = self.state.other();
        self.replay.hold(self.state);
        let healthy = self.history.assert_healed(fault, &self.replay.sync(), &self.replay.expected());
        assert_eq!(healthy.code(), "pushed", "{fault}: {healthy}");
    }
}

#[test]
#[ignore = "long: just test-faults"]
fn damage_to_each_file_of_a_checkout_is_repaired() {
    check_files_and_damages(Points::All);
}

pub(super) fn check_files_and_damages(which: Points) {
    let replay = Replay::new();
    let mut damaged = Damaged::new(&replay);
    let data = replay.sandbox.data().join("windmill-git-sync");
    // The file for accepted host keys exists only if there are any.
    let hosts = data.join("known_hosts");
    fs::write(&hosts, "host ssh-ed25519 AAAA\n").unwrap();
    let files: Vec<_> =
        files_of(&data, "/objects/").into_iter().filter(|path| !path.starts_with(tree(&replay))).collect();
    let name = |path: &Path| path.strip_prefix(&data).unwrap().display().to_string();
    let names: Vec<_> = files.iter().map(|path| name(path)).collect();
    for expected in ["HEAD", "config", "index", "shallow", "attributes", "refs/sync/tip", "state.json", "shop.lock"] {
        assert!(names.iter().any(|name| name.ends_with(expected)), "{expected} in {names:?}");
    }
    for (number, path) in files.iter().enumerate() {
        for (of_file, damage) in DAMAGES.into_iter().enumerate() {
            if !which.include(number * DAMAGES.len() + of_file) {
                continue;
            }
            // The kernel locks this file and ignores its content. Only a user could put a full folder in its place.
            if path.ends_with("locks/shop.lock") && matches!(damage, Damage::AFolder) {
                continue;
            }
            if !path.is_file() {
                damaged.assert_repaired("a missing file");
            }
            if path.is_file() {
                damage.do_to(path);
                damaged.assert_repaired(&format!("{damage:?}: {}", name(path)));
            }
        }
    }
}

fn tree(replay: &Replay) -> PathBuf {
    replay.checkout().join("tree")
}

#[test]
#[ignore = "long: just test-faults"]
fn damaged_objects_are_repaired() {
    let replay = Replay::new();
    let mut damaged = Damaged::new(&replay);
    type IsOfKind<'a> = &'a dyn Fn(&Path) -> bool;
    let kinds: [(&str, IsOfKind<'_>); 3] = [
        ("loose", &|path| !path.to_string_lossy().contains("/pack/")),
        ("pack", &|path| path.extension().is_some_and(|ending| ending == "pack")),
        ("index of a pack", &|path| path.extension().is_some_and(|ending| ending == "idx")),
    ];
    for (kind, is_of_kind) in kinds {
        for damage in [Damage::CutShort, Damage::Emptied, Damage::Noise, Damage::Gone] {
            // A fetch keeps the objects of another writer's tip as a pack if there are enough.
            if kind != "loose" {
                let many: Vec<_> =
                    (0..200).map(|number| (format!("theirs/{number}"), format!("{damage:?} {number}"))).collect();
                let many: Vec<_> = many.iter().map(|(path, content)| (path.as_str(), content.as_str())).collect();
                replay.remote.commit_files("main", &many);
                let removal = || replay.remote.commit("main").remove("theirs").done("Taken back");
                replay.sync().run().expect("unchanged");
                removal();
                damaged.history.begin_again();
            }
            let objects = files_of(&replay.checkout().join("git/objects"), "\0");
            let of_kind: Vec<_> = objects.iter().filter(|path| is_of_kind(path)).collect();
            assert!(!of_kind.is_empty(), "no object of the kind {kind}");
            of_kind.iter().for_each(|path| damage.do_to(path));
            damaged.assert_repaired(&format!("{damage:?}: all objects of the kind {kind}"));
        }
    }
    // These are objects of the next commit, damaged as by a power cut: they exist, so git does not write them again.
    for damage in [Damage::CutShort, Damage::Emptied, Damage::Noise] {
        damaged.state = damaged.state.other();
        replay.hold(damaged.state);
        let before = files_of(&replay.checkout().join("git/objects"), "\0");
        replay.remote.commit_files("main", &[("f/ops/odd.py", &format!("{damage:?}"))]);
        replay.remote.commit("main").remove("f/ops/odd.py").done("Taken back");
        damaged.history.begin_again();
        let new = format!("def main():\n    return '{damage:?}'\n");
        for state in [State::Seeded, State::Edited] {
            replay.put(state, "f/ops/new.py", &new);
        }
        replay.sync().arg("--dry-run").run().expect("dry_run");
        let objects = files_of(&replay.checkout().join("git/objects"), "\0");
        let new: Vec<_> = objects.iter().filter(|path| !before.contains(path)).collect();
        assert!(!new.is_empty(), "the dry run wrote objects of the next commit");
        new.iter().for_each(|path| damage.do_to(path));
        damaged.state = damaged.state.other();
        damaged.assert_repaired(&format!("{damage:?}: objects of the next commit"));
    }
}

#[test]
#[ignore = "long: just test-faults"]
fn entries_of_the_wrong_type_are_replaced() {
    let replay = Replay::new();
    let mut damaged = Damaged::new(&replay);
    let data = replay.sandbox.data().join("windmill-git-sync");
    let checkout = replay.checkout();
    let folders = ["git", "tree", "git/objects", "git/objects/pack", "git/refs", "git/refs/sync", "git/info"];
    let mut folders: Vec<_> = folders.iter().map(|name| checkout.join(name)).collect();
    folders.extend([checkout.clone(), data.join("runs/shop")]);
    for folder in folders {
        for with in ["a file", "a link"] {
            if folder.is_dir() {
                fs::remove_dir_all(&folder).unwrap();
            }
            let _ = fs::remove_file(&folder);
            match with {
                "a file" => fs::write(&folder, "a file\n").unwrap(),
                _ => std::os::unix::fs::symlink("/nonexistent/anywhere", &folder).unwrap(),
            }
            damaged.assert_repaired(&format!("{with} instead of the folder {}", folder.display()));
        }
    }
    let lock = data.join("locks/shop.lock");
    fs::remove_file(&lock).unwrap();
    fs::create_dir(&lock).unwrap();
    damaged.assert_repaired("a folder instead of the lock");
    fs::write(&lock, "not empty\n").unwrap();
    damaged.assert_repaired("a lock with content");
}

/// Every lock file that git can leave in the checkout.
const LOCKS: [&str; 7] = ["index", "HEAD", "config", "shallow", "packed-refs", "refs/sync/tip", "refs/sync/seen"];

#[test]
#[ignore = "long: just test-faults"]
fn stale_lock_files_are_removed_and_the_checkout_is_kept() {
    let replay = Replay::new();
    let mut damaged = Damaged::new(&replay);
    let git = replay.checkout().join("git");
    fs::write(git.join("mark"), "kept\n").unwrap();
    for lock in LOCKS {
        fs::write(git.join(format!("{lock}.lock")), "").unwrap();
    }
    damaged.assert_repaired("every lock");
    assert!(git.join("mark").exists(), "the checkout was replaced, but only its lock files had to go");
    assert!(LOCKS.iter().all(|lock| !git.join(format!("{lock}.lock")).exists()));
}

#[test]
#[ignore = "long: just test-faults"]
fn the_lock_file_of_a_running_git_stays() {
    let replay = Replay::new();
    let mut damaged = Damaged::new(&replay);
    let git = replay.checkout().join("git");
    let waits = replay.sandbox.path().join("editor-waits");
    let editor = replay.sandbox.program("editor", &format!("touch '{}'\nexec sleep 1000", waits.display()));
    let mut command = Command::new(process::find_program("git", &[]).unwrap());
    command.current_dir(tree(&replay)).env("GIT_EDITOR", &editor).env("HOME", replay.sandbox.home());
    command.args(["-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "safe.directory=*"]);
    command.arg(format!("--git-dir={}", git.display())).arg(format!("--work-tree={}", tree(&replay).display()));
    command.args(["commit", "--all", "--allow-empty"]);
    fs::write(tree(&replay).join("f/person.txt"), "theirs\n").unwrap();
    let person = process::start(command);
    eventually("the editor waits", || waits.exists().then_some(()));
    let lock = git.join("index.lock");
    if !lock.exists() {
        // Only some versions of git hold the lock while a commit waits for the editor.
        fs::write(&lock, "").unwrap();
    }
    replay.hold(damaged.state.other());
    let refused = replay.sync().run().expect("git_failed");
    assert!(refused.message().contains(&person.pid().to_string()), "{}", refused.message());
    assert!(lock.exists());
    damaged.history.assert_true_report("a git that runs", &refused);
    drop(person.killed());
    damaged.assert_repaired("a git that ran");
    assert!(!lock.exists());
}
