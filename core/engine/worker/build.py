"""Builds a worker's model from the configuration: the chosen plugins, the weights, what is missing."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TYPE_CHECKING

import torch

from engine.config import EngineConfig
from engine.errors import ConfigError, ModelFileError
from engine.plugin.contracts.attention import AttentionBackend
from engine.plugin.contracts.device import Device
from engine.plugin.contracts.loading import Loader
from engine.plugin.contracts.model import Model, ModelContext, Parallel, torch_operations
from engine.plugin.contracts.packed import Quantizer
from engine.plugin.contracts.serving import ModelArchitecture
from engine.plugin.facts import TensorInfo
from engine.plugin.host import load
from engine.plugin.kinds import DEVICE, LOADER, MODEL, MODEL_IMPL, QUANTIZATION
from engine.worker.kernels import Kernels
from engine.worker.kv_scales import take_scales
from engine.worker.offload import Offload

if TYPE_CHECKING:
    from torch import Tensor

Progress = Callable[[str, int, int], None]

#: Least seconds between two reports of loading progress.
REPORT_EVERY = 0.1


def torch_dtype(name: str, what: str) -> torch.dtype:
    """The torch dtype of that name; ``what`` names the setting in the error."""
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise ConfigError(f"{what} {name}: torch has no such dtype.", fix=f"{what} float32")
    return dtype


def open_device(config: EngineConfig, rank: int) -> Device:
    """The chosen device; ranks take local devices in order."""
    return load(config.choices["device"], DEVICE, index=rank, options={})


def attention_of(device: Device, config: EngineConfig) -> AttentionBackend:
    """The device's attention or the core's; refused where it cannot run one of the model's layers."""
    from engine.attention import built_in

    backend = device.attention() or built_in(device.torch_device().type)
    dtype = torch_dtype(config.cache.dtype, "--kv-cache-dtype")
    for spec in set(config.model.info.layers):
        reason = backend.supports(spec.sharded(config.parallel.tensor_parallel), dtype)
        if reason:
            raise ConfigError(
                f"{config.model.info.architecture}: attention ({backend.name}) cannot run this model: {reason}.",
                fix="--device cpu",
            )
    return backend


def build_model(
    config: EngineConfig, device: Device, parallel: Parallel, attention: AttentionBackend, kernels: Kernels | None = None,
    offload: Offload | None = None,
) -> Model:  # fmt: skip
    """The network of this worker, its weights not loaded. ``offload``: takes those that stay in host memory."""
    m = config.model
    context = ModelContext(
        info=m.info,
        config=m.config,
        dtype=torch_dtype(m.dtype, "--dtype"),
        device=device.torch_device(),
        parallel=parallel,
        attention=attention,
        kernel=kernels or Kernels(device),
        quantizer=create_quantizer(config),
        checkpoint_path=m.checkpoint.path,
        max_model_len=m.max_model_len,
        ops=device.operations() or torch_operations(),
        offload=offload,
    )
    return architecture_of(config).build(context)


def architecture_of(config: EngineConfig) -> ModelArchitecture:
    """The registered architecture that was chosen, or the one that the model implementation provides itself."""
    if "model" in config.choices:
        return load(config.choices["model"], MODEL)
    from engine.plugin.host import PluginHost

    native = {entry.name: entry.distribution for entry in PluginHost().entries(MODEL)}
    answer = load(config.choices["model_impl"], MODEL_IMPL).architecture(config.model.config, native)
    if isinstance(answer, str):
        raise ConfigError(
            f"--model-impl {config.choices['model_impl'].name} names the architecture {answer!r}, which was not chosen "
            "at the start.",
            fix="--model-impl auto",
        )
    return answer


def create_quantizer(config: EngineConfig) -> Quantizer | None:
    """The chosen quantization method on this checkpoint; None for plain weights."""
    choice = config.choices.get("quantization")
    if choice is None:
        return None
    return load(
        choice, QUANTIZATION, checkpoint=config.model.checkpoint,
        config=config.model.quantization, info=config.model.info,
    )  # fmt: skip


def load_weights(model: Model, config: EngineConfig, rank: int, progress: Progress | None) -> None:
    """Read this rank's share of the checkpoint and finish the model. Raises :class:`~engine.errors.ModelFileError`."""
    loader = load(
        config.choices["loader"], LOADER, checkpoint=config.model.checkpoint, info=config.model.info,
        options=dict(config.load.options),
    )  # fmt: skip
    try:
        loader.serve_rank(rank, config.parallel.tensor_parallel)
        saved = loader.own_state()
        _fill(model, config, loader, rank, progress)
    except ModelFileError as error:
        raise located(error, loader.describe()) from error
    finally:
        loader.close()
    if not saved:
        take_scales(model, config, rank)


def _fill(model: Model, config: EngineConfig, loader: Loader, rank: int, progress: Progress | None) -> None:
    tensors = loader.tensors()
    if rank == 0:
        tensors = _reported(tensors, loader.nbytes(), progress, config.load.progress)
    if loader.own_state():
        restore(model, tensors, [info.name for info in loader.describe()])
        return
    if loader.complete():
        model.expect({info.name for info in loader.describe()})
    missing = model.load(tensors)
    if missing and not loader.complete():
        missing = invent(model, loader, missing)
    elif missing:
        raise ModelFileError(
            f"The checkpoint lacks {len(missing)} tensors of {config.model.info.architecture}: {_some(missing)}.",
            fix="--hf-overrides '{\"tie_word_embeddings\": true}', if the embedding is the head too" if set(missing) == {"lm_head.weight"}
            else "check that config.json and the weight files belong together",
        )  # fmt: skip
    model.finish()


def located(error: ModelFileError, tensors: Iterable[TensorInfo]) -> ModelFileError:
    """The error with the file of the tensor, or of another tensor of the layer, that its message quotes first."""
    files = [(info.name, os.path.basename(info.file)) for info in tensors]
    for name in re.findall(r"'([^']+)'", str(error)):
        # Of a tensor that is not there, what stands beside it.
        while name:
            # A name as short as ``model.layers`` is that of all of them: only what stands directly below counts.
            whole = name.count(".") > 1
            for known, file in files:
                below = known.startswith(f"{name}.") and (whole or known.rpartition(".")[0] == name)
                if f".{name}".endswith(f".{known}") or below:
                    return error if file in str(error) else type(error)(f"{file}: {error}", fix=error.fix)
            name = name.rpartition(".")[0]
    return error


def restore(model: Model, tensors: Iterable[tuple[str, Tensor]], names: Collection[str]) -> None:
    """Load a saved state into a native network and finish it."""
    from engine.layers.model import NativeModel
    from engine.layers.state import restore_state

    if not isinstance(model, NativeModel):
        raise ConfigError("A saved state of the engine's layers needs a native architecture.", fix="--model-impl vllm")
    with torch.no_grad():
        missing = restore_state(model, tensors, names)
    if missing:
        lacking = f"The saved state lacks {len(missing)} layers: {_some(missing)}."
        raise ModelFileError(lacking, fix="save it again with engine save-sharded")
    model.finish()


def invent(model: Model, loader: Loader, missing: set[str]) -> set[str]:
    """Let the loader (``dummy``) fill what stayed empty; returns the names that it did not fill.

    Shapes come from the model's layers, in the checkpoint's spelling, or from its parameters.
    """
    from engine.layers.loading import collect_slots

    if not isinstance(model, torch.nn.Module):
        return missing
    shapes = {name: slot.shape for name, slot in collect_slots(model).items() if slot.shape is not None}
    shapes |= {name: tuple(parameter.shape) for name, parameter in model.named_parameters() if name not in shapes}
    filled: set[str] = set()

    def invented() -> Iterator[tuple[str, Tensor]]:
        for name in sorted(missing & set(shapes)):
            tensor = torch.empty(shapes[name])
            if loader.invent(name, tensor):
                filled.add(name)
                yield name, tensor

    model.load(invented())
    return missing - filled


def _some(names: set[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:6]) + (f" and {len(listed) - 6} more" if len(listed) > 6 else "")


def _reported(
    tensors: Iterator[tuple[str, Tensor]], total: int, progress: Progress | None, bar: bool
) -> Iterator[tuple[str, Tensor]]:
    """The same tensors, with a progress bar on the terminal and reports to the front end (bytes)."""
    from tqdm import tqdm

    done, reported = 0, 0.0
    # None: no bar where nobody watches, it would stand before the cause in the last line of a log
    hidden = None if bar else True
    with tqdm(total=total, unit="B", unit_scale=True, desc="Loading weights", disable=hidden, leave=False) as meter:
        for name, tensor in tensors:
            yield name, tensor
            size = tensor.numel() * tensor.element_size()
            done += size
            meter.update(size)
            now = time.monotonic()
            if progress is not None and now - reported >= REPORT_EVERY:
                progress("weights", done, total)
                reported = now
    if progress is not None:
        progress("weights", done, total)
