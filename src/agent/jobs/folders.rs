//! Where a job's files lie: `jobs/<id>/` under the data folder, private to the node; beside them
//! what has left its job ([`Trash`]) and a [`Reserve`] of disk.
//!
//! ```text
//! jobs/<id>/inputs/             what the job sees as /input
//! jobs/<id>/inputs/input        the job's input, verified (file or folder)
//! jobs/<id>/<attempt>/output/   what the job sees as /output
//! jobs/<id>/<attempt>/volumes/  what the image declares as volumes
//! jobs/<id>/<attempt>/copied/   an output from outside /output
//! jobs/<id>/<attempt>/boot      in which boot of the host the inputs were fetched
//! jobs/<id>/<attempt>/sealed    what the output is called, once it is synced
//! jobs/<id>/<attempt>/log       the capped log
//! jobs/<id>/<attempt>/log.room  blocks for it, taken before the container starts
//! jobs/<id>/<attempt>/lines     how many of its lines were published live
//! jobs/.trash/                  what has left its job
//! ```
//!
//! What must hold: ids are [`JobId`]s, so no path leaves the folder; everything a stranger's
//! container may write lies below a parent that only the node can enter; what a stranger wrote is
//! never removed here, but leaves by one rename.

use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::reserve::Reserve;
use super::trash::{self, Trash};
use crate::host;
use crate::ids::JobId;
use crate::job::Job;
use crate::job::phase::Sealed;

/// The longest log that is kept of a job, in bytes, with the line that says what was left out.
pub const LOG_BYTES_MAX: u64 = (1 << 20) + 64;

/// The folder of all jobs.
#[derive(Debug, Clone)]
pub struct Folders {
    root: PathBuf,
    /// A reserve of the same disk.
    pub reserve: Reserve,
    /// Where they go in the end.
    pub trash: Trash,
}

/// The folders of one attempt.
#[derive(Debug, Clone)]
pub struct JobFolders {
    job: PathBuf,
    attempt: PathBuf,
    trash: Trash,
}

impl Folders {
    /// Creates the data folder and the folder of all jobs, private to the node.
    pub fn create(data_dir: &Path) -> io::Result<Self> {
        let root = data_dir.join("jobs");
        private(data_dir)?;
        private(&root)?;
        let root = root.canonicalize()?;
        let (reserve, trash) = (Reserve::of(data_dir), Trash::create(&root)?);
        // Where it lay until now.
        trash.take(&data_dir.join("trash")).ok();
        // A disk that is too full for it may have room later.
        reserve.keep().ok();
        Ok(Self { root, reserve, trash })
    }

    /// The folders of the job's present attempt.
    pub fn of(&self, job: &Job) -> JobFolders {
        self.of_attempt(job.id(), job.attempt)
    }

    /// The folders of an attempt of a job.
    pub fn of_attempt(&self, id: &JobId, attempt: u32) -> JobFolders {
        let job = self.root.join(id.as_str());
        JobFolders { attempt: job.join(attempt.to_string()), job, trash: self.trash.clone() }
    }

    /// Where they all lie.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Removes what is left of jobs that are not in `keep`. Says how many folders went.
    pub fn sweep(&self, keep: &[JobId]) -> io::Result<usize> {
        let mut removed = 0;
        for entry in std::fs::read_dir(&self.root)? {
            let entry = entry?;
            let name = entry.file_name();
            if name != trash::NAME && !keep.iter().any(|id| name == id.as_str()) {
                self.trash.take(&entry.path())?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

impl JobFolders {
    /// Creates what the container will see, and empties the output of an attempt that never ran.
    pub fn prepare(&self) -> io::Result<()> {
        private(&self.job)?;
        self.create_inputs()?;
        self.trash.take(&self.attempt)?;
        private(&self.attempt)?;
        let output = self.output();
        std::fs::create_dir(&output)?;
        // The container's user is the image's choice: any may write. Its parent is ours alone.
        std::fs::set_permissions(&output, std::fs::Permissions::from_mode(0o777))
    }

    /// What the job sees as `/input`.
    pub fn inputs(&self) -> PathBuf {
        self.job.join("inputs")
    }

    /// Removes everything below [`JobFolders::inputs`].
    pub fn clear_inputs(&self) -> io::Result<()> {
        self.trash.take(&self.inputs())?;
        self.create_inputs()
    }

    /// Whatever user the image runs as must be able to read them, and only through their mount.
    fn create_inputs(&self) -> io::Result<()> {
        private(&self.inputs())?;
        std::fs::set_permissions(self.inputs(), std::fs::Permissions::from_mode(0o755))
    }

    /// Where the input lies that the job sees at `path`, which is below `/input/`.
    pub fn input(&self, path: &str) -> PathBuf {
        self.inputs().join(path.trim_start_matches("/input/"))
    }

    /// Makes the folders above an input, which any user of the container may enter.
    pub fn make_way_to(&self, input: &Path) -> io::Result<()> {
        let inputs = self.inputs();
        let above: Vec<_> =
            input.ancestors().skip(1).take_while(|path| **path != *inputs).collect();
        for folder in above.into_iter().rev() {
            match std::fs::create_dir(folder) {
                Err(err) if err.kind() != io::ErrorKind::AlreadyExists => return Err(err),
                _ => std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?,
            }
        }
        Ok(())
    }

    /// What the job sees as `/output`.
    pub fn output(&self) -> PathBuf {
        self.attempt.join("output")
    }

    /// Where the volumes lie that the image declares.
    pub fn volumes(&self) -> PathBuf {
        self.attempt.join("volumes")
    }

    /// Removes everything that the job wrote to `/output`, and the folder.
    pub fn discard_output(&self) -> io::Result<()> {
        self.trash.take(&self.output())
    }

    /// An empty folder for an output that is copied out of the container.
    pub fn fresh_copied(&self) -> io::Result<PathBuf> {
        let copied = self.attempt.join("copied");
        self.trash.take(&copied)?;
        private(&copied)?;
        Ok(copied)
    }

    /// The capped log.
    pub fn log(&self) -> PathBuf {
        self.attempt.join("log")
    }

    /// Takes the blocks and the name that the kept log will need, before anything can fill the disk.
    pub fn take_log_room(&self) -> io::Result<()> {
        let room = std::fs::File::create(self.log_room())?;
        let taken = host::take_blocks(&room, LOG_BYTES_MAX);
        if taken.is_err() {
            // Not a part of it either: somebody may need that to end.
            std::fs::remove_file(self.log_room()).ok();
        }
        taken
    }

    /// Keeps the log, in the room that was taken for it. An empty one leaves no file.
    pub fn keep_log(&self, log: &[u8]) -> io::Result<()> {
        let room = self.log_room();
        if log.is_empty() {
            return match std::fs::remove_file(room) {
                Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
                _ => Ok(()),
            };
        }
        // Not truncated first: that would give the blocks away.
        let options = std::fs::File::options().write(true).create(true).truncate(false).clone();
        let mut file = options.open(&room)?;
        file.write_all(log)?;
        file.set_len(log.len() as u64)?;
        std::fs::rename(room, self.log())
    }

    fn log_room(&self) -> PathBuf {
        self.attempt.join("log.room")
    }

    /// How many lines of the log have been published live, about a second ago; 0 where that was
    /// never noted. Such a note may be lost: then lines are published again.
    pub fn published_lines(&self) -> u64 {
        let noted = std::fs::read_to_string(self.attempt.join("lines")).unwrap_or_default();
        noted.trim().parse().unwrap_or(0)
    }

    /// Notes how many lines of the log have been published live.
    pub fn note_published_lines(&self, count: u64) -> io::Result<()> {
        // Whole or not at all: a note that was cut short would be another number.
        let part = self.attempt.join("lines.part");
        std::fs::write(&part, count.to_string())?;
        std::fs::rename(part, self.attempt.join("lines"))
    }

    /// Notes in which boot of the host the inputs were fetched. Not synced: a note that a power cut
    /// took says the same as one of an earlier boot.
    pub fn note_boot(&self) -> io::Result<()> {
        std::fs::write(self.attempt.join("boot"), host::boot_id())
    }

    /// Whether the host has been up since then: what was written and not synced is still there.
    pub fn is_of_this_boot(&self) -> bool {
        let noted = std::fs::read_to_string(self.attempt.join("boot")).unwrap_or_default();
        !noted.is_empty() && noted == host::boot_id()
    }

    /// The sealed output, where it was noted that it is synced.
    pub fn sealed_output(&self) -> Option<Sealed> {
        let text = std::fs::read(self.attempt.join("sealed")).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Syncs the sealed output to the disk, and notes that it is: from then on a power cut can't
    /// shorten it unnoticed.
    pub async fn note_sealed_output(&self, sealed: Sealed) -> io::Result<()> {
        let (path, attempt) = (self.absolute(&sealed.path), self.attempt.clone());
        let synced = tokio::task::spawn_blocking(move || {
            host::tree::sync(&path)?;
            let note = attempt.join("sealed");
            std::fs::write(&note, serde_json::to_vec(&sealed)?)?;
            host::tree::sync(&note)?;
            std::fs::File::open(&attempt)?.sync_all()
        });
        synced.await.unwrap_or_else(|err| Err(io::Error::other(err)))
    }

    /// A path below the job's folder, as the journal keeps it.
    pub fn relative(&self, path: &Path) -> String {
        path.strip_prefix(&self.job).unwrap_or(path).to_string_lossy().into_owned()
    }

    /// The path that [`JobFolders::relative`] wrote.
    pub fn absolute(&self, relative: &str) -> PathBuf {
        self.job.join(relative)
    }

    /// Removes what is not needed to publish the output later.
    pub fn keep_output(&self) -> io::Result<()> {
        self.trash.take(&self.inputs())
    }

    /// Removes everything of the job: out of the way at once, gone later.
    pub fn remove(&self) -> io::Result<()> {
        self.trash.take(&self.job)
    }
}

/// Creates a folder that only the node can enter.
pub(super) fn private(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    // A folder that was there, or a mask, may say otherwise.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
}
