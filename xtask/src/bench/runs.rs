//! The run loop: each workload, each size, each repetition, both systems in
//! turn.

use std::path::PathBuf;
use std::time::Duration;

use super::figures::{Measurement, raised};
use super::options::Options;
use super::peer;
use super::registry::{Ground, Workload};
use crate::report::say;

/// How long a measurement has to last to be a good one, where the size is
/// raised for that.
const GOAL: Duration = Duration::from_secs(20);

/// What was measured, and what could not be.
#[derive(Default, Debug)]
pub struct Found {
    /// Of the program.
    pub ours: Vec<Measurement>,
    /// Of Buildbot.
    pub theirs: Vec<Measurement>,
    /// What went wrong, with the workload's name.
    pub problems: Vec<String>,
}

impl Found {
    /// Reads the lines of earlier runs. What is no measurement is left out:
    /// summaries, lines of other commands.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn read(files: &[PathBuf]) -> Result<Self, String> {
        let mut found = Self::default();
        for file in files {
            let text = std::fs::read_to_string(file)
                .map_err(|error| format!("{}: {error}", file.display()))?;
            for measurement in text.lines().filter_map(Measurement::parse) {
                if measurement.system.starts_with("botmaster-") {
                    found.ours.push(measurement);
                } else {
                    found.theirs.push(measurement);
                }
            }
        }
        Ok(found)
    }
}

/// Measures all that was asked for. What goes wrong with one workload does not
/// keep the others from being measured.
#[must_use]
pub fn all(options: &Options, ground: &Ground) -> Found {
    let mut found = Found::default();
    for workload in &options.workloads {
        say(&format!("── {} ──", workload.name));
        if let Err(problem) = ours(options, workload, ground, &mut found.ours) {
            say(&problem);
            found.problems.push(format!("{}: {problem}", workload.name));
        }
        if !options.with_buildbot {
            continue;
        }
        for tuned in [false, true].into_iter().take(1 + usize::from(workload.peer.tuned)) {
            let system = if tuned { "Buildbot, tuned" } else { "Buildbot" };
            say(&format!("── {}, {system} ──", workload.name));
            for n in options.peer_sizes(workload) {
                let repeat = options.repeat;
                let theirs = &mut found.theirs;
                if let Err(problem) = peer::measure(ground, workload, n, repeat, tuned, theirs) {
                    say(&problem);
                    found.problems.push(format!("{}, {system}: {problem}", workload.name));
                }
            }
        }
    }
    found
}

fn ours(
    options: &Options,
    workload: &Workload,
    ground: &Ground,
    found: &mut Vec<Measurement>,
) -> Result<(), String> {
    let mut once = |n: u64| -> Result<Option<f64>, String> {
        let measured = (workload.measure)(ground, n)?;
        measured.iter().for_each(Measurement::emit);
        let lasted = measured.iter().find_map(|measurement| measurement.metric("wall_s"));
        found.extend(measured);
        Ok(lasted)
    };
    let sizes = options.sizes(workload);
    for (place, mut n) in sizes.iter().copied().enumerate() {
        let most = options.raised_to(workload).filter(|_| place + 1 == sizes.len());
        let mut first = true;
        loop {
            let lasted = once(n)?.map(Duration::from_secs_f64);
            let next = most.zip(lasted).and_then(|(most, lasted)| larger(n, lasted, most));
            // Sizes on the way to the last one are measured once, to find the
            // next.
            if first || next.is_none() {
                for _ in 1..options.repeat {
                    once(n)?;
                }
            }
            let Some(next) = next else { break };
            say(&format!(
                "that lasted {:.1} s; now with {next}",
                lasted.unwrap_or_default().as_secs_f64()
            ));
            (n, first) = (next, false);
        }
    }
    Ok(())
}

/// The size to go on with after a measurement that was over too soon.
fn larger(n: u64, lasted: Duration, most: u64) -> Option<u64> {
    (lasted < GOAL && n < most).then(|| raised(n, lasted, GOAL).min(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_earlier_runs_are_read() {
        let file = std::env::temp_dir().join(format!("xtask-{}-lines", std::process::id()));
        let line = |system: &str| {
            format!(r#"{{"system":"{system}","workload":"x","n":1,"params":{{}},"metrics":{{}}}}"#)
        };
        let text = [&line("botmaster-1"), "{\"summary\":\"bench\"}", &line("buildbot-4")];
        std::fs::write(&file, text.join("\n")).unwrap();
        let found = Found::read(std::slice::from_ref(&file)).unwrap();
        assert_eq!((found.ours.len(), found.theirs.len()), (1, 1));
        std::fs::remove_file(&file).unwrap();
        assert!(Found::read(&[file]).is_err());
    }

    #[test]
    fn a_size_is_raised_until_it_lasts_or_is_the_largest() {
        let after = |n, seconds, most| larger(n, Duration::from_secs(seconds), most);
        assert_eq!(after(2_000, 1, 400_000), Some(20_000));
        assert_eq!(after(2_000, 1, 9_000), Some(9_000));
        assert_eq!(after(9_000, 1, 9_000), None);
        assert_eq!(after(2_000, 20, 400_000), None);
    }
}
