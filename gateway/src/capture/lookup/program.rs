//! The program, as the kernel takes it. It is assembled here: it is short, and so needs no compiler and no file. Pure.
//!
//! For each connection that comes in, the kernel runs it with a `struct bpf_sk_lookup` (linux/bpf.h). Where the connection is TCP and its
//! address lies in one of the prefixes, it takes the listening socket of that family from the map and assigns it; else it does nothing, and
//! the kernel looks for a socket as ever.

use ipnet::IpNet;
use std::os::fd::{AsFd, AsRawFd};

/// Offsets in `struct bpf_sk_lookup`. Addresses lie there in network byte order.
const FAMILY: i16 = 8;
const PROTOCOL: i16 = 12;
const LOCAL_IP4: i16 = 40;
const LOCAL_IP6: i16 = 44;

const AF_INET: i32 = nix::libc::AF_INET;
const AF_INET6: i32 = nix::libc::AF_INET6;
const TCP: i32 = nix::libc::IPPROTO_TCP;

/// Functions of the kernel that a program may call.
const MAP_LOOKUP_ELEM: i32 = 1;
const SK_RELEASE: i32 = 86;
const SK_ASSIGN: i32 = 124;
/// What the program returns: let the connection in.
const SK_PASS: i32 = 1;

/// The place in the map of the socket for a prefix.
pub(super) fn key_of(net: &IpNet) -> usize {
    usize::from(matches!(net, IpNet::V6(_)))
}

/// An instruction (RFC 9669): code, registers, offset, immediate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u8,
    to: u8,
    from: u8,
    offset: i16,
    immediate: i32,
}

impl Instruction {
    fn bytes(self) -> [u8; 8] {
        let [o0, o1] = self.offset.to_ne_bytes();
        let [i0, i1, i2, i3] = self.immediate.to_ne_bytes();
        // Two fields of four bits; which one is low follows the byte order.
        let registers = match cfg!(target_endian = "little") {
            true => self.to | self.from << 4,
            false => self.to << 4 | self.from,
        };
        [self.code, registers, o0, o1, i0, i1, i2, i3]
    }
}

const fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, to, from, offset, immediate }
}
/// `to = *(u32 *)(from + offset)`
const fn load(to: u8, from: u8, offset: i16) -> Instruction {
    instruction(0x61, to, from, offset, 0)
}
/// `*(u32 *)(to + offset) = from`
const fn store(to: u8, offset: i16, from: u8) -> Instruction {
    instruction(0x63, to, from, offset, 0)
}
const fn copy(to: u8, from: u8) -> Instruction {
    instruction(0xbf, to, from, 0, 0)
}
const fn set(to: u8, value: i32) -> Instruction {
    instruction(0xb7, to, 0, 0, value)
}
const fn add(to: u8, value: i32) -> Instruction {
    instruction(0x07, to, 0, 0, value)
}
/// On 32 bits: the immediate is not widened with its sign.
const fn and(to: u8, value: i32) -> Instruction {
    instruction(0x54, to, 0, 0, value)
}
const fn call(function: i32) -> Instruction {
    instruction(0x85, 0, 0, 0, function)
}
const EXIT: Instruction = instruction(0x95, 0, 0, 0, 0);

/// Where a jump leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Label {
    /// What follows prefix number N.
    Next(usize),
    Found,
    Pass,
}

enum Line {
    Do(Instruction),
    /// A jump whose offset is not known yet.
    Jump(Instruction, Label),
    Here(Label),
}

fn jump(to: Label) -> Line {
    Line::Jump(instruction(0x05, 0, 0, 0, 0), to)
}
/// On 32 bits, as [`and`].
fn jump_unless(register: u8, value: i32, to: Label) -> Line {
    Line::Jump(instruction(0x56, register, 0, 0, value), to)
}
fn jump_if_zero(register: u8, to: Label) -> Line {
    Line::Jump(instruction(0x15, register, 0, 0, 0), to)
}

/// The program for these prefixes and this map.
pub(super) fn assemble(nets: &[IpNet], map: &impl AsFd) -> Vec<u8> {
    let code = resolve(&lines(nets, map.as_fd().as_raw_fd()));
    code.into_iter().flat_map(Instruction::bytes).collect()
}

fn lines(nets: &[IpNet], map: i32) -> Vec<Line> {
    use Line::{Do, Here};
    const CONTEXT: u8 = 6;
    const STACK: u8 = 10;
    let mut all =
        vec![Do(copy(CONTEXT, 1)), Do(load(2, CONTEXT, PROTOCOL)), jump_unless(2, TCP, Label::Pass)];
    for (number, net) in nets.iter().enumerate() {
        let next = Label::Next(number);
        let (family, first, words) = match net {
            IpNet::V4(net) => (AF_INET, LOCAL_IP4, words(&net.network().octets(), &net.netmask().octets())),
            IpNet::V6(net) => (AF_INET6, LOCAL_IP6, words(&net.network().octets(), &net.netmask().octets())),
        };
        all.extend([Do(load(2, CONTEXT, FAMILY)), jump_unless(2, family, next)]);
        for (offset, (value, mask)) in (first..).step_by(4).zip(words) {
            if mask != 0 {
                all.extend([Do(load(2, CONTEXT, offset)), Do(and(2, mask)), jump_unless(2, value, next)]);
            }
        }
        let key = i32::from(key_of(net) == 1);
        all.extend([Do(set(3, key)), jump(Label::Found), Here(next)]);
    }
    all.extend([
        jump(Label::Pass),
        Here(Label::Found),
        Do(store(STACK, -4, 3)),
        // The address of the map, which the kernel puts in the place of its descriptor: two instructions long.
        Do(instruction(0x18, 1, 1, 0, map)),
        Do(instruction(0, 0, 0, 0, 0)),
        Do(copy(2, STACK)),
        Do(add(2, -4)),
        Do(call(MAP_LOOKUP_ELEM)),
        jump_if_zero(0, Label::Pass),
        Do(copy(7, 0)),
        Do(copy(1, CONTEXT)),
        Do(copy(2, 7)),
        Do(set(3, 0)),
        Do(call(SK_ASSIGN)),
        Do(copy(1, 7)),
        Do(call(SK_RELEASE)),
        Here(Label::Pass),
        Do(set(0, SK_PASS)),
        Do(EXIT),
    ]);
    all
}

/// An address and its mask in words, as the program loads them.
fn words(address: &[u8], mask: &[u8]) -> Vec<(i32, i32)> {
    let word = |bytes: &[u8]| i32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    address.chunks_exact(4).zip(mask.chunks_exact(4)).map(|(value, mask)| (word(value), word(mask))).collect()
}

/// Puts in where the jumps lead.
fn resolve(lines: &[Line]) -> Vec<Instruction> {
    let mut places = Vec::new();
    let mut count = 0i16;
    for line in lines {
        match line {
            Line::Here(label) => places.push((*label, count)),
            Line::Do(_) | Line::Jump(..) => count += 1,
        }
    }
    let place = |label: Label| places.iter().find(|(known, _)| *known == label).map_or(0, |(_, at)| *at);
    let mut code: Vec<Instruction> = Vec::new();
    for line in lines {
        match line {
            Line::Here(_) => {}
            Line::Do(instruction) => code.push(*instruction),
            Line::Jump(instruction, label) => {
                // Counted from the instruction behind it.
                let offset = place(*label) - i16::try_from(code.len()).unwrap_or(i16::MAX) - 1;
                code.push(Instruction { offset, ..*instruction });
            }
        }
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the program would do with a connection, by a small machine: `None` passes, `Some` takes the socket at this key.
    fn run(code: &[Instruction], family: i32, protocol: i32, address: &[u8]) -> Option<i32> {
        let mut context = [0u8; 64];
        let at = if family == AF_INET { LOCAL_IP4 } else { LOCAL_IP6 } as usize;
        context[FAMILY as usize..][..4].copy_from_slice(&family.to_ne_bytes());
        context[PROTOCOL as usize..][..4].copy_from_slice(&protocol.to_ne_bytes());
        context[at..at + address.len()].copy_from_slice(address);
        let (mut registers, mut next, mut key) = ([0i64; 11], 0usize, None);
        loop {
            let Instruction { code: operation, to, from, offset, immediate } = code[next];
            next += 1;
            let jump = |next: usize| (next as i64 + i64::from(offset)) as usize;
            match operation {
                0x61 => {
                    let bytes = context[offset as usize..][..4].try_into().unwrap();
                    registers[to as usize] = i64::from(u32::from_ne_bytes(bytes));
                }
                0x54 => registers[to as usize] = i64::from(registers[to as usize] as u32 & immediate as u32),
                0xb7 => registers[to as usize] = i64::from(immediate),
                0xbf => registers[to as usize] = registers[from as usize],
                0x07 => registers[to as usize] += i64::from(immediate),
                0x63 => key = Some(registers[from as usize] as i32),
                0x18 => next += 1,
                // Everything is found, and every call answers something.
                0x85 => registers[0] = 1,
                0x05 => next = jump(next),
                0x15 if registers[to as usize] == i64::from(immediate) => next = jump(next),
                0x56 if registers[to as usize] as u32 != immediate as u32 => next = jump(next),
                0x15 | 0x56 => {}
                0x95 => {
                    assert_eq!(registers[0], i64::from(SK_PASS));
                    return key;
                }
                other => panic!("{other:#x}"),
            }
        }
    }

    #[test]
    fn only_tcp_to_the_prefixes_is_taken() {
        let nets = ["240.0.0.0/4", "198.51.100.64/26", "fd74:6f6d:6265:6c6f::/64", "::/0"];
        let nets = nets.map(|net| net.parse::<IpNet>().unwrap());
        let code = resolve(&lines(&nets[..3], 5));
        let ask = |protocol, address: &str| match address.parse().unwrap() {
            std::net::IpAddr::V4(v4) => run(&code, AF_INET, protocol, &v4.octets()),
            std::net::IpAddr::V6(v6) => run(&code, AF_INET6, protocol, &v6.octets()),
        };
        for (address, key) in [
            ("240.0.0.1", Some(0)),
            ("255.255.255.254", Some(0)),
            ("239.255.255.255", None),
            ("10.0.0.1", None),
            ("198.51.100.64", Some(0)),
            ("198.51.100.127", Some(0)),
            ("198.51.100.63", None),
            ("198.51.100.128", None),
            ("fd74:6f6d:6265:6c6f::1", Some(1)),
            ("fd74:6f6d:6265:6c6f:ffff::", Some(1)),
            ("fd74:6f6d:6265:6c70::1", None),
            ("f000::1", None),
        ] {
            assert_eq!(ask(TCP, address), key, "{address}");
            assert_eq!(ask(nix::libc::IPPROTO_UDP, address), None, "{address} by UDP");
        }
        let all = resolve(&lines(&nets[3..], 5));
        assert_eq!(run(&all, AF_INET6, TCP, &[7; 16]), Some(1));
        assert_eq!(run(&all, AF_INET, TCP, &[7; 4]), None);
    }

    #[test]
    fn no_prefix_takes_nothing() {
        assert_eq!(run(&resolve(&lines(&[], 5)), AF_INET, TCP, &[240, 0, 0, 1]), None);
    }
}
