//! Which of a call's rows the rows at hand are, where some of a batch are worked on by themselves.

use crate::cpu::threads::SyncPtr;

/// The places of rows that follow one another among those of a whole batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places(SyncPtr<usize>);

impl Places {
    /// Every row stands where it is.
    pub(crate) const ALL: Places = Places(SyncPtr(std::ptr::null_mut()));

    /// The rows of a list.
    ///
    /// # Safety
    /// The list is there for as long as rows are asked for, and has each of them.
    pub(crate) unsafe fn of(rows: &[usize]) -> Places {
        Places(SyncPtr(rows.as_ptr().cast_mut()))
    }

    #[inline(always)]
    pub(crate) fn row(self, row: usize) -> usize {
        if self.0.get().is_null() {
            return row;
        }
        // SAFETY: whoever made these of a list has vouched for each row that is asked for.
        unsafe { self.0.get().add(row).read() }
    }
}
