//! Reads YAML as values, with bounds on the time and the memory that any input can take.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, IgnoredAny, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use crate::util::first_chars;

/// The most brackets and braces in a file whose fields are read. For each token, the parser checks every open one:
/// 60,000 nested braces, a file of 240 KiB, took 34 seconds. All opening brackets are counted, because the closing one
/// may be in a comment.
const BRACKETS_MAX: usize = 1000;
/// The bound for a value that is read whole, in which brackets are usual: their number times the size of the file. It
/// limits the time to a few seconds.
const BRACKETS_TIMES_BYTES_MAX: usize = 1 << 31;
/// The most characters of a file that can begin a value or its tag. The parser holds up to 500 bytes for each before it
/// returns a value.
const MARKS_MAX: usize = 40_000;
/// The most levels of a value that is read whole.
const DEPTH_MAX: usize = 100;
/// The levels of a file whose fields are read: the mapping itself, and a list or a mapping in it.
const FIELD_LEVELS: usize = 2;
/// The most characters of the parser's message in an error.
const REASON_CHARS_MAX: usize = 160;
/// The most characters of a key in an error.
const KEY_CHARS_MAX: usize = 40;

/// The byte order mark, with which some editors on Windows begin a YAML file. Elsewhere, it is a normal character.
const BYTE_ORDER_MARK: char = '\u{feff}';
/// Characters that our parser, which reads YAML 1.1, treats as line breaks or ignores. For `wmill`, which reads YAML
/// 1.2, they are part of the text. Each is parsed as its stand-in, a character for private use.
const STAND_INS: [(char, char); 4] =
    [('\u{85}', '\u{10fff0}'), ('\u{2028}', '\u{10fff1}'), ('\u{2029}', '\u{10fff2}'), (BYTE_ORDER_MARK, '\u{10fff3}')];
/// The beginning of an escape for a stand-in.
const STAND_IN_ESCAPE: &str = "\\U0010";
/// The tag of a key whose mapping is merged into the mapping around it. It can also be written as `!!merge`, and with
/// percent escapes.
const MERGE_TAG: &str = "!<tag:yaml.org,2002:merge>";

/// A value of YAML or JSON.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// Null.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer.
    Whole(i128),
    /// Another number.
    Real(f64),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping, in its order. A value with a tag is a mapping with one key: the tag, after `!`.
    Fields(Vec<(String, Node)>),
    /// A value that is not wanted, or that has too many levels or too much content.
    Unread,
}

impl Node {
    /// Returns whether it is null, `[]` or `{}`.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Null => true,
            Self::List(list) => list.is_empty(),
            Self::Fields(fields) => fields.is_empty(),
            _ => false,
        }
    }

    /// Returns the value of a field, if this is a mapping that has it.
    pub fn field(&self, name: &str) -> Option<&Self> {
        let Self::Fields(fields) = self else { return None };
        fields.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }
}

/// Reads a whole file as one value. Returns `None` if it is not valid or cannot be read within the bounds.
pub fn value(yaml: &str) -> Option<Node> {
    let source = Source::of(yaml).ok()?;
    let yaml = &*source.text;
    if brackets(yaml).saturating_mul(yaml.len()) > BRACKETS_TIMES_BYTES_MAX || has_too_many_values(yaml) {
        return None;
    }
    parse(&source, DEPTH_MAX, None).ok().filter(|node| *node != Node::Unread)
}

/// Returns the fields of a mapping in its order, with the values of the `wanted` ones. A value with more than one level
/// of lists and mappings is not read.
///
/// # Errors
/// Returns why the file cannot be read, as text for a warning.
pub fn fields(yaml: &[u8], bytes_max: usize, wanted: fn(&str) -> bool) -> Result<Vec<(String, Node)>, String> {
    if yaml.len() > bytes_max {
        return Err(format!("it has {} bytes, and {bytes_max} are read at most", yaml.len()));
    }
    let text = str::from_utf8(yaml).map_err(|_| "it is not UTF-8".to_owned())?;
    let source = Source::of(text)?;
    let text = &*source.text;
    if brackets(text) > BRACKETS_MAX {
        return Err(format!("it has more than {BRACKETS_MAX} brackets"));
    }
    if has_too_many_values(text) {
        return Err("it has too many values".to_owned());
    }
    match parse(&source, FIELD_LEVELS, Some(wanted)) {
        Ok(Node::Fields(fields)) => Ok(fields),
        // A file that has only comments.
        Ok(Node::Null) => Ok(Vec::new()),
        Ok(Node::Text(_)) => Err("it is a text and not a mapping".to_owned()),
        Ok(_) => Err("it is a sequence or a value and not a mapping".to_owned()),
        Err(error) => Err(escaped_start(&error.to_string(), REASON_CHARS_MAX)),
    }
}

fn parse(source: &Source<'_>, levels: usize, wanted: Option<fn(&str) -> bool>) -> Result<Node, yaml_serde::Error> {
    // A file of this size can have this many values and bytes of texts without aliases. For example, `a,` in a mapping
    // is a key of one byte with a value.
    let mut room = 2 * source.text.len() + 1;
    let seed = Seed { source, room: &mut room, levels, wanted };
    seed.deserialize(yaml_serde::Deserializer::from_str(&source.text))
}

/// A text that our parser and the parser of `wmill` split into the same lines.
struct Source<'a> {
    text: Cow<'a, str>,
}

impl<'a> Source<'a> {
    /// Replaces characters by their stand-ins.
    ///
    /// # Errors
    /// Returns why the two parsers may read different values.
    fn of(yaml: &'a str) -> Result<Self, String> {
        let yaml = yaml.strip_prefix(BYTE_ORDER_MARK).unwrap_or(yaml);
        if yaml.split('\r').skip(1).any(|rest| !rest.starts_with('\n')) {
            return Err("it has a carriage return within a line".to_owned());
        }
        // `wmill` drops the mark before the first value, and treats it as a part of the key elsewhere.
        if yaml.split('\n').any(|line| line.starts_with(['%', BYTE_ORDER_MARK])) {
            return Err("it has a directive or a byte order mark at the beginning of a line".to_owned());
        }
        if has_merge_tag(yaml) {
            return Err("it has a tag that merges mappings".to_owned());
        }
        if !STAND_INS.iter().any(|(char, _)| yaml.contains(*char)) {
            return Ok(Self { text: Cow::Borrowed(yaml) });
        }
        if yaml.contains(STAND_IN_ESCAPE) || STAND_INS.iter().any(|(_, stand_in)| yaml.contains(*stand_in)) {
            return Err("it has characters that this program needs for itself".to_owned());
        }
        let put = |text: String, (char, stand_in): &(char, char)| text.replace(*char, &stand_in.to_string());
        Ok(Self { text: Cow::Owned(STAND_INS.iter().fold(yaml.to_owned(), put)) })
    }

    /// Returns a part of the text with the characters of the file.
    fn original(&self, text: &str) -> String {
        let put_back = |text: String, (char, stand_in): &(char, char)| text.replace(*stand_in, &char.to_string());
        match self.text {
            Cow::Borrowed(_) => text.to_owned(),
            Cow::Owned(_) => STAND_INS.iter().fold(text.to_owned(), put_back),
        }
    }
}

/// Returns whether the text has the tag that merges mappings. Our parser treats a key with this tag as a usual key.
fn has_merge_tag(yaml: &str) -> bool {
    let is_in_a_name = |char: char| char.is_ascii_alphanumeric() || char == '%';
    let mut names = yaml.split("!!").skip(1).filter_map(|rest| rest.split(|char| !is_in_a_name(char)).next());
    yaml.contains(MERGE_TAG) || names.any(|name| name == "merge" || name.contains('%'))
}

/// Returns the first characters, with invisible ones and line breaks escaped.
pub fn escaped_start(text: &str, chars_max: usize) -> String {
    first_chars(text, chars_max).escape_debug().to_string()
}

fn brackets(text: &str) -> usize {
    text.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count()
}

/// Marks within texts are counted too.
fn has_too_many_values(text: &str) -> bool {
    text.bytes().filter(|byte| b",:-?!&[{\n\r".contains(byte)).nth(MARKS_MAX).is_some()
}

/// Reads one value.
///
/// If no room or no level is left, it skips the value and everything that contains it, so that aliases cannot make a
/// small file large. The target of an alias is then read at most once for each level.
struct Seed<'a> {
    source: &'a Source<'a>,
    /// The number of values and bytes of texts that may still be read.
    room: &'a mut usize,
    /// The number of levels of lists and mappings that may still be read.
    levels: usize,
    /// The fields to read of a mapping of which other fields are skipped.
    wanted: Option<fn(&str) -> bool>,
}

impl Seed<'_> {
    fn deeper(&mut self) -> Seed<'_> {
        Seed { source: self.source, room: self.room, levels: self.levels.saturating_sub(1), wanted: None }
    }

    /// Uses this much room, and returns whether there was enough.
    fn take(&mut self, amount: usize) -> bool {
        let left = self.room.checked_sub(amount);
        *self.room = left.unwrap_or(0);
        left.is_some()
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(mut self, deserializer: D) -> Result<Node, D::Error> {
        if self.take(1) {
            deserializer.deserialize_any(self)
        } else {
            deserializer.deserialize_ignored_any(IgnoredAny).map(|IgnoredAny| Node::Unread)
        }
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Node;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Whole(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Whole(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Node, E> {
        Ok(Node::Whole(value))
    }

    /// Our parser calls this for whole numbers from 2^64 on.
    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Node, E> {
        self.visit_f64(value as f64)
    }

    /// JavaScript has only one kind of number, so `2.0` is the whole number.
    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        let is_whole = value.fract() == 0.0 && value.abs() < i128::MAX as f64;
        Ok(if is_whole { Node::Whole(value as i128) } else { Node::Real(value) })
    }

    fn visit_str<E>(mut self, text: &str) -> Result<Node, E> {
        Ok(if self.take(text.len()) { Node::Text(self.source.original(text)) } else { Node::Unread })
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while self.levels > 0 {
            match items.next_element_seed(self.deeper())? {
                Some(Node::Unread) => break,
                Some(item) => list.push(item),
                None => return Ok(Node::List(list)),
            }
        }
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Node::Unread)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<Node, A::Error> {
        let (mut fields, mut seen) = (Vec::new(), BTreeSet::new());
        while self.levels > 0 {
            let Some(name) = entries.next_key::<String>()? else { return Ok(Node::Fields(fields)) };
            let has_room = self.take(name.len());
            let name = self.source.original(&name);
            let value = if has_room && self.wanted.is_none_or(|is_wanted| is_wanted(&name)) {
                entries.next_value_seed(self.deeper())?
            } else {
                entries.next_value().map(|IgnoredAny| Node::Unread)?
            };
            if value == Node::Unread && self.wanted.is_none() {
                break;
            }
            if !seen.insert(name.clone()) {
                // Parsers differ in which of the two values they use.
                let name = escaped_start(&name, KEY_CHARS_MAX);
                return Err(de::Error::custom(format_args!("the key `{name}` is there twice")));
            }
            fields.push((name, value));
        }
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Node::Unread)
    }

    fn visit_enum<A: EnumAccess<'de>>(mut self, tagged: A) -> Result<Node, A::Error> {
        if self.wanted.is_some() {
            // wmill ignores the tag, and reads the fields.
            return Err(de::Error::custom("it has a tag and is not a plain mapping"));
        }
        let source = self.source;
        let (tag, value) = tagged.variant::<String>()?;
        Ok(match value.newtype_variant_seed(self.deeper())? {
            Node::Unread => Node::Unread,
            value => Node::Fields(vec![(["!", &source.original(&tag)].concat(), value)]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_behind_a_tag_are_not_read() {
        for yaml in
            ["!t\nis_secret: true\n", "--- !t\nis_secret: true\n", "!t {is_secret: true}", "! {is_secret: true}"]
        {
            assert!(fields(yaml.as_bytes(), 100, |_| true).is_err(), "{yaml}");
        }
        assert_eq!(fields(b"is_secret: true", 100, |_| true), Ok(vec![("is_secret".to_owned(), Node::Bool(true))]));
    }

    #[test]
    fn a_number_is_equal_in_each_notation() {
        let of = |text: &str| value(&["a: ", text].concat()).expect("a value");
        assert_eq!(of("100000000000000000000"), of("1e+20"));
        assert_eq!(of("18446744073709551616"), of("18446744073709551616.0"));
        assert_ne!(of("100000000000000000000"), of("1e+21"));
    }

    #[test]
    fn a_value_is_read_whole_or_not_at_all() {
        let text = |text: &str| Node::Text(text.to_owned());
        let whole = value("a: [1, 2.5, x, true, ~]\n1: !t y\n").expect("a value");
        let list = Node::List(vec![Node::Whole(1), Node::Real(2.5), text("x"), Node::Bool(true), Node::Null]);
        let tagged = Node::Fields(vec![("!t".to_owned(), text("y"))]);
        assert_eq!(whole, Node::Fields(vec![("a".to_owned(), list), ("1".to_owned(), tagged)]));
        for unread in ["a: [", "a: 1\na: 2", "[a]: 1", "a: *b", "a: 1\n---\nb: 2"] {
            assert_eq!(value(unread), None, "{unread}");
        }
        let nested = |levels: usize| ["[".repeat(levels), "]".repeat(levels)].concat();
        assert!(value(&nested(DEPTH_MAX)).is_some());
        assert_eq!(value(&nested(DEPTH_MAX + 2)), None);
    }

    #[test]
    fn lines_are_split_as_in_yaml_1_2() {
        let text = |text: &str| Node::Text(text.to_owned());
        for char in ['\u{85}', '\u{2028}', '\u{2029}', '\u{feff}'] {
            let yaml = format!("a: x{char}b: \"\nc{char}: [\"{char}\"] # {char}d: 1\n");
            assert_eq!(value(&yaml), None, "for wmill, `: ` within a text is an error");
            let yaml = format!("a: x{char}b:\"\nc{char}: [\"{char}y\"] # {char}d: 1\n");
            let list = Node::List(vec![text(&format!("{char}y"))]);
            let expected = vec![("a".to_owned(), text(&format!("x{char}b:\""))), (format!("c{char}"), list)];
            assert_eq!(fields(yaml.as_bytes(), 1 << 20, |_| true).as_ref(), Ok(&expected));
            assert_eq!(value(&yaml), Some(Node::Fields(expected)), "{yaml:?}");
            for stand_in in ["\u{10fff0}", "\"\\U0010fff0\""] {
                assert!(value(&format!("a: {stand_in}")).is_some(), "it is a character like others");
                assert_eq!(value(&format!("a: x{char}\nb: {stand_in}")), None);
            }
        }
        assert_eq!(value("a: 1\r\nb: 2\r\n"), value("a: 1\nb: 2\n"));
        assert_eq!(value("\u{feff}a: 1"), value("a: 1"));
    }

    #[test]
    fn values_that_wmill_reads_differently_are_not_read() {
        for yaml in [
            "a: 1 # \rb: 2",
            "a: 1\r",
            "a: \"x\r\"",
            "%YAML 1.1\n---\na: 1",
            "# c\n%YAML 1.1\n---\na: 1",
            "# c\n\u{feff}a: 1",
            "\u{feff}\u{feff}a: 1",
            "!!merge a: {b: 1}",
            "!!mer%67e a: {b: 1}",
            "a: {!<tag:yaml.org,2002:merge> b: {c: 1}}",
        ] {
            assert_eq!(value(yaml), None, "{yaml:?}");
            assert!(fields(yaml.as_bytes(), 1 << 20, |_| true).is_err(), "{yaml:?}");
        }
        assert!(value("a: '50%'\nb: x!!merged\n").is_some());
    }

    #[test]
    fn aliases_are_followed_within_the_size_of_the_file() {
        assert!(value("a: &a [x, x]\nb: *a\n").is_some());
        assert_eq!(value("a: &a [x, x]\nb: &b [*a, *a, *a, *a]\nc: [*b, *b, *b, *b, *b, *b, *b, *b]\n"), None);
        // Aliases repeat one long text.
        let long = "x".repeat(100_000);
        assert_eq!(value(&format!("- &a {long}\n{}", "- *a\n".repeat(20_000))), None);
        assert_eq!(value(&format!("- &a {long}\n{}", "- {*a : 1}\n".repeat(10_000))), None);
        let wanted =
            fields(format!("x: &a {long}\nb: [{}y]\nc: z", "*a,".repeat(30_000)).as_bytes(), 1 << 20, |_| true);
        let wanted = wanted.expect("fields");
        assert_eq!(wanted[1].1, Node::Unread);
    }

    #[test]
    fn a_file_with_very_many_values_is_not_parsed() {
        // The bracket counts as a mark too.
        let list = |marks: usize| ["[", &"1,".repeat(marks - 1), "]"].concat();
        assert!(value(&list(MARKS_MAX)).is_some());
        assert_eq!(value(&list(MARKS_MAX + 1)), None);
        let error = fields(list(MARKS_MAX + 1).as_bytes(), 1 << 20, |_| true).err();
        assert_eq!(error.as_deref(), Some("it has too many values"));
    }

    #[test]
    fn escapes_do_not_make_a_text_longer_than_its_limit() {
        for dense in ["\"\\P\\L\\N\"", "{a,b,c}", "[\"\\P\",1]", "[[],[[]]]", "{\"\\P\",\"\\L\":[~,1]}"] {
            assert!(value(dense).is_some(), "{dense}");
        }
    }
}
