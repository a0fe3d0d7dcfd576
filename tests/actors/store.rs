//! A store that cannot write for a while (fault rows FD01 and FL07).

use botmaster::faults;
use botmaster::messages::{CancelRequest, Refusal, SetPriority};

use crate::house::*;
use crate::robot::Say;

/// The disk is full while the kind of answer `held` is awaited, and for the
/// answer itself.
fn full_while_waiting_for(held: Say) {
    story(move || async move {
        let house = House::open(&[("w1", 1), ("w2", 1)], vec![builder("a", &["w1", "w2"])]).await;
        let [w1, w2] = house.robots(["w1", "w2"]).await;
        w1.hold(held);
        w2.hold(held);
        let mut ids = house.submit("a", 6).await;
        house.until("two are held back", || w1.held_back(held) + w2.held_back(held) == 2).await;
        house.store_is_full(true);
        let refused = house.try_submit("a").await;
        assert!(matches!(refused, Err(Refusal::Store(_))), "nothing is acknowledged: {refused:?}");
        w1.release(held);
        w2.release(held);
        let short = std::time::Duration::from_millis(300);
        assert!(!house.comes_true(short, || house.requests_in(2) > 0).await);
        house.store_is_full(false);
        ids.extend(house.submit("a", 2).await);
        house.all_built(&ids, &[&w1, &w2]).await;
        house.close();
    });
}

#[test]
fn fd01_the_disk_is_full_while_a_start_pings() {
    full_while_waiting_for(Say::Pong);
}

#[test]
fn fd01_the_disk_is_full_when_a_start_is_accepted() {
    full_while_waiting_for(Say::Accept);
}

#[test]
fn fd01_the_disk_is_full_when_builds_end() {
    full_while_waiting_for(Say::Finish);
}

#[test]
fn fd01_the_disk_is_full_when_a_claim_is_undone() {
    story(|| async {
        let house = House::open(&[("w1", 1)], vec![builder("a", &["w1"])]).await;
        let [w1] = house.robots(["w1"]).await;
        w1.hold(Say::Pong);
        let ids = house.submit("a", 2).await;
        house.until("it pings", || w1.held_back(Say::Pong) == 1).await;
        house.store_is_full(true);
        w1.go();
        house.until("it is gone", || house.seat(&house.settings.builders[0], "w1") == "none").await;
        house.store_is_full(false);
        house.until("its request waits again", || house.requests_in(0) == 2).await;
        w1.release(Say::Pong);
        w1.come_back();
        // Its pause of ten seconds belongs to this.
        house.until_in(LIMIT * 2, "both are built", || house.requests_in(2) == 2).await;
        house.all_built(&ids, &[&w1]).await;
        house.close();
    });
}

#[test]
fn fd01_the_disk_is_full_while_a_worker_comes_back_with_its_build() {
    story(|| async {
        let mut a = builder("a", &["w1"]);
        a.grace = LIMIT * 2;
        let house = House::open(&[("w1", 1)], vec![a]).await;
        let [w1] = house.robots(["w1"]).await;
        w1.hold(Say::Finish);
        let ids = house.submit("a", 2).await;
        house.until("it runs", || w1.held_back(Say::Finish) == 1).await;
        house.store_is_full(true);
        w1.hang_up();
        house.until("it is turned away", || !w1.complaints().is_empty()).await;
        house.store_is_full(false);
        house.until("it is there again", || w1.attached()).await;
        w1.release(Say::Finish);
        house.until("both are built", || house.requests_in(2) == 2).await;
        assert_eq!(w1.ran(), ids);
        house.nothing_is_taken().await;
        house.close();
    });
}

#[test]
fn i12_what_could_not_be_stored_is_not_told() {
    story(|| async {
        let house = House::open(&[("w1", 1)], vec![builder("a", &["w1"])]).await;
        let ids = house.submit("a", 2).await;
        house.store_is_full(true);
        let cancel = || CancelRequest { request: ids[0], builder: "a".into(), reason: "no".into() };
        assert_ne!(house.handle.cancel(cancel()).await, Ok(true));
        let priority = SetPriority { request: ids[1], builder: "a".into(), priority: 9 };
        assert_ne!(house.handle.set_priority(priority).await, Ok(true));
        house.store_is_full(false);
        assert_eq!(house.handle.cancel(cancel()).await, Ok(true));
        assert_eq!(house.requests_in(3), 1);
        let w1 = house.robot("w1");
        house.until("the other is built", || house.requests_in(2) == 1).await;
        assert_eq!(w1.ran(), ids[1..]);
        house.close();
    });
}

#[test]
fn fd01_a_builder_panics_while_the_disk_is_full() {
    story_with_faults(|| async {
        let house = House::open(&[("w1", 1)], vec![builder("a", &["w1"])]).await;
        let [w1] = house.robots(["w1"]).await;
        w1.hold(Say::Finish);
        let mut ids = house.submit("a", 3).await;
        house.until("it runs", || w1.held_back(Say::Finish) == 1).await;
        faults::arm("builder.cancel", 1);
        house.store_is_full(true);
        let cancel = CancelRequest { request: ids[2], builder: "a".into(), reason: "no".into() };
        assert_eq!(house.handle.cancel(cancel).await, Err(Refusal::Gone));
        w1.release(Say::Finish);
        house.store_is_full(false);
        ids.extend(house.submit("a", 1).await);
        house.all_built(&ids, &[&w1]).await;
        house.close();
    });
}
