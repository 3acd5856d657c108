//! Mail over SMTP.
//!
//! Must hold: a notice has the same `Message-ID` at each try; a password crosses no network in the clear unless
//! the URL asks for that (`?tls=none`).

use std::time::{Duration, SystemTime};

use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::transport::smtp;
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};

use super::form::{Limit, Markup, Message, title};
use super::{Accepted, Blame, Pace, REASON_CHARS_MAX, Refused, SEND_MAX, Telling};
use crate::fleet::notice::Notice;
use crate::http::{Url, install_crypto};
use crate::report::{BoxError, causes, one_line};
use crate::secret::Secret;

/// The channel's name.
pub const NAME: &str = "mail";

/// Providers count mails by the hour or day; alerts are folded before this matters.
pub const PACE: Pace = Pace { apart: Duration::from_secs(1), a_minute: 20 };

/// The longest text.
const TEXT_MAX: Limit = Limit::Units(20_000);

/// Most receivers.
const RECEIVERS_MAX: usize = 20;

/// A mail server, who writes and who reads.
#[derive(Debug, Clone)]
pub struct Config {
    url: Secret,
    from: Mailbox,
    to: Vec<Mailbox>,
}

/// Settings of mail that can't be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMail {
    /// The server's URL.
    #[error("it is not a URL such as smtps://user:password@mail.example")]
    Url,
    /// An address.
    #[error("it has an entry that is no mail address")]
    Address,
    /// Too many or none.
    #[error("it has to name 1 to {RECEIVERS_MAX} mail addresses")]
    Receivers,
}

impl Config {
    /// The server of this URL: `smtps://`, or `smtp://` with STARTTLS, which must succeed if the URL holds a
    /// password and the server is on another host; `?tls=required`, `opportunistic` or `none` says otherwise.
    pub fn new(url: Secret, from: Mailbox, to: Vec<Mailbox>) -> Result<Self, InvalidMail> {
        transport(&url)?;
        if to.is_empty() || to.len() > RECEIVERS_MAX {
            return Err(InvalidMail::Receivers);
        }
        Ok(Self { url, from, to })
    }

    /// A mail address, with or without a name.
    pub fn address(text: &str) -> Result<Mailbox, InvalidMail> {
        text.parse().map_err(|_| InvalidMail::Address)
    }
}

/// A mail server.
#[derive(Debug, Clone)]
pub struct Mail {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    to: Vec<Mailbox>,
}

impl Mail {
    /// The server of this configuration. Nothing is called.
    pub fn new(config: &Config) -> Result<Self, BoxError> {
        let (from, to) = (config.from.clone(), config.to.clone());
        Ok(Self { transport: transport(&config.url)?, from, to })
    }

    pub(super) async fn send(&self, telling: &Telling) -> Result<Accepted, Refused> {
        let mail = self.mail(telling).map_err(|err| Refused {
            blame: Blame::NoticeForEver,
            ..Refused::by_channel(&format!("no mail can be made of it: {}", causes(&err)))
        })?;
        let answer = self.transport.send(mail).await.map_err(|err| refusal(&err))?;
        let said: Vec<&str> = answer.message().collect();
        let said = one_line(&said.join(" "), REASON_CHARS_MAX);
        Ok(Accepted { answer: format!("{} {said}", answer.code()) })
    }

    /// Connects and logs in.
    pub(super) async fn check(&self) -> Result<String, Refused> {
        match self.transport.test_connection().await {
            Ok(true) => Ok("the server lets this hub in".to_owned()),
            Ok(false) => Err(Refused::by_channel("the server ended the connection")),
            Err(err) => Err(refusal(&err)),
        }
    }

    fn mail(&self, telling: &Telling) -> Result<lettre::Message, lettre::error::Error> {
        let decided = Duration::from_millis(telling.notice.decided.unix_ms());
        let domain = self.from.email.domain();
        let mut mail = lettre::Message::builder()
            .from(self.from.clone())
            .date(SystemTime::UNIX_EPOCH + decided)
            .message_id(Some(format!("<{}@{domain}>", id(telling))))
            .subject(title(&telling.notice))
            .header(ContentType::TEXT_PLAIN);
        for to in &self.to {
            mail = mail.to(to.clone());
        }
        if telling.notice.incident > 0 {
            // Mails of an incident stand together.
            mail = mail.references(format!("<{}@{domain}>", thread(&telling.notice)));
        }
        mail.body(Message::of(telling).without_title().text(Markup::Plain, TEXT_MAX))
    }
}

fn id(telling: &Telling) -> String {
    format!("notice-{}", telling.key())
}

fn thread(notice: &Notice) -> String {
    format!("incident-{}-{}", notice.incident, notice.opened.unix_ms())
}

fn transport(url: &Secret) -> Result<AsyncSmtpTransport<Tokio1Executor>, InvalidMail> {
    install_crypto();
    let mut url = Url::parse(url.expose()).map_err(|_| InvalidMail::Url)?;
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or(InvalidMail::Url)?;
    let is_here = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
    let asked = url.query_pairs().find(|(key, _)| key == "tls").map(|(_, how)| how.into_owned());
    if url.scheme() == "smtp" {
        let how = match asked.as_deref() {
            Some("none") => None,
            Some(how) => Some(how),
            None if is_here => None,
            None if url.password().is_some() => Some("required"),
            None => Some("opportunistic"),
        };
        let query = how.map(|how| format!("tls={how}"));
        url.set_query(query.as_deref());
    }
    let builder = AsyncSmtpTransport::<Tokio1Executor>::from_url(url.as_str());
    Ok(builder.map_err(|_| InvalidMail::Url)?.timeout(Some(SEND_MAX)).build())
}

/// Why a server did not take a mail. Its words may be about this mail alone or about all, which can't be told
/// from each other, so none is given up.
fn refusal(err: &smtp::Error) -> Refused {
    let blame = if err.is_permanent() { Blame::Notice } else { Blame::Channel };
    let said = causes(err);
    // The library tells only in words that there was no connection. Without one, and after a code, nothing has
    // arrived; a server that fell silent may have taken the mail before.
    let was_connected = !said.starts_with("Connection error");
    let may_have_arrived = err.status().is_none() && !err.is_client() && was_connected;
    Refused { blame, may_have_arrived, ..Refused::by_channel(&said) }
}
