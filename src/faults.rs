//! Named places at which a test can make an actor panic. Without the feature
//! `testing` they are nothing at all.

/// A place at which a test can make this thread panic.
#[cfg(not(feature = "testing"))]
#[inline(always)]
pub fn point(_name: &'static str) {}

#[cfg(feature = "testing")]
pub use armed::{arm, disarm_all, left, point};

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
