//! The authorities that we trust over TLS: with `CA_BUNDLE_FILE` also a private one, on each of the four ways out, and
//! no other.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use support::receivers::Receivers;
use support::run::text_field;
use support::tls::{Authority, TlsFront};
use support::windmill::SHOP;
use support::*;

/// A Windmill, a remote and a receiver of notices, each behind TLS.
struct Place {
    sandbox: Sandbox,
    repository: BareRepository,
    remote: GitHttp,
    receivers: Receivers,
    windmill_front: TlsFront,
    git_front: TlsFront,
    notice_front: TlsFront,
}

impl Place {
    fn new(front: impl Fn(&str) -> TlsFront) -> Self {
        let sandbox = Sandbox::new();
        let repository = sandbox.repository();
        let remote = GitHttp::serve(&repository);
        let receivers = Receivers::start();
        let windmill_front = front(&sandbox.windmill.base_url());
        let (git_front, notice_front) = (front(&remote.base()), front(&receivers.url("slack")));
        Self { sandbox, repository, remote, receivers, windmill_front, git_front, notice_front }
    }

    /// Makes all connections of the run use TLS.
    fn with<'a>(&self, run: Run<'a>) -> Run<'a> {
        run.workspace(SHOP)
            .env("WINDMILL_BASE_URL", &self.windmill_front.https(&self.sandbox.windmill.base_url()))
            .remote(&self.git_front.remote(&self.remote))
            .env("SLACK_WEBHOOK_URL", &self.notice_front.https(&self.receivers.url("slack")))
            .env("HEARTBEAT_URL", &self.notice_front.https(&self.receivers.url("heartbeat")))
            .env("NOTIFY_ON", "always")
    }

    fn sync(&self) -> Run<'_> {
        self.with(self.sandbox.sync())
    }

    /// Checks that no server got a request.
    #[track_caller]
    fn assert_silence(&self) {
        assert_eq!(self.sandbox.windmill.requests().len() + self.remote.requests().len(), 0);
        assert_eq!(self.receivers.deliveries().len(), 0);
    }
}

/// Returns a `CA_BUNDLE_FILE` with the certificate of this authority.
fn bundle(sandbox: &Sandbox, authority: &Authority) -> String {
    sandbox.file("bundle.pem", authority.pem()).display().to_string()
}

#[track_caller]
fn assert_says(outcome: &Outcome, words: &[&str]) {
    for word in words {
        assert!(outcome.message().contains(word), "no `{word}`: {outcome}");
    }
}

#[test]
fn windmill_wmill_git_and_notices_trust_the_bundle() {
    let authority = Authority::new("private");
    let place = Place::new(|plain| authority.front(plain));
    let run = place.sync().env("CA_BUNDLE_FILE", &bundle(&place.sandbox, &authority));
    let outcome = run.run().expect("pushed");
    assert_eq!(outcome.commit(), place.repository.tip("main"));
    place.receivers.wait_for("slack", 1);
    place.receivers.wait_for("heartbeat", 1);
    assert_eq!(place.sandbox.windmill.exports(), 1);
    run.run().expect("unchanged");
    place.receivers.wait_for("heartbeat", 2);
}

#[test]
fn without_the_bundle_each_connection_fails_with_its_reason() {
    let authority = Authority::new("private");
    let place = Place::new(|plain| authority.front(plain));
    let trusted = bundle(&place.sandbox, &authority);
    let nobody = place.sandbox.file("nobody.pem", Authority::new("another").pem()).display().to_string();
    let local = place.sync().remote(&place.repository);
    for run in [local.clone(), local.clone().env("CA_BUNDLE_FILE", &nobody)] {
        let outcome = run.run().expect("windmill_unreachable");
        assert_says(&outcome, &["cannot reach Windmill", "certificate"]);
        for setting in ["SLACK_WEBHOOK_URL", "HEARTBEAT_URL"] {
            let message = format!("{setting}: cannot send the notice of run");
            assert!(outcome.stderr.contains(&message), "{outcome}");
        }
        assert!(!outcome.stderr.contains("trying again"), "a certificate does not become another: {outcome}");
        place.assert_silence();
    }
    assert!(place.sandbox.windmill.requests().is_empty());
    // Windmill's certificate is trusted, git's is not.
    let outcome = local.env("SSL_CERT_FILE", &trusted).remote(&place.git_front.remote(&place.remote)).run();
    assert_says(&outcome.expect("git_unreachable"), &["certificate"]);
    assert_eq!(place.remote.requests().len(), 0);
    assert_eq!(place.repository.refs(), "");
}

#[test]
fn authorities_of_the_user_and_the_system_stay_trusted_with_a_bundle() {
    let (own, private) = (Authority::new("own"), Authority::new("private"));
    // The certificates of Windmill and git come from the authority that the user trusts, in the variables of each tool.
    let place = Place::new(|plain| own.front(plain));
    let of_user = place.sandbox.file("own.pem", own.pem()).display().to_string();
    let of_bundle = bundle(&place.sandbox, &private);
    let run = place.sync().env("CA_BUNDLE_FILE", &of_bundle).env("SSL_CERT_FILE", &of_user);
    let named = run.clone().env("NODE_EXTRA_CA_CERTS", &of_user).env("GIT_SSL_CAINFO", &of_user);
    named.run().expect("pushed");
    place.receivers.wait_for("slack", 1);
    // The remote's certificate comes from the authority in the bundle, Windmill's still from the other one.
    let other_front = private.front(&place.remote.base());
    named.remote(&other_front.remote(&place.remote)).run().expect("unchanged");
    // wmill asks this service on a loopback address, so it needs no certificate.
    run.remote(&place.repository).run().expect("unchanged");
}

#[test]
#[ignore = "long: just test-long"]
fn git_gets_the_systems_certificates_too() {
    let system = "/etc/ssl/certs/ca-certificates.crt";
    assert!(Path::new(system).exists(), "this test looks for the system's certificates: install ca-certificates");
    let authority = Authority::new("private");
    let place = Place::new(|plain| authority.front(plain));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (file, of_hook) = (place.sandbox.data().join("windmill-git-sync/runs/shop/ca-git.pem"), Arc::clone(&seen));
    place.sandbox.windmill.on_export(move |_| *of_hook.lock().unwrap() = fs::read(&file).unwrap());
    place.sync().env("CA_BUNDLE_FILE", &bundle(&place.sandbox, &authority)).run().expect("pushed");
    let seen = String::from_utf8(seen.lock().unwrap().clone()).unwrap();
    assert!(seen.starts_with(&fs::read_to_string(system).unwrap()), "{seen}");
    assert!(!place.sandbox.data().join("windmill-git-sync/runs/shop").exists());
}

#[test]
fn an_expired_certificate_and_one_for_another_host_are_refused() {
    let authority = Authority::new("private");
    let expired: fn(&Authority, &str) -> TlsFront = Authority::front_expired;
    let elsewhere: fn(&Authority, &str) -> TlsFront = |authority, plain| authority.front_named(plain, "other.test");
    for front in [expired, elsewhere] {
        let place = Place::new(|plain| front(&authority, plain));
        let run = place.sync().env("CA_BUNDLE_FILE", &bundle(&place.sandbox, &authority));
        let outcome = run.clone().remote(&place.repository).run().expect("windmill_unreachable");
        assert_says(&outcome, &["certificate"]);
        assert!(outcome.stderr.contains("HEARTBEAT_URL: cannot send the notice"), "{outcome}");
        place.assert_silence();
        let of_git = run.env("WINDMILL_BASE_URL", &place.sandbox.windmill.base_url()).run().expect("git_unreachable");
        assert_says(&of_git, &["certificate"]);
        assert_eq!(place.remote.requests().len(), 0);
    }
}

#[test]
fn an_invalid_bundle_is_named_before_any_request() {
    let authority = Authority::new("private");
    let place = Place::new(|plain| authority.front(plain));
    let whole = authority.pem();
    let folder = place.sandbox.scratch("folder").display().to_string();
    let file = |name: &str, content: &str| place.sandbox.file(name, content).display().to_string();
    for (path, why) in [
        ("/nonexistent/ca.pem".to_owned(), "No such file"),
        (folder, "not a regular file"),
        (file("empty", ""), "it is empty"),
        (file("remark", "# certificates\n"), "holds no certificate"),
        (file("key", &whole.replace("CERTIFICATE", "PRIVATE KEY")), "holds no certificate"),
        (file("half", &whole[..whole.len() / 2]), "certificate 1 has no end"),
        (file("damaged", &whole.replacen("MII", "MIJ", 1)), "certificate 1 is damaged"),
        (file("second", &(whole.clone() + &whole.replacen("MII", "MIJ", 1))), "certificate 2 is damaged"),
    ] {
        let outcome = place.sync().env("CA_BUNDLE_FILE", &path).run().expect("config_invalid");
        assert_says(&outcome, &["CA_BUNDLE_FILE", &path, why]);
        assert_eq!(outcome.exit_code, Some(2), "{outcome}");
        place.assert_silence();
    }
}

#[test]
#[ignore = "long: just test-long"]
fn each_sync_reads_the_bundle_again_and_the_service_starts_without_it() {
    let authority = Authority::new("private");
    let place = Place::new(|plain| authority.front(plain));
    let path = place.sandbox.path().join("later.pem");
    let service = place.with(place.sandbox.service()).env("CA_BUNDLE_FILE", &path.display().to_string()).serve();
    service.wait_for_log("CA_BUNDLE_FILE: cannot take the certificates from ");
    let answer = service.post_sync("");
    assert_eq!((answer.status, text_field(&answer.json(), "code").as_deref()), (400, Some("config_invalid")));
    place.assert_silence();
    for (content, status) in [(authority.pem(), 200), (Authority::new("next").pem(), 502), (authority.pem(), 200)] {
        fs::write(&path, content).unwrap();
        assert_eq!(service.post_sync("").status, status, "{}", service.log());
    }
}
