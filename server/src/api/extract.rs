//! What is taken from a request: the body as JSON, the query, the path. Each fault is a [`Problem`].
//!
//! Members that aren't known are refused by the types (`deny_unknown_fields`): a filter that was misspelt must not mean everything.

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize as _, Deserializer, Serialize};
use serde_json::{Map, Value};
use tokio::time::timeout;

use super::problem::{Kind, Problem};
use super::serve::BODY_TIMEOUT;

/// Most bytes of a body.
pub const BODY_BYTES_MAX: usize = 1 << 20;

/// Most bytes of a body that has many rules in it: a folder of them fits.
pub const RULES_BODY_BYTES_MAX: usize = 8 << 20;

/// A body of JSON: of a request, or of an answer.
pub(super) struct Json<T>(pub(super) T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        read_json(request, BODY_BYTES_MAX).await.map(Self)
    }
}

/// The same with many rules in it.
pub(super) struct RulesJson<T>(pub(super) T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for RulesJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        read_json(request, RULES_BODY_BYTES_MAX).await.map(Self)
    }
}

/// The same where no body at all has a meaning of its own.
pub(super) struct OptionalJson<T>(pub(super) Option<T>);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for OptionalJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let is_json = is_json(&request);
        let body = read(request.into_body(), BODY_BYTES_MAX).await?;
        if body.is_empty() {
            return Ok(Self(None));
        }
        if !is_json {
            return Err(no_json());
        }
        parse(&body).map(Some).map(Self)
    }
}

fn no_json() -> Problem {
    Problem::new(Kind::MediaType, "expected the Content-Type application/json")
}

async fn read_json<T: DeserializeOwned>(request: Request, bytes_max: usize) -> Result<T, Problem> {
    if !is_json(&request) {
        return Err(no_json());
    }
    parse(&read(request.into_body(), bytes_max).await?)
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let value: Value = serde_json::from_slice(body)
        .map_err(|error| Problem::new(Kind::Malformed, format!("the body is no JSON: {error}")))?;
    // A list of values in the order of the members is another form of a struct for serde, not for us.
    if !value.is_object() {
        return Err(Problem::new(Kind::Invalid, "expected an object"));
    }
    serde_json::from_value(value).map_err(|error| Problem::new(Kind::Invalid, error.to_string()))
}

/// Reads a member that is an object. serde takes a list of the members' values for a struct as well: an empty one would be a filter that
/// means everything.
pub(super) fn object<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<T, D::Error> {
    let members = Map::deserialize(deserializer)?;
    serde_json::from_value(Value::Object(members)).map_err(D::Error::custom)
}

/// The same where there may be none.
pub(super) fn object_or_null<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let members = Option::<Map<String, Value>>::deserialize(deserializer)?;
    members
        .map(|members| serde_json::from_value(Value::Object(members)).map_err(D::Error::custom))
        .transpose()
}

/// The same for a list of objects.
pub(super) fn objects<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let items: Vec<Map<String, Value>> = Vec::deserialize(deserializer)?;
    let read = |members| serde_json::from_value(Value::Object(members)).map_err(D::Error::custom);
    items.into_iter().map(read).collect()
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(json) => {
                ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], json).into_response()
            }
            Err(error) => {
                tracing::error!(%error, "an answer of the administration interface can't be written");
                Problem::new(Kind::Internal, "the answer can't be written").into_response()
            }
        }
    }
}

fn is_json(request: &Request) -> bool {
    media_type(request).is_some_and(|media_type| media_type.eq_ignore_ascii_case("application/json"))
}

/// The Content-Type of a request, without parameters.
pub(super) fn media_type(request: &Request) -> Option<&str> {
    let content_type = request.headers().get(CONTENT_TYPE)?.to_str().ok()?;
    content_type.split(';').next().map(str::trim)
}

async fn read(body: Body, bytes_max: usize) -> Result<hyper::body::Bytes, Problem> {
    match timeout(BODY_TIMEOUT, Limited::new(body, bytes_max).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(Problem::new(Kind::TooLarge, format!("a body may have {bytes_max} bytes")))
        }
        Ok(Err(_)) => Err(Problem::new(Kind::Malformed, "the body broke off")),
        Err(_) => {
            let seconds = BODY_TIMEOUT.as_secs();
            Err(Problem::new(Kind::Slow, format!("a body may take {seconds} seconds")))
        }
    }
}

/// The query.
pub(super) struct Query<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match axum::extract::Query::try_from_uri(&parts.uri) {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(error) => Err(Problem::new(Kind::Invalid, error.body_text())),
        }
    }
}

/// The variable parts of the path, decoded.
pub(super) struct Path<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(error) => Err(Problem::new(Kind::Malformed, error.body_text())),
        }
    }
}
