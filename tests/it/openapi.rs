//! docs/openapi.yaml describes the service: its paths, methods, statuses, codes and fields are those of the code, and
//! the answers of the service match it, with nothing left out. Schemathesis searches for counterexamples.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use yaml_serde::{Mapping, Value};

use support::windmill::SHOP;
use support::*;

const API_TOKEN: &str = "api-token-of-the-description";

#[track_caller]
fn source(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Returns a source file without its tests.
fn code(path: &str) -> String {
    source(path).split("#[cfg(test)]\nmod tests").next().unwrap().to_owned()
}

/// Parses JSON or YAML: JSON is YAML.
#[track_caller]
fn parsed(text: &str) -> Value {
    yaml_serde::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value:?} is not text"))
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_sequence().map(|list| list.iter().map(text).collect()).unwrap_or_default()
}

fn members(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_mapping().into_iter().flat_map(Mapping::iter).map(|(name, member)| (text(name), member))
}

struct Description(Value);

impl Description {
    fn new() -> Self {
        Self(parsed(&source("docs/openapi.yaml")))
    }

    /// Returns the target of a `$ref`, or the value itself if it has no reference.
    fn follow<'a>(&'a self, value: &'a Value) -> &'a Value {
        let Some(reference) = value.get("$ref") else { return value };
        let path = text(reference).strip_prefix("#/").expect("a reference within the file");
        path.split('/').fold(&self.0, |at, name| at.get(name).unwrap_or_else(|| panic!("nothing at {path}")))
    }

    /// Returns path, method and description of each operation.
    fn operations(&self) -> Vec<(&str, &str, &Value)> {
        let paths = members(&self.0["paths"]);
        paths.flat_map(|(path, item)| members(item).map(move |(method, operation)| (path, method, operation))).collect()
    }

    fn operation(&self, path: &str, method: &str) -> &Value {
        &self.0["paths"][path][method]
    }

    /// Returns the schema of an answer in JSON.
    #[track_caller]
    fn schema(&self, path: &str, method: &str, status: u16) -> &Value {
        let responses = &self.operation(path, method)["responses"];
        let response = responses.get(status.to_string()).unwrap_or_else(|| panic!("{method} {path} has no {status}"));
        &self.follow(response)["content"]["application/json"]["schema"]
    }

    /// Returns why this value does not match the schema. A member that is not described is also a fault.
    fn faults(&self, schema: &Value, value: &Value) -> Vec<String> {
        let mut faults = Vec::new();
        self.check(schema, value, "", &mut faults);
        faults
    }

    fn check(&self, schema: &Value, value: &Value, at: &str, faults: &mut Vec<String>) {
        self.check_rules(schema, value, at, faults);
        let mut known = BTreeSet::new();
        let is_open = self.described(schema, &mut known);
        for (name, _) in members(value).filter(|(name, _)| !is_open && !known.contains(name)) {
            faults.push(format!("{at}.{name} is not described"));
        }
    }

    /// Collects the members that a schema describes. Returns whether it permits others too.
    fn described<'a>(&'a self, schema: &'a Value, known: &mut BTreeSet<&'a str>) -> bool {
        let schema = self.follow(schema);
        known.extend(members(&schema["properties"]).map(|(name, _)| name));
        let parts = ["allOf", "anyOf"].into_iter().filter_map(|name| schema[name].as_sequence()).flatten();
        let are_open: Vec<_> = parts.map(|part| self.described(part, known)).collect();
        are_open.contains(&true) || schema.get("additionalProperties") == Some(&Value::Bool(true))
    }

    fn check_rules(&self, schema: &Value, value: &Value, at: &str, faults: &mut Vec<String>) {
        let schema = self.follow(schema);
        let mut fault = |what: String| faults.push(format!("{at} {what}"));
        if let Some(expected) = schema.get("const").filter(|expected| *expected != value) {
            fault(format!("is {value:?}, not {expected:?}"));
        }
        if schema.get("enum").is_some_and(|listed| !listed.as_sequence().unwrap().contains(value)) {
            fault(format!("is {value:?}, which is not listed"));
        }
        let kinds = schema.get("type").map(|kinds| kinds.as_str().map_or_else(|| texts(kinds), |kind| vec![kind]));
        if kinds.is_some_and(|kinds| !kinds.contains(&kind_of(value))) {
            fault(format!("is {value:?}, another type"));
        }
        for name in texts(&schema["required"]).into_iter().filter(|name| value.get(name).is_none()) {
            fault(format!("lacks {name}"));
        }
        for (name, of_member) in members(&schema["properties"]) {
            if let Some(member) = value.get(name) {
                self.check(of_member, member, &format!("{at}.{name}"), faults);
            }
        }
        for (number, item) in value.as_sequence().into_iter().flatten().enumerate() {
            self.check(&schema["items"], item, &format!("{at}.{number}"), faults);
        }
        for part in schema["allOf"].as_sequence().into_iter().flatten() {
            self.check_rules(part, value, at, faults);
        }
        if let Some(parts) = schema["anyOf"].as_sequence() {
            let fits = |part: &Value| {
                let mut of_part = Vec::new();
                self.check(part, value, at, &mut of_part);
                of_part.is_empty()
            };
            if !parts.iter().any(fits) {
                faults.push(format!("{at} is {value:?}, which fits none of {parts:?}"));
            }
        }
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Sequence(_) => "array",
        _ => "object",
    }
}

/// Returns a service with all that a sync needs, and an API token.
fn configured<'a>(sandbox: &'a Sandbox, remote: &impl Remote) -> Run<'a> {
    sandbox.service().workspace(SHOP).remote(remote).env("SYNC_API_TOKEN", API_TOKEN)
}

fn asked(service: &Service, method: &str, path: &str, body: &str) -> Answer {
    let bearer = format!("Bearer {API_TOKEN}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    service.ask(method, path, &headers, body.as_bytes()).unwrap()
}

/// Sends a request, asserts that the answer matches its description, and returns it.
#[track_caller]
fn as_described(description: &Description, service: &Service, method: &str, path: &str, body: &str) -> Value {
    let answer = asked(service, &method.to_uppercase(), path, body);
    let value = parsed(&answer.text());
    let faults = description.faults(description.schema(path, method, answer.status), &value);
    assert!(faults.is_empty(), "{method} {path} with `{body}`: {} {faults:?} in {}", answer.status, answer.text());
    value
}

#[test]
fn exactly_the_paths_and_methods_of_the_service_are_described() {
    let description = Description::new();
    let described: BTreeSet<_> = members(&description.0["paths"]).map(|(path, _)| path).collect();
    let routes = code("src/api/routes.rs");
    let (_, table) = routes.split_once("const ROUTES").expect("the paths in src/api/routes.rs");
    let rows = table.split("];").next().unwrap().split("path: \"").skip(1);
    assert_eq!(described, rows.filter_map(|row| row.split('"').next()).collect());

    let sandbox = Sandbox::new();
    let service = sandbox.service().serve();
    for (path, item) in members(&description.0["paths"]) {
        let answer = service.ask("OPTIONS", path, &[], b"").unwrap();
        let allowed: BTreeSet<_> = answer.header("allow").unwrap().split(", ").map(str::to_lowercase).collect();
        assert_eq!(allowed, members(item).map(|(method, _)| method.to_owned()).collect(), "{path}");
        assert_eq!(answer.status, 405);
    }
}

#[test]
fn exactly_the_statuses_of_the_code_are_described() {
    let mut of_code = BTreeSet::new();
    let calls = ["refused(", "Response::error(", "Self::error(", "Response::json(", "Response::new("];
    for path in ["src/api/routes.rs", "src/http/request.rs", "src/http/response.rs", "src/http/server/connection.rs"] {
        let code = code(path);
        let statuses = calls.iter().flat_map(|call| code.split(call).skip(1));
        of_code.extend(statuses.filter_map(|rest| rest.get(..3)?.parse::<u16>().ok()));
    }
    of_code.extend(codes_of_the_code().values());
    let description = Description::new();
    let of_answers = description.operations().into_iter().flat_map(|(_, _, operation)| {
        members(&operation["responses"]).map(|(status, _)| status.parse::<u16>().unwrap()).collect::<Vec<_>>()
    });
    let introduction = text(&description.0["info"]["description"]);
    let words = introduction.split(|letter: char| !letter.is_ascii_digit());
    let described: BTreeSet<u16> = of_answers.chain(words.filter_map(|word| word.parse().ok())).collect();
    assert_eq!(described, of_code);
    assert!(of_code.len() > 15, "the statuses are not where this test looks for them: {of_code:?}");
}

/// Returns each result code with its HTTP status, from the only table in the code.
fn codes_of_the_code() -> BTreeMap<String, u16> {
    let table = code("src/model/result_code.rs");
    let rows = table.lines().filter_map(|line| line.split_once(" = \"")?.1.split_once("\", "));
    let codes: BTreeMap<_, _> =
        rows.map(|(name, rest)| (name.to_owned(), rest.split_once(',').unwrap().0.parse().unwrap())).collect();
    assert!(codes.len() >= 20, "the table in src/model/result_code.rs is not where this test looks for it");
    codes
}

/// Codes with which no sync ends: those of `verify` and `restore`, and `overdue`. `/status` shows them.
const OF_OTHER_COMMANDS: [&str; 3] = ["restored", "differs", "overdue"];

#[test]
fn each_code_is_described_at_its_status() {
    let description = Description::new();
    let codes = codes_of_the_code();
    let listed: BTreeSet<_> = texts(&description.0["components"]["schemas"]["Code"]["enum"]).into_iter().collect();
    assert_eq!(listed, codes.keys().map(String::as_str).collect());
    for (status, response) in members(&description.operation("/sync", "post")["responses"]) {
        let schema = &description.follow(response)["content"]["application/json"]["schema"];
        let status: u16 = status.parse().unwrap();
        if status == 202 {
            continue;
        }
        let part = schema["allOf"].as_sequence().unwrap().last().unwrap();
        let code = &part["properties"]["code"];
        let at_status: BTreeSet<_> = match code.get("const") {
            Some(one) => BTreeSet::from([text(one)]),
            None => texts(&code["enum"]).into_iter().collect(),
        };
        let expected: BTreeSet<_> = codes
            .iter()
            .filter(|(name, of)| **of == status && !OF_OTHER_COMMANDS.contains(&name.as_str()))
            .map(|(name, _)| name.as_str())
            .collect();
        // The listener refuses requests with more specific statuses than the code's own.
        let expected = if expected.is_empty() { BTreeSet::from(["request_invalid"]) } else { expected };
        assert_eq!(at_status, expected, "{status}");
    }
}

#[test]
fn exactly_the_fields_of_a_sync_are_described() {
    let description = Description::new();
    let schema = &description.0["components"]["schemas"]["SyncRequest"];
    let of_repository = members(&schema["properties"]["repository"]["properties"]);
    let of_repository = of_repository.map(|(name, _)| format!("repository.{name}"));
    let described = members(&schema["properties"]).map(|(name, _)| name.to_owned());
    let described: BTreeSet<_> = described.chain(of_repository).collect();
    let code = code("src/request/json_body.rs");
    let (_, fields) = code.split_once("fn field(&mut self").expect("the fields in src/request/json_body.rs");
    let fields = fields.split("fn ").next().unwrap().lines();
    let named = fields.filter_map(|line| line.trim().strip_prefix('"')?.split_once('"'));
    let named = named.filter(|(_, rest)| rest.starts_with(" =>") || rest.starts_with(" if "));
    assert_eq!(described, named.map(|(name, _)| name.to_owned()).collect());

    let sandbox = Sandbox::new();
    let service = sandbox.service().serve();
    for (name, of_field) in members(&schema["properties"]) {
        let answer = service.post_sync(&format!("{{\"{name}\": 7}}"));
        let message = text(&parsed(&answer.text())["message"]).to_owned();
        assert_eq!(answer.status, 400);
        assert!(message.contains(&format!("`{name}` must be ")), "{message}");
        assert!(texts(&of_field["type"]).contains(&"null"), "{name}");
    }
    let introduced = service.post_sync("{\"worksapce\": \"shop\"}").text();
    assert!(introduced.contains("worksapce"), "{introduced}");
}

#[test]
fn the_examples_match_their_schemas() {
    let description = Description::new();
    let mut seen = 0;
    let mut check = |what: &str, content: &Value| {
        let schema = &content["schema"];
        let named = members(&content["examples"]).map(|(_, example)| &example["value"]);
        for example in named.chain(content.get("example")) {
            let faults = description.faults(schema, example);
            assert!(faults.is_empty(), "{what}: {faults:?}");
            seen += 1;
        }
    };
    for (path, method, operation) in description.operations() {
        for (status, response) in members(&operation["responses"]) {
            let content = &description.follow(response)["content"];
            members(content).for_each(|(_, content)| check(&format!("{method} {path} {status}"), content));
        }
        check(path, &operation["requestBody"]["content"]["application/json"]);
    }
    assert!(seen > 30, "{seen}");
}

#[test]
fn the_description_has_this_version_and_the_routes_that_need_a_token() {
    let description = Description::new();
    assert_eq!(text(&description.0["info"]["version"]), env!("CARGO_PKG_VERSION"));
    let sandbox = Sandbox::new();
    let service = sandbox.service().env("SYNC_API_TOKEN", API_TOKEN).serve();
    let password = git_http::basic("anybody", API_TOKEN);
    for (path, method, operation) in description.operations() {
        let doors = operation.get("security").unwrap_or(&description.0["security"]);
        let takes = |name: &str| doors.as_sequence().unwrap().iter().any(|door| door.get(name).is_some());
        let status = |headers: &[(&str, &str)]| service.ask(&method.to_uppercase(), path, headers, b"").unwrap().status;
        let is_open = doors.as_sequence().unwrap().is_empty();
        assert_eq!(status(&[]) != 401, is_open, "{method} {path}");
        assert_ne!(status(&[("Authorization", &format!("Bearer {API_TOKEN}"))]), 401, "{method} {path}");
        assert_eq!(status(&[("Authorization", &password)]) != 401, is_open || takes("password"), "{method} {path}");
    }
}

#[test]
fn each_answer_of_the_service_is_described_in_full() {
    let description = Description::new();
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let service = configured(&sandbox, &repository).env("SYNC_SCHEDULE", "0 0 1 1 *").serve();
    let ask = |method: &str, path: &str, body: &str| as_described(&description, &service, method, path, body);
    let get_all = || ["/health", "/ready", "/status"].map(|path| ask("get", path, ""));
    get_all();
    assert_eq!(text(&ask("post", "/sync", "")["code"]), "pushed");
    assert_eq!(text(&ask("post", "/sync", "{\"dry_run\": true}")["code"]), "unchanged");
    assert_eq!(text(&ask("post", "/sync", "{\"wait\": false}")["code"]), "accepted");
    for body in ["{", "[]", "{\"worksapce\": 1}", "{\"workspace\": \"lab\"}"] {
        assert_eq!(text(&ask("post", "/sync", body)["code"]), "request_invalid");
    }
    let elsewhere =
        format!("{{\"workspace\": \"nowhere\", \"windmill_token\": \"{WINDMILL_TOKEN}\", \"git_branch\": \"lab\"}}");
    assert_eq!(text(&ask("post", "/sync", &elsewhere)["code"]), "windmill_unauthorized");
    let branch = format!("{{\"windmill_token\": \"{WINDMILL_TOKEN}\", \"git_branch\": \"lab\"}}");
    assert_eq!(text(&ask("post", "/sync", &branch)["code"]), "pushed");
    let [_, ready, status] = get_all();
    assert_eq!((text(&ready["status"]), status["workspaces"].as_sequence().unwrap().len()), ("ready", 2));
    sandbox.windmill.fail("/api/", Fault::Status(401));
    assert_eq!(text(&ask("post", "/sync", "")["code"]), "windmill_unauthorized");
    let [_, ready, status] = get_all();
    assert_eq!(text(&ready["code"]), "windmill_unauthorized");
    assert!(status["runs"].as_sequence().unwrap().len() >= 4);

    let several = configured(&sandbox, &repository).workspace("shop,lab").branch("of/{workspace}").serve();
    let ask = |body: &str| as_described(&description, &several, "post", "/sync", body);
    assert_eq!(ask("")["results"].as_sequence().unwrap().len(), 2);
    assert_eq!(ask("{\"wait\": false}")["run_ids"].as_sequence().unwrap().len(), 2);
}

#[test]
fn an_incomplete_description_is_noticed() {
    let description = Description::new();
    let schema = &description.0["components"]["schemas"]["Health"];
    let faults = |text: &str| description.faults(schema, &parsed(text));
    assert!(faults("{\"status\": \"ok\", \"version\": \"1\", \"uptime_seconds\": 1}").is_empty());
    for wrong in [
        "{\"status\": \"ok\", \"version\": \"1\"}",
        "{\"status\": \"ok\", \"version\": \"1\", \"uptime_seconds\": \"1\"}",
        "{\"status\": \"well\", \"version\": \"1\", \"uptime_seconds\": 1}",
        "{\"status\": \"ok\", \"version\": \"1\", \"uptime_seconds\": 1, \"more\": 1}",
    ] {
        assert_eq!(faults(wrong).len(), 1, "{wrong}");
    }
}

/// Schemathesis sends requests that a description permits and others that it does not, and checks the answers.
mod schemathesis {
    use std::process::Command;
    use std::time::Duration;

    use super::*;

    /// How long a run may take. It takes half a minute on a quiet machine.
    const PATIENCE: Duration = Duration::from_secs(300);

    fn judge(sandbox: &Sandbox, service: &Service, description: &Path, options: &[&str]) -> Finished {
        keep_git_at_home(sandbox);
        let program =
            process::find_program("schemathesis", &[]).expect("schemathesis is installed (PyPI: schemathesis)");
        let mut command = Command::new(program);
        command.current_dir(sandbox.scratch("schemathesis"));
        let settings = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemathesis.toml");
        command.arg("--config-file").arg(settings).arg("run").arg(description).args(options);
        command.args(["--url", &service.base_url(), "--header", &format!("Authorization: Bearer {API_TOKEN}")]);
        process::start(command).finish_within(PATIENCE)
    }

    #[track_caller]
    fn finds_nothing(sandbox: &Sandbox, service: &Service) {
        let description = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.yaml");
        let said = judge(sandbox, service, &description, &[]).must_succeed().stdout_text();
        let operations = Description::new().operations().len();
        assert!(said.contains(&format!("Tested: {operations}\n")), "{said}");
    }

    /// Installs a git that contacts no remote on a network, because the requests name remotes of all kinds.
    fn keep_git_at_home(sandbox: &Sandbox) {
        let git = process::find_program("git", &[]).expect("git").display().to_string();
        let refuse = "echo 'fatal: not from here' >&2; exit 128";
        sandbox.program("git", &format!("case \"$*\" in *http*) {refuse};; esac\nexec {git} \"$@\""));
    }

    #[test]
    #[ignore = "needs Schemathesis: just test-tools"]
    fn finds_no_fault_in_a_service_that_can_sync() {
        let sandbox = Sandbox::new();
        let repository = sandbox.repository();
        let service = configured(&sandbox, &repository).serve();
        finds_nothing(&sandbox, &service);
        assert!(repository.tip("main").is_some(), "no request was the one that syncs");
    }

    #[test]
    #[ignore = "needs Schemathesis: just test-tools"]
    fn finds_no_fault_in_a_service_without_settings() {
        let sandbox = Sandbox::new();
        let service = sandbox.service().without("WINDMILL_TOKEN").env("SYNC_API_TOKEN", API_TOKEN).serve();
        finds_nothing(&sandbox, &service);
    }

    #[test]
    #[ignore = "needs Schemathesis: just test-tools"]
    fn finds_a_member_that_is_described_wrongly() {
        let sandbox = Sandbox::new();
        let service = sandbox.service().env("SYNC_API_TOKEN", API_TOKEN).serve();
        let text = source("docs/openapi.yaml");
        let wrong = text.replace("status: { const: ok }", "status: { const: well }");
        assert_ne!(wrong, text);
        let path = sandbox.file("openapi.yaml", wrong);
        let said = judge(&sandbox, &service, &path, &["--include-path", "/health"]).must_fail().stdout_text();
        assert!(said.contains("GET /health") && said.contains("1 failed"), "{said}");
    }
}
