//! The few uses of bpf(2) that are needed. The structures are those of linux/bpf.h, each padded by hand, so that no byte of them is unset.

#![expect(unsafe_code, reason = "bpf(2) has no safe wrapper; its structures live for the whole call")]

use nix::libc;
use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
};

const MAP_CREATE: libc::c_int = 0;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const PROG_LOAD: libc::c_int = 5;
const LINK_CREATE: libc::c_int = 28;
const MAP_TYPE_SOCKMAP: u32 = 15;
const PROG_TYPE_SK_LOOKUP: u32 = 30;
const ATTACH_SK_LOOKUP: u32 = 36;
/// Whose functions a program may call depends on it; those that we call are anybody's.
const LICENCE: &[u8] = b"Apache-2.0\0";
const INSTRUCTION: usize = 8;
/// Room for what the kernel says of a program that it refuses.
const LOG: usize = 16 << 10;

#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
}

#[repr(C)]
struct MapUpdate {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
}

/// Descriptors are small numbers, never negative.
fn number(fd: &impl AsFd) -> u32 {
    fd.as_fd().as_raw_fd().unsigned_abs()
}

fn pointer<T>(to: &T) -> u64 {
    std::ptr::from_ref(to) as u64
}

/// Calls the kernel with one of the structures above; what they point to is borrowed by the caller for as long.
fn call<T>(command: libc::c_int, attributes: &T) -> io::Result<libc::c_int> {
    let size = u32::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: the pointer and the size are those of a value that lives for the whole call; the kernel reads it.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    libc::c_int::try_from(result).map_err(io::Error::other)
}

fn descriptor(result: libc::c_int) -> OwnedFd {
    // SAFETY: the kernel has just opened it for this call, so nobody else has it.
    unsafe { OwnedFd::from_raw_fd(result) }
}

/// A map of sockets, by numbers from zero.
pub(super) fn socket_map(entries: u32) -> io::Result<OwnedFd> {
    let wanted = MapCreate {
        map_type: MAP_TYPE_SOCKMAP,
        key_size: 4,
        value_size: 8,
        max_entries: entries,
        map_flags: 0,
    };
    call(MAP_CREATE, &wanted).map(descriptor)
}

/// Puts a listening socket into the map.
pub(super) fn put_socket(map: &impl AsFd, key: u32, socket: &impl AsFd) -> io::Result<()> {
    let value = u64::from(number(socket));
    let update =
        MapUpdate { map_fd: number(map), padding: 0, key: pointer(&key), value: pointer(&value), flags: 0 };
    call(MAP_UPDATE_ELEM, &update).map(drop)
}

/// Loads a program. Where the kernel refuses it, the error has what the kernel says of it.
pub(super) fn load(code: &[u8]) -> io::Result<OwnedFd> {
    let mut name = [0; 16];
    name[..7].copy_from_slice(b"tombolo");
    let mut log = vec![0u8; LOG];
    let mut program = ProgLoad {
        prog_type: PROG_TYPE_SK_LOOKUP,
        insn_cnt: u32::try_from(code.len() / INSTRUCTION).map_err(io::Error::other)?,
        insns: code.as_ptr() as u64,
        license: LICENCE.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name: name,
        prog_ifindex: 0,
        expected_attach_type: ATTACH_SK_LOOKUP,
    };
    let error = match call(PROG_LOAD, &program) {
        Ok(result) => return Ok(descriptor(result)),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => return Err(error),
        Err(error) => error,
    };
    (program.log_level, program.log_size) = (1, u32::try_from(LOG).map_err(io::Error::other)?);
    program.log_buf = log.as_mut_ptr() as u64;
    match call(PROG_LOAD, &program) {
        Ok(result) => Ok(descriptor(result)),
        Err(_) => {
            let said = String::from_utf8_lossy(&log);
            let said = said.trim_end_matches('\0').trim_end().replace('\n', "; ");
            Err(io::Error::new(error.kind(), format!("{error}: {said}")))
        }
    }
}

/// Attaches a program to this network namespace, until the descriptor is closed.
pub(super) fn attach(program: &impl AsFd) -> io::Result<OwnedFd> {
    let namespace = File::open("/proc/thread-self/ns/net")?;
    let link = LinkCreate {
        prog_fd: number(program),
        target_fd: number(&namespace),
        attach_type: ATTACH_SK_LOOKUP,
        flags: 0,
    };
    call(LINK_CREATE, &link).map(descriptor)
}
