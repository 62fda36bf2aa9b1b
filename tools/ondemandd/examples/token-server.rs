// SPDX-License-Identifier: GPL-2.0-or-later

//! A token server for docker-registry, for `scripts/trouble-test`: by https, with the certificate that is in
//! a directory. What it says of how long a token lasts is more than the token does.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;

use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use rustls::pki_types::{pem::PemObject, CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

#[path = "common/token.rs"]
mod token;

/// What is asked for, and how it is answered.
struct Server {
    dir: String,
    user: String,
    password: String,
    lasts: i64,
    config: Arc<ServerConfig>,
}

impl Server {
    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let tls = ServerConnection::new(Arc::clone(&self.config)).map_err(std::io::Error::other)?;
        let mut stream = StreamOwned::new(tls, stream);
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") && head.len() < 16 << 10 {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let pair = STANDARD.encode(format!("{}:{}", self.user, self.password));
        let wanted = format!("authorization: basic {pair}\r\n").to_ascii_lowercase();
        let known = String::from_utf8_lossy(&head)
            .to_ascii_lowercase()
            .contains(&wanted);
        let (status, body) = if known {
            let token = token::token(&self.dir, &self.user, self.lasts);
            let body = format!("{{\"token\":\"{token}\",\"expires_in\":3600}}");
            println!("token");
            ("200 OK", body)
        } else {
            println!("refused");
            ("401 Unauthorized", "{}".to_string())
        };
        write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            body.len()
        )?;
        stream.conn.send_close_notify();
        stream.flush()
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [dir, address, user, password, lasts] = &args[..] else {
        eprintln!("usage: token-server DIR ADDRESS:PORT USER PASSWORD SECONDS");
        return ExitCode::from(2);
    };
    let cert = CertificateDer::from_pem_file(format!("{dir}/cert.pem")).expect("cert.pem");
    let key = PrivateKeyDer::from_pem_file(format!("{dir}/key.pem")).expect("key.pem");
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![cert], key)
        .expect("a certificate and its key");
    let server = Arc::new(Server {
        dir: dir.clone(),
        user: user.clone(),
        password: password.clone(),
        lasts: lasts.parse().expect("a number of seconds"),
        config: Arc::new(config),
    });
    let listener = TcpListener::bind(address).expect("an address to listen to");
    for stream in listener.incoming().flatten() {
        let server = Arc::clone(&server);
        // The client tries again.
        std::thread::spawn(move || {
            if let Err(err) = server.serve(stream) {
                eprintln!("token-server: {err}");
            }
        });
    }
    ExitCode::SUCCESS
}
