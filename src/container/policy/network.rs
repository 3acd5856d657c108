//! Networks of containers: what the engine is told about a holder, and what `internet` refuses. Pure.
//!
//! A holder is a container of the tool image whose network namespace one job's container joins
//! (docs/adr/0033-warm-networks.md). Must hold: a holder has no file of the host's and no right but, for
//! `internet`, that over its own network; the job's container, which joins it, has not even that.

use std::collections::HashMap;
use std::net::IpAddr;

use bollard::models::{ContainerCreateBody, HostConfig, RestartPolicy, RestartPolicyNameEnum};

use super::super::Network;
use super::{LABEL_NODE, OOM_SCORE_ADJ, log_config};
use crate::ids::Address;
use crate::node::public::{Block, NOT_PUBLIC};

/// Label of a holder: the network that it holds.
pub(in crate::container) const LABEL_HOLDER: &str = "lamda.network";

/// Memory of a holder in bytes. It needs 1 MiB; the engine's runtime, which starts it, some 12.
const MEMORY: i64 = 32 << 20;
/// Processes and threads of a holder. It is one; the engine's runtime has up to a dozen for a moment.
const PIDS: i64 = 32;

/// Most blocks of the host's that are refused; a host has some dozens.
pub(in crate::container) const ADDRESSES_MAX: usize = 1024;

/// A holder's container.
#[derive(Debug, Clone, Copy)]
pub(in crate::container) struct Holder<'a> {
    pub(in crate::container) node: Address,
    /// The tool image's id.
    pub(in crate::container) image: &'a str,
    pub(in crate::container) network: Network,
    /// What the engine's host answers to, and what is on the link with it.
    pub(in crate::container) host: &'a [Block],
    /// The resolvers that containers with the network `internet` ask.
    pub(in crate::container) resolvers: &'a [IpAddr],
    /// The runtime of the jobs' containers: what one runtime makes, another may not be able to join.
    pub(in crate::container) runtime: Option<&'a str>,
}

impl Holder<'_> {
    /// Names of the runtimes whose containers use the kernel's own network. Those of others (gVisor, Kata) bring a
    /// network stack, which knows nothing of the rules in the namespace that they join.
    pub(in crate::container) const SERVED: [&'static str; 4] =
        ["runc", "crun", "nvidia", "io.containerd.runc.v2"];

    /// Whether the containers of this runtime can join holders.
    pub(in crate::container) fn serves(runtime: &str) -> bool {
        Self::SERVED.contains(&runtime)
    }

    /// What the engine is told about the container that reads what is on the host's network.
    pub(in crate::container) fn beside_host() -> HostConfig {
        HostConfig {
            network_mode: Some("host".to_owned()),
            // Where users are remapped, the host's network is that of its users alone.
            userns_mode: Some("host".to_owned()),
            cap_drop: Some(vec!["ALL".to_owned()]),
            readonly_rootfs: Some(true),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            // What it says has to be readable, whatever the engine does with others' output.
            log_config: Some(log_config()),
            ..HostConfig::default()
        }
    }
}

/// The name of a new holder of this node's; `number` tells it from the others. It is for people: containers
/// refer to holders by their ids, since engines put the id in place of a name.
pub(in crate::container) fn holder_name(node: Address, network: Network, number: u64) -> String {
    format!("lamda-{}-{}-{number:016x}", name(network), &node.lower_hex()[2..10])
}

/// The network mode of a container that joins this holder.
pub(in crate::container) fn joined(holder: &str) -> String {
    format!("container:{holder}")
}

/// The holder that a container of this network mode joins.
pub(in crate::container) fn joins(network_mode: &str) -> Option<&str> {
    network_mode.strip_prefix("container:")
}

/// Body of the engine's create call for a holder.
pub(in crate::container) fn holder_body(holder: &Holder<'_>, program: &str) -> ContainerCreateBody {
    let is_open = holder.network == Network::Internet;
    let mut command = vec![program.to_owned()];
    let mut dns = None;
    if is_open {
        command.push("fence".to_owned());
        command.extend(NOT_PUBLIC.map(str::to_owned));
        // The others are refused already.
        let own = holder.host.iter().filter(|block| block.is_public());
        command.extend(own.map(ToString::to_string));
        dns = Some(holder.resolvers.iter().map(ToString::to_string).collect());
    } else {
        command.push("hold".to_owned());
    }
    ContainerCreateBody {
        image: Some(holder.image.to_owned()),
        cmd: Some(command),
        labels: Some(HashMap::from([
            (LABEL_NODE.to_owned(), holder.node.to_string()),
            (LABEL_HOLDER.to_owned(), name(holder.network).to_owned()),
        ])),
        host_config: Some(HostConfig {
            privileged: Some(false),
            cap_drop: Some(vec!["ALL".to_owned()]),
            cap_add: is_open.then(|| vec!["NET_ADMIN".to_owned()]),
            readonly_rootfs: Some(true),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            network_mode: Some(if is_open { "bridge" } else { "none" }.to_owned()),
            publish_all_ports: Some(false),
            dns,
            runtime: holder.runtime.map(str::to_owned),
            memory: Some(MEMORY),
            memory_swap: Some(MEMORY),
            pids_limit: Some(PIDS),
            oom_score_adj: Some(OOM_SCORE_ADJ),
            log_config: Some(log_config()),
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::NO),
                maximum_retry_count: None,
            }),
            auto_remove: Some(false),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

/// A network's name, as jobs and labels have it.
const fn name(network: Network) -> &'static str {
    match network {
        Network::None => "none",
        Network::Internet => "internet",
        Network::Bridge => "bridge",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(network: Network) -> serde_json::Value {
        let host = ["45.0.2.0/24", "10.0.0.7/32", "127.0.0.0/8", "2a00::7/128", "fe80::/64"];
        let host = host.map(|block| block.parse().unwrap());
        let resolvers = ["1.1.1.1".parse().unwrap()];
        let node = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed".parse().unwrap();
        let (image, runtime) = ("sha256:1d", Some("crun"));
        let holder = Holder { node, image, network, host: &host, resolvers: &resolvers, runtime };
        serde_json::to_value(holder_body(&holder, "/program")).unwrap()
    }

    #[test]
    fn every_line_of_a_holder_is_told() {
        let mut body = told(Network::None);
        let host = body.as_object_mut().unwrap().remove("HostConfig").unwrap();
        let node = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";
        assert_eq!(
            body,
            json!({
                "Image": "sha256:1d", "Cmd": ["/program", "hold"],
                "Labels": {"lamda.node": node, "lamda.network": "none"},
            })
        );
        assert_eq!(
            host,
            json!({
                "Privileged": false, "CapDrop": ["ALL"], "ReadonlyRootfs": true,
                "SecurityOpt": ["no-new-privileges"], "NetworkMode": "none", "PublishAllPorts": false,
                "Memory": 33_554_432, "MemorySwap": 33_554_432, "PidsLimit": 32, "OomScoreAdj": 500,
                "LogConfig": {"Type": "json-file", "Config": {"max-size": "256m", "max-file": "2"}},
                "RestartPolicy": {"Name": "no"}, "AutoRemove": false, "Runtime": "crun",
            })
        );
    }

    #[test]
    fn only_the_holder_of_internet_may_change_its_network_and_it_refuses_the_hosts_addresses() {
        let (body, closed) = (told(Network::Internet), told(Network::None));
        let host = &body["HostConfig"];
        assert_eq!(host["CapAdd"], json!(["NET_ADMIN"]));
        assert_eq!((&host["NetworkMode"], &host["Dns"]), (&json!("bridge"), &json!(["1.1.1.1"])));
        for (line, value) in closed["HostConfig"].as_object().unwrap() {
            assert!(line == "NetworkMode" || host[line] == *value, "{line}");
        }
        let command: Vec<&str> =
            body["Cmd"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
        assert_eq!(command[..2], ["/program", "fence"]);
        // The host's private addresses lie in refused blocks.
        assert_eq!(command[2..], [&NOT_PUBLIC[..], &["45.0.2.0/24", "2a00::7/128"]].concat());
    }

    #[test]
    fn a_runtime_with_a_network_stack_of_its_own_joins_no_holder() {
        for (runtime, serves) in [
            ("runc", true),
            ("nvidia", true),
            ("runsc", false),
            ("io.containerd.kata.v2", false),
            ("", false),
        ] {
            assert_eq!(Holder::serves(runtime), serves, "{runtime}");
        }
    }
}
