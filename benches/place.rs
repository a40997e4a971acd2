//! A workspace of some size, a remote over smart HTTP, and the two programs that back up the one to the other: our
//! binary, and a shell script that does the same by hand. Both have the same `wmill`, and each has its own branch.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::measure::{PATIENCE, sync_and_peak};
use support::git::git;
use support::git_http::{GIT_TOKEN, GIT_USERNAME, basic};
use support::sandbox::write_with_mode;
use support::windmill::SHOP;
use support::{BareRepository, GitHttp, Remote as _, Run, Sandbox, WINDMILL_TOKEN, Workspace, process};

/// The `wmill.yaml` for the script and for a pull alone. Our binary writes its own, with the same kinds.
const WMILL_YAML: &str = "defaultTs: bun\nincludeSchedules: true\nincludeTriggers: true\nincludeGroups: true\n";
/// The size of the buffer through which the archive is read. Its content is not kept.
const BUFFER_BYTES: usize = 64 * 1024;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    /// The recorded workspace: 7 scripts and some of everything else.
    Recorded,
    /// A number of generated scripts.
    Scripts(usize),
}

impl Size {
    pub(super) fn name(self) -> String {
        match self {
            Self::Recorded => "7 scripts".to_owned(),
            Self::Scripts(count @ 1_000..) => format!("{},{:03} scripts", count / 1_000, count % 1_000),
            Self::Scripts(count) => format!("{count} scripts"),
        }
    }
}

/// Our binary, and the `wmill` for both sides.
#[derive(Clone)]
pub(super) struct Programs {
    pub(super) ours: PathBuf,
    pub(super) wmill: PathBuf,
}

pub(super) struct Place {
    pub(super) sandbox: Sandbox,
    repository: BareRepository,
    served: GitHttp,
    programs: Programs,
    edits: std::cell::Cell<usize>,
}

impl Place {
    pub(super) fn new(programs: &Programs, size: Size) -> Self {
        let sandbox = Sandbox::on_disk();
        sandbox.windmill.take_time_for_exports();
        if let Size::Scripts(count) = size {
            sandbox.windmill.set(SHOP, Workspace::of_scripts(count));
        }
        symlink(&programs.wmill, sandbox.bin().join("wmill")).unwrap();
        let repository = sandbox.repository();
        let served = GitHttp::serve(&repository);
        Self { sandbox, repository, served, programs: programs.clone(), edits: std::cell::Cell::default() }
    }

    /// Returns the path of our binary.
    pub(super) fn ours(&self) -> &Path {
        &self.programs.ours
    }

    pub(super) fn sync(&self) -> Run<'_> {
        self.run(self.sandbox.sync())
    }

    pub(super) fn service(&self) -> Run<'_> {
        self.run(self.sandbox.service())
    }

    fn run<'a>(&self, run: Run<'a>) -> Run<'a> {
        run.workspace(SHOP).remote(&self.served).program(self.programs.ours.clone()).within(PATIENCE)
    }

    /// Does the first sync, and brings the script to the same state. Returns the peak memory of the sync, in KiB.
    pub(super) fn settle(&self) -> u64 {
        let (_, peak) = sync_and_peak(&self.sync(), "pushed");
        self.repository.run(["branch", "by-hand", "main"]);
        self.write_script();
        process::start(self.script()).finish_within(PATIENCE).must_succeed();
        self.assert_settled();
        peak
    }

    /// Returns the script before its first run, and makes a branch for it that has no content from Windmill.
    pub(super) fn first_script(&self) -> Command {
        self.repository.commit_files("by-hand", &[("README.md", "by hand\n")]);
        self.write_script();
        self.script()
    }

    /// Asserts that the two branches have the same content.
    pub(super) fn assert_settled(&self) {
        let trees = self.repository.run(["rev-parse", "main^{tree}", "by-hand^{tree}"]).stdout_text();
        let trees: Vec<&str> = trees.lines().collect();
        assert_eq!(trees[0], trees[1], "our tree and the script's");
    }

    /// Changes the content of one script.
    pub(super) fn edit(&self) {
        self.edits.set(self.edits.get() + 1);
        let result = format!("edit {}", self.edits.get());
        self.sandbox.windmill.edit(|workspace| workspace.add_bun_script("f/dept_0/job_00000", &result));
    }

    /// Returns the targets of all requests for archives, the last one last.
    pub(super) fn archives(&self) -> Vec<String> {
        let requests = self.sandbox.windmill.requests();
        requests.into_iter().map(|one| one.target).filter(|one| one.contains("/workspaces/tarball")).collect()
    }

    /// Reads an answer of Windmill to its end, and returns its number of bytes.
    pub(super) fn download(&self, target: &str) -> u64 {
        let mut stream = TcpStream::connect(self.sandbox.windmill.address()).unwrap();
        let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {WINDMILL_TOKEN}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let (mut buffer, mut bytes) = (vec![0; BUFFER_BYTES], 0);
        loop {
            match stream.read(&mut buffer).unwrap() {
                0 => return bytes,
                count => bytes += count as u64,
            }
        }
    }

    /// Returns the command that does the same by curl, as a person would.
    pub(super) fn curl(&self, target: &str) -> Command {
        let header = self.sandbox.scratch("by-hand").join("header");
        let text = format!("Authorization: Bearer {WINDMILL_TOKEN}");
        write_with_mode(&header, text.as_bytes(), 0o600);
        let mut command = process::clean_command(process::find_program("curl", &[]).expect("curl; Debian: curl"));
        command.args(["--silent", "--fail", "--output", "/dev/null", "--header"]);
        command.arg(format!("@{}", header.display()));
        command.arg(format!("{}{target}", self.sandbox.windmill.base_url()));
        command
    }

    pub(super) fn ls_remote(&self) -> Command {
        let mut command = git(&self.sandbox);
        command.args(["ls-remote", "--", &self.served.url(), "refs/heads/main"]);
        command.envs(git_credentials());
        command
    }

    pub(super) fn script(&self) -> Command {
        process::clean_command(self.script_path())
    }

    /// Returns the script with npm's `wmill`, which users of a script have.
    pub(super) fn script_with_npm(&self) -> Command {
        let mut command = self.script();
        command.env("WMILL", support::wmill::wmill());
        command
    }

    fn script_path(&self) -> PathBuf {
        self.sandbox.scratch("by-hand").join("sync.sh")
    }

    /// Writes the script: fetch, reset, pull, add, commit, push. This is the minimum that works if nothing goes wrong.
    fn write_script(&self) {
        let here = self.sandbox.scratch("by-hand");
        let profile = format!(
            "{{\"name\":\"hand\",\"remote\":\"{}/\",\"workspaceId\":\"{SHOP}\",\"token\":\"{WINDMILL_TOKEN}\"}}\n",
            self.sandbox.windmill.base_url()
        );
        std::fs::create_dir_all(here.join("config/windmill")).unwrap();
        write_with_mode(&here.join("config/windmill/remotes.ndjson"), profile.as_bytes(), 0o600);
        let exports: String =
            git_credentials().iter().map(|(name, value)| format!("export {name}='{value}'\n")).collect();
        let text = format!(
            "#!/bin/sh\nset -e\ncd '{here}'\n{exports}\
             export HOME='{here}' WMILL_CONFIG_DIR='{here}/config' GIT_CONFIG_NOSYSTEM=1\n\
             if ! [ -d tree ]; then\n  git init --quiet --initial-branch=by-hand tree\n  \
             printf '{yaml}' >tree/wmill.yaml\n  echo wmill.yaml >>tree/.git/info/exclude\nfi\n\
             cd tree\n\
             git fetch --quiet --depth=1 '{remote}' by-hand\ngit reset --quiet --hard FETCH_HEAD\n\
             \"${{WMILL:-{wmill}}}\" --workspace hand sync pull --yes --skip-branch-validation </dev/null >/dev/null\n\
             git add --all\n\
             git diff --cached --quiet && exit\n\
             git -c user.name=Hand -c user.email=hand@example.com commit --quiet --message=backup\n\
             git push --quiet '{remote}' HEAD:by-hand\n",
            here = here.display(),
            yaml = WMILL_YAML.replace('\n', "\\n"),
            remote = self.served.url(),
            wmill = self.programs.wmill.display(),
        );
        write_with_mode(&self.script_path(), text.as_bytes(), 0o755);
    }
}

/// Returns the command for `wmill sync pull` of the sandbox's workspace into a new folder, and nothing else.
pub(super) fn pull_alone(sandbox: &Sandbox, wmill: &Path, folder: &str) -> Command {
    let into = sandbox.scratch(folder);
    std::fs::write(into.join("wmill.yaml"), WMILL_YAML).unwrap();
    support::wmill::pull_command(wmill, sandbox, &sandbox.windmill, WINDMILL_TOKEN, &into)
}

/// Returns the credentials for git as environment variables, as our binary passes them.
pub(super) fn git_credentials() -> [(&'static str, String); 3] {
    [
        ("GIT_CONFIG_COUNT", "1".to_owned()),
        ("GIT_CONFIG_KEY_0", "http.extraHeader".to_owned()),
        ("GIT_CONFIG_VALUE_0", format!("Authorization: {}", basic(GIT_USERNAME, GIT_TOKEN))),
    ]
}
