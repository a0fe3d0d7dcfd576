//! What a run did, as one number; and, when a run is told again, its last
//! lines in words.

use std::collections::VecDeque;

use botmaster::core::time::Timestamp;

/// Lines that are kept.
const LINES: usize = 80;

/// The trace of one run. No wall time enters it: that is decoration (I18).
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    steps: u64,
    /// Whether words are kept, too.
    pub verbose: bool,
    /// Whether all of them are printed at once.
    pub all: bool,
    lines: VecDeque<String>,
}

impl Trace {
    /// An empty one.
    pub fn new(verbose: bool) -> Self {
        Self {
            hash: 0xcbf2_9ce4_8422_2325,
            steps: 0,
            verbose,
            all: std::env::var_os("SIM_TRACE").is_some() && verbose,
            lines: VecDeque::new(),
        }
    }

    fn mix(&mut self, value: u64) {
        self.hash = (self.hash ^ value).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }

    /// Something happened.
    pub fn mark(&mut self, at: Timestamp, what: &str, a: u64, b: u64) {
        self.steps += 1;
        self.mix(at.0);
        for chunk in what.as_bytes().chunks(8) {
            self.mix(chunk.iter().fold(0, |all, byte| (all << 8) | u64::from(*byte)));
        }
        self.mix(a);
        self.mix(b);
    }

    /// The same in words; made only when somebody reads them.
    pub fn say(&mut self, at: Timestamp, line: impl FnOnce() -> String) {
        if self.verbose {
            let line = format!("{:>12.6} s  {}", at.0 as f64 / 1e6, line());
            if self.all {
                eprintln!("{line}");
            }
            if self.lines.len() >= LINES {
                self.lines.pop_front();
            }
            self.lines.push_back(line);
        }
    }

    /// The number.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Marks so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The last lines.
    pub fn lines(&self) -> Vec<String> {
        self.lines.iter().cloned().collect()
    }
}
