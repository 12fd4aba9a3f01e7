"""Engine arguments that bear on memory, by vLLM's own names, and what vLLM 0.29 makes of their defaults."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from orchestrator.catalog.gpus import GpuSpec
from orchestrator.catalog.models import ModelSpec
from orchestrator.catalog.quantization import Quantization, QuantizationRule, WeightScheme
from orchestrator.catalog.shapes import LatentAttention
from orchestrator.errors import ConfigError
from orchestrator.memory.layout import Layout
from orchestrator.memory.weights import UNPADDED, ExpertPadding
from orchestrator.units import GIB

# `CacheConfig.gpu_memory_utilization` and `DEFAULT_BLOCK_SIZE` of vllm/config/cache.py
DEFAULT_GPU_MEMORY_UTILIZATION = 0.92
DEFAULT_BLOCK_SIZE = 16

FP8_CACHE = frozenset({"fp8", "fp8_e4m3", "fp8_e5m2"})
DTYPE_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
CACHE_DTYPES = frozenset({"auto", "bfloat16", "float16", "fp8_ds_mla", *FP8_CACHE})
# vLLM's `--quantization` values that quantise a wider checkpoint while loading it.
_ONLINE: dict[str, WeightScheme] = {
    "fp8": WeightScheme("fp8", "tensor"),
    "fp8_per_tensor": WeightScheme("fp8", "tensor"),
    "fp8_per_block": WeightScheme("fp8", "block", (128, 128)),
    "fp8_per_channel": WeightScheme("fp8", "channel"),
    "int8_per_channel_weight_only": WeightScheme("int8", "channel"),
    "mxfp8": WeightScheme("mxfp8", "group", (1, 32), 1),
}


# `mxfp4_round_up_hidden_size_and_intermediate_size` of vllm/model_executor/layers/fused_moe/oracle/mxfp4.py.
# Marlin before Hopper, TensorRT-LLM's kernels on Blackwell.
_MXFP4_PADDING = ExpertPadding(inner=128, hidden=256)
# Triton on Hopper; its layout of packed values rounds inputs to 256, as loaded sizes of gpt-oss-120b show
# (64.38 GiB by Triton, 65.97 GiB by Marlin: vllm-project/vllm issues 33155 and 23278).
_MXFP4_PADDING_HOPPER = ExpertPadding(inner=64, packed=256)


# Tokens of a block: the least that `get_supported_kernel_block_sizes` of a backend for NVIDIA's GPUs asks for.
SMALLEST_BLOCK = 16


@dataclass(frozen=True)
class EngineArgs:
    """None leaves a value to the engine, which derives it from the model and the GPU."""

    gpu_memory_utilization: float = DEFAULT_GPU_MEMORY_UTILIZATION
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    kv_cache_dtype: str = "auto"
    block_size: int | None = None
    quantization: str | None = None
    dtype: str = "auto"
    enforce_eager: bool = False
    kv_cache_memory_bytes: int | None = None
    num_gpu_blocks_override: int | None = None
    max_cudagraph_capture_size: int | None = None
    cpu_offload_gb: float = 0.0
    num_speculative_tokens: int = 0
    async_scheduling: bool = True
    disable_hybrid_kv_cache_manager: bool = False
    language_model_only: bool = False

    def resolve(self, spec: ModelSpec, layout: Layout, gpu: GpuSpec) -> ResolvedArgs:
        """Every default filled in. Raises `ConfigError` for values the engine would refuse."""
        return _resolve(self, spec, layout, gpu)


@dataclass(frozen=True)
class ResolvedArgs:
    """What the engine runs with."""

    gpu_memory_utilization: float
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    # "bfloat16", "float16", "float32", "fp8", or "fp8_ds_mla", DeepSeek's packed form.
    kv_cache_dtype: str
    block_size: int
    quantization: Quantization | None
    dtype: str
    # How the kernels for routed experts pad them.
    expert_padding: ExpertPadding
    # Batches scheduled and not yet settled at one time.
    max_concurrent_batches: int
    # Largest batch captured as a CUDA graph; 0 without graphs.
    max_cudagraph_capture_size: int
    args: EngineArgs


@lru_cache(maxsize=65536)
def _resolve(args: EngineArgs, spec: ModelSpec, layout: Layout, gpu: GpuSpec) -> ResolvedArgs:
    _check(args, gpu)
    max_model_len = args.max_model_len or spec.max_model_len
    sequences, tokens = _batch_limits(args, layout, gpu, max_model_len)
    cache_dtype, block_size = cache_format(args, spec, gpu)
    return ResolvedArgs(
        gpu_memory_utilization=args.gpu_memory_utilization,
        max_model_len=max_model_len,
        max_num_seqs=sequences,
        max_num_batched_tokens=tokens,
        kv_cache_dtype=cache_dtype,
        block_size=block_size,
        quantization=effective_quantization(args, spec),
        dtype=spec.dtype if args.dtype == "auto" else _dtype(args.dtype),
        expert_padding=_expert_padding(effective_quantization(args, spec), gpu),
        max_concurrent_batches=_concurrent_batches(args, layout, gpu),
        max_cudagraph_capture_size=_largest_graph(args, gpu, sequences, tokens),
        args=args,
    )


def _check(args: EngineArgs, gpu: GpuSpec) -> None:
    if not 0 < args.gpu_memory_utilization <= 1:
        raise ConfigError(f"gpu_memory_utilization is {args.gpu_memory_utilization}; it must be above 0 and at most 1")
    for name in ("max_model_len", "max_num_seqs", "max_num_batched_tokens", "block_size"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ConfigError(f"{name} is {value}; it must be at least 1")
    if gpu.vendor == "nvidia" and args.block_size is not None and args.block_size % SMALLEST_BLOCK:
        raise ConfigError(
            f"block_size is {args.block_size}; every attention backend needs a multiple of {SMALLEST_BLOCK}"
        )
    if args.kv_cache_dtype not in CACHE_DTYPES:
        known = ", ".join(sorted(CACHE_DTYPES))
        raise ConfigError(f"kv_cache_dtype {args.kv_cache_dtype!r} is not known here; known are {known}")


def _dtype(name: str) -> str:
    known = {
        "half": "float16",
        "float16": "float16",
        "bfloat16": "bfloat16",
        "float": "float32",
        "float32": "float32",
    }
    if name not in known:
        raise ConfigError(
            f"dtype {name!r} is not one of {', '.join(sorted(known))}; "
            "quantised weights are asked for by quantization, for example quantization fp8"
        )
    return known[name]


def _batch_limits(args: EngineArgs, layout: Layout, gpu: GpuSpec, max_model_len: int) -> tuple[int, int]:
    """`EngineArgs.get_batch_defaults` for the API server, and the clipping after it."""
    default_sequences, default_tokens = _batch_defaults(layout, gpu)
    sequences = args.max_num_seqs or default_sequences
    tokens = args.max_num_batched_tokens or min(sequences * max_model_len, default_tokens)
    return args.max_num_seqs or min(sequences, tokens), tokens


def _expert_padding(quantization: Quantization | None, gpu: GpuSpec) -> ExpertPadding:
    if quantization is None or quantization.weight_format != "mxfp4" or gpu.vendor == "cpu":
        return UNPADDED
    capability = gpu.cuda_capability
    return _MXFP4_PADDING_HOPPER if capability is not None and capability[0] == 9 else _MXFP4_PADDING


def _batch_defaults(layout: Layout, gpu: GpuSpec) -> tuple[int, int]:
    if gpu.vendor == "cpu":
        workers = layout.tensor * layout.pipeline
        return 128 * workers, 2048 * workers
    if gpu.memory_bytes >= 160 * GIB:
        return 1024, 16384
    # vLLM found large batches slower on A100s, whatever their memory.
    if gpu.memory_bytes >= 70 * GIB and "a100" not in gpu.product.lower():
        return 1024, 8192
    return 256, 2048


def _concurrent_batches(args: EngineArgs, layout: Layout, gpu: GpuSpec) -> int:
    """`VllmConfig.max_concurrent_batches`; the CPU platform switches asynchronous scheduling off."""
    ahead = args.async_scheduling and gpu.vendor != "cpu"
    return layout.pipeline + ahead


def _largest_graph(args: EngineArgs, gpu: GpuSpec, sequences: int, tokens: int) -> int:
    """`VllmConfig._set_cudagraph_sizes`: twice the sequences, at most 512, 1024 on Blackwell."""
    if args.enforce_eager or gpu.vendor == "cpu":
        return 0
    if args.max_cudagraph_capture_size is not None:
        return min(args.max_cudagraph_capture_size, tokens)
    capability = gpu.cuda_capability
    ceiling = 1024 if capability is not None and capability[0] == 10 else 512
    return min(sequences * (1 + args.num_speculative_tokens) * 2, ceiling, tokens)


def effective_quantization(args: EngineArgs, spec: ModelSpec) -> Quantization | None:
    """The checkpoint's own scheme, or one asked for and applied while loading."""
    if spec.quantization is not None or args.quantization is None:
        return spec.quantization
    scheme = _ONLINE.get(args.quantization)
    if scheme is None:
        raise ConfigError(
            f"quantization {args.quantization!r} needs a checkpoint stored so, and {spec.name} is not; "
            f"while loading the engine can apply {', '.join(sorted(_ONLINE))}"
        )
    return Quantization(args.quantization, (QuantizationRule(scheme),), in_checkpoint=False)


def cache_format(args: EngineArgs, spec: ModelSpec, gpu: GpuSpec) -> tuple[str, int]:
    """Type and tokens per block of the cache, by the attention backend vLLM picks for the GPU.

    Priorities and block sizes: vllm/platforms/cuda.py `_get_backend_priorities`, cpu.py, and
    `get_supported_kernel_block_sizes` of the backends in vllm/v1/attention/backends/.
    """
    wanted = args.kv_cache_dtype
    if wanted == "auto" and spec.quantization is not None and spec.quantization.kv_cache_dtype:
        wanted = spec.quantization.kv_cache_dtype
    is_fp8 = wanted in FP8_CACHE or wanted == "fp8_ds_mla"
    plain = spec.dtype if args.dtype == "auto" else _dtype(args.dtype)
    dtype = "fp8" if is_fp8 else (plain if wanted == "auto" else wanted)
    if not isinstance(spec.attention, LatentAttention):
        return dtype, _grouped_block_size(args, spec, gpu)
    sparse = spec.attention.indexer is not None
    if sparse:
        dtype = _sparse_dtype(wanted, dtype, gpu)
    return dtype, args.block_size or _latent_block_size(sparse, is_fp8, gpu)


def _sparse_dtype(wanted: str, dtype: str, gpu: GpuSpec) -> str:
    """FlashMLA packs an FP8 cache with its scales; FlashInfer on data-centre Blackwell does not."""
    capability = gpu.cuda_capability
    if wanted == "fp8_ds_mla" or (dtype == "fp8" and capability is not None and capability[0] != 10):
        return "fp8_ds_mla"
    return dtype


def _grouped_block_size(args: EngineArgs, spec: ModelSpec, gpu: GpuSpec) -> int:
    """Where every layer slides, the block is the backend's smallest, whatever is asked for."""
    on_cpu = gpu.vendor == "cpu"
    if all(layer.window is not None and not layer.chunked for layer in spec.layers):
        return 32 if on_cpu else DEFAULT_BLOCK_SIZE
    return args.block_size or (128 if on_cpu else DEFAULT_BLOCK_SIZE)


def _latent_block_size(sparse: bool, is_fp8: bool, gpu: GpuSpec) -> int:
    if gpu.vendor == "cpu":
        return DEFAULT_BLOCK_SIZE
    if sparse:
        return 64  # FlashMLA, and the kernels of the indexer
    major = gpu.cuda_capability[0] if gpu.cuda_capability else 0
    if major == 9 and is_fp8:
        return 64  # FlashMLA
    return 32 if major == 10 else DEFAULT_BLOCK_SIZE  # FlashInfer; FlashAttention or Triton
