//! The context of our actors: actix's own, whose mailbox is measured. Each
//! message is wrapped on its way into it, so that senders and handlers know
//! nothing of that.

use std::time::Instant;

use actix::dev::{
    AsyncContextParts, ContextFut, ContextParts, Envelope, EnvelopeProxy, Mailbox,
    MessageResponse as _, ToEnvelope,
};
use actix::fut::ActorFuture;
use actix::{Actor, ActorContext, ActorState, Addr, AsyncContext, Handler, Message, SpawnHandle};
use tokio::sync::oneshot::Sender;

use crate::telemetry::mailboxes::{Mail, mail};

/// An actor's context.
pub struct Context<A: Actor<Context = Self>> {
    parts: ContextParts<A>,
    mailbox: Option<Mailbox<A>>,
}

impl<A: Actor<Context = Self>> Default for Context<A> {
    fn default() -> Self {
        Self::new()
    }
}

impl<A: Actor<Context = Self>> Context<A> {
    /// A context that does not run yet.
    #[must_use]
    pub fn new() -> Self {
        let mailbox = Mailbox::default();
        Self { parts: ContextParts::new(mailbox.sender_producer()), mailbox: Some(mailbox) }
    }

    /// Starts an actor that nobody supervises.
    pub fn run(self, actor: A) -> Addr<A> {
        let addr = self.parts.address();
        actix_rt::spawn(self.into_future(actor));
        addr
    }

    /// The actor's life, to be polled by its supervisor.
    pub fn into_future(mut self, actor: A) -> ContextFut<A, Self> {
        let mailbox = self.mailbox.take().unwrap_or_default();
        ContextFut::new(self, actor, mailbox)
    }
}

impl<A: Actor<Context = Self>> ActorContext for Context<A> {
    fn stop(&mut self) {
        self.parts.stop();
    }

    fn terminate(&mut self) {
        self.parts.terminate();
    }

    fn state(&self) -> ActorState {
        self.parts.state()
    }
}

impl<A: Actor<Context = Self>> AsyncContext<A> for Context<A> {
    fn spawn<F>(&mut self, future: F) -> SpawnHandle
    where
        F: ActorFuture<A, Output = ()> + 'static,
    {
        self.parts.spawn(future)
    }

    fn wait<F>(&mut self, future: F)
    where
        F: ActorFuture<A, Output = ()> + 'static,
    {
        self.parts.wait(future);
    }

    fn waiting(&self) -> bool {
        self.parts.waiting()
    }

    fn cancel_future(&mut self, handle: SpawnHandle) -> bool {
        self.parts.cancel_future(handle)
    }

    fn address(&self) -> Addr<A> {
        self.parts.address()
    }
}

impl<A: Actor<Context = Self>> AsyncContextParts<A> for Context<A> {
    fn parts(&mut self) -> &mut ContextParts<A> {
        &mut self.parts
    }
}

impl<A, M> ToEnvelope<A, M> for Context<A>
where
    A: Actor<Context = Self> + Handler<M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    fn pack(message: M, answer: Option<Sender<M::Result>>) -> Envelope<A> {
        let mail = mail::<A, M>();
        mail.sent();
        let (message, waits_since) = (Some(message), Some(Instant::now()));
        Envelope::with_proxy(Box::new(Measured { message, answer, mail, waits_since }))
    }
}

/// A message on its way. It does what actix's own envelope does, and is not
/// wrapped around one: every message would be allocated twice.
struct Measured<M: Message> {
    /// None once it is being handled.
    message: Option<M>,
    answer: Option<Sender<M::Result>>,
    mail: &'static Mail,
    /// Since when it waits; none once it is being handled.
    waits_since: Option<Instant>,
}

impl<A, M> EnvelopeProxy<A> for Measured<M>
where
    A: Actor<Context = Context<A>> + Handler<M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    fn handle(&mut self, actor: &mut A, context: &mut Context<A>) {
        let began = Instant::now();
        if let Some(since) = self.waits_since.take() {
            self.mail.taken(began.saturating_duration_since(since));
        }
        // Who asked may have gone: then nothing is done.
        let wanted = self.answer.as_ref().is_none_or(|answer| !answer.is_closed());
        if let Some(message) = self.message.take().filter(|_| wanted) {
            let answer = self.answer.take();
            actor.handle(message, context).handle(context, answer);
        }
        self.mail.handled(began.elapsed());
    }
}

impl<M: Message> Drop for Measured<M> {
    fn drop(&mut self) {
        // Its actor ended before.
        if self.waits_since.is_some() {
            self.mail.lost();
        }
    }
}
