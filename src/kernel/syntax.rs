//! The syntax of a kernel file, before names and types are checked.

use super::span::Span;

/// A name as the source spells it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Name<'a> {
    pub text: &'a str,
    pub span: Span,
}

/// A file.
#[derive(Debug, Default)]
pub(super) struct File<'a> {
    pub modules: Vec<Module<'a>>,
    pub procedures: Vec<Procedure<'a>>,
}

/// What a module says before `contains`.
#[derive(Debug)]
pub(super) struct Module<'a> {
    pub name: Name<'a>,
    pub uses: Vec<Use<'a>>,
    pub declarations: Vec<Declaration<'a>>,
}

/// A `use` statement.
#[derive(Debug)]
pub(super) struct Use<'a> {
    pub module: Name<'a>,
    /// Local names with the names in the module. Without `only`, the renamed ones alone.
    pub names: Vec<(Name<'a>, Name<'a>)>,
}

/// A kernel, epilogue or other procedure.
#[derive(Debug)]
pub(super) struct Procedure<'a> {
    pub annotation: Option<Annotation<'a>>,
    /// The module around it, by index into [`File::modules`].
    pub module: Option<usize>,
    pub name: Name<'a>,
    pub dummies: Vec<Name<'a>>,
    /// For functions.
    pub function: Option<Function<'a>>,
    pub is_recursive: Option<Span>,
    pub uses: Vec<Use<'a>>,
    pub declarations: Vec<Declaration<'a>>,
    pub reductions: Vec<ReductionDirective<'a>>,
    pub body: Vec<Statement<'a>>,
    /// Whether a declaration is missing because of its syntax.
    pub is_incomplete: bool,
}

/// What the first statement of a function adds.
#[derive(Debug)]
pub(super) struct Function<'a> {
    pub ty: Option<TypeSpec<'a>>,
    pub result: Option<Name<'a>>,
}

/// `!@kernel` or `!@epilogue`.
#[derive(Debug)]
pub(super) struct Annotation<'a> {
    pub is_epilogue: bool,
    pub span: Span,
    pub attributes: Vec<Attribute<'a>>,
}

/// An attribute of an annotation.
#[derive(Debug)]
pub(super) struct Attribute<'a> {
    pub name: Name<'a>,
    pub values: Vec<AttributeValue<'a>>,
    pub span: Span,
}

/// A value of an attribute.
#[derive(Debug, Clone, Copy)]
pub(super) enum AttributeValue<'a> {
    Integer(i64),
    Word(Name<'a>),
}

/// `!@reduce(operator: name)`.
#[derive(Debug)]
pub(super) struct ReductionDirective<'a> {
    pub operator: Name<'a>,
    pub names: Vec<Name<'a>>,
    pub span: Span,
}

/// The type part of a declaration.
#[derive(Debug)]
pub(super) struct TypeSpec<'a> {
    pub base: BaseType,
    pub kind: Option<Expression<'a>>,
    pub span: Span,
}

/// A type without its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BaseType {
    Integer,
    Real,
    DoublePrecision,
    Logical,
}

/// A declaration statement.
#[derive(Debug)]
pub(super) struct Declaration<'a> {
    pub ty: TypeSpec<'a>,
    pub intent: Option<(crate::kernel::tree::Intent, Span)>,
    pub value: Option<Span>,
    pub parameter: Option<Span>,
    pub dimension: Option<Vec<Bounds<'a>>>,
    /// `!@shared` follows.
    pub shared: Option<Span>,
    pub entities: Vec<Entity<'a>>,
}

/// A declared name.
#[derive(Debug)]
pub(super) struct Entity<'a> {
    pub name: Name<'a>,
    pub dimension: Option<Vec<Bounds<'a>>>,
    pub initial: Option<Expression<'a>>,
}

/// The bounds of one dimension.
#[derive(Debug)]
pub(super) struct Bounds<'a> {
    pub lower: Option<Expression<'a>>,
    pub upper: Upper<'a>,
    pub span: Span,
}

/// An upper bound.
#[derive(Debug)]
pub(super) enum Upper<'a> {
    Expression(Expression<'a>),
    /// `*`.
    Assumed,
    /// `:` without an upper bound.
    Shape,
}

/// An expression.
#[derive(Debug)]
pub(super) struct Expression<'a> {
    pub kind: ExpressionKind<'a>,
    pub span: Span,
    /// Levels below it, and its own.
    pub depth: usize,
}

/// What an expression is.
#[derive(Debug)]
pub(super) enum ExpressionKind<'a> {
    /// Digits, and a kind after `_`.
    Integer(&'a str),
    Real(&'a str),
    Boz(&'a str),
    Logical(bool),
    Name(Name<'a>),
    /// `name(...)`: an element or a function's value.
    Call(Name<'a>, Vec<Argument<'a>>),
    /// `name[...]`, the old form of an element.
    Bracket(Name<'a>, Vec<Expression<'a>>),
    Unary(Unary, Box<Expression<'a>>),
    Binary(super::token::Kind, Span, Box<Expression<'a>>, Box<Expression<'a>>),
}

/// An operator with one operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unary {
    Plus,
    Minus,
    Not,
}

/// An actual argument.
#[derive(Debug)]
pub(super) struct Argument<'a> {
    pub keyword: Option<Name<'a>>,
    pub value: Expression<'a>,
}

/// A statement.
#[derive(Debug)]
pub(super) struct Statement<'a> {
    pub kind: StatementKind<'a>,
    pub span: Span,
}

/// What a statement is.
#[derive(Debug)]
pub(super) enum StatementKind<'a> {
    Assign(Expression<'a>, Expression<'a>),
    If { branches: Vec<(Expression<'a>, Vec<Statement<'a>>)>, otherwise: Vec<Statement<'a>> },
    Select { selector: Expression<'a>, cases: Vec<Case<'a>>, otherwise: Vec<Statement<'a>> },
    Do { name: Option<Name<'a>>, control: Control<'a>, body: Vec<Statement<'a>> },
    Exit(Option<Name<'a>>),
    Cycle(Option<Name<'a>>),
    Return,
    Call(Name<'a>, Vec<Argument<'a>>),
}

/// A case of `select case`.
#[derive(Debug)]
pub(super) struct Case<'a> {
    pub ranges: Vec<CaseRange<'a>>,
    pub body: Vec<Statement<'a>>,
    pub span: Span,
}

/// A value or range of a case.
#[derive(Debug)]
pub(super) struct CaseRange<'a> {
    pub first: Option<Expression<'a>>,
    pub last: Option<Expression<'a>>,
    /// Whether there is a colon. Otherwise `first` alone counts.
    pub is_range: bool,
    pub span: Span,
}

/// The control of a loop.
#[derive(Debug)]
pub(super) enum Control<'a> {
    Count(Box<Count<'a>>),
    While(Expression<'a>),
    Forever,
}

/// `variable = first, last, step`.
#[derive(Debug)]
pub(super) struct Count<'a> {
    pub variable: Name<'a>,
    pub first: Expression<'a>,
    pub last: Expression<'a>,
    pub step: Option<Expression<'a>>,
}
