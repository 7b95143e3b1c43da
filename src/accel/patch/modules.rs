//! Where Python finds the libraries that belong to it. What a newcomer would get wrong: that is no string of C's. Python works its paths out
//! by a program of its own, which lies compiled in it: a string there has its length before it, and everything behind has its place.
//! So the directory's name grows at the expense of one that is of no use here, a name for Windows that stands a little behind it. Both are
//! constants of one function, and read one after the other: nothing points into them.
//! Sources: Modules/getpath.py ("PLATSTDLIB_LANDMARK") and Python/marshal.c (`TYPE_SHORT_ASCII`) of Python.

use super::{Unfit, Work};

/// A short text: its type, its length, its letters.
const TYPE: u8 = b'z';
/// The end of `{prefix}/lib/python3.11/lib-dynload`.
const LANDMARK: &[u8] = b"/lib-dynload";
/// What is of no use on Linux.
const SPARE: &[u8] = b"\\Modules\\Setup.local";
/// The way from there to the root.
const UP: &str = "/../../..";
/// So far behind the one the other stands at most.
const NEAR: usize = 256;

pub(super) fn apply(work: &mut Work<'_>, path: &str) -> Result<(), Unfit> {
    let cannot = |why| Err(Unfit::Modules(why));
    let path = format!("{UP}{path}");
    let Some(left) = (LANDMARK.len() + SPARE.len()).checked_sub(path.len()) else {
        return cannot("there is not so much room");
    };
    let (old, spare) = (text(LANDMARK), text(SPARE));
    let mut found = work.old.windows(old.len()).enumerate().filter(|(_, window)| *window == old).map(|(at, _)| at);
    let (Some(place), None) = (found.next(), found.next()) else { return cannot("where they are is not found once") };
    let behind = place + old.len();
    let rest = work.old.get(behind..work.old.len().min(behind + NEAR)).unwrap_or_default();
    let Some(between) = rest.windows(spare.len()).position(|window| window == spare) else {
        return cannot("nothing near has room");
    };
    let mut new = text(path.as_bytes());
    new.extend(&rest[..between]);
    new.extend(text(&SPARE[..left]));
    if !work.layout.is_data(place) {
        return cannot("it is no data");
    }
    work.write(place, &new);
    Ok(())
}

fn text(letters: &[u8]) -> Vec<u8> {
    // None is as long as 256.
    let length = u8::try_from(letters.len()).unwrap_or(u8::MAX);
    [&[TYPE, length], letters].concat()
}
