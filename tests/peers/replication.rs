//! Replication of a large object, killed at random points.
