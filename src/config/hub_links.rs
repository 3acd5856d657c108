//! What a hub is linked with: NATS, the chain, channels, a dead man's switch. It does without what is not set.

use super::env::{Env, Variable, shown};
use super::{HubFile, bus, chain, channels};
use crate::bus::DeliveryMode;
use crate::fleet::pair::HubName;
use crate::hub::Links;

const NATS_URL: Variable = Variable::new("NATS_URL", "nats://localhost:4222");
const HUB_PING_URL: Variable = Variable::new("HUB_PING_URL", "https://hc-ping.com/a-secret-number");

const HUB_PAIR: Variable = Variable::new("HUB_PAIR", "hub-a");

/// Reads the links; `hub` is where people see the hub.
pub(super) fn read(env: &mut Env<'_>, hub: &str, file: HubFile) -> Option<Links> {
    let bus = if env.is_set(NATS_URL) { bus::read(env).map(Some) } else { Some(None) };
    let chain = chain::signing(env).map(|signing| signing.chain());
    let channels = channels::read(env, hub);
    let ping = ping(env);
    let pair = pair(env, bus.as_ref().is_none_or(|bus| bus.as_ref().is_some_and(keeps)));
    let HubFile { policy, digest, .. } = file;
    Some(Links {
        bus: bus?,
        chain: chain?,
        channels: channels?,
        ping: ping?,
        pair: pair?,
        policy,
        digest,
    })
}

fn keeps(bus: &crate::bus::Config) -> bool {
    bus.mode == DeliveryMode::JetStream
}

/// This hub's name in a pair; `can_be` says whether there is a bucket that both can share.
#[expect(clippy::option_option, reason = "unset and invalid are different outcomes")]
fn pair(env: &mut Env<'_>, can_be: bool) -> Option<Option<HubName>> {
    if !env.is_set(HUB_PAIR) {
        return Some(None);
    }
    let text = env.text(HUB_PAIR)?;
    let name = HubName::parse(&text).map_err(|err| format!("{}: {err}", shown(&text)));
    let name = name.and_then(|name| {
        let without = "two hubs share their alerts over NATS: it needs NATS_URL, and JetStream";
        if can_be { Ok(name) } else { Err(without.to_owned()) }
    });
    env.keep(HUB_PAIR, name).map(Some)
}

#[expect(clippy::option_option, reason = "unset and invalid are different outcomes")]
fn ping(env: &mut Env<'_>) -> Option<Option<crate::http::Url>> {
    if !env.is_set(HUB_PING_URL) {
        return Some(None);
    }
    let url = env.secret(HUB_PING_URL)?;
    let what = |_| "it is not an http:// or https:// URL".to_owned();
    env.keep(HUB_PING_URL, crate::http::url(url.expose()).map_err(what)).map(Some)
}
