//! File work of the fake engine: a simulated job's output, and copying it out.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::super::{ContainerSpec, Error, Mount};
use super::SIMULATED;

/// The host path of a path in the container; `None` if no mount covers it.
pub(super) fn host_path(spec: &ContainerSpec, path: &str) -> Option<PathBuf> {
    let below = |mount: &Mount| {
        let rest = Path::new(path).strip_prefix(&mount.target).ok()?;
        let host = mount.host.clone();
        Some((mount.target.len(), if rest.as_os_str().is_empty() { host } else { host.join(rest) }))
    };
    spec.mounts.iter().filter_map(below).max_by_key(|(depth, _)| *depth).map(|(_, host)| host)
}

/// Where the job has to leave its output (`OUTPUT_PATH`).
pub(super) fn output_path(spec: &ContainerSpec) -> &str {
    let told = spec.env.iter().find(|(name, _)| name == "OUTPUT_PATH");
    told.map_or("/output/output", |(_, path)| path)
}

/// The whole simulated job: writes its input, or the names in it, below a line that says it is simulated.
pub(super) fn simulate(input: Option<&Path>, output: Option<&Path>) -> io::Result<()> {
    let Some(output) = output else { return Ok(()) };
    if let Some(folder) = output.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut output = File::create(output)?;
    writeln!(output, "{SIMULATED}")?;
    match input {
        Some(file) if file.is_file() => {
            io::copy(&mut File::open(file)?, &mut output)?;
        }
        Some(folder) if folder.is_dir() => {
            let entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
            let mut names: Vec<_> = entries.iter().map(fs::DirEntry::file_name).collect();
            names.sort_unstable();
            for name in names {
                writeln!(output, "{}", name.display())?;
            }
        }
        _ => {}
    }
    Ok(())
}

pub(super) enum CopyError {
    TooLarge,
    Io(io::Error),
    Refused(String),
}

impl From<io::Error> for CopyError {
    fn from(err: io::Error) -> Self {
        Self::Io(err)
    }
}

pub(super) fn copy_tree(source: &Path, dest: &Path, bytes_left: &mut u64) -> Result<(), CopyError> {
    let found = source.symlink_metadata()?;
    if found.is_dir() {
        fs::create_dir(dest)?;
        for entry in fs::read_dir(source)? {
            let entry = entry?;
            copy_tree(&entry.path(), &dest.join(entry.file_name()), bytes_left)?;
        }
        Ok(())
    } else if found.is_file() {
        *bytes_left = bytes_left.checked_sub(found.len()).ok_or(CopyError::TooLarge)?;
        fs::copy(source, dest).map(drop).map_err(CopyError::Io)
    } else if found.is_symlink() {
        let target = fs::read_link(source)?;
        std::os::unix::fs::symlink(target, dest).map_err(CopyError::Io)
    } else {
        Err(CopyError::Refused(format!("`{}` is neither a file nor a folder", source.display())))
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panicked| Err(io::Error::other(panicked))).map_err(Error::Io)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").ok();
        text
    })
}
