//! SQL without its literals, for records: the shape of a question stays, the values asked for do not.
//!
//! Strings, numbers and parameters become `?`, comments and line breaks a space. A simple lexer, not a parser: what it does
//! not understand it treats as a literal to the end. Quoted identifiers stay.

/// Longest normalised text in bytes; the rest is cut and marked with `...`.
pub const NORMALISED_BYTES_MAX: usize = 16 * 1024;

/// Longest prefix of a string literal: `U&`.
const LITERAL_PREFIX_BYTES_MAX: usize = 2;

/// Replaces the literals of a statement.
pub fn normalise(sql: &str) -> String {
    let mut lexer = Lexer { rest: sql, out: String::new() };
    while !lexer.rest.is_empty() && lexer.out.len() < NORMALISED_BYTES_MAX {
        lexer.step();
    }
    let mut out = lexer.out.trim().to_owned();
    if !lexer.rest.trim().is_empty() || out.len() > NORMALISED_BYTES_MAX {
        let cut = out.floor_char_boundary(NORMALISED_BYTES_MAX);
        out.truncate(cut);
        out.push_str("...");
    }
    out
}

struct Lexer<'a> {
    rest: &'a str,
    out: String,
}

impl<'a> Lexer<'a> {
    fn step(&mut self) {
        let rest = self.rest;
        let Some(first) = rest.chars().next() else { return };
        if first.is_whitespace() {
            self.blank(first.len_utf8());
        } else if rest.starts_with("--") {
            self.blank(rest.find('\n').unwrap_or(rest.len()));
        } else if rest.starts_with("/*") {
            self.blank(block_comment(rest));
        } else if let Some(length) = string(rest) {
            self.literal(length);
        } else if first == '"' {
            self.keep(quoted(rest, '"', 1, false));
        } else if first.is_ascii_digit() || (first == '.' && starts_digit(rest, 1)) {
            self.literal(number(rest));
        } else if first == '$' {
            self.literal(dollar(rest));
        } else if is_word(first) {
            self.keep(rest.find(|c| !is_word(c)).unwrap_or(rest.len()));
        } else {
            self.keep(first.len_utf8());
        }
    }

    fn blank(&mut self, length: usize) {
        self.advance(length);
        if !self.out.ends_with(' ') {
            self.out.push(' ');
        }
    }

    fn literal(&mut self, length: usize) {
        self.advance(length);
        self.out.push('?');
    }

    fn keep(&mut self, length: usize) {
        let kept = self.advance(length);
        self.out.push_str(kept);
    }

    /// Takes so many bytes off the front. Every length comes from a search in `rest`, so it lies on a boundary; if it
    /// ever did not, the rest is dropped rather than shown.
    fn advance(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at_checked(length).unwrap_or(("", ""));
        self.rest = rest;
        taken
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn starts_digit(text: &str, at: usize) -> bool {
    text.as_bytes().get(at).is_some_and(u8::is_ascii_digit)
}

/// Length of a string literal at the front, with its prefix (`E'..'`, `X'..'`, `U&'..'`), or nothing.
fn string(rest: &str) -> Option<usize> {
    let quote = rest.bytes().take(LITERAL_PREFIX_BYTES_MAX + 1).position(|byte| byte == b'\'')?;
    let prefix = rest.get(..quote)?.to_ascii_uppercase();
    match prefix.as_str() {
        "E" => Some(quoted(rest, '\'', quote + 1, true)),
        "" | "B" | "N" | "X" | "U&" => Some(quoted(rest, '\'', quote + 1, false)),
        _ => None,
    }
}

/// Length up to and with the closing quote; a doubled quote does not close, nor an escaped one where escapes count.
/// An open one reaches to the end.
fn quoted(rest: &str, quote: char, start: usize, escapes: bool) -> usize {
    let bytes = rest.as_bytes();
    let mut at = start;
    while let Some(byte) = bytes.get(at) {
        if escapes && *byte == b'\\' {
            at += 2;
        } else if *byte == quote as u8 {
            if bytes.get(at + 1) != Some(byte) {
                return at + 1;
            }
            at += 2;
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// Length of a number, exponent, hex digits and unit letters stuck to it included.
fn number(rest: &str) -> usize {
    let mut previous = ' ';
    for (at, c) in rest.char_indices() {
        let signed_exponent = (c == '+' || c == '-') && matches!(previous, 'e' | 'E');
        if !(is_word(c) || c == '.' || signed_exponent) {
            return at;
        }
        previous = c;
    }
    rest.len()
}

/// Length of a parameter (`$1`) or of a dollar-quoted string (`$tag$..$tag$`).
fn dollar(rest: &str) -> usize {
    let Some(after) = rest.get(1..) else { return rest.len() };
    let tag_length = after.find(|c| !is_word(c)).unwrap_or(after.len());
    if !after.get(tag_length..).is_some_and(|tail| tail.starts_with('$')) {
        return 1 + tag_length;
    }
    let opening = tag_length + 2;
    let (Some(tag), Some(body)) = (rest.get(..opening), rest.get(opening..)) else { return rest.len() };
    match body.find(tag) {
        Some(end) => opening + end + opening,
        None => rest.len(),
    }
}

/// Length of a block comment; they nest. An open one reaches to the end.
fn block_comment(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let (mut depth, mut at) = (0_u32, 0);
    while at < bytes.len() {
        match bytes.get(at..at + 2) {
            Some(b"/*") => {
                depth += 1;
                at += 2;
            }
            Some(b"*/") => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sql: &str, expected: &str) {
        assert_eq!(normalise(sql), expected, "{sql}");
    }

    /// Every literal goes, in every spelling; names with digits stay.
    #[test]
    fn literals_go() {
        check(
            "SELECT  avg(value)\n FROM readings_1m WHERE x>=1.5e-3",
            "SELECT avg(value) FROM readings_1m WHERE x>=?",
        );
        check("a='it''s' AND b=E'\\'x' AND c=X'00'", "a=? AND b=? AND c=?");
        check("note = 'SECRET", "note = ?");
        check("$1 $$HIV$$ $t$a $$ b$t$ z", "? ? ? z");
        check("1 -- HIV\n/* a /* b */ c */ + .5", "? + ?");
        check("\"a\"\"1\" 0xFF 2026-01-01", "\"a\"\"1\" ? ?-?-?");
        check("u&'x' name'v' \u{e9}t\u{e9}", "? name? \u{e9}t\u{e9}");
    }

    /// Long and hostile text is cut at the limit and never hangs.
    #[test]
    fn bounded() {
        let long = normalise(&"a ".repeat(100_000));
        assert!(long.len() <= NORMALISED_BYTES_MAX + 3 && long.ends_with("..."));
        for hostile in ["'", "$", "$$", "\"", "/*", "--", "E'\\", ".", "\u{0}\u{1F600}'"] {
            normalise(hostile);
        }
    }
}
