//! Measures time, memory and processor time of a program, and takes the median of several runs.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, DirEntry};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use support::{Outcome, Run, process};

/// How long a program may take: long enough for npm's `wmill` on thousands of scripts, on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(1_800);
/// How often the memory of a running program is read. The kernel keeps the peak, so only the growth in the last moment
/// is missed.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

pub(super) fn median<T: Ord + Copy>(values: &[T]) -> T {
    let mut values = values.to_vec();
    values.sort_unstable();
    values[values.len() / 2]
}

pub(super) fn timed<T>(what: impl FnOnce() -> T) -> (Duration, T) {
    let begun = Instant::now();
    let result = what();
    (begun.elapsed(), result)
}

/// Runs a program that must succeed, and returns its time.
pub(super) fn time_of(command: Command) -> Duration {
    let (time, finished) = timed(|| process::start(command).finish_within(PATIENCE));
    finished.must_succeed();
    time
}

/// Runs two things by turns, so that a disturbance of the machine affects both, and returns their medians.
pub(super) fn side_by_side(
    rounds: usize,
    mut one: impl FnMut() -> Duration,
    mut other: impl FnMut() -> Duration,
) -> [Duration; 2] {
    let (mut ones, mut others) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        if round % 2 == 0 {
            ones.push(one());
            others.push(other());
        } else {
            others.push(other());
            ones.push(one());
        }
    }
    [median(&ones), median(&others)]
}

/// Runs a sync by our binary, and returns the peak memory of its own process, in KiB.
pub(super) fn sync_and_peak(sync: &Run<'_>, code: &str) -> (Outcome, u64) {
    let mut running = sync.start();
    let mut peak = 0;
    while running.is_running() {
        peak = peak.max(memory_kib(running.pid(), "VmHWM").unwrap_or_default());
        thread::sleep(LOOK_AGAIN);
    }
    (running.finish().expect(code), peak)
}

/// Runs a program that must succeed, and returns its time and peak memory in KiB.
pub(super) fn time_and_peak(command: Command) -> (Duration, u64) {
    let begun = Instant::now();
    let mut started = process::start(command);
    let mut peak = 0;
    while started.is_running() {
        peak = peak.max(memory_kib(started.pid(), "VmHWM").unwrap_or_default());
        thread::sleep(LOOK_AGAIN);
    }
    let time = begun.elapsed();
    started.finish_within(PATIENCE).must_succeed();
    (time, peak)
}

/// Returns the memory of a process: `VmRSS` is the current size, `VmHWM` the peak. Returns `None` if the process has
/// ended.
pub(super) fn memory_kib(pid: u32, of: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(of)?.strip_prefix(':'))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

/// The processor time of each thread of a process, in nanoseconds.
pub(super) struct ThreadTimes(BTreeMap<OsString, u64>);

impl ThreadTimes {
    pub(super) fn of(pid: u32) -> Self {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
        let time = |thread: DirEntry| Some((thread.file_name(), nanoseconds(&thread.path().join("schedstat"))?));
        Self(threads.filter_map(time).collect())
    }

    /// Returns the processor time since then of all threads that exist now.
    pub(super) fn since(&self, before: &Self) -> Duration {
        let had = |(thread, time): (&OsString, &u64)| time - before.0.get(thread).unwrap_or(&0);
        Duration::from_nanos(self.0.iter().map(had).sum())
    }
}

fn nanoseconds(schedstat: &Path) -> Option<u64> {
    fs::read_to_string(schedstat).ok()?.split(' ').next()?.parse().ok()
}

/// Returns the processor time of a process, including threads that ended; then the same with the children that it
/// waited for.
pub(super) fn processor_time_with_children(pid: u32) -> (Duration, Duration) {
    /// The unit of the times in `stat`, the same on every Linux.
    const TICKS_PER_SECOND: u64 = 100;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, after_name) = stat.rsplit_once(") ").unwrap();
    // The third field of the file comes first here; utime, stime, cutime and cstime are its 14th to 17th.
    let ticks: Vec<u64> = after_name.split(' ').skip(11).take(4).map(|field| field.parse().unwrap()).collect();
    let time = |ticks: &[u64]| Duration::from_millis(ticks.iter().sum::<u64>() * 1_000 / TICKS_PER_SECOND);
    (time(&ticks[..2]), time(&ticks))
}
