//! If only some items changed, `wmill` pulls only those. The result is that of a full pull, byte for byte.

use support::process::side_by_side;
use support::windmill::SHOP;
use support::*;

use crate::edits::{Numbers, edit};

/// How many steps each of the settings below gets. This variable can set more.
const STEPS: usize = 5;
const STEPS_VARIABLE: &str = "NARROWED_STEPS";

/// The log line of a sync with a narrowed pull, and the line for a pull that became a full one.
const NARROWED: &str = "groups of items that changed: ";
const IN_DOUBT: &str = "pulling the whole workspace: ";

/// Two remotes: one is synced with the knowledge of the last sync, the other with a full pull each time.
struct Pair<'a> {
    narrowed: Run<'a>,
    full: Run<'a>,
    remotes: [BareRepository; 2],
}

impl<'a> Pair<'a> {
    fn new(sandbox: &'a Sandbox, wmill_yaml: &str, settings: &[(&str, &str)]) -> Self {
        let remotes = ["narrowed.git", "full.git"].map(|name| sandbox.repository_named(name));
        let [narrowed, full] = remotes.each_ref().map(|remote| {
            remote.commit_files("main", &[("README.md", "ours\n"), ("wmill.yaml", wmill_yaml)]);
            let run = sandbox.sync().remote(remote).env("LOG_LEVEL", "debug").env("MAX_DELETIONS_PERCENT", "100");
            settings.iter().fold(run, |run, (name, value)| run.env(name, value))
        });
        Self { narrowed, full: full.arg("--force"), remotes }
    }

    /// Syncs both, checks that the results are the same, and returns that of the run that may be narrowed.
    #[track_caller]
    fn sync(&self, what: &str) -> Outcome {
        let (narrowed, full) = (self.narrowed.run(), self.full.run());
        assert_eq!(narrowed.code(), full.code(), "{what}: {narrowed}\ninstead of\n{full}");
        assert_eq!(narrowed.changed(), full.changed(), "{what}: {narrowed}\ninstead of\n{full}");
        assert_eq!(narrowed.warnings(), full.warnings(), "{what}: {narrowed}\ninstead of\n{full}");
        let [of_narrowed, of_full] = self.remotes.each_ref().map(|remote| remote.regular_files("main"));
        assert_same_files(&of_narrowed, &of_full);
        narrowed
    }
}

fn is_narrowed(outcome: &Outcome) -> bool {
    outcome.stderr.contains(NARROWED) && !outcome.stderr.contains(IN_DOUBT)
}

#[test]
#[ignore = "long: just test-long"]
fn a_narrowed_pull_has_the_result_of_a_full_one() {
    let steps = std::env::var(STEPS_VARIABLE).map_or(STEPS, |steps| steps.parse().expect("a number"));
    let cases: [(&str, &[(&str, &str)]); 4] = [
        ("", &[]),
        ("nonDottedPaths: true\ndefaultTs: deno\n", &[("WMILL_INCLUDE", "schedules,triggers,groups,users,settings")]),
        ("includes: ['f/deep/**', 'f/ops/**']\nexcludes: ['**/*.go']\nsyncBehavior: v1\n", &[]),
        ("skipVariables: true\n", &[("GIT_SUBDIR", "windmill/{workspace}")]),
    ];
    let numbered: Vec<_> = cases.into_iter().enumerate().collect();
    for cases in numbered.chunks(2) {
        side_by_side(cases, |(number, (wmill_yaml, settings))| {
            let sandbox = Sandbox::new();
            sandbox.windmill.state("rich");
            let pair = Pair::new(&sandbox, wmill_yaml, settings);
            pair.sync("from nothing");
            let (mut numbers, mut narrowed) = (Numbers::new(*number as u64 + 1), 0);
            for step in 0..steps {
                let before = sandbox.windmill.workspace(SHOP);
                let mut done = String::new();
                sandbox.windmill.edit(|workspace| {
                    (0..=numbers.below(3)).for_each(|_| done += &(edit(workspace, &mut numbers) + "\n"));
                });
                let outcome = pair.sync(&format!("{wmill_yaml}, step {step}: {done}"));
                narrowed += usize::from(is_narrowed(&outcome));
                // An edit that wmill cannot write would fail in each later step too, so it is undone.
                if outcome.exit_code != Some(0) {
                    sandbox.windmill.set(SHOP, before);
                }
            }
            assert!(narrowed * 3 >= steps, "{narrowed} of {steps} pulls were narrowed: {wmill_yaml}");
        });
    }
}

#[track_caller]
fn check(pair: &Pair<'_>, what: &str, is_alone: bool) {
    let outcome = pair.sync(what);
    assert_eq!(is_narrowed(&outcome), is_alone, "{what}: {outcome}");
}

#[test]
fn only_the_changed_item_is_pulled() {
    let sandbox = Sandbox::new();
    sandbox.windmill.state("rich");
    let pair = Pair::new(&sandbox, "", &[]);
    let first = pair.sync("from nothing");
    assert!(!first.stderr.contains(NARROWED), "{first}");
    sandbox.windmill.put("f/ops/job_00000.ts", "export async function main() {}\n");
    check(&pair, "an edit", true);
}

/// wmill compares files that are called YAML or JSON by value, and leaves the old ones if it finds no difference.
#[test]
fn a_change_of_a_text_that_is_no_change_of_its_value_is_backed_up() {
    let sandbox = Sandbox::new();
    let pair = Pair::new(&sandbox, "", &[]);
    let texts = [
        [("c.yaml", "# prod\nmode: 0755\n"), ("c.yaml", "# test\nmode: 755\n")],
        [("i.json", "{\"id\":9007199254740993,\"b\":1.0}"), ("i.json", "{\"b\": 1, \"id\": 9007199254740992}")],
    ];
    let paths =
        |name: &str| ["f/x/set.fileset", "f/x/mod__mod", "f/x/raw.raw_app"].map(|folder| format!("{folder}/{name}"));
    for round in 0..2 {
        let files = texts.map(|rounds| rounds[round]);
        sandbox.windmill.edit(|workspace| {
            workspace.add_folder("x");
            workspace.add_fileset("f/x/set", &files);
            workspace.add_script_with_modules("f/x/mod", &files);
            let in_app = files.map(|(name, text)| (["/", name].concat(), text));
            workspace.add_raw_app("f/x/raw", &in_app.each_ref().map(|(name, text)| (name.as_str(), *text)));
            workspace.add_resource_type("json_file", Some("json"), false);
            let content = miniserde::json::to_string(files[1].1);
            workspace.add_resource("f/x/file", "json_file", &format!("{{\"content\":{content}}}"));
        });
        sandbox.windmill.shared_ui(Some(&files));
        pair.sync("texts");
        for remote in &pair.remotes {
            let found = remote.regular_files("main");
            for (name, text) in files {
                for path in paths(name) {
                    assert_eq!(found.get(&path).map(Vec::as_slice), Some(text.as_bytes()), "{path}");
                }
            }
            assert_eq!(found["f/x/file.resource.file.json"], files[1].1.as_bytes());
            assert_eq!(found["ui/c.yaml"], files[0].1.as_bytes());
            assert_eq!(found["ui/i.json"], files[1].1.as_bytes());
        }
    }
    // They are deleted with their items, like other files.
    sandbox.windmill.edit(|workspace| {
        [
            "f/x/set.resource.json",
            "f/x/mod.ts",
            "f/x/mod.script.json",
            "f/x/raw.raw_app.json",
            "f/x/file.resource.json",
        ]
        .iter()
        .for_each(|entry| workspace.remove(entry));
    });
    check(&pair, "without the items", true);
    let left = pair.remotes[0].regular_files("main");
    assert!(!left.keys().any(|path| path.starts_with("f/x/") && !path.ends_with("folder.meta.yaml")), "{left:?}");
}

#[test]
#[ignore = "long: just test-long"]
fn each_run_requests_one_export() {
    let sandbox = Sandbox::new();
    sandbox.windmill.state("rich");
    let remote = sandbox.repository();
    let sync = sandbox.sync().remote(&remote);
    let verify = sandbox.command("verify").remote(&remote);
    let check = |run: &Run<'_>, code: &str| {
        sandbox.windmill.forget_requests();
        let outcome = run.run().expect(code);
        assert_eq!(sandbox.windmill.exports(), 1, "{outcome}");
    };
    check(&sync, "pushed");
    check(&sync, "unchanged");
    sandbox.windmill.put("f/ops/job_00000.ts", "export async function main() {}\n");
    check(&sync.clone().arg("--dry-run"), "dry_run");
    check(&sync, "pushed");
    check(&sync.clone().arg("--force"), "unchanged");
    check(&verify, "unchanged");
}

#[test]
#[ignore = "long: just test-long"]
fn changes_that_affect_other_items_cause_a_full_pull() {
    let sandbox = Sandbox::new();
    sandbox.windmill.state("rich");
    let pair = Pair::new(&sandbox, "", &[]);
    pair.sync("from nothing");
    let check = |what: &str, is_alone: bool| check(&pair, what, is_alone);
    sandbox.windmill.edit(|workspace| workspace.add_bun_script("f/ops/new", "new"));
    check("a new script", true);
    sandbox
        .windmill
        .edit(|workspace| ["ts", "script.json"].iter().for_each(|end| workspace.remove(&format!("f/ops/new.{end}"))));
    check("a script that is gone", true);
    // A dry run may be narrowed too, and changes nothing for the next sync.
    sandbox.windmill.put("f/ops/job_00000.ts", "export async function main() { return 1 }\n");
    let dry = pair.narrowed.clone().arg("--dry-run").run().expect("dry_run");
    assert!(is_narrowed(&dry) && dry.changed() == (0, 2, 0), "{dry}");
    check("an edit that was shown", true);

    sandbox.windmill.edit(|workspace| workspace.add_dependencies("more.requirements.in", "x==1\n"));
    check("another workspace dependency", false);
    sandbox.windmill.file_types("{\"c_ini_file\":{\"format_extension\":\"ini\",\"is_fileset\":false}}");
    check("another map of file endings", false);
    sandbox.windmill.shared_ui(Some(&[("a.css", "a {}\n")]));
    check("another shared UI", false);
    // A person commits in our folder.
    for remote in &pair.remotes {
        remote.commit_files("main", &[("notes.md", "a person's\n")]);
    }
    sandbox.windmill.put("f/ops/job_00000.ts", "export async function main() { return 2 }\n");
    check("an edit on a person's commit", false);
    sandbox.windmill.put("f/ops/job_00000.ts", "export async function main() { return 3 }\n");
    check("an edit on our own commit", true);
}
