//! The check of NATS: what the node itself does there before it takes a job.

use super::Finding;
use super::checks::{cards, unset};
use crate::bus::{self, Bus, DeliveryMode, Expiry, Target};
use crate::clock::{Clock as _, SystemClock};
use crate::config::Parts;
use crate::node::pools;

/// Where this node's jobs come from, as far as its settings say it.
async fn sources(parts: &Parts) -> Vec<Target> {
    let listed = parts.settings.as_ref().map_or(&[][..], |settings| &settings.pools);
    let gpus = cards(parts).await.map(|cards| cards.gpus).unwrap_or_default();
    let pools = pools::served(listed, &gpus).into_iter().filter_map(|pool| pool.parse().ok());
    let own = parts.key.as_ref().and_then(|key| key.address().ok()).map(Target::Agent);
    own.into_iter().chain(pools.map(Target::Pool)).collect()
}

pub(super) async fn nats(parts: &Parts) -> Finding {
    let Some(config) = &parts.bus else { return unset() };
    let sources = sources(parts).await;
    let heard = async {
        let bus = Bus::connect(config).await?;
        let shared = parts.settings.as_ref().is_some_and(|settings| !settings.pools.is_empty());
        let prepared = if shared { bus.prepare_pools().await } else { bus.prepare().await };
        let lacks = bus.shortcomings(&sources).await.unwrap_or_default();
        let (mode, server) = (bus.mode(), bus.server());
        bus.drain().await.ok();
        prepared.map(|()| (mode, server, lacks))
    };
    match heard.await {
        Ok((DeliveryMode::JetStream, server, lacks)) => {
            let server = format!("{server} with JetStream");
            let warning = config.credentials.warning(SystemClock.now());
            let good = match config.credentials.expiry() {
                Some(Expiry { at }) if warning.is_none() => {
                    format!("; the credentials are good until {at}")
                }
                _ => String::new(),
            };
            if lacks.is_empty() {
                return match warning {
                    Some(warning) => Finding::warn(server, warning),
                    None => Finding::ok(server + &good),
                };
            }
            let whats: Vec<&str> = lacks.iter().map(|lack| lack.what.as_str()).collect();
            let remedies: Vec<&str> = lacks.iter().map(|lack| lack.remedy.as_str()).collect();
            let asks = format!("ask whoever runs the NATS server: {}", remedies.join("; "));
            let remedies: Vec<String> = warning.into_iter().chain([asks]).collect();
            Finding::warn(format!("{server}{good}; {}", whats.join("; ")), remedies.join("; "))
        }
        Ok((DeliveryMode::Core, server, _)) => Finding::warn(
            format!("{server} with NATS_MODE=core: jobs that come while the node is away are lost"),
            "start nats-server with `-js`, and set NATS_MODE=jetstream",
        ),
        Err(err) => {
            let remedy = match &err {
                bus::Error::Unauthorized { .. } => "check NATS_CREDS or its like",
                bus::Error::Untrusted { .. } => "set NATS_TLS_CA to the server's authority",
                bus::Error::NoGreeting { .. } => "set NATS_TLS_HANDSHAKE, or NATS_URL",
                bus::Error::File { .. } => {
                    "mend the file that NATS_CREDS, NATS_TLS_CA or its like names"
                }
                bus::Error::NoJetStream { .. } => "start nats-server with `-js`",
                bus::Error::TooOld { .. } => "install nats-server 2.10 or later",
                bus::Error::Stream { .. } => "ask whoever runs the NATS server",
                _ => "start nats-server with --jetstream, or set NATS_URL",
            };
            Finding::failed(err, remedy)
        }
    }
}
