//! The queue against a plain sorted list (invariant I10), whatever is done.

use std::cmp::Reverse;
use std::sync::Arc;

use botmaster::core::builder::{Queue, Request};
use botmaster::core::ids::*;
use botmaster::core::time::WallTime;
use botmaster::core::values::*;
use proptest::prelude::*;

use crate::kit::{request, with_properties};

#[derive(Clone, Debug)]
enum Act {
    Push(Request),
    Remove(u64),
    Priority(u64, i64),
    /// The first that these workers may run starts on the first of them.
    Start(Vec<&'static str>, usize),
    Policy(Merge),
}

const WORKERS: [&str; 3] = ["w1", "w2", "w3"];

fn any_request() -> impl Strategy<Value = Request> {
    let worker =
        prop_oneof![3 => Just(None), 1 => prop::sample::select(&WORKERS[..]).prop_map(Some)];
    let channel = prop_oneof![Just(None), Just(Some("")), Just(Some("beta"))];
    (0..40_u64, -1..2_i64, 0..4_i64, any::<bool>(), 0..2_u64, worker, channel).prop_map(
        |(id, priority, at, requeued, source, worker, channel)| {
            let properties: Vec<_> = channel.iter().map(|value| ("channel", *value)).collect();
            Request {
                priority,
                submitted_at: WallTime(at),
                requeued,
                source: Arc::from([source]),
                worker: worker.map(WorkerName::from),
                properties: with_properties(id, &properties).properties,
                ..request(id)
            }
        },
    )
}

fn policy() -> impl Strategy<Value = Merge> {
    prop_oneof![
        Just(Merge::None),
        Just(Merge::SameSource),
        Just(Merge::Properties(vec!["channel".into()])),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let workers = prop::sample::subsequence(&WORKERS[..], 0..=3);
    prop_oneof![
        6 => any_request().prop_map(Act::Push),
        1 => (0..40_u64).prop_map(Act::Remove),
        1 => (0..40_u64, -1..3_i64).prop_map(|(id, priority)| Act::Priority(id, priority)),
        3 => (workers, 0..4_usize).prop_map(|(workers, most)| Act::Start(workers, most)),
        1 => policy().prop_map(Act::Policy),
    ]
}

/// A list that is sorted after each act, and looked through from its head.
#[derive(Default)]
struct Model(Vec<Request>);

fn may_run(request: &Request, worker: &str) -> bool {
    request.worker.as_ref().is_none_or(|named| named.as_str() == worker)
}

fn alike(merge: &Merge, one: &Request, other: &Request) -> bool {
    let value = |own: &Request, name: &str| own.properties.get(name).map(|p| p.value.clone());
    match merge {
        Merge::None => false,
        Merge::SameSource => one.source == other.source,
        Merge::Properties(names) => {
            one.source == other.source
                && names.iter().all(|name| value(one, name) == value(other, name))
        }
    }
}

impl Model {
    fn push(&mut self, request: Request) {
        if self.0.iter().all(|known| known.id != request.id) {
            self.0.push(request);
        }
        self.0.sort_by_key(|r| (Reverse(r.requeued), Reverse(r.priority), r.id));
    }

    fn remove(&mut self, id: RequestId) -> Option<Request> {
        let place = self.0.iter().position(|request| request.id == id)?;
        Some(self.0.remove(place))
    }

    fn ids(&self) -> Vec<RequestId> {
        self.0.iter().map(|request| request.id).collect()
    }
}

proptest! {
    #[test]
    fn i10_the_queue_is_a_sorted_list_for_every_worker(
        acts in prop::collection::vec(act(), 1..120)
    ) {
        let mut queue = Queue::default();
        let mut model = Model::default();
        let mut merge = Merge::None;
        for act in acts {
            match act {
                Act::Push(request) => {
                    queue.push(request.clone());
                    model.push(request);
                }
                Act::Remove(id) => {
                    prop_assert_eq!(queue.remove(RequestId(id)), model.remove(RequestId(id)));
                }
                Act::Priority(id, priority) => {
                    let found = model.remove(RequestId(id));
                    prop_assert_eq!(queue.set_priority(RequestId(id), priority), found.is_some());
                    if let Some(request) = found {
                        model.push(Request { priority, ..request });
                    }
                }
                Act::Start(workers, most) => {
                    let free: Vec<WorkerName> = workers.iter().map(|name| (*name).into()).collect();
                    let first = model.0.iter().find(|request| {
                        workers.iter().any(|worker| may_run(request, worker))
                    });
                    prop_assert_eq!(queue.next_for(&free), first);
                    let Some(first) = first.cloned() else { continue };
                    let worker = workers.iter().find(|worker| may_run(&first, worker)).unwrap();
                    queue.remove(first.id);
                    model.remove(first.id);
                    // An odd one out, as those are whose claim was refused.
                    let may = |id: RequestId| id.0 % 7 != 3;
                    let found = queue.alike(&first, &WorkerName::from(*worker), most, may);
                    let expected: Vec<RequestId> = model.0.iter()
                        .filter(|other| alike(&merge, &first, other) && may_run(other, worker))
                        .map(|other| other.id)
                        .filter(|id| may(*id))
                        .take(most)
                        .collect();
                    prop_assert_eq!(&found, &expected);
                    for id in found {
                        prop_assert_eq!(queue.remove(id), model.remove(id));
                    }
                }
                Act::Policy(new) => {
                    merge = new.clone();
                    queue = queue.with_merge(new);
                }
            }
            let ids: Vec<RequestId> = queue.iter().map(|request| request.id).collect();
            prop_assert_eq!(&ids, &model.ids());
            prop_assert_eq!(queue.len(), ids.len());
            let oldest = model.0.first().map(|head| head.submitted_at);
            prop_assert_eq!(queue.oldest_request_time(), oldest);
        }
    }
}
