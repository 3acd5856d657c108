//! What counts as told, of one node by one rule, as two hubs see it.

use proptest::prelude::*;

use super::*;

fn at(s: u64) -> Timestamp {
    Timestamp::from_unix_ms(1_800_000_000_000 + s * 1_000)
}

fn down(joined: u64, well_before: Option<u64>) -> Tells {
    let say = Say { subject: Subject::of("node-down", "a"), is_well: false, when: at(joined) };
    let saying = Saying { say, joined: at(joined), well_before: well_before.map(at) };
    Tells { kind: NoticeKind::Opened, decided: at(joined), sayings: vec![saying] }
}

fn up(joined: u64, ended: u64) -> Tells {
    let say = Say { subject: Subject::of("node-down", "a"), is_well: true, when: at(ended) };
    let saying = Saying { say, joined: at(joined), well_before: None };
    Tells { kind: NoticeKind::Resolved, decided: at(ended), sayings: vec![saying] }
}

fn says(tells: &Tells) -> Vec<Say> {
    tells.sayings.iter().map(|it| it.say).collect()
}

fn told(all: &[Tells]) -> Told {
    let mut told = Told::default();
    for tells in all {
        told.note(&says(tells), tells.decided, false);
    }
    told
}

#[test]
fn what_nobody_told_is_new_and_what_the_other_hub_told_is_not() {
    assert_eq!(Told::default().verdict(&down(0, None)), Verdict::New);
    let told = told(&[down(100, None)]);
    // It decided two seconds later, or an hour later since it was away.
    assert_eq!(told.verdict(&down(102, None)), Verdict::Told);
    assert_eq!(told.verdict(&down(3_700, None)), Verdict::Told);
    assert_eq!(told.verdict(&up(102, 200)), Verdict::New);
}

#[test]
fn a_second_trouble_is_new_although_nobody_told_the_end_of_the_first() {
    let told = told(&[down(100, None)]);
    assert_eq!(told.verdict(&down(500, Some(300))), Verdict::New);
    assert_eq!(told.verdict(&down(500, Some(50))), Verdict::Told, "that end was before it");
    assert_eq!(told.verdict(&down(500, Some(102))), Verdict::Doubtful, "nobody can say");
}

#[test]
fn an_end_is_told_once_and_an_end_of_an_earlier_trouble_is_none_of_this() {
    let told = told(&[down(100, None), up(100, 200)]);
    assert_eq!(told.verdict(&up(102, 203)), Verdict::Told);
    assert_eq!(told.verdict(&up(300, 400)), Verdict::New);
    let anew = {
        let mut told = told.clone();
        told.note(&says(&down(300, Some(200))), at(300), false);
        told
    };
    assert_eq!(anew.verdict(&up(102, 203)), Verdict::Told, "it is in trouble again since");
}

#[test]
fn a_message_that_says_one_thing_more_is_new() {
    let told = told(&[down(100, None)]);
    let mut two = down(101, None);
    two.sayings.push(Saying {
        say: Say { subject: Subject::of("node-down", "b"), ..two.sayings[0].say },
        ..two.sayings[0]
    });
    assert_eq!(told.verdict(&two), Verdict::New);
    let none = Tells { sayings: Vec::new(), ..two };
    assert_eq!(told.verdict(&none), Verdict::New);
}

#[test]
fn what_may_have_arrived_is_told_again_with_a_doubt_until_it_is_known() {
    let mut told = Told::default();
    told.note(&says(&down(100, None)), at(100), true);
    assert_eq!(told.verdict(&down(101, None)), Verdict::Doubtful);
    told.note(&says(&down(101, None)), at(110), false);
    assert_eq!(told.verdict(&down(101, None)), Verdict::Told);
    told.note(&says(&down(101, None)), at(111), true);
    assert_eq!(told.verdict(&down(101, None)), Verdict::Told, "a late doubt changes nothing");
}

#[test]
fn reminders_digests_and_tests_go_by_their_times() {
    let told_down = told(&[down(100, None)]);
    let remind =
        |decided| Tells { kind: NoticeKind::Reminder, decided: at(decided), ..down(100, None) };
    assert_eq!(told_down.verdict(&remind(160)), Verdict::New, "its own, after the shortest time");
    let mut reminded = told_down;
    reminded.note(&says(&remind(160)), at(160), false);
    assert_eq!(reminded.verdict(&remind(162)), Verdict::Told);
    let digest = |kind, decided| Tells::of_none(kind, "The day was quiet", at(decided));
    let told = told(&[digest(NoticeKind::Digest, 0)]);
    assert_eq!(told.verdict(&digest(NoticeKind::Digest, 20)), Verdict::Told);
    assert_eq!(told.verdict(&digest(NoticeKind::Digest, 86_400)), Verdict::New);
    assert_eq!(told.verdict(&digest(NoticeKind::Test, 0)), Verdict::New);
}

#[test]
fn an_end_of_an_earlier_incident_does_not_undo_a_later_trouble() {
    let told = told(&[down(300, Some(200)), up(100, 200)]);
    assert_eq!(told.verdict(&down(301, Some(201))), Verdict::Told);
}

#[test]
fn what_is_remembered_is_bounded_and_the_newest_stays() {
    let mut told = Told::default();
    let of = |number: u64| Say { subject: Subject(number), is_well: false, when: at(number) };
    for number in 0..=(ENTRIES_MAX as u64) {
        told.note(&[of(number)], at(number), false);
    }
    assert!(told.len() <= ENTRIES_MAX && told.len() > ENTRIES_MAX / 2, "{}", told.len());
    assert!(told.0.contains_key(&Subject(ENTRIES_MAX as u64)) && !told.0.contains_key(&Subject(0)));
}

/// A hub that decides for itself about one node.
#[derive(Debug, Default)]
struct Hub {
    /// What it decided and has not told or dropped, the oldest first.
    queue: Vec<Tells>,
    joined: u64,
    well: Option<u64>,
}

impl Hub {
    fn sees(&mut self, is_down: bool, now: u64) {
        if is_down {
            self.queue.push(down(now, self.well));
            self.joined = now;
        } else {
            self.queue.push(up(self.joined, now));
            self.well = Some(now);
        }
    }
}

/// Whether the first or the second hub sends, and whether it is cut short in one of its messages.
fn turns() -> impl Strategy<Value = Vec<(bool, bool)>> {
    proptest::collection::vec((any::<bool>(), proptest::bool::weighted(0.2)), 1..12)
}

proptest! {
    /// The node changes each minute, and each hub sees it within four seconds. After each change one of the hubs sends,
    /// the newest first as the outbox does, or begins to and is cut off.
    #[test]
    fn whoever_sends_the_last_state_is_told_and_nothing_twice_without_a_mark(
        turns in turns(),
        late in proptest::collection::vec((0_u64..4, 0_u64..4), 12),
    ) {
        let (mut hubs, mut told) = ([Hub::default(), Hub::default()], Told::default());
        let mut people: Vec<(bool, u64, bool)> = Vec::new();
        for (at, (turn, is_cut)) in turns.iter().enumerate() {
            let (is_down, change) = (at % 2 == 0, at as u64);
            let now = 60 * change + 60;
            hubs[0].sees(is_down, now + late[at].0);
            hubs[1].sees(is_down, now + late[at].1);
            let last = at + 1 == turns.len();
            let hub = &mut hubs[usize::from(*turn)];
            // The outbox tells the newest of an incident, and the older ones within it.
            while let Some(newest) = hub.queue.pop() {
                let verdict = told.verdict(&newest);
                if verdict != Verdict::Told {
                    let is_cut = *is_cut && !last;
                    told.note(&says(&newest), newest.decided, is_cut);
                    people.push((newest.kind == NoticeKind::Opened, change, verdict == Verdict::Doubtful));
                    if is_cut {
                        hub.queue.push(newest);
                        break;
                    }
                }
                hub.queue.clear();
            }
            let (said_down, _, _) = people.last().copied().unwrap();
            prop_assert_eq!(said_down, is_down, "people know how it is: {:?}", people);
        }
        for pair in people.windows(2) {
            let is_repeat = pair[0].0 == pair[1].0 && pair[0].1 == pair[1].1;
            prop_assert!(!is_repeat || pair[1].2, "{:?}", people);
        }
    }
}
