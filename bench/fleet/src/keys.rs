//! Keys of a fleet in a folder: `NAME.device.pem`, `NAME.subject.pem` and `map.json`. Used again when they are there, so
//! that a second run sends the very same bytes.

use std::fs;
use std::path::{Path, PathBuf};

use schemas_identity::{BootId, PublicKey, SecretKey};
use serde_json::{Map, Value, json};

use crate::FleetError;

/// Whose device, and the boot it sends under.
#[derive(Debug)]
pub struct Person {
    /// Name in the map.
    pub name: String,
    /// The device's key.
    pub device: SecretKey,
    /// The wearer's key.
    pub subject: SecretKey,
    /// The one boot of this device.
    pub boot: BootId,
}

/// A folder of keys, or keys in memory only.
#[derive(Debug)]
pub struct Keyring {
    directory: Option<PathBuf>,
    map: Map<String, Value>,
}

/// Names come from folders and tables of other people.
fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=64).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(plain)
}

/// Recordings cut into other lengths are other frames, so they need another boot: the same boot and number with other
/// bytes would be an equivocation.
fn boot_of(device: &PublicKey, frame_seconds: u32) -> BootId {
    let mut hasher = blake3::Hasher::new_derive_key("vitalog 2026 fleet boot v1");
    hasher.update(device.as_bytes()).update(&frame_seconds.to_be_bytes());
    let hash = hasher.finalize();
    let mut boot = [0u8; 8];
    boot.copy_from_slice(&hash.as_bytes()[..8]);
    BootId(boot)
}

impl Keyring {
    /// Opens or creates the folder; without one, keys live as long as this value.
    pub fn open(directory: Option<&Path>) -> Result<Keyring, FleetError> {
        let mut map = Map::new();
        if let Some(directory) = directory {
            let io = |source| FleetError::Io { path: directory.to_owned(), source };
            fs::create_dir_all(directory).map_err(io)?;
            let path = directory.join("map.json");
            if path.exists() {
                let text = fs::read_to_string(&path)
                    .map_err(|source| FleetError::Io { path: path.clone(), source })?;
                let problem = "not a JSON object";
                map = serde_json::from_str(&text).map_err(|_| FleetError::Keys { path, problem })?;
            }
        }
        Ok(Keyring { directory: directory.map(Path::to_owned), map })
    }

    /// The keys of a person, made at the first call, and the boot of their frames of so many seconds.
    pub fn person(&mut self, name: &str, frame_seconds: u32) -> Result<Person, FleetError> {
        if !is_plain(name) {
            let path = self.directory.clone().unwrap_or_default().join("NAME.device.pem");
            let problem =
                "a person's name becomes a file's: up to 64 letters, digits, `-`, `_` and inner `.`";
            return Err(FleetError::Keys { path, problem });
        }
        let device = self.key(&format!("{name}.device.pem"))?;
        let subject = self.key(&format!("{name}.subject.pem"))?;
        let boot = boot_of(&device.public(), frame_seconds);
        let entry = json!({
            "device": device.public().short_id(), "subject": subject.public().did(), "boot": boot,
        });
        if self.map.get(name) != Some(&entry) {
            self.map.insert(name.to_owned(), entry);
            self.save()?;
        }
        Ok(Person { name: name.to_owned(), device, subject, boot })
    }

    /// `{"NAME":{"device":..,"subject":..,"boot":..}}`.
    pub fn map(&self) -> &Map<String, Value> {
        &self.map
    }

    fn save(&self) -> Result<(), FleetError> {
        let Some(directory) = &self.directory else { return Ok(()) };
        let path = directory.join("map.json");
        let text = Value::Object(self.map.clone()).to_string();
        fs::write(&path, text).map_err(|source| FleetError::Io { path, source })
    }

    fn key(&self, file: &str) -> Result<SecretKey, FleetError> {
        let fresh = || {
            let problem = "the system gives no randomness";
            SecretKey::generate().map_err(|_| FleetError::Keys { path: file.into(), problem })
        };
        let Some(directory) = &self.directory else { return fresh() };
        let path = directory.join(file);
        let io = |source| FleetError::Io { path: path.clone(), source };
        if !path.exists() {
            let key = fresh()?;
            write_private(&path, key.to_pem().as_bytes()).map_err(io)?;
            return Ok(key);
        }
        let text = fs::read_to_string(&path).map_err(io)?;
        let problem = "not an Ed25519 private key in PKCS#8 PEM";
        SecretKey::from_pem(&text).map_err(|_| FleetError::Keys { path: path.clone(), problem })
    }
}

fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantee: a second run has the same keys and boot id; frames of another length are of another boot.
    #[test]
    fn keys_are_used_again() {
        let directory = tempfile::tempdir().unwrap();
        let first = Keyring::open(Some(directory.path())).unwrap().person("S01", 10).unwrap();
        let mut ring = Keyring::open(Some(directory.path())).unwrap();
        let again = ring.person("S01", 10).unwrap();
        assert_eq!((first.device.public(), first.boot), (again.device.public(), again.boot));
        assert_ne!(first.boot, ring.person("S01", 5).unwrap().boot);
        for name in ["", "../S01", "a/b", ".hidden", "S 01"] {
            assert!(ring.person(name, 10).is_err(), "`{name}` is no file name");
        }
        assert_eq!(ring.map()["S01"]["device"], first.device.public().short_id().to_string());
    }
}
