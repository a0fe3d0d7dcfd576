//! Several builds at once.

use serde_json::Value;

use crate::kit::{Master, Place, builder, until, waiting, worker};

fn used(master: &Master<'_>) -> u64 {
    master.board()["workers"]["w"]["used"].as_u64().unwrap()
}

#[test]
fn i5_builders_that_share_a_worker_fill_its_slots_and_no_more_and_all_get_their_turn() {
    let names = ["a", "b", "c", "d"];
    let mut config = worker("w", 3);
    for name in names {
        config += &builder(name, "w", &[&format!("echo {name} here; {}", waiting("go"))]);
    }
    let place = Place::new(&config);
    let master = place.master();
    let _worker = master.worker("w", 8);
    master.attached("w");
    for name in names {
        master.force(name);
        master.force(name);
    }
    let running = until("three builds run", || {
        let builds = master.list("builds?complete=false");
        let begun = |build: &&Value| build["number"].is_u64();
        let running = builds.iter().filter(begun).count();
        assert!(running <= 3, "I5: {running} builds at once");
        (running == 3).then_some(builds)
    });
    assert_eq!(used(&master), 3);
    let mut builders: Vec<_> = running.iter().map(|build| build["builderid"].as_u64()).collect();
    builders.dedup();
    assert_eq!(builders.len(), 3);
    place.open("go");
    for name in names {
        for number in 1..=2 {
            master.ended_as(name, number, 0);
            assert_eq!(master.log(name, number, 0, 'o'), [format!("{name} here")]);
        }
    }
    until("all slots are free", || (used(&master) == 0).then_some(()));
}

#[test]
fn one_builder_uses_all_its_workers() {
    let place = Place::new(&format!(
        "{}{}{}",
        worker("w1", 1),
        worker("w2", 1),
        builder("b", "w1\", \"w2", &[&waiting("go")])
    ));
    let master = place.master();
    let _workers = [master.worker("w1", 1), master.worker("w2", 1)];
    master.force("b");
    master.force("b");
    master.running("b", 1);
    master.running("b", 2);
    let on = |number| master.build("b", number).unwrap()["workerid"].clone();
    assert_ne!(on(1), on(2));
    place.open("go");
    master.ended_as("b", 1, 0);
    master.ended_as("b", 2, 0);
}
