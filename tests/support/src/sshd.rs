//! Git over SSH with the real `sshd`. We listen, and start one `sshd -i` for each connection. So we own the port from
//! the start, and no process stays when the value is dropped.

use std::fs;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use super::git::{BareRepository, Remote};
use super::http::Server;
use super::process;
use super::sandbox::write_with_mode;

/// A server for one repository on its own port. It stops when dropped.
pub struct GitSsh {
    server: Server,
    repository: BareRepository,
    folder: PathBuf,
    children: Arc<Mutex<Vec<u32>>>,
}

impl GitSsh {
    /// Serves this repository to a client with [`GitSsh::client_key`], as the user that runs the tests.
    pub fn serve(repository: &BareRepository) -> Self {
        let sshd = process::find_program("sshd", &["/usr/sbin", "/usr/local/sbin", "/sbin"])
            .expect("the tests of git over SSH need a real sshd: install it (Debian: `openssh-server`)");
        let name = repository.path().file_stem().unwrap().to_string_lossy().into_owned();
        let folder = repository.path().with_file_name(format!("{name}.sshd"));
        fs::create_dir_all(&folder).unwrap();
        // As root, sshd drops its privileges in this folder, which the start script of a package would create.
        if rustix::process::geteuid().is_root() {
            fs::create_dir_all("/run/sshd").expect("a folder for sshd to give up its rights in");
        }
        make_key(&folder.join("client"));
        make_key(&folder.join("host"));
        fs::copy(folder.join("client.pub"), folder.join("authorized_keys")).unwrap();
        write_with_mode(&folder.join("git-only"), git_only(&folder).as_bytes(), 0o755);
        write_with_mode(&folder.join("config"), configuration(&folder).as_bytes(), 0o600);
        let children = Arc::new(Mutex::new(Vec::new()));
        let (of_server, at) = (Arc::clone(&children), folder.clone());
        Self {
            server: Server::start_raw(move |stream, _| serve_one(&sshd, &at, stream, &of_server)),
            repository: repository.clone(),
            folder,
            children,
        }
    }

    /// Returns the private key that the server accepts.
    pub fn client_key(&self) -> String {
        fs::read_to_string(self.client_key_file()).unwrap()
    }

    pub fn client_key_file(&self) -> PathBuf {
        self.folder.join("client")
    }

    /// Returns the line that identifies this server.
    pub fn known_hosts(&self) -> String {
        let key = fs::read_to_string(self.folder.join("host.pub")).unwrap();
        format!("[127.0.0.1]:{} {key}", self.server.address().port())
    }

    /// Writes a file with the current [`GitSsh::known_hosts`] and returns its path.
    pub fn known_hosts_file(&self) -> PathBuf {
        let path = self.folder.join("known_hosts");
        fs::write(&path, self.known_hosts()).unwrap();
        path
    }

    /// Changes the host key of the server, as an impostor would have another one. A file that
    /// [`GitSsh::known_hosts_file`] wrote before does not match any more.
    pub fn change_host_key(&self) {
        make_key(&self.folder.join("host"));
    }

    /// Makes the server refuse the client's key from now on.
    pub fn revoke_client_key(&self) {
        fs::write(self.folder.join("authorized_keys"), "").unwrap();
    }

    /// Returns the log of sshd, for messages.
    pub fn server_log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Returns the commands that clients sent, one per line.
    pub fn commands(&self) -> Vec<String> {
        let log = fs::read_to_string(self.folder.join("commands")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }

    /// Returns an `ssh` for `GIT_SSH_COMMAND` that uses the key and checks the host.
    pub fn ssh_command(&self) -> String {
        format!(
            "ssh -F /dev/null -o BatchMode=yes -o IdentitiesOnly=yes -o StrictHostKeyChecking=yes \
             -o UserKnownHostsFile='{}' -i '{}'",
            self.known_hosts_file().display(),
            self.client_key_file().display()
        )
    }

    /// Returns the user that logs in: the user that runs the tests.
    pub fn user() -> String {
        let mut command = process::clean_command("id");
        command.arg("-un");
        let named = process::run(command).must_succeed();
        named.stdout_text().trim().to_owned()
    }
}

impl Remote for GitSsh {
    fn url(&self) -> String {
        format!("ssh://{}@{}{}", Self::user(), self.server.address(), self.repository.path().display())
    }

    fn credentials(&self) -> Vec<(String, String)> {
        let known_hosts = self.known_hosts_file().display().to_string();
        vec![("GIT_SSH_KEY".to_owned(), self.client_key()), ("GIT_SSH_KNOWN_HOSTS_FILE".to_owned(), known_hosts)]
    }
}

impl Drop for GitSsh {
    fn drop(&mut self) {
        for child in self.children.lock().unwrap().iter() {
            process::kill_group(*child);
        }
    }
}

fn serve_one(sshd: &Path, folder: &Path, stream: &TcpStream, children: &Mutex<Vec<u32>>) {
    let log = fs::OpenOptions::new().create(true).append(true).open(folder.join("log"));
    let (Ok(log), Ok(input), Ok(output)) = (log, stream.try_clone(), stream.try_clone()) else {
        return;
    };
    let mut command = Command::new(sshd);
    command
        .args(["-i", "-e", "-f"])
        .arg(folder.join("config"))
        .stdin(Stdio::from(OwnedFd::from(input)))
        .stdout(Stdio::from(OwnedFd::from(output)))
        .stderr(log)
        .process_group(0);
    let Ok(mut child) = command.spawn() else {
        return;
    };
    // The command holds copies of the connection, which would keep it open.
    drop(command);
    let pid = child.id();
    children.lock().unwrap().push(pid);
    wait_without_reaping(pid);
    // The pid is removed before the child is reaped, so a pid in the list never belongs to another process.
    children.lock().unwrap().retain(|known| *known != pid);
    let _ = child.wait();
}

fn wait_without_reaping(pid: u32) {
    use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    if let Some(pid) = pid {
        let _ = waitid(WaitId::Pid(pid), options);
    }
}

fn make_key(path: &Path) {
    let _ = fs::remove_file(path);
    let mut command = process::clean_command("ssh-keygen");
    command.args(["-q", "-t", "ed25519", "-N", "", "-C", "made-for-a-test", "-f"]).arg(path);
    process::run(command).must_succeed();
}

fn configuration(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "HostKey {folder}/host\n\
         AuthorizedKeysFile {folder}/authorized_keys\n\
         PidFile none\n\
         UsePAM no\n\
         StrictModes no\n\
         PermitRootLogin prohibit-password\n\
         PubkeyAuthentication yes\n\
         PasswordAuthentication no\n\
         KbdInteractiveAuthentication no\n\
         PrintMotd no\n\
         LogLevel VERBOSE\n\
         ForceCommand {folder}/git-only\n"
    )
}

/// Returns the program for a login: it runs only git's commands, with its own git configuration.
fn git_only(folder: &Path) -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    let config = folder.with_file_name("ssh.gitconfig");
    fs::write(&config, "[safe]\n\tdirectory = *\n").unwrap();
    format!(
        "#!/bin/sh\n\
         echo \"$SSH_ORIGINAL_COMMAND\" >> '{}/commands'\n\
         export PATH='{path}' GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL='{}'\n\
         exec git shell -c \"$SSH_ORIGINAL_COMMAND\"\n",
        folder.display(),
        config.display()
    )
}
