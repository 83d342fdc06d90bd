"""Create, name, enter and remove network namespaces.

Owns: the system calls (setns(2), unshare(2), mount(2)) and the layout of `/run/netns`, which
ip-netns(8) uses too. setns and unshare move only the calling *thread*; every function here returns
with the thread in its original namespace.
Does not: know what is inside a namespace.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from overlay import failpoint, public_files
from overlay.errors import (
    SHORTAGE_HINT,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    OverlayError,
    UsageError,
)

NETNS_DIRECTORY: Final = Path("/run/netns")
OWN_NAMESPACE: Final = "/proc/thread-self/ns/net"

_CLONE_NEWNET: Final = 0x40000000
_NS_GET_NSTYPE: Final = 0xB703  # linux/nsfs.h
_MS_BIND: Final = 0x1000
_MS_REC: Final = 0x4000
_MS_SHARED: Final = 0x100000
_MNT_DETACH: Final = 2
# Errors of open(2) that mean that nothing is there. Other errors leave the question open.
_GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESRCH})
SHORTAGE: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors that mean that the host is short of descriptors or memory: temporary, and unspecific."""

# Python has os.setns and os.unshare from 3.12 only; mount(2) in no version.
_libc: Final = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _setns(fd: int) -> None:
    _check(_libc.setns(fd, _CLONE_NEWNET), "setns")


def _mount(source: str, target: str, flags: int) -> None:
    arguments = (source.encode(), target.encode(), b"none", ctypes.c_ulong(flags), None)
    _check(_libc.mount(*arguments), f"mount {target}")


def _umount(target: str) -> None:
    _check(_libc.umount2(target.encode(), _MNT_DETACH), f"umount {target}")


def path_of(name: str) -> Path:
    """Return the file that names the namespace."""
    return NETNS_DIRECTORY / name


def open_fd(path: str | Path) -> int:
    """Return a new file descriptor of the network namespace at `path`.

    The caller closes it. Raises NotFoundError if nothing is there, UsageError if it is not a
    network namespace (also for a stale name), ForbiddenError without permission, and OverlayError
    if the host is short of descriptors or memory, when the namespace may exist.
    """
    try:
        try:
            fd = open_if_namespace(path)
        except PermissionError:  # also returned while a process exits (fs/proc/namespaces.c)
            fd = open_if_namespace(path)
    except OSError as error:
        raise _not_opened(path, error) from error
    if fd is None:
        raise UsageError(
            f"{path} is not a network namespace",
            hint="Give a name of `ip netns`, /proc/PID/ns/net or a running container",
        )
    return fd


def open_if_namespace(path: str | Path) -> int | None:
    """Return a descriptor of the network namespace at `path`; None if it is anything else.

    Nothing but a namespace is opened: opening a device or a FIFO may have effects. O_PATH, open(2),
    finds the file without opening it, and the same file is then opened, wherever `path` leads by
    then. Namespaces are recognized by their file system and ioctl_ns(2). Raises OSError.
    """
    found = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        # Namespaces of all kinds are on one file system, nsfs, and nothing else is.
        if os.fstat(found).st_dev != Path(OWN_NAMESPACE).stat().st_dev:
            return None
        fd = os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(found)
    try:
        kind = fcntl.ioctl(fd, _NS_GET_NSTYPE)
    except OSError:
        kind = 0
    if kind == _CLONE_NEWNET:
        return fd
    os.close(fd)
    return None


def _not_opened(path: str | Path, error: OSError) -> OverlayError:
    if error.errno in _GONE:
        return NotFoundError(
            f"no network namespace at {path}",
            hint="The container may have ended; `ip netns` lists named namespaces",
        )
    what, why = f"cannot open the network namespace {path}", error.strerror or str(error)
    if isinstance(error, PermissionError):
        return ForbiddenError(
            what, why=why, hint="Opening another process's namespace requires root"
        )
    if error.errno in SHORTAGE:
        return OverlayError(what, why=why, hint=SHORTAGE_HINT)
    return OverlayError(what, why=why, hint="Check the kernel's log: dmesg")


def open_same(path: str | Path, wanted: tuple[int, int]) -> int | None:
    """Return a descriptor of the namespace with that identity.

    Returns None if it left `path`. Raises OverlayError if the check fails, for example for lack of
    descriptors or memory.
    """
    try:
        fd = open_fd(path)
    except (NotFoundError, UsageError):
        return None
    if identity(fd) == wanted:
        return fd
    os.close(fd)
    return None


def identity(fd: int) -> tuple[int, int]:
    """Return a namespace's identity: (device, inode), namespaces(7)."""
    status = os.fstat(fd)
    return (status.st_dev, status.st_ino)


def own_identity() -> tuple[int, int]:
    """Return the identity of the calling thread's network namespace."""
    with closing(own_fd()) as fd:
        return identity(fd)


def own_fd() -> int:
    """Return a new file descriptor of the calling thread's network namespace."""
    return os.open(OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)


@contextmanager
def closing(fd: int) -> Iterator[int]:
    """Close the descriptor at the end of the block."""
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def inside(fd: int) -> Iterator[None]:
    """Run the block with the calling thread in the namespace `fd` (setns(2))."""
    home = own_fd()
    try:
        _setns(fd)
        try:
            yield
        finally:
            _setns(home)
    finally:
        os.close(home)


def names() -> list[str]:
    """Return the names under `/run/netns`, sorted."""
    with suppress(FileNotFoundError):
        return sorted(entry.name for entry in NETNS_DIRECTORY.iterdir())
    return []


def exists(name: str) -> bool:
    """Return whether a namespace has this name.

    A stale, empty file does not count. Raises OverlayError if the check fails.
    """
    try:
        os.close(open_fd(path_of(name)))
    except (NotFoundError, UsageError):
        return False
    return True


def names_identity(name: str) -> tuple[int, int] | None:
    """Return the identity of the namespace with this name.

    Returns None if there is none.
    """
    try:
        status = path_of(name).stat()
    except FileNotFoundError:
        return None
    return (status.st_dev, status.st_ino)


def create(name: str) -> int:
    """Create a named namespace that outlives this process.

    Returns its file descriptor. Raises ConflictError if the name is taken, OverlayError if the
    kernel refuses.
    """
    try:
        _share_directory()
        _reserve(name)
    except FileExistsError:
        raise ConflictError(
            f"a network namespace named {name} already exists",
            hint=f"If it is unused, remove it: ip netns del {name}",
        ) from None
    except OSError as error:
        raise _refused(name, error) from error
    try:
        return _create_mounted(name)
    except OSError as error:
        with suppress(OSError):
            path_of(name).unlink()
        raise _refused(name, error) from error


def _create_mounted(name: str) -> int:
    home = own_fd()
    try:
        _check(_libc.unshare(_CLONE_NEWNET), "unshare")
        try:
            fd = own_fd()
            try:
                failpoint.failpoint("netns.mount")
                _mount(OWN_NAMESPACE, str(path_of(name)), _MS_BIND)
            except OSError:
                os.close(fd)
                raise
            return fd
        finally:
            _setns(home)
    finally:
        os.close(home)


@contextmanager
def temporary() -> Iterator[int]:
    """Create a namespace without a name for the duration of the block.

    Yields its descriptor.
    """
    home = own_fd()
    try:
        _check(_libc.unshare(_CLONE_NEWNET), "unshare")
        try:
            fd = own_fd()
        finally:
            _setns(home)
    finally:
        os.close(home)
    try:
        yield fd
    finally:
        os.close(fd)


def give_name(fd: int, name: str) -> None:
    """Give a namespace that lost its name a name again.

    Raises OSError if it is taken.
    """
    _share_directory()
    _reserve(name)
    _mount(f"/proc/self/fd/{fd}", str(path_of(name)), _MS_BIND)


def remove(name: str) -> bool:
    """Remove the name; the namespace ends with its last user.

    Returns False if there was none.
    """
    path = path_of(name)
    failpoint.failpoint("netns.unmount")
    try:
        _umount(str(path))
    except OSError as error:
        # EINVAL: the file is not a mount point; left by a crash between creation and mount.
        if error.errno not in {errno.EINVAL, errno.ENOENT}:
            raise
    failpoint.failpoint("netns.unlink")
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def _reserve(name: str) -> None:
    """Create the file to mount on.

    A file without a namespace, left by a crash, is reused.
    """
    path = path_of(name)
    failpoint.failpoint("netns.reserve")
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0))
        return
    if exists(name):
        raise FileExistsError(errno.EEXIST, "name taken", str(path))


def _share_directory() -> None:
    """Make `/run/netns` a shared mount, as `ip netns add` does.

    See mount_namespaces(7). A namespace named in one mount namespace is then visible, and
    removable, in all others.
    """
    public_files.make_directory(NETNS_DIRECTORY)
    target = str(NETNS_DIRECTORY)
    directory = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)  # iproute2 takes the same lock
        try:
            _mount("", target, _MS_SHARED | _MS_REC)
        except OSError as error:
            if error.errno != errno.EINVAL:  # EINVAL: not a mount point yet
                raise
            _mount(target, target, _MS_BIND | _MS_REC)
            _mount("", target, _MS_SHARED | _MS_REC)
    finally:
        os.close(directory)


def _refused(name: str, error: OSError) -> OverlayError:
    return OverlayError(
        f"cannot create the network namespace {name}",
        why=error.strerror or str(error),
        hint="This requires root with CAP_SYS_ADMIN and a writable /run",
    )
