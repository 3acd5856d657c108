//! The check of NVIDIA's container toolkit: whether programs are known to get out of their containers by it.

use super::{Finding, unset};
use crate::agent::JobAuth;
use crate::config::{Gpu, Parts};
use crate::node::toolkit::Verdict;

const REMEDY: &str = "update nvidia-container-toolkit and libnvidia-container, then restart the engine \
                      (https://docs.nvidia.com/datacenter/cloud-native/container-toolkit)";

const UNKNOWN: &str = "find out its version (`nvidia-ctk --version`) and hold it against NVIDIA's security \
                       bulletins: the node takes jobs all the same; where the toolkit lies in another folder, \
                       put that into the node's PATH";

/// Whether the toolkit's version has known escapes, and what follows from that for strangers' jobs.
pub(super) async fn toolkit(parts: &Parts) -> Finding {
    let (Some(gpu), Some(docker)) = (&parts.gpu, &parts.docker) else { return unset() };
    if matches!(gpu, Gpu::None) {
        return Finding::ok("GPU_MODE=none: not needed");
    }
    let verdict = gpu.toolkit(docker).look().await;
    let has_strangers = parts.settings.as_ref().is_none_or(|it| it.auth == JobAuth::Open);
    let is_allowed = parts.settings.as_ref().is_some_and(|it| it.allows_unsafe_toolkit);
    judged(&verdict, has_strangers, is_allowed)
}

fn judged(verdict: &Verdict, has_strangers: bool, is_allowed: bool) -> Finding {
    match verdict {
        Verdict::Unused => Finding::ok("not used"),
        Verdict::Safe(version) => Finding::ok(format!("{version}, without known ways out")),
        Verdict::Unknown(why) => Finding::warn(format!("its version is not known: {why}"), UNKNOWN),
        Verdict::Unsafe(escapes) if is_allowed => Finding::warn(
            format!("{escapes}; GPU_ALLOW_UNSAFE_TOOLKIT=true: jobs get GPUs all the same"),
            REMEDY,
        ),
        Verdict::Unsafe(escapes) if has_strangers => {
            Finding::fail(format!("{escapes}: no stranger's job gets a GPU"), REMEDY)
        }
        Verdict::Unsafe(escapes) => Finding::warn(
            format!("{escapes}: only those in JOB_ALLOWED_REQUESTERS could use that"),
            REMEDY,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Grade;
    use super::*;
    use crate::node::toolkit::{Version, judge};

    #[test]
    fn a_toolkit_with_known_escapes_fails_where_strangers_send_jobs_and_nobody_allowed_it() {
        let old = judge(&[("nvidia-ctk", Ok(Version::new(1, 17, 3)))]);
        let unknown = Verdict::Unknown("none of its programs is on this host".to_owned());
        for (verdict, has_strangers, is_allowed, grade) in [
            (&old, true, false, Grade::Fail),
            (&old, true, true, Grade::Warn),
            (&old, false, false, Grade::Warn),
            (&unknown, true, false, Grade::Warn),
            (&Verdict::Safe(Version::new(1, 17, 8)), true, false, Grade::Ok),
        ] {
            let found = judged(verdict, has_strangers, is_allowed);
            assert_eq!(found.status, grade, "{found:?}");
            assert_eq!(found.remedy.is_some(), grade != Grade::Ok, "{found:?}");
        }
        let told = judged(&old, true, false).detail;
        assert!(
            told.contains("1.17.3") && told.contains("CVE-2025-23359") && told.contains("1.17.8")
        );
    }
}
