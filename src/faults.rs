//! Named places at which a test can make an actor panic. Without the feature
//! `testing` they are nothing at all.

/// A place at which a test can make this thread panic.
#[cfg(not(feature = "testing"))]
#[inline(always)]
pub fn point(_name: &'static str) {}

/// A place at which a test can kill this process, as `kill -9` does it.
#[cfg(not(feature = "testing"))]
#[inline(always)]
pub fn crash_point(_name: &'static str) {}

#[cfg(feature = "testing")]
pub use armed::{arm, disarm_all, left, point};
#[cfg(feature = "testing")]
pub use crash::crash_point;

#[cfg(feature = "testing")]
mod crash {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    /// The name that is looked for, and at which of its times it kills.
    static WANTED: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static REACHED: AtomicU64 = AtomicU64::new(0);

    fn wanted() -> Option<(String, u64)> {
        let text = std::env::var("BOTMASTER_CRASH_POINT").ok()?;
        let counted = text
            .rsplit_once(':')
            .and_then(|(name, times)| Some((name.to_owned(), times.parse().ok()?)));
        Some(counted.unwrap_or((text, 1)))
    }

    /// A place at which a test can kill this process, as `kill -9` does it:
    /// `BOTMASTER_CRASH_POINT` is its name, or `name:n` for the n-th time.
    pub fn crash_point(name: &'static str) {
        let Some((wanted, times)) = WANTED.get_or_init(wanted) else { return };
        if wanted != name || REACHED.fetch_add(1, Ordering::SeqCst) + 1 != *times {
            return;
        }
        // Nothing after this place may happen any more.
        let _ = kill(Pid::this(), Signal::SIGKILL);
        loop {
            std::thread::park();
        }
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
