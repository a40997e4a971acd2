//! What the service reports about itself and the backups: `/ready`, `/status`, `/metrics` and the page. The report
//! survives a restart.

use std::collections::BTreeMap;
use std::fs;
use std::thread;

use miniserde::json::{self, Value};

use support::git_http::basic;
use support::http::ask;
use support::run::{count_field, field, text_field};
use support::windmill::SHOP;
use support::*;

const PAGES: [&str; 5] = ["/health", "/ready", "/status", "/metrics", "/"];

pub(crate) fn configured<'a>(sandbox: &'a Sandbox, remote: &impl Remote) -> Run<'a> {
    sandbox.service().workspace(SHOP).remote(remote)
}

#[track_caller]
pub(crate) fn status(service: &Service) -> Value {
    let answer = service.get("/status");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")), "{}", answer.text());
    answer.json()
}

/// Returns the value of each series of `/metrics`.
#[track_caller]
pub(crate) fn metrics(service: &Service) -> BTreeMap<String, f64> {
    let answer = service.get("/metrics");
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = answer.text();
    let series = text.lines().filter(|line| !line.starts_with('#'));
    series
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series.strip_prefix("windmill_git_sync_").unwrap_or(series).to_owned(), value.parse().unwrap())
        })
        .collect()
}

#[track_caller]
pub(crate) fn ready_status(service: &Service) -> u16 {
    let answer = service.get("/ready");
    let value = answer.json();
    let is_consistent = matches!(answer.status, 200) == value_is(&value, "status", "ready");
    assert!(is_consistent, "{}", answer.text());
    answer.status
}

fn value_is(value: &Value, name: &str, expected: &str) -> bool {
    matches!(value, Value::Object(fields) if matches!(fields.get(name), Some(Value::String(text)) if text == expected))
}

#[track_caller]
pub(crate) fn items<'a>(value: &'a Value, path: &str) -> Vec<&'a Value> {
    let Value::Array(items) = field(value, path) else {
        panic!("`{path}` is not a list in {}", json::to_string(value))
    };
    items.iter().collect()
}

/// Returns the ended run with this id.
#[track_caller]
fn ended_run<'a>(status: &'a Value, id: &str) -> &'a Value {
    let found = items(status, "runs").into_iter().find(|run| value_is(run, "run_id", id));
    found.unwrap_or_else(|| panic!("no run {id} in {}", json::to_string(status)))
}

/// Makes Windmill refuse the token from now on.
fn break_windmill(sandbox: &Sandbox) {
    sandbox.windmill.fail("/api/", Fault::Status(401));
}

#[test]
fn a_service_without_a_sync_reports_it() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let service = configured(&sandbox, &repository).serve();
    let status = status(&service);
    assert_eq!(text_field(&status, "workspaces.0.workspace").as_deref(), Some(SHOP));
    for name in ["last_run", "last_success", "last_failure", "failing_since"] {
        assert!(matches!(field(&status, &format!("workspaces.0.{name}")), Value::Null), "{name}");
    }
    for name in ["running", "waiting", "runs"] {
        assert!(items(&status, name).is_empty(), "{name}");
    }
    assert_eq!(ready_status(&service), 200, "nothing has failed");
    let metrics = metrics(&service);
    assert_eq!(metrics["last_success_timestamp_seconds{workspace=\"shop\"}"], 0.0);
    assert_eq!(metrics["runs_total{workspace=\"shop\",code=\"git_rejected\"}"], 0.0);
    assert!(!sandbox.data().join("windmill-git-sync/history.json").exists(), "looking writes nothing");
}

#[test]
fn every_route_shows_a_success_a_failure_and_a_recovery() {
    let sandbox = Sandbox::replayed();
    let repository = sandbox.repository();
    let service = configured(&sandbox, &repository).serve();
    let pushed = service.post_sync("").json();
    let after_success = status(&service);
    for path in ["workspaces.0.last_run", "workspaces.0.last_success", "runs.0"] {
        for name in ["run_id", "code", "commit", "message", "branch", "workspace"] {
            let shown = text_field(&after_success, &format!("{path}.{name}"));
            assert_eq!(shown, text_field(&pushed, name), "{path}.{name}");
        }
        assert_eq!(
            count_field(&after_success, &format!("{path}.changed.added")),
            count_field(&pushed, "changed.added")
        );
    }
    assert!(matches!(field(&after_success, "ready"), Value::Bool(true)));
    assert_eq!(ready_status(&service), 200);
    let counted = metrics(&service);
    assert_eq!(counted["runs_total{workspace=\"shop\",code=\"pushed\"}"], 1.0);
    assert_eq!(counted["run_duration_seconds_count{workspace=\"shop\"}"], 1.0);
    for step in ["fetch", "probe", "pull", "commit", "push"] {
        assert_eq!(counted[&format!("step_duration_seconds_count{{step=\"{step}\"}}")], 1.0, "{step}");
    }
    assert_eq!(counted["http_requests_total{path=\"/sync\",status=\"200\"}"], 1.0);
    let last_success = counted["last_success_timestamp_seconds{workspace=\"shop\"}"];
    assert!(last_success >= counted["process_start_time_seconds"] && last_success > 1.7e9, "{last_success}");
    assert!(counted["process_resident_memory_bytes"] > 100_000.0);

    break_windmill(&sandbox);
    for failures in 1..=2 {
        assert_eq!(service.post_sync("").status, 502);
        let status = status(&service);
        assert_eq!(text_field(&status, "workspaces.0.last_run.code").as_deref(), Some("windmill_unauthorized"));
        assert_eq!(text_field(&status, "workspaces.0.last_failure.code").as_deref(), Some("windmill_unauthorized"));
        assert_eq!(text_field(&status, "workspaces.0.last_success.code").as_deref(), Some("pushed"));
        assert_eq!(count_field(&status, "workspaces.0.consecutive_failures"), failures);
        assert_eq!(
            text_field(&status, "workspaces.0.failing_since"),
            text_field(&status, &format!("runs.{}.ended", failures - 1)),
            "since the first of them"
        );
        assert_eq!(ready_status(&service), 503);
    }
    let unready = service.get("/ready").json();
    assert!(
        value_is(&unready, "code", "windmill_unauthorized")
            && value_is(&unready, "message", &{
                let since = text_field(&status(&service), "workspaces.0.failing_since").unwrap();
                format!(
                    "the last sync of workspace `shop` failed (windmill_unauthorized); failures in a row since {since}: 2"
                )
            })
    );
    let counted = metrics(&service);
    assert_eq!(counted["consecutive_failures{workspace=\"shop\"}"], 2.0);
    assert_eq!(counted["last_success_timestamp_seconds{workspace=\"shop\"}"], last_success);
    assert_eq!(counted["runs_total{workspace=\"shop\",code=\"windmill_unauthorized\"}"], 2.0);
    assert_eq!(counted["http_requests_total{path=\"/ready\",status=\"503\"}"], 3.0);

    sandbox.windmill.heal();
    assert_eq!(service.post_sync("").status, 200);
    assert_eq!(ready_status(&service), 200);
    let healed = status(&service);
    assert_eq!(count_field(&healed, "workspaces.0.consecutive_failures"), 0);
    assert!(matches!(field(&healed, "workspaces.0.failing_since"), Value::Null));
    assert_eq!(text_field(&healed, "workspaces.0.last_failure.code").as_deref(), Some("windmill_unauthorized"));
    assert_eq!(items(&healed, "workspaces.0.last_runs").len(), 4);
}

#[test]
fn a_dry_run_is_not_counted_and_is_found_by_its_id() {
    let sandbox = Sandbox::replayed();
    let repository = sandbox.repository();
    let service = configured(&sandbox, &repository).serve();
    let shown = service.post_sync("{\"dry_run\":true}").json();
    break_windmill(&sandbox);
    let failed = service.post_sync("{\"dry_run\":true}").json();
    let status = status(&service);
    for (result, code) in [(&shown, "dry_run"), (&failed, "windmill_unauthorized")] {
        let run = ended_run(&status, &text_field(result, "run_id").unwrap());
        assert_eq!(text_field(run, "code").as_deref(), Some(code));
        assert!(matches!(field(run, "dry_run"), Value::Bool(true)));
    }
    assert!(matches!(field(&status, "workspaces.0.last_run"), Value::Null));
    assert_eq!(ready_status(&service), 200);
    let counted = metrics(&service);
    assert!(counted.iter().all(|(series, count)| !series.starts_with("runs_total") || *count == 0.0), "{counted:?}");
    assert_eq!(counted["step_duration_seconds_count{step=\"pull\"}"], 0.0);
    assert_eq!(counted["last_attempt_timestamp_seconds{workspace=\"shop\"}"], 0.0);
}

#[test]
fn runs_with_other_settings_are_reported_separately() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let remote = GitHttp::serve(&repository);
    let service = configured(&sandbox, &remote).trusted().serve();
    let elsewhere = format!("{{\"git_branch\":\"elsewhere\",\"windmill_token\":\"{WINDMILL_TOKEN}\"}}");
    assert_eq!(service.post_sync(&elsewhere).status, 200);
    let failing = "{\"git_branch\":\"elsewhere\",\"windmill_token\":\"wrong\"}";
    assert_eq!(service.post_sync(failing).status, 502);
    let report = status(&service);
    assert!(matches!(field(&report, "workspaces.0.last_run"), Value::Null), "the configured backup has not run");
    assert!(matches!(field(&report, "workspaces.1.configured"), Value::Bool(false)));
    assert_eq!(text_field(&report, "workspaces.1.last_run.branch").as_deref(), Some("elsewhere"));
    assert_eq!(ready_status(&service), 200, "it is about the configured ones");
    let counted = metrics(&service);
    assert_eq!(counted["runs_total{workspace=\"other\",code=\"pushed\"}"], 1.0);
    assert_eq!(
        counted.get("runs_total{workspace=\"other\",code=\"windmill_unauthorized\"}").copied().unwrap_or(0.0),
        0.0
    );
    assert_eq!(counted["runs_total{workspace=\"shop\",code=\"pushed\"}"], 0.0);
    assert_eq!(counted["consecutive_failures{workspace=\"shop\"}"], 0.0);
    assert!(!counted.contains_key("consecutive_failures{workspace=\"other\"}"));
}

#[test]
fn running_and_waiting_runs_are_reported() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let service = configured(&sandbox, &repository).serve();
    let held = sandbox.windmill.hold_exports();
    let first = text_field(&service.post_sync("{\"wait\":false}").json(), "run_id");
    held.wait_for(1);
    let second = text_field(&service.post_sync("{\"wait\":false,\"dry_run\":true}").json(), "run_id");
    let report = status(&service);
    assert_eq!(text_field(&report, "running.0.run_id"), first);
    assert_eq!(text_field(&report, "running.0.step").as_deref(), Some("probe"));
    assert_eq!(text_field(&report, "waiting.0.run_id"), second);
    assert_eq!(text_field(&report, "waiting.0.step").as_deref(), Some("queue"));
    assert!(items(&report, "runs").is_empty());
    assert_eq!(metrics(&service)["in_progress"], 1.0);
    held.release();
    for run in [first.unwrap(), second.unwrap()] {
        eventually("the run is among the ended ones", || {
            items(&status(&service), "runs").iter().any(|one| value_is(one, "run_id", &run)).then_some(())
        });
    }
    let report = status(&service);
    assert!(items(&report, "running").is_empty() && items(&report, "waiting").is_empty());
    assert_eq!(metrics(&service)["in_progress"], 0.0);
}

#[test]
fn the_history_survives_a_restart() {
    let sandbox = Sandbox::replayed();
    let repository = sandbox.repository();
    let mut service = configured(&sandbox, &repository).serve();
    assert_eq!(service.post_sync("").status, 200);
    break_windmill(&sandbox);
    assert_eq!(service.post_sync("").status, 502);
    let before = status(&service);
    assert!(service.terminate().success());

    let service = configured(&sandbox, &repository).serve();
    let after = status(&service);
    for name in ["workspaces", "runs"] {
        assert_eq!(json::to_string(field(&after, name)), json::to_string(field(&before, name)), "{name}");
    }
    assert_eq!(ready_status(&service), 503);
    let counted = metrics(&service);
    assert!(counted["last_success_timestamp_seconds{workspace=\"shop\"}"] > 1.7e9);
    assert_eq!(counted["consecutive_failures{workspace=\"shop\"}"], 1.0);
    assert_eq!(counted["runs_total{workspace=\"shop\",code=\"pushed\"}"], 0.0, "counters are the process's own");
    drop(service);

    // Another branch has had no backup yet.
    let service = configured(&sandbox, &repository).branch("other").serve();
    let report = status(&service);
    assert!(matches!(field(&report, "workspaces.0.last_success"), Value::Null));
    assert_eq!(items(&report, "runs").len(), 2);
    assert_eq!(ready_status(&service), 200);
}

#[test]
fn the_service_shows_a_sync_of_the_command_line() {
    let sandbox = Sandbox::replayed();
    let repository = sandbox.repository();
    let service = configured(&sandbox, &repository).serve();
    assert_eq!(service.post_sync("").status, 200);
    let outcome = sandbox.sync().remote(&repository).run().expect("unchanged");
    let report = status(&service);
    assert_eq!(text_field(&report, "workspaces.0.last_run.run_id"), text_field(outcome.result(), "run_id"));
    assert_eq!(items(&report, "runs").len(), 2);
    // The next run of the service keeps that one in the history.
    assert_eq!(service.post_sync("").status, 200);
    assert_eq!(items(&status(&service), "runs").len(), 3);
}

#[test]
#[ignore = "long: just test-long"]
fn a_damaged_history_costs_only_the_past_runs() {
    let sandbox = Sandbox::replayed();
    let repository = sandbox.repository();
    let history = sandbox.data().join("windmill-git-sync/history.json");
    let service = configured(&sandbox, &repository).serve();
    assert_eq!(service.post_sync("").status, 200);
    // The answer does not wait for the disk.
    let whole = eventually("it is written", || fs::read(&history).ok());
    for damage in [&b""[..], b"\0\xff not json", b"{\"runs\":[]}", &whole[..whole.len() / 2]] {
        fs::write(&history, damage).unwrap();
        assert_eq!(items(&status(&service), "runs").len(), 1, "a running service knows it still");
        let fresh = configured(&sandbox, &repository).serve();
        assert!(items(&status(&fresh), "runs").is_empty(), "{damage:?}");
        fresh.wait_for_log("the history of runs cannot be read");
    }
    fs::remove_file(&history).unwrap();
    fs::create_dir(&history).unwrap();
    assert_eq!(service.post_sync("").status, 200, "a folder in its place is replaced");
    eventually("it is written", || history.is_file().then_some(()));
    // Another process holds the lock of the history.
    let lock = fs::File::open(history.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    assert_eq!(service.post_sync("").status, 200, "a history that cannot be written fails no sync");
    assert_eq!(items(&status(&service), "runs").len(), 3, "who looks does not wait for who writes");
    assert!(!service.log().contains("cannot write the history"), "{}", service.log());
    service.wait_for_log("cannot write the history of runs");
    assert_eq!(items(&status(&service), "runs").len(), 3);
    drop(lock);
    assert_eq!(service.post_sync("").status, 200);
    eventually("what could not be written was written later", || {
        let fresh = configured(&sandbox, &repository).serve();
        (items(&status(&fresh), "runs").len() == 4).then_some(())
    });
}

#[test]
#[ignore = "long: just test-long"]
fn the_size_of_the_history_is_limited() {
    let sandbox = Sandbox::replayed();
    // There is no remote, so each run ends in milliseconds. It still counts as a run.
    let service = configured(&sandbox, &sandbox.repository()).env("GIT_REMOTE_URL", "file:///nowhere").serve();
    for _ in 0..55 {
        assert_eq!(service.post_sync("").status, 502);
    }
    let report = status(&service);
    assert_eq!(items(&report, "runs").len(), 50);
    assert_eq!(items(&report, "workspaces.0.last_runs").len(), 40);
    assert_eq!(count_field(&report, "workspaces.0.consecutive_failures"), 55);
    let bytes = fs::metadata(sandbox.data().join("windmill-git-sync/history.json")).unwrap().len();
    assert!(bytes < 200_000, "{bytes}");
}

#[test]
fn fifty_simultaneous_equal_requests_make_two_syncs() {
    const CALLERS: usize = 50;
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let service = configured(&sandbox, &repository).env("SKIP_UNCHANGED", "false").serve();
    let held = sandbox.windmill.hold_exports();
    let address = service.address();
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| thread::spawn(move || ask(address, "POST", "/sync", &[], b"").expect("an answer")))
        .collect();
    held.wait_for(1);
    eventually("all the others share one run", || {
        (service.log().matches("shares the run that waits").count() == CALLERS - 2).then_some(())
    });
    let report = status(&service);
    assert_eq!((items(&report, "running").len(), items(&report, "waiting").len()), (1, 1));
    held.release();
    let mut answers = BTreeMap::<(u16, String, String), usize>::new();
    for caller in callers {
        let answer = caller.join().unwrap();
        let value = answer.json();
        let (code, run) = (text_field(&value, "code").unwrap(), text_field(&value, "run_id").unwrap());
        *answers.entry((answer.status, code, run)).or_default() += 1;
    }
    let mut seen: Vec<_> = answers.iter().map(|((status, code, _), count)| (*status, code.as_str(), *count)).collect();
    seen.sort_unstable();
    assert_eq!(seen, [(200, "pushed", 1), (200, "unchanged", CALLERS - 1)]);
    assert_eq!(sandbox.windmill.exports(), 2);
    assert_eq!(items(&status(&service), "runs").len(), 2);
}

#[test]
fn each_route_accepts_only_its_credentials() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let service = configured(&sandbox, &repository).env("SYNC_API_TOKEN", "open-sesame").serve();
    let (basic_right, basic_wrong) = (basic("anybody", "open-sesame"), basic("open-sesame", "anybody"));
    let doors = [
        ("/health", [200, 200, 200, 200, 200]),
        ("/ready", [200, 200, 200, 200, 200]),
        ("/healthz", [200, 200, 200, 200, 200]),
        ("/status", [401, 401, 200, 200, 401]),
        ("/metrics", [401, 401, 200, 200, 401]),
        ("/", [401, 401, 200, 200, 401]),
    ];
    for (path, expected) in doors {
        let credentials =
            [None, Some("Bearer wrong"), Some("Bearer open-sesame"), Some(&basic_right), Some(&basic_wrong)];
        for (credential, expected) in credentials.into_iter().zip(expected) {
            let headers: Vec<_> = credential.iter().map(|value| ("Authorization", *value)).collect();
            for method in ["GET", "HEAD"] {
                let answer = service.ask(method, path, &headers, b"").unwrap();
                assert_eq!(answer.status, expected, "{method} {path} with {credential:?}");
                let scheme = if matches!(path, "/" | "/status") { "Basic" } else { "Bearer" };
                let challenge = format!("{scheme} realm=\"windmill-git-sync\"");
                let wanted = (expected == 401).then_some(challenge.as_str());
                assert_eq!(answer.header("www-authenticate"), wanted, "{path}");
            }
        }
    }
}

#[test]
fn head_answers_like_get_and_other_methods_are_refused() {
    let sandbox = Sandbox::replayed();
    let repository = sandbox.repository();
    let service = configured(&sandbox, &repository).serve();
    for path in PAGES {
        let get = service.get(path);
        let head = service.ask("HEAD", path, &[], b"").unwrap();
        assert_eq!((head.status, head.header("content-type")), (200, get.header("content-type")), "{path}");
        assert!(head.body.is_empty() && !get.body.is_empty());
        for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
            let answer = service.ask(method, path, &[], b"").unwrap();
            assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{method} {path}");
        }
    }
    for path in ["/status/", "//", "/metrics/x", "/Status", "/favicon.ico"] {
        assert_eq!(service.get(path).status, 404, "{path}");
    }
    assert_eq!(metrics(&service)["http_requests_total{path=\"other\",status=\"404\"}"], 5.0);
}

#[test]
fn the_page_is_static_and_its_policy_permits_only_its_own_script_and_style() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let service = configured(&sandbox, &repository).serve();
    let hostile = "<script>alert('x')</script>";
    sandbox.windmill.fail("/api/w/shop/workspaces/tarball", Fault::Answer(403, "text/plain", hostile.to_owned()));
    let before = service.get("/");
    assert!(service.post_sync("").text().contains("alert("), "the message has it");
    let answer = service.get("/");
    assert_eq!(answer.body, before.body, "no text of a run is in it");
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = answer.header("content-security-policy").unwrap();
    for part in ["default-src 'none'; ", "connect-src 'self'; ", "frame-ancestors 'none'; "] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe") && policy.matches("-src 'sha256-").count() == 2, "{policy}");
    assert!(answer.text().contains("<noscript>") && answer.text().contains("<a href=\"status\">/status</a>"));
}

#[test]
fn a_commit_in_a_local_repository_has_no_url() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    assert_eq!(sandbox.sync().remote(&repository).run().exit_code, Some(0));
    let service = configured(&sandbox, &repository).serve();
    assert!(matches!(field(&status(&service), "workspaces.0.commit_url"), Value::Null), "a folder is not a forge");
}

/// `promtool check metrics` reads the metrics like Prometheus, and also checks their names.
#[test]
#[ignore = "needs promtool: just test-tools"]
fn promtool_accepts_the_metrics() {
    let sandbox = Sandbox::replayed();
    let repository = sandbox.repository();
    let service = configured(&sandbox, &repository).serve();
    let check = |service: &Service| {
        let text = service.get("/metrics").body;
        let path = sandbox.path().join("metrics.txt");
        fs::write(&path, &text).unwrap();
        let mut promtool = std::process::Command::new("promtool");
        promtool.args(["check", "metrics"]).stdin(fs::File::open(&path).unwrap());
        let output = promtool.output().expect("promtool is installed (Debian: prometheus)");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success() && said.trim().is_empty(), "{said}\n{}", String::from_utf8_lossy(&text));
    };
    check(&service);
    assert_eq!(service.post_sync("").status, 200);
    break_windmill(&sandbox);
    assert_eq!(service.post_sync("").status, 502);
    check(&service);
}

#[test]
fn a_backup_whose_token_cannot_be_read_counts_as_a_failure() {
    let sandbox = Sandbox::replayed();
    let repository = sandbox.repository();
    let gone = sandbox.path().join("gone").display().to_string();
    let service =
        configured(&sandbox, &repository).without("WINDMILL_TOKEN").env("WINDMILL_TOKEN_FILE", &gone).trusted().serve();
    let failures = || count_field(&status(&service), "workspaces.0.consecutive_failures");
    assert_eq!(service.post_sync("{\"dry_run\":true}").status, 400);
    assert_eq!(service.post_sync("{\"git_branch\":\"other\"}").status, 400);
    assert_eq!((failures(), ready_status(&service)), (0, 200), "neither is the configured backup");
    let answer = service.post_sync("");
    assert!(answer.status == 400 && value_is(&answer.json(), "code", "config_invalid"), "{}", answer.text());
    assert_eq!((failures(), ready_status(&service)), (1, 503));
    let command = sandbox.sync().remote(&repository).without("WINDMILL_TOKEN").env("WINDMILL_TOKEN_FILE", &gone);
    assert_eq!(command.arg("--dry-run").run().exit_code, Some(2));
    assert_eq!(failures(), 1);
    let command = sandbox.sync().remote(&repository).without("WINDMILL_TOKEN").env("WINDMILL_TOKEN_FILE", &gone);
    assert_eq!(command.run().exit_code, Some(2));
    assert_eq!(failures(), 2);
}
