//! Expressions and places. Everything is in parentheses, so precedence plays no part.

use crate::kernel::diagnostics::Code as Message;
use crate::kernel::span::Span;
use crate::kernel::tree::{
    Access, ArgumentKind, BufferShape, Comparison, Contract, ExpressionId, FixedDimension, Intrinsic,
    Operation, Operator, Place, Type, UnaryOperator, Value, VariableKind,
};

use super::constants::literal;
use super::helpers::Helper;
use super::{Owner, Parameters, Write, Writer};

impl Writer<'_> {
    /// An expression.
    pub(super) fn expression(&mut self, id: ExpressionId) -> Write {
        let code = self.code;
        let expression = code.expression(id);
        let (ty, span) = (expression.ty, expression.span);
        self.ty(ty, span)?;
        match &expression.operation {
            Operation::Constant(value) => self.put(&literal(*value)),
            Operation::Load(place) => self.load(place, ty),
            Operation::Unary(UnaryOperator::Negate, operand) => self.wrapped("(-", *operand, ")"),
            Operation::Unary(UnaryOperator::Not, operand) => self.wrapped("(!", *operand, ")"),
            Operation::Binary(Operator::Divide, left, right) if ty == Type::Int32 => {
                let safe =
                    code.constant(*right).and_then(Value::integer).is_some_and(|it| it != 0 && it != -1);
                if safe {
                    return self.infix(*left, " / ", *right);
                }
                let name = self.helpers.need(Helper::Divide, ty);
                self.call(name, &[*left, *right])
            }
            Operation::Binary(operator, left, right) => {
                let operator = match operator {
                    Operator::Add => " + ",
                    Operator::Subtract => " - ",
                    Operator::Multiply => " * ",
                    Operator::Divide => " / ",
                    Operator::And => " && ",
                    Operator::Or => " || ",
                    Operator::Equivalent => " == ",
                    Operator::NotEquivalent => " != ",
                };
                self.infix(*left, operator, *right)
            }
            Operation::Compare(comparison, left, right) => {
                let operator = match comparison {
                    Comparison::Equal => " == ",
                    Comparison::NotEqual => " != ",
                    Comparison::Less => " < ",
                    Comparison::LessEqual => " <= ",
                    Comparison::Greater => " > ",
                    Comparison::GreaterEqual => " >= ",
                };
                self.infix(*left, operator, *right)
            }
            Operation::PowerInteger(base, exponent) => {
                let name = self.helpers.need(Helper::PowerInteger, ty);
                self.call(name, &[*base, *exponent])
            }
            Operation::PowerReal(base, exponent) => {
                if ty == Type::Real64 {
                    return self.no_real64(span);
                }
                let name = self.helpers.need(Helper::PowerReal, ty);
                self.call(name, &[*base, *exponent])
            }
            Operation::Convert(operand) => {
                let name = self.ty(ty, span)?;
                self.wrapped(&format!("{name}("), *operand, ")")
            }
            Operation::Intrinsic(intrinsic, operands) => self.intrinsic(*intrinsic, operands, ty, span),
            Operation::Call(index, operands) => {
                let name = self.procedures[*index].clone();
                self.call(&name, operands)
            }
            Operation::Length(variable) => {
                let text = format!("int({}.length())", self.name(*variable));
                self.put(&text)
            }
            Operation::LocalIndex(axis) => self.put(
                ["int(gl_LocalInvocationID.x)", "int(gl_LocalInvocationID.y)", "int(gl_LocalInvocationID.z)"]
                    [*axis],
            ),
            Operation::GroupIndex(axis) => {
                self.put(["int(sparkle_group.x)", "int(sparkle_group.y)", "int(sparkle_group.z)"][*axis])
            }
        }
    }

    fn wrapped(&mut self, before: &str, operand: ExpressionId, after: &str) -> Write {
        self.put(before)?;
        self.expression(operand)?;
        self.put(after)
    }

    fn infix(&mut self, left: ExpressionId, operator: &str, right: ExpressionId) -> Write {
        self.put("(")?;
        self.expression(left)?;
        self.put(operator)?;
        self.expression(right)?;
        self.put(")")
    }

    fn call(&mut self, name: &str, operands: &[ExpressionId]) -> Write {
        self.put(name)?;
        self.put("(")?;
        for (position, operand) in operands.iter().enumerate() {
            self.put(if position == 0 { "" } else { ", " })?;
            self.expression(*operand)?;
        }
        self.put(")")
    }

    fn no_real64<T>(&self, span: Span) -> Write<T> {
        let message = "GLSL has no such function for real(real64); the CPU runs this kernel";
        self.unsupported(Message::NoReal64, span, message)
    }

    fn intrinsic(&mut self, intrinsic: Intrinsic, operands: &[ExpressionId], ty: Type, span: Span) -> Write {
        let operand = self.code.expression(operands[0]).ty;
        let transcendental = matches!(
            intrinsic,
            Intrinsic::Exp
                | Intrinsic::Log
                | Intrinsic::Log10
                | Intrinsic::Sin
                | Intrinsic::Cos
                | Intrinsic::Tan
                | Intrinsic::Asin
                | Intrinsic::Acos
                | Intrinsic::Atan
                | Intrinsic::Atan2
                | Intrinsic::Sinh
                | Intrinsic::Cosh
                | Intrinsic::Tanh
        );
        if transcendental && operand == Type::Real64 {
            return self.no_real64(span);
        }
        if let Some(helper) = Helper::of(intrinsic) {
            let name = self.helpers.need(helper, operand);
            return self.call(name, operands);
        }
        let name = match intrinsic {
            Intrinsic::Abs => "abs",
            Intrinsic::Sqrt => "sqrt",
            Intrinsic::Exp => "exp",
            Intrinsic::Log => "log",
            Intrinsic::Sin => "sin",
            Intrinsic::Cos => "cos",
            Intrinsic::Tan => "tan",
            Intrinsic::Asin => "asin",
            Intrinsic::Acos => "acos",
            Intrinsic::Atan | Intrinsic::Atan2 => "atan",
            Intrinsic::Sinh => "sinh",
            Intrinsic::Cosh => "cosh",
            Intrinsic::Tanh => "tanh",
            Intrinsic::Truncate => "trunc",
            Intrinsic::Floor => return self.wrapped("int(floor(", operands[0], "))"),
            Intrinsic::Ceiling => return self.wrapped("int(ceil(", operands[0], "))"),
            Intrinsic::And => return self.infix(operands[0], " & ", operands[1]),
            Intrinsic::Or => return self.infix(operands[0], " | ", operands[1]),
            Intrinsic::ExclusiveOr => return self.infix(operands[0], " ^ ", operands[1]),
            Intrinsic::Complement => return self.wrapped("(~", operands[0], ")"),
            _ => {
                // `merge`: both values are evaluated, and neither has an effect.
                self.ty(ty, span)?;
                if ty.is_real() && self.contract == Contract::Off {
                    // Mesa loses `precise` in `? :`.
                    return self.call("mix", &[operands[1], operands[0], operands[2]]);
                }
                self.wrapped("(", operands[2], " ? ")?;
                self.expression(operands[0])?;
                return self.wrapped(" : ", operands[1], ")");
            }
        };
        self.call(name, operands)
    }

    /// The value of a place.
    pub(super) fn load(&mut self, place: &Place, ty: Type) -> Write {
        if place.access == Access::Scalar {
            let text = self.scalar(place);
            return self.put(&text);
        }
        let as_number = ty == Type::Logical && self.is_buffer(place);
        self.put(if as_number { "(" } else { "" })?;
        self.put_element(place)?;
        self.put(if as_number { " != 0)" } else { "" })
    }

    /// Whether the place is in a buffer, where logical values are integers.
    pub(super) fn is_buffer(&self, place: &Place) -> bool {
        match self.code.variable(place.variable).kind {
            VariableKind::Argument(position) => {
                matches!(self.argument_kind(position), Some(ArgumentKind::Buffer(_)))
            }
            _ => false,
        }
    }

    /// A scalar variable or parameter.
    pub(super) fn scalar(&self, place: &Place) -> String {
        let name = self.name(place.variable);
        let variable = self.code.variable(place.variable);
        let VariableKind::Argument(position) = variable.kind else { return name.to_owned() };
        if self.argument_kind(position) != Some(&ArgumentKind::Scalar) {
            return name.to_owned();
        }
        let is_logical = variable.ty == Type::Logical;
        match self.parameters {
            Parameters::Uniform => name.to_owned(),
            Parameters::Buffer if is_logical => format!("(params.{name} != 0)"),
            Parameters::Buffer => format!("params.{name}"),
            Parameters::Inline if is_logical => format!("({name} != 0)"),
            Parameters::Inline => name.to_owned(),
        }
    }

    /// An element, as a place that can be read and written.
    pub(super) fn put_element(&mut self, place: &Place) -> Write {
        let name = self.name(place.variable).to_owned();
        self.put(&name)?;
        self.put("[")?;
        self.safe_address(place)?;
        self.put("]")
    }

    /// The position of an element in memory, checked if the text is.
    pub(super) fn safe_address(&mut self, place: &Place) -> Write {
        if !self.checked {
            return self.address(place);
        }
        let variable = self.code.variable(place.variable);
        let length = match &variable.kind {
            VariableKind::Private(fixed) | VariableKind::Shared(fixed) => {
                fixed.iter().map(|it| u64::from(it.extent)).product::<u64>().to_string()
            }
            _ => format!("int({}.length())", self.name(place.variable)),
        };
        let number = match self.owner {
            Owner::Procedure(_) => -1,
            _ => i64::from(place.variable.0),
        };
        self.put("sparkle_check(int(")?;
        self.address(place)?;
        self.put(&format!("), {length}, {}, {number})", place.span.line))
    }

    /// The position of an element in memory.
    pub(super) fn address(&mut self, place: &Place) -> Write {
        match &place.access {
            Access::Scalar => Ok(()),
            Access::Own => self.put("sparkle_index"),
            Access::Linear(id) => self.expression(*id),
            Access::Subscripts(subscripts) => self.subscripts(place, subscripts),
        }
    }

    /// Column-major: the last subscript is the outermost.
    fn subscripts(&mut self, place: &Place, subscripts: &[ExpressionId]) -> Write {
        let variable = &self.code.variable(place.variable).kind;
        let bounds: Vec<(String, String)> = match variable {
            VariableKind::Private(fixed) | VariableKind::Shared(fixed) => {
                fixed.iter().map(fixed_bounds).collect()
            }
            _ => (0..subscripts.len()).map(|axis| self.buffer_bounds(place, axis)).collect(),
        };
        for _ in 1..subscripts.len() {
            self.put("(")?;
        }
        for (axis, subscript) in subscripts.iter().enumerate().rev() {
            let (lower, extent) = &bounds[axis];
            if axis + 1 < subscripts.len() {
                self.put(&format!(" * {extent} + "))?;
            }
            if lower == "0" {
                self.expression(*subscript)?;
            } else {
                self.put("(")?;
                self.expression(*subscript)?;
                self.put(&format!(" - {lower})"))?;
            }
            if axis + 1 < subscripts.len() {
                self.put(")")?;
            }
        }
        Ok(())
    }

    /// The lower bound and the extent of one dimension of a buffer.
    pub(super) fn buffer_bounds(&self, place: &Place, axis: usize) -> (String, String) {
        let name = self.name(place.variable);
        let bound = |id: Option<ExpressionId>, what: &str| match id.and_then(|id| self.code.constant(id)) {
            Some(value) => literal(value),
            None => format!("sparkle_{what}{}_{name}", axis + 1),
        };
        let VariableKind::Argument(position) = self.code.variable(place.variable).kind else {
            return ("0".to_owned(), "1".to_owned());
        };
        match self.argument_kind(position) {
            Some(ArgumentKind::Buffer(buffer)) => match &buffer.shape {
                BufferShape::Array(dimensions) => {
                    let dimension = dimensions[axis];
                    (bound(Some(dimension.lower), "lower"), bound(dimension.extent, "extent"))
                }
                _ => ("0".to_owned(), "1".to_owned()),
            },
            _ => ("0".to_owned(), "1".to_owned()),
        }
    }
}

fn fixed_bounds(dimension: &FixedDimension) -> (String, String) {
    (literal(Value::Int32(dimension.lower)), dimension.extent.to_string())
}
