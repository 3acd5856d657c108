//! What a job gets on this node: its own wishes where it has some, a slot's share where not.
//!
//! Pure.

use crate::container::{ContainerSpec, Limits, Mount, Network};
use crate::job::phase::{Fault, PinnedImage};
use crate::job::spec::NetworkNeed;
use crate::job::{Job, JobSpec, Reason};
use crate::node::GpuUuid;
use crate::node::admission::{Demand, Offer, Reach, Refusal, admit};
use crate::node::allocation::Wish;

use super::folders::JobFolders;

/// Bytes in a MiB.
const MIB: u64 = 1 << 20;
/// Input and output of a job that does not say how much disk it needs, in MiB.
const DISK_MIB: u64 = 51_200;
/// Processes and threads of a job: far more than any computation, far fewer than a fork bomb.
const PIDS_MAX: u32 = 4096;

/// What the node offers, and what one slot's share of it is.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Everything.
    pub offer: Offer,
}

impl Terms {
    /// What the job asks for on this node.
    pub fn demand<'a>(&self, spec: &'a JobSpec) -> Demand<'a> {
        let slots = self.offer.slots.max(1) as u64;
        let needs = &spec.needs;
        let default_gpus = usize::from(!self.offer.gpus.is_empty());
        Demand {
            gpus: Wish {
                count: needs.gpus.map_or(default_gpus, |gpus| gpus as usize),
                model: needs.gpu_model.as_deref(),
                min_vram_mib: needs.min_vram_mib.unwrap_or(0),
            },
            milli_cpus: needs.milli_cpus.unwrap_or(self.offer.milli_cpus / slots),
            memory_mib: needs.memory_mib.unwrap_or(self.offer.memory_mib / slots),
            disk_mib: needs.disk_mib.unwrap_or(0),
            network: match needs.network {
                NetworkNeed::None => Reach::Nothing,
                NetworkNeed::Internet => Reach::Internet,
                NetworkNeed::Bridge => Reach::Bridge,
            },
        }
    }

    /// `Err` where the node can never run the job: why.
    pub fn admit(&self, spec: &JobSpec) -> Result<(), Fault> {
        admit(&self.offer, &self.demand(spec)).map_err(|refusal| match refusal {
            Refusal::NoGpu => {
                Fault::new(Reason::NoGpu, "the job wants GPUs and this node has none")
            }
            Refusal::TooLarge(text) => Fault::new(Reason::NoNodeFits, text),
            Refusal::Network(network) => Fault::new(
                Reason::NetworkNotAllowed,
                format!("the job wants the network `{network}`, which this node does not offer"),
            ),
        })
    }

    /// The container of the job's present attempt.
    pub fn container(
        &self,
        job: &Job,
        image: &PinnedImage,
        gpus: &[GpuUuid],
        folders: &JobFolders,
    ) -> ContainerSpec {
        let spec = &job.spec;
        let demand = self.demand(spec);
        ContainerSpec {
            name: container_name(job, job.attempt),
            node: job.node,
            job_id: job.id().clone(),
            attempt: job.attempt,
            image_id: image.id.clone(),
            entrypoint: spec.entrypoint.clone(),
            command: spec.command.clone(),
            env: variables(spec),
            mounts: mounts(folders),
            gpus: gpus.to_vec(),
            limits: Limits {
                memory_bytes: demand.memory_mib.saturating_mul(MIB),
                nano_cpus: demand.milli_cpus.saturating_mul(1_000_000),
                pids: PIDS_MAX,
                shm_bytes: spec.needs.shm_mib.saturating_mul(MIB),
            },
            network: match demand.network {
                Reach::Bridge => Network::Bridge,
                Reach::Nothing | Reach::Internet => Network::None,
            },
        }
    }
}

/// `lamda-<first 8 hex of the address>-<job_id>-<attempt>`.
pub fn container_name(job: &Job, attempt: u32) -> String {
    let node = job.node.lower_hex();
    format!("lamda-{}-{}-{attempt}", &node[2..10], job.id())
}

/// What the job may have on disk, input and output each, in bytes.
pub fn disk_bytes(spec: &JobSpec) -> u64 {
    spec.needs.disk_mib.unwrap_or(DISK_MIB).saturating_mul(MIB)
}

/// Where the job leaves its output, as it sees it.
pub fn output_path(spec: &JobSpec) -> &str {
    spec.output_path.as_deref().unwrap_or("/output/output")
}

/// The job's variables, with the node's own on top.
fn variables(spec: &JobSpec) -> Vec<(String, String)> {
    let input = spec.input.map(|cid| cid.to_string()).unwrap_or_default();
    let own = [
        ("JOB_ID", spec.id.as_str()),
        ("INPUT_DIR", "/input"),
        ("INPUT_PATH", "/input/input"),
        ("OUTPUT_DIR", "/output"),
        ("OUTPUT_PATH", output_path(spec)),
        ("INPUT_CID", &input),
    ];
    let theirs = spec.env.iter().filter(|(name, _)| {
        *name != "NVIDIA_VISIBLE_DEVICES" && own.iter().all(|(taken, _)| name != taken)
    });
    let own = own.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    theirs.map(|(name, value)| (name.clone(), value.clone())).chain(own).collect()
}

fn mounts(folders: &JobFolders) -> Vec<Mount> {
    let mount =
        |host, target: &str, read_only| Mount { host, target: target.to_owned(), read_only };
    vec![mount(folders.inputs(), "/input", true), mount(folders.output(), "/output", false)]
}
