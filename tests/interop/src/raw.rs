//! What `swanctl --raw` prints: one message a line, of `key=value`, `key=[list]` and
//! `section {…}`, in which a value may hold spaces but no `=` and no braces.

use std::collections::BTreeMap;

/// A section of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Section {
    values: BTreeMap<String, String>,
    sections: BTreeMap<String, Section>,
}

impl Section {
    /// Reads one message: everything between the first `{` and its partner.
    pub fn parse(line: &str) -> Option<Section> {
        let start = line.find('{')?;
        let mut rest = &line[start + 1..];
        Section::body(&mut rest)
    }

    fn body(rest: &mut &str) -> Option<Section> {
        let mut section = Section::default();
        loop {
            *rest = rest.trim_start();
            if let Some(after) = rest.strip_prefix('}') {
                *rest = after;
                return Some(section);
            }
            let end = rest.find(['=', '{', '}'])?;
            let (name, after) = rest.split_at(end);
            let name = name.trim().to_owned();
            if let Some(after) = after.strip_prefix('{') {
                *rest = after;
                section.sections.insert(name, Section::body(rest)?);
                continue;
            }
            let after = after.strip_prefix('=')?;
            let value;
            (value, *rest) = match after.strip_prefix('[') {
                Some(list) => {
                    let (list, rest) = list.split_at(end_of_list(list)?);
                    (list, &rest[1..])
                }
                None => after.split_at(end_of_value(after)),
            };
            section.values.insert(name, value.trim().to_owned());
        }
    }

    /// A value, or an empty text.
    pub fn text(&self, key: &str) -> &str {
        self.values.get(key).map_or("", String::as_str)
    }

    /// A section below this one.
    pub fn section(&self, key: &str) -> Option<&Section> {
        self.sections.get(key)
    }

    /// All sections below this one, by name.
    pub fn sections(&self) -> impl Iterator<Item = (&str, &Section)> {
        self.sections.iter().map(|(name, section)| (name.as_str(), section))
    }
}

/// A list ends at the bracket that is its own: `10.0.0.0/16[tcp/80]` may stand in it.
fn end_of_list(text: &str) -> Option<usize> {
    let mut open = 1;
    text.bytes().position(|octet| {
        match octet {
            b'[' => open += 1,
            b']' => open -= 1,
            _ => {}
        }
        open == 0
    })
}

/// A value ends before the word that begins the next entry, or at the end of the section.
fn end_of_value(text: &str) -> usize {
    let Some(next) = text.find(['=', '{', '}']) else { return text.len() };
    if text[next..].starts_with('}') {
        return next;
    }
    text[..next].trim_end().rfind(' ').unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::Section;

    #[test]
    fn sections_lists_and_values_with_spaces() {
        let line = "list-sa event {one {uniqueid=7 state=ESTABLISHED remote-id=C=CH, O=x y \
                    child-sas {net-3 {name=net local-ts=[10.0.0.0/16[tcp/80] 10.2.0.0/16] state=INSTALLED} }}}";
        let message = Section::parse(line).unwrap();
        let ike = message.section("one").unwrap();
        assert_eq!(ike.text("state"), "ESTABLISHED");
        let (name, child) = ike.section("child-sas").unwrap().sections().next().unwrap();
        assert_eq!((name, child.text("state")), ("net-3", "INSTALLED"));
        assert_eq!(child.text("local-ts"), "10.0.0.0/16[tcp/80] 10.2.0.0/16");
        assert_eq!(child.text("absent"), "");
        assert_eq!(Section::parse("list-sas reply {}"), Some(Section::default()));
        assert_eq!(Section::parse("event {open {a=b"), None);
    }
}
