"""Rows of token ids as tensors: each on a line of its own, or packed so that rows share lines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from dormant.chat import Row


def pad_right(rows: Sequence[Row]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Stack rows into (ids, attention, mask), each [rows, longest]: int64, int64, bool.

    Padding has id 0, attention 0 and mask False, so that no pad token has to exist.
    """
    lengths = [len(row.input_ids) for row in rows]
    shape = (len(rows), max(lengths))
    ids, attention, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape, bool)
    for i, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        ids[i, :length] = row.input_ids
        attention[i, :length] = 1
        mask[i, :length] = row.mask
    return torch.from_numpy(ids), torch.from_numpy(attention), torch.from_numpy(mask)


def pack(rows: Sequence[Row]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Lay rows end to end on lines as long as the longest row: (ids, positions, mask), each [lines, longest].

    Positions begin at 0 with each row, by which a network knows where rows part
    (:func:`dormant.models.reads_packed`).  Padding at a line's end is a row of its own that nothing is learned from,
    and a row's first token is never in the mask.
    """
    width = max(len(row.input_ids) for row in rows)
    lines = _fill(rows, width)
    shape = (len(lines), width)
    ids, positions, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape, bool)
    for i, line in enumerate(lines):
        start = 0
        for row in line:
            end = start + len(row.input_ids)
            ids[i, start:end] = row.input_ids
            positions[i, start:end] = np.arange(end - start)
            mask[i, start + 1 : end] = row.mask[1:]
            start = end
        positions[i, start:] = np.arange(width - start)
    return torch.from_numpy(ids), torch.from_numpy(positions), torch.from_numpy(mask)


def _fill(rows: Sequence[Row], width: int) -> list[list[Row]]:
    """Put each row, longest first, on the line where it leaves the least room."""
    lines: list[list[Row]] = []
    room: list[int] = []
    for row in sorted(rows, key=lambda row: -len(row.input_ids)):
        length = len(row.input_ids)
        fitting = [i for i, left in enumerate(room) if left >= length]
        if fitting:
            best = min(fitting, key=room.__getitem__)
            lines[best].append(row)
            room[best] -= length
        else:
            lines.append([row])
            room.append(width - length)
    return lines
