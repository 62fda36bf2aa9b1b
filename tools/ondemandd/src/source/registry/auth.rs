// SPDX-License-Identifier: GPL-2.0-or-later

//! Who asks a registry: nobody, a user and password, or a token that another server gives to them.
//!
//! A registry answers the first request with 401 and says what it wants (RFC 9110, 11.6.1; the token
//! specification of the distribution project). What works is kept: a token until shortly before it
//! expires, or until it is refused.

use std::collections::HashMap;
use std::env;
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{mpsc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use docker_credential::{CredentialRetrievalError, DockerCredential};
use serde::Deserialize;

use crate::device::strip_code;
use crate::guard;
use crate::report::escape;
use crate::source::http::client::Client;
use crate::source::http::site::Authority;
use crate::source::http::url::{basic_of, query_value, Url};
use crate::source::http::{bad_status, Failure};
use crate::source::SourceError;

/// The largest answer of a token server, in bytes. Tokens of large companies have some KiB.
const MAX_ANSWER: u64 = 1 << 20;

/// What a token is good for if nobody says how long, or says less.
const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// How long a credential helper, or another fetch that gets the same token, is waited for.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where credentials come from; the tests have another way.
pub type Lookup = Box<dyn Fn(&str) -> Result<Option<DockerCredential>, String> + Send + Sync>;

/// The user of a registry.
pub struct User {
    /// The registry, as it is called in docker's configuration.
    registry: String,
    tls: bool,
    lookup: std::sync::Arc<Lookup>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    scheme: Scheme,
    tokens: HashMap<String, Slot>,
}

/// What the registry wants.
#[derive(Clone, Default)]
enum Scheme {
    /// Nothing, or it has not said it yet.
    #[default]
    Nothing,
    Basic(String),
    Bearer {
        realm: Url,
        service: Option<String>,
    },
}

enum Slot {
    /// Somebody is getting it.
    Coming,
    Here(Token),
}

#[derive(Clone)]
struct Token {
    value: String,
    until: Instant,
}

/// The answer of a token server. Other fields do not matter.
#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl User {
    pub fn new(registry: &str, tls: bool, lookup: std::sync::Arc<Lookup>) -> Self {
        Self {
            registry: registry.to_string(),
            tls,
            lookup,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The credentials, if there are any. A helper is a program that may do anything; it is waited for
    /// only as long as somebody wants what it is for.
    fn credential(&self) -> Result<Option<DockerCredential>, Failure> {
        let (sender, receiver) = mpsc::channel();
        let (lookup, registry) = (self.lookup.clone(), self.registry.clone());
        let started = std::thread::Builder::new()
            .name("credentials".into())
            .spawn(move || sender.send(lookup(&registry)));
        started.map_err(|err| Failure::passing(format!("cannot start a thread: {err}")))?;
        let start = Instant::now();
        loop {
            match receiver.recv_timeout(Duration::from_millis(100)) {
                Ok(result) => {
                    return result.map_err(|reason| {
                        let registry = &self.registry;
                        Failure::fatal(
                            libc::EACCES,
                            format!("the credentials for {registry}: {reason}"),
                        )
                    })
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    guard::go_on(start, PATIENCE).map_err(|err| {
                        Failure::passing(format!("waiting for a credential helper: {err}"))
                    })?;
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Err(Failure::passing("looking for credentials failed"));
                }
            }
        }
    }

    /// A token that is good now, other than `refused`.
    fn token(
        &self,
        client: &Client,
        scope: &str,
        (realm, service): (&Url, Option<&str>),
        refused: Option<&str>,
    ) -> Result<String, Failure> {
        let start = Instant::now();
        let mut state = self.state();
        loop {
            match state.tokens.get(scope) {
                Some(Slot::Here(token))
                    if token.until > Instant::now() && Some(&*token.value) != refused =>
                {
                    return Ok(token.value.clone());
                }
                Some(Slot::Coming) => {
                    let tick = Duration::from_millis(100);
                    let waited = self.changed.wait_timeout(state, tick);
                    (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
                    guard::go_on(start, PATIENCE)
                        .map_err(|err| Failure::passing(format!("waiting for a token: {err}")))?;
                }
                _ => break,
            }
        }
        state.tokens.insert(scope.to_string(), Slot::Coming);
        drop(state);
        let coming = Coming { user: self, scope };
        let token = self.get_token(client, scope, realm, service)?;
        let value = token.value.clone();
        self.state()
            .tokens
            .insert(scope.to_string(), Slot::Here(token));
        drop(coming);
        Ok(value)
    }

    fn get_token(
        &self,
        client: &Client,
        scope: &str,
        realm: &Url,
        service: Option<&str>,
    ) -> Result<Token, Failure> {
        let begun = Instant::now();
        let mut query = format!("scope={}", query_value(scope));
        if let Some(service) = service {
            query.push_str(&format!("&service={}", query_value(service)));
        }
        let response = match self.credential()? {
            Some(DockerCredential::IdentityToken(token)) => {
                let token = query_value(&token);
                let form = format!(
                    "grant_type=refresh_token&client_id=ondemandd&{query}&refresh_token={token}"
                );
                client.post(realm, &form)?
            }
            credential => {
                let basic = credential.as_ref().and_then(basic);
                let private = basic.as_deref().map(|value| ("Authorization", value));
                let mark = if realm.target.contains('?') { '&' } else { '?' };
                let url = Url {
                    target: format!("{}{mark}{query}", realm.target),
                    ..realm.clone()
                };
                client.send("GET", &url, &[], private.as_slice())?
            }
        };
        if response.status != 200 {
            return Err(match bad_status(&response) {
                Failure::Final(err) => Failure::Final(SourceError {
                    errno: libc::EACCES,
                    reason: format!("the token server {}: {}", response.url, err.reason),
                    ..err
                }),
                failure => failure,
            });
        }
        let wrong = |what: &str| {
            let text = format!("the answer of the token server {realm} {what}");
            Failure::fatal(libc::EACCES, text)
        };
        let answer: Answer = serde_json::from_slice(&response.body(MAX_ANSWER)?)
            .map_err(|_| wrong("is not understood"))?;
        let value = answer
            .token
            .or(answer.access_token)
            .filter(|value| is_token(value))
            .ok_or_else(|| wrong("has no token"))?;
        let good = answer.expires_in.map_or(SHORTEST, Duration::from_secs);
        let good = good.clamp(Duration::from_secs(1), LONGEST);
        // A request that is on its way when it expires would fail.
        let margin = (good / 4).min(Duration::from_secs(30));
        Ok(Token {
            value,
            until: begun + good - margin,
        })
    }
}

/// Whether this can stand in a header field.
fn is_token(value: &str) -> bool {
    !value.is_empty() && value.bytes().all(|b| b.is_ascii_graphic())
}

/// However it ends, nobody waits for a token forever.
struct Coming<'a> {
    user: &'a User,
    scope: &'a str,
}

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        let mut state = self.user.state();
        if matches!(state.tokens.get(self.scope), Some(Slot::Coming)) {
            state.tokens.remove(self.scope);
        }
        drop(state);
        self.user.changed.notify_all();
    }
}

fn basic(credential: &DockerCredential) -> Option<String> {
    match credential {
        DockerCredential::UsernamePassword(user, password) => {
            Some(basic_of(format!("{user}:{password}").as_bytes()))
        }
        DockerCredential::IdentityToken(_) => None,
    }
}

impl Authority for User {
    fn authorization(&self, client: &Client, scope: &str) -> Result<Option<String>, Failure> {
        let scheme = self.state().scheme.clone();
        match scheme {
            Scheme::Nothing => Ok(None),
            Scheme::Basic(value) => Ok(Some(value)),
            Scheme::Bearer { realm, service } => {
                let token = self.token(client, scope, (&realm, service.as_deref()), None)?;
                Ok(Some(format!("Bearer {token}")))
            }
        }
    }

    fn challenged(
        &self,
        client: &Client,
        scope: &str,
        challenges: &[&str],
        used: Option<&str>,
    ) -> Result<String, Failure> {
        let refused = |text: String| {
            Failure::Final(SourceError {
                status: Some(401),
                ..SourceError::new(libc::EACCES, format!("status 401: {text}"))
            })
        };
        let mut basic_wanted = false;
        for challenge in challenges.iter().flat_map(|text| parse(text)) {
            match challenge {
                Challenge::Bearer { realm, service } => {
                    let realm = Url::parse(&realm).map_err(|reason| {
                        let realm = escape(&realm);
                        refused(format!("its token server is \"{realm}\": {reason}"))
                    })?;
                    if self.tls && !realm.tls {
                        // The password would be sent for everybody to read.
                        return Err(refused(format!(
                            "its token server {realm} is not reached by https"
                        )));
                    }
                    self.state().scheme = Scheme::Bearer {
                        realm: realm.clone(),
                        service: service.clone(),
                    };
                    let old = used.and_then(|value| value.strip_prefix("Bearer "));
                    let token = self.token(client, scope, (&realm, service.as_deref()), old)?;
                    if Some(&*token) == old {
                        return Err(refused("the registry does not take the token".into()));
                    }
                    return Ok(format!("Bearer {token}"));
                }
                Challenge::Basic => basic_wanted = true,
            }
        }
        if !basic_wanted {
            return Err(refused("the registry does not say what it wants".into()));
        }
        let credential = self.credential()?;
        let registry = &self.registry;
        let value = credential.as_ref().and_then(basic).ok_or_else(|| {
            refused(format!(
                "there are no credentials for {registry} (docker login, or DOCKER_CONFIG)"
            ))
        })?;
        if used == Some(&*value) {
            return Err(refused(format!("{registry} does not take the password")));
        }
        self.state().scheme = Scheme::Basic(value.clone());
        Ok(value)
    }
}

enum Challenge {
    Basic,
    Bearer {
        realm: String,
        service: Option<String>,
    },
}

/// The challenges in a WWW-Authenticate field that are understood.
fn parse(text: &str) -> Vec<Challenge> {
    let list = http_auth::parse_challenges(text).unwrap_or_default();
    let known = list.iter().filter_map(|challenge| {
        let find = |name: &str| {
            let mut params = challenge.params.iter();
            params
                .find(|(other, _)| other.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.to_unescaped())
        };
        if challenge.scheme.eq_ignore_ascii_case("basic") {
            return Some(Challenge::Basic);
        }
        let bearer = challenge.scheme.eq_ignore_ascii_case("bearer");
        bearer.then(|| {
            Some(Challenge::Bearer {
                realm: find("realm")?,
                service: find("service"),
            })
        })?
    });
    known.collect()
}

/// The file with docker's configuration: in $DOCKER_CONFIG, else in ~/.docker.
fn config_file() -> Option<PathBuf> {
    let dir = env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let home = || env::var_os("HOME").map(|home| Path::new(&home).join(".docker"));
    dir.or_else(home).map(|dir| dir.join("config.json"))
}

/// The credentials for a registry in docker's configuration, or from the helper that is named there.
pub fn from_docker(registry: &str) -> Result<Option<DockerCredential>, String> {
    config_file().map_or(Ok(None), |path| from_config(&path, registry))
}

/// What a helper says is in no message: it may be a secret.
pub fn from_config(path: &Path, registry: &str) -> Result<Option<DockerCredential>, String> {
    let shown = path.display();
    let file = match File::open(path) {
        Err(err) if err.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|err| format!("{shown}: {}", strip_code(&err)))?,
    };
    let name = match registry {
        "docker.io" | "registry-1.docker.io" | "index.docker.io" => "https://index.docker.io/v1/",
        name => name,
    };
    let text = BufReader::new(file.take(MAX_ANSWER));
    match docker_credential::get_credential_from_reader(text, name) {
        Ok(credential) => Ok(Some(credential)),
        Err(CredentialRetrievalError::NoCredentialConfigured) => Ok(None),
        Err(CredentialRetrievalError::HelperFailure { helper, stdout, .. }) => {
            // What all helpers say that have nothing for this registry.
            if stdout.trim() == "credentials not found in native keychain" {
                return Ok(None);
            }
            Err(format!("{helper} has failed"))
        }
        Err(err) => Err(format!("{shown}: {err}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(text: &str) -> Vec<String> {
        let show = |challenge: &Challenge| match challenge {
            Challenge::Basic => "Basic".to_string(),
            Challenge::Bearer { realm, service } => format!("{realm} {service:?}"),
        };
        parse(text).iter().map(show).collect()
    }

    #[test]
    fn challenges() {
        let text = "Bearer realm=\"https://auth.example/token\",service=\"r, \\\"x\\\"\",scope=\"repository:a:pull\"";
        let want = "https://auth.example/token Some(\"r, \\\"x\\\"\")";
        assert_eq!(shown(text), [want]);
        assert_eq!(
            shown("basic Realm=\"x\", BEARER REALM=\"y\""),
            ["Basic", "y None"]
        );
        let none: [&str; 0] = [];
        for text in [
            "",
            "Bearer",
            "Digest realm=\"x\"",
            "Bearer service=\"x\"",
            "Bearer realm=\"x",
        ] {
            assert_eq!(shown(text), none, "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_breaks_it(text in "\\PC{0,80}", start in "(Bearer|Basic)? ?(realm=)?\"?") {
            let _ = parse(&format!("{start}{text}"));
        }
    }
}
