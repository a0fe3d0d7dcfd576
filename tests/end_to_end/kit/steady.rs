//! A build that goes on while others misbehave.

use super::{Master, Process, assert_counted};

/// Starts worker `steady` and a build of `long`, which counts until `go` opens.
pub fn start_steady(master: &Master<'_>) -> Process {
    let steady = master.worker("steady", 1);
    master.force("long");
    master.said("long", 1, 0, "line 1");
    steady
}

/// It went on all the time: on one connection, to a good end, with every line.
#[track_caller]
pub fn ends_undisturbed(master: &Master<'_>) {
    master.counts_on("long", 1);
    assert_eq!(master.board()["workers"]["steady"]["incarnation"], 1);
    master.place.open("go");
    master.ended_as("long", 1, 0);
    assert_counted(&master.log("long", 1, 0, 'o'));
}
