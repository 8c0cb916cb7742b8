//! A kernel's program: declarations, functions, `main`.

use crate::allocate;
use crate::kernel::tree::{
    Action, ArgumentKind, Buffer, BufferShape, Code, Dimension, Intent, Kernel, Operation, Procedure,
    StatementId, Type, Unit, Value, VariableKind,
};

use super::constants::literal;
use super::helpers::Helpers;
use super::loops::Loops;
use super::names::Names;
use super::{
    FAULT_BINDING, Glsl, Options, Owner, PARAMETER_BINDING, Parameters, Version, WHAT, Write, Writer,
    reduction, streaming,
};

/// The loop that an invocation ends with on devices that end loops early.
const PROBE: &str = "void sparkle_probe_loops() {
  uint value = sparkle_probe.x;
  for (uint turn = 0u; turn < sparkle_probe.y; ++turn) value = value * 1664525u + 1013904223u;
  if (value != sparkle_probe.z) sparkle_cut = 1u;
}

";

/// Whether points of a workgroup see each other's stores to buffers.
pub(super) fn shares_buffers(kernel: &Kernel) -> bool {
    kernel.cooperative && buffers(kernel).any(|(_, buffer)| buffer.is_read && buffer.is_written)
}

fn buffers(kernel: &Kernel) -> impl Iterator<Item = (usize, &Buffer)> {
    kernel.arguments.iter().enumerate().filter_map(|(position, argument)| match &argument.kind {
        ArgumentKind::Buffer(buffer) => Some((position, buffer)),
        _ => None,
    })
}

/// The procedures that a code calls, directly or not, by index.
pub(super) fn reachable(unit: &Unit, code: &Code) -> Vec<bool> {
    let mut reached = vec![false; unit.procedures.len()];
    let mark = |code: &Code, reached: &mut Vec<bool>| {
        for expression in &code.expressions {
            if let Operation::Call(index, _) = expression.operation {
                reached[index] = true;
            }
        }
        for statement in &code.statements {
            if let Action::Call(index, _) = statement.action {
                reached[index] = true;
            }
        }
    };
    mark(code, &mut reached);
    // Callers come last.
    for index in (0..unit.procedures.len()).rev() {
        if reached[index] {
            mark(&unit.procedures[index].code, &mut reached);
        }
    }
    reached
}

/// A kernel as GLSL.
pub(super) fn kernel(unit: &Unit, kernel: &Kernel, options: &Options) -> Write<Glsl> {
    let size = super::local_size(kernel, options);
    let free = !kernel.cooperative && kernel.reductions.is_empty();
    let coarsening = if free { options.coarsening.max(1) } else { 1 };
    let streamed = options.streamed && !options.checked && streaming::can_stream(kernel);
    let late = if streamed { streaming::late_stores(kernel) } else { &[] };
    let mut writer = Writer {
        unit,
        version: options.version,
        parameters: options.parameters,
        contract: kernel.contract,
        names: Names::new(""),
        helpers: Helpers::default(),
        out: String::new(),
        indent: 0,
        owner: Owner::Kernel(kernel),
        code: &kernel.code,
        variables: Vec::new(),
        procedures: Vec::new(),
        loops: Loops::default(),
        temporaries: 0,
        checked: options.checked,
        repeated: match (options.loop_limit, kernel.reductions.is_empty()) {
            (false, _) => 1,
            (true, true) => super::REPEATED,
            // Such a text has each point's statements sixteen times.
            (true, false) => super::REPEATED / 4,
        },
    };
    writer.check_contract(kernel.span)?;
    let mut names = Vec::new();
    for argument in &kernel.arguments {
        names.push(writer.names.global(&argument.name)?);
    }
    writer.functions(&reachable(unit, &kernel.code))?;
    writer.kernel_body(kernel, &names, late)?;
    if options.loop_limit {
        writer.put(PROBE)?;
    }
    if streamed {
        writer.late_function(kernel, late)?;
        writer.streaming_main(kernel, (size.iter().product(), coarsening))?;
    } else {
        writer.inside(kernel, size)?;
        if kernel.reductions.is_empty() {
            writer.main(kernel, size, coarsening)?;
        } else {
            writer.reduction_main(kernel)?;
        }
    }
    let functions = std::mem::take(&mut writer.out);
    writer.head(kernel, size, &names, options)?;
    let helpers = writer.helpers.text(kernel.contract, options.version);
    writer.put(&helpers)?;
    writer.put(&functions)?;
    let finishers = reduction::finishers(kernel, options.version)?;
    Ok(Glsl { text: writer.out, local_size: size, coarsening, streamed, names, finishers })
}

impl<'t> Writer<'t> {
    pub(super) fn check_contract(&self, span: crate::kernel::span::Span) -> Write {
        if self.version == Version::Es310 && self.contract == crate::kernel::tree::Contract::Off {
            let message =
                "GLSL ES has no exact arithmetic for `contract=off`; desktop OpenGL and the CPU have";
            return self.unsupported(crate::kernel::diagnostics::Code::NoPrecise, span, message);
        }
        Ok(())
    }

    /// The procedures of a text.
    pub(super) fn functions(&mut self, reached: &[bool]) -> Write {
        let unit = self.unit;
        for (procedure, reached) in unit.procedures.iter().zip(reached) {
            let name = if *reached { self.names.global(&procedure.name)? } else { String::new() };
            allocate::push(&mut self.procedures, name, WHAT)?;
        }
        let (owner, code) = (self.owner, self.code);
        for (index, procedure) in unit.procedures.iter().enumerate().filter(|(index, _)| reached[*index]) {
            self.owner = Owner::Procedure(procedure);
            self.code = &procedure.code;
            self.function(procedure, index)?;
        }
        (self.owner, self.code) = (owner, code);
        Ok(())
    }

    fn function(&mut self, procedure: &'t Procedure, index: usize) -> Write {
        self.start_code(&[])?;
        let result = match procedure.result {
            Some(id) => {
                let variable = procedure.code.variable(id);
                self.ty(variable.ty, variable.span)?
            }
            None => "void",
        };
        let mut dummies = Vec::new();
        for id in &procedure.dummies {
            let variable = procedure.code.variable(*id);
            let ty = self.ty(variable.ty, variable.span)?;
            let qualifier = match variable.kind {
                VariableKind::Dummy(Intent::Out) => "out ",
                VariableKind::Dummy(Intent::InOut) => "inout ",
                _ => "",
            };
            // A parameter that only comes in is what the caller computed.
            let precise = if qualifier.is_empty() { "" } else { self.precise() };
            dummies.push(format!("{precise}{qualifier}{ty} {}", self.name(*id)));
        }
        let head = format!("{result} {}({}) {{", self.procedures[index], dummies.join(", "));
        self.open(&head)?;
        self.locals()?;
        self.block(&procedure.code.body)?;
        if procedure.result.is_some() {
            let text = self.return_text();
            self.line(&text)?;
        }
        self.close("}\n")
    }

    /// Names of the current code's variables, given those of arguments, and its jumps.
    pub(super) fn start_code(&mut self, arguments: &[String]) -> Write {
        self.names.forget_locals();
        self.variables.clear();
        for variable in &self.code.variables {
            let name = match variable.kind {
                VariableKind::Argument(position) if position < arguments.len() => arguments[position].clone(),
                VariableKind::Shared(_) => self.names.global(&variable.name)?,
                _ => self.names.local(&variable.name)?,
            };
            allocate::push(&mut self.variables, name, WHAT)?;
        }
        self.loops = Loops::of(self.code)?;
        Ok(())
    }

    /// Declarations of local variables. Scalars start as zero.
    pub(super) fn locals(&mut self) -> Write {
        let code = self.code;
        for (index, variable) in code.variables.iter().enumerate() {
            let ty = match variable.kind {
                VariableKind::Local | VariableKind::Private(_) => self.ty(variable.ty, variable.span)?,
                _ => continue,
            };
            let zero = match variable.ty {
                Type::Logical => "false",
                Type::Int32 | Type::Int64 => "0",
                Type::Real32 => "0.0",
                Type::Real64 => "0.0LF",
            };
            let name = &self.variables[index];
            let text = match &variable.kind {
                VariableKind::Private(fixed) => {
                    let elements: u64 = fixed.iter().map(|it| u64::from(it.extent)).product();
                    format!("{}{ty} {name}[{elements}];", self.precise())
                }
                _ => format!("{}{ty} {name} = {zero};", self.precise()),
            };
            self.line(&text)?;
        }
        Ok(())
    }

    /// Bounds that are computed once.
    pub(super) fn bounds(&mut self, position: usize, buffer: &'t Buffer) -> Write {
        let BufferShape::Array(dimensions) = &buffer.shape else { return Ok(()) };
        let name = self.variables.iter().zip(&self.code.variables).find_map(|(name, variable)| {
            (variable.kind == VariableKind::Argument(position)).then(|| name.clone())
        });
        let name = name.unwrap_or_default();
        for (axis, Dimension { lower, extent }) in dimensions.iter().enumerate() {
            let extent = extent.filter(|_| axis + 1 < dimensions.len());
            for (what, id) in [("lower", Some(*lower)), ("extent", extent)] {
                let Some(id) = id.filter(|id| self.code.constant(*id).is_none()) else { continue };
                self.begin()?;
                self.put(&format!("int sparkle_{what}{}_{name} = ", axis + 1))?;
                self.expression(id)?;
                self.put(";\n")?;
            }
        }
        Ok(())
    }

    /// The statements of a kernel, as a function of the index arguments.
    fn kernel_body(&mut self, kernel: &'t Kernel, names: &[String], late: &[StatementId]) -> Write {
        self.start_code(names)?;
        let late_parameters = self.late_parameters(kernel, late)?;
        let indices: Vec<String> = names[..kernel.dims].iter().map(|name| format!("int {name}")).collect();
        self.open(&format!("void sparkle_body({}{late_parameters}) {{", indices.join(", ")))?;
        for (position, buffer) in buffers(kernel) {
            self.bounds(position, buffer)?;
        }
        self.locals()?;
        let body = &kernel.code.body;
        self.block(&body[..body.len() - late.len()])?;
        for (index, id) in late.iter().enumerate() {
            self.late_value(index, *id)?;
        }
        self.close("}\n")
    }

    /// Whether a point is to be computed; sets its linear index.
    fn inside(&mut self, kernel: &Kernel, size: [u32; 3]) -> Write {
        self.open("bool sparkle_inside(uvec3 point) {")?;
        if kernel.dims == 1 {
            self.line("sparkle_index = point.x;")?;
            self.line("if (count.x != 0u) return point.x < count.x;")?;
        } else {
            let [x, y, z] = size;
            self.line(&format!(
                "uvec3 extents = count.x != 0u ? count : gl_NumWorkGroups * uvec3({x}u, {y}u, {z}u);"
            ))?;
            let (linear, inside) = if kernel.dims == 2 {
                ("point.x + extents.x * point.y", "point.z == 0u")
            } else {
                ("point.x + extents.x * (point.y + extents.y * point.z)", "point.z < extents.z")
            };
            self.line(&format!("sparkle_index = {linear};"))?;
            self.line(&format!(
                "if (point.x >= extents.x || point.y >= extents.y || !({inside})) return false;"
            ))?;
            self.line("if (count.x != 0u) return true;")?;
        }
        let own = |buffer: &Buffer| matches!(buffer.shape, BufferShape::Element { own: true });
        let length = |position: usize| format!("uint({}.length())", self.name_of_argument(kernel, position));
        let owners: Vec<String> = buffers(kernel)
            .filter(|(_, buffer)| own(buffer))
            .map(|(position, _)| format!("sparkle_index < {}", length(position)))
            .collect();
        let is_reduction = |buffer: &Buffer| matches!(buffer.shape, BufferShape::Reduction(_));
        let written = buffers(kernel).any(|(_, buffer)| buffer.is_written && !is_reduction(buffer));
        let others: Vec<String> = buffers(kernel)
            .filter(|(_, buffer)| !is_reduction(buffer) && (buffer.is_written || !written))
            .map(|(position, _)| format!("sparkle_index < {}", length(position)))
            .collect();
        let condition = if !owners.is_empty() {
            owners.join(" && ")
        } else if !others.is_empty() {
            others.join(" || ")
        } else {
            "true".to_owned()
        };
        self.line(&format!("return {condition};"))?;
        self.close("}\n")
    }

    fn name_of_argument(&self, kernel: &Kernel, position: usize) -> &str {
        self.name(kernel.arguments[position].variable)
    }

    /// A call of the body for a point.
    pub(super) fn body_call(&self, kernel: &Kernel) -> String {
        let base = if kernel.base == 0 { String::new() } else { format!(" + {}", kernel.base) };
        let indices = ["x", "y", "z"][..kernel.dims].iter().map(|axis| format!("int(point.{axis}){base}"));
        format!("sparkle_body({});", indices.collect::<Vec<_>>().join(", "))
    }

    fn main(&mut self, kernel: &Kernel, size: [u32; 3], coarsening: u32) -> Write {
        let [x, y, z] = size;
        self.open("void main() {")?;
        if kernel.dims == 1 {
            let total = x * y * z;
            self.line(
                "sparkle_group = uvec3(gl_WorkGroupID.x + gl_NumWorkGroups.x * (gl_WorkGroupID.y + gl_NumWorkGroups.y * gl_WorkGroupID.z) + first.x, 0u, 0u);",
            )?;
            if kernel.cooperative {
                self.line(&format!("if (count.x != 0u && sparkle_group.x * {total}u >= count.x) return;"))?;
            }
            self.line(&format!(
                "uvec3 point = uvec3(sparkle_group.x * {}u + gl_LocalInvocationIndex, 0u, 0u);",
                total * coarsening
            ))?;
        } else {
            self.line("sparkle_group = gl_WorkGroupID + first;")?;
            self.line(&format!(
                "uvec3 point = sparkle_group * uvec3({}u, {y}u, {z}u) + gl_LocalInvocationID;",
                x * coarsening
            ))?;
        }
        let call = self.body_call(kernel);
        if kernel.cooperative {
            self.line(&call)?;
            self.end_main()?;
            return self.close("}");
        }
        let step = if kernel.dims == 1 { x * y * z } else { x };
        if coarsening > 1 {
            self.open(&format!("for (uint part = 0u; part < {coarsening}u; ++part, point.x += {step}u) {{"))?;
        }
        self.line(&format!("if (sparkle_inside(point)) {call}"))?;
        if coarsening > 1 {
            self.close("}")?;
        }
        self.end_main()?;
        self.close("}")
    }

    /// What comes last in `main`.
    pub(super) fn end_main(&mut self) -> Write {
        if self.repeated > 1 { self.line("sparkle_probe_loops();") } else { Ok(()) }
    }

    /// `#version` and the declarations.
    fn head(&mut self, kernel: &'t Kernel, size: [u32; 3], names: &[String], options: &Options) -> Write {
        self.line(version_line(options.version))?;
        let [x, y, z] = size;
        self.line(&format!("layout(local_size_x = {x}, local_size_y = {y}, local_size_z = {z}) in;"))?;
        self.line("uniform uvec3 first;")?;
        self.line("uniform uvec3 count;")?;
        self.scalars(kernel, names, options)?;
        let coherent = if shares_buffers(kernel) { "coherent " } else { "" };
        for (position, buffer) in buffers(kernel) {
            let argument = &kernel.arguments[position];
            let ty = self.stored(argument.ty, argument.span)?;
            let access = match buffer.intent {
                Intent::In => "readonly ".to_owned(),
                _ => coherent.to_owned(),
            };
            let name = &names[position];
            let block = self.names.global(&format!("Buffer{name}"))?;
            self.line(&format!(
                "layout(std430, binding = {}) {access}buffer {block} {{ {ty} {name}[]; }};",
                buffer.slot
            ))?;
        }
        if self.checked {
            self.line(&format!(
                "layout(std430, binding = {FAULT_BINDING}) buffer SparkleFault {{ int sparkle_fault[4]; }};"
            ))?;
            self.put(CHECK)?;
        }
        if options.loop_limit {
            self.line(&format!(
                "layout(std430, binding = {FAULT_BINDING}) buffer SparkleLoops {{ uint sparkle_cut; }};"
            ))?;
            self.line("uniform uvec3 sparkle_probe;")?;
        }
        self.shared(kernel)?;
        self.line("uvec3 sparkle_group;")?;
        self.line("uint sparkle_index;")?;
        for (index, reduction) in kernel.reductions.iter().enumerate() {
            let ty = self.ty(reduction.ty, reduction.span)?;
            let accumulator = format!("{}{ty} sparkle_accumulator{index};", self.precise());
            self.line(&accumulator)?;
            self.line(&format!("shared {ty} sparkle_scratch{index}[256];"))?;
        }
        self.line("")
    }

    fn scalars(&mut self, kernel: &Kernel, names: &[String], options: &Options) -> Write {
        let is_block = options.parameters == Parameters::Buffer;
        if is_block {
            self.open(&format!(
                "layout(std430, binding = {PARAMETER_BINDING}) readonly buffer ParamBuffer {{"
            ))?;
        }
        let mut values = options.values.iter();
        for (argument, name) in kernel.arguments.iter().zip(names) {
            if !matches!(argument.kind, ArgumentKind::Scalar | ArgumentKind::Index(_)) {
                continue;
            }
            let is_index = matches!(argument.kind, ArgumentKind::Index(_));
            let ty = self.ty(argument.ty, argument.span)?;
            let stored = self.stored(argument.ty, argument.span)?;
            match options.parameters {
                Parameters::Buffer => self.line(&format!("{stored} {name};"))?,
                _ if is_index => {}
                Parameters::Uniform => self.line(&format!("uniform {ty} {name};"))?,
                Parameters::Inline => {
                    let value = match values.next() {
                        Some(Value::Logical(value)) => i32::from(*value).to_string(),
                        Some(value) => literal(*value),
                        None => format!("PLACEHOLDER_{}", argument.name),
                    };
                    self.line(&format!("const {stored} {name} = {value};"))?;
                }
            }
        }
        if is_block { self.close("} params;") } else { Ok(()) }
    }

    fn shared(&mut self, kernel: &'t Kernel) -> Write {
        for (index, variable) in kernel.code.variables.iter().enumerate() {
            if let VariableKind::Shared(fixed) = &variable.kind {
                let ty = self.ty(variable.ty, variable.span)?;
                let elements: u64 = fixed.iter().map(|it| u64::from(it.extent)).product();
                let text = format!("shared {ty} {}[{elements}];", self.variables[index]);
                self.line(&text)?;
            }
        }
        Ok(())
    }
}

/// Notes the first access outside an array, and makes it one of the first element.
const CHECK: &str = "int sparkle_check(int at, int length, int line, int variable) {
  if (at >= 0 && at < length) return at;
  if (atomicCompSwap(sparkle_fault[0], 0, line) == 0) {
    sparkle_fault[1] = variable;
    sparkle_fault[2] = at;
    sparkle_fault[3] = length;
  }
  return 0;
}
";

/// `#version` and what every text of it needs.
pub(super) fn version_line(version: Version) -> &'static str {
    match version {
        Version::Desktop430 => "#version 430 core",
        Version::Es310 => "#version 310 es\nprecision highp float;\nprecision highp int;",
    }
}
