//! The resources of a job on this node: what it asks for, with a slot's share as the default.
//!
//! Invariant: everything here is pure.

use crate::container::{
    ContainerSpec, ImagePolicy, Limits, Mount, Network, NotAllowed, Sandbox, User,
};
use crate::job::phase::{Fault, PinnedImage};
use crate::job::spec::{NetworkNeed, SandboxNeed};
use crate::job::{Job, JobSpec, Reason};
use crate::node::GpuUuid;
use crate::node::admission::{Demand, NeverFits, Offer, Reach, Share, Verdict, decide};
use crate::node::allocation::Wish;

use super::folders::JobFolders;

/// Bytes in a MiB.
pub(in crate::agent) const MIB: u64 = 1 << 20;
/// Disk limit in MiB of a job that names none.
const DISK_MIB: u64 = 51_200;
/// Limit of processes and threads of a job: ample for any computation, and stops a fork bomb.
const PIDS_MAX: u32 = 4096;

/// The node's offer, from which a job's demand and its container are derived.
#[derive(Debug, Clone)]
pub struct Terms {
    /// What the node offers to all jobs together.
    pub offer: Offer,
    /// Which images jobs may name.
    pub images: ImagePolicy,
    /// How far jobs are closed in at least, and as whom.
    pub sandbox: OwnersSandbox,
}

/// The owner's settings of the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnersSandbox {
    /// `JOB_SANDBOX=strict`: every job gets the strict sandbox.
    pub is_strict: bool,
    /// `JOB_USER`: the user of jobs in the strict sandbox.
    pub user: User,
}

impl Default for OwnersSandbox {
    fn default() -> Self {
        Self { is_strict: false, user: User::NOBODY }
    }
}

impl Terms {
    /// The job's demand on this node. What it leaves open defaults to a slot's share, so that as
    /// many such jobs as there are slots fit at the same time.
    pub fn demand(&self, spec: &JobSpec) -> Demand {
        let slots = self.offer.slots.max(1) as u64;
        let needs = &spec.needs;
        let default_gpus = usize::from(!self.offer.gpus.is_empty());
        Demand {
            gpus: Wish {
                count: needs.gpus.map_or(default_gpus, |gpus| gpus as usize),
                model: needs.gpu_model.clone(),
                min_vram_mib: needs.min_vram_mib.unwrap_or(0),
            },
            share: Share {
                milli_cpus: needs.milli_cpus.unwrap_or(self.offer.milli_cpus / slots),
                memory_mib: needs.memory_mib.unwrap_or(self.offer.memory_mib / slots),
                // The limit is `DISK_MIB` even if the share is smaller: few jobs come near it, and
                // a node with a small disk should run the many that don't.
                disk_mib: needs.disk_mib.unwrap_or(DISK_MIB.min(self.offer.disk_mib / slots)),
            },
            network: match needs.network {
                NetworkNeed::None => Reach::Nothing,
                NetworkNeed::Internet => Reach::Internet,
                NetworkNeed::Bridge => Reach::Bridge,
            },
        }
    }

    /// The most memory that the job may have, in bytes.
    pub fn memory_bytes(&self, spec: &JobSpec) -> u64 {
        self.demand(spec).share.memory_mib.saturating_mul(MIB)
    }

    /// `Err` with the reason if the node can never run the job.
    pub fn admit(&self, spec: &JobSpec) -> Result<(), Fault> {
        self.images.check(&spec.image).map_err(|refusal| not_allowed(&refusal))?;
        match decide(&self.offer, &[], &[], &self.demand(spec)) {
            Verdict::Never(refusal) => Err(fault(refusal)),
            Verdict::Later(_) | Verdict::Now(_) => Ok(()),
        }
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
            volumes: folders.volumes(),
            gpus: gpus.to_vec(),
            limits: Limits {
                memory_bytes: self.memory_bytes(spec),
                nano_cpus: demand.share.milli_cpus.saturating_mul(1_000_000),
                pids: PIDS_MAX,
                shm_bytes: spec.needs.shm_mib.saturating_mul(MIB),
                disk_bytes: disk_bytes(spec),
            },
            network: match demand.network {
                Reach::Nothing => Network::None,
                Reach::Internet => Network::Internet,
                Reach::Bridge => Network::Bridge,
            },
            sandbox: self.sandbox(spec),
        }
    }

    /// The stricter of what the owner sets and what the job asks for.
    pub fn sandbox(&self, spec: &JobSpec) -> Sandbox {
        if self.sandbox.is_strict || spec.needs.sandbox == SandboxNeed::Strict {
            Sandbox::Strict(self.sandbox.user)
        } else {
            Sandbox::Standard
        }
    }
}

/// The fault reported to the requester for an image that may not run here.
fn not_allowed(refusal: &NotAllowed) -> Fault {
    let reason = match refusal {
        NotAllowed::Invalid(_) => Reason::ImageInvalid,
        NotAllowed::Registry { .. }
        | NotAllowed::Denied
        | NotAllowed::Unlisted
        | NotAllowed::Unsigned(_)
        | NotAllowed::NoDigest => Reason::ImageNotAllowed,
    };
    Fault::new(reason, refusal.to_string())
}

/// The fault reported to the requester for a demand that the node can never meet.
fn fault(refusal: NeverFits) -> Fault {
    match refusal {
        NeverFits::NoGpu => Fault::new(Reason::NoGpu, "the job wants GPUs and this node has none"),
        NeverFits::TooLarge(text) => Fault::new(Reason::NoNodeFits, text),
        NeverFits::Network(network) => Fault::new(
            Reason::NetworkNotAllowed,
            format!("the job wants the network `{network}`, which this node does not offer"),
        ),
    }
}

/// The container's name: `lamda-<first 8 hex digits of the address>-<job_id>-<attempt>`.
pub fn container_name(job: &Job, attempt: u32) -> String {
    let node = job.node.lower_hex();
    format!("lamda-{}-{}-{attempt}", &node[2..10], job.id())
}

/// The job's disk limit in bytes: for its inputs, and for these with all that it writes.
pub fn disk_bytes(spec: &JobSpec) -> u64 {
    spec.needs.disk_mib.unwrap_or(DISK_MIB).saturating_mul(MIB)
}

/// The path inside the container where the job leaves its output.
pub fn output_path(spec: &JobSpec) -> &str {
    spec.output_path.as_deref().unwrap_or("/output/output")
}

/// The environment of the job: its own variables, overridden by the node's.
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
    let theirs = spec.env.iter().filter(|(name, _)| own.iter().all(|(taken, _)| name != taken));
    let own = own.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    theirs.map(|(name, value)| (name.clone(), value.clone())).chain(own).collect()
}

fn mounts(folders: &JobFolders) -> Vec<Mount> {
    let mount =
        |host, target: &str, read_only| Mount { host, target: target.to_owned(), read_only };
    vec![mount(folders.inputs(), "/input", true), mount(folders.output(), "/output", false)]
}
