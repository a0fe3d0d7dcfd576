//! `cargo xtask instructions`: what the hot paths cost, in instructions of the
//! processor, against what they cost when that was last written down.
//!
//! Owns how they are counted and compared. The paths are
//! `bench/instructions/`. Counts are the same on a busy machine, so a path that
//! becomes slower is seen anywhere; how fast anything is they do not tell.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::{Map, Value, json};

use crate::report::{self, rounded, say};
use crate::root;
use crate::tools;

/// Where the counts are written down.
const BASELINE: &str = "bench/instructions/baseline.json";

/// How many percent a path may cost more. Its own share is what differs from
/// one run to the next: the order of hash maps, how waiting threads meet, what
/// a master puts off for a few milliseconds. The rest is for another compiler
/// and another C library.
const TOLERANCE: f64 = 10.0;

/// Builds that the stores write; `bench/store_cost.rs` is the path.
const STORE_BUILDS: u64 = 60;

/// What was asked for.
#[derive(PartialEq, Eq, Debug, Default)]
struct Options {
    write: bool,
    only: Vec<String>,
}

/// A hot path: how it is gone a number of times.
struct HotPath {
    name: String,
    rounds: u64,
    command: fn(&Path, &str, u64) -> Vec<String>,
}

/// Counts, and compares or writes down; true when nothing costs much more.
///
/// # Errors
/// When the arguments are wrong, or a path cannot be gone or counted.
pub fn run(arguments: &[String]) -> Result<bool, String> {
    if crate::help::wanted("instructions", arguments) {
        return Ok(true);
    }
    let options = parse(arguments)?;
    let begin = Instant::now();
    tools::need_package(&["valgrind"], "valgrind")?;
    let programs = build()?;
    let paths = paths(&programs, &options.only)?;
    let known = Baseline::read()?;
    let (mut counts, mut worse) = (BTreeMap::new(), Vec::new());
    for path in &paths {
        let count = count(&programs, path)?;
        let before = known.counts.get(&path.name).copied();
        let change = before.map(|before| change(before, count));
        let ok = options.write || change.is_none_or(|change| change <= TOLERANCE);
        say(&told(&path.name, count, change));
        report::line(&json!({
            "path": path.name, "instructions": count, "baseline": before,
            "change_percent": change.map(|change| rounded(change, 1)), "ok": ok,
        }));
        if !ok {
            worse.push(path.name.clone());
        }
        counts.insert(path.name.clone(), count);
    }
    if options.write {
        known.with(counts).write()?;
    } else if known.counts.is_empty() {
        say(&format!("nothing to compare with: {BASELINE} has no counts of {}", machine()));
    }
    if !worse.is_empty() {
        say(&format!(
            "{} cost more than {TOLERANCE} % more than {BASELINE} says. If it has to be so, write \
             it down with `cargo xtask instructions --write`, and say why in the commit.",
            worse.join(", ")
        ));
    }
    report::line(&json!({
        "summary": "instructions", "ok": worse.is_empty(), "worse": worse,
        "written": options.write, "seconds": report::seconds(begin.elapsed()),
    }));
    Ok(worse.is_empty())
}

/// As a stage of `cargo xtask test`.
///
/// # Errors
/// When this very program cannot be found.
pub fn stage() -> Result<Command, String> {
    let me = std::env::current_exe().map_err(|error| format!("where am I? {error}"))?;
    let mut command = tools::plain(&me.to_string_lossy());
    command.arg("instructions");
    Ok(command)
}

fn parse(arguments: &[String]) -> Result<Options, String> {
    let mut options = Options::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--write" => options.write = true,
            "--only" => {
                let name = rest.next().ok_or("--only needs the name of a path")?;
                options.only.push(name.clone());
            }
            other => {
                return Err(format!("`{other}` is not known; see `cargo xtask help instructions`"));
            }
        }
    }
    Ok(options)
}

/// Builds the paths as they are built for people, and answers their folder.
fn build() -> Result<PathBuf, String> {
    let mut command = tools::cargo();
    command.args(["build", "--quiet", "--release", "-p", "botmaster-bench"]);
    command.args(["--bin", "instructions", "--bin", "store_cost"]);
    match command.status() {
        Ok(status) if status.success() => Ok(root::target().join("release")),
        Ok(status) => Err(format!("the hot paths could not be built: {status}")),
        Err(error) => Err(format!("could not start cargo: {error}")),
    }
}

fn paths(programs: &Path, only: &[String]) -> Result<Vec<HotPath>, String> {
    let program = programs.join("instructions");
    let listed = Command::new(&program).arg("--list").output();
    let listed = listed.map_err(|error| format!("{}: {error}", program.display()))?;
    let mut all = listed_paths(&String::from_utf8_lossy(&listed.stdout))?;
    all.push(HotPath {
        name: "store_build".into(),
        rounds: STORE_BUILDS,
        command: |programs, _, rounds| {
            let program = programs.join("store_cost").display().to_string();
            let words = ["--builds", &rounds.to_string(), "--in-flight", "1", "--warm-up", "20"];
            [program].into_iter().chain(words.map(str::to_owned)).collect()
        },
    });
    if let Some(unknown) = only.iter().find(|name| !all.iter().any(|path| path.name == **name)) {
        let names: Vec<&str> = all.iter().map(|path| path.name.as_str()).collect();
        return Err(format!("there is no path `{unknown}`; there are {}", names.join(", ")));
    }
    all.retain(|path| only.is_empty() || only.contains(&path.name));
    Ok(all)
}

fn listed_paths(text: &str) -> Result<Vec<HotPath>, String> {
    text.lines()
        .map(|line| {
            let (name, rounds) = line.split_once(' ').ok_or(format!("`{line}` is no path"))?;
            let rounds = rounds.parse().map_err(|_| format!("`{line}` has no number"))?;
            let command = |programs: &Path, name: &str, rounds: u64| {
                let program = programs.join("instructions").display().to_string();
                vec![program, name.to_owned(), rounds.to_string()]
            };
            Ok(HotPath { name: name.to_owned(), rounds, command })
        })
        .collect()
}

/// What one round costs: with twice as many rounds everything else is the same.
fn count(programs: &Path, path: &HotPath) -> Result<u64, String> {
    let once = Counting::start(programs, path, path.rounds)?;
    let twice = Counting::start(programs, path, path.rounds * 2)?;
    let (once, twice) = (once.finish()?, twice.finish()?);
    let more = twice.checked_sub(once).ok_or_else(|| {
        format!("{}: more rounds cost less: {once} and {twice} instructions", path.name)
    })?;
    Ok(more / path.rounds)
}

/// A path that is gone under valgrind.
struct Counting {
    name: String,
    child: Child,
    counts: PathBuf,
}

impl Counting {
    fn start(programs: &Path, path: &HotPath, rounds: u64) -> Result<Self, String> {
        let folder = root::target().join("instructions");
        std::fs::create_dir_all(&folder)
            .map_err(|error| format!("{}: {error}", folder.display()))?;
        let counts = folder.join(format!("{}.{rounds}", path.name));
        let mut command = Command::new("valgrind");
        command
            .args(["--quiet", "--tool=cachegrind", "--cache-sim=no"])
            // It tells there of caches that it does not know and nobody asks for.
            .arg(format!("--log-file={}.log", counts.display()))
            .arg(format!("--cachegrind-out-file={}", counts.display()))
            .args((path.command)(programs, &path.name, rounds))
            // Nothing of whoever calls is part of a path.
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let child =
            command.spawn().map_err(|error| format!("could not start valgrind: {error}"))?;
        Ok(Self { name: path.name.clone(), child, counts })
    }

    fn finish(mut self) -> Result<u64, String> {
        let status = self.child.wait().map_err(|error| format!("valgrind: {error}"))?;
        if !status.success() {
            return Err(format!(
                "{}: ended with {status} under valgrind; see {}.log",
                self.name,
                self.counts.display()
            ));
        }
        let text = std::fs::read_to_string(&self.counts)
            .map_err(|error| format!("{}: {error}", self.counts.display()))?;
        total(&text).ok_or_else(|| format!("{} has no sum", self.counts.display()))
    }
}

/// The sum at the end of what cachegrind writes.
fn total(text: &str) -> Option<u64> {
    let line = text.lines().rev().find_map(|line| line.strip_prefix("summary:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// In percent, to a tenth: what is told is what is compared.
#[allow(clippy::cast_precision_loss)]
fn change(before: u64, now: u64) -> f64 {
    ((now as f64 / before.max(1) as f64 - 1.0) * 1000.0).round() / 10.0
}

fn told(name: &str, count: u64, change: Option<f64>) -> String {
    let verdict = match change {
        None => "new".to_owned(),
        Some(change) if change > TOLERANCE => format!("{change:+.1} %: too much"),
        Some(change) if change < -TOLERANCE => format!("{change:+.1} %: worth writing down"),
        Some(change) => format!("{change:+.1} %"),
    };
    format!("{name:<16} {count:>12} {verdict}")
}

/// For which machine a count holds: others have other instructions.
fn machine() -> &'static str {
    std::env::consts::ARCH
}

/// What was written down, of all machines.
#[derive(Default)]
struct Baseline {
    all: Map<String, Value>,
    /// Of this one.
    counts: BTreeMap<String, u64>,
}

impl Baseline {
    fn read() -> Result<Self, String> {
        match std::fs::read_to_string(root::root().join(BASELINE)) {
            Ok(text) => Self::of(&text).map_err(|error| format!("{BASELINE}: {error}")),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(format!("{BASELINE}: {error}")),
        }
    }

    fn of(text: &str) -> Result<Self, String> {
        let all: Map<String, Value> =
            serde_json::from_str(text).map_err(|error| error.to_string())?;
        let own = all.get(machine()).and_then(Value::as_object);
        let count = |(name, count): (&String, &Value)| Some((name.clone(), count.as_u64()?));
        let counts = own.into_iter().flatten().filter_map(count).collect();
        Ok(Self { all, counts })
    }

    /// The same with these counts in the place of the old ones.
    fn with(mut self, counts: BTreeMap<String, u64>) -> Self {
        self.counts.extend(counts);
        self.all.insert(machine().to_owned(), json!(self.counts));
        self
    }

    fn write(&self) -> Result<(), String> {
        let text = serde_json::to_string_pretty(&self.all).map_err(|error| error.to_string())?;
        std::fs::write(root::root().join(BASELINE), format!("{text}\n"))
            .map_err(|error| format!("{BASELINE}: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn arguments_are_read_and_wrong_ones_named() {
        let options = parse(&words("--write --only a --only b")).unwrap();
        assert_eq!((options.write, options.only), (true, words("a b")));
        assert_eq!(parse(&[]), Ok(Options::default()));
        assert!(parse(&words("--only")).unwrap_err().contains("name of a path"));
        assert!(parse(&words("--fast")).unwrap_err().contains("`--fast`"));
    }

    #[test]
    fn counts_are_read_as_cachegrind_writes_them() {
        let text = "desc: I1 cache: \nevents: Ir\nfl=x\nfn=y\n1 17\nsummary: 1234567\n";
        assert_eq!(total(text), Some(1_234_567));
        assert_eq!(total("events: Ir\n"), None);
    }

    #[test]
    fn paths_are_read_as_they_are_listed() {
        let paths = listed_paths("one 20\ntwo 3\n").unwrap();
        let read: Vec<_> = paths.iter().map(|path| (path.name.as_str(), path.rounds)).collect();
        assert_eq!(read, [("one", 20), ("two", 3)]);
        let command = (paths[0].command)(Path::new("/p"), "one", 40);
        assert_eq!(command, ["/p/instructions", "one", "40"]);
        assert!(listed_paths("one\n").is_err());
    }

    #[test]
    fn only_much_more_is_too_much() {
        assert!(told("x", 1100, Some(change(1000, 1100))).ends_with("+10.0 %"));
        assert!(told("x", 1101, Some(change(1000, 1101))).ends_with("too much"));
        assert!(told("x", 899, Some(change(1000, 899))).ends_with("worth writing down"));
        assert!(told("x", 899, None).ends_with("new"));
    }

    #[test]
    fn a_count_replaces_the_old_one_of_this_machine_alone() {
        let text = format!("{{\"other\": {{\"a\": 1}}, {:?}: {{\"a\": 2, \"b\": 3}}}}", machine());
        let baseline = Baseline::of(&text).unwrap();
        assert_eq!(baseline.counts["a"], 2);
        let baseline = baseline.with(BTreeMap::from([("a".to_owned(), 7)]));
        let text = serde_json::to_string(&baseline.all).unwrap();
        let again = Baseline::of(&text).unwrap();
        assert_eq!((again.counts["a"], again.counts["b"]), (7, 3));
        assert_eq!(again.all["other"]["a"], 1);
        assert!(Baseline::of("[]").is_err());
    }
}
