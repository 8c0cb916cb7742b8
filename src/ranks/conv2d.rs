//! Convolutions over ranks.

use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use super::cut::{self, Distribution, Span, Weight};
use super::rows::{Piece, Rows};
use super::transport::{Exchange, Message, Started};
use super::{Group, merged};
use crate::allocate;
use crate::device::{Conv2dPlan, Run};
use crate::error::{Error, Result};
use crate::problem::{Algorithm, Conv2d, exact_length};

/// The tags of weights and of input channels.
const WEIGHTS: u32 = 2;
const CHANNELS: u32 = 3;

/// The part of a convolution that one rank holds. Layouts are those of the whole problem, with the part's count in place of
/// the dimension that is distributed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupPart {
    /// The images, rows or channels of the input.
    pub input: Span,
    /// The images, rows or channels of the output.
    pub output: Span,
    /// Length of the rank's input in elements.
    pub input_len: usize,
    /// Length of the rank's output in elements.
    pub output_len: usize,
}

/// What a plan is made from.
pub(crate) struct Wanted<'a> {
    pub problem: Conv2d,
    pub distribution: Distribution,
    pub weight: Weight,
    /// Weights and bias; read on rank 0 only.
    pub data: (&'a [f32], Option<&'a [f32]>),
}

/// A prepared convolution over the ranks of a group. Cheap to clone.
#[derive(Clone)]
pub struct GroupPlan(Arc<Inner>);

struct Inner {
    group: Group,
    problem: Conv2d,
    parts: Vec<GroupPart>,
    work: Work,
    state: Mutex<State>,
}

/// How a rank computes its part.
enum Work {
    Nothing,
    /// From its own input alone.
    Alone(Conv2dPlan),
    Rows(Rows, Vec<Conv2dPlan>),
    /// From the input channels of all ranks.
    Gathered(Option<Conv2dPlan>),
}

/// The memory of a run.
#[derive(Default)]
struct State {
    begun: Option<Begun>,
    /// The messages between two runs.
    exchange: Option<Exchange>,
    /// Inputs and outputs of the pieces that are not computed in place.
    inputs: Vec<Vec<f32>>,
    outputs: Vec<Vec<f32>>,
}

/// A run whose messages are under way; without a number if there are none.
struct Begun(Option<Started>);

/// A run whose messages are under way: [`GroupPlan::begin`].
#[must_use = "a run that was begun must be finished"]
pub struct Pending<'a> {
    plan: GroupPlan,
    input: &'a [f32],
    finished: bool,
}

impl Group {
    /// Prepares a convolution over the ranks, in equal parts. Collective. `problem` is the whole problem, and the same on all
    /// ranks. `weights` and `bias` are those of the whole problem; only those of rank 0 are read, and sent to the others,
    /// which may pass empty slices.
    ///
    /// # Errors
    /// As [`Device::plan`](crate::Device::plan); [`Error::OtherRank`] if that failed on another rank;
    /// [`Error::InvalidArgument`] if the ranks have different problems; [`Error::Transport`].
    pub fn plan(
        &self,
        problem: &Conv2d,
        distribution: Distribution,
        weights: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<GroupPlan> {
        self.plan_weighted(problem, distribution, Weight::Equal, weights, bias)
    }

    /// As [`Group::plan`], in parts that follow the weights of the ranks. Each rank passes its own.
    ///
    /// # Errors
    /// As [`Group::plan`].
    pub fn plan_weighted(
        &self,
        problem: &Conv2d,
        distribution: Distribution,
        weight: Weight,
        weights: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<GroupPlan> {
        let wanted = Wanted { problem: *problem, distribution, weight, data: (weights, bias) };
        self.plan_settled::<Error>(Ok(wanted))
    }

    /// As [`Group::plan_weighted`], for arguments that may be wrong already.
    ///
    /// # Errors
    /// As [`Group::plan`].
    pub(crate) fn plan_settled<E: From<Error> + Display>(
        &self,
        wanted: std::result::Result<Wanted, E>,
    ) -> std::result::Result<GroupPlan, E> {
        let local = wanted.and_then(|wanted| Ok((self.check(&wanted)?, wanted)));
        let facts = local.as_ref().map_or([("", 0); 21], |(_, wanted)| facts(wanted));
        let ((rate, mut data), wanted) = self.settle(local, &facts)?;
        let Wanted { problem, distribution, .. } = wanted;
        let spans = cut::parts(&problem, distribution, &self.gathered(rate)?);
        let parts: Vec<GroupPart> = spans.iter().map(|&spans| part(&problem, distribution, spans)).collect();
        self.distribute(&problem, distribution, &spans, &mut data)?;
        let work = self.work(&problem, distribution, &spans, &data).map_err(E::from);
        let (work, state) = self.settle(work, &[])?;
        let (group, state) = (self.clone(), Mutex::new(state));
        Ok(GroupPlan(Arc::new(Inner { group, problem, parts, work, state })))
    }

    /// Checks this rank's arguments. Returns its weight, and memory with the weights and the bias, or for them.
    fn check(&self, wanted: &Wanted) -> Result<(f64, Vec<f32>)> {
        let (problem, (weights, bias)) = (&wanted.problem, wanted.data);
        if !problem.sizes().is_plain() {
            let what = "a convolution over ranks whose arrays are not in NCHW and OIHW".to_owned();
            return Err(Error::Unsupported { device: self.device().id().to_owned(), what });
        }
        let rate = match wanted.weight {
            Weight::Equal => 1.0,
            Weight::Given(weight) if weight > 0.0 && weight.is_finite() => weight,
            Weight::Given(weight) => return Err(Error::invalid("weight", weight, "a positive number")),
            Weight::Measured if problem.is_empty() => 1.0,
            Weight::Measured => {
                let predicted = self.device().predictions(problem).into_iter();
                let fastest = predicted.filter_map(|it| it.seconds.ok()).fold(f64::INFINITY, f64::min);
                if fastest.is_infinite() {
                    let what = "a prediction for a measured weight".to_owned();
                    return Err(Error::Unsupported { device: self.device().id().to_owned(), what });
                }
                1.0 / fastest.max(1e-9)
            }
        };
        let bias_len = if problem.bias() { problem.sizes().k } else { 0 };
        let len = problem.weights_len() + bias_len;
        if self.rank() > 0 {
            let len = if wanted.distribution == Distribution::Channels { 0 } else { len };
            return Ok((rate, allocate::zeroed(len, "the weights of a group's plan")?));
        }
        problem.check_weights(weights, bias)?;
        let mut data = allocate::with_capacity(len, "the weights of a group's plan")?;
        data.extend_from_slice(weights);
        data.extend_from_slice(bias.unwrap_or_default());
        Ok((rate, data))
    }

    /// The weights of all ranks. Collective.
    fn gathered(&self, rate: f64) -> Result<Vec<f64>> {
        let mut bits = allocate::zeroed::<i64>(self.ranks(), "the ranks' weights")?;
        // The bits of positive numbers are ordered like the numbers, and above zero.
        bits[self.rank()] = rate.to_bits() as i64;
        self.transport()?.agree(&mut bits)?;
        Ok(bits.into_iter().map(|bits| f64::from_bits(bits as u64)).collect())
    }

    /// Sends the ranks what they need of `data`, the weights and the bias. Collective.
    fn distribute(
        &self,
        problem: &Conv2d,
        distribution: Distribution,
        spans: &[(Span, Span)],
        data: &mut Vec<f32>,
    ) -> Result<()> {
        if distribution != Distribution::Channels {
            return if self.ranks() == 1 { Ok(()) } else { self.transport()?.broadcast(0, data) };
        }
        // No rank waits for weights that another one has no memory for.
        let exchange = self.settle(self.weight_messages(problem, spans, data), &[])?;
        let mut transport = self.transport()?;
        let started = transport.start(exchange)?;
        let exchange = transport.finish(started)?;
        if let Some(message) = exchange.receives.into_iter().next() {
            *data = message.data;
        }
        Ok(())
    }

    /// The messages by which each rank gets the weights and the bias of its output channels.
    fn weight_messages(&self, problem: &Conv2d, spans: &[(Span, Span)], data: &[f32]) -> Result<Exchange> {
        let (with_bias, purpose) = (usize::from(problem.bias()), "the weights of a group's plan");
        let message = |rank: usize, data| Message { rank, tag: WEIGHTS, data };
        let mut exchange = Exchange::default();
        if self.rank() > 0 {
            let len = spans[self.rank()].1.count * (problem.reduction() + with_bias);
            exchange.receives.push(message(0, allocate::zeroed(len, purpose)?));
            return Ok(exchange);
        }
        let (weights, bias) = data.split_at(problem.weights_len());
        for (rank, &(_, Span { first, count })) in spans.iter().enumerate().skip(1) {
            let mut part = allocate::with_capacity(count * (problem.reduction() + with_bias), purpose)?;
            part.extend_from_slice(&weights[first * problem.reduction()..][..count * problem.reduction()]);
            part.extend_from_slice(&bias[first * with_bias..][..count * with_bias]);
            allocate::push(&mut exchange.sends, message(rank, part), "messages")?;
        }
        Ok(exchange)
    }

    /// Prepares this rank's part.
    fn work(
        &self,
        problem: &Conv2d,
        distribution: Distribution,
        spans: &[(Span, Span)],
        data: &[f32],
    ) -> Result<(Work, State)> {
        let (input, output) = spans[self.rank()];
        let plan = |part: &Conv2d, data: &[f32]| {
            let (weights, bias) = data.split_at(part.weights_len());
            self.device().plan(part, weights, part.bias().then_some(bias))
        };
        let zeroed = |len: usize| allocate::zeroed::<f32>(len, "rows of a group's plan");
        let mut state = State::default();
        let work = match distribution {
            _ if problem.is_empty() => Work::Nothing,
            Distribution::Batch if output.count == 0 => Work::Nothing,
            Distribution::Batch => Work::Alone(plan(&problem.with_batch(output.count), data)?),
            Distribution::Rows if output.count == problem.sizes().p => Work::Alone(plan(problem, data)?),
            Distribution::Rows => {
                let rows = Rows::new(problem, spans, self.rank());
                let mut plans = Vec::with_capacity(rows.pieces.len());
                for piece in &rows.pieces {
                    let part = problem.with_unpadded_rows(piece.count)?;
                    let in_place = is_in_place(piece, input);
                    state.inputs.push(zeroed(if in_place { 0 } else { part.input_len() })?);
                    let alone = rows.pieces.len() == 1;
                    state.outputs.push(zeroed(if alone { 0 } else { part.output_len() })?);
                    plans.push(plan(&part, data)?);
                }
                state.exchange = Some(rows.exchange(problem)?);
                Work::Rows(rows, plans)
            }
            Distribution::Channels => {
                // Rank 0 still has all weights.
                let own = match (self.rank(), problem.bias(), output.count) {
                    (_, _, 0) => vec![],
                    (0, with_bias, count) => {
                        let (weights, bias) = data.split_at(problem.weights_len());
                        let mut own = allocate::copied(&weights[..count * problem.reduction()], "weights")?;
                        let bias = if with_bias { &bias[..count] } else { &[] };
                        allocate::append(&mut own, bias.iter().copied(), "a bias")?;
                        own
                    }
                    _ => allocate::copied(data, "weights")?,
                };
                let plan = match output.count {
                    0 => None,
                    count => Some(plan(&problem.with_channels(count), &own)?),
                };
                match (problem.sizes().groups, plan) {
                    (1, plan) if self.ranks() > 1 => {
                        let all = if plan.is_some() { problem.input_len() } else { 0 };
                        state.inputs.push(zeroed(all)?);
                        state.exchange = Some(channels(problem, spans, self.rank())?);
                        Work::Gathered(plan)
                    }
                    (_, Some(plan)) => Work::Alone(plan),
                    (_, None) => Work::Nothing,
                }
            }
        };
        Ok((work, state))
    }
}

/// Whether `piece` is computed from the rank's own rows as they lie in memory.
fn is_in_place(piece: &Piece, input: Span) -> bool {
    !piece.waits && piece.first == input.first as i64 && piece.count == input.count
}

/// What must be the same on all ranks.
fn facts(wanted: &Wanted) -> [(&'static str, i64); 21] {
    let (problem, desc) = (&wanted.problem, wanted.problem.desc());
    let algorithm = match desc.algorithm {
        Algorithm::Auto => 0,
        Algorithm::Direct => 1,
        Algorithm::Winograd => 2,
    };
    [
        ("n", desc.n),
        ("c", desc.c),
        ("h", desc.h),
        ("w", desc.w),
        ("k", desc.k),
        ("r", desc.r),
        ("s", desc.s),
        ("stride_h", desc.stride_h),
        ("stride_w", desc.stride_w),
        ("pad_h", desc.pad_h),
        ("pad_w", desc.pad_w),
        ("pad_bottom", problem.sizes().pad_bottom as i64),
        ("pad_right", problem.sizes().pad_right as i64),
        ("dilation_h", desc.dilation_h),
        ("dilation_w", desc.dilation_w),
        ("groups", desc.groups),
        ("desc.bias", desc.bias.into()),
        ("desc.relu", desc.relu.into()),
        ("algorithm", algorithm),
        ("distribution", wanted.distribution as i64),
        ("whether weights are measured", (wanted.weight == Weight::Measured).into()),
    ]
}

/// The part with these ranges.
fn part(problem: &Conv2d, distribution: Distribution, (input, output): (Span, Span)) -> GroupPart {
    let sizes = problem.sizes();
    let (inputs, outputs) = match distribution {
        Distribution::Batch => (sizes.c * sizes.h * sizes.w, sizes.k * sizes.p * sizes.q),
        Distribution::Rows => (sizes.n * sizes.c * sizes.w, sizes.n * sizes.k * sizes.q),
        Distribution::Channels => (sizes.n * sizes.h * sizes.w, sizes.n * sizes.p * sizes.q),
    };
    GroupPart { input, output, input_len: input.count * inputs, output_len: output.count * outputs }
}

/// The messages by which all ranks get the input channels of all.
fn channels(problem: &Conv2d, spans: &[(Span, Span)], rank: usize) -> Result<Exchange> {
    let each = problem.sizes().n * problem.sizes().h * problem.sizes().w;
    let (input, output) = spans[rank];
    let mut exchange = Exchange::default();
    for (other, &(others, outputs)) in spans.iter().enumerate().filter(|(other, _)| *other != rank) {
        let message = |channels: Span| -> Result<Message> {
            let data = allocate::zeroed(channels.count * each, "input channels")?;
            Ok(Message { rank: other, tag: CHANNELS, data })
        };
        if input.count > 0 && outputs.count > 0 {
            allocate::push(&mut exchange.sends, message(input)?, "messages")?;
        }
        if others.count > 0 && output.count > 0 {
            allocate::push(&mut exchange.receives, message(others)?, "messages")?;
        }
    }
    Ok(exchange)
}

impl GroupPlan {
    /// The whole convolution.
    pub fn problem(&self) -> &Conv2d {
        &self.0.problem
    }

    /// This rank, from 0.
    pub fn rank(&self) -> usize {
        self.0.group.rank()
    }

    /// What this rank holds.
    pub fn part(&self) -> GroupPart {
        self.0.parts[self.0.group.rank()]
    }

    /// What all ranks hold.
    pub fn parts(&self) -> &[GroupPart] {
        &self.0.parts
    }

    /// Convolves the ranks' inputs: this rank passes its part and receives its part. Collective.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a buffer of the wrong length, and [`Error::OtherRank`] on the other ranks; the
    /// device's failure, on this rank only; [`Error::Transport`]. The output is then untouched.
    pub fn run(&self, input: &[f32], output: &mut [f32]) -> Result<Run> {
        self.run_settled::<Error>(Ok((input, output)))
    }

    /// As [`GroupPlan::run`], for arguments that may be wrong already.
    ///
    /// # Errors
    /// As [`GroupPlan::run`].
    pub(crate) fn run_settled<E: From<Error> + Display>(
        &self,
        buffers: std::result::Result<(&[f32], &mut [f32]), E>,
    ) -> std::result::Result<Run, E> {
        let mut state = self.state();
        let local = buffers.and_then(|(input, output)| {
            exact_length("output length", output.len(), self.part().output_len)?;
            self.check_begin(&state, input)?;
            Ok((input, output))
        });
        let (input, output) = self.0.group.settle(local, &[])?;
        let state = state.as_mut().map_err(|error| error.clone())?;
        self.start(state, input)?;
        Ok(self.complete(state, input, Ok(output))?)
    }

    /// Begins a run: its messages are on their way when this returns. Collective. The caller may do other work, call
    /// [`Group::progress`] meanwhile, and then finishes the run. Only one run of a plan can be under way.
    ///
    /// # Errors
    /// As [`GroupPlan::run`]; [`Error::InUse`] if another run of the plan is under way.
    pub fn begin<'a>(&self, input: &'a [f32]) -> Result<Pending<'a>> {
        self.begin_settled::<Error>(Ok(input))?;
        Ok(Pending { plan: self.clone(), input, finished: false })
    }

    /// As [`GroupPlan::begin`], for an argument that may be wrong already.
    ///
    /// # Errors
    /// As [`GroupPlan::begin`].
    pub(crate) fn begin_settled<E: From<Error> + Display>(
        &self,
        input: std::result::Result<&[f32], E>,
    ) -> std::result::Result<(), E> {
        let mut state = self.state();
        let local = input.and_then(|input| {
            self.check_begin(&state, input)?;
            Ok(input)
        });
        let input = self.0.group.settle(local, &[])?;
        let state = state.as_mut().map_err(|error| error.clone())?;
        Ok(self.start(state, input)?)
    }

    /// Ends a run that was begun with the same input. If a buffer is wrong, the messages are received nevertheless.
    ///
    /// # Errors
    /// As [`Pending::finish`]; [`Error::InvalidArgument`] if no run was begun.
    pub(crate) fn finish_settled<E: From<Error> + Display>(
        &self,
        buffers: std::result::Result<(&[f32], &mut [f32]), E>,
    ) -> std::result::Result<Run, E> {
        let mut state = self.state()?;
        if state.begun.is_none() {
            return Err(Error::invalid("the number of begun runs", 0, "1").into());
        }
        let part = self.part();
        let buffers = buffers.and_then(|(input, output)| {
            exact_length("input length", input.len(), part.input_len)?;
            exact_length("output length", output.len(), part.output_len)?;
            Ok((input, output))
        });
        match buffers {
            Ok((input, output)) => Ok(self.complete(&mut state, input, Ok(output))?),
            Err(error) => {
                let discard = Error::Internal("no output".to_owned());
                let _ = self.complete(&mut state, &[], Err(discard));
                Err(error)
            }
        }
    }

    fn state(&self) -> Result<MutexGuard<'_, State>> {
        match self.0.state.try_lock() {
            Ok(guard) => Ok(guard),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => Err(Error::InUse { what: "the group's plan".to_owned() }),
        }
    }

    fn check_begin(&self, state: &Result<MutexGuard<'_, State>>, input: &[f32]) -> Result<()> {
        let state = state.as_ref().map_err(Clone::clone)?;
        if state.begun.is_some() {
            return Err(Error::InUse { what: "the group's plan".to_owned() });
        }
        exact_length("input length", input.len(), self.part().input_len)
    }

    /// Starts the messages of a run.
    fn start(&self, state: &mut State, input: &[f32]) -> Result<()> {
        let Inner { group, problem, work, .. } = &*self.0;
        // A run whose transport failed has lost the messages.
        if state.exchange.is_none() && matches!(work, Work::Rows(..) | Work::Gathered(_)) {
            return Err(Error::Transport {
                call: "earlier exchange".to_owned(),
                reason: "its messages were lost".to_owned(),
            });
        }
        let mut exchange = state.exchange.take();
        if let Some(exchange) = &mut exchange {
            match work {
                Work::Rows(rows, _) => rows.fill(problem, input, exchange),
                _ => exchange.sends.iter_mut().for_each(|message| message.data.copy_from_slice(input)),
            }
        }
        let started = exchange.map(|exchange| group.transport()?.start(exchange)).transpose()?;
        state.begun = Some(Begun(started));
        Ok(())
    }

    /// Receives the messages of a run.
    fn receive(&self, state: &mut State) -> Result<()> {
        if let Some(Begun(Some(started))) = state.begun.take() {
            state.exchange = Some(self.0.group.transport()?.finish(started)?);
        }
        Ok(())
    }

    /// Computes a run that was begun. The messages are received in any case.
    fn complete(&self, state: &mut State, input: &[f32], output: Result<&mut [f32]>) -> Result<Run> {
        let (Inner { problem, work, .. }, part) = (&*self.0, self.part());
        let output = match output {
            Ok(output) => output,
            Err(error) => return self.receive(state).and(Err(error)),
        };
        match work {
            Work::Nothing => {
                self.receive(state)?;
                Ok(self.0.group.idle())
            }
            Work::Alone(plan) => {
                self.receive(state)?;
                plan.run(input, output)
            }
            Work::Gathered(plan) => {
                self.receive(state)?;
                let Some(plan) = plan else { return Ok(self.0.group.idle()) };
                let State { inputs, exchange, .. } = state;
                if let Some(exchange) = exchange {
                    place_channels(problem, part.input, input, &mut inputs[0]);
                    for message in &exchange.receives {
                        let channels = self.0.parts[message.rank].input;
                        place_channels(problem, channels, &message.data, &mut inputs[0]);
                    }
                }
                plan.run(&inputs[0], output)
            }
            Work::Rows(rows, plans) => self.complete_rows(state, (rows, plans), input, output),
        }
    }

    fn complete_rows(
        &self,
        state: &mut State,
        (rows, plans): (&Rows, &[Conv2dPlan]),
        input: &[f32],
        output: &mut [f32],
    ) -> Result<Run> {
        let (problem, part) = (&self.0.problem, self.part());
        let mut runs = Vec::with_capacity(plans.len());
        let mut inner = Ok(());
        for waits in [false, true] {
            if waits {
                self.receive(state)?;
                inner.clone()?;
            }
            let State { exchange, inputs, outputs, .. } = &mut *state;
            let nothing = Exchange::default();
            let halo = exchange.as_ref().unwrap_or(&nothing);
            for (index, (piece, plan)) in rows.pieces.iter().zip(plans).enumerate() {
                if piece.waits != waits || inner.is_err() {
                    continue;
                }
                let from = match is_in_place(piece, part.input) {
                    true => input,
                    false => {
                        rows.gather(problem, piece, input, halo, &mut inputs[index]);
                        &inputs[index]
                    }
                };
                let into = if plans.len() == 1 { &mut *output } else { &mut outputs[index] };
                match plan.run(from, into) {
                    Ok(run) => runs.push(run),
                    Err(error) => inner = Err(error),
                }
            }
        }
        inner?;
        if plans.len() > 1 {
            for (piece, rows) in rows.pieces.iter().zip(&state.outputs) {
                place_rows(problem, (piece.output, rows), (part.output, output));
            }
        }
        Ok(merged(runs).unwrap_or_else(|| self.0.group.idle()))
    }
}

/// Copies `channels` of the input, of all images, to their place in the whole input.
fn place_channels(problem: &Conv2d, channels: Span, from: &[f32], to: &mut [f32]) {
    let sizes = problem.sizes();
    let image = sizes.h * sizes.w;
    if channels.count == 0 {
        return;
    }
    for (from, to) in from.chunks_exact(channels.count * image).zip(to.chunks_exact_mut(sizes.c * image)) {
        to[channels.first * image..][..from.len()].copy_from_slice(from);
    }
}

/// Copies rows of output to their place in the rank's output.
fn place_rows(problem: &Conv2d, (rows, from): (Span, &[f32]), (all, to): (Span, &mut [f32])) {
    let width = problem.sizes().q;
    let at = (rows.first - all.first) * width;
    for (from, to) in from.chunks_exact(rows.count * width).zip(to.chunks_exact_mut(all.count * width)) {
        to[at..][..from.len()].copy_from_slice(from);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The messages of a run that was never finished are still under way.
        let state = self.state.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let (Some(Begun(Some(started))), Ok(mut transport)) = (state.begun.take(), self.group.transport())
        {
            let _ = transport.finish(started);
        }
    }
}

impl Pending<'_> {
    /// Computes the rest of the run. Collective.
    ///
    /// # Errors
    /// As [`GroupPlan::run`], on this rank only. The messages have been received in any case, so other ranks go on.
    pub fn finish(mut self, output: &mut [f32]) -> Result<Run> {
        self.finished = true;
        self.plan.finish_settled::<Error>(Ok((self.input, output)))
    }
}

impl Drop for Pending<'_> {
    /// Receives the messages, and computes nothing.
    fn drop(&mut self) {
        if !self.finished {
            let dropped = Error::Internal("a run that was not finished".to_owned());
            let _ = self.plan.finish_settled::<Error>(Err(dropped));
        }
    }
}
