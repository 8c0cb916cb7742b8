//! Text to tokens: free-form Fortran, where annotations are comments that begin with `!@`.
//!
//! One pass, with a look ahead of a few bytes: `1.eq.2` is a comparison, `1.e2` a number.

use crate::allocate;
use crate::error::Result;

use super::diagnostics::{Code, Diagnostic, Sink};
use super::source::Source;
use super::span::Span;
use super::token::{Kind, Token};

/// The most characters of a name.
pub(super) const MAX_NAME: usize = 63;

/// The most characters of a number.
const MAX_NUMBER: usize = 400;

/// The tokens of a file. The last are an `End` and an `EndOfFile`.
///
/// # Errors
/// The host is out of memory.
pub(super) fn tokens<'a>(source: &Source<'a>, sink: &mut Sink) -> Result<Vec<Token<'a>>> {
    let mut lexer = Lexer {
        text: source.text,
        bytes: source.text.as_bytes(),
        at: 0,
        line: 1,
        line_start: 0,
        tokens: Vec::new(),
        sink,
        in_directive: false,
    };
    lexer.run()?;
    Ok(lexer.tokens)
}

struct Lexer<'a, 's> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    line: u32,
    line_start: usize,
    tokens: Vec<Token<'a>>,
    sink: &'s mut Sink,
    /// Whether the rest of the line belongs to a directive, where `&` and `;` have no meaning.
    in_directive: bool,
}

fn is_name_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_'
}

fn is_name_part(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

impl<'a> Lexer<'a, '_> {
    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn span(&self, from: usize, to: usize) -> Span {
        let column = |at: usize| (at - self.line_start) as u32 + 1;
        Span { line: self.line, column: column(from), end: column(to) }
    }

    fn push(&mut self, kind: Kind, length: usize) -> Result<()> {
        let (from, to) = (self.at, self.at + length);
        self.at = to;
        let token = Token { kind, text: &self.text[from..to], span: self.span(from, to) };
        allocate::push(&mut self.tokens, token, "the tokens of a kernel")
    }

    fn end_statement(&mut self) -> Result<()> {
        self.in_directive = false;
        if self.tokens.last().is_none_or(|token| token.kind == Kind::End) {
            return Ok(());
        }
        self.push(Kind::End, 0)
    }

    fn newline(&mut self) {
        self.at += 1;
        self.line += 1;
        self.line_start = self.at;
    }

    fn error(&mut self, code: Code, from: usize, to: usize, message: impl Into<String>) {
        let span = self.span(from, to);
        self.sink.add(Diagnostic::new(code, span, message));
    }

    fn run(&mut self) -> Result<()> {
        while self.at < self.bytes.len() && !self.sink.is_full() {
            match self.peek(0) {
                b'\n' => {
                    self.end_statement()?;
                    self.newline();
                }
                b' ' | b'\t' | b'\r' => self.at += 1,
                b'!' => self.comment()?,
                b'&' if !self.in_directive => self.continuation()?,
                b';' if !self.in_directive => {
                    self.end_statement()?;
                    self.at += 1;
                }
                byte if is_name_start(byte) => self.name()?,
                byte if byte.is_ascii_digit() => self.number()?,
                b'.' if self.peek(1).is_ascii_digit() => self.number()?,
                b'.' if self.peek(1).is_ascii_alphabetic() => self.dotted()?,
                b'\'' | b'"' => self.literal()?,
                _ => self.symbol()?,
            }
        }
        self.end_statement()?;
        if self.tokens.is_empty() {
            self.push(Kind::End, 0)?;
        }
        self.push(Kind::EndOfFile, 0)
    }

    fn skip_line(&mut self) {
        let rest = &self.bytes[self.at..];
        self.at += rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    }

    /// A comment or a directive.
    fn comment(&mut self) -> Result<()> {
        if self.peek(1) != b'@' || !is_name_start(self.peek(2)) || self.in_directive {
            self.skip_line();
            return Ok(());
        }
        self.end_statement()?;
        let name = self.bytes[self.at + 2..].iter().take_while(|byte| is_name_part(**byte)).count();
        self.push(Kind::Directive, name + 2)?;
        self.in_directive = true;
        Ok(())
    }

    /// `&`, the rest of its line, and lines of comments, up to the next text.
    fn continuation(&mut self) -> Result<()> {
        let mark = self.at;
        let begin = self.span(mark, mark + 1);
        let split = mark > 0 && is_name_part(self.bytes[mark - 1]);
        self.at += 1;
        while matches!(self.peek(0), b' ' | b'\t' | b'\r') {
            self.at += 1;
        }
        if !matches!(self.peek(0), b'\n' | b'!' | 0) || (self.peek(0) == 0 && self.at < self.bytes.len()) {
            let message = "text follows the `&` of a continued line";
            self.sink.add(Diagnostic::new(Code::BrokenContinuation, begin, message));
            return Ok(());
        }
        loop {
            match self.peek(0) {
                b' ' | b'\t' | b'\r' => self.at += 1,
                b'\n' => self.newline(),
                b'!' => {
                    if self.peek(1) == b'@' && is_name_start(self.peek(2)) {
                        let message = "a directive stands within a continued statement";
                        self.error(Code::BrokenContinuation, self.at, self.at + 2, message);
                    }
                    self.skip_line();
                }
                b'&' => {
                    let at = self.at;
                    self.at += 1;
                    if split && is_name_part(self.peek(0)) {
                        let message = "a name or number is split between two lines";
                        let span = self.span(at, at + 1);
                        let diagnostic = Diagnostic::new(Code::BrokenContinuation, span, message);
                        self.sink.add(diagnostic.second(begin, "continued from here"));
                    }
                    return Ok(());
                }
                0 if self.at >= self.bytes.len() => {
                    let message = "the file ends within a continued statement";
                    self.sink.add(Diagnostic::new(Code::BrokenContinuation, begin, message));
                    return Ok(());
                }
                _ => return Ok(()),
            }
        }
    }

    fn name(&mut self) -> Result<()> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().take_while(|byte| is_name_part(**byte)).count();
        if length == 1 && matches!(rest[0] | 32, b'z' | b'b' | b'o') && matches!(self.peek(1), b'\'' | b'"') {
            return self.boz();
        }
        if length > MAX_NAME {
            let message = format!("a name has {length} characters; the limit is {MAX_NAME}");
            self.error(Code::NameTooLong, self.at, self.at + length, message);
            // The beginning stands for the name, so that messages stay short.
            self.push(Kind::Name, MAX_NAME)?;
            self.at += length - MAX_NAME;
            return Ok(());
        }
        self.push(Kind::Name, length)
    }

    /// `z'ff'`, `b"01"`, `o'17'`.
    fn boz(&mut self) -> Result<()> {
        let quote = self.peek(1);
        let rest = &self.bytes[self.at + 2..];
        let line = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(rest.len());
        match rest[..line].iter().position(|byte| *byte == quote) {
            Some(digits) => {
                let radix = match self.peek(0) | 32 {
                    b'z' => 16,
                    b'o' => 8,
                    _ => 2,
                };
                let valid = digits > 0 && rest[..digits].iter().all(|it| (*it as char).is_digit(radix));
                if !valid {
                    let message = format!("`{}` needs digits of base {radix}", self.peek(0) as char);
                    self.error(Code::MalformedNumber, self.at, self.at + digits + 3, message);
                }
                self.push(Kind::Boz, digits + 3)
            }
            None => self.unterminated(1, line),
        }
    }

    /// A character literal. The language has none, but they occur in statements that it rejects.
    fn literal(&mut self) -> Result<()> {
        let quote = self.peek(0);
        let rest = &self.bytes[self.at + 1..];
        let line = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(rest.len());
        match rest[..line].iter().position(|byte| *byte == quote) {
            Some(length) => self.push(Kind::Text, length + 2),
            None => self.unterminated(0, line),
        }
    }

    fn unterminated(&mut self, before: usize, line: usize) -> Result<()> {
        let to = self.at + before + 1 + line;
        self.error(
            Code::UnterminatedText,
            self.at + before,
            self.at + before + 1,
            "a character literal does not end on its line",
        );
        self.push(Kind::Text, to - self.at)
    }

    fn digits(&self, from: usize) -> usize {
        self.bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count()
    }

    /// An exponent at `at`: its length, or nothing.
    fn exponent(&self, at: usize) -> Option<usize> {
        let byte = |offset: usize| self.bytes.get(at + offset).copied().unwrap_or(0);
        if !matches!(byte(0) | 32, b'e' | b'd') {
            return None;
        }
        let sign = usize::from(matches!(byte(1), b'+' | b'-'));
        let digits = self.digits((at + 1 + sign).min(self.bytes.len()));
        (digits > 0).then_some(1 + sign + digits)
    }

    fn number(&mut self) -> Result<()> {
        let from = self.at;
        let mut to = from + self.digits(from);
        let mut kind = Kind::Integer;
        let byte = |at: usize| self.bytes.get(at).copied().unwrap_or(0);
        if byte(to) == b'.' {
            let letters = self.bytes[to + 1..].iter().take_while(|it| it.is_ascii_alphabetic()).count();
            // `1.eq.2`: the dot belongs to an operator.
            let is_operator = letters > 0 && byte(to + 1 + letters) == b'.';
            if !is_operator {
                kind = Kind::Real;
                to += 1;
                to += self.digits(to);
            }
        }
        if let Some(length) = self.exponent(to) {
            kind = Kind::Real;
            to += length;
        }
        if byte(to) == b'_' {
            to += self.bytes[to..].iter().take_while(|it| is_name_part(**it)).count();
        } else if is_name_part(byte(to)) {
            let rest = self.bytes[to..].iter().take_while(|it| is_name_part(**it)).count();
            self.error(Code::MalformedNumber, to, to + rest, "letters follow a number");
            self.push(kind, to - from)?;
            self.at += rest;
            return Ok(());
        }
        if to - from > MAX_NUMBER {
            let message = format!("a number has more than {MAX_NUMBER} characters");
            self.error(Code::MalformedNumber, from, to, message);
            // The beginning stands for the number, so that copies of it are short.
            self.push(kind, MAX_NUMBER)?;
            self.at = to;
            return Ok(());
        }
        self.push(kind, to - from)
    }

    /// `.and.`, `.eq.`, `.true.` and so on.
    fn dotted(&mut self) -> Result<()> {
        let rest = &self.bytes[self.at + 1..];
        let letters = rest.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
        if rest.get(letters) != Some(&b'.') || letters > MAX_NAME {
            self.error(Code::UnexpectedCharacter, self.at, self.at + 1, "unexpected `.`");
            self.at += 1;
            return Ok(());
        }
        let word = self.text[self.at + 1..self.at + 1 + letters].to_ascii_lowercase();
        let mut length = letters + 2;
        let kind = match word.as_str() {
            "eq" => Kind::Equal,
            "ne" => Kind::NotEqual,
            "lt" => Kind::Less,
            "le" => Kind::LessEqual,
            "gt" => Kind::Greater,
            "ge" => Kind::GreaterEqual,
            "and" => Kind::And,
            "or" => Kind::Or,
            "not" => Kind::Not,
            "eqv" => Kind::Equivalent,
            "neqv" => Kind::NotEquivalent,
            "true" | "false" => {
                if rest.get(letters + 1) == Some(&b'_') {
                    length += rest[letters + 1..].iter().take_while(|it| is_name_part(**it)).count();
                }
                if word == "true" { Kind::True } else { Kind::False }
            }
            _ => {
                let message = format!("`.{}.` is not an operator", crate::error::clipped(&word));
                let known = ["eq", "ne", "lt", "le", "gt", "ge", "and", "or", "not", "eqv", "neqv", "true"];
                let mut diagnostic =
                    Diagnostic::new(Code::UnknownOperator, self.span(self.at, self.at + length), message);
                if let Some(near) = super::diagnostics::suggestion(&word, known.into_iter()) {
                    diagnostic = diagnostic.help(format!("did you mean `.{near}.`?"));
                }
                self.sink.add(diagnostic);
                // Stands for any operator, so that the statement can be parsed.
                Kind::And
            }
        };
        self.push(kind, length)
    }

    fn symbol(&mut self) -> Result<()> {
        let (kind, length) = match (self.peek(0), self.peek(1)) {
            (b'*', b'*') => (Kind::Power, 2),
            (b'/', b'/') => (Kind::Concat, 2),
            (b'=', b'=') => (Kind::Equal, 2),
            (b'/', b'=') => (Kind::NotEqual, 2),
            (b'<', b'=') => (Kind::LessEqual, 2),
            (b'>', b'=') => (Kind::GreaterEqual, 2),
            (b'=', b'>') => (Kind::Arrow, 2),
            (b':', b':') => (Kind::DoubleColon, 2),
            (b'+', _) => (Kind::Plus, 1),
            (b'-', _) => (Kind::Minus, 1),
            (b'*', _) => (Kind::Star, 1),
            (b'/', _) => (Kind::Slash, 1),
            (b'=', _) => (Kind::Assign, 1),
            (b'<', _) => (Kind::Less, 1),
            (b'>', _) => (Kind::Greater, 1),
            (b'(', _) => (Kind::LeftParen, 1),
            (b')', _) => (Kind::RightParen, 1),
            (b'[', _) => (Kind::LeftBracket, 1),
            (b']', _) => (Kind::RightBracket, 1),
            (b',', _) => (Kind::Comma, 1),
            (b':', _) => (Kind::Colon, 1),
            (b'%', _) => (Kind::Percent, 1),
            _ => {
                let character = self.text[self.at..].chars().next().unwrap_or('?');
                let length = character.len_utf8();
                let message = match character.is_control() {
                    true => format!("unexpected character `{}`", character.escape_default()),
                    false => format!("unexpected character `{character}`"),
                };
                self.error(Code::UnexpectedCharacter, self.at, self.at + length, message);
                self.at += length;
                return Ok(());
            }
        };
        self.push(kind, length)
    }
}
