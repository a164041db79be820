//! The command line.

use std::process::ExitCode;

/// Reads argv, does what it says.
#[must_use]
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
