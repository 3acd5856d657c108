//! The families of values: their names, kinds, labels and what they mean. docs/operations.md has the same list (a test
//! compares).
//!
//! Invariants: names are in base units, and a counter's name gets its `_total` when it is written; a label's values
//! are words of a closed list, or a card's UUID and model.

/// How a family's values go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Up and down.
    Gauge,
    /// Only up; from 0 again when the node, or for a card its driver, starts again.
    Counter,
}

/// What there is to say about a family.
#[derive(Debug, Clone, Copy)]
pub struct About {
    /// Its name; a counter's without `_total`.
    pub name: &'static str,
    /// How its values go.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it is, as a sentence.
    pub help: &'static str,
}

impl About {
    /// The name as it is written.
    pub fn written(&self) -> String {
        let end = if self.kind == Kind::Counter { "_total" } else { "" };
        format!("{}{end}", self.name)
    }
}

macro_rules! families {
    ($($family:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        /// A family of values.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Family {
            $(
                #[doc = $help]
                $family,
            )*
        }

        impl Family {
            /// All families, in the order in which they are written.
            pub const ALL: &[Self] = &[$(Self::$family),*];

            /// Its name, kind, labels and meaning.
            pub const fn about(self) -> About {
                match self {
                    $(
                        Self::$family => About {
                            name: $name,
                            kind: Kind::$kind,
                            labels: &[$($label),*],
                            help: $help,
                        },
                    )*
                }
            }
        }
    };
}

families! {
    Build = Gauge "lamda_build_info" ["version", "driver"] "The program's version and the GPUs' driver; always 1.";
    Started = Gauge "lamda_node_start_time_seconds" [] "When the node began its work, in seconds since 1970.";
    Ready = Gauge "lamda_node_ready" [] "Whether the node takes jobs now.";
    Unready = Gauge "lamda_node_unready" ["reason"] "Whether the node takes no jobs for this reason.";
    Slots = Gauge "lamda_slots" [] "Jobs that may run at the same time.";
    SlotsUsed = Gauge "lamda_slots_used" [] "Slots that jobs hold.";
    Jobs = Gauge "lamda_jobs" ["phase"] "Jobs in hand.";
    Queue = Gauge "lamda_queue_jobs" [] "Jobs that have everything and wait for a slot or for GPUs.";
    Ended = Counter "lamda_jobs_ended" ["outcome"] "Jobs that ended since the node began, and messages that were rejected.";
    RunCpu = Counter "lamda_runs_cpu_seconds" [] "CPU time of the runs that ended.";
    RunGpu = Counter "lamda_runs_gpu_seconds" [] "Time in which GPUs were busy for the runs that ended.";
    RunEnergy = Counter "lamda_runs_gpu_energy_joules" [] "Energy of the GPUs for the runs that ended.";
    Runs = Counter "lamda_runs" [] "Runs that ended and were watched.";
    RunsUnknown = Counter "lamda_runs_unknown" ["figure"] "Those of them of which this figure is not known.";
    Outbox = Gauge "lamda_outbox_statuses" [] "Statuses that wait to be published.";
    UsageBatches = Gauge "lamda_usage_batches" [] "Batches of jobs' samples that wait to be published.";
    Kept = Gauge "lamda_kept_results" [] "Outputs that could not be published and are kept.";
    Uploads = Gauge "lamda_uploads" [] "Uploads to the pinning service that are under way.";
    UploadBytes = Counter "lamda_upload_bytes" [] "Bytes of files that were sent to the pinning service, repetitions and trials too.";
    NatsUp = Gauge "lamda_nats_connected" [] "Whether the node is connected to NATS.";
    NatsReconnects = Counter "lamda_nats_reconnects" [] "Connections to NATS after the first.";
    HubAnswered = Gauge "lamda_node_hub_last_answer_time_seconds" [] "When the hub last took a beat of the node, in seconds since 1970.";
    HubSilent = Gauge "lamda_node_hub_silent" [] "Whether the hub has taken no beat of the node for three minutes.";
    LastBeat = Gauge "lamda_chain_last_heartbeat_time_seconds" [] "When the last heartbeat was final on the chain, in seconds since 1970.";
    Pending = Gauge "lamda_chain_pending_transactions" [] "Transactions of the node that are not final.";
    Balance = Gauge "lamda_chain_balance_coins" [] "What the node's account has for gas, in the chain's coin.";
    Gpu = Gauge "lamda_gpu_info" ["uuid", "model"] "A GPU that jobs can get; always 1.";
    GpuHealth = Gauge "lamda_gpu_health" ["uuid", "state"] "Whether the GPU is in this state.";
    GpuBusy = Gauge "lamda_gpu_utilization_ratio" ["uuid"] "Share of the last moment in which a kernel ran, from 0 to 1.";
    GpuMemoryUsed = Gauge "lamda_gpu_memory_used_bytes" ["uuid"] "Memory of the GPU in use.";
    GpuMemoryFree = Gauge "lamda_gpu_memory_free_bytes" ["uuid"] "Memory of the GPU that is free.";
    GpuPower = Gauge "lamda_gpu_power_watts" ["uuid"] "Power that the GPU draws.";
    GpuEnergy = Counter "lamda_gpu_energy_joules" ["uuid"] "Energy of the GPU since its driver was loaded.";
    GpuTemperature = Gauge "lamda_gpu_temperature_celsius" ["uuid"] "Temperature of the GPU's chip.";
    GpuClock = Gauge "lamda_gpu_clock_hertz" ["uuid", "clock"] "A clock of the GPU.";
    GpuProcesses = Gauge "lamda_gpu_processes" ["uuid"] "Processes with a context on the GPU.";
    ProcessCpu = Counter "process_cpu_seconds" [] "CPU time of the node's process.";
    ProcessMemory = Gauge "process_resident_memory_bytes" [] "Memory of the node's process that is in RAM.";
    ProcessFiles = Gauge "process_open_fds" [] "Open files of the node's process.";
    HubBuild = Gauge "lamda_hub_build_info" ["version"] "The version of the hub's program; always 1.";
    HubStarted = Gauge "lamda_hub_start_time_seconds" [] "When the hub began to watch, in seconds since 1970.";
    HubNodes = Gauge "lamda_hub_nodes" ["standing"] "Nodes that the hub knows and that stand this way.";
    HubBeats = Counter "lamda_hub_beats" [] "Beats that the hub took in since it began.";
    HubRefused = Counter "lamda_hub_beats_refused" ["reason"] "Beats that the hub refused since it began.";
    HubNotices = Gauge "lamda_hub_notices_waiting" ["channel"] "Notices that wait to be sent over this channel.";
    HubPair = Gauge "lamda_hub_pair_sends" ["channel"] "Whether this hub of two sends over this channel.";
    HubSockets = Gauge "lamda_hub_sockets" [] "Open sockets of live views.";
    HubApplications = Gauge "lamda_hub_applications" [] "Applications that are registered.";
    SidecarBuild = Gauge "lamda_sidecar_build_info" ["version"] "The version of the sidecar's program; always 1.";
    SidecarTrouble = Gauge "lamda_sidecar_trouble" ["program", "trouble"] "Whether the program has this trouble.";
    SidecarLines = Gauge "lamda_sidecar_log_lines" ["program", "log"] "Lines that were read of the log, over restarts of the sidecar.";
    SidecarGaps = Gauge "lamda_sidecar_log_gaps" ["program", "log"] "How often a part of the log was lost before it could be read.";
    SidecarLost = Gauge "lamda_sidecar_log_lost_bytes" ["program", "log"] "Bytes of the log that are known to be lost.";
    SidecarRound = Gauge "lamda_sidecar_round" ["program"] "The round in which the program says that it takes part.";
    SidecarRewards = Gauge "lamda_sidecar_rewards" ["program"] "All that the contract ever paid to the program's peer; may be negative.";
    SidecarPaid = Gauge "lamda_sidecar_last_paid_time_seconds" ["program"] "When the program was paid last, in seconds since 1970.";
    SidecarCpu = Counter "lamda_sidecar_program_cpu_seconds" ["program"] "CPU time of the program since the sidecar samples it.";
    SidecarMemory = Gauge "lamda_sidecar_program_memory_bytes" ["program"] "Memory of the program.";
    SidecarDiskRead = Counter "lamda_sidecar_program_disk_read_bytes" ["program"] "Bytes that the program had read from disks since the sidecar samples it.";
    SidecarDiskWritten = Counter "lamda_sidecar_program_disk_written_bytes" ["program"] "Bytes that the program had written to disks since the sidecar samples it.";
    SidecarReceived = Counter "lamda_sidecar_program_network_received_bytes" ["program"] "Bytes that came over the network of the program's own since the sidecar samples it.";
    SidecarSent = Counter "lamda_sidecar_program_network_sent_bytes" ["program"] "Bytes that went over the network of the program's own since the sidecar samples it.";
    SidecarProcesses = Gauge "lamda_sidecar_program_processes" ["program"] "Processes of the program.";
    SidecarThreads = Gauge "lamda_sidecar_program_threads" ["program"] "Threads of the program.";
    SidecarFiles = Gauge "lamda_sidecar_program_open_fds" ["program"] "Open files of the program.";
    SidecarDiskFree = Gauge "lamda_sidecar_program_disk_free_bytes" ["program"] "Bytes that are free on the disk of the program's folder.";
    SidecarGpuBusy = Gauge "lamda_sidecar_program_gpu_utilization_ratio" ["program", "uuid"] "How busy a GPU is that the program uses, from 0 to 1, whoever uses it.";
    SidecarGpuMemory = Gauge "lamda_sidecar_program_gpu_memory_bytes" ["program", "uuid"] "Memory of the GPU that the program holds.";
    SidecarGpuPower = Gauge "lamda_sidecar_program_gpu_power_watts" ["program", "uuid"] "Power that a GPU draws which the program uses.";
    SidecarGpuTemperature = Gauge "lamda_sidecar_program_gpu_temperature_celsius" ["program", "uuid"] "Temperature of a GPU that the program uses.";
    SidecarMachineCpu = Gauge "lamda_sidecar_machine_cpu_ratio" [] "How busy all processors of the machine together were between the last two looks, from 0 to 1.";
    SidecarMachineMemoryUsed = Gauge "lamda_sidecar_machine_memory_used_bytes" [] "Memory of the machine in use, caches excluded.";
    SidecarMachineMemoryTotal = Gauge "lamda_sidecar_machine_memory_bytes" [] "All memory of the machine.";
    SidecarMachineLoad = Gauge "lamda_sidecar_machine_load1" [] "The machine's load over a minute.";
    SidecarSamplerCpu = Counter "lamda_sidecar_sampler_cpu_seconds" [] "CPU time of the sidecar's process that sampling cost.";
    SamplerCpu = Counter "lamda_sampler_cpu_seconds" [] "CPU time of the node's process that watching jobs cost.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_lists_these_families_and_no_others() {
        let text = include_str!("../../docs/operations.md");
        let (_, section) = text.split_once("\n### Metrics\n").unwrap();
        let section = section.split("\n#").next().unwrap();
        let row = |line: &str| -> Option<[String; 3]> {
            let cells: Vec<&str> = line.strip_prefix("| `")?.split(" | ").collect();
            let labels: Vec<&str> = cells[2].split('`').skip(1).step_by(2).collect();
            Some([cells[0].trim_end_matches('`').to_owned(), cells[1].to_owned(), labels.join(" ")])
        };
        let told: Vec<_> = section.lines().filter_map(row).collect();
        let listed = Family::ALL.iter().map(|family| {
            let about = family.about();
            let kind = if about.kind == Kind::Gauge { "gauge" } else { "counter" };
            [about.written(), kind.to_owned(), about.labels.join(" ")]
        });
        assert_eq!(told, listed.collect::<Vec<_>>());
    }

    #[test]
    fn no_family_has_a_job_as_label_and_no_name_is_used_twice() {
        let mut names = std::collections::BTreeSet::new();
        for family in Family::ALL {
            let about = family.about();
            assert!(names.insert(about.name), "{}", about.name);
            assert!(!about.name.ends_with("_total"), "{}", about.name);
            assert!(!about.labels.iter().any(|label| label.contains("job")), "{}", about.name);
        }
    }
}
