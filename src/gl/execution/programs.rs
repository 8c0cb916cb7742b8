//! The programs built on one context, and what their users share.
//!
//! Programs belong to a context and are deleted with it. Their binaries stay in the store.

use std::collections::HashMap;
use std::rc::{Rc, Weak};

use crate::error::Result;
use crate::gl::cache::{self, PendingProgram};
use crate::gl::driver::context::Context;
use crate::gl::driver::resource::Program;
use crate::gl::execution::scratch::Scratch;
use crate::gl::tunables::MAX_PROGRAMS;
use crate::shader::pass_plan::ShaderSource;
use crate::shader::source::Kernel;
use crate::store::{Store, store};

/// A context with its programs.
pub struct Programs {
    /// The programs of `glsl/`, by name.
    kernels: HashMap<&'static str, Rc<Program>>,
    generated: HashMap<ShaderSource, Rc<Program>>,
    /// Begun by [`Programs::begin`] and not requested yet.
    pending: HashMap<ShaderSource, PendingProgram>,
    /// Begun, abandoned, and still compiling. Some drivers block when a program is deleted while it compiles.
    abandoned: Vec<PendingProgram>,
    /// Compiled here, and stored before their first run.
    fresh: Vec<(ShaderSource, Rc<Program>)>,
    store: &'static Store,
    /// Kept alive by the plans that use it.
    scratch: Weak<Scratch>,
    context: Rc<Context>,
}

impl Programs {
    /// No programs yet. Binaries come from the process's store.
    pub fn new(context: Rc<Context>) -> Self {
        Programs::with_store(context, store())
    }

    /// As [`Programs::new`], with the caller's store.
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

    /// The store, which is kept from run to run.
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
        let source = ShaderSource { name: kernel.name.to_owned(), text: kernel.source.to_owned() };
        let pending = cache::program(self.store, &self.context, &source)?;
        let program = self.finish(pending, &source)?;
        self.kernels.insert(kernel.name, program.clone());
        Ok(program)
    }

    /// The program of a generated shader, built at its first use.
    ///
    /// # Errors
    /// As [`Programs::kernel`].
    pub fn generated(&mut self, source: &ShaderSource) -> Result<Rc<Program>> {
        if let Some(program) = self.generated.get(source) {
            return Ok(program.clone());
        }
        let pending = match self.pending.remove(source) {
            Some(pending) => pending,
            None => cache::program(self.store, &self.context, source)?,
        };
        let program = self.finish(pending, source)?;
        if self.generated.len() >= MAX_PROGRAMS {
            self.generated.clear();
        }
        self.generated.insert(source.copied()?, program.clone());
        Ok(program)
    }

    fn finish(&mut self, pending: PendingProgram, source: &ShaderSource) -> Result<Rc<Program>> {
        let (program, compiled) = pending.finish(self.store, source)?;
        let program = Rc::new(program);
        if compiled && self.fresh.len() < MAX_PROGRAMS {
            self.fresh.push((source.copied()?, program.clone()));
        }
        Ok(program)
    }

    /// Whether [`Programs::settle`] has work.
    pub fn is_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// Stores the programs compiled since the last call again, after they have run. Some drivers complete a program
    /// only at its first use, and then its binary is more useful.
    ///
    /// # Errors
    /// [`Error::DeviceLost`](crate::Error::DeviceLost).
    pub fn settle(&mut self) -> Result<()> {
        std::mem::take(&mut self.fresh)
            .iter()
            .try_for_each(|(source, program)| cache::keep(self.store, program, source))
    }

    /// Starts compiling the missing programs of `sources`; the driver may compile several at once.
    ///
    /// # Errors
    /// What GL reports immediately.
    pub fn begin<'a>(&mut self, sources: impl Iterator<Item = &'a ShaderSource>) -> Result<()> {
        for source in sources {
            if !self.generated.contains_key(source) && !self.pending.contains_key(source) {
                let pending = cache::program(self.store, &self.context, source)?;
                self.pending.insert(source.copied()?, pending);
            }
        }
        Ok(())
    }

    /// Whether the programs of `sources` that were begun are compiled.
    pub fn is_ready<'a>(&self, mut sources: impl Iterator<Item = &'a ShaderSource>) -> bool {
        sources.all(|source| self.pending.get(source).is_none_or(PendingProgram::is_ready))
    }

    /// Abandons the programs of `sources` that were begun and not requested since.
    pub fn give_up<'a>(&mut self, sources: impl Iterator<Item = &'a ShaderSource>) {
        self.abandoned.extend(sources.filter_map(|source| self.pending.remove(source)));
        self.abandoned.retain(|pending| !pending.is_ready());
    }
}
