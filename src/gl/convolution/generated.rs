//! A convolution by generated passes, with sizes that are constants in the shaders.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use super::pacing::Pacing;
use crate::error::{Error, Result};
use crate::gl::driver::resource::Buffer;
use crate::gl::execution::dispatch;
use crate::gl::execution::passes::{self, Passes};
use crate::gl::execution::programs::Programs;
use crate::gl::tunables::MAX_BATCH_SIZES;
use crate::kernel::fused::Fused;
use crate::problem::Conv2d;
use crate::shader::epilogue::{self, Outputs};
use crate::shader::pass_plan::{self, PassPlan};
use crate::shader::variant::Variant;

/// The passes of one variant of one problem, by number of images.
pub struct Generated {
    problem: Conv2d,
    variant: Variant,
    name: String,
    /// Weights in the form that the passes read. Packing does not depend on the number of images.
    packed: Option<Rc<Buffer>>,
    pacing: Pacing,
    fused: Option<Fused>,
    passes: RefCell<HashMap<usize, Rc<Passes>>>,
}

impl Generated {
    /// Builds the passes for `images` images, with an epilogue if one is given. `None` if `variant` has no generated passes.
    ///
    /// # Errors
    /// The compiler's log; [`Error::OutOfMemory`].
    pub fn new(
        programs: &mut Programs,
        problem: &Conv2d,
        variant: Variant,
        (images, pacing): (usize, Pacing),
        fused: Option<&Fused>,
    ) -> Result<Option<Self>> {
        let Some(plan) = pass_plan::generate(&variant, &problem.with_batch(images)) else {
            return Ok(None);
        };
        let packed = match plan.packed {
            0 => None,
            elements => Some(Rc::new(Buffer::new(programs.context(), elements * size_of::<f32>())?)),
        };
        let generated = Generated {
            problem: *problem,
            variant,
            name: plan.name.clone(),
            packed,
            pacing,
            fused: fused.cloned(),
            passes: RefCell::default(),
        };
        generated.build(programs, plan, images)?;
        Ok(Some(generated))
    }

    fn build(&self, programs: &mut Programs, mut plan: PassPlan, images: usize) -> Result<()> {
        debug_assert!(self.packed.as_ref().is_none_or(|it| it.bytes() == plan.packed * size_of::<f32>()));
        let work = dispatch::together(plan.run.iter().map(passes::work));
        let budget = self.pacing.budget(&work, images);
        let packed = self.packed.clone();
        let passes = match &self.fused {
            Some(fused) => {
                let places = epilogue::fuse_plan(&mut plan, fused, Outputs::InPlace)?;
                Passes::fused(programs, &plan, packed, budget, (fused, &places))?
            }
            None => Passes::with(programs, &plan, packed, budget)?,
        };
        let mut all = self.passes.borrow_mut();
        if all.len() >= MAX_BATCH_SIZES {
            all.clear();
        }
        all.insert(images, Rc::new(passes));
        Ok(())
    }

    /// Builds the passes for `images` images, if they are missing.
    ///
    /// # Errors
    /// The compiler's log; [`Error::OutOfMemory`].
    pub fn prepare(&self, programs: &mut Programs, images: usize) -> Result<()> {
        if self.passes.borrow().contains_key(&images) {
            return Ok(());
        }
        let missing = || Error::Internal(format!("{} has no passes for {images} images", self.variant));
        let plan =
            pass_plan::generate(&self.variant, &self.problem.with_batch(images)).ok_or_else(missing)?;
        self.build(programs, plan, images)
    }

    /// The passes for `images` images.
    ///
    /// # Errors
    /// [`Error::Internal`] if they were never prepared.
    pub fn passes(&self, images: usize) -> Result<Rc<Passes>> {
        let passes = self.passes.borrow().get(&images).cloned();
        passes
            .ok_or_else(|| Error::Internal(format!("{} was not prepared for {images} images", self.variant)))
    }

    /// Learns that `images` images took `took`.
    pub fn learn(&self, images: usize, took: Duration) {
        if let Some(passes) = self.passes.borrow().get(&images) {
            passes.learn(took);
        }
    }

    /// The kernel's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The variant.
    pub fn variant(&self) -> Variant {
        self.variant
    }
}
