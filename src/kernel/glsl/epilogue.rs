//! An epilogue as functions that a convolution's or product's text includes.

use crate::error::Result;
use crate::kernel::diagnostics::Diagnostic;
use crate::kernel::tree::{ArgumentKind, Epilogue, Type, Unit, Value};

use super::constants::literal;
use super::entry::reachable;
use super::helpers::Helpers;
use super::loops::Loops;
use super::names::Names;
use super::{Owner, Parameters, Refusal, Version, Write, Writer};

/// What an epilogue's text is written for.
#[derive(Debug, Clone, Default)]
pub struct EpilogueOptions {
    /// The version of the text around it.
    pub version: Version,
    /// The binding of its first array. The others follow.
    pub first_binding: u32,
    /// The values of its scalars in the order of the arguments. Empty: they are uniforms.
    pub values: Vec<Value>,
}

/// An epilogue as GLSL, without `#version` and `main`.
#[derive(Debug, Clone)]
pub struct EpilogueGlsl {
    /// The text. It defines `float epilogue(float value, int channel, int position)`, whose channel and position
    /// count from 0. All other names in it begin with `epilogue_` or `sparkle_`.
    pub text: String,
    /// The name of each argument in the text after the first three: of a uniform, constant or array.
    pub names: Vec<String>,
}

/// An epilogue of a unit as GLSL. The inner error says what this version of GLSL lacks.
///
/// # Errors
/// The host is out of memory.
pub fn epilogue(
    unit: &Unit,
    epilogue: &Epilogue,
    options: &EpilogueOptions,
) -> Result<std::result::Result<EpilogueGlsl, Box<Diagnostic>>> {
    match written(unit, epilogue, options) {
        Ok(glsl) => Ok(Ok(glsl)),
        Err(Refusal::Unsupported(diagnostic)) => Ok(Err(diagnostic)),
        Err(Refusal::Failed(error)) => Err(error),
    }
}

fn written(unit: &Unit, epilogue: &Epilogue, options: &EpilogueOptions) -> Write<EpilogueGlsl> {
    let mut writer = Writer {
        unit,
        version: options.version,
        parameters: if options.values.is_empty() { Parameters::Uniform } else { Parameters::Inline },
        contract: epilogue.contract,
        names: Names::new("epilogue_"),
        helpers: Helpers::default(),
        out: String::new(),
        indent: 0,
        owner: Owner::Epilogue(epilogue),
        code: &epilogue.code,
        variables: Vec::new(),
        procedures: Vec::new(),
        loops: Loops::default(),
        temporaries: 0,
        checked: false,
        repeated: 1,
    };
    writer.check_contract(epilogue.span)?;
    let mut names = Vec::new();
    for argument in &epilogue.arguments {
        names.push(writer.names.global(&argument.name)?);
    }
    writer.functions(&reachable(unit, &epilogue.code))?;
    writer.start_code(&names)?;
    let (value, channel, position) = (&names[0], &names[1], &names[2]);
    writer.open(&format!("float epilogue(float {value}, int {channel}, int {position}) {{"))?;
    if epilogue.base != 0 {
        writer.line(&format!("{channel} += {};", epilogue.base))?;
        writer.line(&format!("{position} += {};", epilogue.base))?;
    }
    for (position, argument) in epilogue.arguments.iter().enumerate() {
        if let ArgumentKind::Buffer(buffer) = &argument.kind {
            writer.bounds(position, buffer)?;
        }
    }
    writer.locals()?;
    writer.block(&epilogue.code.body)?;
    let text = writer.return_text();
    writer.line(&text)?;
    writer.close("}")?;
    let functions = std::mem::take(&mut writer.out);
    let mut values = options.values.iter();
    for (argument, name) in epilogue.arguments.iter().zip(&names) {
        match &argument.kind {
            ArgumentKind::Index(_) => {}
            ArgumentKind::Scalar => {
                let ty = writer.ty(argument.ty, argument.span)?;
                match values.next() {
                    Some(value) if argument.ty == Type::Logical => {
                        let value = i32::from(*value == Value::Logical(true));
                        writer.line(&format!("const int {name} = {value};"))?;
                    }
                    Some(value) => writer.line(&format!("const {ty} {name} = {};", literal(*value)))?,
                    None => writer.line(&format!("uniform {ty} {name};"))?,
                }
            }
            ArgumentKind::Buffer(buffer) => {
                let ty = writer.stored(argument.ty, argument.span)?;
                let binding = options.first_binding + buffer.slot as u32;
                writer.line(&format!(
                    "layout(std430, binding = {binding}) readonly buffer Buffer_{name} {{ {ty} {name}[]; }};"
                ))?;
            }
        }
    }
    let helpers = writer.helpers.text(epilogue.contract, options.version);
    writer.put(&helpers)?;
    writer.put(&functions)?;
    Ok(EpilogueGlsl { text: writer.out, names: names.split_off(3) })
}
