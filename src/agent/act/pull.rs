//! Pulls a job's image, and tells now and then how far that is.
//!
//! Invariants: a pull goes on between two turns of its job, and ends with the next step that is another; a job says
//! nothing sooner than [`FIRST`] after the last time, nor the same twice.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Act, refusal, stock};
use crate::clock::Clock;
use crate::container::{self as engine, ContainerRuntime, Image};
use crate::ids::JobId;
use crate::job::Job;
use crate::job::phase::{Event, PinnedImage};
use crate::job::status::PullProgress;

/// Time between two statuses about one pull in its first [`SOON`]: a person watches.
const FIRST: Duration = Duration::from_secs(5);
/// After this long it is told every [`LATER`] only: a pull may take hours, and each status is kept.
const SOON: Duration = Duration::from_mins(1);
const LATER: Duration = Duration::from_secs(30);

type Pull = Pin<Box<dyn Future<Output = Result<Image, engine::Error>> + Send>>;

/// A pull that its job waits for.
struct Begun {
    image: Pull,
    told: Option<PullProgress>,
}

/// The pulls that go on between two turns of their jobs.
#[derive(Default)]
pub(crate) struct Pulls(Mutex<HashMap<JobId, Begun>>);

impl fmt::Debug for Pulls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.all().keys()).finish()
    }
}

impl Pulls {
    fn all(&self) -> MutexGuard<'_, HashMap<JobId, Begun>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The job has come to another step: it waits for no pull any more.
    pub(super) fn end(&self, id: &JobId) {
        self.all().remove(id);
    }
}

impl<R: ContainerRuntime, C: Clock> Act<R, C> {
    pub(super) async fn pull(&self, job: &Job) -> Event {
        let begun = self.memory.pulls.all().remove(job.id());
        let mut begun = if let Some(begun) = begun {
            begun
        } else {
            if let Some(err) = self.too_large(&job.spec.image).await {
                return self.engine_failed(job, &err);
            }
            let (runtime, name) = (Arc::clone(&self.runtime), job.spec.image.clone());
            let image = Box::pin(async move { runtime.image(&name).await });
            Begun { image, told: None }
        };
        loop {
            let lasted = self.clock.now().since(job.since);
            let pause = if lasted < SOON { FIRST } else { LATER };
            tokio::select! {
                biased;
                ended = &mut begun.image => return self.pulled(job, ended),
                () = self.clock.sleep(pause) => {}
            }
            let progress = self.runtime.pull_progress(&job.spec.image);
            if let Some(progress) = progress.filter(|now| begun.told != Some(*now)) {
                begun.told = Some(progress);
                self.memory.pulls.all().insert(job.id().clone(), begun);
                return Event::Pulling { progress };
            }
        }
    }

    fn pulled(&self, job: &Job, ended: Result<Image, engine::Error>) -> Event {
        match ended {
            Ok(Image { id, digest, unconfirmed, .. }) => {
                Event::Pulled { image: PinnedImage { id, digest, unconfirmed } }
            }
            Err(err) => self.engine_failed(job, &err),
        }
    }

    /// Why the image is not pulled: what it downloads alone is more than the engine's disk can give.
    async fn too_large(&self, image: &str) -> Option<engine::Error> {
        let size = self.runtime.download_size(image).await.ok().flatten()?;
        let room = stock::engines_room(&*self.runtime).await?;
        let all = stock::engines_size(&*self.runtime).await?;
        let (now_mib, ever_mib) = (self.disk.for_jobs(room, None), self.disk.for_jobs(all, None));
        refusal::too_large(image, size.div_ceil(1 << 20), now_mib, ever_mib)
    }
}
