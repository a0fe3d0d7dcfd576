//! Which state follows which: the tables that the state machines are held to,
//! and that `docs/transitions.md` is drawn from.
//!
//! A machine's own table stands beside it. Here is what a table is, and the
//! two tables of what the store keeps. Deliberately absent: why a machine moves
//! at a given moment; that is its code.

/// What becomes of one state when it meets one event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row<S: 'static, E> {
    /// The state before.
    pub from: S,
    /// What is heard.
    pub event: E,
    /// The states that may follow. None: it is ignored and changes nothing.
    pub to: &'static [S],
    /// For people.
    pub note: &'static str,
}

/// A row whose event moves the state, or is answered in it.
#[must_use]
pub const fn row<S, E>(from: S, event: E, to: &'static [S], note: &'static str) -> Row<S, E> {
    Row { from, event, to, note }
}

/// A row whose event is stale, impossible or means nothing just then.
#[must_use]
pub const fn ignored<S: 'static, E>(from: S, event: E, note: &'static str) -> Row<S, E> {
    Row { from, event, to: &[], note }
}

/// A word for people.
pub trait Word {
    /// The word.
    fn word(&self) -> &'static str;
}

/// The row of this state and this event.
pub fn find<S: PartialEq, E: PartialEq>(
    table: &'static [Row<S, E>],
    from: &S,
    event: &E,
) -> Option<&'static Row<S, E>> {
    table.iter().find(|row| row.from == *from && row.event == *event)
}

/// Whether the state may be `to` after the event. To stay is always allowed: an
/// event may be about something that is over.
pub fn allows<S: PartialEq, E: PartialEq>(
    table: &'static [Row<S, E>],
    from: &S,
    event: &E,
    to: &S,
) -> bool {
    from == to || find(table, from, event).is_some_and(|row| row.to.contains(to))
}

/// Whether any event leads from the one state to the other.
pub fn leads<S: PartialEq, E>(table: &'static [Row<S, E>], from: &S, to: &S) -> bool {
    from == to || table.iter().any(|row| row.from == *from && row.to.contains(to))
}

/// Where a build request stands, as stored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum RequestStands {
    /// It is not there yet.
    Unknown,
    /// It waits.
    Queued,
    /// A build has it.
    Claimed,
    /// Its build ended. Final.
    Done,
    /// It was cancelled before a build ended. Final.
    Cancelled,
}

impl Word for RequestStands {
    fn word(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Queued => "queued",
            Self::Claimed => "claimed",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What is done to a build request in the store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum RequestEvent {
    /// It is submitted.
    Submit,
    /// A build claims it.
    Claim,
    /// The claim is undone.
    Unclaim,
    /// The claim is undone, and the request was cancelled meanwhile.
    UnclaimCancelled,
    /// It leaves a claimed build, which goes on with its others.
    Leave,
    /// Its build ended.
    Finish,
    /// Its build ended and it is to be built again.
    FinishRequeue,
    /// It is cancelled.
    Cancel,
    /// It gets another priority.
    SetPriority,
}

impl Word for RequestEvent {
    fn word(&self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Claim => "claim",
            Self::Unclaim => "unclaim",
            Self::UnclaimCancelled => "unclaim, cancelled",
            Self::Leave => "leave",
            Self::Finish => "build finished",
            Self::FinishRequeue => "build finished, again",
            Self::Cancel => "cancel",
            Self::SetPriority => "set priority",
        }
    }
}

/// A build request, from its submission to its end.
pub const REQUEST: &[Row<RequestStands, RequestEvent>] = {
    use RequestEvent::*;
    use RequestStands::*;
    &[
        row(Unknown, Submit, &[Queued], "stored before the submitter hears of it (B05)"),
        ignored(Unknown, Claim, "refused"),
        ignored(Unknown, Unclaim, "no build has it"),
        ignored(Unknown, UnclaimCancelled, "no build has it"),
        ignored(Unknown, Leave, "no build has it"),
        ignored(Unknown, Finish, "no build has it"),
        ignored(Unknown, FinishRequeue, "no build has it"),
        ignored(Unknown, Cancel, "nothing is cancelled"),
        ignored(Unknown, SetPriority, "refused"),
        ignored(Queued, Submit, "a submission sent again is answered with the first one's ids"),
        row(Queued, Claim, &[Claimed], "one epoch higher; only in the epoch that is named"),
        ignored(Queued, Unclaim, "its claim was undone already"),
        ignored(Queued, UnclaimCancelled, "its claim was undone already"),
        ignored(Queued, Leave, "its claim was undone already"),
        ignored(Queued, Finish, "its build is not the owner any more"),
        ignored(Queued, FinishRequeue, "its build is not the owner any more"),
        row(Queued, Cancel, &[Cancelled], "B07"),
        row(Queued, SetPriority, &[Queued], "another place in the queue"),
        ignored(Claimed, Submit, "a submission sent again is answered with the first one's ids"),
        ignored(Claimed, Claim, "refused: somebody has it"),
        row(Claimed, Unclaim, &[Queued], "the head of the queue; nothing ran (B08)"),
        row(Claimed, UnclaimCancelled, &[Cancelled], "B07"),
        row(Claimed, Leave, &[Cancelled], "its build goes on with the others (B07)"),
        row(Claimed, Finish, &[Done], "with the build's result (B16)"),
        row(Claimed, FinishRequeue, &[Queued], "the head of the queue; counts a try (B25)"),
        ignored(Claimed, Cancel, "its build is stopped instead, and ends it"),
        ignored(Claimed, SetPriority, "it waits no more"),
        ignored(Done, Submit, "a submission sent again is answered with the first one's ids"),
        ignored(Done, Claim, "refused: ends are final"),
        ignored(Done, Unclaim, "ends are final"),
        ignored(Done, UnclaimCancelled, "ends are final"),
        ignored(Done, Leave, "ends are final"),
        ignored(Done, Finish, "ends are final"),
        ignored(Done, FinishRequeue, "ends are final"),
        ignored(Done, Cancel, "ends are final"),
        ignored(Done, SetPriority, "it waits no more"),
        ignored(Cancelled, Submit, "a submission sent again is answered with the first one's ids"),
        ignored(Cancelled, Claim, "refused: ends are final"),
        ignored(Cancelled, Unclaim, "ends are final"),
        ignored(Cancelled, UnclaimCancelled, "ends are final"),
        ignored(Cancelled, Leave, "ends are final"),
        ignored(Cancelled, Finish, "ends are final"),
        ignored(Cancelled, FinishRequeue, "ends are final"),
        ignored(Cancelled, Cancel, "ends are final"),
        ignored(Cancelled, SetPriority, "it waits no more"),
    ]
};

/// Where a build stands, as stored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum BuildStands {
    /// It is not there (any more).
    Unknown,
    /// It has its requests and a worker, and no number: its worker is being
    /// substantiated or pinged, or its start is on the way.
    Claimed,
    /// It has its number; its worker runs it, or is away for a while.
    Running,
    /// It ended. Final.
    Finished,
}

impl Word for BuildStands {
    fn word(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Claimed => "claimed",
            Self::Running => "running",
            Self::Finished => "finished",
        }
    }
}

/// What is done to a build in the store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum BuildEvent {
    /// Requests are claimed for it.
    Claim,
    /// Its claim is undone.
    Unclaim,
    /// Some of its requests leave it.
    Leave,
    /// It gets its number.
    Start,
    /// A new incarnation of its worker owns it.
    Adopt,
    /// It ends, and its requests with it or not.
    Finish,
}

impl Word for BuildEvent {
    fn word(&self) -> &'static str {
        match self {
            Self::Claim => "claim",
            Self::Unclaim => "unclaim",
            Self::Leave => "leave",
            Self::Start => "start",
            Self::Adopt => "adopt",
            Self::Finish => "finish",
        }
    }
}

/// A build as the store has it.
pub const BUILD: &[Row<BuildStands, BuildEvent>] = {
    use BuildEvent::*;
    use BuildStands::*;
    &[
        row(Unknown, Claim, &[Claimed], "with its requests, in one transaction"),
        ignored(Unknown, Unclaim, "refused"),
        ignored(Unknown, Leave, "refused"),
        ignored(Unknown, Start, "refused"),
        ignored(Unknown, Adopt, "refused"),
        ignored(Unknown, Finish, "refused"),
        ignored(Claimed, Claim, "the same claim again is answered with what it made (FB16)"),
        row(Claimed, Unclaim, &[Unknown], "nothing ran, and nothing is left of it (B08)"),
        row(Claimed, Leave, &[Claimed], "cancelled ones, never the last (B07)"),
        row(Claimed, Start, &[Running], "number and state in one transaction (B15, FB09)"),
        row(Claimed, Adopt, &[Claimed], "the worker came back before it had its number"),
        ignored(Claimed, Finish, "refused: what has not begun does not end"),
        ignored(Running, Claim, "the same claim again is answered with what it made"),
        ignored(Running, Unclaim, "refused: it has started"),
        ignored(Running, Leave, "refused: it has started"),
        ignored(Running, Start, "answered with the number it has"),
        row(Running, Adopt, &[Running], "the worker came back with it (FR01)"),
        row(Running, Finish, &[Finished], "with all of its steps, logs and requests"),
        ignored(Finished, Claim, "refused: its requests are gone or elsewhere"),
        ignored(Finished, Unclaim, "refused: ends are final"),
        ignored(Finished, Leave, "refused: ends are final"),
        ignored(Finished, Start, "refused: ends are final"),
        ignored(Finished, Adopt, "refused: ends are final"),
        ignored(Finished, Finish, "refused: ends are final"),
    ]
};
