//! Compares two files of a backup by value, and describes the differences for people.
//!
//! YAML and JSON are compared as `wmill` does: comments, order and line ends do not matter. Secrets are not shown.

use std::collections::BTreeMap;
use std::fmt;

use crate::git::{Entry, Git};
use crate::model::Result;
use crate::request::Purpose;
use crate::util::{Node, first_chars, printable, yaml};
use crate::windmill::{ItemId, ItemKind, WMILL_LOCK, item_path};

/// A larger file is reported as different, without details.
const FILE_BYTES_MAX: usize = 4 << 20;
/// How many lines are shown for one file.
const LINES_MAX: usize = 8;
/// How many characters are shown of one value or line.
const CHARS_MAX: usize = 80;
/// Shown in place of a value that may be secret.
const MASK: &str = "***";
/// Words in the name of a field that may hold a secret.
const SECRET_WORDS: [&str; 8] = ["secret", "password", "passwd", "token", "key", "credential", "webhook", "auth"];

/// Describes in a few lines how two files of a repository differ, for a run with this purpose; empty if they mean the
/// same.
///
/// # Errors
/// `BackupError` if a file cannot be read.
pub fn of_entries(
    git: &Git<'_>,
    path: &str,
    (backup, workspace): (&Entry, &Entry),
    purpose: Purpose,
) -> Result<Vec<String>> {
    if !backup.is_file() {
        return Ok(vec!["a link or a submodule in the backup".to_owned()]);
    }
    if backup.object == workspace.object {
        return Ok(Vec::new());
    }
    let read = |entry: &Entry| git.read_blob(&entry.object, FILE_BYTES_MAX);
    Ok(match (read(backup)?, read(workspace)?) {
        (Some(backup), Some(workspace)) => differences(path, &backup, &workspace, purpose),
        _ => vec!["it is too large".to_owned()],
    })
}

fn differences(path: &str, backup: &[u8], workspace: &[u8], purpose: Purpose) -> Vec<String> {
    if backup == workspace {
        return Vec::new();
    }
    let mut lines = Lines::default();
    match (parsed(path, backup, purpose), parsed(path, workspace, purpose)) {
        (Some(in_backup), Some(Node::Fields(locks))) if path.rsplit('/').next() == Some(WMILL_LOCK) => {
            compare_locks(&in_backup, &locks, &mut lines);
        }
        (Some(in_backup), Some(in_workspace)) => {
            let hidden = hidden_field(path, [&in_backup, &in_workspace]);
            compare(&mut Vec::new(), Some(&in_backup), Some(&in_workspace), hidden, &mut lines);
            if lines.count == 0 && [backup, workspace].into_iter().any(may_be_read_otherwise) {
                lines.add(format_args!("its content differs"));
            }
        }
        _ if hidden_field(path, [&Node::Null; 2]).is_some() => lines.add(format_args!("its content differs")),
        _ => compare_texts(backup, workspace, &mut lines),
    }
    lines.finish()
}

/// Parses a YAML or JSON file; `None` if the file has to be compared as text. wmill treats a `.yml` file as text.
fn parsed(path: &str, content: &[u8], purpose: Purpose) -> Option<Node> {
    let is_structured = [".yaml", ".json"].iter().any(|ending| path.ends_with(ending));
    if !is_structured || content.len() > FILE_BYTES_MAX {
        return None;
    }
    let mut node = yaml::value(std::str::from_utf8(content).ok()?)?;
    if let Node::Fields(fields) = &mut node {
        if path.ends_with(".script.yaml") {
            // wmill derives these fields, and ignores them.
            fields.retain(|(name, _)| !["is_template", "no_main_func", "auto_kind"].contains(&&**name));
        }
        let is_trigger = || matches!(item_of(path).map(|item| item.kind), Some(ItemKind::Trigger(_)));
        if purpose == Purpose::Restore && is_trigger() {
            turn_into_mode(fields);
        }
    }
    Some(node)
}

/// Replaces `enabled` by `mode`: current servers accept both for a trigger, and show only its `mode`.
fn turn_into_mode(fields: &mut Vec<(String, Node)>) {
    let Some(at) = fields.iter().position(|(name, _)| name == "enabled") else { return };
    let mode = match fields.remove(at).1 {
        Node::Bool(true) => "enabled",
        Node::Bool(false) => "disabled",
        _ => return,
    };
    if !fields.iter().any(|(name, _)| name == "mode") {
        fields.push(("mode".to_owned(), Node::Text(mode.to_owned())));
    }
}

/// Returns whether the file may have a plain value that our parser and the one of wmill read differently.
fn may_be_read_otherwise(content: &[u8]) -> bool {
    let text = String::from_utf8_lossy(content);
    let mut parts = text.split(['\n', '\t', ',', '[', ']', '{', '}']);
    parts.any(|part| is_number_of_one_parser(part) || has_indicator_within_word(part))
}

/// Returns whether a value in a line is a number for only one parser: `010` only for wmill, `0b1` and `+0x1` only for
/// ours. `1e999` is infinite for wmill, and a text for ours.
fn is_number_of_one_parser(line: &str) -> bool {
    let line = line.split(" #").next().unwrap_or_default();
    let value =
        [": ", "- ", "\":", "':"].iter().fold(line, |rest, sign| rest.rsplit(sign).next().unwrap_or(rest)).trim();
    let digits = value.strip_prefix(['-', '+']).unwrap_or(value);
    let has_sign = digits.len() < value.len();
    let is_whole = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let is_infinite = |text: &str| is_whole(&text[..1]) && text.parse::<f64>().is_ok_and(f64::is_infinite);
    match digits.strip_prefix('0') {
        Some(rest) if is_whole(rest) || rest.starts_with('b') => true,
        Some(rest) if has_sign && rest.starts_with(['x', 'o']) => true,
        _ => digits.is_ascii() && !digits.is_empty() && is_infinite(digits),
    }
}

/// Returns whether `?` or `:` begins a word. Between brackets, our parser reads it as an indicator, and the rest as the
/// beginning of a value.
fn has_indicator_within_word(part: &str) -> bool {
    let begins_with_one = |word: &str| word.len() > 1 && word.starts_with(['?', ':']);
    part.contains(":?") || part.split([' ', '\r']).any(begins_with_one)
}

/// Compares two lock files of wmill. Entries of deleted items stay in the backup, since wmill does not remove them.
/// Each entry of a fresh pull has to be in the backup with the same hash. Only the hash over all scripts of a flow or
/// an app may differ: after one of them was deleted, a pull into the repository's files and a fresh pull give different
/// hashes, and both are right. The hash of each script, and all files, are compared with the backup.
fn compare_locks(backup: &Node, workspace: &[(String, Node)], lines: &mut Lines) {
    let is_of_all = |item: &str| item.ends_with("+__flow_hash") || item.ends_with("+__app_hash");
    for (key, fresh) in workspace {
        match (backup.field(key), fresh) {
            (Some(Node::Fields(known)), Node::Fields(fresh)) => {
                let known = by_name(known);
                let is_right =
                    |item: &str, hash| known.get(item).is_some_and(|known| *known == hash || is_of_all(item));
                for (item, _) in fresh.iter().filter(|(item, hash)| !is_right(item, hash)) {
                    lines.add(format_args!("{}: the hash differs", printable(item.as_bytes())));
                }
            }
            (known, fresh) if known == Some(fresh) => {}
            _ => lines.add(format_args!("{}: it differs", printable(key.as_bytes()))),
        }
    }
}

/// Returns the item of a file, even if `wmill` does not read that file.
pub(in crate::backup) fn item_of(path: &str) -> Option<ItemId> {
    item_path::item_of(path).or_else(|| item_path::item_of_hidden_file(path))
}

/// Returns the field whose values are hidden, or an empty text if all values are hidden. With `None`, only values that
/// are named like a secret are hidden. A file that cannot be parsed is [`Node::Null`].
fn hidden_field(path: &str, nodes: [&Node; 2]) -> Option<&'static str> {
    let is_secret = |node: &Node| match node {
        Node::Fields(_) => node.field("is_secret") == Some(&Node::Bool(true)),
        _ => true,
    };
    let item = item_of(path)?;
    let is_main = path.strip_suffix(".resource.yaml") == Some(&item.path);
    match item.kind {
        ItemKind::Variable => nodes.into_iter().any(is_secret).then_some("value"),
        // The other files of a resource are its value.
        ItemKind::Resource if is_main => Some("value"),
        ItemKind::Resource | ItemKind::Settings | ItemKind::Key => Some(""),
        _ => None,
    }
}

fn is_hidden(place: &[String], hidden: Option<&str>) -> bool {
    let is_called_secret = |name: &String| {
        let name = name.to_ascii_lowercase();
        SECRET_WORDS.iter().any(|word| name.contains(word)) && name != "is_secret"
    };
    let is_below = |field: &str| field.is_empty() || place.first().is_some_and(|name| name == field);
    hidden.is_some_and(is_below) || place.iter().any(is_called_secret)
}

fn compare(
    place: &mut Vec<String>,
    backup: Option<&Node>,
    workspace: Option<&Node>,
    hidden: Option<&str>,
    lines: &mut Lines,
) {
    match (backup, workspace) {
        (Some(backup), Some(workspace)) if backup == workspace => {}
        (Some(Node::Fields(backup)), Some(Node::Fields(workspace))) => {
            let (backup, workspace) = (by_name(backup), by_name(workspace));
            for name in backup.keys().chain(workspace.keys().filter(|name| !backup.contains_key(*name))) {
                place.push((*name).to_owned());
                compare(place, backup.get(name).copied(), workspace.get(name).copied(), hidden, lines);
                place.pop();
            }
        }
        (Some(Node::List(backup)), Some(Node::List(workspace))) => {
            for index in 0..backup.len().max(workspace.len()) {
                place.push(index.to_string());
                compare(place, backup.get(index), workspace.get(index), hidden, lines);
                place.pop();
            }
        }
        (backup, workspace) => {
            let show = |node: Option<&Node>| match node {
                None => "nothing".to_owned(),
                Some(_) if is_hidden(place, hidden) => MASK.to_owned(),
                Some(node) => describe(node),
            };
            let name = printable(place.join(".").as_bytes());
            lines.add(format_args!("{name}: {} in the backup, {} in the workspace", show(backup), show(workspace)));
        }
    }
}

fn by_name(fields: &[(String, Node)]) -> BTreeMap<&str, &Node> {
    fields.iter().map(|(name, value)| (name.as_str(), value)).collect()
}

/// Describes a value in a few words.
fn describe(node: &Node) -> String {
    match node {
        Node::Null => "null".to_owned(),
        Node::Bool(value) => value.to_string(),
        Node::Whole(value) => value.to_string(),
        Node::Real(value) => value.to_string(),
        Node::Text(text) => first_chars(&format!("\"{}\"", printable(text.as_bytes())), CHARS_MAX).into_owned(),
        Node::List(list) => format!("a list of {}", list.len()),
        Node::Fields(fields) => format!("an object of {} fields", fields.len()),
        Node::Unread => "a value".to_owned(),
    }
}

/// Adds the lines in which two texts differ, without the common lines at both ends.
fn compare_texts(backup: &[u8], workspace: &[u8], lines: &mut Lines) {
    let (Ok(backup), Ok(workspace)) = (std::str::from_utf8(backup), std::str::from_utf8(workspace)) else {
        let (backup, workspace) = (backup.len(), workspace.len());
        return lines.add(format_args!("{backup} bytes in the backup, {workspace} in the workspace"));
    };
    // The lines keep their line ends, which may be the only difference.
    let (backup, workspace): (Vec<_>, Vec<_>) =
        (backup.split_inclusive('\n').collect(), workspace.split_inclusive('\n').collect());
    let start = backup.iter().zip(&workspace).take_while(|(backup, workspace)| backup == workspace).count();
    let (backup, workspace) = (&backup[start..], &workspace[start..]);
    let end =
        backup.iter().rev().zip(workspace.iter().rev()).take_while(|(backup, workspace)| backup == workspace).count();
    for (sign, side) in [('-', &backup[..backup.len() - end]), ('+', &workspace[..workspace.len() - end])] {
        // Both parts are shown, even if the first part is long.
        for line in side.iter().take(LINES_MAX / 2) {
            let end = if line.ends_with("\r\n") { " (with a carriage return)" } else { "" };
            lines.add(format_args!(
                "{sign}{}{end}",
                first_chars(&printable(line.trim_end_matches(['\r', '\n']).as_bytes()), CHARS_MAX)
            ));
        }
        lines.count += side.len().saturating_sub(LINES_MAX / 2);
    }
}

/// The first few lines, and the number of all lines.
#[derive(Default)]
struct Lines {
    first: Vec<String>,
    count: usize,
}

impl Lines {
    fn add(&mut self, line: fmt::Arguments<'_>) {
        self.count += 1;
        if self.first.len() < LINES_MAX {
            self.first.push(line.to_string());
        }
    }

    fn finish(mut self) -> Vec<String> {
        let more = self.count - self.first.len();
        if more > 0 {
            self.first.push(format!("and {more} more"));
        }
        self.first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, backup: &str, workspace: &str, expected: &[&str]) {
        assert_eq!(differences(path, backup.as_bytes(), workspace.as_bytes(), Purpose::Verify), expected, "{path}");
    }

    #[test]
    fn yaml_and_json_are_compared_by_value_and_text_by_its_bytes() {
        let resource = "f/x.schedule.yaml";
        check(resource, "# mine\r\nb: [1, 'x']\r\na: 2\r\n", "a: 2.0\nb:\n  - 1\n  - x\n", &[]);
        check(
            resource,
            "a: 1\nb: {c: yes, d: 2}\n",
            "a: 1\nb: {c: no, e: 2}\n",
            &[
                "b.c: \"yes\" in the backup, \"no\" in the workspace",
                "b.d: 2 in the backup, nothing in the workspace",
                "b.e: nothing in the backup, 2 in the workspace",
            ],
        );
        check("f/x.flow/a.json", "{\"a\":[1,2]}", "{ \"a\": [1, 3] }\n", &["a.1: 2 in the backup, 3 in the workspace"]);
        check("f/x.script.yaml", "summary: a\nno_main_func: true\n", "summary: a\n", &[]);
        check("f/x.ts", "a\nb\nc\n", "a\nB\nc\n", &["-b", "+B"]);
        check("f/x.ts", "a\r\n", "a\n", &["-a (with a carriage return)", "+a"]);
        check("f/x.schedule.yaml", "a: [", "a: 1\n", &["-a: [", "+a: 1"]);
    }

    #[test]
    fn values_that_wmill_reads_differently_differ() {
        let path = "f/x.schedule.yaml";
        for (backup, workspace) in [
            ("a: '010'", "a: 010"),
            ("a: [1, 010]", "a: [1, '010']"),
            ("- 010", "- '010'"),
            ("{\"a\":010}", "{\"a\":\"010\"}"),
            ("a: 0b1 # c", "a: 1"),
            ("a: +0x1", "a: 1"),
            ("a: -0o7", "a: -7"),
            ("a: 1e999", "a: '1e999'"),
            ("{?'a: 1, b: 2, c': 1}", "{? 'a: 1, b: 2, c' : 1}"),
            ("{a :'x: 1, b: 2, c': 1}", "{a: 'x: 1, b: 2, c', c: 1}"),
            ("a: x # \rb: 2", "a: x"),
            ("%YAML 1.1\n---\na: 1", "a: 1"),
        ] {
            let found = differences(path, backup.as_bytes(), workspace.as_bytes(), Purpose::Verify);
            assert!(!found.is_empty(), "{backup}");
        }
        check(path, "a: 0x10\nb: 0o17\nc: .5\nd: 1e3", "a: 16\nb: 15\nc: 0.5\nd: 1000", &[]);
        for value in ["yes", "1_000", "2024-01-05", "10:20", "0 05 12 * * *", "09:05", "0xg", "'010'", "u\u{2028}v"] {
            let file = format!("a: {value}");
            check(path, &file, &format!("# c\n{file}\n"), &[]);
        }
        check("f/x.schedule.yaml", "token: 010 # S1", "token: 010 # S2", &["its content differs"]);
        for text in ["a: 'yes'", "a: '1_000'", "a: '2024-01-05'"] {
            check(path, text, &text.replace('\'', ""), &[]);
        }
        check("f/x.playbook.yml", "# a\n- hosts: all\n", "- hosts: all\n", &["-# a"]);
    }

    #[test]
    fn only_the_lock_entries_of_existing_items_are_compared() {
        let fresh = "version: v2\nlocks:\n  f/a: h1\n";
        check("wmill-lock.yaml", "version: v2\nlocks:\n  f/a: h1\n  f/gone: h0\n", fresh, &[]);
        check("wmill-lock.yaml", "version: v2\nlocks:\n  f/a: h0\n", fresh, &["f/a: the hash differs"]);
        check("wmill-lock.yaml", "version: v2\nlocks: {}\n", fresh, &["f/a: the hash differs"]);
    }

    #[test]
    fn both_forms_of_a_triggers_switch_are_equal_after_a_restore() {
        let count = |kind: &str, purpose, wanted: &str, found: &str| {
            differences(&format!("f/x.{kind}.yaml"), wanted.as_bytes(), found.as_bytes(), purpose).len()
        };
        let after = |wanted, found| count("http_trigger", Purpose::Restore, wanted, found);
        assert_eq!(after("enabled: false\n", "mode: disabled\n"), 0);
        assert_eq!(after("mode: disabled\nenabled: false\n", "mode: disabled\n"), 0);
        assert_eq!(after("enabled: true\n", "mode: disabled\n"), 1);
        assert_eq!(count("http_trigger", Purpose::Verify, "enabled: false\n", "mode: disabled\n"), 2);
        assert_eq!(count("schedule", Purpose::Restore, "enabled: false\n", "mode: disabled\n"), 2);
    }

    #[test]
    fn differences_do_not_show_secrets() {
        let hidden = ["value: *** in the backup, *** in the workspace"];
        check("f/x.variable.yaml", "is_secret: true\nvalue: S1", "is_secret: true\nvalue: S2", &hidden);
        check(
            "f/x.variable.yaml",
            "is_secret: false\nvalue: a",
            "is_secret: false\nvalue: b",
            &["value: \"a\" in the backup, \"b\" in the workspace"],
        );
        check(
            "f/x.variable.yaml",
            "is_secret: true\nvalue: S1",
            "is_secret: false\nvalue: S2",
            &["is_secret: true in the backup, false in the workspace", hidden[0]],
        );
        check("f/x.variable.yaml", "S1: [", "S2: [", &["its content differs"]);
        let resource = ["value.password: *** in the backup, *** in the workspace"];
        check("f/x.resource.yaml", "value: {password: S1}", "value: {password: S2}", &resource);
        let schedule = ["args.api_token: *** in the backup, nothing in the workspace"];
        check("f/x.schedule.yaml", "args: {api_token: S1}", "args: {}", &schedule);
        let file = ["user: *** in the backup, *** in the workspace"];
        for path in ["f/x.resource.file.yaml", "f/x.resource.file.json", "f/x.shop.resource.file.json"] {
            check(path, "{\"user\": \"S1\"}", "{\"user\": \"S2\"}", &file);
        }
        check("f/x.fileset/a.yaml", "user: S1", "user: S2", &file);
        check("f/x.fileset/a.resource.yaml", "user: S1", "user: S2", &file);
        check("f/x.fileset/.config/a.yaml", "user: S1", "user: S2", &file);
        check("f/x.fileset/.config/a.txt", "S1", "S2", &["its content differs"]);
        check(
            "f/x.shop.resource.yaml",
            "value: {a: S1}",
            "value: {a: S2}",
            &["value.a: *** in the backup, *** in the workspace"],
        );
        check("encryption_key.yaml", "S1", "S2", &[": *** in the backup, *** in the workspace"]);
        check("settings.yaml", "slack: S1", "slack: S2", &["slack: *** in the backup, *** in the workspace"]);
    }

    #[test]
    fn a_file_that_is_slow_to_parse_is_compared_by_its_bytes() {
        let bomb = "a: &a [x, x]\nb: &b [*a, *a, *a, *a]\nc: [*b, *b, *b, *b, *b, *b, *b, *b]\n";
        for file in [bomb.to_owned(), "{a: ".repeat(60_000), "#".repeat(FILE_BYTES_MAX + 1)] {
            assert!(parsed("f/x.schedule.yaml", file.as_bytes(), Purpose::Verify).is_none());
        }
        let many: String = (0..30).map(|number| format!("{number}\n")).collect();
        check("f/x.ts", "", &many, &["+0", "+1", "+2", "+3", "and 26 more"]);
    }
}
