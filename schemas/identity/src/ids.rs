//! Ids as types, so that kinds cannot be mixed. Text form: lower-case hex, exactly as long as the bytes ask for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Text that is no id of the kind asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {digits} lower-case hex digits")]
pub struct IdError {
    /// How many digits the kind has.
    pub digits: usize,
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; $bytes]);

        impl $name {
            /// The bytes behind the text.
            pub fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let error = IdError { digits: $bytes * 2 };
                if text.len() != $bytes * 2 || text.bytes().any(|byte| byte.is_ascii_uppercase()) {
                    return Err(error);
                }
                let mut bytes = [0u8; $bytes];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| error)?;
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

hex_id!(
    /// A device's short name: the first 8 bytes of BLAKE3 of its raw public key. COSE `kid` and MQTT topic name.
    ShortId,
    8
);
hex_id!(
    /// Random per boot of a device.
    BootId,
    8
);
hex_id!(
    /// BLAKE3 of a statement's compact JWS.
    StatementId,
    32
);

/// Dense number of a device: the order of its enrolment in the log, from 0. What the lake stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceNumber(pub u32);

impl fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantee: one id has one spelling.
    #[test]
    fn one_spelling() {
        let id: ShortId = "00ff00ff00ff00ff".parse().unwrap();
        assert_eq!(id.to_string(), "00ff00ff00ff00ff");
        for text in ["", "00FF00ff00ff00ff", "00ff00ff00ff00f", "00ff00ff00ff00ff0", "zz00000000000000"] {
            assert_eq!(text.parse::<ShortId>(), Err(IdError { digits: 16 }), "{text}");
        }
    }
}
