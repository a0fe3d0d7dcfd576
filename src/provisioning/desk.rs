//! Asks a provider: on threads of its own, within a limit, and whatever the
//! provider does.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::{AbortHandle, JoinError, JoinHandle};
use tokio::time::{Instant, sleep, timeout_at};

use super::port::{Call, CreateOrder, Created, Failure, Found, Provider};
use crate::core::ids::InstanceTag;

/// First pause before a provider is asked again which instances there are,
/// doubled with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How long a provider may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// To tell which instances there are.
    pub find: Duration,
    /// To destroy one.
    pub destroy: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { find: Duration::from_secs(30), destroy: Duration::from_secs(60) }
    }
}

/// Whoever asks for instances. Clones ask the same provider.
#[derive(Clone)]
pub struct Provisioner(Arc<Desk>);

struct Desk {
    provider: Option<Arc<dyn Provider>>,
    limits: Limits,
    threads: Threads,
}

/// Where a provider's calls are carried out.
enum Threads {
    /// On own ones, made when they are needed first; none when the system has
    /// no thread left.
    Own(OnceLock<Option<Runtime>>),
    /// On that of whoever asks.
    #[cfg(feature = "testing")]
    Asking,
}

impl Default for Threads {
    fn default() -> Self {
        Self::Own(OnceLock::new())
    }
}

impl Drop for Desk {
    /// Nobody waits for a provider that hangs (fault row FX11).
    fn drop(&mut self) {
        match &mut self.threads {
            Threads::Own(runtime) => {
                if let Some(Some(runtime)) = runtime.take() {
                    runtime.shutdown_background();
                }
            }
            #[cfg(feature = "testing")]
            Threads::Asking => {}
        }
    }
}

/// As long as it lives, an instance's death is told.
#[derive(Debug)]
pub struct Watch(Option<AbortHandle>);

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// A provider's call under a limit.
async fn within<T: Send + 'static>(until: Instant, call: Call<T>) -> Result<T, String> {
    let mut task: JoinHandle<T> = tokio::spawn(call);
    match timeout_at(until, &mut task).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(panicked(error)),
        Err(_) => {
            task.abort();
            Err("the provider did not answer in time".into())
        }
    }
}

fn panicked(error: JoinError) -> String {
    let text = match error.try_into_panic() {
        Ok(panic) => panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned()),
        Err(_) => None,
    };
    format!("the provider panicked: {}", text.as_deref().unwrap_or("it did not say why"))
}

impl Provisioner {
    /// Asks `provider`.
    #[must_use]
    pub fn new(provider: Arc<dyn Provider>, limits: Limits) -> Self {
        Self(Arc::new(Desk { provider: Some(provider), limits, threads: Threads::default() }))
    }

    /// Asks `provider` on the thread of whoever asks, in its runtime: for
    /// worlds that are played on one thread.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn on_this_thread(provider: Arc<dyn Provider>, limits: Limits) -> Self {
        Self(Arc::new(Desk { provider: Some(provider), limits, threads: Threads::Asking }))
    }

    /// Has no provider: every wish fails for good, and there are no instances.
    #[must_use]
    pub fn none() -> Self {
        let limits = Limits::default();
        Self(Arc::new(Desk { provider: None, limits, threads: Threads::default() }))
    }

    fn runtime(&self) -> Option<Handle> {
        let own = match &self.0.threads {
            Threads::Own(own) => own,
            #[cfg(feature = "testing")]
            Threads::Asking => return Handle::try_current().ok(),
        };
        let made = own.get_or_init(|| {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(2).max_blocking_threads(16).thread_name("provisioning");
            match builder.enable_all().build() {
                Ok(runtime) => Some(runtime),
                Err(error) => {
                    tracing::error!(%error, "no threads for the providers of latent workers");
                    None
                }
            }
        });
        made.as_ref().map(|runtime| runtime.handle().clone())
    }

    /// Asks for an instance; `done` is called on another thread, within
    /// `limit` and a little.
    pub fn create(
        &self,
        order: CreateOrder,
        limit: Duration,
        done: impl FnOnce(Result<Created, Failure>) + Send + 'static,
    ) {
        let (Some(provider), Some(runtime)) = (self.0.provider.clone(), self.runtime()) else {
            done(Err(Failure::Permanent("there is no provider of instances".into())));
            return;
        };
        runtime.spawn(async move {
            let until = Instant::now() + limit;
            // The call is made inside: it may panic before it is a future.
            let call = Box::pin(async move { provider.create(order).await });
            done(within(until, call).await.unwrap_or_else(|error| Err(Failure::Unknown(error))));
        });
    }

    /// Asks which instances there are, until it is told.
    pub fn find(&self, done: impl FnOnce(Vec<Found>) + Send + 'static) {
        let (Some(provider), Some(runtime)) = (self.0.provider.clone(), self.runtime()) else {
            done(Vec::new());
            return;
        };
        let limit = self.0.limits.find;
        runtime.spawn(async move {
            let mut pause = FIRST_PAUSE;
            loop {
                let asked = provider.clone();
                let call = Box::pin(async move { asked.find().await });
                match within(Instant::now() + limit, call).await.and_then(|told| told) {
                    Ok(found) => return done(found),
                    Err(error) => {
                        tracing::warn!(%error, again_s = pause.as_secs(), "a provider does not tell which instances there are");
                    }
                }
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        });
    }

    /// Asks for an instance's end.
    pub fn destroy(
        &self,
        tag: InstanceTag,
        id: Option<String>,
        done: impl FnOnce(Result<(), String>) + Send + 'static,
    ) {
        let (Some(provider), Some(runtime)) = (self.0.provider.clone(), self.runtime()) else {
            done(Err("there is no provider of instances".into()));
            return;
        };
        let limit = self.0.limits.destroy;
        runtime.spawn(async move {
            let call = Box::pin(async move { provider.destroy(tag, id).await });
            done(within(Instant::now() + limit, call).await.and_then(|told| told));
        });
    }

    /// Tells when an instance is dead.
    #[must_use = "nothing is told once this is dropped"]
    pub fn watch(
        &self,
        tag: InstanceTag,
        id: String,
        done: impl FnOnce(String) + Send + 'static,
    ) -> Watch {
        let (Some(provider), Some(runtime)) = (self.0.provider.clone(), self.runtime()) else {
            return Watch(None);
        };
        let task = runtime.spawn(async move { done(provider.died(tag, id).await) });
        Watch(Some(task.abort_handle()))
    }
}
