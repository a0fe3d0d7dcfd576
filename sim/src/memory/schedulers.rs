//! Schedulers: which there are, and which are switched off.

use std::sync::Arc;

use botmaster::store::*;

use super::Done;
use super::tables::{SchedulerRecord, Tables, missing};

pub(super) fn declare(tables: &mut Tables, changes: &mut Vec<Change>, names: &[String]) -> Done {
    let all: Vec<SchedulerRecord> =
        tables.schedulers.iter().map(|(_, record)| SchedulerRecord::clone(record)).collect();
    for record in all.iter().filter(|record| record.configured) {
        if !names.contains(&record.row.name) {
            let gone = SchedulerRecord { configured: false, ..record.clone() };
            tables.schedulers.put(record.row.id, gone);
        }
    }
    for name in names {
        let known = all.iter().find(|record| record.row.name == *name);
        let row = match known {
            Some(record) if record.configured => continue,
            Some(record) => record.row.clone(),
            None => SchedulerRow {
                id: tables.schedulers.last().map_or(1, |id| id + 1),
                name: name.clone(),
                enabled: true,
            },
        };
        tables.schedulers.put(row.id, SchedulerRecord { row: row.clone(), configured: true });
        changes.push(Change::SchedulerUpdated(Arc::new(row)));
    }
    Ok(OpOutcome::Done)
}

pub(super) fn set(tables: &mut Tables, changes: &mut Vec<Change>, id: u64, enabled: bool) -> Done {
    let found = tables.schedulers.get(&id).filter(|record| record.configured);
    let Some(record) = found else {
        return Err(missing(format!("scheduler {id}")));
    };
    let row = SchedulerRow { enabled, ..record.row.clone() };
    tables.schedulers.put(id, SchedulerRecord { row: row.clone(), configured: true });
    changes.push(Change::SchedulerUpdated(Arc::new(row)));
    Ok(OpOutcome::Done)
}
