//! Small limits force tiles and slices, and results stay exact. Large problems are refused or tiled; sizes never
//! wrap.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::fake::{self, FakeEgl, Gpu};
use super::faulty::Machine;
use super::rig::{Case, Rig};
use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::gl::driver::context::{Context, ShareGroup, Target};
use crate::gl::driver::egl::Egl;
use crate::gl::{convolution, product};
use crate::problem::exact::Random;
use crate::problem::{Conv2d, Conv2dDesc, Gemm, GemmDesc, Layout};

/// A context on a fake GPU whose buffers hold `max_block` bytes.
fn context(max_block: i64) -> Rc<Context> {
    context_on(Gpu { max_block, ..Gpu::new("fake") })
}

/// A context on `gpu`.
pub fn context_on(gpu: Gpu) -> Rc<Context> {
    let machine = fake::Machine {
        extensions: None,
        gpus: vec![gpu],
        listed: Ok(vec![]),
        surfaceless: Err(fake::BAD_DISPLAY),
        default: Ok(0),
    };
    let egl: Arc<dyn Egl> = FakeEgl::new(machine);
    let display = egl.default_display().unwrap();
    let target = Target { display, rate: 1e9, wait_limit: Duration::from_secs(1), max_iterations: 1 << 19 };
    ShareGroup::new(egl, "gl:fake".into(), target).unwrap().context().unwrap()
}

#[test]
fn batches_in_tiles_are_exact() {
    // 256 elements.
    let Some(rig) = Rig::new(Machine { max_block: Some(1024), ..Default::default() }) else { return };
    let (engine, limited) = (rig.open().unwrap(), context(1024));
    let mut random = Random::new(9);
    let (mut tiled, mut uneven, mut whole) = (0, 0, 0);
    while tiled < 120 {
        let groups = random.pick(&[1, 1, 2]);
        let desc = Conv2dDesc {
            n: random.between(2, 9),
            c: groups * random.between(1, 2),
            h: random.between(1, 8),
            w: random.between(1, 8),
            k: groups * random.between(1, 3),
            r: random.between(1, 3),
            s: random.between(1, 3),
            pad_h: 1,
            pad_w: 1,
            groups,
            bias: random.between(0, 1) == 0,
            ..Default::default()
        };
        let Ok(problem) = Conv2d::new(desc) else { continue };
        let (n, image) = (problem.sizes().n, problem.with_batch(1));
        let largest = image.input_len().max(image.output_len());
        let case = Case::new(desc, random.bits());
        let plan = case.plan(&engine);
        if largest.max(problem.weights_len()) > 256 {
            let error = plan.err().expect("too large");
            assert!(matches!(error, Error::Unsupported { .. }), "{error}");
            continue;
        }
        let at_once = (256 / largest).min(n);
        assert_eq!(convolution::images_at_once(&limited, &problem).unwrap(), at_once, "{desc:?}");
        let dispatches = case.run(&*plan.unwrap()).unwrap();
        // A dispatch that took long is a reason to cut the next one.
        assert!(dispatches as usize >= n.div_ceil(at_once), "{desc:?}");
        if at_once == n {
            whole += 1;
            continue;
        }
        tiled += 1;
        uneven += usize::from(n % at_once != 0);
    }
    assert!(uneven > 20 && whole > 20, "{tiled} in tiles, {uneven} with a smaller last one, {whole} whole");
}

/// A plan that runs repeatedly goes from a small last tile back to a large first one.
#[test]
fn a_plan_in_tiles_runs_many_times() {
    let Some(rig) = Rig::new(Machine { max_block: Some(4 * 2048), ..Default::default() }) else { return };
    let engine = rig.open().unwrap();
    let plan = rig.batch.plan(&engine).unwrap();
    for _ in 0..4 {
        assert!(rig.batch.run(&*plan).unwrap() >= 5);
    }
}

#[test]
fn what_does_not_fit_is_named_with_its_size_and_the_limit() {
    let context = context(1024);
    let message =
        |desc| convolution::images_at_once(&context, &Conv2d::new(desc).unwrap()).unwrap_err().to_string();
    let limit = "a buffer holds at most 256 (GL_MAX_SHADER_STORAGE_BLOCK_SIZE)";
    let base = Conv2dDesc { n: 4, ..Default::default() };
    assert_eq!(
        message(Conv2dDesc { h: 257, ..base }),
        format!("gl:fake does not support an input image of 257 elements; {limit}")
    );
    assert_eq!(
        message(Conv2dDesc { h: 129, k: 2, ..base }),
        format!("gl:fake does not support an output image of 258 elements; {limit}")
    );
    assert_eq!(
        message(Conv2dDesc { c: 17, k: 17, ..base }),
        format!("gl:fake does not support weights of 289 elements; {limit}")
    );
    let product = |m, n, k| Gemm::new(GemmDesc::packed(Layout::RowMajor, m, n, k)).unwrap();
    let error = product::fits(&context, &product(2, 129, 3)).unwrap_err().to_string();
    assert_eq!(
        error,
        format!("gl:fake does not support a matrix of 387 elements (m = 2, n = 129, k = 3); {limit}")
    );
    assert!(product::fits(&context, &product(16, 16, 16)).is_ok());
}

#[test]
fn a_product_that_does_not_fit_leaves_c_alone() {
    let Some(rig) = Rig::new(Machine { max_block: Some(1024), ..Default::default() }) else { return };
    let engine = rig.open().unwrap();
    let problem = Gemm::new(GemmDesc::packed(Layout::RowMajor, 20, 20, 2)).unwrap();
    let mut c = vec![7.0; 400];
    let error = engine.sgemm(&problem, &[0.0; 40], &[0.0; 40], &mut c).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    assert!(c.iter().all(|&value| value == 7.0));
}

/// For all sizes and limits: the images of a tile fit into 2^31 - 1 bytes and their sides into 31 bits, or the
/// problem is refused.
#[test]
fn sizes_around_31_and_32_bits_are_tiled_or_refused() {
    let context = context(i64::MAX);
    const MOST: i64 = (1 << 29) - 1;
    assert_eq!(context.capabilities().max_elements(), MOST as usize);
    let images = |desc| -> Result<i64> {
        let problem = Conv2d::new(desc)?;
        let images = convolution::images_at_once(&context, &problem)?;
        let tile = problem.with_batch(images);
        assert!((1..=problem.sizes().n).contains(&images));
        assert!(tile.input_len().max(tile.output_len()).max(tile.weights_len()) <= MOST as usize);
        Ok(images as i64)
    };
    let refused = |desc| assert!(matches!(images(desc), Err(Error::Unsupported { .. })), "{desc:?}");
    let base = Conv2dDesc::default();
    let half = Conv2dDesc { h: 1 << 14, w: 1 << 14, ..base };
    assert_eq!(images(Conv2dDesc { n: 5, ..half }).unwrap(), 1, "two images are 2^29 elements");
    assert_eq!(images(Conv2dDesc { n: 5, h: (1 << 14) - 1, ..half }).unwrap(), 2);
    assert_eq!(images(Conv2dDesc { n: 1 << 28, ..base }).unwrap(), 1 << 28);
    assert_eq!(images(Conv2dDesc { n: MOST, ..base }).unwrap(), MOST);
    assert_eq!(images(Conv2dDesc { n: (1 << 31) - 1, ..base }).unwrap(), MOST);
    assert_eq!(images(Conv2dDesc { n: 1 << 28, c: 5, ..base }).unwrap(), MOST / 5);
    assert_eq!(images(Conv2dDesc { n: 1 << 28, k: 7, ..base }).unwrap(), MOST / 7);
    refused(Conv2dDesc { c: 2, ..half });
    refused(Conv2dDesc { c: 16, ..half });
    refused(Conv2dDesc { k: 2, ..half });
    refused(Conv2dDesc { k: 1 << 15, c: 1 << 14, ..base });
    refused(Conv2dDesc { k: 1 << 16, c: 1 << 16, ..base });
    let error = images(Conv2dDesc { c: 2, ..half }).unwrap_err().to_string();
    assert!(error.ends_with("a buffer holds at most 536870911 (2^31 - 1 bytes)"), "{error}");
    // Images of few elements whose padded rows or columns do not fit into 31 bits.
    let far = Conv2dDesc { pad_h: 1 << 30, stride_h: 1 << 30, ..base };
    refused(far);
    assert!(images(Conv2dDesc { pad_h: (1 << 30) - 1, ..far }).is_ok());

    // Random sizes up to the largest that a description allows.
    let mut random = Random::new(31);
    let (mut accepted, mut rejected) = (0, 0);
    while accepted < 2000 || rejected < 2000 {
        let mut side = |most: i64| {
            let bits = random.between(0, most);
            random.between(1, 1 << bits)
        };
        let desc = Conv2dDesc {
            n: side(20),
            c: side(14),
            h: side(15),
            w: side(15),
            k: side(14),
            r: side(2),
            s: side(2),
            pad_h: side(3),
            pad_w: side(30),
            stride_w: side(12),
            ..base
        };
        match images(desc) {
            Ok(_) => accepted += 1,
            Err(Error::Unsupported { .. }) => rejected += 1,
            Err(error) => assert!(matches!(error, Error::InvalidArgument { .. }), "{error}"),
        }
    }
}

#[test]
fn products_around_31_and_32_bits_are_refused() {
    let context = context(i64::MAX);
    let fits = |desc| product::fits(&context, &Gemm::new(desc).unwrap());
    let packed = |m, n, k| GemmDesc::packed(Layout::RowMajor, m, n, k);
    for (desc, right) in [
        (packed(1 << 14, 1 << 14, 1), true),
        (packed(1 << 15, 1 << 14, 1), false),
        (packed(1 << 16, 1 << 16, 1), false),
        (packed(1 << 15, 1, 1 << 14), false),
        (packed(1, 1 << 16, 1 << 16), false),
        (packed(1, 1, (1 << 31) - 1), false),
        (packed(1, 1, (1 << 29) - 1), true),
        (GemmDesc { ldc: 1 << 28, ..packed(2, 3, 4) }, true),
        (GemmDesc { ldc: 1 << 28, ..packed(3, 3, 4) }, false),
        (GemmDesc { lda: (1 << 31) - 1, ..packed(2, 3, 4) }, false),
    ] {
        assert_eq!(fits(desc).is_ok(), right, "{desc:?}: {:?}", fits(desc));
    }
}

/// At a very low rate every dispatch is one workgroup.
#[test]
fn slices_are_exact() {
    let Some(mut rig) = Rig::new(Machine::default()) else { return };
    rig.target.rate = 1e5;
    let mut cut = 0;
    for seed in 0..4 {
        let base = Conv2dDesc {
            n: 2,
            c: 3,
            h: 16,
            w: 15,
            k: 3,
            r: 3,
            s: 3,
            pad_h: 1,
            pad_w: 1,
            ..Default::default()
        };
        for desc in [base, Conv2dDesc { bias: true, s: 1, w: 13, relu: true, ..base }] {
            // A new engine each time, since an engine learns.
            let engine = rig.open().unwrap();
            let case = Case::new(desc, seed);
            let plan = case.plan(&engine).unwrap();
            let first = case.run(&*plan).unwrap();
            assert!(first > 1, "{first} dispatches");
            for _ in 0..3 {
                assert!(case.run(&*plan).unwrap() <= first, "it learns");
            }
            cut += 1;
        }
        let engine = rig.open().unwrap();
        rig.product.run(&engine).unwrap();
    }
    assert_eq!(cut, 8);
}
