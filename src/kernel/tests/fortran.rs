//! gfortran accepts the programs of the language, and the compiler says which of the old ones it does not.

use super::*;

/// Whether gfortran accepts a text. Nothing, if it is not installed.
fn gfortran(folder: &std::path::Path, name: &str, text: &str) -> Option<(bool, String)> {
    let module = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fortran/src/sparkle_workgroup.f90");
    let file = folder.join(name);
    std::fs::write(&file, text).unwrap();
    let mut command = std::process::Command::new("gfortran");
    command.current_dir(folder).args(["-fsyntax-only", "-Wall", "-Wno-unused-dummy-argument", "-std=f2018"]);
    match command.arg(module).arg(&file).output() {
        Ok(output) => Some((output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())),
        Err(_) if std::env::var_os("SPARKLE_TEST_REQUIRE_FORTRAN").is_none() => {
            eprintln!("skipped: gfortran is not installed");
            None
        }
        Err(error) => panic!("gfortran: {error}"),
    }
}

#[test]
fn gfortran_accepts_the_programs_of_the_language() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files("language") {
        let Some((accepted, messages)) = gfortran(folder.path(), &name, &text) else { return };
        assert!(accepted, "{messages}");
    }
}

#[test]
fn gfortran_rejects_the_old_form_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files("reference") {
        let legacy = unit(&text).kernels.iter().any(|kernel| kernel.legacy);
        let Some((accepted, messages)) = gfortran(folder.path(), &name, &text) else { return };
        assert_eq!(accepted, !legacy, "{name}: {messages}");
    }
}
