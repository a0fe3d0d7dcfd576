//! Where a build's own work stands: which write, command or log it waits for.

use super::{Event, Phase};
use crate::core::transitions::{Row, Word, ignored, row};

/// A `Phase` without what it carries.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Work {
    /// Nothing was done yet.
    New,
    /// What was told to it is being written down.
    Writing,
    /// The worker runs the step's command.
    Running,
    /// The command ended; its log is being closed.
    Closing,
    /// It ended, durably. Final.
    Over,
}

/// All of them, in order.
pub const WORKS: &[Work] = &[Work::New, Work::Writing, Work::Running, Work::Closing, Work::Over];

impl Word for Work {
    fn word(&self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Writing => "writing",
            Self::Running => "step runs",
            Self::Closing => "log closes",
            Self::Over => "over",
        }
    }
}

impl From<Phase> for Work {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::New => Self::New,
            Phase::Writing(_) => Self::Writing,
            Phase::Running { .. } => Self::Running,
            Phase::Closing { .. } => Self::Closing,
            Phase::Over => Self::Over,
        }
    }
}

/// An [`Event`] without what it carries.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Hears {
    /// See [`Event::Begin`].
    Begin,
    /// See [`Event::InDoubt`].
    InDoubt,
    /// See [`Event::Recover`].
    Recover,
    /// See [`Event::Written`].
    Written,
    /// See [`Event::WriteFailed`]: trying again may help.
    WriteDelayed,
    /// See [`Event::WriteFailed`]: somebody else owns the build.
    WriteFenced,
    /// See [`Event::CommandEnded`].
    CommandEnded,
    /// See [`Event::LogClosed`].
    LogClosed,
    /// See [`Event::Silent`].
    Silent,
    /// See [`Event::Stop`].
    Stop,
    /// See [`Event::Away`].
    Away,
    /// See [`Event::Back`].
    Back,
    /// See [`Event::Back`]: the processes are gone without a result.
    BackLost,
    /// See [`Event::Gone`].
    Gone,
    /// See [`Event::Broken`].
    Broken,
    /// See [`Event::DeadlineReached`].
    Deadline,
}

/// All of them, in order.
pub const HEARS: &[Hears] = {
    use Hears::*;
    &[
        Begin,
        InDoubt,
        Recover,
        Written,
        WriteDelayed,
        WriteFenced,
        CommandEnded,
        LogClosed,
        Silent,
        Stop,
        Away,
        Back,
        BackLost,
        Gone,
        Broken,
        Deadline,
    ]
};

impl Word for Hears {
    fn word(&self) -> &'static str {
        match self {
            Self::Begin => "begin",
            Self::InDoubt => "in doubt",
            Self::Recover => "recover",
            Self::Written => "written",
            Self::WriteDelayed => "write delayed",
            Self::WriteFenced => "write fenced",
            Self::CommandEnded => "command ended",
            Self::LogClosed => "log closed",
            Self::Silent => "command silent",
            Self::Stop => "stop",
            Self::Away => "worker away",
            Self::Back => "worker back",
            Self::BackLost => "worker back, lost",
            Self::Gone => "worker back without",
            Self::Broken => "broken",
            Self::Deadline => "deadline",
        }
    }
}

impl From<&Event> for Hears {
    fn from(event: &Event) -> Self {
        match event {
            Event::Begin => Self::Begin,
            Event::InDoubt { .. } => Self::InDoubt,
            Event::Recover { .. } => Self::Recover,
            Event::Written => Self::Written,
            Event::WriteFailed { transient: true, .. } => Self::WriteDelayed,
            Event::WriteFailed { transient: false, .. } => Self::WriteFenced,
            Event::CommandEnded { .. } => Self::CommandEnded,
            Event::LogClosed => Self::LogClosed,
            Event::Silent { .. } => Self::Silent,
            Event::Stop { .. } => Self::Stop,
            Event::Away => Self::Away,
            Event::Back { lost: false, .. } => Self::Back,
            Event::Back { lost: true, .. } => Self::BackLost,
            Event::Gone => Self::Gone,
            Event::Broken { .. } => Self::Broken,
            Event::DeadlineReached => Self::Deadline,
        }
    }
}

/// A build's transitions at work.
pub const WORK_TABLE: &[Row<Work, Hears>] = {
    use Hears::*;
    use Work::*;
    &[
        row(New, Begin, &[Writing], "number and first step, in one transaction"),
        row(New, InDoubt, &[New], "the worker may have it; its inventory says so (FB03)"),
        row(New, Recover, &[Running], "a build of an earlier master; its worker is away"),
        ignored(New, Written, "no write was asked for"),
        ignored(New, WriteDelayed, "no write was asked for"),
        ignored(New, WriteFenced, "no write was asked for"),
        ignored(New, CommandEnded, "no command runs"),
        ignored(New, LogClosed, "no log is open"),
        ignored(New, Silent, "no command runs"),
        row(New, Stop, &[New, Writing], "remembered; ends at once when the worker is away"),
        row(New, Away, &[New, Writing], "ends at once when it shall stop"),
        row(New, Back, &[New, Writing], "the worker goes on with it; one in doubt begins (FB03)"),
        row(New, BackLost, &[Writing], "one in doubt goes back; else lost (B25)"),
        row(New, Gone, &[Writing], "one in doubt goes back (FB03); else lost (FA17)"),
        row(New, Broken, &[Writing], "an exception is a result (B16)"),
        row(
            New,
            Deadline,
            &[New, Writing],
            "goes back, or lost, when the grace is over (FB03, B25)",
        ),
        ignored(Writing, Begin, "it has begun"),
        ignored(Writing, InDoubt, "it has begun"),
        ignored(Writing, Recover, "it has begun"),
        row(
            Writing,
            Written,
            &[Running, Closing, Writing, Over],
            "the next step, or the end; a step that was stopped meanwhile never runs",
        ),
        row(Writing, WriteDelayed, &[Writing], "tried again after a pause"),
        row(Writing, WriteFenced, &[Over], "somebody else owns it: it ends without a word (I2)"),
        ignored(Writing, CommandEnded, "no command runs"),
        ignored(Writing, LogClosed, "no log is open"),
        ignored(Writing, Silent, "no command runs"),
        row(Writing, Stop, &[Writing], "remembered"),
        row(Writing, Away, &[Writing], "the grace begins (B25)"),
        row(Writing, Back, &[Writing], "the worker goes on with it"),
        row(Writing, BackLost, &[Writing], "lost, unless its end is being written"),
        row(Writing, Gone, &[Writing], "lost, unless its end is being written"),
        row(Writing, Broken, &[Writing], "an exception is a result (B16)"),
        row(Writing, Deadline, &[Writing], "written again, or lost when the grace is over"),
        ignored(Running, Begin, "it has begun"),
        ignored(Running, InDoubt, "it has begun"),
        ignored(Running, Recover, "it has begun"),
        ignored(Running, Written, "no write was asked for"),
        ignored(Running, WriteDelayed, "no write was asked for"),
        ignored(Running, WriteFenced, "no write was asked for"),
        row(Running, CommandEnded, &[Closing], "another command's end is ignored"),
        ignored(Running, LogClosed, "its command has not ended"),
        row(Running, Silent, &[Running], "interrupted when its time limit is long over (FR16)"),
        row(
            Running,
            Stop,
            &[Running, Writing],
            "interrupted; ends at once when the worker is away",
        ),
        row(
            Running,
            Away,
            &[Running, Writing],
            "the grace begins; ends at once when it shall stop",
        ),
        row(Running, Back, &[Running], "the same build goes on (FR01)"),
        row(Running, BackLost, &[Writing], "lost: queued again or an exception (FR05)"),
        row(Running, Gone, &[Writing], "lost: queued again or an exception (FA17)"),
        row(Running, Broken, &[Writing], "an exception is a result (B16)"),
        row(
            Running,
            Deadline,
            &[Running, Writing],
            "a look at the clocks; not killed in time, or the grace is over",
        ),
        ignored(Closing, Begin, "it has begun"),
        ignored(Closing, InDoubt, "it has begun"),
        ignored(Closing, Recover, "it has begun"),
        ignored(Closing, Written, "no write was asked for"),
        ignored(Closing, WriteDelayed, "no write was asked for"),
        ignored(Closing, WriteFenced, "no write was asked for"),
        ignored(Closing, CommandEnded, "it has ended already"),
        row(Closing, LogClosed, &[Writing], "the step's end, and the next step or the build's end"),
        ignored(Closing, Silent, "its command has ended"),
        row(Closing, Stop, &[Closing, Writing], "ends at once when the worker is away"),
        row(Closing, Away, &[Closing, Writing], "ends at once when it shall stop"),
        row(Closing, Back, &[Closing], "the worker goes on with it"),
        row(Closing, BackLost, &[Writing], "lost: queued again or an exception"),
        row(Closing, Gone, &[Writing], "lost: queued again or an exception"),
        row(Closing, Broken, &[Writing], "an exception is a result (B16)"),
        row(Closing, Deadline, &[Closing, Writing], "lost when the grace is over (B25)"),
        ignored(Over, Begin, "ends are final (I7)"),
        ignored(Over, InDoubt, "ends are final"),
        ignored(Over, Recover, "ends are final"),
        ignored(Over, Written, "ends are final"),
        ignored(Over, WriteDelayed, "ends are final"),
        ignored(Over, WriteFenced, "ends are final"),
        ignored(Over, CommandEnded, "ends are final"),
        ignored(Over, LogClosed, "ends are final"),
        ignored(Over, Silent, "ends are final"),
        ignored(Over, Stop, "a stop that comes after the end changes nothing (T02)"),
        ignored(Over, Away, "ends are final"),
        ignored(Over, Back, "ends are final"),
        ignored(Over, BackLost, "ends are final"),
        ignored(Over, Gone, "ends are final"),
        ignored(Over, Broken, "ends are final"),
        ignored(Over, Deadline, "ends are final"),
    ]
};
