//! Tests of the listener with slow, many, disconnected and early clients, and of its shutdown. The limits are short
//! here.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Condvar, Mutex};
use std::thread::{self, JoinHandle};

use super::limits::CLOSING_MAX;
use super::*;
use crate::util::wait_while;
use std::net::TcpStream;

/// The longest time that a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// A limit that is longer than any test, so that it never takes effect.
const NEVER: Duration = Duration::from_secs(3600);

/// A limit that is short enough to wait for.
const SOON: Duration = Duration::from_millis(500);

/// Handlers of `/sync` wait here until the test lets them go.
#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    is_open: bool,
    /// How many handlers wait at the gate.
    waiting: usize,
    /// The statuses, in the order in which they were sent.
    answered: Vec<u16>,
}

impl Gate {
    fn change(&self, change: impl FnOnce(&mut GateState)) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
    }

    #[track_caller]
    fn await_state(&self, what: &str, holds: impl Fn(&GateState) -> bool) {
        let state = self.state.lock().unwrap();
        let (state, _) = self.changed.wait_timeout_while(state, PATIENCE, |state| !holds(state)).unwrap();
        assert!(holds(&state), "waited in vain for {what}");
    }

    #[track_caller]
    fn await_waiting(&self, count: usize) {
        self.await_state("handlers at the gate", |state| state.waiting == count);
    }

    fn open(&self) {
        self.change(|state| state.is_open = true);
    }

    fn pass(&self, caller: &Caller) -> Response {
        if let Err(code) = caller.begin_wait() {
            return unavailable(code);
        }
        self.change(|state| state.waiting += 1);
        let mut is_gone = false;
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.state.lock().unwrap();
        while !state.is_open && !is_gone {
            assert!(Instant::now() < deadline, "the test never opened the gate");
            state = self.changed.wait_timeout(state, Duration::from_millis(20)).unwrap().0;
            is_gone = caller.is_gone();
        }
        state.waiting -= 1;
        drop(state);
        self.changed.notify_all();
        if is_gone { unavailable(Code::TooManyRequests) } else { Response::json(200, "done".to_owned()) }
    }
}

/// The size of an answer that does not fit into the buffer of a socket.
const LARGE_BYTES: usize = 32 * 1024 * 1024;

impl Handler for Gate {
    fn before_body(&self, head: &Head) -> Option<Response> {
        if head.path == "/held" {
            self.change(|state| state.waiting += 1);
            self.await_state("an open gate", |state| state.is_open);
        }
        (head.path == "/absent").then(Response::not_found)
    }

    fn handle(&self, head: &Head, body: Vec<u8>, caller: &Caller) -> Response {
        match head.path.as_str() {
            "/panic" => panic!("an error of the handler"),
            "/large" => return Response::json(200, "x".repeat(LARGE_BYTES)),
            "/sync" => return self.pass(caller),
            _ => {}
        }
        Response::json(200, format!("{} bytes", body.len()))
    }

    fn answered(&self, _head: Option<&Head>, status: u16) {
        self.change(|state| state.answered.push(status));
    }
}

/// A running listener.
struct Fixture {
    gate: Arc<Gate>,
    address: SocketAddr,
    stop: Stop,
    serving: Option<JoinHandle<Draining>>,
}

/// Returns limits that no test reaches.
fn patient() -> Limits {
    Limits { timeout: NEVER, reserved: 0, ..Limits::default() }
}

fn start(limits: Limits) -> Fixture {
    let server = Server { limits, ..Server::bind("127.0.0.1:0").unwrap() };
    let (address, stop, gate) = (server.local_addr().unwrap(), server.stop_handle(), Arc::<Gate>::default());
    let handler = Arc::clone(&gate);
    let serving = Some(thread::spawn(move || server.run(handler)));
    Fixture { gate, address, stop, serving }
}

impl Fixture {
    /// Returns a connection on which these bytes were sent.
    fn send(&self, bytes: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(bytes.as_bytes()).unwrap();
        stream
    }

    fn get(&self, path: &str) -> String {
        answer_of(self.send(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")))
    }

    fn post_sync(&self) -> TcpStream {
        self.send("POST /sync HTTP/1.1\r\nHost: a\r\n\r\n")
    }

    fn end_accepting(&mut self) -> Draining {
        self.stop.stop();
        self.serving.take().unwrap().join().unwrap()
    }

    /// Ends the listener and checks that every connection is gone.
    #[track_caller]
    fn end(mut self) {
        self.gate.open();
        assert_eq!(self.end_accepting().wait(PATIENCE), 0, "connections left");
    }
}

/// Returns everything that the server sends. The server must close the connection.
#[track_caller]
fn answer_of(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => String::from_utf8(answer).unwrap(),
        Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&answer)),
    }
}

#[track_caller]
fn assert_status(answer: &str, status: u16) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "expected {status}, got: {answer}");
}

/// Sends a byte again and again until the other side closes, and returns what it sent.
#[track_caller]
fn drip(mut stream: TcpStream, byte: u8) -> String {
    stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let (started, mut answer, mut chunk) = (Instant::now(), Vec::new(), [0; 4096]);
    while started.elapsed() < PATIENCE {
        let _ = stream.write(&[byte]);
        match stream.read(&mut chunk) {
            Ok(0) => return String::from_utf8(answer).unwrap(),
            Ok(bytes) => answer.extend_from_slice(&chunk[..bytes]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return String::from_utf8(answer).unwrap(),
        }
    }
    panic!("a dripping client was never cut off");
}

#[test]
fn the_error_names_an_address_that_cannot_be_used() {
    let taken = Server::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let Err(error) = Server::bind(&address) else { panic!("listened twice on {address}") };
    assert!(error.to_string().contains(&address), "{error}");
}

#[test]
fn a_slow_head_ends_at_the_deadline_for_the_whole_head() {
    let fixture = start(Limits { timeout: SOON, ..patient() });
    assert_status(&drip(fixture.send("GET /health HTTP/1.1\r\nHost: a\r\nX: "), b'x'), 408);
    fixture.end();
}

#[test]
fn a_slow_body_ends_at_the_deadline_for_the_whole_body() {
    let fixture = start(Limits { timeout: SOON, ..patient() });
    let head = "POST /sync HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n";
    assert_status(&drip(fixture.send(head), b' '), 408);
    fixture.end();
}

#[test]
fn a_body_that_never_begins_ends_at_its_deadline() {
    let fixture = start(Limits { timeout: SOON, ..patient() });
    let mut stream = fixture.send("POST /sync HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n");
    let mut answer = [0; 13];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408 ");
    drop(stream);
    fixture.end();
}

#[test]
fn a_client_that_sends_nothing_is_closed_without_an_answer() {
    let fixture = start(Limits { timeout: SOON, ..patient() });
    assert_eq!(answer_of(fixture.send("")), "");
    let gate = Arc::clone(&fixture.gate);
    fixture.end();
    assert!(gate.state.lock().unwrap().answered.is_empty());
}

#[test]
fn a_client_that_does_not_read_its_answer_is_closed() {
    let mut fixture = start(Limits { timeout: SOON, ..patient() });
    let unread = fixture.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    fixture.gate.await_state("the answer", |state| state.answered == [200]);
    assert_eq!(fixture.end_accepting().wait(PATIENCE), 0);
    drop(unread);
}

#[test]
fn a_client_that_never_closes_is_closed() {
    let mut fixture = start(Limits { timeout: SOON, ..patient() });
    let mut open = fixture.send("POST /absent HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n");
    let mut answer = String::new();
    open.read_to_string(&mut answer).unwrap();
    assert_status(&answer, 404);
    assert_eq!(fixture.end_accepting().wait(PATIENCE), 0, "connections left while the client still holds its side");
    drop(open);
}

#[test]
fn the_server_does_not_wait_for_a_client_that_has_sent_everything() {
    let mut fixture = start(patient());
    let mut open = fixture.send("GET /health HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut answer = String::new();
    open.read_to_string(&mut answer).unwrap();
    assert_status(&answer, 200);
    assert_eq!(fixture.end_accepting().wait(PATIENCE), 0);
    drop(open);
}

#[test]
fn an_answer_reaches_a_client_that_sends_more_after_its_request() {
    let fixture = start(patient());
    for _ in 0..50 {
        let mut stream = fixture.send("GET /health HTTP/1.1\r\nHost: a\r\n\r\nGET /health HTTP/1.1\r\n");
        // The connection may be closed already, which this test does not check.
        let _ = stream.write_all(&[b'x'; 10_000]);
        let _ = stream.shutdown(Shutdown::Write);
        assert_status(&answer_of(stream), 200);
    }
    fixture.end();
}

#[test]
fn an_early_refusal_reaches_a_client_that_is_still_sending() {
    let fixture = start(patient());
    let mut stream = fixture.send("POST /absent HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n");
    for _ in 0..60 {
        stream.write_all(&[b' '; 1000]).unwrap();
    }
    stream.shutdown(Shutdown::Write).unwrap();
    assert_status(&answer_of(stream), 404);
    fixture.end();
}

#[test]
fn a_body_is_requested_only_after_the_head_is_accepted() {
    let fixture = start(patient());
    let expecting = |path: &str| {
        fixture.send(&format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"))
    };
    let refused = expecting("/absent");
    refused.shutdown(Shutdown::Write).unwrap();
    assert_status(&answer_of(refused), 404);

    let mut passed = expecting("/echo");
    let mut interim = [0; 25];
    passed.read_exact(&mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    passed.write_all(b"{}").unwrap();
    passed.shutdown(Shutdown::Write).unwrap();
    let answer = answer_of(passed);
    assert_status(&answer, 200);
    assert!(answer.ends_with("\r\n\r\n2 bytes"), "{answer}");
    fixture.end();
}

#[test]
fn waiting_syncs_leave_room_for_health() {
    let fixture = start(Limits { connections_max: 4, callers_max: 3, ..patient() });
    let waiting: Vec<TcpStream> = (0..3).map(|_| fixture.post_sync()).collect();
    fixture.gate.await_waiting(3);
    let one_more = answer_of(fixture.post_sync());
    assert_status(&one_more, 503);
    assert!(one_more.contains("\r\nRetry-After: 5\r\n") && one_more.contains(r#""code":"too_many_requests""#));
    for _ in 0..10 {
        assert_status(&fixture.get("/health"), 200);
    }
    fixture.gate.open();
    for stream in waiting {
        assert_status(&answer_of(stream), 200);
    }
    fixture.end();
}

#[test]
fn slow_clients_on_every_connection_leave_room_for_health() {
    let fixture = start(Limits { connections_max: 8, callers_max: 4, ..patient() });
    let waiting: Vec<TcpStream> = (0..4).map(|_| fixture.post_sync()).collect();
    fixture.gate.await_waiting(4);
    let mut slow = Vec::new();
    for _ in 0..8 {
        slow.push(fixture.send("GET /health HTTP/1.1\r\n"));
        slow.push(fixture.send("POST /sync HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{"));
        assert_status(&fixture.get("/health"), 200);
        fixture.gate.await_waiting(4);
    }
    // The connection that was slow for the longest time got a 503.
    let oldest = answer_of(slow.remove(0));
    assert_status(&oldest, 503);
    assert!(oldest.contains("\r\nRetry-After: 5\r\n"));
    drop(slow);
    fixture.gate.open();
    for stream in waiting {
        assert_status(&answer_of(stream), 200);
    }
    fixture.end();
}

/// Returns a connection from another address of this machine, as if from another container.
fn connect_from(address: [u8; 4], to: SocketAddr) -> TcpStream {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddr::from((address, 0))).unwrap();
    connect(&socket, &to).unwrap();
    socket.into()
}

#[test]
fn many_connections_of_one_address_close_none_of_another() {
    let fixture = start(Limits { connections_max: 8, connections_per_peer_max: 7, ..patient() });
    let mut unhurried = fixture.send("GET /health HTTP/1.1\r\n");
    let mut connections: Vec<TcpStream> = (0..40).map(|_| connect_from([127, 0, 0, 2], fixture.address)).collect();
    fixture.gate.await_state("most of the connections are rejected", |state| state.answered.len() >= 33);
    unhurried.write_all(b"Host: a\r\n\r\n").unwrap();
    assert_status(&answer_of(unhurried), 200);
    connections.iter().for_each(|stream| stream.shutdown(Shutdown::Write).unwrap());
    let sent_away =
        connections.drain(..).filter(|stream| answer_of(stream.try_clone().unwrap()).starts_with("HTTP/1.1 503 "));
    assert_eq!(sent_away.count(), 33, "all but those for whom there are connections");
    fixture.end();
}

#[test]
fn reserved_slots_are_for_addresses_without_a_connection() {
    let fixture = start(Limits { connections_max: 4, callers_max: 2, reserved: 1, ..patient() });
    let waiting = [fixture.post_sync(), fixture.post_sync()];
    fixture.gate.await_waiting(2);
    assert_status(&answer_of(fixture.post_sync()), 503);
    let mut other = connect_from([127, 0, 0, 2], fixture.address);
    other.write_all(b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").unwrap();
    fixture.gate.await_waiting(3);
    // Of four connections, the fourth is reserved, and the slow one makes room for another one of its address.
    let slow = fixture.send("GET");
    assert_status(&fixture.get("/health"), 503);
    let mut third = connect_from([127, 0, 0, 3], fixture.address);
    third.write_all(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_status(&answer_of(third), 200);
    fixture.gate.open();
    for stream in waiting.into_iter().chain([other]) {
        assert_status(&answer_of(stream), 200);
    }
    assert_status(&answer_of(slow), 503);
    fixture.end();
}

#[test]
fn a_connection_is_rejected_if_no_other_can_close() {
    let fixture = start(Limits { connections_max: 2, callers_max: 2, ..patient() });
    let waiting = [fixture.post_sync(), fixture.post_sync()];
    fixture.gate.await_waiting(2);
    let rejected = fixture.get("/health");
    assert_status(&rejected, 503);
    assert!(rejected.contains("\r\nRetry-After: 5\r\n"));
    fixture.gate.open();
    for stream in waiting {
        assert_status(&answer_of(stream), 200);
    }
    fixture.end();
}

#[test]
fn bodies_being_read_stay_within_their_total_limit() {
    let fixture = start(Limits { bytes_max: 100_000, ..patient() });
    let head = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\nExpect: 100-continue\r\n\r\n";
    let mut interim = [0; 25];
    let mut oldest = fixture.send(head);
    oldest.read_exact(&mut interim).unwrap();
    let mut newest = fixture.send(head);
    newest.read_exact(&mut interim).unwrap();
    assert_status(&answer_of(oldest), 503);
    newest.write_all(&[b' '; 60000]).unwrap();
    newest.shutdown(Shutdown::Write).unwrap();
    assert_status(&answer_of(newest), 200);
    fixture.end();
}

#[test]
fn answers_being_sent_stay_within_their_total_limit() {
    let fixture = start(Limits { bytes_max: 2 * LARGE_BYTES, ..patient() });
    let ask = |path: &str| fixture.send(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    // The next client sends its request after the answer to this one has begun.
    let begin = |_| {
        let mut client = ask("/large");
        client.read_exact(&mut [0; 12]).unwrap();
        client
    };
    let mut clients: Vec<_> = (0..2).map(begin).collect();
    // An answer without a body closes no connection.
    let head = answer_of(fixture.send("HEAD /large HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert!(head.contains(&format!("Content-Length: {LARGE_BYTES}\r\n")) && head.ends_with("\r\n\r\n"), "{head}");
    clients.push(begin(2));
    let lengths: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            let mut rest = Vec::new();
            let _ = client.read_to_end(&mut rest);
            rest.len()
        })
        .collect();
    assert!(lengths[0] < LARGE_BYTES, "the longest sender is closed: {lengths:?}");
    assert!(lengths[1] > LARGE_BYTES && lengths[2] > LARGE_BYTES, "{lengths:?}");
    fixture.end();
}

#[test]
fn callers_that_disconnect_while_they_wait_free_their_places() {
    let fixture = start(Limits { connections_max: 40, callers_max: 2, ..patient() });
    // More callers than may wait connect, one after the other, and each disconnects at once.
    for number in 1..=20 {
        drop(fixture.post_sync());
        fixture.gate.await_state("one more handler at the gate", |state| state.waiting == number.min(2));
        assert_status(&fixture.get("/health"), 200);
    }
    let (staying, other) = (fixture.post_sync(), fixture.post_sync());
    fixture.gate.await_state("20 rejected callers", |state| {
        state.answered.iter().filter(|status| **status == 503).count() == 20
    });
    fixture.gate.await_waiting(2);
    assert_status(&answer_of(fixture.post_sync()), 503);
    fixture.gate.open();
    assert_status(&answer_of(staying), 200);
    assert_status(&answer_of(other), 200);
    fixture.end();
}

#[test]
fn a_half_closed_caller_gets_its_answer_unless_another_needs_its_place() {
    let fixture = start(Limits { connections_max: 4, callers_max: 2, ..patient() });
    let half_closed = |fixture: &Fixture| {
        let stream = fixture.post_sync();
        stream.shutdown(Shutdown::Write).unwrap();
        stream
    };
    let early = [half_closed(&fixture), half_closed(&fixture)];
    fixture.gate.await_waiting(2);
    let newest = fixture.post_sync();
    fixture
        .gate
        .await_state("one half-closed caller is rejected", |state| state.answered == [503] && state.waiting == 2);
    fixture.gate.open();
    let mut answers = early.map(answer_of);
    answers.sort_unstable();
    assert_status(&answers[0], 200);
    assert_status(&answers[1], 503);
    assert!(answers[1].contains("\r\nRetry-After: "), "{}", answers[1]);
    assert_status(&answer_of(newest), 200);
    fixture.end();
}

#[test]
fn many_connections_leave_no_threads_behind() {
    let fixture = start(Limits { connections_max: 40, callers_max: 30, ..patient() });
    let waiting: Vec<TcpStream> = (0..30).map(|_| fixture.post_sync()).collect();
    fixture.gate.await_waiting(30);
    let own_threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let crowded = own_threads();
    fixture.gate.open();
    for stream in waiting {
        assert_status(&answer_of(stream), 200);
    }
    // Other tests of this process have threads too, but their number does not fall by 30 by chance.
    wait_while(PATIENCE, || own_threads() > crowded.saturating_sub(15));
    let threads = own_threads();
    assert!(threads <= crowded.saturating_sub(15), "{threads} threads, {crowded} with all connections");
    fixture.end();
}

#[test]
fn a_rejected_head_request_gets_no_body() {
    let fixture = start(Limits { connections_max: 1, callers_max: 1, ..patient() });
    let waiting = fixture.post_sync();
    fixture.gate.await_waiting(1);
    // The bytes may come after the refusal. Then the method is unknown, and the answer has a body.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = answer_of(fixture.send("HEAD /health HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_status(&answer, 503);
        if answer.ends_with("\r\n\r\n") {
            break;
        }
        assert!(Instant::now() < deadline, "{answer}");
    }
    fixture.gate.open();
    assert_status(&answer_of(waiting), 200);
    fixture.end();
}

#[test]
fn threads_of_closed_connections_are_limited() {
    let fixture = start(Limits { connections_max: 2, ..patient() });
    let held: Vec<_> =
        (0..2 + CLOSING_MAX + 2).map(|_| fixture.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    fixture.gate.await_state("two refusals", |state| state.answered.len() == 2);
    fixture.gate.await_waiting(2 + CLOSING_MAX);
    fixture.gate.open();
    held.into_iter().for_each(|stream| drop(answer_of(stream)));
    assert_status(&fixture.get("/"), 200);
    fixture.end();
}

#[test]
fn a_stop_ends_accepting_at_once_and_requests_in_progress_continue() {
    let mut fixture = start(patient());
    let running = fixture.post_sync();
    fixture.gate.await_waiting(1);
    let unfinished = fixture.send("POST /sync HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{");
    let (done, is_done): (Sender<()>, Receiver<()>) = channel();
    let (serving, stop) = (fixture.serving.take().unwrap(), fixture.stop.clone());
    let draining = thread::spawn(move || {
        let draining = serving.join().unwrap();
        done.send(()).unwrap();
        draining
    });
    stop.stop();
    is_done.recv_timeout(PATIENCE).expect("the accepting sleeps on");
    let draining = draining.join().unwrap();
    assert!(TcpStream::connect(fixture.address).is_err(), "somebody still listens");
    let too_late = answer_of(unfinished);
    assert_status(&too_late, 503);
    assert!(too_late.contains(r#""code":"shutting_down""#), "{too_late}");
    // A client that connected too late may still be closing.
    let deadline = Instant::now() + PATIENCE;
    while draining.wait(Duration::from_millis(1)) > 1 {
        assert!(Instant::now() < deadline, "the other one does not leave");
    }
    assert_eq!(draining.wait(Duration::from_millis(1)), 1, "the running request is waited for");
    fixture.gate.open();
    assert_status(&answer_of(running), 200);
    assert_eq!(draining.wait(PATIENCE), 0);
}

#[test]
fn a_stop_before_the_start_and_a_second_stop_take_effect() {
    let server = Server::bind("127.0.0.1:0").unwrap();
    let (address, stop) = (server.local_addr().unwrap(), server.stop_handle());
    stop.stop();
    stop.stop();
    // The kernel accepts this connection before the server does, and the client gets a 503.
    let mut early = TcpStream::connect(address).unwrap();
    early.set_read_timeout(Some(PATIENCE)).unwrap();
    early.write_all(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(server.run(Arc::<Gate>::default()).wait(PATIENCE), 0);
    assert_status(&answer_of(early), 503);
}

#[test]
fn a_panic_ends_only_its_own_connection() {
    let fixture = start(Limits { connections_max: 2, callers_max: 1, ..patient() });
    for _ in 0..5 {
        let answer = fixture.get("/panic");
        assert_status(&answer, 500);
        assert!(answer.contains(r#""code":"internal""#) && !answer.contains("an error of the handler"), "{answer}");
        assert_status(&fixture.get("/health"), 200);
    }
    fixture.end();
}
