//! One master and its workers, for stories of one crash point.

use std::path::Path;
use std::time::{Duration, Instant};

use botmaster::core::ids::{BuildId, RequestId};
use botmaster_proof::api::Api;
use botmaster_proof::clients::{Client, Diary, Wish};
use botmaster_proof::store::{self, Held};
use botmaster_proof::within;
use botmaster_proof::yard::{PATIENCE, Start, Yard, was_killed};
use botmaster_sim::history::{Build, Request};

/// The program with its crash points in it.
pub fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_botmaster_armed"))
}

/// Timers with which a dead link is noticed soon and no build is given up.
pub const PATIENT: &str = "
[timers]
heartbeat = \"1 s\"
lease = \"50 s\"
kill_time = \"1 s\"
grace = \"60 s\"
handshake = \"3 s\"
";

/// Timers with which a build is given up soon.
pub const HASTY: &str = "
[timers]
heartbeat = \"1 s\"
lease = \"3 s\"
kill_time = \"1 s\"
grace = \"5 s\"
handshake = \"3 s\"
";

/// A worker's part of a configuration.
pub fn worker(name: &str) -> String {
    format!("[[worker]]\nname = \"{name}\"\nmax_builds = 1\n")
}

/// A builder whose one step writes lines for a while.
pub fn builder(name: &str, workers: &str, lines: u32) -> String {
    format!(
        "[[builder]]\nname = \"{name}\"\nworkers = [{workers}]\n[[builder.step]]\nname = \"s0\"\n\
         shell = 'sh @DIR@/step.sh @DIR@/runs 0 {lines} 0.05 text'\n"
    )
}

/// A yard, and what its clients were told.
pub struct Scene {
    pub yard: Yard,
    pub diary: Diary,
}

impl Scene {
    /// With this configuration; nothing runs yet.
    pub fn new(config: &str) -> Self {
        let yard = Yard::new(program()).unwrap();
        yard.configure(config).unwrap();
        Self { yard, diary: Diary::default() }
    }

    /// A master that serves, with this point armed.
    #[track_caller]
    pub fn master(&mut self, armed: Option<&str>) {
        assert_eq!(self.yard.start_master(armed).unwrap(), Start::Serves);
    }

    /// A worker program with one slot.
    #[track_caller]
    pub fn worker(&mut self, name: &str) {
        self.yard.start_worker(name, 1, None).unwrap();
    }

    pub fn api(&self) -> Api {
        self.yard.api().unwrap()
    }

    pub fn client(&self) -> Client<'_> {
        Client { api: self.api(), diary: &self.diary, until: Instant::now() + PATIENCE }
    }

    #[track_caller]
    pub fn submit(&self, builder: &str, key: &str) -> RequestId {
        self.client().submit(builder, key, Wish::Built).unwrap()
    }

    /// Waits until the master has died at its point; what the store has then.
    #[track_caller]
    pub fn dead(&mut self, point: &str) -> Held {
        let ended = within(PATIENCE, || self.yard.master_ended());
        let status = ended.unwrap_or_else(|| panic!("the master never came to {point}"));
        assert!(was_killed(status), "{status}");
        assert!(self.yard.was_reached(point), "it did not die at {point}");
        self.yard.master = None;
        self.held()
    }

    pub fn held(&self) -> Held {
        store::read(&self.yard.path("data")).unwrap()
    }

    /// Waits until the request has ended, and until its worker is free again.
    #[track_caller]
    pub fn ended(&self, request: RequestId) -> Request {
        assert!(self.client().ended(request), "request {request} never ended");
        self.held().requests[&request].clone()
    }

    /// Builds that have the request, those that never started included.
    pub fn builds_of(&self, request: RequestId) -> Vec<Build> {
        let held = self.held();
        let has = |build: &&Build| build.requests.iter().any(|(of, _)| *of == request);
        held.builds.values().filter(has).cloned().collect()
    }

    /// Judges all of it; nothing may be wrong.
    #[track_caller]
    pub fn judged_well(mut self) {
        let verdict = botmaster_proof::verdict::judge(&mut self.yard, &self.diary).unwrap();
        assert_eq!(verdict.violations, Vec::<String>::new());
    }

    /// The only build that the store has.
    #[track_caller]
    pub fn only_build(&self) -> Build {
        let held = self.held();
        assert_eq!(held.builds.len(), 1, "{:?}", held.builds);
        held.builds.into_values().next().unwrap()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.yard.last_words(60));
        }
    }
}

/// Whether it took less than a grace after which anything would be done.
#[track_caller]
pub fn at_once(begun: Instant) {
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(45), "it waited for the grace: {took:?}");
}

/// The only build of a store that was read after a crash.
#[track_caller]
pub fn only(held: &Held) -> &Build {
    assert_eq!(held.builds.len(), 1, "{:?}", held.builds);
    held.builds.values().next().unwrap()
}

/// A build by its id, from a store that was read.
pub fn has(held: &Held, build: BuildId) -> bool {
    held.builds.contains_key(&build)
}
