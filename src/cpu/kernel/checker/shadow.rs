//! Who accessed each element of an array last, to find accesses that nothing orders.
//!
//! Two accesses of one element by different points conflict if one of them writes, unless a barrier lies between them.
//! Barriers order the points of one workgroup alone. Workgroups run one after the other here, so it suffices to keep, for each
//! element, the last write, the first read of all, and two readers since the last barrier.

use crate::allocate;
use crate::error::Result;

const PURPOSE: &str = "the records of a check";

/// An access: the point's number from 1 (0: none), the barriers that its workgroup has passed, and the place in the
/// code.
pub type Record = [u32; 3];

/// No access.
const NONE: Record = [0; 3];

/// The point that runs, as a record, with what orders its accesses.
#[derive(Debug, Clone, Copy)]
pub struct Accessor {
    pub record: Record,
    /// Points of a workgroup; 1 if barriers order nothing.
    pub group_size: u32,
}

impl Accessor {
    fn group(&self, record: &Record) -> u32 {
        (record[0] - 1) / self.group_size
    }

    fn is_of_group(&self, record: &Record) -> bool {
        self.group(record) == self.group(&self.record)
    }

    /// Whether an access of an array that all workgroups see conflicts with the current one.
    fn conflicts(&self, record: &Record) -> bool {
        record[0] != 0
            && record[0] != self.record[0]
            && (!self.is_of_group(record) || record[1] == self.record[1])
    }

    /// Whether an access was made since the last barrier by a point of this workgroup.
    fn is_recent(&self, record: &Record) -> bool {
        record[0] != 0 && self.is_of_group(record) && record[1] == self.record[1]
    }
}

/// The records of an array.
#[derive(Debug, Default)]
pub struct Shadow {
    written: Vec<Record>,
    /// The first reader of each element. Empty for workgroup memory, which no other workgroup sees.
    first_read: Vec<Record>,
    /// Two points that read each element since the last barrier. Empty without workgroups.
    recently_read: Vec<[Record; 2]>,
    is_shared: bool,
}

impl Shadow {
    /// Records of an array in global memory. `is_read` says whether the code reads it.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub fn of_buffer(len: usize, is_read: bool, has_barriers: bool) -> Result<Self> {
        Ok(Shadow {
            written: allocate::zeroed(len, PURPOSE)?,
            first_read: allocate::zeroed(if is_read { len } else { 0 }, PURPOSE)?,
            recently_read: allocate::zeroed(if is_read && has_barriers { len } else { 0 }, PURPOSE)?,
            is_shared: false,
        })
    }

    /// Records of an array in workgroup memory.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub fn of_workgroup(len: usize) -> Result<Self> {
        Ok(Shadow {
            written: allocate::zeroed(len, PURPOSE)?,
            first_read: Vec::new(),
            recently_read: allocate::zeroed(len, PURPOSE)?,
            is_shared: true,
        })
    }

    /// Whether a record is of an earlier workgroup's memory, and so of other elements.
    fn is_stale(&self, by: &Accessor, record: &Record) -> bool {
        record[0] == 0 || (self.is_shared && !by.is_of_group(record))
    }

    /// Notes a read. Returns an access that it conflicts with.
    pub fn read(&mut self, at: usize, by: Accessor) -> Option<Record> {
        let written = *self.written.get(at)?;
        let conflict = !self.is_stale(&by, &written) && by.conflicts(&written);
        if let Some(first) = self.first_read.get_mut(at).filter(|first| **first == NONE) {
            *first = by.record;
        }
        if let Some([one, other]) = self.recently_read.get_mut(at) {
            if !by.is_recent(one) {
                (*one, *other) = (by.record, NONE);
            } else if one[0] != by.record[0] && !by.is_recent(other) {
                *other = by.record;
            }
        }
        conflict.then_some(written)
    }

    /// Notes a write. Returns an access that it conflicts with.
    pub fn write(&mut self, at: usize, by: Accessor) -> Option<Record> {
        let written = *self.written.get(at)?;
        let first = self.first_read.get(at).copied().unwrap_or(NONE);
        let recent = self.recently_read.get(at).copied().unwrap_or([NONE; 2]);
        // The first reader of all is of another workgroup if any reader before this workgroup's is.
        let is_foreign = |record: &Record| record[0] != 0 && !by.is_of_group(record);
        let conflict = if !self.is_stale(&by, &written) && by.conflicts(&written) {
            Some(written)
        } else if is_foreign(&first) {
            Some(first)
        } else {
            recent.into_iter().find(|it| by.is_recent(it) && it[0] != by.record[0])
        };
        self.written[at] = by.record;
        conflict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A point of workgroups of 4, after so many barriers.
    fn by(point: u32, phase: u32) -> Accessor {
        Accessor { record: [point + 1, phase, 7], group_size: 4 }
    }

    #[test]
    fn accesses_conflict_unless_a_barrier_orders_them() {
        // What comes first and second, whether it writes, and whether the two conflict.
        for (one, first_writes, other, second_writes, conflict) in [
            (by(0, 0), true, by(1, 0), true, true),
            (by(0, 0), true, by(1, 0), false, true),
            (by(0, 0), false, by(1, 0), true, true),
            (by(0, 0), false, by(1, 0), false, false),
            (by(0, 0), true, by(0, 0), true, false),
            (by(0, 0), true, by(1, 1), true, false),
            (by(0, 0), false, by(1, 1), true, false),
            (by(0, 0), true, by(1, 1), false, false),
            (by(0, 0), true, by(4, 1), true, true),
            (by(0, 0), false, by(4, 1), true, true),
            (by(0, 0), true, by(4, 1), false, true),
        ] {
            let mut shadow = Shadow::of_buffer(3, true, true).unwrap();
            let mut access = |by, writes| if writes { shadow.write(2, by) } else { shadow.read(2, by) };
            assert_eq!(access(one, first_writes), None);
            let expected = conflict.then_some(one.record);
            assert_eq!(access(other, second_writes), expected, "{one:?} {first_writes} {other:?}");
        }
    }

    #[test]
    fn a_reader_is_found_behind_others() {
        let mut shadow = Shadow::of_buffer(1, true, true).unwrap();
        // The writer read first itself, and two others did.
        for point in [1, 2, 3] {
            assert_eq!(shadow.read(0, by(point, 3)), None);
        }
        assert_eq!(shadow.write(0, by(1, 3)), Some(by(2, 3).record));
        // Of another workgroup, long ago.
        let mut shadow = Shadow::of_buffer(1, true, true).unwrap();
        for (point, phase) in [(0, 0), (5, 0), (6, 1)] {
            assert_eq!(shadow.read(0, by(point, phase)), None);
        }
        assert_eq!(shadow.write(0, by(6, 1)), Some(by(0, 0).record));
    }

    #[test]
    fn workgroup_memory_is_new_in_each_workgroup() {
        let mut shadow = Shadow::of_workgroup(1).unwrap();
        assert_eq!(shadow.write(0, by(0, 0)), None);
        assert_eq!(shadow.read(0, by(0, 0)), None);
        assert_eq!(shadow.write(0, by(4, 0)), None);
        assert_eq!(shadow.read(0, by(5, 0)), Some(by(4, 0).record));
        assert_eq!(shadow.write(0, by(6, 1)), None);
    }
}
