//! A sync requests one export from Windmill. If nothing has changed, it starts no `wmill`. Any change and any doubt
//! makes `wmill` pull.

use std::fs;
use std::path::PathBuf;

use support::process::side_by_side;
use support::windmill::SHOP;
use support::*;

use crate::edits::{Numbers, changed};

/// Returns code, message, commit and warnings, which a shortcut must report like a full sync.
#[track_caller]
fn report(outcome: &Outcome) -> (String, String, Option<String>, Vec<String>) {
    assert_eq!(outcome.changed(), (0, 0, 0), "{outcome}");
    (outcome.code(), outcome.message(), outcome.commit(), outcome.warnings())
}

/// Runs it, and returns whether wmill was started to pull. It requests one export in either case.
#[track_caller]
fn pulls(sandbox: &Sandbox, run: &Run<'_>, code: &str) -> (bool, Outcome) {
    let before = sandbox.windmill.exports();
    let outcome = run.clone().env("LOG_LEVEL", "debug").run().expect(code);
    assert_eq!(sandbox.windmill.exports(), before + 1, "{outcome}");
    (!outcome.stderr.contains("pull skipped"), outcome)
}

#[track_caller]
fn assert_pull(sandbox: &Sandbox, run: &Run<'_>, code: &str, why: &str) -> Outcome {
    let (pulls, outcome) = pulls(sandbox, run, code);
    assert!(pulls && outcome.stderr.contains(&format!("wmill has to pull: {why}")), "{why}: {outcome}");
    outcome
}

#[track_caller]
fn assert_shortcut(sandbox: &Sandbox, run: &Run<'_>) -> Outcome {
    let (pulls, outcome) = pulls(sandbox, run, "unchanged");
    assert!(!pulls, "{outcome}");
    outcome
}

/// Returns the path of the note in the only checkout.
fn note(sandbox: &Sandbox) -> PathBuf {
    let checkouts = fs::read_dir(sandbox.data().join("windmill-git-sync/checkouts")).unwrap();
    let notes: Vec<_> = checkouts.map(|entry| entry.unwrap().path().join("state.json")).collect();
    let [note] = &notes[..] else { panic!("{notes:?}") };
    note.clone()
}

/// Rewrites the note and its digest, as if a sync had written it.
#[track_caller]
fn rewrite(note: &PathBuf, change: impl Fn(&str) -> String) {
    let text = fs::read_to_string(note).unwrap();
    let start = "{\"digest\":\"";
    let (_, rest) = text.strip_prefix(start).unwrap().split_once('"').unwrap();
    let content = [start, "\"", rest].concat();
    let changed = change(&content);
    assert_ne!(changed, content);
    fs::write(note, changed.replacen(start, &[start, &digest::sha256(&changed)].concat(), 1)).unwrap();
}

/// Returns the note with another time of the last success.
fn at_another_time(content: &str, change: impl Fn(u64) -> u64) -> String {
    let (before, rest) = content.split_once("\"begun\":").unwrap();
    let (time, after) = rest.split_once(',').unwrap();
    format!("{before}\"begun\":{},{after}", change(time.parse().unwrap()))
}

/// A `wmill` that does nothing and reports success.
const IDLE_WMILL: &str = "case \"$*\" in *--version*) echo 'CLI version: 9.9.9'; exit ;; esac\n\
                          echo 'remote (x) -> local: 0 changes to apply'";

/// What the idle wmill writes into an empty folder: the files of the remote.
const IDLE_FILES: &str = "[ -e f/x.py ] || [ -e wmill-lock.yaml ] || { mkdir f; echo x >f/x.py; \
                          printf 'version: v2\\nlocks: {}\\n' >wmill-lock.yaml; }";

/// Prepares a sandbox with cheap pulls: a stand-in for wmill counts the pulls and leaves the folder unchanged.
fn with_idle_wmill(sandbox: &Sandbox) -> BareRepository {
    let counter = sandbox.path().join("pulls");
    sandbox.program(
        "wmill",
        &format!("{}{IDLE_WMILL}\n{IDLE_FILES}\noutside \"echo >>'{}'\"", outside::function(), counter.display()),
    );
    let remote = sandbox.repository();
    // With a lock file, a narrowed pull that changes nothing is good, so each change costs one pull.
    remote.commit_files("main", &[("f/x.py", "x\n"), ("wmill-lock.yaml", "version: v2\nlocks: {}\n")]);
    remote
}

fn idle_pulls(sandbox: &Sandbox) -> usize {
    fs::read_to_string(sandbox.path().join("pulls")).unwrap_or_default().lines().count()
}

#[test]
fn an_unchanged_sync_starts_one_git_and_no_wmill_and_reports_like_a_full_one() {
    let sandbox = Sandbox::new();
    sandbox.windmill.role(Role::Developer);
    sandbox.windmill.shared_ui(Some(&[("lib/x.ts", "x\n")]));
    let remote = sandbox.repository();
    remote.commit_files("main", &[("wmill.yaml", "skipSecrets: true\nplainSecrets: true\n")]);
    let sync = sandbox.sync().remote(&remote).without("WINDMILL_WORKSPACE");
    sandbox.windmill.set("admins", sandbox.windmill.workspace(SHOP));
    sandbox.windmill.token_kind(TokenKind::User);
    let pushed = sync.run().expect("pushed");
    let tip = remote.tip("main");
    let full = sync.clone().arg("--force").run().expect("unchanged");

    sandbox.record("wmill");
    sandbox.record("git");
    // The recorder is another program than the earlier `wmill`, so this sync pulls.
    sandbox.windmill.forget_requests();
    let noted = sync.run().expect("unchanged");
    let (wmills, gits) = (sandbox.invocations("wmill").len(), sandbox.invocations("git").len());
    assert!(sandbox.windmill.exports() == 1 && wmills > 0 && gits > 1, "{noted}");

    let short = assert_shortcut(&sandbox, &sync);
    assert_eq!(sandbox.invocations("wmill").len(), wmills, "{short}");
    assert_eq!(sandbox.invocations("git").len(), gits + 1, "{short}");
    assert_eq!((report(&short), short.commit()), (report(&full), tip.clone()));
    assert_eq!(short.warnings(), pushed.warnings());
    assert_eq!(short.warnings().len(), 4, "{short}");
    let service = sandbox.service().remote(&remote).without("WINDMILL_WORKSPACE").serve();
    let answer = service.post_sync("");
    assert_eq!(run::text_field(&answer.json(), "code").as_deref(), Some("unchanged"));
    let metrics = service.get("/metrics").text();
    for (step, count) in [("fetch", 1), ("probe", 1), ("pull", 0), ("commit", 0), ("push", 0)] {
        let line = format!("step_duration_seconds_count{{step=\"{step}\"}} {count}\n");
        assert!(metrics.contains(&line), "{line} in {metrics}");
    }
    assert_eq!(remote.tip("main"), tip);
}

#[test]
#[ignore = "long: just test-long"]
fn each_changed_condition_causes_a_full_sync() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let sync = sandbox.sync().remote(&remote);
    assert_pull(&sandbox, &sync, "pushed", "no earlier success is known");
    assert_shortcut(&sandbox, &sync);

    // A full sync on request.
    assert_pull(&sandbox, &sync.clone().arg("--force"), "unchanged", "it was asked for");
    assert_pull(&sandbox, &sync.clone().env("FULL_SYNC_EVERY", "0"), "unchanged", "FULL_SYNC_EVERY has passed");
    assert_shortcut(&sandbox, &sync);
    let kinds = "a setting that shapes the backup changed";
    for (name, value, code) in
        [("WMILL_INCLUDE", "triggers,groups,users,schedules", "dry_run"), ("WMILL_SKIP", "scripts", "unchanged")]
    {
        assert_pull(&sandbox, &sync.clone().env(name, value).arg("--dry-run"), code, kinds);
    }
    // Without the setting, the repository may decide, so the same value as a setting counts as a change.
    let set = sync.clone().env("WMILL_INCLUDE", "schedules,triggers,groups").arg("--dry-run");
    assert_pull(&sandbox, &set, "unchanged", kinds);

    // Settings that do not affect what is pulled.
    for (name, value) in [
        ("ALLOW_PLAINTEXT_SECRETS", "true"),
        ("MAX_DELETIONS_PERCENT", "1"),
        ("COMMIT_MESSAGE", "another"),
        ("GIT_USER_NAME", "Another"),
        ("FULL_SYNC_EVERY", "12h"),
    ] {
        assert_shortcut(&sandbox, &sync.clone().env(name, value));
    }
    assert_shortcut(&sandbox, &sync.clone().arg("--allow-mass-deletion"));
    assert_shortcut(&sandbox, &sync.clone().arg("--dry-run"));

    // The clock.
    let file = note(&sandbox);
    let whole = fs::read(&file).unwrap();
    let day = 24 * 60 * 60;
    rewrite(&file, |note| at_another_time(note, |time| time - day + 300));
    assert_shortcut(&sandbox, &sync);
    rewrite(&file, |note| at_another_time(note, |time| time - 300));
    assert_pull(&sandbox, &sync, "unchanged", "FULL_SYNC_EVERY has passed");
    rewrite(&file, |note| at_another_time(note, |time| time + day));
    assert_pull(&sandbox, &sync, "unchanged", "the clock was set back");

    // The versions.
    sandbox.windmill.version("CE v1.491.6");
    assert_pull(&sandbox, &sync, "unchanged", "the version of Windmill changed");
    sandbox.program("wmill", &format!("exec '{}' \"$@\"", wmill().display()));
    assert_pull(&sandbox, &sync, "unchanged", "the version of wmill changed");
    rewrite(&file, |note| note.replace(&format!(" {} shop ", env!("CARGO_PKG_VERSION")), " 0.0.1 shop "));
    assert_pull(&sandbox, &sync, "unchanged", kinds);

    // A failed request to Windmill does not make the sync forget what it knows.
    for (fault, code) in [
        (Fault::Status(403), "pull_failed"),
        (Fault::Status(204), "pull_failed"),
        (Fault::GatewayPage(200), "pull_failed"),
        (Fault::CutHalfway, "pull_failed"),
    ] {
        sandbox.windmill.fail("archive_type=tar", fault);
        sync.run().expect(code);
        sandbox.windmill.heal();
        assert_shortcut(&sandbox, &sync);
    }

    assert_pull(&sandbox, &sync.clone().env("SKIP_UNCHANGED", "false"), "unchanged", "SKIP_UNCHANGED is false");
    assert_shortcut(&sandbox, &sync);
    fs::write(&file, whole).unwrap();
    assert_pull(&sandbox, &sync, "unchanged", "the version of Windmill changed");
}

#[test]
fn a_state_of_version_0_1_0_causes_one_full_sync() {
    let sandbox = Sandbox::new();
    let remote = with_idle_wmill(&sandbox);
    let sync = sandbox.sync().remote(&remote);
    let first = sync.run().expect("unchanged");
    let file = note(&sandbox);
    rewrite(&file, |_| {
        let proof = "{\"begun\":1,\"settings\":\"2 0.1.0\",\"wmill\":\"w\",\"windmill\":null,\"query\":\"q\",\"seen\":\"s\",\
                     \"key\":null,\"tree\":\"t\",\"warnings\":[]}";
        format!("{{\"commit\":\"{}\",\"shared_ui\":false,\"proof\":{proof}}}", first.commit().unwrap())
    });
    let upgraded = assert_pull(&sandbox, &sync, "unchanged", "no earlier success is known");
    assert_eq!(report(&upgraded), report(&first));
    assert_shortcut(&sandbox, &sync);
}

#[test]
#[ignore = "long: just test-long"]
fn a_damaged_note_causes_a_full_sync() {
    let sandbox = Sandbox::new();
    let remote = with_idle_wmill(&sandbox);
    let sync = sandbox.sync().remote(&remote);
    sync.run().expect("unchanged");
    let file = note(&sandbox);
    let whole = fs::read(&file).unwrap();
    let text = String::from_utf8(whole.clone()).unwrap();
    let mut damaged: Vec<(String, Vec<u8>)> = vec![
        ("empty".to_owned(), Vec::new()),
        ("no JSON".to_owned(), b"no JSON\n".to_vec()),
        ("no UTF-8".to_owned(), [whole.as_slice(), b"\xff"].concat()),
        ("huge".to_owned(), [whole.as_slice(), &vec![b' '; 64 << 20]].concat()),
        ("twice".to_owned(), [whole.as_slice(), &whole].concat()),
        ("an older form".to_owned(), format!("{{\"digest\":\"{}\",\"note\":{text}}}\n", digest::sha256(&text)).into()),
    ];
    for part in 1..8 {
        damaged.push((format!("cut at {part}/8"), whole[..whole.len() * part / 8].to_vec()));
        let mut flipped = whole.clone();
        flipped[whole.len() * part / 8] ^= 1;
        damaged.push((format!("flipped at {part}/8"), flipped));
    }
    for (what, content) in damaged {
        fs::write(&file, content).unwrap();
        let before = idle_pulls(&sandbox);
        sync.run().expect("unchanged");
        assert_eq!(idle_pulls(&sandbox), before + 1, "{what}");
        assert_eq!((sync.run().expect("unchanged").commit(), idle_pulls(&sandbox)), (remote.tip("main"), before + 1));
    }

    // This note is that of another backup, copied from its folder.
    let other = sandbox.sync().remote(&remote).branch("other");
    remote.commit_files("other", &[("f/x.py", "another\n")]);
    other.run().expect("unchanged");
    let checkouts = fs::read_dir(file.parent().unwrap().parent().unwrap()).unwrap();
    let others: Vec<_> = checkouts.map(|entry| entry.unwrap().path().join("state.json")).collect();
    let theirs = others.iter().find(|path| **path != file).unwrap();
    fs::copy(theirs, &file).unwrap();
    let before = idle_pulls(&sandbox);
    sync.run().expect("unchanged");
    assert_eq!(idle_pulls(&sandbox), before + 1);
}

/// Shows that another version of wmill is safe to use: the snapshot answers everything that it asks, and it asks no
/// other server. A question without an answer fails the pull.
#[test]
#[ignore = "long: just test-long"]
fn the_snapshot_answers_every_request_of_wmill() {
    let no_file = "";
    let mut cases = vec![
        ("", "", no_file),
        ("none", "none", no_file),
        ("schedules,triggers,users,groups,settings,key", "", no_file),
        ("", "secrets,variables,resources,resource-types,scripts,flows,apps,folders", no_file),
        ("", "", "defaultTs: deno\nnonDottedPaths: true\ndedupeLockfiles: true\nsyncBehavior: v1\n"),
        ("", "", "skipWorkspaceDependencies: true\nskipDatatableMigrations: true\nincludeUsers: true\n"),
        ("", "", "includes: ['f/ops/**']\nexcludes: ['**/*.go']\nextraIncludes: ['f/**']\nskipFlows: true\n"),
    ];
    for include in ["schedules", "triggers", "users", "groups", "settings", "key"] {
        cases.push((include, "", no_file));
    }
    for skip in ["secrets", "variables", "resources", "resource-types", "scripts", "flows", "apps", "folders"] {
        cases.push(("", skip, no_file));
    }
    // Only a few at a time, because each runs wmill.
    for cases in cases.chunks(4) {
        side_by_side(cases, |(include, skip, file)| {
            let sandbox = Sandbox::new();
            sandbox.windmill.shared_ui(Some(&[("lib/x.ts", "x\n")]));
            sandbox.windmill.ws_specific(Some(&[("variable", "f/ops/region")]));
            sandbox.windmill.file_types("{\"c_slack\":{\"format_extension\":\"json\",\"is_fileset\":false}}");
            let remote = sandbox.repository();
            if !file.is_empty() {
                remote.commit_files("main", &[("wmill.yaml", file)]);
            }
            let sync = sandbox.sync().remote(&remote).env("ALLOW_PLAINTEXT_SECRETS", "true");
            let sync = sync.env("WMILL_INCLUDE", include).env("WMILL_SKIP", skip);
            let case = format!("WMILL_INCLUDE={include} WMILL_SKIP={skip} {file}");
            let pull = |codes: &[&str]| {
                sandbox.windmill.forget_requests();
                let outcome = sync.run();
                assert!(codes.contains(&outcome.code().as_str()), "{case}: {outcome}");
                let requests = sandbox.windmill.requests();
                let of_wmill: Vec<_> = requests.iter().filter(|request| !request.is_ours).collect();
                assert!(of_wmill.is_empty() && sandbox.windmill.exports() == 1, "{case}: {requests:?}");
            };
            // The first pull starts from nothing, the second has changes, the third has none.
            pull(&["pushed"]);
            sandbox.windmill.edit(|workspace| workspace.add_variable("f/ops/more", "more", false));
            sandbox.windmill.edit(|workspace| workspace.add_bun_script("f/ops/more", "more"));
            sandbox
                .windmill
                .edit(|workspace| workspace.put("f/ops/folder.meta.json", "{\"owners\":[],\"display_name\":\"x\"}"));
            // A change in a skipped kind is no change.
            pull(&["pushed", "unchanged"]);
            pull(&["unchanged"]);
        });
    }
}

#[test]
fn the_role_and_kind_of_the_token_do_not_change_the_files() {
    let sandbox = Sandbox::new();
    let ours = "includeUsers: true\nincludeGroups: true\nincludeSettings: true\n";
    let as_bound_admin = pulled_alone(&sandbox, ours);
    sandbox.windmill.role(Role::Developer);
    assert_same_files(&pulled_alone(&sandbox, ours), &as_bound_admin);
    sandbox.windmill.token_kind(TokenKind::User);
    assert_same_files(&pulled_alone(&sandbox, ours), &as_bound_admin);
}

#[test]
#[ignore = "long: just test-long"]
fn each_change_in_the_answers_of_windmill_is_noticed_and_a_new_order_is_ignored() {
    let sandbox = Sandbox::new();
    sandbox.windmill.state("rich");
    let remote = with_idle_wmill(&sandbox);
    let sync = sandbox.sync().remote(&remote);
    sync.run().expect("unchanged");
    let windmill = &sandbox.windmill;
    let mut numbers = Numbers::new(1);
    // The stand-in gives entries and maps in another order and with other times in each answer.
    let is_known = |what: &str| {
        let before = idle_pulls(&sandbox);
        sync.run().expect("unchanged");
        assert_eq!(idle_pulls(&sandbox), before, "{what}");
    };
    let check = |what: &str| {
        let before = idle_pulls(&sandbox);
        sync.run().expect("unchanged");
        assert_eq!(idle_pulls(&sandbox), before + 1, "{what}");
        is_known(&format!("the same once more after {what}"));
    };
    for _ in 0..5 {
        is_known("another order");
    }
    // These are only the entries that the sync requests. Windmill does not even send the others.
    let taken = windmill.workspace(SHOP).export(
        &[("include_schedules", "true"), ("include_triggers", "true"), ("include_groups", "true")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
    );
    for _ in 0..24 {
        let (path, content) = taken[numbers.below(taken.len())].clone();
        let other = changed(&path, &content, &mut numbers);
        windmill.put(&path, other.clone());
        check(&format!("`{path}` became {}", String::from_utf8_lossy(&other)));
    }
    for _ in 0..4 {
        let (path, content) = taken[numbers.below(taken.len())].clone();
        windmill.remove(&path);
        check(&format!("`{path}` gone"));
        let other = format!("f/ops/{}", path.replace('/', "_"));
        windmill.put(&other, "{}");
        check(&format!("`{path}` under another name"));
        windmill.remove(&other);
        windmill.put(&path, content);
        check(&format!("`{path}` back, at the end"));
    }
    windmill.edit(Workspace::reverse_order);
    is_known("another order of entries");
    windmill.put("f/ops/empty.py", "");
    check("an empty entry");
    for body in ["{\"x\":\"y\"}", "{\"x\":\"z\"}", "{}"] {
        windmill.file_types(body);
        check("the types of files");
    }
    for items in [Some(&[][..]), Some(&[("variable", "f/ops/region")]), Some(&[("resource", "f/ops/region")])] {
        windmill.ws_specific(items);
        check("what is this workspace's alone");
    }
    for files in [&[("a", "b")], &[("a", "c")], &[("b", "c")]] {
        windmill.shared_ui(Some(files));
        check("the shared UI");
    }
    windmill.shared_ui(None);
    check("no shared UI");
}

#[test]
#[ignore = "long: just test-long"]
fn a_change_during_a_sync_is_not_missed() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let sync = sandbox.sync().remote(&remote);
    sync.run().expect("pushed");
    let path = "f/ops/job_00000.ts";
    let before = sandbox.windmill.workspace(SHOP).get(path).unwrap().to_vec();
    let after = b"export async function main() {\n  return 'after'\n}\n".to_vec();
    let backed_up = || remote.regular_files("main")[path].clone();

    // The digest is made of what is read: a change during the export is backed up now, and its reversal is noticed.
    let (hooked, mut is_done) = (after.clone(), false);
    sandbox.windmill.on_export(move |workspace| {
        if !std::mem::replace(&mut is_done, true) {
            workspace.put(path, hooked.clone());
        }
    });
    sync.run().expect("pushed");
    assert_eq!(backed_up(), after);
    sandbox.windmill.put(path, before.clone());
    assert_pull(&sandbox, &sync, "pushed", "the content of Windmill changed");
    assert_eq!(backed_up(), before);
    assert_shortcut(&sandbox, &sync);
}

#[test]
#[ignore = "long: just test-long"]
fn two_workspaces_in_one_branch_both_skip_unchanged_syncs() {
    let sandbox = Sandbox::new();
    sandbox.windmill.token_kind(TokenKind::User);
    sandbox.windmill.set("lab", Workspace::of_scripts(2));
    let remote = sandbox.repository();
    remote.commit_files("main", &[("README.md", "ours\n")]);
    let of =
        |workspace: &str| sandbox.sync().remote(&remote).workspace(workspace).subdir(&format!("backups/{workspace}"));
    let (shop, lab) = (of(SHOP), of("lab"));
    shop.run().expect("pushed");
    lab.run().expect("pushed");
    // The tip is the commit of the other workspace.
    assert_eq!(assert_shortcut(&sandbox, &shop).commit(), remote.tip("main"));
    sandbox.windmill.put("f/ops/more.py", "def main():\n  pass\n");
    shop.run().expect("pushed");
    assert_eq!(assert_shortcut(&sandbox, &lab).commit(), remote.tip("main"));
    // A person commits outside both folders.
    remote.commit_files("main", &[("README.md", "ours, edited\n"), ("backups/README.md", "both\n")]);
    for sync in [&shop, &lab] {
        assert_eq!(assert_shortcut(&sandbox, sync).commit(), remote.tip("main"));
    }
    // From now on the tip is known, so it is not fetched again.
    sandbox.record("git");
    assert_shortcut(&sandbox, &shop);
    assert_eq!(sandbox.invocations("git").len(), 1);
    // A person commits in the folder of one of them.
    remote.commit_files("main", &[("backups/lab/README.md", "of the lab\n")]);
    assert_shortcut(&sandbox, &shop);
    let found = assert_pull(&sandbox, &lab, "unchanged", "the content of the branch changed");
    assert_eq!(found.commit(), remote.tip("main"));
    assert_shortcut(&sandbox, &lab);
    remote.commit("main").remove("backups/lab").done("gone");
    assert_pull(&sandbox, &lab, "pushed", "the content of the branch changed");
}

#[test]
#[ignore = "long: just test-long"]
fn every_change_of_the_branch_is_noticed() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let sync = sandbox.sync().remote(&remote);
    let first = sync.run().expect("pushed").commit().unwrap();
    sandbox.windmill.state("2-edited");
    let second = sync.run().expect("pushed").commit().unwrap();
    assert_shortcut(&sandbox, &sync);
    let edited = remote.regular_files("main");
    let other = "the content of the branch changed";

    remote.force("main", &first);
    assert_pull(&sandbox, &sync, "pushed", other);
    assert_same_values(&remote.regular_files("main"), &edited);
    // A person's file is in our folder, which is the root.
    remote.commit_files("main", &[("README.md", "ours\n")]);
    assert_pull(&sandbox, &sync, "unchanged", other);
    assert_shortcut(&sandbox, &sync);
    // The repository's wmill.yaml decides what is pulled.
    remote.commit_files("main", &[("wmill.yaml", "skipVariables: true\n")]);
    let narrowed = assert_pull(&sandbox, &sync, "unchanged", other);
    assert_eq!(report(&assert_shortcut(&sandbox, &sync)), report(&narrowed));
    assert_eq!(narrowed.warnings().len(), 1, "{narrowed}");

    remote.run(["update-ref", "-d", "refs/heads/main"]);
    assert_pull(&sandbox, &sync, "pushed", "the branch is not there");
    fs::remove_dir_all(remote.path()).unwrap();
    let remote = sandbox.repository();
    assert_pull(&sandbox, &sync, "pushed", "the branch is not there");
    assert_shortcut(&sandbox, &sync);
    assert_ne!(remote.tip("main"), Some(second));
}

#[test]
#[ignore = "long: just test-long"]
fn refusals_failures_and_dry_runs_do_not_count_as_the_last_success() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let sync = sandbox.sync().remote(&remote);
    let dry = sync.clone().arg("--dry-run");
    for _ in 0..2 {
        assert_pull(&sandbox, &dry, "dry_run", "no earlier success is known");
    }
    remote.refuse_pushes("no");
    for _ in 0..2 {
        assert_pull(&sandbox, &sync, "git_rejected", "no earlier success is known");
    }
    remote.accept_pushes();
    sync.run().expect("pushed");
    let tip = remote.tip("main");
    sandbox.windmill.state("3-emptied");
    for _ in 0..2 {
        assert_pull(&sandbox, &sync, "mass_deletion", "the content of Windmill changed");
    }
    // A kind that is refused stays refused if an earlier backup contains it.
    let key = sync.clone().env("WMILL_INCLUDE", "key");
    sandbox.windmill.state("1-seeded");
    key.clone().env("ALLOW_PLAINTEXT_SECRETS", "true").run().expect("pushed");
    assert_ne!(remote.tip("main"), tip);
    assert_shortcut(&sandbox, &key.clone().env("ALLOW_PLAINTEXT_SECRETS", "true"));
    let exports = sandbox.windmill.exports();
    key.run().expect("plaintext_secrets");
    assert_eq!(sandbox.windmill.exports(), exports);
    // A token that is no longer valid is refused too.
    sandbox.windmill.token("another");
    sync.run().expect("windmill_unauthorized");
}

#[test]
fn a_hanging_export_ends_with_the_run() {
    let sandbox = Sandbox::new();
    let remote = with_idle_wmill(&sandbox);
    let sync = sandbox.sync().remote(&remote).env("SYNC_TIMEOUT", "6s");
    for fault in [Fault::Hang, Fault::HangHalfway] {
        sandbox.windmill.fail("archive_type=tar", fault);
        sync.run().expect("timeout");
        sandbox.windmill.heal();
    }
    assert_eq!(idle_pulls(&sandbox), 0);
    // A service that is asked to end does not wait for it either.
    sandbox.windmill.fail("archive_type=tar", Fault::Hang);
    let mut service = sandbox.service().remote(&remote).env("SHUTDOWN_GRACE", "0").serve();
    assert_eq!(service.post_sync("{\"wait\":false}").status, 202);
    sandbox.windmill.wait_until_hanging();
    assert!(service.terminate().success());
}
