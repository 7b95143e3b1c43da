//! One question to the systemd of the guest that this process is in, over its own bus: how many of its units have failed. `systemctl` takes
//! a twentieth of an emulated guest's whole boot to say that.
//!
//! What a newcomer would get wrong: systemd talks to its own root only, and believes the kernel, not the words (SO_PEERCRED, unix(7)), which
//! knows neither user nor PID of a process outside the guest's namespaces: the one who asks has to be in all of them. And a guest of
//! another byte order answers in its own.
//! Source: the D-Bus specification, "Authentication Protocol" and "Message Protocol"; org.freedesktop.systemd1(5).

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long each step may take; a guest that is slower is asked in another way.
const PATIENCE: Duration = Duration::from_secs(2);
/// No answer of interest is longer, in bytes.
const LONGEST: usize = 64 << 10;

/// How many units have failed. Errors: systemd cannot be reached, or does not answer as the protocol says.
pub fn failed_units() -> io::Result<u32> {
    let mut stream = UnixStream::connect("/run/systemd/private")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // "0" in hexadecimal digits: whom the guest sees.
    // The question has to wait for the answer: what comes in with BEGIN is left lying in systemd's buffer.
    stream.write_all(b"\0AUTH EXTERNAL 30\r\nBEGIN\r\n")?;
    let welcome = line(&mut stream)?;
    if !welcome.starts_with("OK ") {
        return Err(io::Error::other(format!("systemd does not let us in: {welcome}")));
    }
    stream.write_all(&question())?;
    loop {
        let (kind, little, body) = message(&mut stream)?;
        match kind {
            2 => return number(little, &body),
            3 => return Err(io::Error::other("systemd refuses the question")),
            _ => {}
        }
    }
}

/// `org.freedesktop.DBus.Properties.Get("org.freedesktop.systemd1.Manager", "NFailedUnits")`, little-endian.
fn question() -> Vec<u8> {
    let mut body = Vec::new();
    for word in ["org.freedesktop.systemd1.Manager", "NFailedUnits"] {
        string(&mut body, word);
    }
    let mut fields = Vec::new();
    let texts = [
        (1, 'o', "/org/freedesktop/systemd1"),
        (2, 's', "org.freedesktop.DBus.Properties"),
        (3, 's', "Get"),
        (6, 's', "org.freedesktop.systemd1"),
    ];
    for (code, sort, text) in texts {
        pad(&mut fields, 8);
        fields.extend([code, 1, sort as u8, 0]);
        string(&mut fields, text);
    }
    pad(&mut fields, 8);
    fields.extend(b"\x08\x01g\0\x02ss\0");
    // Little-endian, a method call, no flags, version 1; the body's length; serial 1; the fields' length.
    let mut all = b"l\x01\0\x01".to_vec();
    for number in [body.len() as u32, 1, fields.len() as u32] {
        all.extend(number.to_le_bytes());
    }
    all.extend(fields);
    pad(&mut all, 8);
    all.extend(body);
    all
}

/// A string as D-Bus writes it: aligned length, bytes, NUL.
fn string(to: &mut Vec<u8>, text: &str) {
    pad(to, 4);
    to.extend((text.len() as u32).to_le_bytes());
    to.extend(text.as_bytes());
    to.push(0);
}

fn pad(to: &mut Vec<u8>, align: usize) {
    to.resize(to.len().next_multiple_of(align), 0);
}

/// A line of the authentication, without its end.
fn line(from: &mut impl Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n") {
        if bytes.len() > 512 {
            return Err(io::Error::other("systemd's answer has no end"));
        }
        let mut byte = [0];
        from.read_exact(&mut byte)?;
        bytes.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

/// The next message: its type, whether it is little-endian, and its body.
fn message(from: &mut impl Read) -> io::Result<(u8, bool, Vec<u8>)> {
    let mut head = [0; 16];
    from.read_exact(&mut head)?;
    let little = head[0] == b'l';
    let (body, fields) = (word(little, &head[4..8]) as usize, word(little, &head[12..16]) as usize);
    let before = fields.saturating_add(7) / 8 * 8;
    if before.saturating_add(body) > LONGEST {
        return Err(io::Error::other("systemd's answer is too long"));
    }
    let mut rest = vec![0; before + body];
    from.read_exact(&mut rest)?;
    Ok((head[1], little, rest.split_off(before)))
}

/// The number in a body that is one variant of a `u`.
fn number(little: bool, body: &[u8]) -> io::Result<u32> {
    match body {
        [1, b'u', 0, _, value @ ..] if value.len() == 4 => Ok(word(little, value)),
        _ => Err(io::Error::other("systemd's answer is no number")),
    }
}

fn word(little: bool, bytes: &[u8]) -> u32 {
    let bytes = bytes.try_into().unwrap_or_default();
    if little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_in_both_byte_orders() {
        let little =
            b"l\x02\x01\x01\x08\0\0\0\x05\0\0\0\x0f\0\0\0\x05\x01u\0\x01\0\0\0\x08\x01g\0\x01v\0\0\x01u\0\0\x03\0\0\0";
        let (kind, order, body) = message(&mut &little[..]).unwrap();
        assert_eq!((kind, order, number(order, &body).unwrap()), (2, true, 3));
        let big = b"B\x02\x01\x01\0\0\0\x08\0\0\0\x05\0\0\0\x08\x05\x01u\0\0\0\0\x01\x01u\0\0\0\0\0\x02";
        let (kind, order, body) = message(&mut &big[..]).unwrap();
        assert_eq!((kind, order, number(order, &body).unwrap()), (2, false, 2));
        assert!(number(true, b"\x01s\0\0\x03\0\0\0").is_err());
        assert!(
            message(&mut &b"l\x02\x01\x01\xff\xff\xff\xff\0\0\0\0\xff\xff\xff\xff"[..]).is_err(),
            "a lie about its length"
        );
    }

    #[test]
    fn the_question_is_a_whole_message() {
        let question = question();
        let (kind, little, body) = message(&mut &question[..]).unwrap();
        assert_eq!((kind, little), (1, true));
        assert_eq!((question.len() - body.len()) % 8, 0, "the body is aligned");
        assert!(body.ends_with(b"NFailedUnits\0") && body.starts_with(&32u32.to_le_bytes()));
    }
}
