//! What limits have in common, beyond the values in [`Limits`].

use mqtt_protocol::UserProperties;

use crate::config::Limits;

impl Limits {
    /// Whether one packet may have these User Properties.
    pub(crate) fn allow(&self, properties: &UserProperties<'_>) -> bool {
        properties.count() <= usize::from(self.max_user_properties)
            && properties.encoded_len() <= self.max_user_properties_bytes as usize
    }
}
