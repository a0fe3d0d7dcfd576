//! Starts whose answer the master never hears, and frames about commands that
//! nobody gave: a played worker that says each thing at its moment.

use std::time::{Duration, Instant};

use botmaster::core::ids::{BuildId, CommandId, Epoch};
use botmaster::protocol::json_v1::{
    InventoryItem, InventoryState, MasterFrame, Resume, ResumeAction, STDIO, WorkerFrame,
};

use crate::kit::{Master, Place, RawWorker, builder, finished, until, worker};

/// Long enough that nothing here waits for it by chance.
const AT_ONCE: Duration = Duration::from_secs(8);

fn one_builder(steps: &[&str]) -> Place {
    Place::new(&format!("{}{}", worker("w", 1), builder("b", "w", steps)))
}

fn item(build: BuildId, epoch: Epoch, command: Option<&CommandId>, length: u64) -> InventoryItem {
    let state = if command.is_some() { InventoryState::Running } else { InventoryState::Waiting };
    InventoryItem {
        build,
        epoch,
        builder: "b".into(),
        command: command.cloned(),
        state,
        log_end: command.iter().map(|_| (STDIO.to_owned(), length)).collect(),
    }
}

fn state_of(master: &Master<'_>) -> Option<String> {
    let board = master.board();
    let builds = board["builders"]["b"]["builds"].as_array()?;
    builds.first()?["state"].as_str().map(str::to_owned)
}

fn resumed(raw: &mut RawWorker) -> Resume {
    raw.hear_until(|frame| match frame {
        MasterFrame::Resume(resume) => Some(resume.clone()),
        _ => None,
    })
}

/// A worker that was sent a start, and is gone before it answers.
fn goes_with_the_start(master: &Master<'_>) -> (BuildId, Epoch) {
    let mut raw = RawWorker::attached(master, "w", Vec::new());
    master.force("b");
    let sent = raw.take_start();
    drop(raw);
    until("it is orphaned", || (state_of(master)? == "orphaned").then_some(()));
    sent
}

#[test]
fn fb03_a_worker_that_has_the_start_goes_on_with_that_very_build() {
    let place = one_builder(&["true"]);
    let master = place.master();
    let (build, epoch) = goes_with_the_start(&master);
    assert!(master.build("b", 1).is_none(), "no number yet");
    let mut raw = RawWorker::attached(&master, "w", vec![item(build, epoch, None, 0)]);
    let resume = resumed(&mut raw);
    assert_eq!((resume.build, resume.r#do), (build, ResumeAction::Continue));
    let command = raw.next_command(build);
    raw.finish(build, &command, 0);
    master.ended_as("b", 1, 0);
    assert_eq!(master.list("builders/b/builds").len(), 1);
}

#[test]
fn fb03_a_worker_that_has_it_not_gets_it_again_at_once() {
    let place = one_builder(&["true"]);
    let master = place.master();
    let (_, epoch) = goes_with_the_start(&master);
    let begun = Instant::now();
    let mut raw = RawWorker::attached(&master, "w", Vec::new());
    let (build, again, command) = raw.take_build();
    assert!(begun.elapsed() < AT_ONCE, "{:?}: neither a grace nor a pause", begun.elapsed());
    assert!(again > epoch, "a start of its own");
    raw.finish(build, &command, 0);
    master.ended_as("b", 1, 0);
    assert_eq!(master.list("builders/b/builds").len(), 1, "the other one never was");
}

#[test]
fn fb03_nobody_else_gets_it_before_the_grace_is_over() {
    let grace = Duration::from_secs(5);
    let place = Place::new("");
    let two = builder("b", "w\", \"v", &["true"]);
    let timers =
        "[timers]\nheartbeat = \"1 s\"\nlease = \"3 s\"\nkill_time = \"1 s\"\ngrace = \"5 s\"\n";
    place.configure_all(&format!("{timers}{}{}{two}", worker("w", 1), worker("v", 1)));
    let master = place.master();
    let (first, epoch) = goes_with_the_start(&master);
    let left = Instant::now();
    let mut other = RawWorker::attached(&master, "v", Vec::new());
    let _beats = other.beats();
    let (build, again, command) = other.take_build();
    assert!(left.elapsed() > grace - Duration::from_secs(1), "{:?}", left.elapsed());
    assert!(again > epoch);
    // It comes back late, and is told so.
    let mut raw = RawWorker::attached(&master, "w", vec![item(first, epoch, None, 0)]);
    assert_eq!(resumed(&mut raw).r#do, ResumeAction::Abandon);
    other.finish(build, &command, 0);
    master.ended_as("b", 1, 0);
}

#[test]
fn fn17_fl11_a_frame_about_a_command_that_was_never_given_ends_the_connection() {
    let place = one_builder(&["true"]);
    let master = place.master();
    let mut raw = RawWorker::attached(&master, "w", Vec::new());
    master.force("b");
    let (build, epoch, command) = raw.take_build();
    let invented = CommandId::for_step(build, 7);
    for frame in [
        WorkerFrame::CommandStarted { build, command: invented.clone() },
        finished(build, &invented, 0),
        WorkerFrame::CommandRefused {
            build,
            command: invented.clone(),
            code: "busy".into(),
            message: "no".into(),
        },
    ] {
        raw.say(&frame);
        let (code, message, _) = raw.turned_away();
        assert_eq!(code, "not_yours", "{frame:?}: {message}");
        assert!(message.contains(invented.0.as_ref()), "{message}");
        // It comes back, and the build goes on.
        raw = RawWorker::attached(&master, "w", vec![item(build, epoch, Some(&command), 0)]);
        assert_eq!(resumed(&mut raw).r#do, ResumeAction::Continue);
    }
    assert_eq!(master.ignored("frame of a command that was never given"), 3);
    raw.log(build, &command, 0, "true\n");
    raw.finish(build, &command, 5);
    master.ended_as("b", 1, 0);
    assert_eq!(master.log("b", 1, 0, 'o'), ["true"]);
}

#[test]
fn fl11_late_frames_of_a_command_of_an_earlier_connection_are_ignored() {
    let place = one_builder(&["true", "true"]);
    let master = place.master();
    let mut raw = RawWorker::attached(&master, "w", Vec::new());
    master.force("b");
    let (build, epoch, first) = raw.take_build();
    raw.log(build, &first, 0, "first\n");
    raw.finish(build, &first, 6);
    let second = raw.next_command(build);
    drop(raw);
    until("it is orphaned", || (state_of(&master)? == "orphaned").then_some(()));
    let mut raw = RawWorker::attached(&master, "w", vec![item(build, epoch, Some(&second), 0)]);
    assert_eq!(resumed(&mut raw).r#do, ResumeAction::Continue);
    raw.say(&WorkerFrame::CommandStarted { build, command: first.clone() });
    raw.log(build, &first, 0, "first\n");
    raw.finish(build, &first, 6);
    raw.log(build, &second, 0, "second\n");
    raw.finish(build, &second, 7);
    raw.hear_until(|frame| matches!(frame, MasterFrame::BuildFinished { .. }).then_some(()));
    master.ended_as("b", 1, 0);
    assert_eq!(master.ignored("log text that nobody waits for"), 1);
    assert_eq!(master.ignored("end of a command that does not run"), 1);
    assert_eq!(master.log("b", 1, 0, 'o'), ["first"]);
    assert_eq!(master.log("b", 1, 1, 'o'), ["second"]);
}
