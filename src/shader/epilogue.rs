//! An epilogue of the kernel language in the text of a shader that computes outputs.
//!
//! Shaders apply `FUSED(value, row, address)` to each output, after bias and ReLU, where that macro is defined. Its arguments are
//! the output, its channel, and its place among the outputs. This file defines it, and puts the epilogue's functions before
//! it. So the families of shaders know nothing of epilogues.

use crate::allocate;
use crate::error::{Error, Result};
use crate::kernel::fused::Fused;
use crate::kernel::glsl::{EpilogueOptions, epilogue};

use super::pass_plan::{PassPlan, ShaderSource};

/// What a shader's outputs are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outputs {
    /// Those of a convolution; or of a product, where the shader gives the places in memory.
    InPlace,
    /// A product's without gaps, as the shader counts them. In memory, lines of so many elements are so far apart. If it is
    /// swapped, lines are columns of the product.
    Lines {
        /// Elements of a line.
        length: usize,
        /// Elements from the beginning of a line to that of the next one.
        distance: usize,
        /// Whether a line is a column.
        swapped: bool,
    },
}

/// Where a shader's text has what its epilogue needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The binding of the epilogue's first array; the others follow.
    pub first_binding: u32,
    /// The name of each dummy after the value, the channel and the position.
    pub names: Vec<String>,
}

/// Puts an epilogue into a shader that binds nothing from `first_binding` on.
///
/// # Errors
/// [`Error::Unsupported`] for what GLSL lacks; [`Error::OutOfMemory`].
pub fn fuse(
    source: &mut ShaderSource,
    fused: &Fused,
    first_binding: u32,
    outputs: Outputs,
) -> Result<Places> {
    let options = EpilogueOptions { first_binding, ..EpilogueOptions::default() };
    let glsl = epilogue(fused.unit(), fused.epilogue(), &options)?.map_err(|lacking| {
        let what = format!("epilogue \"{}\": {}", fused.epilogue().name, lacking.message);
        Error::Unsupported { device: "OpenGL".to_owned(), what }
    })?;
    let macro_text = match outputs {
        Outputs::InPlace => "epilogue(value, int(row), int(address))".to_owned(),
        Outputs::Lines { length, distance, swapped } => {
            let channel = if swapped { format!("(address) % {length}") } else { "row".to_owned() };
            let position = format!("(address) / {length} * {distance} + (address) % {length}");
            format!("epilogue(value, {channel}, {position})")
        }
    };
    // After the version and the line for the compiler that may follow it.
    let mut head = 0;
    for line in source.text.split_inclusive('\n').take_while(|it| is_head(it)) {
        head += line.len();
    }
    let (head, rest) = source.text.split_at(head);
    let mut text = String::new();
    for part in [head, &glsl.text, "#define FUSED(value, row, address) ", &macro_text, "\n", rest] {
        allocate::push_str(&mut text, part, "a shader with an epilogue")?;
    }
    source.text = text;
    Ok(Places { first_binding, names: glsl.names })
}

fn is_head(line: &str) -> bool {
    line.starts_with("#version") || line.starts_with("#pragma")
}

/// Puts an epilogue into the last pass of a plan, which finishes the outputs.
///
/// # Errors
/// As [`fuse`].
pub fn fuse_plan(plan: &mut PassPlan, fused: &Fused, outputs: Outputs) -> Result<Places> {
    let Some(last) = plan.run.last_mut() else {
        return Err(Error::Internal("a plan without passes".to_owned()));
    };
    let first_binding = last.bindings.iter().map(|(index, _)| index + 1).max().unwrap_or(0);
    fuse(&mut last.source, fused, first_binding, outputs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::tiles::TILES;
    use crate::problem::{Conv2d, Conv2dDesc, Gemm, GemmDesc, Layout, Transpose};
    use crate::shader::pass_plan::{self, generate};
    use crate::shader::source::{CONV_DIRECT, CONV_PART, SGEMM_DIRECT, SGEMM_PART, check_all_with_glslang};
    use crate::shader::variant::{Family, Variant};

    const TEXT: &str = "
        !@epilogue(base=1)
        pure function f(x, channel, position, n, s, a, b, c, on) result(y)
          use iso_fortran_env, only: int32, real32, real64
          real(real32), intent(in) :: x, s
          integer(int32), intent(in) :: channel, position, n
          real(real32), intent(in) :: a(n), b(:)
          integer(int32), intent(in) :: c(*)
          logical, intent(in) :: on
          real(real32) :: y
          y = x * a(channel) + s * b(position)
          if (on .and. c(channel) > 0) y = max(y, 0.0)
        end function
    ";

    fn fused() -> Fused {
        let compiled = crate::kernel::compile(TEXT.as_bytes()).unwrap();
        Fused::all(compiled.unit.unwrap_or_else(|| panic!("{:?}", compiled.diagnostics))).unwrap().remove(0)
    }

    #[test]
    fn glslang_accepts_epilogues_in_every_family() {
        let fused = fused();
        let layer = |c, side, k, r, groups| Conv2dDesc {
            n: 2,
            c,
            h: side,
            w: side,
            k,
            r,
            s: r,
            pad_h: r / 2,
            pad_w: r / 2,
            groups,
            bias: true,
            relu: true,
            ..Default::default()
        };
        let tile = TILES[0];
        let variant = |family, splits| Variant { family, tile, splits };
        let families = [
            (layer(16, 8, 32, 3, 1), variant(Family::Igemm, 1)),
            (layer(16, 8, 32, 1, 1), variant(Family::Igemm, 2)),
            (layer(16, 7, 32, 3, 1), variant(Family::Igemm, 2)),
            (layer(3, 9, 32, 3, 1), variant(Family::Table, 1)),
            (layer(8, 8, 8, 3, 8), variant(Family::Grouped(1), 1)),
            (layer(8, 6, 8, 3, 8), variant(Family::Grouped(1), 1)),
            (layer(8, 7, 8, 3, 8), variant(Family::Grouped(1), 1)),
            (layer(32, 8, 32, 1, 1), variant(Family::Pointwise(2), 1)),
            (layer(16, 8, 32, 3, 1), variant(Family::Winograd(2), 1)),
            (layer(16, 8, 32, 3, 1), variant(Family::Winograd(4), 1)),
            (layer(16, 6, 32, 3, 1), variant(Family::Winograd(4), 1)),
            (layer(16, 7, 32, 3, 1), variant(Family::Winograd(4), 1)),
        ];
        let mut texts = vec![];
        for (index, (desc, variant)) in families.into_iter().enumerate() {
            let mut plan = generate(&variant, &Conv2d::new(desc).unwrap()).unwrap();
            let places = fuse_plan(&mut plan, &fused, Outputs::InPlace).unwrap();
            assert!(places.names.len() == 6 && places.first_binding >= 4);
            let last = plan.run.pop().unwrap().source;
            assert!(last.text.contains("= FUSED(") && last.text.starts_with("#version 430 core\n#pragma"));
            texts.push((format!("family-{index}"), last.text));
        }
        let gemm = Gemm::new(GemmDesc {
            layout: Layout::RowMajor,
            trans_a: Transpose::No,
            trans_b: Transpose::No,
            m: 40,
            n: 30,
            k: 50,
            alpha: 1.0,
            lda: 50,
            ldb: 30,
            beta: 1.0,
            ldc: 33,
        })
        .unwrap();
        for splits in [1, 2] {
            let mut plan = pass_plan::gemm(&gemm, &tile, splits);
            let outputs = Outputs::Lines { length: 30, distance: 33, swapped: splits == 2 };
            fuse_plan(&mut plan, &fused, outputs).unwrap();
            texts.push((format!("product-{splits}"), plan.run.pop().unwrap().source.text));
        }
        for kernel in [CONV_DIRECT, CONV_PART, SGEMM_DIRECT, SGEMM_PART] {
            let mut source = ShaderSource { name: kernel.name.to_owned(), text: kernel.source.to_owned() };
            fuse(&mut source, &fused, 5, Outputs::InPlace).unwrap();
            texts.push((kernel.name.to_owned(), source.text));
        }
        let texts: Vec<_> = texts.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        assert_eq!(texts.len(), 18);
        check_all_with_glslang(&texts);
    }
}
