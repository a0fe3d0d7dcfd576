//! A stop that was told is a stop, whatever comes after it (invariant I12).

use botmaster::core::values::OnLost;
use botmaster::faults;
use botmaster::messages::{Refusal, StopBuild};

use crate::house::*;
use crate::robot::{Robot, Say};

/// Stops the build that the worker runs.
async fn stop(house: &House, w1: &Robot) -> Result<bool, Refusal> {
    let build = w1.starts()[0];
    house.handle.stop(StopBuild { build, builder: "a".into(), reason: "enough".into() }).await
}

/// What the store keeps of stops.
fn kept(house: &House) -> Vec<String> {
    house.texts("SELECT stop_reason FROM builds WHERE stop_reason IS NOT NULL")
}

/// How the only build there ever was ended.
fn end(house: &House) -> Vec<String> {
    house.texts("SELECT results || ' ' || state_string FROM builds")
}

const CANCELLED: &str = "6 cancelled (enough)";

#[test]
fn ff02_a_stop_is_recorded_at_once_while_the_worker_does_not_answer() {
    story(|| async {
        let house = House::open(&[("w1", 1)], vec![builder("a", &["w1"])]).await;
        let [w1] = house.robots(["w1"]).await;
        w1.hold(Say::Finish).be_deaf();
        house.submit("a", 1).await;
        house.until("it runs", || w1.held_back(Say::Finish) == 1).await;
        assert_eq!(stop(&house, &w1).await, Ok(true));
        // That is so when it is told, not later.
        assert_eq!(kept(&house), ["enough"]);
        assert_eq!(house.texts("SELECT state_string FROM builds"), ["stopping (enough)"]);
        assert_eq!(stop(&house, &w1).await, Ok(true), "ff04");
        house.until("it is told to end it", || w1.interrupts() == 1).await;
        w1.release(Say::Finish);
        house.until("it ended", || house.requests_in(2) == 1).await;
        assert_eq!(end(&house), [CANCELLED]);
        assert_eq!(w1.interrupts(), 1, "ff04");
        house.nothing_is_taken().await;
        house.close();
    });
}

#[test]
fn i12_a_stop_that_was_told_survives_a_restart() {
    story(|| async {
        let mut a = builder("a", &["w1"]);
        a.on_lost = OnLost::Wait;
        let house = House::open(&[("w1", 1)], vec![a]).await;
        let [w1] = house.robots(["w1"]).await;
        w1.hold(Say::Finish).be_deaf();
        let ids = house.submit("a", 2).await;
        house.until("it runs", || w1.held_back(Say::Finish) == 1).await;
        assert_eq!(stop(&house, &w1).await, Ok(true));
        w1.go();
        let house = house.next_master(|_| {}).await;
        // Its worker is away, and nothing else would ever end it.
        let first = "SELECT count(*) FROM builds WHERE state = 2 AND results = 6";
        house.until("it ended as cancelled", || house.number(first) == 1).await;
        w1.release_nothing(Say::Finish);
        w1.move_to(house.greeter.clone());
        w1.come_back();
        house.until("the next one is built", || house.requests_in(2) == 2).await;
        assert_eq!(w1.ran(), ids, "each once");
        house.until("the worker keeps none of them", || w1.keeps() == 0).await;
        house.nothing_is_taken().await;
        house.close();
    });
}

#[test]
fn ff05_a_stopped_build_whose_worker_is_gone_for_good_is_not_queued_again() {
    story(|| async {
        let house = House::open(&[("w1", 1), ("w2", 1)], vec![builder("a", &["w1", "w2"])]).await;
        let w1 = house.robot("w1");
        w1.hold(Say::Finish).be_deaf();
        house.submit("a", 1).await;
        house.until("it runs", || w1.held_back(Say::Finish) == 1).await;
        assert_eq!(stop(&house, &w1).await, Ok(true));
        w1.go();
        let house = house
            .next_master(|settings| {
                settings.workers.retain(|worker| worker.config.name.as_str() == "w2");
                edit(settings, "a").workers = vec!["w2".into()];
            })
            .await;
        let w2 = house.robot("w2");
        house.until("its request is done", || house.requests_in(2) == 1).await;
        assert_eq!(end(&house), [CANCELLED]);
        assert!(w2.starts().is_empty());
        house.nothing_is_taken().await;
        house.close();
    });
}

#[test]
fn i12_a_stop_that_is_kept_survives_a_panic_over_its_answer() {
    story_with_faults(|| async {
        let house = House::open(&[("w1", 1)], vec![builder("a", &["w1"])]).await;
        let [w1] = house.robots(["w1"]).await;
        w1.hold(Say::Finish).be_deaf();
        house.submit("a", 1).await;
        house.until("it runs", || w1.held_back(Say::Finish) == 1).await;
        faults::arm("builder.stop_saved", 1);
        // Nobody was told, and it was kept: what is durable is done.
        assert_eq!(stop(&house, &w1).await, Err(Refusal::Gone));
        assert_eq!(kept(&house), ["enough"]);
        house.until("it is told to end it", || w1.interrupts() == 1).await;
        assert_eq!(stop(&house, &w1).await, Ok(true), "it is known");
        w1.release(Say::Finish);
        house.until("it ended", || house.requests_in(2) == 1).await;
        assert_eq!(end(&house), [CANCELLED]);
        assert_eq!(w1.interrupts(), 1, "ff04");
        house.nothing_is_taken().await;
        house.close();
    });
}

#[test]
fn i12_a_stop_that_was_told_survives_a_panic() {
    story_with_faults(|| async {
        let mut a = builder("a", &["w1"]);
        a.grace = LIMIT * 2;
        let house = House::open(&[("w1", 1)], vec![a]).await;
        let [w1] = house.robots(["w1"]).await;
        w1.hold(Say::Finish).be_deaf();
        house.submit("a", 1).await;
        house.until("it runs", || w1.held_back(Say::Finish) == 1).await;
        assert_eq!(stop(&house, &w1).await, Ok(true));
        faults::arm("builder.submit", 1);
        let ids = house.submit("a", 1).await;
        w1.release_nothing(Say::Finish);
        w1.hang_up();
        house
            .until("the stopped one ended", || {
                house.number("SELECT count(*) FROM builds WHERE results = 6") == 1
            })
            .await;
        house.until("the other one is built", || house.requests_in(2) == 2).await;
        assert_eq!(w1.ran().last(), ids.last());
        assert_eq!(w1.ran().len(), 2, "each ran once");
        house.nothing_is_taken().await;
        house.close();
    });
}

#[test]
fn i12_a_stop_that_could_not_be_stored_is_an_error_and_changes_nothing() {
    story(|| async {
        let house = House::open(&[("w1", 1)], vec![builder("a", &["w1"])]).await;
        let [w1] = house.robots(["w1"]).await;
        w1.hold(Say::Finish).be_deaf();
        let ids = house.submit("a", 1).await;
        house.until("it runs", || w1.held_back(Say::Finish) == 1).await;
        house.store_is_full(true);
        let refused = stop(&house, &w1).await.unwrap_err();
        assert_eq!(refused.to_string(), "the store cannot be written: full");
        house.store_is_full(false);
        assert_eq!((kept(&house).len(), w1.interrupts()), (0, 0));
        w1.release(Say::Finish);
        house.all_built(&ids, &[&w1]).await;
        assert_eq!(stop(&house, &w1).await, Ok(false), "t02: it is over");
        house.close();
    });
}
