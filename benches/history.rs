//! `log` on a branch of 10,000 commits and 10,000 files, compared with `git log` in a full clone: time, and bytes
//! fetched.

use std::fmt::Write as _;

use super::measure::{PATIENCE, median, time_of, timed};
use super::place::{Programs, git_credentials};
use super::table::{Limit, Table, shown_bytes, shown_time};
use support::git::git;
use support::{GitHttp, Remote as _, Sandbox, process};

const COMMITS: usize = 10_000;
const FILES: usize = 10_000;
const ROUNDS: usize = 5;
/// The limit for the last commits, relative to a full clone: they need a fetch of these commits only.
const LAST_OF_CLONE_MAX: f64 = 1.0;
/// One commit in 2,500 changes the item.
const CHANGES_OF_ITEM: usize = 2_500;

/// Returns the commands for `git fast-import`: a first commit with all files, then one file per commit.
fn orders() -> String {
    let path = |file: usize| format!("f/dept_{}/job_{file:05}.ts", file % 10);
    let mut orders = String::new();
    for commit in 0..COMMITS {
        let message = format!("Backup {commit}");
        let seconds = 1_700_000_000 + commit * 3_600;
        let _ = write!(
            orders,
            "commit refs/heads/main\ncommitter Bench <bench@example.com> {seconds} +0000\ndata {}\n{message}\n",
            message.len()
        );
        let mut put = |path: &str, content: &str| {
            let _ = write!(orders, "M 100644 inline {path}\ndata {}\n{content}\n", content.len());
        };
        if commit == 0 {
            (0..FILES).for_each(|file| put(&path(file), &format!("export const job = {file}\n")));
        } else if commit % CHANGES_OF_ITEM == 0 {
            put("f/ops/a.ts", &format!("export const change = {commit}\n"));
        } else {
            put(&path(commit * 7 % FILES), &format!("export const change = {commit}\n"));
        }
    }
    orders
}

pub(super) fn measure(programs: &Programs, table: &mut Table) {
    println!("\na branch of {COMMITS} commits");
    let sandbox = Sandbox::on_disk();
    let repository = sandbox.repository();
    process::run_with_input(repository.git(["fast-import", "--quiet"]), orders().into_bytes()).must_succeed();
    repository.run(["repack", "-adq"]);
    repository.run(["config", "uploadpack.allowFilter", "true"]);
    let served = GitHttp::serve(&repository);

    let clone_to = sandbox.scratch("clones");
    for (name, arguments, expected) in [
        ("--limit 20", &["--limit", "20"][..], 20),
        ("--path f/ops/a", &["--path", "f/ops/a", "--limit", "20"], COMMITS / CHANGES_OF_ITEM - 1),
    ] {
        let (mut ours, mut by_hand, mut looks) = (Vec::new(), Vec::new(), Vec::new());
        let (mut fetched, mut cloned) = (0, 0);
        for round in 0..ROUNDS {
            served.take_bytes_sent();
            let run = sandbox.command("log").remote(&served).program(programs.ours.clone()).within(PATIENCE);
            let run = arguments.iter().fold(run.arg("--json"), |run, word| run.arg(word));
            let (time, outcome) = timed(|| run.run());
            assert_eq!(outcome.stdout.matches("\"commit\":").count(), expected, "{outcome}");
            ours.push(time);
            fetched = served.take_bytes_sent();

            let folder = clone_to.join(format!("{round}{}", name.replace(['/', ' '], "-")));
            let mut clone = git(&sandbox);
            clone.envs(git_credentials()).args(["clone", "--quiet", "--bare", &served.url()]).arg(&folder);
            let clone = time_of(clone);
            cloned = served.take_bytes_sent();
            let mut look = git(&sandbox);
            look.arg("--git-dir").arg(&folder).args(["log", "--name-status", "--max-count=20"]);
            if name.contains("--path") {
                look.arg("--").arg("f/ops/a*");
            }
            let look = time_of(look);
            by_hand.push(clone + look);
            looks.push(look);
        }
        let (ours, by_hand, look) = (median(&ours), median(&by_hand), median(&looks));
        table.head(&format!("`log {name}`, 10,000 commits and 10,000 files (medians of {ROUNDS})"));
        table.measured(&format!("`windmill-git-sync log {name}`, {} fetched", shown_bytes(fetched)), &shown_time(ours));
        table.measured(&format!("a full clone and `git log`, {} fetched", shown_bytes(cloned)), &shown_time(by_hand));
        table.measured("the `git log` of that alone", &shown_time(look));
        let ratio = ours.as_secs_f64() / by_hand.as_secs_f64();
        if name.contains("--limit") {
            table.ratio("times a full clone and `git log`", ratio, &Limit::AtMost(LAST_OF_CLONE_MAX));
        } else {
            // Both sides have to read the whole history, so there is no limit.
            table.measured("times a full clone and `git log`", &format!("{ratio:.2}"));
        }
    }
}
