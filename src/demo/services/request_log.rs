//! Records the requests that the example services received.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actix_web::HttpRequest;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::base::clock::{Clock, Timestamp};
use crate::base::telemetry::Trace;
use crate::demo::call::duration_ms;
use crate::demo::walkthrough::say;

/// The maximum number of recorded exchanges.
const MAX_ENTRIES: usize = 1000;

/// One request to an example service, and its result.
#[derive(Clone, Debug, Serialize)]
pub struct Exchange {
    #[serde(skip)]
    number: u64,
    /// The service's name.
    pub service: &'static str,
    /// The request's method.
    pub method: String,
    /// The request's path.
    pub path: String,
    /// The request's headers.
    pub headers: Vec<(String, String)>,
    /// The request's body: JSON, or else text.
    pub body: Value,
    /// When the request arrived.
    pub arrived_at: Timestamp,
    /// `under_way`, `answered`, or `cut_off`: the caller disconnected, or the service went down.
    pub state: &'static str,
    /// The status of the response.
    pub status: Option<u16>,
    /// The body of the response.
    pub answer: Value,
    /// The time until the response was ready or the connection ended, in milliseconds.
    pub duration_ms: Option<f64>,
}

impl Exchange {
    /// Returns a header of the request.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(known, _)| known == name)?;
        Some(value)
    }

    /// Returns the trace of the request.
    #[must_use]
    pub fn trace(&self) -> Option<String> {
        Trace::parse(self.header("traceparent")?).map(|trace| trace.to_string())
    }
}

/// All exchanges, the latest last.
pub struct RequestLog {
    entries: Mutex<(u64, VecDeque<Exchange>)>,
    changed: watch::Sender<u64>,
    /// Print exchanges in full, as part of the walkthrough, instead of in one line.
    pub verbose: AtomicBool,
    pub(super) clock: Clock,
}

impl RequestLog {
    /// Creates an empty log.
    pub fn new(clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            entries: Mutex::default(),
            changed: watch::Sender::new(0),
            verbose: AtomicBool::new(false),
            clock,
        })
    }

    /// Returns a receiver that is notified of every change, here or with [`RequestLog::touch`].
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Notifies the receivers.
    pub fn touch(&self) {
        self.changed.send_modify(|number| *number += 1);
    }

    /// Returns the exchanges that match, in order.
    pub fn find(&self, fits: impl Fn(&Exchange) -> bool) -> Vec<Exchange> {
        self.lock()
            .1
            .iter()
            .filter(|one| fits(one))
            .cloned()
            .collect()
    }

    /// Records that a request arrived.
    pub fn arrived(
        self: &Arc<Self>,
        service: &'static str,
        method: &str,
        path: &str,
        request: &HttpRequest,
        body: &[u8],
    ) -> Entry {
        let headers = request.headers().iter().map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.as_str().to_owned(), value)
        });
        let mut exchange = Exchange {
            number: 0,
            service,
            method: method.to_owned(),
            path: path.to_owned(),
            headers: headers.collect(),
            body: serde_json::from_slice(body)
                .unwrap_or_else(|_| json!(String::from_utf8_lossy(body))),
            arrived_at: self.clock.now(),
            state: "under_way",
            status: None,
            answer: Value::Null,
            duration_ms: None,
        };
        if self.verbose.load(Ordering::Relaxed) {
            let kind = if service == "CRM" {
                "delivery"
            } else {
                "request"
            };
            say(&format!(
                "      {kind:<8} {service:<13} {method} {path} {}",
                exchange.body
            ));
        }
        let mut entries = self.lock();
        entries.0 += 1;
        exchange.number = entries.0;
        let number = exchange.number;
        entries.1.push_back(exchange);
        if entries.1.len() > MAX_ENTRIES {
            entries.1.pop_front();
        }
        drop(entries);
        self.touch();
        Entry {
            request_log: Arc::clone(self),
            number,
            open: true,
        }
    }

    fn close(&self, number: u64, answer: Option<(u16, &Value)>) {
        let mut entries = self.lock();
        let Some(exchange) = entries.1.iter_mut().find(|one| one.number == number) else {
            return;
        };
        exchange.duration_ms = Some(duration_ms(exchange.arrived_at, self.clock.now()));
        if let Some((status, answer)) = answer {
            exchange.state = "answered";
            exchange.status = Some(status);
            exchange.answer = answer.clone();
        } else {
            exchange.state = "cut_off";
        }
        self.print(exchange);
        drop(entries);
        self.touch();
    }

    fn print(&self, exchange: &Exchange) {
        let Exchange {
            service,
            method,
            path,
            body,
            ..
        } = exchange;
        let answer = match exchange.status {
            Some(status) if exchange.answer.is_string() => format!("{status} (a page)"),
            Some(status) => format!("{status} {}", exchange.answer),
            None => "no response, the connection ended".to_owned(),
        };
        if self.verbose.load(Ordering::Relaxed) {
            say(&format!("      response {service:<13} {answer}"));
        } else {
            let took = exchange.duration_ms.unwrap_or_default();
            say(&format!(
                "{service:<12}  {method} {path} {body} -> {answer} ({took} ms)"
            ));
        }
    }

    fn lock(&self) -> MutexGuard<'_, (u64, VecDeque<Exchange>)> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running exchange. If the entry is dropped, there was no response.
pub struct Entry {
    request_log: Arc<RequestLog>,
    number: u64,
    open: bool,
}

impl Entry {
    /// Records the response.
    pub fn answered(mut self, status: u16, answer: &Value) {
        self.open = false;
        self.request_log.close(self.number, Some((status, answer)));
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if self.open {
            self.request_log.close(self.number, None);
        }
    }
}
