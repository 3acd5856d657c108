//! `hub rules test`: what rules would have told, had they been there. Works while the hub runs, and tells nobody.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::super::logging::Audience;
use super::super::{Misused, load, out};
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::config::{self, Env, HubFile, Problems};
use crate::fleet::alerts::replay;
use crate::fleet::notice::NoticeKind;
use crate::fleet::rule::Condition;
use crate::hub::store::beside;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How far back, such as 30d or 12h
    #[arg(long, value_name = "SPAN", default_value = "30d", value_parser = span)]
    since: Duration,
    /// A file of rules (default: `HUB_RULES`)
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
}

/// `30d`, or what other spans of this program are.
fn span(text: &str) -> Result<Duration, String> {
    if let Some(days) = text.strip_suffix('d').and_then(|days| days.parse::<u32>().ok()) {
        return Ok(Duration::from_secs(u64::from(days) * 86_400));
    }
    config::parse_duration(text).map_err(|err| err.to_string())
}

fn settings(env: &mut Env<'_>) -> Result<(PathBuf, HubFile), Problems> {
    config::hub_past(env)
}

pub(super) fn execute(args: &Args) -> anyhow::Result<ExitCode> {
    let (db, file) = load(Audience::Client, settings)?;
    let file = match &args.rules {
        Some(path) => config::hub_file(path).map_err(Misused)?,
        None => file,
    };
    let now = SystemClock.now();
    let ms = u64::try_from(args.since.as_millis()).unwrap_or(u64::MAX);
    let since = Timestamp::from_unix_ms(now.unix_ms().saturating_sub(ms));
    let changes = beside::standings_since(&db, since)?;
    let told = replay(&file.rules, &changes, &file.policy, now);
    let mut counts: BTreeMap<&str, usize> =
        file.rules.iter().map(|rule| (rule.name.as_str(), 0)).collect();
    for notice in &told {
        if notice.kind == NoticeKind::Opened
            && let Some(count) = counts.get_mut(notice.rule.as_str())
        {
            *count += 1;
        }
        let (at, kind) = (notice.decided, notice.kind.as_str());
        out::line(&format!("{at} {kind} {}", out::clean(&notice.title)))?;
    }
    for (rule, count) in counts {
        let times = if count == 1 { "once".to_owned() } else { format!("{count} times") };
        out::note(&format!("{} would have fired {times}", out::clean(rule)));
    }
    let is_unplayed = |when: &Condition| {
        matches!(when, Condition::Event { .. } | Condition::Figure { .. } | Condition::Anomaly(_))
    };
    for rule in file.rules.iter().filter(|rule| is_unplayed(&rule.when)) {
        let name = out::clean(&rule.name);
        out::note(&format!("{name} was not tried: of events and figures no past is kept"));
    }
    Ok(ExitCode::SUCCESS)
}
