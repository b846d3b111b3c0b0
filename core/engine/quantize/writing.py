"""From a source to a folder: one tensor at a time, each matrix rounded by the method, its error measured, the small files copied."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.config import EngineConfig
from engine.footprint import trim
from engine.layers.packed_rounding import row_slices
from engine.plugin.contracts.packed import LinearShape, PackedWeight
from engine.plugin.contracts.producing import Producer
from engine.quantize.output import ENTRY, SafetensorsOutput
from engine.quantize.source import Matrix, Source
from engine.worker.save import side_files

#: Tensors that a method may make of one.
_MOST_TENSORS = 6
#: Bytes after which freed memory is given back to the system.
_TRIM_EVERY = 64 << 20


@dataclass
class Written:
    """What was done: ``error`` is Σ(ŵ - w)², ``square`` Σw² of quantized matrices; ``worst`` the largest |ŵ - w| / max|w| of a layer.

    ``before`` and ``after``: bytes of all tensors. ``kept``: names of the matrices that stay as they are.
    """

    before: int = 0
    after: int = 0
    error: float = 0.0
    square: float = 0.0
    worst: float = 0.0
    worst_layer: str = ""
    quantized: list[LinearShape] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)

    def rms(self) -> float:
        """Error of the quantized weights relative to them, in root mean square."""
        return (self.error / self.square) ** 0.5 if self.square else 0.0


def expected_bytes(source: Source, producer: Producer, excluded: Callable[[str], bool]) -> int:
    """About how large the result will be."""
    total = 0.0
    for info in source.infos:
        matrices = source.matrices.get(info.name, ())
        taken = [m.layer for m in matrices if producer.takes(m.layer) and not excluded(m.layer.name)]
        elements, quantized = sum(m.layer.inputs * m.layer.outputs for m in matrices), sum(each.inputs * each.outputs for each in taken)
        total += sum(each.inputs * each.outputs * producer.bits_of(each) for each in taken) / 8
        total += info.nbytes * (elements - quantized) / elements if elements else info.nbytes
    return int(total)


def write(
    source: Source, producer: Producer, excluded: Callable[[str], bool], folder: Path, file_bytes: int, advance: Callable[[int], None]
) -> Written:
    """Write the checkpoint into ``folder``. ``excluded``: layers that the user wants left alone; ``advance``: told bytes of the source."""
    done = Written()
    own = producer.open_output(folder)
    room = sum((len(info.name) + 64 + ENTRY) * _MOST_TENSORS * max(1, len(source.matrices.get(info.name, ()))) for info in source.infos)
    output = own or SafetensorsOutput(folder, file_bytes, room)
    passed = 0
    try:
        with torch.inference_mode():
            for name, tensor in source.tensors(known=own is not None):
                done.before += tensor.nbytes
                for each, part in _written(source, producer, excluded, name, tensor, done, apart=own is not None):
                    done.after += part.nbytes
                    output.add(each, part)
                passed += tensor.nbytes
                advance(tensor.nbytes)
                if passed > _TRIM_EVERY:
                    trim()
                    passed = 0
        _note_kept(source, done)
        output.finish()
    finally:
        output.close()
    _write_small_files(source, producer, done, folder)
    return done


def _written(
    source: Source, producer: Producer, excluded: Callable[[str], bool], name: str, tensor: Tensor, done: Written, *, apart: bool
) -> Iterator[tuple[str, Tensor]]:
    """What becomes of one tensor of the source. ``apart``: experts in one tensor come one by one, quantized or not."""
    matrices = source.matrices.get(name, ())
    taken = [matrix for matrix in matrices if producer.takes(matrix.layer) and not excluded(matrix.layer.name)]
    fused = bool(matrices) and matrices[0].expert is not None
    if not taken and not (fused and apart):
        yield name, tensor
        return
    for matrix in matrices:
        weight, layer = matrix.of(tensor), matrix.layer
        if matrix not in taken:
            yield f"{layer.name}.weight", weight
            continue
        produced = producer.produce(layer, weight)
        done.quantized.append(layer)
        _measure(matrix, weight, produced.meaning, done)
        for suffix, part in produced.tensors.items():
            yield f"{layer.name}.{suffix}", part


def _measure(matrix: Matrix, weight: Tensor, meaning: PackedWeight, done: Written) -> None:
    worst = largest = 0.0
    for rows in row_slices(matrix.layer.outputs, matrix.layer.inputs):
        wanted = weight[rows].float()
        difference = meaning.take(rows, torch.float32).sub_(wanted)
        worst, largest = max(worst, float(difference.abs().max())), max(largest, float(wanted.abs().max()))
        done.error += float(difference.square().sum(dtype=torch.float64))
        done.square += float(wanted.square().sum(dtype=torch.float64))
    if largest and worst / largest > done.worst:
        done.worst, done.worst_layer = worst / largest, matrix.layer.name


def _note_kept(source: Source, done: Written) -> None:
    """Every matrix of the checkpoint that stays, embeddings aside, and a tied head, which has no tensor of its own."""
    changed = {layer.name for layer in done.quantized}
    ends = {layer.name for layer in source.layers if layer.role == "embedding"}
    names = []
    for info in source.infos:
        if info.name in source.matrices:
            names += [matrix.layer.name for matrix in source.matrices[info.name]]
        elif len(info.shape) == 2 and info.name.endswith(".weight"):
            names.append(info.name.removesuffix(".weight"))
    head = source.head()
    # A tied head is what the embedding is.
    if head is not None and not ends & changed:
        names.append(head)
    done.kept = [name for name in dict.fromkeys(names) if name not in changed and name not in ends]


def _write_small_files(source: Source, producer: Producer, done: Written, folder: Path) -> None:
    """Tokenizer, templates, generation settings; and the configuration, last: a folder with it is whole."""
    config = producer.quantization_config(done.quantized, done.kept)
    for file in side_files(source.config):
        if file.name not in ("config.json", "params.json"):
            shutil.copyfile(file, folder / file.name)
    if config is not None:
        content = _configuration(source.config) | {"quantization_config": config}
        (folder / "config.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _configuration(config: EngineConfig) -> dict[str, Any]:
    """config.json as it is, where it is what the engine read; else what it read, in that spelling."""
    file = Path(config.model.checkpoint.config_path) / "config.json"
    if config.choices["config_format"].name == "hf" and file.is_file():
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return content
    return config.model.config
