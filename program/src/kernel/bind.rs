//! `sparkle kernel bind`: a Fortran module with an explicit interface for each kernel of a file.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use sparkle::Kernel;
use sparkle::kernel::bind::passed;
use sparkle::kernel::tree::{
    Argument, ArgumentKind, Buffer, BufferShape, Comparison, ExpressionId, Intent, Intrinsic, Operation,
    Operator, Type, UnaryOperator, Value,
};

use crate::console::Console;
use crate::failure::Failure;
use crate::files;

/// Write a Fortran module with an interface for each kernel.
///
/// Each of its subroutines has a kernel's name and arguments, after the extents of the index space and without index
/// arguments, and launches it. Types and ranks are checked by the Fortran compiler, and shapes at run time. The module
/// contains the source of the kernels and needs the modules sparkle and sparkle_kernel alone.
#[derive(clap::Args)]
pub struct Args {
    /// A file in the kernel language
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where the module goes [default: standard output]
    #[arg(short, long, value_name = "F.f90")]
    output: Option<PathBuf>,
    /// Name of the module [default: that of the file with _bound]
    #[arg(long, value_name = "NAME", value_parser = fortran_name)]
    module: Option<String>,
}

/// The most characters of a literal in a line.
const MAX_LITERAL: usize = 72;

/// Names that the generated text uses itself.
const USED: &[&str] = &[
    "extents",
    "device",
    "stat",
    "errmsg",
    "arg",
    "inout",
    "int32",
    "int64",
    "real32",
    "real64",
    "size",
    "shape",
    "int",
    "max",
    "min",
    "mod",
    "modulo",
    "abs",
    "merge",
    "iand",
    "ior",
    "ieor",
    "not",
    "ishft",
    "sign",
    "dim",
    "btest",
    "present",
    "real",
    "sparkle_device",
    "check_shape",
    "prepare",
    "refuse",
    "source_text",
    "problem",
];

/// Runs the command.
///
/// # Errors
/// If the file cannot be read or compiled, has no kernel, or the module cannot be written.
pub fn run(args: &Args, console: &mut Console) -> Result<(), Failure> {
    if let Some(path) = &args.output {
        files::check_target(path)?;
        if files::are_same(path, &args.file) {
            return Err(Failure::Input(format!("{} is the kernels' own file", path.display())));
        }
    }
    let (file, source) = (args.file.display().to_string(), sparkle::kernel::read(&args.file)?);
    let kernels = Kernel::all_from_source(&source, &file)?;
    let Some(first) = kernels.first() else {
        return Err(Failure::Input(format!("{file}: has no kernel")));
    };
    if !first.warnings().is_empty() {
        console.note(first.warnings().trim_end());
    }
    let name = match &args.module {
        Some(name) => name.clone(),
        None => default_name(&args.file),
    };
    let text = module(&name, &args.file, &String::from_utf8_lossy(&source), &kernels)?;
    match &args.output {
        Some(path) => files::write(path, |to| to.write_all(text.as_bytes())),
        None => {
            console.line(text.trim_end());
            Ok(())
        }
    }
}

fn fortran_name(text: &str) -> Result<String, String> {
    let fits = text.len() <= 63
        && text.starts_with(|it: char| it.is_ascii_alphabetic())
        && text.chars().all(|it| it.is_ascii_alphanumeric() || it == '_');
    if fits { Ok(text.to_owned()) } else { Err(format!("\"{text}\" is no name of Fortran")) }
}

fn default_name(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let fitting = stem.chars().map(|it| if it.is_ascii_alphanumeric() { it } else { '_' });
    let name: String = fitting.take(50).collect();
    let name = name.trim_start_matches(|it: char| !it.is_ascii_alphabetic()).to_owned();
    if name.is_empty() { "kernels_bound".to_owned() } else { format!("{name}_bound") }
}

/// The names of a subroutine's dummies: as declared, unless the text uses the name itself.
fn names(kernel: &Kernel) -> Result<Vec<String>, Failure> {
    let mut taken = BTreeSet::new();
    let mut names = Vec::new();
    for argument in passed(kernel.tree()) {
        let mut name = argument.name.clone();
        if USED.contains(&name.to_ascii_lowercase().as_str()) || name.eq_ignore_ascii_case(kernel.name()) {
            name.push('_');
        }
        if !taken.insert(name.to_ascii_lowercase()) {
            let what = "has dummies that differ only in case, which no Fortran module has";
            return Err(Failure::Input(format!("kernel {}: {what}", kernel.name())));
        }
        names.push(name);
    }
    Ok(names)
}

fn module(name: &str, path: &Path, source: &str, kernels: &[Kernel]) -> Result<String, Failure> {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let mut out = format!(
        "!> The kernels of {file} as subroutines that launch them. Made by `sparkle kernel bind`; do not edit.
!>
!> `extents` is the index space. Without `device` a launch chooses as `sparkle_device%open()` does. `stat` and `errmsg`
!> work as in module `sparkle`: without `stat` a failure stops the program. Kernels are compiled at their first launch.
module {name}
  use, intrinsic :: iso_fortran_env, only: int32, int64, real32, real64
  use sparkle, only: sparkle_device, SPARKLE_ERROR_INVALID_ARGUMENT, SPARKLE_OK
  use sparkle_kernel, only: sparkle_compiled_kernel, arg, inout
  implicit none
  private
"
    );
    for kernel in kernels {
        let _ = writeln!(out, "  public :: {}", kernel.name());
    }
    out.push('\n');
    for (index, _) in kernels.iter().enumerate() {
        let _ =
            writeln!(out, "  type(sparkle_compiled_kernel), save, target :: sparkle_kernel_{}", index + 1);
    }
    out.push_str("\ncontains\n");
    for (index, kernel) in kernels.iter().enumerate() {
        out.push_str(&subroutine(kernel, index + 1)?);
    }
    out.push_str(HELPERS);
    out.push_str(&source_function(source));
    let _ = writeln!(out, "\nend module {name}");
    Ok(out)
}

/// What all subroutines use.
const HELPERS: &str = "
  !> Compiles a kernel that is not yet compiled.
  subroutine prepare(kernel, name, stat, errmsg)
    type(sparkle_compiled_kernel), intent(inout) :: kernel
    character(len=*), intent(in) :: name
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg

    if (present(stat)) stat = SPARKLE_OK
    !$omp critical (sparkle_kernel_bind)
    if (.not. kernel%is_compiled()) call kernel%compile(source_text(), name, stat, errmsg)
    !$omp end critical (sparkle_kernel_bind)
  end subroutine prepare

  !> Adds a message to `problem` if a shape is not the declared one. The declared extent of a dimension is -1 if any is
  !> right.
  subroutine check_shape(problem, name, has, expected)
    character(len=:), allocatable, intent(inout) :: problem
    character(len=*), intent(in) :: name
    integer, intent(in) :: has(:), expected(:)

    if (allocated(problem)) return
    if (all(has == expected .or. expected < 0)) return
    problem = 'argument \"' // name // '\" has shape (' // list(has) // '); expected (' // list(expected) // ')'
  end subroutine check_shape

  !> Numbers with commas between them.
  function list(numbers) result(text)
    integer, intent(in) :: numbers(:)
    character(len=:), allocatable :: text
    character(len=24) :: digits
    integer :: i

    text = ''
    do i = 1, size(numbers)
      write (digits, '(i0)') numbers(i)
      if (numbers(i) < 0) digits = '*'
      if (i > 1) text = text // ', '
      text = text // trim(digits)
    end do
  end function list

  !> Reports a problem as module `sparkle` does.
  subroutine refuse(procedure_name, problem, stat, errmsg)
    character(len=*), intent(in) :: procedure_name, problem
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg

    if (present(stat)) stat = SPARKLE_ERROR_INVALID_ARGUMENT
    if (present(errmsg)) errmsg = problem
    if (.not. present(stat)) error stop 'sparkle: ' // procedure_name // ': ' // problem
  end subroutine refuse
";

fn fortran_type(ty: Type) -> &'static str {
    match ty {
        Type::Logical => "logical(int32)",
        other => other.fortran(),
    }
}

/// Parts of a statement, at most a few in a line.
fn statement(indent: usize, head: &str, parts: &[String], tail: &str) -> String {
    let mut text = format!("{:indent$}{head}", "");
    let mut width = text.len();
    for (position, part) in parts.iter().enumerate() {
        let comma = if position + 1 < parts.len() { ", " } else { "" };
        if width + part.len() > 100 && position > 0 {
            let _ = write!(text, "&\n{:inner$}", "", inner = indent + 4);
            width = indent + 4;
        }
        let _ = write!(text, "{part}{comma}");
        width += part.len() + comma.len();
    }
    text + tail + "\n"
}

fn subroutine(kernel: &Kernel, number: usize) -> Result<String, Failure> {
    let (tree, names) = (kernel.tree(), names(kernel)?);
    let arguments: Vec<(&Argument, &String)> = passed(tree).zip(&names).collect();
    let mut out = format!("\n  !> Launches kernel {}.\n", kernel.name());
    let all =
        ["extents"].into_iter().chain(names.iter().map(String::as_str)).chain(["device", "stat", "errmsg"]);
    let all: Vec<String> = all.map(str::to_owned).collect();
    out += &statement(2, &format!("subroutine {}(", kernel.name()), &all, ")");
    let _ = writeln!(out, "    integer, intent(in) :: extents({})", tree.dims);
    let mut checks = String::new();
    for (position, argument) in tree.arguments.iter().enumerate() {
        let Some((_, name)) = arguments.iter().find(|(it, _)| it.variable == argument.variable) else {
            continue;
        };
        let ty = fortran_type(argument.ty);
        let ArgumentKind::Buffer(buffer) = &argument.kind else {
            let _ = writeln!(out, "    {ty}, intent(in) :: {name}");
            continue;
        };
        // A launch may leave elements as they are.
        let intent = if is_written(buffer) { "inout" } else { "in" };
        let rank = match &buffer.shape {
            BufferShape::Reduction(_) => 0,
            BufferShape::Element { own: true } => tree.dims,
            BufferShape::Element { own: false } => 1,
            BufferShape::Array(dimensions) => dimensions.len(),
        };
        let shape = if rank == 0 { String::new() } else { format!("({})", vec![":"; rank].join(", ")) };
        let contiguous = if rank == 0 { "" } else { "contiguous, " };
        let _ = writeln!(out, "    {ty}, {contiguous}intent({intent}), target :: {name}{shape}");
        if let Some(expected) = expected(kernel, position, buffer, &arguments)? {
            checks += &statement(
                4,
                &format!("call check_shape(problem, '{name}', shape({name}), "),
                &expected,
                ")",
            );
        }
    }
    out.push_str(
        "    type(sparkle_device), intent(in), optional :: device
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    character(len=:), allocatable :: problem

",
    );
    out += &checks;
    let name = kernel.name();
    let _ = write!(
        out,
        "    if (allocated(problem)) then
      call refuse('{name}', problem, stat, errmsg)
      return
    end if
    call prepare(sparkle_kernel_{number}, '{name}', stat, errmsg)
    if (.not. sparkle_kernel_{number}%is_compiled()) return
"
    );
    let made = arguments.iter().map(|(argument, name)| match &argument.kind {
        ArgumentKind::Buffer(buffer) if is_written(buffer) => format!("inout({name})"),
        _ => format!("arg({name})"),
    });
    let made: Vec<String> = made.collect();
    out += &statement(
        4,
        &format!("call sparkle_kernel_{number}%launch(extents, ["),
        &made,
        "], stat, errmsg, device)",
    );
    let _ = writeln!(out, "  end subroutine {name}");
    Ok(out)
}

fn is_written(buffer: &Buffer) -> bool {
    buffer.intent != Intent::In
}

/// The shape that an array must have, as an array constructor in parts; nothing where any shape is right.
fn expected(
    kernel: &Kernel,
    position: usize,
    buffer: &Buffer,
    arguments: &[(&Argument, &String)],
) -> Result<Option<Vec<String>>, Failure> {
    let tree = kernel.tree();
    let mut sides = Vec::new();
    match &buffer.shape {
        BufferShape::Reduction(_) | BufferShape::Element { own: false } => return Ok(None),
        BufferShape::Element { own: true } => {
            sides.extend((1..=tree.dims).map(|axis| format!("extents({axis})")));
        }
        BufferShape::Array(dimensions) => {
            let own = tree.arguments[position].variable;
            for dimension in dimensions {
                let is_assumed = |id: &ExpressionId| matches!(tree.code.expression(*id).operation, Operation::Length(of) if of == own);
                match dimension.extent.filter(|id| !is_assumed(id)) {
                    Some(id) => {
                        sides.push(format!("int(max({}, 0_int32))", expression(kernel, id, arguments)?))
                    }
                    None => sides.push("-1".to_owned()),
                }
            }
        }
    }
    if let Some(first) = sides.first_mut() {
        first.insert(0, '[');
    }
    if let Some(last) = sides.last_mut() {
        last.push(']');
    }
    Ok(Some(sides))
}

/// An expression of a bound.
fn expression(
    kernel: &Kernel,
    id: ExpressionId,
    arguments: &[(&Argument, &String)],
) -> Result<String, Failure> {
    let code = &kernel.tree().code;
    let inner = |id: &ExpressionId| expression(kernel, *id, arguments);
    let name = |variable| {
        let found = arguments.iter().find(|(argument, _)| argument.variable == variable);
        found.map(|(_, name)| (*name).clone())
    };
    let unknown = || Failure::Input(format!("kernel {}: a bound that cannot be written", kernel.name()));
    let expression = code.expression(id);
    Ok(match &expression.operation {
        Operation::Constant(value) => match value {
            Value::Int32(i32::MIN) => "(-2147483647_int32 - 1_int32)".to_owned(),
            Value::Int32(value) if *value < 0 => format!("({value}_int32)"),
            Value::Int32(value) => format!("{value}_int32"),
            Value::Int64(value) => format!("({value}_int64)"),
            Value::Real32(value) => format!("({value:e}_real32)"),
            Value::Real64(value) => format!("({value:e}_real64)"),
            Value::Logical(value) => format!(".{value}."),
        },
        Operation::Load(place) => name(place.variable).ok_or_else(unknown)?,
        Operation::Length(variable) => {
            format!("size({}, kind=int32)", name(*variable).ok_or_else(unknown)?)
        }
        Operation::Unary(UnaryOperator::Negate, operand) => format!("(-{})", inner(operand)?),
        Operation::Unary(UnaryOperator::Not, operand) => format!("(.not. {})", inner(operand)?),
        Operation::Binary(operator, left, right) => {
            let operator = match operator {
                Operator::Add => "+",
                Operator::Subtract => "-",
                Operator::Multiply => "*",
                Operator::Divide => "/",
                Operator::And => ".and.",
                Operator::Or => ".or.",
                Operator::Equivalent => ".eqv.",
                Operator::NotEquivalent => ".neqv.",
            };
            format!("({} {operator} {})", inner(left)?, inner(right)?)
        }
        Operation::Compare(comparison, left, right) => {
            let operator = match comparison {
                Comparison::Equal => "==",
                Comparison::NotEqual => "/=",
                Comparison::Less => "<",
                Comparison::LessEqual => "<=",
                Comparison::Greater => ">",
                Comparison::GreaterEqual => ">=",
            };
            format!("({} {operator} {})", inner(left)?, inner(right)?)
        }
        Operation::PowerInteger(base, exponent) => format!("({} ** {})", inner(base)?, inner(exponent)?),
        Operation::Convert(operand) => match expression.ty {
            Type::Int32 | Type::Logical => format!("int({}, int32)", inner(operand)?),
            Type::Int64 => format!("int({}, int64)", inner(operand)?),
            Type::Real32 => format!("real({}, real32)", inner(operand)?),
            Type::Real64 => format!("real({}, real64)", inner(operand)?),
        },
        Operation::Intrinsic(intrinsic, operands) => {
            let function = match intrinsic {
                Intrinsic::Abs => "abs",
                Intrinsic::Min => "min",
                Intrinsic::Max => "max",
                Intrinsic::Mod => "mod",
                Intrinsic::Modulo => "modulo",
                Intrinsic::Sign => "sign",
                Intrinsic::Dim => "dim",
                Intrinsic::Merge => "merge",
                Intrinsic::And => "iand",
                Intrinsic::Or => "ior",
                Intrinsic::ExclusiveOr => "ieor",
                Intrinsic::Complement => "not",
                Intrinsic::Shift => "ishft",
                Intrinsic::TestBit => "btest",
                _ => return Err(unknown()),
            };
            let operands: Result<Vec<String>, Failure> = operands.iter().map(inner).collect();
            format!("{function}({})", operands?.join(", "))
        }
        _ => return Err(unknown()),
    })
}

/// A function with the kernels' source. A statement for each line keeps below the limit of continued lines.
fn source_function(source: &str) -> String {
    let mut out = "
  !> The source of the kernels.
  function source_text() result(text)
    character(len=:), allocatable :: text

    text = ''
"
    .to_owned();
    for line in source.lines() {
        let characters: Vec<char> = line.chars().collect();
        let mut parts = characters.chunks(MAX_LITERAL).peekable();
        if parts.peek().is_none() {
            out.push_str("    text = text // new_line('a')\n");
        }
        while let Some(part) = parts.next() {
            let part: String = part.iter().collect();
            let end = if parts.peek().is_none() { " // new_line('a')" } else { "" };
            let _ = writeln!(out, "    text = text // '{}'{end}", part.replace('\'', "''"));
        }
    }
    out.push_str("  end function source_text\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_fortrans() {
        assert_eq!(default_name(Path::new("a/my saxpy.f90")), "my_saxpy_bound");
        assert_eq!(default_name(Path::new("1.f90")), "kernels_bound");
        assert!(fortran_name("a_1").is_ok());
        assert!(["", "1a", "a b", "_a", "é", &"a".repeat(64)].iter().all(|name| fortran_name(name).is_err()));
    }

    #[test]
    fn the_source_is_quoted_and_cut() {
        let text = source_function(&format!("a = 'b'\n\n{}\n", "x".repeat(MAX_LITERAL + 1)));
        assert!(
            text.contains("text = text // 'a = ''b''' // new_line('a')\n    text = text // new_line('a')\n")
        );
        assert!(
            text.contains(&format!(
                "'{}'\n    text = text // 'x' // new_line('a')\n",
                "x".repeat(MAX_LITERAL)
            ))
        );
    }
}
