//! The removal of known secrets from text that a tool or a server wrote.

use crate::percent;
use crate::secret::Secret;

/// Shorter strings are not scrubbed: replacing every `ab` would destroy the text and give the secret away.
const SCRUBBED_BYTES_MIN: usize = 4;

/// Replaces known secrets in text that a tool or a server wrote.
#[derive(Clone, Default)]
pub struct Scrubber {
    /// Longest first, so that a secret within another does not break the longer one up.
    needles: Vec<Secret>,
}

impl Scrubber {
    /// A scrubber that knows `secrets`, each line of them, and the forms in which tools print them again (percent
    /// encoded).
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut needles: Vec<Secret> = Vec::new();
        for secret in secrets {
            let text = secret.expose();
            let lines = text.lines().map(str::trim).filter(|line| !line.starts_with("-----"));
            for form in lines.flat_map(|line| [line.to_owned(), percent::encode(line, "")]) {
                if form.len() >= SCRUBBED_BYTES_MIN {
                    let place = needles.iter().position(|needle| needle.expose().len() < form.len());
                    needles.insert(place.unwrap_or(needles.len()), Secret::new(form));
                }
            }
        }
        Self { needles }
    }

    /// `text` with each known secret replaced by `[redacted]`.
    #[must_use]
    pub fn scrub(&self, text: &str) -> String {
        let mut clean = text.to_owned();
        for needle in &self.needles {
            if clean.contains(needle.expose()) {
                clean = clean.replace(needle.expose(), "[redacted]");
            }
        }
        clean
    }

    /// The same for a text that was cut off: what a secret begins with is not left at its end.
    #[must_use]
    pub fn scrub_cut(&self, text: &str) -> String {
        let mut clean = self.scrub(text);
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
    fn known_secrets_are_scrubbed_in_every_form() {
        let secrets = [Secret::new("tok/en+1"), Secret::new("tok/en+1longer"), Secret::new("line one\nline two")];
        let scrubber = Scrubber::new(&secrets);
        let text = "a tok/en+1longer b tok%2Fen%2B1 c line two d";
        assert_eq!(scrubber.scrub(text), "a [redacted] b [redacted] c [redacted] d");
        assert_eq!(scrubber.scrub("nothing here"), "nothing here");
    }

    #[test]
    fn a_cut_text_does_not_end_in_the_beginning_of_a_secret() {
        let secrets = [Secret::new("token-one"), Secret::new("token-two"), Secret::new("en-")];
        let scrubber = Scrubber::new(&secrets);
        assert_eq!(scrubber.scrub_cut("a token-one b token-t"), "a [redacted] b [redacted]");
        assert_eq!(scrubber.scrub_cut("a toke"), "a [redacted]");
        assert_eq!(scrubber.scrub_cut("a tok"), "a tok");
        assert_eq!(scrubber.scrub_cut("a token-one"), "a [redacted]");
        assert_eq!(scrubber.scrub("a token-t"), "a token-t");
    }
}
