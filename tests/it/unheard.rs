//! Nobody reads the log, or its disk is full: the work goes on, and the end comes when it is asked for.

use std::net::TcpListener;
use std::path::PathBuf;

use crate::bed::*;

/// Our binary with a standard error that takes nothing.
fn unheard(sandbox: &Sandbox) -> PathBuf {
    let script = format!("exec '{}' \"$@\" 2>/dev/full", run::program().display());
    sandbox.program("unheard", &script)
}

#[test]
fn a_sync_whose_log_cannot_be_written_pushes_all_the_same() {
    let sandbox = Sandbox::new();
    let remote = sandbox.repository();
    let run = sandbox.sync().workspace(windmill::SHOP).remote(&remote).program(unheard(&sandbox));
    for format in ["text", "json"] {
        let code = if format == "text" { "pushed" } else { "unchanged" };
        let outcome = run.clone().env("LOG_FORMAT", format).run().expect(code);
        assert_eq!(outcome.commit(), remote.tip("main"));
    }
}

#[test]
fn a_service_whose_log_cannot_be_written_answers_and_ends_when_asked() {
    let sandbox = Sandbox::new();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let service = sandbox.service().program(unheard(&sandbox)).env("LISTEN_ADDR", &address.to_string()).start();
    let answer = eventually("it answers", || http::ask(address, "GET", "/health", &[], b"").ok());
    assert_eq!(answer.status, 200);
    service.terminate();
    assert_eq!(service.finish().exit_code, Some(0));
}
