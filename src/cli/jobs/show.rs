//! One job in full, as text.

use std::io;

use super::super::out;
use super::super::submit::stage_name;
use super::timeline::{self, Moment};
use super::{trouble_text, words};
use crate::ids::JobId;
use crate::job::Job;
use crate::job::phase::{Fault, Phase};
use crate::job::spec::{Needs, NetworkNeed};
use crate::job::status::{Durations, Status};
use crate::journal::{Chronicle, GpuReturn, KeptOutput, Publication, Standing, StatusRecord};

/// Prints everything about a job.
pub(super) fn print(
    chronicle: &Chronicle,
    has_receipt: bool,
    kept: Option<&KeptOutput>,
) -> io::Result<()> {
    let id = &chronicle.record.id;
    match &chronicle.record.standing {
        Standing::Taken(job) => {
            out::line(&format!("job {id}: {}, since {}", words::phase(&job.phase), job.since))?;
            facts(job, chronicle)?;
            events(job, chronicle)?;
        }
        Standing::Refused { status, uses_id_up } => {
            out::line(&format!("job {id}: rejected at {}", status.timestamp))?;
            let free = "it was not proved whose the id is, so its owner may still use it";
            field("the id", if *uses_id_up { "is used up" } else { free })?;
        }
        Standing::IdOnly { phase, until } => {
            out::line(&format!("job {id}: {phase}, long ago"))?;
            return field("the id", &format!("is all that is remembered, until {until}"));
        }
    }
    statuses(&chronicle.said)?;
    out::line("")?;
    if let Some(StatusRecord { status, .. }) = chronicle.said.last() {
        let cids = [("output", &status.output_cid), ("log", &status.log_cid)];
        for (name, cid) in cids {
            cid.as_ref().map_or(Ok(()), |cid| field(name, &cid.to_string()))?;
        }
    }
    kept.map_or(Ok(()), |kept| field("kept", &kept_text(id, kept)))?;
    if has_receipt {
        field("receipt", &format!("`lamda-node receipt show {id}`"))?;
    }
    verdict(chronicle)
}

/// The state of an output that could not be published in time.
fn kept_text(id: &JobId, kept: &KeptOutput) -> String {
    let until = kept.kept.until;
    match (&kept.result, kept.said, kept.asked) {
        (Some(result), true, _) => format!("published after all: {}", result.output_cid),
        (Some(_), false, _) | (None, _, Some(_)) => {
            format!("the output, until {until}; it is being published")
        }
        (None, _, None) => {
            format!("the output, until {until}: `lamda-node jobs retry {id}` publishes it")
        }
    }
}

fn facts(job: &Job, chronicle: &Chronicle) -> io::Result<()> {
    let spec = &job.spec;
    field("image", &out::clean(&spec.image))?;
    if let Some(cid) = &spec.input {
        field("input", &cid.to_string())?;
    }
    for input in &spec.inputs {
        field("input", &format!("{} at {}", input.cid, out::clean(&input.path)))?;
    }
    field("needs", &needs(&spec.needs))?;
    let deadline = spec.deadline.map(|at| format!(", finished by {at}")).unwrap_or_default();
    let timeout = words::span(spec.timeout);
    field("time", &format!("{timeout} of running at most{deadline}"))?;
    field("from", &job.target)?;
    if let Some(requester) = spec.requester {
        field("requester", &requester.to_string())?;
    }
    let lost = match job.lost {
        0 => String::new(),
        lost => format!(" ({} lost before its exit)", words::count(lost as usize, "container")),
    };
    field("attempt", &format!("{}{lost}", job.attempt))?;
    let cards: Vec<String> = chronicle.cards().iter().map(ToString::to_string).collect();
    if !cards.is_empty() {
        field("cards", &out::clean(&cards.join(", ")))?;
    }
    for returned in &chronicle.returned {
        field("GPU", &returned_text(returned))?;
    }
    let took = took(&job.durations);
    if took.is_empty() { Ok(()) } else { field("took", &took) }
}

/// When a card that it left was free for the next job.
fn returned_text(returned: &GpuReturn) -> String {
    let GpuReturn { card, free_after, why, .. } = returned;
    let held = why.as_deref().map(|why| format!("; held back: {}", out::clean(why)));
    let freed = match free_after {
        Some(after) => format!("was free {} ms after the job", after.as_millis()),
        None => "was not seen free of the job yet".to_owned(),
    };
    format!("{card} {freed}{}", held.unwrap_or_default())
}

fn events(job: &Job, chronicle: &Chronicle) -> io::Result<()> {
    out::line("\nwhat happened")?;
    out::line(&format!("  {} {:>13}  received", job.received_at, ""))?;
    if chronicle.events_left_out > 0 {
        out::line(&format!("  … {} older events …", chronicle.events_left_out))?;
    }
    for moment in timeline::fold(job.received_at, &chronicle.events) {
        out::line(&moment_line(&moment))?;
    }
    Ok(())
}

fn moment_line(moment: &Moment) -> String {
    let Moment { at, text, times, .. } = moment;
    let after = format!("+{}", words::span(moment.after));
    let again = match *times {
        1 => String::new(),
        times => {
            let lasted = words::span(moment.until.since(*at));
            format!(" [{times} times in {lasted}]")
        }
    };
    format!("  {at} {after:>13}  {text}{again}")
}

fn statuses(said: &[StatusRecord]) -> io::Result<()> {
    out::line("\nwhat was said")?;
    for StatusRecord { status, publication } in said {
        let Status { seq, timestamp, .. } = status;
        let publication = match publication {
            Publication::Waiting => "not published yet",
            Publication::Sent => "published",
            Publication::AskedAgain => "published, and to be said once more",
        };
        let stage = stage_name(status.stage);
        out::line(&format!("  {timestamp} {seq:>3} {stage:<11} {publication}"))?;
    }
    Ok(())
}

/// Prints the job's state or end, the reason, and the remedy.
fn verdict(chronicle: &Chronicle) -> io::Result<()> {
    let status = chronicle.said.last().map(|said| &said.status);
    match &chronicle.record.standing {
        Standing::Refused { status, .. } => {
            field("refused", &out::clean(status.error.as_deref().unwrap_or_default()))?;
            let error = status.error.clone().unwrap_or_default();
            let fault = status.reason_code.map(|reason| Fault::new(reason, error));
            fault.as_ref().map_or(Ok(()), explain)
        }
        Standing::IdOnly { .. } => Ok(()),
        Standing::Taken(job) => match (job.phase.outcome(), &job.trouble) {
            (Some(end), trouble) => {
                let code = status.and_then(|status| status.exit_code);
                let code = code.map(|code| format!(", exit code {code}")).unwrap_or_default();
                field("ended", &format!("{}{code}", words::outcome(end)))?;
                if let Some(fault) = words::fault_of(end) {
                    field("why", &out::clean(&fault.error))?;
                    explain(fault)?;
                }
                trouble.as_ref().map_or(Ok(()), |trouble| field("but", &trouble_text(trouble)))
            }
            (None, Some(trouble)) => {
                field("trouble", &trouble_text(trouble))?;
                explain(&trouble.fault)
            }
            (None, None) if job.phase == Phase::Waiting => field(
                "to do",
                "Nothing: it goes on when it is delivered again, or the node starts.",
            ),
            (None, None) => field("to do", "Nothing: the job goes on by itself."),
        },
    }
}

fn explain(fault: &Fault) -> io::Result<()> {
    let reason = fault.reason;
    field("reason", &format!("{}: {}", reason.code(), reason.meaning()))?;
    field("to do", fault.remedy())
}

fn field(name: &str, text: &str) -> io::Result<()> {
    out::line(&format!("  {name:<9}  {text}"))
}

fn needs(needs: &Needs) -> String {
    let gpus = needs.gpus.map(|gpus| words::count(gpus as usize, "GPU"));
    let model = needs.gpu_model.as_deref().map(|model| format!("of model {}", out::clean(model)));
    let vram = needs.min_vram_mib.map(|mib| format!("{mib} MiB on each GPU"));
    let cpus = needs.milli_cpus.map(|milli| format!("{}.{:03} cores", milli / 1000, milli % 1000));
    let memory = needs.memory_mib.map(|mib| format!("{mib} MiB of memory"));
    let disk = needs.disk_mib.map(|mib| format!("{mib} MiB of disk"));
    let network = match needs.network {
        NetworkNeed::None => None,
        NetworkNeed::Internet => Some("the internet".to_owned()),
        NetworkNeed::Bridge => Some("the host's network".to_owned()),
    };
    let all = [gpus, model, vram, cpus, memory, disk, network];
    let all: Vec<String> = all.into_iter().flatten().collect();
    if all.is_empty() { "what the node gives by default".to_owned() } else { all.join(", ") }
}

fn took(durations: &Durations) -> String {
    let parts = [
        ("pull", durations.pull),
        ("input", durations.input),
        ("waiting for a slot", durations.queued),
        ("run", durations.run),
        ("output", durations.output),
    ];
    let told = parts.into_iter().filter_map(|(name, ms)| {
        let ms = std::time::Duration::from_millis(ms?);
        Some(format!("{name} {}", words::span(ms)))
    });
    told.collect::<Vec<_>>().join(", ")
}
