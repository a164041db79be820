//! One budget per client query: upstream packets and time. Passed by reference, never reset.

/// What one client query may still spend.
#[derive(Debug)]
pub struct Budget {}
