// SPDX-License-Identifier: GPL-2.0-or-later

//! Tokens that docker-registry takes, for the tests.

use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use base64::Engine;
use ring::rand::SystemRandom;
use ring::signature::{EcdsaKeyPair, ECDSA_P256_SHA256_FIXED_SIGNING};
use rustls::pki_types::{pem::PemObject, CertificateDer, PrivateKeyDer};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::SystemTime;

static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// One for pulling from "team/app", good for so many seconds; a registry allows for a minute more. It is
/// signed with key.pem of a directory, which cert.pem is for.
pub fn token(dir: &str, user: &str, lasts: i64) -> String {
    let pem = |name: &str| std::fs::read(format!("{dir}/{name}")).unwrap();
    let cert = CertificateDer::from_pem_slice(&pem("cert.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(&pem("key.pem")).unwrap();
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.secret_der(), &random)
        .unwrap();
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let now = now.as_secs() as i64;
    let head = format!(
        "{{\"typ\":\"JWT\",\"alg\":\"ES256\",\"x5c\":[\"{}\"]}}",
        STANDARD.encode(&cert)
    );
    let claims = format!(
        "{{\"iss\":\"tests\",\"sub\":\"{user}\",\"aud\":\"registry\",\"exp\":{},\"nbf\":{},\"iat\":{},\
         \"jti\":\"{}\",\"access\":[{{\"type\":\"repository\",\"name\":\"team/app\",\"actions\":[\"pull\"]}}]}}",
        now + lasts,
        now - 1000,
        now - 1000,
        NUMBER.fetch_add(1, SeqCst)
    );
    let text = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(head),
        URL_SAFE_NO_PAD.encode(claims)
    );
    let signature = key.sign(&random, text.as_bytes()).unwrap();
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}
