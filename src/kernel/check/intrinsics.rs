//! Intrinsic functions.

use crate::kernel::diagnostics::{Code as Message, Diagnostic, Step};
use crate::kernel::fold;
use crate::kernel::span::Span;
use crate::kernel::syntax::{Argument, BaseType, Expression, ExpressionKind, Name};
use crate::kernel::tree::{
    BufferShape, ExpressionId, Intrinsic, Operation, Operator, Type, Value, VariableId, VariableKind,
};

use super::Checker;
use super::operators::common;
use super::scope::Meaning;

/// The names of all intrinsics.
pub(super) const NAMES: &[&str] = &[
    "abs",
    "min",
    "max",
    "sqrt",
    "exp",
    "log",
    "log10",
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "atan2",
    "sinh",
    "cosh",
    "tanh",
    "floor",
    "ceiling",
    "int",
    "nint",
    "aint",
    "real",
    "dble",
    "mod",
    "modulo",
    "sign",
    "dim",
    "merge",
    "iand",
    "ior",
    "ieor",
    "not",
    "ishft",
    "btest",
    "huge",
    "tiny",
    "epsilon",
    "size",
    "lbound",
    "ubound",
    "kind",
    "selected_int_kind",
    "selected_real_kind",
];

/// The shape of an intrinsic's argument list.
#[derive(Clone, Copy)]
enum Form {
    /// One real argument, a result of its type.
    Real(Intrinsic),
    /// One number, a result of its type.
    Number(Intrinsic),
    /// Two real arguments of one type.
    TwoReals(Intrinsic),
    /// Two numbers of one type.
    TwoNumbers(Intrinsic),
    /// Two integers of one type.
    TwoIntegers(Intrinsic),
    /// Two numbers or more, of a common type.
    Many(Intrinsic),
    /// One real argument, an integer result.
    ToInteger(Intrinsic),
}

fn form(name: &str) -> Option<Form> {
    Some(match name {
        "abs" => Form::Number(Intrinsic::Abs),
        "min" => Form::Many(Intrinsic::Min),
        "max" => Form::Many(Intrinsic::Max),
        "sqrt" => Form::Real(Intrinsic::Sqrt),
        "exp" => Form::Real(Intrinsic::Exp),
        "log" => Form::Real(Intrinsic::Log),
        "log10" => Form::Real(Intrinsic::Log10),
        "sin" => Form::Real(Intrinsic::Sin),
        "cos" => Form::Real(Intrinsic::Cos),
        "tan" => Form::Real(Intrinsic::Tan),
        "asin" => Form::Real(Intrinsic::Asin),
        "acos" => Form::Real(Intrinsic::Acos),
        "atan2" => Form::TwoReals(Intrinsic::Atan2),
        "sinh" => Form::Real(Intrinsic::Sinh),
        "cosh" => Form::Real(Intrinsic::Cosh),
        "tanh" => Form::Real(Intrinsic::Tanh),
        "aint" => Form::Real(Intrinsic::Truncate),
        "floor" => Form::ToInteger(Intrinsic::Floor),
        "ceiling" => Form::ToInteger(Intrinsic::Ceiling),
        "nint" => Form::ToInteger(Intrinsic::Nint),
        "mod" => Form::TwoNumbers(Intrinsic::Mod),
        "modulo" => Form::TwoNumbers(Intrinsic::Modulo),
        "sign" => Form::TwoNumbers(Intrinsic::Sign),
        "dim" => Form::TwoNumbers(Intrinsic::Dim),
        "iand" => Form::TwoIntegers(Intrinsic::And),
        "ior" => Form::TwoIntegers(Intrinsic::Or),
        "ieor" => Form::TwoIntegers(Intrinsic::ExclusiveOr),
        _ => return None,
    })
}

impl<'a> Checker<'a, '_, '_> {
    /// An intrinsic function, if there is one of this name.
    pub(super) fn intrinsic(
        &mut self,
        name: Name<'a>,
        arguments: &[Argument<'a>],
        span: Span,
    ) -> Option<Step<ExpressionId>> {
        let word = NAMES.iter().find(|it| it.eq_ignore_ascii_case(name.text))?;
        Some(self.known_intrinsic(word, arguments, span))
    }

    fn known_intrinsic(&mut self, word: &str, arguments: &[Argument<'a>], span: Span) -> Step<ExpressionId> {
        if matches!(word, "size" | "lbound" | "ubound") {
            return self.inquiry(word, arguments, span);
        }
        let (kind, positional) = self.split_kind(word, arguments)?;
        if matches!(word, "int" | "real" | "dble") {
            return self.conversion(word, kind, &positional, span);
        }
        if matches!(word, "huge" | "tiny" | "epsilon" | "kind" | "selected_int_kind" | "selected_real_kind") {
            return self.model(word, &positional, span);
        }
        let mut all = Vec::new();
        for argument in &positional {
            let id = self.expression(argument)?;
            crate::allocate::push(&mut all, id, super::WHAT)?;
        }
        let two = |checker: &mut Self, ids: &[ExpressionId]| checker.same_type(word, ids, span);
        match (form(word), &all[..]) {
            (Some(Form::Real(intrinsic)), [one]) => {
                if !self.ty(*one).is_real() {
                    return self.operand(*one, format!("`{word}` needs a real argument"));
                }
                self.apply(intrinsic, vec![*one], self.ty(*one), span)
            }
            (Some(Form::Number(intrinsic)), [one]) => {
                if self.ty(*one) == Type::Logical {
                    return self.operand(*one, format!("`{word}` needs a number"));
                }
                self.apply(intrinsic, vec![*one], self.ty(*one), span)
            }
            (Some(Form::TwoReals(intrinsic)), [one, other]) => {
                let ty = two(self, &all)?;
                if !ty.is_real() {
                    return self.operand(*one, format!("`{word}` needs real arguments"));
                }
                self.apply(intrinsic, vec![*one, *other], ty, span)
            }
            (Some(Form::TwoNumbers(intrinsic)), [one, other]) => {
                let ty = two(self, &all)?;
                let by_zero = matches!(intrinsic, Intrinsic::Mod | Intrinsic::Modulo)
                    && self.state.code.constant(*other).and_then(Value::integer) == Some(0);
                if by_zero {
                    return self.error(Message::ConstantDivision, span, "a constant is divided by zero");
                }
                self.apply(intrinsic, vec![*one, *other], ty, span)
            }
            (Some(Form::TwoIntegers(intrinsic)), [one, other]) => {
                let ty = two(self, &all)?;
                if !ty.is_integer() {
                    return self.operand(*one, format!("`{word}` needs integers"));
                }
                self.apply(intrinsic, vec![*one, *other], ty, span)
            }
            (Some(Form::Many(intrinsic)), [first, second, ..]) => {
                let mut ty = self.ty(*first);
                for id in &all {
                    match common(ty, self.ty(*id)) {
                        Some(it) => ty = it,
                        None => return self.operand(*id, format!("`{word}` needs numbers")),
                    }
                }
                let (first, second) = (self.convert(*first, ty)?, self.convert(*second, ty)?);
                let mut result = self.apply(intrinsic, vec![first, second], ty, span)?;
                for id in &all[2..] {
                    let next = self.convert(*id, ty)?;
                    result = self.apply(intrinsic, vec![result, next], ty, span)?;
                }
                Ok(result)
            }
            (Some(Form::ToInteger(intrinsic)), [one]) => {
                if !self.ty(*one).is_real() {
                    return self.operand(*one, format!("`{word}` needs a real argument"));
                }
                let ty = self.kind_of(BaseType::Integer, kind, Type::Int32)?;
                self.apply(intrinsic, vec![*one], ty, span)
            }
            _ => self.special_form(word, &all, span),
        }
    }

    /// `atan`, `merge`, `not`, `ishft`, `btest`, and what has the wrong number of arguments.
    fn special_form(&mut self, word: &str, all: &[ExpressionId], span: Span) -> Step<ExpressionId> {
        match (word, all) {
            ("atan", [one]) if self.ty(*one).is_real() => {
                self.apply(Intrinsic::Atan, vec![*one], self.ty(*one), span)
            }
            ("atan", [one]) => self.operand(*one, "`atan` needs a real argument"),
            ("atan", [one, other]) => {
                let ty = self.same_type(word, all, span)?;
                if !ty.is_real() {
                    return self.operand(*one, "`atan` needs real arguments");
                }
                self.apply(Intrinsic::Atan2, vec![*one, *other], ty, span)
            }
            ("merge", [one, other, mask]) => {
                if self.ty(*mask) != Type::Logical {
                    return self.operand(*mask, "the third argument of `merge` is a logical value");
                }
                if self.ty(*one) != self.ty(*other) {
                    return self.unlike(word, *one, *other, span);
                }
                self.apply(Intrinsic::Merge, vec![*one, *other, *mask], self.ty(*one), span)
            }
            ("not", [one]) => {
                if !self.ty(*one).is_integer() {
                    return self.operand(*one, "`not` needs an integer; `.not.` is for logical values");
                }
                self.apply(Intrinsic::Complement, vec![*one], self.ty(*one), span)
            }
            ("ishft" | "btest", [one, other]) => {
                for id in [one, other] {
                    if !self.ty(*id).is_integer() {
                        return self.operand(*id, format!("`{word}` needs integers"));
                    }
                }
                let by = self.convert(*other, Type::Int32)?;
                let ty = self.ty(*one);
                if word == "ishft" {
                    return self.apply(Intrinsic::Shift, vec![*one, by], ty, span);
                }
                self.apply(Intrinsic::TestBit, vec![*one, by], Type::Logical, span)
            }
            _ => {
                let expected = match word {
                    "merge" => "three arguments",
                    "min" | "max" => "two arguments or more",
                    "atan" => "one or two arguments",
                    "atan2" | "mod" | "modulo" | "sign" | "dim" | "iand" | "ior" | "ieor" | "ishft"
                    | "btest" => "two arguments",
                    _ => "one argument",
                };
                let message = format!("`{word}` has {expected}, not {}", all.len());
                self.error(Message::IntrinsicArguments, span, message)
            }
        }
    }

    /// An intrinsic, folded if its operands are constants.
    fn apply(
        &mut self,
        intrinsic: Intrinsic,
        operands: Vec<ExpressionId>,
        ty: Type,
        span: Span,
    ) -> Step<ExpressionId> {
        let mut values = [Value::Logical(false); 3];
        let mut constant = true;
        for (value, id) in values.iter_mut().zip(&operands) {
            match self.state.code.constant(*id) {
                Some(it) => *value = it,
                None => constant = false,
            }
        }
        let folded = if constant { fold::intrinsic(intrinsic, ty, &values[..operands.len()]) } else { None };
        self.folded(folded, Operation::Intrinsic(intrinsic, operands), ty, span)
    }

    /// The one type of two numbers.
    fn same_type(&mut self, word: &str, ids: &[ExpressionId], span: Span) -> Step<Type> {
        let ty = self.ty(ids[0]);
        if ty == Type::Logical {
            return self.operand(ids[0], format!("`{word}` needs numbers"));
        }
        if self.ty(ids[1]) != ty {
            return self.unlike(word, ids[0], ids[1], span);
        }
        Ok(ty)
    }

    fn unlike<T>(&mut self, word: &str, one: ExpressionId, other: ExpressionId, span: Span) -> Step<T> {
        let message = format!(
            "`{word}` needs arguments of one type, not {} and {}",
            self.ty(one).fortran(),
            self.ty(other).fortran()
        );
        self.error(Message::IntrinsicArguments, span, message)
    }

    /// The arguments without `kind=`.
    #[allow(clippy::type_complexity)]
    fn split_kind<'e>(
        &mut self,
        word: &str,
        arguments: &'e [Argument<'a>],
    ) -> Step<(Option<&'e Expression<'a>>, Vec<&'e Expression<'a>>)> {
        let takes_kind = matches!(word, "int" | "real" | "nint" | "floor" | "ceiling");
        let mut kind = None;
        let mut positional = Vec::new();
        for argument in arguments {
            match argument.keyword {
                Some(keyword) if takes_kind && keyword.text.eq_ignore_ascii_case("kind") => {
                    kind = Some(&argument.value);
                }
                Some(keyword) => {
                    let message = format!("`{word}` takes no argument by the name `{}`", keyword.text);
                    let diagnostic = Diagnostic::new(Message::UnknownKeyword, keyword.span, message);
                    return self.sink.fail(diagnostic.help("give arguments in order"));
                }
                None => crate::allocate::push(&mut positional, &argument.value, super::WHAT)?,
            }
        }
        if takes_kind && positional.len() == 2 && kind.is_none() {
            kind = positional.pop();
        }
        Ok((kind, positional))
    }

    /// The type of a kind argument.
    fn kind_of(&mut self, base: BaseType, kind: Option<&Expression<'a>>, default: Type) -> Step<Type> {
        let Some(kind) = kind else { return Ok(default) };
        let id = self.expression(kind)?;
        match self.state.code.constant(id).and_then(Value::integer) {
            Some(bytes) => self.kind_type(base, bytes, kind.span),
            None => self.error(Message::KindArgument, kind.span, "a kind must be an integer constant"),
        }
    }

    fn conversion(
        &mut self,
        word: &str,
        kind: Option<&Expression<'a>>,
        arguments: &[&Expression<'a>],
        span: Span,
    ) -> Step<ExpressionId> {
        let [argument] = arguments else {
            let message = format!("`{word}` has one argument and perhaps a kind, not {}", arguments.len());
            return self.error(Message::IntrinsicArguments, span, message);
        };
        let ty = match word {
            "int" => self.kind_of(BaseType::Integer, kind, Type::Int32)?,
            "real" => {
                // `real(x)` of a real(real64) is a default real, too.
                self.kind_of(BaseType::Real, kind, Type::Real32)?
            }
            _ => Type::Real64,
        };
        if let ExpressionKind::Boz(text) = argument.kind {
            return self.boz(text, ty, argument.span);
        }
        let id = self.expression(argument)?;
        if self.ty(id) == Type::Logical {
            return self.operand(id, format!("`{word}` needs a number"));
        }
        self.convert(id, ty)
    }

    /// The number with the bits of a constant such as `z'3f800000'`.
    fn boz(&mut self, text: &str, ty: Type, span: Span) -> Step<ExpressionId> {
        let radix = match text.as_bytes()[0] | 32 {
            b'z' => 16,
            b'o' => 8,
            _ => 2,
        };
        let digits = text.get(2..text.len() - 1).unwrap_or("");
        let bits = u64::from_str_radix(digits, radix).ok();
        let value = match (ty, bits) {
            (Type::Int64, Some(bits)) => Some(Value::Int64(bits as i64)),
            (Type::Real64, Some(bits)) => Some(Value::Real64(f64::from_bits(bits))),
            (Type::Real32, Some(bits)) => {
                u32::try_from(bits).ok().map(|it| Value::Real32(f32::from_bits(it)))
            }
            (_, Some(bits)) => u32::try_from(bits).ok().map(|it| Value::Int32(it as i32)),
            (_, None) => None,
        };
        match value {
            Some(value) => self.constant(value, span),
            None => {
                let message = format!("{} does not fit {}", crate::error::clipped(text), ty.fortran());
                self.error(Message::LiteralRange, span, message)
            }
        }
    }

    /// Functions of a type, which are constants.
    fn model(&mut self, word: &str, arguments: &[&Expression<'a>], span: Span) -> Step<ExpressionId> {
        let Some(first) = arguments.first() else {
            return self.error(Message::IntrinsicArguments, span, format!("`{word}` needs an argument"));
        };
        if let "selected_int_kind" | "selected_real_kind" = word {
            // The most decimal digits, and the most decimal exponent, of the two kinds.
            let limits = if word == "selected_int_kind" { &[(9, 18)][..] } else { &[(6, 15), (37, 307)] };
            if arguments.len() > limits.len() {
                let message = format!("`{word}` has {} argument(s), not {}", limits.len(), arguments.len());
                return self.error(Message::IntrinsicArguments, span, message);
            }
            let mut kind = 4;
            for (argument, (small, large)) in arguments.iter().zip(limits) {
                let id = self.expression(argument)?;
                kind = kind.max(match self.state.code.constant(id).and_then(Value::integer) {
                    Some(asked) if asked <= *small => 4,
                    Some(asked) if asked <= *large => 8,
                    Some(_) => 16,
                    None => {
                        let message = "the argument must be an integer constant";
                        return self.error(Message::NotConstant, argument.span, message);
                    }
                });
            }
            return self.constant(Value::Int32(kind), span);
        }
        if arguments.len() != 1 {
            let message = format!("`{word}` has one argument, not {}", arguments.len());
            return self.error(Message::IntrinsicArguments, span, message);
        }
        let ty = self.type_of(first)?;
        let value = match (word, ty) {
            ("kind", _) => Value::Int32(ty.bytes() as i32),
            ("huge", Type::Int32) => Value::Int32(i32::MAX),
            ("huge", Type::Int64) => Value::Int64(i64::MAX),
            ("huge", Type::Real32) => Value::Real32(f32::MAX),
            ("huge", Type::Real64) => Value::Real64(f64::MAX),
            ("tiny", Type::Real32) => Value::Real32(f32::MIN_POSITIVE),
            ("tiny", Type::Real64) => Value::Real64(f64::MIN_POSITIVE),
            ("epsilon", Type::Real32) => Value::Real32(f32::EPSILON),
            ("epsilon", Type::Real64) => Value::Real64(f64::EPSILON),
            _ => {
                let message = format!("`{word}` is not defined for {}", ty.fortran());
                return self.error(Message::IntrinsicArguments, first.span, message);
            }
        };
        self.constant(value, span)
    }

    /// The type of an argument that is not evaluated. It may be an array.
    fn type_of(&mut self, argument: &Expression<'a>) -> Step<Type> {
        if let ExpressionKind::Name(name) = argument.kind
            && let Some(Meaning::Variable(id)) = self.state.scope.find(name.text).map(|entry| entry.meaning)
        {
            return Ok(self.state.code.variable(id).ty);
        }
        let id = self.expression(argument)?;
        Ok(self.ty(id))
    }

    /// `size`, `lbound` and `ubound`.
    fn inquiry(&mut self, word: &str, arguments: &[Argument<'a>], span: Span) -> Step<ExpressionId> {
        let (array, dim) = match arguments {
            [array] => (array, None),
            [array, dim] if dim.keyword.is_none_or(|it| it.text.eq_ignore_ascii_case("dim")) => {
                (array, Some(dim))
            }
            _ => {
                let message = format!("`{word}` has an array and perhaps a dimension as arguments");
                return self.error(Message::IntrinsicArguments, span, message);
            }
        };
        let ExpressionKind::Name(name) = array.value.kind else {
            let message = format!("the argument of `{word}` must be the name of an array");
            return self.error(Message::IntrinsicArguments, array.value.span, message);
        };
        let id = self.variable_of(name)?;
        let Some(dimensions) = self.all_dimensions(id, span)? else {
            let message = format!("`{}` is not an array", name.text);
            return self.error(Message::NotAnArray, name.span, message);
        };
        let axis = match dim {
            Some(dim) => {
                let value = self.expression(&dim.value)?;
                let axis = self.state.code.constant(value).and_then(Value::integer);
                match axis.filter(|axis| (1..=dimensions.len() as i64).contains(axis)) {
                    Some(axis) => Some(axis as usize - 1),
                    None => {
                        let message =
                            format!("the dimension must be a constant from 1 to {}", dimensions.len());
                        return self.error(Message::IntrinsicArguments, dim.value.span, message);
                    }
                }
            }
            None if word == "size" => None,
            None => {
                let message = format!("`{word}` needs a dimension as its second argument");
                return self.error(Message::IntrinsicArguments, span, message);
            }
        };
        let chosen = match axis {
            Some(axis) => &dimensions[axis..=axis],
            None => &dimensions[..],
        };
        if word == "lbound" {
            return Ok(chosen[0].0);
        }
        let mut product = None;
        for (lower, extent) in chosen {
            let Some(extent) = *extent else {
                let message = format!("the last dimension of `{}` has no upper bound", name.text);
                return self.error(Message::IntrinsicArguments, name.span, message);
            };
            if word == "ubound" {
                let last = self.folded_binary(Operator::Add, *lower, extent, span)?;
                let one = self.constant(Value::Int32(1), span)?;
                return self.folded_binary(Operator::Subtract, last, one, span);
            }
            let zero = self.constant(Value::Int32(0), span)?;
            let extent = match self.state.code.expression(extent).operation {
                Operation::Constant(_) | Operation::Length(_) => extent,
                _ => self.apply(Intrinsic::Max, vec![extent, zero], Type::Int32, span)?,
            };
            product = Some(match product {
                Some(product) => self.folded_binary(Operator::Multiply, product, extent, span)?,
                None => extent,
            });
        }
        match product {
            Some(product) => Ok(product),
            None => self.error(Message::IntrinsicArguments, span, "an array has dimensions"),
        }
    }

    /// Lower bounds and extents of an array.
    #[allow(clippy::type_complexity)]
    fn all_dimensions(
        &mut self,
        id: VariableId,
        span: Span,
    ) -> Step<Option<Vec<(ExpressionId, Option<ExpressionId>)>>> {
        if let Some(BufferShape::Array(dimensions)) = self.buffer_shape(id) {
            return Ok(Some(dimensions.iter().map(|it| (it.lower, it.extent)).collect()));
        }
        if let Some(BufferShape::Element { .. }) = self.buffer_shape(id) {
            let lower = self.constant(Value::Int32(0), span)?;
            let extent = self.emit(Operation::Length(id), Type::Int32, span)?;
            return Ok(Some(vec![(lower, Some(extent))]));
        }
        let fixed = match &self.state.code.variable(id).kind {
            VariableKind::Private(fixed) | VariableKind::Shared(fixed) => fixed.clone(),
            _ => return Ok(None),
        };
        let mut all = Vec::new();
        for one in fixed {
            let lower = self.constant(Value::Int32(one.lower), span)?;
            let extent = self.constant(Value::Int32(one.extent as i32), span)?;
            all.push((lower, Some(extent)));
        }
        Ok(Some(all))
    }
}
