//! Access to the remote: its address, the credentials and the options of ssh.

use std::path::Path;

use crate::model::{GitCredentials, RemoteScheme, RemoteUrl, Result, git_credentials};
use crate::process::{RunEnv, own_program};
use crate::util::files;
#[cfg(unix)]
use crate::util::percent;

/// The options for ssh that are always the same. ssh reads no configuration, so all other options have their defaults:
/// `BatchMode` leaves out passwords, and nothing is forwarded.
const SSH_OPTIONS: &str = "\
GlobalKnownHostsFile=/dev/null
IdentitiesOnly=yes
BatchMode=yes
ConnectTimeout=20
ServerAliveInterval=15
ServerAliveCountMax=4";

/// The variable that our own program reads when git starts it as `ssh`. It holds the options for the real ssh, one per
/// line, or says that the repository is on this machine.
pub const OPTIONS_ENVIRONMENT: &str = "WINDMILL_GIT_SYNC_SSH_OPTIONS";
/// How the URL of a repository on this machine begins.
const FILE: &str = "file://";
/// The value in place of options if the repository is on this machine.
pub(super) const THIS_MACHINE: &str = "this machine";
/// The variable from which our own program, started by git as `ssh`, reads the line of its push for the journal: the
/// commit and the full name of the ref. It is empty if the push is not recorded.
pub const PUSH_ENVIRONMENT: &str = "WINDMILL_GIT_SYNC_PUSH";
/// The start of each line that our own program prints on git's standard error.
pub const LINE_PREFIX: &str = "windmill-git-sync: ";

/// The paths of a checkout and of the files that git needs to talk to its remote.
pub struct RepositoryPaths<'a> {
    /// The folder that holds all files of the checkout.
    pub folder: &'a Path,
    /// The file of the host keys that were accepted on the first connection.
    pub accepted_hosts: &'a Path,
    /// The file of the key that signs commits, from [`prepare_signing`](crate::git::ssh_key::prepare_signing).
    pub signing_key: Option<&'a Path>,
}

/// Returns the URL that git gets. A repository on a volume gets an `ssh:` URL, with our own program as `ssh`: git
/// starts the other side of a `file:` remote with a shell, and our image has no shell.
pub(super) fn address(remote: &RemoteUrl) -> String {
    match remote.as_str().strip_prefix(FILE) {
        Some(path) => ["ssh://this-machine", path].concat(),
        None => remote.as_str().to_owned(),
    }
}

/// Returns the path of a repository on this machine, decoded as git does it.
#[cfg(unix)]
pub(super) fn path_on_this_machine(remote: &RemoteUrl) -> Option<String> {
    percent::decode(remote.as_str().strip_prefix(FILE)?)
}

/// Returns the environment variables that pass the credentials to git and ssh.
pub(super) fn environment(
    run_env: &RunEnv,
    site: &RepositoryPaths<'_>,
    remote: &RemoteUrl,
    credentials: &GitCredentials,
) -> Result<Vec<(&'static str, String)>> {
    let ssh_options = match credentials {
        GitCredentials::None if remote.scheme() == RemoteScheme::File => THIS_MACHINE.to_owned(),
        GitCredentials::None => return Ok(Vec::new()),
        GitCredentials::Token { username, token } => {
            let Some(origin) = remote.origin() else { return Ok(Vec::new()) };
            let basic = git_credentials::basic_credentials(username, token);
            return Ok(vec![
                ("GIT_CONFIG_COUNT", "1".to_owned()),
                ("GIT_CONFIG_KEY_0", format!("http.{origin}.extraHeader")),
                ("GIT_CONFIG_VALUE_0", format!("Authorization: Basic {}", basic.expose())),
            ]);
        }
        GitCredentials::Ssh { key, known_hosts, accept_new } => {
            // If it is a FIFO, ssh would wait for its other end.
            files::make_way(site.accepted_hosts)?;
            let key = run_env.run_dir.write("ssh_key", key.expose().as_bytes())?;
            let accepted = accept_new.then_some(site.accepted_hosts);
            // ssh splits a value at white space unless it is quoted.
            let quoted = |path: &Path| format!("\"{}\"", path.display());
            let hosts: Vec<_> = accepted.into_iter().chain(known_hosts.as_deref()).map(quoted).collect();
            let (key, hosts) = (quoted(&key), hosts.join(" "));
            let checking = if *accept_new { "accept-new" } else { "yes" };
            format!("IdentityFile={key}\nUserKnownHostsFile={hosts}\nStrictHostKeyChecking={checking}\n{SSH_OPTIONS}")
        }
    };
    Ok(vec![
        // A command with options would need a shell, and our image has no shell.
        ("GIT_SSH", own_program().to_string_lossy().into_owned()),
        ("GIT_SSH_VARIANT", "ssh".to_owned()),
        (OPTIONS_ENVIRONMENT, ssh_options),
    ])
}
