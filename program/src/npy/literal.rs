//! Parses the Python literals that appear in headers of `.npy` files.

use std::fmt;

/// The deepest nesting of brackets. More is refused, so that no input exhausts the stack.
const MAX_DEPTH: usize = 32;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    Text(String),
    Bytes,
    Number(i128),
    Truth(bool),
    None,
    Tuple(Vec<Literal>),
    List(Vec<Literal>),
    Dict(Vec<(Literal, Literal)>),
}

/// Parses a text that is one literal and nothing else. With `longs`, numbers may end in L, as in Python 2.
///
/// # Errors
/// Says what is wrong, and at which character.
pub fn parse(text: &str, longs: bool) -> Result<Literal, String> {
    let mut parser = Parser { rest: text, longs, depth: 0 };
    let value = parser.value().and_then(|value| {
        parser.blanks();
        if parser.rest.is_empty() { Ok(value) } else { Err("nothing more") }
    });
    value.map_err(|expected| {
        format!("expected {expected} at character {}", text[..text.len() - parser.rest.len()].chars().count())
    })
}

/// The rest of the text. Errors name what was expected at its beginning.
struct Parser<'a> {
    rest: &'a str,
    longs: bool,
    depth: usize,
}

type Read<T> = Result<T, &'static str>;

impl Parser<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.rest = &self.rest[next.len_utf8()..];
        Some(next)
    }

    fn take(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Takes the characters from the front for which `belongs` is true.
    fn run(&mut self, belongs: impl Fn(char) -> bool) -> &str {
        let end = self.rest.find(|next| !belongs(next)).unwrap_or(self.rest.len());
        let (run, rest) = self.rest.split_at(end);
        self.rest = rest;
        run
    }

    /// Skips blanks, comments and continued lines.
    fn blanks(&mut self) {
        loop {
            self.run(|next| matches!(next, ' ' | '\t' | '\n' | '\r' | '\x0c'));
            if self.take("#") {
                self.run(|next| next != '\n');
            } else if !self.take("\\\n") && !self.take("\\\r\n") {
                return;
            }
        }
    }

    fn value(&mut self) -> Read<Literal> {
        self.blanks();
        if let Some((raw, bytes, length)) = self.opens_text() {
            self.rest = &self.rest[length..];
            return self.texts(raw, bytes);
        }
        match self.peek().ok_or("a value")? {
            '(' | '[' | '{' => self.bracket(),
            '+' | '-' | '0'..='9' => self.number(),
            _ => {
                let before = self.rest;
                match self.run(|next| next.is_alphanumeric() || next == '_') {
                    "True" => Ok(Literal::Truth(true)),
                    "False" => Ok(Literal::Truth(false)),
                    "None" => Ok(Literal::None),
                    _ => {
                        self.rest = before;
                        Err("a value")
                    }
                }
            }
        }
    }

    fn bracket(&mut self) -> Read<Literal> {
        if self.depth == MAX_DEPTH {
            return Err("fewer brackets within brackets");
        }
        self.depth += 1;
        let value = match self.next() {
            Some('(') => self.items(")").map(|(mut items, commas)| match items.len() {
                // Parentheses alone make no tuple.
                1 if commas == 0 => items.remove(0),
                _ => Literal::Tuple(items),
            }),
            Some('[') => self.items("]").map(|(items, _)| Literal::List(items)),
            _ => self.dict(),
        };
        self.depth -= 1;
        value
    }

    /// Values up to `end`, and the number of commas.
    fn items(&mut self, end: &str) -> Read<(Vec<Literal>, usize)> {
        let (mut items, mut commas) = (vec![], 0);
        loop {
            self.blanks();
            if self.take(end) {
                return Ok((items, commas));
            }
            if items.len() > commas {
                return Err("a comma or the end of the bracket");
            }
            items.push(self.value()?);
            self.blanks();
            commas += usize::from(self.take(","));
        }
    }

    fn dict(&mut self) -> Read<Literal> {
        let mut entries = vec![];
        loop {
            self.blanks();
            if self.take("}") {
                return Ok(Literal::Dict(entries));
            }
            let key = self.value()?;
            self.blanks();
            if !self.take(":") {
                return Err("a colon");
            }
            entries.push((key, self.value()?));
            self.blanks();
            if !self.take(",") {
                return if self.take("}") {
                    Ok(Literal::Dict(entries))
                } else {
                    Err("a comma or the end of the bracket")
                };
            }
        }
    }

    fn number(&mut self) -> Read<Literal> {
        let negative = self.take("-");
        if !negative {
            self.take("+");
        }
        self.blanks();
        let lower = |parser: &Self, prefix: &str| {
            parser.rest.get(..2).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        };
        let radix = [("0x", 16), ("0o", 8), ("0b", 2)].into_iter().find(|(prefix, _)| lower(self, prefix));
        if radix.is_some() {
            self.rest = &self.rest[2..];
        }
        let radix = radix.map_or(10, |(_, radix)| radix);
        let prefixed = radix != 10;
        let before = self.rest;
        let digits = self.run(|next| next.is_digit(radix) || next == '_').to_owned();
        // One underscore may stand between two digits, or between a prefix and a digit.
        let split = if prefixed { digits.strip_prefix('_').unwrap_or(&digits) } else { &digits };
        let sound = split.split('_').all(|group| !group.is_empty());
        let digits = digits.replace('_', "");
        let octal =
            !prefixed && digits.len() > 1 && digits.starts_with('0') && digits.bytes().any(|it| it != b'0');
        let number = i128::from_str_radix(&digits, radix).ok().filter(|_| sound && !octal);
        let Some(number) = number else {
            self.rest = before;
            return Err("a whole number of reasonable size");
        };
        if self.longs {
            let end = self.rest.trim_start_matches([' ', '\t']);
            self.rest = end.strip_prefix('L').unwrap_or(self.rest);
        }
        if self.peek().is_some_and(|next| next.is_alphanumeric() || matches!(next, '_' | '.')) {
            return Err("the end of a whole number");
        }
        Ok(Literal::Number(if negative { -number } else { number }))
    }

    /// Whether a text begins here: raw or not, bytes or not, and the number of characters before its quote.
    fn opens_text(&self) -> Option<(bool, bool, usize)> {
        let quote = self.rest.bytes().take(3).position(|byte| matches!(byte, b'\'' | b'"'))?;
        let prefix = self.rest[..quote].to_ascii_lowercase();
        let (raw, bytes) = match prefix.as_str() {
            "" | "u" => (false, false),
            "r" => (true, false),
            "b" => (false, true),
            "br" | "rb" => (true, true),
            _ => return None,
        };
        Some((raw, bytes, quote))
    }

    /// Adjacent texts are joined.
    fn texts(&mut self, raw: bool, bytes: bool) -> Read<Literal> {
        let mut whole = self.text(raw)?;
        loop {
            self.blanks();
            let Some((raw, more, length)) = self.opens_text() else { break };
            if more != bytes {
                return Err("text or bytes, not both");
            }
            self.rest = &self.rest[length..];
            whole.push_str(&self.text(raw)?);
        }
        Ok(if bytes { Literal::Bytes } else { Literal::Text(whole) })
    }

    /// A text, from its quote on.
    fn text(&mut self, raw: bool) -> Read<String> {
        let quote = self.next().ok_or("a quote")?;
        let tripled = [quote; 2].iter().collect::<String>();
        let triple = self.take(&tripled);
        let mut text = String::new();
        loop {
            match self.next().ok_or("the end of a text")? {
                next if next == quote && (!triple || self.take(&tripled)) => return Ok(text),
                '\n' if !triple => return Err("the end of a text"),
                '\\' if raw => {
                    text.push('\\');
                    text.push(self.next().ok_or("the end of a text")?);
                }
                '\\' => self.escape(&mut text)?,
                next => text.push(next),
            }
        }
    }

    /// The character that an escape stands for, after its backslash.
    fn escape(&mut self, text: &mut String) -> Read<()> {
        let code = |parser: &mut Self, radix, least: usize, most: usize| {
            let digits = parser.rest.chars().take(most).take_while(|it| it.is_digit(radix)).count();
            let value = u32::from_str_radix(&parser.rest[..digits], radix).ok().filter(|_| digits >= least);
            parser.rest = &parser.rest[digits..];
            value.and_then(char::from_u32).ok_or("a character's number")
        };
        let next = self.peek().ok_or("the end of a text")?;
        if next.is_digit(8) {
            text.push(code(self, 8, 1, 3)?);
            return Ok(());
        }
        self.next();
        let character = match next {
            '\n' => return Ok(()),
            '\\' | '\'' | '"' => next,
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'a' => '\x07',
            'b' => '\x08',
            'f' => '\x0c',
            'v' => '\x0b',
            'x' => code(self, 16, 2, 2)?,
            'u' => code(self, 16, 4, 4)?,
            'U' => code(self, 16, 8, 8)?,
            'N' => return Err("no character's name"),
            _ => {
                text.push('\\');
                next
            }
        };
        text.push(character);
        Ok(())
    }
}

/// As Python writes it.
impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let list = |f: &mut fmt::Formatter, items: &[Literal]| {
            items.iter().enumerate().try_for_each(|(index, item)| {
                let comma = if index > 0 { ", " } else { "" };
                write!(f, "{comma}{item}")
            })
        };
        match self {
            Literal::Text(text) => write!(f, "'{}'", text.escape_default()),
            Literal::Bytes => write!(f, "b'...'"),
            Literal::Number(number) => write!(f, "{number}"),
            Literal::Truth(truth) => f.write_str(if *truth { "True" } else { "False" }),
            Literal::None => f.write_str("None"),
            Literal::Tuple(items) => {
                f.write_str("(")?;
                list(f, items)?;
                f.write_str(if items.len() == 1 { ",)" } else { ")" })
            }
            Literal::List(items) => {
                f.write_str("[")?;
                list(f, items)?;
                f.write_str("]")
            }
            Literal::Dict(entries) => {
                f.write_str("{")?;
                for (index, (key, value)) in entries.iter().enumerate() {
                    write!(f, "{}{key}: {value}", if index > 0 { ", " } else { "" })?;
                }
                f.write_str("}")
            }
        }
    }
}

/// A shape as Python writes it.
pub fn shape_text(shape: &[usize]) -> String {
    let sides: Vec<String> = shape.iter().map(usize::to_string).collect();
    if sides.len() == 1 { format!("({},)", sides[0]) } else { format!("({})", sides.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Literal {
        Literal::Text(text.to_owned())
    }

    #[test]
    fn literals_as_python_reads_them() {
        use Literal::{Dict, List, Number, Truth, Tuple};
        for (source, expected) in [
            ("'a'", text("a")),
            ("\"it's\"", text("it's")),
            ("u'a' \n R\"\\b\" 'c'", text("a\\bc")),
            ("'''a\n'b'''", text("a\n'b")),
            ("''", text("")),
            ("'\\x3cf4\\101\\u00e9\\\\\\q'", text("<f4A\u{e9}\\\\q")),
            ("'a\\\nb'", text("ab")),
            ("b'a'", Literal::Bytes),
            ("(3)", Number(3)),
            ("(3,)", Tuple(vec![Number(3)])),
            ("( )", Tuple(vec![])),
            (" # a note\n (1_000, 0x1F,\\\n 0o17, 0B11, -4, + 5, 000)", {
                Tuple([1000, 31, 15, 3, -4, 5, 0].map(Number).to_vec())
            }),
            ("[True, False, None, ]", List(vec![Truth(true), Truth(false), Literal::None])),
            ("{'a': 1, 2: (3, 4)}  ", {
                Dict(vec![(text("a"), Number(1)), (Number(2), Tuple(vec![Number(3), Number(4)]))])
            }),
        ] {
            assert_eq!(parse(source, false), Ok(expected), "{source}");
        }
        assert_eq!(parse("(2L, 3 L)", true), Ok(Tuple(vec![Number(2), Number(3)])));
    }

    #[test]
    fn what_is_no_literal_is_refused() {
        for source in [
            "",
            "(",
            "(,)",
            "(1 2)",
            "(1,,2)",
            "[1",
            "{'a'}",
            "{'a' 1}",
            "{'a': 1",
            "'a",
            "'a\nb'",
            "'\\x4'",
            "'\\N{DASH}'",
            "f'a'",
            "maybe",
            "1 2",
            "02",
            "1__0",
            "1_",
            "_1",
            "0x",
            "1.0",
            "1e3",
            "2L",
            "- - 1",
            "--1",
            "1+2j",
            "(*a,)",
            "\0",
            "'a' b'b'",
            "99999999999999999999999999999999999999999",
        ] {
            assert!(parse(source, false).is_err(), "{source}");
        }
        assert_eq!(parse("(1, é)", false), Err("expected a value at character 4".to_owned()));
        assert!(parse(&"(".repeat(20_000), false).is_err());
        assert!(parse(&format!("{}1{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH)), false).is_ok());
        assert!(
            parse(&format!("{}1{}", "[".repeat(MAX_DEPTH + 1), "]".repeat(MAX_DEPTH + 1)), false).is_err()
        );
    }

    #[test]
    fn literals_are_written_as_python_writes_them() {
        for source in [
            "[('a', '<f4', (2,)), ('b', '|O')]",
            "{'names': ['a'], 'offsets': [0]}",
            "(-1, True, None)",
            "'it\\'s'",
        ] {
            assert_eq!(parse(source, false).unwrap().to_string(), source);
        }
    }
}
