//! `[bridge]`: where the broker is and who we are to it.

use serde::{Deserialize, Serialize};

use super::ConfigError;

/// A broker that is there already; see `ingest_intake::bridge`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct BridgeConfig {
    /// `mqtt://HOST:PORT` (loopback only) or `mqtts://HOST:PORT`; empty = no bridge.
    pub(crate) url: String,
    /// Name of the shared subscription, the same for all bridges of a deployment.
    pub(crate) group: String,
    /// Names the session at the broker: stable, and no other bridge's.
    pub(crate) client_id: String,
    /// User name at the broker; empty = none.
    pub(crate) username: String,
    /// File with the password; one line end at its end is not part of it.
    pub(crate) password_file: String,
    /// Messages that the broker may leave unacknowledged.
    pub(crate) receive_max: u16,
    /// PEM authorities that the broker's certificate must come from; with `mqtts` only.
    pub(crate) ca: String,
    /// PEM chain that we show to the broker; empty = none.
    pub(crate) cert: String,
    /// PEM key of that chain.
    pub(crate) key: String,
}

impl Default for BridgeConfig {
    fn default() -> Self {
        Self {
            url: String::new(),
            group: "vitalog".into(),
            client_id: "vitalog-bridge".into(),
            username: String::new(),
            password_file: String::new(),
            receive_max: 512,
            ca: String::new(),
            cert: String::new(),
            key: String::new(),
        }
    }
}

/// The address in a bridge's `url`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BrokerAddress {
    /// Name or address; an IPv6 address in brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) has_tls: bool,
}

impl BridgeConfig {
    /// The broker's address, `None` if there is no bridge.
    pub(crate) fn address(&self) -> Result<Option<BrokerAddress>, ConfigError> {
        if self.url.is_empty() {
            return Ok(None);
        }
        let wrong = || ConfigError::Refused {
            key: "bridge.url",
            message: format!("`{}` is neither mqtt://HOST:PORT nor mqtts://HOST:PORT", self.url),
        };
        let (scheme, rest) = self.url.split_once("://").ok_or_else(wrong)?;
        let has_tls = match scheme {
            "mqtt" => false,
            "mqtts" => true,
            _ => return Err(wrong()),
        };
        let (host, port) = rest.rsplit_once(':').ok_or_else(wrong)?;
        let port: u16 = port.parse().map_err(|_| wrong())?;
        if host.is_empty() || host.contains(['/', '@', ' ']) {
            return Err(wrong());
        }
        Ok(Some(BrokerAddress { host: host.to_owned(), port, has_tls }))
    }

    /// Refuses what is well-formed but unsafe or senseless.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let refused = |key, message: &str| Err(ConfigError::Refused { key, message: message.to_owned() });
        let Some(address) = self.address()? else { return Ok(()) };
        if !address.has_tls && !is_loopback(&address.host) {
            return refused("bridge.url", "the broker is not on loopback: use mqtts:// and bridge.ca");
        }
        if address.has_tls && self.ca.is_empty() {
            return refused(
                "bridge.ca",
                "mqtts needs the authorities that the broker's certificate comes from",
            );
        }
        if self.cert.is_empty() != self.key.is_empty() {
            return refused("bridge.cert", "cert and key go together");
        }
        if self.username.is_empty() != self.password_file.is_empty() {
            return refused("bridge.username", "username and password_file go together");
        }
        if self.client_id.is_empty() {
            return refused("bridge.client_id", "names the session at the broker, so it must not be empty");
        }
        if self.group.is_empty() || self.group.contains(['/', '+', '#']) {
            return refused("bridge.group", "not empty, and without `/`, `+` and `#`");
        }
        if self.receive_max == 0 {
            return refused("bridge.receive_max", "0 is not within 1..=65535");
        }
        Ok(())
    }
}

pub(super) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(url: &str) -> BridgeConfig {
        BridgeConfig { url: url.to_owned(), ..BridgeConfig::default() }
    }

    /// Guarantee: the address is read as written, and anything else is named by its key.
    #[test]
    fn addresses() {
        assert_eq!(with("").address().unwrap(), None);
        let v6 = with("mqtts://[::1]:8883").address().unwrap().unwrap();
        assert_eq!((v6.host.as_str(), v6.port, v6.has_tls), ("[::1]", 8883, true));
        for wrong in [
            "broker",
            "mqtt://broker",
            "http://a:1",
            "mqtt://a:b",
            "mqtt://:1",
            "mqtt://u@h:1",
            "mqtt://a:1/x",
        ] {
            let text = with(wrong).check().unwrap_err().to_string();
            assert!(text.starts_with("bridge.url"), "{wrong}: {text}");
        }
    }

    /// Guarantee: frames and passwords leave loopback only under TLS, and what belongs together comes together.
    #[test]
    fn unsafe_bridges_are_refused() {
        assert!(with("mqtt://localhost:1883").check().is_ok() && with("mqtt://[::1]:1883").check().is_ok());
        let plain = with("mqtt://broker.example:1883").check().unwrap_err().to_string();
        assert!(plain.contains("loopback"), "{plain}");
        let untrusted = with("mqtts://broker.example:8883").check().unwrap_err().to_string();
        assert!(untrusted.starts_with("bridge.ca"), "{untrusted}");
        let here = || with("mqtt://127.0.0.1:1883");
        for (key, config) in [
            ("bridge.cert", BridgeConfig { cert: "c".into(), ..here() }),
            ("bridge.username", BridgeConfig { username: "u".into(), ..here() }),
            ("bridge.client_id", BridgeConfig { client_id: String::new(), ..here() }),
            ("bridge.group", BridgeConfig { group: "a/b".into(), ..here() }),
            ("bridge.receive_max", BridgeConfig { receive_max: 0, ..here() }),
        ] {
            let text = config.check().unwrap_err().to_string();
            assert!(text.starts_with(key), "{key}: {text}");
        }
    }
}
