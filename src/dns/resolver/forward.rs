//! Asking upstreams: hickory-resolver's name server pool, without its cache.
//!
//! The pool orders servers by round-trip time, tries two at once, retransmits and goes over to TCP after TC. We wrap the
//! connections it makes, for four things it does not do: charge every packet to the client query it is sent
//! for, count per upstream how queries ended, go on to the next upstream after SERVFAIL or REFUSED, and keep the
//! bytes of negative answers (the pool hands those on as an error with a SOA in it).
//!
//! **Whose packet is it?** The pool polls its sends in the task that asked (datagrams and TCP connects directly; for
//! TCP queries the hand-over to the connection's task), so the payer is a task-local value around that poll. It
//! cannot be an argument: hickory's traits have no place for one.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::once;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ProtocolConfig, ResolverOpts, ServerOrderingStrategy,
};
use hickory_resolver::net::runtime::{
    DnsUdpSocket, RuntimeProvider, TokioHandle, TokioRuntimeProvider, TokioTime,
};
use hickory_resolver::net::tcp::TcpClientStream;
use hickory_resolver::net::udp::UdpClientStream;
use hickory_resolver::net::xfer::{DnsExchange, DnsHandle, FirstAnswer};
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{
    DnsRequest, DnsRequestOptions, DnsResponse, Query, ResponseCode,
};
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::proto::serialize::binary::{BinDecodable, BinDecoder};
use hickory_resolver::{ConnectionProvider, NameServer, NameServerPool, PoolContext, TlsConfig};
use prometheus::IntCounter;

use super::budget::Budget;
use super::key::Parts;
use crate::metrics::Metrics;
use crate::metrics::resolver::Upstream;

/// One set of upstreams.
pub(super) struct Upstreams {
    servers: Vec<Arc<NameServer<Dialer>>>,
    context: Arc<PoolContext>,
}

impl Upstreams {
    /// Connects to nobody yet. `time` is what a client query may take in all.
    pub(super) fn new(
        addresses: &[SocketAddr],
        time: Duration,
        metrics: &Metrics,
    ) -> Result<Self, NetError> {
        let mut options = ResolverOpts::default();
        options.timeout = time;
        options.edns0 = true;
        options.cache_size = 0;
        options.server_ordering_strategy = ServerOrderingStrategy::QueryStatistics;
        options.max_active_requests = PIPELINE;
        let servers = addresses
            .iter()
            .map(|&address| {
                let dialer = Dialer {
                    runtime: Metered {
                        inner: TokioRuntimeProvider::new(),
                        packets: metrics.resolver.upstream_packets.clone(),
                    },
                    // A silent server must leave time for the next one.
                    patience: time / 3,
                    outcomes: metrics.resolver.upstream(&address.to_string()),
                };
                let mut config = NameServerConfig::udp_and_tcp(address.ip());
                for connection in &mut config.connections {
                    connection.port = address.port();
                }
                Arc::new(NameServer::new([], config, &options, dialer))
            })
            .collect();
        Ok(Self {
            servers,
            context: Arc::new(PoolContext::new(options, TlsConfig::new()?)),
        })
    }

    /// Asks the question and returns the bytes of a reply with NOERROR or NXDOMAIN, unchecked beyond that. Packets are charged to
    /// `budget`; the caller watches its time.
    pub(super) async fn fetch(
        &self,
        question: Parts<'_>,
        budget: &Budget,
    ) -> Result<Vec<u8>, NetError> {
        let name = Name::read(&mut BinDecoder::new(question.name))
            .map_err(|error| NetError::Msg(error.to_string()))?;
        let mut options = DnsRequestOptions::default();
        options.use_edns = true;
        options.edns_set_dnssec_ok = question.dnssec_ok;
        options.recursion_desired = true;
        let query = Query::query(name, RecordType::from(question.qtype));
        let mut request = DnsRequest::from_query(query, options);
        request.metadata.checking_disabled = question.checking_disabled;

        // A pool shares the replies of equal questions in flight. Ours are already one per question, except after a
        // flush, when the new one must not get what the old one asked for: so each fetch has a pool of its own,
        // over the same servers, their connections and their statistics.
        let pool =
            NameServerPool::from_nameservers(self.servers.clone(), Arc::clone(&self.context));
        let negative = Arc::new(Mutex::new(None));
        let payer = Payer {
            budget: budget.share(),
            negative: Arc::clone(&negative),
        };
        let result = PAYER.scope(payer, pool.send(request).first_answer()).await;
        match result {
            Ok(response) => Ok(response.into_buffer()),
            Err(error @ NetError::Dns(DnsError::NoRecordsFound(_))) => negative
                .lock()
                .expect("nothing panics while it is held")
                .take()
                .ok_or(error),
            Err(error) => Err(error),
        }
    }
}

impl std::fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstreams")
            .field("servers", &self.servers.len())
            .finish_non_exhaustive()
    }
}

/// The client query that what is polled now is done for.
struct Payer {
    budget: Budget,
    /// The bytes of the last reply without records.
    negative: Arc<Mutex<Option<Vec<u8>>>>,
}

tokio::task_local! {
    static PAYER: Payer;
}

/// Charges one packet to the client query on whose behalf this is polled.
fn charge(packets: &IntCounter) -> io::Result<()> {
    PAYER
        .try_with(|payer| payer.budget.charge_packet())
        .map_err(io::Error::other)?
        .map_err(io::Error::other)?;
    packets.inc();
    Ok(())
}

/// Makes the connections to one upstream.
#[derive(Clone)]
struct Dialer {
    runtime: Metered,
    patience: Duration,
    outcomes: Upstream,
}

impl ConnectionProvider for Dialer {
    type Conn = Link;
    type FutureConn = Pin<Box<dyn Future<Output = Result<Link, NetError>> + Send>>;
    type RuntimeProvider = Metered;

    fn new_connection(
        &self,
        ip: IpAddr,
        config: &ConnectionConfig,
        context: &PoolContext,
    ) -> Result<Self::FutureConn, NetError> {
        let address = SocketAddr::new(ip, config.port);
        let Self {
            runtime,
            patience,
            outcomes,
        } = self.clone();
        let pipeline = context.options.max_active_requests;
        let stream = matches!(config.protocol, ProtocolConfig::Tcp);
        Ok(Box::pin(async move {
            let packets = runtime.packets.clone();
            let exchange = if stream {
                TcpClientStream::exchange(address, None, patience, Some(pipeline), runtime).await?
            } else {
                UdpClientStream::builder(address, runtime)
                    .with_timeout(Some(patience))
                    .exchange()
            };
            Ok(Link {
                exchange,
                charge: stream.then_some(packets),
                outcomes,
            })
        }))
    }

    fn runtime_provider(&self) -> &Metered {
        &self.runtime
    }
}

/// A connection to one upstream.
#[derive(Clone)]
struct Link {
    exchange: DnsExchange<Metered>,
    /// For TCP: what is to be charged per query. A datagram is charged by its socket.
    charge: Option<IntCounter>,
    outcomes: Upstream,
}

impl DnsHandle for Link {
    type Response = Pin<Box<dyn Stream<Item = Result<DnsResponse, NetError>> + Send>>;
    type Runtime = Metered;

    fn send(&self, request: DnsRequest) -> Self::Response {
        let Self {
            exchange,
            charge: packets,
            outcomes,
        } = self.clone();
        Box::pin(once(async move {
            let outcome = Outcome {
                outcomes,
                done: false,
            };
            let result = async {
                if let Some(packets) = packets {
                    charge(&packets)?;
                }
                exchange.send(request).first_answer().await
            }
            .await;
            outcome.is(&result);
            let response = result?;
            if !is_reply(&response) {
                // As a response the pool would take it for the last word; of an error of this kind it makes nothing
                // but to ask the next upstream.
                tracing::debug!(code = %response.response_code, "upstream refused or failed");
                return Err(NetError::NoConnections);
            }
            if !response.contains_answer() && !response.truncation {
                // Nobody to hand it to means that nobody waits.
                let _ = PAYER.try_with(|payer| {
                    *payer
                        .negative
                        .lock()
                        .expect("nothing panics while it is held") =
                        Some(response.as_buffer().to_vec());
                });
            }
            Ok(response)
        }))
    }
}

/// Whether an upstream says that there is data or that there is none, and not that it cannot tell.
fn is_reply(response: &DnsResponse) -> bool {
    matches!(
        response.response_code,
        ResponseCode::NoError | ResponseCode::NXDomain
    )
}

/// Counts how one query to one upstream ended; dropped undecided, it was abandoned.
struct Outcome {
    outcomes: Upstream,
    done: bool,
}

impl Outcome {
    fn is(mut self, result: &Result<DnsResponse, NetError>) {
        self.done = true;
        match result {
            Ok(response) if is_reply(response) => &self.outcomes.answer,
            Ok(_) => &self.outcomes.failure,
            Err(NetError::Timeout) => &self.outcomes.timeout,
            Err(_) => &self.outcomes.error,
        }
        .inc();
    }
}

impl Drop for Outcome {
    fn drop(&mut self) {
        if !self.done {
            self.outcomes.abandoned.inc();
        }
    }
}

/// Tokio's sockets, with every datagram and every TCP connect charged.
#[derive(Clone)]
struct Metered {
    inner: TokioRuntimeProvider,
    packets: IntCounter,
}

impl RuntimeProvider for Metered {
    type Handle = TokioHandle;
    type Timer = TokioTime;
    type Udp = Socket;
    type Tcp = <TokioRuntimeProvider as RuntimeProvider>::Tcp;

    fn create_handle(&self) -> TokioHandle {
        self.inner.create_handle()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        bind: Option<SocketAddr>,
        timeout: Option<Duration>,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Self::Tcp>>>> {
        let connect = self.inner.connect_tcp(server, bind, timeout);
        let packets = self.packets.clone();
        Box::pin(async move {
            charge(&packets)?;
            connect.await
        })
    }

    fn bind_udp(
        &self,
        local: SocketAddr,
        server: SocketAddr,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Socket>>>> {
        let bind = self.inner.bind_udp(local, server);
        let packets = self.packets.clone();
        Box::pin(async move {
            Ok(Socket {
                inner: bind.await?,
                packets,
                paid: AtomicBool::new(false),
            })
        })
    }
}

/// A UDP socket whose datagrams are charged.
struct Socket {
    inner: tokio::net::UdpSocket,
    packets: IntCounter,
    /// The datagram being sent is charged already.
    paid: AtomicBool,
}

impl DnsUdpSocket for Socket {
    type Time = TokioTime;

    fn poll_recv_from(
        &self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        DnsUdpSocket::poll_recv_from(&self.inner, cx, buf)
    }

    fn poll_send_to(
        &self,
        cx: &mut Context<'_>,
        buf: &[u8],
        target: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        // A fresh socket is not known to be writable, so one datagram is polled twice but paid once.
        if !self.paid.swap(true, Ordering::Relaxed) {
            charge(&self.packets)?;
        }
        let sent = DnsUdpSocket::poll_send_to(&self.inner, cx, buf, target);
        if sent.is_ready() {
            self.paid.store(false, Ordering::Relaxed);
        }
        sent
    }
}

/// Queries in flight on one TCP connection to an upstream.
const PIPELINE: usize = 200;
