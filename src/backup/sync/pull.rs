//! `wmill sync pull` upon a base, with its tries.

use crate::base::Base;
use crate::fault::Fault;
use crate::git::Git;
use crate::object::ObjectId;
use crate::scratch;
use crate::task::{Step, Task};
use crate::windmill::{Cure, WindmillError};
use crate::wmill;
use crate::wmill_yaml::WMILL_YAML;

/// How the tree was made that wmill worked upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Footing {
    /// The repository's regular files, so that wmill changes only what changed.
    Repository,
    /// Nothing: the repository's files stood in wmill's way.
    Empty,
}

/// Pulls upon the repository's files; where these stand in wmill's way, upon nothing.
pub fn pull(task: Task<'_>, git: &Git<'_>, base: &Base) -> Result<Footing, Fault> {
    let failed = |error| task.windmill_error(Step::Pull, error);
    let mut is_folder_suspect = false;
    let pulled = pull_upon(task, git, base.shown.as_ref(), &base.plan.text, |error| {
        let is_suspect = matches!(error, WindmillError::Failed { cure: Cure::EmptyFolder, .. });
        is_folder_suspect = is_suspect && !base.is_empty;
        failed(error)
    });
    match pulled {
        Ok(()) => Ok(Footing::Repository),
        Err(error) if is_folder_suspect => {
            log::warn!("pulling again, into an empty folder: {}", error.message);
            git.check_out(None).map_err(|error| task.git_error(Step::Pull, error))?;
            // All of it: what a pattern left out could not be told from what Windmill does not hold.
            pull_upon(task, git, None, &base.plan.text_without_patterns, failed).map(|()| Footing::Empty)
        }
        Err(error) => Err(error),
    }
}

/// Pulls into an empty folder, so that nothing but Windmill has a say in what is there afterwards.
///
/// # Errors
/// [`Fault`]: Windmill, wmill, git, or the disk.
pub fn pull_into_nothing(task: Task<'_>, git: &Git<'_>, configuration: &str) -> Result<(), Fault> {
    git.check_out(None).map_err(|error| task.git_error(Step::Pull, error))?;
    pull_upon(task, git, None, configuration, |error| task.windmill_error(Step::Pull, error))
}

/// Pulls into a folder that holds `shown`; each try begins with that and nothing else.
fn pull_upon(
    task: Task<'_>,
    git: &Git<'_>,
    shown: Option<&ObjectId>,
    configuration: &str,
    mut failed: impl FnMut(WindmillError) -> Fault,
) -> Result<(), Fault> {
    let mut is_clean = true;
    task.patiently(Step::Pull, git.place(), || {
        if !std::mem::take(&mut is_clean) {
            git.check_out(shown).map_err(|error| task.git_error(Step::Pull, error))?;
        }
        pull_once(task, git, configuration).map_err(&mut failed)
    })
}

fn pull_once(task: Task<'_>, git: &Git<'_>, configuration: &str) -> Result<(), WindmillError> {
    let machine = |error: std::io::Error| WindmillError::Machine(error.to_string());
    let own = git.tree_folder().join(WMILL_YAML);
    scratch::write_file(&own, configuration.as_bytes()).map_err(machine)?;
    let format = git.format();
    let pulled = wmill::pull(&task.windmill(git.place()), git.place(), git.tree_folder());
    git.settle(format).map_err(|_| WindmillError::Machine("cannot write the checkout's settings".to_owned()))?;
    scratch::remove_file(&own).map_err(machine)?;
    pulled
}
