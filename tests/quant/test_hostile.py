"""Damaged contents of every method's tensors and configs: refused by name, never a crash, a hang or another kind of error."""

from __future__ import annotations

import json
import shutil
import time
from importlib.metadata import entry_points

import pytest
import torch
from safetensors.torch import save_file

from engine.errors import ConfigError, EngineError, ModelFileError
from tests.plugins.models.harness import Player, Sequence
from tests.quant.checkpoints import load_model, tensors_of
from tests.quant.subjects import SUBJECTS, source

#: Seconds of work within which a damaged checkpoint must be refused: a busy machine takes longer by the clock.
SOON = 2.0


def other_dtype(tensor):
    if tensor.dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
        return tensor.view(torch.int8)
    return tensor.to(torch.int32) if tensor.is_floating_point() else tensor.float()


#: What breaks any tensor that is needed; None where it does not apply to this one.
BROKEN = {
    "missing": lambda t: None,
    "dtype": other_dtype,
    "empty": lambda t: t[:0] if t.dim() else t.new_zeros(0),
    "a row less": lambda t: t[:-1].clone() if t.dim() else t.new_zeros(2),
    "twice": lambda t: torch.cat([t.view(torch.uint8), t.view(torch.uint8)]).view(t.dtype) if t.dim() else t.new_zeros(2, 2),
    "a column less": lambda t: t[..., :-1].clone(),
    "another dimension": lambda t: torch.stack([t.view(torch.uint8)] * 2).view(t.dtype) if t.dim() else t.new_zeros(3, 2),
}
UNSOUND = {"nan": float("nan"), "inf": float("inf"), "minus inf": float("-inf"), "huge": 3e38}
#: Contents that a format can hold: whatever comes of it, nothing may break.
ODD = {
    "zeros": lambda t: torch.zeros_like(t),
    "ones everywhere": lambda t: torch.full_like(t.contiguous().view(torch.uint8) if t.dim() else t.reshape(1).view(torch.uint8), 255),
    "least": lambda t: torch.full_like(t, torch.iinfo(t.dtype).min) if not t.is_floating_point() else (-t.float().abs()).to(t.dtype),
    "noise": lambda t: torch.randint(0, 256, (t.numel() * t.element_size(),), dtype=torch.uint8),
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """The sound checkpoint of a subject, written once."""
    root = tmp_path_factory.mktemp("hostile")
    sources = {mixture: source(root / f"plain-{mixture}", mixture) for mixture in (False, True)}
    made = {}

    def of(subject):
        if subject.name not in made:
            made[subject.name] = root / str(len(made))
            subject.write(made[subject.name], sources[subject.mixture])
        return made[subject.name]

    return of


def run(path, subject):
    """Load by the CPU's own kernels and take a step."""
    started = time.process_time()
    try:
        model, context = load_model(path, native=True, dtype="bfloat16", **subject.flags)
    finally:
        assert time.process_time() - started < SOON
    return Player(model, context, pages=64, dtype=context.dtype).step([(Sequence([5, 17, 99, 3], 0), 4)])


def damaged(checkpoint, folder, name, tensor):
    """A copy of the checkpoint with one tensor in place of another (None: without it)."""
    tensors = tensors_of(checkpoint) | ({name: tensor} if tensor is not None else {})
    if tensor is None:
        del tensors[name]
    shutil.copytree(checkpoint, folder, dirs_exist_ok=True)
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def needed(subject, checkpoint):
    """(full name, tensor) of what the damaged layers need."""
    tensors = tensors_of(checkpoint)
    for layer in subject.layers:
        for suffix in subject.suffixes(checkpoint, layer):
            if suffix not in subject.unused:
                yield f"{layer}.{suffix}", tensors[f"{layer}.{suffix}"], suffix


def layer_of(subject, name):
    return next(layer for layer in subject.layers if name.startswith(f"{layer}."))


def test_every_method_is_here():
    # gguf has a suite of its own.
    methods = {entry.name for entry in entry_points(group="engine.quantization")} - {"gguf"}
    assert {subject.method for subject in SUBJECTS} == methods


@pytest.mark.parametrize("subject", SUBJECTS, ids=[subject.name for subject in SUBJECTS])
class TestTensors:
    def test_sound(self, subject, checkpoints):
        assert torch.isfinite(run(checkpoints(subject), subject)).all()

    def test_broken_ones_are_refused_by_name(self, subject, checkpoints, tmp_path):
        checkpoint = checkpoints(subject)
        wrong = []
        for name, tensor, suffix in needed(subject, checkpoint):
            for what, change in BROKEN.items():
                if (what == "missing" and suffix in subject.optional) or (what == "dtype" and suffix in subject.either):
                    continue
                if tensor.numel() == 1 and what in ("a row less", "a column less"):
                    continue
                path = damaged(checkpoint, tmp_path / "q", name, change(tensor))
                wrong += refusal(path, subject, f"{name}: {what}", (name, layer_of(subject, name)))
        assert not wrong, "\n".join(wrong)

    def test_unsound_numbers_are_refused_by_name(self, subject, checkpoints, tmp_path):
        checkpoint = checkpoints(subject)
        wrong = []
        for name, tensor, _ in needed(subject, checkpoint):
            if not tensor.is_floating_point():
                continue
            for what, number in UNSOUND.items():
                changed = tensor.float().clone()
                changed.view(-1)[-1] = number
                changed = changed.to(tensor.dtype)
                if bool(torch.isfinite(changed.float()).all()) and float(changed.float().abs().max()) < 1e30:
                    continue  # this type cannot hold it
                path = damaged(checkpoint, tmp_path / "q", name, changed)
                wrong += refusal(path, subject, f"{name}: {what}", (name, layer_of(subject, name)))
        assert not wrong, "\n".join(wrong)

    def test_odd_contents_break_nothing(self, subject, checkpoints, tmp_path):
        checkpoint = checkpoints(subject)
        torch.manual_seed(0)
        for name, tensor, _ in needed(subject, checkpoint):
            for what, change in ODD.items():
                made = change(tensor)
                changed = made.view(-1).view(tensor.dtype).view(tensor.shape) if made.dtype != tensor.dtype else made
                path = damaged(checkpoint, tmp_path / "q", name, changed)
                try:
                    run(path, subject)
                except ModelFileError as error:
                    assert layer_of(subject, name) in str(error), f"{name}: {what}: {error}"

    def test_an_unknown_tensor_is_named(self, subject, checkpoints, tmp_path):
        name = f"{subject.layers[0]}.surprise"
        path = damaged(checkpoints(subject), tmp_path / "q", name, torch.zeros(3))
        assert not refusal(path, subject, name, (name,))


def refusal(path, subject, what, names):
    """Nothing where the checkpoint is refused as it should be, else what happened."""
    try:
        run(path, subject)
    except ModelFileError as error:
        if not any(f"'{name}" in str(error) or f" {name}" in str(error) for name in names):
            return [f"{what}: names no tensor: {error}"]
        return [] if "model.safetensors" in str(error) or "lacks" in str(error) else [f"{what}: names no file: {error}"]
    except Exception as error:  # noqa: BLE001 - any other kind is what the test is after
        return [f"{what}: {type(error).__name__}: {error}"]
    return [f"{what}: accepted"]


VALUES = (0, -1, 3, 10**9, 10**30, 2.5, "x", "", True, None, [], [1], [[]], [{}], {}, {"x": {}}, [None], float("nan"))


def places(value, path=()):
    """The ways to every value within a JSON object."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def put(value, path, new):
    """A copy with another value at that place."""
    copy = json.loads(json.dumps(value))
    if not path:
        return new
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = new
    return copy


def editable(checkpoint, place, subject):
    """A copy of a checkpoint at ``place``: its quantization config, and what writes another in its stead."""
    shutil.copytree(checkpoint, place)
    target = place / ("config.json" if subject.config else next(iter(subject.files)))
    whole = json.loads(target.read_text())

    def write(new):
        target.write_text(json.dumps(whole | {"quantization_config": new} if subject.config else new))

    return (whole["quantization_config"] if subject.config else whole), write


CONFIGURED = [subject for subject in SUBJECTS if subject.config or subject.files]


@pytest.mark.parametrize("subject", CONFIGURED, ids=[subject.name for subject in CONFIGURED])
def test_odd_configs_break_nothing(subject, checkpoints, tmp_path):
    own, write = editable(checkpoints(subject), tmp_path / "q", subject)
    wrong = []
    for place in places(own):
        for value in VALUES:
            new = put(own, place, value)
            write(new)
            try:
                run(tmp_path / "q", subject)
            except EngineError as error:
                if not isinstance(error, ModelFileError | ConfigError) and "no such plugin" not in str(error):
                    wrong.append(f"{place} {value!r}: {type(error).__name__}: {error}")
            except Exception as error:  # noqa: BLE001 - as above
                wrong.append(f"{place} {value!r}: {type(error).__name__}: {error}")
    assert not wrong, "\n".join(wrong)


SIZES = ("bits", "wbits", "num_bits", "nbits", "group_size", "in_group_size", "num_codebooks", "nbits_per_codebook", "weight_block_size")


@pytest.mark.parametrize("subject", CONFIGURED, ids=[subject.name for subject in CONFIGURED])
def test_impossible_sizes_are_refused_by_key(subject, checkpoints, tmp_path):
    own, write = editable(checkpoints(subject), tmp_path / "q", subject)
    found = [place for place in places(own) if place and place[-1] in SIZES and own is not None]
    for place in found:
        for value in (-2, "4", 10**9, [], {"a": 1}, 2.5, True):
            if value == [] and place[-1] == "weight_block_size":
                continue
            new = put(own, place, value)
            write(new)
            # Where a flag names a method that takes over another's checkpoints, the flag does not fit the checkpoint.
            with pytest.raises((ModelFileError, ConfigError), match=f"{place[-1]}|checkpoint.* bits"):
                run(tmp_path / "q", subject)
