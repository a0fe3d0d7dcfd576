//! Builders that have built before say when builds and queues will end, and
//! how far off that was.

use serde_json::Value;

use crate::kit::{Place, builder, until, waiting, worker};

#[test]
fn b19_a_builder_with_history_says_when_builds_end_and_how_far_off_that_was() {
    let steps = ["true", &waiting("go")];
    let place = Place::new(&format!("{}{}", worker("w", 1), builder("unit", "w", &steps)));
    let master = place.master();
    let _worker = master.worker("w", 1);
    place.open("go");
    master.cli(&["force", "unit", "--wait"]).expect(0);
    let ran = master.cli(&["builds"]).expect(0);
    assert!(ran.out.lines().nth(1).unwrap().contains("  -  "), "the first: {}", ran.all());
    let known = || master.get("builders/unit/expectations").1;
    until("it is learnt", || (known()["learnt_from"] == 1).then_some(()));

    place.gone("go");
    for _ in 0..3 {
        master.cli(&["force", "unit"]).expect(0);
    }
    let running = master.running("unit", 2);
    // The board, by which they are worked out, shows a queue a moment later.
    let etas = until("the queue is shown", || {
        let etas = master.get("botmaster/etas").1;
        (etas["requests"].as_object()?.len() == 2).then_some(etas)
    });
    let build = &etas["builds"][running["buildid"].to_string()];
    assert!(build["left"]["high_s"].as_f64().unwrap() > 0.0, "{etas}");
    let waiting = etas["requests"].as_object().unwrap();
    let ends: Vec<f64> =
        waiting.values().map(|eta| eta["end"]["likely_s"].as_f64().unwrap()).collect();
    assert!(ends[0] < ends[1], "{etas}");
    let ran = master.cli(&["builds"]).expect(0);
    assert!(ran.out.lines().nth(1).unwrap().contains(" left "), "{}", ran.all());
    let ran = master.cli(&["queue"]).expect(0);
    assert_eq!(ran.out.lines().count(), 3);
    assert!(!ran.out.lines().any(|line| line.ends_with('-')), "{}", ran.all());
    // Those that wait for long get a time to be measured by.
    let longer = until("it is late", || {
        let (_, progress) = master.get(&format!("builds/{}/progress", running["buildid"]));
        progress["eta"]["left"]["late_s"].as_f64().filter(|late| *late > 2.0)
    });
    assert!(longer > 2.0);
    let ran = master.cli(&["build", "unit/2"]).expect(0);
    assert!(ran.out.contains(", late by "), "{}", ran.all());

    place.open("go");
    let ended = until("all ended", || {
        let builds = master.list("builds?builderid=1&complete=true");
        (builds.len() == 4).then_some(builds)
    });
    let ran = master.cli(&["builds"]).expect(0);
    let late = ran.out.lines().find(|line| line.contains("unit/2 ")).unwrap().to_owned();
    assert!(late.contains(" %") && late.contains('+'), "{}", ran.all());
    let told = until("what was off is told", || {
        let known = known();
        (known["learnt_from"] == 4).then_some(known)
    });
    assert_eq!(told["builds"]["ended"], 3, "{told}");
    assert!(told["builds"]["median_off_percent"].is_number(), "{told}");
    assert_eq!(told["requests"]["ended"], 2, "the two that waited: {told}");

    // All of it outlives the master.
    let master = master.again();
    assert_eq!(master.get("builders/unit/expectations").1["total"], told["total"]);
    let ids: Vec<&Value> = ended.iter().map(|build| &build["buildid"]).collect();
    assert_eq!(ids.len(), 4);
    let ran = master.cli(&["builds"]).expect(0);
    assert!(ran.out.contains(&late[late.find('+').unwrap()..late.find(" %").unwrap()]));
}
