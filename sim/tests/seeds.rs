//! A few seeds on every change; `cargo xtask simulate` runs thousands.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use botmaster_sim::report::finding;
use botmaster_sim::run;

/// Seeds that found something once, each with what it was. They run on every
/// change, for ever: the same fault would be found by them in the first place.
const FOUND: &[(u64, &str)] = &[
    (1, "the log of a build that ended without its worker was stored as whole (I9)"),
    (10, "a set-back wall clock put younger requests before older ones (I10, I18)"),
    (15, "a build whose worker is not configured any more never ended after a takeover (I6)"),
    (26, "a pause that could not be stored was in force until the next start (I12)"),
    (61, "a worker that was removed and came back was not given the build that waits for it (I6)"),
    (80, "the same as seed 15, with a builder that was removed and came back (I6)"),
    (115, "a builder that was started again kept claims of builds that had ended (I15)"),
    (159, "a seat that an earlier predecessor's build had was never let go (I6)"),
    (218, "a seat that lost its worker while its builder was started again stayed (I6)"),
    (597, "a pair whose attach took too long was never tried again (I6, FA07)"),
    (3899, "a start that was sent over a lost connection was remembered (I15)"),
    (216, "the same as seed 282 (I6)"),
    (282, "a builder was ready with the list that was sent for another one, and nobody heard (I6)"),
];

fn runs_well(seed: u64) {
    let outcome = run::seed(seed);
    assert!(outcome.violation.is_none(), "\n{}", finding(&outcome));
    assert!(outcome.steps > 100, "seed {seed} did next to nothing");
}

#[test]
fn seeds_that_found_something_once_find_nothing_any_more() {
    for (seed, _) in FOUND {
        runs_well(*seed);
    }
}

#[test]
fn thirty_seeds_find_nothing() {
    for seed in 1000..1030 {
        runs_well(seed);
    }
}

#[test]
fn the_same_seed_does_the_same() {
    for seed in [3, 17, 2029] {
        let (one, two) = (run::once(seed, false, true), run::once(seed, true, true));
        assert_eq!(one.hash, two.hash, "seed {seed}: words change nothing");
        assert_eq!((one.steps, one.virtual_time), (two.steps, two.virtual_time));
        assert_eq!(one.faults, two.faults);
        assert!(!two.lines.is_empty());
    }
    let (one, other) = (run::once(3, false, true), run::once(4, false, true));
    assert_ne!(one.hash, other.hash, "another seed does something else");
}
