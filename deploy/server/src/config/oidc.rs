//! `[[oidc]]`: identity providers whose tokens are taken, and what their people are here. No key of it has an override in the
//! environment: who is trusted stands in one file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use query_oidc::claims::Path as ClaimPath;
use query_oidc::{ProviderOptions, Source};
use schemas_consent::terms::is_purpose;
use serde::{Deserialize, Serialize};

use super::ConfigError;

/// Providers at most.
const PROVIDERS_MAX: usize = 8;
/// Lines of a provider's two tables at most.
const LINES_MAX: usize = 256;
/// Longest text of any kind in here.
const TEXT_BYTES_MAX: usize = 512;
/// Oldest token that may ever be taken: revocations are kept for as long as our own tokens can live.
const AGE_SECONDS_MAX: u64 = schemas_identity::token::TOKEN_SECONDS_MAX as u64;

/// One identity provider; see `query_oidc`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct OidcConfig {
    /// `iss` of its tokens, exactly as they have it.
    pub(crate) issuer: String,
    /// What `aud` of its tokens must name: an audience of this deployment's own.
    pub(crate) audience: String,
    /// File with its keys (a JWKS), re-read when it changes; or `jwks_url`.
    pub(crate) jwks_file: String,
    /// Address of its keys, `https://`, or `http://` on loopback; or `jwks_file`.
    pub(crate) jwks_url: String,
    /// PEM authorities that the address's certificate must come from; empty = the public ones.
    pub(crate) jwks_ca: String,
    /// Claim with the values that roles hang on: names with dots between them, or a JSON pointer that begins with `/`.
    pub(crate) roles_claim: String,
    /// Purposes that its people may name with a request; none is ever assumed.
    pub(crate) purposes: Vec<String>,
    /// Seconds after `iat` at which a token is of no use any more: how long somebody who left can still ask.
    pub(crate) age_seconds_max: u64,
    /// Seconds between two fetches of its keys.
    pub(crate) refresh_seconds: u64,
    /// Seconds after the last good fetch at which its keys are trusted no more.
    pub(crate) stale_seconds_max: u64,
    /// Value of the claim = role of this deployment.
    pub(crate) roles: BTreeMap<String, String>,
    /// Value of the claim = study of this deployment.
    pub(crate) studies: BTreeMap<String, String>,
}

impl Default for OidcConfig {
    fn default() -> Self {
        Self {
            issuer: String::new(),
            audience: String::new(),
            jwks_file: String::new(),
            jwks_url: String::new(),
            jwks_ca: String::new(),
            roles_claim: String::new(),
            purposes: Vec::new(),
            age_seconds_max: 900,
            refresh_seconds: 300,
            stale_seconds_max: 86_400,
            roles: BTreeMap::new(),
            studies: BTreeMap::new(),
        }
    }
}

/// Refuses what is well-formed but unsafe or senseless.
pub(super) fn check(providers: &[OidcConfig]) -> Result<(), ConfigError> {
    if providers.len() > PROVIDERS_MAX {
        return refused("oidc", format!("{} providers, at most {PROVIDERS_MAX}", providers.len()));
    }
    let mut issuers = BTreeSet::new();
    for provider in providers {
        provider.check()?;
        if !issuers.insert(&provider.issuer) {
            return refused("oidc.issuer", format!("`{}` twice: join the two", provider.issuer));
        }
    }
    Ok(())
}

fn refused<T>(key: &'static str, message: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::Refused { key, message: message.into() })
}

impl OidcConfig {
    fn check(&self) -> Result<(), ConfigError> {
        if !is_safe_url(&self.issuer) {
            return refused(
                "oidc.issuer",
                format!("`{}`: write it as tokens have it in `iss`, https://...", self.issuer),
            );
        }
        if self.audience.is_empty() || self.audience.len() > TEXT_BYTES_MAX {
            return refused(
                "oidc.audience",
                "name an audience for this deployment alone, and register it there",
            );
        }
        self.source()?;
        self.claim()?;
        self.check_lists()?;
        let limits = [
            ("oidc.age_seconds_max", self.age_seconds_max, 1, AGE_SECONDS_MAX),
            ("oidc.refresh_seconds", self.refresh_seconds, 10, 86_400),
            (
                "oidc.stale_seconds_max",
                self.stale_seconds_max,
                self.refresh_seconds.saturating_mul(2),
                2_592_000,
            ),
        ];
        for (key, value, least, most) in limits {
            if value < least || value > most {
                return refused(key, format!("{value} is not within {least}..={most}"));
            }
        }
        Ok(())
    }

    fn check_lists(&self) -> Result<(), ConfigError> {
        if self.purposes.is_empty() {
            return refused(
                "oidc.purposes",
                "name at least one, such as [\"TREAT\"]: without it nothing can be asked",
            );
        }
        if let Some(unknown) = self.purposes.iter().find(|purpose| !is_purpose(purpose)) {
            return refused(
                "oidc.purposes",
                format!("`{unknown}` is no purpose that a grant can name (TREAT, CAREMGT, HRESCH ...)"),
            );
        }
        for (key, table) in [("oidc.roles", &self.roles), ("oidc.studies", &self.studies)] {
            if table.len() > LINES_MAX {
                return refused(key, format!("{} lines, at most {LINES_MAX}", table.len()));
            }
            let is_bad = |text: &String| text.is_empty() || text.len() > TEXT_BYTES_MAX;
            if table.iter().any(|(value, name)| is_bad(value) || is_bad(name)) {
                return refused(
                    key,
                    format!("\"value of the claim\" = \"name here\", both of 1 to {TEXT_BYTES_MAX} bytes"),
                );
            }
        }
        Ok(())
    }

    fn claim(&self) -> Result<ClaimPath, ConfigError> {
        match ClaimPath::parse(&self.roles_claim) {
            Some(path) if self.roles_claim.len() <= TEXT_BYTES_MAX => Ok(path),
            _ => refused(
                "oidc.roles_claim",
                "name the claim, such as groups, realm_access.roles or /https:~1~1example.org~1roles",
            ),
        }
    }

    fn source(&self) -> Result<Source, ConfigError> {
        match (self.jwks_file.is_empty(), self.jwks_url.is_empty()) {
            (true, true) => refused(
                "oidc.jwks_url",
                "set jwks_url (jwks_uri in the provider's /.well-known/openid-configuration) or jwks_file",
            ),
            (false, false) => refused("oidc.jwks_url", "set jwks_url or jwks_file, not both"),
            (false, true) => Ok(Source::File(PathBuf::from(&self.jwks_file))),
            (true, false) if !is_safe_url(&self.jwks_url) => refused(
                "oidc.jwks_url",
                format!("`{}`: https://, or http:// on loopback; no user name in it", self.jwks_url),
            ),
            (true, false) => {
                let authorities = (!self.jwks_ca.is_empty()).then(|| PathBuf::from(&self.jwks_ca));
                Ok(Source::Url { url: self.jwks_url.clone(), authorities })
            }
        }
    }

    /// As the reading side wants it.
    pub(crate) fn options(&self) -> Result<ProviderOptions, ConfigError> {
        let seconds = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
        Ok(ProviderOptions {
            issuer: self.issuer.clone(),
            audience: self.audience.clone(),
            source: self.source()?,
            roles_claim: self.claim()?,
            roles: self.roles.clone(),
            studies: self.studies.clone(),
            purposes: self.purposes.clone(),
            age_max_s: seconds(self.age_seconds_max),
            refresh_s: seconds(self.refresh_seconds),
            stale_max_s: seconds(self.stale_seconds_max),
        })
    }
}

/// `https://HOST...`, or `http://` with a host that is this machine; visible ASCII, no user.
fn is_safe_url(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let is_plain = url.len() <= TEXT_BYTES_MAX && url.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_plain || authority.is_empty() || authority.contains('@') {
        return false;
    }
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => host,
        _ => authority,
    };
    scheme == "https" || (scheme == "http" && super::bridge::is_loopback(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> OidcConfig {
        OidcConfig {
            issuer: "https://id.example/realms/h".into(),
            audience: "vitalog".into(),
            jwks_url: "https://id.example/keys".into(),
            roles_claim: "realm_access.roles".into(),
            purposes: vec!["TREAT".into()],
            ..OidcConfig::default()
        }
    }

    /// Guarantee: what is unsafe or senseless is refused with its key and what to do; keys come over TLS or from this machine.
    #[test]
    fn unsafe_providers_are_refused() {
        assert!(check(&[good()]).is_ok());
        let local = OidcConfig { jwks_url: "http://127.0.0.1:9/keys".into(), ..good() };
        assert!(check(&[local]).is_ok());
        let file = OidcConfig { jwks_url: String::new(), jwks_file: "keys.json".into(), ..good() };
        assert!(check(std::slice::from_ref(&file)).is_ok());
        let url = |url: &str| OidcConfig { jwks_url: url.into(), ..good() };
        let table = |value: &str| BTreeMap::from([("group".to_owned(), value.to_owned())]);
        for (key, config) in [
            ("oidc.issuer", OidcConfig { issuer: String::new(), ..good() }),
            ("oidc.issuer", OidcConfig { issuer: "id.example".into(), ..good() }),
            ("oidc.issuer", OidcConfig { issuer: "http://id.example".into(), ..good() }),
            ("oidc.audience", OidcConfig { audience: String::new(), ..good() }),
            ("oidc.jwks_url", url("")),
            ("oidc.jwks_url", url("http://id.example/keys")),
            ("oidc.jwks_url", url("http://127.0.0.1@id.example/keys")),
            ("oidc.jwks_url", url("http://localhost.id.example/keys")),
            ("oidc.jwks_url", url("file:///etc/passwd")),
            ("oidc.jwks_url", url("https://")),
            ("oidc.jwks_url", OidcConfig { jwks_url: "https://id.example".into(), ..file }),
            ("oidc.roles_claim", OidcConfig { roles_claim: String::new(), ..good() }),
            ("oidc.roles_claim", OidcConfig { roles_claim: "a..b".into(), ..good() }),
            ("oidc.purposes", OidcConfig { purposes: vec![], ..good() }),
            ("oidc.purposes", OidcConfig { purposes: vec!["CURIOSITY".into()], ..good() }),
            ("oidc.roles", OidcConfig { roles: table(""), ..good() }),
            ("oidc.studies", OidcConfig { studies: table(""), ..good() }),
            ("oidc.age_seconds_max", OidcConfig { age_seconds_max: 0, ..good() }),
            ("oidc.age_seconds_max", OidcConfig { age_seconds_max: AGE_SECONDS_MAX + 1, ..good() }),
            ("oidc.refresh_seconds", OidcConfig { refresh_seconds: 1, ..good() }),
            ("oidc.stale_seconds_max", OidcConfig { stale_seconds_max: 300, ..good() }),
        ] {
            let text = check(&[config]).unwrap_err().to_string();
            assert!(text.starts_with(&format!("{key}: ")), "{key}: {text}");
        }
        assert!(check(&[good(), good()]).unwrap_err().to_string().contains("twice"));
        assert!(check(&vec![good(); PROVIDERS_MAX + 1]).is_err());
    }

    /// Guarantee: the lines of the README are read as they stand there, and printed so that they read back.
    #[test]
    fn read_and_written() {
        let text = r#"
            operators = []
            [[oidc]]
            issuer = "https://id.example/realms/h"
            audience = "vitalog"
            jwks_file = "/etc/vitalog/keys.json"
            roles_claim = "realm_access.roles"
            purposes = ["TREAT", "CAREMGT"]
            [oidc.roles]
            "cardiology-doctors" = "clinician"
            [oidc.studies]
            "sleep-team" = "sleep-1"
        "#;
        let config: crate::config::Config = toml::from_str(text).unwrap();
        let again: crate::config::Config = toml::from_str(&toml::to_string(&config).unwrap()).unwrap();
        let options = again.oidc[0].options().unwrap();
        assert_eq!(options.roles["cardiology-doctors"], "clinician");
        assert_eq!(options.studies["sleep-team"], "sleep-1");
        assert_eq!((options.age_max_s, options.refresh_s, options.stale_max_s), (900, 300, 86_400));
        let none = toml::to_string(&crate::config::Config::default()).unwrap();
        assert!(!none.contains("oidc"), "{none}");
    }
}
