//! The master's host: the real actors, without HTTP.

use std::rc::Rc;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use botmaster::actors::runtime::{World, WorldParts, start_vital};
use botmaster::actors::{BotMaster, Greeter, Parts, WaitReady, declare, declared};
use botmaster::board::Board;
use botmaster::clock::Clock;
use botmaster::core::rng::Rng;
use botmaster::messages::*;
use botmaster::provisioning::{Limits, Provisioner};
use botmaster::settings::{Settings, TokenBook};
use botmaster::store::*;
use tokio::sync::{mpsc, oneshot};
use turmoil::net::TcpListener;

use super::plan::Dice;
use super::shared::{Door, Order, now, wall};
use super::{logs, store};
use crate::history::{Limit, Told};

/// Where workers connect.
pub const PORT: u16 = 9990;
/// Room for pieces of logs in memory: little, so that readers have to wait.
const BUDGET: usize = 64 * 1024;

/// Runs a master until its host ends.
pub async fn run(door: Door, commit: Duration, seed: u64) -> turmoil::Result {
    let (life, settings, held) = {
        let mut shared = door.borrow_mut();
        shared.lives += 1;
        shared.store.reopen();
        shared.goes_by = shared.edition;
        let held = Arc::new(());
        shared.held.push(Arc::downgrade(&held));
        let first = shared.store.events().len() as u64 + 1;
        shared.recorder.history.lives.push(first);
        (shared.lives, shared.settings.clone().ok_or("no settings")?, held)
    };
    let seed = seed.wrapping_mul(1009).wrapping_add(life);
    let store = Arc::new(Held(store::start(door.clone(), commit, Dice::seeded(seed)), held));
    let written = write(store.as_ref(), declare(&settings)).await?;
    let listed = write(store.as_ref(), vec![Op::ListInstances]).await?;
    let instances = rows(listed);
    if instances.iter().any(|row| row.state != InstanceState::Destroying) {
        door.borrow_mut().count("instances_adopted");
    }
    note_limits(&door, &settings);
    let (builder_ids, worker_rows) = declared(&settings, written);
    let world = World::from(WorldParts {
        clock: Clock::starting_at(wall()),
        store,
        logs: Arc::new(logs::start(door.clone(), BUDGET)),
        board: Board::default(),
        timers: settings.timers,
        limits: settings.limits,
        outage: settings.store.outage,
        tokens: Arc::new(AtomicU64::new(1)),
        chance: Arc::new(Mutex::new(Rng::seeded(seed ^ 0x7a65))),
        provisioner: provisioner(&door),
    });
    let (tokens, _) = TokenBook::read(&settings);
    let bot_master = BotMaster::new(Parts {
        world: world.clone(),
        settings,
        read_settings: Arc::new(|| Err(Vec::new())),
        tokens,
        builder_ids,
        worker_rows,
        instances,
        rng: Rng::seeded(seed),
    });
    let addr = start_vital(bot_master, |_| {});
    addr.send(WaitReady).await?;
    let (tell, orders) = mpsc::unbounded_channel();
    {
        let mut shared = door.borrow_mut();
        shared.orders = Some(tell);
        shared.board = Some(world.board.clone());
    }
    tokio::task::spawn_local(obey(door, BotMaster::handle(&addr), orders));
    let greeter = Greeter::new(world, addr.recipient());
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    loop {
        let (stream, address) = listener.accept().await?;
        greeter.greet(stream, address.to_string());
    }
}

/// A store that tells, by what it holds, when the last of its holders is gone.
struct Held<S>(S, #[expect(dead_code, reason = "it is there to be dropped")] Arc<()>);

impl<S: StateStore> StateStore for Held<S> {
    fn write(&self, transaction: Transaction, done: botmaster::store::OnWritten) {
        self.0.write(transaction, done);
    }

    fn load_builder(
        &self,
        builder: botmaster::core::ids::BuilderId,
        done: botmaster::store::OnLoaded,
    ) {
        self.0.load_builder(builder, done);
    }
}

/// As the real program does at its start; but it waits for the disk, where that
/// one ends and is started again.
async fn write(store: &impl StateStore, ops: Vec<Op>) -> Result<Vec<OpOutcome>, StoreError> {
    loop {
        let (tell, told) = oneshot::channel::<Written>();
        let done = Box::new(move |written| {
            let _ = tell.send(written);
        });
        store.write(Transaction { ops: ops.clone() }, done);
        match told.await.unwrap_or(Err(StoreError::Closed)) {
            Err(StoreError::Unwritable(_)) => tokio::time::sleep(Duration::from_secs(1)).await,
            written => return written,
        }
    }
}

fn rows(outcomes: Vec<OpOutcome>) -> Vec<InstanceRow> {
    let rows = outcomes.into_iter().filter_map(|outcome| match outcome {
        OpOutcome::Instances(rows) => Some(rows),
        _ => None,
    });
    rows.flatten().collect()
}

fn provisioner(door: &Door) -> Provisioner {
    let limits = Limits { find: Duration::from_secs(5), destroy: Duration::from_secs(5) };
    match door.borrow().cloud.clone() {
        Some(cloud) => Provisioner::on_this_thread(Arc::new(cloud), limits),
        None => Provisioner::none(),
    }
}

fn note_limits(door: &Door, settings: &Settings) {
    let limits = settings.workers.iter().map(|worker| Limit {
        worker: worker.config.name.clone(),
        from: now(),
        max_builds: worker.config.max_builds,
    });
    door.borrow_mut().recorder.history.limits.extend(limits);
}

async fn obey(door: Door, handle: BotMasterHandle, mut orders: mpsc::UnboundedReceiver<Order>) {
    let handle = Rc::new(handle);
    while let Some(order) = orders.recv().await {
        tokio::task::spawn_local(carry_out(door.clone(), handle.clone(), order));
    }
}

async fn carry_out(door: Door, handle: Rc<BotMasterHandle>, order: Order) {
    let refused = match order {
        Order::Submit(submission) => submit(&door, &handle, submission).await,
        Order::Cancel(request, builder) => {
            let cancel = CancelRequest { request, builder, reason: "simulated".into() };
            let answer = handle.cancel(cancel).await;
            if let Ok(done) = answer {
                let mut shared = door.borrow_mut();
                shared.recorder.history.told.push(Told::Cancelled { at: now(), request, done });
                shared.count(if done { "cancelled" } else { "cancelled_in_vain" });
            }
            answer.err()
        }
        Order::Stop(build, builder) => {
            let stop = StopBuild { build, builder, reason: "simulated".into() };
            let answer = handle.stop(stop).await;
            if answer == Ok(true) {
                let mut shared = door.borrow_mut();
                shared.recorder.history.told.push(Told::Stopped { at: now(), build });
                shared.count("stopped");
            }
            answer.err()
        }
        Order::Prioritise(request, builder, priority) => {
            handle.set_priority(SetPriority { request, builder, priority }).await.err()
        }
        Order::Reload => reload(&door, &handle).await,
        Order::Worker(worker, order) => {
            handle.order(OrderWorker { worker, order, reason: "simulated".into() }).await.err()
        }
        Order::Ping(builder) => handle.ping(builder).await.err(),
    };
    if refused.is_some() {
        door.borrow_mut().count("refused_orders");
    }
}

async fn submit(door: &Door, handle: &BotMasterHandle, submission: Submission) -> Option<Refusal> {
    let key = submission.idempotency_key.clone().unwrap_or_default();
    match handle.submit(vec![submission]).await {
        Ok(submitted) => {
            let mut shared = door.borrow_mut();
            shared.untold.remove(&key);
            for (_, request) in submitted.into_iter().flat_map(|one| one.requests) {
                let told = Told::Submitted { at: now(), request, key: Some(key.clone()) };
                shared.recorder.history.told.push(told);
            }
            None
        }
        Err(refusal) => Some(refusal),
    }
}

async fn reload(door: &Door, handle: &BotMasterHandle) -> Option<Refusal> {
    let (settings, edition) = {
        let shared = door.borrow();
        (shared.settings.clone()?, shared.edition)
    };
    note_limits(door, &settings);
    let settings = Some(Box::new(settings));
    match handle.reload(Reload { dry: false, settings }).await {
        Ok(report) => {
            let mut shared = door.borrow_mut();
            shared.count("reloads_done");
            if report.entries.iter().any(|entry| entry.error.is_some()) {
                shared.count("reload_errors");
            } else {
                shared.goes_by = shared.goes_by.max(edition);
            }
            None
        }
        Err(refusal) => Some(refusal),
    }
}
