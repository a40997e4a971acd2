//! Finds names in an export that must not become names of files: they lead out of the folder, or git or a file system
//! refuses them.

use super::item_path::{self, DEPENDENCIES};
use super::json_digest::CUT;

/// The longest name that file systems accept.
const NAME_BYTES_MAX: usize = 255;
/// The longest name of an entry of the export: Windmill's longest path has 255 characters, of 4 bytes at most.
const ENTRY_BYTES_MAX: usize = 1200;
/// The line length from which on git's check of received objects refuses a `.gitattributes`.
const ATTRIBUTES_LINE_BYTES_MAX: usize = 2048;

/// Returns why no file of an item may have the path `path` in the item's folder, or `None` if it may.
pub fn fault_of_path(path: &str) -> Option<&'static str> {
    let last = path.rsplit('/').next().unwrap_or_default();
    if path.is_empty() {
        Some("is empty")
    } else if path.contains('\0') {
        Some("has a zero byte, or half of a surrogate pair, or is far too long")
    // `/` and `\` both count as separators, because each is one on some system.
    } else if path.starts_with('/') || parts(path).any(|part| part == "..") {
        Some("leads elsewhere")
    } else if matches!(last, "" | ".") {
        Some("is that of a folder")
    } else if path.split('/').any(|name| name.len() > NAME_BYTES_MAX) {
        Some("is longer than file systems hold")
    } else if parts(path).any(|part| is_like(part, ".git", &["git~1".to_owned()])) {
        Some("is reserved for git's own files")
    } else {
        None
    }
}

/// Returns why no entry of the export may have this name, or `None` if it may. wmill would write such an entry to the
/// file of another one.
pub fn fault_of_entry(name: &str) -> Option<&'static str> {
    let is_folder = item_path::folder_of_entry(name).is_some();
    let is_changed = || name.strip_suffix(".json").is_some_and(|path| path.contains(".json"));
    if name.len() > ENTRY_BYTES_MAX {
        Some("is longer than any path in Windmill")
    } else if let Some(fault) = fault_of_path(name) {
        Some(fault)
    } else if name.split('/').any(|part| matches!(part, "" | ".")) {
        Some("is not a plain path")
    } else if !is_folder && !name.starts_with(DEPENDENCIES) && is_changed() {
        Some("has `.json` within it, which wmill writes as `.yaml`")
    } else {
        None
    }
}

/// Whether wmill takes an entry of the export for the workspace's own settings or key, and so does not write it. The
/// files of flows and apps have names of their own, and in the folder of a script's modules wmill does not look at
/// names.
pub fn is_like_a_workspace_file(entry: &str) -> bool {
    let Some((_, file)) = entry.strip_suffix(".json").and_then(|path| path.rsplit_once('/')) else { return false };
    let mut parts = file.split('.');
    matches!(parts.next(), Some("settings" | "encryption_key"))
        && parts.count() < 2
        && item_path::folder_of_entry(entry).is_none()
        && module_folder(entry).is_none()
}

/// The endings of folders that hold the modules of a script.
pub const MODULES: &str = "__mod";
/// The same for a dbt project.
pub const DBT: &str = "__dbt";
/// The folders in a dbt project whose files wmill takes for generated ones, and does not write.
const DBT_GENERATED: [&str; 6] = ["target", "dbt_packages", "logs", ".git", ".venv", "__pycache__"];

/// Returns the outermost folder in a path that has the ending of a script's modules: the path before the ending, the
/// ending, and the path in the folder.
pub fn module_folder(path: &str) -> Option<(&str, &'static str, &str)> {
    let (slash, ending) = path.match_indices('/').find_map(|(slash, _)| {
        Some((slash, [MODULES, DBT].into_iter().find(|ending| path[..slash].ends_with(ending))?))
    })?;
    Some((&path[..slash - ending.len()], ending, &path[slash + 1..]))
}

/// Returns the folder of a path that wmill takes for one that dbt generates.
pub fn dbt_generated_folder(path: &str) -> Option<&str> {
    let (_, _, rest) = module_folder(path).filter(|(_, ending, _)| *ending == DBT)?;
    let folder = rest.split_once('/').map(|(folder, _)| folder).filter(|folder| DBT_GENERATED.contains(folder))?;
    Some(&path[..path.len() - rest.len() + folder.len()])
}

/// Whether wmill does not write this file of a dbt project: it is generated, or has secrets of a machine.
pub fn is_not_of_dbt(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file);
    file.split_once('/').is_some_and(|(folder, _)| DBT_GENERATED.contains(&folder))
        || matches!(name, ".env" | ".envrc")
        || name.starts_with(".env.")
}

/// Whether wmill does not write this file of a raw app.
pub fn is_not_of_raw_app(file: &str) -> bool {
    let mut folders: Vec<&str> = file.split('/').filter(|part| !part.is_empty()).collect();
    let name = folders.pop().unwrap_or_default();
    match folders.first() {
        Some(&"backend") => folders.len() != 1,
        first => {
            first == Some(&"recordings")
                || ["package-lock.json", "DATATABLES.md", "AGENTS.md", "wmill.d.ts"].contains(&name)
                || folders.iter().any(|folder| ["node_modules", "dist", ".claude", "sql_to_apply"].contains(folder))
        }
    }
}

fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split(['/', '\\'])
}

/// Returns why git refuses this content of a file, or may refuse it. In a repository that it receives, git reads
/// `.gitmodules` and `.gitattributes` in any folder. A `.gitmodules` is accepted only if each of its lines is plain.
pub fn fault_of_content(path: &str, content: &str) -> Option<&'static str> {
    // The name, and what Windows' short names of it begin with: the first four, and the others.
    let is_file = |name: &str, short: &str, later: &str| {
        let short = ["1", "2", "3", "4"].map(|digit| [short, digit].concat());
        parts(path).any(|part| {
            let head = part.get(..later.len());
            is_like(part, name, &short) || head.is_some_and(|head| head.eq_ignore_ascii_case(later))
        })
    };
    if is_file(".gitmodules", "gitmod~", "gi7eba~") {
        let is_plain = content.lines().all(is_plain_line);
        (!is_plain).then_some("is a file of git's submodules, and git hosts refuse its content")
    } else if !is_file(".gitattributes", "gitatt~", "gi7d29~") {
        None
    } else if content.contains(CUT) {
        Some("is a file of git's attributes, and too long to be checked")
    } else {
        let is_long = content.lines().any(|line| line.len() >= ATTRIBUTES_LINE_BYTES_MAX);
        is_long.then_some("is a file of git's attributes, and git hosts refuse so long a line")
    }
}

/// Whether git accepts this line of `.gitmodules`, whatever comes before it.
fn is_plain_line(line: &str) -> bool {
    let line = line.trim();
    let is_plain = |text: &str| {
        let is_plain = |char: char| char.is_ascii_alphanumeric() || "-_./:@".contains(char);
        !text.is_empty() && !text.starts_with('-') && !text.contains("..") && text.chars().all(is_plain)
    };
    if line.is_empty() || line.starts_with('#') {
        return true;
    }
    if let Some(name) = line.strip_prefix("[submodule \"").and_then(|rest| rest.strip_suffix("\"]")) {
        return is_plain(name);
    }
    let Some((key, value)) = line.split_once('=') else { return false };
    matches!(key.trim(), "path" | "url" | "branch") && is_plain(value.trim())
}

/// Whether some file system takes `part` for `name`: with other upper and lower case, with endings that Windows cuts
/// off, with characters that macOS ignores, or as one of the short names.
fn is_like(part: &str, name: &str, short: &[String]) -> bool {
    let visible: String = part.chars().filter(|char| !is_ignored(*char)).collect();
    let is_windows = |name: &str| {
        let head = part.get(..name.len()).is_some_and(|head| head.eq_ignore_ascii_case(name));
        head && part[name.len()..].split(':').next().unwrap_or_default().chars().all(|char| matches!(char, '.' | ' '))
    };
    visible.eq_ignore_ascii_case(name) || is_windows(name) || short.iter().any(|name| is_windows(name))
}

/// Characters that HFS+ ignores in names.
fn is_ignored(char: char) -> bool {
    matches!(char, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_folder_or_belong_to_git_are_refused() {
        for (path, fault) in [
            ("", "is empty"),
            ("a\0", "has a zero byte, or half of a surrogate pair, or is far too long"),
            ("/a", "leads elsewhere"),
            ("..", "leads elsewhere"),
            ("a/../b", "leads elsewhere"),
            ("..\\b", "leads elsewhere"),
            ("a/", "is that of a folder"),
            ("a/.", "is that of a folder"),
            (".git/config", "is reserved for git's own files"),
            ("x/.GIT", "is reserved for git's own files"),
            ("git~1", "is reserved for git's own files"),
            (".git. ./x", "is reserved for git's own files"),
            (".git::$INDEX_ALLOCATION/x", "is reserved for git's own files"),
            ("a\\.git", "is reserved for git's own files"),
            (".g\u{200c}it/x", "is reserved for git's own files"),
        ] {
            assert_eq!(fault_of_path(path), Some(fault), "{path:?}");
        }
        for path in ["a", "...", "..a/b..", "a\\b", "git~2", ".gitx", ".git.x", ".gitignore", "./a", "a//b", "é b/c\nd"]
        {
            assert_eq!(fault_of_path(path), None, "{path:?}");
        }
        assert_eq!(fault_of_path(&"x".repeat(255)), None);
        assert!(fault_of_path(&format!("a/{}", "x".repeat(256))).is_some());
    }

    #[test]
    fn an_entry_with_the_file_of_another_is_refused() {
        for name in ["groups/./a.group.json", "groups//a.group.json", "f/a/.", "groups/a.json.group.json", "../a.ts"] {
            assert!(fault_of_entry(name).is_some(), "{name}");
        }
        for name in ["groups/a.group.json", "f/a.json.ts", "dependencies/a.json.package.json", "f/a.json.flow.json"] {
            assert_eq!(fault_of_entry(name), None, "{name}");
        }
    }

    #[test]
    fn names_that_wmill_reads_as_others_are_recognized() {
        for entry in [
            "f/ops/settings.variable.json",
            "f/ops/settings.script.json",
            "f/ops/encryption_key.http_trigger.json",
            "groups/settings.group.json",
            "f/ops/settings.json",
        ] {
            assert!(is_like_a_workspace_file(entry), "{entry}");
        }
        for entry in [
            "settings.json",
            "f/ops/settings.ts",
            "f/ops/settings.flow.json",
            "f/ops/settings2.variable.json",
            "f/ops/my.settings.variable.json",
            "f/settings/a.variable.json",
            "f/team__mod/settings.variable.json",
            "f/ops/settings.script.77.nextcloud_native_trigger.json",
        ] {
            assert!(!is_like_a_workspace_file(entry), "{entry}");
        }
        assert_eq!(dbt_generated_folder("f/team__dbt/logs/clean.ts"), Some("f/team__dbt/logs"));
        for path in ["f/team__dbt/logs.ts", "f/team__dbt/x/logs/a.ts", "f/a__mod/b__dbt/logs/a.ts", "f/dbt/logs/a.ts"] {
            assert_eq!(dbt_generated_folder(path), None, "{path}");
        }
        assert_eq!(module_folder("f/a__mod/b__dbt/c"), Some(("f/a", MODULES, "b__dbt/c")));
        for file in ["dist/a.js", "a/dist/b.js", "package-lock.json", "recordings/r", "lib/AGENTS.md", "backend/a/b"] {
            assert!(is_not_of_raw_app(file), "{file}");
        }
        for file in ["index.tsx", "lib/recordings/r", "backend/a.ts", "distribution/a"] {
            assert!(!is_not_of_raw_app(file), "{file}");
        }
        assert!(is_not_of_dbt("logs/a") && is_not_of_dbt("a/.env.x") && !is_not_of_dbt("a/logs/b"));
    }

    #[test]
    fn files_that_git_reads_are_accepted_if_they_are_plain() {
        const PLAIN: &str = "# ours\n[submodule \"lib/a\"]\n\tpath = lib/a\n\turl = https://git.example/a.git\n\n";
        for path in [".gitmodules", "a/.GITMODULES", "gitmod~1", "GI7EBA~9", ".gitmodules ", ".gitmodu\u{200d}les"] {
            assert!(fault_of_content(path, "[core]").is_some_and(|fault| fault.contains("submodules")), "{path:?}");
            assert_eq!(fault_of_content(path, PLAIN), None, "{path:?}");
        }
        for path in ["gitmodules", ".gitmodules.x", "gitmod~5", ".gitignore"] {
            assert_eq!(fault_of_content(path, "[core]"), None, "{path:?}");
        }
        for text in ["[submodule", "[submodule \"../x\"]", "url = -x", "x = y", "[core]\n", "path = a b", "url = a\\"] {
            assert!(fault_of_content(".gitmodules", text).is_some(), "{text}");
        }
        assert_eq!(fault_of_content("x/.gitattributes", &"x".repeat(2047)), None);
        assert!(fault_of_content("x/.gitattributes", &"x".repeat(2048)).is_some());
    }
}
