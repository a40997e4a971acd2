//! The image's `wmill` is a changed copy of npm's (`image/adapt.mjs`). It makes the same files of a workspace, byte for
//! byte, and fails in the same way. Each test pulls with both and compares.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use support::process::{self, clean_command};
use support::wmill::{LockFile, adapt, adapted, main_file, pull_command};
use support::{Files, Sandbox, WINDMILL_TOKEN, Workspace, assert_same_files, files_below, wmill};

/// How long a pull may take: npm's wmill needs a while for hundreds of scripts, and several times that on a busy
/// machine.
const PULL_PATIENCE: Duration = Duration::from_secs(600);
const LAYOUTS: [&str; 3] = [
    "defaultTs: bun\nincludeSchedules: true\nincludeTriggers: true\nincludeGroups: true\n",
    "defaultTs: deno\nnonDottedPaths: true\ndedupeLockfiles: true\n",
    "syncBehavior: v1\nincludeUsers: true\nincludeSettings: true\n",
];
/// Enough for many rounds of the changed loop, few enough for npm's `wmill`, whose time grows with the square.
const SCRIPTS: usize = 300;

/// npm's `wmill` and another, each with its own folder.
struct Pair {
    sandbox: Sandbox,
    sides: [(PathBuf, PathBuf); 2],
}

impl Pair {
    fn new(other: &Path, wmill_yaml: &str) -> Self {
        let sandbox = Sandbox::new();
        let sides = [("npm", wmill()), ("other", other.to_path_buf())].map(|(name, program)| {
            let folder = sandbox.scratch(name);
            fs::write(folder.join("wmill.yaml"), wmill_yaml).unwrap();
            (program, folder)
        });
        Self { sandbox, sides }
    }

    /// Writes a file into both folders before a pull.
    fn put(&self, path: &str, content: &str) {
        for (_, folder) in &self.sides {
            fs::write(folder.join(path), content).unwrap();
        }
    }

    /// Pulls with both, and checks that exit code and files are the same. Returns the exit code and the files.
    #[track_caller]
    fn pull(&self) -> (Option<i32>, Files) {
        let [npm, other] = self.sides.each_ref().map(|(program, folder)| {
            let windmill = &self.sandbox.windmill;
            let pull = pull_command(program, &self.sandbox, windmill, WINDMILL_TOKEN, folder);
            let done = process::start(pull).finish_within(PULL_PATIENCE);
            (done, files_below(folder))
        });
        assert_eq!(other.0.status.code(), npm.0.status.code(), "{}\ninstead of\n{}", other.0, npm.0);
        assert_same_files(&other.1, &npm.1);
        (npm.0.status.code(), npm.1)
    }

    #[track_caller]
    fn pull_well(&self) -> Files {
        let (code, files) = self.pull();
        assert_eq!(code, Some(0));
        files
    }
}

fn lock_file(files: &Files) -> String {
    String::from_utf8(files["wmill-lock.yaml"].clone()).unwrap()
}

/// Checks a first pull, edits, deletions and a full change, from recordings.
fn check_recorded(other: &Path) {
    for layout in LAYOUTS {
        let pair = Pair::new(other, layout);
        let mut last = Files::new();
        for state in ["1-seeded", "2-edited", "3-emptied", "1-seeded"] {
            pair.sandbox.windmill.state(state);
            let files = pair.pull_well();
            assert_ne!(files, last, "{state} changes something");
            last = files;
        }
        assert!(lock_file(&last).contains("f/ops/job_00000"), "{}", lock_file(&last));
    }
}

/// Checks the same with hundreds of scripts.
fn check_many_scripts(other: &Path) {
    let pair = Pair::new(other, LAYOUTS[0]);
    let mut workspace = Workspace::of_scripts(SCRIPTS);
    let pull = |workspace: &Workspace| {
        pair.sandbox.windmill.set("shop", workspace.clone());
        lock_file(&pair.pull_well()).matches("f/dept_").count()
    };
    assert_eq!(pull(&workspace), SCRIPTS);
    for number in (0..SCRIPTS).step_by(10) {
        workspace.add_bun_script(&format!("f/dept_0/job_{number:05}"), "edited");
        workspace.add_python_script(&format!("f/dept_0/new_{number:05}"), "added");
    }
    assert_eq!(pull(&workspace), SCRIPTS + SCRIPTS / 10);
    for number in (1..SCRIPTS).step_by(10) {
        workspace.remove(&format!("f/dept_1/job_{number:05}.py"));
        workspace.remove(&format!("f/dept_1/job_{number:05}.script.json"));
        workspace.add_bun_script(&format!("f/dept_0/job_{:05}", number - 1), "edited again");
    }
    // Both versions of `wmill` keep the lock entries of deleted scripts.
    assert_eq!(pull(&workspace), SCRIPTS + SCRIPTS / 10);
    assert_eq!(pull(&workspace), SCRIPTS + SCRIPTS / 10);
}

#[test]
#[ignore = "long: just test-wmill"]
fn the_adapted_wmill_writes_the_same_files_from_recordings() {
    check_recorded(&adapted());
}

#[test]
#[ignore = "long: just test-wmill"]
fn the_adapted_wmill_writes_the_same_files_for_hundreds_of_scripts() {
    check_many_scripts(&adapted());
}

#[test]
fn a_pull_that_fails_halfway_leaves_the_same_files() {
    let pair = Pair::new(&adapted(), LAYOUTS[0]);
    // `wmill` wants to write the missing metadata of this script, but a folder is in its place.
    for (_, folder) in &pair.sides {
        fs::create_dir_all(folder.join("f/dept_0/job_00000x.script.yaml")).unwrap();
    }
    let mut workspace = Workspace::of_scripts(6);
    workspace.put("f/dept_0/job_00000x.ts", "export async function main() {}\n");
    pair.sandbox.windmill.set("shop", workspace);
    let (code, files) = pair.pull();
    assert_eq!(code, Some(1));
    let locks = lock_file(&files);
    assert!(locks.contains("job_00000") && !locks.contains("job_00001"), "{locks}");
    assert!(files.contains_key("f/dept_1/job_00001.py"), "the files were written before");
}

#[test]
#[ignore = "long: just test-wmill"]
fn an_existing_lock_file_gives_the_same_result() {
    let old = "# a person's\nlocks:\n  f/dept_0/job_00000: old\n  f/gone: stale\n";
    let current = "version: v2\nlocks:\n  f/dept_0/job_00000: old\n  ./f/dept_1/job_00001: old\n  f/gone: stale\n";
    for (content, expected) in [
        (old, Some(0)),
        (current, Some(0)),
        ("version: v1\n", Some(0)),
        ("version: v99\nlocks: {}\n", Some(1)),
        ("just text\n", Some(1)),
        ("", Some(1)),
    ] {
        let pair = Pair::new(&adapted(), LAYOUTS[0]);
        pair.put("wmill-lock.yaml", content);
        pair.sandbox.windmill.set("shop", Workspace::of_scripts(20));
        assert_eq!(pair.pull().0, expected, "{content}");
    }
}

#[test]
fn the_adapted_wmill_writes_its_lock_file_once() {
    let sandbox = Sandbox::new();
    let hook = sandbox.file(
        "count.cjs",
        "const files = require('node:fs/promises'), { writeFile } = files;\n\
         let count = 0;\n\
         files.writeFile = (path, ...rest) => {\n\
           if (path === 'wmill-lock.yaml') count += 1;\n\
           return writeFile(path, ...rest);\n\
         };\n\
         require('node:module').syncBuiltinESMExports();\n\
         process.on('exit', () => require('node:fs').writeFileSync(process.env.COUNT, String(count)));\n",
    );
    let writes = |program: &Path| -> usize {
        let (into, count) = (sandbox.scratch("into"), sandbox.path().join("count"));
        fs::remove_dir_all(&into).unwrap();
        fs::create_dir_all(&into).unwrap();
        fs::write(into.join("wmill.yaml"), LAYOUTS[0]).unwrap();
        let mut command = pull_command(program, &sandbox, &sandbox.windmill, WINDMILL_TOKEN, &into);
        command.env("NODE_OPTIONS", format!("--require={}", hook.display())).env("COUNT", &count);
        process::run(command).must_succeed();
        fs::read_to_string(count).unwrap().parse().unwrap()
    };
    let scripts = 7;
    // It writes once to create the file, once after the loop, and once after the step that follows the loop, which
    // already worked in memory before the change.
    assert_eq!(writes(&adapted()), 3);
    assert!(writes(&wmill()) > 2 * scripts);
}

#[test]
#[ignore = "long: just test-long"]
fn a_sync_with_the_adapted_wmill_continues_one_with_npms() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let sync = sandbox.sync().remote(&remote);
    sync.run().expect("pushed");
    sandbox.program("wmill", &format!("exec '{}' \"$@\"", adapted().display()));
    sync.run().expect("unchanged");
    sandbox.windmill.state("2-edited");
    sync.run().expect("pushed");
    fs::remove_file(sandbox.bin().join("wmill")).unwrap();
    sync.run().expect("unchanged");
}

// The step that makes the changed copy.

/// A text that the help of a changed copy contains.
const CHANGED: &str = "a copy changed by windmill-git-sync";

fn said(program: &Path, arguments: &[&str]) -> String {
    let mut command = clean_command(program);
    command.args(arguments);
    process::run(command).must_succeed().stdout_text()
}

#[test]
fn the_changed_copy_states_who_changed_it() {
    let text = fs::read_to_string(adapted()).unwrap();
    let head: Vec<&str> = text.lines().take(4).collect();
    assert!(head[0].starts_with("#!") && head[1].starts_with("// Changed by windmill-git-sync"), "{head:#?}");
    assert!(said(&adapted(), &["--help"]).contains(CHANGED));
    assert!(!said(&wmill(), &["--help"]).contains(CHANGED));
}

#[test]
fn each_change_must_match_exactly_once() {
    let sandbox = Sandbox::new();
    let original = fs::read_to_string(main_file()).unwrap();
    let anchors = [
        "if (isMain()) {\n  main2().then(",
        "    const tracker = await buildTracker(changes);\n",
        "message: `All ${changes.length}",
        ".description(\"Windmill CLI\")",
    ];
    let copy = sandbox.path().join("copy.js");
    for anchor in anchors {
        let missing = original.replace(anchor, "another version\n");
        let twice = format!("{original}\n{original}");
        for (content, fits) in [(missing, 0), (twice, 2)] {
            let package = sandbox.file("main.js", content);
            let said = adapt(&package, &copy, LockFile::InMemory).must_fail().stderr_text();
            assert!(said.contains(&format!("fits {fits} times instead of once")), "{anchor}: {said}");
            assert!(!copy.exists(), "{anchor}");
        }
    }
}

#[test]
fn the_change_to_pulls_is_optional() {
    let sandbox = Sandbox::new();
    let copy = sandbox.path().join("copy.js");
    let batches = || fs::read_to_string(&copy).unwrap().matches("await beginLockfileBatch();").count();
    let output = adapt(&main_file(), &copy, LockFile::InMemory).must_succeed().stdout_text();
    let with = batches();
    assert!(output.contains("wmill-lock.yaml in memory"), "{output}");
    let output = adapt(&main_file(), &copy, LockFile::AsEver).must_succeed().stdout_text();
    assert_eq!(batches(), with - 1);
    assert!(!output.contains("wmill-lock.yaml in memory"), "{output}");
    assert!(fs::read_to_string(&copy).unwrap().contains(CHANGED));
}

mod bun {
    use super::*;
    use support::wmill::{one_program, version};

    #[test]
    #[ignore = "needs Bun: just test-tools"]
    fn the_compiled_wmill_writes_the_same_files_from_recordings() {
        check_recorded(&one_program(LockFile::InMemory));
    }

    #[test]
    #[ignore = "needs Bun: just test-tools"]
    fn the_compiled_wmill_writes_the_same_files_for_hundreds_of_scripts() {
        check_many_scripts(&one_program(LockFile::InMemory));
    }

    #[test]
    #[ignore = "needs Bun: just test-tools"]
    fn the_help_of_the_compiled_wmill_says_that_it_is_changed() {
        let help = said(&one_program(LockFile::InMemory), &["--help"]);
        assert!(help.contains(CHANGED) && help.contains(&version()), "{help}");
    }
}
