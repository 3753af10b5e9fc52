//! The flags that `pub` and `sub` share, spelled as in mosquitto_pub and mosquitto_sub.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use mqtt_protocol::{ProtocolVersion, QoS};

use super::output::notice;
use super::password::strip_newline;
use super::target::TargetFlags;
use super::{Exit, Failure};
use crate::client::{Message, Options, Password, Properties};
use crate::config::Environment;

/// Session Expiry Interval that means "never": what `-c` asks for in MQTT 5 when `-x` doesn't say otherwise.
const NEVER_EXPIRES: u32 = u32::MAX;

/// How to connect.
#[derive(Debug, Args)]
pub(super) struct ConnectFlags {
    #[command(flatten)]
    target: TargetFlags,
    /// User name.
    #[arg(short = 'u', long, value_name = "NAME")]
    username: Option<String>,
    /// Password; every user of the machine sees it here: --pw-file and TIDEGATE_MQTT_PASSWORD keep it out of sight.
    #[arg(short = 'P', long = "pw", alias = "password", value_name = "PASSWORD")]
    password: Option<String>,
    /// File with the password; a newline at its end doesn't count.
    #[arg(long, value_name = "FILE", conflicts_with = "password")]
    pw_file: Option<PathBuf>,
    /// Client Identifier; without it the server chooses one.
    #[arg(short = 'i', long, value_name = "ID")]
    id: Option<String>,
    /// Beginning of a Client Identifier to which the process id is added.
    #[arg(short = 'I', long, value_name = "PREFIX", conflicts_with = "id")]
    id_prefix: Option<String>,
    /// Keep Alive in seconds; 0: none.
    #[arg(short = 'k', long, value_name = "SECONDS", default_value_t = 60)]
    keepalive: u16,
    /// Version of MQTT: 5, 311 or 31.
    #[arg(short = 'V', long, value_name = "VERSION", default_value = "5", value_parser = protocol_version)]
    protocol_version: ProtocolVersion,
    /// Keep the session when the connection ends, and resume it; needs -i.
    #[arg(short = 'c', long)]
    disable_clean_session: bool,
    /// Seconds for which the session outlives the connection, or `never` (MQTT 5).
    #[arg(short = 'x', long, value_name = "SECONDS", value_parser = session_expiry)]
    session_expiry_interval: Option<u32>,
    /// MQTT 5 property: PACKET NAME VALUE, for a user property PACKET user-property NAME VALUE. PACKET is connect,
    /// publish or will. May be repeated.
    #[arg(short = 'D', long, num_args = 3..=4, value_names = ["PACKET", "NAME", "VALUE"])]
    property: Vec<String>,
    /// Topic on which the server publishes the will when the connection breaks.
    #[arg(long, value_name = "TOPIC")]
    will_topic: Option<String>,
    /// Payload of the will.
    #[arg(long, value_name = "TEXT", requires = "will_topic")]
    will_payload: Option<String>,
    /// QoS of the will.
    #[arg(long, value_name = "QOS", requires = "will_topic", default_value = "0", value_parser = qos)]
    will_qos: QoS,
    /// Whether the will is to be retained.
    #[arg(long, requires = "will_topic")]
    will_retain: bool,
    /// Say on standard error what happens on the connection.
    #[arg(short = 'd', long)]
    pub(super) debug: bool,
    /// Say nothing on standard error about messages that were refused.
    #[arg(long)]
    pub(super) quiet: bool,
    /// Print help.
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

/// Largest password, in bytes: what MQTT can carry.
const PASSWORD_BYTES_MAX: u64 = 65_535;
/// Environment variable that holds a password.
const PASSWORD_VARIABLE: &str = "TIDEGATE_MQTT_PASSWORD";

/// What the flags ask for.
pub(super) struct Request {
    /// How to connect.
    pub(super) options: Options,
    /// The properties of the messages that are published.
    pub(super) properties: Properties,
    /// Topic or filter, where a URL has one.
    pub(super) topic: Option<String>,
}

impl ConnectFlags {
    /// What the client is to do.
    pub(super) fn request(&self, environment: &Environment) -> Result<Request, Failure> {
        let target = self.target.target()?;
        if self.target.insecure {
            notice(
                "WARNING: --insecure: the server's certificate is not checked; whoever is in between can read and \
                 change everything, passwords included",
            );
        }
        let username = self.username.clone().or(target.username);
        let password = self.password(target.password, username.is_some(), environment)?;
        let mut options = Options {
            endpoint: target.endpoint,
            transport: target.transport,
            version: self.protocol_version,
            client_id: match (&self.id, &self.id_prefix) {
                (Some(id), _) => id.clone(),
                (None, Some(prefix)) => format!("{prefix}{}", std::process::id()),
                (None, None) => String::new(),
            },
            clean_start: !self.disable_clean_session,
            keep_alive: Duration::from_secs(u64::from(self.keepalive)),
            username,
            password,
            ..Options::default()
        };
        let mut properties = PropertySet::read(&self.property)?;
        if let Some(maximum) = properties.receive_maximum {
            options.receive_maximum = maximum;
        }
        options.session_expiry_interval_s = match self.session_expiry_interval.or(properties.session_expiry) {
            Some(seconds) => seconds,
            None if self.disable_clean_session => NEVER_EXPIRES,
            None => 0,
        };
        let is_v5 = self.protocol_version.has_properties();
        if !is_v5 && (!self.property.is_empty() || self.session_expiry_interval.is_some()) {
            return Err(usage("-D and -x need MQTT 5 (-V 5)"));
        }
        if self.disable_clean_session && self.id.is_none() {
            return Err(usage("-c needs a Client Identifier (-i)"));
        }
        if self.protocol_version == ProtocolVersion::V3_1 && options.client_id.is_empty() {
            options.client_id = format!("tidegate{}", std::process::id());
        }
        options.will = self.will_topic.as_ref().map(|topic| Message {
            qos: self.will_qos,
            retain: self.will_retain,
            properties: std::mem::take(&mut properties.will),
            ..Message::new(topic.as_str(), self.will_payload.clone().unwrap_or_default())
        });
        if options.will.is_none() && properties.will != Properties::default() {
            return Err(usage("-D will needs --will-topic"));
        }
        Ok(Request { options, properties: properties.publish, topic: target.topic })
    }

    /// The password: of the command line, of a file, of the URL, and where a user is named, of the environment.
    fn password(
        &self,
        of_url: Option<String>,
        has_user: bool,
        environment: &Environment,
    ) -> Result<Option<Password>, Failure> {
        if let Some(path) = &self.pw_file {
            let failed = |why: &dyn std::fmt::Display| {
                Failure::new(Exit::Failed, format!("{}: {why}", path.display()))
            };
            let file = File::open(path).map_err(|error| failed(&format!("it can't be read: {error}")))?;
            let mut bytes = Vec::new();
            // Two more for a newline, and one to see that there is more.
            file.take(PASSWORD_BYTES_MAX + 3)
                .read_to_end(&mut bytes)
                .map_err(|error| failed(&format!("it can't be read: {error}")))?;
            strip_newline(&mut bytes);
            if bytes.len() as u64 > PASSWORD_BYTES_MAX {
                return Err(failed(&format!("the password is longer than {PASSWORD_BYTES_MAX} bytes")));
            }
            return Ok(Some(Password::new(bytes)));
        }
        let of_environment = || environment.get(PASSWORD_VARIABLE).filter(|_| has_user).map(str::to_owned);
        Ok(self.password.clone().or(of_url).or_else(of_environment).map(Password::new))
    }
}

/// What `-D` said.
#[derive(Debug, Default)]
struct PropertySet {
    publish: Properties,
    will: Properties,
    session_expiry: Option<u32>,
    receive_maximum: Option<u16>,
}

impl PropertySet {
    fn read(words: &[String]) -> Result<Self, Failure> {
        let mut set = Self::default();
        let mut words = words.iter().map(String::as_str);
        while let Some(packet) = words.next() {
            let (Some(name), Some(value)) = (words.next(), words.next()) else {
                return Err(usage("-D takes a packet, a property and a value"));
            };
            match (packet, name) {
                ("publish", _) => set_property(&mut set.publish, name, value, &mut words)?,
                ("will", _) => set_property(&mut set.will, name, value, &mut words)?,
                ("connect", "session-expiry-interval") => set.session_expiry = Some(number(name, value)?),
                ("connect", "receive-maximum") => set.receive_maximum = Some(number(name, value)?),
                _ => return Err(usage(&format!("-D {packet} {name} is not supported"))),
            }
        }
        Ok(set)
    }
}

fn set_property<'w>(
    properties: &mut Properties,
    name: &str,
    value: &'w str,
    more: &mut impl Iterator<Item = &'w str>,
) -> Result<(), Failure> {
    match name {
        "payload-format-indicator" => {
            properties.payload_format_indicator = Some(match value {
                "0" => false,
                "1" => true,
                _ => return Err(usage("-D payload-format-indicator is 0 or 1")),
            });
        }
        "message-expiry-interval" => properties.message_expiry_interval_s = Some(number(name, value)?),
        "content-type" => properties.content_type = Some(value.to_owned()),
        "response-topic" => properties.response_topic = Some(value.to_owned()),
        "correlation-data" => properties.correlation_data = Some(value.as_bytes().to_vec()),
        "user-property" => {
            let Some(text) = more.next() else {
                return Err(usage("-D user-property takes a name and a value"));
            };
            properties.user_properties.push((value.to_owned(), text.to_owned()));
        }
        _ => return Err(usage(&format!("-D property {name} is not supported"))),
    }
    Ok(())
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, Failure> {
    value.parse().map_err(|_| usage(&format!("-D {name}: \"{value}\" is no number in its range")))
}

/// A mistake on the command line.
pub(super) fn usage(text: &str) -> Failure {
    Failure::new(Exit::Usage, format!("{text}\nTry 'tidegate --help'."))
}

/// Reads `-q`.
pub(super) fn qos(text: &str) -> Result<QoS, String> {
    let level: Option<u8> = text.parse().ok();
    level.and_then(|level| QoS::try_from(level).ok()).ok_or_else(|| "0, 1 or 2 is expected".to_owned())
}

fn protocol_version(text: &str) -> Result<ProtocolVersion, String> {
    match text.trim_start_matches("mqttv") {
        "5" | "5.0" => Ok(ProtocolVersion::V5),
        "311" | "3.1.1" => Ok(ProtocolVersion::V3_1_1),
        "31" | "3.1" => Ok(ProtocolVersion::V3_1),
        _ => Err("5, 311 or 31 is expected".to_owned()),
    }
}

fn session_expiry(text: &str) -> Result<u32, String> {
    match text {
        "never" | "∞" => Ok(NEVER_EXPIRES),
        _ => text.parse().map_err(|_| "a number of seconds or `never` is expected".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn properties_go_to_their_packets() {
        let set = PropertySet::read(&words(
            "publish content-type text/plain publish user-property a b connect receive-maximum 7 will response-topic r",
        ))
        .unwrap();
        assert_eq!(set.publish.content_type.as_deref(), Some("text/plain"));
        assert_eq!(set.publish.user_properties, [("a".to_owned(), "b".to_owned())]);
        assert_eq!(set.receive_maximum, Some(7));
        assert_eq!(set.will.response_topic.as_deref(), Some("r"));
    }

    #[test]
    fn wrong_properties_are_refused() {
        for text in [
            "publish content-type",
            "publish user-property a",
            "publish message-expiry-interval soon",
            "publish payload-format-indicator 2",
            "connect receive-maximum 70000",
            "connect content-type x",
            "subscribe user-property a",
        ] {
            let failure = PropertySet::read(&words(text)).expect_err(text);
            assert_eq!(failure.exit(), Exit::Usage, "{text}");
        }
    }

    #[test]
    fn versions_are_spelled_in_several_ways() {
        for (text, version) in [
            ("5", ProtocolVersion::V5),
            ("mqttv5", ProtocolVersion::V5),
            ("311", ProtocolVersion::V3_1_1),
            ("3.1.1", ProtocolVersion::V3_1_1),
            ("mqttv311", ProtocolVersion::V3_1_1),
            ("31", ProtocolVersion::V3_1),
        ] {
            assert_eq!(protocol_version(text), Ok(version));
        }
        assert!(protocol_version("4").is_err());
    }
}
