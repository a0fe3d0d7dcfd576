//! Builders and workers that a reload takes away.

use crate::house::*;
use crate::robot::Say;

#[test]
fn t08_a_builder_that_is_removed_while_it_builds_drains() {
    story(|| async {
        let mut house =
            House::open(&[("w1", 1)], vec![builder("a", &["w1"]), builder("b", &["w1"])]).await;
        let [w1] = house.robots(["w1"]).await;
        w1.hold(Say::Finish);
        let mut ids = house.submit("a", 1).await;
        house.until("it runs", || w1.held_back(Say::Finish) == 1).await;
        house.reload(|settings| settings.builders.retain(|b| b.name.as_str() == "b")).await;
        w1.release(Say::Finish);
        ids.extend(house.submit("b", 1).await);
        house.all_built(&ids, &[&w1]).await;
        assert!(house.board.builder(&"a".into()).is_none());
        house.close();
    });
}

#[test]
fn t08_a_builder_that_is_removed_idle_leaves_nothing_behind() {
    story(|| async {
        let mut house =
            House::open(&[("w1", 1)], vec![builder("a", &["w1"]), builder("b", &["w1"])]).await;
        let [w1] = house.robots(["w1"]).await;
        house.reload(|settings| settings.builders.retain(|b| b.name.as_str() == "b")).await;
        let ids = house.submit("b", 3).await;
        house.all_built(&ids, &[&w1]).await;
        assert!(house.try_submit("a").await.is_err());
        house.close();
    });
}

#[test]
fn fq12_the_queue_of_a_removed_builder_comes_back_with_it() {
    story(|| async {
        let mut house = House::open(&[("w1", 1)], vec![builder("a", &["w1"])]).await;
        let ids = house.submit("a", 3).await;
        let kept = house.settings.builders.clone();
        house.reload(|settings| settings.builders.clear()).await;
        house.until("it is gone", || house.board.builder(&"a".into()).is_none()).await;
        assert_eq!(house.requests_in(0), 3);
        house.reload(move |settings| settings.builders = kept).await;
        let [w1] = house.robots(["w1"]).await;
        house.all_built(&ids, &[&w1]).await;
        house.close();
    });
}

#[test]
fn t08_a_builder_that_comes_back_while_its_build_still_runs_does_not_run_it_twice() {
    story(|| async {
        let mut house = House::open(&[("w1", 2)], vec![builder("a", &["w1"])]).await;
        let [w1] = house.robots(["w1"]).await;
        w1.hold(Say::Finish);
        let ids = house.submit("a", 3).await;
        house.until("one runs", || w1.held_back(Say::Finish) == 1).await;
        let kept = house.settings.builders.clone();
        house.reload(|settings| settings.builders.clear()).await;
        house.reload(move |settings| settings.builders = kept).await;
        let grace = house.settings.builders[0].grace;
        let lost = "SELECT count(*) FROM builds WHERE state = 2";
        assert!(!house.comes_true(grace * 2, || house.number(lost) > 0).await, "it was given up");
        w1.release(Say::Finish);
        house.all_built(&ids, &[&w1]).await;
        house.close();
    });
}

#[test]
fn fc06_a_worker_that_is_removed_while_it_builds_finishes_first() {
    story(|| async {
        let workers = [("w1", 1), ("w2", 1)];
        let mut house = House::open(&workers, vec![builder("a", &["w1", "w2"])]).await;
        let w1 = house.robot("w1");
        w1.hold(Say::Finish);
        let mut ids = house.submit("a", 1).await;
        house.until("it runs", || w1.held_back(Say::Finish) == 1).await;
        house
            .reload(|settings| {
                settings.workers.retain(|worker| worker.config.name.as_str() == "w2");
                edit(settings, "a").workers = vec!["w2".into()];
            })
            .await;
        let w2 = house.robot("w2");
        ids.extend(house.submit("a", 2).await);
        house.until("the others are built elsewhere", || w2.ran().len() == 2).await;
        w1.release(Say::Finish);
        house.all_built(&ids, &[&w1, &w2]).await;
        house
            .until("the worker is off the board", || house.board.worker(&"w1".into()).is_none())
            .await;
        house.close();
    });
}

#[test]
fn a_worker_that_is_removed_idle_is_off_the_board_and_stored_as_away() {
    story(|| async {
        let workers = [("w1", 1), ("w2", 1)];
        let mut house = House::open(&workers, vec![builder("a", &["w1", "w2"])]).await;
        let [w1, w2] = house.robots(["w1", "w2"]).await;
        house
            .reload(|settings| {
                settings.workers.retain(|worker| worker.config.name.as_str() == "w2");
                edit(settings, "a").workers = vec!["w2".into()];
            })
            .await;
        house.until("its connection is closed", || !w1.attached()).await;
        house
            .until("it is stored as away", || {
                house.number("SELECT count(*) FROM workers WHERE name = 'w1' AND connected = 1")
                    == 0
            })
            .await;
        let ids = house.submit("a", 2).await;
        house.all_built(&ids, &[&w2]).await;
        assert!(house.board.worker(&"w1".into()).is_none(), "it is shown no more");
        house.close();
    });
}
