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
