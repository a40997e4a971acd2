//! Two of the long sweeps at every seventh point, for `cargo test`. `just test-faults` runs each sweep over all points.

use super::Points::EverySeventh;
use super::kill;

#[test]
fn start_and_end_of_a_program() {
    kill::check_boundaries(&kill::OF_A_SYNC, EverySeventh);
}

#[test]
fn kill_at_any_time() {
    kill::check_times(EverySeventh);
}
