//! What gave up even on its restarts: what becomes of its work, and how it is
//! started again (fault rows FM05 to FM07 and FF11).

use std::time::Duration;

use botmaster::core::ids::{BuildId, RequestId};
use botmaster::faults;
use botmaster::messages::{Refusal, StopBuild};
use botmaster::settings::Timers;
use tokio::time::timeout;

use crate::house::*;
use crate::panics::break_it;
use crate::robot::{Robot, Say};

async fn restart(house: &House, builder: &str) -> Result<(), Refusal> {
    timeout(LIMIT, house.handle.restart(builder.into())).await.expect("it is answered")
}

fn is_broken(house: &House) -> bool {
    house.board.builder(&"a".into()).is_some_and(|view| view.broken.is_some())
}

/// Whether these requests are done, with success.
fn done(house: &House, ids: &[RequestId]) -> bool {
    let done = |id: &RequestId| {
        house.number(&format!("SELECT state = 2 AND results = 0 FROM requests WHERE id = {id}"))
    };
    ids.iter().all(|id| done(id) == 1)
}

/// A builder breaks while its first build is held back at `held`, and is
/// started again. `meanwhile` happens while it is broken.
fn broken_and_started_again(held: Say, meanwhile: impl FnOnce(&House, &Robot) + Send + 'static) {
    story_with_faults(move || async move {
        let builders = vec![builder("a", &["w1"]), builder("b", &["w1"])];
        let house = House::open(&[("w1", 1)], builders).await;
        let [w1] = house.robots(["w1"]).await;
        w1.hold(held);
        let mut ids = house.submit("a", 3).await;
        house.until("the first is on its way", || w1.held_back(held) == 1).await;
        break_it(&house).await;
        // What broke it was stored before it was told.
        let kept = house.number("SELECT count(*) FROM requests");
        ids.extend((ids.len() as u64 + 1..=kept).map(RequestId));
        meanwhile(&house, &w1);
        assert_eq!(restart(&house, "a").await, Ok(()));
        house.until("it stands", || !is_broken(&house)).await;
        w1.release(held);
        ids.extend(house.submit("a", 2).await);
        ids.extend(house.submit("b", 1).await);
        house.all_built(&ids, &[&w1]).await;
        assert_eq!(w1.connections(), 1, "the worker did not have to come again");
        house.until("the worker keeps nothing", || w1.keeps() == 0).await;
        house.close();
    });
}

#[test]
fn fm06_a_broken_builder_that_is_started_again_has_its_running_build_and_its_queue() {
    broken_and_started_again(Say::Finish, |_, _| ());
}

#[test]
fn fm06_a_build_that_ends_while_its_builder_is_broken_is_not_built_again() {
    broken_and_started_again(Say::Finish, |_, w1| w1.release(Say::Finish));
}

#[test]
fn fm06_a_start_that_pings_while_its_builder_breaks_is_begun_anew() {
    broken_and_started_again(Say::Pong, |_, _| ());
}

#[test]
fn fm06_a_start_that_is_accepted_while_its_builder_is_broken_is_called_off() {
    broken_and_started_again(Say::Accept, |_, w1| w1.release(Say::Accept));
}

#[test]
fn fm06_a_start_that_is_accepted_after_its_builder_was_started_again_is_called_off() {
    broken_and_started_again(Say::Accept, |_, _| ());
}

#[test]
fn fm06_only_a_broken_builder_is_started_again() {
    story_with_faults(|| async {
        let house = House::open(&[("w1", 1)], vec![builder("a", &["w1"])]).await;
        assert_eq!(restart(&house, "a").await, Err(Refusal::NotBroken("a".into())));
        assert_eq!(restart(&house, "x").await, Err(Refusal::NoSuchBuilder("x".into())));
        house.close();
    });
}

#[test]
fn fm06_a_builder_that_breaks_again_can_be_started_again_later() {
    story_with_faults(|| async {
        let house = House::open(&[("w1", 1)], vec![builder("a", &["w1"])]).await;
        let [w1] = house.robots(["w1"]).await;
        w1.hold(Say::Finish);
        let ids = house.submit("a", 2).await;
        house.until("it runs", || w1.held_back(Say::Finish) == 1).await;
        break_it(&house).await;
        // The cause is not gone.
        faults::arm("builder.attach", 6);
        let _ = restart(&house, "a").await;
        house.until("it is broken again", || faults::left("builder.attach") == 0).await;
        house.until("it is shown as broken", || is_broken(&house)).await;
        assert_eq!(restart(&house, "a").await, Ok(()));
        w1.release(Say::Finish);
        house.until("all are built", || done(&house, &ids)).await;
        assert_eq!(w1.ran()[..2], ids[..], "each once");
        house.close();
    });
}

#[test]
fn fm06_a_reload_that_changes_a_broken_builder_starts_it_again() {
    story_with_faults(|| async {
        let mut house = House::open(&[("w1", 1)], vec![builder("a", &["w1"])]).await;
        let [w1] = house.robots(["w1"]).await;
        w1.hold(Say::Finish);
        let ids = house.submit("a", 2).await;
        house.until("it runs", || w1.held_back(Say::Finish) == 1).await;
        break_it(&house).await;
        let report = house.reload(|_| ()).await;
        let told = report.entries[0].error.clone().unwrap_or_default();
        assert!(told.contains("`botmaster restart a` starts it again"), "{told}");
        assert!(is_broken(&house));
        let report = house.reload(|settings| edit(settings, "a").env.clear()).await;
        assert_eq!(report.entries[0].action, "unchanged", "that changed nothing");
        let change = |settings: &mut botmaster::settings::Settings| {
            edit(settings, "a").env.insert("NEW".into(), "1".into());
        };
        let report = house.reload(change).await;
        assert_eq!(
            (report.entries[0].action.as_str(), &report.entries[0].error),
            ("changed", &None)
        );
        house.until("it stands", || !is_broken(&house)).await;
        w1.release(Say::Finish);
        house.until("all are built", || done(&house, &ids)).await;
        house.close();
    });
}

#[test]
fn fm06_a_broken_builder_that_is_removed_and_comes_back_does_not_run_its_build_twice() {
    story_with_faults(|| async {
        let mut house = House::open(&[("w1", 2)], vec![builder("a", &["w1"])]).await;
        let [w1] = house.robots(["w1"]).await;
        w1.hold(Say::Finish);
        let ids = house.submit("a", 1).await;
        house.until("it runs", || w1.held_back(Say::Finish) == 1).await;
        break_it(&house).await;
        let kept = house.settings.builders.clone();
        house.reload(|settings| settings.builders.clear()).await;
        house.reload(move |settings| settings.builders = kept).await;
        house.until("it stands", || house.board.builder(&"a".into()).is_some()).await;
        w1.release(Say::Finish);
        house.until("it is built", || done(&house, &ids)).await;
        house.nothing_is_taken().await;
        let times = w1.ran().iter().filter(|ran| **ran == ids[0]).count();
        assert_eq!(times, 1);
        house.close();
    });
}

#[test]
fn fm05_the_builds_of_a_predecessor_that_gives_up_are_its_successors() {
    story_with_faults(|| async {
        let mut house = House::open(&[("w1", 1)], vec![builder("a", &["w1"])]).await;
        let [w1] = house.robots(["w1"]).await;
        w1.hold(Say::Finish);
        let mut ids = house.submit("a", 1).await;
        house.until("it runs", || w1.held_back(Say::Finish) == 1).await;
        house.reload(|settings| edit(settings, "a").description = Some("new".into())).await;
        ids.extend(house.submit("a", 2).await);
        // What is asked of the predecessor makes it panic.
        faults::arm("builder.event", 6);
        let (build, reason) = (BuildId(1), "story".to_owned());
        for left in (0..6).rev() {
            let stop = StopBuild { build, builder: "a".into(), reason: reason.clone() };
            // Nobody has kept it, so nobody is told that it stops (I12).
            assert_eq!(house.handle.stop(stop).await, Err(Refusal::Gone));
            house.until("it panicked", || faults::left("builder.event") == left).await;
        }
        let view = || house.board.builder(&"a".into()).unwrap();
        house.until("the successor has its build", || view().restarts == 1).await;
        house.until("as its own", || view().builds.iter().all(|build| !build.inherited)).await;
        assert_eq!(view().builds.len(), 1);
        w1.release(Say::Finish);
        house.all_built(&ids, &[&w1]).await;
        house.close();
    });
}

/// A Build panics until it gives up. The other requests are built.
fn a_build_gives_up(held: Option<Say>) {
    story_with_faults(move || async move {
        let house = House::open(&[("w1", 1)], vec![builder("a", &["w1"])]).await;
        let [w1] = house.robots(["w1"]).await;
        if let Some(held) = held {
            w1.hold(held);
            house.submit("a", 1).await;
            house.until("it runs", || w1.held_back(held) == 1).await;
        }
        faults::arm("build.step", 6);
        match held {
            Some(held) => w1.release(held),
            None => drop(house.submit("a", 1).await),
        }
        house.until("it gave up", || faults::left("build.step") == 0).await;
        house.submit("a", 2).await;
        house.until("all have ended", || house.requests_in(2) == 3).await;
        house.nothing_is_taken().await;
        let text = "SELECT state_string FROM builds WHERE results = 4";
        let texts = house.texts(text);
        assert_eq!(texts.len(), 1, "{texts:?}");
        assert!(texts[0].starts_with("exception: the master's part of the build gave up"));
        assert_eq!(house.number("SELECT results FROM requests WHERE id = 1"), 4, "durably");
        assert_eq!(house.number("SELECT count(*) FROM requests WHERE results = 0"), 2);
        assert_eq!(house.number("SELECT count(*) FROM steps WHERE complete_at IS NULL"), 0);
        house.until("the worker keeps none of them", || w1.keeps() == 0).await;
        house.close();
    });
}

#[test]
fn ff11_a_build_that_gives_up_at_its_start_ends_as_exception_and_frees_its_worker() {
    a_build_gives_up(None);
}

#[test]
fn ff11_a_build_that_gives_up_at_its_end_ends_as_exception_and_frees_its_worker() {
    a_build_gives_up(Some(Say::Finish));
}

#[test]
fn ff11_a_build_that_gives_up_while_the_store_is_full_ends_once_there_is_room() {
    story_with_faults(|| async {
        let house = House::open(&[("w1", 1)], vec![builder("a", &["w1"])]).await;
        let [w1] = house.robots(["w1"]).await;
        w1.hold(Say::Finish);
        house.submit("a", 1).await;
        house.until("it runs", || w1.held_back(Say::Finish) == 1).await;
        house.store_is_full(true);
        faults::arm("build.step", 6);
        w1.release(Say::Finish);
        house.until("it gave up", || faults::left("build.step") == 0).await;
        assert_eq!(house.requests_in(1), 1);
        house.store_is_full(false);
        house.until("it has ended", || house.requests_in(2) == 1).await;
        house.nothing_is_taken().await;
        house.close();
    });
}

#[test]
fn ff11_a_build_that_gives_up_while_its_builder_is_broken_is_taken_back_from_its_worker() {
    story_with_faults(|| async {
        let house = House::open(&[("w1", 1)], vec![builder("a", &["w1"])]).await;
        let [w1] = house.robots(["w1"]).await;
        w1.hold(Say::Finish);
        let ids = house.submit("a", 1).await;
        house.until("it runs", || w1.held_back(Say::Finish) == 1).await;
        break_it(&house).await;
        faults::arm("build.step", 6);
        w1.release(Say::Finish);
        house.until("it gave up", || faults::left("build.step") == 0).await;
        assert_eq!(restart(&house, "a").await, Ok(()));
        house.until("its end is told again", || done(&house, &ids)).await;
        house.nothing_is_taken().await;
        house.close();
    });
}

#[test]
fn ff11_a_build_that_gives_up_under_the_builder_that_took_it_over_ends_all_the_same() {
    story_with_faults(|| async {
        let house = House::open(&[("w1", 1)], vec![builder("a", &["w1"])]).await;
        let [w1] = house.robots(["w1"]).await;
        w1.hold(Say::Finish);
        house.submit("a", 1).await;
        house.until("it runs", || w1.held_back(Say::Finish) == 1).await;
        break_it(&house).await;
        assert_eq!(restart(&house, "a").await, Ok(()));
        faults::arm("build.step", 6);
        w1.release(Say::Finish);
        house.until("it gave up", || faults::left("build.step") == 0).await;
        let ended = "SELECT count(*) FROM requests WHERE id = 1 AND state = 2 AND results = 4";
        house.until("it ended", || house.number(ended) == 1).await;
        house.nothing_is_taken().await;
        house.close();
    });
}

#[test]
fn fm05_a_slave_builder_that_gives_up_gets_its_worker_back() {
    story_with_faults(|| async {
        let house = House::open(&[("w1", 1)], vec![builder("a", &["w1"])]).await;
        let [w1] = house.robots(["w1"]).await;
        faults::arm("slave_builder.ping", 6);
        let handle = house.handle.clone();
        let pings = actix_rt::spawn(async move {
            let pings = (0..6).map(|_| handle.ping("a".into()));
            futures_util::future::join_all(pings).await
        });
        house.until("it gave up", || faults::left("slave_builder.ping") == 0).await;
        // The worker does not come again at once.
        w1.go();
        let seat = || house.seat(&house.settings.builders[0], "w1");
        house.until("its place is gone", || seat() == "none").await;
        assert_eq!(pings.await.unwrap(), vec![Ok(false); 6], "who waits hears so");
        w1.come_back();
        let ids = house.submit("a", 2).await;
        house.all_built(&ids, &[&w1]).await;
        house.close();
    });
}

#[test]
fn fm06_a_worker_actor_that_gives_up_is_replaced_after_a_while() {
    story_with_faults(|| async {
        let timers = Timers { worker_again: Duration::from_millis(300), ..timers() };
        let house = House::open_with(timers, &[("w1", 1)], vec![builder("a", &["w1"])]).await;
        let w1 = house.robot("w1");
        faults::arm("worker.frame", 6);
        house.until("it gave up", || faults::left("worker.frame") == 0).await;
        let ids = house.submit("a", 2).await;
        house.until("all are built", || done(&house, &ids)).await;
        house.nothing_is_taken().await;
        let told = w1.complaints();
        assert!(told[0].starts_with("busy: the master's part for this worker failed"), "{told:?}");
        house.close();
    });
}

#[test]
#[ignore = "runs in a process of its own, which is expected to end"]
fn child_whose_bot_master_panics() {
    let folder = std::env::var_os("STORY_DIR").expect("STORY_DIR is set by the parent");
    let file = std::path::Path::new(&folder).join("x.toml");
    let overrides = botmaster::settings::Overrides::default();
    let loaded = botmaster::settings::load_with(&file, &overrides).unwrap();
    actix_rt::System::new().block_on(async move {
        let options =
            botmaster::app::MasterOptions { loaded, overrides, opening: Default::default() };
        let master = botmaster::app::Master::start(options).await.unwrap();
        master.handle.submit(vec![submission("a")]).await.unwrap();
        faults::arm("bot_master.submit", 1);
        let _ = master.handle.submit(vec![submission("a")]).await;
        tokio::time::sleep(LIMIT).await;
    });
}

#[test]
fn fm07_a_panic_of_the_bot_master_ends_the_process_and_the_store_is_intact() {
    let folder = tempfile::tempdir().unwrap();
    let config = "[master]\ndata_dir = \"data\"\nhttp = \"127.0.0.1:0\"\nlisten = \"127.0.0.1:0\"\n\
                  [[builder]]\nname = \"a\"\nworkers = []\n[[builder.step]]\nname = \"s\"\nshell = \"true\"\n";
    std::fs::write(folder.path().join("x.toml"), config).unwrap();
    let out = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "again::child_whose_bot_master_panics", "--test-threads=1"])
        .env("STORY_DIR", folder.path())
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(70), "{out:?}");
    let conn = rusqlite::Connection::open(folder.path().join("data/state.sqlite")).unwrap();
    let count = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(count("SELECT count(*) || '' FROM requests WHERE state = 0"), "1");
    assert_eq!(count("PRAGMA integrity_check"), "ok");
}
