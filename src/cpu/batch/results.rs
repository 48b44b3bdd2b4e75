//! Where a cross entropy writes what it makes of rows.

use crate::base::error::Result;
use crate::base::reduction::Reduction;
use crate::cpu::batch::numbers::{Scaling, Sums};
use crate::cpu::processor::host_f32;
use crate::cpu::row::ranks::RankResults;
use crate::cpu::threads::SyncPtr;
use crate::spec::cross_entropy::CrossEntropyOut;

/// Where the results of rows go; null where nobody asked.
#[derive(Clone, Copy)]
pub(crate) struct Results {
    loss: SyncPtr<f32>,
    z_loss: SyncPtr<f32>,
    lse: SyncPtr<f32>,
    pub(crate) ranks: RankResults,
}

impl Results {
    /// Whether any are asked for row by row.
    pub(crate) fn of_rows(&self) -> bool {
        [self.loss, self.z_loss, self.lse].iter().any(|out| !out.get().is_null())
    }

    /// Writes one row's results and adds them up.
    ///
    /// # Safety
    /// Each pointer is null or good for an element a row; nobody else writes this row's.
    pub(crate) unsafe fn put(
        &self,
        row: usize,
        (loss, z_loss): (f64, f64),
        lse: f32,
        sums: &mut Sums,
    ) {
        let values =
            [(self.loss, (loss + z_loss) as f32), (self.z_loss, z_loss as f32), (self.lse, lse)];
        for (out, value) in values {
            if !out.get().is_null() {
                // SAFETY: a pointer that is not null has an element a row, and this row's is
                // written by this call alone: the caller's promise.
                unsafe { out.get().add(row).write(value) };
            }
        }
        sums.loss += loss;
        sums.z_loss += z_loss;
    }
}

/// The caller's buffers for a forward pass, as slices.
pub(crate) struct Buffers<'o> {
    loss: &'o mut [f32],
    z_loss: Option<&'o mut [f32]>,
    lse: Option<&'o mut [f32]>,
    ranks: RankResults,
    /// What `ranks` points to.
    _ranks: std::marker::PhantomData<&'o mut [i64]>,
}

impl<'o> Buffers<'o> {
    pub(crate) fn new(out: CrossEntropyOut<'o>) -> Result<Buffers<'o>> {
        Ok(Buffers {
            loss: host_f32(out.loss, "loss")?,
            z_loss: out.z_loss.map(|t| host_f32(t, "z_loss")).transpose()?,
            lse: out.lse.map(|t| host_f32(t, "lse")).transpose()?,
            ranks: RankResults::new(out.argmax, out.rank)?,
            _ranks: std::marker::PhantomData,
        })
    }

    /// Where rows write: losses only for the reduction none.
    pub(crate) fn results(&mut self, reduction: Reduction) -> Results {
        let pointer = |slice: Option<&mut &'o mut [f32]>| match slice {
            Some(slice) => SyncPtr(slice.as_mut_ptr()),
            None => SyncPtr(std::ptr::null_mut()),
        };
        let per_row = reduction == Reduction::None;
        Results {
            loss: pointer(Some(&mut self.loss).filter(|_| per_row)),
            z_loss: pointer(self.z_loss.as_mut().filter(|_| per_row)),
            lse: pointer(self.lse.as_mut()),
            ranks: self.ranks,
        }
    }

    pub(crate) fn finish(&mut self, scaling: &Scaling<'_>, sums: &Sums, z_loss: bool) {
        if scaling.reduction == Reduction::None {
            return;
        }
        let (loss, part) = scaling.reduce(sums, z_loss);
        self.loss[0] = loss;
        if let Some(z_loss) = &mut self.z_loss {
            z_loss[0] = part;
        }
    }
}
