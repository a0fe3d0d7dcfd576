//! That a build shall stop, as the store keeps it.

use std::sync::Arc;

use botmaster::core::ids::*;
use botmaster::core::values::*;
use botmaster::store::*;
use rusqlite::Connection;

use crate::world::*;

fn stop(build: BuildId, reason: &str) -> Op {
    Op::WantStop { build, reason: reason.into() }
}

fn kept(world: &World) -> Option<String> {
    world.engine.load_builder(world.builder).unwrap().builds.remove(0).stop
}

#[test]
fn ff04_the_first_stop_of_a_running_build_is_kept_and_shown_once() {
    let mut world = World::new();
    let (_, build) = world.running(1);
    assert_eq!(kept(&world), None);
    world.engine.drain_changes();
    for reason in ["enough", "no more"] {
        assert_eq!(world.run(stop(build.id, reason)), Ok(OpOutcome::StopWanted(true)));
    }
    assert_eq!(kept(&world).as_deref(), Some("enough"), "the first one counts");
    let changes = world.engine.drain_changes();
    let [Change::BuildUpdate(row)] = changes.as_slice() else { panic!("{changes:?}") };
    assert_eq!(row.state_string, "stopping (enough)");
    let shown = BuildRow { state_string: row.state_string.clone(), ..(*build).clone() };
    assert_eq!(**row, shown, "nothing else of it has changed");
}

#[test]
fn i12_a_claimed_build_keeps_the_stop_until_it_runs_and_shows_nothing() {
    let mut world = World::new();
    let request = world.submit().1.id;
    let build = world.claim(1, request, 0);
    world.changes();
    assert_eq!(world.run(stop(build.id, "enough")), Ok(OpOutcome::StopWanted(true)));
    assert_eq!(world.changes(), Vec::<String>::new(), "nobody sees it yet");
    world.start(build.id);
    assert_eq!(kept(&world).as_deref(), Some("enough"));
}

#[test]
fn t02_a_stop_of_a_build_that_ended_or_is_not_there_keeps_nothing() {
    let mut world = World::new();
    let (_, build) = world.running(1);
    assert_eq!(world.run(stop(build.id, "in time")), Ok(OpOutcome::StopWanted(true)));
    world.run(finish_op(build.id, BuildResult::Success, RequestsAfter::Done)).unwrap();
    world.changes();
    assert_eq!(world.run(stop(build.id, "late")), Ok(OpOutcome::StopWanted(false)));
    assert_eq!(world.run(stop(BuildId(99), "late")), Ok(OpOutcome::StopWanted(false)));
    assert_eq!(world.changes(), Vec::<String>::new());
}

#[test]
fn ff05_a_stopped_build_that_is_lost_is_cancelled_and_not_queued_again() {
    let mut world = World::new();
    let (request, build) = world.running(1);
    world.run(stop(build.id, "enough")).unwrap();
    world.engine.drain_changes();
    let lost = finish_op(build.id, BuildResult::Retry, RequestsAfter::Requeue { infra: true });
    assert_eq!(world.run(lost), Ok(OpOutcome::Done), "nothing waits again");
    let ended = world.engine.drain_changes().into_iter().find_map(|change| match change {
        Change::BuildFinished(row) => Some((row.results, row.state_string.clone())),
        _ => None,
    });
    assert_eq!(ended, Some((Some(BuildResult::Cancelled), "cancelled (enough)".into())));
    assert!(world.engine.load_builder(world.builder).unwrap().queued.is_empty());
    assert!(world.request(request).is_none(), "it is neither waiting nor with a build");
}

#[test]
fn ff07_an_end_that_was_reached_before_the_stop_was_heard_of_stands() {
    let mut world = World::new();
    let (_, build) = world.running(1);
    world.run(stop(build.id, "enough")).unwrap();
    world.engine.drain_changes();
    world.run(finish_op(build.id, BuildResult::Failure, RequestsAfter::Done)).unwrap();
    let changes = world.engine.drain_changes();
    let failed = |change: &Change| matches!(change, Change::BuildFinished(row) if row.results == Some(BuildResult::Failure));
    assert!(changes.iter().any(failed), "{changes:?}");
}

#[test]
fn ff03_a_stopped_claim_that_is_undone_ends_its_requests() {
    let mut world = World::new();
    let request = world.submit().1.id;
    let build = world.claim(1, request, 0).id;
    world.run(stop(build, "enough")).unwrap();
    let undo = Op::Unclaim { build, cancelled: Vec::new(), refused: true, at: at(30) };
    assert_eq!(world.run(undo), Ok(OpOutcome::Requeued { requests: Vec::new() }));
    assert!(world.engine.load_builder(world.builder).unwrap().queued.is_empty());
}

#[test]
fn i12_the_stop_is_there_in_the_next_process() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let outcomes = write(&store, declarations()).unwrap();
    let OpOutcome::Builder(builder) = outcomes[2] else { panic!("{outcomes:?}") };
    let submitted = write(&store, vec![Op::AddBuildset(submission(&[builder]))]).unwrap();
    let [OpOutcome::Buildset { requests, .. }] = submitted.as_slice() else { panic!() };
    let claimed = write(&store, vec![claim_op(1, builder, &[(requests[0].id, Epoch(0))])]).unwrap();
    let [OpOutcome::Claimed { build, .. }] = claimed.as_slice() else { panic!() };
    write(&store, vec![start_op(build.id), stop(build.id, "enough")]).unwrap();
    store.close();
    let (store, _) = open(dir.path());
    let open = load(&store, builder).builds.remove(0);
    assert_eq!(
        (open.stop.as_deref(), &*open.row.state_string),
        (Some("enough"), "stopping (enough)")
    );
    store.close();
}

/// A folder with the data of a program that knew only these migrations, with a
/// build that runs.
fn data_of(migrations: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let conn = Connection::open(dir.path().join("state.sqlite")).unwrap();
    for migration in migrations {
        conn.execute_batch(migration).unwrap();
    }
    conn.pragma_update(None, "user_version", i64::try_from(migrations.len()).unwrap()).unwrap();
    let steps = serde_json::to_string(&*Arc::new(factory())).unwrap();
    conn.execute("INSERT INTO factories (digest, steps) VALUES ('d1', ?1)", [steps]).unwrap();
    conn.execute_batch(
        "INSERT INTO workers (name, configured, incarnation) VALUES ('w1', 1, 7); \
         INSERT INTO builders (name, configured, tags, last_number) VALUES ('b1', 1, '[]', 1); \
         INSERT INTO builds (number, claim, builder_id, request_id, worker_id, incarnation, state, \
             started_at, state_string, factory_digest, properties) \
         VALUES (1, '00000000000000000000000000000001', 1, 1, 1, 7, 1, 5, 'building', 'd1', '{}');",
    )
    .unwrap();
    dir
}

#[test]
fn fm17_a_build_of_the_data_of_before_is_wanted_by_everybody() {
    let dir = data_of(&[
        include_str!("../../migrations/sqlite/0001_first.sql"),
        include_str!("../../migrations/sqlite/0002_instances.sql"),
        include_str!("../../migrations/sqlite/0003_expectations.sql"),
        include_str!("../../migrations/sqlite/0004_notes.sql"),
    ]);
    let (store, _) = open(dir.path());
    let build = load(&store, BuilderId(1)).builds.remove(0);
    assert_eq!((build.stop, build.row.incarnation), (None, Incarnation(7)));
    write(&store, vec![stop(build.row.id, "enough")]).unwrap();
    let build = load(&store, BuilderId(1)).builds.remove(0);
    assert_eq!(build.stop.as_deref(), Some("enough"));
    store.close();
}
