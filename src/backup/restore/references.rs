//! Finds texts in the files of an item that would make `wmill` read a file outside of the item.
//!
//! `wmill` replaces a text that begins with `!inline` by the content of the file that its next word names. Our YAML
//! parser and the one of `wmill` differ in where a text begins, so each place where a text may begin is checked.

use crate::util::{Node, yaml};
use crate::windmill::{ItemId, ItemKind, item_path};

const MARK: &str = "!inline";
/// The end of a mark that names a folder.
const FILESET: &str = "_fileset";
/// The characters with which a value begins that is not a plain text.
const INDICATORS: [char; 12] = ['"', '\'', '|', '>', '&', '*', '!', '[', '{', '%', '@', '#'];
/// The escapes of white space.
const ESCAPES_OF_SPACE: &str = "tnvfrNLP_";

/// Returns whether a file of an item has, or may have, such a text whose name is no file of the item. `has_file`
/// returns whether a readable file is at a path.
pub(super) fn leads_out(item: &ItemId, path: &str, content: &str, has_file: impl Fn(&str) -> bool) -> bool {
    let is_parsed_by_wmill = path.ends_with(".yaml") || path.ends_with(".json");
    let is_foreign = |name: &str| !is_of_item(item, path, name, &has_file);
    let is_out = |(at, char): (usize, char)| {
        let (before, rest) = content.split_at(at);
        let name = || if char == '!' { name_after_tag(before, rest) } else { name_in_quotes(rest) };
        match char {
            '%' => before.is_empty() || before.ends_with('\n'),
            '!' | '"' | '\'' => match place_of(before) {
                Place::Field => name().is_some_and(|name| is_foreign(&name)),
                Place::Other => name().is_some(),
                Place::WithinText => false,
            },
            _ => false,
        }
    };
    is_parsed_by_wmill && content.char_indices().any(is_out)
}

/// Returns whether `wmill` finds a file of the item by a name in the item's file at `path`.
fn is_of_item(item: &ItemId, path: &str, name: &str, has_file: impl Fn(&str) -> bool) -> bool {
    let has_mark = name.starts_with('~') || name.contains(|char: char| char.is_control() || char == '\\');
    if has_mark || name.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return false;
    }
    match item.kind {
        // If such a file cannot be read, `wmill` reads a file with the name of the step.
        ItemKind::Flow | ItemKind::App | ItemKind::RawApp => {
            let rest = path.strip_prefix(&item.path).unwrap_or_default();
            rest.split_once('/').is_some_and(|(ending, _)| has_file(&[&item.path, ending, "/", name].concat()))
        }
        ItemKind::Script if name.starts_with("locks/") => true,
        ItemKind::Resource if name.strip_suffix(".fileset") == Some(&item.path) => true,
        ItemKind::Script | ItemKind::Resource => item_path::item_of(name).as_ref() == Some(item),
        // `wmill` reads no files for the other kinds.
        _ => true,
    }
}

/// What precedes a text.
enum Place {
    /// The colon of a field.
    Field,
    /// Something else after which a YAML value can begin, such as the bracket of a list.
    Other,
    /// Something after which no value can begin.
    WithinText,
}

fn place_of(before: &str) -> Place {
    let value = before.trim_end_matches(is_space);
    let gap = &before[value.len()..];
    let is_below = gap.contains('\n');
    let may_be_comment = || is_below && value.rsplit('\n').next().is_some_and(|line| line.contains('#'));
    // The last word can be an anchor or a tag.
    let has_property = || {
        let mut words = value.rsplit(|char| is_space(char) || "[]{},".contains(char));
        words.next().is_some_and(|word| word.starts_with(['&', '!']))
    };
    match value.chars().next_back() {
        _ if !gap.is_empty() && has_property() => Place::Other,
        Some(':') if !may_be_comment() => Place::Field,
        Some('[' | '{' | ',') | None => Place::Other,
        Some('-' | '?') if !gap.is_empty() => Place::Other,
        _ if is_below => Place::Other,
        _ => Place::WithinText,
    }
}

/// Returns the name in a quoted text, or `None` if the text does not begin with the mark. An unreadable text and a mark
/// without a name return an empty name.
fn name_in_quotes(quoted: &str) -> Option<String> {
    if !begins_with_mark(quoted) {
        return None;
    }
    let Some(Node::Text(text)) = in_quotes(quoted).and_then(yaml::value) else { return Some(String::new()) };
    let marked = text.trim_start_matches(is_space);
    // `wmill` counts the spaces before the mark too, and never writes them.
    let is_indented = marked.len() < text.len();
    // The name is the next word, up to a space.
    let name = marked.split(' ').nth(1).filter(|_| !is_indented);
    Some(name.unwrap_or_default().to_owned())
}

/// Returns whether a quoted text begins with white space and the mark. Only the beginning is read: the rest may be
/// long, or have characters that our parser does not accept, such as surrogates.
fn begins_with_mark(quoted: &str) -> bool {
    let (has_escapes, mut rest) = (quoted.starts_with('"'), &quoted[1..]);
    // An escaped line end stands for no character.
    let chars = std::iter::from_fn(|| {
        let first = rest.chars().next()?;
        if first != '\\' || !has_escapes {
            rest = &rest[first.len_utf8()..];
            return Some(Some(first));
        }
        if rest[1..].starts_with(['\n', '\r']) {
            rest = rest[2..].trim_start_matches(is_space);
            return Some(None);
        }
        unescaped(&mut rest).map(Some)
    });
    let mut text = chars.flatten().skip_while(|char| is_space(*char));
    MARK.chars().all(|wanted| text.next() == Some(wanted))
}

/// Reads an escape of a text in double quotes. Returns its character, or `None` if it is not a character.
fn unescaped(rest: &mut &str) -> Option<char> {
    let mut chars = rest[1..].chars();
    let kind = chars.next()?;
    *rest = chars.as_str();
    let digits = match kind {
        'x' => 2,
        'u' => 4,
        'U' => 8,
        _ if ESCAPES_OF_SPACE.contains(kind) => return Some(' '),
        _ => return Some(kind),
    };
    let code = u32::from_str_radix(rest.get(..digits)?, 16).ok()?;
    *rest = &rest[digits..];
    char::from_u32(code)
}

/// Returns the name in the text after a tag, if the tag stands for the mark or can hide it.
fn name_after_tag(before: &str, rest: &str) -> Option<String> {
    let is_tag = |char: &char| !is_space(*char);
    let has_escape = rest.chars().take(MARK.len()).take_while(is_tag).any(|char| char == '%');
    if rest.starts_with("!<") || has_escape {
        return Some(String::new());
    }
    let behind = rest.strip_prefix(MARK)?;
    if before.ends_with(['"', '\'']) {
        return None;
    }
    let gap_and_value = behind.strip_prefix(FILESET).unwrap_or(behind);
    let value = gap_and_value.trim_start_matches([' ', '\t']);
    if value.len() == gap_and_value.len() || value.starts_with(is_space) {
        return Some(String::new());
    }
    // Other white space is a part of the name.
    let name = &value[..value.find([' ', '\n']).unwrap_or(value.len())];
    let rest = &value[name.len()..];
    let name = name.strip_suffix('\r').filter(|_| rest.starts_with('\n')).unwrap_or(name);
    // An empty line within a text becomes a line break in the name. A comment ends a text.
    let below = rest.trim_start_matches(is_space);
    let has_empty_line = rest[..rest.len() - below.len()].matches('\n').count() > 1;
    let has_break = has_empty_line && !below.is_empty() && !below.starts_with('#');
    Some(if name.starts_with(INDICATORS) || has_break { String::new() } else { name.to_owned() })
}

/// Returns the text in quotes that begins here, with its quotes. Parsers differ in where a text begins, but not in its
/// content.
fn in_quotes(yaml: &str) -> Option<&str> {
    let quote = yaml.chars().next().filter(|char| matches!(char, '"' | '\''))?;
    let mut chars = yaml.char_indices().skip(1);
    while let Some((at, char)) = chars.next() {
        if quote == '"' && char == '\\' || quote == '\'' && yaml[at..].starts_with("''") {
            chars.next();
        } else if char == quote {
            return Some(&yaml[..=at]);
        }
    }
    None
}

/// Returns whether the character is white space in JavaScript.
fn is_space(char: char) -> bool {
    char.is_whitespace() || char == '\u{feff}'
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::first_chars;

    const FLOW: &str = "f/ops/a.flow/flow.yaml";
    const APP: &str = "f/ops/a__app/app.yaml";
    const SCRIPT: &str = "f/ops/a.script.yaml";
    const RESOURCE: &str = "f/ops/a.resource.yaml";
    const VARIABLE: &str = "f/ops/a.variable.yaml";

    #[track_caller]
    fn check(path: &str, content: &str, expected: bool) {
        let item = item_path::item_of(path).expect("an item");
        let has_file = |path: &str| !path.contains("missing");
        assert_eq!(leads_out(&item, path, content, has_file), expected, "{path} {:?}", first_chars(content, 200));
    }

    /// Checks the text alone, and as a part of a file with very many values.
    #[track_caller]
    fn check_large(path: &str, content: &str, expected: bool) {
        check(path, content, expected);
        check(path, &format!("{content}{}", "\n# ,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,".repeat(2_000)), expected);
    }

    #[test]
    fn names_of_the_items_own_files_do_not_lead_out_of_it() {
        for content in [
            "content: '!inline a.ts'",
            "content: !inline a.ts",
            "content: !inline a.ts\nlock: !inline a.lock\n\n",
            "content: '!inline a..b.ts'\n",
            "content: !inline a.ts\r\nlock: !inline a.lock\r\n",
            "content: \"!inline\n  long/\\\n  name.ts\"\nlock: '!inline a.lock'\n",
            "content: \"!inline\r\n  long/\\\r\n  name.ts\"\r\n",
            "{\"content\":\"!inline a.ts\",\"lock\":\"!inline a.lock\"}",
            "content: |\n  // see !inline /etc/passwd\n",
            "content: |\n  if (!inline || '!inline' === x) throw 50 %2\n",
            "path: /etc/passwd\nother: ../x",
            "text: 50% of \"\\u00e9\"",
            "text: a\u{2028}b\u{85} \"\\L\"",
            "{\"icon\": \"\\ud83d\\ude00 hi\"}",
            "content: |\n  [x, \"\\u{1F600}\", \"\\n\\d+\"]\n",
            "content: |\n  a { color: \"!important }\n",
            "value: \"!in\n  line x\"",
        ] {
            check_large(FLOW, content, false);
        }
        let long = ",-".repeat(50_000);
        check(FLOW, &format!("text: \"\\ufeffid{long}\"\nmore: \"!function(){long}\""), false);
        check_large(APP, "inlineScript:\n  content: '!inline a.ts'\n", false);
        check_large(SCRIPT, "lock: '!inline f/ops/a.script.lock'", false);
        check_large(SCRIPT, "lock: '!inline locks/python3-requirements.txt.lock'", false);
        check_large("f/ops/a__mod/script.yaml", "lock: '!inline f/ops/a__mod/script.lock'", false);
        check_large(RESOURCE, "value:\n  content: '!inline f/ops/a.resource.file.ini'", false);
        check_large(RESOURCE, "value: !inline_fileset f/ops/a.fileset", false);
        check_large(RESOURCE, "value: '!inline_fileset f/ops/a.fileset'", false);
        check_large(VARIABLE, "value: '!inline x.yaml'", false);
        let item = item_path::item_of("f/ops/a.ts").expect("an item");
        assert!(!leads_out(&item, "f/ops/a.ts", "!inline /etc/passwd", |_| true), "wmill does not parse it");
    }

    #[test]
    fn a_name_that_leads_out_of_an_item_is_found() {
        for name in ["../x.ts", "a/../../x", "/etc/passwd", "~/x", "..\\x", ".", "a//b", "", "missing.ts", "a\n\n/../x"]
        {
            for path in [FLOW, APP] {
                for content in [format!("!inline {name}"), format!("'!inline {name}'"), format!("\"!inline {name}\"")] {
                    check_large(path, &format!("value:\n  content: {content}\n"), true);
                }
            }
        }
    }

    #[test]
    fn a_file_of_another_item_is_outside_of_the_item() {
        for name in ["encryption_key.yaml", "f/ops/b.resource.yaml", "f/ops/b.resource.file.ini", "wmill.yaml", "x"] {
            check_large(RESOURCE, &format!("value:\n  content: '!inline {name}'"), true);
            check_large(SCRIPT, &format!("lock: '!inline {name}'"), true);
        }
        check_large(RESOURCE, "value:\n  content: '!inline locks/x.lock'", true);
        check_large(RESOURCE, "value: !inline_fileset f/ops", true);
        check_large(SCRIPT, "lock: '!inline locks/../f/ops/a.script.lock'", true);
        check_large(VARIABLE, "value: '!inline ../x.yaml'", true);
    }

    #[test]
    fn names_outside_are_found_in_every_notation() {
        for content in [
            "content: '!inline /etc/passwd'",
            "content: !inline /etc/passwd",
            "content: !inline ../x.ts",
            "content: !inline a/../../x.ts",
            "content: '!inline ~/x.ts'",
            "content: \"\\x21inline /etc/passwd\"",
            "content: \"\\n!inline /etc/passwd\"",
            "content: \"!inline \\u002e\\u002e/x\"",
            "content: \"!in\\\n  line /etc/passwd\"",
            "content: \"!inline\n  /etc/passwd\"",
            "content: 'a.ts\n\n  '\nlock: '\n\n  !inline /etc/passwd'",
            "content: '!inline a \n\n  /../x'",
            "content: '!inline a''/../x'",
            "content: >-\n  !inline\n  /etc/passwd",
            "content: |\n  !inline a\n  /../x",
            "content: |\n  \u{a0}!inline a",
            "content: '!inlined /etc/passwd'",
            "lock: ' !inline /etc/passwd'",
            "content: !<!inline> /etc/passwd",
            "content: !%69nline /etc/passwd",
            "%TAG !e! !in\n---\ncontent: !e!line /etc/passwd",
            "content: !inline\n  /etc/passwd",
            "content: !inline\nlock: x",
            "{content: !inline, lock: x}",
            "content: !inline '/etc/passwd'",
            "content: !inline a\n\n  /../x",
            "content: !inline |\n  /etc/passwd",
            "content: !inline a\r/../x",
            "content: !inline a\t/../x",
            "content: !inline a\r\r\n",
            "content: !inline a\r b",
            "content: !inline missing\u{a0}/../x",
            "content: !!str '!inline /etc/passwd'",
            "value: !inline_fileset /etc",
            "a: [{b: ['!inline /etc/passwd']}]",
            "a: &a '!inline /etc/passwd'\nb: *a",
            // Our parser and wmill read these texts differently.
            "a: b\u{2028}x: \"\ncontent: '!inline /etc/passwd'\nz: q\" # x",
            "a: '' # \rx: \"\ncontent: '!inline /etc/passwd'\n# \"\ry: z\n",
            "{?'a: 1, content: \"!inline /etc/passwd\", b': 1}",
            "{a :'x: 1, content: \"!inline /etc/passwd\", b': 1}",
        ] {
            check_large(FLOW, content, true);
        }
        check("f/ops/a.script.json", "{\"lock\": \"\\u0021inline /etc/passwd\"}", true);
    }

    #[test]
    fn a_list_that_wmill_joins_leads_out_of_the_item() {
        for content in [
            "lock:\n  - '!inline f/ops/a.script.lock'\n  - /../x",
            "lock: ['!inline f/ops/a.script.lock', /../x]",
            "lock: [[\"!inline f/ops/a.script.lock\"], /../x]",
            "lock: [&a: '!inline f/ops/a.script.lock', /../x]",
            "lock: [!a: '!inline f/ops/a.script.lock', /../x]",
            "lock:\n  - # :\n    '!inline f/ops/a.script.lock'\n  - /../x",
            "a: &a '!inline f/ops/a.script.lock'\nlock: [*a, /../x]",
            "a: &a !inline f/ops/a.script.lock\nlock: [*a, /../x]",
        ] {
            check_large(SCRIPT, content, true);
        }
        let lead = ["\n", "\\\n", "\\n"].map(|lead| lead.repeat(1 << 14));
        for lead in lead {
            check(FLOW, &format!("lock: \"{lead}!inline ../x a.ts\""), true);
        }
        let long = format!("a: &{} '!inline f/ops/a.script.lock'\nlock: [*a, /../x]", "a".repeat(1 << 11));
        check_large(SCRIPT, &long, true);
    }

    #[test]
    fn every_file_is_checked_quickly() {
        for (part, expected) in [
            ("!", false),
            ("!inline", true),
            ("'", false),
            ("''!inline", false),
            (": '!inline a'", false),
            (":!inline", true),
            (" '", false),
            ("\" ", false),
            (": !inline a ", false),
            ("'\n", false),
            ("\"\\\n", false),
            ("\n", false),
        ] {
            check(FLOW, &format!("content: {}", part.repeat((1 << 16) / part.len())), expected);
        }
    }
}
