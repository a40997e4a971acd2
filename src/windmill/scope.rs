//! Which items the patterns of a repository's `wmill.yaml` keep out of the backup.
//!
//! `wmill` matches the patterns with minimatch. Only a part of its language is understood here. If a pattern is not
//! understood, an item counts as not kept out.

use crate::util::glob;
use crate::windmill::{ItemId, ItemKind};

/// The most patterns after braces were expanded. If there are more, no item counts as kept out.
const EXPANDED_MAX: usize = 1000;
/// Stands for the rest of a name that is not known: one or more characters. No pattern has it.
const ANY: char = '\u{1}';
/// The assumed maximum length of such a rest. It is longer than any pattern, so that only a star can match it.
const ANY_MAX: usize = 300;

/// The patterns of `includes`, `extraIncludes` and `excludes` in a `wmill.yaml`, with their braces expanded; `None` is
/// a pattern that is not understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope([Vec<Option<String>>; 3]);

impl Scope {
    /// The scope of the patterns of `includes`, `extraIncludes` and `excludes`.
    pub fn new(patterns: &[Vec<String>; 3]) -> Self {
        let mut room = EXPANDED_MAX;
        Self(patterns.each_ref().map(|list| list.iter().flat_map(|pattern| expand(pattern, &mut room)).collect()))
    }

    /// Whether there are no patterns.
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// Whether `wmill` skips each file that such an item can have.
    pub fn keeps_out(&self, item: &ItemId, non_dotted_paths: bool) -> bool {
        let files = files_of(item, if non_dotted_paths { "__" } else { "." });
        !files.is_empty() && files.iter().all(|file| self.has(file) == Some(false))
    }

    /// Whether the patterns certainly include a file. With a pattern that is not understood, this is not certain.
    pub fn takes_in(&self, file: &str) -> bool {
        self.is_all() || self.has(file) == Some(true)
    }

    /// Whether the patterns include a file; `None` if that is not certain. In minimatch, a star does not match names
    /// that begin with a dot.
    fn has(&self, file: &str) -> Option<bool> {
        if file.split('/').any(|name| name.starts_with('.')) {
            return None;
        }
        let included = |patterns: &[_]| if patterns.is_empty() { Some(true) } else { any_matches(patterns, file) };
        let [includes, extra_includes, excludes] = &self.0;
        let parts = [included(includes), included(extra_includes), any_matches(excludes, file).map(|is| !is)];
        if parts.contains(&Some(false)) { Some(false) } else { (!parts.contains(&None)).then_some(true) }
    }
}

/// Whether one of the patterns matches the file; `None` if that is not certain.
fn any_matches(patterns: &[Option<String>], file: &str) -> Option<bool> {
    let mut is_certain = true;
    for pattern in patterns {
        match pattern {
            Some(pattern) if has_to_match(pattern, file) => return Some(true),
            Some(pattern) if !can_match(pattern, file) => {}
            _ => is_certain = false,
        }
    }
    is_certain.then_some(false)
}

/// Whether the pattern matches the file for each text that [`ANY`] may stand for.
fn has_to_match(pattern: &str, file: &str) -> bool {
    let longest = || file.replace(ANY, &ANY.to_string().repeat(ANY_MAX));
    glob::matches(pattern, file) && (!file.contains(ANY) || glob::matches(pattern, &longest()))
}

/// Whether the pattern matches the file for some text that [`ANY`] may stand for.
fn can_match(pattern: &str, file: &str) -> bool {
    glob::matches_by(pattern, file, |pattern, name| {
        let Some(start) = name.strip_suffix(ANY) else { return glob::name_is(pattern, name) };
        // A star matches the rest of the start, and the unknown rest of the name can match the rest of the pattern.
        let before_star = pattern.split('*').next().unwrap_or_default();
        let is_same = |(pattern, name): (char, char)| pattern == '?' || pattern == name;
        before_star.chars().zip(start.chars()).all(is_same)
            && (pattern.contains('*') || pattern.chars().count() > start.chars().count())
    })
}

/// The files that an item can have, one for each pattern that could distinguish them. The list is empty for kinds that
/// `wmill` does not compare with patterns (`ignoreF` in its source): resource types, users, groups, settings and the
/// key.
fn files_of(item: &ItemId, mark: &str) -> Vec<String> {
    let path = &item.path;
    let names: &[&str] = match item.kind {
        ItemKind::Script => &["{P}.{X}", "{P}__mod/{X}", "{P}__mod/{X}/{X}", "{P}__dbt/{X}", "{P}__dbt/{X}/{X}"],
        ItemKind::Flow => &["{P}{M}flow/{X}"],
        ItemKind::App => &["{P}{M}app/{X}"],
        ItemKind::RawApp => &["{P}{M}raw_app/{X}", "{P}{M}raw_app/{X}/{X}"],
        ItemKind::Resource => &["{P}.resource.{X}", "{P}.fileset/{X}", "{P}.fileset/{X}/{X}"],
        ItemKind::Variable => &["{P}.variable.yaml"],
        ItemKind::Schedule => &["{P}.schedule.yaml"],
        ItemKind::Folder => &["{P}/{X}", "{P}/{X}/{X}"],
        ItemKind::Trigger(sort) => return vec![format!("{path}.{sort}_trigger.yaml")],
        _ => &[],
    };
    let any = ANY.to_string();
    names.iter().map(|name| name.replace("{P}", path).replace("{M}", mark).replace("{X}", &any)).collect()
}

/// The alternatives of a pattern with braces. The innermost braces are expanded first. An alternative is `None` if it
/// is not understood, or if there are too many.
fn expand(pattern: &str, room: &mut usize) -> Vec<Option<String>> {
    if *room == 0 {
        return vec![None];
    }
    let braces = pattern.split_once('}').and_then(|(start, end)| Some((start.rsplit_once('{')?, end)));
    let Some(((start, alternatives), end)) = braces else {
        *room -= 1;
        return vec![is_understood(pattern).then(|| pattern.to_owned())];
    };
    // Braces without a comma are literal.
    if !alternatives.contains(',') {
        return vec![None];
    }
    alternatives.split(',').flat_map(|alternative| expand(&[start, alternative, end].concat(), room)).collect()
}

/// Whether minimatch reads the pattern as [`glob`] does.
fn is_understood(pattern: &str) -> bool {
    !pattern.starts_with(['!', '#'])
        && !pattern.contains(['[', ']', '\\', '$', '(', '{', '}'])
        && pattern.split('/').all(|name| !matches!(name, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn item(kind: ItemKind, path: &str) -> ItemId {
        ItemId { kind, path: path.to_owned() }
    }

    fn scope(includes: &[&str], extra_includes: &[&str], excludes: &[&str]) -> Scope {
        Scope::new(&[includes, extra_includes, excludes].map(|list| list.iter().map(|it| (*it).to_owned()).collect()))
    }

    #[test]
    fn an_item_is_kept_out_if_all_of_its_files_are() {
        let excludes =
            |patterns: &[&str], kind: ItemKind| scope(&[], &[], patterns).keeps_out(&item(kind, "f/ops/bad"), false);
        assert!(excludes(&["f/ops/bad*", "f/ops/bad*/**"], ItemKind::Flow));
        assert!(excludes(&["f/ops/bad*", "f/ops/bad*/**"], ItemKind::Resource));
        assert!(excludes(&["f/{x,ops}/**"], ItemKind::RawApp));
        assert!(excludes(&["f/ops/bad*", "f/ops/bad*/**"], ItemKind::Script));
        assert!(excludes(&["f/ops/bad.*", "f/ops/bad__{mod,dbt}/**"], ItemKind::Script));
        assert!(!excludes(&["f/ops/bad.*"], ItemKind::Script), "its modules are not");
        assert!(!excludes(&["f/ops/*"], ItemKind::Script), "its modules are not");
        assert!(excludes(&["**/bad.http_trigger.yaml"], ItemKind::Trigger("http")));
        assert!(!excludes(&["f/ops/bad.script.yaml"], ItemKind::Script), "its content is not");
        assert!(!excludes(&["f/ops/bad*"], ItemKind::Flow), "a star ends at a slash");
        assert!(!excludes(&["f/ops/*"], ItemKind::RawApp));
        assert!(
            !excludes(&["**"], ItemKind::Group) && !excludes(&["**"], ItemKind::ResourceType),
            "patterns do not apply"
        );
        assert!(!excludes(&[], ItemKind::Script));
        assert!(scope(&[], &[], &["f/ops/bad__flow/**"]).keeps_out(&item(ItemKind::Flow, "f/ops/bad"), true));
        assert!(!scope(&[], &[], &["f/ops/bad__flow/**"]).keeps_out(&item(ItemKind::Flow, "f/ops/bad"), false));
        assert!(scope(&[], &[], &["f/crm__app/**"]).keeps_out(&item(ItemKind::Folder, "f/crm__app"), true));
    }

    #[test]
    fn an_item_that_no_pattern_includes_is_kept_out() {
        assert!(scope(&["u/**", "f/team/**"], &[], &[]).keeps_out(&item(ItemKind::Script, "f/ops/bad"), false));
        assert!(!scope(&["u/**", "f/ops/**"], &[], &[]).keeps_out(&item(ItemKind::Script, "f/ops/bad"), false));
        assert!(scope(&["**"], &["u/**"], &[]).keeps_out(&item(ItemKind::Script, "f/ops/bad"), false));
        assert!(
            !scope(&["u/**", "f/[o]ps/**"], &[], &[]).keeps_out(&item(ItemKind::Script, "f/ops/bad"), false),
            "not understood"
        );
    }

    #[test]
    fn the_unknown_part_of_a_name_may_be_anything() {
        let includes =
            |patterns: &[&str], kind: ItemKind| scope(patterns, &[], &[]).keeps_out(&item(kind, "f/ops/bad"), false);
        assert!(!includes(&["**/*.py", "**/*.ts"], ItemKind::Script));
        assert!(!includes(&["**/b*d.??"], ItemKind::Script));
        assert!(!includes(&["f/ops/bad.flow/a.ts"], ItemKind::Flow));
        assert!(!includes(&["f/ops/bad.fileset/a/b.sql"], ItemKind::Resource));
        assert!(includes(
            &["f/ops/good.*", "f/ops/bad", "f/ops/bad.", "f/ops/bat*", "f/*", "f/x*/**"],
            ItemKind::Script
        ));
        assert!(includes(&["**/*.ts"], ItemKind::Variable), "all of its name is known");
        let excludes =
            |patterns: &[&str], kind: ItemKind| scope(&[], &[], patterns).keeps_out(&item(kind, "f/ops/bad"), false);
        for ending in ["ts", "x", "?", "??", "??*", "*s", "*.*"] {
            let pattern = format!("f/ops/bad.{ending}");
            assert!(!excludes(&[&pattern, "f/ops/bad.script.yaml", "f/ops/bad*/**"], ItemKind::Script), "{pattern}");
        }
        for ending in ["*", "?*", "**"] {
            let pattern = format!("f/ops/bad.{ending}");
            assert!(excludes(&[&pattern, "f/ops/bad*/**"], ItemKind::Script), "{pattern}");
        }
    }

    #[test]
    fn a_pattern_that_is_not_understood_keeps_nothing_out() {
        for pattern in
            ["!u/**", "f/[o]ps/**", "f\\/ops/**", "f//ops/**", "./f/ops/**", "f/ops/**/", "f/{ops}/**", "f/{ops,/**"]
        {
            assert!(!scope(&[], &[], &[pattern]).keeps_out(&item(ItemKind::Script, "f/ops/bad"), false), "{pattern}");
            assert!(!scope(&[pattern], &[], &[]).keeps_out(&item(ItemKind::Script, "f/ops/bad"), false), "{pattern}");
        }
        assert!(!scope(&[], &[], &["f/**"]).keeps_out(&item(ItemKind::Script, "f/.ops/bad"), false));
        assert!(!scope(&[], &[], &["f/**"]).keeps_out(&item(ItemKind::Script, "f/../bad"), false));
    }

    #[test]
    fn a_file_is_included_only_if_that_is_certain() {
        let check = |includes: &[&str], excludes: &[&str], expected: bool| {
            let scope = scope(includes, &[], excludes);
            assert_eq!(scope.takes_in("f/ops/a.ts"), expected, "{includes:?} {excludes:?}");
        };
        check(&[], &[], true);
        check(&["f/**"], &[], true);
        check(&["f/{ops,x}/**"], &[], true);
        check(&["u/**"], &[], false);
        check(&["f/[o]ps/**"], &[], false);
        check(&[], &["u/**"], true);
        check(&[], &["f/**"], false);
        check(&[], &["u/[o]ps/**"], false);
        assert!(!scope(&["f/**"], &[], &[]).takes_in("f/.ops/a.ts"));
    }

    #[test]
    fn braces_are_expanded_as_far_as_there_is_room() {
        let all = |pattern: &str| expand(pattern, &mut 100).into_iter().flatten().collect::<BTreeSet<_>>();
        let check = |pattern: &str, expected: &[&str]| {
            assert!(all(pattern).iter().eq(expected), "{pattern}");
        };
        check("a{b,{c,d}e,}f{1,2}", &["abf1", "abf2", "acef1", "acef2", "adef1", "adef2", "af1", "af2"]);
        check("é{ü,ö}", &["éö", "éü"]);
        let many = format!("f/{0}{0}{0}{0}/**", "{a,b,c,d,e,f,g,h,i,j}");
        assert!(!scope(&[many.as_str()], &[], &["f/**"]).keeps_out(&item(ItemKind::Script, "f/ops/bad"), false));
    }
}
