//! What neighbours in the network can do: without the service's token, with their own Windmill token, through a web
//! page, and with many connections.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use miniserde::json::{self, Value};
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

use support::http::ask;
use support::run::{API_TOKEN, count_field, field, text_field};
use support::windmill::{Role, SHOP};
use support::*;

fn configured<'a>(sandbox: &'a Sandbox, remote: &impl Remote) -> Run<'a> {
    sandbox.service().workspace(SHOP).remote(remote)
}

fn own_token(rest: &str) -> String {
    format!("{{\"windmill_token\":\"{WINDMILL_TOKEN}\"{rest}}}")
}

#[track_caller]
fn check(answer: &Answer, status: u16, code: &str) -> String {
    let value = answer.json();
    assert_eq!((answer.status, text_field(&value, "code").as_deref()), (status, Some(code)), "{}", answer.text());
    text_field(&value, "message").unwrap()
}

fn runs(service: &Service) -> Vec<Value> {
    match field(&service.get("/status").json(), "runs") {
        Value::Array(runs) => runs.iter().map(|run| json::from_str(&json::to_string(run)).unwrap()).collect(),
        _ => panic!("no list"),
    }
}

// Trust depends on the token.

#[test]
fn a_request_without_the_services_token_cannot_choose_a_target_and_causes_no_request() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let remote = GitHttp::serve(&repository);
    let collector = GitHttp::serve(&sandbox.repository_named("collector"));
    collector.open_to_all();
    let service = configured(&sandbox, &remote).serve();
    let elsewhere = collector.url();
    for (rest, named) in [
        (format!(",\"git_remote_url\":\"{elsewhere}\",\"git_token\":\"junk\""), "`git_remote_url`, `git_token`"),
        (format!(",\"repository\":{{\"url\":\"{elsewhere}\"}}"), "`repository`"),
        (",\"git_branch\":\"main\"".to_owned(), "`git_branch`"),
        (",\"git_subdir\":\"x\"".to_owned(), "`git_subdir`"),
        (",\"git_user_name\":\"Ann\"".to_owned(), "`git_user_name`"),
        (",\"allow_mass_deletion\":true".to_owned(), "sync --allow-mass-deletion"),
        (",\"workspace\":\"lab\"".to_owned(), "WINDMILL_WORKSPACE=shop,lab"),
    ] {
        let message = check(&service.post_sync(&own_token(&rest)), 403, "forbidden");
        assert!(message.contains(named) && message.contains("SYNC_API_TOKEN"), "{message}");
    }
    assert_eq!((collector.requests().len(), remote.requests().len(), sandbox.windmill.requests().len()), (0, 0, 0));
    assert!(runs(&service).is_empty());
    check(&service.post_sync(&own_token(",\"workspace\":\"shop\",\"force\":true")), 200, "pushed");
    check(&service.post_sync("{\"dry_run\":true}"), 200, "unchanged");
}

#[test]
fn a_run_with_the_token_of_a_job_counts_for_the_configured_backup() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let service = configured(&sandbox, &repository).without("WINDMILL_TOKEN").serve();
    check(&service.post_sync(&own_token("")), 200, "pushed");
    let status = service.get("/status").json();
    assert_eq!(text_field(&status, "workspaces.0.last_success.code").as_deref(), Some("pushed"));
    let metrics = service.get("/metrics").text();
    assert!(metrics.contains("runs_total{workspace=\"shop\",code=\"pushed\"} 1"), "{metrics}");
    sandbox.windmill.fail("/workspaces/tarball", Fault::Status(500));
    check(&service.post_sync(&own_token(",\"force\":true")), 502, "pull_failed");
    assert_eq!(service.get("/ready").status, 503, "its failure is the backup's too");
}

#[test]
#[ignore = "long: just test-long"]
fn a_token_that_windmill_refuses_is_not_queued_and_not_counted() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let remote = GitHttp::serve(&repository);
    for run in [configured(&sandbox, &remote), configured(&sandbox, &remote).trusted()] {
        let service = run.serve();
        let held = sandbox.windmill.hold_exports();
        check(&service.post_sync("{\"wait\":false,\"force\":true}"), 202, "accepted");
        held.wait_for(1);
        let asked = remote.requests().len();
        for _ in 0..60 {
            check(&service.post_sync("{\"windmill_token\":\"junk\"}"), 502, "windmill_unauthorized");
        }
        assert_eq!(remote.requests().len(), asked, "the remote was asked for a refused token");
        held.release();
        eventually("the run ends", || (runs(&service).len() == 1).then_some(()));
        assert_eq!(service.get("/ready").status, 200);
        let metrics = service.get("/metrics").text();
        assert!(!metrics.contains("code=\"windmill_unauthorized\"} 6"), "{metrics}");
        drop(service);
        std::fs::remove_dir_all(sandbox.data()).unwrap();
    }
}

#[test]
fn after_a_success_of_an_admin_a_token_of_another_user_is_refused_before_the_queue() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let service = configured(&sandbox, &repository).serve();
    sandbox.windmill.role(Role::Developer);
    // On a new volume, no earlier rights are known.
    check(&service.post_sync(&own_token("")), 200, "pushed");
    check(&service.post_sync(&own_token("")), 200, "unchanged");
    sandbox.windmill.role(Role::Admin);
    check(&service.post_sync(&own_token("")), 200, "unchanged");
    sandbox.windmill.role(Role::Developer);
    let known = runs(&service).len();
    for body in [own_token(""), own_token(",\"dry_run\":true,\"force\":true")] {
        let message = check(&service.post_sync(&body), 422, "lost_rights");
        assert!(message.contains("`shop`") && message.contains("admin"), "{message}");
    }
    assert_eq!((runs(&service).len(), service.get("/ready").status), (known, 200), "it counts for nothing");
    // This stays so after a restart.
    drop(service);
    let service = configured(&sandbox, &repository).serve();
    check(&service.post_sync(&own_token("")), 422, "lost_rights");
}

#[test]
#[ignore = "long: just test-long"]
fn refused_runs_and_dry_runs_do_not_displace_configured_runs_in_the_status() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let service = configured(&sandbox, &repository).serve();
    check(&service.post_sync(""), 200, "pushed");
    for number in 0..60 {
        check(&service.post_sync("{\"dry_run\":true}"), 200, "unchanged");
        check(&service.post_sync(&format!("{{\"git_branch\":\"b{number}\"}}")), 403, "forbidden");
    }
    let pushed = runs(&service).iter().filter(|run| text_field(run, "code").as_deref() == Some("pushed")).count();
    assert_eq!(pushed, 1);
}

#[test]
fn an_answer_has_no_text_from_a_remote_that_the_request_names() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let service = configured(&sandbox, &repository).trusted().serve();
    // Only the service can reach this page of the network.
    let secret = "INTERNAL-PAGE-SECRET";
    for status in [200, 401, 403, 404, 500] {
        sandbox.windmill.fail("/info/refs", Fault::Answer(status, "text/html", secret.to_owned()));
        let url = format!("{}/x.git", sandbox.windmill.base_url());
        let answer = service.post_sync(&own_token(&format!(",\"git_remote_url\":\"{url}\",\"git_token\":\"own\"")));
        assert_eq!(answer.status, 502, "{}", answer.text());
        let message = text_field(&answer.json(), "message").unwrap();
        assert!(message.contains(&url) && message.contains("which the request names"), "{message}");
        assert!(!answer.text().contains(secret) && !service.get("/status").text().contains(secret));
        sandbox.windmill.heal();
    }
    // git takes the page for the list of refs of an old server, and continues with this request.
    assert_eq!(sandbox.windmill.take_unknown(), ["GET /x.git/HEAD"]);
}

// Web pages.

#[test]
fn a_web_page_without_the_token_cannot_start_a_sync() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let open = configured(&sandbox, &repository).serve();
    let post = |service: &Service, headers: &[(&str, &str)]| service.ask("POST", "/sync", headers, b"").unwrap();
    for page in [("Origin", "http://evil.example"), ("Origin", "null"), ("Sec-Fetch-Site", "cross-site")] {
        check(&post(&open, &[page]), 403, "forbidden");
        check(&post(&open, &[page, ("Authorization", "Bearer x")]), 403, "forbidden");
    }
    check(&post(&open, &[("Sec-Fetch-Site", "same-origin")]), 403, "forbidden");
    assert_eq!(sandbox.windmill.requests().len(), 0);
    check(&post(&open, &[("Sec-Fetch-Site", "none")]), 200, "pushed");
    drop(open);

    let service = configured(&sandbox, &repository).trusted().serve();
    let bearer = ("Authorization", "Bearer the-services-own-token");
    let password = git_http::basic("anyone", API_TOKEN);
    let page = ("Origin", "http://evil.example");
    check(&post(&service, &[page]), 403, "forbidden");
    check(&post(&service, &[page, ("Authorization", &password)]), 403, "forbidden");
    check(&post(&service, &[page, bearer]), 200, "unchanged");
    check(&post(&service, &[("Authorization", &password)]), 200, "unchanged");
    check(&post(&service, &[]), 401, "unauthorized");
}

#[test]
fn a_service_on_loopback_accepts_only_its_own_host_and_localhost() {
    let sandbox = Sandbox::new();
    let ask_as = |service: &Service, host: &str, path: &str| {
        let bytes = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        service.ask_raw(bytes.as_bytes()).unwrap()
    };
    let service = sandbox.service().serve();
    for path in ["/health", "/status", "/nothing"] {
        for host in ["evil.example", "127.0.0.2", "localhost.evil.example", "127.0.0.1.evil.example:80", "[::1]"] {
            check(&ask_as(&service, host, path), 403, "forbidden");
        }
    }
    for host in ["127.0.0.1", "127.0.0.1:1", "localhost", "LOCALHOST:8080"] {
        assert_eq!(ask_as(&service, host, "/health").status, 200, "{host}");
    }
    assert_eq!(service.ask_raw(b"GET /health HTTP/1.0\r\n\r\n").unwrap().status, 200, "no Host, and no browser");
    for run in [sandbox.service().trusted(), sandbox.service().env("LISTEN_ADDR", "0.0.0.0:0")] {
        assert_eq!(ask_as(&run.serve(), "windmill-git-sync", "/health").status, 200);
    }
}

#[test]
fn a_query_of_post_sync_is_refused_with_its_names_only() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let service = configured(&sandbox, &repository).serve();
    let post = |path: &str| service.ask("POST", path, &[], b"").unwrap();
    let message = check(&post("/sync?dry_run=true&token=hunter2"), 400, "request_invalid");
    assert!(message.contains("dry_run, token") && !message.contains("hunter2"), "{message}");
    assert_eq!((sandbox.windmill.requests().len(), repository.refs()), (0, String::new()));
    check(&post("/sync?"), 200, "pushed");
}

#[test]
#[ignore = "long: just test-long"]
fn an_error_answer_has_at_most_16_kilobytes() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let service = configured(&sandbox, &repository).serve();
    let fields: Vec<_> = (0..250).map(|number| format!("\"{}{number}\":0", "\\\"".repeat(60))).collect();
    let refused = service.post_sync(&format!("{{{}}}", fields.join(",")));
    check(&refused, 400, "request_invalid");
    assert!(refused.body.len() <= 16_000, "{}", refused.body.len());
    sandbox.program("wmill", "[ \"$1\" = --version ] && { echo 'CLI version: 0.0.1'; exit; }\nyes '\"\\\"\\\"\\\"' | head -c 1000000 >&2; exit 3");
    let failed = service.post_sync("");
    check(&failed, 502, "pull_failed");
    assert!(failed.body.len() <= 16_000, "{}", failed.body.len());
}

// Many connections.

fn connect_from(address: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddr::from((address, 0))).unwrap();
    connect(&socket, &to).unwrap();
    let stream: TcpStream = socket.into();
    stream.set_read_timeout(Some(process::PATIENCE)).unwrap();
    stream
}

#[track_caller]
fn health_from(address: [u8; 4], to: SocketAddr) -> Duration {
    let begun = Instant::now();
    let mut stream = connect_from(address, to);
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    begun.elapsed()
}

#[test]
fn health_answers_during_four_hundred_silent_slow_or_half_read_connections() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let service = configured(&sandbox, &repository).serve();
    let beginnings: [&[u8]; 4] = [
        b"",
        b"GET /health HTTP/1.1\r\nX: ",
        b"POST /sync HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n{",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ];
    let half_body = [b' '; 40_000];
    let mut flood = Vec::new();
    for number in 0..400 {
        let Ok(mut stream) = TcpStream::connect(service.address()) else { continue };
        // The service may have closed the connection already.
        let _ = stream.write_all(beginnings[number % 4]);
        if number % 4 == 2 {
            let _ = stream.set_nonblocking(true).and_then(|()| stream.write(&half_body));
        }
        flood.push(stream);
    }
    let mut times: Vec<_> = (0..21).map(|_| health_from([127, 0, 0, 2], service.address())).collect();
    times.sort_unstable();
    assert!(times[10] < Duration::from_millis(50), "{times:?}");
    let own = health_from([127, 0, 0, 1], service.address());
    assert!(own < Duration::from_secs(10), "{own:?}");
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    // A debug build is larger, because it maps more of its own file.
    let limit = if cfg!(debug_assertions) { 24_000 } else { 8_000 };
    assert!(kilobytes <= limit, "{kilobytes} kB");
    assert!(flood.len() > 300);
}

#[test]
fn callers_of_one_address_do_not_take_the_waiting_places_of_another() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let service = configured(&sandbox, &repository).serve();
    let held = sandbox.windmill.hold_exports();
    let post = b"POST /sync HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
    let crowd: Vec<_> = (0..70)
        .map(|_| {
            let mut stream = connect_from([127, 0, 0, 1], service.address());
            stream.write_all(post).unwrap();
            stream
        })
        .collect();
    held.wait_for(1);
    eventually("some are turned back", || {
        let status = ask(service.address(), "POST", "/sync", &[], b"").unwrap().status;
        (status == 503).then_some(())
    });
    let mut other = connect_from([127, 0, 0, 2], service.address());
    other.write_all(post).unwrap();
    held.release();
    let mut answer = String::new();
    other.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    drop(crowd);
    assert!(count_field(&service.get("/health").json(), "uptime_seconds") < 600);
}
