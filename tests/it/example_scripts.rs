//! The scripts of `examples/windmill`, which request a sync from inside Windmill: `wmill` accepts all of them, and each
//! does what it says in the program that runs it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use miniserde::json::{self, Value};

use support::process::{self, Finished};
use support::receivers::{HOOK_SECRET, Receivers};
use support::run::{field, text_field};
use support::windmill::SHOP;
use support::*;

/// The token of the job, which is not configured anywhere.
const JOB_TOKEN: &str = "wm-job-token-PLANTED-77a1";
const API_TOKEN: &str = "api-token-PLANTED-4242";

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/windmill")
}

fn script(name: &str) -> String {
    examples().join("f/windmill_git_sync").join(name).display().to_string()
}

#[test]
fn wmill_pushes_exactly_the_items_of_the_example() {
    let sandbox = Sandbox::new();
    // This variable is kept in the same folder by hand, for the scripts.
    sandbox.windmill.edit(|workspace| workspace.add_variable("f/windmill_git_sync/api_token", "/rI8+A==", true));
    let folder = sandbox.scratch("example");
    for (path, content) in files_below(&examples()) {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let mut command = wmill::command(&wmill(), &sandbox, &sandbox.windmill, WINDMILL_TOKEN, &folder);
    command.args(["sync", "push", "--dry-run", "--json-output", "--lint", "--skip-branch-validation"]);
    let finished = process::run(command).must_succeed();
    // The result of wmill's own check of the files comes first.
    let said = finished.stdout_text();
    let Ok(value) = json::from_str::<Value>(&said[said.rfind("\n{").unwrap_or(0)..]) else { panic!("{finished}") };
    let Value::Array(changes) = field(&value, "changes") else { panic!("{finished}") };
    let mut pushed: Vec<_> = changes
        .iter()
        .map(|change| (text_field(change, "type").unwrap(), text_field(change, "path").unwrap()))
        .collect();
    pushed.sort();
    let all = files_below(&examples()).into_keys().filter(|path| path != "wmill.yaml");
    let all: Vec<_> = all.map(|path| ("added".to_owned(), path)).collect();
    assert!(all.len() >= 10, "{all:?}");
    assert_eq!(pushed, all);
}

#[test]
fn the_schedule_and_its_failure_handler_start_scripts_of_the_example() {
    let schedule = fs::read_to_string(script("nightly.schedule.yaml")).unwrap();
    let value = |name: &str| {
        let line = schedule.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.unwrap_or_else(|| panic!("no {name} in {schedule}"))
    };
    for path in [value("script_path"), value("on_failure").strip_prefix("script/").expect("a script")] {
        assert!(examples().join(format!("{path}.ts")).is_file(), "{path}");
        assert!(examples().join(format!("{path}.script.yaml")).is_file(), "{path}");
    }
    // Nothing runs unless a user enables it.
    assert_eq!(value("enabled"), "false");
}

/// Runs a script's `main` under Node.js, without the types, and prints its result as JSON.
const UNDER_NODE: &str = "
const { readFileSync } = require('node:fs');
const [modules, script, ...words] = process.argv.slice(1);
const { transformSync } = require(modules + '/esbuild');
const { code } = transformSync(readFileSync(script, 'utf8'), { loader: 'ts', format: 'esm' });
import('data:text/javascript,' + encodeURIComponent(code))
  .then(({ main }) => main(...words.map((word) => JSON.parse(word))))
  .then((result) => console.log(JSON.stringify(result)));
";

fn under_node(script_name: &str) -> Command {
    let mut command = process::clean_command("node");
    let modules = wmill().parent().unwrap().parent().unwrap().to_path_buf();
    command.args(["-e", UNDER_NODE, "--"]).arg(modules).arg(script(script_name));
    command
}

/// Runs the command as a job of workspace `shop`, with these arguments.
fn as_job(mut command: Command, arguments: &[&str]) -> Finished {
    command.env("WM_TOKEN", JOB_TOKEN).env("WM_WORKSPACE", SHOP).args(arguments);
    process::run(command)
}

/// Checks what each script that requests a sync must do. `start` returns the command that runs it, and `word` an
/// argument in the form that this command needs.
fn check(sandbox: &Sandbox, start: impl Fn() -> Command, word: impl Fn(&str) -> String) {
    let repository = sandbox.repository();
    sandbox.windmill.token(JOB_TOKEN);
    // No Windmill token is stored anywhere.
    let service = sandbox.service().remote(&repository).without("WINDMILL_TOKEN").env("SYNC_API_TOKEN", API_TOKEN);
    let service = service.env("LOG_LEVEL", "trace").serve();
    let url = word(&service.base_url());
    let ran = as_job(start(), &[&url, &word(API_TOKEN)]).must_succeed();
    let said = ran.stdout_text();
    let result: Value = json::from_str(said.lines().last().unwrap()).unwrap_or_else(|_| panic!("{ran}"));
    assert_eq!(text_field(&result, "code").as_deref(), Some("pushed"), "{ran}");
    assert_eq!(text_field(&result, "commit"), repository.tip("main"));
    // A failure fails the job and gives the reason, also in the chat. No Windmill handler has to run.
    let (receivers, elsewhere) = (Receivers::start(), word("http://127.0.0.1:1/hook"));
    let hook = word(&receivers.url("slack"));
    let refused = as_job(start(), &[&url, &word("wrong"), &hook]).must_fail();
    assert!(refused.to_string().contains("unauthorized"), "{refused}");
    let untold = as_job(start(), &[&url, &word("wrong"), &elsewhere]).must_fail();
    for part in ["unauthorized", "the webhook did not get the message"] {
        assert!(untold.to_string().contains(part), "{untold}");
    }
    sandbox.windmill.state("3-emptied");
    let guarded = as_job(start(), &[&url, &word(API_TOKEN)]).must_fail();
    for part in ["mass_deletion", "the sync would delete"] {
        assert!(guarded.to_string().contains(part), "{guarded}");
    }
    let odd = word("https://h.invalid/<b>&\"quoted\"\\");
    as_job(start(), &[&odd, &word(API_TOKEN), &hook]).must_fail();
    let messages = receivers.wait_for("slack", 2);
    let text = |body: &String| text_field(&json::from_str(body).unwrap(), "text").unwrap();
    assert!(text(&messages[0]).starts_with("Backup of workspace shop failed: "), "{messages:?}");
    assert!(text(&messages[0]).contains("unauthorized"), "{messages:?}");
    assert!(!text(&messages[1]).contains('<'), "{messages:?}");
    // Another server answers there, or none.
    sandbox.windmill.fail_once("/sync", Fault::Status(404));
    let stranger = as_job(start(), &[&word(&sandbox.windmill.base_url())]).must_fail();
    assert!(stranger.to_string().contains("404"), "{stranger}");
    let log = service.log();
    drop(service);
    as_job(start(), &[&url, &word(API_TOKEN)]).must_fail();
    for finished in [&ran, &refused, &untold, &guarded, &stranger] {
        let said = [("stdout", finished.stdout.as_slice()), ("stderr", &finished.stderr), ("log", log.as_bytes())];
        assert_nothing_leaked(&said, &[&sandbox.data(), repository.path()], &[JOB_TOKEN, API_TOKEN, HOOK_SECRET]);
    }
}

#[test]
#[ignore = "long: just test-long"]
fn the_typescript_script_syncs_with_its_jobs_token_and_fails_with_the_sync() {
    let sandbox = Sandbox::new();
    check(&sandbox, || under_node("sync_bun.ts"), json::to_string);
}

#[test]
fn the_failure_handler_reports_the_failure_to_a_chat() {
    let receivers = Receivers::start();
    let error = "{\"name\":\"Error\",\"message\":\"pull_failed: <b> & so\"}";
    let schedule = "\"f/windmill_git_sync/nightly\"";
    let hook = json::to_string(&receivers.url("slack"));
    let ran = as_job(under_node("tell_failure.ts"), &[schedule, "\"\"", error, &hook]).must_succeed();
    let [body] = receivers.wait_for("slack", 1).try_into().unwrap();
    let text = text_field(&json::from_str(&body).unwrap(), "text").unwrap();
    for part in ["f/windmill_git_sync/nightly", SHOP, "pull_failed: &lt;b&gt; &amp; so"] {
        assert!(text.contains(part), "{text}");
    }
    let said = [("stdout", ran.stdout.as_slice()), ("stderr", &ran.stderr)];
    assert_nothing_leaked(&said, &[], &[HOOK_SECRET, JOB_TOKEN]);
    // Without a chat, the report is the result of the job. A chat that refuses the report is a failure.
    let ran = as_job(under_node("tell_failure.ts"), &[schedule, "\"\"", error]).must_succeed();
    assert!(ran.stdout_text().contains("pull_failed: <b> & so"), "{ran}");
    let nowhere = json::to_string(&receivers.url("nobody"));
    as_job(under_node("tell_failure.ts"), &[schedule, "\"\"", error, &nowhere]).must_fail();
}

mod bun {
    use super::*;
    use support::process::find_program;

    /// Returns the program, or panics with what to install.
    fn program(name: &str, from: &str) -> PathBuf {
        find_program(name, &[]).unwrap_or_else(|| panic!("these tests run `{name}`: install it ({from})"))
    }

    #[test]
    #[ignore = "needs Bun: just test-tools"]
    fn the_typescript_script_does_the_same_under_bun() {
        let sandbox = Sandbox::new();
        let bun = program("bun", "npm ci --prefix image, and its PATH");
        let run = format!(
            "const {{ main }} = await import({}); console.log(JSON.stringify(await main(...process.argv.slice(1))));",
            json::to_string(&script("sync_bun.ts"))
        );
        let start = || {
            let mut command = process::clean_command(&bun);
            command.args(["-e", &run]).env("HOME", sandbox.home());
            command
        };
        check(&sandbox, start, str::to_owned);
    }

    #[test]
    #[ignore = "needs Bun: just test-tools"]
    fn the_python_script_does_the_same() {
        let sandbox = Sandbox::new();
        let python = program("python3", "Debian: python3");
        let run = "import json, runpy, sys; print(json.dumps(runpy.run_path(sys.argv[1])['main'](*sys.argv[2:])))";
        let start = || {
            let mut command = process::clean_command(&python);
            command.args(["-c", run, &script("sync_python.py")]).env("PYTHONDONTWRITEBYTECODE", "1");
            command
        };
        check(&sandbox, start, str::to_owned);
    }

    #[test]
    #[ignore = "needs Bun: just test-tools"]
    fn the_bash_script_does_the_same_and_no_argument_list_has_a_token() {
        let sandbox = Sandbox::new();
        let bash = program("bash", "Debian: bash");
        program("curl", "Debian: curl");
        sandbox.record("curl");
        let path = format!("{}:{}", sandbox.bin().display(), std::env::var("PATH").unwrap());
        let start = || {
            let mut command = process::clean_command(&bash);
            command.arg(script("sync_bash.sh")).env("PATH", &path);
            command
        };
        check(&sandbox, start, str::to_owned);
        let started = sandbox.invocations("curl");
        assert!(started.len() >= 4, "{started:?}");
        for invocation in started {
            let words = invocation.arguments.join(" ");
            assert!(!words.contains("PLANTED"), "{words}");
        }
    }
}
