//! Latent workers whose provider fails in every way, and what becomes of the
//! builds that wait for them (fault rows FX01 to FX11, FC03).

use std::time::Duration;

use botmaster::core::ids::*;
use botmaster::faults;
use botmaster::messages::CancelRequest;

use crate::cloud::*;
use crate::house::*;
use crate::robot::Say;

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(300);

fn notes(house: &House) -> Vec<String> {
    house.texts("SELECT text FROM notes ORDER BY id")
}

fn state(house: &House) -> &'static str {
    let view = house.board.worker(&"l1".into());
    view.and_then(|view| view.instance.as_ref().map(|one| one.state)).unwrap_or("none")
}

/// Nothing is left of any instance, in the store and at the provider.
async fn none_is_left(house: &House, cloud: &Cloud) {
    house
        .until("no instance is left", || {
            cloud.there().is_empty()
                && house.number("SELECT count(*) FROM instances") == 0
                && state(house) == "latent"
        })
        .await;
}

#[test]
fn l02_l04_an_instance_is_made_for_a_build_used_again_and_let_go() {
    story(|| async {
        let cloud = Cloud::default();
        let builders = vec![builder("a", &["l1"]), builder("b", &["l1"])];
        let (house, fleet) = open(&cloud, LONG, SHORT, builders).await;
        let mut ids = house.submit("a", 1).await;
        ids.extend(house.submit("b", 1).await);
        house.until("both are built", || house.requests_in(2) == 2).await;
        assert_eq!(cloud.wishes().len(), 1, "one instance for both");
        let mut ran = fleet.ran();
        ran.sort();
        assert_eq!(ran, ids);
        none_is_left(&house, &cloud).await;
        let told = notes(&house);
        let count = |text: &str| told.iter().filter(|note| note.starts_with(text)).count();
        assert_eq!(count("added latent l1"), 2);
        assert!(count("substantiate success (made)") >= 1);
        assert_eq!(count("substantiating") + count("substantiate failed"), 0, "s05: one event");
        assert_eq!(count("connect") + count("disconnect"), 0, "b21, b24");
        house.submit("a", 1).await;
        house.until("it is made again", || house.requests_in(2) == 3).await;
        assert_eq!(cloud.wishes().len(), 2);
        none_is_left(&house, &cloud).await;
        house.close();
    });
}

/// The provider fails like this; the request goes back, and the worker that
/// comes then builds it.
fn another_worker_builds_it(does: Option<Does>, patience: Duration) {
    story_with_faults(move || async move {
        let cloud = Cloud::default();
        match &does {
            Some(does) => drop(cloud.will([does.clone()])),
            None => cloud.silent(true),
        }
        let (house, fleet) = open(&cloud, patience, LONG, vec![builder("a", &["l1", "w1"])]).await;
        let ids = house.submit("a", 2).await;
        house
            .until("the request waits again", || {
                let view = house.board.builder(&"a".into());
                view.is_some_and(|view| view.waiting == 2)
                    && notes(&house).contains(&"removing latent l1".to_owned())
            })
            .await;
        let told = notes(&house);
        let failed = told.iter().position(|note| note == "substantiate failed");
        let removed = told.iter().position(|note| note == "removing latent l1");
        assert!(failed.is_some() && failed < removed, "b14: {told:?}");
        let untouched = "SELECT count(*) FROM requests WHERE state = 0 AND epoch = 0";
        assert_eq!(house.number(untouched), 2, "nothing was claimed");
        house.until("what was made is gone", || cloud.there().is_empty()).await;
        let w1 = house.robot("w1");
        house.until("both are built", || house.requests_in(2) == 2).await;
        assert_eq!(w1.ran(), ids, "in their order");
        assert!(fleet.ran().is_empty());
        none_is_left(&house, &cloud).await;
        house.close();
    });
}

#[test]
fn fx01_a_provider_that_panics_costs_the_request_nothing() {
    another_worker_builds_it(Some(Does::Panic), LONG);
}

#[test]
fn fx01_a_provider_that_hangs_costs_the_request_nothing() {
    another_worker_builds_it(Some(Does::Hang), SHORT);
}

#[test]
fn fx01_a_provider_that_has_no_room_for_too_long_costs_the_request_nothing() {
    another_worker_builds_it(Some(Does::SayNotNow), SHORT);
}

#[test]
fn fx02_an_instance_that_never_attaches_costs_the_request_nothing() {
    another_worker_builds_it(None, SHORT);
}

#[test]
fn fx03_an_instance_that_dies_at_once_is_not_waited_for() {
    another_worker_builds_it(Some(Does::MakeDead), LONG);
}

#[test]
fn fx01_a_provider_without_room_is_asked_again() {
    story(|| async {
        let cloud = Cloud::default();
        cloud.will([Does::SayNotNow]);
        let (house, _fleet) = open(&cloud, LONG, LONG, vec![builder("a", &["l1"])]).await;
        house.submit("a", 1).await;
        house.until("it is built", || house.requests_in(2) == 1).await;
        let wishes = cloud.wishes();
        assert_eq!(wishes.len(), 2);
        assert_eq!(wishes[0], wishes[1], "one wish, asked for twice");
        let told = notes(&house);
        assert!(!told.contains(&"substantiate failed".to_owned()), "{told:?}");
        house.close();
    });
}

#[test]
fn fx01_what_is_no_use_to_try_again_is_an_exception() {
    story(|| async {
        let cloud = Cloud::default();
        cloud.will([Does::SayNever]);
        let (house, _fleet) = open(&cloud, LONG, LONG, vec![builder("a", &["l1"])]).await;
        house.submit("a", 1).await;
        house.until("it ended", || house.requests_in(2) == 1).await;
        let text =
            house.texts("SELECT number || ' ' || results || ' ' || state_string FROM builds");
        assert_eq!(text, ["1 4 no instance of worker l1: no such image"]);
        none_is_left(&house, &cloud).await;
        house
            .until("nothing is open", || {
                house.board.builder(&"a".into()).is_some_and(|view| view.builds.is_empty())
            })
            .await;
        house.close();
    });
}

#[test]
fn fx04_an_instance_that_attaches_after_it_was_given_up_is_turned_away() {
    story(|| async {
        let cloud = Cloud::default();
        cloud.silent(true);
        // It goes on living for a while.
        cloud.resist(1);
        let (house, fleet) = open(&cloud, SHORT, LONG, vec![builder("a", &["l1"])]).await;
        house.submit("a", 1).await;
        house.until("it is given up", || cloud.destroys() == 1).await;
        let tag = cloud.wishes()[0].clone();
        cloud.silent(false);
        house.until("it comes all the same", || fleet.robot(&tag).is_some()).await;
        let robot = fleet.robot(&tag).unwrap();
        house.until("it is turned away", || robot.complaints().len() == 1).await;
        assert!(robot.complaints()[0].starts_with("superseded: "), "{:?}", robot.complaints());
        house.until("it is gone", || cloud.there().is_empty()).await;
        assert!(robot.starts().is_empty(), "no build is started on it");
        house.close();
    });
}

#[test]
fn fx05_an_instance_that_vanishes_while_idle_is_made_anew() {
    story(|| async {
        let cloud = Cloud::default();
        let (house, fleet) = open(&cloud, LONG, LONG, vec![builder("a", &["l1"])]).await;
        house.submit("a", 1).await;
        house.until("it is built", || house.requests_in(2) == 1).await;
        house.until("it is idle", || state(&house) == "idle").await;
        let tag = cloud.wishes()[0].clone();
        fleet.robot(&tag).unwrap().go();
        none_is_left(&house, &cloud).await;
        house
            .until("it is latent", || house.seat(&house.settings.builders[0], "l1") == "latent")
            .await;
        assert!(!notes(&house).iter().any(|note| note.starts_with("disconnect")));
        house.submit("a", 1).await;
        house.until("the next is built", || house.requests_in(2) == 2).await;
        assert_eq!(cloud.wishes().len(), 2);
        house.close();
    });
}

#[test]
fn fr05_a_build_on_an_instance_that_dies_is_built_again_without_waiting_for_the_grace() {
    story(|| async {
        let cloud = Cloud::default();
        let mut a = builder("a", &["l1"]);
        a.grace = LONG;
        let (house, fleet) = open(&cloud, LONG, SHORT, vec![a]).await;
        cloud.workers_hold(Some(Say::Finish));
        house.submit("a", 1).await;
        house.until("it builds", || fleet.ran().len() == 1).await;
        let tag = cloud.there()[0].clone();
        cloud.workers_hold(None);
        cloud.dies(&tag);
        house.until("it is built again", || house.requests_in(2) == 1).await;
        assert_eq!((cloud.wishes().len(), fleet.ran().len()), (2, 2));
        assert_eq!(cloud.destroyed()[0], tag, "i3: what was left of it went first");
        none_is_left(&house, &cloud).await;
        house.close();
    });
}

#[test]
fn fx06_builds_that_are_given_to_an_instance_about_to_go_run_once() {
    story(|| async {
        let cloud = Cloud::default();
        let builders = vec![builder("a", &["l1"]), builder("b", &["l1"])];
        let (house, fleet) = open(&cloud, LONG, Duration::ZERO, builders).await;
        let mut ids = Vec::new();
        for round in 0..20 {
            ids.extend(house.submit(if round % 3 == 0 { "b" } else { "a" }, 1).await);
            // Not in step with the ends of builds.
            tokio::time::sleep(Duration::from_millis(round % 7)).await;
        }
        house.until("all are built", || house.requests_in(2) == 20).await;
        none_is_left(&house, &cloud).await;
        let mut ran = fleet.ran();
        ran.sort();
        assert_eq!(ran, ids, "each once: none was killed after its start");
        assert_eq!(house.number("SELECT count(*) FROM builds WHERE results <> 0"), 0);
        house.close();
    });
}

#[test]
fn fx07_fc03_a_build_that_waits_over_two_reloads_hears_of_its_instance() {
    story(|| async {
        let cloud = Cloud::default();
        cloud.hold(true);
        let (mut house, fleet) = open(&cloud, LONG, LONG, vec![builder("a", &["l1"])]).await;
        let ids = house.submit("a", 2).await;
        house.until("it is asked for", || cloud.wishes().len() == 1).await;
        for tags in ["one", "two"] {
            let report =
                house.reload(|settings| edit(settings, "a").tags = vec![tags.into()]).await;
            assert_eq!(report.entries[0].error, None);
        }
        cloud.hold(false);
        house.until("both are built", || house.requests_in(2) == 2).await;
        assert_eq!(fleet.ran(), ids, "t09: each once, in order");
        assert_eq!(cloud.wishes().len(), 1);
        let told = notes(&house);
        let count = |text: &str| told.iter().filter(|note| note.starts_with(text)).count();
        assert_eq!(count("added latent l1"), 1, "b26: the moved one counts as present: {told:?}");
        assert_eq!((count("substantiating"), count("substantiate success")), (0, 1));
        assert_eq!(count("failed start"), 0, "the seat is the successor's, and the build has it");
        assert_eq!(house.number("SELECT max(epoch) FROM requests"), 1, "each was claimed once");
        house.close();
    });
}

#[test]
fn fx07_an_instance_that_attaches_in_the_middle_of_a_reload_is_not_missed() {
    story(|| async {
        let cloud = Cloud::default();
        cloud.silent(true);
        let (mut house, fleet) = open(&cloud, LONG, LONG, vec![builder("a", &["l1"])]).await;
        house.submit("a", 1).await;
        house.until("it is there", || cloud.there().len() == 1).await;
        cloud.silent(false);
        let tag = cloud.wishes()[0].clone();
        house.until("it comes", || fleet.robot(&tag).is_some()).await;
        fleet.robot(&tag).unwrap().hold(Say::Ready);
        house
            .until("it attaches", || {
                let robot = fleet.robot(&tag).unwrap();
                robot.held_back(Say::Ready) == 1 || robot.starts().len() == 1
            })
            .await;
        house.reload(|settings| edit(settings, "a").tags = vec!["one".into()]).await;
        fleet.robot(&tag).unwrap().release(Say::Ready);
        house.until("it is built", || house.requests_in(2) == 1).await;
        assert_eq!(fleet.ran().len(), 1);
        house.close();
    });
}

#[test]
fn t09_a_build_whose_substantiation_fails_after_a_reload_goes_to_the_latest() {
    story(|| async {
        let cloud = Cloud::default();
        cloud.hold(true);
        cloud.will([Does::SayNever, Does::SayNotNow]);
        let (mut house, _fleet) =
            open(&cloud, Duration::from_secs(1), LONG, vec![builder("a", &["l1", "w1"])]).await;
        let ids = house.submit("a", 2).await;
        house.until("it is asked for", || cloud.wishes().len() == 1).await;
        for tags in ["one", "two"] {
            house.reload(|settings| edit(settings, "a").tags = vec![tags.into()]).await;
        }
        // Time runs out while the provider thinks.
        house.until("it failed", || notes(&house).contains(&"substantiate failed".into())).await;
        let w1 = house.robot("w1");
        house.until("both are built", || house.requests_in(2) == 2).await;
        assert_eq!(w1.ran(), ids, "in their order, by the latest");
        cloud.hold(false);
        none_is_left(&house, &cloud).await;
        house.close();
    });
}

#[test]
fn t05_a_build_that_waits_for_a_worker_which_a_reload_takes_away_goes_elsewhere() {
    story(|| async {
        let cloud = Cloud::default();
        cloud.hold(true);
        let (mut house, _fleet) = open(&cloud, LONG, SHORT, vec![builder("a", &["l1"])]).await;
        let ids = house.submit("a", 1).await;
        house.until("it is asked for", || cloud.wishes().len() == 1).await;
        house.reload(|settings| edit(settings, "a").workers = vec!["w1".into()]).await;
        cloud.hold(false);
        let w1 = house.robot("w1");
        house.until("it is built", || house.requests_in(2) == 1).await;
        assert_eq!(w1.ran(), ids);
        none_is_left(&house, &cloud).await;
        house.close();
    });
}

#[test]
fn fx08_a_builder_that_was_removed_and_comes_back_has_its_latent_worker() {
    story(|| async {
        let cloud = Cloud::default();
        let both = vec![builder("a", &["l1"]), builder("b", &["w1"])];
        let (mut house, fleet) = open(&cloud, LONG, SHORT, both.clone()).await;
        cloud.hold(true);
        house.submit("a", 1).await;
        house.until("it is asked for", || cloud.wishes().len() == 1).await;
        house.reload(|settings| settings.builders.retain(|one| one.name.as_str() == "b")).await;
        cloud.hold(false);
        none_is_left(&house, &cloud).await;
        let back = both[0].clone();
        house.reload(|settings| settings.builders.insert(0, back.into())).await;
        house.until("what waited is built", || house.requests_in(2) == 1).await;
        house.submit("a", 1).await;
        house.until("it goes on", || house.requests_in(2) == 2).await;
        assert_eq!(fleet.ran().len(), 2);
        none_is_left(&house, &cloud).await;
        house.close();
    });
}

#[test]
fn a_worker_that_is_removed_lets_its_instance_go() {
    story(|| async {
        let cloud = Cloud::default();
        let (mut house, _fleet) = open(&cloud, LONG, LONG, vec![builder("a", &["l1"])]).await;
        house.submit("a", 1).await;
        house.until("it is built", || house.requests_in(2) == 1).await;
        house
            .reload(|settings| {
                settings.workers.retain(|one| one.config.name.as_str() != "l1");
                edit(settings, "a").workers = vec!["w1".into()];
            })
            .await;
        house
            .until("it is gone", || {
                cloud.there().is_empty() && house.number("SELECT count(*) FROM instances") == 0
            })
            .await;
        house.until("nothing is shown of it", || house.board.worker(&"l1".into()).is_none()).await;
        house.close();
    });
}

#[test]
fn fa18_fx08_a_worker_that_is_removed_and_comes_back_has_its_instance_and_builds_go_on() {
    story(|| async {
        let cloud = Cloud::default();
        let (mut house, fleet) = open(&cloud, LONG, LONG, vec![builder("a", &["l1"])]).await;
        cloud.workers_hold(Some(Say::Finish));
        house.submit("a", 1).await;
        house.until("it is there", || cloud.there().len() == 1).await;
        let tag = cloud.there()[0].clone();
        house.until("it comes", || fleet.robot(&tag).is_some()).await;
        let robot = fleet.robot(&tag).unwrap();
        house.until("it builds", || robot.held_back(Say::Finish) == 1).await;
        let mut kept = None;
        house
            .reload(|settings| {
                kept = Some(settings.workers.remove(0));
                edit(settings, "a").workers = vec!["w1".into()];
            })
            .await;
        house
            .reload(|settings| {
                settings.workers.insert(0, kept.take().unwrap());
                edit(settings, "a").workers = vec!["l1".into()];
            })
            .await;
        house.until("its old connection is closed", || !robot.attached()).await;
        robot.come_back();
        house.until("it is back with its build", || state(&house) == "up").await;
        robot.release(Say::Finish);
        house.until("it is built", || house.requests_in(2) == 1).await;
        house.submit("a", 1).await;
        house.until("and the next", || house.requests_in(2) == 2).await;
        assert_eq!(fleet.ran().len(), 2, "none was built twice");
        assert_eq!(cloud.wishes().len(), 1, "there was one instance all the time");
        house.close();
    });
}

#[test]
fn fx10_a_worker_that_comes_back_waits_until_its_former_instance_is_gone() {
    story(|| async {
        let cloud = Cloud::default();
        let (mut house, _fleet) = open(&cloud, LONG, LONG, vec![builder("a", &["l1"])]).await;
        house.submit("a", 1).await;
        house.until("it is built", || house.requests_in(2) == 1).await;
        cloud.resist(1);
        let mut kept = None;
        house
            .reload(|settings| {
                kept = Some(settings.workers.remove(0));
                edit(settings, "a").workers = vec!["w1".into()];
            })
            .await;
        house.until("it resists", || cloud.destroys() == 1).await;
        house
            .reload(|settings| {
                settings.workers.insert(0, kept.take().unwrap());
                edit(settings, "a").workers = vec!["l1".into()];
            })
            .await;
        house.submit("a", 1).await;
        house.until("it is built, too", || house.requests_in(2) == 2).await;
        assert_eq!(cloud.wishes().len(), 2);
        assert_eq!(cloud.most(), 1, "never two at the same time");
        house.close();
    });
}

#[test]
fn fx09_the_next_master_adopts_what_is_there_and_destroys_what_nobody_wants() {
    story(|| async {
        let cloud = Cloud::default();
        let (house, fleet) = open(&cloud, LONG, LONG, vec![builder("a", &["l1"])]).await;
        house.submit("a", 1).await;
        house.until("it is idle", || state(&house) == "idle").await;
        let tag = cloud.there()[0].clone();
        let robot = fleet.robot(&tag).unwrap();
        robot.go();
        // Dead before it could hear that: the row says that the instance is there.
        let stray = InstanceTag::new(WorkerId(1), 77);
        cloud.plant(&stray);
        let house = house.next_master(|_| {}).await;
        robot.move_to(house.greeter.clone());
        robot.come_back();
        house.until("it is taken back", || state(&house) == "idle").await;
        house.until("the stray is gone", || cloud.there() == [tag.clone()]).await;
        assert_eq!(cloud.destroyed(), [stray]);
        house.submit("a", 1).await;
        house.until("it is built", || house.requests_in(2) == 2).await;
        assert_eq!(cloud.wishes().len(), 1, "and no other was made");
        house.close();
    });
}

#[test]
fn fx10_fx11_a_destroy_that_fails_goes_on_over_a_restart_of_the_master() {
    story(|| async {
        let cloud = Cloud::default();
        cloud.resist(1000);
        let builders = vec![builder("a", &["l1"])];
        let (house, _fleet) = open(&cloud, LONG, Duration::ZERO, builders).await;
        house.submit("a", 1).await;
        house
            .until("it is asked for again and shown", || {
                let view = house.board.worker(&"l1".into()).unwrap();
                let instance = view.instance.as_ref().unwrap();
                instance.state == "destroying"
                    && instance.tries >= 2
                    && instance.error.as_deref() == Some("it resists")
            })
            .await;
        let house = house.next_master(|_| {}).await;
        let before = cloud.destroys();
        house.until("the next one goes on", || cloud.destroys() > before).await;
        cloud.resist(0);
        none_is_left(&house, &cloud).await;
        house.close();
    });
}

#[test]
fn ff03_a_cancel_while_substantiating_leaves_nothing_behind() {
    story(|| async {
        let cloud = Cloud::default();
        cloud.hold(true);
        let (house, fleet) = open(&cloud, LONG, SHORT, vec![builder("a", &["l1"])]).await;
        let ids = house.submit("a", 1).await;
        house.until("it is asked for", || cloud.wishes().len() == 1).await;
        let (request, reason) = (ids[0], "no".to_owned());
        let cancel = CancelRequest { request, builder: "a".into(), reason };
        assert!(house.handle.cancel(cancel).await.unwrap());
        assert_eq!(house.requests_in(3), 1);
        cloud.hold(false);
        house.until("it comes, is not needed, and goes", || cloud.destroyed().len() == 1).await;
        none_is_left(&house, &cloud).await;
        assert!(fleet.ran().is_empty());
        house.close();
    });
}

#[test]
fn l03_c03_a_ping_of_an_unsubstantiated_worker_succeeds_at_once() {
    story(|| async {
        let cloud = Cloud::default();
        let (house, _fleet) = open(&cloud, LONG, LONG, vec![builder("a", &["l1"])]).await;
        house
            .until("it is there", || house.seat(&house.settings.builders[0], "l1") == "latent")
            .await;
        assert!(house.handle.ping("a".into()).await.unwrap());
        house.until("it is told", || notes(&house).contains(&"ping latent".to_owned())).await;
        assert!(cloud.wishes().is_empty());
        house.close();
    });
}

#[test]
fn a_builder_that_panics_while_its_build_waits_waits_anew() {
    story_with_faults(|| async {
        let cloud = Cloud::default();
        cloud.hold(true);
        let (house, fleet) = open(&cloud, LONG, LONG, vec![builder("a", &["l1"])]).await;
        let ids = house.submit("a", 1).await;
        house.until("it is asked for", || cloud.wishes().len() == 1).await;
        faults::arm("builder.cancel", 1);
        let (request, reason) = (RequestId(999), "nobody's".to_owned());
        let cancel = CancelRequest { request, builder: "a".into(), reason };
        let _ = house.handle.cancel(cancel).await;
        house
            .until("it was started again", || {
                house.board.builder(&"a".into()).is_some_and(|view| view.restarts == 1)
            })
            .await;
        // What nobody waits for any more has an end, and the new wait a beginning.
        house
            .until("the old wait is over", || {
                notes(&house).contains(&"substantiate failed".to_owned())
            })
            .await;
        cloud.hold(false);
        house.until("it is built", || house.requests_in(2) == 1).await;
        assert_eq!(fleet.ran(), ids);
        house.close();
    });
}

#[test]
fn a_latent_worker_survives_panics_of_all_its_parts() {
    for place in [
        "latent_slave_builder.substantiate",
        "latent_slave_builder.news",
        "builder.add_latent",
        "builder.slot_granted",
        "builder.claimed",
        "builder.build_finished",
        "worker.instance",
        "worker.create_instance",
        "worker.ask_slot",
        "worker.hello",
        "slave_builder.news",
    ] {
        story_with_faults(move || async move {
            let cloud = Cloud::default();
            faults::arm(place, 1);
            // An answer that is lost is missed when the time is over.
            let builders = vec![builder("a", &["l1", "w1"])];
            let (house, fleet) = open(&cloud, Duration::from_secs(2), SHORT, builders).await;
            let ids = house.submit("a", 3).await;
            house.comes_true(Duration::from_secs(1), || house.requests_in(2) == 3).await;
            // Whatever became of it, others go on.
            let w1 = house.robot("w1");
            house
                .until_in(LIMIT, &format!("all are built after {place}"), || {
                    house.requests_in(2) == 3
                })
                .await;
            let mut ran = [fleet.ran(), w1.ran()].concat();
            ran.sort();
            assert_eq!(ran, ids, "each once, after {place}");
            faults::disarm_all();
            house.until("no instance is left", || cloud.there().is_empty()).await;
            house.close();
        });
    }
}
