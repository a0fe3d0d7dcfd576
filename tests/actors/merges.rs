//! Requests that share a build, name their worker, or wait for others of their
//! builder, through the whole master.

use std::sync::Arc;

use botmaster::core::ids::*;
use botmaster::core::values::*;
use botmaster::messages::{CancelRequest, Refusal, StopBuild, Submission};

use crate::house::{House, builder, story, submission};
use crate::robot::Say;

fn merging(name: &str, workers: &[&str]) -> BuilderConfig {
    BuilderConfig { merge: Merge::SameSource, ..builder(name, workers) }
}

fn for_worker(worker: &str) -> Submission {
    let property = Property { value: worker.into(), source: "Force Build Form".into() };
    let properties = Arc::new(Properties::from([("workername".into(), property)]));
    Submission { properties, ..submission("a") }
}

async fn cancel(house: &House, request: RequestId) -> Result<bool, Refusal> {
    let builder = "a".into();
    house.handle.cancel(CancelRequest { request, builder, reason: "no".into() }).await
}

#[test]
fn b09_equal_requests_share_one_build_and_its_result() {
    story(|| async {
        let house = House::open(&[("w1", 1)], vec![merging("a", &["w1"])]).await;
        let ids = house.submit("a", 5).await;
        let w1 = house.robot("w1");
        house.all_built(&ids, &[&w1]).await;
        assert_eq!(w1.starts().len(), 1);
        assert_eq!(house.number("SELECT count(*) FROM build_requests"), 5);
        assert_eq!(house.number("SELECT request_id FROM builds"), ids[0].0);
        assert_eq!(house.number("SELECT count(*) FROM builds WHERE number = 1"), 1);
        house.close();
    });
}

#[test]
fn b08_merged_requests_whose_ping_fails_come_back_in_order_and_merge_anew() {
    story(|| async {
        let house = House::open(&[("w1", 1), ("w2", 1)], vec![merging("a", &["w1", "w2"])]).await;
        let [w1] = house.robots(["w1"]).await;
        w1.hold(Say::Pong);
        let mut ids = house.submit("a", 1).await;
        house.until("it pings", || w1.held_back(Say::Pong) == 1).await;
        ids.extend(house.submit("a", 3).await);
        let before = house.texts("SELECT id || ' ' || submitted_at FROM requests ORDER BY id");
        w1.go();
        house.until("it waits again", || house.requests_in(0) == 4).await;
        let w2 = house.robot("w2");
        house.all_built(&ids, &[&w2]).await;
        assert_eq!(w2.starts().len(), 1, "all four share the second try");
        let after = house.texts("SELECT id || ' ' || submitted_at FROM requests ORDER BY id");
        assert_eq!(before, after);
        assert_eq!(house.number("SELECT max(infra_tries) FROM requests"), 0, "nothing ran");
        house.close();
    });
}

#[test]
fn b25_merged_requests_of_a_lost_build_are_built_again_together() {
    story(|| async {
        let house = House::open(&[("w1", 1), ("w2", 1)], vec![merging("a", &["w1", "w2"])]).await;
        let ids = house.submit("a", 3).await;
        let w1 = house.robot("w1");
        w1.hold(Say::Finish);
        house.until("it runs", || w1.held_back(Say::Finish) == 1).await;
        w1.go();
        house.until("they wait again", || house.requests_in(0) == 3).await;
        let w2 = house.robot("w2");
        house.until("they are built", || house.requests_in(2) == 3).await;
        assert_eq!(w2.ran(), ids);
        assert_eq!(w2.starts().len(), 1);
        let tries = "SELECT count(*) FROM requests WHERE infra_tries = 1";
        assert_eq!(house.number(tries), 3, "each of them has used one try");
        house.close();
    });
}

#[test]
fn b07_one_merged_request_leaves_during_the_ping_and_the_build_goes_on() {
    story(|| async {
        let house = House::open(&[("w1", 1)], vec![merging("a", &["w1"])]).await;
        let ids = house.submit("a", 3).await;
        let w1 = house.robot("w1");
        w1.hold(Say::Pong);
        house.until("it pings", || w1.held_back(Say::Pong) == 1).await;
        assert_eq!(cancel(&house, ids[0]).await, Ok(true));
        assert_eq!(house.requests_in(3), 1, "i12: it is durable before it is told");
        w1.release(Say::Pong);
        house.all_built(&ids[1..], &[&w1]).await;
        assert_eq!(w1.starts().len(), 1);
        assert_eq!(house.number("SELECT request_id FROM builds"), ids[1].0);
        house.close();
    });
}

#[test]
fn b07_the_last_merged_request_that_leaves_frees_the_worker() {
    story(|| async {
        let house = House::open(&[("w1", 1)], vec![merging("a", &["w1"])]).await;
        let ids = house.submit("a", 2).await;
        let w1 = house.robot("w1");
        w1.hold(Say::Pong);
        house.until("it pings", || w1.held_back(Say::Pong) == 1).await;
        assert_eq!(cancel(&house, ids[1]).await, Ok(true));
        assert_eq!(cancel(&house, ids[0]).await, Ok(true));
        w1.release(Say::Pong);
        house.nothing_is_taken().await;
        assert!(w1.starts().is_empty());
        assert_eq!((house.requests_in(3), house.number("SELECT count(*) FROM builds")), (2, 0));
        let again = house.submit("a", 1).await;
        house.all_built(&again, &[&w1]).await;
        house.close();
    });
}

#[test]
fn b07_a_cancel_after_the_start_was_sent_is_false_and_changes_nothing() {
    story(|| async {
        let house = House::open(&[("w1", 1)], vec![merging("a", &["w1"])]).await;
        let ids = house.submit("a", 2).await;
        let w1 = house.robot("w1");
        w1.hold(Say::Accept).hold(Say::Finish);
        house.until("it is asked", || w1.held_back(Say::Accept) == 1).await;
        assert_eq!(cancel(&house, ids[1]).await, Ok(false), "the start was sent");
        w1.release(Say::Accept);
        house.until("it runs", || w1.held_back(Say::Finish) == 1).await;
        assert_eq!(cancel(&house, ids[1]).await, Ok(false), "it runs");
        w1.release(Say::Finish);
        house.all_built(&ids, &[&w1]).await;
        house.close();
    });
}

#[test]
fn ff01_a_cancel_that_races_with_the_claim_wins_or_changes_nothing() {
    for merge in [Merge::None, Merge::SameSource] {
        story(move || async move {
            let a = BuilderConfig { merge, ..builder("a", &["w1", "w2"]) };
            let house = House::open(&[("w1", 2), ("w2", 2)], vec![a]).await;
            let robots = house.robots(["w1", "w2"]).await;
            let mut told = Vec::new();
            // Each time a little later in the life of a start.
            for round in 0..60 {
                let ids = house.submit("a", 2).await;
                for _ in 0..round * 4 {
                    tokio::task::yield_now().await;
                }
                told.push((ids[1], cancel(&house, ids[1]).await.unwrap()));
            }
            house
                .until("all have ended", || house.requests_in(2) + house.requests_in(3) == 120)
                .await;
            house.nothing_is_taken().await;
            let ran: Vec<_> = robots.iter().flat_map(|robot| robot.ran()).collect();
            for (id, cancelled) in told {
                let state = house.number(&format!("SELECT state FROM requests WHERE id = {id}"));
                let times = ran.iter().filter(|other| **other == id).count();
                assert_eq!((state, times), if cancelled { (3, 0) } else { (2, 1) }, "{id}");
            }
            house.close();
        });
    }
}

#[test]
fn ff03_a_build_is_stopped_between_its_start_and_the_answer() {
    story(|| async {
        let house = House::open(&[("w1", 1)], vec![merging("a", &["w1"])]).await;
        house.submit("a", 2).await;
        let w1 = house.robot("w1");
        w1.hold(Say::Accept).hold(Say::Finish);
        house.until("it is asked", || w1.held_back(Say::Accept) == 1).await;
        let stop = StopBuild { build: w1.starts()[0], builder: "a".into(), reason: "no".into() };
        assert_eq!(house.handle.stop(stop).await, Ok(true));
        w1.release(Say::Accept);
        house.until("both ended with it", || house.requests_in(2) == 2).await;
        assert_eq!(house.number("SELECT results FROM builds"), 6);
        house.nothing_is_taken().await;
        house.close();
    });
}

#[test]
fn b11_a_named_worker_that_is_away_blocks_nobody() {
    story(|| async {
        let house = House::open(&[("w1", 1), ("w2", 1)], vec![builder("a", &["w1", "w2"])]).await;
        let [w1] = house.robots(["w1"]).await;
        let named = house.handle.submit(vec![for_worker("w2")]).await.unwrap()[0].requests[0].1;
        let others = house.submit("a", 2).await;
        house.until("those behind it are built", || house.requests_in(2) == 2).await;
        assert_eq!(w1.ran(), others);
        let w2 = house.robot("w2");
        house.until("it is built where it wants", || house.requests_in(2) == 3).await;
        assert_eq!(w2.ran(), [named]);
        house.close();
    });
}

#[test]
fn b12_a_worker_that_is_not_the_builders_is_refused_at_once() {
    story(|| async {
        let house = House::open(&[("w1", 1), ("w2", 1)], vec![builder("a", &["w1", "w2"])]).await;
        let refused = house.handle.submit(vec![for_worker("w9")]).await.unwrap_err();
        assert_eq!(
            refused.to_string(),
            "builder `a` has no worker `w9`, which the property `workername` names; \
             its workers are: w1, w2"
        );
        assert_eq!(house.number("SELECT count(*) FROM requests"), 0);
        let soon = Submission { soon: true, ..for_worker("w2") };
        let [_w1] = house.robots(["w1"]).await;
        let refused = house.handle.submit(vec![soon]).await.unwrap_err();
        assert_eq!(refused, Refusal::NoWorker("a".into()), "c01: the one that is there is another");
        house.close();
    });
}

#[test]
fn b11_max_builds_of_a_builder_holds_beside_free_workers() {
    story(|| async {
        let a = BuilderConfig { max_builds: Some(2), ..builder("a", &["w1", "w2", "w3"]) };
        let house = House::open(&[("w1", 1), ("w2", 1), ("w3", 1)], vec![a]).await;
        let robots = house.robots(["w1", "w2", "w3"]).await;
        robots.iter().for_each(|robot| {
            robot.hold(Say::Finish);
        });
        let ids = house.submit("a", 6).await;
        let running = || robots.iter().map(|robot| robot.held_back(Say::Finish)).sum::<usize>();
        house.until("two run", || running() == 2).await;
        // Each end lets one more begin, never a third beside two.
        for _ in 0..4 {
            let busy = robots.iter().find(|robot| robot.held_back(Say::Finish) > 0).unwrap();
            busy.release(Say::Finish);
            busy.hold(Say::Finish);
            house.until("two run again", || running() == 2).await;
            assert_eq!(house.number("SELECT count(*) FROM builds WHERE state < 2"), 2);
        }
        robots.iter().for_each(|robot| robot.release(Say::Finish));
        house.all_built(&ids, &robots.iter().collect::<Vec<_>>()).await;
        house.close();
    });
}

#[test]
fn b20_merging_and_named_workers_are_the_same_after_a_restart() {
    story(|| async {
        let house = House::open(&[("w1", 1), ("w2", 1)], vec![merging("a", &["w1", "w2"])]).await;
        let named = house.handle.submit(vec![for_worker("w2")]).await.unwrap()[0].requests[0].1;
        let ids = house.submit("a", 3).await;
        let house = house.next_master(|_| {}).await;
        let w1 = house.robot("w1");
        house.until("the others are built", || house.requests_in(2) == 3).await;
        assert_eq!((w1.ran(), w1.starts().len()), (ids, 1));
        let w2 = house.robot("w2");
        house.until("it is built where it wants", || house.requests_in(2) == 4).await;
        assert_eq!(w2.ran(), [named]);
        house.close();
    });
}
