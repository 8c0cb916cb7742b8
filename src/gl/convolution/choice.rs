//! The planner's choice of kernels, as a plan's recipe carries it.

use crate::backend::Recipe;
use crate::problem::Conv2d;
use crate::shader::variant::Variant;

/// What the planner chose.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Chosen {
    /// The kernels.
    pub variant: Variant,
    /// Seconds that the planner expects the whole batch to take, if it was asked.
    pub seconds: Option<f64>,
}

impl Chosen {
    /// The fallback kernels, which compute everything.
    pub const FALLBACK: Chosen = Chosen { variant: Variant::FALLBACK, seconds: None };

    /// The choice in one of this engine's recipes. The fallback kernels compute recipes of other engines.
    pub fn of(recipe: &Recipe) -> Chosen {
        recipe.choice.downcast_ref().copied().unwrap_or(Chosen::FALLBACK)
    }

    /// `variant`, without an expected time.
    #[cfg(feature = "lab")]
    pub fn variant(variant: Variant) -> Self {
        Chosen { variant, seconds: None }
    }

    /// A recipe that computes `problem` with this choice.
    pub fn recipe(self, problem: Conv2d, weights: Vec<f32>, bias: Option<Vec<f32>>) -> Recipe {
        Recipe { problem, weights, bias, choice: Box::new(self) }
    }
}
