//! A text in which variables stand: `{root}/logs/swarm.log`.

use std::collections::BTreeMap;

/// A text with variables, each a name in braces. `{{` and `}}` are braces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Variable(String),
}

impl Template {
    /// Reads a template. The error is a clause.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (mut parts, mut plain) = (Vec::new(), String::new());
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '{' | '}' if chars.next_if_eq(&c).is_some() => plain.push(c),
                '}' => return Err("a } without its {: write }} for a brace".to_owned()),
                '{' => {
                    let name: String =
                        std::iter::from_fn(|| chars.next_if(|c| *c != '}' && *c != '{')).collect();
                    if chars.next() != Some('}') || !is_name(&name) {
                        return Err("a { without a name and }: write {{ for a brace".to_owned());
                    }
                    parts.push(Part::Text(std::mem::take(&mut plain)));
                    parts.push(Part::Variable(name));
                }
                c => plain.push(c),
            }
        }
        parts.push(Part::Text(plain));
        parts.retain(|part| !matches!(part, Part::Text(text) if text.is_empty()));
        Ok(Self(parts))
    }

    /// The variables that stand in it.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Variable(name) => Some(name.as_str()),
            Part::Text(_) => None,
        })
    }

    /// The text with these values. A variable without one stays as it stands.
    pub fn fill(&self, values: &BTreeMap<String, String>) -> String {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Variable(name) => {
                    let unfilled = || format!("{{{name}}}");
                    text.push_str(&values.get(name).cloned().unwrap_or_else(unfilled));
                }
            }
        }
        text
    }
}

/// Whether this can be the name of a variable: 1 to 32 of `a-z0-9_`.
pub(super) fn is_name(name: &str) -> bool {
    (1..=32).contains(&name.len())
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}
