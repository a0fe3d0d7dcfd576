//! People and programs that use the master: they ask again until they are
//! answered, and remember what they were told.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use botmaster::core::ids::{BuildId, RequestId};
use botmaster_sim::history::{Event, Told};
use serde_json::{Value, json};

use crate::api::Api;
use crate::{Fault, runs};

/// Pause before something is asked again.
const PAUSE: Duration = Duration::from_millis(50);

/// How a request must end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    /// It is built, and the build succeeds.
    Built,
    /// It was cancelled before a worker could have it: nothing of it ran.
    NeverRuns,
    /// Its build was stopped.
    Stopped,
}

/// What all clients were told.
#[derive(Default)]
pub struct Diary {
    told: Mutex<Vec<Told>>,
    wishes: Mutex<BTreeMap<RequestId, Wish>>,
    faults: Mutex<Vec<Fault>>,
    events: Mutex<Vec<Event>>,
}

fn locked<T>(what: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Diary {
    /// One that was written elsewhere.
    #[must_use]
    pub fn of(told: Vec<Told>, wishes: BTreeMap<RequestId, Wish>) -> Self {
        let (told, wishes) = (Mutex::new(told), Mutex::new(wishes));
        Self { told, wishes, ..Self::default() }
    }

    /// An event was told.
    pub fn heard(&self, event: Event) {
        locked(&self.events).push(event);
    }

    /// Events that were told, in order.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        locked(&self.events).clone()
    }

    /// What clients were told, in order.
    #[must_use]
    pub fn told(&self) -> Vec<Told> {
        locked(&self.told).clone()
    }

    /// Requests that were acknowledged, and how each must end.
    #[must_use]
    pub fn wishes(&self) -> BTreeMap<RequestId, Wish> {
        locked(&self.wishes).clone()
    }

    /// Answers that no client should have got.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        locked(&self.faults).clone()
    }

    fn fault(&self, text: Fault) {
        locked(&self.faults).push(text);
    }
}

/// One client.
pub struct Client<'d> {
    /// The way to the master.
    pub api: Api,
    /// Where it writes what it is told.
    pub diary: &'d Diary,
    /// When it gives up.
    pub until: Instant,
}

impl Client<'_> {
    /// Asks until there is an answer that says something, or it is too late.
    fn answer(&self, path: &str, method: &str, params: &Value) -> Option<(u16, Value)> {
        while Instant::now() < self.until {
            match self.api.order(path, method, params) {
                // It is stopping or its store is slow: ask again.
                None | Some((500..=599, _)) => std::thread::sleep(PAUSE),
                Some(answer) => return Some(answer),
            }
        }
        self.diary.fault(format!("{path} {method} {params} was not answered in time"));
        None
    }

    /// Asks for a build, with a key, until it is acknowledged; the request.
    pub fn submit(&self, builder: &str, key: &str, wish: Wish) -> Option<RequestId> {
        let params = json!({ "builderNames": [builder], "idempotency_key": key });
        let (status, answer) = self.answer("forceschedulers/force", "force", &params)?;
        let at = runs::now();
        let id = (status == 200)
            .then(|| answer["result"][1].as_object()?.values().next()?.as_u64())
            .flatten();
        let Some(id) = id.map(RequestId) else {
            self.diary.fault(format!("submit of {key} was answered {status} {answer}"));
            return None;
        };
        let key = Some(key.to_owned());
        locked(&self.diary.told).push(Told::Submitted { at, request: id, key });
        locked(&self.diary.wishes).insert(id, wish);
        Some(id)
    }

    /// Cancels a request until that is acknowledged.
    pub fn cancel(&self, request: RequestId) {
        let params = json!({ "reason": "not wanted any more" });
        let path = format!("buildrequests/{request}");
        if let Some((status, answer)) = self.answer(&path, "cancel", &params) {
            if status == 200 {
                let told = Told::Cancelled { at: runs::now(), request, done: true };
                locked(&self.diary.told).push(told);
            } else {
                self.diary.fault(format!("cancel of {request} was answered {status} {answer}"));
            }
        }
    }

    /// Waits until a build of the request runs.
    pub fn running(&self, request: RequestId) -> Option<BuildId> {
        self.wait(|api| {
            let builds = api.list(&format!("buildrequests/{request}/builds"))?;
            let runs = builds.iter().find(|build| build["complete"] == false)?;
            runs["buildid"].as_u64().map(BuildId)
        })
    }

    /// Stops whatever build the request has, until it has ended.
    pub fn stop_until_ended(&self, request: RequestId) {
        while Instant::now() < self.until {
            if self.is_complete(request) == Some(true) {
                return;
            }
            let builds = self.api.list(&format!("buildrequests/{request}/builds"));
            let runs = builds.iter().flatten().find(|build| build["complete"] == false);
            if let Some(build) = runs.and_then(|build| build["buildid"].as_u64()) {
                let params = json!({ "reason": "no need" });
                let answer = self.api.order(&format!("builds/{build}"), "stop", &params);
                if let Some((200, _)) = answer {
                    let told = Told::Stopped { at: runs::now(), build: BuildId(build) };
                    locked(&self.diary.told).push(told);
                }
            }
            std::thread::sleep(PAUSE);
        }
        self.diary.fault(format!("request {request} could not be stopped in time"));
    }

    fn is_complete(&self, request: RequestId) -> Option<bool> {
        let rows = self.api.list(&format!("buildrequests/{request}"))?;
        rows.first()?["complete"].as_bool()
    }

    /// Waits until the request has ended.
    pub fn ended(&self, request: RequestId) -> bool {
        self.wait(|_| self.is_complete(request).filter(|complete| *complete)).is_some()
    }

    /// Waits for something to be seen over the API.
    pub fn wait<T>(&self, mut look: impl FnMut(&Api) -> Option<T>) -> Option<T> {
        while Instant::now() < self.until {
            if let Some(found) = look(&self.api) {
                return Some(found);
            }
            std::thread::sleep(PAUSE);
        }
        None
    }
}
