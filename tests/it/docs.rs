//! The documents say what the code does, and the code keeps what they promise of it: settings, codes, modules, and
//! what is absent from the source.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use windmill_git_sync::config::{Config, Environment, Need, Options, VARIABLES};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[track_caller]
pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Whether a file of the repository is what was made for it; to write it anew, `just RECIPE` sets `WRITE_RECIPE`.
#[track_caller]
pub(crate) fn assert_kept(path: &str, made: &str, recipe: &str) {
    let file = root().join(path);
    if std::env::var_os(format!("WRITE_{}", recipe.to_uppercase())).is_some() {
        fs::write(&file, made).unwrap();
    }
    let kept = fs::read_to_string(&file).unwrap_or_default();
    assert!(kept == made, "{path} is not what it is made of: `just {recipe}` writes it anew");
}

/// The cells of the tables' rows below the head `head`, up to the next line that is none.
#[track_caller]
pub(crate) fn rows<'a>(document: &'a str, head: &str) -> Vec<Vec<&'a str>> {
    let start = document.find(head).unwrap_or_else(|| panic!("no table with the head `{head}`"));
    let lines = document[start..].lines().skip(2).take_while(|line| line.starts_with('|'));
    lines.map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect()).collect()
}

fn unquoted(cell: &str) -> &str {
    cell.trim_matches('`')
}

#[test]
fn the_readme_lists_each_setting_with_its_default_in_the_order_of_the_code() {
    let readme = read("README.md");
    let rows = rows(&readme, "| variable | default | meaning |");
    let named: Vec<_> = rows.iter().map(|row| unquoted(row[0])).collect();
    let known: Vec<_> = VARIABLES.iter().map(|variable| variable.name).collect();
    assert_eq!(named, known);
    for (variable, row) in VARIABLES.iter().zip(&rows) {
        let (name, meaning) = (variable.name, row[2]);
        let default = match variable.default {
            None => "–".to_owned(),
            Some("") => "the root".to_owned(),
            Some(default) => format!("`{default}`"),
        };
        assert_eq!(row[1], default, "{name}");
        assert_eq!(variable.secret, meaning.starts_with("*secret*"), "{name}: {meaning}");
        assert!(!meaning.contains("*not yet*"), "{name} is acted on: {meaning}");
    }
}

#[test]
fn the_readme_lists_each_result_code_with_its_status_and_exit_code() {
    let readme = read("README.md");
    let documented: Vec<_> = rows(&readme, "| code | HTTP | exit | when, and what helps |")
        .into_iter()
        .map(|row| (unquoted(row[0]).to_owned(), row[1].to_owned(), row[2].to_owned()))
        .collect();
    let source = read("src/model/result_code.rs");
    let of_code: Vec<_> = source
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Self::")?.split_once(" => (\"")?.1.strip_suffix("),"))
        .map(|row| {
            let cells: Vec<_> = row.split(", ").map(|cell| cell.trim_matches('"').to_owned()).collect();
            (cells[0].clone(), cells[1].clone(), cells[2].clone())
        })
        .collect();
    assert_eq!(documented, of_code);
    assert!(of_code.len() >= 20, "the table in src/model/result_code.rs is not where this test looks for it");
}

#[test]
fn the_map_names_each_module_and_the_architecture_describes_it() {
    let map = read("src/lib.rs");
    let architecture = read("ARCHITECTURE.md");
    let modules: BTreeSet<_> =
        map.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let mapped: BTreeSet<_> = map.lines().filter_map(|line| line.strip_prefix("//! | [`")?.split('`').next()).collect();
    assert_eq!(modules, mapped, "the map in src/lib.rs");
    for module in modules {
        assert!(architecture.contains(&format!("| `{module}` |")), "ARCHITECTURE.md does not describe `{module}`");
    }
}

#[test]
fn each_module_depends_only_on_those_above_it_on_the_map() {
    let map = read("src/lib.rs");
    let mapped: Vec<_> = map.lines().filter_map(|line| line.strip_prefix("//! | [`")?.split('`').next()).collect();
    let architecture = read("ARCHITECTURE.md");
    let described = architecture.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let described: Vec<_> = described.filter(|name| mapped.contains(name)).collect();
    assert_eq!(described, mapped, "the map in ARCHITECTURE.md");
    let mut seen = 0;
    for (place, module) in mapped.iter().enumerate() {
        for path in files_of(module) {
            let source = read(&path);
            // Tests may use what they like.
            let code = source.split("#[cfg(test)]").next().unwrap().split("#[cfg(all(test").next().unwrap();
            assert!(!code.contains("use crate::{"), "{path}: a module on each line, so that this test sees it");
            let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
            for used in code.flat_map(|line| line.split("crate::").skip(1)) {
                let used = used.split(|letter: char| !letter.is_ascii_lowercase() && letter != '_').next().unwrap();
                let Some(of) = mapped.iter().position(|name| *name == used) else { continue };
                seen += 1;
                assert!(of <= place, "{path} uses `{used}`, which the map has below it");
            }
        }
    }
    assert!(seen > 200, "{seen}");
}

/// The files of a module: its own, and those of the modules within.
fn files_of(module: &str) -> Vec<String> {
    let (_, file) = declared("src/lib.rs").into_iter().find(|(name, _)| name == module).unwrap();
    let within = declared(&file).into_iter().filter(|(name, _)| name != "tests").map(|(_, path)| path);
    within.chain([file.clone()]).collect()
}

/// The modules that a file declares, each with its own file.
fn declared(file: &str) -> Vec<(String, String)> {
    let folder = file.rsplit_once('/').unwrap().0;
    let mut found = Vec::new();
    let mut path = None;
    for line in read(file).lines() {
        if let Some(elsewhere) = line.strip_prefix("#[path = \"").and_then(|rest| rest.strip_suffix("\"]")) {
            path = Some(format!("{folder}/{elsewhere}"));
        }
        let declaration = line.strip_prefix("pub ").unwrap_or(line);
        if let Some(name) = declaration.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) {
            let beside = format!("{folder}/{name}.rs");
            let beside = if root().join(&beside).exists() { beside } else { format!("{folder}/{name}/mod.rs") };
            found.push((name.to_owned(), path.take().unwrap_or(beside)));
        }
    }
    found
}

#[test]
fn each_dependency_is_explained_in_the_manifest_and_named_in_the_architecture() {
    let manifest = read("Cargo.toml");
    let architecture = read("ARCHITECTURE.md");
    let mut is_dependency = false;
    let mut last = "";
    for line in manifest.lines() {
        if line.starts_with('[') {
            is_dependency = line.trim_end_matches(']').ends_with("dependencies");
        } else if let (true, Some((name, _))) = (is_dependency, line.split_once(" = ")) {
            assert!(last.starts_with('#') || last.contains(" = "), "`{name}` in Cargo.toml has no reason above it");
            assert!(architecture.contains(&format!("`{name}`")), "ARCHITECTURE.md does not name `{name}`");
        }
        last = line;
    }
}

/// The documents for people, by their path: those at the root and those in `docs`.
fn documents() -> Vec<String> {
    let mut found = Vec::new();
    for folder in ["", "docs"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let path = Path::new(folder).join(entry.unwrap().file_name());
            if path.extension().is_some_and(|ending| ending == "md") {
                found.push(path.to_str().unwrap().to_owned());
            }
        }
    }
    assert!(found.len() > 8, "{found:?}");
    found
}

#[test]
fn links_between_the_documents_lead_somewhere() {
    for document in documents() {
        let text = read(&document);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.starts_with("https://") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let beside = Path::new(&document).with_file_name(path);
            let path = if path.is_empty() { &document } else { beside.to_str().unwrap() };
            let headings: Vec<_> = read(path).lines().filter(|line| line.starts_with('#')).map(anchor_of).collect();
            assert!(anchor.is_empty() || headings.iter().any(|one| one == anchor), "{document} links to {target}");
        }
    }
}

#[test]
fn each_page_about_the_service_is_linked_from_the_readme() {
    let readme = read("README.md");
    for document in documents().iter().filter(|path| *path != "README.md") {
        assert!(readme.contains(&format!("]({document}")), "README.md does not lead to {document}");
    }
}

#[test]
fn the_manifest_for_kubernetes_sets_what_a_sync_needs_and_nothing_that_is_no_setting() {
    let manifest: yaml_serde::Value = yaml_serde::from_str(&read("examples/kubernetes/cronjob.yaml")).unwrap();
    let container = &manifest["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0];
    let set: Vec<_> = container["env"].as_sequence().unwrap().iter().collect();
    let text = |value: &yaml_serde::Value| OsString::from(value.as_str().unwrap());
    for one in &set {
        let name = one["name"].as_str().unwrap();
        let is_known = |known: &str| known == name || name.strip_suffix("_FILE") == Some(known);
        assert!(VARIABLES.iter().any(|variable| is_known(variable.name)), "{name}");
    }
    let environment = Environment::new(set.iter().map(|one| (text(&one["name"]), text(&one["value"]))));
    let config = Config::new(&Options::default(), &environment, Need::Sync);
    assert!(config.is_ok_and(|config| config.lacking().is_empty()));
    assert_eq!(container["args"][0].as_str(), Some("sync"));
}

/// As forges make an anchor of a heading.
fn anchor_of(heading: &str) -> String {
    let kept = |letter: &char| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_');
    heading.trim_start_matches('#').trim().to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")
}

/// Our source files, by their path.
fn sources() -> Vec<(String, String)> {
    let mut files = Vec::new();
    let mut pending = vec![PathBuf::from("src")];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap() {
            let path = folder.join(entry.unwrap().file_name());
            if root().join(&path).is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let path = path.to_str().unwrap();
                files.push((path.to_owned(), read(path)));
            }
        }
    }
    assert!(files.len() > 20, "{files:?}");
    files
}

#[test]
fn the_source_is_tidy() {
    for (path, text) in sources() {
        assert!(text.starts_with("//! "), "{path} does not open with what it owns");
        for (number, line) in text.lines().enumerate() {
            for word in ["TODO", "FIXME", "XXX", "dbg!(", "todo!(", "unimplemented!("] {
                assert!(!line.contains(word), "{path}:{} has {word}", number + 1);
            }
        }
    }
}

#[test]
fn only_the_modules_that_may_touch_the_world_are_permitted_to() {
    const PERMITTED: [&str; 4] = ["src/process/run.rs", "src/http/server/", "src/main.rs", "src/process/orphans.rs"];
    for (path, text) in sources() {
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        let is_test = path.ends_with("tests.rs");
        let sites = code.matches("(clippy::disallowed_methods").count();
        let is_permitted = PERMITTED.iter().any(|permitted| path.starts_with(permitted));
        assert!(sites == 0 || is_permitted || is_test, "{path} permits itself a disallowed method");
        assert!(
            !code.contains("allow(clippy::disallowed_methods") || is_test,
            "{path}: `expect`, so that it is in use"
        );
    }
}

/// The settings of an `.env` file in its order: name, value, whether it is set, and the line above it.
fn settings_of(text: &str) -> Vec<(&str, &str, bool, &str)> {
    let mut last = "";
    let mut found = Vec::new();
    for line in text.lines() {
        let setting = line.strip_prefix('#').unwrap_or(line);
        if let Some((name, value)) = setting.split_once('=').filter(|_| setting.starts_with(char::is_uppercase)) {
            found.push((name, value, !line.starts_with('#'), last));
        }
        last = line;
    }
    found
}

/// Not ours, and passed on all the same.
const PROXIES: [&str; 4] = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"];

#[test]
fn the_example_of_an_env_file_has_each_setting_with_its_default_and_a_line_about_it() {
    let text = read(".env.example");
    let settings = settings_of(&text);
    let needed: Vec<_> = settings.iter().filter(|setting| setting.2).map(|setting| setting.0).collect();
    assert_eq!(needed, ["WINDMILL_TOKEN", "GIT_REMOTE_URL", "GIT_TOKEN", "WORKSPACE_VOLUME"]);
    assert!(settings[..needed.len()].iter().all(|setting| setting.2), "the needed ones come first");
    for variable in VARIABLES {
        let of_it: Vec<_> = settings.iter().filter(|setting| setting.0 == variable.name).collect();
        let [(_, value, _, above)] = of_it[..] else { panic!("{} is there {} times", variable.name, of_it.len()) };
        assert_eq!(*value, variable.default.unwrap_or_default(), "{}", variable.name);
        assert!(above.starts_with("# ") && !above.starts_with("# -"), "{} has no line about it", variable.name);
    }
    let compose = read("docker-compose.yml");
    let known = |name: &str| VARIABLES.iter().any(|variable| variable.name == name);
    for (name, ..) in settings.iter().filter(|setting| !known(setting.0)) {
        let is_known = compose.contains(&format!("${{{name}:-")) || PROXIES.contains(name);
        assert!(is_known, "neither we nor docker-compose.yml know {name}");
    }
}

#[test]
fn compose_passes_on_each_setting_and_mounts_each_secret_that_comes_from_a_file() {
    let compose = read("docker-compose.yml");
    let (_, environment) = compose.split_once("    environment:\n").expect("an environment");
    let (environment, _) = environment.split_once("    secrets:\n").expect("secrets after it");
    let passed: Vec<_> = environment.lines().map(str::trim).collect();
    let mut expected = Vec::new();
    for variable in VARIABLES {
        let name = variable.name;
        let is_file = variable.secret || name.ends_with("_FILE");
        let mounted = if variable.secret { format!("{name}_FILE") } else { name.to_owned() };
        let secret = name.to_lowercase();
        if variable.secret || !is_file {
            expected.push(format!("{name}:"));
        }
        if is_file {
            expected.push(format!("{mounted}: ${{{mounted}:+/run/secrets/{secret}}}"));
            assert!(compose.contains(&format!("\n      - {secret}\n")), "{secret} is no secret of the service");
            let file = format!("\n  {secret}:\n    file: ${{{mounted}:-/dev/null}}\n");
            assert!(compose.contains(&file), "{secret} is not defined");
        }
    }
    expected.extend(PROXIES.map(|name| format!("{name}:")));
    assert_eq!(passed, expected);
}

#[test]
fn compose_waits_longer_for_the_end_than_the_service_takes() {
    let seconds = |text: &str, before: &str, after: &str| -> u64 {
        let rest = text.split_once(before).unwrap_or_else(|| panic!("no {before}")).1;
        rest.split_once(after).unwrap().0.parse().unwrap_or_else(|_| panic!("no number after {before}"))
    };
    let main = read("src/main.rs");
    let grace = VARIABLES.iter().find(|variable| variable.name == "SHUTDOWN_GRACE").and_then(|it| it.default).unwrap();
    let taken = seconds(grace, "", "s")
        + seconds(&main, "const KILL_TIME_MAX: Duration = Duration::from_secs(", ")")
        + seconds(&main, "const ANSWER_TIME_MAX: Duration = Duration::from_secs(", ")");
    let waited = seconds(&read("docker-compose.yml"), "stop_grace_period: ${STOP_GRACE_PERIOD:-", "s}");
    assert!(waited >= taken + 5, "compose kills after {waited} s, and the end may take {taken} s");
}

#[test]
fn the_image_is_of_this_version_with_the_rust_and_the_wmill_of_the_tests() {
    let recipe = read("Dockerfile.scratch");
    let label = concat!("org.opencontainers.image.version=\"", env!("CARGO_PKG_VERSION"), "\"");
    assert!(recipe.contains(label), "no {label}");
    let rust = concat!("ARG RUST_IMAGE=rust:", env!("CARGO_PKG_RUST_VERSION"), "-slim-trixie\n");
    assert!(recipe.contains(rust), "no {rust}");
    let packages = |path: &str| -> BTreeSet<(String, String)> {
        let text = read(path);
        let entries = text.split("\n    \"node_modules/").skip(1).map(|entry| {
            let integrity = entry.split("\"integrity\": \"").nth(1).and_then(|rest| rest.split('"').next());
            (entry.split('"').next().unwrap_or_default().to_owned(), integrity.unwrap_or_default().to_owned())
        });
        entries.collect()
    };
    let (of_tests, of_image) = (packages("tests/wmill/package-lock.json"), packages("image/package-lock.json"));
    assert!(of_tests.iter().any(|(name, integrity)| name == "windmill-cli" && !integrity.is_empty()));
    let others: Vec<_> = of_tests.difference(&of_image).collect();
    assert!(others.is_empty(), "the tests run other packages than the image: {others:?}");
}

#[test]
fn the_workflows_use_the_tools_of_the_checks_and_only_pinned_actions() {
    let ci = read(".ci/run");
    let deny = ci.split_once("deny_version=").and_then(|(_, rest)| rest.lines().next()).unwrap();
    for path in [".github/workflows/ci.yml", ".github/workflows/release.yml"] {
        let workflow = read(path);
        let versions_after = |words: &str| -> Vec<String> {
            let rest = workflow.split(words).skip(1);
            rest.map(|rest| rest.split([' ', '\n']).next().unwrap().to_owned()).collect()
        };
        for rust in versions_after("rustup toolchain install ") {
            assert!(env!("CARGO_PKG_RUST_VERSION").starts_with(&rust), "{path} has Rust {rust}");
        }
        for version in versions_after("--locked --version ") {
            assert_eq!(version, deny, "{path} has another cargo-deny than .ci/run");
        }
        for action in versions_after("uses: ").iter().filter(|action| !action.starts_with("./")) {
            let commit = action.split_once('@').unwrap().1;
            assert!(commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit()), "{path} has {action}");
        }
    }
}

#[test]
fn the_lock_files_name_no_other_registry_than_the_public_ones() {
    let crates = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
    for lock in ["Cargo.lock", "fuzz/Cargo.lock"] {
        assert!(read(lock).lines().filter(|line| line.starts_with("source")).all(|line| line == crates), "{lock}");
    }
    let packages = "\"resolved\": \"https://registry.npmjs.org/";
    for lock in [read("tests/wmill/package-lock.json"), read("image/package-lock.json")] {
        assert!(lock.lines().filter(|line| line.contains("\"resolved\"")).all(|line| line.contains(packages)));
    }
}
