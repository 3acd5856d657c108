use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// Numbers that look random, the same ones each time.
struct Noise(u64);

impl Noise {
    /// A number below `bound`.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// A minute of a job that works on a CPU, looked at each second, as a kernel shows one: CPU time to the microsecond,
/// memory in pages, bursts of reads and writes, some packets.
pub(super) fn busy_minute(seed: u64) -> Batch {
    let mut noise = Noise(seed);
    let mut totals = Readings::unknown(Unknown::NotSupported);
    for (metric, start) in [
        (Metric::Cpu, 81_093_112),
        (Metric::Memory, 412_221_440),
        (Metric::MemoryPeak, 498_073_600),
        (Metric::CpuPressure, 91_442),
        (Metric::MemoryPressure, 0),
        (Metric::IoPressure, 20_117),
        (Metric::DiskRead, 41_943_040),
        (Metric::DiskWrite, 8_814_592),
        (Metric::NetRx, 190_432),
        (Metric::NetTx, 64_011),
        (Metric::Processes, 3),
        (Metric::Threads, 18),
        (Metric::Descriptors, 41),
    ] {
        totals[metric] = Ok(start);
    }
    let mut since_us = 120_000_000;
    let sample = |_| {
        since_us += 999_800 + noise.below(400);
        let often = noise.below(4) == 0;
        for (metric, more) in [
            (Metric::Cpu, 700_000 + noise.below(300_000)),
            (Metric::Memory, 4_096 * noise.below(200)),
            (Metric::MemoryPeak, if often { 4_096 * noise.below(40) } else { 0 }),
            (Metric::CpuPressure, noise.below(900)),
            (Metric::IoPressure, if often { noise.below(5_000) } else { 0 }),
            (Metric::DiskRead, if often { 4_096 * noise.below(300) } else { 0 }),
            (Metric::DiskWrite, if often { 4_096 * noise.below(300) } else { 0 }),
            (Metric::NetRx, if often { noise.below(3_000) } else { 0 }),
            (Metric::NetTx, if often { noise.below(1_500) } else { 0 }),
        ] {
            totals[metric] = totals[metric].map(|value| value + more);
        }
        totals[Metric::Threads] = Ok(16 + noise.below(20) / 8);
        totals[Metric::Descriptors] = Ok(41 + noise.below(20) / 10);
        let at = Timestamp::from_unix_ms(1_800_000_000_000 + since_us / 1_000);
        Sample { at, since_start: Duration::from_micros(since_us), job: totals, cards: Vec::new() }
    };
    Batch {
        job_id: "550e8400-e29b-41d4-a716-446655440001".parse().unwrap(),
        attempt: 1,
        node: Address::new([0x5a; 20]),
        number: 2,
        prev: head_of(&seed.to_be_bytes()),
        samples: (0..60).map(sample).collect(),
        marks: Vec::new(),
        cost: Cost { cpu_us: 2_214, bytes: 1_871 },
    }
}

pub(super) fn pack(batch: &Batch) -> Vec<u8> {
    batch.pack().unwrap().bytes
}

#[test]
fn a_sample_takes_at_most_40_bytes_on_the_stream() {
    for seed in 0..20 {
        let batch = busy_minute(seed);
        let bytes = pack(&batch).len();
        let each = bytes.div_ceil(batch.samples.len());
        assert!(each <= 40, "{bytes} bytes for {} samples", batch.samples.len());
    }
}

#[test]
fn a_batch_is_text_that_any_program_reads() {
    let mut batch = busy_minute(1);
    batch.samples.truncate(2);
    batch.marks = vec![
        Mark { at: Timestamp::from_unix_ms(0), kind: MarkKind::Xid { number: 79, card: None } },
        Mark { at: Timestamp::from_unix_ms(0), kind: MarkKind::ClockStep { ms: -5 } },
    ];
    let text: Value = serde_json::from_slice(&batch.text().unwrap()).unwrap();
    assert_eq!((&text["v"], &text["number"]), (&json!(1), &json!(2)));
    let [first, second] = [0, 1].map(|at| micros(batch.samples[at].since_start));
    assert_eq!(text["since_start_us"], json!([first, second - first]));
    assert_eq!(text["job"]["values"]["processes"], json!([3, 0]));
    assert_eq!(text["job"]["unknown"], json!({"swap_bytes": "not_supported"}));
    assert_eq!(
        text["marks"],
        json!([
            {"at": "1970-01-01T00:00:00.000Z", "kind": "xid", "number": 79, "card": null},
            {"at": "1970-01-01T00:00:00.000Z", "kind": "clock_step", "ms": -5},
        ])
    );
}

/// The refusal of this text, compressed.
fn refusal(text: &[u8]) -> String {
    Batch::unpack(&compress_to_vec_zlib(text, LEVEL)).unwrap_err().to_string()
}

#[test]
fn what_is_no_batch_is_refused() {
    let mut good = busy_minute(1);
    let mut card = CardReadings::unknown(Unknown::Denied);
    card[CardMetric::Power] = Ok(1);
    for sample in &mut good.samples {
        sample.cards = vec![(GpuUuid::new("GPU-1").unwrap(), card)];
    }
    good.marks = vec![Mark::own(Timestamp::default(), "loss", 0.5).unwrap()];
    let text = String::from_utf8(good.text().unwrap()).unwrap();
    assert!(Batch::unpack(&compress_to_vec_zlib(text.as_bytes(), LEVEL)).is_ok());
    for (from, to, says) in [
        ("{\"v\":1", "{\"v\":2", "version 2"),
        ("\"number\":2", "\"number\":02", "invalid number"),
        ("\"number\":2", "\"number\": 2", "one form"),
        ("\"number\":2", "\"number\":2,\"number\":2", "duplicate"),
        ("\"number\":2", "\"colour\":2", "unknown field"),
        ("\"number\":2", "\"number\":-2", "invalid value"),
        ("\"at_ms\":[", "\"at_ms\":[1,", "lack times"),
        ("\"processes\":[3,", "\"processes\":[3,0,", "`processes` has 61 values for 60 samples"),
        ("\"processes\":[3,", "\"processes\":[null,", "too few reasons"),
        ("\"processes\":[", "\"colour\":[", "`processes` has 0 values"),
        ("\"not_supported\"", "\"nowhere\"", "nowhere"),
        ("\"GPU-1\"", "\"all\"", "`uuid`"),
        ("\"loss\"", "\"lo ss\"", "a mark"),
        ("\"0.5\"", "\"inf\"", "a mark"),
        ("\"0.5\"", "\"0.50\"", "one form"),
        ("\"0.5\"", "0.5", "invalid type"),
    ] {
        assert!(text.contains(from), "{from}");
        let refusal = refusal(text.replacen(from, to, 1).as_bytes());
        assert!(refusal.contains(says), "{from} -> {to}: {refusal}");
    }
}

#[test]
fn a_batch_takes_bounded_memory() {
    assert!(refusal(&vec![b' '; TEXT_BYTES_MAX + 1]).contains("zlib data of at most"));
    assert!(Batch::unpack(&vec![0; BYTES_MAX + 1]).unwrap_err().to_string().contains("longer"));
    assert!(Batch::unpack(b"").is_err());
    let nested = "[".repeat(TEXT_BYTES_MAX / 2);
    assert!(Batch::unpack(&compress_to_vec_zlib(nested.as_bytes(), LEVEL)).is_err());
}

#[test]
fn what_is_over_a_limit_is_not_written() {
    let good = busy_minute(1);
    let refusal = |batch: Batch| batch.pack().unwrap_err().to_string();
    let card =
        |n| (GpuUuid::new(&format!("GPU-{n}")).unwrap(), CardReadings::unknown(Unknown::Off));
    let mut many_cards = good.clone();
    many_cards.samples.truncate(1);
    many_cards.samples[0].cards = (0..17).map(card).collect();
    assert!(refusal(many_cards).contains("16 cards"));
    let mut other_cards = good.clone();
    other_cards.samples[5].cards = vec![card(1)];
    assert!(refusal(other_cards).contains("different cards"));
    let samples = vec![good.samples[0].clone(); SAMPLES_MAX + 1];
    assert!(refusal(Batch { samples, ..good.clone() }).contains("1000 samples"));
    let mark = Mark { at: Timestamp::default(), kind: MarkKind::Oom };
    assert!(refusal(Batch { marks: vec![mark; MARKS_MAX + 1], ..good.clone() }).contains("marks"));
    let own = MarkKind::Own { name: "a b".to_owned(), value: 0.0 };
    let marks = vec![Mark { at: Timestamp::default(), kind: own }];
    assert!(refusal(Batch { marks, ..good }).contains("a mark"));
}

fn any_reading() -> impl Strategy<Value = Reading> {
    use Unknown::{Denied, Failed, Gone, Missed, NotSupported, Off, TooOld};
    let whys = vec![Off, NotSupported, Denied, TooOld, Gone, Failed, Missed];
    prop_oneof![
        2 => (0..1_000_u64).prop_map(Ok),
        1 => any::<u64>().prop_map(Ok),
        1 => proptest::sample::select(whys).prop_map(Err),
    ]
}

fn any_sample(cards: usize) -> impl Strategy<Value = Sample> {
    let row = proptest::collection::vec(any_reading(), Metric::COUNT);
    let card = proptest::collection::vec(any_reading(), CardMetric::COUNT);
    let cards = proptest::collection::vec(card, cards);
    let at = 0..=Timestamp::MAX.unix_ms();
    (at, any::<u64>(), row, cards).prop_map(|(at_ms, since_us, row, cards)| {
        let mut job = Readings::unknown(Unknown::Failed);
        for (metric, reading) in Metric::ALL.into_iter().zip(row) {
            job[metric] = reading;
        }
        let cards = cards.into_iter().enumerate().map(|(at, row)| {
            let mut card = CardReadings::unknown(Unknown::Failed);
            for (metric, reading) in CardMetric::ALL.into_iter().zip(row) {
                card[metric] = reading;
            }
            (GpuUuid::new(&format!("MIG-{at}")).unwrap(), card)
        });
        let since_start = Duration::from_micros(since_us);
        let at = Timestamp::from_unix_ms(at_ms);
        Sample { at, since_start, job, cards: cards.collect() }
    })
}

fn any_mark() -> impl Strategy<Value = Mark> {
    let card =
        proptest::option::of("GPU-[a-z0-9]{1,9}".prop_map(|text| GpuUuid::new(&text).unwrap()));
    let value = any::<f64>().prop_filter("finite", |value| value.is_finite());
    let kind = prop_oneof![
        Just(MarkKind::Oom),
        (any::<u32>(), card.clone()).prop_map(|(number, card)| MarkKind::Xid { number, card }),
        card.prop_map(|card| MarkKind::Throttled { card }),
        any::<i64>().prop_map(|ms| MarkKind::ClockStep { ms }),
        any::<u64>().prop_map(|ms| MarkKind::Gap { ms }),
        Just(MarkKind::CounterReset),
        ("[A-Za-z0-9_.:/-]{1,64}", value).prop_map(|(name, value)| MarkKind::Own { name, value }),
    ];
    (0..=Timestamp::MAX.unix_ms(), kind)
        .prop_map(|(at_ms, kind)| Mark { at: Timestamp::from_unix_ms(at_ms), kind })
}

proptest! {
    #[test]
    fn a_batch_reads_back_as_it_was_written(
        samples in (0..3_usize).prop_flat_map(|cards| {
            proptest::collection::vec(any_sample(cards), 0..12)
        }),
        marks in proptest::collection::vec(any_mark(), 0..5),
        (attempt, number, prev) in (any::<u32>(), any::<u32>(), any::<[u8; 32]>()),
        (cpu_us, bytes) in any::<(u64, u64)>(),
    ) {
        let cost = Cost { cpu_us, bytes };
        let prev = Hash(prev);
        let batch = Batch { attempt, number, prev, samples, marks, cost, ..busy_minute(0) };
        let packed = batch.pack().unwrap();
        prop_assert_eq!(Batch::unpack(&packed.bytes), Ok((batch, packed.head)));
    }

    #[test]
    fn whatever_comes_is_read_or_refused(mut bytes in Just(pack(&busy_minute(0))), at: usize, to: u8) {
        let at = at % bytes.len();
        bytes[at] = to;
        Batch::unpack(&bytes).ok();
    }
}
