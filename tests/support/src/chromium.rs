//! A real Chromium, which `tests/page/driver.mjs` controls through playwright-core.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use miniserde::json::{self, Value};

use super::process::{self, PATIENCE};
use super::project;
use super::run::{Service, texts_field};
use super::wmill::npm_packages;

/// How long a browser may take to close.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// The window and the browser settings with which a page is opened.
#[derive(Clone, Copy, Debug)]
pub struct View {
    pub width: u32,
    pub height: u32,
    /// `light` or `dark`
    pub scheme: &'static str,
    pub scripts: bool,
}

impl View {
    pub const DESKTOP: Self = Self { width: 1280, height: 840, scheme: "light", scripts: true };
    pub const PHONE: Self = Self { width: 390, height: 840, scheme: "dark", scripts: true };
}

/// One browser with one page.
pub struct Chromium {
    driver: Child,
    orders: Option<ChildStdin>,
    answers: Receiver<String>,
}

impl Chromium {
    #[track_caller]
    pub fn start() -> Self {
        let found = ["chromium", "google-chrome"].iter().find_map(|name| process::find_program(name, &[]));
        let chromium = found.expect("these tests need Debian's package chromium");
        let mut command = Command::new("node");
        command.arg(project().join("tests/page/driver.mjs"));
        command.arg(npm_packages("page")).arg(chromium);
        let mut driver = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("node starts");
        let lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let (sender, answers) = mpsc::channel();
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { orders: driver.stdin.take(), driver, answers }
    }

    /// Sends the driver one order. `members` are the members of its JSON object after `do`.
    #[track_caller]
    fn order(&mut self, name: &str, members: &str) -> Value {
        let order = format!("{{\"do\":\"{name}\"{members}}}");
        writeln!(self.orders.as_mut().unwrap(), "{order}").expect("the driver takes orders");
        let answer = self.answers.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no answer to {order}"));
        match json::from_str(&answer) {
            Ok(Value::Object(mut answer)) if answer.contains_key("value") => answer.remove("value").unwrap(),
            _ => panic!("{order}: {answer}"),
        }
    }

    /// Opens the service's page in a new session and returns the HTTP status.
    #[track_caller]
    pub fn open(&mut self, service: &Service, view: View, password: Option<&str>) -> u64 {
        let View { width, height, scheme, scripts } = view;
        let password = password.map_or_else(String::new, |text| format!(",\"password\":{}", json::to_string(text)));
        let members = format!(
            ",\"url\":\"{}/\",\"width\":{width},\"height\":{height},\"scheme\":\"{scheme}\",\"scripts\":{scripts}{password}",
            service.base_url()
        );
        match self.order("open", &members) {
            Value::Number(json::Number::U64(status)) => status,
            other => panic!("{}", json::to_string(&other)),
        }
    }

    /// Returns the visible text of the first element that matches this selector, or `None` if there is no such element.
    #[track_caller]
    pub fn text(&mut self, selector: &str) -> Option<String> {
        match self.order("text", &format!(",\"selector\":{}", json::to_string(selector))) {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// Evaluates an expression in the page and returns its value.
    #[track_caller]
    pub fn value(&mut self, expression: &str) -> Value {
        self.order("evaluate", &format!(",\"script\":{}", json::to_string(expression)))
    }

    /// Evaluates an expression in the page whose value is a list of strings.
    #[track_caller]
    pub fn texts(&mut self, expression: &str) -> Vec<String> {
        let value = self.value(&format!("({{ list: {expression} }})"));
        texts_field(&value, "list")
    }

    /// Returns true if an expression in the page is true.
    #[track_caller]
    pub fn is(&mut self, expression: &str) -> bool {
        matches!(self.value(expression), Value::Bool(true))
    }

    /// Saves a screenshot of the page.
    #[track_caller]
    pub fn screenshot(&mut self, path: &Path) {
        self.order("screenshot", &format!(",\"path\":{}", json::to_string(&path.display().to_string())));
    }

    /// Returns the errors, dialogs, console lines and requests to other hosts since the page was opened.
    #[track_caller]
    pub fn events(&mut self) -> Vec<String> {
        texts_field(&self.order("events", ""), "list")
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // The driver closes the browser and ends when its input ends.
        drop(self.orders.take());
        let begun = std::time::Instant::now();
        while begun.elapsed() < END_PATIENCE && matches!(self.driver.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
