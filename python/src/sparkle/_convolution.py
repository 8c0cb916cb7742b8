"""Convolutions: one call, or a plan for weights that stay the same."""

import ctypes

import numpy as np

from ._arrays import argument, floats, output
from ._devices import handle_of
from ._errors import check
from ._library import Conv2dDesc, library

_ALGORITHMS = {"auto": 0, "direct": 1, "winograd": 2}
_TENSORS = {"nchw": 0, "nhwc": 1}
_WEIGHTS = {"oihw": 0, "hwio": 1, "ohwi": 2}


def _pair(name, value):
    try:
        pair = (value, value) if isinstance(value, int) else tuple(int(side) for side in value)
        if len(pair) == 2:
            return pair
    except TypeError:
        pass
    raise TypeError(f"{name} is {value!r}; expected a number, or a pair of numbers for height and width")


def _pads(padding):
    """The kind of padding, and the zeros above, below, left and right."""
    if padding == "same":
        return 2, (0, 0, 0, 0)
    try:
        sides = [tuple(int(side) for side in pair) for pair in padding]
        if len(sides) == 2 and all(len(pair) == 2 for pair in sides):
            return 1, sides[0] + sides[1]
    except (TypeError, ValueError):
        pass
    try:
        rows, columns = _pair("padding", padding)
    except (TypeError, ValueError):
        raise TypeError(
            f'padding is {padding!r}; expected a number, or a pair of numbers for height and width, or two pairs '
            '((top, bottom), (left, right)), or "same"'
        ) from None
    return 0, (rows, 0, columns, 0)


def _choice(name, value, choices):
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; expected {' or '.join(choices)}")
    return choices[value]


def _describe(
    shape,
    weights,
    bias,
    stride,
    padding,
    dilation,
    groups,
    relu,
    algorithm,
    layout="nchw",
    output_layout=None,
    weights_layout="oihw",
):
    """The description for an input of `shape`, and the shape of its output."""
    image = _choice("layout", layout, _TENSORS)
    result = image if output_layout is None else _choice("output_layout", output_layout, _TENSORS)
    kernel = _choice("weights_layout", weights_layout, _WEIGHTS)
    if len(shape) not in (3, 4):
        expected = "(N, C, H, W) or (C, H, W)" if image == 0 else "(N, H, W, C) or (H, W, C)"
        raise ValueError(f"the input has shape {tuple(shape)}; expected {expected}")
    if weights.ndim != 4:
        expected = ("(K, C/groups, R, S)", "(R, S, C/groups, K)", "(K, R, S, C/groups)")[kernel]
        raise ValueError(f"weights has shape {weights.shape}; expected {expected}")
    if algorithm not in _ALGORITHMS:
        raise ValueError(f"algorithm is {algorithm!r}; expected auto, direct or winograd")
    desc = Conv2dDesc()
    check(library.sparkle_conv2d_desc_init_sized(desc, ctypes.sizeof(desc)))
    desc.n = shape[0] if len(shape) == 4 else 1
    desc.c, desc.h, desc.w = shape[-3:] if image == 0 else (shape[-1], shape[-3], shape[-2])
    k, c, r, s = ((0, 1, 2, 3), (3, 2, 0, 1), (0, 3, 1, 2))[kernel]
    desc.k, desc.r, desc.s = weights.shape[k], weights.shape[r], weights.shape[s]
    desc.stride_h, desc.stride_w = _pair("stride", stride)
    desc.padding, (desc.pad_h, desc.pad_bottom, desc.pad_w, desc.pad_right) = _pads(padding)
    desc.dilation_h, desc.dilation_w = _pair("dilation", dilation)
    desc.groups, desc.relu, desc.algorithm = groups, int(bool(relu)), _ALGORITHMS[algorithm]
    desc.bias = int(bias is not None)
    desc.input_layout, desc.output_layout, desc.weights_layout = image, result, kernel
    if groups >= 1 and weights.shape[c] * groups != desc.c:
        raise ValueError(
            f"weights has shape {weights.shape}; expected {desc.c // groups} channels, the input's {desc.c} by {groups} groups"
        )
    if bias is not None and bias.shape != (desc.k,):
        raise ValueError(f"bias has shape {bias.shape}; expected {(desc.k,)}")
    p, q = ctypes.c_int64(), ctypes.c_int64()
    check(library.sparkle_conv2d_output_size(desc, p, q))
    pixels = (p.value, q.value)
    return desc, tuple(shape[:-3]) + ((desc.k, *pixels) if result == 0 else (*pixels, desc.k))


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
    layout="nchw",
    output_layout=None,
    weights_layout="oihw",
    device=None,
    out=None,
):
    """One convolution of float32 arrays: x (N, C, H, W) or (C, H, W), weights (K, C/groups, R, S), bias (K,).

    Returns (N, K, P, Q) or (K, P, Q), in `out` if that is given. `stride`, `padding` and `dilation` are numbers or pairs
    for height and width; `padding` is also ((top, bottom), (left, right)), or "same", as many zeros as give
    ceil(H/stride) x ceil(W/stride) outputs. With layout "nhwc", x is (N, H, W, C) or (H, W, C) and so is the output, unless
    `output_layout` says otherwise. With weights_layout "hwio", weights is (R, S, C/groups, K), with "ohwi"
    (K, R, S, C/groups). `device` is a Device, a selector such as "cpu", or None for "auto". For several convolutions with
    the same weights, make a Plan.
    """
    x, weights = floats("x", x), floats("weights", weights)
    bias = None if bias is None else floats("bias", bias)
    desc, shape = _describe(
        x.shape,
        weights,
        bias,
        stride,
        padding,
        dilation,
        groups,
        relu,
        algorithm,
        layout,
        output_layout,
        weights_layout,
    )
    out = output(out, shape)
    handle, _open = handle_of(device)
    arrays = (*argument(x), *argument(weights), *argument(bias), *argument(out))
    check(library.sparkle_conv2d(handle, desc, *arrays))
    return out


def conv1d(
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
    layout="ncw",
    output_layout=None,
    weights_layout="oiw",
    device=None,
    out=None,
):
    """One convolution of signals: x (N, C, W) or (C, W), weights (K, C/groups, S), bias (K,).

    Returns (N, K, Q) or (K, Q), in `out` if that is given. `padding` is a number, a pair (before, after), or "same". With
    layout "nwc", x is (N, W, C) or (W, C) and so is the output, unless `output_layout` says otherwise. With weights_layout
    "wio", weights is (S, C/groups, K), with "owi" (K, S, C/groups). The other arguments are those of conv2d.
    """
    x, weights = floats("x", x), floats("weights", weights)
    names = {"ncw": "nchw", "nwc": "nhwc"}
    images = _choice("layout", layout, names)
    results = images if output_layout is None else _choice("output_layout", output_layout, names)
    kernels = _choice("weights_layout", weights_layout, {"oiw": "oihw", "wio": "hwio", "owi": "ohwi"})
    if x.ndim not in (2, 3):
        raise ValueError(f"the input has shape {x.shape}; expected (N, C, W) or (C, W), or (N, W, C) or (W, C)")
    if weights.ndim != 3:
        raise ValueError(f"weights has shape {weights.shape}; expected three dimensions")
    if padding != "same":
        pads = (padding, padding) if isinstance(padding, int) else padding
        padding = ((0, 0), _pair("padding", pads))
    # A signal is an image of one row.
    row = -2 if images == "nchw" else -3
    x = np.expand_dims(x, row)
    weights = np.expand_dims(weights, {"oihw": 2, "hwio": 0, "ohwi": 1}[kernels])
    row = -2 if results == "nchw" else -3
    whole = conv2d(
        x,
        weights,
        bias,
        stride=(1, stride),
        padding=padding,
        dilation=(1, dilation),
        groups=groups,
        relu=relu,
        algorithm=algorithm,
        layout=images,
        output_layout=results,
        weights_layout=kernels,
        device=device,
        out=None if out is None else np.expand_dims(out, row),
    )
    return np.squeeze(whole, row) if out is None else out


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
        layout="nchw",
        output_layout=None,
        weights_layout="oihw",
        device=None,
    ):
        self._handle = None
        weights = floats("weights", weights)
        bias = None if bias is None else floats("bias", bias)
        desc, self.output_shape = _describe(
            shape,
            weights,
            bias,
            stride,
            padding,
            dilation,
            groups,
            relu,
            algorithm,
            layout,
            output_layout,
            weights_layout,
        )
        self.input_shape, self._weights_shape = tuple(shape), weights.shape
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

    def set_weights(self, weights, bias=None):
        """Replaces the weights, and the bias if the plan has one. Calls that have begun end with the old ones, which the plan
        keeps if this fails.
        """
        weights = floats("weights", weights)
        bias = None if bias is None else floats("bias", bias)
        if weights.shape != self._weights_shape:
            raise ValueError(f"weights has shape {weights.shape}; the plan expects {self._weights_shape}")
        check(library.sparkle_plan_set_weights(self._open_handle(), *argument(weights), *argument(bias)))

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
