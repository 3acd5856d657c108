use super::*;

const SEED: &str = r#"{"job_id": "unique-job-identifier", "image_name": "docker-image:tag",
  "input_file_cid": "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn", "output_path": "/path/to/output/data"}"#;

fn refused(body: &str) -> (String, &'static str) {
    let refused = parse(body.as_bytes()).unwrap_err();
    (refused.id.to_string(), refused.reason.code())
}

#[test]
fn the_seeds_message_is_all_that_is_needed() {
    let spec = parse(SEED.as_bytes()).unwrap().spec;
    assert_eq!(spec.id.as_str(), "unique-job-identifier");
    assert_eq!(spec.image, "docker-image:tag");
    assert_eq!(spec.output_path.as_deref(), Some("/path/to/output/data"));
    assert_eq!((spec.needs.disk_mib, spec.needs.shm_mib), (None, 1024));
    assert_eq!(spec.timeout, Duration::from_hours(1));
}

#[test]
fn the_backends_aliases_and_empty_fields_are_understood() {
    let id = format!("0x{}", "ab".repeat(32));
    let body = format!(r#"{{"jobId":"{id}","dockerImage":"","inputFileCID":""}}"#);
    assert_eq!(refused(&body), (id.clone(), "image_missing"));
    let body =
        format!(r#"{{"jobId":"{id}","dockerImage":"img","inputFileCID":"","output_path":null}}"#);
    let spec = parse(body.as_bytes()).unwrap().spec;
    assert_eq!((spec.image.as_str(), spec.input), ("img", None));
}

#[test]
fn a_whole_number_is_one_however_it_is_written_and_is_signed_alike() {
    let read = |gpus: &str, timeout: &str| {
        let body = format!(
            r#"{{"job_id":"a","image_name":"b","gpus":{gpus},"timeout_s":{timeout},"priority":-1.0}}"#
        );
        parse(body.as_bytes()).map(|parsed| {
            let Parsed { spec, spec_hash } = parsed;
            (spec.needs.gpus, spec.timeout.as_secs(), spec.priority, spec_hash)
        })
    };
    let plain = read("0", "3600").unwrap();
    assert_eq!((plain.0, plain.1, plain.2), (Some(0), 3600, -1));
    for (gpus, timeout) in [("0.0", "3600.0"), ("-0.0", "3.6e3"), ("0e5", "36000E-1")] {
        assert_eq!(read(gpus, timeout).unwrap(), plain, "{gpus} {timeout}");
    }
    for (gpus, timeout) in [("0.5", "3600"), ("0", "3600.5"), ("-1.0", "3600"), ("0", "1e300")] {
        assert!(read(gpus, timeout).is_err(), "{gpus} {timeout}");
    }
}

#[test]
fn messages_without_a_usable_id_are_refused_under_one_of_their_own() {
    for body in [
        "not json",
        "{}",
        r#"{"job_id":"../../x","image_name":"a"}"#,
        r#"{"job_id":"a\u0000b","image_name":"a"}"#,
        r#"{"job_id":"a\nb","image_name":"a"}"#,
        r#"{"job_id":"a.b","image_name":"a"}"#,
        r#"{"job_id":7,"image_name":"a"}"#,
        r#"{"job_id":"a","job_id":"b","image_name":"a"}"#,
    ] {
        let (id, reason) = refused(body);
        assert!(id.starts_with("invalid-") && id.len() == 24, "{body}: {id}");
        assert_eq!(reason, "malformed", "{body}");
    }
    let long = format!(r#"{{"job_id":"{}","image_name":"a"}}"#, "x".repeat(900_000));
    assert_eq!(refused(&long).1, "message_too_large");
}

#[test]
fn hostile_text_is_escaped_and_cut_in_errors() {
    let body =
        serde_json::json!({"job_id": format!("\u{1b}[31m{}", "y".repeat(1000)), "image": "a"});
    let refused = parse(body.to_string().as_bytes()).unwrap_err();
    assert!(refused.error.len() < 250 && !refused.error.contains('\u{1b}'), "{}", refused.error);
}

#[test]
fn wrong_values_name_their_key() {
    for (extra, reason, key) in [
        (r#""gpus":-1"#, "malformed", "gpus"),
        (r#""gpus":1.5"#, "malformed", "gpus"),
        (r#""cpus":"4""#, "malformed", "cpus"),
        (r#""env":{"A=B":"x"}"#, "malformed", "env"),
        (r#""command":"ls""#, "malformed", "command"),
        (r#""command":["a",1]"#, "malformed", "command"),
        (r#""output_path":"/output/../etc""#, "malformed", "output_path"),
        (r#""output_path":"relative""#, "malformed", "output_path"),
        (r#""input_file_cid":"nope""#, "input_cid_invalid", "input_file_cid"),
        (
            r#""inputs":[{"cid":"QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn","path":"/etc"}]"#,
            "malformed",
            "inputs",
        ),
        (
            r#""inputs":[{"cid":"QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn","path":"/input/input"}]"#,
            "malformed",
            "inputs",
        ),
        (r#""network":"host""#, "malformed", "network"),
        (r#""sandbox":"none""#, "malformed", "sandbox"),
        (r#""deadline":"tomorrow""#, "malformed", "deadline"),
        (r#""requester":"0x1""#, "malformed", "requester"),
        (r#""timeout_s":0"#, "malformed", "timeout_s"),
    ] {
        let body = format!(r#"{{"job_id":"j","image":"a",{extra}}}"#);
        let refused = parse(body.as_bytes()).unwrap_err();
        assert_eq!((refused.id.as_str(), refused.reason.code()), ("j", reason), "{extra}");
        assert!(refused.error.contains(key), "{extra}: {}", refused.error);
    }
}

#[test]
fn the_spec_hash_ignores_order_spaces_and_the_signature_but_not_the_spelling_of_keys() {
    let of = |body: &str| spec_hash(&parse_object(body.as_bytes()).unwrap());
    let hash = of(r#"{"job_id":"a","cpus":4.0,"image":"b"}"#);
    assert_eq!(hash, of(r#"{ "image":"b", "job_id":"a", "signature":"0x00", "cpus":4 }"#));
    assert_ne!(hash, of(r#"{"jobId":"a","cpus":4.0,"image":"b"}"#));
}

proptest::proptest! {
    #[test]
    fn no_body_makes_the_parser_panic(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400)) {
        let _ = parse(&body);
    }
}
