"""libsparkle, loaded, with the types of the functions that the package calls."""

import ctypes
import os
from ctypes import POINTER, c_char, c_char_p, c_double, c_float, c_int32, c_int64, c_size_t, c_uint32, c_void_p

# The number of the C interface. A library with another one is another interface.
SONAME = "libsparkle.so.0"


class Conv2dDesc(ctypes.Structure):
    """sparkle_conv2d_desc."""

    _fields_ = (
        [("size", c_size_t)]
        + [
            (name, c_int64)
            for name in "n c h w k r s stride_h stride_w pad_h pad_w dilation_h dilation_w groups".split()
        ]
        + [(name, c_int32) for name in "bias relu algorithm reserved".split()]
        + [(name, c_int32) for name in "padding input_layout output_layout weights_layout".split()]
        + [("pad_bottom", c_int64), ("pad_right", c_int64)]
    )


class GemmDesc(ctypes.Structure):
    """sparkle_gemm_desc."""

    _fields_ = (
        [("size", c_size_t)]
        + [(name, c_int32) for name in "layout trans_a trans_b".split()]
        + [(name, c_int64) for name in "m n k lda ldb ldc".split()]
        + [("alpha", c_float), ("beta", c_float)]
    )


class DeviceInfo(ctypes.Structure):
    """sparkle_device_info."""

    _fields_ = [
        ("size", c_size_t),
        ("kind", c_int32),
        ("usable", c_int32),
        ("software", c_int32),
        ("id", c_char * 32),
        ("name", c_char * 256),
        ("reason", c_char * 512),
    ]


class Timing(ctypes.Structure):
    """sparkle_timing."""

    _fields_ = [
        ("size", c_size_t),
        ("kernel_ms", c_double),
        ("wall_ms", c_double),
        ("dispatches", c_int32),
        ("fell_back", c_int32),
        ("device", c_char * 32),
        ("kernel", c_char * 96),
        ("fallback", c_char * 256),
    ]


LogCallback = ctypes.CFUNCTYPE(None, c_int32, c_char_p, c_void_p)

_FUNCTIONS = {
    "sparkle_version": (c_uint32, []),
    "sparkle_version_string": (c_char_p, []),
    "sparkle_status_string": (c_char_p, [c_int32]),
    "sparkle_last_error": (c_char_p, []),
    "sparkle_set_log_callback": (c_int32, [c_void_p, c_void_p]),
    "sparkle_set_num_threads": (c_int32, [c_int32]),
    "sparkle_get_num_threads": (c_int32, []),
    "sparkle_finalize": (c_int32, []),
    "sparkle_device_count": (c_int32, [POINTER(c_size_t)]),
    "sparkle_device_describe": (c_int32, [c_size_t, POINTER(DeviceInfo)]),
    "sparkle_device_open": (c_int32, [c_char_p, POINTER(c_void_p)]),
    "sparkle_device_close": (c_int32, [c_void_p]),
    "sparkle_conv2d_desc_init_sized": (c_int32, [POINTER(Conv2dDesc), c_size_t]),
    "sparkle_conv2d_output_size": (c_int32, [POINTER(Conv2dDesc), POINTER(c_int64), POINTER(c_int64)]),
    "sparkle_conv2d": (c_int32, [c_void_p, POINTER(Conv2dDesc)] + 4 * [c_void_p, c_size_t]),
    "sparkle_plan_create": (c_int32, [c_void_p, POINTER(Conv2dDesc)] + 2 * [c_void_p, c_size_t] + [POINTER(c_void_p)]),
    "sparkle_plan_execute": (c_int32, [c_void_p] + 2 * [c_void_p, c_size_t]),
    "sparkle_plan_set_weights": (c_int32, [c_void_p] + 2 * [c_void_p, c_size_t]),
    "sparkle_plan_memory": (c_int32, [c_void_p, POINTER(c_size_t), POINTER(c_size_t)]),
    "sparkle_plan_destroy": (c_int32, [c_void_p]),
    "sparkle_sgemm": (c_int32, [c_void_p, POINTER(GemmDesc)] + 3 * [c_void_p, c_size_t]),
    "sparkle_last_timing": (c_int32, [POINTER(Timing)]),
}


def _load():
    # A wheel carries the library. Without it, the system's loader searches as for any program.
    carried = os.path.join(os.path.dirname(os.path.abspath(__file__)), "libsparkle.so")
    path = carried if os.path.exists(carried) else SONAME
    try:
        library = ctypes.CDLL(path)
    except OSError as error:
        raise ImportError(f"{path} cannot be loaded: {error}. Install Sparkle, or set LD_LIBRARY_PATH.") from error
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


library = _load()
