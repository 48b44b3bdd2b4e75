//! The CPU: an instruction set and a pool of threads; and host memory as its losses ask for it.

use crate::base::error::{Error, Result};
use crate::base::tensor::{TensorMut, TensorRef};
use crate::cpu::simd::Level;

/// The CPU: an instruction set and a pool of threads.
#[derive(Debug)]
pub(crate) struct Cpu {
    pub(crate) level: Level,
    /// `None`: the global pool, or the one that the caller is in.
    pub(crate) pool: Option<rayon::ThreadPool>,
}

impl Cpu {
    pub(crate) fn new() -> Cpu {
        Cpu { level: Level::detect(), pool: None }
    }

    /// One for each instruction set that the machine has.
    pub(crate) fn levels() -> Vec<Cpu> {
        Level::available().into_iter().map(|level| Cpu { level, pool: None }).collect()
    }

    pub(crate) fn with_threads(threads: usize) -> Result<Cpu> {
        let legal = threads > 0;
        crate::base::validate::value("threads", threads, legal, "at least 1")?;
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("warploss-{i}"))
            .build()
            .map_err(|e| Error::Device { reason: e.to_string() })?;
        Ok(Cpu { level: Level::detect(), pool: Some(pool) })
    }

    pub(crate) fn threads(&self) -> usize {
        match &self.pool {
            Some(pool) => pool.current_num_threads(),
            None => rayon::current_num_threads(),
        }
    }

    pub(crate) fn simd(&self) -> &'static str {
        self.level.name()
    }
}

/// Picks the typed slice of a float tensor's host data, or says which argument has none.
///
/// Shapes and dtypes were checked by the loss; what is left over is an error all the same, so
/// that no caller can make a panic of it.
macro_rules! each_float {
    ($data:expr, $argument:expr, $kind:ident, $slice:ident => $body:expr) => {
        match $data {
            Some($crate::base::host::$kind::F32($slice)) => $body,
            Some($crate::base::host::$kind::F16($slice)) => $body,
            Some($crate::base::host::$kind::BF16($slice)) => $body,
            _ => Err(crate::base::error::Error::Place {
                argument: $argument,
                expected: "host floating-point",
                got: "other",
            }),
        }
    };
}
pub(crate) use each_float;

/// The f32 slice of a host tensor, or an error that names the argument.
pub(crate) fn host_f32<'a>(tensor: TensorMut<'a>, argument: &'static str) -> Result<&'a mut [f32]> {
    tensor.into_host().ok_or(not_host_f32(argument))
}

/// A host tensor of classes or of counts of them, or an error that names the argument.
pub(crate) fn host_i64<'a>(tensor: TensorMut<'a>, argument: &'static str) -> Result<&'a mut [i64]> {
    tensor.into_host().ok_or(Error::Place { argument, expected: "host i64", got: "other" })
}

/// As [`host_f32`], shared.
pub(crate) fn host_f32_ref<'a>(tensor: TensorRef<'a>, argument: &'static str) -> Result<&'a [f32]> {
    tensor.host().ok_or(not_host_f32(argument))
}

/// The data of a host tensor, or an error that names the argument.
pub(crate) fn host_data<'a>(
    tensor: TensorRef<'a>,
    argument: &'static str,
) -> Result<crate::base::host::HostRef<'a>> {
    tensor.host_data().ok_or(Error::Place { argument, expected: "host", got: "device" })
}

fn not_host_f32(argument: &'static str) -> Error {
    Error::Place { argument, expected: "host f32", got: "other" }
}
