//! Many points and random kills: a little of what `cargo xtask crash-points`
//! and `cargo xtask chaos` do at length.

use botmaster_proof::{chaos, crash};

use crate::scene::program;

#[track_caller]
fn all_are_well(points: &[&str]) {
    let groups: Vec<Vec<String>> =
        points.iter().map(|all| all.split(',').map(str::to_owned).collect()).collect();
    let reports = crash::run_all(program(), &groups, 2, false, &|_| {}).unwrap();
    assert_eq!(reports.len(), points.len());
    for report in reports {
        assert!(report.is_well(), "{report:#?}");
        assert!(report.unreached.is_empty(), "{report:#?}");
        assert!(report.lives > 1 && report.verdict.builds > 5, "{report:#?}");
    }
}

#[test]
fn fm01_a_master_killed_at_a_crash_point_comes_back_and_nothing_is_lost() {
    all_are_well(&[
        "claim.after_commit:3",
        "start.after_answer:2",
        "log.before_confirm:2",
        "finish.before_commit:2",
        "claim.before_commit,start.after_send",
    ]);
}

#[test]
fn fd05_what_was_committed_and_not_answered_is_there_once() {
    all_are_well(&[
        "submit.after_commit:2",
        "claim.after_commit:2",
        "log.after_commit:2",
        "finish.after_commit",
    ]);
}

#[test]
fn fm02_masters_and_workers_killed_every_second_lose_and_double_nothing() {
    let options = chaos::Options { seconds: 8, seed: 5, workers: 4, keep: false };
    let report = chaos::run(program(), &options).unwrap();
    assert_eq!(report.verdict.violations, Vec::<String>::new());
    assert!(report.kills >= 5 && report.kills_master >= 1 && report.kills_worker >= 1);
    assert!(report.verdict.builds > 10, "{report:?}");
}
