//! What is wrong or unwise in a zone, gathered while it is read and built: all of it, not only the first.

use super::Problem;

/// A place in one of the files read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::dns) struct At {
    /// Number of the file, in the order they were opened.
    pub(in crate::dns) file: u16,
    /// 1-based; 0: the file as a whole.
    pub(in crate::dns) line: u32,
}

/// Errors and warnings with their places.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Whether faults are errors.
    strict: bool,
    files: Vec<String>,
    errors: Notes,
    warnings: Notes,
}

#[derive(Debug, Default)]
struct Notes {
    kept: Vec<(At, String)>,
    beyond: usize,
}

impl Report {
    /// For what an operator has written here and can correct: its faults are errors.
    pub(super) fn strict() -> Self {
        Self {
            strict: true,
            ..Self::default()
        }
    }

    /// Notes a file that is read now; returns its number.
    pub(super) fn file(&mut self, name: String) -> u16 {
        self.files.push(name);
        (self.files.len() - 1) as u16 // The reader opens at most FILES_MAX.
    }

    /// How many files were opened.
    pub(super) fn files(&self) -> usize {
        self.files.len()
    }

    /// The zone must not be served like this.
    pub(super) fn error(&mut self, at: At, message: impl Into<String>) {
        self.errors.add(at, message.into());
    }

    /// A mistake that BIND refuses to load: an error in a master file, a warning of what others have put into a zone.
    pub(super) fn fault(&mut self, at: At, message: impl Into<String>) {
        if self.strict {
            self.error(at, message);
        } else {
            self.warn(at, message);
        }
    }

    /// Legal but unwise.
    pub(super) fn warn(&mut self, at: At, message: impl Into<String>) {
        self.warnings.add(at, message.into());
    }

    /// Errors and warnings, each in file order, at most [`NOTES_MAX`] and one that says how many more.
    pub(super) fn finish(self) -> (Vec<Problem>, Vec<Problem>) {
        let files = self.files;
        (self.errors.list(&files), self.warnings.list(&files))
    }
}

impl Notes {
    fn add(&mut self, at: At, message: String) {
        if self.kept.len() < NOTES_MAX {
            self.kept.push((at, message));
        } else {
            self.beyond += 1;
        }
    }

    fn list(mut self, files: &[String]) -> Vec<Problem> {
        self.kept.sort_by_key(|(at, _)| *at);
        if self.beyond > 0 {
            let message = format!("{} more like these", self.beyond);
            self.kept.push((At::default(), message));
        }
        let problem = |(at, message): (At, String)| Problem {
            file: files.get(usize::from(at.file)).cloned().unwrap_or_default(),
            line: at.line as usize,
            message,
        };
        self.kept.into_iter().map(problem).collect()
    }
}

/// Errors, and warnings, listed per zone.
pub(super) const NOTES_MAX: usize = 100;
