//! The configuration: TOML files, overridden by environment variables and flags, checked as a whole.
//!
//! How a value comes about:
//! 1. the file and those of `conf.d` beside it are parsed, with the place of every key and value, and laid one over the other;
//! 2. variables of OpenTelemetry (`OTEL_…`) add values where the files say nothing;
//! 3. `TIDEGATE_SECTION__KEY` variables replace or add values; entries of a list are matched by their name, as in
//!    `TIDEGATE_LISTENERS__TCP__ADDRESS`;
//! 4. flags, `--set section.key=value`, do the same;
//! 5. a value that is exactly `${env:NAME}`, `${file:path}` or `${credential:NAME}` is replaced by what it names;
//! 6. the result is read into [`Config`], where an unknown key is an error, and its ranges are checked.
//!
//! Every fault is reported with its place (file, line and column, or the variable), what was expected and, for a
//! misspelt name, the nearest right one; all faults in one go, up to [`MAX_ERRORS`]. A configuration with any fault
//! is refused whole. Nothing here touches the process environment: callers pass an [`Environment`].

mod acl;
mod admin;
mod alarms;
mod authentication;
mod effective;
mod error;
mod layers;
mod listeners;
mod load;
mod metrics;
mod model;
mod otel;
mod otlp;
mod overrides;
mod schema;
mod secrets;
mod source;
mod trace;
mod tree;
mod units;
mod validate;

#[cfg(test)]
mod listener_tests;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use self::acl::{AclConfig, AclHttpConfig};
pub use self::admin::{Admin, AdminToken, AdminUser, HiddenText};
pub use self::alarms::Alarms;
pub use self::authentication::{
    AuthenticationLimits, AuthenticatorConfig, AuthenticatorKind, CertificateUsername, JwtAlgorithm,
    JwtPlace, LockoutConfig,
};
pub use self::effective::{Change, Effective, Setting, changes};
pub use self::error::{ConfigError, ConfigErrors, MAX_ERRORS};
pub(crate) use self::layers::files;
pub use self::listeners::{
    ClientCertificates, ClientIdRule, ListenerTls, ListenerWebSocket, NamedCertificate, SessionTakeover,
    TlsVersion,
};
pub(crate) use self::load::suggest;
pub use self::load::{Inputs, Loaded, MissingSecrets, load, load_text};
pub use self::metrics::{METERED_TOPICS_MAX, Metrics};
pub use self::model::{
    Actions, Config, Durability, Limits, Listener, ListenerKind, Log, LogFormat, QueuePolicy, Reload,
    RuleLimits, Store, Sys,
};
pub use self::otlp::{Otlp, OtlpProtocol};
pub use self::overrides::{Assignment, AssignmentError};
pub(crate) use self::schema::root as schema_of;
pub use self::schema::schema;
pub use self::trace::Trace;
pub use self::units::{ByteSize, Period, UnitError};

/// The environment variables that a configuration may use, taken once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The variables of this process. Those that are not UTF-8 are left out.
    pub fn of_process() -> Self {
        Self(
            std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
        )
    }

    /// The value of one variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// All variables, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

/// Where state is kept when `data_dir` isn't set: `$STATE_DIRECTORY` (given by systemd), else
/// `$XDG_STATE_HOME/tidegate`, else `$HOME/.local/state/tidegate`, else `tidegate-state` in the working directory.
pub fn default_data_dir(environment: &Environment) -> PathBuf {
    let absolute = |name: &str| environment.get(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("STATE_DIRECTORY")
        .or_else(|| absolute("XDG_STATE_HOME").map(|home| home.join("tidegate")))
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state/tidegate")))
        .unwrap_or_else(|| PathBuf::from("tidegate-state"))
}
