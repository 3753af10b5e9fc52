//! One server that is asked about many clients: requests at a time are bounded, and so are those that wait for their turn.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use tokio::sync::Semaphore;

use super::fetch::{Endpoint, EndpointError, EndpointSettings};

/// Questions that wait for a request to be free, for each that may run.
const QUEUED_PER_REQUEST: usize = 64;

/// Why a server can't be asked as configured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskerError {
    /// The URL or its trust can't be used.
    #[error("the server can't be asked")]
    Endpoint(#[source] EndpointError),
    /// A header can't be sent.
    #[error("the header \"{name}\" can't be sent: its name or value has characters that headers can't have")]
    Header {
        /// Its name.
        name: String,
    },
}

/// See the module.
pub(crate) struct Asker {
    endpoint: Endpoint,
    headers: HeaderMap,
    permits: Semaphore,
    waiting: AtomicUsize,
    waiting_max: usize,
    is_failing: AtomicBool,
    /// What is told when it begins to fail, and when it is over.
    told: [&'static str; 2],
}

impl std::fmt::Debug for Asker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asker").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Asker {
    /// Asks with these headers, whose values may be secrets, and in so many requests at a time.
    pub(crate) fn new(
        settings: &EndpointSettings,
        headers: &[(String, String)],
        requests: usize,
        told: [&'static str; 2],
    ) -> Result<Self, AskerError> {
        let mut all = HeaderMap::new();
        all.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in headers {
            let unusable = || AskerError::Header { name: name.clone() };
            let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unusable())?;
            let mut value = HeaderValue::from_str(value).map_err(|_| unusable())?;
            value.set_sensitive(true);
            all.insert(key, value);
        }
        Ok(Self {
            endpoint: Endpoint::new(settings).map_err(AskerError::Endpoint)?,
            headers: all,
            permits: Semaphore::new(requests),
            waiting: AtomicUsize::new(0),
            waiting_max: requests.saturating_mul(QUEUED_PER_REQUEST),
            is_failing: AtomicBool::new(false),
            told,
        })
    }

    /// Asks, and makes something of an answer of at most `limit` bytes. The error is for the log, and repeats nothing of what
    /// was sent or answered.
    pub(crate) async fn ask<T>(
        &self,
        body: Vec<u8>,
        limit: usize,
        read: impl FnOnce(Vec<u8>) -> Result<T, String>,
    ) -> Result<T, String> {
        let _permit = {
            let _place = Place::take(self).ok_or("too many clients wait for the server")?;
            self.permits.acquire().await.map_err(|error| error.to_string())?
        };
        let answer = self.endpoint.ask(Method::POST, self.headers.clone(), body, limit).await;
        let answer = answer.map_err(|error| error.to_string()).and_then(read);
        self.note(answer.as_ref().err());
        answer
    }

    /// Tells the first failure of a row, and its end: clients decide how often there is one.
    fn note(&self, failure: Option<&String>) {
        let was_failing = self.is_failing.swap(failure.is_some(), Ordering::Relaxed);
        let [begins, is_over] = self.told;
        match failure {
            Some(error) if !was_failing => tracing::warn!(error, "{begins}"),
            None if was_failing => tracing::info!("{is_over}"),
            Some(_) | None => {}
        }
    }
}

/// A place among those that wait; given back when dropped.
struct Place<'a>(&'a Asker);

impl<'a> Place<'a> {
    fn take(asker: &'a Asker) -> Option<Self> {
        let place = Self(asker);
        (asker.waiting.fetch_add(1, Ordering::AcqRel) < asker.waiting_max).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::test_server::Server;
    use super::*;

    fn asker(url: &str, headers: &[(String, String)]) -> Result<Asker, AskerError> {
        let endpoint = EndpointSettings {
            url: url.to_owned(),
            ca: None,
            insecure_http: false,
            timeout: Duration::from_secs(5),
            guard: None,
        };
        Asker::new(&endpoint, headers, 1, ["fails", "works"])
    }

    #[tokio::test]
    async fn questions_wait_up_to_a_limit_and_no_more() {
        let server = Server::start().await;
        server.answer(200, "yes");
        let asker = asker(&server.url(), &[]).unwrap();
        let ask = || asker.ask(Vec::new(), 3, Ok);
        assert_eq!(ask().await.unwrap(), b"yes");
        let places: Vec<_> = (1..QUEUED_PER_REQUEST).map(|_| Place::take(&asker).unwrap()).collect();
        assert_eq!(ask().await.unwrap(), b"yes");
        let last = Place::take(&asker).unwrap();
        assert_eq!(ask().await.unwrap_err(), "too many clients wait for the server");
        drop((places, last));
        assert_eq!(asker.waiting.load(Ordering::Relaxed), 0);
        assert_eq!(server.requests(), 2);
        server.answer(200, "more");
        assert!(ask().await.unwrap_err().contains("larger than the limit of 3"));
    }

    #[test]
    fn a_header_that_can_t_be_sent_is_refused_without_its_value() {
        for (name, value) in [("X Y", "s3cret"), ("X-Token", "s3cret\n")] {
            let error = asker("http://127.0.0.1:9/", &[(name.to_owned(), value.to_owned())]).unwrap_err();
            assert!(error.to_string().contains(name) && !error.to_string().contains("s3cret"), "{error}");
        }
    }
}
