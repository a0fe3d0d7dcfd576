//! The provider of latent workers' instances, as the world plays it: it lives
//! on when the master's process does not, and what it was asked for goes on.
//!
//! An instance is a host whose name is its tag. Hosts are made and ended by the
//! driver, which asks the cloud at each step what is due.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use botmaster::core::ids::*;
use botmaster::core::instance::{Failure, Found};
use botmaster::provisioning::{Call, CreateOrder, Created, Provider};

use super::plan::Dice;
use super::shared::at;
use crate::history::{Deed, InstanceNote};

/// How often a call looks whether it is done.
const LOOK: Duration = Duration::from_millis(20);
/// What a panic of the provider says: it is no finding.
pub const MADE_TO_PANIC: &str = "made to panic: the provider";

/// What becomes of an instance once it is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// It runs its worker until it is ended.
    Lives,
    /// It runs, and no worker comes of it.
    Mute,
    /// It ends by itself this long after it was made.
    Dies(Duration),
}

/// An instance that is being made.
struct Making {
    due: Duration,
    worker: WorkerName,
    fate: Fate,
}

/// An instance that was made.
struct Made {
    worker: WorkerName,
    alive: bool,
    dies: Option<Duration>,
    /// When it is ended because the master wants that.
    ends: Option<Duration>,
}

/// What is due now.
pub enum Due {
    /// A host begins; whether a worker comes of it.
    Begin(InstanceTag, WorkerName, bool),
    /// A host ends; whether the master asked for that.
    End(InstanceTag, bool),
}

/// What the cloud is and does.
struct State {
    dice: Dice,
    now: Duration,
    /// It fails now and then.
    trouble: bool,
    making: BTreeMap<InstanceTag, Making>,
    made: BTreeMap<InstanceTag, Made>,
    notes: Vec<InstanceNote>,
    counts: BTreeMap<&'static str, u64>,
}

impl State {
    fn note(&mut self, tag: &InstanceTag, deed: Deed) {
        self.notes.push(InstanceNote { at: at(self.now), tag: tag.clone(), deed });
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn dies(&mut self, tag: &InstanceTag) {
        if let Some(made) = self.made.get_mut(tag).filter(|made| made.alive) {
            made.alive = false;
            self.note(tag, Deed::Dead);
        }
    }
}

/// The cloud. Clones are the same one.
#[derive(Clone)]
pub struct Cloud(Arc<Mutex<State>>);

impl Cloud {
    /// A cloud without instances.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            dice: Dice::seeded(seed),
            now: Duration::ZERO,
            trouble: true,
            making: BTreeMap::new(),
            made: BTreeMap::new(),
            notes: Vec::new(),
            counts: BTreeMap::new(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Writes down something that happened to an instance.
    pub fn note(&self, tag: &InstanceTag, deed: Deed) {
        let mut state = self.state();
        state.now = turmoil::sim_elapsed().unwrap_or(state.now);
        state.note(tag, deed);
    }

    /// From now on it does as it should.
    pub fn calm(&self) {
        self.state().trouble = false;
    }

    /// Moves to `now`; answers what is due there.
    pub fn turn(&self, now: Duration) -> Vec<Due> {
        let mut state = self.state();
        state.now = now;
        let mut due = Vec::new();
        let made: Vec<_> = state.making.extract_if(.., |_, making| making.due <= now).collect();
        for (tag, Making { worker, fate, .. }) in made {
            state.note(&tag, Deed::Made);
            due.push(Due::Begin(tag.clone(), worker.clone(), fate != Fate::Mute));
            let dies = if let Fate::Dies(after) = fate { Some(now + after) } else { None };
            state.made.insert(tag, Made { worker, alive: true, dies, ends: None });
        }
        let is_due = |at: Option<Duration>| at.is_some_and(|at| at <= now);
        let all = state.made.iter().filter(|(_, made)| is_due(made.ends) || is_due(made.dies));
        let over: Vec<_> =
            all.map(|(tag, made)| (tag.clone(), made.alive, is_due(made.ends))).collect();
        for (tag, alive, ended) in over {
            if alive {
                due.push(Due::End(tag.clone(), ended));
            }
            if ended {
                state.made.remove(&tag);
                state.note(&tag, Deed::Gone);
            } else {
                state.dies(&tag);
            }
        }
        due
    }

    /// An instance's machine ended without being asked to.
    pub fn dies(&self, tag: &InstanceTag, now: Duration) {
        let mut state = self.state();
        state.now = now;
        state.dies(tag);
    }

    /// Instances that run, with their workers.
    pub fn alive(&self) -> Vec<(InstanceTag, WorkerName)> {
        let state = self.state();
        let alive = state.made.iter().filter(|(_, made)| made.alive);
        alive.map(|(tag, made)| (tag.clone(), made.worker.clone())).collect()
    }

    /// Whether an instance is being made.
    pub fn is_making(&self) -> bool {
        !self.state().making.is_empty()
    }

    /// Whether there is nothing of any instance.
    pub fn is_empty(&self) -> bool {
        let state = self.state();
        state.made.is_empty() && state.making.is_empty()
    }

    /// What was written down, and how often what happened.
    pub fn take(&self) -> (Vec<InstanceNote>, BTreeMap<&'static str, u64>) {
        let mut state = self.state();
        (std::mem::take(&mut state.notes), std::mem::take(&mut state.counts))
    }
}

/// What is done with a wish.
enum Wish {
    Make(Duration, Fate),
    NotNow,
    Never,
    /// It is never answered; made all the same, or not.
    Hang(Option<Duration>),
    Panic,
}

impl State {
    fn wish(&mut self) -> Wish {
        let quick = self.dice.millis(20, 1500);
        if !self.trouble {
            return Wish::Make(quick, Fate::Lives);
        }
        let (what, wish) = match self.dice.between(0, 100) {
            0..40 => ("instance_made", Wish::Make(quick, Fate::Lives)),
            40..52 => ("instance_slow", Wish::Make(self.dice.millis(2_000, 12_000), Fate::Lives)),
            52..64 => ("instance_not_now", Wish::NotNow),
            64..68 => ("instance_never", Wish::Never),
            68..72 => ("create_hangs", Wish::Hang(None)),
            72..78 => ("create_hangs_and_makes", Wish::Hang(Some(quick))),
            78..81 => ("create_panics", Wish::Panic),
            81..89 => {
                let after = self.dice.millis(0, 1500);
                ("instance_dies_at_once", Wish::Make(quick, Fate::Dies(after)))
            }
            89..95 => {
                let after = self.dice.millis(1500, 15_000);
                ("instance_dies_later", Wish::Make(quick, Fate::Dies(after)))
            }
            _ => ("instance_never_attaches", Wish::Make(quick, Fate::Mute)),
        };
        self.count(what);
        wish
    }
}

fn made(tag: &InstanceTag) -> Result<Created, Failure> {
    Ok(Created { id: tag.to_string(), details: format!("host {tag}") })
}

impl Provider for Cloud {
    fn create(&self, order: CreateOrder) -> Call<Result<Created, Failure>> {
        self.note(&order.tag, Deed::Asked);
        let (cloud, tag) = (self.clone(), order.tag);
        let (wish, pause) = {
            let mut state = self.state();
            let pause = state.dice.millis(1, 1000);
            if state.made.contains_key(&tag) {
                return Box::pin(async move { made(&tag) });
            }
            let wish = state.wish();
            let due = match &wish {
                Wish::Make(after, fate) => Some((*after, *fate)),
                Wish::Hang(after) => after.map(|after| (after, Fate::Lives)),
                Wish::NotNow | Wish::Never | Wish::Panic => None,
            };
            if let Some((after, fate)) = due {
                let due = state.now + after;
                state.making.insert(tag.clone(), Making { due, worker: order.worker, fate });
            }
            (wish, pause)
        };
        Box::pin(async move {
            match wish {
                Wish::Make(..) => {
                    while cloud.state().making.contains_key(&tag) {
                        tokio::time::sleep(LOOK).await;
                    }
                    // It is there, and nobody knows it yet.
                    tokio::time::sleep(pause).await;
                    made(&tag)
                }
                Wish::NotNow => {
                    tokio::time::sleep(pause).await;
                    Err(Failure::Transient("no room just now".into()))
                }
                Wish::Never => {
                    tokio::time::sleep(pause).await;
                    Err(Failure::Permanent("no such image".into()))
                }
                Wish::Hang(_) => std::future::pending().await,
                Wish::Panic => panic!("{MADE_TO_PANIC}"),
            }
        })
    }

    fn find(&self) -> Call<Result<Vec<Found>, String>> {
        let mut state = self.state();
        let pause = state.dice.millis(1, 800);
        if state.trouble && state.dice.percent(20) {
            state.count("find_fails");
            return Box::pin(async { Err("ask again later".into()) });
        }
        drop(state);
        let cloud = self.clone();
        Box::pin(async move {
            let found = {
                let state = cloud.state();
                let made = state.made.iter();
                made.map(|(tag, made)| Found {
                    tag: tag.clone(),
                    id: tag.to_string(),
                    alive: made.alive,
                })
                .collect()
            };
            tokio::time::sleep(pause).await;
            Ok(found)
        })
    }

    fn destroy(&self, tag: InstanceTag, _: Option<String>) -> Call<Result<(), String>> {
        let mut state = self.state();
        state.now = turmoil::sim_elapsed().unwrap_or(state.now);
        let end = state.now + state.dice.millis(5, 900);
        let roll = if state.trouble { state.dice.between(0, 100) } else { 0 };
        if roll >= 80 {
            state.note(&tag, Deed::Resisted);
        }
        match roll {
            80..90 => {
                state.count("destroy_fails");
                return Box::pin(async { Err("it resists".into()) });
            }
            90..95 => {
                state.count("destroy_hangs");
                return Box::pin(std::future::pending());
            }
            _ => {}
        }
        if state.making.remove(&tag).is_some() {
            state.count("destroyed_while_made");
            state.note(&tag, Deed::Gone);
        }
        if let Some(made) = state.made.get_mut(&tag) {
            made.ends = Some(made.ends.map_or(end, |known| known.min(end)));
        }
        if roll >= 95 {
            state.count("destroy_works_and_fails");
            return Box::pin(async { Err("the answer was lost".into()) });
        }
        drop(state);
        let cloud = self.clone();
        Box::pin(async move {
            while cloud.state().made.contains_key(&tag) {
                tokio::time::sleep(LOOK).await;
            }
            Ok(())
        })
    }

    fn died(&self, tag: InstanceTag, _: String) -> Call<String> {
        let cloud = self.clone();
        let silent = {
            let mut state = self.state();
            state.trouble && state.dice.percent(30)
        };
        Box::pin(async move {
            while silent || cloud.state().made.get(&tag).is_some_and(|made| made.alive) {
                tokio::time::sleep(LOOK * 5).await;
            }
            "it burnt".into()
        })
    }
}
