//! The real actors over a simulated network, by seeds.
//!
//! One seed again, with its whole history as JSON lines:
//! `ACTORS_SEED=7 ACTORS_HISTORY=1 cargo nextest run -p botmaster-sim --no-capture seed_again`
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use botmaster_sim::actors::{self, LATENT, Outcome, Sabotage};
use botmaster_sim::history::Invariant;

/// Seeds in one test: tests run side by side.
const SEEDS: u64 = 10;

fn run(seed: u64) -> Outcome {
    let outcome = actors::run(seed);
    println!("seed {seed}: {:?} {:016x} {:?}", outcome.took, outcome.digest, outcome.counts);
    assert!(
        outcome.is_good(),
        "{}\nagain: ACTORS_SEED={seed} cargo nextest run -p botmaster-sim --no-capture seed_again",
        outcome.complaint()
    );
    outcome
}

/// Runs ten seeds; answers how many of them saw what.
fn ten_from(first: u64) -> BTreeMap<&'static str, u64> {
    let mut seen = BTreeMap::new();
    for seed in first..first + SEEDS {
        for what in run(seed).counts.into_keys() {
            *seen.entry(what).or_default() += 1;
        }
    }
    seen
}

#[test]
fn i01_to_i12_hold_seeds_1_to_10() {
    let mut seen = ten_from(1);
    let wanted = [
        "adoptions",
        "duplicate_attach",
        "hold",
        "leave",
        "master_crash",
        "master_vanishes",
        "one_way_partition",
        "partition",
        "pause",
        "requeues",
        "store_outage",
        "takeovers_with_a_build",
        "worker_crash",
        "worker_vanishes",
    ];
    // What ten seeds see depends on the program's own timing, too: a few more
    // follow while something is missing.
    for first in [51, 61] {
        if wanted.iter().any(|what| !seen.contains_key(what)) {
            seen.extend(ten_from(first));
        }
    }
    for what in wanted {
        assert!(seen.contains_key(what), "no seed saw `{what}`: {seen:?}");
    }
}

#[test]
fn i01_to_i12_hold_seeds_11_to_20() {
    ten_from(11);
}

#[test]
fn i01_to_i12_hold_seeds_21_to_30() {
    ten_from(21);
}

#[test]
fn i01_to_i12_hold_seeds_31_to_40() {
    ten_from(31);
}

#[test]
fn i01_to_i12_hold_seeds_41_to_50() {
    ten_from(41);
}

/// What seeds with latent workers have to see.
const OF_INSTANCES: [&str; 24] = [
    "crash_in_between",
    "crash_while_an_instance_builds",
    "crash_while_created",
    "crash_while_destroying",
    "crash_while_made",
    "crash_while_wished",
    "create_hangs",
    "create_hangs_and_makes",
    "create_panics",
    "destroy_fails",
    "destroy_hangs",
    "destroy_works_and_fails",
    "destroyed_while_made",
    "exceptions_without_a_worker",
    "find_fails",
    "instance_dies_at_once",
    "instance_dies_later",
    "instance_never",
    "instance_never_attaches",
    "instance_not_now",
    "instance_slow",
    "instance_turned_away",
    "instance_vanishes_idle",
    "instance_vanishes_building",
];

#[test]
fn fx01_to_fx10_hold_with_latent_workers_seeds_1000_to_1019() {
    let mut seen = ten_from(LATENT);
    // More follow while something is missing.
    for first in (LATENT + 10..LATENT + 60).step_by(10) {
        if first == LATENT + 10 || OF_INSTANCES.iter().any(|what| !seen.contains_key(what)) {
            seen.extend(ten_from(first));
        }
    }
    for what in OF_INSTANCES {
        assert!(seen.contains_key(what), "no seed saw `{what}`: {seen:?}");
    }
}

#[test]
fn fx01_to_fx10_hold_with_latent_workers_seeds_1060_to_1069() {
    ten_from(LATENT + 60);
}

#[test]
fn fx01_to_fx10_hold_with_latent_workers_seeds_1070_to_1079() {
    ten_from(LATENT + 70);
}

/// Seeds that found something, with what it was. They find it again when its
/// mending is undone.
const FOUND: [(u64, &str); 3] = [
    (
        3,
        "A second machine took a worker's name while the first one was connected. The first one's \
         builds were given to others at once, so their requests ran twice at the same time.",
    ),
    (8, "The log of a build that was lost with its worker passed for a whole one."),
    (
        32,
        "A build was stopped while its end as lost could not be written, for the disk was full; \
         the stop was granted, and then its requests ran again.",
    ),
];

#[test]
fn i03_i09_hold_in_the_seeds_that_found_something() {
    for (seed, what) in FOUND {
        println!("{what}");
        run(seed);
    }
}

#[test]
fn the_same_seed_is_the_same_story() {
    for seed in [2, 8, 14] {
        let (one, two) = (actors::run(seed), actors::run(seed));
        assert_eq!(one.history, two.history, "seed {seed}");
        assert_eq!(one.digest, two.digest, "seed {seed}");
    }
    assert_ne!(actors::run(2).digest, actors::run(3).digest);
}

/// One of these seeds finds this.
fn is_found(sabotage: Sabotage, invariant: Invariant, mut seeds: std::ops::Range<u64>) {
    let finder = seeds.find(|seed| {
        let outcome = actors::run_with(*seed, sabotage);
        outcome.findings.iter().any(|finding| finding.invariant == invariant)
    });
    println!("{sabotage:?} is found by seed {finder:?}");
    assert!(finder.is_some(), "{sabotage:?} is not found");
}

#[test]
fn i12_a_store_that_tells_before_it_has_written_is_found() {
    is_found(Sabotage::TellsBeforeCommit, Invariant::I12, 1..5);
}

#[test]
fn i11_events_that_are_left_out_are_found() {
    is_found(Sabotage::LosesEvents, Invariant::I11, 1..5);
}

#[test]
fn i09_text_that_is_confirmed_and_lost_is_found() {
    is_found(Sabotage::LosesText, Invariant::I9, 1..5);
}

#[test]
fn i03_a_lease_that_outlasts_the_grace_is_found() {
    is_found(Sabotage::LongLease, Invariant::I3, 20..80);
}

#[test]
fn i12_a_stop_that_only_memory_knows_is_found() {
    let planted = botmaster::core::planted::plant("i12_stop_told_before_kept");
    let forgotten = |outcome: Outcome| {
        outcome.findings.iter().any(|finding| finding.text.ends_with("which had it, was stopped"))
    };
    let finder = (44..60).find(|seed| forgotten(actors::run(*seed)));
    println!("it is met {} times and found by seed {finder:?}", planted.met());
    assert!(finder.is_some(), "it is not found");
}

/// One of these seeds finds this fault of the core's own.
fn planted_is_found(name: &'static str, row: &str) {
    let finder = (LATENT..LATENT + 60).find(|seed| {
        let outcome = actors::run_with(*seed, Sabotage::Planted(name));
        outcome.findings.iter().any(|finding| finding.text.contains(row))
    });
    println!("{name} is found by seed {finder:?}");
    assert!(finder.is_some(), "{name} is not found");
}

#[test]
fn fx09_an_instance_that_is_asked_for_before_it_is_stored_is_found() {
    planted_is_found("create_before_wish", "FX09");
}

#[test]
fn fx06_an_idle_timer_that_ends_a_build_is_found() {
    planted_is_found("idle_timer_kills_a_given_build", "FX06");
}

#[test]
fn fx04_an_instance_that_is_welcome_after_it_was_given_up_is_found() {
    planted_is_found("fx04_any_instance_is_welcome", "FX04");
}

#[test]
fn fx10_an_instance_that_is_forgotten_after_a_failed_destroy_is_found() {
    planted_is_found("fx10_a_failed_destroy_is_enough", "FX10");
}

/// Does nothing unless a seed is asked for.
#[test]
fn seed_again() {
    let asked = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let Some(first) = asked("ACTORS_SEED") else { return };
    let mut bad = Vec::new();
    for seed in first..first + asked("ACTORS_SEEDS").unwrap_or(1) {
        let outcome = actors::run(seed);
        println!("seed {seed}: {:?} {:016x} {:?}", outcome.took, outcome.digest, outcome.counts);
        if std::env::var("ACTORS_HISTORY").is_ok() {
            println!("{}", String::from_utf8_lossy(&outcome.history));
        }
        if !outcome.is_good() {
            println!("{}", outcome.complaint());
            bad.push(seed);
        }
    }
    assert_eq!(bad, [0_u64; 0], "seeds that went wrong");
}
