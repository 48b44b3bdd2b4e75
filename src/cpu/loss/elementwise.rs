//! The losses of one element: which loop a formula is, and whose input it takes.

use crate::base::error::Result;
use crate::cpu::elementwise::call::Operands;
use crate::cpu::elementwise::pass::{Losses, Pass, run};
use crate::cpu::loss::bce_with_logits::BceWithLogits;
use crate::cpu::loss::huber::Huber;
use crate::cpu::loss::js_div::{JsDiv, KlDivReversed};
use crate::cpu::loss::kl_div::{KlDiv, KlDivLogTarget};
use crate::cpu::loss::l1::L1;
use crate::cpu::loss::mse::Mse;
use crate::cpu::processor::{Cpu, each_float};
use crate::cpu::simd::{Lanes, Level};
use crate::spec::elementwise::{Call, Checked, Formula, Input};

/// Does a tile: the one table of losses, a row each.
///
/// # Safety
/// As for [`run`].
unsafe fn of_tile<T: Lanes>(level: Level, formula: Formula, pass: Pass<T>) -> f64 {
    // SAFETY: the caller vouches for the pointers of `pass`, which goes on as it came.
    unsafe {
        match formula {
            Formula::Mse => run(level, Mse, pass),
            Formula::L1 => run(level, L1, pass),
            Formula::Huber { threshold, divisor } => run(level, Huber { threshold, divisor }, pass),
            Formula::BceWithLogits => run(level, BceWithLogits, pass),
            Formula::KlDiv => run(level, KlDiv, pass),
            Formula::KlDivLogTarget => run(level, KlDivLogTarget, pass),
            Formula::KlDivReversed => run(level, KlDivReversed, pass),
            Formula::JsDiv { beta } => run(level, JsDiv::new(beta), pass),
        }
    }
}

impl Cpu {
    pub(crate) fn elementwise(&self, checked: &Checked<'_>, call: Call<'_>) -> Result<()> {
        let (input, operands) = Operands::of(checked, call);
        let gathered = of_tile;
        match input {
            Input::Kept(x) => each_float!(x.host_data(), "input", HostRef, x => {
                self.in_tiles(checked, x.as_ptr(), None, operands, Losses { in_place: of_tile, gathered })
            }),
            Input::Consumed(x) => each_float!(x.into_host_data(), "input", HostMut, x => {
                let x = x.as_mut_ptr();
                self.in_tiles(checked, x.cast_const(), Some(x), operands, Losses { in_place: of_tile, gathered })
            }),
        }
    }
}
