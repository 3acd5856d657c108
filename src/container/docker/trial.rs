//! Tries the sandbox from inside: a container of the tool image under exactly the policy of a job's.
//!
//! Must hold: [`policy::create_body`] makes its body, as for a job; only its labels and its name are a
//! probe's.

use bollard::query_parameters::CreateContainerOptionsBuilder;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::super::trial::{self, Tried};
use super::super::{
    ContainerId, ContainerRuntime as _, ContainerSpec, Error, LogChunk, LogStream, Network,
    Sandbox, policy,
};
use super::tool::PROGRAM;
use super::{Docker, within};
use crate::ids::{Address, JobId};

/// Most bytes of the program's output that are read.
const TOLD_BYTES_MAX: usize = 64 * 1024;

impl Docker {
    /// Tries everything that a job of this profile must not be able to do. Takes about a second. Such
    /// containers carry the node's label; `what` distinguishes this one from the node's other probes.
    pub async fn try_sandbox(
        &self,
        node: Address,
        what: &str,
        sandbox: Sandbox,
    ) -> Result<Vec<Tried>, Error> {
        let name = policy::probe_name(node, what);
        let spec = ContainerSpec {
            name: name.clone(),
            node,
            job_id: JobId::of_invalid(what.as_bytes()),
            attempt: 1,
            image_id: self.tool_image().await?,
            entrypoint: None,
            command: Some([PROGRAM, "sandbox"].map(str::to_owned).to_vec()),
            env: Vec::new(),
            mounts: Vec::new(),
            // The tool image declares none.
            volumes: std::path::PathBuf::new(),
            gpus: Vec::new(),
            limits: trial::LIMITS,
            network: Network::None,
            sandbox,
        };
        let mut body = policy::create_body(
            &spec,
            &policy::Brought::default(),
            None,
            policy::Handed::default(),
        );
        body.labels = Some(policy::probe_labels(node, what));
        if let Some(runtime) = &self.config.runtime {
            policy::run_by(&mut body, runtime);
        }
        // The container of an interrupted trial.
        self.discard(&ContainerId(name.clone())).await?;
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        let client = self.client().await?;
        let created = client.create_container(Some(options), body);
        let created = within(self.config.call_timeout, Box::pin(created)).await;
        let id = ContainerId(created.map_err(|err| self.fault(err))?.id);
        let told = self.run_trial(&id).await;
        let removed = self.discard(&id).await;
        let judged = trial::judge(&told?, sandbox);
        removed.map(|()| judged)
    }

    /// Starts the container and returns its output.
    async fn run_trial(&self, id: &ContainerId) -> Result<String, Error> {
        self.start(id).await?;
        let (sink, mut chunks) = mpsc::channel::<LogChunk>(16);
        let read = async {
            let mut told = Vec::new();
            while let Some(chunk) = chunks.recv().await {
                let room = TOLD_BYTES_MAX.saturating_sub(told.len()).min(chunk.bytes.len());
                if chunk.stream == LogStream::Stdout {
                    told.extend_from_slice(&chunk.bytes[..room]);
                }
            }
            told
        };
        let followed = async { tokio::join!(self.follow(id, sink, &|| ()), read) };
        // It takes about a second: longer than a start may take means that something hangs.
        let Ok((exit, told)) = timeout(self.config.start_timeout, followed).await else {
            let reason = "the trial of the sandbox did not end in time".to_owned();
            return Err(Error::Engine { reason });
        };
        exit?;
        Ok(String::from_utf8_lossy(&told).into_owned())
    }
}
