//! A product of matrices on the host, in the imitated card's memory: the `gemm` crate's.

use crate::base::dtype::DType;
use crate::base::host::Float;
use crate::cuda::driver::product::{Panel, Product};
use crate::emulator::{Emulator, Fault};
use half::{bf16, f16};

/// Rows that are multiplied at the least.
const LEAST_ROWS: usize = 16;

/// # Errors
/// Memory that is not allocated, or not written before it is read.
pub(super) fn run(emulator: &Emulator, product: &Product) -> Result<(), Fault> {
    let [a, b, c] = [product.a, product.b, product.c].map(|panel| panel.dtype);
    assert!(a == b && (c == a || c == DType::F32), "cuBLAS has no product of {a} and {b} in {c}");
    let [m, n, k] = product.sizes;
    let mut a = read(emulator, product.a, [m, k])?;
    let b = read(emulator, product.b, [k, n])?;
    let mut c = match product.add {
        true => read(emulator, product.c, [m, n])?,
        false => vec![0.0; m * n],
    };
    // Few rows would be multiplied in a way of their own, and their sums be others than among many.
    let rows = m.max(LEAST_ROWS);
    a.resize(rows * k, 0.0);
    c.resize(rows * n, 0.0);
    // SAFETY: each buffer is of the sizes that its shape and strides say.
    unsafe {
        gemm::gemm(
            rows,
            n,
            k,
            c.as_mut_ptr(),
            1,
            n as isize,
            product.add,
            a.as_ptr(),
            1,
            k as isize,
            b.as_ptr(),
            1,
            n as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
    for (row, numbers) in c.chunks_exact(n).take(m).enumerate() {
        emulator
            .copy_to_device(product.c.starting_at(row).address, &bytes(product.c.dtype, numbers))?;
    }
    Ok(())
}

/// Rows and columns of a panel in f32, those of the transposed one where it is transposed.
fn read(emulator: &Emulator, panel: Panel, [rows, columns]: [usize; 2]) -> Result<Vec<f32>, Fault> {
    let [lines, width] = if panel.transposed { [columns, rows] } else { [rows, columns] };
    let mut wide = vec![0.0; rows * columns];
    let mut line = vec![0u8; width * panel.dtype.size()];
    let rows_of = Panel { transposed: false, ..panel };
    for i in 0..lines {
        let from = rows_of.starting_at(i).address;
        if !emulator.written(from, line.len() as u64)? {
            return Err(Fault::unwritten(from, line.len() as u64));
        }
        emulator.copy_to_host(from, &mut line)?;
        for (j, number) in numbers(panel.dtype, &line).enumerate() {
            let at = if panel.transposed { j * columns + i } else { i * columns + j };
            wide[at] = number;
        }
    }
    Ok(wide)
}

fn numbers(dtype: DType, bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.chunks_exact(dtype.size()).map(move |b| match (dtype, b) {
        (DType::F16, &[a, b]) => f16::from_ne_bytes([a, b]).to_f32(),
        (DType::BF16, &[a, b]) => bf16::from_ne_bytes([a, b]).to_f32(),
        (_, &[a, b, c, d]) => f32::from_ne_bytes([a, b, c, d]),
        _ => f32::NAN,
    })
}

fn bytes(dtype: DType, numbers: &[f32]) -> Vec<u8> {
    let of = |x: &f32| match dtype {
        DType::F16 => <f16 as Float>::from_f32(*x).to_ne_bytes().to_vec(),
        DType::BF16 => <bf16 as Float>::from_f32(*x).to_ne_bytes().to_vec(),
        _ => x.to_ne_bytes().to_vec(),
    };
    numbers.iter().flat_map(of).collect()
}
