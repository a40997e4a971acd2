//! Pseudo-random edits of a workspace, the same in each run, for property tests.

use miniserde::json::{self, Value};

use support::Workspace;

/// Pseudo-random numbers.
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        // xorshift never leaves zero.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }
}

/// Changes one string, number, boolean or key somewhere in a JSON document, or removes a member.
fn change_a_value(value: &mut Value, numbers: &mut Numbers) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            let name = fields.keys().nth(numbers.below(fields.len())).unwrap().clone();
            match numbers.below(8) {
                0 => drop(fields.remove(&name)),
                1 => {
                    let value = fields.remove(&name).unwrap();
                    fields.insert(name + "x", value);
                }
                _ => change_a_value(fields.get_mut(&name).unwrap(), numbers),
            }
        }
        Value::Array(values) if !values.is_empty() => {
            let at = numbers.below(values.len());
            change_a_value(&mut values[at], numbers);
        }
        Value::String(text) => text.push('x'),
        Value::Bool(truth) => *truth = !*truth,
        Value::Number(_) => *value = Value::String("a number no more".to_owned()),
        Value::Null => *value = Value::Bool(false),
        Value::Object(fields) => drop(fields.insert("new".to_owned(), Value::Null)),
        Value::Array(values) => values.push(Value::Null),
    }
}

/// Returns an entry of an export with one change: in a value if it is JSON, else in a byte.
pub(crate) fn changed(path: &str, content: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let text = std::str::from_utf8(content).unwrap();
    match json::from_str::<Value>(text) {
        Ok(mut value) if path.ends_with(".json") && !path.starts_with("dependencies/") => {
            change_a_value(&mut value, numbers);
            json::to_string(&value).into_bytes()
        }
        _ => {
            let mut content = content.to_vec();
            content.insert(numbers.below(content.len() + 1), b' ');
            content
        }
    }
}

/// Changes, removes, moves or copies an item. Returns a description of the change.
pub(crate) fn edit(workspace: &mut Workspace, numbers: &mut Numbers) -> String {
    let (path, content) = workspace.entries()[numbers.below(workspace.entries().len())].clone();
    let stem = path.split('.').next().unwrap().to_owned();
    let of_item: Vec<_> =
        workspace.entries().iter().filter(|(other, _)| other.split('.').next() == Some(&stem)).cloned().collect();
    let other = format!("{stem}_{}", numbers.below(1000));
    match numbers.below(8) {
        0 => {
            of_item.iter().for_each(|(path, _)| workspace.remove(path));
            format!("without {stem}")
        }
        1 | 2 => {
            let is_move = numbers.below(2) == 0;
            for (path, content) in &of_item {
                if is_move {
                    workspace.remove(path);
                }
                workspace.put(&path.replacen(&stem, &other, 1), content.clone());
            }
            format!("{stem} {} {other}", if is_move { "moved to" } else { "copied to" })
        }
        _ => {
            let content = changed(&path, &content, numbers);
            workspace.put(&path, content.clone());
            format!("{path} is {}", String::from_utf8_lossy(&content))
        }
    }
}
