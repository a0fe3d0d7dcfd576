//! Workers that serve only some of their builders, do not answer, or go at the
//! worst moment; and a store that is slow.

use std::time::{Duration, Instant};

use crate::house::*;
use crate::robot::*;

#[test]
fn fp04_a_worker_that_is_stuck_holds_up_no_other() {
    story(|| async {
        let mut a = builder("a", &["w1", "w2"]);
        a.start_timeout = Duration::from_millis(300);
        let builders = vec![a, builder("b", &["w2"])];
        let house = House::open(&[("w1", 1), ("w2", 2)], builders).await;
        let w1 = house.robot("w1");
        house
            .until("w1 is there", || house.seat(&house.settings.builders[0], "w1") == "idle")
            .await;
        // Its heartbeats go on; a ping is not answered.
        w1.hold(Say::Pong);
        let stuck = house.submit("a", 1).await;
        house.until("it pings", || w1.held_back(Say::Pong) == 1).await;
        let w2 = house.robot("w2");
        let others = house.submit("b", 5).await;
        house.until("the other builder builds", || house.requests_in(2) >= 5).await;
        house
            .until("the stuck one's request is built elsewhere", || house.requests_in(2) == 6)
            .await;
        assert!(others.iter().chain(&stuck).all(|id| w2.ran().contains(id)));
        assert!(w1.ran().is_empty());
        house.until("its connection was dropped", || w1.connections() > 1).await;
        house.close();
    });
}

#[test]
fn fp10_a_connection_that_dies_between_the_pong_and_the_start_loses_nothing() {
    story(|| async {
        let house = House::open(&[("w1", 1)], vec![builder("a", &["w1"])]).await;
        let [w1] = house.robots(["w1"]).await;
        w1.hold(Say::Pong);
        let ids = house.submit("a", 2).await;
        house.until("it pings", || w1.held_back(Say::Pong) == 1).await;
        w1.release_and_go(Say::Pong);
        house.until("both wait again", || house.requests_in(0) == 2).await;
        w1.come_back();
        // Its pause of ten seconds belongs to this.
        house.until_in(LIMIT * 2, "both are built", || house.requests_in(2) == 2).await;
        house.all_built(&ids, &[&w1]).await;
        house.close();
    });
}

#[test]
fn fd13_a_slow_store_makes_all_slow_and_breaks_nothing() {
    story(|| async {
        let names: Vec<String> = (0..12).map(|number| format!("w{number}")).collect();
        let all: Vec<(&str, u32)> = names.iter().map(|name| (name.as_str(), 1)).collect();
        let listed: Vec<&str> = names.iter().map(String::as_str).collect();
        let house = House::open(&all, vec![builder("a", &listed)]).await;
        let robots: Vec<Robot> = names.iter().map(|name| house.robot(name)).collect();
        house
            .until("all are there", || {
                house.board.all().workers.values().filter(|one| one.connected).count() == 12
            })
            .await;
        house.store_takes(Duration::from_millis(500));
        let (begun, before) = (Instant::now(), house.beats_written());
        let ids = house.submit("a", 12).await;
        house.until_in(LIMIT * 4, "all are built", || house.requests_in(2) == 12).await;
        let seconds = begun.elapsed().as_secs();
        let written = house.beats_written() - before;
        // Twelve workers, two heartbeats a second each: one write a second.
        assert!(written >= 1 && written <= seconds + 2, "{written} writes in {seconds} s");
        for robot in &robots {
            assert_eq!(robot.connections(), 1, "nobody was dropped");
        }
        let mut ran: Vec<_> = robots.iter().flat_map(Robot::ran).collect();
        ran.sort();
        assert_eq!(ran, ids);
        house.nothing_is_taken().await;
        house.close();
    });
}
