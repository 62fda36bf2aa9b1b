// SPDX-License-Identifier: GPL-2.0-or-later

//! Whom to believe, and talking TLS.

use std::io;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{env, fs};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, Error, RootCertStore, StreamOwned};

pub type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// Where systems keep the certificates of the authorities they trust, in one file.
const SYSTEM: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The authorities: of `ca_file`, else of SSL_CERT_FILE, else of the system, else those that come with
/// this program, so that a static binary works on a system without any.
pub fn config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    let named = ca_file.map(PathBuf::from).or_else(|| {
        env::var_os("SSL_CERT_FILE")
            .filter(|path| !path.is_empty())
            .map(PathBuf::from)
    });
    let roots = match named {
        Some(path) => read_roots(&path)?,
        None => SYSTEM
            .iter()
            .find_map(|path| read_roots(Path::new(path)).ok())
            .unwrap_or_else(|| webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect()),
    };
    let config =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|err| format!("cannot use TLS: {err}"))?
            .with_root_certificates(roots)
            .with_no_client_auth();
    Ok(Arc::new(config))
}

fn read_roots(path: &Path) -> Result<RootCertStore, String> {
    let shown = path.display();
    let pem = fs::read(path).map_err(|err| {
        let err = crate::device::strip_code(&err);
        format!("cannot read the certificates in {shown}: {err}")
    })?;
    let mut roots = RootCertStore::empty();
    // A bundle may have some that are not understood; the others count.
    let found = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok);
    let (added, _) = roots.add_parsable_certificates(found);
    if added == 0 {
        return Err(format!("{shown} has no certificate in PEM form"));
    }
    Ok(roots)
}

/// A connection on which nothing was said yet. The handshake is [`handshake`]'s.
pub fn start(
    config: &Arc<ClientConfig>,
    host: &str,
    socket: TcpStream,
) -> Result<TlsStream, String> {
    let name = ServerName::try_from(host.to_string())
        .map_err(|_| format!("\"{host}\" is no name that a certificate can have"))?;
    let connection = ClientConnection::new(Arc::clone(config), name)
        .map_err(|err| format!("cannot start TLS: {err}"))?;
    Ok(StreamOwned::new(connection, socket))
}

/// Goes on with the handshake; false if it is not done yet. To be called again after a timeout.
pub fn handshake(stream: &mut TlsStream) -> io::Result<bool> {
    if stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(!stream.conn.is_handshaking())
}

/// Whether this error will be the same the next time: the server's certificate, or no TLS at all.
pub fn is_final(err: &io::Error) -> bool {
    err.get_ref()
        .and_then(|inner| inner.downcast_ref::<Error>())
        .is_some_and(|err| {
            matches!(
                err,
                Error::InvalidCertificate(_)
                    | Error::InvalidMessage(_)
                    | Error::PeerIncompatible(_)
                    | Error::NoCertificatesPresented
            )
        })
}
