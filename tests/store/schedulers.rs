//! Schedulers: which there are, and which are switched off.

use std::sync::Arc;

use botmaster::store::*;

use crate::world::*;

fn declare(names: &[&str]) -> Op {
    Op::DeclareSchedulers(names.iter().map(|name| (*name).to_owned()).collect())
}

fn rows(world: &mut World) -> Vec<Arc<SchedulerRow>> {
    let row = |change| match change {
        Change::SchedulerUpdated(row) => row,
        other => panic!("{other:?}"),
    };
    world.engine.drain_changes().into_iter().map(row).collect()
}

#[test]
fn a_scheduler_keeps_its_id_and_stays_off_while_it_is_away() {
    let mut world = World::new();
    world.changes();
    world.run(declare(&["force", "deploy"])).unwrap();
    let new = rows(&mut world);
    assert_eq!(new.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["force", "deploy"]);
    assert!(new.iter().all(|row| row.enabled));
    let deploy = new[1].id;
    world.run(Op::SetScheduler { scheduler: deploy, enabled: false }).unwrap();
    assert_eq!(*rows(&mut world)[0], SchedulerRow { enabled: false, ..(*new[1]).clone() });
    // Nothing new, nothing to tell.
    world.run(declare(&["force", "deploy"])).unwrap();
    assert!(rows(&mut world).is_empty());

    world.run(declare(&["force"])).unwrap();
    let gone = world.run(Op::SetScheduler { scheduler: deploy, enabled: true });
    assert_eq!(gone, Err(StoreError::Missing(format!("scheduler {deploy}"))));
    world.run(declare(&["deploy", "force"])).unwrap();
    let back = rows(&mut world);
    assert_eq!((back.len(), back[0].id, back[0].enabled), (1, deploy, false));
    let unknown = world.run(Op::SetScheduler { scheduler: 99, enabled: true });
    assert_eq!(unknown, Err(StoreError::Missing("scheduler 99".into())));
}
