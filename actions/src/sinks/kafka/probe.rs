//! Test of a connector of a Kafka cluster: the way to one of its brokers, and the sign-in there.

use super::connector::KafkaConnector;
use crate::connectors::{Endpoint, Probe};

impl KafkaConnector {
    /// Where it leads at first; the cluster names its brokers itself.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.servers().map(ToString::to_string).collect()
    }

    pub(crate) async fn probe(&self, probe: &mut Probe) -> bool {
        for server in self.servers() {
            if self.links.dialer.probe(server, probe).await {
                return self.probe_sign_in(server, probe).await;
            }
        }
        false
    }

    /// Signs in on a connection of its own, and asks for no more than the versions that the broker speaks.
    #[cfg(feature = "kafka")]
    async fn probe_sign_in(&self, server: &Endpoint, probe: &mut Probe) -> bool {
        let address = crate::connectors::AddressList::from(server.clone());
        let sign_in = async {
            let deadline = tokio::time::Instant::now() + self.config().connect_timeout;
            let broker = super::broker::Broker::connect(self, &address, deadline).await;
            let what = if self.config().sasl.is_some() { "signed in" } else { "no sign-in; it speaks Kafka" };
            broker.map(|_| ((), what.to_owned())).map_err(|error| error.to_string())
        };
        let stage = crate::connectors::TestStage::Authentication;
        probe.step(&server.to_string(), stage, sign_in).await.is_some()
    }

    /// This program doesn't speak its protocol.
    #[cfg(not(feature = "kafka"))]
    async fn probe_sign_in(&self, _: &Endpoint, _: &mut Probe) -> bool {
        true
    }
}
