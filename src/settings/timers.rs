//! The `[timers]` part of a configuration: the timers, checked against each other.

use std::time::Duration;

use super::durations::show_duration;
use super::reader::Section;
use super::types::Timers;
use crate::core::lease;

pub(super) const TIMER_KEYS: &[&str] = &[
    "heartbeat",
    "idle_heartbeat",
    "lease",
    "kill_time",
    "grace",
    "stop_lease",
    "attach_timeout",
    "ping_timeout",
    "handshake",
];

pub(super) fn read_timers(section: &Section<'_, '_>) -> Timers {
    let standard = Timers::default();
    let second = Duration::from_secs(1);
    // These travel to the workers as whole seconds.
    let seconds = |name: &str, default: Duration| match section.duration(name) {
        Some(said) if said.value < second || said.value.subsec_nanos() != 0 => {
            let message =
                format!("{} is no whole number of seconds from 1 up", show_duration(said.value));
            section.error(&said.span, name, message, "write whole seconds, for example \"10s\"");
            default
        }
        Some(said) => said.value,
        None => default,
    };
    let span = |name: &str, default: Duration| match section.duration(name) {
        Some(said) if said.value.is_zero() => {
            section.error(
                &said.span,
                name,
                "this timer cannot be zero",
                "write for example \"10s\"",
            );
            default
        }
        Some(said) => said.value,
        None => default,
    };
    let lease = seconds("lease", standard.lease);
    let mut timers = Timers {
        heartbeat: seconds("heartbeat", standard.heartbeat),
        idle_heartbeat: seconds("idle_heartbeat", standard.idle_heartbeat),
        lease,
        kill_time: seconds("kill_time", standard.kill_time),
        grace: span("grace", standard.grace),
        stop_lease: read_stop_lease(section, standard.stop_lease.max(lease)),
        attach_timeout: span("attach_timeout", standard.attach_timeout),
        ping_timeout: span("ping_timeout", standard.ping_timeout),
        handshake: span("handshake", standard.handshake),
        worker_again: standard.worker_again,
    };
    // Whoever makes heartbeats rarer means those of idle workers, too.
    if section.key_span("idle_heartbeat").is_none() {
        timers.idle_heartbeat = timers.idle_heartbeat.max(timers.heartbeat);
    }
    check_timers(section, &timers);
    timers
}

/// Travels to the workers as whole seconds, too; zero is no lease at all.
fn read_stop_lease(section: &Section<'_, '_>, standard: Duration) -> Duration {
    match section.duration("stop_lease") {
        Some(said) if said.value.subsec_nanos() != 0 => {
            let message = format!("{} is no whole number of seconds", show_duration(said.value));
            let fix = "write whole seconds, for example \"1h\"; \"0s\" grants nothing";
            section.error(&said.span, "stop_lease", message, fix);
            standard
        }
        Some(said) => said.value,
        None => standard,
    }
}

/// The grace of a builder with a lease of its own that does not say: as much
/// longer than the shortest one as the master's.
pub(super) fn grace_for(lease: Duration, timers: &Timers) -> Duration {
    let shortest = lease::shortest_grace(lease, timers.kill_time);
    let slack = timers.grace.saturating_sub(lease::shortest_grace(timers.lease, timers.kill_time));
    shortest + slack
}

/// What is wrong with a lease, when it is too short for the heartbeats.
pub(super) fn lease_fault(lease: Duration, timers: &Timers) -> Option<(String, String)> {
    let least = timers.heartbeat * 3;
    if lease >= least {
        return None;
    }
    let message = format!(
        "a lease of {} is shorter than three heartbeats of {}: one lost frame would end builds",
        show_duration(lease),
        show_duration(timers.heartbeat),
    );
    let fix = format!("write lease = \"{}\" or more, or a shorter heartbeat", show_duration(least));
    Some((message, fix))
}

/// What is wrong with a grace, when it is too short for the lease. The worker
/// must have ended its processes before the master queues the requests again.
pub(super) fn grace_fault(
    grace: Duration,
    lease: Duration,
    timers: &Timers,
) -> Option<(String, String)> {
    let least = lease::shortest_grace(lease, timers.kill_time);
    if grace >= least {
        return None;
    }
    let message = format!(
        "a grace of {} is shorter than lease ({}) + kill_time ({}) + a tenth of the lease = {}: \
         a build could run twice",
        show_duration(grace),
        show_duration(lease),
        show_duration(timers.kill_time),
        show_duration(least),
    );
    Some((message, format!("write grace = \"{}\" or more", show_duration(least))))
}

fn check_timers(section: &Section<'_, '_>, timers: &Timers) {
    // The fault is shown at the key that is there: one of the two must be, since
    // the defaults fit each other.
    let report = |name: &str, others: &[&str], message: String, fix: String| {
        let span = section
            .key_span(name)
            .or_else(|| others.iter().find_map(|other| section.key_span(other)));
        section.report.error(span.as_ref(), &section.key(name), message, fix);
    };
    if timers.idle_heartbeat < timers.heartbeat {
        let message = format!(
            "an idle worker's heartbeat of {} is more frequent than the {} of one that builds",
            show_duration(timers.idle_heartbeat),
            show_duration(timers.heartbeat),
        );
        let fix = format!("write idle_heartbeat = \"{}\" or more", show_duration(timers.heartbeat));
        report("idle_heartbeat", &["heartbeat"], message, fix);
    }
    if let Some((message, fix)) = lease_fault(timers.lease, timers) {
        report("lease", &["heartbeat"], message, fix);
    }
    if let Some((message, fix)) = grace_fault(timers.grace, timers.lease, timers) {
        report("grace", &["lease", "kill_time"], message, fix);
    }
    if !timers.stop_lease.is_zero() && timers.stop_lease < timers.lease {
        let message = format!(
            "a stop_lease of {} is shorter than the lease ({}): a planned stop would grant nothing",
            show_duration(timers.stop_lease),
            show_duration(timers.lease),
        );
        let fix = format!(
            "write stop_lease = \"{}\" or more, or \"0s\" to grant nothing",
            show_duration(timers.lease)
        );
        report("stop_lease", &["lease"], message, fix);
    }
}
