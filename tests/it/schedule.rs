//! Scheduled syncs and verifications. If a scheduled time was missed since the last run, the service starts a run at
//! once, so the tests backdate the history. Only one of them waits for the next minute of the clock.

use std::fs;
use std::time::SystemTime;

use crate::status::{configured, items, metrics, ready_status, status};
use support::receivers::Receivers;
use support::run::text_field;
use support::windmill::SHOP;
use support::*;
use windmill_git_sync::util::time;

/// Moves each run in the service's history to this day.
fn date_back(sandbox: &Sandbox, day: &str) {
    let path = sandbox.data().join("windmill-git-sync/history.json");
    let mut history = fs::read_to_string(&path).unwrap();
    let times: Vec<usize> = history.match_indices('T').map(|(index, _)| index).collect();
    for date in times.into_iter().filter_map(|end| Some(end.checked_sub(day.len())?..end)) {
        if history.get(date.clone()).is_some_and(is_date) {
            history.replace_range(date, day);
        }
    }
    fs::write(&path, history).unwrap();
}

fn is_date(text: &str) -> bool {
    let shape = |byte: u8| if byte.is_ascii_digit() { b'0' } else { byte };
    text.bytes().map(shape).eq(*b"0000-00-00")
}

/// Runs one sync, and backdates it to this day.
fn sync_long_ago(sandbox: &Sandbox, remote: &impl Remote, day: &str) {
    assert_eq!(sandbox.sync().remote(remote).run().exit_code, Some(0));
    date_back(sandbox, day);
}

#[test]
#[ignore = "long: just test-long"]
fn a_missed_scheduled_sync_runs_once_at_the_start() {
    let sandbox = Sandbox::replayed();
    let repository = sandbox.repository();
    sync_long_ago(&sandbox, &repository, "2020-01-01");
    // The schedule is the beginning of each year. The next one comes after the test.
    let service = configured(&sandbox, &repository).env("SYNC_SCHEDULE", "0 0 1 1 *").serve();
    eventually("a second run is known", || (items(&status(&service), "runs").len() == 2).then_some(()));
    service.wait_for_log("the schedule asks for it");
    assert_eq!(service.log().matches("the schedule asks for it").count(), 1);
    assert_eq!(ready_status(&service), 200);
}

#[test]
#[ignore = "long: just test-long"]
fn a_scheduled_sync_that_cannot_start_is_a_failure() {
    let sandbox = Sandbox::replayed();
    let repository = sandbox.repository();
    sync_long_ago(&sandbox, &repository, "2020-01-01");
    let gone = sandbox.path().join("gone").display().to_string();
    let service = configured(&sandbox, &repository)
        .without("WINDMILL_TOKEN")
        .env("WINDMILL_TOKEN_FILE", &gone)
        .env("SYNC_SCHEDULE", "0 0 1 1 *")
        .serve();
    eventually("the notice arrives", || {
        (text_field(&status(&service), "workspaces.0.last_run.code")? == "config_invalid").then_some(())
    });
    let message = text_field(&status(&service), "workspaces.0.last_failure.message").unwrap();
    assert!(message.contains("WINDMILL_TOKEN_FILE") && message.contains(&gone), "{message}");
    assert_eq!(ready_status(&service), 503);
    assert_eq!(metrics(&service)["runs_total{workspace=\"shop\",code=\"config_invalid\"}"], 1.0);
}

#[test]
fn two_scheduled_times_without_a_success_are_reported() {
    let sandbox = Sandbox::replayed();
    let repository = sandbox.repository();
    let is_ready = |schedule: &str| {
        let service = configured(&sandbox, &repository).env("SYNC_SCHEDULE", schedule).serve();
        let answer = service.get("/ready");
        assert!(answer.status == 200 || answer.text().contains("two scheduled times"), "{}", answer.text());
        answer.status == 200
    };
    assert!(is_ready("0 0 1 1 *"), "there was no success yet, nor was there a time for one");
    sandbox.sync().remote(&repository).run().expect("pushed");
    assert!(is_ready("0 0 1 1 *"), "neither of the next two years has begun");
    sync_long_ago(&sandbox, &repository, "2020-06-01");
    assert!(!is_ready("0 0 1 1 *"), "those of 2021 and of 2022 have");
}

#[test]
#[ignore = "long: just test-long"]
fn the_schedule_starts_a_sync_in_the_next_minute() {
    let sandbox = Sandbox::replayed();
    let repository = sandbox.repository();
    let begun = time::to_text(SystemTime::now());
    let service = configured(&sandbox, &repository).env("SYNC_SCHEDULE", "* * * * *").serve();
    let first_look = status(&service);
    let looked_at = text_field(&first_look, "time").unwrap();
    // A new minute may have begun in the meantime.
    let is_of_the_next_minute = looked_at[..16] > begun[..16];
    let is_idle = items(&first_look, "runs").is_empty() && items(&first_look, "running").is_empty();
    assert!(is_idle || is_of_the_next_minute, "nothing was missed");
    assert_eq!(text_field(&first_look, "next.0.workspace").as_deref(), Some(SHOP));
    let next = text_field(&first_look, "next.0.time").unwrap();
    assert!(next.ends_with(":00Z") && next > looked_at, "{next}");
    assert!(items(&first_look, "next_verify").is_empty(), "there is no VERIFY_SCHEDULE");
    let run = eventually("the minute is over", || {
        let now = status(&service);
        items(&now, "runs").first().map(|run| text_field(run, "started").unwrap())
    });
    // The service started in that minute or at its end.
    assert!(run[..16] > begun[..16], "{run} is in the minute of {begun}");
    assert!(run >= next || is_of_the_next_minute, "{run} is not before {next}");
    assert!(repository.tip("main").is_some());
}

/// Makes a backup that a verification found to differ. Then the workspace is the backed-up one again.
fn verified_to_differ(sandbox: &Sandbox, remote: &BareRepository, receivers: &Receivers) {
    let verify = sandbox.command("verify").remote(remote).env("SLACK_WEBHOOK_URL", &receivers.url("slack"));
    let verify = verify.env("HEARTBEAT_URL", &receivers.url("heartbeat"));
    sandbox.sync().remote(remote).run().expect("pushed");
    assert_eq!(verify.run().exit_code, Some(0));
    sandbox.hold(State::Edited);
    assert_eq!(verify.run().exit_code, Some(3));
    assert_eq!(verify.run().exit_code, Some(3));
    sandbox.hold(State::Seeded);
}

#[test]
fn a_difference_is_notified_once_and_the_service_shows_the_result_of_the_command() {
    let sandbox = Sandbox::replayed();
    let remote = sandbox.repository();
    let receivers = Receivers::start();
    verified_to_differ(&sandbox, &remote, &receivers);
    let messages = receivers.wait_for("slack", 1);
    assert_eq!(messages.len(), 1, "{messages:?}");
    assert!(messages[0].contains("The verification of workspace shop failed (differs): "), "{messages:?}");

    let service = sandbox.service().remote(&remote).serve();
    let status = status(&service);
    assert_eq!(text_field(&status, "workspaces.0.last_verify.code").as_deref(), Some("differs"));
    assert_eq!(text_field(&status, "workspaces.0.last_run.code").as_deref(), Some("pushed"), "of the sync");
    assert_eq!(ready_status(&service), 200);
    assert!(last_verify_success(&service) > 1_700_000_000.0);
}

fn last_verify_success(service: &Service) -> f64 {
    metrics(service)["last_verify_success_timestamp_seconds{workspace=\"shop\"}"]
}

#[test]
#[ignore = "long: just test-long"]
fn a_missed_verification_runs_at_the_start() {
    let sandbox = Sandbox::replayed();
    let remote = sandbox.repository();
    let receivers = Receivers::start();
    verified_to_differ(&sandbox, &remote, &receivers);
    date_back(&sandbox, "2020-01-01");
    let service = sandbox.service().remote(&remote).env("VERIFY_SCHEDULE", "0 0 1 1 *").serve();
    let of_the_workspace = |name: &str| text_field(&status(&service), &format!("workspaces.0.{name}")).unwrap();
    eventually("it is verified", || (of_the_workspace("last_verify.code") == "unchanged").then_some(()));
    assert!(of_the_workspace("last_verify_success.ended")[..4] > *"2020");
    assert!(last_verify_success(&service) > 1_700_000_000.0);
    assert_eq!(metrics(&service)["runs_total{workspace=\"shop\",code=\"unchanged\"}"], 0.0, "those are of syncs");
    assert_eq!(receivers.deliveries().iter().filter(|one| one.to.starts_with("heartbeat")).count(), 0);
    assert_eq!(remote.log("main").len(), 1);
    assert_eq!(text_field(&status(&service), "runs.0.workspace").as_deref(), Some(SHOP));
}
