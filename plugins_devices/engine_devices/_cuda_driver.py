"""NVIDIA's driver library asked directly: which GPUs are there, without torch and without a context on any of them."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

LIBRARY = "libcuda.so.1"
# Numbers of the CUDA driver API (cuda.h).
_COMPUTE_CAPABILITY_MAJOR = 75
_COMPUTE_CAPABILITY_MINOR = 76


@dataclass(frozen=True)
class GPU:
    """One visible GPU: its name, bytes of memory in all, and compute capability."""

    name: str
    total_memory: int
    capability: tuple[int, int]


class DriverAbsent(Exception):
    """There is no usable driver; the message says why."""


class _Driver:
    """Calls of the library, with results checked."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self.call("cuInit", 0)

    def call(self, function: str, *arguments: object) -> None:
        """Raises :class:`DriverAbsent` with the driver's own name of the failure."""
        status = int(getattr(self._library, function)(*arguments))
        if status:
            text = ctypes.c_char_p()
            self._library.cuGetErrorName(status, ctypes.byref(text))
            name = text.value.decode() if text.value else f"status {status}"
            raise DriverAbsent(f"the NVIDIA driver refuses {function}: {name}")

    def number(self, function: str, *arguments: object) -> int:
        """For functions whose first argument is a pointer to an int."""
        value = ctypes.c_int()
        self.call(function, ctypes.byref(value), *arguments)
        return value.value


def visible_gpus(library: str = LIBRARY) -> list[GPU]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves. Raises :class:`DriverAbsent`."""
    try:
        driver = _Driver(ctypes.CDLL(library))
        return [_gpu(driver, index) for index in range(driver.number("cuDeviceGetCount"))]
    except OSError as error:
        raise DriverAbsent(f"no NVIDIA driver is installed ({error})") from error
    except AttributeError as error:
        raise DriverAbsent(f"the NVIDIA driver library is too old ({error})") from error


def _gpu(driver: _Driver, index: int) -> GPU:
    handle = driver.number("cuDeviceGet", index)
    name = ctypes.create_string_buffer(256)
    driver.call("cuDeviceGetName", name, len(name), handle)
    total = ctypes.c_size_t()
    driver.call("cuDeviceTotalMem_v2", ctypes.byref(total), handle)
    major = driver.number("cuDeviceGetAttribute", _COMPUTE_CAPABILITY_MAJOR, handle)
    minor = driver.number("cuDeviceGetAttribute", _COMPUTE_CAPABILITY_MINOR, handle)
    return GPU(name.value.decode(errors="replace"), total.value, (major, minor))
