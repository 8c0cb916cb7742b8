"""Tests of the package, with the library that it finds: python3 -m unittest discover python/tests."""

import gc
import threading
import unittest

import numpy as np

import sparkle


def integers(shape, seed):
    """Small integers, on which results are exact."""
    return np.random.default_rng(seed).integers(-3, 4, shape).astype(np.float32)


def convolution(x, weights, bias, stride, padding, dilation, groups):
    """The definition, in float64."""
    (n, c, h, w), (k, _, r, s) = x.shape, weights.shape
    padded = np.zeros((n, c, h + 2 * padding[0], w + 2 * padding[1]))
    padded[:, :, padding[0] : padding[0] + h, padding[1] : padding[1] + w] = x
    p = (padded.shape[2] - dilation[0] * (r - 1) - 1) // stride[0] + 1
    q = (padded.shape[3] - dilation[1] * (s - 1) - 1) // stride[1] + 1
    y = np.zeros((n, k, p, q)) + (0 if bias is None else bias[:, None, None])
    ci, ki = c // groups, k // groups
    for g in range(groups):
        for i in range(r):
            for j in range(s):
                rows = slice(i * dilation[0], i * dilation[0] + (p - 1) * stride[0] + 1, stride[0])
                columns = slice(j * dilation[1], j * dilation[1] + (q - 1) * stride[1] + 1, stride[1])
                part = padded[:, g * ci : (g + 1) * ci, rows, columns]
                taps = weights[g * ki : (g + 1) * ki, :, i, j].astype(np.float64)
                y[:, g * ki : (g + 1) * ki] += np.einsum("kc,ncpq->nkpq", taps, part)
    return y


CASES = [
    # x, weights, stride, padding, dilation, groups
    ((1, 1, 5, 5), (1, 1, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    ((2, 3, 17, 13), (8, 3, 7, 7), (2, 2), (3, 3), (1, 1), 1),
    ((1, 8, 16, 16), (16, 8, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    ((3, 6, 9, 12), (4, 3, 3, 2), (1, 2), (0, 1), (2, 1), 2),
    ((1, 8, 10, 10), (8, 1, 3, 3), (1, 1), (1, 1), (1, 1), 8),
    ((0, 2, 4, 4), (3, 2, 1, 1), (1, 1), (0, 0), (1, 1), 1),
]


class Convolutions(unittest.TestCase):
    def test_exact_on_integers_by_call_and_by_plan(self):
        compared = 0
        for seed, (x, weights, stride, padding, dilation, groups) in enumerate(CASES):
            for with_bias in (False, True):
                x_, weights_ = integers(x, seed), integers(weights, seed + 100)
                bias = integers(weights[0], seed + 200) if with_bias else None
                expected = convolution(x_, weights_, bias, stride, padding, dilation, groups)
                options = dict(stride=stride, padding=padding, dilation=dilation, groups=groups, algorithm="direct")
                found = sparkle.conv2d(x_, weights_, bias, device="cpu", **options)
                np.testing.assert_array_equal(found, expected)
                self.assertEqual(found.dtype, np.float32)
                with sparkle.Plan(x, weights_, bias, device="cpu", **options) as plan:
                    np.testing.assert_array_equal(plan(x_), expected)
                rectified = sparkle.conv2d(x_, weights_, bias, relu=True, **options)
                np.testing.assert_array_equal(rectified, np.maximum(expected, 0))
                compared += found.size
        self.assertGreater(compared, 5000)

    def test_every_order_and_padding(self):
        x, weights = integers((2, 6, 9, 8), 1), integers((4, 3, 3, 2), 2)
        sides = ((0, 2), (1, 0))
        padded = np.pad(x, ((0, 0), (0, 0), *sides))
        expected = convolution(padded, weights, None, (2, 1), (0, 0), (1, 1), 2)
        images = {"nchw": (0, 1, 2, 3), "nhwc": (0, 2, 3, 1)}
        kernels = {"oihw": (0, 1, 2, 3), "hwio": (2, 3, 1, 0), "ohwi": (0, 2, 3, 1)}
        for layout, axes in images.items():
            for output_layout, output_axes in images.items():
                for weights_layout, weights_axes in kernels.items():
                    options = dict(
                        stride=(2, 1),
                        padding=sides,
                        groups=2,
                        algorithm="direct",
                        layout=layout,
                        output_layout=output_layout,
                        weights_layout=weights_layout,
                        device="cpu",
                    )
                    x_, weights_ = x.transpose(axes).copy(), weights.transpose(weights_axes).copy()
                    found = sparkle.conv2d(x_, weights_, **options)
                    np.testing.assert_array_equal(found, expected.transpose(output_axes))
                    with sparkle.Plan(x_.shape, np.zeros_like(weights_), **options) as plan:
                        plan.set_weights(weights_)
                        np.testing.assert_array_equal(plan(x_), expected.transpose(output_axes))
                        with self.assertRaisesRegex(ValueError, "the plan expects"):
                            plan.set_weights(weights_[1:])
                        np.testing.assert_array_equal(plan(x_), expected.transpose(output_axes))

    def test_same_padding_and_one_image_of_channels_last(self):
        x, weights = integers((9, 8, 3), 1), integers((4, 3, 3, 3), 2)
        found = sparkle.conv2d(x, weights, stride=2, padding="same", layout="nhwc", algorithm="direct")
        padded = np.pad(x.transpose(2, 0, 1)[None], ((0, 0), (0, 0), (1, 1), (0, 1)))
        expected = convolution(padded, weights, None, (2, 2), (0, 0), (1, 1), 1)[0].transpose(1, 2, 0)
        self.assertEqual(found.shape, (5, 4, 4))
        np.testing.assert_array_equal(found, expected)
        for wrong in (dict(layout="nwhc"), dict(weights_layout="iohw"), dict(output_layout="x")):
            with self.assertRaisesRegex(ValueError, "expected"):
                sparkle.conv2d(x, weights, **wrong)
        with self.assertRaisesRegex(TypeError, "padding is"):
            sparkle.conv2d(x, weights, padding="valid")
        with self.assertRaisesRegex(sparkle.InvalidArgument, "pad_bottom is -1"):
            sparkle.conv2d(x, weights, layout="nhwc", padding=((0, -1), (0, 0)))

    def test_signals(self):
        x, weights, bias = integers((2, 3, 20), 1), integers((4, 3, 5), 2), integers(4, 3)
        padded = np.pad(x, ((0, 0), (0, 0), (1, 2)))[:, :, None]
        expected = convolution(padded, weights[:, :, None], bias, (1, 2), (0, 0), (1, 1), 1)[:, :, 0]
        options = dict(stride=2, algorithm="direct", device="cpu")
        found = sparkle.conv1d(x, weights, bias, padding=(1, 2), **options)
        np.testing.assert_array_equal(found, expected)
        found = sparkle.conv1d(x[1], weights, bias, padding="same", **options)
        np.testing.assert_array_equal(found, expected[1])
        out = np.empty((2, 10, 4), np.float32)
        last, taps = x.transpose(0, 2, 1), weights.transpose(2, 1, 0)
        given = sparkle.conv1d(last, taps, bias, padding=(1, 2), layout="nwc", weights_layout="wio", out=out, **options)
        self.assertIs(given, out)
        np.testing.assert_array_equal(out, expected.transpose(0, 2, 1))

    def test_one_image_and_numbers_for_pairs(self):
        x, weights = integers((3, 8, 8), 1), integers((4, 3, 3, 3), 2)
        expected = convolution(x[None], weights, None, (1, 1), (1, 1), (1, 1), 1)[0]
        np.testing.assert_array_equal(sparkle.conv2d(x, weights, padding=1, algorithm="direct"), expected)

    def test_strided_arrays_and_out(self):
        x, weights = integers((1, 2, 12, 20), 1), integers((4, 2, 3, 3), 2)
        part = x[:, :, ::2, ::-2]
        self.assertFalse(part.flags.c_contiguous)
        expected = convolution(part, weights, None, (1, 1), (0, 0), (1, 1), 1)
        out = np.full(expected.shape, np.nan, np.float32)
        self.assertIs(sparkle.conv2d(part, weights, algorithm="direct", out=out), out)
        np.testing.assert_array_equal(out, expected)

    def test_many_threads_share_a_plan(self):
        weights = integers((4, 2, 3, 3), 2)
        plan = sparkle.Plan((1, 2, 9, 9), weights, padding=1, algorithm="direct")
        right = []

        def work(seed):
            x = integers((1, 2, 9, 9), seed)
            expected = convolution(x, weights, None, (1, 1), (1, 1), (1, 1), 1)
            right.append(all(np.array_equal(plan(x), expected) for _ in range(20)))

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(right, [True] * 8)

    def test_every_usable_gl_device(self):
        x, weights = integers((1, 8, 16, 16), 1), integers((16, 8, 3, 3), 2)
        expected = convolution(x, weights, None, (1, 1), (1, 1), (1, 1), 1)
        for info in sparkle.devices():
            if info.usable:
                with self.subTest(info.id), sparkle.Device(info.id) as device:
                    found = sparkle.conv2d(x, weights, padding=1, algorithm="direct", device=device)
                    np.testing.assert_array_equal(found, expected)
                    self.assertEqual(sparkle.last_timing().device, info.id)


class Products(unittest.TestCase):
    def test_exact_on_integers_in_all_orders(self):
        compared = 0
        for m, n, k in [(1, 1, 1), (5, 7, 9), (64, 33, 17), (3, 4, 0), (0, 4, 3)]:
            a, b, c = integers((m, k), 1), integers((k, n), 2), integers((m, n), 3)
            expected = 2 * a.astype(np.float64) @ b - c
            for a_ in (a, np.asfortranarray(a)):
                for b_ in (b, np.asfortranarray(b)):
                    np.testing.assert_array_equal(sparkle.sgemm(a_, b_), a.astype(np.float64) @ b)
                    found = sparkle.sgemm(a_, b_, c, alpha=2, beta=-1, device="cpu")
                    np.testing.assert_array_equal(found, expected)
                    compared += 1
            out = c.copy()
            self.assertIs(sparkle.sgemm(a, b, out, alpha=2, beta=-1, out=out), out)
            np.testing.assert_array_equal(out, expected)
        self.assertEqual(compared, 20)

    def test_out_that_is_an_operand(self):
        a, b, c = integers((6, 6), 1), integers((6, 6), 2), integers((6, 6), 3)
        expected = a @ b + c
        np.testing.assert_array_equal(sparkle.sgemm(a, b, c, beta=1, out=a), expected)


class Errors(unittest.TestCase):
    x, weights = integers((1, 2, 8, 8), 1), integers((4, 2, 3, 3), 2)

    def test_arguments_are_named(self):
        conv2d, x, weights = sparkle.conv2d, self.x, self.weights
        closed = sparkle.Device("cpu")
        closed.close()
        cases = [
            (ValueError, "stride", lambda: conv2d(x, weights, stride=0)),
            (ValueError, "weights has shape", lambda: conv2d(x, weights[:, :1])),
            (ValueError, "bias has shape", lambda: conv2d(x, weights, np.zeros(3, np.float32))),
            (TypeError, "x is float64", lambda: conv2d(x.astype(np.float64), weights)),
            (TypeError, "expected a number, or a pair", lambda: conv2d(x, weights, padding=(1, 2, 3))),
            (ValueError, "algorithm is 'fft'", lambda: conv2d(x, weights, algorithm="fft")),
            (ValueError, "out has shape", lambda: conv2d(x, weights, out=np.zeros((1, 4, 6, 5), np.float32))),
            (ValueError, "expected (N, C, H, W)", lambda: conv2d(x[0, 0], weights)),
            (ValueError, "kernel", lambda: conv2d(x[:, :, :2, :2], weights)),
            (ValueError, "the device is closed", lambda: conv2d(x, weights, device=closed)),
            (ValueError, "columns", lambda: sparkle.sgemm(x[0, 0], x[0, 0, :3])),
            (ValueError, "there is no c", lambda: sparkle.sgemm(x[0, 0], x[0, 0], beta=1)),
        ]
        for kind, text, call in cases:
            with self.subTest(text), self.assertRaises(kind) as raised:
                call()
            self.assertIn(text, str(raised.exception))

    def test_statuses_are_kinds_of_exceptions(self):
        with self.assertRaises(sparkle.NoDevice) as raised:
            sparkle.Device("name=no such thing")
        self.assertEqual(raised.exception.status, 5)
        with self.assertRaises(sparkle.InvalidArgument) as raised:
            sparkle.Device("abacus")
        self.assertIn("abacus", str(raised.exception))
        with self.assertRaises(sparkle.Unsupported):
            sparkle.conv2d(self.x, self.weights, stride=2, algorithm="winograd")
        with self.assertRaises(sparkle.InvalidArgument):
            sparkle.set_num_threads(0)
        self.assertTrue(issubclass(sparkle.InvalidArgument, ValueError))
        self.assertTrue(issubclass(sparkle.OutOfMemory, MemoryError))

    def test_a_failed_call_leaves_out_as_it_was(self):
        out = np.full((1, 4, 3, 3), 7, np.float32)
        with self.assertRaises(sparkle.Error):
            sparkle.conv2d(self.x, self.weights, stride=2, algorithm="winograd", out=out)
        self.assertTrue((out == 7).all())

    def test_a_closed_plan(self):
        plan = sparkle.Plan(self.x.shape, self.weights)
        self.assertGreater(sum(plan.memory), 0)
        plan.close()
        plan.close()
        with self.assertRaisesRegex(ValueError, "the plan is closed"):
            plan(self.x)
        # Its weights were copied: neither array needs to live.
        plan = sparkle.Plan(self.x.shape, self.weights.copy(), algorithm="direct", device=sparkle.Device("cpu"))
        gc.collect()
        expected = convolution(self.x, self.weights, None, (1, 1), (0, 0), (1, 1), 1)
        np.testing.assert_array_equal(plan(self.x), expected)


class Library(unittest.TestCase):
    def test_devices_threads_and_times(self):
        devices = sparkle.devices()
        self.assertEqual((devices[0].id, devices[0].kind, devices[0].usable), ("cpu", "cpu", True))
        self.assertTrue(all(bool(it.id) == it.usable == (not it.reason) for it in devices))
        sparkle.set_num_threads(1)
        self.assertEqual(sparkle.num_threads(), 1)
        sparkle.conv2d(Errors.x, Errors.weights, device="cpu")
        timing = sparkle.last_timing()
        self.assertEqual((timing.device, timing.fallback), ("cpu", ""))
        self.assertTrue(timing.kernel and timing.wall_ms >= timing.kernel_ms >= 0)
        self.assertRegex(sparkle.__version__, r"^\d+\.\d+\.\d+$")

    def test_the_log(self):
        messages = []
        sparkle.set_log(lambda level, text: messages.append((level, text)))
        try:
            sparkle.conv2d(Errors.x, Errors.weights, device="cpu")
        finally:
            sparkle.set_log(None)
        told = len(messages)
        self.assertTrue(all(level in (0, 1, 2) and text for level, text in messages))
        sparkle.conv2d(Errors.x, Errors.weights, device="cpu")
        self.assertEqual(len(messages), told)


if __name__ == "__main__":
    unittest.main()
