//! Crash points: the real program does a small piece of work, dies at a named
//! place, is started again, and what it left is judged.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use botmaster::core::rng::Rng;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::api::Api;
use crate::clients::{Client, Diary, Wish};
use crate::listener::listen;
use crate::points::{Whose, whose};
use crate::verdict::{Verdict, judge};
use crate::yard::{Start, Yard, was_killed};
use crate::{Fault, within};

/// How long the clients may take for all they want.
const WORK: Duration = Duration::from_secs(75);
/// How long it may take until nothing moves any more.
const QUIET: Duration = Duration::from_secs(40);
/// How long after the work a point may still come: the master listens for late
/// mail of a builder that was replaced for 5 s.
const LATE: Duration = Duration::from_secs(10);

const TIMERS: &str = "
[timers]
heartbeat = \"1 s\"
lease = \"4 s\"
kill_time = \"1 s\"
grace = \"6 s\"
ping_timeout = \"3 s\"
handshake = \"3 s\"
";

/// What came of one point, or of several in a row.
#[derive(Clone, Debug)]
pub struct Report {
    /// The points, in the order in which they were armed.
    pub points: Vec<String>,
    /// Those at which nobody died. One that was to kill at a later time than the
    /// first, or in a later life, may be among them and all is well.
    pub unreached: Vec<String>,
    /// Each point that had to be reached was.
    pub reached: bool,
    /// Masters started.
    pub lives: u32,
    /// What is wrong; empty when all is well.
    pub violations: Vec<String>,
    /// The figures.
    pub verdict: Verdict,
    /// How long it took.
    pub took: Duration,
}

impl Report {
    /// Whether every point was reached and nothing is wrong.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.reached && self.violations.is_empty()
    }
}

/// Which parts of the work are done: the more, the longer it takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Parts {
    cloud: bool,
    kill: bool,
    lose: bool,
    away: bool,
    freeze: bool,
    /// What is frozen there does not listen to TERM either.
    deaf: bool,
    reload: bool,
    end: bool,
}

impl Parts {
    fn of(points: &[String]) -> Self {
        let any = |prefixes: &[&str]| {
            points.iter().any(|point| prefixes.iter().any(|prefix| point.starts_with(prefix)))
        };
        let several = points.len() > 1;
        let workers = any(&["worker.", "keeper."]);
        Self {
            cloud: several || any(&["substantiate."]),
            kill: several || workers || any(&["detach.", "orphan.", "attach."]),
            lose: several || any(&["requeue."]),
            away: any(&["worker.result."]),
            freeze: several
                || any(&["attach.after_abandon", "worker.before_abandoned", "keeper.lease."]),
            deaf: any(&["keeper.lease.kill"]),
            reload: several || any(&["reconfig."]),
            end: any(&["shutdown."]),
        }
    }
}

fn config(generation: u32) -> String {
    let worker =
        |name: &str, max: u32| format!("[[worker]]\nname = \"{name}\"\nmax_builds = {max}\n");
    let builder = |name: &str, workers: &str, more: &str, steps: &[(u32, &str)]| {
        let mut text = format!(
            "[[builder]]\nname = \"{name}\"\nworkers = [{workers}]\ninfra_retries = 100\n{more}"
        );
        for (number, (lines, pause)) in steps.iter().enumerate() {
            let payload = "0123456789abcdef".repeat(8);
            text += &format!(
                "[[builder.step]]\nname = \"s{number}\"\n\
                 shell = 'sh @DIR@/step.sh @DIR@/runs {number} {lines} {pause} {payload}'\n"
            );
        }
        text
    };
    [
        TIMERS.to_owned(),
        worker("w1", 4),
        worker("w2", 2),
        worker("ghost", 1),
        worker("cloud", 1),
        "[worker.latent]\nprovider = \"process\"\nsubstantiate_timeout = \"30 s\"\n\
         idle_timeout = \"1 s\"\n"
            .to_owned(),
        builder(
            "plain",
            "\"w1\", \"w2\"",
            &format!("env = {{ GENERATION = \"{generation}\" }}\n"),
            &[(40, "0.01"), (4, "0.05")],
        ),
        builder("merged", "\"w1\"", "merge = \"same source\"\nmax_builds = 1\n", &[(6, "0.1")]),
        builder("never", "\"ghost\"", "", &[(1, "0.1")]),
        builder("long", "\"w1\"", "", &[(600, "0.1")]),
        builder("slow", "\"w2\"", "", &[(25, "0.1")]),
        builder("longer", "\"w2\"", "", &[(150, "0.1")]),
        builder("deaf", "\"w2\"", "env = { DEAF = \"1\" }\n", &[(150, "0.1")]),
        builder("cloud", "\"cloud\"", "", &[(5, "0.1")]),
    ]
    .join("")
}

/// What clients ask of the overseer.
enum Deed {
    /// Kill this worker program with -9; it is started again after so long.
    Kill(&'static str, Duration),
    /// Kill with -9 whoever keeps a build for a worker program.
    KillKeepers,
    /// Stop it with SIGSTOP.
    Freeze(&'static str),
    /// Let it go on, after so long.
    Thaw(&'static str, Duration),
    /// Another configuration, and SIGHUP.
    Reload,
}

/// Runs the work with these points armed, one in each life of the master, or
/// all that are a worker's in its first one.
///
/// # Errors
/// When the tools fail; what the program does wrong is in the report.
pub fn run(program: &std::path::Path, points: &[String], keep: bool) -> Result<Report, Fault> {
    let begun = Instant::now();
    let mut yard = Yard::new(program)?;
    let mut unreached = points.to_vec();
    let outcome = work(&mut yard, points, &mut unreached);
    let (lives, took) = (yard.lives, begun.elapsed());
    let (violations, verdict) = match outcome {
        Ok(verdict) => (verdict.violations.clone(), verdict),
        Err(fault) => (vec![fault], Verdict::default()),
    };
    // A second time may not come, nor may a point in the life after a kill.
    let reached = points.len() > 1 || unreached.iter().all(|point| point.contains(':'));
    let report =
        Report { points: points.to_vec(), unreached, reached, lives, violations, verdict, took };
    if !report.is_well() {
        eprintln!("{}: {:#?}", points.join(", "), report.violations);
        if keep {
            eprintln!("kept: {}", yard.keep().display());
        } else {
            eprintln!("{}", yard.last_words(30));
        }
    }
    Ok(report)
}

/// The master of a yard with what is still to be armed.
struct Overseer<'y> {
    yard: &'y mut Yard,
    armed: VecDeque<String>,
    faults: Vec<Fault>,
    /// It was asked to end.
    stopping: bool,
    again: Vec<(Instant, &'static str)>,
    thaws: Vec<(Instant, &'static str)>,
}

impl Overseer<'_> {
    /// Starts masters until one serves.
    fn bring_up(&mut self) -> Result<(), Fault> {
        for _ in 0..20 {
            let armed = self.armed.pop_front();
            match self.yard.start_master(armed.as_deref())? {
                Start::Serves => return Ok(()),
                Start::Ended(status) if was_killed(status) && armed.is_some() => {}
                Start::Ended(status) => {
                    self.faults.push(format!("the master ended with {status} at its start"));
                    if armed.is_none() {
                        return Err(self.faults.join("; "));
                    }
                }
            }
        }
        Err("the master never came to serve".into())
    }

    /// One look around: who has died is started again.
    fn look(&mut self) -> Result<(), Fault> {
        if let Some(status) = self.yard.master_ended() {
            let asked = std::mem::take(&mut self.stopping) && status.code() == Some(0);
            if !was_killed(status) && !asked {
                self.faults.push(format!("the master ended by itself with {status}"));
            }
            self.bring_up()?;
        }
        let due = |(at, _): &mut (Instant, &'static str)| *at <= Instant::now();
        for (_, name) in self.thaws.extract_if(.., due) {
            if let Some(worker) = self.yard.workers.get(name) {
                worker.signal(Signal::SIGCONT);
            }
        }
        if self.again.extract_if(.., due).count() > 0 || self.again.is_empty() {
            self.yard.restart_ended_workers()?;
        }
        Ok(())
    }

    fn perform(&mut self, deed: &Deed) -> Result<(), Fault> {
        let signal = |yard: &Yard, name: &str, signal| {
            if let Some(worker) = yard.workers.get(name) {
                worker.signal(signal);
            }
        };
        match deed {
            Deed::Kill(name, pause) => {
                if let Some(worker) = self.yard.workers.get_mut(*name) {
                    worker.kill();
                }
                self.again.push((Instant::now() + *pause, name));
            }
            Deed::KillKeepers => self.yard.keepers().into_iter().for_each(|pid| {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }),
            Deed::Freeze(name) => signal(self.yard, name, Signal::SIGSTOP),
            Deed::Thaw(name, pause) => self.thaws.push((Instant::now() + *pause, name)),
            Deed::Reload => {
                self.yard.configure(&config(2))?;
                if let Some(master) = &self.yard.master {
                    master.signal(Signal::SIGHUP);
                }
            }
        }
        Ok(())
    }

    /// Looks after everything until `done` or the limit.
    fn until(
        &mut self,
        limit: Duration,
        mut done: impl FnMut(&Self) -> bool,
    ) -> Result<bool, Fault> {
        let end = Instant::now() + limit;
        loop {
            self.look()?;
            if done(self) {
                return Ok(true);
            }
            if Instant::now() > end {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn work(yard: &mut Yard, points: &[String], unreached: &mut Vec<String>) -> Result<Verdict, Fault> {
    let parts = Parts::of(points);
    yard.configure(&config(1))?;
    let masters = points.iter().filter(|point| whose(point) == Whose::Master);
    let workers: Vec<&str> =
        points.iter().filter(|point| whose(point) == Whose::Worker).map(String::as_str).collect();
    let workers = (!workers.is_empty()).then(|| workers.join(","));
    let mut overseer = Overseer {
        yard,
        armed: masters.cloned().collect(),
        faults: Vec::new(),
        stopping: false,
        again: Vec::new(),
        thaws: Vec::new(),
    };
    overseer.bring_up()?;
    overseer.yard.start_worker("w1", 4, workers.as_deref())?;
    overseer.yard.start_worker("w2", 2, workers.as_deref())?;
    let (diary, api) = (Diary::default(), overseer.yard.api()?);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| listen(&api, &diary, &over));
        let verdict = watched(&mut overseer, points, parts, &diary, unreached);
        over.store(true, Ordering::SeqCst);
        // That ends the stream, and so the listener.
        overseer.yard.master = None;
        let mut verdict = verdict?;
        // Where only masters die, nothing that runs is thrown away.
        let only_masters = !parts.kill && !parts.lose && !parts.freeze && workers.is_none();
        if only_masters && verdict.rebuilt > 0 {
            verdict.violations.push(format!("FM01: {} builds were not adopted", verdict.rebuilt));
        }
        Ok(verdict)
    })
}

/// The work itself, and the judgement.
fn watched(
    overseer: &mut Overseer<'_>,
    points: &[String],
    parts: Parts,
    diary: &Diary,
    unreached: &mut Vec<String>,
) -> Result<Verdict, Fault> {
    clients(overseer, diary, parts)?;
    let pending = |overseer: &Overseer<'_>| {
        points.iter().any(|point| {
            let may_never_come = points.len() > 1 || point.contains(':');
            !may_never_come && !overseer.yard.was_reached(point) && !point.starts_with("shutdown.")
        })
    };
    overseer.until(LATE, |overseer| !pending(overseer))?;
    // Each life of the master is asked to end, until the points of an end came.
    for _ in 0..if parts.end { points.len() } else { 0 } {
        if let Some(master) = &overseer.yard.master {
            master.signal(Signal::SIGTERM);
        }
        // It ends, at the point or by itself, and is started again.
        overseer.stopping = true;
        overseer.until(QUIET, |overseer| !overseer.stopping)?;
    }
    let api = overseer.yard.api()?;
    if !overseer.until(QUIET, |_| is_quiet(&api).unwrap_or(false))? {
        overseer.faults.push("I6: it never came to rest".into());
    }
    let faults = std::mem::take(&mut overseer.faults);
    unreached.retain(|point| !overseer.yard.was_reached(point));
    // The end of everything is not for them.
    points.iter().for_each(|point| overseer.yard.disarm(point));
    let mut verdict = judge(overseer.yard, diary)?;
    verdict.violations.splice(0..0, faults);
    Ok(verdict)
}

/// Whether all requests have ended and no instance is left.
pub(crate) fn is_quiet(api: &Api) -> Option<bool> {
    let waiting = api.list("buildrequests?complete=false")?;
    let board = api.board()?;
    let mut workers = board["workers"].as_object()?.values();
    let free = |view: &serde_json::Value| {
        let instance = &view["instance"];
        view["used"] == 0 && (instance.is_null() || instance["state"] == "latent")
    };
    Some(waiting.is_empty() && workers.all(free))
}

/// All that people want of the master, side by side, until all of it was
/// acknowledged and has come to its end.
fn clients(overseer: &mut Overseer<'_>, diary: &Diary, parts: Parts) -> Result<(), Fault> {
    let api = overseer.yard.api()?;
    let until = Instant::now() + WORK;
    let left = AtomicUsize::new(0);
    let (deeds, asked): (Sender<Deed>, Receiver<Deed>) = mpsc::channel();
    type Job = Box<dyn FnOnce(&Client<'_>, &Sender<Deed>) + Send>;
    let mut jobs: Vec<Job> =
        vec![Box::new(builds), Box::new(one_that_never_runs), Box::new(one_that_is_stopped)];
    if parts.cloud {
        jobs.push(Box::new(one_on_an_instance));
    }
    if parts.reload {
        jobs.push(Box::new(one_reload));
    }
    // One after the other: it is the same worker that all of them need.
    jobs.push(Box::new(move |client, deeds| {
        if parts.kill {
            one_whose_worker_dies(client, deeds);
        }
        if parts.lose {
            one_that_is_lost(client, deeds);
        }
        if parts.away {
            one_that_ends_unseen(client, deeds);
        }
        if parts.freeze {
            one_whose_worker_freezes(client, deeds, if parts.deaf { "deaf" } else { "longer" });
        }
    }));
    left.store(jobs.len(), Ordering::SeqCst);
    std::thread::scope(|scope| {
        for job in jobs {
            let (api, deeds, left) = (api.clone(), deeds.clone(), &left);
            scope.spawn(move || {
                job(&Client { api, diary, until }, &deeds);
                left.fetch_sub(1, Ordering::SeqCst);
            });
        }
        // The clients end by themselves in time, whatever happens here.
        let looked = overseer_loop(overseer, &asked, &left);
        if looked.is_err() {
            overseer.yard.master = None;
        }
        looked
    })
}

fn overseer_loop(
    overseer: &mut Overseer<'_>,
    asked: &Receiver<Deed>,
    left: &AtomicUsize,
) -> Result<(), Fault> {
    while left.load(Ordering::SeqCst) > 0 {
        overseer.look()?;
        while let Ok(deed) = asked.try_recv() {
            overseer.perform(&deed)?;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn builds(client: &Client<'_>, _: &Sender<Deed>) {
    let mut requests = Vec::new();
    for number in 0..4 {
        requests.extend(client.submit("merged", &format!("merged-{number}"), Wish::Built));
        requests.extend(client.submit("plain", &format!("plain-{number}"), Wish::Built));
    }
    // Whoever is not sure asks again, and is told the same.
    client.submit("plain", "plain-0", Wish::Built);
    for request in requests {
        client.ended(request);
    }
}

fn one_that_never_runs(client: &Client<'_>, _: &Sender<Deed>) {
    if let Some(request) = client.submit("never", "never", Wish::NeverRuns) {
        client.cancel(request);
    }
}

fn one_that_is_stopped(client: &Client<'_>, _: &Sender<Deed>) {
    if let Some(request) = client.submit("long", "long", Wish::Stopped) {
        client.running(request);
        client.stop_until_ended(request);
    }
}

fn one_on_an_instance(client: &Client<'_>, _: &Sender<Deed>) {
    if let Some(request) = client.submit("cloud", "cloud", Wish::Built) {
        client.ended(request);
    }
}

fn one_whose_worker_dies(client: &Client<'_>, deeds: &Sender<Deed>) {
    if let Some(request) = client.submit("slow", "slow", Wish::Built) {
        client.running(request);
        let _ = deeds.send(Deed::Kill("w2", Duration::from_millis(500)));
        client.ended(request);
    }
}

/// Nothing of the build is left at its worker.
fn one_that_is_lost(client: &Client<'_>, deeds: &Sender<Deed>) {
    if let Some(request) = client.submit("slow", "lost", Wish::Built) {
        client.running(request);
        let _ = deeds.send(Deed::KillKeepers);
        client.ended(request);
    }
}

/// The build comes to its end while its worker program is away.
fn one_that_ends_unseen(client: &Client<'_>, deeds: &Sender<Deed>) {
    if let Some(request) = client.submit("slow", "unseen", Wish::Built) {
        client.running(request);
        let _ = deeds.send(Deed::Kill("w2", Duration::from_secs(3)));
        client.ended(request);
    }
}

fn one_whose_worker_freezes(client: &Client<'_>, deeds: &Sender<Deed>, builder: &str) {
    if let Some(request) = client.submit(builder, "frozen", Wish::Stopped) {
        client.running(request);
        let _ = deeds.send(Deed::Freeze("w2"));
        let connected = |api: &Api| api.board()?["workers"]["w2"]["connected"].as_bool();
        client.wait(|api| connected(api).filter(|there| !there));
        client.stop_until_ended(request);
        // Its lease is over by then.
        let _ = deeds.send(Deed::Thaw("w2", Duration::from_secs(3)));
        client.wait(|api| connected(api).filter(|there| *there));
    }
}

fn one_reload(client: &Client<'_>, deeds: &Sender<Deed>) {
    if let Some(request) = client.submit("plain", "before", Wish::Built) {
        client.running(request);
        let _ = deeds.send(Deed::Reload);
        if let Some(after) = client.submit("plain", "after", Wish::Built) {
            client.ended(after);
        }
        client.ended(request);
    }
}

/// Kills the master at each step of the migrations of a new data folder, and
/// starts it again. The report has one point for each.
///
/// # Errors
/// When the tools fail.
pub fn migrations(program: &std::path::Path) -> Result<Report, Fault> {
    let begun = Instant::now();
    let mut violations = Vec::new();
    let (mut lives, mut steps) = (0, 0);
    for nth in 1..=100 {
        let mut yard = Yard::new(program)?;
        yard.configure(&config(1))?;
        let point = format!("migrate.each_step:{nth}");
        match yard.start_master(Some(&point))? {
            // There are no more steps.
            Start::Serves => break,
            Start::Ended(status) if was_killed(status) => steps += 1,
            Start::Ended(status) => violations.push(format!("{point}: it ended with {status}")),
        }
        match yard.start_master(None)? {
            Start::Serves => {}
            Start::Ended(status) => {
                violations.push(format!("{point}: the next one ended with {status}"));
            }
        }
        violations.extend(yard.stop().into_iter().map(|fault| format!("{point}: {fault}")));
        for file in ["state.sqlite", "logs.sqlite"] {
            violations.extend(crate::store::is_whole(&yard.path("data"), file).err());
        }
        lives += yard.lives;
    }
    let point = "migrate.each_step".to_owned();
    let reached = steps > 0;
    let unreached = if reached { Vec::new() } else { vec![point.clone()] };
    let (verdict, took) = (Verdict::default(), begun.elapsed());
    Ok(Report { points: vec![point], unreached, reached, lives, violations, verdict, took })
}

/// Runs each group of points, some side by side; tells each report as it comes.
///
/// # Errors
/// When the tools fail.
pub fn run_all(
    program: &std::path::Path,
    groups: &[Vec<String>],
    jobs: usize,
    keep: bool,
    told: &(dyn Fn(&Report) + Sync),
) -> Result<Vec<Report>, Fault> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut reports = Vec::new();
        while let Some(group) = groups.get(next.fetch_add(1, Ordering::SeqCst)) {
            let report = match group.as_slice() {
                [one] if one == "migrate.each_step" => migrations(program)?,
                points => run(program, points, keep)?,
            };
            told(&report);
            reports.push(report);
        }
        Ok(reports)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(worker)).collect();
        let mut all = Vec::new();
        for thread in threads {
            let reports: Result<Vec<Report>, Fault> =
                thread.join().unwrap_or_else(|_| Err("a thread of the tool panicked".into()));
            all.extend(reports?);
        }
        Ok(all)
    })
}

/// Waits for something; for tests of one point.
#[must_use]
pub fn eventually(look: impl FnMut() -> Option<()>) -> bool {
    within(QUIET, look).is_some()
}

/// Every point when it is reached first, and most once more when they are
/// reached for the second or third time, in the middle of the work. Some come
/// once.
#[must_use]
pub fn alone(points: &std::collections::BTreeSet<String>) -> Vec<Vec<String>> {
    const ONCE: [&str; 10] = [
        "migrate.",
        "reconfig.",
        "shutdown.",
        "substantiate.",
        "attach.after_abandon_sent",
        "keeper.lease.",
        "keeper.before_sweep",
        "worker.before_abandoned",
        "worker.before_kill",
        "worker.result.",
    ];
    const TWICE: [&str; 5] = ["cancel.", "detach.", "merge.", "orphan.", "requeue."];
    let is = |name: &str, prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    let again = points.iter().filter(|name| !is(name, &ONCE)).map(|name| {
        let nth = if is(name, &TWICE) { 2 } else { 3 };
        vec![format!("{name}:{nth}")]
    });
    points.iter().map(|name| vec![name.clone()]).chain(again).collect()
}

/// Pairs drawn from the points, each with how often it must be reached: the
/// first kills one life of the master, the second the next. Those that strike
/// only while a data folder is new are left out.
#[must_use]
pub fn random_pairs(
    points: &std::collections::BTreeSet<String>,
    count: usize,
    seed: u64,
) -> Vec<Vec<String>> {
    let all: Vec<&String> = points.iter().filter(|name| !name.starts_with("migrate.")).collect();
    let mut rng = Rng::seeded(seed);
    let mut draw = || {
        let name = all.get(rng.index(all.len()))?;
        Some(format!("{name}:{}", 1 + rng.index(4)))
    };
    (0..count).map(|_| [draw(), draw()].into_iter().flatten().collect()).collect()
}
