"""Frames per second of processor time of the Moving MNIST presets, and the ratio to a plain loop."""

import argparse
import math
import time

import numpy as np

from fieldcast.data.digits import load_digits
from fieldcast.data.moving_mnist import PRESETS, MovingMNIST, MovingMNISTConfig


def place_whole(frame, image, y, x, turn):
    top, left = int(y), int(x)
    part = frame[top : top + image.shape[0], left : left + image.shape[1]]
    part[:] = np.maximum(part, image)


def place_between(frame, image, y, x, turn):
    down, right = y - math.floor(y), x - math.floor(x)
    padded = np.pad(image.astype(np.float32), 1)
    rows = (1 - down) * padded[1:] + down * padded[:-1]
    place_whole(frame, (1 - right) * rows[:, 1:] + right * rows[:, :-1], y, x, turn)


def place_turned(frame, image, y, x, turn):
    """Every pixel of the frame takes its value from the turned digit."""
    half = np.array(image.shape) / 2
    rows, columns = np.mgrid[: frame.shape[0], : frame.shape[1]] - (np.array([y, x]) + half)[:, None, None]
    cosine, sine = math.cos(turn), math.sin(turn)
    inside = [extent + 0.999 for extent in image.shape]
    rows, columns = half[0] + sine * columns + cosine * rows + 1, half[1] + cosine * columns - sine * rows + 1
    rows, columns = np.clip(rows, 0, inside[0]), np.clip(columns, 0, inside[1])
    top, left, padded = rows.astype(int), columns.astype(int), np.pad(image.astype(np.float32), 1)
    down, right = rows - top, columns - left
    upper = (1 - right) * padded[top, left] + right * padded[top, left + 1]
    lower = (1 - right) * padded[top + 1, left] + right * padded[top + 1, left + 1]
    np.maximum(frame, (1 - down) * upper + down * lower, out=frame)


def plain(place, num_digits, images, random, num_frames):
    """Digits in a box of 36 pixels, drawn one at a time and one frame at a time, as published generators do."""
    frames = np.zeros((num_frames, 1, 72, 72), np.float32)
    for _ in range(num_digits):
        image = images[random.integers(len(images))]
        y, x, turn = random.random(3)
        step_y, step_x = 0.1 * math.sin(2 * math.pi * turn), 0.1 * math.cos(2 * math.pi * turn)
        for number, frame in enumerate(frames[:, 0]):
            y, x = y + step_y, x + step_x
            if not 0 < x < 1:
                x, step_x = min(max(x, 0), 1), -step_x
            if not 0 < y < 1:
                y, step_y = min(max(y, 0), 1), -step_y
            place(frame, image, 4 + 36 * y, 4 + 36 * x, 0.5 * number)
    return frames[:, :, 4:68, 4:68]


def rate(make, num_frames, seconds):
    """Frames per second of processor time of ``make(index)``, called for about so many seconds."""
    make(0)
    start, count = time.process_time(), 0
    while time.process_time() - start < seconds:
        count += 1
        make(count)
    return count * num_frames / (time.process_time() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--digits", help="a file of digits")
    parser.add_argument("--num-frames", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each number")
    options = parser.parse_args()
    images, random = load_digits(options.digits), np.random.default_rng(0)
    positions = np.arange(options.num_frames)
    for preset, rule in PRESETS.items():
        config = MovingMNISTConfig(preset=preset, digits=options.digits, num_frames=options.num_frames)
        sequences = MovingMNIST(config, seed=0).sequences("train", 10**9)
        upright = place_whole if rule.whole_pixels else place_between
        place = upright if rule.rotation == (0.0, 0.0) else place_turned

        def loop(index, place=place, num_digits=rule.num_digits):
            return plain(place, num_digits, images, random, options.num_frames)

        reference = rate(loop, options.num_frames, options.seconds)
        own = rate(lambda index, own=sequences: own[index].read(positions), options.num_frames, options.seconds)
        print(f"{preset:16s}{own:10,.0f} frames/s; plain loop {reference:10,.0f}; ratio {own / reference:.2f}")


if __name__ == "__main__":
    main()
