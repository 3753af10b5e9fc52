//! `type = "jwt"`: from the configuration to what the method takes.

use access::authentication::{Guard, JwtSettings, KeySetSettings, KeySource, TokenPlace};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{AccessError, needed};
use crate::config::{AuthenticatorConfig, JwtPlace, Period};

pub(super) fn settings(
    name: &str,
    config: &AuthenticatorConfig,
    guard: &Guard,
) -> Result<JwtSettings, AccessError> {
    let algorithms = needed(name, "algorithms", config.algorithms.as_deref())?;
    let claim = |claim: &Option<String>, default: &str| claim.clone().unwrap_or_else(|| default.to_owned());
    Ok(JwtSettings {
        algorithms: algorithms.iter().map(|algorithm| algorithm.algorithm()).collect(),
        keys: keys(name, config, guard)?,
        place: match config.token.unwrap_or_default() {
            JwtPlace::Password => TokenPlace::Password,
            JwtPlace::Username => TokenPlace::Username,
        },
        issuer: config.issuer.clone(),
        audience: config.audience.clone().unwrap_or_default(),
        needs_expiry: config.require_expiry.unwrap_or(true),
        leeway: config.leeway.unwrap_or(Period::secs(30)).as_duration(),
        username_claim: claim(&config.username_claim, "sub"),
        client_id_claim: config.client_id_claim.clone(),
        groups_claim: claim(&config.groups_claim, "groups"),
        acl_claim: claim(&config.acl_claim, "acl"),
    })
}

fn keys(name: &str, config: &AuthenticatorConfig, guard: &Guard) -> Result<KeySource, AccessError> {
    if let Some(secret) = &config.secret {
        let secret = if config.secret_is_base64 == Some(true) {
            STANDARD.decode(secret.expose()).map_err(|_| AccessError::NotBase64 { name: name.to_owned() })?
        } else {
            secret.expose().as_bytes().to_vec()
        };
        return Ok(KeySource::Secret(secret.into()));
    }
    if let Some(path) = &config.key {
        return match std::fs::read(path) {
            Ok(pem) => Ok(KeySource::Public(pem)),
            Err(source) => Err(AccessError::File { name: name.to_owned(), path: path.clone(), source }),
        };
    }
    let url = needed(name, "jwks_url", config.jwks_url.as_deref())?;
    Ok(KeySource::Set(KeySetSettings {
        endpoint: config.endpoint(url, guard),
        refresh_after: config.jwks_refresh.unwrap_or(Period::secs(3_600)).as_duration(),
        max_age: config.jwks_max_age.unwrap_or(Period::days(1)).as_duration(),
    }))
}
