//! Where the console shows a build: a terminal with a live line at its end, or
//! plain lines for a file or a pipe.

use std::io::Write;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How a running build stands.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Progress {
    /// Builder and number, `builder/7`.
    pub build: String,
    /// How long it runs.
    pub elapsed: Duration,
    /// How long builds like it took, from the second on.
    pub expected: Option<Duration>,
    /// The step it is in.
    pub step: Option<String>,
    /// How long that runs.
    pub step_elapsed: Option<Duration>,
    /// The last line of its log.
    pub last_line: Option<String>,
}

/// Shows lines, and how a build stands.
pub trait Screen {
    /// Shows a line that stays.
    fn line(&mut self, text: &str);
    /// True when it wants to be told how the build stands.
    fn is_live(&self) -> bool;
    /// Shows how the build stands.
    fn progress(&mut self, progress: &Progress);
    /// Takes away what [`Screen::progress`] showed.
    fn clear(&mut self);
}

/// Text without control characters and terminal sequences: a log must not steer
/// anybody's terminal.
#[must_use]
pub(super) fn harmless(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\u{1b}' => skip_sequence(&mut letters),
            '\t' => kept.push(' '),
            letter if letter.is_control() => {}
            letter => kept.push(letter),
        }
    }
    kept
}

/// Skips what follows an escape: colours end with a letter, titles with a bell
/// or another escape, character sets have one letter more.
fn skip_sequence(letters: &mut std::str::Chars<'_>) {
    match letters.next() {
        Some('[') => {
            letters.find(|letter| ('@'..='~').contains(letter));
        }
        Some(']') => {
            let end = letters.find(|letter| matches!(letter, '\u{7}' | '\u{1b}'));
            if end == Some('\u{1b}') {
                letters.next();
            }
        }
        Some('(' | ')' | '*' | '+' | '#' | '%') => {
            letters.next();
        }
        _ => {}
    }
}

/// Plain lines.
pub struct PlainScreen<W: Write>(pub W);

impl<W: Write> Screen for PlainScreen<W> {
    fn line(&mut self, text: &str) {
        // Nobody reads any more: the build goes on all the same.
        let _ = writeln!(self.0, "{text}").and_then(|()| self.0.flush());
    }

    fn is_live(&self) -> bool {
        false
    }

    fn progress(&mut self, _progress: &Progress) {}

    fn clear(&mut self) {}
}

/// A terminal.
pub struct LiveScreen {
    bar: ProgressBar,
}

impl Default for LiveScreen {
    fn default() -> Self {
        let bar = ProgressBar::with_draw_target(Some(1000), ProgressDrawTarget::stdout());
        // Nothing of the bar is seen before there is something to show.
        if let Ok(style) = ProgressStyle::with_template("{wide_msg}") {
            bar.set_style(style);
        }
        Self { bar }
    }
}

/// `1:05`, or `1:02:03` from an hour on.
fn clock(span: Duration) -> String {
    let seconds = span.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes}:{seconds:02}")
    }
}

/// The text of the live line.
#[must_use]
pub(super) fn live_text(progress: &Progress) -> String {
    let mut text = format!("{} {}", progress.build, clock(progress.elapsed));
    match progress.expected {
        Some(expected) if expected > progress.elapsed => {
            text.push_str(&format!(", about {} left", clock(expected - progress.elapsed)));
        }
        Some(expected) => text.push_str(&format!(", usually done after {}", clock(expected))),
        None => {}
    }
    if let Some(step) = &progress.step {
        text.push_str(&format!("  [{step}"));
        if let Some(elapsed) = progress.step_elapsed {
            text.push_str(&format!(" {}", clock(elapsed)));
        }
        text.push(']');
    }
    if let Some(line) = &progress.last_line {
        text.push_str("  ");
        text.push_str(&harmless(line));
    }
    text
}

impl Screen for LiveScreen {
    fn line(&mut self, text: &str) {
        self.bar.suspend(|| {
            // Nobody reads any more: the build goes on all the same.
            let _ = writeln!(std::io::stdout(), "{text}");
        });
    }

    fn is_live(&self) -> bool {
        true
    }

    fn progress(&mut self, progress: &Progress) {
        let template = match progress.expected {
            Some(_) => "{spinner} {bar:20} {wide_msg}",
            None => "{spinner} {wide_msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
        if let Some(expected) = progress.expected {
            let share = progress.elapsed.as_secs_f64() / expected.as_secs_f64().max(0.001);
            // The bar is full only when the build has ended.
            self.bar.set_position((share * 1000.0).clamp(0.0, 990.0) as u64);
        }
        self.bar.set_message(live_text(progress));
        self.bar.tick();
    }

    fn clear(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_sequences_are_left_out() {
        let red =
            "a \u{1b}[1;31mred\u{1b}(B\u{1b}[m word\u{1b}]0;title\u{7}!\u{1b}]8;;x\u{1b}\\?\u{9b}";
        assert_eq!(harmless(red), "a red word!?");
        assert_eq!(harmless("cut \u{1b}["), "cut ");
        assert_eq!(harmless("cut \u{1b}"), "cut ");
    }

    #[test]
    fn the_live_line_tells_builder_times_step_and_log() {
        let mut progress = Progress {
            build: "b/7".into(),
            elapsed: Duration::from_secs(65),
            expected: None,
            step: Some("test".into()),
            step_elapsed: Some(Duration::from_secs(5)),
            last_line: Some("\u{1b}[2Jrunning\t3 tests\r".into()),
        };
        assert_eq!(live_text(&progress), "b/7 1:05  [test 0:05]  running 3 tests");
        progress.expected = Some(Duration::from_secs(3725));
        progress.last_line = None;
        assert_eq!(live_text(&progress), "b/7 1:05, about 1:01:00 left  [test 0:05]");
        progress.expected = Some(Duration::from_secs(60));
        assert_eq!(live_text(&progress), "b/7 1:05, usually done after 1:00  [test 0:05]");
    }
}
