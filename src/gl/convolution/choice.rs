//! How a plan's convolution is computed, as its recipe carries it.

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

    /// Of a recipe of this engine's; another engine's is computed by the fallback kernels.
    pub fn of(recipe: &Recipe) -> Chosen {
        recipe.choice.downcast_ref().copied().unwrap_or(Chosen::FALLBACK)
    }

    /// `variant`, with nothing expected of it.
    #[cfg(feature = "lab")]
    pub fn variant(variant: Variant) -> Self {
        Chosen { variant, seconds: None }
    }

    /// A recipe of `problem` that is computed like this.
    pub fn recipe(self, problem: Conv2d, weights: Vec<f32>, bias: Option<Vec<f32>>) -> Recipe {
        Recipe { problem, weights, bias, choice: Box::new(self) }
    }
}
