"""What this machine is: its GPU, its memory, how fast that memory is, and the level that follows from it.

Nothing here imports torch or mlx, and nothing raises or waits without a limit: what cannot be read is
taken as not there.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import re
import subprocess
import threading
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

GB = 10**9
GIB = 2**30
MIB = 2**20

PROBE_SECONDS = 10.0  # a GPU driver that was idle takes seconds to wake; a wedged one never answers
COMMAND_SECONDS = 9.0  # less, so that a command that hangs is killed and not left behind
NVML = "libnvidia-ml.so.1"  # the driver's own library, without a development package's link

LEVEL_FLOORS = (12 * GB, 20 * GB, 28 * GB, 40 * GB, 60 * GB)  # where the levels 1 to 5 begin
LEVELS = (
    "no GPU, or one under 12 GB",
    "a GPU of 12 to 20 GB",
    "a GPU of 20 to 28 GB",
    "a GPU of 28 to 40 GB",
    "a GPU of 40 to 60 GB",
    "a GPU of 60 GB or more",
    "a GPU of 12 GB or more, and an API to fall back on",
)

# GB/s. NVML tells it for any card; these are for when only nvidia-smi answers. Where cards share a name,
# the slowest of them stands here.
GPU_BANDWIDTH = {
    "A2": 200, "A10": 600, "A10G": 600, "A30": 933, "A40": 696, "A100": 1555, "GB10": 273,
    "H100": 2000, "H200": 4800, "H20": 4000, "B200": 7700, "L4": 300, "L40": 864, "L40S": 864,
    "T4": 320, "V100": 897, "RTX A4000": 448, "RTX A5000": 768, "RTX A6000": 768,
    "RTX 3060": 240, "RTX 3080": 760, "RTX 3090": 936, "RTX 4060 Ti": 288, "RTX 4070": 504,
    "RTX 4080": 717, "RTX 4090": 1008, "RTX 5070": 672, "RTX 5080": 960, "RTX 5090": 1792,
    "RTX 6000": 672, "RTX PRO 6000": 1597,
}  # fmt: skip
CHIP_BANDWIDTH = {
    "M1": 68, "M1 Pro": 200, "M1 Max": 400, "M1 Ultra": 800,
    "M2": 100, "M2 Pro": 200, "M2 Max": 400, "M2 Ultra": 800,
    "M3": 100, "M3 Pro": 150, "M3 Max": 300, "M3 Ultra": 819,
    "M4": 120, "M4 Pro": 273, "M4 Max": 410, "M5": 153,
}  # fmt: skip
UNKNOWN_GPU = 200  # the A2, the slowest card with 12 GB or more that current CUDA runs on
UNKNOWN_CHIP = 68  # the M1, the slowest chip that MLX runs on
PLAIN_BANDWIDTH = 20.0 * GB  # two channels of DDR4, where it could not be measured

Kind = Literal["nvidia", "apple", "plain"]
T = TypeVar("T")


@dataclass(frozen=True)
class Machine:
    """What an engine can count on. `memory` and `free` are what one model may take: of the largest GPU, of
    unified memory, or of the host where there is no GPU."""

    kind: Kind
    gpu: str
    """The GPUs' names as people know them; empty on a plain machine."""
    memory: int
    free: int
    bandwidth: float
    """Bytes a second between that memory and whatever computes; by name, so an estimate."""
    tier: int
    """0 to 6, an index into `LEVELS`: for show. Decisions use the other fields."""
    api: bool
    cores: int
    host_memory: int
    host_free: int = 0
    host_bandwidth: float = PLAIN_BANDWIDTH
    """As measured between the host's memory and its cores."""
    gpu_id: str = ""
    """The UUID of the GPU that counts, where there are several."""
    capability: tuple[int, int] = (0, 0)
    """Its compute capability as CUDA counts; (0, 0) where the driver does not tell, and without an NVIDIA GPU."""

    def __str__(self) -> str:
        """In a line, for people."""
        host = f"{self.cores} cores, {size(self.host_memory)} of memory"
        return f"{self.gpu} ({size(self.memory)}), {host}" if self.gpu else f"no GPU, {host}"


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU as its driver reports it. `memory` 0: it has none of its own and uses the host's."""

    name: str
    uuid: str
    memory: int
    free: int
    bandwidth: float = 0.0
    """Bytes a second; 0 where the driver does not tell."""
    capability: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Host:
    """The machine around a GPU. `chip` is set on Apple silicon only; `wired` is the operator's own limit on
    what Metal may take (`iogpu.wired_limit_mb`), 0 if there is none."""

    cores: int = 1
    memory: int = 0
    free: int = 0
    chip: str = ""
    wired: int = 0


def size(count: int) -> str:
    """So many bytes, for people."""
    return f"{count / GIB:.1f} GiB"


def tier(gpu_memory_bytes: int, api: bool) -> int:
    """The level, 0 to 6, of a machine with this much GPU memory; sizes between two levels take the lower.

    A box says GB and means 2**30 bytes, of which driver and ECC take up to a sixteenth. Levels are counted in
    10**9 bytes: that 7 % of difference is just what lets a card sold as 24 GB, which reports 22.5 GiB, be one
    of 24, while 11 GiB are still not 12.
    """
    level = bisect_right(LEVEL_FLOORS, gpu_memory_bytes)
    return 6 if api and level else level


def metal_limit(memory: int) -> int:
    """What Metal lets one process take of a Mac's unified memory.

    Two thirds, and three quarters from 36 GB on (newer systems grant a little more). So a Mac of 8 or 16 GB
    has 5.3 or 10.7 GiB and is level 0, one of 24 GB level 1, of 32 GB level 2, of 36 and 48 GB level 3, of
    64 GB (48 GiB) level 4 and one of 96 GB level 5.
    """
    return memory * 3 // 4 if memory >= 36 * GIB else memory * 2 // 3


def detect(
    api: bool = False,
    *,
    gpus: Callable[[], Sequence[Gpu]] | None = None,
    host: Callable[[], Host] | None = None,
) -> Machine:
    """Say what this machine is; `api` when an API is configured to fall back on.

    Takes milliseconds, or up to half a minute where a driver hangs: not for an event loop that has calls.
    `gpus` and `host` replace the probes of the real machine.
    """
    here = (host or this_host)()
    speed = PLAIN_BANDWIDTH if host else _host_bandwidth()
    gpu_id, capability = "", (0, 0)
    found = (gpus or nvidia_gpus)()
    kind: Kind = "nvidia" if found else "apple" if here.chip else "plain"
    if found:
        largest = max(found, key=lambda gpu: (gpu.memory or here.memory, gpu.free))
        gpu_id, capability = largest.uuid if len(found) > 1 else "", largest.capability
        names = Counter(gpu.name for gpu in found)
        name = ", ".join(f"{n} x {name}" if n > 1 else name for name, n in names.items())
        memory, free = (largest.memory, largest.free) if largest.memory else (here.memory, here.free)
        bandwidth = largest.bandwidth or _gpu_bandwidth(largest.name)
    elif here.chip:
        name, memory = here.chip, here.wired or metal_limit(here.memory)
        free = min(memory, here.free)
        bandwidth = _look_up(name, CHIP_BANDWIDTH, UNKNOWN_CHIP)
    else:
        name, memory, free, bandwidth = "", here.memory, here.free, speed
    level = tier(memory if name else 0, api)
    return Machine(
        kind, name, memory, free, bandwidth, level, api, here.cores, here.memory, here.free, speed, gpu_id, capability
    )


@functools.cache
def _host_bandwidth() -> float:
    return _probe(measure_bandwidth, PLAIN_BANDWIDTH)


def measure_bandwidth() -> float:
    """Bytes a second that this machine's cores read and write in a copy. Takes about a tenth of a second."""
    import numpy as np

    workers = min(8, _cores())  # eight cores fill the memory channels of most machines
    size = 64 * MIB // workers  # well over the caches that those cores share
    pairs = [(np.ones(size, np.uint8), np.ones(size, np.uint8)) for _ in range(workers)]
    best = float("inf")
    with ThreadPoolExecutor(workers) as pool:
        for _ in range(4):
            began = time.perf_counter()
            list(pool.map(lambda pair: np.copyto(*pair), pairs))
            best = min(best, time.perf_counter() - began)
    return 2 * size * workers / best


def _gpu_bandwidth(name: str) -> float:
    if "Laptop" in name or "Max-Q" in name:  # far slower than the card whose name it bears
        return float(UNKNOWN_GPU * GB)
    return _look_up(name, GPU_BANDWIDTH, UNKNOWN_GPU)


def _look_up(name: str, table: Mapping[str, int], otherwise: int) -> float:
    known = [key for key in table if re.search(rf"\b{key}\b", name)]
    return float(GB * (table[max(known, key=len)] if known else otherwise))


# The NVIDIA side: NVML, and nvidia-smi where NVML cannot be used.


def nvidia_gpus() -> list[Gpu]:
    """The NVIDIA GPUs that `CUDA_VISIBLE_DEVICES` leaves to this process; MIG slices are not looked at."""
    none: list[Gpu] = []
    found = _probe(nvml_gpus, none) or _probe(smi_gpus, none)
    return visible(found, os.environ.get("CUDA_VISIBLE_DEVICES"))


def visible(gpus: Sequence[Gpu], chosen: str | None) -> list[Gpu]:
    """What a value of `CUDA_VISIBLE_DEVICES` leaves of `gpus`: indices or (beginnings of) UUIDs."""
    if chosen is None or "MIG-" in chosen:
        return list(gpus)
    left: list[Gpu] = []
    for name in map(str.strip, chosen.split(",")):
        if name.isdecimal():
            named = gpus[int(name) : int(name) + 1]
        else:
            named = [gpu for gpu in gpus if name and gpu.uuid.startswith(name)]
        if not named:
            break  # CUDA, too, stops at the first name that it does not know
        left += named
    return left


class _NvmlMemory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


_NVML_NOT_SUPPORTED = 3
_NVML_MEMORY_CLOCK = 2
_NVML_TEXT = 96  # the length that NVML asks for names and UUIDs


def nvml_gpus() -> list[Gpu]:
    """The GPUs that the driver's own library reports. Raises OSError where there is no driver."""
    nvml = ctypes.CDLL(NVML)
    if nvml.nvmlInit_v2():
        return []
    try:
        count = ctypes.c_uint()
        nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
        return [gpu for index in range(count.value) if (gpu := _nvml_gpu(nvml, index))]
    finally:
        nvml.nvmlShutdown()


def _nvml_gpu(nvml: ctypes.CDLL, index: int) -> Gpu | None:
    device, memory = ctypes.c_void_p(), _NvmlMemory()
    if nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device)):
        return None
    status = nvml.nvmlDeviceGetMemoryInfo(device, ctypes.byref(memory))
    if status not in (0, _NVML_NOT_SUPPORTED):  # for example, a GPU that fell off the bus
        return None
    name, uuid = ctypes.create_string_buffer(_NVML_TEXT), ctypes.create_string_buffer(_NVML_TEXT)
    nvml.nvmlDeviceGetName(device, name, _NVML_TEXT)
    nvml.nvmlDeviceGetUUID(device, uuid, _NVML_TEXT)
    megahertz, bits = ctypes.c_uint(), ctypes.c_uint()
    nvml.nvmlDeviceGetMaxClockInfo(device, _NVML_MEMORY_CLOCK, ctypes.byref(megahertz))
    major, minor = ctypes.c_int(), ctypes.c_int()
    nvml.nvmlDeviceGetCudaComputeCapability(device, ctypes.byref(major), ctypes.byref(minor))
    with suppress(AttributeError):  # drivers before 2021 lack it
        nvml.nvmlDeviceGetMemoryBusWidth(device, ctypes.byref(bits))
    return Gpu(
        name=name.value.decode(errors="replace"),
        uuid=uuid.value.decode(errors="replace"),
        memory=memory.total,
        free=memory.free,
        bandwidth=2 * megahertz.value * 1e6 * bits.value / 8,  # two transfers a clock
        capability=(major.value, minor.value),
    )


def smi_gpus() -> list[Gpu]:
    """The GPUs that `nvidia-smi` lists. Raises OSError where there is no such command."""
    fields = "uuid,memory.total,memory.free,name"
    gpus = []
    for row in _output("nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits").splitlines():
        uuid, total, free, name = (*(cell.strip() for cell in row.split(",", 3)), "", "", "")[:4]
        if total.isdecimal() and free.isdecimal():
            gpus.append(Gpu(name, uuid, int(total) * MIB, int(free) * MIB))
        elif total in ("[N/A]", "[Not Supported]"):
            gpus.append(Gpu(name, uuid, memory=0, free=0))
    return gpus


# The host's side.


def this_host() -> Host:
    """The machine itself: memory as this process may use it, cores, and Apple's chip if it has one."""
    probe = mac_host if platform.system() == "Darwin" else linux_host
    return _probe(probe, Host(_cores()))


def mac_host() -> Host:
    """A Mac, by `sysctl` and `vm_stat`."""
    names = ("hw.memsize", "machdep.cpu.brand_string", "iogpu.wired_limit_mb")
    facts = dict(line.split(": ", 1) for line in _output("sysctl", *names).splitlines() if ": " in line)
    chip = facts.get("machdep.cpu.brand_string", "")
    return Host(
        cores=_cores(),
        memory=int(facts["hw.memsize"]),
        free=_probe(_mac_free, 0),
        chip=chip if chip.startswith("Apple") else "",
        wired=int(facts.get("iogpu.wired_limit_mb", 0)) * MIB,
    )


def _mac_free() -> int:
    report = _output("vm_stat")
    page = re.search(r"page size of (\d+) bytes", report)
    pages = re.findall(r"^Pages (?:free|inactive|speculative): +(\d+)", report, re.MULTILINE)
    return int(page[1]) * sum(map(int, pages)) if page else 0


def linux_host(root: Path = Path("/")) -> Host:
    """A Linux machine, by what /proc says and by the limits of the control groups around this process."""
    lines = (root / "proc/meminfo").read_text().splitlines()
    facts = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    memory, free = facts["MemTotal"], facts["MemAvailable"]
    for limit, used in _cgroups(root):
        memory, free = min(memory, limit), min(free, max(0, limit - used))
    return Host(_cores(), memory, free)


def _cgroups(root: Path) -> Iterator[tuple[int, int]]:
    """Limit and use in bytes of each group that this process is in and that has a limit; version 1 and 2."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            base, limit, use, cache = "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            base, limit, use = "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cache = "total_inactive_file"
        else:
            continue
        group = root / base / path.lstrip("/")
        for folder in (group, *group.parents):  # any group up to the top may set the limit
            most, used = _read(folder / limit).strip(), _read(folder / use).strip()
            if most.isdecimal() and used.isdecimal():
                # Files read before, such as a model's weights, count as used until someone needs the room.
                cached = re.search(rf"^{cache} (\d+)", _read(folder / "memory.stat"), re.MULTILINE)
                yield int(most), int(used) - (int(cached[1]) if cached else 0)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _output(*command: str) -> str:
    """What a command prints, whatever its exit status: `sysctl` fails for one unknown name among many."""
    run = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
    return run.stdout


def _probe(probe: Callable[[], T], otherwise: T) -> T:
    """The answer of `probe`, or `otherwise` when it fails or takes too long.

    It runs in a thread because a wedged driver holds a library call, and even a killed nvidia-smi, for ever.
    """
    answer = [otherwise]

    def run() -> None:
        with suppress(Exception):
            answer[0] = probe()

    thread = threading.Thread(target=run, name=f"probe-{probe.__name__}", daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return answer[0]
