//! `examples/drill/drill`: its steps, its report, its exit codes, and that it removes what it started. A script
//! replaces Docker: it records its arguments, and runs our program where a container would.

use std::fs;
use std::path::Path;
use std::process::Command;

use support::deployed;
use support::process;
use support::tls::Authority;
use support::*;

/// Returns a sandbox in which workspace `shop` was synced to a repository and then lost.
fn gone(fill: impl FnOnce(&mut Workspace)) -> (Sandbox, BareRepository) {
    let sandbox = Sandbox::new();
    sandbox.windmill.token_kind(TokenKind::User);
    let mut shop = Workspace::empty();
    deployed::set_key(&mut shop, "a-key", false);
    shop.add_folder("ops");
    shop.add_variable("f/ops/v", "1", false);
    fill(&mut shop);
    sandbox.windmill.set("shop", shop);
    let remote = sandbox.repository();
    sandbox.sync().remote(&remote).run().expect("pushed");
    let mut fresh = Workspace::empty();
    deployed::set_key(&mut fresh, "a-key", false);
    sandbox.windmill.set("shop", fresh);
    (sandbox, remote)
}

struct Drill {
    finished: Finished,
    report: String,
    /// The arguments of Docker and `curl`.
    calls: String,
}

/// Runs the drill. `up` is what `docker compose up` does.
fn drill(sandbox: &Sandbox, remote: &BareRepository, key: Option<&Path>, up: &str) -> Drill {
    let (calls, data) = (sandbox.path().join("calls"), sandbox.data());
    let key_of_run = key.map(|key| key.display().to_string()).unwrap_or_default();
    let docker = format!(
        r#"echo "docker $*" >>'{calls}'
case " $* " in
  *" up "*) {up} ;;
  *" port "*) echo '{address}' ;;
  *" down "*) ;;
  *" run "*)
    while [ "$1" != windmill-git-sync ]; do shift; done
    shift
    # What a container has at /drill.key, and in its environment.
    for word; do shift; [ "$word" != /drill.key ] || word='{key_of_run}'; set -- "$@" "$word"; done
    export GIT_SSH_KNOWN_HOSTS_FILE="$PWD/known_hosts" CA_BUNDLE_FILE="$PWD/bundle.pem"
    DATA_DIR='{data}' WINDMILL_BASE_URL='{base}' exec '{program}' "$@" ;;
  *) exit 64 ;;
esac"#,
        calls = calls.display(),
        address = sandbox.windmill.address(),
        data = data.display(),
        base = sandbox.windmill.base_url(),
        program = run::program().display(),
    );
    sandbox.program("docker", &docker);
    // The stand-in for Windmill does not have the endpoints of a new server.
    let curl = format!(
        r#"echo "curl $*" >>'{calls}'
case $* in
  *users/tokens/create) cat >>'{calls}'; printf %s '{WINDMILL_TOKEN}' ;;
  *auth/login) cat >>'{calls}'; printf %s a-session ;;
  *workspaces/create) cat >>'{calls}' ;;
  *) exit 22 ;;
esac"#,
        calls = calls.display()
    );
    sandbox.program("curl", &curl);
    sandbox.file("known_hosts", "");
    let bundle = sandbox.file("bundle.pem", Authority::new("private").pem());
    let folder = bundle.parent().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/drill/drill");
    let mut command: Command = process::clean_command(&script);
    let path = std::env::var("PATH").unwrap();
    let wmill = wmill();
    let path = format!("{}:{}:{path}", sandbox.bin().display(), wmill.parent().unwrap().display());
    command
        .env("PATH", path)
        .env("HOME", sandbox.home())
        .env("TMPDIR", sandbox.scratch("drill"))
        .env("GIT_REMOTE_URL", format!("file://{}", remote.path().display()))
        .env("WINDMILL_WORKSPACE", "shop")
        .env("GIT_SSH_KNOWN_HOSTS_FILE", "known_hosts")
        .env("CA_BUNDLE_FILE", "bundle.pem")
        .current_dir(folder)
        .args(key);
    let finished = process::start(command).finish_within(process::PATIENCE);
    let report = String::from_utf8_lossy(&finished.stdout).into_owned();
    Drill { finished, report, calls: fs::read_to_string(calls).unwrap_or_default() }
}

#[test]
#[ignore = "long: just test-long"]
fn a_drill_restores_verifies_reports_and_removes_its_containers() {
    let (sandbox, remote) = gone(|shop| shop.add_variable("f/ops/s", &deployed::encrypt("a-key", "secret"), true));
    let key = sandbox.file("shop.key", "a-key\n");
    let drill = drill(&sandbox, &remote, Some(&key), ":");
    let (report, calls) = (&drill.report, &drill.calls);
    assert_eq!(drill.finished.status.code(), Some(0), "{}", drill.finished);
    for line in ["restore: restored, exit code 0", "verify: unchanged, exit code 0", "the drill went well"] {
        assert!(report.contains(line), "{line}: {report}");
    }
    assert!(sandbox.windmill.workspace("shop").get("f/ops/s.variable.json").is_some());
    let order = ["up --detach --wait", "\"id\":\"shop\"", " restore ", " verify", "down --volumes"];
    let places: Vec<_> =
        order.iter().map(|part| calls.find(part).unwrap_or_else(|| panic!("{part}: {calls}"))).collect();
    assert!(places.is_sorted(), "{calls}");
    // The program runs as the owner of the key's file, and gets the files for git.
    let (user, folder) = (rustix::process::geteuid().as_raw(), key.parent().unwrap().display());
    let group = rustix::process::getegid().as_raw();
    assert_eq!(calls.matches(&format!(" --user {user}:{group} ")).count(), 2, "{calls}");
    for (file, mounted) in [("shop.key", "key"), ("known_hosts", "known_hosts"), ("bundle.pem", "ca")] {
        let mount = format!(" --volume {folder}/{file}:/drill.{mounted}:ro ");
        assert_eq!(calls.matches(&mount).count(), 2, "{mount}: {calls}");
    }
    assert!(!calls.contains(WINDMILL_TOKEN) && !calls.contains("Bearer"), "{calls}");
    assert_eq!(fs::read_dir(sandbox.scratch("drill")).unwrap().count(), 0, "it leaves nothing");
}

#[test]
#[ignore = "long: just test-long"]
fn an_incomplete_restore_fails_the_drill_and_names_the_difference() {
    let (sandbox, remote) = gone(|shop| {
        shop.add_raw_app("f/ops/ui", &[("/index.tsx", "console.log(1)\n"), ("/package.json", "{\"name\":\"ui\"}")]);
    });
    let drill = drill(&sandbox, &remote, None, ":");
    assert_eq!(drill.finished.status.code(), Some(3), "{}", drill.finished);
    assert!(drill.report.contains("restore: differs, exit code 3"), "{}", drill.report);
    assert!(drill.report.contains("f/ops/ui.raw_app") && drill.report.contains("the drill failed"), "{}", drill.report);
    assert!(drill.calls.trim_end().lines().last().unwrap().contains("down --volumes"), "{}", drill.calls);
}

#[test]
fn a_drill_whose_server_does_not_start_removes_its_containers() {
    let (sandbox, remote) = gone(|_| {});
    let drill = drill(&sandbox, &remote, None, "echo 'no such image' >&2; exit 18");
    assert_eq!(drill.finished.status.code(), Some(18), "{}", drill.finished);
    assert!(!drill.calls.contains(" run ") && drill.calls.contains("down --volumes"), "{}", drill.calls);
    let missing = sandbox.path().join("missing.key");
    let refused = self::drill(&sandbox, &remote, Some(&missing), ":");
    assert_eq!(refused.finished.status.code(), Some(2), "{}", refused.finished);
}

#[test]
fn the_settings_of_the_drill_name_the_mounted_files() {
    let compose: yaml_serde::Value = yaml_serde::from_str(&crate::docs::read("examples/drill/compose.yml")).unwrap();
    let environment = &compose["services"]["windmill-git-sync"]["environment"];
    for (setting, place) in [("GIT_SSH_KNOWN_HOSTS_FILE", "/drill.known_hosts"), ("CA_BUNDLE_FILE", "/drill.ca")] {
        assert_eq!(environment[setting].as_str(), Some(format!("${{{setting}:+{place}}}").as_str()));
    }
    // In the image, /workspace belongs to another user than the one who calls the drill.
    assert_eq!(environment["DATA_DIR"].as_str(), Some("/drill"));
}
