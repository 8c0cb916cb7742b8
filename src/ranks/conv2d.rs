//! Convolutions over ranks: preparing them.

use std::fmt::Display;
use std::sync::{Arc, Mutex};

use super::Group;
use super::cut::{self, Distribution, Span, Weight};
use super::plan::{GroupPart, GroupPlan, Inner, State, Work, is_in_place};
use super::rows::Rows;
use super::transport::{Exchange, Message};
use crate::allocate;
use crate::error::{Error, Result};
use crate::problem::{Algorithm, Conv2d};

/// The tags of weights and of input channels.
const WEIGHTS: u32 = 2;
const CHANNELS: u32 = 3;

/// What a plan is made from.
pub(crate) struct Wanted<'a> {
    pub problem: Conv2d,
    pub distribution: Distribution,
    pub weight: Weight,
    /// Weights and bias; read on rank 0 only.
    pub data: (&'a [f32], Option<&'a [f32]>),
}

/// A problem that is cut.
struct CutProblem {
    /// The ranges of input and output of all ranks.
    spans: Vec<(Span, Span)>,
    parts: Vec<GroupPart>,
    /// The messages with the weights, if these are cut, too.
    messages: Option<Exchange>,
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
        let ((weights, mut data), wanted) = self.settle(local, &facts)?;
        let Wanted { problem, distribution, .. } = wanted;
        let weights = self.gathered(weights)?;
        // No rank waits for weights that another one has no memory for.
        let cut = self.cut(&problem, distribution, &weights, &data).map_err(E::from);
        let CutProblem { spans, parts, messages } = self.settle(cut, &[])?;
        self.distribute(messages, &mut data)?;
        let work = self.work(&problem, distribution, &spans, &data).map_err(E::from);
        let (work, state) = self.settle(work, &[])?;
        let (group, state) = (self.clone(), Mutex::new(state));
        Ok(GroupPlan(Arc::new(Inner { group, problem, parts, work, state })))
    }

    /// Checks this rank's arguments. Returns its weight among those of all ranks, which are zero, and memory with the
    /// weights and the bias, or for them.
    fn check(&self, wanted: &Wanted) -> Result<(Vec<i64>, Vec<f32>)> {
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
        let mut rates = allocate::zeroed::<i64>(self.ranks(), "the ranks' weights")?;
        // The bits of positive numbers are ordered like the numbers, and above zero.
        rates[self.rank()] = rate.to_bits() as i64;
        let bias_len = if problem.bias() { problem.sizes().k } else { 0 };
        let len = problem.weights_len() + bias_len;
        if self.rank() > 0 {
            let len = if wanted.distribution == Distribution::Channels { 0 } else { len };
            return Ok((rates, allocate::zeroed(len, "the weights of a group's plan")?));
        }
        problem.check_weights(weights, bias)?;
        let mut data = allocate::with_capacity(len, "the weights of a group's plan")?;
        data.extend_from_slice(weights);
        data.extend_from_slice(bias.unwrap_or_default());
        Ok((rates, data))
    }

    /// The weights of all ranks, from the bits that each one has at its place. Collective.
    fn gathered(&self, mut bits: Vec<i64>) -> Result<Vec<i64>> {
        self.transport()?.agree(&mut bits)?;
        Ok(bits)
    }

    /// Cuts the problem.
    fn cut(
        &self,
        problem: &Conv2d,
        distribution: Distribution,
        weights: &[i64],
        data: &[f32],
    ) -> Result<CutProblem> {
        let weights = weights.iter().map(|&bits| Ok(f64::from_bits(bits as u64)));
        let weights = allocate::collected(weights, "the ranks' weights")?;
        let spans = cut::parts(problem, distribution, &weights)?;
        let parts = spans.iter().map(|&spans| Ok(part(problem, distribution, spans)));
        let parts = allocate::collected(parts, cut::PARTS)?;
        let messages = match distribution {
            Distribution::Channels => {
                let messages = self.weight_messages(problem, &spans, data)?;
                self.prepare(&messages)?;
                Some(messages)
            }
            _ => None,
        };
        Ok(CutProblem { spans, parts, messages })
    }

    /// Makes room in the transport for these messages.
    fn prepare(&self, messages: &Exchange) -> Result<()> {
        self.transport()?.prepare(messages.sends.len(), messages.receives.len())
    }

    /// Sends the ranks what they need of `data`, the weights and the bias: all of it, or by messages. Collective.
    fn distribute(&self, messages: Option<Exchange>, data: &mut Vec<f32>) -> Result<()> {
        let mut transport = self.transport()?;
        let Some(exchange) = messages else {
            return if self.ranks() == 1 { Ok(()) } else { transport.broadcast(0, data) };
        };
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
                let rows = Rows::new(problem, spans, self.rank())?;
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
        state.exchange.iter().try_for_each(|exchange| self.prepare(exchange))?;
        Ok((work, state))
    }
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
