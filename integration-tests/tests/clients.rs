//! Foreign clients against the broker: mosquitto_pub and mosquitto_sub, Paho for Python, MQTT.js, a Mosquitto bridge.

use integration_tests::tools::{self, Program, mosquitto_pub, mosquitto_sub};
use integration_tests::{Broker, Client, Version};

/// As `mosquitto_pub -V` names them.
const MOSQUITTO_VERSIONS: [&str; 3] = ["mqttv31", "mqttv311", "mqttv5"];

#[test]
fn mosquitto_clients_at_every_qos() {
    let broker = Broker::start();
    for version in MOSQUITTO_VERSIONS {
        for qos in ["0", "1", "2"] {
            let mut subscriber =
                mosquitto_sub(&broker, &["-V", version, "-q", qos, "-t", "m/+/x", "-t", "m/end", "-C", "3"]);
            for payload in ["eins", "zw\u{f6}lf"] {
                mosquitto_pub(&broker, &["-V", version, "-q", qos, "-t", "m/a/x", "-m", payload]);
                assert_eq!(subscriber.message(), format!("m/a/x {qos} 0 {payload}"));
            }
            // An empty message.
            mosquitto_pub(&broker, &["-V", version, "-q", qos, "-t", "m/end", "-n"]);
            assert_eq!(subscriber.message(), format!("m/end {qos} 0 "));
            subscriber.succeed();
        }
    }
}

#[test]
fn mosquitto_clients_of_every_version_meet() {
    let broker = Broker::start();
    for receiving in MOSQUITTO_VERSIONS {
        let mut subscriber = mosquitto_sub(&broker, &["-V", receiving, "-q", "1", "-t", "meet/#"]);
        for sending in MOSQUITTO_VERSIONS {
            mosquitto_pub(&broker, &["-V", sending, "-q", "1", "-t", "meet/x", "-m", sending]);
            assert_eq!(subscriber.message(), format!("meet/x 1 0 {sending}"));
        }
    }
}

#[test]
fn mosquitto_sub_sees_retained_messages() {
    let broker = Broker::start();
    for version in MOSQUITTO_VERSIONS {
        mosquitto_pub(&broker, &["-V", version, "-q", "1", "-t", "kept/x", "-m", "kept", "-r"]);
        let mut subscriber = mosquitto_sub(&broker, &["-V", version, "-q", "1", "-t", "kept/#"]);
        assert_eq!(subscriber.message(), "kept/x 1 1 kept");
        mosquitto_pub(&broker, &["-V", version, "-q", "1", "-t", "kept/x", "-n", "-r"]);
        assert_eq!(subscriber.message(), "kept/x 1 0 ");
    }
}

#[test]
fn mosquitto_sub_resumes_its_session() {
    let broker = Broker::start();
    for version in MOSQUITTO_VERSIONS {
        let expiry: &[&str] = if version == "mqttv5" { &["-x", "60"] } else { &[] };
        let arguments =
            [&["-V", version, "-c", "-i", "kept session", "-q", "2", "-t", "away/#"][..], expiry].concat();
        // -E ends it as soon as it is subscribed.
        mosquitto_sub(&broker, &[&arguments[..], &["-E"]].concat()).succeed();
        // Not mixed: mosquitto_sub prints a message of QoS 2 at PUBREL, later than one of QoS 1 that came after it.
        for (qos, payload) in [("1", "one"), ("1", "two"), ("2", "three")] {
            mosquitto_pub(&broker, &["-V", version, "-q", qos, "-t", "away/x", "-m", payload]);
        }
        let mut subscriber = tools::mosquitto_sub_running(&broker, &[&arguments[..], &["-C", "3"]].concat());
        for expected in ["away/x 1 0 one", "away/x 1 0 two", "away/x 2 0 three"] {
            assert_eq!(subscriber.message(), expected);
        }
        subscriber.succeed();
        let client_version = if version == "mqttv5" { Version::V5 } else { Version::V311 };
        Client::connect(&broker, client_version, "kept session").leave();
    }
}

#[test]
fn the_will_of_a_killed_mosquitto_sub_is_published() {
    let broker = Broker::start();
    for version in MOSQUITTO_VERSIONS {
        let mut watcher = mosquitto_sub(&broker, &["-V", version, "-q", "1", "-t", "will/#"]);
        let will = ["--will-topic", "will/x", "--will-payload", "gone", "--will-qos", "1"];
        let mortal = mosquitto_sub(&broker, &[&["-V", version, "-t", "any"][..], &will].concat());
        mortal.kill();
        assert_eq!(watcher.message(), "will/x 1 0 gone");
    }
}

#[test]
fn mosquitto_pub_sends_many_lines_over_one_connection() {
    let broker = Broker::start();
    for version in MOSQUITTO_VERSIONS {
        let mut subscriber = mosquitto_sub(&broker, &["-V", version, "-q", "2", "-t", "lines", "-C", "1000"]);
        let lines: Vec<String> = (0..1_000).map(|number| format!("line {number}")).collect();
        tools::mosquitto_pub_lines(&broker, &["-V", version, "-q", "2", "-t", "lines"], &lines);
        for line in &lines {
            assert_eq!(subscriber.message(), format!("lines 2 0 {line}"));
        }
        subscriber.succeed();
    }
}

#[test]
fn mosquitto_shared_subscription() {
    let broker = Broker::start();
    for version in ["mqttv311", "mqttv5"] {
        let mut member = mosquitto_sub(&broker, &["-V", version, "-q", "1", "-t", "$share/group/jobs/#"]);
        mosquitto_pub(&broker, &["-V", version, "-q", "1", "-t", "jobs/x", "-m", "job"]);
        assert_eq!(member.message(), "jobs/x 1 0 job");
    }
}

#[test]
fn a_mosquitto_broker_bridges_to_ours() {
    let broker = Broker::start();
    for version in ["mqttv311", "mqttv50"] {
        let mut inward = mosquitto_sub(&broker, &["-q", "1", "-t", "up/#"]);
        let (bridge, reserved) = tools::mosquitto_bridge(&broker, version);
        let port = reserved.address().port();
        let mut outward = tools::mosquitto_sub_at(port, &["-q", "1", "-t", "down/#"]);
        tools::mosquitto_pub_at(port, &["-q", "1", "-t", "up/x", "-m", "from the bridge"]);
        assert_eq!(inward.message(), "up/x 1 0 from the bridge");
        mosquitto_pub(&broker, &["-q", "1", "-t", "down/x", "-m", "to the bridge"]);
        assert_eq!(outward.message(), "down/x 1 0 to the bridge");
        bridge.kill();
    }
}

#[track_caller]
fn paho(library: &str, protocol: &str) {
    let broker = Broker::start();
    let mut command = tools::python("paho_checks.py", library);
    command.arg(broker.address().port().to_string()).arg(protocol);
    let output = Program::start(command).succeed();
    assert!(output.ends_with("all passed"), "{output}");
    assert_eq!(output.lines().filter(|line| line.starts_with("check_")).count(), 7, "{output}");
}

#[test]
fn paho_python_1_with_mqtt_3_1() {
    paho("paho-1", "3.1");
}

#[test]
fn paho_python_1_with_mqtt_3_1_1() {
    paho("paho-1", "3.1.1");
}

#[test]
fn paho_python_1_with_mqtt_5() {
    paho("paho-1", "5");
}

#[test]
fn paho_python_2_with_mqtt_3_1_1() {
    paho("paho-2", "3.1.1");
}

#[test]
fn paho_python_2_with_mqtt_5() {
    paho("paho-2", "5");
}

#[track_caller]
fn mqttjs(version: &str) {
    let broker = Broker::start();
    let mut command = tools::node("mqttjs_checks.cjs");
    command.arg(broker.address().port().to_string()).arg(version);
    let output = Program::start(command).succeed();
    assert!(output.ends_with("all passed"), "{output}");
    assert_eq!(output.lines().count(), 6, "{output}");
}

#[test]
fn mqtt_js_with_mqtt_3_1_1() {
    mqttjs("4");
}

#[test]
fn mqtt_js_with_mqtt_5() {
    mqttjs("5");
}
