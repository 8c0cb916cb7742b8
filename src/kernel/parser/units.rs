//! Modules and procedures.

use crate::error::Result;
use crate::kernel::diagnostics::{Code, Diagnostic, Step, reported};
use crate::kernel::span::Span;
use crate::kernel::syntax::{File, Function, Module, Name, Procedure};
use crate::kernel::token::Kind;

use super::Parser;
use super::statements::Closing;

/// Words before `subroutine` and `function`.
const PREFIXES: [&str; 6] = ["pure", "elemental", "impure", "recursive", "non_recursive", "module"];

impl<'a> Parser<'a, '_, '_> {
    /// The whole file.
    pub(super) fn file(&mut self, file: &mut File<'a>) -> Result<()> {
        let mut module = None;
        // Only the first of several misplaced statements is reported.
        let mut quiet = false;
        while self.kind() != Kind::EndOfFile && !self.sink.is_full() {
            if self.eat(Kind::End).is_some() {
                continue;
            }
            let before = self.at;
            let was_quiet = std::mem::replace(&mut quiet, false);
            let step = if self.kind() == Kind::Directive {
                self.directive(None)
            } else if self.starts_procedure() {
                self.procedure(file, module)
            } else if self.token().is("module") && self.ahead(1).kind == Kind::Name && !self.is_assignment() {
                self.module(file).map(|index| module = Some(index))
            } else if self.hosts > 0 && self.closing() == Some(Closing::Procedure) {
                self.hosts -= 1;
                self.skip_statement();
                Ok(())
            } else if self.closing() == Some(Closing::Contains) && module.is_some() {
                self.next();
                self.expect_end()
            } else if matches!(self.closing(), Some(Closing::Procedure | Closing::Module)) && module.is_some()
            {
                module = None;
                self.skip_statement();
                Ok(())
            } else {
                quiet = true;
                self.other_unit(was_quiet)
            };
            if reported(step)?.is_none() {
                self.skip_statement();
            }
            if self.at == before {
                self.next();
            }
        }
        if let Some(annotation) = self.annotation.take() {
            self.stray(annotation.span);
        }
        Ok(())
    }

    fn stray(&mut self, span: Span) {
        let message = "no subroutine or function follows the annotation";
        self.sink.add(Diagnostic::new(Code::StrayAnnotation, span, message));
    }

    /// What is no module and no procedure.
    fn other_unit(&mut self, quiet: bool) -> Step<()> {
        let token = self.token();
        let units = ["program", "submodule", "block", "interface", "blockdata"];
        if units.iter().any(|unit| token.is(unit)) {
            let message = format!("`{}` is not part of the language", token.text);
            let diagnostic = Diagnostic::new(Code::UnsupportedUnit, token.span, message);
            self.sink.add(diagnostic.help("a kernel file has modules, subroutines and functions"));
            self.skip_statement();
            while self.kind() != Kind::EndOfFile {
                let own = self.ahead(1).is(token.text);
                let ends = self.token().is("end") && (own || self.ahead(1).kind == Kind::End);
                let joined = self.token().text.len() == 3 + token.text.len()
                    && self.token().text.to_ascii_lowercase().starts_with("end")
                    && self.token().text.to_ascii_lowercase().ends_with(&token.text.to_ascii_lowercase());
                self.skip_statement();
                if ends || joined {
                    break;
                }
            }
            return Ok(());
        }
        if !quiet {
            let message = format!("{} stands outside a subroutine or function", token.describe());
            self.sink.add(Diagnostic::new(Code::Misplaced, token.span, message));
        }
        self.skip_statement();
        Ok(())
    }

    /// A module up to `contains` or its end. Its procedures follow.
    fn module(&mut self, file: &mut File<'a>) -> Step<usize> {
        self.next();
        let name = self.expect_name("the name of a module")?;
        self.expect_end()?;
        let mut module = Module { name, uses: Vec::new(), declarations: Vec::new() };
        loop {
            let step = if self.eat(Kind::End).is_some() {
                Ok(())
            } else if self.token().is("use") && !self.is_assignment() {
                self.use_statement().and_then(|it| self.push(&mut module.uses, it))
            } else if self.token().is("implicit") && !self.is_assignment() {
                self.implicit()
            } else if ["public", "private"].iter().any(|word| self.token().is(word)) {
                self.skip_statement();
                Ok(())
            } else if self.is_declaration() && !self.starts_procedure() {
                self.declaration().and_then(|it| self.push(&mut module.declarations, it))
            } else {
                break;
            };
            if reported(step)?.is_none() {
                self.skip_statement();
            }
        }
        self.push(&mut file.modules, module)?;
        Ok(file.modules.len() - 1)
    }

    /// Whether the statement begins a subroutine or function.
    pub(super) fn starts_procedure(&self) -> bool {
        let mut offset = 0;
        loop {
            let token = self.ahead(offset);
            let named = self.ahead(offset + 1).kind == Kind::Name;
            if token.is("subroutine") || token.is("function") {
                let after = self.ahead(offset + 2).kind;
                return named && matches!(after, Kind::LeftParen | Kind::End | Kind::EndOfFile | Kind::Name);
            }
            let types = ["integer", "real", "logical", "double", "precision", "doubleprecision"];
            if PREFIXES.iter().any(|word| token.is(word)) {
                offset += 1;
            } else if types.iter().any(|word| token.is(word)) {
                offset += 1;
                if self.ahead(offset).kind == Kind::Star {
                    offset += 2;
                } else if self.ahead(offset).kind == Kind::LeftParen {
                    match self.after_group(offset) {
                        Some(after) => offset = after,
                        None => return false,
                    }
                }
            } else {
                return false;
            }
        }
    }

    fn procedure(&mut self, file: &mut File<'a>, module: Option<usize>) -> Step<()> {
        let annotation = self.annotation.take();
        let before = std::mem::take(&mut self.reductions);
        let mut ty = None;
        let mut is_recursive = None;
        let is_function = loop {
            let token = self.token();
            if PREFIXES.iter().any(|word| token.is(word)) {
                if token.is("recursive") {
                    is_recursive = Some(token.span);
                }
                self.next();
            } else if token.is("subroutine") || token.is("function") {
                self.next();
                break token.is("function");
            } else {
                ty = Some(self.type_spec()?);
            }
        };
        let name = self.expect_name("the name of a procedure")?;
        let header = self.header(is_function, ty);
        let (dummies, function) = match header {
            Ok(header) => header,
            Err(stop) => {
                // The statements are still checked for their form, and later names are not misunderstood.
                reported::<()>(Err(stop))?;
                self.skip_statement();
                (Vec::new(), is_function.then_some(Function { ty: None, result: None }))
            }
        };
        let mut procedure = Procedure {
            annotation,
            module,
            name,
            dummies,
            function,
            is_recursive,
            uses: Vec::new(),
            declarations: Vec::new(),
            reductions: before,
            body: Vec::new(),
            is_incomplete: false,
        };
        self.specification(&mut procedure)?;
        procedure.body = self.block()?;
        while !self.sink.is_full() {
            // What closes no construct of this procedure.
            match self.closing() {
                Some(Closing::Procedure) => {
                    self.end_procedure(name, is_function)?;
                    break;
                }
                Some(Closing::Contains) => {
                    let span = self.token().span;
                    let message = "internal procedures are not part of the language";
                    let diagnostic = Diagnostic::new(Code::Misplaced, span, message);
                    self.sink.add(diagnostic.help("put the procedures beside each other in a module"));
                    self.skip_statement();
                    self.hosts += 1;
                    break;
                }
                Some(Closing::NextProcedure | Closing::Module | Closing::EndOfFile) | None => {
                    let span = self.token().span;
                    let message = format!("`{}` has no end", name.text);
                    self.sink
                        .add(Diagnostic::new(Code::Unclosed, span, message).second(name.span, "begins here"));
                    break;
                }
                Some(closing) => {
                    let token = self.token();
                    if closing != Closing::Unsupported {
                        let message = format!("{} closes nothing", self.phrase());
                        self.sink.add(Diagnostic::new(Code::Misplaced, token.span, message));
                    }
                    self.skip_statement();
                    let rest = self.block()?;
                    for statement in rest {
                        self.push(&mut procedure.body, statement)?;
                    }
                }
            }
        }
        let reductions = std::mem::take(&mut self.reductions);
        for reduction in reductions {
            self.push(&mut procedure.reductions, reduction)?;
        }
        self.push(&mut file.procedures, procedure)
    }

    fn header(
        &mut self,
        is_function: bool,
        ty: Option<crate::kernel::syntax::TypeSpec<'a>>,
    ) -> Step<(Vec<Name<'a>>, Option<Function<'a>>)> {
        let mut dummies = Vec::new();
        if self.eat(Kind::LeftParen).is_some() && self.eat(Kind::RightParen).is_none() {
            dummies = self.list(|parser| parser.expect_name("the name of a dummy"))?;
            self.expect(Kind::RightParen, "`)` or `,`")?;
        }
        let mut result = None;
        while self.kind() == Kind::Name {
            if is_function && self.eat_word("result").is_some() {
                self.expect(Kind::LeftParen, "`(`")?;
                result = Some(self.expect_name("the name of the result")?);
                self.expect(Kind::RightParen, "`)`")?;
            } else if self.eat_word("bind").is_some() {
                self.arguments_skipped()?;
            } else {
                return self.expected("the end of the statement");
            }
        }
        self.expect_end()?;
        Ok((dummies, is_function.then_some(Function { ty, result })))
    }

    /// `(c, name="...")` after `bind`, which means nothing here.
    fn arguments_skipped(&mut self) -> Step<()> {
        match self.after_group(0) {
            Some(after) if self.kind() == Kind::LeftParen => {
                for _ in 0..after {
                    self.next();
                }
                Ok(())
            }
            _ => self.expected("`(c)`"),
        }
    }

    /// Declarations and directives.
    fn specification(&mut self, procedure: &mut Procedure<'a>) -> Step<()> {
        loop {
            let step = if self.eat(Kind::End).is_some() {
                Ok(())
            } else if self.kind() == Kind::Directive {
                self.directive(procedure.declarations.last_mut())
            } else if self.token().is("use") && !self.is_assignment() {
                self.use_statement().and_then(|it| self.push(&mut procedure.uses, it))
            } else if self.token().is("implicit") && !self.is_assignment() {
                self.implicit()
            } else if self.token().is("import") && !self.is_assignment() {
                self.skip_statement();
                Ok(())
            } else if self.is_declaration() && !self.starts_procedure() {
                self.declaration().and_then(|it| self.push(&mut procedure.declarations, it))
            } else {
                break;
            };
            if reported(step)?.is_none() {
                self.skip_statement();
                procedure.is_incomplete = true;
            }
        }
        // An annotation among the declarations waits for no other procedure.
        if let Some(annotation) = self.annotation.take() {
            self.stray(annotation.span);
        }
        Ok(())
    }

    fn end_procedure(&mut self, name: Name<'a>, is_function: bool) -> Step<()> {
        let start = self.token().span;
        let subroutine = self.eat_words("end", "subroutine");
        let function = !subroutine && self.eat_words("end", "function");
        if !subroutine && !function {
            self.next();
        }
        if (subroutine && is_function) || (function && !is_function) {
            let message = format!(
                "`{}` is a {}, but ends as a {}",
                name.text,
                if is_function { "function" } else { "subroutine" },
                if is_function { "subroutine" } else { "function" }
            );
            self.sink.add(Diagnostic::new(Code::Unclosed, start, message).second(name.span, "begins here"));
        }
        self.end_name(Some(name));
        if reported(self.expect_end())?.is_none() {
            self.skip_statement();
        }
        Ok(())
    }

    /// A name at the end of a construct must be that at its beginning.
    pub(super) fn end_name(&mut self, begin: Option<Name<'a>>) {
        let Some(token) = self.eat(Kind::Name) else { return };
        match begin {
            Some(begin) if begin.text.eq_ignore_ascii_case(token.text) => {}
            Some(begin) => {
                let message = format!("`{}` ends here, but `{}` was begun", token.text, begin.text);
                self.sink.add(
                    Diagnostic::new(Code::WrongEndName, token.span, message)
                        .second(begin.span, "begins here"),
                );
            }
            None => {
                let message = format!("`{}` ends here, but the construct has no name", token.text);
                self.sink.add(Diagnostic::new(Code::WrongEndName, token.span, message));
            }
        }
    }
}
