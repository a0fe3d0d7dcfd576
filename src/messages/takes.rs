//! That an actor takes a kind of message, whatever its context is.
//!
//! [`Takes`] makes a door for one kind of message. A door is an allocation of
//! its own, and so [`Tells`] is for actors that take many kinds and of which there
//! are many: one door for all of them.

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Handler, Message, Recipient};

/// An actor that takes messages `M`.
pub trait Takes<M>: Actor
where
    M: Message + Send,
    M::Result: Send,
{
    /// The door for them at `addr`.
    fn door(addr: &Addr<Self>) -> Recipient<M>;
}

impl<A, M> Takes<M> for A
where
    A: Handler<M>,
    A::Context: ToEnvelope<A, M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    fn door(addr: &Addr<Self>) -> Recipient<M> {
        addr.clone().recipient()
    }
}

/// The address of an actor that takes messages `M`.
pub trait Tells<M>: Send + Sync {
    /// Sends one, without waiting.
    fn tell(&self, message: M);
}

impl<A, M> Tells<M> for Addr<A>
where
    A: Handler<M>,
    A::Context: ToEnvelope<A, M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    fn tell(&self, message: M) {
        self.do_send(message);
    }
}
