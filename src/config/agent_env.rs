//! The settings of the original Linux agent: the environment over `/etc/gensyn-agent.env`.
//!
//! Must hold: the file is read, never run, as the agent in shell reads it: the last line of a name counts, quotes
//! around a value are taken off, nothing in it is expanded; no value is part of a message.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::Path;

use zeroize::Zeroizing;

use super::env::{Lookup, is_private};
use crate::gswarm::beat::{Beat, ENV_FILE, Monitor};
use crate::watch::checks::Checks;

/// Where the original keeps its settings; `ENV_FILE` says another place.
const FILE: &str = "/etc/gensyn-agent.env";

/// Largest file, in bytes.
const BYTES_MAX: u64 = 64 * 1024;

/// What the original agent is told.
#[derive(Debug, Clone)]
pub struct AgentEnv {
    /// What is checked.
    pub checks: Checks,
    /// The heartbeat of a program that is well.
    pub beat: Beat,
    /// Who takes it; `None` without `SERVER_URL`.
    pub monitor: Option<Monitor>,
    /// What the owner should mend.
    pub warnings: Vec<String>,
}

/// Reads the settings. `host` is this machine's name. The error is a sentence for each that is wrong, with its name.
pub fn agent_env(environment: &dyn Lookup, host: &str) -> Result<AgentEnv, String> {
    let path = environment.get(ENV_FILE).filter(|path| !path.is_empty());
    let is_named = path.is_some();
    let path = path.unwrap_or_else(|| FILE.to_owned());
    let (file, warnings) = read(Path::new(&path), is_named)?;
    let get = |name: &str| {
        environment.get(name).or_else(|| file.get(name).map(|value| value.as_str().to_owned()))
    };
    let mut wrong: Vec<String> = Vec::new();
    let mut told = |all: Vec<(&'static str, String)>| {
        wrong.extend(all.into_iter().map(|(name, why)| format!("{name}: {why}")));
    };
    let checks = Checks::read(get).map_err(&mut told);
    let beat = Beat::read(get, host).map_err(&mut told);
    let monitor = Monitor::read(get).map_err(&mut told);
    match (checks, beat, monitor) {
        (Ok(checks), Ok(beat), Ok(monitor)) => Ok(AgentEnv { checks, beat, monitor, warnings }),
        _ => Err(wrong.join("; ")),
    }
}

type Values = HashMap<String, Zeroizing<String>>;

/// The file's values, and what is wrong with the file itself. One that nobody named may be missing.
fn read(path: &Path, is_named: bool) -> Result<(Values, Vec<String>), String> {
    let shown = path.display();
    let unreadable = |err: std::io::Error| format!("{shown} can't be read: {err}");
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(err) if err.kind() == std::io::ErrorKind::NotFound && !is_named => {
            return Ok((Values::new(), Vec::new()));
        }
        Err(err) => return Err(unreadable(err)),
    };
    if !metadata.is_file() {
        return Err(format!("{shown} is no regular file"));
    }
    let mut bytes = Zeroizing::new(Vec::new());
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(format!("{shown} has more than {BYTES_MAX} bytes"));
    }
    let text = crate::text::utf8(&bytes).map_err(|what| format!("{shown}: {what}"))?;
    let values: Values = text.lines().filter_map(line).collect();
    let is_open = values.contains_key("SHARED_SECRET");
    let warnings = is_open.then(|| is_private(path, &metadata).err()).flatten();
    Ok((values, warnings.into_iter().collect()))
}

/// One line `NAME=VALUE`, perhaps with `export` before it.
fn line(line: &str) -> Option<(String, Zeroizing<String>)> {
    let line = line.trim();
    let line = line.strip_prefix("export ").map_or(line, str::trim_start);
    let (name, value) = line.split_once('=')?;
    let is_name = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    if name.is_empty() || !name.bytes().all(is_name) {
        return None;
    }
    let bare =
        ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
    Some((name.to_owned(), Zeroizing::new(bare.unwrap_or(value).to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(file: &str, environment: &[(&str, &str)]) -> Result<AgentEnv, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.env");
        std::fs::write(&path, file).unwrap();
        let own = [("ENV_FILE", path.to_str().unwrap())];
        let all = environment.iter().chain(&own);
        let all: HashMap<String, String> =
            all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        agent_env(&all, "rig")
    }

    const FILE: &str = "# the original's\r\nSERVER_URL=http://127.0.0.1:1\r\nexport SHARED_SECRET='super long'\n\
        SHARED_SECRET=\"super-long-$HOME\"\nMETA=hetzner-fsn1\nSCREEN_NAME=gensyn\nCHECK_PORT=true\nPORT=3001\n\
        not a line\n$(touch x)=y\nPORT\n";

    #[test]
    fn the_originals_file_is_read_and_not_run_and_the_environment_goes_before_it() {
        let settings = read(FILE, &[("META", "mine")]).unwrap();
        assert_eq!(
            (settings.beat.node_id.as_str(), settings.beat.meta.as_str()),
            ("rig-gensyn", "mine")
        );
        assert_eq!(settings.checks.port, Some(3001));
        assert!(settings.monitor.is_some() && !format!("{settings:?}").contains("super-long"));
        assert_eq!(settings.warnings.len(), 1, "everybody can read it: {:?}", settings.warnings);
    }

    #[test]
    fn without_a_monitor_there_are_the_checks_alone_and_without_a_secret_that_is_told() {
        assert!(read("PORT=1\n", &[]).unwrap().monitor.is_none());
        let told = read("SERVER_URL=http://x\nPORT=no\nNODE_ID=a\u{7}\n", &[]).unwrap_err();
        for part in [
            "SHARED_SECRET: it is not set",
            "PORT: it is no whole number",
            "NODE_ID: it is too long",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
        let spaced = read("SERVER_URL=http://x\nSHARED_SECRET=hunter 2\n", &[]).unwrap_err();
        assert!(spaced.contains("the token has a space") && !spaced.contains("hunter"), "{spaced}");
    }

    #[test]
    fn a_file_that_was_named_must_be_there() {
        let named = |path: &str| {
            agent_env(&HashMap::from([("ENV_FILE".to_owned(), path.to_owned())]), "rig")
        };
        assert!(named("/nonexistent/x").unwrap_err().contains("can't be read"));
        assert!(named("/").unwrap_err().contains("no regular file"));
    }
}
