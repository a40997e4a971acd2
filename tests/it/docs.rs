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
fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The cells of the tables' rows below the head `head`, up to the next line that is none.
#[track_caller]
fn rows<'a>(document: &'a str, head: &str) -> Vec<Vec<&'a str>> {
    let start = document.find(head).unwrap_or_else(|| panic!("no table with the head `{head}`"));
    let lines = document[start..].lines().skip(2).take_while(|line| line.starts_with('|'));
    lines.map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect()).collect()
}

fn unquoted(cell: &str) -> &str {
    cell.trim_matches('`')
}

/// Whether the settings say themselves that this one is known and has no effect yet.
fn is_unsupported(name: &str, value: &str) -> bool {
    let environment = Environment::new([(OsString::from(name), OsString::from(value))]);
    Config::new(&Options::default(), &environment, Need::Serve).is_ok_and(|config| config.unsupported.contains(&name))
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
        if is_unsupported(name, variable.default.unwrap_or("x")) {
            assert!(meaning.contains("*not yet*"), "{name} is not acted on, and the README does not say so: {meaning}");
        }
    }
}

#[test]
fn the_readme_lists_each_result_code_with_its_status_and_exit_code() {
    let readme = read("README.md");
    let documented: Vec<_> = rows(&readme, "| code | HTTP | exit | when |")
        .into_iter()
        .map(|row| (unquoted(row[0]).to_owned(), row[1].to_owned(), row[2].to_owned()))
        .collect();
    let source = read("src/code.rs");
    let of_code: Vec<_> = source
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Self::")?.split_once(" => (\"")?.1.strip_suffix("),"))
        .map(|row| {
            let cells: Vec<_> = row.split(", ").map(|cell| cell.trim_matches('"').to_owned()).collect();
            (cells[0].clone(), cells[1].clone(), cells[2].clone())
        })
        .collect();
    assert_eq!(documented, of_code);
    assert!(of_code.len() >= 20, "the table in src/code.rs is not where this test looks for it");
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

#[test]
fn links_between_the_documents_lead_somewhere() {
    for document in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"] {
        let text = read(document);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.starts_with("https://") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = if path.is_empty() { document } else { path };
            let headings: Vec<_> = read(path).lines().filter(|line| line.starts_with('#')).map(anchor_of).collect();
            assert!(anchor.is_empty() || headings.iter().any(|one| one == anchor), "{document} links to {target}");
        }
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
    const PERMITTED: [&str; 4] = ["src/subprocess.rs", "src/server/", "src/main.rs", "src/lock.rs"];
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

#[test]
fn the_lock_files_name_no_other_registry_than_the_public_ones() {
    let crates = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
    assert!(read("Cargo.lock").lines().filter(|line| line.starts_with("source")).all(|line| line == crates));
    let packages = "\"resolved\": \"https://registry.npmjs.org/";
    let lock = read("tests/wmill/package-lock.json");
    assert!(lock.lines().filter(|line| line.contains("\"resolved\"")).all(|line| line.contains(packages)));
}
