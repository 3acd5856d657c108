//! What to do about each reason; `lamda-node jobs` shows it to the node's owner.
//!
//! Invariant: each sentence says who has to act, the requester or the node's owner, and by what means.

use super::phase::Fault;
use super::reason::Reason;

impl Fault {
    /// What to do about the fault. For a fault of the node, that depends on what its sentence names.
    pub fn remedy(&self) -> &'static str {
        let says = |words: &str| self.error.contains(words);
        match self.reason {
            Reason::NonzeroExit if says("; its log ends in") => {
                "The requester has to let the job do without what its sandbox refuses: the error says what. A job \
                 that asked for `strict` can ask for `standard`."
            }
            Reason::NodeFault if says("has no right to") => {
                "The node's user may not read or remove what jobs leave: let it into the group that \
                 owns DATA_DIR, or run it as the unit in deploy/ does. `lamda-node doctor` says more."
            }
            Reason::NodeFault if says("does not see the node's files") => {
                "Run the node and its container engine on one host; where the node runs in a \
                 container, show it DATA_DIR under the path that it has on the host."
            }
            Reason::NodeFault if says("to its limits") => {
                "Boot the host with the control groups that `docker info` says are missing."
            }
            Reason::NodeFault if says("system calls") => {
                "Run the container engine with its default seccomp profile: take seccomp-profile out of \
                 /etc/docker/daemon.json."
            }
            Reason::NodeFault if says("lacks the owner's runtime") => {
                "Name a runtime that the container engine has in JOB_RUNTIME, or add it to the engine: \
                 `lamda-node doctor` says which it has."
            }
            Reason::NodeFault if says("container engine") => {
                "Look at the container engine: `lamda-node doctor`, `docker info`, its own log."
            }
            Reason::NodeFault if says("disk") => {
                "Make room on the disk of DATA_DIR, or repair it: `df`, and the host's log."
            }
            reason => reason.remedy(),
        }
    }
}

impl Reason {
    /// What to do about this reason.
    #[expect(clippy::too_many_lines, reason = "a table: one arm a reason")]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Malformed => {
                "The requester has to fix the message: docs/protocol.md, section 1, has its keys."
            }
            Self::MessageTooLarge => {
                "The requester has to send less: large data belongs in an input, by its CID."
            }
            Self::DuplicateJobId => "The requester has to use a new id for each job.",
            Self::SignatureInvalid => {
                "The requester has to sign for this target, chain and contract with the key of \
                 `requester`, and give a `deadline`: docs/protocol.md has an example to check \
                 against."
            }
            Self::RequesterNotAllowed => {
                "If the requester is welcome here, add the address to JOB_ALLOWED_REQUESTERS and \
                 restart the node; the job can then be sent again."
            }
            Self::ImageMissing => "The requester has to name an image: `image_name`.",
            Self::ImageInvalid => {
                "The requester has to give the image as registry/name:tag or name@sha256:…."
            }
            Self::ImageNotAllowed => {
                "The requester has to name an image of a registry that this node takes, or the \
                 owner allows that one: JOB_REGISTRIES, JOB_IMAGES_ALLOW, JOB_IMAGES_DENY, \
                 JOB_IMAGES_DIGEST and JOB_COSIGN_KEY decide; an image that lies here only is named \
                 in JOB_LOCAL_IMAGES."
            }
            Self::InputCidInvalid => {
                "The requester has to give an IPFS CID of version 0 or 1, made with SHA-256."
            }
            Self::NoGpu => {
                "The requester has to ask for `gpus: 0`, or a node with GPUs. If this host has \
                 some, `lamda-node doctor` says why they are not used."
            }
            Self::ToolkitUnsafe => {
                "Update the NVIDIA Container Toolkit and restart the engine: `lamda-node doctor` names the version. \
                 GPU_ALLOW_UNSAFE_TOOLKIT=true takes such jobs all the same."
            }
            Self::NoNodeFits => {
                "The requester has to ask for less, or a larger node: the error says what does \
                 not fit."
            }
            Self::NetworkNotAllowed => {
                "The requester has to do without that network, or the owner allows it: JOB_NETWORK."
            }
            Self::DeadlinePassed => {
                "The requester has to allow more time. If jobs wait long here, this node has too \
                 few slots or cards for its queue."
            }
            Self::ImageUnavailable => {
                "The requester has to check the image's name. If it is private, the owner gives \
                 this node an account that may pull it: JOB_REGISTRY_AUTH_FILE."
            }
            Self::ImagePullFailed => {
                "Check that this host reaches the registry: `docker pull` shows more. Large \
                 images need a longer FETCH_GIVE_UP_S where the registry is slow."
            }
            Self::InputUnavailable => {
                "The requester has to keep the input pinned. If it is, this node needs another \
                 gateway that has it: IPFS_GATEWAYS."
            }
            Self::InputUnverified => {
                "Every gateway alters content, or the CID can't be told from a flat file: use a \
                 gateway that gives archives (`?format=car`) in IPFS_GATEWAYS."
            }
            Self::InputUnsupported => {
                "The requester has to send plain files and folders, with links that stay inside \
                 them at most; anything larger or more unusual belongs in an archive (tar)."
            }
            Self::InputTooLarge => "The requester has to ask for a larger `disk_mib`.",
            Self::StartFailed => {
                "The requester has to check entrypoint and command: the error is the container \
                 engine's."
            }
            Self::GpuRequirement => {
                "The requester has to use an image for an older CUDA, or the owner installs a \
                 newer NVIDIA driver: the error names both versions."
            }
            Self::GpuFailed => {
                "Check the driver and the NVIDIA Container Toolkit: `lamda-node doctor`."
            }
            Self::ContainerLost => {
                "Something removes this node's containers, or the host goes down: find out what \
                 prunes them, then the job can be sent again under a new id."
            }
            Self::Poison => {
                "The requester has to find out why its container is lost each time; the message and \
                 its history are in jobs.dead."
            }
            Self::LeaseLost => {
                "Nothing: another node of the pool has the job. If it happens often, check the \
                 connection to NATS."
            }
            Self::NonzeroExit => {
                "The requester has to look at what the job wrote: the last status has the CID of \
                 its log."
            }
            Self::OutOfMemory => "The requester has to ask for a larger `memory_mib`.",
            Self::DiskExceeded => {
                "The requester has to ask for a larger `disk_mib`, or let the job write less; its \
                 error says whether the node's disk was full."
            }
            Self::Timeout => {
                "The requester has to ask for a longer `timeout_s`; JOB_TIMEOUT_MAX bounds it here."
            }
            Self::DeadlineReached => "The requester has to allow more time: a later `deadline`.",
            Self::Cancelled => "Nothing: the job was cancelled on purpose.",
            Self::NodeShutdown => {
                "Nothing: the job runs again when this node starts, or on another of its pool."
            }
            Self::OutputMissing => {
                "The requester has to let the command write to `output_path`, /output/output or \
                 /output."
            }
            Self::OutputUnsupported => {
                "The requester has to leave plain files and folders only; many small ones belong \
                 in an archive."
            }
            Self::OutputTooLarge => {
                "The requester has to ask for a larger `disk_mib`, or let the job leave less."
            }
            Self::StoreRefused => {
                "The node's owner has to act: check PINATA_JWT and the plan of the account. The \
                 upload goes on by itself then; until then the node takes no more jobs."
            }
            Self::OutputRefused => {
                "The node's owner has to act: the pinning service takes uploads, but not this one. It \
                 is tried for UPLOAD_GIVE_UP_S, then kept; other jobs go on."
            }
            Self::UploadFailed => {
                "Check the pinning service: `lamda-node doctor`. The output is kept for \
                 RESULT_KEEP_DAYS; `lamda-node jobs retry` publishes it."
            }
            Self::OutputUnverified => {
                "The pinning service alters content: check PINATA_API_URL, or use another one. The \
                 output is kept; `lamda-node jobs retry` publishes it."
            }
            Self::NodeFault => {
                "The job's error says what of the node failed it: its disk, its right to what jobs \
                 leave, or its container engine. `lamda-node doctor` looks at each."
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_remedy_is_of_its_own_reason_and_a_sentence() {
        let remedies: std::collections::BTreeSet<_> =
            Reason::ALL.iter().map(|reason| reason.remedy()).collect();
        assert_eq!(remedies.len(), Reason::ALL.len());
        for remedy in remedies {
            assert!(remedy.ends_with('.') && !remedy.contains("  "), "{remedy}");
        }
    }

    #[test]
    fn a_fault_of_the_nodes_is_remedied_by_its_cause() {
        for (error, remedy) in [
            ("the node has no right to the job's files: x", "may not read or remove"),
            ("the node's container engine does not see the node's files", "on one host"),
            ("the node's container engine can't hold a job to its limits", "control groups"),
            ("the node's container engine refused", "Look at the container engine"),
            ("the node's disk failed the job: x", "Make room"),
            ("the chain's id is not known yet", "what of the node failed it"),
        ] {
            let told = Fault::new(Reason::NodeFault, error).remedy();
            assert!(told.contains(remedy), "{error}: {told}");
        }
        assert_eq!(Fault::new(Reason::Cancelled, "disk").remedy(), Reason::Cancelled.remedy());
    }

    #[test]
    fn a_setting_that_a_remedy_names_exists() {
        let settings = include_str!("../../.env.example");
        for remedy in Reason::ALL.iter().map(|reason| reason.remedy()) {
            let words = remedy.split(|c: char| !c.is_ascii_uppercase() && c != '_');
            for word in words.filter(|word| word.contains('_') && word.len() > 1) {
                assert!(settings.contains(&format!("{word}=")), "{word}");
            }
        }
    }
}
