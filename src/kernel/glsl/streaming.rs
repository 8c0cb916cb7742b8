//! Long index spaces of one dimension: each workgroup computes blocks of points in turn, and a whole block loads all that
//! it needs before it stores.
//!
//! Memory is fast only where the addresses in use lie close together and many loads wait at once. So there are as many
//! workgroups as run at the same time, and the stores at the end of a kernel's body come after the loads of all points
//! of an invocation. Points run in any order, so no point may read what another stores, and the results are the same.

use crate::allocate;
use crate::kernel::tree::{
    Access, Action, ArgumentKind, Code, ExpressionId, Kernel, LocalSize, Operation, Place, StatementId, Type,
    VariableId, VariableKind,
};

use super::{DEFAULT_LOCAL_SIZES, WHAT, Write, Writer};

/// The most expressions of a streamed kernel: an invocation has several points in its registers.
const MAX_EXPRESSIONS: usize = 150;

/// Whether a kernel may be streamed: one dimension, straight through, and nothing that ties it to a workgroup, of which the
/// source does not ask for another size than usual.
pub fn can_stream(kernel: &Kernel) -> bool {
    let code = &kernel.code;
    let is_usual = match kernel.local_size {
        LocalSize::Auto => true,
        LocalSize::Fixed(size) => size == DEFAULT_LOCAL_SIZES[0],
    };
    let is_plain = |action: &Action| matches!(action, Action::Assign(..) | Action::If { .. });
    kernel.dims == 1
        && is_usual
        && kernel.reductions.is_empty()
        && !kernel.cooperative
        && code.expressions.len() <= MAX_EXPRESSIONS
        && code.statements.iter().all(|statement| is_plain(&statement.action))
        && !code.expressions.iter().any(|it| matches!(it.operation, Operation::Call(..)))
        && !code.variables.iter().any(|it| matches!(it.kind, VariableKind::Private(_)))
}

/// The last statements of the body that store to buffers and may come after the loads of other points: none reads what
/// one of them has stored, and their addresses are known without the body.
pub(super) fn late_stores(kernel: &Kernel) -> &[StatementId] {
    let code = &kernel.code;
    let store = |id: StatementId| match &code.statement(id).action {
        Action::Assign(place, value) if has_plain_address(kernel, place) => Some((place.variable, *value)),
        _ => None,
    };
    // What has no address of its own are arguments and locals; if the body changes an argument, addresses depend on it.
    let changes_argument = code.statements.iter().any(|statement| {
        matches!(&statement.action, Action::Assign(place, _) if place.access == Access::Scalar
            && matches!(code.variable(place.variable).kind, VariableKind::Argument(_)))
    });
    let body = &code.body;
    let mut first = body.len();
    while !changes_argument && first > 0 && store(body[first - 1]).is_some() {
        first -= 1;
    }
    // A statement that reads what an earlier one stored must come after it, so the earlier ones stay in the body.
    let needed_by = |last: usize| {
        let (_, value) = store(body[last])?;
        let stored = |id: &StatementId| store(*id).is_some_and(|(variable, _)| reads(code, value, variable));
        Some(first + body[first..last].iter().rposition(stored)? + 1)
    };
    let first = (first..body.len()).filter_map(needed_by).max().unwrap_or(first);
    &body[first..]
}

/// Whether an element's address is made of constants, indices and scalars.
fn has_plain_address(kernel: &Kernel, place: &Place) -> bool {
    let code = &kernel.code;
    let VariableKind::Argument(position) = code.variable(place.variable).kind else { return false };
    if !matches!(kernel.arguments[position].kind, ArgumentKind::Buffer(_)) {
        return false;
    }
    match &place.access {
        Access::Own => true,
        Access::Linear(id) => is_plain(code, *id),
        Access::Subscripts(ids) => ids.iter().all(|id| is_plain(code, *id)),
        Access::Scalar => false,
    }
}

fn is_plain(code: &Code, id: ExpressionId) -> bool {
    match &code.expression(id).operation {
        Operation::Constant(_) => true,
        Operation::Load(place) => {
            place.access == Access::Scalar
                && matches!(code.variable(place.variable).kind, VariableKind::Argument(_))
        }
        Operation::Binary(_, left, right) => is_plain(code, *left) && is_plain(code, *right),
        _ => false,
    }
}

/// Whether an expression reads a variable.
fn reads(code: &Code, id: ExpressionId, variable: VariableId) -> bool {
    let reads = |id: &ExpressionId| reads(code, *id, variable);
    match &code.expression(id).operation {
        Operation::Constant(_)
        | Operation::Length(_)
        | Operation::LocalIndex(_)
        | Operation::GroupIndex(_) => false,
        Operation::Load(place) => {
            place.variable == variable
                || match &place.access {
                    Access::Scalar | Access::Own => false,
                    Access::Linear(id) => reads(id),
                    Access::Subscripts(ids) => ids.iter().any(reads),
                }
        }
        Operation::Unary(_, operand) | Operation::Convert(operand) => reads(operand),
        Operation::Binary(_, left, right)
        | Operation::Compare(_, left, right)
        | Operation::PowerInteger(left, right)
        | Operation::PowerReal(left, right) => reads(left) || reads(right),
        Operation::Intrinsic(_, operands) | Operation::Call(_, operands) => operands.iter().any(reads),
    }
}

impl<'t> Writer<'t> {
    /// The parameters that receive the values of late stores, after others.
    pub(super) fn late_parameters(&self, kernel: &'t Kernel, late: &[StatementId]) -> Write<String> {
        let mut text = String::new();
        for (index, id) in late.iter().enumerate() {
            let ty = self.stored_type(kernel, *id)?;
            allocate::push_str(&mut text, &format!(", out {ty} sparkle_late{index}"), WHAT)?;
        }
        Ok(text)
    }

    fn stored_type(&self, kernel: &'t Kernel, id: StatementId) -> Write<&'static str> {
        let Action::Assign(place, _) = &kernel.code.statement(id).action else { return Ok("float") };
        let variable = kernel.code.variable(place.variable);
        self.stored(variable.ty, variable.span)
    }

    /// A late store's value, in the body.
    pub(super) fn late_value(&mut self, index: usize, id: StatementId) -> Write {
        let code = self.code;
        let Action::Assign(_, value) = &code.statement(id).action else { return Ok(()) };
        let is_logical = code.expression(*value).ty == Type::Logical;
        let exact = self.exact_if_needed(*value)?;
        self.begin()?;
        self.put(&format!("sparkle_late{index} = {}", if is_logical { "int(" } else { "" }))?;
        match exact {
            Some(name) => self.put(&name)?,
            None => self.expression(*value)?,
        }
        self.put(if is_logical { ");\n" } else { ";\n" })
    }

    /// The function that stores what the body computed for a point.
    pub(super) fn late_function(&mut self, kernel: &'t Kernel, late: &[StatementId]) -> Write {
        if late.is_empty() {
            return Ok(());
        }
        let parameters = self.late_parameters(kernel, late)?.replace(", out ", ", ");
        let index = self.name(kernel.arguments[0].variable).to_owned();
        self.open(&format!("void sparkle_store(int {index}{parameters}) {{"))?;
        let mut bounded = Vec::new();
        for id in late {
            let Action::Assign(place, _) = &kernel.code.statement(*id).action else { continue };
            let VariableKind::Argument(position) = kernel.code.variable(place.variable).kind else {
                continue;
            };
            let ArgumentKind::Buffer(buffer) = &kernel.arguments[position].kind else { continue };
            if !bounded.contains(&position) {
                allocate::push(&mut bounded, position, WHAT)?;
                self.bounds(position, buffer)?;
            }
        }
        for (index, id) in late.iter().enumerate() {
            let Action::Assign(place, _) = &kernel.code.statement(*id).action else { continue };
            self.begin()?;
            self.put_element(place)?;
            self.put(&format!(" = sparkle_late{index};\n"))?;
        }
        self.close("}\n")
    }

    /// `main` of a streamed kernel. `count.x` is where the points of the dispatch end, never 0.
    pub(super) fn streaming_main(&mut self, kernel: &'t Kernel, (threads, points): (u32, u32)) -> Write {
        let late = late_stores(kernel);
        let each = threads * points;
        let base = if kernel.base == 0 { String::new() } else { format!(" + {}", kernel.base) };
        let call = |function: &str, at: &str, which: &str| {
            let late: String = (0..late.len()).map(|index| format!(", late{index}{which}")).collect();
            format!("sparkle_index = {at}; {function}(int({at}){base}{late});")
        };
        self.open("void main() {")?;
        self.open(&format!(
            "for (uint block = first.x + gl_WorkGroupID.x; block * {each}u < count.x; block += gl_NumWorkGroups.x) {{"
        ))?;
        self.line(&format!("uint point = block * {each}u + gl_LocalInvocationIndex;"))?;
        self.open(&format!("if (count.x - block * {each}u >= {each}u) {{"))?;
        for part in 0..points {
            self.late_variables(kernel, late, &format!("_{part}"))?;
            self.line(&call("sparkle_body", &format!("point + {}u", part * threads), &format!("_{part}")))?;
        }
        if !late.is_empty() {
            for part in 0..points {
                self.line(&call(
                    "sparkle_store",
                    &format!("point + {}u", part * threads),
                    &format!("_{part}"),
                ))?;
            }
        }
        self.close("} else {")?;
        self.indent += 1;
        self.open(&format!("for (; point < count.x; point += {threads}u) {{"))?;
        self.late_variables(kernel, late, "")?;
        self.line(&call("sparkle_body", "point", ""))?;
        if !late.is_empty() {
            self.line(&call("sparkle_store", "point", ""))?;
        }
        self.close("}")?;
        self.close("}")?;
        self.close("}")?;
        self.end_main()?;
        self.close("}")
    }

    fn late_variables(&mut self, kernel: &'t Kernel, late: &[StatementId], which: &str) -> Write {
        for (index, id) in late.iter().enumerate() {
            let ty = self.stored_type(kernel, *id)?;
            self.line(&format!("{ty} late{index}{which};"))?;
        }
        Ok(())
    }
}
