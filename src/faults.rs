//! Named places at which a test can make an actor panic, or the whole process
//! die. Without the feature `testing` they are nothing at all.

/// A place at which a test can make this thread panic.
#[cfg(not(feature = "testing"))]
#[inline(always)]
pub fn point(_name: &'static str) {}

/// A place at which the process can be made to kill itself, as `kill -9` does
/// it (`docs/fault-matrix.md`, section 5).
#[cfg(not(feature = "testing"))]
#[inline(always)]
pub fn crash_point(_name: &'static str) {}

#[cfg(feature = "testing")]
pub use armed::{arm, disarm_all, left, point};
#[cfg(feature = "testing")]
pub use crash::crash_point;

#[cfg(feature = "testing")]
mod crash {
    use std::sync::{LazyLock, Mutex, PoisonError};

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    /// Names a crash point, or several with commas between: `name`, or `name:n`
    /// for the n-th time that it is reached. The first that comes kills.
    const VARIABLE: &str = "BOTMASTER_CRASH_POINT";
    /// Names a folder. Who dies at a point makes a file of the point's name there
    /// before; while it is there nobody else dies at that point. So children,
    /// and those who come after, are not killed for ever.
    const NOTES: &str = "BOTMASTER_CRASH_NOTES";

    static ARMED: LazyLock<Mutex<Vec<(String, u32)>>> =
        LazyLock::new(|| Mutex::new(parse(&std::env::var(VARIABLE).unwrap_or_default())));

    /// Points with how often each must still be reached.
    pub(super) fn parse(text: &str) -> Vec<(String, u32)> {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        names
            .map(|name| match name.rsplit_once(':') {
                Some((name, times)) => (name.to_owned(), times.parse().unwrap_or(1).max(1)),
                None => (name.to_owned(), 1),
            })
            .collect()
    }

    /// Counts one arrival; true when this is the one that kills.
    pub(super) fn arrives(armed: &mut [(String, u32)], name: &str) -> bool {
        let mut now = false;
        for (_, left) in armed.iter_mut().filter(|(armed, _)| armed == name) {
            now |= *left == 1;
            *left = left.saturating_sub(1);
        }
        now
    }

    /// Whether nobody has died there yet.
    fn first(name: &str) -> bool {
        let Some(folder) = std::env::var_os(NOTES) else { return true };
        let note = std::path::Path::new(&folder).join(name);
        std::fs::OpenOptions::new().write(true).create_new(true).open(note).is_ok()
    }

    /// A place at which the process can be made to kill itself, as `kill -9`
    /// does it (`docs/fault-matrix.md`, section 5).
    pub fn crash_point(name: &'static str) {
        let mut armed = ARMED.lock().unwrap_or_else(PoisonError::into_inner);
        if arrives(&mut armed, name) && first(name) {
            // It cannot fail, and nothing may be done after it.
            let _ = kill(Pid::this(), Signal::SIGKILL);
            loop {
                std::thread::park();
            }
        }
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::crash::{arrives, parse};

    #[test]
    fn a_crash_point_kills_when_it_is_reached_for_the_nth_time() {
        let mut armed = parse("claim.after_commit:2, ping.sent");
        assert!(!arrives(&mut armed, "claim.after_commit"));
        assert!(!arrives(&mut armed, "claim.before_commit"));
        assert!(arrives(&mut armed, "claim.after_commit"));
        assert!(!arrives(&mut armed, "claim.after_commit"));
        assert!(arrives(&mut armed, "ping.sent"));
        assert!(parse("").is_empty());
    }
}

#[cfg(feature = "testing")]
mod armed {
    use std::collections::BTreeMap;
    use std::sync::{Mutex, PoisonError};

    static ARMED: Mutex<BTreeMap<&'static str, u32>> = Mutex::new(BTreeMap::new());

    /// The next `times` times that `name` is reached, it panics.
    pub fn arm(name: &'static str, times: u32) {
        ARMED.lock().unwrap_or_else(PoisonError::into_inner).insert(name, times);
    }

    /// How many panics of this name are still to come.
    #[must_use]
    pub fn left(name: &'static str) -> u32 {
        let armed = ARMED.lock().unwrap_or_else(PoisonError::into_inner);
        armed.get(name).copied().unwrap_or_default()
    }

    /// Nothing panics any more.
    pub fn disarm_all() {
        ARMED.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// A place at which a test can make this thread panic.
    #[expect(clippy::panic, reason = "panicking is what it is for")]
    pub fn point(name: &'static str) {
        let mut armed = ARMED.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(left) = armed.get_mut(name) else { return };
        if *left == 0 {
            return;
        }
        *left -= 1;
        drop(armed);
        panic!("made to panic at {name}");
    }
}
