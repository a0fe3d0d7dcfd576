//! A master that ends and comes again, while its load process stays.

use std::path::Path;
use std::time::Duration;

use super::{Master, Started};
use crate::bench::scratch::Scratch;

/// How long a master without builds may take to end.
const END_LIMIT: Duration = Duration::from_secs(60);

impl Master {
    /// `kill -9`. The workers stay.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Ends the workers and the master at once, for data that nobody needs any
    /// more.
    pub fn abandon(mut self) {
        for worker in &mut self.workers {
            worker.kill();
        }
        self.process.kill();
    }

    /// Ends a master without workers as an operator would.
    ///
    /// # Errors
    /// When it does not end well.
    pub fn end(mut self) -> Result<(), String> {
        self.process.end(END_LIMIT)
    }

    /// Starts it again after a [`Master::kill`], on the address that the workers
    /// know.
    ///
    /// # Errors
    /// When it ends, or does not answer in time.
    pub fn start_again(&mut self, scratch: &Scratch, config: &Path) -> Result<(), String> {
        let listen = self.listen.to_string();
        let started = Started::new(&self.programs, scratch, config, &self.guard, &listen)?;
        self.process = started.process;
        self.client = started.client;
        self.http = started.http;
        self.api_ready = started.api_ready;
        Ok(())
    }
}
