//! Networks of containers: what the engine is told about a holder, and which addresses `internet` refuses. Pure.
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

/// Label of a holder: the network that it holds.
pub(in crate::container) const LABEL_HOLDER: &str = "lamda.network";

/// Memory of a holder in bytes. It needs 1 MiB; the engine's runtime, which starts it, some 12.
const MEMORY: i64 = 32 << 20;
/// Processes and threads of a holder. It is one; the engine's runtime has up to a dozen for a moment.
const PIDS: i64 = 32;

/// Most addresses of the host that are refused one by one; a host has some dozens.
pub(in crate::container) const ADDRESSES_MAX: usize = 1024;

/// What is not a public address, with what would answer there. In IPv6 everything outside `2000::/3`, the part
/// that is assigned to the internet.
const REFUSED: [&str; 18] = [
    "0.0.0.0/8",        // this host
    "10.0.0.0/8",       // private
    "100.64.0.0/10",    // a provider's own; metadata at Alibaba
    "127.0.0.0/8",      // loopback
    "168.63.129.16/32", // metadata at Azure
    "169.254.0.0/16",   // link-local; metadata at most others
    "172.16.0.0/12",    // private; the engine's bridges
    "192.0.0.0/24",     // protocols; metadata at Oracle
    "192.88.99.0/24",   // 6to4 relays
    "192.168.0.0/16",   // private
    "198.18.0.0/15",    // benchmarks
    "224.0.0.0/4",      // multicast
    "240.0.0.0/4",      // reserved, broadcast
    "::/3",             // loopback, IPv4 in IPv6, NAT64
    "2001::/32",        // Teredo
    "2002::/16",        // 6to4
    "4000::/2",         // reserved
    "8000::/1",         // private, link-local, multicast; metadata at Amazon
];

/// A holder's container.
#[derive(Debug, Clone, Copy)]
pub(in crate::container) struct Holder<'a> {
    pub(in crate::container) node: Address,
    /// The tool image's id.
    pub(in crate::container) image: &'a str,
    pub(in crate::container) network: Network,
    /// The addresses of the engine's host.
    pub(in crate::container) host: &'a [IpAddr],
    /// The resolvers that containers with the network `internet` ask.
    pub(in crate::container) resolvers: &'a [IpAddr],
}

/// Whether `internet` reaches this address, on any host but this one.
pub fn is_public(address: IpAddr) -> bool {
    !REFUSED.iter().any(|prefix| contains(prefix, address))
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
        command.extend(REFUSED.map(str::to_owned));
        // The others are refused already.
        let own = holder.host.iter().filter(|address| is_public(**address));
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

/// Whether the address lies in this prefix. IPv4 in IPv6 counts as IPv6.
fn contains(prefix: &str, address: IpAddr) -> bool {
    let Some((first, bits)) = prefix.split_once('/') else { return false };
    let (Ok(first), Ok(bits)) = (first.parse::<IpAddr>(), bits.parse::<u32>()) else {
        return false;
    };
    match (first, address) {
        (IpAddr::V4(first), IpAddr::V4(address)) => {
            (first.to_bits() ^ address.to_bits()).leading_zeros() >= bits
        }
        (IpAddr::V6(first), IpAddr::V6(address)) => {
            (first.to_bits() ^ address.to_bits()).leading_zeros() >= bits
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(network: Network) -> serde_json::Value {
        let host = ["192.0.2.7", "10.0.0.7", "127.0.0.1", "2001:db8::7", "fe80::7", "::1"];
        let host = host.map(|address| address.parse().unwrap());
        let resolvers = ["1.1.1.1".parse().unwrap()];
        let node = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed".parse().unwrap();
        let holder =
            Holder { node, image: "sha256:1d", network, host: &host, resolvers: &resolvers };
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
                "RestartPolicy": {"Name": "no"}, "AutoRemove": false,
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
        // The host's private addresses lie in refused prefixes.
        assert_eq!(command[2..], [&REFUSED[..], &["192.0.2.7", "2001:db8::7"]].concat());
    }

    #[test]
    fn an_address_is_public_or_it_is_not() {
        for address in
            ["8.8.8.8", "100.63.0.1", "172.15.9.9", "172.32.0.1", "2001:db8::1", "2606::1"]
        {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "0.0.0.0",
            "10.255.0.1",
            "100.100.100.200",
            "127.0.0.53",
            "168.63.129.16",
            "169.254.169.254",
            "172.17.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.168.1.1",
            "198.19.0.1",
            "224.0.0.251",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "::ffff:8.8.8.8",
            "64:ff9b::a00:1",
            "2001:0:1::1",
            "2002:a00:1::1",
            "fd00:ec2::254",
            "fe80::1",
            "ff02::fb",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
    }
}
