//! Checks a node's signed record of what a job used, and the series of samples that it names, without trust in whoever
//! delivered them.

use serde_json::Value;

use crate::chain::key::recover;
use crate::ids::{Hash, JobId};
use crate::job::receipt::Signed;
use crate::usage::advice::size;
use crate::usage::{Chain, Metric, Sample, SignedUsage};

/// The record if the node of this receipt signed it for exactly this receipt; else what is wrong with it.
pub(super) fn check(document: &Value, receipt: &Signed) -> Result<SignedUsage, String> {
    let signed = SignedUsage::from_json(document).map_err(|err| err.to_string())?;
    let digest = receipt.receipt.digest(&receipt.domain);
    if signed.record.receipt_digest != digest || signed.domain != receipt.domain {
        return Err("its usage record is of another receipt".to_owned());
    }
    let by = recover(&signed.record.digest(&signed.domain).0, &signed.signature.0);
    if signed.record.node != receipt.receipt.node || by != Ok(receipt.receipt.node) {
        return Err("its usage record is not signed by the node that it names".to_owned());
    }
    Ok(signed)
}

/// Checks that these batches, one base64 text a line, are all that the record rests on, whole and in order.
pub(super) fn check_series(record: &SignedUsage, job: &JobId, lines: &str) -> Result<(), String> {
    let mut batches = Vec::new();
    for (at, line) in lines.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let batch = data_encoding::BASE64.decode(line.trim().as_bytes());
        batches.push(batch.map_err(|_| format!("line {} of the series is not base64", at + 1))?);
    }
    if record.record.series_head == Hash([0; 32]) {
        return Err("the record names no series".to_owned());
    }
    // A batch that was published twice proves nothing bad.
    batches.dedup();
    let (mut chain, mut last) = (Chain::default(), None);
    for body in &batches {
        let batch = chain.follow(body);
        let batch = batch.map_err(|broken| format!("the series is not whole: {broken}"))?;
        if batch.job_id != *job || batch.node != record.record.node {
            return Err("the series is of another job or node".to_owned());
        }
        last = batch.samples.last().cloned();
    }
    let head = chain.head();
    if head.hash != record.record.series_head {
        return Err("the series is not the one that the record was signed for".to_owned());
    }
    if head.samples != record.record.samples {
        let (found, signed) = (head.samples, record.record.samples);
        return Err(format!("the series has {found} samples, and the record is of {signed}"));
    }
    last.map_or(Ok(()), |last| agrees(record, &last))
}

/// Whether the last sample, which was taken after the end, says what was signed.
fn agrees(record: &SignedUsage, last: &Sample) -> Result<(), String> {
    let metrics = [
        Metric::Cpu,
        Metric::MemoryPeak,
        Metric::DiskRead,
        Metric::DiskWrite,
        Metric::NetRx,
        Metric::NetTx,
    ];
    for ((name, figure), metric) in record.record.figures().into_iter().zip(metrics) {
        if figure != last.job[metric].ok() {
            return Err(format!("the record's {name} is not what the last sample says"));
        }
    }
    Ok(())
}

/// The record's figures in one line.
pub(super) fn describe(signed: &SignedUsage) -> String {
    let record = &signed.record;
    let mut words = Vec::new();
    for (name, figure) in record.figures() {
        let Some(value) = figure else { continue };
        let ms = |ms: u64| format!("{}.{:03} s", ms / 1000, ms % 1000);
        words.push(match name {
            "cpuUs" => format!("{} of CPU", ms(value / 1000)),
            "memoryPeakBytes" => format!("{} of memory at most", size(value)),
            "ioReadBytes" => format!("{} read", size(value)),
            "ioWriteBytes" => format!("{} written", size(value)),
            "netRxBytes" => format!("{} received", size(value)),
            "netTxBytes" => format!("{} sent", size(value)),
            "gpuMs" => format!("{} of GPU", ms(value)),
            _ => format!("{} J", value / 1000),
        });
    }
    format!("used {} ({} samples)", words.join(", "), record.samples)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::chain::Key;
    use crate::clock::Timestamp;
    use crate::ids::{Address, Domain, Signature};
    use crate::usage::{Batch, Cost, Readings, Record, Unknown, Usage};

    /// A change to a signed record's content.
    type Change = fn(&mut Usage);

    const DOMAIN: Domain = Domain { chain_id: 31337, contract: Address::new([3; 20]) };

    /// The lines of two batches of a job, and the record that was signed for them, changed by `change`.
    fn signed(change: impl FnOnce(&mut Usage)) -> (SignedUsage, JobId, Vec<String>) {
        let key = Key::random();
        let job: JobId = "job-1".parse().unwrap();
        let (mut prev, mut lines) = (Hash([0; 32]), Vec::new());
        for number in 0..2 {
            let mut readings = Readings::unknown(Unknown::NotSupported);
            readings[Metric::Cpu] = Ok(1_000 * (u64::from(number) + 1));
            let sample = Sample {
                at: Timestamp::from_unix_ms(1_700_000_000_000),
                since_start: Duration::from_secs(number.into()),
                job: readings,
                cards: Vec::new(),
            };
            let batch = Batch {
                job_id: job.clone(),
                attempt: 1,
                node: key.address(),
                number,
                prev,
                samples: vec![sample],
                marks: Vec::new(),
                cost: Cost::default(),
            };
            let packed = batch.pack().unwrap();
            lines.push(data_encoding::BASE64.encode(&packed.bytes));
            prev = packed.head;
        }
        let unknown = Usage::unknown(Unknown::NotSupported);
        let mut usage = Usage { cpu_us: Ok(2_000), samples: 2, series_head: prev, ..unknown };
        change(&mut usage);
        let record = Record::new(Hash([9; 32]), key.address(), &usage);
        let signature = Signature(key.sign_digest(&record.digest(&DOMAIN).0));
        (SignedUsage { domain: DOMAIN, record, signature }, job, lines)
    }

    fn verdict(
        (record, job, lines): (SignedUsage, JobId, Vec<String>),
        order: &[usize],
    ) -> Result<(), String> {
        let lines: Vec<String> = order.iter().map(|at| lines[*at].clone()).collect();
        check_series(&record, &job, &lines.join("\n"))
    }

    #[test]
    fn the_series_that_was_signed_is_accepted_also_if_a_batch_came_twice() {
        assert_eq!(verdict(signed(|_| {}), &[0, 1]), Ok(()));
        assert_eq!(verdict(signed(|_| {}), &[0, 0, 1, 1]), Ok(()));
    }

    #[test]
    fn a_series_that_is_not_the_signed_one_or_says_something_else_is_refused() {
        for (order, says) in [
            (&[0][..], "signed for"),
            (&[1], "not whole"),
            (&[1, 0], "not whole"),
            (&[], "signed for"),
        ] {
            let refused = verdict(signed(|_| {}), order).unwrap_err();
            assert!(refused.contains(says), "{order:?}: {refused}");
        }
        let cases: [(Change, &str); 4] = [
            (|usage| usage.cpu_us = Ok(1_999), "cpuUs"),
            (|usage| usage.net_rx_bytes = Ok(5), "netRxBytes"),
            (|usage| usage.samples = 3, "samples"),
            (|usage| usage.series_head = Hash([0; 32]), "names no series"),
        ];
        for (change, says) in cases {
            let refused = verdict(signed(change), &[0, 1]).unwrap_err();
            assert!(refused.contains(says), "{refused}");
        }
        let (record, _, lines) = signed(|_| {});
        let other = check_series(&record, &"job-2".parse().unwrap(), &lines.join("\n"));
        assert!(other.unwrap_err().contains("another job"));
        let (record, job, _) = signed(|_| {});
        assert!(check_series(&record, &job, "no base64!").unwrap_err().contains("line 1"));
    }
}
