"""Mistral's own network and files, written from the published description: interleaved rotation, original names, params.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

PARAMS: dict[str, Any] = {
    "dim": 64, "n_layers": 2, "head_dim": 16, "hidden_dim": 96, "n_heads": 4, "n_kv_heads": 2, "norm_eps": 1e-5, "vocab_size": 160,
    "rope_theta": 10000.0, "max_seq_len": 256,
}  # fmt: skip


def write(place: Path, *, shards: int = 1, together: bool = False, **changes: Any) -> dict[str, Tensor]:
    """A random checkpoint; returns its tensors. ``together``: experts as the first Mixtral kept them, one tensor per matrix."""
    params = PARAMS | changes
    tensors = _tensors(params, together)
    place.mkdir(parents=True, exist_ok=True)
    names = sorted(tensors)
    for shard in range(shards):
        part = {name: tensors[name].contiguous() for name in names[shard::shards]}
        save_file(part, place / ("consolidated.safetensors" if shards == 1 else f"consolidated-{shard:05}.safetensors"))
    (place / "params.json").write_text(json.dumps(params))
    return tensors


def _tensors(params: dict[str, Any], together: bool) -> dict[str, Tensor]:
    made = torch.Generator().manual_seed(7)
    dim, hidden, head = params["dim"], params["hidden_dim"], params["head_dim"]
    q, kv, vocab = params["n_heads"] * head, params["n_kv_heads"] * head, params["vocab_size"]

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=made) * 0.2

    tensors = {"tok_embeddings.weight": draw(vocab, dim), "norm.weight": 1 + draw(dim), "output.weight": draw(vocab, dim)}
    for layer in range(params["n_layers"]):
        at = f"layers.{layer}."
        tensors |= {
            f"{at}attention.wq.weight": draw(q, dim), f"{at}attention.wk.weight": draw(kv, dim), f"{at}attention.wv.weight": draw(kv, dim),
            f"{at}attention.wo.weight": draw(dim, q), f"{at}attention_norm.weight": 1 + draw(dim), f"{at}ffn_norm.weight": 1 + draw(dim),
        }  # fmt: skip
        experts = params.get("moe", {}).get("num_experts", 0)
        if not experts:
            tensors |= {f"{at}feed_forward.w{i}.weight": draw(*((dim, hidden) if i == 2 else (hidden, dim))) for i in (1, 2, 3)}
            continue
        matrices = {i: [draw(*((dim, hidden) if i == 2 else (hidden, dim))) for _ in range(experts)] for i in (1, 2, 3)}
        gate = draw(experts, dim)
        if together:
            tensors[f"{at}block_sparse_moe.gate.weight"] = gate
            for i, parts in matrices.items():
                tensors[f"{at}block_sparse_moe.w{i}"] = torch.cat([part.t() if i == 2 else part for part in parts])
        else:
            tensors[f"{at}feed_forward.gate.weight"] = gate
            tensors |= {f"{at}feed_forward.experts.{e}.w{i}.weight": matrices[i][e] for i in matrices for e in range(experts)}
    return tensors


def logits(tensors: dict[str, Tensor], ids: list[int], **changes: Any) -> Tensor:
    """[tokens, vocab] of one prompt."""
    params = PARAMS | changes
    x = tensors["tok_embeddings.weight"][torch.tensor(ids)]
    for layer in range(params["n_layers"]):
        at = f"layers.{layer}."
        x = x + _attention(tensors, at, _norm(x, tensors[f"{at}attention_norm.weight"], params), params)
        x = x + _mixed(tensors, at, _norm(x, tensors[f"{at}ffn_norm.weight"], params), params)
    return _norm(x, tensors["norm.weight"], params) @ tensors["output.weight"].T


def _norm(x: Tensor, weight: Tensor, params: dict[str, Any]) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + params["norm_eps"]) * weight


def _attention(tensors: dict[str, Tensor], at: str, x: Tensor, params: dict[str, Any]) -> Tensor:
    head, count = params["head_dim"], len(x)
    q, k, v = (_heads(x @ tensors[f"{at}attention.{name}.weight"].T, head) for name in ("wq", "wk", "wv"))
    angles = torch.outer(torch.arange(count).float(), params["rope_theta"] ** -(torch.arange(0, head, 2).float() / head))
    turn = torch.polar(torch.ones_like(angles), angles)
    q, k = _turned(q, turn), _turned(k, turn)
    repeat = params["n_heads"] // params["n_kv_heads"]
    k, v = k.repeat_interleave(repeat, 0), v.repeat_interleave(repeat, 0)
    mask = torch.full((count, count), float("-inf")).triu(1)
    window = params.get("sliding_window")
    if window:
        mask = mask + torch.full((count, count), float("-inf")).tril(-window)
    mixed = torch.softmax(q @ k.transpose(1, 2) / head**0.5 + mask, -1) @ v
    return mixed.transpose(0, 1).reshape(count, -1) @ tensors[f"{at}attention.wo.weight"].T


def _heads(x: Tensor, head: int) -> Tensor:
    return x.view(len(x), -1, head).transpose(0, 1)


def _turned(x: Tensor, turn: Tensor) -> Tensor:
    """Neighbouring elements are one complex number."""
    pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turn).flatten(-2)


def _mixed(tensors: dict[str, Tensor], at: str, x: Tensor, params: dict[str, Any]) -> Tensor:
    moe = params.get("moe")
    if not moe:
        w1, w2, w3 = (tensors[f"{at}feed_forward.w{i}.weight"] for i in (1, 2, 3))
        return (functional.silu(x @ w1.T) * (x @ w3.T)) @ w2.T
    together = f"{at}block_sparse_moe.w1" in tensors
    gate = tensors[f"{at}block_sparse_moe.gate.weight" if together else f"{at}feed_forward.gate.weight"]
    scores, chosen = torch.topk(x @ gate.T, moe["num_experts_per_tok"])
    weights = torch.softmax(scores, -1)
    out = torch.zeros_like(x)
    for row in range(len(x)):
        for place, expert in enumerate(chosen[row].tolist()):
            w1, w2, w3 = (_expert(tensors, at, expert, i, moe["num_experts"], together) for i in (1, 2, 3))
            out[row] += weights[row, place] * ((functional.silu(w1 @ x[row]) * (w3 @ x[row])) @ w2.T)
    return out


def _expert(tensors: dict[str, Tensor], at: str, expert: int, matrix: int, experts: int, together: bool) -> Tensor:
    if not together:
        return tensors[f"{at}feed_forward.experts.{expert}.w{matrix}.weight"]
    part = tensors[f"{at}block_sparse_moe.w{matrix}"].chunk(experts)[expert]
    return part.t() if matrix == 2 else part
