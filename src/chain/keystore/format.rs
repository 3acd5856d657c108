//! The keystore's JSON, cipher and key derivation (Web3 Secret Storage Definition), without files.
//!
//! The first half of the derived key is the aes-128-ctr key. A keccak-256 over the second half and the
//! ciphertext detects a wrong passphrase.

use aes::Aes128;
use aes::cipher::{KeyIvInit as _, StreamCipher as _};
use alloy::hex;
use alloy::primitives::keccak256;
use ctr::Ctr128BE;
use hmac::Hmac;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::chain::key::Key;
use crate::ids::Address;
use crate::secret::Secret;

/// The largest keystore that is read. A regular one is smaller than a kilobyte.
pub(super) const FILE_BYTES_MAX: u64 = 64 * 1024;

/// The most memory that scrypt may take: twice that of geth's standard cost.
const SCRYPT_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// The most blocks that scrypt may mix: eight times those of geth's standard cost, a few seconds.
const SCRYPT_BLOCKS_MAX: u64 = 8 * (1 << 18) * 8;

/// The most PBKDF2 rounds: ten times those of eth-account, a few seconds.
const PBKDF2_ROUNDS_MAX: u32 = 10_000_000;

const SALT_BYTES_MAX: usize = 1024;

/// The cost of opening a keystore, and therefore of each guess at its passphrase.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    log_n: u8,
}

impl Cost {
    /// geth's standard cost: scrypt over 256 MiB, about a second.
    pub(super) const STANDARD: Self = Self { log_n: 18 };
}

/// Why a sealed key can't be opened.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BadKeystore {
    WrongPassphrase,
    Malformed(String),
}

/// A key encrypted with its passphrase. Its parameters are checked against the limits above.
#[derive(Debug)]
pub(super) struct Sealed {
    /// The account of the key, if the file states it.
    pub(super) address: Option<Address>,
    kdf: Kdf,
    iv: [u8; 16],
    ciphertext: [u8; 32],
    mac: [u8; 32],
}

#[derive(Debug)]
enum Kdf {
    Scrypt { params: scrypt::Params, n: u32, salt: Vec<u8> },
    Pbkdf2 { rounds: u32, salt: Vec<u8> },
}

impl Sealed {
    pub(super) fn seal(key: &Key, passphrase: &Secret, cost: Cost) -> Self {
        let params = scrypt::Params::new(cost.log_n, 8, 1).expect("scrypt's own bounds hold");
        let salt = random::<32>().to_vec();
        let kdf = Kdf::Scrypt { params, n: 1 << cost.log_n, salt };
        let iv = random();
        let derived = kdf.derive(passphrase);
        let mut ciphertext = *key.to_bytes();
        apply_cipher(&derived, &iv, &mut ciphertext);
        let mac = mac(&derived, &ciphertext);
        Self { address: Some(key.address()), kdf, iv, ciphertext, mac }
    }

    pub(super) fn open(&self, passphrase: &Secret) -> Result<Key, BadKeystore> {
        let derived = self.kdf.derive(passphrase);
        if mac(&derived, &self.ciphertext) != self.mac {
            return Err(BadKeystore::WrongPassphrase);
        }
        let mut bytes = Zeroizing::new(self.ciphertext);
        apply_cipher(&derived, &self.iv, &mut bytes);
        let key = Key::from_bytes(&bytes)
            .map_err(|_| BadKeystore::Malformed("what it holds is not a key".into()))?;
        match self.address {
            Some(told) if told != key.address() => Err(BadKeystore::Malformed(format!(
                "it says that it is {told}'s, but its key is {}'s",
                key.address()
            ))),
            _ => Ok(key),
        }
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(format!("it is larger than {FILE_BYTES_MAX} bytes"));
        }
        // serde's message may quote the file's secrets, so only the position is reported.
        let file: FileJson = serde_json::from_str(text).map_err(|err| {
            format!("line {}, column {} is not as expected", err.line(), err.column())
        })?;
        let crypto = file.crypto;
        if file.version != 3 {
            return Err(format!("its version is {}, not 3", file.version));
        }
        if crypto.cipher != "aes-128-ctr" {
            return Err("its cipher is not aes-128-ctr".into());
        }
        Ok(Self {
            address: file.address.as_deref().map(parse_address).transpose()?,
            kdf: Kdf::parse(&crypto.kdf, crypto.kdfparams)?,
            iv: bytes_of("iv", &crypto.cipherparams.iv)?,
            ciphertext: bytes_of("ciphertext", &crypto.ciphertext)?,
            mac: bytes_of("mac", &crypto.mac)?,
        })
    }

    pub(super) fn to_json(&self) -> String {
        let (kdf, kdfparams) = self.kdf.to_json();
        let file = FileJson {
            address: self.address.map(|address| hex::encode(address.as_bytes())),
            crypto: CryptoJson {
                cipher: "aes-128-ctr".into(),
                cipherparams: CipherParamsJson { iv: hex::encode(self.iv) },
                ciphertext: hex::encode(self.ciphertext),
                kdf: kdf.into(),
                kdfparams,
                mac: hex::encode(self.mac),
            },
            id: Some(uuid_v4(random())),
            version: 3,
        };
        serde_json::to_string(&file).expect("texts and numbers are JSON")
    }
}

impl Kdf {
    fn parse(name: &str, params: KdfParamsJson) -> Result<Self, String> {
        let salt = hex::decode(&params.salt).map_err(|_| "its salt is not hex")?;
        if salt.len() > SALT_BYTES_MAX {
            return Err(format!("its salt is longer than {SALT_BYTES_MAX} bytes"));
        }
        if params.dklen != 32 {
            return Err(format!("its derived key has {} bytes, not 32", params.dklen));
        }
        match (name, params) {
            ("scrypt", KdfParamsJson { n: Some(n), r: Some(r), p: Some(p), .. }) => {
                // scrypt's own bounds allow costs that would exhaust memory, so these are stricter.
                let blocks = u64::from(n).saturating_mul(r.into());
                let bytes = blocks.saturating_mul(128);
                let lanes = 128 * u64::from(r).saturating_mul(p.into());
                if bytes.saturating_add(lanes) > SCRYPT_BYTES_MAX
                    || blocks.saturating_mul(p.into()) > SCRYPT_BLOCKS_MAX
                {
                    return Err(format!("opening it costs too much (scrypt n {n}, r {r}, p {p})"));
                }
                let log_n = u8::try_from(n.trailing_zeros()).unwrap_or(u8::MAX);
                let params = scrypt::Params::new(log_n, r, p).ok().filter(|_| n.is_power_of_two());
                let params = params
                    .filter(|_| n > 1)
                    .ok_or_else(|| format!("scrypt has no such cost (n {n}, r {r}, p {p})"))?;
                Ok(Self::Scrypt { params, n, salt })
            }
            ("pbkdf2", KdfParamsJson { c: Some(rounds), prf: Some(prf), .. }) => {
                if prf != "hmac-sha256" {
                    return Err("its prf is not hmac-sha256".into());
                }
                if !(1..=PBKDF2_ROUNDS_MAX).contains(&rounds) {
                    return Err(format!("opening it costs too much (pbkdf2 c {rounds})"));
                }
                Ok(Self::Pbkdf2 { rounds, salt })
            }
            _ => Err("its kdf is neither scrypt nor pbkdf2 with all their parameters".into()),
        }
    }

    fn derive(&self, passphrase: &Secret) -> Zeroizing<[u8; 32]> {
        let mut derived = Zeroizing::new([0; 32]);
        let passphrase = passphrase.expose().as_bytes();
        match self {
            Self::Scrypt { params, salt, .. } => {
                scrypt::scrypt(passphrase, salt, params, derived.as_mut_slice())
                    .expect("32 bytes are a length that scrypt gives");
            }
            Self::Pbkdf2 { rounds, salt } => {
                pbkdf2::pbkdf2::<Hmac<Sha256>>(passphrase, salt, *rounds, derived.as_mut_slice());
            }
        }
        derived
    }

    fn to_json(&self) -> (&'static str, KdfParamsJson) {
        match self {
            Self::Scrypt { params, n, salt } => {
                let (r, p) = (Some(params.r()), Some(params.p()));
                let salt = hex::encode(salt);
                ("scrypt", KdfParamsJson { dklen: 32, n: Some(*n), r, p, c: None, prf: None, salt })
            }
            Self::Pbkdf2 { rounds, salt } => {
                let (c, prf) = (Some(*rounds), Some("hmac-sha256".into()));
                let salt = hex::encode(salt);
                ("pbkdf2", KdfParamsJson { dklen: 32, n: None, r: None, p: None, c, prf, salt })
            }
        }
    }
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system has a random source");
    bytes
}

/// Encrypts or decrypts, which is the same operation in counter mode.
fn apply_cipher(derived: &[u8; 32], iv: &[u8; 16], bytes: &mut [u8; 32]) {
    let mut cipher_key = Zeroizing::new([0; 16]);
    cipher_key.copy_from_slice(&derived[..16]);
    Ctr128BE::<Aes128>::new(&(*cipher_key).into(), iv.into()).apply_keystream(bytes);
}

fn mac(derived: &[u8; 32], ciphertext: &[u8; 32]) -> [u8; 32] {
    let mut covered = Zeroizing::new([0; 48]);
    covered[..16].copy_from_slice(&derived[16..]);
    covered[16..].copy_from_slice(ciphertext);
    keccak256(covered.as_slice()).0
}

fn bytes_of<const N: usize>(name: &str, text: &str) -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes)
        .map_err(|_| format!("its {name} is not {N} bytes of hex"))?;
    Ok(bytes)
}

/// Accepts an address with or without `0x`, in upper or lower case, since writers differ.
fn parse_address(text: &str) -> Result<Address, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    bytes_of("address", digits).map(Address::new)
}

fn uuid_v4(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = hex::encode(bytes);
    for dash in [20, 16, 12, 8] {
        text.insert(dash, '-');
    }
    text
}

#[derive(Serialize, Deserialize)]
struct FileJson {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    address: Option<String>,
    #[serde(alias = "Crypto")]
    crypto: CryptoJson,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    id: Option<String>,
    version: u32,
}

#[derive(Serialize, Deserialize)]
struct CryptoJson {
    cipher: String,
    cipherparams: CipherParamsJson,
    ciphertext: String,
    kdf: String,
    kdfparams: KdfParamsJson,
    mac: String,
}

#[derive(Serialize, Deserialize)]
struct CipherParamsJson {
    iv: String,
}

/// The parameters of both derivations; `kdf` determines which ones are required.
#[derive(Serialize, Deserialize)]
struct KdfParamsJson {
    dklen: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    c: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prf: Option<String>,
    salt: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The PBKDF2 vector of the Web3 Secret Storage Definition, with the passphrase `testpassword`.
    const PBKDF2: &str = r#"{"crypto":{"cipher":"aes-128-ctr",
        "cipherparams":{"iv":"6087dab2f9fdbbfaddc31a909735c1e6"},
        "ciphertext":"5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46",
        "kdf":"pbkdf2","kdfparams":{"c":262144,"dklen":32,"prf":"hmac-sha256",
        "salt":"ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd"},
        "mac":"517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2"},
        "id":"3198bc9c-6672-5ab3-d995-4942343ae5b6","version":3}"#;

    /// Written by eth-account for development account 1, with the passphrase `testpassword`.
    const ETH_ACCOUNT: &str = r#"{"address":"70997970C51812dc3A010C7d01b50e0d17dc79C8",
        "crypto":{"cipher":"aes-128-ctr",
        "cipherparams":{"iv":"ea27d67034a4bb151d9f472a3fc63fec"},
        "ciphertext":"8fc593bfa22eda8a3088b30dd7341fa64554fc1aa75ddefc4261e6503b253b4e",
        "kdf":"scrypt","kdfparams":{"dklen":32,"n":1024,"r":8,"p":1,
        "salt":"2c3f13a9dcc41a541cd2884de94f3212"},
        "mac":"cf34605ec9be8664f444096fc8b30eeae5a6c1cfb013c8307701af282f6f80da"},
        "id":"b5b57a1d-e373-4b51-ac34-c2a788fab97d","version":3}"#;

    const CHEAP: Cost = Cost { log_n: 4 };

    fn sealed_json() -> String {
        Sealed::seal(&Key::random(), &Secret::new("p"), CHEAP).to_json()
    }

    #[test]
    fn the_definitions_own_vector_opens() {
        let key = Sealed::parse(PBKDF2).unwrap().open(&Secret::new("testpassword")).unwrap();
        let expected = "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d";
        assert_eq!(hex::encode(*key.to_bytes()), expected);
    }

    #[test]
    fn a_file_of_eth_accounts_opens() {
        let sealed = Sealed::parse(ETH_ACCOUNT).unwrap();
        let key = sealed.open(&Secret::new("testpassword")).unwrap();
        assert_eq!(key.address().to_string(), "0x70997970C51812dc3A010C7d01b50e0d17dc79C8");
        assert_eq!(sealed.address, Some(key.address()));
    }

    #[test]
    fn what_was_sealed_opens_and_no_two_files_share_a_salt() {
        let (key, passphrase) = (Key::random(), Secret::new("pässphrase"));
        let text = Sealed::seal(&key, &passphrase, CHEAP).to_json();
        assert_ne!(text, Sealed::seal(&key, &passphrase, CHEAP).to_json());
        let sealed = Sealed::parse(&text).unwrap();
        assert_eq!(sealed.address, Some(key.address()));
        assert_eq!(sealed.open(&passphrase).unwrap().to_bytes(), key.to_bytes());
        assert_eq!(sealed.open(&Secret::new("")).unwrap_err(), BadKeystore::WrongPassphrase);
    }

    #[test]
    fn a_file_that_names_another_account_is_refused() {
        let mut json: serde_json::Value = serde_json::from_str(&sealed_json()).unwrap();
        json["address"] = "f39fd6e51aad88f6f4ce6ab8827279cfffb92266".into();
        let refusal = Sealed::parse(&json.to_string()).unwrap().open(&Secret::new("p"));
        assert!(matches!(refusal, Err(BadKeystore::Malformed(_))), "{refusal:?}");
    }

    #[test]
    fn a_hostile_file_costs_nothing() {
        type Damage = fn(&mut serde_json::Value);
        let damages: [(&str, Damage); 13] = [
            ("memory", |json| json["crypto"]["kdfparams"]["n"] = (1_u32 << 30).into()),
            ("r", |json| json["crypto"]["kdfparams"]["r"] = u32::MAX.into()),
            ("p", |json| json["crypto"]["kdfparams"]["p"] = 1_000_000_000.into()),
            ("time", |json| {
                json["crypto"]["kdfparams"]["n"] = (1_u32 << 18).into();
                json["crypto"]["kdfparams"]["p"] = 64.into();
            }),
            ("n 0", |json| json["crypto"]["kdfparams"]["n"] = 0.into()),
            ("n 1", |json| json["crypto"]["kdfparams"]["n"] = 1.into()),
            ("n odd", |json| json["crypto"]["kdfparams"]["n"] = 1000.into()),
            ("dklen", |json| json["crypto"]["kdfparams"]["dklen"] = 16.into()),
            ("salt", |json| json["crypto"]["kdfparams"]["salt"] = "00".repeat(1025).into()),
            ("iv", |json| json["crypto"]["cipherparams"]["iv"] = "00".into()),
            ("ciphertext", |json| json["crypto"]["ciphertext"] = "".into()),
            ("version", |json| json["version"] = 1.into()),
            ("kdf", |json| json["crypto"]["kdf"] = "none".into()),
        ];
        for (what, damage) in damages {
            let mut json: serde_json::Value = serde_json::from_str(&sealed_json()).unwrap();
            damage(&mut json);
            assert!(Sealed::parse(&json.to_string()).is_err(), "{what}");
        }
        let slow = PBKDF2.replace("262144", "4000000000");
        assert!(Sealed::parse(&slow).is_err());
        assert!(Sealed::parse(&" ".repeat(100_000)).is_err());
        assert!(Sealed::parse("[]").unwrap_err().contains("line 1"));
    }
}
