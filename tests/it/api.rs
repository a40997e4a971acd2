//! The service as its callers see it: what `POST /sync` accepts and answers, which callers wait for which sync, and how
//! the service ends.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use miniserde::json::{self, Value};

use support::git_http::basic;
use support::http::ask;
use support::process::find_program;
use support::run::{count_field, field, text_field, texts_field};
use support::windmill::SHOP;
use support::*;

/// Returns a service whose settings have all that a sync needs.
fn configured<'a>(sandbox: &'a Sandbox, remote: &impl Remote) -> Run<'a> {
    sandbox.service().workspace(SHOP).remote(remote)
}

/// Returns a service whose settings have only the address of Windmill.
fn bare(sandbox: &Sandbox) -> Run<'_> {
    sandbox.service().without("WINDMILL_TOKEN")
}

/// Returns a JSON object of strings.
fn object(fields: &[(&str, &str)]) -> String {
    let members: Vec<String> =
        fields.iter().map(|(name, value)| format!("{}:{}", json::to_string(*name), json::to_string(*value))).collect();
    format!("{{{}}}", members.join(","))
}

#[track_caller]
fn text(answer: &Answer, path: &str) -> String {
    text_field(&answer.json(), path).unwrap_or_else(|| panic!("`{path}` is null in {}", answer.text()))
}

/// Returns the answer as JSON, after a check that status, code and the code's `success` match.
#[track_caller]
fn check(answer: &Answer, status: u16, code: &str) -> Value {
    let value = answer.json();
    let shown = answer.text();
    assert_eq!((answer.status, text_field(&value, "code").as_deref()), (status, Some(code)), "{shown}");
    assert!(matches!(field(&value, "success"), Value::Bool(success) if *success == (status < 300)), "{shown}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    value
}

/// Checks that the request is refused as invalid, and that its message contains all of `named`.
#[track_caller]
fn refused(service: &Service, body: &str, named: &[&str]) {
    let answer = service.post_sync(body);
    check(&answer, 400, "request_invalid");
    for name in named {
        assert!(text(&answer, "message").contains(name), "no `{name}` in {}", answer.text());
    }
}

/// Sends `POST /sync` from another thread.
fn post_meanwhile(service: &Service, body: &str) -> JoinHandle<Answer> {
    let (address, body, authorization) = (service.address(), body.to_owned(), service.authorization());
    thread::spawn(move || {
        let headers = [&[("Content-Type", "application/json")], authorization].concat();
        ask(address, "POST", "/sync", &headers, body.as_bytes()).expect("an answer to `POST /sync`")
    })
}

/// Returns the running programs of this sandbox's runs, also those that left their process group.
fn programs_of(sandbox: &Sandbox) -> Vec<String> {
    let data = sandbox.data().display().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let read = |name: &str| std::fs::read(entry.path().join(name)).unwrap_or_default();
        let environment = String::from_utf8_lossy(&read("environ")).into_owned();
        let is_ours = |variable: &str| variable.starts_with("WINDMILL_GIT_SYNC_RUN=") && variable.contains(&data);
        if environment.split('\0').any(is_ours) {
            found.push(String::from_utf8_lossy(&read("cmdline")).replace('\0', " "));
        }
    }
    found
}

#[track_caller]
fn assert_no_programs(sandbox: &Sandbox) {
    let left = programs_of(sandbox);
    assert!(left.is_empty(), "still running: {left:?}");
}

// Requests and answers.

#[test]
fn a_request_without_a_body_syncs_with_the_settings() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    // Nothing listens on this address.
    let service =
        configured(&sandbox, &GitHttp::serve(&repository)).env("GIT_REMOTE_URL", "http://127.0.0.1:1/x.git").serve();
    // There is no Content-Length, as curl sends it: `curl --request POST http://…/sync`.
    let answer = service.ask_raw(b"POST /sync HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n").unwrap();
    assert_eq!(repository.tip("main"), None, "nothing arrived");
    check(&answer, 502, "git_unreachable");

    let remote = GitHttp::serve(&repository);
    let service = configured(&sandbox, &remote).serve();
    let answer = service.ask_raw(b"POST /sync HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n").unwrap();
    let result = check(&answer, 200, "pushed");
    let tip = repository.tip("main").unwrap();
    assert_eq!(text_field(&result, "commit"), Some(tip.clone()));
    assert_eq!(text_field(&result, "message").unwrap(), "Successfully synced workspace 'shop' to Git");
    assert_eq!(text_field(&result, "workspace").unwrap(), "shop");
    assert_eq!(text_field(&result, "branch").unwrap(), "main");
    assert_eq!(count_field(&result, "changed.added"), repository.files("main").len() as u64);
    assert_eq!((count_field(&result, "changed.modified"), count_field(&result, "changed.deleted")), (0, 0));
    assert_eq!(texts_field(&result, "warnings"), Vec::<String>::new());
    assert!(count_field(&result, "duration_ms") > 0);
    let Value::Object(members) = &result else { panic!("{}", answer.text()) };
    let names: Vec<&str> = members.keys().map(String::as_str).collect();
    let wanted = "branch changed code commit duration_ms left_out message run_id success warnings workspace";
    assert_eq!(names.join(" "), wanted);

    let mut runs = BTreeSet::from([text(&answer, "run_id")]);
    for body in ["", "{}", " {} \n"] {
        let answer = service.post_sync(body);
        let result = check(&answer, 200, "unchanged");
        assert_eq!(text_field(&result, "commit"), Some(tip.clone()));
        runs.insert(text(&answer, "run_id"));
    }
    assert_eq!(runs.len(), 4, "each run has a name of its own");
    assert_eq!(repository.log("main").len(), 1);
    assert_eq!(processes_below(service.pid()).len(), 1, "four syncs leave no child and no zombie");
    assert_no_programs(&sandbox);
}

#[test]
fn a_service_without_settings_names_what_is_missing_and_serves_complete_requests() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let remote = GitHttp::serve(&repository);
    let service = bare(&sandbox).trusted().serve();
    assert_eq!(service.get("/health").status, 200);
    for lacking in ["WINDMILL_TOKEN", "GIT_REMOTE_URL"] {
        assert!(service.log().contains(lacking), "{}", service.log());
    }
    for body in ["", "{}"] {
        refused(&service, body, &["WINDMILL_TOKEN", "windmill_token", "GIT_REMOTE_URL", "git_remote_url"]);
    }
    let url = remote.url();
    refused(&service, &object(&[("git_remote_url", &url), ("workspace", SHOP)]), &["windmill_token", "git_token"]);
    assert_eq!((sandbox.windmill.requests().len(), remote.requests().len()), (0, 0));

    remote.open_to_all();
    let everything = [
        ("workspace", SHOP),
        ("windmill_token", WINDMILL_TOKEN),
        ("git_remote_url", &url),
        ("git_token", "brought-along"),
        ("git_branch", "backup/{workspace}"),
        ("git_subdir", "windmill/{workspace}"),
        ("git_user_name", "Ops Bot"),
        ("git_user_email", "ops@example.com"),
    ];
    let answer = service.post_sync(&object(&everything));
    let result = check(&answer, 200, "pushed");
    assert_eq!(text_field(&result, "commit"), repository.tip("backup/shop"));
    assert_eq!(text_field(&result, "branch").unwrap(), "backup/shop");
    let files = repository.files("backup/shop");
    assert!(files.keys().all(|path| path.starts_with("windmill/shop/")), "{:?}", files.keys());
    let [commit] = &repository.log("backup/shop")[..] else { panic!("one commit") };
    assert_eq!(commit.author, "Ops Bot <ops@example.com>");
    assert_eq!(commit.committer, "Ops Bot <ops@example.com>");
    let brought = basic("x-access-token", "brought-along");
    assert!(remote.requests().iter().all(|request| request.authorization.as_deref() == Some(&brought)));
}

#[test]
fn a_request_can_pass_the_remote_as_a_git_repository_resource() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let remote = GitHttp::serve(&repository);
    let service = bare(&sandbox).trusted().serve();
    let url = remote.url().replace("http://", &format!("http://{GIT_USERNAME}:{GIT_TOKEN}@"));
    let about = object(&[("workspace", SHOP), ("windmill_token", WINDMILL_TOKEN)]);
    let resource = format!("{{\"url\":\"{url}\",\"branch\":\"trunk\",\"folder\":\"wm\",\"is_github_app\":false}}");
    let body = format!("{},\"repository\":{resource}}}", about.trim_end_matches('}'));
    let answer = service.post_sync(&body);
    let result = check(&answer, 200, "pushed");
    assert_eq!(text_field(&result, "commit"), repository.tip("trunk"));
    assert!(repository.files("trunk").keys().all(|path| path.starts_with("wm/")));
    assert!(remote.requests().iter().all(|request| request.authorized));
    // If the same thing is given twice, it is unclear which one counts.
    let twice = body.replace("\"repository\":", "\"git_branch\":\"other\",\"repository\":");
    refused(&service, &twice, &["git_branch", "repository.branch"]);
    let reference = body.replace(&url, "$res:f/ops/repo");
    refused(&service, &reference, &["repository.url", "$res:"]);
}

#[test]
fn a_dry_run_reports_changes_and_pushes_nothing() {
    let sandbox = Sandbox::replayed();
    let repository = sandbox.repository();
    let service = configured(&sandbox, &repository).serve();
    let answer = service.post_sync("{\"dry_run\":true}");
    let result = check(&answer, 200, "dry_run");
    assert!(matches!(field(&result, "commit"), Value::Null));
    assert!(count_field(&result, "changed.added") > 20);
    assert!(text(&answer, "message").contains("f/ops/job_00000.ts"), "{}", answer.text());
    assert_eq!(repository.refs(), "");
    check(&service.post_sync("{\"dry_run\":false}"), 200, "pushed");
}

#[test]
fn each_failure_has_the_status_of_its_code() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let remote = GitHttp::serve(&repository);
    let service = configured(&sandbox, &remote).trusted().serve();
    let own = |fields: &[(&str, &str)]| service.post_sync(&object(fields));
    let wrong_token = own(&[("windmill_token", "no-such-token")]);
    check(&wrong_token, 502, "windmill_unauthorized");
    assert!(text(&wrong_token, "message").contains("shop"), "{}", wrong_token.text());
    // A header could not have it, and no question is asked without the token.
    refused(&service, &object(&[("windmill_token", "a-tok\u{e9}n")]), &["windmill_token"]);
    sandbox.windmill.token_kind(TokenKind::User);
    check(&own(&[("windmill_token", WINDMILL_TOKEN), ("workspace", "nowhere")]), 502, "workspace_not_found");
    sandbox.windmill.fail("/users/whoami", Fault::GatewayPage(502));
    check(&service.post_sync(""), 502, "windmill_unreachable");
    sandbox.windmill.heal();
    sandbox.windmill.fail("/workspaces/tarball", Fault::Status(500));
    check(&service.post_sync(""), 502, "pull_failed");
    sandbox.windmill.heal();
    check(&own(&[("git_token", "no-such-token")]), 502, "git_unauthorized");
    repository.refuse_pushes("the branch is protected");
    let rejected = service.post_sync("");
    check(&rejected, 502, "git_rejected");
    assert!(text(&rejected, "message").contains("the branch is protected"), "{}", rejected.text());
    assert_eq!(repository.refs(), "", "no failure has pushed");
    repository.accept_pushes();
    check(&service.post_sync(""), 200, "pushed");
    sandbox.windmill.state("3-emptied");
    let before = repository.refs();
    check(&service.post_sync(""), 422, "mass_deletion");
    assert_eq!(repository.refs(), before);
    check(&service.post_sync("{\"allow_mass_deletion\":true}"), 200, "pushed");
}

#[test]
fn a_run_continues_if_the_caller_does_not_wait() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let service = configured(&sandbox, &repository).serve();
    let held = sandbox.windmill.hold_exports();
    let answer = service.post_sync("{\"wait\":false}");
    assert_eq!(answer.status, 202, "{}", answer.text());
    let run = text(&answer, "run_id");
    held.wait_for(1);
    assert_eq!(repository.refs(), "");
    held.release();
    service.wait_for_log(&format!("run {run}: pushed"));
    assert!(repository.tip("main").is_some());
    let waited = service.post_sync("{\"wait\":true}");
    check(&waited, 200, "unchanged");
    assert_ne!(text(&waited, "run_id"), run);
}

#[test]
fn a_run_continues_if_its_client_disconnects() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let service = configured(&sandbox, &repository).serve();
    let held = sandbox.windmill.hold_exports();
    let mut client = TcpStream::connect(service.address()).unwrap();
    client.write_all(b"POST /sync HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n").unwrap();
    held.wait_for(1);
    drop(client);
    assert_eq!(service.get("/health").status, 200);
    held.release();
    eventually("the commit arrives", || repository.tip("main"));
}

// The behaviour of the listener.

#[test]
fn health_answers_while_a_sync_is_held() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let begun = Instant::now();
    let service = configured(&sandbox, &repository).env("SYNC_API_TOKEN", "needed-elsewhere").serve();
    let held = sandbox.windmill.hold_exports();
    let headers = [("Authorization", "Bearer needed-elsewhere")];
    let address = service.address();
    let sync = thread::spawn(move || ask(address, "POST", "/sync", &headers, b"").unwrap());
    held.wait_for(1);
    let answer = service.get("/health");
    let health = answer.json();
    assert_eq!(answer.status, 200);
    assert_eq!(text_field(&health, "status").as_deref(), Some("ok"));
    assert_eq!(text_field(&health, "version").as_deref(), Some(env!("CARGO_PKG_VERSION")));
    assert!(count_field(&health, "uptime_seconds") <= begun.elapsed().as_secs());
    let head = service.ask("HEAD", "/health", &[], b"").unwrap();
    assert_eq!((head.status, head.header("content-length")), (200, answer.header("content-length")));
    assert!(!sync.is_finished());
    held.release();
    check(&sync.join().unwrap(), 200, "pushed");
}

#[test]
fn unknown_paths_and_methods_and_invalid_requests_are_refused() {
    let sandbox = Sandbox::new();
    let service = bare(&sandbox).serve();
    let json: &[(&str, &str)] = &[("Content-Type", "application/json")];
    let check_refusal = |method: &str, path: &str, headers: &[(&str, &str)], body: &[u8], status| {
        let answer = service.ask(method, path, headers, body).unwrap();
        check(&answer, status, "request_invalid");
        answer
    };
    for path in ["/sync/", "/Health", "/health/x", "/../health", "//health"] {
        check_refusal("GET", path, &[], b"", 404);
    }
    assert_eq!(service.ask("HEAD", "/nothing", &[], b"").unwrap().status, 404);
    assert_eq!(check_refusal("GET", "/sync", &[], b"", 405).header("allow"), Some("POST"));
    assert_eq!(check_refusal("PUT", "/sync", json, b"{}", 405).header("allow"), Some("POST"));
    assert_eq!(check_refusal("DELETE", "/health", &[], b"", 405).header("allow"), Some("GET, HEAD"));
    assert_eq!(check_refusal("POST", "/health", &[], b"", 405).header("allow"), Some("GET, HEAD"));
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin1"] {
        check_refusal("POST", "/sync", &[("Content-Type", content_type)], b"{}", 415);
    }
    check_refusal("POST", "/sync", &[], b"{}", 415);
    let large = format!("{{\"workspace\":\"{}\"}}", "x".repeat(64 * 1024));
    check_refusal("POST", "/sync", json, large.as_bytes(), 413);
    let chunked = b"POST /sync HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    check(&service.ask_raw(chunked).unwrap(), 411, "request_invalid");
    assert_eq!(service.get("/health?probe=1").status, 200);
}

#[test]
fn an_invalid_body_is_refused_with_the_name_of_the_wrong_member() {
    let sandbox = Sandbox::replayed();
    let repository = sandbox.repository();
    let service = configured(&sandbox, &repository).trusted().serve();
    refused(&service, "{", &["JSON"]);
    refused(&service, "[]", &["object"]);
    refused(&service, "{} {}", &["JSON"]);
    refused(&service, "{\"dryrun\":true}", &["dryrun", "unknown"]);
    refused(&service, "{\"Workspace\":\"shop\"}", &["Workspace", "unknown"]);
    refused(&service, "{\"dry_run\":\"true\"}", &["dry_run", "true or false"]);
    refused(&service, "{\"workspace\":7}", &["workspace", "string"]);
    refused(&service, "{\"repository\":\"https://h/x\"}", &["repository", "object"]);
    refused(&service, "{\"force\":true,\"force\":true}", &["force", "twice"]);
    refused(&service, "{\"git_branch\":\"\"}", &["git_branch", "empty"]);
    refused(&service, "{\"a\":1,\"dry_run\":1,\"workspace\":[]}", &["\"a\"", "dry_run", "workspace"]);
    let deep = format!("{{\"repository\":{}1{}}}", "[".repeat(20_000), "]".repeat(20_000));
    refused(&service, &deep, &["nested"]);
    refused(&service, "{\"\\u001b[31mred\\n\":1}", &["unknown"]);
    assert!(!service.log().contains('\u{1b}'), "{}", service.log());
    assert_eq!((sandbox.windmill.requests().len(), repository.refs()), (0, String::new()));
    // Null means the same as an absent member.
    check(&service.post_sync("{\"workspace\":null,\"dry_run\":null,\"wait\":null}"), 200, "pushed");
}

#[test]
fn the_services_token_is_checked_before_the_body_is_read() {
    let sandbox = Sandbox::replayed();
    let repository = sandbox.repository();
    let token_file = sandbox.file("api-token", "first-token\n");
    let service =
        configured(&sandbox, &repository).env("SYNC_API_TOKEN_FILE", &token_file.display().to_string()).serve();
    let ask = |authorization: &str| service.ask("POST", "/sync", &[("Authorization", authorization)], b"").unwrap();
    let missing = service.post_sync("");
    check(&missing, 401, "unauthorized");
    assert!(missing.header("www-authenticate").is_some_and(|challenge| challenge.starts_with("Bearer")));
    for wrong in
        ["Bearer wrong", "Bearer first-tokenx", "Bearer first-toke", "Bearer ", "Bearer", "first-token", "Basic Og=="]
    {
        check(&ask(wrong), 401, "unauthorized");
    }
    // Without a token, the body is neither read nor checked.
    let announced = b"POST /sync HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n";
    check(&service.ask_raw(announced).unwrap(), 401, "unauthorized");
    check(&service.post_sync("no JSON"), 401, "unauthorized");
    assert_eq!(sandbox.windmill.requests().len(), 0);
    check(&ask("Bearer first-token"), 200, "pushed");
    check(&ask("bearer first-token"), 200, "unchanged");
    sandbox.file("api-token", "second-token");
    check(&ask("Bearer first-token"), 401, "unauthorized");
    check(&ask("Bearer second-token"), 200, "unchanged");
    // An empty file must not mean an empty token.
    sandbox.file("api-token", "\n");
    assert_eq!(ask("Bearer ").status, 500);
    assert_eq!(service.get("/health").status, 200);
}

#[test]
fn the_service_does_not_start_with_malformed_settings_and_names_all() {
    let sandbox = Sandbox::new();
    let wrong = [
        ("WINDMILL_BASE_URL", "ftp://windmill"),
        ("WINDMILL_WORKSPACE", "../x"),
        ("GIT_REMOTE_URL", "ext::sh -c true"),
        ("GIT_BRANCH", "--upload-pack=x"),
        ("GIT_SUBDIR", "../outside"),
        ("SYNC_TIMEOUT", "soon"),
        ("MAX_DELETIONS_PERCENT", "101"),
        ("LISTEN_ADDR", "everywhere"),
        ("SHUTDOWN_GRACE", "-1s"),
        ("LOG_LEVEL", "loud"),
        ("WMILL_INCLUDE", "everything"),
        ("SYNC_API_TOKEN", "two\nlines"),
    ];
    for command in ["serve", "sync"] {
        let run = wrong.iter().fold(sandbox.command(command), |run, (name, value)| run.env(name, value));
        let outcome = run.run();
        assert_eq!(outcome.exit_code, Some(2), "{outcome}");
        for (name, _) in wrong {
            assert!(outcome.stderr.contains(name), "no `{name}`: {outcome}");
        }
    }
    assert_eq!(sandbox.windmill.requests().len(), 0);
}

#[test]
fn healthcheck_sends_a_request_to_the_listener() {
    let sandbox = Sandbox::new();
    let mut service = bare(&sandbox).serve();
    let address = service.address().to_string();
    let healthcheck = |address: &str| sandbox.command("healthcheck").env("LISTEN_ADDR", address).run();
    let healthy = healthcheck(&address);
    assert_eq!((healthy.exit_code, healthy.stderr.as_str()), (Some(0), ""), "{healthy}");
    // In a container, LISTEN_ADDR is every address. The check asks the local one, and never through a proxy.
    let everywhere = format!("0.0.0.0:{}", service.address().port());
    let through_proxy =
        sandbox.command("healthcheck").env("LISTEN_ADDR", &everywhere).env("http_proxy", "http://127.0.0.1:1");
    assert_eq!(through_proxy.run().exit_code, Some(0));
    service.terminate();
    let gone = healthcheck(&address);
    assert_eq!(gone.exit_code, Some(1), "{gone}");
    assert!(gone.stderr.contains(&address), "{gone}");
    // Another program answers on that port.
    sandbox.windmill.fail("/health", Fault::Status(500));
    assert_eq!(healthcheck(&sandbox.windmill.address().to_string()).exit_code, Some(1));
}

// A hostile neighbour in the network.

#[test]
fn a_request_that_changes_a_setting_cannot_use_our_secrets() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let remote = GitHttp::serve(&repository);
    let collector = GitHttp::serve(&sandbox.repository_named("collector"));
    collector.open_to_all();
    let service = configured(&sandbox, &remote).branch("main").subdir("wm").trusted().serve();
    let own_token = ("windmill_token", "the-neighbours-own");
    let elsewhere = collector.url();
    let same_host = remote.url().replace("backup.git", "other.git");
    // Each request changes one thing, without its own token.
    refused(&service, &object(&[("git_remote_url", &elsewhere)]), &["remote", "windmill_token", "git_token"]);
    refused(&service, &object(&[("git_remote_url", &elsewhere), ("git_token", "x-y")]), &["remote", "windmill_token"]);
    refused(&service, &object(&[("git_branch", "other")]), &["branch", "windmill_token"]);
    refused(&service, &object(&[("git_subdir", "other")]), &["folder", "windmill_token"]);
    refused(&service, &object(&[("git_subdir", "")]), &["folder", "windmill_token"]);
    refused(&service, &object(&[("workspace", "other")]), &["workspace", "windmill_token"]);
    refused(&service, &format!("{{\"repository\":{{\"url\":\"{elsewhere}\"}}}}"), &["remote", "windmill_token"]);
    refused(&service, "{\"repository\":{\"branch\":\"other\"}}", &["branch", "windmill_token"]);
    // The configured git token is only for the configured URL, not for its host, and not for a similar URL.
    for url in [&elsewhere, &same_host, &format!("{}/x", remote.url()), &remote.url().replace("127.0.0.1", "localhost")]
    {
        refused(&service, &object(&[own_token, ("git_remote_url", url)]), &["git_token"]);
    }
    // These values lead into this machine, or are options of a program.
    let local = repository.path().display().to_string();
    let file = repository.url();
    for url in [
        file.as_str(),
        local.as_str(),
        "../backup.git",
        "ext::sh -c touch% /tmp/x",
        "fd::3",
        "--upload-pack=touch /tmp/x",
        "-oProxyCommand=x",
        "ssh://-oProxyCommand=x/y",
        "git@-oProxyCommand=x:y",
        "http://h/x\ny",
        "git://h/x",
    ] {
        refused(&service, &object(&[own_token, ("git_remote_url", url), ("git_token", "x-y")]), &["git_remote_url"]);
        let resource = object(&[("url", url)]);
        refused(&service, &format!("{{\"windmill_token\":\"x-y\",\"repository\":{resource}}}"), &["repository.url"]);
    }
    for branch in ["--upload-pack=x", "-f", "a..b", "main:other", "refs/heads/x y", "HEAD", "@", "x.lock"] {
        refused(&service, &object(&[own_token, ("git_branch", branch)]), &["git_branch"]);
    }
    for workspace in ["../x", "shop/../admins", "/etc", "a b", "*", "shop,admins", "..", "--yes", "shop\n"] {
        refused(&service, &object(&[own_token, ("workspace", workspace)]), &["workspace"]);
    }
    for subdir in ["..", "../x", "a/./b", "a/../../b", ".git", "a/.git/hooks", "a//b", ".GIT/x", "a\\b"] {
        refused(&service, &object(&[own_token, ("git_subdir", subdir)]), &["git_subdir"]);
    }
    for name in ["windmill_base_url", "base_url", "data_dir", "git_ssh_key", "git_username", "commit_message"] {
        refused(&service, &object(&[own_token, (name, "http://evil.example")]), &[name, "unknown"]);
    }
    refused(&service, &object(&[own_token, ("git_user_name", "a\nCommitter: b <c>")]), &["git_user_name"]);
    refused(&service, &object(&[own_token, ("git_user_email", "a> <b")]), &["git_user_email"]);
    // No server received any of this.
    assert_eq!(collector.requests().len(), 0);
    assert_eq!(remote.requests().len(), 0);
    assert_eq!(sandbox.windmill.requests().len(), 0);
    assert_eq!(repository.refs(), "");

    // The caller's own tokens go to the servers that it names, our tokens do not.
    let brought = [own_token, ("git_remote_url", &elsewhere), ("git_token", "own-git-token")];
    check(&service.post_sync(&object(&brought)), 502, "windmill_unauthorized");
    assert!(collector.requests().iter().all(|request| {
        request.authorization.as_deref().is_none_or(|value| value == basic(GIT_USERNAME, "own-git-token"))
    }));
    let ours = format!("Bearer {WINDMILL_TOKEN}");
    assert!(sandbox.windmill.requests().iter().all(|request| request.authorization.as_ref() != Some(&ours)));
    // A request that repeats the configured values changes nothing.
    let again = [("git_remote_url", remote.url()), ("workspace", SHOP.to_owned()), ("git_branch", "main".to_owned())];
    let again: Vec<(&str, &str)> = again.iter().map(|(name, value)| (*name, value.as_str())).collect();
    check(&service.post_sync(&object(&again)), 200, "pushed");
}

// Simultaneous requests.

#[test]
fn equal_requests_during_a_sync_share_the_next_one() {
    const CALLERS: usize = 6;
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let mut exported = 0;
    sandbox.windmill.on_export(move |workspace| {
        exported += 1;
        workspace.add_bun_script(&format!("f/ops/export_{exported}"), "new in this export");
    });
    let service = configured(&sandbox, &repository).trusted().serve();
    let held = sandbox.windmill.hold_exports();
    let first = post_meanwhile(&service, "");
    held.wait_for(1);
    // These bodies mean the same request.
    let words = ["", "{}", "{\"workspace\":\"shop\"}", "{\"force\":false}", "{\"git_branch\":\"main\"}", " {}"];
    let followers: Vec<_> = words.iter().map(|body| post_meanwhile(&service, body)).collect();
    eventually("all wait for one run", || {
        (service.log().matches("shares the run that waits").count() == CALLERS - 1).then_some(())
    });
    assert_eq!((sandbox.windmill.exports(), held.waiting()), (1, 1), "one sync at a time");
    held.release();
    let first = first.join().unwrap();
    check(&first, 200, "pushed");
    let answers: Vec<Answer> = followers.into_iter().map(|follower| follower.join().unwrap()).collect();
    let runs: BTreeSet<String> = answers.iter().map(|answer| text(answer, "run_id")).collect();
    assert_eq!(runs.len(), 1, "they share a run");
    assert!(!runs.contains(&text(&first, "run_id")), "and not the one that had begun before they asked");
    for answer in &answers {
        check(answer, 200, "pushed");
        assert_eq!(Some(text(answer, "commit")), repository.tip("main"));
        assert_eq!(count_field(&answer.json(), "changed.deleted"), 0);
    }
    let commits: Vec<String> = repository.log("main").into_iter().map(|commit| commit.id).collect();
    assert_eq!(commits, [text(&answers[0], "commit"), text(&first, "commit")]);
    assert_eq!(sandbox.windmill.exports(), 2);
}

#[test]
fn different_requests_during_a_sync_are_not_shared() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let remote = GitHttp::serve(&repository);
    let service = configured(&sandbox, &remote).trusted().serve();
    let held = sandbox.windmill.hold_exports();
    let first = post_meanwhile(&service, "");
    held.wait_for(1);
    let with_author = object(&[("git_user_name", "Ann")]);
    let with_token = object(&[("git_token", "another-token")]);
    let bodies = ["{}", "{\"dry_run\":true}", "{\"force\":true}", with_author.as_str(), with_token.as_str()];
    let run_id = |body: &str| {
        let answer = service.post_sync(&format!("{},\"wait\":false}}", body.trim_end_matches('}')).replace("{,", "{"));
        assert_eq!(answer.status, 202, "{}", answer.text());
        text(&answer, "run_id")
    };
    let runs: BTreeSet<String> = bodies.iter().map(|body| run_id(body)).collect();
    assert_eq!(runs.len(), bodies.len());
    let again: BTreeSet<String> = bodies.iter().map(|body| run_id(body)).collect();
    assert_eq!(again, runs, "each is shared by its equals");
    assert_eq!(sandbox.windmill.exports(), 1);
    held.release();
    check(&first.join().unwrap(), 200, "pushed");
    for run in &runs {
        service.wait_for_log(&format!("run {run}: "));
    }
    eventually("the last one ends", || (service.log().matches(" ms: ").count() >= runs.len()).then_some(()));
    check(&service.post_sync(""), 200, "unchanged");
    assert_eq!(repository.branches().len(), 1);
}

#[test]
fn another_workspace_does_not_wait() {
    let sandbox = Sandbox::new();
    sandbox.windmill.token_kind(TokenKind::User);
    sandbox.windmill.set("lab", Workspace::of_scripts(2));
    let repository = sandbox.repository();
    let remote = GitHttp::serve(&repository);
    let service = configured(&sandbox, &remote).trusted().serve();
    let held = sandbox.windmill.hold_exports();
    let shop = post_meanwhile(&service, "");
    held.wait_for(1);
    let lab = object(&[("workspace", "lab"), ("windmill_token", WINDMILL_TOKEN), ("git_branch", "lab")]);
    let lab = post_meanwhile(&service, &lab);
    held.wait_for(2);
    held.release();
    check(&shop.join().unwrap(), 200, "pushed");
    check(&lab.join().unwrap(), 200, "pushed");
    assert_eq!(repository.branches().len(), 2);
}

#[test]
fn the_number_of_waiting_runs_is_limited() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let remote = GitHttp::serve(&repository);
    let service = configured(&sandbox, &remote).env("SHUTDOWN_GRACE", "0s").trusted().serve();
    let held = sandbox.windmill.hold_exports();
    let first = post_meanwhile(&service, "");
    held.wait_for(1);
    let ask = |number: usize| {
        let branch = format!("b{number}");
        let body = object(&[("windmill_token", WINDMILL_TOKEN), ("git_branch", &branch)]);
        service.post_sync(&format!("{},\"wait\":false}}", body.trim_end_matches('}')))
    };
    let mut taken = 0;
    let refusal = loop {
        let answer = ask(taken);
        if answer.status != 202 {
            break answer;
        }
        taken += 1;
        assert!(taken <= 100, "there is no limit");
    };
    check(&refusal, 503, "too_many_requests");
    assert!(refusal.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok()));
    assert!(taken >= 16, "{taken}");
    assert_eq!(ask(0).status, 202, "who asks for what waits already still shares it");
    assert_eq!(service.get("/health").status, 200);
    drop(service);
    drop(held);
    let _ = first.join();
}

#[test]
fn requests_that_differ_in_their_author_alone_do_not_fill_the_queue() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let service = configured(&sandbox, &repository).trusted().serve();
    let held = sandbox.windmill.hold_exports();
    let post = |name: usize| service.post_sync(&format!("{{\"git_user_name\":\"a{name}\",\"wait\":false}}"));
    assert_eq!(post(0).status, 202);
    held.wait_for(1);
    for name in 1..=8 {
        assert_eq!(post(name).status, 202, "{name}");
    }
    let refused = post(9);
    check(&refused, 503, "too_many_requests");
    assert!(refused.header("retry-after").is_some());
    assert_eq!(post(8).status, 202, "one that waits is shared");
}

#[test]
fn a_sync_that_waits_too_long_fails_in_step_queue() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let service = configured(&sandbox, &repository).env("SYNC_TIMEOUT", "2s").serve();
    let held = sandbox.windmill.hold_exports();
    let mut elsewhere = sandbox.sync().workspace(SHOP).remote(&repository).start();
    held.wait_for(1);
    let waited = service.post_sync("");
    check(&waited, 504, "timeout");
    assert!(text(&waited, "message").contains("`queue`"), "{}", waited.text());
    assert!(elsewhere.is_running());
    held.release();
    elsewhere.finish().expect("pushed");
    sandbox.sync().workspace(SHOP).remote(&repository).run().expect("unchanged");
}

#[test]
fn equal_requests_that_wait_for_another_process_share_one_run() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let service = configured(&sandbox, &repository).env("SKIP_UNCHANGED", "false").serve();
    let held = sandbox.windmill.hold_exports();
    let elsewhere = sandbox.sync().workspace(SHOP).remote(&repository).start();
    held.wait_for(1);
    let first = post_meanwhile(&service, "");
    service.wait_for_log("waiting for another process");
    let second = post_meanwhile(&service, "");
    service.wait_for_log("shares the run that waits");
    let other = post_meanwhile(&service, "{\"force\":true}");
    service.wait_for_log("waits for its turn");
    held.release();
    elsewhere.finish().expect("pushed");
    let answers = [first, second, other].map(|caller| caller.join().unwrap());
    let [first, second, other] = answers.each_ref().map(|answer| {
        check(answer, 200, "unchanged");
        text(answer, "run_id")
    });
    assert!(first == second && first != other, "{first} {second} {other}");
    assert_eq!(sandbox.windmill.exports(), 3);
}

#[test]
fn a_sync_on_the_command_line_waits_for_a_sync_of_the_service() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let service = configured(&sandbox, &repository).serve();
    let held = sandbox.windmill.hold_exports();
    let served = post_meanwhile(&service, "");
    held.wait_for(1);
    let command = sandbox.sync().workspace(SHOP).remote(&repository).arg("--force").start();
    eventually("it wants the lock", || {
        let wants = |link: std::io::Result<std::path::PathBuf>| link.is_ok_and(|path| path.ends_with("shop.lock"));
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", command.pid())).ok()?;
        descriptors.flatten().any(|entry| wants(std::fs::read_link(entry.path()))).then_some(())
    });
    assert_eq!((sandbox.windmill.exports(), held.waiting()), (1, 1));
    held.release();
    check(&served.join().unwrap(), 200, "pushed");
    let outcome = command.finish().expect("unchanged");
    assert_eq!(outcome.commit(), repository.tip("main"));
    assert_eq!(sandbox.windmill.exports(), 2);
}

// The end of the service.

/// The status with which shells report an end by SIGTERM. A service ends like this only after a second signal.
const ENDED_BY_SIGNAL: i32 = 143;

#[test]
fn an_idle_service_ends_at_once() {
    let sandbox = Sandbox::new();
    let mut service = bare(&sandbox).env("SHUTDOWN_GRACE", "600s").serve();
    assert_eq!(service.terminate().code(), Some(0));
}

#[test]
fn a_running_sync_finishes_after_sigterm() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let mut service = configured(&sandbox, &repository).serve();
    let held = sandbox.windmill.hold_exports();
    let running = post_meanwhile(&service, "");
    held.wait_for(1);
    let waiting = post_meanwhile(&service, "");
    service.wait_for_log("waits for its turn");
    service.ask_to_end();
    let waiting = waiting.join().unwrap();
    check(&waiting, 503, "shutting_down");
    assert!(waiting.header("retry-after").is_some());
    eventually("new connections are refused", || TcpStream::connect(service.address()).is_err().then_some(()));
    assert!(!running.is_finished());
    held.release();
    let answer = running.join().unwrap();
    check(&answer, 200, "pushed");
    assert_eq!(service.wait().code(), Some(0));
    assert_eq!(Some(text(&answer, "commit")), repository.tip("main"));
    assert_no_programs(&sandbox);
}

#[test]
fn after_the_grace_period_a_running_sync_ends_and_its_caller_gets_an_answer() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let mut service = configured(&sandbox, &repository).env("SHUTDOWN_GRACE", "1s").serve();
    let held = sandbox.windmill.hold_exports();
    let running = post_meanwhile(&service, "");
    held.wait_for(1);
    let asked = Instant::now();
    service.ask_to_end();
    let answer = running.join().unwrap();
    check(&answer, 503, "shutting_down");
    assert!(answer.header("retry-after").is_some());
    assert!(text(&answer, "message").contains("`probe`"), "{}", answer.text());
    assert_eq!(service.wait().code(), Some(0));
    assert!(asked.elapsed() >= Duration::from_secs(1), "{:?}", asked.elapsed());
    assert_no_programs(&sandbox);
    assert_eq!(repository.refs(), "");
    held.release();
    sandbox.sync().workspace(SHOP).remote(&repository).run().expect("pushed");
}

#[test]
fn a_second_signal_ends_a_wmill_that_ignores_sigterm() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    // This wmill ignores SIGTERM, and says when it does so.
    let deaf = sandbox.path().join("deaf");
    let loop_forever = format!(
        "{}trap '' TERM; outside ': > \"{}\"'; while :; do sleep 0.1; done",
        outside::function(),
        deaf.display()
    );
    broken_wmill(&sandbox, &loop_forever);
    let mut service = configured(&sandbox, &repository).env("SHUTDOWN_GRACE", "600s").serve();
    let running = post_meanwhile_or_nothing(&service);
    eventually("wmill runs", || deaf.exists().then_some(()));
    service.ask_to_end();
    service.wait_for_log("shutting down; ");
    let status = service.terminate();
    assert_eq!(status.code(), Some(ENDED_BY_SIGNAL), "{status}");
    eventually("no program runs", || programs_of(&sandbox).is_empty().then_some(()));
    let _ = running.join();
}

#[test]
fn a_second_signal_ends_a_sync_within_its_grace_period() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let mut service = configured(&sandbox, &repository).env("SHUTDOWN_GRACE", "600s").serve();
    let held = sandbox.windmill.hold_exports();
    let running = post_meanwhile_or_nothing(&service);
    held.wait_for(1);
    service.ask_to_end();
    service.wait_for_log("shutting down; ");
    let status = service.terminate();
    assert_eq!(status.code(), Some(ENDED_BY_SIGNAL), "{status}");
    eventually("no program runs", || programs_of(&sandbox).is_empty().then_some(()));
    let _ = running.join();
}

/// Like [`post_meanwhile`], for a caller that may not get an answer.
fn post_meanwhile_or_nothing(service: &Service) -> JoinHandle<()> {
    let address = service.address();
    thread::spawn(move || {
        let _ = ask(address, "POST", "/sync", &[], b"");
    })
}

#[test]
fn a_signal_ends_a_sync_on_the_command_line() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let held = sandbox.windmill.hold_exports();
    let command = sandbox.sync().workspace(SHOP).remote(&repository).env("SHUTDOWN_GRACE", "1s").start();
    held.wait_for(1);
    command.terminate();
    let outcome = command.finish().expect("shutting_down");
    assert_eq!(outcome.exit_code, Some(14), "{outcome}");
    assert_no_programs(&sandbox);
    // Within its grace, a sync finishes.
    let command = sandbox.sync().workspace(SHOP).remote(&repository).start();
    eventually("its export", || (sandbox.windmill.exports() == 2).then_some(()));
    command.terminate();
    held.release();
    assert_eq!(command.finish().expect("pushed").exit_code, Some(0));
}

// A wmill that misbehaves.

/// The start of a stand-in for `wmill`, which answers the question for the version.
const HAS_A_VERSION: &str = "[ \"$1\" = --version ] && { echo 'CLI version: 0.0.1'; exit; }\n";

fn broken_wmill(sandbox: &Sandbox, script: &str) {
    sandbox.program("wmill", &format!("{HAS_A_VERSION}{script}"));
}

/// Returns the peak memory of a process, in kilobytes.
fn memory_peak_kilobytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
#[ignore = "long: just test-long"]
fn each_failure_of_wmill_is_reported_in_bounded_memory() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let service = configured(&sandbox, &repository).serve();
    let cases = [
        ("nothing, and exit code 0", "exit 0", "did not print"),
        ("bytes that are not text", r"printf 'a\377\376\200b\033[31mred\n' >&2; exit 3", "exit code 3"),
        ("killed", "kill -9 $$", "signal 9"),
        ("a flood of lines", "yes 'a line of some length' | head -c 5000000; exit 0", "did not print"),
        ("a flood of long lines", "yes \"$(printf '%099999d' 0)\" | head -c 100000000; exit 0", "did not print"),
        ("an endless line", "head -c 100000000 /dev/zero | tr '\\0' x >&2; exit 1", "exit code 1"),
        ("a flood without a line end", "head -c 100000000 /dev/zero; exit 1", "exit code 1"),
    ];
    for (what, script, said) in cases {
        broken_wmill(&sandbox, script);
        let answer = service.post_sync("");
        check(&answer, 502, "pull_failed");
        let message = text(&answer, "message");
        assert!(message.contains(said), "{what}: {message}");
        assert!(message.len() < 60_000, "{what}: {} bytes", message.len());
        assert!(!message.contains('\u{1b}'), "{what}: {message}");
        assert_eq!(repository.refs(), "", "{what}");
    }
    let peak = memory_peak_kilobytes(service.pid());
    assert!(peak < 30_000, "{peak} kB");
    assert_eq!(processes_below(service.pid()).len(), 1);
    std::fs::remove_file(sandbox.bin().join("wmill")).unwrap();
    check(&service.post_sync(""), 200, "pushed");
}

#[test]
#[ignore = "long: just test-long"]
fn a_wmill_that_never_ends_is_killed() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let sync = sandbox.sync().workspace(SHOP).remote(&repository);
    for script in ["sleep 1000", "exec cat /dev/zero", "trap '' TERM; while :; do sleep 0.1; done"] {
        broken_wmill(&sandbox, script);
        sync.time_out_in("pull");
        assert_no_programs(&sandbox);
    }
    // This wmill does not even print its version, and a service runs it.
    let service = configured(&sandbox, &repository).env("SYNC_TIMEOUT", "4s").serve();
    sandbox.program("wmill", "sleep 1000");
    check(&service.post_sync(""), 504, "timeout");
    assert_no_programs(&sandbox);
}

#[test]
fn a_wmill_that_cannot_be_started_is_named() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let folder = sandbox.scratch("only-git");
    std::os::unix::fs::symlink(find_program("git", &[]).unwrap(), folder.join("git")).unwrap();
    let run = configured(&sandbox, &repository).env("PATH", &folder.display().to_string());
    let service = run.serve();
    let missing = service.post_sync("");
    check(&missing, 502, "pull_failed");
    assert!(text(&missing, "message").contains("`wmill`"), "{}", missing.text());
    assert!(text(&missing, "message").contains("not installed"), "{}", missing.text());
    std::fs::write(folder.join("wmill"), "#!/bin/sh\n").unwrap();
    let forbidden = service.post_sync("");
    check(&forbidden, 502, "pull_failed");
    assert!(text(&forbidden, "message").contains("ermission denied"), "{}", forbidden.text());
    assert_eq!(repository.refs(), "");
    let empty = sandbox.scratch("nothing");
    let no_git = configured(&sandbox, &repository).env("PATH", &empty.display().to_string()).serve().post_sync("");
    check(&no_git, 502, "git_failed");
    assert!(text(&no_git, "message").contains("`git`"), "{}", no_git.text());
}

#[test]
fn programs_that_wmill_leaves_running_are_killed() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let service = configured(&sandbox, &repository).serve();
    let real = wmill();
    let real = Path::new(&real).display();
    // The child is in wmill's group, then in its own group, then in its own group with closed outputs. All of them hold
    // the lock.
    let starts = ["sleep 1000 &", "setsid sleep 1000 &", "setsid sleep 1000 >/dev/null 2>&1 &"];
    for (number, start) in starts.iter().enumerate() {
        sandbox.program("wmill", &format!("[ \"$1\" = --version ] || {start}\nexec '{real}' \"$@\""));
        let answer = service.post_sync("");
        check(&answer, 200, if number == 0 { "pushed" } else { "unchanged" });
        eventually("the programs have ended", || programs_of(&sandbox).is_empty().then_some(()));
    }
}

#[test]
fn a_windmill_that_does_not_answer_does_not_delay_the_end_of_the_service() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    sandbox.windmill.fail("/users/whoami", Fault::Hang);
    let mut service = configured(&sandbox, &repository).env("SHUTDOWN_GRACE", "0").serve();
    let running = post_meanwhile(&service, "");
    sandbox.windmill.wait_until_hanging();
    service.ask_to_end();
    check(&running.join().unwrap(), 503, "shutting_down");
    assert_eq!(service.wait().code(), Some(0));
    let runs = std::fs::read_dir(sandbox.data().join("windmill-git-sync/runs")).unwrap();
    assert_eq!(runs.count(), 0, "the run's folder, and the secrets in it, are gone");
}
