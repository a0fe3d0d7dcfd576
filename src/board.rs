//! The board: what the living parts show of themselves. Actors put their views
//! up after each change; the web reads without asking an actor.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::core::form::{FORCE, Form};
use crate::core::ids::{BuilderName, WorkerName};
use crate::core::views::{BuilderView, WorkerView};

/// Everything on the board.
#[derive(Clone, Default, Debug)]
pub struct Shown {
    /// Builders by name.
    pub builders: BTreeMap<BuilderName, Arc<BuilderView>>,
    /// Workers by name.
    pub workers: BTreeMap<WorkerName, Arc<WorkerView>>,
    /// Stale or refused input so far, by kind.
    pub ignored: BTreeMap<&'static str, u64>,
    /// SIGTERM was received: no new builds.
    pub draining: bool,
    /// Forms to force builds by, beside the one that every master has.
    pub forms: Arc<[Form]>,
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
        self.lock().workers.remove(name);
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
