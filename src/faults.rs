//! Named places at which a test can make an actor panic or end the whole process.
//! Without the feature `testing` they are nothing at all.

/// A place at which a test can make this thread panic.
#[cfg(not(feature = "testing"))]
#[inline(always)]
pub fn point(_name: &'static str) {}

#[cfg(feature = "testing")]
pub use armed::{arm, disarm_all, left, point};

/// A place at which a test can end this process as `kill -9` would.
#[cfg(not(feature = "testing"))]
#[inline(always)]
pub fn crash_point(_name: &'static str) {}

#[cfg(feature = "testing")]
pub use crash::crash_point;

#[cfg(feature = "testing")]
mod crash {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::getpid;

    static WANTED: OnceLock<Option<(String, u32)>> = OnceLock::new();
    static REACHED: AtomicU32 = AtomicU32::new(0);

    /// Ends this process with SIGKILL when `BOTMASTER_CRASH_POINT` is `name`, or
    /// `name:n` and it is reached for the n-th time.
    pub fn crash_point(name: &'static str) {
        let wanted = WANTED.get_or_init(|| {
            let text = std::env::var("BOTMASTER_CRASH_POINT").ok()?;
            match text.rsplit_once(':') {
                Some((name, times)) => Some((name.to_owned(), times.parse().ok()?)),
                None => Some((text, 1)),
            }
        });
        let Some((_, times)) = wanted.as_ref().filter(|(wanted, _)| wanted == name) else { return };
        if REACHED.fetch_add(1, Ordering::Relaxed) + 1 == *times {
            // It cannot fail for this process.
            let _ = kill(getpid(), Signal::SIGKILL);
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
