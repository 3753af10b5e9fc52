//! The access rules of a configuration: `[acl]`, in the file itself and in one beside it; and what is asked before them.
//!
//! The rules of the configuration come first, then those of the file. Where there is a section `[acl]` with any key, what
//! no rule allows is denied. A file without a rule is refused: one that lost its contents neither opens the broker nor closes it.
//!
//! Only a user name that an authenticator has proven counts. A Client Identifier is taken for what it says.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use access::acl::{AclError, Request, Rule, Rules, Served, Subject, Verdict, parse_line, parse_text};
use broker::{Action, Decision, Grants, Publisher};

use super::explain::{Explained, Ruling};
use crate::config::AclConfig;

/// Largest file of rules that is read, in bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What denies where no rule says anything.
pub(super) const NO_RULE: &str = "no rule allows it";

/// What denies where nobody can tell what a client may.
const TOO_OLD: &str = "the rules of the authorisation server are too old";

/// Why everything is allowed where there is nothing to ask.
pub(crate) const OPEN: &str = "there are no access rules, so everything is allowed";

/// What denies whatever the rules say.
pub(super) const OWN_TOPICS: &str = "topics that begin with $ are the broker's own";

/// Why access rules aren't taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AclLoadError {
    /// The file can't be read.
    #[error("the file of access rules {} can't be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file has no rule.
    #[error(
        "the file of access rules {} has none; write `deny all all \"#\"` if nothing is to be allowed",
        path.display()
    )]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Rules aren't understood.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Faults(Vec<AclError>),
}

/// The rules of a configuration.
#[derive(Debug, Clone)]
pub(super) struct Acl {
    pub(super) rules: Arc<Rules>,
    config: AclConfig,
    stamp: Option<Stamp>,
}

/// What tells that a file was changed: inode, bytes, time.
type Stamp = (u64, u64, Option<SystemTime>);

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.ino(), metadata.len(), metadata.modified().ok()))
}

impl Acl {
    /// Reads the rules; `None` where the configuration has none.
    pub(super) fn load(config: &AclConfig) -> Result<Option<Self>, AclLoadError> {
        if config.rules.is_none() && config.file.is_none() && config.http.is_none() {
            return Ok(None);
        }
        let mut faults = Vec::new();
        let mut rules: Vec<Rule> = Vec::new();
        let source = Arc::from("acl.rules");
        for (line, number) in config.rules.iter().flatten().zip(1u32..) {
            match parse_line(line, &source, number) {
                Ok(rule) => rules.push(rule),
                Err(fault) => faults.push(fault),
            }
        }
        let mut seen = None;
        if let Some(path) = &config.file {
            // Before the file is read: a change meanwhile is seen later.
            seen = stamp(path);
            match read(path).map(|text| parse_text(&text, &path.display().to_string())) {
                // As good as lost: it is being written, or the disk was full.
                Ok(Ok(more)) if more.is_empty() => return Err(AclLoadError::Empty { path: path.clone() }),
                Ok(Ok(more)) => rules.extend(more),
                Ok(Err(more)) => faults.extend(more),
                Err(source) => return Err(AclLoadError::Read { path: path.clone(), source }),
            }
        }
        if faults.is_empty() {
            Ok(Some(Self { rules: Arc::new(Rules::new(rules)), config: config.clone(), stamp: seen }))
        } else {
            Err(AclLoadError::Faults(faults))
        }
    }

    /// Reads the rules again if their file has changed. One that is refused isn't looked at again until it changes.
    pub(super) fn refresh(&mut self) -> Result<bool, AclLoadError> {
        let Some(path) = &self.config.file else { return Ok(false) };
        let now = stamp(path);
        if now == self.stamp {
            return Ok(false);
        }
        self.stamp = now;
        if let Some(fresh) = Self::load(&self.config)? {
            *self = fresh;
        }
        Ok(true)
    }
}

/// Reads the access rules of a configuration; `None` where it has none.
///
/// # Errors
/// [`AclLoadError`].
pub(crate) fn load_rules(config: &AclConfig) -> Result<Option<Arc<Rules>>, AclLoadError> {
    Ok(Acl::load(config)?.map(|acl| acl.rules))
}

fn read(path: &Path) -> std::io::Result<String> {
    if fs::metadata(path)?.len() > FILE_BYTES_MAX {
        let message = format!("it is larger than the limit of {FILE_BYTES_MAX} bytes");
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, message));
    }
    fs::read_to_string(path)
}

/// Rules for one client alone.
#[derive(Debug)]
pub(super) struct OwnRules {
    /// Those that it brought along.
    pub(super) brought: Option<Rules>,
    /// Those that the server of `[acl.http]` has for it.
    pub(super) served: Option<Arc<Served>>,
}

impl OwnRules {
    pub(super) fn is_empty(&self) -> bool {
        self.brought.is_none() && self.served.is_none()
    }
}

impl Grants for OwnRules {}

fn own(who: &Publisher) -> Option<&OwnRules> {
    let grants: &dyn std::any::Any = who.identity.grants.as_deref()?;
    grants.downcast_ref::<OwnRules>()
}

/// Whether there is nothing to ask about this client.
pub(super) fn is_open(acl: Option<&Acl>, who: &Publisher) -> bool {
    acl.is_none() && own(who).is_none_or(|own| own.brought.is_none())
}

/// The client as rules know it.
pub(crate) fn subject(who: &Publisher) -> Subject<'_> {
    Subject {
        client_id: Some(&*who.client_id).filter(|id| !id.is_empty()),
        // What an anonymous client calls itself gives it nothing.
        username: who.identity.authenticator.as_ref().and(who.username()),
        groups: &who.identity.groups,
        address: who.address.ip(),
        listener: Some(&*who.listener).filter(|name| !name.is_empty()),
    }
}

/// What the client's own rules say, those that it brought and those of the server, else those of the configuration; where any
/// exist, nothing else is allowed.
pub(super) fn decide(acl: Option<&Acl>, who: &Publisher, action: Action<'_>) -> Decision {
    let request = match action {
        Action::Publish { topic, qos, retain } => Request::Publish { topic, qos, retain },
        Action::Subscribe { filter, qos } => Request::Subscribe { filter, qos },
        Action::Receive { topic } => Request::Receive { topic },
    };
    if is_open(acl, who) {
        return Decision::Allow;
    }
    find(acl, who, request, |found, otherwise| match found {
        Found::Allow { in_part: true, .. } => Decision::AllowInPart,
        Found::Allow { .. } => Decision::Allow,
        Found::Deny { by: Some(by) } => Decision::Deny(by.to_string().into()),
        Found::Deny { by: None } => Decision::Deny(otherwise.into()),
    })
}

/// The same in words.
pub(super) fn explain(acl: Option<&Acl>, who: &Publisher, request: Request<'_>) -> Explained {
    if is_open(acl, who) {
        return Explained { ruling: Ruling::Allow, by: OPEN.to_owned() };
    }
    find(acl, who, request, |found, otherwise| Explained::of(&found, otherwise))
}

/// Asks all rules that concern a client, and hands over what was found with why it is no where no rule says so.
fn find<T>(
    acl: Option<&Acl>,
    who: &Publisher,
    request: Request<'_>,
    then: impl FnOnce(Found<'_>, &'static str) -> T,
) -> T {
    let subject = subject(who);
    let own = own(who);
    let brought = own.and_then(|own| own.brought.as_ref());
    let is_served = acl.is_some_and(|acl| acl.config.http.is_some());
    let served = own.and_then(|own| own.served.as_ref()).filter(|_| is_served).map(|served| served.rules());
    let served = match &served {
        Some(rules) => match rules.as_deref() {
            Some(rules) => Some(rules),
            // What comes after them isn't asked: they might have denied.
            None => return then(ask([brought], &subject, request), TOO_OLD),
        },
        None => None,
    };
    then(ask([brought, served, acl.map(|acl| &*acl.rules)], &subject, request), NO_RULE)
}

/// What lists of rules come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// Yes; a Subscription perhaps in part only.
    Allow {
        /// The rule that allows.
        by: &'a Rule,
        /// Whether a rule before it denies some of the topics.
        in_part: bool,
    },
    /// No.
    Deny {
        /// The rule that denies; `None`: none applies.
        by: Option<&'a Rule>,
    },
}

/// Asks lists of rules one after the other: the first rule that applies decides, and otherwise it is no.
pub(super) fn ask<'a>(
    lists: impl IntoIterator<Item = Option<&'a Rules>>,
    subject: &Subject<'_>,
    request: Request<'_>,
) -> Found<'a> {
    let mut is_partial = false;
    for rules in lists.into_iter().flatten() {
        match rules.decide(subject, request) {
            Verdict::Allow { by, in_part } => return Found::Allow { by, in_part: in_part || is_partial },
            Verdict::Deny { by } => return Found::Deny { by: Some(by) },
            Verdict::Unmatched { in_part } => is_partial |= in_part,
        }
    }
    Found::Deny { by: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(rules: Option<&[&str]>, file: Option<&Path>) -> AclConfig {
        AclConfig {
            rules: rules.map(|rules| rules.iter().map(|rule| (*rule).to_owned()).collect()),
            file: file.map(Path::to_owned),
            http: None,
        }
    }

    fn somebody(identity: broker::Identity) -> Publisher {
        Publisher {
            client_id: "c".into(),
            identity: Arc::new(identity),
            address: broker::PeerAddress::Unix,
            listener: "tcp".into(),
        }
    }

    fn publish(acl: &Acl, topic: &str) -> Decision {
        let action = Action::Publish { topic, qos: mqtt_protocol::QoS::AtMostOnce, retain: false };
        decide(Some(acl), &somebody(broker::Identity::default()), action)
    }

    #[test]
    fn a_file_without_rules_is_refused_and_no_section_allows() {
        assert!(Acl::load(&config(None, None)).unwrap().is_none());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("acl");
        fs::write(&path, "").unwrap();
        assert!(matches!(Acl::load(&config(None, Some(&path))), Err(AclLoadError::Empty { .. })));
        fs::write(&path, "# soon\n\n").unwrap();
        assert!(matches!(Acl::load(&config(None, Some(&path))), Err(AclLoadError::Empty { .. })));
        let none = Acl::load(&config(Some(&[]), None)).unwrap().unwrap();
        assert_eq!(publish(&none, "a"), Decision::Deny(NO_RULE.into()));
    }

    #[test]
    fn what_is_missing_or_not_understood_is_refused_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("acl");
        assert!(matches!(Acl::load(&config(None, Some(&path))), Err(AclLoadError::Read { .. })));
        fs::write(&path, "allow all all \"#\"\nallow everything\n").unwrap();
        let error = Acl::load(&config(Some(&["deny"]), Some(&path))).unwrap_err().to_string();
        assert!(error.contains("acl.rules:1:") && error.contains("acl:2:7: "), "{error}");
        fs::write(&path, b"allow all all \"\xff\"\n").unwrap();
        assert!(matches!(Acl::load(&config(None, Some(&path))), Err(AclLoadError::Read { .. })));
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_broken_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("acl");
        fs::write(&path, "allow publish all \"a\"\n").unwrap();
        let mut acl = Acl::load(&config(Some(&["deny publish all \"b\""]), Some(&path))).unwrap().unwrap();
        assert!(!acl.refresh().unwrap());
        assert_eq!(publish(&acl, "a"), Decision::Allow);
        fs::write(&path, "allow publish all \"a\"\nallow publish all \"b\"\nallow publish all \"c\"\n")
            .unwrap();
        assert!(acl.refresh().unwrap());
        assert_eq!(publish(&acl, "c"), Decision::Allow);
        assert_eq!(publish(&acl, "b"), Decision::Deny("acl.rules:1: deny publish all \"b\"".into()));
        fs::write(&path, "allow publish al").unwrap();
        assert!(acl.refresh().is_err());
        assert_eq!(publish(&acl, "c"), Decision::Allow);
        assert!(!acl.refresh().unwrap(), "told once");
        fs::write(&path, "").unwrap();
        assert!(acl.refresh().is_err());
        assert_eq!(publish(&acl, "c"), Decision::Allow);
        fs::remove_file(&path).unwrap();
        assert!(acl.refresh().is_err());
        assert_eq!(publish(&acl, "c"), Decision::Allow);
    }

    #[test]
    fn a_user_name_counts_when_it_is_proven() {
        let acl = Acl::load(&config(Some(&["allow publish user ada \"a\""]), None)).unwrap();
        let ask = |authenticator: Option<&str>| {
            let identity = broker::Identity {
                username: Some("ada".into()),
                authenticator: authenticator.map(Into::into),
                ..broker::Identity::default()
            };
            let qos = mqtt_protocol::QoS::AtMostOnce;
            decide(acl.as_ref(), &somebody(identity), Action::Publish { topic: "a", qos, retain: false })
        };
        assert_eq!(ask(Some("users")), Decision::Allow);
        assert_eq!(ask(None), Decision::Deny(NO_RULE.into()));
    }

    #[test]
    fn the_clients_own_rules_are_asked_first() {
        let own = "deny subscribe all \"a/x\"\nallow publish all \"own\"\n";
        let all = Acl::load(&config(Some(&["allow all all \"#\""]), None)).unwrap();
        let brought = || {
            let rules = OwnRules { brought: Some(Rules::new(parse_text(own, "own").unwrap())), served: None };
            somebody(broker::Identity { grants: Some(Arc::new(rules)), ..broker::Identity::default() })
        };
        let (with_own, without) = (brought(), somebody(broker::Identity::default()));
        let qos = mqtt_protocol::QoS::AtMostOnce;
        let subscribe = Action::Subscribe { filter: "a/+", qos };
        assert_eq!(decide(all.as_ref(), &with_own, subscribe), Decision::AllowInPart);
        assert_eq!(decide(all.as_ref(), &without, subscribe), Decision::Allow);
        assert_eq!(decide(None, &with_own, subscribe), Decision::Deny(NO_RULE.into()));
        let publish = Action::Publish { topic: "own", qos, retain: false };
        assert_eq!(decide(None, &with_own, publish), Decision::Allow);
    }

    #[test]
    fn an_explanation_is_the_decision_with_its_rule() {
        let acl = Acl::load(&config(Some(&["deny all all \"a/x\"", "allow all all \"a/#\""]), None)).unwrap();
        let who = somebody(broker::Identity::default());
        let qos = mqtt_protocol::QoS::AtMostOnce;
        let requests = [
            (
                Request::Subscribe { filter: "a/+", qos },
                Ruling::AllowInPart,
                "acl.rules:2: allow all all \"a/#\"",
            ),
            (Request::Subscribe { filter: "a/x", qos }, Ruling::Deny, "acl.rules:1: deny all all \"a/x\""),
            (Request::Receive { topic: "a/y" }, Ruling::Allow, "acl.rules:2: allow all all \"a/#\""),
            (Request::Publish { topic: "b", qos, retain: false }, Ruling::Deny, NO_RULE),
        ];
        for (request, ruling, by) in requests {
            let explained = explain(acl.as_ref(), &who, request);
            assert_eq!((explained.ruling, &*explained.by), (ruling, by), "{request:?}");
        }
        let open = explain(None, &who, Request::Receive { topic: "a" });
        assert_eq!((open.ruling, &*open.by), (Ruling::Allow, OPEN));
    }
}
