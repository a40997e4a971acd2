//! Tests of the crate `support`: the stand-in answers like the recorded Windmill, the real `wmill` pulls from it, the
//! real `git` clones from and pushes to each kind of remote, and the faults really occur.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use miniserde::json::{self, Value};
use support::deployed;
use support::git::git;
use support::git_http::basic;
use support::http::{self, ask};
use support::process::{self, PATIENCE};
use support::run::text_field;
use support::wmill::start_pull;
use support::workspace::{Entry, Exchange, Version, entries_of_tar, entries_of_zip, exchanges};
use support::{
    BareRepository, Fault, GIT_TOKEN, GIT_USERNAME, GitHttp, PushMoment, Remote, Role, Sandbox, Times, TokenKind,
    WINDMILL_TOKEN, Windmill, Workspace, assert_nothing_leaked, assert_same_files, assert_same_values, eventually,
    files_below, processes_below, pull_alone, pulled_alone, push_alone,
};

const DEFAULTS: &str = "defaultTs: bun\n";

const EVERYTHING: &str = "includeSchedules: true\nincludeTriggers: true\nincludeUsers: true\nincludeGroups: true\n\
                          includeSettings: true\nincludeKey: true\n";

// The stand-in for Windmill.

/// The recorded states of each release.
const RECORDED: [(Version, &[&str]); 2] = [
    (Version::V1_491, &["1-seeded", "2-edited", "3-emptied", "3-emptied-user-token"]),
    (Version::V1_743, &["1-seeded", "2-edited", "3-emptied", "3-emptied-user-token", "rich"]),
];

/// Returns JSON with sorted keys and without times. Other text stays unchanged.
fn value_of(text: &str) -> String {
    fn without_times(value: &Value) -> Value {
        let is_time = |text: &str| text.len() >= 20 && text.as_bytes()[10] == b'T' && text.ends_with('Z');
        match value {
            Value::String(text) if is_time(text) => Value::String("a time".to_owned()),
            Value::Array(list) => Value::Array(list.iter().map(without_times).collect()),
            Value::Object(fields) => {
                Value::Object(fields.iter().map(|(name, value)| (name.clone(), without_times(value))).collect())
            }
            other => other.clone(),
        }
    }
    json::from_str(text).map_or_else(|_| text.to_owned(), |value| json::to_string(&without_times(&value)))
}

/// Returns the entries of an archive by path, with their content by value.
fn values_of(entries: Vec<Entry>) -> BTreeMap<String, String> {
    entries.into_iter().map(|(path, bytes)| (path, value_of(&String::from_utf8_lossy(&bytes)))).collect()
}

fn entries_of(archive: &[u8]) -> Vec<Entry> {
    if archive.starts_with(b"PK") { entries_of_zip(archive) } else { entries_of_tar(archive) }
}

/// Returns a stand-in in a recorded state.
fn in_state(version: Version, state: &str) -> Windmill {
    let windmill = Windmill::start_version(version);
    match state {
        "rich" => {
            windmill.set("rich", Workspace::rich());
            windmill.token_kind(TokenKind::BoundTo("rich".to_owned()));
        }
        "3-emptied-user-token" => {
            windmill.state("3-emptied");
            windmill.token_kind(TokenKind::User);
            if version == Version::V1_743 {
                // The other workspaces that were on the recorded server.
                ["rich", "richtwo", "big"].iter().for_each(|id| windmill.set(id, Workspace::rich()));
            }
        }
        _ => windmill.state(state),
    }
    windmill
}

/// Sends one request with the valid token.
fn ask_with_token(windmill: &Windmill, path: &str) -> http::Answer {
    let bearer = format!("Bearer {WINDMILL_TOKEN}");
    ask(windmill.address(), "GET", path, &[("Authorization", &bearer)], b"").unwrap()
}

fn check_exchange(windmill: &Windmill, exchange: &Exchange, what: &str) {
    let token = match exchange.token.as_deref() {
        None => Some(WINDMILL_TOKEN),
        Some("wrong") => Some("no-such-token"),
        _ => None,
    };
    let bearer = token.map(|token| format!("Bearer {token}"));
    let headers: Vec<(&str, &str)> = bearer.iter().map(|value| ("Authorization", value.as_str())).collect();
    let body = exchange.request_body.clone().unwrap_or_default();
    let answer = ask(windmill.address(), &exchange.method, &exchange.path, &headers, body.as_bytes()).unwrap();
    assert_eq!(answer.status, exchange.status, "{what}");
    assert_eq!(answer.header("content-type"), exchange.content_type.as_deref(), "{what}");
    if let Some(body) = &exchange.body {
        let in_any_order = |text: String| {
            let mut parts: Vec<_> = text.split("},{").map(str::to_owned).collect();
            parts.iter_mut().for_each(|part| *part = part.trim_matches(['[', ']', '{', '}']).to_owned());
            parts.sort();
            parts
        };
        let (answered, recorded) = (value_of(&answer.text()), value_of(body));
        if exchange.path == "/api/workspaces/list" {
            assert_eq!(in_any_order(answered), in_any_order(recorded), "{what}");
        } else if exchange.path == "/api/workspaces/users" {
            assert_eq!(answered.len(), recorded.len(), "{what}: {answered}");
        } else {
            assert_eq!(answered, recorded, "{what}");
        }
    }
    if let Some(file) = &exchange.body_file {
        assert_eq!(values_of(entries_of(&answer.body)), values_of(entries_of(&std::fs::read(file).unwrap())), "{what}");
        let name = answer.header("content-disposition").unwrap_or_default();
        assert!(name.starts_with("attachment; filename=\"windmill-"), "{what}: {name}");
    }
}

#[test]
fn the_stand_in_answers_each_recorded_request_as_recorded() {
    for (version, states) in RECORDED {
        for state in states {
            let windmill = in_state(version, state);
            for exchange in exchanges(version, state) {
                check_exchange(&windmill, &exchange, &format!("{version:?} {state}: {}", exchange.name));
            }
        }
    }
}

#[test]
fn the_newer_windmill_gives_the_same_export_in_another_order_each_time() {
    let windmill = in_state(Version::V1_743, "rich");
    for archive_type in ["tar", "zip"] {
        let target = format!(
            "/api/w/rich/workspaces/tarball?archive_type={archive_type}&include_triggers=true&include_groups=true"
        );
        let [first, second] = [(); 2].map(|()| entries_of(&ask_with_token(&windmill, &target).body));
        assert_eq!(values_of(first.clone()), values_of(second.clone()));
        let paths = |entries: &[Entry]| entries.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
        assert_ne!(paths(&first), paths(&second));
        for varies in ["f/deep/modular.script.json", "f/deep/hook2.http_trigger.json"] {
            let of = |entries: &[Entry]| entries.iter().find(|(path, _)| path == varies).unwrap().1.clone();
            assert_ne!(of(&first), of(&second), "{varies}");
        }
        // The kinds are in the order of the server, and the content of a script comes before its settings.
        let at = |needle: &str| paths(&first).iter().position(|path| path.ends_with(needle)).unwrap();
        for pair in
            ["folder.meta.json", ".script.json", ".resource.json", ".flow.json", ".app.json", ".group.json"].windows(2)
        {
            assert!(at(pair[0]) < at(pair[1]), "{pair:?} in {:?}", paths(&first));
        }
        assert_eq!(at("f/deep/modular.ts") + 1, at("f/deep/modular.script.json"));
    }
}

#[test]
fn the_newer_windmill_gives_the_same_answers_beside_the_export_in_another_order_each_time() {
    let windmill = in_state(Version::V1_743, "rich");
    for path in ["shared_ui/get", "resources/file_resource_type_to_file_ext_map"] {
        let [first, second] = [(); 2].map(|()| ask_with_token(&windmill, &format!("/api/w/rich/{path}")).text());
        assert_eq!(value_of(&first), value_of(&second));
        assert_ne!(first, second);
    }
    // Without a shared UI, the time is the time of the answer.
    let windmill = Windmill::start();
    let [first, second] = [(); 2].map(|()| ask_with_token(&windmill, "/api/w/shop/shared_ui/get").text());
    assert_eq!(value_of(&first), value_of(&second));
    assert_ne!(first, second);
}

#[test]
fn the_older_windmill_gives_the_same_bytes_twice() {
    let windmill = Windmill::start_version(Version::V1_491);
    for path in
        ["workspaces/tarball?archive_type=tar&include_triggers=true", "resources/file_resource_type_to_file_ext_map"]
    {
        let [first, second] = [(); 2].map(|()| ask_with_token(&windmill, &format!("/api/w/shop/{path}")).body);
        assert_eq!(first, second, "{path}");
    }
}

#[test]
fn an_unrecorded_request_gets_501_and_fails_the_test() {
    let windmill = Windmill::start();
    let unknown = ["/api/w/shop/no/such?x=1", "/api/no/such", "/elsewhere"];
    for path in unknown {
        assert_eq!(ask_with_token(&windmill, path).status, 501, "{path}");
    }
    // Recorded requests and planned faults do not count as unknown.
    assert_eq!(ask_with_token(&windmill, "/api/w/shop/users/whoami").status, 200);
    windmill.fail_once("/no/such", Fault::Status(404));
    assert_eq!(ask_with_token(&windmill, "/api/no/such").status, 404);
    assert_eq!(windmill.take_unknown(), unknown.map(|path| format!("GET {path}")));

    ask_with_token(&windmill, "/api/w/shop/no/such");
    let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(windmill))).unwrap_err();
    let message = failed.downcast_ref::<String>().unwrap();
    assert!(message.contains("GET /api/w/shop/no/such"), "{message}");
}

#[test]
fn exports_are_counted_and_can_be_delayed() {
    let windmill = Windmill::start();
    windmill.set("shop", Workspace::of_scripts(200));
    windmill.take_time_for_exports();
    let mut asked = 0;
    for (archive_type, least) in [("tar", 140), ("zip", 340)] {
        let started = std::time::Instant::now();
        let target = format!("/api/w/shop/workspaces/tarball?archive_type={archive_type}");
        assert_eq!(ask_with_token(&windmill, &target).status, 200);
        assert!(
            started.elapsed() >= std::time::Duration::from_millis(least),
            "{archive_type}: {:?}",
            started.elapsed()
        );
        asked += 1;
        assert_eq!(windmill.exports(), asked);
    }
}

#[test]
fn names_of_items_and_their_files_are_unchanged_in_the_export() {
    let windmill = Windmill::start();
    let long = format!("groups/{}.group.json", "n".repeat(120));
    let mut workspace = Workspace::empty();
    workspace.add_fileset("f/ops/set", &[("../../other/x.ts", "PLANTED"), (".hidden/a", "a"), ("node_modules/b", "b")]);
    workspace.add_script_with_modules("f/ops/modular", &[("../up.ts", "up"), ("b.ts", "b")]);
    workspace.add_raw_app("f/ops/ui", &[("/../../x.ts", "x"), ("/.github/ci.yml", "on: push\n")]);
    workspace.add_raw_app_of_values("f/ops/binary", &[("/data.json", "{\"a\": 1}".to_owned())]);
    workspace.add_flow("f/ops/flow", &[("../../up", "one"), ("step", "!inline Handle_error.ts\n")]);
    workspace.add_file_resource("f/ops/null", None);
    workspace.add_resource("f/ops/chat", "c_chat", "{\"channel\": 175928847299117063}");
    workspace.add_group("../../escaped", "up");
    workspace.add_user("../up@example.com", "up");
    workspace.add_resource_type("../c_up", None, false);
    workspace.add_dependencies("front.package.json", "{}\n");
    workspace.put(&long, "{}");
    let expected = values_of(workspace.entries().to_vec());
    windmill.set("script", workspace);
    windmill.token_kind(TokenKind::BoundTo("script".to_owned()));
    for archive_type in ["tar", "zip"] {
        let target = format!(
            "/api/w/script/workspaces/tarball?archive_type={archive_type}&include_groups=true&include_users=true&\
             include_workspace_dependencies=true"
        );
        let entries = entries_of(&ask_with_token(&windmill, &target).body);
        assert!(entries.iter().any(|(path, _)| path == "groups/../../escaped.group.json"), "{archive_type}");
        assert!(entries.iter().any(|(_, bytes)| String::from_utf8_lossy(bytes).contains("175928847299117063")));
        assert_eq!(values_of(entries), expected, "{archive_type}");
    }
    let endings =
        value_of(&ask_with_token(&windmill, "/api/w/script/resources/file_resource_type_to_file_ext_map").text());
    assert_eq!(
        endings,
        "{\"c_fileset\":{\"format_extension\":null,\"is_fileset\":true},\
         \"c_ini_file\":{\"format_extension\":\"ini\",\"is_fileset\":false}}"
    );
}

#[test]
fn the_stand_in_enforces_the_limits_of_the_instance_with_the_servers_messages() {
    let windmill = Windmill::start();
    windmill.token_kind(TokenKind::User);
    windmill.set("new", Workspace::empty());
    let bearer = format!("Bearer {WINDMILL_TOKEN}");
    let create = |what: &str, body: &str| {
        let target = format!("/api/w/new/{what}/create");
        let answer = ask(windmill.address(), "POST", &target, &[("Authorization", &bearer)], body.as_bytes()).unwrap();
        (answer.status, answer.text())
    };
    let route = |route: &str| {
        format!(
            "{{\"path\":\"f/ops/{route}\",\"route_path\":\"shop/{route}\",\"http_method\":\"post\",\"workspaced_route\":false}}"
        )
    };
    let app = |name: &str| format!("{{\"path\":\"f/ops/{name}\",\"custom_path\":\"board\",\"value\":{{}}}}");
    assert_eq!(create("http_triggers", &route("hook")).0, 201, "where they do not count");
    windmill.set("new", Workspace::empty());
    windmill.limit_the_instance();
    assert_eq!(
        create("http_triggers", &route("hook")),
        (400, "Bad request: A route already exists with this path".to_owned())
    );
    assert_eq!(create("http_triggers", &route("other")).0, 201);
    assert_eq!(create("apps", &app("one")).0, 201);
    let (status, words) = create("apps", &app("two"));
    assert!(status == 400 && words.contains("Custom path 'board' is already used by app 'f/ops/one'"), "{words}");
    // One of the three permitted groups is in the other workspace.
    for name in ["a", "b"] {
        assert_eq!(create("groups", &format!("{{\"name\":\"{name}\",\"summary\":\"\"}}")).0, 200);
    }
    let (status, words) = create("groups", "{\"name\":\"c\",\"summary\":\"\"}");
    assert!(status == 400 && words.contains("maximum number of groups (3 outside of native groups"), "{words}");
}

#[test]
fn secrets_are_skipped_and_kept_as_requested() {
    let workspace = Workspace::recorded("1-seeded");
    let paths = |query: &[(&str, &str)]| -> Vec<String> {
        let query: BTreeMap<String, String> =
            query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let entries = workspace.export(&query).into_iter();
        entries.map(|(path, _)| path).collect()
    };
    let secret = "f/ops/db_password.variable.json".to_owned();
    let open = "f/ops/region.variable.json".to_owned();
    assert!(paths(&[]).contains(&secret));
    let without_secrets = paths(&[("skip_secrets", "true")]);
    assert!(!without_secrets.contains(&secret));
    assert!(without_secrets.contains(&open));
    assert!(!paths(&[("skip_variables", "true")]).contains(&open));
}

#[test]
fn the_stand_in_distinguishes_admins_and_developers() {
    let windmill = Windmill::start_below("/windmill");
    windmill.role(Role::Developer);
    let bearer = format!("Bearer {WINDMILL_TOKEN}");
    let ask = |path| ask(windmill.address(), "GET", path, &[("Authorization", &bearer)], b"");
    let whoami = ask("/windmill/api/w/shop/users/whoami").unwrap();
    assert!(whoami.text().contains("\"is_admin\":false"));
    assert_eq!(ask("/api/w/shop/users/whoami").unwrap().status, 404);
    let [first, second] = &windmill.requests()[..] else {
        panic!("two requests were logged");
    };
    assert!(first.authorized && second.authorized);
}

// The real wmill.

#[test]
fn wmill_pulls_each_state_from_the_stand_in() {
    let sandbox = Sandbox::new();
    let into = sandbox.scratch("pulled");
    pull_alone(&sandbox, DEFAULTS, &into).must_succeed();
    let seeded = files_below(&into);
    for path in [
        "f/ops/job_00000.ts",
        "f/ops/job_00002.sh",
        "f/ops/job_00004.go",
        "f/ops/job_00006.py",
        "f/sales/job_00003.pg.sql",
        "f/ops/nightly.flow/flow.yaml",
        "f/sales/board.app/app.yaml",
        "f/ops/db.resource.yaml",
        "f/ops/db_password.variable.yaml",
        "c_shop.resource-type.yaml",
        "wmill-lock.yaml",
    ] {
        assert!(seeded.contains_key(path), "{path} in {:?}", seeded.keys());
    }
    assert!(!seeded.contains_key("f/ops/every_night.schedule.yaml"));

    sandbox.windmill.state("2-edited");
    pull_alone(&sandbox, DEFAULTS, &into).must_succeed();
    let edited = files_below(&into);
    assert!(edited.contains_key("f/sales/new_report.py"));
    assert!(!edited.contains_key("f/sales/job_00001.py"));
    assert_ne!(edited["f/ops/job_00000.ts"], seeded["f/ops/job_00000.ts"]);
    let fresh = sandbox.scratch("fresh");
    pull_alone(&sandbox, DEFAULTS, &fresh).must_succeed();
    assert_same_values(&edited, &files_below(&fresh));

    sandbox.windmill.state("3-emptied");
    pull_alone(&sandbox, DEFAULTS, &into).must_succeed();
    assert!(!files_below(&into).contains_key("f/ops/job_00002.sh"));
}

#[test]
fn wmill_pulls_the_included_kinds() {
    let sandbox = Sandbox::new();
    let into = sandbox.scratch("pulled");
    pull_alone(&sandbox, EVERYTHING, &into).must_succeed();
    let files = files_below(&into);
    for path in [
        "f/ops/every_night.schedule.yaml",
        "f/ops/hook.http_trigger.yaml",
        "groups/oncall.group.yaml",
        "users/admin@windmill.dev.user.yaml",
        "settings.yaml",
        "encryption_key.yaml",
    ] {
        assert!(files.contains_key(path), "{path} in {:?}", files.keys());
    }
}

#[test]
fn wmill_pulls_a_generated_workspace_from_a_base_url_with_a_path() {
    let sandbox = Sandbox::with(Windmill::start_below("/windmill"));
    let mut workspace = Workspace::of_scripts(12);
    workspace.add_variable("f/dept_0/region", "eu", false);
    sandbox.windmill.set("shop", workspace);
    let into = sandbox.scratch("pulled");
    pull_alone(&sandbox, DEFAULTS, &into).must_succeed();
    let files = files_below(&into);
    assert!(files.contains_key("f/dept_1/job_00011.py"));
    assert!(files.contains_key("f/dept_0/job_00010.ts"));
    assert!(files.contains_key("f/dept_0/region.variable.yaml"));
    assert_eq!(sandbox.windmill.exports(), 1);
}

#[test]
fn wmill_with_a_wrong_token_fails() {
    let sandbox = Sandbox::new();
    let into = sandbox.scratch("pulled");
    let pull = start_pull(&sandbox, &sandbox.windmill, "no-such-token", DEFAULTS, &into);
    let finished = pull.finish_within(PATIENCE).must_fail();
    assert_eq!(finished.status.code(), Some(1), "{finished}");
    assert!(sandbox.windmill.requests().iter().all(|r| !r.authorized));
}

#[test]
fn wmill_fails_on_a_cut_off_archive() {
    let sandbox = Sandbox::new();
    sandbox.windmill.fail_once("/workspaces/tarball", Fault::CutHalfway);
    let into = sandbox.scratch("pulled");
    pull_alone(&sandbox, DEFAULTS, &into).must_fail();
    pull_alone(&sandbox, DEFAULTS, &into).must_succeed();
}

#[test]
fn wmill_fails_when_the_archive_is_refused() {
    for fault in [Fault::Status(500), Fault::Status(403), Fault::GatewayPage(502)] {
        let sandbox = Sandbox::new();
        sandbox.windmill.fail("/workspaces/tarball", fault);
        let into = sandbox.scratch("pulled");
        let finished = pull_alone(&sandbox, DEFAULTS, &into).must_fail();
        assert_eq!(finished.status.code(), Some(1), "{finished}");
    }
}

#[test]
fn wmill_hangs_on_a_stalled_archive_until_it_is_killed() {
    for fault in [Fault::Hang, Fault::HangHalfway] {
        let sandbox = Sandbox::new();
        sandbox.windmill.fail("/workspaces/tarball", fault);
        let into = sandbox.scratch("pulled");
        let windmill = &sandbox.windmill;
        let mut pull = start_pull(&sandbox, windmill, WINDMILL_TOKEN, DEFAULTS, &into);
        windmill.wait_until_hanging();
        assert!(pull.is_running());
        let seen = processes_below(pull.pid());
        assert!(!seen.is_empty());
        assert!(!pull.killed().success());
        eventually("it is gone", || processes_below(seen[0].pid).is_empty().then_some(()));
    }
}

#[test]
fn a_change_during_an_export_is_in_the_export() {
    let sandbox = Sandbox::new();
    sandbox.windmill.on_export(|workspace| workspace.add_bun_script("f/ops/late", "late"));
    let into = sandbox.scratch("pulled");
    pull_alone(&sandbox, DEFAULTS, &into).must_succeed();
    assert!(files_below(&into).contains_key("f/ops/late.ts"));
}

#[test]
fn a_held_export_waits_until_it_is_released() {
    let sandbox = Sandbox::new();
    let held = sandbox.windmill.hold_exports();
    let into = sandbox.scratch("pulled");
    let windmill = &sandbox.windmill;
    let mut pull = start_pull(&sandbox, windmill, WINDMILL_TOKEN, DEFAULTS, &into);
    held.wait_for(1);
    assert!(pull.is_running());
    sandbox.windmill.state("2-edited");
    held.release();
    pull.finish_within(PATIENCE).must_succeed();
    assert!(files_below(&into).contains_key("f/sales/new_report.py"));
}

// Git remotes.

/// A clone of the remote, which can commit and push, with the real git and these further settings.
struct Clone<'a> {
    sandbox: &'a Sandbox,
    folder: PathBuf,
    settings: Vec<(&'static str, String)>,
}

impl<'a> Clone<'a> {
    fn new(sandbox: &'a Sandbox, settings: Vec<(&'static str, String)>) -> Self {
        let folder = sandbox.path().join("scratch/clone");
        Self { sandbox, folder, settings }
    }

    fn git(&self, arguments: &[&str]) -> Command {
        let mut command = git(self.sandbox);
        for (name, value) in &self.settings {
            command.env(name, value);
        }
        command.args(arguments);
        command
    }

    fn inside(&self, arguments: &[&str]) -> process::Finished {
        let folder = self.folder.to_str().unwrap();
        let git_dir = format!("--git-dir={folder}/.git");
        let work_tree = format!("--work-tree={folder}");
        process::run(self.git(&[&[git_dir.as_str(), work_tree.as_str()], arguments].concat()))
    }

    fn clone_from(&self, url: &str) -> process::Finished {
        process::run(self.git(&["clone", "--quiet", "--", url, self.folder.to_str().unwrap()]))
    }

    fn commit(&self, path: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.folder.join(path), content).unwrap();
        self.inside(&["add", "--all"]).must_succeed();
        self.inside(&["commit", "--quiet", "-m", "Add a file"]).must_succeed();
    }

    fn push(&self) -> process::Finished {
        self.inside(&["push", "--porcelain", "origin", "HEAD:refs/heads/main"])
    }
}

/// Asserts that fetch and push work for the remote, and that it receives what was sent.
#[track_caller]
fn check_round_trip(
    sandbox: &Sandbox,
    repository: &BareRepository,
    remote: &impl Remote,
    settings: Vec<(&'static str, String)>,
) {
    repository.commit_files("main", &[("README.md", "hello\n")]);
    let clone = Clone::new(sandbox, settings);
    clone.clone_from(&remote.url()).must_succeed();
    // This is larger than `http.postBuffer`, so git sends it in chunks.
    let large: Vec<u8> = noise(2 * 1024 * 1024);
    clone.commit("large.bin", &large);
    clone.push().must_succeed();
    let tip = repository.tip("main").unwrap();
    let files = repository.files(&tip);
    assert_eq!(files["README.md"], ("100644".to_owned(), b"hello\n".to_vec()));
    assert!(files["large.bin"].1 == large, "what arrived is what was sent");
    assert_eq!(repository.log("main")[0].subject, "Add a file");
    assert_eq!(repository.log("main").len(), 2);
    repository.assert_sound();
}

/// Returns bytes that do not compress.
fn noise(count: usize) -> Vec<u8> {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..count).map(|_| byte()).collect()
}

fn with_token(token: &str) -> Vec<(&'static str, String)> {
    let header = format!("Authorization: {}", basic(GIT_USERNAME, token));
    vec![
        ("GIT_CONFIG_COUNT", "1".to_owned()),
        ("GIT_CONFIG_KEY_0", "http.extraHeader".to_owned()),
        ("GIT_CONFIG_VALUE_0", header),
    ]
}

#[test]
fn git_clones_from_and_pushes_to_a_file_remote() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    check_round_trip(&sandbox, &repository, &repository, Vec::new());
}

#[test]
fn git_clones_from_and_pushes_to_a_sha256_remote() {
    let sandbox = Sandbox::new();
    let repository = sandbox.sha256_repository();
    check_round_trip(&sandbox, &repository, &repository, Vec::new());
    assert_eq!(repository.tip("main").unwrap().len(), 64);
}

#[test]
fn git_clones_from_and_pushes_to_an_http_remote_with_the_token() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let remote = GitHttp::serve(&repository);
    check_round_trip(&sandbox, &repository, &remote, with_token(GIT_TOKEN));
    assert!(remote.requests().iter().all(|request| request.authorized));
}

#[test]
fn an_http_remote_accepts_a_compressed_request() {
    // git compresses its list of wants and haves if the list is long. Many branches make it long.
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    for number in 0..40 {
        let name = format!("branch-{number}");
        repository.commit_files(&name, &[("README.md", &name)]);
    }
    let remote = GitHttp::serve(&repository);
    let clone = Clone::new(&sandbox, with_token(GIT_TOKEN));
    clone.clone_from(&remote.url()).must_succeed();
}

#[test]
fn an_http_remote_refuses_a_missing_and_a_wrong_token() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    repository.commit_files("main", &[("README.md", "hello\n")]);
    let remote = GitHttp::serve(&repository);
    for settings in [Vec::new(), with_token("no-such-token")] {
        let refused = Clone::new(&sandbox, settings).clone_from(&remote.url());
        assert!(!refused.success(), "{refused}");
    }
    assert!(remote.requests().iter().all(|request| !request.authorized));
}

#[test]
fn an_http_remote_fails_as_planned_and_recovers() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    repository.commit_files("main", &[("README.md", "hello\n")]);
    let remote = GitHttp::serve(&repository);
    let clone = Clone::new(&sandbox, with_token(GIT_TOKEN));
    for fault in [
        Fault::Status(403),
        Fault::Status(404),
        Fault::Status(429),
        Fault::Status(500),
        Fault::GatewayPage(502),
        Fault::Close,
        Fault::CutHalfway,
    ] {
        remote.fail("git-upload-pack", fault);
        clone.clone_from(&remote.url()).must_fail();
        remote.heal();
    }
    clone.clone_from(&remote.url()).must_succeed();
}

#[test]
fn an_http_remote_hangs_until_git_is_killed() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let remote = GitHttp::serve(&repository);
    remote.fail("info/refs", Fault::Hang);
    let clone = Clone::new(&sandbox, with_token(GIT_TOKEN));
    let mut started = process::start(clone.git(&["ls-remote", &remote.url()]));
    remote.wait_until_hanging();
    assert!(started.is_running());
    started.killed().must_fail();
}

#[test]
fn the_target_of_a_redirect_receives_the_request() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    repository.commit_files("main", &[("README.md", "hello\n")]);
    let remote = GitHttp::serve(&repository);
    let other = GitHttp::serve(&repository);
    other.open_to_all();
    remote.fail("info/refs", Fault::Redirect(other.base()));
    let clone = Clone::new(&sandbox, with_token(GIT_TOKEN));
    clone.clone_from(&remote.url()).must_succeed();
    // git sends no token with the redirected request, but with all later ones: it takes the other server for the
    // remote.
    assert!(other.requests().iter().any(|request| request.authorized));
}

#[test]
fn another_writer_can_push_during_our_push() {
    for moment in [PushMoment::Asked, PushMoment::Received] {
        let sandbox = Sandbox::new();
        let repository = sandbox.repository();
        repository.commit_files("main", &[("README.md", "hello\n")]);
        let remote = GitHttp::serve(&repository);
        let clone = Clone::new(&sandbox, with_token(GIT_TOKEN));
        clone.clone_from(&remote.url()).must_succeed();
        clone.commit("ours.txt", "ours\n");
        let theirs = Arc::new(Mutex::new(None));
        let (writer, seen) = (repository.clone(), Arc::clone(&theirs));
        remote.at(moment, Times::Once, move || {
            let commit = writer.commit_files("main", &[("theirs.txt", "theirs\n")]);
            *seen.lock().unwrap() = Some(commit);
        });
        clone.push().must_fail();
        assert_eq!(repository.tip("main"), *theirs.lock().unwrap(), "{moment:?}");
        clone.inside(&["pull", "--quiet", "--rebase"]).must_succeed();
        clone.push().must_succeed();
    }
}

#[test]
fn a_push_whose_answer_is_lost_has_arrived() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    repository.commit_files("main", &[("README.md", "hello\n")]);
    let before = repository.tip("main");
    let remote = GitHttp::serve(&repository);
    let clone = Clone::new(&sandbox, with_token(GIT_TOKEN));
    clone.clone_from(&remote.url()).must_succeed();
    clone.commit("ours.txt", "ours\n");
    remote.fail("/git-receive-pack", Fault::CutHalfway);
    clone.push().must_fail();
    assert_ne!(repository.tip("main"), before);
}

#[test]
fn a_refusing_hook_leaves_the_branch_unchanged() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let before = repository.commit_files("main", &[("README.md", "hello\n")]);
    let clone = Clone::new(&sandbox, Vec::new());
    clone.clone_from(&repository.url()).must_succeed();
    clone.commit("ours.txt", "ours\n");
    repository.refuse_pushes("protected branch");
    let refused = clone.push().must_fail();
    assert!(refused.stderr_text().contains("protected branch"), "{refused}");
    assert_eq!(repository.tip("main"), Some(before));
    repository.accept_pushes();
    clone.push().must_succeed();
}

#[test]
fn hostile_commits_can_be_made() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository_with_default_branch("trunk");
    repository
        .commit("trunk")
        .file("keep.txt", "keep\n")
        .file("gone/a.txt", "")
        .symlink("f", "/etc")
        .submodule("sub", &"1".repeat(40))
        .executable("run.sh", "#!/bin/sh\n")
        .file("new\nline \"quoted\" ü.txt", "odd\n")
        .done("Hostile");
    repository.commit("trunk").remove("gone").done("Less");
    let files = repository.files("trunk");
    let modes: Vec<(&str, &str)> = files.iter().map(|(path, (mode, _))| (path.as_str(), mode.as_str())).collect();
    assert_eq!(
        modes,
        [
            ("f", "120000"),
            ("keep.txt", "100644"),
            ("new\nline \"quoted\" ü.txt", "100644"),
            ("run.sh", "100755"),
            ("sub", "160000"),
        ]
    );
    assert_eq!(files["f"].1, b"/etc");
    assert_eq!(files["sub"].1, "1".repeat(40).as_bytes());

    let blob = repository.store_blob(b"evil\n");
    let inner = repository.store_raw_tree(&[("100644", b"config", &blob)]);
    let outer = repository.store_raw_tree(&[("040000", b".git", &inner)]);
    repository.commit_tree("evil", &outer, "A folder that no index takes");
    assert!(repository.files("evil").contains_key(".git/config"));
    assert!(repository.branches().contains_key("trunk"));
}

mod ssh {
    use super::*;
    use support::GitSsh;

    #[test]
    #[ignore = "needs sshd: just test-ssh"]
    fn git_clones_from_and_pushes_to_an_ssh_remote_whose_host_is_checked() {
        let sandbox = Sandbox::new();
        let repository = sandbox.repository();
        let remote = GitSsh::serve(&repository);
        let settings = vec![("GIT_SSH_COMMAND", remote.ssh_command())];
        check_round_trip(&sandbox, &repository, &remote, settings);
        let [first, second] = &remote.commands()[..] else {
            panic!("{}", remote.server_log());
        };
        assert!(first.starts_with("git-upload-pack "));
        assert!(second.starts_with("git-receive-pack "));
    }

    #[test]
    #[ignore = "needs sshd: just test-ssh"]
    fn an_ssh_remote_with_another_host_key_is_noticed() {
        let sandbox = Sandbox::new();
        let repository = sandbox.repository();
        let remote = GitSsh::serve(&repository);
        let settings = vec![("GIT_SSH_COMMAND", remote.ssh_command())];
        remote.change_host_key();
        let refused = Clone::new(&sandbox, settings).clone_from(&remote.url());
        let said = refused.must_fail().stderr_text();
        assert!(said.contains("Host key verification failed"), "{said}");
    }

    #[test]
    #[ignore = "needs sshd: just test-ssh"]
    fn an_ssh_remote_refuses_another_key() {
        let sandbox = Sandbox::new();
        let repository = sandbox.repository();
        let remote = GitSsh::serve(&repository);
        let settings = vec![("GIT_SSH_COMMAND", remote.ssh_command())];
        remote.revoke_client_key();
        let refused = Clone::new(&sandbox, settings).clone_from(&remote.url());
        let said = refused.must_fail().stderr_text();
        assert!(said.contains("Permission denied"), "{said}");
    }
}

// Another program in place of our binary.

/// A program that behaves like our binary: a result on stdout, or a service that reports its address.
const IN_ITS_PLACE: &str = r#"
const http = require("node:http");
const { execFileSync } = require("node:child_process");
if (process.argv[2] === "sync") {
  execFileSync("git", ["--version"], { env: { ...process.env, EXTRA: "planted" } });
  console.error("trying\n" + Object.keys(process.env).sort().join(" "));
  console.log(JSON.stringify({ success: true, code: "pushed", message: "done", commit: null,
    changed: { added: 1, modified: 2, deleted: 0 }, warnings: ["one"] }));
  process.exit(0);
}
const server = http.createServer((request, response) => {
  let body = "";
  request.on("data", (part) => { body += part; });
  request.on("end", () => {
    response.writeHead(request.method === "POST" ? 502 : 200, { "Content-Type": "application/json" });
    response.end(JSON.stringify({ method: request.method, url: request.url, body }));
  });
});
server.listen(0, "127.0.0.1", () => console.error(`INFO listening on 127.0.0.1:${server.address().port}`));
process.on("SIGTERM", () => process.exit(7));
"#;

fn in_its_place(sandbox: &Sandbox) -> PathBuf {
    let script = sandbox.file("in-its-place.js", IN_ITS_PLACE);
    sandbox.program("in-its-place", &format!("exec node '{}' \"$@\"", script.display()))
}

#[test]
fn a_run_has_a_clean_environment_and_a_result() {
    let sandbox = Sandbox::new();
    let remote = GitHttp::serve(&sandbox.repository());
    sandbox.record("git");
    let outcome = sandbox
        .sync()
        .program(in_its_place(&sandbox))
        .workspace("shop")
        .remote(&remote)
        .env("COMMIT_PER", "item")
        .without("HOME")
        .run()
        .expect("pushed");
    assert_eq!(outcome.exit_code, Some(0));
    assert_eq!(outcome.changed(), (1, 2, 0));
    assert_eq!(outcome.commit(), None);
    assert_eq!(outcome.warnings(), ["one"]);
    let given = "COMMIT_PER DATA_DIR GIT_REMOTE_URL GIT_TOKEN GIT_USERNAME LISTEN_ADDR PATH";
    let also = "WINDMILL_BASE_URL WINDMILL_TOKEN WINDMILL_WORKSPACE";
    let seen = outcome.stderr.lines().nth(1).unwrap_or_else(|| panic!("{outcome}"));
    let seen: Vec<&str> = seen.split(' ').filter(|name| *name != "PWD").collect();
    assert_eq!(seen.join(" "), format!("{given} {also}"), "{outcome}");
    let [started] = &sandbox.invocations("git")[..] else {
        panic!("git was started once");
    };
    assert_eq!(started.arguments, ["--version"]);
    assert!(started.environment.contains(&"EXTRA=planted".to_owned()));
}

#[test]
fn a_service_answers_and_ends() {
    let sandbox = Sandbox::new();
    let mut service = sandbox.service().program(in_its_place(&sandbox)).serve();
    assert_eq!(service.get("/health").status, 200);
    let answer = service.post_sync("{\"force\":true}");
    assert_eq!(answer.status, 502);
    let said = answer.json();
    assert_eq!(text_field(&said, "url").as_deref(), Some("/sync"));
    assert_eq!(text_field(&said, "body").as_deref(), Some("{\"force\":true}"));
    service.wait_for_log("INFO");
    assert_eq!(service.terminate().code(), Some(7));

    let mut service = sandbox.service().program(in_its_place(&sandbox)).serve();
    service.kill();
    assert!(service.ask("GET", "/health", &[], b"").is_err());
}

// The search for secrets, and the comparison of trees.

#[test]
fn planted_secrets_are_found_in_each_form() {
    let sandbox = Sandbox::new();
    let found = |text: &str| {
        std::panic::catch_unwind(|| {
            assert_nothing_leaked(&[("text", text.as_bytes())], &[], &[GIT_TOKEN]);
        })
        .is_err()
    };
    assert!(found(&format!("a {GIT_TOKEN} b")));
    assert!(found(&basic(GIT_USERNAME, GIT_TOKEN)));
    assert!(found(&basic("x-access-token", GIT_TOKEN)));
    assert!(!found("git-token-PLANTED-3333"));
    let below =
        |folder: &Path| std::panic::catch_unwind(|| assert_nothing_leaked(&[], &[folder], &[GIT_TOKEN])).is_err();
    assert!(!below(sandbox.path()));
    sandbox.file("config", GIT_TOKEN);
    assert!(below(sandbox.path()));
}

#[test]
fn files_with_equal_values_and_other_bytes_are_equal() {
    let files = |entries: &[(&str, &str)]| -> support::Files {
        entries.iter().map(|(path, content)| ((*path).to_owned(), content.as_bytes().to_vec())).collect()
    };
    let kept =
        files(&[("a.yaml", "# kept\na: 1\n"), ("wmill-lock.yaml", "version: v2\nlocks:\n  f/a: x\n  f/stale: y\n")]);
    let fresh = files(&[("a.yaml", "a: 1\n"), ("wmill-lock.yaml", "version: v2\nlocks:\n  f/a: x\n")]);
    assert_same_values(&kept, &fresh);
    assert_same_files(&kept, &kept);
    let differ = |one: &support::Files, other: &support::Files| {
        std::panic::catch_unwind(|| assert_same_values(one, other)).is_err()
    };
    assert!(differ(&fresh, &kept), "an item is missing in the lock file");
    assert!(differ(&files(&[("a.yaml", "a: 2\n")]), &files(&[("a.yaml", "a: 1\n")])));
    assert!(differ(&files(&[("a.ts", "a ")]), &files(&[("a.ts", "a")])));
    assert!(differ(&files(&[]), &files(&[("a.ts", "a")])));
}

#[test]
fn the_fixtures_are_in_the_repository() {
    for version in Version::ALL {
        assert!(version.fixtures().join("1-seeded/everything.tar").is_file());
    }
    assert!(http::ask_raw(Windmill::start().address(), b"GET /api/version HTTP/1.1\r\n\r\n").is_ok());
}

#[test]
#[ignore = "long: just test-long"]
fn the_next_pull_gets_what_the_real_wmill_pushed() {
    let sandbox = Sandbox::new();
    let all = "includeSchedules: true\nincludeTriggers: true\nincludeGroups: true\n";
    sandbox.windmill.set("shop", Workspace::restorable("1-seeded"));
    let from = sandbox.scratch("pushed");
    pull_alone(&sandbox, all, &from).must_succeed();
    let before = pulled_alone(&sandbox, all);
    let key = deployed::key(&sandbox.windmill.workspace("shop")).unwrap();
    let mut bare = Workspace::empty();
    deployed::set_key(&mut bare, &key, false);
    sandbox.windmill.set("shop", bare);
    let pushed = push_alone(&sandbox, all, &from).must_succeed();
    assert!(pushed.stdout_text().contains("Done! All"), "{pushed}");
    assert_same_values(&pulled_alone(&sandbox, all), &before);
    let nothing = push_alone(&sandbox, all, &from).must_succeed();
    assert!(nothing.stdout_text().contains("0 changes to apply"), "{nothing}");
}

#[test]
#[ignore = "long: just test-long"]
fn wmill_pulls_the_rich_workspace_and_pushes_it_back() {
    let sandbox = Sandbox::new();
    let all = "includeSchedules: true\nincludeTriggers: true\nincludeGroups: true\n";
    sandbox.windmill.state("rich");
    let before = pulled_alone(&sandbox, all);
    for path in [
        "f/deep/full_code.raw_app/lib/deep/util.ts",
        "f/deep/skillset.fileset/sub/b.md",
        "f/deep/conf.resource.file.ini",
        "f/deep/modular__mod/g.ts",
        "f/deep/hook2.http_trigger.yaml",
        "f/ops/db.shop.resource.yaml",
        "dependencies/front.package.json",
        "ui/components/Button.tsx",
    ] {
        assert!(before.contains_key(path), "{path} in {:#?}", before.keys());
    }
    // wmill builds a raw app with npm to push it, and drops the byte order mark of a script.
    for path in ["f/deep/full_code.raw_app.json", "f/deep/bytes.sh", "f/deep/bytes.script.json"] {
        sandbox.windmill.remove(path);
    }
    let from = sandbox.scratch("pushed");
    pull_alone(&sandbox, all, &from).must_succeed();
    let before = pulled_alone(&sandbox, all);
    let mut bare = Workspace::empty();
    deployed::set_key(&mut bare, &deployed::key(&Workspace::rich()).unwrap(), false);
    // wmill asks for the list of workspace-specific items before it creates one.
    bare.ws_specific = Workspace::rich().ws_specific;
    sandbox.windmill.set("shop", bare);
    push_alone(&sandbox, all, &from).must_succeed();
    assert_same_values(&pulled_alone(&sandbox, all), &before);
    let nothing = push_alone(&sandbox, all, &from).must_succeed();
    assert!(nothing.stdout_text().contains("0 changes to apply"), "{nothing}");
}

#[test]
fn a_secret_can_be_read_only_with_its_own_key() {
    let cipher = deployed::encrypt("key one", "hunter2");
    assert_eq!(deployed::decrypt("key one", &cipher).as_deref(), Some("hunter2"));
    assert_eq!(deployed::decrypt("key two", &cipher), None);
}
