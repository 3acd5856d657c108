//! The values that are read of a job, and of each of its cards: one row each, with name and unit.
//!
//! Invariant: a metric's name is what batches, records and documents call it; it never changes its meaning or unit.

/// How the readings of a metric belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Counts up from the job's start.
    Counter,
    /// Goes up and down.
    Gauge,
    /// The highest value since the job's start.
    Peak,
}

/// What is read of a job as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// CPU time of all its processes, in microseconds.
    Cpu,
    /// Memory in bytes, without file pages that the kernel can drop at once.
    Memory,
    /// The most memory that it had, file pages included, in bytes.
    MemoryPeak,
    /// Swap in bytes.
    Swap,
    /// Time in which a process of it waited for a CPU, in microseconds (pressure stall information, `some`).
    CpuPressure,
    /// Time in which a process of it waited for memory, in microseconds.
    MemoryPressure,
    /// Time in which a process of it waited for the disk, in microseconds.
    IoPressure,
    /// Bytes read from disks.
    DiskRead,
    /// Bytes written to disks.
    DiskWrite,
    /// Bytes received over its network.
    NetRx,
    /// Bytes sent over its network.
    NetTx,
    /// Number of processes.
    Processes,
    /// Number of threads.
    Threads,
    /// Number of open file descriptors of all its processes.
    Descriptors,
}

impl Metric {
    /// How many there are.
    pub const COUNT: usize = 14;

    /// All of them, in the order of their indexes.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Cpu,
        Self::Memory,
        Self::MemoryPeak,
        Self::Swap,
        Self::CpuPressure,
        Self::MemoryPressure,
        Self::IoPressure,
        Self::DiskRead,
        Self::DiskWrite,
        Self::NetRx,
        Self::NetTx,
        Self::Processes,
        Self::Threads,
        Self::Descriptors,
    ];

    /// Its name, with its unit.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu_us",
            Self::Memory => "memory_bytes",
            Self::MemoryPeak => "memory_peak_bytes",
            Self::Swap => "swap_bytes",
            Self::CpuPressure => "cpu_pressure_us",
            Self::MemoryPressure => "memory_pressure_us",
            Self::IoPressure => "io_pressure_us",
            Self::DiskRead => "disk_read_bytes",
            Self::DiskWrite => "disk_write_bytes",
            Self::NetRx => "network_rx_bytes",
            Self::NetTx => "network_tx_bytes",
            Self::Processes => "processes",
            Self::Threads => "threads",
            Self::Descriptors => "file_descriptors",
        }
    }

    /// How its readings belong together.
    pub const fn kind(self) -> Kind {
        match self {
            Self::Cpu
            | Self::CpuPressure
            | Self::MemoryPressure
            | Self::IoPressure
            | Self::DiskRead
            | Self::DiskWrite
            | Self::NetRx
            | Self::NetTx => Kind::Counter,
            Self::MemoryPeak => Kind::Peak,
            Self::Memory | Self::Swap | Self::Processes | Self::Threads | Self::Descriptors => {
                Kind::Gauge
            }
        }
    }
}

/// What is read of each card that a job has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CardMetric {
    /// Share of the last moment in which a kernel ran, in percent.
    Busy,
    /// Memory of the card that the job's processes hold, in bytes.
    Memory,
    /// Number of the job's processes on the card.
    Processes,
    /// Power drawn, in milliwatts.
    Power,
    /// Energy that the card used since the job's start, in millijoules, by the card's own counter.
    Energy,
    /// Clock of the multiprocessors, in MHz.
    SmClock,
    /// Clock of the memory, in MHz.
    MemoryClock,
    /// Temperature of the chip, in degrees Celsius.
    Temperature,
    /// Whether heat slows the card: 0 or 1.
    ThermalSlowdown,
    /// Whether its supply slows the card: 0 or 1.
    PowerBrake,
}

impl CardMetric {
    /// How many there are.
    pub const COUNT: usize = 10;

    /// All of them, in the order of their indexes.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Busy,
        Self::Memory,
        Self::Processes,
        Self::Power,
        Self::Energy,
        Self::SmClock,
        Self::MemoryClock,
        Self::Temperature,
        Self::ThermalSlowdown,
        Self::PowerBrake,
    ];

    /// Its name, with its unit.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Busy => "gpu_busy_percent",
            Self::Memory => "gpu_memory_bytes",
            Self::Processes => "gpu_processes",
            Self::Power => "gpu_power_mw",
            Self::Energy => "gpu_energy_mj",
            Self::SmClock => "gpu_sm_mhz",
            Self::MemoryClock => "gpu_memory_mhz",
            Self::Temperature => "gpu_celsius",
            Self::ThermalSlowdown => "gpu_thermal_slowdown",
            Self::PowerBrake => "gpu_power_brake",
        }
    }

    /// How its readings belong together.
    pub const fn kind(self) -> Kind {
        match self {
            Self::Energy => Kind::Counter,
            _ => Kind::Gauge,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_in_the_order_of_the_indexes_and_no_name_is_used_twice() {
        assert!(Metric::ALL.iter().enumerate().all(|(at, metric)| *metric as usize == at));
        assert!(CardMetric::ALL.iter().enumerate().all(|(at, metric)| *metric as usize == at));
        let names = Metric::ALL.map(Metric::name).into_iter();
        let names: std::collections::BTreeSet<_> =
            names.chain(CardMetric::ALL.map(CardMetric::name)).collect();
        assert_eq!(names.len(), Metric::COUNT + CardMetric::COUNT);
    }
}
