//! Says where in a file something is.

use crate::report;

/// The line, the table and the key at this byte: `line 12, [[means]] 4, match`.
pub(super) fn place(text: &str, at: usize) -> String {
    let before = text.get(..text.floor_char_boundary(at)).unwrap_or(text);
    let number = before.matches('\n').count() + 1;
    let line = text.lines().nth(number - 1).unwrap_or_default();
    let head = |line: &str| {
        let head = line.trim();
        let head = head.split_once('#').map_or(head, |(head, _)| head.trim());
        (head.starts_with('[') && head.ends_with(']') && !head.contains(['=', '"', '\'']))
            .then(|| head.to_owned())
    };
    let table = text.lines().take(number).filter_map(head).last();
    let table = table.map(|table| {
        let again = text.lines().take(number).filter_map(head).filter(|it| *it == table).count();
        let shown = report::one_line(&table, 40);
        if table.starts_with("[[") { format!(", {shown} {again}") } else { format!(", {shown}") }
    });
    let key = line.split_once('=').map(|(key, _)| report::one_line(key, 40));
    let key = key.map(|key| format!(", {key}"));
    format!("line {number}{}{}", table.unwrap_or_default(), key.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_line_a_table_and_a_key() {
        let text = "name = 1\n[[means]]\nmatch = 2\n [[means]] # two\nis = 3\n[idle]\nx\n";
        for (what, wanted) in [
            ("name", "line 1, name"),
            ("2", "line 3, [[means]] 1, match"),
            ("3", "line 5, [[means]] 2, is"),
            ("x", "line 7, [idle]"),
        ] {
            assert_eq!(place(text, text.rfind(what).unwrap()), wanted);
        }
        assert_eq!(place("é", 1), "line 1");
    }
}
