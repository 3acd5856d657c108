use super::*;
use crate::fleet::Level;
use crate::watch::grammar::TimeForm;

fn hydra() -> Arc<Grammar> {
    let pattern =
        r"^\[(?<time>[0-9-]{10} [0-9:]{8},[0-9]{3})\]\[(?<logger>[^\]]+)\]\[(?<level>[A-Z]+)\] - ";
    Arc::new(Grammar {
        name: "hydra".to_owned(),
        form: Form::Header(Pattern::at_start(pattern).unwrap()),
        time: Some(TimeForm { format: "%Y-%m-%d %H:%M:%S".to_owned(), is_utc: true }),
    })
}

fn at(ms: u64) -> Timestamp {
    Timestamp::from_unix_ms(1_000_000 + ms)
}

/// The records of lines that come at once, with the number of the last line of each.
fn records(grammar: &Arc<Grammar>, text: &str) -> Vec<(Record, usize)> {
    let mut assembler = Assembler::new(Arc::clone(grammar), &Local::utc());
    let mut out = Vec::new();
    for (number, line) in text.lines().enumerate() {
        out.extend(assembler.take(&Line::read(line.as_bytes()), number, at(0)));
    }
    out.extend(assembler.end());
    out
}

#[test]
fn a_traceback_belongs_to_the_record_before() {
    let found = records(
        &hydra(),
        "tail of what was before\n\
         [2025-08-05 02:04:54,237][a.b][INFO] - first\n\
         [2025-08-05 02:04:55,000][a.c][ERROR] - it failed\n\
         Traceback (most recent call last):\n\
         \x20 File \"x.py\", line 1\n\
         ValueError: no\n\
         [2025-08-05 02:04:56,000][a.b][INFO] - last",
    );
    let texts: Vec<(&str, usize)> =
        found.iter().map(|(it, mark)| (it.text.as_str(), *mark)).collect();
    let trace =
        "it failed\nTraceback (most recent call last):\n  File \"x.py\", line 1\nValueError: no";
    assert_eq!(texts, [("tail of what was before", 0), ("first", 1), (trace, 5), ("last", 6)]);
    let failed = &found[2].0;
    assert_eq!((failed.level, failed.logger.as_str()), (Some(Level::Error), "a.c"));
    assert_eq!(failed.at.unwrap().to_string(), "2025-08-05T02:04:55.000Z");
    assert_eq!(failed.message(), "it failed");
}

#[test]
fn a_record_ends_when_nothing_continues_it_for_a_while() {
    let mut assembler = Assembler::new(hydra(), &Local::utc());
    let line = |text: &str| Line::read(text.as_bytes());
    assert_eq!(assembler.due(), None);
    assert_eq!(assembler.take(&line("[2025-08-05 02:04:54,237][a][ERROR] - x"), 1, at(0)), None);
    assert_eq!(assembler.due(), Some(at(1_000)));
    assert_eq!(assembler.flush(at(999)), None);
    assert_eq!(assembler.take(&line("more"), 2, at(999)), None);
    assert_eq!(assembler.flush(at(1_500)), None, "a line that continues it counts");
    let (record, mark) = assembler.flush(at(1_999)).unwrap();
    assert_eq!((record.text.as_str(), mark), ("x\nmore", 2));
    assert_eq!(assembler.flush(at(9_000)), None);
    // The clock is set back by an hour.
    assembler.take(&line("[2025-08-05 02:04:54,237][a][ERROR] - y"), 3, at(900_000));
    assert_eq!(assembler.flush(at(0)), None);
    assert!(assembler.flush(at(1_000)).is_some());
}

#[test]
fn a_record_without_an_end_is_bounded_and_counts_what_it_left_out() {
    let head = "[2025-08-05 02:04:54,237][a][ERROR] - x\n";
    let many = records(&hydra(), &format!("{head}{}", "again\n".repeat(1_000)));
    assert_eq!(many.len(), 1);
    assert_eq!((many[0].0.text.lines().count(), many[0].0.left_out), (200, 801));
    let large =
        records(&hydra(), &format!("{head}{}", format!("{}\n", "a b ".repeat(2_500)).repeat(10)));
    assert!(large[0].0.text.len() <= RECORD_BYTES_MAX);
    assert_eq!((large[0].0.left_out, large[0].1), (4, 10));
}

#[test]
fn of_a_progress_bar_the_last_state_stays_and_a_header_behind_it_counts() {
    let bar = "\x20 0%|    | 0/10\r 50%|##  | 5/10\r100%|####| 10/10\r";
    let header = "[2025-08-05 02:04:54,237][a][INFO] - done";
    let mut assembler = Assembler::new(hydra(), &Local::utc());
    assembler.take(&Line::read(bar.as_bytes()), 1, at(0));
    let line = format!("{bar}{header}\r");
    let (record, _) = assembler.take(&Line::read(line.as_bytes()), 2, at(0)).unwrap();
    assert_eq!(record.text, "100%|####| 10/10");
    assert_eq!(assembler.end().unwrap().0.text, "done");
}

#[test]
fn a_json_line_is_a_record_and_its_escapes_hide_nothing() {
    let key = |name: &str| vec![name.to_owned()];
    let keys = JsonKeys {
        time: key("ts"),
        level: key("level"),
        logger: key("target"),
        message: key("fields.message"),
    };
    let time = Some(TimeForm { format: "unix".to_owned(), is_utc: true });
    let grammar = Arc::new(Grammar { name: "json".to_owned(), form: Form::Json(keys), time });
    let found = records(
        &grammar,
        "{\"ts\":1754359494.5,\"level\":\"WARN\",\"target\":\"a\",\"fields\":{\"message\":\"it\\u0020is\"}}\n\
         {\"level\":30,\"fields\":{\"message\":\"bob\\u0040example.com \\u001b[2Jx\"}}\n\
         \n\
         {\"ts\":1754359494500000000,\"id\":1234567890123456789,\"fields\":{\"message\":\"m\"}}\n\
         no object\n\
         {\"other\":1}",
    );
    let texts: Vec<&str> = found.iter().map(|(it, _)| it.text.as_str()).collect();
    assert_eq!(texts, ["it is", "[REDACTED] x", "m", "no object", "{\"other\":1}"]);
    assert_eq!((found[0].0.level, found[0].0.logger.as_str()), (Some(Level::Warning), "a"));
    assert_eq!(found[0].0.at.unwrap().to_string(), "2025-08-05T02:04:54.500Z");
    assert_eq!(found[1].0.level, Some(Level::Info));
}

#[test]
fn each_line_of_a_plain_log_is_a_record() {
    let plain = Grammar { name: "plain".to_owned(), form: Form::Plain, time: None };
    let found = records(&Arc::new(plain), "one\n\n  two\nthree");
    let texts: Vec<&str> = found.iter().map(|(it, _)| it.text.as_str()).collect();
    assert_eq!(texts, ["one", "  two", "three"]);
}
