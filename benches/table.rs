//! The results as lines of Markdown, each with its limit, if it has one, and whether that is kept.

use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, SystemTime};

#[derive(Default)]
pub(super) struct Table {
    text: String,
    is_over: bool,
}

/// The limit of a number.
pub(super) enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

impl Table {
    /// Starts a table with the time and the kind of the machine.
    pub(super) fn new() -> Self {
        let day = windmill_git_sync::util::time::to_text(SystemTime::now());
        let text = format!("Measured at {day} on {}.\n", machine());
        Self { text, is_over: false }
    }

    /// Returns whether a limit was missed.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn head(&mut self, title: &str) {
        println!("\n{title}");
        let _ = write!(self.text, "\n| {title} | measured | limit | kept |\n| --- | --- | --- | --- |\n");
    }

    fn row(&mut self, cells: [&str; 4]) {
        println!("  {}", cells.join("  "));
        let _ = writeln!(self.text, "| {} |", cells.join(" | "));
    }

    /// Adds a row without a limit.
    pub(super) fn measured(&mut self, what: &str, measured: &str) {
        self.row([what, measured, "–", "–"]);
    }

    pub(super) fn limited(&mut self, what: &str, measured: &str, limit: &str, keeps: bool) {
        self.is_over |= !keeps;
        self.row([what, measured, limit, if keeps { "yes" } else { "NO" }]);
    }

    /// Adds a row with a ratio and its limit.
    pub(super) fn ratio(&mut self, what: &str, ratio: f64, limit: &Limit) {
        let shown = |ratio: f64| match ratio {
            10.0.. => format!("{ratio:.0}"),
            1.0..10.0 => format!("{ratio:.2}"),
            _ => format!("{ratio:.3}"),
        };
        let (said, keeps) = match *limit {
            Limit::AtMost(most) => (format!("at most {most}"), ratio <= most),
            Limit::AtLeast(least) => (format!("at least {least}"), ratio >= least),
        };
        self.limited(what, &shown(ratio), &said, keeps);
    }
}

/// Returns cores, processor, memory and system of the machine.
fn machine() -> String {
    let field = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let processor = field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let memory = field("/proc/meminfo", "MemTotal").unwrap_or_default();
    let kib: f64 = memory.trim_end_matches(" kB").parse().unwrap_or_default();
    let system = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} cores of {processor}, {:.0} GB, Linux {}", kib * 1024.0 / 1e9, system.trim())
}

pub(super) fn shown_time(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds @ 1.0.. => format!("{seconds:.2} s"),
        seconds => format!("{:.1} ms", seconds * 1e3),
    }
}

pub(super) fn shown_kib(kib: u64) -> String {
    format!("{:.2} MB", kib as f64 * 1024.0 / 1e6)
}

pub(super) fn shown_bytes(bytes: u64) -> String {
    format!("{:.2} MB", bytes as f64 / 1e6)
}
