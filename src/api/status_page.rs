//! The status page: one static file whose script reads `/status` every few seconds. This module serves it with a policy
//! that permits only that script and that style in the browser.

use crate::http::Response;

const PAGE: &str = include_str!("page.html");

/// Permits the page's own script and style, by their hashes, an icon within the page, and requests to the service that
/// sent the page. A unit test computes the hashes again and prints the right ones.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; \
    script-src 'sha256-FUEf/WDumx3OsleM/cSGgd75ouIyBiWOqWb7t5/C/w8='; \
    style-src 'sha256-dsYggYPcT0c77Qcb5h1bijRZibHC8nhwOBXdr06yeLg='; \
    connect-src 'self'; img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// Returns the answer to `GET /`.
pub fn response() -> Response {
    Response::new(200, "text/html; charset=utf-8", PAGE.to_owned())
        .with_header("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        .with_header("Referrer-Policy", "no-referrer")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the text within the page's only element of this name.
    #[cfg(not(target_family = "wasm"))]
    #[track_caller]
    fn content_of(element: &str) -> &'static str {
        assert_eq!(PAGE.matches(&format!("<{element}")).count(), 1, "{element}");
        let (_, rest) = PAGE.split_once(&format!("<{element}>")).expect("an element without attributes");
        rest.split_once(&format!("</{element}>")).expect("its end").0
    }

    #[cfg(not(target_family = "wasm"))]
    #[test]
    fn the_policy_has_the_hashes_of_the_script_and_the_style() {
        use base64::{Engine as _, prelude::BASE64_STANDARD};
        for element in ["script", "style"] {
            let hash = ring::digest::digest(&ring::digest::SHA256, content_of(element).as_bytes());
            let source = format!("{element}-src 'sha256-{}'; ", BASE64_STANDARD.encode(hash));
            assert!(CONTENT_SECURITY_POLICY.contains(&source), "the policy has to have {source}");
        }
    }

    #[test]
    fn the_page_loads_nothing_from_elsewhere_and_inserts_no_markup() {
        for absent in [" style=", " onclick=", " onload=", " src=", "innerHTML", "outerHTML", "insertAdjacent", "eval("]
        {
            assert!(!PAGE.contains(absent), "{absent}");
        }
        assert!(!PAGE.replace("http://www.w3.org/", "").contains("://"), "an address of another host");
    }
}
