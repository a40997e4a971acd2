//! Folders as values: their files, compared by bytes or by value. The comparison by value is for files that wmill does
//! not rewrite if their meaning is the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use yaml_serde::Value;

/// Paths with their content.
pub type Files = BTreeMap<String, Vec<u8>>;

/// wmill's list of the hashes of the files that it pulled.
const LOCK_FILE: &str = "wmill-lock.yaml";

/// Returns the files below `folder` without `.git`. The content of a symbolic link is `-> target`.
pub fn files_below(folder: &Path) -> Files {
    let mut files = Files::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(current) = folders.pop() {
        let entries =
            fs::read_dir(&current).unwrap_or_else(|error| panic!("cannot list `{}`: {error}", current.display()));
        for entry in entries {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            let path = entry.path();
            if kind.is_dir() {
                if entry.file_name() != ".git" {
                    folders.push(path);
                }
                continue;
            }
            let content = if kind.is_symlink() {
                format!("-> {}", fs::read_link(&path).unwrap().display()).into_bytes()
            } else {
                fs::read(&path).unwrap()
            };
            let name = path.strip_prefix(folder).unwrap().to_string_lossy();
            files.insert(name.into_owned(), content);
        }
    }
    files
}

/// Panics with every difference in paths and bytes.
#[track_caller]
pub fn assert_same_files(actual: &Files, expected: &Files) {
    assert_no_differences(&differences(actual, expected, |_, one, other| one == other));
}

/// Like [`assert_same_files`], but compares YAML and JSON by value, and in the lock file only entries of items that
/// exist.
#[track_caller]
pub fn assert_same_values(actual: &Files, expected: &Files) {
    let found = differences(actual, expected, |path, one, other| {
        if path == LOCK_FILE || path.ends_with(&format!("/{LOCK_FILE}")) {
            return same_locks(one, other);
        }
        let structured = [".yaml", ".yml", ".json"];
        if !structured.iter().any(|ending| path.ends_with(ending)) {
            return one == other;
        }
        match (value(one), value(other)) {
            (Some(one), Some(other)) => one == other,
            _ => one == other,
        }
    });
    assert_no_differences(&found);
}

#[track_caller]
fn assert_no_differences(differences: &[String]) {
    assert!(differences.is_empty(), "the trees differ:\n{}", differences.join("\n"));
}

fn differences(actual: &Files, expected: &Files, same: impl Fn(&str, &[u8], &[u8]) -> bool) -> Vec<String> {
    let paths: BTreeSet<&String> = actual.keys().chain(expected.keys()).collect();
    paths
        .into_iter()
        .filter_map(|path| match (actual.get(path), expected.get(path)) {
            (Some(one), Some(other)) if same(path, one, other) => None,
            (Some(one), Some(other)) => Some(format!(
                "{path} is\n{}\ninstead of\n{}",
                String::from_utf8_lossy(one),
                String::from_utf8_lossy(other)
            )),
            (Some(_), None) => Some(format!("{path} is too many")),
            _ => Some(format!("{path} is missing")),
        })
        .collect()
}

fn value(bytes: &[u8]) -> Option<Value> {
    yaml_serde::from_str(std::str::from_utf8(bytes).ok()?).ok()
}

/// Returns true if all entries of `fresh` are in `incremental`, which may have stale entries too.
fn same_locks(incremental: &[u8], fresh: &[u8]) -> bool {
    let (Some(Value::Mapping(one)), Some(Value::Mapping(other))) = (value(incremental), value(fresh)) else {
        return incremental == fresh;
    };
    other.iter().all(|(key, wanted)| match (one.get(key), wanted) {
        (Some(Value::Mapping(found)), Value::Mapping(wanted)) => {
            wanted.iter().all(|(item, hash)| found.get(item) == Some(hash))
        }
        (found, wanted) => found == Some(wanted),
    })
}
