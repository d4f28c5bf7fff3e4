"""The parts of a deployment config that are about one model, or about the machine."""

from __future__ import annotations

from typing import Any

from bettong.errors import BadInput

_RESERVED = ("BETTONG_", "WALLAROO_")


def wanted_arch(config: dict[str, Any]) -> str | None:
    """The architecture a config asks for, None when it leaves that open.

    Raises:
        BadInput: it asks for an accelerator.
    """
    engine = config.get("engine", {})
    if not isinstance(engine, dict):
        return None
    if engine.get("accel") not in (None, "none"):
        raise BadInput("Deployment config asks for an accelerator.", "This release runs on CPUs; leave accel() out.")
    arch = engine.get("arch")
    if arch is not None and not isinstance(arch, str):
        raise BadInput("Deployment config has an architecture that is not a text.", "Leave arch() out.")
    return arch


def sidekick_env(config: dict[str, Any], uid: str) -> dict[str, str]:
    """The environment variables that a config gives to the worker of one model.

    Raises:
        BadInput: they are not a list of {"name", "value"} texts, or one is a name of the platform's own.
    """
    block: object = config
    for key in ("engineAux", "images", uid):
        block = block.get(key, {}) if isinstance(block, dict) else {}
    items = block.get("env", []) if isinstance(block, dict) else []
    if not isinstance(items, list):
        raise _malformed(uid)
    env: dict[str, str] = {}
    for item in items:
        name = item.get("name") if isinstance(item, dict) else None
        value = item.get("value") if isinstance(item, dict) else None
        if not isinstance(name, str) or not isinstance(value, str) or not name or "=" in name or "\0" in name + value:
            raise _malformed(uid)
        if name.startswith(_RESERVED):
            raise BadInput(
                f"The environment for model '{uid}' sets '{name}'.",
                f"Names starting with {' or '.join(_RESERVED)} are the platform's; choose another.",
            )
        env[name] = value
    return env


def _malformed(uid: str) -> BadInput:
    return BadInput(
        f"The environment for model '{uid}' is not a list of names and values.",
        'Write it as [{"name": "A", "value": "1"}], or use sidekick_env(model, {"A": "1"}).',
    )
