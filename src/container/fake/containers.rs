//! The containers of the engine in memory.

use super::*;

#[derive(Debug)]
pub(super) struct Container {
    pub(super) id: ContainerId,
    pub(super) spec: ContainerSpec,
    pub(super) script: Script,
    pub(super) created: Instant,
    pub(super) run: Option<Run>,
}

#[derive(Debug)]
pub(super) struct Run {
    pub(super) started: Instant,
    /// How and when it ends; `stop` moves the end forward. Dropped when the container is removed.
    pub(super) end: watch::Sender<End>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    pub(super) code: i32,
    pub(super) at: Instant,
    pub(super) by: EndedBy,
}

impl Container {
    /// Whether this is its id or its name.
    pub(super) fn is(&self, id: &ContainerId) -> bool {
        self.id == *id || self.spec.name == id.0
    }

    pub(super) fn state(&self) -> FoundState {
        match &self.run {
            None => FoundState::Created,
            Some(run) if run.end.borrow().at <= Instant::now() => FoundState::Exited,
            Some(_) => FoundState::Running,
        }
    }

    /// Its run; an error if it was never started.
    pub(super) fn run(&self) -> Result<&Run, Error> {
        let reason = || format!("the container {} was never started", self.id);
        self.run.as_ref().ok_or_else(|| Error::Engine { reason: reason() })
    }

    pub(super) fn log(&self) -> Vec<LogChunk> {
        self.script.log.clone().unwrap_or_else(|| {
            let lines = [
                format!("{SIMULATED}\n"),
                format!("job {}, attempt {}\n", self.spec.job_id, self.spec.attempt),
            ];
            lines.map(|line| LogChunk { stream: LogStream::Stdout, bytes: line.into() }).to_vec()
        })
    }
}
