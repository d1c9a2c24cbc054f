//! TLS around the connections of guests: rustls with one provider named explicitly; certificates and names are always
//! verified.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::bindings::towpath::plugin::types::{Details, Error};
use super::error::cut;
use super::outside::passing;

/// R10: bytes of a file of certificates.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Whom to believe: the authorities of a file (PEM), or those that the public trusts.
pub(crate) fn configuration(file: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    match file {
        Some(path) => {
            for certificate in certificates(path)? {
                let added = roots.add(certificate);
                added.map_err(|error| format!("{} has an unusable certificate: {error}", path.display()))?;
            }
        }
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let unreadable = |why: &dyn std::fmt::Display| format!("{} cannot be read: {why}", path.display());
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| unreadable(&error))?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| unreadable(&error))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(unreadable(&"it has more than 4 MiB"));
    }
    let found = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| unreadable(&error))?;
    if found.is_empty() {
        return Err(format!("{} has no certificate (PEM) in it", path.display()));
    }
    Ok(found)
}

fn distrusted(place: &str, why: &str, hint: &str) -> Error {
    let message = format!("{place} is not believed: {why}");
    Error::NeedsOperator(Details {
        code: "PLUGIN_TLS".to_owned(),
        message: cut(&message, 1024).to_owned(),
        hint: Some(hint.to_owned()),
        path: None,
    })
}

/// Speaks TLS over a connection to `host`, for which the server's certificate must be valid.
pub(crate) async fn connect(
    config: Arc<ClientConfig>,
    host: &str,
    place: &str,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, Error> {
    let name = ServerName::try_from(host.to_owned());
    let name =
        name.map_err(|_| distrusted(place, "no certificate can be valid for such a name", "grant its name"))?;
    TlsConnector::from(config).connect(name, stream).await.map_err(|error| {
        let cause = error.get_ref().and_then(|it| it.downcast_ref::<rustls::Error>());
        match cause {
            Some(rustls::Error::InvalidCertificate(why)) => distrusted(
                place,
                &format!("its certificate: {why}"),
                "`grants.tls_ca` names the file of the authority that has signed it; the certificate must be for the host \
                 as it is written in `grants.tcp`",
            ),
            Some(why) => distrusted(place, &why.to_string(), "does it speak TLS? `tls://` says that it does"),
            None => passing("PLUGIN_TCP", format!("{place} has ended the connection before TLS began: {error}")),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_without_certificates_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        assert!(configuration(Some(&path)).unwrap_err().contains("cannot be read"));
        for (text, says) in [
            ("", "no certificate"),
            ("-----BEGIN CERTIFICATE-----\nMIIB\n", "cannot be read"),
            ("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", "unusable certificate"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = configuration(Some(&path)).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
        assert!(configuration(None).is_ok());
    }
}
