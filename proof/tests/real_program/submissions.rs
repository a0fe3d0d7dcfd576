//! Masters that die while somebody asks for a build.

use botmaster_sim::history::Told;
use serde_json::json;

use crate::scene::{HASTY, Scene, builder, worker};

/// Asks once; nobody answers, for the master dies over it.
#[track_caller]
fn asks_in_vain(scene: &Scene) {
    let params = json!({ "builderNames": ["b"], "idempotency_key": "once" });
    let answer = scene.api().order("forceschedulers/force", "force", &params);
    assert_eq!(answer, None, "nothing may be acknowledged");
}

fn scene() -> Scene {
    Scene::new(&format!("{HASTY}{}{}", worker("w"), builder("b", "\"w\"", 2)))
}

#[test]
fn fq01_a_submit_that_was_not_durable_is_no_request() {
    let mut scene = scene();
    scene.master(Some("submit.before_commit"));
    asks_in_vain(&scene);
    let held = scene.dead("submit.before_commit");
    assert!(held.requests.is_empty() && held.keys.is_empty(), "{held:?}");
    scene.master(None);
    scene.worker("w");
    let request = scene.submit("b", "once");
    scene.ended(request);
    assert_eq!(scene.held().requests.len(), 1);
    scene.judged_well();
}

#[test]
fn fq01_fd05_a_submit_whose_answer_was_lost_is_there_and_its_key_finds_it() {
    let mut scene = scene();
    scene.master(Some("submit.after_commit"));
    asks_in_vain(&scene);
    let held = scene.dead("submit.after_commit");
    let there: Vec<_> = held.requests.keys().copied().collect();
    assert_eq!(there.len(), 1, "I1: it is in the store");
    scene.master(None);
    let request = scene.submit("b", "once");
    assert_eq!([request], there[..], "the same one, not a second");
    scene.worker("w");
    scene.ended(request);
    assert_eq!(scene.held().requests.len(), 1);
    assert!(matches!(scene.diary.told()[..], [Told::Submitted { .. }]));
    scene.judged_well();
}
