//! `disk`: shows what the node keeps on its disks, and removes what it may, also while the node is running.
//!
//! With `--json`: `{"budget_mib", "used_bytes", "is_whole", "images": [{"id", "names", "bytes", "last_used",
//! "in_use"}], "bytes": {"images", "inputs", "outputs", "kept_outputs", "logs", "journal", "trash",
//! "reserve"}, "disks": [{"what", "path", "free_mib", "min_mib"}]}`; with `--prune` also `"removed"` (or
//! `"would_remove"`, with `--dry-run`), a list of images as above. `budget_mib` is null where none is set.

mod table;

use std::collections::HashSet;
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::logging::Audience;
use super::{block_on, load, out};
use crate::agent::stock;
use crate::clock::{Clock as _, SystemClock};
use crate::config;
use crate::container::ContainerRuntime as _;
use crate::container::docker::Docker;
use crate::host;
use crate::ids::JobId;
use crate::journal::{Error as JournalError, Reader, Standing};
use crate::node::stock::{Item, Stock};

/// Most jobs in hand that are asked which images they need.
const JOBS_MAX: u32 = 10_000;

/// Arguments of `disk`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Remove the images that this node pulled and that no job or container needs
    #[arg(long)]
    prune: bool,
    /// With --prune: only show what would go
    #[arg(long, requires = "prune")]
    dry_run: bool,
    /// One JSON object, for programs
    #[arg(long)]
    json: bool,
}

/// A file system that the node writes to.
#[derive(Debug)]
struct Place {
    /// `data` or `engine`.
    what: &'static str,
    path: String,
    /// `None` if it can't be measured from here.
    free_mib: Option<u64>,
}

pub(super) fn execute(args: &Args) -> anyhow::Result<ExitCode> {
    let settings = load(Audience::Client, config::Disk::read)?;
    block_on(show(args, &settings))
}

async fn show(args: &Args, settings: &config::Disk) -> anyhow::Result<ExitCode> {
    let docker = Docker::connect(&settings.docker)?;
    let (needed, kept) = in_hand(&settings.data_dir)?;
    let stock = stock::take(&docker, &settings.data_dir, &needed, kept).await?;
    let places = places(&docker, &settings.data_dir).await;
    let going: Vec<Item> = if args.prune { stock.idle().cloned().collect() } else { Vec::new() };
    let mut removed = Vec::new();
    if !args.dry_run {
        for image in &going {
            // The walks took a while: meanwhile a running node may have taken a job that needs the image.
            let (needed, _) = in_hand(&settings.data_dir)?;
            if !needed.contains(&image.id) && stock::remove(&docker, image, SystemClock.now()).await
            {
                removed.push(image.clone());
            }
        }
    }
    let (word, listed) =
        if args.dry_run { ("would_remove", &going) } else { ("removed", &removed) };
    if args.json {
        let mut object = object(&stock, settings, &places);
        if args.prune {
            object[word] = listed.iter().map(of_image).collect();
        }
        out::json(&object)?;
        return Ok(ExitCode::SUCCESS);
    }
    table::print(&stock, settings, &places)?;
    for image in listed {
        let word = if args.dry_run { "would remove" } else { "removed" };
        out::line(&format!("{word} {}", table::image(image)))?;
    }
    if args.prune && listed.is_empty() {
        out::note(
            "nothing goes: every image that this node pulled is in use, or was used a moment ago",
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// The images that jobs in hand need, and the jobs whose outputs are kept; both empty before a node's first
/// start.
fn in_hand(data_dir: &Path) -> anyhow::Result<(HashSet<String>, HashSet<JobId>)> {
    let journal = match Reader::open(data_dir) {
        Err(JournalError::Missing(_)) => return Ok(Default::default()),
        journal => journal?,
    };
    let jobs = journal.open_jobs(JOBS_MAX)?.records.into_iter();
    let jobs: Vec<_> = jobs
        .filter_map(|record| match record.standing {
            Standing::Taken(job) => Some(*job),
            Standing::Refused { .. } | Standing::IdOnly { .. } => None,
        })
        .collect();
    Ok((stock::needed(&jobs), journal.kept_ids()?.into_iter().collect()))
}

async fn places(docker: &Docker, data_dir: &Path) -> Vec<Place> {
    let place = |what, path: &Path| Place {
        what,
        path: path.display().to_string(),
        free_mib: host::disk_free_mib(path).ok(),
    };
    let mut places = vec![place("data", data_dir)];
    let root = docker.root_folder().await.ok().flatten();
    places.extend(root.map(|root| place("engine", &root)));
    places
}

fn object(stock: &Stock, settings: &config::Disk, places: &[Place]) -> Value {
    let min_mib = settings.limits.free_min_mib;
    let disks = places.iter().map(|place| {
        let Place { what, path, free_mib } = place;
        json!({"what": what, "path": path, "free_mib": free_mib, "min_mib": min_mib})
    });
    json!({
        "budget_mib": settings.limits.budget_mib,
        "used_bytes": stock.used(),
        "is_whole": stock.is_whole,
        "images": stock.images.iter().map(of_image).collect::<Vec<_>>(),
        "bytes": {
            "images": stock.images_bytes(), "inputs": stock.inputs, "outputs": stock.outputs,
            "kept_outputs": stock.kept, "logs": stock.logs, "journal": stock.journal,
            "trash": stock.trash, "reserve": stock.reserve,
        },
        "disks": disks.collect::<Vec<_>>(),
    })
}

fn of_image(image: &Item) -> Value {
    let Item { id, names, bytes, used, in_use } = image;
    json!({"id": id, "names": names, "bytes": bytes, "last_used": used, "in_use": in_use})
}
