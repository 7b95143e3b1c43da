#!/usr/bin/env python3
"""Compares the .deb files of two directories: packages.py EMULATED ACCELERATED.

ELF files must be equal but for .comment (the compiler's name) and the build-id (a hash of all the rest), all other files byte by byte.
Exit status 1 when something differs. What a newcomer would get wrong: a stripped file is laid out anew by its linker, so sections are
compared with their type, flags and address, and the program headers, not file offsets."""
import hashlib
import pathlib
import struct
import subprocess
import sys
import tempfile

IGNORED = {b".comment", b".note.gnu.build-id", b".gnu_debuglink", b".shstrtab"}


def sections(data):
    """Name, type, flags, address and content of each section, and the header's entry, type, machine, flags."""
    wide, order = data[4] == 2, "<" if data[5] == 1 else ">"
    head = struct.unpack_from(order + ("HHIQQQIHHHHHH" if wide else "HHIIIIIHHHHHH"), data, 16)
    kind, machine, _, entry, _, table, flags, _, _, _, size, count, names = head
    form = order + ("IIQQQQIIQQ" if wide else "IIIIIIIIII")
    heads = [struct.unpack_from(form, data, table + size * n) for n in range(count)]
    text = heads[names]
    strings = data[text[4]:text[4] + text[5]]
    out = {}
    for name, type_, flag, address, offset, length, *_ in heads:
        label = strings[name:strings.index(b"\0", name)]
        body = b"" if type_ == 8 else data[offset:offset + length]
        if label not in IGNORED:
            out.setdefault(label, []).append((type_, flag, address, length, body))
    return (kind, machine, entry, flags), out


def differences(a, b):
    """Which parts of two files differ: nothing when they are equal in the sense of this script."""
    if a == b:
        return []
    if not (a[:4] == b[:4] == b"\x7fELF"):
        return ["bytes"]
    (head_a, parts_a), (head_b, parts_b) = sections(a), sections(b)
    found = ["header"] if head_a != head_b else []
    for label in sorted(set(parts_a) | set(parts_b)):
        if parts_a.get(label) != parts_b.get(label):
            found.append(label.decode())
    return found


def archive(data):
    """The members of an ar(1) archive, without times and owners."""
    at, out = 8, []
    while at + 60 <= len(data):
        name, size = data[at:at + 16], int(data[at + 48:at + 58])
        out.append((name, data[at + 60:at + 60 + size]))
        at += 60 + size + size % 2
    return out


def compare(a, b):
    """As differences(), also into static libraries. Returns how many ELF files were looked at, and what differs."""
    if a[:8] == b[:8] == b"!<arch>\n":
        members_a, members_b = archive(a), archive(b)
        if [m[0] for m in members_a] != [m[0] for m in members_b]:
            return 0, ["members"]
        parts = [(x[0], differences(x[1], y[1])) for x, y in zip(members_a, members_b) if x[1][:4] == b"\x7fELF"]
        return len(parts), [f"{name.decode().strip()}: {d}" for name, found in parts for d in found]
    return int(a[:4] == b"\x7fELF"), differences(a, b)


def files(root):
    return {p.relative_to(root): p for p in sorted(root.rglob("*")) if p.is_file() and not p.is_symlink()}


def main():
    emulated, accelerated = (pathlib.Path(word) for word in sys.argv[1:3])
    debs = sorted(p.name for p in emulated.glob("*.deb"))
    bad = [] if debs and debs == sorted(p.name for p in accelerated.glob("*.deb")) else ["the packages are not the same"]
    elf = other = same = 0
    for deb in debs if not bad else []:
        same += hashlib.sha256((emulated / deb).read_bytes()).digest() == hashlib.sha256((accelerated / deb).read_bytes()).digest()
        with tempfile.TemporaryDirectory() as work:
            trees = []
            for side in (emulated, accelerated):
                tree = pathlib.Path(work) / side.parent.name
                subprocess.run(["dpkg-deb", "-R", side / deb, tree], check=True)
                trees.append(files(tree))
            for name in sorted(set(trees[0]) | set(trees[1])):
                if str(name) == "DEBIAN/md5sums":
                    continue  # of the files that are compared here
                if name not in trees[0] or name not in trees[1]:
                    bad.append(f"{deb}: {name}: only on one side")
                    continue
                number, found = compare(trees[0][name].read_bytes(), trees[1][name].read_bytes())
                elf, other = elf + number, other + (number == 0)
                bad += [f"{deb}: {name}: {what}" for what in found]
    print(f"{emulated.name}: {len(debs)} packages ({same} identical), {elf} ELF files, {other} others: {'equal' if not bad else 'DIFFERENT'}")
    for line in bad:
        print("  " + line)
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
