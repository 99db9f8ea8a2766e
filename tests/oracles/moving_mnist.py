"""Plain readings of the published Moving MNIST rules, one digit and one frame at a time, in float64.

Each takes what a sample has drawn: images (rows, columns); the start in [0, 1]^2 and the velocity in pixels per
frame, both (row, column); and gives frames (num_frames, size, size).
"""

import numpy as np
from scipy import ndimage


def crop(image):
    """HKO-7 `crop_mnist_digit`: the bounding box of the pixels above 5 / 255."""
    rows = [row for row in range(28) if any(image[row, column] / 255 > 5 / 255 for column in range(28))]
    columns = [column for column in range(28) if any(image[row, column] / 255 > 5 / 255 for row in range(28))]
    return image[min(rows) : max(rows) + 1, min(columns) : max(columns) + 1]


def ddpae(images, start, velocity, num_frames):
    """DDPAE `moving_mnist.py` and Srivastava's data handler: positions are shares of a box of 36 pixels."""
    frames = np.zeros((num_frames, 64, 64))
    for image, (y, x), (v_y, v_x) in zip(images, start, velocity / 36, strict=True):
        for frame in frames:
            y, x = y + v_y, x + v_x
            if x <= 0:
                x, v_x = 0, -v_x
            if x >= 1:
                x, v_x = 1, -v_x
            if y <= 0:
                y, v_y = 0, -v_y
            if y >= 1:
                y, v_y = 1, -v_y
            _put(frame, image, int(36 * y), int(36 * x))
    return frames


def shi2015(images, start, velocity, num_frames):
    """HKO-7 `MovingMNISTIterator`: the centre is mirrored at 14 and 50, frame 0 shows the start."""
    frames = np.zeros((num_frames, 64, 64))
    for image, place, speed in zip(images, start, velocity, strict=True):
        centre, speed = [14 + 36 * place[0], 14 + 36 * place[1]], list(speed)
        for frame in frames:
            _put(frame, image, int(centre[0] - 14), int(centre[1] - 14))
            for axis in (0, 1):
                centre[axis] += speed[axis]
                while not 14 <= centre[axis] <= 50:
                    wall = 14 if centre[axis] < 14 else 50
                    centre[axis], speed[axis] = 2 * wall - centre[axis], -speed[axis]
    return frames


def hko7(images, start, velocity, rotation, scale, illumination, num_frames):
    """HKO-7 `MovingMNISTAdvancedIterator` without distractors; ``rotation`` (D,) is in degrees per frame."""
    frames = np.zeros((num_frames, 64, 64))
    for digit, image in enumerate(images):
        height, width = image.shape
        shift = np.array([start[digit, 1] * (64 - width), start[digit, 0] * (64 - height)])  # x, y
        speed = np.array(velocity[digit][::-1])
        angle, size, light = 0.0, 1.0, 1.0
        for i in range(num_frames):
            if i > 0:
                sign = 2 * ((i // 5) % 2) - 1
                light *= illumination ** (-sign)
                size *= scale[digit] ** sign
                angle += rotation[digit]
                shift = shift + speed
                centre = shift + np.array([width / 2, height / 2])
                for axis in (0, 1):
                    inside = min(max(centre[axis], 10.0), 54.0)
                    if inside != centre[axis]:
                        speed[axis] = -speed[axis]
                        shift[axis] += inside - centre[axis]
            frames[i] = np.maximum(frames[i], _warp(image * light, angle, size, shift))
    return frames


def _put(frame, image, top, left):
    part = frame[top : top + 28, left : left + 28]
    part[:] = np.maximum(part, image)


def _warp(image, degrees, scale, shift):
    """OpenCV's `getRotationMatrix2D` about (width / 2, height / 2), and `warpAffine` with a border of zeros."""
    x, y = image.shape[1] / 2, image.shape[0] / 2
    alpha, beta = scale * np.cos(np.deg2rad(degrees)), scale * np.sin(np.deg2rad(degrees))
    matrix = np.array([[alpha, beta, (1 - alpha) * x - beta * y], [-beta, alpha, beta * x + (1 - alpha) * y]])
    matrix[:, 2] += shift
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[[1, 0, 2]][:, [1, 0, 2]]  # in rows, columns
    return ndimage.affine_transform(image, inverse, output_shape=(64, 64), order=1, mode="grid-constant")
