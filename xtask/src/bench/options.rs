//! What `cargo xtask bench` is asked for.

use std::path::PathBuf;

use super::registry::{self, Workload};
use super::workloads::WORKLOADS;

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is measured, in this order.
    pub workloads: Vec<&'static Workload>,
    /// One repetition, and the small sizes.
    pub quick: bool,
    /// Repetitions.
    pub repeat: u32,
    /// The size, instead of the workload's own ones.
    pub n: Option<u64>,
    /// Buildbot beside it.
    pub with_buildbot: bool,
    /// Leave the scratch folders.
    pub keep: bool,
    /// Build without `--release`.
    pub dev: bool,
    /// Files with the lines of earlier runs, to be read instead of measuring.
    pub from: Vec<PathBuf>,
    /// Where the chart goes.
    pub chart: Option<PathBuf>,
}

impl Options {
    /// Reads the arguments.
    ///
    /// # Errors
    /// Names what is missing or wrong.
    pub fn parse(arguments: &[String]) -> Result<Self, String> {
        let (mut workloads, mut quick, mut repeat, mut n) = (Vec::new(), false, None, None);
        let (mut with_buildbot, mut keep, mut dev) = (false, false, false);
        let (mut from, mut chart) = (Vec::new(), None);
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let mut value = || rest.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--quick" => quick = true,
                "--keep" => keep = true,
                "--dev" => dev = true,
                "--repeat" => repeat = Some(number(argument, value()?, 100)?),
                "--n" => n = Some(number(argument, value()?, 1_000_000)?),
                "--from" => from.push(PathBuf::from(value()?)),
                "--chart" => chart = Some(PathBuf::from(value()?)),
                "--with" => match value()?.as_str() {
                    "buildbot" => with_buildbot = true,
                    other => return Err(format!("`{other}` cannot be measured; `buildbot` can")),
                },
                "all" => WORKLOADS.iter().for_each(|workload| add(&mut workloads, workload)),
                name => match registry::find(name) {
                    Some(workload) => add(&mut workloads, workload),
                    None => {
                        return Err(format!(
                            "`{name}` is no workload and no option; see `cargo xtask help bench`"
                        ));
                    }
                },
            }
        }
        if workloads.is_empty() {
            return Err(format!("no workload given: all, or some of {}", registry::names()));
        }
        if chart.is_some() && !with_buildbot && from.is_empty() {
            return Err("--chart shows ratios: it needs --with buildbot".to_owned());
        }
        if n.is_some() && workloads.len() > 1 {
            return Err("--n is for one workload: each counts something else".to_owned());
        }
        // At most 100, so it fits.
        let repeat = repeat.map_or(if quick { 1 } else { 3 }, |repeat| repeat as u32);
        Ok(Self { workloads, quick, repeat, n, with_buildbot, keep, dev, from, chart })
    }

    /// The sizes of a workload.
    #[must_use]
    pub fn sizes(&self, workload: &Workload) -> Vec<u64> {
        match (self.n, self.quick) {
            (Some(n), _) => vec![n],
            (None, true) => workload.sizes.quick.to_vec(),
            (None, false) => workload.sizes.full.to_vec(),
        }
    }

    /// How far the last size may be raised, if at all.
    #[must_use]
    pub fn raised_to(&self, workload: &Workload) -> Option<u64> {
        workload.sizes.raised_to.filter(|_| self.n.is_none())
    }

    /// The sizes for Buildbot, which is slower, and gets no more than the full
    /// size of the workload.
    #[must_use]
    pub fn peer_sizes(&self, workload: &Workload) -> Vec<u64> {
        match (self.n, self.quick) {
            (Some(n), _) => {
                let most = workload.peer.full.iter().copied().max();
                vec![most.map_or(n, |most| n.min(most))]
            }
            (None, true) => workload.peer.quick.to_vec(),
            (None, false) => workload.peer.full.to_vec(),
        }
    }
}

fn add(workloads: &mut Vec<&'static Workload>, workload: &'static Workload) {
    if !workloads.iter().any(|known| known.name == workload.name) {
        workloads.push(workload);
    }
}

/// Reads a whole number.
///
/// # Errors
/// When it is none, or none that is allowed.
pub fn number(name: &str, text: &str, most: u64) -> Result<u64, String> {
    text.parse()
        .ok()
        .filter(|number| (1..=most).contains(number))
        .ok_or(format!("{name} needs a whole number from 1 to {most}, not `{text}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Options, String> {
        Options::parse(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    fn names(options: &Options) -> Vec<&str> {
        options.workloads.iter().map(|workload| workload.name).collect()
    }

    #[test]
    fn arguments_are_read_and_wrong_ones_named() {
        let options = parse("dispatch throughput --with buildbot --repeat 2").unwrap();
        assert_eq!(names(&options), ["dispatch", "throughput"]);
        assert!(options.with_buildbot && !options.quick);
        assert_eq!((options.repeat, options.n), (2, None));
        assert_eq!(parse("dispatch --quick").unwrap().repeat, 1);
        assert_eq!(parse("throughput").unwrap().repeat, 3);
        assert_eq!(names(&parse("throughput all").unwrap()).len(), WORKLOADS.len());
        let problem = |text: &str| parse(text).unwrap_err();
        assert!(problem("").contains("no workload"));
        assert!(problem("speed").contains("`speed` is no workload"));
        assert!(problem("dispatch --n 0").contains("from 1 to 1000000, not `0`"));
        assert!(problem("dispatch throughput --n 9").contains("for one workload"));
        assert!(problem("dispatch --with jenkins").contains("`jenkins`"));
        assert!(problem("dispatch --repeat").contains("needs a value"));
        assert!(problem("dispatch --chart x.svg").contains("needs --with buildbot"));
        let options = parse("all --from a --from b --chart x.svg").unwrap();
        assert_eq!(options.from, [PathBuf::from("a"), PathBuf::from("b")]);
    }

    #[test]
    fn buildbot_gets_no_more_than_the_full_size() {
        let sizes = |text: &str| {
            let options = parse(text).unwrap();
            options.peer_sizes(options.workloads[0])
        };
        assert_eq!(sizes("throughput"), [2_000]);
        assert_eq!(sizes("throughput --quick"), [500]);
        assert_eq!(sizes("throughput --n 90000"), [2_000]);
        assert_eq!(sizes("throughput --n 90"), [90]);
        assert_eq!(sizes("dispatch"), [100]);
    }

    #[test]
    fn a_size_that_was_asked_for_is_not_raised() {
        let raised = |text: &str| {
            let options = parse(text).unwrap();
            options.raised_to(options.workloads[0])
        };
        assert_eq!(raised("throughput"), Some(400_000));
        assert_eq!(raised("throughput --quick"), Some(400_000));
        assert_eq!(raised("throughput --n 5"), None);
        assert_eq!(raised("dispatch"), None);
    }
}
