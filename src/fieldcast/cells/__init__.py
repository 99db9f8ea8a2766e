"""Recurrent updates at a frame, one file each: ``cell(frame, state) -> state``."""

from fieldcast.cells.convgru import ConvGRUCell, ConvGRUState
from fieldcast.cells.convlstm import ConvLSTMCell, ConvLSTMState
from fieldcast.cells.trajgru import TrajGRUCell, TrajGRUState

CELLS = {"convlstm": ConvLSTMCell, "convgru": ConvGRUCell, "trajgru": TrajGRUCell}

__all__ = ["CELLS", "ConvGRUCell", "ConvGRUState", "ConvLSTMCell", "ConvLSTMState", "TrajGRUCell", "TrajGRUState"]
