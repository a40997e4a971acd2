//! Path patterns of `restore --path`: `*` and `?` match within a name, `**` matches folders; a folder matches all
//! below it.

/// Longer ones are a mistake.
const BYTES_MAX: usize = 256;

/// A pattern for paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: String,
}

impl Pattern {
    /// Takes a pattern of at most 256 bytes. It is only held against the paths of a backup, so a part such as `.git`,
    /// which no path has, is let be: it means nothing.
    ///
    /// # Errors
    /// When it is empty, too long, begins with a slash, leads upwards, or has what other tools give a meaning.
    pub fn parse(text: &str) -> Result<Self, String> {
        let why = if text.is_empty() {
            "is empty"
        } else if text.len() > BYTES_MAX {
            "is longer than 256 bytes"
        } else if text.contains(char::is_control) || text.contains(['{', '[', '!', '\\']) {
            "has a character with a meaning elsewhere and none here: there are *, ? and **"
        } else if text.split('/').any(|name| matches!(name, "" | "." | "..")) {
            "is not a path relative to the backup's folder, such as f/ops/**"
        } else {
            return Ok(Self { text: text.to_owned() });
        };
        Err([&crate::model::names::quoted(text), " ", why].concat())
    }

    /// As it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it means this path, or a folder that the path lies in.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        let names: Vec<&str> = self.text.split('/').collect();
        let parts: Vec<&str> = path.split('/').collect();
        (1..=parts.len())
            .any(|end| is_like(&names, &parts[..end], |name| *name == "**", |name, part| name_is(name, part)))
    }
}

fn name_is(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    is_like(&pattern, &name, |one| *one == '*', |one, other| *one == '?' || one == other)
}

/// Whether the parts are as the pattern says, of which a star stands for any number of parts. Going back to the last
/// star is enough, since an earlier one could take up no more than that one can.
fn is_like<P, T>(pattern: &[P], parts: &[T], is_star: impl Fn(&P) -> bool, is_same: impl Fn(&P, &T) -> bool) -> bool {
    let (mut at, mut part, mut star) = (0, 0, None);
    while part < parts.len() {
        if pattern.get(at).is_some_and(&is_star) {
            star = Some((at, part));
            at += 1;
        } else if pattern.get(at).is_some_and(|one| is_same(one, &parts[part])) {
            at += 1;
            part += 1;
        } else if let Some((of, taken)) = star {
            star = Some((of, taken + 1));
            at = of + 1;
            part = taken + 1;
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(is_star)
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
    fn stars_are_names_and_folders() {
        check("f/ops/**", &["f/ops/a.ts", "f/ops/x.flow/flow.yaml"], &["f/opsy/a.ts", "u/f/ops/a"]);
        check("f/ops", &["f/ops", "f/ops/a.ts"], &["f/op", "f/opsy"]);
        check("f/*/job_?.*", &["f/a/job_1.ts", "f/b/job_2.script.yaml"], &["f/a/b/job_1.ts", "f/a/job_10.ts"]);
        check("**/x*y*", &["x/y/xzyz", "xy"], &["a/yx"]);
        check("f/**/b/**/c", &["f/b/c", "f/a/b/b/d/c"], &["f/c", "f/a/c/b"]);
        check("**", &["a", "a/b"], &[]);
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in ["", "/f", "f//x", "f/../x", "./f", "f/", "f/{a,b}", "f/[a]", "!f", "f\\x", "f\n", &"x".repeat(257)]
        {
            assert!(Pattern::parse(text).is_err(), "{text:?}");
        }
        assert!(Pattern::parse(&"x".repeat(256)).is_ok());
    }

    #[test]
    fn many_stars_take_no_time() {
        let pattern = Pattern::parse(&"*a".repeat(60)).unwrap();
        assert!(!pattern.matches(&"a".repeat(50_000).replace("aa", "ab")[..49_999].replace('a', "c")));
    }
}
