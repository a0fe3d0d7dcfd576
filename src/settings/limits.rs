//! The `[limits]` and `[store]` parts of a configuration: what the worker port
//! bears, and what becomes of builds while the store cannot be written.

use std::time::Duration;

use super::reader::Section;
use super::types::{Limits, StoreSettings};
use crate::core::heartbeats::Outage;

pub(super) const LIMIT_KEYS: &[&str] = &[
    "strangers",
    "strangers_per_address",
    "limit_loopback",
    "wrong_logins_per_minute",
    "attaches_per_minute",
    "frame_time",
    "outgoing_frames",
    "outgoing_bytes",
];
pub(super) const STORE_KEYS: &[&str] = &["outage"];

pub(super) fn read_limits(section: &Section<'_, '_>) -> Limits {
    let standard = Limits::default();
    let count = |name: &str, most: u64, default: usize| {
        let said = section.number(name, 1..=most);
        said.and_then(|number| usize::try_from(number).ok()).unwrap_or(default)
    };
    let frame_time = match section.duration("frame_time") {
        Some(said) if said.value < Duration::from_secs(1) => {
            let fix = "write for example \"30 s\"";
            section.error(&said.span, "frame_time", "this is less than a second", fix);
            standard.frame_time
        }
        Some(said) => said.value,
        None => standard.frame_time,
    };
    let limits = Limits {
        strangers: count("strangers", 1_000_000, standard.strangers),
        strangers_per_address: count(
            "strangers_per_address",
            1_000_000,
            standard.strangers_per_address,
        ),
        limit_loopback: section.flag("limit_loopback").unwrap_or(standard.limit_loopback),
        wrong_logins_per_minute: count(
            "wrong_logins_per_minute",
            1_000_000,
            standard.wrong_logins_per_minute,
        ),
        attaches_per_minute: count("attaches_per_minute", 1_000_000, standard.attaches_per_minute),
        frame_time,
        outgoing_frames: count("outgoing_frames", 1_000_000, standard.outgoing_frames),
        // One frame may be 1 MiB long.
        outgoing_bytes: section
            .number("outgoing_bytes", 1024 * 1024..=1024 * 1024 * 1024)
            .and_then(|number| usize::try_from(number).ok())
            .unwrap_or(standard.outgoing_bytes),
    };
    if limits.strangers_per_address > limits.strangers
        && let Some(span) =
            section.key_span("strangers_per_address").or_else(|| section.key_span("strangers"))
    {
        let message = format!(
            "{} connections of one address are more than the {} of all addresses",
            limits.strangers_per_address, limits.strangers
        );
        let fix = "raise strangers, or lower strangers_per_address";
        section.error(&span, "strangers_per_address", message, fix);
    }
    limits
}

pub(super) fn read_store(section: &Section<'_, '_>) -> StoreSettings {
    let words = [("end_builds", Outage::EndBuilds), ("keep_running", Outage::KeepRunning)];
    let outage = section.word("outage", &words).unwrap_or_default();
    if outage == Outage::KeepRunning {
        section.report.note(
            section.key_span("outage").as_ref(),
            &section.key("outage"),
            "while the store cannot be written, builds go on unconfirmed: until it is back \
             nothing keeps a build from running twice",
            "leave it out where that may not happen",
        );
    }
    StoreSettings { outage }
}
