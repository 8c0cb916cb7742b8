//! Bad programs give the expected messages at the expected places, and the expected text.
//!
//! `tests/kernels/bad` has the programs. `# K206 9:5` begins one, with the code, line and column of each message.
//! `#b` begins the statements of a kernel whose declarations are [`DECLARATIONS`]. The lines that begin with `>` are
//! the text of the messages.

use super::*;

const DECLARATIONS: &str = "!@kernel
subroutine f(i, n, x, k, a)
integer, value :: i, n
real, intent(inout) :: x, a(n)
integer, intent(inout) :: k
real :: t
integer :: j
logical :: l
";

struct Case {
    file: String,
    line: usize,
    expected: String,
    program: String,
    text: String,
}

fn cases() -> Vec<Case> {
    let mut all: Vec<Case> = Vec::new();
    for (file, text) in files("bad") {
        for (number, line) in text.lines().enumerate() {
            if let Some(head) = line.strip_prefix('#') {
                let (is_body, expected) = match head.strip_prefix('b') {
                    Some(rest) => (true, rest.trim()),
                    None => (false, head.trim()),
                };
                let program = if is_body { DECLARATIONS.to_owned() } else { String::new() };
                let (expected, text) = (expected.to_owned(), String::new());
                all.push(Case { file: file.clone(), line: number + 1, expected, program, text });
            } else if let Some(rest) = line.strip_prefix('>') {
                let case = all.last_mut().unwrap();
                case.text += rest.strip_prefix(' ').unwrap_or(rest);
                case.text += "\n";
            } else {
                let case = all.last_mut().unwrap();
                case.program += line;
                case.program += "\n";
            }
        }
    }
    for case in &mut all {
        if case.program.starts_with(DECLARATIONS) && !case.program.contains("end subroutine") {
            case.program += "end subroutine\n";
        }
    }
    all
}

#[test]
fn bad_programs_get_the_expected_messages() {
    let all = cases();
    assert!(all.len() >= 120, "{}", all.len());
    let mut wrong = String::new();
    for case in &all {
        let compiled = compile(case.program.as_bytes()).unwrap();
        let found: Vec<_> = compiled
            .diagnostics
            .iter()
            .map(|it| format!("{} {}:{}", it.code, it.span.line, it.span.column.max(1)))
            .collect();
        let text =
            diagnostics::render_all(&compiled.diagnostics, "test.f90", case.program.as_bytes()).unwrap();
        if found.join(" ") != case.expected || text.trim_end() != case.text.trim_end() {
            wrong += &format!(
                "{}:{}: expected {}, found {}\n{text}\n",
                case.file,
                case.line,
                case.expected,
                found.join(" ")
            );
        }
        let has_error = compiled.diagnostics.iter().any(diagnostics::Diagnostic::is_error);
        assert_eq!(has_error, compiled.unit.is_none());
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Every code of the compiler occurs in a bad program, except those that need a text of another kind.
#[test]
fn every_code_has_a_program() {
    use diagnostics::Code;
    let elsewhere = [
        Code::SourceTooLarge,
        Code::NotUtf8,
        Code::TooDeep,
        Code::TooManyErrors,
        Code::TooManyArguments,
        Code::NoInt64,
        Code::NoReal64,
        Code::NoPrecise,
        // A check of a launch finds them.
        Code::Race,
        Code::OutOfBounds,
        Code::Uninitialised,
    ];
    let all: Vec<String> = cases().into_iter().map(|case| case.expected).collect();
    for code in Code::ALL.iter().filter(|code| !elsewhere.contains(code)) {
        assert!(all.iter().any(|expected| expected.contains(&code.to_string())), "{code}: {}", code.title());
    }
}
