//! One reader for each kind of value in a job's message.
//!
//! An absent, null or empty value means the default. Every error is a sentence that names the key and
//! quotes at most 64 characters of the message, except for a valid variable's name.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use serde_json::{Map, Value};

use super::super::reason::Reason;
use super::{ExtraInput, Needs, NetworkNeed, SandboxNeed};
use crate::ids::{Cid, JobId};
use crate::usage::profile::Profile;

/// Longest image reference, in bytes: enough for any registry.
const IMAGE_BYTES_MAX: usize = 512;
/// Longest path in the container, in bytes; the kernel allows 4096.
const PATH_BYTES_MAX: usize = 1024;
/// Most arguments of a command. More data belongs in a file, as for the variables below.
const ARGUMENTS_MAX: usize = 1024;
const VARIABLES_MAX: usize = 256;
const TEXT_BYTES_MAX: usize = 32 * 1024;
/// Most inputs besides the first one.
const INPUTS_MAX: usize = 32;

type Problem = (Reason, String);

pub(super) struct Fields<'a>(pub(super) &'a Map<String, Value>);

/// Untrusted text for an error message: escaped, at most 64 characters.
pub(super) fn excerpt(text: &str) -> String {
    let short: String = text.escape_debug().take(64).collect();
    if short.len() < text.len() { format!("{short}…") } else { short }
}

impl Fields<'_> {
    /// The value of the first of these keys that holds one.
    fn first<'k>(&self, keys: &[&'k str]) -> Option<(&'k str, &Value)> {
        keys.iter().find_map(|key| match self.0.get(*key)? {
            Value::Null => None,
            Value::String(text) if text.is_empty() => None,
            Value::Array(items) if items.is_empty() => None,
            value => Some((*key, value)),
        })
    }

    fn text(&self, keys: &[&str], bytes_max: usize) -> Result<Option<String>, String> {
        let Some((key, value)) = self.first(keys) else { return Ok(None) };
        let text = value.as_str().ok_or_else(|| format!("`{key}` is not a string"))?;
        if text.len() > bytes_max {
            return Err(format!("`{key}` has {} bytes; {bytes_max} are allowed", text.len()));
        }
        if text.contains('\0') {
            return Err(format!("`{key}` holds a NUL"));
        }
        Ok(Some(text.to_owned()))
    }

    pub(super) fn id(&self) -> Result<JobId, String> {
        let text = self.text(&["job_id", "jobId"], super::BODY_BYTES_MAX)?;
        let text = text.ok_or("the message has no `job_id`")?;
        text.parse().map_err(|err| format!("`job_id` \"{}\": {err}", excerpt(&text)))
    }

    pub(super) fn image(&self) -> Result<String, Problem> {
        let text = self
            .text(&["image_name", "dockerImage", "image"], IMAGE_BYTES_MAX)
            .map_err(|error| (Reason::ImageInvalid, error))?
            .ok_or_else(|| (Reason::ImageMissing, "the job names no image".to_owned()))?;
        let plain = text.bytes().all(|b| b.is_ascii_graphic()) && !text.starts_with('-');
        if plain {
            Ok(text)
        } else {
            let error = format!("`image_name` \"{}\" is no image reference", excerpt(&text));
            Err((Reason::ImageInvalid, error))
        }
    }

    pub(super) fn input(&self) -> Result<Option<Cid>, Problem> {
        let keys = ["input_file_cid", "inputFileCID", "input_cid"];
        let text = self.text(&keys, 512).map_err(|error| (Reason::InputCidInvalid, error))?;
        text.map(|text| cid("input_file_cid", &text)).transpose()
    }

    pub(super) fn extra_inputs(&self) -> Result<Vec<ExtraInput>, Problem> {
        let malformed = |error: &str| (Reason::Malformed, error.to_owned());
        let Some((_, value)) = self.first(&["inputs"]) else { return Ok(Vec::new()) };
        let items = value.as_array().ok_or_else(|| malformed("`inputs` is not an array"))?;
        if items.len() > INPUTS_MAX {
            return Err(malformed("`inputs` has more than 32 entries"));
        }
        let mut inputs: Vec<ExtraInput> = Vec::with_capacity(items.len());
        for item in items {
            let item = item.as_object().ok_or_else(|| malformed("`inputs` holds no objects"))?;
            let fields = Fields(item);
            let of = |key| fields.text(&[key], PATH_BYTES_MAX).map_err(|err| malformed(&err));
            let (Some(text), Some(path)) = (of("cid")?, of("path")?) else {
                return Err(malformed("an entry of `inputs` lacks `cid` or `path`"));
            };
            let path = absolute("inputs.path", &path).map_err(|err| malformed(&err))?;
            let below = path.strip_prefix("/input/").is_some_and(|rest| {
                rest != "input" && !rest.starts_with("input/") && !rest.is_empty()
            });
            let apart = inputs.iter().all(|other| !overlap(&other.path, &path));
            if !below || !apart {
                return Err(malformed(
                    "`inputs.path` must lie under /input/, apart from the others",
                ));
            }
            inputs.push(ExtraInput { cid: cid("inputs.cid", &text)?, path });
        }
        Ok(inputs)
    }

    pub(super) fn output_path(&self) -> Result<Option<String>, String> {
        let text = self.text(&["output_path"], PATH_BYTES_MAX)?;
        text.map(|text| absolute("output_path", &text)).transpose()
    }

    pub(super) fn arguments(&self, key: &str) -> Result<Option<Vec<String>>, String> {
        let Some((_, value)) = self.first(&[key]) else { return Ok(None) };
        let items = value.as_array().ok_or_else(|| format!("`{key}` is not an array"))?;
        let texts: Option<Vec<String>> =
            items.iter().map(|item| item.as_str().map(str::to_owned)).collect();
        let texts = texts.ok_or_else(|| format!("`{key}` holds something else than strings"))?;
        let bytes: usize = texts.iter().map(String::len).sum();
        if texts.len() > ARGUMENTS_MAX || bytes > BYTES_OF_ARGUMENTS_MAX {
            return Err(format!("`{key}` is longer than {ARGUMENTS_MAX} arguments or 128 KiB"));
        }
        if texts.iter().any(|text| text.contains('\0')) {
            return Err(format!("`{key}` holds a NUL"));
        }
        Ok(Some(texts))
    }

    pub(super) fn env(&self) -> Result<BTreeMap<String, String>, String> {
        let Some((_, value)) = self.first(&["env"]) else { return Ok(BTreeMap::new()) };
        let map = value.as_object().ok_or("`env` is not an object")?;
        if map.len() > VARIABLES_MAX {
            return Err(format!("`env` has more than {VARIABLES_MAX} variables"));
        }
        let mut env = BTreeMap::new();
        for (name, value) in map {
            let led = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
            let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if !led || !plain || name.len() > 256 {
                return Err(format!("`env`: \"{}\" is no variable's name", excerpt(name)));
            }
            let value = value.as_str().ok_or_else(|| format!("`env.{name}` is not a string"))?;
            if value.len() > TEXT_BYTES_MAX || value.contains('\0') {
                return Err(format!(
                    "`env.{name}` holds a NUL or more than {TEXT_BYTES_MAX} bytes"
                ));
            }
            env.insert(name.clone(), value.to_owned());
        }
        Ok(env)
    }

    pub(super) fn needs(&self) -> Result<Needs, String> {
        /// 64 TiB: no node has more, and the same in bytes is far from overflowing a `u64`.
        const MIB_MAX: u64 = 64 << 20;
        let gpus = self.integer("gpus", 0, 64)?;
        let (monitoring, monitoring_problem) = self.monitoring();
        Ok(Needs {
            gpus: gpus.and_then(|n| u32::try_from(n).ok()),
            gpu_model: self.text(&["gpu_model"], 64)?,
            min_vram_mib: self.integer("min_vram_mib", 0, MIB_MAX)?,
            milli_cpus: self.milli_cpus()?,
            memory_mib: self.integer("memory_mib", 6, MIB_MAX)?,
            disk_mib: self.integer("disk_mib", 1, MIB_MAX)?,
            shm_mib: self.integer("shm_mib", 1, MIB_MAX)?.unwrap_or(1024),
            network: self.network()?,
            sandbox: self.sandbox()?,
            monitoring,
            monitoring_problem,
        })
    }

    /// The profile that it asks for, or why that is not obeyed: nobody's job is refused for how it is watched.
    fn monitoring(&self) -> (Option<Profile>, Option<String>) {
        let keys = ["monitoring_profile", "monitoringProfile"];
        if let Some((key, value)) = self.first(&keys) {
            return match Profile::from_json(value) {
                Ok(profile) => (Some(profile), None),
                Err(err) => (None, Some(format!("`{key}` is not obeyed: {err}"))),
            };
        }
        let is_daemon =
            self.first(&["daemon"]).is_some_and(|(_, value)| *value == Value::Bool(true));
        (is_daemon.then(|| Profile::for_daemon(true)), None)
    }

    fn milli_cpus(&self) -> Result<Option<u64>, String> {
        let Some((_, value)) = self.first(&["cpus"]) else { return Ok(None) };
        let cpus = value.as_f64().filter(|cpus| (0.01..=4096.0).contains(cpus));
        let cpus = cpus.ok_or("`cpus` is not a number from 0.01 to 4096")?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked to lie between 10 and 4,096,000"
        )]
        Ok(Some((cpus * 1000.0).round() as u64))
    }

    fn network(&self) -> Result<NetworkNeed, String> {
        match self.text(&["network"], 64)?.as_deref() {
            None | Some("none") => Ok(NetworkNeed::None),
            Some("internet") => Ok(NetworkNeed::Internet),
            Some("bridge") => Ok(NetworkNeed::Bridge),
            Some(_) => Err("`network` is none of none, internet, bridge".to_owned()),
        }
    }

    fn sandbox(&self) -> Result<SandboxNeed, String> {
        match self.text(&["sandbox"], 64)?.as_deref() {
            None | Some("standard") => Ok(SandboxNeed::Standard),
            Some("strict") => Ok(SandboxNeed::Strict),
            Some(_) => Err("`sandbox` is none of standard, strict".to_owned()),
        }
    }

    pub(super) fn integer(&self, key: &str, min: u64, max: u64) -> Result<Option<u64>, String> {
        let Some((_, value)) = self.first(&[key]) else { return Ok(None) };
        let number = value.as_u64().filter(|number| (min..=max).contains(number));
        number.map(Some).ok_or_else(|| format!("`{key}` is not a whole number from {min} to {max}"))
    }

    pub(super) fn signed(&self, key: &str, min: i32, max: i32) -> Result<Option<i32>, String> {
        let Some((_, value)) = self.first(&[key]) else { return Ok(None) };
        let number = value.as_i64().and_then(|number| i32::try_from(number).ok());
        let number = number.filter(|number| (min..=max).contains(number));
        number.map(Some).ok_or_else(|| format!("`{key}` is not a whole number from {min} to {max}"))
    }

    pub(super) fn parsed<T: FromStr>(&self, key: &str) -> Result<Option<T>, String>
    where
        T::Err: Display,
    {
        let Some(text) = self.text(&[key], TEXT_BYTES_MAX)? else { return Ok(None) };
        text.parse().map(Some).map_err(|err| format!("`{key}` \"{}\": {err}", excerpt(&text)))
    }
}

/// Most bytes of a command's arguments together: the kernel passes them in one block.
const BYTES_OF_ARGUMENTS_MAX: usize = 128 * 1024;

fn cid(key: &str, text: &str) -> Result<Cid, Problem> {
    text.parse()
        .map_err(|err| (Reason::InputCidInvalid, format!("`{key}` \"{}\": {err}", excerpt(text))))
}

/// An absolute path without `.` and `..`, normalised: no double and no trailing slash.
fn absolute(key: &str, text: &str) -> Result<String, String> {
    let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty()).collect();
    let plain = parts.iter().all(|part| *part != "." && *part != "..");
    let printable = !text.chars().any(char::is_control);
    if text.starts_with('/') && plain && printable && !parts.is_empty() {
        Ok(format!("/{}", parts.join("/")))
    } else {
        Err(format!("`{key}` \"{}\" is no absolute path without `..`", excerpt(text)))
    }
}

/// Whether one path is the other or lies under it.
fn overlap(a: &str, b: &str) -> bool {
    let under = |inner: &str, outer: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    under(a, b) || under(b, a)
}
