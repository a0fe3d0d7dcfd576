//! People and programs that use the master: submissions that are sent again
//! until they are answered, cancels, stops, pings, orders, reloads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use botmaster::core::ids::*;
use botmaster::core::values::{Properties, SourceStamp};
use botmaster::messages::{Refusal, Submission};

use crate::message::Answer;

/// After this long a client takes it that no answer comes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// One submission, until it is answered for good.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// What is asked for.
    pub submission: Submission,
    /// Acknowledged requests.
    pub told: Option<Vec<RequestId>>,
    /// Refused for good.
    pub refused: bool,
    /// How often it was sent.
    pub sent: u32,
}

/// What a client waits for.
#[derive(Clone, Debug)]
pub enum Waiting {
    /// The answer to a submission.
    Submit(usize),
    /// The answer to a cancel of this request.
    Cancel(RequestId),
    /// Anything else.
    Other,
}

/// All clients.
#[derive(Default)]
pub struct Clients {
    /// Submissions by number.
    pub wanted: Vec<Wanted>,
    /// Asks under way.
    pub waiting: BTreeMap<u64, Waiting>,
    next: u64,
    /// Asks that were under way at once, at most.
    pub most: usize,
    /// Every request that was acknowledged.
    pub acknowledged: BTreeSet<RequestId>,
    /// Cancels that were answered with yes.
    pub cancelled: BTreeSet<RequestId>,
    /// Wishes to submit that are still to be answered or sent again.
    pub open: usize,
}

/// What follows an answer.
pub enum Next {
    /// Nothing.
    Nothing,
    /// The submission is sent again.
    Again(usize),
    /// These were acknowledged; a first time, or again with others than before.
    Acknowledged(Vec<RequestId>, Option<Vec<RequestId>>),
    /// A cancel was answered with yes.
    Cancelled(RequestId),
}

impl Clients {
    /// A new submission for a builder.
    pub fn want(&mut self, builders: Vec<BuilderName>, priority: i64, source: u64) -> usize {
        let number = self.wanted.len();
        self.open += 1;
        self.wanted.push(Wanted {
            submission: Submission {
                builders,
                priority,
                reason: "because".into(),
                scheduler: "force".into(),
                external_id: None,
                idempotency_key: Some(format!("key-{number}")),
                properties: Arc::new(Properties::new()),
                sourcestamps: vec![SourceStamp {
                    repository: format!("repository-{source}"),
                    ..SourceStamp::default()
                }],
                rebuilt_build: None,
                soon: false,
            },
            told: None,
            refused: false,
            sent: 0,
        });
        number
    }

    /// Names an ask.
    pub fn ask(&mut self, waiting: Waiting) -> u64 {
        self.next += 1;
        self.waiting.insert(self.next, waiting);
        self.most = self.most.max(self.waiting.len());
        self.next
    }

    /// An answer came, or none will.
    pub fn answered(&mut self, id: u64, answer: &Answer) -> Next {
        let Some(waiting) = self.waiting.remove(&id) else { return Next::Nothing };
        match (waiting, answer) {
            (Waiting::Submit(number), Answer::Submitted(Ok(submitted))) => {
                let ids: Vec<_> = submitted
                    .iter()
                    .flat_map(|one| one.requests.iter().map(|(_, request)| *request))
                    .collect();
                self.acknowledged.extend(ids.iter().copied());
                let wanted = &mut self.wanted[number];
                let before = wanted.told.replace(ids.clone());
                if before.is_none() && !wanted.refused {
                    self.open -= 1;
                }
                Next::Acknowledged(ids, before)
            }
            (Waiting::Submit(number), Answer::Submitted(Err(refusal))) => match refusal {
                Refusal::Store(_) | Refusal::Gone | Refusal::Stopping | Refusal::Timeout => {
                    Next::Again(number)
                }
                _ => {
                    let wanted = &mut self.wanted[number];
                    if wanted.told.is_none() && !wanted.refused {
                        self.open -= 1;
                    }
                    wanted.refused = true;
                    Next::Nothing
                }
            },
            (Waiting::Submit(number), _) => Next::Again(number),
            (Waiting::Cancel(request), Answer::Done(Ok(true))) => {
                self.cancelled.insert(request);
                Next::Cancelled(request)
            }
            _ => Next::Nothing,
        }
    }
}
