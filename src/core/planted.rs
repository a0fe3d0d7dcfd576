//! Faults that tests plant into the core to see that something finds them.
//!
//! Each is a place in the code that does the wrong thing while its name is
//! planted on this thread. Without the feature `testing` nothing can be
//! planted, and the places are nothing at all.

/// Whether the fault of this name is planted.
#[cfg(not(feature = "testing"))]
#[inline(always)]
#[must_use]
pub fn is(_name: &'static str) -> bool {
    false
}

#[cfg(feature = "testing")]
pub use garden::{is, plant, with};

#[cfg(feature = "testing")]
mod garden {
    use std::cell::RefCell;

    thread_local! {
        /// The faults that are planted, and how often each was met.
        static PLANTED: RefCell<Vec<(&'static str, u64)>> = const { RefCell::new(Vec::new()) };
    }

    /// A planted fault. It is gone when this is dropped.
    #[must_use = "the fault is gone as soon as this is dropped"]
    #[derive(Debug)]
    pub struct Planted(&'static str);

    impl Planted {
        /// How often the fault's place was met: a fault that is never met
        /// shows nothing.
        #[must_use]
        pub fn met(&self) -> u64 {
            PLANTED.with_borrow(|all| {
                all.iter().find(|(name, _)| *name == self.0).map_or(0, |(_, met)| *met)
            })
        }
    }

    impl Drop for Planted {
        fn drop(&mut self) {
            PLANTED.with_borrow_mut(|all| all.retain(|(name, _)| *name != self.0));
        }
    }

    /// Plants a fault on this thread.
    pub fn plant(name: &'static str) -> Planted {
        PLANTED.with_borrow_mut(|all| all.push((name, 0)));
        Planted(name)
    }

    /// Runs `story` with a fault planted; answers how often it was met.
    pub fn with(name: &'static str, story: impl FnOnce()) -> u64 {
        let planted = plant(name);
        story();
        planted.met()
    }

    /// Whether the fault of this name is planted.
    #[must_use]
    pub fn is(name: &'static str) -> bool {
        PLANTED.with_borrow_mut(|all| match all.iter_mut().find(|(known, _)| *known == name) {
            Some((_, met)) => {
                *met += 1;
                true
            }
            None => false,
        })
    }
}
