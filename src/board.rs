//! The board: what the living parts show of themselves. Actors put their views
//! up after each change; the web reads without asking an actor.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::core::form::{FORCE, Form};
use crate::core::ids::{BuilderName, WorkerName};
use crate::core::retention::RetentionRules;
use crate::core::time::WallTime;
use crate::core::views::{BuilderView, HousekeepingView, StoreView, WorkerView};

/// Everything on the board.
#[derive(Clone, Default, Debug)]
pub struct Shown {
    /// Builders by name.
    pub builders: BTreeMap<BuilderName, Arc<BuilderView>>,
    /// Workers by name.
    pub workers: BTreeMap<WorkerName, Arc<WorkerView>>,
    /// Workers that were turned away last, until they attach, by name.
    pub refused: BTreeMap<WorkerName, Refused>,
    /// Stale or refused input so far, by kind.
    pub ignored: BTreeMap<&'static str, u64>,
    /// SIGTERM was received: no new builds.
    pub draining: bool,
    /// Forms to force builds by, beside the one that every master has.
    pub forms: Arc<[Form]>,
    /// The store.
    pub store: StoreView,
    /// How long builds and logs are kept.
    pub retention: Arc<RetentionRules>,
    /// What people should look after, by kind.
    pub warnings: BTreeMap<&'static str, String>,
}

/// Why somebody who came as a configured worker was turned away.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Refused {
    /// For people.
    pub reason: String,
    /// Where it came from.
    pub address: String,
    /// When.
    pub at: WallTime,
    /// Until when all of that name are; none when the next may come at once.
    pub until: Option<WallTime>,
}

/// The board. Clones share it.
#[derive(Clone, Default)]
pub struct Board(Arc<Mutex<Shown>>);

impl Board {
    fn lock(&self) -> MutexGuard<'_, Shown> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows a builder.
    pub fn show_builder(&self, name: &BuilderName, view: BuilderView) {
        self.lock().builders.insert(name.clone(), Arc::new(view));
    }

    /// Takes a builder down.
    pub fn forget_builder(&self, name: &BuilderName) {
        self.lock().builders.remove(name);
    }

    /// Shows a worker.
    pub fn show_worker(&self, name: &WorkerName, view: WorkerView) {
        self.lock().workers.insert(name.clone(), Arc::new(view));
    }

    /// Takes a worker down.
    pub fn forget_worker(&self, name: &WorkerName) {
        let mut shown = self.lock();
        shown.workers.remove(name);
        shown.refused.remove(name);
    }

    /// Shows that a worker was turned away. A name that no worker has is not
    /// shown: anybody could fill the board.
    pub fn show_refused(&self, name: &WorkerName, refused: Refused) {
        let mut shown = self.lock();
        if shown.workers.contains_key(name) {
            shown.refused.insert(name.clone(), refused);
        }
    }

    /// The worker was let in.
    pub fn forget_refused(&self, name: &WorkerName) {
        self.lock().refused.remove(name);
    }

    /// Counts something that was stale, refused or unknown.
    pub fn count_ignored(&self, kind: &'static str) {
        *self.lock().ignored.entry(kind).or_default() += 1;
    }

    /// Shows that the master drains.
    pub fn show_draining(&self) {
        self.lock().draining = true;
    }

    /// Shows the configured forms.
    pub fn show_forms(&self, forms: Vec<Form>) {
        self.lock().forms = forms.into();
    }

    /// All forms: the configured ones, after the one that every master has
    /// unless one of them has its name.
    #[must_use]
    pub fn forms(&self) -> Vec<Form> {
        let configured = self.lock().forms.clone();
        let own = configured.iter().all(|form| form.name != FORCE).then(Form::for_everything);
        own.into_iter().chain(configured.iter().cloned()).collect()
    }

    /// Shows whether the store is full, and with what words.
    pub fn show_full(&self, full: Option<String>) {
        self.lock().store.full = full;
    }

    /// Shows what the housekeeping does.
    pub fn show_housekeeping(&self, view: HousekeepingView) {
        self.lock().store.housekeeping = view;
    }

    /// Shows the rules of the housekeeping, which follows them.
    pub fn show_retention(&self, rules: RetentionRules) {
        self.lock().retention = Arc::new(rules);
    }

    /// The rules of the housekeeping.
    #[must_use]
    pub fn retention(&self) -> Arc<RetentionRules> {
        self.lock().retention.clone()
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> StoreView {
        self.lock().store.clone()
    }

    /// Shows a banner of this kind; true when there was none.
    pub fn warn(&self, kind: &'static str, text: &str) -> bool {
        self.lock().warnings.insert(kind, text.to_owned()).is_none()
    }

    /// Takes the banner of this kind down, if there is one.
    pub fn calm(&self, kind: &'static str) {
        self.lock().warnings.remove(kind);
    }

    /// One builder's view.
    #[must_use]
    pub fn builder(&self, name: &BuilderName) -> Option<Arc<BuilderView>> {
        self.lock().builders.get(name).cloned()
    }

    /// One worker's view.
    #[must_use]
    pub fn worker(&self, name: &WorkerName) -> Option<Arc<WorkerView>> {
        self.lock().workers.get(name).cloned()
    }

    /// A copy of everything.
    #[must_use]
    pub fn all(&self) -> Shown {
        self.lock().clone()
    }
}
