"""``engine save-sharded``: a model's weights as each rank holds them, for quick starts with --load-format sharded_state."""

from __future__ import annotations

from engine.args.flag import Flag
from engine.cli.start import Command

COMMAND = Command(
    "save-sharded", "engine save-sharded MODEL --out DIR [-tp N] [the engine's flags]",
    "Write every rank's finished weights, which --load-format sharded_state (or tensorizer) reads without converting anything.",
    own=(
        Flag("--out", "text", None, "Directory to write; it must be new or empty.", metavar="DIR"),
        Flag("--format", "str", "sharded_state", "What is written: safetensors files, or one tensorizer stream per rank.",
             choices=("sharded_state", "tensorizer")),
        Flag("--max-file-size", "float", 5.0, "Largest safetensors file, in GB.", metavar="GB"),
    ),
)  # fmt: skip


def run(argv: list[str]) -> int:
    """Write the files and say which."""
    line = COMMAND.read(argv)
    if line is None:
        return 0
    from pathlib import Path

    from engine.errors import ConfigError

    out, size = line.own["out"], line.own["max_file_size"]
    if not out:
        raise ConfigError("--out is missing.", fix="--out DIR")
    if size <= 0:
        raise ConfigError(f"--max-file-size {size}: must be above 0.", fix="--max-file-size 5")
    config = COMMAND.resolve(line)
    from engine.worker.save import save

    save(config, Path(out).expanduser(), line.own["format"], int(size * 1e9), print)
    return 0
