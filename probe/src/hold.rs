//! Holds the namespaces of its container open for a container that joins them.

/// Sleeps until it is killed: the first process of a container gets no other signal.
pub(crate) fn forever() -> ! {
    loop {
        rustix::event::pause();
    }
}
