//! `wmill` as one program, compared with npm's: a pull of a workspace in which nothing has changed.

use super::measure::{median, side_by_side, time_and_peak, time_of};
use super::place::{Place, Programs, Size, pull_alone};
use super::table::{Table, shown_kib, shown_time};
use support::wmill::wmill;

const SIZES: [(Size, usize); 2] = [(Size::Recorded, 9), (Size::Scripts(2000), 5)];

pub(super) fn measure(programs: &Programs, table: &mut Table) {
    for (size, rounds) in SIZES {
        let place = Place::new(programs, size);
        let pull = |wmill| pull_alone(&place.sandbox, wmill, "pulled");
        time_of(pull(&programs.wmill));
        let (mut one_peaks, mut npm_peaks) = (Vec::new(), Vec::new());
        let watched = |wmill, peaks: &mut Vec<u64>| {
            let (time, peak) = time_and_peak(pull(wmill));
            peaks.push(peak);
            time
        };
        let npm = wmill();
        let [one, by_npm] =
            side_by_side(rounds, || watched(&programs.wmill, &mut one_peaks), || watched(&npm, &mut npm_peaks));
        table.head(&format!("`wmill sync pull`, nothing changed, {} (medians of {rounds})", size.name()));
        let shown = |time, peaks: &[u64]| format!("{}, {}", shown_time(time), shown_kib(median(peaks)));
        table.measured("as one program", &shown(one, &one_peaks));
        table.measured("npm's, under Node.js", &shown(by_npm, &npm_peaks));
        table.measured("times faster", &format!("{:.2}", by_npm.as_secs_f64() / one.as_secs_f64()));
    }
}
