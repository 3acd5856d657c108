use super::*;

const T0: Timestamp = Timestamp::from_unix_ms(1_800_000_000_123);

fn finding(answer: Answer) -> Finding {
    let seen = Evidence { source: "log swarm".to_owned(), at: T0, what: "joined".to_owned() };
    let (cause, remedy) = (None, String::new());
    Finding { answer, why: "it says so".to_owned(), cause, remedy, evidence: vec![seen] }
}

/// What a watcher with this first byte of its address says of `one`.
pub(crate) fn said(watcher: u8, training: Answer) -> Said {
    let yes = || finding(Answer::Yes);
    let training = finding(training);
    let answers = Answers {
        alive: yes(),
        training,
        published: yes(),
        earning: yes(),
        swarm: finding(Answer::Unknown),
    };
    Said {
        watcher: Address::new([watcher; 20]),
        program: "one".to_owned(),
        at: T0,
        since: T0,
        version: "1.0".to_owned(),
        profile: "rl-swarm-hydra".to_owned(),
        peer: Some("QmPeer".to_owned()),
        account: None,
        answers,
        troubles: Vec::new(),
        says: "it is up".to_owned(),
    }
}

fn body(said: &Said) -> Vec<u8> {
    serde_json::to_vec(said).unwrap()
}

#[test]
fn an_observation_reads_as_it_was_written_and_each_byte_of_it_is_signed() {
    let said = said(1, Answer::Yes);
    let bytes = body(&said);
    assert_eq!(Said::parse(&bytes).unwrap(), said);
    let spaced: Vec<u8> = bytes.iter().copied().chain([b' ']).collect();
    assert_eq!(Said::parse(&spaced).unwrap(), said);
    assert_ne!(said.digest(&bytes), said.digest(&spaced));
    let later = Said { at: T0.plus(Duration::from_millis(1)), ..said.clone() };
    assert_ne!(said.digest(&bytes), later.digest(&bytes));
}

#[test]
fn what_is_too_long_is_refused_and_what_a_watcher_sends_is_cut_before() {
    let long = "ß".repeat(5_000);
    let mut huge = said(1, Answer::No);
    huge.says.clone_from(&long);
    huge.version.clone_from(&long);
    huge.peer = Some(long.clone());
    huge.answers.earning.remedy = format!("a\u{1b}[31m{long}");
    huge.answers.alive.evidence =
        vec![Evidence { source: long.clone(), at: T0, what: format!("\"{long}\"") }; 20];
    assert!(matches!(Said::parse(&body(&huge)), Err(Invalid::TooLarge)));
    let sent = huge.bounded();
    assert_eq!(Said::parse(&body(&sent)).unwrap(), sent);
    for (change, part) in [
        ((|it: &mut Said| it.program.clear()) as fn(&mut Said), "program"),
        (|it| it.says = "x".repeat(601), "says"),
        (|it| it.answers.swarm.why = "a\u{1b}[31m".to_owned(), "swarm"),
        (|it| it.peer = Some("p".repeat(129)), "peer"),
    ] {
        let mut said = said(1, Answer::Yes);
        change(&mut said);
        let refused = Said::parse(&body(&said)).unwrap_err();
        assert!(matches!(refused, Invalid::Part(name) if name == part), "{refused}");
    }
    assert!(matches!(Said::parse(b"{}"), Err(Invalid::Form(_))));
}

#[test]
fn the_largest_observation_that_a_watcher_sends_fits() {
    let text = "\"".repeat(TEXT_BYTES_MAX);
    let mut largest = said(1, Answer::No);
    let full = Finding {
        answer: Answer::NotExpected,
        why: text.clone(),
        cause: Some("\"".repeat(WORD_BYTES_MAX)),
        remedy: text.clone(),
        evidence: vec![
            Evidence { source: "\"".repeat(WORD_BYTES_MAX), at: T0, what: text };
            EVIDENCE_MAX
        ],
    };
    let Answers { alive, training, published, earning, swarm } = &mut largest.answers;
    for finding in [alive, training, published, earning, swarm] {
        *finding = full.clone();
    }
    largest.says = "\"".repeat(2 * TEXT_BYTES_MAX);
    largest.program = "\"".repeat(PROGRAM_BYTES_MAX);
    let bytes = body(&largest);
    assert!(Said::parse(&bytes).is_ok(), "{} bytes", bytes.len());
}

#[test]
fn what_is_old_or_of_the_future_is_untimely() {
    let said = said(1, Answer::Yes);
    let minutes = |count| Duration::from_mins(count);
    assert_eq!(said.is_timely(T0.plus(minutes(10))), Ok(()));
    let late = T0.plus(minutes(10) + Duration::from_millis(1));
    assert_eq!(said.is_timely(late), Err(Untimely::Old));
    let ahead = Said { at: T0.plus(minutes(3)), ..said };
    assert_eq!(ahead.is_timely(T0), Err(Untimely::Ahead));
}

#[test]
fn watchers_disagree_where_one_says_yes_and_another_no() {
    let (yes, no, waits) = (said(1, Answer::Yes), said(2, Answer::No), said(3, Answer::Waiting));
    assert_eq!(disagreements(&[&yes, &waits]), [""; 0]);
    assert_eq!(disagreements(&[&yes, &waits, &no]), ["training"]);
    assert_eq!(disagreements(&[]), [""; 0]);
    assert_ne!(yes.gist(), no.gist());
}
