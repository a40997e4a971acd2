//! Which checkouts are kept: those of the configured backup for good, those that requests made only as far as there is
//! room. It does not know what is in them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::scratch;

/// Checkouts that requests with settings of their own may leave; the least recently used go first.
const OTHERS_MAX: usize = 16;
/// A file in a checkout that a request made; its time is that of the last use.
const MARK: &str = "made-by-a-request";

/// Notes that the checkout at `used` serves a request with settings of its own, and removes the oldest of its kind
/// beside it.
///
/// # Errors
/// What the disk says.
pub fn make_room(used: &Path) -> io::Result<()> {
    scratch::replace_file(&used.join(MARK), b"")?;
    let Some(all) = used.parent() else { return Ok(()) };
    let mut others: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(all)?.flatten() {
        if let Ok(used_at) = fs::metadata(entry.path().join(MARK)).and_then(|mark| mark.modified()) {
            others.push((used_at, entry.path()));
        }
    }
    while others.len() > OTHERS_MAX {
        let oldest =
            (1..others.len()).fold(0, |oldest, index| if others[index].0 < others[oldest].0 { index } else { oldest });
        scratch::remove_folder(&others.swap_remove(oldest).1)?;
    }
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_of_the_others_go_first() {
        let all = scratch::Scratch::for_test("checkouts").unwrap();
        let folder = |name: &str| all.path().join(name);
        scratch::create_folder(&folder("configured")).unwrap();
        let use_at = |name: &str, seconds| {
            scratch::create_folder(&folder(name)).unwrap();
            make_room(&folder(name)).unwrap();
            let mark = fs::File::options().write(true).open(folder(name).join(MARK)).unwrap();
            mark.set_modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds)).unwrap();
        };
        (0..16).for_each(|number| use_at(&format!("other-{number}"), number));
        use_at("other-0", 100);
        use_at("other-16", 101);
        assert!(!folder("other-1").exists(), "the oldest went");
        assert!(folder("other-0").exists() && folder("other-2").exists() && folder("configured").exists());
    }
}
