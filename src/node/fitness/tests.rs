use proptest::prelude::*;

use super::super::health::ASIDE;
use super::*;

fn card(name: &str) -> GpuUuid {
    GpuUuid::new(name).unwrap()
}

fn known() -> Vec<GpuUuid> {
    vec![card("GPU-a"), card("GPU-b")]
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn probed(uuid: &str, found: Probed) -> BTreeMap<GpuUuid, Probed> {
    [(card(uuid), found)].into()
}

fn failed() -> Probed {
    Probed::Failed("unknown device".to_owned())
}

#[test]
fn one_failed_start_sets_a_card_aside_until_a_probe_finds_it_well() {
    let mut fitness = Fitness::of(2);
    fitness.cards_failed(&[card("GPU-a")], "unknown device");
    assert_eq!(fitness.out(), BTreeSet::from([&card("GPU-a")]));
    assert_eq!(fitness.verdict(), Ok(()), "the other one goes on");
    fitness.looked(Look::default(), &known(), s(100));
    assert_eq!(fitness.to_probe(s(100)), []);
    assert_eq!(fitness.to_probe(s(101)), [card("GPU-a")]);
    fitness.probed(probed("GPU-a", failed()), s(101));
    assert_eq!(fitness.to_probe(s(102)), [], "each failure doubles the wait");
    fitness.cards_failed(&[card("GPU-b")], "unknown device");
    assert_eq!(fitness.verdict(), Err(Unfit::NoCard(2)));
    fitness.probed(probed("GPU-a", Probed::Well), s(103));
    assert_eq!(fitness.verdict(), Ok(()));
    assert_eq!(fitness.out(), BTreeSet::from([&card("GPU-b")]));
}

#[test]
fn a_card_that_a_probe_found_well_begins_anew() {
    let mut fitness = Fitness::of(1);
    fitness.cards_failed(&[card("GPU-a")], "unknown device");
    for at in [10, 20, 30] {
        fitness.probed(probed("GPU-a", failed()), s(at));
    }
    fitness.probed(probed("GPU-a", Probed::Well), s(100));
    fitness.cards_failed(&[card("GPU-a")], "unknown device");
    fitness.looked(Look::default(), &known(), s(200));
    assert_eq!(fitness.to_probe(s(201)), [card("GPU-a")]);
}

#[test]
fn a_driver_that_is_not_there_stops_all_cards_until_a_probe_gets_one() {
    let mut fitness = Fitness::of(2);
    let why = || "driver not loaded".to_owned();
    fitness.no_driver(&[card("GPU-a")], &why());
    assert_eq!(fitness.verdict(), Err(Unfit::Driver(why())), "though one never failed");
    assert_eq!(Unfit::Driver(why()).told(), "the GPUs can't be used");
    let cards = Some(Ok(known().into_iter().collect()));
    fitness.looked(Look { cards, ..Look::default() }, &known(), s(1));
    assert!(fitness.verdict().is_err(), "that the driver's library answers proves nothing");
    fitness.probed(probed("GPU-a", Probed::NoDriver(why())), s(2));
    assert!(fitness.verdict().is_err());
    fitness.probed(probed("GPU-a", Probed::Well), s(5));
    assert_eq!(fitness.verdict(), Ok(()));
}

#[test]
fn a_node_rests_after_three_faults_in_a_row_and_tries_one_job_after_it() {
    let mut fitness = Fitness::of(0);
    for _ in 0..2 {
        fitness.job_failed("no gateway answers");
    }
    fitness.job_runs(&[]);
    for _ in 0..2 {
        fitness.job_failed("no gateway answers");
    }
    assert_eq!(fitness.verdict(), Ok(()), "a job ran between them");
    fitness.job_failed("no gateway answers");
    assert!(matches!(fitness.verdict(), Err(Unfit::Faults { count: 3, .. })));
    fitness.looked(Look::default(), &[], s(50));
    fitness.looked(Look::default(), &[], s(59));
    assert!(fitness.verdict().is_err());
    fitness.looked(Look::default(), &[], s(60));
    assert_eq!(fitness.verdict(), Ok(()));
    fitness.job_failed("no gateway answers");
    assert!(fitness.verdict().is_err(), "one more is enough");
    for (at, fit) in [(60, false), (79, false), (80, true)] {
        fitness.looked(Look::default(), &[], s(at));
        assert_eq!(fitness.verdict().is_ok(), fit, "each rest is twice as long: {at}");
    }
}

#[test]
fn a_card_that_is_gone_is_given_to_nobody_until_it_is_back() {
    let mut fitness = Fitness::of(2);
    let only = |found: &[&str]| Look {
        cards: Some(Ok(found.iter().map(|name| card(name)).collect())),
        ..Look::default()
    };
    fitness.looked(only(&["GPU-b"]), &known(), s(0));
    assert_eq!(fitness.out(), BTreeSet::from([&card("GPU-a")]));
    fitness.looked(only(&[]), &known(), s(1));
    assert_eq!(fitness.verdict(), Err(Unfit::NoCard(2)));
    let hangs = Look { cards: Some(Err("it hangs".to_owned())), ..Look::default() };
    fitness.looked(hangs, &known(), s(2));
    assert_eq!(fitness.verdict(), Err(Unfit::Driver("it hangs".to_owned())));
    fitness.looked(only(&["GPU-a", "GPU-b"]), &known(), s(3));
    assert_eq!((fitness.verdict(), fitness.out().len()), (Ok(()), 0));
}

#[test]
fn a_dead_card_does_not_keep_the_others_out_after_the_driver_was_away_for_a_moment() {
    let mut fitness = Fitness::of(2);
    let mut now = s(0);
    fitness.cards_failed(&known()[..1], "unknown device");
    fitness.probed(probed("GPU-a", Probed::NoDriver("no driver".to_owned())), now);
    assert!(matches!(fitness.verdict(), Err(Unfit::Driver(_))));
    while fitness.verdict().is_err() && now < ASIDE.max * 4 {
        now += s(10);
        fitness.looked(Look::default(), &known(), now);
        for uuid in fitness.to_probe(now) {
            let found = if uuid == card("GPU-b") { Probed::Well } else { failed() };
            fitness.probed([(uuid, found)].into(), now);
        }
    }
    assert_eq!(fitness.verdict(), Ok(()));
    assert_eq!(fitness.out(), BTreeSet::from([&card("GPU-a")]));
}

#[test]
fn no_job_comes_before_a_card_and_the_store_were_tried() {
    let untried = |fitness: &Fitness| matches!(fitness.verdict(), Err(Unfit::Untried(_)));
    let mut fitness = Fitness::of(2);
    fitness.expect_trials(known());
    fitness.uploaded(None);
    assert!(untried(&fitness) && fitness.out().is_empty());
    assert_eq!(fitness.to_probe(s(0)), known(), "at once, without a look");
    fitness.probed(probed("GPU-a", failed()), s(0));
    assert!(untried(&fitness), "the other one may be well");
    fitness.probed(probed("GPU-b", Probed::Well), s(0));
    assert_eq!((fitness.verdict(), fitness.is_untried()), (Ok(()), false));
    assert_eq!(fitness.out(), BTreeSet::from([&card("GPU-a")]));
    assert_eq!(fitness.to_probe(s(1)), [card("GPU-a")], "and once more later");
}

#[test]
fn a_broken_hook_is_known_before_the_first_job() {
    let mut fitness = Fitness::of(2);
    fitness.expect_trials(known());
    let why = || "driver not loaded".to_owned();
    for uuid in ["GPU-a", "GPU-b"] {
        fitness.probed(probed(uuid, Probed::NoDriver(why())), s(0));
        assert_eq!(fitness.lacks(), Some(Unfit::Driver(why())));
    }
    fitness.probed(probed("GPU-b", Probed::Well), s(1));
    assert_eq!(fitness.lacks(), Some(Unfit::Untried("the store takes an upload")));
    let mut fitness = Fitness::of(1);
    fitness.expect_trials([card("GPU-a")]);
    fitness.probed(probed("GPU-a", failed()), s(0));
    assert_eq!(fitness.lacks(), Some(Unfit::NoCard(1)));
}

#[test]
fn a_store_that_refuses_a_few_bytes_stops_jobs_and_one_that_is_away_does_not() {
    let mut fitness = Fitness::of(0);
    fitness.expect_trials([]);
    assert!(matches!(fitness.verdict(), Err(Unfit::Untried(_))));
    fitness.not_uploaded();
    assert_eq!((fitness.verdict(), fitness.lacks()), (Ok(()), None));
    fitness.uploaded(Some("no scopes".to_owned()));
    let refuses = Unfit::Upload("no scopes".to_owned());
    assert_eq!(refuses.told(), "the store takes no upload", "none of its words");
    fitness.not_uploaded();
    assert_eq!(fitness.verdict(), Err(refuses.clone()), "it has not changed its mind");
    assert_eq!(fitness.lacks(), Some(refuses));
    fitness.uploaded(None);
    assert_eq!(fitness.verdict(), Ok(()));
}

proptest! {
    /// Whatever happened, a node that is well now takes jobs again within the longest waits.
    #[test]
    fn what_is_mended_is_fit_again(happened in prop::collection::vec(0..9_u8, 0..60)) {
        let mut fitness = Fitness::of(2);
        let mut now = s(0);
        for what in happened {
            now += s(7);
            match what {
                0 => fitness.cards_failed(&known(), "unknown device"),
                1 => fitness.job_failed("x"),
                2 => fitness.job_runs(&known()[..1]),
                3 => fitness.store(true),
                4 => fitness.probed(probed("GPU-a", failed()), now),
                5 => fitness.no_driver(&known()[..1], "not loaded"),
                6 => fitness.expect_trials(known()),
                7 => fitness.uploaded(Some("no scopes".to_owned())),
                _ => {
                    let engine = Some("away".to_owned());
                    fitness.looked(Look { engine, ..Look::default() }, &known(), now);
                }
            }
        }
        fitness.store(false);
        fitness.uploaded(None);
        let end = now + ASIDE.max + REST.max;
        while now < end {
            now += s(10);
            let due = fitness.to_probe(now).into_iter();
            fitness.probed(due.map(|uuid| (uuid, Probed::Well)).collect(), now);
            let cards = Some(Ok(known().into_iter().collect()));
            fitness.looked(Look { cards, ..Look::default() }, &known(), now);
        }
        prop_assert_eq!(fitness.verdict(), Ok(()));
        prop_assert!(fitness.out().is_empty());
    }
}
