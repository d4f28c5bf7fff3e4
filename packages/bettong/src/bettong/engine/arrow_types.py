"""Names for Arrow values of a type that is only known at run time.

pyarrow's stubs describe each array class for itself and cannot narrow one by its `type`. Code that decides by
`pa.types.is_list(array.type)` and the like is checked by its tests instead; everywhere else pyarrow's own types count.
"""

from __future__ import annotations

from typing import Any, TypeAlias

Array: TypeAlias = Any  # a pa.Array
Kind: TypeAlias = Any  # a pa.DataType
