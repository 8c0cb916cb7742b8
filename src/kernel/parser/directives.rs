//! `!@kernel`, `!@epilogue`, `!@shared` and `!@reduce`.

use crate::kernel::diagnostics::{Code, Diagnostic, Step, suggestion};
use crate::kernel::span::Span;
use crate::kernel::syntax::{Annotation, Attribute, AttributeValue, Declaration, Name, ReductionDirective};
use crate::kernel::token::Kind;

use super::Parser;

const DIRECTIVES: [&str; 4] = ["kernel", "epilogue", "shared", "reduce"];

impl<'a> Parser<'a, '_, '_> {
    /// A directive. `declaration` is the one before it, if it is in a procedure.
    pub(super) fn directive(&mut self, declaration: Option<&mut Declaration<'a>>) -> Step<()> {
        let token = self.next();
        let word = &token.text[2..];
        match DIRECTIVES.iter().find(|it| it.eq_ignore_ascii_case(word)) {
            Some(&"shared") => {
                match declaration {
                    Some(declaration) => declaration.shared = Some(token.span),
                    None => {
                        let message = "`!@shared` does not follow the declaration of a local array";
                        self.error(Code::InvalidShared, token.span, message)?;
                    }
                }
                self.expect_end()
            }
            Some(&"reduce") => {
                let reduction = self.reduction(token.span)?;
                let mut all = std::mem::take(&mut self.reductions);
                self.push(&mut all, reduction)?;
                self.reductions = all;
                self.expect_end()
            }
            Some(name) => {
                if let Some(before) = self.annotation.as_ref().map(|it| it.span) {
                    let message = "an annotation follows another one";
                    let diagnostic = Diagnostic::new(Code::StrayAnnotation, token.span, message);
                    self.sink.add(diagnostic.second(before, "the first"));
                }
                let is_epilogue = *name == "epilogue";
                // An annotation with a wrong attribute still belongs to its procedure.
                self.annotation = Some(Annotation { is_epilogue, span: token.span, attributes: Vec::new() });
                let attributes = self.attributes()?;
                self.annotation = Some(Annotation { is_epilogue, span: token.span, attributes });
                self.expect_end()
            }
            None => {
                let message = format!("`{}` is not a directive", token.text);
                let diagnostic = Diagnostic::new(Code::UnknownDirective, token.span, message);
                let near = suggestion(word, DIRECTIVES.into_iter());
                let help = near.map_or("a comment begins with `!` and a blank".to_owned(), |near| {
                    format!("did you mean `!@{near}`?")
                });
                self.sink.fail(diagnostic.help(help))
            }
        }
    }

    fn attributes(&mut self) -> Step<Vec<Attribute<'a>>> {
        let in_parentheses = self.eat(Kind::LeftParen).is_some();
        let mut all = Vec::new();
        while !matches!(self.kind(), Kind::End | Kind::EndOfFile | Kind::RightParen) {
            let attribute = self.attribute()?;
            self.push(&mut all, attribute)?;
            if self.eat(Kind::Comma).is_none() && in_parentheses {
                break;
            }
        }
        if in_parentheses {
            self.expect(Kind::RightParen, "`)` or `,`")?;
        }
        Ok(all)
    }

    fn attribute(&mut self) -> Step<Attribute<'a>> {
        let name = self.expect_name("an attribute")?;
        self.expect(Kind::Assign, "`=`")?;
        let mut values = Vec::new();
        if self.eat(Kind::LeftBracket).is_some() {
            values = self.list(Self::attribute_value)?;
            self.expect(Kind::RightBracket, "`]` or `,`")?;
        } else {
            let value = self.attribute_value()?;
            self.push(&mut values, value)?;
        }
        let span = name.span.to(self.tokens[self.at - 1].span);
        Ok(Attribute { name, values, span })
    }

    fn attribute_value(&mut self) -> Step<AttributeValue<'a>> {
        let minus = self.eat(Kind::Minus);
        match self.kind() {
            Kind::Integer => {
                let token = self.next();
                let value = token.text.parse::<i64>().unwrap_or(i64::MAX);
                Ok(AttributeValue::Integer(if minus.is_some() { -value } else { value }))
            }
            Kind::Name if minus.is_none() => {
                let token = self.next();
                Ok(AttributeValue::Word(Name { text: token.text, span: token.span }))
            }
            _ => self.expected("a number or a word"),
        }
    }

    fn reduction(&mut self, start: Span) -> Step<ReductionDirective<'a>> {
        self.expect(Kind::LeftParen, "`(`")?;
        let token = self.token();
        if !matches!(token.kind, Kind::Plus | Kind::Star | Kind::Name) {
            return self.expected("`+`, `*`, `min`, `max`, `iand` or `ior`");
        }
        self.next();
        self.expect(Kind::Colon, "`:`")?;
        let names = self.list(|parser| parser.expect_name("the name of a dummy"))?;
        let close = self.expect(Kind::RightParen, "`)` or `,`")?;
        let operator = Name { text: token.text, span: token.span };
        Ok(ReductionDirective { operator, names, span: start.to(close.span) })
    }
}
