//! Timers are checked against each other (fault matrix, section 2).

use crate::{BUILDER, faults, load};

fn timer_faults(timers: &str) -> String {
    faults(&format!("[timers]\n{timers}\n{BUILDER}"))
}

#[test]
fn a_lease_is_three_heartbeats_at_least() {
    assert_eq!(
        timer_faults("lease = \"29 s\""),
        "x.toml:2: timers.lease: a lease of 29 s is shorter than three heartbeats of 10 s: one lost frame would end builds\n    \
         fix: write lease = \"30 s\" or more, or a shorter heartbeat"
    );
    // The key that is there is shown, when the other one is a default.
    assert_eq!(
        timer_faults("heartbeat = \"31 s\"\n"),
        "x.toml:2: timers.lease: a lease of 1 min 30 s is shorter than three heartbeats of 31 s: one lost frame would end builds\n    \
         fix: write lease = \"1 min 33 s\" or more, or a shorter heartbeat"
    );
    assert!(load(&format!("[timers]\nlease = \"30 s\"\n{BUILDER}")).is_ok());
}

#[test]
fn a_grace_outlasts_lease_and_kill_time() {
    assert_eq!(
        timer_faults("grace = \"108 s\""),
        "x.toml:2: timers.grace: a grace of 1 min 48 s is shorter than lease (1 min 30 s) + kill_time (10 s) + a tenth of the lease = 1 min 49 s: a build could run twice\n    \
         fix: write grace = \"1 min 49 s\" or more"
    );
    assert!(load(&format!("[timers]\ngrace = \"109 s\"\n{BUILDER}")).is_ok());
    let builder = BUILDER.replace("name = \"b\"\n", "name = \"b\"\ngrace = \"1 min\"\n");
    assert_eq!(
        faults(&builder),
        "x.toml:3: builder[1].grace: a grace of 1 min is shorter than lease (1 min 30 s) + kill_time (10 s) + a tenth of the lease = 1 min 49 s: a build could run twice\n    \
         fix: write grace = \"1 min 49 s\" or more"
    );
}

#[test]
fn timers_that_make_no_sense_are_refused() {
    assert_eq!(
        timer_faults("heartbeat = \"1500 ms\"\nheartbeat_idle = \"5 s\"\nhandshake = \"0 s\""),
        "x.toml:2: timers.heartbeat: 1 s 500 ms is no whole number of seconds from 1 up\n    \
         fix: write whole seconds, for example \"10s\"\n\
         x.toml:3: timers.heartbeat_idle: unknown key\n    \
         fix: remove it; known here are: heartbeat, lease, kill_time, grace, stop_lease, attach_timeout, ping_timeout, handshake\n\
         x.toml:4: timers.handshake: this timer cannot be zero\n    \
         fix: write for example \"10s\""
    );
}
