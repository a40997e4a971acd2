//! For any content of a workspace or a repository, the commit equals the workspace. The tests compare it with the
//! output of `wmill` in an empty folder.

use std::fmt::Write as _;
use std::time::Duration;

use super::{History, Scenario};
use support::*;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        fault: "names with spaces, quotes, leading dashes, composed and decomposed Unicode, globs, and of great length",
        injected: "in the workspace; the repository has ignore files and attributes",
        asserted: "after each change, the backup equals the output of `wmill` alone",
        test: "content::unusual_names_and_contents_are_added_changed_and_deleted",
    },
    Scenario {
        fault: "a script that becomes a folder and back; renames; several changes at once",
        injected: "in the workspace",
        asserted: "after each change, the backup equals the output of `wmill` alone",
        test: "content::items_that_change_their_type_or_path_are_backed_up",
    },
    Scenario {
        fault: "twelve rounds of random edits with a fixed seed",
        injected: "in the workspace",
        asserted: "after each round, the backup equals the output of `wmill` alone",
        test: "content::random_edits_are_backed_up",
    },
    Scenario {
        fault: "20,000 files",
        injected: "in the workspace, with a stand-in for `wmill`",
        asserted: "all files arrive; one edit changes one file",
        test: "content::twenty_thousand_files_are_backed_up",
    },
    Scenario {
        fault: "a file of 100 MB",
        injected: "in the workspace",
        asserted: "each byte arrives; the service takes less than 40 MB",
        test: "content::a_file_of_a_hundred_megabytes_takes_little_memory",
    },
    Scenario {
        fault: "`includes` in `wmill.yaml`; flows of the old layout, links and workspace-specific items outside them",
        injected: "in the repository",
        asserted: "files outside the patterns stay; a pulled flow replaces its old layout",
        test: "content::files_outside_the_patterns_stay",
    },
];

/// Asserts that the branch has the files that `wmill` alone pulls, and the files of other writers.
#[track_caller]
fn assert_backed_up(sandbox: &Sandbox, history: &mut History<'_>, sync: &Run<'_>, what: &str, theirs: &[(&str, &str)]) {
    let mut expected = pulled_alone(sandbox, OUR_DEFAULTS);
    expected.extend(theirs.iter().map(|(path, content)| ((*path).to_owned(), content.as_bytes().to_vec())));
    history.assert_healed(what, sync, &expected);
}

#[test]
#[ignore = "long: just test-faults"]
fn unusual_names_and_contents_are_added_changed_and_deleted() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let theirs = [
        (".gitignore", "*\n!.gitignore\n*.py\n"),
        (".gitattributes", "* text=auto eol=crlf\n*.ts binary filter=lfs diff=lfs merge=lfs -text\n"),
        ("f/.gitignore", "**\n"),
        ("README.md", "stays\r\n"),
        ("-rf", "stays\n"),
    ];
    theirs.iter().fold(remote.commit("main"), |commit, (path, content)| commit.file(path, content)).done("Theirs");
    let mut history = History::of(&remote, "main");
    let sync = sandbox.sync().remote(&remote).arg("--allow-mass-deletion");
    let long = "n".repeat(200);
    let names = [
        "with space",
        "-leading",
        "--force",
        "qu'ote",
        "dou\"ble",
        "st*r",
        "[glob]",
        "que?stion",
        "dollar$HOME",
        "semi;colon",
        "é composed",
        "e\u{301} decomposed",
        "日本語",
        "🦀",
        "tab\u{2003}wide",
        "colon:name",
        ":(exclude)x",
        "!bang",
        "#hash",
        "a.b.c",
        "UPPER",
        "upper",
        "trailing.",
        "percent%20",
        "tilde~1",
        "HEAD",
        "index.lock",
        long.as_str(),
    ];
    let contents = [
        "\r\nexport async function main() {}\r\n",
        "",
        "\u{feff}// bom\n",
        "no line end",
        "\0binary\u{1}\n",
        "$Id$ $Format:%H$\n",
    ];
    for (round, rotation) in [0, 1, 2].into_iter().enumerate() {
        let mut workspace = Workspace::recorded("1-seeded");
        for (number, name) in names.iter().enumerate().filter(|(number, _)| (number + round) % 3 != 2) {
            let path = format!("f/ops/{name}");
            workspace.add_bun_script(&path, &format!("{name} {round}").replace('"', ""));
            workspace.put(&format!("{path}.ts"), contents[(number + rotation) % contents.len()]);
        }
        sandbox.windmill.set("shop", workspace);
        assert_backed_up(&sandbox, &mut history, &sync, &format!("names, round {round}"), &theirs);
    }
    sandbox.windmill.state("1-seeded");
    assert_backed_up(&sandbox, &mut history, &sync, "all of them deleted", &theirs);
    assert_eq!(sync.run().code(), "unchanged");
}

#[test]
#[ignore = "long: just test-faults"]
fn items_that_change_their_type_or_path_are_backed_up() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let mut history = History::of(&remote, "main");
    let sync = sandbox.sync().remote(&remote).arg("--allow-mass-deletion");
    let base = || Workspace::recorded("1-seeded");
    let with = |edit: &dyn Fn(&mut Workspace)| {
        let mut workspace = base();
        edit(&mut workspace);
        workspace
    };
    let states: [(&str, Workspace); 7] = [
        ("a script", with(&|w| w.add_bun_script("f/ops/thing", "1"))),
        ("a folder of its name", with(&|w| w.add_bun_script("f/ops/thing/below", "1"))),
        ("only the script in the folder, in Python", with(&|w| w.add_python_script("f/ops/thing/below", "1"))),
        (
            "both, and a variable",
            with(&|w| {
                w.add_bun_script("f/ops/thing", "2");
                w.add_python_script("f/ops/thing/below", "2");
                w.add_variable("f/ops/thing", "x", false);
            }),
        ),
        ("a folder named as its file", with(&|w| w.add_bun_script("f/ops/thing.ts/below", "3"))),
        ("renamed", with(&|w| w.add_bun_script("f/sales/other", "1"))),
        ("as at the start", base()),
    ];
    for (what, workspace) in states {
        sandbox.windmill.set("shop", workspace);
        assert_backed_up(&sandbox, &mut history, &sync, what, &[]);
    }
}

/// Pseudo-random numbers, the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % bound
    }
}

#[test]
#[ignore = "long: just test-faults"]
fn random_edits_are_backed_up() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let mut history = History::of(&remote, "main");
    let sync = sandbox.sync().remote(&remote).arg("--allow-mass-deletion");
    let mut random = Random(0x5eed_0004);
    for round in 0..12 {
        let mut workspace = Workspace::recorded(["1-seeded", "2-edited"][random.below(2)]);
        for _ in 0..random.below(20) {
            let path = format!(
                "f/{}/{}",
                ["ops", "sales"][random.below(2)],
                ["a", "b", "a/b", "a/b/c", "d e", "é"][random.below(6)]
            );
            let value = format!("{}", random.below(1000));
            match random.below(4) {
                0 => workspace.add_bun_script(&path, &value),
                // The path differs, because `wmill` does not delete the lock of a script that no longer has one.
                1 => workspace.add_python_script(&format!("{path}_py"), &value),
                2 => workspace.add_variable(&path, &value, false),
                _ => workspace.add_folder(&format!("made_{}", random.below(4))),
            }
        }
        if random.below(3) == 0 {
            workspace.reverse_order();
        }
        sandbox.windmill.set("shop", workspace);
        assert_backed_up(&sandbox, &mut history, &sync, &format!("round {round}"), &[]);
    }
}

#[test]
#[ignore = "long: just test-faults"]
fn twenty_thousand_files_are_backed_up() {
    let replay = Replay::with_files(|state| {
        let mut files = Files::new();
        for number in 0..20_000 {
            let script = format!(
                "def main():\n    return {}\n",
                if number == 7 && state == State::Edited { 1_000_000 } else { number }
            );
            files.insert(format!("f/many_{}/job_{number}.py", number % 50), script.into_bytes());
        }
        files
    });
    let mut history = History::of(&replay.remote, "main");
    // Each sync takes seconds, and minutes on a busy machine.
    let sync = replay.sync().within(Duration::from_secs(600));
    let pushed = history.assert_healed("20,000 files", &sync, &replay.expected());
    assert_eq!(pushed.changed(), (20_000, 0, 0));
    replay.hold(State::Edited);
    let pushed = history.assert_healed("one of 20,000 files", &sync, &replay.expected());
    assert_eq!(pushed.changed(), (0, 1, 0));
}

#[test]
#[ignore = "long: just test-faults"]
fn a_file_of_a_hundred_megabytes_takes_little_memory() {
    // This content does not compress.
    let mut random = Random(0x5eed_0100);
    let mut large = String::with_capacity(100 << 20);
    while large.len() < 100 << 20 {
        let _ = write!(large, "{:016x}", random.below(usize::MAX));
    }
    let replay = Replay::with_files(|state| {
        let mut files = Files::from([("f/ops/job.py".to_owned(), b"1\n".to_vec())]);
        if state == State::Edited {
            files.insert("f/ops/large.resource.file.txt".to_owned(), large.clone().into_bytes());
        }
        files
    });
    let service = replay.sandbox.service().remote(&replay.remote).serve();
    replay.hold(State::Edited);
    let mut history = History::of(&replay.remote, "main");
    assert_eq!(service.post_sync("{\"wait\":false}").status, 202);
    // The sync takes half a minute, and many minutes on a busy machine.
    process::eventually_within(Duration::from_secs(1_200), "it is pushed", || {
        service.get("/status").text().contains("\"runs\":[{").then_some(())
    });
    assert!(service.get("/status").text().contains("\"code\":\"pushed\""), "{}", service.log());
    history.assert_grown("a file of 100 MB");
    let files = replay.remote.regular_files("main");
    assert!(files["f/ops/large.resource.file.txt"] == large.as_bytes(), "the content differs");
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.pid())).unwrap();
    let peak: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    assert!(peak < 40_000, "{peak} kB");
}

#[test]
fn files_outside_the_patterns_stay() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let outside = [
        ("f/elsewhere/theirs__flow/flow.yaml", "summary: theirs\n"),
        ("f/elsewhere/theirs__flow/a.ts", "// theirs\n"),
        ("f/elsewhere/own.shop.variable.yaml", "value: theirs\n"),
        ("f/elsewhere/tool.py", "theirs\n"),
    ];
    let superseded = ("f/ops/nightly__flow/flow.yaml", "summary: as it was\n");
    let settings = ("wmill.yaml", "includes: ['f/ops/**']\n");
    let all = outside.iter().chain([&superseded, &settings]);
    let commit = all.fold(remote.commit("main"), |commit, (path, content)| commit.file(path, content));
    commit.symlink("f/elsewhere/link.py", "../../README.md").done("Theirs");
    let sync = sandbox.sync().remote(&remote);
    for code in ["pushed", "unchanged"] {
        let outcome = sync.run().expect(code);
        let files = remote.files("main");
        for (path, content) in outside {
            assert_eq!(
                files.get(path).map(|(_, bytes)| bytes.as_slice()),
                Some(content.as_bytes()),
                "{path}: {outcome}"
            );
        }
        assert_eq!(files["f/elsewhere/link.py"].0, "120000");
        assert!(!files.contains_key(superseded.0) && files.contains_key("f/ops/nightly.flow/flow.yaml"));
        assert!(!files.contains_key("f/sales/job_00001.py"), "the patterns apply");
    }
}
