//! Classic BPF for seccomp: builds the search that maps system call numbers to decisions, and runs programs (so that tests
//! can ask ours and nspawn's the same questions). What a newcomer would get wrong: conditional jumps reach 255
//! instructions at most, so a big left half needs an unconditional jump over it; and a filter whose outcome depends only
//! on architecture and number is answered from the kernel's bitmap without being run (seccomp_is_const_allow), which is
//! why arguments are looked at in two leaves only: for `ioctl` the search now runs each time. Source: seccomp(2), Documentation/networking/filter.rst.

use libc::sock_filter;

/// Offset of `nr` in `struct seccomp_data`.
pub const NR: u32 = 0;
/// Offset of `arch`.
pub const ARCH: u32 = 4;

/// Offset of the low half of argument `index`: the kernel truncates what is an `int` to that half, so it decides.
pub const fn arg_low(index: u32) -> u32 {
    let half = if cfg!(target_endian = "big") { 4 } else { 0 };
    16 + 8 * index + half
}

const LD_W_ABS: u16 = 0x20;
const JEQ_K: u16 = 0x15;
const JGE_K: u16 = 0x35;
const JA: u16 = 0x05;
const RET_K: u16 = 0x06;

const fn stmt(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

/// `A = data[offset]`.
pub const fn load(offset: u32) -> sock_filter {
    stmt(LD_W_ABS, offset)
}

/// Ends the program with `action`.
pub const fn ret(action: u32) -> sock_filter {
    stmt(RET_K, action)
}

/// `yes` when `A == k`, else `no` follows.
pub fn if_equal(k: u32, yes: &[sock_filter], no: &[sock_filter]) -> Vec<sock_filter> {
    choose(JEQ_K, k, yes, no)
}

/// `yes` when `A >= k` (unsigned), else `no` follows.
pub fn if_at_least(k: u32, yes: &[sock_filter], no: &[sock_filter]) -> Vec<sock_filter> {
    choose(JGE_K, k, yes, no)
}

/// Both branches must end with a return.
fn choose(code: u16, k: u32, yes: &[sock_filter], no: &[sock_filter]) -> Vec<sock_filter> {
    let mut out = Vec::with_capacity(yes.len() + no.len() + 2);
    match u8::try_from(no.len()) {
        Ok(skip) => out.push(sock_filter { code, jt: skip, jf: 0, k }),
        Err(_) => {
            out.push(sock_filter { code, jt: 0, jf: 1, k });
            out.push(stmt(JA, u32::try_from(no.len()).unwrap_or(u32::MAX)));
        }
    }
    out.extend_from_slice(no);
    out.extend_from_slice(yes);
    out
}

/// A binary search over `steps` (first number, what to do from there on), sorted, the first one at 0. The number is in A.
pub fn search(steps: &[(u32, Vec<sock_filter>)]) -> Vec<sock_filter> {
    match steps {
        [] => Vec::new(),
        [(_, leaf)] => leaf.clone(),
        _ => {
            let (low, high) = steps.split_at(steps.len() / 2);
            if_at_least(high[0].0, &search(high), &search(low))
        }
    }
}

/// What a process was about to do: `struct seccomp_data`.
#[cfg(test)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Call {
    pub nr: u32,
    pub arch: u32,
    pub args: [u64; 6],
}

/// Runs a program as the kernel would; `None` for an instruction that neither we nor libseccomp use.
#[cfg(test)]
pub fn run(program: &[sock_filter], call: &Call) -> Option<u32> {
    let mut data = Vec::new();
    data.extend(call.nr.to_ne_bytes());
    data.extend(call.arch.to_ne_bytes());
    data.extend(0u64.to_ne_bytes());
    call.args.iter().for_each(|a| data.extend(a.to_ne_bytes()));
    let (mut pc, mut a) = (0, 0);
    loop {
        let i = *program.get(pc)?;
        pc += 1;
        let jump = |yes: bool| usize::from(if yes { i.jt } else { i.jf });
        match i.code {
            LD_W_ABS => {
                let at = i.k as usize;
                a = u32::from_ne_bytes(data.get(at..at + 4)?.try_into().ok()?);
            }
            JEQ_K => pc += jump(a == i.k),
            0x25 => pc += jump(a > i.k),
            JGE_K => pc += jump(a >= i.k),
            0x45 => pc += jump(a & i.k != 0),
            JA => pc += i.k as usize,
            0x54 => a &= i.k,
            RET_K => return Some(i.k),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_finds_every_step_however_long() {
        let steps: Vec<_> = (0..700u32).map(|i| (i * 2, vec![ret(i)])).collect();
        let mut program = vec![load(NR)];
        program.extend(search(&steps));
        for nr in 0..1500 {
            let call = Call { nr, ..Call::default() };
            assert_eq!(run(&program, &call), Some((nr / 2).min(699)), "{nr}");
        }
        assert!(program.iter().any(|i| i.code == JA), "the long jump was needed");
    }
}
