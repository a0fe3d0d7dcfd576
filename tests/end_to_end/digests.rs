//! A scripted worker that says wrong things of its logs.

use botmaster::core::ids::{BuildId, CommandId};
use botmaster::protocol::json_v1::{MasterFrame, STDIO, WireError, WorkerFrame};
use sha2::{Digest as _, Sha256};

use crate::kit::{Place, RawWorker, builder, finished, until, worker};

const RIGHT: &str = "what it wrote\n";
const WRONG: &str = "what it wrott\n";

fn say_end(raw: &mut RawWorker, build: BuildId, command: &CommandId) {
    let mut end = finished(build, command, RIGHT.len() as u64);
    if let WorkerFrame::CommandFinished { log_digest, .. } = &mut end {
        let digest = Sha256::digest(RIGHT).iter().map(|byte| format!("{byte:02x}")).collect();
        log_digest.insert(STDIO.into(), digest);
    }
    raw.say(&end);
}

/// Sends the wrong text, then does `next` once the master asks for it again.
fn told_again(next: impl FnOnce(&mut RawWorker, BuildId, &CommandId)) -> (Vec<String>, bool) {
    let place = Place::new(&format!("{}{}", worker("w", 1), builder("b", "w", &["true"])));
    let master = place.master();
    let mut raw = RawWorker::attached(&master, "w", Vec::new());
    master.force("b");
    let (build, _, command) = raw.take_build();
    raw.log(build, &command, 0, WRONG);
    say_end(&mut raw, build, &command);
    let asked = raw.hear_until(|frame| match frame {
        MasterFrame::LogAgain { build, command, log } => {
            Some((*build, command.clone(), log.clone()))
        }
        _ => None,
    });
    assert_eq!(asked, (build, command.clone(), STDIO.to_owned()));
    next(&mut raw, build, &command);
    let again = raw.hear_until(|frame| match frame {
        MasterFrame::LogAgain { .. } => Some(true),
        MasterFrame::BuildFinished { .. } => Some(false),
        _ => None,
    });
    assert!(!again, "it was asked twice");
    master.ended_as("b", 1, 0);
    let row = master.one("builders/b/builds/1/steps/0/logs/stdio").unwrap();
    let marked = row["incomplete"].as_str().is_some_and(|text| text.starts_with("digest: "));
    (master.log("b", 1, 0, 'o'), marked)
}

#[test]
fn fl04_a_log_whose_digest_differs_is_asked_for_once_and_mended() {
    let (lines, marked) = told_again(|raw, build, command| {
        raw.log(build, command, 0, RIGHT);
        say_end(raw, build, command);
    });
    assert_eq!((lines, marked), (vec![RIGHT.trim().to_owned()], false));
}

#[test]
fn fl04_a_log_that_differs_again_is_kept_and_marked() {
    let (lines, marked) = told_again(|raw, build, command| {
        raw.log(build, command, 0, WRONG);
        say_end(raw, build, command);
    });
    assert_eq!((lines, marked), (vec![WRONG.trim().to_owned()], true));
}

#[test]
fn fl04_a_worker_that_has_not_got_it_any_more_holds_nobody_up() {
    let (lines, marked) = told_again(|raw, _, _| {
        let (code, message) = ("unexpected".into(), "those bytes are gone".into());
        raw.say(&WorkerFrame::Error(WireError { code, message }));
    });
    assert_eq!((lines, marked), (vec![WRONG.trim().to_owned()], true));
}

#[test]
fn fl11_text_for_a_closed_log_is_ignored_and_for_one_never_opened_refused() {
    let place = Place::new(&format!(
        "{}{}{}",
        worker("w", 2),
        builder("b", "w", &["true", "true"]),
        builder("c", "w", &["true"])
    ));
    let master = place.master();
    let mut raw = RawWorker::attached(&master, "w", Vec::new());
    master.force("b");
    let (build, _, first) = raw.take_build();
    raw.log(build, &first, 0, "first\n");
    raw.say(&finished(build, &first, 6));
    let second = raw.hear_until(|frame| match frame {
        MasterFrame::StartCommand { command, .. } => Some(command.clone()),
        _ => None,
    });
    raw.say(&WorkerFrame::CommandStarted { build, command: second.clone() });
    // Of a step that ended: ignored, counted, and nothing is added.
    raw.log(build, &first, 6, "late\n");
    until("it is counted", || {
        (master.ignored("log text that nobody waits for") == 1).then_some(())
    });
    raw.log(build, &second, 0, "second\n");
    raw.say(&finished(build, &second, 7));
    raw.hear_until(|frame| matches!(frame, MasterFrame::BuildFinished { .. }).then_some(()));
    master.ended_as("b", 1, 0);
    // Of a build that ended.
    raw.log(build, &second, 7, "late\n");
    until("it is counted", || (master.ignored("frame of a build that ended") == 1).then_some(()));
    assert_eq!(master.log("b", 1, 0, 'o'), ["first"]);
    assert_eq!(master.log("b", 1, 1, 'o'), ["second"]);

    // Of a running build's command that there never was.
    master.force("c");
    let (build, ..) = raw.take_build();
    raw.log(build, &CommandId::from("c-99-7"), 0, "invented\n");
    let (code, message, _) = raw.turned_away();
    assert_eq!(code, "not_yours", "{message}");
    // Of a build that never was.
    let mut raw = RawWorker::attached(&master, "w", Vec::new());
    raw.log(BuildId(99), &CommandId::from("c-99-0"), 0, "invented\n");
    let (code, message, _) = raw.turned_away();
    assert_eq!(code, "not_yours", "{message}");
}
