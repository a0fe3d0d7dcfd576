//! Reloads as a whole (fault rows FC05, FC07, FC10, FC11): several at once,
//! workers that move, failures half way, and many builders.

use std::sync::Arc;
use std::time::{Duration, Instant};

use botmaster::core::bot_master::{Action, Plan};
use botmaster::core::values::{BuilderConfig, WorkerConfig};
use botmaster::faults;
use botmaster::messages::Reload;
use botmaster::settings::Settings;

use crate::house::*;
use crate::robot::Say;

fn asked(settings: &Settings) -> Reload {
    Reload { dry: false, settings: Some(Box::new(settings.clone())) }
}

fn generation(house: &House, builder: &str) -> u64 {
    house.board.builder(&builder.into()).unwrap().generation.0
}

#[test]
fn fc05_of_reloads_that_wait_only_the_last_is_carried_out_and_all_hear_of_it() {
    story(|| async {
        let house = House::open(&[("w1", 1)], vec![builder("a", &["w1"])]).await;
        let [w1] = house.robots(["w1"]).await;
        let mut settings = house.settings.clone();
        let mut waiting = Vec::new();
        for round in 1..=8 {
            edit(&mut settings, "a").env.insert("ROUND".into(), round.to_string());
            let (handle, message) = (house.handle.clone(), asked(&settings));
            waiting.push(actix_rt::spawn(async move { handle.reload(message).await }));
        }
        let mut reports = Vec::new();
        for one in waiting {
            let answer = tokio::time::timeout(LIMIT, one).await.expect("each is answered");
            reports.push(answer.unwrap().unwrap());
        }
        house.until("the last is in force", || generation(&house, "a") >= 2).await;
        let takeovers = generation(&house, "a") - 1;
        assert!((1..=2).contains(&takeovers), "one that ran, and the last: {takeovers}");
        let last = reports.last().unwrap();
        let same = reports.iter().filter(|report| *report == last).count();
        assert!(same >= 7, "all but the one that ran hear of the last: {same}");
        // What is in force is what the last one said.
        let plan = house.handle.reload(Reload { dry: true, ..asked(&settings) }).await.unwrap();
        assert!(plan.entries.iter().all(|entry| entry.action == "unchanged"), "{plan:?}");
        let ids = house.submit("a", 2).await;
        house.all_built(&ids, &[&w1]).await;
        house.close();
    });
}

#[test]
fn fc07_a_worker_that_moves_from_one_builder_to_another_is_known_to_both_at_once() {
    story(|| async {
        let mut house = House::open(
            &[("w1", 1), ("w2", 1)],
            vec![builder("a", &["w1"]), builder("b", &["w2"])],
        )
        .await;
        let [w1, w2] = house.robots(["w1", "w2"]).await;
        for round in 0..4 {
            let (to_a, to_b) = if round % 2 == 0 { ("w2", "w1") } else { ("w1", "w2") };
            house
                .reload(|settings| {
                    edit(settings, "a").workers = vec![to_a.into()];
                    edit(settings, "b").workers = vec![to_b.into()];
                })
                .await;
            let ids = [house.submit("a", 1).await, house.submit("b", 1).await].concat();
            let done = 2 * (round + 1);
            house.until("both are built", || house.requests_in(2) == done).await;
            let (of_a, of_b) = if round % 2 == 0 { (&w2, &w1) } else { (&w1, &w2) };
            assert!(of_a.ran().contains(&ids[0]) && of_b.ran().contains(&ids[1]));
            let [a, b] = [0, 1].map(|place| house.settings.builders[place].clone());
            house
                .until("the old one has let go", || {
                    house.seat(&a, to_b) == "none" && house.seat(&b, to_a) == "none"
                })
                .await;
        }
        assert_eq!((w1.connections(), w2.connections()), (1, 1), "nobody had to come again");
        house.close();
    });
}

#[test]
fn fc10_when_the_store_cannot_take_it_nothing_is_applied() {
    story(|| async {
        let house = House::open(&[("w1", 1)], vec![builder("a", &["w1"])]).await;
        let [w1] = house.robots(["w1"]).await;
        w1.hold(Say::Finish);
        let mut ids = house.submit("a", 2).await;
        house.until("one runs", || w1.held_back(Say::Finish) == 1).await;
        let before = house.settings.clone();
        let mut settings = before.clone();
        edit(&mut settings, "a").env.insert("NEW".into(), "1".into());
        settings.builders.push(Arc::new(builder("b", &["w1"])));
        settings.workers.push(worker("w2", 1));
        house.store_is_full(true);
        let refused = house.handle.reload(asked(&settings)).await;
        assert!(refused.unwrap_err().to_string().contains("full"));
        house.store_is_full(false);
        // Nothing of it: not the change, not the new builder, not the worker.
        let plan = house.handle.reload(Reload { dry: true, ..asked(&before) }).await.unwrap();
        assert!(plan.entries.iter().all(|entry| entry.action == "unchanged"), "{plan:?}");
        assert_eq!(generation(&house, "a"), 1);
        assert!(house.try_submit("b").await.is_err());
        assert_eq!(house.number("SELECT count(*) FROM builders"), 1);
        w1.release(Say::Finish);
        ids.extend(house.submit("a", 1).await);
        house.all_built(&ids, &[&w1]).await;
        house.close();
    });
}

#[test]
fn fc10_when_one_successor_panics_nothing_is_applied() {
    for point in ["builder.succeed", "builder.hand_over"] {
        story_with_faults(move || async move {
            let workers = [("w1", 1), ("w2", 1)];
            let builders = vec![builder("a", &["w1", "w2"]), builder("b", &["w2"])];
            let house = House::open(&workers, builders).await;
            let [w1, w2] = house.robots(["w1", "w2"]).await;
            w1.hold(Say::Finish);
            let mut ids = house.submit("a", 3).await;
            house.until("one runs", || w1.held_back(Say::Finish) == 1).await;
            let before = house.settings.clone();
            let mut settings = before.clone();
            edit(&mut settings, "a").env.insert("NEW".into(), "1".into());
            edit(&mut settings, "a").workers = vec!["w2".into()];
            edit(&mut settings, "b").env.insert("NEW".into(), "1".into());
            settings.builders.push(Arc::new(builder("c", &["w2"])));
            settings.workers.retain(|worker| worker.config.name.as_str() == "w2");
            faults::arm(point, 1);
            let report = house.handle.reload(asked(&settings)).await.unwrap();
            for entry in &report.entries {
                let told = entry.error.is_some();
                assert_eq!(told, entry.action != "unchanged", "{report:?}");
            }
            // Nothing of it: no change, no new builder, and no worker less.
            let plan = house.handle.reload(Reload { dry: true, ..asked(&before) }).await.unwrap();
            assert!(plan.entries.iter().all(|entry| entry.action == "unchanged"), "{plan:?}");
            assert_eq!(generation(&house, "b"), 1, "the other one was not swapped either");
            assert!(house.try_submit("c").await.is_err());
            assert_eq!(house.number("SELECT count(*) FROM builders"), 2);
            assert_eq!(house.number("SELECT count(*) FROM workers WHERE configured = 1"), 2);
            w1.release(Say::Finish);
            ids.extend(house.submit("b", 1).await);
            house.all_built(&ids, &[&w1, &w2]).await;
            // The cause is gone: the same reload goes through, whole.
            let report = house.handle.reload(asked(&settings)).await.unwrap();
            assert!(report.entries.iter().all(|entry| entry.error.is_none()), "{report:?}");
            assert_eq!(generation(&house, "b"), 2);
            let mut ids = house.submit("a", 1).await;
            ids.extend(house.submit("c", 1).await);
            house
                .until("both are built", || {
                    house.number("SELECT count(*) FROM requests WHERE state = 2") == 6
                })
                .await;
            house.close();
        });
    }
}

/// Fault row FC11 has 1,000 builders and 10,000 workers: here what a reload
/// works out at that size, and a whole reload with fewer.
#[test]
fn fc11_a_reload_of_many_is_worked_out_within_two_seconds() {
    let names: Vec<String> = (0..10_000).map(|n| format!("w{n}")).collect();
    let many = |round: &str| -> Vec<Arc<BuilderConfig>> {
        (0..1_000)
            .map(|n| {
                let own: Vec<&str> = (0..10).map(|k| names[n * 10 + k].as_str()).collect();
                let mut config = builder(&format!("b{n}"), &own);
                if n == 500 {
                    config.env.insert("ROUND".into(), round.into());
                }
                Arc::new(config)
            })
            .collect()
    };
    let workers: Vec<WorkerConfig> = names.iter().map(|name| worker(name, 1).config).collect();
    let (old, new) = (many("1"), many("2"));
    let old = old.into_iter().map(|builder| (builder.name.clone(), builder)).collect();
    let known = workers.iter().map(|worker| (worker.name.clone(), worker.clone())).collect();
    let began = Instant::now();
    let plan = Plan::between(&old, &new, &known, &workers);
    let took = began.elapsed();
    let touched: Vec<_> = plan.builders.iter().filter(|e| e.action != Action::Keep).collect();
    assert_eq!(touched.len(), 1, "one changed");
    assert!(plan.workers.iter().all(|entry| entry.action == Action::Keep));
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn fc11_t08_builders_that_did_not_change_notice_nothing_of_a_reload() {
    story(|| async {
        let names: Vec<String> = (0..200).map(|n| format!("b{n}")).collect();
        let builders = names.iter().map(|name| builder(name, &["w1", "w2"])).collect();
        let mut house = House::open(&[("w1", 4), ("w2", 4)], builders).await;
        let [w1, w2] = house.robots(["w1", "w2"]).await;
        let notes = "SELECT count(*) FROM notes";
        house.until("all is told", || house.number(notes) == 3 * 200).await;
        let shown = house.board.all();
        let report = house
            .reload(|settings| {
                edit(settings, "b100").env.insert("NEW".into(), "1".into());
            })
            .await;
        assert!(report.took_ms < 2_000, "{} ms", report.took_ms);
        house.until("the changed one is renewed", || generation(&house, "b100") == 2).await;
        let now = house.board.all();
        for name in names.iter().filter(|name| *name != "b100") {
            let name = name.as_str().into();
            assert_eq!(now.builders[&name], shown.builders[&name], "{name} noticed");
        }
        assert_eq!((w1.lists(), w2.lists()), (1, 1), "no worker was told anything");
        assert_eq!(house.number(notes), 3 * 200, "nothing was told");
        house.close();
    });
}
