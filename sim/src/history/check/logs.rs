//! Logs: what is stored is what was written, up to somewhere.

use super::super::records::History;
use super::{Finding, Invariant, found};

pub fn check(history: &History, findings: &mut Vec<Finding>) {
    for log in &history.logs {
        let (id, build) = (log.log, log.build);
        if !log.written.starts_with(&log.stored) {
            let same = log.written.bytes().zip(log.stored.bytes());
            let place = same.take_while(|(written, stored)| written == stored).count();
            let text = format!("log {id} of build {build} differs from byte {place} on");
            found(findings, Invariant::I9, text);
        } else if log.complete && log.incomplete.is_none() && log.stored.len() < log.written.len() {
            let text = format!(
                "log {id} of build {build} is closed as whole with {} of {} bytes",
                log.stored.len(),
                log.written.len()
            );
            found(findings, Invariant::I9, text);
        } else if history.calm && !log.complete {
            found(findings, Invariant::I6, format!("log {id} of build {build} was never closed"));
        }
    }
}
