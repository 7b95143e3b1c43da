//! The C library's dlopen(3), changed so that one name means another file. What a newcomer would get wrong: programs are started through the
//! guest's interpreter, which runs the native one in their stead; a plugin is not started but loaded, and a native linker that is
//! given the guest's `liblto_plugin.so` could not load it. So every file of that name is ours, whoever names it. Only the
//! symbol's address is changed: no instruction moves, and the C library itself goes on calling what it called.
//! Sources: dlopen(3); elf(5), "st_value"; System V ABI, AMD64 supplement, 3.2.3 (the first argument is in rdi).

use super::{Unfit, Work, way};

/// The name, in two words as the code compares them.
pub(super) const NAME: &[u8; 16] = b"liblto_plugin.so";

pub(super) fn apply(work: &mut Work<'_>, path: &str) -> Result<(), Unfit> {
    let symbols = work.layout.symbols().ok_or(Unfit::Dlopen("the symbols cannot be read"))?;
    let named = |name| work.layout.dynamic_string(name) == Some(b"dlopen");
    let found: Vec<_> =
        symbols.iter().filter(|s| named(s.name)).filter_map(|s| Some((s.value_at, s.function?))).collect();
    let Some(&(_, old)) = found.first() else { return Err(Unfit::Dlopen("it has none")) };
    if found.iter().any(|(_, other)| *other != old) {
        return Err(Unfit::Dlopen("it has several"));
    }
    work.segment.resize(work.segment.len().next_multiple_of(16), 0xcc);
    let new = work.next_address()?;
    work.segment.extend(code(path, new, old)?);
    for (place, _) in found {
        work.write(place, &new.to_le_bytes());
    }
    Ok(())
}

/// The code at `new`: a path that ends with the name becomes `path`; then the old function, which finds its caller where it was.
fn code(path: &str, new: u64, old: u64) -> Result<Vec<u8>, Unfit> {
    #[rustfmt::skip]
    let mut code = vec![
        0xf3, 0x0f, 0x1e, 0xfa,             // endbr64
        0x48, 0x85, 0xff,                   // test rdi, rdi            NULL: the program itself
        0x74, 0x3c,                         // jz old
        0x48, 0x89, 0xf8,                   // mov rax, rdi
        0x80, 0x38, 0x00,                   // 1: cmp byte [rax], 0     its end
        0x74, 0x05,                         // je 2
        0x48, 0xff, 0xc0,                   // inc rax
        0xeb, 0xf6,                         // jmp 1
        0x48, 0x83, 0xe8, 0x10,             // 2: sub rax, 16
        0x48, 0x39, 0xf8,                   // cmp rax, rdi
        0x72, 0x26,                         // jb old
        0x48, 0xb9,                         // movabs rcx, NAME
    ];
    code.extend(&NAME[..8]);
    code.extend([0x48, 0x39, 0x08, 0x75, 0x17, 0x48, 0xb9]); // cmp [rax], rcx; jne old; movabs rcx, NAME+8
    code.extend(&NAME[8..]);
    code.extend([0x48, 0x39, 0x48, 0x08, 0x75, 0x07]); // cmp [rax+8], rcx; jne old
    code.extend([0x48, 0x8d, 0x3d, 5, 0, 0, 0]); // lea rdi, [rip+path], which stands behind the jump
    code.push(0xe9); // old: jmp
    code.extend(way(new.wrapping_add(code.len() as u64 + 4), old)?);
    code.extend(path.bytes().chain([0]));
    Ok(code)
}
