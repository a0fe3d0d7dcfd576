//! Connections that have not proved to be workers: how many there may be, in
//! all and of one address (fault row FN05).
//!
//! A place is held from the accept until the worker is known or the connection
//! is over. Without a place nothing is accepted: those that want in wait in the
//! system's queue.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::settings::Limits;

/// So many times the limit of an address may wait for it, so that one address
/// cannot take all places.
const WAITING_TIMES: usize = 3;

#[derive(Debug, Default)]
struct Address {
    inside: Option<Arc<Semaphore>>,
    /// Connections of it that are accepted: listened to, or waiting.
    here: usize,
}

/// The places of all strangers. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Strangers {
    limits: Limits,
    places: Arc<Semaphore>,
    addresses: Arc<Mutex<BTreeMap<IpAddr, Address>>>,
}

/// A place. Dropped, it is free again.
#[derive(Debug)]
pub struct Place {
    _place: OwnedSemaphorePermit,
}

/// A place, with the right to be listened to.
#[derive(Debug)]
pub(super) struct Pass {
    _place: Option<Place>,
    _turn: Option<OwnedSemaphorePermit>,
    _here: Option<Here>,
}

#[derive(Debug)]
struct Here {
    address: IpAddr,
    addresses: Arc<Mutex<BTreeMap<IpAddr, Address>>>,
}

impl Drop for Here {
    fn drop(&mut self) {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = addresses.get_mut(&self.address) {
            known.here = known.here.saturating_sub(1);
            if known.here == 0 {
                addresses.remove(&self.address);
            }
        }
    }
}

/// What an accepted connection gets.
pub(super) enum Turn {
    /// It is listened to.
    Now(Pass),
    /// It is listened to when another one of its address is done.
    Later(Waiting),
    /// Too many of its address wait already.
    Never,
}

/// A connection that waits for its turn.
pub(super) struct Waiting {
    place: Place,
    here: Here,
    inside: Arc<Semaphore>,
}

impl Waiting {
    /// Returns when it is its turn.
    pub(super) async fn turn(self) -> Pass {
        // The semaphore is never closed.
        let turn = self.inside.acquire_owned().await.ok();
        Pass { _place: Some(self.place), _turn: turn, _here: Some(self.here) }
    }
}

impl Pass {
    /// For a connection that nobody counts.
    pub(super) fn free() -> Self {
        Self { _place: None, _turn: None, _here: None }
    }
}

impl Strangers {
    pub(super) fn new(limits: Limits) -> Self {
        let places = Arc::new(Semaphore::new(limits.strangers.min(Semaphore::MAX_PERMITS)));
        Self { limits, places, addresses: Arc::default() }
    }

    /// A place for one more; waits until there is one.
    pub(super) async fn place(&self) -> Option<Place> {
        let place = self.places.clone().acquire_owned().await.ok()?;
        Some(Place { _place: place })
    }

    /// Whether limits per address hold for this one.
    pub(super) fn is_limited(&self, address: IpAddr) -> bool {
        self.limits.limit_loopback || !address.to_canonical().is_loopback()
    }

    /// What a connection gets that came from there.
    pub(super) fn admit(&self, address: IpAddr, place: Place) -> Turn {
        let address = address.to_canonical();
        if !self.is_limited(address) {
            return Turn::Now(Pass { _place: Some(place), _turn: None, _here: None });
        }
        let most = self.limits.strangers_per_address;
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let known = addresses.entry(address).or_default();
        if known.here >= most.saturating_mul(1 + WAITING_TIMES) {
            return Turn::Never;
        }
        known.here += 1;
        let inside = known.inside.get_or_insert_with(|| Arc::new(Semaphore::new(most))).clone();
        drop(addresses);
        let here = Here { address, addresses: self.addresses.clone() };
        match inside.clone().try_acquire_owned() {
            Ok(turn) => {
                Turn::Now(Pass { _place: Some(place), _turn: Some(turn), _here: Some(here) })
            }
            Err(_) => Turn::Later(Waiting { place, here, inside }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits { strangers: 10, strangers_per_address: 2, ..Limits::default() }
    }

    #[tokio::test]
    async fn fn05_an_address_has_its_limit_and_cannot_take_all_places() {
        let strangers = Strangers::new(limits());
        let from: IpAddr = "192.0.2.7".parse().unwrap();
        let (mut inside, mut waiting, mut turned_away) = (Vec::new(), Vec::new(), 0);
        for _ in 0..20 {
            let place = strangers.place().await.unwrap();
            match strangers.admit(from, place) {
                Turn::Now(pass) => inside.push(pass),
                Turn::Later(one) => waiting.push(one),
                Turn::Never => turned_away += 1,
            }
        }
        assert_eq!((inside.len(), waiting.len(), turned_away), (2, 6, 12));
        let other: IpAddr = "192.0.2.8".parse().unwrap();
        let place = strangers.place().await.unwrap();
        assert!(matches!(strangers.admit(other, place), Turn::Now(_)), "others come in");
        // Who waits is next when one is done.
        let next = tokio::spawn(waiting.remove(0).turn());
        tokio::task::yield_now().await;
        assert!(!next.is_finished());
        inside.pop();
        next.await.unwrap();
        drop((inside, waiting));
        assert!(strangers.addresses.lock().unwrap().is_empty(), "nothing is left of them");
    }

    #[tokio::test]
    async fn fn05_without_a_place_nobody_is_accepted() {
        let strangers = Strangers::new(limits());
        let loopback: IpAddr = "127.0.0.1".parse().unwrap();
        let mut inside = Vec::new();
        for _ in 0..10 {
            let place = strangers.place().await.unwrap();
            let Turn::Now(pass) = strangers.admit(loopback, place) else {
                panic!("this machine's own addresses have no limit of their own")
            };
            inside.push(pass);
        }
        assert!(futures_util::FutureExt::now_or_never(strangers.place()).is_none());
        inside.pop();
        assert!(futures_util::FutureExt::now_or_never(strangers.place()).is_some());
    }
}
