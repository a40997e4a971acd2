//! Matches paths with patterns: `*` and `?` match within a name, `**` matches any number of folders.

/// Returns whether the pattern matches the whole path.
pub fn matches(pattern: &str, path: &str) -> bool {
    matches_by(pattern, path, name_is)
}

/// Does the same with another comparison of a pattern's name with a path's name.
pub fn matches_by(pattern: &str, path: &str, name_is: impl Fn(&str, &str) -> bool) -> bool {
    let mut names: Vec<&str> = pattern.split('/').collect();
    // A folder does not contain itself.
    if names.last() == Some(&"**") {
        names.insert(names.len() - 1, "*");
    }
    let parts: Vec<&str> = path.split('/').collect();
    is_like(&names, &parts, |name| *name == "**", |name, part| name_is(name, part))
}

/// Returns whether the pattern of a name matches the whole name.
pub fn name_is(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    is_like(&pattern, &name, |pattern| *pattern == '*', |pattern, char| *pattern == '?' || pattern == char)
}

/// Returns whether the parts match the pattern, in which a star stands for any number of parts. Backtracking to the
/// last star is enough, because the last star can match everything that an earlier one can.
fn is_like<P, T>(pattern: &[P], parts: &[T], is_star: impl Fn(&P) -> bool, is_same: impl Fn(&P, &T) -> bool) -> bool {
    let (mut at, mut part, mut star) = (0, 0, None);
    while part < parts.len() {
        if pattern.get(at).is_some_and(&is_star) {
            star = Some((at, part));
            at += 1;
        } else if pattern.get(at).is_some_and(|part_pattern| is_same(part_pattern, &parts[part])) {
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
