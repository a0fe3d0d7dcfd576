//! How many lines logs have that still grow. Their rows in the store are only
//! written at their end; until then the event stream tells.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::core::ids::LogId;
use crate::events::Events;
use crate::store::{Change, LogRow};

/// Lines by log, of logs that grow. Clones share them.
#[derive(Clone, Default)]
pub struct LiveLogs(Arc<Mutex<HashMap<LogId, u64>>>);

impl LiveLogs {
    fn lock(&self) -> MutexGuard<'_, HashMap<LogId, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The row with as many lines as are known of.
    #[must_use]
    pub fn current(&self, mut row: LogRow) -> LogRow {
        if !row.complete
            && let Some(lines) = self.lock().get(&row.id)
        {
            row.num_lines = row.num_lines.max(*lines);
        }
        row
    }

    fn note(&self, change: &Change) {
        match change {
            Change::LogAppend(row) => {
                self.lock().insert(row.id, row.num_lines);
            }
            Change::LogFinished(row) => {
                self.lock().remove(&row.id);
            }
            _ => {}
        }
    }

    /// Listens from now on, for as long as the task runs that this makes.
    pub fn follow(self, events: Events) -> impl Future<Output = ()> {
        // Before the task begins, so that nothing is missed until it does.
        let mut listener = events.listen_inside();
        async move {
            loop {
                while let Some(event) = listener.recv().await {
                    self.note(&event.change);
                }
                // It fell behind: an end may be among what it missed, and what
                // is stale is worse than what is not known.
                self.lock().clear();
                listener = events.listen_inside();
            }
        }
    }
}
