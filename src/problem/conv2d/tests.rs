//! Tests of descriptions and sizes of convolutions.

use super::*;

fn refused(desc: Conv2dDesc) -> String {
    Conv2d::new(desc).expect_err("should be refused").to_string()
}

#[test]
fn sizes_and_work_of_a_known_layer() {
    let desc = Conv2dDesc {
        n: 2,
        c: 128,
        h: 56,
        w: 56,
        k: 128,
        r: 3,
        s: 3,
        stride_h: 2,
        stride_w: 2,
        pad_h: 1,
        pad_w: 1,
        ..Default::default()
    };
    let conv = Conv2d::new(desc).unwrap();
    assert_eq!((conv.sizes().p, conv.sizes().q), (28, 28));
    assert_eq!(conv.flops(), 2 * 2 * 128 * 28 * 28 * 128 * 9);
    assert_eq!(conv.bytes(), 4 * (2 * 128 * 56 * 56 + 128 * 128 * 9 + 2 * 128 * 28 * 28));
    assert_eq!(conv.with_batch(1).flops() * 2, conv.flops());
}

#[test]
fn parts_of_the_channels_are_the_convolutions_that_they_say() {
    let one_group = Conv2dDesc { n: 3, c: 8, h: 9, w: 9, k: 6, r: 3, s: 3, bias: true, ..Default::default() };
    let same = |whole: Conv2dDesc, part: Conv2dDesc| {
        assert_eq!(Conv2d::new(whole).unwrap().with_channels(part.k as usize), Conv2d::new(part).unwrap());
    };
    same(one_group, Conv2dDesc { k: 5, ..one_group });
    // Two output channels of each of three groups, from four input channels.
    let groups = Conv2dDesc { c: 12, groups: 3, ..one_group };
    same(groups, Conv2dDesc { c: 8, k: 4, groups: 2, ..groups });
    same(groups, Conv2dDesc { c: 4, k: 2, groups: 1, ..groups });
}

/// Different sizes everywhere, groups, bias, and strides that do not divide.
fn odd() -> Conv2dDesc {
    Conv2dDesc {
        n: 3,
        c: 8,
        h: 11,
        w: 13,
        k: 6,
        r: 2,
        s: 5,
        stride_h: 2,
        stride_w: 3,
        pad_h: 1,
        pad_w: 2,
        dilation_h: 3,
        dilation_w: 2,
        groups: 2,
        bias: true,
        ..Default::default()
    }
}

#[test]
fn sizes_and_work_worked_by_hand() {
    let conv = Conv2d::new(odd()).unwrap();
    // (11 + 2 - 3 - 1) / 2 + 1 and (13 + 4 - 8 - 1) / 3 + 1.
    assert_eq!((conv.sizes().p, conv.sizes().q), (5, 3));
    assert_eq!((conv.reduction(), conv.terms(), conv.weights_len()), (4 * 10, 41, 6 * 40));
    assert_eq!((conv.input_len(), conv.output_len()), (3 * 8 * 143, 3 * 6 * 15));
    // The channels of a group, not all channels.
    assert_eq!(conv.flops(), 2 * (3 * 6 * 15) * 40);
    assert_eq!(conv.bytes(), 4 * (3432 + 240 + 6 + 270));
    let without = Conv2d::new(Conv2dDesc { bias: false, ..odd() }).unwrap();
    assert_eq!((without.bytes(), without.terms()), (4 * (3432 + 240 + 270), 40));
    let part = conv.with_batch(2);
    assert_eq!((part.sizes().n, part.flops(), part.input_len()), (2, 2 * 2 * 90 * 40, 2 * 1144));
    assert_eq!(part, Conv2d::new(Conv2dDesc { n: 2, ..odd() }).unwrap());
    let none = conv.with_batch(0);
    assert!(none.is_empty() && !part.is_empty() && none.with_batch(1).output_len() == 90);
    assert_eq!((none.flops(), none.bytes(), none.weights_len()), (0, 0, 240));
}

#[test]
fn a_problem_keeps_its_options() {
    for (bias, relu, algorithm) in [
        (false, true, Algorithm::Direct),
        (true, false, Algorithm::Winograd),
        (false, false, Algorithm::Auto),
    ] {
        let conv = Conv2d::new(Conv2dDesc { bias, relu, algorithm, ..odd() }).unwrap();
        assert_eq!((conv.bias(), conv.relu(), conv.algorithm()), (bias, relu, algorithm));
        assert_eq!((conv.is_once(), conv.is_measured()), (false, false));
        assert_eq!((conv.once().is_once(), conv.once().is_measured()), (true, false));
        assert_eq!((conv.measured().is_once(), conv.measured().is_measured()), (false, true));
        let direct = conv.with_algorithm(Algorithm::Direct);
        assert_eq!(
            direct,
            Conv2d::new(Conv2dDesc { bias, relu, algorithm: Algorithm::Direct, ..odd() }).unwrap()
        );
        for same in [conv.once(), conv.measured(), direct] {
            assert_eq!((same.sizes(), same.flops(), same.bias()), (conv.sizes(), conv.flops(), bias));
        }
    }
}

#[test]
fn every_bad_size_is_named_with_its_value() {
    type Set = fn(&mut Conv2dDesc, i64);
    let fields: [(&str, Set); 16] = [
        ("n", |d, v| d.n = v),
        ("c", |d, v| d.c = v),
        ("h", |d, v| d.h = v),
        ("w", |d, v| d.w = v),
        ("k", |d, v| d.k = v),
        ("r", |d, v| d.r = v),
        ("s", |d, v| d.s = v),
        ("stride_h", |d, v| d.stride_h = v),
        ("stride_w", |d, v| d.stride_w = v),
        ("pad_h", |d, v| d.pad_h = v),
        ("pad_w", |d, v| d.pad_w = v),
        ("pad_bottom", |d, v| d.pad_bottom = Some(v)),
        ("pad_right", |d, v| d.pad_right = Some(v)),
        ("dilation_h", |d, v| d.dilation_h = v),
        ("dilation_w", |d, v| d.dilation_w = v),
        ("groups", |d, v| d.groups = v),
    ];
    for (name, set) in fields {
        for value in [-1, i64::MIN, i64::MAX, 1 << 31] {
            let mut desc = Conv2dDesc::default();
            set(&mut desc, value);
            let message = refused(desc);
            assert!(message.starts_with(&format!("{name} is {value}; expected ")), "{message}");
        }
        if name != "n" && !name.starts_with("pad") {
            let mut desc = Conv2dDesc::default();
            set(&mut desc, 0);
            assert!(refused(desc).starts_with(&format!("{name} is 0; ")));
        }
    }
}

#[test]
fn kernels_that_do_not_fit_and_groups_that_do_not_divide() {
    let small = Conv2dDesc { h: 4, w: 9, r: 3, s: 3, dilation_h: 2, ..Default::default() };
    assert!(refused(small).starts_with("r is 3; expected a kernel no larger than the padded input"));
    assert!(Conv2d::new(Conv2dDesc { pad_h: 1, ..small }).is_ok());
    let grouped = Conv2dDesc { c: 6, k: 4, groups: 4, ..Default::default() };
    assert_eq!(refused(grouped), "groups is 4; expected a divisor of c = 6 and of k = 4");
}

#[test]
fn sizes_that_overflow_are_refused() {
    let big = i64::from(i32::MAX);
    let input = Conv2dDesc { n: big, c: big, h: 4, ..Default::default() };
    assert!(refused(input).starts_with("input size n*c*h*w is 2147483647 x 2147483647 x 4 x 1;"));
    let padding = Conv2dDesc { pad_h: big, pad_w: big, stride_h: big, stride_w: big, ..Default::default() };
    assert!(refused(padding).starts_with("padded input size is "));
    let work = Conv2dDesc { h: 1 << 30, c: 1 << 20, k: 1 << 20, ..Default::default() };
    assert!(refused(work).starts_with("work "), "{}", refused(work));
    // 2^65 operations for the batch, 2^62 per image; and 2^63 for two images.
    let batch = Conv2dDesc { n: 8, h: 1 << 21, c: 1 << 20, k: 1 << 20, ..Default::default() };
    assert!(refused(batch).starts_with("work "), "{}", refused(batch));
    assert_eq!(Conv2d::new(Conv2dDesc { n: 2, ..batch }).unwrap().flops(), 1 << 63);
    // An empty batch of images that are too large.
    let large = |desc: Conv2dDesc| refused(Conv2dDesc { n: 0, ..desc });
    assert!(large(Conv2dDesc { c: big, h: big, w: big, ..input }).starts_with("input size n*c*h*w is"));
    assert!(
        large(Conv2dDesc { k: big, w: 2, h: 1 << 30, ..Default::default() })
            .starts_with("output size n*k*p*q is")
    );
    assert!(large(padding).starts_with("padded input size is ") && large(work).starts_with("work "));
    let weights = Conv2dDesc { c: big, k: big, h: 8, r: 8, ..Default::default() };
    assert!(refused(weights).starts_with("weights size k*(c/groups)*r*s is"));
}

/// The limit is 2^61 - 1 elements. A padded image of (2^31 - 1) (2^30 + 1) exceeds it by less than a column.
#[test]
fn padding_and_groups_are_measured_exactly() {
    let far = i64::from(i32::MAX);
    let desc = Conv2dDesc { stride_h: far, stride_w: far, ..Default::default() };
    for (pad_h, pad_w) in [((1 << 30) - 1, 1 << 29), (1 << 29, (1 << 30) - 1)] {
        let message = refused(Conv2dDesc { pad_h, pad_w, ..desc });
        assert!(message.starts_with("padded input size is 1 x 1 x "), "{message}");
        assert!(Conv2d::new(Conv2dDesc { pad_h: pad_h - 1, pad_w, ..desc }).is_ok());
    }
    // So many groups that their square would overflow the number of weights.
    let wide = Conv2dDesc { c: 1 << 21, k: 1 << 21, groups: 1 << 21, ..Default::default() };
    let wide = Conv2d::new(wide).unwrap();
    assert_eq!((wide.weights_len(), wide.flops()), (1 << 21, 1 << 22));
}

#[test]
fn wrong_lengths_name_the_buffer() {
    let conv = Conv2d::new(Conv2dDesc { bias: true, k: 3, ..Default::default() }).unwrap();
    let message = |result: Result<()>| result.unwrap_err().to_string();
    assert_eq!(
        message(conv.check_weights(&[0.0; 2], Some(&[0.0; 3]))),
        "weights length is 2 elements; expected 3 elements"
    );
    assert_eq!(message(conv.check_weights(&[0.0; 3], None)), "bias is missing; expected 3 elements");
    assert_eq!(
        message(conv.check_data(&[0.0], &[0.0; 4])),
        "output length is 4 elements; expected 3 elements"
    );
}
