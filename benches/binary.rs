//! The size of the static binary, the libraries that it needs, its start time, and its memory while idle.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::measure::{median, memory_kib};
use super::table::{Table, shown_bytes, shown_kib, shown_time};
use support::Sandbox;
use support::windmill::SHOP;

const BYTES_MAX: u64 = 3_000_000;
const START_TIME_MAX: Duration = Duration::from_millis(10);
const IDLE_KIB_MAX: u64 = 3_000_000 / 1024;
/// How many starts are measured; a single one varies too much.
const STARTS: usize = 20;

pub(super) fn measure(binary: &Path, table: &mut Table) {
    table.head("the binary");
    let bytes = fs::metadata(binary).unwrap().len();
    table.limited("static binary", &shown_bytes(bytes), &shown_bytes(BYTES_MAX), bytes <= BYTES_MAX);
    let is_static = !asks_for_an_interpreter(&fs::read(binary).unwrap());
    table.limited("needs no shared library", if is_static { "none" } else { "some" }, "none", is_static);
    measure_starts(binary, table);
}

/// Returns whether a 64-bit little-endian ELF file names a dynamic linker (a program header of type `PT_INTERP`).
fn asks_for_an_interpreter(elf: &[u8]) -> bool {
    let number = |at: usize, bytes: usize| {
        elf[at..at + bytes].iter().rev().fold(0_usize, |number, byte| number << 8 | usize::from(*byte))
    };
    let (table, entry_bytes, entries) = (number(32, 8), number(54, 2), number(56, 2));
    (0..entries).any(|entry| number(table + entry * entry_bytes, 4) == 3)
}

fn measure_starts(binary: &Path, table: &mut Table) {
    let sandbox = Sandbox::on_disk();
    let remote = sandbox.repository();
    let run = sandbox.service().workspace(SHOP).remote(&remote).program(binary.to_path_buf());
    let mut times = Vec::new();
    let mut memory = Vec::new();
    for _ in 0..STARTS {
        let begun = Instant::now();
        let service = run.serve();
        times.push(begun.elapsed());
        assert_eq!(service.get("/health").status, 200);
        memory.push(memory_kib(service.pid(), "VmRSS").unwrap());
    }
    let (time, kib) = (median(&times), median(&memory));
    let what = format!("`serve`, from its start to listening (median of {STARTS})");
    table.limited(&what, &shown_time(time), &shown_time(START_TIME_MAX), time <= START_TIME_MAX);
    let what = "`serve`, memory when idle (VmRSS)";
    table.limited(what, &shown_kib(kib), &shown_kib(IDLE_KIB_MAX), kib <= IDLE_KIB_MAX);
}
