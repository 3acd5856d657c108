//! What a notice says of each node, from what is written down of its incident: the form in which two hubs compare what
//! they tell. Reads only.

use std::collections::BTreeMap;

use super::alerts::parsed;
use super::outbox::signed;
use super::{Book, Error};
use crate::clock::Timestamp;
use crate::fleet::alerts::Member;
use crate::fleet::notice::Notice;
use crate::fleet::pair::told::{Say, Saying, Subject, Tells};
use crate::sql::{Connection, SqliteError, params};

impl Book {
    /// What this notice says, of all the nodes of its incident, also those that it counts without a name.
    pub async fn tells(&self, notice: &Notice) -> Result<Tells, Error> {
        let (kind, decided) = (notice.kind, notice.decided);
        if notice.incident == 0 {
            return Ok(Tells::of_none(kind, &notice.title, decided));
        }
        let (incident, rule) = (signed(notice.incident), notice.rule.clone());
        let work = move |db: &Connection| Ok(sayings(db, incident, &rule, decided)?);
        let sayings = self.writer.call::<_, Error, _>(false, work).await?;
        Ok(Tells { kind, decided, sayings })
    }
}

fn sayings(
    db: &Connection,
    incident: i64,
    rule: &str,
    decided: Timestamp,
) -> Result<Vec<Saying>, SqliteError> {
    let select = "SELECT name, body FROM members WHERE incident = ?";
    let mut members: BTreeMap<String, Member> = BTreeMap::new();
    each(db, select, params![incident], |name, body| {
        let member: Member = parsed(&body)?;
        if member.joined <= decided && !member.is_removed {
            members.insert(name, member);
        }
        Ok(())
    })?;
    let select = "SELECT members.name, members.body FROM incidents
                  JOIN members ON members.incident = incidents.id
                  WHERE incidents.rule = ? AND incidents.id < ?";
    let mut well_before: BTreeMap<String, Timestamp> = BTreeMap::new();
    each(db, select, params![rule, incident], |name, body| {
        if !members.contains_key(&name) {
            return Ok(());
        }
        if let Some(ended) = parsed::<Member>(&body)?.ended {
            let newest = well_before.entry(name).or_insert(ended);
            *newest = ended.max(*newest);
        }
        Ok(())
    })?;
    let saying = |(name, member): (String, Member)| {
        let ended = member.ended.filter(|ended| *ended <= decided);
        let say = Say {
            subject: Subject::of(rule, &name),
            is_well: ended.is_some(),
            when: ended.unwrap_or(member.joined),
        };
        Saying { say, joined: member.joined, well_before: well_before.get(&name).copied() }
    };
    Ok(members.into_iter().map(saying).collect())
}

fn each(
    db: &Connection,
    select: &str,
    params: impl crate::sql::Params,
    mut take: impl FnMut(String, String) -> Result<(), SqliteError>,
) -> Result<(), SqliteError> {
    let mut select = db.prepare_cached(select)?;
    let rows = select.query_map(params, |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))?;
    for row in rows {
        let (name, body) = row?;
        take(name, body)?;
    }
    Ok(())
}
