//! Reductions: `main` of their kernels, and the programs that combine blocks' results.

use crate::kernel::tree::{ArgumentKind, Intent, Kernel, Reduction, ReductionOperator, Type, Value};

use super::constants::literal;
use super::entry::version_line;
use super::helpers::{Helper, Helpers};
use super::{Version, Write, Writer};

/// A program that combines the results of a reduction's blocks.
///
/// It reads `count.x` values from binding 0 and writes one for each 256 of them to binding 1; workgroups take blocks
/// in turn. `last` is 0 if further values follow. For the single last value it is 1 to store it, or 2 to combine it
/// with the value that is there: [`Finisher::combines`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finisher {
    /// The text.
    pub text: String,
    /// Whether the last value is combined with the argument's, because that is `intent(inout)`.
    pub combines: bool,
}

/// Blocks that a workgroup of a reduction computes at once.
pub const BLOCKS_OF_GROUP: u32 = 8;

/// The value that changes nothing.
pub(super) fn identity(reduction: &Reduction) -> String {
    let is_integer = reduction.ty == Type::Int32;
    let infinity = |sign: f64| match reduction.ty {
        Type::Real64 => Value::Real64(sign * f64::INFINITY),
        _ => Value::Real32(sign as f32 * f32::INFINITY),
    };
    let number = |value: i32| match reduction.ty {
        Type::Real64 => Value::Real64(value.into()),
        Type::Real32 => Value::Real32(value as f32),
        _ => Value::Int32(value),
    };
    literal(match reduction.operator {
        ReductionOperator::Add | ReductionOperator::Or => number(0),
        ReductionOperator::Multiply => number(1),
        ReductionOperator::And => number(-1),
        ReductionOperator::Min if is_integer => number(i32::MAX),
        ReductionOperator::Max if is_integer => number(i32::MIN),
        ReductionOperator::Min => infinity(1.0),
        ReductionOperator::Max => infinity(-1.0),
    })
}

const LINEAR: &str =
    "gl_WorkGroupID.x + gl_NumWorkGroups.x * (gl_WorkGroupID.y + gl_NumWorkGroups.y * gl_WorkGroupID.z)";
const GROUPS: &str = "gl_NumWorkGroups.x * gl_NumWorkGroups.y * gl_NumWorkGroups.z";

impl Writer<'_> {
    /// `main` of a kernel with reductions. A row of 32 invocations computes a block, each every 32nd point of it: so the
    /// first three levels of the tree need no barrier, and eight blocks share those of the other five. Their points are
    /// taken in an order in which few results wait, each in a variable of its own.
    pub(super) fn reduction_main(&mut self, kernel: &Kernel) -> Write {
        let call = self.body_call(kernel);
        // Whole workgroups take their points without a condition, so that the loads of all of them are on their way at once.
        self.take(kernel, "sparkle_take", &call)?;
        self.take(kernel, "sparkle_try", &format!("if (sparkle_inside(point)) {call}"))?;
        self.open("void main() {")?;
        self.line("uint lane = gl_LocalInvocationIndex;")?;
        self.line("uint column = lane % 32u;")?;
        self.line(&format!("uint groups = {GROUPS};"))?;
        let points = ["count.x", "count.x * count.y", "count.x * count.y * count.z"][kernel.dims - 1];
        self.line(&format!("uint points = {points};"))?;
        self.line("uint blocks = count.x != 0u ? (points + 255u) / 256u : first.x + groups;")?;
        let rows = BLOCKS_OF_GROUP;
        let (start, step) = (format!("first.x + {rows}u * ({LINEAR})"), format!("{rows}u * groups"));
        self.open(&format!("for (uint base = {start}; base < blocks; base += {step}) {{"))?;
        self.line("uint block = base + lane / 32u;")?;
        self.line("uint index = block * 256u + column;")?;
        self.line(&format!("bool whole = base * 256u + {}u <= points;", rows * 256))?;
        for (number, reduction) in kernel.reductions.iter().enumerate() {
            let names =
                (0..3).map(|level| format!("sparkle_{level}_{number}")).collect::<Vec<_>>().join(", ");
            let line = format!("{}{} {names};", self.precise(), self.ty(reduction.ty, reduction.span)?);
            self.line(&line)?;
        }
        self.open("if (whole) {")?;
        self.points_of_lane(kernel, "sparkle_take")?;
        self.close("} else {")?;
        self.indent += 1;
        self.points_of_lane(kernel, "sparkle_try")?;
        self.close("}")?;
        self.line("memoryBarrierShared();")?;
        self.line("barrier();")?;
        self.open("for (uint stride = 16u; stride > 0u; stride >>= 1) {")?;
        self.open("if (column < stride) {")?;
        for (number, reduction) in kernel.reductions.iter().enumerate() {
            let scratch = format!("sparkle_scratch{number}");
            let (before, after) = self.combination(reduction, &format!("{scratch}[lane]"));
            self.line(&format!("{scratch}[lane] = {before}{scratch}[lane + stride]{after};"))?;
        }
        self.close("}")?;
        self.line("memoryBarrierShared();")?;
        self.line("barrier();")?;
        self.close("}")?;
        self.open("if (column == 0u && block < blocks) {")?;
        for (number, reduction) in kernel.reductions.iter().enumerate() {
            let name = self.name(reduction.variable).to_owned();
            self.line(&format!("{name}[block] = sparkle_scratch{number}[lane];"))?;
        }
        self.close("}")?;
        self.line("barrier();")?;
        self.close("}")?;
        self.end_main()?;
        self.close("}")
    }

    /// The function `name`, which sets the accumulators to the result of one point, if `call` computes it.
    fn take(&mut self, kernel: &Kernel, name: &str, call: &str) -> Write {
        self.open(&format!("void {name}(uint index) {{"))?;
        match kernel.dims {
            1 => self.line("uvec3 point = uvec3(index, 0u, 0u);")?,
            dims => {
                self.line("uvec3 extents = max(count, uvec3(1u));")?;
                self.line("uint row = index / extents.x;")?;
                let rest = if dims == 2 { "row, 0u" } else { "row % extents.y, row / extents.y" };
                self.line(&format!("uvec3 point = uvec3(index % extents.x, {rest});"))?;
            }
        }
        self.line("sparkle_index = index;")?;
        for (number, reduction) in kernel.reductions.iter().enumerate() {
            self.line(&format!("sparkle_accumulator{number} = {};", identity(reduction)))?;
        }
        self.line(call)?;
        self.close("}")
    }

    /// The eight points of an invocation, combined. Results wait, of one, two and four points: after points 0 and 4 there
    /// is one of two, and so on.
    fn points_of_lane(&mut self, kernel: &Kernel, take: &str) -> Write {
        for (taken, point) in [0, 4, 2, 6, 1, 5, 3, 7].into_iter().enumerate() {
            self.line(&format!("{take}(index + {}u);", point * 32))?;
            let complete = (taken + 1).trailing_zeros();
            for (number, reduction) in kernel.reductions.iter().enumerate() {
                let mut value = format!("sparkle_accumulator{number}");
                for level in 0..complete {
                    let (before, after) = self.combination(reduction, &format!("sparkle_{level}_{number}"));
                    value = format!("{before}({value}){after}");
                }
                let to = match complete {
                    3 => format!("sparkle_scratch{number}[lane]"),
                    level => format!("sparkle_{level}_{number}"),
                };
                self.line(&format!("{to} = {value};"))?;
            }
        }
        Ok(())
    }
}

/// The second program of each reduction.
pub(super) fn finishers(kernel: &Kernel, version: Version) -> Write<Vec<Finisher>> {
    let mut all = Vec::new();
    for reduction in &kernel.reductions {
        let combines = matches!(
            &kernel.arguments[reduction.argument].kind,
            ArgumentKind::Buffer(buffer) if buffer.intent == Intent::InOut
        );
        all.push(Finisher { text: finisher(kernel, reduction, version), combines });
    }
    Ok(all)
}

fn finisher(kernel: &Kernel, reduction: &Reduction, version: Version) -> String {
    let ty = match reduction.ty {
        Type::Int32 => "int",
        Type::Real64 => "double",
        _ => "float",
    };
    let mut helpers = Helpers::default();
    let combine = |one: &str, other: &str, helpers: &mut Helpers| match reduction.operator {
        ReductionOperator::Add => format!("{one} + {other}"),
        ReductionOperator::Multiply => format!("{one} * {other}"),
        ReductionOperator::And => format!("{one} & {other}"),
        ReductionOperator::Or => format!("{one} | {other}"),
        ReductionOperator::Min => format!("{}({one}, {other})", helpers.need(Helper::Min, reduction.ty)),
        ReductionOperator::Max => format!("{}({one}, {other})", helpers.need(Helper::Max, reduction.ty)),
    };
    let inner = combine("scratch[lane]", "scratch[lane + stride]", &mut helpers);
    let outer = combine("results[0]", "scratch[0]", &mut helpers);
    let head = version_line(version);
    let identity = identity(reduction);
    let helpers = helpers.text(kernel.contract, version);
    format!(
        "{head}
layout(local_size_x = 256, local_size_y = 1, local_size_z = 1) in;
uniform uvec3 first;
uniform uvec3 count;
uniform uint last;
layout(std430, binding = 0) readonly buffer Values {{ {ty} values[]; }};
layout(std430, binding = 1) buffer Results {{ {ty} results[]; }};
shared {ty} scratch[256];
{helpers}
void main() {{
  uint lane = gl_LocalInvocationIndex;
  uint groups = {GROUPS};
  uint blocks = (count.x + 255u) / 256u;
  for (uint block = first.x + {LINEAR}; block < blocks; block += groups) {{
    uint index = block * 256u + lane;
    scratch[lane] = {identity};
    if (index < count.x) scratch[lane] = values[index];
    memoryBarrierShared();
    barrier();
    // A single value is not combined with identities, which could change a NaN or the sign of a zero.
    for (uint stride = count.x > 1u ? 128u : 0u; stride > 0u; stride >>= 1) {{
      if (lane < stride) scratch[lane] = {inner};
      memoryBarrierShared();
      barrier();
    }}
    if (lane == 0u) {{
      if (last == 2u) results[0] = {outer};
      else results[block] = scratch[0];
    }}
    barrier();
  }}
}}
"
    )
}
