//! One log record for each call: what was computed, by which device and kernel, how long it took, and why there. And the
//! call's interval in the trace of the process, if there is one.

use std::sync::Arc;

use super::experience::Basis;
use crate::backend::{Backend, Run, Share, Ticket};
use crate::config::{Tune, config};
use crate::error::Result;
use crate::kernel::bind::Launch;
use crate::log::{self, Level, Value};
use crate::problem::{Algorithm, Conv2d, Gemm};
use crate::report::trace;

/// An engine that `auto` considered for a call.
#[derive(Clone)]
pub struct Considered {
    pub id: Arc<str>,
    /// Seconds; infinite if it cannot be measured.
    pub predicted: f64,
    /// Seconds that the choice compares, if calls of the kind have been measured.
    pub measured: Option<f64>,
}

impl Considered {
    fn text(&self) -> String {
        let predicted = predicted_text(&self.id, self.predicted);
        match self.measured {
            Some(measured) => format!("{predicted} (measured {:.3} ms)", measured * 1e3),
            None => predicted,
        }
    }
}

fn predicted_text(id: &str, seconds: f64) -> String {
    match seconds.is_finite() {
        true => format!("{id} {:.3} ms", seconds * 1e3),
        false => format!("{id} skipped"),
    }
}

/// Why a device was chosen.
#[derive(Clone, Default)]
pub enum Why {
    /// None was, because the call failed before.
    #[default]
    NotChosen,
    /// The caller or `SPARKLE_DEVICE` named it.
    Named,
    /// `auto` has only the CPU to choose.
    OnlyCpu,
    /// `auto` compared predictions: seconds of the CPU, and of the fastest GPU.
    Predicted { cpu: f64, gpu: f64, id: Arc<str> },
    /// `auto` chose by predictions, and by what calls of the kind have taken on these engines.
    Learned { basis: Basis, is_least_busy: bool, engines: Vec<Considered> },
    /// `auto` computes on the CPU in a forked process.
    Forked,
    /// The buffers of the call name it, because they are in its memory.
    OfBuffers,
    /// `multi` shares the work among its devices, or leaves it to the fastest.
    Several,
    /// `multi` took the device of its own that is predicted fastest, because the call is not cut.
    BestOfSeveral,
    /// There was nothing to compute.
    Empty,
}

impl Why {
    /// The reason why `auto` took the CPU or `gpu`.
    pub fn predicted(cpu: f64, gpu: f64, backend: &Arc<dyn Backend>) -> Self {
        Why::Predicted { cpu, gpu, id: backend.shared_id() }
    }

    fn text(&self) -> String {
        match self {
            Why::NotChosen => "the call failed before the choice of a device".to_owned(),
            Why::Named => "the device is named".to_owned(),
            Why::OnlyCpu if config().deterministic => "SPARKLE_DETERMINISTIC".to_owned(),
            Why::OnlyCpu => "no hardware GPU".to_owned(),
            Why::Predicted { cpu, gpu, id } => {
                format!("predicted: {}, {}", predicted_text("cpu", *cpu), predicted_text(id, *gpu))
            }
            Why::Learned { basis, is_least_busy, engines } => {
                let basis = match basis {
                    Basis::Predicted => "",
                    Basis::RunnerUp => "tried as the runner-up; ",
                    Basis::Measured => "kept as measured; ",
                    Basis::Alone => "kept without a trial of others; ",
                    Basis::Stored => "kept as stored earlier; ",
                    Basis::NoMemory => "no memory to choose; ",
                };
                let engines = engines.iter().map(Considered::text).collect::<Vec<_>>().join(", ");
                let among = if *is_least_busy { "; least busy of equal devices" } else { "" };
                format!("{basis}predicted: {engines}{among}")
            }
            Why::Forked => "auto uses the CPU in a forked process".to_owned(),
            Why::OfBuffers => "its buffers name the device".to_owned(),
            Why::Several => "multi shares the work as its devices' speed is predicted and learned".to_owned(),
            Why::BestOfSeveral => "multi has this device, which is predicted fastest".to_owned(),
            Why::Empty => "nothing to compute".to_owned(),
        }
    }
}

/// Whether calls are recorded.
#[inline]
pub fn wanted() -> bool {
    log::enabled(Level::Debug)
}

/// What a record says of a plan.
pub struct Recorded {
    pub problem: Conv2d,
    pub why: Why,
}

impl Recorded {
    /// Records a run of the plan.
    #[inline]
    pub fn write(&self, call: &str, result: &Result<Run>) {
        conv2d(call, &self.problem, &self.why, result);
    }

    /// Records the job of `ticket` when it is done.
    pub fn watch(self: &Arc<Self>, call: &'static str, ticket: &Ticket) {
        if wanted() {
            let recorded = self.clone();
            ticket.when_done(move |result| recorded.write(call, result));
        }
    }
}

/// Adds a call that has just ended to the trace of the process.
#[inline]
fn add_to_trace(name: &str, result: &Result<Run>) {
    if let (Some(trace), Ok(run)) = (trace::of_process(), result) {
        // Shares of several devices are there already.
        if run.shares.is_empty() && !run.timing.wall.is_zero() {
            let end = trace.now();
            let start = end.saturating_sub(run.timing.wall);
            trace.call(&run.device, name, (start, end), trace::NO_ARGUMENTS);
        }
    }
}

/// Records a convolution.
#[inline]
pub fn conv2d(call: &str, problem: &Conv2d, why: &Why, result: &Result<Run>) {
    // Jobs are traced by their pipelines.
    if matches!(call, "conv2d" | "plan_execute") {
        add_to_trace("conv2d", result);
    }
    if wanted() {
        write_conv2d(call, problem, why, result);
    }
}

#[cold]
fn write_conv2d(call: &str, problem: &Conv2d, why: &Why, result: &Result<Run>) {
    let it = problem.sizes();
    let asked = match (problem.algorithm(), config().algorithm) {
        (Algorithm::Direct, _) | (Algorithm::Auto, Some(Algorithm::Direct)) => "direct",
        (Algorithm::Winograd, _) | (Algorithm::Auto, Some(Algorithm::Winograd)) => "winograd",
        (Algorithm::Auto, _) => "auto",
    };
    let algorithm = match result {
        Ok(run) if run.kernel.contains("winograd") => "winograd",
        Ok(_) => "direct",
        Err(_) => asked,
    };
    let kernel_by = match config().tune_for(problem) {
        Tune::Off => "prediction",
        Tune::Read | Tune::Full => "measurement",
    };
    let sizes = [
        ("n", it.n),
        ("c", it.c),
        ("h", it.h),
        ("w", it.w),
        ("k", it.k),
        ("r", it.r),
        ("s", it.s),
        ("stride_h", it.stride_h),
        ("stride_w", it.stride_w),
        ("pad_h", it.pad_h),
        ("pad_w", it.pad_w),
        ("pad_bottom", it.pad_bottom),
        ("pad_right", it.pad_right),
        ("dilation_h", it.dilation_h),
        ("dilation_w", it.dilation_w),
        ("groups", it.groups),
        ("bias", usize::from(problem.bias())),
        ("relu", usize::from(problem.relu())),
    ];
    let mut fields = vec![("call", Value::Text(call))];
    fields.extend(sizes.map(|(name, size)| (name, count(size))));
    let (input, output) = (it.input_layout.name(), it.output_layout.name());
    fields.extend([("input_layout", Value::Text(input)), ("output_layout", Value::Text(output))]);
    fields.push(("weights_layout", Value::Text(it.weights_layout.name())));
    fields.extend([("asked", Value::Text(asked)), ("algorithm", Value::Text(algorithm))]);
    fields.push(("kernel_by", Value::Text(kernel_by)));
    write(fields, why, result);
}

/// Records a matrix product.
#[inline]
pub fn sgemm(problem: &Gemm, why: &Why, result: &Result<Run>) {
    add_to_trace("sgemm", result);
    if wanted() {
        write_sgemm(problem, why, result);
    }
}

#[cold]
fn write_sgemm(problem: &Gemm, why: &Why, result: &Result<Run>) {
    let it = problem.sizes();
    let fields = vec![
        ("call", Value::Text("sgemm")),
        ("m", count(it.m)),
        ("n", count(it.n)),
        ("k", count(it.k)),
        ("alpha", Value::Number(problem.alpha())),
        ("beta", Value::Number(problem.beta())),
        ("a_row", count(it.a_row)),
        ("a_col", count(it.a_col)),
        ("b_row", count(it.b_row)),
        ("b_col", count(it.b_col)),
        ("c_row", count(it.c_row)),
        ("c_col", count(it.c_col)),
    ];
    write(fields, why, result);
}

/// Records a launch of a kernel of the kernel language.
#[inline]
pub fn launch(launch: &Launch<'_>, why: &Why, result: &Result<Run>) {
    add_to_trace("launch", result);
    if wanted() {
        write_launch(launch, why, result);
    }
}

#[cold]
fn write_launch(launch: &Launch<'_>, why: &Why, result: &Result<Run>) {
    let points = i64::try_from(launch.points()).unwrap_or(i64::MAX);
    let name = &launch.kernel().name;
    let fields =
        vec![("call", Value::Text("launch")), ("name", Value::Text(name)), ("points", Value::Count(points))];
    write(fields, why, result);
}

fn count(size: usize) -> Value<'static> {
    Value::Count(i64::try_from(size).unwrap_or(i64::MAX))
}

/// Adds what all records have.
fn write(fields: Vec<(&str, Value)>, why: &Why, result: &Result<Run>) {
    let shares = result.as_ref().map(shares_text).unwrap_or_default();
    let (why, error) = (why.text(), result.as_ref().err().map(ToString::to_string).unwrap_or_default());
    let mut fields: Vec<(&str, Value<'_>)> = fields;
    match result {
        Ok(run) => {
            let ms = |time: std::time::Duration| Value::Ms(time.as_secs_f64() * 1e3);
            fields.extend([("kernel", Value::Text(&run.kernel)), ("device", Value::Text(&run.device))]);
            fields.extend([("ms", ms(run.timing.wall)), ("kernel_ms", ms(run.timing.kernel))]);
            fields.push(("dispatches", Value::Count(run.timing.dispatches.into())));
            if !shares.is_empty() {
                fields.push(("shares", Value::Text(&shares)));
            }
            if let Some(reason) = &run.fallback {
                fields.push(("fallback", Value::Text(reason)));
            }
        }
        Err(_) => fields.push(("error", Value::Text(&error))),
    }
    fields.push(("why", Value::Text(&why)));
    log::record(Level::Debug, &fields);
}

/// The shares of several devices: `cpu 2 images 1.250 ms, gl:0 6 images 1.310 ms`.
fn shares_text(run: &Run) -> String {
    let share = |it: &Share| {
        let (count, dimension, ms) = (it.count, it.dimension.name(), it.measured.as_secs_f64() * 1e3);
        format!("{} {count} {dimension} {ms:.3} ms", it.device)
    };
    run.shares.iter().map(share).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_learned_choice_gives_predicted_and_measured_times() {
        let considered = |id: &str, predicted, measured| Considered { id: id.into(), predicted, measured };
        let engines = vec![
            considered("cpu", 0.0015, Some(0.002)),
            considered("gl:0", 0.001, None),
            considered("gl:1", f64::INFINITY, None),
        ];
        let text =
            |basis, is_least_busy| Why::Learned { basis, is_least_busy, engines: engines.clone() }.text();
        let times = "predicted: cpu 1.500 ms (measured 2.000 ms), gl:0 1.000 ms, gl:1 skipped";
        assert_eq!(text(Basis::Predicted, false), times);
        let kept = format!("kept as measured; {times}; least busy of equal devices");
        assert_eq!(text(Basis::Measured, true), kept);
    }
}
