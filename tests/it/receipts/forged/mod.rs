//! A stranger on the NATS server, who may publish what he likes under his own name or any other, and
//! what a requester comes to believe. The stranger is nats-py, so no code of this program restrains him.

mod ends;
mod following;
mod ids;

use lamda_node::chain::Key;

use crate::support::anvil::Anvil;
use crate::support::bus::prepared;
use crate::support::nats::Nats;
use crate::support::program::Program;
use crate::support::speaker::{Speaker, without_chain};

/// The stranger's own address.
const STRANGER: &str = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";

/// A server with streams, a requester's program, a node and a stranger.
async fn onlooker() -> (Nats, Program, Speaker, Speaker) {
    let nats = Nats::start();
    prepared(&nats).await;
    let program = Program::with(&[("NATS_URL", &nats.url())]);
    let node = Speaker::new(Anvil::key(1), without_chain());
    (nats, program, node, Speaker::new(Key::random(), without_chain()))
}
