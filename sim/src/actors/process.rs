//! A command as a worker plays it: it takes its time, writes lines, and ends,
//! by itself or because it is told to.

use std::collections::BTreeMap;
use std::time::Duration;

use botmaster::core::ids::*;
use botmaster::protocol::json_v1::Outcome;
use botmaster::worker::agent::{Ended, Event};
use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::plan::Dice;
use super::shared::{Door, now};
use crate::history::Run;

/// The near end of a command.
pub struct Handle {
    kill: mpsc::UnboundedSender<(Duration, String)>,
    allowed: watch::Sender<u64>,
}

impl Handle {
    /// Ends it, within the grace.
    pub fn kill(&self, grace: Duration, reason: String) {
        let _ = self.kill.send((grace, reason));
    }

    /// Its output is read up to here.
    pub fn allow(&self, up_to: u64) {
        self.allowed.send_replace(up_to);
    }
}

/// A command to be run.
pub struct Job {
    pub run: Run,
    pub allowed: u64,
    pub longest: Duration,
    pub dice: Dice,
}

/// Starts a command.
pub fn start(door: Door, job: Job, events: mpsc::Sender<Event>) -> Handle {
    let (kill, kills) = mpsc::unbounded_channel();
    let (allowed, may_read) = watch::channel(job.allowed);
    tokio::task::spawn_local(play(door, job, events, kills, may_read));
    Handle { kill, allowed }
}

async fn play(
    door: Door,
    job: Job,
    events: mpsc::Sender<Event>,
    mut kills: mpsc::UnboundedReceiver<(Duration, String)>,
    mut may_read: watch::Receiver<u64>,
) {
    let Job { run, longest, mut dice, .. } = job;
    let (build, command) = (run.build, run.command.clone());
    let begun = Instant::now();
    let place = door.borrow_mut().begins(Run { begin: now(), end: None, ..run });
    door.borrow_mut().count("commands");
    let mut killed = None;
    let _ = events.send(Event::Started { build, command: command.clone() }).await;
    let pieces = dice.between(0, 7);
    let longest = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX).max(2);
    for piece in 0..=pieces {
        let pause = dice.millis(1, longest / (pieces + 1) + 2);
        let text = line(&command, piece, &mut dice);
        let last = piece == pieces;
        let length = door.borrow().written.get(&command).map_or(0, String::len) as u64;
        let next = async {
            tokio::time::sleep(pause).await;
            // A pipe that nobody reads is full soon.
            let end = length + text.len() as u64;
            let _ = may_read.wait_for(|allowed| last || *allowed >= end).await;
        };
        tokio::select! {
            biased;
            Some(kill) = kills.recv() => {
                killed = Some(kill);
                break;
            }
            () = next => {}
        }
        if !last {
            let offset = {
                let mut door = door.borrow_mut();
                let written = door.written.entry(command.clone()).or_default();
                let offset = written.len() as u64;
                written.push_str(&text);
                offset
            };
            let at = u64::try_from(begun.elapsed().as_millis()).unwrap_or_default();
            let bytes = Bytes::from(text);
            let output =
                Event::Output { build, command: command.clone(), ch: 'o', offset, bytes, at };
            let _ = events.send(output).await;
        }
    }
    let outcome = match killed {
        None if dice.percent(85) => Outcome::Exit(0),
        None => Outcome::Exit(1),
        Some((grace, reason)) => {
            let grace = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
            tokio::time::sleep(dice.millis(0, grace.max(1))).await;
            Outcome::Killed(reason)
        }
    };
    door.borrow_mut().ends(place, matches!(outcome, Outcome::Killed(_)));
    let wall_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or_default();
    let ended =
        Ended { outcome, note: String::new(), properties: BTreeMap::new(), wall_ms, log: None };
    let _ = events.send(Event::Ended { build, command, ended }).await;
}

/// A line of output, now and then a long one.
fn line(command: &CommandId, piece: u64, dice: &mut Dice) -> String {
    let filler = if dice.percent(10) { dice.between(1000, 9000) } else { dice.between(0, 60) };
    let filler = ".".repeat(usize::try_from(filler).unwrap_or_default());
    format!("{command} piece {piece} {filler}\n")
}
