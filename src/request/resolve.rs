//! Combines the settings with the fields of a request, and decides which configured secret may serve which request.

use crate::config::{self, Config, SecretSource};
use crate::model::{BranchName, Code, GitCredentials, Identity, RemoteScheme, RemoteUrl, Subdir, WorkspaceId, names};
use crate::request::json_body::{Fields, URL_TOKEN};
use crate::request::{Draft, SyncRequest};
use crate::util::Secret;

/// Returns the additional headers for Windmill, as they are now.
///
/// # Errors
/// Returns why the headers cannot be used.
pub fn windmill_headers(config: &Config) -> Result<Vec<(String, Secret)>, String> {
    let Some(source) = &config.windmill_headers else { return Ok(Vec::new()) };
    config::parse_headers(source.read()?.expose()).map_err(|why| ["WINDMILL_HEADERS ", why].concat())
}

/// Each method adds its faults to those of the draft and continues, so that all faults are named.
impl Draft<'_> {
    /// Resolves the sync of one workspace. If there are no faults, there is a result.
    pub(super) fn resolve(&mut self, workspace: &WorkspaceId) -> Option<SyncRequest> {
        let config = self.config;
        let Fields { branch: (branch_name, branch), subdir: (subdir_name, subdir), .. } = &self.fields;
        let branch = self.faults.named(branch_name, BranchName::from_template(branch, workspace));
        let subdir = self.faults.named(subdir_name, Subdir::from_template(subdir, workspace));
        let is_remote_given = self.fields.is_given("git_remote_url") || self.fields.is_given("repository.url");
        // If a value is refused, the configured value does not replace it.
        let remote = if is_remote_given { &self.fields.remote } else { &config.remote }.clone();
        if remote.is_none() && !is_remote_given {
            self.lacks("GIT_REMOTE_URL", "the request brings no `git_remote_url`");
        }
        // If a workspace is not configured, and only one is, the branch and folder are compared with those of the
        // configured one.
        let is_configured = config.workspaces.hold(workspace);
        let like = if is_configured { None } else { config.workspaces.single() }.unwrap_or(workspace);
        let changes: Vec<_> = [
            (!is_configured, "workspace"),
            (remote.is_some() && remote != config.remote, "remote"),
            (branch.is_some() && branch != config.branch_for(like).ok(), "branch"),
            (subdir.is_some() && subdir != config.subdir_for(like).ok(), "folder"),
        ]
        .into_iter()
        .filter_map(|(differs, what)| differs.then_some(what))
        .collect();
        let windmill_token = self.windmill_token(&changes);
        let git = remote.as_ref().and_then(|remote| self.git_credentials(remote));
        let signing_key = self.signing_key(remote.as_ref());
        let headers = windmill_headers(config).map_err(|why| self.faults.add_of_config(why)).ok();
        Some(SyncRequest {
            workspace: workspace.clone(),
            base_url: config.base_url.clone(),
            windmill_token: windmill_token?,
            windmill_headers: headers?,
            remote: remote?,
            git: git?,
            signing_key,
            branch: branch?,
            subdir: subdir?,
            author: Identity::of_parts(self.fields.user_name.clone(), self.fields.user_email.clone()),
            message: names::fill(&config.commit_message, workspace),
            flags: self.fields.flags,
            configured: changes.is_empty(),
            workspace_is_default: config.workspace_is_default && self.fields.workspace.is_none(),
            list_warnings: Vec::new(),
        })
    }

    /// Returns the token for Windmill. The configured token exports only the configured workspace, and only to the
    /// configured place. Otherwise the sender of a request could send any workspace to another repository.
    pub(super) fn windmill_token(&mut self, changes: &[&str]) -> Option<Secret> {
        const FIELD: &str = "windmill_token";
        if self.fields.is_given(FIELD) {
            return self.fields.windmill_token.clone();
        }
        if !changes.is_empty() {
            return self.faults.refuse(&[
                "the request changes the ",
                &changes.join(" and the "),
                ", and lacks a `windmill_token` of its own: the configured one serves only what it was configured for",
            ]);
        }
        self.configured("WINDMILL_TOKEN", self.config.windmill_token.as_ref(), "the request brings no `windmill_token`")
    }

    /// Returns the credentials for the remote. The configured token or key is used only for the configured repository.
    /// The whole URL must match, because others may write on the same host.
    pub(super) fn git_credentials(&mut self, remote: &RemoteUrl) -> Option<GitCredentials> {
        let is_configured = self.config.remote.as_ref() == Some(remote);
        let brings_token = self.fields.is_given("git_token") || self.fields.is_given(URL_TOKEN);
        if brings_token && !remote.is_http() {
            self.faults.add(&["`git_token` needs an http(s) remote, and ", remote.as_str(), " is not one"]);
        }
        match remote.scheme() {
            RemoteScheme::File => Some(GitCredentials::None),
            RemoteScheme::Ssh if is_configured => self.ssh_credentials(),
            RemoteScheme::Ssh => self.faults.refuse(&[
                "the ssh remote ",
                remote.as_str(),
                " is not the configured one, and no field of a request carries a key: send an https URL and a \
                 `git_token`",
            ]),
            RemoteScheme::Https | RemoteScheme::Http if brings_token => {
                let username = self.fields.git_username.clone();
                self.fields.git_token.clone().map(|token| GitCredentials::Token { username, token })
            }
            RemoteScheme::Https | RemoteScheme::Http if is_configured => self.token_credentials(),
            RemoteScheme::Https | RemoteScheme::Http => self.faults.refuse(&[
                "the request changes the remote, and lacks a `git_token` of its own: the configured one serves only the \
                 configured repository",
            ]),
        }
    }

    fn token_credentials(&mut self) -> Option<GitCredentials> {
        let config = self.config;
        let token = self.configured("GIT_TOKEN", config.git_token.as_ref(), "the request brings no `git_token`")?;
        Some(GitCredentials::Token { username: config.git_username.clone(), token })
    }

    fn ssh_credentials(&mut self) -> Option<GitCredentials> {
        let config = self.config;
        if config.ssh_known_hosts.is_none() && !config.ssh_accept_new {
            self.lacks("GIT_SSH_KNOWN_HOSTS_FILE", "GIT_SSH_ACCEPT_NEW is not true");
        }
        let key = self.configured("GIT_SSH_KEY", config.ssh_key.as_ref(), "no field of a request carries a key")?;
        Some(GitCredentials::Ssh {
            key,
            known_hosts: config.ssh_known_hosts.clone(),
            accept_new: config.ssh_accept_new,
        })
    }

    /// Returns the key that signs commits for the configured repository. It is not used for another repository.
    fn signing_key(&mut self, remote: Option<&RemoteUrl>) -> Option<Secret> {
        let config = self.config;
        let source = config.signing_key.as_ref().filter(|_| remote.is_some() && remote == config.remote.as_ref())?;
        self.configured("GIT_SIGNING_KEY", Some(source), "")
    }

    fn configured(&mut self, variable: &str, source: Option<&SecretSource>, instead: &str) -> Option<Secret> {
        let Some(source) = source else {
            self.lacks(variable, instead);
            return None;
        };
        source.read().map_err(|why| self.faults.add_of_config(why)).ok()
    }

    /// Adds the fault that a setting is missing. For a request, the fault also names what the request could bring
    /// instead.
    fn lacks(&mut self, variable: &str, instead: &str) {
        if self.faults.code == Code::ConfigInvalid {
            self.faults.add(&[variable, " is not set"]);
        } else {
            self.faults.add(&[variable, " is not set, and ", instead]);
        }
    }
}
