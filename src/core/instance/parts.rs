//! What an instance hears, what it wants done, where it stands.

use serde::Serialize;

use crate::core::ids::InstanceTag;
use crate::core::time::{Timestamp, WallTime};
use crate::core::values::LatentConfig;

/// Where a latent worker's instance stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum State {
    /// There is none.
    Absent,
    /// The wish for one is being stored.
    Wishing {
        /// Its tag.
        tag: InstanceTag,
        /// When it must be attached.
        until: Timestamp,
    },
    /// The provider was asked for it.
    Creating {
        /// Its tag.
        tag: InstanceTag,
        /// When it must be attached.
        until: Timestamp,
        /// How often the provider was asked.
        tries: u32,
    },
    /// The provider said no for the time being; it is asked again.
    Pausing {
        /// Its tag.
        tag: InstanceTag,
        /// When it must be attached.
        until: Timestamp,
        /// When the provider is asked again.
        again: Timestamp,
        /// How often the provider was asked.
        tries: u32,
        /// What it said.
        error: String,
    },
    /// The provider has it; it is not attached.
    Waiting {
        /// Its tag.
        tag: InstanceTag,
        /// The provider's name for it; none when an earlier master did not
        /// live to hear it.
        id: Option<String>,
        /// When it must be attached.
        until: Timestamp,
    },
    /// It is attached, and builds use it.
    Up {
        /// Its tag.
        tag: InstanceTag,
        /// The provider's name for it.
        id: Option<String>,
    },
    /// It is attached, and nobody uses it.
    Idle {
        /// Its tag.
        tag: InstanceTag,
        /// The provider's name for it.
        id: Option<String>,
        /// Since when.
        since: Timestamp,
        /// When it is let go.
        until: Timestamp,
    },
    /// Builds use it, and its connection is gone: it may come back with them.
    Away {
        /// Its tag.
        tag: InstanceTag,
        /// The provider's name for it.
        id: Option<String>,
    },
}

/// Why an instance was not created.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// Not now: nothing was made, and asking again may help.
    Transient(String),
    /// Not like this: nothing was made, and asking again is no use.
    Permanent(String),
    /// Nobody knows whether something was made.
    Unknown(String),
}

/// An instance that the provider has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Its tag.
    pub tag: InstanceTag,
    /// The provider's name for it.
    pub id: String,
    /// It runs, or starts.
    pub alive: bool,
}

/// An instance that the store knows of from an earlier master.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Known {
    /// Its tag.
    pub tag: InstanceTag,
    /// The provider's name for it, when it was noted.
    pub id: Option<String>,
    /// It was not to be destroyed.
    pub wanted: bool,
}

/// What an instance hears.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// A build wants it.
    Want {
        /// For a new one, should there be none.
        tag: InstanceTag,
    },
    /// Whether builds use it or have it reserved, and whether it is attached.
    Use {
        /// By at least one build, running or about to.
        used: bool,
        /// Builds run on it, or ran when it was last seen.
        builds: bool,
        /// Attached.
        up: bool,
    },
    /// The wish is durable.
    WishStored {
        /// Whose.
        tag: InstanceTag,
    },
    /// The wish could not be stored.
    WishFailed {
        /// Whose.
        tag: InstanceTag,
        /// Why.
        error: String,
    },
    /// The provider has it.
    Created {
        /// Which.
        tag: InstanceTag,
        /// The provider's name for it.
        id: String,
        /// For people.
        details: String,
    },
    /// The provider has it not.
    CreateFailed {
        /// Which.
        tag: InstanceTag,
        /// Why.
        failure: Failure,
    },
    /// The provider says that it is dead.
    Died {
        /// Which.
        tag: InstanceTag,
        /// For people.
        how: String,
    },
    /// All instances of this worker that the provider has, asked for at the
    /// start of the master.
    Swept {
        /// All of them.
        found: Vec<Found>,
    },
    /// That it is to be destroyed is durable.
    ReleaseStored {
        /// Which.
        tag: InstanceTag,
    },
    /// The provider has it no more.
    Destroyed {
        /// Which.
        tag: InstanceTag,
    },
    /// The provider could not destroy it, or did not answer.
    DestroyFailed {
        /// Which.
        tag: InstanceTag,
        /// Why.
        error: String,
    },
    /// The store could not keep that it is to be destroyed, or that it is gone.
    StoreFailed {
        /// Which.
        tag: InstanceTag,
    },
    /// The store knows it no more.
    Forgotten {
        /// Which.
        tag: InstanceTag,
    },
    /// New settings.
    Configure {
        /// All of them.
        config: LatentConfig,
        /// An instance that is there was made with others.
        outdated: bool,
    },
    /// The worker is no longer configured.
    Retire,
    /// The master stops: the instance goes.
    LetGo {
        /// Also when builds run on it.
        even_used: bool,
    },
    /// A deadline passed.
    DeadlineReached,
}

/// What an instance wants done.
#[derive(Clone, PartialEq, Debug)]
pub enum Effect {
    /// Store the wish; answered `WishStored` or `WishFailed`.
    StoreWish(InstanceTag),
    /// Ask the provider for it; answered `Created` or `CreateFailed`.
    Create(InstanceTag),
    /// Store the provider's name for it.
    NoteCreated {
        /// Which.
        tag: InstanceTag,
        /// The name.
        id: String,
    },
    /// Tell when the provider sees it dead.
    Watch {
        /// Which.
        tag: InstanceTag,
        /// The provider's name for it.
        id: String,
    },
    /// Tell those who wait what the provider told.
    Details(String),
    /// Tell those who wait that it came to nothing.
    Failed {
        /// Why.
        error: String,
        /// Asking again is no use.
        permanent: bool,
    },
    /// Drop its connection, should it have one.
    DropLink,
    /// Store that it is to be destroyed; answered `ReleaseStored` or
    /// `StoreFailed`.
    StoreRelease(InstanceTag),
    /// Ask the provider to destroy it; answered `Destroyed` or
    /// `DestroyFailed`.
    Destroy {
        /// Which.
        tag: InstanceTag,
        /// The provider's name for it, when it is known.
        id: Option<String>,
    },
    /// The builds that ran on it are lost: it is gone.
    LostBuilds,
    /// Store that it is gone; answered `Forgotten` or `StoreFailed`.
    Forget(InstanceTag),
    /// A build may ask for an instance now.
    Free,
    /// Something stale was ignored.
    Ignored(&'static str),
}

/// A latent worker's instance, as people see it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct InstanceView {
    /// `latent`, `substantiating`, `up`, `idle`, `away`, `destroying`.
    pub state: &'static str,
    /// Who makes it.
    pub provider: &'static str,
    /// Its tag, while there is one.
    pub tag: Option<InstanceTag>,
    /// What the provider told of it.
    pub details: String,
    /// When it was wished for or, later, attached.
    pub since: WallTime,
    /// How often the provider was asked for what the state says.
    pub tries: u32,
    /// What it said last, when that was no.
    pub error: Option<String>,
    /// Former instances that are not known to be gone.
    pub going: usize,
}
