//! Every state of a LatentSlaveBuilder with every event, and what may follow
//! (row S08).

use super::{Event, State};
use crate::core::transitions::{Row, Word, ignored, row};

/// A [`State`] without what it carries.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stands {
    /// See [`State::Latent`].
    Latent,
    /// See [`State::Substantiating`].
    Substantiating,
    /// See [`State::Up`].
    Up,
}

/// All of them, in order.
pub const STATES: &[Stands] = &[Stands::Latent, Stands::Substantiating, Stands::Up];

impl Word for Stands {
    fn word(&self) -> &'static str {
        match self {
            Self::Latent => "latent",
            Self::Substantiating => "substantiating",
            Self::Up => "up",
        }
    }
}

impl From<&State> for Stands {
    fn from(state: &State) -> Self {
        match state {
            State::Latent => Self::Latent,
            State::Substantiating { .. } => Self::Substantiating,
            State::Up => Self::Up,
        }
    }
}

/// An [`Event`] without what it carries.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Hears {
    /// See [`Event::Substantiate`].
    Substantiate,
    /// See [`Event::CallBack`].
    CallBack,
    /// See [`Event::Created`].
    Created,
    /// See [`Event::Failed`].
    Failed,
    /// See [`Event::Attached`].
    Attached,
    /// See [`Event::AttachFailed`].
    AttachFailed,
    /// See [`Event::Detached`].
    Detached,
    /// See [`Event::Ping`].
    Ping,
    /// See [`Event::DeadlineReached`].
    Deadline,
}

/// All of them, in order.
pub const EVENTS: &[Hears] = {
    use Hears::*;
    &[Substantiate, CallBack, Created, Failed, Attached, AttachFailed, Detached, Ping, Deadline]
};

impl Word for Hears {
    fn word(&self) -> &'static str {
        match self {
            Self::Substantiate => "substantiate",
            Self::CallBack => "call back",
            Self::Created => "created",
            Self::Failed => "came to nothing",
            Self::Attached => "attached",
            Self::AttachFailed => "attach failed",
            Self::Detached => "detached",
            Self::Ping => "ping",
            Self::Deadline => "deadline",
        }
    }
}

impl From<&Event> for Hears {
    fn from(event: &Event) -> Self {
        match event {
            Event::Substantiate(_) => Self::Substantiate,
            Event::CallBack(_) => Self::CallBack,
            Event::Created { .. } => Self::Created,
            Event::Failed { .. } => Self::Failed,
            Event::Attached => Self::Attached,
            Event::AttachFailed { .. } => Self::AttachFailed,
            Event::Detached => Self::Detached,
            Event::Ping(_) => Self::Ping,
            Event::DeadlineReached => Self::Deadline,
        }
    }
}

/// The LatentSlaveBuilder's transitions. What is not said to lead anywhere is
/// ignored, or answered without a change of state.
pub const TABLE: &[Row<Stands, Hears>] = {
    use Hears::*;
    use Stands::*;
    &[
        row(Latent, Substantiate, &[Substantiating], "the instance is wished for (L02)"),
        ignored(Latent, CallBack, "nobody waits"),
        ignored(Latent, Created, "nobody waits"),
        ignored(Latent, Failed, "nobody waits"),
        row(Latent, Attached, &[Up], "for somebody else's build: no event (L02)"),
        ignored(Latent, AttachFailed, "as before (L04)"),
        ignored(Latent, Detached, "as before"),
        ignored(Latent, Ping, "answered: true (L03)"),
        ignored(Latent, Deadline, "none is set"),
        ignored(Substantiating, Substantiate, "answered: not tried; it is reserved (L05)"),
        row(Substantiating, CallBack, &[Latent], "its build waits no more (FF03)"),
        row(Substantiating, Created, &[Substantiating], "what the provider told is kept"),
        row(Substantiating, Failed, &[Latent], "the build is told; the worker stays (B14)"),
        row(Substantiating, Attached, &[Up], "the build is told (L02)"),
        row(Substantiating, AttachFailed, &[Latent], "the build is told (L04)"),
        ignored(Substantiating, Detached, "it may come again in time"),
        ignored(Substantiating, Ping, "answered: true (L03)"),
        row(Substantiating, Deadline, &[Latent], "nothing was heard of the instance"),
        ignored(Up, Substantiate, "answered: it is there (L02)"),
        ignored(Up, CallBack, "nobody waits"),
        ignored(Up, Created, "nobody waits"),
        ignored(Up, Failed, "nobody waits"),
        ignored(Up, Attached, "told twice"),
        row(Up, AttachFailed, &[Latent], "over another connection (L04)"),
        row(Up, Detached, &[Latent], "S07"),
        ignored(Up, Ping, "answered: true; it came meanwhile"),
        ignored(Up, Deadline, "none is set"),
    ]
};
