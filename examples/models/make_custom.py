"""Make a zip of a CUSTOM model: python make_custom.py [FOLDER]

Its code is custom/bands.py, its data a file that this script writes; nothing but the standard library is needed.
"""

import json
import sys
import zipfile
from pathlib import Path

HERE = Path(__file__).parent


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / "bands.zip", "w") as archive:
        archive.write(HERE / "custom" / "bands.py", "bands.py")
        archive.writestr("requirements.txt", "")
        archive.writestr("artifacts/bands.json", json.dumps({"edges": [250.0, 450.0], "names": ["low", "mid", "high"]}))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
