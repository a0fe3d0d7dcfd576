//! What the stores cost for each build: the state store and the log store in
//! this process, the writes that a master makes for builds of one step, and a
//! number of builds in flight, so that commits are shared.
//!
//! Prints one JSON line. `store_ms` and `logs_ms` are the processor time of the
//! two writers' threads for each build, user and system; `process_ms` is that
//! of all threads, this program's own included; `bytes_per_build` is what is on
//! disk after a clean end. Deliberately absent: workers, the web, and a number
//! of rounds; run it as often as it takes.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use botmaster::core::ids::*;
use botmaster::core::retention::{Retention, RetentionRules};
use botmaster::core::time::WallTime;
use botmaster::core::values::*;
use botmaster::core::views::HousekeepingView;
use botmaster::store::keep::Housekeeper;
use botmaster::store::logs::{LogClosed, LogStore, Piece, SqliteLogs};
use botmaster::store::sqlite::{OnFatal, SqliteStore};
use botmaster::store::*;

const USAGE: &str = "\
Measures what the stores cost for each build, and prints one JSON line.

usage: store_cost [--builds N] [--in-flight N] [--warm-up N] [--rate N] [--keep N]
                  [--seconds N] [--dir DIR]

  --builds N      builds that are measured (20000)
  --in-flight N   builds side by side (50)
  --warm-up N     builds before that, which make the tables as large as they are
                  in use (20000)
  --rate N        begins so many builds a second, after the warm-up; without it,
                  each as soon as another has ended
  --keep N        afterwards the housekeeping removes all but N builds of each
                  builder, while builds go on; prints how long writes take then
  --seconds N     looks at the housekeeping for at most so long; without it,
                  until it has nothing left to do
  --dir DIR       the data folder; it stays, and what is in it already, too.
                  Without it, a new one in the system's temporary folder, which
                  is removed";

/// Builders and workers, as in the throughput workload.
const BUILDERS: usize = 20;
const WORKERS: usize = 50;
/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(60);

struct Options {
    builds: usize,
    in_flight: usize,
    warm_up: usize,
    rate: Option<usize>,
    keep: Option<u64>,
    seconds: Option<usize>,
    dir: Option<PathBuf>,
}

fn main() -> ExitCode {
    let done = match parse(std::env::args().skip(1)) {
        Ok(Some(options)) => run(&options),
        Ok(None) => {
            eprintln!("{USAGE}");
            Ok(())
        }
        Err(problem) => Err(format!("{problem}\n\n{USAGE}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
    let mut options = Options {
        builds: 20_000,
        in_flight: 50,
        warm_up: 20_000,
        rate: None,
        keep: None,
        seconds: None,
        dir: None,
    };
    while let Some(name) = arguments.next() {
        if name == "--help" || name == "-h" {
            return Ok(None);
        }
        let value = arguments.next().ok_or(format!("{name} needs a value"))?;
        let number = || value.parse().map_err(|_| format!("{name} takes a number, not `{value}`"));
        match name.as_str() {
            "--builds" => options.builds = number()?,
            "--in-flight" => options.in_flight = number()?,
            "--warm-up" => options.warm_up = number()?,
            "--rate" => options.rate = Some(number()?.max(1)),
            "--keep" => options.keep = Some(number()? as u64),
            "--seconds" => options.seconds = Some(number()?),
            "--dir" => options.dir = Some(PathBuf::from(value)),
            _ => return Err(format!("`{name}` is not known")),
        }
    }
    if options.builds == 0 || options.in_flight == 0 {
        return Err("--builds and --in-flight must be at least 1".into());
    }
    Ok(Some(options))
}

fn run(options: &Options) -> Result<(), String> {
    let dir = options
        .dir
        .clone()
        .unwrap_or_else(|| std::env::temp_dir().join(format!("store_cost.{}", std::process::id())));
    let measured = measure(options, &dir);
    if options.dir.is_none()
        && let Err(error) = fs::remove_dir_all(&dir)
    {
        eprintln!("{} could not be removed: {error}", dir.display());
    }
    println!("{}", measured?);
    Ok(())
}

fn measure(options: &Options, dir: &Path) -> Result<String, String> {
    let size = if dir.exists() { folder_size(dir)? } else { 0 };
    let on_fatal: OnFatal = Arc::new(|text: &str| eprintln!("fatal: {text}"));
    let (store, events) =
        SqliteStore::open(dir, on_fatal.clone()).map_err(|error| error.to_string())?;
    let logs =
        SqliteLogs::open(dir, events.clone(), on_fatal).map_err(|error| error.to_string())?;
    let mut driver = Driver::new(store.clone(), logs.clone());
    driver.declare()?;
    driver.drive(options.warm_up, options.in_flight)?;
    driver.waits.clear();
    let (before, before_seq) = (Times::now()?, events.next_seq());
    let began = Instant::now();
    let mut pace = Pace::new(options);
    while pace.begun < options.builds {
        pace.drive(&mut driver, options.builds)?;
    }
    let wall = began.elapsed();
    let after = Times::now()?;
    let changes = events.next_seq() - before_seq;
    let cleaned = match options.keep {
        Some(keep) => clean(&mut driver, options, keep, dir)?,
        None => String::new(),
    };
    drop(driver);
    logs.close();
    store.close();
    let grown = folder_size(dir)?.saturating_sub(size) as f64;
    let stored = grown / (options.builds + options.warm_up) as f64;
    let builds = options.builds as f64;
    let ms = |from: f64, to: f64| (to - from) * 1000.0 / builds;
    Ok(format!(
        "{{\"workload\": \"store_cost\", \"n\": {}, \"params\": {{\"in_flight\": {}, \
         \"warm_up\": {}}}, \"metrics\": {{\"store_ms\": {:.4}, \"logs_ms\": {:.4}, \
         \"process_ms\": {:.4}, \"builds_per_s\": {:.0}, \"bytes_per_build\": {:.0}, \
         \"changes_per_build\": {:.1}{}}}}}",
        options.builds,
        options.in_flight,
        options.warm_up,
        ms(before.store, after.store),
        ms(before.logs, after.logs),
        ms(before.process, after.process),
        builds / wall.as_secs_f64(),
        stored,
        changes as f64 / builds,
        cleaned,
    ))
}

/// So many builds a second, or as many as there can be.
struct Pace {
    rate: Option<usize>,
    in_flight: usize,
    began: Instant,
    begun: usize,
}

impl Pace {
    fn new(options: &Options) -> Self {
        let Options { rate, in_flight, .. } = *options;
        Self { rate, in_flight, began: Instant::now(), begun: 0 }
    }

    /// The next few builds, of so many in all, and the wait after them.
    fn drive(&mut self, driver: &mut Driver, all: usize) -> Result<(), String> {
        let some = match self.rate {
            Some(rate) => (rate / 20).max(1),
            None if all == usize::MAX => self.in_flight * 2,
            None => all,
        };
        let some = some.min(all - self.begun);
        driver.drive(some, self.in_flight)?;
        self.begun += some;
        if let Some(rate) = self.rate {
            let due = Duration::from_secs_f64(self.begun as f64 / rate as f64);
            std::thread::sleep(due.saturating_sub(self.began.elapsed()));
        }
        Ok(())
    }
}

/// Longest and nearly longest wait for a write, in milliseconds.
fn waits(waits: &mut [Duration]) -> (f64, f64, f64) {
    waits.sort_unstable();
    let at = |part: f64| {
        let place = (waits.len() as f64 * part) as usize;
        let found = waits.get(place.min(waits.len().saturating_sub(1))).copied();
        found.unwrap_or_default().as_secs_f64() * 1000.0
    };
    (at(0.5), at(0.99), at(1.0))
}

/// Lets the housekeeping work beside builds, and tells how long their writes
/// took before and meanwhile.
fn clean(driver: &mut Driver, options: &Options, keep: u64, dir: &Path) -> Result<String, String> {
    let mut before = std::mem::take(&mut driver.waits);
    let all = Retention { builds: Some(keep), ..Retention::default() };
    let rules = Arc::new(RetentionRules { all, ..RetentionRules::default() });
    let (tell, told) = mpsc::channel::<HousekeepingView>();
    let (began, times) = (Instant::now(), Times::now()?);
    let limit = options.seconds.map(|seconds| Duration::from_secs(seconds as u64));
    let mut pace = Pace::new(options);
    let keeper = Housekeeper::start(
        dir,
        driver.store.clone(),
        driver.logs.clone(),
        Box::new(move || rules.clone()),
        Box::new(move |view| drop(tell.send(view))),
    )
    .map_err(|error| error.to_string())?;
    let mut seen = HousekeepingView::default();
    while seen.done_at.is_none() && limit.is_none_or(|limit| began.elapsed() < limit) {
        pace.drive(driver, usize::MAX)?;
        while let Ok(view) = told.try_recv() {
            // It goes on looking, and the first time that it was done counts.
            if seen.done_at.is_none() {
                seen = view;
            }
        }
        if let Some(error) = &seen.error {
            return Err(error.clone());
        }
    }
    let (removed, longest) = (seen.builds, seen.longest_us);
    let took = began.elapsed().as_secs_f64();
    let after = Times::now()?;
    keeper.stop();
    let (p50, p99, max) = waits(&mut before);
    let (cleaning_p50, cleaning_p99, cleaning_max) = waits(&mut driver.waits);
    Ok(format!(
        ", \"write_p50_ms\": {p50:.2}, \"write_p99_ms\": {p99:.2}, \"write_max_ms\": {max:.2}, \
         \"cleaning_write_p50_ms\": {cleaning_p50:.2}, \
         \"cleaning_write_p99_ms\": {cleaning_p99:.2}, \
         \"cleaning_write_max_ms\": {cleaning_max:.2}, \"removed\": {removed}, \
         \"removed_per_s\": {:.0}, \"longest_batch_ms\": {:.2}, \"built_per_s\": {:.0}, \
         \"cleaning_store_ms\": {:.4}, \"cleaning_process_ms\": {:.4}, \
         \"cleaning_store_share\": {:.3}",
        removed as f64 / took,
        longest as f64 / 1000.0,
        pace.begun as f64 / took,
        (after.store - times.store) * 1000.0 / pace.begun as f64,
        (after.process - times.process) * 1000.0 / pace.begun as f64,
        (after.store - times.store) / took,
    ))
}

fn folder_size(dir: &Path) -> Result<u64, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", dir.display());
    let mut size = 0;
    for entry in fs::read_dir(dir).map_err(failed)? {
        size += entry.and_then(|entry| entry.metadata()).map_err(failed)?.len();
    }
    Ok(size)
}

/// Processor time so far, in seconds.
struct Times {
    store: f64,
    logs: f64,
    process: f64,
}

impl Times {
    /// The scheduler's own account, in nanoseconds, of each thread.
    fn now() -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("/proc/self/task cannot be read: {error}");
        let mut times = Self { store: 0.0, logs: 0.0, process: 0.0 };
        for entry in fs::read_dir("/proc/self/task").map_err(failed)? {
            let thread = entry.map_err(failed)?.path();
            let name = fs::read_to_string(thread.join("comm")).map_err(failed)?;
            let text = fs::read_to_string(thread.join("schedstat")).map_err(failed)?;
            let spent = text.split_whitespace().next().and_then(|word| word.parse::<f64>().ok());
            let spent = spent.ok_or("/proc/self/task/*/schedstat has no number")? / 1e9;
            times.process += spent;
            match name.trim_end() {
                "store" => times.store += spent,
                "logs" => times.logs += spent,
                _ => {}
            }
        }
        Ok(times)
    }
}

/// What the stores told about one of the builds in flight.
enum Told {
    Written(Written),
    Closed(Result<LogClosed, StoreError>),
}

/// Where one of the builds in flight is.
#[derive(Clone, Copy)]
enum At {
    Submitted,
    Started(BuildId),
    LogEnds(BuildId, StepId, LogId),
    Ended,
}

struct Driver {
    store: SqliteStore,
    logs: SqliteLogs,
    tell: Sender<(usize, Told)>,
    told: Receiver<(usize, Told)>,
    flights: Vec<At>,
    builders: Vec<BuilderId>,
    workers: Vec<(WorkerId, Incarnation)>,
    properties: Arc<Properties>,
    asked: u64,
    /// When each flight asked last.
    since: Vec<Instant>,
    /// How long writes took.
    waits: Vec<Duration>,
}

impl Driver {
    fn new(store: SqliteStore, logs: SqliteLogs) -> Self {
        let (tell, told) = mpsc::channel();
        let property = |value: &str| Property { value: value.into(), source: "Builder".into() };
        let properties = BTreeMap::from([
            ("branch".to_owned(), property("main")),
            ("buildername".to_owned(), property("builder-07")),
            ("revision".to_owned(), property("0123456789abcdef0123456789abcdef01234567")),
            ("workername".to_owned(), property("worker-07")),
        ]);
        Self {
            store,
            logs,
            tell,
            told,
            flights: Vec::new(),
            builders: Vec::new(),
            workers: Vec::new(),
            properties: Arc::new(properties),
            asked: 0,
            since: Vec::new(),
            waits: Vec::new(),
        }
    }

    fn write(&mut self, flight: usize, ops: Vec<Op>) {
        if self.since.len() <= flight {
            self.since.resize(flight + 1, Instant::now());
        }
        if let Some(since) = self.since.get_mut(flight) {
            *since = Instant::now();
        }
        let tell = self.tell.clone();
        // An error means that nobody waits any more.
        let done = move |written| drop(tell.send((flight, Told::Written(written))));
        self.store.write(ops.into(), Box::new(done));
    }

    fn next(&self) -> Result<(usize, Told), String> {
        self.told.recv_timeout(PATIENCE).map_err(|_| "the store did not answer".to_owned())
    }

    /// Makes the builders, the workers and the steps known; the workers attach.
    fn declare(&mut self) -> Result<(), String> {
        let kind = StepKind::Run { program: Program::Argv(vec!["true".into()]) };
        let step = StepSpec {
            name: "true".into(),
            kind,
            workdir: None,
            env: BTreeMap::new(),
            timeout: None,
            max_time: None,
            halt_on_failure: true,
            flunk_on_failure: true,
            warn_on_failure: false,
            always_run: false,
        };
        let factory = Arc::new(Factory { steps: vec![step] });
        let names: Vec<WorkerName> = (0..WORKERS).map(|i| format!("w{i:05}").into()).collect();
        let mut ops = vec![Op::SaveFactory { digest: "d1".into(), factory }];
        ops.extend(names.iter().map(|name| Op::DeclareWorker { name: name.clone() }));
        ops.extend((0..BUILDERS).map(|i| Op::DeclareBuilder {
            name: format!("b{i:05}").into(),
            description: None,
            tags: Vec::new(),
            workers: names.clone(),
        }));
        self.write(0, ops);
        for outcome in self.outcomes()? {
            match outcome {
                OpOutcome::Builder(builder) => self.builders.push(builder),
                OpOutcome::Worker(row) => self.workers.push((row.id, row.incarnation)),
                _ => {}
            }
        }
        let attach = |(worker, _): &(WorkerId, Incarnation)| Op::AttachWorker {
            worker: *worker,
            info: BTreeMap::new(),
            at: self.now(),
        };
        self.write(0, self.workers.iter().map(attach).collect());
        for (outcome, worker) in self.outcomes()?.iter().zip(&mut self.workers) {
            if let OpOutcome::Attached(incarnation) = outcome {
                worker.1 = *incarnation;
            }
        }
        Ok(())
    }

    fn outcomes(&self) -> Result<Vec<OpOutcome>, String> {
        match self.next()? {
            (_, Told::Written(Ok(outcomes))) => Ok(outcomes),
            (_, Told::Written(Err(error))) => Err(error.to_string()),
            (_, Told::Closed(_)) => Err("a log was closed that nobody opened".into()),
        }
    }

    /// A time for the rows: each ask a little later than the one before.
    fn now(&self) -> WallTime {
        WallTime(1_800_000_000_000_000 + i64::try_from(self.asked).unwrap_or(0) * 997)
    }

    /// Runs so many builds to their end.
    fn drive(&mut self, builds: usize, in_flight: usize) -> Result<(), String> {
        let side_by_side = in_flight.min(builds);
        self.flights = vec![At::Submitted; side_by_side];
        for flight in 0..side_by_side {
            self.submit(flight);
        }
        let mut begun = side_by_side;
        let mut ended = 0;
        while ended < builds {
            let (flight, told) = self.next()?;
            if let (Told::Written(_), Some(since)) = (&told, self.since.get(flight)) {
                self.waits.push(since.elapsed());
            }
            if !self.go_on(flight, told)? {
                continue;
            }
            ended += 1;
            if begun < builds {
                begun += 1;
                self.submit(flight);
            }
        }
        Ok(())
    }

    fn submit(&mut self, flight: usize) {
        self.asked += 1;
        let builder = self.builder(flight);
        let new = NewBuildset {
            external_id: None,
            idempotency_key: None,
            reason: "measured".into(),
            scheduler: "force".into(),
            submitted_at: self.now(),
            rebuilt_build: None,
            sourcestamps: vec![SourceStamp::default()],
            properties: Arc::default(),
            builders: vec![builder],
            priority: 0,
            waited_for: false,
        };
        self.at(flight, At::Submitted);
        self.write(flight, vec![Op::AddBuildset(new)]);
    }

    fn at(&mut self, flight: usize, at: At) {
        if let Some(place) = self.flights.get_mut(flight) {
            *place = at;
        }
    }

    fn builder(&self, flight: usize) -> BuilderId {
        self.builders.get(flight % BUILDERS).copied().unwrap_or(BuilderId(1))
    }

    fn worker(&self, flight: usize) -> (WorkerId, Incarnation) {
        self.workers.get(flight % WORKERS).copied().unwrap_or((WorkerId(1), Incarnation(1)))
    }

    /// Does what a master does next for this build. True when it has ended.
    fn go_on(&mut self, flight: usize, told: Told) -> Result<bool, String> {
        self.asked += 1;
        let at = self.flights.get(flight).copied().ok_or("an answer for no build")?;
        match (told, at) {
            (Told::Written(Err(error)), _) | (Told::Closed(Err(error)), _) => {
                return Err(error.to_string());
            }
            (Told::Closed(Ok(closed)), At::LogEnds(build, step, log)) => {
                self.at(flight, At::Ended);
                self.finish(flight, build, step, log, closed);
            }
            (Told::Written(Ok(outcomes)), at) => return self.written(flight, at, outcomes),
            (Told::Closed(Ok(_)), _) => return Err("a log was closed too early".into()),
        }
        Ok(false)
    }

    fn written(&mut self, flight: usize, at: At, outcomes: Vec<OpOutcome>) -> Result<bool, String> {
        if matches!(at, At::Ended) {
            return Ok(true);
        }
        match (at, outcomes.into_iter().last()) {
            (At::Submitted, Some(OpOutcome::Buildset { requests, .. })) => {
                let request = requests.first().ok_or("a submission without a request")?;
                self.claim(flight, request);
            }
            (At::Submitted, Some(OpOutcome::Claimed { build, .. })) => {
                self.at(flight, At::Started(build.id));
                self.start(flight, build.id);
            }
            (At::Started(build), Some(OpOutcome::Step { step, logs })) => {
                let log = logs.first().ok_or("a step without a log")?.clone();
                self.at(flight, At::LogEnds(build, step.id, log.id));
                self.log(flight, log);
            }
            (_, outcome) => return Err(format!("not the answer to what was asked: {outcome:?}")),
        }
        Ok(false)
    }

    fn claim(&mut self, flight: usize, request: &RequestRow) {
        let (worker, incarnation) = self.worker(flight);
        let text = format!("{{\"true\":[{}]}}", self.asked);
        let ops = vec![
            Op::SaveExpectations { builder: request.builder, text },
            Op::Claim {
                claim: ClaimId(u128::from(self.asked) << 64),
                builder: request.builder,
                worker,
                incarnation,
                requests: vec![(request.id, request.epoch)],
                factory_digest: "d1".into(),
                grace: std::time::Duration::from_secs(150),
                at: self.now(),
            },
        ];
        self.write(flight, ops);
    }

    fn start(&mut self, flight: usize, build: BuildId) {
        let ops = vec![
            Op::StartBuild {
                build,
                incarnation: self.worker(flight).1,
                properties: self.properties.clone(),
                grace: std::time::Duration::from_secs(150),
                at: self.now(),
            },
            Op::StartStep {
                build,
                number: 0,
                name: "true".into(),
                state_string: "running 'true'".into(),
                logs: vec!["stdio".into()],
                at: self.now(),
            },
        ];
        self.write(flight, ops);
    }

    /// The log of a step without output: the master's own two lines.
    fn log(&self, flight: usize, log: Arc<LogRow>) {
        let id = log.id;
        self.logs.open(log);
        for line in ["$ true\n", "program finished with exit code 0\n"] {
            self.logs.append(Piece {
                log: id,
                channel: b'h',
                offset: None,
                bytes: line.into(),
                at_ms: 1,
                confirm: None,
                permit: None,
            });
        }
        let tell = self.tell.clone();
        // An error means that nobody waits any more.
        let done = move |closed| drop(tell.send((flight, Told::Closed(closed))));
        LogStore::close(&self.logs, id, Some(0), Box::new(done));
    }

    fn finish(
        &mut self,
        flight: usize,
        build: BuildId,
        step: StepId,
        log: LogId,
        closed: LogClosed,
    ) {
        let ops = vec![
            Op::FinishLog {
                log,
                num_lines: closed.num_lines,
                length: closed.length,
                inline: closed.inline,
                incomplete: closed.incomplete,
            },
            Op::FinishStep {
                step,
                result: BuildResult::Success,
                state_string: "'true' ended".into(),
                at: self.now(),
            },
            Op::FinishBuild {
                build,
                incarnation: self.worker(flight).1,
                result: BuildResult::Success,
                state_string: "build successful".into(),
                requests: RequestsAfter::Done,
                at: self.now(),
            },
        ];
        self.write(flight, ops);
    }
}
