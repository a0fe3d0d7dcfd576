//! What differs between two setups of one builder, one readable line each
//! (row B03).

use std::fmt::Debug;

use crate::core::values::{BuilderConfig, LockUse, StepSpec};

/// Differences from `old` to `new`, empty when nothing changed. Every setting
/// is compared: one that is forgotten here would silently wait for a restart.
#[must_use]
pub fn compare_to_setup(old: &BuilderConfig, new: &BuilderConfig) -> Vec<String> {
    let mut lines = Vec::new();
    // Taken apart on purpose: a new setting that is not compared is an error
    // of the compiler.
    let BuilderConfig {
        name: _,
        builddir,
        workers,
        factory,
        factory_digest: _,
        locks,
        env,
        properties,
        description,
        tags,
        start_timeout,
        choose,
        on_lost,
        lease,
        grace,
        max_time,
        infra_retries,
        queue_limit,
        merge,
        max_builds,
    } = old;
    let names = |list: &[crate::core::ids::WorkerName]| {
        list.iter().map(|name| name.as_str().to_owned()).collect::<Vec<_>>().join(", ")
    };
    if *workers != new.workers {
        lines.push(format!(
            "workers changed from [{}] to [{}]",
            names(workers),
            names(&new.workers)
        ));
    }
    if *builddir != new.builddir {
        lines.push(format!("builddir changed from {builddir} to {}", new.builddir));
    }
    if *factory != new.factory {
        lines
            .push(format!("factory changed: {}", steps_differ(&factory.steps, &new.factory.steps)));
    }
    if *locks != new.locks {
        lines.push(format!(
            "locks changed from [{}] to [{}]",
            lock_names(locks),
            lock_names(&new.locks)
        ));
    }
    changed(&mut lines, "env", env, &new.env);
    changed(&mut lines, "properties", properties, &new.properties);
    changed(&mut lines, "description", description, &new.description);
    changed(&mut lines, "tags", tags, &new.tags);
    changed(&mut lines, "start_timeout", start_timeout, &new.start_timeout);
    changed(&mut lines, "choose", choose, &new.choose);
    changed(&mut lines, "on_lost", on_lost, &new.on_lost);
    changed(&mut lines, "lease", lease, &new.lease);
    changed(&mut lines, "grace", grace, &new.grace);
    changed(&mut lines, "max_time", max_time, &new.max_time);
    changed(&mut lines, "infra_retries", infra_retries, &new.infra_retries);
    changed(&mut lines, "queue_limit", queue_limit, &new.queue_limit);
    if *merge != new.merge {
        lines.push(format!("merge changed from {merge} to {}", new.merge));
    }
    if *max_builds != new.max_builds {
        let most = |most: &Option<u32>| most.map_or("no limit".into(), |most| most.to_string());
        lines.push(format!(
            "max_builds changed from {} to {}",
            most(max_builds),
            most(&new.max_builds)
        ));
    }
    lines
}

fn changed<T: PartialEq + Debug>(lines: &mut Vec<String>, key: &str, old: &T, new: &T) {
    if old != new {
        lines.push(format!("{key} changed from {old:?} to {new:?}"));
    }
}

fn lock_names(locks: &[LockUse]) -> String {
    locks
        .iter()
        .map(|lock| format!("{:?} {} {}/{}", lock.kind, lock.name, lock.count, lock.max_count))
        .collect::<Vec<_>>()
        .join(", ")
}

fn steps_differ(old: &[StepSpec], new: &[StepSpec]) -> String {
    let named = |steps: &[StepSpec]| {
        steps.iter().map(|step| step.name.clone()).collect::<Vec<_>>().join(", ")
    };
    if old.iter().map(|step| &step.name).ne(new.iter().map(|step| &step.name)) {
        return format!("steps [{}] to [{}]", named(old), named(new));
    }
    let differing: Vec<_> =
        old.iter().zip(new).filter(|(a, b)| a != b).map(|(a, _)| a.name.clone()).collect();
    format!("step {}", differing.join(", "))
}
