//! Broken programs of every kind: nothing panics, and what compiles is written as GLSL that glslang accepts.

use super::texts::{check_with_glslang, texts};
use super::*;
use crate::kernel::glsl::{Options, Parameters, write};

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 33) as usize % limit
    }
}

/// Tokens that take the place of others.
const POOL: &[&str] = &[
    "\n",
    "&\n",
    ";",
    "(",
    ")",
    "[",
    "]",
    ",",
    ":",
    "::",
    "=",
    "==",
    "/=",
    "+",
    "-",
    "*",
    "/",
    "**",
    "//",
    "%",
    ".and.",
    ".not.",
    ".or.",
    ".eqv.",
    ".true.",
    "1",
    "0",
    "2147483647",
    "2147483648",
    "1.5",
    "1d0",
    "2.0_real64",
    "7_int64",
    "z'ff'",
    "'a'",
    "i",
    "n",
    "x",
    "t",
    "k",
    "if",
    "then",
    "else",
    "end if",
    "do",
    "end do",
    "select case",
    "case",
    "case default",
    "end select",
    "exit",
    "cycle",
    "return",
    "call",
    "barrier",
    "subroutine",
    "end subroutine",
    "function",
    "module",
    "contains",
    "integer",
    "real",
    "real(real64)",
    "integer(int64)",
    "logical",
    "value",
    "intent(in)",
    "intent(out)",
    "intent(inout)",
    "parameter",
    "!@kernel\n",
    "!@shared\n",
    "!@reduce(+: x)\n",
    "!@epilogue\n",
    "use",
    "mod",
    "modulo",
    "max",
    "sqrt",
    "sin",
    "int",
    "nint",
    "floor",
    "merge",
    "ishft",
    "size",
    "local_index(1)",
    "huge(1)",
    "\u{e9}",
    "\0",
];

/// A text as pieces: names, numbers, blanks and single characters.
fn pieces(text: &str) -> Vec<&str> {
    let mut all = Vec::new();
    let mut start = 0;
    let mut last = None;
    for (at, character) in text.char_indices() {
        let class = match character {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | '.' => 0,
            ' ' => 1,
            _ => 2,
        };
        if last.is_some_and(|last| last != class || class == 2) {
            all.push(&text[start..at]);
            start = at;
        }
        last = Some(class);
    }
    all.push(&text[start..]);
    all
}

fn mutated(program: &[&'static str], random: &mut Random) -> String {
    let mut all = program.to_vec();
    for _ in 0..=random.below(4) {
        if all.is_empty() {
            break;
        }
        let at = random.below(all.len());
        let other = random.below(all.len());
        match random.below(6) {
            0 => drop(all.remove(at)),
            1 => all.insert(at, all[other]),
            2 => all.swap(at, other),
            3 => all[at] = POOL[random.below(POOL.len())],
            4 => all.insert(at, POOL[random.below(POOL.len())]),
            _ => all[at] = all[other],
        }
    }
    all.concat()
}

/// How many programs a run has: `SPARKLE_TEST_MUTATIONS` or 100,000.
fn count() -> usize {
    std::env::var("SPARKLE_TEST_MUTATIONS").ok().and_then(|it| it.parse().ok()).unwrap_or(100_000)
}

#[test]
fn mutated_programs_never_panic() {
    let programs: Vec<&'static str> = files("language")
        .into_iter()
        .chain(files("reference"))
        .map(|(_, text)| -> &'static str { Box::leak(text.into_boxed_str()) })
        .collect();
    let programs: Vec<Vec<&'static str>> = programs.into_iter().map(pieces).collect();
    let mut random = Random(0x5eed_1234_5678_9abd);
    let (mut valid, mut kept) = (0, Vec::new());
    for round in 0..count() {
        let text = mutated(&programs[round % programs.len()], &mut random);
        let compiled = compile(text.as_bytes()).unwrap();
        if round % 16 == 0 {
            diagnostics::render_all(&compiled.diagnostics, "test.f90", text.as_bytes()).unwrap();
        }
        let Some(unit) = compiled.unit else {
            assert!(compiled.diagnostics.iter().any(diagnostics::Diagnostic::is_error));
            continue;
        };
        valid += 1;
        for kernel in &unit.kernels {
            let parameters = [Parameters::Uniform, Parameters::Buffer, Parameters::Inline][random.below(3)];
            let _ = write(&unit, kernel, &Options { parameters, ..Options::default() }).unwrap();
            describe::kernel(kernel);
        }
        if valid % 64 == 0 && kept.len() < 400 {
            kept.extend(texts(&unit, "mutated"));
        }
    }
    assert!(valid > count() / 100, "{valid} programs of {} compile", count());
    check_with_glslang(&kept);
}

#[test]
fn random_bytes_never_panic() {
    let mut random = Random(0xfeed_beef_0bad_cafe);
    for _ in 0..2000 {
        let length = random.below(300);
        let bytes: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        assert!(compile(&bytes).unwrap().unit.is_none());
        let ascii: Vec<u8> =
            bytes.iter().map(|byte| b" \n&!@()=+-*/.,:;'\"abdeikntz0189_"[*byte as usize % 32]).collect();
        assert!(compile(&ascii).unwrap().unit.is_none());
    }
}
