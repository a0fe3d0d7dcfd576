//! How long builds take: what is learnt, what a running build has left, when
//! those that wait begin and end.

use std::time::Duration;

use botmaster::core::builder::*;
use botmaster::core::values::BuildResult;
use proptest::prelude::*;

use crate::kit::*;

fn between(low: u32, likely: u32, high: u32) -> Estimate {
    Estimate { low: low * SECOND, likely: likely * SECOND, high: high * SECOND }
}

fn learnt(builds: &[&[(&str, u32)]]) -> Expectations {
    let mut expectations = Expectations::new("f1");
    for steps in builds {
        assert!(expectations.learn(&times(steps)));
    }
    expectations
}

fn alike(steps: &[(&str, u32)], builds: usize) -> Expectations {
    learnt(&vec![steps; builds])
}

#[test]
fn b19_expectations_come_from_builds_that_succeeded() {
    let mut desk = Desk::new(config(&["w1"]));
    desk.attach("w1", 1);
    for (id, result) in [(1, BuildResult::Failure), (2, BuildResult::Warnings)] {
        let (_, claim) = asked(&desk.submit(&[id]))[0];
        desk.start(claim, &[id], id);
        desk.finish_as(claim, result, Some(times(&[("test", 1)])));
        assert_eq!(expected(&desk), None, "{result}");
    }
    let (_, claim) = asked(&desk.submit(&[3]))[0];
    desk.start(claim, &[3], 3);
    let effects = desk.finish(claim);
    assert_eq!(expected(&desk), Some(4 * SECOND), "the first success");
    let saved = effects.iter().find_map(|effect| match effect {
        Effect::SaveExpectations(text) => Some(text.clone()),
        _ => None,
    });
    let read = Expectations::from_text(&saved.expect("they are kept"), "f1");
    assert_eq!(read.total(), Some(between(2, 4, 8)), "b20: they survive a restart");
}

#[test]
fn b19_learning_from_failures_is_found() {
    let story = b19_expectations_come_from_builds_that_succeeded;
    bites("expectations_learn_from_failures", story);
}

#[test]
fn b19_the_more_builds_there_are_the_narrower_the_interval() {
    let one = learnt(&[&[("a", 60)]]);
    assert_eq!(one.total(), Some(between(30, 60, 120)), "one alone: half to double");
    let many = alike(&[("a", 60)], 20).total().unwrap();
    assert_eq!(many.likely, 60 * SECOND);
    assert!(many.low > 57 * SECOND && many.high <= 63 * SECOND, "{many:?}");
    // One that stood still for an hour does not move the middle.
    let mut odd = alike(&[("a", 60)], 19);
    odd.learn(&times(&[("a", 3600)]));
    assert_eq!(odd.total().unwrap().likely, 60 * SECOND);
}

#[test]
fn b19_only_the_last_builds_count_and_steps_that_are_gone_are_forgotten() {
    let mut expectations = learnt(&[&[("old", 100), ("test", 1)]]);
    for _ in 0..WINDOW {
        expectations.learn(&times(&[("new", 1), ("test", 3)]));
    }
    assert_eq!(expectations.builds(), WINDOW);
    let names: Vec<_> = expectations.steps().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["new", "test"]);
    assert_eq!(expectations.total().unwrap().likely, 4 * SECOND);
}

#[test]
fn b20_the_text_of_an_earlier_version_counts_as_one_build() {
    let read = Expectations::from_text("1\n7\n6.500000\n2.500000=check out\n4.000000=test", "f9");
    assert_eq!(read.total().unwrap().likely, Duration::from_millis(6500));
    assert_eq!(read.steps()[1].0, "test");
    for strange in ["", "something else", "1\nx", "2\nf\n1\n5=a\tb", "3\nf\n1\n"] {
        assert_eq!(Expectations::from_text(strange, "f9"), Expectations::new("f9"), "{strange}");
    }
}

#[test]
fn b20_after_a_restart_with_another_factory_everything_is_learnt_anew() {
    let text = learnt(&[&[("test", 4)]]).to_text();
    let records = |text: &str| Records {
        queued: Vec::new(),
        builds: Vec::new(),
        inherited: Vec::new(),
        loaded_through: botmaster::core::ids::RequestId(0),
        expectations: Some(text.into()),
    };
    let rebuilt = |digest: &str| {
        let config = botmaster::core::values::BuilderConfig {
            factory_digest: digest.into(),
            ..config(&["w1"])
        };
        let mut desk = Desk::new(config);
        let (none, now) = (Default::default(), desk.now);
        desk.core.rebuild(now, records(&text), Vec::new(), &none, &none.clone(), &mut Vec::new());
        expected(&desk)
    };
    assert_eq!(rebuilt("f1"), Some(4 * SECOND));
    assert_eq!(rebuilt("f2"), None);
}

#[test]
fn b15_a_build_runs_with_what_was_expected_at_its_start() {
    let mut desk = Desk::new(config(&["w1", "w2"]));
    desk.attach("w1", 1);
    desk.attach("w2", 2);
    let start = |desk: &mut Desk, id: u64| {
        let (_, claim) = asked(&desk.submit(&[id]))[0];
        desk.effects.clear();
        desk.start(claim, &[id], id);
        let run = desk.effects.iter().find_map(|effect| match effect {
            Effect::RunBuild { expected, .. } => Some(*expected),
            _ => None,
        });
        (claim, run.expect("it runs"))
    };
    let (first, expected) = start(&mut desk, 1);
    assert_eq!(expected, None, "nothing is known");
    desk.finish(first);
    let (_, snapshot) = start(&mut desk, 2);
    let snapshot = snapshot.expect("something is known");
    assert_eq!((snapshot.learnt, snapshot.total), (1, between(2, 4, 8)));
    let mut later = learnt(&[&[("test", 4)]]);
    later.learn(&times(&[("test", 40)]));
    assert_eq!(
        later.as_of(snapshot).total(),
        Some(between(2, 4, 8)),
        "what came later is not in it"
    );
    for _ in 0..WINDOW {
        later.learn(&times(&[("test", 40)]));
    }
    assert_eq!(later.as_of(snapshot).left(None, SECOND), None, "forgotten by now");
    assert_eq!(snapshot.left(SECOND).time, between(1, 3, 7), "but for the whole");
}

#[test]
fn b19_what_is_left_is_the_rest_of_the_step_and_the_steps_after_it() {
    let known = alike(&[("get", 10), ("test", 60), ("tidy", 5)], 20);
    let left = |step, elapsed| known.left(Some((step, elapsed * SECOND)), Duration::ZERO).unwrap();
    assert_eq!(left("get", 4).time.likely, 71 * SECOND);
    assert_eq!(left("test", 20).time.likely, 45 * SECOND);
    assert_eq!(left("tidy", 1).time.likely, 4 * SECOND);
    assert_eq!(left("tidy", 1).late, None);
    // The step is not known: the whole build tells.
    let whole = known.left(Some(("other", SECOND)), 15 * SECOND).unwrap();
    assert_eq!(whole.time.likely, 60 * SECOND);
}

#[test]
fn b19_of_slow_and_fast_builds_the_slow_ones_tell_what_a_slow_one_has_left() {
    let mut known = alike(&[("test", 10)], 5);
    for _ in 0..5 {
        known.learn(&times(&[("test", 100)]));
    }
    let at = |seconds: u32| known.left(Some(("test", seconds * SECOND)), Duration::ZERO).unwrap();
    assert_eq!(at(1).time.likely, 54 * SECOND);
    assert_eq!(at(11).time.likely, 89 * SECOND, "it is none of the fast ones");
}

#[test]
fn b19_a_step_that_overruns_is_late_and_less_is_known_of_it() {
    let known = alike(&[("test", 60), ("tidy", 5)], 20);
    let at = |seconds: u32| known.left(Some(("test", seconds * SECOND)), Duration::ZERO).unwrap();
    let (soon, later) = (at(70), at(600));
    assert_eq!((soon.late, later.late), (Some(10 * SECOND), Some(540 * SECOND)));
    assert_eq!(soon.time.likely, 15 * SECOND, "as long again as it is late, and the last step");
    let width = |left: Left| left.time.high - left.time.low;
    assert!(width(later) > width(soon) && width(soon) > width(at(59)));
    assert!(later.time.likely > soon.time.likely, "never nearly done for ever");
}

/// Two workers; builds take a minute; one worker is busy for 20 s more.
#[test]
fn b19_requests_that_wait_take_the_place_that_is_free_first() {
    let minute = between(50, 60, 90);
    let seats = [
        SeatFree { free: between(10, 20, 30), own: true },
        SeatFree { free: Estimate::ZERO, own: false },
    ];
    let times = schedule(&seats, minute, None, 4);
    let starts: Vec<_> = times.iter().map(|eta| eta.start).collect();
    assert_eq!(
        starts,
        [Estimate::ZERO, between(10, 20, 30), between(50, 60, 90), between(60, 80, 120)]
    );
    assert_eq!(times[3].end, between(110, 140, 210));
}

#[test]
fn b19_a_builders_own_limit_counts() {
    let minute = between(60, 60, 60);
    let free = |seconds: u32, own| SeatFree { free: between(seconds, seconds, seconds), own };
    let likely = |seats: &[SeatFree], limit| -> Vec<u64> {
        let times = schedule(seats, minute, limit, 3);
        times.iter().map(|eta| eta.start.likely.as_secs()).collect()
    };
    let seats = [free(20, true), free(0, false), free(0, false)];
    assert_eq!(likely(&seats, None), [0, 0, 20]);
    assert_eq!(likely(&seats, Some(2)), [0, 20, 60]);
    assert_eq!(likely(&seats, Some(1)), [20, 80, 140], "the free ones may not be used");
    // The limit was lowered while two were running: the first end frees nothing.
    assert_eq!(likely(&[free(20, true), free(30, true)], Some(1)), [30, 90, 150]);
    assert!(likely(&[], None).is_empty());
    assert_eq!(schedule(&seats, minute, None, 5000).len(), QUEUED);
}

fn spans() -> impl Strategy<Value = Duration> {
    (0_u64..10_000_000).prop_map(Duration::from_micros)
}

fn estimates() -> impl Strategy<Value = Estimate> {
    prop::collection::vec(spans(), 1..6).prop_map(|spans| Estimate::of(spans).unwrap())
}

fn in_order(estimate: Estimate) -> bool {
    estimate.low <= estimate.likely && estimate.likely <= estimate.high
}

proptest! {
    #[test]
    fn an_interval_holds_its_middle(
        builds in prop::collection::vec(prop::collection::vec(spans(), 0..4), 1..30),
        step in 0_usize..5,
        elapsed in spans(),
    ) {
        let mut known = Expectations::new("f1");
        for build in &builds {
            let steps = build.iter().enumerate().map(|(i, took)| (format!("s{i}"), *took));
            known.learn(&StepTimes { factory: "f1".into(), steps: steps.collect() });
        }
        prop_assert!(in_order(known.total().unwrap()));
        for (_, estimate) in known.steps() {
            prop_assert!(in_order(estimate));
        }
        let name = format!("s{step}");
        let left = known.left(Some((&name, elapsed)), elapsed).unwrap();
        prop_assert!(in_order(left.time));
        let snapshot = known.snapshot().unwrap();
        prop_assert!(in_order(snapshot.left(elapsed).time));
        prop_assert_eq!(Expectations::from_text(&known.to_text(), "f9"), known);
    }

    #[test]
    fn who_waits_behind_another_is_never_expected_before_it(
        free in prop::collection::vec((estimates(), any::<bool>()), 0..6),
        build in estimates(),
        limit in prop::option::of(1_usize..4),
        count in 0_usize..30,
    ) {
        let seats: Vec<_> =
            free.into_iter().map(|(free, own)| SeatFree { free, own }).collect();
        let times = schedule(&seats, build, limit, count);
        prop_assert_eq!(times.len(), if seats.is_empty() { 0 } else { count });
        for eta in &times {
            prop_assert!(in_order(eta.start) && in_order(eta.end));
        }
        for pair in times.windows(2) {
            let (one, next) = (pair[0].start, pair[1].start);
            prop_assert!(one.low <= next.low && one.likely <= next.likely && one.high <= next.high);
        }
    }
}
