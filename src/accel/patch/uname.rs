//! The C library's uname(2), changed so that it speaks of another machine. What a newcomer would get wrong: programs do not ask the
//! kernel but this one function, and its way of failing must stay: the new code only makes the system call and, when that went well,
//! writes the machine's name; then it goes back to where the old one would be. Sources: uname(2); `struct utsname` of the kernel (six
//! fields of 65 bytes); System V ABI, AMD64 supplement, A.2.1 (a system call leaves all registers but rax, rcx and r11).

use super::{Unfit, Work, way};

/// A landing pad for indirect calls, where the library was built with them.
const ENDBR64: &[u8] = &[0xf3, 0x0f, 0x1e, 0xfa];
/// `mov eax, 63` (`SYS_uname`): as long as a jump.
const NUMBER: &[u8] = &[0xb8, 0x3f, 0, 0, 0];
/// `syscall`
const SYSCALL: &[u8] = &[0x0f, 0x05];
/// `cmp rax, -4095`: what comes next looks for an error.
const CHECK: &[u8] = &[0x48, 0x3d, 0x01, 0xf0, 0xff, 0xff];
/// Where `machine` is in `struct utsname`.
const MACHINE: usize = 4 * 65;

pub(super) fn apply(work: &mut Work<'_>, machine: &str) -> Result<(), Unfit> {
    let address = uname(work)?;
    let in_code = |place: &usize| work.layout.loads().iter().any(|l| l.executable && l.file.contains(place));
    let mut place = work.layout.place(address).filter(in_code).ok_or(Unfit::Uname("it is not in the file"))?;
    let code = work.old.get(place..).unwrap_or_default();
    let body = code.strip_prefix(ENDBR64).unwrap_or(code);
    let skipped = code.len() - body.len();
    if !body.starts_with(&[NUMBER, SYSCALL, CHECK].concat()) {
        return Err(Unfit::Uname("it is not written as in other C libraries"));
    }
    place += skipped;
    let start = address.wrapping_add(skipped as u64);
    // Instructions, so that they do not share a line of the cache with what was there.
    work.segment.resize(work.segment.len().next_multiple_of(16), 0xcc);
    let new = work.next_address()?;
    let back = start.wrapping_add((NUMBER.len() + SYSCALL.len()) as u64);
    let code = detour(machine, new, back)?;
    work.segment.extend(code);
    let mut jump = vec![0xe9]; // jmp new
    jump.extend(way(start.wrapping_add(5), new)?);
    work.write(place, &jump);
    Ok(())
}

/// The function's address; its names, if it has more than one, must agree.
fn uname(work: &Work<'_>) -> Result<u64, Unfit> {
    let symbols = work.layout.symbols().ok_or(Unfit::Uname("the symbols cannot be read"))?;
    let named = |name| matches!(work.layout.dynamic_string(name), Some(b"uname" | b"__uname"));
    let mut found = symbols.iter().filter(|s| named(s.name)).filter_map(|s| s.function);
    let first = found.next().ok_or(Unfit::Uname("it has none"))?;
    if found.any(|other| other != first) {
        return Err(Unfit::Uname("it has several"));
    }
    Ok(first)
}

/// The code at `new`; `back` is behind the old system call. It uses no register but those that the call destroys anyway.
fn detour(machine: &str, new: u64, back: u64) -> Result<Vec<u8>, Unfit> {
    let mut stores = Vec::new();
    let mut name = machine.as_bytes().to_vec();
    name.push(0);
    for (n, part) in name.chunks(8).enumerate() {
        let mut word = [0; 8];
        word[..part.len()].copy_from_slice(part);
        let field = u32::try_from(MACHINE + n * 8).map_err(|_| Unfit::Far)?;
        stores.extend([0x49, 0xbb]); // mov r11, imm64
        stores.extend(word);
        stores.extend([0x4c, 0x89, 0x9f]); // mov [rdi+disp32], r11
        stores.extend(field.to_le_bytes());
    }
    let mut code = [NUMBER, SYSCALL, &[0x48, 0x85, 0xc0]].concat(); // test rax, rax
    let over = u8::try_from(stores.len()).ok().filter(|n| *n < 0x80).ok_or(Unfit::Far)?;
    code.extend([0x75, over]); // jnz back
    code.extend(stores);
    code.push(0xe9); // back: jmp
    code.extend(way(new.wrapping_add(code.len() as u64 + 4), back)?);
    Ok(code)
}
