//! How long, how much memory, how much of the processor: of one program, or of a median of several.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, DirEntry};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use support::{Outcome, Run, process};

/// For the slowest that is measured: npm's `wmill` on thousands of scripts, on a machine that is busy.
pub(super) const PATIENCE: Duration = Duration::from_secs(1_800);
/// How often a running program's memory is looked at. The most that it ever had is kept by the kernel, so only what it
/// takes in its last moment is missed.
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

/// Runs a program that must succeed.
pub(super) fn time_of(command: Command) -> Duration {
    let (time, finished) = timed(|| process::start(command).finish_within(PATIENCE));
    finished.must_succeed();
    time
}

/// Two things that are to be compared, by turns: what disturbs the machine for a while disturbs both.
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

/// A sync by our binary, with the most memory that its own process had, in KiB.
pub(super) fn sync_and_peak(sync: &Run<'_>, code: &str) -> (Outcome, u64) {
    let mut running = sync.start();
    let mut peak = 0;
    while running.is_running() {
        peak = peak.max(memory_kib(running.pid(), "VmHWM").unwrap_or_default());
        thread::sleep(LOOK_AGAIN);
    }
    (running.finish().expect(code), peak)
}

/// The same of any program, which must succeed, with its time.
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

/// A process's memory: `VmRSS` for now, `VmHWM` for the most that it ever had. Nothing of one that has ended.
pub(super) fn memory_kib(pid: u32, of: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(of)?.strip_prefix(':'))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

/// What each thread of a process has had of the processor, to the nanosecond.
pub(super) struct ThreadTimes(BTreeMap<OsString, u64>);

impl ThreadTimes {
    pub(super) fn of(pid: u32) -> Self {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
        let time = |thread: DirEntry| Some((thread.file_name(), nanoseconds(&thread.path().join("schedstat"))?));
        Self(threads.filter_map(time).collect())
    }

    /// What those have had since then that are there now.
    pub(super) fn since(&self, before: &Self) -> Duration {
        let had = |(thread, time): (&OsString, &u64)| time - before.0.get(thread).unwrap_or(&0);
        Duration::from_nanos(self.0.iter().map(had).sum())
    }
}

fn nanoseconds(schedstat: &Path) -> Option<u64> {
    fs::read_to_string(schedstat).ok()?.split(' ').next()?.parse().ok()
}

/// What a process has had of the processor, threads that ended included; and with the children that it waited for.
pub(super) fn processor_time_with_children(pid: u32) -> (Duration, Duration) {
    /// Of the numbers in `stat`, on every Linux.
    const TICKS_PER_SECOND: u64 = 100;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, after_name) = stat.rsplit_once(") ").unwrap();
    // The third field of the file comes first here; utime, stime, cutime and cstime are its 14th to 17th.
    let ticks: Vec<u64> = after_name.split(' ').skip(11).take(4).map(|field| field.parse().unwrap()).collect();
    let time = |ticks: &[u64]| Duration::from_millis(ticks.iter().sum::<u64>() * 1_000 / TICKS_PER_SECOND);
    (time(&ticks[..2]), time(&ticks))
}
