//! What makes a struct one that a kernel is handed.

/// A struct that is handed to a kernel as it lies in memory.
///
/// # Safety
/// `repr(C)` without padding, plain numbers alone, aligned to at most 8 bytes.
pub(crate) unsafe trait Argument: Copy + 'static {}

/// The bytes of an argument.
pub(crate) fn bytes<A: Argument>(args: &A) -> &[u8] {
    // SAFETY: an `Argument` has no padding, so it is that many initialised bytes.
    unsafe { std::slice::from_raw_parts((&raw const *args).cast(), size_of::<A>()) }
}
