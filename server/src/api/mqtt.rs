//! MQTT for whoever is signed in: a WebSocket of this listener, with a client of the broker inside.
//!
//! The client is who the session or the token says, whatever its CONNECT does; the access rules hold for it as for any client
//! of that User Name. It is looked at once a second whether that session or token is still good: when it isn't, the connection
//! ends. A page elsewhere on the web can't open one: browsers name the page in Origin, which the guard has looked at.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use broker::{Door, Identity, PeerAddress, websocket_accept_key};
use hyper::header::{
    AUTHORIZATION, CONNECTION, COOKIE, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{HeaderMap, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::time::{MissedTickBehavior, interval};

use super::Api;
use super::auth::{Caller, Role, Scope};
use super::problem::{Kind, Problem};
use super::serve::Peer;

/// Most of them at a time.
pub const MQTT_MAX: usize = 16;
/// The listener that their clients are shown with, and who has authenticated them.
const LISTENER: &str = "console";
/// The sub-protocol.
const PROTOCOL: &str = "mqtt";
/// How often it is looked at whether the session or token is still good.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// Who may: as the table of routes says.
const NEEDED: (Role, Scope) = (Role::Operator, Scope { area: "messages", writes: true });

/// Where such clients come in, and how many there are.
#[derive(Debug)]
pub(super) struct MqttDoor {
    door: Door,
    open: Arc<AtomicUsize>,
}

impl MqttDoor {
    pub(super) fn new(broker: &broker::Broker) -> Self {
        let most = u32::try_from(MQTT_MAX).unwrap_or(u32::MAX);
        Self { door: broker.door(LISTENER, most), open: Arc::default() }
    }

    /// How many are open.
    #[cfg(test)]
    pub(super) fn open_now(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    fn take(&self) -> Result<Place, Problem> {
        let place = Place(Arc::clone(&self.open));
        if self.open.fetch_add(1, Ordering::AcqRel) < MQTT_MAX {
            return Ok(place);
        }
        Err(Problem::new(Kind::Unavailable, format!("{MQTT_MAX} of them are open, which is the limit")))
    }
}

/// One of [`MQTT_MAX`], for as long as it is kept.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Opens a WebSocket with MQTT 3.1.1 or 5.0 inside, as a listener for WebSocket does. The client's User Name is the name of who
/// is signed in.
#[utoipa::path(get, path = "/api/v1/mqtt", operation_id = "openMqtt", tag = "messages",
    responses((status = 101, description = "MQTT begins")))]
pub(super) async fn open_mqtt(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    mut request: Request,
) -> Result<Response, Problem> {
    let accept = accept_of(request.headers())?;
    let peer = request.extensions().get::<Peer>().copied();
    let upgrade = request.extensions_mut().remove::<OnUpgrade>().ok_or_else(|| {
        Problem::new(Kind::Malformed, "expected a connection of HTTP/1.1 that can become something else")
    })?;
    let place = api.mqtt.take()?;
    let proof = Proof { headers: proof_of(request.headers()), peer, name: caller.name };
    tokio::spawn(async move {
        match upgrade.await {
            Ok(stream) => serve(&api, stream, &proof).await,
            Err(error) => tracing::debug!(%error, "a request for MQTT came to nothing"),
        }
        drop(place);
    });
    let headers = [
        (UPGRADE, HeaderValue::from_static("websocket")),
        (CONNECTION, HeaderValue::from_static("Upgrade")),
        (SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL)),
        (SEC_WEBSOCKET_ACCEPT, accept),
    ];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}

/// What proves who is at the other end, for as long as the connection stands.
struct Proof {
    headers: HeaderMap,
    peer: Option<Peer>,
    name: String,
}

impl Proof {
    /// Whether it still is who it was, and may still. To look keeps no session alive.
    fn is_good(&self, api: &Api) -> bool {
        let (role, scope) = NEEDED;
        let caller = api.auth.still(&self.headers, self.peer);
        caller.is_some_and(|caller| caller.name == self.name && caller.may(role, scope).is_ok())
    }
}

/// Serves the client until it goes, or its proof isn't good any more.
async fn serve(api: &Arc<Api>, stream: Upgraded, proof: &Proof) {
    let identity = Identity {
        username: Some(proof.name.as_str().into()),
        authenticator: Some(LISTENER.into()),
        ..Identity::default()
    };
    let address = match proof.peer {
        Some(Peer::Address(address)) => PeerAddress::Ip(address),
        Some(Peer::Owner(_)) | None => PeerAddress::Unix,
    };
    let mut served = Box::pin(api.mqtt.door.serve(TokioIo::new(stream), address, Arc::new(identity)));
    let mut ticks = interval(CHECK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = &mut served => return,
            _ = ticks.tick() => if !proof.is_good(api) {
                tracing::debug!(name = proof.name, "an MQTT connection of the console ends: its session or token is over");
                return;
            },
        }
    }
}

/// The headers that say who asks.
fn proof_of(headers: &HeaderMap) -> HeaderMap {
    let mut proof = HeaderMap::new();
    for name in [AUTHORIZATION, COOKIE] {
        for value in headers.get_all(&name) {
            proof.append(name.clone(), value.clone());
        }
    }
    proof
}

/// Checks a request for WebSocket (RFC 6455 §4.2.1); returns what proves that it was understood.
fn accept_of(headers: &HeaderMap) -> Result<HeaderValue, Problem> {
    let malformed = |detail: &str| Problem::new(Kind::Malformed, detail);
    if !has_token(headers, &UPGRADE, "websocket") || !has_token(headers, &CONNECTION, "upgrade") {
        return Err(malformed("expected a request for WebSocket: Upgrade: websocket, Connection: Upgrade"));
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(malformed("expected Sec-WebSocket-Version: 13"));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok());
    let key = key.filter(|key| BASE64_STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16));
    let key = key.ok_or_else(|| malformed("expected 16 bytes in base64 in Sec-WebSocket-Key"))?;
    if !has_token(headers, &SEC_WEBSOCKET_PROTOCOL, PROTOCOL) {
        return Err(malformed("expected mqtt in Sec-WebSocket-Protocol"));
    }
    HeaderValue::try_from(websocket_accept_key(key))
        .map_err(|_| malformed("expected 16 bytes in base64 in Sec-WebSocket-Key"))
}

/// Whether a header that is a list has this in it, in any case.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
}
