//! What a node is asked: who it is (identify), Hivemind's `rpc_ping` and `rpc_find`, and where other nodes are
//! (`FIND_NODE` of libp2p's own DHT, since Hivemind tells of other nodes only their ids).
//!
//! Must hold: an answer is either read as a whole or a fault; of lists that strangers fill only the first few are
//! kept. The node isn't told of an id of ours, so that it doesn't take us for a member of the swarm.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use libp2p_core::PeerId;
use tokio::sync::Semaphore;

use super::address;
use super::dictionary;
use super::fault::Fault;
use super::key::Id;
use super::link::{Link, read_frame, write_frame};
use super::wire::{Fields, Value, put_bytes, put_int};
use crate::report;

const IDENTIFY: &str = "/ipfs/id/1.0.0";
const KAD: &str = "/ipfs/kad/1.0.0";
const PING: &str = "DHTProtocol.rpc_ping";
const FIND: &str = "DHTProtocol.rpc_find";

/// The longest answer to anything but `rpc_find`, in bytes.
const SMALL_MAX: usize = 64 * 1024;

/// How many nodes near a key are kept of an answer. Hivemind's nodes tell twenty.
const NEAREST_MAX: usize = 20;

/// How many nodes of a `FIND_NODE`'s answer are read, and how many addresses of each.
const PEERS_MAX: usize = 40;
const ADDRESSES_MAX: usize = 16;

/// How many characters of a program's name are kept.
const AGENT_MAX: usize = 60;

/// `FIND_NODE` of libp2p's Kademlia.
const FIND_NODE: u64 = 4;

/// What one node says of one key.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) held: Held,
    pub(super) nearest: Vec<(Id, PeerId)>,
}

/// What one node holds under a key.
#[derive(Debug, Default, PartialEq)]
pub(super) enum Held {
    #[default]
    Nothing,
    /// A value without subkeys, which tells nothing of who published it.
    Regular,
    Dictionary(Entries),
}

/// The entries of a dictionary.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Entries {
    /// The expirations of those that were asked for, in Unix seconds, as the node tells them.
    pub(super) of_interest: BTreeMap<String, f64>,
    /// The expirations of all others: how many, and the latest.
    pub(super) others: usize,
    pub(super) others_latest: f64,
}

/// What one node answers to `rpc_find`: its own id, if it tells one, and what it says of each key.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) node: Option<Id>,
    pub(super) told: Vec<Told>,
}

/// What is looked for in all nodes of a round.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) keys: Vec<Id>,
    pub(super) peers: BTreeSet<String>,
    /// The largest answer, in bytes.
    pub(super) answer_max: usize,
    /// Which expirations are taken for real, in Unix seconds.
    pub(super) expires_min: f64,
    pub(super) expires_max: f64,
}

/// The name and version of the node's program, as it says; `None` if it doesn't say.
pub(super) async fn agent(link: &Link) -> Result<Option<String>, Fault> {
    let mut stream = link.open(IDENTIFY).await?;
    let answer = read_frame(&mut stream, SMALL_MAX, None).await?;
    for field in Fields::of(&answer) {
        if let (6, value) = field? {
            let text = String::from_utf8_lossy(value.bytes());
            return Ok(Some(report::one_line(&text, AGENT_MAX)).filter(|text| !text.is_empty()));
        }
    }
    Ok(None)
}

/// Whether a Hivemind node is there.
pub(super) async fn ping(link: &Link) -> Result<(), Fault> {
    let frame = unary(link, PING, &[], SMALL_MAX, None).await?;
    let answer = response(&frame)?;
    for field in Fields::of(answer) {
        if let (2, node) = field?
            && node_id(node)?.is_some()
        {
            return Ok(());
        }
    }
    Err(Fault::Garbled("it tells no id of the node"))
}

/// What the node knows of the keys. Waits until an answer has place in `room`.
pub(super) async fn find(link: &Link, wanted: &Wanted, room: &Semaphore) -> Result<Answer, Fault> {
    let mut request = Vec::new();
    for key in &wanted.keys {
        put_bytes(&mut request, 2, key.bytes());
    }
    // Nobody: without it, Hivemind 1.1.12 still reads an empty id.
    put_bytes(&mut request, 3, &[]);
    let frame = unary(link, FIND, &request, wanted.answer_max, Some(room)).await?;
    read_find(response(&frame)?, wanted)
}

/// Reads a `FindResponse`.
fn read_find(message: &[u8], wanted: &Wanted) -> Result<Answer, Fault> {
    let mut answer = Answer { node: None, told: Vec::new() };
    for field in Fields::of(message) {
        match field? {
            (2, result) if answer.told.len() < wanted.keys.len() => {
                answer.told.push(read_result(result.bytes(), wanted)?);
            }
            (2, _) => return Err(Fault::Garbled("it has more results than there were keys")),
            (3, node) => answer.node = node_id(node)?,
            _ => {}
        }
    }
    if answer.told.len() != wanted.keys.len() {
        return Err(Fault::Garbled("it has fewer results than there were keys"));
    }
    Ok(answer)
}

fn read_result(result: &[u8], wanted: &Wanted) -> Result<Told, Fault> {
    let (mut kind, mut value) = (0, &[][..]);
    let (mut ids, mut peers) = (Vec::new(), Vec::new());
    for field in Fields::of(result) {
        match field? {
            (1, Value::Int(number)) => kind = number,
            (2, bytes) => value = bytes.bytes(),
            (4, id) if ids.len() < NEAREST_MAX => ids.push(Id::of(id.bytes())),
            (5, peer) if peers.len() < NEAREST_MAX => {
                peers.push(PeerId::from_bytes(peer.bytes()).ok());
            }
            _ => {}
        }
    }
    let held = match kind {
        0 => Held::Nothing,
        1 => Held::Regular,
        2 => Held::Dictionary(entries(value, wanted)?),
        _ => return Err(Fault::Garbled("a result is of an unknown kind")),
    };
    let nearest = ids.into_iter().zip(peers).filter_map(|(id, peer)| Some((id?, peer?)));
    Ok(Told { held, nearest: nearest.collect() })
}

fn entries(value: &[u8], wanted: &Wanted) -> Result<Entries, Fault> {
    let mut entries = Entries::default();
    dictionary::read(value, |subkey, expires| {
        // Also false for what is no number.
        let is_real = expires >= wanted.expires_min && expires <= wanted.expires_max;
        if !is_real {
        } else if wanted.peers.contains(subkey) {
            let known = entries.of_interest.entry(subkey.to_owned()).or_insert(expires);
            *known = known.max(expires);
        } else {
            entries.others += 1;
            entries.others_latest = entries.others_latest.max(expires);
        }
    })?;
    Ok(entries)
}

fn node_id(node: Value<'_>) -> Result<Option<Id>, Fault> {
    for field in Fields::of(node.bytes()) {
        if let (1, id) = field? {
            return Ok(Id::of(id.bytes()));
        }
    }
    Ok(None)
}

/// Where the node says that `peer` and others are.
pub(super) async fn whereabouts(
    link: &Link,
    peer: PeerId,
) -> Result<Vec<(PeerId, Vec<SocketAddr>)>, Fault> {
    let mut request = Vec::new();
    put_int(&mut request, 1, FIND_NODE);
    put_bytes(&mut request, 2, &peer.to_bytes());
    let mut stream = link.open(KAD).await?;
    write_frame(&mut stream, &request).await?;
    let answer = read_frame(&mut stream, SMALL_MAX, None).await?;
    read_peers(&answer, link.at().ip())
}

/// Reads the answer to `FIND_NODE` of a node at `teller`.
fn read_peers(message: &[u8], teller: IpAddr) -> Result<Vec<(PeerId, Vec<SocketAddr>)>, Fault> {
    let mut found = Vec::new();
    for field in Fields::of(message) {
        if let (8, peer) = field?
            && found.len() < PEERS_MAX
        {
            found.extend(read_peer(peer.bytes(), teller)?);
        }
    }
    Ok(found)
}

fn read_peer(message: &[u8], teller: IpAddr) -> Result<Option<(PeerId, Vec<SocketAddr>)>, Fault> {
    let (mut peer, mut addresses) = (None, Vec::new());
    let mut seen = 0;
    for field in Fields::of(message) {
        match field? {
            (1, id) => peer = PeerId::from_bytes(id.bytes()).ok(),
            (2, address) if seen < ADDRESSES_MAX => {
                seen += 1;
                addresses.extend(address::told(address.bytes(), teller));
            }
            _ => {}
        }
    }
    Ok(peer.map(|peer| (peer, addresses)).filter(|(_, addresses)| !addresses.is_empty()))
}

/// One call of a method of Hivemind's, and the frame that answers it.
async fn unary(
    link: &Link,
    method: &'static str,
    data: &[u8],
    answer_max: usize,
    room: Option<&Semaphore>,
) -> Result<Vec<u8>, Fault> {
    let mut call = Vec::new();
    put_bytes(&mut call, 1, &[]);
    put_bytes(&mut call, 2, method.as_bytes());
    put_bytes(&mut call, 3, data);
    let mut request = Vec::new();
    // The stream has one call, so its number needn't tell it from others; it's a UUID's length.
    put_bytes(&mut request, 1, &[0; 16]);
    put_bytes(&mut request, 3, &call);
    let mut stream = link.open(method).await?;
    write_frame(&mut stream, &request).await?;
    read_frame(&mut stream, answer_max, room).await
}

/// The response within the frame that answers a call.
fn response(frame: &[u8]) -> Result<&[u8], Fault> {
    for field in Fields::of(frame) {
        let (4, answer) = field? else { continue };
        for field in Fields::of(answer.bytes()) {
            match field? {
                (1, response) => return Ok(response.bytes()),
                (2, error) => return Err(Fault::refused(error.bytes())),
                _ => {}
            }
        }
    }
    Err(Fault::Garbled("it is no answer to a call"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a node of Hivemind 1.1.12 answered to `FIND_NODE` of one of the other two of its swarm.
    const FOUND: &str = "080442320a260024080112201578f3d72379eca295f39ec2cea560a30773c67b32e941d836dbd5034af5a445\
             1208047f00000106ab2d42320a26002408011220a2adbb16879e4cc70a6394056619708bc0cafaacc244bd48\
             632fbf12b5c72a361208047f000001069adb5001";

    #[test]
    fn the_addresses_of_other_nodes_are_read_as_hivemind_tells_them() {
        let answer = data_encoding::HEXLOWER.decode(FOUND.as_bytes()).unwrap();
        let found = |teller: &str| read_peers(&answer, teller.parse().unwrap()).unwrap();
        let here = found("127.0.0.1");
        assert!(!here.is_empty());
        for (peer, addresses) in here {
            assert!(peer.to_base58().starts_with("12D3Koo"));
            assert!(addresses.iter().all(|at| at.ip().is_loopback() && at.port() != 0));
        }
        assert_eq!(found("38.101.215.12"), [], "a public node sends nobody into a private network");
    }
}
