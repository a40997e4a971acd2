//! The switches of schedules and triggers, which are turned off in another workspace.

use crate::util::{Node, yaml};
use crate::windmill::ItemKind;

/// Returns the file of a schedule or a trigger with its switch turned off, under the name that the file uses for it;
/// `None` if that is not possible. A schedule has only `enabled`, and is on without it.
pub(super) fn disabled(content: &[u8], kind: ItemKind) -> Option<Vec<u8>> {
    let mut text = String::new();
    for line in std::str::from_utf8(content).ok()?.lines() {
        if !is_sure(line) {
            return None;
        }
        // Current servers export the `mode` of a trigger, and not `enabled`.
        text.push_str(match line.trim_end() {
            "mode: enabled" | "mode: suspended" => "mode: disabled",
            "enabled: true" => "enabled: false",
            _ => line,
        });
        text.push('\n');
    }
    let is_switch = |key: &str| matches!(key, "enabled" | "mode");
    let is_off = |(key, value): &(String, Node)| match key.as_str() {
        "enabled" => *value == Node::Bool(false),
        _ => *value == Node::Text("disabled".to_owned()),
    };
    let mut switches = yaml::fields(text.as_bytes(), text.len(), is_switch).ok()?;
    switches.retain(|(key, _)| key == "enabled" || key == "mode" && kind != ItemKind::Schedule);
    (!switches.is_empty() && switches.iter().all(is_off)).then(|| text.into_bytes())
}

/// Returns whether a line means the same to each parser: a field with a plain name, a comment, or a part of the field
/// above it. In a mapping that begins at the left edge, no text and no nested value has a line that begins there.
fn is_sure(line: &str) -> bool {
    let is_of_a_name = |char: char| char.is_ascii_alphanumeric() || char == '_';
    let has_plain_name = line.split_once(':').is_some_and(|(name, value)| {
        !name.is_empty() && name.chars().all(is_of_a_name) && (value.is_empty() || value.starts_with(' '))
    });
    line.is_empty() || line.starts_with([' ', '#']) || line.starts_with("- ") || line == "---" || has_plain_name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(before: &str, after: Option<&str>) {
        let off =
            disabled(before.as_bytes(), ItemKind::Trigger("http")).map(|content| String::from_utf8(content).unwrap());
        assert_eq!(off.as_deref(), after, "{before}");
    }

    #[test]
    fn a_switch_is_turned_off_under_its_own_name() {
        check("a: 1\nenabled: true\n", Some("a: 1\nenabled: false\n"));
        check("mode: enabled\na: 1\n", Some("mode: disabled\na: 1\n"));
        check("mode: suspended\n", Some("mode: disabled\n"));
        check("enabled: false\nmode: disabled\n", Some("enabled: false\nmode: disabled\n"));
        check("enabled: true\nargs:\n  enabled: true\n", Some("enabled: false\nargs:\n  enabled: true\n"));
        check("a: 1\n", None);
        check("{enabled: true}\n", None);
        check("\"enabled\": true\n", None);
    }

    #[test]
    fn only_enabled_turns_a_schedule_off() {
        let off = |before: &str| {
            disabled(before.as_bytes(), ItemKind::Schedule).map(|content| String::from_utf8(content).unwrap())
        };
        assert_eq!(off("enabled: true\nmode: enabled\n").as_deref(), Some("enabled: false\nmode: disabled\n"));
        for still_on in ["mode: disabled\n", "mode: enabled\n", "Enabled: false\nmode: disabled\n"] {
            assert_eq!(off(still_on), None, "{still_on}");
        }
    }

    #[test]
    fn a_file_that_may_hide_another_switch_is_not_pushed() {
        for hidden in [
            "a: 1 # \rx: \"\nmode:  enabled\nb: 1 # \"\rmode: disabled\n",
            "%YAML 1.1\n---\n<<: {enabled: true}\nmode: disabled\n",
            "<<: {enabled: true}\nmode: disabled\n",
            "!!merge x: {enabled: true}\nmode: disabled\n",
            "a: 1\n\u{feff}enabled: true\nmode: disabled\n",
            "# a\n\u{feff}enabled: true\nmode: disabled\n",
            "{?'a: 1, enabled: true, b': 1,\nmode: disabled\n}\n",
            "? enabled\n: true\nmode: disabled\n",
            "enabled : true\nmode: disabled\n",
            "a: 1 # \u{2028}\n\"enabled\": true\nmode: disabled\n",
        ] {
            check(hidden, None);
        }
        let fields = "# a\nargs:\n  a: [1,\n    2]\nlist:\n- a: 1\ntext: |\n  %\n\nenabled: false\n";
        check(fields, Some(fields));
    }
}
