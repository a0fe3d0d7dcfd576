//! A new master on the data of the one before.

use std::time::Duration;

use botmaster::core::values::OnLost;
use botmaster::protocol::json_v1::Outcome;

use crate::house::*;
use crate::robot::Say;

#[test]
fn fm03_builds_go_on_over_a_restart_of_the_master() {
    story(|| async {
        let mut a = builder_with_steps("a", &["w1"], 2);
        a.grace = LIMIT * 2;
        let house = House::open(&[("w1", 1)], vec![a]).await;
        let [w1] = house.robots(["w1"]).await;
        w1.hold(Say::Finish);
        let ids = house.submit("a", 3).await;
        house.until("the first runs", || w1.held_back(Say::Finish) == 1).await;
        w1.go();
        let house = house.next_master(|_| {}).await;
        w1.move_to(house.greeter.clone());
        w1.come_back();
        w1.release(Say::Finish);
        house.until("all are built", || house.requests_in(2) == 3).await;
        let ran: Vec<_> = w1.ran().chunks(2).map(|pair| pair[0]).collect();
        assert_eq!(ran, ids, "in order, each once");
        assert_eq!(w1.ran().len(), 6, "both steps of each, once");
        house.nothing_is_taken().await;
        house.close();
    });
}

#[test]
fn a_step_that_went_wrong_before_a_restart_still_counts_after_it() {
    story(|| async {
        let mut a = builder_with_steps("a", &["w1"], 3);
        a.grace = LIMIT * 2;
        let mut factory = (*a.factory).clone();
        factory.steps[2].always_run = true;
        a.factory_digest = botmaster::settings::factory_digest(&factory).unwrap();
        a.factory = factory.into();
        let house = House::open(&[("w1", 1)], vec![a]).await;
        let [w1] = house.robots(["w1"]).await;
        w1.will_end([Outcome::Killed("somebody did".into())]);
        w1.hold(Say::Finish);
        house.submit("a", 1).await;
        house.until("its first step runs", || w1.held_back(Say::Finish) == 1).await;
        w1.release(Say::Finish);
        w1.hold(Say::Finish);
        house.until("its last step runs", || w1.ran().len() == 2).await;
        w1.go();
        let house = house.next_master(|_| {}).await;
        w1.move_to(house.greeter.clone());
        w1.come_back();
        w1.release(Say::Finish);
        house.until("it ended", || house.requests_in(2) == 1).await;
        assert_eq!(house.number("SELECT results FROM builds"), 4, "an exception, no success");
        assert_eq!(w1.ran().len(), 2, "the second step was skipped, the third ran once");
        house.nothing_is_taken().await;
        house.close();
    });
}

/// A build's worker is not in the configuration of the next master.
fn without_its_worker(on_lost: OnLost, results: &'static str, runs: usize) {
    story(move || async move {
        let mut a = builder("a", &["w1", "w2"]);
        a.on_lost = on_lost;
        let grace = a.grace;
        let house = House::open(&[("w1", 1), ("w2", 1)], vec![a]).await;
        let w1 = house.robot("w1");
        w1.hold(Say::Finish);
        let ids = house.submit("a", 1).await;
        house.until("it runs", || w1.held_back(Say::Finish) == 1).await;
        w1.go();
        let began = std::time::Instant::now();
        let house = house
            .next_master(|settings| {
                settings.workers.retain(|worker| worker.config.name.as_str() == "w2");
                edit(settings, "a").workers = vec!["w2".into()];
            })
            .await;
        let w2 = house.robot("w2");
        house.until("its request is done", || house.requests_in(2) == 1).await;
        assert_eq!(w2.ran(), vec![ids[0]; runs]);
        assert!(runs == 0 || began.elapsed() >= grace, "not before the grace is over");
        let text = "SELECT group_concat(results) FROM builds ORDER BY id";
        assert_eq!(house.texts(text), [results]);
        house.nothing_is_taken().await;
        house.close();
    });
}

#[test]
fn a_build_whose_worker_is_not_configured_any_more_is_lost_after_the_grace() {
    without_its_worker(OnLost::Requeue, "5,0", 1);
}

/// The actor that waits for the grace is succeeded meanwhile, and has nothing
/// else left to do: it must not go before that build has ended.
#[test]
fn b25_t02_such_a_build_ends_although_its_builder_is_changed_meanwhile() {
    story(|| async {
        let mut a = builder("a", &["w1", "w2"]);
        // Longer than a predecessor with nothing left listens for late mail.
        a.grace = std::time::Duration::from_secs(6);
        let house = House::open(&[("w1", 1), ("w2", 1)], vec![a]).await;
        let w1 = house.robot("w1");
        w1.hold(Say::Finish);
        let ids = house.submit("a", 1).await;
        house.until("it runs", || w1.held_back(Say::Finish) == 1).await;
        w1.go();
        let mut house = house
            .next_master(|settings| {
                settings.workers.retain(|worker| worker.config.name.as_str() == "w2");
                edit(settings, "a").workers = vec!["w2".into()];
            })
            .await;
        house.reload(|settings| drop(edit(settings, "a").env.insert("A".into(), "1".into()))).await;
        let w2 = house.robot("w2");
        house.until("its request is done", || house.requests_in(2) == 1).await;
        assert_eq!(w2.ran(), ids);
        house.nothing_is_taken().await;
        house.close();
    });
}

#[test]
fn fr19_a_deploy_whose_worker_is_not_configured_any_more_does_not_run_again() {
    without_its_worker(OnLost::Fail, "4", 0);
}

#[test]
fn i01_what_was_being_started_is_started_again() {
    story(|| async {
        for held in [Say::Pong, Say::Accept] {
            let house = House::open(&[("w1", 1)], vec![builder("a", &["w1"])]).await;
            let [w1] = house.robots(["w1"]).await;
            w1.hold(held);
            let ids = house.submit("a", 3).await;
            house.until("it is held back", || w1.held_back(held) == 1).await;
            w1.go();
            let house = house.next_master(|_| {}).await;
            w1.release(held);
            w1.move_to(house.greeter.clone());
            w1.come_back();
            house.all_built(&ids, &[&w1]).await;
            assert_eq!(w1.ran(), ids, "in order");
            house.until("nothing is left at the worker", || w1.keeps() == 0).await;
            house.close();
        }
    });
}

#[test]
fn fa13_a_paused_worker_is_paused_still() {
    story(|| async {
        let house = House::open(&[("w1", 1)], vec![builder("a", &["w1"])]).await;
        let [w1] = house.robots(["w1"]).await;
        let order = |order| botmaster::messages::OrderWorker {
            worker: "w1".into(),
            order,
            reason: "repair".into(),
        };
        use botmaster::messages::WorkerOrder::{Pause, Unpause};
        house.handle.order(order(Pause)).await.unwrap();
        let house = house.next_master(|_| {}).await;
        w1.move_to(house.greeter.clone());
        house
            .until("it came again", || house.seat(&house.settings.builders[0], "w1") == "idle")
            .await;
        let ids = house.submit("a", 1).await;
        let short = Duration::from_millis(300);
        assert!(!house.comes_true(short, || !w1.starts().is_empty()).await);
        house.handle.order(order(Unpause)).await.unwrap();
        house.all_built(&ids, &[&w1]).await;
        house.close();
    });
}
