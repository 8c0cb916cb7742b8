//! The programs built on one context, and what is shared by those who run them.
//!
//! Programs belong to a context and go with it; their binaries stay in the store.

use std::collections::HashMap;
use std::rc::{Rc, Weak};

use crate::error::Result;
use crate::gl::cache::{self, PendingProgram};
use crate::gl::driver::context::Context;
use crate::gl::driver::resource::Program;
use crate::gl::execution::scratch::Scratch;
use crate::shader::recipe::Source;
use crate::shader::source::Kernel;
use crate::store::{Store, store};

/// Generated programs that are kept beyond those in use.
const MAX_KEPT: usize = 256;

/// A context with its programs.
pub struct Programs {
    /// Those of `glsl/`, by name.
    kernels: HashMap<&'static str, Rc<Program>>,
    generated: HashMap<Source, Rc<Program>>,
    /// Begun by [`Programs::begin`]; nobody has asked for them yet.
    pending: HashMap<Source, PendingProgram>,
    /// Begun, no longer wanted, and still compiling: some drivers block when a program is deleted while it compiles.
    abandoned: Vec<PendingProgram>,
    /// Compiled here, and stored before their first run.
    fresh: Vec<(Source, Rc<Program>)>,
    store: &'static Store,
    /// The plans that use it keep it alive.
    scratch: Weak<Scratch>,
    context: Rc<Context>,
}

impl Programs {
    /// No programs yet; binaries come from the process's store.
    pub fn new(context: Rc<Context>) -> Self {
        Programs::with_store(context, store())
    }

    /// As [`Programs::new`], with a store of the caller's.
    pub fn with_store(context: Rc<Context>, store: &'static Store) -> Self {
        Programs {
            kernels: HashMap::new(),
            generated: HashMap::new(),
            pending: HashMap::new(),
            abandoned: vec![],
            fresh: vec![],
            store,
            scratch: Weak::new(),
            context,
        }
    }

    /// What is kept from run to run.
    pub fn store(&self) -> &'static Store {
        self.store
    }

    /// The scratch buffers that all plans of this context share.
    pub fn scratch(&mut self) -> Rc<Scratch> {
        self.scratch.upgrade().unwrap_or_else(|| {
            let scratch = Rc::default();
            self.scratch = Rc::downgrade(&scratch);
            scratch
        })
    }

    /// The context.
    pub fn context(&self) -> &Rc<Context> {
        &self.context
    }

    /// The program of `kernel`, built at its first use.
    ///
    /// # Errors
    /// [`Error::Shader`](crate::Error::Shader) with the driver's log.
    pub fn kernel(&mut self, kernel: Kernel) -> Result<Rc<Program>> {
        if let Some(program) = self.kernels.get(kernel.name) {
            return Ok(program.clone());
        }
        let source = Source { name: kernel.name.to_owned(), text: kernel.source.to_owned() };
        let pending = cache::program(self.store, &self.context, &source)?;
        let program = self.finish(pending, &source)?;
        self.kernels.insert(kernel.name, program.clone());
        Ok(program)
    }

    /// The program of a generated shader, built at its first use.
    ///
    /// # Errors
    /// As [`Programs::kernel`].
    pub fn generated(&mut self, source: &Source) -> Result<Rc<Program>> {
        if let Some(program) = self.generated.get(source) {
            return Ok(program.clone());
        }
        let pending = match self.pending.remove(source) {
            Some(pending) => pending,
            None => cache::program(self.store, &self.context, source)?,
        };
        let program = self.finish(pending, source)?;
        if self.generated.len() >= MAX_KEPT {
            self.generated.clear();
        }
        self.generated.insert(source.copied()?, program.clone());
        Ok(program)
    }

    fn finish(&mut self, pending: PendingProgram, source: &Source) -> Result<Rc<Program>> {
        let (program, compiled) = pending.finish(self.store, source)?;
        let program = Rc::new(program);
        if compiled && self.fresh.len() < MAX_KEPT {
            self.fresh.push((source.copied()?, program.clone()));
        }
        Ok(program)
    }

    /// Whether [`Programs::settle`] has something to do.
    pub fn is_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// Stores the programs compiled since the last call once more, after they have run. Some drivers complete a program at its first
    /// use, and its binary is then worth more.
    ///
    /// # Errors
    /// If the device was lost.
    pub fn settle(&mut self) -> Result<()> {
        std::mem::take(&mut self.fresh)
            .iter()
            .try_for_each(|(source, program)| cache::keep(self.store, program, source))
    }

    /// Starts compiling those of `sources` that are missing: the driver may compile several at once.
    ///
    /// # Errors
    /// What GL reports at once.
    pub fn begin<'a>(&mut self, sources: impl Iterator<Item = &'a Source>) -> Result<()> {
        for source in sources {
            if !self.generated.contains_key(source) && !self.pending.contains_key(source) {
                let pending = cache::program(self.store, &self.context, source)?;
                self.pending.insert(source.copied()?, pending);
            }
        }
        Ok(())
    }

    /// Whether those of `sources` that were begun are compiled.
    pub fn is_ready<'a>(&self, mut sources: impl Iterator<Item = &'a Source>) -> bool {
        sources.all(|source| self.pending.get(source).is_none_or(PendingProgram::is_ready))
    }

    /// Drops those of `sources` that were begun and not asked for since.
    pub fn give_up<'a>(&mut self, sources: impl Iterator<Item = &'a Source>) {
        self.abandoned.extend(sources.filter_map(|source| self.pending.remove(source)));
        self.abandoned.retain(|pending| !pending.is_ready());
    }
}
