//! What an action would send for a message, as parameters by the names that they have in a rule file.

use actions::Request;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A parameter's name and what would be sent for it.
pub(crate) type Sent = (String, Vec<u8>);

/// Takes a request apart. Header names are in lower case; Correlation Data is base64 text, as it is written.
pub(crate) fn parameters(request: &Request) -> Vec<Sent> {
    let mut all: Vec<Sent> = Vec::new();
    let mut put = |name: &str, value: &[u8]| all.push((name.to_owned(), value.to_vec()));
    match request {
        Request::Republish(request) => {
            put("topic", request.topic.as_bytes());
            put("payload", &request.payload);
            put("qos", request.qos.level().to_string().as_bytes());
            put("retain", request.retain.to_string().as_bytes());
            for (name, value) in &request.user_properties {
                put(&format!("user_properties.{name}"), value.as_bytes());
            }
            if let Some(text) = &request.content_type {
                put("content_type", text.as_bytes());
            }
            if let Some(topic) = &request.response_topic {
                put("response_topic", topic.as_bytes());
            }
            if let Some(data) = &request.correlation_data {
                put("correlation_data", STANDARD.encode(data).as_bytes());
            }
            if let Some(is_text) = request.payload_format_indicator {
                put("payload_format_indicator", is_text.to_string().as_bytes());
            }
            if let Some(seconds) = request.message_expiry_interval_s {
                put("message_expiry_interval", seconds.to_string().as_bytes());
            }
        }
        Request::Http(request) => {
            put("method", request.method.as_str().as_bytes());
            put("url", request.url.as_str().as_bytes());
            for (name, value) in &request.headers {
                put(&format!("headers.{name}"), value.as_bytes());
            }
            put("body", &request.body);
        }
        Request::Record(record) => {
            for (name, part) in record.kind.parts().iter().zip(&record.address) {
                if !part.is_empty() {
                    put(name, part.as_bytes());
                }
            }
            if let Some(key) = &record.key {
                put("key", key);
            }
            for (name, value) in &record.fields {
                put(&format!("{}.{name}", record.kind.fields()), value);
            }
            if !record.payload.is_empty() {
                put(record.kind.payload(), &record.payload);
            }
        }
        Request::Log(line) => put("message", line.message.as_bytes()),
        // A kind of request that is added later has no parameters here until it is added here too; whoever expects one is
        // told that it isn't there.
        _ => {}
    }
    all
}
