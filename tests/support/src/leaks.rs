//! Searches for planted secrets in texts and in every file below a folder. It knows the forms in which a secret is
//! sent. It cannot read what git has compressed (see [`super::BareRepository::everything`]).

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

use super::git_http::GIT_USERNAME;

/// Panics with each place that contains one of `secrets`: plain, or in base64, alone or as Basic credentials. It does
/// not follow symbolic links, but it reads their targets.
#[track_caller]
pub fn assert_nothing_leaked(texts: &[(&str, &[u8])], folders: &[&Path], secrets: &[&str]) {
    let needles: Vec<Vec<u8>> = secrets.iter().flat_map(|secret| forms(secret)).collect();
    let leaks = |bytes: &[u8]| needles.iter().any(|needle| contains(bytes, needle));
    let mut places: Vec<String> =
        texts.iter().filter(|(_, bytes)| leaks(bytes)).map(|(name, _)| (*name).to_owned()).collect();
    let mut pending: Vec<_> = folders.iter().map(|folder| folder.to_path_buf()).collect();
    while let Some(path) = pending.pop() {
        let Ok(about) = fs::symlink_metadata(&path) else {
            continue;
        };
        let content = if about.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
            Vec::new()
        } else if about.is_symlink() {
            fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
        } else if about.is_file() {
            fs::read(&path).unwrap_or_default()
        } else {
            Vec::new()
        };
        if leaks(&content) || leaks(path.as_os_str().as_encoded_bytes()) {
            places.push(path.display().to_string());
        }
    }
    assert!(places.is_empty(), "a planted secret stands in: {}", places.join(", "));
}

/// Returns the forms in which a secret can appear. A secret with line breaks (a key) may never match as a whole, so
/// each long line counts too.
fn forms(secret: &str) -> Vec<Vec<u8>> {
    let mut forms: Vec<Vec<u8>> = vec![secret.as_bytes().to_vec()];
    let lines = secret.lines().map(str::trim);
    forms.extend(
        lines.filter(|line| line.len() > 30 && !line.starts_with("-----")).map(|line| line.as_bytes().to_vec()),
    );
    for text in [secret.to_owned(), format!("x-access-token:{secret}"), format!("{GIT_USERNAME}:{secret}")] {
        forms.push(STANDARD.encode(&text).into_bytes());
        forms.push(STANDARD_NO_PAD.encode(&text).into_bytes());
    }
    forms
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    let Some(first) = needle.first() else {
        return false;
    };
    let mut from = 0;
    while let Some(at) = haystack[from..].iter().position(|byte| byte == first) {
        if haystack[from + at..].starts_with(needle) {
            return true;
        }
        from += at + 1;
    }
    false
}
