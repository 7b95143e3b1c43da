//! Names made of what they stand for: the first hexadecimal digits of a SHA-256. What a newcomer would get wrong: these are names of
//! our own files and machines, no proof of content; `image::digest` is for that.

use std::fmt::Write;

/// The first `digits` hexadecimal digits (64 at most) of the SHA-256 of `of`.
pub fn of(of: &[u8], digits: usize) -> String {
    let mut hex = String::with_capacity(64);
    for byte in ring::digest::digest(&ring::digest::SHA256, of).as_ref() {
        let _ = write!(hex, "{byte:02x}");
    }
    hex.truncate(digits);
    hex
}

#[cfg(test)]
mod tests {
    #[test]
    fn as_sha256sum_says() {
        assert_eq!(super::of(b"abc", 12), "ba7816bf8f01");
        assert_eq!(super::of(b"", 64), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
