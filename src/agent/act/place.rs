//! Finds where an output lies, both on this host and as the job sees it, and resolves links on the
//! way.
//!
//! Invariants: links are resolved here, component by component, and never by the operating system;
//! a link that leads out of the job's folder resolves to nothing.

use std::path::{Component, Path, PathBuf};

use super::disk_failed;
use crate::agent::jobs::terms;
use crate::job::phase::{Event, Fault};
use crate::job::{Job, Reason};

/// Total number of links followed for one path. Links that name one another many times would
/// otherwise be followed without end.
pub(super) const HOPS_MAX: usize = 16;

/// Where an output lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The path on this host.
    pub(super) path: PathBuf,
    /// The path as the job sees it.
    pub(super) seen_as: String,
}

/// Why an output could not be sealed: a fault of the job, or a failure of the node.
pub(super) enum SealError {
    Job(Fault),
    Node(Box<Event>),
}

/// The default output: `/output/output` if that is a file and the only entry, else the folder
/// `/output`.
pub(super) fn default(job: &Job, output: &Path) -> Result<Place, SealError> {
    let entries = std::fs::read_dir(output)
        .and_then(|entries| entries.take(2).collect::<Result<Vec<_>, _>>())
        .map_err(|err| SealError::Node(Box::new(disk_failed(&err))))?;
    let seen_as = "/output".to_owned();
    match entries.as_slice() {
        [] => Err(SealError::Job(missing(job))),
        [only]
            if only.file_name() == "output"
                && only.file_type().is_ok_and(|kind| kind.is_file()) =>
        {
            Ok(Place { path: only.path(), seen_as: "/output/output".to_owned() })
        }
        _ => Ok(Place { path: output.to_owned(), seen_as }),
    }
}

/// The part of a job's path below `/output`; `None` if the path is elsewhere.
pub(super) fn below_output(path: &str) -> Option<&Path> {
    Path::new(path).strip_prefix("/output").ok()
}

/// The job's path that the link at `link` leads to.
pub(super) fn leads_to(link: &str, target: &str) -> String {
    let folder = Path::new(link).parent().unwrap_or(Path::new("/"));
    let mut path = PathBuf::from("/");
    for part in folder.join(target).components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::ParentDir => drop(path.pop()),
            _ => {}
        }
    }
    path.to_string_lossy().into_owned()
}

/// Why a path has no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Astray {
    /// There is nothing, or links lead in a circle.
    Nothing,
    /// A link leads out of the job's folder.
    Out,
}

impl Astray {
    /// The fault of a job whose output should be at this path.
    pub(super) fn fault(self, job: &Job) -> Fault {
        match self {
            Self::Nothing => missing(job),
            Self::Out => {
                let path = terms::output_path(&job.spec);
                let error = format!(
                    "the output: `{path}` can't be carried: a link that leads out of /output"
                );
                Fault::new(Reason::OutputUnsupported, error)
            }
        }
    }
}

/// The entry at `below` in `output`, the host's folder behind `/output`, with links resolved.
pub(super) fn inside(output: &Path, below: &Path) -> Result<Place, Astray> {
    let mut at = Vec::new();
    let mut hops = HOPS_MAX;
    follow(output, &mut at, below, &mut hops)?;
    let names: PathBuf = at.iter().collect();
    let seen_as = Path::new("/output").join(&names).to_string_lossy().into_owned();
    let seen_as = seen_as.trim_end_matches('/').to_owned();
    let path = if at.is_empty() { output.to_owned() } else { output.join(names) };
    path.symlink_metadata().map_err(|_| Astray::Nothing)?;
    Ok(Place { path, seen_as })
}

fn follow(
    output: &Path,
    at: &mut Vec<String>,
    path: &Path,
    hops: &mut usize,
) -> Result<(), Astray> {
    *hops = hops.checked_sub(1).ok_or(Astray::Nothing)?;
    for part in path.components() {
        match part {
            Component::Normal(name) => {
                let folder = at.len();
                at.push(name.to_str().ok_or(Astray::Nothing)?.to_owned());
                let here = output.join(at.iter().collect::<PathBuf>());
                let found = here.symlink_metadata().map_err(|_| Astray::Nothing)?;
                if !found.is_symlink() {
                    continue;
                }
                at.truncate(folder);
                let target = here.read_link().map_err(|_| Astray::Nothing)?;
                // An absolute target is the job's: only what it calls `/output` is looked up here.
                if target.is_absolute() {
                    at.clear();
                    let below = target.strip_prefix("/output").map_err(|_| Astray::Out)?;
                    follow(output, at, below, hops)?;
                } else {
                    follow(output, at, &target, hops)?;
                }
            }
            Component::ParentDir => drop(at.pop().ok_or(Astray::Out)?),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return Err(Astray::Out),
        }
    }
    Ok(())
}

pub(super) fn missing(job: &Job) -> Fault {
    let path = terms::output_path(&job.spec);
    let error = format!("the command exited 0 but left nothing at {path}");
    Fault::new(Reason::OutputMissing, error)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_path_that_names_a_link_is_what_that_leads_to_inside_and_nothing_outside() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path();
        std::fs::create_dir_all(output.join("deep/er")).unwrap();
        std::fs::write(output.join("deep/er/model"), "x").unwrap();
        for (name, target) in [
            ("latest", "deep/er/model"),
            ("absolute", "/output/deep"),
            ("deep/up", "../latest"),
            ("all", "."),
            ("out", "../.."),
            ("root", "/"),
            ("shadow", "/etc/shadow"),
            ("circle", "circle"),
        ] {
            symlink(target, output.join(name)).unwrap();
        }
        let find = |path: &str| inside(output, Path::new(path)).map(|place| place.seen_as);
        for (path, real) in [
            ("", "/output"),
            ("latest", "/output/deep/er/model"),
            ("absolute/er", "/output/deep/er"),
            ("deep/up", "/output/deep/er/model"),
            ("all", "/output"),
        ] {
            assert_eq!(find(path).as_deref(), Ok(real), "{path}");
        }
        for path in ["circle", "nothing", "latest/x"] {
            assert_eq!(find(path), Err(Astray::Nothing), "{path}");
        }
        for path in ["out", "root", "root/etc", "shadow"] {
            assert_eq!(find(path), Err(Astray::Out), "{path}");
        }
        // Each of these links names the next one a hundred times.
        for level in 0..12 {
            let next = format!("many-{}/../", level + 1).repeat(100);
            symlink(format!("{next}deep"), output.join(format!("many-{level}"))).unwrap();
        }
        symlink("deep", output.join("many-12")).unwrap();
        assert_eq!(find("many-0"), Err(Astray::Nothing));
        assert_eq!(find("many-12").as_deref(), Ok("/output/deep"));
        assert_eq!(leads_to("/data/latest", "v2/model"), "/data/v2/model");
        assert_eq!(leads_to("/data/latest", "../../../etc"), "/etc");
        assert_eq!(leads_to("/data/latest", "/output/x"), "/output/x");
    }
}
