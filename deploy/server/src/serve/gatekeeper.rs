//! Who may speak MQTT for which devices: a device for itself, a maker's gateway for the maker's devices.
//!
//! Who somebody is, is said by a token (password) or by a TLS client certificate; a token goes before a certificate,
//! since it is the narrower of the two. Both name a did:key, and the register says which devices that key speaks for.

use std::collections::HashSet;
use std::sync::Arc;

use ingest_intake::Allowed;
use ingest_intake::mqtt::{Admittance, Credentials, Gatekeeper, Lease};
use ingest_statements::Statements;
use query_tokens::Tokens;
use schemas_identity::token::{Scope, Token};
use schemas_identity::{Did, ShortId};

use super::clock::{Clock, seconds};

/// Checks MQTT credentials: the password is a token with scope `publish`, or there is a certificate.
pub(crate) struct TokenGatekeeper {
    pub(crate) statements: Arc<Statements>,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) clock: Clock,
    /// `--dev`: anonymous connections may publish for every device; frames are signed anyway.
    pub(crate) is_dev: bool,
}

impl TokenGatekeeper {
    fn devices_of(&self, party: &Did) -> HashSet<ShortId> {
        let register = self.statements.register();
        let own = party.key().short_id();
        let mut devices = HashSet::new();
        for device in register.devices() {
            let speaks = device.keys.iter().any(|key| key.key.short_id() == own) || device.maker == *party;
            if speaks {
                devices.extend(device.keys.iter().map(|key| key.key.short_id()));
            }
        }
        devices
    }

    fn lease_of(&self, token: Token) -> Lease {
        let (tokens, clock) = (self.tokens.clone(), self.clock.clone());
        Lease::while_true(move || tokens.holds(&token, seconds(&clock)))
    }

    fn lease_of_key(&self, party: Did) -> Lease {
        let statements = self.statements.clone();
        Lease::while_true(move || statements.register().is_live(&party))
    }
}

impl Gatekeeper for TokenGatekeeper {
    fn admit(&self, credentials: &Credentials<'_>) -> Result<Admittance, ()> {
        let (party, lease) = match (credentials.password, credentials.certificate) {
            (Some(password), _) => {
                let text = std::str::from_utf8(password).map_err(drop)?;
                let token = self.tokens.admit(text, seconds(&self.clock)).map_err(drop)?;
                if token.scope != Scope::Publish {
                    return Err(());
                }
                (token.iss, self.lease_of(token))
            }
            (None, Some(certified)) => (*certified, self.lease_of_key(*certified)),
            (None, None) if self.is_dev => {
                return Ok(Admittance { allowed: Allowed::All, identity: None, lease: Lease::FOREVER });
            }
            (None, None) => return Err(()),
        };
        let names_itself = credentials
            .username
            .is_none_or(|name| name == party.to_string() || name == party.key().short_id().to_string());
        if !names_itself || !self.statements.register().is_live(&party) {
            return Err(());
        }
        let allowed = Allowed::Only(Arc::new(self.devices_of(&party)));
        Ok(Admittance { allowed, identity: Some(party.to_string()), lease })
    }
}
