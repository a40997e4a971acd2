//! `docs/windmill-git-sync.1`, the man page: made of what `--help` says and of README's tables, so that it costs the
//! binary nothing and cannot say anything else. To write it anew: `just man`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::bed::*;
use crate::docs::{read, rows};

const PAGE: &str = "docs/windmill-git-sync.1";

/// What one `--help` says: a paragraph before its lists, and the entries of each list.
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

/// A list of argh's: a name, two spaces or more or a line's end, and a text that goes on in lines with a wide margin.
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

/// Markdown of a table's cell, or a help text, as roff: nothing in it is taken for an order.
fn roff(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    // A link is its text.
    while let Some((before, (shown, after))) =
        rest.split_once('[').and_then(|(before, tail)| Some((before, tail.split_once("](")?)))
    {
        out.push_str(before);
        out.push_str(shown);
        rest = after.split_once(')').map_or("", |(_, after)| after);
    }
    out.push_str(rest);
    let out = out.replace('\\', "\\e").replace('-', "\\-");
    let out = alternating(&alternating(&out, '`', "\\fB"), '*', "\\fI");
    if out.starts_with(['.', '\'']) { format!("\\&{out}") } else { out }
}

/// Each second part between `mark`s in the font `font`; a mark without its second one stays.
fn alternating(text: &str, mark: char, font: &str) -> String {
    let parts: Vec<_> = text.split(mark).collect();
    if parts.len() % 2 == 0 {
        return text.to_owned();
    }
    let shown =
        |(number, part): (usize, &&str)| if number % 2 == 1 { format!("{font}{part}\\fP") } else { (*part).to_owned() };
    parts.iter().enumerate().map(shown).collect()
}

fn page() -> String {
    let sandbox = Sandbox::new();
    let whole = help(&sandbox, &[]);
    let version = env!("CARGO_PKG_VERSION");
    let mut out = String::from(".\\\" Made by tests/it/man.rs out of `--help` and README.md: `just man`.\n");
    let mut line = |text: &str| {
        let _ = writeln!(out, "{text}");
    };
    line(&format!(".TH WINDMILL\\-GIT\\-SYNC 1 \"\" \"windmill\\-git\\-sync {version}\" \"User Commands\""));
    line(".SH NAME\nwindmill\\-git\\-sync \\- back a Windmill workspace up into a git repository");
    line(&format!(".SH SYNOPSIS\n.B windmill\\-git\\-sync\n{}", roff(whole.usage.split_once(' ').unwrap().1)));
    line(&format!(".SH DESCRIPTION\n{}", roff(&whole.about)));
    line(".SH OPTIONS");
    for (name, text) in &whole.options {
        line(&format!(".TP\n.B {}\n{}", roff(name), roff(text)));
    }
    line(".SH COMMANDS");
    for (name, text) in &whole.commands {
        line(&format!(".SS {}\n{}", roff(name), roff(text)));
        for (name, text) in help(&sandbox, &[name]).options {
            line(&format!(".TP\n.B {}\n{}", roff(&name), roff(&text)));
        }
    }
    let readme = read("README.md");
    line(
        ".SH ENVIRONMENT\nAn option beats the environment, which beats the default. Each setting marked \\fIsecret\\fP can come from a file: its path goes into the variable with \\fB_FILE\\fP after its name.",
    );
    for row in rows(&readme, "| variable | default | meaning |") {
        let default = if row[1] == "–" { String::new() } else { format!(" (default: {})", row[1]) };
        line(&format!(".TP\n.B {}\n{}", row[0].trim_matches('`'), roff(&format!("{}{default}", row[2]))));
    }
    line(".SH EXIT STATUS");
    let mut by_exit: Vec<(u8, Vec<String>)> = Vec::new();
    for row in rows(&readme, "| code | HTTP | exit | when, and what helps |") {
        let exit = row[2].parse().expect("an exit code");
        match by_exit.iter_mut().find(|(known, _)| *known == exit) {
            Some((_, codes)) => codes.push(row[0].to_owned()),
            None => by_exit.push((exit, vec![row[0].to_owned()])),
        }
    }
    by_exit.sort();
    line("The result on standard output tells more, by its \\fBcode\\fP.");
    for (exit, codes) in by_exit {
        line(&format!(".TP\n.B {exit}\n{}", roff(&codes.join(", "))));
    }
    line(
        ".SH EXAMPLES\nSettings in a file that only its user can read, one NAME=value a line:\n.PP\n.nf\n.RS\nset \\-a; . /etc/windmill\\-git\\-sync.env; set +a\nwindmill\\-git\\-sync sync \\-\\-dry\\-run\nwindmill\\-git\\-sync sync\nwindmill\\-git\\-sync serve \\-\\-listen 127.0.0.1:8080\n.RE\n.fi",
    );
    line(".SH SEE ALSO\n.BR git (1),\n.BR ssh (1)\n.PP\nREADME.md, and the pages in docs/ of the source.");
    out
}

#[test]
fn the_man_page_is_what_the_help_and_the_readme_say() {
    let (path, made) = (Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE), page());
    if std::env::var_os("WRITE_MAN").is_some() {
        fs::write(&path, &made).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == made, "{PAGE} is not what `--help` and README.md say: `just man` writes it anew");
}

#[test]
fn no_text_is_taken_for_an_order_of_the_page() {
    for (text, expected) in [
        (".so /etc/passwd", "\\&.so /etc/passwd"),
        ("a `b` and *c*", "a \\fBb\\fP and \\fIc\\fP"),
        ("see [this page](docs/running.md#x)", "see this page"),
        ("C:\\x --yes", "C:\\ex \\-\\-yes"),
        ("f/* alone", "f/* alone"),
    ] {
        assert_eq!(roff(text), expected);
    }
}
