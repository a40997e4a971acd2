//! A log that cannot be written: its disk is full, it is closed, or its reader is gone. The work continues.

use std::net::TcpListener;
use std::path::PathBuf;

use support::*;

/// The targets of standard error, in bash syntax.
const SINKS: [(&str, &str); 3] = [
    ("a full disk", "2>/dev/full"),
    ("closed", "2>&-"),
    ("a reader that went away", "2> >(exec head -n 1 >/dev/null)"),
];

/// Returns our binary with this standard error.
fn with_log(sandbox: &Sandbox, number: usize) -> PathBuf {
    let script = format!("exec bash -c 'exec \"$0\" \"$@\" {}' '{}' \"$@\"", SINKS[number].1, run::program().display());
    sandbox.program(&format!("log-{number}"), &script)
}

#[test]
fn a_sync_pushes_if_its_log_cannot_be_written() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let run = sandbox.sync().workspace(windmill::SHOP).remote(&remote).env("LOG_LEVEL", "debug");
    let mut code = "pushed";
    for (number, (sink, _)) in SINKS.iter().enumerate() {
        for format in ["text", "json"] {
            let outcome = run.clone().program(with_log(&sandbox, number)).env("LOG_FORMAT", format).run().expect(code);
            assert_eq!(outcome.commit(), remote.tip("main"), "{sink}");
            code = "unchanged";
        }
    }
}

#[test]
fn a_service_answers_and_ends_cleanly_if_its_log_cannot_be_written() {
    for (number, (sink, _)) in SINKS.iter().enumerate() {
        let sandbox = Sandbox::new();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let service = sandbox.service().program(with_log(&sandbox, number)).env("LISTEN_ADDR", &address.to_string());
        let service = service.env("LOG_LEVEL", "debug").start();
        let answer = eventually("it answers", || http::ask(address, "GET", "/health", &[], b"").ok());
        assert_eq!(answer.status, 200);
        // The service logs a line for each answer and for its end.
        assert_eq!(http::ask(address, "GET", "/status", &[], b"").unwrap().status, 200);
        service.terminate();
        assert_eq!(service.finish().exit_code, Some(0), "{sink}");
    }
}
