// SPDX-License-Identifier: GPL-2.0-or-later

//! Numbers for monitoring, as OpenMetrics text.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::report::Stats;

/// So many servers are told apart; what the others do counts together. Names of servers come from
/// redirects, too, and must not fill memory.
const MAX_SERVERS: usize = 256;

/// From a read of a local file to what a person would call a hang.
const SECONDS: [f64; 13] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0,
];

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Outcome {
    Ok,
    Error,
    /// Nobody waits for it any more.
    Unwanted,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    op: &'static str,
    result: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    op: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Server {
    server: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failure {
    server: String,
    code: String,
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

fn histogram() -> Histogram {
    Histogram::new(SECONDS)
}

/// What is counted while it happens. The totals of the report come in when this is written.
pub struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    request_seconds: Histograms<Kind>,
    fetched: Family<Server, Counter>,
    fetch_seconds: Histograms<Server>,
    source_errors: Family<Failure, Counter>,
    verify_failures: Family<Server, Counter>,
    pending: Gauge,
    oldest: Gauge<f64, AtomicU64>,
    written: Counter,
    errors: Counter,
    culled_files: Counter,
    culled: Counter,
    cache: Gauge,
    cache_limit: Gauge,
    /// How many servers have a name here.
    servers: std::sync::Mutex<std::collections::HashSet<String>>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("ondemand");
        let requests = Family::default();
        registry.register("requests", "Messages from the kernel", requests.clone());
        let request_seconds = Histograms::<Kind>::new_with_constructor(histogram);
        registry.register_with_unit(
            "request",
            "From reading a message to its answer",
            Unit::Seconds,
            request_seconds.clone(),
        );
        let fetched = Family::default();
        registry.register_with_unit(
            "fetched",
            "What servers have sent, as far as it was used",
            Unit::Bytes,
            fetched.clone(),
        );
        let fetch_seconds = Histograms::<Server>::new_with_constructor(histogram);
        registry.register_with_unit(
            "fetch",
            "How long fetching a range took, all tries included",
            Unit::Seconds,
            fetch_seconds.clone(),
        );
        let source_errors = Family::default();
        registry.register(
            "source_errors",
            "Requests to servers that have failed, by status or by what else went wrong",
            source_errors.clone(),
        );
        let verify_failures = Family::default();
        registry.register(
            "verify_failures",
            "Chunks that did not have their digest",
            verify_failures.clone(),
        );
        let (pending, oldest) = (Gauge::default(), Gauge::default());
        registry.register(
            "pending_requests",
            "Messages that are not answered yet",
            pending.clone(),
        );
        registry.register_with_unit(
            "oldest_request",
            "For how long the oldest of them has waited",
            Unit::Seconds,
            oldest.clone(),
        );
        let (written, errors) = (Counter::default(), Counter::default());
        registry.register_with_unit(
            "written",
            "What was written to cache files",
            Unit::Bytes,
            written.clone(),
        );
        registry.register("errors", "All failures", errors.clone());
        let (culled_files, culled) = (Counter::default(), Counter::default());
        registry.register(
            "culled_files",
            "Files that were removed from the cache to make room",
            culled_files.clone(),
        );
        registry.register_with_unit(
            "culled",
            "What these took of the disk",
            Unit::Bytes,
            culled.clone(),
        );
        let (cache, cache_limit) = (Gauge::default(), Gauge::default());
        registry.register_with_unit(
            "cache",
            "What the cache takes of the disk",
            Unit::Bytes,
            cache.clone(),
        );
        registry.register_with_unit(
            "cache_limit",
            "The most that it should take; 0: there is no limit of that kind",
            Unit::Bytes,
            cache_limit.clone(),
        );
        Self {
            registry,
            requests,
            request_seconds,
            fetched,
            fetch_seconds,
            source_errors,
            verify_failures,
            pending,
            oldest,
            written,
            errors,
            culled_files,
            culled,
            cache,
            cache_limit,
            servers: std::sync::Mutex::default(),
        }
    }
}

impl Metrics {
    /// The name under which a server counts.
    fn server(&self, server: &str) -> String {
        let server = if server.is_empty() { "local" } else { server };
        let mut servers = self.servers.lock().unwrap_or_else(|err| err.into_inner());
        if servers.len() < MAX_SERVERS {
            servers.insert(server.to_string());
        }
        let known = servers.contains(server);
        (if known { server } else { "others" }).to_string()
    }

    pub fn request(&self, opcode: &str, result: Outcome, took: Duration) {
        let op = match opcode {
            "OPEN" => "open",
            "READ" => "read",
            _ => "close",
        };
        self.requests.get_or_create(&Request { op, result }).inc();
        self.request_seconds
            .get_or_create(&Kind { op })
            .observe(took.as_secs_f64());
    }

    /// A fetch has ended, well or not.
    pub fn fetch(&self, server: &str, bytes: u64, took: Duration) {
        let server = Server {
            server: self.server(server),
        };
        self.fetched.get_or_create(&server).inc_by(bytes);
        self.fetch_seconds
            .get_or_create(&server)
            .observe(took.as_secs_f64());
    }

    pub fn source_error(&self, server: &str, code: &dyn fmt::Display) {
        let labels = Failure {
            server: self.server(server),
            code: code.to_string(),
        };
        self.source_errors.get_or_create(&labels).inc();
    }

    pub fn verify_failure(&self, server: &str) {
        let server = Server {
            server: self.server(server),
        };
        self.verify_failures.get_or_create(&server).inc();
    }

    /// Everything as text.
    pub fn encode(&self, stats: &Stats, pending: usize, oldest: Duration) -> String {
        self.pending.set(i64::try_from(pending).unwrap_or(i64::MAX));
        self.oldest.set(oldest.as_secs_f64());
        let gauge = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.cache.set(gauge(stats.cache()));
        self.cache_limit.set(gauge(stats.cache_limit.load(Relaxed)));
        for (counter, total) in [
            (&self.written, &stats.written),
            (&self.errors, &stats.errors),
            (&self.culled_files, &stats.culled_files),
            (&self.culled, &stats.culled),
        ] {
            let total = total.load(Relaxed);
            counter.inc_by(total.saturating_sub(counter.get()));
        }
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_written() {
        let metrics = Metrics::default();
        metrics.request("READ", Outcome::Ok, Duration::from_millis(2));
        metrics.request("READ", Outcome::Ok, Duration::from_secs(100));
        metrics.request("OPEN", Outcome::Error, Duration::ZERO);
        metrics.fetch("h:80", 4096, Duration::from_millis(20));
        metrics.source_error("h:80", &503);
        metrics.verify_failure("h:80");
        let stats = Stats::default();
        stats.written.store(8192, Relaxed);
        metrics.encode(&stats, 1, Duration::ZERO);
        stats.written.store(12288, Relaxed);
        stats.cache_base.store(4096, Relaxed);
        stats.culled_files.store(7, Relaxed);
        let text = metrics.encode(&stats, 3, Duration::from_millis(1500));
        for want in [
            "ondemand_requests_total{op=\"read\",result=\"Ok\"} 2\n",
            "ondemand_requests_total{op=\"open\",result=\"Error\"} 1\n",
            "ondemand_request_seconds_bucket{le=\"0.0025\",op=\"read\"} 1\n",
            "ondemand_request_seconds_bucket{le=\"+Inf\",op=\"read\"} 2\n",
            "ondemand_fetched_bytes_total{server=\"h:80\"} 4096\n",
            "ondemand_fetch_seconds_count{server=\"h:80\"} 1\n",
            "ondemand_source_errors_total{server=\"h:80\",code=\"503\"} 1\n",
            "ondemand_verify_failures_total{server=\"h:80\"} 1\n",
            "ondemand_pending_requests 3\n",
            "ondemand_oldest_request_seconds 1.5\n",
            "ondemand_written_bytes_total 12288\n",
            "ondemand_cache_bytes 16384\n",
            "ondemand_cache_limit_bytes 0\n",
            "ondemand_culled_files_total 7\n",
        ] {
            assert!(text.contains(want), "{want} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn servers_without_end_are_one() {
        let metrics = Metrics::default();
        for i in 0..10_000 {
            metrics.verify_failure(&format!("h{i}"));
        }
        let text = metrics.encode(&Stats::default(), 0, Duration::ZERO);
        assert_eq!(
            text.matches("ondemand_verify_failures_total{").count(),
            MAX_SERVERS + 1
        );
        assert!(text.contains("{server=\"others\"} 9744\n"), "{text}");
    }
}
