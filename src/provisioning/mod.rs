//! Where instances of latent workers come from: the port of providers, the desk
//! that asks them, and the provider of worker programs on this machine.
//!
//! A provider may be slow, hang, lie or panic; the desk makes one of three
//! answers of it, in time and on a thread of its own. Deliberately absent: when
//! an instance is wanted and when it goes (that is `core::instance`), and what
//! is remembered of it (the store; a provider is asked by tag).

mod desk;
mod port;
pub mod process;

pub use desk::{Limits, Provisioner, Watch};
pub use port::{Call, CreateOrder, Created, Provider};
