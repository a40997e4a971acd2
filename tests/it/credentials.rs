//! Tokens and keys: a valid one is accepted, a wrong one is reported as such, and each is sent only to its own server.

use std::fs;
use std::net::TcpListener;

use support::git_http::basic;
use support::process::find_program;
use support::windmill::SHOP;
use support::*;

/// Returns a sync to this URL, with a token for it.
fn sync_to<'a>(sandbox: &'a Sandbox, url: &str) -> Run<'a> {
    sandbox.sync().workspace(SHOP).env("GIT_REMOTE_URL", url).env("GIT_TOKEN", GIT_TOKEN)
}

#[track_caller]
fn assert_says(outcome: &Outcome, needles: &[&str]) {
    for needle in needles {
        assert!(outcome.message().contains(needle), "no `{needle}`: {outcome}");
    }
    assert_nothing_leaked(&outcome.texts(), &[], &[GIT_TOKEN, WINDMILL_TOKEN]);
}

// Git over HTTP.

#[test]
fn an_http_remote_accepts_the_token_with_the_configured_user() {
    let sandbox = Sandbox::replayed();
    let remote = GitHttp::serve(&sandbox.repository());
    let run = sandbox.sync().workspace(SHOP).remote(&remote);
    run.run().expect("pushed");
    assert!(remote.requests().iter().all(|request| request.authorized), "it is sent without being asked for");
    remote.forget_requests();
    let without = run.clone().without("GIT_USERNAME").run().expect("git_unauthorized");
    assert_says(&without, &["credentials", &remote.url()]);
    let wanted = basic("x-access-token", GIT_TOKEN);
    assert!(remote.requests().iter().all(|request| request.authorization.as_deref() == Some(&wanted)));
    assert_eq!(without.exit_code, Some(11), "{without}");
    // A missing token is reported before anything else is done.
    let none = run.clone().without("GIT_TOKEN").run().expect("config_invalid");
    assert_eq!(none.exit_code, Some(2), "{none}");
    assert_says(&none, &["GIT_TOKEN"]);
}

#[test]
fn each_failure_of_an_http_remote_is_reported_with_its_cause() {
    let sandbox = Sandbox::replayed();
    let repository = sandbox.repository();
    let remote = GitHttp::serve(&repository);
    let run = sandbox.sync().workspace(SHOP).remote(&remote);
    remote.token("rotated");
    assert_says(&run.run().expect("git_unauthorized"), &["credentials", &remote.url()]);
    remote.token(GIT_TOKEN);
    let faults = [
        (Fault::Status(403), "git_unauthorized", "403"),
        (Fault::Status(404), "git_failed", "no such repository"),
        (Fault::Status(500), "git_unreachable", "500"),
        (Fault::Status(429), "git_unreachable", "429"),
        (Fault::GatewayPage(502), "git_unreachable", "502"),
        (Fault::Close, "git_unreachable", "mpty reply"),
        (Fault::Answer(200, "text/html", "<html>\n<p>Please log in\n</html>\n".to_owned()), "git_failed", "not valid"),
    ];
    // Some faults also occur when reading is permitted and pushing is not. (After a 404 git would try WebDAV.)
    let of_pushes = faults[..4].iter().filter(|(.., said)| !said.contains("repository"));
    let cases: Vec<_> = faults
        .iter()
        .map(|(fault, code, said)| ("info/refs", fault, *code, vec![*said, "cannot"]))
        .chain(of_pushes.map(|(fault, code, _)| ("service=git-receive-pack", fault, *code, vec!["cannot push"])))
        .collect();
    side_by_side(&cases, |(needle, fault, code, said)| {
        let sandbox = Sandbox::replayed();
        let repository = sandbox.repository();
        let remote = GitHttp::serve(&repository);
        remote.fail(needle, (*fault).clone());
        let outcome = sandbox.sync().workspace(SHOP).remote(&remote).run().expect(code);
        assert_eq!(outcome.exit_code, Some(11), "{outcome}");
        assert_says(&outcome, &[&said[..], &[&remote.url()]].concat());
        assert_eq!(repository.refs(), "");
    });
    run.run().expect("pushed");
}

#[test]
fn an_unreachable_remote_is_reported() {
    let sandbox = Sandbox::new();
    let unresolvable = sync_to(&sandbox, "http://no-such-host.invalid/x.git").run().expect("git_unreachable");
    assert_says(&unresolvable, &["no-such-host.invalid"]);
    let refused = sync_to(&sandbox, "http://127.0.0.1:1/x.git").run().expect("git_unreachable");
    assert_says(&refused, &["http://127.0.0.1:1/x.git"]);
    assert_eq!(refused.exit_code, Some(11), "{refused}");
}

#[test]
fn a_redirect_is_reported_and_not_followed() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let remote = GitHttp::serve(&repository);
    let collector = GitHttp::serve(&repository);
    collector.open_to_all();
    let run = sandbox.sync().workspace(SHOP).remote(&remote);
    for needle in ["service=git-upload-pack", "service=git-receive-pack"] {
        remote.fail(needle, Fault::Redirect(collector.base()));
        let outcome = run.run().expect("git_failed");
        assert_says(&outcome, &["redirect", "cannot"]);
        if needle.contains("upload") {
            assert_says(&outcome, &[&collector.url(), "GIT_REMOTE_URL"]);
        }
        remote.heal();
    }
    // The target of the redirect is text from another party.
    remote.fail("info/refs", Fault::Redirect("http://u:hidden-in-the-target@h".to_owned()));
    assert!(!run.run().expect("git_failed").message().contains("hidden-in-the-target"));
    assert_eq!(collector.requests().len(), 0, "not even a question without the token");
    assert_eq!(repository.refs(), "");
}

#[test]
fn a_sync_from_a_remote_that_hangs_times_out_and_names_the_step() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let remote = GitHttp::serve(&repository);
    let run = sandbox.sync().workspace(SHOP).remote(&remote);
    for (needle, step) in [("service=git-upload-pack", "fetch"), ("service=git-receive-pack", "push")] {
        remote.fail(needle, Fault::Hang);
        let outcome = run.time_out_in(step);
        assert_says(&outcome, &["SYNC_TIMEOUT"]);
        assert_eq!(outcome.exit_code, Some(13), "{outcome}");
        remote.heal();
    }
    // This listener never sends anything, for ssh.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_ssh = sandbox
        .sync()
        .workspace(SHOP)
        .env("GIT_REMOTE_URL", &format!("ssh://git@{}/x.git", silent.local_addr().unwrap()))
        .env("GIT_SSH_KEY", "no key")
        .env("GIT_SSH_ACCEPT_NEW", "true")
        .time_out_in("fetch");
    assert_says(&silent_ssh, &["SYNC_TIMEOUT"]);
    run.run().expect("pushed");
}

// Secrets from files.

#[test]
fn each_sync_reads_secret_files_again() {
    let sandbox = Sandbox::replayed();
    let repository = sandbox.repository();
    let remote = GitHttp::serve(&repository);
    let windmill_token = sandbox.file("windmill-token", format!("{WINDMILL_TOKEN}\n"));
    let git_token = sandbox.file("git-token", format!("  {GIT_TOKEN}\r\n"));
    let run = sandbox
        .service()
        .workspace(SHOP)
        .remote(&remote)
        .without("WINDMILL_TOKEN")
        .without("GIT_TOKEN")
        .env("WINDMILL_TOKEN_FILE", &windmill_token.display().to_string())
        .env("GIT_TOKEN_FILE", &git_token.display().to_string());
    let service = run.serve();
    let sync = |status: u16, code: &str| {
        let answer = service.post_sync("");
        let answered = run::text_field(&answer.json(), "code");
        assert_eq!((answer.status, answered.as_deref()), (status, Some(code)), "{}", answer.text());
        answer.text()
    };
    sync(200, "pushed");
    remote.token("the-next-git-token");
    sync(502, "git_unauthorized");
    sandbox.file("git-token", "the-next-git-token");
    sync(200, "unchanged");
    sandbox.windmill.token("the-next-windmill-token");
    sync(502, "windmill_unauthorized");
    sandbox.file("windmill-token", "the-next-windmill-token\n");
    sync(200, "unchanged");
    for (content, said) in [("", "empty"), ("two\nlines", "line break"), (&*"x".repeat(70_000), "64 KiB")] {
        sandbox.file("git-token", content);
        let answer = sync(400, "config_invalid");
        assert!(answer.contains("GIT_TOKEN_FILE") && answer.contains(said), "{answer}");
    }
    fs::remove_file(&git_token).unwrap();
    assert!(sync(400, "config_invalid").contains("GIT_TOKEN_FILE"));
    sandbox.file("git-token", "the-next-git-token");
    sync(200, "unchanged");
}

#[test]
fn a_secret_together_with_its_file_is_refused() {
    let sandbox = Sandbox::replayed();
    let file = sandbox.file("token", "from-a-file").display().to_string();
    for command in ["sync", "serve"] {
        let mut run = sandbox.command(command).env("GIT_REMOTE_URL", "https://h.invalid/x");
        let names = ["WINDMILL_TOKEN", "GIT_TOKEN", "GIT_SSH_KEY", "SYNC_API_TOKEN"];
        for name in names {
            run = run.env(name, "in-the-variable-itself").env(&format!("{name}_FILE"), &file);
        }
        let outcome = run.run();
        assert_eq!(outcome.exit_code, Some(2), "{outcome}");
        for name in names {
            assert!(outcome.stderr.contains(name), "{outcome}");
        }
        assert!(!outcome.stderr.contains("in-the-variable-itself"), "{outcome}");
    }
    // Compose passes empty variables for settings that are not set.
    let remote = sandbox.repository();
    let run = sandbox.sync().workspace(SHOP).remote(&remote).env("WINDMILL_TOKEN_FILE", "").env("GIT_TOKEN", "");
    run.run().expect("pushed");
}

#[test]
fn a_missing_ssh_is_named() {
    let sandbox = Sandbox::new();
    let folder = sandbox.scratch("only-git");
    std::os::unix::fs::symlink(find_program("git", &[]).unwrap(), folder.join("git")).unwrap();
    let outcome = sandbox
        .sync()
        .workspace(SHOP)
        .env("PATH", &folder.display().to_string())
        .env("GIT_REMOTE_URL", "git@127.0.0.1:x.git")
        .env("GIT_SSH_KEY", "no key")
        .env("GIT_SSH_ACCEPT_NEW", "true")
        .run()
        .expect("git_unreachable");
    assert_says(&outcome, &["cannot start ssh"]);
}

mod ssh {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::path::{Path, PathBuf};
    use std::sync::{Arc, Mutex};

    /// Returns the file in which accepted hosts are saved.
    fn remembered(sandbox: &Sandbox) -> PathBuf {
        sandbox.data().join("windmill-git-sync/known_hosts")
    }

    /// Returns the modes of all files below a folder that are called `name`.
    fn modes_of(folder: &Path, name: &str) -> Vec<u32> {
        let mut pending = vec![folder.to_path_buf()];
        let mut modes = Vec::new();
        while let Some(folder) = pending.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let Ok(about) = entry.metadata() else { continue };
                if about.is_dir() {
                    pending.push(entry.path());
                } else if entry.file_name() == name {
                    modes.push(about.permissions().mode() & 0o7777);
                }
            }
        }
        modes
    }

    #[test]
    #[ignore = "needs sshd: just test-ssh"]
    fn a_known_ssh_host_accepts_the_key() {
        let sandbox = Sandbox::new();
        let repository = sandbox.repository();
        let remote = GitSsh::serve(&repository);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (data, of_hook) = (sandbox.data(), Arc::clone(&seen));
        sandbox.windmill.on_export(move |_| *of_hook.lock().unwrap() = modes_of(&data, "ssh_key"));
        sandbox.record("ssh");
        let run = sandbox.sync().workspace(SHOP).remote(&remote);
        let outcome = run.run().expect("pushed");
        assert_eq!(outcome.commit(), repository.tip("main"), "{}", remote.server_log());
        assert_eq!(*seen.lock().unwrap(), [0o600], "the key's file, while it is needed");
        assert_eq!(modes_of(&sandbox.data(), "ssh_key"), [0_u32; 0], "and afterwards");
        assert!(!remembered(&sandbox).exists());
        let started = sandbox.invocations("ssh");
        assert!(!started.is_empty());
        for ssh in &started {
            // Neither the user's nor the system's configuration is read: a ProxyCommand in it would run.
            assert_eq!(ssh.arguments[..2], ["-F", "none"], "{:?}", ssh.arguments);
            assert!(ssh.arguments.contains(&"StrictHostKeyChecking=yes".to_owned()), "{:?}", ssh.arguments);
        }
        // The key comes from a file, with Windows line ends and without the last one.
        let key = remote.client_key().trim_end().replace('\n', "\r\n");
        let file = sandbox.file("key", key).display().to_string();
        run.without("GIT_SSH_KEY").env("GIT_SSH_KEY_FILE", &file).run().expect("unchanged");
    }

    #[test]
    #[ignore = "needs sshd: just test-ssh"]
    fn an_unknown_host_is_refused_before_the_key_is_offered() {
        let sandbox = Sandbox::new();
        let repository = sandbox.repository();
        let remote = GitSsh::serve(&repository);
        let nobody = sandbox.file("nobody", "").display().to_string();
        let run = sandbox.sync().workspace(SHOP).remote(&remote);
        for file in [nobody.as_str(), "/nonexistent/known_hosts"] {
            let outcome = run.clone().env("GIT_SSH_KNOWN_HOSTS_FILE", file).run().expect("git_unreachable");
            assert_says(&outcome, &["host's key is unknown", "Host key verification failed"]);
        }
        let lacking = run.clone().without("GIT_SSH_KNOWN_HOSTS_FILE").run().expect("config_invalid");
        assert_says(&lacking, &["GIT_SSH_KNOWN_HOSTS_FILE", "GIT_SSH_ACCEPT_NEW"]);
        assert_eq!(remote.commands(), [""; 0]);
        assert!(!remote.server_log().contains("Accepted publickey"), "{}", remote.server_log());
        // The host has another key under the same name.
        remote.change_host_key();
        assert_says(&run.run().expect("git_unreachable"), &["host's key"]);
        assert_eq!(repository.refs(), "");
    }

    #[test]
    #[ignore = "needs sshd: just test-ssh"]
    fn a_new_host_is_accepted_only_if_configured_and_a_changed_one_never() {
        let sandbox = Sandbox::new();
        let repository = sandbox.repository();
        let remote = GitSsh::serve(&repository);
        let run = sandbox
            .sync()
            .workspace(SHOP)
            .remote(&remote)
            .without("GIT_SSH_KNOWN_HOSTS_FILE")
            .env("GIT_SSH_ACCEPT_NEW", "true");
        run.run().expect("pushed");
        let lines = fs::read_to_string(remembered(&sandbox)).unwrap();
        assert!(lines.contains(remote.known_hosts().split(' ').nth(2).unwrap().trim()), "{lines}");
        run.run().expect("unchanged");
        remote.change_host_key();
        let changed = run.run().expect("git_unreachable");
        assert_says(&changed, &["host's key"]);
        assert_eq!(fs::read_to_string(remembered(&sandbox)).unwrap(), lines, "the impostor is not remembered");
    }

    #[test]
    #[ignore = "needs sshd: just test-ssh"]
    fn a_refused_or_malformed_key_is_reported() {
        let sandbox = Sandbox::new();
        let repository = sandbox.repository();
        let remote = GitSsh::serve(&repository);
        let run = sandbox.sync().workspace(SHOP).remote(&remote);
        let key = remote.client_key();
        let is_no_key = "GIT_SSH_KEY is not a private key without a passphrase";
        for (spoilt, words) in [
            (key.replace('\n', "\\n"), [is_no_key, "has \\n where a line should end"]),
            (key.trim().replace('\n', " "), [is_no_key, "joined into one"]),
            // The check of the settings finds this.
            (format!("\"{key}\""), ["GIT_SSH_KEY", "in quotes"]),
            ("no key at all".to_owned(), [is_no_key, "does not begin with -----BEGIN"]),
        ] {
            let outcome = run.clone().env("GIT_SSH_KEY", &spoilt).run().expect("config_invalid");
            assert_says(&outcome, &words);
            assert_eq!(outcome.exit_code, Some(2), "{outcome}");
        }
        remote.revoke_client_key();
        let revoked = run.run().expect("git_unauthorized");
        assert_says(&revoked, &["credentials", &remote.url()]);
        assert_eq!(revoked.exit_code, Some(11), "{revoked}");
        assert_nothing_leaked(&revoked.texts(), &[&sandbox.data()], &[&remote.client_key()]);
    }

    #[test]
    #[ignore = "needs sshd: just test-ssh"]
    fn a_request_cannot_use_the_key_for_another_remote() {
        let sandbox = Sandbox::new();
        let repository = sandbox.repository();
        let (remote, other) = (GitSsh::serve(&repository), GitSsh::serve(&sandbox.repository_named("other")));
        let service =
            sandbox.service().workspace(SHOP).remote(&remote).env("GIT_SSH_ACCEPT_NEW", "true").trusted().serve();
        let body = format!("{{\"windmill_token\":\"{WINDMILL_TOKEN}\",\"git_remote_url\":\"{}\"}}", other.url());
        let answer = service.post_sync(&body);
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert_eq!(other.server_log(), "");
        assert_eq!(service.post_sync("").status, 200);
    }
}

#[test]
fn wmill_gets_no_token_and_no_proxy_in_a_sync() {
    let sandbox = Sandbox::new();
    let (profile, environment) = (sandbox.path().join("profile"), sandbox.path().join("environment"));
    sandbox.program(
        "wmill",
        &format!(
            "{}case \"$*\" in *--version*) echo 'CLI version: 9.9.9'; exit;; esac\n\
             env >\"$HOME/environment\"\n\
             outside \"cp '$WMILL_CONFIG_DIR/windmill/remotes.ndjson' '{}'; cp '$HOME/environment' '{}'\"\nexit 1",
            outside::function(),
            profile.display(),
            environment.display()
        ),
    );
    let remote = sandbox.repository();
    remote.commit_files("main", &[("README.md", "ours\n")]);
    let nobody = "http://127.0.0.1:1";
    for run in [sandbox.sync(), sandbox.sync().arg("--dry-run"), sandbox.command("verify")] {
        // These variables are only for us and git: a request from wmill to our own server through a proxy would not
        // arrive.
        let run = run.remote(&remote).env("NO_PROXY", "127.0.0.1").env("ALL_PROXY", nobody).env("http_proxy", nobody);
        run.run().expect("pull_failed");
        let (given, environment) = (fs::read_to_string(&profile).unwrap(), fs::read_to_string(&environment).unwrap());
        assert!(given.contains("\"remote\":\"http://127.0.0.1:") && !given.contains(WINDMILL_TOKEN), "{given}");
        assert!(
            !environment.contains(WINDMILL_TOKEN) && !environment.to_lowercase().contains("_proxy="),
            "{environment}"
        );
        fs::remove_file(&profile).unwrap();
    }
}
