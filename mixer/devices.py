"""What a computation runs on: the device, its precision and memory, and the processes that train together."""

import importlib.util
import math
import os
import platform
from pathlib import Path

import torch

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(device: str = "auto") -> torch.device:
    """The device by name, or with "auto" the best there is: cuda, then mps, then cpu.

    Raises:
        ValueError: the name is unknown, or this machine has no such device.
    """
    has_mps = torch.backends.mps.is_available()
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device {device!r} is not known; choose auto, cpu, cuda, cuda:0 … or mps") from None
    n_there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(has_mps)}.get(chosen.type, 0)
    if (chosen.index or 0) >= n_there:
        raise ValueError(f"device {device!r} is not on this machine; choose auto or cpu")
    return chosen


def choose_precision(precision: str, device: torch.device) -> torch.dtype:
    """The dtype of matrix products by name, or with "auto" the fastest that the device computes natively.

    That is bfloat16 on a GPU from Ampere on, float16 on an older one (which only emulates bfloat16), bfloat16 on a
    CPU with AMX tiles or AVX-512 BF16, and float32 elsewhere.

    Raises:
        ValueError: the name is unknown, or float16 is asked for off a GPU.
    """
    if precision == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
        native = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
        return torch.bfloat16 if device.type == "cpu" and native else torch.float32
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r} is not known; choose auto, {', '.join(PRECISIONS)}")
    if precision == "fp16" and device.type != "cuda":
        raise ValueError(f"precision fp16 needs a cuda device, and this is {device.type}; choose fp32 or bf16")
    return PRECISIONS[precision]


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """The context in which matrix products are computed in `dtype`."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def memory_of(device: torch.device) -> float:
    """The memory of a device in bytes; infinite where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if device.type == "mps":
        return torch.mps.recommended_max_memory()
    if not hasattr(os, "sysconf"):
        return math.inf
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def hardware(device: torch.device, dtype: torch.dtype) -> str:
    """Device, threads, processes and precision in words, as checkpoints and records keep them."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{os.cpu_count()}-core {platform.machine()} CPU, {torch.backends.cpu.get_cpu_capability()}"
        name += f", threads: {torch.get_num_threads()}" if device.type == "cpu" else f", {device.type}"
    _, n_processes = rank_and_count()
    count = f", processes: {n_processes}" if n_processes > 1 else ""
    return f"{name}{count}, {str(dtype).removeprefix('torch.')}"


def join_processes(device: str) -> str:
    """Join the processes that torchrun started, if it did; returns the name of this one's device.

    Raises:
        ValueError: several processes cannot train on this device.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return device
    kind = choose_device(device).type
    if device == "auto" and kind == "mps":
        kind = "cpu"
    if kind == "mps" or (kind == "cuda" and not torch.distributed.is_nccl_available()):
        raise ValueError(f"several processes cannot train on {kind} here; choose cpu, or start one process")
    torch.distributed.init_process_group("nccl" if kind == "cuda" else "gloo")
    return f"cuda:{os.environ['LOCAL_RANK']}" if kind == "cuda" else kind


def rank_and_count() -> tuple[int, int]:
    """The number of this process and how many train together: 0 and 1, unless torch.distributed was started."""
    if not torch.distributed.is_initialized():
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def make_torchvision_importable() -> None:
    """Declare the operators without which torchvision's import fails beside a CPU build of torch.

    The torchvision wheel on PyPI is compiled for CUDA. Beside a CPU build of torch its operators do not load, and its
    import fails because `nms` is missing, although data sets and transforms need no such operator. Declaring the two
    names is enough. Where the operators load, this declares nothing.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or hasattr(torch.ops.torchvision, "nms"):
        return
    for compiled in Path(spec.origin).parent.glob("_C*"):
        try:
            torch.ops.load_library(compiled)
            return
        except OSError:
            pass
    for name in ("nms", "qnms"):
        torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
