//! A workspace of some size, a remote over smart HTTP, and whoever brings the one to the other: our binary, or a shell
//! script that does the same by hand. Both have the same `wmill`, and a branch each.

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

/// Of both sides.
const WMILL_YAML: &str = "defaultTs: bun\nincludeSchedules: true\nincludeTriggers: true\nincludeGroups: true\n";
/// What the archive is read with, of which nothing is kept.
const BUFFER_BYTES: usize = 64 * 1024;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    /// The recorded workspace: 7 scripts and some of everything else.
    Recorded,
    /// So many made scripts.
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

    /// Our binary itself.
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

    /// The first sync, and the script brought to the same state; the most memory of the first, in KiB.
    pub(super) fn settle(&self) -> u64 {
        let (_, peak) = sync_and_peak(&self.sync(), "pushed");
        self.repository.run(["branch", "by-hand", "main"]);
        self.write_script();
        process::start(self.script()).finish_within(PATIENCE).must_succeed();
        self.assert_settled();
        peak
    }

    /// The script before its first run, and a branch for it that holds nothing of Windmill's.
    pub(super) fn first_script(&self) -> Command {
        self.repository.commit_files("by-hand", &[("README.md", "by hand\n")]);
        self.write_script();
        self.script()
    }

    /// What is on the two branches is the same.
    pub(super) fn assert_settled(&self) {
        let trees = self.repository.run(["rev-parse", "main^{tree}", "by-hand^{tree}"]).stdout_text();
        let trees: Vec<&str> = trees.lines().collect();
        assert_eq!(trees[0], trees[1], "our tree and the script's");
    }

    /// One script has another content.
    pub(super) fn edit(&self) {
        self.edits.set(self.edits.get() + 1);
        let result = format!("edit {}", self.edits.get());
        self.sandbox.windmill.edit(|workspace| workspace.add_bun_script("f/dept_0/job_00000", &result));
    }

    /// How archives were asked for, the last one last.
    pub(super) fn archives(&self) -> Vec<String> {
        let requests = self.sandbox.windmill.requests();
        requests.into_iter().map(|one| one.target).filter(|one| one.contains("/workspaces/tarball")).collect()
    }

    /// Reads an answer of Windmill's to its end; how many bytes it had.
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

    /// The same by curl, as one would do it.
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

    /// The same with npm's `wmill`, which users of a script have.
    pub(super) fn script_with_npm(&self) -> Command {
        let mut command = self.script();
        command.env("WMILL", support::wmill::wmill());
        command
    }

    fn script_path(&self) -> PathBuf {
        self.sandbox.scratch("by-hand").join("sync.sh")
    }

    /// Fetch, reset, pull, add, commit, push: the least that does the job where nothing goes wrong.
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

/// `wmill sync pull` of the sandbox's workspace into a new folder, by itself.
pub(super) fn pull_alone(sandbox: &Sandbox, wmill: &Path, folder: &str) -> Command {
    let into = sandbox.scratch(folder);
    std::fs::write(into.join("wmill.yaml"), WMILL_YAML).unwrap();
    support::wmill::pull_command(wmill, sandbox, &sandbox.windmill, WINDMILL_TOKEN, &into)
}

/// In the environment, as ours gets them to git.
pub(super) fn git_credentials() -> [(&'static str, String); 3] {
    [
        ("GIT_CONFIG_COUNT", "1".to_owned()),
        ("GIT_CONFIG_KEY_0", "http.extraHeader".to_owned()),
        ("GIT_CONFIG_VALUE_0", format!("Authorization: {}", basic(GIT_USERNAME, GIT_TOKEN))),
    ]
}
