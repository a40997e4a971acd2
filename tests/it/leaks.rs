//! Planted secrets, and the search for them in every place where another user could read them: arguments and
//! environments of programs, files, output at the most verbose level, answers, and all that the remote holds.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use support::git_http::basic;
use support::process::find_program;
use support::windmill::SHOP;
use support::*;

const API_TOKEN: &str = "api-token-PLANTED-3333-d41d8c";
const PROXY_PASSWORD: &str = "proxy-password-PLANTED-4444-7e57";
const OWN_WINDMILL_TOKEN: &str = "request-wm-token-PLANTED-5555-c0ffee";
const OWN_GIT_TOKEN: &str = "request-git-token-PLANTED-6666-decaf";
const WRONG_API_TOKEN: &str = "guessed-token-PLANTED-7777-bad";

const ALL: [&str; 7] =
    [WINDMILL_TOKEN, GIT_TOKEN, API_TOKEN, PROXY_PASSWORD, OWN_WINDMILL_TOKEN, OWN_GIT_TOKEN, WRONG_API_TOKEN];

/// Returns the run with every secret planted and the most verbose log.
fn planted<'a>(run: Run<'a>, remote: &impl Remote, format: &str) -> Run<'a> {
    run.workspace(SHOP)
        .remote(remote)
        .env("SYNC_API_TOKEN", API_TOKEN)
        .env("HTTP_PROXY", &format!("http://user:{PROXY_PASSWORD}@127.0.0.1:1"))
        .env("http_proxy", &format!("http://user:{PROXY_PASSWORD}@127.0.0.1:1"))
        .env("no_proxy", "127.0.0.1")
        .env("NO_PROXY", "127.0.0.1")
        .env("LOG_LEVEL", "trace")
        .env("LOG_FORMAT", format)
}

/// Sends `POST /sync` with the service's token.
#[track_caller]
fn post(service: &Service, body: &str) -> Answer {
    let bearer = format!("Bearer {API_TOKEN}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    service.ask("POST", "/sync", &headers, body.as_bytes()).expect("an answer")
}

fn answer_bytes(answer: &Answer) -> Vec<u8> {
    let mut bytes = answer.body.clone();
    for (name, value) in &answer.headers {
        bytes.extend_from_slice(format!("{name}: {value}\n").as_bytes());
    }
    bytes
}

/// Returns everything that the service reports.
#[track_caller]
fn reports(service: &Service) -> Vec<u8> {
    let bearer = format!("Bearer {API_TOKEN}");
    let ask = |path| service.ask("GET", path, &[("Authorization", &bearer)], b"").expect("an answer");
    let answers: Vec<Answer> = ["/health", "/ready", "/status", "/metrics", "/"].into_iter().map(ask).collect();
    assert!(answers.iter().all(|answer| [200, 503].contains(&answer.status)), "none is refused");
    answers.iter().flat_map(answer_bytes).collect()
}

/// Returns each file and folder below `folder` with its mode, and the content of each file.
fn about_all(folder: &Path) -> BTreeMap<PathBuf, (u32, Option<Vec<u8>>)> {
    let mut all = BTreeMap::new();
    let mut pending = vec![folder.to_path_buf()];
    while let Some(path) = pending.pop() {
        let Ok(about) = std::fs::symlink_metadata(&path) else { continue };
        let mode = about.permissions().mode() & 0o777;
        if about.is_dir() {
            pending.extend(std::fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
            all.insert(path, (mode, None));
        } else {
            let content = std::fs::read(&path).unwrap_or_default();
            all.insert(path, (mode, Some(content)));
        }
    }
    all
}

fn holds(bytes: &[u8], secret: &str) -> bool {
    bytes.windows(secret.len()).any(|window| window == secret.as_bytes())
}

#[track_caller]
fn assert_strings_clean<'a>(what: &str, strings: impl IntoIterator<Item = &'a String>, secrets: &[&str]) {
    let all: Vec<u8> = strings.into_iter().flat_map(|string| [string.as_bytes(), b"\n"].concat()).collect();
    assert_nothing_leaked(&[(what, &all)], &[], secrets);
}

/// Asserts that programs see only the secrets that they need, and that no argument list has a secret.
#[track_caller]
fn assert_programs_saw_their_own_alone(sandbox: &Sandbox) {
    for wmill in sandbox.invocations("wmill") {
        assert_strings_clean("wmill's arguments", &wmill.arguments, &ALL);
        let others = [WINDMILL_TOKEN, GIT_TOKEN, API_TOKEN, OWN_WINDMILL_TOKEN, OWN_GIT_TOKEN];
        assert_strings_clean("wmill's environment", &wmill.environment, &others);
    }
    for git in sandbox.invocations("git") {
        assert_strings_clean("git's arguments", &git.arguments, &ALL);
        assert_strings_clean("git's environment", &git.environment, &[WINDMILL_TOKEN, API_TOKEN, OWN_WINDMILL_TOKEN]);
        // Only the verbs of git that talk to the remote see its token.
        let is_remote =
            ["ls-remote", "clone", "fetch", "push"].iter().any(|verb| git.arguments.iter().any(|a| a == verb));
        if !is_remote {
            assert_strings_clean("a local git's environment", &git.environment, &[GIT_TOKEN, OWN_GIT_TOKEN]);
        }
    }
}

#[test]
fn a_successful_sync_shows_no_secret() {
    for format in ["text", "json"] {
        let sandbox = Sandbox::new();
        let repository = sandbox.repository();
        let remote = GitHttp::serve(&repository);
        sandbox.record("git");
        sandbox.record("wmill");
        let during = Arc::new(Mutex::new(BTreeMap::new()));
        let (data, of_hook) = (sandbox.data(), Arc::clone(&during));
        sandbox.windmill.on_export(move |_| *of_hook.lock().unwrap() = about_all(&data));
        let run = planted(sandbox.sync(), &remote, format);
        let outcome = run.run().expect("pushed");
        assert!(outcome.stderr.contains("wmill"), "it was loud: {outcome}");
        assert_nothing_leaked(&outcome.texts(), &[&sandbox.data()], &ALL);
        assert_nothing_leaked(&[("the remote", &repository.everything())], &[repository.path()], &ALL);
        assert!(!sandbox.invocations("wmill").is_empty());
        assert_programs_saw_their_own_alone(&sandbox);

        // During the run, only we can access our folders, and no file holds a secret.
        let during = during.lock().unwrap();
        let ours = sandbox.data().join("windmill-git-sync");
        for folder in [&ours, &ours.join("locks"), &ours.join("runs"), &ours.join("runs/shop"), &ours.join("checkouts")]
        {
            assert_eq!(during[folder].0, 0o700, "{}", folder.display());
        }
        for (path, (_, content)) in during.iter() {
            let Some(content) = content else { continue };
            for secret in &ALL {
                assert!(!holds(content, secret), "{secret} in {}", path.display());
            }
            assert!(!holds(content, &basic(GIT_USERNAME, GIT_TOKEN)), "{}", path.display());
        }
        let configs = during.keys().filter(|path| path.ends_with("git/config")).count();
        assert_eq!(configs, 1, "the checkout's own configuration was among what was searched");
    }
}

#[test]
fn a_service_shows_no_secret_to_its_callers_or_its_log() {
    for format in ["text", "json"] {
        let sandbox = Sandbox::new();
        let repository = sandbox.repository();
        let remote = GitHttp::serve(&repository);
        sandbox.record("git");
        sandbox.record("wmill");
        let service = planted(sandbox.service(), &remote, format).serve();
        let mut said = Vec::new();
        let mut check = |answer: Answer, status: u16| {
            assert_eq!(answer.status, status, "{}", answer.text());
            said.extend(answer_bytes(&answer));
        };
        check(post(&service, ""), 200);
        let guess = format!("Bearer {WRONG_API_TOKEN}");
        check(service.ask("POST", "/sync", &[("Authorization", &guess)], b"").unwrap(), 401);
        let query = format!("/sync?token={WRONG_API_TOKEN}");
        check(service.ask("GET", &query, &[], b"").unwrap(), 405);
        // These requests have their own tokens: wrong ones, one in a URL, one in a wrong place, some in refused
        // requests.
        check(post(&service, &format!("{{\"windmill_token\":\"{OWN_WINDMILL_TOKEN}\"}}")), 502);
        check(post(&service, &format!("{{\"git_token\":\"{OWN_GIT_TOKEN}\"}}")), 502);
        let with_token = remote.url().replace("http://", &format!("http://x:{OWN_GIT_TOKEN}@"));
        let resource =
            format!("{{\"windmill_token\":\"{WINDMILL_TOKEN}\",\"repository\":{{\"url\":\"{with_token}\"}}}}");
        check(post(&service, &resource), 502);
        for body in [
            format!("{{\"git_remote_url\":\"{with_token}\"}}"),
            format!(
                "{{\"git_remote_url\":\"https://h/{OWN_GIT_TOKEN}@x y\",\"windmill_token\":\"{OWN_WINDMILL_TOKEN}\"}}"
            ),
            format!("{{\"windmill_token\":\"{OWN_WINDMILL_TOKEN}\\n\"}}x"),
            format!("{{\"windmill_token\":[\"{OWN_WINDMILL_TOKEN}\"]}}"),
            format!("{{\"repository\":\"$res:{OWN_GIT_TOKEN}\"}}"),
        ] {
            check(post(&service, &body), 400);
        }
        said.extend(reports(&service));
        service.wait_for_log("git_unauthorized");
        let log = service.log();
        assert!(log.contains("401") && log.contains("git_unauthorized"), "it was loud: {log}");
        assert_nothing_leaked(&[("answers", &said), ("log", log.as_bytes())], &[&sandbox.data()], &ALL);
        assert_nothing_leaked(&[("the remote", &repository.everything())], &[repository.path()], &ALL);
        assert_programs_saw_their_own_alone(&sandbox);
    }
}

/// Runs `sync` and `serve`, both of which must fail with `code` and show nothing.
#[track_caller]
fn check_failure(sandbox: &Sandbox, remote: &impl Remote, code: &str, secrets: &[&str]) {
    let outcome = planted(sandbox.sync(), remote, "text").run().expect(code);
    assert_nothing_leaked(&outcome.texts(), &[&sandbox.data()], secrets);
    let service = planted(sandbox.service(), remote, "json").serve();
    let answer = post(&service, "");
    assert_eq!(run::text_field(&answer.json(), "code").as_deref(), Some(code), "{}", answer.text());
    let said = [answer_bytes(&answer), reports(&service)].concat();
    let log = service.log();
    assert_nothing_leaked(&[("answers", &said), ("log", log.as_bytes())], &[&sandbox.data()], secrets);
}

#[test]
fn a_token_that_a_server_repeats_is_in_no_message() {
    let sandbox = Sandbox::replayed();
    let repository = sandbox.repository();
    let remote = GitHttp::serve(&repository);
    let header = basic(GIT_USERNAME, GIT_TOKEN);
    let said = format!("no entry with {GIT_TOKEN}\nyou sent Authorization: {header}\n");
    for needle in ["service=git-upload-pack", "service=git-receive-pack"] {
        remote.fail(needle, Fault::Answer(403, "text/plain", said.clone()));
        check_failure(&sandbox, &remote, "git_unauthorized", &ALL);
        remote.heal();
    }
    // A hook of the server prints the token.
    repository.refuse_pushes(&format!("user {GIT_USERNAME} with {header} and {GIT_TOKEN} may not"));
    check_failure(&sandbox, &remote, "git_rejected", &ALL);
    repository.accept_pushes();
    // Windmill repeats the token in each answer that becomes part of a message. One of these messages is cut.
    let bearer = format!("{}{WINDMILL_TOKEN} you sent Authorization: Bearer {WINDMILL_TOKEN}", "x".repeat(185));
    // 501 is a failure like 500, but it is not retried.
    for (needle, status, code) in [
        ("/api/version", 501, "windmill_unreachable"),
        ("/users/whoami", 501, "windmill_unreachable"),
        ("/users/whoami", 200, "windmill_unreachable"),
        ("/users/whoami", 401, "windmill_unauthorized"),
        ("/workspaces/tarball", 501, "pull_failed"),
    ] {
        if code == "pull_failed" {
            // From here on, the real `wmill` runs.
            std::fs::remove_file(sandbox.bin().join("wmill")).unwrap();
        }
        sandbox.windmill.fail(needle, Fault::Answer(status, "text/plain", bearer.clone()));
        check_failure(&sandbox, &remote, code, &[WINDMILL_TOKEN, "wm-token-PLANT"]);
        sandbox.windmill.heal();
    }
    assert_eq!(repository.refs(), "");
}

#[test]
fn secrets_that_a_tool_prints_are_in_no_message() {
    let sandbox = Sandbox::replayed();
    let repository = sandbox.repository();
    let remote = GitHttp::serve(&repository);
    let real_git = find_program("git", &[]).unwrap();
    let printed = "env >&2; env | tr '\\n' ' ' >&2; echo >&2";
    // The line is cut in the middle of a secret.
    let cut = |secret: &str| format!("printf '%4090d%s\\n' 0 {secret} >&2; printf '%4080d%s\\n' 0 {secret}");
    let profile = "cat \"$WMILL_CONFIG_DIR/windmill/remotes.ndjson\" >&2; base64 -w 0 < /proc/self/environ >/dev/null";
    let plain = cut(WINDMILL_TOKEN);
    sandbox.program("wmill", &format!("{printed}\n{profile}\n{plain}\nexit 1"));
    check_failure(&sandbox, &remote, "pull_failed", &[&ALL[..], &["wm-token-PL"]].concat());
    sandbox.program("wmill", &sandbox.replay_script());

    let header = basic(GIT_USERNAME, GIT_TOKEN);
    let encoded = header.trim_start_matches("Basic ");
    let begins = [&encoded[..11], "git-token-PL"];
    let plain = format!("{}\n{}", cut(GIT_TOKEN), cut(encoded));
    let config = "cat \"$GIT_CONFIG_GLOBAL\" >&2";
    for (verb, code) in [("ls-remote", "git_failed"), ("push", "git_failed"), ("write-tree", "git_failed")] {
        let script = format!(
            "for word in \"$@\"; do [ \"$word\" = {verb} ] && {{ {printed}; {config}; {plain}; exit 1; }}; done\n\
             exec '{}' \"$@\"",
            real_git.display()
        );
        sandbox.program("git", &script);
        check_failure(&sandbox, &remote, code, &[&ALL[..], &begins].concat());
    }
    assert_eq!(repository.refs(), "");
}

#[test]
#[ignore = "long: just test-long"]
fn the_password_of_a_proxy_is_not_shown() {
    let sandbox = Sandbox::replayed();
    let repository = sandbox.repository();
    // Nothing listens on this address. First the way to Windmill leads through it, then the way to git.
    let proxy = format!("http://user:{PROXY_PASSWORD}@127.0.0.1:1");
    let encoded = format!("http://user:{}@127.0.0.1:1", PROXY_PASSWORD.replace('-', "%2D"));
    for proxy in [&proxy, &encoded] {
        let run = sandbox.sync().workspace(SHOP).remote(&repository).env("LOG_LEVEL", "trace");
        let outcome = run.env("http_proxy", proxy).run();
        assert_nothing_leaked(&outcome.texts(), &[&sandbox.data()], &[PROXY_PASSWORD, proxy]);
        let remote =
            sandbox.sync().workspace(SHOP).env("GIT_REMOTE_URL", "http://192.0.2.1/x.git").env("GIT_TOKEN", "x-y");
        let outcome = remote.env("LOG_LEVEL", "trace").env("http_proxy", proxy).env("no_proxy", "127.0.0.1").run();
        assert_eq!(outcome.code(), "git_unreachable", "{outcome}");
        assert_nothing_leaked(&outcome.texts(), &[&sandbox.data()], &[PROXY_PASSWORD, proxy]);
    }
}

#[test]
fn secrets_in_refused_settings_are_not_shown() {
    let sandbox = Sandbox::new();
    for (name, value) in [
        ("GIT_REMOTE_URL", format!("https://x:{GIT_TOKEN}@h/y z")),
        ("GIT_REMOTE_URL", format!("https://{GIT_TOKEN}@h/y")),
        ("WINDMILL_BASE_URL", format!("http://u:{GIT_TOKEN}@h")),
        ("GIT_TOKEN", format!("{GIT_TOKEN}\n{GIT_TOKEN}")),
        ("GIT_TOKEN_FILE", GIT_TOKEN.to_owned()),
        ("SYNC_API_TOKEN_FILE", format!("{GIT_TOKEN}\n")),
    ] {
        for command in ["sync", "serve"] {
            let file = sandbox.repository_named(&format!("{command}-{name}"));
            let run =
                sandbox.command(command).workspace(SHOP).remote(&file).env(name, &value).env("LOG_LEVEL", "trace");
            let run = if name == "GIT_TOKEN_FILE" { run.env("GIT_REMOTE_URL", "http://127.0.0.1:1/x") } else { run };
            if command == "serve" && name == "GIT_TOKEN_FILE" {
                let service = run.serve();
                let answer = service.post_sync("");
                let log = service.log();
                assert_nothing_leaked(&[("answer", &answer.body), ("log", log.as_bytes())], &[], &[GIT_TOKEN]);
                continue;
            }
            let outcome = run.run();
            assert_eq!(outcome.exit_code, Some(2), "{name}: {outcome}");
            assert_nothing_leaked(&outcome.texts(), &[], &[GIT_TOKEN]);
        }
    }
}

#[test]
fn the_next_run_removes_the_files_of_a_killed_one() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let remote = GitHttp::serve(&repository);
    let held = sandbox.hold_wmill();
    let command = planted(sandbox.sync(), &remote, "text").start();
    held.wait_for(1);
    let running = processes_below(command.pid());
    for process in &running {
        assert_strings_clean("an argument list in /proc", &process.arguments, &ALL);
    }
    for process in &running[1..] {
        let others = [WINDMILL_TOKEN, GIT_TOKEN, API_TOKEN];
        assert_strings_clean("an environment in /proc", &process.environment, &others);
    }
    let orphans: Vec<u32> = running[1..].iter().map(|process| process.pid).collect();
    assert!(!orphans.is_empty());
    command.kill();
    let killed = command.finish();
    assert_eq!(killed.signal, Some(9), "{killed}");
    let left = about_all(&sandbox.data());
    for (path, (mode, content)) in &left {
        let Some(content) = content else { continue };
        assert!(!holds(content, WINDMILL_TOKEN), "{}", path.display());
        // The value in place of the token is valid only for the killed run. Still, only we can read it.
        assert!(!path.ends_with("wmill/windmill/remotes.ndjson") || *mode == 0o600, "{}", path.display());
    }
    assert!(left.keys().any(|path| path.ends_with("wmill/windmill/remotes.ndjson")), "wmill was about to pull");
    assert_nothing_leaked(&killed.texts(), &[], &ALL);
    // Its wmill still waits and holds the lock.
    let service = planted(sandbox.service(), &remote, "text").serve();
    assert_eq!(service.get("/health").status, 200);
    drop(held);
    let answer = post(&service, "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(run::text_field(&answer.json(), "commit"), repository.tip("main"));
    assert_eq!(repository.log("main").len(), 1);
    assert_nothing_leaked(&[("log", service.log().as_bytes())], &[&sandbox.data()], &ALL);
    for orphan in orphans {
        eventually("the orphan is gone", || {
            processes_below(orphan).first().is_none_or(|process| process.arguments.is_empty()).then_some(())
        });
    }
}

#[test]
#[ignore = "needs sshd: just test-ssh"]
fn only_ssh_gets_the_key() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let remote = GitSsh::serve(&repository);
    let key = remote.client_key();
    let secrets = [&ALL[..], &[&key]].concat();
    for program in ["git", "wmill", "ssh"] {
        sandbox.record(program);
    }
    let outcome = planted(sandbox.sync(), &remote, "text").run().expect("pushed");
    assert_nothing_leaked(&outcome.texts(), &[&sandbox.data()], &secrets);
    for program in ["git", "wmill", "ssh"] {
        for started in sandbox.invocations(program) {
            assert_strings_clean(program, started.arguments.iter(), &secrets);
            assert_strings_clean(program, started.environment.iter(), &[&key, WINDMILL_TOKEN, API_TOKEN]);
            let key_file = started.environment.iter().any(|variable| variable.contains("IdentityFile="));
            assert!(program != "wmill" || !key_file, "wmill need not know where the key lies");
        }
    }
    assert_nothing_leaked(&[("the remote", &repository.everything())], &[repository.path()], &secrets);
    // This ssh prints the key that it was given.
    sandbox.program("ssh", "for w in \"$@\"; do case \"$w\" in IdentityFile=*) f=${w#*=}; f=${f#?}; cat \"${f%?}\" >&2;; esac; done; exit 1");
    check_failure(&sandbox, &remote, "git_unreachable", &secrets);
}

#[test]
fn no_program_of_a_run_can_leave_a_core_file() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    sandbox.program("wmill", "echo core $(ulimit -Sc) $(ulimit -Hc); exit 1");
    let failed = sandbox.sync().remote(&repository).run().expect("pull_failed");
    assert!(failed.message().contains("core 0 0"), "{}", failed.message());
}
