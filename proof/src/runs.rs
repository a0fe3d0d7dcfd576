//! What builds write about themselves: when each run of a step began and
//! ended, and every byte that it wrote to its log.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use nix::time::{ClockId, clock_gettime};

use crate::Fault;

/// A step: `sh step.sh RUNS STEP LINES SECONDS PAYLOAD`. It writes LINES lines,
/// with SECONDS after each, to its output and to a file beside, always first to
/// the file; and when it began, lived and ended, by the machine's clock since
/// its boot. With DEAF in its environment it ignores TERM.
pub const SCRIPT: &str = r#"[ -z "$DEAF" ] || trap '' TERM
build=${BOTMASTER_BUILD%%@*}
base="$1/$build.$2.$$"
now() { read -r up _ < /proc/uptime; }
now; echo "begin $up" >> "$base.run"
i=0
while [ "$i" -lt "$3" ]; do
  i=$((i+1))
  line="build $build step $2 line $i $5"
  echo "$line" >> "$base.out"
  echo "$line"
  sleep "$4"
  now; echo "alive $up" >> "$base.run"
done
now; echo "end $up" >> "$base.run"
"#;

/// One run of one step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StepRun {
    /// The build that the worker said.
    pub build: u64,
    /// The step's number.
    pub step: u64,
    /// Its process.
    pub pid: u64,
    /// When it began: microseconds since the machine's boot.
    pub begin: i64,
    /// When it was last known to be alive.
    pub alive: i64,
    /// It came to its own end.
    pub ended: bool,
    /// What it wrote to its log.
    pub wrote: String,
}

/// Microseconds since the machine's boot, in the clock of the runs.
#[must_use]
pub fn now() -> i64 {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME);
    time.map_or(0, |time| time.tv_sec() * 1_000_000 + time.tv_nsec() / 1_000)
}

fn micros(text: &str) -> Option<i64> {
    let (seconds, hundredths) = text.split_once('.')?;
    Some(seconds.parse::<i64>().ok()? * 1_000_000 + hundredths.parse::<i64>().ok()? * 10_000)
}

/// Reads one run's file of times.
fn parse(name: &str, text: &str) -> Option<StepRun> {
    let mut parts = name.strip_suffix(".run")?.split('.').map(str::parse::<u64>);
    let (build, step, pid) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
    let mut run =
        StepRun { build, step, pid, begin: 0, alive: 0, ended: false, wrote: String::new() };
    // A process that is killed may leave half a line.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    for (place, line) in whole.lines().enumerate() {
        let (word, time) = line.split_once(' ')?;
        run.alive = micros(time)?;
        match (place, word) {
            (0, "begin") => run.begin = run.alive,
            (1.., "alive") => {}
            (1.., "end") => run.ended = true,
            _ => return None,
        }
    }
    (run.begin > 0).then_some(run)
}

/// All runs in a folder, in the order in which they began. Those that were
/// killed before they had written anything left nothing.
///
/// # Errors
/// When the folder cannot be read, or a file is not what a run writes.
pub fn read(folder: &Path) -> Result<Vec<StepRun>, Fault> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut runs = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.ends_with(".run") {
            continue;
        }
        let path = entry.path();
        let text = fs::read_to_string(&path).map_err(|error| error.to_string())?;
        if !text.contains('\n') {
            continue;
        }
        let mut run =
            parse(&name, &text).ok_or_else(|| format!("{}: no run's file", path.display()))?;
        run.wrote = fs::read_to_string(path.with_extension("out")).unwrap_or_default();
        runs.push(run);
    }
    runs.sort_by_key(|run| (run.begin, run.build, run.step, run.pid));
    Ok(runs)
}

/// Runs by build.
#[must_use]
pub fn by_build(runs: &[StepRun]) -> BTreeMap<u64, Vec<&StepRun>> {
    let mut all: BTreeMap<u64, Vec<&StepRun>> = BTreeMap::new();
    for run in runs {
        all.entry(run.build).or_default().push(run);
    }
    all
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_runs_file_tells_when_it_began_and_whether_it_ended() {
        let run = parse("12.0.4711.run", "begin 10.00\nalive 10.21\nend 10.42\n").unwrap();
        assert_eq!((run.build, run.step, run.pid), (12, 0, 4711));
        assert_eq!((run.begin, run.alive, run.ended), (10_000_000, 10_420_000, true));
        let cut = parse("12.1.4712.run", "begin 10.00\nalive 10.21\nali").unwrap();
        assert_eq!((cut.alive, cut.ended), (10_210_000, false));
        assert_eq!(parse("12.1.run", "begin 10.00\n"), None);
        assert_eq!(parse("12.1.1.run", "alive 10.00\n"), None);
    }

    #[test]
    fn the_script_writes_what_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("step.sh");
        fs::write(&script, SCRIPT).unwrap();
        let before = now() - 20_000;
        let ran = std::process::Command::new("sh")
            .arg(&script)
            .arg(folder.path())
            .args(["1", "3", "0.02", "payload"])
            .env("BOTMASTER_BUILD", "7@instance")
            .output()
            .unwrap();
        let runs = read(folder.path()).unwrap();
        assert_eq!(runs.len(), 1);
        let run = &runs[0];
        assert!((run.build, run.step, run.ended) == (7, 1, true), "{run:?}");
        assert!(before <= run.begin && run.begin < run.alive && run.alive <= now(), "{run:?}");
        assert_eq!(run.wrote, String::from_utf8(ran.stdout).unwrap());
        assert_eq!(run.wrote.lines().last(), Some("build 7 step 1 line 3 payload"));
    }
}
