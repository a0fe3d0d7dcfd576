//! Reloads take turns, and of several that wait only the last is carried out
//! (fault row FC05).

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard, watch};

use crate::messages::{Refusal, ReloadReport};

/// After so long a reload says that it is still under way, and again and again.
pub const SAY_EVERY: Duration = Duration::from_secs(30);

type Outcome = Result<ReloadReport, Refusal>;

struct Shared {
    turn: Arc<Mutex<()>>,
    latest: AtomicU64,
    /// The latest that was carried out, and what came of it.
    ended: watch::Sender<(u64, Option<Outcome>)>,
}

/// Whose turn it is. Clones share it.
#[derive(Clone)]
pub struct Turns(Arc<Shared>);

/// What became of waiting.
pub enum Turn {
    /// Nobody else is at it until this is dropped.
    Mine(OwnedMutexGuard<()>),
    /// A later one read the same file and was carried out for this one, too.
    Done(Outcome),
}

impl Default for Turns {
    fn default() -> Self {
        let ended = watch::Sender::new((0, None));
        Self(Arc::new(Shared { turn: Arc::default(), latest: AtomicU64::new(0), ended }))
    }
}

impl Turns {
    /// A number in the order of arrival.
    pub fn draw(&self) -> u64 {
        self.0.latest.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Waits until nobody else is at it.
    pub async fn alone(&self) -> OwnedMutexGuard<()> {
        self.0.turn.clone().lock_owned().await
    }

    /// Waits for the turn of this number, or for the end of a later one that
    /// came while this one waited.
    pub async fn take(&self, number: u64) -> Turn {
        let turn = self.alone().await;
        if self.0.latest.load(Ordering::Relaxed) <= number {
            return Turn::Mine(turn);
        }
        // Before the turn is given on, or the later one's end could be missed.
        let mut ended = self.0.ended.subscribe();
        drop(turn);
        let later = ended.wait_for(|(done, _)| *done > number).await;
        let outcome = later.ok().and_then(|later| later.1.clone());
        Turn::Done(outcome.unwrap_or(Err(Refusal::Gone)))
    }

    /// This number was carried out.
    pub fn end(&self, number: u64, outcome: &Outcome) {
        self.0.ended.send_replace((number, Some(outcome.clone())));
    }
}

/// Waits for `work`, and says each time that another `every` has passed.
pub async fn saying<T>(
    every: Duration,
    work: impl Future<Output = T>,
    mut say: impl FnMut(Duration),
) -> T {
    tokio::pin!(work);
    let mut passed = Duration::ZERO;
    loop {
        match tokio::time::timeout(every, &mut work).await {
            Ok(done) => return done,
            Err(_) => {
                passed += every;
                say(passed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(took_ms: u64) -> Outcome {
        Ok(ReloadReport { took_ms, ..ReloadReport::default() })
    }

    #[tokio::test]
    async fn fc05_those_that_wait_collapse_to_the_last_and_hear_what_came_of_it() {
        let turns = Turns::default();
        let first = turns.draw();
        let Turn::Mine(running) = turns.take(first).await else { panic!("it is the first") };
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let (turns, number) = (turns.clone(), turns.draw());
                tokio::spawn(async move {
                    match turns.take(number).await {
                        Turn::Mine(_turn) => {
                            turns.end(number, &report(number));
                            (true, report(number))
                        }
                        Turn::Done(outcome) => (false, outcome),
                    }
                })
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(waiting.iter().all(|one| !one.is_finished()), "one at a time");
        turns.end(first, &report(first));
        drop(running);
        let mut heard = Vec::new();
        for one in waiting {
            heard.push(one.await.unwrap());
        }
        assert_eq!(heard, [(false, report(4)), (false, report(4)), (true, report(4))]);
    }

    #[tokio::test(start_paused = true)]
    async fn fc05_what_takes_longer_than_thirty_seconds_says_so() {
        let mut said = Vec::new();
        let work = tokio::time::sleep(Duration::from_secs(70));
        saying(SAY_EVERY, work, |passed| said.push(passed.as_secs())).await;
        assert_eq!(said, [30, 60]);
        let quick = saying(SAY_EVERY, async { 7 }, |_| panic!("nothing to say")).await;
        assert_eq!(quick, 7);
    }
}
