//! Workers that do not answer, refuse, and lose their connection at each stage
//! of a start.

use std::time::Duration;

use botmaster::core::values::OnLost;
use botmaster::messages::{CancelRequest, OrderWorker, WorkerOrder};

use crate::house::*;
use crate::robot::Say;

/// Two workers; the first holds an answer back, goes at that point, and the
/// second builds everything.
fn goes_while_waiting_for(held: Say) {
    story(move || async move {
        let house = House::open(&[("w1", 1), ("w2", 1)], vec![builder("a", &["w1", "w2"])]).await;
        let w1 = house.robot("w1");
        w1.hold(held);
        let ids = house.submit("a", 3).await;
        house.until("it is held back", || w1.held_back(held) == 1).await;
        w1.go();
        let w2 = house.robot("w2");
        house.until("all are built", || house.requests_in(2) == 3).await;
        let mut ran = w2.ran();
        ran.sort();
        assert_eq!(ran, ids);
        w1.release(held);
        w1.come_back();
        house.nothing_is_taken().await;
        house.until("what it had is abandoned", || w1.attached() && w1.keeps() == 0).await;
        let more = house.submit("a", 4).await;
        house.until("all are built", || house.requests_in(2) == 7).await;
        assert!(more.iter().all(|id| w1.ran().contains(id) != w2.ran().contains(id)));
        assert_eq!(house.number("SELECT count(*) FROM builds WHERE results = 0"), 7);
        house.close();
    });
}

#[test]
fn fa05_a_worker_goes_while_it_attaches() {
    goes_while_waiting_for(Say::Ready);
}

#[test]
fn fa09_a_worker_goes_while_a_start_pings() {
    goes_while_waiting_for(Say::Pong);
}

#[test]
fn fb03_a_worker_goes_before_it_answers_a_start() {
    goes_while_waiting_for(Say::Accept);
}

#[test]
fn fr03_a_worker_goes_while_it_builds_and_stays_away() {
    goes_while_waiting_for(Say::Finish);
}

#[test]
fn fr01_a_worker_that_comes_back_goes_on_with_its_build() {
    story(|| async {
        let mut a = builder_with_steps("a", &["w1"], 2);
        a.grace = LIMIT;
        let house = House::open(&[("w1", 1)], vec![a]).await;
        let [w1] = house.robots(["w1"]).await;
        w1.hold(Say::Finish);
        house.submit("a", 2).await;
        for _ in 0..3 {
            house.until("it runs", || w1.attached() && w1.held_back(Say::Finish) == 1).await;
            w1.hang_up();
            let connections = w1.connections();
            house.until("it came again", || w1.connections() > connections).await;
        }
        w1.release(Say::Finish);
        house.until("all are built", || house.requests_in(2) == 2).await;
        assert_eq!(w1.ran().len(), 4, "two steps each, each once");
        assert_eq!(house.number("SELECT count(*) FROM builds"), 2);
        house.nothing_is_taken().await;
        house.close();
    });
}

#[test]
fn fa17_a_worker_that_comes_back_without_its_build_has_lost_it() {
    story(|| async {
        let mut a = builder("a", &["w1"]);
        a.grace = LIMIT * 3;
        let house = House::open(&[("w1", 1)], vec![a]).await;
        let [w1] = house.robots(["w1"]).await;
        w1.hold(Say::Finish);
        let ids = house.submit("a", 1).await;
        house.until("it runs", || w1.held_back(Say::Finish) == 1).await;
        w1.go();
        house.until("it is away", || !house.board.worker(&"w1".into()).unwrap().connected).await;
        w1.release(Say::Finish);
        w1.come_back_empty();
        house.until("it is built again at once", || house.requests_in(2) == 1).await;
        assert_eq!(w1.ran(), [ids[0], ids[0]]);
        house.nothing_is_taken().await;
        house.close();
    });
}

#[test]
fn i09_the_log_of_a_build_that_was_lost_does_not_pass_for_a_whole_one() {
    story(|| async {
        let mut a = builder("a", &["w1"]);
        a.grace = LIMIT * 3;
        let house = House::open(&[("w1", 1)], vec![a]).await;
        let [w1] = house.robots(["w1"]).await;
        w1.hold(Say::Finish);
        house.submit("a", 1).await;
        house.until("it runs", || w1.held_back(Say::Finish) == 1).await;
        w1.go();
        house.until("it is away", || !house.board.worker(&"w1".into()).unwrap().connected).await;
        w1.release(Say::Finish);
        w1.come_back_empty();
        house.until("it is built again at once", || house.requests_in(2) == 1).await;
        let told = house.texts(
            "SELECT b.results || ' ' || coalesce(l.incomplete, 'whole') FROM builds b \
             JOIN steps s ON s.build_id = b.id JOIN logs l ON l.step_id = s.id ORDER BY b.id",
        );
        let cut = "5 the build ended before the worker had told all of it";
        assert_eq!(told, [cut, "0 whole"]);
        house.close();
    });
}

#[test]
fn fp01_a_ping_that_is_never_answered_gives_the_request_back() {
    story(|| async {
        let mut a = builder("a", &["w1", "w2"]);
        a.start_timeout = Duration::from_millis(200);
        let house = House::open(&[("w1", 1), ("w2", 1)], vec![a]).await;
        let w1 = house.robot("w1");
        w1.hold(Say::Pong);
        let ids = house.submit("a", 3).await;
        house.until("it pings", || w1.held_back(Say::Pong) == 1).await;
        let w2 = house.robot("w2");
        house.all_built(&ids, &[&w1, &w2]).await;
        assert_eq!(w2.ran()[0], ids[1], "the second was begun at once");
        assert!(w1.connections() > 1, "its connection was dropped");
        house.close();
    });
}

#[test]
fn a_start_that_is_never_answered_gives_the_request_back() {
    story(|| async {
        let mut a = builder("a", &["w1", "w2"]);
        a.start_timeout = Duration::from_millis(200);
        let house = House::open(&[("w1", 1), ("w2", 1)], vec![a]).await;
        let w1 = house.robot("w1");
        w1.hold(Say::Accept);
        let ids = house.submit("a", 2).await;
        house.until("it is asked", || w1.held_back(Say::Accept) == 1).await;
        let w2 = house.robot("w2");
        house.until("the other builds both", || w2.ran().len() == 2).await;
        house.nothing_is_taken().await;
        house.until("the first forgot it", || w1.keeps() == 0).await;
        let mut ran = w2.ran();
        ran.sort();
        assert_eq!(ran, ids);
        house.close();
    });
}

#[test]
fn fa07_an_attach_that_is_never_answered_fails_alone() {
    story(|| async {
        let builders = vec![builder("a", &["w1", "w2"])];
        let house = House::open(&[("w1", 1), ("w2", 1)], builders).await;
        let w1 = house.robot("w1");
        w1.hold(Say::Ready);
        let failed = "SELECT count(*) FROM notes WHERE text = 'failed connect w1'";
        house.until("it failed, and is noted", || house.number(failed) == 1).await;
        let w2 = house.robot("w2");
        let ids = house.submit("a", 2).await;
        house.all_built_but_for(&ids, &w2).await;
        house.close();
    });
}

#[test]
fn fb07_a_worker_that_refuses_is_left_alone_for_a_while() {
    story(|| async {
        let house = House::open(&[("w1", 1), ("w2", 1)], vec![builder("a", &["w1", "w2"])]).await;
        let w1 = house.robot("w1");
        w1.refuse(true);
        let ids = house.submit("a", 3).await;
        house.until("it refused", || w1.starts().len() == 1).await;
        let w2 = house.robot("w2");
        house.all_built(&ids, &[&w1, &w2]).await;
        assert_eq!(w1.starts().len(), 1, "it is not asked in a loop");
        house.close();
    });
}

#[test]
fn fp09_a_request_that_is_cancelled_while_its_start_pings_never_runs() {
    story(|| async {
        let house = House::open(&[("w1", 1)], vec![builder("a", &["w1"])]).await;
        let [w1] = house.robots(["w1"]).await;
        w1.hold(Say::Pong);
        let ids = house.submit("a", 2).await;
        house.until("it pings", || w1.held_back(Say::Pong) == 1).await;
        let cancel = CancelRequest { request: ids[0], builder: "a".into(), reason: "no".into() };
        assert_eq!(house.handle.cancel(cancel).await, Ok(true));
        assert_eq!(house.requests_in(3), 1, "it is durable before it is told");
        w1.release(Say::Pong);
        house.until("the other is built", || house.requests_in(2) == 1).await;
        assert_eq!(w1.ran(), [ids[1]]);
        house.nothing_is_taken().await;
        house.close();
    });
}

#[test]
fn fr05_the_start_is_accepted_and_the_connection_lost_at_once() {
    story(|| async {
        // Whatever the order in which the two are noticed: the grace runs.
        let mut a = builder("a", &["w1", "w2"]);
        a.grace = Duration::from_millis(200);
        let house = House::open(&[("w1", 1), ("w2", 1)], vec![a]).await;
        for round in 1..=10 {
            let w1 = house.robot("w1");
            house
                .until("it is there", || house.seat(&house.settings.builders[0], "w1") == "idle")
                .await;
            w1.hold(Say::Accept).hold(Say::Finish);
            house.submit("a", 1).await;
            house.until("it is asked", || w1.held_back(Say::Accept) == 1).await;
            w1.release_and_go(Say::Accept);
            house
                .until("the request waits again", || {
                    house.requests_in(0) == 1 || house.requests_in(2) == round
                })
                .await;
            let w2 = house.robot("w2");
            house.until("it is built elsewhere", || house.requests_in(2) == round).await;
            w2.go();
            house
                .until("both are gone", || {
                    house.board.all().workers.values().all(|worker| !worker.connected)
                })
                .await;
            // One that loses so many builds is set aside.
            let (worker, reason) = ("w1".into(), String::new());
            let order = WorkerOrder::Unpause;
            house.handle.order(OrderWorker { worker, order, reason }).await.unwrap();
        }
        house.close();
    });
}

#[test]
fn fr19_a_deploy_is_not_run_again() {
    story(|| async {
        let mut a = builder("a", &["w1"]);
        a.on_lost = OnLost::Fail;
        let house = House::open(&[("w1", 1)], vec![a]).await;
        let [w1] = house.robots(["w1"]).await;
        w1.hold(Say::Finish);
        house.submit("a", 1).await;
        house.until("it runs", || w1.held_back(Say::Finish) == 1).await;
        w1.go();
        house.until("it ended", || house.requests_in(2) == 1).await;
        assert_eq!(house.number("SELECT results FROM builds"), 4);
        house.close();
    });
}

#[test]
fn fa14_a_worker_that_is_unpaused_starts_what_waits_for_every_builder() {
    story(|| async {
        let builders = vec![builder("a", &["w1"]), builder("b", &["w1"])];
        let house = House::open(&[("w1", 1)], builders).await;
        let [w1] = house.robots(["w1"]).await;
        let order = |order| OrderWorker { worker: "w1".into(), order, reason: String::new() };
        house.handle.order(order(WorkerOrder::Pause)).await.unwrap();
        let mut ids = house.submit("a", 3).await;
        ids.extend(house.submit("b", 3).await);
        assert_eq!(w1.starts().len(), 0);
        house.handle.order(order(WorkerOrder::Unpause)).await.unwrap();
        house.all_built(&ids, &[&w1]).await;
        house.close();
    });
}

#[test]
fn i05_a_shared_worker_never_has_more_builds_than_it_may_and_serves_all_builders() {
    story(|| async {
        let names = ["a", "b", "c", "d"];
        let builders = names.map(|name| builder(name, &["w1"])).to_vec();
        let house = House::open(&[("w1", 2)], builders).await;
        let [w1] = house.robots(["w1"]).await;
        let mut ids = Vec::new();
        for _ in 0..10 {
            for name in names {
                ids.extend(house.submit(name, 1).await);
            }
        }
        assert!(w1.most() <= 2, "{} at a time", w1.most());
        house.all_built(&ids, &[&w1]).await;
        assert!(w1.most() <= 2, "{} at a time", w1.most());
        house.close();
    });
}
