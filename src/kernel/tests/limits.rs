//! Limits: size, depth, number of messages, and what a stack must hold.

use super::*;
use crate::kernel::diagnostics::Code;
use crate::kernel::glsl::{Options, Version, write};

const HEAD: &str = "!@kernel\nsubroutine f(i, x, k)\ninteger, value :: i\nreal, intent(inout) :: x\ninteger, intent(inout) :: k\n";

fn codes(text: &str) -> Vec<Code> {
    compile(text.as_bytes()).unwrap().diagnostics.iter().map(|it| it.code).collect()
}

fn body(statements: &str) -> String {
    format!("{HEAD}{statements}\nend subroutine\n")
}

#[test]
fn size_and_encoding() {
    assert_eq!(codes(&" ".repeat((1 << 20) + 1)), [Code::SourceTooLarge]);
    assert_eq!(codes(&"\n".repeat(1 << 20)), [Code::NoKernel]);
    let text = body("x = 1 ! \u{e9}").replace('\u{e9}', "?").into_bytes();
    let broken: Vec<u8> = text.iter().map(|byte| if *byte == b'?' { 0xff } else { *byte }).collect();
    let compiled = compile(&broken).unwrap();
    let message = &compiled.diagnostics[0];
    assert_eq!((message.code, message.span.line, message.span.column), (Code::NotUtf8, 6, 9));
    // A byte order mark and ends of lines in another style change nothing.
    let text = format!("\u{feff}{}", body("x = 1")).replace('\n', "\r\n");
    assert_eq!(codes(&text), []);
}

#[test]
fn depth_is_limited() {
    let nested = |count: usize| body(&format!("x = {}1{}", "(".repeat(count), ")".repeat(count)));
    assert_eq!(codes(&nested(60)), []);
    assert_eq!(codes(&nested(100_000)), [Code::TooDeep]);
    let chain = |count: usize| body(&format!("x = x{}", "+ x &\n".repeat(count) + "+ x"));
    assert_eq!(codes(&chain(140)), []);
    assert_eq!(codes(&chain(10_000)), [Code::TooDeep]);
    assert_eq!(codes(&body(&format!("x = {}x", "x**".repeat(1000)))), [Code::TooDeep]);
    assert_eq!(codes(&body(&format!("x = {}", "abs(".repeat(5000)))), [Code::TooDeep]);
    assert_eq!(codes(&body(&format!("x = max(x{})", ", x".repeat(300)))), [Code::TooDeep]);
    let blocks =
        |count: usize| body(&("if (k > 0) then\n".repeat(count) + "x = 1\n" + &"end if\n".repeat(count)));
    assert_eq!(codes(&blocks(48)), []);
    assert_eq!(codes(&blocks(49))[0], Code::TooDeep);
    assert!(codes(&blocks(10_000)).contains(&Code::TooDeep));
    let procedures: String = (0..40)
        .map(|it| format!("subroutine s{it}()\ncall s{}()\nend subroutine\n", it + 1))
        .chain(["subroutine s40()\nend subroutine\n".to_owned()])
        .collect();
    assert!(codes(&(body("call s0()") + &procedures)).contains(&Code::TooDeep));
    assert!(codes(&"contains\nsubroutine f()\n".repeat(20_000)).len() > 1);
}

#[test]
fn messages_are_limited() {
    let many: String = (0..5000).map(|it| format!("x = y{it}\n")).collect();
    let all = codes(&body(&many));
    assert_eq!(all.len(), diagnostics::MAX_DIAGNOSTICS + 1);
    assert_eq!(all.last(), Some(&Code::TooManyErrors));
}

#[test]
fn arguments_are_limited() {
    let names: Vec<String> = (0..200).map(|it| format!("a{it}")).collect();
    let list = names.join(", ");
    let text = format!("!@kernel\nsubroutine f(i, {list})\ninteger, value :: i, {list}\nend subroutine\n");
    assert!(codes(&text).contains(&Code::TooManyArguments));
}

/// The deepest program that is accepted, on the stack that `compile` asks for.
#[test]
fn the_deepest_program_fits_the_stack() {
    let nested = format!("x = {}x{}\n", "(x + ".repeat(70), ")".repeat(70));
    let text = body(&("if (k > 0) then\n".repeat(48) + &nested + &"end if\n".repeat(48)));
    let work = move || {
        let unit = unit(&text);
        write(&unit, &unit.kernels[0], &Options::default()).unwrap().unwrap().text.len()
    };
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(work).unwrap();
    assert!(thread.join().unwrap() > 1000);
}

#[test]
fn what_glsl_lacks_is_said() {
    let refusal = |text: &str, version| {
        let unit = unit(text);
        let options = Options { version, ..Options::default() };
        write(&unit, &unit.kernels[0], &options).unwrap().map(|_| ()).map_err(|it| (it.code, it.span.line))
    };
    let wide =
        "!@kernel\nsubroutine f(i, x)\ninteger, value :: i\ninteger(8), intent(inout) :: x\nx = x + 1\nend\n";
    assert_eq!(refusal(wide, Version::Desktop430), Err((Code::NoInt64, 5)));
    let double =
        "!@kernel\nsubroutine f(i, x)\ninteger, value :: i\nreal(8), intent(inout) :: x\nx = sqrt(x)\nend\n";
    assert_eq!(refusal(double, Version::Desktop430), Ok(()));
    assert_eq!(refusal(double, Version::Es310), Err((Code::NoReal64, 5)));
    assert_eq!(refusal(&double.replace("sqrt", "exp"), Version::Desktop430), Err((Code::NoReal64, 5)));
    let exact = body("x = x + 1").replace("!@kernel", "!@kernel contract=off");
    assert_eq!(refusal(&exact, Version::Desktop430), Ok(()));
    assert_eq!(refusal(&exact, Version::Es310), Err((Code::NoPrecise, 2)));
}
