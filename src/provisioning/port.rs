//! What a provider can be asked.

use std::future::Future;
use std::pin::Pin;

pub use crate::core::instance::{Failure, Found};

use crate::core::ids::{InstanceTag, WorkerName};
use crate::core::values::LatentConfig;

/// An answer that takes its time.
pub type Call<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// An instance that is wished for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreateOrder {
    /// Its tag: the instance has to be found by it, and says it when it
    /// attaches, as its label `instance`.
    pub tag: InstanceTag,
    /// The worker that it is to be.
    pub worker: WorkerName,
    /// Builds it has to run side by side.
    pub max_builds: u32,
    /// The provider's part of the settings.
    pub latent: LatentConfig,
}

/// An instance that was made. It attaches by itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Created {
    /// The provider's name for it.
    pub id: String,
    /// For people: `process 4711`.
    pub details: String,
}

/// Makes instances, finds them by tag, ends them. Whoever asks sets a limit to
/// each call and drops it then; a call must not block its thread.
pub trait Provider: Send + Sync + 'static {
    /// Makes an instance. A failure that does not say `Unknown` says that
    /// nothing was made.
    fn create(&self, order: CreateOrder) -> Call<Result<Created, Failure>>;

    /// All instances of this master, whoever of its processes made them.
    ///
    /// # Errors
    /// When that is not known just now.
    fn find(&self) -> Call<Result<Vec<Found>, String>>;

    /// Ends an instance, politely if it can be, and answers when it is gone.
    /// One that is not there is gone; one that is still being made never comes.
    ///
    /// # Errors
    /// When it is not known to be gone; asked again, it goes on.
    fn destroy(&self, tag: InstanceTag, id: Option<String>) -> Call<Result<(), String>>;

    /// Answers when the instance is seen to be dead: how, for people. It waits
    /// for ever otherwise.
    fn died(&self, tag: InstanceTag, id: String) -> Call<String>;
}
