//! Which receivers are notified of a run, when, and with which text: chats, a URL, a heartbeat. Nothing else learns
//! their addresses.

use std::io::{Read as _, Write as _};

use miniserde::json;

use support::git_http::basic;
use support::receivers::{HOOK_SECRET, Receivers};
use support::run::{count_field, text_field};
use support::windmill::SHOP;
use support::*;

/// Returns the run with every address set.
fn with_receivers<'a>(run: Run<'a>, remote: &impl Remote, receivers: &Receivers, occasions: &str) -> Run<'a> {
    run.workspace(SHOP)
        .remote(remote)
        .env("SLACK_WEBHOOK_URL", &receivers.url("slack"))
        .env("DISCORD_WEBHOOK_URL", &receivers.url("discord"))
        .env("NOTIFY_URL", &receivers.url("url"))
        .env("HEARTBEAT_URL", &receivers.url("heartbeat"))
        .env("NOTIFY_ON", occasions)
}

/// Returns the texts that Slack received.
#[track_caller]
fn texts(receivers: &Receivers, count: usize) -> Vec<String> {
    let bodies = receivers.wait_for("slack", count);
    bodies.iter().map(|body| text_field(&json::from_str(body).unwrap(), "text").unwrap()).collect()
}

#[test]
fn each_receiver_gets_its_own_format() {
    let sandbox = Sandbox::replayed();
    let repository = sandbox.repository();
    let receivers = Receivers::start();
    let service = with_receivers(sandbox.service(), &repository, &receivers, "always").serve();
    let answer = service.post_sync("");
    assert_eq!(answer.status, 200);
    let result = answer.json();
    let short = text_field(&result, "commit").unwrap()[..10].to_owned();
    let added = count_field(&result, "changed.added");
    let said = format!("✅ Workspace shop: {added} added, 0 modified, 0 deleted, commit {short}");
    assert_eq!(texts(&receivers, 1), [said]);
    assert!(receivers.wait_for("discord", 1)[0].contains(&short));
    let of_url = receivers.wait_for("url", 1);
    assert_eq!(json::to_string(&json::from_str::<json::Value>(&of_url[0]).unwrap()), json::to_string(&result));
    receivers.wait_for("heartbeat", 1);
}

#[test]
fn a_failure_is_reported_when_it_begins_or_changes_and_a_recovery_once() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let receivers = Receivers::start();
    let mut service = with_receivers(sandbox.service(), &repository, &receivers, "failure,recovery").serve();
    assert_eq!(service.post_sync("").status, 200);
    sandbox.windmill.fail("/api/", Fault::Answer(401, "text/plain", "<!channel> @everyone".to_owned()));
    for _ in 0..3 {
        assert_eq!(service.post_sync("").status, 502);
    }
    sandbox.windmill.heal();
    sandbox.windmill.fail("/tarball", Fault::Answer(403, "text/plain", "<!channel> @everyone".to_owned()));
    assert_eq!(service.post_sync("").status, 502);
    // What was delivered is known after a restart, but a service that ends does not deliver what is still pending.
    receivers.wait_for("heartbeat/fail", 4);
    receivers.wait_for("url", 2);
    assert!(service.terminate().success());
    let service = with_receivers(sandbox.service(), &repository, &receivers, "failure,recovery").serve();
    assert_eq!(service.post_sync("").status, 502);
    sandbox.windmill.heal();
    assert_eq!(service.post_sync("").status, 200);
    assert_eq!(service.post_sync("").status, 200);
    receivers.wait_for("heartbeat", 3);
    assert_eq!(receivers.wait_for("heartbeat/fail", 5).len(), 5, "a heartbeat has no memory");
    let texts = texts(&receivers, 3);
    assert_eq!(texts.len(), 3, "{texts:?}");
    assert!(texts[0].starts_with("❌ The backup of workspace shop failed (windmill_unauthorized): "), "{texts:?}");
    assert!(
        texts[1].starts_with("❌ The backup of workspace shop failed (pull_failed, 4 in a row since 20"),
        "{texts:?}"
    );
    assert!(texts[1].contains("&lt;!channel&gt;"), "{texts:?}");
    assert!(texts[2].starts_with("✅ The backup of workspace shop works again (failures since 20"), "{texts:?}");
    assert!(texts[2].contains(": 5): nothing has changed, commit "), "{texts:?}");
    assert!(receivers.wait_for("discord", 3).iter().all(|body| body.contains("\"allowed_mentions\":{\"parse\":[]}")));
    assert_eq!(receivers.wait_for("url", 3).len(), 3);
}

#[test]
fn dry_runs_and_runs_with_other_settings_are_not_reported() {
    let sandbox = Sandbox::replayed();
    let repository = sandbox.repository();
    let remote = GitHttp::serve(&repository);
    let receivers = Receivers::start();
    let mut service = with_receivers(sandbox.service(), &remote, &receivers, "always").trusted().serve();
    assert_eq!(service.post_sync("{\"dry_run\":true}").status, 200);
    let elsewhere = format!("{{\"git_branch\":\"elsewhere\",\"windmill_token\":\"{WINDMILL_TOKEN}\"}}");
    assert_eq!(service.post_sync(&elsewhere).status, 200);
    assert!(service.terminate().success());
    assert_eq!(receivers.deliveries().len(), 0, "{:?}", receivers.deliveries());
}

#[test]
fn only_the_configured_events_are_reported() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let receivers = Receivers::start();
    let sync = |occasions: &str| {
        with_receivers(sandbox.sync(), &repository, &receivers, occasions).run();
        receivers.deliveries().iter().filter(|one| one.to == "slack").count()
    };
    assert_eq!(sync("none"), 0);
    sandbox.windmill.edit(|workspace| workspace.add_bun_script("f/ops/new", "one"));
    assert_eq!(sync("failure,recovery"), 0);
    sandbox.windmill.edit(|workspace| workspace.add_bun_script("f/ops/new", "two"));
    assert_eq!(sync("change"), 1);
    assert_eq!(sync("change"), 1, "nothing changed");
    assert_eq!(sync("always"), 2);
    receivers.wait_for("heartbeat", 5);
}

#[test]
#[ignore = "long: just test-long"]
fn a_failing_receiver_delays_no_sync_and_is_tried_again() {
    let sandbox = Sandbox::replayed();
    let repository = sandbox.repository();
    let receivers = Receivers::start();
    receivers.fail("slack", Fault::Hang, 1);
    receivers.fail("discord", Fault::Status(503), 2);
    receivers.fail("url", Fault::Status(404), 1);
    receivers.fail("heartbeat", Fault::Redirect("http://127.0.0.1:1".to_owned()), 1);
    let service = with_receivers(sandbox.service(), &repository, &receivers, "always").serve();
    assert_eq!(service.post_sync("").status, 200);
    assert_eq!(service.post_sync("").status, 200);
    assert!(!service.log().contains("SLACK_WEBHOOK_URL: cannot send"), "a sync waited for the one that hangs");
    receivers.wait_for("slack", 2);
    receivers.wait_for("discord", 2);
    // A notice that is refused permanently is not sent again.
    assert_eq!((receivers.wait_for("url", 1).len(), receivers.wait_for("heartbeat", 1).len()), (1, 1));
    let log = service.log();
    for line in [
        "SLACK_WEBHOOK_URL: cannot send the notice of run",
        "it did not answer in time",
        "DISCORD_WEBHOOK_URL: cannot send the notice of run",
        "it answered 503",
        "NOTIFY_URL: cannot send the notice of run",
        "it answered 404",
        "HEARTBEAT_URL: cannot send the notice of run",
        "it answered 302",
    ] {
        assert!(log.contains(line), "no `{line}` in {log}");
    }
}

#[test]
#[ignore = "long: just test-long"]
fn an_answer_that_is_not_http_is_logged_and_the_notice_is_sent_again() {
    let sandbox = Sandbox::replayed();
    let repository = sandbox.repository();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answers = [b"hello\r\n\r\n".to_vec(), [b"HTTP/1.1 200 OK\r\nX: ", &b"x".repeat(100_000)[..]].concat()];
    let receiver = std::thread::spawn(move || {
        for answer in answers.into_iter().chain([b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()]) {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 65_536]);
            let _ = stream.write_all(&answer);
        }
    });
    let run = sandbox.sync().workspace(SHOP).remote(&repository).env("LOG_LEVEL", "info");
    let outcome = run.env("HEARTBEAT_URL", &format!("http://{address}/x")).run().expect("pushed");
    let retried = outcome.stderr.lines().filter(|line| line.contains("retrying: it answered, but not as HTTP")).count();
    assert_eq!(retried, 2, "{outcome}");
    receiver.join().unwrap();
}

#[test]
fn a_signal_ends_a_command_that_still_sends_notices() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let receivers = Receivers::start();
    receivers.fail("slack", Fault::Hang, 9);
    let mut sync = with_receivers(sandbox.sync(), &repository, &receivers, "always").start();
    receivers.wait_for("heartbeat", 1);
    eventually("it ends", || {
        sync.terminate();
        (!sync.is_running()).then_some(())
    });
    let outcome = sync.finish().expect("pushed");
    assert_eq!(outcome.exit_code, Some(0));
    assert!(!outcome.stderr.contains("cannot send the notice of run"), "it waited for the one that hangs: {outcome}");
}

#[test]
fn the_addresses_are_secrets() {
    let sandbox = Sandbox::replayed();
    let repository = sandbox.repository();
    let remote = GitHttp::serve(&repository);
    let receivers = Receivers::start();
    receivers.fail("slack", Fault::Close, 1);
    receivers.fail("discord", Fault::Status(404), 1);
    let file = sandbox.path().join("address");
    std::fs::write(&file, format!("http://127.0.0.1:1/{HOOK_SECRET}\n")).unwrap();
    let outcome = with_receivers(sandbox.sync(), &remote, &receivers, "always")
        .without("NOTIFY_URL")
        .env("NOTIFY_URL_FILE", &file.display().to_string())
        .env("LOG_LEVEL", "trace")
        .run()
        .expect("pushed");
    assert!(outcome.stderr.contains("NOTIFY_URL: cannot send the notice"), "{outcome}");
    receivers.wait_for("slack", 1);
    let secrets = [HOOK_SECRET, GIT_TOKEN, WINDMILL_TOKEN, &basic(GIT_USERNAME, GIT_TOKEN)];
    assert_nothing_leaked(&outcome.texts(), &[&sandbox.data(), repository.path()], &secrets);
    let bodies: String = receivers.deliveries().iter().map(|one| one.body.clone()).collect();
    assert_nothing_leaked(&[("bodies", bodies.as_bytes())], &[], &secrets);

    for wrong in [HOOK_SECRET, "ftp://h/x", "https://", "https:///x", &format!("http://h/{HOOK_SECRET} x")] {
        let outcome = sandbox.sync().remote(&repository).env("NOTIFY_URL", wrong).run();
        assert_eq!(outcome.exit_code, Some(2), "{wrong}: {outcome}");
        assert!(outcome.message().contains("NOTIFY_URL is not an http(s) address"), "{outcome}");
        assert_nothing_leaked(&outcome.texts(), &[], &[HOOK_SECRET]);
    }
}
