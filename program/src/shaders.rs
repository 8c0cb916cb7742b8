//! `sparkle shaders`: lists the GPU kernels for a convolution, and prints their GLSL.

use std::fmt::Write;

use clap::Parser;
use sparkle::memory::tiles::Gpu;
use sparkle::shader::pass_plan::{self, Pass};
use sparkle::shader::variant::{candidates, seconds};
use sparkle::{Conv2d, Conv2dDesc};

use crate::console::Console;
use crate::failure::Failure;

/// List the kernels that the planner considers for a convolution, or print the GLSL of one
#[derive(Parser)]
pub struct Args {
    /// Sizes N,C,H,W,K,kernel,stride,pad as in a suite
    #[arg(long, default_value = "1,64,56,56,64,3,1,1", value_name = "SIZES")]
    conv: String,
    /// Print all shaders of this kernel
    #[arg(long, value_name = "NAME")]
    show: Option<String>,
    /// Rank for this GL device, whose speed is measured first; without it, for an assumed medium GPU
    #[arg(long, value_name = "N")]
    gl: Option<usize>,
}

pub fn run(args: &Args, console: &mut Console) -> Result<(), Failure> {
    let problem = problem(&args.conv)?;
    let gpu = match args.gl {
        Some(index) => sparkle::lab::gpu(index)?,
        None => Gpu::ASSUMED,
    };
    let ranked = candidates(&problem, &gpu);
    let Some(name) = &args.show else {
        for variant in ranked {
            let microseconds = seconds(&problem, &gpu, &variant) * 1e6;
            console.line(format!("{variant:<44} {microseconds:>12.1} us predicted"));
        }
        return Ok(());
    };
    let Some(variant) = ranked.iter().find(|variant| variant.to_string() == *name) else {
        return Err(Failure::Input(format!(
            "no kernel {name} for this convolution; the command without --show lists all"
        )));
    };
    let Some(recipe) = pass_plan::generate(variant, &problem) else {
        console.line(sparkle::shader::source::CONV_DIRECT.source);
        return Ok(());
    };
    for pass in recipe.prepare.iter().chain(&recipe.run) {
        console.line(text(pass));
    }
    Ok(())
}

fn text(pass: &Pass) -> String {
    let mut text = format!("// ---- {}: {} workgroups; bindings", pass.source.name, pass.groups);
    for (index, slot) in &pass.bindings {
        let _ = write!(text, " {index} = {slot:?}");
    }
    text + "\n" + &pass.source.text
}

fn problem(sizes: &str) -> Result<Conv2d, Failure> {
    let wrong =
        || Failure::Input(format!("--conv \"{sizes}\": expected eight numbers N,C,H,W,K,kernel,stride,pad"));
    let sizes: Vec<i64> =
        sizes.split(',').map(|it| it.trim().parse().map_err(|_| wrong())).collect::<Result<_, _>>()?;
    let [n, c, h, w, k, r, stride, pad] = sizes[..] else { return Err(wrong()) };
    let desc = Conv2dDesc {
        n,
        c,
        h,
        w,
        k,
        r,
        s: r,
        stride_h: stride,
        stride_w: stride,
        pad_h: pad,
        pad_w: pad,
        ..Default::default()
    };
    Conv2d::new(desc).map_err(|error| Failure::Input(error.to_string()))
}
