//! `cargo xtask soak`: many simulated workers and builds all the time, to see
//! whether memory and descriptors stay as they are.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::master::{Master, wait_events};
use super::options::number;
use super::proc::{Guard, cpu_seconds, descriptors, memory_mb};
use super::scratch::{Layout, Scratch, builder_name};
use super::sse::Stream;
use super::{master::result_of, programs};
use crate::report::{self, rounded, say};

const BUILDERS: u32 = 100;

/// Builds that are kept of each builder: the data would grow otherwise, and the
/// master's own tidying up belongs to what is tried here.
const KEPT: &str = "\n[retention]\nbuilds = 100\n";

/// Requests in one submission.
const PART: u64 = 1_000;

/// How long attaching, and the builds that are left at the end, may take.
const ATTACH_LIMIT: Duration = Duration::from_secs(120);
const REST_LIMIT: Duration = Duration::from_secs(300);

/// How long nothing may end before it counts as stuck.
const STUCK: Duration = Duration::from_secs(60);

/// How often events are left for a look at the queue, and how often the master
/// is looked at.
const TURN: Duration = Duration::from_millis(50);
const LOOK: Duration = Duration::from_secs(5);

/// The first part of the time, in which caches and buffers fill, is not judged.
const WARM_UP: f64 = 0.25;

/// How much memory and how many descriptors may grow over the judged part and
/// still count as flat.
const MEMORY: (f64, f64) = (0.10, 8.0);
const DESCRIPTORS: f64 = 8.0;

/// Disk space that it takes at most, in MB.
const DISK_MB: f64 = 20_000.0;

struct Options {
    minutes: u64,
    workers: u32,
    rate: Option<u64>,
    keep: bool,
    dev: bool,
}

/// Runs it; true when nothing grew and every build succeeded.
///
/// # Errors
/// When the arguments are wrong or it cannot be begun.
pub fn run(arguments: &[String]) -> Result<bool, String> {
    if crate::help::wanted("soak", arguments) {
        return Ok(true);
    }
    let options = parse(arguments)?;
    let guard = Guard::start()?;
    let programs = programs::build(options.dev)?;
    let scratch = Scratch::new("soak", options.keep, &guard)?;
    let each = options.workers.div_ceil(BUILDERS).max(10);
    let layout = Layout::new(BUILDERS, options.workers).each(each).with(KEPT);
    let config = scratch.write_layout(&layout)?;
    let mut master = Master::start(&programs, &scratch, &config, &guard)?;
    let events = master.events("workers/*/connected")?;
    // The load process ends by itself when nobody is left to end it.
    let seconds = (options.minutes * 60 + 1_200).to_string();
    master.start_load(&scratch, options.workers, &["--max-seconds".as_ref(), seconds.as_ref()])?;
    let deadline = Instant::now() + ATTACH_LIMIT;
    let (attached, _) = wait_events(&events, options.workers as usize, deadline)?;
    drop(events);
    if attached < options.workers as usize {
        master.check()?;
        return Err(format!("only {attached} of {} workers attached", options.workers));
    }
    say(&format!("{attached} workers; {} minutes of builds", options.minutes));
    let mut soak = Soak {
        stream: master.events("buildrequests/*/complete")?,
        master,
        scratch,
        begin: Instant::now(),
        submitted: 0,
        ended: 0,
        not_success: 0,
        last_end: Instant::now(),
        looks: Vec::new(),
    };
    let problem = soak.run(&options).err();
    let ok = soak.judge(&options, problem);
    Ok(ok)
}

fn parse(arguments: &[String]) -> Result<Options, String> {
    let mut options = Options { minutes: 20, workers: 1_000, rate: None, keep: false, dev: false };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = |most| {
            let text = rest.next().ok_or(format!("{argument} needs a value"))?;
            number(argument, text, most)
        };
        match argument.as_str() {
            "--minutes" => options.minutes = value(24 * 60)?,
            // At most 10,000, so it fits.
            "--workers" => options.workers = value(10_000)? as u32,
            "--rate" => options.rate = Some(value(100_000)?),
            "--keep" => options.keep = true,
            "--dev" => options.dev = true,
            other => return Err(format!("`{other}` is no option; see `cargo xtask help soak`")),
        }
    }
    Ok(options)
}

/// What the master was like at some moment.
#[derive(Clone, Copy, Debug)]
struct Look {
    seconds: f64,
    ended: u64,
    cpu: f64,
    rss_mb: f64,
    descriptors: u64,
    data_mb: f64,
}

struct Soak {
    stream: Stream,
    master: Master,
    scratch: Scratch,
    begin: Instant,
    submitted: u64,
    ended: u64,
    not_success: u64,
    last_end: Instant,
    looks: Vec<Look>,
}

impl Soak {
    /// Builds for so long, and waits for those that are left.
    fn run(&mut self, options: &Options) -> Result<(), String> {
        let builders: Vec<String> = (0..BUILDERS).map(builder_name).collect();
        let end = self.begin + Duration::from_secs(60 * options.minutes);
        // Each worker has a build, and the next one waits.
        let wanted = u64::from(options.workers) * 2;
        let (mut next_look, mut minute) = (self.begin, 0);
        while Instant::now() < end {
            let allowed = options
                .rate
                .map_or(u64::MAX, |rate| (self.begin.elapsed().as_secs_f64() * rate as f64) as u64);
            let room = (self.ended + wanted).saturating_sub(self.submitted);
            let part = room.min(PART).min(allowed.saturating_sub(self.submitted));
            if part >= PART / 10 {
                self.master.submit(part, &builders, self.submitted)?;
                self.submitted += part;
            }
            self.take(Instant::now() + TURN)?;
            if Instant::now() >= next_look {
                next_look += LOOK;
                self.look()?;
                if self.begin.elapsed().as_secs() / 60 > minute {
                    minute += 1;
                    self.tell(minute);
                }
            }
        }
        self.look()?;
        if minute < options.minutes {
            self.tell(options.minutes);
        }
        let deadline = Instant::now() + REST_LIMIT;
        while self.ended < self.submitted && Instant::now() < deadline {
            self.take(Instant::now() + TURN)?;
        }
        Ok(())
    }

    /// Takes events until then.
    fn take(&mut self, until: Instant) -> Result<(), String> {
        while let Some((at, event)) = self.stream.next(until)? {
            if event.kind != "event" {
                continue;
            }
            let result = result_of(&event.data)
                .ok_or(format!("an event is not understood: {}", event.data))?;
            self.ended += 1;
            self.not_success += u64::from(result != 0);
            self.last_end = at;
            // A stream that never pauses must not keep us here.
            if Instant::now() >= until {
                break;
            }
        }
        if self.ended < self.submitted && self.last_end.elapsed() >= STUCK {
            self.master.check()?;
            return Err(format!("no build ended within {} s", STUCK.as_secs()));
        }
        if self.ended == self.submitted {
            self.last_end = Instant::now();
        }
        Ok(())
    }

    fn look(&mut self) -> Result<(), String> {
        self.master.check()?;
        let id = self.master.id();
        let look = Look {
            seconds: self.begin.elapsed().as_secs_f64(),
            ended: self.ended,
            cpu: cpu_seconds(id)?,
            rss_mb: memory_mb(id, "VmRSS")?,
            descriptors: descriptors(id)?,
            data_mb: self.scratch.data_bytes() as f64 / 1e6,
        };
        self.looks.push(look);
        if look.data_mb > DISK_MB {
            return Err(format!("the data is larger than {DISK_MB} MB"));
        }
        Ok(())
    }

    /// The line of a minute that is over.
    fn tell(&self, minute: u64) {
        let Some(now) = self.looks.last() else { return };
        let in_it = |look: &&Look| look.seconds >= now.seconds - 60.0;
        let Some(before) = self.looks.iter().find(in_it) else { return };
        let seconds = (now.seconds - before.seconds).max(1e-6);
        report::line(&json!({
            "soak": minute, "builds": now.ended,
            "builds_per_s": rounded((now.ended - before.ended) as f64 / seconds, 1),
            "rss_mb": rounded(now.rss_mb, 1), "descriptors": now.descriptors,
            "cpu_pct": rounded(100.0 * (now.cpu - before.cpu) / seconds, 1),
            "data_mb": rounded(now.data_mb, 1), "waiting": self.submitted - self.ended,
        }));
    }

    fn judge(&self, options: &Options, problem: Option<String>) -> bool {
        let mut problems: Vec<String> = problem.into_iter().collect();
        let lost = self.submitted - self.ended;
        if lost > 0 {
            problems.push(format!("{lost} requests have no end"));
        }
        if self.not_success > 0 {
            problems.push(format!("{} builds did not succeed", self.not_success));
        }
        let judged = judged(&self.looks);
        let memory = Series::of(judged, |look| look.rss_mb);
        let memory_allowed = (memory.mean() * MEMORY.0).max(MEMORY.1);
        let open = Series::of(judged, |look| look.descriptors as f64);
        for (series, allowed, what) in
            [(&memory, memory_allowed, "MB of memory"), (&open, DESCRIPTORS, "descriptors")]
        {
            if series.grown() > allowed {
                problems.push(format!(
                    "{:.1} {what} more at the end than after the warm-up",
                    series.grown()
                ));
            }
        }
        let seconds = self.looks.last().map_or(0.0, |look| look.seconds);
        let ok = problems.is_empty();
        report::line(&json!({
            "summary": "soak", "ok": ok, "problems": problems, "minutes": options.minutes,
            "workers": options.workers, "builds": self.ended, "lost": lost,
            "not_success": self.not_success,
            "builds_per_s": rounded(self.ended as f64 / seconds.max(1e-6), 1),
            "rss_mb": memory.json(memory_allowed), "descriptors": open.json(DESCRIPTORS),
        }));
        ok
    }
}

/// The looks after the warm-up.
fn judged(looks: &[Look]) -> &[Look] {
    let last = looks.last().map_or(0.0, |look| look.seconds);
    let first = looks.iter().position(|look| look.seconds >= last * WARM_UP).unwrap_or(0);
    looks.get(first..).unwrap_or_default()
}

/// A figure over time.
#[derive(Debug)]
struct Series(Vec<(f64, f64)>);

impl Series {
    fn of(looks: &[Look], figure: impl Fn(&Look) -> f64) -> Self {
        Self(looks.iter().map(|look| (look.seconds, figure(look))).collect())
    }

    fn mean(&self) -> f64 {
        self.0.iter().map(|(_, value)| value).sum::<f64>() / (self.0.len().max(1)) as f64
    }

    /// How much it grew from the first to the last, by the straight line that
    /// fits best: a peak here and there is no growth.
    fn grown(&self) -> f64 {
        let (Some((first, _)), Some((last, _))) = (self.0.first(), self.0.last()) else {
            return 0.0;
        };
        let middle = self.0.iter().map(|(at, _)| at).sum::<f64>() / self.0.len() as f64;
        let mean = self.mean();
        let spread: f64 = self.0.iter().map(|(at, _)| (at - middle).powi(2)).sum();
        let both: f64 = self.0.iter().map(|(at, value)| (at - middle) * (value - mean)).sum();
        if spread > 0.0 { both / spread * (last - first) } else { 0.0 }
    }

    fn json(&self, allowed: f64) -> Value {
        let ends =
            [self.0.first(), self.0.last()].map(|end| end.map(|(_, value)| rounded(*value, 1)));
        let [first, last] = ends;
        json!({
            "first": first, "last": last, "mean": rounded(self.mean(), 1),
            "grown": rounded(self.grown(), 2), "allowed": rounded(allowed, 1),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(rss_mb: impl Fn(f64) -> f64) -> Vec<Look> {
        let look = |at: u32| {
            let seconds = f64::from(at) * 5.0;
            Look {
                seconds,
                ended: 0,
                cpu: 0.0,
                rss_mb: rss_mb(seconds),
                descriptors: 9,
                data_mb: 0.0,
            }
        };
        (0..=240).map(look).collect()
    }

    fn grown(rss_mb: impl Fn(f64) -> f64) -> f64 {
        Series::of(judged(&looks(rss_mb)), |look| look.rss_mb).grown()
    }

    #[test]
    fn a_leak_is_growth_and_a_warm_up_or_a_peak_is_none() {
        // 1 MB a minute, judged over 15 of 20 minutes.
        assert!((grown(|at| 50.0 + at / 60.0) - 15.0).abs() < 0.1);
        assert_eq!(grown(|at| if at < 200.0 { at } else { 50.0 }), 0.0);
        assert!(grown(|at| if at == 750.0 { 99.0 } else { 50.0 }).abs() < 0.1);
        assert!(grown(|at| 50.0 - at / 60.0) < 0.0);
        assert_eq!(Series(Vec::new()).grown(), 0.0);
        assert_eq!(Series(vec![(0.0, 1.0)]).grown(), 0.0);
    }

    #[test]
    fn arguments_are_read_and_wrong_ones_named() {
        let parse =
            |text: &str| parse(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        let options = parse("--minutes 5 --rate 300").unwrap();
        assert_eq!((options.minutes, options.workers, options.rate), (5, 1_000, Some(300)));
        assert!(parse("--minutes 0").err().unwrap().contains("from 1 to 1440"));
        assert!(parse("--hours 1").err().unwrap().contains("`--hours` is no option"));
    }
}
