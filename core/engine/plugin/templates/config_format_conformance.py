"""Holds the configuration format to its contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.plugin.testing import ConfigFormatContract


class TestExample(ConfigFormatContract):
    name = "example"
    config_files = ("*.toml",)

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        (tmp_path / "example.toml").write_text('architectures = ["LlamaForCausalLM"]\nhidden_size = 64\nnum_hidden_layers = 2\n')
        return tmp_path
