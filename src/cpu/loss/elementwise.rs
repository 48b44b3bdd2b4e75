//! The losses of one element: which loop a formula is, and whose input it takes.

use crate::base::error::Result;
use crate::cpu::elementwise::call::Operands;
use crate::cpu::elementwise::pass::{ElementLoss, Losses, Pass, run};
use crate::cpu::loss::{
    bce, bce_with_logits, gaussian_nll, hinge_embedding, huber, js_div, kl_div, l1, mse,
    poisson_nll, sigmoid_focal, soft_margin,
};
use crate::cpu::processor::{Cpu, each_float};
use crate::cpu::simd::{Lanes, Level};
use crate::spec::elementwise::functors::each_functor;
use crate::spec::elementwise::{Call, Checked, Formula, Functor, Input};

/// The functors' dispatch, made of their table.
macro_rules! dispatch {
    ($($(#[$doc:meta])* $name:ident in $file:ident,)*) => {
        /// Does a tile.
        ///
        /// # Safety
        /// As for [`run`].
        unsafe fn of_tile<T: Lanes>(level: Level, formula: Formula, pass: Pass<T>) -> f64 {
            let Formula { functor, options } = formula;
            // SAFETY: the caller vouches for the pointers of `pass`, which goes on as it came.
            unsafe {
                match functor {
                    $(Functor::$name => run(level, $file::$name::new(options), pass),)*
                }
            }
        }
    };
}
each_functor!(dispatch);

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
