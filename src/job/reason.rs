//! Why a job did not complete: the closed list of `reason_code` values, on which programs act.
//!
//! Invariants: a code is never renamed or reused; docs/protocol.md lists each with its meaning (a test
//! compares the two).

use serde::{Deserialize, Serialize};

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal,)+) => {
        /// A `reason_code` of a status.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Reason {
            $($(#[doc = $doc])+ #[serde(rename = $code)] $name,)+
        }

        impl Reason {
            /// Every code, in the order of a job's life.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The code as it is sent on the wire.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code),+ }
            }

            /// What it means, in one sentence.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+).trim_start()),+ }
            }
        }
    };
}

reasons! {
    /// The message is no JSON object of a job: not JSON, a key twice, a wrong type, no usable id.
    Malformed = "malformed",
    /// The message is larger than 256 KiB.
    MessageTooLarge = "message_too_large",
    /// Another body was taken under this id before.
    DuplicateJobId = "duplicate_job_id",
    /// Jobs must be signed here, and the signature is missing or not the requester's.
    SignatureInvalid = "signature_invalid",
    /// The requester is not on the node's list.
    RequesterNotAllowed = "requester_not_allowed",
    /// The job names no image.
    ImageMissing = "image_missing",
    /// The image's name is no image reference.
    ImageInvalid = "image_invalid",
    /// The node's owner does not allow this image, or its registry.
    ImageNotAllowed = "image_not_allowed",
    /// The input's CID does not parse or can't be checked here.
    InputCidInvalid = "input_cid_invalid",
    /// The job wants GPUs and the node has none.
    NoGpu = "no_gpu",
    /// The node hands GPUs to no stranger's job: NVIDIA's container toolkit there lets programs out of containers.
    ToolkitUnsafe = "toolkit_unsafe",
    /// The job wants more, or another card, than this node will ever have.
    NoNodeFits = "no_node_fits",
    /// The job wants a network that the node's owner does not allow.
    NetworkNotAllowed = "network_not_allowed",
    /// The job's deadline passed before it could be started.
    DeadlinePassed = "deadline_passed",
    /// The image does not exist, or the node may not pull it.
    ImageUnavailable = "image_unavailable",
    /// The image could not be pulled in time.
    ImagePullFailed = "image_pull_failed",
    /// No gateway gave the input in time.
    InputUnavailable = "input_unavailable",
    /// Every gateway gave bytes that contradict the input's CID.
    InputUnverified = "input_unverified",
    /// The input holds something that a node can't lay down as files: the error says what.
    InputUnsupported = "input_unsupported",
    /// The inputs together are larger than the job's `disk_mib`.
    InputTooLarge = "input_too_large",
    /// The container could not be started as the job wants it.
    StartFailed = "start_failed",
    /// The image wants a newer GPU driver, or another card, than the node has.
    GpuRequirement = "gpu_requirement",
    /// The GPU could not be handed to the container, or failed while the job had it: the node's fault.
    GpuFailed = "gpu_failed",
    /// The container was gone before its exit could be read, or was ended from outside, three
    /// times.
    ContainerLost = "container_lost",
    /// The job was started three times, and its container was lost each time.
    Poison = "poison",
    /// The pool's job went to another agent, or this node could not tell whether it had.
    LeaseLost = "lease_lost",
    /// The command ended with another exit code than 0.
    NonzeroExit = "nonzero_exit",
    /// The kernel killed a process of the job for memory.
    OutOfMemory = "out_of_memory",
    /// The job wrote more than its `disk_mib` while it ran, or filled the node's disk.
    DiskExceeded = "disk_exceeded",
    /// The job ran longer than its `timeout_s`.
    Timeout = "timeout",
    /// The job was still running at its `deadline`.
    DeadlineReached = "deadline_reached",
    /// Somebody who may asked for it.
    Cancelled = "cancelled",
    /// The node is shutting down; the job will run again.
    NodeShutdown = "node_shutdown",
    /// The command exited 0 without leaving the output.
    OutputMissing = "output_missing",
    /// The output holds nothing that can be carried, or too much of it.
    OutputUnsupported = "output_unsupported",
    /// The output is larger than the job's `disk_mib`.
    OutputTooLarge = "output_too_large",
    /// The pinning service refuses the node's uploads: the output waits for the node's owner.
    StoreRefused = "store_refused",
    /// The pinning service takes uploads, but not this output (its size, what is in it): it is tried
    /// for `UPLOAD_GIVE_UP_S`, and its job fails with `upload_failed` then.
    OutputRefused = "output_refused",
    /// The output could not be published in time.
    UploadFailed = "upload_failed",
    /// The pinning service answered a CID that is not the output's.
    OutputUnverified = "output_unverified",
    /// The node's disk is full, or its container engine or journal failed it.
    NodeFault = "node_fault",
}

impl Reason {
    /// Whether the node itself may have kept a job from beginning: its engine, its cards, its disk, its
    /// connection to a registry or gateway, its account there, its processor. Another node may succeed.
    pub const fn may_be_the_nodes(self) -> bool {
        matches!(
            self,
            Self::NodeFault
                | Self::GpuFailed
                | Self::GpuRequirement
                | Self::ImageUnavailable
                | Self::ImagePullFailed
                | Self::InputUnavailable
                | Self::InputUnverified
        )
    }

    /// Whether the reason says nothing about the node's next job: what one image requires, or a mistyped
    /// name. A stranger's mistakes must not keep the node from others' jobs.
    pub const fn is_of_one_job(self) -> bool {
        matches!(self, Self::GpuRequirement | Self::ImageUnavailable | Self::InputUnverified)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_snake_case_and_explained() {
        let codes: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|r| r.code()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            assert!(reason.code().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
            assert!(reason.meaning().ends_with('.'));
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.code());
        }
    }
}
