//! Signed commits: signed with the configured key, checked by git, and never unsigned if a signature is required.

use support::process::find_program;
use support::windmill::SHOP;
use support::*;

#[test]
fn a_missing_ssh_keygen_is_named_before_anything_is_pulled() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let folder = sandbox.scratch("only-git");
    std::os::unix::fs::symlink(find_program("git", &[]).unwrap(), folder.join("git")).unwrap();
    let run = sandbox.sync().workspace(SHOP).remote(&repository).env("GIT_SIGNING_KEY", "a key");
    let outcome = run.env("PATH", &folder.display().to_string()).run().expect("config_invalid");
    for word in ["GIT_SIGNING_KEY", "cannot start `ssh-keygen`"] {
        assert!(outcome.message().contains(word), "{outcome}");
    }
    assert_eq!(sandbox.windmill.requests().len(), 0);
    assert_eq!(repository.refs(), "");
}

pub(crate) mod ssh {
    use super::*;
    use std::fs;
    use std::path::Path;
    use support::process;

    /// Returns a key pair made by `ssh-keygen`: the private key, and the line of the public one.
    pub(crate) fn key(sandbox: &Sandbox, name: &str, options: &[&str]) -> (String, String) {
        let path = sandbox.scratch("keys").join(name);
        let mut command = process::clean_command("ssh-keygen");
        command.args(["-q", "-C", "test", "-f"]).arg(&path).args(options);
        process::run(command).must_succeed();
        let public = fs::read_to_string(path.with_extension("pub")).unwrap();
        (fs::read_to_string(path).unwrap(), public)
    }

    /// Returns true if git finds a good signature with this key on the branch's tip.
    pub(crate) fn is_signed_by(sandbox: &Sandbox, repository: &Path, public: &str) -> bool {
        is_commit_signed_by(sandbox, repository, "main", public)
    }

    /// Returns true if git finds a good signature with this key on the commit.
    fn is_commit_signed_by(sandbox: &Sandbox, repository: &Path, commit: &str, public: &str) -> bool {
        let allowed = sandbox.file("allowed-signers", format!("windmill@example.com {public}"));
        let mut git = process::clean_command("git");
        git.arg("-C").arg(repository).args(["-c", "safe.directory=*", "-c", "gpg.format=ssh", "-c"]);
        git.arg(format!("gpg.ssh.allowedSignersFile={}", allowed.display())).args(["verify-commit", commit]);
        process::run(git).success()
    }

    #[test]
    #[ignore = "needs sshd: just test-ssh"]
    fn commits_are_signed_by_the_key_as_it_is_now() {
        let sandbox = Sandbox::new();
        let repository = sandbox.repository();
        let (first, first_public) = key(&sandbox, "first", &["-t", "ed25519", "-N", ""]);
        // This key has the older format, which does not contain the public key.
        let (second, second_public) = key(&sandbox, "second", &["-t", "rsa", "-m", "PEM", "-N", ""]);
        let file = sandbox.file("signing", &first);
        let service = sandbox.service().workspace(SHOP).remote(&repository);
        let service =
            service.env("GIT_SIGNING_KEY_FILE", &file.display().to_string()).env("LOG_LEVEL", "trace").serve();
        assert_eq!(service.post_sync("").status, 200, "{}", service.log());
        assert!(is_signed_by(&sandbox, repository.path(), &first_public));
        assert!(!is_signed_by(&sandbox, repository.path(), &second_public));
        fs::write(&file, second.replace('\n', "\r\n")).unwrap();
        sandbox.windmill.state("2-edited");
        assert_eq!(service.post_sync("").status, 200, "{}", service.log());
        assert!(is_signed_by(&sandbox, repository.path(), &second_public));
        let lines: Vec<&str> = first.lines().chain(second.lines()).filter(|line| !line.starts_with('-')).collect();
        let log = service.log();
        let said = [("log", log.as_bytes()), ("the remote", &repository.everything())];
        assert_nothing_leaked(&said, &[&sandbox.data(), repository.path()], &lines);
    }

    #[test]
    #[ignore = "needs sshd: just test-ssh"]
    fn each_commit_per_item_is_signed_and_the_last_tree_is_that_of_one_commit() {
        let sandbox = Sandbox::new();
        let (together, each) = (sandbox.repository_named("together"), sandbox.repository_named("each"));
        let (secret, public) = key(&sandbox, "key", &["-t", "ed25519", "-N", ""]);
        let (_, other) = key(&sandbox, "other", &["-t", "ed25519", "-N", ""]);
        for state in ["1-seeded", "2-edited"] {
            sandbox.windmill.state(state);
            for (repository, commit_per) in [(&together, "sync"), (&each, "item")] {
                let run = sandbox.sync().remote(repository).env("GIT_SIGNING_KEY", &secret);
                let outcome = run.env("COMMIT_PER", commit_per).run().expect("pushed");
                assert_eq!(outcome.commit(), repository.tip("main"));
            }
            assert_eq!(each.files("main"), together.files("main"));
        }
        let commits = each.log("main");
        assert!(commits.len() > 18 && commits.iter().any(|commit| commit.author.starts_with("admin <admin@")));
        for commit in commits {
            assert!(is_commit_signed_by(&sandbox, each.path(), &commit.id, &public), "{commit:?}");
            assert!(!is_commit_signed_by(&sandbox, each.path(), &commit.id, &other));
            assert_eq!(commit.committer, "Windmill Git Sync <windmill@example.com>");
        }
        each.assert_sound();
    }

    #[test]
    #[ignore = "needs sshd: just test-ssh"]
    fn a_key_that_cannot_sign_is_reported_and_nothing_is_committed() {
        let sandbox = Sandbox::new();
        let repository = sandbox.repository();
        let (locked, _) = key(&sandbox, "locked", &["-t", "ed25519", "-N", "a passphrase"]);
        for bad in [locked.as_str(), "no key at all", &locked[..locked.len() / 2]] {
            let run = sandbox.sync().workspace(SHOP).remote(&repository).env("LOG_LEVEL", "trace");
            let outcome = run.env("GIT_SIGNING_KEY", bad).run().expect("config_invalid");
            assert!(outcome.message().contains("GIT_SIGNING_KEY is not a private key"), "{outcome}");
            assert_eq!(outcome.exit_code, Some(2), "{outcome}");
            let lines: Vec<&str> = bad.lines().filter(|line| !line.starts_with('-')).collect();
            assert_nothing_leaked(&outcome.texts(), &[&sandbox.data()], &lines);
        }
        assert_eq!((sandbox.windmill.exports(), repository.refs()), (0, String::new()));
    }
}
