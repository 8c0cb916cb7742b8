//! `sparkle patterns`, run as its users run it, in builds that have it; and that others lack all of it.

mod program;

use std::fs;

use program::{folder, sparkle, success};

/// What only the experiment's shaders and kernels contain.
const TEXTS: [&[u8]; 3] =
    [b"patterns_untiled", b"conv_patterns_", b"asks for the\n// operands of each multiply-add anew"];

#[test]
fn only_builds_with_the_feature_contain_the_experiment() {
    let binary = fs::read(env!("CARGO_BIN_EXE_sparkle")).unwrap();
    let contains = |text: &[u8]| binary.windows(text.len()).any(|part| part == text);
    // A text of the product's shaders shows that shaders would be found.
    assert!(contains(b"Shared memory is double-buffered"));
    let found = TEXTS.iter().filter(|text| contains(text)).count();
    let folder = folder();
    let output = sparkle(folder.path(), &["--help"]);
    let help = success(&output);
    if cfg!(feature = "patterns") {
        assert!(found > 0 && help.contains("patterns"), "{found}");
    } else {
        assert!(found == 0 && !help.contains("patterns"), "{found}");
    }
}

#[cfg(feature = "patterns")]
mod experiment {
    use super::*;
    use program::{code, program, stderr};

    const SUITE: &str = "name,N,C,H,W,K,kernel,stride,pad\n\
                         small,1,8,10,10,12,3,1,1\n\
                         point,1,16,8,8,16,1,1,0\n\
                         deep,1,48,4,4,40,3,1,1\n";

    /// A folder with a suite, and the command run in it. Rates that the library measures are kept in the folder.
    fn run(folder: &tempfile::TempDir, arguments: &[&str]) -> std::process::Output {
        fs::write(folder.path().join("suite.csv"), SUITE).unwrap();
        let cache = folder.path().join("cache");
        program(folder.path())
            .arg("patterns")
            .args(arguments)
            .env("SPARKLE_CACHE_DIR", cache)
            .output()
            .unwrap()
    }

    fn report(folder: &tempfile::TempDir, name: &str) -> serde_json::Value {
        serde_json::from_str(&fs::read_to_string(folder.path().join(name)).unwrap()).unwrap()
    }

    #[test]
    fn an_experiment_is_measured_printed_kept_and_read_back() {
        let folder = folder();
        let full =
            ["--suite", "suite.csv", "--threads", "1", "--sgemm", "40", "--processes", "2", "--rounds", "1"];
        let outcome = run(&folder, &[&full[..], &["--json=full.json", "--html", "full.html"]].concat());
        if code(&outcome) == 4 && stderr(&outcome).contains("AVX") {
            return println!("skipped: {}", stderr(&outcome));
        }
        let text = success(&outcome);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        for word in
            ["small", "point", "deep given", "sgemm_40", "verdict", "instrument", "cells exact on integers"]
        {
            assert!(text.contains(word), "{word}: {text}");
        }
        let kept = report(&folder, "full.json");
        assert_eq!((&kept["kind"], &kept["device"]["threads"]), (&"patterns".into(), &1.into()));
        let workloads = kept["workloads"].as_array().unwrap();
        let names: Vec<&str> = workloads.iter().map(|it| it["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["small", "point", "deep", "deep given", "sgemm_40"]);
        for workload in workloads {
            // Sets of the applicable patterns, and two halves of tiling.
            let patterns = workload["applicable"].as_str().unwrap().matches(|it| it != '-').count();
            assert_eq!(workload["cells"].as_array().unwrap().len(), (1 << patterns) + 2);
            let processes = workload["processes"].as_array().unwrap();
            assert!(processes.len() == 2 && processes.iter().all(|it| it.as_array().unwrap().len() == 1));
            assert!(workload["wrong"].as_array().unwrap().iter().all(|wrong| wrong == 0));
        }
        assert_eq!(workloads[1]["applicable"], "TVP-O");
        for result in kept["results"].as_array().unwrap() {
            let worth = result["attribution"]["worth"].as_array().unwrap();
            let product: f64 = worth.iter().map(|it| it["shapley"]["value"].as_f64().unwrap()).product();
            let whole = result["attribution"]["whole"]["value"].as_f64().unwrap();
            assert!((product / whole - 1.0).abs() < 1e-9, "factors multiply to the whole: {product} {whole}");
        }
        let page = fs::read_to_string(folder.path().join("full.html")).unwrap();
        assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
        assert!(page.matches("<svg ").count() >= 3 && !page.contains("<script") && !page.contains("href"));

        // A quick one, and both read back.
        let quick = ["--suite", "suite.csv", "--layer", "small", "--sgemm", "0", "--quick", "--rounds", "1"];
        success(&run(&folder, &[&quick[..], &["--json=quick.json"]].concat()));
        let kept = report(&folder, "quick.json");
        assert_eq!(kept["workloads"][0]["cells"].as_array().unwrap().len(), 12);
        assert!(kept["results"][0]["attribution"].is_null());
        let merged = ["--merge", "full.json", "quick.json", "--json=both.json", "--html", "both.html"];
        let outcome = run(&folder, &merged);
        let text = success(&outcome);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        for claim in ["H1", "H2", "H3", "scope"] {
            assert!(text.contains(claim), "{claim}: {text}");
        }
        let both = report(&folder, "both.json");
        assert_eq!(both["records"][0]["results"], report(&folder, "full.json")["results"], "read back");
    }

    #[test]
    fn a_gpu_is_measured_too() {
        let folder = folder();
        let arguments =
            ["--device", "gl:0", "--suite", "suite.csv", "--layer", "deep", "--quick", "--rounds", "1"];
        let outcome = run(&folder, &[&arguments[..], &["--json=gl.json"]].concat());
        if code(&outcome) == 4 && std::env::var_os("SPARKLE_TEST_REQUIRE_GL").is_none() {
            return println!("skipped: {}", stderr(&outcome));
        }
        success(&outcome);
        let kept = report(&folder, "gl.json");
        assert_eq!(kept["workloads"][0]["applicable"], "TVPL-");
        assert!(kept["results"][0]["over_product"]["value"].as_f64().unwrap() > 0.0);
    }

    /// The guide's tables are what the command prints for the committed records.
    #[test]
    fn the_guide_shows_the_records() {
        let folder = folder();
        let guide = fs::read_to_string(program::root().join("docs/patterns.md")).unwrap();
        let kept = program::root().join("benchmarks/2026-12-01-patterns");
        let mut shown = 0;
        for entry in fs::read_dir(kept).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|it| it == "json") {
                let outcome = run(&folder, &["--merge", path.to_str().unwrap()]);
                let text = success(&outcome).trim_end();
                assert!(guide.contains(&format!("```text\n{text}\n```\n")), "{}:\n{text}", path.display());
                shown += 1;
            }
        }
        assert!(shown > 0);
    }

    #[test]
    fn what_is_no_experiment_is_refused() {
        let folder = folder();
        fs::write(folder.path().join("other.json"), "{\"kind\":\"patterns\"}").unwrap();
        for (arguments, status, part) in [
            (&["--suite", "none.csv"][..], 3, "none.csv"),
            (&["--suite", "suite.csv", "--layer", "large"], 2, "there is no layer \"large\""),
            (&["--suite", "suite.csv", "--device", "abacus"], 2, "abacus"),
            (&["--merge", "other.json"], 3, "other.json"),
            (&["--merge", "none.json"], 3, "none.json"),
            (&[], 2, "--suite"),
        ] {
            let outcome = run(&folder, arguments);
            assert_eq!(code(&outcome), status, "{arguments:?}: {}", stderr(&outcome));
            assert!(stderr(&outcome).contains(part), "{arguments:?}: {}", stderr(&outcome));
        }
    }
}
