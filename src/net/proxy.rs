//! Proxies from the usual environment variables, in one form for git and for our client, because tools support
//! different forms. Other programs need no proxy: they send requests only to this process.

use std::net::IpAddr;

use base64::Engine as _;
use ipnet::IpNet;

use crate::util::Secret;

/// The variables that git and our client read, each with the names that may be set. The first name that is set is used.
const VARIABLES: [(&str, &[&str]); 3] = [
    ("http_proxy", &["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"]),
    ("https_proxy", &["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]),
    (NO_PROXY, &["no_proxy", "NO_PROXY"]),
];
const NO_PROXY: &str = "no_proxy";

/// Returns the variables for git and our client. `found` returns the value of a variable that is set.
///
/// # Errors
/// The name and the fault of each variable that does not name a usable proxy. The value is left out, because it may
/// hold a password.
pub fn variables(mut found: impl FnMut(&str) -> Option<String>) -> Result<Vec<(String, String)>, Vec<String>> {
    let (mut all, mut faults) = (Vec::new(), Vec::new());
    for (name, spellings) in VARIABLES {
        let Some((spelling, value)) = spellings.iter().find_map(|spelling| Some((spelling, found(spelling)?))) else {
            continue;
        };
        if name == NO_PROXY {
            all.push((name.to_owned(), without_wildcards(&value)));
        } else if is_usable(&value) {
            all.push((name.to_owned(), value));
        } else {
            faults.push(format!("{spelling}: is not the address of an http(s) proxy, such as http://proxy:3128"));
        }
    }
    faults.dedup();
    if faults.is_empty() { Ok(all) } else { Err(faults) }
}

/// Removes the star of `*.example.com`: curl, and so git, does not know it, but all tools know `.example.com`.
fn without_wildcards(list: &str) -> String {
    let entries = list.split([',', ' ']).filter(|entry| !entry.is_empty());
    entries.map(|entry| if entry.starts_with("*.") { &entry[1..] } else { entry }).collect::<Vec<_>>().join(",")
}

/// Whether a value names an HTTP(S) proxy with a valid port. Without this check, the client would silently ignore
/// another kind of proxy, and would use the default port instead of an invalid one.
fn is_usable(value: &str) -> bool {
    use ureq::ProxyProtocol::{Http, Https};
    let rest = value.split_once("://").map_or(value, |(_, rest)| rest);
    let authority = rest.trim_end_matches('/').rsplit('@').next().unwrap_or_default();
    let has_port = split_port(authority).1.is_none_or(|port| port.parse::<u16>().is_ok());
    has_port && ureq::Proxy::new(value).is_ok_and(|proxy| matches!(proxy.protocol(), Http | Https))
}

/// Returns the passwords in the URLs of proxies, in the forms in which they are written and sent.
pub fn secrets(environment: &[(String, String)]) -> Vec<Secret> {
    let mut secrets = Vec::new();
    for (_, value) in environment.iter().filter(|(name, _)| name.ends_with("_proxy")) {
        let authority = value.split_once("://").map_or(value.as_str(), |(_, rest)| rest);
        if let Some((_, password)) = authority.rsplit_once('@').and_then(|(info, _)| info.split_once(':')) {
            secrets.push(Secret::new(password));
        }
        let Ok(proxy) = ureq::Proxy::new(value) else { continue };
        if let Some(password) = proxy.password() {
            let pair = format!("{}:{password}", proxy.username().unwrap_or_default());
            let sent = base64::engine::general_purpose::STANDARD.encode(pair);
            secrets.extend([Secret::new(password), Secret::new(sent)]);
        }
    }
    secrets
}

/// Returns the proxy for a URL, or `None` for a direct request. `environment` has the variables of [`variables`].
pub fn for_url<'a>(url: &str, environment: &'a [(String, String)]) -> Option<&'a str> {
    let get = |name: &str| environment.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let (scheme, rest) = url.split_once("://")?;
    let proxy = get(&format!("{scheme}_proxy"))?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let is_exempt = get(NO_PROXY).is_some_and(|list| list.split([',', ' ']).any(|entry| matches(entry, authority)));
    (!is_exempt).then_some(proxy)
}

/// Whether an entry of `no_proxy` matches a host: `*` matches all hosts, a name matches itself and its subdomains, a
/// network such as `10.0.0.0/8` matches each address in it. A port in the entry must be the port of the request.
fn matches(entry: &str, authority: &str) -> bool {
    let entry = entry.trim().to_ascii_lowercase();
    let authority = authority.rsplit('@').next().unwrap_or_default().to_ascii_lowercase();
    let (host, port) = split_port(&authority);
    if let Ok(network) = entry.replace(['[', ']'], "").parse::<IpNet>() {
        return host.parse::<IpAddr>().is_ok_and(|address| network.contains(&address));
    }
    let (name, wanted) = split_port(&entry);
    let name = name.trim_start_matches("*.").trim_start_matches('.');
    let is_below = host.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    entry == "*" || !name.is_empty() && is_below && (wanted.is_none() || wanted == port)
}

/// Splits into the host, without the brackets of an IPv6 address, and the port.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    if let Some((host, rest)) = authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (host, rest.strip_prefix(':'));
    }
    match authority.split_once(':') {
        // More than one colon means an IPv6 address without brackets.
        Some((host, port)) if !port.contains(':') => (host, Some(port)),
        _ => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(set: &[(&str, &str)]) -> Result<Vec<(String, String)>, Vec<String>> {
        variables(|name| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
    }

    #[track_caller]
    fn check(set: &[(&str, &str)], url: &str, expected: Option<&str>) {
        assert_eq!(for_url(url, &read(set).unwrap()), expected, "{set:?} {url}");
    }

    #[test]
    fn each_scheme_has_its_proxy_in_either_spelling() {
        for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
            check(&[(name, "http://p:1")], "http://h/x", Some("http://p:1"));
        }
        for name in ["https_proxy", "HTTPS_PROXY", "all_proxy"] {
            check(&[(name, "p:1")], "https://h/x", Some("p:1"));
        }
        check(&[("https_proxy", "http://p:1")], "http://h/x", None);
        check(&[("http_proxy", "http://p:1")], "https://h/x", None);
        check(&[("http_proxy", "http://p:1"), ("all_proxy", "http://q:1")], "https://h/x", Some("http://q:1"));
        check(&[("HTTP_PROXY", "http://p:1"), ("http_proxy", "http://q:1")], "http://h", Some("http://q:1"));
        check(&[], "http://h", None);
    }

    #[test]
    fn exempt_hosts_are_reached_without_a_proxy() {
        for (list, url) in [
            ("*", "http://h"),
            ("a,h", "http://h:8000/x"),
            ("a, H ,b", "http://h"),
            ("example.com", "http://example.com"),
            (".example.com", "http://git.example.com"),
            ("*.example.com", "http://git.example.com"),
            ("example.com", "http://git.EXAMPLE.com:80?x"),
            ("h:8000", "http://h:8000"),
            ("127.0.0.1", "http://127.0.0.1:5"),
            ("::1", "http://[::1]:5/"),
            ("[::1]:5", "http://[::1]:5/"),
            ("10.0.0.0/8", "http://10.1.2.3:8000/x"),
            ("a,127.0.0.1/8", "http://127.9.9.9"),
            ("192.0.2.7/32", "http://192.0.2.7"),
            ("fd00::/8", "http://[fd12::1]:5/"),
            ("[fd00::]/8", "http://[fd12::1]/"),
            ("0.0.0.0/0", "http://192.0.2.7"),
        ] {
            check(&[("http_proxy", "http://p:1"), ("no_proxy", list)], url, None);
        }
        for (list, url) in [
            ("", "http://h"),
            (",", "http://h"),
            ("h", "http://hh"),
            ("example.com", "http://badexample.com"),
            ("git.example.com", "http://example.com"),
            ("h:8000", "http://h:8001"),
            ("h:8000", "http://h"),
            ("x", "http://h/x"),
            ("10.0.0.0/8", "http://11.0.0.1"),
            ("10.0.0.0/8", "http://10.example.com"),
            ("192.0.2.7/32", "http://192.0.2.8"),
            ("10.0.0.0/33", "http://10.0.0.1"),
            ("0.0.0.0/0", "http://h"),
            ("0.0.0.0/0", "http://[fd12::1]/"),
        ] {
            check(&[("http_proxy", "http://p:1"), ("NO_PROXY", list)], url, Some("http://p:1"));
        }
    }

    #[test]
    fn git_finds_each_variable_in_the_spelling_that_curl_reads() {
        let all = read(&[("HTTP_PROXY", "http://p:1"), ("NO_PROXY", "h")]).unwrap();
        let names: Vec<_> = all.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["http_proxy", "no_proxy"]);
        assert_eq!(read(&[("NO_PROXY", "h")]).unwrap().len(), 1);
        let all = read(&[("NO_PROXY", "a, *.example.com 10.0.0.0/8,*")]).unwrap();
        assert!(all.iter().all(|(_, value)| value == "a,.example.com,10.0.0.0/8,*"), "{all:?}");
    }

    #[test]
    fn a_password_is_returned_as_written_and_as_sent() {
        let known = secrets(&read(&[("http_proxy", "http://u:p%40ss@p:1")]).unwrap());
        assert!(known == ["p%40ss", "p@ss", "dTpwQHNz"].map(Secret::new));
        assert!(secrets(&read(&[("http_proxy", "http://u@p:1"), ("no_proxy", "h")]).unwrap()).is_empty());
    }

    #[test]
    fn a_proxy_of_another_kind_is_refused_without_its_password() {
        for value in ["socks5://u:hunter2@p:1", "ftp://p", "http://", "a b:hunter2", "http://u:hunter2@p:port"] {
            assert_eq!(
                read(&[("ALL_PROXY", value)]).unwrap_err(),
                ["ALL_PROXY: is not the address of an http(s) proxy, such as http://proxy:3128"]
            );
        }
        for value in ["http://u:p@p:1", "https://p", "p:3128", "http://p/"] {
            assert!(read(&[("http_proxy", value)]).is_ok(), "{value}");
        }
    }
}
