//! Keeping the compiler from filling the registers with what is better read from memory each time.

/// The same reference, of which the compiler forgets what it knew: loads through it are neither
/// moved to before this point nor shared with earlier ones.
#[inline(always)]
pub(crate) fn forget<T>(value: &T) -> &T {
    let mut pointer: *const T = value;
    // SAFETY: no instruction: the pointer comes out as it went in, and stays good for the borrow.
    unsafe {
        std::arch::asm!("/* {0} */", inout(reg) pointer, options(readonly, nostack, preserves_flags));
        &*pointer
    }
}
