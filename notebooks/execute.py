"""Executes the notebooks where they lie and saves them with their outputs (`make notebooks`).

What is saved is the same for the same inputs: no timings, no progress bars, no widget that would be
dead without its kernel. Every figure is saved twice: as plotly's own data, which JupyterLab draws
interactively, and as an SVG picture, which is what GitHub shows (drawing it needs a Chrome or Chromium).
"""

import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import plotly.io
from nbclient import NotebookClient
from nbformat import NotebookNode

from interp.files import write_text

HERE = Path(__file__).parent
PLOTLY, WIDGET = "application/vnd.plotly.v1+json", "application/vnd.jupyter.widget-view+json"
ENVIRONMENT = {
    "PLOTLY_RENDERER": "plotly_mimetype",
    "TQDM_DISABLE": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
WIDTH = 900
"""Of the pictures, in pixels."""


def main() -> None:
    """Executes the notebooks that are named, all of them by default, one after the other."""
    os.environ.update(ENVIRONMENT)
    picture({"data": [], "layout": {}})  # without a browser this fails now and not after minutes
    for path in map(Path, sys.argv[1:] or sorted(HERE.glob("*.ipynb"))):
        print(f"{path.name} …", flush=True)
        write_text(path, nbformat.writes(executed(path)) + "\n")


def executed(path: Path) -> NotebookNode:
    """A notebook with its outputs, in the form in which it is saved.

    Raises:
        CellExecutionError: a cell failed.
        RuntimeError: a cell wrote to standard error: a warning or a progress bar.
    """
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        store_widget_state=False,
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute()
    # Neither the version of Python nor what another program left there.
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = list(saved_outputs(cell.outputs))
    return notebook


def saved_outputs(outputs: list[NotebookNode]) -> Iterator[NotebookNode]:
    """The outputs of a cell that are worth saving; figures with their picture."""
    for output in outputs:
        if output.get("name") == "stderr":
            raise RuntimeError(f"A cell wrote to standard error:\n{output.text}")
        data = output.get("data", {})
        if PLOTLY in data:
            data["image/svg+xml"] = picture(data[PLOTLY])
        if WIDGET not in data and data != {"text/plain": ""}:  # what a progress bar leaves
            yield output


def picture(figure: dict[str, object]) -> str:
    """A figure as SVG on white paper: without, its labels would be hard to read on a dark page."""
    text = json.dumps({"data": figure["data"], "layout": figure["layout"]}, sort_keys=True)
    drawn = plotly.io.from_json(text)
    drawn.update_layout(paper_bgcolor="white", plot_bgcolor="white")
    height = drawn.layout.height or 450
    svg = drawn.to_image(format="svg", width=WIDTH, height=height).decode()
    # Plotly marks parts of a picture with random numbers: the same ones for the same figure.
    mark = re.search(r'id="defs-([0-9a-f]{6})"', svg)
    own = hashlib.sha256(text.encode()).hexdigest()[:6]
    svg = svg.replace(mark[1], own) if mark else svg
    return re.sub(r"\btrace[0-9a-f]{6}\b", "trace", svg)


if __name__ == "__main__":
    main()
