//! A provider that does as a story says, and the workers that come of it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use botmaster::core::ids::*;
use botmaster::core::instance::{Failure, Found};
use botmaster::core::values::*;
use botmaster::provisioning::{Call, CreateOrder, Created, Limits, Provider, Provisioner};
use botmaster::settings::WorkerSettings;

use crate::house::*;
use crate::robot::{Robot, Say};

/// What the provider does with a wish.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Does {
    /// As it shall.
    Make,
    /// It makes one that dies at once.
    MakeDead,
    /// Not now.
    SayNotNow,
    /// Never.
    SayNever,
    /// Nothing, for ever.
    Hang,
    /// It panics.
    Panic,
}

#[derive(Default)]
struct Script {
    does: VecDeque<Does>,
    wishes: Vec<InstanceTag>,
    there: BTreeMap<InstanceTag, bool>,
    destroyed: Vec<InstanceTag>,
    /// Asked, with how often it says no before.
    destroys: u32,
    resists: u32,
    held: bool,
    silent: bool,
    held_back: Option<Say>,
    /// Most instances at the same time.
    most: usize,
}

/// A scripted provider. Clones are the same one.
#[derive(Clone, Default)]
pub struct Cloud(Arc<Mutex<Script>>);

impl Cloud {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.0.lock().unwrap()
    }

    /// What it does with the next wishes; then it makes instances.
    pub fn will(&self, does: impl IntoIterator<Item = Does>) -> &Self {
        self.script().does.extend(does);
        self
    }

    /// It takes its time with wishes, until this is said again.
    pub fn hold(&self, held: bool) {
        self.script().held = held;
    }

    /// Instances do not attach, or do so from now on.
    pub fn silent(&self, silent: bool) {
        self.script().silent = silent;
    }

    /// Workers of instances that come from now on keep this back, or nothing.
    pub fn workers_hold(&self, say: Option<Say>) {
        self.script().held_back = say;
    }

    /// It says no to so many of the next destroys.
    pub fn resist(&self, times: u32) {
        self.script().resists = times;
    }

    /// Tags of all wishes so far.
    pub fn wishes(&self) -> Vec<InstanceTag> {
        self.script().wishes.clone()
    }

    /// Instances that are there.
    pub fn there(&self) -> Vec<InstanceTag> {
        self.script().there.keys().cloned().collect()
    }

    /// Instances that it destroyed, in order.
    pub fn destroyed(&self) -> Vec<InstanceTag> {
        self.script().destroyed.clone()
    }

    /// Most instances that it had at the same time.
    pub fn most(&self) -> usize {
        self.script().most
    }

    /// How often it was asked to destroy.
    pub fn destroys(&self) -> u32 {
        self.script().destroys
    }

    /// An instance that nobody wrote down.
    pub fn plant(&self, tag: &InstanceTag) {
        self.script().there.insert(tag.clone(), true);
    }

    /// An instance dies.
    pub fn dies(&self, tag: &InstanceTag) {
        self.script().there.insert(tag.clone(), false);
    }
}

async fn wait() {
    tokio::time::sleep(Duration::from_millis(2)).await;
}

impl Provider for Cloud {
    fn create(&self, order: CreateOrder) -> Call<Result<Created, Failure>> {
        let cloud = self.clone();
        let does = {
            let mut script = cloud.script();
            script.wishes.push(order.tag.clone());
            script.does.pop_front().unwrap_or(Does::Make)
        };
        Box::pin(async move {
            while cloud.script().held {
                wait().await;
            }
            match does {
                Does::Hang => std::future::pending().await,
                Does::Panic => panic!("made to panic: the provider"),
                Does::SayNotNow => Err(Failure::Transient("no room just now".into())),
                Does::SayNever => Err(Failure::Permanent("no such image".into())),
                Does::Make | Does::MakeDead => {
                    let mut script = cloud.script();
                    script.there.insert(order.tag.clone(), does == Does::Make);
                    script.most = script.most.max(script.there.len());
                    drop(script);
                    Ok(Created { id: order.tag.to_string(), details: "made".into() })
                }
            }
        })
    }

    fn find(&self) -> Call<Result<Vec<Found>, String>> {
        let there = self.script().there.clone();
        let found = there.into_iter().map(|(tag, alive)| Found { id: tag.to_string(), tag, alive });
        let found = found.collect();
        Box::pin(async move { Ok(found) })
    }

    fn destroy(&self, tag: InstanceTag, _: Option<String>) -> Call<Result<(), String>> {
        let mut script = self.script();
        script.destroys += 1;
        let no = script.resists > 0;
        script.resists = script.resists.saturating_sub(1);
        if !no && script.there.remove(&tag).is_some() {
            script.destroyed.push(tag);
        }
        Box::pin(async move { if no { Err("it resists".into()) } else { Ok(()) } })
    }

    fn died(&self, tag: InstanceTag, _: String) -> Call<String> {
        let cloud = self.clone();
        Box::pin(async move {
            while cloud.script().there.get(&tag) == Some(&true) {
                wait().await;
            }
            "it burnt".into()
        })
    }
}

/// The instances' workers, which come and go with them.
#[derive(Clone)]
pub struct Fleet {
    cloud: Cloud,
    robots: Rc<RefCell<BTreeMap<InstanceTag, Robot>>>,
}

impl Fleet {
    /// Lets a worker come for each instance that the cloud has.
    pub fn serve(cloud: &Cloud, house: &House, name: &str) -> Self {
        let fleet = Self { cloud: cloud.clone(), robots: Rc::default() };
        let (own, token, name) = (fleet.clone(), house.token(name).to_owned(), name.to_owned());
        let greeter = house.greeter.clone();
        actix_rt::spawn(async move {
            loop {
                let (there, silent): (BTreeSet<_>, _) = {
                    let script = own.cloud.script();
                    let alive = script.there.iter().filter(|(_, alive)| **alive);
                    (alive.map(|(tag, _)| tag.clone()).collect(), script.silent)
                };
                for tag in there.iter().filter(|_| !silent) {
                    let mut robots = own.robots.borrow_mut();
                    robots.entry(tag.clone()).or_insert_with(|| {
                        let robot = Robot::instance(&name, &token, tag, greeter.clone());
                        own.cloud.script().held_back.map(|say| robot.hold(say));
                        robot
                    });
                }
                for (tag, robot) in own.robots.borrow().iter() {
                    if !there.contains(tag) {
                        robot.go();
                    }
                }
                wait().await;
            }
        });
        fleet
    }

    /// The worker of an instance.
    pub fn robot(&self, tag: &InstanceTag) -> Option<Robot> {
        self.robots.borrow().get(tag).cloned()
    }

    /// Requests that ran on any of them.
    pub fn ran(&self) -> Vec<RequestId> {
        self.robots.borrow().values().flat_map(Robot::ran).collect()
    }
}

/// A latent worker's settings.
pub fn latent(name: &str, max_builds: u32, patience: Duration, idle: Duration) -> WorkerSettings {
    let mut settings = worker(name, max_builds);
    settings.config.latent = Some(LatentConfig {
        provider: botmaster::core::values::Provider::Process(ProcessOptions {
            dir: "work".into(),
            token_file: "token".into(),
            env: BTreeMap::new(),
        }),
        substantiate_timeout: patience,
        idle_timeout: idle,
    });
    settings
}

/// A master with one latent worker `l1` of this cloud, and an ordinary one `w1`
/// that is not there yet.
pub async fn open(
    cloud: &Cloud,
    patience: Duration,
    idle: Duration,
    builders: Vec<BuilderConfig>,
) -> (House, Fleet) {
    let limits = Limits { find: LIMIT, destroy: Duration::from_secs(1) };
    let provisioner = Provisioner::new(Arc::new(cloud.clone()), limits);
    let workers = vec![latent("l1", 2, patience, idle), worker("w1", 1)];
    let house = House::open_asking(provisioner, timers(), workers, builders).await;
    let fleet = Fleet::serve(cloud, &house, "l1");
    (house, fleet)
}
