//! Parses the output of `nvidia-smi`.
//!
//! Pure. Invariant: a line of another form than requested makes the whole answer worthless, and the error
//! says why; a text in brackets is not a value.

use std::collections::BTreeMap;

use crate::node::card::{CardProcess, Facts, Reading, Round, Sample, Unknown};
use crate::node::{Gpu, GpuInventory, GpuUuid};
use crate::report::one_line;

/// The fields that are asked of each card once, in the order of [`inventory`].
pub(super) const LIST: &str = "--query-gpu=uuid,name,memory.total,driver_version,pci.bus_id,compute_cap,\
     enforced.power.limit,ecc.mode.current,mig.mode.current,persistence_mode";
/// The fields that are asked of each card for a sample, in the order of [`round`].
pub(super) const SAMPLE: &str = "--query-gpu=uuid,utilization.gpu,memory.used,memory.free,power.draw,\
     clocks.sm,clocks.mem,temperature.gpu,ecc.errors.uncorrected.volatile.total";
/// The fields that are asked of each process, in the order of [`processes`].
pub(super) const PROCESSES: &str = "--query-compute-apps=gpu_uuid,pid,used_memory";

/// More lines than a host has cards and processes.
const LINES_MAX: usize = 4096;
/// More characters than any name has.
const FIELD_MAX: usize = 96;
const MIB: u64 = 1024 * 1024;

/// The cards of the answer to [`LIST`].
pub(super) fn inventory(text: &str, cuda: &str) -> Result<GpuInventory, String> {
    let mut inventory = GpuInventory { cuda: cuda.to_owned(), ..GpuInventory::default() };
    for line in lines(text)? {
        let [uuid, name, total, driver, pci, compute, limit, ecc, mig, persistence] = fields(line)?;
        if let Ok(driver) = value(driver)
            && inventory.driver.is_empty()
        {
            driver.clone_into(&mut inventory.driver);
        }
        match card(uuid, name, total) {
            Ok(gpu) if on(mig) == Ok(true) => {
                let why = "it is split (MIG), and only the driver's library tells its instances";
                inventory.left_out.push(format!("{} is left out: {why}", gpu.uuid));
            }
            Ok(gpu) if inventory.facts.contains_key(&gpu.uuid) => {
                inventory.left_out.push(format!("{} is listed twice: one is left out", gpu.uuid));
            }
            Ok(gpu) => {
                let facts = Facts {
                    pci: value(pci).map(str::to_owned),
                    compute_capability: value(compute).map(str::to_owned),
                    power_limit_mw: value(limit).and_then(milli),
                    ecc: on(ecc),
                    mig: on(mig),
                    persistence: on(persistence),
                    minor: Err(Unknown::Failed("nvidia-smi does not list it".to_owned())),
                    parent: None,
                };
                inventory.facts.insert(gpu.uuid.clone(), facts);
                inventory.gpus.push(gpu);
            }
            Err(why) => inventory.left_out.push(format!("a GPU is left out: {why}")),
        }
    }
    inventory.gpus.sort_by(|a, b| a.uuid.cmp(&b.uuid));
    Ok(inventory)
}

fn card(uuid: &str, name: &str, total: &str) -> Reading<Gpu> {
    let model = value(name)?.to_owned();
    Ok(Gpu { uuid: id(uuid)?, model, vram_mib: value(total).and_then(number)? })
}

/// The samples of the answer to [`SAMPLE`]. The tool does not report everything.
pub(super) fn round(text: &str, processes: &Processes) -> Result<Round, String> {
    let mut round = Round::new();
    for line in lines(text)? {
        let [uuid, busy, used, free, power, sm, memory, celsius, errors] = fields(line)?;
        let Ok(uuid) = id(uuid) else { continue };
        let small = |text| value(text).and_then(number).and_then(small);
        let bytes = |text| value(text).and_then(number).map(|mib| mib.saturating_mul(MIB));
        let untold = Unknown::Failed("nvidia-smi does not tell it".to_owned());
        let sample = Sample {
            busy_percent: small(busy),
            used_bytes: bytes(used),
            free_bytes: bytes(free),
            power_mw: value(power).and_then(milli),
            sm_mhz: small(sm),
            memory_mhz: small(memory),
            celsius: small(celsius),
            uncorrected_errors: value(errors).and_then(number),
            processes: Ok(processes.get(&uuid).cloned().unwrap_or_default()),
            ..Sample::unknown(&untold)
        };
        round.insert(uuid, Ok(sample));
    }
    Ok(round)
}

/// The processes of each card.
pub(super) type Processes = BTreeMap<GpuUuid, Vec<CardProcess>>;

/// The processes of the answer to [`PROCESSES`], in the order of their ids.
pub(super) fn processes(text: &str) -> Result<Processes, String> {
    let mut all = Processes::new();
    for line in lines(text)? {
        let [uuid, pid, used] = fields(line)?;
        let uuid = id(uuid).map_err(|why| why.to_string())?;
        let pid = number(pid).and_then(small).map_err(|why| why.to_string())?;
        let bytes = value(used).and_then(number).map(|mib| mib.saturating_mul(MIB));
        all.entry(uuid).or_default().push(CardProcess { pid, bytes });
    }
    for of_card in all.values_mut() {
        of_card.sort_by_key(|process| process.pid);
    }
    Ok(all)
}

/// The newest CUDA version that the driver supports, from the head of `nvidia-smi -q`.
pub(super) fn cuda(text: &str) -> Option<String> {
    let told = text.lines().take(20).find_map(|line| line.strip_prefix("CUDA Version"))?;
    let version = told.trim_start_matches([' ', ':']).trim();
    let plain = version.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    (plain && (1..=16).contains(&version.len())).then(|| version.to_owned())
}

fn lines(text: &str) -> Result<impl Iterator<Item = &str>, String> {
    let lines = || text.lines().filter(|line| !line.trim().is_empty());
    if lines().nth(LINES_MAX).is_some() {
        return Err(format!("it printed more than {LINES_MAX} lines"));
    }
    Ok(lines())
}

fn fields<const N: usize>(line: &str) -> Result<[&str; N], String> {
    let refused = || format!("it printed {:?} where {N} values were asked for", one_line(line, 80));
    let fields: Vec<&str> = line.splitn(N + 1, ',').map(str::trim).collect();
    let fields = <[&str; N]>::try_from(fields).map_err(|_| refused())?;
    let fits = |field: &&str| field.len() <= FIELD_MAX && !field.contains(char::is_control);
    if fields.iter().all(fits) { Ok(fields) } else { Err(refused()) }
}

/// A value, or the tool's reason for a missing one.
fn value(field: &str) -> Reading<&str> {
    let Some(why) = field.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) else {
        return if field.is_empty() || field == "N/A" {
            Err(Unknown::NotSupported)
        } else {
            Ok(field)
        };
    };
    Err(match why {
        "N/A" | "Not Supported" => Unknown::NotSupported,
        "Insufficient Permissions" => Unknown::Denied,
        "GPU is lost" => Unknown::Lost,
        other => Unknown::Failed(other.to_owned()),
    })
}

fn id(field: &str) -> Reading<GpuUuid> {
    let text = value(field)?;
    GpuUuid::new(text).ok_or_else(|| Unknown::Failed(format!("its UUID is {text:?}")))
}

fn on(field: &str) -> Reading<bool> {
    match value(field)? {
        "Enabled" => Ok(true),
        "Disabled" => Ok(false),
        other => Err(Unknown::Failed(format!("{other:?} is neither on nor off"))),
    }
}

fn number(text: &str) -> Reading<u64> {
    text.parse().map_err(|_| Unknown::Failed(format!("{text:?} is no number")))
}

fn small(number: u64) -> Reading<u32> {
    u32::try_from(number).map_err(|_| Unknown::Failed(format!("{number} is too large")))
}

/// A decimal number times a thousand: watts as milliwatts.
fn milli(text: &str) -> Reading<u32> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() {
        return Err(Unknown::Failed(format!("{text:?} is no number")));
    }
    let thousandths = format!("{whole}{:0<3}", fraction.get(..3).unwrap_or(fraction));
    number(&thousandths).and_then(small)
}

#[cfg(test)]
mod tests {
    use super::*;

    const H100: &str = "GPU-a1, NVIDIA H100 80GB HBM3, 81559, 580.159.04, 00000000:00:06.0, 9.0, 700.00, \
                        Enabled, Disabled, Enabled\n";

    #[test]
    fn a_card_is_read_and_what_it_lacks_is_absent() {
        let older = "GPU-b2, Tesla K80, 11441, 470.1, 00000000:00:1E.0, 3.7, [N/A], [Not Supported], \
                     [N/A], [Insufficient Permissions]\n[GPU is lost], x, 1, 1, 1, 1, 1, 1, 1, 1\n";
        let told = inventory(&format!("{H100}{older}"), "13.0").unwrap();
        assert_eq!((told.driver.as_str(), told.cuda.as_str()), ("580.159.04", "13.0"));
        let cards = told.gpus.iter().map(|gpu| (gpu.uuid.as_str(), gpu.vram_mib));
        assert_eq!(cards.collect::<Vec<_>>(), [("GPU-a1", 81_559), ("GPU-b2", 11_441)]);
        let [new, old] = &told.facts.values().collect::<Vec<_>>()[..] else { panic!("{told:?}") };
        assert_eq!(
            new.in_words(),
            "compute 9.0, at 00000000:00:06.0, at most 700 W, ECC on, MIG off, persistence on"
        );
        assert_eq!(
            (&old.ecc, &old.power_limit_mw),
            (&Err(Unknown::NotSupported), &Err(Unknown::NotSupported))
        );
        assert_eq!(old.persistence, Err(Unknown::Denied));
        assert_eq!(told.left_out, ["a GPU is left out: the card fell off the bus"]);
    }

    #[test]
    fn a_split_card_is_left_out() {
        let told = inventory(&H100.replace("Disabled", "Enabled"), "13.0").unwrap();
        assert!(told.gpus.is_empty() && told.left_out[0].contains("MIG"), "{told:?}");
    }

    #[test]
    fn a_sample_has_its_processes_and_says_what_the_tool_does_not_tell() {
        let held = processes("GPU-a1, 2914, 73922\nGPU-a1, 17, [N/A]\n").unwrap();
        let text = "GPU-a1, 97, 73931, 7148, 512.25, 1980, 2619, 61, [N/A]\n";
        let (_, told) = round(text, &held).unwrap().pop_first().unwrap();
        let told = told.unwrap();
        assert_eq!((told.busy_percent, told.power_mw, told.celsius), (Ok(97), Ok(512_250), Ok(61)));
        assert_eq!(told.used_bytes, Ok(73_931 * MIB));
        assert_eq!(told.uncorrected_errors, Err(Unknown::NotSupported));
        assert!(matches!(told.rows, Err(Unknown::Failed(_))));
        let held = told.processes.unwrap();
        assert_eq!(held.iter().map(|it| it.pid).collect::<Vec<_>>(), [17, 2914]);
        assert_eq!(held[1].bytes, Ok(73_922 * MIB));
    }

    #[test]
    fn what_was_not_asked_for_is_refused() {
        let nine = "1, 2, 3, 4, 5, 6, 7, 8, 9\n";
        let long = format!("{}, 2, 3, 4, 5, 6, 7, 8, 9, 10\n", "x".repeat(97));
        let many = H100.repeat(LINES_MAX + 1);
        for text in [
            "No devices were found\n",
            nine,
            &H100.replace('\n', ", 11\n"),
            &long,
            &many,
            &H100.replace("H100", "H\u{1b}[2J100"),
        ] {
            let refused = inventory(text, "").unwrap_err();
            assert!(refused.len() < 200 && !refused.contains('\u{1b}'), "{refused}");
        }
        assert!(processes("GPU-a1, -3, 5\n").is_err());
        assert!(processes("GPU a1, 3, 5\n").is_err());
    }

    #[test]
    fn numbers_that_are_none_are_no_zeros() {
        for text in ["", "-1", "1e3", "99999999999", "7.x", "NaN"] {
            assert!(milli(text).is_err(), "{text:?}");
        }
        assert_eq!(
            (milli("700"), milli("0.5"), milli("70.18999")),
            (Ok(700_000), Ok(500), Ok(70_189))
        );
    }

    #[test]
    fn the_cuda_version_is_read_from_a_real_head() {
        let real = include_str!("../../../tests/vectors/h100/nvidia-smi-q.txt");
        assert_eq!(cuda(real).as_deref(), Some("13.0"));
        assert_eq!(cuda("CUDA Version : N/A\n"), None);
        assert_eq!(cuda("CUDA Version : \n"), None);
    }
}
