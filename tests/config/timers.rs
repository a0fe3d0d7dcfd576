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
         fix: remove it; known here are: heartbeat, idle_heartbeat, lease, kill_time, grace, stop_lease, attach_timeout, ping_timeout, handshake\n\
         x.toml:4: timers.handshake: this timer cannot be zero\n    \
         fix: write for example \"10s\""
    );
}

#[test]
fn idle_workers_never_beat_more_often_than_busy_ones() {
    assert_eq!(
        timer_faults("heartbeat = \"20 s\"\nidle_heartbeat = \"10 s\""),
        "x.toml:3: timers.idle_heartbeat: an idle worker's heartbeat of 10 s is more frequent than the 20 s of one that builds\n    \
         fix: write idle_heartbeat = \"20 s\" or more"
    );
    let timers =
        |text: &str| load(&format!("[timers]\n{text}\n{BUILDER}")).unwrap().settings.timers;
    assert_eq!(timers("").idle_heartbeat.as_secs(), 60);
    let rare = timers("heartbeat = \"90 s\"\nlease = \"5 min\"\ngrace = \"10 min\"");
    assert_eq!(rare.idle_heartbeat.as_secs(), 90, "it follows");
}

#[test]
fn limits_of_the_worker_port_are_checked() {
    assert_eq!(
        faults(&format!(
            "[limits]\nstrangers = 10\nstrangers_per_address = 20\nframe_time = \"10 ms\"\noutgoing_bytes = 5\n{BUILDER}"
        )),
        "x.toml:3: limits.strangers_per_address: 20 connections of one address are more than the 10 of all addresses\n    \
         fix: raise strangers, or lower strangers_per_address\n\
         x.toml:4: limits.frame_time: this is less than a second\n    \
         fix: write for example \"30 s\"\n\
         x.toml:5: limits.outgoing_bytes: 5 is out of range\n    \
         fix: write a whole number from 1048576 to 1073741824"
    );
    let outage = faults(&format!("[store]\noutage = \"perhaps\"\n{BUILDER}"));
    assert_eq!(
        outage,
        "x.toml:2: store.outage: `perhaps` is not known here\n    \
         fix: write \"end_builds\" or \"keep_running\""
    );
    let loaded = load(&format!("[store]\noutage = \"keep_running\"\n{BUILDER}")).unwrap();
    assert!(loaded.notes[0].message.contains("nothing keeps a build from running twice"));
}

fn builder(more: &str) -> String {
    BUILDER.replace("name = \"b\"\n", &format!("name = \"b\"\n{more}\n"))
}

#[test]
fn a_builders_own_lease_brings_its_grace_with_it() {
    let read = |text: &str| load(text).unwrap().settings.builders[0].clone();
    let second = std::time::Duration::from_secs;
    let usual = read(BUILDER);
    assert_eq!((usual.lease, usual.grace, usual.max_time), (second(90), second(150), None));
    let own = read(&builder("lease = \"10 min\""));
    // As much longer than the shortest one as the master's is.
    assert_eq!((own.lease, own.grace), (second(600), second(600 + 10 + 60 + 41)));
    let both = read(&builder("lease = \"10 min\"\ngrace = \"12 min\"\nmax_time = \"2 h\""));
    assert_eq!((both.grace, both.max_time), (second(720), Some(second(7200))));
    assert_eq!(
        faults(&builder("lease = \"10 min\"\ngrace = \"11 min\"")),
        "x.toml:4: builder[1].grace: a grace of 11 min is shorter than lease (10 min) + kill_time (10 s) + a tenth of the lease = 11 min 10 s: a build could run twice\n    \
         fix: write grace = \"11 min 10 s\" or more"
    );
}

#[test]
fn a_builders_own_lease_must_make_sense() {
    assert_eq!(
        faults(&builder("lease = \"20 s\"")),
        "x.toml:3: builder[1].lease: a lease of 20 s is shorter than three heartbeats of 10 s: one lost frame would end builds\n    \
         fix: write lease = \"30 s\" or more, or a shorter heartbeat"
    );
    assert_eq!(
        faults(&builder("lease = \"10 min\"\non_lost = \"wait\"")),
        "x.toml:3: builder[1].lease: builds of a builder with on_lost = \"wait\" have no lease: their worker goes on without end\n    \
         fix: remove one of the two keys"
    );
    assert_eq!(
        faults(&builder("lease = \"90500 ms\"\nmax_time = \"0 s\"")),
        "x.toml:3: builder[1].lease: 1 min 30 s 500 ms is no whole number of seconds from 1 up\n    \
         fix: write whole seconds, for example \"10 min\"\n\
         x.toml:4: builder[1].max_time: no build ends in no time\n    \
         fix: write for example \"2 h\", or remove the key: then there is no limit"
    );
}

#[test]
fn fm03_the_lease_of_a_planned_stop_is_longer_or_nothing() {
    let read = |timers: &str| {
        load(&format!("[timers]\n{timers}\n{BUILDER}")).unwrap().settings.timers.stop_lease
    };
    let second = std::time::Duration::from_secs;
    assert_eq!(read(""), second(3600));
    assert_eq!(read("stop_lease = \"0 s\""), second(0));
    // A lease that is longer than the default is no fault.
    assert_eq!(read("lease = \"2 h\"\ngrace = \"3 h\""), second(7200));
    assert_eq!(
        timer_faults("stop_lease = \"1 min\""),
        "x.toml:2: timers.stop_lease: a stop_lease of 1 min is shorter than the lease (1 min 30 s): a planned stop would grant nothing\n    \
         fix: write stop_lease = \"1 min 30 s\" or more, or \"0s\" to grant nothing"
    );
}
