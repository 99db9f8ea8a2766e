"""Trains or resumes in a process of its own: driver.py (train | resume) FOLDER CONFIG.json."""

import json
import sys
from pathlib import Path

import torch

from fieldcast.config import read_config
from fieldcast.errors import FieldcastError
from fieldcast.training.loop import resume, train

torch.set_num_threads(1)
verb, folder, values = sys.argv[1:]
try:
    if verb == "train":
        train(read_config(json.loads(Path(values).read_text())), folder)
    else:
        resume(folder)
except FieldcastError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
