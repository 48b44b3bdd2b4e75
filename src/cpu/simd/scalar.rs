//! Plain code: for machines without a known vector unit, and the yardstick for the others.

use crate::base::host::Float;
use crate::cpu::simd::vector::{HALF_ROOT, Kernel, Simd};
use half::{bf16, f16};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Scalar;

impl Simd for Scalar {
    type V = f32;
    const LANES: usize = 1;

    fn enter<K: Kernel>(self, kernel: K) -> K::Out {
        kernel.run(self)
    }
    #[inline(always)]
    fn splat(self, x: f32) -> f32 {
        x
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> f32 {
        // SAFETY: one f32 is readable by the caller's contract.
        unsafe { p.read() }
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const f16) -> f32 {
        // SAFETY: one f16 is readable by the caller's contract.
        unsafe { Float::to_f32(p.read()) }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const bf16) -> f32 {
        // SAFETY: one bf16 is readable by the caller's contract.
        unsafe { Float::to_f32(p.read()) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: f32) {
        // SAFETY: one f32 is writable by the caller's contract.
        unsafe { p.write(v) }
    }
    #[inline(always)]
    unsafe fn store_f16(self, p: *mut f16, v: f32) {
        // SAFETY: one f16 is writable by the caller's contract.
        unsafe { p.write(f16::from_f32(v)) }
    }
    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut bf16, v: f32) {
        // SAFETY: one bf16 is writable by the caller's contract.
        unsafe { p.write(bf16::from_f32(v)) }
    }
    #[inline(always)]
    fn add(self, a: f32, b: f32) -> f32 {
        a + b
    }
    #[inline(always)]
    fn sub(self, a: f32, b: f32) -> f32 {
        a - b
    }
    #[inline(always)]
    fn mul(self, a: f32, b: f32) -> f32 {
        a * b
    }
    #[inline(always)]
    fn div(self, a: f32, b: f32) -> f32 {
        a / b
    }
    /// In f64: the product is exact there, and `f32::mul_add` without the instruction is a slow
    /// library call.
    #[inline(always)]
    fn fma(self, a: f32, b: f32, c: f32) -> f32 {
        (f64::from(a) * f64::from(b) + f64::from(c)) as f32
    }
    #[inline(always)]
    fn max(self, a: f32, b: f32) -> f32 {
        if a > b { a } else { b }
    }
    #[inline(always)]
    fn min(self, a: f32, b: f32) -> f32 {
        if a < b { a } else { b }
    }
    #[inline(always)]
    fn abs(self, a: f32) -> f32 {
        a.abs()
    }
    #[inline(always)]
    fn select_eq(self, a: f32, b: f32, yes: f32, no: f32) -> f32 {
        if a == b { yes } else { no }
    }
    #[inline(always)]
    fn select_lt(self, a: f32, b: f32, yes: f32, no: f32) -> f32 {
        if a < b { yes } else { no }
    }
    #[inline(always)]
    fn low_bits_to_exponent(self, a: f32) -> f32 {
        f32::from_bits(a.to_bits() << 23)
    }
    #[inline(always)]
    fn split(self, a: f32) -> (f32, f32) {
        let bits = a.to_bits() as i32;
        let n = bits.wrapping_sub(HALF_ROOT) >> 23;
        (n as f32, f32::from_bits(bits.wrapping_sub(n << 23) as u32))
    }
    #[inline(always)]
    fn reduce_add(self, a: f32) -> f32 {
        a
    }
    #[inline(always)]
    fn reduce_max(self, a: f32) -> f32 {
        a
    }
}
