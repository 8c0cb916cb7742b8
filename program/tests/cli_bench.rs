//! `sparkle bench` and `sparkle stream`, run as their users run them.

mod program;

use std::fs;
use std::path::Path;
use std::process::Output;

use program::{code, folder, json, sparkle, stderr, stdout, success};
use serde_json::Value;

// ---------------------------------------------------------------------------------------------------- bench

const SUITE: &str = "name,N,C,H,W,K,kernel,stride,pad\nodd,1,3,9,7,5,3,2,1\none,2,8,6,6,8,1,1,0\n";

fn bench(folder: &Path, suite: &str, options: &[&str]) -> (Output, Value) {
    fs::write(folder.join("suite.csv"), suite).unwrap();
    let mut arguments = vec!["bench", "--suite", "suite.csv", "--repeat", "3", "--json=out.json"];
    arguments.extend(options);
    let output = sparkle(folder, &arguments);
    let report = fs::read(folder.join("out.json")).expect("a report is written");
    (output, serde_json::from_slice(&report).unwrap())
}

#[test]
fn bench_verifies_and_times_every_row() {
    let folder = folder();
    let runs: [(&[&str], [u64; 2]); 3] = [
        (&["--device", "cpu"], [1, 2]),
        (&["--device", "cpu", "--prepacked", "--threads", "1"], [1, 2]),
        (&["--device", "cpu", "--batch", "4"], [4, 4]),
    ];
    for (options, batches) in runs {
        let (output, report) = bench(folder.path(), SUITE, options);
        for word in ["odd", "one", "geomean", "GFLOPS"] {
            assert!(success(&output).contains(word), "{word} in {}", stdout(&output));
        }
        let rows = report["rows"].as_array().unwrap();
        assert_eq!(rows.len(), 2);
        for (row, images) in rows.iter().zip(batches) {
            let mut keys: Vec<&String> = row.as_object().unwrap().keys().collect();
            keys.sort();
            let expected =
                ["device", "error_over_bound", "flops", "gflops", "kernel", "kernel_ms", "name", "wall_ms"];
            assert_eq!(keys, expected);
            let number = |key: &str| row[key].as_f64().unwrap();
            let flops = if row["name"] == "odd" { 2 * 5 * 5 * 4 * 27 } else { 2 * 8 * 36 * 8 };
            assert_eq!(number("flops"), (images * flops) as f64);
            assert!(number("error_over_bound") <= 1.0 && number("kernel_ms") > 0.0);
            let rate = number("flops") / number("kernel_ms") / 1e6;
            assert!((number("gflops") / rate - 1.0).abs() < 1e-6);
            assert_eq!((&row["device"], row["kernel"].is_string()), (&"cpu".into(), true));
        }
        let product = rows.iter().map(|row| row["gflops"].as_f64().unwrap()).product::<f64>();
        assert!((report["geomean_gflops"].as_f64().unwrap() / product.sqrt() - 1.0).abs() < 1e-6);
        if options.contains(&"--threads") {
            assert_eq!((&report["threads"], &report["prepacked"]), (&1.into(), &true.into()));
        }
    }
}

#[test]
fn bench_does_not_trust_a_result_that_is_mostly_zero() {
    let folder = folder();
    let suite = format!("{SUITE}border,1,1,1,1,1,1,1,3\n");
    let (output, report) = bench(folder.path(), &suite, &["--device", "cpu"]);
    assert_eq!(code(&output), 1);
    assert!(
        stderr(&output).contains("border: WRONG RESULT: 48 of 49 outputs are zero"),
        "{}",
        stderr(&output)
    );
    assert_eq!(report["failed"][0]["name"], "border");
    let rows = report["rows"].as_array().unwrap();
    assert!(rows[0]["gflops"].is_number() && rows[2]["gflops"].is_null() && rows[2]["kernel_ms"].is_null());
    assert!(report["geomean_gflops"].is_null());
}

#[test]
fn bench_skips_empty_batches() {
    let folder = folder();
    let (output, report) =
        bench(folder.path(), &format!("{SUITE}none,0,3,9,7,5,3,2,1\n"), &["--device", "cpu"]);
    assert!(success(&output).contains("none"), "{}", stdout(&output));
    let rows = report["rows"].as_array().unwrap();
    let none = |row: &Value| {
        assert_eq!(
            (&row["flops"], &row["device"], &row["kernel"]),
            (&0.into(), &"cpu".into(), &"none".into())
        );
        assert_eq!(
            (&row["kernel_ms"], &row["wall_ms"], &row["gflops"]),
            (&0.0.into(), &0.0.into(), &Value::Null)
        );
    };
    none(&rows[2]);
    // An empty batch has no rate. The mean covers the other rows.
    let product = rows[..2].iter().map(|row| row["gflops"].as_f64().unwrap()).product::<f64>();
    assert!((report["geomean_gflops"].as_f64().unwrap() / product.sqrt() - 1.0).abs() < 1e-6);
    for options in
        [&["--device", "cpu", "--batch", "0"][..], &["--device", "cpu", "--batch", "0", "--prepacked"]]
    {
        let (output, report) = bench(folder.path(), SUITE, options);
        success(&output);
        report["rows"].as_array().unwrap().iter().for_each(none);
        assert!(report["geomean_gflops"].is_null() && report["failed"].as_array().unwrap().is_empty());
    }
}

#[test]
fn bench_refuses_bad_suites_and_selectors() {
    let folder = folder();
    let head = "name,N,C,H,W,K,kernel,stride,pad\n";
    let cases = [
        (
            format!("{head}a,1,3,9,7,5,three,2,1\n"),
            "suite.csv: line 2, column kernel: \"three\" is not a whole number",
        ),
        (format!("{SUITE}a,1,3,9,7,5,3,0,1\n"), "suite.csv: line 4, column stride: 0; expected 1 to"),
        ("name,N,C,H,W,K,kernel,stride\n".to_owned(), "suite.csv: line 1, column pad: missing"),
        (head.to_owned(), "suite.csv: has no rows"),
    ];
    for (suite, message) in cases {
        fs::write(folder.path().join("suite.csv"), suite).unwrap();
        let output = sparkle(folder.path(), &["bench", "--suite", "suite.csv"]);
        assert_eq!(code(&output), 3);
        assert!(stderr(&output).contains(message), "{}", stderr(&output));
    }
    fs::write(folder.path().join("suite.csv"), SUITE).unwrap();
    let with = |options: &[&str]| {
        let arguments = [&["bench", "--suite", "suite.csv"], options].concat();
        code(&sparkle(folder.path(), &arguments))
    };
    assert_eq!(with(&["--suite", "none.csv"]), 2, "given twice");
    assert_eq!(with(&["--device", "abacus"]), 2);
    assert_eq!(with(&["--device", "gl:99"]), 4);
    assert_eq!(with(&["--threads", "0"]), 2);
    assert_eq!(with(&["--json=none/out.json"]), 3);
    assert_eq!(code(&sparkle(folder.path(), &["bench", "--suite", "none.csv"])), 3);
}

// ---------------------------------------------------------------------------------------------------- stream

#[test]
fn stream_verifies_every_way_and_prints_its_bounds() {
    let folder = folder();
    let info = json(&sparkle(folder.path(), &["info", "--json"]));
    if !info["devices"].as_array().unwrap().iter().any(|it| it["id"] == "gl:0") {
        return eprintln!("skipped: no OpenGL device");
    }
    fs::write(folder.path().join("suite.csv"), SUITE).unwrap();
    let arguments =
        ["stream", "--suite", "suite.csv", "--device", "gl:0", "--layer", "one", "--batches", "12"];
    let output = sparkle(folder.path(), &[&arguments[..], &["--json=out.json"]].concat());
    let ways = [
        "reference",
        "one-shot",
        "prepared",
        "one context",
        "two contexts",
        "three contexts",
        "three, host order",
        "in place, one context",
        "in place, two",
        "in place",
        "in place, host order",
    ];
    for words in [
        "host copies",
        "steps alone, ms",
        "one-shot call over the slowest step",
        "one-shot calls, ms: least",
        "submit",
    ] {
        assert!(success(&output).contains(words), "{words} in {}", stdout(&output));
    }
    let report: Value = serde_json::from_slice(&fs::read(folder.path().join("out.json")).unwrap()).unwrap();
    let layers = report["layers"].as_array().unwrap();
    assert!(layers.len() == 1 && layers[0]["name"] == "one");
    let rows = layers[0]["rows"].as_array().unwrap();
    assert_eq!(rows.iter().map(|row| row["way"].as_str().unwrap()).collect::<Vec<_>>(), ways);
    for row in rows {
        let number = |key: &str| row[key].as_f64().unwrap();
        assert!(number("ms") > 0.0, "{row}");
        assert!((number("share_of_bound") * number("ms") / number("bound_ms") - 1.0).abs() < 1e-6, "{row}");
        let busy = row["busy"].as_array().into_iter().flatten();
        assert!(busy.map(|it| it.as_f64().unwrap()).all(|it| (0.0..=1.0).contains(&it)), "{row}");
        assert_eq!(row["calls"].is_null(), !row["busy"].is_null(), "{row}");
        if row["calls"].is_object() {
            let calls =
                ["least", "median", "ninth_decile", "longest"].map(|it| row["calls"][it].as_f64().unwrap());
            assert!(calls.is_sorted() && calls[0] <= number("ms") && number("ms") <= calls[3], "{row}");
        }
    }
}

/// Groups are verified image by image, too.
#[test]
fn stream_verifies_groups_and_dilation() {
    let folder = folder();
    let suite = "name,N,C,H,W,K,kernel,stride,pad,groups,dilation\ngrouped,3,4,9,9,6,3,1,1,2,2\n";
    fs::write(folder.path().join("suite.csv"), suite).unwrap();
    let arguments = ["stream", "--suite", "suite.csv", "--device", "cpu", "--batches", "12"];
    let report = json(&sparkle(folder.path(), &[&arguments[..], &["--json"]].concat()));
    // The CPU has neither contexts nor transfers, so no steps and no bound.
    let layer = &report["layers"][0];
    let ways: Vec<&str> =
        layer["rows"].as_array().unwrap().iter().map(|row| row["way"].as_str().unwrap()).collect();
    assert_eq!(ways, ["one-shot", "prepared", "pipeline", "in place"]);
    assert!(
        layer["steps"].is_null()
            && layer["rows"].as_array().unwrap().iter().all(|row| row["bound_ms"].is_null())
    );
    let output = sparkle(folder.path(), &[&arguments[..], &["--way", "one-shot"]].concat());
    assert!(success(&output).contains("one-shot") && !stdout(&output).contains("prepared"));
}

#[test]
fn stream_skips_empty_batches() {
    let folder = folder();
    fs::write(folder.path().join("suite.csv"), SUITE).unwrap();
    let info = json(&sparkle(folder.path(), &["info", "--json"]));
    let devices: Vec<&str> =
        info["devices"].as_array().unwrap().iter().filter_map(|it| it["id"].as_str()).collect();
    assert!(devices.contains(&"cpu"));
    for device in devices {
        let arguments =
            ["stream", "--suite", "suite.csv", "--batch", "0", "--json=out.json", "--device", device];
        let output = sparkle(folder.path(), &arguments);
        assert_eq!(
            success(&output).matches("an empty batch: nothing to stream").count(),
            2,
            "{}",
            stdout(&output)
        );
        let report: Value =
            serde_json::from_slice(&fs::read(folder.path().join("out.json")).unwrap()).unwrap();
        let layers = report["layers"].as_array().unwrap();
        assert!(layers.len() == 2 && layers.iter().all(|layer| layer["rows"].as_array().unwrap().is_empty()));
    }
}

#[test]
fn stream_refuses_runs_that_would_measure_nothing() {
    let folder = folder();
    fs::write(folder.path().join("suite.csv"), SUITE).unwrap();
    for (options, exit, message) in [
        (&["--batches", "11"][..], 2, "--batches 11: at least 12, four for each of 3 slots"),
        (&["--slots", "16"], 2, "--batches 50: at least 64, four for each of 16 slots"),
        (&["--layer", "none"], 3, "suite.csv: no layer has that name"),
        (&["--slots", "17"], 2, "17"),
        (
            &["--device", "cpu", "--way", "reference"],
            2,
            "--way reference: the ways of cpu are \"one-shot\", \"prepared\", \"pipeline\", \"in place\"",
        ),
        (&["--device", "cpu", "--way", "three contexts"], 2, "--way three contexts: the ways of cpu are"),
    ] {
        let output = sparkle(folder.path(), &[&["stream", "--suite", "suite.csv"], options].concat());
        assert_eq!(code(&output), exit, "{options:?}");
        assert!(stderr(&output).contains(message), "{}", stderr(&output));
    }
}
