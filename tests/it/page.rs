//! The status page in a real Chromium, on a phone and on a desktop: it shows what `/status` reports, follows a run, and
//! runs no script that a text contains.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, SystemTime};

use miniserde::json::{self, Value};
use windmill_git_sync::config::{Config, Environment, Options, Required};
use windmill_git_sync::model::names::WorkspaceId;
use windmill_git_sync::request::configured_destination;
use windmill_git_sync::util::time;

use crate::status::{configured, items, status};
use support::run::{field, text_field};
use support::*;

const TOKEN: &str = "open-sesame";

/// Waits until the page shows this text in the first element that matches this selector.
#[track_caller]
fn shows(browser: &mut Chromium, selector: &str, text: &str) {
    let mut last = None;
    let found = |browser: &mut Chromium, last: &mut Option<String>| {
        *last = browser.text(selector);
        last.as_ref().is_some_and(|shown| shown.contains(text)).then_some(())
    };
    eventually(&format!("`{selector}` shows `{text}`"), || found(browser, &mut last));
}

fn texts_of(runs: &[&Value], name: &str) -> Vec<String> {
    runs.iter().map(|run| text_field(run, name).unwrap_or_default()).collect()
}

#[track_caller]
fn assert_shows_the_status(browser: &mut Chromium, status: &Value) {
    let workspace = "[data-workspace=shop]";
    shows(browser, workspace, "Failing");
    let card = browser.text(workspace).unwrap();
    for path in ["last_failure.code", "last_failure.message", "last_success.branch", "last_success.code"] {
        let text = text_field(status, &format!("workspaces.0.{path}")).unwrap();
        assert!(card.contains(&text), "{path}: {card}");
    }
    let commit = text_field(status, "workspaces.0.last_success.commit").unwrap();
    assert!(card.contains(&commit[..10]), "{card}");
    let times = browser.texts(&format!("[...document.querySelectorAll('{workspace} time')].map(one => one.dateTime)"));
    for path in ["last_success.ended", "last_run.ended"] {
        assert!(times.contains(&text_field(status, &format!("workspaces.0.{path}")).unwrap()), "{path}: {times:?}");
    }
    assert!(times.contains(&text_field(status, "next.0.time").unwrap()), "{times:?}");
    let bars =
        browser.texts(&format!("[...document.querySelectorAll('{workspace} rect title')].map(one => one.textContent)"));
    let failed: Vec<_> = bars.iter().map(|title| title.starts_with("failed after ")).collect();
    assert_eq!(failed, [false, true], "{bars:?}");
    let runs = items(status, "runs");
    let cells = |place: u32| {
        format!("[...document.querySelectorAll('tbody tr td:nth-child({place})')].map(one => one.textContent)")
    };
    assert_eq!(
        browser.texts("[...document.querySelectorAll('tbody tr')].map(one => one.dataset.run)"),
        texts_of(&runs, "run_id")
    );
    assert_eq!(browser.texts(&cells(2)), texts_of(&runs, "workspace"));
    assert_eq!(browser.texts(&cells(3)), texts_of(&runs, "code"));
    assert_eq!(browser.text("#version"), text_field(status, "version"));
    assert!(browser.is("document.documentElement.scrollWidth <= innerWidth"), "nothing is wider than the window");
    assert_eq!(browser.events(), [""; 0]);
}

#[test]
#[ignore = "needs Chromium: just test-page"]
fn it_shows_the_status_at_both_widths_with_and_without_a_token() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let service = configured(&sandbox, &repository).env("SYNC_SCHEDULE", "0 0 1 1 *");
    let (open, guarded) = (service.serve(), service.clone().env("SYNC_API_TOKEN", TOKEN).serve());
    assert_eq!(open.post_sync("").status, 200);
    sandbox.windmill.fail("/api/", Fault::Status(401));
    assert_eq!(open.post_sync("").status, 502);
    let report = status(&open);
    let mut browser = Chromium::start();
    for view in [View::DESKTOP, View::PHONE] {
        assert_eq!(browser.open(&open, view, None), 200);
        assert_shows_the_status(&mut browser, &report);
        assert_eq!(browser.open(&guarded, view, Some(TOKEN)), 200);
        assert_shows_the_status(&mut browser, &report);
        for refused in [None, Some("another")] {
            assert_eq!(browser.open(&guarded, view, refused), 401);
            assert_eq!(browser.text("[data-workspace=shop]"), None);
        }
    }
}

#[test]
#[ignore = "needs Chromium: just test-page"]
fn it_shows_the_progress_of_a_run() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let service = configured(&sandbox, &repository).serve();
    let mut browser = Chromium::start();
    for (view, outcome) in [(View::PHONE, "pushed in "), (View::DESKTOP, "unchanged in ")] {
        assert_eq!(browser.open(&service, view, None), 200);
        shows(&mut browser, "[data-workspace=shop]", "Last success");
        assert!(browser.is("window.since = 'before the run', !document.querySelector('.note.busy')"));
        let held = sandbox.hold_wmill();
        assert_eq!(service.post_sync("{\"wait\":false,\"force\":true}").status, 202);
        shows(&mut browser, ".note.busy h3", "Sync is running: pull");
        assert_eq!(browser.text(".steps .now").as_deref(), Some("pull"));
        assert_eq!(
            browser.texts("[...document.querySelectorAll('.steps .done')].map(one => one.textContent)"),
            ["fetch", "probe"]
        );
        let clock = browser.text(".note.busy [data-wording=running]").unwrap();
        eventually("the time of the run advances", || {
            (browser.text(".note.busy [data-wording=running]")? > clock).then_some(())
        });
        drop(held);
        shows(&mut browser, "[data-workspace=shop] .facts", outcome);
        assert!(browser.is("!document.querySelector('.note.busy')"));
        assert!(browser.is("window.since === 'before the run'"), "the page was not loaded again");
        assert_eq!(browser.events(), [""; 0]);
    }
}

#[test]
#[ignore = "needs Chromium: just test-page"]
fn it_says_that_the_service_does_not_answer() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let service = configured(&sandbox, &repository).serve();
    let mut browser = Chromium::start();
    assert_eq!(browser.open(&service, View::PHONE, None), 200);
    shows(&mut browser, "#live", "live");
    drop(service);
    shows(&mut browser, "#live", "no answer from the service; this is as of ");
    shows(&mut browser, "[data-workspace=shop]", "No sync yet");
}

#[test]
#[ignore = "needs Chromium: just test-page"]
fn without_scripts_a_line_says_so_and_links_the_status() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let service = configured(&sandbox, &repository).serve();
    let mut browser = Chromium::start();
    assert_eq!(browser.open(&service, View { scripts: false, ..View::DESKTOP }, None), 200);
    let line = browser.text("noscript p").expect("a line");
    assert!(line.contains("script") && line.contains("/status"), "{line}");
    assert_eq!(
        browser.texts("[...document.querySelectorAll('noscript a')].map(one => one.href)"),
        [service.base_url() + "/status"]
    );
}

/// Returns a run of a history, which ended `ago`, with more members or other values in the form `"name":value`.
fn record(ago: Duration, code: &str, members: &[(&str, &str)]) -> String {
    let success = matches!(code, "pushed" | "unchanged");
    let ended = time::to_text(SystemTime::now() - ago);
    let mixed = (u128::from(ago.as_secs()) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    let digits = format!("{mixed:032x}{:08x}", ago.as_secs());
    let mut all = vec![
        ("run_id", json::to_string(&format!("{:016x}", ago.as_secs()))),
        ("workspace", json::to_string("shop")),
        ("configured", "true".to_owned()),
        ("dry_run", "false".to_owned()),
        ("verify", "false".to_owned()),
        ("success", success.to_string()),
        ("code", json::to_string(code)),
        ("message", json::to_string("as it is said")),
        ("branch", json::to_string("main")),
        ("commit", json::to_string(&digits)),
        ("changed", "{\"added\":0,\"modified\":0,\"deleted\":0}".to_owned()),
        ("warnings", "[]".to_owned()),
        ("left_out", "[]".to_owned()),
        ("started", json::to_string(&ended)),
        ("ended", json::to_string(&ended)),
        ("duration_ms", "1840".to_owned()),
    ];
    for (name, value) in members {
        match all.iter_mut().find(|one| one.0 == *name) {
            Some(one) => one.1 = (*value).to_owned(),
            None => all.push((name, (*value).to_owned())),
        }
    }
    let all: Vec<_> = all.into_iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", all.join(","))
}

fn write_history(sandbox: &Sandbox, runs: &[String], standings: &[String]) {
    let folder = sandbox.data().join("windmill-git-sync");
    fs::create_dir_all(&folder).unwrap();
    let text = format!("{{\"runs\":[{}],\"standings\":[{}]}}", runs.join(","), standings.join(","));
    fs::write(folder.join("history.json"), text).unwrap();
}

/// Returns the status of the backup of a workspace to this remote.
fn standing(
    sandbox: &Sandbox,
    remote: &str,
    workspace: &str,
    last: &str,
    success: &str,
    bars: &[(bool, u32)],
) -> String {
    let base_url = sandbox.windmill.base_url();
    let settings =
        [("WINDMILL_BASE_URL", base_url.as_str()), ("GIT_REMOTE_URL", remote), ("GIT_BRANCH", "{workspace}")];
    let environment = Environment::new(settings.map(|(name, value)| (name.into(), value.into())));
    let config = Config::new(&Options::default(), &environment, Required::Serve).unwrap();
    let destination = configured_destination(&config, &WorkspaceId::parse(workspace).unwrap());
    let failures = bars.iter().rev().take_while(|bar| !bar.0).count();
    let (failure, since) = if failures == 0 {
        ("null", "null".to_owned())
    } else {
        (last, json::to_string(&time::to_text(SystemTime::now() - Duration::from_secs(3_600 * failures as u64))))
    };
    let bars: Vec<_> =
        bars.iter().map(|(success, time)| format!("{{\"success\":{success},\"duration_ms\":{time}}}")).collect();
    format!(
        "{{\"workspace\":\"{workspace}\",\"destination\":\"{destination}\",\"last_run\":{last},\"last_success\":{success},\
         \"last_failure\":{failure},\"consecutive_failures\":{failures},\"failing_since\":{since},\"failure_news\":null,\
         \"picture\":[{}]}}",
        bars.join(",")
    )
}

/// Starts a service whose remote is on a forge that it cannot reach: the proxy on the way there does not answer.
fn serve_with_remote(
    sandbox: &Sandbox,
    remote: &str,
    workspaces: &str,
    schedule: &str,
    silent: &TcpListener,
) -> Service {
    let proxy = format!("http://{}", silent.local_addr().unwrap());
    let service =
        sandbox.service().workspace(workspaces).env("GIT_BRANCH", "{workspace}").env("GIT_REMOTE_URL", remote);
    service
        .env("GIT_TOKEN", "of-no-use")
        .env("HTTPS_PROXY", &proxy)
        .env("SYNC_SCHEDULE", schedule)
        .env("VERIFY_SCHEDULE", "0 5 * * 0")
        .serve()
}

#[test]
#[ignore = "needs Chromium: just test-page"]
fn a_commit_links_to_its_forge_by_https_only() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut browser = Chromium::start();
    let links = [
        ("https://github.com/acme/backup.git", Some("https://github.com/acme/backup/commit/")),
        ("http://gitea.example/acme/backup.git", None),
        ("https://git.example.com/acme/backup.git", None),
    ];
    for (remote, expected) in links {
        let sandbox = Sandbox::new();
        let run = record(Duration::from_secs(60), "pushed", &[]);
        write_history(
            &sandbox,
            std::slice::from_ref(&run),
            &[standing(&sandbox, remote, "shop", &run, &run, &[(true, 1)])],
        );
        let service = serve_with_remote(&sandbox, remote, "shop", "0 0 1 1 *", &silent);
        browser.open(&service, View::DESKTOP, None);
        shows(&mut browser, "[data-workspace=shop]", "Backed up");
        let commit = text_field(&status(&service), "workspaces.0.last_success.commit").unwrap();
        let shown = browser.texts("[...document.querySelectorAll('.facts a')].map(one => one.href)");
        let expected: Vec<_> = expected.iter().map(|page| format!("{page}{commit}")).collect();
        assert_eq!(shown, expected, "{remote}");
    }
}

#[test]
#[ignore = "needs Chromium: just test-page"]
fn no_script_in_a_name_a_message_or_a_warning_runs() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let hostile = "<img src='https://evil.example/x' onerror='alert(1)'><script>alert(2)</script>\"'&amp;";
    let text = json::to_string(hostile);
    let list = format!("[{text},{text},{text},{text},{text}]");
    let item = format!("{{\"item\":{text},\"reason\":{text}}}");
    let left_out = format!("[{item},{item}]");
    let address = json::to_string("javascript:alert(3)");
    let everywhere =
        ["run_id", "workspace", "code", "message", "branch", "started", "ended"].map(|name| (name, text.as_str()));
    let members = [
        &everywhere[..],
        &[("commit", &address), ("warnings", &list), ("left_out", &left_out), ("configured", "false")],
    ];
    write_history(&sandbox, &[record(Duration::ZERO, "timeout", &members.concat())], &[]);
    let service = configured(&sandbox, &repository).serve();
    let mut browser = Chromium::start();
    for view in [View::DESKTOP, View::PHONE] {
        browser.open(&service, view, None);
        shows(&mut browser, "main h2 >> nth=1", hostile);
        let shown = browser.text("main").unwrap();
        assert!(shown.matches(hostile).count() >= 8, "{shown}");
        assert!(browser.is("document.querySelectorAll('main img, main script, main iframe, main a').length === 0"));
        assert!(browser.is("document.documentElement.scrollWidth <= innerWidth"), "a long word is broken");
        // A click opens everything in the list, and it stays open.
        assert!(browser.is("document.querySelector('summary').click(), document.querySelector('details').open"));
        assert_eq!(browser.events(), [""; 0]);
    }
}

/// Writes docs/page.png, the picture in README: `just screenshot`.
#[test]
#[ignore = "it writes a file of the repository"]
fn screenshot() {
    let sandbox = Sandbox::new();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let remote = "https://github.com/acme/windmill-backup.git";
    let minutes = |count: u64| Duration::from_secs(60 * count);
    let pushed = record(
        minutes(9),
        "pushed",
        &[("branch", "\"shop\""), ("changed", "{\"added\":1,\"modified\":3,\"deleted\":0}")],
    );
    let complete = record(minutes(1_500), "pushed", &[("workspace", "\"crm\""), ("branch", "\"crm\"")]);
    let left_out = "[{\"item\":\"f/ops/import\",\"reason\":\"wmill cannot write it: a step is named `a/b`\"}]";
    let members = [
        ("workspace", "\"crm\""),
        ("branch", "\"crm\""),
        ("message", "\"1 item was left out of the backup\""),
        ("warnings", "[\"the token is not an admin's, so what its user may not see is missing from the backup\"]"),
        ("left_out", left_out),
    ];
    let incomplete = record(minutes(20), "incomplete", &members);
    let bars = |last: bool| -> Vec<(bool, u32)> {
        // Most runs change nothing, and some are full syncs.
        let time =
            |index: u32| if index % 5 == 2 || index % 7 == 3 { 900 + index * 7919 % 1_600 } else { 28 + index % 9 };
        (0..40).map(|index| (index != 17 && (last || index != 39), time(index))).collect()
    };
    let earlier = (1..9).map(|hours: u64| {
        record(minutes(60 * hours), if hours.is_multiple_of(3) { "pushed" } else { "unchanged" }, &[])
    });
    let runs: Vec<_> = [pushed.clone(), incomplete.clone()].into_iter().chain(earlier).collect();
    let standings = [
        standing(&sandbox, remote, "shop", &pushed, &pushed, &bars(true)),
        standing(&sandbox, remote, "crm", &incomplete, &complete, &bars(false)),
    ];
    let verified = standings.clone().map(|one| one.replace("\"destination\":\"", "\"destination\":\"verify:"));
    let verified = verified.map(|one| one.replace(&pushed, &complete).replace(&incomplete, &complete));
    write_history(&sandbox, &runs, &[standings, verified].concat());
    // The time of an hourly schedule was 25 minutes ago, so that no run was missed.
    let minute = (SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() / 60 + 35) % 60;
    let schedule = format!("{minute} * * * *");
    let service = serve_with_remote(&sandbox, remote, "shop,crm", &schedule, &silent);
    assert_eq!(service.post_sync("{\"wait\":false,\"workspace\":\"shop\"}").status, 202);
    let mut browser = Chromium::start();
    browser.open(&service, View { width: 960, height: 940, ..View::DESKTOP }, None);
    shows(&mut browser, "[data-workspace=shop]", "Sync is running: fetch");
    browser.screenshot(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/page.png"));
    assert!(matches!(field(&status(&service), "ready"), Value::Bool(false)));
}
