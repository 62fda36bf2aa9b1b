// SPDX-License-Identifier: GPL-2.0-or-later

//! Whom to believe, and talking TLS.

use std::io;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{env, fs};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, Error, RootCertStore, StreamOwned};

use super::client::Trust;

pub type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// Where systems keep the certificates of the authorities they trust, in one file.
const SYSTEM: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The authorities: those that are named, else of SSL_CERT_FILE, else of the system, else those that come
/// with this program, so that a static binary works on a system without any.
pub fn config(trust: &Trust) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    for path in &trust.only {
        add_roots(&mut roots, path)?;
    }
    let named = env::var_os("SSL_CERT_FILE")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from);
    if !roots.is_empty() {
        // Nobody else.
    } else if let Some(path) = named {
        add_roots(&mut roots, &path)?;
    } else {
        let mut system = SYSTEM.iter().map(Path::new);
        if !system.any(|path| add_roots(&mut roots, path).is_ok()) {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
    }
    for path in &trust.also {
        add_roots(&mut roots, path)?;
    }
    let builder =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|err| format!("cannot use TLS: {err}"))?
            .with_root_certificates(roots);
    let config = match &trust.client {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = read_certificates(certificate)?;
            let key = PrivateKeyDer::from_pem_slice(&read(key)?)
                .map_err(|_| format!("{} has no key in PEM form", key.display()))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|err| format!("cannot use {}: {err}", certificate.display()))?
        }
    };
    Ok(Arc::new(config))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|err| {
        let err = crate::device::strip_code(&err);
        format!("cannot read the certificates in {}: {err}", path.display())
    })
}

/// A bundle may have some that are not understood; the others count.
fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = read(path)?;
    Ok(CertificateDer::pem_slice_iter(&pem)
        .filter_map(Result::ok)
        .collect())
}

fn add_roots(roots: &mut RootCertStore, path: &Path) -> Result<(), String> {
    let (added, _) = roots.add_parsable_certificates(read_certificates(path)?);
    if added == 0 {
        return Err(format!("{} has no certificate in PEM form", path.display()));
    }
    Ok(())
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
