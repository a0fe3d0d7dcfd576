//! The real actors over a simulated network, by seeds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use botmaster_sim::actors;

/// Runs the seeds from one on, or only the one that is asked for.
fn seeds(first: u64, count: u64) {
    let asked = std::env::var("ACTORS_SEED").ok().and_then(|text| text.parse().ok());
    let seeds = match asked {
        Some(seed) => seed..seed + 1,
        None => first..first + count,
    };
    for seed in seeds {
        let outcome = actors::run(seed);
        println!("seed {seed}: {:?} {:016x} {:?}", outcome.took, outcome.digest, outcome.counts);
        assert!(outcome.is_good(), "{}", outcome.complaint());
    }
}

#[test]
fn one() {
    seeds(1, 10);
}
