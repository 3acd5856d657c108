//! The files of a job: `jobs/<id>/` under the data folder, private to the node. Next to them are
//! the [`Trash`] and a [`Reserve`] of disk.
//!
//! ```text
//! jobs/<id>/inputs/             what the job sees as /input
//! jobs/<id>/inputs/input        the job's input, verified (file or folder)
//! jobs/<id>/<attempt>/output/   what the job sees as /output
//! jobs/<id>/<attempt>/volumes/  the volumes that the image declares
//! jobs/<id>/<attempt>/copied/   an output from outside /output
//! jobs/<id>/<attempt>/boot      the host's boot id when the inputs were fetched
//! jobs/<id>/<attempt>/sealed    the description of the output, once it is synced
//! jobs/<id>/<attempt>/log       the capped log
//! jobs/<id>/<attempt>/log.room  blocks for it, allocated before the container starts
//! jobs/<id>/<attempt>/lines     how many of its lines were published live
//! jobs/.trash/                  folders that wait for their removal
//! ```
//!
//! Invariants: ids are [`JobId`]s, so no path leaves the folder. Everything a stranger's container
//! may write lies below a parent that only the node can enter. What a stranger wrote is never
//! removed here, only moved away by one rename.

use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::reserve::Reserve;
use super::trash::{self, Trash};
use crate::host;
use crate::ids::JobId;
use crate::job::Job;
use crate::job::phase::Sealed;

/// Maximum size of a job's kept log in bytes, including the line that says what was left out.
pub const LOG_BYTES_MAX: u64 = (1 << 20) + 64;

/// The folder of all jobs.
#[derive(Debug, Clone)]
pub struct Folders {
    root: PathBuf,
    /// The disk reserve in the data folder.
    pub reserve: Reserve,
    /// The trash that removed folders are moved to.
    pub trash: Trash,
}

/// The folders of one attempt of a job.
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
        host::private_folder(data_dir)?;
        host::private_folder(&root)?;
        let root = root.canonicalize()?;
        let (reserve, trash) = (Reserve::of(data_dir), Trash::create(&root)?);
        // An earlier version kept its trash here.
        trash.take(&data_dir.join("trash")).ok();
        // If the disk is too full, it is tried again later.
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

    /// The folder of all jobs.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Moves the folders of all jobs except those in `keep` to the trash. Returns how many.
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
    /// Creates the folders that the container will see. Discards what an earlier preparation of the
    /// same attempt left.
    pub fn prepare(&self) -> io::Result<()> {
        host::private_folder(&self.job)?;
        self.create_inputs()?;
        self.trash.take(&self.attempt)?;
        host::private_folder(&self.attempt)?;
        let output = self.output();
        std::fs::create_dir(&output)?;
        // The image chooses the container's user, so anybody may write. Only the node may enter
        // the parent.
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

    /// Any user that the image runs as must be able to read them, but only through their mount.
    fn create_inputs(&self) -> io::Result<()> {
        host::private_folder(&self.inputs())?;
        std::fs::set_permissions(self.inputs(), std::fs::Permissions::from_mode(0o755))
    }

    /// The host path of the input that the job sees at `path`, which is below `/input/`.
    pub fn input(&self, path: &str) -> PathBuf {
        self.inputs().join(path.trim_start_matches("/input/"))
    }

    /// Creates the folders between [`JobFolders::inputs`] and an input; any user may enter them.
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

    /// The folder of the volumes that the image declares.
    pub fn volumes(&self) -> PathBuf {
        self.attempt.join("volumes")
    }

    /// Removes `/output` with everything that the job wrote there.
    pub fn discard_output(&self) -> io::Result<()> {
        self.trash.take(&self.output())
    }

    /// Creates an empty folder for an output that is copied out of the container.
    pub fn fresh_copied(&self) -> io::Result<PathBuf> {
        let copied = self.attempt.join("copied");
        self.trash.take(&copied)?;
        host::private_folder(&copied)?;
        Ok(copied)
    }

    /// The file of the capped log.
    pub fn log(&self) -> PathBuf {
        self.attempt.join("log")
    }

    /// Allocates the blocks and the inode of the kept log, before the job can fill the disk.
    pub fn take_log_room(&self) -> io::Result<()> {
        let room = std::fs::File::create(self.log_room())?;
        let taken = host::take_blocks(&room, LOG_BYTES_MAX);
        if taken.is_err() {
            // Not even a part of it: another job may need these blocks to end.
            std::fs::remove_file(self.log_room()).ok();
        }
        taken
    }

    /// Writes the log into the blocks allocated for it. An empty one leaves no file.
    pub fn keep_log(&self, log: &[u8]) -> io::Result<()> {
        let room = self.log_room();
        if log.is_empty() {
            return match std::fs::remove_file(room) {
                Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
                _ => Ok(()),
            };
        }
        // Truncating first would free the blocks.
        let options = std::fs::File::options().write(true).create(true).truncate(false).clone();
        let mut file = options.open(&room)?;
        file.write_all(log)?;
        file.set_len(log.len() as u64)?;
        std::fs::rename(room, self.log())
    }

    fn log_room(&self) -> PathBuf {
        self.attempt.join("log.room")
    }

    /// How many lines of the log had been published live when that was last noted; 0 if it never
    /// was. The note may lag behind or be lost: then lines are published again.
    pub fn published_lines(&self) -> u64 {
        let noted = std::fs::read_to_string(self.attempt.join("lines")).unwrap_or_default();
        noted.trim().parse().unwrap_or(0)
    }

    /// Notes how many lines of the log have been published live.
    pub fn note_published_lines(&self, count: u64) -> io::Result<()> {
        // Atomic, by rename: a truncated note would be a different number.
        let part = self.attempt.join("lines.part");
        std::fs::write(&part, count.to_string())?;
        std::fs::rename(part, self.attempt.join("lines"))
    }

    /// Notes in which boot of the host the inputs were fetched. Not synced: a note lost in a power
    /// cut has the same effect as one from an earlier boot.
    pub fn note_boot(&self) -> io::Result<()> {
        std::fs::write(self.attempt.join("boot"), host::boot_id())
    }

    /// Whether the host has been up since then, so that unsynced writes are still there.
    pub fn is_of_this_boot(&self) -> bool {
        let noted = std::fs::read_to_string(self.attempt.join("boot")).unwrap_or_default();
        !noted.is_empty() && noted == host::boot_id()
    }

    /// The sealed output, if it was noted that it is synced.
    pub fn sealed_output(&self) -> Option<Sealed> {
        let text = std::fs::read(self.attempt.join("sealed")).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Syncs the sealed output to disk, then durably notes that it is: from then on a power cut
    /// can't truncate it unnoticed.
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

    /// Converts a path below the job's folder to the relative form that the journal keeps.
    pub fn relative(&self, path: &Path) -> String {
        path.strip_prefix(&self.job).unwrap_or(path).to_string_lossy().into_owned()
    }

    /// The absolute path of what [`JobFolders::relative`] returned.
    pub fn absolute(&self, relative: &str) -> PathBuf {
        self.job.join(relative)
    }

    /// Removes the inputs, which are not needed to publish the output later.
    pub fn keep_output(&self) -> io::Result<()> {
        self.trash.take(&self.inputs())
    }

    /// Removes all files of the job: moved to the trash at once, deleted later.
    pub fn remove(&self) -> io::Result<()> {
        self.trash.take(&self.job)
    }
}
