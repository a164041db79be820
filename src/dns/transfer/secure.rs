//! TLS to primaries (RFC 9103): strict, so that who cannot show the certificate gives no zone; there is no way from here to the clear.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, version};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;

/// A connection, whatever it is over.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Whom primaries' certificates are vouched for by, and sessions to resume.
#[derive(Debug)]
pub(super) struct Trust {
    ca_file: Option<PathBuf>,
    /// Read when the first primary is asked so: most nodes have none.
    client: OnceCell<Arc<ClientConfig>>,
}

impl Trust {
    /// The system's certificate authorities, and those of `ca_file`.
    pub(super) fn new(ca_file: Option<PathBuf>) -> Self {
        Self {
            ca_file,
            client: OnceCell::new(),
        }
    }

    /// A handshake with who must be `name`.
    ///
    /// # Errors
    /// What failed: the authorities cannot be read, the certificate does not hold, or what the connection said.
    pub(super) async fn connect(
        &self,
        stream: TcpStream,
        name: ServerName<'static>,
    ) -> Result<Box<dyn Wire>, String> {
        let client = self.client.get_or_try_init(|| async {
            let file = self.ca_file.clone();
            let read = tokio::task::spawn_blocking(move || client(file.as_deref()));
            read.await.unwrap_or_else(|error| Err(error.to_string()))
        });
        let connector = TlsConnector::from(Arc::clone(client.await?));
        let stream = connector.connect(name, stream).await;
        match stream {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(told(&error)),
        }
    }
}

fn client(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    let roots = crate::tls::roots(ca_file);
    let roots = roots.map_err(|problem| format!("dns.transfer.ca_file: {problem}"))?;
    // RFC 9103 section 8.1: no version before 1.3, and the protocol of DNS over TLS.
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&version::TLS13])
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"dot".to_vec()];
    // Early data stays off: who records it can send it again.
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    Ok(Arc::new(config))
}

fn told(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|e| e.downcast_ref());
    match inner {
        Some(rustls::Error::InvalidCertificate(why)) => {
            format!("its certificate does not hold: {why}")
        }
        _ => format!("the handshake failed: {error}"),
    }
}

/// Sessions kept to resume; a primary more begins anew.
const SESSIONS: usize = 256;
