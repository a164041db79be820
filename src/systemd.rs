//! systemd: READY, RELOADING, STOPPING, WATCHDOG, inherited sockets.
