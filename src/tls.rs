//! Certificates of the encrypted listeners, read from files and replaced while they are in use; and whom this node trusts itself.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Where certificate and key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The certificate and those that lead from it to one that clients trust, PEM.
    pub cert: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
}

/// The certificate in use, whatever name a client asks for.
#[derive(Default)]
pub struct Certificates {
    current: ArcSwapOption<CertifiedKey>,
}

impl Files {
    /// Reads both.
    ///
    /// # Errors
    /// The key of the configuration and the file, and what is wrong with it.
    pub fn read(&self) -> Result<Arc<CertifiedKey>, String> {
        let cert = |why: String| format!("tls.cert: {}: {why}", self.cert.display());
        let key = |why: String| format!("tls.key: {}: {why}", self.key.display());
        let chain = CertificateDer::pem_slice_iter(&read(&self.cert).map_err(cert)?)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| cert(error.to_string()))?;
        if chain.is_empty() {
            return Err(cert("found no certificate, expected PEM".to_owned()));
        }
        let private = PrivateKeyDer::from_pem_slice(&read(&self.key).map_err(key)?)
            .map_err(|error| key(format!("{error}; expected a private key in PEM")))?;
        let provider = ring::default_provider();
        CertifiedKey::from_der(chain, private, &provider)
            .map(Arc::new)
            .map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => {
                    key(format!("is not the key of {}", self.cert.display()))
                }
                rustls::Error::InvalidCertificate(_) => cert(error.to_string()),
                error => key(error.to_string()),
            })
    }
}

impl Certificates {
    /// Takes this one for all handshakes from now on.
    pub fn set(&self, certificate: Arc<CertifiedKey>) {
        self.current.store(Some(certificate));
    }

    /// Settings of a TLS server (1.2 and 1.3) that shows the certificate in use and speaks one of `protocols` (ALPN).
    ///
    /// # Errors
    /// What the TLS library or the kernel's dice said.
    pub fn server(
        self: &Arc<Self>,
        protocols: &[&[u8]],
    ) -> Result<rustls::ServerConfig, rustls::Error> {
        let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
        // Clients come back without a full handshake, and nothing is kept for them here.
        config.ticketer = ring::Ticketer::new()?;
        Ok(config)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current.load_full()
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").finish_non_exhaustive()
    }
}

/// Whom this node trusts to vouch for servers: the system's roots, and those of a file beside them.
///
/// # Errors
/// What is wrong with the file; or that there is nobody to trust.
pub fn roots(file: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(native.certs);
    if let Some(file) = file {
        let at = |why: String| {
            let file = file.display();
            format!("found {file}: {why}, expected certificates (PEM)")
        };
        let mut found = 0;
        for certificate in CertificateDer::pem_slice_iter(&read(file).map_err(at)?) {
            let certificate = certificate.map_err(|error| at(error.to_string()))?;
            roots
                .add(certificate)
                .map_err(|error| at(error.to_string()))?;
            found += 1;
        }
        if found == 0 {
            return Err(at("none in it".to_owned()));
        }
    }
    if roots.is_empty() {
        let why = match native.errors.first() {
            Some(error) => format!(" ({error})"),
            None => String::new(),
        };
        return Err(format!(
            "found \"\", and no certificates of authorities in the system's store{why}, expected some in either"
        ));
    }
    Ok(roots)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(SIZE_MAX).read_to_end(&mut bytes))
        .map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// More is no file of certificates.
const SIZE_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    /// The files of a new certificate in `folder`.
    fn files(folder: &Path) -> Files {
        let made = rcgen::generate_simple_self_signed(["dns.test".to_owned()]).unwrap();
        let files = Files {
            cert: folder.join("cert.pem"),
            key: folder.join("key.pem"),
        };
        std::fs::write(&files.cert, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        files
    }

    #[track_caller]
    fn check(files: &Files, expected: &str) {
        let error = files.read().unwrap_err();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn good_files_are_read_and_bad_ones_named() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let good = files(one.path());
        assert_eq!(good.read().unwrap().cert.len(), 1);
        let mixed = Files {
            key: files(other.path()).key,
            ..good.clone()
        };
        check(&mixed, "key.pem: is not the key of");
        let swapped = Files {
            cert: good.key.clone(),
            key: good.cert.clone(),
        };
        check(&swapped, "tls.cert: ");
        let missing = Files {
            cert: one.path().join("none.pem"),
            ..good.clone()
        };
        check(&missing, "none.pem: No such file");
        std::fs::write(&good.key, "no key").unwrap();
        check(&good, "tls.key: ");
    }
}
