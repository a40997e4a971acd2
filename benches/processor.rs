//! The processor time of the service: while idle, and for syncs in which nothing has changed.

use std::thread;
use std::time::Duration;

use super::measure::{ThreadTimes, processor_time_with_children};
use super::place::Place;
use super::table::{Table, shown_time};
use support::process::find_program;

/// How long the idle service is measured; the result is scaled to an hour. This is longer than any of its timers, and
/// short enough to wait for.
const IDLE: Duration = Duration::from_secs(20);
const HOUR: Duration = Duration::from_secs(3_600);
/// How many syncs are measured; the result is scaled to a thousand.
const SYNCS: u32 = 50;

pub(super) fn measure(place: &Place, table: &mut Table) {
    table.head("processor time");
    // This schedule does not start a sync during the measurement.
    let service = place.service().env("SYNC_SCHEDULE", "0 0 29 2 *").serve();
    assert_eq!(service.get("/health").status, 200);
    let before = ThreadTimes::of(service.pid());
    thread::sleep(IDLE);
    let hour = ThreadTimes::of(service.pid()).since(&before) * (HOUR.as_secs() / IDLE.as_secs()) as u32;
    let what = format!("`serve` with a schedule, an idle hour (scaled from {} s)", IDLE.as_secs());
    table.measured(&what, &shown_time(hour));

    let (own_before, all_before) = processor_time_with_children(service.pid());
    for _ in 0..SYNCS {
        let answer = service.post_sync("");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let (own, all) = processor_time_with_children(service.pid());
    let scaled = |time: Duration| shown_time(time * (1_000 / SYNCS));
    let what = format!("1,000 unchanged syncs of 7 scripts, the service alone (scaled from {SYNCS})");
    table.measured(&what, &scaled(own - own_before));
    table.measured("the same, with the programs that it started", &scaled(all - all_before));
    drop(service);

    let what = "instructions of an unchanged `sync`, our own process (callgrind)";
    match instructions(place) {
        Some(count) => table.measured(what, &format!("{:.1} million", count as f64 / 1e6)),
        None => table.measured(what, "not counted: there is no valgrind, or it does not know this processor"),
    }
}

/// Returns the instructions of one sync, counted by valgrind. The load of the machine does not change the number.
fn instructions(place: &Place) -> Option<u64> {
    let valgrind = find_program("valgrind", &[])?;
    let under = format!(
        "exec '{}' --tool=callgrind --callgrind-out-file=/dev/null '{}' \"$@\"",
        valgrind.display(),
        place.ours().display()
    );
    let outcome = place.sync().program(place.sandbox.program("under-valgrind", &under)).run();
    if outcome.exit_code != Some(0) {
        return None;
    }
    let said = outcome.stderr.lines().find_map(|line| line.split_once("Collected : "));
    said?.1.trim().parse().ok()
}
