//! Prepares text from other sources for output: removes known secrets and characters that hide or reorder others, and
//! shortens it.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::fmt;

use crate::util::{Secret, percent};

/// Shorter strings are not replaced: replacing every `ab` would make the text unreadable and reveal the secret.
const SCRUBBED_BYTES_MIN: usize = 4;

/// Returns whether a character is invisible, or changes the direction or the place of others, so that a text looks like
/// a different one.
pub fn is_invisible(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Replaces each [invisible](is_invisible) character by U+FFFD, except `\n` and tabs.
pub fn visible(text: &str) -> String {
    let replaced = |char: char| if is_invisible(char) && !matches!(char, '\n' | '\t') { '\u{fffd}' } else { char };
    text.chars().map(replaced).collect()
}

/// Returns the text, or its beginning (a third of `bytes_max`) and its end: the beginning says what was tried, and the
/// end says why it failed.
pub fn shorten(text: &str, bytes_max: usize) -> String {
    const MARK: &str = " […] ";
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let head = text.floor_char_boundary(bytes_max / 3);
    let tail = text.ceil_char_boundary(text.len() - bytes_max.saturating_sub(head + MARK.len()));
    [&text[..head], MARK, &text[tail..]].concat()
}

/// Returns the text, or its first characters with `…`.
pub fn first_chars(text: &str, chars_max: usize) -> Cow<'_, str> {
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => Cow::Owned([&text[..end], "…"].concat()),
        None => Cow::Borrowed(text),
    }
}

/// How many names a [`Sample`] keeps; the others are only counted.
const SAMPLE_MAX: usize = 20;

/// The first names of many, and the number of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    first: Vec<String>,
    count: usize,
}

impl Sample {
    /// Adds a name.
    pub fn add(&mut self, name: &[u8]) {
        self.count += 1;
        if self.first.len() < SAMPLE_MAX {
            self.first.push(printable(name));
        }
    }

    /// Returns whether it has no names.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl<N: AsRef<[u8]>> FromIterator<N> for Sample {
    fn from_iter<I: IntoIterator<Item = N>>(names: I) -> Self {
        let mut sample = Self::default();
        names.into_iter().for_each(|name| sample.add(name.as_ref()));
        sample
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.first.join(", "))?;
        match self.count - self.first.len() {
            0 => Ok(()),
            more => write!(formatter, " and {more} more"),
        }
    }
}

/// Returns a name on one line, with each invisible character replaced.
pub fn printable(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    name.chars().map(|character| if is_invisible(character) { '\u{fffd}' } else { character }).collect()
}

/// Replaces known secrets in text that a tool or a server wrote.
#[derive(Clone, Default)]
pub struct Redactor {
    /// The strings to replace, longest first, so that a secret within a longer one does not break up the longer one.
    needles: Vec<Secret>,
}

impl Redactor {
    /// Makes a redactor for each line of `secrets`, unchanged and percent-encoded, because tools may print both.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut needles: Vec<Secret> = Vec::new();
        for secret in secrets {
            let lines = secret.expose().lines().map(str::trim).filter(|line| !line.starts_with("-----"));
            needles.extend(lines.flat_map(|line| [line.to_owned(), percent::encode(line)]).map(Secret::new));
        }
        needles.retain(|needle| needle.expose().len() >= SCRUBBED_BYTES_MIN);
        needles.sort_by_key(|needle| Reverse(needle.expose().len()));
        Self { needles }
    }

    /// Returns `text` with each known secret replaced by `[redacted]`.
    pub fn redact(&self, text: &str) -> String {
        let mut clean = text.to_owned();
        for needle in &self.needles {
            if clean.contains(needle.expose()) {
                clean = clean.replace(needle.expose(), "[redacted]");
            }
        }
        clean
    }

    /// Redacts a text that was cut off: if it ends with the beginning of a secret, that is replaced too.
    pub fn scrub_cut(&self, text: &str) -> String {
        let mut clean = self.redact(text);
        let begun = self.needles.iter().filter_map(|needle| {
            let mut beginnings = (SCRUBBED_BYTES_MIN..needle.expose().len()).rev();
            beginnings.find(|length| needle.expose().get(..*length).is_some_and(|start| clean.ends_with(start)))
        });
        if let Some(length) = begun.max() {
            clean.truncate(clean.len() - length);
            clean.push_str("[redacted]");
        }
        clean
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_hide_or_reorder_others_are_replaced() {
        assert_eq!(
            visible("a\u{202e}b\u{200b}c\r\n\u{1b}[1m\u{e0041}"),
            "a\u{fffd}b\u{fffd}c\u{fffd}\n\u{fffd}[1m\u{fffd}"
        );
        for text in ["a ü 日本 العربية \t\n", "1…2", "e\u{301}"] {
            assert_eq!(visible(text), text);
        }
    }

    #[test]
    fn a_long_text_keeps_its_beginning_and_its_end() {
        assert_eq!(shorten("abc", 3), "abc");
        let long = format!("begin{}éend", "é".repeat(1_000));
        let short = shorten(&long, 100);
        assert!(short.len() <= 100 && short.starts_with("begin") && short.ends_with("éend"), "{short}");
    }

    #[test]
    fn known_secrets_are_redacted_in_every_form() {
        let secrets = [Secret::new("tok/en+1"), Secret::new("tok/en+1longer"), Secret::new("line one\nline two")];
        let redactor = Redactor::new(&secrets);
        let text = "a tok/en+1longer b tok%2Fen%2B1 c line two d";
        assert_eq!(redactor.redact(text), "a [redacted] b [redacted] c [redacted] d");
        assert_eq!(redactor.redact("nothing here"), "nothing here");
    }

    #[test]
    fn a_cut_text_does_not_end_with_the_beginning_of_a_secret() {
        let secrets = [Secret::new("token-one"), Secret::new("token-two"), Secret::new("en-")];
        let redactor = Redactor::new(&secrets);
        assert_eq!(redactor.scrub_cut("a token-one b token-t"), "a [redacted] b [redacted]");
        assert_eq!(redactor.scrub_cut("a toke"), "a [redacted]");
        assert_eq!(redactor.scrub_cut("a tok"), "a tok");
        assert_eq!(redactor.scrub_cut("a token-one"), "a [redacted]");
        assert_eq!(redactor.redact("a token-t"), "a token-t");
    }

    #[test]
    fn a_sample_names_a_few_and_counts_the_others() {
        assert_eq!(Sample::from_iter(["a\tb", "c"]).to_string(), "a\u{fffd}b, c");
        let many: Sample = (0..22).map(|number| number.to_string()).collect();
        assert!(many.to_string().ends_with("18, 19 and 2 more"), "{many}");
    }
}
