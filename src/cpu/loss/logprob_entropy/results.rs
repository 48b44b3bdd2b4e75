//! Where log-probability and entropy write what they make of rows.

use crate::base::error::Result;
use crate::cpu::processor::host_f32;
use crate::cpu::row::ranks::RankResults;
use crate::cpu::row::state::RowSum;
use crate::cpu::threads::SyncPtr;
use crate::spec::logprob_entropy::LogprobEntropyOut;

/// Where the results of rows go; null where nobody asked.
#[derive(Clone, Copy)]
pub(super) struct Results {
    logprob: SyncPtr<f32>,
    entropy: SyncPtr<f32>,
    lse: SyncPtr<f32>,
    pub(super) ranks: RankResults,
}

impl Results {
    /// The caller's buffers, borrowed by `out` for as long as rows write to them.
    pub(super) fn new(out: LogprobEntropyOut<'_>) -> Result<Results> {
        let lse = out.lse.map(|t| host_f32(t, "lse")).transpose()?;
        Ok(Results {
            logprob: SyncPtr(host_f32(out.logprob, "logprob")?.as_mut_ptr()),
            entropy: SyncPtr(host_f32(out.entropy, "entropy")?.as_mut_ptr()),
            lse: SyncPtr(lse.map_or(std::ptr::null_mut(), |s| s.as_mut_ptr())),
            ranks: RankResults::new(out.argmax, out.rank)?,
        })
    }

    /// Writes one row's results; `None` for an ignored one.
    ///
    /// # Safety
    /// Each pointer is null or good for an element a row; nobody else writes this row's.
    pub(super) unsafe fn put(&self, row: usize, sum: Option<&RowSum>) {
        let numbers = match sum {
            None => [0.0; 3],
            Some(sum) => {
                let [logprob, entropy] = sum.token();
                [logprob, entropy, sum.lse() as f32]
            }
        };
        // SAFETY: the caller's promise.
        unsafe {
            self.put_numbers(row, numbers);
            self.ranks.put(row, sum.map(|sum| &sum.standing));
        }
    }

    /// Writes log-probability, entropy and log-sum-exp of one row.
    ///
    /// # Safety
    /// As for [`Results::put`].
    pub(super) unsafe fn put_numbers(&self, row: usize, [logprob, entropy, lse]: [f32; 3]) {
        for (out, value) in [(self.logprob, logprob), (self.entropy, entropy), (self.lse, lse)] {
            if !out.get().is_null() {
                // SAFETY: a pointer that is not null has an element a row, and this row's is
                // written by this call alone: the caller's promise.
                unsafe { out.get().add(row).write(value) };
            }
        }
    }
}
