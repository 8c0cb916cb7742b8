//! What passes hand on to each other lies in buffers that all plans of a session share: its contents are of no meaning between
//! runs, and a context runs one after the other. A network's plans together need as much as the largest, not the sum.
//!
//! The buffers grow when a plan needs more, and go with the last plan that uses any.

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
    /// Sees to it that buffer `number` has at least `elements` elements, for each of the list.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory) and the like; what there was is still there, or there is nothing.
    pub fn reserve(&self, context: &Rc<Context>, elements: &[usize]) -> Result<()> {
        let mut buffers = self.buffers.borrow_mut();
        for (number, &elements) in elements.iter().enumerate() {
            let Some((held, buffer)) = buffers.get_mut(number) else {
                buffers.push((elements, Buffer::new(context, elements * size_of::<f32>())?));
                continue;
            };
            if *held < elements {
                // The driver deletes the old one when what is under way has finished. New memory comes first, so that a failure
                // leaves those who have less in peace.
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

    /// Elements of all of them.
    #[cfg(test)]
    pub fn elements(&self) -> Vec<usize> {
        self.buffers.borrow().iter().map(|(elements, _)| *elements).collect()
    }
}
