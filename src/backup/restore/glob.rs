//! Path patterns of `--path`: `*` and `?` match within a name, `**` matches folders; a folder matches all below it.

use crate::util::glob;

/// Length limit. A longer pattern is a mistake.
const BYTES_MAX: usize = 256;

/// A pattern for paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// Parses a pattern of at most 256 bytes. It is only compared with the paths of a backup, so a part that no path
    /// has, such as `.git`, is allowed: it matches nothing.
    ///
    /// # Errors
    /// A message if it is empty or too long, begins with a slash, leads upwards, or has a character that is special in
    /// other tools.
    pub fn parse(text: &str) -> Result<Self, String> {
        let is_path = text.split('/').all(|name| !matches!(name, "" | "." | ".."));
        let has_mark = text.contains(char::is_control) || text.contains(['{', '[', '!', '\\']);
        if is_path && !has_mark && text.len() <= BYTES_MAX {
            return Ok(Self(text.to_owned()));
        }
        let why = "is not a path relative to the backup's folder, such as f/ops/**, of at most 256 bytes and with no other \
                   special characters than *, ? and **";
        Err([&crate::model::names::quoted(text), " ", why].concat())
    }

    /// Returns the pattern as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether it matches this path, or a folder that the path lies in.
    pub fn matches(&self, path: &str) -> bool {
        let ends = path.match_indices('/').map(|(slash, _)| slash).chain([path.len()]);
        ends.into_iter().any(|end| glob::matches(&self.0, &path[..end]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, meant: &[&str], others: &[&str]) {
        let pattern = Pattern::parse(pattern).unwrap();
        assert!(meant.iter().all(|path| pattern.matches(path)), "{pattern:?} {meant:?}");
        assert!(!others.iter().any(|path| pattern.matches(path)), "{pattern:?} {others:?}");
    }

    #[test]
    fn one_star_matches_within_a_name_and_two_match_folders() {
        check("f/ops/**", &["f/ops/a.ts", "f/ops/x.flow/flow.yaml"], &["f/opsy/a.ts", "u/f/ops/a"]);
        check("f/ops", &["f/ops", "f/ops/a.ts"], &["f/op", "f/opsy"]);
        check("f/*/job_?.*", &["f/a/job_1.ts", "f/b/job_2.script.yaml"], &["f/a/b/job_1.ts", "f/a/job_10.ts"]);
        check("**/x*y*", &["x/y/xzyz", "xy"], &["a/yx"]);
        check("f/**/b/**/c", &["f/b/c", "f/a/b/b/d/c"], &["f/c", "f/a/c/b"]);
        check("**", &["a", "a/b"], &[]);
    }

    #[test]
    fn an_invalid_pattern_is_refused() {
        for text in ["", "/f", "f//x", "f/../x", "./f", "f/", "f/{a,b}", "f/[a]", "!f", "f\\x", "f\n", &"x".repeat(257)]
        {
            assert!(Pattern::parse(text).is_err(), "{text:?}");
        }
        assert!(Pattern::parse(&"x".repeat(256)).is_ok());
    }

    #[test]
    fn many_stars_are_matched_quickly() {
        let pattern = Pattern::parse(&"*a".repeat(60)).unwrap();
        assert!(!pattern.matches(&"a".repeat(50_000).replace("aa", "ab")[..49_999].replace('a', "c")));
    }
}
