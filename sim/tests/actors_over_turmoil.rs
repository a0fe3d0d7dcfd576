//! The real actors over a simulated network, by seeds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use botmaster_sim::actors;

/// Runs the seeds from one on, or as many as are asked for.
fn seeds(first: u64, count: u64) {
    let asked = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let first = asked("ACTORS_SEED").unwrap_or(first);
    let count = asked("ACTORS_SEEDS").unwrap_or(count);
    let mut bad = 0;
    for seed in first..first + count {
        let outcome = actors::run(seed);
        println!("seed {seed}: {:?} {:016x} {:?}", outcome.took, outcome.digest, outcome.counts);
        if !outcome.is_good() {
            println!("{}", outcome.complaint());
            bad += 1;
        }
    }
    assert_eq!(bad, 0, "seeds that went wrong");
}

#[test]
fn one() {
    seeds(1, 10);
}
