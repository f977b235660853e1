"""What a machine is taken for. The probes run against real programs and files: scripts on PATH in the place
of nvidia-smi, sysctl and vm_stat, a compiled library in the place of NVML, a folder in the place of /proc."""

import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from voice_bridge.engines import hardware
from voice_bridge.engines.hardware import GB, GIB, MIB, Gpu, Host, Machine, detect, tier

LAPTOP = Host(cores=8, memory=32 * GIB, free=20 * GIB)
Tools = Callable[[dict[str, str]], None]


def nvidia(mebibytes: int, name: str = "NVIDIA L4") -> list[Gpu]:
    return [Gpu(name, "GPU-1", mebibytes * MIB, (mebibytes - 500) * MIB)]


def mac(gigabytes: int, chip: str = "Apple M2 Max", **facts: int) -> Host:
    return Host(cores=10, memory=gigabytes * GIB, free=gigabytes * GIB // 2, chip=chip, **facts)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    """Leave nothing of the real machine's tools but the scripts that a test puts on PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(hardware, "NVML", str(tmp_path / "no-driver.so"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def install(scripts: dict[str, str]) -> None:
        for name, body in scripts.items():
            (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
            (tmp_path / name).chmod(0o755)

    return install


@pytest.mark.parametrize(
    ("reported", "name", "level", "with_api"),
    [
        (8_188, "8 GB: RTX 4060", 0, 0),
        (10_240, "10 GB: RTX 3080", 0, 0),
        (11_264, "11 GB: RTX 2080 Ti", 0, 0),
        (12_036, "12 GB: RTX 3060", 1, 6),
        (15_109, "16 GB with ECC: T4", 1, 6),
        (16_376, "16 GB: RTX 4080", 1, 6),
        (19_195, "20 GB with ECC: RTX 4000 Ada", 2, 6),
        (23_028, "24 GB with ECC: A10", 2, 6),
        (24_564, "24 GB: RTX 4090", 2, 6),
        (30_712, "32 GB with ECC", 3, 6),
        (32_607, "32 GB: RTX 5090", 3, 6),
        (40_192, "40 GB: a slice of an A100", 4, 6),
        (46_068, "48 GB with ECC: L40S", 4, 6),
        (81_559, "80 GB: H100", 5, 6),
        (143_771, "141 GB: H200", 5, 6),
    ],
)
def test_a_card_has_the_level_of_the_size_on_its_box(reported: int, name: str, level: int, with_api: int) -> None:
    machine = detect(False, gpus=lambda: nvidia(reported, name), host=lambda: LAPTOP)
    assert (machine.kind, machine.gpu, machine.tier) == ("nvidia", name, level)
    assert machine.memory == reported * MIB
    assert machine.free == (reported - 500) * MIB
    assert (machine.cores, machine.host_memory) == (8, 32 * GIB)
    assert detect(True, gpus=lambda: nvidia(reported), host=lambda: LAPTOP).tier == with_api


@pytest.mark.parametrize(
    ("size", "usable", "level", "with_api"),
    [
        (8, 5.33, 0, 0),
        (16, 10.67, 0, 0),
        (24, 16, 1, 6),
        (32, 21.33, 2, 6),
        (36, 27, 3, 6),
        (64, 48, 4, 6),
        (128, 96, 5, 6),
    ],
)
def test_a_mac_has_the_level_of_what_metal_lets_a_process_take(
    size: int, usable: float, level: int, with_api: int
) -> None:
    machine = detect(False, gpus=list, host=lambda: mac(size))
    assert (machine.kind, machine.gpu, machine.tier) == ("apple", "Apple M2 Max", level)
    assert machine.memory / GIB == pytest.approx(usable, abs=0.01)
    assert machine.free == size * GIB // 2
    assert detect(True, gpus=list, host=lambda: mac(size)).tier == with_api


@pytest.mark.parametrize("api", [False, True])
def test_a_machine_without_a_gpu_is_level_0_whatever_its_memory(api: bool) -> None:
    machine = detect(api, gpus=list, host=lambda: Host(64, 512 * GIB, 400 * GIB))
    speed = hardware.PLAIN_BANDWIDTH
    assert machine == Machine("plain", "", 512 * GIB, 400 * GIB, speed, 0, api, 64, 512 * GIB, 400 * GIB, speed)


@pytest.mark.parametrize(
    ("gigabytes", "level"),
    [
        (0, 0),
        (8, 0),
        (11.9, 0),
        (12, 1),
        (18, 1),
        (20, 2),
        (26, 2),
        (28, 3),
        (36, 3),
        (40, 4),
        (50, 4),
        (60, 5),
    ],
)
def test_sizes_between_two_levels_take_the_lower(gigabytes: float, level: int) -> None:
    assert tier(round(gigabytes * GB), api=False) == level
    assert tier(round(gigabytes * GB), api=True) == (6 if level else 0)
    assert len(hardware.LEVELS) == 7


def test_an_operators_own_limit_on_metal_counts() -> None:
    assert detect(gpus=list, host=lambda: mac(16, wired=14 * GIB)).memory == 14 * GIB


def test_free_memory_is_never_more_than_metal_gives() -> None:
    idle = Host(8, memory=16 * GIB, free=15 * GIB, chip="Apple M1")
    assert detect(gpus=list, host=lambda: idle).free == 16 * GIB * 2 // 3


def test_of_several_gpus_the_largest_counts_and_all_are_named() -> None:
    cards = [*nvidia(8_188, "RTX 4060"), *nvidia(24_564, "RTX 4090"), *nvidia(24_564, "RTX 4090")]
    machine = detect(gpus=lambda: cards, host=lambda: LAPTOP)
    assert machine.gpu == "RTX 4060, 2 x RTX 4090"
    assert (machine.memory, machine.tier, machine.bandwidth) == (24_564 * MIB, 2, 1008 * GB)


def test_of_several_gpus_the_freest_of_the_largest_is_named() -> None:
    small, busy, free = (Gpu("L4", f"GPU-{number}", number, number) for number in (1, 3, 2))
    busy, free = replace(busy, memory=9, free=1), replace(free, memory=9, free=8)
    assert detect(gpus=lambda: [small, busy, free], host=lambda: LAPTOP).gpu_id == "GPU-2"
    assert detect(gpus=lambda: [small], host=lambda: LAPTOP).gpu_id == ""  # it needs no naming


def test_the_compute_capability_is_that_of_the_gpu_that_counts() -> None:
    cards = [Gpu("T4", "GPU-1", 1, 1, capability=(7, 5)), Gpu("L4", "GPU-2", 2, 2, capability=(8, 9))]
    assert detect(gpus=lambda: cards, host=lambda: LAPTOP).capability == (8, 9)
    assert detect(gpus=list, host=lambda: LAPTOP).capability == (0, 0)


def test_a_gpu_does_not_hide_what_the_host_has() -> None:
    machine = detect(gpus=lambda: nvidia(24_564), host=lambda: LAPTOP)
    assert (machine.host_memory, machine.host_free) == (32 * GIB, 20 * GIB)


def test_a_gpu_without_memory_of_its_own_has_the_hosts() -> None:
    spark = detect(
        gpus=lambda: [Gpu("NVIDIA GB10", "GPU-1", memory=0, free=0)],
        host=lambda: Host(20, memory=121 * GIB, free=100 * GIB),
    )
    assert (spark.memory, spark.free, spark.tier, spark.bandwidth) == (121 * GIB, 100 * GIB, 5, 273 * GB)


@pytest.mark.parametrize(
    ("name", "bandwidth"),
    [
        ("NVIDIA L4", 300),
        ("NVIDIA L40S", 864),
        ("NVIDIA A10G", 600),
        ("NVIDIA A100-SXM4-80GB", 1555),
        ("NVIDIA RTX A6000", 768),
        ("NVIDIA GeForce RTX 4090", 1008),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", hardware.UNKNOWN_GPU),
        ("NVIDIA T400 4GB", hardware.UNKNOWN_GPU),
    ],
)
def test_a_cards_bandwidth_is_known_by_its_name(name: str, bandwidth: int) -> None:
    assert detect(gpus=lambda: nvidia(24_564, name), host=lambda: LAPTOP).bandwidth == bandwidth * GB


@pytest.mark.parametrize(
    ("chip", "bandwidth"),
    [("Apple M1", 68), ("Apple M4 Max", 410), ("Apple M9 Ultra", hardware.UNKNOWN_CHIP)],
)
def test_a_chips_bandwidth_is_known_by_its_name(chip: str, bandwidth: int) -> None:
    assert detect(gpus=list, host=lambda: mac(64, chip)).bandwidth == bandwidth * GB


@pytest.mark.parametrize(
    ("chosen", "left"),
    [
        (None, "ABC"),
        ("", ""),
        ("-1", ""),
        ("1", "B"),
        ("2, 0", "CA"),
        ("0,7,1", "A"),
        ("GPU-bb", "B"),
        ("GPU-cc00-1,GPU-aa", "CA"),
        ("GPU-unknown", ""),
        ("MIG-12ab", "ABC"),
    ],
)
def test_cuda_visible_devices_is_obeyed(chosen: str | None, left: str) -> None:
    gpus = [Gpu("A", "GPU-aa00-1", 1, 1), Gpu("B", "GPU-bb00-1", 1, 1), Gpu("C", "GPU-cc00-1", 1, 1)]
    assert "".join(gpu.name for gpu in hardware.visible(gpus, chosen)) == left


CARDS = """[ "$2" = --format=csv,noheader,nounits ] || exit 9
echo 'GPU-1, 23034, 22500, NVIDIA L4'
echo 'GPU-2, [N/A], [N/A], NVIDIA GB10'
echo 'GPU-3, [GPU is lost], [GPU is lost], NVIDIA A100'"""
L4 = Gpu("NVIDIA L4", "GPU-1", 23_034 * MIB, 22_500 * MIB)
GB10 = Gpu("NVIDIA GB10", "GPU-2", 0, 0)


def test_nvidia_smi_lists_the_cards_that_work(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    tools({"nvidia-smi": CARDS})
    assert hardware.nvidia_gpus() == [L4, GB10]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert hardware.nvidia_gpus() == [GB10]


@pytest.mark.parametrize(
    "answer",
    [
        "echo 'NVIDIA-SMI has failed because it could not communicate with the driver.'; exit 9",
        "echo 'a, b, c, d'; echo; echo ,,,,,",
        "printf '\\377\\376'",
        "kill -9 $$",
    ],
)
def test_a_broken_nvidia_smi_means_no_gpu(tools: Tools, answer: str) -> None:
    tools({"nvidia-smi": answer})
    assert hardware.nvidia_gpus() == []


def test_a_machine_without_a_driver_is_plain(tools: Tools) -> None:
    tools({})
    assert detect(host=lambda: LAPTOP).kind == "plain"


def test_a_command_that_hangs_is_killed(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    tools({"nvidia-smi": "exec /bin/sleep 60"})
    monkeypatch.setattr(hardware, "COMMAND_SECONDS", 0.1)
    began = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        hardware.smi_gpus()
    assert hardware.nvidia_gpus() == []
    assert time.monotonic() - began < 2


def test_a_driver_that_never_answers_is_given_up(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    tools({"nvidia-smi": CARDS})
    answered = threading.Event()
    monkeypatch.setattr(hardware, "nvml_gpus", answered.wait)
    monkeypatch.setattr(hardware, "PROBE_SECONDS", 0.2)
    began = time.monotonic()
    assert hardware.nvidia_gpus() == [L4, GB10]
    assert time.monotonic() - began < 2
    answered.set()


SYSCTL = """[ "$*" = "hw.memsize machdep.cpu.brand_string iogpu.wired_limit_mb" ] || exit 9
echo 'hw.memsize: 68719476736'
echo 'machdep.cpu.brand_string: Apple M2 Max'"""
VM_STAT = """echo 'Mach Virtual Memory Statistics: (page size of 16384 bytes)
Pages free:                              100000.
Pages active:                            900000.
Pages inactive:                          200000.
Pages speculative:                         5000.
Pages throttled:                              0.'"""


def test_a_mac_is_read_by_sysctl_and_vm_stat(tools: Tools) -> None:
    tools({"sysctl": SYSCTL + "\necho 'sysctl: unknown oid' >&2; exit 1", "vm_stat": VM_STAT})
    host = hardware.mac_host()
    assert (host.memory, host.free) == (64 * GIB, 305_000 * 16_384)
    assert (host.chip, host.wired) == ("Apple M2 Max", 0)


def test_a_macs_own_limit_on_metal_is_read(tools: Tools) -> None:
    tools({"sysctl": SYSCTL + "\necho 'iogpu.wired_limit_mb: 57344'", "vm_stat": VM_STAT})
    assert hardware.mac_host().wired == 56 * GIB


def test_a_mac_with_an_intel_processor_is_plain(tools: Tools) -> None:
    sysctl = SYSCTL.replace("Apple M2 Max", "Intel(R) Core(TM) i9-9880H CPU @ 2.30GHz")
    tools({"sysctl": sysctl, "vm_stat": "exit 1"})
    assert hardware.mac_host().chip == ""
    assert detect(gpus=list, host=hardware.mac_host).kind == "plain"


def machine_room(root: Path, groups: str, **files: str) -> Path:
    """A root folder with /proc as of a machine of 16 GB, and files of control groups by path."""
    proc = {"proc/meminfo": "MemTotal: 16777216 kB\nMemFree: 1024 kB\nMemAvailable: 8388608 kB\n"}
    for path, text in {**proc, "proc/self/cgroup": groups, **files}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def test_a_linux_machine_is_read_from_proc(tmp_path: Path) -> None:
    host = hardware.linux_host(machine_room(tmp_path, "0::/user.slice\n"))
    assert (host.memory, host.free) == (16 * GIB, 8 * GIB)


def test_the_limit_of_any_control_group_above_us_counts(tmp_path: Path) -> None:
    files = {
        "sys/fs/cgroup/system.slice/bridge.service/memory.max": "max\n",
        "sys/fs/cgroup/system.slice/bridge.service/memory.current": "1\n",
        "sys/fs/cgroup/system.slice/memory.max": f"{4 * GIB}\n",
        "sys/fs/cgroup/system.slice/memory.current": f"{3 * GIB}\n",
        "sys/fs/cgroup/system.slice/memory.stat": f"anon 7\nfile 5\ninactive_file {GIB}\nactive_file 9\n",
    }
    host = hardware.linux_host(machine_room(tmp_path, "0::/system.slice/bridge.service\n", **files))
    assert (host.memory, host.free) == (4 * GIB, 2 * GIB)


def test_the_limit_of_an_old_control_group_counts(tmp_path: Path) -> None:
    files = {
        "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2 * GIB}\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{GIB}\n",
        "sys/fs/cgroup/memory/memory.stat": "inactive_file 5\ntotal_inactive_file 24\n",
    }
    groups = "9:name=systemd:/\n4:memory:/docker/1234\n1:cpu,cpuacct:/docker/1234\n0::/\n"
    host = hardware.linux_host(machine_room(tmp_path, groups, **files))
    assert (host.memory, host.free) == (2 * GIB, GIB + 24)


def test_the_machine_this_runs_on_is_described() -> None:
    machine = detect()
    assert machine.cores >= 1
    assert 0 < machine.free <= machine.memory
    assert 0.5 * GB < machine.host_bandwidth < 5_000 * GB
    assert machine.memory <= machine.host_memory or machine.kind == "nvidia"


def test_bandwidth_is_measured_within_what_machines_can_do() -> None:
    assert 0.5 * GB < hardware.measure_bandwidth() < 5_000 * GB


NVML = """
#include <stdio.h>
typedef struct { unsigned long long total, free, used; } memory;
static int ids[] = {0, 1, 2};
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *n) { *n = 3; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **d) { *d = &ids[i]; return 0; }
int nvmlDeviceGetMemoryInfo(int *d, memory *m) {
    if (*d == 1) return 15;  /* GPU is lost */
    if (*d == 2) return 3;   /* not supported */
    m->total = 143771ULL << 20, m->free = 143000ULL << 20, m->used = 771ULL << 20;
    return 0;
}
int nvmlDeviceGetName(int *d, char *s, unsigned n) {
    snprintf(s, n, "NVIDIA %s", *d ? "GB10" : "H200");
    return 0;
}
int nvmlDeviceGetUUID(int *d, char *s, unsigned n) { snprintf(s, n, "GPU-%d", *d); return 0; }
int nvmlDeviceGetMaxClockInfo(int *d, int kind, unsigned *mhz) {
    if (*d == 2 || kind != 2) return 3;
    *mhz = 3201;
    return 0;
}
int nvmlDeviceGetCudaComputeCapability(int *d, int *major, int *minor) {
    *major = *d ? 12 : 9, *minor = *d ? 1 : 0;
    return 0;
}
"""
BUS_WIDTH = "int nvmlDeviceGetMemoryBusWidth(int *d, unsigned *bits) { *bits = 6144; return 0; }\n"


@pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc to build the library")
@pytest.mark.parametrize(("source", "bandwidth"), [(NVML + BUS_WIDTH, 3201 * 2 * 6144 / 8 * 1e6), (NVML, 0)])
def test_nvml_tells_memory_and_bandwidth_of_the_cards_that_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, bandwidth: float
) -> None:
    library = str(tmp_path / "libnvml.so")
    subprocess.run(["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", library], input=source, text=True, check=True)
    monkeypatch.setattr(hardware, "NVML", library)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    h200, gb10 = hardware.nvidia_gpus()
    assert h200 == Gpu("NVIDIA H200", "GPU-0", 143_771 * MIB, 143_000 * MIB, bandwidth, (9, 0))
    assert gb10 == Gpu("NVIDIA GB10", "GPU-2", 0, 0, capability=(12, 1))
