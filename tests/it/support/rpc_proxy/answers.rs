//! What the proxy answers by itself.

use serde_json::{Value, json};

use super::Garbage;

/// More than this project's client accepts of one answer.
const HUGE_BYTES: usize = 5 * 1024 * 1024;

/// What goes back over the connection: bytes, or only its end.
pub(super) enum Reply {
    Bytes(Vec<u8>),
    Cut,
}

pub(super) fn http(status: u16, further: &str, body: &[u8]) -> Reply {
    let head = format!(
        "HTTP/1.1 {status} Weather\r\ncontent-type: application/json\r\n{further}\
         connection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    Reply::Bytes([head.as_bytes(), body].concat())
}

pub(super) fn page(status: u16, retry_after: Option<&str>) -> Reply {
    let rest = retry_after.map(|rest| format!("retry-after: {rest}\r\n")).unwrap_or_default();
    http(status, &rest, b"<html>not now</html>")
}

pub(super) fn refusal(request: &Value, code: i64, words: &str) -> Reply {
    let error = json!({"code": code, "message": words});
    let answer = json!({"jsonrpc": "2.0", "id": request["id"], "error": error});
    http(200, "", answer.to_string().as_bytes())
}

pub(super) fn nonsense(garbage: Garbage, request: &Value) -> Reply {
    let id = &request["id"];
    let body = match garbage {
        Garbage::Html => "<html>Welcome</html>".to_owned(),
        Garbage::CutJson => format!(r#"{{"jsonrpc":"2.0","id":{id},"result":"0x"#),
        Garbage::WrongType => json!({"jsonrpc": "2.0", "id": id, "result": [{}]}).to_string(),
        Garbage::Huge => {
            let padding = "x".repeat(HUGE_BYTES);
            json!({"jsonrpc": "2.0", "id": id, "padding": padding, "result": "0x1"}).to_string()
        }
    };
    http(200, "", body.as_bytes())
}
