//! That an actor takes a kind of message, whatever its context is.

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
