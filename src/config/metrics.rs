//! Where the node tells Prometheus how it is.

use std::net::SocketAddr;

use super::env::{Env, Variable, shown};

const METRICS_LISTEN: Variable = Variable::new("METRICS_LISTEN", "127.0.0.1:9464");

/// `METRICS_LISTEN`; `Some(None)` if it is not set, `None` if it has a problem.
#[expect(clippy::option_option, reason = "unset and invalid are different outcomes")]
pub(super) fn read(env: &mut Env<'_>) -> Option<Option<SocketAddr>> {
    let set = env.is_set(METRICS_LISTEN);
    let Some(text) = env.text(METRICS_LISTEN) else { return (!set).then_some(None) };
    let parsed = text.parse::<SocketAddr>().ok().filter(|address| address.port() != 0);
    let what = || format!("{} is no IP address with a port", shown(&text));
    let address = env.keep(METRICS_LISTEN, parsed.ok_or_else(what))?;
    if !address.ip().is_loopback() {
        env.warn(format!(
            "METRICS_LISTEN={address} is not on this machine alone: whoever reaches it sees what this node \
             does and what it has for gas"
        ));
    }
    Some(Some(address))
}
