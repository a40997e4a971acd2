//! `restore` reports the truth: it runs nothing from the repository, reports `restored` only if everything came back,
//! names what cannot come back and why, and touches only what was chosen.

use std::collections::BTreeSet;

use miniserde::json::Value;

use support::deployed;
use support::run::{field, text_field, texts_field};
use support::*;

/// Returns a sandbox with a small workspace, which `fill` makes, and a repository to which it was synced.
fn synced(fill: impl FnOnce(&mut Workspace)) -> (Sandbox, BareRepository) {
    let sandbox = Sandbox::new();
    sandbox.windmill.token_kind(TokenKind::User);
    let mut shop = empty("a key");
    shop.add_folder("ops");
    fill(&mut shop);
    sandbox.windmill.set("shop", shop);
    let remote = sandbox.repository();
    sandbox.sync().remote(&remote).run().expect("pushed");
    sandbox.windmill.forget_requests();
    (sandbox, remote)
}

/// Returns an empty workspace with its own key.
fn empty(key: &str) -> Workspace {
    let mut workspace = Workspace::empty();
    deployed::set_key(&mut workspace, key, false);
    workspace
}

fn restore<'a>(sandbox: &'a Sandbox, remote: &BareRepository) -> Run<'a> {
    sandbox.command("restore").remote(remote)
}

/// Returns the listed differences, as `kind path`.
fn differences(outcome: &Outcome) -> Vec<String> {
    let Value::Array(list) = field(outcome.result(), "differences") else { panic!("{outcome}") };
    list.iter().map(|one| [text_field(one, "kind").unwrap(), text_field(one, "path").unwrap()].join(" ")).collect()
}

/// Returns the requests that change something in `shop`, without their query.
fn writes(sandbox: &Sandbox) -> Vec<String> {
    let all = sandbox.windmill.requests();
    let all = all.iter().filter(|one| one.method != "GET");
    all.filter_map(|one| Some(one.target.strip_prefix("/api/w/shop/")?.split('?').next()?.to_owned())).collect()
}

#[track_caller]
fn assert_warned(outcome: &Outcome, parts: &[&str]) {
    let warnings = outcome.warnings();
    assert!(warnings.iter().any(|one| parts.iter().all(|part| one.contains(part))), "{parts:?} in {warnings:?}");
}

/// Asserts that a restore runs nothing. By itself, `wmill` would build a raw app in the repository's folder with
/// `npm install`.
fn a_restore_runs_nothing(wmill: Option<&std::path::Path>) {
    let (sandbox, remote) = synced(|shop| {
        shop.add_raw_app("f/ops/ui", &[("/index.tsx", "console.log(1)\n"), ("/package.json", "{\"name\":\"ui\"}")]);
        shop.add_variable("f/ops/a", "1", false);
        shop.add_variable("f/ops/z", "1", false);
    });
    let (trace, registry) = (sandbox.path().join("trace"), HttpServer::counting());
    let planted = format!("{{\"name\":\"ui\",\"scripts\":{{\"preinstall\":\"touch {}\"}}}}", trace.display());
    remote
        .commit("main")
        .file("f/ops/ui.raw_app/package.json", &planted)
        .file("f/ops/ui.raw_app/.npmrc", format!("registry=http://{}/\n", registry.address()))
        .file("f/ops/ui.raw_app/bunfig.toml", format!("preload = [\"{}\"]\n", trace.display()))
        .done("by a user with push access");
    let commit = remote.tip("main").unwrap();
    for path in ["f/ops/a.variable.json", "f/ops/z.variable.json"] {
        sandbox.windmill.remove(path);
    }
    for program in ["npm", "npx", "node-gyp"] {
        sandbox.program(program, &format!("touch '{}'", trace.display()));
    }
    if let Some(wmill) = wmill {
        sandbox.program("wmill", &format!("exec '{}' \"$@\"", wmill.display()));
    }
    let restore = restore(&sandbox, &remote);
    let shown = restore.run().expect("dry_run");
    let command = "`wmill app push f/ops/ui.raw_app f/ops/ui`";
    assert_warned(&shown, &["raw apps are left out", command, &commit[..10]]);
    assert!(!shown.message().contains("raw_app"), "{shown}");
    let restored = restore.clone().arg("--yes").run().expect("differs");
    assert_warned(&restored, &["raw apps are left out", command]);
    assert_eq!((restored.exit_code, restored.changed()), (Some(3), (2, 0, 0)), "{restored}");
    let files = ["missing f/ops/ui.raw_app/.npmrc", "missing f/ops/ui.raw_app/bunfig.toml"];
    assert_eq!(differences(&restored)[..2], files, "{restored}");
    assert_eq!(differences(&restored)[2..], ["differs f/ops/ui.raw_app/package.json"], "{restored}");
    let shop = sandbox.windmill.workspace("shop");
    assert!(shop.get("f/ops/a.variable.json").is_some() && shop.get("f/ops/z.variable.json").is_some());
    // On the second run, all else is there, and the missing app is still reported.
    let again = restore.arg("--yes").run().expect("differs");
    assert!(again.message().contains("nothing was changed"), "{again}");
    assert!(!trace.exists() && registry.count() == 0, "{restored}");
}

/// A package registry that counts its requests.
struct HttpServer {
    server: http::Server,
    count: std::sync::Arc<std::sync::atomic::AtomicUsize>,
}

impl HttpServer {
    fn counting() -> Self {
        let count = std::sync::Arc::<std::sync::atomic::AtomicUsize>::default();
        let counted = std::sync::Arc::clone(&count);
        let server = http::Server::start(move |_| {
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            http::Response::empty(404).into()
        });
        Self { server, count }
    }

    fn address(&self) -> std::net::SocketAddr {
        self.server.address()
    }

    fn count(&self) -> usize {
        self.count.load(std::sync::atomic::Ordering::SeqCst)
    }
}

#[test]
fn a_raw_app_is_left_out_and_runs_nothing() {
    a_restore_runs_nothing(None);
}

#[test]
#[ignore = "long: just test-wmill"]
fn a_raw_app_is_left_out_and_runs_nothing_with_the_images_wmill() {
    a_restore_runs_nothing(Some(&wmill::one_program(wmill::LockFile::InMemory)));
}

#[test]
#[ignore = "long: just test-long"]
fn a_folder_with_the_suffix_of_an_app_stops_no_other_item() {
    let (sandbox, remote) = synced(|shop| {
        for folder in ["crm__app", "x__flow", "y__raw_app"] {
            shop.add_folder(folder);
            shop.add_variable(&format!("f/{folder}/v"), "1", false);
        }
        shop.add_variable("f/ops/v", "1", false);
    });
    sandbox.windmill.remove("f/ops/v.variable.json");
    let restore = restore(&sandbox, &remote).arg("--yes");
    let restored = restore.run().expect("restored");
    assert_eq!((restored.changed(), restored.warnings()), ((1, 0, 0), Vec::new()), "{restored}");
    assert_eq!(writes(&sandbox), ["variables/create"]);
    restore.run().expect("unchanged");
    // A missing item in such a folder is reported before the push, and does not come back.
    sandbox.windmill.remove("f/crm__app/v.variable.json");
    sandbox.windmill.remove("f/ops/v.variable.json");
    let differs = restore.clone().arg("--delete").run().expect("differs");
    assert_warned(&differs, &["wmill cannot push them", "f/crm__app/v.variable.yaml"]);
    assert_eq!(differences(&differs), ["missing f/crm__app/v.variable.yaml"], "{differs}");
    let shop = sandbox.windmill.workspace("shop");
    assert!(shop.get("f/ops/v.variable.json").is_some() && shop.get("f/x__flow/v.variable.json").is_some());
}

#[test]
#[ignore = "long: just test-long"]
fn files_below_a_dot_folder_are_announced_and_read_back() {
    const CHILDREN: [(&str, &str); 3] =
        [("a.sql", "select 1\n"), (".config/b.sql", "select 2\n"), ("node_modules/c.sql", "select 3\n")];
    let (sandbox, remote) = synced(|shop| shop.add_fileset("f/ops/set", &CHILDREN));
    let whole = sandbox.windmill.workspace("shop").get("f/ops/set.resource.json").unwrap().to_vec();
    let children = |entry: &[u8]| {
        let value: Value = miniserde::json::from_str(std::str::from_utf8(entry).unwrap()).unwrap();
        CHILDREN.map(|(name, _)| match field(&value, "value") {
            Value::Object(value) => value.contains_key(name),
            _ => panic!("no fileset"),
        })
    };
    assert_eq!(children(&whole), [true; 3]);
    sandbox.windmill.remove("f/ops/set.resource.json");
    let restore = restore(&sandbox, &remote).arg("--yes");
    let restored = restore.run().expect("restored");
    assert_warned(&restored, &["begin with a dot", "f/ops/set.fileset/.config/b.sql", "node_modules/c.sql"]);
    let shop = sandbox.windmill.workspace("shop");
    assert_eq!(children(shop.get("f/ops/set.resource.json").unwrap()), [true; 3], "{restored}");
    // wmill pushes such a file only together with another difference of its fileset.
    let text = String::from_utf8(whole).unwrap();
    sandbox.windmill.put("f/ops/set.resource.json", text.replace(".config/b.sql", "other.sql"));
    let differs = restore.run().expect("restored");
    assert_warned(&differs, &["begin with a dot", ".config/b.sql"]);
    sandbox.windmill.edit(|shop| shop.add_fileset("f/ops/set", &[CHILDREN[0], CHILDREN[2]]));
    let differs = restore.run().expect("differs");
    assert_eq!(differences(&differs), ["missing f/ops/set.fileset/.config/b.sql"], "{differs}");
}

#[test]
fn a_failure_names_the_item_and_the_reason_and_counts_the_restored_items() {
    let (sandbox, remote) = synced(|shop| {
        shop.add_bun_script("f/ops/job_00000", "x");
        shop.add_http_trigger("f/ops/old_name", "alpha", &[]);
        shop.add_variable("f/ops/a", "1", false);
    });
    sandbox.windmill.limit_the_instance();
    sandbox.windmill.edit(|shop| {
        shop.remove("f/ops/old_name.http_trigger.json");
        shop.remove("f/ops/a.variable.json");
        shop.add_http_trigger("f/ops/new_name", "alpha", &[]);
    });
    let failed = restore(&sandbox, &remote).arg("--yes").run().expect("pull_failed");
    let message = failed.message();
    assert!(message.contains("http trigger f/ops/old_name"), "{message}");
    assert!(message.contains("A route already exists with this path"), "{message}");
    assert!(message.contains("restore-point/shop/") && message.lines().count() == 1, "{message}");
    assert!(!message.contains("ApiError") && !message.contains('{'), "{message}");
    // wmill may push the variable before the trigger or not. What is there is counted.
    let done = sandbox.windmill.workspace("shop").get("f/ops/a.variable.json").is_some();
    assert_eq!((failed.exit_code, failed.changed()), (Some(10), (u64::from(done), 0, 0)), "{failed}");
    assert!(differences(&failed).contains(&"missing f/ops/old_name.http_trigger.yaml".to_owned()), "{failed}");
}

#[test]
fn a_failure_that_cannot_be_read_back_says_so() {
    let (sandbox, remote) = synced(|shop| {
        shop.add_http_trigger("f/ops/old_name", "alpha", &[]);
        shop.add_variable("f/ops/secret", &deployed::encrypt("a key", "secret"), true);
    });
    sandbox.windmill.limit_the_instance();
    sandbox.windmill.edit(|shop| {
        shop.remove("f/ops/old_name.http_trigger.json");
        shop.add_http_trigger("f/ops/new_name", "alpha", &[]);
    });
    sandbox.windmill.fail("decrypt_secret=true", Fault::Close);
    let failed = restore(&sandbox, &remote).arg("--yes").run().expect("pull_failed");
    let message = failed.message();
    assert!(message.contains("http trigger f/ops/old_name"), "{message}");
    assert!(message.contains("what it changed could not be read back: cannot reach Windmill at"), "{message}");
    assert_eq!((failed.changed(), differences(&failed)), ((0, 0, 0), Vec::new()), "{failed}");
}

#[test]
fn only_chosen_items_are_changed() {
    let marked = "\u{feff}export async function main() { return 1 }\r\n";
    let (sandbox, remote) = synced(|shop| {
        shop.add_bun_script("f/ops/marked", "x");
        shop.put("f/ops/marked.ts", marked);
        shop.add_bun_script("f/ops/moved", "x");
        shop.add_variable("f/ops/a", "1", false);
        shop.add_fileset("f/ops/set", &[("a.sql", "1"), ("b.sql", "2")]);
    });
    let before = sandbox.windmill.workspace("shop");
    sandbox.windmill.edit(|shop| {
        shop.remove("f/ops/a.variable.json");
        // The script is now in another language, and the fileset has one more file.
        shop.remove("f/ops/moved.ts");
        shop.put("f/ops/moved.py", "def main():\n    return 1\n");
        shop.add_fileset("f/ops/set", &[("a.sql", "1"), ("b.sql", "2"), ("c.sql", "3")]);
    });
    // An item that is created between our pull and wmill's look at the workspace stays, even with --delete.
    let mut exports = 0;
    sandbox.windmill.on_export(move |workspace| {
        exports += 1;
        if exports == 2 {
            workspace.add_bun_script("f/ops/meanwhile", "new");
        }
    });
    let restore = restore(&sandbox, &remote).arg("--path").arg("f/ops/**").arg("--delete").arg("--yes");
    restore.run().expect("restored");
    let shop = sandbox.windmill.workspace("shop");
    for path in ["f/ops/marked.ts", "f/ops/moved.ts", "f/ops/a.variable.json"] {
        assert_eq!(shop.get(path).is_some(), before.get(path).is_some(), "{path}");
    }
    assert_eq!(shop.get("f/ops/marked.ts"), Some(marked.as_bytes()));
    assert!(shop.get("f/ops/moved.py").is_none() && shop.get("f/ops/meanwhile.ts").is_some());
    assert!(!String::from_utf8_lossy(shop.get("f/ops/set.resource.json").unwrap()).contains("c.sql"));
    let mut written = writes(&sandbox);
    written.retain(|one| one.starts_with("scripts/") || one.ends_with("f/ops/marked"));
    assert_eq!(written, ["scripts/create"]);
}

/// Returns the workspace-specific items.
fn own(workspace: &Workspace) -> BTreeSet<(String, String)> {
    workspace.ws_specific.iter().flatten().cloned().collect()
}

#[test]
#[ignore = "long: just test-long"]
fn a_workspace_specific_item_is_restored_into_its_workspace_and_into_another() {
    let (sandbox, remote) = synced(|shop| {
        shop.add_resource("f/ops/db", "postgresql", "{\"host\": \"shop\"}");
        shop.add_variable("f/ops/v", "shop", false);
        shop.add_resource("f/ops/plain", "postgresql", "{\"host\": \"all\"}");
        shop.ws_specific =
            Some(vec![("resource".to_owned(), "f/ops/db".to_owned()), ("variable".to_owned(), "f/ops/v".to_owned())]);
    });
    assert!(remote.files("main").contains_key("f/ops/db.shop.resource.yaml"), "{:?}", remote.files("main").keys());
    let all = sandbox.windmill.workspace("shop");
    sandbox.windmill.edit(|shop| {
        for path in ["f/ops/db.resource.json", "f/ops/v.variable.json", "f/ops/plain.resource.json"] {
            shop.remove(path);
        }
        shop.ws_specific = Some(Vec::new());
    });
    let restore = restore(&sandbox, &remote).arg("--yes");
    let restored = restore.run().expect("restored");
    assert_eq!(restored.warnings(), Vec::<String>::new());
    let shop = sandbox.windmill.workspace("shop");
    assert_eq!(own(&shop), own(&all));
    assert!(shop.get("f/ops/db.resource.json").is_some() && shop.get("f/ops/v.variable.json").is_some());
    restore.run().expect("unchanged");

    sandbox.windmill.set("new", empty("another key"));
    let into_new = restore.arg("--to-workspace").arg("new");
    let restored = into_new.run().expect("restored");
    assert_warned(&restored, &["`shop`", "`new`", "specific to", "f/ops/db.resource.yaml"]);
    assert_eq!(own(&sandbox.windmill.workspace("new")), own(&all));
    into_new.run().expect("unchanged");
}

#[test]
#[ignore = "long: just test-long"]
fn a_workspace_may_have_the_name_of_a_kind_of_item() {
    for id in ["script", "resource", "variable", "pg"] {
        let sandbox = Sandbox::new();
        sandbox.windmill.token_kind(TokenKind::User);
        let mut workspace = empty("a key");
        workspace.add_folder("ops");
        workspace.add_bun_script("f/ops/job", "x");
        workspace.add_variable("f/ops/v", "1", false);
        workspace.add_resource("f/ops/db", "postgresql", "{}");
        sandbox.windmill.set(id, workspace);
        let remote = sandbox.repository();
        sandbox.sync().workspace(id).remote(&remote).run().expect("pushed");
        let mut workspace = sandbox.windmill.workspace(id);
        for path in ["f/ops/job.ts", "f/ops/job.script.json", "f/ops/v.variable.json", "f/ops/db.resource.json"] {
            workspace.remove(path);
        }
        sandbox.windmill.set(id, workspace);
        let restored = restore(&sandbox, &remote).workspace(id).arg("--yes").run().expect("restored");
        assert_eq!((restored.changed().0, restored.warnings()), (4, Vec::new()), "{id}: {restored}");
        assert!(sandbox.windmill.workspace(id).get("f/ops/job.ts").is_some(), "{id}");
    }
}

#[test]
#[ignore = "long: just test-long"]
fn a_trigger_arrives_disabled_in_another_workspace_without_a_difference() {
    let (sandbox, remote) = synced(|shop| shop.add_http_trigger("f/ops/hook", "alpha", &[]));
    sandbox.windmill.set("new", empty("another key"));
    let restore = restore(&sandbox, &remote).arg("--to-workspace").arg("new").arg("--yes");
    let restored = restore.run().expect("restored");
    assert_warned(&restored, &["disabled", "f/ops/hook"]);
    let new = sandbox.windmill.workspace("new");
    let hook = String::from_utf8_lossy(new.get("f/ops/hook.http_trigger.json").unwrap()).into_owned();
    assert!(hook.contains("\"mode\":\"disabled\"") && !hook.contains("\"enabled\""), "{hook}");
    restore.run().expect("unchanged");
}

#[test]
fn a_workspace_specific_schedule_arrives_disabled_in_another_workspace() {
    let (sandbox, remote) = synced(|shop| shop.add_http_trigger("f/ops/hook", "alpha", &[]));
    sandbox.windmill.set("new", empty("another key"));
    let text = String::from_utf8(remote.regular_files("main").remove("f/ops/hook.http_trigger.yaml").unwrap()).unwrap();
    let switched = text.replace("mode: disabled", "mode: enabled");
    assert!(switched.contains("mode: enabled"), "{text}");
    remote.commit("main").file("f/ops/hook.shop.http_trigger.yaml", switched).done("by a user with push access");
    let restored = restore(&sandbox, &remote).arg("--to-workspace").arg("new").arg("--yes").run();
    assert_warned(&restored, &["disabled", "f/ops/hook"]);
    let new = sandbox.windmill.workspace("new");
    let hook = String::from_utf8_lossy(new.get("f/ops/hook.http_trigger.json").unwrap()).into_owned();
    assert!(hook.contains("\"mode\":\"disabled\""), "{hook}");
}

#[test]
fn an_unreadable_secret_is_reported_each_time() {
    let (sandbox, remote) = synced(|shop| shop.add_variable("f/ops/s", &deployed::encrypt("a key", "secret"), true));
    // The ciphertext stays, with a key that cannot read it.
    sandbox.windmill.edit(|shop| deployed::set_key(shop, "another key", false));
    let restore = restore(&sandbox, &remote);
    restore.run().expect("dry_run");
    for _ in 0..2 {
        let differs = restore.clone().arg("--yes").run().expect("differs");
        assert_eq!(differences(&differs), ["unreadable f/ops/s.variable.yaml"], "{differs}");
    }
    assert_eq!(writes(&sandbox), Vec::<String>::new());
}

#[test]
#[ignore = "long: just test-long"]
fn a_number_that_wmill_rounds_is_announced_and_not_counted_as_restored() {
    let (sandbox, remote) = synced(|shop| shop.add_resource("f/ops/chat", "any", "{\"channel\": 5}"));
    let path = "f/ops/chat.resource.yaml";
    let mut files = remote.regular_files("main");
    let text = String::from_utf8(files.remove(path).unwrap()).unwrap();
    let exact = text.replace("channel: 5", "channel: 175928847299117063");
    remote.commit_files("main", &[(path, exact.as_str())]);
    let differs = restore(&sandbox, &remote).arg("--yes").run().expect("differs");
    assert_warned(&differs, &["2^53", path]);
    assert_eq!(differences(&differs), [format!("differs {path}")], "{differs}");
    assert_eq!(texts_field(differs.result(), "differences.0.diff").len(), 1);
}

#[test]
#[ignore = "long: just test-long"]
fn a_name_that_leads_outside_an_item_does_not_push_a_file_of_this_machine() {
    let (sandbox, remote) = synced(|shop| {
        shop.add_flow("f/ops/flow", &[("step", "export async function main() {}\n")]);
        shop.add_variable("f/ops/a", "1", false);
    });
    let outside = sandbox.file("outside.ts", "PLANTED\n");
    let path = "f/ops/flow.flow/flow.yaml";
    let text = String::from_utf8(remote.regular_files("main").remove(path).unwrap()).unwrap();
    let (start, rest) = text.split_once("!inline ").unwrap();
    let end = rest.find(['\'', '"', '\n']).unwrap();
    let (start, rest) = (start.trim_end_matches(['\'', '"']), rest[end..].trim_start_matches(['\'', '"']));
    let outside = outside.display();
    for reference in [
        format!("'!inline {outside}'"),
        format!("!inline {outside}"),
        format!("\"\\x21inline {outside}\""),
        format!("!%69nline {outside}"),
        format!("!<!inline> {outside}"),
    ] {
        remote.commit_files("main", &[(path, format!("{start}{reference}{rest}").as_str())]);
        sandbox.windmill.remove("f/ops/a.variable.json");
        sandbox.windmill.forget_requests();
        let differs = restore(&sandbox, &remote).arg("--yes").run().expect("differs");
        assert_warned(&differs, &["refer to a file outside", "flow f/ops/flow"]);
        assert_eq!(
            (writes(&sandbox), differs.changed()),
            (vec!["variables/create".to_owned()], (1, 0, 0)),
            "{differs}"
        );
    }
}

#[test]
fn a_plain_secret_is_not_saved_in_a_restore_point() {
    let (sandbox, remote) = synced(|shop| {
        shop.add_variable("f/ops/a", "1", false);
        let slack = "\"slack_oauth_client_id\": \"id\", \"slack_oauth_client_secret\": \"SLACK-SECRET\"";
        shop.put("settings.json", format!("{{\"webhook\": null, {slack}}}"));
    });
    sandbox.windmill.remove("f/ops/a.variable.json");
    sandbox.windmill.edit(|shop| {
        shop.add_variable("f/ops/plain", "PLAIN-SECRET", true);
        shop.add_variable("f/ops/kept", "kept", false);
    });
    remote.commit("main").file("wmill.yaml", "includeSettings: true\n").done("by a user with push access");
    let restore = restore(&sandbox, &remote).arg("--path").arg("f/ops");
    for run in [restore.clone(), restore.clone().arg("--yes")] {
        let outcome = run.run();
        assert_warned(&outcome, &["not saved in the restore point", "settings.yaml", "f/ops/plain.variable.yaml"]);
    }
    let is_saved = |branch: &str| remote.files(branch).contains_key("f/ops/kept.variable.yaml");
    assert!(remote.branches().keys().any(|branch| is_saved(branch)));
    for branch in remote.branches().into_keys() {
        for (path, content) in remote.regular_files(&branch) {
            let content = String::from_utf8_lossy(&content).into_owned();
            assert!(!content.contains("SLACK-SECRET") && !content.contains("PLAIN-SECRET"), "{branch} {path}");
        }
    }
    // With this setting, all of it is saved.
    sandbox.windmill.remove("f/ops/a.variable.json");
    let allowed = restore.arg("--yes").env("ALLOW_PLAINTEXT_SECRETS", "true").run();
    let point = text_field(allowed.result(), "restore_point").unwrap();
    assert!(remote.files(&point).contains_key("settings.yaml"), "{allowed}");
}

#[test]
#[ignore = "long: just test-long"]
fn a_file_that_names_another_item_changes_neither_item() {
    let (sandbox, remote) = synced(|shop| {
        shop.add_resource("f/ops/db", "postgresql", "{\"host\": \"x\"}");
        shop.add_variable("f/ops/v", "1", false);
        shop.add_flow("f/ops/flow", &[("step", "export async function main() {}\n")]);
    });
    let text = |path: &str| String::from_utf8(remote.regular_files("main").remove(path).unwrap()).unwrap();
    let changed = |path: &str, (from, to): (&str, &str), more: &str| {
        let text = text(path);
        assert!(text.contains(from), "{text}");
        (path.to_owned(), text.replace(from, to) + more)
    };
    let files = [
        changed("f/ops/db.resource.yaml", ("host: x", "host: y"), "path: f/admin/planted_resource\n"),
        changed("f/ops/v.variable.yaml", ("'1'", "'2'"), "path: f/admin/planted_variable\n"),
        changed("f/ops/flow.flow/flow.yaml", ("summary: ", "summary: y"), "path: f/admin/planted_flow\n"),
        changed("f/ops/folder.meta.yaml", ("summary: ", "summary: y"), "name: victim\npath: ops\n"),
    ];
    let mut commit = remote.commit("main");
    for (path, text) in &files {
        commit = commit.file(path, text);
    }
    commit.done("by a user with push access");
    let restore = restore(&sandbox, &remote).arg("--path").arg("f/ops").arg("--yes");
    let differs = restore.run().expect("differs");
    assert_eq!((writes(&sandbox), differences(&differs).len()), (Vec::new(), files.len()), "{differs}");
    // Into a workspace that has none of them, they would be created under the other names.
    sandbox.windmill.set("new", empty("another key"));
    restore.arg("--to-workspace").arg("new").run();
    let new = sandbox.windmill.workspace("new");
    let planted: Vec<_> =
        new.entries().iter().map(|(path, _)| path).filter(|path| !path.starts_with("f/ops/")).collect();
    assert_eq!(planted, ["encryption_key.json"]);
}

#[test]
#[ignore = "long: just test-long"]
fn the_role_of_a_user_is_changed_only_if_the_user_was_chosen() {
    const KINDS: (&str, &str) = ("WMILL_INCLUDE", "users");
    let sandbox = Sandbox::new();
    sandbox.windmill.token_kind(TokenKind::User);
    let mut shop = empty("a key");
    shop.add_folder("ops");
    shop.add_variable("f/ops/a", "1", false);
    shop.add_user("ann@x.dev", "ann");
    shop.add_user("bob@x.dev", "bob");
    sandbox.windmill.set("shop", shop.clone());
    let remote = sandbox.repository();
    sandbox.sync().remote(&remote).env(KINDS.0, KINDS.1).run().expect("pushed");
    let restore = |path: &str| {
        sandbox.windmill.forget_requests();
        restore(&sandbox, &remote).env(KINDS.0, KINDS.1).arg("--path").arg(path).arg("--yes")
    };
    let operator = "{\"username\": \"bob\", \"role\": \"operator\", \"disabled\": true}";
    // The role changes between our pull and wmill's look at the workspace.
    sandbox.windmill.remove("f/ops/a.variable.json");
    let mut exports = 0;
    sandbox.windmill.on_export(move |workspace| {
        exports += 1;
        if exports == 2 {
            workspace.put("users/bob@x.dev.user.json", operator);
        }
    });
    restore("f/ops").run().expect("restored");
    assert_eq!(writes(&sandbox), ["variables/create"]);
    // A chosen user comes back: one whose role changed, and one who was removed.
    restore("users/bob*").run().expect("restored");
    assert_eq!(writes(&sandbox), ["users/update/bob"]);
    sandbox.windmill.remove("users/bob@x.dev.user.json");
    restore("users/bob*").run().expect("restored");
    assert_eq!(writes(&sandbox), ["workspaces/add_user"]);
    // The file of one user names another.
    let ann = "disabled: false\nrole: admin\nusername: ann\n";
    remote.commit("main").file("users/bob@x.dev.user.yaml", ann).done("by a user with push access");
    restore("users/bob*").run().expect("differs");
    assert_eq!(writes(&sandbox), Vec::<String>::new());
    // --delete removes a user by the name.
    remote.commit("main").remove("users/bob@x.dev.user.yaml").done("gone");
    restore("users/*").arg("--delete").run().expect("restored");
    assert_eq!(writes(&sandbox), ["users/delete/bob"]);
}

/// Returns the entries of a workspace in which a text occurs.
fn entries_with(sandbox: &Sandbox, id: &str, text: &str) -> Vec<String> {
    let workspace = sandbox.windmill.workspace(id);
    let has_it = |content: &[u8]| String::from_utf8_lossy(content).contains(text);
    workspace.entries().iter().filter(|(_, content)| has_it(content)).map(|(path, _)| path.clone()).collect()
}

#[test]
#[ignore = "long: just test-long"]
fn no_item_pushes_a_file_of_another_item_or_of_this_machine() {
    let sandbox = Sandbox::new();
    sandbox.windmill.token_kind(TokenKind::User);
    let outside = sandbox.file("token", "TOKEN-OF-THE-MACHINE\n");
    let outside = outside.display();
    let mut shop = empty("THE-KEY-OF-SHOP");
    shop.add_folder("ops");
    shop.add_variable("f/ops/s", &deployed::encrypt("THE-KEY-OF-SHOP", "secret"), true);
    shop.add_variable("f/ops/v", "THE-VALUE", false);
    shop.add_bun_script("f/ops/job", "x");
    shop.add_flow("f/ops/flow", &[("step", "export async function main() {}\n")]);
    // A user of Windmill without any right to the repository writes these.
    shop.add_resource("u/bob/key", "any", "{\"content\": \"!inline encryption_key.yaml\"}");
    shop.add_resource("u/bob/other", "any", "{\"content\": \"!inline f/ops/v.variable.yaml\"}");
    let value = format!("{{\"content\": \"!inline {outside}\", \"z\": \"q\\\" # x\"}}");
    let description = "a\\nb\u{2028}x: \\\"";
    shop.put(
        "u/bob/machine.resource.json",
        format!("{{\"resource_type\": \"any\", \"description\": \"{description}\", \"value\": {value}}}"),
    );
    sandbox.windmill.set("shop", shop);
    let remote = sandbox.repository();
    sandbox.sync().remote(&remote).run().expect("pushed");
    // A user who may push to the repository writes these.
    let text = |path: &str| String::from_utf8(remote.regular_files("main")[path].clone()).unwrap();
    let (script, flow) = ("f/ops/job.script.yaml", "f/ops/flow.flow/flow.yaml");
    let without_lock: String =
        text(script).lines().filter(|line| !line.starts_with("lock:")).map(|line| format!("{line}\n")).collect();
    let up = "/..".repeat(20);
    // If the file of a step is missing, wmill uses the file with the name of the step's `id`.
    let missing = text(flow).replace("id: s0", "id: ../../../encryption_key").replace(".ts'", "_missing.yaml'");
    assert!(missing.contains("_missing") && missing.contains("id: ../"), "{missing}");
    remote
        .commit("main")
        .file(script, format!("{without_lock}lock:\n  - '!inline f/ops/d'\n  - '{up}{outside}'\n"))
        .file("f/ops/d\n/x.ts", "export async function main() {}\n")
        .file("f/ops/d\n/x.script.yaml", "summary: x\n")
        .file(flow, missing)
        .file(
            "f/ops/cr.resource.yaml",
            format!(
                "description: '' # \rx: \"\nresource_type: any\nvalue:\n  content: '!inline {outside}'\n# \"\ry: z\n"
            ),
        )
        .done("by a user with push access");
    sandbox.windmill.set("new", empty("another key"));
    let key = sandbox.file("old.key", "THE-KEY-OF-SHOP\n");
    let restore = restore(&sandbox, &remote).arg("--to-workspace").arg("new").arg("--key-file");
    let differs = restore.arg(key.to_str().unwrap()).arg("--yes").run().expect("differs");
    for item in ["u/bob/key", "u/bob/other", "u/bob/machine", "f/ops/job", "flow f/ops/flow", "f/ops/cr"] {
        assert_warned(&differs, &["refer to a file outside", item]);
    }
    assert_eq!(entries_with(&sandbox, "new", "THE-VALUE"), ["f/ops/v.variable.json"]);
    assert_eq!(entries_with(&sandbox, "new", "TOKEN-OF-THE-MACHINE"), Vec::<String>::new());
    assert_eq!(entries_with(&sandbox, "new", "THE-KEY-OF-SHOP"), ["encryption_key.json"]);
    assert!(sandbox.windmill.workspace("new").get("f/ops/s.variable.json").is_some(), "{differs}");
}

#[test]
#[ignore = "long: just test-long"]
fn long_names_and_large_flows_are_restored() {
    let long = format!("f/ops/{}", "long_".repeat(20));
    let (sandbox, remote) = synced(|shop| {
        shop.add_flow("f/ops/flow", &[("step", "export async function main() {}\n")]);
        shop.add_resource_type("ini", Some("ini"), false);
        shop.add_resource(&long, "ini", "{\"content\": \"a = 1\"}");
    });
    let (path, resource) = ("f/ops/flow.flow/flow.yaml", format!("{long}.resource.yaml"));
    let files = remote.regular_files("main");
    let text = |path: &str| String::from_utf8_lossy(&files[path]).into_owned();
    assert!(text(&resource).contains("!inline\n"), "wmill folds it: {}", text(&resource));
    let many: String = (0..14_000).map(|number| format!("    p{number}: {{type: string}}\n")).collect();
    remote.commit("main").file(path, format!("{}x:\n  w: '100%'\n{many}", text(path))).done("large");
    sandbox.windmill.remove(&format!("{long}.resource.json"));
    let shown = restore(&sandbox, &remote).run().expect("dry_run");
    assert!(shown.warnings().is_empty(), "{shown}");
    assert!(shown.message().contains(path) && shown.message().contains(&resource), "{shown}");
    let restored = restore(&sandbox, &remote).arg("--path").arg(&long).arg("--yes").run().expect("restored");
    assert_eq!(entries_with(&sandbox, "shop", "a = 1"), [format!("{long}.resource.json")], "{restored}");
}

#[test]
#[ignore = "long: just test-long"]
fn a_trigger_whose_switch_only_wmill_can_read_is_not_pushed() {
    let (sandbox, remote) = synced(|shop| shop.add_http_trigger("f/ops/hook", "alpha", &[]));
    sandbox.windmill.set("new", empty("another key"));
    let path = "f/ops/hook.http_trigger.yaml";
    let text = String::from_utf8(remote.regular_files("main").remove(path).unwrap()).unwrap();
    let is_switch = |line: &str| line.starts_with("mode:") || line.starts_with("enabled:");
    let rest: String = text.lines().filter(|line| !is_switch(line)).map(|line| format!("{line}\n")).collect();
    for start in [
        "a: 1 # \rx: \"\nmode:  enabled\nb: 1 # \"\rmode: disabled\n",
        "%YAML 1.1\n---\n<<: {mode: enabled}\nenabled: false\n",
        "!!merge a: {mode: enabled}\nenabled: false\n",
    ] {
        remote.commit("main").file(path, format!("{start}{rest}")).done("by a user with push access");
        let restore = restore(&sandbox, &remote).arg("--to-workspace").arg("new").arg("--path").arg("f/ops/hook");
        let differs = restore.arg("--yes").run();
        assert_warned(&differs, &["their switch could not be found", path]);
        assert!(sandbox.windmill.workspace("new").get("f/ops/hook.http_trigger.json").is_none(), "{differs}");
    }
}

#[test]
fn a_workspace_specific_file_overrides_the_shared_one() {
    let (sandbox, remote) = synced(|shop| {
        shop.add_resource("f/ops/db", "postgresql", "{\"host\": \"OWN\"}");
        shop.add_variable("f/ops/s", &deployed::encrypt("a key", "secret"), true);
        shop.ws_specific = Some(vec![("resource".to_owned(), "f/ops/db".to_owned())]);
    });
    let text = |path: &str| String::from_utf8(remote.regular_files("main").remove(path).unwrap()).unwrap();
    let shared = text("f/ops/db.shop.resource.yaml").replace("OWN", "SHARED");
    let secret = text("f/ops/s.variable.yaml");
    let commit = remote.commit("main").file("f/ops/db.resource.yaml", &shared);
    commit.file("f/ops/s.shop.variable.yaml", &secret).done("by hand");
    // The workspace encrypted its secrets again, and the commit has those under the old key.
    sandbox.windmill.edit(|shop| deployed::set_key(shop, "another key", true));
    let before = sandbox.windmill.workspace("shop");
    let unchanged = restore(&sandbox, &remote).arg("--yes").run().expect("unchanged");
    assert_warned(&unchanged, &["left alone", "f/ops/s"]);
    let shop = sandbox.windmill.workspace("shop");
    for path in ["f/ops/db.resource.json", "f/ops/s.variable.json"] {
        assert_eq!(shop.get(path), before.get(path), "{path}");
    }
    assert_eq!(writes(&sandbox), Vec::<String>::new());
}

#[test]
fn an_app_is_not_deleted_if_the_commit_has_an_app_of_the_other_kind() {
    const RAW: [(&str, &str); 2] = [("/index.tsx", "console.log(1)\n"), ("/package.json", "{\"name\":\"ui\"}")];
    let sandbox = Sandbox::new();
    sandbox.windmill.token_kind(TokenKind::User);
    let mut shop = Workspace::restorable("1-seeded");
    shop.add_raw_app("f/sales/ui", &RAW);
    let board = shop.get("f/sales/board.app.json").unwrap().to_vec();
    sandbox.windmill.set("shop", shop);
    let remote = sandbox.repository();
    sandbox.sync().remote(&remote).run().expect("pushed");
    sandbox.windmill.edit(|shop| {
        shop.remove("f/sales/board.app.json");
        shop.add_raw_app("f/sales/board", &RAW);
        shop.remove("f/sales/ui.raw_app.json");
        shop.put("f/sales/ui.app.json", board);
        shop.add_raw_app("f/sales/new", &RAW);
    });
    sandbox.windmill.forget_requests();
    let restore = restore(&sandbox, &remote).arg("--delete").arg("--path").arg("f/sales");
    let shown = restore.run().expect("dry_run");
    assert_warned(&shown, &["no restore brings them back", ": raw app f/sales/new"]);
    assert_warned(&shown, &["are not deleted", ": app f/sales/ui, raw app f/sales/board"]);
    let differs = restore.arg("--yes").run().expect("differs");
    let deleted: Vec<_> = writes(&sandbox).into_iter().filter(|one| one.contains("delete")).collect();
    assert_eq!(deleted, ["apps/delete/f/sales/new"], "{differs}");
    let shop = sandbox.windmill.workspace("shop");
    assert!(shop.get("f/sales/board.raw_app.json").is_some() && shop.get("f/sales/ui.app.json").is_some());
    assert!(differences(&differs).contains(&"not_deleted f/sales/board.raw_app/raw_app.yaml".to_owned()), "{differs}");
}

#[test]
fn secrets_that_the_settings_exclude_count_as_not_chosen() {
    let secret = deployed::encrypt("a key", "old");
    let (sandbox, remote) = synced(|shop| {
        shop.add_variable("f/ops/s", &secret, true);
        shop.add_variable("f/ops/v", "1", false);
    });
    let rotated = deployed::encrypt("a key", "rotated");
    sandbox.windmill.edit(|shop| shop.add_variable("f/ops/s", &rotated, true));
    let restore = restore(&sandbox, &remote).env("WMILL_SKIP", "secrets").arg("--yes").arg("--delete");
    let unchanged = restore.run().expect("unchanged");
    assert_warned(&unchanged, &["the settings exclude secret variables", "f/ops/s"]);
    sandbox.windmill.remove("f/ops/v.variable.json");
    restore.run().expect("restored");
    assert_eq!(writes(&sandbox), ["variables/create"]);
    let shop = sandbox.windmill.workspace("shop");
    assert!(String::from_utf8_lossy(shop.get("f/ops/s.variable.json").unwrap()).contains(&rotated));
}

#[test]
fn a_deleted_resource_takes_no_variable_with_it() {
    let (sandbox, remote) = synced(|shop| shop.add_variable("f/ops/stays", "1", false));
    sandbox.windmill.edit(|shop| {
        shop.add_variable("f/ops/new", "1", false);
        shop.add_resource("f/ops/of_stays", "x", "{\"a\": [\"$var:f/ops/stays\"], \"b\": \"$var:f/ops/new\"}");
        shop.add_resource("f/ops/of_new", "x", "{\"a\": \"$var:f/ops/new\"}");
        shop.add_resource("f/ops/of_none", "x", "{\"a\": \"$res:f/ops/stays\"}");
    });
    let restore = restore(&sandbox, &remote).arg("--delete");
    let warning = ["would delete the variables", ": f/ops/of_stays.resource.yaml"];
    assert_warned(&restore.run().expect("dry_run"), &warning);
    let differs = restore.arg("--yes").run().expect("differs");
    assert_warned(&differs, &warning);
    assert_eq!(differences(&differs), ["not_deleted f/ops/of_stays.resource.yaml"]);
    let deleted: BTreeSet<_> = writes(&sandbox).into_iter().collect();
    let expected = ["resources/delete/f/ops/of_new", "resources/delete/f/ops/of_none", "variables/delete/f/ops/new"];
    assert_eq!(deleted, expected.map(str::to_owned).into(), "{differs}");
}

#[test]
fn items_that_would_stop_a_push_are_announced_and_stop_no_other() {
    let (sandbox, remote) = synced(|shop| {
        shop.add_resource("f/ops/null", "x", "null");
        shop.add_resource("f/ops/same", "x", "null");
        shop.add_resource("f/ops/sound", "x", "{\"a\": null}");
        shop.add_variable("f/ops/secret_now", "1", false);
        shop.add_variable("f/ops/z", "1", false);
    });
    sandbox.windmill.edit(|shop| {
        for entry in ["f/ops/null.resource.json", "f/ops/sound.resource.json", "f/ops/z.variable.json"] {
            shop.remove(entry);
        }
        shop.add_variable("f/ops/secret_now", &deployed::encrypt("a key", "1"), true);
    });
    let restore = restore(&sandbox, &remote);
    let warnings: [&[&str]; 2] =
        [&["have no value", ": f/ops/null.resource.yaml"], &["are secret in the workspace", ": f/ops/secret_now"]];
    let shown = restore.run().expect("dry_run");
    let differs = restore.arg("--yes").run().expect("differs");
    for warning in warnings {
        assert_warned(&shown, warning);
        assert_warned(&differs, warning);
    }
    assert_eq!(differences(&differs), ["missing f/ops/null.resource.yaml"]);
    let written: BTreeSet<_> = writes(&sandbox).into_iter().collect();
    assert_eq!(written, ["resources/create", "variables/create"].map(str::to_owned).into(), "{differs}");
}

#[test]
fn an_app_replaces_a_raw_app_only_with_delete() {
    let sandbox = Sandbox::new();
    sandbox.windmill.token_kind(TokenKind::User);
    sandbox.windmill.set("shop", Workspace::restorable("1-seeded"));
    let remote = sandbox.repository();
    sandbox.sync().remote(&remote).run().expect("pushed");
    sandbox.windmill.edit(|shop| {
        shop.remove("f/sales/board.app.json");
        shop.add_raw_app("f/sales/board", &[("/index.tsx", "console.log(1)\n")]);
    });
    sandbox.windmill.forget_requests();
    let restore = restore(&sandbox, &remote).arg("--path").arg("f/sales/board");
    let warning = ["without --delete", ": f/sales/board.app/app.yaml"];
    assert_warned(&restore.run().expect("dry_run"), &warning);
    assert_warned(&restore.arg("--yes").run().expect("differs"), &warning);
    assert_eq!(writes(&sandbox), [""; 0]);
}

#[test]
fn a_path_brings_back_only_the_folder_of_what_it_chooses() {
    let (sandbox, remote) = synced(|shop| {
        shop.add_folder("other");
        shop.add_variable("f/ops/a", "1", false);
        shop.add_variable("f/other/b", "1", false);
    });
    sandbox.windmill.edit(|shop| {
        for entry in ["f/ops/folder.meta.json", "f/ops/a.variable.json", "f/other/folder.meta.json"] {
            shop.remove(entry);
        }
    });
    let restored = restore(&sandbox, &remote).arg("--path").arg("f/ops/a").arg("--yes").run().expect("restored");
    assert_eq!(restored.changed(), (2, 0, 0), "{restored}");
    assert!(sandbox.windmill.workspace("shop").get("f/other/folder.meta.json").is_none());
}

#[test]
fn a_changed_file_of_a_resource_of_one_workspace_is_announced_and_stops_no_other_item() {
    let (sandbox, remote) = synced(|shop| {
        shop.add_file_resource("f/ops/file", Some("1"));
        shop.ws_specific = Some(vec![("resource".to_owned(), "f/ops/file".to_owned())]);
        shop.add_variable("f/ops/z", "1", false);
    });
    sandbox.windmill.edit(|shop| {
        shop.add_file_resource("f/ops/file", Some("2"));
        shop.remove("f/ops/z.variable.json");
    });
    let differs = restore(&sandbox, &remote).arg("--yes").run().expect("differs");
    assert_warned(&differs, &["if the resource is deleted in Windmill first", ": f/ops/file.shop.resource.file.ini"]);
    assert_eq!(differences(&differs), ["differs f/ops/file.shop.resource.file.ini"]);
    sandbox.windmill.remove("f/ops/file.resource.json");
    restore(&sandbox, &remote).arg("--yes").run().expect("restored");
    assert!(sandbox.windmill.workspace("shop").get("f/ops/z.variable.json").is_some());
}
