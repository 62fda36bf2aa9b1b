// SPDX-License-Identifier: GPL-2.0-or-later

//! Servers, the places where one blob is, and trying one after the other.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::breaker::{Answer, Breaker, Outage, Ticket};
use super::client::{Client, Field, Response};
use super::url::Url;
use super::{Failure, Passing};
use crate::guard;
use crate::report::Report;
use crate::source::SourceError;
use crate::stop::Stop;

const FIRST_DELAY: Duration = Duration::from_millis(100);
const MAX_DELAY: Duration = Duration::from_secs(5);

/// How long a place that has sent wrong bytes is asked only after all others.
const DISTRUST: Duration = Duration::from_secs(60);

/// The longest time for which a redirect is believed without asking again.
const MAX_KEPT: Duration = Duration::from_secs(3600);

/// Who lets requests to a server be made, if it wants to know who asks.
pub trait Authority: Send + Sync {
    /// The value of the Authorization field for a request, if there is to be one.
    fn authorization(&self, client: &Client, scope: &str) -> Result<Option<String>, Failure>;

    /// The value for another try, after a request with the value `used` was answered with 401.
    fn challenged(
        &self,
        client: &Client,
        scope: &str,
        challenges: &[&str],
        used: Option<&str>,
    ) -> Result<String, Failure>;
}

/// A server under one name, and how it is talked to.
pub struct Site {
    pub client: Client,
    /// Fields of each request to this server, and to no other.
    headers: Vec<(String, String)>,
    authority: Option<Box<dyn Authority>>,
    breaker: Breaker,
}

impl Site {
    pub fn new(
        client: Client,
        headers: Vec<(String, String)>,
        authority: Option<Box<dyn Authority>>,
    ) -> Self {
        Self {
            client,
            headers,
            authority,
            breaker: Breaker::default(),
        }
    }
}

/// One place where a blob is.
pub struct Place {
    site: Arc<Site>,
    pub url: Url,
    /// What a token must allow, for an [`Authority`].
    scope: Arc<str>,
    /// Where the server has last sent us, and since when that is known. Signed URLs of object storage
    /// are good for some minutes; without this each range would cost two requests.
    kept: Mutex<Option<(Url, Instant)>>,
    lied: Mutex<Option<Instant>>,
}

impl Place {
    pub fn new(site: Arc<Site>, url: Url, scope: Arc<str>) -> Self {
        Self {
            site,
            url,
            scope,
            kept: Mutex::default(),
            lied: Mutex::default(),
        }
    }

    fn kept(&self) -> Option<Url> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.take_if(|(_, since)| since.elapsed() > MAX_KEPT);
        kept.as_ref().map(|(url, _)| url.clone())
    }

    fn keep(&self, url: Option<Url>) {
        let kept = url.map(|url| (url, Instant::now()));
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = kept;
    }

    /// It has sent bytes that are not those of the blob.
    pub fn has_lied(&self) {
        *self.lied.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        // Whoever it was there.
        self.keep(None);
    }

    fn is_distrusted(&self) -> bool {
        let lied = self.lied.lock().unwrap_or_else(PoisonError::into_inner);
        lied.is_some_and(|at| at.elapsed() < DISTRUST)
    }

    /// Sends a request; what a redirect leads to counts as the answer.
    pub fn send(&self, method: &str, fields: &[Field<'_>]) -> Result<Response<'_>, Failure> {
        let client = &self.site.client;
        if let Some(target) = self.kept() {
            // It has its permission in itself, and is another server's as a rule: nothing private goes
            // there.
            match client.send(method, &target, fields, &[]) {
                Ok(response) if !matches!(response.status, 400 | 401 | 403 | 404 | 410) => {
                    return Ok(response.was_redirected());
                }
                // It has expired.
                Ok(response) => response.finish(),
                Err(failure) => {
                    // The next try asks for another way.
                    self.keep(None);
                    return Err(failure.elsewhere());
                }
            }
            self.keep(None);
        }
        let mut response = self.send_there(method, fields)?;
        if response.redirected() && matches!(response.status, 400 | 401 | 403) {
            // The signature in the URL that led there may have expired on the way.
            response.finish();
            response = self.send_there(method, fields)?;
        }
        // The same server would want to know again who asks.
        let elsewhere = response.redirected() && !response.url.same_origin(&self.url);
        if elsewhere && matches!(response.status, 200 | 206) {
            self.keep(Some(response.url.clone()));
        }
        Ok(response)
    }

    fn send_there(&self, method: &str, fields: &[Field<'_>]) -> Result<Response<'_>, Failure> {
        let client = &self.site.client;
        let authority = self.site.authority.as_deref();
        let mut used = match authority {
            Some(authority) => authority.authorization(client, &self.scope)?,
            None => None,
        };
        let mut asked = false;
        loop {
            let mut private: Vec<Field<'_>> = Vec::new();
            for (name, value) in &self.site.headers {
                private.push((name, value));
            }
            if let Some(value) = &used {
                private.push(("Authorization", value));
            }
            let response = client.send(method, &self.url, fields, &private)?;
            let Some(authority) = authority.filter(|_| response.status == 401) else {
                return Ok(response);
            };
            if response.redirected() {
                // Another server does not want what only this one is to have.
                return Ok(response);
            }
            if asked {
                return Err(Failure::Final(SourceError {
                    status: Some(401),
                    ..SourceError::new(libc::EACCES, "status 401: it is refused to this user")
                }));
            }
            asked = true;
            let challenges: Vec<&str> = response.fields("www-authenticate").collect();
            let new = authority.challenged(client, &self.scope, &challenges, used.as_deref())?;
            response.finish();
            used = Some(new);
        }
    }
}

/// How fetches that have failed are repeated.
pub struct Retries {
    /// How often a request that may succeed later is sent again.
    pub most: u32,
    /// No try begins so long after the first one, but for the second.
    pub time: Duration,
    pub report: Arc<Report>,
    pub stop: Arc<Stop>,
}

impl Retries {
    /// Has `attempt` succeed at one of the places: in their order, those that are trusted first, and all of
    /// them again after a while if there is hope.
    pub fn run<T>(
        &self,
        places: &[Place],
        mut attempt: impl FnMut(&Place) -> Result<T, Failure>,
    ) -> Result<T, SourceError> {
        let start = Instant::now();
        let mut delay = FIRST_DELAY;
        let mut tries = 0;
        let mut failed: Vec<Option<SourceError>> = vec![None; places.len()];
        let seen: Vec<u64> = places.iter().map(|p| p.site.breaker.failures()).collect();
        loop {
            let mut passing: Option<(&Place, Passing)> = None;
            let mut outage: Option<(usize, Outage)> = None;
            let mut order: Vec<usize> = (0..places.len()).collect();
            order.retain(|&at| failed[at].is_none());
            order.sort_by_key(|&at| places[at].is_distrusted());
            for at in order {
                let place = &places[at];
                let ticket = match place.site.breaker.ask() {
                    Answer::Go(ticket) => ticket,
                    Answer::Wait(one) => {
                        if outage
                            .as_ref()
                            .is_none_or(|(_, other)| one.wait < other.wait)
                        {
                            outage = Some((at, one));
                        }
                        continue;
                    }
                };
                let result = attempt(place);
                self.tell(ticket, &result);
                match result {
                    Ok(value) => return Ok(value),
                    Err(Failure::Sink(err)) => return Err(err),
                    Err(Failure::Final(err)) => failed[at] = Some(self.is_final(place, err)),
                    Err(Failure::Transient(new)) => {
                        self.count(place, new.status);
                        passing = Some((place, new));
                    }
                }
                if guard::is_cancelled() || self.stop.is_set() {
                    break;
                }
            }
            // The last place is the one that the others are mirrors of: what it does not have is not there.
            let last = failed.last().and_then(Option::as_ref);
            let gone = last.is_some_and(|err| err.errno == libc::ENOENT);
            if gone || failed.iter().all(Option::is_some) {
                let last = failed.pop().flatten();
                let none = || SourceError::new(libc::EIO, "there is no place that has it");
                return Err(last.unwrap_or_else(none));
            }
            let (reason, wait) = match (passing, outage) {
                (Some((place, passing)), _) => {
                    let reason = format!("{}: {}", place.url, passing.reason);
                    let end = |why| SourceError::new(libc::EIO, format!("{reason} ({why})"));
                    if self.stop.is_set() {
                        return Err(end("stopping".into()));
                    }
                    if let Some(after) = passing.after.filter(|after| *after > self.time) {
                        return Err(end(left_alone(after)));
                    }
                    let wait = passing.after.map_or(delay, |after| after.max(delay))
                        + place.site.breaker.retry();
                    let late = tries > 0 && start.elapsed() + wait > self.time;
                    tries += 1;
                    if tries > self.most || late {
                        let seconds = start.elapsed().as_secs_f32();
                        return Err(end(format!(
                            "gave up after {tries} tries in {seconds:.1} s"
                        )));
                    }
                    delay = (delay * 2).min(MAX_DELAY);
                    guard::check(wait).map_err(end)?;
                    let wait_ms = wait.as_millis();
                    self.report
                        .note(&format!("{reason}; trying again in {wait_ms} ms"));
                    (reason, wait)
                }
                // Nobody was asked: it is known that they are all down.
                (None, Some((at, outage))) => {
                    let reason = format!("{}: {}", places[at].url, outage.reason);
                    let end = |why| SourceError::new(libc::EIO, format!("{reason} ({why})"));
                    if outage.wait > self.time {
                        return Err(end(left_alone(outage.wait)));
                    }
                    // Unless nobody has tried since this fetch began: then it may be back.
                    let lasts = outage.lasts + outage.wait;
                    if outage.failures > seen[at] && lasts > self.time {
                        let seconds = outage.lasts.as_secs_f32();
                        return Err(end(format!("for {seconds:.1} s already")));
                    }
                    guard::check(outage.wait).map_err(end)?;
                    (reason, outage.wait)
                }
                (None, None) => return Err(SourceError::new(libc::EIO, "stopping")),
            };
            guard::pause(wait, &self.stop)
                .map_err(|why| SourceError::new(libc::EIO, format!("{reason} ({why})")))?;
        }
    }

    /// Tells the breaker of a server what came of a request.
    fn tell<T>(&self, ticket: Ticket<'_>, result: &Result<T, Failure>) {
        if guard::is_cancelled() || self.stop.is_set() {
            // It was this side that has ended it.
            return;
        }
        match result {
            Err(Failure::Transient(passing)) if passing.down => {
                ticket.failed(&passing.reason, passing.after);
            }
            _ => ticket.answered(),
        }
    }

    /// Trying again at this place is of no use.
    fn is_final(&self, place: &Place, err: SourceError) -> SourceError {
        self.count(place, err.status);
        let reason = format!("{}: {}", place.url, err.reason);
        SourceError { reason, ..err }
    }

    /// Counts a request that has failed.
    fn count(&self, place: &Place, status: Option<u16>) {
        let metrics = &self.report.metrics;
        match status {
            Some(status) => metrics.source_error(&place.url.address(), &status),
            None => metrics.source_error(&place.url.address(), &"none"),
        }
    }
}

fn left_alone(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("the server wants to be left alone for {seconds} s, which is longer than --retry-time")
}
