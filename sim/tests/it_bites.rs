//! The simulation finds what is wrong on purpose: for each invariant a fault
//! is planted, in the cores or in what is played around them, and seeds are run
//! until one is found by the invariant that is meant for it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use botmaster::core::planted;
use botmaster_sim::report::finding;
use botmaster_sim::run;

/// Seeds that are tried for each fault.
const SEEDS: u64 = 400;

/// Plants a fault and runs seeds until something is found; that must be one of
/// these invariants, and the fault's place must have been met.
fn is_found(fault: &'static str, by: &[&str]) {
    is_found_from(1, fault, by, &[]);
}

/// The same, from this seed on: one that found it, so that the search is short as
/// long as the seed's world stays what it is. What else the fault breaks may be
/// found first by the `others`.
fn is_found_from(first: u64, fault: &'static str, by: &[&str], others: &[&str]) {
    let planted = planted::plant(fault);
    let twice = by.contains(&"I18");
    let found = (first..first + SEEDS).find_map(|seed| {
        let outcome = if twice { run::seed(seed * 16) } else { run::once(seed, false, true) };
        let id = outcome.violation.as_ref()?.id;
        println!("seed {seed}: {id}");
        (!others.contains(&id)).then_some(outcome)
    });
    assert!(planted.met() > 0, "the place of `{fault}` was never met");
    let found = found.unwrap_or_else(|| panic!("`{fault}` was not found by {SEEDS} seeds"));
    let id = found.violation.as_ref().unwrap().id;
    assert!(by.contains(&id), "`{fault}` was found by {id}, not by {by:?}:\n{}", finding(&found));
}

#[test]
fn i1_a_store_that_loses_a_request() {
    is_found("sim_store_loses_a_request", &["I1"]);
}

#[test]
fn i2_a_claim_without_a_new_epoch() {
    is_found("sim_claim_without_epoch", &["I2"]);
}

#[test]
fn i2_a_replaced_connection_that_is_listened_to() {
    is_found("sim_stale_session_accepted", &["I2"]);
}

#[test]
fn i3_a_requeue_before_the_grace() {
    is_found("requeue_before_grace", &["I3"]);
}

#[test]
fn i3_a_worker_that_does_not_keep_its_lease() {
    // It takes a build that goes on alone for longer than lease and grace.
    is_found_from(277, "lease_not_kept", &["I3"], &[]);
}

#[test]
fn i4_a_start_without_a_ping() {
    is_found("start_without_ping", &["I4"]);
}

#[test]
fn i5_a_slot_that_is_given_twice() {
    is_found("slot_given_twice", &["I5"]);
}

#[test]
fn i6_a_takeover_that_forgets_a_request() {
    is_found("takeover_forgets_a_request", &["I6"]);
}

#[test]
fn i6_a_worker_with_room_that_tells_nobody() {
    is_found("freed_tells_nobody", &["I6"]);
}

#[test]
fn i6_an_offer_that_nobody_passes_on() {
    is_found("offer_ends_with_the_first", &["I6"]);
}

#[test]
fn i7_a_build_that_ends_twice() {
    is_found("sim_end_without_fence", &["I7", "I2"]);
}

#[test]
fn i8_a_number_that_is_given_twice() {
    is_found("sim_number_reused", &["I8"]);
}

#[test]
fn i9_a_log_that_is_appended_without_looking_at_the_place() {
    is_found("sim_log_append_without_offset", &["I9"]);
}

#[test]
fn i10_requeued_requests_at_the_tail() {
    is_found("requeued_to_the_tail", &["I10"]);
}

#[test]
fn i11_events_of_what_never_was() {
    // What is told too early is also told although it never was.
    is_found("sim_event_before_commit", &["I11", "I12"]);
}

#[test]
fn i11_an_event_that_is_left_out() {
    is_found("sim_event_left_out", &["I11"]);
}

#[test]
fn i12_an_answer_before_the_commit() {
    is_found("sim_confirm_before_commit", &["I12"]);
}

#[test]
fn i12_log_bytes_that_are_confirmed_before_they_are_on_disk() {
    is_found("sim_log_confirmed_before_durable", &["I12"]);
}

#[test]
fn i13_a_takeover_that_drops_a_message() {
    // A worker that says it has room may say so in the message that is dropped.
    is_found_from(84, "sim_takeover_drops_a_message", &["I13"], &["I6"]);
}

#[test]
fn i14_a_loss_that_spreads_to_another_worker() {
    is_found("loss_spreads", &["I14"]);
}

#[test]
fn i15_a_queue_without_a_limit() {
    is_found("sim_queue_unbounded", &["I15"]);
}

#[test]
fn i16_a_worker_that_may_speak_of_builds_of_others() {
    is_found("sim_foreign_frames_are_borne", &["I16"]);
}

#[test]
fn i18_a_choice_that_looks_at_the_wall_clock() {
    is_found("wall_clock_used", &["I18"]);
}

#[test]
fn i20_a_stop_that_waits_for_ever() {
    is_found("sim_stop_waits_for_ever", &["I20"]);
}
