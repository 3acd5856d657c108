//! How fast the sidecar reads a log: lines are cleaned and scrubbed, become records, and get their meaning. And what it
//! costs to sample what programs use.
//!
//! `cargo bench --bench sidecar -- --programs N [--rounds N]` starts so many programs of ten processes each, samples them
//! as the sidecar does, without GPUs, and prints the processor time of a round and of writing a minute down.
//!
//! `cargo bench --bench sidecar [-- --megabytes N | --lines N]` prints JSON. It makes up the log of a swarm's node in
//! memory and runs three things over it on one thread: counting its lines (the least that anything costs),
//! scrubbing, and all of it. Times are those of the thread itself. docs/performance.md has the figures.

#![expect(clippy::print_stdout, reason = "the figures go to stdout")]

#[path = "sidecar/sampling.rs"]
mod sampling;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Duration;

use lamda_node::clock::Timestamp;
use lamda_node::watch::grammar::{Assembler, Local};
use lamda_node::watch::line::Line;
use lamda_node::watch::profile::{FilledLog, Shelf};
use lamda_node::watch::scrub::scrub;

/// What such a log holds: nearly only DEBUG lines of libraries, progress, and tracebacks.
const CHATTER: [&str; 9] = [
    "[2025-08-05 02:04:{s},237][urllib3.connectionpool][DEBUG] - https://gensyn-testnet.example:443 \"POST /public HTTP/1.1\" 200 None",
    "[2025-08-05 02:04:{s},301][web3.providers.HTTPProvider][DEBUG] - Making request HTTP. URI: https://gensyn-testnet.example/public, Method: eth_call",
    "[2025-08-05 02:04:{s},500][asyncio][DEBUG] - Using selector: EpollSelector",
    "[2025-08-05 02:04:{s},613][filelock][DEBUG] - Attempting to acquire lock 139923875226320 on /home/bob/.cache/huggingface/hub/.locks/x.lock",
    "[2025-08-05 02:04:{s},614][genrl.trainer.grpo_trainer][INFO] - step {n} loss 0.6931471805599453 reward 1.25 kl 0.0123 tokens 4096 in 12.5 s",
    "Map: 100%|##########| 1000/1000 [00:01<00:00, 812.3 examples/s]\rMap: 100%|##########| 1000/1000 [00:01<00:00, 840.1 examples/s]",
    "[2025-08-05 02:04:{s},700][hivemind.p2p][DEBUG] - peer /ip4/198.51.100.7/tcp/30011/p2p/QmQ2gEXoPJg6iMBSUFWGzAabS2VhnzuS782Y637hGjfsRJ answered",
    "  File \"/home/bob/rl-swarm/.venv/lib/python3.12/site-packages/genrl/game.py\", line 214, in run_game",
    "    return self.forward(inputs, attention_mask=attention_mask, position_ids=position_ids)",
];

/// The lines that mean something: one in twenty-eight.
const SAID: [&str; 3] = [
    "[2025-08-05 02:04:{s},402][genrl.logging_utils.global_defs][INFO] - Starting round: {n}/1000000.",
    "[2025-08-05 02:04:{s},403][genrl.logging_utils.global_defs][INFO] - 🐝 Joining round: {n}",
    "[2025-08-05 02:04:{s},900][genrl.logging_utils.global_defs][INFO] - Already finished round: {n}. Next check in 160.0s.",
];

fn main() {
    let Arguments { megabytes, lines, programs, rounds } = arguments();
    if programs > 0 {
        return sampling::run(programs, rounds);
    }
    let text = log(megabytes * 1_000_000);
    let log = swarm();
    // The first run of each warms its caches.
    let (count, scrubbed, all) = (0..2).fold((0.0, 0.0, 0.0), |_, _| {
        let count =
            rate(text.len(), || black_box(memchr::memchr_iter(b'\n', text.as_bytes()).count()));
        let scrubbed =
            rate(text.len(), || text.lines().map(|line| black_box(scrub(line)).len()).sum());
        (count, scrubbed, rate(text.len(), || meanings(&text, &log)))
    });
    println!(
        "{{\"megabytes\":{megabytes},\"meanings\":{},\"count_lines_mb_per_s\":{count:.0},\
         \"scrub_mb_per_s\":{scrubbed:.0},\"scrub_and_classify_mb_per_s\":{all:.0},\
         \"times_the_count\":{:.1}}}",
        meanings(&text.lines().take(lines).collect::<Vec<_>>().join("\n"), &log),
        count / all,
    );
}

struct Arguments {
    megabytes: usize,
    lines: usize,
    programs: usize,
    rounds: usize,
}

fn arguments() -> Arguments {
    let (mut megabytes, mut lines, mut programs, mut rounds) = (64, 8_400, 0, 100);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|it| it.parse().ok()).expect("a number");
        match word.as_str() {
            "--megabytes" => megabytes = number(),
            "--lines" => lines = number(),
            "--programs" => programs = number(),
            "--rounds" => rounds = number(),
            // cargo's own.
            _ => {}
        }
    }
    Arguments { megabytes, lines, programs, rounds }
}

/// A log of about so many bytes.
fn log(bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 1_000);
    let mut number = 0_u32;
    while text.len() < bytes {
        for line in CHATTER.iter().cycle().take(81).chain(&SAID) {
            let seconds = format!("{:02}", number / 10 % 60);
            text.push_str(&line.replace("{s}", &seconds).replace("{n}", &number.to_string()));
            text.push('\n');
        }
        number += 1;
    }
    text
}

/// The swarm's log of the shipped profile.
fn swarm() -> FilledLog {
    let values =
        [("home", "/h"), ("name", "a")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let profile = Shelf::default().get("rl-swarm-hydra").expect("a good profile");
    let filled = profile.fill(&BTreeMap::from(values)).expect("good values");
    filled.logs.into_iter().find(|log| log.name == "swarm").expect("it has this log")
}

/// Reads a log as the sidecar does, and counts what meant something.
fn meanings(text: &str, log: &FilledLog) -> usize {
    let mut assembler = Assembler::new(log.grammar.clone(), &Local::utc());
    let now = Timestamp::from_unix_ms(0);
    let mut found = 0;
    for line in text.as_bytes().split(|byte| *byte == b'\n') {
        let record = assembler.take(&Line::read(line), (), now);
        found += usize::from(record.is_some_and(|(it, ())| log.classifier.meaning(&it).is_some()));
    }
    found
}

/// Megabytes a second of one core: what the thread itself ran, whatever else the host does.
fn rate(bytes: usize, run: impl FnOnce() -> usize) -> f64 {
    let begun = ran();
    black_box(run());
    let megabytes = u32::try_from(bytes / 1_000).map_or(f64::NAN, f64::from) / 1_000.0;
    megabytes / ran().saturating_sub(begun).as_secs_f64()
}

/// How long this thread has run.
fn ran() -> Duration {
    let since = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(since).unwrap_or_default()
}
