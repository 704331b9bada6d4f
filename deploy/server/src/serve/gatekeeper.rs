//! Who may speak MQTT for which devices: a device for itself, a maker's gateway for the maker's devices.

use std::collections::HashSet;
use std::sync::Arc;

use ingest_intake::Allowed;
use ingest_intake::mqtt::Gatekeeper;
use ingest_statements::Statements;
use schemas_identity::token::{Scope, Token};
use schemas_identity::{Did, ShortId};

use crate::client::now_s;

/// Checks MQTT credentials: the password is a token with scope `publish`.
pub(crate) struct TokenGatekeeper {
    pub(crate) statements: Arc<Statements>,
    pub(crate) origin: String,
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
}

impl Gatekeeper for TokenGatekeeper {
    fn admit(&self, username: Option<&str>, password: Option<&[u8]>) -> Result<Allowed, ()> {
        let Some(password) = password else {
            return if self.is_dev { Ok(Allowed::All) } else { Err(()) };
        };
        let text = std::str::from_utf8(password).map_err(drop)?;
        let token = Token::parse(text, &self.origin, now_s()).map_err(drop)?;
        let names_itself = username.is_none_or(|name| {
            name == token.iss.to_string() || name == token.iss.key().short_id().to_string()
        });
        if token.scope != Scope::Publish || !names_itself || !self.statements.register().is_live(&token.iss) {
            return Err(());
        }
        Ok(Allowed::Only(Arc::new(self.devices_of(&token.iss))))
    }
}
