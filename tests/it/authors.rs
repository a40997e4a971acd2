//! Commits name the users who last edited the changed items, in their bodies or as their authors, as far as Windmill
//! reports them. A Windmill that does not report them costs only the names.

use std::collections::BTreeSet;
use std::time::Duration;

use support::*;

/// Parts of the request targets that ask for names.
const QUESTIONS: [&str; 2] = ["users/list", "/get/"];

const OURS: &str = "Windmill Git Sync <windmill@example.com>";

fn asked_for_names(sandbox: &Sandbox) -> Vec<String> {
    let targets = sandbox.windmill.requests().into_iter().map(|request| request.target);
    targets.filter(|target| QUESTIONS.iter().any(|question| target.contains(question))).collect()
}

/// Returns the trailers of the tip, as git reads them.
fn trailers(repository: &BareRepository) -> Vec<String> {
    let format = "--format=%(trailers:only,unfold)";
    let listed = repository.run(["log", "-1", format, "main"]).stdout_text();
    listed.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

fn co_authors(repository: &BareRepository) -> Vec<String> {
    let all = trailers(repository).into_iter();
    all.filter_map(|trailer| trailer.strip_prefix("Co-authored-by: ").map(str::to_owned)).collect()
}

/// Returns the commits of `main`, the first one first, with the author's time.
fn commits(repository: &BareRepository) -> Vec<(Commit, String)> {
    let times = repository.run(["log", "--format=%aI", "main"]).stdout_text();
    let mut all: Vec<_> =
        repository.log("main").into_iter().zip(times.lines().map(|time| time.replace("+00:00", "Z"))).collect();
    all.reverse();
    all
}

#[test]
#[ignore = "long: just test-long"]
fn a_commit_names_the_editors_that_a_recorded_windmill_reports() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let run = sandbox.sync().remote(&repository);
    run.run().expect("pushed");
    let message = &repository.log("main")[0].message;
    let (_, edits) = message.split_once("\n\nLast edited by\n\n").unwrap_or_else(|| panic!("{message}"));
    for item in ["app f/sales/board", "flow f/ops/nightly", "script f/ops/job_00004"] {
        assert!(edits.lines().any(|line| line == format!("{item}: admin <admin@windmill.dev>")), "{item} in {message}");
    }
    let names: Vec<_> = trailers(&repository).iter().map(|line| line.split(':').next().unwrap().to_owned()).collect();
    assert_eq!(
        names,
        ["Windmill-Workspace", "Windmill-Version", "Wmill-Version", "Windmill-Key-Fingerprint", "Co-authored-by"]
    );
    assert_eq!(co_authors(&repository), ["admin <admin@windmill.dev>"]);
    // If there is nothing to commit, no names are requested.
    sandbox.windmill.forget_requests();
    run.run().expect("unchanged");
    sandbox.windmill.state("2-edited");
    run.clone().arg("--dry-run").run().expect("dry_run");
    assert_eq!(asked_for_names(&sandbox), [""; 0]);
    run.clone().env("COMMIT_AUTHORS", "false").run().expect("pushed");
    assert_eq!(asked_for_names(&sandbox), [""; 0]);
    assert_eq!(co_authors(&repository), [""; 0]);
    assert!(!repository.log("main")[0].message.contains("edited by"));
}

#[test]
#[ignore = "long: just test-long"]
fn a_commit_names_only_the_editors_of_changed_items() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let run = sandbox.sync().remote(&repository);
    run.run().expect("pushed");
    sandbox.windmill.forget_requests();
    sandbox.windmill.users(&[("ann", "ann@example.com"), ("bob", "bob@example.com")]);
    sandbox.windmill.edit(|workspace| {
        workspace.add_bun_script("f/ops/job_00000", "edited");
        workspace.add_bun_script("f/ops/by_script", "new");
        workspace.add_bun_script("f/ops/unknown", "new");
        workspace.remove("f/sales/job_00001.py");
        workspace.remove("f/sales/job_00001.script.json");
        workspace.edited("scripts", "f/ops/job_00000", "ann", "2026-11-23T10:00:00Z");
        workspace.edited("scripts", "f/ops/by_script", "u/bob", "2026-11-23T11:00:00Z");
        workspace.edited("scripts", "f/ops/not_changed", "eve", "2026-11-23T12:00:00Z");
    });
    sandbox.windmill.single("scripts", "f/ops/unknown", "{}");
    let pushed = run.run().expect("pushed");
    let message = &repository.log("main")[0].message;
    let expected = "Last edited by\n\nscript f/ops/by_script: bob <bob@example.com>\n\
                    script f/ops/job_00000: ann <ann@example.com>\n\n";
    assert!(message.contains(expected), "{message}");
    assert!(!message.contains("eve"), "{message}");
    assert_eq!(co_authors(&repository), ["bob <bob@example.com>", "ann <ann@example.com>"]);
    assert_eq!(repository.log("main")[0].author, OURS);
    // No flow and no app has changed.
    let asked = asked_for_names(&sandbox).join("\n");
    assert!(!asked.contains("flows/") && !asked.contains("apps/"), "{asked}");
    assert_eq!(pushed.warnings(), [""; 0]);
}

#[test]
fn editors_are_requested_by_item() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    sandbox.windmill.single(
        "scripts",
        "f/ops/job_00004",
        "{\"created_by\":\"ann\",\"created_at\":\"2026-11-22T17:07:39Z\"}",
    );
    sandbox.windmill.single("scripts", "f/ops/job_00006", "{\"created_by\":\"eve@example.com\",\"content\":\"\"}");
    sandbox.windmill.single("scripts", "f/sales/job_00005", "{}");
    sandbox.windmill.single("apps", "f/sales/board", "{\"created_by\":\"admin\"}");
    sandbox.sync().remote(&repository).run().expect("pushed");
    let message = &repository.log("main")[0].message;
    for line in [
        "app f/sales/board: admin <admin@windmill.dev>",
        "script f/ops/job_00004: ann <ann@windmill.invalid>",
        "script f/ops/job_00006: eve@example.com <eve@example.com>",
    ] {
        assert!(message.lines().any(|one| one == line), "no `{line}` in {message}");
    }
    assert!(!message.contains("job_00005:"), "{message}");
}

#[test]
#[ignore = "long: just test-long"]
fn an_item_without_an_editor_costs_no_other_names() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    sandbox.windmill.users(&[("ann", "ann@example.com")]);
    let paths: Vec<_> = (0..9).map(|index| format!("f/names/s{index}")).collect();
    sandbox.windmill.edit(|workspace| {
        workspace.add_folder("names");
        for path in &paths {
            workspace.add_bun_script(path, "x");
            workspace.edited("scripts", path, "ann", "2026-11-23T10:00:00Z");
        }
    });
    let deep = format!("{{\"value\":{}1{},\"created_by\":\"ann\"}}", "[".repeat(400), "]".repeat(400));
    let many = format!("{{\"value\":[{}{{}}],\"created_by\":\"ann\"}}", "{},".repeat(100_000));
    let large = format!("{{\"value\":\"{}\",\"created_by\":\"ann\"}}", "x".repeat(3 << 20));
    for (index, answer) in [(0, deep.as_str()), (1, &many), (2, &large), (3, "{"), (5, "{}")] {
        sandbox.windmill.single("scripts", &paths[index], answer);
    }
    sandbox.windmill.fail(&format!("scripts/get/p/{}", paths[6]), Fault::Status(404));
    sandbox.windmill.fail(&format!("scripts/get/p/{}", paths[8]), Fault::Hang);
    sandbox.sync().remote(&repository).run().expect("pushed");
    let message = &repository.log("main")[0].message;
    for (path, is_named) in paths.iter().zip([true, true, false, false, true, false, false, true, false]) {
        let line = format!("script {path}: ann <ann@example.com>");
        assert_eq!(message.lines().any(|one| one == line), is_named, "{line} in {message}");
    }
}

#[test]
fn an_item_path_with_special_characters_is_requested() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let path = "f/ops/50% a?b \u{fc}";
    sandbox.windmill.edit(|workspace| {
        workspace.add_python_script(path, "new");
        workspace.edited("scripts", path, "", "2026-11-23T10:00:00Z");
    });
    sandbox.windmill.single("scripts", "f/ops/50%25%20a%3Fb%20%C3%BC", "{\"created_by\":\"ann\"}");
    sandbox.sync().remote(&repository).run().expect("pushed");
    let message = &repository.log("main")[0].message;
    assert!(message.contains(&format!("script {path}: ann <ann@windmill.invalid>\n")), "{message}");
}

#[test]
#[ignore = "long: just test-long"]
fn a_windmill_that_reports_no_editors_costs_only_the_names() {
    let html = || Fault::GatewayPage(200);
    let strange = |body: &str| Fault::Answer(200, "application/json", body.to_owned());
    let cases: [(&str, Fault); 11] = [
        ("404", Fault::Status(404)),
        ("500", Fault::Status(500)),
        ("503", Fault::Later(503, 60)),
        ("html", html()),
        ("none", Fault::Close),
        ("hang", Fault::Hang),
        ("half", Fault::HangHalfway),
        ("cut", Fault::CutHalfway),
        ("drip", Fault::Slow(1000, Duration::from_secs(1))),
        ("other", strange("{\"path\":[[{}]]}")),
        ("lines", strange("[null,7,[],{\"path\":\"f/ops/nightly\",\"edited_by\":{}},{\"path\":7}]")),
    ];
    side_by_side(&cases, |(name, fault)| {
        let sandbox = Sandbox::new();
        let repository = sandbox.repository();
        for question in QUESTIONS {
            sandbox.windmill.fail(question, fault.clone());
        }
        let outcome = sandbox.sync().remote(&repository).run().expect("pushed");
        let message = &repository.log("main")[0].message;
        assert!(!message.contains("edited by") && co_authors(&repository).is_empty(), "{name}: {message}");
        assert_eq!(outcome.warnings(), [""; 0], "{name}");
        // No request is sent again.
        let asked = asked_for_names(&sandbox);
        let distinct: BTreeSet<_> = asked.iter().collect();
        assert!(distinct.len() == asked.len() && asked.len() <= 4, "{name}: {asked:?}");
    });
}

#[test]
#[ignore = "long: just test-long"]
fn a_hostile_name_cannot_change_a_commit() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let names = [
        ("a", "x\nSigned-off-by: evil <e@e>"),
        ("b", "x> 0 +0000\ncommitter evil <e@e"),
        ("c", "\u{0}"),
        ("d", ""),
        ("e", "<>"),
        ("f", "..."),
        ("g", WINDMILL_TOKEN),
        ("h", "Signed-off-by: evil"),
        ("i", "ann\u{202e}\u{2028}b"),
    ];
    let long = "n".repeat(100_000);
    for commit_per in ["sync", "item"] {
        sandbox.windmill.edit(|workspace| {
            workspace.add_folder("names");
            for (index, name) in names.iter().map(|(_, name)| *name).chain([long.as_str()]).enumerate() {
                let path = format!("f/names/{commit_per}_{index}");
                workspace.add_bun_script(&path, "x");
                workspace.edited("scripts", &path, name, "2026-11-23T10:00:00Z");
            }
            let path = format!("f/names/{commit_per}_bad_address");
            workspace.add_bun_script(&path, "x");
            workspace.edited("scripts", &path, "mallory", "-1");
        });
        sandbox.windmill.users(&[("mallory", "m@x>\nSigned-off-by: evil <e@e")]);
        sandbox.sync().remote(&repository).env("COMMIT_PER", commit_per).run().expect("pushed");
        repository.assert_sound();
        for commit in repository.log("main") {
            assert_eq!(commit.committer, OURS);
            assert!(!commit.author.contains("mallory") && !commit.author.contains("nnnn"), "{}", commit.author);
            assert!(!commit.message.contains("\nSigned-off-by"), "{}", commit.message);
        }
        let everything = repository.everything();
        assert_nothing_leaked(&[("the repository", &everything)], &[], &[WINDMILL_TOKEN]);
    }
    let trailers = repository.run(["log", "--format=%(trailers:key=Signed-off-by)", "main"]).stdout_text();
    assert_eq!(trailers.trim(), "");
}

/// Edits items of every kind: a new script, an edited one, one in another language, a renamed one, a deleted one, a
/// flow, an app, a variable, a schedule.
fn edit_everything(windmill: &Windmill) {
    windmill.edit(|workspace| {
        workspace.add_bun_script("f/ops/job_00000", "edited");
        workspace.edited("scripts", "f/ops/job_00000", "ann", "2026-11-23T12:00:00Z");
        workspace.add_python_script("f/ops/a b 'c' \u{fc}", "new");
        workspace.edited("scripts", "f/ops/a b 'c' \u{fc}", "bob", "2026-11-23T09:30:00.5Z");
        let renamed = ["f/sales/job_00005.ts", "f/sales/job_00005.script.json"];
        let files = renamed.map(|path| (path.replace("job_00005", "renamed"), workspace.get(path).unwrap().to_vec()));
        for (path, content) in files {
            workspace.put(&path, content);
        }
        workspace.edited("scripts", "f/sales/renamed", "ann", "2026-11-23T11:00:00Z");
        for path in [&renamed[..], &["f/sales/job_00001.py", "f/sales/job_00001.script.json"]].concat() {
            workspace.remove(path);
        }
        workspace.remove("f/ops/job_00002.sh");
        workspace.put("f/ops/job_00002.ts", "export async function main() {}\n");
        workspace.edited("scripts", "f/ops/job_00002", "carl", "2999-01-01T00:00:00Z");
        for (path, from, to) in [
            ("f/ops/nightly.flow.json", "nightly", "each night"),
            ("f/sales/board.app.json", "Board", "The board"),
            ("f/ops/every_night.schedule.json", "0 0 3", "0 0 4"),
        ] {
            let text = String::from_utf8(workspace.get(path).unwrap().to_vec()).unwrap();
            workspace.put(path, text.replacen(from, to, 1));
        }
        workspace.edited("flows", "f/ops/nightly", "bob", "2026-11-23T10:00:00Z");
        workspace.edited("apps", "f/sales/board", "ann", "2026-11-23T08:00:00Z");
        workspace.add_variable("u/admin/new", "x", false);
        workspace.add_folder("empty");
    });
    windmill.users(&[("ann", "ann@example.com"), ("bob", "bob@example.com")]);
}

#[test]
fn commits_per_item_have_their_authors_and_end_in_the_same_tree() {
    let sandbox = Sandbox::new();
    let together = sandbox.repository_named("together");
    let each = sandbox.repository_named("each");
    let remote = GitHttp::serve(&each);
    for repository in [&together, &each] {
        repository.commit_files("main", &[("README.md", "ours\n")]);
    }
    let runs = [
        sandbox.sync().remote(&together),
        sandbox.sync().remote(&remote).env("COMMIT_PER", "item").env("LOG_LEVEL", "trace"),
    ];
    for run in &runs {
        run.run().expect("pushed");
    }
    let before = commits(&each).len();
    assert!(before > 15, "{before} commits of a first sync");
    edit_everything(&sandbox.windmill);
    let [as_one, as_many] = runs.map(|run| run.run().expect("pushed"));
    assert_eq!(as_one.changed(), as_many.changed());
    assert_eq!(as_many.commit(), each.tip("main"));
    assert_eq!(each.files("main"), together.files("main"));
    each.assert_sound();
    let all = commits(&each).split_off(before);
    let history: Vec<_> = all
        .iter()
        .map(|(commit, time)| {
            let item = commit.subject.strip_prefix("Automated Windmill workspace backup - shop: ");
            (item.expect("an item").to_owned(), commit.author.clone(), time.clone())
        })
        .collect();
    let said = |index: usize| (history[index].0.as_str(), history[index].1.as_str(), history[index].2.as_str());
    let names: Vec<_> = history.iter().map(|(item, _, _)| item.as_str()).collect();
    let (ann, bob) = ("ann <ann@example.com>", "bob <bob@example.com>");
    assert_eq!(
        names,
        [
            // These are deleted.
            "script f/sales/job_00001",
            "script f/sales/job_00005",
            // Windmill does not report who edited these.
            "variable u/admin/new",
            "schedule f/ops/every_night",
            "app f/sales/board",
            "script f/ops/a b 'c' \u{fc}",
            "flow f/ops/nightly",
            "script f/sales/renamed",
            "script f/ops/job_00000",
            "script f/ops/job_00002",
        ]
    );
    assert!(history[..4].iter().all(|(_, author, _)| author == OURS), "{history:?}");
    assert_eq!(said(4), ("app f/sales/board", ann, "2026-11-23T08:00:00Z"));
    assert_eq!(said(5).1, bob);
    assert_eq!(said(6), ("flow f/ops/nightly", bob, "2026-11-23T10:00:00Z"));
    assert_eq!(said(8), ("script f/ops/job_00000", ann, "2026-11-23T12:00:00Z"));
    assert_eq!(said(9).1, "carl <carl@windmill.invalid>");
    assert!(!said(9).2.starts_with("2999"), "{history:?}");
    let mut parent = all[0].0.parents[0].clone();
    for (commit, _) in &all {
        assert_eq!(commit.committer, OURS);
        assert_eq!(commit.parents, [parent]);
        assert!(commit.message.contains("\n\nWindmill-Workspace: shop\nWindmill-Version: "), "{}", commit.message);
        parent = commit.id.clone();
    }
    // Files that belong to no item are in the last commit.
    let last = each.changes(Some(&all[8].0.id), &all[9].0.id);
    assert!(last.added.contains(&"f/empty/folder.meta.yaml".to_owned()), "{last:?}");
    let flow = each.changes(Some(&all[5].0.id), &all[6].0.id);
    assert_eq!(flow.modified, ["f/ops/nightly.flow/flow.yaml"]);
    assert_eq!((flow.added.len(), flow.deleted.len()), (0, 0));
    assert!(all[6].0.message.contains("\n\n0 added, 1 modified, 0 deleted\n\nM f/ops/nightly.flow/flow.yaml\n"));
}

#[test]
#[ignore = "long: just test-long"]
fn commits_per_item_work_in_an_empty_repository_and_over_a_file_in_place_of_the_folder() {
    let sandbox = Sandbox::new();
    let empty = sandbox.sha256_repository();
    let outcome = sandbox.sync().remote(&empty).env("COMMIT_PER", "item").run().expect("pushed");
    assert_eq!(outcome.commit(), empty.tip("main"));
    assert_eq!(commits(&empty)[0].0.parents, [""; 0]);
    let (together, each) = (sandbox.repository_named("together"), sandbox.repository_named("each"));
    for (repository, commit_per) in [(&together, "sync"), (&each, "item")] {
        let files = [("backup", "a file where the folder belongs\n"), ("README.md", "ours\n")];
        repository.commit_files("main", &files);
        let run = sandbox.sync().remote(repository).subdir("backup/{workspace}").env("COMMIT_PER", commit_per);
        run.run().expect("pushed");
        run.run().expect("unchanged");
    }
    assert_eq!(each.files("main"), together.files("main"));
    assert!(commits(&each).len() > commits(&together).len());
    each.assert_sound();
}

#[test]
#[ignore = "long: just test-long"]
fn too_many_items_become_one_commit() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let run = sandbox.sync().remote(&repository).env("COMMIT_PER", "item");
    sandbox.windmill.set("shop", Workspace::empty());
    let add = |range: std::ops::Range<usize>| {
        sandbox.windmill.edit(|workspace| {
            for number in range {
                workspace.add_variable(&format!("u/admin/v{number:04}"), "x", false);
            }
        });
    };
    add(0..501);
    run.run().expect("pushed");
    assert_eq!(repository.log("main").len(), 1);
    add(501..1001);
    run.run().expect("pushed");
    assert_eq!(repository.log("main").len(), 501);
}
