//! What comes of a call on one device.

use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::tensor::{Tensor, TensorRef};
use crate::check::call::bound::{Bound, Memory};
use crate::check::call::{Call, Role};
use crate::check::catalogue;
use crate::device::Device;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How a call ended.
#[derive(Debug, Clone)]
pub enum Ending {
    /// It did what was asked.
    Done,
    /// It returned an error; or, on device memory, kernels found one.
    Refused(Error),
    /// It panicked.
    Panicked(String),
}

/// A tensor that a call wrote or returned.
#[derive(Debug, Clone)]
pub struct Value {
    /// Its name.
    pub name: String,
    /// Type of the elements.
    pub dtype: DType,
    /// Sizes of the dimensions.
    pub shape: Vec<usize>,
    /// The elements.
    pub values: Vec<f64>,
}

/// What came of a call.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// How it ended.
    pub ending: Ending,
    /// What it wrote and returned, where it did what was asked.
    pub values: Vec<Value>,
    /// What changed and must not: padding, inputs, and where it was refused, outputs.
    pub touched: Vec<String>,
}

/// Makes the call.
pub fn run(call: &Call, device: &Device) -> Outcome {
    let caught = catch_unwind(AssertUnwindSafe(|| attempt(call, device)));
    caught.unwrap_or_else(|payload| Outcome {
        ending: Ending::Panicked(text(&*payload)),
        values: Vec::new(),
        touched: Vec::new(),
    })
}

/// What a panic says.
fn text(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default()
}

fn attempt(call: &Call, device: &Device) -> Outcome {
    let refused = |error, touched| {
        let ending = Ending::Refused(error);
        Outcome { ending, values: Vec::new(), touched }
    };
    let mut memory = match Memory::new(call, device) {
        Ok(memory) => memory,
        Err(error) => return refused(error, Vec::new()),
    };
    let before = memory.to_f64();
    let made = make(call, device, &mut memory);
    let late = device.check();
    let after = memory.to_f64();
    let (before, after) = match (before, after) {
        (Ok(before), Ok(after)) => (before, after),
        (Err(error), _) | (_, Err(error)) => return refused(error, Vec::new()),
    };
    match (made, late) {
        (Err(error), _) => refused(error, touched(call, &before, &after, true)),
        // What lies on a device was written by then.
        (Ok(_), Err(error)) => refused(error, Vec::new()),
        (Ok(results), Ok(())) => match values(call, &after, results) {
            Err(error) => refused(error, Vec::new()),
            Ok(values) => {
                let touched = touched(call, &before, &after, false);
                Outcome { ending: Ending::Done, values, touched }
            }
        },
    }
}

/// The call itself, and what it returned.
fn make(call: &Call, device: &Device, memory: &mut Memory) -> Result<Vec<(String, Tensor)>> {
    let bound = Bound::new(call, device, memory)?;
    catalogue::run(&bound)?;
    Ok(bound.results.into_inner())
}

fn same(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

/// Names of tensors whose memory is not what it was, and should be.
fn touched(call: &Call, before: &[Vec<f64>], after: &[Vec<f64>], refused: bool) -> Vec<String> {
    let mut touched = Vec::new();
    for (given, (before, after)) in call.tensors.iter().zip(before.iter().zip(after)) {
        let free = given.role != Role::Read && !refused && given.present;
        let changed = |i: usize| !same(before[i], after[i]) && (!free || given.is_padding(i));
        if (0..before.len()).any(changed) {
            touched.push(given.name.clone());
        }
    }
    touched
}

/// What was written, and what was returned.
fn values(call: &Call, after: &[Vec<f64>], results: Vec<(String, Tensor)>) -> Result<Vec<Value>> {
    let value = |name: &str, tensor: TensorRef<'_>| -> Result<Value> {
        let (dtype, shape) = (tensor.dtype(), tensor.shape().to_vec());
        Ok(Value { name: name.to_owned(), dtype, shape, values: tensor.to_f64()? })
    };
    let mut values = Vec::new();
    for (given, after) in call.tensors.iter().zip(after) {
        if given.present && matches!(given.role, Role::Written | Role::Both) {
            let host = crate::check::typed::tensor(given.dtype, &[after.len()], after)?;
            values.push(value(&given.name, host.view_as(&given.shape, given.row_stride())?)?);
        }
    }
    for (name, tensor) in &results {
        values.push(value(name, tensor.to_host()?.view())?);
    }
    Ok(values)
}
