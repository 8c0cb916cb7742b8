//! Operators, conversions and folding.

use crate::kernel::diagnostics::{Code as Message, Diagnostic, Step};
use crate::kernel::fold::{self, Fault, Folded};
use crate::kernel::span::Span;
use crate::kernel::syntax::Unary;
use crate::kernel::token::Kind;
use crate::kernel::tree::{Comparison, ExpressionId, Operation, Operator, Type, UnaryOperator, Value};

use super::Checker;

/// The type that two numbers are converted to.
pub(super) fn common(one: Type, other: Type) -> Option<Type> {
    let rank = |ty| match ty {
        Type::Int32 => Some(0),
        Type::Int64 => Some(1),
        Type::Real32 => Some(2),
        Type::Real64 => Some(3),
        Type::Logical => None,
    };
    let (a, b) = (rank(one)?, rank(other)?);
    Some(if a >= b { one } else { other })
}

impl Checker<'_, '_, '_> {
    /// A constant, if the operation could be folded, else the operation.
    pub(super) fn folded(
        &mut self,
        folded: Folded,
        operation: Operation,
        ty: Type,
        span: Span,
    ) -> Step<ExpressionId> {
        match folded {
            Some(Ok(value)) => self.constant(value, span),
            Some(Err(Fault::Overflow)) => {
                let message = format!("the constant does not fit {}", ty.fortran());
                self.error(Message::ConstantOverflow, span, message)
            }
            Some(Err(Fault::Division)) => {
                self.error(Message::ConstantDivision, span, "a constant is divided by zero")
            }
            None => self.emit(operation, ty, span),
        }
    }

    /// The number converted to a type.
    pub(super) fn convert(&mut self, id: ExpressionId, ty: Type) -> Step<ExpressionId> {
        if self.ty(id) == ty {
            return Ok(id);
        }
        let span = self.span(id);
        let folded = self.state.code.constant(id).and_then(|value| fold::convert(ty, value));
        self.folded(folded, Operation::Convert(id), ty, span)
    }

    /// The value converted as by assignment, or an error about `what`.
    pub(super) fn converted(
        &mut self,
        id: ExpressionId,
        ty: Type,
        code: Message,
        what: &str,
    ) -> Step<ExpressionId> {
        let from = self.ty(id);
        if from == ty {
            return Ok(id);
        }
        if from == Type::Logical || ty == Type::Logical {
            let message = format!(
                "a value of type {} cannot become `{what}`, which is {}",
                from.fortran(),
                ty.fortran()
            );
            let diagnostic = Diagnostic::new(code, self.span(id), message);
            let help = if from == Type::Logical {
                "`merge(1, 0, x)` makes a number of a logical value"
            } else {
                "compare it, for example with 0"
            };
            return self.sink.fail(diagnostic.label(format!("this is {}", from.fortran())).help(help));
        }
        self.convert(id, ty)
    }

    pub(super) fn unary(&mut self, operator: Unary, operand: ExpressionId, span: Span) -> Step<ExpressionId> {
        let ty = self.ty(operand);
        let operator = match (operator, ty) {
            (Unary::Not, Type::Logical) => UnaryOperator::Not,
            (Unary::Not, _) => return self.operand(operand, "`.not.` needs a logical operand"),
            (_, Type::Logical) => return self.operand(operand, "a sign needs a number"),
            (Unary::Plus, _) => return Ok(operand),
            (Unary::Minus, _) => UnaryOperator::Negate,
        };
        let folded = self.state.code.constant(operand).and_then(|value| fold::unary(operator, value));
        self.folded(folded, Operation::Unary(operator, operand), ty, span)
    }

    /// Two numbers with their common type.
    fn numbers(
        &mut self,
        left: ExpressionId,
        right: ExpressionId,
        at: Span,
    ) -> Step<(ExpressionId, ExpressionId, Type)> {
        match common(self.ty(left), self.ty(right)) {
            Some(ty) => Ok((self.convert(left, ty)?, self.convert(right, ty)?, ty)),
            None => {
                let message = format!(
                    "operands of types {} and {} do not fit the operator",
                    self.ty(left).fortran(),
                    self.ty(right).fortran()
                );
                let diagnostic = Diagnostic::new(Message::OperandType, at, message);
                self.sink.fail(diagnostic.help("it needs two numbers"))
            }
        }
    }

    /// An operator on two operands of one type.
    pub(super) fn folded_binary(
        &mut self,
        operator: Operator,
        left: ExpressionId,
        right: ExpressionId,
        span: Span,
    ) -> Step<ExpressionId> {
        let ty = self.ty(left);
        let constants = self.state.code.constant(left).zip(self.state.code.constant(right));
        let mut folded = constants.and_then(|(left, right)| fold::binary(operator, left, right));
        if constants.is_none()
            && operator == Operator::Divide
            && ty.is_integer()
            && self.state.code.constant(right).and_then(Value::integer) == Some(0)
        {
            folded = Some(Err(Fault::Division));
        }
        self.folded(folded, Operation::Binary(operator, left, right), ty, span)
    }

    pub(super) fn binary(
        &mut self,
        operator: Kind,
        at: Span,
        left: ExpressionId,
        right: ExpressionId,
        span: Span,
    ) -> Step<ExpressionId> {
        let arithmetic = match operator {
            Kind::Plus => Some(Operator::Add),
            Kind::Minus => Some(Operator::Subtract),
            Kind::Star => Some(Operator::Multiply),
            Kind::Slash => Some(Operator::Divide),
            _ => None,
        };
        if let Some(arithmetic) = arithmetic {
            let (left, right, _) = self.numbers(left, right, at)?;
            return self.folded_binary(arithmetic, left, right, span);
        }
        let logical = match operator {
            Kind::And => Some(Operator::And),
            Kind::Or => Some(Operator::Or),
            Kind::Equivalent => Some(Operator::Equivalent),
            Kind::NotEquivalent => Some(Operator::NotEquivalent),
            _ => None,
        };
        if let Some(logical) = logical {
            for operand in [left, right] {
                if self.ty(operand) != Type::Logical {
                    return self.operand(operand, "the operator needs logical operands");
                }
            }
            return self.folded_binary(logical, left, right, span);
        }
        let comparison = match operator {
            Kind::Equal => Comparison::Equal,
            Kind::NotEqual => Comparison::NotEqual,
            Kind::Less => Comparison::Less,
            Kind::LessEqual => Comparison::LessEqual,
            Kind::Greater => Comparison::Greater,
            Kind::GreaterEqual => Comparison::GreaterEqual,
            _ => return self.power(at, left, right, span),
        };
        if self.ty(left) == Type::Logical && self.ty(right) == Type::Logical {
            let diagnostic =
                Diagnostic::new(Message::OperandType, at, "logical values are not compared like numbers");
            return self.sink.fail(diagnostic.help("use `.eqv.` or `.neqv.`"));
        }
        let (left, right, _) = self.numbers(left, right, at)?;
        let constants = self.state.code.constant(left).zip(self.state.code.constant(right));
        let folded = constants.and_then(|(left, right)| fold::compare(comparison, left, right));
        self.folded(folded, Operation::Compare(comparison, left, right), Type::Logical, span)
    }

    fn power(&mut self, at: Span, left: ExpressionId, right: ExpressionId, span: Span) -> Step<ExpressionId> {
        if self.ty(left) == Type::Logical || !self.ty(right).is_integer() {
            let (left, right, ty) = self.numbers(left, right, at)?;
            return self.emit(Operation::PowerReal(left, right), ty, span);
        }
        let mut base = left;
        if self.ty(left) == Type::Int32 && self.ty(right) == Type::Int64 {
            base = self.convert(left, Type::Int64)?;
        }
        let ty = self.ty(base);
        let exponent = self.convert(right, Type::Int32)?;
        let constants = self.state.code.constant(base).zip(self.state.code.constant(exponent));
        let folded = constants.and_then(|(base, exponent)| fold::power(base, exponent.integer()?));
        self.folded(folded, Operation::PowerInteger(base, exponent), ty, span)
    }
}
