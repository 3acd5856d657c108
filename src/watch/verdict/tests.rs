//! Programs that do well and badly, minute by minute, over a simulated time.

use std::collections::BTreeMap;

use super::*;
use crate::fleet::Level;
use crate::fleet::alerts::{Alerts, Fact, Facts, Policy};
use crate::watch::expect::{Earning, Known};
use crate::watch::meaning::{Kind, Meaning};
use crate::watch::observation::{CHAIN, ChainSeen, DHT, Kept, Observation, PROCESS, Seen, Whose};

const HOUR: u64 = 3_600;

fn expect() -> Expect {
    let cause = |id: &str, says: &str| {
        (id.to_owned(), Known { says: says.to_owned(), remedy: "do this".to_owned() })
    };
    Expect {
        logs: vec!["swarm".to_owned()],
        has_process: false,
        ports: Vec::new(),
        says_work: true,
        idle: Some(Duration::from_mins(15)),
        grace: Duration::from_mins(5),
        published_for: Some(Duration::from_mins(10)),
        earning: Some(Earning { first: Duration::from_hours(3), every: Duration::from_hours(3) }),
        causes: [cause("aa24", "the bundler refuses the signature"), cause("oom", "no memory")]
            .into(),
    }
}

/// A program and its watcher.
struct Sim {
    state: Watched,
    expect: Expect,
    now: u64,
    rewards: i64,
}

impl Sim {
    fn new() -> Self {
        let mut sim =
            Self { state: Watched::default(), expect: expect(), now: 1_800_000_000, rewards: 0 };
        sim.see(Seen::Watching);
        sim
    }

    fn at(&self) -> Timestamp {
        Timestamp::from_unix_ms(self.now * 1_000)
    }

    fn see(&mut self, seen: Seen) {
        let observation = Observation { at: self.at(), seen };
        self.state.apply(&observation);
    }

    fn says(&mut self, kind: Kind, cause: Option<&str>, fields: &[(&str, String)]) {
        self.see(Seen::Lines { log: "swarm".to_owned(), lines: 1 });
        let fields: BTreeMap<String, String> =
            fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let meaning =
            Meaning { kind, level: Level::Info, fields, cause: cause.map(ToOwned::to_owned) };
        let (log, text) = ("swarm".to_owned(), format!("a line about {}", kind.as_str()));
        self.see(Seen::Told { log, meaning, text, said: None });
    }

    fn dht(&mut self, kept: Kept) {
        self.see(Seen::Dht { asked: 3, alive: 3, kept: [("solver".to_owned(), kept)].into() });
    }

    fn chain(&mut self, round: u64) {
        let seen = ChainSeen {
            block: self.now / 2,
            round: Some(round),
            rewards: Some(self.rewards.to_string()),
            ..ChainSeen::default()
        };
        self.see(Seen::Chain(seen));
    }

    fn paid(&mut self, whose: Whose, round: u64) {
        let (block, paid) = (self.now / 2, self.at());
        self.rewards += i64::from(whose == Whose::Ours);
        self.see(Seen::Paid { whose, round, reward: "-1".to_owned(), block, paid });
    }

    fn verdict(&self) -> Verdict {
        verdict(&self.state, &self.expect, self.at())
    }

    /// Minutes of a life in which all goes well but what `but` says.
    fn live(&mut self, minutes: u64, but: &[Trouble]) {
        for _ in 0..minutes {
            self.now += 60;
            let minute = self.now / 60;
            let round = minute / 20;
            if !but.contains(&Trouble::Down) && minute.is_multiple_of(5) {
                let kind = if but.contains(&Trouble::Stuck) { Kind::Note } else { Kind::Join };
                self.says(kind, None, &[("round", round.to_string())]);
            }
            let is_swarm = !but.contains(&Trouble::SwarmDown);
            if minute.is_multiple_of(5) {
                let at = self.at();
                let is_kept = is_swarm && !but.contains(&Trouble::Unpublished);
                self.dht(if is_kept { Kept::Published { at } } else { Kept::Absent });
                self.chain(if is_swarm { round } else { 1 });
            }
            if minute.is_multiple_of(60) && is_swarm {
                self.paid(Whose::Other, round);
            }
            if minute.is_multiple_of(200) && is_swarm && !but.contains(&Trouble::Unpaid) {
                self.paid(Whose::Ours, round);
            }
        }
    }
}

#[test]
fn a_program_of_which_all_witnesses_tell_well_has_no_trouble() {
    let mut sim = Sim::new();
    sim.live(8 * 60, &[]);
    let verdict = sim.verdict();
    assert_eq!(verdict.troubles, [], "{verdict:#?}");
    for found in [&verdict.alive, &verdict.training, &verdict.published, &verdict.earning] {
        assert_eq!(found.answer, Answer::Yes, "{verdict:#?}");
        assert!(!found.evidence.is_empty(), "{found:?}");
    }
    assert_eq!(
        verdict.says,
        "it is up, its log says that it trains, its peers have what it published, it was paid"
    );
}

#[test]
fn each_fault_is_one_trouble_and_the_first_witness_that_misses_it_tells() {
    for (but, hours) in
        [(Trouble::Down, 1), (Trouble::Stuck, 1), (Trouble::Unpublished, 2), (Trouble::Unpaid, 5)]
    {
        let mut sim = Sim::new();
        sim.live(8 * 60, &[]);
        sim.live(hours * 60, &[but]);
        let verdict = sim.verdict();
        assert_eq!(verdict.troubles, [but], "{verdict:#?}");
        assert_eq!(verdict.has(but), Some(true));
        assert!(verdict.about(but).is_some_and(|it| it.answer == Answer::No));
        sim.live(4 * 60, &[]);
        assert_eq!(sim.verdict().troubles, [], "{but:?} is over");
        assert_eq!(sim.verdict().has(but), Some(false));
    }
}

#[test]
fn the_first_payment_is_due_after_the_start_and_late_only_after_a_round_more() {
    let mut sim = Sim::new();
    sim.says(Kind::Start, None, &[]);
    sim.live(3 * 60 + 20, &[Trouble::Unpaid]);
    assert_eq!(sim.verdict().earning.answer, Answer::Waiting, "{:?}", sim.verdict().earning);
    sim.live(35, &[Trouble::Unpaid]);
    assert_eq!(sim.verdict().troubles, [Trouble::Unpaid]);
}

#[test]
fn who_is_not_paid_is_told_the_cause_that_the_log_or_the_chain_knows() {
    let mut sim = Sim::new();
    sim.live(8 * 60, &[]);
    sim.live(100, &[Trouble::Unpaid]);
    sim.says(Kind::SubmitFailed, Some("aa24"), &[]);
    sim.live(200, &[Trouble::Unpaid]);
    let found = sim.verdict().earning;
    assert_eq!(found.cause.as_deref(), Some("aa24"));
    assert!(found.why.contains("the bundler refuses the signature"), "{}", found.why);
    assert_eq!(found.remedy, "do this");
    assert!(found.evidence.iter().any(|it| it.source == "log swarm"), "{found:#?}");

    let mut sim = Sim::new();
    sim.live(8 * 60, &[]);
    sim.live(100, &[Trouble::Unpaid]);
    sim.paid(Whose::Twin, 9);
    sim.live(200, &[Trouble::Unpaid]);
    let found = sim.verdict().earning;
    assert_eq!(found.cause.as_deref(), Some("twin-node"));
    assert!(found.why.contains("another node of the same account"), "{}", found.why);
}

#[test]
fn a_swarm_that_stands_still_is_one_incident_and_no_trouble_of_its_nodes_is_told() {
    let mut sim = Sim::new();
    sim.live(8 * 60, &[]);
    let (rules, policy) = (crate::watch::rules::standard(), Policy::default());
    let mut alerts = Alerts::default();
    let mut told = Vec::new();
    for _ in 0..12 * 60 {
        sim.live(1, &[Trouble::SwarmDown, Trouble::Unpublished, Trouble::Unpaid]);
        let (verdict, now) = (sim.verdict(), sim.at());
        let facts: Vec<Facts> = rules.iter().map(|rule| facts(rule, &verdict, now)).collect();
        let decision = alerts.decide(&rules, &facts, &policy, now);
        alerts.apply(&decision, &policy, now);
        told.extend(decision.notices.into_iter().map(|it| it.rule));
    }
    let verdict = sim.verdict();
    assert!(verdict.says.starts_with("it is the swarm, not this node: "), "{}", verdict.says);
    assert_eq!(verdict.troubles.first(), Some(&Trouble::SwarmDown));
    told.dedup();
    // What is published is missed earlier than the round that doesn't end.
    assert!(told.iter().filter(|it| *it == "swarm-down").count() == 1, "{told:?}");
    assert!(!told.contains(&"unpaid".to_owned()), "{told:?}");
}

fn facts(rule: &crate::fleet::rule::Rule, verdict: &Verdict, now: Timestamp) -> Facts {
    let crate::fleet::rule::Condition::Trouble(troubles) = &rule.when else {
        return Facts::default();
    };
    let holds = troubles.iter().find(|it| verdict.has(**it) == Some(true));
    let is_unknown = holds.is_none() && troubles.iter().any(|it| verdict.has(*it).is_none());
    let unknown = is_unknown.then(|| "a".to_owned()).into_iter().collect();
    let fact = |_| Fact {
        node: "a".to_owned(),
        since: now,
        why: String::new(),
        ip: String::new(),
        heard: None,
    };
    Facts { holds: holds.map(fact).into_iter().collect(), unknown, ..Facts::default() }
}

#[test]
fn a_program_that_failed_is_told_with_the_cause_and_well_again_once_it_works() {
    let mut sim = Sim::new();
    sim.live(8 * 60, &[]);
    sim.says(Kind::OutOfMemory, Some("oom"), &[]);
    sim.now += 1;
    let verdict = sim.verdict();
    assert_eq!(verdict.troubles, [Trouble::Stuck], "told at once");
    assert!(verdict.training.why.contains("no memory"), "{}", verdict.training.why);
    sim.now += 90;
    let verdict = sim.verdict();
    assert_eq!(verdict.troubles, [Trouble::Down]);
    assert!(verdict.alive.why.contains("no memory"), "{}", verdict.alive.why);
    sim.says(Kind::Start, None, &[]);
    assert_eq!(sim.verdict().troubles, []);
}

#[test]
fn a_host_that_says_that_it_runs_is_believed_before_a_log_that_is_silent() {
    let mut sim = Sim::new();
    sim.expect.has_process = true;
    sim.live(60, &[]);
    let process = |is_running| Seen::Process { is_running, started: None, why: "pid 7".to_owned() };
    sim.see(process(true));
    sim.now += 2 * HOUR;
    assert_eq!(sim.verdict().alive.answer, Answer::Yes);
    assert_eq!(sim.verdict().troubles, [Trouble::Stuck]);
    sim.see(process(false));
    assert_eq!(sim.verdict().alive.answer, Answer::Waiting, "it may be starting again");
    sim.now += 31;
    assert_eq!(sim.verdict().troubles, [Trouble::Down]);
}

#[test]
fn silence_that_the_program_announced_is_not_down() {
    let mut sim = Sim::new();
    sim.live(60, &[]);
    sim.says(Kind::Idle, None, &[("seconds", "2400".to_owned())]);
    sim.now += 44 * 60;
    assert_eq!(sim.verdict().alive.answer, Answer::Yes, "{:#?}", sim.verdict());
    sim.now += 2 * 60;
    assert_eq!(sim.verdict().troubles.first(), Some(&Trouble::Down));
}

#[test]
fn what_was_not_watched_is_not_missed() {
    let mut sim = Sim::new();
    sim.live(8 * 60, &[]);
    sim.now += 30 * HOUR;
    sim.see(Seen::Watching);
    sim.chain(99);
    sim.dht(Kept::Absent);
    assert_eq!(sim.verdict().troubles, [], "{:#?}", sim.verdict());
    sim.live(8 * 60, &[Trouble::Down]);
    assert!(sim.verdict().troubles.contains(&Trouble::Down));
}

#[test]
fn peers_and_chains_that_cannot_be_asked_are_unknown_and_told_as_such() {
    let mut sim = Sim::new();
    sim.live(8 * 60, &[]);
    for _ in 0..12 * 6 {
        sim.now += 600;
        for source in [DHT, CHAIN, PROCESS] {
            let trouble = Some("it hangs".to_owned());
            sim.see(Seen::Source { source: source.to_owned(), trouble });
        }
        sim.says(Kind::Work, None, &[]);
    }
    let verdict = sim.verdict();
    assert_eq!(verdict.troubles, [Trouble::Blind], "{verdict:#?}");
    assert_eq!(verdict.published.answer, Answer::Unknown);
    assert_eq!(verdict.earning.answer, Answer::Unknown);
    assert_eq!((verdict.has(Trouble::Unpaid), verdict.has(Trouble::Unpublished)), (None, None));
    assert!(verdict.says.contains("not to be seen: chain: it hangs"), "{}", verdict.says);
}

#[test]
fn a_watcher_that_starts_again_takes_nothing_of_before_for_an_answer() {
    for but in [Trouble::Down, Trouble::Stuck, Trouble::Unpublished, Trouble::Unpaid] {
        let mut sim = Sim::new();
        sim.live(8 * 60, &[]);
        sim.live(6 * 60, &[but]);
        assert_eq!(sim.verdict().troubles, [but]);
        sim.see(Seen::Watching);
        sim.chain(sim.now / 1_200);
        assert_eq!(sim.verdict().troubles, [], "it is not known yet");
        assert_eq!(sim.verdict().has(but), None, "an incident stays open: {:#?}", sim.verdict());
    }
    let mut sim = Sim::new();
    sim.expect.has_process = true;
    sim.says(Kind::Crash, Some("oom"), &[]);
    sim.now += HOUR;
    sim.see(Seen::Watching);
    assert_eq!(sim.verdict().alive.answer, Answer::Waiting, "its host was not asked yet");
}

#[test]
fn a_swarm_that_rests_at_the_first_look_is_no_fault_of_its_node() {
    let mut sim = Sim::new();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..24 * 12 {
        sim.live(5, &[Trouble::SwarmDown, Trouble::Unpublished, Trouble::Unpaid]);
        seen.extend(sim.verdict().troubles);
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [Trouble::SwarmDown]);
}

#[test]
fn bootnodes_out_of_reach_from_here_do_not_outvote_the_contract() {
    let mut sim = Sim::new();
    sim.live(8 * 60, &[]);
    for _ in 0..12 {
        sim.live(5, &[]);
        sim.see(Seen::Dht { asked: 3, alive: 0, kept: BTreeMap::new() });
    }
    assert_eq!(sim.verdict().swarm.answer, Answer::Yes, "{:#?}", sim.verdict().swarm);
    assert!(!sim.verdict().troubles.contains(&Trouble::SwarmDown));
}

#[test]
fn nobody_is_called_unpaid_whose_peer_id_is_not_known() {
    let mut sim = Sim::new();
    for _ in 0..6 * 12 {
        sim.live(5, &[Trouble::Unpaid]);
        let unknown = vec!["its peer id is not known yet".to_owned()];
        let (block, round) = (sim.now / 2, Some(sim.now / 1_200));
        sim.state.chain = None;
        sim.see(Seen::Chain(ChainSeen { block, round, unknown, ..ChainSeen::default() }));
        sim.paid(Whose::Other, 1);
    }
    let found = sim.verdict().earning;
    assert_eq!(
        (found.answer, found.why.as_str()),
        (Answer::Unknown, "its peer id is not known yet")
    );
}

#[test]
fn a_program_that_starts_again_and_again_is_down() {
    let mut sim = Sim::new();
    sim.expect.has_process = true;
    sim.live(60, &[]);
    for _ in 0..4 {
        for is_running in [false, true] {
            sim.now += 10;
            let started = is_running.then(|| sim.at());
            sim.see(Seen::Process { is_running, started, why: "pid 7".to_owned() });
        }
    }
    assert_eq!(sim.verdict().troubles, [Trouble::Down]);
    assert!(sim.verdict().alive.why.contains("again and again"), "{}", sim.verdict().alive.why);
    sim.now += 6 * 60;
    let began = sim.at();
    for later in 0..100 {
        sim.now += 2;
        // Rounding, and a clock that is set, move a start a little.
        let started = Some(began.plus(Duration::from_millis(later % 3)));
        sim.see(Seen::Process { is_running: true, started, why: "pid 7".to_owned() });
    }
    assert_eq!(sim.verdict().alive.answer, Answer::Yes, "{}", sim.verdict().alive.why);
    sim.live(10, &[]);
    assert_eq!(sim.verdict().troubles, []);
}

#[test]
fn a_payment_that_a_reorganisation_took_away_gives_way_to_the_one_before() {
    let mut sim = Sim::new();
    sim.live(8 * 60, &[]);
    let before = sim.state.chain.as_ref().and_then(|chain| chain.paid);
    sim.now += 10 * 60;
    sim.paid(Whose::Ours, 7);
    let block = sim.now / 2;
    sim.see(Seen::TakenBack { after: block - 3 });
    assert_eq!(sim.state.chain.as_ref().and_then(|chain| chain.paid), before);
    assert_eq!(sim.verdict().earning.answer, Answer::Yes);
}

#[test]
fn what_was_written_long_before_anybody_watched_is_no_failure_of_now() {
    let mut sim = Sim::new();
    sim.says(Kind::Work, None, &[]);
    let meaning =
        Meaning { kind: Kind::Crash, level: Level::Critical, fields: BTreeMap::new(), cause: None };
    let said = Some(Timestamp::from_unix_ms((sim.now - 7 * 24 * HOUR) * 1_000));
    let (log, text) = ("launcher".to_owned(), "An error was detected".to_owned());
    sim.see(Seen::Told { log, meaning, text, said });
    assert_eq!(sim.verdict().troubles, []);
}

#[test]
fn after_a_clock_was_set_back_silence_is_noticed_in_its_time() {
    let mut sim = Sim::new();
    sim.live(8 * 60, &[]);
    sim.now -= 5 * HOUR;
    sim.see(Seen::Watching);
    sim.now += 25 * 60;
    assert_eq!(sim.verdict().troubles.first(), Some(&Trouble::Down));
}

#[test]
fn a_swarm_that_stands_still_and_a_source_that_fails_stay_so_over_a_new_watch() {
    let mut sim = Sim::new();
    sim.live(8 * 60, &[]);
    sim.live(8 * 60, &[Trouble::SwarmDown, Trouble::Unpublished, Trouble::Unpaid]);
    let trouble = Some("it is a folder".to_owned());
    sim.see(Seen::Source { source: "log swarm".to_owned(), trouble });
    sim.live(15, &[Trouble::SwarmDown, Trouble::Unpublished, Trouble::Unpaid]);
    assert_eq!(sim.verdict().troubles, [Trouble::SwarmDown, Trouble::Blind]);
    sim.see(Seen::Watching);
    sim.live(1, &[Trouble::SwarmDown, Trouble::Unpublished, Trouble::Unpaid]);
    let verdict = sim.verdict();
    let known = (verdict.has(Trouble::SwarmDown), verdict.has(Trouble::Blind));
    assert_eq!(known, (None, None), "{verdict:#?}");
}

#[test]
fn a_swarm_that_goes_on_gives_its_nodes_as_long_as_at_their_start() {
    let mut sim = Sim::new();
    sim.live(8 * 60, &[]);
    sim.live(30 * 60, &[Trouble::SwarmDown, Trouble::Unpublished, Trouble::Unpaid]);
    for found in [sim.verdict().published, sim.verdict().earning] {
        assert_eq!(found.answer, Answer::Waiting, "{found:?}");
    }
    sim.live(5, &[]);
    for _ in 0..3 * 60 {
        sim.live(1, &[]);
        let verdict = sim.verdict();
        assert_eq!(verdict.troubles, [], "{verdict:#?}");
    }
    let mut sim = Sim::new();
    sim.live(8 * 60, &[]);
    sim.live(30 * 60, &[Trouble::SwarmDown, Trouble::Unpublished, Trouble::Unpaid]);
    sim.live(5 * 60, &[Trouble::Unpaid]);
    assert_eq!(sim.verdict().troubles, [Trouble::Unpaid], "but not longer");
}

#[test]
fn a_loop_of_starts_is_seen_also_where_each_look_finds_it_running() {
    let mut sim = Sim::new();
    sim.expect.has_process = true;
    for _ in 0..5 {
        sim.now += 2;
        let started = Some(sim.at());
        sim.see(Seen::Process { is_running: true, started, why: "pid 7".to_owned() });
    }
    assert_eq!(sim.verdict().troubles, [Trouble::Down]);
}

/// Ten thousand hours of a program that does well and is seen badly: long silences, sources that fail, a watcher that
/// is away.
#[test]
fn in_ten_thousand_hours_there_is_no_false_alarm() {
    let mut random = fastrand::Rng::with_seed(14);
    let mut sim = Sim::new();
    let (mut round, mut round_ends, mut silent_until, mut submits) =
        (1_u64, 0, 0, sim.now + 3 * HOUR);
    let (mut dht_down, mut chain_down, mut others) = (0, 0, 0);
    let mut published = sim.at();
    let begin = sim.now;
    while sim.now < begin + 10_000 * HOUR {
        sim.now += 60;
        let now = sim.now;
        if now >= round_ends {
            round += 1;
            round_ends = now + random.u64(600..2_400);
            published = sim.at();
            if now >= submits {
                submits = now + 3 * HOUR;
                sim.paid(Whose::Ours, round);
            }
        }
        if now >= silent_until {
            if random.u32(..30) == 0 {
                // Idle: not a word for up to a quarter of an hour.
                let seconds = random.u64(60..=900);
                silent_until = now + seconds;
                sim.says(Kind::Idle, None, &[("seconds", seconds.to_string())]);
            } else {
                sim.says(Kind::Work, None, &[("round", round.to_string())]);
            }
        }
        if random.u32(..500) == 0 {
            dht_down = now + random.u64(60..2 * HOUR);
        }
        if random.u32(..500) == 0 {
            chain_down = now + random.u64(60..2 * HOUR);
        }
        if now >= others && now >= chain_down {
            others = now + random.u64(60..HOUR);
            sim.paid(Whose::Other, round);
        }
        if (now / 60).is_multiple_of(5) {
            look(&mut sim, (now < dht_down, now < chain_down), published, round);
        }
        if random.u32(..3_000) == 0 {
            sim.now += random.u64(60..20 * HOUR);
            submits = submits.max(sim.now);
            sim.see(Seen::Watching);
        }
        if !(now / 60).is_multiple_of(5) {
            continue;
        }
        let verdict = sim.verdict();
        let false_alarm = verdict.troubles.iter().find(|it| **it != Trouble::Blind);
        assert!(false_alarm.is_none(), "after {} s: {verdict:#?}", sim.now - begin);
    }
}

fn look(sim: &mut Sim, (dht_down, chain_down): (bool, bool), published: Timestamp, round: u64) {
    let trouble = Some("it hangs".to_owned());
    if dht_down {
        sim.see(Seen::Source { source: DHT.to_owned(), trouble: trouble.clone() });
    } else {
        let is_kept = sim.at().since(published) < Duration::from_mins(10);
        sim.dht(if is_kept { Kept::Published { at: published } } else { Kept::Absent });
    }
    if chain_down {
        sim.see(Seen::Source { source: CHAIN.to_owned(), trouble });
    } else {
        sim.chain(round);
    }
}
