//! The image as its users run it: a compose file with a `windmill_server` that includes our compose file, on a real
//! Docker Engine. The stand-in for Windmill and the git servers run in the test's process, where a test can inject
//! faults and read their logs. For each of them, a container with its name forwards connections to it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

pub use tar::EntryType;

use super::git::Remote;
use super::process::{self, Finished, Started};
use super::project;
use super::run::Outcome;
use super::sandbox::Sandbox;
use super::windmill::{SHOP, WINDMILL_TOKEN};

/// The image under test. It does not replace a user's `windmill-git-sync`.
pub const IMAGE: &str = "windmill-git-sync:test";
/// The name of our service in the compose file.
pub const SERVICE: &str = "windmill-git-sync";
/// The image of the containers beside ours, with `curl`.
const NEIGHBOUR: &str = "windmill-git-sync-test-neighbour";
/// How long a build may take: downloads and two compilations on a small machine.
const BUILD_PATIENCE: Duration = Duration::from_secs(1_200);

/// Returns `docker` with the environment that it needs to find the engine, and without any variable that could be one
/// of our settings.
pub fn docker<I: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = I>) -> Command {
    let mut command = process::clean_command("docker");
    for (name, value) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("DOCKER_") || text.starts_with("COMPOSE_") || text == "HOME" {
            command.env(name, value);
        }
    }
    command.args(arguments);
    command
}

/// Runs `docker` to its end. It must succeed.
#[track_caller]
pub fn run_docker<I: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = I>) -> Finished {
    process::run(docker(arguments)).must_succeed()
}

/// Returns the output of `docker` for these words, without the line break.
#[track_caller]
pub fn said_by_docker(words: &str) -> String {
    run_docker(words.split_whitespace()).stdout_text().trim_end().to_owned()
}

/// Builds a stage of our `Dockerfile.scratch`, or the whole image.
#[track_caller]
pub fn build(tag: &str, stage: Option<&str>) {
    let root = project();
    let mut words = vec!["build", "--file", "Dockerfile.scratch", "--tag", tag];
    words.extend(stage.into_iter().flat_map(|stage| ["--target", stage]));
    let mut command = docker(words);
    command.arg(root).current_dir(root);
    process::start(command).finish_within(BUILD_PATIENCE).must_succeed();
}

/// Builds the image, once for all tests, and the neighbour's image.
#[track_caller]
pub fn image() -> &'static str {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let engine = process::run(docker(["version", "--format", "{{.Server.Version}}"]));
        assert!(engine.success(), "these tests need a Docker Engine with Compose: {engine}");
        build(IMAGE, None);
        let recipe = "FROM debian:trixie-slim\n\
                      RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends curl openssl socat\n";
        let neighbour = docker(["build", "--tag", NEIGHBOUR, "-"]);
        process::start_with_input(neighbour, recipe.into()).finish_within(BUILD_PATIENCE).must_succeed();
    });
    IMAGE
}

/// A compose project with its own volume. Both are removed when it is dropped.
pub struct Stack<'a> {
    sandbox: &'a Sandbox,
    project: String,
    folder: PathBuf,
    /// The content of `.env`.
    settings: BTreeMap<String, String>,
    /// Servers beside ours: name, what socat listens on, and the real address.
    neighbours: Vec<(String, String, SocketAddr)>,
}

impl<'a> Stack<'a> {
    /// Creates a stack with the sandbox's Windmill as `windmill_server`, and a fresh volume.
    #[track_caller]
    pub fn new(sandbox: &'a Sandbox) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let image = image();
        let project = format!("wgs-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = sandbox.scratch(&project);
        std::fs::create_dir(folder.join("certificates")).unwrap();
        let settings = BTreeMap::new();
        let stack = Self { sandbox, project, folder, settings, neighbours: Vec::new() };
        run_docker(["volume", "create", &stack.volume()]);
        let volume = stack.volume();
        stack
            .neighbour("windmill_server", 8000, sandbox.windmill.address())
            .set("WINDMILL_GIT_SYNC_IMAGE", image)
            .set("WORKSPACE_VOLUME", &volume)
            .set("WINDMILL_WORKSPACE", SHOP)
            .set("WINDMILL_TOKEN", WINDMILL_TOKEN)
    }

    /// Returns the name of the volume at `/workspace`.
    pub fn volume(&self) -> String {
        format!("{}-data", self.project)
    }

    /// Sets a variable in `.env`.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.insert(name.to_owned(), value.to_owned());
        self.write();
        self
    }

    /// Removes a variable from `.env`.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.settings.remove(name);
        self.write();
        self
    }

    /// Adds a server in the test's process, which containers reach by this name and port.
    #[must_use]
    pub fn neighbour(mut self, name: &str, port: u16, real: SocketAddr) -> Self {
        self.neighbours.push((name.to_owned(), format!("TCP-LISTEN:{port}"), hand_on(real)));
        self.write();
        self
    }

    /// Adds the same over TLS at port 443, with a certificate that [`Stack::certificates`] made.
    #[must_use]
    pub fn tls_neighbour(mut self, name: &str, real: SocketAddr) -> Self {
        let listen = "OPENSSL-LISTEN:443,cert=/certificates/server.pem,verify=0";
        self.neighbours.push((name.to_owned(), listen.to_owned(), hand_on(real)));
        self.write();
        self
    }

    /// Makes a private certificate authority and a certificate for these names. Returns the mount option for the folder
    /// with `ca.pem`.
    #[track_caller]
    pub fn certificates(&self, names: &[&str]) -> String {
        let names: Vec<_> = names.iter().map(|name| format!("DNS:{name}")).collect();
        let script = format!(
            "cd /certificates && umask 022 \
             && new='openssl req -x509 -newkey rsa:2048 -nodes -days 2' \
             && $new -subj /CN=authority -keyout ca.key -out ca.pem \
             && $new -CA ca.pem -CAkey ca.key -subj /CN=server -addext basicConstraints=critical,CA:FALSE \
                -addext subjectAltName={} -keyout server.key -out server.crt \
             && cat server.crt server.key >server.pem",
            names.join(",")
        );
        let mount = format!("{}:/certificates", self.folder.join("certificates").display());
        run_docker(["run", "--rm", "--volume", &mount, NEIGHBOUR, "sh", "-euc", &script]);
        mount
    }

    /// Sets our settings for this remote, which containers reach as `git_server`.
    #[must_use]
    pub fn remote(self, remote: &impl Remote) -> Self {
        let url = remote.url();
        let (scheme, rest) = url.split_once("://").unwrap();
        let (place, path) = rest.split_once('/').unwrap();
        let (user, real) = place.split_at(place.find('@').map_or(0, |at| at + 1));
        let port = if scheme == "ssh" { 22 } else { 80 };
        let mut stack = self.neighbour("git_server", port, real.parse().unwrap());
        for (name, value) in remote.credentials() {
            stack = match name.as_str() {
                "GIT_SSH_KEY" => stack.set_file("GIT_SSH_KEY_FILE", &value),
                "GIT_SSH_KNOWN_HOSTS_FILE" => {
                    let line = std::fs::read_to_string(value).unwrap();
                    let key = line.split_once(' ').unwrap().1;
                    stack.set_file(&name, &format!("git_server {key}"))
                }
                _ => stack.set(&name, &value),
            };
        }
        stack.set("GIT_REMOTE_URL", &format!("{scheme}://{user}git_server/{path}"))
    }

    /// Sets a variable to the path of a file with this content.
    #[must_use]
    pub fn set_file(self, name: &str, content: &str) -> Self {
        let path = self.file(name, content);
        self.set(name, &path.display().to_string())
    }

    /// Writes a file that any user can read, as the container needs for a secret.
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.join(name);
        super::sandbox::write_with_mode(&path, content.as_bytes(), 0o644);
        path
    }

    fn write(&self) {
        let mut compose = format!("include:\n  - {}/docker-compose.yml\nservices:\n", project().display());
        for (name, listen, real) in &self.neighbours {
            let _ = write!(
                compose,
                "  {name}:\n    image: {NEIGHBOUR}\n    init: true\n    stop_grace_period: 1s\n    \
                 command: socat {listen},fork,reuseaddr TCP:host.docker.internal:{}\n    \
                 volumes: [\"./certificates:/certificates\"]\n    \
                 extra_hosts: [\"host.docker.internal:host-gateway\"]\n",
                real.port()
            );
        }
        let lines: String = self.settings.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        std::fs::write(self.folder.join("compose.yaml"), compose).unwrap();
        std::fs::write(self.folder.join(".env"), lines).unwrap();
    }

    fn compose(&self, words: &[&str]) -> Command {
        let mut command = docker(["compose", "--project-name", &self.project]);
        command.current_dir(&self.folder).args(words);
        command
    }

    /// Runs `docker compose` to its end.
    #[track_caller]
    pub fn try_run(&self, words: &[&str]) -> Finished {
        process::run(self.compose(words))
    }

    /// Runs `docker compose` to its end. It must succeed.
    #[track_caller]
    pub fn run(&self, words: &[&str]) -> Finished {
        self.try_run(words).must_succeed()
    }

    /// Starts `docker compose`, for a test that does something in the meantime.
    #[track_caller]
    pub fn start(&self, words: &[&str]) -> Started {
        process::start(self.compose(words))
    }

    /// Starts all services and waits until ours is healthy.
    #[track_caller]
    pub fn up(&self) {
        self.run(&["up", "--detach", "--wait"]);
    }

    /// Runs one sync in its own container, with these options of `docker compose run`, and returns its outcome.
    #[track_caller]
    pub fn sync(&self, options: &[&str]) -> Outcome {
        let words = [&["run", "--rm", "--no-TTY"], options, &[SERVICE, "sync"]].concat();
        Outcome::of(&self.try_run(&words))
    }

    /// Runs `curl` in the container of `windmill_server`.
    #[track_caller]
    pub fn curl(&self, words: &[&str]) -> Finished {
        self.run(&[&["exec", "--no-TTY", "windmill_server", "curl", "--silent", "--show-error"], words].concat())
    }

    /// Returns the output of `docker inspect` for our container.
    #[track_caller]
    pub fn inspect(&self, format: &str) -> String {
        let id = self.run(&["ps", "--all", "--quiet", SERVICE]).stdout_text();
        run_docker(["inspect", "--format", format, id.trim()]).stdout_text().trim_end().to_owned()
    }

    /// Runs a shell command on the volume, as root, in a Debian container.
    #[track_caller]
    pub fn in_volume(&self, script: &str) -> String {
        let mount = format!("{}:/workspace", self.volume());
        let words = ["run", "--rm", "--volume", &mount, "debian:trixie-slim", "sh", "-euc", script];
        run_docker(words).stdout_text()
    }

    /// Returns the sandbox of the stack.
    pub fn sandbox(&self) -> &Sandbox {
        self.sandbox
    }
}

impl Drop for Stack<'_> {
    fn drop(&mut self) {
        let _ = process::run(self.compose(&["down", "--timeout", "2", "--remove-orphans"]));
        let _ = process::run(docker(["volume", "rm", "--force", &self.volume()]));
    }
}

/// Returns the address of `host-gateway`, as a container sees it.
fn gateway() -> IpAddr {
    static GATEWAY: OnceLock<IpAddr> = OnceLock::new();
    let ask = || {
        let asked = format!("run --rm --add-host there:host-gateway {NEIGHBOUR} getent ahostsv4 there");
        said_by_docker(&asked).split_whitespace().next().and_then(|address| address.parse().ok())
    };
    *GATEWAY.get_or_init(|| ask().expect("an address by which containers reach this machine"))
}

/// Listens where containers can reach it, and forwards connections to `real`, which listens on 127.0.0.1. The thread
/// ends with the test process.
fn hand_on(real: SocketAddr) -> SocketAddr {
    // If the engine runs in its own virtual machine, the gateway's address belongs to that machine and leads to our
    // loopback.
    let listener = TcpListener::bind((gateway(), 0)).or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let listener = listener.expect("a port for containers to reach");
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let Ok(to) = TcpStream::connect(real) else { return };
                let (Ok(from_back), Ok(to_back)) = (stream.try_clone(), to.try_clone()) else { return };
                let back = thread::spawn(move || copy(to_back, from_back));
                copy(stream, to);
                let _ = back.join();
            });
        }
    });
    address
}

/// Copies one direction of a connection, including its end.
fn copy(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

/// A file of the image, as `docker export` gives it.
pub struct ImageFile {
    pub path: String,
    pub kind: EntryType,
    pub mode: u32,
    pub owner: (u64, u64),
    pub bytes: u64,
    /// The target of a link.
    pub target: Option<PathBuf>,
    pub content: Vec<u8>,
}

/// Returns all files of the image, without those that the engine puts into each container.
#[track_caller]
pub fn files_of_image() -> Vec<ImageFile> {
    let id = said_by_docker(&format!("create {}", image()));
    let exported = process::start(docker(["export", &id])).finish_within(BUILD_PATIENCE).must_succeed();
    run_docker(["rm", "--volumes", &id]);
    let mut archive = tar::Archive::new(&exported.stdout[..]);
    let files = archive.entries().unwrap().map(|entry| file_of(entry.unwrap()));
    files.filter(|file| !is_of_engine(&file.path)).collect()
}

fn file_of(mut entry: tar::Entry<'_, &[u8]>) -> ImageFile {
    let header = entry.header().clone();
    let mut content = Vec::new();
    io::Read::read_to_end(&mut entry, &mut content).unwrap();
    ImageFile {
        path: entry.path().unwrap().to_str().unwrap().trim_end_matches('/').to_owned(),
        kind: header.entry_type(),
        mode: header.mode().unwrap(),
        owner: (header.uid().unwrap(), header.gid().unwrap()),
        bytes: content.len() as u64,
        target: entry.link_name().unwrap().map(std::borrow::Cow::into_owned),
        content,
    }
}

fn is_of_engine(path: &str) -> bool {
    let files = [".dockerenv", "etc/hostname", "etc/hosts", "etc/mtab", "etc/resolv.conf"];
    files.contains(&path) || ["dev", "proc", "sys"].iter().any(|folder| Path::new(path).starts_with(folder))
}
