use proptest::prelude::*;

use super::super::card::{CardEvent, Round, Rows, Sample, Slowed, Unknown};
use super::*;

fn card() -> GpuUuid {
    GpuUuid::new("GPU-a").unwrap()
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn sample() -> Sample {
    Sample {
        busy_percent: Ok(0),
        used_bytes: Ok(0),
        free_bytes: Ok(80 << 30),
        power_mw: Ok(70_000),
        energy_mj: Ok(1),
        sm_mhz: Ok(345),
        memory_mhz: Ok(2619),
        celsius: Ok(37),
        slowed: Ok(Slowed::default()),
        uncorrected_errors: Ok(0),
        rows: Ok(Rows::default()),
        processes: Ok(Vec::new()),
    }
}

fn round(sample: Sample) -> Round {
    [(card(), Ok(sample))].into()
}

/// The changes that are not in the journal, as it takes them.
fn changes(health: &mut Health) -> Vec<Change> {
    let next = |health: &mut Health| {
        let change = health.change().cloned();
        health.written();
        change
    };
    std::iter::from_fn(|| next(health)).collect()
}

fn after(xid: u64) -> State {
    let mut health = Health::default();
    health.happened(&card(), CardEvent::Xid(xid));
    health.state(&card())
}

#[test]
fn an_error_that_a_program_causes_leaves_the_card_alone_and_others_do_not() {
    for xid in [13, 31, 43, 45, 68, 109] {
        assert_eq!(after(xid), State::Healthy, "{xid}");
    }
    assert_eq!(
        Health::default().happened(&card(), CardEvent::Xid(31)).as_deref(),
        Some("Xid 31: memory page fault")
    );
    for xid in [48, 74, 79, 95, 119, 120] {
        assert_eq!(after(xid), State::Quarantined, "{xid}");
    }
    assert_eq!(
        (after(94), after(7777), after(64)),
        (State::Suspect, State::Suspect, State::Retired)
    );
}

#[test]
fn a_defective_card_comes_back_by_a_proof_after_a_quiet_time() {
    let mut health = Health::default();
    health.pass(s(0));
    health.happened(&card(), CardEvent::Xid(79));
    health.happened(&card(), CardEvent::Unavailable);
    health.pass(s(1));
    health.proved(&card());
    assert_eq!(health.state(&card()), State::Quarantined, "a container may get it all the same");
    health.pass(s(600));
    assert_eq!(health.to_prove(s(600)).count(), 0);
    health.pass(s(601));
    assert_eq!(health.to_prove(s(601)).collect::<Vec<_>>(), [&card()]);
    health.not_given(&card(), "unknown device");
    health.pass(s(601));
    assert_eq!(health.state(&card()), State::Quarantined);
    health.pass(s(1800));
    assert_eq!(health.state(&card()), State::Quarantined, "the second time is longer");
    health.pass(s(1802));
    health.proved(&card());
    let passed: Vec<(State, State)> =
        changes(&mut health).iter().map(|change| (change.from, change.now.state)).collect();
    assert_eq!(
        passed,
        [
            (State::Healthy, State::Quarantined),
            (State::Quarantined, State::Probation),
            (State::Probation, State::Quarantined),
            (State::Quarantined, State::Probation),
            (State::Probation, State::Healthy),
        ]
    );
}

#[test]
fn a_card_that_fails_again_and_again_is_retired_and_its_owner_may_readmit_it() {
    let mut health = Health::default();
    let mut now = s(0);
    for _ in 0..QUARANTINES_MAX {
        health.defect(&card(), "Xid 79");
        now += QUIET.max * 2;
        health.pass(now);
        now += s(1);
        health.pass(now + QUIET.max);
        health.proved(&card());
        now += QUIET.max;
    }
    assert_eq!(health.state(&card()), State::Retired);
    assert!(health.readmit(&card()) && !health.readmit(&card()));
    health.pass(now);
    assert_eq!(health.to_prove(now).count(), 1);
    health.proved(&card());
    assert_eq!(health.state(&card()), State::Healthy);
}

#[test]
fn a_healthy_week_makes_up_for_quarantines_also_after_a_restart() {
    let record = Record { state: State::Healthy, why: "Xid 79".to_owned(), quarantines: 4 };
    let mut health = Health::default();
    health.restore([(card(), record)].into());
    health.pass(s(10));
    health.pass(s(10) + HEALED / 2);
    assert_eq!(health.change(), None);
    health.pass(s(10) + HEALED);
    assert_eq!(health.change().expect("it is written").now.quarantines, 0);
    health.defect(&card(), "Xid 79");
    assert_eq!(health.state(&card()), State::Quarantined);
}

#[test]
fn a_host_that_gives_no_card_to_anybody_retires_none() {
    let mut health = Health::default();
    health.pass(s(0));
    health.defect(&card(), "Xid 79");
    health.pass(s(0));
    health.pass(s(600));
    for at in 600..9000 {
        if health.to_prove(s(at)).count() == 1 {
            health.not_tried(&card(), "driver not loaded");
        }
        health.pass(s(at));
    }
    assert_eq!(health.state(&card()), State::Probation);
}

#[test]
fn three_doubts_in_an_hour_are_more_than_a_doubt() {
    let mut health = Health::default();
    for at in [0, 10, 20] {
        health.pass(s(at));
        health.doubt(&card(), "Xid 94");
        health.proved(&card());
    }
    assert_eq!(health.state(&card()), State::Quarantined);
    let mut health = Health::default();
    for at in [0, 1800, 3601] {
        health.pass(s(at));
        health.doubt(&card(), "Xid 94");
        health.proved(&card());
    }
    assert_eq!(health.state(&card()), State::Healthy);
}

#[test]
fn a_card_that_only_could_not_be_given_is_never_put_into_quarantine() {
    let mut health = Health::default();
    for at in 0..50 {
        health.pass(s(at));
        health.not_given(&card(), "the hook is broken");
    }
    assert_eq!(health.state(&card()), State::Suspect);
}

#[test]
fn samples_tell_of_heat_that_stays_and_of_memory_that_fails() {
    let hot = || Sample { slowed: Ok(Slowed { thermal: true, power_brake: false }), ..sample() };
    let mut health = Health::default();
    for _ in 0..2 {
        health.sampled(&round(hot()));
    }
    health.sampled(&round(sample()));
    for _ in 0..2 {
        health.sampled(&round(hot()));
    }
    assert_eq!(health.state(&card()), State::Healthy, "a peak is no sign");
    health.sampled(&round(hot()));
    assert_eq!(health.state(&card()), State::Suspect);
    for at in 0..100 {
        health.sampled(&round(hot()));
        health.pass(s(at));
        assert_eq!(health.to_prove(s(at + 50)).count(), 0, "not as long as it is hot");
    }
    health.sampled(&round(sample()));
    assert_eq!(health.to_prove(s(200)).count(), 1);

    let wrong = |errors| Sample { uncorrected_errors: Ok(errors), ..sample() };
    let mut health = Health::default();
    health.sampled(&round(wrong(7)));
    health.sampled(&round(wrong(7)));
    assert_eq!(health.state(&card()), State::Healthy, "they are of before the node's start");
    let unknown = Err(Unknown::NotSupported);
    health.sampled(&round(Sample { uncorrected_errors: unknown, ..sample() }));
    health.sampled(&round(wrong(9)));
    assert_eq!(health.state(&card()), State::Quarantined);
    health.sampled(&round(Sample { rows: Ok(Rows { pending: true, failed: true }), ..sample() }));
    assert_eq!(health.state(&card()), State::Retired);
    let mut health = Health::default();
    health.sampled(&[(card(), Err(Unknown::Lost))].into());
    assert_eq!(health.state(&card()), State::Quarantined);
}

#[test]
fn a_restart_forgets_no_sick_card() {
    let mut health = Health::default();
    health.pass(s(0));
    health.defect(&card(), "Xid 79");
    let records =
        changes(&mut health).into_iter().map(|change| (change.card, change.now)).collect();
    let mut later = Health::default();
    later.restore(records);
    assert_eq!(later.state(&card()), State::Quarantined);
    later.pass(s(5));
    later.pass(s(604));
    assert_eq!(later.state(&card()), State::Quarantined, "its quiet time begins anew");
    later.pass(s(605));
    assert_eq!(later.state(&card()), State::Probation);
    for state in
        [State::Healthy, State::Suspect, State::Quarantined, State::Probation, State::Retired]
    {
        assert_eq!(State::named(state.name()), Some(state));
    }
}

proptest! {
    /// Whatever happens: only a proof makes a card healthy, each change continues the one before, and a
    /// card that is not retired is proved again in the end.
    #[test]
    fn every_way_back_leads_over_a_proof(happened in prop::collection::vec(0..9_u8, 0..60)) {
        let mut health = Health::default();
        let mut now = s(0);
        for what in happened {
            now += s(61);
            let before = health.state(&card());
            match what {
                0 => { health.happened(&card(), CardEvent::Xid(79)); }
                1 => { health.happened(&card(), CardEvent::Xid(94)); }
                2 => { health.happened(&card(), CardEvent::Xid(31)); }
                3 => health.not_given(&card(), "x"),
                4 => health.proved(&card()),
                5 => health.sampled(&round(sample())),
                6 => { now += QUIET.max; health.pass(now); }
                7 => { health.readmit(&card()); }
                _ => health.pass(now),
            }
            let state = health.state(&card());
            let is_proved = what == 4 && matches!(before, State::Suspect | State::Probation);
            prop_assert!(state != State::Healthy || before == State::Healthy || is_proved);
        }
        let mut state = State::Healthy;
        for change in changes(&mut health) {
            prop_assert_eq!(change.from, state);
            prop_assert!(change.now.state != state);
            state = change.now.state;
        }
        if health.state(&card()) != State::Retired {
            for _ in 0..3 {
                now += QUIET.max;
                health.pass(now);
                if health.to_prove(now).count() == 1 {
                    health.proved(&card());
                }
            }
            prop_assert_eq!(health.state(&card()), State::Healthy);
        }
    }
}
