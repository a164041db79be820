//! systemd: sockets handed over, and READY, RELOADING, STOPPING, STATUS and WATCHDOG. Without systemd, nothing.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use anyhow::{Context, bail};
use listenfd::ListenFd;
use sd_notify::NotifyState;

use crate::config::Settings;
use crate::dns::front::Inherited;

/// Sockets handed over by systemd, sorted by the service that is configured for their address.
#[derive(Debug, Default)]
pub struct Sockets {
    /// UDP and TCP of the DNS front.
    pub dns: Inherited,
    /// The HTTP server's.
    pub http: Vec<TcpListener>,
    /// The metrics listener's.
    pub metrics: Option<TcpListener>,
    /// The control socket.
    pub admin: Option<UnixListener>,
}

impl Sockets {
    /// Takes what systemd handed over. Call it before any thread is started: it changes the environment.
    ///
    /// # Errors
    /// A socket nothing is configured for: left alone it would take clients and never answer them.
    pub fn inherit(settings: &Settings) -> Result<Self, anyhow::Error> {
        let mut fds = ListenFd::from_env();
        let mut sockets = Self::default();
        for index in 0..fds.len() {
            if let Ok(Some(udp)) = fds.take_udp_socket(index) {
                let address = udp.local_addr().context("inherited UDP socket")?;
                if !settings.dns.listen.contains(&address) {
                    bail!("systemd handed over UDP {address}, which is not in dns.listen");
                }
                sockets.dns.udp.push(udp);
            } else if let Ok(Some(tcp)) = fds.take_tcp_listener(index) {
                let address = tcp.local_addr().context("inherited TCP socket")?;
                tcp.set_nonblocking(true)
                    .with_context(|| format!("inherited TCP {address}"))?;
                sockets.sort_tcp(settings, address, tcp)?;
            } else if let Ok(Some(unix)) = fds.take_unix_listener(index) {
                unix.set_nonblocking(true)
                    .context("inherited control socket")?;
                sockets.admin = Some(unix);
            } else {
                bail!(
                    "systemd handed over descriptor {index}, which is no UDP, TCP or Unix socket"
                );
            }
        }
        Ok(sockets)
    }

    fn sort_tcp(
        &mut self,
        settings: &Settings,
        address: SocketAddr,
        tcp: TcpListener,
    ) -> Result<(), anyhow::Error> {
        if settings.dns.listen.contains(&address) {
            self.dns.tcp.push(tcp);
        } else if settings.http.listen.contains(&address)
            || settings.http.tls_listen.contains(&address)
        {
            self.http.push(tcp);
        } else if settings.metrics_listen == Some(address) {
            self.metrics = Some(tcp);
        } else {
            bail!(
                "systemd handed over TCP {address}, which is not in dns.listen, http.listen, http.tls_listen or metrics.listen"
            );
        }
        Ok(())
    }
}

/// Sockets are bound and zones are loaded.
pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The configuration is read again; [`ready`] ends it.
pub fn reloading() {
    // systemd wants both in one message (Type=notify-reload).
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(_) => notify(&[NotifyState::Reloading]),
    }
}

/// The drain has begun.
pub fn stopping() {
    notify(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

/// The work goes on.
pub fn alive() {
    notify(&[NotifyState::Watchdog]);
}

/// How long systemd waits for [`alive`]; `None`: no watchdog.
#[must_use]
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd was not told");
    }
}
