//! Reloads in the middle of everything (rows T01 to T09, fault rows FC02 to
//! FC06 and FP08).

use std::time::Duration;

use botmaster::faults;

use crate::house::*;
use crate::robot::Say;

fn rename(settings: &mut botmaster::settings::Settings, name: &str, round: usize) {
    edit(settings, name).env.insert("ROUND".into(), round.to_string());
}

/// One worker, a reload while the kind of answer `held` is awaited for the
/// first of four requests.
fn reload_while_waiting_for(held: Say) {
    story(move || async move {
        let mut house = House::open(&[("w1", 1)], vec![builder_with_steps("a", &["w1"], 2)]).await;
        let [w1] = house.robots(["w1"]).await;
        w1.hold(held);
        let ids = house.submit("a", 4).await;
        house.until("the first is held back", || w1.held_back(held) == 1).await;
        for round in 1..=3 {
            let report = house.reload(|settings| rename(settings, "a", round)).await;
            assert_eq!(report.entries[0].error, None);
        }
        w1.release(held);
        house.until("all are built", || house.requests_in(2) == 4).await;
        house.nothing_is_taken().await;
        let ran: Vec<_> = w1.ran().chunks(2).map(|pair| pair[0]).collect();
        assert_eq!(ran, ids, "in order, each once, both steps");
        assert_eq!(w1.ran().len(), 8);
        assert_eq!(house.number("SELECT count(*) FROM builds WHERE results <> 0"), 0);
        assert_eq!(w1.connections(), 1);
        house.close();
    });
}

#[test]
fn fc02_t02_reload_while_a_build_runs() {
    reload_while_waiting_for(Say::Finish);
}

#[test]
fn fc03_fp08_t09_reload_while_a_start_pings() {
    reload_while_waiting_for(Say::Pong);
}

#[test]
fn t09_reload_while_a_start_waits_for_its_answer() {
    reload_while_waiting_for(Say::Accept);
}

#[test]
fn fc03_t06_reload_while_a_worker_attaches() {
    story(|| async {
        let mut house = House::open(&[("w1", 1)], vec![builder("a", &["w1"])]).await;
        let w1 = house.robot("w1");
        w1.hold(Say::Ready);
        house.until("it attaches", || w1.held_back(Say::Ready) == 1).await;
        let ids = house.submit("a", 2).await;
        house.reload(|settings| rename(settings, "a", 1)).await;
        w1.release(Say::Ready);
        house.all_built(&ids, &[&w1]).await;
        assert_eq!(w1.lists(), 1, "the list goes again only when it changed");
        let connects = "SELECT count(*) FROM notes WHERE text = 'connect w1'";
        house.until("it is noted", || house.number(connects) == 1).await;
        house.close();
    });
}

#[test]
fn t09_a_start_that_fails_after_a_reload_goes_to_the_head_of_the_latest_queue() {
    story(|| async {
        let mut house =
            House::open(&[("w1", 1), ("w2", 1)], vec![builder("a", &["w1", "w2"])]).await;
        let w1 = house.robot("w1");
        w1.hold(Say::Pong);
        let ids = house.submit("a", 3).await;
        house.until("it pings", || w1.held_back(Say::Pong) == 1).await;
        house.reload(|settings| rename(settings, "a", 1)).await;
        house.reload(|settings| rename(settings, "a", 2)).await;
        w1.go();
        house.until("its request waits again", || house.requests_in(0) == 3).await;
        let w2 = house.robot("w2");
        house.all_built(&ids, &[&w1, &w2]).await;
        assert_eq!(w2.ran(), ids, "it is the first again");
        house.close();
    });
}

#[test]
fn a_persons_ping_is_answered_over_a_reload() {
    story(|| async {
        let mut house = House::open(&[("w1", 1)], vec![builder("a", &["w1"])]).await;
        let [w1] = house.robots(["w1"]).await;
        w1.hold(Say::Pong);
        let handle = house.handle.clone();
        let asked = actix_rt::spawn(async move { handle.ping("a".into()).await });
        house.until("it is asked", || w1.held_back(Say::Pong) == 1).await;
        house.reload(|settings| rename(settings, "a", 1)).await;
        w1.release(Say::Pong);
        let answer = tokio::time::timeout(LIMIT, asked).await.expect("it is answered").unwrap();
        assert_eq!(answer, Ok(true));
        let ids = house.submit("a", 2).await;
        house.all_built(&ids, &[&w1]).await;
        house.close();
    });
}

#[test]
fn t02_a_build_of_a_predecessor_can_be_stopped_and_its_request_cancelled() {
    story(|| async {
        let mut house = House::open(&[("w1", 2)], vec![builder("a", &["w1"])]).await;
        let [w1] = house.robots(["w1"]).await;
        w1.hold(Say::Finish);
        house.submit("a", 1).await;
        house.until("it runs", || w1.held_back(Say::Finish) == 1).await;
        house.reload(|settings| rename(settings, "a", 1)).await;
        house.reload(|settings| rename(settings, "a", 2)).await;
        let build = w1.starts()[0];
        let stopped = house.handle.stop(botmaster::messages::StopBuild {
            build,
            builder: "a".into(),
            reason: "enough".into(),
        });
        assert_eq!(stopped.await, Ok(true));
        house.until("it is cancelled", || house.requests_in(2) == 1).await;
        assert_eq!(house.number("SELECT results FROM builds"), 6);
        house.nothing_is_taken().await;
        house.close();
    });
}

#[test]
fn fc04_t07_fifty_reloads_in_a_row_under_load() {
    story(|| async {
        let workers = ["w1", "w2", "w3", "w4"].map(|name| (name, 2));
        let builders = vec![
            builder("a", &["w1", "w2", "w3", "w4"]),
            builder("b", &["w2", "w3", "w4", "w1"]),
            builder("alone", &["w1"]),
        ];
        let mut house = House::open(&workers, builders).await;
        let robots = house.robots(["w1", "w2", "w3", "w4"]).await;
        let handle = house.handle.clone();
        let submitting = actix_rt::spawn(async move {
            let mut ids = Vec::new();
            for round in 0..100 {
                for builder in ["a", "b", "alone"] {
                    let submitted = handle.submit(vec![submission(builder)]).await.unwrap();
                    ids.push((builder, submitted[0].requests[0].1));
                }
                if round % 5 == 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            ids
        });
        for round in 0..50 {
            let report = house
                .reload(|settings| {
                    for name in ["a", "b", "alone"] {
                        rename(settings, name, round);
                    }
                    if round % 7 == 3 {
                        edit(settings, "a").workers.rotate_left(1);
                    }
                })
                .await;
            let errors: Vec<_> = report.entries.iter().filter_map(|e| e.error.clone()).collect();
            assert_eq!(errors, Vec::<String>::new());
        }
        let ids = tokio::time::timeout(LIMIT, submitting).await.unwrap().unwrap();
        let all: Vec<_> = ids.iter().map(|(_, id)| *id).collect();
        house.all_built(&all, &robots.each_ref()).await;
        // One worker, so one seat, so one order.
        let alone: Vec<_> =
            ids.iter().filter(|(name, _)| *name == "alone").map(|(_, id)| *id).collect();
        let ran: Vec<_> = robots[0].ran().into_iter().filter(|id| alone.contains(id)).collect();
        assert_eq!(ran, alone, "in the order of their submission");
        house.close();
    });
}

#[test]
fn a_successor_that_panics_leaves_its_predecessor_in_charge() {
    for point in ["builder.succeed", "builder.hand_over"] {
        story_with_faults(move || async move {
            let mut house = House::open(&[("w1", 1)], vec![builder("a", &["w1"])]).await;
            let [w1] = house.robots(["w1"]).await;
            w1.hold(Say::Finish);
            let mut ids = house.submit("a", 3).await;
            house.until("it runs", || w1.held_back(Say::Finish) == 1).await;
            faults::arm(point, 1);
            let report = house.reload(|settings| rename(settings, "a", 1)).await;
            assert!(report.entries[0].error.is_some(), "the reload tells: {report:?}");
            w1.release(Say::Finish);
            ids.extend(house.submit("a", 1).await);
            house.all_built(&ids, &[&w1]).await;
            let report = house.reload(|settings| rename(settings, "a", 1)).await;
            assert_eq!(report.entries[0].error, None, "the next one goes through");
            assert_eq!(report.entries[0].action, "changed");
            let more = house.submit("a", 2).await;
            ids.extend(more);
            house.all_built(&ids, &[&w1]).await;
            house.close();
        });
    }
}

#[test]
fn a_predecessor_that_panics_at_the_end_of_its_build_still_frees_its_seat() {
    story_with_faults(|| async {
        let mut house = House::open(&[("w1", 1)], vec![builder("a", &["w1"])]).await;
        let [w1] = house.robots(["w1"]).await;
        w1.hold(Say::Finish);
        let ids = house.submit("a", 3).await;
        house.until("it runs", || w1.held_back(Say::Finish) == 1).await;
        house.reload(|settings| rename(settings, "a", 1)).await;
        faults::arm("builder.build_finished", 1);
        w1.release(Say::Finish);
        house.all_built(&ids, &[&w1]).await;
        house.close();
    });
}

#[test]
fn a_successor_that_panics_later_keeps_what_its_predecessor_builds() {
    story_with_faults(|| async {
        let mut house = House::open(&[("w1", 1)], vec![builder("a", &["w1"])]).await;
        let [w1] = house.robots(["w1"]).await;
        w1.hold(Say::Finish);
        let mut ids = house.submit("a", 3).await;
        house.until("it runs", || w1.held_back(Say::Finish) == 1).await;
        house.reload(|settings| rename(settings, "a", 1)).await;
        faults::arm("builder.submit", 1);
        // Released at once: the end may come while the successor is loading.
        ids.extend(house.submit("a", 1).await);
        w1.release(Say::Finish);
        house.all_built(&ids, &[&w1]).await;
        house.close();
    });
}

#[test]
fn a_build_outlives_a_reload_a_removal_and_a_return_of_its_builder() {
    story(|| async {
        let mut house = House::open(&[("w1", 2)], vec![builder("a", &["w1"])]).await;
        let [w1] = house.robots(["w1"]).await;
        w1.hold(Say::Finish);
        let mut ids = house.submit("a", 2).await;
        house.until("it runs", || w1.held_back(Say::Finish) == 1).await;
        house.reload(|settings| rename(settings, "a", 1)).await;
        let kept = house.settings.builders.clone();
        house.reload(|settings| settings.builders.clear()).await;
        house.reload(move |settings| settings.builders = kept).await;
        house.reload(|settings| rename(settings, "a", 2)).await;
        ids.extend(house.submit("a", 2).await);
        w1.release(Say::Finish);
        house.all_built(&ids, &[&w1]).await;
        assert_eq!(w1.ran(), ids);
        house.close();
    });
}

#[test]
fn b07_a_request_is_cancelled_while_a_predecessor_starts_it() {
    story(|| async {
        let mut house = House::open(&[("w1", 1)], vec![builder("a", &["w1"])]).await;
        let [w1] = house.robots(["w1"]).await;
        w1.hold(Say::Pong);
        let ids = house.submit("a", 2).await;
        house.until("it pings", || w1.held_back(Say::Pong) == 1).await;
        house.reload(|settings| rename(settings, "a", 1)).await;
        let cancel = botmaster::messages::CancelRequest {
            request: ids[0],
            builder: "a".into(),
            reason: "no".into(),
        };
        assert_eq!(house.handle.cancel(cancel).await, Ok(true));
        assert_eq!(house.requests_in(3), 1, "durable before it is told");
        w1.release(Say::Pong);
        house.until("the other is built", || house.requests_in(2) == 1).await;
        assert_eq!(w1.ran(), [ids[1]]);
        house.nothing_is_taken().await;
        house.close();
    });
}

#[test]
fn a_predecessor_that_panics_while_its_start_pings_goes_on_with_it() {
    story_with_faults(|| async {
        let mut house = House::open(&[("w1", 1)], vec![builder("a", &["w1"])]).await;
        let [w1] = house.robots(["w1"]).await;
        w1.hold(Say::Pong);
        let ids = house.submit("a", 3).await;
        house.until("it pings", || w1.held_back(Say::Pong) == 1).await;
        house.reload(|settings| rename(settings, "a", 1)).await;
        faults::arm("builder.start_accepted", 1);
        w1.release(Say::Pong);
        house.all_built(&ids, &[&w1]).await;
        assert_eq!(w1.ran(), ids);
        assert_eq!(w1.starts().len(), 3, "nothing was started twice");
        house.close();
    });
}
