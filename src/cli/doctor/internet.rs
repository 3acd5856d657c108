//! The check of the network `internet`: whether jobs could have it here.

use super::{Finding, hasty, unset};
use crate::config::Parts;
use crate::container::docker::{Docker, Internet};
use crate::node::admission::Reach;

/// Makes a network as a job's with `internet` is made, if jobs may ask for one.
pub(super) async fn internet(parts: &Parts) -> Finding {
    let (Some(config), Some(settings)) = (&parts.docker, &parts.settings) else { return unset() };
    let allowed = settings.network;
    if allowed < Reach::Internet {
        return Finding::ok("JOB_NETWORK=none: not needed");
    }
    let tried = match Docker::connect(&hasty(config)) {
        Ok(docker) => docker.try_internet().await,
        Err(err) => Err(err),
    };
    let found = match tried {
        Ok(Internet::Offered { v6: true }) => {
            Finding::ok("jobs reach public addresses over IPv4 and IPv6, and none of this host's")
        }
        Ok(Internet::Offered { v6: false }) => Finding::ok(
            "jobs reach public addresses, and none of this host's; over IPv4 alone, since the engine's default \
             bridge has no IPv6 (`ipv6` in /etc/docker/daemon.json)",
        ),
        Ok(Internet::OtherRuntime(why)) => Finding::warn(why, ANOTHER),
        Err(err) => Finding::failed(err, MEND),
    };
    // Jobs without a network run all the same.
    Finding { status: found.status.min(super::Grade::Warn), ..found }
}

const ANOTHER: &str = "name one of them in JOB_RUNTIME, or set JOB_NETWORK=none; until then a job that asks for \
                       `internet` fails as this node's fault";

const MEND: &str = "load nf_tables (`modprobe nf_tables`), keep the engine's default bridge and its iptables \
                    setting, see the line docker; or set JOB_NETWORK=none: until then a job that asks for `internet` \
                    fails as this node's fault";
