//! What the allocator keeps of the memory that was given back to it.

/// Lets the allocator keep little: one heap for all threads, whose end goes back to the system as soon as it is free, and pieces from 64 KiB on of
/// their own. With glibc's defaults (a heap for each thread, and a threshold that rises with the largest piece that was given back) a program that
/// now and then holds twice what it needs, as one does that reads long lists, stays that large. For programs that hold much and are asked seldom: all
/// threads wait for the one heap. Call it before there are threads. Nothing where the allocator is another one.
pub fn keep_little() {
    #[cfg(target_env = "gnu")]
    {
        use nix::libc::{M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, mallopt};
        for (option, value) in [(M_ARENA_MAX, 1), (M_TRIM_THRESHOLD, 128 << 10), (M_MMAP_THRESHOLD, 64 << 10)]
        {
            #[expect(
                unsafe_code,
                reason = "mallopt(3) has no safe wrapper; it takes two numbers, and reads no memory of ours"
            )]
            // SAFETY: any values are allowed: what it does not know it refuses.
            let taken = unsafe { mallopt(option, value) };
            debug_assert_eq!(taken, 1, "option {option} is known to glibc");
        }
    }
}
