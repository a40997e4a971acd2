//! A backup that stops, shrinks or becomes public raises an alarm: overdue backups, tokens that lost their rights,
//! public repositories. The tests also cover headers for a Windmill behind an access proxy, logs, and messages that
//! name the cause.

use miniserde::json::{self, Value};

use support::proxy::Proxy;
use support::receivers::Receivers;
use support::run::{count_field, field, text_field};
use support::tls::{Authority, address_in};
use support::windmill::{Role, SHOP};
use support::*;

/// Values of `WINDMILL_HEADERS`.
const HEADER_SECRET: &str = "access-PLANTED-5151";

fn service<'a>(sandbox: &'a Sandbox, repository: &BareRepository, receivers: &Receivers) -> Run<'a> {
    let run = sandbox.service().workspace(SHOP).remote(repository).env("NOTIFY_URL", &receivers.url("url"));
    run.env("HEARTBEAT_URL", &receivers.url("heartbeat"))
}

fn codes(bodies: &[String]) -> Vec<String> {
    bodies.iter().map(|body| text_field(&json::from_str::<Value>(body).unwrap(), "code").unwrap()).collect()
}

#[test]
fn an_overdue_backup_sends_one_alert_and_its_recovery_another() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let receivers = Receivers::start();
    let run = service(&sandbox, &repository, &receivers).env("EXPECT_SYNC_EVERY", "2s");
    let started = run.serve();
    assert_eq!(started.post_sync("").status, 200);
    let overdue = receivers.wait_for("url", 1);
    assert_eq!(codes(&overdue), ["overdue"]);
    assert!(overdue[0].contains("EXPECT_SYNC_EVERY"), "{overdue:?}");
    let ready = started.get("/ready");
    assert_eq!(
        (ready.status, text_field(&ready.json(), "code").as_deref()),
        (503, Some("overdue")),
        "{}",
        ready.text()
    );
    // The notice is not repeated within a day, not even after a restart.
    drop(started);
    let started = run.clone().env("SYNC_TIMEOUT", "1s").serve();
    eventually("it is overdue again", || (started.get("/ready").status == 503).then_some(()));
    drop(started);
    let started = run.serve();
    assert_eq!(started.post_sync("").status, 200);
    assert_eq!(codes(&receivers.wait_for("url", 2))[..2], ["overdue", "unchanged"]);
    assert_eq!(receivers.wait_for("heartbeat", 2).len(), 2);
    assert!(receivers.deliveries().iter().all(|one| one.to != "heartbeat/fail"), "a heartbeat is about runs");
}

#[test]
fn a_service_without_a_backup_is_overdue_at_once_and_alerts_after_the_sync_timeout() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let receivers = Receivers::start();
    let run = service(&sandbox, &repository, &receivers).env("EXPECT_SYNC_EVERY", "1s");
    let patient = run.serve();
    eventually("it is overdue", || (patient.get("/ready").status == 503).then_some(()));
    assert_eq!(receivers.deliveries().len(), 0, "the notice waits for the first run");
    assert!(!patient.log().contains("neither SYNC_SCHEDULE"), "{}", patient.log());
    drop(patient);
    let impatient = run.env("SYNC_TIMEOUT", "1s").serve();
    assert_eq!(codes(&receivers.wait_for("url", 1)), ["overdue"]);
    drop(impatient);
    let unwatched = sandbox.service().workspace(SHOP).remote(&repository).serve();
    unwatched.wait_for_log("neither SYNC_SCHEDULE nor EXPECT_SYNC_EVERY is set");
    assert_eq!(unwatched.get("/ready").status, 200);
    let outcome = sandbox.command("check").workspace(SHOP).remote(&repository).run();
    assert!(outcome.stdout.contains("neither SYNC_SCHEDULE nor EXPECT_SYNC_EVERY is set"), "{outcome}");
}

#[test]
fn a_token_that_lost_its_rights_is_refused_until_it_is_allowed_once() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let sync = || sandbox.sync().workspace(SHOP).remote(&repository);
    sandbox.windmill.role(Role::Developer);
    sync().run().expect("pushed");
    sandbox.windmill.role(Role::Admin);
    sync().run().expect("unchanged");
    sandbox.windmill.role(Role::Developer);
    sandbox.windmill.state("2-edited");
    let tip = repository.tip("main");
    for run in [sync(), sync().arg("--dry-run"), sync().arg("--force").arg("--allow-mass-deletion")] {
        let refused = run.run().expect("lost_rights");
        assert_eq!(refused.exit_code, Some(12), "{refused}");
        assert!(refused.message().contains("sync --workspace shop --allow-lost-rights"), "{refused}");
    }
    assert_eq!(repository.tip("main"), tip);
    let checked = sandbox.command("check").workspace(SHOP).remote(&repository).run();
    assert!(checked.stdout.contains("failed   token"), "{checked}");
    assert!(checked.stdout.contains("--allow-lost-rights"), "{checked}");
    let service = sandbox.service().workspace(SHOP).remote(&repository).trusted().serve();
    let refused = service.post_sync("");
    assert_eq!((refused.status, text_field(&refused.json(), "code").as_deref()), (422, Some("lost_rights")));
    assert_eq!(service.post_sync("{\"allow_lost_rights\":\"yes\"}").status, 400);
    let allowed = service.post_sync("{\"allow_lost_rights\":true}");
    assert_eq!(allowed.status, 200, "{}", allowed.text());
    // From now on, the rights of this success are the ones to compare with.
    assert_eq!(service.post_sync("").status, 200);
    drop(service);
    let open = sandbox.service().workspace(SHOP).remote(&repository).serve();
    let forbidden = open.post_sync("{\"allow_lost_rights\":true}");
    assert_eq!(forbidden.status, 403, "{}", forbidden.text());
}

#[test]
fn a_first_backup_into_a_public_repository_is_refused_and_later_ones_warn() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let remote = GitHttp::serve(&repository);
    let authority = Authority::new("private");
    let front = authority.front(&remote.base());
    let bundle = sandbox.file("bundle.pem", authority.pem()).display().to_string();
    let run = |command: &str| {
        let run = sandbox.command(command).workspace(SHOP).remote(&front.remote(&remote));
        run.env("CA_BUNDLE_FILE", &bundle)
    };
    remote.open_to_all();
    let refused = run("sync").run().expect("public_repository");
    assert_eq!((refused.exit_code, repository.refs().as_str()), (Some(12), ""), "{refused}");
    assert!(refused.message().contains("ALLOW_PUBLIC_REPOSITORY=true"), "{refused}");
    run("sync").arg("--dry-run").run().expect("public_repository");
    let checked = run("check").run();
    assert!(checked.stdout.contains("failed   public"), "{checked}");
    let allowed = run("sync").env("ALLOW_PUBLIC_REPOSITORY", "true").run().expect("pushed");
    assert_eq!(allowed.warnings().len(), 0, "{allowed}");
    sandbox.windmill.state("2-edited");
    let warned = run("sync").run().expect("pushed");
    assert!(warned.warnings().iter().any(|warning| warning.contains("everyone can read")), "{warned}");
    let unchanged = run("sync").run().expect("unchanged");
    assert_eq!(unchanged.warnings().len(), 0, "asked on full syncs alone: {unchanged}");
    let checked = run("check").run();
    assert!(checked.stdout.contains("warning  public") && checked.exit_code == Some(0), "{checked}");
}

#[test]
#[ignore = "long: just test-long"]
fn a_public_repository_without_a_workspace_does_not_get_it() {
    let sandbox = Sandbox::new();
    sandbox.windmill.token_kind(TokenKind::User);
    let mut workspace = Workspace::empty();
    workspace.add_folder("ops");
    workspace.add_variable("f/ops/v", "1", false);
    sandbox.windmill.set(SHOP, workspace.clone());
    let repository = sandbox.repository();
    let remote = GitHttp::serve(&repository);
    let authority = Authority::new("private");
    let front = authority.front(&remote.base());
    let bundle = sandbox.file("bundle.pem", authority.pem()).display().to_string();
    let run = |command: &str| {
        let run = sandbox.command(command).workspace(SHOP).remote(&front.remote(&remote));
        run.env("CA_BUNDLE_FILE", &bundle)
    };
    run("sync").run().expect("pushed");
    remote.open_to_all();
    workspace.add_variable("f/ops/v", "2", false);
    sandbox.windmill.set("other", workspace);
    sandbox.windmill.remove("f/ops/v.variable.json");
    // The repository does not have the other workspace.
    let refs = repository.refs();
    let into_other = run("restore").arg("--to-workspace").arg("other").arg("--yes");
    let refused = into_other.clone().run().expect("public_repository");
    for part in ["ALLOW_PUBLIC_REPOSITORY=true", "--no-backup-first", "workspace `other`", "nothing was changed"] {
        assert!(refused.message().contains(part), "{refused}");
    }
    assert_eq!((refused.exit_code, repository.refs()), (Some(12), refs), "{refused}");
    // It has this one.
    let restored = run("restore").arg("--yes").run().expect("restored");
    assert!(restored.warnings().iter().any(|warning| warning.contains("everyone can read")), "{restored}");
    into_other.arg("--no-backup-first").run().expect("restored");
}

#[test]
#[ignore = "long: just test-long"]
fn a_repository_that_requires_credentials_or_is_not_on_https_is_not_public() {
    let sandbox = Sandbox::new();
    let (private, open) = (sandbox.repository_named("private"), sandbox.repository_named("open"));
    let (of_private, of_open) = (GitHttp::serve(&private), GitHttp::serve(&open));
    of_open.open_to_all();
    let authority = Authority::new("private");
    let front = authority.front(&of_private.base());
    let bundle = sandbox.file("bundle.pem", authority.pem()).display().to_string();
    let run = sandbox.sync().workspace(SHOP).env("CA_BUNDLE_FILE", &bundle);
    run.clone().remote(&front.remote(&of_private)).run().expect("pushed");
    run.remote(&of_open).run().expect("pushed");
}

#[test]
fn check_lists_resources_with_plain_secrets() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let plain =
        "{\"value\":{\"host\":\"h\",\"password\":\"hunter2\",\"token_url\":\"u\"},\"resource_type\":\"postgresql\"}";
    let referred =
        "{\"value\":{\"password\":\"$var:f/ops/db_password\",\"apiKey\":\"\"},\"resource_type\":\"postgresql\"}";
    sandbox.windmill.put("f/ops/db.resource.json", plain);
    sandbox.windmill.put("f/ops/good.resource.json", referred);
    let checked = sandbox.command("check").workspace(SHOP).remote(&repository).run();
    let line = checked.stdout.lines().find(|line| line.starts_with("warning  resources")).expect("a warning");
    assert!(line.contains("f/ops/db (password)") && !line.contains("f/ops/good"), "{line}");
    assert!(!checked.stdout.contains("hunter2"), "{checked}");
}

#[test]
fn windmill_headers_are_sent_with_each_request_to_windmill_only() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let remote = GitHttp::serve(&repository);
    let receivers = Receivers::start();
    let headers = format!("X-Access-Id: {HEADER_SECRET}-1\nX-Access-Secret: {HEADER_SECRET}-2, with: both");
    let run = |command: &str| {
        let run = sandbox.command(command).workspace(SHOP).remote(&remote).env("LOG_LEVEL", "trace");
        run.env("NOTIFY_URL", &receivers.url("url")).env("WINDMILL_HEADERS", &headers)
    };
    let outcome = run("sync").run().expect("pushed");
    sandbox.windmill.state("2-edited");
    let restored = run("restore").arg("--yes").arg("--no-backup-first").run();
    assert_eq!(restored.exit_code, Some(0), "{restored}");
    assert_eq!(run("check").run().exit_code, Some(0));
    let asked = sandbox.windmill.requests();
    let has = |request: &LoggedRequest| {
        ["X-Access-Id", "X-Access-Secret"].iter().all(|name| {
            let value = request.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
            value.is_some_and(|(_, value)| value.starts_with(HEADER_SECRET))
        })
    };
    assert!(!asked.is_empty() && asked.iter().all(has), "{asked:#?}");
    assert!(asked.iter().any(|request| request.method != "GET"), "wmill changed nothing in the restore");
    assert!(remote.requests().iter().all(|request| !has(request)));
    let said = outcome.texts().into_iter().chain(restored.texts());
    let said: Vec<_> = said.collect();
    assert_nothing_leaked(&said, &[&sandbox.data(), repository.path()], &[HEADER_SECRET]);
    // A server that repeats them is named, and they are not.
    for path in ["/users/whoami", "/workspaces/tarball", "/workspaces/list"] {
        sandbox.windmill.fail(path, Fault::Answer(200, "text/plain", format!("no: {HEADER_SECRET}-1")));
        for workspace in [SHOP, "*"] {
            let run = run("sync").workspace(workspace).arg("--force").env("GIT_BRANCH", "b/{workspace}").run();
            assert_ne!(run.exit_code, Some(0), "{path}: {run}");
            assert_nothing_leaked(&run.texts(), &[&sandbox.data()], &[HEADER_SECRET]);
        }
        sandbox.windmill.heal();
    }
    let refused = run("sync").env("WINDMILL_HEADERS", &format!("Authorization: {HEADER_SECRET}")).run();
    assert_eq!(refused.exit_code, Some(2), "{refused}");
    assert!(refused.message().contains("WINDMILL_HEADERS") && !refused.message().contains(HEADER_SECRET), "{refused}");
}

#[test]
fn a_first_sync_is_a_few_lines_at_info_and_json_lines_have_fields() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let run = sandbox.sync().workspace(SHOP).remote(&repository).env("LOG_LEVEL", "info").env("LOG_FORMAT", "json");
    let outcome = run.run().expect("pushed");
    let lines: Vec<Value> = outcome.stderr.lines().map(|line| json::from_str(line).unwrap()).collect();
    assert!(lines.len() <= 12, "{outcome}");
    for line in &lines {
        assert_eq!(text_field(line, "run_id"), text_field(outcome.result(), "run_id"), "{outcome}");
        assert_eq!(text_field(line, "workspace").as_deref(), Some(SHOP), "{outcome}");
    }
    let last = lines.last().unwrap();
    assert_eq!(text_field(last, "code").as_deref(), Some("pushed"), "{outcome}");
    assert_eq!(count_field(last, "duration_ms"), count_field(outcome.result(), "duration_ms"));
    let message = text_field(last, "message").unwrap();
    let (added, commit) = (count_field(outcome.result(), "changed.added"), outcome.commit().unwrap());
    for part in [format!("{added} added, 0 modified, 0 deleted"), format!("commit {commit}"), "push ".to_owned()] {
        assert!(message.contains(&part), "no `{part}` in {message}");
    }
    let debug = run.env("LOG_LEVEL", "debug").arg("--force").run().expect("unchanged");
    let lines: Vec<Value> = debug.stderr.lines().map(|line| json::from_str(line).unwrap()).collect();
    let of_step = |line: &&Value| text_field(line, "message").is_some_and(|text| text.starts_with("step pull took"));
    let step = lines.iter().find(of_step).expect("the step");
    assert_eq!(text_field(step, "step").as_deref(), Some("pull"), "{debug}");
    assert!(matches!(field(step, "duration_ms"), Value::Number(_)), "{debug}");
}

#[test]
#[ignore = "long: just test-long"]
fn a_web_page_in_place_of_a_git_server_is_reported() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let remote = GitHttp::serve(&repository);
    let page = || Fault::Answer(200, "text/html", "<!doctype html><html>Sign in</html>".to_owned());
    remote.fail("/info/refs", page());
    let run = |command: &str| sandbox.command(command).workspace(SHOP).remote(&remote);
    for run in [run("sync"), run("sync").arg("--dry-run")] {
        let outcome = run.run().expect("git_failed");
        assert!(outcome.message().contains("the answer is not git's (text/html): a sign-in page"), "{outcome}");
    }
    let checked = run("check").run();
    assert!(checked.stdout.contains("failed   remote") && checked.exit_code == Some(11), "{checked}");
    remote.heal();
    // The empty repository still works after the failure.
    run("sync").arg("--dry-run").run().expect("dry_run");
    run("sync").run().expect("pushed");
    sandbox.windmill.state("2-edited");
    remote.fail("/git-receive-pack", Fault::Answer(413, "text/html", "<h1>413</h1>".to_owned()));
    let large = run("sync").run().expect("git_rejected");
    assert!(large.message().contains("client_max_body_size"), "{large}");
}

#[test]
fn a_redirect_by_windmill_is_reported_with_its_target() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    sandbox.windmill.fail("/api/", Fault::Redirect("https://windmill.example.com".to_owned()));
    let outcome = sandbox.sync().workspace(SHOP).remote(&repository).run().expect("windmill_unreachable");
    for part in ["redirect", "https://windmill.example.com,", "set WINDMILL_BASE_URL"] {
        assert!(outcome.message().contains(part), "{outcome}");
    }
}

#[test]
fn a_head_that_names_a_missing_branch_is_a_warning() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let sync = || sandbox.sync().workspace(SHOP).remote(&repository);
    let head = |branch: &str| {
        std::fs::write(repository.path().join("HEAD"), format!("ref: refs/heads/{branch}\n")).unwrap();
    };
    head("master");
    let check = || sandbox.command("check").workspace(SHOP).remote(&repository).run().stdout;
    let warning = "names a branch that is not there";
    assert!(check().contains(warning), "{}", check());
    for code in ["pushed", "unchanged"] {
        let outcome = sync().run().expect(code);
        assert!(outcome.warnings().iter().any(|one| one.contains(warning)), "{outcome}");
    }
    assert!(check().contains(warning));
    head("main");
    assert_eq!(sync().run().expect("unchanged").warnings().len(), 0);
    assert!(!check().contains(warning));
}

#[test]
fn ntfy_gets_plain_text() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let (receivers, proxy) = (Receivers::start(), Proxy::start());
    proxy.route("ntfy.example.com:80", address_in(&receivers.url("url")));
    let run = sandbox.sync().workspace(SHOP).remote(&repository).env("NOTIFY_ON", "always");
    let run = run.env("HTTP_PROXY", &proxy.url()).env("NO_PROXY", "127.0.0.0/8");
    run.env("NOTIFY_URL", "http://ntfy.example.com/backups").run().expect("pushed");
    let delivery =
        eventually("the notice arrives", || receivers.deliveries().into_iter().find(|one| one.to == "backups"));
    assert!(delivery.body.starts_with("✅ Workspace shop: "), "{}", delivery.body);
}

#[test]
fn metrics_have_the_items_and_warnings_of_the_last_run() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let service = sandbox.service().workspace(SHOP).remote(&repository).serve();
    assert_eq!(service.post_sync("").status, 200);
    let metrics = service.get("/metrics").text();
    let value = |name: &str| {
        let line =
            metrics.lines().find(|line| line.starts_with(&format!("windmill_git_sync_{name}{{workspace=\"shop\"}} ")));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .unwrap_or_else(|| panic!("{name}: {metrics}"))
    };
    assert!(value("items") >= 10, "{metrics}");
    assert_eq!(value("warnings"), 0);
    assert_eq!(service.get("/healthz").status, 200);
}

#[test]
fn a_recovered_workspace_list_is_reported_and_is_not_a_success() {
    let sandbox = Sandbox::new();
    sandbox.windmill.token_kind(TokenKind::User);
    sandbox.windmill.set("lab", Workspace::of_scripts(2));
    let repository = sandbox.repository();
    let receivers = Receivers::start();
    let run = service(&sandbox, &repository, &receivers).workspace("*").branch("b/{workspace}");
    let service = run.env("SLACK_WEBHOOK_URL", &receivers.url("slack")).serve();
    sandbox.windmill.fail("/api/workspaces/list", Fault::Status(401));
    assert_eq!(service.post_sync("").status, 502);
    assert!(service.get("/ready").text().contains("workspace `*`"), "{}", service.get("/ready").text());
    receivers.wait_for("slack", 1);
    sandbox.windmill.heal();
    sandbox.windmill.fail("/workspaces/tarball", Fault::Status(403));
    assert_eq!(service.post_sync("").status, 502);
    let slack = receivers.wait_for("slack", 4);
    assert!(slack[1].contains("✅ Windmill lists its workspaces again (failures since 20"), "{slack:?}");
    assert!(slack[2..].iter().all(|body| body.contains("❌ The backup of workspace ")), "{slack:?}");
    assert_eq!(codes(&receivers.wait_for("url", 3)), ["windmill_unauthorized", "pull_failed", "pull_failed"]);
    receivers.wait_for("heartbeat/fail", 3);
    assert!(receivers.deliveries().iter().all(|one| one.to != "heartbeat"), "{:?}", receivers.deliveries());
    let metrics = service.get("/metrics").text();
    let of_list = metrics.lines().filter(|line| line.contains("runs_total{workspace=\"*\"") && !line.ends_with(" 0"));
    assert_eq!(
        of_list.collect::<Vec<_>>(),
        ["windmill_git_sync_runs_total{workspace=\"*\",code=\"windmill_unauthorized\"} 1"]
    );
    assert!(!service.get("/ready").text().contains("`*`"), "{}", service.get("/ready").text());
}

#[test]
#[ignore = "long: just test-long"]
fn an_archived_workspace_is_no_longer_expected_even_after_a_restart() {
    let sandbox = Sandbox::new();
    sandbox.windmill.token_kind(TokenKind::User);
    sandbox.windmill.set("old", Workspace::of_scripts(2));
    let repository = sandbox.repository();
    let receivers = Receivers::start();
    let run = service(&sandbox, &repository, &receivers).workspace("*").branch("b/{workspace}");
    let run = run.env("SYNC_TIMEOUT", "1s");
    let started = run.clone().env("EXPECT_SYNC_EVERY", "1h").env("SYNC_TIMEOUT", "1m").serve();
    assert_eq!(started.post_sync("").status, 200);
    sandbox.windmill.archive("old");
    assert_eq!(started.post_sync("").status, 200);
    drop(started);
    let started = run.env("EXPECT_SYNC_EVERY", "1s").serve();
    let overdue = receivers.wait_for("url", 1);
    assert!(overdue[0].contains("`shop`"), "{overdue:?}");
    let ready = started.get("/ready");
    assert!(ready.status == 503 && !ready.text().contains("`old`"), "{}", ready.text());
    let status = started.get("/status").json();
    assert_eq!(text_field(&status, "workspaces.0.workspace").as_deref(), Some("shop"));
    assert!(matches!(field(&status, "workspaces"), Value::Array(all) if all.len() == 1));
    assert_eq!(receivers.deliveries().iter().filter(|one| one.body.contains("`old`")).count(), 0);
}

#[test]
#[ignore = "long: just test-long"]
fn an_alert_that_every_chat_refused_is_sent_at_the_next_failure() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let receivers = Receivers::start();
    let run = sandbox.service().workspace(SHOP).remote(&repository);
    let run =
        run.env("SLACK_WEBHOOK_URL", &receivers.url("slack")).env("DISCORD_WEBHOOK_URL", &receivers.url("discord"));
    let service = run.serve();
    assert_eq!(service.post_sync("").status, 200);
    sandbox.windmill.fail("/api/", Fault::Status(401));
    // Both refuse the notice for good.
    receivers.fail("slack", Fault::Status(404), 1);
    receivers.fail("discord", Fault::Status(404), 1);
    assert_eq!(service.post_sync("").status, 502);
    service.wait_for_log("DISCORD_WEBHOOK_URL: cannot send the notice");
    // One of them accepts the next one, so it counts as sent.
    receivers.fail("slack", Fault::Status(404), 1);
    let delivery = eventually("the notice of the next failure arrives", || {
        assert_eq!(service.post_sync("").status, 502);
        receivers.deliveries().into_iter().find(|one| one.to == "discord")
    });
    assert!(delivery.body.contains("in a row since"), "{delivery:?}");
    assert_eq!(service.post_sync("").status, 502);
    assert_eq!(service.post_sync("").status, 502);
    drop(service);
    let service = run_again(&sandbox, &repository, &receivers);
    assert_eq!(service.post_sync("").status, 502);
    assert_eq!(receivers.deliveries().len(), 1, "{:?}", receivers.deliveries());
}

fn run_again(sandbox: &Sandbox, repository: &BareRepository, receivers: &Receivers) -> Service {
    let run = sandbox.service().workspace(SHOP).remote(repository);
    run.env("SLACK_WEBHOOK_URL", &receivers.url("slack")).serve()
}

#[test]
#[ignore = "long: just test-long"]
fn a_hanging_heartbeat_does_not_delay_an_alert_to_a_chat() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let receivers = Receivers::start();
    let run = sandbox.service().workspace(SHOP).remote(&repository);
    let run = run.env("SLACK_WEBHOOK_URL", &receivers.url("slack")).env("HEARTBEAT_URL", &receivers.url("heartbeat"));
    let service = run.serve();
    receivers.fail("heartbeat", Fault::Hang, 1_000);
    for _ in 0..67 {
        assert_eq!(service.post_sync("").status, 200);
    }
    sandbox.windmill.fail("/api/", Fault::Status(401));
    assert_eq!(service.post_sync("").status, 502);
    let messages = receivers.wait_for("slack", 1);
    assert!(messages[0].contains("❌ The backup of workspace shop failed"), "{messages:?}");
    assert!(!service.log().contains("is dropped"), "{}", service.log());
    assert!(receivers.deliveries().iter().all(|one| one.to == "slack"), "the heartbeat still hangs");
}
