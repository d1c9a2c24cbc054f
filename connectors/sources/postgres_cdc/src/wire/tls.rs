//! TLS with libpq's modes, over rustls with one provider named explicitly.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::endpoint::{Endpoint, SslMode};
use super::error::{PgError, TlsError};

/// `SSLRequest`: length and the magic number 80877103.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// What an upgrade gave.
pub(super) enum Upgraded {
    /// TLS was not wanted, or not offered.
    Plain(TcpStream),
    /// TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Negotiates TLS as `endpoint.ssl_mode` says.
pub(super) async fn upgrade(
    mut tcp: TcpStream,
    endpoint: &Endpoint,
    host: &str,
) -> Result<Upgraded, PgError> {
    if endpoint.ssl_mode == SslMode::Disable {
        return Ok(Upgraded::Plain(tcp));
    }
    tcp.write_all(&SSL_REQUEST).await?;
    let mut answer = [0];
    tcp.read_exact(&mut answer).await?;
    if answer[0] != b'S' {
        return match endpoint.ssl_mode {
            SslMode::Prefer => Ok(Upgraded::Plain(tcp)),
            _ => Err(PgError::Tls(TlsError::Refused)),
        };
    }
    let config = configuration(endpoint).map_err(PgError::Tls)?;
    let name =
        ServerName::try_from(host.to_owned()).map_err(|_| PgError::Tls(TlsError::Name(host.to_owned())))?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await;
    Ok(Upgraded::Tls(Box::new(stream.map_err(|cause| PgError::Tls(TlsError::Handshake(cause)))?)))
}

fn configuration(endpoint: &Endpoint) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match endpoint.ssl_mode {
        SslMode::VerifyCa | SslMode::VerifyFull => {
            let roots = Arc::new(roots(endpoint.ssl_root_cert.as_deref())?);
            let inner = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider)).build();
            let inner = inner.map_err(|error| TlsError::Setup(rustls::Error::General(error.to_string())))?;
            if endpoint.ssl_mode == SslMode::VerifyFull { inner } else { Arc::new(AnyName { inner }) }
        }
        _ => Arc::new(AnyCertificate { provider: Arc::clone(&provider) }),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    match (&endpoint.ssl_cert, &endpoint.ssl_key) {
        (Some(cert), Some(key)) => {
            let chain = certificates(cert)?;
            let key_bytes = PrivateKeyDer::from_pem_file(key).map_err(|cause| file_error(key, &cause))?;
            Ok(builder.with_client_auth_cert(chain, key_bytes)?)
        }
        _ => Ok(builder.with_no_client_auth()),
    }
}

fn file_error(path: &Path, cause: &impl ToString) -> TlsError {
    TlsError::File { file: path.display().to_string(), cause: cause.to_string() }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(found) if found.is_empty() => Err(file_error(path, &"no certificate in it")),
        Ok(found) => Ok(found),
        Err(cause) => Err(file_error(path, &cause)),
    }
}

fn roots(file: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    match file {
        Some(path) => {
            for certificate in certificates(path)? {
                roots.add(certificate)?;
            }
        }
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
    }
    Ok(roots)
}

/// `prefer` and `require`: encrypts, but believes every certificate, as libpq does in these modes.
#[derive(Debug)]
struct AnyCertificate {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// `verify-ca`: the chain must hold, the name need not.
#[derive(Debug)]
struct AnyName {
    inner: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
