//! The Ping actor: one exchange with one worker.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext, Addr, AsyncContext, Handler, Recipient};

use super::runtime::{Alarm, World};
use crate::actors::context::Context;
use crate::core::ids::PingToken;
use crate::core::ping::{Effect, Event, PingCore};
use crate::faults::crash_point;
use crate::messages::{
    EndPing, ForgetPing, PingEnded, PingLost, Pong, RegisterPing, TightenPing, WorkerHandle,
    WorkerLink,
};
use crate::protocol::json_v1::MasterFrame;

/// One exchange.
pub struct Ping {
    world: World,
    token: PingToken,
    timeout: Duration,
    link: WorkerLink,
    worker: Arc<WorkerHandle>,
    asker: Recipient<PingEnded>,
    core: Option<PingCore>,
    alarm: Alarm,
    told: bool,
}

impl Ping {
    /// Starts an exchange over `link`; its end is told to `asker`.
    pub fn start_exchange(
        world: World,
        token: PingToken,
        timeout: Duration,
        link: WorkerLink,
        worker: Arc<WorkerHandle>,
        asker: Recipient<PingEnded>,
    ) -> Addr<Self> {
        Context::new().run(Self {
            world,
            token,
            timeout,
            link,
            worker,
            asker,
            core: None,
            alarm: Alarm::default(),
            told: false,
        })
    }

    fn step(&mut self, event: Event, ctx: &mut Context<Self>) {
        let now = self.world.clock.now().mono;
        let mut effects = Vec::new();
        if let Some(core) = &mut self.core {
            core.handle(now, event, &mut effects);
        }
        self.perform(effects, ctx);
    }

    fn perform(&mut self, effects: Vec<Effect>, ctx: &mut Context<Self>) {
        for effect in effects {
            match effect {
                Effect::Send => {
                    if !self.link.send(&MasterFrame::Ping { id: self.token }) {
                        ctx.notify(PingLost);
                    }
                }
                Effect::DropConnection => self.link.close("it did not answer a ping"),
                Effect::Done(ok) => {
                    self.told = true;
                    self.asker.do_send(PingEnded { token: self.token, ok });
                    ctx.stop();
                }
            }
        }
        let at = self.core.as_ref().and_then(PingCore::next_deadline);
        self.alarm.set(ctx, &self.world.clock, at, |ping, ctx| {
            ping.alarm.rang();
            // While we do not read, the silence is ours.
            let held = ping.link.is_held();
            let now = ping.world.clock.now().mono;
            let last_byte = if held { now } else { ping.link.last_heard() };
            ping.step(Event::DeadlineReached { last_byte }, ctx);
        });
    }
}

impl Actor for Ping {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.worker.tell(RegisterPing {
            token: self.token,
            session: self.link.session,
            pong: ctx.address().recipient(),
            lost: ctx.address().recipient(),
        });
        let mut effects = Vec::new();
        let now = self.world.clock.now().mono;
        self.core = Some(PingCore::start(now, self.timeout, &mut effects));
        self.perform(effects, ctx);
    }
}

impl Drop for Ping {
    /// However it ends, whoever waits hears of it.
    fn drop(&mut self) {
        self.worker.tell(ForgetPing(self.token));
        if !self.told {
            self.asker.do_send(PingEnded { token: self.token, ok: false });
        }
    }
}

impl Handler<Pong> for Ping {
    type Result = ();
    fn handle(&mut self, _: Pong, ctx: &mut Context<Self>) {
        crash_point("ping.answered");
        self.step(Event::Pong, ctx);
    }
}

impl Handler<PingLost> for Ping {
    type Result = ();
    fn handle(&mut self, _: PingLost, ctx: &mut Context<Self>) {
        self.step(Event::Lost, ctx);
    }
}

impl Handler<TightenPing> for Ping {
    type Result = ();
    fn handle(&mut self, message: TightenPing, ctx: &mut Context<Self>) {
        self.step(Event::Tighten(message.0), ctx);
    }
}

impl Handler<EndPing> for Ping {
    type Result = ();
    fn handle(&mut self, _: EndPing, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}
