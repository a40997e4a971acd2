//! The listener under load: answers per second, compared with a Flask server that does the same, and the effect of slow
//! neighbours. One client thread uses at most one core; it keeps some requests in flight, so that it measures the
//! server and not the round trip.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::measure::memory_kib;
use super::table::{Limit, Table, shown_kib};
use support::process::{self, PATIENCE, eventually};
use support::sandbox::target_dir;
use support::windmill::SHOP;
use support::{Sandbox, Service};

/// The limit relative to Flask, because requests per second depend on the machine. A thread for each connection answers
/// fewer requests than a pool would.
const TIMES_FLASK_MIN: f64 = 5.0;
/// The memory limit with 384 connections at once, each with its own thread.
const MEMORY_KIB_MAX: u64 = 8_000_000 / 1024;
const HEALTH_TIME_MAX: Duration = Duration::from_millis(50);

/// How many rounds are measured. The best one counts, because the machine may be busy.
const ROUNDS: usize = 7;
const ROUND_TIME: Duration = Duration::from_secs(1);
const IN_FLIGHT: usize = 16;

/// The connections of one address, as in `server::Limits`.
const CONNECTIONS: usize = 128;
/// The callers that wait for a sync, as in `server::Limits`.
const CALLERS: usize = 64;
/// How many bodies of 64 KiB may be on their way at the same time.
const BODIES: usize = 4;
/// How long `/health` is measured with slow clients. They stay connected, because this is shorter than the listener
/// waits for a head.
const SLOW_TIME: Duration = Duration::from_millis(500);
const FLOOD_TIME: Duration = Duration::from_secs(2);
const QUESTIONS_MIN: usize = 100;

const FLASK_VERSION: &str = "3.1.3";
const FLASK_PROGRAM: &str = r#"
import sys, time
from flask import Flask, jsonify
started = time.time()
app = Flask(__name__)
@app.get("/health")
def health():
    return jsonify(status="ok", version="0.1.0", uptime_seconds=int(time.time() - started))
app.run(host="127.0.0.1", port=int(sys.argv[1]), threaded=True)
"#;

pub(super) fn measure(binary: &Path, table: &mut Table) {
    table.head("the listener");
    measure_slow_neighbours(binary, table);
    let sandbox = Sandbox::on_disk();
    let service = sandbox.service().program(binary.to_path_buf()).serve();
    let ours = best_rate(service.address());
    let shown = |rate: u32| format!("{rate} a second");
    let what = format!("`/health`, by one client thread (best of {ROUNDS} seconds)");
    table.measured(&what, &shown(ours));
    match Flask::start() {
        Ok(flask) => {
            let theirs = best_rate(flask.address);
            table.measured(&format!("the same by Flask {FLASK_VERSION}"), &shown(theirs));
            table.ratio("times Flask", f64::from(ours) / f64::from(theirs), &Limit::AtLeast(TIMES_FLASK_MIN));
        }
        Err(why) => table.measured("the same by Flask", &format!("not measured: {why}")),
    }
}

fn best_rate(address: SocketAddr) -> u32 {
    (0..ROUNDS).map(|_| rate(address)).max().unwrap_or(0)
}

/// Returns the answers per second, each on its own connection.
fn rate(address: SocketAddr) -> u32 {
    let begun = Instant::now();
    let (mut in_flight, mut answered) = (VecDeque::with_capacity(IN_FLIGHT), 0_u32);
    let mut answer = Vec::with_capacity(1024);
    while begun.elapsed() < ROUND_TIME {
        in_flight.push_back(send(address, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        if in_flight.len() == IN_FLIGHT
            && let Some(mut oldest) = in_flight.pop_front()
        {
            answer.clear();
            oldest.read_to_end(&mut answer).unwrap();
            assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
            answered += 1;
        }
    }
    (f64::from(answered) / begun.elapsed().as_secs_f64()) as u32
}

fn send(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(bytes).unwrap();
    stream
}

/// Measures `/health` while all connections of an address are taken by clients that wait or are as slow and as large as
/// possible, and then during a flood.
fn measure_slow_neighbours(binary: &Path, table: &mut Table) {
    let sandbox = Sandbox::on_disk();
    let repository = sandbox.repository();
    let run = sandbox.service().workspace(SHOP).remote(&repository);
    let service = run.program(binary.to_path_buf()).serve();
    let held = sandbox.windmill.hold_exports();
    let post = b"POST /sync HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
    let mut taken = vec![send(service.address(), post)];
    held.wait_for(1);
    taken.extend((1..CALLERS).map(|_| send(service.address(), post)));
    let head = format!("GET /health HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(8000));
    let announced =
        "POST /sync HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 65536\r\n\r\n";
    let body = format!("{announced}{}", " ".repeat(65_535));
    taken.extend((0..BODIES).map(|_| send(service.address(), body.as_bytes())));
    taken.extend((0..CONNECTIONS - CALLERS - BODIES).map(|_| send(service.address(), head.as_bytes())));
    let times = times_of_health(&service, SLOW_TIME);
    let slowest = times.last().copied().unwrap_or_default().as_secs_f64() * 1e3;
    let what = format!(
        "`/health` with all {CONNECTIONS} connections taken by slow clients (99 of 100; the slowest {slowest:.1} ms)"
    );
    limited_time(&what, times[times.len() * 99 / 100 - 1], table);

    let (is_over, flood) = (AtomicBool::new(false), service.address());
    let (times, connections) = thread::scope(|scope| {
        let flooding = scope.spawn(|| {
            let (begun, mut crowd, mut connections) = (Instant::now(), VecDeque::new(), 0_u32);
            // If a request for `/health` fails, `is_over` is never set. The second bound ends the flood then.
            while !is_over.load(Ordering::Relaxed) && begun.elapsed() < PATIENCE {
                crowd.push_back(connect_from_elsewhere(flood));
                connections += 1;
                if crowd.len() > 2 * CONNECTIONS {
                    crowd.pop_front();
                }
            }
            connections
        });
        let times = times_of_health(&service, FLOOD_TIME);
        is_over.store(true, Ordering::Relaxed);
        (times, flooding.join().unwrap())
    });
    let slowest = times.last().copied().unwrap_or_default();
    let what = format!(
        "the same while {connections} silent connections come from a neighbour in {} s (99 of 100; the slowest {:.1} ms)",
        FLOOD_TIME.as_secs(),
        slowest.as_secs_f64() * 1e3
    );
    limited_time(&what, times[times.len() * 99 / 100 - 1], table);
    let kib = memory_kib(service.pid(), "VmHWM").unwrap();
    let what = "the most memory through all that (VmHWM)";
    table.limited(what, &shown_kib(kib), &shown_kib(MEMORY_KIB_MAX), kib <= MEMORY_KIB_MAX);
    drop(taken);
    held.release();
}

/// Connects from another address of this machine, as from another container.
fn connect_from_elsewhere(to: SocketAddr) -> rustix::io::Result<TcpStream> {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&socket, &SocketAddr::from(([127, 0, 0, 2], 0)))?;
    connect(&socket, &to)?;
    Ok(socket.into())
}

fn limited_time(what: &str, time: Duration, table: &mut Table) {
    let shown = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
    table.limited(what, &shown(time), &shown(HEALTH_TIME_MAX), time <= HEALTH_TIME_MAX);
}

/// Returns how long each request for `/health` takes, repeated for `time`; the shortest first.
fn times_of_health(service: &Service, time: Duration) -> Vec<Duration> {
    let (begun, mut times) = (Instant::now(), Vec::new());
    while begun.elapsed() < time || times.len() < QUESTIONS_MIN {
        let asked = Instant::now();
        assert_eq!(service.get("/health").status, 200);
        times.push(asked.elapsed());
    }
    times.sort_unstable();
    times
}

/// Flask's own server in a virtual environment below the target folder.
struct Flask {
    child: Child,
    address: SocketAddr,
}

impl Flask {
    fn start() -> Result<Self, String> {
        let python = virtual_environment()?;
        let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap();
        let child = Command::new(python)
            .args(["-c", FLASK_PROGRAM, &address.port().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| error.to_string())?;
        let flask = Self { child, address };
        eventually("Flask listens", || TcpStream::connect(address).ok());
        Ok(flask)
    }
}

impl Drop for Flask {
    fn drop(&mut self) {
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

fn virtual_environment() -> Result<PathBuf, String> {
    let folder = target_dir().join("bench/flask");
    let python = folder.join("bin/python");
    let wanted = format!("import importlib.metadata as m; assert m.version('flask') == '{FLASK_VERSION}'");
    let run = |program: &Path, arguments: &[&str]| -> io::Result<bool> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null());
        Ok(process::start(command).finish_within(PATIENCE).success())
    };
    if python.is_file() && run(&python, &["-c", &wanted]).unwrap_or(false) {
        return Ok(python);
    }
    let Some(system) = process::find_program("python3", &[]) else { return Err("there is no python3".to_owned()) };
    fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let made = run(&system, &["-m", "venv", &folder.display().to_string()]).and_then(|made| {
        Ok(made && run(&python, &["-m", "pip", "install", "-q", &format!("flask=={FLASK_VERSION}")])?)
    });
    match made {
        Ok(true) => Ok(python),
        _ => Err("python3 has no venv, or pip cannot install Flask".to_owned()),
    }
}
