//! A program of its own, without a test runner: its threads had their own heaps before any test began.

#![cfg_attr(not(target_env = "gnu"), expect(dead_code, reason = "other allocators are left as they are"))]

use std::fs;
use tombolo_runtime::memory;

/// What the process has of the system, in KiB.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("a field");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("KiB")
}

/// 64 MiB in small pieces come and go, twice: here, and in a thread.
#[cfg(target_env = "gnu")]
fn main() {
    memory::one_heap();
    let before = resident();
    let hold = || {
        let pieces: Vec<Vec<u8>> = (0..4_096).map(|_| vec![1; 16 << 10]).collect();
        let most = resident();
        assert!(most > before + (60 << 10), "{before} KiB, {most} KiB: {} pieces", pieces.len());
    };
    hold();
    std::thread::scope(|scope| scope.spawn(hold).join().expect("it held them"));
    memory::give_back();
    let after = resident();
    assert!(after < before + (4 << 10), "{before} KiB before, {after} KiB after");
}

#[cfg(not(target_env = "gnu"))]
fn main() {}
