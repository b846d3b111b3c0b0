"""Any causal language model of transformers, its attention on the engine's paged cache."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from engine.errors import ModelFileError
from engine.layers.rope import context_length
from engine.plugin import AttentionSpec, Model, ModelContext, ModelInfo, hookimpl
from engine.plugin.contracts.serving import ModelArchitecture, ModelImplementation
from engine.plugin.facts import CODE
from engine_plugins.model_impls._names import architectures, check_name
from engine_plugins.model_impls._remote import TRUST, remote_class

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

ENGINE_API = 1
_ATTENTION_TYPES = ("full_attention", "sliding_attention")


class TransformersArchitecture(ModelArchitecture):
    """What transformers' own configuration class says. Imports transformers, and with it torch.

    ``note`` says why this class was taken; it precedes the complaint where the class cannot be served.
    """

    def __init__(self, note: str = "") -> None:
        self.note = note

    def describe(self, config: dict[str, Any]) -> ModelInfo:
        """Attention shapes from the config; the model checks them against its layers when it is loaded."""
        try:
            return self._describe(config)
        except ModelFileError as error:
            raise ModelFileError(f"{self.note} {error}".strip(), fix=error.fix) from error

    def _describe(self, config: dict[str, Any]) -> ModelInfo:
        own = own_config(config)
        check_name(architectures(config)[0], causal_class(own, config).__name__)
        text = own.get_text_config(decoder=True)
        eos = own.eos_token_id if own.eos_token_id is not None else text.eos_token_id
        return ModelInfo(
            architecture=architectures(config)[0],
            vocab_size=text.vocab_size,
            hidden_size=text.hidden_size,
            layers=tuple(_spec(text, index) for index in range(text.num_hidden_layers)),
            max_model_len=_length(config, text),
            dtype=str(own.dtype or "float32").removeprefix("torch."),
            logits_size=text.vocab_size,
            supports=frozenset({"speculation"}),
            tied_embeddings=bool(own.tie_word_embeddings),
            eos_token_ids=tuple(eos) if isinstance(eos, list) else () if eos is None else (eos,),
            bos_token_id=own.bos_token_id,
        )

    def build(self, context: ModelContext) -> Model:
        """A shell that becomes the network when it is loaded."""
        from engine_plugins.model_impls._transformers_model import TransformersModel

        own = own_config(context.config)
        return TransformersModel(context, own, causal_class(own, context.config))


def own_config(config: dict[str, Any]) -> PreTrainedConfig:
    """The config as transformers' class of its ``model_type``; raises :class:`ModelFileError` where there is none."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import CONFIG_MAPPING

    kind = config.get("model_type")
    if config.get("quantization_config"):
        raise ModelFileError("--model-impl transformers does not read quantized checkpoints.", fix="--model-impl vllm")
    remote = remote_class(config, "AutoConfig")
    if remote is None and kind not in CONFIG_MAPPING:
        near = difflib.get_close_matches(str(kind), list(CONFIG_MAPPING.keys()), n=1)
        hint = f" The nearest known is {near[0]!r}." if near else ""
        cause = f"config.json: transformers has no model_type {kind!r}.{hint}"
        raise ModelFileError(f"{cause} Code that the repository may ship is not run without --trust-remote-code.", fix=TRUST)
    values = {key: value for key, value in config.items() if key != CODE}
    try:
        return (remote or CONFIG_MAPPING[kind]).from_dict(values)
    except (ValueError, TypeError, KeyError, StrictDataclassError) as error:
        cause = " ".join(str(error).split())
        raise ModelFileError(f"config.json: transformers refuses it: {cause}") from error


def causal_class(own: PreTrainedConfig, config: dict[str, Any]) -> type[PreTrainedModel]:
    """The class that generates text; its attention must go through transformers' attention interface."""
    from transformers import AutoModelForCausalLM

    mapping = AutoModelForCausalLM._model_mapping
    remote = remote_class(config, "AutoModelForCausalLM")
    if remote is None and type(own) not in mapping:
        raise ModelFileError(f"config.json: transformers has no causal language model for {own.model_type!r}.")
    found = remote or mapping[type(own)]
    chosen: type[PreTrainedModel] = found[0] if isinstance(found, tuple) else found
    if not getattr(chosen, "_supports_attention_backend", False):
        raise ModelFileError(
            f"The attention of transformers' {chosen.__name__} is not pluggable, so it cannot use the paged cache.",
            fix="an architecture with a native implementation (engine plugins list)",
        )
    return chosen


def _spec(text: PreTrainedConfig, index: int) -> AttentionSpec:
    heads = text.num_attention_heads
    kv_heads = 1 if getattr(text, "multi_query", False) else getattr(text, "num_key_value_heads", None) or heads
    dim = getattr(text, "head_dim", None) or text.hidden_size // heads
    if getattr(text, "qk_nope_head_dim", None):
        # Latent attention, which transformers expands to full heads before it attends.
        kv_heads, dim = heads, text.qk_nope_head_dim + text.qk_rope_head_dim
    types = getattr(text, "layer_types", None)
    if types and types[index] not in _ATTENTION_TYPES:
        raise ModelFileError(f"config.json: layer_types[{index}] is {types[index]!r}, which is not paged attention.")
    window = getattr(text, "sliding_window", None)
    if types and types[index] == "full_attention":
        window = None
    scalar = getattr(text, "query_pre_attn_scalar", None) or dim
    return AttentionSpec(heads, kv_heads, dim, scalar**-0.5, window, getattr(text, "attn_logit_softcapping", None))


def _length(config: dict[str, Any], text: PreTrainedConfig) -> int:
    nested = config.get("text_config")
    stated = getattr(text, "max_position_embeddings", None) or 2048
    scaled = not str(text.model_type).startswith("gemma3")
    return context_length(nested if isinstance(nested, dict) else config, stated, layer_type="full_attention", scaled=scaled)


class TransformersImplementation(ModelImplementation):
    """transformers' classes for everything."""

    def architecture(self, config: dict[str, Any], native: dict[str, str]) -> ModelArchitecture | str:
        """Never a native one."""
        architectures(config)
        return TransformersArchitecture()


@hookimpl
def engine_create_model_impl() -> ModelImplementation:
    """transformers' provider."""
    return TransformersImplementation()
