//! How far a pull is, from what the engine says of each layer.
//!
//! Must hold: however much an engine says, a bounded amount is kept of it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use bollard::models::CreateImageInfo;

use crate::job::status::PullProgress;

/// More layers than an image can have (127, by what engines can stack).
const LAYERS_MAX: usize = 256;
/// Layers go by the first digits of their digests.
const ID_BYTES_MAX: usize = 80;

/// The layers of one image that is being pulled.
#[derive(Debug, Default)]
pub(super) struct Layers(Mutex<BTreeMap<String, Layer>>);

#[derive(Debug, Default, Clone, Copy)]
struct Layer {
    bytes: u64,
    /// Its size, once the engine has said it.
    size: u64,
    is_done: bool,
}

impl Layers {
    /// Takes in what the engine says.
    pub(super) fn take(&self, said: &CreateImageInfo) {
        let (Some(id), Some(status)) = (&said.id, said.status.as_deref()) else { return };
        let is_of_a_layer = matches!(
            status,
            "Pulling fs layer"
                | "Waiting"
                | "Downloading"
                | "Verifying Checksum"
                | "Download complete"
                | "Extracting"
                | "Pull complete"
                | "Already exists"
        );
        let mut layers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = layers.len() < LAYERS_MAX || layers.contains_key(id);
        if !is_of_a_layer || id.len() > ID_BYTES_MAX || !has_room {
            return;
        }
        let layer = layers.entry(id.clone()).or_default();
        let detail = said.progress_detail.as_ref();
        let told = |bytes: Option<i64>| bytes.map_or(0, |bytes| u64::try_from(bytes).unwrap_or(0));
        match status {
            "Downloading" => {
                layer.bytes = layer.bytes.max(told(detail.and_then(|it| it.current)));
                layer.size = told(detail.and_then(|it| it.total));
            }
            // Its last part is not told before.
            "Verifying Checksum" | "Download complete" => layer.bytes = layer.bytes.max(layer.size),
            "Pull complete" | "Already exists" => layer.is_done = true,
            _ => {}
        }
    }

    /// How far it is; `None` before a layer is named.
    pub(super) fn progress(&self) -> Option<PullProgress> {
        let layers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        (!layers.is_empty()).then(|| PullProgress {
            bytes: layers.values().fold(0, |sum, layer| sum.saturating_add(layer.bytes)),
            layers: number(layers.len()),
            layers_done: number(layers.values().filter(|layer| layer.is_done).count()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(layers: &Layers, id: &str, status: &str, current: i64, total: i64) {
        let progress_detail = bollard::models::ProgressDetail {
            current: (current > 0).then_some(current),
            total: (total > 0).then_some(total),
        };
        layers.take(&CreateImageInfo {
            id: Some(id.to_owned()),
            status: Some(status.to_owned()),
            progress_detail: Some(progress_detail),
            ..CreateImageInfo::default()
        });
    }

    #[test]
    fn bytes_and_layers_are_counted_as_the_engine_tells_them() {
        let layers = Layers::default();
        take(&layers, "latest", "Pulling from library/x", 0, 0);
        assert_eq!(layers.progress(), None);
        for (id, status, current, total) in [
            ("a", "Pulling fs layer", 0, 0),
            ("b", "Already exists", 0, 0),
            ("c", "Waiting", 0, 0),
            ("a", "Downloading", 10, 100),
            ("c", "Downloading", 5, 50),
            ("a", "Downloading", 90, 100),
            ("a", "Download complete", 0, 0),
            ("a", "Extracting", 60, 100),
            ("a", "Pull complete", 0, 0),
            ("c", "Downloading", -7, -1),
        ] {
            take(&layers, id, status, current, total);
        }
        let expected = PullProgress { bytes: 105, layers: 3, layers_done: 2 };
        assert_eq!(layers.progress(), Some(expected));
    }

    #[test]
    fn an_engine_that_never_stops_naming_layers_fills_no_memory() {
        let layers = Layers::default();
        for number in 0..10_000 {
            take(&layers, &format!("layer-{number}"), "Downloading", i64::MAX, i64::MAX);
        }
        take(&layers, &"x".repeat(1000), "Waiting", 0, 0);
        let told = layers.progress().unwrap();
        assert_eq!((told.layers as usize, told.bytes), (LAYERS_MAX, u64::MAX));
    }
}
