//! The library's places, how it is opened, and the meaning of its errors.
//!
//! Invariant: an error never becomes a value.

use std::ffi::OsString;

use nvml_wrapper::Nvml as Library;
use nvml_wrapper::error::NvmlError;

use crate::gpu::Error;
use crate::node::card::{Reading, Unknown};

/// The library's name for the loader, then paths where distributions and container toolkits put it
/// without registering it with the loader.
pub(super) const LIBRARIES: [&str; 4] = [
    "libnvidia-ml.so.1",
    "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1",
    "/usr/lib64/libnvidia-ml.so.1",
    "/usr/lib/wsl/lib/libnvidia-ml.so.1",
];

/// Opens the first candidate that exists. A driver's error ends the search: another path to the
/// library leads to the same driver.
pub(super) fn open(candidates: &[OsString]) -> Result<Library, Error> {
    let mut absent = None;
    for candidate in candidates {
        match Library::builder().lib_path(candidate).init() {
            Ok(library) => return Ok(library),
            Err(err @ NvmlError::LibloadingError(_)) => {
                let library = candidate.display().to_string();
                absent.get_or_insert(Error::NoLibrary { library, source: Box::new(err) });
            }
            Err(err) => return Err(driver(&err)),
        }
    }
    Err(absent.unwrap_or_else(|| Error::Driver { reason: "no library to ask".to_owned() }))
}

/// An error of the library as a whole.
pub(super) fn driver(err: &NvmlError) -> Error {
    Error::Driver { reason: err.to_string() }
}

/// A value of one card, or the reason why it is unknown.
pub(super) fn reading<T>(answer: Result<T, NvmlError>) -> Reading<T> {
    answer.map_err(unknown)
}

/// The reason why a value is unknown.
pub(super) fn unknown(err: NvmlError) -> Unknown {
    match err {
        NvmlError::NotSupported => Unknown::NotSupported,
        NvmlError::NoPermission => Unknown::Denied,
        NvmlError::FailedToLoadSymbol(_) | NvmlError::FunctionNotFound => Unknown::TooOld,
        NvmlError::GpuLost => Unknown::Lost,
        NvmlError::UnexpectedVariant(code) => {
            Unknown::Failed(format!("the driver answered {code}, which has no meaning here"))
        }
        other => Unknown::Failed(other.to_string()),
    }
}

/// An error of one card as a clause.
pub(super) fn in_words(err: NvmlError) -> String {
    match err {
        NvmlError::FailedToLoadSymbol(symbol) => format!("the driver is too old: {symbol}"),
        other => other.to_string(),
    }
}
