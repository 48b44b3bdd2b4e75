//! A call's tensors where they are to lie, as an op's function asks for them.

use super::{Call, Given, Role, Setpoint};
use crate::base::error::Result;
use crate::base::reduction::Reduction;
use crate::base::tensor::{Tensor, TensorMut, TensorRef};
use crate::check::typed;
use crate::device::Device;
use crate::spec::adaptive_log_softmax::AdaptiveTail;
use crate::spec::grad_output::GradOutput;
use std::cell::RefCell;

/// The memory of all tensors of a call.
#[derive(Debug)]
pub struct Memory(Vec<Tensor>);

impl Memory {
    /// On the device, or on the host.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(call: &Call, device: &Device) -> Result<Memory> {
        let place = |given: &Given| -> Result<Tensor> {
            let host = given.memory()?;
            if call.resident { device.upload(host.view()) } else { Ok(host) }
        };
        Ok(Memory(call.tensors.iter().map(place).collect::<Result<_>>()?))
    }

    /// Every tensor's memory as numbers, padding included.
    ///
    /// # Errors
    /// What kernels found on the device.
    pub fn to_f64(&self) -> Result<Vec<Vec<f64>>> {
        self.0.iter().map(|tensor| tensor.to_host()?.view().to_f64()).collect()
    }
}

/// A call bound to memory and a device.
#[derive(Debug)]
pub struct Bound<'a> {
    /// The call.
    pub call: &'a Call,
    /// Where it is made.
    pub device: &'a Device,
    read: Vec<(&'a str, TensorRef<'a>)>,
    written: RefCell<Vec<(&'a str, TensorMut<'a>)>>,
    consumed: RefCell<Vec<(&'a str, Tensor)>>,
    /// What the call returned.
    pub results: RefCell<Vec<(String, Tensor)>>,
}

impl<'a> Bound<'a> {
    /// Views of the memory, as the call says.
    ///
    /// # Errors
    /// None for what is drawn here.
    pub fn new(call: &'a Call, device: &'a Device, memory: &'a mut Memory) -> Result<Bound<'a>> {
        let (mut read, mut written, mut consumed) = (Vec::new(), Vec::new(), Vec::new());
        for (given, tensor) in call.tensors.iter().zip(&mut memory.0) {
            let (name, stride) = (given.name.as_str(), given.row_stride());
            match given.role {
                _ if !given.present => {}
                Role::Read => read.push((name, tensor.view_as(&given.shape, stride)?)),
                Role::Written | Role::Both => {
                    written.push((name, tensor.view_as_mut(&given.shape, stride)?));
                }
                Role::Consumed => {
                    let mut values = given.memory()?.view().to_f64()?;
                    values.truncate(given.shape.iter().product());
                    let host = typed::tensor(given.dtype, &given.shape, &values)?;
                    let resident = call.resident.then(|| device.upload(host.view())).transpose()?;
                    consumed.push((name, resident.unwrap_or(host)));
                }
            }
        }
        Ok(Bound {
            call,
            device,
            read,
            written: RefCell::new(written),
            consumed: RefCell::new(consumed),
            results: RefCell::default(),
        })
    }

    /// A call of these tensors, which are read.
    #[cfg(feature = "cli")]
    pub fn of(
        call: &'a Call,
        device: &'a Device,
        read: Vec<(&'a str, TensorRef<'a>)>,
    ) -> Bound<'a> {
        let (written, consumed, results) = Default::default();
        Bound { call, device, read, written, consumed, results }
    }

    /// A tensor that is read, where it is there; one that is written has its like here too once a
    /// reference asks.
    pub fn optional(&self, name: &str) -> Option<TensorRef<'a>> {
        self.read.iter().find(|(own, _)| *own == name).map(|(_, tensor)| *tensor)
    }

    /// A tensor that is read.
    ///
    /// # Panics
    /// Where the op's drawing did not give it.
    pub fn tensor(&self, name: &str) -> TensorRef<'a> {
        self.optional(name).unwrap_or_else(|| panic!("{name} was not drawn to be read"))
    }

    /// A tensor that is written, where it is there; once.
    pub fn optional_out(&self, name: &str) -> Option<TensorMut<'a>> {
        let mut written = self.written.borrow_mut();
        let at = written.iter().position(|(own, _)| *own == name)?;
        Some(written.swap_remove(at).1)
    }

    /// A tensor that is written; once.
    ///
    /// # Panics
    /// Where the op's drawing did not give it.
    pub fn out(&self, name: &str) -> TensorMut<'a> {
        self.optional_out(name).unwrap_or_else(|| panic!("{name} was not drawn to be written"))
    }

    /// A tensor that is given away; once.
    ///
    /// # Panics
    /// Where the op's drawing did not give it.
    pub fn consumed(&self, name: &str) -> Tensor {
        let mut consumed = self.consumed.borrow_mut();
        let at = consumed.iter().position(|(own, _)| *own == name);
        consumed.swap_remove(at.unwrap_or_else(|| panic!("{name} was not drawn to be consumed"))).1
    }

    /// An upstream gradient: the tensor of that name, or else the number.
    pub fn upstream(&self, name: &str) -> GradOutput<'a> {
        match self.optional(name) {
            Some(tensor) => GradOutput::Tensor(tensor),
            None => GradOutput::Number(self.float(name)),
        }
    }

    /// Notes a result.
    pub fn give(&self, name: &str, tensor: Tensor) {
        self.results.borrow_mut().push((name.to_owned(), tensor));
    }

    /// An option that is a number; NaN where it is not.
    pub fn number(&self, name: &str) -> f64 {
        self.optional_number(name).unwrap_or(f64::NAN)
    }

    /// An option that is a number or nothing.
    pub fn optional_number(&self, name: &str) -> Option<f64> {
        match self.call.setting(name) {
            Setpoint::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The same in f32.
    pub fn float(&self, name: &str) -> f32 {
        self.number(name) as f32
    }

    /// An option that is an integer or nothing.
    pub fn optional_integer(&self, name: &str) -> Option<i64> {
        match self.call.setting(name) {
            Setpoint::Integer(integer) => Some(*integer),
            _ => None,
        }
    }

    /// An option that is an integer, else 0.
    pub fn integer(&self, name: &str) -> i64 {
        self.optional_integer(name).unwrap_or(0)
    }

    /// The same as a count, nothing below 0.
    pub fn count(&self, name: &str) -> usize {
        usize::try_from(self.integer(name)).unwrap_or(0)
    }

    /// An option that is set or not.
    pub fn flag(&self, name: &str) -> bool {
        *self.call.setting(name) == Setpoint::Flag(true)
    }

    /// An option of several counts, or nothing.
    pub fn list(&self, name: &str) -> Option<Vec<usize>> {
        match self.call.setting(name) {
            Setpoint::List(list) => Some(list.clone()),
            _ => None,
        }
    }

    /// An option that is a word.
    pub fn word(&self, name: &str) -> &'static str {
        match self.call.setting(name) {
            Setpoint::Word(word) => word,
            _ => "",
        }
    }

    /// The reduction.
    pub fn reduction(&self) -> Reduction {
        match self.call.setting("reduction") {
            Setpoint::Reduction(reduction) => *reduction,
            _ => Reduction::Mean,
        }
    }

    /// An adaptive layer's tails, as many as there are, by `get`.
    pub fn tails<T>(&self, prefix: &str, get: impl Fn(&str) -> Option<T>) -> Vec<AdaptiveTail<T>> {
        let tail = |i: usize| {
            let [projection, weight] = [0, 1].map(|part| tail_name(prefix, i, part));
            Some(AdaptiveTail { projection: get(&projection)?, weight: get(&weight)? })
        };
        (0..).map_while(tail).collect()
    }
}

/// A tail's parameter by PyTorch's name.
pub fn tail_name(prefix: &str, i: usize, part: usize) -> String {
    format!("{prefix}tail.{i}.{part}.weight")
}
