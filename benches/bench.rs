//! Measures the size, needs and speed of the static binary, with their limits: `cargo bench --bench bench`. With the
//! names of parts (`-- unchanged memory`), only these run.
//!
//! | module | owns |
//! | --- | --- |
//! | [`table`] | what was measured, as lines of Markdown with their limits |
//! | [`measure`] | how long, how much memory, how much of the processor |
//! | [`place`] | a workspace, a remote, our binary, and the shell script that does the same by hand |
//! | all others | a part of [`PARTS`] each |
//!
//! Things that are compared run by turns, in the same run on the same machine. The table is printed, and saved in
//! `target/bench/`. The exit code is 1 if a limit is missed.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a bench prints, starts programs, and panics where something is not as it must be"
)]

mod binary;
mod changed;
mod first;
mod history;
mod listener;
mod measure;
mod memory;
mod place;
mod processor;
mod programs;
mod table;
mod unchanged;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use place::{Place, Programs, Size};
use support::process;
use support::sandbox::target_dir;
use support::wmill::{LockFile, one_program};
use table::Table;

const MUSL: &str = "x86_64-unknown-linux-musl";
/// How long a build may take: long enough for the first one on a small machine.
const BUILD_PATIENCE: Duration = Duration::from_secs(900);
/// The parts in the order in which they are measured.
const PARTS: [&str; 9] =
    ["binary", "listener", "processor", "programs", "history", "unchanged", "changed", "memory", "first"];
const SMALL: Size = Size::Recorded;
const MANY: Size = Size::Scripts(2_000);
const MOST: Size = Size::Scripts(10_000);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` only checks that it starts.
    if arguments.iter().any(|argument| argument == "--test") {
        return ExitCode::SUCCESS;
    }
    let asked: Vec<&str> = arguments.iter().map(String::as_str).filter(|argument| *argument != "--bench").collect();
    if let Some(unknown) = asked.iter().find(|part| !PARTS.contains(part)) {
        println!("bench: there is no part `{unknown}`; the parts are {}", PARTS.join(", "));
        return ExitCode::from(2);
    }
    if let Some(lack) = lack() {
        println!("bench: skipped, since {lack}");
        return ExitCode::SUCCESS;
    }
    println!("building the static release binary, and wmill as one program");
    let programs = Programs { ours: build(), wmill: one_program(LockFile::InMemory) };
    let begun = Instant::now();
    let mut table = Table::new();
    measure(&programs, &|part| asked.is_empty() || asked.contains(&part), &mut table);
    let folder = target_dir().join("bench");
    fs::create_dir_all(&folder).unwrap();
    let name = if asked.is_empty() { "latest".to_owned() } else { asked.join("-") };
    let file = folder.join(name + ".md");
    fs::write(&file, table.text()).unwrap();
    println!("\n{}\nkept in {}, after {} s", table.text(), file.display(), begun.elapsed().as_secs());
    if table.is_over() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn measure(programs: &Programs, is_asked: &dyn Fn(&str) -> bool, table: &mut Table) {
    if is_asked("binary") {
        binary::measure(&programs.ours, table);
    }
    if is_asked("listener") {
        listener::measure(&programs.ours, table);
    }
    if is_asked("processor") {
        processor::measure(&Settled::new(programs, SMALL).place, table);
    }
    if is_asked("programs") {
        programs::measure(programs, table);
    }
    if is_asked("history") {
        history::measure(programs, table);
    }
    let of = |size, parts: &[&str]| parts.iter().any(|part| is_asked(part)).then(|| Settled::new(programs, size));
    if let Some(small) = of(SMALL, &["unchanged"]) {
        unchanged::measure(&small.place, SMALL, table);
    }
    let mut of_many = None;
    if let Some(many) = of(MANY, &["unchanged", "changed"]) {
        of_many = is_asked("unchanged").then(|| unchanged::measure(&many.place, MANY, table));
        if is_asked("changed") {
            changed::measure(&many.place, MANY, table);
            changed::measure_forced(&many.place, MANY, table);
        }
    }
    if let Some(most) = of(MOST, &["unchanged", "memory"]) {
        if let Some(of_many) = of_many {
            let of_most = unchanged::measure(&most.place, MOST, table);
            unchanged::compare([MANY, MOST], [of_many, of_most], table);
        }
        if is_asked("memory") {
            memory::measure(&most.place, MOST, most.first_kib, table);
        }
    }
    if is_asked("first") {
        first::measure(programs, table);
    }
}

/// A place whose first sync is over.
struct Settled {
    place: Place,
    first_kib: u64,
}

impl Settled {
    fn new(programs: &Programs, size: Size) -> Self {
        println!("\nfirst sync of {}", size.name());
        let place = Place::new(programs, size);
        let first_kib = place.settle();
        Self { place, first_kib }
    }
}

/// Returns what the static build needs and this machine lacks.
fn lack() -> Option<&'static str> {
    process::find_program("musl-gcc", &[]).is_none().then_some("musl-gcc is missing (Debian: musl-tools)")
}

fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments);
    command
}

fn build() -> PathBuf {
    let mut build = command("image/build-static", &["x86_64", "--bin", "windmill-git-sync"]);
    build.arg("--target-dir").arg(target_dir());
    process::start(build).finish_within(BUILD_PATIENCE).must_succeed();
    target_dir().join(MUSL).join("release/windmill-git-sync")
}
