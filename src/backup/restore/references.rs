//! Finds texts in the files of an item for which `wmill` would read another file of this machine into the item.
//!
//! `wmill` replaces a text that begins with `!inline` by the content of the file that its next word names.

use crate::util::yaml::{self, Node};

const MARK: &str = "!inline";

/// Returns whether a file has such a text with a name that leads out of the folder, or may have one. What `wmill` takes
/// for such a text is decided after the escapes, tags and line breaks of YAML, so the file is parsed.
pub(super) fn leads_out(path: &str, content: &str) -> bool {
    let is_parsed_by_wmill = path.ends_with(".yaml") || path.ends_with(".json");
    // Without these, nothing in the file can read as the mark.
    is_parsed_by_wmill
        && content.contains(['!', '\\', '%'])
        && yaml::value(content).map_or_else(|| may_lead_out(content), |node| is_reference_out(&node))
}

fn is_reference_out(node: &Node) -> bool {
    match node {
        Node::Text(text) => text.trim_start().strip_prefix(MARK).is_some_and(is_name_outside),
        Node::List(list) => list.iter().any(is_reference_out),
        Node::Fields(fields) => fields.iter().any(|(name, value)| match value {
            // A tag stands for the same text.
            Node::Text(text) if name.starts_with(MARK) => is_name_outside(text),
            value => is_reference_out(value),
        }),
        _ => false,
    }
}

/// Returns whether one of the words can be a path that leads out of the folder.
fn is_name_outside(words: &str) -> bool {
    words
        .split_whitespace()
        .any(|word| word.starts_with(['/', '~']) || word.split(['/', '\\']).any(|part| part == ".."))
}

/// The same for a file that is not parsed, because it has very many values or is malformed: whether it has such a text as
/// wmill itself writes it, or anything behind which another one can be hidden.
fn may_lead_out(content: &str) -> bool {
    let is_hidden = ["\\x", "\\u", "\\U", "\\\n", "\\\r", "!<", "%"].iter().any(|sign| content.contains(sign));
    is_hidden
        || content.match_indices(MARK).any(|(at, _)| {
            let rest = &content[at + MARK.len()..];
            let name = rest.strip_prefix(' ').and_then(|rest| rest.split(['\n', '\r', '"', '\'']).next());
            name.is_none_or(|name| name.trim().is_empty() || is_name_outside(name))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(content: &str, expected: bool) {
        assert_eq!(leads_out("f/a.flow/flow.yaml", content), expected, "{content:?}");
    }

    /// Makes a file of the same text that is not parsed.
    fn large(content: &str) -> String {
        format!("{content}{}", "\n# ,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,".repeat(2_000))
    }

    #[test]
    fn names_within_the_folder_are_none_of_it() {
        for content in [
            "content: '!inline a.ts'",
            "content: !inline a.ts",
            "lock: \"!inline f/ops/a.script.lock\"",
            "value: !inline_fileset f/ops/set.fileset",
            "content: |\n  // see !inline /etc/passwd\n",
            "path: /etc/passwd\nother: ../x",
            "text: 50% of \"\\u00e9\"",
        ] {
            check(content, false);
        }
        for content in ["content: '!inline a.ts'", "content: !inline a.ts", "path: ../x"] {
            assert!(yaml::value(&large(content)).is_none());
            check(&large(content), false);
        }
        assert!(!leads_out("f/a.ts", "!inline /etc/passwd"), "wmill does not parse it");
    }

    #[test]
    fn a_name_that_leads_out_of_an_item_is_seen() {
        let inside = "value:\n  content: '!inline a.inline_script.ts'\n";
        assert!(!leads_out("f/a.flow/flow.yaml", inside));
        assert!(!leads_out("f/a.flow/flow.yaml", "content: '!inline a..b.ts'\n"));
        for name in ["../x.ts", "a/../../x", "/etc/passwd", "~/x", "..\\x"] {
            let yaml = format!("value:\n  content: !inline {name}\n");
            assert!(leads_out("f/a.flow/flow.yaml", &yaml), "{name}");
            assert!(leads_out("f/a.flow/flow.yaml", &yaml.replace("!inline", "\"!inline")), "{name}");
            assert!(!leads_out("f/a.ts", &yaml), "{name}");
        }
    }

    #[test]
    fn names_outside_are_found_in_each_way_to_write_them() {
        for content in [
            "content: '!inline /etc/passwd'",
            "content: !inline /etc/passwd",
            "content: !inline ../x.ts",
            "content: !inline a/../../x.ts",
            "content: '!inline ~/x.ts'",
            "content: \"\\x21inline /etc/passwd\"",
            "content: \"!inline \\u002e\\u002e/x\"",
            "content: \"!in\\\n  line /etc/passwd\"",
            "content: \"!inline\n  /etc/passwd\"",
            "content: >-\n  !inline\n  /etc/passwd",
            "content: '!inlined /etc/passwd'",
            "lock: ' !inline /etc/passwd'",
            "content: !<!inline> /etc/passwd",
            "content: !%69nline /etc/passwd",
            "%TAG !e! !in\n---\ncontent: !e!line /etc/passwd",
            "content: !inline\n  /etc/passwd",
            "value: !inline_fileset /etc",
            "a: [{b: ['!inline /etc/passwd']}]",
            "a: &a '!inline /etc/passwd'\nb: *a",
        ] {
            check(content, true);
            check(&large(content), true);
        }
        assert!(leads_out("f/a.script.json", "{\"lock\": \"\\u0021inline /etc/passwd\"}"));
    }
}
