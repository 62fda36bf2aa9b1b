// SPDX-License-Identifier: GPL-2.0-or-later

//! Blobs of Debian's docker-registry: with and without a password, a token and TLS, and through a proxy that
//! does everything that proxies and mirrors have been seen to do.
//!
//! `scripts/host-test` says where the registry is; without it these tests are left out.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Instant;

use docker_credential::DockerCredential;

use super::*;
use crate::report::Report;
use crate::source::http::site::Retries;
use crate::source::table::TableSource;
use crate::source::{BlobName, Source};

#[cfg(feature = "tls")]
#[path = "../../../examples/common/token.rs"]
mod token;

/// The user of the tests, and its password's hash as docker-registry wants it.
const USER: &str = "ali baba";
const PASSWORD: &str = "open sesame";
const HTPASSWD: &str = "ali baba:$2b$04$hGITsmYa7cwzyoGa/vMJheVAQCsOUbCreUNWmjFvOyVd7yMpRfTz2\n";

const SIZE: usize = 300_000;
const CHUNK: u64 = 16 << 10;

fn data() -> Vec<u8> {
    (0..SIZE).map(|i| (i * 7 / 5 % 251) as u8).collect()
}

fn testdata(name: &str) -> String {
    format!(
        "{}/src/source/http/testdata/{name}",
        env!("CARGO_MANIFEST_DIR")
    )
}

const EROFS: &str = "application/vnd.erofs";
const EROFS_ZSTD: &str = "application/vnd.erofs+zstd";
const CHUNK_INDEX: &str = "application/vnd.erofs.chunk-index.v1";

fn descriptor(kind: &str, digest: &Digest, size: usize, annotations: &str) -> String {
    format!(
        "{{\"mediaType\":\"{kind}\",\"digest\":\"{digest}\",\"size\":{size},\
         \"annotations\":{{{annotations}}}}}"
    )
}

/// What a registry has, as files: where docker-registry looks for it, without its having been pushed.
struct Store {
    dir: tempfile::TempDir,
    blob: Digest,
    index: Digest,
    manifest: Digest,
}

impl Store {
    /// Has a password be needed: the part of the registry's configuration that says so.
    fn with_password(&self) -> String {
        self.write("../../../htpasswd", HTPASSWD.as_bytes());
        format!(
            "auth:\n  htpasswd:\n    realm: test\n    path: {}/htpasswd\n",
            self.root()
        )
    }

    /// The repository "team/app" with a blob, its index and an image of the two with the tag "1".
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = data();
        let index = ChunkIndex::build(&data[..], SIZE as u64, CHUNK, None).unwrap();
        let mut store = Self {
            blob: Digest::of(&data),
            index: Digest::of(&index),
            manifest: Digest::of(b""),
            dir,
        };
        store.add("_layers", &data);
        store.add("_layers", &index);
        store.add("_layers", b"{}");
        let (blob, index_size) = (descriptor(EROFS, &store.blob, SIZE, ""), index.len());
        let index = descriptor(CHUNK_INDEX, &store.index, index_size, "");
        store.manifest = store.image(&format!("{blob},{index}"));
        store.link("_manifests/tags/1/current", &store.manifest);
        store
    }

    /// Adds an image that has these layers.
    fn image(&self, layers: &str) -> Digest {
        let config = Digest::of(b"{}");
        let manifest = format!(
            "{{\"schemaVersion\":2,\"mediaType\":\"{}\",\
             \"config\":{{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",\"digest\":\"{config}\",\"size\":2}},\
             \"layers\":[{layers}]}}",
            manifest::MANIFEST
        );
        self.add("_manifests/revisions", manifest.as_bytes())
    }

    fn root(&self) -> String {
        self.dir.path().to_str().unwrap().to_string()
    }

    fn write(&self, path: &str, bytes: &[u8]) {
        let path = format!("{}/docker/registry/v2/{path}", self.root());
        fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn link(&self, dir: &str, digest: &Digest) {
        let path = format!("repositories/team/app/{dir}/link");
        self.write(&path, digest.as_str().as_bytes());
    }

    fn add(&self, kind: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let hex = &digest.as_str()[7..];
        let path = format!("blobs/sha256/{}/{hex}/data", &hex[..2]);
        self.write(&path, bytes);
        self.link(&format!("{kind}/sha256/{hex}"), &digest);
        digest
    }
}

/// A docker-registry that ends with the test.
struct Server {
    child: Child,
    address: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

impl Server {
    /// Starts it on a store; `more` is what its configuration has besides.
    fn start(store: &Store, http: &str, more: &str) -> Self {
        Self::start_at(free_address(), store, http, more)
    }

    fn start_at(address: SocketAddr, store: &Store, http: &str, more: &str) -> Self {
        let program = std::env::var_os("ONDEMANDD_TEST_REGISTRY")
            .expect("ONDEMANDD_TEST_REGISTRY names no docker-registry; scripts/host-test has one");
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\n\
             storage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n{http}{more}",
            store.root()
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new(program);
        command
            .arg("serve")
            .arg(&config)
            .env_clear()
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let mut server = Self {
            child,
            address,
            _dir: dir,
        };
        while TcpStream::connect(address).is_err() {
            let ended = server.child.try_wait().unwrap();
            assert!(ended.is_none(), "docker-registry ends: {ended:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }
}

/// How a table is used in a test.
struct Client {
    dir: tempfile::TempDir,
    report: Arc<Report>,
    stop: Arc<Stop>,
    lookups: Arc<AtomicUsize>,
    retries: u32,
    retry_time: Duration,
    timeout: Duration,
    credential: Option<(String, String)>,
}

impl Client {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            report: Report::silent(),
            stop: Arc::new(Stop::new().unwrap()),
            lookups: Arc::default(),
            retries: 3,
            retry_time: Duration::from_secs(3600),
            timeout: Duration::from_secs(3600),
            credential: None,
        }
    }

    fn with_password(password: &str) -> Self {
        Self {
            credential: Some((USER.into(), password.into())),
            ..Self::new()
        }
    }

    /// Has the hosts.toml of a registry say this.
    fn hosts(&self, registry: &str, text: &str) {
        let dir = self.dir.path().join("hosts").join(registry);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("hosts.toml"), text).unwrap();
    }

    fn table(&self, text: &str) -> Result<TableSource, String> {
        let path = self.dir.path().join("table");
        fs::write(&path, text).unwrap();
        let (lookups, credential) = (self.lookups.clone(), self.credential.clone());
        let lookup = move |_: &str| {
            lookups.fetch_add(1, SeqCst);
            let credential = credential.clone();
            Ok(credential
                .map(|(user, password)| DockerCredential::UsernamePassword(user, password)))
        };
        let connecting = Connecting {
            proxies: Proxies::default(),
            timeout: self.timeout,
            connections: 4,
            ca_file: None,
            hosts_dir: self.dir.path().join("hosts"),
            lookup: Arc::new(Box::new(lookup)),
            stop: Arc::clone(&self.stop),
        };
        let retries = Retries {
            most: self.retries,
            time: self.retry_time,
            report: Arc::clone(&self.report),
            stop: Arc::clone(&self.stop),
        };
        TableSource::new(path, connecting, retries)
    }

    /// A table with the blob as "b" and the image as "i".
    fn source(&self, registry: &str, store: &Store, plain: bool) -> TableSource {
        self.table(&table(registry, store, plain)).unwrap()
    }

    /// What the metrics say that begins so.
    fn metric(&self, start: &str) -> u64 {
        let stats = &self.report.stats;
        let text = self.report.metrics.encode(stats, 0, Duration::ZERO);
        let lines = text.lines().filter_map(|line| line.strip_prefix(start));
        lines
            .map(|rest| rest.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
            .sum()
    }
}

fn table(registry: &str, store: &Store, plain: bool) -> String {
    format!(
        "[blob.b]\nregistry = '{registry}/team/app@{}'\nindex = '{}'\n\
         [image.i]\nreference = '{registry}/team/app:1'\n\
         [image.pinned]\nreference = '{registry}/team/app@{}'\n\
         [registry.'{registry}']\nplain-http = {plain}\n",
        store.blob, store.index, store.manifest
    )
}

fn open(source: &TableSource, name: &str) -> Result<Arc<dyn Blob>, SourceError> {
    source.open(&BlobName::from_keys(b"erofs,d", name.as_bytes(), false).unwrap())
}

/// Reads a blob in pieces that are no chunks, and compares them.
fn check(blob: &dyn Blob) -> Result<(), SourceError> {
    let data = data();
    assert_eq!(blob.size(), SIZE as u64);
    let mut off = 0;
    while off < SIZE {
        let len = 70_000.min(SIZE - off);
        let mut buf = vec![0xee; len];
        blob.read_exact_at(&mut buf, off as u64)?;
        assert!(buf == data[off..off + len], "wrong bytes at {off}");
        off += len;
    }
    Ok(())
}

fn refused(result: Result<Arc<dyn Blob>, SourceError>, errno: i32, part: &str) {
    let err = result.err().expect(part);
    assert!(
        err.errno == errno && err.reason.contains(part),
        "{} {err}",
        err.errno
    );
}

#[test]
#[ignore = "needs a docker-registry, which scripts/host-test has"]
fn blobs_and_images_without_a_password() {
    let store = Store::new();
    let server = Server::start(&store, "", "");
    let client = Client::new();
    let source = client.source(&server.address.to_string(), &store, true);
    for name in ["b", "i", "pinned", store.blob.as_str()] {
        let blob = open(&source, name).unwrap();
        check(&*blob).unwrap();
        assert!(blob.version().unwrap().starts_with("chunks "));
        // Fetched by chunks if these are larger.
        assert_eq!(
            (blob.granule(4096), blob.granule(1 << 20)),
            (CHUNK, 1 << 20)
        );
    }
    refused(open(&source, "none"), libc::ENOENT, "no such name");
    refused(
        open(&source, store.index.as_str()),
        libc::ENOENT,
        "no such name",
    );
    assert_eq!(client.lookups.load(SeqCst), 0);
    // What is not in the registry is not there.
    let address = server.address;
    let other = Digest::of(b"other");
    let source = client
        .table(&format!(
            "[blob.b]\nregistry = '{address}/team/app@{}'\nindex = '{other}'\n\
             [blob.u]\nregistry = '{address}/team/app@{other}'\nunverified = true\n\
             [blob.v]\nregistry = '{address}/team/app@{}'\nunverified = true\n\
             [registry.'{address}']\nplain-http = true\n",
            store.blob, store.blob
        ))
        .unwrap();
    refused(open(&source, "b"), libc::ENOENT, "status 404");
    refused(open(&source, "u"), libc::ENOENT, "status 404");
    let blob = open(&source, "v").unwrap();
    check(&*blob).unwrap();
    assert_eq!(blob.version(), Some(&*format!("digest {}", store.blob)));
}

#[test]
#[ignore = "needs a docker-registry, which scripts/host-test has"]
fn compressed_layers() {
    let store = Store::new();
    let server = Server::start(&store, "", "");
    let data = data();
    let mut blob = Vec::new();
    let index = ChunkIndex::build(&data[..], SIZE as u64, CHUNK, Some(&mut blob)).unwrap();
    let of_index = store.add("_layers", &index);
    let (alone, size) = (store.add("_layers", &blob), blob.len());
    // The same with the index in it, in a frame of its own.
    blob.extend([0x50, 0x2a, 0x4d, 0x18]);
    blob.extend((index.len() as u32).to_le_bytes());
    blob.extend(&index);
    let both = store.add("_layers", &blob);
    let inside = format!(
        "\"org.erofs.chunk-index.range\":\"{size}\",\"org.erofs.chunk-index.digest\":\"{of_index}\",\
         \"org.erofs.uncompressed-digest\":\"{}\"",
        store.blob
    );
    let beside = descriptor(CHUNK_INDEX, &of_index, index.len(), "");
    let layer = |kind, digest, size| descriptor(kind, digest, size, "") + "," + &beside;
    let address = server.address;
    let image = |name: &str, layers: &str| {
        let digest = store.image(layers);
        format!("[image.{name}]\nreference = '{address}/team/app@{digest}'\n")
    };
    let text = [
        image("alone", &layer(EROFS_ZSTD, &alone, size)),
        image(
            "inside",
            &descriptor(EROFS_ZSTD, &both, blob.len(), &inside),
        ),
        // Each says of itself that it is of the other kind.
        image("raw", &layer(EROFS, &alone, size)),
        image(
            "none",
            &(descriptor(EROFS_ZSTD, &alone, size, "") + "," + &descriptor("x", &of_index, 1, "")),
        ) + "unverified = true\n",
        format!(
            "[blob.b]\nregistry = '{address}/team/app@{alone}'\nindex = '{of_index}'\n\
             [registry.'{address}']\nplain-http = true\n"
        ),
    ];
    let client = Client::new();
    let source = client.table(&text.concat()).unwrap();
    for name in ["alone", "inside", "b"] {
        let blob = open(&source, name).unwrap();
        check(&*blob).unwrap();
        let whole = (name == "inside").then(|| store.blob.hex());
        assert_eq!(blob.whole(), whole, "{name}");
        assert_eq!(blob.granule(4096), CHUNK);
    }
    refused(open(&source, "raw"), libc::EIO, "of another kind");
    refused(open(&source, "none"), libc::EACCES, "it is compressed");
    // A byte of a frame is another one.
    let registry = server.address;
    let address = scripted(move |_, head, _| {
        let said = forward(registry, head);
        match head.contains(alone.as_str()) {
            true => spoil(&said),
            false => said,
        }
    });
    let text = text
        .concat()
        .replace(&server.address.to_string(), &address.to_string());
    let source = client.table(&text).unwrap();
    let err = check(&*open(&source, "alone").unwrap()).unwrap_err();
    assert!(err.reason.contains("do not have their digest"), "{err}");
}

#[test]
#[ignore = "needs a docker-registry, which scripts/host-test has"]
fn passwords() {
    let store = Store::new();
    let auth = store.with_password();
    let server = Server::start(&store, "", &auth);
    let registry = server.address.to_string();
    let client = Client::with_password(PASSWORD);
    let source = client.source(&registry, &store, true);
    check(&*open(&source, "b").unwrap()).unwrap();
    check(&*open(&source, "i").unwrap()).unwrap();
    // It is kept.
    assert_eq!(client.lookups.load(SeqCst), 1);
    let source = Client::new().source(&registry, &store, true);
    refused(
        open(&source, "b"),
        libc::EACCES,
        "there are no credentials for 127",
    );
    let client = Client::with_password("wrong");
    let source = client.source(&registry, &store, true);
    refused(
        open(&source, "b"),
        libc::EACCES,
        "status 401: it is refused",
    );
    assert_eq!(client.lookups.load(SeqCst), 1);
    // It may be another one by now.
    refused(
        open(&source, "b"),
        libc::EACCES,
        "does not take the password",
    );
    assert_eq!(client.lookups.load(SeqCst), 2);
}

/// What is asked of a server, and what it answers, with the body it had.
type Answer = dyn Fn(usize, &str, &str) -> Vec<u8> + Send + Sync;

/// A server that answers what `answer` says to the number, the head and the body of a request, and closes
/// the connection then. A thread per connection.
fn scripted(answer: impl Fn(usize, &str, &str) -> Vec<u8> + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer: Arc<Answer> = Arc::new(answer);
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let (stream, answer) = (stream.unwrap(), answer.clone());
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let (head, body) = read_message(&mut reader);
                if !head.is_empty() {
                    let _ = (&stream).write_all(&answer(number, &head, &body));
                }
            });
        }
    });
    address
}

fn read_message(reader: &mut BufReader<TcpStream>) -> (String, String) {
    let mut head = String::new();
    while reader.read_line(&mut head).unwrap_or(0) > 0 && !head.ends_with("\r\n\r\n") {}
    let lower = head.to_lowercase();
    let len = lower.split("content-length: ").nth(1);
    let len = len.map_or(0, |text| text.lines().next().unwrap().parse().unwrap());
    let mut body = vec![0; len];
    reader.read_exact(&mut body).unwrap();
    (head, String::from_utf8_lossy(&body).into_owned())
}

fn answer(status: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let len = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {len}\r\nConnection: close\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// What a server answers to a request.
fn forward(address: SocketAddr, head: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    let head = head.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// Head and body of an answer.
fn split(answer: &[u8]) -> (String, Vec<u8>) {
    let at = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    let head = String::from_utf8(answer[..at].to_vec()).unwrap();
    (head, answer[at..].to_vec())
}

/// A proxy of a registry that does `mischief` to the answers for the blob: to their number, what the
/// registry has said, and the request.
fn proxy(
    server: &Server,
    store: &Store,
    mischief: impl Fn(usize, Vec<u8>, &str) -> Vec<u8> + Send + Sync + 'static,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let (registry, blob) = (server.address, store.blob.to_string());
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    let address = scripted(move |_, head, _| {
        let said = forward(registry, head);
        if head.contains(&blob) {
            return mischief(counter.fetch_add(1, SeqCst), said, head);
        }
        said
    });
    (address, count)
}

/// What the head says is something else.
fn replace(said: &[u8], from: &str, to: &str) -> Vec<u8> {
    let (head, body) = split(said);
    assert!(head.contains(from), "{head}");
    [head.replacen(from, to, 1).as_bytes(), &body].concat()
}

/// One byte in the middle is another one.
fn spoil(said: &[u8]) -> Vec<u8> {
    let (head, mut body) = split(said);
    let at = body.len() / 2;
    body[at] ^= 0x40;
    [head.as_bytes(), &body].concat()
}

#[test]
#[ignore = "needs a docker-registry, which scripts/host-test has"]
fn what_passes_is_tried_again() {
    let store = Store::new();
    let server = Server::start(&store, "", "");
    type Mischief = fn(Vec<u8>) -> Vec<u8>;
    let cut: Mischief = |said| {
        // A good part of the body, and then the connection is closed.
        let (head, body) = split(&said);
        [head.as_bytes(), &body[..body.len() / 3]].concat()
    };
    let cut_head: Mischief = |said| said[..20].to_vec();
    let closed: Mischief = |_| Vec::new();
    let bad_gateway: Mischief = |_| answer("502 Bad Gateway", "", b"");
    let busy: Mischief = |_| answer("429 Too Many Requests", "Retry-After: 1\r\n", b"");
    let later: Mischief = |_| answer("503 Service Unavailable", "Retry-After: 1\r\n", b"");
    let other_byte: Mischief = |said| spoil(&said);
    for (what, mischief) in [
        ("a body that is cut off", cut),
        ("a head that is cut off", cut_head),
        ("a connection that is closed", closed),
        ("502", bad_gateway),
        ("429", busy),
        ("503", later),
        ("other bytes, once", other_byte),
    ] {
        let begun = Instant::now();
        let (address, count) = proxy(&server, &store, move |number, said, _| {
            if number % 3 == 0 {
                mischief(said)
            } else {
                said
            }
        });
        let client = Client::new();
        let source = client.source(&address.to_string(), &store, true);
        let blob = open(&source, "b").unwrap();
        check(&*blob).unwrap_or_else(|err| panic!("{what}: {err}"));
        assert!(count.load(SeqCst) > 5, "{what}");
        if what.contains('4') || what == "503" {
            assert!(begun.elapsed() >= Duration::from_secs(1), "{what}");
        }
        let lies = client.metric("ondemand_verify_failures_total");
        assert_eq!(lies > 0, what.starts_with("other"), "{what}");
    }
}

#[test]
#[ignore = "needs a docker-registry, which scripts/host-test has"]
fn what_does_not_pass_gives_no_bytes() {
    let store = Store::new();
    let server = Server::start(&store, "", "");
    type Mischief = fn(Vec<u8>) -> Vec<u8>;
    let wrong_size: Mischief = |said| replace(&said, "/300000", "/300001");
    let wrong_range: Mischief = |said| replace(&said, "bytes ", "bytes 1");
    let longer: Mischief = |said| {
        let (head, body) = split(&said);
        let (len, more) = (body.len(), body.len() + 1);
        let head = head.replace(
            &format!("Content-Length: {len}"),
            &format!("Content-Length: {more}"),
        );
        [head.as_bytes(), &body, b"x"].concat()
    };
    let whole: Mischief = |_| {
        // As a cache does that does not know ranges, and has the wrong thing.
        answer("200 OK", "", &vec![0x55; SIZE])
    };
    let short_whole: Mischief = |_| answer("200 OK", "", b"Please log in to this network");
    let zipped: Mischief = |said| {
        replace(
            &said,
            "Content-Range",
            "Content-Encoding: gzip\r\nContent-Range",
        )
    };
    let cut: Mischief = |said| {
        let (head, body) = split(&said);
        [head.as_bytes(), &body[..body.len().min(100)]].concat()
    };
    let other_bytes: Mischief = |said| spoil(&said);
    let gone: Mischief = |_| answer("404 Not Found", "", b"");
    let forbidden: Mischief = |_| answer("403 Forbidden", "", b"");
    let loops: Mischief = |_| answer("307 Temporary Redirect", "Location: ?again\r\n", b"");
    for (mischief, part) in [
        (wrong_size, "Content-Range"),
        (wrong_range, "Content-Range"),
        (longer, "longer than asked for"),
        (whole, "do not have their digest"),
        (short_whole, "its size is 29"),
        (zipped, "encoded (gzip)"),
        (cut, "ends early"),
        (other_bytes, "do not have their digest"),
        (gone, "status 404"),
        (forbidden, "status 403"),
        (loops, "more than 10 times"),
    ] {
        let (address, _) = proxy(&server, &store, move |_, said, _| mischief(said));
        let client = Client {
            retries: 1,
            ..Client::new()
        };
        let source = client.source(&address.to_string(), &store, true);
        // The index is all right, and says how large it is.
        let blob = open(&source, "b").unwrap();
        let mut buf = vec![0xee; 40_000];
        let err = blob.read_exact_at(&mut buf, 1000).expect_err(part);
        assert!(err.reason.contains(part), "{part}: {err}");
        assert!(err.reason.contains(&address.to_string()), "{err}");
        // Some chunks may have come, if they are right.
        let data = data();
        let came = buf.iter().zip(&data[1000..]);
        let wrong = came.filter(|(byte, right)| **byte != 0xee && byte != right);
        assert_eq!(wrong.count(), 0, "{part}");
        let lies = client.metric("ondemand_verify_failures_total");
        assert_eq!(lies > 0, part.contains("digest"), "{part}");
        let errors = client.metric("ondemand_source_errors_total");
        assert!(errors > 0, "{part}");
        // It is not for good.
        let good = client.source(&server.address.to_string(), &store, true);
        check(&*open(&good, "b").unwrap()).unwrap();
    }
}

#[test]
#[ignore = "needs a docker-registry, which scripts/host-test has"]
fn a_wrong_index_or_manifest_is_not_believed() {
    let store = Store::new();
    let server = Server::start(&store, "", "");
    let registry = server.address;
    for (name, spoilt) in [
        ("b", store.index.to_string()),
        ("i", store.index.to_string()),
        ("pinned", store.manifest.to_string()),
    ] {
        let address = scripted(move |_, head, _| {
            let said = forward(registry, head);
            if head.contains(&spoilt) {
                spoil(&said)
            } else {
                said
            }
        });
        let client = Client::new();
        let source = client.source(&address.to_string(), &store, true);
        refused(open(&source, name), libc::EIO, "wrong bytes");
        assert_eq!(client.metric("ondemand_verify_failures_total"), 1);
    }
}

#[test]
#[ignore = "needs a docker-registry, which scripts/host-test has"]
fn a_lying_mirror_is_named_and_another_one_asked() {
    let store = Store::new();
    let server = Server::start(&store, "", "");
    let (liar, asked) = proxy(&server, &store, |_, said, _| spoil(&said));
    let seen = Arc::new(Mutex::new(String::new()));
    let (heads, real) = (seen.clone(), server.address);
    let good = scripted(move |_, head, _| {
        heads.lock().unwrap().push_str(head);
        forward(real, head)
    });
    let client = Client::new();
    let dead = free_address();
    client.hosts(
        "registry.example:5000",
        &format!(
            "server = 'http://{dead}'\n[host.'http://{liar}']\n[host.'http://{good}']\n\
             capabilities = ['pull', 'resolve']\n[host.'http://{}']\ncapabilities = ['push']\n",
            free_address()
        ),
    );
    let source = client.source("registry.example:5000", &store, false);
    let blob = open(&source, "i").unwrap();
    check(&*blob).unwrap();
    // It is asked again only when nobody else can, for a while.
    assert_eq!(asked.load(SeqCst), 1);
    let lies = format!("ondemand_verify_failures_total{{server=\"{liar}\"}}");
    assert_eq!(client.metric(&lies), 1);
    assert_eq!(client.metric("ondemand_verify_failures_total"), 1);
    assert!(seen
        .lock()
        .unwrap()
        .contains("?ns=registry.example%3A5000 HTTP/1.1"));
}

#[test]
#[ignore = "needs a docker-registry, which scripts/host-test has"]
fn the_way_to_object_storage_is_kept_until_it_expires() {
    let store = Store::new();
    let auth = store.with_password();
    let server = Server::start(&store, "", &auth);
    let expired = Arc::new(AtomicUsize::new(0));
    let (expiring, secrets) = (expired.clone(), Arc::new(Mutex::new(String::new())));
    let heads = secrets.clone();
    let storage = scripted(move |_, head, _| {
        heads.lock().unwrap().push_str(head);
        let signature = format!("?signature={} ", expiring.load(SeqCst));
        if !head.contains(&signature) {
            return answer("403 Forbidden", "", b"Request has expired");
        }
        let (first, last) = range(head);
        let part = &data()[first..=last];
        answer(
            "206 Partial Content",
            &format!("Content-Range: bytes {first}-{last}/{SIZE}\r\n"),
            part,
        )
    });
    let signing = expired.clone();
    let (address, asked) = proxy(&server, &store, move |_, said, head| {
        if !head.contains("Authorization: Basic") {
            return said;
        }
        let location = format!("http://{storage}/x?signature={}", signing.load(SeqCst));
        answer(
            "307 Temporary Redirect",
            &format!("Location: {location}\r\n"),
            b"",
        )
    });
    let client = Client::with_password(PASSWORD);
    let source = client.source(&address.to_string(), &store, true);
    let blob = open(&source, "b").unwrap();
    for round in 1..=3 {
        check(&*blob).unwrap();
        check(&*blob).unwrap();
        assert_eq!(asked.load(SeqCst), round);
        expired.fetch_add(1, SeqCst);
    }
    let secrets = secrets.lock().unwrap();
    assert!(secrets.contains("signature=2") && !secrets.contains("Authorization"));
}

#[test]
#[ignore = "needs a docker-registry, which scripts/host-test has"]
fn a_mirror_that_is_down_delays_neither_what_is_there_nor_what_is_not() {
    let store = Store::new();
    let server = Server::start(&store, "", "");
    // It would be waited for without end.
    let client = Client {
        retries: u32::MAX,
        ..Client::new()
    };
    let (dead, registry) = (free_address(), "registry.example");
    client.hosts(
        registry,
        &format!(
            "server = 'http://{}'\n[host.'http://{dead}']\n",
            server.address
        ),
    );
    let other = Digest::of(b"other");
    let text = format!(
        "{}[blob.none]\nregistry = '{registry}/team/app@{other}'\nunverified = true\n",
        table(registry, &store, false)
    );
    let source = client.table(&text).unwrap();
    for _ in 0..10 {
        check(&*open(&source, "b").unwrap()).unwrap();
        refused(open(&source, "none"), libc::ENOENT, "status 404");
    }
    // Nor is it asked each time.
    let failed = client.metric(&format!("ondemand_source_errors_total{{server=\"{dead}\""));
    assert!((5..=20).contains(&failed), "{failed}");
}

#[test]
#[ignore = "needs a docker-registry, which scripts/host-test has"]
fn object_storage_that_is_down_is_not_the_registry() {
    let store = Store::new();
    let server = Server::start(&store, "", "");
    let dead = free_address();
    let (address, asked) = proxy(&server, &store, move |number, said, _| {
        if number < 6 {
            let location = format!("Location: http://{dead}/x\r\n");
            return answer("307 Temporary Redirect", &location, b"");
        }
        said
    });
    // No time to wait for anything.
    let client = Client {
        retries: 0,
        retry_time: Duration::ZERO,
        ..Client::new()
    };
    let source = client.source(&address.to_string(), &store, true);
    let blob = open(&source, "b").unwrap();
    let mut buf = vec![0; 1000];
    // More failures than a server may have before it counts as down.
    for _ in 0..6 {
        assert!(blob.read_exact_at(&mut buf, 0).is_err());
    }
    assert_eq!(asked.load(SeqCst), 6);
    open(&source, "i").unwrap();
    check(&*blob).unwrap();
}

#[test]
#[ignore = "needs a docker-registry, which scripts/host-test has"]
fn a_redirect_to_the_registry_itself_is_asked_with_the_password() {
    let store = Store::new();
    let auth = store.with_password();
    let server = Server::start(&store, "", &auth);
    let (address, asked) = proxy(&server, &store, |_, said, head| {
        if head.contains("?there") || !head.contains("Authorization") {
            return said;
        }
        answer("307 Temporary Redirect", "Location: ?there\r\n", b"")
    });
    let client = Client::with_password(PASSWORD);
    let source = client.source(&address.to_string(), &store, true);
    let blob = open(&source, "b").unwrap();
    let mut buf = vec![0; 1000];
    for _ in 0..10 {
        blob.read_exact_at(&mut buf, 0).unwrap();
    }
    // No range is refused at first.
    assert_eq!(asked.load(SeqCst), 20);
}

/// The range that a request asks for.
fn range(head: &str) -> (usize, usize) {
    let range = head.split("Range: bytes=").nth(1).unwrap();
    let (first, last) = range.lines().next().unwrap().split_once('-').unwrap();
    (first.parse().unwrap(), last.parse().unwrap())
}

#[test]
#[ignore = "needs a docker-registry, which scripts/host-test has"]
fn a_registry_that_restarts_is_waited_for_by_one_request_at_a_time() {
    let store = Store::new();
    let server = Server::start(&store, "", "");
    let address = server.address;
    let client = Client {
        retries: 1000,
        ..Client::new()
    };
    let source = client.source(&address.to_string(), &store, true);
    let blob = open(&source, "b").unwrap();
    drop(server);
    let readers: Vec<_> = (0..20)
        .map(|_| {
            let blob = blob.clone();
            std::thread::spawn(move || check(&*blob))
        })
        .collect();
    std::thread::sleep(Duration::from_secs(3));
    let failed = client.metric("ondemand_source_errors_total");
    // Each has found out by itself at first; then they have not all kept asking.
    assert!((1..=30).contains(&failed), "{failed}");
    let _server = Server::start_at(address, &store, "", "");
    for reader in readers {
        reader.join().unwrap().unwrap();
    }
}

#[test]
#[ignore = "needs a docker-registry, which scripts/host-test has"]
fn a_body_that_crawls_is_given_up_for_a_mirror() {
    use crate::guard::{tests::LIMITS, Guard, Limits};
    let store = Store::new();
    let server = Server::start(&store, "", "");
    let blob = store.blob.to_string();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let slow = listener.local_addr().unwrap();
    let registry = server.address;
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let blob = blob.clone();
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let (head, _) = read_message(&mut reader);
                let said = forward(registry, &head);
                if !head.contains(&blob) {
                    return drop(stream.write_all(&said));
                }
                let (head, body) = split(&said);
                let _ = stream.write_all(head.as_bytes());
                for byte in body {
                    if stream.write_all(&[byte]).is_err() {
                        return;
                    }
                    std::thread::sleep(Duration::from_millis(50));
                }
            });
        }
    });
    let client = Client::new();
    client.hosts(
        "registry.example",
        &format!("server = 'http://{registry}'\n[host.'http://{slow}']\n"),
    );
    let source = client.source("registry.example", &store, false);
    let blob = open(&source, "b").unwrap();
    let limits = Limits {
        min_speed: 1 << 20,
        window: Duration::from_secs(1),
        ..LIMITS
    };
    Guard::new(limits).run(|| check(&*blob)).unwrap();
    assert!(client.metric("ondemand_source_errors_total") > 0);
}

#[cfg(feature = "tls")]
mod tokens {
    use super::*;

    /// A token that docker-registry takes, good for so many seconds.
    fn token(lasts: i64) -> String {
        super::token::token(testdata("").trim_end_matches('/'), USER, lasts)
    }

    fn auth(realm: &str) -> String {
        format!(
            "auth:\n  token:\n    realm: {realm}\n    service: registry\n    issuer: tests\n    \
             rootcertbundle: {}\n",
            testdata("ca.pem")
        )
    }

    /// A token server that knows the user. Its first tokens have expired long ago, whatever it says.
    fn token_server(expired: usize, expires_in: u64) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heads = asked.clone();
        let address = scripted(move |number, head, body| {
            heads.lock().unwrap().push(format!("{head}{body}"));
            let user = basic_of();
            let identity = body.contains("refresh_token=IDENTITY%2B") && head.starts_with("POST");
            if !head.contains(&format!("Authorization: {user}\r\n")) && !identity {
                return answer("401 Unauthorized", "", b"{}");
            }
            let lasts = if number < expired { -500 } else { 500 };
            let name = if identity { "access_token" } else { "token" };
            let token = token(lasts);
            let text = format!("{{\"{name}\":\"{token}\",\"expires_in\":{expires_in},\"x\":[]}}");
            answer(
                "200 OK",
                "Content-Type: application/json\r\n",
                text.as_bytes(),
            )
        });
        (address, asked)
    }

    fn basic_of() -> String {
        crate::source::http::url::basic_of(format!("{USER}:{PASSWORD}").as_bytes())
    }

    #[test]
    #[ignore = "needs a docker-registry, which scripts/host-test has"]
    fn tokens_are_fetched_kept_and_renewed() {
        let store = Store::new();
        let (realm, asked) = token_server(1, 3600);
        let server = Server::start(&store, "", &auth(&format!("http://{realm}/token?x=y")));
        let registry = server.address.to_string();
        let client = Client::with_password(PASSWORD);
        let source = client.source(&registry, &store, true);
        // A new token that is refused is no reason to ask for another one; an old one is.
        refused(open(&source, "b"), libc::EACCES, "status 401");
        let blob = open(&source, "b").unwrap();
        check(&*blob).unwrap();
        check(&*open(&source, "i").unwrap()).unwrap();
        let asked = asked.lock().unwrap();
        assert_eq!(asked.len(), 2);
        for head in asked.iter() {
            let query =
                "GET /token?x=y&scope=repository%3Ateam%2Fapp%3Apull&service=registry HTTP/1.1\r\n";
            assert!(head.starts_with(query), "{head}");
        }
        drop(asked);
        // Without a user there is no token.
        let source = Client::new().source(&registry, &store, true);
        refused(open(&source, "b"), libc::EACCES, "the token server");
    }

    #[test]
    #[ignore = "needs a docker-registry, which scripts/host-test has"]
    fn tokens_are_renewed_before_they_expire() {
        let store = Store::new();
        // All are good; they are said to be so for a second.
        let (realm, asked) = token_server(0, 1);
        let server = Server::start(&store, "", &auth(&format!("http://{realm}/")));
        let client = Client::with_password(PASSWORD);
        let source = client.source(&server.address.to_string(), &store, true);
        let blob = open(&source, "b").unwrap();
        for _ in 0..3 {
            check(&*blob).unwrap();
            std::thread::sleep(Duration::from_secs(1));
        }
        assert!(asked.lock().unwrap().len() >= 3);
        // No request was refused for it.
        assert_eq!(client.metric("ondemand_source_errors_total"), 0);
    }

    #[test]
    #[ignore = "needs a docker-registry, which scripts/host-test has"]
    fn identity_tokens_are_exchanged() {
        let store = Store::new();
        let (realm, asked) = token_server(0, 3600);
        let server = Server::start(&store, "", &auth(&format!("http://{realm}/")));
        let address = server.address;
        let client = Client::new();
        let lookup = |_: &str| Ok(Some(DockerCredential::IdentityToken("IDENTITY+".into())));
        let connecting = Connecting {
            proxies: Proxies::default(),
            timeout: client.timeout,
            connections: 4,
            ca_file: None,
            hosts_dir: client.dir.path().into(),
            lookup: Arc::new(Box::new(lookup)),
            stop: Arc::clone(&client.stop),
        };
        let path = client.dir.path().join("table");
        fs::write(&path, table(&address.to_string(), &store, true)).unwrap();
        let retries = Retries {
            most: 0,
            time: client.retry_time,
            report: Arc::clone(&client.report),
            stop: Arc::clone(&client.stop),
        };
        let source = TableSource::new(path, connecting, retries).unwrap();
        check(&*open(&source, "b").unwrap()).unwrap();
        assert_eq!(asked.lock().unwrap().len(), 1);
    }

    #[test]
    #[ignore = "needs a docker-registry, which scripts/host-test has"]
    fn private_authorities_and_no_password_in_clear() {
        let store = Store::new();
        let (realm, asked) = token_server(0, 3600);
        let tls = format!(
            "  tls:\n    certificate: {}\n    key: {}\n",
            testdata("cert.pem"),
            testdata("key.pem")
        );
        let server = Server::start(&store, &tls, &auth(&format!("http://{realm}/")));
        let registry = format!("localhost:{}", server.address.port());
        let client = Client::with_password(PASSWORD);
        // Without its authority, it is refused for good.
        let source = client.source(&registry, &store, false);
        refused(open(&source, "b"), libc::EIO, "UnknownIssuer");
        client.hosts(&registry, &format!("ca = '{}'\n", testdata("ca.pem")));
        let source = client.source(&registry, &store, false);
        refused(open(&source, "b"), libc::EACCES, "is not reached by https");
        assert_eq!(
            (client.lookups.load(SeqCst), asked.lock().unwrap().len()),
            (0, 0)
        );
        drop(server);
        let auth = store.with_password();
        let server = Server::start(&store, &tls, &auth);
        let registry = format!("localhost:{}", server.address.port());
        client.hosts(&registry, &format!("ca = '{}'\n", testdata("ca.pem")));
        let source = client.source(&registry, &store, false);
        check(&*open(&source, "b").unwrap()).unwrap();
    }

    #[test]
    #[ignore = "needs a docker-registry, which scripts/host-test has"]
    fn certificates_of_clients() {
        let store = Store::new();
        let (cert, key, ca) = (
            testdata("cert.pem"),
            testdata("key.pem"),
            testdata("ca.pem"),
        );
        // A file with both, as containerd takes it.
        let user = testdata("client.pem");
        let tls = format!(
            "  tls:\n    certificate: {cert}\n    key: {key}\n    clientcas:\n      - {user}\n"
        );
        let server = Server::start(&store, &tls, "");
        let registry = format!("localhost:{}", server.address.port());
        let client = Client {
            retries: 0,
            ..Client::new()
        };
        client.hosts(&registry, &format!("ca = '{ca}'\n"));
        let source = client.source(&registry, &store, false);
        assert!(open(&source, "b").is_err());
        client.hosts(&registry, &format!("ca = '{ca}'\nclient = '{user}'\n"));
        let source = client.source(&registry, &store, false);
        check(&*open(&source, "b").unwrap()).unwrap();
        // A certificate that cannot be used is named when the table is read.
        client.hosts(&registry, &format!("client = [['{user}', '{ca}']]\n"));
        let err = client
            .table(&table(&registry, &store, false))
            .err()
            .unwrap();
        assert!(err.contains("ca.pem has no key"), "{err}");
    }
}

#[test]
fn credentials_of_docker_and_its_helpers() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.json");
    let lookup = |registry: &str| auth::from_config(&config, registry);
    assert_eq!(lookup("r.example"), Ok(None));
    let user = base64::Engine::encode(
        &base64::engine::general_purpose::STANDARD,
        format!("{USER}:{PASSWORD}"),
    );
    let text = format!(
        "{{\"auths\":{{\"r.example:5000\":{{\"auth\":\"{user}\"}},\
         \"https://index.docker.io/v1/\":{{\"identitytoken\":\"T\"}}}},\
         \"credHelpers\":{{\"h.example\":\"ondemandd-no-such-helper\"}},\"unknown\":1}}"
    );
    fs::write(&config, text).unwrap();
    let want = DockerCredential::UsernamePassword(USER.into(), PASSWORD.into());
    assert_eq!(lookup("r.example:5000"), Ok(Some(want)));
    assert_eq!(
        lookup("docker.io"),
        Ok(Some(DockerCredential::IdentityToken("T".into())))
    );
    assert_eq!(lookup("other.example"), Ok(None));
    assert!(lookup("h.example").unwrap_err().contains("helper"));
    fs::write(&config, "{").unwrap();
    assert!(lookup("r.example").is_err());
}
