//! Chaos: a real master and real workers under load, of which one is killed
//! with -9 every second; then calm, and the judgement.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use botmaster::core::ids::BuildId;
use botmaster::core::rng::Rng;
use botmaster::core::values::BuildResult;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::api::Api;
use crate::clients::{Client, Diary, Wish};
use crate::crash::is_quiet;
use crate::listener::listen;
use crate::runs::{self, StepRun};
use crate::store::Held;
use crate::verdict::{Verdict, judge};
use crate::yard::{Start, Yard, was_killed};
use crate::{Fault, store};

/// Between two kills.
const EVERY: Duration = Duration::from_secs(1);
/// How long what is left may take once nobody is killed any more.
const CALM: Duration = Duration::from_secs(90);
/// Builds that a worker may have.
const SLOTS: u32 = 2;
/// Clients that ask for builds.
const CLIENTS: usize = 4;
/// One kill in so many is the master's.
const MASTER: usize = 5;

const TIMERS: &str = "
[timers]
heartbeat = \"1 s\"
lease = \"10 s\"
kill_time = \"1 s\"
grace = \"13 s\"
ping_timeout = \"3 s\"
handshake = \"3 s\"
";

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long somebody is killed every second.
    pub seconds: u64,
    /// Draws who is.
    pub seed: u64,
    /// Worker programs.
    pub workers: usize,
    /// Leaves the folder for a look when something is wrong.
    pub keep: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { seconds: 60, seed: 1, workers: 10, keep: false }
    }
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The judgement.
    pub verdict: Verdict,
    /// Processes killed.
    pub kills: usize,
    /// Of these, masters.
    pub kills_master: usize,
    /// Of these, worker programs.
    pub kills_worker: usize,
    /// Of these, helpers of worker programs.
    pub kills_keeper: usize,
    /// Builds that succeeded although the master was killed while they ran.
    pub adopted: usize,
    /// Builds that succeeded although their worker program was killed while
    /// they ran.
    pub carried: usize,
    /// How long all of it took.
    pub took: Duration,
}

fn config(workers: usize) -> String {
    let names: Vec<String> = (0..workers).map(|number| format!("\"c{number}\"")).collect();
    let mut text = TIMERS.to_owned();
    for name in &names {
        text += &format!("[[worker]]\nname = {name}\nmax_builds = {SLOTS}\n");
    }
    for (name, more) in [("one", ""), ("two", ""), ("merged", "merge = \"same source\"\n")] {
        let all = names.join(", ");
        text += &format!(
            "[[builder]]\nname = \"{name}\"\nworkers = [{all}]\ninfra_retries = 1000\n{more}"
        );
        for step in 0..2 {
            let payload = "0123456789abcdef".repeat(16);
            text += &format!(
                "[[builder.step]]\nname = \"s{step}\"\n\
                 shell = 'sh @DIR@/step.sh @DIR@/runs {step} 5 0.2 {payload}'\n"
            );
        }
    }
    text
}

/// A kill.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Kill {
    at: i64,
    /// A worker's name; none for the master.
    worker: Option<String>,
}

struct Storm<'y> {
    yard: &'y mut Yard,
    rng: Rng,
    kills: Vec<Kill>,
    keepers: usize,
    faults: Vec<Fault>,
}

impl Storm<'_> {
    fn draw(&mut self, below: usize) -> usize {
        self.rng.index(below)
    }

    /// Kills somebody.
    fn strike(&mut self) {
        let at = runs::now();
        if self.draw(MASTER) == 0 {
            if let Some(master) = &mut self.yard.master {
                master.kill();
            }
            self.kills.push(Kill { at, worker: None });
            return;
        }
        let keepers = self.yard.keepers();
        let names: Vec<String> = self.yard.workers.keys().cloned().collect();
        // There are many helpers: half of these kills are enough for them.
        if !keepers.is_empty() && self.draw(2) == 0 {
            let place = self.draw(keepers.len());
            if let Some(pid) = keepers.get(place) {
                let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
                self.keepers += 1;
            }
            return;
        }
        let place = self.draw(names.len());
        if let Some(name) = names.get(place) {
            if let Some(worker) = self.yard.workers.get_mut(name) {
                worker.kill();
            }
            self.kills.push(Kill { at, worker: Some(name.clone()) });
        }
    }

    /// Starts again whoever has ended.
    fn mend(&mut self) -> Result<(), Fault> {
        if let Some(status) = self.yard.master_ended() {
            if !was_killed(status) {
                self.faults.push(format!("the master ended by itself with {status}"));
            }
            if let Start::Ended(status) = self.yard.start_master(None)? {
                self.faults.push(format!("the master ended with {status} at its start"));
            }
        }
        self.yard.restart_ended_workers()
    }
}

/// Runs it.
///
/// # Errors
/// When the tools fail; what the program does wrong is in the report.
pub fn run(program: &Path, options: &Options) -> Result<Report, Fault> {
    let begun = Instant::now();
    let mut yard = Yard::new(program)?;
    let outcome = all_of_it(&mut yard, options);
    let well = outcome.as_ref().is_ok_and(|report| report.verdict.violations.is_empty());
    if !well && options.keep {
        eprintln!("kept: {}", yard.keep().display());
    } else if !well {
        eprintln!("{}", yard.last_words(20));
    }
    outcome.map(|report| Report { took: begun.elapsed(), ..report })
}

fn all_of_it(yard: &mut Yard, options: &Options) -> Result<Report, Fault> {
    yard.configure(&config(options.workers))?;
    if let Start::Ended(status) = yard.start_master(None)? {
        return Err(format!("the master ended with {status} at its start"));
    }
    for number in 0..options.workers {
        yard.start_worker(&format!("c{number}"), SLOTS, None)?;
    }
    let api = yard.api()?;
    let diary = Diary::default();
    let most = options.workers * SLOTS as usize;
    let end = Instant::now() + Duration::from_secs(options.seconds);
    let rng = Rng::seeded(options.seed);
    let mut storm = Storm { yard, rng, kills: Vec::new(), keepers: 0, faults: Vec::new() };
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| listen(&api, &diary, &done));
        let report = watched(&mut storm, &api, &diary, end, most);
        done.store(true, Ordering::SeqCst);
        // That ends the stream, and so the listener.
        storm.yard.master = None;
        report
    })
}

/// The storm, the calm and the judgement.
fn watched(
    storm: &mut Storm<'_>,
    api: &Api,
    diary: &Diary,
    end: Instant,
    most: usize,
) -> Result<Report, Fault> {
    let (over, waiting) = (AtomicBool::new(false), AtomicUsize::new(0));
    let stormed = std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (api, over, waiting) = (api.clone(), &over, &waiting);
            scope.spawn(move || {
                let until = end + CALM;
                asks(&Client { api, diary, until }, number, over, || {
                    waiting.load(Ordering::Relaxed) < most
                });
            });
        }
        let stormed = rage(storm, end, &waiting);
        over.store(true, Ordering::SeqCst);
        let stormed = stormed.and_then(|()| storm.mend());
        if stormed.is_err() {
            storm.yard.master = None;
        }
        stormed
    });
    stormed?;
    let calm = Instant::now() + CALM;
    while !is_quiet(api).unwrap_or(false) {
        storm.mend()?;
        if Instant::now() > calm {
            storm.faults.push("I6: it never came to rest".into());
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let held = store::read(&storm.yard.path("data"))?;
    let ran = runs::read(&storm.yard.path("runs"))?;
    let mut verdict = judge(storm.yard, diary)?;
    verdict.violations.splice(0..0, std::mem::take(&mut storm.faults));
    let (kills, keepers) = (&storm.kills, storm.keepers);
    let masters = kills.iter().filter(|kill| kill.worker.is_none()).count();
    Ok(Report {
        verdict,
        kills: kills.len() + keepers,
        kills_master: masters,
        kills_worker: kills.len() - masters,
        kills_keeper: keepers,
        adopted: survived(&held, &ran, kills, |kill, _| kill.worker.is_none()),
        carried: survived(&held, &ran, kills, |kill, worker| {
            kill.worker.as_deref() == Some(worker)
        }),
        took: Duration::ZERO,
    })
}

/// Kills, mends and watches until `end`.
fn rage(storm: &mut Storm<'_>, end: Instant, waiting: &AtomicUsize) -> Result<(), Fault> {
    let api = storm.yard.api()?;
    let mut next = Instant::now() + EVERY;
    while Instant::now() < end {
        if Instant::now() >= next {
            next += EVERY;
            storm.strike();
            let pause = storm.draw(300) as u64;
            std::thread::sleep(Duration::from_millis(pause));
        }
        storm.mend()?;
        if let Some(board) = api.board() {
            let builders = board["builders"].as_object();
            let each = builders.into_iter().flatten();
            let all: u64 = each.filter_map(|(_, view)| view["waiting"].as_u64()).sum();
            waiting.store(usize::try_from(all).unwrap_or(usize::MAX), Ordering::Relaxed);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// Asks for builds as long as there is room, each with a key of its own; now
/// and then once more with a key that was answered.
fn asks(client: &Client<'_>, number: usize, over: &AtomicBool, room: impl Fn() -> bool) {
    let mut count = 0;
    while !over.load(Ordering::SeqCst) {
        if room() {
            let builder = ["one", "two", "merged"][count % 3];
            let key = format!("client {number} request {count}");
            client.submit(builder, &key, Wish::Built);
            if count % 10 == 0 {
                client.submit(builder, &key, Wish::Built);
            }
            count += 1;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Builds that succeeded although such a kill came while they ran.
fn survived(
    held: &Held,
    ran: &[StepRun],
    kills: &[Kill],
    concerns: impl Fn(&Kill, &str) -> bool,
) -> usize {
    let by_build = runs::by_build(ran);
    let lived = |(build, runs): &(&u64, &Vec<&StepRun>)| {
        let row = held.builds.get(&BuildId(**build));
        let row = row.filter(|row| row.result == Some(BuildResult::Success));
        let worker = row.and_then(|row| held.workers.get(&row.worker));
        let begin = runs.iter().map(|run| run.begin).min().unwrap_or_default();
        let end = runs.iter().map(|run| run.alive).max().unwrap_or_default();
        worker.is_some_and(|worker| {
            kills.iter().any(|kill| kill.at > begin && kill.at < end && concerns(kill, worker))
        })
    };
    by_build.iter().filter(lived).count()
}
