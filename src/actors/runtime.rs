//! What we add to actix: supervision that survives panics, the actors' common
//! doors to the world, one timer an actor.
//!
//! actix's own Supervisor does not start an actor again after a panic: its
//! address dies in silence. Ours polls the actor's context itself, catches the
//! panic, and restarts the actor with its address and mailbox kept; only the
//! message that caused the panic is gone.

use std::any::Any;
use std::future::Future;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{self, Poll};

use actix::dev::ContextFut;
use actix::{Actor, Addr, AsyncContext, Recipient, Supervised};

use crate::actors::context::Context;
use crate::board::Board;
use crate::clock::Clock;
use crate::core::bot_master::RestartPolicy;
use crate::core::heartbeats::Outage;
use crate::core::rng::Rng;
use crate::core::time::Timestamp;
use crate::provisioning::Provisioner;
use crate::settings::{Limits, Timers};
use crate::store::StateStore;
use crate::store::logs::LogStore;
use crate::telemetry::metrics::metrics;

/// The actors' doors to the world. Clones share them: each of thousands of
/// actors holds one.
#[derive(Clone)]
pub struct World(Arc<WorldParts>);

impl From<WorldParts> for World {
    fn from(parts: WorldParts) -> Self {
        Self(Arc::new(parts))
    }
}

impl Deref for World {
    type Target = WorldParts;

    fn deref(&self) -> &WorldParts {
        &self.0
    }
}

/// What a world is made from.
pub struct WorldParts {
    /// Time.
    pub clock: Clock,
    /// State.
    pub store: Arc<dyn StateStore>,
    /// Text of logs.
    pub logs: Arc<dyn LogStore>,
    /// What people see.
    pub board: Board,
    /// Timers.
    pub timers: Timers,
    /// What the port for workers bears.
    pub limits: Limits,
    /// What becomes of heartbeats while the store cannot be written.
    pub outage: Outage,
    /// Hands out ping tokens.
    pub tokens: Arc<AtomicU64>,
    /// Chance that makes names unique.
    pub chance: Arc<Mutex<Rng>>,
    /// Instances of latent workers.
    pub provisioner: Provisioner,
}

impl World {
    /// A token that no other ping of this process has.
    #[must_use]
    pub fn next_token(&self) -> u64 {
        self.tokens.fetch_add(1, Ordering::Relaxed)
    }

    /// Something that nobody else draws.
    #[must_use]
    pub fn draw(&self) -> u64 {
        let bits = self.chance.lock().unwrap_or_else(PoisonError::into_inner).bits();
        u64::try_from(bits >> 64).unwrap_or_default()
    }

    /// Counts something that was ignored, and says so for those who look.
    pub fn ignored(&self, kind: &'static str) {
        self.board.count_ignored(kind);
        tracing::debug!(kind, "ignored");
    }
}

/// An actor panicked.
#[derive(actix::Message, Clone, Debug)]
#[rtype(result = "()")]
pub struct ChildDown {
    /// Which, as its parent named it for people.
    pub id: String,
    /// Which, as its parent numbered it.
    pub child: u64,
    /// What it said.
    pub reason: String,
    /// Restarts so far.
    pub restarts: u32,
    /// It is not started again.
    pub gave_up: bool,
}

/// Who hears of an actor's panics. Somebody else may take that over.
#[derive(Clone)]
pub struct Parent(Arc<Mutex<Recipient<ChildDown>>>);

impl From<Recipient<ChildDown>> for Parent {
    fn from(parent: Recipient<ChildDown>) -> Self {
        Self(Arc::new(Mutex::new(parent)))
    }
}

impl Parent {
    /// From now on this one hears of them.
    pub fn becomes(&self, parent: Recipient<ChildDown>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = parent;
    }

    fn tell(&self, down: ChildDown) {
        let parent = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        parent.do_send(down);
    }
}

/// Whether a panic may be followed by a restart. A successor that has not
/// taken over yet must not come back: its predecessor is still in charge.
#[derive(Clone, Debug)]
pub struct MayRestart(Arc<AtomicBool>);

impl MayRestart {
    /// A switch.
    #[must_use]
    pub fn new(yes: bool) -> Self {
        Self(Arc::new(AtomicBool::new(yes)))
    }

    /// Sets it.
    pub fn set(&self, yes: bool) {
        self.0.store(yes, Ordering::Relaxed);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

struct Supervise<A: Actor<Context = Context<A>> + Supervised> {
    context: ContextFut<A, Context<A>>,
    id: String,
    child: u64,
    parent: Parent,
    clock: Clock,
    policy: RestartPolicy,
    may_restart: MayRestart,
}

impl<A: Actor<Context = Context<A>> + Supervised + Unpin> Future for Supervise<A> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(&mut this.context).poll(cx)));
            let reason = match polled {
                Ok(Poll::Pending) => return Poll::Pending,
                Ok(Poll::Ready(())) => return Poll::Ready(()),
                Err(panic) => panic_text(panic.as_ref()),
            };
            metrics().panicked::<A>();
            let again = this.may_restart.get() && this.policy.allows(this.clock.now().mono);
            tracing::error!(actor = %this.id, error = %reason, restarted = again, "an actor panicked");
            this.parent.tell(ChildDown {
                id: this.id.clone(),
                child: this.child,
                reason,
                restarts: this.policy.total(),
                gave_up: !again,
            });
            // `restart` calls the actor's `restarting`, then `started`.
            if !again || !this.context.restart() {
                return Poll::Ready(());
            }
        }
    }
}

/// The text that a panic carried.
#[must_use]
pub fn panic_text(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "it did not say why".to_owned())
}

/// Starts an actor under supervision, which tells `parent` of its panics under
/// the name `id` and the number `child`. `make` gets its context.
pub fn start_supervised<A>(
    id: String,
    child: u64,
    parent: impl Into<Parent>,
    clock: Clock,
    may_restart: MayRestart,
    make: impl FnOnce(&mut Context<A>) -> A,
) -> Addr<A>
where
    A: Actor<Context = Context<A>> + Supervised + Unpin + 'static,
{
    let mut context = Context::new();
    let actor = make(&mut context);
    let addr = context.address();
    let context = context.into_future(actor);
    actix_rt::spawn(Supervise {
        context,
        id,
        child,
        parent: parent.into(),
        clock,
        policy: RestartPolicy::default(),
        may_restart,
    });
    addr
}

/// Starts an actor that nobody can do without: `on_panic` hears what it said
/// when it panicked.
pub fn start_vital<A>(actor: A, on_panic: impl FnOnce(String) + 'static) -> Addr<A>
where
    A: Actor<Context = Context<A>>,
{
    let context = Context::new();
    let addr = context.address();
    let running = actix_rt::spawn(context.into_future(actor));
    actix_rt::spawn(async move {
        if let Err(error) = running.await
            && error.is_panic()
        {
            on_panic(panic_text(error.into_panic().as_ref()));
        }
    });
    addr
}

/// One timer for an actor: armed for the core's next deadline, and re-armed
/// only when that changes.
#[derive(Default)]
pub struct Alarm {
    armed: Option<(Timestamp, actix::SpawnHandle)>,
}

impl Alarm {
    /// Arms it for `at`, or disarms it. `ring` is called when it is due.
    pub fn set<A>(
        &mut self,
        ctx: &mut Context<A>,
        clock: &Clock,
        at: Option<Timestamp>,
        ring: impl FnOnce(&mut A, &mut Context<A>) + 'static,
    ) where
        A: Actor<Context = Context<A>>,
    {
        if self.armed.map(|(when, _)| when) == at {
            return;
        }
        if let Some((_, handle)) = self.armed.take() {
            ctx.cancel_future(handle);
        }
        if let Some(at) = at {
            // A little late rather than early: an early one would ring again.
            let wait = clock.until(at) + std::time::Duration::from_millis(1);
            let handle = ctx.run_later(wait, move |actor, ctx| ring(actor, ctx));
            self.armed = Some((at, handle));
        }
    }

    /// It rang.
    pub fn rang(&mut self) {
        self.armed = None;
    }
}
