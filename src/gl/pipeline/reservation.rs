//! A caller's request for a slot.

use std::sync::Arc;

use super::sync::{Condvar, Mutex, lock, wait};
use crate::backend::{Recipe, Slot};
use crate::error::{Error, Result};

/// A caller's request for a slot.
pub struct Reservation {
    /// The plan that the slot is for.
    pub recipe: Arc<Recipe>,
    answer: Mutex<Answer>,
    answered: Condvar,
}

enum Answer {
    None,
    Granted(Box<dyn Slot>),
    Failed(Error),
    Taken,
}

impl Reservation {
    /// A request without an answer.
    pub fn new(recipe: &Arc<Recipe>) -> Arc<Self> {
        Arc::new(Reservation {
            recipe: recipe.clone(),
            answer: Mutex::new(Answer::None),
            answered: Condvar::new(),
        })
    }

    /// Whether it has no answer yet.
    pub fn is_open(&self) -> bool {
        matches!(*lock(&self.answer), Answer::None)
    }

    fn answer(&self, with: Answer) {
        let mut answer = lock(&self.answer);
        if matches!(*answer, Answer::None) {
            *answer = with;
        }
        self.answered.notify_all();
    }

    /// Grants it.
    pub fn grant(&self, slot: Box<dyn Slot>) {
        self.answer(Answer::Granted(slot));
    }

    /// Refuses it.
    pub fn fail(&self, error: Error) {
        self.answer(Answer::Failed(error));
    }

    /// Waits for the answer.
    ///
    /// # Errors
    /// Why the request was refused.
    pub fn wait(&self) -> Result<Box<dyn Slot>> {
        let mut answer = lock(&self.answer);
        loop {
            match std::mem::replace(&mut *answer, Answer::Taken) {
                Answer::Granted(slot) => return Ok(slot),
                Answer::Failed(error) => return Err(error),
                Answer::Taken => {
                    return Err(Error::Internal(
                        "the answer to a request for a slot was taken twice".to_owned(),
                    ));
                }
                Answer::None => {
                    *answer = Answer::None;
                    answer = wait(&self.answered, answer);
                }
            }
        }
    }
}
