//! Networks made ahead, and the network `internet`.

use std::collections::HashMap;
use std::pin::Pin;
use std::process::Command;
use std::time::Duration;

use bollard::models::ContainerSummary;
use bollard::query_parameters::{
    ListContainersOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder,
};
use futures_util::TryStreamExt as _;
use lamda_node::container::docker::{Config, Docker};
use lamda_node::container::{
    ContainerId, ContainerRuntime as _, ContainerSpec, Error, Limits, Network, Sandbox, User,
};
use tokio::time::timeout;

use super::{Bench, Ending, node, run, watch};
use crate::support::engine::Engine;
use crate::support::tools::tool;

const PATIENCE: Duration = Duration::from_mins(1);

/// Ids and networks of the holders that run.
async fn holders(bench: &Bench) -> Vec<(String, String)> {
    let filters = HashMap::from([("label", vec!["lamda.network"])]);
    let options = ListContainersOptionsBuilder::default().filters(&filters).build();
    let listed = bench.engine.client().list_containers(Some(options)).await.expect("a list");
    // One that is being made has not got its name yet.
    let is_made = |names: &Vec<String>| names.iter().all(|name| !name.ends_with("-new"));
    let made = listed.into_iter().filter(|one| one.names.as_ref().is_some_and(is_made));
    let network = |one: &ContainerSummary| one.labels.as_ref()?.get("lamda.network").cloned();
    made.filter_map(|one| Some((one.id.clone()?, network(&one)?))).collect()
}

/// Waits until `count` holders run, none of which was `used`; returns their ids.
async fn until_there_are(bench: &Bench, count: usize, used: &[String]) -> Vec<String> {
    let wait = async {
        loop {
            let there: Vec<String> = holders(bench).await.into_iter().map(|(id, _)| id).collect();
            if there.len() == count && !there.iter().any(|id| used.contains(id)) {
                return there;
            }
        }
    };
    timeout(PATIENCE, wait).await.expect("that many holders")
}

/// The holder that this container joins.
async fn holder_of(bench: &Bench, id: &ContainerId) -> String {
    let inspected =
        bench.engine.client().inspect_container(&id.0, None).await.expect("a container");
    let mode = inspected.host_config.and_then(|host| host.network_mode).expect("a network");
    mode.strip_prefix("container:").expect("it joins one").to_owned()
}

/// Runs `test` while the adapter keeps `spare` holders for each of these networks.
fn beside<'a>(
    bench: &'a Bench,
    networks: &'a [Network],
    spare: usize,
    test: impl Future<Output = ()> + 'a,
) -> Pin<Box<dyn Future<Output = ()> + 'a>> {
    Box::pin(async move {
        tokio::select! {
            () = bench.docker.keep_networks(node(), networks, spare) => panic!("it went away"),
            () = test => {}
        }
    })
}

/// What is in the network namespace.
const LOOK: &str = "ls /sys/class/net; hostname | wc -c; grep -c localhost /etc/hosts";

#[tokio::test]
async fn a_network_made_ahead_is_one_jobs_alone_and_goes_with_it() {
    let bench = Bench::start().await;
    beside(&bench, &[Network::None], 2, async {
        let ahead = until_there_are(&bench, 2, &[]).await;
        let (mut seen, mut used) = (Vec::new(), Vec::new());
        for number in 1..=3 {
            // Each leaves a trace, and counts those of others.
            let script = format!(
                "nc -l -p 800{number} -s 127.0.0.1 & nc -l local:/trace{number} & {LOOK}; \
                 cat /proc/net/unix /proc/net/tcp | grep -e trace -e :1F4 | \
                 grep -vc -e trace{number} -e :1F4{number}; true"
            );
            let (id, ending) = bench.finish(&bench.shell(&script)).await;
            assert_eq!(ending.exit.code, 0, "{ending:?}");
            let holder = holder_of(&bench, &id).await;
            bench.docker.remove(&id).await.unwrap();
            used.push(holder.clone());
            seen.push((holder, ending.stdout));
            // Used, removed and replaced.
            until_there_are(&bench, 2, &used).await;
        }
        assert!(ahead.contains(&seen[0].0), "{ahead:?} {seen:?}");
        for (holder, told) in &seen {
            let lines: Vec<&str> = told.lines().collect();
            assert_eq!((lines.len(), lines.first()), (4, Some(&"lo")), "{told}");
            assert!(lines[1].parse::<u32>().unwrap() > 1, "a hostname: {told}");
            assert_ne!(lines[2], "0", "{told}");
            assert_eq!(lines[3], "0", "a trace of another job: {told}");
            assert!(seen.iter().filter(|(other, _)| other == holder).count() == 1, "{seen:?}");
        }
        // A job that comes when none is ready has one of its own.
        let mut cold = bench.shell(LOOK);
        cold.network = Network::None;
        let other = bench.engine.docker();
        let id = run(&other, &cold).await.unwrap().id;
        assert_eq!(watch(&other, &id).await.unwrap().stdout.lines().next(), Some("lo"));
    })
    .await;
    bench.docker.drop_networks().await;
    assert_eq!(holders(&bench).await, []);
}

#[tokio::test]
async fn a_holder_that_dies_before_the_start_runs_again_and_the_job_does_not_notice() {
    let bench = Bench::start().await;
    beside(&bench, &[Network::None], 1, async {
        let used = until_there_are(&bench, 1, &[]).await;
        let id = bench.docker.create(&bench.shell(LOOK)).await.unwrap();
        let client = bench.engine.client();
        client.kill_container(&used[0], None).await.unwrap();
        assert!(bench.docker.start(&id).await.unwrap().started_now);
        let ending = watch(&bench.docker, &id).await.unwrap();
        assert_eq!((ending.exit.code, ending.stdout.lines().next()), (0, Some("lo")));
        bench.docker.remove(&id).await.unwrap();
        // Where somebody has removed it, the container is one that is lost: the next attempt has another.
        until_there_are(&bench, 1, &used).await;
        let spec = bench.shell(LOOK);
        let id = bench.docker.create(&spec).await.unwrap();
        let force = RemoveContainerOptionsBuilder::default().force(true).build();
        let holder = holder_of(&bench, &id).await;
        client.remove_container(&holder, Some(force)).await.unwrap();
        assert!(matches!(bench.docker.start(&id).await, Err(Error::Gone(_))));
        let (_, ending) = bench.finish(&spec).await;
        assert_eq!(ending.exit.code, 0, "{ending:?}");
    })
    .await;
}

#[tokio::test]
async fn what_a_killed_node_held_is_removed_at_the_next_start_unless_a_job_needs_it() {
    let bench = Bench::start().await;
    let mut created = None;
    beside(&bench, &[Network::None], 2, async {
        until_there_are(&bench, 2, &[]).await;
        created = Some(bench.docker.create(&bench.shell(LOOK)).await.unwrap());
    })
    .await;
    let created = created.unwrap();
    // The agent, which removes what it does not know, never sees them.
    assert_eq!(bench.docker.list(node()).await.unwrap().len(), 1);
    let next = Bench { docker: bench.engine.docker(), ..bench };
    beside(&next, &[Network::None], 0, async {
        until_there_are(&next, 1, &[]).await;
        assert!(next.docker.start(&created).await.unwrap().started_now);
        assert_eq!(watch(&next.docker, &created).await.unwrap().exit.code, 0);
        next.docker.remove(&created).await.unwrap();
        until_there_are(&next, 0, &[]).await;
    })
    .await;
}

/// A world around the engine's host, in namespaces of the test alone: a neighbour in the host's public network with
/// a public host behind it, a LAN with a metadata service, public and private addresses of the host's own, a block of
/// public addresses that it answers to, and another container on the bridge. Each serves its name at port 8080.
const WORLD: &str = "set -e; mount -t tmpfs tmpfs /run; mkdir -p /run/www
    sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
    serve() { mkdir -p /run/www/$2; echo $2 > /run/www/$2/index.html
        ip netns exec $1 BUSYBOX httpd -p 8080 -h /run/www/$2; }
    link() { ip netns add $1; ip -n $1 link set lo up; ip link add $1 type veth peer name eth0 netns $1
        ip link set $1 up; ip -n $1 link set eth0 up
        ip addr add $3 dev $1; ip -n $1 addr add $2 dev eth0
        ip -n $1 route add default via ${3%/*}; }
    link public 45.0.2.2/24 45.0.2.1/24; link lan 192.168.77.2/24 192.168.77.1/24
    ip -6 addr add 2a00:f::1/64 dev public nodad
    ip -n public -6 addr add 2a00:f::2/64 dev eth0 nodad
    ip -n public -6 route add default via 2a00:f::1
    ip -n public addr add 45.0.7.7/32 dev eth0; ip route add 45.0.7.0/24 via 45.0.2.2
    ip -n public -6 addr add 2a00:7::7/128 dev eth0 nodad; ip -6 route add 2a00:7::/64 via 2a00:f::2
    ip route add local 45.0.9.0/24 dev lo; ip -6 route add local 2a00:9::/64 dev lo
    ip -6 addr add fd77::1/64 dev lan nodad; ip -n lan -6 addr add fd77::2/64 dev eth0 nodad
    ip -n lan -6 route add default via fd77::1
    for it in 10.9.9.9 100.64.9.9 198.18.9.9 169.254.169.254 168.63.129.16
    do ip -n lan addr add $it/32 dev eth0; ip route add $it via 192.168.77.2; done
    ip -n lan -6 addr add 64:ff9b::1/128 dev eth0 nodad; ip -6 route add 64:ff9b::/96 via fd77::2
    serve public public; serve lan lan; mkdir -p /run/www/host; echo host > /run/www/host/index.html
    BUSYBOX httpd -p 8080 -h /run/www/host";

/// Addresses that must not answer; `$BRIDGE` and `$OTHER` are those of the bridge and the other container.
const CLOSED: &str = "192.168.77.2 10.9.9.9 100.64.9.9 198.18.9.9 169.254.169.254 168.63.129.16 192.168.77.1 \
    45.0.2.1 45.0.2.2 45.0.9.9 $BRIDGE $OTHER 2a00:f::1 2a00:f::2 2a00:9::9 fd77::1 fd77::2 64:ff9b::1 ::ffff:192.168.77.2 \
    2a00:b::1 fe80::1%eth0";

/// Binds to the interface, by which the kernel takes any address to be on the link; then lets the job end.
const BOUND: &str = r#"
import socket, sys, time
for to in sys.argv[1:]:
    v6 = ":" in to
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        one = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, kind)
        one.settimeout(1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0\0")
        one.setsockopt(socket.SOL_SOCKET, socket.SO_DONTROUTE, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        try:
            one.connect((to, 8080)); one.send(b"x"); print("open", to, kind)
        except OSError:
            pass
for _ in range(300):
    try:
        socket.create_connection(("127.0.0.1", 9999)).close()
        break
    except OSError:
        time.sleep(0.1)
else:
    print("the job does not wait")
"#;

fn on_host(engine: &Engine, script: &str) -> String {
    let out = engine.on_host(script).output().expect("nsenter runs");
    assert!(out.status.success(), "{script}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("text")
}

/// The host's own rules, routes and interfaces, less the addresses that come and go with containers.
const OF_THE_HOST: &str = "iptables-save | grep -v '^#'; ip6tables-save | grep -v '^#'; ip rule; ip -6 rule; \
    ip route show table all | sort; ip -br link | grep -v ^veth | awk '{print $1}'";

async fn open_world() -> (Bench, String, String) {
    let options = &["--ipv6", "--fixed-cidr-v6=2a00:b::/64"];
    let bench = Bench::on(Engine::start_with(options)).await;
    on_host(
        &bench.engine,
        &WORLD.replace("BUSYBOX", tool("busybox").to_str().expect("a path in UTF-8")),
    );
    let serve = "mkdir /w; echo other > /w/index.html; httpd -p 8080 -h /w; ip -4 -o addr show eth0 | \
        awk '{print $4}' | cut -d/ -f1; route -n | awk '/^0.0.0.0/ {print $2}'; sleep 600";
    let other = ContainerSpec { network: Network::Bridge, ..bench.shell(serve) };
    let other = run(&bench.docker, &other).await.expect("it runs").id;
    let options = LogsOptionsBuilder::default().follow(true).stdout(true).build();
    let client = bench.engine.client();
    let mut log = client.logs(&other.0, Some(options));
    let mut told = String::new();
    while told.lines().count() < 2 {
        told.push_str(
            &log.try_next().await.expect("its log").expect("it says its address").to_string(),
        );
    }
    let mut lines = told.lines().map(str::to_owned);
    let mut line = || lines.next().expect("two lines");
    let (address, gateway) = (line(), line());
    (bench, address, gateway)
}

/// A shell script that names each address that answers.
fn ask(addresses: &str) -> String {
    format!(
        "for it in {addresses}; do (said=$(printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 3 $it 8080 | tail -n 1)
            [ -z \"$said\" ] || echo open $it $said) & done; wait"
    )
}

/// A job that may ask all addresses at once.
fn roomy(bench: &Bench, script: &str) -> ContainerSpec {
    let spec = bench.shell(script);
    ContainerSpec { limits: Limits { pids: 256, ..spec.limits }, ..spec }
}

fn opened(ending: &Ending) -> Vec<&str> {
    let mut lines: Vec<&str> =
        ending.stdout.lines().filter(|line| line.starts_with("open ")).collect();
    lines.sort_unstable();
    lines
}

#[tokio::test]
async fn a_job_with_the_internet_reaches_public_addresses_and_nothing_of_the_owners() {
    let (bench, other, bridge) = open_world().await;
    let closed = CLOSED.replace("$BRIDGE", &bridge).replace("$OTHER", &other);
    let public = "45.0.7.7 2a00:7::7";

    // Without the rules, everything is there to be found.
    let all = ask(&format!("{public} {closed}"));
    let open = ContainerSpec { network: Network::Bridge, ..roomy(&bench, &all) };
    let (_, ending) = bench.finish(&open).await;
    let count = opened(&ending).len();
    assert!(count >= 18, "the world is not what the test takes it for: {ending:?}");

    let before = on_host(&bench.engine, OF_THE_HOST);
    let tried = format!(
        "{all}; cat /etc/resolv.conf; grep ^Cap /proc/self/status
        ip link set eth0 down || echo closed; ip route add 10.0.0.0/8 dev eth0 || echo closed
        echo held; nc -l -p 9999"
    );
    let job = ContainerSpec { network: Network::Internet, ..roomy(&bench, &tried) };
    let id = run(&bench.docker, &job).await.unwrap().id;
    // As root in the job's namespace, which is more than the job is, and after the host's rules are gone.
    let pid = bench.engine.client().inspect_container(&id.0, None).await.expect("a container");
    let pid = pid.state.unwrap().pid.unwrap();
    on_host(&bench.engine, "iptables -F; ip6tables -F");
    let bound = bench.engine.on_host(&format!(
        "nsenter --net --target {pid} {} -c '{BOUND}' {closed} 224.0.0.251 255.255.255.255 ff02::fb 10.1.2.3",
        tool("python3").display()
    ));
    assert_eq!(output(bound), "");
    let ending = watch(&bench.docker, &id).await.unwrap();
    assert_eq!(opened(&ending), ["open 2a00:7::7 public", "open 45.0.7.7 public"], "{ending:?}");
    for line in ["nameserver 1.1.1.1", "nameserver 9.9.9.9", "closed", "held"] {
        assert!(ending.stdout.lines().any(|told| told == line), "{line}: {ending:?}");
    }
    assert!(!ending.stdout.contains("nameserver 1.1.1.1\nnameserver 192"), "{ending:?}");
    bench.docker.remove(&id).await.unwrap();

    // A strict one is as closed, and nothing of either is left.
    let strict = ContainerSpec {
        network: Network::Internet,
        sandbox: Sandbox::Strict(User::NOBODY),
        ..roomy(&bench, &all)
    };
    let (id, ending) = bench.finish(&strict).await;
    assert_eq!(opened(&ending).len(), 2, "{ending:?}");
    bench.docker.remove(&id).await.unwrap();
    beside(&bench, &[], 0, async {
        until_there_are(&bench, 0, &[]).await;
    })
    .await;
    assert_eq!(on_host(&bench.engine, OF_THE_HOST), before);
}

fn output(mut command: Command) -> String {
    let out = command.output().expect("it runs");
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

#[tokio::test]
async fn the_network_of_internet_is_there_only_with_its_rules() {
    let bench = Bench::start().await;
    let docker =
        Docker::connect(&Config { call_timeout: PATIENCE, ..bench.engine.config() }).unwrap();
    beside(&bench, &[Network::None, Network::Internet], 1, async {
        until_there_are(&bench, 2, &[]).await;
        let there = holders(&bench).await;
        let mut kinds: Vec<_> = there.iter().map(|(_, network)| network.as_str()).collect();
        kinds.sort_unstable();
        assert_eq!(kinds, ["internet", "none"]);
        let spec = ContainerSpec { network: Network::Internet, ..bench.shell("ls /sys/class/net") };
        // One that has died is not lent.
        let fenced = there.iter().find(|(_, network)| network == "internet").unwrap();
        bench.engine.client().kill_container(&fenced.0, None).await.unwrap();
        let (id, ending) = bench.finish(&spec).await;
        assert!(ending.stdout.contains("eth0"), "{ending:?}");
        assert_ne!(holder_of(&bench, &id).await, fenced.0);
    })
    .await;
    // None is ready for an adapter that keeps none: it makes one.
    let spec = ContainerSpec { network: Network::Internet, ..bench.shell("ls /sys/class/net") };
    let id = run(&docker, &spec).await.unwrap().id;
    assert!(watch(&docker, &id).await.unwrap().stdout.contains("eth0"));
}

#[tokio::test]
async fn a_runtime_with_a_network_stack_of_its_own_gets_no_internet() {
    let bench = Bench::start().await;
    let runtime = Some("runsc".to_owned());
    let config = Config { runtime, ..bench.engine.config() };
    let docker = Docker::connect(&config).unwrap();
    let spec = ContainerSpec { network: Network::Internet, ..bench.shell("true") };
    let told = docker.create(&spec).await.unwrap_err().to_string();
    for word in ["JOB_NETWORK=internet", "JOB_RUNTIME is runsc"] {
        assert!(told.contains(word), "{told}");
    }
}
