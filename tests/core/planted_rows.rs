//! It bites: for each of these rows a fault is planted where the right
//! behaviour lives, and the row's own story finds it.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use botmaster::core::planted;

use crate::{
    build_stories, builder_stories, control_stories, inbox_stories, latent_stories, ping_stories,
    plan_stories, slave_builder_stories, takeover_stories, worker_stories,
};

/// The row, the fault, and the story that finds it.
type Case = (&'static str, &'static str, fn());

const CASES: &[Case] = &[
    ("B07", "b07_cancelled_one_waits_on", builder_stories::b07_a_waiting_request_is_cancelled_and_a_late_cancel_changes_nothing),
    ("B08", "b08_requeue_in_submit_order", builder_stories::b08_failed_ping_requeues_at_the_head),
    ("B11", "b11_one_start_a_time", builder_stories::b11_starts_go_on_until_the_workers_run_out),
    (
        "B13",
        "b13_start_without_a_ping",
        slave_builder_stories::b13_the_start_is_sent_only_after_the_ping_is_answered,
    ),
    (
        "B16",
        "b16_worker_stays_taken",
        builder_stories::b16_the_end_of_a_build_frees_its_worker_whatever_the_result,
    ),
    (
        "B17",
        "b17_told_without_a_change",
        builder_stories::b17_the_big_state_is_told_only_when_it_changes,
    ),
    (
        "B21",
        "b21_newer_connection_is_refused",
        builder_stories::b21_attach_again_on_the_same_connection_is_nothing_and_on_a_new_one_replaces,
    ),
    (
        "B23",
        "b23_failed_attach_attaches_for_ever",
        builder_stories::b23_a_failed_attach_is_told_and_the_next_one_works,
    ),
    (
        "B24",
        "b24_any_detach_counts",
        builder_stories::b24_detach_of_an_unknown_worker_changes_nothing,
    ),
    (
        "B25",
        "b25_lost_before_the_grace",
        build_stories::b25_a_build_whose_worker_stays_away_is_queued_again_after_the_grace,
    ),
    (
        "B28",
        "b28_paused_ones_start",
        worker_stories::b28_a_paused_or_leaving_worker_gets_no_starts,
    ),
    (
        "B29",
        "b29_choosing_is_a_look",
        builder_stories::b29_choosing_is_a_reservation_and_a_refusal_leaves_the_request_in_its_place,
    ),
    (
        "B32",
        "b32_in_order_of_names",
        plan_stories::b32_the_oldest_waiting_request_goes_first_and_ties_follow_the_configuration,
    ),
    ("T01", "t01_queue_stays_behind", takeover_stories::t01_the_whole_queue_moves_in_order),
    (
        "T03",
        "t03_predecessors_builds_unseen",
        takeover_stories::t03_a_predecessors_build_makes_the_successor_building,
    ),
    (
        "T05",
        "t05_idle_ones_stay_for_ever",
        takeover_stories::t05_seats_of_unlisted_workers_are_let_go_when_they_are_free,
    ),
    ("T06", "t06_attaching_ones_move", takeover_stories::t06_an_attaching_seat_is_not_moved),
    (
        "T07",
        "t07_newer_mail_overtakes",
        inbox_stories::t07_late_mail_of_the_predecessor_is_put_before_newer_mail,
    ),
    (
        "T09",
        "t09_stranded_in_the_predecessor",
        takeover_stories::t09_a_start_that_fails_after_the_takeover_goes_to_the_latest_queues_head,
    ),
    (
        "S02",
        "s02_brought_build_is_forgotten",
        slave_builder_stories::s02_it_is_idle_once_its_worker_is_ready_and_building_with_what_it_brought_back,
    ),
    (
        "S04",
        "s04_joiners_are_forgotten",
        slave_builder_stories::s04_a_persons_ping_joins_a_starts_and_all_are_answered_once,
    ),
    (
        "S05",
        "s05_no_end_is_published",
        slave_builder_stories::s05_a_persons_ping_is_one_event_with_a_beginning_and_an_end,
    ),
    (
        "S06",
        "s06_any_end_frees_the_seat",
        slave_builder_stories::s06_the_end_of_somebody_elses_build_changes_nothing,
    ),
    (
        "S09",
        "s09_a_start_joins_a_persons_ping",
        control_stories::s09_no_start_joins_a_persons_ping,
    ),
    (
        "L02",
        "l02_no_end_is_published",
        latent_stories::l02_a_substantiation_is_one_event_with_a_beginning_and_an_end,
    ),
    (
        "L03",
        "l03_a_latent_one_does_not_answer",
        latent_stories::l03_a_ping_of_an_unsubstantiated_one_succeeds_at_once,
    ),
    (
        "L04",
        "l04_it_waits_on_after_a_failure",
        latent_stories::l04_an_attach_that_fails_goes_back_to_latent,
    ),
    (
        "L05",
        "l05_chosen_for_a_second_build",
        latent_stories::l05_it_is_reserved_for_one_build_until_success_or_failure,
    ),
    ("P02", "p02_no_timer", ping_stories::p02_the_timer_runs_from_the_sending_on),
    ("P03", "p03_waits_on_after_the_answer", ping_stories::p03_an_answer_ends_it_well_and_once),
    (
        "P04",
        "p04_only_a_pong_is_life",
        ping_stories::p04_any_byte_extends_the_wait_up_to_three_timeouts,
    ),
    ("P05", "p05_connection_is_kept", ping_stories::p05_a_lost_connection_is_false),
    (
        "C01",
        "c01_attaching_ones_count",
        control_stories::c01_busy_workers_and_those_within_their_grace_count_and_attaching_ones_do_not,
    ),
    (
        "C03",
        "c03_true_if_any_answers",
        control_stories::c03_ping_asks_all_workers_and_is_true_only_if_each_answers,
    ),
];

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Whether the story fails. What it says of that is not printed.
fn fails(story: fn()) -> bool {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                usual(info);
            }
        }));
    });
    QUIET.set(true);
    let told = catch_unwind(AssertUnwindSafe(story));
    QUIET.set(false);
    told.is_err()
}

#[test]
fn every_planted_fault_is_found_by_the_story_of_its_row() {
    let mut missed = Vec::new();
    for (row, fault, story) in CASES {
        if fails(*story) {
            missed.push(format!("{row}: its story fails with nothing planted"));
            continue;
        }
        let planted = planted::plant(fault);
        let found = fails(*story);
        match (planted.met(), found) {
            (0, _) => missed.push(format!("{row}: the story never comes to {fault}")),
            (_, false) => missed.push(format!("{row}: the story does not find {fault}")),
            (_, true) => {}
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn twenty_rows_of_different_groups_have_a_fault_of_their_own() {
    let rows: BTreeSet<_> = CASES.iter().map(|(row, _, _)| *row).collect();
    assert_eq!(rows.len(), CASES.len());
    assert!(rows.len() >= 20);
    let groups: BTreeSet<_> = rows.iter().filter_map(|row| row.chars().next()).collect();
    assert!(groups.is_superset(&BTreeSet::from(['B', 'T', 'S', 'L', 'P', 'C'])), "{groups:?}");
    for (row, fault, _) in CASES {
        assert!(fault.starts_with(&row.to_lowercase()), "{fault} is not of {row}");
    }
}
