"""fp32 convolution and matrix products on any GPU with an OpenGL 4.3 driver and on the CPU, for NumPy arrays.

    import numpy as np, sparkle
    maps = sparkle.conv2d(image, weights, stride=2, padding=3)

The library picks the device, or `device=` does. Errors are exceptions, all of them `sparkle.Error`. Calls release the
interpreter's lock. The environment variables are those of the library.
"""

from ._convolution import Plan, conv1d, conv2d
from ._devices import (
    Device,
    DeviceInfo,
    Timing,
    devices,
    finalize,
    last_timing,
    num_threads,
    set_log,
    set_num_threads,
    version,
)
from ._errors import (
    ClosedHandle,
    DeviceFailed,
    Error,
    Forked,
    InvalidArgument,
    NoDevice,
    OutOfMemory,
    Unsupported,
)
from ._matrix import sgemm

__version__ = version()

__all__ = [
    "ClosedHandle",
    "Device",
    "DeviceFailed",
    "DeviceInfo",
    "Error",
    "Forked",
    "InvalidArgument",
    "NoDevice",
    "OutOfMemory",
    "Plan",
    "Timing",
    "Unsupported",
    "conv1d",
    "conv2d",
    "devices",
    "finalize",
    "last_timing",
    "num_threads",
    "set_log",
    "set_num_threads",
    "sgemm",
    "version",
]
