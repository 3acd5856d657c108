//! The page: its files, as they are in the binary.
//!
//! Must hold: nothing of the page comes from elsewhere, and it may do nothing else ([`POLICY`]): what somebody
//! wrote into a name or a message is text.

use std::sync::Arc;

use miniz_oxide::deflate::compress_to_vec;
use sha2::{Digest as _, Sha256};

use crate::web::Router;
use crate::web::body::Bytes;
use crate::web::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use crate::web::response::{IntoResponse as _, Response};
use crate::web::routing::get;

/// What the page may load and do.
pub const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'";

/// As [`POLICY`], of the page that checks receipts: it also asks the endpoint of a chain that its reader names.
pub const CHECK_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self' https: http://127.0.0.1:* http://localhost:*; frame-ancestors 'none'; base-uri 'none'; \
    form-action 'self'";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

/// Where the title goes.
const TITLE: &str = "{{title}}";

macro_rules! files {
    ($($name:literal: $kind:expr),* $(,)?) => {
        &[$(($name, $kind, include_bytes!($name))),*]
    };
}

/// The files besides the page itself.
const FILES: &[(&str, &str, &[u8])] = files![
    "app.js": SCRIPT,
    "ui.js": SCRIPT,
    "live.js": SCRIPT,
    "list.js": SCRIPT,
    "columns.js": SCRIPT,
    "grid.js": SCRIPT,
    "fleet.js": SCRIPT,
    "node.js": SCRIPT,
    "alerts.js": SCRIPT,
    "events.js": SCRIPT,
    "job.js": SCRIPT,
    "people.js": SCRIPT,
    "seen.js": SCRIPT,
    "plot.js": SCRIPT,
    "log.js": SCRIPT,
    "earned.js": SCRIPT,
    "check.js": SCRIPT,
    "curve.js": SCRIPT,
    "style.css": STYLE,
];

/// A file, ready to be sent.
#[derive(Debug, Clone)]
struct File {
    kind: &'static str,
    policy: &'static str,
    plain: Bytes,
    packed: Bytes,
    tag: HeaderValue,
}

impl File {
    fn new(kind: &'static str, bytes: &[u8]) -> Self {
        let hash = data_encoding::BASE64URL_NOPAD.encode(&Sha256::digest(bytes));
        let tag = format!("\"{}\"", hash.get(..20).unwrap_or_default());
        Self {
            kind,
            policy: POLICY,
            plain: Bytes::copy_from_slice(bytes),
            packed: gzip(bytes, Effort::Best).into(),
            // Letters and digits are a header.
            tag: HeaderValue::try_from(tag).unwrap_or(HeaderValue::from_static("\"0\"")),
        }
    }

    fn answer(&self, asked: &HeaderMap) -> Response {
        let same = |value: &HeaderValue| {
            let text = value.to_str().unwrap_or_default();
            let tag = self.tag.to_str().unwrap_or("-");
            text.split(',').any(|it| it.trim().trim_start_matches("W/") == tag)
        };
        let always = [
            (header::ETAG, self.tag.clone()),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
            (header::VARY, HeaderValue::from_static("accept-encoding")),
            (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(self.policy)),
            (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
            (OPENER, HeaderValue::from_static("same-origin")),
        ];
        if asked.get_all(header::IF_NONE_MATCH).iter().any(same) {
            return (StatusCode::NOT_MODIFIED, always).into_response();
        }
        let kind = [(header::CONTENT_TYPE, HeaderValue::from_static(self.kind))];
        if takes_gzip(asked) {
            let coding = [(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"))];
            return (always, kind, coding, self.packed.clone()).into_response();
        }
        (always, kind, self.plain.clone()).into_response()
    }
}

const OPENER: HeaderName = HeaderName::from_static("cross-origin-opener-policy");

/// The page under `/`, with this title, and its files under `/static/`.
pub fn routes(title: &str) -> Router {
    let index = include_str!("index.html").replace(TITLE, &escaped(title));
    let check = include_str!("check.html").replace(TITLE, &escaped(title));
    let check = File { policy: CHECK_POLICY, ..File::new(HTML, check.as_bytes()) };
    let mut router = Router::new()
        .route("/", serve(File::new(HTML, index.as_bytes())))
        .route("/check", serve(check));
    for (name, kind, bytes) in FILES {
        router = router.route(&format!("/static/{name}"), serve(File::new(kind, bytes)));
    }
    router
}

fn serve(file: File) -> crate::web::routing::MethodRouter {
    let file = Arc::new(file);
    get(async move |asked: HeaderMap| file.answer(&asked))
}

/// A text within HTML.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(character),
        }
    }
    escaped
}

/// How hard [`gzip`] tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// For what is sent once.
    Quick,
    /// For what is sent often.
    Best,
}

/// Whether the client takes gzip.
pub fn takes_gzip(asked: &HeaderMap) -> bool {
    let codings = asked.get_all(header::ACCEPT_ENCODING);
    let mut codings = codings.iter().filter_map(|it| it.to_str().ok()).flat_map(|it| it.split(','));
    codings.any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let refuses = |part: &str| part.replace(' ', "").trim_end_matches(['0', '.']) == "q=";
        parts.next() == Some("gzip") && !parts.any(refuses)
    })
}

/// These bytes in gzip's form (RFC 1952).
pub fn gzip(bytes: &[u8], effort: Effort) -> Vec<u8> {
    let (level, hint) = match effort {
        Effort::Quick => (1, 4),
        Effort::Best => (9, 2),
    };
    let mut packed = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, hint, 255];
    packed.extend(compress_to_vec(bytes, level));
    packed.extend(crc32(bytes).to_le_bytes());
    // The length, modulo 2^32 as the format has it.
    packed.extend((bytes.len() & 0xffff_ffff).to_le_bytes().get(..4).unwrap_or_default());
    packed
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (if sum & 1 == 1 { 0xedb8_8320 } else { 0 })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn the_page_weighs_little_and_brings_its_own_title() {
        let index = include_str!("index.html");
        assert_eq!(index.matches(TITLE).count(), 2, "in its title, and at its top");
        let check = include_bytes!("check.html").as_slice();
        let files = FILES.iter().map(|(_, _, bytes)| *bytes).chain([index.as_bytes(), check]);
        let packed: usize = files.map(|bytes| gzip(bytes, Effort::Best).len()).sum();
        assert!(packed <= 80 * 1024, "{packed} bytes");
        assert_eq!(
            escaped("<b>\"a\" & 'b'</b>"),
            "&lt;b&gt;&quot;a&quot; &amp; &#39;b&#39;&lt;/b&gt;"
        );
    }

    #[test]
    fn no_file_makes_markup_of_text_or_asks_somebody_else() {
        for (name, _, bytes) in FILES {
            let text = String::from_utf8_lossy(bytes);
            for bad in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
                assert!(!text.contains(bad), "{name}: {bad}");
            }
            let others = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!others.contains("http://") && !others.contains("https://"), "{name}");
            let lines = text.lines().count();
            assert!(*name == "style.css" || lines <= 300, "{name}: {lines} lines");
        }
    }

    #[test]
    fn a_file_goes_out_packed_or_plain_or_not_at_all() {
        let file = File::new(SCRIPT, b"let x = 1;");
        let plain = file.answer(&HeaderMap::new());
        assert_eq!(
            (plain.status(), plain.headers().get(header::CONTENT_ENCODING)),
            (StatusCode::OK, None)
        );
        assert_eq!(plain.headers()[header::CONTENT_SECURITY_POLICY], POLICY);
        let packed = file.answer(&asked(header::ACCEPT_ENCODING, "br, gzip;q=0.8"));
        assert_eq!(packed.headers()[header::CONTENT_ENCODING], "gzip");
        assert!(!takes_gzip(&asked(header::ACCEPT_ENCODING, "gzip;q=0, br")));
        let tag = packed.headers()[header::ETAG].to_str().unwrap().to_owned();
        let again = file.answer(&asked(header::IF_NONE_MATCH, &format!("\"x\", W/{tag}")));
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    }

    #[test]
    fn gzip_is_what_others_read() {
        // The check value of this CRC (the sum of "123456789").
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        let text = "the quick brown fox ".repeat(100);
        let packed = gzip(text.as_bytes(), Effort::Best);
        assert!(packed.len() < text.len() / 5);
        let body = &packed[10..packed.len() - 8];
        assert_eq!(miniz_oxide::inflate::decompress_to_vec(body).unwrap(), text.as_bytes());
        assert_eq!(packed[packed.len() - 4..], u32::try_from(text.len()).unwrap().to_le_bytes());
    }
}
