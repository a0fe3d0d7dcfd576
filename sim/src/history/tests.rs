//! A good history has no finding; each kind of fault, put into it by hand, is
//! found, and nothing else is.

use std::collections::BTreeMap;
use std::sync::Arc;

use botmaster::core::ids::*;
use botmaster::core::time::WallTime;
use botmaster::core::values::*;
use botmaster::store::*;

use super::*;
use crate::memory::MemoryStore;

const SECOND: Micros = 1_000_000;

/// Writes a history by hand, on a store.
struct Story {
    store: MemoryStore,
    recorder: Recorder,
    now: Micros,
    claims: u128,
}

impl Story {
    fn begin() -> Self {
        let mut story = Self {
            store: MemoryStore::new(),
            recorder: Recorder::default(),
            now: SECOND,
            claims: 0,
        };
        story.recorder.history.lives.push(1);
        story.recorder.history.calm = true;
        for name in ["w1", "w2"] {
            story.write(Op::DeclareWorker { name: name.into() });
            let limit = Limit { worker: name.into(), from: 0, max_builds: 1 };
            story.recorder.history.limits.push(limit);
        }
        for worker in [WorkerId(1), WorkerId(2)] {
            story.write(Op::AttachWorker { worker, info: BTreeMap::new(), at: WallTime(0) });
        }
        story.write(Op::DeclareBuilder {
            name: "b".into(),
            description: None,
            tags: vec![],
            workers: vec!["w1".into(), "w2".into()],
        });
        story
    }

    fn at(&self) -> WallTime {
        WallTime(self.now)
    }

    fn write(&mut self, op: Op) -> OpOutcome {
        let first = self.store.events().len() as u64 + 1;
        let (written, changes) = self.store.apply(&Transaction::of(op));
        for (seq, change) in (first..).zip(&changes) {
            self.recorder.published(self.now, seq, change);
        }
        written.unwrap().pop().unwrap()
    }

    fn tell(&mut self, told: Told) {
        self.recorder.history.told.push(told);
    }

    fn submit(&mut self, priority: i64) -> RequestId {
        self.now += SECOND;
        let new = NewBuildset {
            external_id: None,
            idempotency_key: None,
            reason: String::new(),
            scheduler: "force".into(),
            submitted_at: self.at(),
            rebuilt_build: None,
            sourcestamps: vec![],
            properties: Arc::default(),
            builders: vec![BuilderId(1)],
            priority,
            waited_for: false,
        };
        let OpOutcome::Buildset { requests, .. } = self.write(Op::AddBuildset(new)) else {
            panic!()
        };
        let request = requests[0].id;
        self.tell(Told::Submitted { at: self.now, request, key: None });
        request
    }

    fn claim(&mut self, requests: &[RequestId], worker: u64) -> BuildId {
        self.now += SECOND;
        self.claims += 1;
        let epochs = requests.iter().map(|id| (*id, self.store.request(*id).unwrap().epoch));
        let claim = Op::Claim {
            claim: ClaimId(self.claims),
            builder: BuilderId(1),
            worker: WorkerId(worker),
            incarnation: Incarnation(1),
            requests: epochs.collect(),
            factory_digest: "d".into(),
            grace: std::time::Duration::ZERO,
            at: self.at(),
        };
        let OpOutcome::Claimed { build, .. } = self.write(claim) else { panic!() };
        build.id
    }

    /// Starts a build and runs its command for a second.
    fn run(&mut self, build: BuildId) {
        let (incarnation, properties) = (Incarnation(1), Arc::default());
        self.write(Op::StartBuild {
            build,
            incarnation,
            properties,
            grace: std::time::Duration::ZERO,
            at: self.at(),
        });
        let requests = self.store.build(build).unwrap().requests.clone();
        let worker = self.store.build(build).unwrap().row.worker;
        let run = Run {
            worker: format!("w{worker}").as_str().into(),
            instance: format!("i{worker}"),
            build,
            requests,
            command: CommandId::for_step(build, 0),
            begin: self.now,
            end: Some(self.now + SECOND),
            killed: false,
        };
        self.recorder.history.ran.push(run);
        self.now += SECOND;
    }

    fn finish(&mut self, build: BuildId, result: BuildResult, requests: RequestsAfter) {
        self.now += SECOND;
        self.write(Op::FinishBuild {
            build,
            incarnation: Incarnation(1),
            result,
            state_string: String::new(),
            requests,
            at: self.at(),
        });
        if requests == RequestsAfter::Done {
            for (request, _) in self.store.build(build).unwrap().requests.clone() {
                self.tell(Told::Ended { at: self.now, request, result });
            }
        }
    }

    fn done(&mut self, build: BuildId) {
        self.finish(build, BuildResult::Success, RequestsAfter::Done);
    }

    fn end(mut self) -> History {
        self.recorder.keep_store(&self.store);
        self.recorder.history
    }
}

/// Two requests merged into one build, one that is lost once and runs again,
/// one cancelled, and logs.
fn good() -> History {
    let mut story = Story::begin();
    let (first, second, third) = (story.submit(0), story.submit(5), story.submit(0));
    let build = story.claim(&[second, third], 1);
    story.run(build);
    story.done(build);
    let lost = story.claim(&[first], 2);
    story.run(lost);
    story.finish(lost, BuildResult::Retry, RequestsAfter::Requeue { infra: true });
    let unwanted = story.submit(9);
    let again = story.claim(&[first], 1);
    story.run(again);
    let at = story.at();
    story.write(Op::CancelRequests { requests: vec![unwanted], at });
    let at = story.now;
    story.tell(Told::Cancelled { at, request: unwanted, done: true });
    story.done(again);
    story.recorder.history.logs.push(Log {
        log: LogId(1),
        build,
        written: "one\ntwo\n".into(),
        stored: "one\ntwo\n".into(),
        complete: true,
        incomplete: None,
    });
    story.end()
}

fn findings(history: &History) -> Vec<Finding> {
    check(history, &Leeway::default())
}

/// Exactly one invariant is broken, and a finding says this of it.
fn assert_found(history: &History, invariant: Invariant, text: &str) {
    let findings = findings(history);
    assert!(findings.iter().any(|f| f.text.contains(text)), "`{text}` in {findings:#?}");
    assert!(findings.iter().all(|f| f.invariant == invariant), "{invariant}: {findings:#?}");
}

fn requests(history: &mut History, change: impl Fn(&mut Request)) {
    for event in &mut history.events {
        match &mut event.what {
            What::RequestNew(row)
            | What::RequestClaimed(row)
            | What::RequestUnclaimed(row)
            | What::RequestComplete(row)
            | What::RequestUpdated(row) => change(row),
            What::BuildNew(_) | What::BuildFinished(_) | What::Other(_) => {}
        }
    }
    history.requests.values_mut().for_each(change);
}

fn event(history: &History, is: impl Fn(&What) -> bool) -> usize {
    history.events.iter().position(|event| is(&event.what)).unwrap()
}

/// Takes an event out without a gap.
fn without_event(history: &mut History, place: usize) {
    history.events.remove(place);
    for event in history.events.iter_mut().skip(place) {
        event.seq -= 1;
    }
}

#[test]
fn a_good_history_has_no_finding() {
    let history = good();
    assert_eq!(findings(&history), []);
    assert_eq!((history.requests.len(), history.builds.len(), history.ran.len()), (4, 3, 3));
}

#[test]
fn a_history_is_the_same_after_it_was_written_and_read() {
    let history = good();
    let mut lines = Vec::new();
    history.write(&mut lines).unwrap();
    assert_eq!(History::read(lines.as_slice()).unwrap(), history);
    let error = History::read(&b"\n{\"kind\":\"calm\"}\n{\"kind\":\"odd\"}\n"[..]).unwrap_err();
    assert!(error.to_string().starts_with("line 3 of the history"), "{error}");
}

#[test]
fn i01_a_request_that_is_gone_is_found() {
    let mut history = good();
    history.requests.remove(&RequestId(4));
    assert_found(&history, Invariant::I1, "request 4 was acknowledged and is not there");
}

#[test]
fn i01_a_claimed_request_without_a_build_and_a_result_from_nowhere_are_found() {
    let mut story = Story::begin();
    let request = story.submit(0);
    story.claim(&[request], 1);
    let mut history = story.end();
    history.calm = false;
    assert_eq!(findings(&history), []);
    history.builds.clear();
    assert_found(&history, Invariant::I1, "request 1 is claimed by no build");

    let mut history = good();
    history.ran.remove(0);
    assert_found(&history, Invariant::I1, "build 1 has a result and no worker ran any of it");
}

#[test]
fn i02_a_request_that_two_builds_ended_is_found() {
    let mut history = good();
    let build = history.builds.get_mut(&BuildId(2)).unwrap();
    build.result = Some(BuildResult::Success);
    let end = event(
        &history,
        |what| matches!(what, What::BuildFinished(build) if build.id == BuildId(2)),
    );
    let What::BuildFinished(build) = &mut history.events[end].what else { panic!() };
    build.result = Some(BuildResult::Success);
    assert_found(&history, Invariant::I2, "request 1 is Done and 2 builds ended for it");
}

#[test]
fn i02_a_request_with_two_live_builds_is_found() {
    let mut story = Story::begin();
    let request = story.submit(0);
    let build = story.claim(&[request], 1);
    let mut history = story.end();
    history.calm = false;
    let twin = Build { id: BuildId(9), ..history.builds[&build].clone() };
    history.builds.insert(twin.id, twin);
    assert_found(&history, Invariant::I2, "2 live builds have it");
}

#[test]
fn i02_a_claim_without_its_epoch_is_found() {
    let mut history = good();
    requests(&mut history, |row| {
        if row.id == RequestId(1) && row.epoch == Epoch(2) {
            row.epoch = Epoch(1);
        }
    });
    for run in &mut history.ran {
        for (_, epoch) in &mut run.requests {
            *epoch = Epoch(1);
        }
    }
    let all = findings(&history);
    let text = "request 1 was claimed in an epoch that is not the next";
    assert!(all.iter().any(|f| f.invariant == Invariant::I2 && f.text == text), "{all:#?}");
}

#[test]
fn i02_a_submission_stored_twice_under_one_key_is_found() {
    let mut history = good();
    for told in &mut history.told {
        if let Told::Submitted { request, key, .. } = told
            && request.0 <= 2
        {
            *key = Some("k".into());
        }
    }
    assert_found(&history, Invariant::I2, "the submission `k` was stored more than once");
}

#[test]
fn i02_a_command_that_begins_after_its_claim_was_taken_back_is_found() {
    let mut history = good();
    let mut late = history.ran[1].clone();
    late.begin += 60 * SECOND;
    late.end = late.end.map(|end| end + 60 * SECOND);
    late.command = CommandId::for_step(BuildId(2), 1);
    history.ran.push(late);
    // The request has ended meanwhile; before that it would be a second claim.
    assert_found(&history, Invariant::I7, "long after epoch 1 was over");
    let leeway = Leeway { late: 100 * SECOND, ..Leeway::default() };
    assert_eq!(check(&history, &leeway), []);
}

#[test]
fn i03_two_commands_at_once_for_a_request_are_found() {
    let mut history = good();
    history.ran[1].end = Some(history.ran[2].begin + 1);
    assert_found(
        &history,
        Invariant::I3,
        "request 1 ran twice at once: c-2-0 on w2 and c-3-0 on w1",
    );
    history.ran[1].end = None;
    assert_found(&history, Invariant::I3, "request 1 ran twice at once");
    history.ran[1].end = Some(history.ran[2].begin);
    assert_eq!(findings(&history), []);
}

#[test]
fn i03_a_long_command_is_found_beside_a_later_one() {
    let mut history = good();
    // Behind a short one in between.
    history.ran[1].end = Some(history.ran[2].end.unwrap() + SECOND);
    let mut short = history.ran[1].clone();
    short.begin += 1;
    short.end = Some(short.begin + 1);
    short.requests = vec![(RequestId(1), Epoch(1))];
    history.ran.push(short);
    let all = findings(&history);
    assert_eq!(all.iter().filter(|f| f.invariant == Invariant::I3).count(), 2, "{all:#?}");
}

#[test]
fn i05_more_builds_than_a_worker_may_have_are_found() {
    let mut story = Story::begin();
    let (one, two) = (story.submit(0), story.submit(0));
    let (first, second) = (story.claim(&[one], 1), story.claim(&[two], 1));
    story.run(first);
    story.now -= SECOND / 2;
    story.run(second);
    story.done(first);
    story.done(second);
    let mut history = story.end();
    assert_found(&history, Invariant::I5, "worker w1 ran 2 builds");
    // The limit had only just fallen.
    let begin = history.ran[1].begin;
    history.limits = vec![
        Limit { worker: "w1".into(), from: 0, max_builds: 2 },
        Limit { worker: "w1".into(), from: begin - 10, max_builds: 1 },
    ];
    assert_found(&history, Invariant::I5, "worker w1 ran 2 builds");
    let leeway = Leeway { limit: 20, ..Leeway::default() };
    assert_eq!(check(&history, &leeway), []);
}

#[test]
fn i06_what_never_ended_is_found_when_it_was_calm() {
    let mut story = Story::begin();
    story.submit(0);
    let mut history = story.end();
    assert_found(&history, Invariant::I6, "request 1 never ended");
    history.calm = false;
    assert_eq!(findings(&history), []);
}

#[test]
fn i07_a_result_that_changed_is_found() {
    let mut history = good();
    history.requests.get_mut(&RequestId(2)).unwrap().result = Some(BuildResult::Failure);
    assert_found(&history, Invariant::I7, "request 2 was told as success and is now failure");
    assert_found(&history, Invariant::I7, "request 2 ended and has another result now");

    let mut history = good();
    history.builds.get_mut(&BuildId(1)).unwrap().result = Some(BuildResult::Failure);
    assert_found(&history, Invariant::I7, "build 1 ended and has another result now");
}

#[test]
fn i07_a_cancelled_request_that_runs_again_is_found() {
    let mut history = good();
    let at = history.ran[2].begin - 2 * SECOND;
    history.told.push(Told::Cancelled { at, request: RequestId(1), done: true });
    assert_found(&history, Invariant::I7, "request 1 was given to a build after its cancel");
    let Some(Told::Cancelled { done, .. }) = history.told.last_mut() else { panic!() };
    *done = false;
    assert_eq!(findings(&history), []);
}

#[test]
fn i07_a_stopped_build_whose_requests_run_again_is_found() {
    let mut history = good();
    let at = history.ran[1].begin;
    history.told.push(Told::Stopped { at, build: BuildId(2) });
    assert_found(&history, Invariant::I7, "request 1 was given to a build after 2, which had it");
    let claimed = event(
        &history,
        |what| matches!(what, What::RequestClaimed(row) if row.id == RequestId(1) && row.epoch == Epoch(2)),
    );
    // Nor does a crash excuse it.
    history.lives.push(history.events[claimed].seq);
    assert_found(&history, Invariant::I7, "request 1 was given to a build after 2, which had it");
}

#[test]
fn i08_numbers_that_repeat_or_fall_are_found() {
    let mut history = good();
    history.builds.get_mut(&BuildId(3)).unwrap().number = Some(BuildNumber(1));
    assert_found(&history, Invariant::I8, "builder 1 has two builds with number 1");

    let mut history = good();
    let last = event(&history, |what| matches!(what, What::BuildNew(b) if b.id == BuildId(3)));
    let What::BuildNew(build) = &mut history.events[last].what else { panic!() };
    build.number = Some(BuildNumber(2));
    assert_found(&history, Invariant::I8, "build 3 of builder 1 got number 2 after");
}

#[test]
fn i09_log_text_that_differs_or_is_missing_is_found() {
    let mut history = good();
    history.logs[0].stored = "one\none\ntwo\n".into();
    assert_found(&history, Invariant::I9, "log 1 of build 1 differs from byte 4 on");
    history.logs[0].stored = "one\n".into();
    assert_found(&history, Invariant::I9, "is closed as whole with 4 of 8 bytes");
    history.logs[0].incomplete = Some("the build ended without it".into());
    assert_eq!(findings(&history), []);
    history.logs[0].complete = false;
    assert_found(&history, Invariant::I6, "log 1 of build 1 was never closed");
}

#[test]
fn i10_a_request_that_begins_before_its_turn_is_found() {
    let mut story = Story::begin();
    let (low, high) = (story.submit(0), story.submit(3));
    for request in [low, high] {
        let build = story.claim(&[request], 1);
        story.run(build);
        story.done(build);
    }
    let mut history = story.end();
    assert_found(&history, Invariant::I10, "request 1 of builder 1 began before request 2");
    // It may be that the first one's start was tried beside it, and failed.
    let leeway = Leeway { overtakes: 1, ..Leeway::default() };
    assert_eq!(check(&history, &leeway), []);
    let leeway = Leeway { order: 2 * SECOND, ..Leeway::default() };
    assert_eq!(check(&history, &leeway), []);
    requests(&mut history, |row| row.pinned = row.id == high);
    assert_eq!(findings(&history), []);
}

#[test]
fn i10_what_was_started_before_goes_first() {
    let mut story = Story::begin();
    let (first, second) = (story.submit(0), story.submit(9));
    let lost = story.claim(&[second], 1);
    story.run(lost);
    story.finish(lost, BuildResult::Retry, RequestsAfter::Requeue { infra: true });
    story.submit(20);
    for request in [RequestId(3), second, first] {
        let build = story.claim(&[request], 1);
        story.run(build);
        story.done(build);
    }
    let all = findings(&story.end());
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(all[0].text, "request 3 of builder 1 began before request 2, whose turn it was");
}

#[test]
fn i11_gaps_repetitions_and_missing_events_are_found() {
    let mut history = good();
    history.events.remove(10);
    let all = findings(&history);
    assert!(all.iter().any(|f| f.text == "events 11 to 11 were never told"), "{all:#?}");
    let place = event(&good(), |what| matches!(what, What::Other(_)));
    let mut history = good();
    history.events.remove(place + 1);
    assert_found(&history, Invariant::I11, "events 2 to 2 were never told");
    history.lives.push(3);
    assert_eq!(findings(&history), []);

    let mut history = good();
    let twice = history.events[3].clone();
    history.events.insert(4, twice);
    assert_found(&history, Invariant::I11, "event 4 was told after event 4");

    let mut history = good();
    let claimed = event(&history, |what| matches!(what, What::BuildFinished(_)));
    without_event(&mut history, claimed);
    assert_found(&history, Invariant::I11, "build 1 began or ended without an event");
}

#[test]
fn i11_a_request_without_its_last_event_is_found() {
    let mut story = Story::begin();
    let request = story.submit(0);
    story.claim(&[request], 1);
    let mut history = story.end();
    history.calm = false;
    let claimed = event(&history, |what| matches!(what, What::RequestClaimed(_)));
    without_event(&mut history, claimed);
    assert_found(&history, Invariant::I11, "request 1 is Claimed and its last event is another");
    let leeway = Leeway { events_may_miss: true, ..Leeway::default() };
    assert_eq!(check(&history, &leeway), []);
}

#[test]
fn i12_what_is_told_before_it_is_stored_is_found() {
    let mut history = good();
    let Told::Submitted { at, .. } = &mut history.told[0] else { panic!() };
    *at -= 1;
    assert_found(&history, Invariant::I12, "request 1 was acknowledged before it was stored");

    let mut history = good();
    for told in &mut history.told {
        if let Told::Ended { at, .. } = told {
            *at -= 1;
        }
    }
    assert_found(&history, Invariant::I12, "request 3 was shown as ended before it had");
}

#[test]
fn i12_a_command_that_runs_before_its_claim_is_stored_is_found() {
    let mut history = good();
    history.ran[0].begin -= 10;
    assert_found(&history, Invariant::I12, "command c-1-0 ran before its claim was stored");
    let mut history = good();
    history.ran[0].requests[0].1 = Epoch(7);
    assert_found(&history, Invariant::I12, "in epoch 7, which nobody claimed");
}
