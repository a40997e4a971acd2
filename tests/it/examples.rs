//! The files in `examples` for operators match the program: its settings, routes and metrics. The tools of Kubernetes,
//! Prometheus and systemd accept them.

use std::ffi::OsString;
use std::fs;

use windmill_git_sync::config::{Config, Environment, Options, Required, variables};
use yaml_serde::Value;

use crate::docs::{read, rows};
use support::{Sandbox, process};

/// The folder of the secrets in the container of the examples.
const SECRETS: &str = "/run/secrets/windmill-git-sync/";

fn manifest(name: &str) -> Value {
    yaml_serde::from_str(&read(&format!("examples/kubernetes/{name}.yaml"))).unwrap()
}

#[track_caller]
fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value:?}"))
}

fn is_setting(name: &str) -> bool {
    let is = |known: &str| known == name || name.strip_suffix("_FILE") == Some(known);
    variables().iter().any(|variable| is(variable.name))
}

/// Asserts that these are settings of the program, and that they are all that a sync needs.
#[track_caller]
fn assert_complete(settings: &[(String, String)]) -> Config {
    for (name, _) in settings {
        assert!(is_setting(name), "{name} is not a setting");
    }
    let environment =
        Environment::new(settings.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))));
    let config = Config::new(&Options::default(), &environment, Required::Sync).unwrap();
    assert!(config.lacking().is_empty(), "{:?}", config.lacking());
    config
}

#[test]
fn each_kubernetes_manifest_sets_all_needed_settings_and_is_confined() {
    for (name, path, command) in [("cronjob", "jobTemplate", "sync"), ("deployment", "template", "serve")] {
        let manifest = manifest(name);
        let spec = &manifest["spec"][path]["spec"];
        let pod = if name == "cronjob" { &spec["template"]["spec"] } else { spec };
        let container = &pod["containers"][0];
        assert_eq!(text(&container["args"][0]), command);
        let set = container["env"].as_sequence().unwrap().iter();
        let set: Vec<_> = set.map(|one| (text(&one["name"]).to_owned(), text(&one["value"]).to_owned())).collect();
        let config = assert_complete(&set);
        assert_eq!(text(&container["volumeMounts"][0]["mountPath"]), config.data_dir.to_str().unwrap());
        assert!(set.iter().all(|(name, value)| !name.ends_with("_FILE") || value.starts_with(SECRETS)), "{set:?}");
        let claim = &pod["volumes"][0]["persistentVolumeClaim"]["claimName"];
        assert_eq!(claim, &self::manifest("persistentvolumeclaim")["metadata"]["name"]);
        assert_eq!(pod["securityContext"]["runAsNonRoot"].as_bool(), Some(true));
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"].as_bool(), Some(true));
        assert_eq!(container["securityContext"]["allowPrivilegeEscalation"].as_bool(), Some(false));
        assert_eq!(text(&container["securityContext"]["capabilities"]["drop"][0]), "ALL");
    }
}

#[test]
fn the_deployment_probes_existing_routes_and_has_the_stop_timeout_of_compose() {
    let pod = &manifest("deployment")["spec"]["template"];
    let container = &pod["spec"]["containers"][0];
    let port = &container["ports"][0];
    let listen =
        variables().iter().find(|variable| variable.name == "LISTEN_ADDR").and_then(|one| one.default).unwrap();
    assert!(listen.ends_with(&format!(":{}", port["containerPort"].as_u64().unwrap())));
    for probe in ["livenessProbe", "readinessProbe"] {
        assert_eq!(text(&container[probe]["httpGet"]["path"]), "/health");
        assert_eq!(container[probe]["httpGet"]["port"], port["name"]);
    }
    let service = &manifest("service")["spec"];
    assert_eq!(service["ports"][0]["targetPort"], port["name"]);
    for (name, value) in service["selector"].as_mapping().unwrap() {
        assert_eq!(&pod["metadata"]["labels"][name], value);
    }
    let grace = pod["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap();
    assert!(read("docker-compose.yml").contains(&format!("STOP_GRACE_PERIOD:-{grace}s")), "{grace}");
}

/// Runs the lines of docs/scale.md with a `kubectl` that records its input.
#[test]
fn the_documented_lines_make_staggered_cronjobs_with_a_volume_for_each_workspace() {
    let document = read("docs/scale.md");
    let script = document.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next()).expect("lines for a shell");
    let sandbox = Sandbox::new();
    let applied = sandbox.file("applied.yaml", "");
    sandbox.program("kubectl", &format!("echo --- >>'{0}'; cat >>'{0}'", applied.display()));
    let mut shell = process::clean_command("sh");
    let path = format!("{}:/usr/bin:/bin", sandbox.bin().display());
    shell.current_dir("examples/kubernetes").env("PATH", path).args(["-eu", "-c", script]);
    process::run(shell).must_succeed();
    let applied = fs::read_to_string(applied).unwrap();
    let applied: Vec<Value> = applied.split("---\n").skip(1).map(|text| yaml_serde::from_str(text).unwrap()).collect();
    assert_eq!(applied.len(), 6);
    for (pair, (workspace, minute)) in applied.chunks(2).zip([("shop", 0), ("lab", 7), ("crm", 14)]) {
        let [volume, job] = pair else { panic!("{pair:?}") };
        let name = format!("windmill-git-sync-{workspace}");
        assert_eq!((text(&volume["metadata"]["name"]), text(&job["metadata"]["name"])), (&*name, &*name));
        assert_eq!(text(&job["spec"]["schedule"]), format!("{minute} * * * *"));
        let pod = &job["spec"]["jobTemplate"]["spec"]["template"]["spec"];
        assert_eq!(text(&pod["volumes"][0]["persistentVolumeClaim"]["claimName"]), name);
        assert_eq!(text(&pod["volumes"][2]["secret"]["secretName"]), "windmill-git-sync");
        let settings = pod["containers"][0]["env"].as_sequence().unwrap();
        let set = |name: &str| settings.iter().find(|one| text(&one["name"]) == name).map(|one| text(&one["value"]));
        assert_eq!((set("WINDMILL_WORKSPACE"), set("GIT_BRANCH")), (Some(workspace), Some("{workspace}")));
        assert_eq!(text(&pod["containers"][0]["image"]), "windmill-git-sync");
    }
}

#[test]
fn the_alerts_use_existing_metrics() {
    let document = read("docs/http.md");
    let documented = rows(&document, "| metric | is |");
    let documented: Vec<_> = documented.iter().flat_map(|row| row[0].split('`').skip(1).step_by(2)).collect();
    let documented: Vec<_> = documented.iter().map(|name| name.split('{').next().unwrap()).collect();
    for file in ["rules", "rules.test"] {
        let rules = read(&format!("examples/prometheus/{file}.yaml"));
        let named = rules.split("windmill_git_sync_").skip(1);
        let named: Vec<_> =
            named.map(|rest| rest.split(|c: char| !c.is_ascii_lowercase() && c != '_').next().unwrap()).collect();
        assert!(named.len() > 10);
        for name in named {
            assert!(documented.contains(&name), "{file}: {name}");
        }
    }
}

const UNITS: [&str; 2] = ["windmill-git-sync.service", "windmill-git-sync-once.service"];

/// Returns the values of a directive in a unit.
fn directive<'a>(unit: &'a str, name: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('=')).collect()
}

#[test]
fn each_systemd_unit_passes_the_secrets_and_keeps_the_state() {
    let credentials = "/run/credentials/unit";
    for (name, command) in UNITS.into_iter().zip(["serve", "sync"]) {
        let unit = read(&format!("examples/systemd/{name}"));
        assert_eq!(directive(&unit, "ExecStart"), [format!("/usr/local/bin/windmill-git-sync {command}")]);
        let state = format!("/var/lib/{}", directive(&unit, "StateDirectory")[0]);
        let set = directive(&unit, "Environment").into_iter().map(|setting| setting.split_once('=').unwrap());
        let mut set: Vec<_> = set.map(|(name, value)| (name.to_owned(), value.replace("%d", credentials))).collect();
        for credential in directive(&unit, "LoadCredential") {
            let (id, path) = credential.split_once(':').unwrap();
            assert!(path.starts_with("/etc/windmill-git-sync/"), "{path}");
            let file = format!("{credentials}/{id}");
            assert!(set.iter().any(|(name, value)| name.ends_with("_FILE") && *value == file), "{id} is not used");
        }
        // The administrator's file sets the first one, and systemd adds `STATE_DIRECTORY`.
        set.push(("GIT_REMOTE_URL".to_owned(), "https://git.example.com/team/windmill-backup.git".to_owned()));
        let mut environment: Vec<_> =
            set.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect();
        assert_complete(&set);
        environment.push(("STATE_DIRECTORY".into(), state.clone().into()));
        let config = Config::new(&Options::default(), &Environment::new(environment), Required::Sync).unwrap();
        assert_eq!(config.data_dir.to_str(), Some(state.as_str()));
    }
}

#[track_caller]
fn run(mut command: std::process::Command, installed_by: &str) -> Result<String, String> {
    let output = command.output().unwrap_or_else(|error| panic!("{installed_by} is needed: {error}"));
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.success() { Ok(said) } else { Err(said) }
}

/// Copies the files of an example into a folder, and applies `change` to the text of each.
fn copied(sandbox: &Sandbox, example: &str, change: impl Fn(&str) -> String) -> std::path::PathBuf {
    let folder = sandbox.scratch(example);
    for entry in fs::read_dir(std::path::Path::new("examples").join(example)).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        fs::write(folder.join(path.file_name().unwrap()), change(&text)).unwrap();
    }
    folder
}

#[test]
#[ignore = "needs promtool: just test-tools"]
fn promtool_accepts_the_alerts_and_their_tests_hold() {
    let sandbox = Sandbox::new();
    let promtool = |words: &[&str], change: &dyn Fn(&str) -> String| {
        let mut command = std::process::Command::new("promtool");
        command.current_dir(copied(&sandbox, "prometheus", change)).args(words);
        run(command, "promtool (Debian: prometheus)")
    };
    let as_is = |text: &str| text.to_owned();
    promtool(&["check", "config", "--syntax-only", "scrape.yaml"], &as_is).unwrap();
    promtool(&["check", "rules", "rules.yaml"], &as_is).unwrap();
    let tests = ["test", "rules", "rules.test.yaml"];
    promtool(&tests, &as_is).unwrap();
    for (right, wrong) in [("> 26 * 3600", "> 27 * 3600"), ("code=\"incomplete\"}\n", "code=\"timeout\"}\n")] {
        let change = |text: &str| text.replace(right, wrong);
        assert!(promtool(&tests, &change).is_err(), "the tests take `{wrong}`");
    }
}

#[test]
#[ignore = "needs systemd-analyze: just test-tools"]
fn systemd_accepts_the_units_and_finds_them_hardened() {
    let sandbox = Sandbox::new();
    let program = support::run::program();
    let analyze = |words: &[&str], change: &dyn Fn(&str) -> String| {
        let installed =
            |text: &str| change(text).replace("/usr/local/bin/windmill-git-sync", program.to_str().unwrap());
        let mut command = std::process::Command::new("systemd-analyze");
        command.current_dir(copied(&sandbox, "systemd", installed)).args(words);
        run(command, "systemd-analyze (Debian: systemd)")
    };
    let as_is = |text: &str| text.to_owned();
    for unit in UNITS.into_iter().chain(["windmill-git-sync-once.timer"]) {
        let unit = format!("./{unit}");
        let verify = ["verify", "--man=no", &unit];
        assert_eq!(analyze(&verify, &as_is).unwrap().trim(), "", "{unit}");
        let wrong =
            |text: &str| text.replace("ProtectSystem=strict", "ProtectSystem=strictly").replace("hourly", "hour");
        assert_ne!(analyze(&verify, &wrong).unwrap_or_else(|said| said).trim(), "", "{unit}");
        if unit.ends_with(".service") {
            // The unit is tenths. 100 means no protection at all.
            let security = ["security", "--offline=true", "--no-pager", "--threshold=20", &unit];
            analyze(&security, &as_is).unwrap();
            assert!(analyze(&security, &|text: &str| text.replace("CapabilityBoundingSet=\n", "")).is_err(), "{unit}");
        }
    }
}
