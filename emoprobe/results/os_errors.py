"""What a person can do where a file of the results cannot be read or written."""

from __future__ import annotations

import errno

_BY_NUMBER = {
    errno.ENOSPC: "make room on the disk, then run again.",
    errno.EDQUOT: "make room in your quota, then run again.",
    errno.EACCES: "give this user the right to read and write it, then run again.",
    errno.EPERM: "give this user the right to read and write it, then run again.",
    errno.EROFS: "mount the file system for writing, or run elsewhere.",
    errno.EMFILE: "raise the limit of open files (ulimit -n), or lower workers.requests, then run again.",
    errno.ENAMETOOLONG: "choose a shorter path for the results.",
    errno.EISDIR: "remove the folder that is in the place of a file, then run again.",
    errno.ENOTDIR: "remove the file that is in the place of a folder, then run again.",
}


def what_to_do(error: OSError) -> str:
    """Return what to do about an error of the operating system: run again only where that can help."""
    return _BY_NUMBER.get(error.errno or 0, "run again; where it comes back, check the file system.")


def unreadable_words(error: Exception, what: str) -> str:
    """Return why a file cannot be read and what to do: what is damaged is deleted, what is forbidden is not.

    Args:
        error: what reading it raised.
        what: what to delete where its content is damaged, such as "its folder".
    """
    if isinstance(error, OSError) and error.errno not in (None, errno.ENOENT):
        return f"cannot be read ({error.strerror}); {what_to_do(error).removesuffix('.')}"
    return f"is damaged ({getattr(error, 'strerror', None) or error}); delete {what} and run again"
