//! `use`, `implicit` and declarations of types.

use crate::kernel::diagnostics::{Code, Diagnostic, Step};
use crate::kernel::syntax::{
    BaseType, Bounds, Declaration, Entity, Expression, ExpressionKind, Name, TypeSpec, Upper, Use,
};
use crate::kernel::token::Kind;
use crate::kernel::tree::Intent;

use super::Parser;

/// Attributes and types of Fortran that the language lacks, with their code and message.
const UNSUPPORTED: [(&str, Code); 13] = [
    ("allocatable", Code::Allocation),
    ("pointer", Code::UnsupportedAttribute),
    ("target", Code::UnsupportedAttribute),
    ("optional", Code::UnsupportedAttribute),
    ("save", Code::UnsupportedAttribute),
    ("volatile", Code::UnsupportedAttribute),
    ("asynchronous", Code::UnsupportedAttribute),
    ("external", Code::UnsupportedAttribute),
    ("intrinsic", Code::UnsupportedAttribute),
    ("protected", Code::UnsupportedAttribute),
    ("codimension", Code::UnsupportedAttribute),
    ("bind", Code::UnsupportedAttribute),
    ("rank", Code::UnsupportedAttribute),
];

impl<'a> Parser<'a, '_, '_> {
    /// Whether the statement declares variables.
    pub(super) fn is_declaration(&self) -> bool {
        let token = self.token();
        let words =
            ["integer", "real", "logical", "character", "complex", "type", "class", "doubleprecision"];
        let double = token.is("double") && self.ahead(1).is("precision");
        (double || words.iter().any(|word| token.is(word))) && !self.is_assignment()
    }

    /// `use module, only: name, local => name`.
    pub(super) fn use_statement(&mut self) -> Step<Use<'a>> {
        self.next();
        if self.eat(Kind::Comma).is_some() {
            self.expect_name("`intrinsic`")?;
        }
        self.eat(Kind::DoubleColon);
        let module = self.expect_name("the name of a module")?;
        let mut names = Vec::new();
        if self.eat(Kind::Comma).is_some() {
            let only = self.token().is("only") && self.ahead(1).kind == Kind::Colon;
            if only {
                self.next();
                self.next();
            }
            if !matches!(self.kind(), Kind::End | Kind::EndOfFile) {
                names = self.list(|parser| {
                    let local = parser.expect_name("a name")?;
                    let name = match parser.eat(Kind::Arrow) {
                        Some(_) => parser.expect_name("a name")?,
                        None => local,
                    };
                    Ok((local, name))
                })?;
            }
        }
        self.expect_end()?;
        Ok(Use { module, names })
    }

    /// `implicit none`.
    pub(super) fn implicit(&mut self) -> Step<()> {
        let start = self.next().span;
        if self.eat_word("none").is_none() {
            let diagnostic =
                Diagnostic::new(Code::ImplicitStatement, start, "the language has no implicit typing");
            return self.sink.fail(diagnostic.help("write `implicit none`"));
        }
        if self.kind() == Kind::LeftParen {
            self.arguments()?;
        }
        self.expect_end()
    }

    /// The type at the beginning of a declaration or function.
    pub(super) fn type_spec(&mut self) -> Step<TypeSpec<'a>> {
        let token = self.next();
        let base = if token.is("integer") {
            BaseType::Integer
        } else if token.is("real") {
            BaseType::Real
        } else if token.is("logical") {
            BaseType::Logical
        } else if token.is("doubleprecision") {
            BaseType::DoublePrecision
        } else if token.is("double") {
            self.next();
            BaseType::DoublePrecision
        } else if token.is("character") {
            return self.error(Code::CharacterType, token.span, "characters are not part of the language");
        } else if token.is("complex") {
            return self.error(Code::ComplexType, token.span, "complex numbers are not part of the language");
        } else {
            return self.error(Code::DerivedType, token.span, "derived types are not part of the language");
        };
        let mut spec = TypeSpec { base, kind: None, span: token.span };
        if let Some(star) = self.eat(Kind::Star) {
            // `real*8`: the number is one of bytes, as the kind is here.
            let bytes = self.expect(Kind::Integer, "a number of bytes")?;
            spec.span = token.span.to(bytes.span);
            let kind = ExpressionKind::Integer(bytes.text);
            spec.kind = Some(Expression { kind, span: star.span.to(bytes.span), depth: 1 });
        } else if self.kind() == Kind::LeftParen {
            self.next();
            if self.token().is("kind") && self.ahead(1).kind == Kind::Assign {
                self.next();
                self.next();
            }
            spec.kind = Some(self.expression()?);
            let close = self.expect(Kind::RightParen, "`)`")?;
            spec.span = token.span.to(close.span);
        }
        Ok(spec)
    }

    /// A declaration.
    pub(super) fn declaration(&mut self) -> Step<Declaration<'a>> {
        let ty = self.type_spec()?;
        let mut declaration = Declaration {
            ty,
            intent: None,
            value: None,
            parameter: None,
            dimension: None,
            shared: None,
            entities: Vec::new(),
        };
        let mut has_attributes = false;
        while self.eat(Kind::Comma).is_some() {
            has_attributes = true;
            self.declaration_attribute(&mut declaration)?;
        }
        if self.eat(Kind::DoubleColon).is_none() && has_attributes {
            return self.expected("`::`");
        }
        declaration.entities = self.list(Self::entity)?;
        self.expect_end()?;
        Ok(declaration)
    }

    fn declaration_attribute(&mut self, declaration: &mut Declaration<'a>) -> Step<()> {
        let name = self.expect_name("an attribute")?;
        let is = |word: &str| name.text.eq_ignore_ascii_case(word);
        if is("intent") {
            self.expect(Kind::LeftParen, "`(`")?;
            let word = self.expect_name("`in`, `out` or `inout`")?;
            let is = |it: &str| word.text.eq_ignore_ascii_case(it);
            let intent = if is("inout") || (is("in") && self.eat_word("out").is_some()) {
                Intent::InOut
            } else if is("in") {
                Intent::In
            } else if is("out") {
                Intent::Out
            } else {
                let message = format!("`{}` is not an intent; expected `in`, `out` or `inout`", word.text);
                return self.error(Code::Expected, word.span, message);
            };
            let close = self.expect(Kind::RightParen, "`)`")?;
            let span = name.span.to(close.span);
            if let Some((_, first)) = declaration.intent {
                let diagnostic = Diagnostic::new(Code::RepeatedAttribute, span, "the intent is given twice");
                return self.sink.fail(diagnostic.second(first, "the first"));
            }
            declaration.intent = Some((intent, span));
        } else if is("value") {
            declaration.value = Some(name.span);
        } else if is("parameter") {
            declaration.parameter = Some(name.span);
        } else if is("dimension") {
            declaration.dimension = Some(self.dimensions()?);
        } else if is("contiguous") {
            // Arrays of a kernel always are.
        } else if let Some((word, code)) = UNSUPPORTED.iter().find(|(word, _)| is(word)) {
            let message = format!("the attribute `{word}` is not part of the language");
            return self.error(*code, name.span, message);
        } else {
            let message = format!("`{}` is not an attribute", name.text);
            let known =
                ["intent", "value", "parameter", "dimension"].into_iter().chain(UNSUPPORTED.map(|it| it.0));
            let diagnostic = Diagnostic::new(Code::UnsupportedAttribute, name.span, message);
            return match crate::kernel::diagnostics::suggestion(name.text, known) {
                Some(near) => self.sink.fail(diagnostic.help(format!("did you mean `{near}`?"))),
                None => self.sink.fail(diagnostic),
            };
        }
        Ok(())
    }

    fn entity(&mut self) -> Step<Entity<'a>> {
        let token = self.expect(Kind::Name, "a name to declare")?;
        let name = Name { text: token.text, span: token.span };
        let dimension = if self.kind() == Kind::LeftParen { Some(self.dimensions()?) } else { None };
        let mut initial = None;
        if self.eat(Kind::Assign).is_some() {
            initial = Some(self.expression()?);
        } else if self.kind() == Kind::Star {
            let span = self.token().span;
            return self.error(Code::CharacterType, span, "characters are not part of the language");
        } else if self.kind() == Kind::Arrow {
            let span = self.token().span;
            return self.error(Code::UnsupportedAttribute, span, "pointers are not part of the language");
        }
        Ok(Entity { name, dimension, initial })
    }

    fn dimensions(&mut self) -> Step<Vec<Bounds<'a>>> {
        self.expect(Kind::LeftParen, "`(`")?;
        let all = self.list(Self::bounds)?;
        self.expect(Kind::RightParen, "`)` or `,`")?;
        Ok(all)
    }

    fn bounds(&mut self) -> Step<Bounds<'a>> {
        let span = self.token().span;
        if self.eat(Kind::Star).is_some() {
            return Ok(Bounds { lower: None, upper: Upper::Assumed, span });
        }
        if self.eat(Kind::Colon).is_some() {
            return Ok(Bounds { lower: None, upper: Upper::Shape, span });
        }
        let first = self.expression()?;
        let span = span.to(first.span);
        if self.eat(Kind::Colon).is_none() {
            return Ok(Bounds { lower: None, upper: Upper::Expression(first), span });
        }
        let lower = Some(first);
        if self.eat(Kind::Star).is_some() {
            return Ok(Bounds { lower, upper: Upper::Assumed, span });
        }
        if matches!(self.kind(), Kind::Comma | Kind::RightParen) {
            return Ok(Bounds { lower, upper: Upper::Shape, span });
        }
        let upper = self.expression()?;
        let span = span.to(upper.span);
        Ok(Bounds { lower, upper: Upper::Expression(upper), span })
    }
}
