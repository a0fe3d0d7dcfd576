//! The `[timers]` part of a configuration: the timers, checked against each other.

use std::time::Duration;

use super::durations::show_duration;
use super::reader::Section;
use super::types::Timers;

pub(super) const TIMER_KEYS: &[&str] = &[
    "heartbeat",
    "idle_heartbeat",
    "lease",
    "kill_time",
    "grace",
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
    let mut timers = Timers {
        heartbeat: seconds("heartbeat", standard.heartbeat),
        idle_heartbeat: seconds("idle_heartbeat", standard.idle_heartbeat),
        lease: seconds("lease", standard.lease),
        kill_time: seconds("kill_time", standard.kill_time),
        grace: span("grace", standard.grace),
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

/// The shortest grace that keeps a build from running twice: the worker must
/// have ended its processes before the master queues the requests again.
pub(super) fn shortest_grace(timers: &Timers) -> Duration {
    timers.lease + timers.kill_time + timers.lease / 10
}

/// What is wrong with a grace, when it is too short for the timers.
pub(super) fn grace_fault(grace: Duration, timers: &Timers) -> Option<(String, String)> {
    let least = shortest_grace(timers);
    if grace >= least {
        return None;
    }
    let message = format!(
        "a grace of {} is shorter than lease ({}) + kill_time ({}) + a tenth of the lease = {}: \
         a build could run twice",
        show_duration(grace),
        show_duration(timers.lease),
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
    let least = timers.heartbeat * 3;
    if timers.lease < least {
        let message = format!(
            "a lease of {} is shorter than three heartbeats of {}: one lost frame would end builds",
            show_duration(timers.lease),
            show_duration(timers.heartbeat),
        );
        let fix =
            format!("write lease = \"{}\" or more, or a shorter heartbeat", show_duration(least));
        report("lease", &["heartbeat"], message, fix);
    }
    if let Some((message, fix)) = grace_fault(timers.grace, timers) {
        report("grace", &["lease", "kill_time"], message, fix);
    }
}
