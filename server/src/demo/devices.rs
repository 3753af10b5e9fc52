//! Simulated devices: each is an MQTT client of its own that reports readings once a second.

use std::f64::consts::TAU;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mqtt_protocol::{ProtocolVersion, QoS};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::client::{Client, ClientError, Message, Options};

/// Time between two readings of a device.
const INTERVAL: Duration = Duration::from_secs(1);

/// One device: where it is and how its readings move.
struct Device {
    site: &'static str,
    version: ProtocolVersion,
    qos: QoS,
    /// Degrees Celsius around which the temperature swings.
    mean: f64,
    /// How far it swings.
    swing: f64,
    /// Seconds of one swing.
    period: f64,
    /// Percent of battery at the start, and what a reading costs.
    battery: f64,
    drain: f64,
}

/// Old and new clients, all qualities of service; the furnace gets too hot, the cellar's battery runs low.
const DEVICES: [Device; 4] = [
    Device {
        site: "kitchen",
        version: ProtocolVersion::V5,
        qos: QoS::AtMostOnce,
        mean: 22.0,
        swing: 3.0,
        period: 45.0,
        battery: 92.0,
        drain: 0.05,
    },
    Device {
        site: "furnace",
        version: ProtocolVersion::V5,
        qos: QoS::AtLeastOnce,
        mean: 58.0,
        swing: 9.0,
        period: 12.0,
        battery: 80.0,
        drain: 0.05,
    },
    Device {
        site: "cellar",
        version: ProtocolVersion::V3_1_1,
        qos: QoS::AtLeastOnce,
        mean: 11.0,
        swing: 1.0,
        period: 60.0,
        battery: 20.6,
        drain: 0.1,
    },
    Device {
        site: "greenhouse",
        version: ProtocolVersion::V3_1_1,
        qos: QoS::ExactlyOnce,
        mean: 27.0,
        swing: 6.0,
        period: 30.0,
        battery: 75.0,
        drain: 0.05,
    },
];

/// Starts all devices; dropping the set stops them.
pub(super) fn start(options: &Options) -> JoinSet<Result<(), ClientError>> {
    let mut tasks = JoinSet::new();
    for (device, turn) in DEVICES.iter().zip(0_u32..) {
        // Spread over the second, so that the lines can be read.
        let first = Instant::now() + INTERVAL * turn / u32::try_from(DEVICES.len()).unwrap_or(1);
        tasks.spawn(device.run(options.clone(), first));
    }
    tasks
}

impl Device {
    async fn run(&self, options: Options, first: Instant) -> Result<(), ClientError> {
        let options = Options { client_id: format!("demo-{}", self.site), version: self.version, ..options };
        let mut client = Client::connect(&options).await?;
        let mut ticks = tokio::time::interval_at(first, INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut readings = 0_u32;
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    let payload = self.reading(readings).to_string();
                    let message = Message::new(format!("sensors/{}/temp", self.site), payload).with_qos(self.qos);
                    // With the window full the broker is behind; a reading that is late is of no use.
                    match client.publish(&message) {
                        Err(ClientError::WindowFull { .. }) => {}
                        outcome => {
                            outcome?;
                        }
                    }
                    readings = readings.saturating_add(1);
                }
                event = client.next() => {
                    event?;
                }
            }
        }
    }

    /// The reading number `n`.
    fn reading(&self, n: u32) -> serde_json::Value {
        let n = f64::from(n);
        let phase = n / self.period * TAU;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        json!({
            "deviceId": format!("{}-1", self.site),
            "ts": u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            "temperature": tenths(self.mean + self.swing * phase.sin()),
            "humidity": tenths(50.0 + 10.0 * (phase / 2.0).cos()),
            "battery": tenths((self.battery - self.drain * n).max(1.0)),
        })
    }
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn within_a_quarter_of_a_minute_something_is_too_hot_and_something_is_low() {
        let all = |test: &dyn Fn(&serde_json::Value) -> bool| {
            DEVICES.iter().flat_map(|device| (0..15).map(|n| device.reading(n))).filter(|r| test(r)).count()
        };
        let hot = all(&|reading| reading["temperature"].as_f64().unwrap() > 60.0);
        let low = all(&|reading| reading["battery"].as_f64().unwrap() < 20.0);
        assert!(hot > 0 && hot < 60, "{hot}");
        assert!(low > 0 && low < 60, "{low}");
    }
}
