//! What became of each request, as the events tell it.

use std::collections::BTreeMap;

use botmaster::core::ids::{Epoch, RequestId};

use super::super::records::{History, Micros, Request, What};

/// What an event says about a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// It was submitted.
    New,
    /// A build has it.
    Claimed,
    /// It waits again.
    Unclaimed,
    /// It ended.
    Complete,
    /// Its priority changed.
    Updated,
}

/// One turn in a request's life.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'a> {
    /// When it was published.
    pub at: Micros,
    /// What.
    pub turn: Turn,
    /// The request as it was then.
    pub row: &'a Request,
}

/// The moments of every request, in order.
pub struct Timelines<'a>(BTreeMap<RequestId, Vec<Moment<'a>>>);

impl<'a> Timelines<'a> {
    /// Sorts a history's events by request.
    pub fn of(history: &'a History) -> Self {
        let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for event in &history.events {
            if let Some((turn, row)) = turn(&event.what) {
                all.entry(row.id).or_default().push(Moment { at: event.at, turn, row });
            }
        }
        Self(all)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&RequestId, &Vec<Moment<'a>>)> {
        self.0.iter()
    }

    /// A request's moments.
    pub fn moments(&self, request: RequestId) -> &[Moment<'a>] {
        self.0.get(&request).map_or(&[], Vec::as_slice)
    }

    /// When this turn was published first.
    pub fn first(&self, request: RequestId, turn: Turn) -> Option<Micros> {
        let mut moments = self.moments(request).iter();
        moments.find(|moment| moment.turn == turn).map(|moment| moment.at)
    }

    /// When the claim that gave this epoch was published, and when it was over.
    pub fn claim(&self, request: RequestId, epoch: Epoch) -> Option<(Micros, Option<Micros>)> {
        let moments = self.moments(request);
        let made = |moment: &&Moment<'_>| moment.turn == Turn::Claimed && moment.row.epoch == epoch;
        let from = moments.iter().find(made)?.at;
        let over = |moment: &&Moment<'_>| match moment.turn {
            Turn::Unclaimed | Turn::Complete => moment.row.epoch == epoch,
            Turn::Claimed => moment.row.epoch > epoch,
            Turn::New | Turn::Updated => false,
        };
        Some((from, moments.iter().find(over).map(|moment| moment.at)))
    }
}

/// The request that an event is about, if any.
pub fn turn(what: &What) -> Option<(Turn, &Request)> {
    match what {
        What::RequestNew(row) => Some((Turn::New, row)),
        What::RequestClaimed(row) => Some((Turn::Claimed, row)),
        What::RequestUnclaimed(row) => Some((Turn::Unclaimed, row)),
        What::RequestComplete(row) => Some((Turn::Complete, row)),
        What::RequestUpdated(row) => Some((Turn::Updated, row)),
        What::BuildNew(_) | What::BuildFinished(_) | What::Other(_) => None,
    }
}
