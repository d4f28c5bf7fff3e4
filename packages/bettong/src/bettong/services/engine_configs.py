"""The parts of a deployment config that are about one model, or about the machine.

Workers' variables often hold secrets. Their values are kept sealed, `{"name", "sealed"}` in place of
`{"name", "value"}`, and shown as a mask.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from bettong.domain.deployments import parse_cpus
from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable

    from bettong.domain.ports import Keyring

    Variable = dict[str, Any]

MASK = "*****"
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
    items = _image(config, uid).get("env", [])
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


def sidekick_cpus(config: dict[str, Any], uid: str) -> int:
    """The whole CPUs that a config gives to the worker of one model, at least one; 0 when it gives none.

    Raises:
        BadInput: they are no number above zero.
    """
    resources = _image(config, uid).get("resources", {})
    limits = resources.get("limits", {}) if isinstance(resources, dict) else {}
    cpus = limits.get("cpu") if isinstance(limits, dict) else None
    return 0 if cpus is None else max(1, int(parse_cpus(cpus)))


def sealed(config: dict[str, Any], before: dict[str, Any], keyring: Keyring, bound_to: str) -> dict[str, Any]:
    """`config` to be kept. A mask stands for what the variable has in `before`, the config that is replaced.

    Raises:
        BadInput: a variable is a mask, and had no value before.
        Unavailable: the ring has no key to seal with.
    """
    known = {(uid, item["name"]): item for uid, item in _variables(before)}

    def seal(uid: str, item: Variable) -> Variable:
        value = item.get("value")
        if value == MASK:
            if (uid, item["name"]) not in known:
                raise BadInput(
                    f"The environment for model '{uid}' sets '{item['name']}' to {MASK}, which stands for a hidden "
                    "value, and there was none.",
                    "Give the value itself.",
                )
            return known[uid, item["name"]]
        if not isinstance(value, str):
            return item
        plain = value.encode("utf-8", "surrogatepass")
        text = base64.b64encode(keyring.seal(plain, bound_to=_bound(bound_to, uid, item["name"]))).decode()
        return {"name": item["name"], "sealed": text}

    return _replaced(config, seal)


def opened(config: dict[str, Any], keyring: Keyring, bound_to: str) -> dict[str, Any]:
    """A kept config with the values of its variables, for who starts a worker.

    Raises:
        Unavailable: no key of the ring opens one.
    """

    def value(uid: str, item: Variable) -> Variable:
        if "sealed" not in item:
            return item
        plain = keyring.open(base64.b64decode(item["sealed"]), bound_to=_bound(bound_to, uid, item["name"]))
        return {"name": item["name"], "value": plain.decode("utf-8", "surrogatepass")}

    return _replaced(config, value)


def masked(config: dict[str, Any]) -> dict[str, Any]:
    """A config to be shown."""
    return _replaced(config, lambda _, item: {"name": item["name"], "value": MASK})


def resealed(config: dict[str, Any], keyring: Keyring, bound_to: str) -> dict[str, Any]:
    """A kept config with each of its variables sealed anew, under the first key of the ring.

    Raises:
        Unavailable: no key of the ring opens one.
    """

    def again(uid: str, item: Variable) -> Variable:
        if "sealed" not in item:
            return item
        bound = _bound(bound_to, uid, item["name"])
        plain = keyring.open(base64.b64decode(item["sealed"]), bound_to=bound)
        return {"name": item["name"], "sealed": base64.b64encode(keyring.seal(plain, bound_to=bound)).decode()}

    return _replaced(config, again)


def sealed_values(config: dict[str, Any]) -> list[bytes]:
    """Every sealed value of a kept config, as it is."""
    return [base64.b64decode(item["sealed"]) for _, item in _variables(config) if "sealed" in item]


def has_sealed(config: dict[str, Any]) -> bool:
    """Whether a kept config has a variable under a key."""
    return any("sealed" in item for _, item in _variables(config))


def _image(config: dict[str, Any], uid: str) -> dict[str, Any]:
    """What a config says of one model's worker; nothing when it says nothing that can be read."""
    block: object = config
    for key in ("engineAux", "images", uid):
        block = block.get(key, {}) if isinstance(block, dict) else {}
    return block if isinstance(block, dict) else {}


def _variables(config: dict[str, Any]) -> list[tuple[str, Variable]]:
    """Every variable of every model, with the model's uid."""
    found: list[tuple[str, Variable]] = []

    def seen(uid: str, item: Variable) -> Variable:
        found.append((uid, item))
        return item

    _replaced(config, seen)
    return found


def _replaced(config: dict[str, Any], change: Callable[[str, Variable], Variable]) -> dict[str, Any]:
    """A copy with each variable as `change(uid, variable)` has it. What has not the form of one is left as it is."""
    aux = config.get("engineAux")
    images = aux.get("images") if isinstance(aux, dict) else None
    if not isinstance(aux, dict) or not isinstance(images, dict):
        return config
    changed = {}
    for uid, image in images.items():
        items = image.get("env") if isinstance(image, dict) else None
        if isinstance(items, list):
            image = {**image, "env": [change(uid, item) if _is_variable(item) else item for item in items]}
        changed[uid] = image
    return {**config, "engineAux": {**aux, "images": changed}}


def _is_variable(item: object) -> bool:
    return isinstance(item, dict) and isinstance(item.get("name"), str)


def _bound(bound_to: str, uid: str, name: str) -> str:
    return f"{bound_to}/{uid}/{name}"


def _malformed(uid: str) -> BadInput:
    return BadInput(
        f"The environment for model '{uid}' is not a list of names and values.",
        'Write it as [{"name": "A", "value": "1"}], or use sidekick_env(model, {"A": "1"}).',
    )
