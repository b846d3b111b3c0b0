"""What a server says when it is ready."""

from __future__ import annotations

import msgspec

from engine.messages import Ready
from engine.server.start_report import start_lines
from tests.core.server.serving import make_config


def test_the_report_names_what_was_chosen_and_where_the_time_went():
    config = make_config(max_model_len=512)
    ready = Ready(
        pages=100, host_pages=0, block_size=16, page_bytes=1 << 20, weight_bytes=3 << 30, max_model_len=512,
        seconds={"process": 0.1, "imports": 1.0, "weights": 0.5, "cache": 0.01},
    )  # fmt: skip
    lines = start_lines(config, ready, {"threads": "4", "linear": "torch", "sequences": 0}, 2.0)
    text = "\n".join(lines)
    assert len(lines) <= 14
    assert "toy: Toy, float32, up to 512 tokens, 3.00 GiB" in text
    assert "Kernels: threads: 4, linear: torch\n" in text
    assert "100 pages of 16 tokens (100.00 MiB)" in text and "3.1 sequences of 512 tokens" in text
    assert lines[-1] == "Ready in 2.0 s: front end 0.4, process 0.1, imports 1.0, weights 0.5"
    assert "cache" not in lines[-1], "a phase that nobody notices is not listed"
    plain = start_lines(config, msgspec.structs.replace(ready, seconds={}), {}, 1.0)
    assert plain[-1] == "Ready in 1.0 s: front end 1.0"
