//! The shared library's interface: the header, the exported symbols, and the rules for exported functions.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

fn manifest(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Compares a committed file with its expected text. `SPARKLE_BLESS=1` rewrites the file.
fn committed(path: &str, expected: &str) {
    let file = manifest(path);
    if std::env::var("SPARKLE_BLESS").as_deref() == Ok("1") {
        fs::write(&file, expected).unwrap();
    }
    let found = fs::read_to_string(&file).unwrap_or_default();
    for (number, (found, expected)) in found.lines().zip(expected.lines()).enumerate() {
        assert_eq!(found, expected, "{path}, line {}; SPARKLE_BLESS=1 rewrites the file", number + 1);
    }
    assert!(found == expected, "{path} is too short or too long; SPARKLE_BLESS=1 rewrites the file");
}

#[test]
fn the_headers_are_the_generated_ones() {
    committed("include/sparkle.h", include_str!(concat!(env!("OUT_DIR"), "/sparkle.h")));
    let reference = include_str!(concat!(env!("OUT_DIR"), "/sparkle_reference.h"));
    committed("include/sparkle_reference.h", reference);
}

/// Every symbol that the shared library exports.
fn exported() -> BTreeSet<String> {
    let library = support::library_dir().join("libsparkle.so");
    let output = Command::new("nm")
        .args(["-D", "--defined-only"])
        .arg(&library)
        .output()
        .expect("nm could not be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    // "address T name@@version"; the version itself is an absolute symbol.
    let symbols = text.lines().map(|line| line.split_whitespace().rev().collect::<Vec<_>>());
    symbols.filter(|it| it[1] != "A").map(|it| it[0].split('@').next().unwrap().to_owned()).collect()
}

#[test]
fn the_library_exports_the_listed_symbols() {
    let list: String = exported().iter().map(|symbol| format!("{symbol}\n")).collect();
    assert!(list.lines().count() >= 35, "{list}");
    committed("include/abi.txt", &list);
}

/// The lines of a header that begin a declaration of a function. They start in the first column, unlike a comment.
fn declarations(header: &str) -> impl Iterator<Item = (usize, String)> {
    let lines = header.lines().enumerate();
    let starts = |line: &str| line.starts_with(|start: char| start.is_ascii_alphabetic());
    lines.filter(move |(_, line)| starts(line)).filter_map(|(at, line)| {
        let name = line[..line.find('(')?].rsplit([' ', '*']).next()?;
        let is_declared = !line.starts_with("typedef") && !line.starts_with("static");
        is_declared.then(|| (at, name.to_owned()))
    })
}

#[test]
fn the_headers_declare_what_the_library_exports() {
    let header = |name: &str| fs::read_to_string(manifest("include").join(name)).unwrap();
    let names = |name: &str| declarations(&header(name)).map(|(_, name)| name).collect::<BTreeSet<_>>();
    let (ours, reference) = (names("sparkle.h"), names("sparkle_reference.h"));
    assert!(ours.iter().all(|name| name.starts_with("sparkle_")), "{ours:?}");
    assert!(reference.iter().all(|name| !name.starts_with("sparkle_")), "{reference:?}");
    assert_eq!(&ours | &reference, exported());
}

/// Doxygen makes a page of each group. Every function and every documented type is in one.
#[test]
fn the_headers_are_grouped_for_doxygen() {
    for name in ["sparkle.h", "sparkle_reference.h"] {
        let header = fs::read_to_string(manifest("include").join(name)).unwrap();
        assert!(header.contains(&format!(" * @file {name}\n")), "{name}");
        let defined: BTreeSet<&str> =
            header.lines().filter_map(|line| line.strip_prefix("/** @defgroup ")).collect();
        let defined: BTreeSet<&str> = defined.iter().filter_map(|line| line.split(' ').next()).collect();
        let lines: Vec<&str> = header.lines().collect();
        let used: BTreeSet<&str> =
            lines.iter().filter_map(|line| line.strip_prefix("/// @ingroup ")).collect();
        assert_eq!(defined, used, "{name}");
        let types = lines.iter().enumerate().filter(|(at, line)| {
            *at > 0
                && lines[at - 1].starts_with("///")
                && (line.starts_with("typedef ") || line.starts_with("enum "))
        });
        for at in declarations(&header).map(|(at, _)| at).chain(types.map(|(at, _)| at)) {
            assert!(lines[at - 1].starts_with("/// @ingroup "), "{name}: {}", lines[at]);
        }
    }
}

/// Every struct that begins with its size has an initialiser.
#[test]
fn structs_have_initialisers() {
    let header = fs::read_to_string(manifest("include/sparkle.h")).unwrap();
    let mut count = 0;
    for text in header.split("\ntypedef struct ").skip(1) {
        let name = text.split([' ', ';']).next().unwrap();
        let body = text.split(&format!("}} {name};")).next().unwrap();
        if text.starts_with(&format!("{name} {{")) && body.contains("\n  size_t size;\n") {
            let initialiser = format!(" {name}_init({name} *out)");
            let declared = header.contains(&initialiser)
                || header.contains(&format!(" {name}_init(struct {name} *out)"));
            assert!(declared, "{name}");
            count += 1;
        }
    }
    assert!(count >= 19, "{count}");
}

/// All Rust sources under `dir`.
fn sources(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let found = entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] });
    found.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

/// Helpers of one instruction each. They cannot panic, and a boundary would cost more than the instruction.
const LEAVES: [&str; 11] = [
    "builtin_prefetch_wrapper",
    "is_aligned_for_streaming",
    "mm128_stream_ps_wrapper",
    "mm256_stream_ps_wrapper",
    "mm512_stream_ps_wrapper",
    "mm_prefetch_wrapper",
    "prefetchnta_wrapper",
    "rdtsc_fenced",
    "rdtsc_wrapper",
    "rdtscp_wrapper",
    "sfence_wrapper",
];

/// Checks that a body has no visible way to panic: no assertion, index, `unwrap`, or arithmetic with overflow checks.
fn check_leaf(name: &str, body: &str) {
    for pattern in ["!(", "[", "unwrap", "expect", " + ", " - ", " * ", " / ", " % "] {
        let found = body.replacen("leaf!(", "", 1).contains(pattern);
        assert!(!found, "{name} may panic because of \"{pattern}\":\n{body}");
    }
}

#[test]
fn every_exported_function_is_one_boundary_and_lives_in_ffi() {
    let mut names = BTreeSet::new();
    for path in sources(&manifest("src")) {
        let text = fs::read_to_string(&path).unwrap();
        for function in text.split("#[unsafe(no_mangle)]\n").skip(1) {
            let signature = function.strip_prefix("pub ").unwrap_or(function);
            let signature = signature.strip_prefix("unsafe ").unwrap_or(signature);
            let signature = signature.strip_prefix("extern \"C\" fn ").expect("not an extern \"C\" function");
            let name = signature[..signature.find('(').unwrap()].to_owned();
            assert!(path.starts_with(manifest("src/ffi")), "{name} is exported by {}", path.display());
            let body = &function[function.find(" {\n").unwrap() + 3..function.find("\n}\n").unwrap()];
            let opening = if LEAVES.contains(&name.as_str()) {
                check_leaf(&name, body);
                "    leaf!({"
            } else {
                "    boundary!(|"
            };
            assert!(body.starts_with(opening) && body.ends_with(')'), "{name}:\n{body}");
            // Statements of the function itself are indented by four columns. Only the boundary's first and last line may be.
            let own: Vec<&str> =
                body.lines().skip(1).filter(|line| line.len() > 4 && !line[4..].starts_with(' ')).collect();
            assert!(
                own.is_empty() || own == ["    })"],
                "{name} has statements outside of its boundary: {own:?}"
            );
            assert!(names.insert(name));
        }
        let exports = text.matches("no_mangle").count() + text.matches("export_name").count();
        assert_eq!(exports, text.matches("#[unsafe(no_mangle)]\n").count(), "{}", path.display());
    }
    assert!(LEAVES.iter().all(|&leaf| names.contains(leaf)));
    assert_eq!(names, exported());
}

/// The C interface uses the backends only through `device`.
#[test]
fn no_source_of_ffi_names_a_backend() {
    for path in sources(&manifest("src/ffi")) {
        let text = fs::read_to_string(&path).unwrap();
        for backend in ["crate::gl", "crate::cpu", "crate::{"] {
            assert!(!text.contains(backend), "{} names {backend}", path.display());
        }
    }
}

/// A source without its test-only items.
fn without_tests(text: &str) -> String {
    let (mut library, mut in_item) = (String::new(), false);
    for line in text.lines() {
        in_item |= line == "#[cfg(test)]";
        if !in_item {
            library += &format!("{line}\n");
        }
        // The last line of an item starts in the first column.
        in_item &= !(line == "}" || (line.ends_with(';') && !line.starts_with(' ')));
    }
    library
}

/// The library neither prints nor ends the process. No source outside of the program contains such a call, except the log.
/// Panics never leave a boundary.
#[test]
fn no_source_of_the_library_prints_or_ends_the_process() {
    const FORBIDDEN: [&str; 13] = [
        "println!",
        "print!(",
        "eprint",
        "dbg!",
        "stdout()",
        "process::exit",
        "process::abort",
        "libc::exit",
        "libc::_exit",
        "libc::abort",
        "libc::raise",
        "libc::kill",
        "libc::printf",
    ];
    let (mut read, mut log) = (0, 0);
    for path in sources(&manifest("src")) {
        let name = path.strip_prefix(manifest("src")).unwrap().to_str().unwrap().to_owned();
        let is_test = name.contains("tests") || name.ends_with("special_values.rs");
        if name.starts_with("bin/") || is_test {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let library = without_tests(&text);
        for line in library.lines().filter(|line| !line.trim_start().starts_with("//")) {
            let call = FORBIDDEN.iter().find(|&&call| line.contains(call));
            assert!(call.is_none(), "{name}: {line}");
            log += usize::from(line.contains("stderr()"));
            assert!(!line.contains("stderr()") || name == "log.rs", "{name}: {line}");
        }
        read += 1;
    }
    assert!(read >= 100 && log == 1, "{read} files, {log} places that write to stderr");
}

/// GNU ld, where it is installed, gives every symbol the SONAME as its version.
#[test]
fn symbols_have_the_version_of_the_soname() {
    if Command::new("ld.bfd").arg("--version").output().is_err() {
        eprintln!("skipped: no ld.bfd");
        return;
    }
    let library = support::library_dir().join("libsparkle.so");
    let run = |tool: &str, option: &str| {
        let output = Command::new(tool).arg(option).arg(&library).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(run("readelf", "-dW").contains("Library soname: [libsparkle.so.0]"));
    let symbols = run("nm", "-D");
    let ours: Vec<&str> = symbols.lines().filter(|line| line.contains(" sparkle_")).collect();
    assert!(ours.len() > 35 && ours.iter().all(|line| line.ends_with("@@libsparkle.so.0")), "{symbols}");
}
