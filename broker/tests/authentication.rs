//! Who may come in: what the broker asks, when, and what it makes of the answers. The tests play the one who decides.

#![allow(clippy::unwrap_used, reason = "a helper of tests panics where it can't go on")]

mod common;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use broker::{
    AccessControl, Action, Answer, Attempt, Broker, BrokerConfig, Decision, Exchange, Identity, Limits,
    ListenerConfig, Publisher, Speaks, TlsSetup, Verdict,
};
use common::{Client, FOR_EVER, Got, Harness, listen_for};
use mqtt_protocol::{Auth, Connect, Disconnect, Packet, ProtocolVersion, QoS, ReasonCode};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use store::MemoryStore;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio_rustls::TlsConnector;

/// What somebody wants decided.
struct Question {
    attempt: Option<Attempt>,
    data: Vec<u8>,
    reply: oneshot::Sender<Verdict>,
}

/// Hands every question to the test.
#[derive(Debug, Clone)]
struct Door(mpsc::Sender<Question>);

impl Door {
    fn ask(&self, attempt: Option<Attempt>, data: Vec<u8>) -> Answer {
        let (reply, answer) = oneshot::channel();
        assert!(self.0.try_send(Question { attempt, data, reply }).is_ok());
        Box::pin(async move { answer.await.unwrap() })
    }
}

impl AccessControl for Door {
    fn is_open(&self, _: &Publisher) -> bool {
        true
    }

    fn authenticate(&self, attempt: Attempt) -> Answer {
        let data = attempt.enhanced.as_ref().map(|(_, data)| data.to_vec()).unwrap_or_default();
        self.ask(Some(attempt), data)
    }

    fn decide(&self, _who: &Publisher, _action: Action<'_>) -> Decision {
        Decision::Allow
    }

    fn version(&self) -> u64 {
        0
    }
}

impl Exchange for Door {
    fn answer(self: Box<Self>, data: &[u8]) -> Answer {
        self.ask(None, data.to_vec())
    }
}

struct Stage {
    harness: Harness,
    door: Door,
    questions: mpsc::Receiver<Question>,
}

async fn stage_with(limits: Limits, allow_anonymous: bool) -> Stage {
    let (sender, questions) = mpsc::channel(64);
    let door = Door(sender);
    let config = BrokerConfig { limits, ..BrokerConfig::default() };
    let broker = Broker::with_access(config, Arc::new(MemoryStore::new(1)), None, Arc::new(door.clone()));
    Stage { harness: listen_for(broker, allow_anonymous).await, door, questions }
}

async fn stage() -> Stage {
    stage_with(Limits::default(), false).await
}

impl Stage {
    async fn question(&mut self) -> Question {
        tokio::time::timeout(FOR_EVER, self.questions.recv()).await.unwrap().unwrap()
    }

    async fn answer(&mut self, verdict: Verdict) {
        self.question().await.reply.send(verdict).unwrap();
    }

    fn challenge(&self, data: &[u8]) -> Verdict {
        Verdict::Continue(Box::new(self.door.clone()), data.into())
    }

    async fn sends(&self, connect: &Connect<'_>) -> Client {
        let mut client = self.harness.raw(connect.version).await;
        client.send(&Packet::Connect(Box::new(*connect))).await;
        client
    }

    /// A client that came in by the method `m`, for as long as it says.
    async fn enhanced(&mut self, expires_at_ms: Option<i64>) -> Client {
        let mut client = self.sends(&by_method("c")).await;
        self.answer(Verdict::Accept(known(expires_at_ms), None)).await;
        assert_eq!(client.receive().await, accepted());
        client
    }
}

fn known(expires_at_ms: Option<i64>) -> Arc<Identity> {
    Arc::new(Identity {
        username: Some("ada".into()),
        authenticator: Some("test".into()),
        expires_at_ms,
        ..Identity::default()
    })
}

fn by_method(client_id: &str) -> Connect<'_> {
    let mut connect = Connect::new(ProtocolVersion::V5, client_id);
    connect.properties.authentication_method = Some("m");
    connect.properties.authentication_data = Some(b"first");
    connect
}

fn auth(reason: ReasonCode, method: &'static str, data: &'static [u8]) -> Packet<'static> {
    Packet::Auth(Auth { authentication_data: Some(data), ..Auth::new(reason, Some(method)) })
}

fn asked(data: &[u8]) -> Got {
    Got::Auth {
        reason: ReasonCode::ContinueAuthentication,
        method: Some("m".to_owned()),
        data: Some(data.to_vec()),
    }
}

fn accepted() -> Got {
    Got::ConnAck { session_present: false, reason: ReasonCode::Success }
}

fn refused(reason: ReasonCode) -> Got {
    Got::ConnAck { session_present: false, reason }
}

fn wall_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

#[tokio::test]
async fn an_attempt_shows_what_the_connect_shows() {
    let mut stage = stage().await;
    let mut connect = Connect::new(ProtocolVersion::V3_1_1, "c");
    connect.username = Some("ada");
    connect.password = Some(b"secret");
    let mut client = stage.sends(&connect).await;
    let question = stage.question().await;
    let attempt = question.attempt.unwrap();
    assert_eq!((&*attempt.client_id, attempt.username.as_deref()), ("c", Some("ada")));
    assert_eq!(attempt.password.as_deref(), Some(&b"secret"[..]));
    assert_eq!((&*attempt.listener, attempt.version), ("tcp", ProtocolVersion::V3_1_1));
    assert!(attempt.enhanced.is_none());
    assert!(!format!("{attempt:?}").contains("secret"));
    question.reply.send(Verdict::Accept(known(None), None)).unwrap();
    assert_eq!(client.receive().await, accepted());
}

#[tokio::test]
async fn a_refusal_says_its_code_and_touches_no_session() {
    for (reason, version, told) in [
        (ReasonCode::BadUserNameOrPassword, ProtocolVersion::V5, ReasonCode::BadUserNameOrPassword),
        (ReasonCode::NotAuthorized, ProtocolVersion::V5, ReasonCode::NotAuthorized),
        (ReasonCode::ServerUnavailable, ProtocolVersion::V5, ReasonCode::ServerUnavailable),
        (ReasonCode::BadUserNameOrPassword, ProtocolVersion::V3_1_1, ReasonCode::BadUserNameOrPassword),
        (ReasonCode::NotAuthorized, ProtocolVersion::V3_1_1, ReasonCode::NotAuthorized),
        (ReasonCode::ServerUnavailable, ProtocolVersion::V3_1, ReasonCode::ServerUnavailable),
    ] {
        let mut stage = stage().await;
        let mut client = stage.sends(&Connect::new(version, "c")).await;
        stage.answer(Verdict::Refuse(reason, "for the log".into())).await;
        assert_eq!(client.receive().await, refused(told));
        assert_eq!(client.receive().await, Got::Closed);
        assert_eq!(stage.harness.broker.stats().sessions, 0);
    }
}

#[tokio::test]
async fn whoever_is_not_known_stays_outside_unless_the_listener_lets_anonymous_clients_in() {
    for allow_anonymous in [false, true] {
        let mut stage = stage_with(Limits::default(), allow_anonymous).await;
        let mut client = stage.sends(&Connect::new(ProtocolVersion::V5, "c")).await;
        stage.answer(Verdict::Accept(Arc::default(), None)).await;
        let expected = if allow_anonymous { accepted() } else { refused(ReasonCode::NotAuthorized) };
        assert_eq!(client.receive().await, expected);
    }
}

#[tokio::test]
async fn somebody_whose_time_is_over_already_stays_outside() {
    let mut stage = stage().await;
    let mut client = stage.sends(&Connect::new(ProtocolVersion::V5, "c")).await;
    stage.answer(Verdict::Accept(known(Some(wall_ms() - 1)), None)).await;
    assert_eq!(client.receive().await, refused(ReasonCode::NotAuthorized));
}

#[tokio::test]
async fn a_connect_that_is_refused_anyway_asks_nobody() {
    let mut stage = stage().await;
    let mut client = stage.sends(&Connect::new(ProtocolVersion::V5, &"x".repeat(257))).await;
    assert_eq!(client.receive().await, refused(ReasonCode::ClientIdentifierNotValid));
    assert!(stage.questions.try_recv().is_err());
}

#[tokio::test]
async fn an_attempt_is_given_up_when_the_client_goes() {
    let mut stage = stage().await;
    let client = stage.sends(&Connect::new(ProtocolVersion::V5, "c")).await;
    let mut question = stage.question().await;
    drop(client);
    tokio::time::timeout(FOR_EVER, question.reply.closed()).await.unwrap();
}

#[tokio::test]
async fn what_is_sent_ahead_waits_and_is_handled_in_order() {
    let mut stage = stage().await;
    let mut client = stage.sends(&Connect::new(ProtocolVersion::V5, "c")).await;
    let question = stage.question().await;
    client.publish("t", b"ahead", QoS::AtLeastOnce, true, 7).await;
    client.send(&Packet::PingReq).await;
    question.reply.send(Verdict::Accept(known(None), None)).unwrap();
    assert_eq!(client.receive().await, accepted());
    let Got::Ack("PUBACK", id, _) = client.receive().await else { panic!("no PUBACK") };
    assert_eq!(id.get(), 7);
    assert_eq!(client.receive().await, Got::PingResp);
}

#[tokio::test]
async fn a_client_that_sends_all_at_once_and_goes_is_served() {
    let mut stage = stage().await;
    let mut receiver = stage.sends(&Connect::new(ProtocolVersion::V5, "receiver")).await;
    stage.answer(Verdict::Accept(known(None), None)).await;
    assert_eq!(receiver.receive().await, accepted());
    receiver.subscribe("t", QoS::AtMostOnce).await;
    let mut client = stage.sends(&Connect::new(ProtocolVersion::V5, "c")).await;
    client.publish("t", b"and gone", QoS::AtMostOnce, false, 0).await;
    let question = stage.question().await;
    drop(client);
    question.reply.send(Verdict::Accept(known(None), None)).unwrap();
    assert_eq!(receiver.payload().await, b"and gone");
}

#[tokio::test]
async fn what_nobody_decides_in_time_is_refused_as_unavailable() {
    for version in [ProtocolVersion::V5, ProtocolVersion::V3_1_1] {
        let limits = Limits { connect_timeout: Duration::from_secs(3), ..Limits::default() };
        let mut stage = stage_with(limits, false).await;
        let mut client = stage.sends(&Connect::new(version, "c")).await;
        let mut question = stage.question().await;
        assert_eq!(client.receive().await, refused(ReasonCode::ServerUnavailable));
        tokio::time::timeout(FOR_EVER, question.reply.closed()).await.unwrap();
        assert_eq!(stage.harness.broker.stats().authentication_timeouts, 1);
    }
}

#[tokio::test]
async fn a_challenge_that_is_not_answered_in_time_ends_the_connection() {
    let limits = Limits { connect_timeout: Duration::from_secs(3), ..Limits::default() };
    let mut stage = stage_with(limits, false).await;
    let mut client = stage.sends(&by_method("c")).await;
    let challenge = stage.challenge(b"who?");
    stage.answer(challenge).await;
    assert_eq!(client.receive().await, asked(b"who?"));
    assert_eq!(client.receive().await, Got::Closed);
    assert_eq!(stage.harness.broker.stats().authentication_timeouts, 1);
}

#[tokio::test]
async fn an_exchange_goes_back_and_forth_before_the_connack_v5_4_12() {
    let mut stage = stage().await;
    let mut client = stage.sends(&by_method("c")).await;
    let question = stage.question().await;
    assert_eq!(question.data, b"first");
    assert_eq!(&*question.attempt.unwrap().enhanced.unwrap().0, "m");
    question.reply.send(stage.challenge(b"one?")).unwrap();
    assert_eq!(client.receive().await, asked(b"one?"));
    client.send(&auth(ReasonCode::ContinueAuthentication, "m", b"one")).await;
    let question = stage.question().await;
    assert_eq!(question.data, b"one");
    question.reply.send(stage.challenge(b"two?")).unwrap();
    assert_eq!(client.receive().await, asked(b"two?"));
    client.send(&auth(ReasonCode::ContinueAuthentication, "m", b"two")).await;
    stage.answer(Verdict::Accept(known(None), Some(b"done"[..].into()))).await;
    assert_eq!(client.receive().await, accepted());
    client.expect_nothing().await;
}

#[tokio::test]
async fn only_auth_of_the_same_method_may_come_before_the_connack_v5_3_1_2_30() {
    let others = [
        Packet::PingReq,
        auth(ReasonCode::ContinueAuthentication, "other", b"x"),
        auth(ReasonCode::ReAuthenticate, "m", b"x"),
        auth(ReasonCode::Success, "m", b"x"),
    ];
    for other in others {
        let mut stage = stage().await;
        let mut client = stage.sends(&by_method("c")).await;
        let challenge = stage.challenge(b"who?");
        stage.answer(challenge).await;
        assert_eq!(client.receive().await, asked(b"who?"));
        client.send(&other).await;
        assert_eq!(client.receive().await, refused(ReasonCode::ProtocolError), "{other:?}");
        assert_eq!(client.receive().await, Got::Closed);
        assert!(stage.questions.try_recv().is_err());
    }
}

#[tokio::test]
async fn a_client_may_go_instead_of_answering() {
    let mut stage = stage().await;
    let mut client = stage.sends(&by_method("c")).await;
    let challenge = stage.challenge(b"who?");
    stage.answer(challenge).await;
    assert_eq!(client.receive().await, asked(b"who?"));
    client.send(&Packet::Disconnect(Disconnect::new(ReasonCode::NormalDisconnection))).await;
    assert_eq!(client.receive().await, Got::Closed);
}

/// Gives somebody so many milliseconds, and more if they were over before he had used them: then the test says `false`.
async fn in_good_time(mut test: impl AsyncFnMut(i64) -> bool) {
    for ms in [1500, 3000, 6000, 12_000] {
        if test(ms).await {
            return;
        }
    }
    panic!("it was too late each time");
}

#[tokio::test]
async fn a_connection_ends_with_the_right_to_be_there() {
    in_good_time(async |ms| {
        let mut stage = stage().await;
        let mut v5 = stage.sends(&Connect::new(ProtocolVersion::V5, "v5")).await;
        let soon = wall_ms() + ms;
        stage.answer(Verdict::Accept(known(Some(soon)), None)).await;
        let mut v3 = stage.sends(&Connect::new(ProtocolVersion::V3_1_1, "v3")).await;
        stage.answer(Verdict::Accept(known(Some(soon)), None)).await;
        let answers = (v5.receive().await, v3.receive().await);
        if answers != (accepted(), accepted()) && wall_ms() >= soon {
            return false;
        }
        assert_eq!(answers, (accepted(), accepted()));
        assert_eq!(v5.receive().await, Got::Disconnect(ReasonCode::MaximumConnectTime));
        assert_eq!(v3.receive().await, Got::Closed);
        assert!(wall_ms() >= soon);
        assert_eq!(stage.harness.broker.stats().identities_expired, 2);
        true
    })
    .await;
}

#[tokio::test]
async fn a_client_authenticates_again_while_messages_go_on() {
    in_good_time(async |ms| {
        let mut stage = stage().await;
        let mut client = stage.enhanced(Some(wall_ms() + 3_600_000)).await;
        client.subscribe("t", QoS::AtMostOnce).await;
        client.send(&auth(ReasonCode::ReAuthenticate, "m", b"again")).await;
        let question = stage.question().await;
        assert_eq!(question.data, b"again");
        assert_eq!(question.attempt.unwrap().username.as_deref(), Some("ada"));
        client.publish("t", b"meanwhile", QoS::AtMostOnce, false, 0).await;
        assert_eq!(client.payload().await, b"meanwhile");
        question.reply.send(stage.challenge(b"who?")).unwrap();
        assert_eq!(client.receive().await, asked(b"who?"));
        client.publish("t", b"and now", QoS::AtMostOnce, false, 0).await;
        assert_eq!(client.payload().await, b"and now");
        client.send(&auth(ReasonCode::ContinueAuthentication, "m", b"me")).await;
        // For less time than before: that counts now.
        let soon = wall_ms() + ms;
        stage.answer(Verdict::Accept(known(Some(soon)), Some(b"done"[..].into()))).await;
        let done = Got::Auth {
            reason: ReasonCode::Success,
            method: Some("m".to_owned()),
            data: Some(b"done".to_vec()),
        };
        let answer = client.receive().await;
        if answer == Got::Disconnect(ReasonCode::MaximumConnectTime) && wall_ms() >= soon {
            return false;
        }
        assert_eq!(answer, done);
        assert_eq!(stage.harness.broker.stats().reauthentications, 1);
        assert_eq!(client.receive().await, Got::Disconnect(ReasonCode::MaximumConnectTime));
        assert!(wall_ms() >= soon);
        true
    })
    .await;
}

#[tokio::test]
async fn authenticating_again_can_prolong_the_right_to_be_there() {
    in_good_time(async |ms| {
        let mut stage = stage().await;
        let mut client = stage.sends(&by_method("c")).await;
        let end = wall_ms() + ms;
        stage.answer(Verdict::Accept(known(Some(end)), None)).await;
        let mut answer = client.receive().await;
        if answer == accepted() {
            client.send(&auth(ReasonCode::ReAuthenticate, "m", b"again")).await;
            answer = tokio::select! {
                question = stage.question() => {
                    // Nobody waits for it if the time is over.
                    drop(question.reply.send(Verdict::Accept(known(None), None)));
                    client.receive().await
                }
                answer = client.receive() => answer,
            };
        }
        let is_prolonged = matches!(answer, Got::Auth { reason: ReasonCode::Success, .. });
        if !is_prolonged && wall_ms() >= end {
            return false;
        }
        assert!(is_prolonged, "{answer:?}");
        let past_it = Duration::from_millis(u64::try_from(end + 100 - wall_ms()).unwrap_or_default());
        assert!(tokio::time::timeout(past_it, client.receive()).await.is_err());
        client.expect_nothing().await;
        true
    })
    .await;
}

#[tokio::test]
async fn authenticating_again_in_vain_ends_the_connection_v5_4_12_1_2() {
    for (verdict, told) in [
        (Verdict::Refuse(ReasonCode::NotAuthorized, "no".into()), ReasonCode::NotAuthorized),
        // A DISCONNECT hasn't got this one.
        (Verdict::Refuse(ReasonCode::BadUserNameOrPassword, "no".into()), ReasonCode::NotAuthorized),
        (Verdict::Accept(Arc::default(), None), ReasonCode::NotAuthorized),
        (Verdict::Accept(known(Some(1)), None), ReasonCode::MaximumConnectTime),
    ] {
        let mut stage = stage().await;
        let mut client = stage.enhanced(None).await;
        client.send(&auth(ReasonCode::ReAuthenticate, "m", b"again")).await;
        stage.answer(verdict).await;
        assert_eq!(client.receive().await, Got::Disconnect(told));
        assert_eq!(client.receive().await, Got::Closed);
    }
}

#[tokio::test]
async fn auth_out_of_turn_ends_the_connection() {
    let out_of_turn = [
        (auth(ReasonCode::ReAuthenticate, "other", b"x"), ReasonCode::BadAuthenticationMethod),
        (auth(ReasonCode::ContinueAuthentication, "m", b"x"), ReasonCode::ProtocolError),
        (auth(ReasonCode::Success, "m", b"x"), ReasonCode::ProtocolError),
    ];
    for (packet, told) in out_of_turn {
        let mut stage = stage().await;
        let mut client = stage.enhanced(None).await;
        client.send(&packet).await;
        assert_eq!(client.receive().await, Got::Disconnect(told), "{packet:?}");
    }
    let mut stage = stage().await;
    let mut client = stage.enhanced(None).await;
    client.send(&auth(ReasonCode::ReAuthenticate, "m", b"x")).await;
    let _question = stage.question().await;
    client.send(&auth(ReasonCode::ReAuthenticate, "m", b"x")).await;
    assert_eq!(client.receive().await, Got::Disconnect(ReasonCode::ProtocolError));
}

#[tokio::test]
async fn auth_without_a_method_in_the_connect_is_a_protocol_error_v5_4_12_0_7() {
    let mut stage = stage().await;
    let mut client = stage.sends(&Connect::new(ProtocolVersion::V5, "c")).await;
    stage.answer(Verdict::Accept(known(None), None)).await;
    assert_eq!(client.receive().await, accepted());
    client.send(&auth(ReasonCode::ReAuthenticate, "m", b"x")).await;
    assert_eq!(client.receive().await, Got::Disconnect(ReasonCode::ProtocolError));
}

/// A listener of TLS that wants certificates, and a client that has one.
async fn stage_with_certificates() -> (Stage, std::net::SocketAddr, TlsConnector, Vec<u8>) {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let issue = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let issued = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
        (issued.der().clone(), PrivateKeyDer::Pkcs8(key.serialize_der().into()))
    };
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let (roots, provider) = (Arc::new(roots), Arc::new(rustls::crypto::ring::default_provider()));
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
        .build()
        .unwrap();
    let (certificate, key) = issue("localhost");
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let (shown, key) = issue("device");
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![shown.clone()], key)
        .unwrap();
    let stage = stage().await;
    let mut listener = ListenerConfig::tcp("tls", "127.0.0.1:0".parse().unwrap());
    listener.speaks = Speaks::Tls(TlsSetup::new(Arc::new(server), None));
    let bound = stage.harness.broker.listen(listener).await.unwrap();
    (stage, bound.endpoint.address().unwrap(), TlsConnector::from(Arc::new(client)), shown.to_vec())
}

#[tokio::test]
async fn authenticating_again_shows_the_certificate_of_the_connection() {
    let (mut stage, address, connector, shown) = stage_with_certificates().await;
    let socket = TcpStream::connect(address).await.unwrap();
    let mut client = connector.connect("localhost".try_into().unwrap(), socket).await.unwrap();
    let mut bytes = Vec::new();
    Packet::Connect(Box::new(by_method("c"))).encode(ProtocolVersion::V5, &mut bytes).unwrap();
    auth(ReasonCode::ReAuthenticate, "m", b"again").encode(ProtocolVersion::V5, &mut bytes).unwrap();
    client.write_all(&bytes).await.unwrap();
    for data in [&b"first"[..], b"again"] {
        let question = stage.question().await;
        assert_eq!(question.data, data);
        assert_eq!(question.attempt.unwrap().certificate.as_deref(), Some(&*shown), "{data:?}");
        question.reply.send(Verdict::Accept(known(None), None)).unwrap();
    }
}
