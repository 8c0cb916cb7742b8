//! What the tree says about a program: slots, uniformity, coverage, conversions, calls.

use super::*;
use crate::kernel::tree::{
    Access, Action, ArgumentKind, Buffer, BufferShape, Code, Contract, Intrinsic, LocalSize, Operation, Type,
    Uniformity, Value,
};

fn buffers(kernel: &tree::Kernel) -> Vec<(&str, &Buffer)> {
    let arguments = kernel.arguments.iter();
    arguments
        .filter_map(|argument| match &argument.kind {
            ArgumentKind::Buffer(buffer) => Some((argument.name.as_str(), buffer)),
            _ => None,
        })
        .collect()
}

/// The uniformity of each assigned value, by line.
fn assigned(code: &Code) -> Vec<(u32, Uniformity, Uniformity)> {
    let statements = code.statements.iter().filter_map(|statement| match &statement.action {
        Action::Assign(_, value) => {
            Some((statement.span.line, code.expression(*value).uniformity, statement.control))
        }
        _ => None,
    });
    let mut all: Vec<_> = statements.collect();
    all.sort_unstable();
    all
}

#[test]
fn uniformity_follows_variables_branches_and_loops() {
    let text = "!@kernel
subroutine f(i, n, a, b)
use sparkle_workgroup
integer, value :: i, n
integer, intent(in) :: a(n)
integer, intent(inout) :: b(n)
integer :: j, k, l, m, p
k = n + 1
l = group_index(1) * n
m = k + l
j = a(k)
p = b(1)
if (i > 3) k = 1
k = k + 1
do j = 1, n
  p = j
end do
do while (m > 0)
  if (local_index(1) > m) exit
  m = m - 1
end do
l = n
end subroutine
";
    let unit = unit(text);
    let found = assigned(&unit.kernels[0].code);
    use Uniformity::{Group, Launch, Varying};
    // Variables have one level: `k` varies because of line 13, wherever it is used. Line 8 computes from `n` alone.
    let expected = [
        (8, Launch, Launch),
        (9, Group, Launch),
        (10, Varying, Launch),
        (11, Varying, Launch),
        // `b` is never written, so all points read the same.
        (12, Launch, Launch),
        (13, Launch, Varying),
        (14, Varying, Launch),
        (16, Varying, Launch),
        (20, Varying, Varying),
        (22, Launch, Launch),
    ];
    assert_eq!(found, expected);
}

#[test]
fn coverage_needs_every_point() {
    let covered = |base: i32, dims: usize, declaration: &str, statements: &str| {
        let text = format!(
            "!@kernel(base={base}, dims={dims})
subroutine f(i, j, n, y)
integer, value :: i, j, n
real, intent(out) :: {declaration}
{statements}
end subroutine
"
        );
        let unit = unit(&text);
        buffers(&unit.kernels[0])[0].1.written_by_every_point
    };
    assert!(covered(0, 1, "y", "y = 1"));
    assert!(covered(0, 1, "y(0:n)", "y(i) = 1"));
    assert!(covered(1, 1, "y(n)", "y(i) = 1"));
    assert!(covered(0, 1, "y(n)", "y(i + 1) = 1"));
    assert!(covered(1, 2, "y(n, n)", "y(i, j) = 1"));
    assert!(covered(0, 1, "y", "y(i) = 1"));
    assert!(!covered(0, 1, "y(n)", "y(i) = 1"));
    assert!(!covered(1, 2, "y(n, n)", "y(j, i) = 1"));
    assert!(!covered(1, 1, "y(n)", "if (i > 1) y(i) = 1"));
    assert!(!covered(1, 1, "y(n)", "if (i > 1) return\ny(i) = 1"));
    assert!(!covered(1, 1, "y(n)", "y(2*i) = 1"));
    assert!(!covered(1, 1, "y(n, n)", "y(i, 1) = 1"));
}

#[test]
fn conversions_are_explicit_and_constants_folded() {
    let text = "!@kernel
subroutine f(i, x, k)
integer, value :: i
real, intent(inout) :: x
integer, intent(inout) :: k
integer, parameter :: n = 2**3 - selected_int_kind(9)
x = k + 1
k = x * 2
x = max(k, 1.5)
k = -2147483648 + n
k = mod(-7, 3) + ishft(1, 4) + min(3, 2, 1)
end subroutine
";
    let unit = unit(text);
    let code = &unit.kernels[0].code;
    let value = |line: u32| {
        let found = code.statements.iter().find_map(|statement| match &statement.action {
            Action::Assign(_, value) if statement.span.line == line => Some(code.expression(*value)),
            _ => None,
        });
        found.unwrap()
    };
    assert!(matches!(value(7).operation, Operation::Convert(_)));
    assert_eq!(value(7).ty, Type::Real32);
    let Operation::Convert(product) = value(8).operation else { panic!() };
    let Operation::Binary(_, _, two) = code.expression(product).operation else { panic!() };
    assert_eq!(code.constant(two), Some(Value::Real32(2.0)));
    let Operation::Intrinsic(Intrinsic::Max, operands) = &value(9).operation else { panic!() };
    assert!(matches!(code.expression(operands[0]).operation, Operation::Convert(_)));
    assert_eq!(value(10).operation, Operation::Constant(Value::Int32(i32::MIN + 4)));
    assert_eq!(value(11).operation, Operation::Constant(Value::Int32(-1 + 16 + 1)));
}

/// As gfortran chooses them.
#[test]
fn kinds_have_the_asked_digits_and_exponents() {
    let kind = |asked: &str| {
        let text = format!(
            "!@kernel\nsubroutine f(i, x)\ninteger, value :: i\nreal({asked}), intent(out) :: x\nx = i\nend subroutine\n"
        );
        let compiled = compile(text.as_bytes()).unwrap();
        compiled.unit.map(|unit| unit.kernels[0].arguments[1].ty).ok_or_else(|| compiled.diagnostics[0].code)
    };
    use diagnostics::Code::{IntrinsicArguments, NotConstant, UnsupportedKind};
    for (asked, expected) in [
        ("selected_real_kind(6)", Ok(Type::Real32)),
        ("selected_real_kind(6, 37)", Ok(Type::Real32)),
        ("selected_real_kind(6, 38)", Ok(Type::Real64)),
        ("selected_real_kind(6, 300)", Ok(Type::Real64)),
        ("selected_real_kind(7, 30)", Ok(Type::Real64)),
        ("selected_real_kind(15, 307)", Ok(Type::Real64)),
        ("selected_real_kind(6, 308)", Err(UnsupportedKind)),
        ("selected_real_kind(16, 30)", Err(UnsupportedKind)),
        ("selected_real_kind(6, 30, 2)", Err(IntrinsicArguments)),
        ("selected_real_kind(6, i)", Err(NotConstant)),
    ] {
        assert_eq!(kind(asked), expected, "{asked}");
    }
}

#[test]
fn annotations_say_what_a_kernel_is() {
    let kernel = |annotation: &str| {
        let text =
            format!("{annotation}\nsubroutine f(i, j, k)\ninteger, value :: i, j, k\nend subroutine\n");
        unit(&text).kernels.remove(0)
    };
    let shape = |annotation: &str| {
        let kernel = kernel(annotation);
        (kernel.dims, kernel.local_size)
    };
    assert_eq!(shape("!@kernel"), (1, LocalSize::Fixed([64, 1, 1])));
    assert_eq!(shape("!@KERNEL ( Local_Size_X = 32 )"), (1, LocalSize::Fixed([32, 1, 1])));
    assert_eq!(shape("!@kernel local_size=[8, 4, 1]"), (2, LocalSize::Fixed([8, 4, 1])));
    assert_eq!(shape("!@kernel(local_size_z=2)"), (3, LocalSize::Fixed([1, 1, 2])));
    assert_eq!(shape("!@kernel(local_size_y=2, dims=1)"), (1, LocalSize::Fixed([1, 2, 1])));
    assert_eq!(shape("!@kernel dims=2 local_size=auto"), (2, LocalSize::Auto));
    let exact = kernel("!@kernel(contract=off, base=1, in=2, out=1)");
    assert_eq!(
        (exact.contract, exact.base, exact.inputs, exact.outputs),
        (Contract::Off, 1, Some(2), Some(1))
    );
    assert_eq!(kernel("!@kernel").contract, Contract::Fast);
}

/// Attributes of one kernel are not those of the next, and a second compilation gives the same slots.
#[test]
fn nothing_is_left_from_one_kernel_or_compilation_to_the_next() {
    let text = "!@kernel(local_size_x=256, out=3)
subroutine f(i, b, a)
integer, value :: i
real, intent(in) :: a
real, intent(out) :: b
b = a
end subroutine
!@kernel
subroutine g(i, x)
integer, value :: i
real, intent(out) :: x
x = 1
end subroutine
";
    for _ in 0..2 {
        let unit = unit(text);
        let slots = |index: usize| -> Vec<_> {
            buffers(&unit.kernels[index])
                .iter()
                .map(|(name, buffer)| ((*name).to_owned(), buffer.slot))
                .collect()
        };
        // In the order of declaration, not of the arguments.
        assert_eq!(slots(0), [("b".to_owned(), 1), ("a".to_owned(), 0)]);
        assert_eq!(slots(1), [("x".to_owned(), 0)]);
        assert_eq!(unit.kernels[1].local_size, LocalSize::Fixed([64, 1, 1]));
        assert_eq!(unit.kernels[1].outputs, None);
    }
}

#[test]
fn names_differ_by_case_first_and_procedures_come_before_their_callers() {
    let text = "!@kernel
subroutine f(i, k, K)
integer, value :: i, k
integer, intent(inout) :: K
K = k + g(i)
end subroutine
integer function g(u)
integer, intent(in) :: u
g = h(u)
end function
integer function h(u)
integer, intent(in) :: u
h = u
end function
integer function unused(u)
integer, intent(in) :: u
unused = u
end function
";
    let unit = unit(text);
    let kernel = &unit.kernels[0];
    assert!(kernel.legacy);
    assert_eq!(unit.procedures.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["h", "g"]);
    let Action::Assign(place, _) = &kernel.code.statements[0].action else { panic!() };
    assert_eq!((kernel.code.variable(place.variable).name.as_str(), &place.access), ("K", &Access::Own));
    let (_, buffer) = buffers(kernel)[0];
    assert_eq!(buffer.shape, BufferShape::Element { own: true });
    assert!(buffer.is_written && !buffer.is_read);
    assert!(unit.kernel("F").is_some() && unit.kernel("g").is_none());
}

#[test]
fn messages_have_a_form_for_programs() {
    let compiled =
        compile(b"!@kernel\nsubroutine f(i)\ninteger, value :: i\ni = 1\nend subroutine\n").unwrap();
    let json = serde_json::to_value(&compiled.diagnostics).unwrap();
    let expected = serde_json::json!([{
        "code": "K402",
        "severity": "error",
        "message": "`i` is an index and cannot be changed",
        "line": 4,
        "column": 1,
        "end": 2,
        "label": "",
        "second": { "line": 3, "column": 19, "end": 20, "label": "declared here" },
        "help": "copy it to a local variable",
    }]);
    assert_eq!(json, expected);
}

#[test]
fn texts_guard_bind_and_rename() {
    let text = "!@kernel
subroutine f(i, n, input, y)
integer, value :: i, n
real, intent(in) :: input
real, intent(out) :: y(n)
y(i + 1) = input
end subroutine
";
    let unit = unit(text);
    let options = |parameters| glsl::Options { parameters, ..Default::default() };
    let write = |parameters| glsl::write(&unit, &unit.kernels[0], &options(parameters)).unwrap().unwrap();
    let uniform = write(glsl::Parameters::Uniform);
    assert_eq!(uniform.names, ["i", "n", "v_input", "y"]);
    for part in [
        "layout(std430, binding = 0) readonly buffer Bufferv_input { float v_input[]; };",
        "layout(std430, binding = 1) buffer Buffery { float y[]; };",
        "uniform int n;",
        "if (count.x != 0u) return point.x < count.x;",
        "return sparkle_index < uint(v_input.length());",
        "y[((i + 1) - 1)] = v_input[sparkle_index];",
    ] {
        assert!(uniform.text.contains(part), "{part}\n{}", uniform.text);
    }
    let checked = glsl::Options { checked: true, ..options(glsl::Parameters::Uniform) };
    let checked = glsl::write(&unit, &unit.kernels[0], &checked).unwrap().unwrap().text;
    let access = "y[sparkle_check(int(((i + 1) - 1)), int(y.length()), 6, 3)]";
    assert!(checked.contains(access) && !uniform.text.contains("sparkle_check"), "{checked}");
    let block = write(glsl::Parameters::Buffer).text;
    assert!(
        block.contains("binding = 15) readonly buffer ParamBuffer {\n  int i;\n  int n;\n} params;"),
        "{block}"
    );
    let inline = write(glsl::Parameters::Inline).text;
    assert!(inline.contains("const int n = PLACEHOLDER_n;"), "{inline}");
    let values = glsl::Options { values: vec![Value::Int32(-4)], ..options(glsl::Parameters::Inline) };
    let inline = glsl::write(&unit, &unit.kernels[0], &values).unwrap().unwrap().text;
    assert!(inline.contains("const int n = (-4);"), "{inline}");
}
