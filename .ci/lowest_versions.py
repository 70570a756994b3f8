"""Print the lowest versions that pyproject.toml declares for what is wrapped, as pins for pip."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
extras = project["optional-dependencies"]
for requirement in [*project["dependencies"], *extras["s3"], *extras["azure"]]:
    match = re.fullmatch(r"([a-z0-9]+)>=([0-9.]+)", requirement)
    if match is None:
        raise SystemExit(f"{requirement!r} declares no lower bound of the form name>=version")
    print("==".join(match.groups()))
