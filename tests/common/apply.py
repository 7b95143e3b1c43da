"""Applies layers (tar archives, lowest first) to an empty directory with GNU tar, whiteouts by the image-spec's own words (layer.md).

What a newcomer would get wrong: whiteouts speak of lower layers only, so all of a layer's are obeyed before its entries are made; and
tar does not put a file in a directory's place by itself.
Usage: apply.py DIR LAYER...
"""
import os, shutil, subprocess, sys, tarfile

def remove(path):
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)

root = sys.argv[1]
for layer in sys.argv[2:]:
    entries = tarfile.open(layer, errors='surrogateescape').getmembers()
    for entry in entries:
        above, name = os.path.split(os.path.normpath(entry.name))
        above = os.path.join(root, above)
        if name == '.wh..wh..opq':
            for inside in os.listdir(above) if os.path.isdir(above) else []:
                remove(os.path.join(above, inside))
        elif name.startswith('.wh.'):
            remove(os.path.join(above, name[4:]))
    for entry in entries:
        path = os.path.join(root, os.path.normpath(entry.name))
        if os.path.lexists(path) and (os.path.isdir(path) and not os.path.islink(path)) != entry.isdir():
            remove(path)
        elif os.path.lexists(path) and entry.isdir() and not os.path.islink(path):
            # What an entry says of a directory is all that holds of it; tar would keep older attributes.
            for name in os.listxattr(path):
                os.removexattr(path, name)
    subprocess.run(['tar', '-C', root, '-xpf', layer, '--numeric-owner', '--same-owner', '--xattrs', '--xattrs-include=*',
                    '--exclude=.wh.*', '--delay-directory-restore'], check=True)
