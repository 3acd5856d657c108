//! The NATS check: does what the node does before it takes a job.

use super::gpu::cards;
use super::{Finding, unset};
use crate::bus::{self, Bus, DeliveryMode, Expiry, Shortcoming, Target};
use crate::clock::{Clock as _, SystemClock};
use crate::config::Parts;
use crate::node::pools;

/// The subjects that this node takes jobs from, as far as the settings tell.
async fn sources(parts: &Parts) -> Vec<Target> {
    let listed = parts.settings.as_ref().map_or(&[][..], |settings| &settings.pools);
    // Only pools named after the hardware need the driver's answer.
    let gpus = if listed.iter().any(|name| name == pools::AUTO) {
        cards(parts).await.map(|cards| cards.gpus).unwrap_or_default()
    } else {
        Vec::new()
    };
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
            let credentials = &config.credentials;
            let expiry = credentials.expiry();
            served(&server, &lacks, expiry, credentials.warning(SystemClock.now()))
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

/// The finding for a server with `JetStream`: lists every shortcoming, not only the first.
fn served(
    server: &str,
    lacks: &[Shortcoming],
    expiry: Option<Expiry>,
    warning: Option<String>,
) -> Finding {
    let mut details = vec![format!("{server} with JetStream")];
    if let Some(Expiry { at }) = expiry.filter(|_| warning.is_none()) {
        details.push(format!("the credentials are good until {at}"));
    }
    details.extend(lacks.iter().map(|lack| lack.what.clone()));
    let detail = details.join("; ");
    let remedies: Vec<&str> = lacks.iter().map(|lack| lack.remedy.as_str()).collect();
    let asks = (!remedies.is_empty())
        .then(|| format!("ask whoever runs the NATS server: {}", remedies.join("; ")));
    let remedies: Vec<String> = warning.into_iter().chain(asks).collect();
    if remedies.is_empty() {
        Finding::ok(detail)
    } else {
        Finding::warn(detail, remedies.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Grade;
    use super::*;

    #[test]
    fn what_is_amiss_is_told_all_together() {
        let lack = Shortcoming { what: "it is paused".into(), remedy: "resume it".into() };
        let expiry = Some(Expiry { at: "2030-01-02T03:04:05.000Z".parse().unwrap() });
        for (lacks, warning, detail, remedy) in [
            (&[][..], None, "n with JetStream; the credentials are good until 2030-", None),
            (&[], Some("replace them"), "n with JetStream", Some("replace them")),
            (
                std::slice::from_ref(&lack),
                Some("replace them"),
                "n with JetStream; it is paused",
                Some("replace them; ask whoever runs the NATS server: resume it"),
            ),
            (
                std::slice::from_ref(&lack),
                None,
                "; it is paused",
                Some("ask whoever runs the NATS server: resume it"),
            ),
        ] {
            let told = served("n", lacks, expiry, warning.map(str::to_owned));
            assert!(told.detail.contains(detail), "{}", told.detail);
            assert_eq!(told.remedy.as_deref(), remedy);
            assert_eq!(matches!(told.status, Grade::Ok), remedy.is_none());
        }
    }
}
