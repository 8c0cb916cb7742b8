//! `sparkle roofline` and `SPARKLE_CACHES`, run as their users run them.

mod program;

use std::fs;

use program::{code, folder, json, notes, program, sparkle, stderr, stdout, success};

const POINTS: [&str; 4] = ["--point", "stream=1e9,8e9,0.5", "--point", "a name with blanks=5e10,1e8@L2,1"];

#[test]
fn ceilings_and_points_are_printed_drawn_and_reported() {
    let folder = folder();
    let arguments =
        [&["roofline", "--device", "cpu", "--threads", "1", "--svg", "r.svg", "--json=r.json"], &POINTS[..]];
    let kept = |arguments: &[&str]| {
        let cache = folder.path().join("cache");
        program(folder.path()).args(arguments).env("SPARKLE_CACHE_DIR", cache).output().unwrap()
    };
    let run = kept(&arguments.concat());
    let text = success(&run);
    assert!(text.lines().all(|line| line.chars().count() <= 80) && text.ends_with("wrote r.svg\n"), "{text}");
    for word in ["multiply-adds", "portable", "L1", "L2", "memory", "ridge", "stream", "binds", "1 thread"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let report: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(folder.path().join("r.json")).unwrap()).unwrap();
    assert_eq!((&report["device"], &report["ceilings"]["threads"]), (&"cpu".into(), &1.into()));
    let levels = report["ceilings"]["levels"].as_array().unwrap();
    assert_eq!(levels.len(), report["ridges"].as_array().unwrap().len());
    assert!(levels.iter().all(|level| level["together"].as_f64().unwrap() > 1e6), "{levels:?}");
    let points = report["points"].as_array().unwrap();
    assert_eq!((&points[0]["binds"], &points[0]["level"]), (&"memory".into(), &"memory".into()));
    assert_eq!((points[0]["intensity"].as_f64(), points[0]["rate"].as_f64()), (Some(0.125), Some(2e9)));
    assert_eq!((&points[1]["level"], &points[1]["binds"]), (&"L2".into(), &"arithmetic".into()));
    let svg = fs::read_to_string(folder.path().join("r.svg")).unwrap();
    assert!(svg.starts_with("<svg ") && svg.contains("stream: ") && svg.contains("memory "), "{svg}");
    // The next process measures nothing.
    let again = json(&kept(&["roofline", "--device", "cpu", "--threads", "1", "--json"]));
    assert_eq!(again["ceilings"], report["ceilings"]);
}

#[test]
fn a_software_gpu_has_ceilings_too() {
    let folder = folder();
    let run = sparkle(folder.path(), &["roofline", "--device", "gl:0", "--json"]);
    if code(&run) == 4 && std::env::var_os("SPARKLE_TEST_REQUIRE_GL").is_none() {
        return println!("skipped: {}", stderr(&run));
    }
    let report = json(&run);
    let levels: Vec<_> =
        report["ceilings"]["levels"].as_array().unwrap().iter().map(|level| &level["name"]).collect();
    assert_eq!((levels.first(), levels.last()), (Some(&&"shared".into()), Some(&&"memory".into())));
    assert!(report["ceilings"]["peaks"][0]["together"].as_f64().unwrap() > 1e6);
}

#[test]
fn what_is_malformed_is_refused() {
    let folder = folder();
    for (arguments, part) in [
        (&["roofline", "--point", "x=1,2"][..], "expected NAME=FLOPS,BYTES,SECONDS"),
        (&["roofline", "--point", "x=1,2,zero"], "SECONDS is \"zero\""),
        (&["roofline", "--device", "cpu", "--point", "x=1,2@L9,1"], "there is no level \"L9\""),
        (&["roofline", "--threads", "0"], "0"),
        (&["roofline", "--device", "abacus"], "abacus"),
    ] {
        let run = sparkle(folder.path(), arguments);
        assert_eq!((code(&run), stdout(&run)), (2, ""), "{arguments:?}");
        assert!(stderr(&run).contains(part), "{}", stderr(&run));
    }
    let run = sparkle(folder.path(), &["roofline", "--device", "cpu", "--svg", "missing/r.svg"]);
    assert_eq!((code(&run), notes(&run).len()), (3, 1));
}

#[test]
fn info_tells_reported_measured_and_corrected_caches() {
    let folder = folder();
    let info = json(&sparkle(folder.path(), &["info", "--json"]));
    let facts = &info["devices"][0]["facts"];
    let cache = facts["last cache"].as_str().unwrap();
    assert!(cache.contains("reported; measured: reads "), "{cache}");
    assert!(facts["caches as reported"].is_null());
    let mut command = program(folder.path());
    let corrected =
        json(&command.args(["info", "--json"]).env("SPARKLE_CACHES", "l1=24K,l3=3G/64").output().unwrap());
    let facts = &corrected["devices"][0]["facts"];
    let caches = facts["caches"].as_str().unwrap();
    assert!(caches.starts_with("L1 24 KiB") && caches.ends_with("L3 3145728 KiB for 64 threads"), "{caches}");
    assert!(facts["caches as reported"].as_str().unwrap().ends_with("SPARKLE_CACHES corrects them"));
    let variables = corrected["environment"].as_array().unwrap();
    let shown = variables.iter().find(|it| it["name"] == "SPARKLE_CACHES").unwrap();
    assert_eq!((&shown["value"], &shown["ignored"]), (&"l1=24K,l3=3G/64".into(), &false.into()));
    // No machine reads 3 GiB as fast as less. It is measured, so only what the program concludes is checked.
    let cache = facts["last cache"].as_str().unwrap();
    assert!(cache.starts_with("3145728 KiB reported; measured: "), "{cache}");
    assert_eq!(cache.contains("beyond"), cache.contains("implausible"), "{cache}");
}
