//! What a sync asks of the world, verb by verb. When it asks for which, and what follows from an answer, is the story's
//! business.

use std::fs;

use crate::base::{self, Base};
use crate::commits::{self, Made, Material};
use crate::comparison::Comparison;
use crate::composition::{self, Composition, Pulled};
use crate::delivery::{self, Arrival};
use crate::fault::Fault;
use crate::git::Git;
use crate::guards;
use crate::object::ObjectId;
use crate::opening::{self, Opening};
use crate::outcome::Warnings;
use crate::probe;
use crate::proof::{Confirmation, Known};
use crate::pull::{self, Footing};
use crate::shortcut::Shortcut;
use crate::task::{Step, Task};
use crate::workplace::Workplace;

/// The verbs of a full sync. Each says why it failed; whether anything else is tried then, the story decides.
pub trait World {
    /// What Windmill holds, while it is being read.
    type Reading;
    /// What the folder is to hold, compared with what it held.
    type Composition: AsRef<Comparison>;

    /// What the branch held when it was last asked for.
    fn base(&self) -> &Base;
    /// Whether no earlier success is known.
    fn is_first(&self) -> bool;
    /// Has wmill pull upon the base.
    ///
    /// # Errors
    /// [`Fault`]: Windmill, wmill, git, or the disk.
    fn pull(&mut self) -> Result<Footing, Fault>;
    /// Begins to read what Windmill holds. After a pull, so that it is known whether that read the same.
    fn look_again(&mut self) -> Self::Reading;
    /// Finds out what the folder is to hold after a pull; nothing is committed.
    ///
    /// # Errors
    /// [`Fault`]: wmill did not write what Windmill has, git, or the disk.
    fn compose(&mut self, footing: Footing, warnings: &mut Warnings) -> Result<Self::Composition, Fault>;
    /// Refuses what must not be committed.
    ///
    /// # Errors
    /// [`Fault`]: the refusal.
    fn guard(&mut self, composition: &Self::Composition) -> Result<(), Fault>;
    /// Commits upon the base; nobody else sees it yet.
    ///
    /// # Errors
    /// [`Fault`]: git, or the disk.
    fn commit(&mut self, composition: &Self::Composition) -> Result<ObjectId, Fault>;
    /// Brings a commit to the branch, and sees whether it is there.
    ///
    /// # Errors
    /// [`Fault`]: the remote refuses it, or does not answer.
    fn push(&mut self, commit: &ObjectId) -> Result<Arrival, Fault>;
    /// Notes a success, with all warnings that were given, and warns of what the commit lacks.
    fn remember(&mut self, commit: &ObjectId, reading: Self::Reading, warnings: &mut Warnings);
    /// Asks for the base anew.
    ///
    /// # Errors
    /// [`Fault`]: the remote, or the disk.
    fn refresh(&mut self) -> Result<(), Fault>;
    /// Throws the checkout away; the next refresh makes it anew.
    ///
    /// # Errors
    /// [`Fault`]: the disk.
    fn discard(&mut self) -> Result<(), Fault>;
}

/// Windmill, the remote, and a checkout between them.
pub struct RealWorld<'a> {
    task: &'a Task<'a>,
    git: Git<'a>,
    known: Known,
    base: Base,
    /// The last commit that was made.
    made: Option<Made>,
}

impl<'a> RealWorld<'a> {
    /// Asks the remote and Windmill, and whether anything changed since the last success.
    ///
    /// # Errors
    /// [`Fault`]: the remote, Windmill, the disk, or a key that cannot sign.
    pub fn open(task: &'a Task<'a>, place: &'a Workplace, warnings: &mut Warnings) -> Result<Opening<Self>, Fault> {
        let folder = task.checkout_folder()?;
        let git = task.git(place, &folder)?;
        tell_about_old_volume(*task, warnings);
        match opening::open(*task, &git, Shortcut::open(*task, &folder), warnings)? {
            Opening::Unchanged(tip) => Ok(Opening::Unchanged(tip)),
            Opening::Full((known, base)) => Ok(Opening::Full(Self { task, git, known, base, made: None })),
        }
    }
}

fn tell_about_old_volume(task: Task<'_>, warnings: &mut Warnings) {
    let data = &task.service.config.data_dir;
    if fs::symlink_metadata(data.join(".git")).is_ok() {
        warnings.add(format!(
            "{} holds a checkout that another service left, perhaps with a token in its .git/config; it is neither \
             used nor touched: revoke that token, and remove it when you no longer need it",
            data.display()
        ));
    }
}

impl World for RealWorld<'_> {
    type Reading = Option<probe::Reading>;
    type Composition = Composition;

    fn base(&self) -> &Base {
        &self.base
    }

    fn is_first(&self) -> bool {
        self.known.shortcut.is_first()
    }

    fn pull(&mut self) -> Result<Footing, Fault> {
        pull::pull(*self.task, &self.git, &self.base)
    }

    fn look_again(&mut self) -> Self::Reading {
        self.known.read_again(*self.task, self.git.place(), &self.base)
    }

    fn compose(&mut self, footing: Footing, warnings: &mut Warnings) -> Result<Composition, Fault> {
        let account = &self.known.account;
        let owns_ui = match &account.shared_ui {
            None => false,
            Some(files) => !files.is_empty() || self.known.shortcut.wrote_shared_ui(),
        };
        composition::check_shared_ui(*self.task, &self.git, account)?;
        let pulled = Pulled { footing, account, owns_ui };
        composition::compose(*self.task, &self.git, &self.base, &pulled, warnings)
    }

    fn guard(&mut self, composition: &Composition) -> Result<(), Fault> {
        guards::check(*self.task, &self.git, composition, &self.base.plan.kinds)
    }

    fn commit(&mut self, composition: &Composition) -> Result<ObjectId, Fault> {
        let Self { task, git, known: Known { account, version, .. }, base, .. } = self;
        let version = version.as_deref();
        let made = commits::make(Material { task: **task, git, base, composition, account, version })?;
        Ok(self.made.insert(made).commit.clone())
    }

    fn push(&mut self, commit: &ObjectId) -> Result<Arrival, Fault> {
        delivery::deliver(*self.task, &self.git, commit)
    }

    fn remember(&mut self, commit: &ObjectId, reading: Self::Reading, warnings: &mut Warnings) {
        // A git that made another commit than it was told to is found out by the next full sync.
        let made = self.made.take().filter(|made| made.commit == *commit);
        let is_as_made = |tree: &ObjectId| made.as_ref().is_none_or(|made| made.folder.as_ref() == Some(tree));
        let tree = if reading.is_some() { base::folder_of(*self.task, &self.git, commit) } else { None };
        let tree = tree.filter(is_as_made);
        let confirmed = Confirmation { commit, reading, tree };
        self.known.remember(*self.task, &self.base, confirmed, warnings);
        made.and_then(|made| made.warning).into_iter().for_each(|warning| warnings.add(warning));
    }

    fn refresh(&mut self) -> Result<(), Fault> {
        self.base = self.task.patiently(Step::Fetch, self.git.place(), || base::refresh(*self.task, &self.git))?;
        Ok(())
    }

    fn discard(&mut self) -> Result<(), Fault> {
        self.git.discard().map_err(|error| self.task.git_error(Step::Fetch, error))
    }
}

impl AsRef<Comparison> for Composition {
    fn as_ref(&self) -> &Comparison {
        &self.comparison
    }
}
