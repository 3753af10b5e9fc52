//! Test of a connector of HTTP servers.
//!
//! The last stage is a HEAD of the connector's own URL, with its credentials: it changes nothing by its definition (RFC 9110
//! section 9.2.1). Redirects aren't followed, and of the answer nothing but the status is told.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use reqwest::header::{AUTHORIZATION, HeaderMap};
use url::Host;

use super::auth::Auth;
use super::client::{self, ClientSettings, classify, judge_host};
use super::config::Redirect;
use super::connector::HttpConnector;
use super::hosts::Origin;
use crate::connectors::tls;
use crate::connectors::{Dialer, Endpoint, Probe, TestStage};

/// Longest time to make a connection, and for the request.
const TIMEOUT: Duration = Duration::from_secs(5);
/// What a signature is made with in place of an item's identity.
const TEST_ID: &str = "connection-test";

impl HttpConnector {
    /// Where it leads.
    pub(crate) fn addresses(&self) -> Vec<String> {
        match self.origin() {
            Some(origin) => vec![format!("{}://{}:{}", origin.scheme, origin.host, origin.port)],
            None => self.allowed_hosts().iter().map(ToString::to_string).collect(),
        }
    }

    pub(crate) async fn probe(&self, probe: &mut Probe) -> bool {
        let Some(origin) = self.origin() else {
            probe.nothing_to_try("the connector has no url: each action names its own");
            return false;
        };
        let host = match &origin.host {
            Host::Domain(name) => name.clone(),
            Host::Ipv4(v4) => v4.to_string(),
            Host::Ipv6(v6) => v6.to_string(),
        };
        let server = Endpoint { host, port: origin.port };
        // A proxy makes the way there by itself.
        if self.proxy.is_none() {
            let tls = match self.tls_for(origin) {
                Ok(tls) => (origin.scheme == "https").then(|| Arc::new(tls)),
                Err(error) => {
                    let failed = async { Err::<((), String), _>(error) };
                    return probe.step(&server.to_string(), TestStage::Tls, failed).await.is_some();
                }
            };
            let dialer = Dialer { targets: Arc::clone(&self.targets), tls, timeout: TIMEOUT };
            if !dialer.probe(&server, probe).await {
                return false;
            }
        }
        let head = async { self.head(origin).await.map(|detail| ((), detail)) };
        probe.step(&server.to_string(), TestStage::Authentication, head).await.is_some()
    }

    fn tls_for(&self, origin: &Origin) -> Result<rustls::ClientConfig, String> {
        match &self.tls {
            Some(tls) => Ok(tls.clone()),
            None => tls::platform(&origin.scheme).map_err(|error| error.to_string()),
        }
    }

    /// Asks for the head of the connector's own URL.
    async fn head(&self, origin: &Origin) -> Result<String, String> {
        judge_host(&self.targets, self.proxy.is_some(), origin).map_err(|error| error.to_string())?;
        let url = self.join("/").ok_or("the url can't be asked for")?;
        let client = client::build(ClientSettings {
            targets: &self.targets,
            port: origin.port,
            tls: self.tls_for(origin)?,
            proxy: self.proxy.as_ref(),
            connect_timeout: TIMEOUT,
            redirect: Redirect::None,
            idle_max: 0,
        })?;
        let mut headers = HeaderMap::new();
        match &self.auth {
            Auth::None => {}
            Auth::Fixed(value) => drop(headers.insert(AUTHORIZATION, value.clone())),
            Auth::Signature(signer) => signer.sign(TEST_ID, b"", SystemTime::now(), &mut headers),
            Auth::Token(tokens) => {
                let token = tokens.token(None).await.map_err(|error| format!("no token: {error}"))?;
                headers.insert(AUTHORIZATION, token.value);
            }
        }
        let asked = client.head(url).headers(headers).timeout(TIMEOUT).send().await;
        let status = asked.map_err(|error| classify(error).to_string())?.status();
        match status.as_u16() {
            401 | 403 | 407 => Err(format!("HEAD was answered {status}: the credentials are refused")),
            500.. => Err(format!("HEAD was answered {status}: the server is unwell")),
            300..=399 => Ok(format!("HEAD was answered {status}, which isn't followed")),
            404 | 405 => Ok(format!("HEAD was answered {status}, which says nothing about the credentials")),
            _ => Ok(format!("HEAD was answered {status}")),
        }
    }
}
