//! `.ci/release`, which `just release X.Y.Z` runs, on a copy of this repository and without its checks and binaries.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::*;

/// Returns a program that runs in this folder. Its commits have a made-up author.
fn program(name: &str, folder: &Path) -> Command {
    let mut command = process::clean_command(name);
    for part in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{part}_NAME"), "Someone").env(format!("GIT_{part}_EMAIL"), "someone@example.com");
    }
    command.current_dir(folder);
    command
}

#[track_caller]
fn git(folder: &Path, words: &[&str]) -> String {
    let mut command = program("git", folder);
    command.args(words);
    process::run(command).must_succeed().stdout_text()
}

/// Makes a new repository with the current files of this one.
fn copy(sandbox: &Sandbox) -> PathBuf {
    let (root, folder) = (Path::new(env!("CARGO_MANIFEST_DIR")), sandbox.scratch("copy"));
    for path in git(root, &["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).split_terminator('\0') {
        let (from, to) = (root.join(path), folder.join(path));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        if from.exists() {
            fs::copy(from, to).unwrap();
        }
    }
    git(&folder, &["init", "--quiet", "--initial-branch=main"]);
    commit(&folder);
    folder
}

fn commit(folder: &Path) {
    git(folder, &["add", "--all"]);
    git(folder, &["commit", "--quiet", "--message", "Something"]);
}

fn release(folder: &Path, version: &str) -> Finished {
    let mut command = program("bash", folder);
    command.args([".ci/release", version, "--unchecked", "--without-binaries"]);
    process::run(command)
}

#[test]
fn a_release_has_its_number_changelog_and_tag_and_is_not_published() {
    let sandbox = Sandbox::new();
    let folder = copy(&sandbox);
    let read = |path: &str| fs::read_to_string(folder.join(path)).unwrap();
    let news =
        read("CHANGELOG.md").split_once("## [Unreleased]\n").unwrap().1.split("\n## [").next().unwrap().to_owned();
    let said = release(&folder, "7.8.9").must_succeed().stdout_text();
    assert!(said.contains("git push --atomic origin main v7.8.9"), "{said}");
    assert!(git(&folder, &["status", "--porcelain"]).is_empty());
    assert_eq!(git(&folder, &["log", "-1", "--format=%s", "v7.8.9"]), "Release 7.8.9\n");
    assert_eq!(git(&folder, &["rev-list", "--count", "main"]), "2\n");

    let changelog = read("CHANGELOG.md");
    assert!(changelog.contains("\n## [Unreleased]\n\n## [7.8.9] - 2"), "{changelog}");
    assert!(changelog.contains(news.trim()));
    let tag_message = git(&folder, &["tag", "--list", "--format=%(contents)", "v7.8.9"]);
    assert_eq!(tag_message.trim(), format!("windmill-git-sync 7.8.9\n{news}").trim());
    for (path, line) in [
        ("Cargo.toml", "version = \"7.8.9\""),
        ("Cargo.lock", "name = \"windmill-git-sync\"\nversion = \"7.8.9\""),
        ("fuzz/Cargo.lock", "name = \"windmill-git-sync\"\nversion = \"7.8.9\""),
        ("Dockerfile.scratch", "image.version=\"7.8.9\""),
        ("docs/openapi.yaml", "  version: 7.8.9\n"),
        ("docs/windmill-git-sync.1", "windmill\\-git\\-sync 7.8.9\""),
    ] {
        assert!(read(path).contains(line), "no `{line}` in {path}");
        assert!(!read(path).contains(&format!("ersion: {}", env!("CARGO_PKG_VERSION"))), "{path}");
    }
    assert_eq!(read("Cargo.lock").matches("7.8.9").count(), 1, "the version of another package was changed");
}

#[test]
#[ignore = "long: just test-long"]
fn a_refused_release_changes_nothing() {
    let sandbox = Sandbox::new();
    let folder = copy(&sandbox);
    let refused = |version: &str, why: &str| {
        let before = git(&folder, &["rev-parse", "HEAD"]);
        let said = release(&folder, version).must_fail().stderr_text();
        assert!(said.contains(why), "{version}: {said}");
        assert_eq!(git(&folder, &["rev-parse", "HEAD"]), before);
    };
    for version in ["", "1", "1.2", "01.2.3", "1.2.3-x", "v1.2.3", "1.2.3 4"] {
        refused(version, "is no version");
    }
    refused("0.0.9", "is not after");
    git(&folder, &["checkout", "--quiet", "-b", "other"]);
    refused("9.0.0", "of the branch main");
    git(&folder, &["checkout", "--quiet", "main"]);
    fs::write(folder.join("new"), "").unwrap();
    refused("9.0.0", "not committed");
    commit(&folder);
    git(&folder, &["tag", "v9.0.0"]);
    refused("9.0.0", "there already");
    release(&folder, "9.0.1").must_succeed();
    refused("9.0.2", "no news");
}
