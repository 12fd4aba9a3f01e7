"""Vision towers of multimodal checkpoints, counted by the shapes of vLLM 0.29's classes.

Heads and wide layers are cut over a tensor group; norms, biases of outputs and positions are whole.
"""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.catalog.fields import Fields
from orchestrator.catalog.shapes import VisionTower
from orchestrator.errors import ConfigError

Reader = Callable[[Fields, Fields], VisionTower]


def read_vision(architecture: str, whole: Fields) -> VisionTower | None:
    """None for models of text alone."""
    reader = READERS.get(architecture)
    if reader is None:
        return None
    text = whole.part("text_config")
    if text is None:
        raise ConfigError(f"{whole.source}: text_config is missing; {architecture} needs it")
    return reader(whole.part("vision_config") or Fields({}, f"{whole.source}: vision_config"), text)


def _kimi_k25(vision: Fields, text: Fields) -> VisionTower:
    """`KimiK25ForConditionalGeneration`: MoonViT and a two-layer projector over merged patches."""
    hidden, wide = vision.size("vt_hidden_size"), vision.size("vt_intermediate_size")
    patch = vision.size("patch_size")
    positions = vision.size("init_pos_emb_height") * vision.size("init_pos_emb_width")
    merge = vision.pair("merge_kernel_size") or (2, 2)
    merged = vision.size("mm_hidden_size", default=hidden) * merge[0] * merge[1]
    out = text.size("hidden_size")
    depth = vision.size("vt_num_hidden_layers")
    projector = 2 * hidden + _linear(merged, merged) + _linear(merged, out)
    embeddings = _linear(3 * patch * patch, hidden) + positions * hidden + 2 * hidden
    return VisionTower(
        split_parameters=depth * _block_split(hidden, wide),
        whole_parameters=depth * _block_whole(hidden) + embeddings + projector,
    )


def _llama4(vision: Fields, text: Fields) -> VisionTower:
    """`Llama4ForConditionalGeneration`. A config without `vision_config` gets Transformers' defaults."""
    hidden, wide = vision.size("hidden_size", default=768), vision.size("intermediate_size", default=5632)
    patch, image = vision.size("patch_size", default=14), vision.size("image_size", default=448)
    inner = vision.size("projector_input_dim", default=4096)
    out = vision.size("projector_output_dim", default=4096)
    last = vision.size("vision_output_dim", default=7680)
    depth = vision.size("num_hidden_layers", default=34)
    positions = (image // patch) ** 2 + 1
    adapter = wide * inner + inner * out + last * text.size("hidden_size")
    return VisionTower(
        split_parameters=depth * _block_split(hidden, wide) + 3 * patch * patch * hidden + adapter,
        # A class token, positions, and layer norms before and after the encoder.
        whole_parameters=depth * _block_whole(hidden) + hidden + positions * hidden + 4 * hidden,
    )


def _linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def _block_split(hidden: int, wide: int) -> int:
    """Query, key, value and their biases; output; both layers of the MLP and the first one's bias."""
    return _linear(hidden, 3 * hidden) + hidden * hidden + _linear(hidden, wide) + wide * hidden


def _block_whole(hidden: int) -> int:
    """Two layer norms, and the biases added after a reduction."""
    return 4 * hidden + 2 * hidden


READERS: dict[str, Reader] = {
    "KimiK25ForConditionalGeneration": _kimi_k25,
    "Llama4ForConditionalGeneration": _llama4,
}
