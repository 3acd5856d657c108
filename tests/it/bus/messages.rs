//! Statuses, logs and control messages.

use std::time::Duration;

use bytes::Bytes;
use lamda_node::bus::{Error, StatusFilter};
use tokio::time::timeout;

use super::{AGENT, LIMIT, STORED, agent, ids, job};
use crate::support::bus::{connect, prepared};
use crate::support::nats::Nats;

#[tokio::test(flavor = "multi_thread")]
async fn a_status_reaches_agent_status_and_once_the_stream() {
    let nats = Nats::start();
    let bus = prepared(&nats).await;
    let mut subscriber = nats.python_beside(
        "sub = await nc.subscribe('agent.status')\n\
         await nc.flush()\n\
         print('ready')\n\
         for _ in range(2): print((await sub.next_msg(30)).data.decode())\n\
         m = await js.get_msg('STATUS', 1)\n\
         print(m.subject, len(m.headers['Nats-Msg-Id']), m.data.decode())",
        &[],
    );
    assert_eq!(subscriber.line(), "ready");
    let body = Bytes::from_static(b"{\"seq\":3}");
    for _ in 0..2 {
        bus.publish_status(&ids(), agent(), &job("j-1"), 3, body.clone()).await.unwrap();
    }
    assert_eq!([subscriber.line(), subscriber.line()], ["{\"seq\":3}", "{\"seq\":3}"]);
    let stored = format!("jobs.status.{AGENT}.j-1 64 {{\"seq\":3}}");
    assert_eq!(subscriber.line(), stored);
    assert_eq!(nats.python(STORED, &["STATUS"]), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn statuses_are_replayed_and_then_followed() {
    let nats = Nats::start();
    let bus = prepared(&nats).await;
    let publish = async |id: &str, seq: u64, body: &'static str| {
        bus.publish_status(&ids(), agent(), &job(id), seq, body.into()).await.unwrap();
    };
    publish("mine", 1, "one").await;
    publish("other", 1, "not mine").await;
    publish("mine", 2, "two").await;
    let filter = StatusFilter { agent: None, job: Some(job("mine")) };
    let mut statuses = bus.statuses(&filter, true).await.unwrap();
    let mut live = bus.statuses(&filter, false).await.unwrap();
    publish("mine", 3, "three").await;
    for body in ["one", "two", "three"] {
        let status = timeout(LIMIT, statuses.next()).await.unwrap().unwrap();
        assert_eq!((status.job, status.body), (job("mine"), Bytes::from(body)));
    }
    assert_eq!(timeout(LIMIT, live.next()).await.unwrap().unwrap().body, "three");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jobs_log_reaches_who_listens_on_any_agent() {
    let nats = Nats::start();
    let bus = connect(&nats).await;
    let mut logs = bus.logs(None, &job("j")).await.unwrap();
    bus.publish_log(agent(), &job("other"), "no".into()).await.unwrap();
    bus.publish_log(agent(), &job("j"), "line".into()).await.unwrap();
    assert_eq!(timeout(LIMIT, logs.next()).await.unwrap().unwrap(), "line");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_whose_answer_would_be_a_job_or_a_claim_is_not_answered() {
    let nats = Nats::start();
    let bus = prepared(&nats).await;
    let mut requests = bus.control_requests(agent()).await.unwrap();
    // Requests of one connection are answered in order, so the last reply proves that the others had none.
    let script = "
heard = []
async def hear(message):
    heard.append(message.subject)
for subject in args[1:]:
    await nc.subscribe(subject, cb=hear)
for reply in args[1:]:
    await nc.publish(args[0], b'asked', reply=reply)
await nc.request(args[0], b'asked', timeout=10)
await nc.flush()
print(' '.join(heard))";
    let subject = format!("jobs.control.{AGENT}");
    let elsewhere =
        ["jobs.dispatch.x", "$KV.JOB_CLAIMS.pool.job", "jobs.control.x", "_INBOX_own.x"];
    let args = [&[subject.as_str()], &elsewhere[..]].concat();
    let mut asked = nats.python_beside(script, &args);
    for _ in 0..=elsewhere.len() {
        let request = timeout(LIMIT, requests.next()).await.unwrap().unwrap();
        let body = request.body.clone();
        request.respond(body).await.unwrap();
    }
    assert_eq!(asked.line(), "_INBOX_own.x");
}

#[tokio::test(flavor = "multi_thread")]
async fn control_messages_are_answered_and_an_absent_agent_is_named() {
    let nats = Nats::start();
    let bus = prepared(&nats).await;
    let limit = Duration::from_secs(10);
    let absent = bus.control(agent(), "{}".into(), limit).await.unwrap_err();
    assert!(matches!(absent, Error::NoAgent { agent: named } if named == agent()));
    let mut requests = bus.control_requests(agent()).await.unwrap();
    let answer = async {
        for _ in 0..2 {
            let request = requests.next().await.unwrap();
            let echo = request.body.clone();
            request.respond(echo).await.unwrap();
        }
    };
    let lower = format!("jobs.control.{}", AGENT.to_lowercase());
    let ask = async {
        assert_eq!(bus.control(agent(), "ours".into(), limit).await.unwrap(), "ours");
        tokio::task::block_in_place(|| {
            nats.python_beside(
                "print((await nc.request(args[0], b'theirs', timeout=20)).data.decode())",
                &[&lower],
            )
        })
    };
    let ((), mut asked) = timeout(LIMIT, async { tokio::join!(answer, ask) }).await.unwrap();
    assert_eq!(asked.line(), "theirs");
}
