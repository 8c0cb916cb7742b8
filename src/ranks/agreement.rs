//! Makes all ranks go on, or none.

use std::fmt::Display;

use super::transport::Transport;
use crate::error::{Error, Result};

/// The most facts of an agreement. All agreements have this length, so that ranks that make different calls, by mistake, still
/// understand each other.
const MAX_FACTS: usize = 24;
/// Numbers that carry the text of an error, and the bytes in each: fewer than eight, so that no number is negative.
const TEXT: usize = 64;
const TEXT_BYTES: usize = 7;

/// Tells all ranks whether this one can go on, and compares `facts`: [`Group::settle`](super::Group::settle).
pub fn settle<T, E: From<Error> + Display>(
    transport: &mut dyn Transport,
    (rank, ranks): (usize, usize),
    local: std::result::Result<T, E>,
    facts: &[(&'static str, i64)],
) -> std::result::Result<T, E> {
    debug_assert!(facts.len() <= MAX_FACTS);
    // The failure of the lowest rank is the largest number. A fact and its complement, which cannot overflow, give the
    // largest and the smallest value.
    let mut values = [0; 1 + 2 * MAX_FACTS];
    values[0] = if local.is_err() { (ranks - rank) as i64 } else { 0 };
    for (index, &(_, fact)) in facts.iter().enumerate() {
        values[1 + index] = fact;
        values[1 + MAX_FACTS + index] = !fact;
    }
    transport.agree(&mut values)?;
    if values[0] > 0 {
        let failed = ranks - values[0] as usize;
        let own = local.as_ref().err().filter(|_| failed == rank).map(E::to_string);
        let reason = text_of(transport, own.as_deref().unwrap_or_default());
        return Err(match local {
            Err(own) => own,
            Ok(_) => Error::OtherRank { rank: failed, reason: reason? }.into(),
        });
    }
    for (index, &(name, fact)) in facts.iter().enumerate() {
        let (largest, smallest) = (values[1 + index], !values[1 + MAX_FACTS + index]);
        if largest != smallest {
            let expected = format!("the same on all ranks; they have {smallest} to {largest}");
            return Err(Error::invalid(name, fact, expected).into());
        }
    }
    local
}

/// The text of the one rank that has a text. Collective.
fn text_of(transport: &mut dyn Transport, own: &str) -> Result<String> {
    let mut values = [0; TEXT];
    for (value, bytes) in values.iter_mut().zip(own.as_bytes().chunks(TEXT_BYTES)) {
        for (place, &byte) in bytes.iter().enumerate() {
            *value |= i64::from(byte) << (8 * place);
        }
    }
    transport.agree(&mut values)?;
    let mut bytes = Vec::with_capacity(TEXT * TEXT_BYTES);
    for value in values {
        bytes.extend((0..TEXT_BYTES).map(|place| (value >> (8 * place)) as u8));
    }
    bytes.retain(|&byte| byte != 0);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
