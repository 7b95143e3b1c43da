//! `.ARM.attributes`: what CPU and which calling convention a 32-bit ARM file was built for. What a newcomer would get wrong:
//! `e_flags` may be silent about hard float, and never tells v6 from v7: Raspbian's armhf is v6 with hard float.
//! Source: "Addenda to, and Errata in, the ABI for the Arm Architecture", sections 3.3 (encoding) and 3.4 (tags).

use serde::{Deserialize, Serialize};

/// The attributes that choose a CPU model and an ABI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ArmAttributes {
    /// `Tag_CPU_arch` (4: v5TE, 6: v6, 10: v7, 14: v8-A).
    pub cpu_arch: Option<u64>,
    /// `Tag_ABI_VFP_args`: 1 when floating-point values are passed in VFP registers (hard float).
    pub vfp_args: Option<u64>,
}

const TAG_FILE: u64 = 1;
const TAG_CPU_RAW_NAME: u64 = 4;
const TAG_CPU_NAME: u64 = 5;
const TAG_CPU_ARCH: u64 = 6;
const TAG_ABI_VFP_ARGS: u64 = 28;
const TAG_COMPATIBILITY: u64 = 32;

/// Reads the section. `None`: not in the form of version 'A', or nothing of ARM's own vendor `aeabi` in it.
pub(super) fn parse(section: &[u8], little: bool) -> Option<ArmAttributes> {
    let mut rest = section.strip_prefix(b"A")?;
    while !rest.is_empty() {
        let (vendor, next) = sized(rest, 0, little)?;
        rest = next;
        if let Some(body) = vendor.strip_prefix(b"aeabi\0") {
            return file_attributes(body, little);
        }
    }
    None
}

/// Of the sub-subsections (file, section, symbol) the one for the whole file counts.
fn file_attributes(mut rest: &[u8], little: bool) -> Option<ArmAttributes> {
    while !rest.is_empty() {
        let (tag, after_tag) = uleb(rest)?;
        let (body, next) = sized(after_tag, rest.len() - after_tag.len(), little)?;
        rest = next;
        if tag == TAG_FILE {
            return pairs(body);
        }
    }
    None
}

fn pairs(mut rest: &[u8]) -> Option<ArmAttributes> {
    let mut found = ArmAttributes::default();
    while !rest.is_empty() {
        let (tag, next) = uleb(rest)?;
        rest = next;
        // Tags above 32 take text when they are odd, a number when they are even; 32 takes both.
        let (number, text) = match tag {
            TAG_CPU_RAW_NAME | TAG_CPU_NAME => (false, true),
            TAG_COMPATIBILITY => (true, true),
            1..TAG_COMPATIBILITY => (true, false),
            _ => (tag % 2 == 0, tag % 2 == 1),
        };
        if number {
            let (value, next) = uleb(rest)?;
            rest = next;
            match tag {
                TAG_CPU_ARCH => found.cpu_arch = Some(value),
                TAG_ABI_VFP_ARGS => found.vfp_args = Some(value),
                _ => {}
            }
        }
        if text {
            let end = rest.iter().position(|b| *b == 0)?;
            rest = &rest[end + 1..];
        }
    }
    Some(found)
}

/// A block that begins with its own length in four bytes; the length counts `before` bytes that were read already.
fn sized(bytes: &[u8], before: usize, little: bool) -> Option<(&[u8], &[u8])> {
    let (length, _) = bytes.split_first_chunk::<4>()?;
    let length = if little { u32::from_le_bytes(*length) } else { u32::from_be_bytes(*length) };
    let length = usize::try_from(length).ok()?.checked_sub(before)?;
    // A length below its own four bytes would make no headway.
    if length < 4 || length > bytes.len() {
        return None;
    }
    Some((&bytes[4..length], &bytes[length..]))
}

/// An unsigned LEB128 number.
fn uleb(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (at, byte) in bytes.iter().enumerate().take(9) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[at + 1..]));
        }
    }
    None
}
