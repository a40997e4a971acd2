//! `docs/windmill-git-sync.1`, the man page. It is made from `--help` and the tables of docs/, so it adds nothing to
//! the binary and cannot contradict them. `just man` generates it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::docs::{assert_kept, read, rows};
use support::*;

const HEAD: &str = r#".\" Made by tests/it/man.rs from `--help`, docs/settings.md and docs/codes.md: `just man`.
.TH WINDMILL\-GIT\-SYNC 1 "" "windmill\-git\-sync VERSION" "User Commands"
.SH NAME
windmill\-git\-sync \- back a Windmill workspace up into a git repository
"#;
const ENVIRONMENT: &str = r".SH ENVIRONMENT
An option beats the environment, which beats the default.
Each setting marked \fIsecret\fP can come from a file: its path goes into the variable with \fB_FILE\fP after its name.
";
const EXIT_STATUS: &str = r".SH EXIT STATUS
The result on standard output tells more, by its \fBcode\fP.
\fBserve\fP ends with 0 after one signal, and with 143 if a second signal ended it at once.
";
const TAIL: &str = r".SH EXAMPLES
Settings in a file that only its user can read, one NAME=value a line:
.PP
.nf
.RS
set \-a; . /etc/windmill\-git\-sync.env; set +a
windmill\-git\-sync sync \-\-dry\-run
windmill\-git\-sync sync
windmill\-git\-sync serve \-\-listen 127.0.0.1:8080
.RE
.fi
.SH SEE ALSO
.BR git (1),
.BR ssh (1)
.PP
README.md and docs/README.md of the source.
";

/// The text of one `--help`: a paragraph before its lists, and the entries of each list.
struct Help {
    usage: String,
    about: String,
    options: Vec<(String, String)>,
    commands: Vec<(String, String)>,
}

#[track_caller]
fn help(sandbox: &Sandbox, words: &[&str]) -> Help {
    let run = sandbox.command(words.first().copied().unwrap_or("--help"));
    let outcome = if words.is_empty() { run.run() } else { run.arg("--help").run() };
    let text = outcome.stdout;
    let part = |title: &str| {
        text.split_once(&format!("\n{title}:\n")).map_or("", |(_, rest)| rest.split("\n\n").next().unwrap())
    };
    let mut parts = text.split("\n\n");
    let usage = parts.next().unwrap().strip_prefix("Usage: ").expect("a usage").to_owned();
    let about = parts.next().expect("what it does").to_owned();
    Help { usage, about, options: entries(part("Options")), commands: entries(part("Commands")) }
}

/// Parses a list in the help text of argh: a name, then two or more spaces or a line end, then a text that continues on
/// lines with a wide margin.
fn entries(list: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for line in list.lines() {
        let text = line.trim();
        match (line.starts_with("   "), found.last_mut()) {
            (true, Some((_, known))) => *known = format!("{known} {text}").trim().to_owned(),
            _ => {
                let (name, text) = text.split_once("  ").unwrap_or((text, ""));
                found.push((name.to_owned(), text.trim().to_owned()));
            }
        }
    }
    found.retain(|(name, _)| !name.starts_with("-h"));
    found
}

/// Converts Markdown of a table cell, or a help text, to roff. No part of it becomes a roff request.
fn roff(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    // A link becomes its text.
    while let Some((before, (shown, after))) =
        rest.split_once('[').and_then(|(before, tail)| Some((before, tail.split_once("](")?)))
    {
        out.push_str(before);
        out.push_str(shown);
        rest = after.split_once(')').map_or("", |(_, after)| after);
    }
    out.push_str(rest);
    let out = out.replace('\\', "\\e").replace('-', "\\-");
    let out = alternating(
        &out,
        '`',
        |code| format!("\\fB{code}\\fP"),
        |text| alternating(text, '*', |word| format!("\\fI{word}\\fP"), str::to_owned),
    );
    if out.starts_with(['.', '\'']) { format!("\\&{out}") } else { out }
}

/// Applies `inner` to the parts between two `mark`s, and `outer` to the others. If a mark has no second one, or two
/// have nothing between them, `outer` gets the whole text. Marks inside code have no meaning: the stars of `f/ops/**`
/// stay.
fn alternating(text: &str, mark: char, inner: impl Fn(&str) -> String, outer: impl Fn(&str) -> String) -> String {
    let parts: Vec<_> = text.split(mark).collect();
    if parts.len() % 2 == 0 || parts.iter().skip(1).step_by(2).any(|part| part.is_empty()) {
        return outer(text);
    }
    let shown = |(number, part): (usize, &&str)| if number % 2 == 1 { inner(part) } else { outer(part) };
    parts.iter().enumerate().map(shown).collect()
}

fn page() -> String {
    let sandbox = Sandbox::new();
    let whole = help(&sandbox, &[]);
    let mut out = String::from(HEAD).replace("VERSION", env!("CARGO_PKG_VERSION"));
    let usage = whole.usage.split_once(' ').unwrap().1;
    let _ = writeln!(out, ".SH SYNOPSIS\n.B windmill\\-git\\-sync\n{}", roff(usage));
    let _ = writeln!(out, ".SH DESCRIPTION\n{}", roff(&whole.about));
    out.push_str(".SH OPTIONS\n");
    out.push_str(&list(&whole.options));
    out.push_str(".SH COMMANDS\n");
    for (name, text) in &whole.commands {
        let _ = writeln!(out, ".SS {}\n{}", roff(name), roff(text));
        out.push_str(&list(&help(&sandbox, &[name]).options));
    }
    out.push_str(ENVIRONMENT);
    out.push_str(&list(&settings(&read("docs/settings.md"))));
    out.push_str(EXIT_STATUS);
    out.push_str(&list(&exit_codes(&read("docs/codes.md"))));
    out.push_str(TAIL);
    out
}

fn list(entries: &[(String, String)]) -> String {
    entries.iter().map(|(name, text)| format!(".TP\n.B {}\n{}\n", roff(name), roff(text))).collect()
}

fn settings(page: &str) -> Vec<(String, String)> {
    let rows = rows(page, "| variable | default | meaning |");
    let default = |row: &[&str]| if row[1] == "–" { String::new() } else { format!(" (default: {})", row[1]) };
    rows.iter().map(|row| (row[0].trim_matches('`').to_owned(), format!("{}{}", row[2], default(row)))).collect()
}

/// Returns each exit code with its result codes.
fn exit_codes(page: &str) -> Vec<(String, String)> {
    let mut by_exit: BTreeMap<u8, Vec<&str>> = BTreeMap::new();
    for row in rows(page, "| code | HTTP | exit | when, and what helps |") {
        by_exit.entry(row[2].parse().expect("an exit code")).or_default().push(row[0]);
    }
    by_exit.into_iter().map(|(exit, codes)| (exit.to_string(), codes.join(", "))).collect()
}

#[test]
fn the_man_page_matches_the_help_and_the_documents() {
    assert_kept("docs/windmill-git-sync.1", &page(), "man");
}

#[test]
fn no_text_becomes_a_roff_request() {
    for (text, expected) in [
        (".so /etc/passwd", "\\&.so /etc/passwd"),
        ("a `b` and *c*", "a \\fBb\\fP and \\fIc\\fP"),
        ("see [this page](docs/running.md#x)", "see this page"),
        ("C:\\x --yes", "C:\\ex \\-\\-yes"),
        ("f/* alone", "f/* alone"),
        ("such as f/ops/**; and so on", "such as f/ops/**; and so on"),
        ("`f/ops/**` or *all*", "\\fBf/ops/**\\fP or \\fIall\\fP"),
        ("`a*` and `*b` stay", "\\fBa*\\fP and \\fB*b\\fP stay"),
    ] {
        assert_eq!(roff(text), expected);
    }
}
