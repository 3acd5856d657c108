//! Bytes addressed by content: verified fetch, streamed publish, the embedded store.
