//! The host's folders inside containers.
//!
//! Invariant: what is mounted below a folder of a job's stays outside, and nothing that the job mounts gets out.

use std::path::Path;

use bollard::models::{
    Mount as EngineMount, MountBindOptions, MountBindOptionsPropagationEnum, MountType,
    MountVolumeOptions, MountVolumeOptionsDriverConfig,
};

use super::super::Mount;

/// Binds one folder without the mounts below it: those below a read-only bind would stay writable.
pub(super) fn mount(mount: &Mount) -> EngineMount {
    EngineMount {
        typ: Some(MountType::BIND),
        source: Some(mount.host.to_string_lossy().into_owned()),
        target: Some(mount.target.clone()),
        read_only: Some(mount.read_only),
        bind_options: Some(MountBindOptions {
            propagation: Some(MountBindOptionsPropagationEnum::PRIVATE),
            non_recursive: Some(true),
            ..MountBindOptions::default()
        }),
        ..EngineMount::default()
    }
}

/// An anonymous volume that lies in this folder. The engine fills it with the image's content at the path, as
/// it does for volumes of its own; a plain bind would hide that content.
pub(super) fn volume(folder: &Path, path: &str) -> EngineMount {
    let options = [("type", "none"), ("o", "bind")].map(|(name, value)| (name, value.to_owned()));
    let device = ("device", folder.to_string_lossy().into_owned());
    let options = options.into_iter().chain([device]);
    EngineMount {
        typ: Some(MountType::VOLUME),
        target: Some(path.to_owned()),
        volume_options: Some(MountVolumeOptions {
            driver_config: Some(MountVolumeOptionsDriverConfig {
                name: Some("local".to_owned()),
                options: Some(options.map(|(name, value)| (name.to_owned(), value)).collect()),
            }),
            ..MountVolumeOptions::default()
        }),
        ..EngineMount::default()
    }
}

/// Mounts a folder of the node's into a probe, read-only.
pub(in super::super) fn shown(folder: &Path, target: &str) -> EngineMount {
    mount(&Mount { host: folder.to_owned(), target: target.to_owned(), read_only: true })
}

/// Mounts a folder of the node's into a probe, writable: the engine changes something in it.
pub(in super::super) fn lent(folder: &Path, target: &str) -> EngineMount {
    mount(&Mount { host: folder.to_owned(), target: target.to_owned(), read_only: false })
}

/// Mounts a folder of the host's into a container of the node's own, writable, with the mounts below it.
pub(in super::super) fn lent_with_all_below(folder: &str, target: &str) -> EngineMount {
    EngineMount {
        typ: Some(MountType::BIND),
        source: Some(folder.to_owned()),
        target: Some(target.to_owned()),
        read_only: Some(false),
        ..EngineMount::default()
    }
}
