//! The access log: a bounded queue to one writer.
