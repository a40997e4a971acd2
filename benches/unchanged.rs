//! A sync of a workspace in which nothing has changed, compared with the shell script and with the minimum that can
//! find this out: reading the archive to its end, and then asking the remote for its tip.

use super::measure::{median, side_by_side, time_of, timed};
use super::place::{Place, Size};
use super::table::{Limit, Table, shown_bytes, shown_time};

/// The limit relative to `curl` and `git ls-remote`, at each size.
const OF_BARE_MAX: f64 = 1.25;

/// Returns the number of rounds, and how many times faster than the script a sync has to be, if there is such a limit.
fn terms(size: Size) -> (usize, Option<f64>) {
    match size {
        Size::Recorded => (15, Some(10.0)),
        Size::Scripts(..=2000) => (7, Some(5.0)),
        Size::Scripts(_) => (3, None),
    }
}

/// Returns the seconds of our sync, and the bytes of the archive that it reads.
pub(super) fn measure(place: &Place, size: Size, table: &mut Table) -> (f64, f64) {
    let (rounds, faster_min) = terms(size);
    place.sync().run().expect("unchanged");
    let archive = place.archives().pop().expect("an unchanged sync asks for the archive");
    let kind = if archive.contains("archive_type=tar") { "tar" } else { "zip" };
    let bytes = place.download(&archive);
    let (mut bare, mut least, mut by_npm) = (Vec::new(), Vec::new(), Vec::new());
    let [ours, by_hand] = side_by_side(
        rounds,
        || {
            let ours = timed(|| place.sync().run().expect("unchanged")).0;
            let (download, curl) = (timed(|| place.download(&archive)).0, time_of(place.curl(&archive)));
            let ls_remote = time_of(place.ls_remote());
            bare.push(curl + ls_remote);
            least.push(download + ls_remote);
            ours
        },
        || {
            by_npm.push(time_of(place.script_with_npm()));
            time_of(place.script())
        },
    );
    place.assert_settled();
    let (bare, least, by_npm) = (median(&bare), median(&least), median(&by_npm));
    table.head(&format!("unchanged sync, {} (medians of {rounds})", size.name()));
    table.measured("`windmill-git-sync sync`", &shown_time(ours));
    table.measured("the shell script, with npm's `wmill`", &shown_time(by_npm));
    table.measured("the shell script, with the image's `wmill`", &shown_time(by_hand));
    let what = format!("`curl` of the archive (the same {kind}, {}), then `git ls-remote`", shown_bytes(bytes));
    table.measured(&what, &shown_time(bare));
    table.measured("the same without starting a `curl`", &shown_time(least));
    let [ours, by_hand, bare, by_npm] = [ours, by_hand, bare, by_npm].map(|time| time.as_secs_f64());
    let what = "times faster than the shell script with npm's `wmill`";
    match faster_min {
        Some(least) => table.ratio(what, by_npm / ours, &Limit::AtLeast(least)),
        None => table.measured(what, &format!("{:.0}", by_npm / ours)),
    }
    table.measured("times faster than the shell script with the image's", &format!("{:.1}", by_hand / ours));
    table.ratio("times `curl` and `git ls-remote`", ours / bare, &Limit::AtMost(OF_BARE_MAX));
    (ours, bytes as f64)
}

/// Checks the growth from one size to a larger one: the time may grow as much as the archive.
pub(super) fn compare(sizes: [Size; 2], measured: [(f64, f64); 2], table: &mut Table) {
    let [(less_time, less_bytes), (more_time, more_bytes)] = measured;
    let growth = more_bytes / less_bytes;
    let title = format!("unchanged sync, from {} to {}", sizes[0].name(), sizes[1].name());
    table.head(&title);
    let what = format!("times longer, for an archive {growth:.2} times larger");
    table.ratio(&what, more_time / less_time, &Limit::AtMost((growth * 100.0).round() / 100.0));
}
