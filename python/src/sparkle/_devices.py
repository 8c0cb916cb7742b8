"""Devices, threads, times and messages."""

import atexit
import ctypes
from dataclasses import dataclass

from . import _library
from ._errors import check
from ._library import library


@dataclass(frozen=True)
class DeviceInfo:
    """A device of this machine."""

    id: str
    """The selector that opens it; "" if it is not usable."""
    name: str
    """The CPU's model or the GL renderer's name."""
    kind: str
    """"cpu" or "gl"."""
    usable: bool
    software: bool
    """Whether it is a software renderer: correct but slow, and never chosen by "auto"."""
    reason: str
    """Why it is not usable; "" if it is."""


@dataclass(frozen=True)
class Timing:
    """The times of a call, and where it ran."""

    device: str
    kernel: str
    kernel_ms: float
    """Time of the kernels, without transfers."""
    wall_ms: float
    """Time from the call to the result in memory, transfers included."""
    dispatches: int
    fallback: str
    """Why a GPU failed, so that the CPU computed; "" if none did."""


def devices():
    """All devices of this machine, usable or not. The first is the CPU."""
    count = ctypes.c_size_t()
    check(library.sparkle_device_count(count))
    return [_describe(index) for index in range(count.value)]


def _describe(index):
    info = _library.DeviceInfo(size=ctypes.sizeof(_library.DeviceInfo))
    check(library.sparkle_device_describe(index, info))
    kind = {0: "cpu", 1: "gl"}.get(info.kind, str(info.kind))
    id, name, reason = (text.decode(errors="replace") for text in (info.id, info.name, info.reason))
    return DeviceInfo(id, name, kind, bool(info.usable), bool(info.software), reason)


class Device:
    """An opened device: "auto", "cpu", "gl:0", "name=TEXT", "multi". Any number of threads may use it at once.

    "auto" is the device that SPARKLE_DEVICE names, or else, for each problem, the one predicted fastest; if a GPU fails,
    the CPU computes.
    """

    def __init__(self, selector="auto"):
        self._handle = None
        handle = ctypes.c_void_p()
        check(library.sparkle_device_open(selector.encode(), handle))
        self._handle, self.selector = handle, selector

    # The default argument is still there when the interpreter ends.
    def close(self, *, _close=library.sparkle_device_close):
        """Closes it. Plans made from it stay valid."""
        handle, self._handle = self._handle, None
        if handle is not None:
            _close(handle)

    def __repr__(self):
        return f"sparkle.Device({self.selector!r})"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):
        self.close()


def handle_of(device):
    """The handle for `device`: a Device, a selector, or None for "auto". The second value keeps it open."""
    if device is None:
        return None, None
    if isinstance(device, str):
        device = Device(device)
    if not isinstance(device, Device):
        raise TypeError(f"device is {type(device).__name__}; expected a Device, a selector such as 'cpu', or None")
    if device._handle is None:
        raise ValueError("the device is closed")
    return device._handle, device


def last_timing():
    """The times of this thread's last successful conv2d, plan or sgemm."""
    timing = _library.Timing(size=ctypes.sizeof(_library.Timing))
    check(library.sparkle_last_timing(timing))
    device, kernel, fallback = (
        text.decode(errors="replace") for text in (timing.device, timing.kernel, timing.fallback)
    )
    return Timing(device, kernel, timing.kernel_ms, timing.wall_ms, timing.dispatches, fallback)


def set_num_threads(count):
    """Sets the number of threads of the CPU engine, 1 to 1024."""
    check(library.sparkle_set_num_threads(count))


def num_threads():
    """The number of threads of the CPU engine."""
    return library.sparkle_get_num_threads()


def version():
    """The library's version."""
    return library.sparkle_version_string().decode()


def finalize():
    """Ends the library's threads and frees all devices and plans. Sparkle can be used again afterwards."""
    check(library.sparkle_finalize())


# A call may run in a callback while it is replaced, so none is freed.
_callbacks = []


def set_log(callback):
    """Sends all further messages to `callback(level, text)`; level 0 is debug, 1 info, 2 warning. None ends that.

    Any thread may call it, several at once.
    """
    if callback is None:
        check(library.sparkle_set_log_callback(None, None))
        return
    function = _library.LogCallback(lambda level, text, _: callback(level, text.decode(errors="replace")))
    _callbacks.append(function)
    check(library.sparkle_set_log_callback(ctypes.cast(function, ctypes.c_void_p), None))


# The library's threads must not call Python while the interpreter ends.
atexit.register(set_log, None)
