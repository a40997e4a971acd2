//! The real listener with slow, many or gone clients, and at its end.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use rustix::process::Signal;

use support::http::ask;
use support::process::{self, PATIENCE};
use support::run::text_field;
use support::windmill::SHOP;
use support::*;

/// As in `server::Limits`: the connections of one address, and the callers that may wait for a sync.
const CONNECTIONS: usize = 128;
const CALLERS: usize = 64;

const POST_SYNC: &[u8] = b"POST /sync HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";

fn send(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes).unwrap();
    stream
}

const GET_HEALTH: &[u8] = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Sends the bytes from another address of this machine, as from another container.
fn send_from(from: [u8; 4], address: SocketAddr, bytes: &[u8]) -> TcpStream {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddr::from((from, 0))).unwrap();
    connect(&socket, &address).unwrap();
    let mut stream: TcpStream = socket.into();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes).unwrap();
    stream
}

/// Reads the whole answer and returns its status.
#[track_caller]
fn status_of(mut stream: TcpStream) -> u16 {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
    status.and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no answer: {answer:?}"))
}

#[test]
fn health_answers_at_once_while_slow_clients_hold_every_connection() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let service = sandbox
        .service()
        .workspace(SHOP)
        .remote(&repository)
        .env("SKIP_UNCHANGED", "false")
        .env("LOG_LEVEL", "debug")
        .serve();
    let address = service.address();
    let held = sandbox.windmill.hold_exports();
    let mut waiting = vec![send(address, POST_SYNC)];
    held.wait_for(1);
    waiting.extend((1..CALLERS).map(|_| send(address, POST_SYNC)));
    eventually("all wait for one run", || {
        (service.log().matches("shares the run that waits").count() == CALLERS - 2).then_some(())
    });
    assert_eq!(status_of(send(address, POST_SYNC)), 503, "as many wait as may");
    // There are more clients than the limit: heads and bodies that never end, and some that send nothing.
    let beginnings: [&[u8]; 3] = [
        b"GET /health HTTP/1.1\r\nX: ",
        b"POST /sync HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n{",
        b"",
    ];
    let slow: Vec<TcpStream> = (0..CONNECTIONS).map(|number| send(address, beginnings[number % 3])).collect();
    // If these requests had to wait for a free connection, the five seconds for a head would pass.
    for _ in 0..12 {
        assert_eq!(ask(address, "GET", "/health", &[], b"").unwrap().status, 200);
    }
    for path in ["/health", "/health?probe=1"] {
        assert_eq!(ask(address, "HEAD", path, &[], b"").unwrap().status, 200);
    }
    drop(slow);
    held.release();
    for stream in waiting {
        assert_eq!(status_of(stream), 200);
    }
    assert_eq!(sandbox.windmill.exports(), 2, "the one that went on, and one for all who waited");
}

#[test]
#[ignore = "long: just test-long"]
fn callers_that_disconnect_do_not_block_the_syncs_of_others() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let service = sandbox.service().workspace(SHOP).remote(&repository).env("SKIP_UNCHANGED", "false").serve();
    let address = service.address();
    let held = sandbox.windmill.hold_exports();
    drop(send(address, POST_SYNC));
    held.wait_for(1);
    // Each caller goes away right after its request. Together they are more than the permitted connections.
    for _ in 0..2 * CONNECTIONS {
        drop(send(address, POST_SYNC));
        assert_eq!(status_of(send_from([127, 0, 0, 2], address, GET_HEALTH)), 200);
    }
    let caller = std::thread::spawn(move || {
        eventually("a caller is accepted", || {
            let answer = ask(address, "POST", "/sync", &[], b"").unwrap();
            (answer.status == 200).then_some(())
        });
    });
    let unwaited = eventually("there is room for one more", || {
        let answer = service.post_sync("{\"wait\":false}");
        (answer.status == 202).then_some(answer)
    });
    assert!(text_field(&unwaited.json(), "run_id").is_some());
    held.release();
    caller.join().unwrap();
    assert!(sandbox.windmill.exports() >= 2);
}

/// Returns a record of the history with warnings and left out items of some 17 kilobytes.
fn long_record(id: usize) -> String {
    let left_out = vec![format!("{{\"item\":\"f/ops/item\",\"reason\":\"{}\"}}", "r".repeat(60)); 88].join(",");
    format!(
        "{{\"run_id\":\"r{id}\",\"workspace\":\"shop\",\"configured\":true,\"dry_run\":false,\"verify\":false,\
         \"success\":false,\"code\":\"incomplete\",\"message\":\"88 of 500 items\",\"branch\":\"main\",\"commit\":null,\
         \"changed\":{{\"added\":0,\"modified\":0,\"deleted\":0}},\"warnings\":[\"{}\"],\"left_out\":[{left_out}],\
         \"items\":500,\"started\":\"2026-11-30T06:00:00Z\",\"ended\":\"2026-11-30T06:00:01Z\",\"duration_ms\":1000}}",
        "w".repeat(8_000)
    )
}

#[test]
#[ignore = "long: just test-long"]
fn many_clients_that_do_not_read_a_long_status_use_little_memory() {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket, sockopt};
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let folder = sandbox.data().join("windmill-git-sync");
    std::fs::create_dir_all(&folder).unwrap();
    let runs: Vec<_> = (0..50).map(long_record).collect();
    let history = format!("{{\"runs\":[{}],\"standings\":[],\"overdue\":[]}}", runs.join(","));
    std::fs::write(folder.join("history.json"), history).unwrap();
    let service = sandbox.service().workspace(SHOP).remote(&repository).serve();
    let status = service.get("/status");
    assert!(status.body.len() > 800_000, "{} bytes", status.body.len());
    let peak_kilobytes = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", service.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let before = peak_kilobytes();
    let slow: Vec<TcpStream> = (0..360)
        .map(|number| {
            let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
            // The kernel must not take the whole answer.
            sockopt::set_socket_recv_buffer_size(&socket, 2_304).unwrap();
            bind(&socket, &SocketAddr::from(([127, 0, 0, 2 + u8::try_from(number / 120).unwrap()], 0))).unwrap();
            connect(&socket, &service.address()).unwrap();
            let mut stream: TcpStream = socket.into();
            stream.write_all(b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream
        })
        .collect();
    let mut first = [0; 12];
    let begun = slow.iter().filter(|stream| (&mut &**stream).read_exact(&mut first).is_ok()).count();
    assert!(begun > 300, "{begun} answers begin");
    let taken = peak_kilobytes() - before;
    assert!(taken < 40_000, "{taken} kB for clients that do not read");
    assert_eq!(ask(service.address(), "GET", "/health", &[], b"").unwrap().status, 200);
}

#[test]
fn text_that_a_neighbour_sends_is_escaped_in_the_log() {
    let sandbox = Sandbox::new();
    let service = sandbox.service().env("LOG_LEVEL", "trace").serve();
    let address = service.address();
    let unsafe_requests: [&[u8]; 5] = [
        b"GET /\x1b[31mred HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x1b[2J\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: \x1b[31m\r\n\r\n",
        b"POST /sync HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n{\"\\u001b[31m\":1}",
        b"GET /not-for-the-log?not-for-the-log=\x1b HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ];
    for bytes in unsafe_requests {
        assert_eq!(status_of(send(address, bytes)), 400);
    }
    assert_eq!(status_of(send(address, b"GET /%1b%0d%0a?secret=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")), 404);
    service.wait_for_log("/%1b%0d%0a 404");
    let log = service.log();
    assert!(!log.contains('\u{1b}') && !log.contains("not-for-the-log") && !log.contains("secret"), "{log}");
}

#[test]
fn sigint_ends_the_service_like_sigterm() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let mut service = sandbox.service().workspace(SHOP).remote(&repository).serve();
    let held = sandbox.windmill.hold_exports();
    let running = send(service.address(), POST_SYNC);
    held.wait_for(1);
    process::signal(service.pid(), Signal::INT);
    eventually("new connections are refused", || TcpStream::connect(service.address()).is_err().then_some(()));
    held.release();
    assert_eq!(status_of(running), 200);
    assert_eq!(service.wait().code(), Some(0));
}

#[test]
#[ignore = "long: just test-long"]
fn five_hundred_syncs_leave_no_zombie_no_thread_and_no_descriptor() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let service = sandbox.service().workspace(SHOP).remote(&repository).serve();
    let count = |of: &str| std::fs::read_dir(format!("/proc/{}/{of}", service.pid())).unwrap().count();
    let fail = |times: usize| (0..times).for_each(|_| assert_eq!(service.post_sync("").status, 502));
    // The first 20 runs start all programs of a sync. The others fail early, because that takes no time.
    sandbox.program("wmill", "[ \"$1\" = --version ] && { echo 'CLI version: 0.0.1'; exit; }\nsleep 0 & exit 3");
    fail(20);
    let descriptors = count("fd");
    sandbox.program("git", "sleep 0 & exit 128");
    fail(480);
    assert_eq!(processes_below(service.pid()).len(), 1, "children that were not reaped");
    eventually("as many descriptors as before", || (count("fd") <= descriptors).then_some(()));
    // The threads are the listener's own, those for signals, and one that has served a request and ends soon.
    eventually("as many threads as at the beginning", || (count("task") <= 3).then_some(()));
}
