//! Answers that are given in any case.

use crate::store::StoreError;

/// Holds a callback and calls it exactly once: with a result, or, when it is
/// dropped because its writer has stopped, with [`StoreError::Closed`].
pub(in crate::store) struct Answer<T>(Option<Callback<T>>);

type Callback<T> = Box<dyn FnOnce(Result<T, StoreError>) + Send>;

impl<T> Answer<T> {
    /// An answer that is still to be given.
    pub fn to(done: Callback<T>) -> Self {
        Self(Some(done))
    }

    /// Gives it.
    pub fn give(mut self, result: Result<T, StoreError>) {
        if let Some(done) = self.0.take() {
            done(result);
        }
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            done(Err(StoreError::Closed));
        }
    }
}
