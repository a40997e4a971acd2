//! A demonstration of the main job: `cargo run --example demo`.
//!
//! Our own binary, the real `wmill` and the real `git` back up a Windmill workspace into a repository. Only Windmill
//! itself is a stand-in, which replays the recorded answers of a real one. The exit code is 0 only if every check
//! succeeded.
#![allow(clippy::print_stdout, reason = "a demo prints")]

use support::windmill::SHOP;
use support::{BareRepository, Outcome, Run, Sandbox};

/// A file that a person put into the repository before the first backup.
const README: &str = "# Our backups\n\nThis file is ours, not Windmill's.\n";

fn main() {
    chapter("What it takes: our binary, wmill, git, a Windmill, a repository");
    say("The first time, npm fetches wmill as tests/wmill/package-lock.json pins it (some 50 MB, kept in target/).");
    show("wmill", &support::wmill().display().to_string());
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let ours = remote.commit_files("main", &[("README.md", README)]);
    show("Windmill", &format!("{} with workspace `{SHOP}`, served from recorded answers", sandbox.windmill.base_url()));
    show("repository", &format!("{} with one commit of a person's, README.md", remote.path().display()));

    chapter("A first sync takes the whole workspace to the repository");
    let sync = sandbox.sync().real_wmill().workspace(SHOP).remote(&remote);
    let first = result(&sync, "pushed");
    assert_eq!(first.commit(), remote.tip("main"), "the commit that it names is the branch's tip");
    git(&remote, &["log", "--format=%h %an: %s", "main"]);
    git(&remote, &["show", "--stat=100", "--format=%B", "main"]);
    assert!(remote.is_ancestor(&ours, "main"), "history only grows");

    chapter("Nothing changed: nothing is committed");
    let again = result(&sync, "unchanged");
    assert_eq!(again.commit(), first.commit(), "no new commit");

    chapter("Somebody edits, adds and deletes in Windmill; now the running service is asked, over HTTP");
    sandbox.windmill.state("2-edited");
    let edited = over_http(&sandbox, &remote);
    assert!(edited.contains(r#""code":"pushed""#), "{edited}");
    git(&remote, &["show", "--stat=100", "--format=%B", "main"]);
    let tip = remote.tip("main");

    chapter("The workspace turns up empty: a mass deletion is refused, and nothing is committed");
    sandbox.windmill.state("3-emptied");
    let refused = result(&sync, "mass_deletion");
    assert_eq!(refused.exit_code, Some(12), "the exit code of a guard");
    assert_eq!(remote.tip("main"), tip, "the branch stays where it was");

    chapter("What the remote holds now");
    git(&remote, &["log", "--format=%h %an: %s", "main"]);
    git(&remote, &["ls-tree", "-r", "--name-only", "main"]);
    git(&remote, &["show", "main:README.md"]);
    assert_eq!(remote.log("main").len(), 3, "a person's commit and two of ours");
    assert_eq!(remote.regular_files("main")["README.md"], README.as_bytes(), "files that are not Windmill's stay");
    remote.assert_sound();
    println!("\nAll was as promised.");
}

fn chapter(title: &str) {
    println!("\n== {title}\n");
}

fn say(text: &str) {
    println!("   {text}");
}

fn show(what: &str, text: &str) {
    println!("   {what:<11} {text}");
}

/// Prints a command as typed, and its output.
fn typed(command: &str, printed: &str) {
    println!("   $ {command}");
    for line in printed.trim_end().lines() {
        println!("{}", format!("   {line}").trim_end());
    }
    println!();
}

/// Runs `sync` and shows its result, which must have this code.
fn result(sync: &Run<'_>, code: &str) -> Outcome {
    let outcome = sync.run().expect(code);
    typed("windmill-git-sync sync", &outcome.stdout);
    outcome
}

fn git(remote: &BareRepository, arguments: &[&str]) {
    let words: Vec<_> = arguments
        .iter()
        .map(|word| if word.contains(' ') { format!("'{word}'") } else { (*word).to_owned() })
        .collect();
    typed(&format!("git {}", words.join(" ")), &remote.run(arguments).stdout_text());
}

/// Starts the service, checks its health, asks for a sync, and ends it as `docker stop` does. Returns the answer to the
/// sync.
fn over_http(sandbox: &Sandbox, remote: &BareRepository) -> String {
    let mut service = sandbox.service().workspace(SHOP).remote(remote).serve();
    let health = service.get("/health");
    assert_eq!(health.status, 200, "the service is healthy");
    typed(&format!("curl {}/health", service.base_url()), &health.text());
    let synced = service.post_sync("");
    assert_eq!(synced.status, 200, "{}", synced.text());
    typed(&format!("curl -X POST {}/sync", service.base_url()), &synced.text());
    assert!(service.terminate().success(), "it ends in peace");
    synced.text()
}
