//! Which loops are left from within others: GLSL has no `break` with a name.

use crate::allocate;
use crate::error::Result;
use crate::kernel::tree::{Action, Block, Code, LoopId};

use super::WHAT;

/// Jumps out of loops.
#[derive(Debug, Default, Clone)]
pub(super) struct Loops {
    /// Loops that an `exit` from an inner loop leaves.
    pub exits: Vec<bool>,
    /// Loops that a `cycle` from an inner loop continues.
    pub cycles: Vec<bool>,
    /// For each loop: the loops further out that jumps in it lead to.
    pub escapes: Vec<Vec<LoopId>>,
    /// Loops around the current statement.
    pub open: Vec<LoopId>,
}

impl Loops {
    /// The jumps of a code.
    pub fn of(code: &Code) -> Result<Self> {
        let mut escapes = Vec::new();
        allocate::append(&mut escapes, (0..code.loops).map(|_| Vec::new()), WHAT)?;
        let mut loops = Loops {
            exits: allocate::filled(false, code.loops, WHAT)?,
            cycles: allocate::filled(false, code.loops, WHAT)?,
            escapes,
            open: Vec::new(),
        };
        loops.block(code, &code.body);
        Ok(loops)
    }

    fn block(&mut self, code: &Code, block: &Block) {
        for id in block {
            match &code.statement(*id).action {
                Action::If { branches, otherwise } => {
                    branches.iter().for_each(|(_, body)| self.block(code, body));
                    self.block(code, otherwise);
                }
                Action::Select { cases, otherwise, .. } => {
                    cases.iter().for_each(|case| self.block(code, &case.body));
                    self.block(code, otherwise);
                }
                Action::Do { id, body, .. } | Action::While { id, body, .. } => {
                    self.open.push(*id);
                    self.block(code, body);
                    self.open.pop();
                }
                Action::Exit(id) if self.open.last() != Some(id) => {
                    self.exits[id.0 as usize] = true;
                    self.escape(*id);
                }
                Action::Cycle(id) if self.open.last() != Some(id) => {
                    self.cycles[id.0 as usize] = true;
                    self.escape(*id);
                }
                _ => {}
            }
        }
    }

    fn escape(&mut self, target: LoopId) {
        for inner in self.open.iter().rev().take_while(|inner| **inner != target) {
            let escapes = &mut self.escapes[inner.0 as usize];
            if !escapes.contains(&target) {
                escapes.push(target);
            }
        }
    }
}
