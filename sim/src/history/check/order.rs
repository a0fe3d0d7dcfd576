//! The order in which a builder's requests start: those that were started
//! before, then the higher priority, then the older.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use botmaster::core::ids::{BuildId, BuilderId, Epoch, RequestId};

use super::super::records::{History, Micros, Request};
use super::timeline::{Turn, turn};
use super::{Finding, Invariant, Leeway, found};

/// A request that waits.
struct Waiting<'a> {
    /// As it is now.
    row: &'a Request,
    /// Since when it has this place in the queue.
    since: Micros,
    /// Builds that began while it was its turn.
    overtaken: usize,
}

/// Who goes first.
fn place(row: &Request) -> (Reverse<bool>, Reverse<i64>, RequestId) {
    (Reverse(row.requeued), Reverse(row.priority), row.id)
}

pub fn check(history: &History, leeway: &Leeway, findings: &mut Vec<Finding>) {
    let mut owners: BTreeMap<(RequestId, Epoch), BuildId> = BTreeMap::new();
    for build in history.builds.values() {
        owners.extend(build.requests.iter().map(|held| (*held, build.id)));
    }
    let mut queues: BTreeMap<BuilderId, BTreeMap<RequestId, Waiting<'_>>> = BTreeMap::new();
    // The claim whose requests come just now: those after the first were
    // merged into its build, wherever they stood.
    let mut claim = None;
    for event in &history.events {
        let Some((turn, row)) = turn(&event.what) else { continue };
        let queue = queues.entry(row.builder).or_default();
        match turn {
            Turn::New | Turn::Unclaimed | Turn::Updated => {
                queue.insert(row.id, Waiting { row, since: event.at, overtaken: 0 });
                claim = None;
            }
            Turn::Complete => {
                queue.remove(&row.id);
                claim = None;
            }
            Turn::Claimed => {
                let before = queue.remove(&row.id);
                let build = owners.get(&(row.id, row.epoch)).copied();
                let this = Some((row.builder, build, row.claimed_at));
                if claim == this {
                    continue;
                }
                claim = this;
                let Some(before) = before else { continue };
                let chosen = row.claimed_at.unwrap_or(event.at) - leeway.order;
                overtake(queue, before.row, chosen, leeway, findings);
            }
        }
    }
}

/// Counts the builds that began before those whose turn it was.
fn overtake(
    queue: &mut BTreeMap<RequestId, Waiting<'_>>,
    began: &Request,
    chosen: Micros,
    leeway: &Leeway,
    findings: &mut Vec<Finding>,
) {
    for waiting in queue.values_mut() {
        let its_turn = place(waiting.row) < place(began) && !waiting.row.pinned;
        if !its_turn || waiting.since > chosen {
            continue;
        }
        waiting.overtaken += 1;
        if waiting.overtaken == leeway.overtakes + 1 {
            let text = format!(
                "request {} of builder {} began before request {}, whose turn it was",
                began.id, began.builder, waiting.row.id
            );
            found(findings, Invariant::I10, text);
        }
    }
}
