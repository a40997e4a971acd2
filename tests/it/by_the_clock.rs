//! What takes until the clock's next minute. Tests are begun in the order of their names, and this one is among the first:
//! others go on meanwhile.

use std::time::SystemTime;

use crate::bed::receivers::Receivers;
use crate::bed::run::text_field;
use crate::bed::windmill::SHOP;
use crate::bed::*;
use crate::seen::{configured, items, status};
use windmill_git_sync::history::text_of;

#[test]
fn the_schedule_starts_a_sync_when_its_time_has_come() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let begun = text_of(SystemTime::now());
    let service = configured(&sandbox, &repository).env("SYNC_SCHEDULE", "* * * * *").serve();
    let told = status(&service);
    let told_at = text_field(&told, "time").unwrap();
    // Unless a minute ended just then.
    let is_of_the_next_minute = told_at[..16] > begun[..16];
    let is_idle = items(&told, "runs").is_empty() && items(&told, "running").is_empty();
    assert!(is_idle || is_of_the_next_minute, "nothing was missed");
    assert_eq!(text_field(&told, "next.0.workspace").as_deref(), Some(SHOP));
    let next = text_field(&told, "next.0.time").unwrap();
    assert!(next.ends_with(":00Z") && next > told_at, "{next}");
    assert!(service.get("/").text().contains("<dt>scheduled</dt>"));
    let run = eventually("the minute is over", || {
        let told = status(&service);
        items(&told, "runs").first().map(|run| text_field(run, "started").unwrap())
    });
    // The service has begun in that minute, or at the end of one.
    assert!(run[..16] > begun[..16], "{run} is in the minute of {begun}");
    assert!(run >= next || is_of_the_next_minute, "{run} is not before {next}");
    assert!(repository.tip("main").is_some());
}

#[test]
fn the_schedule_verifies_and_tells_once_that_something_differs() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let receivers = Receivers::start();
    let verify = sandbox.command("verify").remote(&remote).env("SLACK_WEBHOOK_URL", &receivers.url("slack"));
    let verify = verify.env("HEARTBEAT_URL", &receivers.url("heartbeat"));
    sandbox.sync().remote(&remote).run().expect("pushed");
    assert_eq!(verify.run().exit_code, Some(0));
    sandbox.windmill.state("2-edited");
    assert_eq!(verify.run().exit_code, Some(3));
    assert_eq!(verify.run().exit_code, Some(3));
    let told = receivers.wait_for("slack", 1);
    assert!(told.len() == 1 && told[0].contains("The verification of workspace shop failed (differs): "), "{told:?}");

    // What a command found, a service on the same folder knows.
    let service = sandbox.service().remote(&remote).env("VERIFY_SCHEDULE", "* * * * *").serve();
    let status = || service.get("/status").json();
    let last = || text_field(&status(), "workspaces.0.last_verify.code").unwrap();
    assert_eq!(last(), "differs");
    let success = text_field(&status(), "workspaces.0.last_verify_success.ended").unwrap();
    assert_eq!(text_field(&status(), "workspaces.0.last_run.code").as_deref(), Some("pushed"), "of the sync");
    assert_eq!(service.get("/ready").status, 200);
    assert!(service.get("/").text().contains("<dt>verified</dt>"));
    let gauge = || {
        let text = service.get("/metrics").text();
        let name = "windmill_git_sync_last_verify_success_timestamp_seconds{workspace=\"shop\"} ";
        text.lines().find_map(|line| line.strip_prefix(name)).unwrap().parse::<u64>().unwrap()
    };
    let before = gauge();
    assert!(before > 1_700_000_000);
    sandbox.windmill.state("1-seeded");
    eventually("the schedule has come true", || (last() == "unchanged").then_some(()));
    assert!(gauge() > before && text_field(&status(), "workspaces.0.last_verify_success.ended").unwrap() > success);
    let text = service.get("/metrics").text();
    assert!(text.contains("windmill_git_sync_runs_total{workspace=\"shop\",code=\"unchanged\"} 0"), "{text}");
    assert_eq!(receivers.deliveries().iter().filter(|one| one.to.starts_with("heartbeat")).count(), 0);
    assert_eq!(remote.log("main").len(), 1);
    assert_eq!(text_field(&status(), "runs.0.workspace").as_deref(), Some(SHOP));
}
