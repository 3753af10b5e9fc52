//! Test of a connector of an AMQP server: the way there, and the sign-in.

use super::connector::AmqpConnector;
use crate::connectors::Probe;

impl AmqpConnector {
    /// Where it leads.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.servers().map(ToString::to_string).collect()
    }

    pub(crate) async fn probe(&self, probe: &mut Probe) -> bool {
        for server in self.servers() {
            if self.links.dialer.probe(server, probe).await {
                return self.probe_sign_in(&server.to_string(), probe).await;
            }
        }
        false
    }

    /// Signs in on a connection of its own.
    #[cfg(feature = "amqp")]
    async fn probe_sign_in(&self, server: &str, probe: &mut Probe) -> bool {
        let sign_in = async {
            let signed_in = self.sign_in().await;
            signed_in.map(|()| ((), "signed in".to_owned())).map_err(|error| error.to_string())
        };
        probe.step(server, crate::connectors::TestStage::Authentication, sign_in).await.is_some()
    }

    /// This program doesn't speak its protocol.
    #[cfg(not(feature = "amqp"))]
    async fn probe_sign_in(&self, _: &str, _: &mut Probe) -> bool {
        true
    }
}
