//! Random calls, right and wrong, on two devices: the same ending, the same message, the same values.
//!
//! A call is drawn as data (`check/call`, by its op's entry in the catalogue), made wrong in half of all
//! cases (`spoil.rs`), made on both devices (`run.rs`) and compared (`compare.rs`);
//! one that differs is made smaller as long as it still does (`shrink.rs`).

mod compare;
mod run;
mod shrink;
mod spoil;

use super::call::bound::{Bound, Memory};
use super::call::draft::Draft;
use super::call::{Call, Role};
use super::catalogue::{self, Op};
use crate::base::error::Result;
use crate::base::tensor::Tensor;
use crate::device::Device;
use run::{Ending, run};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Opens one of two devices.
pub type Open = Box<dyn Fn(usize) -> Result<Device>>;

/// Two devices side by side.
#[allow(missing_debug_implementations)] // A function that opens them has none.
pub struct Differential {
    open: Open,
    names: [String; 2],
    devices: [Device; 2],
}

/// How one call went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// Both did it, and say the same.
    Agreed,
    /// Both refused it in the same words.
    Refused,
    /// They differ.
    Differed(Box<Difference>),
}

/// A call that two devices answer differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What differs.
    pub what: String,
    /// The call as it was drawn.
    pub call: String,
    /// A smaller call that differs as well, where there is one.
    pub smaller: Option<String>,
}

impl Differential {
    /// Two devices by their names; `open` opens the first (0) or second (1), again after a panic.
    ///
    /// # Errors
    /// A device that cannot be had.
    pub fn new(names: [String; 2], open: Open) -> Result<Differential> {
        let devices = [open(0)?, open(1)?];
        Ok(Differential { open, names, devices })
    }

    /// Draws the call of that seed, makes it on both devices, and compares; one that differs is made
    /// smaller if asked to.
    ///
    /// # Errors
    /// A device that cannot be had again after a panic.
    pub fn check(&mut self, op: Op, seed: u64, shrink: bool) -> Result<Finding> {
        let call = draw(op, seed);
        let what = match self.differs(&call)? {
            Ok(finding) => return Ok(finding),
            Err(what) => what,
        };
        let mut smaller = None;
        let try_smaller = |candidate: &Call| {
            let differs = matches!(self.differs(candidate), Ok(Err(_)));
            if differs {
                smaller = Some(candidate.to_string());
            }
            differs
        };
        if shrink {
            shrink::shrink(&call, complete, try_smaller);
        }
        let call = call.to_string();
        Ok(Finding::Differed(Box::new(Difference { what, call, smaller })))
    }

    /// How the call went; what differs, in words, as an error.
    fn differs(&mut self, call: &Call) -> Result<std::result::Result<Finding, String>> {
        let outcomes = [run(call, &self.devices[0]), run(call, &self.devices[1])];
        for (i, outcome) in outcomes.iter().enumerate() {
            // What a panic left of a device is not to be trusted.
            if matches!(outcome.ending, Ending::Panicked(_)) {
                self.devices[i] = (self.open)(i)?;
            }
        }
        let [a, b] = &outcomes;
        let found = compare::difference(call, (&self.names[0], a), (&self.names[1], b));
        Ok(match (found, &a.ending) {
            (Some(what), _) => Err(what),
            (None, Ending::Done) => Ok(Finding::Agreed),
            (None, Ending::Refused(_) | Ending::Panicked(_)) => Ok(Finding::Refused),
        })
    }
}

/// The call of an op and a seed, right or wrong.
fn draw(op: Op, seed: u64) -> Call {
    let Draft { mut random, mut call, .. } = op.draft(seed);
    spoil::spoil(&mut random, &mut call);
    complete(&mut call);
    call
}

/// A hash of all that comes of the call of an op and a seed: how it ends, what it says, and every bit
/// that it writes or returns.
pub fn digest(op: Op, seed: u64, device: &Device) -> u64 {
    let call = draw(op, seed);
    let outcome = run(&call, device);
    let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
    hash.text(&format!("{:?} {:?}", outcome.ending, outcome.touched));
    for value in &outcome.values {
        hash.text(&format!("{} {} {:?}", value.name, value.dtype, value.shape));
        for x in &value.values {
            // What a NaN carries is the instruction set's affair.
            let bits = if x.is_nan() { u64::MAX } else { x.to_bits() };
            hash.text(&bits.to_string());
        }
    }
    hash.0
}

/// FNV-1a: the same on every machine and by every compiler.
struct Fnv(u64);

impl Fnv {
    fn text(&mut self, text: &str) {
        for byte in text.bytes().chain([0]) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

/// Computes on the CPU what the call reads of a call before it, if that succeeds.
fn complete(call: &mut Call) {
    let Some((name, saved)) = catalogue::of(call).calls.saved else { return };
    let Some(at) = call.tensors.iter().position(|g| g.name == name && g.role == Role::Read) else {
        return;
    };
    let of = |call: &Call| -> Result<Vec<f64>> {
        let device = Device::cpu();
        let mut host = call.clone();
        host.resident = false;
        host.tensors.iter_mut().filter(|g| g.role == Role::Both).for_each(|g| g.role = Role::Read);
        let mut memory = Memory::new(&host, &device)?;
        let tensor: Tensor = saved(&Bound::new(&host, &device, &mut memory)?)?;
        tensor.view().to_f64()
    };
    let values = catch_unwind(AssertUnwindSafe(|| of(call))).ok().and_then(Result::ok);
    call.tensors[at].values = values.unwrap_or_default();
}

/// In one line: what differs, and the smallest call that does.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "difference: {}; call: {}", self.what, self.call)?;
        match &self.smaller {
            Some(smaller) => write!(f, "; smaller: {smaller}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn every_form_of_every_op_is_called_right_and_wrong() {
        let device = Device::cpu();
        for &op in Op::ALL {
            let mut seen: HashMap<&str, [u32; 2]> = HashMap::new();
            for seed in 0..400 {
                let call = draw(op, seed);
                let [done, refused] = seen.entry(call.form).or_default();
                match run(&call, &device).ending {
                    Ending::Done => *done += 1,
                    Ending::Refused(_) => *refused += 1,
                    Ending::Panicked(text) => panic!("{call}: {text}"),
                }
            }
            // Probabilities have no rank.
            let never = |form| op == Op::SoftCrossEntropy && form == "forward_with_ranks";
            let rare = seen
                .iter()
                .find(|(form, [done, refused])| (*done < 5) != never(**form) || *refused < 2);
            assert_eq!(rare, None, "{op:?}: {seen:?}");
        }
    }

    #[test]
    fn a_seed_draws_the_same_call_again() {
        for &op in Op::ALL {
            for seed in 0..20 {
                let [a, b] = [(); 2].map(|()| format!("{:?}", draw(op, seed)));
                assert_eq!(a, b);
            }
        }
    }
}
