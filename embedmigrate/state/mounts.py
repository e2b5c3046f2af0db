"""Which file system a directory is on, as far as its locks are concerned."""

import re
from pathlib import Path

# Clients of these may keep flock() to themselves, so that two machines both hold "the" lock:
# https://man7.org/linux/man-pages/man2/flock.2.html (NOTES).
_NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre"}
_OF_FUSE = ("fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "fuse.rclone", "fuse.ceph")
_TABLE = Path("/proc/self/mountinfo")


def network_file_system(directory: Path, table: Path = _TABLE) -> str | None:
    """Its type where it is on another machine; None where it is not, or nothing is known.

    The table's format: https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html
    """
    try:
        lines = table.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return None
    place, found = directory.absolute().resolve(), (0, "")
    for line in lines:
        left, _, right = line.partition(" - ")
        point = Path(_unescaped(left.split(" ")[4]))
        if place.is_relative_to(point):
            here = (len(point.parts), right.split(" ")[0])
            # Of two mounts in one place the later one hides the other.
            found = here if here[0] >= found[0] else found
    kind = found[1]
    return kind if kind in _NETWORK or kind.startswith(_OF_FUSE) else None


def _unescaped(point: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), point)
