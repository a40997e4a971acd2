//! Checks the outline of a JSON text before parsing, because a parsed value can take a hundred times the memory of its
//! text.

use miniserde::{Deserialize, json};

/// The limits for the outline of a text.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most open brackets at the same time.
    pub depth: usize,
    /// The most values, not counting the first of each array and object.
    pub values: usize,
    /// The most arrays and objects. An object takes 700 bytes for any content.
    pub containers: usize,
}

/// Returns the limit that the outline breaks first. The content of strings does not count.
pub fn outline_fault(text: &str, limits: Limits) -> Option<&'static str> {
    let (mut depth, mut values, mut containers) = (0_usize, 1_usize, 0_usize);
    let (mut in_string, mut escaped) = (false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => (depth, containers) = (depth + 1, containers + 1),
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            b',' if !in_string => values += 1,
            _ => {}
        }
        if depth > limits.depth {
            return Some("is nested too deeply");
        }
        if values > limits.values || containers > limits.containers {
            return Some("has too many values");
        }
    }
    None
}

/// Returns the value of a text, if it is JSON and its outline is within the limits.
pub fn parse<T: Deserialize>(text: &str, limits: Limits) -> Option<T> {
    if outline_fault(text, limits).is_some() {
        return None;
    }
    json::from_str(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<&str>) {
        assert_eq!(outline_fault(text, Limits { depth: 2, values: 3, containers: 4 }), expected, "{text}");
    }

    #[test]
    fn each_limit_of_an_outline_is_checked() {
        check("[[1]]", None);
        check("[[[1]]]", Some("is nested too deeply"));
        check("[1,2,3]", None);
        check("[1,2,3,4]", Some("has too many values"));
        check("[[],[],[]]", None);
        check("[[][][][]]", Some("has too many values"));
        check(r#"["[[[[,,,,","\"[[[",1]"#, None);
        check("]]]]", None);
    }

    #[test]
    fn a_text_within_the_limits_is_parsed() {
        let limits = Limits { depth: 1, values: 1, containers: 1 };
        assert!(parse::<json::Object>(r#"{"a":1}"#, limits).is_some());
        assert!(parse::<json::Object>(r#"{"a":[]}"#, limits).is_none());
        assert!(parse::<json::Object>("{", limits).is_none());
    }
}
