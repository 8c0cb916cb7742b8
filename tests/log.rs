//! Each call gives one record in the log, on every device, whether it succeeds or fails.

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use sparkle::kernel::tree::Type;
use sparkle::log::{Level, set_callback};
use sparkle::{
    Algorithm, Arg, Conv2d, Conv2dDesc, Device, Gemm, GemmDesc, Kernel, Layout, PipelineOptions, WhenFull,
};

/// The records among `messages`: their fields.
fn records(messages: &[(Level, String)]) -> Vec<BTreeMap<String, String>> {
    let calls = messages.iter().filter(|(_, text)| text.starts_with("call="));
    calls
        .map(|(level, text)| {
            assert_eq!(*level, Level::Debug);
            fields(text)
        })
        .collect()
}

/// The fields of `name=value name="quoted value"`.
fn fields(mut text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    while let Some((name, rest)) = text.split_once('=') {
        let (value, rest) = match rest.strip_prefix('"') {
            Some(rest) => rest.split_once('"').expect("a closing quote"),
            None => rest.split_once(' ').map_or((rest, ""), |(value, _)| (value, &rest[value.len()..])),
        };
        assert!(found.insert(name.trim_start().to_owned(), value.to_owned()).is_none(), "{name} twice");
        text = rest;
    }
    found
}

#[test]
fn each_call_gives_one_record() {
    let messages = Arc::new(Mutex::new(vec![]));
    let kept = messages.clone();
    set_callback(Some(Arc::new(move |level, text: &str| {
        kept.lock().unwrap().push((level, text.to_owned()));
    })));
    let desc = Conv2dDesc {
        n: 2,
        c: 3,
        h: 8,
        w: 9,
        k: 4,
        r: 3,
        s: 3,
        pad_h: 1,
        algorithm: Algorithm::Direct,
        ..Default::default()
    };
    let conv = Conv2d::new(desc).unwrap();
    let (input, weights) = (vec![1.0; conv.input_len()], vec![1.0; conv.weights_len()]);
    let mut output = vec![0.0; conv.output_len()];
    let product = Gemm::new(GemmDesc::packed(Layout::RowMajor, 5, 6, 7)).unwrap();
    let source = "!@kernel\nsubroutine twice(i, x)\n  integer, value :: i\n  real, intent(inout) :: x\n  x = 2 * x\nend subroutine\n";
    let kernel = Kernel::from_source(source, "twice").unwrap();

    let mut devices = vec!["auto", "cpu", "multi"];
    if support::gl_available() {
        devices.push("gl:0");
    }
    for name in devices {
        messages.lock().unwrap().clear();
        let device = Device::open(name).unwrap();
        device.conv2d(&conv, &input, &weights, None, &mut output).unwrap();
        device.conv2d(&conv, &input, &weights[1..], None, &mut output).unwrap_err();
        let plan = device.plan(&conv, &weights, None).unwrap();
        plan.run(&input, &mut output).unwrap();
        device.sgemm(&product, &[1.0; 35], &[1.0; 42], &mut [0.0; 30]).unwrap();
        let mut data = [1.0f32; 10];
        let launched = device.launch(&kernel, &[10], &mut [Arg::from(&mut data)]);
        let pipeline = device.pipeline(PipelineOptions::default()).unwrap();
        let job = pipeline.submit(&plan, input.clone(), output.clone(), WhenFull::Wait).unwrap();
        job.wait().unwrap();
        let slot = pipeline.acquire(&plan, WhenFull::Wait).unwrap();
        slot.submit().unwrap().wait().unwrap();

        let mut found = records(&messages.lock().unwrap());
        let calls: Vec<&str> = found.iter().map(|it| it["call"].as_str()).collect();
        assert_eq!(
            calls,
            ["conv2d", "conv2d", "plan_execute", "sgemm", "launch", "submit", "slot_submit"],
            "{name}"
        );
        let failed = found.remove(1);
        assert_eq!(failed["why"], "the call failed before the choice of a device");
        assert!(failed["error"].contains("weights") && !failed.contains_key("ms"), "{failed:?}");
        for record in &found {
            if record["call"] == "launch" && launched.is_err() {
                assert!(record.contains_key("error"), "{record:?}");
                continue;
            }
            let (device, why) = (record["device"].as_str(), record["why"].as_str());
            match name {
                "multi" => assert!(why.starts_with("multi "), "{why}"),
                "auto" => assert!(why == "no hardware GPU" || why.contains("predicted: cpu "), "{why}"),
                _ => assert_eq!((device, why), (name, "the device is named")),
            }
            let ms = |field: &str| record[field].parse::<f64>().unwrap();
            assert!(ms("ms") > 0.0 && ms("kernel_ms") >= 0.0 && !record["kernel"].is_empty(), "{record:?}");
        }
        for record in found.iter().filter(|it| it.contains_key("stride_h")) {
            let sizes = ["n", "c", "h", "w", "k", "r", "s", "pad_h", "pad_w", "groups", "bias", "relu"];
            let sizes: Vec<&str> = sizes.iter().map(|size| record[*size].as_str()).collect();
            assert_eq!(sizes, ["2", "3", "8", "9", "4", "3", "3", "1", "0", "1", "0", "0"]);
            assert_eq!((record["asked"].as_str(), record["algorithm"].as_str()), ("direct", "direct"));
        }
        assert_eq!(
            ["m", "n", "k", "alpha", "beta"].map(|it| found[2][it].as_str()),
            ["5", "6", "7", "1", "0"]
        );
        assert_eq!((found[3]["name"].as_str(), found[3]["points"].as_str()), ("twice", "10"));
    }
    // Calls on buffers.
    messages.lock().unwrap().clear();
    let device = Device::open("cpu").unwrap();
    let plan = device.plan(&conv, &weights, None).unwrap();
    let buffer = |len: usize| {
        let mut buffer = device.buffer(len, Type::Real32).unwrap();
        buffer.write(0, &vec![1.0f32; len]).unwrap();
        buffer
    };
    let (from, constants, mut to) =
        (buffer(conv.input_len()), buffer(conv.weights_len()), buffer(conv.output_len()));
    device.conv2d_on(&conv, &from, &constants, None, &mut to).unwrap();
    plan.run_on(&from, &mut to).unwrap();
    plan.run_on(&constants, &mut to).unwrap_err();
    device.sgemm_on(&product, &buffer(35), &buffer(42), &mut buffer(30)).unwrap();
    let found = records(&messages.lock().unwrap());
    let calls: Vec<&str> = found.iter().map(|it| it["call"].as_str()).collect();
    assert_eq!(calls, ["conv2d", "plan_execute", "plan_execute", "sgemm"]);
    for (index, record) in found.iter().enumerate() {
        assert_eq!(record["why"], "its buffers name the device");
        assert_eq!((record.contains_key("error"), record.contains_key("ms")), (index == 2, index != 2));
    }
    // Nobody listens: nothing comes.
    set_callback(None);
    messages.lock().unwrap().clear();
    Device::open("cpu").unwrap().conv2d(&conv, &input, &weights, None, &mut output).unwrap();
    assert!(messages.lock().unwrap().is_empty());
}
