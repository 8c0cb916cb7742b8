//! The parser's position among the tokens.

use crate::allocate;
use crate::kernel::diagnostics::{Code, Diagnostic, Step};
use crate::kernel::span::Span;
use crate::kernel::syntax::Name;
use crate::kernel::token::{Kind, Token};

use super::{Parser, WHAT};

impl<'a> Parser<'a, '_, '_> {
    /// The token at the position, or one after it. The file ends with `EndOfFile` for ever.
    pub(super) fn ahead(&self, offset: usize) -> Token<'a> {
        let last = self.tokens.len() - 1;
        self.tokens[(self.at + offset).min(last)]
    }

    pub(super) fn token(&self) -> Token<'a> {
        self.ahead(0)
    }

    pub(super) fn kind(&self) -> Kind {
        self.token().kind
    }

    pub(super) fn next(&mut self) -> Token<'a> {
        let token = self.token();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    /// Takes the token if it has this kind.
    pub(super) fn eat(&mut self, kind: Kind) -> Option<Token<'a>> {
        (self.kind() == kind).then(|| self.next())
    }

    /// Takes the token if it is this word.
    pub(super) fn eat_word(&mut self, word: &str) -> Option<Token<'a>> {
        self.token().is(word).then(|| self.next())
    }

    /// Takes one or two words: `enddo` or `end do`.
    pub(super) fn eat_words(&mut self, first: &str, second: &str) -> bool {
        let token = self.token();
        if token.is(first) && self.ahead(1).is(second) {
            self.next();
            self.next();
            return true;
        }
        let joined = token.text.len() == first.len() + second.len()
            && token.text.is_char_boundary(first.len())
            && token.text[..first.len()].eq_ignore_ascii_case(first)
            && token.text[first.len()..].eq_ignore_ascii_case(second);
        if joined && token.kind == Kind::Name {
            self.next();
        }
        joined && token.kind == Kind::Name
    }

    /// The token at the position for messages, with the next one for `end if` and the like.
    pub(super) fn phrase(&self) -> String {
        let (token, next) = (self.token(), self.ahead(1));
        if next.kind == Kind::Name && (token.is("end") || token.is("else")) {
            return format!("`{} {}`", token.text, next.text);
        }
        token.describe()
    }

    /// An error about the token at the position.
    pub(super) fn expected<T>(&mut self, what: &str) -> Step<T> {
        let token = self.token();
        let message = format!("expected {what}, found {}", token.describe());
        self.sink.fail(Diagnostic::new(Code::Expected, token.span, message))
    }

    pub(super) fn expect(&mut self, kind: Kind, what: &str) -> Step<Token<'a>> {
        match self.eat(kind) {
            Some(token) => Ok(token),
            None => self.expected(what),
        }
    }

    pub(super) fn expect_name(&mut self, what: &str) -> Step<Name<'a>> {
        let token = self.expect(Kind::Name, what)?;
        Ok(Name { text: token.text, span: token.span })
    }

    /// The end of the statement.
    pub(super) fn expect_end(&mut self) -> Step<()> {
        if self.kind() == Kind::EndOfFile {
            return Ok(());
        }
        self.expect(Kind::End, "the end of the statement").map(|_| ())
    }

    /// Goes behind the end of the statement, whatever it holds.
    pub(super) fn skip_statement(&mut self) {
        while !matches!(self.kind(), Kind::End | Kind::EndOfFile) {
            self.next();
        }
        self.eat(Kind::End);
    }

    pub(super) fn error<T>(&mut self, code: Code, span: Span, message: impl Into<String>) -> Step<T> {
        self.sink.fail(Diagnostic::new(code, span, message))
    }

    /// Appends to a list of the syntax.
    pub(super) fn push<T>(&self, list: &mut Vec<T>, item: T) -> Step<()> {
        Ok(allocate::push(list, item, WHAT)?)
    }

    /// Items between commas. Each call of `item` reads one.
    pub(super) fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Step<T>) -> Step<Vec<T>> {
        let mut all = Vec::new();
        loop {
            let one = item(self)?;
            self.push(&mut all, one)?;
            if self.eat(Kind::Comma).is_none() {
                return Ok(all);
            }
        }
    }

    /// The offset after the group in parentheses or brackets that begins at `offset`, within the statement.
    pub(super) fn after_group(&self, mut offset: usize) -> Option<usize> {
        let mut depth = 0usize;
        loop {
            match self.ahead(offset).kind {
                Kind::LeftParen | Kind::LeftBracket => depth += 1,
                Kind::RightParen | Kind::RightBracket => {
                    depth = depth.checked_sub(1)?;
                    if depth == 0 {
                        return Some(offset + 1);
                    }
                }
                Kind::End | Kind::EndOfFile => return None,
                _ => {}
            }
            offset += 1;
        }
    }

    /// Whether the statement assigns: a name, perhaps a group or components, and `=`. Keywords are no reserved words.
    pub(super) fn is_assignment(&self) -> bool {
        if self.kind() != Kind::Name {
            return false;
        }
        let mut offset = 1;
        loop {
            match self.ahead(offset).kind {
                Kind::Assign => return true,
                Kind::LeftParen | Kind::LeftBracket => match self.after_group(offset) {
                    Some(after) => offset = after,
                    None => return false,
                },
                Kind::Percent if self.ahead(offset + 1).kind == Kind::Name => offset += 2,
                _ => return false,
            }
        }
    }
}
