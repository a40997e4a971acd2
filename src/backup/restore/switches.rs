//! The switches of schedules and triggers, which are turned off in another workspace.

use crate::util::yaml::{Node, fields};

/// Returns the file of a schedule or a trigger with its switch turned off, under the name that the file uses for it;
/// `None` if that is not possible.
pub(super) fn disabled(content: &[u8]) -> Option<Vec<u8>> {
    let mut text = String::new();
    for line in std::str::from_utf8(content).ok()?.lines() {
        // Current servers export the `mode` of a trigger, and no `enabled`.
        let is_mode = ["enabled", "suspended"].iter().any(|mode| line.trim_end() == ["mode: ", mode].concat());
        let is_enabled = line.trim_end() == "enabled: true";
        text.push_str(if is_mode {
            "mode: disabled"
        } else if is_enabled {
            "enabled: false"
        } else {
            line
        });
        text.push('\n');
    }
    let is_off = |(key, value): &(String, Node)| match key.as_str() {
        "enabled" => *value == Node::Bool(false),
        _ => *value == Node::Text("disabled".to_owned()),
    };
    let switches = fields(text.as_bytes(), text.len(), |key| matches!(key, "enabled" | "mode")).ok()?;
    let mut switches = switches.iter().filter(|(key, _)| matches!(key.as_str(), "enabled" | "mode")).peekable();
    (switches.peek().is_some() && switches.all(is_off)).then(|| text.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(before: &str, after: Option<&str>) {
        let off = disabled(before.as_bytes()).map(|content| String::from_utf8(content).unwrap());
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
}
