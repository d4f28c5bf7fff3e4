"""Workers on other Pythons with other packages than the platform's: the frames are all they share."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from worker_builders import artifact, install_mac, model_spec, runner_of, table

pytestmark = [pytest.mark.framework, pytest.mark.timeout(600)]

UV = shutil.which("uv", path=Path(sys.executable).parent)
KINDS: dict[str, pa.DataType] = {
    "equal": pa.list_(pa.int32()),
    "ragged": pa.list_(pa.float32()),
    "nested": pa.list_(pa.list_(pa.int64())),
    "text": pa.string(),
    "when": pa.timestamp("ns"),
    "struct": pa.struct([("x", pa.float64()), ("tags", pa.list_(pa.string()))]),
    "price": pa.decimal128(9, 2),
    "flag": pa.bool_(),
}
OUTPUT: dict[str, pa.DataType] = {
    **KINDS,
    "python": pa.string(),
    "numpy": pa.string(),
    "pyarrow": pa.string(),
    "stolen": pa.string(),
}
MODEL = """
    import os
    import sys
    import numpy as np
    from mac.types import InferenceData

    try:
        import pyarrow
        arrow = pyarrow.__version__
    except ImportError:
        arrow = "none"

    def steal(path):
        stolen = []
        for action in (
            lambda: open(path).read(),
            lambda: os.listdir(os.path.dirname(path)),
            lambda: open(np.__file__, "a"),
            lambda: open(os.path.join(os.path.dirname(path), "new"), "w"),
        ):
            try:
                stolen.append(str(action()))
            except OSError:
                pass
        return ",".join(stolen)

    def process_data(input_data: InferenceData) -> InferenceData:
        assert input_data["equal"].shape == (3, 2), input_data["equal"].shape
        assert input_data["ragged"].dtype == object
        n = len(input_data["text"])
        return dict(
            input_data,
            python=np.array(["%d.%d" % sys.version_info[:2]] * n),
            numpy=np.array([np.__version__] * n),
            pyarrow=np.array([arrow] * n),
            stolen=np.array([steal(path) for path in input_data["text"]]),
        )
"""


def interpreter(version: str) -> Path:
    """An installed Python of this version, one of pyenv's or on the PATH. Its absence is a failure, not a skip."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    if found := sorted(pyenv.glob(f"{version}.*/bin/python{version}")):
        return found[-1]
    if on_path := shutil.which(f"python{version}"):
        return Path(on_path)
    pytest.fail(f"Python {version} is not installed; these tests need it (pyenv install {version}).")


def uv_environment(folder: Path, python: str, *packages: str) -> Path:
    """A real environment of another interpreter."""
    assert UV, "uv is not installed beside this Python"
    make = [UV, "venv", "-q", "--no-python-downloads", "--python", str(interpreter(python)), str(folder)]
    subprocess.run(make, check=True)
    install = [UV, "pip", "install", "-q", "--python", str(folder / "bin" / "python"), *packages]
    subprocess.run(install, check=True)
    install_mac(next(folder.glob("lib/*/site-packages")))
    return folder


@pytest.mark.parametrize(
    ("python", "packages", "expected"),
    [
        ("3.8", ["numpy<2", "pyarrow==8.0.0"], {"python": "3.8", "pyarrow": "8.0.0"}),
        ("3.8", ["numpy==1.17.5"], {"python": "3.8", "numpy": "1.17.5", "pyarrow": "none"}),
        ("3.11", ["numpy"], {"python": "3.11", "pyarrow": "none"}),
        ("3.11", ["numpy<2", "pyarrow==14.0.1"], {"python": "3.11", "pyarrow": "14.0.1"}),
        ("3.13", ["numpy"], {"python": "3.13", "pyarrow": "none"}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else str(value)[:6],
)
def test_rows_of_every_shape_come_back_from_any_environment_and_nothing_is_stolen(
    tmp_path: Path, python: str, packages: list[str], expected: dict[str, str]
) -> None:
    treasures = [tmp_path / "home" / "keys" / "one", tmp_path / "home" / "token", tmp_path / "other" / "pyvenv.cfg"]
    for treasure in treasures:
        treasure.parent.mkdir(parents=True, exist_ok=True)
        treasure.write_text("TREASURE")
    environment = uv_environment(tmp_path / "environments" / "mine", python, *packages)
    model = model_spec(artifact(tmp_path / "artifact", MODEL), environment, KINDS, OUTPUT)
    rows = table(
        KINDS,
        {
            "equal": [[1, 2], [3, 4], [5, 6]],
            "ragged": [[0.5], [], [1.5, 2.5]],
            "nested": [[[1], [2, 3]], [], [[4, 5, 6]]],
            "text": [str(path) for path in treasures],
            "when": [1, 2, 3],
            "struct": [{"x": 1.0, "tags": ["a"]}, {"x": 2.0, "tags": []}, {"x": 3.0, "tags": ["b", "c"]}],
            "price": [1, 2, 3],
            "flag": [True, False, True],
        },
    )

    async def story() -> pa.Table:
        runner = runner_of(model, tmp_path)
        await runner.start()
        answer = await runner.predict(rows)
        await runner.close()
        return answer

    answer = asyncio.run(story())

    assert answer.select(list(KINDS)).equals(rows)
    for name, value in expected.items():
        assert answer[name].to_pylist() == [value] * 3
    assert answer["stolen"].to_pylist() == [""] * 3
