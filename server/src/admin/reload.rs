//! The command that reads the configuration and the rules again, or says what that would change.

use std::sync::{Arc, OnceLock};

use serde::Deserialize;
use serde_json::Value;

use super::Services;
use super::protocol::{Code, Refusal};

/// Most bytes of what is said about faults.
const FAULTS_BYTES_MAX: usize = 64 << 10;

/// What reads the configuration and the rules again.
pub trait Reload: Send + Sync + std::fmt::Debug {
    /// Reads them and puts them in place, all or nothing. Returns what changed.
    ///
    /// # Errors
    /// Every fault, as text; then everything goes on as it was.
    fn reload(&self) -> Result<Value, String>;

    /// The same without putting anything in place.
    ///
    /// # Errors
    /// As [`Reload::reload`].
    fn try_reload(&self) -> Result<Value, String>;
}

/// Where it is, once there is one.
pub type ReloadSlot = Arc<OnceLock<Arc<dyn Reload>>>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ReloadParams {
    /// Change nothing.
    dry_run: bool,
}

impl Services {
    pub(super) fn reload(&self, params: &ReloadParams) -> Result<Value, Refusal> {
        let Some(reload) = self.reload.get() else {
            return Err(Refusal::new(Code::Refused, "this gateway can't read its configuration again"));
        };
        let outcome = if params.dry_run { reload.try_reload() } else { reload.reload() };
        outcome.map_err(|mut faults| {
            faults.truncate(faults.floor_char_boundary(FAULTS_BYTES_MAX));
            Refusal::new(Code::Refused, faults)
        })
    }
}
