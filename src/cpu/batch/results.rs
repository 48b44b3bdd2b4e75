//! Where a cross entropy writes what it makes of rows.

use crate::base::error::Result;
use crate::base::reduction::Reduction;
use crate::cpu::batch::numbers::{Scaling, Sums};
use crate::cpu::processor::host_f32;
use crate::cpu::row::places::Places;
use crate::cpu::row::ranks::RankResults;
use crate::cpu::threads::SyncPtr;
use crate::spec::cross_entropy::CrossEntropyOut;

/// Where the results of rows go; null where nobody asked.
#[derive(Clone, Copy)]
pub(crate) struct Results {
    loss: SyncPtr<f32>,
    z_loss: SyncPtr<f32>,
    lse: SyncPtr<f32>,
    /// Loss without z-loss, and z-loss, in f64.
    wide: SyncPtr<[f64; 2]>,
    /// What rows' losses are multiplied by; null for 1 each.
    weight: SyncPtr<f32>,
    places: Places,
    pub(crate) ranks: RankResults,
}

impl Results {
    /// Nobody asked for any.
    pub(crate) const NONE: Results = Results {
        loss: SyncPtr(std::ptr::null_mut()),
        z_loss: SyncPtr(std::ptr::null_mut()),
        lse: SyncPtr(std::ptr::null_mut()),
        wide: SyncPtr(std::ptr::null_mut()),
        weight: SyncPtr(std::ptr::null_mut()),
        places: Places::ALL,
        ranks: RankResults::NONE,
    };

    /// Whether any are asked for row by row.
    pub(crate) fn of_rows(&self) -> bool {
        let any = [self.loss, self.z_loss, self.lse].iter().any(|out| !out.get().is_null());
        any || !self.wide.get().is_null()
    }

    /// The same with losses in f64 as well, and weights of rows.
    ///
    /// # Safety
    /// Both have an element for each row that is put, for as long as any is; nobody else touches `wide`.
    pub(crate) unsafe fn weighted(self, wide: &mut [[f64; 2]], weight: Option<&[f32]>) -> Results {
        let weight = weight.map_or(std::ptr::null_mut(), |w| w.as_ptr().cast_mut());
        Results { wide: SyncPtr(wide.as_mut_ptr()), weight: SyncPtr(weight), ..self }
    }

    /// The same for rows whose weights are not looked at.
    pub(crate) fn unweighted(self) -> Results {
        Results { weight: SyncPtr(std::ptr::null_mut()), ..self }
    }

    /// The same for rows that have these places among those of the whole.
    pub(crate) fn at(self, places: Places) -> Results {
        Results { places, ranks: self.ranks.at(places), ..self }
    }

    /// Adds to a log-sum-exp that was written.
    ///
    /// # Safety
    /// As for [`Results::put`], of any row that was put.
    pub(crate) unsafe fn shift_lse(&self, row: usize, by: f64) {
        if !self.lse.get().is_null() {
            // SAFETY: there is an element a row, and nobody else writes this one: the caller's promise.
            unsafe {
                let lse = self.lse.get().add(row);
                lse.write((f64::from(lse.read()) + by) as f32);
            }
        }
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
        let row = self.places.row(row);
        // SAFETY: weights and losses in f64 have an element a row, where there are any: the caller's promise.
        let (loss, z_loss) = unsafe { self.weigh(row, (loss, z_loss)) };
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

    /// A row's losses with its weight, which are put down in f64.
    ///
    /// # Safety
    /// As for [`Results::put`].
    #[inline(always)]
    unsafe fn weigh(&self, row: usize, (mut loss, mut z_loss): (f64, f64)) -> (f64, f64) {
        // SAFETY: pointers that are not null have an element a row: the caller's promise.
        unsafe {
            if !self.weight.get().is_null() {
                let weight = f64::from(self.weight.get().add(row).read());
                // A weight of 0 silences an infinite loss.
                // −0 is that of a class, which leaves a row that is NaN what it is.
                let silent =
                    |loss: f64| weight == 0.0 && !(weight.is_sign_negative() && loss.is_nan());
                let of = |loss: f64| if silent(loss) { 0.0 } else { weight * loss };
                (loss, z_loss) = (of(loss), of(z_loss));
            }
            if !self.wide.get().is_null() {
                self.wide.get().add(row).write([loss, z_loss]);
            }
        }
        (loss, z_loss)
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
            ..Results::NONE
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
