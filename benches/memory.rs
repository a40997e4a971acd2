//! The peak memory of our own process, with one limit for all sizes of the workspace. The memory of `wmill` and `git`
//! is not included.

use super::measure::sync_and_peak;
use super::place::{Place, Size};
use super::table::{Table, shown_kib};

const KIB_MAX: u64 = 12_000_000 / 1024;

/// Measures the memory of syncs; `first` is that of the place's first sync. Afterwards, the script's branch lacks one
/// change.
pub(super) fn measure(place: &Place, size: Size, first: u64, table: &mut Table) {
    let unchanged = sync_and_peak(&place.sync(), "unchanged").1;
    let unchanged_in_full = sync_and_peak(&place.sync().arg("--force"), "unchanged").1;
    place.edit();
    let changed = sync_and_peak(&place.sync(), "pushed").1;
    table.head(&format!("the most memory of our own process (VmHWM), {}", size.name()));
    for (what, kib) in [
        ("first sync", first),
        ("changed sync", changed),
        ("unchanged sync", unchanged),
        ("unchanged sync in full (`--force`)", unchanged_in_full),
    ] {
        table.limited(what, &shown_kib(kib), &shown_kib(KIB_MAX), kib <= KIB_MAX);
    }
}
