"""What the builder of a CUSTOM model is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Union


class CustomInferenceConfig:
    """`model_path` is the folder of the unzipped artifact; what else was given to `CustomConfig` is an attribute, too.

    `extra` has these other options as a dict, for names that are no identifiers.
    """

    framework = "custom"

    def __init__(self, model_path: Union[str, Path], **extra: Any) -> None:
        self.extra: Dict[str, Any] = dict(extra)
        for name, value in extra.items():
            setattr(self, name, value)
        self.model_path = Path(model_path)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            "The config has no '%s'. It has: %s. Pass others to CustomConfig when uploading."
            % (name, ", ".join(["model_path", *sorted(self.__dict__.get("extra", {}))]))
        )

    def __repr__(self) -> str:
        return "CustomInferenceConfig(%s)" % ", ".join(["model_path", *sorted(self.extra)])


__all__ = ["CustomInferenceConfig"]
