//! How closely a job is watched: the seven profiles by name, and objects with the same keys.
//!
//! Pure. Invariants: a profile comes only out of [`Profile::from_json`], a [`Name`] or a text of the owner's, so that
//! its interval and its history are within their limits; the document of a profile reads back as the same profile.

use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::metric::Metric;

/// Shortest interval between two looks.
pub const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Longest interval between two looks: one day.
pub const INTERVAL_MAX: Duration = Duration::from_hours(24);

/// Most samples that a profile can ask to keep.
pub const HISTORY_MAX: u32 = 100_000;

/// An `interval` of at least this is in nanoseconds, as Go writes one; below it, in seconds, as Rust reads one. No
/// allowed interval can be taken for the other: the longest is 86,400 seconds, the shortest 100,000,000 nanoseconds.
const NANOSECONDS_FROM: u64 = 1_000_000;

/// Most characters of a foreign text that an error repeats.
const QUOTED_CHARS_MAX: usize = 64;

/// Longest setting that is read as a profile, in bytes.
const TEXT_BYTES_MAX: usize = 4_096;

/// Which groups of metrics are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key by itself")]
pub struct Collect {
    /// CPU time and pressure.
    pub cpu: bool,
    /// Memory, its peak, swap and pressure.
    pub memory: bool,
    /// Bytes read from and written to disks, and pressure.
    pub disk_io: bool,
    /// Bytes received and sent.
    pub network_io: bool,
    /// Numbers of processes and threads.
    pub threads: bool,
    /// Number of open file descriptors.
    pub file_descriptors: bool,
}

impl Collect {
    const ALL: Self = Self {
        cpu: true,
        memory: true,
        disk_io: true,
        network_io: true,
        threads: true,
        file_descriptors: true,
    };

    const NONE: Self = Self {
        cpu: false,
        memory: false,
        disk_io: false,
        network_io: false,
        threads: false,
        file_descriptors: false,
    };
}

/// How closely a job is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// Whether the job is watched at all.
    pub enabled: bool,
    /// Time between two looks, in whole milliseconds: 100 ms to one day.
    pub interval: Duration,
    /// What is read.
    pub collect: Collect,
    /// Whether what is read is published.
    pub export: bool,
    /// Whether samples are kept, also where none is published.
    pub retain_history: bool,
    /// Number of samples that are kept, at most [`HISTORY_MAX`].
    pub history_size: u32,
}

/// A profile that has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// For most jobs.
    Standard,
    /// Little, and for the owner alone.
    Minimal,
    /// To look for a fault.
    Intensive,
    /// Data processing.
    BatchProcessing,
    /// Servers that answer requests.
    RealtimeApi,
    /// Services that run for days.
    LongRunningDaemon,
    /// Not at all.
    Disabled,
}

impl Name {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Standard,
        Self::Minimal,
        Self::Intensive,
        Self::BatchProcessing,
        Self::RealtimeApi,
        Self::LongRunningDaemon,
        Self::Disabled,
    ];

    /// The name as documents write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Minimal => "minimal",
            Self::Intensive => "intensive",
            Self::BatchProcessing => "batch_processing",
            Self::RealtimeApi => "realtime_api",
            Self::LongRunningDaemon => "long_running_daemon",
            Self::Disabled => "disabled",
        }
    }

    /// The profile of this name.
    pub const fn profile(self) -> Profile {
        const ALL: Collect = Collect::ALL;
        const NONE: Collect = Collect::NONE;
        match self {
            Self::Standard => Profile::new(10, ALL, true, 100),
            Self::Minimal => {
                Profile::new(60, Collect { cpu: true, memory: true, ..NONE }, false, 0)
            }
            Self::Intensive => Profile::new(1, ALL, true, 1_000),
            Self::BatchProcessing => {
                let collect = Collect { cpu: true, memory: true, disk_io: true, ..NONE };
                Profile::new(30, collect, true, 200)
            }
            Self::RealtimeApi => Profile::new(5, Collect { disk_io: false, ..ALL }, true, 500),
            Self::LongRunningDaemon => Profile::new(120, ALL, true, 500),
            Self::Disabled => Profile { enabled: false, ..Profile::new(10, NONE, false, 0) },
        }
    }
}

impl FromStr for Name {
    type Err = InvalidProfile;

    /// Takes the name in any case, and its title: `Real-time API` is `realtime_api`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Longer than any name with its separators: not worth a look.
        let text = text.trim();
        let wanted = (text.len() <= QUOTED_CHARS_MAX).then(|| letters(text));
        Self::ALL.into_iter().find(|name| Some(letters(name.as_str())) == wanted).ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str).join(", ");
            InvalidProfile(format!(
                "{} is not a monitoring profile: it must be one of {names}",
                quoted(text)
            ))
        })
    }
}

/// A name without what separates its words, in lower case.
fn letters(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, ' ' | '-' | '_')).map(|c| c.to_ascii_lowercase()).collect()
}

/// Why something is not a monitoring profile: one sentence that names the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidProfile(String);

impl Serialize for Profile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_json().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Profile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_json(&Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl Profile {
    const fn new(seconds: u64, collect: Collect, export: bool, history_size: u32) -> Self {
        Self {
            enabled: true,
            interval: Duration::from_secs(seconds),
            collect,
            export,
            retain_history: history_size > 0,
            history_size,
        }
    }

    /// The profile of a job that asks for none.
    pub const fn for_daemon(daemon: bool) -> Self {
        if daemon { Name::LongRunningDaemon.profile() } else { Name::Standard.profile() }
    }

    /// Whether this metric is read.
    pub const fn collects(&self, metric: Metric) -> bool {
        self.enabled
            && match metric {
                Metric::Cpu | Metric::CpuPressure => self.collect.cpu,
                Metric::Memory | Metric::MemoryPeak | Metric::Swap | Metric::MemoryPressure => {
                    self.collect.memory
                }
                Metric::DiskRead | Metric::DiskWrite | Metric::IoPressure => self.collect.disk_io,
                Metric::NetRx | Metric::NetTx => self.collect.network_io,
                Metric::Processes | Metric::Threads => self.collect.threads,
                Metric::Descriptors => self.collect.file_descriptors,
            }
    }

    /// Reads a name, or an object. Keys that an object does not have are those of the profile that its `profile` (or
    /// `name`) names, else Standard's. `interval` is in nanoseconds from 1,000,000 on and in seconds below, and is
    /// not looked at where `interval_ms` stands beside it; parts of a millisecond are dropped.
    pub fn from_json(document: &Value) -> Result<Self, InvalidProfile> {
        match document {
            Value::String(name) => Ok(name.parse::<Name>()?.profile()),
            Value::Object(keys) => Self::from_keys(keys),
            other => Err(InvalidProfile(format!(
                "a monitoring profile is a name or an object, not {}",
                shown(other)
            ))),
        }
    }

    fn from_keys(keys: &Map<String, Value>) -> Result<Self, InvalidProfile> {
        let mut profile = base(keys)?.profile();
        for (key, value) in keys {
            let flag = || {
                value.as_bool().ok_or_else(|| {
                    InvalidProfile(format!("`{key}` is {}: it must be true or false", shown(value)))
                })
            };
            match key.as_str() {
                "profile" | "name" => {}
                "enabled" => profile.enabled = flag()?,
                "interval" if keys.contains_key("interval_ms") => {}
                "interval" | "interval_ms" => profile.interval = interval(key, value)?,
                "collect_cpu" => profile.collect.cpu = flag()?,
                "collect_memory" => profile.collect.memory = flag()?,
                "collect_disk_io" => profile.collect.disk_io = flag()?,
                "collect_network_io" => profile.collect.network_io = flag()?,
                "collect_threads" => profile.collect.threads = flag()?,
                "collect_file_descriptors" => profile.collect.file_descriptors = flag()?,
                "export_to_mqtt" => profile.export = flag()?,
                "retain_history" => profile.retain_history = flag()?,
                "history_size" => profile.history_size = history(value)?,
                _ => {
                    let what = format!("{} is not a key of a monitoring profile", quoted(key));
                    return Err(InvalidProfile(what));
                }
            }
        }
        Ok(profile)
    }

    /// The document that [`Profile::from_json`] reads as this profile: every key, the interval in milliseconds.
    pub fn to_json(&self) -> Value {
        json!({
            "enabled": self.enabled,
            "interval_ms": u64::try_from(self.interval.as_millis()).unwrap_or(u64::MAX),
            "collect_cpu": self.collect.cpu,
            "collect_memory": self.collect.memory,
            "collect_disk_io": self.collect.disk_io,
            "collect_network_io": self.collect.network_io,
            "collect_threads": self.collect.threads,
            "collect_file_descriptors": self.collect.file_descriptors,
            "export_to_mqtt": self.export,
            "retain_history": self.retain_history,
            "history_size": self.history_size,
        })
    }
}

impl FromStr for Profile {
    type Err = InvalidProfile;

    /// Reads a setting: a name, or a JSON object.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if !text.starts_with('{') {
            return Ok(text.parse::<Name>()?.profile());
        }
        if text.len() > TEXT_BYTES_MAX {
            let what = format!("a monitoring profile has at most {TEXT_BYTES_MAX} bytes");
            return Err(InvalidProfile(what));
        }
        let document: Value = serde_json::from_str(text).map_err(|err| {
            InvalidProfile(format!("the monitoring profile is not valid JSON: {err}"))
        })?;
        Self::from_json(&document)
    }
}

/// The profile whose values an object's absent keys have.
fn base(keys: &Map<String, Value>) -> Result<Name, InvalidProfile> {
    let (key, value) = match (keys.get("profile"), keys.get("name")) {
        (None, None) => return Ok(Name::Standard),
        (Some(value), None) => ("profile", value),
        (None, Some(value)) => ("name", value),
        (Some(_), Some(_)) => {
            return Err(InvalidProfile(
                "`profile` and `name` are the same key: leave one out".into(),
            ));
        }
    };
    let name = value.as_str().ok_or_else(|| {
        InvalidProfile(format!("`{key}` is {}: it must be a profile's name", shown(value)))
    })?;
    name.parse().map_err(|InvalidProfile(what)| InvalidProfile(format!("`{key}`: {what}")))
}

/// The value of `interval` or `interval_ms`.
fn interval(key: &str, value: &Value) -> Result<Duration, InvalidProfile> {
    let span = value.as_u64().map(|number| match key {
        "interval_ms" => Duration::from_millis(number),
        _ if number >= NANOSECONDS_FROM => Duration::from_millis(number / 1_000_000),
        _ => Duration::from_secs(number),
    });
    span.filter(|span| (INTERVAL_MIN..=INTERVAL_MAX).contains(span)).ok_or_else(|| {
        let unit = match key {
            "interval_ms" => "milliseconds from 100 to 86400000",
            _ => "seconds from 1 to 86400, or of nanoseconds from 100000000 to 86400000000000",
        };
        InvalidProfile(format!("`{key}` is {}: it must be a whole number of {unit}", shown(value)))
    })
}

fn history(value: &Value) -> Result<u32, InvalidProfile> {
    let size = value.as_u64().and_then(|size| u32::try_from(size).ok());
    size.filter(|size| *size <= HISTORY_MAX).ok_or_else(|| {
        InvalidProfile(format!(
            "`history_size` is {}: it must be a whole number from 0 to {HISTORY_MAX}",
            shown(value)
        ))
    })
}

/// A value from outside as an error shows it: bounded, on one line.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("the text {}", quoted(text)),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// The beginning of a text from outside, in quotes and escaped.
fn quoted(text: &str) -> String {
    let cut = text.char_indices().nth(QUOTED_CHARS_MAX).map(|(at, _)| at);
    let (head, more) = cut.map_or((text, ""), |at| (text.split_at(at).0, "…"));
    format!("{head:?}{more}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::report::is_obeyed;

    fn read(document: &Value) -> Profile {
        Profile::from_json(document).unwrap()
    }

    fn refusal(document: &Value) -> String {
        Profile::from_json(document).unwrap_err().to_string()
    }

    #[test]
    fn the_seven_profiles_are_the_table_of_their_first_users() {
        // Name, seconds, what is collected (cpu, memory, disk, network, threads, descriptors), export, history.
        for (name, seconds, collected, export, history) in [
            ("standard", 10, "cmdntf", true, 100),
            ("minimal", 60, "cm", false, 0),
            ("intensive", 1, "cmdntf", true, 1000),
            ("batch_processing", 30, "cmd", true, 200),
            ("realtime_api", 5, "cmntf", true, 500),
            ("long_running_daemon", 120, "cmdntf", true, 500),
        ] {
            let profile = read(&name.into());
            assert!(profile.enabled, "{name}");
            assert_eq!(profile.interval, Duration::from_secs(seconds), "{name}");
            assert_eq!((profile.export, profile.history_size), (export, history), "{name}");
            assert_eq!(profile.retain_history, history > 0, "{name}");
            for (metric, letter) in Metric::ALL.into_iter().zip("cmmmcmdddnnttf".chars()) {
                assert_eq!(
                    profile.collects(metric),
                    collected.contains(letter),
                    "{name} {metric:?}"
                );
            }
        }
        let disabled = read(&"disabled".into());
        assert!(!disabled.enabled && !disabled.export);
        assert!(Metric::ALL.into_iter().all(|metric| !disabled.collects(metric)));
    }

    #[test]
    fn names_are_taken_in_any_case_and_as_titles() {
        for (text, name) in [
            ("Standard", Name::Standard),
            ("MINIMAL", Name::Minimal),
            (" intensive ", Name::Intensive),
            ("Batch Processing", Name::BatchProcessing),
            ("batch-processing", Name::BatchProcessing),
            ("Real-time API", Name::RealtimeApi),
            ("REALTIME_API", Name::RealtimeApi),
            ("Long-running Daemon", Name::LongRunningDaemon),
            ("Disabled", Name::Disabled),
        ] {
            assert_eq!(text.parse(), Ok(name), "{text}");
            assert_eq!(text.parse(), Ok(name.profile()), "{text}");
        }
        assert_eq!(Profile::for_daemon(true), Name::LongRunningDaemon.profile());
        assert_eq!(Profile::for_daemon(false), Name::Standard.profile());
    }

    #[test]
    fn an_object_has_the_base_of_its_name_and_its_own_keys() {
        let standard = Name::Standard.profile();
        assert_eq!(read(&json!({})), standard);
        let minimal = Name::Minimal.profile();
        assert_eq!(read(&json!({"profile": "Minimal"})), minimal);
        let exported = json!({"name": "minimal", "export_to_mqtt": true, "history_size": 7});
        assert_eq!(read(&exported), Profile { export: true, history_size: 7, ..minimal });
        let setting = r#" {"profile": "intensive", "collect_network_io": false} "#;
        let setting: Profile = setting.parse().unwrap();
        assert!(!setting.collects(Metric::NetRx) && setting.collects(Metric::Cpu));
        assert!(!read(&json!({"enabled": false})).collects(Metric::Cpu));
    }

    #[test]
    fn an_interval_is_read_in_both_units_that_are_in_use() {
        for (document, ms) in [
            (json!({"interval": 10}), 10_000),
            (json!({"interval": 86_400}), 86_400_000),
            (json!({"interval": 5_000_000_000_u64}), 5_000),
            (json!({"interval": 100_000_000}), 100),
            (json!({"interval_ms": 250}), 250),
            (json!({"interval_ms": 250, "interval": 10}), 250),
            (json!({"interval_ms": 250, "interval": 0}), 250),
        ] {
            assert_eq!(read(&document).interval, Duration::from_millis(ms), "{document}");
        }
    }

    #[test]
    fn what_is_no_profile_is_refused_with_the_name_of_its_key() {
        let years_300_ns = 300 * 365 * 86_400 * 1_000_000_000_u64;
        for (document, key) in [
            (json!("turbo"), "\"turbo\""),
            (json!(""), "\"\""),
            (json!({"profile": "turbo"}), "`profile`"),
            (json!({"name": 7}), "`name`"),
            (json!({"name": "minimal", "profile": "minimal"}), "`profile` and `name`"),
            (json!({"interval": 0}), "`interval`"),
            (json!({"interval": years_300_ns}), "`interval`"),
            (json!({"interval_ms": years_300_ns}), "`interval_ms`"),
            (json!({"interval": 86_401}), "`interval`"),
            (json!({"interval": 999_999}), "`interval`"),
            (json!({"interval": 1_000_000}), "`interval`"),
            (json!({"interval": -10}), "`interval`"),
            (json!({"interval": "10"}), "`interval`"),
            (json!({"interval": 0.5}), "`interval`"),
            (json!({"interval": null}), "`interval`"),
            (json!({"interval_ms": 99}), "`interval_ms`"),
            (json!({"interval_ms": 86_400_001}), "`interval_ms`"),
            (json!({"history_size": 1_000_000_000}), "`history_size`"),
            (json!({"history_size": -1}), "`history_size`"),
            (json!({"enabled": "yes"}), "`enabled`"),
            (json!({"collect_cpu": 1}), "`collect_cpu`"),
            (json!({"colour": 1}), "\"colour\""),
            (json!([]), "an array"),
            (json!(5), "not 5"),
        ] {
            let refusal = refusal(&document);
            assert!(refusal.contains(key), "{document}: {refusal}");
        }
        assert!("{".parse::<Profile>().unwrap_err().to_string().contains("not valid JSON"));
    }

    #[test]
    fn a_hostile_text_does_not_get_into_the_answer() {
        let hostile = format!("\u{1b}[2J\u{202e}{}", "x".repeat(10_000));
        for document in [
            json!(hostile),
            json!({"interval": hostile}),
            json!({hostile.as_str(): 1}),
            json!({"name": hostile}),
        ] {
            let refusal = refusal(&document);
            assert!(refusal.len() < 400 && !refusal.chars().any(is_obeyed), "{refusal}");
        }
        assert!(format!("{{{hostile}").parse::<Profile>().is_err());
    }

    proptest! {
        #[test]
        fn the_document_of_a_profile_reads_back_as_the_same(
            flags in any::<[bool; 9]>(), ms in 100_u64..=86_400_000, history_size in 0..=HISTORY_MAX,
        ) {
            let [enabled, export, retain_history, cpu, memory, disk_io, network_io, threads, fds] = flags;
            let collect = Collect { cpu, memory, disk_io, network_io, threads, file_descriptors: fds };
            let interval = Duration::from_millis(ms);
            let profile = Profile { enabled, interval, collect, export, retain_history, history_size };
            prop_assert_eq!(Profile::from_json(&profile.to_json()), Ok(profile));
            prop_assert_eq!(profile.to_json().to_string().parse(), Ok(profile));
        }

        #[test]
        fn an_accepted_interval_is_within_its_limits(number in any::<u64>()) {
            for key in ["interval", "interval_ms"] {
                if let Ok(profile) = Profile::from_json(&json!({key: number})) {
                    prop_assert!((INTERVAL_MIN..=INTERVAL_MAX).contains(&profile.interval));
                }
            }
        }
    }
}
