//! Executable statements and constructs.

use crate::kernel::diagnostics::{Code, Diagnostic, Step, reported};
use crate::kernel::span::Span;
use crate::kernel::syntax::{
    Case, CaseRange, Control, Count, ExpressionKind, Name, Statement, StatementKind,
};
use crate::kernel::token::Kind;

use super::{Construct, MAX_BLOCKS, Parser};

/// A statement that ends a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closing {
    EndIf,
    Else,
    EndDo,
    EndSelect,
    Case,
    /// `end`, `end subroutine`, `end function`.
    Procedure,
    Module,
    Contains,
    NextProcedure,
    /// The end of a construct that the language lacks.
    Unsupported,
    EndOfFile,
}

/// Statements of Fortran that the language lacks: first word, code, what is said.
const UNSUPPORTED: &[(&str, Code, &str)] = &[
    ("print", Code::InputOutput, "input and output are not part of the language"),
    ("write", Code::InputOutput, "input and output are not part of the language"),
    ("read", Code::InputOutput, "input and output are not part of the language"),
    ("open", Code::InputOutput, "input and output are not part of the language"),
    ("close", Code::InputOutput, "input and output are not part of the language"),
    ("inquire", Code::InputOutput, "input and output are not part of the language"),
    ("rewind", Code::InputOutput, "input and output are not part of the language"),
    ("flush", Code::InputOutput, "input and output are not part of the language"),
    ("format", Code::InputOutput, "input and output are not part of the language"),
    ("allocate", Code::Allocation, "memory is not allocated in a kernel"),
    ("deallocate", Code::Allocation, "memory is not allocated in a kernel"),
    ("nullify", Code::Allocation, "memory is not allocated in a kernel"),
    ("stop", Code::Stop, "a kernel cannot stop the program"),
    ("error", Code::Stop, "a kernel cannot stop the program"),
    ("where", Code::MaskedConstruct, "`where` is not part of the language"),
    ("elsewhere", Code::MaskedConstruct, "`where` is not part of the language"),
    ("forall", Code::MaskedConstruct, "`forall` is not part of the language"),
    ("goto", Code::UnsupportedStatement, "`go to` is not part of the language"),
    ("go", Code::UnsupportedStatement, "`go to` is not part of the language"),
    ("data", Code::UnsupportedStatement, "`data` is not part of the language"),
    ("common", Code::UnsupportedStatement, "`common` is not part of the language"),
    ("equivalence", Code::UnsupportedStatement, "`equivalence` is not part of the language"),
    ("save", Code::UnsupportedStatement, "`save` is not part of the language"),
    ("namelist", Code::UnsupportedStatement, "`namelist` is not part of the language"),
    ("associate", Code::UnsupportedStatement, "`associate` is not part of the language"),
    ("block", Code::UnsupportedStatement, "`block` is not part of the language"),
    ("critical", Code::UnsupportedStatement, "`critical` is not part of the language"),
    ("sync", Code::UnsupportedStatement, "coarrays are not part of the language"),
    ("entry", Code::UnsupportedStatement, "`entry` is not part of the language"),
    ("interface", Code::UnsupportedStatement, "interfaces are not part of the language"),
    ("procedure", Code::UnsupportedStatement, "`procedure` is not part of the language"),
    ("external", Code::UnsupportedStatement, "`external` is not part of the language"),
    ("intrinsic", Code::UnsupportedStatement, "`intrinsic` is not part of the language"),
    ("dimension", Code::UnsupportedStatement, "attributes stand in the declaration of a type"),
    ("intent", Code::UnsupportedStatement, "attributes stand in the declaration of a type"),
    ("parameter", Code::UnsupportedStatement, "attributes stand in the declaration of a type"),
    ("value", Code::UnsupportedStatement, "attributes stand in the declaration of a type"),
];

impl<'a> Parser<'a, '_, '_> {
    /// What the statement closes, if it closes anything.
    pub(super) fn closing(&self) -> Option<Closing> {
        let token = self.token();
        match token.kind {
            Kind::EndOfFile => return Some(Closing::EndOfFile),
            Kind::Name => {}
            _ => return None,
        }
        let first = token.text.as_bytes()[0] | 32;
        if !matches!(first, b'e' | b'c' | b's' | b'f' | b'p' | b'i' | b'r' | b'n' | b'm' | b'l' | b'd') {
            return None;
        }
        if self.is_assignment() {
            return None;
        }
        let next = self.ahead(1);
        let word = token.text.to_ascii_lowercase();
        match word.as_str() {
            "else" => return Some(Closing::Else),
            "elseif" => return Some(Closing::Else),
            "case" => return Some(Closing::Case),
            "contains" if matches!(next.kind, Kind::End | Kind::EndOfFile) => {
                return Some(Closing::Contains);
            }
            _ => {}
        }
        let rest = match word.strip_prefix("end") {
            Some("") if matches!(next.kind, Kind::End | Kind::EndOfFile) => return Some(Closing::Procedure),
            Some("") if next.kind == Kind::Name => next.text.to_ascii_lowercase(),
            Some(rest) if !rest.is_empty() => rest.to_owned(),
            _ => String::new(),
        };
        match rest.as_str() {
            "if" => Some(Closing::EndIf),
            "do" => Some(Closing::EndDo),
            "select" => Some(Closing::EndSelect),
            "subroutine" | "function" => Some(Closing::Procedure),
            "module" => Some(Closing::Module),
            "where" | "forall" | "associate" | "block" | "critical" | "interface" | "type" | "program" => {
                Some(Closing::Unsupported)
            }
            _ => self.starts_procedure().then_some(Closing::NextProcedure),
        }
    }

    /// Statements up to one that closes something.
    pub(super) fn block(&mut self) -> Step<Vec<Statement<'a>>> {
        let mut all = Vec::new();
        while !self.sink.is_full() {
            if self.eat(Kind::End).is_some() {
                continue;
            }
            if self.closing().is_some() {
                break;
            }
            let before = self.at;
            let step = self.statement();
            match reported(step)? {
                Some(Some(statement)) => self.push(&mut all, statement)?,
                Some(None) => {}
                None => self.skip_statement(),
            }
            if self.at == before {
                self.next();
            }
        }
        Ok(all)
    }

    /// A statement or construct with its end. Nothing, if it does nothing.
    fn statement(&mut self) -> Step<Option<Statement<'a>>> {
        let token = self.token();
        match token.kind {
            Kind::Directive => return self.directive(None).map(|()| None),
            Kind::Integer => {
                return self.error(
                    Code::UnsupportedStatement,
                    token.span,
                    "statement labels are not part of the language",
                );
            }
            Kind::Name => {}
            _ => return self.expected("a statement"),
        }
        if self.is_assignment() {
            let statement = self.action()?;
            self.expect_end()?;
            return Ok(statement);
        }
        let mut name = None;
        if self.ahead(1).kind == Kind::Colon {
            name = Some(Name { text: token.text, span: token.span });
            self.next();
            self.next();
        }
        let token = self.token();
        if token.is("do") || token.is("dowhile") {
            return self.do_construct(name).map(Some);
        }
        if token.is("if") && self.ahead(1).kind == Kind::LeftParen {
            return self.if_construct(name);
        }
        if token.is("select") || token.is("selectcase") {
            return self.select_construct(name).map(Some);
        }
        if name.is_some() {
            return self.expected("`do`, `if` or `select case`");
        }
        if self.is_declaration() || token.is("use") || token.is("implicit") {
            let message = "a declaration follows an executable statement";
            return self.error(Code::LateDeclaration, token.span, message);
        }
        let statement = self.action()?;
        self.expect_end()?;
        Ok(statement)
    }

    /// A statement that may follow `if (...)`.
    fn action(&mut self) -> Step<Option<Statement<'a>>> {
        let token = self.token();
        if self.is_assignment() {
            let target = self.designator()?;
            self.expect(Kind::Assign, "`=`")?;
            let value = self.expression()?;
            let span = target.span.to(value.span);
            return Ok(Some(Statement { kind: StatementKind::Assign(target, value), span }));
        }
        let simple = |kind| Ok(Some(Statement { kind, span: token.span }));
        if token.is("exit") || token.is("cycle") {
            self.next();
            let name = self.eat(Kind::Name).map(|name| Name { text: name.text, span: name.span });
            return simple(if token.is("exit") {
                StatementKind::Exit(name)
            } else {
                StatementKind::Cycle(name)
            });
        }
        if token.is("return") {
            self.next();
            return simple(StatementKind::Return);
        }
        if token.is("continue") {
            self.next();
            return Ok(None);
        }
        if token.is("call") {
            self.next();
            let name = self.expect_name("the name of a subroutine")?;
            let arguments = if self.kind() == Kind::LeftParen { self.arguments()? } else { Vec::new() };
            let span = token.span.to(self.tokens[self.at - 1].span);
            return Ok(Some(Statement { kind: StatementKind::Call(name, arguments), span }));
        }
        if let Some((_, code, message)) = UNSUPPORTED.iter().find(|(word, ..)| token.is(word)) {
            return self.error(*code, token.span, *message);
        }
        if token.kind != Kind::Name {
            return self.expected("a statement");
        }
        let message = format!("`{}` does not begin a statement", token.text);
        let diagnostic = Diagnostic::new(Code::Expected, token.span, message);
        let known = ["if", "do", "select", "call", "exit", "cycle", "return", "else", "end"];
        let near = crate::kernel::diagnostics::suggestion(token.text, known.into_iter());
        match near.filter(|_| self.ahead(1).kind != Kind::End || token.text.len() > 3) {
            Some(near) => self.sink.fail(diagnostic.help(format!("did you mean `{near}`?"))),
            None => self.sink.fail(diagnostic),
        }
    }

    /// Opens a construct, unless it is nested too deeply.
    fn open(&mut self, construct: Construct, span: Span) -> Step<()> {
        if self.open.len() >= MAX_BLOCKS {
            let message = format!("constructs are nested more than {MAX_BLOCKS} levels deep");
            return self.error(Code::TooDeep, span, message);
        }
        let mut open = std::mem::take(&mut self.open);
        self.push(&mut open, (construct, span))?;
        self.open = open;
        Ok(())
    }

    /// The statements of a construct up to what closes or divides it. `false`: the construct is not closed.
    fn inner_block(&mut self, own: &[Closing]) -> Step<(Vec<Statement<'a>>, bool)> {
        let mut all = self.block()?;
        loop {
            let Some(closing) = self.closing() else { return Ok((all, false)) };
            if own.contains(&closing) {
                return Ok((all, true));
            }
            let token = self.token();
            let belongs = |construct| self.open.iter().rev().skip(1).any(|(it, _)| *it == construct);
            let leaves = match closing {
                Closing::EndIf | Closing::Else => belongs(Construct::If),
                Closing::EndDo => belongs(Construct::Do),
                Closing::EndSelect | Closing::Case => belongs(Construct::Select),
                Closing::Unsupported => false,
                _ => true,
            };
            let (construct, span) = self.open[self.open.len() - 1];
            if leaves {
                let (what, end) = match construct {
                    Construct::If => ("if", "end if"),
                    Construct::Do => ("do", "end do"),
                    Construct::Select => ("select case", "end select"),
                };
                let message = format!("`{what}` is not closed; expected `{end}`, found {}", self.phrase());
                self.sink
                    .add(Diagnostic::new(Code::Unclosed, token.span, message).second(span, "opened here"));
                return Ok((all, false));
            }
            if closing != Closing::Unsupported {
                let message = format!("{} closes nothing", self.phrase());
                self.sink.add(
                    Diagnostic::new(Code::Unclosed, token.span, message)
                        .second(span, "the innermost construct begins here"),
                );
            }
            self.skip_statement();
            let rest = self.block()?;
            for statement in rest {
                self.push(&mut all, statement)?;
            }
        }
    }

    fn close(&mut self, name: Option<Name<'a>>) -> Step<()> {
        self.end_name(name);
        if reported(self.expect_end())?.is_none() {
            self.skip_statement();
        }
        Ok(())
    }

    fn if_construct(&mut self, name: Option<Name<'a>>) -> Step<Option<Statement<'a>>> {
        let start = self.next().span;
        self.expect(Kind::LeftParen, "`(`")?;
        let condition = self.expression()?;
        let close = self.expect(Kind::RightParen, "`)`")?;
        let span = start.to(close.span);
        if !self.token().is("then") || self.is_assignment() {
            let opens = ["if", "do", "select"].iter().any(|word| self.token().is(word));
            if opens && !self.is_assignment() {
                return self.expected("`then` or a simple statement");
            }
            let action = self.action()?;
            self.expect_end()?;
            let mut body = Vec::new();
            if let Some(action) = action {
                self.push(&mut body, action)?;
            }
            let kind = StatementKind::If { branches: vec![(condition, body)], otherwise: Vec::new() };
            return Ok(Some(Statement { kind, span }));
        }
        self.next();
        self.expect_end()?;
        self.open(Construct::If, span)?;
        let result = self.if_rest(name, condition);
        self.open.pop();
        let (branches, otherwise) = result?;
        Ok(Some(Statement { kind: StatementKind::If { branches, otherwise }, span }))
    }

    #[allow(clippy::type_complexity)]
    fn if_rest(
        &mut self,
        name: Option<Name<'a>>,
        condition: crate::kernel::syntax::Expression<'a>,
    ) -> Step<(Vec<(crate::kernel::syntax::Expression<'a>, Vec<Statement<'a>>)>, Vec<Statement<'a>>)> {
        let mut branches = Vec::new();
        let mut condition = Some(condition);
        let mut otherwise = Vec::new();
        let mut last = None;
        loop {
            let (body, closed) = self.inner_block(&[Closing::Else, Closing::EndIf])?;
            match condition.take() {
                Some(condition) => self.push(&mut branches, (condition, body))?,
                None => {
                    for statement in body {
                        self.push(&mut otherwise, statement)?;
                    }
                }
            }
            if !closed {
                break;
            }
            let (token, phrase) = (self.token(), self.phrase());
            if self.eat_words("end", "if") {
                self.close(name)?;
                break;
            }
            if let Some(before) = last {
                let message = format!("{phrase} follows `else`");
                self.sink.add(
                    Diagnostic::new(Code::Misplaced, token.span, message).second(before, "`else` is here"),
                );
            }
            if self.eat_words("else", "if") {
                let step = self.else_condition();
                match reported(step)? {
                    Some(value) if last.is_none() => condition = Some(value),
                    Some(_) => {}
                    None => self.skip_statement(),
                }
            } else {
                last = Some(self.next().span);
                self.close(name)?;
            }
        }
        Ok((branches, otherwise))
    }

    fn else_condition(&mut self) -> Step<crate::kernel::syntax::Expression<'a>> {
        self.expect(Kind::LeftParen, "`(`")?;
        let condition = self.expression()?;
        self.expect(Kind::RightParen, "`)`")?;
        if self.eat_word("then").is_none() {
            return self.expected("`then`");
        }
        self.eat(Kind::Name);
        self.expect_end()?;
        Ok(condition)
    }

    fn do_construct(&mut self, name: Option<Name<'a>>) -> Step<Statement<'a>> {
        let start = self.token().span;
        let mut broken = false;
        let control = match reported(self.do_control())? {
            Some(control) => control,
            None => {
                // The body is read all the same, so that its end finds its beginning.
                broken = true;
                self.skip_statement();
                Control::Forever
            }
        };
        let span = start;
        self.open(Construct::Do, span)?;
        let result = self.inner_block(&[Closing::EndDo]);
        self.open.pop();
        let (body, closed) = result?;
        if closed {
            self.eat_words("end", "do");
            self.close(name)?;
        }
        let name = if broken { None } else { name };
        Ok(Statement { kind: StatementKind::Do { name, control, body }, span })
    }

    fn do_control(&mut self) -> Step<Control<'a>> {
        let token = self.next();
        if token.is("dowhile") || self.token().is("while") && self.ahead(1).kind == Kind::LeftParen {
            if !token.is("dowhile") {
                self.next();
            }
            self.expect(Kind::LeftParen, "`(`")?;
            let condition = self.expression()?;
            self.expect(Kind::RightParen, "`)`")?;
            self.expect_end()?;
            return Ok(Control::While(condition));
        }
        if self.kind() == Kind::End {
            self.next();
            return Ok(Control::Forever);
        }
        if self.token().is("concurrent") && self.ahead(1).kind == Kind::LeftParen {
            let span = self.token().span;
            return self.error(
                Code::MaskedConstruct,
                span,
                "`do concurrent` is not part of the language; the index arguments are the parallel loop",
            );
        }
        if self.kind() == Kind::Integer {
            let span = self.token().span;
            return self.error(
                Code::UnsupportedStatement,
                span,
                "statement labels are not part of the language",
            );
        }
        let variable = self.expect_name("a loop variable, `while` or the end of the statement")?;
        self.expect(Kind::Assign, "`=`")?;
        let first = self.expression()?;
        self.expect(Kind::Comma, "`,` and the last value")?;
        let last = self.expression()?;
        let step = match self.eat(Kind::Comma) {
            Some(_) => Some(self.expression()?),
            None => None,
        };
        self.expect_end()?;
        Ok(Control::Count(Box::new(Count { variable, first, last, step })))
    }

    fn select_construct(&mut self, name: Option<Name<'a>>) -> Step<Statement<'a>> {
        let start = self.token().span;
        if !self.eat_words("select", "case") {
            let message = "only `select case` is part of the language";
            return self.error(Code::DerivedType, start, message);
        }
        self.expect(Kind::LeftParen, "`(`")?;
        let selector = self.expression()?;
        let close = self.expect(Kind::RightParen, "`)`")?;
        self.expect_end()?;
        let span = start.to(close.span);
        self.open(Construct::Select, span)?;
        let result = self.cases(name);
        self.open.pop();
        let (cases, otherwise) = result?;
        Ok(Statement { kind: StatementKind::Select { selector, cases, otherwise }, span })
    }

    fn cases(&mut self, name: Option<Name<'a>>) -> Step<(Vec<Case<'a>>, Vec<Statement<'a>>)> {
        let mut cases = Vec::new();
        let mut otherwise = Vec::new();
        let mut default: Option<Span> = None;
        let own = [Closing::Case, Closing::EndSelect];
        let (stray, mut closed) = self.inner_block(&own)?;
        if let Some(first) = stray.first() {
            let message = "a statement stands before the first `case`";
            self.sink.add(Diagnostic::new(Code::Misplaced, first.span, message));
        }
        while closed {
            let token = self.token();
            if self.eat_words("end", "select") {
                self.close(name)?;
                break;
            }
            self.next();
            let is_default = self.eat_word("default").is_some();
            let step = if is_default { Ok(Vec::new()) } else { self.case_ranges() };
            let ranges = match reported(step)? {
                Some(ranges) => {
                    self.close(name)?;
                    ranges
                }
                None => {
                    self.skip_statement();
                    Vec::new()
                }
            };
            let (body, more) = self.inner_block(&own)?;
            closed = more;
            if !is_default {
                self.push(&mut cases, Case { ranges, body, span: token.span })?;
            } else if let Some(before) = default {
                let message = "`case default` occurs twice";
                self.sink
                    .add(Diagnostic::new(Code::CaseOverlap, token.span, message).second(before, "the first"));
            } else {
                default = Some(token.span);
                otherwise = body;
            }
        }
        Ok((cases, otherwise))
    }

    fn case_ranges(&mut self) -> Step<Vec<CaseRange<'a>>> {
        self.expect(Kind::LeftParen, "`(` or `default`")?;
        let ranges = self.list(|parser| {
            let span = parser.token().span;
            let mut range = CaseRange { first: None, last: None, is_range: false, span };
            if parser.kind() != Kind::Colon {
                let first = parser.expression()?;
                range.span = span.to(first.span);
                range.first = Some(first);
            }
            if parser.eat(Kind::Colon).is_some() {
                range.is_range = true;
                if !matches!(parser.kind(), Kind::Comma | Kind::RightParen) {
                    let last = parser.expression()?;
                    range.span = span.to(last.span);
                    range.last = Some(last);
                }
            }
            if let Some(ExpressionKind::Logical(_)) = range.first.as_ref().map(|it| &it.kind)
                && range.is_range
            {
                return parser.error(Code::CaseValue, range.span, "logical values have no ranges");
            }
            Ok(range)
        })?;
        self.expect(Kind::RightParen, "`)` or `,`")?;
        Ok(ranges)
    }
}
