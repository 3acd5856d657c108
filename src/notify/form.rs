//! What the texts of all channels share: which lines a message has, and how they are brought into a limit.
//!
//! Must hold: a text is within its limit; its head and its end are there, and what doesn't fit between them is
//! counted. Every text that a stranger may have written is one bounded line, and is escaped where the form has
//! markup.

use super::{Telling, seconds};
use crate::clock::Timestamp;
use crate::fleet::notice::{Notice, NoticeKind, NoticeNode, Severity};
use crate::report::one_line;

/// How many earlier notices a message tells one by one.
const EARLIER_MAX: usize = 8;

/// The longest title of an earlier notice, in characters. With it, head and end of a message together have less than
/// 4,000 units of UTF-16, even if each character takes two.
const EARLIER_CHARS_MAX: usize = 60;

/// How many further lines of a notice are told.
const LINES_MAX: usize = 40;

/// The longest name of a node, address or rule, in characters.
pub(super) const NAME_CHARS_MAX: usize = 80;

/// The longest sentence, in characters.
pub(super) const SENTENCE_CHARS_MAX: usize = 300;

/// How long a text may be, without its markup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    /// In units of UTF-16.
    Units(usize),
    /// In bytes of UTF-8.
    Bytes(usize),
}

impl Limit {
    const fn most(self) -> usize {
        match self {
            Self::Units(most) | Self::Bytes(most) => most,
        }
    }

    fn cost(self, text: &str) -> usize {
        match self {
            Self::Units(_) => text.encode_utf16().count(),
            Self::Bytes(_) => text.len(),
        }
    }
}

/// The form of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Markup {
    /// Nothing but text.
    Plain,
    /// The few tags of Telegram's HTML.
    Html,
}

/// A line of a message. It holds no line break.
#[derive(Debug, Clone, Default)]
pub(super) struct Line(Vec<(Style, String)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Plain,
    Bold,
    Code,
}

impl Line {
    fn text(self, text: &str) -> Self {
        self.part(Style::Plain, text, SENTENCE_CHARS_MAX)
    }

    fn bold(self, text: &str) -> Self {
        self.part(Style::Bold, text, SENTENCE_CHARS_MAX)
    }

    fn code(self, text: &str) -> Self {
        self.part(Style::Code, text, NAME_CHARS_MAX)
    }

    fn part(mut self, style: Style, text: &str, chars_max: usize) -> Self {
        // one_line drops the blanks at the ends, which part words here.
        let blank = |is_one: bool| if is_one { " " } else { "" };
        let (first, last) = (text.starts_with(' '), text.ends_with(' ') && text.len() > 1);
        let text = one_line(text, chars_max);
        self.0.push((style, format!("{}{text}{}", blank(first), blank(last))));
        self
    }

    fn render(&self, markup: Markup) -> String {
        self.0.iter().map(|(style, text)| markup.render(*style, text)).collect()
    }
}

impl Markup {
    fn render(self, style: Style, text: &str) -> String {
        match (self, style) {
            (Self::Plain, _) => text.to_owned(),
            (Self::Html, Style::Plain) => escape_html(text),
            (Self::Html, Style::Bold) => format!("<b>{}</b>", escape_html(text)),
            (Self::Html, Style::Code) => format!("<code>{}</code>", escape_html(text)),
        }
    }
}

fn escape_html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// The lines of a message.
#[derive(Debug, Clone, Default)]
pub(super) struct Message {
    head: Vec<Line>,
    middle: Vec<Line>,
    /// Nodes that the middle doesn't name.
    more: usize,
    end: Vec<Line>,
}

impl Message {
    /// The message that the original monitor sends about one node, if the notice is about one that is down.
    pub(super) fn of(telling: &Telling) -> Self {
        let message = match lone_node(&telling.notice) {
            Some(node) => of_one(&telling.notice, node),
            None => of_all(&telling.notice),
        };
        message.with_earlier(telling)
    }

    /// The message without its first line, for channels that show the title elsewhere.
    pub(super) fn without_title(mut self) -> Self {
        if !self.head.is_empty() {
            self.head.remove(0);
        }
        self
    }

    /// The text, within this limit. Lines of the middle are left out if need be, and counted.
    pub(super) fn text(&self, markup: Markup, limit: Limit) -> String {
        let cost = |line: &Line| limit.cost(&line.render(Markup::Plain)) + 1;
        let fixed: usize = self.head.iter().chain(&self.end).map(cost).sum();
        // With room for the line that counts the rest.
        let mut left = limit.most().saturating_sub(fixed + 32);
        let fits = self.middle.iter().take_while(|line| {
            let cost = cost(line);
            let fits = cost <= left;
            left = left.saturating_sub(cost);
            fits
        });
        let fits = fits.count();
        let more = self.more + (self.middle.len() - fits);
        let counted = (more > 0).then(|| Line::default().text(&format!("and {more} more")));
        let lines = self.head.iter().chain(self.middle.iter().take(fits)).chain(&counted);
        let lines = lines.chain(&self.end).map(|line| line.render(markup));
        let text = lines.collect::<Vec<_>>().join("\n");
        if markup == Markup::Plain { cut(text, limit) } else { text }
    }

    fn with_earlier(mut self, telling: &Telling) -> Self {
        let all = telling.earlier.len();
        let untold = telling.left_out + all.saturating_sub(EARLIER_MAX);
        if untold > 0 {
            self.end.push(Line::default().text(&format!("told late: {untold} notices, and")));
        }
        for earlier in telling.earlier.iter().skip(all.saturating_sub(EARLIER_MAX)) {
            let notice = &earlier.notice;
            let doubt = if earlier.may_be_repeat { " (it may have arrived before)" } else { "" };
            let at = minutes(notice.decided);
            let what = format!("told late: {at} {}: ", notice.kind.as_str());
            let title = one_line(&notice.title, EARLIER_CHARS_MAX);
            self.end.push(Line::default().text(&what).text(&title).text(doubt));
        }
        if telling.may_be_repeat {
            let doubt = "This may be a repetition: it isn't known whether it arrived before.";
            self.end.push(Line::default().text(doubt));
        }
        self
    }
}

/// The title of a notice with a mark of its urgency.
pub(super) fn title(notice: &Notice) -> String {
    let title = one_line(&notice.title, SENTENCE_CHARS_MAX);
    match notice.kind {
        NoticeKind::Reminder => format!("{} Still: {title}", mark(notice)),
        NoticeKind::Test => format!("{} Test: {title}", mark(notice)),
        _ => format!("{} {title}", mark(notice)),
    }
}

/// The one node of a notice that reads as the original monitor's.
fn lone_node(notice: &Notice) -> Option<&NoticeNode> {
    match notice.nodes.as_slice() {
        [node] if notice.is_node_down && notice.more == 0 => Some(node),
        _ => None,
    }
}

const fn mark(notice: &Notice) -> &'static str {
    match (notice.kind, notice.severity) {
        (NoticeKind::Resolved, _) => "✅",
        (NoticeKind::Digest | NoticeKind::Test, _) | (_, Severity::Info) => "ℹ️",
        (_, Severity::Critical) => "❌",
        (_, Severity::Warning) => "⚠️",
    }
}

/// The original's text, then what it doesn't say: why, and what to do.
fn of_one(notice: &Notice, node: &NoticeNode) -> Message {
    let is_up = notice.kind == NoticeKind::Resolved || node.ended.is_some();
    let head = if is_up { ("✅ ", "Gensyn node UP") } else { ("❌ ", "Gensyn node DOWN") };
    let age = match node.heard {
        Some(at) => format!("{}s", notice.decided.since(at).as_secs()),
        None => "never heard".to_owned(),
    };
    let ip = if node.ip.is_empty() { "unknown" } else { &node.ip };
    let time = format!("{} UTC", seconds(notice.decided));
    let line = |what: &str| Line::default().text(what);
    let mut head = vec![
        line(head.0).bold(head.1),
        line("Node ID: ").code(&node.name),
        line("IP: ").code(ip),
        line("Age: ").code(&age),
        line("Time: ").code(&time),
    ];
    if !node.why.is_empty() {
        head.push(line("Why: ").text(&node.why));
    }
    if !is_up && !notice.remedy.is_empty() {
        head.push(line("Do: ").text(&notice.remedy));
    }
    Message { head, ..Message::default() }
}

fn of_all(notice: &Notice) -> Message {
    let mut head = vec![Line::default().bold(&title(notice))];
    if notice.incident > 0 && notice.kind != NoticeKind::Opened {
        head.push(Line::default().text(&format!("since {} UTC", seconds(notice.opened))));
    }
    let nodes = notice.nodes.iter().map(|node| {
        let well = match node.ended {
            Some(at) => format!("well again since {}", minutes(at)),
            None => node.why.clone(),
        };
        let line = Line::default().text("• ").code(&node.name);
        if well.is_empty() { line } else { line.text(": ").text(&well) }
    });
    let lines = notice.lines.iter().take(LINES_MAX).map(|line| Line::default().text(line));
    let mut end = Vec::new();
    if !notice.remedy.is_empty() && notice.kind != NoticeKind::Resolved {
        end.push(Line::default().text("Do: ").text(&notice.remedy));
    }
    Message { head, middle: nodes.chain(lines).collect(), more: notice.more, end }
}

/// `2026-11-27 03:12 UTC`.
fn minutes(at: Timestamp) -> String {
    format!("{} UTC", seconds(at).get(..16).unwrap_or_default())
}

/// The text up to the limit.
fn cut(text: String, limit: Limit) -> String {
    if limit.cost(&text) <= limit.most() {
        return text;
    }
    let mut left = limit.most().saturating_sub(limit.cost("…"));
    let fits = text.chars().take_while(|c| {
        let cost = limit.cost(c.encode_utf8(&mut [0; 4]));
        let fits = cost <= left;
        left = left.saturating_sub(cost);
        fits
    });
    fits.chain(std::iter::once('…')).collect()
}
