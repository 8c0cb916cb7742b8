"""Counts with a kernel of ones how many pixels of an image lie below it."""

import numpy as np
import sparkle

ones = np.ones((1, 1, 3, 3), np.float32)
counts = sparkle.conv2d(ones, ones, padding=1)
print(*(int(count) for count in (counts[0, 0, 0, 0], counts[0, 0, 0, 1], counts[0, 0, 1, 1])))
