//! The first sync of a workspace with many scripts, compared with the first sync by the shell script with the same
//! `wmill`, and with the pull alone by npm's `wmill`, whose time grows with the square of the number of scripts.

use std::path::Path;

use super::measure::{median, time_of, timed};
use super::place::{Place, Programs, Size, pull_alone};
use super::table::{Limit, Table, shown_time};
use support::wmill::{LockFile, one_program, wmill};

const SIZE: Size = Size::Scripts(2000);
const ROUNDS: usize = 3;
const OF_NPM_MAX: f64 = 0.1;
const OF_SCRIPT_MAX: f64 = 1.0;

pub(super) fn measure(programs: &Programs, table: &mut Table) {
    let first = || {
        let place = Place::new(programs, SIZE);
        let script = place.first_script();
        (timed(|| place.sync().run().expect("pushed")).0, time_of(script))
    };
    let firsts = [(); ROUNDS].map(|()| first());
    let (ours, by_hand) = (median(&firsts.map(|(ours, _)| ours)), median(&firsts.map(|(_, by_hand)| by_hand)));
    let place = Place::new(programs, SIZE);
    let pull = |wmill: &Path, folder: &str| time_of(pull_alone(&place.sandbox, wmill, folder));
    let adapted = median(&["1", "2", "3"].map(|folder| pull(&programs.wmill, folder)));
    let as_ever = pull(&one_program(LockFile::AsEver), "as-ever");
    let npm = pull(&wmill(), "npm");
    table.head(&format!("first sync, {}", SIZE.name()));
    table.measured(&format!("`windmill-git-sync sync` (median of {ROUNDS})"), &shown_time(ours));
    table.measured(&format!("the shell script, with the same `wmill` (median of {ROUNDS})"), &shown_time(by_hand));
    table.measured("`wmill sync pull` alone, as the image has it (median of 3)", &shown_time(adapted));
    table.measured("the pull alone by one program without the lock file in memory (once)", &shown_time(as_ever));
    table.measured("the pull alone by npm's `wmill` (once)", &shown_time(npm));
    let ratio = ours.as_secs_f64() / npm.as_secs_f64();
    table.ratio("our whole sync, times the pull by npm's `wmill`", ratio, &Limit::AtMost(OF_NPM_MAX));
    let ratio = ours.as_secs_f64() / by_hand.as_secs_f64();
    table.ratio("our whole sync, times the shell script", ratio, &Limit::AtMost(OF_SCRIPT_MAX));
}
