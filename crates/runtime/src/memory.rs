//! What the allocator keeps of the memory that was given back to it. For programs that hold much, now and then twice as much, as one does that
//! reads long lists, and have nobody waiting for every microsecond. With glibc's defaults such a one stays as large as it ever was: each thread
//! has a heap, and of a heap only the free end goes back to the system. Nothing here does anything where the allocator is another one.

use std::time::Duration;

/// How often what is free goes back to the system.
const AT_TIMES: Duration = Duration::from_secs(30);

/// What is at least so large, in bytes, lies outside of the heap and goes back at once. It is what glibc begins with; but it raises that to the
/// largest that was ever given back, and then the pages of a long list leave holes all over the heap.
#[cfg(target_env = "gnu")]
const LARGE: nix::libc::c_int = 128 << 10;

/// One heap for all threads: threads wait for each other where they allocate. Call it before there are threads.
pub fn one_heap() {
    #[cfg(target_env = "gnu")]
    {
        use nix::libc::{M_ARENA_MAX, M_MMAP_THRESHOLD, mallopt};
        for (option, value) in [(M_ARENA_MAX, 1), (M_MMAP_THRESHOLD, LARGE)] {
            #[expect(
                unsafe_code,
                reason = "mallopt(3) has no safe wrapper; it takes two numbers, and reads no memory of ours"
            )]
            // SAFETY: any values are allowed: what it does not know it refuses.
            let taken = unsafe { mallopt(option, value) };
            debug_assert_eq!(taken, 1, "glibc knows it");
        }
    }
}

/// Gives back to the system what is free, in the middle of the heap, too: some milliseconds for 100 MiB, in which nobody allocates.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    {
        #[expect(
            unsafe_code,
            reason = "malloc_trim(3) has no safe wrapper; it touches nothing that is in use"
        )]
        // SAFETY: it may be called at any time, by any thread.
        unsafe {
            nix::libc::malloc_trim(0);
        }
    }
}

/// Does so every 30 seconds, for as long as it is polled.
pub async fn give_back_at_times() {
    loop {
        tokio::time::sleep(AT_TIMES).await;
        give_back();
    }
}
