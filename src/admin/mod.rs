//! The control socket, and the metrics, health and status pages.
