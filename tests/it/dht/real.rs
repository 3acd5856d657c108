//! Real nodes of Hivemind, which scripts/test installs for its long run. Only `long` calls this.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lamda_node::clock::{Clock as _, SystemClock};
use lamda_node::dht::{Bootnode, Config, Sought, Witness};

use super::recorded::keys;
use crate::support::tools::{Running, eventually};

/// Nodes of tests/dht/node.py, with what they stored.
struct Swarm {
    nodes: Running,
    told: serde_json::Value,
}

impl Swarm {
    fn start(nodes: usize, publishers: usize) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = root.join(".tools/hv/bin/python");
        assert!(python.is_file(), "hivemind is missing: scripts/test --long installs it");
        let mut command = Command::new(python);
        command.arg(root.join("tests/dht/node.py"));
        command.args([nodes, publishers].map(|number| number.to_string()));
        let mut nodes = Running::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let mut told = String::new();
        let output = nodes.0.stdout.take().expect("its output is piped");
        BufReader::new(output).read_line(&mut told).expect("it can be read");
        let told = serde_json::from_str(&told).expect("it tells what it stored");
        Self { nodes, told }
    }

    fn bootnodes(&self) -> Vec<Bootnode> {
        let all = self.told["addresses"].as_array().expect("addresses");
        let parsed = all.iter().map(|address| address.as_str().expect("text").parse());
        parsed.collect::<Result<_, _>>().expect("Hivemind's addresses are read")
    }

    /// The first peer that stored.
    fn peer(&self) -> String {
        self.told["peers"][0].as_str().expect("a peer id").to_owned()
    }

    fn expires_ms(&self) -> f64 {
        self.told["expires"].as_f64().expect("seconds") * 1000.0
    }

    /// Ends all nodes, as nobody else ends their network programs.
    fn stop(mut self) {
        drop(self.nodes.0.stdin.take());
        eventually("the nodes end", Duration::from_mins(1), || {
            self.nodes.0.try_wait().expect("it")
        });
    }
}

/// The most memory that this process ever had resident, in KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("our status");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    peak.trim_end_matches("kB").trim().parse().expect("a number")
}

/// Ten real nodes, asked all and then one: who published under three keys, within 2 s and 8 MiB.
pub(crate) async fn ten_nodes_are_asked() {
    let others = 50;
    let swarm = Swarm::start(10, others);
    let witness = Witness::new(Config::default());
    let bootnodes = swarm.bootnodes();
    let peers = [swarm.peer(), "QmNobody".to_owned()];
    let (before, begun) = (peak_kib(), Instant::now());
    for asked in [&bootnodes[..], &bootnodes[4..5]] {
        let round = witness.round(asked, &keys(), &peers, SystemClock.now()).await;
        for asked in &round.asked {
            let alive = asked.answer.as_ref().expect("it lives");
            assert_eq!(alive.agent.as_deref(), Some("p2pd/0.1"));
        }
        assert!(round.answered >= 5, "{round:?}");
        for sought in &round.sought[..3] {
            let Sought::Found { peers, others: more, is_complete: true } = sought else {
                panic!("{sought:?}");
            };
            assert_eq!(peers.keys().collect::<Vec<_>>(), [&swarm.peer()]);
            #[expect(clippy::cast_precision_loss, reason = "a time of our days")]
            let off = peers[&swarm.peer()].expires.unix_ms() as f64 - swarm.expires_ms();
            assert!(off.abs() <= 1.0, "{off} ms");
            assert_eq!(more.count, others);
        }
        assert!(matches!(round.sought[3], Sought::Absent { asked } if asked >= 5), "{round:?}");
    }
    let (took, grown) = (begun.elapsed(), peak_kib() - before);
    assert!(took < Duration::from_secs(4), "two rounds took {took:?}");
    assert!(grown < 8 * 1024, "{grown} KiB");
    swarm.stop();
    let round = witness.round(&bootnodes, &keys(), &peers, SystemClock.now()).await;
    assert!(round.asked.iter().all(|asked| asked.answer.is_err()), "{round:?}");
    for sought in &round.sought {
        let Sought::Unknown { why } = sought else { panic!("{sought:?}") };
        assert!(why.starts_with("none of 10 bootnodes answered"), "{why}");
    }
}
