//! did:key for Ed25519: `did:key:z` and base58btc of the multicodec prefix 0xed 0x01 with the 32 key bytes.
//! Other key types and DID methods are refused, as is any second spelling.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{KeyRefusal, PublicKey};

const PREFIX: &str = "did:key:z";
const MULTICODEC_ED25519: [u8; 2] = [0xed, 0x01];
/// 34 bytes are 46 or 47 base58 digits; anything far from that is not looked at.
const TEXT_BYTES_MAX: usize = 64;

/// Text that names no admissible key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DidError {
    /// Not `did:key:z` and base58btc.
    #[error("not a did:key (expected did:key:z6Mk...)")]
    Form,
    /// A did:key of another kind of key.
    #[error("not an Ed25519 did:key")]
    KeyType,
    /// The key rule refused it.
    #[error("the key is refused: {0}")]
    Key(#[from] KeyRefusal),
}

/// A party's name, which is its public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Did(PublicKey);

impl Did {
    /// The name of a key.
    pub fn new(key: PublicKey) -> Did {
        Did(key)
    }

    /// A name for somebody who has no key here, derived from what `bytes` gives, one block after the other.
    ///
    /// It has the form of every other name, so that whatever is kept by party (records, limits, revocations, grants to one
    /// party) works for them, and it is nobody's key ([`PublicKey::of_nobody`]): no statement, token or frame can be signed
    /// in this name. Whoever has it can be granted something and be named in records, and can say nothing.
    pub fn of_nobody(bytes: impl FnMut() -> [u8; 32]) -> Option<Did> {
        PublicKey::of_nobody(bytes).map(Did)
    }

    /// The key behind the name.
    pub fn key(&self) -> &PublicKey {
        &self.0
    }
}

impl fmt::Display for Did {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0u8; 34];
        bytes[..2].copy_from_slice(&MULTICODEC_ED25519);
        bytes[2..].copy_from_slice(self.0.as_bytes());
        let mut digits = [0u8; DIGITS_MAX];
        f.write_str(PREFIX)?;
        f.write_str(base58(&bytes, &mut digits))
    }
}

/// Digits of base58btc, the ones people mix up left out.
const ALPHABET: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
/// 58 to the power of five: five digits are taken off at once.
const FIVE_DIGITS: u64 = 58 * 58 * 58 * 58 * 58;
/// Digits of the largest number of 36 bytes, to a whole number of fives.
const DIGITS_MAX: usize = 50;

/// The digits of 34 bytes that begin with 0xed. A record of an access names everybody it concerns, and `bs58` goes byte by
/// byte: it is the reference that the tests compare with.
fn base58<'d>(bytes: &[u8; 34], digits: &'d mut [u8; DIGITS_MAX]) -> &'d str {
    let mut limbs = [0u32; 9];
    let mut padded = [0u8; 36];
    padded[2..].copy_from_slice(bytes);
    for (limb, four) in limbs.iter_mut().zip(padded.as_chunks::<4>().0) {
        *limb = u32::from_be_bytes(*four);
    }
    for five in digits.rchunks_exact_mut(5) {
        let mut rest = 0u64;
        for limb in &mut limbs {
            let value = (rest << 32) | u64::from(*limb);
            // Both fit: rest is below 58^5 < 2^30.
            *limb = (value / FIVE_DIGITS) as u32;
            rest = value % FIVE_DIGITS;
        }
        for digit in five.iter_mut().rev() {
            *digit = ALPHABET[(rest % 58) as usize];
            rest /= 58;
        }
    }
    // The first byte is not zero, so there is no leading digit to keep.
    let first = digits.iter().position(|digit| *digit != ALPHABET[0]).unwrap_or(DIGITS_MAX);
    std::str::from_utf8(&digits[first..]).unwrap_or_default()
}

impl fmt::Debug for Did {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Did({self})")
    }
}

impl FromStr for Did {
    type Err = DidError;
    fn from_str(text: &str) -> Result<Did, DidError> {
        let digits = text.strip_prefix(PREFIX).ok_or(DidError::Form)?;
        if digits.len() > TEXT_BYTES_MAX {
            return Err(DidError::Form);
        }
        let bytes = bs58::decode(digits).into_vec().map_err(|_| DidError::Form)?;
        let key = bytes.strip_prefix(&MULTICODEC_ED25519).ok_or(DidError::KeyType)?;
        Ok(Did(PublicKey::admit(key)?))
    }
}

impl Serialize for Did {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Did {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Did, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SecretKey;

    /// Guarantee: the did:key method's own Ed25519 example is read, and comes out the same.
    #[test]
    fn published_example() {
        let text = "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp";
        let did: Did = text.parse().unwrap();
        assert_eq!(did.to_string(), text);
        assert_eq!(
            hex::encode(did.key().as_bytes()),
            "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29"
        );
    }

    /// Guarantee: our digits are those of the reference, at the edges and for many keys.
    #[test]
    fn digits_agree_with_bs58() {
        let check = |tail: [u8; 32]| {
            let mut bytes = [0u8; 34];
            bytes[..2].copy_from_slice(&MULTICODEC_ED25519);
            bytes[2..].copy_from_slice(&tail);
            assert_eq!(base58(&bytes, &mut [0; DIGITS_MAX]), bs58::encode(bytes).into_string());
        };
        check([0; 32]);
        check([0xff; 32]);
        for bit in 0..256 {
            let mut tail = [0u8; 32];
            tail[bit / 8] = 1 << (bit % 8);
            check(tail);
        }
        for number in 0..5_000_u32 {
            check(*blake3::hash(&number.to_le_bytes()).as_bytes());
        }
    }

    /// Guarantee: a name without a key obeys the key rule, is the same for the same bytes, reads back, and skips bytes that
    /// are no point; where there is none it is refused.
    #[test]
    fn names_without_a_key() {
        let blocks = |seed: u8| {
            let mut stream = blake3::Hasher::new().update(&[seed]).finalize_xof();
            move || {
                let mut block = [0; 32];
                stream.fill(&mut block);
                block
            }
        };
        let mut names = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let did = Did::of_nobody(blocks(seed)).unwrap();
            assert_eq!(did, Did::of_nobody(blocks(seed)).unwrap());
            assert_eq!(PublicKey::admit(did.key().as_bytes()), Ok(*did.key()));
            assert_eq!(did.to_string().parse::<Did>().unwrap(), did);
            names.insert(did);
        }
        assert_eq!(names.len(), 200);
        // 2 is no y of any point; 1 is the identity, of small order.
        let small = |y: u8| move || std::array::from_fn(|at| if at == 0 { y } else { 0 });
        assert_eq!((Did::of_nobody(small(2)), Did::of_nobody(small(1))), (None, None));
    }

    /// Guarantee: other methods, other keys and damaged text are refused.
    #[test]
    fn hostile_names() {
        let good = SecretKey::from_seed(&[1; 32]).public().did().to_string();
        assert!(good.parse::<Did>().is_ok());
        let p256 = "did:key:zDnaeTiq1PdzvZXUaMdezchcMJQpBdH2VN4pgrrEhMCCbmwSb";
        let long = format!("did:key:z{}", "1".repeat(100_000));
        for text in
            ["", "did:web:example.org", p256, &good[..20], &format!("{good}1"), &long, &good.to_uppercase()]
        {
            assert!(text.parse::<Did>().is_err(), "{}", &text[..text.len().min(80)]);
        }
    }
}
