//! Generates `tests/FAULTS.md` from the declared scenarios, including those that other tests cover (`just faults`).

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::{Scenario, as_root, cache, content, endurance, kill, machine, remote, retry, tools};
use crate::docs::assert_kept;

/// Scenarios that tests outside this suite cover.
const ELSEWHERE: &[Scenario] = &[
    row(
        "each result code that Windmill can cause",
        "in Windmill's answers, and in the settings",
        "result code, exit code and message are correct; no file of the run is left",
        "failures::each_failure_of_windmill_has_its_code",
    ),
    row(
        "status 500, 502, a page that is not Windmill's, no answer",
        "in the export",
        "`pull_failed`; no file of the run is left",
        "failures::each_failure_of_an_export_has_its_code",
    ),
    row(
        "each result code that the remote can cause",
        "in its answers to a fetch and a push",
        "result code, exit code and message are correct; no file of the run is left",
        "failures::each_failure_of_git_has_its_code",
    ),
    row(
        "a truncated archive",
        "in the export",
        "nothing of it is committed",
        "failures::an_archive_cut_short_is_never_committed",
    ),
    row(
        "a `wmill` that exits 1, is killed, or exits 0 after half of its writes",
        "in place of `wmill`",
        "nothing of it is committed",
        "failures::the_files_of_a_failed_pull_are_never_committed",
    ),
    row(
        "a checkout with too many loose objects",
        "in DATA_DIR",
        "it is replaced by a new checkout",
        "failures::a_checkout_with_too_many_objects_is_made_again",
    ),
    row(
        "several syncs at once",
        "on the command line, for one workspace and for two",
        "each workspace has one sync at a time",
        "failures::only_one_sync_of_a_workspace_runs_at_a_time",
    ),
    row(
        "no answer, and an archive that stops halfway",
        "in Windmill, the export, the fetch and the push",
        "`timeout` names the step; no process is left",
        "failures::a_sync_that_takes_too_long_names_the_step_and_leaves_nothing_running",
    ),
    row(
        "SIGKILL of the service only",
        "during a pull",
        "the next sync ends the orphan",
        "failures::the_next_sync_ends_programs_of_a_killed_one",
    ),
    row(
        "SIGTERM, with and without SHUTDOWN_GRACE",
        "during a pull",
        "`shutting_down`, or a finished sync",
        "failures::a_sync_that_a_signal_ends_reports_it",
    ),
    row(
        "SIGTERM twice, with programs that ignore it",
        "during a pull",
        "all processes end at once",
        "api::a_second_signal_ends_a_wmill_that_ignores_sigterm",
    ),
    row(
        "SIGTERM while Windmill does not answer",
        "during a request to Windmill",
        "the service ends without the answer",
        "api::a_windmill_that_does_not_answer_does_not_delay_the_end_of_the_service",
    ),
    row(
        "another writer's push, once",
        "between fetch and push, before and after the transfer of the pack",
        "the new commit is a descendant of the other commit",
        "push::a_commit_of_another_writer_becomes_the_parent_of_ours",
    ),
    row(
        "another writer's push, before each attempt",
        "between fetch and push",
        "`git_rejected` after five attempts",
        "push::a_writer_who_is_always_first_makes_the_sync_end_with_git_rejected",
    ),
    row(
        "another writer's push",
        "directly after the push of the service",
        "the sync is a success",
        "push::a_commit_of_another_writer_right_after_our_push_does_not_fail_it",
    ),
    row(
        "another writer's forced push",
        "between fetch and push",
        "the new commit is a descendant of the forced tip",
        "push::a_forced_push_of_another_writer_becomes_the_parent_of_ours",
    ),
    row(
        "a branch that is moved back or deleted",
        "between two syncs",
        "the backup is pushed again",
        "push::a_branch_that_was_moved_back_or_deleted_gets_the_backup_again",
    ),
    row(
        "a repository that is deleted and created again, also with SHA-256",
        "between two syncs",
        "the backup is pushed again",
        "push::a_remote_made_again_gets_the_backup_again",
    ),
    row(
        "a lost volume",
        "DATA_DIR, between two syncs",
        "the next sync is `unchanged`",
        "push::a_sync_after_a_lost_volume_succeeds",
    ),
    row(
        "hooks that refuse a push",
        "`pre-receive` and `update`",
        "`git_rejected`, also for the next sync",
        "push::a_push_that_the_server_refuses_never_succeeds",
    ),
    row(
        "another branch or remote than before; a branch that does not exist",
        "in the settings",
        "the branch is created; other branches do not change",
        "sync::a_missing_branch_is_created_and_the_others_stay",
    ),
    row(
        "another folder than before",
        "in the settings",
        "files outside the folder stay",
        "sync::a_sync_changes_only_its_folder",
    ),
    row(
        "the answer to a push is lost",
        "in the remote",
        "the commit is found on the remote and not pushed again",
        "push::a_push_is_found_if_its_answer_was_lost_and_is_not_repeated",
    ),
    row(
        "a token of a user who is not an admin",
        "in Windmill",
        "a warning reports it",
        "sync::the_default_workspace_and_a_limited_token_are_warnings",
    ),
    row(
        "a workspace with far fewer items than before, or none",
        "in Windmill",
        "`mass_deletion`",
        "guards::ten_items_and_more_than_the_permitted_share_are_a_mass_deletion",
    ),
    row(
        "secrets in plain text",
        "in the export of Windmill",
        "`plaintext_secrets`",
        "guards::an_export_with_plain_secrets_is_refused",
    ),
    row(
        "a failed request of a pull other than the export",
        "in Windmill",
        "`pull_failed`, although `wmill` exits with 0",
        "workspace_specific::a_failed_request_to_a_side_endpoint_fails_the_sync",
    ),
    row(
        "a `wmill` that prints 100 MB, invalid UTF-8 or one endless line, or is killed",
        "in place of `wmill`",
        "the message is true, and memory is bounded",
        "api::each_failure_of_wmill_is_reported_in_bounded_memory",
    ),
    row(
        "a `wmill` that hangs, also with `--version`, or ignores SIGTERM",
        "in place of `wmill`",
        "`timeout`; no process is left",
        "api::a_wmill_that_never_ends_is_killed",
    ),
    row(
        "a `wmill` or `git` that is missing or not executable",
        "on the `PATH`",
        "the message names the program",
        "api::a_wmill_that_cannot_be_started_is_named",
    ),
    row(
        "a child process that continues, in or outside the process group",
        "in place of `wmill`",
        "the child is ended",
        "api::programs_that_wmill_leaves_running_are_killed",
    ),
    row(
        "a client that disconnects",
        "during a sync",
        "the sync continues",
        "api::a_run_continues_if_its_client_disconnects",
    ),
    row(
        "many requests at once",
        "in the queue",
        "the queue is bounded; equal requests share a run",
        "api::the_number_of_waiting_runs_is_limited",
    ),
    row(
        "a log without a reader, or with a full disk",
        "standard error",
        "the sync succeeds",
        "log_sink_full::a_sync_pushes_if_its_log_cannot_be_written",
    ),
    row(
        "status 401, 403, 404, 429, 500, 502; no answer",
        "in the fetch and push of an HTTP remote",
        "result code and message fit the status",
        "credentials::each_failure_of_an_http_remote_is_reported_with_its_cause",
    ),
    row(
        "a refused connection, an unknown host",
        "in the URL of the remote",
        "`git_unreachable`",
        "credentials::an_unreachable_remote_is_reported",
    ),
    row(
        "a redirect",
        "in the answers of the remote",
        "the message names it; no request follows it",
        "credentials::a_redirect_is_reported_and_not_followed",
    ),
    row(
        "a remote that does not answer",
        "after the connection, for HTTP and ssh",
        "`timeout` names the step",
        "credentials::a_sync_from_a_remote_that_hangs_times_out_and_names_the_step",
    ),
    row(
        "a token that is replaced or revoked between two syncs",
        "in the file of the secret",
        "each sync reads the file again",
        "credentials::each_sync_reads_secret_files_again",
    ),
    row(
        "ignore files, attributes, hooks and configuration that exclude or change files",
        "in the repository, the user's home and the environment",
        "each pulled file arrives unchanged",
        "hostile::every_pulled_file_arrives_byte_for_byte_despite_git_attributes_and_configuration",
    ),
    row(
        "symlinks and submodules that lead outside",
        "in the repository",
        "files outside do not change",
        "hostile::links_and_submodules_are_not_followed",
    ),
    row(
        "names that git cannot check out",
        "in the repository",
        "the sync succeeds, and a warning gives the names",
        "hostile::names_that_git_does_not_check_out_do_not_stop_the_backup",
    ),
    row(
        "a path that is too long for the system",
        "in the repository",
        "the sync succeeds; the file stays, and a warning names it",
        "hostile::a_path_too_long_for_the_system_stays_and_does_not_stop_the_backup",
    ),
    row(
        "a file in place of a folder, a folder in place of a file, items that `wmill` cannot read",
        "in the repository",
        "the sync succeeds",
        "hostile::files_that_block_wmill_are_replaced",
    ),
];

/// Faults that a sync does not survive, and why.
const NOT_SURVIVED: &[(&str, &str)] = &[
    (
        "ssh as a user without an entry in passwd",
        "OpenSSH refuses to run (`No user exists for uid …`); only our image has an entry for each uid",
    ),
    (
        "a git in another container that uses the same volume without our lock",
        "the service cannot see its process and removes its lock file as stale; one of the two git processes then \
            fails, and the next sync repairs the checkout",
    ),
    (
        "a `wmill` that writes wrong files and reports success",
        "the sync commits what `wmill` wrote; `verify` compares a second pull with the backup",
    ),
    (
        "a remote that loses commits after the sync has read them back",
        "the next sync pushes the current workspace; history that only the remote had is lost",
    ),
    (
        "a damaged pack with correct checksums",
        "only an attack makes such a pack; the remote checks the objects that it receives",
    ),
    ("a `git read-tree` that does nothing and exits 0", "only git knows the content of its index"),
    ("a disk that stays full", "each sync fails and reports it until there is space; no data is deleted to free space"),
];

const fn row(fault: &'static str, injected: &'static str, asserted: &'static str, test: &'static str) -> Scenario {
    Scenario { fault, injected, asserted, test }
}

const HEAD: &str = "# Faults\n\n\
    `just faults` generates this file from the declarations of the fault suite; a test checks that it is up to date. \
    `just test-faults` runs the suite, and `just test-root` the tests that need root. `cargo test` runs the short \
    tests, and every seventh point of two long ones (`tests/it/faults/every_seventh.rs`).\n\n\
    A row gives the fault, the place where the test injects it, and what the test asserts in addition. After each \
    fault of the suite, a test asserts the same four things:\n\n\
    - The reported result is true.\n\
    - No output contains a secret.\n\
    - The remote's history lost no commit.\n\
    - The next sync without the fault succeeds without manual repair, and makes the branch equal to the workspace.\n";

fn families() -> Vec<(&'static str, &'static str, &'static [Scenario])> {
    vec![
        ("Killed processes", "faults::", kill::SCENARIOS),
        ("Retries", "faults::", retry::SCENARIOS),
        ("Checkout", "faults::", cache::SCENARIOS),
        ("Remote", "faults::", remote::SCENARIOS),
        ("Tools (`git` and `wmill`)", "faults::", tools::SCENARIOS),
        ("Disk and users", "faults::", as_root::SCENARIOS),
        ("Machine, large answers, DATA_DIR", "faults::", machine::SCENARIOS),
        ("Content", "faults::", content::SCENARIOS),
        ("Endurance", "faults::", endurance::SCENARIOS),
        ("Covered by other tests", "", ELSEWHERE),
    ]
}

fn table() -> String {
    let mut text = HEAD.to_owned();
    for (family, prefix, scenarios) in families() {
        let _ = write!(text, "\n## {family}\n\n| fault | where | also asserted | test |\n| --- | --- | --- | --- |\n");
        for Scenario { fault, injected, asserted, test } in scenarios {
            let asserted = if asserted.is_empty() { "–" } else { asserted };
            let _ = writeln!(text, "| {fault} | {injected} | {asserted} | `{prefix}{test}` |");
        }
    }
    text.push_str("\n## Not survived\n\n| fault | why |\n| --- | --- |\n");
    for (fault, why) in NOT_SURVIVED {
        let _ = writeln!(text, "| {fault} | {why} |");
    }
    text
}

#[test]
fn the_table_of_faults_is_up_to_date() {
    assert_kept("tests/FAULTS.md", &table(), "faults");
}

#[test]
fn each_row_names_an_existing_test_and_each_test_of_the_suite_has_a_row() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let mut named = Vec::new();
    for (_, prefix, scenarios) in families() {
        for scenario in scenarios {
            let (module, test) = scenario.test.split_once("::").unwrap();
            let file = tests.join(prefix.replace("::", "/")).join(format!("{module}.rs"));
            let source = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            assert!(tests_in(&source).any(|known| known == test), "no test `{}`", scenario.test);
            named.push(format!("{prefix}{module}::{test}"));
        }
    }
    for entry in fs::read_dir(tests.join("faults")).unwrap() {
        let path = entry.unwrap().path();
        let module = path.file_stem().unwrap().to_string_lossy().into_owned();
        let source = fs::read_to_string(&path).unwrap();
        for test in tests_in(&source) {
            let name = format!("faults::{module}::{test}");
            let needs_no_row = ["table", "every_seventh"].contains(&&*module);
            assert!(named.contains(&name) || needs_no_row, "`{name}` has no row in the table");
        }
    }
}

/// Returns the names of the tests in a source file.
fn tests_in(source: &str) -> impl Iterator<Item = &str> {
    source.split("#[test]\n").skip(1).filter_map(|rest| rest.split_once("fn ")?.1.split('(').next())
}
