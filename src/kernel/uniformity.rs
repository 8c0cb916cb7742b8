//! For which points values and decisions are alike: what a barrier needs, and what back ends may compute once.
//!
//! Variables, expressions, blocks and loops are nodes of a graph whose edges say what depends on what. Levels start
//! low and rise along the edges until nothing changes. A node rises at most twice, so the time is linear in the size
//! of the code.

use crate::allocate;
use crate::error::Result;

use super::check::{operands, place_operands};
use super::diagnostics::{Code as Message, Diagnostic, Sink};
use super::span::Span;
use super::tree::{
    Access, Action, Actual, Argument, ArgumentKind, Block, Code, ExpressionId, Operation, Place, Uniformity,
    VariableId, VariableKind,
};

const WHAT: &str = "the uniformity of a kernel";

/// A block, or the rest of one after a `return`.
#[derive(Debug, Clone, Copy)]
struct Region {
    parent: Option<usize>,
    /// What decides whether a point runs it.
    cause: Span,
    is_after_return: bool,
}

struct Graph<'c> {
    code: &'c Code,
    levels: Vec<Uniformity>,
    edges: Vec<(u32, u32)>,
    regions: Vec<Region>,
    /// The region of each statement.
    region_of: Vec<usize>,
    /// The node of the last `return`, with its place.
    returned: Option<(usize, Span)>,
    /// Loops around the current statement.
    open: Vec<u32>,
}

impl Graph<'_> {
    fn variable(&self, id: VariableId) -> usize {
        id.0 as usize
    }

    fn expression(&self, id: ExpressionId) -> usize {
        self.code.variables.len() + id.0 as usize
    }

    fn loop_node(&self, id: u32) -> usize {
        self.code.variables.len() + self.code.expressions.len() + id as usize
    }

    fn region(&self, region: usize) -> usize {
        self.code.variables.len() + self.code.expressions.len() + self.code.loops + region
    }

    fn edge(&mut self, from: usize, to: usize) -> Result<()> {
        allocate::push(&mut self.edges, (from as u32, to as u32), WHAT)
    }

    fn add_region(&mut self, parent: Option<usize>, cause: Span, is_after_return: bool) -> Result<usize> {
        allocate::push(&mut self.regions, Region { parent, cause, is_after_return }, WHAT)?;
        allocate::push(&mut self.levels, Uniformity::Launch, WHAT)?;
        let region = self.regions.len() - 1;
        if let Some(parent) = parent {
            self.edge(self.region(parent), self.region(region))?;
        }
        Ok(region)
    }

    /// A store: the variable depends on the value, the subscripts and the region.
    fn store(&mut self, place: &Place, region: usize) -> Result<()> {
        let to = self.variable(place.variable);
        self.edge(self.region(region), to)?;
        let mut failed = Ok(());
        place_operands(place, |id| {
            let from = self.expression(id);
            if failed.is_ok() {
                failed = self.edge(from, to);
            }
        });
        failed
    }

    fn block(&mut self, block: &Block, mut region: usize) -> Result<()> {
        let code = self.code;
        for id in block {
            let before = self.returned.map(|it| it.0);
            self.region_of[id.0 as usize] = region;
            let statement = code.statement(*id);
            self.action(&statement.action, region, statement.span)?;
            if let Some((node, span)) = self.returned.filter(|it| Some(it.0) != before) {
                region = self.add_region(Some(region), span, true)?;
                self.edge(node, self.region(region))?;
            }
        }
        Ok(())
    }

    fn action(&mut self, action: &Action, region: usize, span: Span) -> Result<()> {
        match action {
            Action::Assign(place, value) => {
                let (from, to) = (self.expression(*value), self.variable(place.variable));
                self.edge(from, to)?;
                self.store(place, region)
            }
            Action::If { branches, otherwise } => {
                let mut parent = region;
                for (condition, body) in branches {
                    let cause = self.code.expression(*condition).span;
                    let inner = self.add_region(Some(parent), cause, false)?;
                    self.edge(self.expression(*condition), self.region(inner))?;
                    self.block(body, inner)?;
                    parent = inner;
                }
                self.block(otherwise, parent)
            }
            Action::Select { selector, cases, otherwise } => {
                let cause = self.code.expression(*selector).span;
                let inner = self.add_region(Some(region), cause, false)?;
                self.edge(self.expression(*selector), self.region(inner))?;
                for case in cases {
                    self.block(&case.body, inner)?;
                }
                self.block(otherwise, inner)
            }
            Action::Do { id, variable, first, last, step, body } => {
                let inner = self.add_region(Some(region), span, false)?;
                let variable = self.variable(*variable);
                for bound in [first, last, step] {
                    self.edge(self.expression(*bound), self.region(inner))?;
                }
                self.edge(self.region(inner), variable)?;
                self.looped(id.0, inner, body)
            }
            Action::While { id, condition, body } => {
                let inner = self.add_region(Some(region), self.code.expression(*condition).span, false)?;
                self.edge(self.expression(*condition), self.region(inner))?;
                self.looped(id.0, inner, body)
            }
            Action::Exit(id) | Action::Cycle(id) => {
                let inside = self.open.iter().position(|open| *open == id.0).unwrap_or(0);
                self.leave(inside, region)
            }
            Action::Return => {
                self.leave(0, region)?;
                let node = self.add_region(Some(region), span, true)?;
                if let Some((before, _)) = self.returned {
                    self.edge(before, self.region(node))?;
                }
                self.returned = Some((self.region(node), span));
                Ok(())
            }
            Action::Barrier | Action::Reduce(..) => Ok(()),
            Action::Call(_, actuals) => self.call(actuals, region),
        }
    }

    fn looped(&mut self, id: u32, region: usize, body: &Block) -> Result<()> {
        self.edge(self.loop_node(id), self.region(region))?;
        allocate::push(&mut self.open, id, WHAT)?;
        let result = self.block(body, region);
        self.open.pop();
        result
    }

    /// Points that leave loops make the rest of these loops depend on who left.
    fn leave(&mut self, from: usize, region: usize) -> Result<()> {
        for position in from..self.open.len() {
            let node = self.loop_node(self.open[position]);
            self.edge(self.region(region), node)?;
        }
        Ok(())
    }

    fn call(&mut self, actuals: &[Actual], region: usize) -> Result<()> {
        // One node stands for all that goes in.
        let node = self.add_region(Some(region), Span::default(), false)?;
        let node = self.region(node);
        for actual in actuals {
            match actual {
                Actual::Value(id) => self.edge(self.expression(*id), node)?,
                Actual::Place(place) => self.edge(self.variable(place.variable), node)?,
            }
        }
        for actual in actuals {
            if let Actual::Place(place) = actual {
                self.edge(node, self.variable(place.variable))?;
                self.store(place, region)?;
            }
        }
        Ok(())
    }

    /// Lets levels rise along the edges.
    fn settle(&mut self) -> Result<()> {
        let nodes = self.levels.len();
        let mut starts = allocate::zeroed::<u32>(nodes + 1, WHAT)?;
        for (from, _) in &self.edges {
            starts[*from as usize + 1] += 1;
        }
        for node in 0..nodes {
            starts[node + 1] += starts[node];
        }
        let mut targets = allocate::zeroed::<u32>(self.edges.len(), WHAT)?;
        let mut next = allocate::copied(&starts, WHAT)?;
        for (from, to) in &self.edges {
            let at = &mut next[*from as usize];
            targets[*at as usize] = *to;
            *at += 1;
        }
        let mut waiting = Vec::new();
        let risen = self.levels.iter().enumerate().filter(|(_, level)| **level != Uniformity::Launch);
        allocate::append(&mut waiting, risen.map(|(node, _)| node as u32), WHAT)?;
        while let Some(node) = waiting.pop() {
            let level = self.levels[node as usize];
            for at in starts[node as usize]..starts[node as usize + 1] {
                let target = targets[at as usize];
                if self.levels[target as usize] < level {
                    self.levels[target as usize] = level;
                    allocate::push(&mut waiting, target, WHAT)?;
                }
            }
        }
        Ok(())
    }
}

/// The level of a variable before any statement.
fn level_of(kind: &VariableKind, arguments: &[Argument]) -> Uniformity {
    match kind {
        VariableKind::Local | VariableKind::Private(_) => Uniformity::Launch,
        VariableKind::Shared(_) | VariableKind::Dummy(_) => Uniformity::Varying,
        VariableKind::Argument(position) => match arguments.get(*position).map(|argument| &argument.kind) {
            Some(ArgumentKind::Scalar) => Uniformity::Launch,
            Some(ArgumentKind::Buffer(buffer)) if !buffer.is_written => Uniformity::Launch,
            _ => Uniformity::Varying,
        },
    }
}

/// Fills in the levels of expressions and statements, and reports barriers that not all points may reach.
///
/// # Errors
/// The host is out of memory.
pub(super) fn analyse(code: &mut Code, arguments: &[Argument], sink: &mut Sink) -> Result<()> {
    let fixed = code.variables.len() + code.expressions.len() + code.loops;
    let mut levels = allocate::filled(Uniformity::Launch, fixed, WHAT)?;
    for (level, variable) in levels.iter_mut().zip(&code.variables) {
        *level = level_of(&variable.kind, arguments);
    }
    let mut graph = Graph {
        code,
        levels,
        edges: Vec::new(),
        regions: Vec::new(),
        region_of: allocate::filled(0, code.statements.len(), WHAT)?,
        returned: None,
        open: Vec::new(),
    };
    for (index, expression) in code.expressions.iter().enumerate() {
        let to = code.variables.len() + index;
        let mut failed = Ok(());
        operands(&expression.operation, |id| {
            let from = graph.expression(id);
            if failed.is_ok() {
                failed = graph.edge(from, to);
            }
        });
        failed?;
        match &expression.operation {
            Operation::Load(place) => {
                graph.edge(graph.variable(place.variable), to)?;
                if place.access == Access::Own {
                    graph.levels[to] = Uniformity::Varying;
                }
            }
            Operation::LocalIndex(_) => graph.levels[to] = Uniformity::Varying,
            Operation::GroupIndex(_) => graph.levels[to] = Uniformity::Group,
            _ => {}
        }
    }
    let root = graph.add_region(None, Span::default(), false)?;
    graph.block(&code.body, root)?;
    graph.settle()?;
    report(&graph, sink);
    let Graph { levels, region_of, .. } = graph;
    let variables = code.variables.len();
    for (index, expression) in code.expressions.iter_mut().enumerate() {
        expression.uniformity = levels[variables + index];
    }
    for (statement, region) in code.statements.iter_mut().zip(region_of) {
        statement.control = levels[fixed + region];
    }
    Ok(())
}

/// Errors about barriers in regions that not all points run.
fn report(graph: &Graph<'_>, sink: &mut Sink) {
    for (statement, region) in graph.code.statements.iter().zip(&graph.region_of) {
        let varies = |region: usize| graph.levels[graph.region(region)] == Uniformity::Varying;
        if !matches!(statement.action, Action::Barrier) || !varies(*region) {
            continue;
        }
        // The outermost region that varies says why.
        let mut region = *region;
        while let Some(parent) = graph.regions[region].parent.filter(|parent| varies(*parent)) {
            region = parent;
        }
        let Region { cause, is_after_return, .. } = graph.regions[region];
        let diagnostic = if is_after_return {
            let message = "some points of the workgroup may have returned before this barrier";
            Diagnostic::new(Message::BarrierAfterReturn, statement.span, message)
                .second(cause, "they return here")
                .help("enclose the work in `if` instead, and let all points reach the barrier")
        } else {
            let message = "not all points of the workgroup may reach this barrier";
            Diagnostic::new(Message::DivergentBarrier, statement.span, message)
                .second(cause, "this may differ from point to point")
                .help("move the barrier out of the branch or loop")
        };
        sink.add(diagnostic);
    }
}
