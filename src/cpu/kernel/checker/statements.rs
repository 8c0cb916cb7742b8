//! Statements of one point, and of the points of a workgroup together where there are barriers.

use super::places::Target;
use super::values::{integer, truth};
use super::{Checker, Frame, Lane, Result};
use crate::allocate;
use crate::cpu::kernel::reduce;
use crate::error::Error;
use crate::kernel::tree::{
    Action, Actual, Block, Case, Code, ExpressionId, Intent, LoopId, StatementId, Type, Value, VariableId,
    VariableKind,
};

const PURPOSE: &str = "the points of a check";

/// How a point goes on after a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Flow {
    #[default]
    Next,
    Exit(LoopId),
    Cycle(LoopId),
    Return,
}

/// The iterations of a counted loop.
fn trips(first: Value, last: Value, step: Value) -> u64 {
    let [first, last, step] = [first, last, step].map(|it| i128::from(integer(it)));
    if step == 0 { 0 } else { u64::try_from(((last - first + step) / step).max(0)).unwrap_or(u64::MAX) }
}

/// The loop variable after an iteration.
fn advanced(value: Value, step: Value) -> Value {
    match (value, step) {
        (Value::Int64(a), Value::Int64(b)) => Value::Int64(a.wrapping_add(b)),
        _ => Value::Int32((integer(value) as i32).wrapping_add(integer(step) as i32)),
    }
}

/// Which of the blocks of a selection runs: that of a case, or else none of them.
fn selected(cases: &[Case], value: i64) -> Option<usize> {
    cases.iter().position(|case| case.ranges.iter().any(|(low, high)| (*low..=*high).contains(&value)))
}

/// Which statements of a kernel contain a barrier.
pub(super) fn with_barriers(code: &Code) -> Result<Vec<bool>> {
    fn of(code: &Code, block: &Block, found: &mut [bool]) -> bool {
        let mut any = false;
        for id in block {
            let inside = match &code.statement(*id).action {
                Action::Barrier => true,
                Action::If { branches, otherwise } => {
                    let branches: Vec<bool> =
                        branches.iter().map(|(_, body)| of(code, body, found)).collect();
                    of(code, otherwise, found) || branches.contains(&true)
                }
                Action::Select { cases, otherwise, .. } => {
                    let cases: Vec<bool> = cases.iter().map(|case| of(code, &case.body, found)).collect();
                    of(code, otherwise, found) || cases.contains(&true)
                }
                Action::Do { body, .. } | Action::While { body, .. } => of(code, body, found),
                _ => false,
            };
            found[id.0 as usize] = inside;
            any |= inside;
        }
        any
    }
    let mut found = allocate::filled(false, code.statements.len(), PURPOSE)?;
    of(code, &code.body, &mut found);
    Ok(found)
}

impl<'l> Checker<'l> {
    /// Statements of the current point.
    pub(super) fn block(&mut self, code: &'l Code, block: &'l Block, frame: &mut Frame) -> Result<Flow> {
        self.deeper()?;
        let mut flow = Flow::Next;
        for id in block {
            flow = self.statement(code, *id, frame)?;
            if flow != Flow::Next {
                break;
            }
        }
        self.depth -= 1;
        Ok(flow)
    }

    fn statement(&mut self, code: &'l Code, id: StatementId, frame: &mut Frame) -> Result<Flow> {
        match &code.statement(id).action {
            Action::Assign(place, value) => {
                let value = self.value(code, *value, frame)?;
                let target = self.target(code, place, frame)?;
                self.store(code, place, target, (id.0, false), frame, Some(value));
                Ok(Flow::Next)
            }
            Action::If { branches, otherwise } => {
                for (condition, body) in branches {
                    if self.truth(code, *condition, frame)? {
                        return self.block(code, body, frame);
                    }
                }
                self.block(code, otherwise, frame)
            }
            Action::Select { selector, cases, otherwise } => {
                let value = integer(self.value(code, *selector, frame)?);
                let body = selected(cases, value).map_or(otherwise, |case| &cases[case].body);
                self.block(code, body, frame)
            }
            Action::Do { id, variable, first, last, step, body } => {
                let (first, step, count) = self.loop_bounds(code, [*first, *last, *step], frame)?;
                frame.scalars[variable.0 as usize] = Some(first);
                for _ in 0..count {
                    match self.block(code, body, frame)? {
                        Flow::Exit(out) if out == *id => break,
                        Flow::Cycle(next) if next == *id => {}
                        Flow::Next => {}
                        other => return Ok(other),
                    }
                    advance(frame, *variable, step);
                }
                Ok(Flow::Next)
            }
            Action::While { id, condition, body } => {
                while self.truth(code, *condition, frame)? {
                    match self.block(code, body, frame)? {
                        Flow::Exit(out) if out == *id => break,
                        Flow::Cycle(next) if next == *id => {}
                        Flow::Next => {}
                        other => return Ok(other),
                    }
                }
                Ok(Flow::Next)
            }
            Action::Exit(id) => Ok(Flow::Exit(*id)),
            Action::Cycle(id) => Ok(Flow::Cycle(*id)),
            Action::Return => Ok(Flow::Return),
            Action::Barrier => Err(Error::Internal("a barrier of a single point".to_owned())),
            Action::Call(index, actuals) => self.call(code, (*index, id), actuals, frame),
            Action::Reduce(index, value) => {
                let reduction = &self.kernel.reductions[*index];
                let value = self.value(code, *value, frame)?;
                self.operations += u64::from(reduction.ty.is_real());
                let sum = &mut self.contributions[*index];
                *sum = reduce::pair(reduction.operator, reduction.ty, *sum, reduce::cell(value));
                Ok(Flow::Next)
            }
        }
    }

    /// The first value, the step and the iterations of a counted loop.
    fn loop_bounds(
        &mut self,
        code: &'l Code,
        bounds: [ExpressionId; 3],
        frame: &mut Frame,
    ) -> Result<(Value, Value, u64)> {
        let mut values = [Value::Int32(0); 3];
        for (value, bound) in values.iter_mut().zip(bounds) {
            *value = self.value(code, bound, frame)?;
        }
        let [first, last, step] = values;
        Ok((first, step, trips(first, last, step)))
    }

    fn call(
        &mut self,
        code: &'l Code,
        (index, id): (usize, StatementId),
        actuals: &'l [Actual],
        frame: &mut Frame,
    ) -> Result<Flow> {
        let procedure = self.procedure(index)?;
        let mut inner = Frame::new(&procedure.code)?;
        let mut targets = allocate::with_capacity(actuals.len(), PURPOSE)?;
        for (dummy, actual) in procedure.dummies.iter().zip(actuals) {
            let kind = &procedure.code.variable(*dummy).kind;
            let (value, target) = match actual {
                Actual::Value(value) => (Some(self.value(code, *value, frame)?), Target::Outside),
                Actual::Place(place) => {
                    let target = self.target(code, place, frame)?;
                    let value = match kind {
                        VariableKind::Dummy(Intent::InOut) => self.taken(code, place, target, id, frame),
                        _ => None,
                    };
                    (value, target)
                }
            };
            inner.scalars[dummy.0 as usize] = value;
            targets.push(target);
        }
        self.block(&procedure.code, &procedure.code.body, &mut inner)?;
        for ((dummy, actual), target) in procedure.dummies.iter().zip(actuals).zip(targets) {
            if let Actual::Place(place) = actual {
                let value = inner.scalars[dummy.0 as usize];
                self.store(code, place, target, (id.0, false), frame, value);
            }
        }
        Ok(Flow::Next)
    }

    /// Statements of a workgroup's points, up to each barrier one point after the other. `active` are those that run
    /// the block; those that leave it are taken out.
    pub(super) fn group(
        &mut self,
        block: &'l Block,
        lanes: &mut [Lane],
        active: &mut Vec<usize>,
    ) -> Result<()> {
        let kernel = self.kernel;
        let code = &kernel.code;
        self.deeper()?;
        for id in block {
            if !self.with_barriers[id.0 as usize] {
                let mut staying = allocate::with_capacity(active.len(), PURPOSE)?;
                for &lane in &*active {
                    self.enter(&lanes[lane]);
                    lanes[lane].flow = self.statement(code, *id, &mut lanes[lane].frame)?;
                    if lanes[lane].flow == Flow::Next {
                        staying.push(lane);
                    }
                }
                *active = staying;
            } else if !active.is_empty() {
                self.group_statement(code, *id, lanes, active)?;
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// A statement with a barrier in it.
    fn group_statement(
        &mut self,
        code: &'l Code,
        id: StatementId,
        lanes: &mut [Lane],
        active: &mut Vec<usize>,
    ) -> Result<()> {
        match &code.statement(id).action {
            Action::Barrier => {
                // The compiler has proved that all points reach it.
                if active.len() != lanes.len() {
                    return Err(Error::Internal("a barrier that not all points reach".to_owned()));
                }
                self.phase += 1;
                Ok(())
            }
            Action::If { branches, otherwise } => {
                let (mut left, mut after) = (std::mem::take(active), Vec::new());
                for (condition, body) in branches {
                    let mut taken = Vec::new();
                    self.part(code, *condition, lanes, (&mut left, &mut taken))?;
                    self.group(body, lanes, &mut taken)?;
                    allocate::append(&mut after, taken.into_iter(), PURPOSE)?;
                }
                self.group(otherwise, lanes, &mut left)?;
                allocate::append(&mut after, left.into_iter(), PURPOSE)?;
                after.sort_unstable();
                *active = after;
                Ok(())
            }
            Action::Select { selector, cases, otherwise } => {
                let mut chosen = allocate::with_capacity(active.len(), PURPOSE)?;
                for &lane in &*active {
                    self.enter(&lanes[lane]);
                    let value = integer(self.value(code, *selector, &mut lanes[lane].frame)?);
                    chosen.push((lane, selected(cases, value)));
                }
                active.clear();
                let blocks = cases.iter().enumerate().map(|(at, case)| (Some(at), &case.body));
                for (which, body) in blocks.chain([(None, otherwise)]) {
                    let its = chosen.iter().filter(|it| it.1 == which).map(|it| it.0);
                    let mut its: Vec<usize> = its.collect();
                    self.group(body, lanes, &mut its)?;
                    allocate::append(active, its.into_iter(), PURPOSE)?;
                }
                active.sort_unstable();
                Ok(())
            }
            Action::Do { id, variable, first, last, step, body } => {
                let mut left = allocate::with_capacity(active.len(), PURPOSE)?;
                for lane in active.drain(..) {
                    self.enter(&lanes[lane]);
                    let frame = &mut lanes[lane].frame;
                    let (first, step, count) = self.loop_bounds(code, [*first, *last, *step], frame)?;
                    frame.scalars[variable.0 as usize] = Some(first);
                    left.push((lane, count, step));
                }
                loop {
                    let mut its: Vec<usize> = left.iter().filter(|it| it.1 > 0).map(|it| it.0).collect();
                    allocate::append(active, left.iter().filter(|it| it.1 == 0).map(|it| it.0), PURPOSE)?;
                    left.retain(|it| it.1 > 0);
                    if its.is_empty() {
                        break;
                    }
                    let exited = self.turn(*id, body, lanes, &mut its)?;
                    left.retain(|it| its.binary_search(&it.0).is_ok());
                    for (lane, count, step) in &mut left {
                        *count -= 1;
                        advance(&mut lanes[*lane].frame, *variable, *step);
                    }
                    allocate::append(active, exited.into_iter(), PURPOSE)?;
                }
                active.sort_unstable();
                Ok(())
            }
            Action::While { id, condition, body } => {
                let mut left = std::mem::take(active);
                loop {
                    let mut its = Vec::new();
                    self.part(code, *condition, lanes, (&mut left, &mut its))?;
                    allocate::append(active, left.drain(..), PURPOSE)?;
                    if its.is_empty() {
                        break;
                    }
                    let exited = self.turn(*id, body, lanes, &mut its)?;
                    allocate::append(active, exited.into_iter(), PURPOSE)?;
                    left = its;
                }
                active.sort_unstable();
                Ok(())
            }
            _ => Err(Error::Internal("a barrier where none can be".to_owned())),
        }
    }

    /// An iteration for several points. Leaves those that go on in `its`, and returns those that exit.
    fn turn(
        &mut self,
        id: LoopId,
        body: &'l Block,
        lanes: &mut [Lane],
        its: &mut Vec<usize>,
    ) -> Result<Vec<usize>> {
        let all = allocate::copied(its, PURPOSE)?;
        self.group(body, lanes, its)?;
        let with = |flow: Flow| -> Vec<usize> {
            let left = all.iter().filter(|lane| its.binary_search(lane).is_err());
            left.filter(|lane| lanes[**lane].flow == flow).copied().collect()
        };
        let (exited, cycled) = (with(Flow::Exit(id)), with(Flow::Cycle(id)));
        allocate::append(its, cycled.into_iter(), PURPOSE)?;
        its.sort_unstable();
        Ok(exited)
    }

    /// Moves the points for which a condition holds from one list to another.
    fn part(
        &mut self,
        code: &'l Code,
        condition: ExpressionId,
        lanes: &mut [Lane],
        (from, to): (&mut Vec<usize>, &mut Vec<usize>),
    ) -> Result<()> {
        let mut staying = allocate::with_capacity(from.len(), PURPOSE)?;
        for lane in from.drain(..) {
            self.enter(&lanes[lane]);
            let value = self.value(code, condition, &mut lanes[lane].frame)?;
            let list = if truth(value) { &mut *to } else { &mut staying };
            allocate::push(list, lane, PURPOSE)?;
        }
        *from = staying;
        Ok(())
    }
}

fn advance(frame: &mut Frame, variable: VariableId, step: Value) {
    let value = frame.scalars[variable.0 as usize].unwrap_or(super::values::zero(Type::Int32));
    frame.scalars[variable.0 as usize] = Some(advanced(value, step));
}
