//! The ways out through an HTTP proxy: our own requests, `wmill`, `git` and notices; and the addresses that do not use
//! the proxy.

use support::proxy::{PROXY_PASSWORD, Proxy};
use support::receivers::Receivers;
use support::tls::{Authority, address_in};
use support::windmill::SHOP;
use support::*;

/// Returns the password in the forms in which it is written and sent.
fn secrets() -> [String; 3] {
    [PROXY_PASSWORD.to_owned(), PROXY_PASSWORD.replace('@', "%40"), Proxy::credentials()]
}

#[track_caller]
fn assert_not_shown(outcome: &Outcome, sandbox: &Sandbox) {
    let secrets = secrets();
    assert_nothing_leaked(&outcome.texts(), &[&sandbox.data()], &secrets.each_ref().map(String::as_str));
}

/// Returns a run in which every server can also be reached directly, so only the proxy's records show which way was
/// taken.
fn everybody<'a>(sandbox: &'a Sandbox, remote: &GitHttp, receivers: &Receivers) -> Run<'a> {
    sandbox
        .sync()
        .workspace(SHOP)
        .remote(remote)
        .env("SLACK_WEBHOOK_URL", &receivers.url("slack"))
        .env("HEARTBEAT_URL", &receivers.url("heartbeat"))
        .env("NOTIFY_ON", "always")
        .env("LOG_LEVEL", "trace")
}

#[track_caller]
fn assert_asked(proxy: &Proxy, wanted: &[String]) {
    let asked = proxy.asked();
    for start in wanted {
        assert!(asked.iter().any(|one| one.starts_with(start.as_str())), "no `{start}` in {asked:#?}");
    }
}

#[test]
fn requests_git_and_notices_use_the_proxy_in_upper_and_lower_case_variables() {
    for (variable, off) in [("http_proxy", "NO_PROXY"), ("HTTP_PROXY", "no_proxy"), ("ALL_PROXY", "NO_PROXY")] {
        let sandbox = Sandbox::replayed();
        let repository = sandbox.repository();
        let (remote, receivers, proxy) = (GitHttp::serve(&repository), Receivers::start(), Proxy::start());
        let [windmill, git, notices] =
            [sandbox.windmill.base_url(), remote.base(), receivers.url("slack")].map(|url| address_in(&url));
        for address in [windmill, git, notices] {
            proxy.route(&address.to_string(), address);
        }
        let run = everybody(&sandbox, &remote, &receivers).env(variable, &proxy.url());
        let outcome = run.run().expect("pushed");
        receivers.wait_for("slack", 1);
        receivers.wait_for("heartbeat", 1);
        let plain = format!("GET http://{git}/backup.git/info/refs");
        assert_asked(&proxy, &[format!("CONNECT {windmill}"), plain, format!("CONNECT {notices}")]);
        assert_not_shown(&outcome, &sandbox);
        // Each server can be excluded from the proxy.
        for (list, left_out) in [(windmill, "CONNECT"), (git, "GET"), (notices, "CONNECT")] {
            proxy.forget();
            run.clone().env(off, &list.to_string()).run().expect("unchanged");
            let asked = proxy.asked();
            let is_left_out = |one: &&String| one.starts_with(left_out) && one.contains(&list.to_string());
            // curl's list of exclusions has no ports.
            assert!(left_out == "GET" || !asked.iter().any(|one| is_left_out(&one)), "{list} in {asked:#?}");
            assert!(!asked.is_empty());
        }
        proxy.forget();
        run.env(off, "a.test,127.0.0.1").run().expect("unchanged");
        assert_eq!(proxy.asked(), [""; 0]);
    }
}

#[test]
#[ignore = "long: just test-long"]
fn https_uses_a_tunnel() {
    let sandbox = Sandbox::replayed();
    let repository = sandbox.repository();
    let (remote, receivers, proxy) = (GitHttp::serve(&repository), Receivers::start(), Proxy::start());
    let authority = Authority::new("private");
    // A name that only the proxy knows.
    let (git, notices) = (authority.front_named(&remote.base(), "git.test"), authority.front(&receivers.url("slack")));
    proxy.route("git.test:443", git.address());
    proxy.route(&notices.address().to_string(), notices.address());
    let mut other = git.remote(&remote);
    other.url = "https://git.test/backup.git".to_owned();
    let bundle = sandbox.file("bundle.pem", authority.pem()).display().to_string();
    let outcome = everybody(&sandbox, &remote, &receivers)
        .remote(&other)
        .env("SLACK_WEBHOOK_URL", &notices.https(&receivers.url("slack")))
        .env("CA_BUNDLE_FILE", &bundle)
        .env("HTTPS_PROXY", &proxy.url())
        .run()
        .expect("pushed");
    receivers.wait_for("slack", 1);
    assert_eq!(outcome.commit(), repository.tip("main"));
    let asked = proxy.asked();
    assert!(asked.contains(&"CONNECT git.test:443".to_owned()), "{asked:#?}");
    assert!(asked.contains(&format!("CONNECT {}", notices.address())), "{asked:#?}");
    assert!(asked.iter().all(|one| one.contains("CONNECT")), "{asked:#?}");
    assert_not_shown(&outcome, &sandbox);
}

#[test]
fn a_proxy_that_refuses_a_request_is_named_without_its_password() {
    let sandbox = Sandbox::replayed();
    let repository = sandbox.repository();
    let (remote, receivers, proxy) = (GitHttp::serve(&repository), Receivers::start(), Proxy::start());
    let wrong = format!("{PROXY_PASSWORD}x");
    let run = everybody(&sandbox, &remote, &receivers).env("http_proxy", &proxy.url_with(&wrong));
    let of_windmill = run.clone().remote(&repository).run().expect("windmill_unreachable");
    assert!(of_windmill.message().contains("407"), "{of_windmill}");
    let message = "SLACK_WEBHOOK_URL: cannot send the notice of run";
    assert!(of_windmill.stderr.contains(message), "{of_windmill}");
    let windmill = address_in(&sandbox.windmill.base_url());
    proxy.route(&windmill.to_string(), windmill);
    // git's list has no ports, so Windmill gets another name.
    let base_url = sandbox.windmill.base_url().replace("127.0.0.1", "localhost");
    let of_git = run.env("WINDMILL_BASE_URL", &base_url).env("no_proxy", "localhost").run().expect("git_unreachable");
    assert!(of_git.message().contains("407"), "{of_git}");
    for outcome in [of_windmill, of_git] {
        assert_not_shown(&outcome, &sandbox);
        assert_nothing_leaked(&outcome.texts(), &[], &[&wrong, &wrong.replace('@', "%40")]);
    }
    assert_eq!(repository.refs(), "");
    // A proxy of a kind that not all programs can use is refused before any request.
    let socks = proxy.url().replace("http://", "socks5://");
    let outcome = sandbox.sync().workspace(SHOP).remote(&repository).env("ALL_PROXY", &socks).run();
    assert_eq!((outcome.code().as_str(), outcome.exit_code), ("config_invalid", Some(2)), "{outcome}");
    assert!(outcome.message().contains("ALL_PROXY: is not the address of an http(s) proxy"), "{outcome}");
    assert_not_shown(&outcome, &sandbox);
}

mod bun {
    use super::*;
    use support::process::find_program;

    /// Installs `wmill` under Bun, as in the image: Node.js supports proxies only in newer versions.
    fn wmill_under_bun(sandbox: &Sandbox) {
        let bun = find_program("bun", &[]).expect("these tests run Bun: `npm ci --prefix image`, and its PATH");
        let main = wmill().parent().unwrap().parent().unwrap().join("windmill-cli/esm/main.js");
        assert!(main.is_file(), "{}", main.display());
        sandbox.program("wmill", &format!("exec '{}' '{}' \"$@\"", bun.display(), main.display()));
    }

    #[test]
    #[ignore = "needs Bun: just test-tools"]
    fn our_requests_use_the_proxy_and_wmill_reaches_us_directly() {
        let sandbox = Sandbox::new();
        wmill_under_bun(&sandbox);
        let repository = sandbox.repository();
        let proxy = Proxy::start();
        proxy.route("windmill.test:8000", address_in(&sandbox.windmill.base_url()));
        let run = sandbox.sync().workspace(SHOP).remote(&repository).env("LOG_LEVEL", "trace");
        let run = run.env("HTTP_PROXY", &proxy.url());
        let outcome = run.clone().env("WINDMILL_BASE_URL", "http://windmill.test:8000").run().expect("pushed");
        let asked = proxy.asked();
        assert!(asked.iter().any(|one| one == "CONNECT windmill.test:8000"), "{asked:#?}");
        assert!(!asked.iter().any(|one| one.contains("127.0.0.1")), "{asked:#?}");
        assert_not_shown(&outcome, &sandbox);
        proxy.forget();
        run.env("NO_PROXY", "127.0.0.1").run().expect("unchanged");
        assert!(!proxy.asked().iter().any(|one| one.contains("127.0.0.1")), "{:#?}", proxy.asked());
    }

    #[test]
    #[ignore = "needs Bun: just test-tools"]
    fn wmill_trusts_the_bundle() {
        let sandbox = Sandbox::new();
        wmill_under_bun(&sandbox);
        let repository = sandbox.repository();
        let authority = Authority::new("private");
        let front = authority.front(&sandbox.windmill.base_url());
        let bundle = sandbox.file("bundle.pem", authority.pem()).display().to_string();
        let run = sandbox.sync().workspace(SHOP).remote(&repository);
        let run = run.env("WINDMILL_BASE_URL", &front.https(&sandbox.windmill.base_url()));
        run.clone().run().expect("windmill_unreachable");
        run.env("CA_BUNDLE_FILE", &bundle).run().expect("pushed");
        assert_eq!(sandbox.windmill.exports(), 1);
    }
}
