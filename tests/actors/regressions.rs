//! What cost the users of Buildbot most, as stories about this master. Each is
//! named after the issue that told of it: what went wrong there, and that it
//! does not go wrong here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use botmaster::core::values::{BuilderConfig, Properties, Property};
use botmaster::messages::Submission;

use crate::house::*;
use crate::robot::{Robot, Say};

/// Issue 4678: a worker whose network failed came again while its old
/// connection still looked alive. It was then neither there nor gone: its
/// connection stood, no builder had it, and only a restart of the master
/// helped. Here the new connection has the worker at once, for every builder,
/// as often as that happens, and the running build goes on.
#[test]
fn buildbot_4678_a_worker_that_comes_again_over_a_second_connection_has_all_its_builders() {
    story(|| async {
        let (mut a, b) = (builder("a", &["w1"]), builder("b", &["w1"]));
        a.grace = LIMIT;
        let house = House::open(&[("w1", 2)], vec![a, b]).await;
        let [first] = house.robots(["w1"]).await;
        first.hold(Say::Finish);
        house.submit("a", 1).await;
        house.until("it runs", || first.held_back(Say::Finish) == 1).await;
        for _ in 0..3 {
            // The same program, and the old connection says nothing of its end.
            first.come_over_a_second_connection().await;
            let seats = || {
                house
                    .settings
                    .builders
                    .iter()
                    .all(|b| !matches!(house.seat(b, "w1"), "none" | "attaching"))
                    && first.attached()
            };
            house.until("both builders have it", seats).await;
        }
        let quick = house.submit("b", 1).await;
        house.until("the other builder builds", || house.requests_in(1) == 2).await;
        first.release(Say::Finish);
        house.until("both are built", || house.requests_in(2) == 2).await;
        assert!(first.ran().contains(&quick[0]));
        assert_eq!(first.ran().len(), 2, "each once");
        house.nothing_is_taken().await;
        house.close();
    });
}

/// Issue 3601: a worker's machine was reset while a build was being given to
/// it. The build hung in its ping for a quarter of an hour, although the worker
/// was back after seconds. Here the ping ends with the connection it went out
/// on, and the build starts on the new one.
#[test]
fn buildbot_3601_a_worker_that_is_back_after_a_reset_gets_the_build_that_was_pinging() {
    story(|| async {
        let mut a = builder("a", &["w1"]);
        a.start_timeout = LIMIT * 3;
        let house = House::open(&[("w1", 1)], vec![a]).await;
        let [w1] = house.robots(["w1"]).await;
        w1.hold(Say::Pong);
        let ids = house.submit("a", 1).await;
        house.until("it pings", || w1.held_back(Say::Pong) == 1).await;
        w1.release_nothing(Say::Pong);
        w1.come_over_a_second_connection().await;
        let began = Instant::now();
        // A failed start keeps its worker away for ten seconds.
        house.until_in(LIMIT * 2, "it is built", || house.requests_in(2) == 1).await;
        assert!(began.elapsed() < LIMIT * 2, "not only when the ping's own time is over");
        assert_eq!(w1.ran(), ids);
        house.nothing_is_taken().await;
        house.close();
    });
}

/// Issue 3787: builds stood minutes in the ping of a worker that was gone,
/// since nothing but the operating system ended the connection. Here the ping
/// has a timeout of its own; the build goes to another worker, and no other
/// builder waits meanwhile.
#[test]
fn buildbot_3787_a_ping_into_a_half_open_connection_ends_in_its_own_time() {
    story(|| async {
        let mut a = builder("a", &["w1", "w2"]);
        a.start_timeout = Duration::from_millis(300);
        let house = House::open(&[("w1", 1), ("w2", 2)], vec![a, builder("b", &["w2"])]).await;
        let [w1, w2] = house.robots(["w1", "w2"]).await;
        // As a half-open connection: what is sent goes nowhere, and nothing
        // comes back, not even an end.
        w1.fall_silent();
        let began = Instant::now();
        let ids = house.submit("a", 1).await;
        let other = house.submit("b", 1).await;
        house.until("the other builder builds", || w2.ran().contains(&other[0])).await;
        house.until("it is built elsewhere", || w2.ran().contains(&ids[0])).await;
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert!(w1.starts().is_empty());
        house.close();
    });
}

/// Issue 2937: requests of new builders stayed in the queue beside an idle
/// worker until the master was restarted; so did those that came while their
/// worker was just becoming free. Here whatever frees a worker lets all of its
/// builders try.
#[test]
fn buildbot_2937_requests_of_a_builder_that_a_reload_added_start_on_an_idle_worker() {
    story(|| async {
        let mut house = House::open(&[("w1", 1)], vec![builder("a", &["w1"])]).await;
        let [w1] = house.robots(["w1"]).await;
        let first = house.submit("a", 1).await;
        house.all_built(&first, &[&w1]).await;
        house.reload(|settings| settings.builders.push(Arc::new(builder("b", &["w1"])))).await;
        let second = house.submit("b", 1).await;
        house.until("the new builder's is built", || w1.ran().contains(&second[0])).await;
        house.close();
    });
}

#[test]
fn buildbot_2937_a_request_that_comes_while_the_worker_becomes_free_starts() {
    story(|| async {
        let house =
            House::open(&[("w1", 1)], vec![builder("a", &["w1"]), builder("b", &["w1"])]).await;
        let [w1] = house.robots(["w1"]).await;
        let mut all = Vec::new();
        // Again and again at another moment of the other builder's end.
        for round in 0..20_u64 {
            all.extend(house.submit("a", 1).await);
            tokio::time::sleep(Duration::from_millis(round)).await;
            all.extend(house.submit("b", 1).await);
        }
        house.all_built(&all, &[&w1]).await;
        house.close();
    });
}

/// Issue 5354: a build whose step always lost the connection was begun again
/// for ever. Here it ends with an exception after its tries.
#[test]
fn buildbot_5354_a_build_that_loses_its_worker_each_time_ends_after_its_tries() {
    story(|| async {
        let mut a = builder("a", &["w1"]);
        a.infra_retries = 2;
        let house = House::open(&[("w1", 1)], vec![a]).await;
        let [w1] = house.robots(["w1"]).await;
        w1.hold(Say::Finish);
        house.submit("a", 1).await;
        for tries in 1..=3 {
            house.until("it runs", || w1.ran().len() == tries && w1.attached()).await;
            w1.go();
            let away = || !house.board.worker(&"w1".into()).unwrap().connected;
            house.until("it is away", away).await;
            w1.come_back_empty();
        }
        house.until("it ended", || house.requests_in(2) == 1).await;
        house.nothing_is_taken().await;
        assert_eq!(w1.ran().len(), 3, "no fourth time");
        let texts = house.texts("SELECT state_string FROM builds WHERE results = 4");
        assert_eq!(texts.len(), 1, "{texts:?}");
        assert!(texts[0].starts_with("worker lost 3 times"), "{texts:?}");
        house.close();
    });
}

/// The same where the worker refuses each start instead.
#[test]
fn buildbot_5354_a_build_that_every_worker_refuses_ends_with_every_reason() {
    story(|| async {
        let mut a = builder("a", &["w1", "w2"]);
        a.infra_retries = 1;
        let house = House::open(&[("w1", 1), ("w2", 1)], vec![a]).await;
        let [w1, w2] = house.robots(["w1", "w2"]).await;
        w1.refuse(true);
        w2.refuse(true);
        house.submit("a", 1).await;
        house.until("it ended", || house.requests_in(2) == 1).await;
        house.nothing_is_taken().await;
        let texts = house.texts("SELECT state_string FROM builds WHERE results = 4");
        let reasons = "no worker could start it in 2 tries: w1 (disk: no room), w2 (disk: no room)";
        assert_eq!(texts, [reasons]);
        house.close();
    });
}

/// Issue 4491: a request that a lock held back was forgotten when the lock
/// became free, for only builders of the same worker were tried. Locks are not
/// enforced here yet; this is what holds a request back today: the worker's
/// slots, and the builder's own `max_builds`. The end that frees either starts
/// the next request, in order, on whichever worker.
#[test]
fn buildbot_4491_the_end_that_frees_what_a_request_waits_for_starts_it() {
    story(|| async {
        let mut a = builder("a", &["w1", "w2"]);
        a.max_builds = Some(1);
        let house =
            House::open(&[("w1", 1), ("w2", 1)], vec![a, builder("b", &["w1", "w2"])]).await;
        let robots = house.robots(["w1", "w2"]).await;
        for robot in &robots {
            robot.hold(Say::Finish);
        }
        let limited = house.submit("a", 3).await;
        house.until("one runs", || held(&robots) == 1).await;
        let others = house.submit("b", 2).await;
        house.until("two run", || held(&robots) == 2).await;
        let ran = || -> Vec<_> { robots.iter().flat_map(Robot::ran).collect() };
        assert_eq!(ran().iter().filter(|id| limited.contains(id)).count(), 1, "a's limit holds");
        robots.iter().for_each(|robot| robot.release(Say::Finish));
        let mut all = limited.clone();
        all.extend(others);
        house.all_built(&all, &[&robots[0], &robots[1]]).await;
        let order = "SELECT CAST(request_id AS TEXT) FROM builds JOIN builders ON \
                     builders.id = builder_id WHERE name = 'a' ORDER BY number";
        let order: Vec<_> = house.texts(order);
        assert_eq!(order, limited.iter().map(ToString::to_string).collect::<Vec<_>>());
        house.close();
    });
}

fn held(robots: &[Robot]) -> usize {
    robots.iter().map(|robot| robot.held_back(Say::Finish)).sum()
}

/// Issue 6251: one request for which no worker was right held up all that were
/// behind it. Here they pass it, and it keeps its place.
#[test]
fn buildbot_6251_a_request_that_cannot_be_placed_holds_up_none_behind_it() {
    story(|| async {
        let a = BuilderConfig {
            merge: botmaster::core::values::Merge::None,
            ..builder("a", &["w1", "w2"])
        };
        let house = House::open(&[("w1", 1), ("w2", 1)], vec![a]).await;
        let [w1] = house.robots(["w1"]).await;
        // It names a worker that is away.
        let named = Property { value: "w2".into(), source: "Force Build Form".into() };
        let properties: Properties = BTreeMap::from([("workername".to_owned(), named)]);
        let asked = Submission { properties: Arc::new(properties), priority: 9, ..submission("a") };
        let waits = house.handle.submit(vec![asked]).await.unwrap()[0].requests[0].1;
        let behind = house.submit("a", 3).await;
        house.until("those behind it are built", || house.requests_in(2) == 3).await;
        assert_eq!(w1.ran(), behind);
        assert_eq!(house.requests_in(0), 1);
        let w2 = house.robot("w2");
        house.until("it is built where it wants to be", || w2.ran() == [waits]).await;
        house.close();
    });
}

/// llvm-zorg, pull 81: of some builders that share workers one had none for
/// days, since the others took several at once and again and again. Here the
/// oldest request goes first over all builders, and a builder can be limited.
#[test]
fn llvm_zorg_81_no_builder_starves_beside_busy_ones_that_share_its_workers() {
    story(|| async {
        let shared = ["w1", "w2"];
        let house = House::open(
            &[("w1", 1), ("w2", 1)],
            vec![builder("busy", &shared), builder("other", &shared), builder("rare", &shared)],
        )
        .await;
        let robots = house.robots(shared).await;
        for robot in &robots {
            robot.hold(Say::Finish);
        }
        let mut all = house.submit("busy", 4).await;
        all.extend(house.submit("other", 2).await);
        let rare = house.submit("rare", 1).await;
        let behind = [house.submit("busy", 4).await, house.submit("other", 4).await].concat();
        house.until("both are busy", || held(&robots) == 2).await;
        robots.iter().for_each(|robot| robot.release(Say::Finish));
        all.extend(rare.iter().chain(&behind));
        house.all_built(&all, &[&robots[0], &robots[1]]).await;
        let order = "SELECT CAST(request_id AS TEXT) FROM builds ORDER BY id";
        let order = house.texts(order);
        let place = order.iter().position(|id| *id == rare[0].to_string()).unwrap();
        // Six are older; two workers may be one choice ahead of each other.
        assert!(place <= 7, "the rare one was the {place}th: {order:?}");
        house.close();
    });
}
