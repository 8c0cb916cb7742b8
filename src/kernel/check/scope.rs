//! Names of a procedure: the exact spelling first, then any case.

use std::collections::HashMap;

use crate::allocate;
use crate::error::Result;
use crate::kernel::span::Span;
use crate::kernel::tree::{Value, VariableId};

/// What a name means.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Meaning {
    /// A variable or dummy that is declared.
    Variable(VariableId),
    /// A dummy, by position, whose declaration is still to come.
    Dummy(usize),
    /// The result of a function whose declaration is still to come.
    Result,
    /// A named constant.
    Constant(Value),
    /// A procedure of the module `sparkle_workgroup` or `ieee_arithmetic`.
    Special(Special),
    /// A declaration was wrong. Uses are not reported again.
    Broken,
}

/// Procedures of modules that the compiler knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Special {
    Barrier,
    LocalIndex,
    GroupIndex,
    IsNan,
}

/// A name with its meaning.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    pub name: &'a str,
    pub span: Span,
    pub meaning: Meaning,
    /// Whether it comes from a module, so that a procedure may declare it anew.
    pub is_outer: bool,
}

/// The names of a procedure or module.
#[derive(Debug, Default)]
pub(super) struct Scope<'a> {
    entries: Vec<Entry<'a>>,
    exact: HashMap<&'a str, usize>,
    folded: HashMap<String, usize>,
}

const WHAT: &str = "the names of a kernel";

impl<'a> Scope<'a> {
    /// The entry of a name.
    pub fn find(&self, name: &str) -> Option<&Entry<'a>> {
        let index = self.exact.get(name).or_else(|| self.folded.get(&name.to_ascii_lowercase()));
        index.map(|index| &self.entries[*index])
    }

    /// The entry with exactly this spelling.
    pub fn find_exact(&self, name: &str) -> Option<&Entry<'a>> {
        self.exact.get(name).map(|index| &self.entries[*index])
    }

    /// Adds a name, or replaces the meaning of the same spelling.
    pub fn insert(&mut self, name: &'a str, span: Span, meaning: Meaning) -> Result<()> {
        self.add(Entry { name, span, meaning, is_outer: false })
    }

    /// Adds a name of a module.
    pub fn insert_outer(&mut self, name: &'a str, span: Span, meaning: Meaning) -> Result<()> {
        self.add(Entry { name, span, meaning, is_outer: true })
    }

    fn add(&mut self, entry: Entry<'a>) -> Result<()> {
        let name = entry.name;
        if let Some(index) = self.exact.get(name) {
            self.entries[*index] = entry;
            return Ok(());
        }
        allocate::reserve_one(&mut self.exact, WHAT)?;
        allocate::reserve_one(&mut self.folded, WHAT)?;
        allocate::push(&mut self.entries, entry, WHAT)?;
        let index = self.entries.len() - 1;
        self.exact.insert(name, index);
        let folded = self.folded.entry(name.to_ascii_lowercase()).or_insert(index);
        if self.entries[*folded].is_outer {
            *folded = index;
        }
        Ok(())
    }

    /// Replaces the meaning of a name that [`Scope::find`] finds.
    pub fn set(&mut self, name: &str, span: Span, meaning: Meaning) {
        let index = self.exact.get(name).or_else(|| self.folded.get(&name.to_ascii_lowercase()));
        if let Some(index) = index {
            let entry = &mut self.entries[*index];
            (entry.span, entry.meaning) = (span, meaning);
        }
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &'a str> {
        self.entries.iter().map(|entry| entry.name)
    }

    /// All entries.
    pub fn entries(&self) -> &[Entry<'a>] {
        &self.entries
    }
}
