//! A repository that others write to: nothing that its tip holds removes anything from the backup, adds to it,
//! redirects it or runs.

use std::fs;
use std::path::PathBuf;

use miniserde::json::{self, Value};

use support::git::NewCommit;
use support::*;

/// Returns this field of this entry in recorded state `1-seeded`, with or without `plain_secret`.
fn recorded_value(path: &str, field: &str, plain: bool) -> String {
    let mut query = std::collections::BTreeMap::from([("include_key".to_owned(), "true".to_owned())]);
    query.insert("plain_secret".to_owned(), plain.to_string());
    let entries = Workspace::recorded("1-seeded").export(&query);
    let (_, content) = entries.iter().find(|(known, _)| known == path).expect(path);
    match json::from_str(std::str::from_utf8(content).unwrap()).unwrap() {
        Value::Object(fields) => match &fields[field] {
            Value::String(text) => text.clone(),
            other => json::to_string(other),
        },
        Value::String(text) => text,
        other => json::to_string(&other),
    }
}

/// Splits the files of a branch into those of others and those of Windmill.
fn split(tree: Tree, is_theirs: impl Fn(&str) -> bool) -> (Tree, Files) {
    let (theirs, windmills): (Tree, Tree) = tree.into_iter().partition(|(path, _)| is_theirs(path));
    let windmills = windmills.into_iter().map(|(path, (mode, content))| {
        assert_eq!(mode, "100644", "mode of `{path}`");
        (path, content)
    });
    (theirs, windmills.collect())
}

fn regular(files: &[(&str, &str)]) -> Tree {
    files
        .iter()
        .map(|(path, content)| ((*path).to_owned(), ("100644".to_owned(), content.as_bytes().to_vec())))
        .collect()
}

#[track_caller]
fn assert_warned(outcome: &Outcome, words: &[&str]) {
    for word in words {
        let found = outcome.warnings().iter().any(|warning| warning.contains(word));
        assert!(found, "{word} in {:#?}", outcome.warnings());
    }
}

#[test]
fn dangerous_settings_in_the_repositorys_wmill_yaml_are_named_and_ignored() {
    let sandbox = Sandbox::new();
    sandbox.windmill.token_kind(TokenKind::User);
    sandbox.windmill.set("other", Workspace::of_scripts(2));
    let remote = sandbox.repository();
    let ran = sandbox.path().join("ran");
    let hidden = "{overrides: {plainSecrets: true, includeKey: true, skipScripts: true, stateful: true}}";
    let own = format!(
        "# a person's comment\nincludeKey: true\nplainSecrets: true\nstateful: true\nworkspaceId: other\n\
         codebases: [{{relative_path: f, customBundler: 'touch {}'}}]\nworkspaces: {{shop: {hidden}, other: {hidden}}}\n\
         gitBranches: {{main: {hidden}, '*': {hidden}}}\nenvironments: {{main: {hidden}}}\noverrides: {hidden}\n\
         defaultTs: bun\n",
        ran.display()
    );
    let theirs = [
        ("wmill.yaml", own.as_str()),
        (".wmill/f/ops/job_00000.ts", "// what a stateful pull would compare with\n"),
        (".wmill/wmill-lock.yaml", "version: v2\nlocks: {}\n"),
        ("README.md", "theirs\n"),
    ];
    remote.commit_files("main", &theirs);
    let pushed = sandbox.sync().remote(&remote).run().expect("pushed");
    let is_theirs = |path: &str| theirs.iter().any(|(own, _)| *own == path);
    let (kept, windmills) = split(remote.files("main"), is_theirs);
    assert_eq!(kept, regular(&theirs));
    assert_same_files(&windmills, &pulled_alone(&sandbox, OUR_DEFAULTS));
    let named = ["includeKey", "plainSecrets", "stateful", "workspaceId", "codebases", "workspaces", "gitBranches"];
    assert_warned(&pushed, &named);
    assert_warned(&pushed, &["environments", "overrides"]);
    assert!(!ran.exists());

    for request in sandbox.windmill.requests() {
        let target = &request.target;
        assert!(!target.contains("plain_secret=true") && !target.contains("include_key=true"), "{target}");
        assert!(!target.contains("/api/w/other/"), "{target}");
    }
    let plain = recorded_value("f/ops/db_password.variable.json", "value", true);
    let key = recorded_value("encryption_key.json", "key", false);
    assert_nothing_leaked(&[("objects", &remote.everything())], &[&sandbox.data()], &[&plain, &key]);
    sandbox.sync().remote(&remote).run().expect("unchanged");
}

#[test]
#[ignore = "long: just test-hostile"]
fn layout_scope_and_kinds_in_the_repositorys_wmill_yaml_apply() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    // The repository's HEAD names this branch.
    remote.commit_files("main", &[("README.md", "another branch\n")]);
    let kinds = "includeSchedules: true\nincludeTriggers: true\nincludeGroups: true\n";
    let check = |branch: &str, own: &str, warned: &[&str]| {
        remote.commit_files(branch, &[("wmill.yaml", own)]);
        let pushed = sandbox.sync().remote(&remote).branch(branch).run().expect("pushed");
        let (kept, windmills) = split(remote.files(branch), |path| path == "wmill.yaml");
        assert_eq!(kept, regular(&[("wmill.yaml", own)]));
        assert_same_files(&windmills, &pulled_alone(&sandbox, &format!("{kinds}{own}")));
        assert_warned(&pushed, warned);
        assert_eq!(pushed.warnings().is_empty(), warned.is_empty(), "{:?}", pushed.warnings());
        windmills
    };
    let files = check("layout", "nonDottedPaths: true\ndedupeLockfiles: true\ndefaultTs: deno\n", &[]);
    assert!(files.contains_key("f/ops/nightly__flow/flow.yaml"));
    assert!(sandbox.windmill.requests().iter().any(|request| request.target.contains("default_ts=deno")));
    let files = check("scope", "includes: ['f/ops/**']\nexcludes: ['**/*.go']\n", &["includes, excludes"]);
    assert!(files.contains_key("f/ops/job_00000.ts") && !files.contains_key("f/sales/job_00001.py"));
    let files = check("kinds", "skipSecrets: true\n", &["skipSecrets"]);
    assert!(!files.contains_key("f/ops/db_password.variable.yaml"));

    // A setting overrides the file.
    let own = "skipSecrets: true\nskipScripts: true\nincludeGroups: false\nincludeUsers: true\n";
    remote.commit_files("settings", &[("wmill.yaml", own)]);
    let sync = sandbox.sync().remote(&remote).branch("settings").env("WMILL_SKIP", "none");
    let pushed = sync.env("WMILL_INCLUDE", "groups").run().expect("pushed");
    let files = remote.files("settings");
    assert!(files.contains_key("f/ops/db_password.variable.yaml") && files.contains_key("f/ops/job_00000.ts"));
    assert!(files.contains_key("groups/oncall.group.yaml"));
    assert!(!files.contains_key("users/admin@windmill.dev.user.yaml"));
    assert_warned(&pushed, &["ignored in the repository's `wmill.yaml`: skipSecrets, skipScripts"]);
}

#[test]
#[ignore = "long: just test-hostile"]
fn links_and_submodules_are_not_followed() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    // The repository's HEAD names this branch.
    remote.commit_files("main", &[("README.md", "another branch\n")]);
    let outside = sandbox.scratch("outside");
    for (path, content) in [("ops/job_00000.ts", "// outside\n"), ("keep.py", "outside\n"), ("target", "outside\n")] {
        let path = outside.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let before = files_below(&outside);
    let at = |path: &str| outside.join(path).display().to_string();
    let alone = pulled_alone(&sandbox, OUR_DEFAULTS);
    let nowhere = "1".repeat(40);
    type Trick<'a> = (&'a str, Box<dyn Fn(NewCommit<'_>) -> String + 'a>, &'a [&'a str]);
    let tricks: Vec<Trick<'_>> = vec![
        ("f-link", Box::new(|commit| commit.symlink("f", &at("")).done("x")), &["of the repository: f"]),
        ("ops-link", Box::new(|commit| commit.symlink("f/ops", &at("ops")).done("x")), &["f/ops"]),
        ("f-submodule", Box::new(|commit| commit.submodule("f", &nowhere).done("x")), &["of the repository: f"]),
        (
            "script-link",
            Box::new(|commit| {
                let commit = commit.symlink("f/ops/job_00000.ts", &at("target"));
                commit.symlink("f/ops/nightly.flow/flow.yaml", &at("target")).done("x")
            }),
            &["f/ops/job_00000.ts", "f/ops/nightly.flow/flow.yaml"],
        ),
        ("lock-link", Box::new(|commit| commit.symlink("wmill-lock.yaml", &at("target")).done("x")), &["wmill-lock"]),
        (
            "lock-submodule",
            Box::new(|commit| commit.submodule("wmill-lock.yaml", &nowhere).done("x")),
            &["wmill-lock.yaml"],
        ),
    ];
    for (branch, trick, named) in &tricks {
        let commit = remote.commit(branch).file("README.md", "stays\n");
        let commit = commit.symlink("docs/readme", "../README.md").symlink("docs/outside", &at("target"));
        trick(commit.submodule("vendor/library", &nowhere).file(".gitmodules", "[submodule \"vendor\n"));
        let pushed = sandbox.sync().remote(&remote).branch(branch).run().expect("pushed");
        let is_theirs =
            |path: &str| ["README.md", "docs/", "vendor/", ".gitmodules"].iter().any(|p| path.starts_with(p));
        let (kept, windmills) = split(remote.files(branch), is_theirs);
        let modes: Vec<_> = kept.iter().map(|(path, (mode, _))| (path.as_str(), mode.as_str())).collect();
        assert_eq!(
            modes,
            [
                (".gitmodules", "100644"),
                ("README.md", "100644"),
                ("docs/outside", "120000"),
                ("docs/readme", "120000"),
                ("vendor/library", "160000")
            ]
        );
        assert_same_files(&windmills, &alone);
        assert_same_files(&files_below(&outside), &before);
        assert_warned(&pushed, named);
    }
    let again = sandbox.sync().remote(&remote).branch("f-link").run().expect("unchanged");
    assert_eq!(again.warnings(), [""; 0]);
}

/// Returns the path of a trace file, and a script that writes this file when it runs.
fn traps(sandbox: &Sandbox) -> (PathBuf, String) {
    let trace = sandbox.path().join("trace");
    let script = format!("#!/bin/sh\ntouch '{}'\ncat\n", trace.display());
    (trace, script)
}

#[test]
fn every_pulled_file_arrives_byte_for_byte_despite_git_attributes_and_configuration() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let (trace, script) = traps(&sandbox);
    // A conversion would change these bytes.
    let odd = "// $Id$ $Format:%H$\r\n// é \u{feff}\nexport async function main() {\r\n  return 1\r\n}\n";
    sandbox.windmill.put("f/ops/job_00000.ts", odd);
    let attributes = "* text eol=crlf ident filter=evil export-subst working-tree-encoding=UTF-16 diff=evil merge=evil\n\
                      *.py -diff binary\n[attr]x filter=evil\n";
    let theirs = [
        (".gitignore", "*\n!.gitignore\n"),
        ("f/.gitignore", "**\n"),
        (".gitattributes", attributes),
        ("f/ops/.gitattributes", attributes),
        (".mailmap", "Evil <windmill@example.com>\n"),
        ("hooks/pre-push", script.as_str()),
        (".githooks/pre-commit", script.as_str()),
        ("info/exclude", "*\n"),
        ("info/attributes", attributes),
        ("config", "[core]\n\tfsmonitor = ./hooks/pre-push\n"),
        ("HEAD", "ref: refs/heads/evil\n"),
        ("objects/x", "x\n"),
        ("refs/heads/x", "x\n"),
        ("package.json", "{\"type\": 1, \"main\": \"nowhere\"\n"),
        ("node_modules/windmill-client/index.js", "throw 1\n"),
        (".npmrc", "registry=http://127.0.0.1:1/\n"),
        ("bunfig.toml", "preload = ['./evil.ts']\n"),
        (".env", "WMILL_TOKEN=evil\n"),
    ];
    let commit = theirs.iter().fold(remote.commit("main"), |commit, (path, content)| commit.file(path, content));
    commit.executable("bin/git", &script).executable("wmill", &script).done("Tricks");

    // The user's own configuration, and variables that git reads.
    let trap = sandbox.program("trap", script.strip_prefix("#!/bin/sh\n").unwrap());
    let trap = trap.display();
    let hooks = sandbox.home().join("hooks");
    fs::create_dir_all(&hooks).unwrap();
    for hook in ["pre-commit", "post-checkout", "pre-push", "reference-transaction", "post-index-change"] {
        fs::copy(sandbox.bin().join("trap"), hooks.join(hook)).unwrap();
    }
    let hooks = hooks.display();
    let elsewhere = sandbox.repository_named("elsewhere");
    fs::write(sandbox.home().join("everything"), "* filter=evil text eol=crlf\n").unwrap();
    fs::write(sandbox.home().join("ignored"), "*\n").unwrap();
    let home = sandbox.home();
    let home = home.display();
    let config = format!(
        "[core]\n\thooksPath = {hooks}\n\tautocrlf = true\n\texcludesFile = {home}/ignored\n\
         \tattributesFile = {home}/everything\n\tfsmonitor = {trap}\n\tsshCommand = {trap}\n\tpager = {trap}\n\
         \teditor = {trap}\n[filter \"evil\"]\n\tclean = {trap}\n\tsmudge = {trap}\n\trequired = true\n\
         [diff \"evil\"]\n\ttextconv = {trap}\n\tcommand = {trap}\n[url \"{}\"]\n\tinsteadOf = {}\n\
         [commit]\n\tgpgSign = true\n[gpg]\n\tprogram = {trap}\n[credential]\n\thelper = !{trap}\n\
         [push]\n\tfollowTags = true\n[user]\n\tname = Nobody\n\temail = nobody@example.com\n",
        elsewhere.url(),
        remote.url()
    );
    fs::create_dir_all(sandbox.home().join(".config/git")).unwrap();
    fs::write(sandbox.home().join(".gitconfig"), &config).unwrap();
    fs::write(sandbox.home().join(".config/git/config"), &config).unwrap();
    let pushed = sandbox
        .sync()
        .remote(&remote)
        .env("XDG_CONFIG_HOME", &format!("{home}/.config"))
        .env("GIT_CONFIG_GLOBAL", &format!("{home}/.gitconfig"))
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "core.hooksPath")
        .env("GIT_CONFIG_VALUE_0", &hooks.to_string())
        .env("GIT_DIR", "/nonexistent")
        .env("GIT_WORK_TREE", "/nonexistent")
        .env("GIT_INDEX_FILE", "/nonexistent/index")
        .env("GIT_AUTHOR_NAME", "Nobody")
        .env("GIT_EXTERNAL_DIFF", &trap.to_string())
        .env("GIT_SSH_COMMAND", &trap.to_string())
        .env("GIT_ASKPASS", &trap.to_string())
        .env("WMILL_CONFIG_DIR", &home.to_string())
        .env("NODE_OPTIONS", "--require=/nonexistent.js")
        .run()
        .expect("pushed");
    assert_eq!(pushed.commit(), remote.tip("main"));
    assert_eq!(elsewhere.refs(), "");
    assert!(!trace.exists(), "something of the repository or the user ran");
    let (kept, windmills) = split(remote.files("main"), |path| {
        theirs.iter().any(|(own, _)| *own == path) || ["bin/git", "wmill"].contains(&path)
    });
    let mut expected = regular(&theirs);
    expected.extend(["bin/git", "wmill"].map(|p| (p.to_owned(), ("100755".to_owned(), script.clone().into_bytes()))));
    assert_eq!(kept, expected);
    assert_same_files(&windmills, &pulled_alone(&sandbox, OUR_DEFAULTS));
    assert_eq!(windmills["f/ops/job_00000.ts"], odd.as_bytes());
    assert_eq!(remote.log("main")[0].author, "Windmill Git Sync <windmill@example.com>");
    sandbox.sync().remote(&remote).run().expect("unchanged");
}

/// Checks each trick on a branch with a README: the backup arrives, and the README stays.
#[track_caller]
fn check_tricks(tricks: &[(&str, &str, &str)]) {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let alone = pulled_alone(&sandbox, OUR_DEFAULTS);
    for (name, path, content) in tricks {
        let commit = remote.commit(name).file("README.md", "stays\n");
        let target = content.strip_prefix("-> ");
        match target {
            Some(target) => commit.symlink(path, target).done("A trick"),
            None => commit.file(path, content).done("A trick"),
        };
        // If the trick is the only item on the branch, the sync deletes all items.
        let sync = sandbox.sync().remote(&remote).branch(name).arg("--allow-mass-deletion");
        let pushed = sync.run();
        assert_eq!(pushed.code(), "pushed", "{name}: {pushed}");
        let (kept, windmills) =
            split(remote.files(name), |known| known == "README.md" || (known == *path && !alone.contains_key(known)));
        assert!(kept.contains_key("README.md"));
        assert_same_values(&windmills, &alone);
        // The next run finds nothing to do. Without the trick, it would be like any other run.
        if kept.len() > 1 {
            let again = sync.run();
            assert_eq!(again.code(), "unchanged", "{name}: {again}");
        }
    }
}

#[test]
#[ignore = "long: just test-hostile"]
fn files_that_wmill_cannot_read_do_not_stop_the_backup() {
    let malformed = "a: [\n";
    let huge = format!("# {}\nskipScripts: true\n", "x".repeat(300 << 10));
    check_tricks(&[
        ("malformed-settings", "wmill.yaml", malformed),
        ("huge-settings", "wmill.yaml", &huge),
        ("linked-settings", "wmill.yaml", "-> /etc/passwd"),
        ("settings-folder", "wmill.yaml/x", "x\n"),
        ("malformed-lock", "wmill-lock.yaml", malformed),
        ("lock-of-another-version", "wmill-lock.yaml", "version: v99\nlocks: []\n"),
        ("malformed-item", "f/ops/db.resource.yaml", malformed),
        ("malformed-item-of-nobody", "f/ops/nobodys.variable.yaml", malformed),
        ("malformed-script", "f/ops/job_00000.script.yaml", "\u{1}: [\n"),
    ]);
}

#[test]
#[ignore = "long: just test-hostile"]
fn files_that_block_wmill_are_replaced() {
    check_tricks(&[
        ("malformed-flow", "f/ops/nightly.flow/flow.yaml", "a: [\n"),
        ("file-for-a-folder", "f/ops", "a file\n"),
        ("file-for-f", "f", "a file\n"),
        ("folder-for-a-script", "f/ops/job_00000.ts/x.txt", "x\n"),
        ("folder-for-the-lock", "wmill-lock.yaml/x", "x\n"),
        ("other-layout", "docs/x__flow/flow.yaml", "summary: theirs\n"),
        ("a-file-in-the-other-layout", "docs/x__app/y.txt", "theirs\n"),
        ("an-item-in-the-other-layout", "f/ops/nightly__flow/flow.yaml", "summary: as it was\n"),
        ("dangling-link", "f/ops/theirs", "-> nowhere"),
    ]);
}

#[test]
#[ignore = "long: just test-long"]
fn a_file_that_blocks_wmill_is_replaced_despite_patterns() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let settings = "includes: ['f/ops/**']\n";
    let obstacle =
        remote.commit("main").file("wmill.yaml", settings).file("f/ops", "a file\n").file("README.md", "stays\n");
    obstacle.done("A trick");
    let pushed = sandbox.sync().remote(&remote).run().expect("pushed");
    assert_warned(&pushed, &["pulled again", "patterns"]);
    let (kept, windmills) = split(remote.files("main"), |path| ["wmill.yaml", "README.md"].contains(&path));
    assert_eq!(kept.len(), 2);
    assert_same_values(&windmills, &pulled_alone(&sandbox, OUR_DEFAULTS));
}

#[test]
#[ignore = "long: just test-hostile"]
fn names_that_git_does_not_check_out_do_not_stop_the_backup() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    // The repository's HEAD names this branch.
    remote.commit_files("main", &[("README.md", "another branch\n")]);
    let (trace, script) = traps(&sandbox);
    let alone = pulled_alone(&sandbox, OUR_DEFAULTS);
    let blob = remote.store_blob(b"stays\n");
    let evil = remote.store_blob(script.as_bytes());
    let config = remote.store_blob(format!("[core]\n\tfsmonitor = {}\n", trace.display()).as_bytes());
    let hooks = remote.store_raw_tree(&[("100755", b"post-checkout", &evil)]);
    let repository = remote.store_raw_tree(&[("100644", b"config", &config), ("40000", b"hooks", &hooks)]);
    let ops = remote.store_raw_tree(&[("40000", b".git", &repository), ("100644", b"notes.md", &blob)]);
    let f = remote.store_raw_tree(&[("40000", b"ops", &ops)]);
    let up = remote.store_raw_tree(&[("100644", b"evil.txt", &evil)]);
    let readme = |mut entries: Vec<(&'static str, &'static [u8], String)>| {
        entries.push(("100644", b"README.md", blob.clone()));
        entries.sort_by_key(|(_, name, _)| name.to_vec());
        let entries: Vec<_> = entries.iter().map(|(mode, name, id)| (*mode, *name, id.as_str())).collect();
        remote.store_raw_tree(&entries)
    };
    for (branch, tree) in [
        ("top", readme(vec![("40000", b".git", repository.clone())])),
        ("upper-case", readme(vec![("40000", b".GIT", repository.clone())])),
        ("a-file", readme(vec![("100644", b".git", evil.clone())])),
        ("nested", readme(vec![("40000", b"f", f)])),
        ("up", readme(vec![("40000", b"..", up.clone())])),
        ("here", readme(vec![("40000", b".", up.clone())])),
        ("double", readme(vec![("100644", b"f", evil.clone()), ("40000", b"f", up)])),
        ("links-of-git", readme(vec![("120000", b".gitmodules", evil.clone())])),
    ] {
        remote.commit_tree(branch, &tree, "Names");
        let pushed = sandbox.sync().remote(&remote).branch(branch).run();
        assert_eq!(pushed.code(), "pushed", "{branch}: {pushed}");
        let (kept, windmills) = split(remote.files(branch), |path| !alone.contains_key(path));
        assert_same_files(&windmills, &alone);
        assert_eq!(kept["README.md"].1, b"stays\n");
        assert_warned(&pushed, &["git cannot check out"]);
        assert!(!trace.exists());
        assert!(!sandbox.data().join("windmill-git-sync/checkouts/evil.txt").exists());
    }
    let again = sandbox.sync().remote(&remote).branch("links-of-git").run().expect("unchanged");
    assert_eq!(again.warnings(), [""; 0]);
}

#[test]
#[ignore = "long: just test-hostile"]
fn a_path_too_long_for_the_system_stays_and_does_not_stop_the_backup() {
    for folders in [20, 16, 13] {
        let sandbox = Sandbox::new();
        let remote = sandbox.repository();
        let path = ["f", &vec!["d".repeat(250); folders].join("/"), "notes.txt"].join("/");
        remote.commit_files("main", &[("README.md", "ours\n"), (&path, "stays\n")]);
        for state in ["1-seeded", "2-edited"] {
            sandbox.windmill.state(state);
            let pushed = sandbox.sync().remote(&remote).run().expect("pushed");
            assert_warned(&pushed, &["not checked out", &format!("… ({} bytes)", path.len())]);
            assert_eq!(remote.files("main")[path.as_str()].1, b"stays\n");
        }
        sandbox.command("verify").remote(&remote).run().expect("unchanged");
        let again = sandbox.sync().remote(&remote).run().expect("unchanged");
        assert_warned(&again, &["not checked out"]);
        sandbox.command("restore").remote(&remote).run().expect("unchanged");
    }
}

#[test]
#[ignore = "long: just test-hostile"]
fn a_file_that_stops_wmill_leads_to_a_pull_into_an_empty_folder() {
    let narrowed = ", whatever its patterns leave out";
    for (patterns, more) in [("", ""), ("excludes: ['f/none/**']\n", narrowed)] {
        let sandbox = Sandbox::new();
        let remote = sandbox.repository();
        remote.commit_files("main", &[("notes/trap.txt", "stays\n"), ("wmill.yaml", patterns)]);
        let trap = "[ ! -e notes/trap.txt ] || { echo 'Error: trapped'; exit 1; }";
        sandbox.program("wmill", &format!("{trap}\nexec '{}' \"$@\"", wmill().display()));
        let pushed = sandbox.sync().remote(&remote).run().expect("pushed");
        let warning =
            "wmill cannot work with the repository's files, so the workspace was pulled again into an empty folder";
        assert!(pushed.warnings().contains(&[warning, more].concat()), "{pushed}");
        let files = remote.files("main");
        assert!(files["notes/trap.txt"].1 == b"stays\n" && files.contains_key("f/ops/job_00000.ts"), "{pushed}");
    }
}

#[test]
#[ignore = "long: just test-hostile"]
fn files_outside_our_folder_are_not_read_and_not_changed() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let alone = pulled_alone(&sandbox, OUR_DEFAULTS);
    let blob = remote.store_blob(b"theirs\n");
    let up = remote.store_raw_tree(&[("100644", b"evil.txt", &blob)]);
    // There are more files beside our folder than a backup may hold.
    let names: Vec<String> = (0..250_001).map(|index| format!("{index:06}")).collect();
    let many: Vec<_> = names.iter().map(|name| ("100644", name.as_bytes(), blob.as_str())).collect();
    let many = remote.store_raw_tree(&many);
    let link = remote.store_blob(b"/etc/passwd");
    let beside = remote.store_raw_tree(&[("40000", b"..", &up), ("120000", b"link", &link), ("100755", b"run", &blob)]);
    let theirs: [(&str, &[u8], &str); 4] = [
        ("40000", b".GIT", &up),
        ("120000", b".gitmodules", &link),
        ("40000", b"many", &many),
        ("160000", b"module", &"1".repeat(40)),
    ];
    for (branch, in_the_way) in [("folder", ("40000", beside.as_str())), ("file", ("100644", blob.as_str()))] {
        let backups = (in_the_way.0, b"backups".as_slice(), in_the_way.1);
        let root = [&theirs[..2], &[backups], &theirs[2..]].concat();
        remote.commit_tree(branch, &remote.store_raw_tree(&root), "Theirs");
        let entries = |path: &str| {
            let listed = remote.run(["ls-tree", &format!("{branch}:{path}")]).stdout_text();
            listed.lines().map(str::to_owned).filter(|line| !line.ends_with("\tours")).collect::<Vec<_>>()
        };
        let is_backups = |line: &&String| !line.ends_with("\tbackups");
        let outside: Vec<_> = entries("").iter().filter(is_backups).cloned().collect();
        for per in ["sync", "item"] {
            sandbox.windmill.state(if per == "sync" { "1-seeded" } else { "2-edited" });
            let sync = sandbox.sync().remote(&remote).branch(branch).subdir("backups/ours");
            let pushed = sync.env("COMMIT_PER", per).run().expect("pushed");
            assert_eq!(entries("").iter().filter(is_backups).cloned().collect::<Vec<_>>(), outside, "{branch}, {per}");
            let is_told = pushed.warnings().iter().any(|warning| warning.contains("is not a folder and was replaced"));
            assert_eq!(is_told, branch == "file" && per == "sync", "{:?}", pushed.warnings());
            assert!(!pushed.warnings().iter().any(|warning| warning.contains("cannot check out")), "{pushed}");
        }
        sandbox.windmill.state("1-seeded");
        sandbox.sync().remote(&remote).branch(branch).subdir("backups/ours").run().expect("pushed");
        let kept = if branch == "folder" { ["..", "link", "run"].as_slice() } else { &[] };
        let names: Vec<_> = entries("backups").iter().map(|line| line.split('\t').nth(1).unwrap().to_owned()).collect();
        assert_eq!(names, kept, "beside our folder");
        let ours = remote.run(["ls-tree", "-r", "--name-only", &format!("{branch}:backups/ours")]).stdout_text();
        assert!(ours.lines().eq(alone.keys().map(String::as_str)), "{ours}");
    }

    // In our folder, the same number of files is too many.
    let outcome = sandbox.sync().remote(&remote).branch("folder").subdir("many").run().expect("pull_failed");
    assert!(outcome.message().contains("`many` in the repository has 250001 entries"), "{outcome}");
    assert!(outcome.message().contains("250000"), "{outcome}");
}

#[test]
#[ignore = "long: just test-hostile"]
fn a_second_tree_entry_with_the_name_of_our_folder_is_removed() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let blob = remote.store_blob(b"theirs\n");
    let first = remote.store_raw_tree(&[("100644", b"first.txt", &blob)]);
    let second = remote.store_raw_tree(&[("100644", b"second.txt", &blob)]);
    for (branch, mode, object) in [("folder", "40000", &first), ("file", "100644", &blob)] {
        let root = remote.store_raw_tree(&[(mode, b"backup", object), ("40000", b"backup", &second)]);
        remote.commit_tree(branch, &root, "Twice");
        let sync = || sandbox.sync().remote(&remote).branch(branch).subdir("backup");
        sync().run().expect("pushed");
        let entries = remote.run(["ls-tree", "--name-only", branch]).stdout_text();
        assert_eq!(entries, "backup\n", "{branch}");
        sync().arg("--force").run().expect("unchanged");
        sandbox.command("verify").remote(&remote).branch(branch).subdir("backup").run().expect("unchanged");
    }
}
