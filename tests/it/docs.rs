//! The documents describe the code, and the code keeps what they promise: settings, codes, modules, and what the source
//! must not contain.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use windmill_git_sync::config::variables;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[track_caller]
pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Asserts that a generated file is up to date. `just RECIPE` sets `WRITE_RECIPE`, which generates it.
#[track_caller]
pub(crate) fn assert_kept(path: &str, made: &str, recipe: &str) {
    let file = root().join(path);
    if std::env::var_os(format!("WRITE_{}", recipe.to_uppercase())).is_some() {
        fs::write(&file, made).unwrap();
    }
    let kept = fs::read_to_string(&file).unwrap_or_default();
    assert!(kept == made, "{path} is out of date: `just {recipe}` generates it");
}

/// Returns the cells of the table rows below the head `head`, up to the first line that is not a row.
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
fn each_setting_is_documented_with_its_default_in_the_order_of_the_code() {
    let settings = read("docs/settings.md");
    let rows = rows(&settings, "| variable | default | meaning |");
    let named: Vec<_> = rows.iter().map(|row| unquoted(row[0])).collect();
    let known: Vec<_> = variables().iter().map(|variable| variable.name).collect();
    assert_eq!(named, known);
    for (variable, row) in variables().iter().zip(&rows) {
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
fn the_settings_in_the_readme_are_settings() {
    let readme = read("README.md");
    let rows = rows(&readme, "| setting | default | meaning |");
    let named: Vec<_> = rows.iter().flat_map(|row| row[0].split(", ")).map(unquoted).collect();
    for name in &named {
        assert!(variables().iter().any(|variable| variable.name == *name), "{name}");
    }
    assert!(named.len() >= 10, "{named:?}");
}

#[test]
fn each_result_code_is_documented_with_its_status_and_exit_code() {
    let codes = read("docs/codes.md");
    let documented: Vec<_> = rows(&codes, "| code | HTTP | exit | when, and what helps |")
        .into_iter()
        .map(|row| (unquoted(row[0]).to_owned(), row[1].to_owned(), row[2].to_owned()))
        .collect();
    let source = read("src/model/result_code.rs");
    let of_code: Vec<_> = source
        .lines()
        .filter_map(|line| line.strip_suffix(';')?.split_once(" = \"").map(|(_, row)| row))
        .map(|row| {
            let cells: Vec<_> = row.split(", ").map(|cell| cell.trim_matches('"').to_owned()).collect();
            (cells[0].clone(), cells[1].clone(), cells[2].clone())
        })
        .collect();
    assert_eq!(documented, of_code);
    assert!(of_code.len() >= 20, "the table in src/model/result_code.rs is not where this test looks for it");
}

/// Returns the rows of the map: a folder, and the folders that it may import.
fn map_of_folders(document: &str, start: &str) -> Vec<(String, Vec<String>)> {
    let rows = document.lines().filter_map(|line| line.strip_prefix(start)).filter(|row| !row.starts_with("| ---"));
    let mut folders: Vec<(String, Vec<String>)> = Vec::new();
    for row in rows {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let [name, _, imports] = cells[..3] else { panic!("{row}") };
        let name = name.trim_matches(['[', ']', '`']).to_owned();
        let above = || folders.iter().map(|(name, _)| name.clone());
        let imports = match imports {
            "–" => Vec::new(),
            "all above" | "everything" => above().collect(),
            "all above but git and windmill" => above().filter(|name| name != "git" && name != "windmill").collect(),
            listed => listed.split(", ").map(str::to_owned).collect(),
        };
        folders.push((name, imports));
    }
    folders
}

#[test]
fn source_is_in_the_folders_of_the_map() {
    let map = map_of_folders(&read("src/lib.rs"), "//! | [`")
        .into_iter()
        .map(|(name, imports)| (name.trim_end_matches("`]").to_owned(), imports));
    let map: Vec<_> = map.collect();
    assert_eq!(map.len(), 13, "{map:?}");
    assert_eq!(map_of_folders(&read("ARCHITECTURE.md"), "| `").get(..13), Some(&map[..]), "ARCHITECTURE.md");
    let mut found: Vec<_> = fs::read_dir(root().join("src"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort_unstable();
    let mut expected: Vec<_> = map.iter().map(|(name, _)| name.clone()).collect();
    expected.extend(["lib.rs".to_owned(), "main.rs".to_owned()]);
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn each_folder_imports_only_those_that_the_map_permits() {
    let map = map_of_folders(&read("src/lib.rs"), "//! | [`");
    let mut seen = 0;
    for (path, source) in sources() {
        let Some((folder, _)) = path.strip_prefix("src/").and_then(|path| path.split_once('/')) else { continue };
        let (_, permitted) = map.iter().find(|(name, _)| name.trim_end_matches("`]") == folder).unwrap();
        if path.ends_with("tests.rs") {
            continue;
        }
        // Tests may import any folder.
        let code = source.split("#[cfg(test)]").next().unwrap().split("#[cfg(all(test").next().unwrap();
        assert!(
            !code.contains("crate::{"),
            "{path}: import each folder on a line of its own, so that this test sees it"
        );
        let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        for used in code.flat_map(|line| line.split("crate::").skip(1)) {
            let used = used.split(|letter: char| !letter.is_ascii_lowercase() && letter != '_').next().unwrap();
            seen += 1;
            let is_permitted = used == folder || permitted.iter().any(|name| name.trim_end_matches("`]") == used);
            assert!(is_permitted, "{path} imports `{used}`, which the map in src/lib.rs does not permit");
        }
    }
    assert!(seen > 300, "{seen}");
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

/// Returns the paths of the documents for people: those at the root and those in `docs`.
fn documents() -> Vec<String> {
    let mut found = Vec::new();
    for folder in ["", "docs", "docs/decisions"] {
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
fn links_between_documents_have_targets() {
    for document in documents() {
        let text = read(&document);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.starts_with("https://") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let beside = Path::new(&document).with_file_name(path);
            let path = if path.is_empty() { &document } else { beside.to_str().unwrap() };
            if anchor.is_empty() {
                assert!(root().join(path).exists(), "{document} links to {target}");
                continue;
            }
            let headings: Vec<_> = read(path).lines().filter(|line| line.starts_with('#')).map(anchor_of).collect();
            assert!(headings.iter().any(|one| one == anchor), "{document} links to {target}");
        }
    }
}

#[test]
fn each_page_about_the_service_is_in_the_index() {
    let readme = read("README.md");
    for document in documents() {
        let (folder, page) = document.rsplit_once('/').unwrap_or(("", &document));
        let index = if folder.is_empty() { readme.clone() } else { read(&format!("{folder}/README.md")) };
        let is_index = page == "README.md";
        assert!(is_index || index.contains(&format!("]({page}")), "the index beside {document} does not lead to it");
    }
    assert!(readme.contains("](docs/README.md)") && read("docs/README.md").contains("](decisions/README.md)"));
}

#[test]
fn readme_and_architecture_are_short() {
    for (document, lines_max) in [("README.md", 250), ("ARCHITECTURE.md", 200)] {
        let lines = read(document).lines().count();
        assert!(lines <= lines_max, "{document} has {lines} lines");
    }
}

/// This repository is not published: an address for it could belong to someone else.
#[test]
fn no_document_has_an_address_that_is_not_ours() {
    for path in
        documents().into_iter().chain(["Cargo.toml", "Dockerfile.scratch", "docker-compose.yml"].map(str::to_owned))
    {
        let text = read(&path);
        for address in ["github.com/windmill-git-sync", "ghcr.io/windmill-git-sync"] {
            assert!(!text.contains(address), "{path} has {address}");
        }
    }
}

/// Makes an anchor from a heading, like forges do.
fn anchor_of(heading: &str) -> String {
    let kept = |letter: &char| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_');
    heading.trim_start_matches('#').trim().to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")
}

/// Returns our source files with their paths.
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
fn only_permitted_modules_use_disallowed_methods() {
    const PERMITTED: [&str; 3] = ["src/process/", "src/http/", "src/cli/"];
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

/// Returns the settings of an `.env` file in order: name, value, whether it is set, and the line above it.
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

/// These settings are not ours, but they are passed on.
const PROXIES: [&str; 4] = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"];

#[test]
fn the_env_example_has_each_setting_with_its_default_and_a_comment() {
    let text = read(".env.example");
    let settings = settings_of(&text);
    let needed: Vec<_> = settings.iter().filter(|setting| setting.2).map(|setting| setting.0).collect();
    assert_eq!(needed, ["WINDMILL_TOKEN", "GIT_REMOTE_URL", "GIT_TOKEN", "WORKSPACE_VOLUME"]);
    assert!(settings[..needed.len()].iter().all(|setting| setting.2), "the needed ones come first");
    for variable in variables() {
        let of_it: Vec<_> = settings.iter().filter(|setting| setting.0 == variable.name).collect();
        let [(_, value, _, above)] = of_it[..] else { panic!("{} is there {} times", variable.name, of_it.len()) };
        assert_eq!(*value, variable.default.unwrap_or_default(), "{}", variable.name);
        assert!(above.starts_with("# ") && !above.starts_with("# -"), "{} has no line about it", variable.name);
    }
    let compose = read("docker-compose.yml");
    let known = |name: &str| variables().iter().any(|variable| variable.name == name);
    for (name, ..) in settings.iter().filter(|setting| !known(setting.0)) {
        let is_known = compose.contains(&format!("${{{name}:-")) || PROXIES.contains(name);
        assert!(is_known, "neither we nor docker-compose.yml know {name}");
    }
}

#[test]
fn compose_passes_each_setting_and_mounts_each_secret_file() {
    let compose = read("docker-compose.yml");
    let (_, environment) = compose.split_once("    environment:\n").expect("an environment");
    let (environment, _) = environment.split_once("    secrets:\n").expect("secrets after it");
    let passed: Vec<_> = environment.lines().map(str::trim).collect();
    let mut expected = Vec::new();
    for variable in variables() {
        let name = variable.name;
        let is_file = variable.secret || name.ends_with("_FILE");
        let mounted = if variable.secret { format!("{name}_FILE") } else { name.to_owned() };
        let secret = name.to_lowercase();
        if variable.secret || !is_file {
            expected.push(format!("{name}:"));
        }
        if is_file {
            expected.push(format!("{mounted}: ${{{mounted}:+/run/secrets/{secret}}}"));
            assert!(compose.contains(&format!("\n      - {secret}\n")), "{secret} is not a secret of the service");
            let file = format!("\n  {secret}:\n    file: ${{{mounted}:-/dev/null}}\n");
            assert!(compose.contains(&file), "{secret} is not defined");
        }
    }
    expected.extend(PROXIES.map(|name| format!("{name}:")));
    assert_eq!(passed, expected);
}

#[test]
fn the_stop_timeout_of_compose_is_longer_than_the_service_needs() {
    let seconds = |text: &str, before: &str, after: &str| -> u64 {
        let rest = text.split_once(before).unwrap_or_else(|| panic!("no {before}")).1;
        rest.split_once(after).unwrap().0.parse().unwrap_or_else(|_| panic!("no number after {before}"))
    };
    let main = read("src/cli/serve.rs");
    let grace =
        variables().iter().find(|variable| variable.name == "SHUTDOWN_GRACE").and_then(|it| it.default).unwrap();
    let taken = seconds(grace, "", "s")
        + seconds(&main, "const KILL_TIME_MAX: Duration = Duration::from_secs(", ")")
        + seconds(&main, "const ANSWER_TIME_MAX: Duration = Duration::from_secs(", ")");
    let waited = seconds(&read("docker-compose.yml"), "stop_grace_period: ${STOP_GRACE_PERIOD:-", "s}");
    assert!(waited >= taken + 5, "compose kills after {waited} s, and the end may take {taken} s");
}

#[test]
fn the_image_has_this_version_and_the_rust_and_wmill_of_the_tests() {
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
fn the_lock_files_name_only_public_registries() {
    let crates = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
    for lock in ["Cargo.lock", "fuzz/Cargo.lock"] {
        assert!(read(lock).lines().filter(|line| line.starts_with("source")).all(|line| line == crates), "{lock}");
    }
    let packages = "\"resolved\": \"https://registry.npmjs.org/";
    for lock in ["tests/wmill", "tests/page", "image"].map(|folder| read(&format!("{folder}/package-lock.json"))) {
        assert!(lock.lines().filter(|line| line.contains("\"resolved\"")).all(|line| line.contains(packages)));
    }
}
