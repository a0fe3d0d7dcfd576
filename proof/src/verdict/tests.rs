//! A judgement that has never been seen to find anything is a wish: each rule
//! is broken once.
#![allow(clippy::unwrap_used)]

use botmaster::core::ids::{BuildNumber, BuilderId, Epoch, LogId, WorkerId};
use botmaster::store::{BuildState, RequestState};
use botmaster_sim::history::{Build, Request};

use super::*;

/// What a run left, to be spoilt.
struct Left {
    held: Held,
    logs: Vec<(HeldLog, String)>,
    ran: Vec<StepRun>,
    told: Vec<Told>,
    wishes: BTreeMap<RequestId, Wish>,
    events: Vec<What>,
}

const SECOND: i64 = 1_000_000;

fn request(id: u64, result: BuildResult) -> Request {
    Request {
        id: RequestId(id),
        builder: BuilderId(1),
        priority: 0,
        state: RequestState::Done,
        epoch: Epoch(1),
        claimed_at: Some(1),
        result: Some(result),
        requeued: false,
        pinned: false,
    }
}

fn build(id: u64, of: u64, epoch: u64, result: BuildResult) -> Build {
    Build {
        id: BuildId(id),
        number: Some(BuildNumber(id)),
        builder: BuilderId(1),
        worker: WorkerId(1),
        state: BuildState::Finished,
        result: Some(result),
        requests: vec![(RequestId(of), Epoch(epoch))],
        has_steps: true,
    }
}

fn run(build: u64, step: u64, begin: i64, end: i64) -> StepRun {
    let wrote = format!("build {build} step {step} line 1\n");
    let (begin, alive) = (begin * SECOND, end * SECOND);
    StepRun { build, step, pid: build * 10 + step, begin, alive, ended: true, wrote }
}

fn log(id: u64, build: u64, step: u64) -> (HeldLog, String) {
    let (id, build_id) = (LogId(id), BuildId(build));
    let log = HeldLog { id, build: build_id, step, complete: true, incomplete: None };
    (log, format!("build {build} step {step} line 1\n"))
}

impl Left {
    /// Request 1 was lost in build 1 and built in build 2; 2 was stopped in
    /// build 3.
    fn well() -> Self {
        let mut held = Held::default();
        let mut first = request(1, BuildResult::Success);
        first.epoch = Epoch(2);
        held.requests.insert(RequestId(1), first);
        held.requests.insert(RequestId(2), request(2, BuildResult::Cancelled));
        for build in [
            build(1, 1, 1, BuildResult::Retry),
            build(2, 1, 2, BuildResult::Success),
            build(3, 2, 1, BuildResult::Cancelled),
        ] {
            held.builds.insert(build.id, build);
        }
        held.workers.insert(WorkerId(1), "w".into());
        held.keys.insert("one".into(), vec![RequestId(1)]);
        held.keys.insert("two".into(), vec![RequestId(2)]);
        let mut lost = run(1, 0, 1, 2);
        lost.ended = false;
        let mut stopped = run(3, 0, 6, 7);
        stopped.ended = false;
        let logs = vec![log(1, 1, 0), log(2, 2, 0), log(3, 2, 1), log(4, 3, 0)];
        held.logs = logs.iter().map(|(log, _)| log.clone()).collect();
        let told = |id: u64, key: &str| Told::Submitted {
            at: SECOND,
            request: RequestId(id),
            key: Some(key.into()),
        };
        Self {
            held,
            logs,
            ran: vec![lost, run(2, 0, 3, 4), run(2, 1, 4, 5), stopped],
            told: vec![
                told(1, "one"),
                told(2, "two"),
                Told::Stopped { at: 6 * SECOND, build: BuildId(3) },
            ],
            wishes: [(RequestId(1), Wish::Built), (RequestId(2), Wish::Stopped)].into(),
            events: vec![
                What::RequestNew(Request {
                    state: RequestState::Queued,
                    result: None,
                    ..request(1, BuildResult::Success)
                }),
                What::BuildNew(Build { result: None, ..build(2, 1, 2, BuildResult::Success) }),
                What::BuildFinished(build(2, 1, 2, BuildResult::Success)),
                What::RequestComplete(request(1, BuildResult::Success)),
            ],
        }
    }

    fn weighed(self) -> Verdict {
        let diary = Diary::of(self.told, self.wishes);
        for (what, seq) in self.events.into_iter().zip(1..) {
            diary.heard(Event { seq, at: SECOND, what });
        }
        let slots = [("w".to_owned(), 1)].into();
        weigh(&self.held, &self.logs, &self.ran, &diary, &slots)
    }
}

/// What is found after something was spoilt.
fn spoilt(spoil: impl FnOnce(&mut Left)) -> Verdict {
    let mut left = Left::well();
    spoil(&mut left);
    left.weighed()
}

#[track_caller]
fn says(verdict: &Verdict, words: &str) {
    let found = verdict.violations.iter().any(|text| text.contains(words));
    assert!(found, "nothing says `{words}`: {:#?}", verdict.violations);
}

#[test]
fn what_is_well_is_well() {
    let verdict = Left::well().weighed();
    assert_eq!(verdict.violations, Vec::<String>::new());
    assert_eq!((verdict.requests, verdict.builds, verdict.rebuilt, verdict.runs), (2, 3, 1, 4));
}

#[test]
fn a_request_that_is_gone_or_has_another_end_is_lost() {
    let gone = spoilt(|left| left.held.requests.retain(|id, _| *id != RequestId(2)));
    says(&gone, "I1: request 2 was acknowledged and is not there");
    assert_eq!(gone.lost, 1);
    let waits = spoilt(|left| {
        let row = left.held.requests.get_mut(&RequestId(1)).unwrap();
        (row.state, row.result) = (RequestState::Queued, None);
    });
    says(&waits, "I6: request 1 never ended");
    assert_eq!(waits.lost, 1);
    let failed = spoilt(|left| {
        left.held.requests.get_mut(&RequestId(1)).unwrap().result = Some(BuildResult::Exception);
    });
    says(&failed, "request 1 should be Built and ended as exception");
}

#[test]
fn a_success_of_which_a_step_never_ended_is_no_success() {
    let verdict = spoilt(|left| left.ran[2].ended = false);
    says(&verdict, "succeeded in build 2, whose step 1 never came to its end");
    assert_eq!(verdict.lost, 1);
}

#[test]
fn two_runs_of_a_request_at_once_are_found_by_their_own_times() {
    // The lost build's process lived on beside its successor.
    let verdict = spoilt(|left| left.ran[0].alive = 4 * SECOND);
    says(&verdict, "I3: request 1 ran twice at once");
    assert!(verdict.overlapped > 0);
}

#[test]
fn a_step_that_ran_twice_in_a_build_is_found() {
    let verdict = spoilt(|left| {
        let again =
            StepRun { pid: 99, begin: 8 * SECOND, alive: 9 * SECOND, ..left.ran[1].clone() };
        left.ran.push(again);
    });
    says(&verdict, "I2: step 0 of build 2 ran 2 times");
}

#[test]
fn a_run_of_a_build_that_never_started_is_found() {
    let verdict = spoilt(|left| left.held.builds.get_mut(&BuildId(1)).unwrap().number = None);
    says(&verdict, "I12: a step of build 1 ran");
    says(&spoilt(|left| left.ran.push(run(9, 0, 8, 9))), "I12: a step of build 9 ran");
}

#[test]
fn a_log_that_is_not_what_was_written_is_found() {
    for text in ["build 2 step 1 line", "build 2 step 1 line 1\nbuild 2 step 1 line 1\n", "x", ""] {
        let verdict = spoilt(|left| left.logs[2].1 = text.to_owned());
        says(&verdict, "I9: log 3 of build 2");
        assert_eq!(verdict.log_differences, 1, "{text:?}");
    }
    let cut = spoilt(|left| left.held.logs[2].incomplete = Some("told short".into()));
    says(&cut, "I9: log 3 of build 2, which succeeded: told short");
    // Of a run that was killed the log may lack the last line, and nothing else.
    assert!(spoilt(|left| left.logs[0].1.clear()).violations.is_empty());
    says(&spoilt(|left| left.logs[0].1 = "more".into()), "I9: log 1 of build 1 differs");
}

#[test]
fn a_key_that_was_stored_twice_or_answered_differently_is_found() {
    let twice = spoilt(|left| left.held.keys.get_mut("one").unwrap().push(RequestId(7)));
    says(&twice, "FQ01: `one` was answered with request 1");
    let other = spoilt(|left| {
        let (at, request, key) = (2 * SECOND, RequestId(2), Some("one".to_owned()));
        left.told.push(Told::Submitted { at, request, key });
    });
    says(&other, "I2: the submission `one` was stored more than once");
}

#[test]
fn a_request_that_is_built_after_a_stop_is_found() {
    let verdict = spoilt(|left| {
        let again = build(4, 2, 2, BuildResult::Cancelled);
        left.held.builds.insert(again.id, again);
    });
    says(&verdict, "I7: request 2 went to build 4 after 3 was stopped");
    let ran = spoilt(|left| left.wishes.extend([(RequestId(2), Wish::NeverRuns)]));
    says(&ran, "request 2 should be NeverRuns");
}

#[test]
fn a_number_given_twice_and_too_many_builds_at_once_are_found() {
    let numbers = spoilt(|left| {
        left.held.builds.get_mut(&BuildId(3)).unwrap().number = Some(BuildNumber(2));
    });
    says(&numbers, "I8: builder 1 has two builds with number 2");
    let busy = spoilt(|left| left.ran[3].begin = 4 * SECOND);
    says(&busy, "I5: worker w ran 2 builds");
}

#[test]
fn an_event_of_what_is_not_so_is_found() {
    let request_gone = spoilt(|left| {
        left.events.push(What::RequestNew(request(9, BuildResult::Success)));
    });
    says(&request_gone, "I1: request 9 has an event and is not there");
    let build_gone = spoilt(|left| {
        left.events.push(What::BuildNew(build(9, 1, 3, BuildResult::Success)));
    });
    says(&build_gone, "I12: build 9 was told with number 9, and the store has None");
    let other_end = spoilt(|left| {
        left.events[2] = What::BuildFinished(build(2, 1, 2, BuildResult::Failure));
    });
    says(&other_end, "I7: build 2 ended and has another result now");
    let after_the_end = spoilt(|left| {
        left.events.push(What::RequestClaimed(request(1, BuildResult::Success)));
    });
    says(&after_the_end, "I7: request 1 has an event after its end");
}
