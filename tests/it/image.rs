//! The image on a real Docker Engine: its content, and that it works locked down, as `docker-compose.yml` runs it,
//! included into a compose file like a user's.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use miniserde::json::{self, Value};

use support::process::{self, eventually};
use support::run::{field, text_field};
use support::stack::{self, EntryType, IMAGE, ImageFile, SERVICE, files_of_image, run_docker, said_by_docker};
use support::{BareRepository, GitHttp, GitSsh, Sandbox, Stack, WINDMILL_TOKEN, Workspace};

/// The maximum size in bytes of the unpacked image, of its gzipped archive, and of our own program.
const UNPACKED_MAX: u64 = 170_000_000;
const GZIPPED_MAX: usize = 75_000_000;
const PROGRAM_MAX: u64 = 3_000_000;
/// All programs of the image. A program that is not in this list (a shell, for example) must not be in it.
const PROGRAMS: [&str; 5] = ["git", "ssh", "ssh-keygen", "windmill-git-sync", "wmill"];
/// The restrictions of the compose file, for a container without compose.
const LOCK_DOWN: &str = "--read-only --cap-drop ALL --security-opt no-new-privileges --tmpfs /tmp --network none";

fn answer(text: &str) -> Value {
    json::from_str(text).unwrap_or_else(|_| panic!("no JSON: {text}"))
}

/// Returns a repository behind HTTP with a person's file in it.
fn remote(sandbox: &Sandbox) -> (BareRepository, GitHttp) {
    let repository = sandbox.repository();
    repository.commit_files("main", &[("README.md", "ours\n")]);
    let served = GitHttp::serve(&repository);
    (repository, served)
}

#[test]
#[ignore = "needs a Docker Engine: just test-image"]
fn the_image_is_small() {
    let mut groups: BTreeMap<String, u64> = BTreeMap::new();
    let files = files_of_image();
    for file in &files {
        *groups.entry(group(&file.path)).or_default() += file.bytes;
    }
    let unpacked: u64 = groups.values().sum();
    let saved = process::start(stack::docker(["save", IMAGE])).finish_within(process::PATIENCE).must_succeed();
    let gzip = process::clean_command("gzip");
    let gzipped = process::run_with_input(gzip, saved.stdout).must_succeed().stdout.len();
    let mut rows: Vec<_> = groups.into_iter().collect();
    rows.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let table: String = rows.iter().map(|(group, bytes)| format!("{bytes:>12}  {group}\n")).collect();
    let table =
        format!("       bytes  of the image\n{table}{unpacked:>12}  all of it\n{gzipped:>12}  `docker save | gzip`\n");
    process::say(&table);
    let program = files.iter().find(|file| file.path == "usr/bin/windmill-git-sync").expect("our program").bytes;
    assert!(unpacked <= UNPACKED_MAX, "unpacked: more than {UNPACKED_MAX}\n{table}");
    assert!(gzipped <= GZIPPED_MAX, "gzipped: more than {GZIPPED_MAX}\n{table}");
    assert!(program <= PROGRAM_MAX, "our program: more than {PROGRAM_MAX}\n{table}");
}

/// Returns the group of a file in the size table: a program has its own, other files are grouped by kind.
fn group(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or_default();
    match path {
        _ if path.starts_with("usr/bin/") => name.to_owned(),
        _ if path.starts_with("usr/lib/git-core/") => name.to_owned(),
        _ if path.starts_with("usr/lib") => "libraries".to_owned(),
        _ if path.starts_with("usr/share/doc/") => "licences and SBOM".to_owned(),
        _ => "certificates and the rest".to_owned(),
    }
}

#[test]
#[ignore = "needs a Docker Engine: just test-image"]
fn the_image_has_no_shell_no_setuid_file_and_no_file_writable_by_others() {
    let files = files_of_image();
    let names: Vec<_> = files.iter().filter_map(|file| file.path.strip_prefix("usr/bin/")).collect();
    assert_eq!(names, PROGRAMS, "programs on the PATH");
    let helpers: Vec<_> = files.iter().filter_map(|file| file.path.strip_prefix("usr/lib/git-core/")).collect();
    assert_eq!(helpers, ["git-remote-http", "git-remote-https"], "programs that git starts by itself");
    let is_file = |file: &&ImageFile| file.kind == EntryType::Regular;
    for file in files.iter().filter(is_file) {
        let is_program = file.path.starts_with("usr/bin/") || file.path.starts_with("usr/lib/git-core/");
        // Debian marks the loader and the C library as executable. Each prints a text about itself.
        let is_of_libc = file.path.contains("/ld-linux") || file.path.ends_with("/libc.so.6");
        assert!(file.mode & 0o111 == 0 || is_program || is_of_libc, "{} can be executed", file.path);
        assert!(!file.content.starts_with(b"#!"), "{} is a script", file.path);
    }
    for file in &files {
        let (path, mode) = (&file.path, file.mode);
        assert_eq!(mode & 0o6000, 0, "{path} is setuid or setgid");
        let may_all_write = mode & 0o002 != 0 && file.kind != EntryType::Symlink;
        assert_eq!(may_all_write, path == "tmp", "{path} has mode {mode:o}");
        let owner = if path == "workspace" { (65_532, 0) } else { (0, 0) };
        assert_eq!(file.owner, owner, "{path}");
    }
    let mode_of = |path: &str| files.iter().find(|file| file.path == path).map(|file| file.mode & 0o7777);
    assert_eq!((mode_of("tmp"), mode_of("workspace")), (Some(0o1777), Some(0o770)));
}

#[test]
#[ignore = "needs a Docker Engine: just test-image"]
fn the_image_has_exactly_the_needed_libraries() {
    let files = files_of_image();
    let elf = |file: &&ImageFile| file.content.starts_with(b"\x7fELF");
    let loader = files.iter().filter(elf).find(|file| file.path.contains("/ld-linux")).expect("the loader");
    let mut loaded = BTreeSet::from([loader.path.rsplit('/').next().unwrap().to_owned()]);
    // The C library loads the last one because nsswitch.conf names it.
    let roots = ["git", "ssh", "ssh-keygen", "wmill", "git-remote-http", "libnss_unknown.so.2"];
    for root in roots {
        let suffix = format!("/{root}");
        let file = files.iter().find(|file| file.path.ends_with(&suffix)).unwrap_or_else(|| panic!("no {root}"));
        loaded.insert(root.to_owned());
        let (entry, path) = (format!("--entrypoint=/{}", loader.path), format!("/{}", file.path));
        let listed = run_docker(["run", "--rm", &entry, IMAGE, "--list", &path]).stdout_text();
        assert!(!listed.contains("not found"), "{root}:\n{listed}");
        loaded.extend(listed.lines().filter_map(|line| Some(line.trim().split_once(" => ")?.0.to_owned())));
    }
    for library in files.iter().filter(|file| file.path.starts_with("usr/lib/") && file.path.contains(".so")) {
        let name = library.path.rsplit('/').next().unwrap();
        let is_behind_a_name = files.iter().any(|link| {
            let target = link.target.as_ref().is_some_and(|target| target.file_name().is_some_and(|to| to == name));
            target && link.path.rsplit('/').next().is_some_and(|from| loaded.contains(from))
        });
        assert!(loaded.contains(name) || is_behind_a_name, "nothing needs {}", library.path);
    }
    let own = said_by_docker(&format!("run --rm {LOCK_DOWN} {IMAGE} --version"));
    assert_eq!(own, concat!("windmill-git-sync ", env!("CARGO_PKG_VERSION")), "static, hence not listed");
}

#[test]
#[ignore = "needs a Docker Engine: just test-image"]
fn the_sbom_lists_everything_in_the_image() {
    let files = files_of_image();
    let sbom = files.iter().find(|file| file.path == "usr/share/doc/windmill-git-sync/sbom.cdx.json").expect("an SBOM");
    let sbom = answer(std::str::from_utf8(&sbom.content).unwrap());
    assert_eq!(text_field(&sbom, "metadata.component.version").as_deref(), Some(env!("CARGO_PKG_VERSION")));
    let Value::Array(components) = field(&sbom, "components") else { panic!("components are a list") };
    let named: BTreeSet<_> = components.iter().filter_map(|one| text_field(one, "purl")).collect();
    let has = |purl: &str| named.iter().any(|one| one.starts_with(purl));
    let wmill = support::wmill::version();
    for purl in
        [&format!("pkg:npm/windmill-cli@{wmill}"), "pkg:npm/%40oven/bun-linux-", "pkg:cargo/ring@", "pkg:cargo/ureq@"]
    {
        assert!(has(purl), "no {purl} in {named:#?}");
    }
    let cli = components.iter().find(|one| text_field(one, "name").as_deref() == Some("windmill-cli")).unwrap();
    let changes = text_field(cli, "pedigree.notes").unwrap();
    assert!(changes.contains("Changed by windmill-git-sync") && changes.contains("in memory"), "{changes}");
    assert!(!has("pkg:cargo/zip@") && !has("pkg:cargo/argh_derive@"), "what is not linked is not in it: {named:#?}");
    // Debian's own records name the package of each file that could belong to one.
    stack::build("windmill-git-sync:test-debian", Some("debian"));
    let ours = ["usr/bin/windmill-git-sync", "usr/bin/wmill", "usr/share/doc/windmill-git-sync"];
    let of_debian = files
        .iter()
        .filter(|file| file.path.starts_with("usr/") && file.kind == EntryType::Regular)
        .filter(|file| !ours.iter().any(|path| file.path.starts_with(path)))
        .map(|file| format!("/{}", file.path));
    let mut words: Vec<String> =
        ["run", "--rm", "windmill-git-sync:test-debian", "dpkg", "--search"].map(str::to_owned).into();
    words.extend(of_debian);
    let owners = run_docker(&words).stdout_text();
    let packages: BTreeSet<_> = owners.lines().filter_map(|line| line.split([':', ',']).next()).collect();
    assert!(packages.len() > 20 && packages.contains("git"), "{packages:?}");
    for package in packages {
        assert!(has(&format!("pkg:deb/debian/{package}@")), "no {package} in {named:#?}");
    }
}

#[test]
#[ignore = "needs a Docker Engine: just test-image"]
fn in_compose_with_windmill_it_is_healthy_and_syncs_in_each_way_of_the_readme() {
    let sandbox = Sandbox::on_disk();
    let (repository, served) = remote(&sandbox);
    let stack = Stack::new(&sandbox).remote(&served);
    stack.up();
    assert_eq!(stack.inspect("{{.State.Health.Status}}"), "healthy");

    let by_curl = stack.curl(&["-X", "POST", "http://windmill-git-sync:8080/sync"]).stdout_text();
    assert_eq!(text_field(&answer(&by_curl), "code").as_deref(), Some("pushed"), "{by_curl}");
    assert_eq!(text_field(&answer(&by_curl), "commit"), repository.tip("main"));
    assert!(repository.files("main").contains_key("f/ops/nightly.flow/flow.yaml"));

    let by_exec = stack.run(&["exec", "--no-TTY", SERVICE, "windmill-git-sync", "sync"]).stdout_text();
    assert_eq!(text_field(&answer(&by_exec), "code").as_deref(), Some("unchanged"), "{by_exec}");

    sandbox.windmill.state("2-edited");
    let one_shot = stack.sync(&[]).expect("pushed");
    assert_eq!(one_shot.commit(), repository.tip("main"), "{one_shot}");
    assert_eq!(repository.regular_files("main")["README.md"], b"ours\n");

    let checkout = || stack.in_volume("stat --format='%n %i %W' /workspace/windmill-git-sync/checkouts/*/git");
    let before = checkout();
    stack.run(&["restart", SERVICE]);
    stack.up();
    let after = stack.curl(&["-X", "POST", "http://windmill-git-sync:8080/sync"]).stdout_text();
    assert_eq!(text_field(&answer(&after), "code").as_deref(), Some("unchanged"), "{after}");
    assert_eq!(text_field(&answer(&after), "commit"), repository.tip("main"));
    assert_eq!(checkout(), before, "the one checkout is still the first one");
}

#[test]
#[ignore = "needs a Docker Engine: just test-image"]
fn compose_runs_it_locked_down() {
    let sandbox = Sandbox::on_disk();
    let (_, served) = remote(&sandbox);
    let stack = Stack::new(&sandbox).remote(&served);
    stack.up();
    let host = stack.inspect(
        "{{.Config.User}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.SecurityOpt}} \
         {{.HostConfig.Memory}} {{.HostConfig.Init}} {{.HostConfig.RestartPolicy.Name}} {{.HostConfig.PortBindings}}",
    );
    assert_eq!(host, "65532:65532 true [ALL] [no-new-privileges:true] 536870912 true unless-stopped map[]");
    let id = stack.run(&["ps", "--quiet", SERVICE]).stdout_text();
    let status = run_docker(["top", id.trim(), "-eo", "pid,uid,args"]).stdout_text();
    let processes: Vec<_> = status.lines().skip(1).filter(|line| line.contains("windmill-git-sync")).collect();
    assert!(!processes.is_empty() && processes.iter().all(|line| line.contains(" 65532 ")), "{status}");
}

#[test]
#[ignore = "needs a Docker Engine: just test-image"]
fn a_running_sync_finishes_after_sigterm_and_its_caller_gets_the_answer() {
    let sandbox = Sandbox::on_disk();
    let (repository, served) = remote(&sandbox);
    let stack = Stack::new(&sandbox).remote(&served);
    stack.up();
    let held = sandbox.windmill.hold_exports();
    let url = "http://windmill-git-sync:8080/sync";
    let caller = stack.start(&["exec", "--no-TTY", "windmill_server", "curl", "--silent", "-X", "POST", url]);
    held.wait_for(1);
    let stopping = stack.start(&["stop", SERVICE]);
    eventually("SIGTERM arrives", || {
        stack.run(&["logs", SERVICE]).stdout_text().contains("shutting down; ").then_some(())
    });
    held.release();
    let answered = caller.finish_within(process::PATIENCE).must_succeed().stdout_text();
    assert_eq!(text_field(&answer(&answered), "code").as_deref(), Some("pushed"), "{answered}");
    assert_eq!(text_field(&answer(&answered), "commit"), repository.tip("main"));
    stopping.finish_within(process::PATIENCE).must_succeed();
    assert_eq!(stack.inspect("{{.State.Status}} {{.State.ExitCode}}"), "exited 0");
}

#[test]
#[ignore = "needs a Docker Engine: just test-image"]
fn a_uid_without_a_name_can_sync_over_ssh_with_secrets_from_files() {
    let sandbox = Sandbox::on_disk();
    let repository = sandbox.repository();
    let served = GitSsh::serve(&repository);
    let stack = Stack::new(&sandbox)
        .remote(&served)
        .without("WINDMILL_TOKEN")
        .set_file("WINDMILL_TOKEN_FILE", &format!("{WINDMILL_TOKEN}\n"));
    stack.run(&["up", "--detach", "windmill_server", "git_server"]);
    // The user has no entry in passwd. A fresh volume belongs to group 0.
    let pushed = stack.sync(&["--user", "12345:0"]).expect("pushed");
    assert_eq!(pushed.commit(), repository.tip("main"), "{pushed}");
    let owners = stack.in_volume("stat --format=%u:%g /workspace /workspace/windmill-git-sync");
    assert_eq!(owners, "65532:0\n12345:0\n");
    assert!(served.commands().iter().any(|command| command.starts_with("git-receive-pack ")));
}

#[test]
#[ignore = "needs a Docker Engine: just test-image"]
fn commits_are_signed_by_a_user_without_a_passwd_entry() {
    use crate::signing::ssh::{is_signed_by, key};
    let sandbox = Sandbox::on_disk();
    let (repository, served) = remote(&sandbox);
    let (private, public) = key(&sandbox, "signing", &["-t", "ed25519", "-N", ""]);
    let stack = Stack::new(&sandbox).remote(&served).set_file("GIT_SIGNING_KEY_FILE", &private);
    stack.run(&["up", "--detach", "windmill_server", "git_server"]);
    stack.sync(&["--user", "12345:0"]).expect("pushed");
    assert!(is_signed_by(&sandbox, repository.path(), &public));
}

#[test]
#[ignore = "needs a Docker Engine: just test-image"]
fn all_three_programs_use_https_and_verify_certificates() {
    let sandbox = Sandbox::on_disk();
    let (repository, served) = remote(&sandbox);
    let stack = Stack::new(&sandbox)
        .remote(&served)
        .tls_neighbour("windmill-tls", sandbox.windmill.address())
        .tls_neighbour("git-tls", served.base().trim_start_matches("http://").parse().unwrap())
        .set("WINDMILL_BASE_URL", "https://windmill-tls")
        .set("GIT_REMOTE_URL", "https://git-tls/backup.git");
    let certificates = stack.certificates(&["windmill-tls", "git-tls"]);
    stack.run(&["up", "--detach", "windmill-tls", "git-tls"]);
    let trusted = |variables: &[&str]| {
        let variables: Vec<_> = variables.iter().map(|name| format!("{name}=/certificates/ca.pem")).collect();
        let mut options = vec!["--user", "12345:0", "--volume", &certificates];
        options.extend(variables.iter().flat_map(|variable| ["--env", variable]));
        stack.sync(&options)
    };
    // In the first run only our program does not trust the authority, in the second only git. wmill trusts the
    // authorities of both variables.
    trusted(&["NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO"]).expect("windmill_unreachable");
    trusted(&["SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"]).expect("git_unreachable");
    let wmill_alone = |options: &[&str]| {
        let command = ["--base-url", "https://windmill-tls/", "--workspace", "shop", "--token", WINDMILL_TOKEN, "user"];
        let container = ["run", "--rm", "--no-TTY", "--entrypoint", "wmill"];
        sandbox.windmill.forget_requests();
        stack.try_run(&[&container, options, &[SERVICE], &command].concat());
        sandbox.windmill.requests().len()
    };
    assert_eq!(wmill_alone(&[]), 0, "wmill sends no request to a server that it does not trust");
    assert!(wmill_alone(&["--volume", &certificates, "--env", "NODE_EXTRA_CA_CERTS=/certificates/ca.pem"]) > 0);
    // Only the arrival of the request matters. No answer to it was recorded.
    assert_eq!(sandbox.windmill.take_unknown().len(), 1);
    let pushed = trusted(&["SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO"]).expect("pushed");
    assert_eq!(pushed.commit(), repository.tip("main"));
}

#[test]
#[ignore = "needs a Docker Engine: just test-image"]
fn an_ssh_server_with_another_key_is_refused() {
    let sandbox = Sandbox::on_disk();
    let repository = sandbox.repository();
    let served = GitSsh::serve(&repository);
    let stack = Stack::new(&sandbox).remote(&served);
    stack.run(&["up", "--detach", "windmill_server", "git_server"]);
    served.change_host_key();
    stack.sync(&["--user", "12345:0"]).expect("git_unreachable");
    assert_eq!(repository.tip("main"), None);
}

#[test]
#[ignore = "needs a Docker Engine: just test-image"]
fn a_repository_on_the_volume_can_be_the_remote() {
    let sandbox = Sandbox::on_disk();
    let stack = Stack::new(&sandbox).set("GIT_REMOTE_URL", "file:///workspace/our-backups.git");
    stack.run(&["up", "--detach", "windmill_server"]);
    stack.sync(&[]).expect("git_failed");
    let debian = format!("{}:/workspace", stack.volume());
    stack::build("windmill-git-sync:test-debian", Some("debian"));
    let git = |script: &str| {
        let words = ["run", "--rm", "--volume", &debian, "windmill-git-sync:test-debian", "sh", "-euc", script];
        run_docker(words).stdout_text()
    };
    git("cd /workspace; git init --quiet --bare our-backups.git; chown -R 65532:0 our-backups.git");
    let pushed = stack.sync(&[]).expect("pushed");
    let tip = git("git -c safe.directory=* -C /workspace/our-backups.git rev-parse main");
    assert_eq!(pushed.commit().as_deref(), Some(tip.trim()));
    stack.sync(&[]).expect("unchanged");
}

#[test]
#[ignore = "needs a Docker Engine: just test-image"]
fn a_volume_of_the_old_service_is_refused_until_its_owner_changes_and_its_files_stay() {
    let sandbox = Sandbox::on_disk();
    let (repository, served) = remote(&sandbox);
    let stack = Stack::new(&sandbox).remote(&served);
    // These are leftovers of an old service that ran as root. wmill searches upwards for a wmill.yaml and would use
    // this one: without a shell it does not see that a repository ends below it.
    let old = "mkdir /workspace/.git /workspace/f && echo '[core]' >/workspace/.git/config \
               && printf 'includes: []\\nexcludes: [\"**\"]\\n' >/workspace/wmill.yaml && chmod 755 /workspace \
               && chown -R 0:0 /workspace";
    stack.in_volume(old);
    let before = stack.in_volume("cd /workspace && find . -type f | sort | xargs sha256sum");
    stack.run(&["up", "--detach", "windmill_server", "git_server"]);
    let refused = stack.sync(&[]).expect("config_invalid");
    let message = refused.message();
    let mending = message.split('`').nth(1).unwrap_or_else(|| panic!("no line that mends it: {message}"));
    let mending = mending.replace("windmill-workspace-data", &stack.volume());
    assert!(mending.starts_with("docker run "), "{mending}");
    said_by_docker(mending.strip_prefix("docker ").unwrap());

    let pushed = stack.sync(&[]).expect("pushed");
    assert!(pushed.changed().0 > 10, "the old wmill.yaml excludes everything: {pushed}");
    assert_eq!(pushed.commit(), repository.tip("main"));
    let after = stack.in_volume(
        "cd /workspace && find . -path ./windmill-git-sync -prune -o -type f -print | sort | xargs sha256sum",
    );
    assert_eq!(after, before);
}

#[test]
#[ignore = "needs a Docker Engine: just test-image"]
fn a_repository_cannot_configure_wmill() {
    let sandbox = Sandbox::on_disk();
    let repository = sandbox.repository();
    // Each of these files would stop wmill from working if bun read it.
    repository.commit_files(
        "main",
        &[
            (".env", "HTTP_PROXY=http://127.0.0.1:9\nhttp_proxy=http://127.0.0.1:9\nWMILL_CONFIG_DIR=/nowhere\n"),
            ("bunfig.toml", "preload = [\"./preload.ts\"]\n"),
            ("preload.ts", "process.exit(3)\n"),
            ("package.json", "{\"name\": \"x\", \"imports\": {\"#x\": \"./preload.ts\"}}\n"),
            ("tsconfig.json", "{\"compilerOptions\": {\"paths\": {\"*\": [\"./preload.ts\"]}}}\n"),
        ],
    );
    let served = GitHttp::serve(&repository);
    let stack = Stack::new(&sandbox).remote(&served);
    stack.run(&["up", "--detach", "windmill_server", "git_server"]);
    stack.sync(&[]).expect("pushed");
}

/// With `IMAGE_TEST_SCRIPTS=2000`, this tests the size for which the limit is made. It then takes some minutes.
#[test]
#[ignore = "needs a Docker Engine: just test-image"]
fn a_workspace_of_many_scripts_fits_into_the_memory_limit_of_compose() {
    let sandbox = Sandbox::on_disk();
    let (repository, served) = remote(&sandbox);
    let count: usize = std::env::var("IMAGE_TEST_SCRIPTS").map_or(300, |count| count.parse().unwrap());
    sandbox.windmill.set("shop", Workspace::of_scripts(count));
    let stack = Stack::new(&sandbox).remote(&served);
    stack.up();
    let url = "http://windmill-git-sync:8080/sync";
    let words = ["exec", "--no-TTY", "windmill_server", "curl", "--silent", "--show-error", "-X", "POST", url];
    for expected in ["pushed", "unchanged"] {
        let patience = Duration::from_secs(120 + count as u64 / 2);
        let answered = stack.start(&words).finish_within(patience).must_succeed().stdout_text();
        assert_eq!(text_field(&answer(&answered), "code").as_deref(), Some(expected), "{answered}");
        process::say(&format!("{count} scripts: {answered}"));
    }
    assert!(repository.files("main").len() > 2 * count);
    assert_eq!(stack.inspect("{{.State.OOMKilled}} {{.RestartCount}}"), "false 0");
}
