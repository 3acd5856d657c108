//! Docker's credential helpers: programs `docker-credential-NAME` that keep the accounts of registries.
//!
//! Must hold: a helper is found by a name without a path; it has a deadline and a bounded answer, and gets none of
//! this node's secrets; nothing that it says reaches a log or an error.

use std::process::Stdio;
use std::time::Duration;

use bollard::auth::DockerCredentials;
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::time::timeout;

/// Most characters of a name.
const NAME_MAX: usize = 64;
/// Helpers of clouds ask a service for a new token.
const DEADLINE: Duration = Duration::from_secs(15);
/// The longest tokens have some kilobytes.
const ANSWER_MAX: u64 = 64 << 10;
/// The user of an account whose secret is an identity token.
const TOKEN: &str = "<token>";
/// What a helper says of a registry that it has no account at; its exit code tells nothing else.
const NOT_FOUND: &str = "credentials not found";

/// A helper's name, of lower-case letters, digits and `-`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Helper(String);

/// Why a helper gave no account.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    /// Nothing is started under such a name.
    #[error("a credential helper's name has lower-case letters, digits and - alone")]
    Name,
    /// The program can't be started: it is not on the `PATH` of this process, for example.
    #[error("docker-credential-{0} can't be started")]
    Start(String, #[source] std::io::Error),
    /// It was ended at its deadline.
    #[error("docker-credential-{} gave no answer in {} s", .0, DEADLINE.as_secs())]
    Late(String),
    /// What it said can't be used, and is not repeated.
    #[error("docker-credential-{0} gave no account: {1}")]
    Answer(String, &'static str),
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: String,
}

impl Helper {
    /// The helper of this name.
    pub(super) fn named(name: String) -> Result<Self, Failed> {
        let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let fits = (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(is_plain);
        if fits { Ok(Self(name)) } else { Err(Failed::Name) }
    }

    /// Its account at this server; `None` if it has none. It gets the environment of this process without
    /// `hidden`.
    pub(super) async fn get(
        &self,
        server: &str,
        hidden: &[&str],
    ) -> Result<Option<DockerCredentials>, Failed> {
        let late = |_| Failed::Late(self.0.clone());
        let (is_well, answer) =
            timeout(DEADLINE, self.ask(server, hidden)).await.map_err(late)??;
        let unusable = |what| Failed::Answer(self.0.clone(), what);
        if !is_well {
            let says = String::from_utf8_lossy(&answer);
            return if says.contains(NOT_FOUND) { Ok(None) } else { Err(unusable("it failed")) };
        }
        // The parser's message could quote the secret.
        let answer: Answer = serde_json::from_slice(&answer)
            .map_err(|_| unusable("its answer is not what a helper says"))?;
        let mut account =
            DockerCredentials { serveraddress: Some(server.to_owned()), ..Default::default() };
        if answer.username == TOKEN {
            account.identitytoken = Some(answer.secret);
        } else {
            (account.username, account.password) = (Some(answer.username), Some(answer.secret));
        }
        Ok(Some(account))
    }

    /// Whether it ended well, and what it said.
    async fn ask(&self, server: &str, hidden: &[&str]) -> Result<(bool, Vec<u8>), Failed> {
        let mut command = Command::new(format!("docker-credential-{}", self.0));
        command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        for name in hidden {
            command.env_remove(name);
        }
        let cannot = |err| Failed::Start(self.0.clone(), err);
        let mut child = command.kill_on_drop(true).spawn().map_err(cannot)?;
        if let Some(mut question) = child.stdin.take() {
            // One that answers without reading has closed its end.
            question.write_all(server.as_bytes()).await.ok();
        }
        let mut answer = Vec::new();
        if let Some(out) = child.stdout.take() {
            out.take(ANSWER_MAX + 1).read_to_end(&mut answer).await.map_err(cannot)?;
        }
        if answer.len() as u64 > ANSWER_MAX {
            return Err(Failed::Answer(self.0.clone(), "its answer is too long"));
        }
        Ok((child.wait().await.map_err(cannot)?.success(), answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helper_is_named_without_a_path_or_an_option() {
        for name in ["ecr-login", "pass", "gcr2"] {
            assert!(Helper::named(name.to_owned()).is_ok(), "{name}");
        }
        for name in ["", "../evil", "a b", "A", "x\0", "$(x)", &"x".repeat(65)] {
            assert!(matches!(Helper::named(name.to_owned()), Err(Failed::Name)), "{name}");
        }
    }
}
