//! The channels over which a hub tells people. None is required; one that is set by half is a problem.

use super::env::{Env, Problems, Variable, shown};
use crate::notify::{Config, mail, ntfy, telegram, webhook};
use crate::secret::Secret;

const TELEGRAM_BOT_TOKEN: Variable =
    Variable::new("TELEGRAM_BOT_TOKEN", "123456789:AAExampleExampleExampleExample12345");
const TELEGRAM_CHAT_ID: Variable = Variable::new("TELEGRAM_CHAT_ID", "-1001234567890");
const TELEGRAM_API_URL: Variable = Variable::new("TELEGRAM_API_URL", telegram::API);
const ALERT_WEBHOOK_URL: Variable =
    Variable::new("ALERT_WEBHOOK_URL", "https://user:password@alerts.example/hook");
const SMTP_URL: Variable = Variable::new("SMTP_URL", "smtps://user:password@mail.example");
const ALERT_MAIL_TO: Variable = Variable::new("ALERT_MAIL_TO", "me@example.com,you@example.com");
const ALERT_MAIL_FROM: Variable = Variable::new("ALERT_MAIL_FROM", "hub@example.com");
const NTFY_URL: Variable = Variable::new("NTFY_URL", "https://ntfy.sh/a-name-that-nobody-guesses");

/// Reads the channels; `hub` is where people see the hub, empty if that isn't known.
pub(super) fn read(env: &mut Env<'_>, hub: &str) -> Option<Config> {
    let (telegram, webhook) = (telegram(env), webhook(env, hub));
    let (mail, ntfy) = (mail(env), ntfy(env));
    Some(Config { telegram: telegram?, webhook: webhook?, mail: mail?, ntfy: ntfy? })
}

/// Reads only the channels.
pub fn channels(env: &mut Env<'_>, hub: &str) -> Result<Config, Problems> {
    let channels = read(env, hub);
    env.finish(channels)
}

/// Where Telegram's Bot API is, for a bot that a file names.
pub(super) fn telegram_api(env: &mut Env<'_>) -> Option<String> {
    if !env.is_set(TELEGRAM_API_URL) {
        return Some(telegram::API.to_owned());
    }
    env.text(TELEGRAM_API_URL)
}

/// Whether all of these are set; `None`, and a problem for each that isn't, if only some are.
fn are_set(env: &mut Env<'_>, together: &[Variable]) -> Option<bool> {
    let missing: Vec<Variable> =
        together.iter().copied().filter(|variable| !env.is_set(*variable)).collect();
    if missing.is_empty() || missing.len() == together.len() {
        return Some(missing.is_empty());
    }
    let is_set = |it: &&Variable| !missing.iter().any(|missing| missing.name == it.name);
    let set: Vec<&str> = together.iter().filter(is_set).map(|it| it.name).collect();
    for variable in missing {
        env.problem(variable, format!("it is missing, and {} needs it", set.join(" with ")));
    }
    None
}

#[expect(clippy::option_option, reason = "unset and invalid are different outcomes")]
fn telegram(env: &mut Env<'_>) -> Option<Option<telegram::Config>> {
    let has_api = env.is_set(TELEGRAM_API_URL);
    let api = env.text(TELEGRAM_API_URL);
    if !are_set(env, &[TELEGRAM_BOT_TOKEN, TELEGRAM_CHAT_ID])? {
        return Some(None);
    }
    let (token, chat) = (env.secret(TELEGRAM_BOT_TOKEN), env.text(TELEGRAM_CHAT_ID));
    let token = token.and_then(|token| {
        let what = || "it is not the token of a bot".to_owned();
        let is_token = telegram::Config::is_token(token.expose());
        env.keep(TELEGRAM_BOT_TOKEN, is_token.then_some(token).ok_or_else(what))
    });
    let chat = chat.and_then(|chat| {
        let what = format!("{} is neither a chat's number nor @name", shown(&chat));
        let is_chat = telegram::Config::is_chat(&chat);
        env.keep(TELEGRAM_CHAT_ID, is_chat.then_some(chat).ok_or(what))
    });
    let api = if has_api { api? } else { telegram::API.to_owned() };
    let config = telegram::Config::new(&api, token?, &chat?);
    env.keep(TELEGRAM_API_URL, config.map_err(|err| err.to_string())).map(Some)
}

#[expect(clippy::option_option, reason = "unset and invalid are different outcomes")]
fn webhook(env: &mut Env<'_>, hub: &str) -> Option<Option<webhook::Config>> {
    let Some(url) = secret(env, ALERT_WEBHOOK_URL)? else { return Some(None) };
    let config = webhook::Config::new(url, hub).map_err(|err| err.to_string());
    env.keep(ALERT_WEBHOOK_URL, config).map(Some)
}

#[expect(clippy::option_option, reason = "unset and invalid are different outcomes")]
fn mail(env: &mut Env<'_>) -> Option<Option<mail::Config>> {
    if !are_set(env, &[SMTP_URL, ALERT_MAIL_FROM, ALERT_MAIL_TO])? {
        return Some(None);
    }
    let (url, from) = (env.secret(SMTP_URL), env.text(ALERT_MAIL_FROM));
    let from = from.and_then(|from| {
        let from = mail::Config::address(&from).map_err(|err| err.to_string());
        env.keep(ALERT_MAIL_FROM, from)
    });
    let to = env.list(ALERT_MAIL_TO);
    let to: Result<Vec<_>, _> = to.iter().map(|to| mail::Config::address(to)).collect();
    let to = env.keep(ALERT_MAIL_TO, to.map_err(|err| err.to_string()));
    let blamed = |err: &mail::InvalidMail| match err {
        mail::InvalidMail::Url => SMTP_URL,
        mail::InvalidMail::Address | mail::InvalidMail::Receivers => ALERT_MAIL_TO,
    };
    match mail::Config::new(url?, from?, to?) {
        Ok(config) => Some(Some(config)),
        Err(err) => {
            env.problem(blamed(&err), err.to_string());
            None
        }
    }
}

#[expect(clippy::option_option, reason = "unset and invalid are different outcomes")]
fn ntfy(env: &mut Env<'_>) -> Option<Option<ntfy::Config>> {
    let Some(url) = secret(env, NTFY_URL)? else { return Some(None) };
    let what = |_| "it is not the URL of a topic".to_owned();
    env.keep(NTFY_URL, ntfy::Config::new(url).map_err(what)).map(Some)
}

#[expect(clippy::option_option, reason = "unset and invalid are different outcomes")]
fn secret(env: &mut Env<'_>, variable: Variable) -> Option<Option<Secret>> {
    if !env.is_set(variable) {
        return Some(None);
    }
    env.secret(variable).map(Some)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn read_of(set: &[(&str, &str)]) -> Result<Config, Vec<String>> {
        let set: HashMap<String, String> =
            set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let told = |problems: Problems| problems.0.iter().map(ToString::to_string).collect();
        channels(&mut Env::new(&set), "").map_err(told)
    }

    const TOKEN: (&str, &str) = ("TELEGRAM_BOT_TOKEN", "42:AAE-hunter2hunter2hunter2_");
    const SMTP: (&str, &str) = ("SMTP_URL", "smtp://u:hunter2@mail.example");

    #[test]
    fn a_hub_without_channels_is_one_and_each_can_be_set_alone() {
        let none = read_of(&[]).unwrap();
        assert!(none.telegram.is_none() && none.webhook.is_none());
        assert!(none.mail.is_none() && none.ntfy.is_none());
        assert!(read_of(&[TOKEN, ("TELEGRAM_CHAT_ID", "-1001")]).unwrap().telegram.is_some());
        let (from, to) =
            (("ALERT_MAIL_FROM", "Hub <h@a.example>"), ("ALERT_MAIL_TO", "a@b.c, d@e.f"));
        assert!(read_of(&[SMTP, from, to]).unwrap().mail.is_some());
        assert!(read_of(&[("NTFY_URL", "https://ntfy.sh/x")]).unwrap().ntfy.is_some());
        assert!(read_of(&[("ALERT_WEBHOOK_URL", "http://h:1/x")]).unwrap().webhook.is_some());
    }

    #[test]
    fn what_is_set_by_half_is_told_with_what_is_missing() {
        for (set, missing) in [
            (&[TOKEN][..], "TELEGRAM_CHAT_ID: it is missing, and TELEGRAM_BOT_TOKEN needs it"),
            (&[("TELEGRAM_CHAT_ID", "1")], "TELEGRAM_BOT_TOKEN: it is missing"),
            (&[SMTP], "ALERT_MAIL_TO: it is missing, and SMTP_URL needs it"),
            (&[SMTP, ("ALERT_MAIL_TO", "a@b.c")], "SMTP_URL with ALERT_MAIL_TO needs it"),
        ] {
            let told = read_of(set).unwrap_err().join("\n");
            assert!(told.contains(missing), "{told}");
        }
    }

    #[test]
    fn a_wrong_value_is_told_and_never_shown_if_it_may_be_a_secret() {
        let chat = ("TELEGRAM_CHAT_ID", "1");
        let (from, to) = (("ALERT_MAIL_FROM", "a@b.c"), ("ALERT_MAIL_TO", "a@b.c"));
        for (set, wrong) in [
            (&[("TELEGRAM_BOT_TOKEN", "hunter2"), chat][..], "TELEGRAM_BOT_TOKEN"),
            (&[TOKEN, ("TELEGRAM_CHAT_ID", "my chat")], "TELEGRAM_CHAT_ID"),
            (&[TOKEN, chat, ("TELEGRAM_API_URL", "api")], "TELEGRAM_API_URL"),
            (&[("SMTP_URL", "http://hunter2"), from, to], "SMTP_URL"),
            (&[("SMTP_URL", "smtp://h?tls=hunter2"), from, to], "SMTP_URL"),
            (&[SMTP, ("ALERT_MAIL_FROM", "nobody"), to], "ALERT_MAIL_FROM"),
            (&[SMTP, from, ("ALERT_MAIL_TO", "a@b.c,d")], "ALERT_MAIL_TO"),
            (&[SMTP, from, ("ALERT_MAIL_TO", ",")], "ALERT_MAIL_TO"),
            (&[("NTFY_URL", "https://ntfy.sh/")], "NTFY_URL"),
            (&[("NTFY_URL", "hunter2")], "NTFY_URL"),
            (&[("ALERT_WEBHOOK_URL", "hunter2.example/x")], "ALERT_WEBHOOK_URL"),
        ] {
            let told = read_of(set).unwrap_err();
            assert!(told.len() == 1 && told[0].starts_with(wrong), "{told:?}");
            assert!(!told[0].contains("hunter2"), "{told:?}");
        }
    }
}
