//! What happens in the actors' mailboxes: how many messages wait, for how long,
//! and how long they take. One record for each kind of actor and message.
//!
//! These are on the way of every message, so they are plain atomic numbers that
//! are found by the types' ids; nothing is locked once a thread knows them.

use std::any::TypeId;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::metrics::short_name;

/// Upper limits of the buckets, in nanoseconds: 10 µs to 10 s, by tens.
const LIMITS: [u64; 7] =
    [10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000, 10_000_000_000];

/// Times of one kind.
#[derive(Debug)]
pub struct Times {
    /// By bucket, each for itself; the last is for what is longer than all.
    buckets: [AtomicU64; LIMITS.len() + 1],
    nanos: AtomicU64,
}

impl Times {
    const fn new() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; LIMITS.len() + 1], nanos: AtomicU64::new(0) }
    }

    fn add(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let bucket = LIMITS.iter().position(|limit| nanos <= *limit).unwrap_or(LIMITS.len());
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// The sum in seconds, the count, and the buckets with their upper limits
    /// in seconds, each without those before it.
    #[must_use]
    pub fn read(&self) -> (f64, u64, Vec<(f64, u64)>) {
        let limits = LIMITS.iter().map(|limit| Duration::from_nanos(*limit).as_secs_f64());
        let counts = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = limits.chain([f64::MAX]).zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = Duration::from_nanos(self.nanos.load(Ordering::Relaxed)).as_secs_f64();
        (sum, count, buckets)
    }
}

/// One kind of message to one kind of actor.
#[derive(Debug)]
pub struct Mail {
    /// The kind of actor.
    pub actor: &'static str,
    /// The kind of message.
    pub message: &'static str,
    depth: AtomicI64,
    /// From the sending until an actor took it.
    pub waited: Times,
    /// From then until it was handled.
    pub handling: Times,
}

impl Mail {
    /// One more waits.
    pub fn sent(&self) {
        self.depth.fetch_add(1, Ordering::Relaxed);
    }

    /// One that waited so long is being handled.
    pub fn taken(&self, waited: Duration) {
        self.depth.fetch_sub(1, Ordering::Relaxed);
        self.waited.add(waited);
    }

    /// One that waited will never be handled.
    pub fn lost(&self) {
        self.depth.fetch_sub(1, Ordering::Relaxed);
    }

    /// Handling one took so long.
    pub fn handled(&self, took: Duration) {
        self.handling.add(took);
    }

    /// How many wait now.
    #[must_use]
    pub fn depth(&self) -> i64 {
        self.depth.load(Ordering::Relaxed)
    }
}

/// The ids of types are hashes already.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = self.0.rotate_left(32) ^ number;
    }
}

type Known = HashMap<(TypeId, TypeId), &'static Mail, BuildHasherDefault<AsIs>>;

/// All there are. Each kind is made once and stays: there are as many as the
/// program has handlers.
static ALL: Mutex<BTreeMap<(&'static str, &'static str), &'static Mail>> =
    Mutex::new(BTreeMap::new());

thread_local! {
    static KNOWN: RefCell<Known> = RefCell::new(Known::default());
}

/// The record of messages `M` to actors `A`.
#[must_use]
pub fn mail<A: 'static, M: 'static>() -> &'static Mail {
    let ids = (TypeId::of::<A>(), TypeId::of::<M>());
    KNOWN.with_borrow_mut(|known| *known.entry(ids).or_insert_with(make::<A, M>))
}

fn make<A, M>() -> &'static Mail {
    let names = (short_name::<A>(), short_name::<M>());
    let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    all.entry(names).or_insert_with(|| {
        Box::leak(Box::new(Mail {
            actor: names.0,
            message: names.1,
            depth: AtomicI64::new(0),
            waited: Times::new(),
            handling: Times::new(),
        }))
    })
}

/// All records so far, by actor and message.
#[must_use]
pub fn all() -> Vec<&'static Mail> {
    ALL.lock().unwrap_or_else(PoisonError::into_inner).values().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Clerk;
    struct Letter;
    struct Parcel;

    #[test]
    fn each_kind_has_one_record_on_all_threads() {
        let here: *const Mail = mail::<Clerk, Letter>();
        let there = std::thread::spawn(|| std::ptr::from_ref(mail::<Clerk, Letter>()) as usize);
        assert_eq!(there.join().unwrap(), here as usize);
        assert_ne!(std::ptr::from_ref(mail::<Clerk, Parcel>()), here);
        assert_eq!(mail::<Clerk, Letter>().message, "Letter");
    }

    #[test]
    fn times_fall_into_their_buckets() {
        let times = Times::new();
        for micros in [1, 10, 11, 900_000, 20_000_000] {
            times.add(Duration::from_micros(micros));
        }
        let (sum, count, buckets) = times.read();
        assert!((sum - 20.900_022).abs() < 1e-9, "{sum}");
        assert_eq!(count, 5);
        let counts: Vec<u64> = buckets.iter().map(|(_, count)| *count).collect();
        assert_eq!(counts, [2, 1, 0, 0, 0, 1, 0, 1]);
        assert!((buckets[0].0 - 0.000_01).abs() < 1e-12);
    }

    #[test]
    fn what_waits_is_counted_until_it_is_taken_or_lost() {
        let mail = mail::<Clerk, Parcel>();
        mail.sent();
        mail.sent();
        assert_eq!(mail.depth(), 2);
        mail.taken(Duration::ZERO);
        mail.lost();
        assert_eq!(mail.depth(), 0);
    }
}
