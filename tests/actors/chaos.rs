//! Everything at once, by seeds: submissions, cancels, reloads, lost
//! connections, answers that come late, panics. In the end each request ran
//! exactly once or was cancelled, and nothing is taken by anybody.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use botmaster::core::ids::{BuilderName, RequestId};
use botmaster::core::rng::Rng;
use botmaster::core::values::{BuilderConfig, ChooseWorker, Merge};
use botmaster::faults;
use botmaster::messages::{CancelRequest, OrderWorker, WorkerOrder};

use crate::house::*;
use crate::robot::{Robot, Say};

const WORKERS: [&str; 3] = ["w1", "w2", "w3"];
const BUILDERS: [&str; 3] = ["a", "b", "c"];
const STEPS: usize = 2;
const ANSWERS: [Say; 4] = [Say::Ready, Say::Pong, Say::Accept, Say::Finish];
const POINTS: [&str; 14] = [
    "builder.attach",
    "builder.build_finished",
    "builder.cancel",
    "builder.claimed",
    "builder.event",
    "builder.hand_over",
    "builder.maybe_start",
    "builder.slot_granted",
    "builder.start_accepted",
    "builder.submit",
    "builder.succeed",
    "slave_builder.news",
    "slave_builder.start",
    "worker.ask_slot",
];

struct Chaos {
    rng: Rng,
    house: House,
    robots: [Robot; 3],
    ids: Vec<(BuilderName, RequestId)>,
    armed: usize,
    removed: Option<Arc<BuilderConfig>>,
    round: usize,
}

impl Chaos {
    async fn begin(seed: u64) -> Self {
        let lists: [&[&str]; 3] = [&["w1", "w2"], &["w2", "w3"], &["w1", "w3"]];
        let builders = BUILDERS.iter().zip(lists).map(|(name, workers)| {
            let mut builder = builder_with_steps(name, workers, STEPS);
            builder.grace = Duration::from_secs(3600);
            builder.choose = ChooseWorker::Random;
            // One each that never merges, always does, and has a limit besides.
            builder.merge = if *name == BUILDERS[0] { Merge::None } else { Merge::SameSource };
            builder.max_builds = (*name == BUILDERS[2]).then_some(1);
            builder
        });
        let house = House::open_with(
            // A late answer is no failed attach here.
            botmaster::settings::Timers { attach_timeout: LIMIT, ..timers() },
            &[("w1", 1), ("w2", 2), ("w3", 1)],
            builders.collect(),
        )
        .await;
        let robots = house.robots(WORKERS).await;
        Self {
            rng: Rng::seeded(seed),
            house,
            robots,
            ids: Vec::new(),
            armed: 0,
            removed: None,
            round: 0,
        }
    }

    fn one_of<T: Clone>(&mut self, things: &[T]) -> T {
        things[self.rng.index(things.len())].clone()
    }

    async fn act(&mut self) {
        let robot = self.rng.index(3);
        match self.rng.index(100) {
            0..50 => {
                let builder = {
                    let here = self.here();
                    self.one_of(&here)
                };
                // A Worker or Builder that panics just then refuses nobody: it
                // is stored before anybody hears of it.
                let id = self.house.try_submit(builder).await.expect("the submission is taken");
                self.ids.push((builder.into(), id));
            }
            50..58 => self.reload().await,
            58..66 => self.robots[robot].hang_up(),
            66..72 => {
                let say = self.one_of(&ANSWERS);
                self.robots[robot].hold(say);
            }
            72..80 => {
                let say = self.one_of(&ANSWERS);
                self.robots[robot].release(say);
            }
            80..86 => self.cancel().await,
            86..89 => {
                let order = self.one_of(&[WorkerOrder::Pause, WorkerOrder::Unpause]);
                self.order(robot, order).await;
            }
            89..91 => {
                let (handle, builder) = (self.house.handle.clone(), self.one_of(&BUILDERS));
                actix_rt::spawn(async move { handle.ping(builder.into()).await });
            }
            // Fewer than the five within a minute that one actor may have.
            91..93 => self.remove_or_return().await,
            93..96 if self.armed < 4 => {
                self.armed += 1;
                faults::arm(self.one_of(&POINTS), 1);
            }
            _ => tokio::time::sleep(Duration::from_millis(3)).await,
        }
    }

    async fn reload(&mut self) {
        let (name, round) = (
            {
                let here = self.here();
                self.one_of(&here)
            },
            self.round,
        );
        self.round += 1;
        let mut workers = WORKERS.to_vec();
        workers.remove(self.rng.index(3));
        let lists = self.rng.index(2) == 0;
        self.house
            .reload(|settings| {
                let builder = edit(settings, name);
                builder.env.insert("ROUND".into(), round.to_string());
                if lists {
                    builder.workers = workers.into_iter().map(Into::into).collect();
                }
            })
            .await;
    }

    /// Builders that are configured now.
    fn here(&self) -> Vec<&'static str> {
        let is_here = |name: &&str| {
            self.house.settings.builders.iter().any(|builder| builder.name.as_str() == *name)
        };
        BUILDERS.into_iter().filter(is_here).collect()
    }

    async fn remove_or_return(&mut self) {
        let removed = self.removed.take();
        self.removed = match removed {
            Some(builder) => {
                self.house.reload(|settings| settings.builders.push(builder)).await;
                None
            }
            None => {
                let name = self.one_of(&BUILDERS);
                let mut removed = None;
                self.house
                    .reload(|settings| {
                        let is = |b: &Arc<BuilderConfig>| b.name.as_str() == name;
                        let place = settings.builders.iter().position(is);
                        removed = place.map(|place| settings.builders.remove(place));
                    })
                    .await;
                removed
            }
        };
    }

    async fn cancel(&mut self) {
        if self.ids.is_empty() {
            return;
        }
        let ids = self.ids.clone();
        let (builder, request) = self.one_of(&ids);
        let handle = self.house.handle.clone();
        // It may wait for a builder that is just loading.
        actix_rt::spawn(async move {
            handle.cancel(CancelRequest { request, builder, reason: "chaos".into() }).await
        });
    }

    async fn order(&self, robot: usize, order: WorkerOrder) {
        let (worker, reason) = (WORKERS[robot].into(), String::new());
        let ordered = self.house.handle.order(OrderWorker { worker, order, reason });
        assert_eq!(ordered.await, Ok(()));
    }

    /// No more trouble; pauses after failed starts are over when they would be.
    async fn settle(&mut self) {
        faults::disarm_all();
        if self.removed.is_some() {
            self.remove_or_return().await;
        }
        for robot in 0..3 {
            ANSWERS.into_iter().for_each(|say| self.robots[robot].release(say));
            self.order(robot, WorkerOrder::Unpause).await;
        }
        let open = "SELECT count(*) FROM requests WHERE state < 2";
        for _ in 0..60 {
            let house = &self.house;
            let done = || house.number(open) == 0;
            if house.comes_true(Duration::from_millis(400), done).await {
                break;
            }
            tokio::time::pause();
            tokio::time::advance(Duration::from_secs(10)).await;
            tokio::time::resume();
        }
        assert_eq!(self.house.number(open), 0, "some never ended\n{}", self.house.describe());
        self.house.nothing_is_taken().await;
    }

    fn check(&self) {
        let mut ran: BTreeMap<RequestId, usize> = BTreeMap::new();
        for id in self.robots.iter().flat_map(Robot::ran) {
            *ran.entry(id).or_default() += 1;
        }
        for (_, id) in &self.ids {
            let row = format!("SELECT state || ' ' || results FROM requests WHERE id = {id}");
            let row = self.house.texts(&row);
            let times = ran.get(id).copied().unwrap_or_default();
            match row[0].as_str() {
                "2 0" => assert_eq!(times, STEPS, "request {id} ran its steps once each"),
                "2 6" => assert!(times <= STEPS, "request {id} was stopped and ran on"),
                "3 6" => assert_eq!(times, 0, "request {id} was cancelled and ran"),
                other => panic!("request {id} ended as {other}\n{}", self.house.describe()),
            }
        }
        let numbers = "SELECT count(*) - count(DISTINCT builder_id || '/' || number) FROM builds";
        assert_eq!(self.house.number(numbers), 0, "numbers that repeat");
        let broken = self.house.board.all().builders.into_values().filter_map(|b| b.broken.clone());
        assert_eq!(broken.collect::<Vec<_>>(), Vec::<String>::new());
    }
}

fn chaos(seed: u64) {
    story_with_faults(move || async move {
        let mut chaos = Chaos::begin(seed).await;
        for _ in 0..300 {
            chaos.act().await;
        }
        chaos.settle().await;
        chaos.check();
        chaos.house.close();
    });
}

#[test]
fn i01_i02_i06_i08_whatever_happens_each_request_runs_once_or_is_cancelled() {
    let seeds = std::env::var("CHAOS_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(6);
    for seed in 1..=seeds {
        println!("seed {seed}");
        chaos(seed);
    }
}
