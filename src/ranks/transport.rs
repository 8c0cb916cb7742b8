//! What ranks send each other by.

use crate::error::Result;

/// Moves data between ranks. All methods are called on the thread that calls the group.
///
/// Messages between two ranks arrive in the order in which both ranks start them, for each tag.
pub trait Transport: Send {
    /// This rank, from 0.
    fn rank(&self) -> usize;

    /// The number of ranks.
    fn ranks(&self) -> usize;

    /// Makes room for an exchange of that many messages, so that [`Transport::start`] does not lack memory for it when other
    /// ranks wait. Not collective.
    ///
    /// # Errors
    /// Out of memory.
    fn prepare(&mut self, _sends: usize, _receives: usize) -> Result<()> {
        Ok(())
    }

    /// Starts to send and to receive the messages of `exchange`, and does not wait.
    ///
    /// # Errors
    /// [`Error::Transport`](crate::Error::Transport). The exchange is then lost.
    fn start(&mut self, exchange: Exchange) -> Result<Started>;

    /// Waits until all messages of an exchange have been sent and received, and returns it.
    ///
    /// # Errors
    /// [`Error::Transport`](crate::Error::Transport). The exchange is then lost.
    fn finish(&mut self, started: Started) -> Result<Exchange>;

    /// Lets messages that are under way go on, without waiting.
    ///
    /// # Errors
    /// [`Error::Transport`](crate::Error::Transport).
    fn progress(&mut self) -> Result<()>;

    /// Copies `data` of rank `root` to `data` of all ranks, which has the same length there. Collective.
    ///
    /// # Errors
    /// [`Error::Transport`](crate::Error::Transport).
    fn broadcast(&mut self, root: usize, data: &mut [f32]) -> Result<()>;

    /// Replaces each element by its largest value on all ranks. Collective; the length is the same everywhere.
    ///
    /// # Errors
    /// [`Error::Transport`](crate::Error::Transport).
    fn agree(&mut self, values: &mut [i64]) -> Result<()>;
}

/// Messages that are sent and received at once. A transport owns them until it has finished.
#[derive(Debug, Default)]
pub struct Exchange {
    /// What this rank sends.
    pub sends: Vec<Message>,
    /// What this rank receives; the lengths are known beforehand.
    pub receives: Vec<Message>,
}

impl Exchange {
    /// Whether no message is sent or received.
    pub fn is_empty(&self) -> bool {
        self.sends.is_empty() && self.receives.is_empty()
    }
}

/// A message to or from another rank.
#[derive(Debug)]
pub struct Message {
    /// The other rank.
    pub rank: usize,
    /// Tells messages of one pair of ranks apart; below 100.
    pub tag: u32,
    /// The data.
    pub data: Vec<f32>,
}

/// The number by which a transport knows a started exchange.
#[derive(Debug, PartialEq, Eq)]
pub struct Started(pub u64);
