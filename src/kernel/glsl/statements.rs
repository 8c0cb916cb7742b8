//! Statements.

use crate::kernel::tree::{
    Access, Action, Actual, Block, Code, Contract, ExpressionId, LoopId, Operation, Place, Reduction,
    ReductionOperator, StatementId, Type, Value, VariableId,
};

use super::helpers::Helper;
use super::{Owner, Write, Writer};

/// The most statements that repeated bodies of a loop have together.
const MOST_REPEATED: usize = 512;

/// Constant numbers of iterations below this are not worth a longer text. Drivers may repeat such loops themselves.
const SHORT: i128 = 64;

/// What comes between two iterations of a loop.
enum Again {
    /// The loop ends where the condition is false.
    While(ExpressionId),
    /// These lines.
    Counted(Vec<String>),
    /// There is no second one in the text.
    Never,
}

/// The statements of a loop's body if it may be repeated: it has no loops, and neither `cycle` nor barriers.
fn statements(code: &Code, block: &Block) -> Option<usize> {
    let mut count = block.len();
    for id in block {
        match &code.statement(*id).action {
            Action::If { branches, otherwise } => {
                for (_, body) in branches {
                    count += statements(code, body)?;
                }
                count += statements(code, otherwise)?;
            }
            Action::Select { cases, otherwise, .. } => {
                for case in cases {
                    count += statements(code, &case.body)?;
                }
                count += statements(code, otherwise)?;
            }
            Action::Do { .. } | Action::While { .. } | Action::Cycle(_) | Action::Barrier => return None,
            _ => {}
        }
    }
    Some(count)
}

impl Writer<'_> {
    /// The statements of a block.
    pub(super) fn block(&mut self, block: &[StatementId]) -> Write {
        for id in block {
            self.statement(*id)?;
        }
        Ok(())
    }

    fn statement(&mut self, id: StatementId) -> Write {
        let code = self.code;
        match &code.statement(id).action {
            Action::Assign(place, value) => self.assign(place, *value),
            Action::If { branches, otherwise } => self.branches(branches, otherwise),
            Action::Select { selector, cases, otherwise } => {
                let ty = code.expression(*selector).ty;
                let name = self.temporary("selector");
                self.begin()?;
                let declared = format!("{}int {name} = int(", self.precise());
                self.put(&declared)?;
                self.ty(ty, code.expression(*selector).span)?;
                self.expression(*selector)?;
                self.put(");\n")?;
                let mut opened = false;
                for case in cases {
                    self.begin()?;
                    self.put(if opened { "} else if (" } else { "if (" })?;
                    self.ranges(&name, &case.ranges)?;
                    self.put(") {\n")?;
                    self.indent += 1;
                    self.block(&case.body)?;
                    self.indent -= 1;
                    opened = true;
                }
                if !otherwise.is_empty() {
                    self.line(if opened { "} else {" } else { "{" })?;
                    self.indent += 1;
                    self.block(otherwise)?;
                    self.indent -= 1;
                    opened = true;
                }
                if opened { self.line("}") } else { Ok(()) }
            }
            Action::Do { id, variable, first, last, step, body } => {
                self.counted(*id, *variable, [*first, *last, *step], body)
            }
            Action::While { id, condition, body } => self.conditional(*id, *condition, body),
            Action::Exit(id) => self.jump(*id, "exit", "break;"),
            Action::Cycle(id) => self.jump(*id, "cycle", "continue;"),
            Action::Return => {
                let text = self.return_text();
                self.line(&text)
            }
            Action::Barrier => {
                let shares = match self.owner {
                    Owner::Kernel(kernel) => super::entry::shares_buffers(kernel),
                    _ => false,
                };
                self.line(if shares { "memoryBarrier();" } else { "memoryBarrierShared();" })?;
                self.line("barrier();")
            }
            Action::Call(index, actuals) => self.call_statement(*index, actuals),
            Action::Reduce(index, value) => {
                let Owner::Kernel(kernel) = self.owner else { return Ok(()) };
                let reduction = &kernel.reductions[*index];
                let accumulator = format!("sparkle_accumulator{index}");
                self.begin()?;
                self.put(&format!("{accumulator} = "))?;
                let (before, after) = self.combination(reduction, &accumulator);
                self.put(&before)?;
                self.expression(*value)?;
                self.put(&after)?;
                self.put(";\n")
            }
        }
    }

    /// `return`, with the result of a function.
    pub(super) fn return_text(&self) -> String {
        let result = match self.owner {
            Owner::Procedure(procedure) => procedure.result,
            Owner::Epilogue(epilogue) => Some(epilogue.result),
            Owner::Kernel(_) => None,
        };
        match result {
            Some(result) => format!("return {};", self.name(result)),
            None => "return;".to_owned(),
        }
    }

    /// What stands before and after the second operand of a reduction's operator.
    pub(super) fn combination(&mut self, reduction: &Reduction, left: &str) -> (String, String) {
        let function = |name: &str| (format!("{name}({left}, "), ")".to_owned());
        match reduction.operator {
            ReductionOperator::Add => (format!("{left} + "), String::new()),
            ReductionOperator::Multiply => (format!("{left} * "), String::new()),
            ReductionOperator::And => (format!("{left} & "), String::new()),
            ReductionOperator::Or => (format!("{left} | "), String::new()),
            ReductionOperator::Min => function(self.helpers.need(Helper::Min, reduction.ty)),
            ReductionOperator::Max => function(self.helpers.need(Helper::Max, reduction.ty)),
        }
    }

    fn assign(&mut self, place: &Place, value: ExpressionId) -> Write {
        let ty = self.code.expression(value).ty;
        if place.access == Access::Scalar {
            let name = self.name(place.variable).to_owned();
            self.begin()?;
            self.put(&name)?;
            self.put(" = ")?;
            self.expression(value)?;
            return self.put(";\n");
        }
        let as_number = ty == Type::Logical && self.is_buffer(place);
        if let Some(temporary) = self.exact_if_needed(value)? {
            self.begin()?;
            self.put_element(place)?;
            let value =
                if as_number { format!(" = int({temporary});\n") } else { format!(" = {temporary};\n") };
            return self.put(&value);
        }
        self.begin()?;
        self.put_element(place)?;
        self.put(if as_number { " = int(" } else { " = " })?;
        self.expression(value)?;
        self.put(if as_number { ");\n" } else { ";\n" })
    }

    /// Whether nothing is computed.
    fn is_simple(&self, id: ExpressionId) -> bool {
        matches!(self.code.expression(id).operation, Operation::Constant(_) | Operation::Load(_))
    }

    /// A variable with the value of an expression, where it must be exact and is computed.
    pub(super) fn exact_if_needed(&mut self, value: ExpressionId) -> Write<Option<String>> {
        let is_needed = self.contract == Contract::Off && !self.is_simple(value);
        if is_needed { self.exact_value(value).map(Some) } else { Ok(None) }
    }

    /// Opens the braces of a condition.
    fn condition(&mut self, condition: ExpressionId, before: &str) -> Write {
        self.begin()?;
        self.put(before)?;
        self.expression(condition)?;
        self.put(") {\n")
    }

    /// A variable with the value of an expression: `precise` belongs to variables.
    fn exact_value(&mut self, id: ExpressionId) -> Write<String> {
        let expression = self.code.expression(id);
        let ty = self.ty(expression.ty, expression.span)?;
        let name = self.temporary("value");
        self.begin()?;
        self.put(&format!("precise {ty} {name} = "))?;
        self.expression(id)?;
        self.put(";\n")?;
        Ok(name)
    }

    fn branches(&mut self, branches: &[(ExpressionId, Block)], otherwise: &Block) -> Write {
        let mut nested = 0;
        for (position, (condition, body)) in branches.iter().enumerate() {
            if self.contract == Contract::Off {
                if position > 0 {
                    self.line("} else {")?;
                    self.indent += 1;
                    nested += 1;
                }
                let name = self.exact_value(*condition)?;
                self.line(&format!("if ({name}) {{"))?;
            } else {
                self.condition(*condition, if position == 0 { "if (" } else { "} else if (" })?;
            }
            self.indent += 1;
            self.block(body)?;
            self.indent -= 1;
        }
        if !otherwise.is_empty() {
            self.line("} else {")?;
            self.indent += 1;
            self.block(otherwise)?;
            self.indent -= 1;
        }
        self.line("}")?;
        for _ in 0..nested {
            self.close("}")?;
        }
        Ok(())
    }

    fn ranges(&mut self, name: &str, ranges: &[(i64, i64)]) -> Write {
        if ranges.is_empty() {
            return self.put("false");
        }
        let number = |value: i64| super::constants::literal(Value::Int32(value as i32));
        for (position, (low, high)) in ranges.iter().enumerate() {
            self.put(if position == 0 { "" } else { " || " })?;
            let (from, to) = (*low > i32::MIN.into(), *high < i32::MAX.into());
            let text = match (from, to) {
                _ if low == high => format!("{name} == {}", number(*low)),
                (true, true) => format!("({name} >= {} && {name} <= {})", number(*low), number(*high)),
                (true, false) => format!("{name} >= {}", number(*low)),
                (false, true) => format!("{name} <= {}", number(*high)),
                (false, false) => "true".to_owned(),
            };
            self.put(&text)?;
        }
        Ok(())
    }

    /// A jump to the innermost loop, or to one further out through a flag.
    fn jump(&mut self, id: LoopId, what: &str, direct: &str) -> Write {
        if self.loops.open.last() == Some(&id) {
            return self.line(direct);
        }
        self.line(&format!("sparkle_{what}{} = true;", id.0))?;
        self.line("break;")
    }

    /// What comes after an inner loop: jumps go on outwards.
    fn escapes(&mut self, id: LoopId) -> Write {
        let escapes = std::mem::take(&mut self.loops.escapes[id.0 as usize]);
        for target in &escapes {
            let direct = self.loops.open.last() == Some(target);
            let index = target.0 as usize;
            if self.loops.exits[index] {
                self.line(&format!("if (sparkle_exit{index}) break;"))?;
            }
            if self.loops.cycles[index] {
                let jump = if direct { "continue" } else { "break" };
                self.line(&format!("if (sparkle_cycle{index}) {jump};"))?;
            }
        }
        Ok(())
    }

    /// The statements of a loop, perhaps several times, with `again` between them.
    fn body(&mut self, id: LoopId, body: &Block, again: &Again) -> Write {
        self.indent += 1;
        if self.loops.cycles[id.0 as usize] {
            self.line(&format!("bool sparkle_cycle{} = false;", id.0))?;
        }
        self.loops.open.push(id);
        let result = self.repeated(body, again);
        self.loops.open.pop();
        result?;
        self.close("}")
    }

    fn repeated(&mut self, body: &Block, again: &Again) -> Write {
        let repeated = match statements(self.code, body) {
            Some(count) if self.repeated > 1 && !matches!(again, Again::Never) => {
                self.repeated.min((MOST_REPEATED / count.max(1)) as u32)
            }
            _ => 1,
        };
        self.block(body)?;
        for _ in 1..repeated {
            match again {
                Again::While(condition) => self.leave_unless(*condition)?,
                Again::Counted(lines) => {
                    for line in lines {
                        self.line(line)?;
                    }
                }
                Again::Never => {}
            }
            self.block(body)?;
        }
        Ok(())
    }

    /// Leaves a loop whose condition is false.
    fn leave_unless(&mut self, condition: ExpressionId) -> Write {
        if self.contract == Contract::Off && self.code.constant(condition).is_none() {
            let name = self.exact_value(condition)?;
            return self.line(&format!("if (!{name}) break;"));
        }
        self.begin()?;
        self.put("if (!(")?;
        self.expression(condition)?;
        self.put(")) break;\n")
    }

    fn conditional(&mut self, id: LoopId, condition: ExpressionId, body: &Block) -> Write {
        if self.loops.exits[id.0 as usize] {
            self.line(&format!("bool sparkle_exit{} = false;", id.0))?;
        }
        if self.contract == Contract::Off && self.code.constant(condition).is_none() {
            self.line("for (;;) {")?;
            self.indent += 1;
            self.leave_unless(condition)?;
            self.indent -= 1;
        } else {
            self.condition(condition, "while (")?;
        }
        self.body(id, body, &Again::While(condition))?;
        self.escapes(id)
    }

    fn counted(
        &mut self,
        id: LoopId,
        variable: VariableId,
        bounds: [ExpressionId; 3],
        body: &Block,
    ) -> Write {
        if self.loops.exits[id.0 as usize] {
            self.line(&format!("bool sparkle_exit{} = false;", id.0))?;
        }
        let name = self.name(variable).to_owned();
        let constants = bounds.map(|bound| self.code.constant(bound).and_then(Value::integer));
        if let [Some(first), Some(last), Some(step)] = constants
            && (i64::from(i32::MIN)..=i64::from(i32::MAX)).contains(&(last + step))
        {
            let (test, number) = (if step > 0 { "<=" } else { ">=" }, |value| {
                super::constants::literal(Value::Int32(value as i32))
            });
            let head = format!(
                "for ({name} = {}; {name} {test} {}; {name} += {}) {{",
                number(first),
                number(last),
                number(step)
            );
            self.line(&head)?;
            let again = format!(
                "if (({name} += {}) {} {}) break;",
                number(step),
                if step > 0 { ">" } else { "<" },
                number(last)
            );
            let is_short = (i128::from(last) - i128::from(first)) / i128::from(step) < SHORT;
            let again = if is_short { Again::Never } else { Again::Counted(vec![again]) };
            self.body(id, body, &again)?;
            return self.escapes(id);
        }
        let temporaries = ["first", "last", "step"].map(|what| self.temporary(what));
        for (bound, temporary) in bounds.iter().zip(&temporaries) {
            let span = self.code.expression(*bound).span;
            let ty = self.ty(self.code.expression(*bound).ty, span)?;
            self.begin()?;
            let declared = format!("{}{ty} {temporary} = ", self.precise());
            self.put(&declared)?;
            self.expression(*bound)?;
            self.put(";\n")?;
        }
        let [first, last, step] = temporaries;
        let trips = self.temporary("trips");
        let function = self.helpers.need(Helper::Trips, Type::Int32);
        self.line(&format!("{name} = {first};"))?;
        self.line(&format!(
            "for (uint {trips} = {function}({first}, {last}, {step}); {trips} != 0u; --{trips}, {name} += {step}) {{"
        ))?;
        let again = vec![format!("{name} += {step};"), format!("if (--{trips} == 0u) break;")];
        self.body(id, body, &Again::Counted(again))?;
        self.escapes(id)
    }

    /// A call. Elements are copied in and out through variables, so that their subscripts are evaluated once.
    fn call_statement(&mut self, index: usize, actuals: &[Actual]) -> Write {
        let (mut copies, mut values) = (Vec::new(), Vec::new());
        for actual in actuals {
            let place = match actual {
                Actual::Place(place) => place,
                Actual::Value(id) => {
                    let exact = self.contract == Contract::Off && !self.is_simple(*id);
                    values.push(if exact { Some(self.exact_value(*id)?) } else { None });
                    copies.push(None);
                    continue;
                }
            };
            values.push(None);
            if place.access == Access::Scalar {
                copies.push(None);
                continue;
            }
            let variable = self.code.variable(place.variable);
            let (ty, span) = (variable.ty, variable.span);
            let name = self.ty(ty, span)?;
            let (at, value) = (self.temporary("at"), self.temporary("value"));
            self.begin()?;
            self.put(&format!("int {at} = int("))?;
            self.safe_address(place)?;
            self.put(");\n")?;
            let array = self.name(place.variable).to_owned();
            let as_number = ty == Type::Logical && self.is_buffer(place);
            let loaded = if as_number { format!("({array}[{at}] != 0)") } else { format!("{array}[{at}]") };
            let declared = format!("{}{name} {value} = {loaded};", self.precise());
            self.line(&declared)?;
            copies.push(Some((array, at, value, as_number)));
        }
        self.begin()?;
        let name = self.procedures[index].clone();
        self.put(&name)?;
        self.put("(")?;
        for (position, (actual, copy)) in actuals.iter().zip(&copies).enumerate() {
            self.put(if position == 0 { "" } else { ", " })?;
            match (actual, copy) {
                (Actual::Value(_), _) if values[position].is_some() => {
                    let value = values[position].clone().unwrap_or_default();
                    self.put(&value)?;
                }
                (Actual::Value(id), _) => self.expression(*id)?,
                (_, Some((_, _, value, _))) => self.put(value)?,
                (Actual::Place(place), None) => {
                    let name = self.name(place.variable).to_owned();
                    self.put(&name)?;
                }
            }
        }
        self.put(");\n")?;
        for (array, at, value, as_number) in copies.into_iter().flatten() {
            let value = if as_number { format!("int({value})") } else { value };
            self.line(&format!("{array}[{at}] = {value};"))?;
        }
        Ok(())
    }
}
