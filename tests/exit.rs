//! The end of a process, in every state and through both interfaces, in C and C++. Exit handlers, destructors and threads that
//! outlive main call every exported function. No call may hang or crash. Calls that compute return correct results
//! or an error with a reason; calls that close something succeed.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use support::{compile_c, run_command};

const INTERFACES: [&str; 4] = ["gl:0", "cpu", "auto", "reference"];

/// Runs `program` once with each list of arguments, and returns the number of runs.
#[track_caller]
fn each(program: &Path, arguments: impl IntoIterator<Item = Vec<String>>, expected: &str) -> usize {
    let run = |arguments: Vec<String>| {
        let mut command = Command::new(program);
        command.args(&arguments);
        let ran = run_command(command);
        let right = ran.status.success() && ran.stdout == expected && ran.stderr.is_empty();
        assert!(right, "{arguments:?}: {ran:?}");
    };
    arguments.into_iter().map(run).count()
}

/// All combinations of the lists.
fn combined(lists: &[&[&str]]) -> Vec<Vec<String>> {
    lists.iter().fold(vec![vec![]], |begun, list| {
        let with = |words: &Vec<String>| {
            let words = words.clone();
            list.iter().map(move |word| [words.clone(), vec![(*word).to_owned()]].concat())
        };
        begun.iter().flat_map(with).collect()
    })
}

fn in_c() -> PathBuf {
    compile_c("leaving.c", &["-Wpedantic"])
}

const LEAVING_LEFT: &str = "leaving\nleft\n";

#[test]
fn handlers_in_c_registered_before_the_first_use() {
    if support::gl_available() {
        let cases =
            combined(&[&INTERFACES, &["idle", "busy", "in_flight", "finalized", "unused"], &["early"]]);
        assert_eq!(each(&in_c(), cases, LEAVING_LEFT), 20);
    }
}

#[test]
fn handlers_in_c_registered_after_the_first_use() {
    if support::gl_available() {
        let cases = combined(&[&INTERFACES, &["idle", "busy", "in_flight", "finalized"], &["late"]]);
        assert_eq!(each(&in_c(), cases, LEAVING_LEFT), 16);
    }
}

#[test]
fn destructors_of_the_program_in_c() {
    if support::gl_available() {
        let states = ["idle", "busy", "in_flight", "finalized", "unused"];
        assert_eq!(each(&in_c(), combined(&[&INTERFACES, &states, &["destructor"]]), LEAVING_LEFT), 20);
    }
}

#[test]
fn handlers_in_c_that_join_a_computing_thread() {
    if support::gl_available() {
        let cases = combined(&[&INTERFACES, &["idle", "in_flight"], &["joining"]]);
        assert_eq!(each(&in_c(), cases, LEAVING_LEFT), 8);
    }
}

#[test]
fn destructors_of_a_thread_and_children_in_c() {
    if support::gl_available() {
        let cases =
            combined(&[&INTERFACES, &["idle", "busy", "in_flight", "finalized"], &["thread", "child"]]);
        assert_eq!(each(&in_c(), cases, "left\nleaving\n"), 32);
    }
}

#[test]
fn objects_in_cpp() {
    if support::gl_available() {
        let program = compile_c("leaving.cpp", &["-Wpedantic"]);
        let at_exit = ["global", "local", "worker", "pointer", "thread of main"];
        let cases = combined(&[&INTERFACES, &["idle", "in_flight"], &at_exit]);
        assert_eq!(each(&program, cases, LEAVING_LEFT), 40);
        let cases = combined(&[&INTERFACES, &["idle", "in_flight"], &["thread"]]);
        assert_eq!(each(&program, cases, "left\nleaving\n"), 8);
    }
}

#[test]
fn plugins_with_and_without_unloading() {
    if support::gl_available() {
        let plugin = compile_c("plugin.c", &["-Wpedantic", "-shared", "-fPIC"]);
        let program = compile_c("unloading.c", &[]);
        let cases = combined(&[
            &[plugin.to_str().unwrap()],
            &INTERFACES,
            &["idle", "in_flight"],
            &["dlclose", "exit"],
        ]);
        assert_eq!(each(&program, cases, LEAVING_LEFT), 16);
    }
}
