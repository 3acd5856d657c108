//! What it costs to sample what programs use.

#![expect(clippy::print_stdout, reason = "the figures go to stdout")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use lamda_node::clock::{Clock as _, SystemClock};
use lamda_node::sidecar::Watching;
use lamda_node::sidecar::probe::{Programs, host, usage::Sampler};
use lamda_node::sidecar::program::Program;
use lamda_node::sidecar::store::{Rolled, Store};
use lamda_node::sidecar::used::Board;
use lamda_node::usage::{Readings, Rollups, Sample, Unknown};
use lamda_node::watch::expect::Expect;
use lamda_node::watch::profile::Shelf;
use tokio::sync::{Notify, watch};

/// How often is sampled here, so that the bench ends soon, and in a sidecar, and how often a sidecar writes down.
const HERE: Duration = Duration::from_millis(200);
const USUAL: Duration = Duration::from_secs(15);
const WRITES: Duration = Duration::from_mins(1);

/// How often is written down here.
const WRITES_HERE: u32 = 50;

/// Programs that end with the bench.
struct Running(Vec<Child>);

impl Drop for Running {
    fn drop(&mut self) {
        // Their children read from what ends with them.
        for child in &mut self.0 {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// Samples so many programs so often, and prints what that costs.
pub(super) fn run(programs: usize, rounds: usize) {
    let mark = format!("lamda-bench-{}-", std::process::id());
    let start = |number: usize| {
        // Nine that wait for a line which never comes, and their parent.
        let script = format!(
            "for n in 1 2 3 4 5 6 7 8 9; do sh -c \'read x; : child\' & done; read x; : {mark}{number}-"
        );
        Command::new("sh").args(["-c", &script]).stdin(Stdio::piped()).spawn().expect("a shell")
    };
    let _running = Running((0..programs).map(start).collect());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let (round, cost, write) = runtime.block_on(measure(&mark, programs, rounds));
    let share =
        round.as_secs_f64() / USUAL.as_secs_f64() + write.as_secs_f64() / WRITES.as_secs_f64();
    println!(
        "{{\"programs\":{programs},\"processes_of_the_machine\":{},\"rounds\":{rounds},\"round_ms\":{:.2},\
         \"round_as_it_says_itself_ms\":{:.2},\"write_ms\":{:.2},\"percent_of_a_core\":{:.3}}}",
        processes(),
        round.as_secs_f64() * 1e3,
        cost.as_secs_f64() * 1e3,
        write.as_secs_f64() * 1e3,
        share * 100.0,
    );
}

/// Processor time of a round, the same as the sampler says it, and that of writing a minute down.
async fn measure(mark: &str, count: usize, rounds: usize) -> (Duration, Duration, Duration) {
    let store = Store::in_memory().expect("a store");
    let programs = watched(mark, count, &store).await;
    let (_tell, ways) = watch::channel(host::first_ways(&programs));
    let board = Board::default();
    let library = Some(PathBuf::from("/no/such/library.so"));
    let sampler = Sampler {
        programs,
        ways,
        every: HERE,
        library,
        store: store.clone(),
        board: board.clone(),
    };
    let begun = ran();
    let time = HERE * u32::try_from(rounds).expect("fewer rounds");
    tokio::time::timeout(time, sampler.run()).await.ok();
    let round = ran().saturating_sub(begun) / u32::try_from(rounds).unwrap_or(1);
    let cost = board.cost() / u32::try_from(rounds).unwrap_or(1);
    let begun = ran();
    for number in 0..WRITES_HERE {
        store.rolled(minute(count + 1, number)).await.expect("room");
    }
    (round, cost, ran().saturating_sub(begun) / WRITES_HERE)
}

async fn watched(mark: &str, count: usize, store: &Store) -> Programs {
    let shelf = Shelf::default();
    let bell = Arc::new(Notify::new());
    let mut all = Vec::new();
    for number in 0..count {
        let pattern = ("command".to_owned(), format!("{mark}{number}-"));
        let profile = shelf.get("generic").expect("a profile");
        let filled = profile.fill(&BTreeMap::from([pattern])).expect("good values");
        let watching = Watching {
            name: format!("program-{number}"),
            expect: Expect::of(&profile, &filled),
            profile: filled,
            peer: None,
            first_lines: 0,
            restart: None,
        };
        let program = Program::load(watching, store, SystemClock, Arc::clone(&bell)).await;
        all.push(Arc::new(program.expect("a program")));
    }
    Arc::new(all)
}

/// What a minute of so many names leaves.
fn minute(names: usize, number: u32) -> Vec<Rolled> {
    let since = Duration::from_mins(u64::from(number) + 1);
    let name = |at: usize| {
        let mut open = Rollups::default();
        let fold = |open: &mut Rollups, since_start| {
            let (at, job) = (SystemClock.now(), Readings::unknown(Unknown::Off));
            open.fold(&Sample { at, since_start, job, cards: Vec::new() })
        };
        fold(&mut open, since.saturating_sub(Duration::from_mins(1)));
        let over = fold(&mut open, since);
        let open = number.is_multiple_of(10).then_some((open, since));
        Rolled { name: format!("program-{at}"), over, open }
    };
    (0..names).map(name).collect()
}

fn processes() -> usize {
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    entries.filter(|it| it.file_name().to_string_lossy().parse::<u32>().is_ok()).count()
}

/// How long this process has run, all threads and the kernel's part.
fn ran() -> Duration {
    let since = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(since).unwrap_or_default()
}
