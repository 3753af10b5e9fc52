//! Every error has one form: `application/problem+json` (RFC 9457) with a stable `code`.
//!
//! What is told is for whoever asked. It repeats no secret and no header, and of the inside only what the caller may see anyway.

use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde::Serialize;
use utoipa::ToSchema;

use crate::reload::Fault;

/// Most faults that a problem names one by one; it says how many more there are.
pub const ERRORS_MAX: usize = 100;
/// Most of them in its `detail`.
const ERRORS_IN_DETAIL_MAX: usize = 3;

/// Declares the kinds of problems: their code, status and title.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $code:literal, $status:ident, $title:literal;)*) => {
        /// Why a request isn't carried out.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Kind { $($(#[$doc])* $kind),* }

        impl Kind {
            /// Every kind.
            #[cfg(test)]
            pub(super) const ALL: &[Self] = &[$(Self::$kind),*];

            pub(super) const fn code(self) -> &'static str {
                match self { $(Self::$kind => $code),* }
            }

            pub(super) const fn status(self) -> StatusCode {
                match self { $(Self::$kind => StatusCode::$status),* }
            }

            const fn title(self) -> &'static str {
                match self { $(Self::$kind => $title),* }
            }
        }
    };
}

kinds! {
    /// The request can't be understood.
    Malformed = "malformed", BAD_REQUEST, "The request can't be read";
    /// It is for a host that isn't this one.
    Host = "host", MISDIRECTED_REQUEST, "This host isn't served here";
    /// A page of another origin sent it.
    Origin = "origin", FORBIDDEN, "Pages of other origins may not ask";
    /// Nobody says who asks, or it isn't true.
    Unauthenticated = "unauthenticated", UNAUTHORIZED, "Who asks?";
    /// The caller may not.
    Forbidden = "forbidden", FORBIDDEN, "The caller may not";
    /// A session's change without its CSRF token.
    Csrf = "csrf", FORBIDDEN, "The CSRF token is missing or wrong";
    /// Nothing may be changed here.
    ReadOnly = "read_only", FORBIDDEN, "Nothing may be changed here";
    /// There were too many failures.
    LockedOut = "locked_out", TOO_MANY_REQUESTS, "Too many failures";
    /// There is no such thing.
    Missing = "missing", NOT_FOUND, "There is none of this name";
    /// Things are not so that it can be done.
    Conflict = "conflict", CONFLICT, "It can't be done as things are";
    /// The configuration or rules of files have faults.
    Refused = "refused", CONFLICT, "The configuration, or a rule of a file, is refused";
    /// It isn't what the caller expects it to be.
    Precondition = "precondition", PRECONDITION_FAILED, "Somebody has changed it meanwhile";
    /// There is no such path.
    NoPath = "no_path", NOT_FOUND, "There is no such path";
    /// The path is there, but not for this method.
    Method = "method", METHOD_NOT_ALLOWED, "The path doesn't take this method";
    /// The body didn't come in time.
    Slow = "slow", REQUEST_TIMEOUT, "The body didn't come in time";
    /// The body is too long.
    TooLarge = "too_large", PAYLOAD_TOO_LARGE, "The body is too long";
    /// The body isn't what is expected by its Content-Type.
    MediaType = "media_type", UNSUPPORTED_MEDIA_TYPE, "The body has another Content-Type than is expected";
    /// It is JSON, but not what is expected.
    Invalid = "invalid", UNPROCESSABLE_ENTITY, "The request doesn't fit";
    /// Something broke.
    Internal = "internal", INTERNAL_SERVER_ERROR, "Something broke; the log says more";
    /// Not now.
    Unavailable = "unavailable", SERVICE_UNAVAILABLE, "Not now";
}

/// A request that isn't carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    kind: Kind,
    detail: String,
    errors: Vec<Fault>,
    retry_after_s: Option<u64>,
}

/// A problem as it is sent.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemBody {
    /// Always `about:blank`: `code` tells problems apart.
    #[serde(rename = "type")]
    kind: &'static str,
    /// What `code` means.
    title: &'static str,
    /// The status of the answer.
    status: u16,
    /// A stable word for the kind of problem.
    code: &'static str,
    /// What is wrong with this request.
    detail: String,
    /// The faults one by one, where there may be several: 100, and how many more there are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    errors: Vec<Fault>,
}

impl Problem {
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), errors: Vec::new(), retry_after_s: None }
    }

    /// Names faults one by one, the first few of them in the detail too.
    pub(super) fn with_errors(mut self, mut errors: Vec<Fault>) -> Self {
        let told: Vec<String> = errors.iter().take(ERRORS_IN_DETAIL_MAX).map(ToString::to_string).collect();
        self.detail = told.join("; ");
        if let Some(more) = errors.len().checked_sub(told.len()).filter(|more| *more > 0) {
            self.detail.push_str(&format!("; and {more} more"));
        }
        if let Some(more) = errors.len().checked_sub(ERRORS_MAX).filter(|more| *more > 0) {
            errors.truncate(ERRORS_MAX);
            errors.push(Fault::new(format!("{more} more are not named")));
        }
        self.errors = errors;
        self
    }

    /// Nothing may be changed.
    pub(super) fn read_only() -> Self {
        Self::new(Kind::ReadOnly, "read_only is set in [admin] of the configuration")
    }

    /// Says when to try again.
    pub(super) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// What is wrong, in words.
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    #[cfg(test)]
    pub(super) fn kind(&self) -> Kind {
        self.kind
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.kind.status();
        let body = ProblemBody {
            kind: "about:blank",
            title: self.kind.title(),
            status: status.as_u16(),
            code: self.kind.code(),
            detail: self.detail,
            errors: self.errors,
        };
        let json = serde_json::to_vec(&body).unwrap_or_default();
        let mut response =
            (status, [(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"))], json)
                .into_response();
        let mut header = |name: HeaderName, value| drop(response.headers_mut().insert(name, value));
        if status == StatusCode::UNAUTHORIZED {
            header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"tidegate\""));
        }
        if let Some(seconds) = self.retry_after_s {
            header(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_have_their_limits() {
        let with = |count: usize| {
            let errors = (0..count).map(|number| Fault::new(format!("fault {number}"))).collect();
            let Problem { detail, errors, .. } = Problem::new(Kind::Refused, "").with_errors(errors);
            (detail, errors.len(), errors.last().map(ToString::to_string).unwrap_or_default())
        };
        let last = |number: usize| format!("fault {number}");
        assert_eq!(with(1), ("fault 0".to_owned(), 1, last(0)));
        assert_eq!(with(3), ("fault 0; fault 1; fault 2".to_owned(), 3, last(2)));
        let most = "fault 0; fault 1; fault 2; and 97 more".to_owned();
        assert_eq!(with(ERRORS_MAX), (most, ERRORS_MAX, last(ERRORS_MAX - 1)));
        let (_, count, last) = with(ERRORS_MAX + 5);
        assert_eq!((count, &*last), (ERRORS_MAX + 1, "5 more are not named"));
    }
}
