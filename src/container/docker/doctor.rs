//! The engine's description of itself, for `doctor` and the checks at start.

use std::path::PathBuf;

use bollard::models::{
    SystemInfoCgroupDriverEnum as CgroupDriver, SystemInfoCgroupVersionEnum as Cgroup,
};

use super::super::Error;
use super::Docker;

/// How the names of containerd's shims begin.
const SHIMS: &str = "io.containerd.";

/// A Docker Engine's description of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engine {
    /// Its version, such as `28.2.2`.
    pub version: String,
    /// The newest version of its HTTP API.
    pub api: String,
    /// The host's operating system, such as `Debian GNU/Linux 12 (bookworm)`.
    pub os: String,
    /// Version of its control groups: 1 or 2; 0 if it does not say.
    pub cgroup_version: u8,
    /// Whether systemd makes them for it, so that no job has one of its own.
    pub are_cgroups_by_systemd: bool,
    /// Names of its OCI runtimes, sorted.
    pub runtimes: Vec<String>,
    /// Its storage driver, such as `overlay2`.
    pub storage_driver: String,
    /// Folder of its images and containers.
    pub root_dir: PathBuf,
    /// Its security options, such as `name=seccomp,profile=default`.
    pub security_options: Vec<String>,
    /// Limits that it accepts but can't enforce.
    pub unlimited: Vec<&'static str>,
}

impl Engine {
    /// Whether containers' system calls are filtered: `profile=default` (`builtin` on newer engines) or a
    /// file, not `unconfined`.
    pub fn filters_syscalls(&self) -> bool {
        self.option("seccomp").is_some_and(|rest| !rest.contains("profile=unconfined"))
    }

    /// What keeps this engine from running a stranger's job under this runtime. Without the kernel's control groups
    /// it drops limits, with a warning that nobody reads; without seccomp a job may make any system call.
    pub fn lacks(&self, runtime: Option<&str>) -> Option<Error> {
        if !self.unlimited.is_empty() {
            return Some(Error::Unlimited { missing: self.unlimited.join(", ") });
        }
        if !self.filters_syscalls() {
            return Some(Error::Unfiltered);
        }
        // The engine starts the shims of containerd by their names, without listing them.
        let runtime = runtime.filter(|name| !name.starts_with(SHIMS))?;
        (!self.runtimes.iter().any(|known| known == runtime)).then(|| Error::NoRuntime {
            runtime: runtime.to_owned(),
            known: self.runtimes.join(", "),
        })
    }

    /// Whether root in a container is another user on the host.
    pub fn maps_root(&self) -> bool {
        self.option("userns").is_some() || self.option("rootless").is_some()
    }

    /// The rest of a security option `name=<name>[,key=value…]`; `None` if the engine lists no such option.
    fn option(&self, name: &str) -> Option<&str> {
        self.security_options.iter().find_map(|option| {
            let (first, rest) = option.split_once(',').unwrap_or((option, ""));
            (first.strip_prefix("name=") == Some(name)).then_some(rest)
        })
    }
}

impl Docker {
    /// Asks the engine for its version and properties.
    pub async fn engine(&self) -> Result<Engine, Error> {
        let client = self.client().await?;
        let version = self.call(client.version()).await?;
        let info = self.call(client.info()).await?;
        let mut runtimes: Vec<String> = info.runtimes.unwrap_or_default().into_keys().collect();
        runtimes.sort_unstable();
        Ok(Engine {
            version: version.version.unwrap_or_default(),
            api: version.api_version.unwrap_or_default(),
            os: info.operating_system.unwrap_or_default(),
            cgroup_version: match info.cgroup_version {
                Some(Cgroup::_1) => 1,
                Some(Cgroup::_2) => 2,
                Some(Cgroup::EMPTY) | None => 0,
            },
            are_cgroups_by_systemd: info.cgroup_driver == Some(CgroupDriver::SYSTEMD),
            runtimes,
            storage_driver: info.driver.unwrap_or_default(),
            root_dir: info.docker_root_dir.unwrap_or_default().into(),
            security_options: info.security_options.unwrap_or_default(),
            unlimited: unlimited([
                ("memory", info.memory_limit),
                ("processors", info.cpu_cfs_quota),
                ("processes", info.pids_limit),
            ]),
        })
    }

    /// Fails if the engine can't hold a job in its sandbox ([`Engine::lacks`]).
    pub(super) async fn holds_jobs(&self) -> Result<(), Error> {
        let engine = self.engine().await?;
        engine.lacks(self.config.runtime.as_deref()).map_or(Ok(()), Err)
    }
}

/// The features that the engine says it lacks; one that it does not mention counts as present.
fn unlimited<const N: usize>(has: [(&'static str, Option<bool>); N]) -> Vec<&'static str> {
    has.into_iter().filter(|(_, has)| *has == Some(false)).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_that_can_not_hold_a_job_is_told_by_what_it_lacks() {
        let filtered = &["name=seccomp,profile=default"][..];
        for (options, unlimited, runtime, says) in [
            (filtered, &[][..], None, ""),
            (filtered, &[], Some("runsc"), ""),
            (filtered, &[], Some("io.containerd.kata.v2"), ""),
            (filtered, &[], Some("crun"), "JOB_RUNTIME=crun"),
            (filtered, &["memory"], Some("crun"), "a limit of memory"),
            (&["name=seccomp,profile=unconfined"], &[], None, "seccomp"),
            (&[], &[], None, "seccomp"),
        ] {
            let engine = Engine {
                runtimes: vec!["runc".to_owned(), "runsc".to_owned()],
                unlimited: unlimited.to_vec(),
                ..engine(options)
            };
            let told = engine.lacks(runtime).map(|err| err.to_string()).unwrap_or_default();
            assert_eq!(told.is_empty(), says.is_empty(), "{told}");
            assert!(told.contains(says), "{told}");
        }
    }

    fn engine(options: &[&str]) -> Engine {
        Engine {
            version: String::new(),
            api: String::new(),
            os: String::new(),
            cgroup_version: 2,
            are_cgroups_by_systemd: false,
            runtimes: Vec::new(),
            storage_driver: String::new(),
            root_dir: PathBuf::new(),
            security_options: options.iter().map(|option| (*option).to_owned()).collect(),
            unlimited: Vec::new(),
        }
    }

    #[test]
    fn an_engines_security_options_are_read_as_engines_write_them() {
        for (options, filters, maps) in [
            (&["name=apparmor", "name=seccomp,profile=default"][..], true, false),
            (&["name=seccomp,profile=builtin", "name=cgroupns"], true, false),
            (&["name=seccomp,profile=/etc/docker/own.json", "name=userns"], true, true),
            (&["name=seccomp,profile=unconfined", "name=rootless"], false, true),
            (&["name=apparmor"], false, false),
            (&[], false, false),
        ] {
            let engine = engine(options);
            assert_eq!(
                (engine.filters_syscalls(), engine.maps_root()),
                (filters, maps),
                "{options:?}"
            );
        }
    }
}
