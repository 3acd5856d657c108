//! What a node is asked: who it is (identify), Hivemind's `rpc_ping` and `rpc_find`, and where other nodes are
//! (`FIND_NODE` of libp2p's own DHT, since Hivemind tells of other nodes only their ids).
//!
//! Must hold: an answer is either read as a whole or a fault; of lists that strangers fill only the first few are
//! kept. The node isn't told of an id of ours, so that it doesn't take us for a member of the swarm.

use std::net::IpAddr;

use libp2p_core::PeerId;

use super::address::{self, Place};
use super::fault::Fault;
use super::found::{self, Answer, Wanted};
use super::key::Id;
use super::link::{Link, read_frame, read_len, write_frame};
use super::source::Source;
use super::wire::{Fields, put_bytes, put_int};
use crate::report;

const IDENTIFY: &str = "/ipfs/id/1.0.0";
const KAD: &str = "/ipfs/kad/1.0.0";
const PING: &str = "DHTProtocol.rpc_ping";
const FIND: &str = "DHTProtocol.rpc_find";

/// The longest answer to anything but `rpc_find`, in bytes.
const SMALL_MAX: usize = 64 * 1024;

/// How many nodes of a `FIND_NODE`'s answer are read, and how many addresses of each.
const PEERS_MAX: usize = 40;
const ADDRESSES_MAX: usize = 16;

/// How many characters of a program's name are kept.
const AGENT_MAX: usize = 60;

/// `FIND_NODE` of libp2p's Kademlia.
const FIND_NODE: u64 = 4;

/// The name and version of the node's program, as it says; `None` if it doesn't say.
pub(super) async fn agent(link: &Link) -> Result<Option<String>, Fault> {
    let mut stream = link.open(IDENTIFY).await?;
    let answer = read_frame(&mut stream, SMALL_MAX).await?;
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
    let frame = read_frame(&mut call(link, PING, &[]).await?, SMALL_MAX).await?;
    let answer = response(&frame)?;
    for field in Fields::of(answer) {
        if let (2, node) = field?
            && node_id(node.bytes())?.is_some()
        {
            return Ok(());
        }
    }
    Err(Fault::Garbled("it tells no id of the node"))
}

/// What the node knows of the keys.
pub(super) async fn find(link: &Link, wanted: &Wanted) -> Result<Answer, Fault> {
    let mut request = Vec::new();
    for key in &wanted.keys {
        put_bytes(&mut request, 2, key.bytes());
    }
    // Nobody: without it, Hivemind 1.1.12 still reads an empty id.
    put_bytes(&mut request, 3, &[]);
    let mut stream = call(link, FIND, &request).await?;
    let len = read_len(&mut stream, wanted.answer_max).await?;
    found::read(&mut Source::new(stream), len as u64, wanted).await
}

/// The id in what a node tells of itself.
pub(super) fn node_id(node: &[u8]) -> Result<Option<Id>, Fault> {
    for field in Fields::of(node) {
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
) -> Result<Vec<(PeerId, Vec<Place>)>, Fault> {
    let mut request = Vec::new();
    put_int(&mut request, 1, FIND_NODE);
    put_bytes(&mut request, 2, &peer.to_bytes());
    let mut stream = link.open(KAD).await?;
    write_frame(&mut stream, &request).await?;
    let answer = read_frame(&mut stream, SMALL_MAX).await?;
    read_peers(&answer, link.at().ip())
}

/// Reads the answer to `FIND_NODE` of a node at `teller`.
fn read_peers(message: &[u8], teller: IpAddr) -> Result<Vec<(PeerId, Vec<Place>)>, Fault> {
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

fn read_peer(message: &[u8], teller: IpAddr) -> Result<Option<(PeerId, Vec<Place>)>, Fault> {
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

/// Calls a method of Hivemind's. What is on the stream then is the answer.
async fn call(link: &Link, method: &'static str, data: &[u8]) -> Result<yamux::Stream, Fault> {
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
    Ok(stream)
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
            assert!(
                addresses.iter().all(|place| place.at.ip().is_loopback() && place.relay.is_none())
            );
        }
        assert_eq!(found("38.101.215.12"), [], "a public node sends nobody into a private network");
    }
}
