//! Test of a connector of NATS servers: the way there, and the sign-in.

use super::connector::NatsConnector;
use crate::connectors::{Dialer, Endpoint, Probe};

impl NatsConnector {
    /// Where it leads.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.config.servers.iter().map(ToString::to_string).collect()
    }

    pub(crate) async fn probe(&self, probe: &mut Probe) -> bool {
        // Unless it comes first, TLS follows the greeting, and is a part of the sign-in.
        let tls = self.links.dialer.tls.clone().filter(|_| self.config.tls_first);
        let way = Dialer { tls, ..self.links.dialer.clone() };
        for server in self.config.servers.iter() {
            if way.probe(server, probe).await {
                return self.probe_sign_in(server, probe).await;
            }
        }
        false
    }

    /// Signs in on a connection of its own, and closes it.
    #[cfg(feature = "nats")]
    async fn probe_sign_in(&self, server: &Endpoint, probe: &mut Probe) -> bool {
        let sign_in = async {
            let with_tls = if self.links.dialer.tls.is_some() { ", with TLS" } else { "" };
            let signed_in = self.try_sign_in(server).await;
            signed_in.map(|_| ((), format!("signed in{with_tls}"))).map_err(|error| error.to_string())
        };
        let stage = crate::connectors::TestStage::Authentication;
        probe.step(&server.to_string(), stage, sign_in).await.is_some()
    }

    /// This program doesn't speak its protocol.
    #[cfg(not(feature = "nats"))]
    async fn probe_sign_in(&self, _: &Endpoint, _: &mut Probe) -> bool {
        true
    }
}
