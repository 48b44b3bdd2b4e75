//! Products by AMX: tiles of 16 × 32 times 32 × 16 bf16 numbers, four sums of 16 × 16 at once.

use crate::cpu::matrix::bf16::avx512::Avx512Bf16;
use crate::cpu::matrix::bf16::form::{Packed, Parts, SIDE};
use crate::cpu::matrix::product::Panel;
use std::arch::asm;
use std::ops::Range;

/// Exists only where the processor has AMX for bf16 and the system lets this process use it: made by
/// [`Amx::detect`] alone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Amx(Avx512Bf16);

/// What a tile is: eight of 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start: u8,
    reserved: [u8; 14],
    bytes: [u16; 16],
    rows: [u8; 16],
}

static CONFIGURATION: Configuration = Configuration {
    palette: 1,
    start: 0,
    reserved: [0; 14],
    bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// Sums of 32 rows and 32 columns.
#[repr(align(64))]
struct Sums([[f32; 2 * SIDE]; 2 * SIDE]);

impl Amx {
    pub(super) fn detect(avx512: Avx512Bf16) -> Option<Amx> {
        use std::sync::OnceLock;
        static FOUND: OnceLock<bool> = OnceLock::new();
        FOUND.get_or_init(|| processor_has() && system_grants()).then_some(Amx(avx512))
    }

    /// The products over some steps.
    ///
    /// # Safety
    /// As for [`super::multiply`]; the steps are the factors'.
    pub(super) unsafe fn multiply(
        self,
        add: bool,
        c: Panel,
        [a, b]: [Packed; 2],
        [m, n]: [usize; 2],
        steps: Range<usize>,
    ) {
        let mut sums = Sums([[0.0; 2 * SIDE]; 2 * SIDE]);
        // SAFETY: the processor has tiles and the process may use them, as `self` exists; the
        // configuration is a legal one. Tiles are this thread's alone, and no other code has any.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const CONFIGURATION, options(nostack, readonly));
        }
        let [down, across] = [m, n].map(|len| len.div_ceil(2 * SIDE));
        for block in 0..down * across {
            // The larger of two factors is brought from afar but once: of two parts the left, which there are few rows of.
            let (row, column) = match a.parts {
                Parts::One => (block % down, block / down),
                Parts::Two => (block / across, block % across),
            };
            let [row, column] = [row, column].map(|at| at * 2 * SIDE);
            let (rows, columns) = ((m - row).min(2 * SIDE), (n - column).min(2 * SIDE));
            // SAFETY: panels of the factors, the steps theirs; a single panel stands for its missing
            // neighbour. What is whole is stored in `c`, all else in `sums`, and added or copied from there
            // where `c` has rows and columns.
            unsafe {
                let pair = |x: Packed, at: usize, len: usize| {
                    let one = x.panel(at, steps.start);
                    [one, if len > SIDE { x.panel(at + SIDE, steps.start) } else { one }]
                };
                let of = [pair(a, row, rows), pair(b, column, columns)];
                let c = c.at(row, column);
                let whole = !add && rows == 2 * SIDE && columns == 2 * SIDE;
                let out = match whole {
                    true => (c.data.get(), c.rows),
                    false => (sums.0.as_mut_ptr().cast(), 2 * SIDE),
                };
                match a.parts {
                    Parts::One => tile(of, steps.len(), out),
                    Parts::Two => tile_of_two(of, steps.len(), out),
                }
                if !whole {
                    put(c, &sums, [rows, columns], add);
                }
            }
        }
        // SAFETY: as above; from here on no tile is in use, and a change of threads need not keep them.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// Writes, or adds, some rows and columns of the sums.
///
/// # Safety
/// `c` has them, and nobody else touches them; the processor has AVX-512.
#[target_feature(enable = "avx512f")]
unsafe fn put(c: Panel, sums: &Sums, [rows, columns]: [usize; 2], add: bool) {
    for (row, sums) in sums.0.iter().enumerate().take(rows) {
        // SAFETY: a row of `c`, which has as many: the caller's promise.
        let out = unsafe { c.row(row, columns) };
        match add {
            true => out.iter_mut().zip(sums).for_each(|(c, sum)| *c += sum),
            false => out.copy_from_slice(&sums[..columns]),
        }
    }
}

/// A loop over steps: sums from zero in tiles 0 to 3, `$body` a step, and the sums stored.
macro_rules! steps {
    ($factors:ident, $steps:ident, $out:ident, $bytes:literal, $($body:literal),+) => {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            $($body,)+
            concat!("add {a0}, ", $bytes),
            concat!("add {a1}, ", $bytes),
            "add {b0}, 1024",
            "add {b1}, 1024",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{c0} + {apart}], tmm0",
            "tilestored [{c0} + {apart} + 64], tmm1",
            "tilestored [{c1} + {apart}], tmm2",
            "tilestored [{c1} + {apart} + 64], tmm3",
            a0 = inout(reg) $factors[0][0] => _,
            a1 = inout(reg) $factors[0][1] => _,
            b0 = inout(reg) $factors[1][0] => _,
            b1 = inout(reg) $factors[1][1] => _,
            steps = inout(reg) $steps => _,
            c0 = in(reg) $out.0,
            c1 = in(reg) $out.0.wrapping_add(SIDE * $out.1),
            apart = in(reg) 4 * $out.1,
            line = in(reg) 64usize,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    };
}

/// Stores the sums of 32 rows and 32 columns at `out`, whose rows are so many elements apart.
///
/// # Safety
/// Each panel is followed by so many steps, of one KiB each, and there is one at least; `out` has those
/// elements; the tiles are configured.
unsafe fn tile(factors: [[*const u32; 2]; 2], steps: usize, out: (*mut f32, usize)) {
    // SAFETY: all memory that is loaded and stored is the caller's promise.
    unsafe {
        steps!(
            factors,
            steps,
            out,
            "1024",
            "tileloadd tmm6, [{b0} + {line}]",
            "tileloadd tmm4, [{a0} + {line}]",
            "tileloadd tmm7, [{b1} + {line}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{a1} + {line}]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7"
        );
    }
}

/// As [`tile`], with a left factor of two parts, a KiB each in turn.
///
/// # Safety
/// As for [`tile`]; the left panels have two KiB a step.
unsafe fn tile_of_two(factors: [[*const u32; 2]; 2], steps: usize, out: (*mut f32, usize)) {
    // SAFETY: all memory that is loaded and stored is the caller's promise.
    unsafe {
        steps!(
            factors,
            steps,
            out,
            "2048",
            "tileloadd tmm6, [{b0} + {line}]",
            "tileloadd tmm4, [{a0} + {line}]",
            "tileloadd tmm7, [{b1} + {line}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{a1} + {line}]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm4, [{a0} + {line} + 1024]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tileloadd tmm5, [{a1} + {line} + 1024]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7"
        );
    }
}

/// Tiles and their products of bf16 (leaf 7), and an operating system that keeps both over a change of
/// threads (bits 17 and 18 of what it has enabled).
fn processor_has() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    const OSXSAVE: u32 = 1 << 27;
    const BF16_AND_TILES: u32 = 1 << 22 | 1 << 24;
    if __cpuid(0).eax < 7 || __cpuid(1).ecx & OSXSAVE == 0 {
        return false;
    }
    let enabled: u32;
    // SAFETY: OSXSAVE says that the instruction is there and may be used.
    unsafe {
        asm!("xgetbv", in("ecx") 0, out("eax") enabled, out("edx") _, options(nomem, nostack));
    }
    __cpuid_count(7, 0).edx & BF16_AND_TILES == BF16_AND_TILES && enabled >> 17 & 3 == 3
}

/// Linux gives a process room for tiles when it is asked to.
#[cfg(target_os = "linux")]
fn system_grants() -> bool {
    const ARCH_PRCTL: usize = 158;
    const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
    const XTILEDATA: usize = 18;
    let refused: usize;
    // SAFETY: the call allows this process tiles, and touches no memory; it clobbers what it says.
    unsafe {
        asm!(
            "syscall",
            inout("rax") ARCH_PRCTL => refused,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XTILEDATA,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    refused == 0
}

#[cfg(not(target_os = "linux"))]
fn system_grants() -> bool {
    false
}
