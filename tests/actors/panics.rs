//! Actors that panic: what is lost is one message, and what it did is found
//! again in the store (fault rows FM05 and FM06).

use std::time::Duration;

use botmaster::core::ids::RequestId;
use botmaster::faults;
use botmaster::messages::Refusal;

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
    in_the_middle_of_a_queue("builder.maybe_start", 1);
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
        built(&house, &w1, &mine[..1], &others).await;
        assert_eq!(house.requests_in(0), 1, "its queue waits in the store");
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
        built(&house, &w1, &[], &others).await;
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
        built(&house, &w1, &[], &others).await;
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
async fn break_it(house: &House) {
    faults::arm("builder.submit", 6);
    for _ in 0..6 {
        if house.try_submit("a").await.is_err() {
            break;
        }
        let stands = restarts(house, "a");
        house
            .until("it panicked", || {
                let view = house.board.builder(&"a".into()).unwrap();
                view.broken.is_some() || view.restarts > stands || stands == 0
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

async fn built(house: &House, robot: &Robot, mine: &[RequestId], others: &[RequestId]) {
    house
        .until("the other builder's requests are built", || {
            others.iter().all(|id| robot.ran().contains(id))
        })
        .await;
    let done = (mine.len() + others.len()) as u64;
    house.until("all of these are done", || house.requests_in(2) == done).await;
    house.until("no slot is in use", || house.board.worker(&"w1".into()).unwrap().used == 0).await;
}

#[test]
fn a_slave_builder_that_panics_gets_its_worker_back() {
    story_with_faults(|| async {
        let house = House::open(&[("w1", 1)], vec![builder("a", &["w1"])]).await;
        let [w1] = house.robots(["w1"]).await;
        for round in 1..=3 {
            faults::arm("slave_builder.news", 1);
            let ids = house.submit("a", 1).await;
            house.until("all are built", || house.requests_in(2) == round).await;
            assert!(w1.ran().contains(&ids[0]));
        }
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
        let soon = Duration::from_secs(13);
        assert!(
            house.comes_true(soon, || house.requests_in(2) == 2).await,
            "built after the pause\n{}",
            house.describe()
        );
        house.all_built(&ids, &[&w1]).await;
        house.close();
    });
}

#[test]
fn a_worker_actor_that_panics_gets_its_worker_back() {
    for point in ["worker.frame", "worker.hello", "worker.slot"] {
        story_with_faults(move || async move {
            // Short, since a worker whose hello is lost is found by its silence.
            let timers =
                botmaster::settings::Timers { heartbeat: Duration::from_secs(1), ..timers() };
            let house = House::open_with(timers, &[("w1", 1)], vec![builder("a", &["w1"])]).await;
            let [w1] = house.robots(["w1"]).await;
            let mut ids = house.submit("a", 3).await;
            house.until("the first three are built", || house.requests_in(2) == 3).await;
            faults::arm(point, 1);
            if point == "worker.hello" {
                w1.hang_up();
            }
            ids.extend(house.submit("a", 3).await);
            house.until("all are built", || house.requests_in(2) == 6).await;
            house.nothing_is_taken().await;
            assert!(w1.connections() > 1, "it came again");
            house.close();
        });
    }
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
