//! The demo's lines in colour, for terminals.

const BOLD: &str = "\x1b[1m";
const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const FAINT: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

/// What stands out, and how. The first that fits a place wins.
const MARKS: [(&str, &str); 12] = [
    ("NOT WELL AGAIN", RED),
    ("NOT everything held", RED),
    ("HEALTHY", GREEN),
    (" 0 errors", GREEN),
    ("0 client errors", GREEN),
    ("0 wrong reads", GREEN),
    ("digests equal the source's", GREEN),
    ("proved faulty", YELLOW),
    ("suspected", YELLOW),
    ("corrupted", RED),
    ("stopped on an alarm", RED),
    ("ATTACKS", RED),
];

/// `line` with the codes that a terminal understands; without them it is the same.
pub fn paint(line: &str) -> String {
    let (head, rest) = match line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((step, rest)) => (format!("{BOLD}[{step}]{PLAIN}"), rest),
        None => (String::new(), line),
    };
    let mut text = head;
    let mut rest = rest;
    while !rest.is_empty() {
        let found = MARKS.iter().find(|(mark, _)| rest.starts_with(mark));
        if let Some((mark, colour)) = found {
            text.push_str(&format!("{colour}{mark}{PLAIN}"));
            rest = &rest[mark.len()..];
        } else if let Some(after) = rest.strip_prefix(" · ") {
            text.push_str(&format!("{FAINT} · {PLAIN}"));
            rest = after;
        } else {
            let next = rest.chars().next().map_or(rest.len(), char::len_utf8);
            text.push_str(&rest[..next]);
            rest = &rest[next..];
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without_codes(text: &str) -> String {
        let mut parts = text.split('\x1b');
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |all, part| all + part.split_once('m').map_or("", |(_, rest)| rest))
    }

    #[test]
    fn only_colours_are_added() {
        for line in [
            "[5/6] ATTACKS   one at a time · r2, backup",
            "      verdict   14 attacks · 0 client errors · HEALTHY",
            "plain, with ünïcode…",
            "",
        ] {
            assert_eq!(without_codes(&paint(line)), line);
        }
        assert!(paint("[5/6] ATTACKS").starts_with("\x1b[1m[5/6]\x1b[0m \x1b[31mATTACKS"));
        assert_eq!(paint("plain"), "plain");
    }
}
