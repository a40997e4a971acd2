//! What `wmill` takes from Windmill besides the export: shared UI files, workspace-specific items and filesets.
//! Windmill chooses their names, so a name may point outside the folder, and `wmill` itself ignores failures there.

use std::fs;
use std::path::PathBuf;

use support::*;

/// The endpoints that `wmill` asks besides the export.
const ENDPOINTS: [&str; 3] =
    ["shared_ui/get", "workspaces/list_ws_specific", "resources/file_resource_type_to_file_ext_map"];

/// Returns the files below `ui/` of a branch, with their modes.
fn ui_of(remote: &BareRepository, branch: &str) -> Tree {
    let mut tree = remote.files(branch);
    tree.retain(|path, _| path == "ui" || path.starts_with("ui/"));
    tree
}

fn regular(files: &[(&str, &str)]) -> Tree {
    let regular = |content: &str| ("100644".to_owned(), content.as_bytes().to_vec());
    files.iter().map(|(path, content)| ((*path).to_owned(), regular(content))).collect()
}

/// Returns the path of a trace file, and a command that writes this file, whatever its input is.
fn trap(sandbox: &Sandbox) -> (PathBuf, String) {
    let trace = sandbox.path().join("trace");
    let trap = sandbox.program("trap", &format!("touch '{}'\ncat", trace.display()));
    (trace, trap.display().to_string())
}

/// Asserts that no file of our binary contains this text.
#[track_caller]
fn assert_nowhere_written(sandbox: &Sandbox, needle: &str) {
    for (path, content) in files_below(&sandbox.data()) {
        assert!(!String::from_utf8_lossy(&content).contains(needle), "`{path}` holds {needle}");
    }
}

#[test]
#[ignore = "long: just test-long"]
fn a_failed_request_to_a_side_endpoint_fails_the_sync() {
    let faults = [(Fault::Status(500), "500"), (Fault::GatewayPage(502), "502"), (Fault::Status(403), "403")];
    let cases: Vec<_> = ENDPOINTS.iter().flat_map(|endpoint| faults.clone().map(|fault| (*endpoint, fault))).collect();
    side_by_side(&cases, |(endpoint, (fault, status))| {
        let sandbox = Sandbox::new();
        let remote = sandbox.repository();
        let sync = sandbox.sync().remote(&remote);
        for state in ["1-seeded", "2-edited"] {
            sandbox.windmill.state(state);
            let before = remote.refs();
            sandbox.windmill.fail(endpoint, fault.clone());
            let failed = sync.run();
            assert_eq!(failed.code(), "pull_failed", "{endpoint} {status}: {failed}");
            assert!(failed.message().contains(endpoint), "{endpoint} {status}: {failed}");
            assert!(failed.message().contains(status), "{endpoint} {status}: {failed}");
            assert_eq!(remote.refs(), before, "{endpoint} {status}");
            sandbox.windmill.heal();
            sync.run().expect("pushed");
        }
    });
}

#[test]
#[ignore = "long: just test-long"]
fn each_side_endpoint_gets_one_request_and_may_be_missing() {
    let sandbox = Sandbox::new();
    sandbox.windmill.shared_ui(Some(&[("lib/x.ts", "x\n")]));
    sandbox.windmill.ws_specific(Some(&[]));
    let remote = sandbox.repository();
    let sync = sandbox.sync().remote(&remote);
    sync.run().expect("pushed");
    let requests = sandbox.windmill.requests();
    for endpoint in ENDPOINTS {
        let asked: Vec<_> = requests.iter().filter(|request| request.target.contains(endpoint)).collect();
        assert!(asked.len() == 1 && asked[0].is_ours, "{endpoint} is asked once, and by us: {asked:?}");
    }
    for endpoint in ENDPOINTS {
        let branch = endpoint.replace('/', "-");
        sandbox.windmill.fail(endpoint, Fault::Status(404));
        sandbox.sync().remote(&remote).branch(&branch).run().expect("pushed");
        sandbox.windmill.heal();
        let has_ui = remote.files(&branch).contains_key("ui/lib/x.ts");
        assert_eq!(has_ui, endpoint != ENDPOINTS[0], "{endpoint}");
    }
}

#[test]
#[ignore = "long: just test-hostile"]
fn a_shared_ui_file_with_an_invalid_name_does_not_reach_wmill() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let (trace, trap) = trap(&sandbox);
    let planted = "PLANTED-UI-7f31";
    let config =
        format!("# {planted}\n[core]\n\tfsmonitor = \"{trap}\"\n\tsshCommand = \"{trap}\"\n\thooksPath = ../tree/ui\n");
    let outside = sandbox.path().join("outside");
    let absolute = outside.display().to_string();
    let up = "../".repeat(12) + absolute.trim_start_matches('/');
    let names = ["../../git/config", "/etc/x", &absolute, &up, "../b", ".GIT/config"];
    let check = |name: &str| {
        sandbox.windmill.shared_ui(Some(&[("good.ts", "good\n"), (name, &config)]));
        let outcome = sandbox.sync().remote(&remote).run().expect("incomplete");
        assert!(outcome.message().contains("cannot be backed up: the shared UI (the name"), "`{name}`: {outcome}");
        assert!(remote.files("main").keys().all(|path| !path.starts_with("ui/")), "`{name}`");
        assert!(!trace.exists() && !outside.exists(), "`{name}`");
        assert_nowhere_written(&sandbox, planted);
    };
    for name in names {
        check(name);
    }
    // The same holds with an existing checkout.
    sandbox.windmill.shared_ui(None);
    sandbox.sync().remote(&remote).run().expect("unchanged");
    check("../../git/config");
    check("../git/config");
    sandbox.windmill.shared_ui(None);
    sandbox.sync().remote(&remote).run().expect("unchanged");
    assert!(!trace.exists());
}

#[test]
fn a_shared_ui_file_with_an_unusual_valid_name_is_backed_up() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let names = ["..a/b.ts", "a../b.ts", "a.git/b.ts", ".gitx", ".gitignore", "...", ".a/b", "git/config", "é ü.ts"];
    let files: Vec<_> = names.iter().map(|name| (*name, "*\n")).collect();
    sandbox.windmill.shared_ui(Some(&files));
    sandbox.sync().remote(&remote).run().expect("pushed");
    let expected: Vec<_> = names.iter().map(|name| format!("ui/{name}")).collect();
    let expected: Vec<_> = expected.iter().map(|path| (path.as_str(), "*\n")).collect();
    assert_eq!(ui_of(&remote, "main"), regular(&expected));
    sandbox.sync().remote(&remote).run().expect("unchanged");
}

#[test]
#[ignore = "long: just test-long"]
fn shared_ui_files_arrive_byte_for_byte_and_follow_windmill() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let attributes = "* text eol=crlf ident working-tree-encoding=UTF-16\n";
    remote.commit_files("main", &[(".gitattributes", attributes), (".gitignore", "ui\n*.ts\n"), ("README.md", "r\n")]);
    let sync = sandbox.sync().remote(&remote);
    let odd = "\u{feff}// $Id$ é \"\\\r\nx\n\r\n\u{2028}\t no end";
    let check = |files: &[(&str, &str)], code: &str| {
        sandbox.windmill.shared_ui(Some(files));
        let outcome = sync.run().expect(code);
        let paths: Vec<_> = files.iter().map(|(name, _)| format!("ui/{name}")).collect();
        let expected: Vec<_> = paths.iter().zip(files).map(|(path, (_, content))| (path.as_str(), *content)).collect();
        assert_eq!(ui_of(&remote, "main"), regular(&expected));
        assert_eq!(remote.files("main")["README.md"].1, b"r\n");
        outcome
    };
    check(&[("lib/x.ts", odd), ("a.css", ""), ("gone/deep/y.ts", "y\n")], "pushed");
    check(&[("lib/x.ts", odd), ("a.css", ""), ("gone/deep/y.ts", "y\n")], "unchanged");
    let edited = check(&[("lib/x.ts", "edited\r\n"), ("a.css", "")], "pushed");
    assert_eq!(edited.changed(), (0, 1, 1));
    // A file replaces a folder, and a folder replaces a file.
    check(&[("lib", "a file now\n"), ("a.css/b", "below now\n")], "pushed");
    check(&[("lib", "a file now\n"), ("a.css/b", "below now\n")], "unchanged");
    check(&[], "pushed");
    check(&[], "unchanged");
}

#[test]
#[ignore = "long: just test-long"]
fn shared_ui_files_arrive_in_the_folder_of_the_backup() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    remote.commit_files("main", &[("ui/README.md", "theirs\n"), ("ui/lib/x.ts", "theirs\n")]);
    let sync = sandbox.sync().remote(&remote).subdir("prod/shop");
    sandbox.windmill.shared_ui(Some(&[("lib/x.ts", "x\n")]));
    sync.run().expect("pushed");
    assert_eq!(remote.files("main")["prod/shop/ui/lib/x.ts"].1, b"x\n");
    sandbox.windmill.shared_ui(Some(&[]));
    sync.run().expect("pushed");
    assert!(!remote.files("main").contains_key("prod/shop/ui/lib/x.ts"));
    assert_eq!(ui_of(&remote, "main"), regular(&[("ui/README.md", "theirs\n"), ("ui/lib/x.ts", "theirs\n")]));
}

#[test]
#[ignore = "long: just test-hostile"]
fn files_that_block_the_shared_ui_are_replaced() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let outside = sandbox.scratch("outside");
    fs::write(outside.join("x.ts"), "outside\n").unwrap();
    let target = outside.display().to_string();
    sandbox.windmill.shared_ui(Some(&[("lib/x.ts", "x\n"), ("y.ts", "y\n")]));
    let start = |branch| remote.commit(branch).file("README.md", "stays\n");
    start("ui-file").file("ui", "a file\n").done("x");
    start("lib-file").file("ui/lib", "a file\n").done("x");
    start("script-folder").file("ui/y.ts/z", "below\n").done("x");
    start("ui-link").symlink("ui", &target).done("x");
    start("lib-link").symlink("ui/lib", &target).done("x");
    start("script-link").symlink("ui/lib/x.ts", &format!("{target}/x.ts")).done("x");
    start("ui-submodule").submodule("ui", &"1".repeat(40)).done("x");
    for branch in ["ui-file", "lib-file", "script-folder", "ui-link", "lib-link", "script-link", "ui-submodule"] {
        let sync = sandbox.sync().remote(&remote).branch(branch);
        let pushed = sync.run();
        assert_eq!(pushed.code(), "pushed", "{branch}: {pushed}");
        assert_eq!(ui_of(&remote, branch), regular(&[("ui/lib/x.ts", "x\n"), ("ui/y.ts", "y\n")]), "{branch}");
        assert_eq!(remote.files(branch)["README.md"].1, b"stays\n");
        let again = sync.run();
        assert_eq!(again.code(), "unchanged", "{branch}: {again}");
    }
    assert_eq!(files_below(&outside).into_values().collect::<Vec<_>>(), [b"outside\n"]);
}

#[test]
#[ignore = "long: just test-hostile"]
fn a_persons_ui_folder_stays_if_windmill_has_no_shared_ui() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let theirs = [("ui/README.md", "theirs\n"), ("ui/lib/x.ts", "theirs\n")];
    for (branch, files) in [("missing", None), ("empty", Some(&[][..]))] {
        sandbox.windmill.shared_ui(files);
        remote.commit_files(branch, &theirs);
        let sync = sandbox.sync().remote(&remote).branch(branch);
        sync.run().expect("pushed");
        assert_eq!(ui_of(&remote, branch), regular(&theirs), "{branch}");
        sync.run().expect("unchanged");
        // The same holds in a later sync with a change.
        sandbox.windmill.put("f/ops/job_00000.ts", format!("// {branch}\nexport async function main() {{}}\n"));
        sync.run().expect("pushed");
        assert_eq!(ui_of(&remote, branch), regular(&theirs), "{branch}");
    }
}

#[test]
#[ignore = "long: just test-long"]
fn workspace_specific_items_are_added_and_removed() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let sync = sandbox.sync().remote(&remote);
    let (plain, specific) = ("f/ops/region.variable.yaml", "f/ops/region.shop.variable.yaml");
    let has = |path: &str| remote.files("main").contains_key(path);
    sandbox.windmill.ws_specific(Some(&[("variable", "f/ops/region")]));
    sync.run().expect("pushed");
    assert!(has(specific) && !has(plain));
    let content = String::from_utf8(remote.files("main")[specific].1.clone()).unwrap();
    assert!(content.contains("is_secret: false"), "{content}");
    sync.run().expect("unchanged");

    sandbox.windmill.remove("f/ops/region.variable.json");
    sandbox.windmill.ws_specific(Some(&[]));
    let deleted = sync.run().expect("pushed");
    assert!(!has(specific) && !has(plain));
    assert_eq!(deleted.changed().2, 1, "{deleted}");
    sync.run().expect("unchanged");
}

#[test]
#[ignore = "long: just test-hostile"]
fn an_item_becomes_workspace_specific_and_back() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let sync = sandbox.sync().remote(&remote);
    let (plain, specific) = ("f/ops/region.variable.yaml", "f/ops/region.shop.variable.yaml");
    let check = |items: &[(&str, &str)], there: &str, gone: &str| {
        sandbox.windmill.ws_specific(Some(items));
        sync.run().expect("pushed");
        let files = remote.files("main");
        assert!(files.contains_key(there), "{there}");
        assert!(!files.contains_key(gone), "{gone}");
        sync.run().expect("unchanged");
    };
    check(&[], plain, specific);
    check(&[("variable", "f/ops/region")], specific, plain);
    check(&[], plain, specific);
}

#[test]
#[ignore = "long: just test-hostile"]
fn a_workspace_specific_item_that_windmill_does_not_have_is_removed() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let nobodys = "f/ops/nobody.shop.variable.yaml";
    let item = "description: ''\nvalue: x\nis_secret: false\n";
    for (branch, items) in
        [("missing", None), ("empty", Some(&[][..])), ("others", Some(&[("variable", "f/ops/region")][..]))]
    {
        remote.commit_files(branch, &[(nobodys, item), ("README.md", "stays\n")]);
        sandbox.windmill.ws_specific(items);
        let sync = sandbox.sync().remote(&remote).branch(branch).arg("--allow-mass-deletion");
        sync.run().expect("pushed");
        let files = remote.files(branch);
        assert!(!files.contains_key(nobodys), "{branch}");
        assert!(files.contains_key("README.md"));
        sync.run().expect("unchanged");
    }
}

/// Adds a fileset resource `f/ops/x` with these files, and its type to the map of file endings.
fn put_fileset(sandbox: &Sandbox, files: &[(&str, &str)]) {
    use miniserde::json::to_string;
    let text = |(name, content): &(&str, &str)| format!("{}: {}", to_string(*name), to_string(*content));
    let files: Vec<_> = files.iter().map(text).collect();
    sandbox.windmill.file_types("{\"bundle\":{\"format_extension\":null,\"is_fileset\":true}}");
    sandbox.windmill.put(
        "f/ops/x.resource.json",
        format!("{{\"value\": {{{}}}, \"description\": \"\", \"resource_type\": \"bundle\"}}", files.join(", ")),
    );
}

#[test]
fn an_item_below_a_git_folder_is_left_out_and_named() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let (trace, trap) = trap(&sandbox);
    let config = format!("[core]\n\tfsmonitor = {trap}\n");
    put_fileset(&sandbox, &[("a.txt", "a\n"), ("sub/.git/config", &config), (".git/config", &config)]);
    let sync = sandbox.sync().remote(&remote);
    for _ in 0..2 {
        let outcome = sync.run().expect("incomplete");
        assert!(outcome.message().contains("f/ops/x (resource: the name"), "{outcome}");
        let files = remote.files("main");
        assert!(files.contains_key("f/ops/job_00000.ts"));
        assert!(files.keys().all(|path| !path.contains(".git") && !path.starts_with("f/ops/x.")));
        assert!(!trace.exists());
    }
}

/// Installs a `wmill` that pulls like the real one, and then writes files that would make git run something.
fn wmill_that_writes_into_the_git_folder(sandbox: &Sandbox, trap: &str, more: &str) -> PathBuf {
    let shown = sandbox.path().join("shim-wrote");
    let hooks = "pre-commit post-checkout pre-push reference-transaction post-index-change post-commit pre-auto-gc \
                 fsmonitor-watchman commit-msg prepare-commit-msg post-rewrite push-to-checkout";
    let writes = format!(
        "cd \"$1/../git\" || exit 0\n\
         [ -d objects ] && touch '{shown}'\n\
         mkdir -p info hooks objects/info\n\
         cat >>config <<'END'\n\
         [core]\n\tfsmonitor = {trap}\n\tsshCommand = {trap}\n\talternateRefsCommand = {trap}\n\tpager = {trap}\n\
         \teditor = {trap}\n\taskPass = {trap}\n\tgitProxy = {trap}\n\tautocrlf = true\n\
         [filter \"evil\"]\n\tclean = {trap}\n\tsmudge = {trap}\n\tprocess = {trap}\n\trequired = true\n\
         [diff \"evil\"]\n\ttextconv = {trap}\n\tcommand = {trap}\n\
         [credential]\n\thelper = {trap}\n[commit]\n\tgpgSign = true\n[gpg]\n\tprogram = {trap}\n\
         [remote \"origin\"]\n\treceivepack = {trap}\n\tuploadpack = {trap}\n\
         {more}\nEND\n\
         echo '* filter=evil diff=evil text eol=crlf ident' >info/attributes\n\
         echo '*' >info/exclude\n\
         for hook in {hooks}; do cp '{trap}' hooks/$hook; done",
        shown = shown.display(),
    );
    // It writes outside the confinement, because that is a kernel feature that not every kernel has.
    let writes = sandbox.program("writes", &writes);
    let script = format!(
        "{outside}'{real}' \"$@\" || exit\n\
         case \"$*\" in *'sync pull'*) ;; *) exit 0 ;; esac\n\
         outside \"'{writes}' '$PWD'\"",
        outside = outside::function(),
        real = wmill().display(),
        writes = writes.display(),
    );
    sandbox.program("wmill", &script);
    shown
}

#[test]
#[ignore = "long: just test-hostile"]
fn files_that_wmill_writes_into_the_git_folder_have_no_effect() {
    let sandbox = Sandbox::new();
    let (trace, trap) = trap(&sandbox);
    let remote = sandbox.repository();
    let elsewhere = sandbox.repository_named("elsewhere");
    let redirect = format!("[url \"{}\"]\n\tinsteadOf = {}\n", elsewhere.url(), remote.url());
    let shown = wmill_that_writes_into_the_git_folder(&sandbox, &trap, &redirect);
    let sync = sandbox.sync().remote(&remote).env("SKIP_UNCHANGED", "false");
    let odd = "// $Id$\r\nexport async function main() {\r\n  return 1\r\n}\n";
    sandbox.windmill.put("f/ops/job_00000.ts", odd);
    for code in ["pushed", "unchanged"] {
        let _ = fs::remove_file(&shown);
        let outcome = sync.run();
        assert_eq!(outcome.code(), code, "{outcome}");
        assert!(shown.exists(), "the shim found no git folder at `$PWD/../git`");
        assert!(!trace.exists(), "something ran: {outcome}");
    }
    sandbox.windmill.state("2-edited");
    sync.run().expect("pushed");
    sync.run().expect("unchanged");
    assert!(!trace.exists());
    assert_eq!(elsewhere.refs(), "");
    let kinds = "includeSchedules: true\nincludeTriggers: true\nincludeGroups: true\ndefaultTs: bun\n";
    assert_same_values(&remote.regular_files("main"), &pulled_alone(&sandbox, kinds));
}

#[test]
#[ignore = "long: just test-hostile"]
fn files_that_wmill_writes_into_the_git_folder_have_no_effect_in_a_subfolder_with_other_files() {
    let sandbox = Sandbox::new();
    let (trace, trap) = trap(&sandbox);
    let remote = sandbox.repository();
    remote.commit_files("main", &[("README.md", "stays\n"), (".gitattributes", "* filter=evil\n")]);
    wmill_that_writes_into_the_git_folder(&sandbox, &trap, "[core]\n\tbare = false\n\tworktree = /nonexistent\n");
    let sync = sandbox.sync().remote(&remote).subdir("prod");
    sync.run().expect("pushed");
    remote.commit_files("main", &[("README.md", "other work\n")]);
    sync.run().expect("unchanged");
    sandbox.windmill.state("2-edited");
    sync.run().expect("pushed");
    assert_eq!(remote.files("main")["README.md"].1, b"other work\n");
    assert!(!trace.exists());
}

#[test]
#[ignore = "long: just test-hostile"]
fn a_fileset_does_not_lead_into_the_git_folder() {
    let sandbox = Sandbox::new();
    let (trace, trap) = trap(&sandbox);
    let remote = sandbox.repository();
    let sync = sandbox.sync().remote(&remote);
    sync.run().expect("pushed");
    let config = format!("[core]\n\tfsmonitor = {trap}\n\tsshCommand = {trap}\n");
    put_fileset(&sandbox, &[("a.txt", "a\n"), ("../../../../git/config", &config)]);
    let tip = remote.tip("main");
    let outcome = sync.run();
    assert!(!trace.exists(), "something ran: {outcome}");
    // The sync backs up the rest without the fileset, or nothing.
    if outcome.code() == "pushed" {
        assert!(remote.files("main").keys().all(|path| !path.contains("git/config")));
    } else {
        assert_eq!(remote.tip("main"), tip, "{outcome}");
    }
    sandbox.windmill.remove("f/ops/x.resource.json");
    let after = sync.run();
    assert!(["pushed", "unchanged"].contains(&after.code().as_str()), "{after}");
    assert!(!trace.exists());
}

/// Returns values of `PATH` that search the current folder of a program before the real programs.
fn paths_that_lead_here() -> Vec<String> {
    let real = wmill().parent().unwrap().display().to_string();
    let rest = format!("{real}:{}", std::env::var("PATH").unwrap());
    [":", ".:", "./:", "tools:", "::./tools:.:"].iter().map(|start| format!("{start}{rest}")).collect()
}

#[track_caller]
fn check_programs_of_the_repository(names: &[&str]) {
    for (number, path) in paths_that_lead_here().iter().enumerate() {
        let sandbox = Sandbox::new();
        let remote = sandbox.repository();
        let trace = sandbox.path().join("trace");
        let evil = format!("#!/bin/sh\necho \"$0 $*\" >>'{}'\n", trace.display());
        let mut commit = remote.commit("main");
        for name in names {
            commit = commit.executable(name, &evil).executable(&format!("tools/{name}"), &evil);
        }
        commit.done("Programs");
        let sync = sandbox.sync().remote(&remote).env("PATH", path);
        let pushed = sync.run();
        let ran = fs::read_to_string(&trace).unwrap_or_default();
        assert_eq!(ran, "", "{number}: {pushed}");
        assert_eq!(pushed.code(), "pushed", "{number}: {pushed}");
        sync.run().expect("unchanged");
        assert!(!trace.exists(), "{number}");
        assert_eq!(remote.files("main")[names[0]].0, "100755");
    }
}

#[test]
#[ignore = "long: just test-hostile"]
fn no_wmill_or_git_of_the_repository_runs_with_any_path_variable() {
    check_programs_of_the_repository(&["wmill", "git"]);
}

/// Checks the programs that the tools look up: `wmill` is a script for `node`, and git starts other programs.
#[test]
#[ignore = "long: just test-hostile"]
fn no_program_of_the_repository_is_found_by_the_tools_with_any_path_variable() {
    check_programs_of_the_repository(&["node", "sh", "ssh", "git-upload-pack", "git-receive-pack"]);
}
