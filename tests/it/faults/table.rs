//! Generates `tests/FAULTS.md` from the declared scenarios, including those that other tests cover. `just faults`
//! writes it again.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::{Scenario, as_root, cache, content, endurance, kill, machine, remote, retry, tools};
use crate::docs::assert_kept;

/// Scenarios that tests outside this suite cover.
const ELSEWHERE: &[Scenario] = &[
    row(
        "every code that Windmill can cause",
        "in Windmill's answers, and in the settings",
        "code, exit code and message; nothing stays",
        "failures::each_failure_of_windmill_has_its_code",
    ),
    row(
        "500, 502, a page that is not Windmill's, no answer",
        "in the export",
        "`pull_failed`; nothing stays",
        "failures::each_failure_of_an_export_has_its_code",
    ),
    row(
        "every code that the remote can cause",
        "in its answers to a fetch and a push",
        "code, exit code and message; nothing stays",
        "failures::each_failure_of_git_has_its_code",
    ),
    row(
        "an archive cut short",
        "in the export",
        "nothing of it is ever committed",
        "failures::an_archive_cut_short_is_never_committed",
    ),
    row(
        "a `wmill` that exits 1, is killed, or exits 0 after half its writes",
        "in place of `wmill`",
        "nothing of it is ever committed",
        "failures::the_files_of_a_failed_pull_are_never_committed",
    ),
    row(
        "a checkout that has grown too large",
        "loose objects",
        "it is made again",
        "failures::a_checkout_with_too_many_objects_is_made_again",
    ),
    row(
        "several syncs at once",
        "on the command line, of one workspace and of two",
        "one of a workspace at a time",
        "failures::only_one_sync_of_a_workspace_runs_at_a_time",
    ),
    row(
        "a hang, and a hang in the middle of an archive",
        "in Windmill, the export, the fetch and the push",
        "`timeout` names the step; nothing runs on",
        "failures::a_sync_that_takes_too_long_names_the_step_and_leaves_nothing_running",
    ),
    row(
        "SIGKILL during a pull",
        "the service alone",
        "the next sync ends the orphan",
        "failures::the_next_sync_ends_programs_of_a_killed_one",
    ),
    row(
        "SIGTERM, with grace and without",
        "during a pull",
        "`shutting_down`, or a finished sync",
        "failures::a_sync_that_a_signal_ends_reports_it",
    ),
    row(
        "SIGTERM twice, with programs that ignore it",
        "during a pull",
        "all ends at once",
        "api::a_second_signal_ends_a_wmill_that_ignores_sigterm",
    ),
    row(
        "SIGTERM while Windmill says nothing",
        "during a question",
        "the end does not wait for the answer",
        "api::a_windmill_that_does_not_answer_does_not_delay_the_end_of_the_service",
    ),
    row(
        "another writer between fetch and push, once",
        "before and after the pack has come",
        "the backup is built on theirs",
        "push::a_commit_of_another_writer_becomes_the_parent_of_ours",
    ),
    row(
        "another writer between fetch and push, always",
        "in the push",
        "`git_rejected` after five rounds",
        "push::a_writer_who_is_always_first_makes_the_sync_end_with_git_rejected",
    ),
    row(
        "another writer right after the push",
        "in the push",
        "the push is a success",
        "push::a_commit_of_another_writer_right_after_our_push_does_not_fail_it",
    ),
    row(
        "a forced push by somebody, between fetch and push",
        "in the push",
        "the backup is built on theirs",
        "push::a_forced_push_of_another_writer_becomes_the_parent_of_ours",
    ),
    row(
        "a branch moved back or deleted by somebody",
        "between two syncs",
        "the backup is made again",
        "push::a_branch_that_was_moved_back_or_deleted_gets_the_backup_again",
    ),
    row(
        "a repository deleted and made again, of the other object format too",
        "between two syncs",
        "the backup is made again",
        "push::a_remote_made_again_gets_the_backup_again",
    ),
    row(
        "a lost volume",
        "between two syncs",
        "the next sync finds nothing to do",
        "push::a_sync_after_a_lost_volume_succeeds",
    ),
    row(
        "hooks that refuse",
        "`pre-receive` and `update`",
        "never a success, also not the second time",
        "push::a_push_that_the_server_refuses_never_succeeds",
    ),
    row(
        "another branch, remote or default branch than last time; a missing branch",
        "in the settings",
        "a checkout of its own for each",
        "sync::a_missing_branch_is_created_and_the_others_stay",
    ),
    row(
        "another folder than last time",
        "in the settings",
        "what is outside stays",
        "sync::a_sync_changes_only_its_folder",
    ),
    row(
        "a push whose answer is lost",
        "in the answer to a push",
        "the commit is found on the remote",
        "push::a_push_is_found_if_its_answer_was_lost_and_is_not_repeated",
    ),
    row(
        "a token that sees less",
        "in Windmill",
        "a warning names it",
        "sync::the_default_workspace_and_a_limited_token_are_warnings",
    ),
    row(
        "fewer items than before, or none",
        "in Windmill",
        "`mass_deletion`",
        "guards::ten_items_and_more_than_the_permitted_share_are_a_mass_deletion",
    ),
    row(
        "secrets in plain text",
        "in Windmill",
        "`plaintext_secrets`",
        "guards::an_export_with_plain_secrets_is_refused",
    ),
    row(
        "a question beside the export that fails",
        "in Windmill",
        "`pull_failed`, though `wmill` would exit with 0",
        "workspace_specific::a_failed_request_to_a_side_endpoint_fails_the_sync",
    ),
    row(
        "a flood of output, bytes that are no text, an endless line, death by a signal",
        "in place of `wmill`",
        "the message is truthful, memory bounded",
        "api::each_failure_of_wmill_is_reported_in_bounded_memory",
    ),
    row(
        "a `wmill` that hangs, ignores SIGTERM, or hangs when asked for its version",
        "in place of `wmill`",
        "`timeout`; nothing runs on",
        "api::a_wmill_that_never_ends_is_killed",
    ),
    row(
        "a `wmill` or `git` that is missing or not executable",
        "on the `PATH`",
        "it is named",
        "api::a_wmill_that_cannot_be_started_is_named",
    ),
    row(
        "a child left behind, in its group and out of it",
        "in place of `wmill`",
        "it is ended",
        "api::programs_that_wmill_leaves_running_are_killed",
    ),
    row(
        "a client that goes away",
        "during a sync",
        "the sync continues",
        "api::a_run_continues_if_its_client_disconnects",
    ),
    row(
        "many requests at once",
        "at the listener",
        "places are bounded, waiting ones share a run",
        "api::the_number_of_waiting_runs_is_limited",
    ),
    row(
        "a log that nobody reads or whose disk is full",
        "standard error",
        "the work goes on",
        "log_sink_full::a_sync_pushes_if_its_log_cannot_be_written",
    ),
    row(
        "401, 403, 404, 429, 500 of an HTTP remote",
        "in the fetch and the push",
        "each is told as what it is",
        "credentials::each_failure_of_an_http_remote_is_reported_with_its_cause",
    ),
    row(
        "refused, unresolvable",
        "in the URL of the remote",
        "`git_unreachable`",
        "credentials::an_unreachable_remote_is_reported",
    ),
    row(
        "a redirect",
        "in the remote",
        "it is named, and nothing goes there",
        "credentials::a_redirect_is_reported_and_not_followed",
    ),
    row(
        "a remote that says nothing, http and ssh",
        "after the connection",
        "`timeout` names the step",
        "credentials::a_sync_from_a_remote_that_hangs_times_out_and_names_the_step",
    ),
    row(
        "a token rotated or revoked between two runs",
        "in the file of the secret",
        "it is read again",
        "credentials::each_sync_reads_secret_files_again",
    ),
    row(
        "ignore files, attributes, hooks and configuration that would keep out or change",
        "in the repository, the user's home and the environment",
        "every byte arrives",
        "hostile::every_pulled_file_arrives_byte_for_byte_despite_git_attributes_and_configuration",
    ),
    row(
        "links and submodules that lead outside",
        "in the repository",
        "nothing outside is touched",
        "hostile::links_and_submodules_are_not_followed",
    ),
    row(
        "names that no checkout can hold",
        "in the repository",
        "the backup arrives, and a warning names them",
        "hostile::names_that_git_does_not_check_out_do_not_stop_the_backup",
    ),
    row(
        "a path that is longer than systems accept",
        "in the repository",
        "the backup arrives, the file stays, and a warning names it",
        "hostile::a_path_too_long_for_the_system_stays_and_does_not_stop_the_backup",
    ),
    row(
        "files where folders must be, and the reverse; items that `wmill` cannot read",
        "in the repository",
        "the backup arrives",
        "hostile::files_that_block_wmill_are_replaced",
    ),
];

/// Faults that a sync does not survive, and why.
const NOT_SURVIVED: &[(&str, &str)] = &[
    (
        "ssh as a user without an entry in passwd",
        "OpenSSH refuses to run (`No user exists for uid …`), and our image alone has a name for every uid",
    ),
    (
        "a git of another container that works in the same volume without our lock",
        "its process cannot be seen, so its lock file is taken for one that was left; git then fails in one of the two, and the next sync repairs the checkout",
    ),
    (
        "a `wmill` that says `Done!` about files that it wrote wrong",
        "what it wrote is what is committed; `verify` compares a second pull with the backup",
    ),
    (
        "a remote that loses commits that it has acknowledged and shown",
        "the next sync pushes what Windmill holds then; history that only the remote had is gone",
    ),
    (
        "a pack that is damaged so that its checksums fit",
        "git would have to be deceived on purpose; the remote checks what it receives",
    ),
    ("a `git read-tree` that does nothing and exits with 0", "only git knows what its index contains"),
    (
        "a disk that is full for good",
        "each sync fails, truthfully, until there is room; nothing is removed to make some",
    ),
];

const fn row(fault: &'static str, injected: &'static str, asserted: &'static str, test: &'static str) -> Scenario {
    Scenario { fault, injected, asserted, test }
}

const HEAD: &str = "# Faults\n\nMade by the fault suite of its own declarations (`just faults`); a test holds this file to them. \
    `just test-faults` runs the suite, `just test-root` the scenarios that need root. `cargo test` runs the short ones, and \
    every seventh point of the sweeps (`tests/it/faults/every_seventh.rs`).\n\n\
    After every fault of the suite, beside what its row says: what was told was true, no planted secret was in any output, \
    the remote's history had only grown, and the next healthy sync, with no hand laid on, succeeded and left on the branch \
    what the workspace holds.\n";

fn families() -> Vec<(&'static str, &'static str, &'static [Scenario])> {
    vec![
        ("Killed", "faults::", kill::SCENARIOS),
        ("Tried again, or not", "faults::", retry::SCENARIOS),
        ("The checkout", "faults::", cache::SCENARIOS),
        ("The remote", "faults::", remote::SCENARIOS),
        ("Tools", "faults::", tools::SCENARIOS),
        ("Disk and users", "faults::", as_root::SCENARIOS),
        ("Machine, answers, volume", "faults::", machine::SCENARIOS),
        ("Content", "faults::", content::SCENARIOS),
        ("Endurance", "faults::", endurance::SCENARIOS),
        ("Covered by other tests", "", ELSEWHERE),
    ]
}

fn table() -> String {
    let mut text = HEAD.to_owned();
    for (family, prefix, scenarios) in families() {
        let _ =
            write!(text, "\n## {family}\n\n| fault | where | asserted besides | test |\n| --- | --- | --- | --- |\n");
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
fn the_table_of_faults_is_what_the_suite_declares() {
    assert_kept("tests/FAULTS.md", &table(), "faults");
}

#[test]
fn each_row_names_a_test_that_is_there_and_each_test_of_the_suite_has_a_row() {
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
