"""The library's errors as exceptions."""

from ._library import library


class Error(Exception):
    """A call failed. `status` is the sparkle_status. Outputs are untouched."""

    status = None


class InvalidArgument(Error, ValueError):
    """An argument has an invalid value; the message names it."""


class ClosedHandle(Error, ValueError):
    """A device or plan that was closed."""


class Unsupported(Error, NotImplementedError):
    """The problem is valid, but the device cannot compute it."""


class NoDevice(Error, LookupError):
    """No usable device matches the selector; the message says why."""


class OutOfMemory(Error, MemoryError):
    """The host or the device has no memory left."""


class DeviceFailed(Error, OSError):
    """The device was lost, its driver failed, or it did not finish in time."""


class Forked(Error, OSError):
    """The object was created before a fork and cannot be used in the child."""


_KINDS = {
    1: InvalidArgument,
    2: InvalidArgument,
    3: ClosedHandle,
    4: Unsupported,
    5: NoDevice,
    6: OutOfMemory,
    7: DeviceFailed,
    8: DeviceFailed,
    9: DeviceFailed,
    10: DeviceFailed,
    11: Forked,
    15: DeviceFailed,
}


def check(status):
    """Raises the exception of `status` unless it is 0."""
    if status:
        error = _KINDS.get(status, Error)(library.sparkle_last_error().decode(errors="replace"))
        error.status = status
        raise error
