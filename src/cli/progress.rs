//! A line that shows how far long work is, on a terminal only: nothing is written into a file or a pipe.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::config::units::{duration_text, size_text};

/// One line on standard error, written over as the work goes on.
#[derive(Debug)]
pub(super) struct Progress {
    what: String,
    /// When it began, and what had been done then.
    begun: Option<(Instant, u64)>,
    terminal: bool,
}

impl Progress {
    pub(super) fn new(what: &str) -> Self {
        Self {
            what: what.to_owned(),
            begun: None,
            terminal: std::io::stderr().is_terminal(),
        }
    }

    /// Says that `done` of `all` bytes are done.
    pub(super) fn show(&mut self, done: u64, all: u64) {
        let (begun, before) = *self.begun.get_or_insert((Instant::now(), done));
        if self.terminal {
            let line = line(&self.what, before, done, all, begun.elapsed());
            // A terminal that went away is no failure of the work.
            let _ = write!(std::io::stderr(), "\r\x1b[K{line}");
        }
    }

    /// Clears the line.
    pub(super) fn end(&mut self) {
        if self.terminal && self.begun.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}

/// A bar, a share, a rate and the time left; the rate is of what was done since the begin.
fn line(what: &str, before: u64, done: u64, all: u64, elapsed: Duration) -> String {
    let share = if all == 0 {
        1.0
    } else {
        done as f64 / all as f64
    };
    let full = (share.clamp(0.0, 1.0) * WIDTH as f64) as usize;
    let bar = format!("{}{}", "#".repeat(full), ".".repeat(WIDTH - full));
    let mut line = format!("{what} [{bar}] {:3.0} %", share.clamp(0.0, 1.0) * 100.0);
    let rate = done.saturating_sub(before) as f64 / elapsed.as_secs_f64().max(1e-3);
    if rate >= 1.0 {
        let left = Duration::from_secs((all.saturating_sub(done) as f64 / rate) as u64);
        line.push_str(&format!(
            ", {}/s, {} left",
            size_text(rate as u64),
            duration_text(left)
        ));
    }
    line
}

/// Characters of the bar.
const WIDTH: usize = 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_says_share_rate_and_time_left() {
        let found = line("/a", 0, 30 << 20, 60 << 20, Duration::from_secs(3));
        assert!(
            found.starts_with("/a [###############...............]  50 %"),
            "{found}"
        );
        assert!(found.ends_with(", 10 MiB/s, 3s left"), "{found}");
    }

    #[test]
    fn line_of_nothing_done_has_no_rate() {
        let found = line("/a", 7, 7, 60, Duration::from_secs(3));
        assert!(found.ends_with(" 12 %"), "{found}");
        assert!(line("/a", 0, 0, 0, Duration::ZERO).ends_with("100 %"));
    }
}
