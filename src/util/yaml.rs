//! Reads YAML 1.2 as values, with bounds on the time and the memory that any input can take.

use std::collections::{BTreeMap, BTreeSet};

use saphyr_parser::{Event, Parser, ScalarStyle, StrInput};

use crate::util::redact::first_chars;

/// The most characters of a file that can begin a value or its tag. Between brackets, the parser holds up to 400 bytes
/// for each before it returns the first value.
const MARKS_MAX: usize = 40_000;
/// The most levels of lists and mappings.
const DEPTH_MAX: usize = 100;
/// How many characters of the parser's message, or of a key, an error has.
const REASON_CHARS_MAX: usize = 160;
const KEY_CHARS_MAX: usize = 40;
/// What begins a YAML file of some editors on Windows. Anywhere else, it is a character.
const BYTE_ORDER_MARK: char = '\u{feff}';
/// What our parser gets in place of a mark within the file, which it refuses and `wmill` reads: a character for private
/// use.
const STAND_IN: &str = "\u{10fff0}";
/// How an escape for the stand-in begins.
const STAND_IN_ESCAPE: &str = "\\U0010";

/// A value of YAML or JSON.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// Null.
    Null,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Whole(i128),
    /// Another number.
    Real(f64),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping, in its order. A value with a tag is a mapping with one key, the tag.
    Fields(Vec<(String, Node)>),
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

/// Reads the fields of a mapping in its order.
///
/// # Errors
/// Returns why the file cannot be read, as text for a warning.
pub fn fields(yaml: &[u8], bytes_max: usize) -> Result<Vec<(String, Node)>, String> {
    if yaml.len() > bytes_max {
        return Err(format!("it has {} bytes, and {bytes_max} are read at most", yaml.len()));
    }
    match value(str::from_utf8(yaml).map_err(|_| "it is not UTF-8")?)? {
        Node::Fields(fields) => Ok(fields),
        // A file that has only comments.
        Node::Null => Ok(Vec::new()),
        Node::Text(_) => Err("it is a text and not a mapping".to_owned()),
        _ => Err("it is a sequence or a value and not a mapping".to_owned()),
    }
}

/// Reads a whole file as one value.
///
/// # Errors
/// Returns why it is not valid, or cannot be read within the bounds, or may have another value for `wmill`.
pub fn value(yaml: &str) -> Result<Node, String> {
    let yaml = yaml.strip_prefix(BYTE_ORDER_MARK).unwrap_or(yaml);
    // It ends a line for our parser alone.
    if yaml.split('\r').skip(1).any(|rest| !rest.starts_with('\n')) {
        return Err("it has a carriage return within a line".to_owned());
    }
    // `wmill` drops the mark before the first value, and has it as a part of the key elsewhere.
    if yaml.split('\n').any(|line| line.starts_with(['%', BYTE_ORDER_MARK])) {
        return Err("it has a directive or a byte order mark at the beginning of a line".to_owned());
    }
    if yaml.contains(STAND_IN) || yaml.contains(STAND_IN_ESCAPE) {
        return Err("it has a character for private use".to_owned());
    }
    // Marks within texts count too.
    if yaml.bytes().filter(|byte| b",:-?!&[{\n\r".contains(byte)).count() > MARKS_MAX {
        return Err("it has too many values".to_owned());
    }
    let room = 4 * yaml.len() + MARKS_MAX * size_of::<Node>();
    let yaml = yaml.replace(BYTE_ORDER_MARK, STAND_IN);
    Reader { events: Parser::new_from_str(&yaml), anchored: BTreeMap::new(), room }.document()
}

/// Makes a value of the parser's events.
struct Reader<'a> {
    events: Parser<'a, StrInput<'a>>,
    /// The values that have an anchor, each with the room that it takes.
    anchored: BTreeMap<usize, (Node, usize)>,
    /// How many bytes of memory may still be taken. An alias takes as much as its target, so that aliases cannot make a
    /// small file large.
    room: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<Event<'a>, String> {
        match self.events.next_event() {
            Some(Ok((event, _))) => Ok(event),
            Some(Err(error)) => Err(escaped_start(&error.to_string(), REASON_CHARS_MAX)),
            None => Ok(Event::StreamEnd),
        }
    }

    fn take(&mut self, bytes: usize) -> Result<(), String> {
        self.room = self.room.checked_sub(bytes).ok_or("its aliases make it too large")?;
        Ok(())
    }

    fn document(mut self) -> Result<Node, String> {
        let _stream_start = self.next()?;
        if self.next()? == Event::StreamEnd {
            return Ok(Node::Null);
        }
        let first = self.next()?;
        let node = self.node(first, 0)?;
        let _document_end = self.next()?;
        match self.next()? {
            Event::StreamEnd => Ok(node),
            _ => Err("it has more than one document".to_owned()),
        }
    }

    /// Reads the value that begins with `event` and has so many levels around it.
    fn node(&mut self, event: Event<'a>, depth: usize) -> Result<Node, String> {
        if depth > DEPTH_MAX {
            return Err(format!("it has more than {DEPTH_MAX} levels"));
        }
        let room_before = self.room;
        self.take(size_of::<Node>())?;
        let (node, anchor, tag) = match event {
            Event::Alias(anchor) => {
                let (node, bytes) = self.anchored.get(&anchor).cloned().ok_or("it has an alias of no value")?;
                self.take(bytes)?;
                return Ok(node);
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.take(text.len())?;
                let text = original(&text);
                let node = if style == ScalarStyle::Plain { plain(text) } else { Node::Text(text) };
                (node, anchor, tag)
            }
            Event::SequenceStart(anchor, tag) => {
                let mut list = Vec::new();
                loop {
                    match self.next()? {
                        Event::SequenceEnd => break (Node::List(list), anchor, tag),
                        event => list.push(self.node(event, depth + 1)?),
                    }
                }
            }
            Event::MappingStart(anchor, tag) => (Node::Fields(self.entries(depth)?), anchor, tag),
            other => return Err(format!("unexpected {other:?}")),
        };
        if anchor > 0 {
            let bytes = room_before - self.room;
            self.take(bytes)?;
            self.anchored.insert(anchor, (node.clone(), bytes));
        }
        match tag {
            None => Ok(node),
            // wmill ignores the tag, and reads the fields.
            Some(_) if depth == 0 => Err("it has a tag and is not a plain mapping".to_owned()),
            Some(tag) => Ok(Node::Fields(vec![(tag.to_string(), node)])),
        }
    }

    fn entries(&mut self, depth: usize) -> Result<Vec<(String, Node)>, String> {
        let (mut fields, mut seen) = (Vec::new(), BTreeSet::new());
        loop {
            let name = match self.next()? {
                Event::MappingEnd => return Ok(fields),
                Event::Scalar(name, _, _, None) => original(&name),
                // A tag could make its mapping a part of this one.
                _ => return Err("it has a key that is not a plain text".to_owned()),
            };
            self.take(name.len())?;
            if !seen.insert(name.clone()) {
                // Parsers differ in which of the two they use.
                return Err(format!("the key `{}` is there twice", escaped_start(&name, KEY_CHARS_MAX)));
            }
            let event = self.next()?;
            fields.push((name, self.node(event, depth + 1)?));
        }
    }
}

fn original(text: &str) -> String {
    text.replace(STAND_IN, "\u{feff}")
}

/// Returns the value of a text without quotes.
fn plain(text: String) -> Node {
    match text.as_str() {
        "" | "~" | "null" | "Null" | "NULL" => Node::Null,
        "true" | "True" | "TRUE" => Node::Bool(true),
        "false" | "False" | "FALSE" => Node::Bool(false),
        // Such a number equals no value of Windmill.
        ".nan" | ".NaN" | ".NAN" | ".inf" | ".Inf" | ".INF" | "-.inf" | "-.Inf" | "-.INF" => Node::Real(f64::NAN),
        _ => number(&text).unwrap_or(Node::Text(text)),
    }
}

fn number(text: &str) -> Option<Node> {
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(digits) = text.strip_prefix(prefix).filter(|digits| !digits.starts_with(['+', '-'])) {
            return i128::from_str_radix(digits, radix).ok().map(Node::Whole);
        }
    }
    if !text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte)) {
        return None;
    }
    let whole: Option<i128> = text.parse().ok();
    if let Some(whole) = whole.filter(|whole| whole.unsigned_abs() <= u64::MAX.into()) {
        return Some(Node::Whole(whole));
    }
    // JavaScript has only one kind of number, so `2.0` is the whole number.
    let real: f64 = text.parse().ok()?;
    let is_whole = real.fract() == 0.0 && real.abs() < i128::MAX as f64;
    Some(if is_whole { Node::Whole(real as i128) } else { Node::Real(real) })
}

/// Returns the first characters, with invisible ones and line breaks escaped.
pub fn escaped_start(text: &str, chars_max: usize) -> String {
    first_chars(text, chars_max).escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Node {
        Node::Text(text.to_owned())
    }

    #[test]
    fn fields_behind_a_tag_are_not_read() {
        for yaml in
            ["!t\nis_secret: true\n", "--- !t\nis_secret: true\n", "!t {is_secret: true}", "! {is_secret: true}"]
        {
            assert!(fields(yaml.as_bytes(), 100).is_err(), "{yaml}");
        }
        assert_eq!(fields(b"is_secret: true", 100), Ok(vec![("is_secret".to_owned(), Node::Bool(true))]));
    }

    #[test]
    fn a_number_is_the_same_in_each_way_to_write_it() {
        let of = |text: &str| value(&["a: ", text].concat()).expect("a value");
        assert_eq!(of("100000000000000000000"), of("1e+20"));
        assert_eq!(of("18446744073709551616"), of("18446744073709551616.0"));
        assert_ne!(of("100000000000000000000"), of("1e+21"));
        assert_ne!(of("9007199254740992"), of("9007199254740993"));
        assert_eq!((of("010"), of("0x1F"), of("0o17"), of(".5e1")), (of("10"), of("31"), of("15"), of("5")));
        assert_ne!(of("-.inf"), of("'-.inf'"));
        for no_number in ["0b1", "+0x1", "-0o7", "0x-1", "0xg", "1_000", "2024-01-05", "10:20", ".", "e5", "inf", "nan"]
        {
            assert_eq!(of(no_number), of(&format!("'{no_number}'")));
        }
    }

    #[test]
    fn a_value_is_read_whole_or_not_at_all() {
        let whole = value("a: [1, 2.5, x, true, ~]\n1: !t y\n");
        let list = Node::List(vec![Node::Whole(1), Node::Real(2.5), text("x"), Node::Bool(true), Node::Null]);
        let tagged = Node::Fields(vec![("!t".to_owned(), text("y"))]);
        assert_eq!(whole, Ok(Node::Fields(vec![("a".to_owned(), list), ("1".to_owned(), tagged)])));
        for unread in ["a: [", "a: 1\na: 2", "[a]: 1", "a: *b", "a: &a [*a]", "&a x: *a", "a: 1\n---\nb: 2"] {
            assert!(value(unread).is_err(), "{unread}");
        }
        let nested = |levels: usize| ["[".repeat(levels), "]".repeat(levels)].concat();
        assert!(value(&nested(DEPTH_MAX)).is_ok());
        assert!(value(&nested(DEPTH_MAX + 2)).is_err());
    }

    #[test]
    fn the_lines_are_those_of_yaml_1_2() {
        for char in ['\u{85}', '\u{2028}', '\u{2029}', '\u{feff}'] {
            let yaml = format!("a: x{char}b: \"\nc{char}: [\"{char}\"] # {char}d: 1\n");
            assert!(value(&yaml).is_err(), "for wmill, `: ` within a text is an error");
            let yaml = format!("a: x{char}b:\"\nc{char}: [\"{char}y\"] # {char}d: 1\n");
            let list = Node::List(vec![text(&format!("{char}y"))]);
            let expected = vec![("a".to_owned(), text(&format!("x{char}b:\""))), (format!("c{char}"), list)];
            assert_eq!(value(&yaml), Ok(Node::Fields(expected)), "{yaml:?}");
        }
        assert_eq!(value("a: 1\r\nb: 2\r\n"), value("a: 1\nb: 2\n"));
        assert_eq!(value("\u{feff}a: 1"), value("a: 1"));
        for unclear in ["a: \u{10fff0}", "a: \"\\U0010fff0\""] {
            assert!(value(unclear).is_err(), "{unclear}");
        }
    }

    #[test]
    fn what_wmill_reads_in_another_way_is_not_read() {
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
            assert!(value(yaml).is_err(), "{yaml:?}");
        }
        assert!(value("a: '50%'\nb: x!!merged\n").is_ok());
    }

    #[test]
    fn aliases_are_followed_as_far_as_there_is_room() {
        assert_eq!(value("a: &a [x, x]\nb: *a\n"), value("a: [x, x]\nb: [x, x]\n"));
        let mut bomb = String::from("- &a0 [x, x, x, x, x, x, x, x, x]\n");
        for level in 1..50 {
            let alias = format!("*a{}", level - 1);
            bomb.push_str(&format!("- &a{level} [{}]\n", [&alias[..]; 9].join(",")));
        }
        // Aliases repeat one long text.
        let long = "x".repeat(100_000);
        let repeated = format!("- &a {long}\n{}", "- *a\n".repeat(10_000));
        // Each level holds what is below it once more.
        let nested: String = (0..90).map(|level| format!("&a{level} [")).collect();
        let nested = format!("{nested}{long}{}", "]".repeat(90));
        for large in [bomb, repeated, nested] {
            assert_eq!(value(&large), Err("its aliases make it too large".to_owned()));
        }
    }

    #[test]
    fn a_file_with_very_many_values_is_not_parsed() {
        // The bracket is a mark too.
        let list = |marks: usize| ["[", &"1,".repeat(marks - 1), "]"].concat();
        assert!(value(&list(MARKS_MAX)).is_ok());
        assert_eq!(value(&list(MARKS_MAX + 1)), Err("it has too many values".to_owned()));
    }

    #[test]
    fn a_file_without_aliases_has_room() {
        for dense in ["\"\\P\\L\\N\"", "{a,b,c}", "[\"\\P\",1]", "[[],[[]]]", "{\"\\P\",\"\\L\":[~,1]}"] {
            assert!(value(dense).is_ok(), "{dense}");
        }
        assert!(value(&["[", &"\"\\P\",".repeat(MARKS_MAX - 1), "]"].concat()).is_ok());
    }
}
