//! The gate of the port for workers: how often wrong names and tokens are
//! looked at (fault row FN06).
//!
//! Deliberately absent: whether a token is right, and how many connections are
//! open (the port's).

use std::collections::BTreeMap;
use std::time::Duration;

use super::planted;
use super::time::Timestamp;

/// The time that attempts are counted in.
const MINUTE: Duration = Duration::from_secs(60);
/// Addresses and names that are remembered; the longest unheard go first.
const REMEMBERED: usize = 4096;

/// Whoever fails: where it came from, or what it called itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Who {
    Address(String),
    Name(String),
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    /// When the minute began.
    since: Timestamp,
    /// Failures in it, and in the ones before that did not end in peace.
    count: usize,
    /// The last attempt, looked at or not.
    last: Timestamp,
    /// The last attempt that was looked at.
    looked: Timestamp,
}

/// An attempt to prove to be a worker.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// Where it comes from; none for an address that is not limited.
    pub address: Option<&'a str>,
    /// The name that it gives.
    pub name: &'a str,
    /// A worker of this name came from there before: a stranger that tries its
    /// name cannot keep it out.
    pub at_home: bool,
}

/// What to do about an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Look at its token.
    Look,
    /// Do not: it may come again after these seconds.
    Later(u64),
}

/// What the gate remembers.
#[derive(Clone, Debug)]
pub struct Gate {
    per_minute: usize,
    failures: BTreeMap<Who, Failures>,
}

impl Gate {
    /// A gate that bears so many failures a minute of one address, and of one
    /// name, before it looks at one a minute only.
    #[must_use]
    pub fn new(per_minute: usize) -> Self {
        Self { per_minute: per_minute.max(1), failures: BTreeMap::new() }
    }

    /// Whether this attempt is looked at.
    #[must_use]
    pub fn ask(&mut self, now: Timestamp, attempt: &Attempt<'_>) -> Verdict {
        let mut wait = Duration::ZERO;
        for who in parties(attempt) {
            let Some(failures) = self.failures.get_mut(&who) else { continue };
            // A minute without an attempt, and all is forgotten.
            if now.since(std::mem::replace(&mut failures.last, now)) >= MINUTE {
                self.failures.remove(&who);
            } else if failures.count >= self.per_minute {
                wait = wait.max(MINUTE.saturating_sub(now.since(failures.looked)));
            }
        }
        if wait.is_zero() || planted::is("logins_without_limit") {
            return Verdict::Look;
        }
        Verdict::Later(wait.as_secs().max(1) + u64::from(wait.subsec_nanos() > 0))
    }

    /// The attempt was looked at, and was wrong. True when its address or its
    /// name has just reached the limit: for the log, once.
    pub fn failed(&mut self, now: Timestamp, attempt: &Attempt<'_>) -> bool {
        let mut reached = false;
        for who in parties(attempt) {
            if self.failures.len() >= REMEMBERED && !self.failures.contains_key(&who) {
                self.forget_oldest();
            }
            let fresh = Failures { since: now, count: 0, last: now, looked: now };
            let failures = self.failures.entry(who).or_insert(fresh);
            if failures.count < self.per_minute && now.since(failures.since) >= MINUTE {
                (failures.since, failures.count) = (now, 0);
            }
            failures.count += 1;
            (failures.last, failures.looked) = (now, now);
            reached |= failures.count == self.per_minute;
        }
        reached
    }

    /// Rarely: only when thousands fail.
    fn forget_oldest(&mut self) {
        let mut ages: Vec<Timestamp> = self.failures.values().map(|one| one.last).collect();
        ages.sort_unstable();
        let cut = ages.get(REMEMBERED / 4).copied().unwrap_or_default();
        self.failures.retain(|_, one| one.last > cut);
        if self.failures.len() >= REMEMBERED {
            // All in the same instant.
            self.failures.clear();
        }
    }

    /// How many addresses and names are remembered.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.failures.len()
    }
}

fn parties(attempt: &Attempt<'_>) -> impl Iterator<Item = Who> {
    let address = attempt.address.map(|address| Who::Address(address.to_owned()));
    let name = (!attempt.at_home).then(|| Who::Name(attempt.name.to_owned()));
    address.into_iter().chain(name)
}
