//! What each operation does to the rows, and which changes it makes known.
//!
//! Everything here runs inside a transaction of the engine; an error undoes
//! all of it, so no operation cleans up after itself.

mod claims;
mod ends;
mod instances;
mod people;
mod predictions;
mod requests;
mod running;
mod schedulers;
mod steps;

use std::time::Duration;

use rusqlite::Connection;

use super::errors::OpError;
use crate::core::ids::Incarnation;
use crate::store::{Change, Op, OpOutcome};

type Done = Result<OpOutcome, OpError>;

/// Whether the operation changes rows with at most one statement, which comes
/// after everything that can be refused.
pub(super) fn is_one_statement(op: &Op) -> bool {
    matches!(
        op,
        Op::RetireBuilder { .. }
            | Op::RetireWorker { .. }
            | Op::DeclareWorker { .. }
            | Op::SaveFactory { .. }
            | Op::AdoptBuild { .. }
            | Op::FenceBuild { .. }
            | Op::DescribeBuild { .. }
            | Op::WantStop { .. }
            | Op::SetProperties { .. }
            | Op::FinishStep { .. }
            | Op::FinishLog { .. }
            | Op::SetPriority { .. }
            | Op::AttachWorker { .. }
            | Op::DetachWorker { .. }
            | Op::GrantLease { .. }
            | Op::SetWorker { .. }
            | Op::SaveExpectations { .. }
            | Op::Predict { .. }
            | Op::Note(_)
            | Op::BeginNote(_)
            | Op::WishInstance { .. }
            | Op::NoteInstance { .. }
            | Op::ReleaseInstance { .. }
            | Op::RemoveInstance { .. }
            | Op::ListInstances
            | Op::SetScheduler { .. }
    )
}

/// Carries out one operation.
pub(super) fn carry_out(conn: &Connection, changes: &mut Vec<Change>, op: &Op) -> Done {
    match op {
        Op::DeclareBuilder { name, description, tags, workers } => {
            people::declare_builder(conn, changes, name, description.as_deref(), tags, workers)
        }
        Op::RetireBuilder { builder } => people::retire_builder(conn, changes, *builder),
        Op::DeclareWorker { name } => people::declare_worker(conn, changes, name),
        Op::RetireWorker { worker } => people::retire_worker(conn, changes, *worker),
        Op::SaveFactory { digest, factory } => people::save_factory(conn, digest, factory),
        Op::AddBuildset(new) => requests::add_buildset(conn, changes, new),
        Op::Claim { claim, builder, worker, incarnation, requests, factory_digest, grace, at } => {
            let wanted = claims::Wanted {
                claim: *claim,
                builder: *builder,
                worker: *worker,
                incarnation: *incarnation,
                requests,
                factory_digest,
                grace: *grace,
                at: *at,
            };
            claims::claim(conn, changes, &wanted)
        }
        Op::Unclaim { build, cancelled, refused, at } => {
            claims::unclaim(conn, changes, *build, cancelled, *refused, *at)
        }
        Op::CancelClaimed { build, requests, head, at } => {
            claims::cancel_claimed(conn, changes, *build, requests, *head, *at)
        }
        Op::StartBuild { build, incarnation, properties, grace, at } => {
            let start = running::Start { properties, grace: *grace, at: *at };
            running::start(conn, changes, *build, *incarnation, &start)
        }
        Op::AdoptBuild { build, incarnation } => running::adopt(conn, *build, *incarnation),
        Op::FenceBuild { build, incarnation } => running::fence(conn, *build, *incarnation),
        Op::DescribeBuild { build, state_string } => {
            running::describe(conn, changes, *build, state_string)
        }
        Op::WantStop { build, reason } => running::want_stop(conn, changes, *build, reason),
        Op::SetProperties { build, properties } => {
            running::set_properties(conn, changes, *build, properties)
        }
        Op::FinishBuild { build, incarnation, result, state_string, requests, at } => {
            let end = ends::End { result: *result, state_string, requests: *requests, at: *at };
            ends::finish(conn, changes, *build, *incarnation, &end)
        }
        Op::StartStep { build, number, name, state_string, logs, at } => {
            let new = steps::NewStep { number: *number, name, state_string, logs, at: *at };
            steps::start(conn, changes, *build, &new)
        }
        Op::FinishStep { step, result, state_string, at } => {
            steps::finish(conn, changes, *step, *result, state_string, *at)
        }
        Op::FinishLog { log, num_lines, length, inline, incomplete } => {
            let end = steps::LogEnd {
                num_lines: *num_lines,
                length: *length,
                inline: inline.as_deref(),
                incomplete: incomplete.as_deref(),
            };
            steps::finish_log(conn, changes, *log, &end)
        }
        Op::CancelRequests { requests, at } => requests::cancel(conn, changes, requests, *at),
        Op::SetPriority { request, priority } => {
            requests::set_priority(conn, changes, *request, *priority)
        }
        Op::AttachWorker { worker, info, at } => people::attach(conn, changes, *worker, info, *at),
        Op::DetachWorker { worker, incarnation, at } => {
            people::detach(conn, changes, *worker, *incarnation, *at)
        }
        Op::SeeWorkers { seen, at } => people::see(conn, seen, *at),
        Op::GrantLease { worker, incarnation, grant } => {
            people::grant_lease(conn, *worker, *incarnation, grant)
        }
        Op::SetWorker { worker, paused, graceful } => {
            people::set_worker(conn, changes, *worker, paused.as_ref(), *graceful)
        }
        Op::SaveExpectations { builder, text } => people::save_expectations(conn, *builder, text),
        Op::Predict { build, expected } => predictions::of_build(conn, *build, expected),
        Op::PredictRequests(all) => predictions::of_requests(conn, all),
        Op::Note(note) => people::note(conn, changes, note, Some(note.at)),
        Op::BeginNote(note) => people::note(conn, changes, note, None),
        Op::EndNote { begun, note } => people::end_note(conn, changes, begun, note),
        Op::FailBuild { claim, builder, worker, requests, factory_digest, state_string, at } => {
            let wanted = claims::Wanted {
                claim: *claim,
                builder: *builder,
                worker: *worker,
                incarnation: Incarnation(0),
                requests,
                factory_digest,
                grace: Duration::ZERO,
                at: *at,
            };
            instances::fail_build(conn, changes, &instances::Failed { wanted, state_string })
        }
        Op::WishInstance { tag, worker, at } => instances::wish(conn, tag, *worker, *at),
        Op::NoteInstance { tag, id, at } => instances::note(conn, tag, id, *at),
        Op::ReleaseInstance { tag, worker, at } => instances::release(conn, tag, *worker, *at),
        Op::RemoveInstance { tag } => instances::remove(conn, tag),
        Op::ListInstances => instances::list(conn),
        Op::DeclareSchedulers(names) => schedulers::declare(conn, changes, names),
        Op::SetScheduler { scheduler, enabled } => {
            schedulers::set(conn, changes, *scheduler, *enabled)
        }
    }
}
