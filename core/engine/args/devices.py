"""Chooses the device: every plugin is asked what it sees, none is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from engine.errors import ConfigError, ContractViolation, UnavailablePlugin
from engine.plugin.api import Choice, Use
from engine.plugin.facts import DeviceFacts
from engine.plugin.kinds import DEVICE

if TYPE_CHECKING:
    from engine.args.engine_args import EngineArgs
    from engine.plugin.host import PluginHost


def choose_device(host: PluginHost, name: str) -> tuple[DeviceFacts, Choice]:
    """The facts of the device ``name`` (``auto`` and its like decide from every probe), and its plugin.

    Raises :class:`UnavailablePlugin` with the device's own reason.
    """
    choice = host.resolve(DEVICE, name)
    facts = probe(host, choice)
    if facts is None:
        answer = host.call(DEVICE, choice, "engine_choose_device", probes=probe_all(host))
        if not isinstance(answer, Use):
            raise ContractViolation(
                f"--device {name} (from {choice.distribution}): engine_choose_device returned {answer!r}, which is not a Use."
            )
        taken = host.resolve(DEVICE, answer.name)
        choice = msgspec.structs.replace(taken, asked=name, reason=answer.reason)
        facts = probe(host, choice)
    if facts is None:
        raise ContractViolation(f"--device {choice.name} (from {choice.distribution}) has no engine_probe_device.")
    if not facts.available:
        usable = [other.name for other in probe_all(host) if other.available]
        raise UnavailablePlugin(
            f"--device {choice.name}: not available here ({facts.reason}).",
            fix=f"--device {usable[0]}" if usable else None,
        )
    return facts, choice


def probe(host: PluginHost, choice: Choice) -> DeviceFacts | None:
    """What one device plugin says of this machine; None for a plugin that only stands for others."""
    if not hasattr(host.module(DEVICE, choice), "engine_probe_device"):
        return None
    facts = host.call(DEVICE, choice, "engine_probe_device")
    if not isinstance(facts, DeviceFacts):
        raise ContractViolation(
            f"--device {choice.name} (from {choice.distribution}): engine_probe_device returned {facts!r}, which is no DeviceFacts."
        )
    return facts


def probe_all(host: PluginHost) -> list[DeviceFacts]:
    """The probes of all installed devices, by name."""
    probes = (
        probe(host, host.resolve(DEVICE, name)) for name in sorted({entry.name for entry in host.entries(DEVICE)})
    )
    return [facts for facts in probes if facts is not None]


def offload_bytes(args: EngineArgs, device: DeviceFacts) -> int:
    """Bytes of weights per worker that stay out of the device's memory (--cpu-offload-gb); none where that is the host's.

    Raises :class:`ConfigError` for a device that cannot fetch them from there.
    """
    if not args.cpu_offload_gb or device.shared_memory:
        return 0
    if not device.fetches_weights:
        cause = f"--cpu-offload-gb {args.cpu_offload_gb:g}: the device {device.name} cannot fetch weights from host memory."
        raise ConfigError(cause, fix="--cpu-offload-gb 0")
    return int(args.cpu_offload_gb * 2**30)
