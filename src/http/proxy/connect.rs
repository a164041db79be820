//! Connections to one configured server, in the clear or over TLS; to nobody else.
//!
//! Whom to connect to is said twice, by the configuration and by the request made from it, and looked at before and after:
//! the request must name the configured server, the address reached must be the one that was configured as such, and over
//! TLS the certificate must be for its name.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::Uri;
use http::uri::Authority;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use nix::sys::socket::setsockopt;
use nix::{setsockopt_impl, sockopt_impl};
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::tap::Tap;

/// Connects to one server. Cheap to clone.
#[derive(Clone)]
pub(super) struct Connector {
    http: HttpConnector,
    server: Arc<Server>,
    /// For connection and handshake.
    time: Duration,
}

struct Server {
    authority: Authority,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Connector {
    /// To `upstream` (host and port), over TLS if there are `roots` that vouch for it.
    ///
    /// # Errors
    /// `upstream` is no host, or none that a certificate can be for.
    pub(super) fn new(
        upstream: &str,
        roots: Option<&Arc<RootCertStore>>,
        time: Duration,
    ) -> io::Result<Self> {
        let authority: Authority = upstream.parse().map_err(io::Error::other)?;
        let tls = roots.map(|roots| tls(&authority, roots)).transpose()?;
        let standard = if tls.is_some() { 443 } else { 80 };
        let mut http = HttpConnector::new();
        http.set_connect_timeout(Some(time));
        http.set_nodelay(true);
        http.enforce_http(false);
        Ok(Self {
            http,
            server: Arc::new(Server {
                port: authority.port_u16().unwrap_or(standard),
                authority,
                tls,
            }),
            time,
        })
    }
}

fn tls(
    authority: &Authority,
    roots: &Arc<RootCertStore>,
) -> io::Result<(TlsConnector, ServerName<'static>)> {
    let name = bare(authority.host()).to_owned();
    let name = ServerName::try_from(name).map_err(io::Error::other)?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(Arc::clone(roots))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    Ok((TlsConnector::from(Arc::new(config)), name))
}

impl Server {
    /// Whether `uri` is at this server.
    fn is_named(&self, uri: &Uri) -> bool {
        uri.authority() == Some(&self.authority)
            && uri.scheme_str() == Some(if self.tls.is_some() { "https" } else { "http" })
    }

    /// Whether `address` may be this server's: a name may have any address, an address only itself.
    fn is_at(&self, address: SocketAddr) -> bool {
        let host: Option<IpAddr> = bare(self.authority.host()).parse().ok();
        address.port() == self.port
            && host.is_none_or(|host| host.to_canonical() == address.ip().to_canonical())
    }
}

impl tower_service::Service<Uri> for Connector {
    type Response = Wire;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Wire>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Self { http, server, time } = self.clone();
        async move {
            tokio::time::timeout(time, open(http, &server, uri))
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        }
        .boxed()
    }
}

async fn open(mut http: HttpConnector, server: &Server, uri: Uri) -> io::Result<Wire> {
    use tower_service::Service as _;
    let stranger = || io::Error::new(io::ErrorKind::PermissionDenied, "not the configured server");
    if !server.is_named(&uri) {
        return Err(stranger());
    }
    let stream = http.call(uri).await.map_err(io::Error::other)?;
    let stream = stream.into_inner();
    if !server.is_at(stream.peer_addr()?) {
        return Err(stranger());
    }
    widen(&stream);
    Ok(match &server.tls {
        None => Wire::Clear(TokioIo::new(stream), Tap::default()),
        Some((tls, name)) => {
            let stream = tls.connect(name.clone(), stream).await?;
            Wire::Tls(Box::new(TokioIo::new(stream)))
        }
    })
}

/// Has the kernel offer a window of [`WINDOW`] from the start. It begins with some 64 KiB and widens that only while the
/// reader keeps up, so the first chunk on a new connection takes a dozen turns between both ends. A buffer of a set size
/// would end its widening; asking for a low-water mark makes room for as much, and the mark is taken back at once.
fn widen(stream: &TcpStream) {
    // Without it the connection works all the same.
    let _ = setsockopt(stream, LowWater, &WINDOW);
    let _ = setsockopt(stream, LowWater, &1);
}

sockopt_impl!(
    /// The bytes a reader is woken for (`SO_RCVLOWAT`).
    LowWater,
    SetOnly,
    nix::libc::SOL_SOCKET,
    nix::libc::SO_RCVLOWAT,
    i32
);

/// Bytes an upstream may send ahead: a chunk.
const WINDOW: i32 = 1 << 20;

/// An address within brackets without them.
fn bare(host: &str) -> &str {
    host.strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
}

/// A connection.
pub(super) enum Wire {
    Clear(TokioIo<TcpStream>, Tap),
    Tls(Box<TokioIo<TlsStream<TcpStream>>>),
}

impl Connection for Wire {
    fn connected(&self) -> Connected {
        match self {
            Self::Clear(_, tap) => Connected::new().extra(tap.clone()),
            Self::Tls(_) => Connected::new(),
        }
    }
}

impl Read for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(stream, tap) if tap.is_turned() => {
                tap.hand_over(stream.inner(), cx);
                Poll::Pending
            }
            Self::Clear(_, tap) if tap.make_up(&mut buffer) => Poll::Ready(Ok(())),
            Self::Clear(stream, _) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl Write for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Clear(stream, _) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Clear(stream, _) => Pin::new(stream).poll_write_vectored(cx, parts),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Clear(stream, _) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(stream, _) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(stream, _) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Sessions kept to be resumed with one server.
const SESSIONS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn server(upstream: &str) -> Arc<Server> {
        let connector = Connector::new(upstream, None, Duration::from_secs(1));
        connector.expect("a good upstream").server
    }

    #[test]
    fn only_the_configured_server_is_connected_to() {
        let here = server("127.0.0.1:8000");
        for (uri, good) in [
            ("http://127.0.0.1:8000/a", true),
            ("http://127.0.0.1:8001/a", false),
            ("http://127.0.0.1/a", false),
            ("https://127.0.0.1:8000/a", false),
            ("http://127.0.0.2:8000/a", false),
            ("/a", false),
        ] {
            assert_eq!(here.is_named(&uri.parse().unwrap()), good, "{uri}");
        }
    }

    #[test]
    fn address_reached_is_the_configured_one() {
        #[track_caller]
        fn check(upstream: &str, address: &str, good: bool) {
            assert_eq!(server(upstream).is_at(address.parse().unwrap()), good);
        }
        check("127.0.0.1:8000", "127.0.0.1:8000", true);
        check("127.0.0.1:8000", "127.0.0.1:80", false);
        check("127.0.0.1:8000", "127.0.0.2:8000", false);
        check("[::1]:8000", "[::1]:8000", true);
        check("[::ffff:127.0.0.1]", "127.0.0.1:80", true);
        check("files.test", "192.0.2.1:80", true);
        check("files.test", "192.0.2.1:8080", false);
    }

    #[tokio::test]
    async fn request_for_another_server_is_refused_before_it_is_connected() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let other = listener.local_addr().unwrap();
        let mut connector = Connector::new("127.0.0.1:1", None, Duration::from_secs(5)).unwrap();
        let uri = format!("http://{other}/").parse().unwrap();
        let refused = tower_service::Service::call(&mut connector, uri).await;
        let kind = refused.err().map(|error| error.kind());
        assert_eq!(kind, Some(io::ErrorKind::PermissionDenied));
        assert!(listener.accept().now_or_never().is_none(), "connected");
    }
}
