//! Whose spans they are.

use crate::config::Otlp;

/// The attributes of this gateway; those that the configuration gives come before those that are found.
pub(super) fn attributes(config: &Otlp, instance_id: &str) -> Vec<(String, String)> {
    let mut attributes = vec![("service.name".to_owned(), config.service_name.clone())];
    let given = config.resource_attributes.iter().filter(|(name, _)| *name != "service.name");
    attributes.extend(given.map(|(name, value)| (name.clone(), value.clone())));
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    for (name, value) in [
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("service.instance.id", instance_id),
        ("host.name", &host),
    ] {
        if !value.is_empty() && !config.resource_attributes.contains_key(name) {
            attributes.push((name.to_owned(), value.to_owned()));
        }
    }
    attributes
}

/// A UUID of version 4, as the conventions ask.
pub(super) fn new_instance_id() -> String {
    let (high, low) = (crate::server::random(), crate::server::random());
    let version = high & 0xffff_ffff_ffff_0fff | 0x4000;
    let variant = low & 0x3fff_ffff_ffff_ffff | 0x8000_0000_0000_0000;
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        version >> 32,
        version >> 16 & 0xffff,
        version & 0xffff,
        variant >> 48,
        variant & 0xffff_ffff_ffff
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_configured_comes_before_what_is_found() {
        let mut config = Otlp { service_name: "edge".to_owned(), ..Otlp::default() };
        let find = |config: &Otlp, name: &str| {
            let all = attributes(config, "i-1");
            let found: Vec<_> =
                all.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone()).collect();
            assert!(found.len() <= 1, "{all:?}");
            found.into_iter().next()
        };
        assert_eq!(find(&config, "service.name").as_deref(), Some("edge"));
        assert_eq!(find(&config, "service.instance.id").as_deref(), Some("i-1"));
        assert_eq!(find(&config, "service.version").as_deref(), Some(env!("CARGO_PKG_VERSION")));
        assert!(find(&config, "host.name").is_some());
        for (name, value) in [("host.name", "press"), ("service.name", "no"), ("plant", "a")] {
            config.resource_attributes.insert(name.to_owned(), value.to_owned());
        }
        assert_eq!(find(&config, "host.name").as_deref(), Some("press"));
        assert_eq!(find(&config, "service.name").as_deref(), Some("edge"));
        assert_eq!(find(&config, "plant").as_deref(), Some("a"));
    }

    #[test]
    fn an_instance_has_a_uuid_of_its_own() {
        let id = new_instance_id();
        let dashes: Vec<usize> = id.match_indices('-').map(|(at, _)| at).collect();
        assert_eq!((id.len(), dashes), (36, vec![8, 13, 18, 23]));
        let digit = |at: usize| id.chars().nth(at).unwrap();
        assert!(digit(14) == '4' && "89ab".contains(digit(19)), "{id}");
        assert_ne!(id, new_instance_id());
    }
}
