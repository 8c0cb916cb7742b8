//! The checked tree as text: one statement a line, with its source line in front. Expressions are written as the
//! functions that the compiler resolved them to; constants have their type after an underscore.

use std::fmt::Write;

use sparkle::kernel::tree::{
    Access, Action, Actual, Argument, ArgumentKind, BufferShape, Code, Contract, Epilogue, ExpressionId,
    FixedDimension, Intent, Kernel, LocalSize, Operation, Place, Procedure, Type, Uniformity, Unit, Value,
    VariableKind,
};

/// Kernels and epilogues with the procedures of their file.
pub fn text(unit: &Unit, kernels: &[&Kernel], epilogues: &[&Epilogue]) -> String {
    let mut all = String::new();
    for procedure in &unit.procedures {
        all += &Printer::new(unit, &procedure.code, &[]).procedure(procedure);
    }
    for kernel in kernels {
        all += &Printer::new(unit, &kernel.code, &kernel.arguments).kernel(kernel);
    }
    for epilogue in epilogues {
        all += &Printer::new(unit, &epilogue.code, &epilogue.arguments).epilogue(epilogue);
    }
    all
}

/// Writes one kernel, epilogue or procedure.
struct Printer<'t> {
    unit: &'t Unit,
    code: &'t Code,
    arguments: &'t [Argument],
    out: String,
}

fn lower(debug: impl std::fmt::Debug) -> String {
    format!("{debug:?}").to_lowercase()
}

fn contract(contract: Contract) -> &'static str {
    match contract {
        Contract::Fast => "contract=fast",
        Contract::Off => "contract=off",
    }
}

fn intent(intent: Intent) -> &'static str {
    match intent {
        Intent::In => "intent(in)",
        Intent::Out => "intent(out)",
        Intent::InOut => "intent(inout)",
    }
}

fn ty(ty: Type) -> &'static str {
    match ty {
        Type::Int32 => "int32",
        Type::Int64 => "int64",
        Type::Real32 => "real32",
        Type::Real64 => "real64",
        Type::Logical => "logical",
    }
}

fn constant(value: Value) -> String {
    match value {
        Value::Int32(value) => format!("{value}_int32"),
        Value::Int64(value) => format!("{value}_int64"),
        Value::Real32(value) => format!("{value:?}_real32"),
        Value::Real64(value) => format!("{value:?}_real64"),
        Value::Logical(value) => format!(".{value}."),
    }
}

fn fixed(dimensions: &[FixedDimension]) -> String {
    let bounds = dimensions.iter().map(|it| {
        let upper = i64::from(it.lower) + i64::from(it.extent) - 1;
        format!("{}:{upper}", it.lower)
    });
    bounds.collect::<Vec<_>>().join(", ")
}

impl<'t> Printer<'t> {
    fn new(unit: &'t Unit, code: &'t Code, arguments: &'t [Argument]) -> Self {
        Printer { unit, code, arguments, out: String::new() }
    }

    fn line(&mut self, depth: usize, text: impl std::fmt::Display) {
        let _ = writeln!(self.out, "{:width$}{text}", "", width = 2 * depth);
    }

    fn kernel(mut self, kernel: &Kernel) -> String {
        let size = match kernel.local_size {
            LocalSize::Auto => "auto".to_owned(),
            LocalSize::Fixed([x, y, z]) => format!("[{x}, {y}, {z}]"),
        };
        let guard = if kernel.cooperative { "whole workgroups" } else { "guarded" };
        let legacy = if kernel.legacy { ", legacy form" } else { "" };
        let (name, contract) = (&kernel.name, contract(kernel.contract));
        self.line(
            0,
            format_args!(
                "kernel {name} (dims={}, base={}, local_size={size}, {contract}, {guard}{legacy})",
                kernel.dims, kernel.base
            ),
        );
        self.declarations();
        for reduction in &kernel.reductions {
            let name = &kernel.arguments[reduction.argument].name;
            self.line(1, format_args!("reduction {} of {name}", lower(reduction.operator)));
        }
        self.block(1, &self.code.body);
        self.out
    }

    fn epilogue(mut self, epilogue: &Epilogue) -> String {
        let (name, base, contract) = (&epilogue.name, epilogue.base, contract(epilogue.contract));
        let result = &self.code.variable(epilogue.result).name;
        self.line(0, format_args!("epilogue {name} (base={base}, {contract}) result {result}"));
        self.declarations();
        self.block(1, &self.code.body);
        self.out
    }

    fn procedure(mut self, procedure: &Procedure) -> String {
        let result = match procedure.result {
            Some(result) => format!(" result {}", self.code.variable(result).name),
            None => String::new(),
        };
        self.line(0, format_args!("procedure {}{result}", procedure.name));
        self.declarations();
        self.block(1, &self.code.body);
        self.out
    }

    fn declarations(&mut self) {
        for variable in &self.code.variables {
            let what = match &variable.kind {
                VariableKind::Argument(position) => match &self.arguments[*position].kind {
                    ArgumentKind::Index(axis) => format!("index argument {}", axis + 1),
                    ArgumentKind::Scalar => "scalar argument".to_owned(),
                    ArgumentKind::Buffer(buffer) => {
                        let shape = match &buffer.shape {
                            BufferShape::Element { .. } => "an element for each point".to_owned(),
                            BufferShape::Reduction(_) => "result of a reduction".to_owned(),
                            BufferShape::Array(dimensions) => {
                                let bounds = dimensions.iter().map(|it| {
                                    let extent = it.extent.map_or("*".to_owned(), |it| self.expression(it));
                                    format!("{} elements from {}", extent, self.expression(it.lower))
                                });
                                format!("array of ({})", bounds.collect::<Vec<_>>().join("; "))
                            }
                        };
                        format!("buffer {}, {}, {shape}", buffer.slot, intent(buffer.intent))
                    }
                },
                VariableKind::Dummy(it) => format!("dummy, {}", intent(*it)),
                VariableKind::Local => "local".to_owned(),
                VariableKind::Private(dimensions) => format!("private array ({})", fixed(dimensions)),
                VariableKind::Shared(dimensions) => format!("workgroup array ({})", fixed(dimensions)),
            };
            self.line(1, format_args!("{} {}: {what}", ty(variable.ty), variable.name));
        }
    }

    fn block(&mut self, depth: usize, block: &[sparkle::kernel::tree::StatementId]) {
        for id in block {
            self.statement(depth, *id);
        }
    }

    fn statement(&mut self, depth: usize, id: sparkle::kernel::tree::StatementId) {
        let statement = self.code.statement(id);
        let shared = match statement.control {
            Uniformity::Launch => "",
            Uniformity::Group => " ! alike in a workgroup",
            Uniformity::Varying => " ! not by all points",
        };
        let at = statement.span.line;
        let head = |text: String| format!("{at}: {text}{shared}");
        match &statement.action {
            Action::Assign(place, value) => {
                let text = format!("{} = {}", self.place(place), self.expression(*value));
                self.line(depth, head(text));
            }
            Action::If { branches, otherwise } => {
                for (number, (condition, body)) in branches.iter().enumerate() {
                    let word = if number == 0 { "if" } else { "else if" };
                    self.line(depth, head(format!("{word} {}", self.expression(*condition))));
                    self.block(depth + 1, body);
                }
                self.otherwise(depth, otherwise);
            }
            Action::Select { selector, cases, otherwise } => {
                self.line(depth, head(format!("select {}", self.expression(*selector))));
                for case in cases {
                    let ranges = case.ranges.iter().map(|(first, last)| format!("{first}:{last}"));
                    let ranges = ranges.collect::<Vec<_>>().join(", ");
                    self.line(depth, format_args!("{}: case {ranges}", case.span.line));
                    self.block(depth + 1, &case.body);
                }
                self.otherwise(depth, otherwise);
            }
            Action::Do { id, variable, first, last, step, body } => {
                let name = &self.code.variable(*variable).name;
                let [first, last, step] = [first, last, step].map(|it| self.expression(*it));
                self.line(depth, head(format!("loop {}: {name} from {first} to {last} by {step}", id.0)));
                self.block(depth + 1, body);
            }
            Action::While { id, condition, body } => {
                self.line(depth, head(format!("loop {}: while {}", id.0, self.expression(*condition))));
                self.block(depth + 1, body);
            }
            Action::Exit(id) => self.line(depth, head(format!("exit loop {}", id.0))),
            Action::Cycle(id) => self.line(depth, head(format!("cycle loop {}", id.0))),
            Action::Return => self.line(depth, head("return".to_owned())),
            Action::Barrier => self.line(depth, head("barrier".to_owned())),
            Action::Call(procedure, actuals) => {
                let actuals = actuals.iter().map(|actual| match actual {
                    Actual::Value(value) => self.expression(*value),
                    Actual::Place(place) => format!("&{}", self.place(place)),
                });
                let (name, actuals) = (&self.unit.procedures[*procedure].name, actuals.collect::<Vec<_>>());
                self.line(depth, head(format!("call {name}({})", actuals.join(", "))));
            }
            Action::Reduce(reduction, value) => {
                let text = format!("reduce {}: {}", reduction + 1, self.expression(*value));
                self.line(depth, head(text));
            }
        }
    }

    fn otherwise(&mut self, depth: usize, block: &[sparkle::kernel::tree::StatementId]) {
        if !block.is_empty() {
            self.line(depth, "else");
            self.block(depth + 1, block);
        }
    }

    fn place(&self, place: &Place) -> String {
        let name = &self.code.variable(place.variable).name;
        match &place.access {
            Access::Scalar => name.clone(),
            Access::Own => format!("{name}[own]"),
            Access::Linear(position) => format!("{name}[{}]", self.expression(*position)),
            Access::Subscripts(subscripts) => format!("{name}({})", self.list(subscripts)),
        }
    }

    fn list(&self, all: &[ExpressionId]) -> String {
        all.iter().map(|it| self.expression(*it)).collect::<Vec<_>>().join(", ")
    }

    /// The tree's depth is limited, so recursion is safe.
    fn expression(&self, id: ExpressionId) -> String {
        let expression = self.code.expression(id);
        match &expression.operation {
            Operation::Constant(value) => constant(*value),
            Operation::Load(place) => self.place(place),
            Operation::Unary(operator, operand) => {
                format!("{}({})", lower(operator), self.expression(*operand))
            }
            Operation::Binary(operator, one, other) => {
                format!("{}({})", lower(operator), self.list(&[*one, *other]))
            }
            Operation::Compare(comparison, one, other) => {
                format!("{}({})", lower(comparison), self.list(&[*one, *other]))
            }
            Operation::PowerInteger(base, exponent) | Operation::PowerReal(base, exponent) => {
                format!("power({})", self.list(&[*base, *exponent]))
            }
            Operation::Convert(operand) => {
                format!("{}({})", ty(expression.ty), self.expression(*operand))
            }
            Operation::Intrinsic(intrinsic, operands) => {
                format!("{}({})", lower(intrinsic), self.list(operands))
            }
            Operation::Call(procedure, operands) => {
                format!("{}({})", self.unit.procedures[*procedure].name, self.list(operands))
            }
            Operation::Length(variable) => format!("length({})", self.code.variable(*variable).name),
            Operation::LocalIndex(axis) => format!("local_index({})", axis + 1),
            Operation::GroupIndex(axis) => format!("group_index({})", axis + 1),
        }
    }
}
