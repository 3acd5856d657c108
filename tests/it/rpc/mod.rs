//! The chain's endpoints in bad weather: real anvils behind proxies that misbehave.

#![expect(clippy::unwrap_used, reason = "clippy exempts only functions marked as tests")]

mod commands;
mod fitness;
mod proxy;
mod reads;
mod sends;

use std::time::Duration;

use lamda_node::backoff::Backoff;
use lamda_node::chain::{Config, EndpointLimits, Evm, Reader};
use lamda_node::ids::Address;
use lamda_node::reputation::Call;

use crate::support::anvil::Anvil;
use crate::support::rpc_proxy::{RpcProxy, Weather};

const H100: &str = "NVIDIA H100 80GB HBM3";

/// The method that reads the contract.
const READ: &str = "eth_call";

fn register() -> Call {
    Call::Register { gpu_model: H100.to_owned(), vram_mib: 81_559 }
}

/// One chain behind two endpoints; `a` comes first in the list.
struct Chain {
    anvil: Anvil,
    contract: Address,
    a: RpcProxy,
    b: RpcProxy,
}

impl Chain {
    async fn start() -> Self {
        let anvil = Anvil::start();
        let contract = anvil.deploy().await;
        let (a, b) = (RpcProxy::start(&anvil.rpc_url), RpcProxy::start(&anvil.rpc_url));
        Self { anvil, contract, a, b }
    }

    fn config(&self, limits: EndpointLimits) -> Config {
        let rpc_urls = vec![self.a.url().to_owned(), self.b.url().to_owned()];
        Config { rpc_urls, endpoints: limits, ..self.anvil.config(self.contract) }
    }

    fn reader(&self, limits: EndpointLimits) -> Reader {
        Reader::new(self.config(limits)).unwrap()
    }

    fn node(&self, limits: EndpointLimits) -> Evm {
        Evm::new(self.config(limits), Anvil::key(1)).unwrap()
    }

    /// The number of account 1's mined transactions.
    fn nonce(&self) -> String {
        self.anvil.cast(&["nonce", &Anvil::key(1).address().to_string()])
    }
}

/// The next call asks a failed endpoint again, and every call checks the heads.
fn no_rests() -> EndpointLimits {
    let none = Duration::ZERO;
    let rest = Backoff::new(none, none);
    let defaults = EndpointLimits::default();
    EndpointLimits { rest, foreign_rest: none, look_every: none, ..defaults }
}

fn busy(retry_after: &str) -> Weather {
    Weather::Status(429, Some(retry_after.to_owned()))
}
