"""Frameworks of uploaded models, and the options some of them take."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any, ClassVar

from wallaroo.object import ModelOptimizationConfigError


class Framework(str, Enum):  # noqa: UP042 - StrEnum needs Python 3.11
    """What a model file is. The platform refuses, by name, the ones its release does not run."""

    ONNX = "onnx"
    TENSORFLOW = "tensorflow"
    PYTHON = "python"
    KERAS = "keras"
    SKLEARN = "sklearn"
    PYTORCH = "pytorch"
    XGBOOST = "xgboost"
    CUSTOM = "custom"
    MLFLOW = "mlflow"
    VLLM = "vllm"
    SGLANG = "sglang"
    HUGGING_FACE_AUTOMATIC_SPEECH_RECOGNITION = "hugging-face-automatic-speech-recognition"
    HUGGING_FACE_FEATURE_EXTRACTION = "hugging-face-feature-extraction"
    HUGGING_FACE_IMAGE_CLASSIFICATION = "hugging-face-image-classification"
    HUGGING_FACE_IMAGE_SEGMENTATION = "hugging-face-image-segmentation"
    HUGGING_FACE_IMAGE_TO_TEXT = "hugging-face-image-to-text"
    HUGGING_FACE_OBJECT_DETECTION = "hugging-face-object-detection"
    HUGGING_FACE_QUESTION_ANSWERING = "hugging-face-question-answering"
    HUGGING_FACE_STABLE_DIFFUSION_TEXT_2_IMG = "hugging-face-stable-diffusion-text-2-img"
    HUGGING_FACE_SUMMARIZATION = "hugging-face-summarization"
    HUGGING_FACE_TEXT_CLASSIFICATION = "hugging-face-text-classification"
    HUGGING_FACE_TRANSLATION = "hugging-face-translation"
    HUGGING_FACE_ZERO_SHOT_CLASSIFICATION = "hugging-face-zero-shot-classification"
    HUGGING_FACE_ZERO_SHOT_IMAGE_CLASSIFICATION = "hugging-face-zero-shot-image-classification"
    HUGGING_FACE_ZERO_SHOT_OBJECT_DETECTION = "hugging-face-zero-shot-object-detection"
    HUGGING_FACE_SENTIMENT_ANALYSIS = "hugging-face-sentiment-analysis"
    HUGGING_FACE_TEXT_GENERATION = "hugging-face-text-generation"

    def __str__(self) -> str:
        return self.value

    @property
    def native(self) -> bool:
        """Runs in the engine itself: uploaded without conversion."""
        return self in (Framework.ONNX, Framework.TENSORFLOW)

    @property
    def needs_schemas(self) -> bool:
        return not self.native and self not in (Framework.VLLM, Framework.SGLANG)


def _check(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} is '{value}'. It is one of: {', '.join(known)}.")


@dataclass(frozen=True)
class VLLMConfig:
    """Options of the vLLM runtime."""

    framework: ClassVar[Framework] = Framework.VLLM
    quantizations: ClassVar[tuple[str, ...]] = (
        "none", "aqlm", "awq", "awq_marlin", "bitsandbytes", "compressed-tensors", "deepspeedfp", "experts_int8",
        "fbgemm_fp8", "fp8", "gguf", "gptq", "gptq_marlin", "gptq_marlin24", "hqq", "ipex", "marlin", "modelopt",
        "mxfp6", "neuron_quant", "qqq", "tpu_int8",
    )  # fmt: skip
    cache_dtypes: ClassVar[tuple[str, ...]] = ("auto", "fp8", "fp8_e4m3", "fp8_e5m2", "mxint8")

    max_num_seqs: int = 256
    max_model_len: int | None = None
    max_seq_len_to_capture: int | None = None
    quantization: str = "none"
    kv_cache_dtype: str = "auto"
    gpu_memory_utilization: float = 0.9
    block_size: int | None = None
    device_group: list[int] | None = None
    enable_auto_tool_choice: bool | None = None
    tool_call_parser: str | None = None

    def __post_init__(self) -> None:
        _check("quantization", self.quantization, self.quantizations)
        _check("kv_cache_dtype", self.kv_cache_dtype, self.cache_dtypes)
        if self.tool_call_parser == "":
            raise ValueError("tool_call_parser is empty. Name a parser, or leave it out.")

    def to_dict(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class SGLangConfig:
    """Options of the SGLang runtime."""

    framework: ClassVar[Framework] = Framework.SGLANG
    quantizations: ClassVar[tuple[str, ...]] = (
        "none", "awq", "awq_marlin", "bitsandbytes", "fp8", "gguf", "gptq", "gptq_marlin", "marlin", "modelopt",
        "w8a8_fp8", "w8a8_int8",
    )  # fmt: skip
    cache_dtypes: ClassVar[tuple[str, ...]] = ("auto", "fp8_e4m3", "fp8_e5m2")

    mem_fraction_static: float = 0.8
    max_running_requests: int = 64
    context_length: int = 2048
    max_prefill_tokens: int = 2048
    chunked_prefill_size: int = 1024
    page_size: int = 16
    quantization: str = "none"
    kv_cache_dtype: str = "auto"

    def __post_init__(self) -> None:
        _check("quantization", self.quantization, self.quantizations)
        _check("kv_cache_dtype", self.kv_cache_dtype, self.cache_dtypes)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class CustomConfig:
    """Options of a CUSTOM model: `model_path`, and whatever else its own builder reads."""

    framework: ClassVar[Framework] = Framework.CUSTOM

    def __init__(self, model_path: str = "./model/", **extra: Any) -> None:
        self.model_path = model_path
        self.extra = extra

    def to_dict(self) -> dict[str, Any]:
        return {"model_path": self.model_path, **self.extra}


FrameworkConfig = VLLMConfig | SGLangConfig | CustomConfig


def config_to_wire(framework: Framework, config: FrameworkConfig | None) -> dict[str, Any] | None:
    """The `framework_config` of an upload.

    Raises:
        ModelOptimizationConfigError: `config` belongs to another framework, or is none of the config classes.
    """
    if config is None:
        return None
    if not isinstance(config, (VLLMConfig, SGLangConfig, CustomConfig)) or config.framework is not framework:
        raise ModelOptimizationConfigError(
            f"framework_config is a {type(config).__name__}, which does not fit framework '{framework}'. "
            "VLLM takes a VLLMConfig, SGLANG an SGLangConfig, CUSTOM a CustomConfig; leave it out for the others."
        )
    return {"framework": framework.value, "config": config.to_dict()}
