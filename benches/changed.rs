//! A sync of a workspace in which one script has changed, and a full sync by `--force`, compared with the shell script
//! with the same `wmill`.

use std::cell::Cell;

use super::measure::{side_by_side, time_of, timed};
use super::place::{Place, Size};
use super::table::{Limit, Table, shown_time};

const ROUNDS: usize = 21;
/// The limit relative to the shell script. For us, `wmill` pulls only the script that changed; the shell script pulls
/// everything.
const OF_SCRIPT_MAX: f64 = 0.5;
const FORCED_ROUNDS: usize = 7;
const FORCED_OF_SCRIPT_MAX: f64 = 1.0;

pub(super) fn measure(place: &Place, size: Size, table: &mut Table) {
    // Both sides sync the same edit; the one that is first in a round makes it.
    let syncs = Cell::new(0);
    let edit = || {
        if syncs.get() % 2 == 0 {
            place.edit();
        }
        syncs.set(syncs.get() + 1);
    };
    let [ours, by_hand] = side_by_side(
        ROUNDS,
        || {
            edit();
            timed(|| place.sync().run().expect("pushed")).0
        },
        || {
            edit();
            time_of(place.script())
        },
    );
    place.assert_settled();
    table.head(&format!("changed sync, 1 of {} (medians of {ROUNDS})", size.name()));
    table.measured("`windmill-git-sync sync`", &shown_time(ours));
    table.measured("the shell script, with the same `wmill`", &shown_time(by_hand));
    let ratio = ours.as_secs_f64() / by_hand.as_secs_f64();
    table.ratio("times the shell script", ratio, &Limit::AtMost(OF_SCRIPT_MAX));
}

/// Measures a sync in which nothing has changed and everything is pulled.
pub(super) fn measure_forced(place: &Place, size: Size, table: &mut Table) {
    place.sync().run().expect("unchanged");
    let [ours, by_hand] = side_by_side(
        FORCED_ROUNDS,
        || timed(|| place.sync().arg("--force").run().expect("unchanged")).0,
        || time_of(place.script()),
    );
    place.assert_settled();
    table.head(&format!("full sync by `--force`, {} (medians of {FORCED_ROUNDS})", size.name()));
    table.measured("`windmill-git-sync sync --force`", &shown_time(ours));
    table.measured("the shell script, with the same `wmill`", &shown_time(by_hand));
    let ratio = ours.as_secs_f64() / by_hand.as_secs_f64();
    table.ratio("times the shell script", ratio, &Limit::AtMost(FORCED_OF_SCRIPT_MAX));
}
