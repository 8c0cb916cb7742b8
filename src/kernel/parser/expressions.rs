//! Expressions, by precedence.

use crate::kernel::diagnostics::{Code, Diagnostic, Step};
use crate::kernel::span::Span;
use crate::kernel::syntax::{Argument, Expression, ExpressionKind, Name, Unary};
use crate::kernel::token::Kind;

use super::{MAX_EXPRESSION, Parser};

/// The precedence of `.not.`; comparisons and more bind tighter.
const NOT: usize = 4;
/// The precedence of `+` and `-`, with one operand or two.
const ADD: usize = 7;
const MULTIPLY: usize = 8;
const POWER: usize = 9;

fn precedence(kind: Kind) -> Option<usize> {
    Some(match kind {
        Kind::Equivalent | Kind::NotEquivalent => 1,
        Kind::Or => 2,
        Kind::And => 3,
        Kind::Equal | Kind::NotEqual | Kind::Less | Kind::LessEqual | Kind::Greater | Kind::GreaterEqual => 5,
        Kind::Concat => 6,
        Kind::Plus | Kind::Minus => ADD,
        Kind::Star | Kind::Slash => MULTIPLY,
        Kind::Power => POWER,
        _ => return None,
    })
}

impl<'a> Parser<'a, '_, '_> {
    /// An expression.
    pub(super) fn expression(&mut self) -> Step<Expression<'a>> {
        self.binary(0)
    }

    /// A node, unless it is too deep.
    fn node(&mut self, kind: ExpressionKind<'a>, span: Span, below: usize) -> Step<Expression<'a>> {
        if below >= MAX_EXPRESSION {
            return self.too_deep(span);
        }
        Ok(Expression { kind, span, depth: below + 1 })
    }

    fn too_deep<T>(&mut self, span: Span) -> Step<T> {
        let message = format!("an expression has more than {MAX_EXPRESSION} levels");
        let diagnostic = Diagnostic::new(Code::TooDeep, span, message);
        self.sink.fail(diagnostic.help("assign parts of it to local variables"))
    }

    fn binary(&mut self, least: usize) -> Step<Expression<'a>> {
        if self.nesting >= MAX_EXPRESSION {
            let span = self.token().span;
            return self.too_deep(span);
        }
        self.nesting += 1;
        let result = self.operators(least);
        self.nesting -= 1;
        result
    }

    fn operators(&mut self, least: usize) -> Step<Expression<'a>> {
        let mut left = self.unary(least)?;
        let mut compared: Option<Span> = None;
        while let Some(level) = precedence(self.kind()).filter(|level| *level >= least) {
            let operator = self.next();
            if operator.kind == Kind::Concat {
                return self.error(
                    Code::CharacterType,
                    operator.span,
                    "`//` joins characters, which the language lacks",
                );
            }
            if level == 5 {
                if let Some(first) = compared {
                    let message = "comparisons cannot be chained";
                    let diagnostic = Diagnostic::new(Code::Expected, operator.span, message);
                    let diagnostic = diagnostic.second(first, "the first comparison");
                    return self.sink.fail(diagnostic.help("join two comparisons with `.and.`"));
                }
                compared = Some(operator.span);
            }
            // A power associates to the right.
            let right = self.binary(if level == POWER { POWER } else { level + 1 })?;
            let (span, depth) = (left.span.to(right.span), left.depth.max(right.depth));
            let kind = ExpressionKind::Binary(operator.kind, operator.span, Box::new(left), Box::new(right));
            left = self.node(kind, span, depth)?;
        }
        Ok(left)
    }

    fn unary(&mut self, least: usize) -> Step<Expression<'a>> {
        let token = self.token();
        let (operator, level) = match token.kind {
            Kind::Not => (Unary::Not, NOT),
            Kind::Plus => (Unary::Plus, ADD),
            Kind::Minus => (Unary::Minus, ADD),
            _ => return self.primary(),
        };
        if level < least {
            let message = format!("`{}` directly follows another operator", token.text);
            let diagnostic = Diagnostic::new(Code::ConsecutiveOperators, token.span, message);
            return self.sink.fail(diagnostic.help("put the operand in parentheses"));
        }
        self.next();
        let operand = self.binary(if operator == Unary::Not { NOT } else { MULTIPLY })?;
        let (span, depth) = (token.span.to(operand.span), operand.depth);
        self.node(ExpressionKind::Unary(operator, Box::new(operand)), span, depth)
    }

    fn primary(&mut self) -> Step<Expression<'a>> {
        let token = self.token();
        let leaf = |kind| Ok(Expression { kind, span: token.span, depth: 1 });
        match token.kind {
            Kind::Integer | Kind::Real | Kind::Boz | Kind::True | Kind::False => {
                self.next();
                leaf(match token.kind {
                    Kind::Integer => ExpressionKind::Integer(token.text),
                    Kind::Real => ExpressionKind::Real(token.text),
                    Kind::Boz => ExpressionKind::Boz(token.text),
                    kind => ExpressionKind::Logical(kind == Kind::True),
                })
            }
            Kind::Name => self.designator(),
            Kind::LeftParen if self.ahead(1).kind == Kind::Slash => self.error(
                Code::ArrayConstructor,
                token.span,
                "array constructors are not part of the language",
            ),
            Kind::LeftParen => {
                self.next();
                let inner = self.expression()?;
                if self.kind() == Kind::Comma {
                    return self.error(
                        Code::ComplexType,
                        token.span,
                        "complex numbers are not part of the language",
                    );
                }
                let close = self.expect(Kind::RightParen, "`)`")?;
                let (span, depth) = (token.span.to(close.span), inner.depth);
                self.node(inner.kind, span, depth)
            }
            Kind::LeftBracket => self.error(
                Code::ArrayConstructor,
                token.span,
                "array constructors are not part of the language",
            ),
            Kind::Text => {
                self.error(Code::CharacterType, token.span, "characters are not part of the language")
            }
            _ => self.expected("an expression"),
        }
    }

    /// A name, perhaps with arguments or subscripts.
    pub(super) fn designator(&mut self) -> Step<Expression<'a>> {
        let name = self.expect_name("a name")?;
        let result = match self.kind() {
            Kind::LeftParen => {
                let arguments = self.arguments()?;
                let depth = arguments.iter().map(|it| it.value.depth).max().unwrap_or(0);
                let span = name.span.to(self.tokens[self.at - 1].span);
                self.node(ExpressionKind::Call(name, arguments), span, depth)?
            }
            Kind::LeftBracket => {
                self.next();
                let subscripts = self.list(Self::expression)?;
                let close = self.expect(Kind::RightBracket, "`]`")?;
                let depth = subscripts.iter().map(|it| it.depth).max().unwrap_or(0);
                let span = name.span.to(close.span);
                self.node(ExpressionKind::Bracket(name, subscripts), span, depth)?
            }
            _ => Expression { kind: ExpressionKind::Name(name), span: name.span, depth: 1 },
        };
        let after = self.token();
        match after.kind {
            Kind::Percent => {
                self.error(Code::DerivedType, after.span, "derived types are not part of the language")
            }
            Kind::LeftParen | Kind::LeftBracket => self.expected("an operator"),
            _ => Ok(result),
        }
    }

    /// Actual arguments or subscripts in parentheses.
    pub(super) fn arguments(&mut self) -> Step<Vec<Argument<'a>>> {
        self.expect(Kind::LeftParen, "`(`")?;
        if self.eat(Kind::RightParen).is_some() {
            return Ok(Vec::new());
        }
        let all = self.list(Self::argument)?;
        self.expect(Kind::RightParen, "`)` or `,`")?;
        Ok(all)
    }

    fn argument(&mut self) -> Step<Argument<'a>> {
        let keyword = (self.kind() == Kind::Name && self.ahead(1).kind == Kind::Assign).then(|| {
            let name = self.next();
            self.next();
            Name { text: name.text, span: name.span }
        });
        if self.kind() != Kind::Colon {
            let value = self.expression()?;
            if self.kind() != Kind::Colon {
                return Ok(Argument { keyword, value });
            }
        }
        let span = self.token().span;
        let message = "array sections are not part of the language";
        self.sink
            .fail(Diagnostic::new(Code::ArrayOperation, span, message).help("write a loop over elements"))
    }
}
