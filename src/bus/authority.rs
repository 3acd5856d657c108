//! The owner's certificate authority, in a file that may begin with a byte order mark.
//!
//! The client library reads the file itself at each connection, but after a byte order mark it doesn't
//! recognise the line that begins a certificate. Must hold: such a file is read again at each connection
//! too, and rustls alone decides whom to trust.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::text::{unmarked, utf8};

/// The authorities of a whole system take a quarter of this.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// How to load the file.
#[derive(Debug)]
pub(super) enum Authority {
    /// The client library can read it.
    Plain,
    /// It has a byte order mark: use this TLS configuration.
    Marked(Box<ClientConfig>),
}

/// Checks the file, so that an invalid one is reported before anything connects.
pub(super) fn look(path: &Path) -> io::Result<Authority> {
    let bytes = read(path)?;
    authorities(&bytes)?;
    if unmarked(&bytes).len() == bytes.len() {
        return Ok(Authority::Plain);
    }
    let provider = Arc::new(ring::default_provider());
    let verifier = Marked { path: path.to_owned(), provider: Arc::clone(&provider) };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(Authority::Marked(Box::new(config)))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn authorities(bytes: &[u8]) -> io::Result<RootCertStore> {
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let text = utf8(bytes).map_err(|what| invalid(what.to_owned()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
        let certificate = certificate.map_err(|err| invalid(err.to_string()))?;
        roots.add(certificate).map_err(|err| invalid(err.to_string()))?;
    }
    if roots.is_empty() {
        return Err(invalid("it holds no certificate in PEM form".to_owned()));
    }
    Ok(roots)
}

/// Trusts the servers that the authorities in the file vouch for; reads it at each handshake.
#[derive(Debug)]
struct Marked {
    path: PathBuf,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Marked {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let failed = |err: String| rustls::Error::General(err);
        let roots = read(&self.path).and_then(|bytes| authorities(&bytes));
        let roots = Arc::new(roots.map_err(|err| failed(err.to_string()))?);
        WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&self.provider))
            .build()
            .map_err(|err| failed(err.to_string()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_authority_is_told_before_anything_connects() {
        for (bytes, says) in [
            (&b""[..], "no certificate"),
            (b"hello\n", "no certificate"),
            (b"\xff\xfe-\0-\0", "UTF-16"),
            (b"\x30\x82\x01\xff", "not UTF-8"),
        ] {
            let told = authorities(bytes).unwrap_err().to_string();
            assert!(told.contains(says), "{told}");
        }
    }
}
