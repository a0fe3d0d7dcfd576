//! Actors that panic: what is lost is one message, and what it did is found
//! again in the store (fault rows FM05 and FM06).

use std::time::Duration;

use botmaster::core::ids::RequestId;
use botmaster::faults;
use botmaster::messages::Refusal;
use botmaster::settings::Timers;

use crate::house::*;
use crate::robot::{Robot, Say};

/// A queue of twenty behind a running build; `point` panics once while the
/// queue is worked off.
fn in_the_middle_of_a_queue(point: &'static str, times: u32) {
    story_with_faults(move || async move {
        let builders = vec![builder("a", &["w1", "w2"]), builder("b", &["w1", "w2"])];
        let house = House::open(&[("w1", 1), ("w2", 1)], builders).await;
        let [w1, w2] = house.robots(["w1", "w2"]).await;
        w1.hold(Say::Finish);
        w2.hold(Say::Finish);
        let mut ids = house.submit("a", 3).await;
        house.until("two run", || w1.held_back(Say::Finish) + w2.held_back(Say::Finish) == 2).await;
        let before = house.texts(NUMBERS);
        // The second of them ends first, so that a build of before goes on
        // through all that follows.
        w2.release(Say::Finish);
        faults::arm(point, times);
        ids.extend(house.submit("a", 17).await);
        house.until("it panicked and stands again", || restarts(&house, "a") >= times).await;
        faults::disarm_all();
        assert_eq!(w1.held_back(Say::Finish), 1, "the running build goes on");
        assert_eq!(house.texts(NUMBERS)[0], before[0], "it is the same build");
        w1.release(Say::Finish);
        let other = house.submit("b", 2).await;
        ids.extend(other);
        house.all_built(&ids, &[&w1, &w2]).await;
        house.close();
    });
}

const NUMBERS: &str = "SELECT id || ' ' || claim || ' ' || number FROM builds ORDER BY id LIMIT 1";

fn restarts(house: &House, name: &str) -> u32 {
    house.board.builder(&name.into()).map_or(0, |view| view.restarts)
}

#[test]
fn fm05_a_builder_panics_over_a_submission() {
    in_the_middle_of_a_queue("builder.submit", 1);
}

#[test]
fn fm05_a_builder_panics_over_submissions_in_a_row() {
    in_the_middle_of_a_queue("builder.submit", 4);
}

#[test]
fn fm05_a_builder_panics_when_it_gets_a_slot() {
    in_the_middle_of_a_queue("builder.slot_granted", 1);
}

#[test]
fn fm05_a_builder_panics_when_its_claim_is_durable() {
    in_the_middle_of_a_queue("builder.claimed", 2);
}

#[test]
fn fm05_a_builder_panics_when_a_start_is_accepted() {
    in_the_middle_of_a_queue("builder.start_accepted", 1);
}

#[test]
fn fm05_a_builder_panics_when_a_build_ends() {
    in_the_middle_of_a_queue("builder.build_finished", 2);
}

#[test]
fn fm05_a_builder_panics_when_it_shall_try_to_start() {
    story_with_faults(|| async {
        let builders = vec![builder("a", &["w1"]), builder("b", &["w1"])];
        let house = House::open(&[("w1", 1)], builders).await;
        let [w1] = house.robots(["w1"]).await;
        w1.hold(Say::Finish);
        let mut ids = house.submit("b", 1).await;
        house.until("the other builder has the worker", || w1.held_back(Say::Finish) == 1).await;
        ids.extend(house.submit("a", 20).await);
        house
            .until("this one was refused", || {
                house.seat(&house.settings.builders[0], "w1") == "busy"
            })
            .await;
        faults::arm("builder.maybe_start", 1);
        w1.release(Say::Finish);
        house.all_built(&ids, &[&w1]).await;
        assert_eq!(restarts(&house, "a") + restarts(&house, "b"), 1);
        house.close();
    });
}

#[test]
fn fm05_a_builder_panics_over_an_attach() {
    story_with_faults(|| async {
        let house = House::open(&[("w1", 1)], vec![builder("a", &["w1"])]).await;
        let ids = house.submit("a", 2).await;
        faults::arm("builder.attach", 1);
        let w1 = house.robot("w1");
        house.all_built(&ids, &[&w1]).await;
        assert_eq!(w1.connections(), 1, "the worker did not have to come again");
        assert_eq!(restarts(&house, "a"), 1);
        house.close();
    });
}

#[test]
fn fm05_a_restarted_builder_never_gives_a_claim_a_used_name() {
    story_with_faults(|| async {
        let house = House::open(&[("w1", 1), ("w2", 1)], vec![builder("a", &["w1", "w2"])]).await;
        // The very first claim of this builder runs through the panic.
        let w1 = house.robot("w1");
        w1.hold(Say::Finish);
        let mut ids = house.submit("a", 1).await;
        house.until("it runs", || w1.held_back(Say::Finish) == 1).await;
        faults::arm("builder.submit", 1);
        ids.extend(house.submit("a", 3).await);
        house.until("it stands again", || restarts(&house, "a") == 1).await;
        let w2 = house.robot("w2");
        house.until("the others are built", || house.requests_in(2) == 3).await;
        assert!(!w2.ran().contains(&ids[0]), "the running build is not given away again");
        w1.release(Say::Finish);
        house.all_built(&ids, &[&w1, &w2]).await;
        house.close();
    });
}

#[test]
fn fm06_a_builder_that_keeps_panicking_is_shown_broken_and_the_others_go_on() {
    story_with_faults(|| async {
        // One slot: what the broken builder held must come back.
        let builders = vec![builder("a", &["w1"]), builder("b", &["w1"])];
        let house = House::open(&[("w1", 1)], builders).await;
        let [w1] = house.robots(["w1"]).await;
        w1.hold(Say::Finish);
        let mine = house.submit("a", 2).await;
        house.until("it runs", || w1.held_back(Say::Finish) == 1).await;
        break_it(&house).await;
        let refused = house.try_submit("a").await;
        assert!(matches!(refused, Err(Refusal::Broken { .. })), "{refused:?}");
        w1.release(Say::Finish);
        let others = house.submit("b", 3).await;
        built(&house, &w1, &mine[..1]).await;
        built(&house, &w1, &others).await;
        assert!(house.requests_in(0) > 0, "its queue waits in the store");
        house.close();
    });
}

#[test]
fn fm06_slots_of_starts_on_their_way_come_back_from_a_broken_builder() {
    story_with_faults(|| async {
        let builders = vec![builder("a", &["w1"]), builder("b", &["w1"])];
        let house = House::open(&[("w1", 1)], builders).await;
        let [w1] = house.robots(["w1"]).await;
        w1.hold(Say::Pong);
        house.submit("a", 1).await;
        house.until("it pings", || w1.held_back(Say::Pong) == 1).await;
        break_it(&house).await;
        w1.release(Say::Pong);
        let others = house.submit("b", 3).await;
        built(&house, &w1, &others).await;
        house.close();
    });
}

#[test]
fn fm06_a_builder_that_was_reloaded_is_shown_broken_just_the_same() {
    story_with_faults(|| async {
        let builders = vec![builder("a", &["w1"]), builder("b", &["w1"])];
        let mut house = House::open(&[("w1", 1)], builders).await;
        let [w1] = house.robots(["w1"]).await;
        house.reload(|settings| edit(settings, "a").description = Some("new".into())).await;
        break_it(&house).await;
        let others = house.submit("b", 3).await;
        built(&house, &w1, &others).await;
        house.close();
    });
}

#[test]
fn fm06_a_builder_that_panics_at_its_start_does_not_hold_up_the_master() {
    story_with_faults(|| async {
        faults::arm("builder.event", 0);
        let builders = vec![builder("a", &["w1"]), builder("b", &["w1"])];
        let house = House::open(&[("w1", 1)], builders).await;
        let ids = house.submit("b", 1).await;
        let w1 = house.robot("w1");
        house.all_built(&ids, &[&w1]).await;
        house.close();
    });
}

/// Makes builder `a` panic more often than it may.
pub async fn break_it(house: &House) {
    faults::arm("builder.submit", 6);
    for times in 1..=6 {
        // The last one may be refused already.
        let _ = house.try_submit("a").await;
        house
            .until("it panicked", || {
                let view = house.board.builder(&"a".into()).unwrap();
                view.broken.is_some() || view.restarts >= times
            })
            .await;
    }
    house
        .until("it is shown as broken, with the reason", || {
            let view = house.board.builder(&"a".into()).unwrap();
            view.broken.as_ref().is_some_and(|reason| reason.contains("builder.submit"))
        })
        .await;
    faults::disarm_all();
}

/// Waits until these were built, and no slot is in use.
async fn built(house: &House, robot: &Robot, ids: &[RequestId]) {
    house
        .until("the requests are done", || {
            let done = |id: &RequestId| {
                house.number(&format!("SELECT state FROM requests WHERE id = {id}")) == 2
            };
            ids.iter().all(done)
        })
        .await;
    assert!(ids.iter().all(|id| robot.ran().contains(id)));
    house.until("no slot is in use", || house.board.worker(&"w1".into()).unwrap().used == 0).await;
}

#[test]
fn a_slave_builder_that_panics_gets_its_worker_back() {
    story_with_faults(|| async {
        let house = House::open(&[("w1", 1)], vec![builder("a", &["w1"])]).await;
        let [w1] = house.robots(["w1"]).await;
        faults::arm("slave_builder.news", 1);
        let ids = house.submit("a", 3).await;
        house.until("all are built", || house.requests_in(2) == 3).await;
        assert!(ids.iter().all(|id| w1.ran().contains(id)));
        house.nothing_is_taken().await;
        assert!(w1.connections() > 1, "it came again");
        house.close();
    });
}

#[test]
fn a_slave_builder_that_panics_over_a_start_gives_the_request_back() {
    story_with_faults(|| async {
        let house = House::open(&[("w1", 1)], vec![builder("a", &["w1"])]).await;
        let [w1] = house.robots(["w1"]).await;
        faults::arm("slave_builder.start", 1);
        let ids = house.submit("a", 2).await;
        house.all_built(&ids, &[&w1]).await;
        house.close();
    });
}

/// The Worker actor panics once at `point`, with three workers so that one that
/// is left alone for a while holds up nobody.
fn a_worker_actor_panics(point: &'static str) {
    story_with_faults(move || async move {
        // Short, since a worker whose hello is lost is found by its silence.
        let timers = Timers { heartbeat: Duration::from_secs(1), ..timers() };
        let names = ["w1", "w2", "w3"];
        let builders = vec![builder("a", &names)];
        let house = House::open_with(timers, &names.map(|name| (name, 1)), builders).await;
        let robots = house.robots(names).await;
        let connections = || robots.iter().map(Robot::connections).sum::<u32>();
        house.submit("a", 3).await;
        house.until("the first are built", || house.requests_in(2) == 3).await;
        faults::arm(point, 1);
        if point == "worker.hello" {
            robots[0].hang_up();
        }
        house.submit("a", 9).await;
        house.until("all are built", || house.requests_in(2) == 12).await;
        house.nothing_is_taken().await;
        assert!(connections() > 3, "one came again");
        house.until("all are there", || robots.iter().all(Robot::attached)).await;
        house.close();
    });
}

#[test]
fn a_worker_actor_that_panics_over_a_frame_gets_its_worker_back() {
    a_worker_actor_panics("worker.frame");
}

#[test]
fn a_worker_actor_that_panics_over_a_hello_gets_its_worker_back() {
    a_worker_actor_panics("worker.hello");
}

#[test]
fn a_worker_actor_that_panics_when_it_is_asked_for_a_slot_leaves_nobody_waiting() {
    a_worker_actor_panics("worker.ask_slot");
}

#[test]
fn a_worker_actor_that_gives_up_offers_its_worker_no_more() {
    story_with_faults(|| async {
        let house = House::open(&[("w1", 1), ("w2", 1)], vec![builder("a", &["w1", "w2"])]).await;
        let w1 = house.robot("w1");
        house
            .until("it is there", || house.seat(&house.settings.builders[0], "w1") == "idle")
            .await;
        faults::arm("worker.frame", 6);
        for times in 1..=6 {
            house.until("it came again", || w1.connections() > times).await;
        }
        faults::disarm_all();
        house.until("it is gone", || house.seat(&house.settings.builders[0], "w1") == "none").await;
        let ids = house.submit("a", 3).await;
        let w2 = house.robot("w2");
        house.until("the other builds all", || w2.ran().len() == 3).await;
        assert_eq!(w2.ran(), ids);
        house.close();
    });
}

#[test]
fn ff11_a_build_that_panics_ends_as_exception_and_frees_its_worker() {
    story_with_faults(|| async {
        let house = House::open(&[("w1", 1)], vec![builder("a", &["w1"])]).await;
        let [w1] = house.robots(["w1"]).await;
        faults::arm("build.command_finished", 1);
        house.submit("a", 4).await;
        house.until("all ended", || house.requests_in(2) == 4).await;
        house.nothing_is_taken().await;
        let broken =
            "SELECT count(*) FROM builds WHERE results = 4 AND state_string LIKE '%exception%'";
        assert_eq!(house.number(broken), 1, "{:?}", house.texts("SELECT state_string FROM builds"));
        assert_eq!(house.number("SELECT count(*) FROM builds WHERE results = 0"), 3);
        house.until("the worker keeps none of them", || w1.keeps() == 0).await;
        house.close();
    });
}

/// The very first thing that the master does about the build fails: nothing of
/// it was written, and nothing was sent.
#[test]
fn fb10_a_build_whose_setup_fails_in_the_master_is_an_exception_and_the_next_one_starts() {
    story_with_faults(|| async {
        let house = House::open(&[("w1", 1)], vec![builder("a", &["w1"])]).await;
        let [w1] = house.robots(["w1"]).await;
        faults::arm("build.step", 1);
        house.submit("a", 3).await;
        house.until("all ended", || house.requests_in(2) == 3).await;
        house.nothing_is_taken().await;
        let ends = "SELECT number || ' ' || results || ' ' || state_string FROM builds ORDER BY id";
        let ends = house.texts(ends);
        assert!(
            ends[0].starts_with("1 4 exception: the master's part of the build failed"),
            "{ends:?}"
        );
        assert!(ends[1].starts_with("2 0 ") && ends[2].starts_with("3 0 "), "{ends:?}");
        house.until("the worker keeps none of them", || w1.keeps() == 0).await;
        house.close();
    });
}

/// A Builder asks for a slot, a reload retires it, and it panics over the
/// answer. What it had asked for is in nobody's memory then: its successor
/// knows nothing of it, and it is not stored yet.
#[test]
fn fm05_i08_a_slot_is_free_again_when_a_retired_builder_panics_over_it() {
    story_with_faults(|| async {
        let mut house = House::open(&[("w1", 2)], vec![builder("a", &["w1"])]).await;
        let [w1] = house.robots(["w1"]).await;
        let mut ids = Vec::new();
        for round in 0..40u32 {
            faults::arm("builder.slot_granted", 1);
            let handle = house.handle.clone();
            let asked = actix_rt::spawn(async move { handle.submit(vec![submission("a")]).await });
            // Sooner or later it is between the question and the answer.
            tokio::time::sleep(Duration::from_micros(u64::from(round) * 50)).await;
            house
                .reload(|settings| {
                    edit(settings, "a").env.insert("ROUND".into(), round.to_string());
                })
                .await;
            ids.push(asked.await.unwrap().unwrap()[0].requests[0].1);
            faults::disarm_all();
            house.all_built(&ids, &[&w1]).await;
            house.nothing_is_taken().await;
        }
        house.close();
    });
}
