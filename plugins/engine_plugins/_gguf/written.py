"""From a checkpoint's tensor names to those of a GGUF file: the inverse of :meth:`engine_plugins._gguf.model.GgufModel.placed`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from engine.errors import ConfigError
from engine.plugin import SourceModel, TensorInfo

from .families import FAMILIES, MISTRAL, MIXTRAL, Family

_EXPERT = re.compile(r"\.experts\.(\d+)\.")
#: All experts of a layer in one tensor, and the stacked tensors that the file has of it.
_FUSED = re.compile(r"layers\.(\d+)\..*experts\.(gate_up_proj|down_proj)$")
_STACKED = {"gate_up_proj": ("ffn_gate_exps", "ffn_up_exps"), "down_proj": ("ffn_down_exps",)}


@dataclass(frozen=True)
class Home:
    """Where a tensor belongs: ``name`` in the file, and of an expert's its number."""

    name: str
    expert: int | None = None


@dataclass(frozen=True)
class Written:
    """``names``: every tensor of the file with the number of its dimensions. ``experts``: how many a stacked tensor holds."""

    architecture: str
    family: Family
    names: dict[str, int]
    experts: int
    heads: tuple[int, int]

    @classmethod
    def of(cls, model: SourceModel) -> Written:
        """For a model. Raises :class:`ConfigError` for an architecture that GGUF files are not read of here."""
        architecture, family = family_of(model.config)
        heads = int(model.config.get("num_attention_heads") or model.config.get("n_head") or 1)
        known = cls(architecture, family, {}, model.info.num_experts, (heads, int(model.config.get("num_key_value_heads") or heads)))
        tied = "output.weight" if model.info.tied_embeddings else ""
        for info in model.tensors:
            for name, count in known._entries(info):
                if name != tied:
                    known.names[name] = count
        return known

    def home(self, name: str) -> Home | None:
        """Of a tensor without its suffix (``.weight``, ``.bias``, ``.q8_0``); None where the file has no such tensor."""
        for candidate in (name, f"{self.family.prefix.partition('.')[0]}.{name}"):
            for own, place in self.family.ends.items():
                if place == candidate:
                    return Home(own)
            match = re.fullmatch(re.escape(self.family.prefix) + r"\.(\d+)\.(.+)", candidate)
            if match is None:
                continue
            expert = _EXPERT.search(f".{match[2]}")
            place = _EXPERT.sub(".experts.*.", f".{match[2]}")[1:]
            for own, known in self.family.block.items():
                if known == place:
                    return Home(f"blk.{match[1]}.{own}", int(expert[1]) if expert else None)
        return None

    def _entries(self, info: TensorInfo) -> list[tuple[str, int]]:
        name, _, kind = info.name.rpartition(".")
        fused = _FUSED.search(info.name)
        if fused is not None:
            return [(f"blk.{fused[1]}.{own}.weight", 3) for own in _STACKED[fused[2]]]
        home = self.home(name)
        if home is None or kind not in ("weight", "bias"):
            return []
        return [(f"{home.name}.{kind}", len(info.shape) + (home.expert is not None))]


def family_of(config: dict[str, object]) -> tuple[str, Family]:
    """``general.architecture`` and what belongs to it. Raises :class:`ConfigError`."""
    names = config.get("architectures")
    wanted = names[0] if isinstance(names, list) and names else None
    known = {family.architecture: (name, family) for name, family in FAMILIES.items()}
    known |= {MISTRAL.architecture: ("llama", MISTRAL), MIXTRAL.architecture: ("llama", MIXTRAL)}
    if wanted not in known:
        raise ConfigError(
            f"GGUF files of {wanted} are not known here; known are {', '.join(sorted(known))}.", fix="--method int8 or --method int4"
        )
    return known[str(wanted)]
