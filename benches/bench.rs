//! What the static binary weighs, needs and takes, and how its listener does under load, beside the limits of all that:
//! `cargo bench --bench bench`. With `-- listener`, the listener alone.
//!
//! Syncs are timed beside a shell script that does the same by hand, in the same run, on the same machine. The table
//! is printed and kept in `target/bench/`. It ends with 1 where a limit is missed.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a bench prints, starts programs, and panics where something is not as it must be"
)]

#[path = "../tests/it/bed/mod.rs"]
mod bed;
mod listener;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use bed::process;
use bed::sandbox::{target_dir, write_with_mode};
use bed::windmill::SHOP;
use bed::{BareRepository, Remote, Sandbox, WINDMILL_TOKEN, Workspace};

const MUSL: &str = "x86_64-unknown-linux-musl";
const BYTES_MAX: u64 = 2_500_000;
const START_TIME_MAX: Duration = Duration::from_millis(10);
const IDLE_KIB_MAX: u64 = 3_000_000 / 1024;
/// One start is noise.
const STARTS: usize = 20;
/// One sync is noise too, and takes its seconds.
const ROUNDS: usize = 3;
/// A first build on a small machine.
const BUILD_PATIENCE: Duration = Duration::from_secs(900);

fn main() -> ExitCode {
    // `cargo test --benches` asks whether it starts.
    if std::env::args().any(|argument| argument == "--test") {
        return ExitCode::SUCCESS;
    }
    if let Some(lack) = lack() {
        println!("bench: skipped, since {lack}");
        return ExitCode::SUCCESS;
    }
    let binary = build();
    let mut table = Table::default();
    let is_whole = !std::env::args().any(|argument| argument == "listener");
    measure_binary(&binary, &mut table);
    measure_service(&binary, &mut table);
    listener::measure(&binary, &mut table);
    for workload in [Workload::Recorded, Workload::Scripts(200)].into_iter().filter(|_| is_whole) {
        measure_syncs(&binary, workload, &mut table);
    }
    let folder = target_dir().join("bench");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("latest.md"), &table.text).unwrap();
    println!("\n{}\nkept in {}", table.text, folder.join("latest.md").display());
    if table.is_over { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// What this machine has not and the static build needs.
fn lack() -> Option<&'static str> {
    let sysroot = process::run(command("rustc", &["--print", "sysroot"])).must_succeed().stdout_text();
    if !Path::new(sysroot.trim()).join("lib/rustlib").join(MUSL).join("lib").is_dir() {
        return Some("the static target is missing: rustup target add x86_64-unknown-linux-musl");
    }
    process::find_program("musl-gcc", &[]).is_none().then_some("musl-gcc is missing (Debian: musl-tools)")
}

fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments);
    command
}

fn build() -> PathBuf {
    println!("building the static release binary");
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut build = command(&cargo, &["build", "--release", "--bin", "windmill-git-sync", "--target", MUSL]);
    build.arg("--target-dir").arg(target_dir());
    process::start(build).finish_within(BUILD_PATIENCE).must_succeed();
    target_dir().join(MUSL).join("release/windmill-git-sync")
}

/// Lines of Markdown.
#[derive(Default)]
struct Table {
    text: String,
    is_over: bool,
}

impl Table {
    fn head(&mut self, cells: &[&str]) {
        let _ = write!(self.text, "\n| {} |\n|{}\n", cells.join(" | "), " --- |".repeat(cells.len()));
    }

    fn row(&mut self, cells: &[&str]) {
        println!("{}", cells.join("  "));
        let _ = writeln!(self.text, "| {} |", cells.join(" | "));
    }

    fn limited(&mut self, what: &str, measured: &str, limit: &str, keeps: bool) {
        self.is_over |= !keeps;
        self.row(&[what, measured, limit, if keeps { "yes" } else { "NO" }]);
    }
}

fn measure_binary(binary: &Path, table: &mut Table) {
    table.head(&["what", "measured", "limit", "kept"]);
    let bytes = fs::metadata(binary).unwrap().len();
    let shown = |bytes: u64| format!("{:.2} MB", bytes as f64 / 1e6);
    table.limited("static binary", &shown(bytes), &shown(BYTES_MAX), bytes <= BYTES_MAX);
    let is_static = !asks_for_an_interpreter(&fs::read(binary).unwrap());
    table.limited("needs no shared library", if is_static { "none" } else { "some" }, "none", is_static);
}

/// Whether a 64-bit little-endian ELF file names a dynamic linker (a program header of type `PT_INTERP`).
fn asks_for_an_interpreter(elf: &[u8]) -> bool {
    let number = |at: usize, bytes: usize| {
        elf[at..at + bytes].iter().rev().fold(0_usize, |number, byte| number << 8 | usize::from(*byte))
    };
    let (table, entry_bytes, entries) = (number(32, 8), number(54, 2), number(56, 2));
    (0..entries).any(|entry| number(table + entry * entry_bytes, 4) == 3)
}

fn measure_service(binary: &Path, table: &mut Table) {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let run = sandbox.service().workspace(SHOP).remote(&remote).program(binary.to_path_buf());
    let mut times = Vec::new();
    let mut memory = Vec::new();
    for _ in 0..STARTS {
        let begun = Instant::now();
        let service = run.serve();
        times.push(begun.elapsed());
        assert_eq!(service.get("/health").status, 200);
        memory.push(memory_kib(service.pid(), "VmRSS"));
    }
    let (time, kib) = (median(times), median(memory));
    let milliseconds = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
    let what = format!("`serve`, from its start to listening (median of {STARTS})");
    table.limited(&what, &milliseconds(time), &milliseconds(START_TIME_MAX), time <= START_TIME_MAX);
    let what = "`serve`, memory when idle (VmRSS)";
    table.limited(what, &shown_memory(kib), &shown_memory(IDLE_KIB_MAX), kib <= IDLE_KIB_MAX);
}

fn shown_memory(kib: u64) -> String {
    format!("{:.2} MB", kib as f64 * 1024.0 / 1e6)
}

/// A process's memory: `VmRSS` for now, `VmHWM` for the most that it ever had.
fn memory_kib(pid: u32, of: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(of)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

fn median<T: Ord + Copy>(mut values: Vec<T>) -> T {
    values.sort_unstable();
    values[values.len() / 2]
}

#[derive(Clone, Copy)]
enum Workload {
    /// The recorded workspace: 7 scripts and some of everything else.
    Recorded,
    /// So many made scripts.
    Scripts(usize),
}

impl Workload {
    fn name(self) -> String {
        match self {
            Self::Recorded => "recorded workspace, 7 scripts".to_owned(),
            Self::Scripts(count) => format!("{count} scripts"),
        }
    }

    fn set_up(self, sandbox: &Sandbox) {
        if let Self::Scripts(count) = self {
            sandbox.windmill.set(SHOP, Workspace::of_scripts(count));
        }
    }

    fn change(self, sandbox: &Sandbox) {
        match self {
            Self::Recorded => sandbox.windmill.state("2-edited"),
            Self::Scripts(_) => {
                sandbox.windmill.edit(|workspace| workspace.add_bun_script("f/dept_0/job_00000", "another result"));
            }
        }
    }
}

/// First, unchanged, changed.
type Times = [Duration; 3];

fn measure_syncs(binary: &Path, workload: Workload, table: &mut Table) {
    table.head(&[&workload.name(), "first", "unchanged", "changed"]);
    let mut ours = Vec::new();
    let mut by_hand = Vec::new();
    for _ in 0..ROUNDS {
        let sandbox = Sandbox::new();
        let remote = sandbox.repository();
        let sync = sandbox.sync().workspace(SHOP).remote(&remote).program(binary.to_path_buf());
        ours.push(round(workload, &sandbox, &remote, &|| {
            sync.run();
        }));
        let sandbox = Sandbox::new();
        let remote = sandbox.repository();
        let script = script(&sandbox, &remote);
        by_hand.push(round(workload, &sandbox, &remote, &|| {
            process::run(Command::new(&script)).must_succeed();
        }));
    }
    for (what, rounds) in [("`windmill-git-sync sync`", ours), ("the same by a shell script", by_hand)] {
        let time = |step: usize| {
            let times: Vec<Duration> = rounds.iter().map(|times| times[step]).collect();
            format!("{:.2} s", median(times).as_secs_f64())
        };
        table.row(&[what, &time(0), &time(1), &time(2)]);
    }
}

/// Three syncs of one workspace; each must do to the remote what a sync has to.
fn round(workload: Workload, sandbox: &Sandbox, remote: &BareRepository, sync: &dyn Fn()) -> Times {
    workload.set_up(sandbox);
    [1, 1, 2].map(|commits_after| {
        if commits_after == 2 {
            workload.change(sandbox);
        }
        let begun = Instant::now();
        sync();
        let time = begun.elapsed();
        assert_eq!(remote.log("main").len(), commits_after, "commits on the remote");
        time
    })
}

/// Fetch, reset, pull, add, commit, push: the least that does the job where nothing goes wrong.
fn script(sandbox: &Sandbox, remote: &BareRepository) -> PathBuf {
    let here = sandbox.scratch("by-hand");
    let profile = format!(
        "{{\"name\":\"hand\",\"remote\":\"{}/\",\"workspaceId\":\"{SHOP}\",\"token\":\"{WINDMILL_TOKEN}\"}}\n",
        sandbox.windmill.base_url()
    );
    fs::create_dir_all(here.join("config/windmill")).unwrap();
    write_with_mode(&here.join("config/windmill/remotes.ndjson"), profile.as_bytes(), 0o600);
    let text = format!(
        "#!/bin/sh\nset -e\ncd '{here}'\n\
         export HOME='{here}' WMILL_CONFIG_DIR='{here}/config' GIT_CONFIG_NOSYSTEM=1\n\
         [ -d tree ] || git init --quiet --initial-branch=main tree\ncd tree\n\
         git fetch --quiet --depth=1 '{remote}' main 2>/dev/null && git reset --quiet --hard FETCH_HEAD || true\n\
         printf 'defaultTs: bun\\nincludeSchedules: true\\nincludeTriggers: true\\nincludeGroups: true\\n' >wmill.yaml\n\
         '{wmill}' --workspace hand sync pull --yes --skip-branch-validation </dev/null >/dev/null\n\
         git add --all\n\
         git diff --cached --quiet && exit\n\
         git -c user.name=Hand -c user.email=hand@example.com commit --quiet --message=backup\n\
         git push --quiet '{remote}' HEAD:main\n",
        here = here.display(),
        remote = remote.url(),
        wmill = bed::wmill().display(),
    );
    let path = here.join("sync.sh");
    write_with_mode(&path, text.as_bytes(), 0o755);
    path
}
