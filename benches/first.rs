//! The first sync of a workspace of many scripts, beside what npm's `wmill` takes for its pull alone, which grows with
//! the square of their number.

use std::path::Path;

use super::bed::wmill::{LockFile, one_program, wmill};
use super::measure::{median, time_of, timed};
use super::place::{Place, Programs, Size, pull_alone};
use super::table::{Limit, Table, shown_time};

const SIZE: Size = Size::Scripts(2000);
const ROUNDS: usize = 3;
const OF_NPM_MAX: f64 = 0.1;

pub(super) fn measure(programs: &Programs, table: &mut Table) {
    let first = || {
        let place = Place::new(programs, SIZE);
        timed(|| place.sync().run().expect("pushed")).0
    };
    let ours = median(&[(); ROUNDS].map(|()| first()));
    let place = Place::new(programs, SIZE);
    let pull = |wmill: &Path, folder: &str| time_of(pull_alone(&place.sandbox, wmill, folder));
    let adapted = median(&["1", "2", "3"].map(|folder| pull(&programs.wmill, folder)));
    let as_ever = pull(&one_program(LockFile::AsEver), "as-ever");
    let npm = pull(&wmill(), "npm");
    table.head(&format!("first sync, {}", SIZE.name()));
    table.told(&format!("`windmill-git-sync sync` (median of {ROUNDS})"), &shown_time(ours));
    table.told("of it `wmill sync pull` as the image has it (median of 3)", &shown_time(adapted));
    table.told("the pull alone by one program without the lock file in memory (once)", &shown_time(as_ever));
    table.told("the pull alone by npm's `wmill` (once)", &shown_time(npm));
    let ratio = ours.as_secs_f64() / npm.as_secs_f64();
    table.ratio("our whole sync, times the pull by npm's `wmill`", ratio, &Limit::AtMost(OF_NPM_MAX));
}
