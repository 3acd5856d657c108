use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn share(milli_cpus: u64, memory_mib: u64, disk_mib: u64) -> Share {
    Share { milli_cpus, memory_mib, disk_mib }
}

fn gpu(number: usize, model: &str, vram_mib: u64) -> Gpu {
    let kind = if model == INSTANCE { "MIG" } else { "GPU" };
    let uuid = GpuUuid::new(&format!("{kind}-{number}")).unwrap();
    Gpu { uuid, model: model.to_owned(), vram_mib }
}

/// A MIG instance: a device of its own, whose card is none.
const INSTANCE: &str = "NVIDIA A100-SXM4-40GB MIG 1g.5gb";

/// A node with `small` small cards, and one large card after them.
fn offer(small: usize, slots: usize) -> Offer {
    let mut gpus: Vec<Gpu> = (0..small).map(|number| gpu(number, "RTX 3090", 24_000)).collect();
    gpus.push(gpu(small, "H100", 80_000));
    Offer {
        gpus,
        milli_cpus: 8000,
        memory_mib: 8000,
        disk_mib: 8000,
        network: Reach::Nothing,
        slots,
    }
}

fn cards(count: usize, model: &str) -> Demand {
    let gpus = Wish { count, model: Some(model.to_owned()), min_vram_mib: 0 };
    Demand { gpus, share: share(1000, 1000, 1000), network: Reach::Nothing }
}

fn memory(memory_mib: u64) -> Demand {
    Demand { share: share(0, memory_mib, 0), ..cards(0, "") }
}

/// What a running job holds.
#[derive(Debug, Clone)]
struct Running {
    gpus: Vec<GpuUuid>,
    share: Share,
}

fn held(running: &[Running]) -> Vec<Held<'_>> {
    running.iter().map(|job| Held { gpus: &job.gpus, share: job.share }).collect()
}

/// The verdict on each job of the line, given the running jobs and those ahead of it.
fn verdicts(offer: &Offer, running: &[Running], line: &[Demand]) -> Vec<Verdict> {
    let line: Vec<&Demand> = line.iter().collect();
    let verdict = |at: usize| decide(offer, &held(running), &line[..at], line[at]);
    (0..line.len()).map(verdict).collect()
}

fn runs(demand: &Demand, verdict: &Verdict) -> Option<Running> {
    let Verdict::Now(gpus) = verdict else { return None };
    Some(Running { gpus: gpus.clone(), share: demand.share })
}

#[test]
fn what_fits_exactly_goes_at_once() {
    let whole = Demand { share: share(8000, 8000, 8000), ..cards(3, "") };
    let Verdict::Now(gpus) = decide(&offer(2, 1), &[], &[], &whole) else { panic!("it fits") };
    assert_eq!(gpus.len(), 3);
}

#[test]
fn each_thing_that_never_fits_is_refused_by_name() {
    let bare = Offer { gpus: Vec::new(), ..offer(0, 1) };
    assert_eq!(decide(&bare, &[], &[], &cards(1, "")), Verdict::Never(NeverFits::NoGpu));
    for (share, count, word) in [
        (share(8001, 0, 0), 0, "core"),
        (share(0, 8001, 0), 0, "memory"),
        (share(0, 0, 8001), 0, "disk"),
        (share(0, 0, 0), 4, "GPU(s)"),
    ] {
        let demand = Demand { share, ..cards(count, "") };
        let verdict = decide(&offer(2, 1), &[], &[], &demand);
        let Verdict::Never(NeverFits::TooLarge(text)) = verdict else {
            panic!("{word}: {verdict:?}")
        };
        assert!(text.contains(word), "{text}");
    }
    for network in [Reach::Internet, Reach::Bridge] {
        let verdict = decide(&offer(2, 1), &[], &[], &Demand { network, ..cards(0, "") });
        assert!(matches!(verdict, Verdict::Never(NeverFits::Network(_))));
    }
}

#[test]
fn a_refusal_names_the_cards_that_are_here() {
    let wish = Wish { count: 2, model: Some("A100 80GB".into()), min_vram_mib: 81_920 };
    let demand = Demand { gpus: wish, ..cards(0, "") };
    let verdict = decide(&offer(2, 1), &[], &[], &demand);
    let text = "the job wants 2 GPU(s) of model \"A100 80GB\" with 81920 MiB; this node has \
                1 x H100 (80000 MiB), 2 x RTX 3090 (24000 MiB)";
    assert_eq!(verdict, Verdict::Never(NeverFits::TooLarge(text.to_owned())));
}

#[test]
fn two_jobs_that_want_all_the_memory_run_one_after_the_other() {
    let offer = offer(2, 4);
    let first = Running { gpus: Vec::new(), share: memory(8000).share };
    let verdict = decide(&offer, &held(std::slice::from_ref(&first)), &[], &memory(8000));
    assert_eq!(verdict, Verdict::Later(Scarce::Memory));
    assert!(matches!(decide(&offer, &[], &[], &memory(8000)), Verdict::Now(_)));
}

#[test]
fn a_small_job_does_not_take_the_cards_that_a_big_one_waits_for() {
    let offer = offer(3, 4);
    let busy = Running { gpus: vec![offer.gpus[0].uuid.clone()], share: Share::default() };
    let line = [cards(4, ""), cards(1, "")];
    let found = verdicts(&offer, &[busy], &line);
    assert_eq!(found, [Verdict::Later(Scarce::Gpus), Verdict::Later(Scarce::Gpus)]);
}

#[test]
fn a_card_that_the_first_in_the_line_can_not_use_does_not_wait_for_it() {
    let offer = offer(1, 4);
    let busy = Running { gpus: vec![offer.gpus[1].uuid.clone()], share: Share::default() };
    let line = [cards(1, "H100"), cards(1, "3090"), cards(1, "3090")];
    let found = verdicts(&offer, &[busy], &line);
    assert_eq!(found[0], Verdict::Later(Scarce::Gpus));
    assert_eq!(found[1], Verdict::Now(vec![offer.gpus[0].uuid.clone()]));
    assert_eq!(found[2], Verdict::Later(Scarce::Gpus));
}

#[test]
fn who_passes_leaves_a_slot_and_memory_for_those_before_it() {
    let busy = Running { gpus: Vec::new(), share: memory(4000).share };
    let line = [memory(5000), memory(0)];
    let with_slots =
        |slots| verdicts(&offer(0, slots), std::slice::from_ref(&busy), &line)[1].clone();
    assert_eq!(with_slots(2), Verdict::Later(Scarce::Slots));
    assert!(matches!(with_slots(3), Verdict::Now(_)));
    let line = [memory(5000), memory(1)];
    let found = verdicts(&offer(0, 8), std::slice::from_ref(&busy), &line);
    assert_eq!(found[1], Verdict::Later(Scarce::Memory));
}

#[test]
fn a_job_that_lost_its_hardware_to_a_restart_holds_nobody_up() {
    let line = [cards(9, ""), cards(1, "")];
    let found = verdicts(&offer(1, 1), &[], &line);
    assert!(matches!(found[0], Verdict::Never(_)) && matches!(found[1], Verdict::Now(_)));
}

#[test]
fn a_node_that_shrank_over_a_restart_gives_nothing_away_twice() {
    let running = vec![Running { gpus: Vec::new(), share: memory(6000).share }; 3];
    assert_eq!(verdicts(&offer(1, 2), &running, &[memory(1)]), [Verdict::Later(Scarce::Slots)]);
    assert_eq!(verdicts(&offer(1, 9), &running, &[memory(1)]), [Verdict::Later(Scarce::Memory)]);
}

fn any_offer() -> impl Strategy<Value = Offer> {
    let model = prop::sample::select(vec!["RTX 3090", "H100", INSTANCE]);
    let any_gpus = vec((model, 0_u64..3), 0..5);
    (any_gpus, 1_u64..8, 1_u64..8, 1_usize..5).prop_map(|(kinds, cores, memory_mib, slots)| {
        let number = kinds.into_iter().enumerate();
        let gpus = number.map(|(number, (model, vram_mib))| gpu(number, model, vram_mib)).collect();
        Offer { gpus, milli_cpus: cores, memory_mib, disk_mib: 9, network: Reach::Nothing, slots }
    })
}

fn any_demand() -> impl Strategy<Value = Demand> {
    let model = prop::sample::select(vec!["", "H100", "3090", "1g.5gb"]);
    let any_share = (0_u64..8, 0_u64..8, 0_u64..10);
    (0_usize..4, model, 0_u64..3, any_share).prop_map(|(count, model, min_vram_mib, of)| Demand {
        gpus: Wish { count, model: Some(model.to_owned()), min_vram_mib },
        share: share(of.0, of.1, of.2),
        network: Reach::Nothing,
    })
}

/// Running jobs as a node would start them: one after the other, each only if it fits.
fn placed(offer: &Offer, demands: &[Demand]) -> Vec<Running> {
    let mut running = Vec::new();
    for demand in demands {
        running.extend(runs(demand, &decide(offer, &held(&running), &[], demand)));
    }
    running
}

fn without_misfits(offer: &Offer, line: Vec<Demand>) -> Vec<Demand> {
    let fits = |it: &Demand| refusal(offer, it, &mut Rack::of(&offer.gpus)).is_none();
    line.into_iter().filter(fits).collect()
}

/// What a node does with a line until nobody else may start: those that run then, and those that wait.
fn settled(
    offer: &Offer,
    mut running: Vec<Running>,
    line: Vec<Demand>,
) -> (Vec<Running>, Vec<Demand>) {
    let starts = round(offer, &held(&running), &line);
    let started: Vec<usize> = starts.iter().map(|(place, _)| *place).collect();
    let new = starts.into_iter().map(|(at, gpus)| Running { gpus, share: line[at].share });
    running.extend(new);
    let waits = line.into_iter().enumerate().filter(|(place, _)| !started.contains(place));
    (running, waits.map(|(_, demand)| demand).collect())
}

/// Cards alone: enough of everything else for everybody.
fn of_cards_alone(offer: Offer) -> Offer {
    let much = u64::MAX >> 8;
    Offer { milli_cpus: much, memory_mib: much, disk_mib: much, slots: 99, ..offer }
}

/// Checks that nothing is given twice, and nothing that does not exist.
fn check(offer: &Offer, running: &[Running]) {
    let mut seen = BTreeSet::new();
    let cards = running.iter().flat_map(|job| &job.gpus);
    assert!(cards.clone().all(|card| seen.insert(card)), "a card was given twice");
    assert!(cards.clone().all(|card| offer.gpus.iter().any(|gpu| gpu.uuid == *card)));
    assert!(running.len() <= offer.slots, "more jobs than slots");
    let sum = |part: fn(&Share) -> u64| running.iter().map(|job| part(&job.share)).sum::<u64>();
    assert!(sum(|share| share.milli_cpus) <= offer.milli_cpus, "cores");
    assert!(sum(|share| share.memory_mib) <= offer.memory_mib, "memory");
    assert!(sum(|share| share.disk_mib) <= offer.disk_mib, "disk");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_job_that_is_alone_goes_at_once_or_never(offer in any_offer(), demand in any_demand()) {
        match decide(&offer, &[], &[], &demand) {
            Verdict::Never(_) => {}
            Verdict::Later(scarce) => panic!("alone on the node it waits for {scarce:?}"),
            Verdict::Now(gpus) => {
                prop_assert_eq!(gpus.len(), demand.gpus.count);
                let chosen = offer.gpus.iter().filter(|gpu| gpus.contains(&gpu.uuid));
                prop_assert!(chosen.clone().all(|gpu| demand.gpus.accepts(gpu)));
            }
        }
    }

    /// The promise to waiting jobs: whichever of the running jobs end, and in whatever order, each finds
    /// what it would have found if no other job had overtaken it.
    #[test]
    fn nobody_in_the_line_is_delayed_by_who_went_past(
        offer in any_offer(),
        ran in vec(any_demand(), 0..5),
        line in vec(any_demand(), 1..5),
        last in any_demand(),
        ended in vec(prop::bool::ANY, 5),
    ) {
        let running = placed(&offer, &ran);
        let ahead = without_misfits(&offer, line);
        let before: Vec<&Demand> = ahead.iter().collect();
        let Some(passed) = runs(&last, &decide(&offer, &held(&running), &before, &last)) else {
            return Ok(());
        };
        let goes_on = running.iter().zip(&ended).filter(|(_, ended)| !**ended);
        let mut left: Vec<Running> = goes_on.map(|(job, _)| job.clone()).collect();
        let alone = verdicts(&offer, &left, &ahead);
        left.push(passed);
        let beside = verdicts(&offer, &left, &ahead);
        for (alone, beside) in alone.iter().zip(&beside) {
            if matches!(alone, Verdict::Now(_)) {
                prop_assert_eq!(alone, beside);
            }
        }
    }

    /// Jobs come, wake in any order, and end. The first in the line waits no longer than the jobs run
    /// that were running when it became the first, however many small ones keep coming.
    #[test]
    fn the_node_is_never_overbooked_and_nobody_starves(
        offer in any_offer(),
        first in vec(any_demand(), 1..6),
        stream in vec((any_demand(), 0_usize..8, prop::bool::ANY), 0..40),
    ) {
        let mut line = without_misfits(&offer, first);
        let mut running: Vec<Running> = Vec::new();
        // How many of the running jobs were there when the present head became the first.
        let mut older = 0;
        let steps = stream.into_iter().map(Some).chain(std::iter::repeat(None)).take(200);
        for step in steps {
            let mut last_first = false;
            if let Some((demand, ends, wakes_last_first)) = step {
                last_first = wakes_last_first;
                line.extend(without_misfits(&offer, vec![demand]));
                // At most one of the older ones ends per step; the newest may run forever.
                if ends < running.len() {
                    running.remove(ends);
                    older -= usize::from(ends < older);
                }
            } else if !running.is_empty() {
                running.remove(0);
                older = usize::saturating_sub(older, 1);
            }
            loop {
                let mut found: Vec<(usize, Verdict)> =
                    verdicts(&offer, &running, &line).into_iter().enumerate().collect();
                if last_first {
                    found.reverse();
                }
                let next = found.into_iter().find_map(|(at, verdict)| {
                    runs(&line[at], &verdict).map(|job| (at, job))
                });
                let Some((at, job)) = next else { break };
                line.remove(at);
                running.push(job);
                check(&offer, &running);
                if at == 0 {
                    older = running.len();
                }
            }
            prop_assert!(line.is_empty() || older > 0, "the first waits, and nobody it found runs");
        }
        prop_assert!(line.is_empty(), "{} never went", line.len());
    }

    /// Each job of a line gets the same answer together with the others as alone.
    #[test]
    fn a_round_is_what_each_job_of_the_line_would_be_told(
        offer in any_offer(),
        ran in vec(any_demand(), 0..5),
        line in vec(any_demand(), 0..9),
    ) {
        let running = placed(&offer, &ran);
        let told = verdicts(&offer, &running, &line).into_iter().enumerate();
        let alone: Vec<(usize, Vec<GpuUuid>)> = told
            .filter_map(|(at, verdict)| match verdict {
                Verdict::Now(gpus) => Some((at, gpus)),
                Verdict::Never(_) | Verdict::Later(_) => None,
            })
            .collect();
        prop_assert_eq!(round(&offer, &held(&running), &line), alone);
    }

    /// The board keeps a round while jobs start out of it, in whatever order they ask.
    #[test]
    fn a_round_stays_what_it_is_while_its_jobs_start(
        offer in any_offer(),
        ran in vec(any_demand(), 0..5),
        line in vec(any_demand(), 1..9),
        which in 0_usize..9,
    ) {
        let mut running = placed(&offer, &ran);
        let mut starts = round(&offer, &held(&running), &line);
        if starts.is_empty() {
            return Ok(());
        }
        let (at, gpus) = starts.remove(which % starts.len());
        running.push(Running { gpus, share: line[at].share });
        check(&offer, &running);
        let mut rest = line;
        rest.remove(at);
        let behind = |place: usize| if place > at { place - 1 } else { place };
        let starts: Vec<_> =
            starts.into_iter().map(|(place, gpus)| (behind(place), gpus)).collect();
        prop_assert_eq!(round(&offer, &held(&running), &rest), starts);
    }

    /// A card is idle only if nobody who waits can use it, or if the first who can needs more than are idle:
    /// then it is set aside for that one.
    #[test]
    fn no_card_is_idle_that_a_waiting_job_could_use(
        offer in any_offer(),
        ran in vec(any_demand(), 0..5),
        line in vec(any_demand(), 0..9),
    ) {
        let offer = of_cards_alone(offer);
        let ran = placed(&offer, &ran);
        let (running, waiting) = settled(&offer, ran, without_misfits(&offer, line));
        check(&offer, &running);
        let is_taken = |gpu: &Gpu| running.iter().any(|job| job.gpus.contains(&gpu.uuid));
        let mut idle: Vec<&Gpu> = offer.gpus.iter().filter(|gpu| !is_taken(gpu)).collect();
        for job in &waiting {
            let count = idle.len();
            idle.retain(|gpu| !job.gpus.accepts(gpu));
            let usable = count - idle.len();
            prop_assert!(usable < job.gpus.count, "{job:?} waits beside {usable} idle cards");
        }
        let left = settled(&offer, running.clone(), waiting).0;
        prop_assert_eq!(left.len(), running.len(), "somebody could have started sooner");
    }

    /// After a restart the driver lists the cards, and the engine the containers, in any order.
    #[test]
    fn the_answer_is_the_same_in_whatever_order_cards_and_containers_are_listed(
        offer in any_offer(),
        ran in vec(any_demand(), 0..5),
        line in vec(any_demand(), 1..9),
        by in 0_usize..5,
    ) {
        let running = placed(&offer, &ran);
        let mut again = (offer.clone(), running.clone());
        let (cards, jobs) = (again.0.gpus.len().max(1), again.1.len().max(1));
        again.0.gpus.reverse();
        again.0.gpus.rotate_left(by % cards);
        again.1.reverse();
        again.1.rotate_left(by % jobs);
        let before = round(&offer, &held(&running), &line);
        prop_assert_eq!(round(&again.0, &held(&again.1), &line), before);
    }
}
