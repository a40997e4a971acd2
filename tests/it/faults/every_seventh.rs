//! Two of the long sweeps at every seventh point, for `cargo test`. `just test-faults` runs each sweep over all points.

use super::Points::EverySeventh;
use super::kill;

#[test]
fn a_kill_at_each_program_of_a_sync_is_survived() {
    kill::check_boundaries(&kill::OF_A_SYNC, EverySeventh);
}

#[test]
fn a_kill_at_any_time_is_survived() {
    kill::check_times(EverySeventh);
}
