//! DNS over dedicated QUIC connections (RFC 9250): a stream for each query, bounded.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{
    Connection, Endpoint, EndpointConfig, IdleTimeout, Incoming, RecvStream, SendStream,
    ServerConfig, TokioRuntime, TransportConfig, VarInt,
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::accept::Reception;
use super::places::Place;
use super::scratch::FRAME;
use super::single::Single;
use crate::dns::wire::Query;
use crate::dns::{Config, Transport};
use crate::metrics::dns::Limit;

/// What all connections share.
pub(super) struct Server {
    config: Config,
    single: Single,
    reception: Reception,
}

impl Server {
    pub(super) fn new(config: &Config, single: Single, reception: Reception) -> Arc<Self> {
        Arc::new(Self {
            config: config.clone(),
            single,
            reception,
        })
    }

    /// An endpoint on a socket.
    ///
    /// # Errors
    /// What the TLS library or the kernel said.
    pub(super) fn endpoint(
        &self,
        socket: UdpSocket,
        tls: rustls::ServerConfig,
    ) -> Result<Endpoint, anyhow::Error> {
        let crypto = QuicServerConfig::try_from(tls).context("TLS 1.3 for QUIC")?;
        let mut server = ServerConfig::with_crypto(Arc::new(crypto));
        server.transport_config(Arc::new(self.transport()?));
        server.max_incoming(self.config.tcp_connections_per_address);
        let config = EndpointConfig::default();
        let runtime = Arc::new(TokioRuntime);
        Endpoint::new(config, Some(server), socket, runtime).context("QUIC endpoint")
    }

    fn transport(&self) -> Result<TransportConfig, anyhow::Error> {
        let mut transport = TransportConfig::default();
        let window = VarInt::try_from(FRAME as u64)?;
        transport
            .max_concurrent_bidi_streams(VarInt::from_u32(self.config.quic_streams))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .max_idle_timeout(Some(IdleTimeout::try_from(self.config.tcp_idle)?))
            // One query fits a stream, and a few long ones a connection.
            .stream_receive_window(window)
            .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
            .send_window(self.config.tcp_unread as u64)
            .datagram_receive_buffer_size(None);
        Ok(transport)
    }

    /// Accepts until the stop.
    pub(super) async fn accept(self: Arc<Self>, endpoint: Endpoint) {
        let stop = &self.reception.stop;
        loop {
            let incoming = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                incoming = endpoint.accept() => incoming,
            };
            match incoming {
                Some(incoming) => self.admit(incoming),
                None => break,
            }
        }
        // Connections finish what they have; no new ones come.
        endpoint.set_server_config(None);
        // Until the last of them said goodbye, somebody has to move packets.
        let _ = timeout(PART * 2, endpoint.wait_idle()).await;
    }

    fn admit(self: &Arc<Self>, incoming: Incoming) {
        let address = incoming.remote_address().ip().to_canonical();
        let places = &self.reception.places;
        if places.are_half_taken(address) && incoming.may_retry() {
            // Who cannot read what is sent to its address gets no place when places are few. Also when the retry fails.
            let _ = incoming.retry();
            return;
        }
        let Some(place) = places.take(address) else {
            incoming.refuse();
            return;
        };
        let server = Arc::clone(self);
        self.reception.tracker.spawn(async move {
            let dns = &server.single.metrics.dns;
            let connecting = match incoming.accept() {
                Ok(connecting) => connecting,
                Err(_) => return dns.handshake_failures.inc(),
            };
            match timeout(server.config.tls_handshake, connecting).await {
                Ok(Ok(connection)) => server.serve(connection, place).await,
                Ok(Err(error)) => {
                    dns.handshake_failures.inc();
                    tracing::debug!(%error, "QUIC handshake failed");
                }
                Err(_) => dns.limit(Limit::TlsHandshake),
            }
        });
    }

    /// Serves one connection to its end.
    async fn serve(self: &Arc<Self>, connection: Connection, place: Place) {
        let stop: &CancellationToken = &self.reception.stop;
        // Of this connection; at most `quic_streams`, which the client is held to.
        let streams = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                accepted = connection.accept_bi() => accepted,
            };
            let Ok((mut send, receive)) = accepted else {
                break;
            };
            let (server, connection) = (Arc::clone(self), connection.clone());
            let address = place.address;
            streams.spawn(async move {
                // Dropped after the connection is closed: else it would look like an empty answer.
                match server.stream(&mut send, receive, address).await {
                    Ok(()) => {}
                    Err(Fault::Protocol(why)) => connection.close(PROTOCOL_ERROR, why.as_bytes()),
                    Err(Fault::Limit(limit)) => {
                        server.single.metrics.dns.limit(limit);
                        connection.close(EXCESSIVE_LOAD, b"");
                    }
                    // The client gave this one up.
                    Err(Fault::Gone) => {}
                }
            });
        }
        streams.close();
        // Bounded by the time of a message and of a resolution; the node's own deadline is behind that.
        streams.wait().await;
        connection.close(NO_ERROR, b"");
    }

    /// Answers the query of one stream.
    async fn stream(
        &self,
        send: &mut SendStream,
        mut receive: RecvStream,
        address: std::net::IpAddr,
    ) -> Result<(), Fault> {
        let message = match timeout(self.config.tcp_message, receive.read_to_end(FRAME)).await {
            Ok(Ok(message)) => message,
            Ok(Err(quinn::ReadToEndError::TooLong)) => {
                return Err(Fault::Protocol("more than one message"));
            }
            Ok(Err(quinn::ReadToEndError::Read(_))) => return Err(Fault::Gone),
            Err(_) => return Err(Fault::Limit(Limit::TcpMessage)),
        };
        let packet = match message.split_first_chunk::<2>() {
            Some((len, packet)) if usize::from(u16::from_be_bytes(*len)) == packet.len() => packet,
            _ => return Err(Fault::Protocol("length and message differ")),
        };
        if packet.get(..2).is_some_and(|id| id != [0, 0]) {
            return Err(Fault::Protocol("message id is not 0"));
        }
        if let Ok(query) = Query::parse(packet)
            && query.edns.is_some_and(|edns| edns.options.keepalive())
        {
            return Err(Fault::Protocol("edns-tcp-keepalive"));
        }
        let answer = self.single.answer(packet, address, Transport::Quic);
        let Some(answer) = answer.await else {
            // No query, or one over a bound.
            let _ = send.reset(INTERNAL_ERROR);
            return Ok(());
        };
        let len = u16::try_from(answer.len()).expect("an answer has at most 65,535 bytes");
        let write = async {
            send.write_all(&len.to_be_bytes()).await?;
            send.write_all(&answer).await
        };
        match timeout(self.config.tcp_unread_time, write).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Fault::Gone),
            Err(_) => return Err(Fault::Limit(Limit::TcpUnread)),
        }
        // It fails only if the client gave the stream up.
        let _ = send.finish();
        // The client has it all, wants no more of it, or is gone.
        let _ = timeout(PART, send.stopped()).await;
        Ok(())
    }
}

/// Why a stream ended without an answer.
enum Fault {
    /// The client broke the rules (RFC 9250 section 4.3.3): the connection ends.
    Protocol(&'static str),
    /// A limit: the connection ends.
    Limit(Limit),
    Gone,
}

/// RFC 9250 section 8.4.
const NO_ERROR: VarInt = VarInt::from_u32(0);
const INTERNAL_ERROR: VarInt = VarInt::from_u32(1);
const PROTOCOL_ERROR: VarInt = VarInt::from_u32(2);
const EXCESSIVE_LOAD: VarInt = VarInt::from_u32(4);

/// A few long queries at once; most have below 100 octets.
const CONNECTION_WINDOW: u32 = 256 << 10;

/// How long a client may take to acknowledge the last answers.
const PART: Duration = Duration::from_secs(1);
