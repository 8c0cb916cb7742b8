//! Intermediate buffers between passes, which all plans of a context share.
//!
//! Their contents do not outlive a run, and a context runs one plan at a time. So a network's plans together need as
//! much as the largest one, not the sum. Buffers grow when a plan needs more, and go with the last plan that uses
//! them.

use std::cell::{Ref, RefCell};
use std::rc::Rc;

use crate::error::Result;
use crate::gl::driver::context::Context;
use crate::gl::driver::resource::Buffer;

/// Scratch buffers, by number.
#[derive(Default)]
pub struct Scratch {
    buffers: RefCell<Vec<(usize, Buffer)>>,
}

impl Scratch {
    /// Ensures that buffer `number` has at least `elements[number]` elements, for each number.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory), or what GL reports. Existing buffers stay.
    pub fn reserve(&self, context: &Rc<Context>, elements: &[usize]) -> Result<()> {
        let mut buffers = self.buffers.borrow_mut();
        for (number, &elements) in elements.iter().enumerate() {
            let Some((held, buffer)) = buffers.get_mut(number) else {
                buffers.push((elements, Buffer::new(context, elements * size_of::<f32>())?));
                continue;
            };
            if *held < elements {
                // The driver deletes the old buffer when work in flight has finished. The new one is allocated first,
                // so that a failure does not affect plans that need less.
                *buffer = Buffer::new(context, elements * size_of::<f32>())?;
                *held = elements;
            }
        }
        Ok(())
    }

    /// Buffer `number`.
    pub fn buffer(&self, number: usize) -> Option<Ref<'_, Buffer>> {
        Ref::filter_map(self.buffers.borrow(), |buffers| buffers.get(number).map(|(_, buffer)| buffer)).ok()
    }

    /// The elements of each buffer.
    #[cfg(test)]
    pub fn elements(&self) -> Vec<usize> {
        self.buffers.borrow().iter().map(|(elements, _)| *elements).collect()
    }
}
