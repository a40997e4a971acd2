//! A sync of nothing starts no `wmill`; and whatever changed, wherever, and whatever is in doubt, makes a sync a full one.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use windmill_git_sync::digest::{Algorithm, Digest};

use crate::bed::process::side_by_side;
use crate::bed::windmill::SHOP;
use crate::bed::*;

/// Code, message, commit and warnings: what a shortcut must tell as a full sync would.
#[track_caller]
fn told(outcome: &Outcome) -> (String, String, Option<String>, Vec<String>) {
    assert_eq!(outcome.changed(), (0, 0, 0), "{outcome}");
    (outcome.code(), outcome.message(), outcome.commit(), outcome.warnings())
}

/// Runs it; whether wmill was started to pull.
#[track_caller]
fn is_full(sandbox: &Sandbox, run: &Run<'_>, code: &str) -> (bool, Outcome) {
    let before = sandbox.windmill.exports();
    let outcome = run.run().expect(code);
    (sandbox.windmill.exports() > before, outcome)
}

#[track_caller]
fn assert_full(sandbox: &Sandbox, run: &Run<'_>, code: &str, why: &str) -> Outcome {
    let run = run.clone().env("LOG_LEVEL", "debug");
    let (is_full, outcome) = is_full(sandbox, &run, code);
    assert!(is_full, "{why}: {outcome}");
    assert!(outcome.stderr.contains(&format!("this is a full sync: {why}")), "{why}: {outcome}");
    outcome
}

#[track_caller]
fn assert_shortcut(sandbox: &Sandbox, run: &Run<'_>) -> Outcome {
    let run = run.clone().env("LOG_LEVEL", "debug");
    let (is_full, outcome) = is_full(sandbox, &run, "unchanged");
    assert!(!is_full, "{outcome}");
    assert!(outcome.stderr.contains("wmill need not be started"), "{outcome}");
    outcome
}

/// The note of the one checkout that there is.
fn note(sandbox: &Sandbox) -> PathBuf {
    let checkouts = fs::read_dir(sandbox.data().join("windmill-git-sync/checkouts")).unwrap();
    let notes: Vec<_> = checkouts.map(|entry| entry.unwrap().path().join("state.json")).collect();
    let [note] = &notes[..] else { panic!("{notes:?}") };
    note.clone()
}

/// Rewrites the note as if that had been found, its digest included.
#[track_caller]
fn rewrite(note: &PathBuf, change: impl Fn(&str) -> String) {
    let text = fs::read_to_string(note).unwrap();
    let content = text.split_once("\"note\":").unwrap().1.strip_suffix("}\n").unwrap();
    let changed = change(content);
    assert_ne!(changed, content);
    let mut digest = Digest::new(Algorithm::Sha256);
    digest.update(changed.as_bytes());
    fs::write(note, format!("{{\"digest\":\"{}\",\"note\":{changed}}}\n", digest.finish())).unwrap();
}

/// The note with another time of the last success.
fn at_another_time(content: &str, change: impl Fn(u64) -> u64) -> String {
    let (before, rest) = content.split_once("\"begun\":").unwrap();
    let (time, after) = rest.split_once(',').unwrap();
    format!("{before}\"begun\":{},{after}", change(time.parse().unwrap()))
}

/// A `wmill` that does nothing, and says that it did all.
const IDLE_WMILL: &str = "case \"$*\" in *--version*) echo 'CLI version: 9.9.9'; exit ;; esac\n\
                          echo 'remote (x) -> local: 0 changes to apply'";

/// A sandbox where pulls cost nothing: a stand-in for wmill that asks for the export, so that it is counted, and leaves
/// the folder as it is.
fn with_idle_wmill(sandbox: &Sandbox) -> BareRepository {
    let counter = sandbox.path().join("pulls");
    sandbox.program("wmill", &format!("{IDLE_WMILL}\necho >>'{}'", counter.display()));
    let remote = sandbox.repository();
    remote.commit_files("main", &[("f/x.py", "x\n")]);
    remote
}

fn idle_pulls(sandbox: &Sandbox) -> usize {
    fs::read_to_string(sandbox.path().join("pulls")).unwrap_or_default().lines().count()
}

#[test]
fn a_sync_of_nothing_starts_one_git_and_no_wmill_and_tells_what_a_full_one_would() {
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
    // The recorder is another program than the one that was there.
    sandbox.windmill.forget_requests();
    let noted = sync.run().expect("unchanged");
    let (wmills, gits) = (sandbox.invocations("wmill").len(), sandbox.invocations("git").len());
    assert!(sandbox.windmill.exports() == 1 && wmills > 0 && gits > 1, "{noted}");

    let short = assert_shortcut(&sandbox, &sync);
    assert_eq!(sandbox.invocations("wmill").len(), wmills, "{short}");
    assert_eq!(sandbox.invocations("git").len(), gits + 1, "{short}");
    assert_eq!((told(&short), short.commit()), (told(&full), tip.clone()));
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
fn each_doubt_makes_a_sync_a_full_one() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let sync = sandbox.sync().remote(&remote);
    assert_full(&sandbox, &sync, "pushed", "no earlier success is known");
    assert_shortcut(&sandbox, &sync);

    // What was asked for.
    assert_full(&sandbox, &sync.clone().arg("--force"), "unchanged", "it was asked for");
    assert_full(&sandbox, &sync.clone().env("FULL_SYNC_EVERY", "0"), "unchanged", "FULL_SYNC_EVERY has passed");
    assert_shortcut(&sandbox, &sync);
    let kinds = "a setting that shapes the backup is another";
    for (name, value, code) in
        [("WMILL_INCLUDE", "triggers,groups,users,schedules", "dry_run"), ("WMILL_SKIP", "scripts", "unchanged")]
    {
        assert_full(&sandbox, &sync.clone().env(name, value).arg("--dry-run"), code, kinds);
    }
    // Where it is not set, the repository may decide.
    let set = sync.clone().env("WMILL_INCLUDE", "schedules,triggers,groups").arg("--dry-run");
    assert_full(&sandbox, &set, "unchanged", kinds);

    // What does not matter to what was pulled.
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
    assert_full(&sandbox, &sync, "unchanged", "FULL_SYNC_EVERY has passed");
    rewrite(&file, |note| at_another_time(note, |time| time + day));
    assert_full(&sandbox, &sync, "unchanged", "the clock was set back");

    // The versions.
    sandbox.windmill.version("CE v1.491.6");
    assert_full(&sandbox, &sync, "unchanged", "Windmill is of another version");
    sandbox.program("wmill", &format!("exec '{}' \"$@\"", wmill().display()));
    assert_full(&sandbox, &sync, "unchanged", "wmill is another");
    rewrite(&file, |note| {
        note.replace(&format!("\"settings\":\"2 {}", env!("CARGO_PKG_VERSION")), "\"settings\":\"2 0.0.1")
    });
    assert_full(&sandbox, &sync, "unchanged", kinds);

    // What Windmill does not answer.
    for fault in [Fault::Status(500), Fault::Status(204), Fault::GatewayPage(200), Fault::CutHalfway, Fault::Close] {
        sandbox.windmill.fail("archive_type=tar", fault.clone());
        assert_full(&sandbox, &sync, "unchanged", "it could not be seen what Windmill holds");
        assert_full(&sandbox, &sync, "unchanged", "no earlier success is known");
        sandbox.windmill.heal();
        assert_full(&sandbox, &sync, "unchanged", "no earlier success is known");
        assert_shortcut(&sandbox, &sync);
    }

    // Without it, nothing is asked, and nothing is known afterwards.
    let probes = sandbox.windmill.probes();
    assert_full(&sandbox, &sync.clone().env("SKIP_UNCHANGED", "false"), "unchanged", "SKIP_UNCHANGED is false");
    assert_eq!(sandbox.windmill.probes(), probes);
    fs::write(&file, whole).unwrap();
    assert_full(&sandbox, &sync, "unchanged", "Windmill is of another version");
}

#[test]
fn a_damaged_note_proves_nothing() {
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
        (
            "an older form".to_owned(),
            text.replace("{\"digest\"", "{\"commit\":\"x\",\"shared_ui\":false,\"digest\"").into(),
        ),
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

    // The note of another backup, from the folder of that.
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

/// What of the requests in `reads` is not covered by those in `covers`.
///
/// Who the token is, is asked about the token and not about the workspace; see the test that says so.
fn uncovered(reads: &[LoggedRequest], covers: &[LoggedRequest]) -> Vec<String> {
    let key = |request: &LoggedRequest| match request.target.split_once("/workspaces/tarball?") {
        // The same as another kind of archive.
        Some((before, query)) => {
            let asked: BTreeSet<_> = query.split('&').filter(|one| !one.starts_with("archive_type=")).collect();
            format!("{} {before} {asked:?}", request.method)
        }
        None => format!("{} {}", request.method, request.target),
    };
    let covers: BTreeSet<_> = covers.iter().map(key).collect();
    let is_identity =
        |request: &&LoggedRequest| ["/api/users/whoami", "/api/w/shop/users/whoami"].contains(&request.target.as_str());
    let reads: BTreeSet<_> = reads.iter().filter(|request| !is_identity(request)).map(key).collect();
    reads.difference(&covers).cloned().collect()
}

#[test]
fn a_read_that_is_not_covered_is_found() {
    let request = |target: &str| LoggedRequest {
        method: "GET".to_owned(),
        target: target.to_owned(),
        authorization: None,
        authorized: true,
        is_ours: false,
    };
    let ours = [request("/api/w/shop/workspaces/tarball?archive_type=tar&a=1&b=2"), request("/api/w/shop/x")];
    let covered = |target: &str| uncovered(&[request(target)], &ours).is_empty();
    assert!(covered("/api/w/shop/workspaces/tarball?archive_type=zip&b=2&a=1") && covered("/api/w/shop/x"));
    assert!(covered("/api/w/shop/users/whoami"));
    for target in [
        "/api/w/shop/workspaces/tarball?archive_type=zip&a=1&b=3",
        "/api/w/shop/workspaces/tarball?archive_type=zip&a=1&b=2&c=3",
        "/api/w/shop/workspaces/tarball?archive_type=zip&a=1",
        "/api/w/lab/workspaces/tarball?archive_type=zip&a=1&b=2",
        "/api/w/shop/x?page=2",
        "/api/w/shop/users/list",
    ] {
        assert!(!covered(target), "{target}");
    }
}

/// What makes another version of wmill safe to take: all that it reads in a sync is read by the shortcut after it.
#[test]
fn wmill_reads_nothing_that_a_shortcut_does_not_look_at() {
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
    // A few at a time: each runs wmill.
    for cases in cases.chunks(4) {
        side_by_side(cases, |(include, skip, file)| {
            let sandbox = Sandbox::new();
            sandbox.windmill.shared_ui(Some(&[("lib/x.ts", "x\n")]));
            sandbox.windmill.ws_specific(Some(&[("variable", "f/ops/region")]));
            sandbox.windmill.file_types("{\"c_slack\":\"json\",\"x\":{\"format_extension\":null,\"is_fileset\":true}}");
            let remote = sandbox.repository();
            if !file.is_empty() {
                remote.commit_files("main", &[("wmill.yaml", file)]);
            }
            let sync = sandbox.sync().remote(&remote).env("ALLOW_PLAINTEXT_SECRETS", "true");
            let sync = sync.env("WMILL_INCLUDE", include).env("WMILL_SKIP", skip);
            let case = format!("WMILL_INCLUDE={include} WMILL_SKIP={skip} {file}");
            let requests = |codes: &[&str], ours: bool| {
                sandbox.windmill.forget_requests();
                let outcome = sync.run();
                assert!(codes.contains(&outcome.code().as_str()), "{case}: {outcome}");
                let requests = sandbox.windmill.requests();
                let (of_us, of_wmill): (Vec<_>, Vec<_>) = requests.into_iter().partition(|request| request.is_ours);
                assert_eq!(of_wmill.is_empty(), ours, "{case}: {of_wmill:?}");
                if ours { of_us } else { of_wmill }
            };
            // From nothing, upon something with changes, and upon the same.
            let mut reads = requests(&["pushed"], false);
            sandbox.windmill.edit(|workspace| workspace.add_variable("f/ops/more", "more", false));
            sandbox.windmill.edit(|workspace| workspace.add_bun_script("f/ops/more", "more"));
            sandbox
                .windmill
                .edit(|workspace| workspace.put("f/ops/folder.meta.json", "{\"owners\":[],\"display_name\":\"x\"}"));
            // What is skipped is no change.
            reads.extend(requests(&["pushed", "unchanged"], false));
            let covers = requests(&["unchanged"], true);
            assert!(covers.iter().any(|request| request.target.contains("/workspaces/tarball")), "{case}");
            assert_eq!(uncovered(&reads, &covers), [""; 0], "{case}");
        });
    }
}

#[test]
fn who_the_token_is_does_not_shape_what_wmill_writes() {
    let sandbox = Sandbox::new();
    let ours = "includeUsers: true\nincludeGroups: true\nincludeSettings: true\n";
    let as_bound_admin = pulled_alone(&sandbox, ours);
    sandbox.windmill.role(Role::Developer);
    assert_same_files(&pulled_alone(&sandbox, ours), &as_bound_admin);
    sandbox.windmill.token_kind(TokenKind::User);
    assert_same_files(&pulled_alone(&sandbox, ours), &as_bound_admin);
}

#[test]
fn whatever_is_altered_in_what_windmill_gives_is_noticed() {
    let sandbox = Sandbox::new();
    let remote = with_idle_wmill(&sandbox);
    let sync = sandbox.sync().remote(&remote);
    sync.run().expect("unchanged");
    let windmill = &sandbox.windmill;
    // Numbers without a pattern, the same in each run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut number = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    let check = |what: &str| {
        let before = idle_pulls(&sandbox);
        sync.run().expect("unchanged");
        assert_eq!(idle_pulls(&sandbox), before + 1, "{what}");
        sync.run().expect("unchanged");
        assert_eq!(idle_pulls(&sandbox), before + 1, "the same once more after {what}");
    };
    // Only those that the sync takes out: what it leaves out is not even given.
    let taken = windmill.workspace(SHOP).export(
        &[("include_schedules", "true"), ("include_triggers", "true"), ("include_groups", "true")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
    );
    for _ in 0..12 {
        let (path, mut content) = taken[number(taken.len())].clone();
        let at = number(content.len());
        content[at] ^= 1 << number(8);
        windmill.put(&path, content);
        check(&format!("byte {at} of `{path}`"));
    }
    for _ in 0..4 {
        let (path, content) = taken[number(taken.len())].clone();
        windmill.remove(&path);
        check(&format!("`{path}` gone"));
        windmill.put(&format!("{path}x"), content.clone());
        check(&format!("`{path}` under another name"));
        windmill.remove(&format!("{path}x"));
        windmill.put(&path, content);
        check(&format!("`{path}` back, at the end"));
    }
    windmill.edit(Workspace::reverse_order);
    check("another order");
    windmill.put("f/ops/empty.py", "");
    check("an empty entry");
    for body in ["{\"x\":\"y\"}", "{\"x\":\"z\"}", "{}"] {
        windmill.file_types(body);
        check("the types of files");
    }
    for items in [Some(&[][..]), Some(&[("variable", "f/ops/region")]), Some(&[("resource", "f/ops/region")]), None] {
        windmill.ws_specific(items);
        check("what is this workspace's alone");
    }
    for files in [&[("a", "b")], &[("a", "c")], &[("b", "c")]] {
        windmill.shared_ui(Some(files));
        // The stand-in for wmill does not write it, and that is noticed too.
        sandbox.sync().remote(&remote).run().expect("internal");
    }
    windmill.shared_ui(Some(&[]));
    check("an empty shared UI");
    windmill.shared_ui(None);
    check("no shared UI");
}

#[test]
fn a_change_during_a_sync_is_never_missed() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let sync = sandbox.sync().remote(&remote);
    sync.run().expect("pushed");
    let (path, before) =
        ("f/ops/job_00000.ts", sandbox.windmill.workspace(SHOP).get("f/ops/job_00000.ts").unwrap().to_vec());
    let after = b"export async function main() {\n  return 'after'\n}\n".to_vec();
    let backed_up = || remote.regular_files("main")[path].clone();

    // After we looked and before wmill does: it is backed up now, and looked at again.
    let (hooked, mut is_done) = (after.clone(), false);
    sandbox.windmill.on_export(move |workspace| {
        if !std::mem::replace(&mut is_done, true) {
            workspace.put(path, hooked.clone());
        }
    });
    sandbox.windmill.edit(|workspace| workspace.add_variable("f/ops/other", "x", false));
    sync.run().expect("pushed");
    assert_eq!(backed_up(), after);
    // And taken back, so that Windmill holds what it held when we looked, and the branch does not.
    sandbox.windmill.put(path, before.clone());
    assert_full(&sandbox, &sync, "pushed", "no earlier success is known");
    assert_eq!(backed_up(), before);
    assert_shortcut(&sandbox, &sync);

    // Seen by us and not by wmill.
    sandbox.windmill.put(path, after.clone());
    let (hooked, mut is_done) = (before.clone(), false);
    sandbox.windmill.on_export(move |workspace| {
        if !std::mem::replace(&mut is_done, true) {
            workspace.put(path, hooked.clone());
        }
    });
    assert_full(&sandbox, &sync, "unchanged", "Windmill does not hold the same");
    sandbox.windmill.put(path, after.clone());
    assert_full(&sandbox, &sync, "pushed", "no earlier success is known");
    assert_eq!(backed_up(), after);
}

#[test]
fn two_workspaces_in_one_branch_leave_each_other_the_shortcut() {
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
    // The tip is the other's.
    assert_eq!(assert_shortcut(&sandbox, &shop).commit(), remote.tip("main"));
    sandbox.windmill.put("f/ops/more.py", "def main():\n  pass\n");
    shop.run().expect("pushed");
    assert_eq!(assert_shortcut(&sandbox, &lab).commit(), remote.tip("main"));
    // A person's commit beside both.
    remote.commit_files("main", &[("README.md", "ours, edited\n"), ("backups/README.md", "both\n")]);
    for sync in [&shop, &lab] {
        assert_eq!(assert_shortcut(&sandbox, sync).commit(), remote.tip("main"));
    }
    // From now on the tip is known: it is not fetched again.
    sandbox.record("git");
    assert_shortcut(&sandbox, &shop);
    assert_eq!(sandbox.invocations("git").len(), 1);
    // And one in the folder of one of them.
    remote.commit_files("main", &[("backups/lab/README.md", "of the lab\n")]);
    assert_shortcut(&sandbox, &shop);
    let found = assert_full(&sandbox, &lab, "unchanged", "the branch does not hold the same");
    assert_eq!(found.commit(), remote.tip("main"));
    assert_shortcut(&sandbox, &lab);
    remote.commit("main").remove("backups/lab").done("gone");
    assert_full(&sandbox, &lab, "pushed", "the branch does not hold the same");
}

#[test]
fn whatever_became_of_the_branch_is_noticed() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let sync = sandbox.sync().remote(&remote);
    let first = sync.run().expect("pushed").commit().unwrap();
    sandbox.windmill.state("2-edited");
    let second = sync.run().expect("pushed").commit().unwrap();
    assert_shortcut(&sandbox, &sync);
    let edited = remote.regular_files("main");
    let other = "the branch does not hold the same";

    remote.force("main", &first);
    assert_full(&sandbox, &sync, "pushed", other);
    assert_same_values(&remote.regular_files("main"), &edited);
    // A file of a person's lies in our folder, which is the root.
    remote.commit_files("main", &[("README.md", "ours\n")]);
    assert_full(&sandbox, &sync, "unchanged", other);
    assert_shortcut(&sandbox, &sync);
    // The repository's wmill.yaml decides what is pulled.
    remote.commit_files("main", &[("wmill.yaml", "skipVariables: true\n")]);
    let narrowed = assert_full(&sandbox, &sync, "unchanged", other);
    assert_eq!(told(&assert_shortcut(&sandbox, &sync)), told(&narrowed));
    assert_eq!(narrowed.warnings().len(), 1, "{narrowed}");

    remote.run(["update-ref", "-d", "refs/heads/main"]);
    assert_full(&sandbox, &sync, "pushed", "the branch is not there");
    fs::remove_dir_all(remote.path()).unwrap();
    let remote = sandbox.repository();
    assert_full(&sandbox, &sync, "pushed", "the branch is not there");
    assert_shortcut(&sandbox, &sync);
    assert_ne!(remote.tip("main"), Some(second));
}

#[test]
fn neither_a_refusal_nor_a_failure_nor_a_dry_run_is_a_success_to_rest_on() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let sync = sandbox.sync().remote(&remote);
    let dry = sync.clone().arg("--dry-run");
    for _ in 0..2 {
        assert_full(&sandbox, &dry, "dry_run", "no earlier success is known");
    }
    assert_eq!(sandbox.windmill.probes(), 0, "what would prove nothing is not asked for");
    remote.refuse_pushes("no");
    for _ in 0..2 {
        assert_full(&sandbox, &sync, "git_rejected", "no earlier success is known");
    }
    remote.accept_pushes();
    sync.run().expect("pushed");
    let tip = remote.tip("main");
    sandbox.windmill.state("3-emptied");
    for _ in 0..2 {
        assert_full(&sandbox, &sync, "mass_deletion", "Windmill does not hold the same");
    }
    // What is refused is refused as well when it was there before.
    let key = sync.clone().env("WMILL_INCLUDE", "key");
    sandbox.windmill.state("1-seeded");
    key.clone().env("ALLOW_PLAINTEXT_SECRETS", "true").run().expect("pushed");
    assert_ne!(remote.tip("main"), tip);
    assert_shortcut(&sandbox, &key.clone().env("ALLOW_PLAINTEXT_SECRETS", "true"));
    let exports = sandbox.windmill.exports();
    key.run().expect("plaintext_secrets");
    assert_eq!(sandbox.windmill.exports(), exports);
    // Nor is a token that is none any more.
    sandbox.windmill.token("another");
    sync.run().expect("windmill_unauthorized");
}

#[test]
fn an_export_that_hangs_leaves_wmill_its_time() {
    let sandbox = Sandbox::new();
    let remote = with_idle_wmill(&sandbox);
    let sync = sandbox.sync().remote(&remote).env("SYNC_TIMEOUT", "20s").env("LOG_LEVEL", "debug");
    for fault in [Fault::Hang, Fault::HangHalfway] {
        sandbox.windmill.fail("archive_type=tar", fault);
        let before = idle_pulls(&sandbox);
        let outcome = sync.run().expect("unchanged");
        assert!(idle_pulls(&sandbox) == before + 1 && outcome.stderr.contains("cannot be seen"), "{outcome}");
        sandbox.windmill.heal();
    }
    // A service that is told to end does not wait for it either.
    sandbox.windmill.fail("archive_type=tar", Fault::Hang);
    let mut service = sandbox.service().remote(&remote).env("SHUTDOWN_GRACE", "0").serve();
    assert_eq!(service.post_sync("{\"wait\":false}").status, 202);
    sandbox.windmill.wait_until_hanging();
    assert!(service.terminate().success());
}
