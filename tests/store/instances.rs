//! Instances of latent workers, and builds for which none could be had.

use botmaster::core::ids::*;
use botmaster::core::values::*;
use botmaster::store::*;

use crate::world::*;

fn rows(world: &mut World) -> Vec<(String, InstanceState, Option<String>)> {
    let OpOutcome::Instances(rows) = world.run(Op::ListInstances).unwrap() else { panic!() };
    assert!(rows.iter().all(|row| row.worker == WorkerId(1) && row.name.as_str() == "w1"));
    rows.into_iter().map(|row| (row.tag.to_string(), row.state, row.id)).collect()
}

#[test]
fn fx09_an_instance_has_a_row_from_the_wish_until_it_is_gone() {
    let mut world = World::new();
    let worker = world.worker;
    let tag = InstanceTag::new(worker, 0xab);
    assert_eq!(tag.as_str(), "botmaster-w1-00000000000000ab");
    assert_eq!(tag.worker(), Some(worker));
    assert_eq!(InstanceTag::from("somebody-elses").worker(), None);
    let name = tag.to_string();
    world.run(Op::WishInstance { tag: tag.clone(), worker, at: at(1) }).unwrap();
    assert_eq!(rows(&mut world), [(name.clone(), InstanceState::Wished, None)]);
    let twice = world.run(Op::WishInstance { tag: tag.clone(), worker, at: at(1) });
    assert!(twice.is_err(), "a tag is given once");
    let created = Op::NoteInstance { tag: tag.clone(), id: "4711".into(), at: at(2) };
    world.run(created.clone()).unwrap();
    assert_eq!(rows(&mut world), [(name.clone(), InstanceState::Created, Some("4711".into()))]);
    world.run(Op::ReleaseInstance { tag: tag.clone(), worker, at: at(3) }).unwrap();
    // A late word of its making does not make it wanted again.
    world.run(created).unwrap();
    assert_eq!(rows(&mut world)[0].1, InstanceState::Destroying);
    world.run(Op::RemoveInstance { tag: tag.clone() }).unwrap();
    assert_eq!(rows(&mut world), []);
    // One that was found without a row gets one before it is destroyed.
    world.run(Op::ReleaseInstance { tag: tag.clone(), worker, at: at(4) }).unwrap();
    assert_eq!(rows(&mut world), [(name, InstanceState::Destroying, None)]);
    world.run(Op::RemoveInstance { tag: tag.clone() }).unwrap();
    world.run(Op::RemoveInstance { tag }).unwrap();
}

#[test]
fn fx01_a_build_without_a_worker_ends_as_an_exception_with_a_number() {
    let mut world = World::new();
    let (builder, worker) = (world.builder, world.worker);
    let submitted = world.run(Op::AddBuildset(submission(&[builder]))).unwrap();
    let OpOutcome::Buildset { requests, .. } = submitted else { panic!() };
    let request = requests[0].id;
    world.engine.drain_changes();
    let fail = |requests| Op::FailBuild {
        claim: ClaimId(5),
        builder,
        worker,
        requests,
        factory_digest: "d1".into(),
        state_string: "no instance of w1: no such image".into(),
        at: at(9),
    };
    let stale = world.run(fail(vec![(request, Epoch(3))]));
    assert!(matches!(stale, Err(StoreError::Fenced(_))), "{stale:?}");
    assert_eq!(world.run(fail(vec![(request, Epoch(0))])).unwrap(), OpOutcome::Done);
    let mut built = None;
    let mut ended = None;
    for change in world.engine.drain_changes() {
        match change {
            Change::BuildFinished(row) => built = Some(row),
            Change::RequestComplete(row) => ended = Some(row),
            _ => {}
        }
    }
    let (built, ended) = (built.unwrap(), ended.unwrap());
    assert_eq!((built.number, built.results), (Some(BuildNumber(1)), Some(BuildResult::Exception)));
    assert_eq!(built.state_string, "no instance of w1: no such image");
    assert_eq!((ended.state, ended.results), (RequestState::Done, Some(BuildResult::Exception)));
    let again = world.run(fail(vec![(request, Epoch(0))]));
    assert!(matches!(again, Err(StoreError::Fenced(_))), "it ended: {again:?}");
}
