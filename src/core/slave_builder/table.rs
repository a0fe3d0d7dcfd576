//! Every state of a SlaveBuilder with every event, and what may follow (row
//! S08).

use super::{Event, State};
use crate::core::transitions::{Row, Word, ignored, row};

/// A [`State`] without what it carries. PINGING is two here: a start never
/// joins a person's ping (row S09).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stands {
    /// See [`State::Attaching`].
    Attaching,
    /// See [`State::Idle`].
    Idle,
    /// See [`State::Pinging`]: for a start.
    PingingToStart,
    /// See [`State::Pinging`]: because a person asked.
    PingingForPerson,
    /// See [`State::Starting`].
    Starting,
    /// See [`State::Building`].
    Building,
    /// See [`State::Detached`].
    Detached,
}

/// All of them, in order.
pub const STATES: &[Stands] = {
    use Stands::*;
    &[Attaching, Idle, PingingToStart, PingingForPerson, Starting, Building, Detached]
};

impl Word for Stands {
    fn word(&self) -> &'static str {
        match self {
            Self::Attaching => "attaching",
            Self::Idle => "idle",
            Self::PingingToStart => "pinging, to start",
            Self::PingingForPerson => "pinging, for a person",
            Self::Starting => "starting",
            Self::Building => "building",
            Self::Detached => "detached",
        }
    }
}

impl From<&State> for Stands {
    fn from(state: &State) -> Self {
        match state {
            State::Attaching { .. } => Self::Attaching,
            State::Idle => Self::Idle,
            State::Pinging { order: Some(_) } => Self::PingingToStart,
            State::Pinging { order: None } => Self::PingingForPerson,
            State::Starting { .. } => Self::Starting,
            State::Building { .. } => Self::Building,
            State::Detached => Self::Detached,
        }
    }
}

/// An [`Event`] without what it carries.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Hears {
    /// See [`Event::Ready`], without a build.
    Ready,
    /// See [`Event::Ready`], with a build that the worker brought back.
    ReadyWithBuild,
    /// See [`Event::Failed`].
    Failed,
    /// See [`Event::Start`].
    Start,
    /// See [`Event::CallBack`].
    CallBack,
    /// See [`Event::Leave`].
    Leave,
    /// See [`Event::Ping`].
    Ping,
    /// See [`Event::PingEnded`]: it was answered.
    Pong,
    /// See [`Event::PingEnded`]: it was not.
    PingFailed,
    /// See [`Event::Accepted`].
    Accepted,
    /// See [`Event::Refused`].
    Refused,
    /// See [`Event::BuildOver`].
    BuildOver,
    /// See [`Event::Detach`].
    Detach,
    /// See [`Event::DeadlineReached`].
    Deadline,
}

/// All of them, in order.
pub const EVENTS: &[Hears] = {
    use Hears::*;
    &[
        Ready,
        ReadyWithBuild,
        Failed,
        Start,
        CallBack,
        Leave,
        Ping,
        Pong,
        PingFailed,
        Accepted,
        Refused,
        BuildOver,
        Detach,
        Deadline,
    ]
};

impl Word for Hears {
    fn word(&self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::ReadyWithBuild => "ready, with a build",
            Self::Failed => "attach failed",
            Self::Start => "start",
            Self::CallBack => "call back",
            Self::Leave => "request leaves",
            Self::Ping => "ping",
            Self::Pong => "pong",
            Self::PingFailed => "ping failed",
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::BuildOver => "build over",
            Self::Detach => "detach",
            Self::Deadline => "deadline",
        }
    }
}

impl From<&Event> for Hears {
    fn from(event: &Event) -> Self {
        match event {
            Event::Ready { building: None } => Self::Ready,
            Event::Ready { building: Some(_) } => Self::ReadyWithBuild,
            Event::Failed { .. } => Self::Failed,
            Event::Start(_) => Self::Start,
            Event::CallBack(_) => Self::CallBack,
            Event::Leave { .. } => Self::Leave,
            Event::Ping(_) => Self::Ping,
            Event::PingEnded(true) => Self::Pong,
            Event::PingEnded(false) => Self::PingFailed,
            Event::Accepted(_) => Self::Accepted,
            Event::Refused { .. } => Self::Refused,
            Event::BuildOver(_) => Self::BuildOver,
            Event::Detach => Self::Detach,
            Event::DeadlineReached => Self::Deadline,
        }
    }
}

/// The SlaveBuilder's transitions. What is not said to lead anywhere is
/// ignored, or answered without a change of state.
pub const TABLE: &[Row<Stands, Hears>] = {
    use Hears::*;
    use Stands::*;
    &[
        row(Attaching, Ready, &[Idle], "the builder is told (S02, B22)"),
        row(Attaching, ReadyWithBuild, &[Building], "the worker came back with it (S02)"),
        row(Attaching, Failed, &[Detached], "the builder is told why (B23)"),
        ignored(Attaching, Start, "answered: called back; only an idle one starts (I4)"),
        ignored(Attaching, CallBack, "no start"),
        ignored(Attaching, Leave, "answered: in time; no start"),
        ignored(Attaching, Ping, "answered: false"),
        ignored(Attaching, Pong, "no ping"),
        ignored(Attaching, PingFailed, "no ping"),
        ignored(Attaching, Accepted, "no start"),
        ignored(Attaching, Refused, "no start"),
        ignored(Attaching, BuildOver, "no build"),
        row(Attaching, Detach, &[Detached], "a failed attach (FA05)"),
        row(Attaching, Deadline, &[Detached], "a failed attach (FA07)"),
        ignored(Idle, Ready, "the list was sent again, and answered again"),
        ignored(Idle, ReadyWithBuild, "the list was sent again, and answered again"),
        ignored(Idle, Failed, "attached already"),
        row(Idle, Start, &[PingingToStart], "B13"),
        ignored(Idle, CallBack, "no start"),
        ignored(Idle, Leave, "answered: in time; its start is over"),
        row(Idle, Ping, &[PingingForPerson], "S04"),
        ignored(Idle, Pong, "its ping is over"),
        ignored(Idle, PingFailed, "its ping is over"),
        ignored(Idle, Accepted, "its start is over"),
        ignored(Idle, Refused, "its start is over"),
        ignored(Idle, BuildOver, "it is over already"),
        row(Idle, Detach, &[Detached], "S07"),
        ignored(Idle, Deadline, "none is set"),
        ignored(PingingToStart, Ready, "the list was sent again, and answered again"),
        ignored(PingingToStart, ReadyWithBuild, "the list was sent again, and answered again"),
        ignored(PingingToStart, Failed, "attached already"),
        ignored(PingingToStart, Start, "answered: called back; two starts, one ping (FP06)"),
        row(
            PingingToStart,
            CallBack,
            &[Idle, PingingForPerson],
            "the ping goes on if a person joined it (B07)",
        ),
        row(
            PingingToStart,
            Leave,
            &[PingingToStart, Idle, PingingForPerson],
            "the start goes on without it; the last one calls it back (B07)",
        ),
        row(PingingToStart, Ping, &[PingingToStart], "joins; the earlier deadline governs (S04)"),
        row(PingingToStart, Pong, &[Starting], "the start is sent (B13)"),
        row(PingingToStart, PingFailed, &[Idle], "the start has failed (B08)"),
        ignored(PingingToStart, Accepted, "no start was sent"),
        ignored(PingingToStart, Refused, "no start was sent"),
        ignored(PingingToStart, BuildOver, "it has not begun"),
        row(PingingToStart, Detach, &[Detached], "the start has failed; all waiters hear (FA09)"),
        ignored(PingingToStart, Deadline, "the ping has its own"),
        ignored(PingingForPerson, Ready, "the list was sent again, and answered again"),
        ignored(PingingForPerson, ReadyWithBuild, "the list was sent again, and answered again"),
        ignored(PingingForPerson, Failed, "attached already"),
        ignored(PingingForPerson, Start, "answered: called back; no start joins it (S09)"),
        ignored(PingingForPerson, CallBack, "no start"),
        ignored(PingingForPerson, Leave, "answered: in time; its start is over"),
        row(PingingForPerson, Ping, &[PingingForPerson], "joins (S04)"),
        row(PingingForPerson, Pong, &[Idle], "who waits hears true; a build is tried (S09)"),
        row(PingingForPerson, PingFailed, &[Idle], "who waits hears false; the connection goes"),
        ignored(PingingForPerson, Accepted, "its start is over"),
        ignored(PingingForPerson, Refused, "its start is over"),
        ignored(PingingForPerson, BuildOver, "it is over already"),
        row(PingingForPerson, Detach, &[Detached], "all waiters hear false once (FA09)"),
        ignored(PingingForPerson, Deadline, "the ping has its own"),
        ignored(Starting, Ready, "the list was sent again, and answered again"),
        ignored(Starting, ReadyWithBuild, "the list was sent again, and answered again"),
        ignored(Starting, Failed, "attached already"),
        ignored(Starting, Start, "answered: called back; two starts (FP06)"),
        ignored(Starting, CallBack, "too late: it was sent"),
        ignored(Starting, Leave, "answered: too late; it was sent (B07)"),
        row(Starting, Ping, &[Starting], "the state stays (S04)"),
        row(Starting, Pong, &[Starting], "who waits hears true"),
        row(Starting, PingFailed, &[Starting], "who waits hears false; the connection goes"),
        row(Starting, Accepted, &[Building], "the build begins (B15)"),
        row(Starting, Refused, &[Idle, PingingForPerson], "FB07"),
        ignored(Starting, BuildOver, "it has not begun"),
        row(
            Starting,
            Detach,
            &[Detached],
            "whether it runs is known when the worker is back (FB03)",
        ),
        row(Starting, Deadline, &[Idle, PingingForPerson], "the connection is dropped"),
        ignored(Building, Ready, "the list was sent again, and answered again"),
        ignored(Building, ReadyWithBuild, "the list was sent again, and answered again"),
        ignored(Building, Failed, "attached already"),
        ignored(Building, Start, "answered: called back; only an idle one starts (I4)"),
        ignored(Building, CallBack, "too late: it runs"),
        ignored(Building, Leave, "answered: too late; it runs (B07)"),
        row(Building, Ping, &[Building], "the build is not disturbed (FP07)"),
        row(Building, Pong, &[Building], "who waits hears true"),
        row(Building, PingFailed, &[Building], "who waits hears false; the connection goes"),
        ignored(Building, Accepted, "its start is over"),
        ignored(Building, Refused, "its start is over"),
        row(Building, BuildOver, &[Idle, PingingForPerson], "S06"),
        row(Building, Detach, &[Detached], "the build is orphaned, not ended (B25)"),
        ignored(Building, Deadline, "none is set"),
        ignored(Detached, Ready, "attach answer after the detach: nothing is revived (FA06)"),
        ignored(Detached, ReadyWithBuild, "attach answer after the detach (FA06)"),
        ignored(Detached, Failed, "it is gone already"),
        ignored(Detached, Start, "answered: the worker left"),
        ignored(Detached, CallBack, "its start has failed already"),
        ignored(Detached, Leave, "answered: in time; its start has failed"),
        ignored(Detached, Ping, "answered: false"),
        ignored(Detached, Pong, "its waiters heard false already"),
        ignored(Detached, PingFailed, "its waiters heard false already"),
        ignored(Detached, Accepted, "it belongs to an older connection"),
        ignored(Detached, Refused, "it belongs to an older connection"),
        ignored(Detached, BuildOver, "it stays detached (S06)"),
        ignored(Detached, Detach, "a second one does nothing (S07)"),
        ignored(Detached, Deadline, "none is set"),
    ]
};
