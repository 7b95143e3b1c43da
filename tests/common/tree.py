"""Prints a tree, one line for each entry, sorted by its name: all that two programs which unpack the same image must agree on.

What a newcomer would get wrong: names are bytes; and overlayfs's own marks are how layers are kept, no part of the tree.
Usage: tree.py DIR
"""
import hashlib, os, stat, sys

root = os.fsencode(sys.argv[1])
kinds = {stat.S_IFREG: 'file', stat.S_IFDIR: 'dir', stat.S_IFLNK: 'link', stat.S_IFIFO: 'fifo',
         stat.S_IFCHR: 'char', stat.S_IFBLK: 'block', stat.S_IFSOCK: 'socket'}
seen, groups = [], {}
for above, dirs, files in os.walk(root):
    for name in dirs + files + ([b'.'] if above == root else []):
        path = os.path.join(above, name)
        there = os.lstat(path)
        short = os.path.relpath(path, root)
        seen.append((short, path, there))
        if not stat.S_ISDIR(there.st_mode):
            groups.setdefault((there.st_dev, there.st_ino), []).append(short)
for short, path, there in sorted(seen):
    words = [ascii(short), kinds[stat.S_IFMT(there.st_mode)], 'mode=%o' % stat.S_IMODE(there.st_mode),
             'owner=%d:%d' % (there.st_uid, there.st_gid), 'time=%d.%09d' % divmod(there.st_mtime_ns, 10**9)]
    if stat.S_ISREG(there.st_mode):
        with open(path, 'rb') as file:
            words.append('size=%d sha=%s' % (there.st_size, hashlib.sha256(file.read()).hexdigest()[:16]))
        # How much a file takes differs by a block or two; whether it has holes does not.
        words.append('holes=%s' % (there.st_blocks * 512 < there.st_size // 2))
    if stat.S_ISLNK(there.st_mode):
        words.append('to=' + ascii(os.readlink(path)))
    if stat.S_ISCHR(there.st_mode) or stat.S_ISBLK(there.st_mode):
        words.append('device=%d:%d' % (os.major(there.st_rdev), os.minor(there.st_rdev)))
    for name in sorted(os.listxattr(path, follow_symlinks=False)):
        if not name.startswith('trusted.overlay.') and name != 'security.selinux':
            words.append('%s=%s' % (name, os.getxattr(path, name, follow_symlinks=False).hex()))
    same = groups.get((there.st_dev, there.st_ino), [])
    if len(same) > 1:
        words.append('same=' + ascii(sorted(same)))
    print(' '.join(words))
