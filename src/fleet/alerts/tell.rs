//! What is told of incidents, and what is kept back: silences, inhibition, quiet hours.
//!
//! Must hold: an incident that was told is told again when it is over, and only then closed; what was kept back
//! and still lasts is told when nothing keeps it back any more.

use super::incident::{Incident, Member};
use super::silence::Silence;
use super::{FLEET, Policy, Work, title};
use crate::clock::Timestamp;
use crate::fleet::notice::{NODES_MAX, Notice, NoticeKind, NoticeNode, Severity};
use crate::fleet::rule::{Condition, Rule};

/// The notices of all incidents. Incidents that are over are closed.
pub(super) fn all(
    work: &mut Work,
    rules: &[Rule],
    silences: &[Silence],
    policy: &Policy,
) -> Vec<Notice> {
    let now = work.now;
    let quiet = policy.quiet.iter().any(|quiet| quiet.covers(now));
    let mut notices = Vec::new();
    let ids: Vec<u64> = work.open.keys().copied().collect();
    for id in ids {
        let Some(incident) = work.open.get(&id).filter(|incident| incident.closed.is_none()) else {
            continue;
        };
        let Some(rule) = rules.iter().find(|rule| rule.name == incident.rule) else { continue };
        let muted = muted(incident, rule, work, silences, quiet);
        let kind = kind(incident, rule, muted.as_deref(), policy, now);
        let is_over = incident.is_calm()
            && (incident.head.told.is_none()
                || kind == Some(NoticeKind::Resolved)
                || is_removed(incident));
        let notice = kind
            .filter(|kind| *kind != NoticeKind::Resolved || !is_removed(incident))
            .map(|kind| notice(incident, rule, kind, now));
        let state = if is_over { NoticeKind::Resolved } else { NoticeKind::Updated };
        let title = notice.as_ref().map_or_else(
            || {
                if incident.head.is_news {
                    title::of(incident, rule, state, now)
                } else {
                    incident.head.title.clone()
                }
            },
            |notice| notice.title.clone(),
        );
        let is_as_before = muted == incident.head.muted
            && title == incident.head.title
            && notice.is_none()
            && !is_over;
        if is_as_before {
            continue;
        }
        if let Some(incident) = work.open.get_mut(&id) {
            incident.head.muted = muted;
            incident.head.title = title;
            incident.head.remedy.clone_from(&rule.remedy);
            if notice.is_some() {
                incident.head.told = Some(now);
                incident.head.is_news = false;
            }
            if is_over {
                incident.closed = Some(now);
            }
        }
        work.touch(id);
        notices.extend(notice);
    }
    notices
}

/// Whether all that ended did so because the owner removed the nodes.
fn is_removed(incident: &Incident) -> bool {
    incident.members.values().all(|member| member.is_removed)
}

/// What is to be told of an incident now, if anything.
fn kind(
    incident: &Incident,
    rule: &Rule,
    muted: Option<&str>,
    policy: &Policy,
    now: Timestamp,
) -> Option<NoticeKind> {
    if muted.is_some() {
        return None;
    }
    let Some(told) = incident.head.told else {
        return (!incident.is_calm()).then_some(NoticeKind::Opened);
    };
    if incident.is_calm() {
        return Some(NoticeKind::Resolved);
    }
    let waited = now.since(told);
    if incident.head.is_news && waited >= policy.update_every {
        return Some(NoticeKind::Updated);
    }
    rule.remind.filter(|every| waited >= *every).map(|_| NoticeKind::Reminder)
}

/// Why an incident isn't told now; `None` if it is.
fn muted(
    incident: &Incident,
    rule: &Rule,
    work: &Work,
    silences: &[Silence],
    quiet: bool,
) -> Option<String> {
    // An end is told if the beginning was, whatever has been silenced meanwhile: somebody waits for it.
    let is_end = incident.is_calm() && incident.head.told.is_some();
    if quiet && rule.severity < Severity::Critical {
        return Some("quiet hours".to_owned());
    }
    if is_end {
        return None;
    }
    let mut reason = None;
    for (name, _) in incident.live() {
        let silence = silences.iter().find(|silence| silence.covers(&rule.name, name, work.now));
        let inhibitor = inhibitor(rule, name, work);
        match (silence, inhibitor) {
            (Some(_), _) => reason = Some("silenced".to_owned()),
            (None, Some(by)) => reason = Some(format!("inhibited by {by}")),
            (None, None) => return None,
        }
    }
    reason
}

/// The rule that fires and keeps this one from being told of this node.
fn inhibitor<'a>(rule: &'a Rule, node: &str, work: &Work) -> Option<&'a str> {
    rule.silenced_by.iter().map(String::as_str).find(|by| {
        work.open.values().any(|incident| {
            incident.rule == **by
                && incident.closed.is_none()
                && [node, FLEET].iter().any(|name| {
                    incident.members.get(*name).is_some_and(|member| member.ended.is_none())
                })
        })
    })
}

fn notice(incident: &Incident, rule: &Rule, kind: NoticeKind, now: Timestamp) -> Notice {
    let is_shown = |(name, member): &(&String, &Member)| *name != FLEET && !member.is_removed;
    let mut members: Vec<_> = incident.members.iter().filter(is_shown).collect();
    // Those in trouble first, the newest first among them.
    members.sort_by_key(|(name, member)| {
        (member.ended.is_some(), std::cmp::Reverse(member.joined), (*name).clone())
    });
    let nodes: Vec<NoticeNode> = members
        .iter()
        .take(NODES_MAX)
        .map(|(name, member)| NoticeNode {
            name: (*name).clone(),
            ip: member.ip.clone(),
            why: member.why.clone(),
            since: member.since,
            heard: member.heard,
            ended: member.ended,
        })
        .collect();
    let is_down = matches!(&rule.when, Condition::Standing(standings)
        if standings.contains(&crate::fleet::clocks::Standing::Down));
    let of_fleet = incident.members.get(FLEET).map(|member| member.why.clone());
    Notice {
        incident: incident.id,
        kind,
        rule: rule.name.clone(),
        severity: incident.head.severity,
        title: title::of(incident, rule, kind, now),
        opened: incident.opened,
        decided: now,
        more: members.len().saturating_sub(nodes.len()),
        nodes,
        lines: of_fleet.into_iter().collect(),
        remedy: if kind == NoticeKind::Resolved { String::new() } else { rule.remedy.clone() },
        is_node_down: is_down,
        channels: rule.channels.clone(),
    }
}
