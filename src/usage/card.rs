//! What a GPU's driver says, as readings of a card.
//!
//! Pure. Invariant: what the driver does not tell is unknown, with its reason, and never 0.

use super::metric::CardMetric;
use super::sample::{CardReadings, Reading, Unknown};
use crate::node::GpuUuid;
use crate::node::card::{Reading as Told, Round, Sample, Unknown as CardUnknown};

/// What a sample says of the card as a whole. Whose processes are on it, what they hold, and since when its energy
/// counts the caller knows: these three are [`Unknown::Failed`].
pub fn of_all(sample: &Sample) -> CardReadings {
    let mut told = CardReadings::unknown(Unknown::Failed);
    let number = |reading: &Told<u32>| reading.as_ref().map(|it| u64::from(*it)).map_err(why);
    told[CardMetric::Busy] = number(&sample.busy_percent);
    told[CardMetric::Power] = number(&sample.power_mw);
    told[CardMetric::SmClock] = number(&sample.sm_mhz);
    told[CardMetric::MemoryClock] = number(&sample.memory_mhz);
    told[CardMetric::Temperature] = number(&sample.celsius);
    let slowed = sample.slowed.as_ref().map_err(why);
    told[CardMetric::ThermalSlowdown] = slowed.map(|slowed| slowed.thermal.into());
    told[CardMetric::PowerBrake] = slowed.map(|slowed| slowed.power_brake.into());
    told
}

/// The cards on which one of these processes is, with what these hold of each; the error says why nobody can tell which
/// cards they use. `is_seen` says whether a process can be seen at all: where none can, whose they are is not known.
pub fn of_processes(
    round: &Round,
    pids: &[u32],
    is_seen: impl Fn(u32) -> bool,
) -> Result<Vec<(GpuUuid, CardReadings)>, Unknown> {
    let (mut cards, mut hidden) = (Vec::new(), None);
    for (uuid, sample) in round {
        let of = sample.as_ref().map_err(why);
        match of.and_then(|sample| of_program(sample, pids, &is_seen)) {
            Ok(Some(readings)) => cards.push((uuid.clone(), readings)),
            Ok(None) => {}
            Err(why) => hidden = Some(why),
        }
    }
    // One card that can't be looked at hides nothing of those on which the program was seen.
    match hidden {
        Some(why) if cards.is_empty() => Err(why),
        _ => Ok(cards),
    }
}

fn of_program(
    sample: &Sample,
    pids: &[u32],
    is_seen: &impl Fn(u32) -> bool,
) -> Result<Option<CardReadings>, Unknown> {
    let processes = sample.processes.as_ref().map_err(why)?;
    let mut its = processes.iter().filter(|it| pids.contains(&it.pid)).peekable();
    if its.peek().is_none() {
        // The driver tells the numbers of the host, which a container of our own doesn't know.
        let is_blind = !processes.is_empty() && !processes.iter().any(|it| is_seen(it.pid));
        return if is_blind { Err(Unknown::Denied) } else { Ok(None) };
    }
    let mut told = of_all(sample);
    told[CardMetric::Energy] = Err(Unknown::Off);
    let (mut count, mut bytes): (u64, Reading) = (0, Ok(0));
    for process in its {
        count += 1;
        bytes = match (bytes, &process.bytes) {
            (Ok(sum), Ok(more)) => Ok(sum.saturating_add(*more)),
            (Ok(_), Err(err)) => Err(why(err)),
            (unknown, _) => unknown,
        };
    }
    (told[CardMetric::Processes], told[CardMetric::Memory]) = (Ok(count), bytes);
    Ok(Some(told))
}

/// The driver's reason as one of a reading's.
pub fn why(unknown: &CardUnknown) -> Unknown {
    match unknown {
        CardUnknown::NotSupported => Unknown::NotSupported,
        CardUnknown::Denied => Unknown::Denied,
        CardUnknown::TooOld => Unknown::TooOld,
        CardUnknown::Lost => Unknown::Gone,
        CardUnknown::Failed(_) => Unknown::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::card::CardProcess;

    fn card(processes: Told<Vec<CardProcess>>) -> Sample {
        let unknown = Sample::unknown(&CardUnknown::NotSupported);
        Sample { busy_percent: Ok(93), processes, ..unknown }
    }

    fn process(pid: u32, bytes: Told<u64>) -> CardProcess {
        CardProcess { pid, bytes }
    }

    fn round(cards: Vec<(&str, Told<Sample>)>) -> Round {
        cards.into_iter().map(|(uuid, sample)| (GpuUuid::new(uuid).unwrap(), sample)).collect()
    }

    #[test]
    fn a_programs_cards_are_those_on_which_its_processes_are() {
        let round = round(vec![
            (
                "GPU-1",
                Ok(card(Ok(vec![process(7, Ok(100)), process(8, Ok(20)), process(9, Ok(3))]))),
            ),
            ("GPU-2", Ok(card(Ok(vec![process(9, Ok(3))])))),
            ("GPU-3", Ok(card(Ok(vec![])))),
            ("GPU-4", Err(CardUnknown::Lost)),
            ("GPU-5", Ok(card(Ok(vec![process(8, Err(CardUnknown::NotSupported))])))),
        ]);
        let cards = of_processes(&round, &[7, 8], |_| true).unwrap();
        let names: Vec<&str> = cards.iter().map(|(uuid, _)| uuid.as_str()).collect();
        assert_eq!(names, ["GPU-1", "GPU-5"]);
        let first = cards[0].1;
        assert_eq!((first[CardMetric::Memory], first[CardMetric::Processes]), (Ok(120), Ok(2)));
        assert_eq!(
            (first[CardMetric::Busy], first[CardMetric::Power]),
            (Ok(93), Err(Unknown::NotSupported))
        );
        assert_eq!(cards[1].1[CardMetric::Memory], Err(Unknown::NotSupported), "not 0");
    }

    #[test]
    fn where_nobody_can_tell_whose_a_cards_processes_are_its_cards_are_unknown_and_not_none() {
        let hidden = Ok(card(Err(CardUnknown::Denied)));
        let strange = || Ok(card(Ok(vec![process(4_000, Ok(1))])));
        let of = |cards, is_seen: bool| of_processes(&round(cards), &[7], |_| is_seen);
        assert_eq!(of(vec![("GPU-1", hidden)], true), Err(Unknown::Denied));
        assert_eq!(of(vec![("GPU-1", strange())], false), Err(Unknown::Denied));
        assert_eq!(of(vec![("GPU-1", strange())], true), Ok(Vec::new()));
        assert_eq!(of(vec![("GPU-1", Err(CardUnknown::Lost))], true), Err(Unknown::Gone));
        assert_eq!(of(vec![], true), Ok(Vec::new()));
    }
}
