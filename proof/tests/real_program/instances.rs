//! Masters that die between asking for an instance and noting which it is.

use botmaster::core::values::BuildResult;
use botmaster_proof::within;
use botmaster_proof::yard::PATIENCE;

use crate::scene::{HASTY, Scene, builder};

fn scene() -> Scene {
    let cloud = "[[worker]]\nname = \"cloud\"\nmax_builds = 1\n[worker.latent]\n\
                 provider = \"process\"\nsubstantiate_timeout = \"30 s\"\nidle_timeout = \"1 s\"\n";
    Scene::new(&format!("{HASTY}{cloud}{}", builder("b", "\"cloud\"", 4)))
}

/// Worker programs that the provider made.
fn instances(scene: &Scene) -> Vec<i32> {
    let all = scene.yard.processes().into_iter();
    all.filter(|(_, line)| line.contains("--own-session")).map(|(pid, _)| pid).collect()
}

fn wishes(scene: &Scene) -> Vec<(i64, Option<String>)> {
    let conn = rusqlite::Connection::open(scene.yard.path("data/state.sqlite")).unwrap();
    let mut query = conn.prepare("SELECT state, provider_id FROM instances").unwrap();
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

/// The master has died: the provider has made one, and the store knows only
/// that it was wished for.
fn died_over_one() -> (Scene, i32) {
    let mut scene = scene();
    scene.master(Some("substantiate.after_create"));
    scene.submit("b", "a");
    scene.dead("substantiate.after_create");
    assert_eq!(wishes(&scene), [(0, None)], "the wish is durable, and no more");
    let made = instances(&scene);
    assert_eq!(made.len(), 1);
    (scene, made[0])
}

#[test]
fn fx09_an_instance_that_was_wished_for_is_found_by_its_tag_and_used() {
    let (mut scene, made) = died_over_one();
    let request = *scene.diary.wishes().keys().next().unwrap();
    scene.master(None);
    let ran = within(PATIENCE, || {
        assert!(instances(&scene).iter().all(|pid| *pid == made), "a second one was made");
        scene.builds_of(request).iter().find(|build| build.number.is_some()).cloned()
    });
    assert!(ran.is_some(), "no build started on it");
    assert_eq!(scene.ended(request).result, Some(BuildResult::Success));
    let gone = || (instances(&scene).is_empty() && wishes(&scene).is_empty()).then_some(());
    assert!(within(PATIENCE, gone).is_some(), "it idles out as any other");
    scene.judged_well();
}

#[test]
fn fx09_an_instance_with_our_tag_that_nobody_wished_for_is_destroyed() {
    let (mut scene, made) = died_over_one();
    let conn = rusqlite::Connection::open(scene.yard.path("data/state.sqlite")).unwrap();
    assert_eq!(conn.execute("DELETE FROM instances", []).unwrap(), 1);
    drop(conn);
    scene.master(None);
    let gone = || (!instances(&scene).contains(&made)).then_some(());
    assert!(within(PATIENCE, gone).is_some(), "the instance {made} was forgotten");
    let request = *scene.diary.wishes().keys().next().unwrap();
    assert_eq!(scene.ended(request).result, Some(BuildResult::Success), "on another one");
    let gone = || (instances(&scene).is_empty() && wishes(&scene).is_empty()).then_some(());
    assert!(within(PATIENCE, gone).is_some());
    scene.judged_well();
}
