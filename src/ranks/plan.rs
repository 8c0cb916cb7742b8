//! A convolution over ranks that is prepared: its runs.

use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use super::cut::Span;
use super::rows::{Piece, Rows};
use super::transport::{Exchange, Started, Transport};
use super::{Group, merged};
use crate::device::{Conv2dPlan, Run};
use crate::error::{Error, Result};
use crate::problem::{Conv2d, exact_length};

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

/// A prepared convolution over the ranks of a group. Cheap to clone.
#[derive(Clone)]
pub struct GroupPlan(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) group: Group,
    pub(super) problem: Conv2d,
    pub(super) parts: Vec<GroupPart>,
    pub(super) work: Work,
    pub(super) state: Mutex<State>,
}

/// How a rank computes its part.
pub(super) enum Work {
    Nothing,
    /// From its own input alone.
    Alone(Conv2dPlan),
    Rows(Rows, Vec<Conv2dPlan>),
    /// From the input channels of all ranks.
    Gathered(Option<Conv2dPlan>),
}

/// The memory of a run.
#[derive(Default)]
pub(super) struct State {
    pub(super) begun: Option<Begun>,
    /// The messages between two runs.
    pub(super) exchange: Option<Exchange>,
    /// Inputs and outputs of the pieces that are not computed in place.
    pub(super) inputs: Vec<Vec<f32>>,
    pub(super) outputs: Vec<Vec<f32>>,
}

/// A run whose messages are under way; without a number if there are none.
pub(super) struct Begun(Option<Started>);

/// A run whose messages are under way: [`GroupPlan::begin`].
#[must_use = "a run that was begun must be finished"]
pub struct Pending<'a> {
    plan: GroupPlan,
    input: &'a [f32],
    finished: bool,
}

/// Whether `piece` is computed from the rank's own rows as they lie in memory.
pub(super) fn is_in_place(piece: &Piece, input: Span) -> bool {
    !piece.waits && piece.first == input.first as i64 && piece.count == input.count
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
        let mut transport = self.0.group.transport()?;
        let (input, output) = self.0.group.settle_on(&mut **transport, local, &[])?;
        let state = state.as_mut().map_err(|error| error.clone())?;
        self.start(&mut **transport, state, input)?;
        drop(transport);
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
        let mut transport = self.0.group.transport()?;
        let input = self.0.group.settle_on(&mut **transport, local, &[])?;
        let state = state.as_mut().map_err(|error| error.clone())?;
        Ok(self.start(&mut **transport, state, input)?)
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
        // A run whose transport failed has lost the messages.
        if state.exchange.is_none() && matches!(self.0.work, Work::Rows(..) | Work::Gathered(_)) {
            return Err(Error::Transport {
                call: "earlier exchange".to_owned(),
                reason: "its messages were lost".to_owned(),
            });
        }
        exact_length("input length", input.len(), self.part().input_len)
    }

    /// Starts the messages of a run.
    fn start(&self, transport: &mut dyn Transport, state: &mut State, input: &[f32]) -> Result<()> {
        let Inner { problem, work, .. } = &*self.0;
        let mut exchange = state.exchange.take();
        if let Some(exchange) = &mut exchange {
            match work {
                Work::Rows(rows, _) => rows.fill(problem, input, exchange),
                _ => exchange.sends.iter_mut().for_each(|message| message.data.copy_from_slice(input)),
            }
        }
        let started = exchange.map(|exchange| transport.start(exchange)).transpose()?;
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
