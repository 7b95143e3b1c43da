//! The loader, made deaf to a variable. What a newcomer would get wrong: `LD_LIBRARY_PATH` in a guest is meant for the guest's own programs. A
//! native program that obeyed it would skip libraries of another CPU, but take those of its own, and a guest that has this machine's
//! architecture as a foreign one has such, of another C library. Names of variables are compared eight bytes at a time, so the text
//! stands in an instruction. Sources: ld.so(8); elf/rtld.c of glibc ("process_envvars").

use super::{Unfit, Work};

/// `movabs rax, imm64`
const LOAD: &[u8] = &[0x48, 0xb8];
/// What is behind `LD_`: the first eight bytes of `LIBRARY_PATH`.
const NAME: &[u8; 8] = b"LIBRARY_";
/// What the loader listens to instead: nobody uses small letters there.
const OTHER: &[u8; 8] = b"library_";

pub(super) fn apply(work: &mut Work<'_>) -> Result<(), Unfit> {
    let whole = [LOAD, NAME].concat();
    let code = work.layout.loads().iter().filter(|load| load.executable);
    let mut found = code.flat_map(|load| {
        let bytes = work.old.get(load.file.clone()).unwrap_or_default();
        let places = bytes.windows(whole.len()).enumerate().filter(|(_, window)| *window == whole);
        places.map(|(at, _)| load.file.start + at + LOAD.len())
    });
    let place = found.next().ok_or(Unfit::Loader("it does not compare its name in the known way"))?;
    if found.next().is_some() {
        return Err(Unfit::Loader("it compares its name more than once"));
    }
    drop(found);
    work.write(place, OTHER);
    Ok(())
}
