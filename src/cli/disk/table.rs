//! The output of `disk` for people.

use super::Place;
use crate::cli::out;
use crate::config;
use crate::node::stock::{Item, Stock};

/// Prints everything: the sums, the images, the disks.
pub(super) fn print(
    stock: &Stock,
    settings: &config::Disk,
    places: &[Place],
) -> std::io::Result<()> {
    let rows = [
        ("images that this node pulled", stock.images_bytes()),
        ("inputs of jobs in hand", stock.inputs),
        ("outputs of jobs in hand", stock.outputs),
        ("outputs kept until they are published", stock.kept),
        ("logs", stock.logs),
        ("journal", stock.journal),
        ("trash, which the node empties", stock.trash),
        ("reserve for a full disk", stock.reserve),
    ];
    for (what, bytes) in rows {
        out::line(&row(what, bytes))?;
    }
    let budget = settings.limits.budget_mib.map_or_else(
        || "no budget (DISK_BUDGET_MIB): the whole disk".to_owned(),
        |mib| format!("of {mib} MiB (DISK_BUDGET_MIB)"),
    );
    let more = if stock.is_whole { "" } else { " or more: not all could be measured" };
    out::line(&format!("{}  {budget}{more}", row("together", stock.used())))?;
    for image in &stock.images {
        out::line(&format!("image {}", self::image(image)))?;
    }
    let min = settings.limits.free_min_mib;
    for Place { what, path, free_mib } in places {
        let path = out::clean(path);
        let free = free_mib.map_or("unknown".to_owned(), |mib| format!("{mib} MiB"));
        out::line(&format!("free on the disk of the {what}, {path}: {free}; {min} MiB must stay"))?;
    }
    Ok(())
}

fn row(what: &str, bytes: u64) -> String {
    format!("{what:<40}{:>10} MiB", bytes.div_ceil(1 << 20))
}

/// One image on one line.
pub(super) fn image(image: &Item) -> String {
    let (names, mib) = (out::clean(&image.names.join(", ")), image.bytes.div_ceil(1 << 20));
    let in_use = if image.in_use { ", needed by a job in hand" } else { "" };
    format!("{names}: {mib} MiB, last used {}{in_use}", image.used)
}
