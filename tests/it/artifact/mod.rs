//! Content by CID: against another implementation, the embedded store and hostile gateways.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

mod cids;
mod hostile;
mod publish;
mod store;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::support::ipfs::Store;

/// A limit that no object of these tests reaches.
const PLENTY: u64 = 1 << 30;

/// Pseudo-random bytes, the same in every run.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64 ^ len as u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Every file below `root` with its content.
fn contents(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let (mut found, mut open) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            let name = path.strip_prefix(root).unwrap().display().to_string();
            found.insert(name, fs::read(path).unwrap());
        }
    }
    found
}

/// Makes a folder with subfolders, names that need escaping, and a file of several blocks.
fn nested(at: &Path) {
    fs::create_dir_all(at.join("a/b/c")).unwrap();
    fs::create_dir_all(at.join("Z")).unwrap();
    fs::write(at.join("a/b/c/deep.txt"), "deep").unwrap();
    fs::write(at.join("a/empty"), "").unwrap();
    fs::write(at.join("a/weights.bin"), noise(700_000)).unwrap();
    fs::write(at.join("a/zeros.bin"), vec![0; 3 << 20]).unwrap();
    fs::write(at.join("Z/with space & ümlaut.txt"), "z").unwrap();
    fs::write(at.join("top"), noise(10)).unwrap();
}

/// Makes a folder whose directory does not fit into one IPLD node.
fn many(at: &Path) {
    fs::create_dir_all(at).unwrap();
    for n in 0..6100 {
        fs::write(at.join(format!("sample-{n:05}.txt")), n.to_string()).unwrap();
    }
}

/// A store on its own folder.
async fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::start(dir.path()).await;
    (dir, store)
}
