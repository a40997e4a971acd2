//! What a Windmill workspace holds, as the entries of its export: recorded, made up, or edited by a test. It knows
//! which entries an export has for which query; it knows nothing of HTTP.

use std::collections::BTreeMap;
use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};

use miniserde::json::{self, Value};

/// The recordings.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/windmill")
}

/// An entry of an export: its path and its bytes.
pub type Entry = (String, Vec<u8>);

/// A workspace as Windmill would export it with every kind included, in the order of the export.
#[derive(Clone, Default)]
pub struct Workspace {
    entries: Vec<Entry>,
    /// Secret variables decrypted, by path: what `plain_secret` gives instead.
    plain: BTreeMap<String, Vec<u8>>,
    /// Recorded answers to requests beside the export, by path and query below `/api/w/{workspace}`.
    recorded: BTreeMap<String, String>,
    /// The lines of the lists of `scripts`, `flows` and `apps`, the last edit at the end: of the recorded ones, the
    /// first page of three that was recorded.
    edits: Vec<(String, String)>,
}

impl Workspace {
    pub fn empty() -> Self {
        Self::default()
    }

    /// One of the recorded states: `1-seeded`, `2-edited`, `3-emptied`.
    #[track_caller]
    pub fn recorded(state: &str) -> Self {
        let folder = fixtures().join(state);
        let plain = entries_of_tar(&read(&folder.join("plain-secrets.tar")))
            .into_iter()
            .filter(|(path, _)| path.ends_with(".variable.json"))
            .collect();
        let recorded: BTreeMap<String, String> = exchanges(state)
            .into_iter()
            .filter(|exchange| exchange.path.contains("/list?"))
            .filter_map(|exchange| {
                let path = exchange.path.strip_prefix("/api/w/shop")?.to_owned();
                Some((path, exchange.body?))
            })
            .collect();
        let mut edits = Vec::new();
        for list in ["scripts", "flows", "apps"] {
            let answer = recorded.get(&format!("/{list}/list?per_page=3")).map_or("[]", String::as_str);
            let Ok(Value::Array(lines)) = json::from_str(answer) else { panic!("no list of {list}: {answer}") };
            edits.extend(lines.iter().rev().map(|line| (list.to_owned(), json::to_string(line))));
        }
        Self { entries: entries_of_tar(&read(&folder.join("everything.tar"))), plain, recorded, edits }
    }

    /// The recorded state, its app's inline script with the `fields` that Windmill's editor gives each: without, wmill
    /// 1.819.0 ends half way through a push.
    #[track_caller]
    pub fn restorable(state: &str) -> Self {
        const APP: &str = "f/sales/board.app.json";
        let mut workspace = Self::recorded(state);
        let text = String::from_utf8(workspace.get(APP).expect("an app").to_vec()).unwrap();
        let named = "\"type\": \"runnableByName\",";
        assert!(text.contains(named), "{text}");
        workspace.put(APP, text.replace(named, &format!("{named} \"fields\": {{}},")));
        workspace
    }

    /// A made-up workspace of this many scripts, Bun and Python by turns, ten folders.
    pub fn of_scripts(count: usize) -> Self {
        let mut workspace = Self::empty();
        for folder in 0..count.min(10) {
            workspace.add_folder(&format!("dept_{folder}"));
        }
        for number in 0..count {
            let path = format!("f/dept_{}/job_{number:05}", number % 10);
            match number % 2 {
                0 => workspace.add_bun_script(&path, &format!("job {number}")),
                _ => workspace.add_python_script(&path, &format!("job {number}")),
            }
        }
        workspace
    }

    /// A folder, which every item below `f/` needs.
    pub fn add_folder(&mut self, name: &str) {
        let meta = format!(
            "{{\n  \"extra_perms\": {{\n    \"u/admin\": true\n  }},\n  \"summary\": null,\n  \
             \"display_name\": \"{name}\",\n  \"owners\": [\n    \"u/admin\"\n  ]\n}}"
        );
        self.put(&format!("f/{name}/folder.meta.json"), meta);
    }

    /// A TypeScript script for Bun that returns `result`.
    pub fn add_bun_script(&mut self, path: &str, result: &str) {
        self.put(
            &format!("{path}.ts"),
            format!("export async function main(x: string) {{\n  return `{result} ${{x}}`\n}}\n"),
        );
        self.put(&format!("{path}.script.json"), script_json(result, "null"));
    }

    /// A Python script that returns `result`, with a lock of its own.
    pub fn add_python_script(&mut self, path: &str, result: &str) {
        self.put(&format!("{path}.py"), format!("def main(x: str = '{result}'):\n    return x\n"));
        let lock = "\"# py311\\n\"";
        self.put(&format!("{path}.script.json"), script_json(result, lock));
    }

    /// A variable; a secret one has ciphertext as its value.
    pub fn add_variable(&mut self, path: &str, value: &str, secret: bool) {
        self.put(
            &format!("{path}.variable.json"),
            format!("{{\n  \"is_secret\": {secret},\n  \"description\": \"\",\n  \"value\": \"{value}\"\n}}"),
        );
    }

    /// Sets the entry at `path`, in its place where there was one, else at the end.
    pub fn put(&mut self, path: &str, bytes: impl Into<Vec<u8>>) {
        let bytes = bytes.into();
        match self.entries.iter_mut().find(|(known, _)| known == path) {
            Some((_, old)) => *old = bytes,
            None => self.entries.push((path.to_owned(), bytes)),
        }
    }

    /// Takes the entry at `path` out; it must have been there.
    #[track_caller]
    pub fn remove(&mut self, path: &str) {
        let before = self.entries.len();
        self.entries.retain(|(known, _)| known != path);
        assert!(self.entries.len() < before, "no entry `{path}`");
    }

    pub fn get(&self, path: &str) -> Option<&[u8]> {
        self.entries.iter().find(|(known, _)| known == path).map(|(_, bytes)| bytes.as_slice())
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Reverses the order of the entries, as a server without ORDER BY may.
    pub fn reverse_order(&mut self) {
        self.entries.reverse();
    }

    pub fn recorded_answer(&self, path_and_query: &str) -> Option<&str> {
        self.recorded.get(path_and_query).map(String::as_str)
    }

    /// Says in the list of `scripts`, `flows` or `apps` who edited the item last, and when. The fields are those that
    /// Windmill has in the answers about one item; the lists of 1.491 have `edited_by` for flows alone.
    pub fn edited(&mut self, list: &str, path: &str, by: &str, at: &str) {
        let (path, by, at) = (json::to_string(path), json::to_string(by), json::to_string(at));
        let (who, when) = if list == "flows" { ("edited_by", "edited_at") } else { ("created_by", "created_at") };
        let line = format!("{{\"path\":{path},\"summary\":\"\",\"{who}\":{by},\"{when}\":{at}}}");
        self.edits.push((list.to_owned(), line));
    }

    /// A page of the list, the last edit first.
    pub fn edits(&self, list: &str, page: usize, per_page: usize) -> Vec<&str> {
        let lines = self.edits.iter().rev().filter(|(of, _)| of == list).map(|(_, line)| line.as_str());
        lines.skip(page.saturating_sub(1) * per_page).take(per_page).collect()
    }

    /// What an export has for this query.
    pub fn export(&self, query: &BTreeMap<String, String>) -> Vec<Entry> {
        let asked = |name: &str| query.get(name).is_some_and(|value| value == "true");
        let plain = asked("plain_secret");
        self.entries
            .iter()
            .filter(|(path, bytes)| match kind(path) {
                Kind::Always => true,
                Kind::UnlessAsked(name) => !asked(name),
                Kind::IfAsked(name) => asked(name),
                Kind::Variable => !asked("skip_variables") && (!asked("skip_secrets") || !is_secret(bytes)),
            })
            .map(|(path, bytes)| match self.plain.get(path).filter(|_| plain) {
                Some(decrypted) => (path.clone(), decrypted.clone()),
                None => (path.clone(), bytes.clone()),
            })
            .collect()
    }
}

fn script_json(summary: &str, lock: &str) -> String {
    format!(
        "{{\n  \"summary\": \"{summary}\",\n  \"description\": \"made for a test\",\n  \"schema\": \
         {{\"$schema\": \"https://json-schema.org/draft/2020-12/schema\", \"type\": \"object\", \"properties\": \
         {{\"x\": {{\"type\": \"string\", \"description\": \"\"}}}}, \"required\": [\"x\"]}},\n  \
         \"lock\": {lock},\n  \"kind\": \"script\"\n}}"
    )
}

enum Kind {
    Always,
    UnlessAsked(&'static str),
    IfAsked(&'static str),
    Variable,
}

fn kind(path: &str) -> Kind {
    match path {
        "settings.json" => return Kind::IfAsked("include_settings"),
        "encryption_key.json" => return Kind::IfAsked("include_key"),
        _ => {}
    }
    let Some(stem) = path.strip_suffix(".json") else {
        return Kind::Always;
    };
    match stem.rsplit_once('.').map(|(_, kind)| kind) {
        Some("variable") => Kind::Variable,
        Some("resource") => Kind::UnlessAsked("skip_resources"),
        Some("resource-type") => Kind::UnlessAsked("skip_resource_types"),
        Some("schedule") => Kind::IfAsked("include_schedules"),
        Some("user") => Kind::IfAsked("include_users"),
        Some("group") => Kind::IfAsked("include_groups"),
        Some(kind) if kind.ends_with("_trigger") => Kind::IfAsked("include_triggers"),
        _ => Kind::Always,
    }
}

fn is_secret(variable: &[u8]) -> bool {
    let text = String::from_utf8_lossy(variable);
    matches!(
        json::from_str::<Value>(&text),
        Ok(Value::Object(fields)) if matches!(fields.get("is_secret"), Some(Value::Bool(true)))
    )
}

/// A tar as Windmill sends it: every entry with mode 0777 and mtime 0.
pub fn tar_of(entries: &[Entry]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, bytes) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o777);
        header.set_mtime(0);
        archive.append_data(&mut header, path, &bytes[..]).unwrap();
    }
    archive.into_inner().unwrap()
}

/// A zip as Windmill sends it.
pub fn zip_of(entries: &[Entry]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().unix_permissions(0o777);
    for (path, bytes) in entries {
        archive.start_file(path, options).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

/// The entries of a tar, in its order.
pub fn entries_of_tar(bytes: &[u8]) -> Vec<Entry> {
    tar::Archive::new(bytes)
        .entries()
        .unwrap()
        .map(|entry| {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_str().unwrap().to_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (path, content)
        })
        .collect()
}

/// The entries of a zip, in its order.
pub fn entries_of_zip(bytes: &[u8]) -> Vec<Entry> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).unwrap();
    (0..archive.len())
        .map(|at| {
            let mut entry = archive.by_index(at).unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (entry.name().unwrap().into_owned(), content)
        })
        .collect()
}

/// A recorded request and its answer.
#[derive(Clone, Debug)]
pub struct Exchange {
    pub name: String,
    pub method: String,
    /// Path and query.
    pub path: String,
    pub request_body: Option<String>,
    /// `wrong`, `none`, or nothing for the right one.
    pub token: Option<String>,
    pub status: u16,
    pub content_type: Option<String>,
    pub body: Option<String>,
    pub body_file: Option<PathBuf>,
}

/// The recorded exchanges of a state.
#[track_caller]
pub fn exchanges(state: &str) -> Vec<Exchange> {
    let folder = fixtures().join(state);
    let text = String::from_utf8(read(&folder.join("exchanges.json"))).unwrap();
    let Value::Array(all) = json::from_str(&text).expect("exchanges.json is JSON") else {
        panic!("exchanges.json is a list");
    };
    all.iter()
        .map(|exchange| {
            let Value::Object(fields) = exchange else {
                panic!("an exchange is an object");
            };
            let string = |name: &str| match fields.get(name) {
                Some(Value::String(text)) => Some(text.clone()),
                _ => None,
            };
            let content_type = match fields.get("headers") {
                Some(Value::Object(headers)) => match headers.get("content-type") {
                    Some(Value::String(text)) => Some(text.clone()),
                    _ => None,
                },
                _ => None,
            };
            let Some(Value::Number(json::Number::U64(status))) = fields.get("status") else {
                panic!("an exchange has a status");
            };
            Exchange {
                name: string("name").unwrap(),
                method: string("method").unwrap(),
                path: string("path").unwrap(),
                request_body: fields.get("request_body").map(json::to_string),
                token: string("token"),
                status: u16::try_from(*status).unwrap(),
                content_type,
                body: string("body"),
                body_file: string("body_file").map(|name| folder.join(name)),
            }
        })
        .collect()
}

#[track_caller]
fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("cannot read `{}`: {error}", path.display()))
}
