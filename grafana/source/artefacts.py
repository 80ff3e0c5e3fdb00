"""From dashboard builders to the committed files, and whether the two still agree."""

import json
from collections.abc import Callable
from pathlib import Path

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from grafana.source import tool_usage

DIRECTORY = Path(__file__).resolve().parent.parent / "dashboards"

DASHBOARDS: tuple[Callable[[], Dashboard], ...] = (tool_usage.dashboard,)


def render() -> dict[str, str]:
    """File name to text of every dashboard. The stem is the uid; keys are sorted, so equal sources give equal bytes."""
    models = [build().build() for build in DASHBOARDS]
    return {
        f"{model.uid}.json": json.dumps(model, cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        for model in models
    }


def stale(directory: Path = DIRECTORY) -> list[str]:
    """Names of the files that are missing, differ from their source, or have no source any more."""
    wanted = render()
    present = {path.name: path.read_text(encoding="utf-8") for path in directory.glob("*.json")}
    return sorted(name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name))


def write(directory: Path = DIRECTORY) -> list[str]:
    """Bring the directory up to date. Returns the names of what changed, removed files included."""
    wanted = render()
    changed = stale(directory)
    directory.mkdir(parents=True, exist_ok=True)
    for name in changed:
        if name in wanted:
            (directory / name).write_text(wanted[name], encoding="utf-8")
        else:
            (directory / name).unlink()
    return changed
