//! A client that is dropped on a thread of its own: the library's destructors wait for their
//! threads and for the network. Never blocks who drops it.

use std::ops::Deref;

/// Derefs to what it holds.
pub(crate) struct Detached<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> Detached<T> {
    pub fn new(value: T) -> Self {
        Detached(Some(value))
    }
}

impl<T: Send + 'static> Deref for Detached<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("it is there until it is dropped")
    }
}

impl<T: Send + 'static> Drop for Detached<T> {
    // The destructor may run outside of any async runtime, so that only a thread is left.
    #[allow(clippy::disallowed_methods)]
    fn drop(&mut self) {
        if let Some(value) = self.0.take() {
            std::thread::spawn(move || drop(value));
        }
    }
}
