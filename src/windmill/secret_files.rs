//! Files that hold secrets: variables and the encryption key, in plain text or encrypted.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use miniserde::json::{self, Object, Value};

use crate::util::{Node, yaml};
use crate::windmill::KEY_FILE;

/// The settings of the workspace.
pub const SETTINGS_FILE: &str = "settings.yaml";
/// A larger file is not parsed. Windmill's values of variables are far smaller.
const FILE_BYTES_MAX: usize = 1024 * 1024;
/// The secret setting that Windmill exports in plain text.
const SECRET_SETTING: &str = "slack_oauth_client_secret";
/// Windmill's ciphertext is AES in blocks of this size.
const CIPHER_BLOCK_BYTES: usize = 16;

/// Whether this is the workspace's encryption key.
pub fn is_encryption_key(path: &str) -> bool {
    matches!(path, KEY_FILE | "encryption_key.json")
}

/// Whether this is a secret variable with a value that everyone can read.
///
/// A file that cannot be parsed with bounded effort counts as such a variable if it says that it is secret, because
/// nothing shows that it is encrypted. If it does not say so, there is nothing to protect.
pub fn is_plaintext_secret(path: &str, content: &[u8]) -> bool {
    if !path.ends_with(".variable.yaml") && !path.ends_with(".variable.json") {
        return false;
    }
    let wanted = |key: &str| matches!(key, "value" | "is_secret");
    let Ok(fields) = yaml::fields(content, FILE_BYTES_MAX, wanted) else {
        return claims_to_be_secret(content);
    };
    let field = |name| fields.iter().find(|(key, _)| key == name).map(|(_, value)| value);
    if field("is_secret") != Some(&Node::Bool(true)) {
        return false;
    }
    match field("value") {
        None => false,
        Some(value) if value.is_empty() => false,
        Some(Node::Text(value)) => !(value.is_empty() || is_reference(value) || is_ciphertext(value)),
        Some(_) => true,
    }
}

/// Returns the fields of an exported resource that have names like secrets, and whose value is neither empty nor a
/// reference.
pub fn plain_secret_fields(content: &[u8]) -> Vec<String> {
    let mut resource: Object = json::from_str(&String::from_utf8_lossy(content)).unwrap_or_default();
    let Some(Value::Object(fields)) = resource.remove("value") else { return Vec::new() };
    let is_plain = |(name, value): &(String, Value)| {
        is_called_like_a_secret(name) && matches!(value, Value::String(text) if !text.is_empty() && !is_reference(text))
    };
    fields.into_iter().filter(is_plain).map(|(name, _)| name).collect()
}

fn is_called_like_a_secret(name: &str) -> bool {
    const WORDS: [&str; 9] =
        ["password", "passwd", "passphrase", "secret", "token", "apikey", "privatekey", "accesskey", "credential"];
    /// The endings of names of fields that say where or how to get a secret. Such a field is not a secret itself.
    const ENDS: [&str; 7] = ["url", "uri", "endpoint", "path", "type", "name", "id"];
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    WORDS.iter().any(|word| name.contains(word)) && !ENDS.iter().any(|end| name.ends_with(end))
}

/// Whether these are workspace settings with a readable secret: Windmill exports Slack's secret in plain text. Settings
/// that cannot be read count as such if the name of a secret occurs in them.
pub fn has_secret_setting(path: &str, content: &[u8]) -> bool {
    if path != SETTINGS_FILE {
        return false;
    }
    match yaml::fields(content, FILE_BYTES_MAX, |key| key == SECRET_SETTING) {
        Ok(fields) => fields
            .iter()
            .any(|(key, value)| key == SECRET_SETTING && !value.is_empty() && *value != Node::Text(String::new())),
        Err(_) => String::from_utf8_lossy(content).contains(SECRET_SETTING),
    }
}

/// Whether the file of a variable says that it is secret, or cannot be read.
pub fn is_secret_variable(content: &[u8]) -> bool {
    match yaml::fields(content, FILE_BYTES_MAX, |key| key == "is_secret") {
        Ok(fields) => fields.iter().any(|(key, value)| key == "is_secret" && *value != Node::Bool(false)),
        Err(_) => true,
    }
}

fn claims_to_be_secret(content: &[u8]) -> bool {
    let text = String::from_utf8_lossy(content);
    text.lines().any(|line| line.split_whitespace().collect::<String>().replace('"', "").starts_with("is_secret:true"))
}

/// Whether the value is a reference to a secret elsewhere: `$vault:…`, `$aws_sm:…`, `$var:…`. Other texts that begin
/// with `$` are not references.
fn is_reference(value: &str) -> bool {
    let scheme = value.strip_prefix('$').and_then(|reference| reference.split_once(':')).map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| {
        !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    })
}

/// Whether the value is base64 of whole cipher blocks. A key in hexadecimal digits can have that form too, so a value
/// of such digits does not count. Ciphertext hardly ever has only hexadecimal digits.
fn is_ciphertext(value: &str) -> bool {
    let bytes = STANDARD.decode(value).unwrap_or_default();
    !bytes.is_empty()
        && bytes.len().is_multiple_of(CIPHER_BLOCK_BYTES)
        && !value.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_secret(value: &str, plain: bool) {
        let file = format!("description: ''\nvalue: {value}\nis_secret: true\n");
        assert_eq!(is_plaintext_secret("f/ops/x.variable.yaml", file.as_bytes()), plain, "{value}");
        let open = file.replace("true", "false");
        assert!(!is_plaintext_secret("f/ops/x.variable.yaml", open.as_bytes()));
        assert!(!is_plaintext_secret("f/ops/x.resource.yaml", file.as_bytes()));
    }

    #[test]
    fn a_secret_is_plain_unless_it_has_the_form_of_ciphertext() {
        check_secret("/rI8+JnEOK6guDBXVVg1DAhayL1Z+Zoj0nzLMy2BSJU=", false);
        check_secret("/rI8+JnEOK6guDBXVVg1DAhayL1Z+Zoj0nzLMy2BSJU", true);
        check_secret("hunter2", true);
        check_secret("aGVsbG8=", true);
        check_secret("''", false);
        check_secret("", false);
        check_secret("$vault:shop/db", false);
        check_secret("$aws_sm:x", false);
        check_secret("$ecret", true);
        check_secret("'$ecret: x y'", false);
        check_secret("'$3cret: x'", true);
        check_secret("12345", true);
        check_secret("[a]", true);
        let key = "0123456789abcdef".repeat(4);
        check_secret(&format!("'{key}'"), true);
        check_secret(&format!("'{}'", key.replace("ef", "gh")), false);
    }

    #[test]
    fn an_unreadable_variable_counts_if_it_says_that_it_is_secret() {
        let path = "f/ops/x.variable.yaml";
        assert!(is_plaintext_secret(path, b"value: [\nis_secret: true\n"));
        assert!(is_plaintext_secret(path, b"value: \xff\n  \"is_secret\" :  true # yes\n"));
        assert!(!is_plaintext_secret(path, b"value: [\nis_secret: false\n"));
        let long = "x".repeat(FILE_BYTES_MAX);
        assert!(is_plaintext_secret(path, format!("value: {long}\nis_secret: true\n").as_bytes()));
        assert!(is_plaintext_secret("a.variable.json", br#"{"value":"hunter2","is_secret":true}"#));
    }

    #[test]
    fn line_breaks_of_yaml_1_1_do_not_make_an_encrypted_secret_plain() {
        let encrypted = "value: /rI8+JnEOK6guDBXVVg1DAhayL1Z+Zoj0nzLMy2BSJU=";
        for (description, value, is_plain) in [
            ("|-\n  a\n  b\u{2028}c", encrypted, false),
            ("\"a\u{85}b\"", encrypted, false),
            ("|-\n  a\n  b\u{2028}x: \"", "value: hunter2 # \"", true),
        ] {
            let file = format!("description: {description}\n{value}\nis_secret: true\n");
            assert_eq!(is_plaintext_secret("f/ops/x.variable.yaml", file.as_bytes()), is_plain, "{file:?}");
        }
    }

    #[test]
    fn the_encryption_key_is_a_file_of_the_root() {
        assert!(is_encryption_key("encryption_key.yaml") && is_encryption_key("encryption_key.json"));
        assert!(!is_encryption_key("f/encryption_key.yaml") && !is_encryption_key("encryption_key.yaml.bak"));
    }
}
