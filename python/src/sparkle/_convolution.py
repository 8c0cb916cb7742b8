"""Convolutions: one call, or a plan for weights that stay the same."""

import ctypes

from ._arrays import argument, floats, output
from ._devices import handle_of
from ._errors import check
from ._library import Conv2dDesc, library

_ALGORITHMS = {"auto": 0, "direct": 1, "winograd": 2}


def _pair(name, value):
    try:
        pair = (value, value) if isinstance(value, int) else tuple(int(side) for side in value)
        if len(pair) == 2:
            return pair
    except TypeError:
        pass
    raise TypeError(f"{name} is {value!r}; expected a number, or a pair of numbers for height and width")


def _describe(shape, weights, bias, stride, padding, dilation, groups, relu, algorithm):
    """The description for an input of `shape`, and the shape of its output."""
    if len(shape) not in (3, 4):
        raise ValueError(f"the input has shape {tuple(shape)}; expected (N, C, H, W) or (C, H, W)")
    if weights.ndim != 4:
        raise ValueError(f"weights has shape {weights.shape}; expected (K, C/groups, R, S)")
    if algorithm not in _ALGORITHMS:
        raise ValueError(f"algorithm is {algorithm!r}; expected auto, direct or winograd")
    desc = Conv2dDesc()
    check(library.sparkle_conv2d_desc_init(desc))
    desc.n = shape[0] if len(shape) == 4 else 1
    desc.c, desc.h, desc.w = shape[-3:]
    desc.k, desc.r, desc.s = weights.shape[0], weights.shape[2], weights.shape[3]
    desc.stride_h, desc.stride_w = _pair("stride", stride)
    desc.pad_h, desc.pad_w = _pair("padding", padding)
    desc.dilation_h, desc.dilation_w = _pair("dilation", dilation)
    desc.groups, desc.relu, desc.algorithm = groups, int(bool(relu)), _ALGORITHMS[algorithm]
    desc.bias = int(bias is not None)
    if groups >= 1 and weights.shape[1] * groups != desc.c:
        raise ValueError(
            f"weights has shape {weights.shape}; expected {desc.c // groups} channels, the input's {desc.c} by {groups} groups"
        )
    if bias is not None and bias.shape != (desc.k,):
        raise ValueError(f"bias has shape {bias.shape}; expected {(desc.k,)}")
    p, q = ctypes.c_int64(), ctypes.c_int64()
    check(library.sparkle_conv2d_output_size(desc, p, q))
    return desc, tuple(shape[:-3]) + (desc.k, p.value, q.value)


def conv2d(
    x,
    weights,
    bias=None,
    *,
    stride=1,
    padding=0,
    dilation=1,
    groups=1,
    relu=False,
    algorithm="auto",
    device=None,
    out=None,
):
    """One convolution of float32 arrays: x (N, C, H, W) or (C, H, W), weights (K, C/groups, R, S), bias (K,).

    Returns (N, K, P, Q) or (K, P, Q), in `out` if that is given. `stride`, `padding` and `dilation` are numbers or pairs
    for height and width. `device` is a Device, a selector such as "cpu", or None for "auto". For several convolutions with
    the same weights, make a Plan.
    """
    x, weights = floats("x", x), floats("weights", weights)
    bias = None if bias is None else floats("bias", bias)
    desc, shape = _describe(x.shape, weights, bias, stride, padding, dilation, groups, relu, algorithm)
    out = output(out, shape)
    handle, _open = handle_of(device)
    arrays = (*argument(x), *argument(weights), *argument(bias), *argument(out))
    check(library.sparkle_conv2d(handle, desc, *arrays))
    return out


class Plan:
    """A convolution with constant weights, for inputs of one shape. Any number of threads may run it at once.

    The arguments are those of conv2d, with the shape of the input in place of x.
    """

    def __init__(
        self,
        shape,
        weights,
        bias=None,
        *,
        stride=1,
        padding=0,
        dilation=1,
        groups=1,
        relu=False,
        algorithm="auto",
        device=None,
    ):
        self._handle = None
        weights = floats("weights", weights)
        bias = None if bias is None else floats("bias", bias)
        desc, self.output_shape = _describe(shape, weights, bias, stride, padding, dilation, groups, relu, algorithm)
        self.input_shape = tuple(shape)
        opened, _open = handle_of(device)
        handle = ctypes.c_void_p()
        check(library.sparkle_plan_create(opened, desc, *argument(weights), *argument(bias), handle))
        self._handle = handle

    def __call__(self, x, out=None):
        """The convolution of x, in `out` if that is given."""
        x = floats("x", x)
        if x.shape != self.input_shape:
            raise ValueError(f"x has shape {x.shape}; the plan expects {self.input_shape}")
        out = output(out, self.output_shape)
        check(library.sparkle_plan_execute(self._open_handle(), *argument(x), *argument(out)))
        return out

    @property
    def memory(self):
        """Bytes that the plan holds, and the maximum workspace of a run."""
        packed, workspace = ctypes.c_size_t(), ctypes.c_size_t()
        check(library.sparkle_plan_memory(self._open_handle(), packed, workspace))
        return packed.value, workspace.value

    def _open_handle(self):
        if self._handle is None:
            raise ValueError("the plan is closed")
        return self._handle

    # The default argument is still there when the interpreter ends.
    def close(self, *, _destroy=library.sparkle_plan_destroy):
        """Frees it. Calls that run end normally."""
        handle, self._handle = self._handle, None
        if handle is not None:
            _destroy(handle)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):
        self.close()
